//! What people do with dead letters: try one again, correct it, give it up. The one door for the command line and the console.
//!
//! All of it works beside a running engine, in this process or another: what is asked for here lies in the store until a reader or a lane
//! takes it up.

use crate::edits::{self, Edit};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Document, ExternalId, FieldPath, RecordId, Timestamp, document, realm};
use fairlead_store::{CloseDeadLetters, CloseReason, DeadLetter, DeadLetterFilter, Enqueue, Haste, Keys, Origin, Stage, Store, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;

/// Letters that are dealt with at once.
const PAGE: usize = 500;

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

/// The letters that a filter names, newest first. Its realm is an Integration (`namespace/name`): those of golden records that it feeds are
/// found as well, under the participant's name in the Integration.
///
/// # Errors
/// The store's.
pub async fn list(store: &dyn Store, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, StoreError> {
    let mut letters = Vec::new();
    for filter in in_all_realms(store, filter).await? {
        letters.extend(store.dead_letters(&filter).await?);
    }
    letters.sort_by_key(|letter| std::cmp::Reverse(letter.id));
    letters.truncate(filter.max);
    Ok(letters)
}

/// A filter by an Integration, as one for each realm in which that has letters: its own, and those of golden records.
async fn in_all_realms(store: &dyn Store, filter: &DeadLetterFilter) -> Result<Vec<DeadLetterFilter>, StoreError> {
    let mut filters = vec![filter.clone()];
    if let Some(integration) = filter.realm.as_ref().filter(|realm| !realm::is_contract(realm)) {
        let participant = filter.participant.as_deref().unwrap_or_default();
        let named = format!("{}{participant}", realm::prefix(&ObjectKey(integration.clone())));
        let realms = store.realms().await?.into_iter().filter(|realm| realm::is_contract(realm));
        filters.extend(realms.map(|realm| DeadLetterFilter { realm: Some(realm), participant: Some(named.clone()), ..filter.clone() }));
    }
    Ok(filters)
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

/// What was corrected of a letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Corrected {
    /// Who.
    pub author: String,
    /// When.
    pub at: Timestamp,
    /// Per native field the value that was refused and the one that a person put in its place.
    pub changes: Vec<(FieldPath, Value, Value)>,
}

/// What was corrected of a letter, if anything was.
///
/// # Errors
/// The store's.
pub async fn corrected(store: &dyn Store, dead: &DeadLetter) -> Result<Option<Corrected>, StoreError> {
    let Some(edit) = edits::corrected(store, &dead.realm, dead.id).await? else { return Ok(None) };
    let refused = match dead.letter.stage {
        Stage::Inbound | Stage::Identity => Some(&dead.letter.original),
        Stage::Outbound | Stage::Delivery => dead.letter.payload.as_ref(),
    };
    let refused: Document = refused.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let before = |path: &FieldPath| document::get(&refused, path).cloned().unwrap_or(Value::Null);
    let changes = edit.set.into_iter().map(|(path, after)| (path.clone(), before(&path), after)).collect();
    Ok(Some(Corrected { author: edit.author, at: edit.at, changes }))
}

/// Tries a letter again: its source's record is read again, or the target's key put in its lane again. The letter closes as replayed.
///
/// # Errors
/// [`LetterError::NoRecord`], and the store's.
pub async fn replay(store: &dyn Store, dead: &DeadLetter, author: &str, now: Timestamp) -> Result<(), LetterError> {
    if replay_page(store, std::slice::from_ref(dead), author, now).await? == 0 {
        return Err(LetterError::NoRecord(dead.id));
    }
    Ok(())
}

/// What became of many letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bulk {
    /// Those that it was done to.
    pub done: u64,
    /// Those that name no record and can only be discarded, and those that closed by themselves meanwhile.
    pub left: u64,
}

/// How many open letters a filter names, as [`list`] reads it.
///
/// # Errors
/// The store's.
pub async fn count(store: &dyn Store, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
    let mut pages = Pages::of(store, filter).await?;
    let mut count = 0;
    while let Some(page) = pages.next(store).await? {
        count += page.len() as u64;
    }
    Ok(count)
}

/// Tries all open letters again that a filter names, as [`list`] reads it, page by page. Letters that open meanwhile are left alone.
///
/// # Errors
/// The store's; pages before it stay done.
pub async fn replay_all(store: &dyn Store, filter: &DeadLetterFilter, author: &str, now: Timestamp) -> Result<Bulk, StoreError> {
    let mut pages = Pages::of(store, filter).await?;
    let mut bulk = Bulk::default();
    while let Some(page) = pages.next(store).await? {
        let done = replay_page(store, &page, author, now).await?;
        bulk.done += done;
        bulk.left += page.len() as u64 - done;
    }
    Ok(bulk)
}

/// Gives all open letters up that a filter names, as [`list`] reads it, page by page, like [`discard`].
///
/// # Errors
/// The store's; pages before it stay done.
pub async fn discard_all(store: &dyn Store, filter: &DeadLetterFilter, author: &str, now: Timestamp) -> Result<Bulk, StoreError> {
    let mut pages = Pages::of(store, filter).await?;
    let mut bulk = Bulk::default();
    while let Some(page) = pages.next(store).await? {
        let ids: Vec<i64> = page.iter().map(|dead| dead.id).collect();
        let done = discard(store, &ids, author, now).await?;
        bulk.done += done;
        bulk.left += page.len() as u64 - done;
    }
    Ok(bulk)
}

/// Open letters, a page at a time, in each realm from the newest down.
struct Pages(Vec<DeadLetterFilter>);

impl Pages {
    async fn of(store: &dyn Store, filter: &DeadLetterFilter) -> Result<Self, StoreError> {
        Ok(Self(in_all_realms(store, &DeadLetterFilter { closed: false, max: PAGE, ..filter.clone() }).await?))
    }

    async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<DeadLetter>>, StoreError> {
        while let Some(filter) = self.0.last_mut() {
            let page = store.dead_letters(filter).await?;
            filter.below = page.last().map(|last| last.id);
            if page.len() < PAGE {
                self.0.pop();
            }
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }
}

/// Tries letters again, and closes them; returns how many. Those that name no record stay open.
async fn replay_page(store: &dyn Store, page: &[DeadLetter], author: &str, now: Timestamp) -> Result<u64, StoreError> {
    let ids: Vec<i64> = again(store, page, now).await?;
    close(store, &ids, CloseReason::Replayed, author, now).await?;
    Ok(ids.len() as u64)
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
    again(store, std::slice::from_ref(dead), now).await?;
    Ok(())
}

/// Gives letters up, and with them corrections of theirs that still wait. Returns how many were open.
///
/// # Errors
/// The store's.
pub async fn discard(store: &dyn Store, ids: &[i64], author: &str, now: Timestamp) -> Result<u64, StoreError> {
    let closed = close(store, ids, CloseReason::Discarded, author, now).await?;
    let letters = DeadLetterFilter { ids: ids.to_vec(), closed: true, max: ids.len(), ..DeadLetterFilter::default() };
    for dead in store.dead_letters(&letters).await? {
        let (realm, participant) = (&dead.realm, &dead.letter.participant);
        let Some(key) = corrected_by(&dead) else { continue };
        if edits::find(store, realm, participant, &key).await?.is_some_and(|edit| edit.letter == dead.id) {
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

/// Puts the records of letters in their way again; returns the letters of which that could be done.
async fn again(store: &dyn Store, letters: &[DeadLetter], now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let mut reads: BTreeMap<(&str, &str), Vec<ExternalId>> = BTreeMap::new();
    let mut entries: BTreeMap<(&str, &str), Vec<RecordId>> = BTreeMap::new();
    let mut done = Vec::with_capacity(letters.len());
    for dead in letters {
        let of = (dead.realm.as_str(), dead.letter.participant.as_str());
        match (dead.letter.stage, &dead.letter.external_id, dead.letter.record) {
            (Stage::Inbound | Stage::Identity, Some(id), _) => reads.entry(of).or_default().push(id.clone()),
            (Stage::Outbound | Stage::Delivery, _, Some(id)) => entries.entry(of).or_default().push(id),
            _ => continue,
        }
        done.push(dead.id);
    }
    for ((realm, participant), ids) in reads {
        store.request_reads(realm, participant, &ids, Haste::Soon, now).await?;
    }
    for ((realm, target), ids) in entries {
        let (realm, target) = (realm.to_owned(), target.to_owned());
        store.enqueue(&Enqueue { realm, target, keys: Keys::Records(ids), origin: Origin::Replay, now }).await?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::ErrorClass;
    use fairlead_store::{Absorb, LeaseRequest, NewDeadLetter, SqliteStore};
    use std::time::Duration;

    const GOLDEN: &str = "contract:contracts/customer";

    async fn open_one(store: &SqliteStore, realm: &str, participant: &str, id: &str) {
        let (now, ttl) = (Timestamp(1_000), Duration::from_secs(1));
        let request = LeaseRequest { keys: vec![format!("reader/{realm}/{participant}")], holder: "t".into(), ttl, now };
        let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
        let letter = NewDeadLetter {
            stage: Stage::Inbound,
            participant: participant.into(),
            external_id: Some(ExternalId(id.into())),
            record: None,
            original: "{}".into(),
            payload: None,
            class: ErrorClass::Data,
            reason: "ValidationFailed".into(),
            message: "name".into(),
            detail: None,
            field: None,
            attempts: 1,
            parent: None,
        };
        store.absorb(&Absorb { dead_letters: vec![letter], ..Absorb::empty(realm, participant, fence, now) }).await.unwrap();
    }

    #[tokio::test]
    async fn an_integrations_letters_are_found_and_tried_again_wherever_its_records_lie_and_no_others() {
        let store = SqliteStore::open_in_memory().unwrap();
        open_one(&store, "europe/customers", "crm", "own").await;
        open_one(&store, GOLDEN, "europe/customers/crm", "golden").await;
        open_one(&store, GOLDEN, "europe/customers/erp", "erp").await;
        open_one(&store, GOLDEN, "north/customers/crm", "north").await;
        let of = |participant: Option<&str>| DeadLetterFilter {
            realm: Some("europe/customers".into()),
            participant: participant.map(str::to_owned),
            max: 10,
            ..DeadLetterFilter::default()
        };
        let ids = async |filter: &DeadLetterFilter| -> Vec<String> {
            let found = list(&store, filter).await.unwrap();
            found.into_iter().map(|dead| dead.letter.external_id.unwrap().0).collect()
        };
        assert_eq!(ids(&of(None)).await, ["erp", "golden", "own"]);
        assert_eq!(ids(&DeadLetterFilter { max: 1, ..of(Some("crm")) }).await, ["golden"]);
        assert_eq!(count(&store, &of(Some("crm"))).await, Ok(2));
        let bulk = replay_all(&store, &of(Some("crm")), "mia", Timestamp(2_000)).await.unwrap();
        assert_eq!(bulk, Bulk { done: 2, left: 0 });
        assert_eq!(store.pending_reads(GOLDEN, "europe/customers/crm", 9).await.unwrap(), [ExternalId("golden".into())]);
        assert_eq!(discard_all(&store, &of(None), "mia", Timestamp(3_000)).await.unwrap().done, 1);
        let left = DeadLetterFilter { max: 10, ..DeadLetterFilter::default() };
        assert_eq!(ids(&left).await, ["north"]);
    }
}
