//! What people do with dead letters: try one again, correct it, give it up. The one door for the command line and the console.
//!
//! All of it works beside a running engine, in this process or another: what is asked for here lies in the store until a reader or a lane
//! takes it up.

use crate::edits::{self, Edit};
use fairlead_model::{FieldPath, Timestamp, document};
use fairlead_store::{CloseDeadLetters, CloseReason, DeadLetter, DeadLetterFilter, Enqueue, Keys, Origin, Stage, Store, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// No such letter is open.
    #[error("there is no open dead letter {0}; it may have closed by itself meanwhile")]
    NotOpen(i64),
    /// It failed before there was something to correct.
    #[error(
        "dead letter {0} failed in the mapping, before there was a payload; correct the mapping or the source's record, then replay it"
    )]
    NothingToCorrect(i64),
    /// It does not say which record it speaks of.
    #[error("dead letter {0} names no record, so it can only be discarded")]
    NoRecord(i64),
    /// No field is changed.
    #[error("no field is corrected; name one with its new value")]
    NoChange,
    /// A number that would lose digits.
    #[error("{0}: write a number with a fraction as text, so that no digit is lost")]
    Float(FieldPath),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The letter `id`, closed ones too.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn Store, id: i64) -> Result<Option<DeadLetter>, StoreError> {
    let filter = DeadLetterFilter { ids: vec![id], closed: true, max: 1, ..DeadLetterFilter::default() };
    Ok(store.dead_letters(&filter).await?.pop())
}

/// The open letter `id`.
///
/// # Errors
/// [`LetterError::NotOpen`], and the store's.
pub async fn open(store: &dyn Store, id: i64) -> Result<DeadLetter, LetterError> {
    find(store, id).await?.filter(|letter| letter.closed.is_none()).ok_or(LetterError::NotOpen(id))
}

/// Tries a letter again: its source's record is read again, or the target's key put in its lane again. The letter closes as replayed.
///
/// # Errors
/// [`LetterError::NoRecord`], and the store's.
pub async fn replay(store: &dyn Store, dead: &DeadLetter, author: &str, now: Timestamp) -> Result<(), LetterError> {
    again(store, dead, now).await?;
    close(store, &[dead.id], CloseReason::Replayed, author, now).await?;
    Ok(())
}

/// Corrects native fields of a letter and tries it again. The edit enters where the letter failed: the source's record before it is mapped,
/// or the payload before it is sent. The letter stays open until the edit is through.
///
/// # Errors
/// What cannot be corrected, and the store's.
pub async fn correct(
    store: &dyn Store,
    dead: &DeadLetter,
    set: BTreeMap<FieldPath, Value>,
    author: &str,
    now: Timestamp,
) -> Result<(), LetterError> {
    if set.is_empty() {
        return Err(LetterError::NoChange);
    }
    if let Some((field, _)) = set.iter().find(|(_, value)| document::has_float(value)) {
        return Err(LetterError::Float(field.clone()));
    }
    if dead.letter.stage == Stage::Outbound {
        return Err(LetterError::NothingToCorrect(dead.id));
    }
    let key = corrected_by(dead).ok_or(LetterError::NoRecord(dead.id))?;
    let edit = Edit { letter: dead.id, author: author.to_owned(), at: now, set };
    edits::add(store, &dead.realm, &dead.letter.participant, &key, &edit).await?;
    again(store, dead, now).await
}

/// Gives letters up, and with them corrections of theirs that still wait. Returns how many were open.
///
/// # Errors
/// The store's.
pub async fn discard(store: &dyn Store, ids: &[i64], author: &str, now: Timestamp) -> Result<u64, StoreError> {
    let closed = close(store, ids, CloseReason::Discarded, author, now).await?;
    for id in ids {
        let Some(dead) = find(store, *id).await? else { continue };
        let (realm, participant) = (&dead.realm, &dead.letter.participant);
        let Some(key) = corrected_by(&dead) else { continue };
        if edits::find(store, realm, participant, &key).await?.is_some_and(|edit| edit.letter == *id) {
            edits::forget(store, realm, participant, &[key]).await?;
        }
    }
    Ok(closed)
}

/// The key of a correction: the record, as the stage at which it failed knows it.
fn corrected_by(dead: &DeadLetter) -> Option<String> {
    match dead.letter.stage {
        Stage::Inbound | Stage::Identity => dead.letter.external_id.as_ref().map(ToString::to_string),
        Stage::Outbound | Stage::Delivery => dead.letter.record.as_ref().map(ToString::to_string),
    }
}

async fn close(store: &dyn Store, ids: &[i64], reason: CloseReason, author: &str, now: Timestamp) -> Result<u64, StoreError> {
    store.close_dead_letters(&CloseDeadLetters { ids: ids.to_vec(), reason, author: author.to_owned(), now }).await
}

/// Puts a letter's record in its way again.
async fn again(store: &dyn Store, dead: &DeadLetter, now: Timestamp) -> Result<(), LetterError> {
    let letter = &dead.letter;
    match letter.stage {
        Stage::Inbound | Stage::Identity => {
            let id = letter.external_id.clone().ok_or(LetterError::NoRecord(dead.id))?;
            store.request_reads(&dead.realm, &letter.participant, &[id], now).await?;
        }
        Stage::Outbound | Stage::Delivery => {
            let id = letter.record.ok_or(LetterError::NoRecord(dead.id))?;
            let (realm, target) = (dead.realm.clone(), letter.participant.clone());
            store.enqueue(&Enqueue { realm, target, keys: Keys::Records(vec![id]), origin: Origin::Replay, now }).await?;
        }
    }
    Ok(())
}
