//! What people do with checkpoints: look at them, and set one. Works beside a running engine, in this process or another: its reader's lease
//! ends with the commit, so that nothing it has in hand is committed, and it begins anew from the checkpoint that was set.

use crate::decide::cursor::{self, Wanted};
use crate::names::{self, NameError, Place};
use crate::program;
use crate::shared;
use fairlead_model::Timestamp;
use fairlead_model::hash::ValueHash;
use fairlead_store::{SetCheckpoint, Standing, Store, StoreError};
use serde_json::{Value, json};

/// How often a checkpoint is looked up again that moved meanwhile.
const ATTEMPTS: u32 = 20;

/// Why nothing was set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A name that nothing has.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The participant has none.
    #[error("{participant} has no checkpoint {slice:?}; {}", names::listed(.known))]
    None {
        /// The participant.
        participant: String,
        /// What was asked for.
        slice: String,
        /// The slices that have one.
        known: Vec<String>,
    },
    /// Not of the kind that stands there.
    #[error("{0}")]
    Cursor(String),
    /// Something would never be read.
    #[error("this would skip {0}; say --skip if nobody needs that")]
    Skips(String),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A checkpoint to set.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    /// The Integration, as namespace/name.
    pub integration: &'a str,
    /// The participant.
    pub participant: &'a str,
    /// The slice.
    pub slice: &'a str,
    /// Where to begin.
    pub wanted: &'a Wanted,
    /// Whether something may be skipped.
    pub skip: bool,
    /// Who decides so; noted.
    pub author: &'a str,
    /// The present moment.
    pub now: Timestamp,
}

/// What was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The cursor that stood there.
    pub before: Value,
    /// The one that stands there now.
    pub after: Value,
    /// What nobody will read because of it.
    pub skips: Option<String>,
}

/// A checkpoint as people look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Whose records are read.
    pub realm: String,
    /// Where it stands.
    pub standing: Standing,
    /// The entity that is read, as far as the state tells.
    pub entity: Option<String>,
    /// How many records were read of the participant so far.
    pub read: u64,
}

/// The checkpoints of an Integration, or of all.
///
/// # Errors
/// [`NameError`].
pub async fn list(store: &dyn Store, integration: Option<&str>, now: Timestamp) -> Result<Vec<Listed>, NameError> {
    let places = match integration {
        Some(given) => vec![names::integration(store, given).await?],
        None => store.realms().await?.iter().map(|realm| Place::whole(realm)).collect(),
    };
    let mut listed = Vec::new();
    for place in places {
        let realm = &place.realm;
        let sources = store.snapshot(realm, now).await?.sources;
        for standing in store.checkpoints(realm).await? {
            if place.called(&standing.participant).is_none() {
                continue;
            }
            let table = store.note(realm, &program::table_note(&standing.participant)).await?;
            let entity = table.as_ref().and_then(|table| table.get("of")?.get(1)?.as_str()).map(str::to_owned);
            let read = sources.get(&standing.participant).map_or(0, |source| source.read);
            listed.push(Listed { realm: realm.clone(), standing, entity, read });
        }
    }
    Ok(listed)
}

/// Sets a checkpoint. What stood there, and who set it, is noted in the realm as `checkpoint/<participant>/<slice>`.
///
/// # Errors
/// [`CheckpointError`]: nothing was changed then.
pub async fn set(store: &dyn Store, set: &Set<'_>) -> Result<Changed, CheckpointError> {
    let Set { integration, participant: given, slice, wanted, skip, author, now } = *set;
    let member = names::participant(store, integration, given).await?;
    let (realm, participant) = (member.place.realm.as_str(), member.name.as_str());
    let fresh = ValueHash::of_text(&format!("{realm}/{participant}/{slice}/{}", now.0)).0;
    for _ in 0..ATTEMPTS {
        let standing = store.checkpoints(realm).await?;
        let of: Vec<_> =
            standing.into_iter().filter(|standing| standing.participant == participant).map(|standing| standing.checkpoint).collect();
        let Some(before) = of.iter().find(|checkpoint| checkpoint.slice == slice).cloned() else {
            let known = of.into_iter().map(|checkpoint| checkpoint.slice).collect();
            return Err(CheckpointError::None { participant: given.to_owned(), slice: slice.to_owned(), known });
        };
        let to = cursor::place(&before.cursor, wanted, fresh).map_err(CheckpointError::Cursor)?;
        if let Some(skips) = to.skips.clone().filter(|_| !skip) {
            return Err(CheckpointError::Skips(skips));
        }
        let note = json!({"at": now.0, "author": author, "from": before.cursor, "to": to.cursor, "skips": to.skips});
        let command = SetCheckpoint {
            realm: realm.to_owned(),
            participant: participant.to_owned(),
            before: before.clone(),
            cursor: to.cursor.clone(),
            lease: shared::reader_key(realm, participant),
            note: (format!("checkpoint/{participant}/{slice}"), note),
            now,
        };
        match store.set_checkpoint(&command).await {
            Ok(()) => return Ok(Changed { before: before.cursor, after: to.cursor, skips: to.skips }),
            // The reader went on meanwhile.
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Other("the reader moves the checkpoint faster than it can be set; try again".into()).into())
}
