//! Edits of dead letters: a person's change to some fields of a record that could not pass, entering at the stage that failed.
//!
//! An edit waits in a note of the realm until the reader or lane of its participant takes it up. It is the person's word for the edited
//! fields only: what the system is known to hold stays what it really holds, so a corrected source record is also put right at its source.
//! When the corrected record is through, the dead letter closes as edited, with the author; if it fails again, the new letter names it.
//!
//! An edit answers one letter and ends with its record's next result, whichever that is (a retry is none): what was refused once more, or
//! was overtaken by a later good version, or was given up, must not come back with another letter of the same record.

use fairlead_model::{Document, FieldPath, Timestamp, document};
use fairlead_store::archive::{CORRECTED, CORRECTION};
use fairlead_store::{CloseDeadLetters, CloseReason, DeadLetter, DeadLetterFilter, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// So long after it was closed as edited, the commit that this announced may be repeated. An edit that is found later was committed, and
/// only forgetting it was prevented.
const REPEATED_WITHIN: Duration = Duration::from_secs(3600);

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

/// What was corrected of a letter, also when the correction is through or was given up; the last time, if it was several.
pub(crate) async fn corrected(store: &dyn Store, realm: &str, letter: i64) -> Result<Option<Edit>, StoreError> {
    let found = store.note(realm, &format!("{CORRECTED}{letter}")).await?;
    Ok(found.and_then(|found| serde_json::from_value(found).ok()))
}

/// One note per record, so that a person who adds an edit and the engine that forgets another never overwrite each other.
fn note(participant: &str, key: &str) -> String {
    format!("{CORRECTION}{participant}/{key}")
}

/// The edits that wait for these records. Those whose letter is no longer to be corrected are forgotten.
pub async fn waiting(
    store: &dyn Store,
    realm: &str,
    participant: &str,
    keys: impl Iterator<Item = String>,
    now: Timestamp,
) -> Result<Edits, StoreError> {
    let mut edits = Edits::new();
    for key in keys {
        if let Some(edit) = find(store, realm, participant, &key).await? {
            edits.insert(key, edit);
        }
    }
    if edits.is_empty() {
        return Ok(edits);
    }
    let ids = edits.values().map(|edit| edit.letter).collect();
    let letters = store.dead_letters(&DeadLetterFilter { ids, closed: true, max: edits.len(), ..DeadLetterFilter::default() }).await?;
    let holds = |edit: &Edit| letters.iter().any(|letter| letter.id == edit.letter && is_to_be_corrected(letter, now));
    let over: Vec<String> = edits.iter().filter(|(_, edit)| !holds(edit)).map(|(key, _)| key.clone()).collect();
    edits.retain(|key, _| !over.contains(key));
    forget(store, realm, participant, &over).await?;
    Ok(edits)
}

/// Whether a correction of this letter still has something to correct. A replay takes it along; so does the repetition of a commit that a
/// crash prevented after the letter had been closed for it.
fn is_to_be_corrected(letter: &DeadLetter, now: Timestamp) -> bool {
    match &letter.closed {
        None | Some((CloseReason::Replayed, ..)) => true,
        Some((CloseReason::Edited, at, _)) => now.since(*at) < REPEATED_WITHIN,
        Some((CloseReason::Superseded | CloseReason::Discarded, ..)) => false,
    }
}

/// The edit of one record, whatever became of its letter.
pub(crate) async fn find(store: &dyn Store, realm: &str, participant: &str, key: &str) -> Result<Option<Edit>, StoreError> {
    let found = store.note(realm, &note(participant, key)).await?;
    Ok(found.and_then(|found| serde_json::from_value(found).ok()))
}

/// Adds an edit; an older one of the same record is replaced.
pub async fn add(store: &dyn Store, realm: &str, participant: &str, key: &str, edit: &Edit) -> Result<(), StoreError> {
    let value = serde_json::to_value(edit).unwrap_or(Value::Null);
    // What is told of it first: it stays with the letter, whatever becomes of the correction.
    store.put_note(realm, &format!("{CORRECTED}{}", edit.letter), &value).await?;
    store.put_note(realm, &note(participant, key), &value).await
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

/// Forgets edits whose records have a result.
pub(crate) async fn forget(store: &dyn Store, realm: &str, participant: &str, keys: &[String]) -> Result<(), StoreError> {
    for key in keys {
        store.put_note(realm, &note(participant, key), &Value::Null).await?;
    }
    Ok(())
}
