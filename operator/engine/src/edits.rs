//! Edits of dead letters: a person's change to some fields of a record that could not pass, entering at the stage that failed.
//!
//! An edit waits in a note of the realm until the reader or lane of its participant takes it up. It is the person's word for the edited
//! fields only: what the system is known to hold stays what it really holds, so a corrected source record is also put right at its source.
//! When the corrected record is through, the dead letter closes as edited, with the author; if it fails again, the new letter names it.

use fairlead_model::{Document, FieldPath, Timestamp, document};
use fairlead_store::{CloseDeadLetters, CloseReason, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One edit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The dead letter.
    pub letter: i64,
    /// Who edits.
    pub author: String,
    /// When.
    pub at: Timestamp,
    /// Native path and new value.
    pub set: BTreeMap<FieldPath, Value>,
}

impl Edit {
    /// The record as the person would have it.
    pub fn apply(&self, body: &mut Document) {
        for (path, value) in &self.set {
            document::set(body, path, value.clone());
        }
    }
}

/// The edits that wait for one participant, by external id (for its reader) or record id (for its lane).
pub type Edits = BTreeMap<String, Edit>;

fn note(participant: &str) -> String {
    format!("edits/{participant}")
}

/// The edits that wait.
pub async fn waiting(store: &dyn Store, realm: &str, participant: &str) -> Result<Edits, StoreError> {
    let note = store.note(realm, &note(participant)).await?;
    Ok(note.and_then(|note| serde_json::from_value(note).ok()).unwrap_or_default())
}

/// Adds an edit; an older one of the same record is replaced.
pub async fn add(store: &dyn Store, realm: &str, participant: &str, key: String, edit: Edit) -> Result<(), StoreError> {
    let mut edits = waiting(store, realm, participant).await?;
    edits.insert(key, edit);
    save(store, realm, participant, &edits).await
}

/// Closes the letters of edits that are about to be committed. The edits themselves are kept until [`forget`]: a crash in between repeats
/// the commit, and the correction is not lost.
pub(crate) async fn close(store: &dyn Store, edits: &Edits, keys: &[String], now: Timestamp) -> Result<(), StoreError> {
    for edit in keys.iter().filter_map(|key| edits.get(key)) {
        let close = CloseDeadLetters { ids: vec![edit.letter], reason: CloseReason::Edited, author: edit.author.clone(), now };
        store.close_dead_letters(&close).await?;
    }
    Ok(())
}

/// Forgets edits that are committed.
pub(crate) async fn forget(store: &dyn Store, realm: &str, participant: &str, keys: &[String]) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut edits = waiting(store, realm, participant).await?;
    edits.retain(|key, _| !keys.contains(key));
    save(store, realm, participant, &edits).await
}

async fn save(store: &dyn Store, realm: &str, participant: &str, edits: &Edits) -> Result<(), StoreError> {
    store.put_note(realm, &note(participant), &serde_json::to_value(edits).unwrap_or(Value::Null)).await
}
