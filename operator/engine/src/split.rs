//! A record that was made one of two by mistake becomes two again, by a person's word.
//!
//! Works beside a running engine, in this process or another, on the store alone: what leaves stands for a new record from the commit on, and
//! everybody named waits to be read again. The decision is [`crate::decide::split`]'s.
//!
//! The correlation field of what has left still holds the id of the record that it left, which may have to be made anew in the same system: by
//! that id it would be written over the other one. So it is noted which ids are still held by a record that has left ([`still_named`]), until
//! the lane has given that one its own.

use crate::decide::split::{self, Decided, Leaver, Parts, Refusal};
use crate::names::{self, NameError, Place};
use crate::records::{self, Name};
use crate::shared::reader_key;
use fairlead_model::{ExternalId, FieldPath, Random, RecordId, Timestamp, realm};
use fairlead_store::{Haste, Identity, Known, Split, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Records that refer to the one that is split, looked up at once.
const PAGE: usize = 500;
/// How often it is looked up and decided again, and the wait between: a write that is in flight comes to its end meanwhile.
const ATTEMPTS: u32 = 40;
const WAIT: Duration = Duration::from_millis(250);
/// So many splits of a participant's records are kept in mind, the newest.
const KEPT: usize = 1000;

/// Why nothing was split.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// A name that nothing has.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such record.
    #[error("no record {0} is known; see `fairlead trace`")]
    Unknown(String),
    /// Integrations that keep their own records know the same id.
    #[error("{id} is known in {}; say which with --integration", .realms.join(" and in "))]
    Several {
        /// What was given.
        id: String,
        /// Where.
        realms: Vec<String>,
    },
    /// Nobody was named, and what was given is no alias.
    #[error("say who leaves the record with --leaves; it is held by {}", .0.join(", "))]
    NobodyLeaves(Vec<String>),
    /// Who is to leave does not hold the record.
    #[error("{given} does not hold record {record}; it is held by {}", .held.join(", "))]
    NotHeld {
        /// Who was given.
        given: String,
        /// The record.
        record: RecordId,
        /// Who does.
        held: Vec<String>,
    },
    /// What is to leave stands for another record.
    #[error("{participant}={id} stands for record {other} and not for {record}; nothing is to be split")]
    Elsewhere {
        /// The participant.
        participant: String,
        /// Its id.
        id: ExternalId,
        /// For which record it stands.
        other: RecordId,
        /// The one that was given.
        record: RecordId,
    },
    /// It was done before.
    #[error("{participant}={id} has left record {from} and is record {to} since; nothing is left to split{}", .now.as_ref().map(|now| format!(", unless what it holds there now is to leave as well: --leaves {participant}={now}")).unwrap_or_default())]
    Done {
        /// The participant.
        participant: String,
        /// Its id.
        id: ExternalId,
        /// The record that it left.
        from: RecordId,
        /// The record that it is.
        to: RecordId,
        /// What the participant holds of the former by now.
        now: Option<ExternalId>,
    },
    /// It cannot be split like this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A write does not come to its end.
    #[error("a write of record {record}{} is in flight or has no known outcome, or the record keeps changing; nothing can be split before that is over: see `fairlead trace {record}`, and try again", under_way(.targets))]
    Busy {
        /// The record.
        record: RecordId,
        /// Where to, as far as it is known.
        targets: Vec<String>,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn under_way(targets: &[String]) -> String {
    if targets.is_empty() { String::new() } else { format!(" to {}", targets.join(", ")) }
}

/// Who is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    /// The participant: as in its Integration, or in full.
    pub participant: String,
    /// Its id of the record, where that is an alias, or to be sure.
    pub id: Option<ExternalId>,
}

/// What is to be split.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The Integration that keeps or feeds the record, as namespace/name.
    pub integration: Option<&'a str>,
    /// The record.
    pub record: &'a Name,
    /// Who leaves it; nobody, where an alias names the record: then that leaves.
    pub leaves: &'a [Leaves],
    /// Who decides so; noted.
    pub author: &'a str,
    /// The present moment.
    pub now: Timestamp,
}

/// What was split, or would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Whose record it is.
    pub realm: String,
    /// The record that stays.
    pub record: RecordId,
    /// The record of what leaves.
    pub new: RecordId,
    /// What leaves, by participant.
    pub leaving: Vec<(String, ExternalId)>,
    /// What stays, by participant.
    pub staying: Vec<(String, ExternalId)>,
    /// Fields of the record whose values came from what leaves.
    pub came: Vec<FieldPath>,
    /// Records that refer to it in the systems of what leaves.
    pub referring: usize,
}

/// A split of the past, as it is noted with the participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    id: ExternalId,
    from: RecordId,
    to: RecordId,
    /// The record whose id its correlation field held.
    key: RecordId,
    at: Timestamp,
    author: String,
}

/// The note of a participant's splits.
fn note(realm: &str, participant: &str) -> String {
    realm::note(realm, &realm::integration(realm, participant), &format!("splits/{participant}"))
}

fn past(note: Option<&Value>) -> Vec<Past> {
    note.and_then(|note| Vec::deserialize(note).ok()).unwrap_or_default()
}

/// Those of these records whose id a target may still hold in the correlation field of another record, which was split off them.
pub(crate) async fn still_named(
    store: &dyn Store,
    realm: &str,
    target: &str,
    records: &BTreeSet<RecordId>,
) -> Result<BTreeSet<RecordId>, StoreError> {
    let noted = store.note(realm, &note(realm, target)).await?;
    let asked: Vec<Past> = past(noted.as_ref()).into_iter().filter(|past| records.contains(&past.key)).collect();
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    // By what was split off: it may have become an alias since, and nobody writes to that.
    let ids: Vec<ExternalId> = asked.iter().map(|past| past.id.clone()).collect();
    let known = store.known_by_external(realm, target, &ids).await?;
    let holds = |known: &Option<Known>, past: &Past| {
        let mut identities = known.iter().flat_map(|known| &known.identities);
        let of = |identity: &&Identity| identity.participant == target && identity.external_id == past.id;
        identities.find(of).is_some_and(|identity| !identity.state.deleted && identity.state.keyed_as == Some(past.key))
    };
    Ok(asked.iter().zip(&known).filter(|(past, known)| holds(known, past)).map(|(past, _)| past.key).collect())
}

/// Splits a record; with `dry` only tells what would be done.
///
/// # Errors
/// [`SplitError`]: nothing was changed then.
pub async fn split(store: &dyn Store, wanted: &Wanted<'_>, random: &dyn Random, dry: bool) -> Result<Told, SplitError> {
    let new = RecordId::new(wanted.now, random);
    let (mut attempt, mut lost_answer) = (1, None);
    loop {
        let ready = match (prepare(store, wanted, new).await, lost_answer.take()) {
            // The commit of the attempt before was made, and only its answer was lost.
            (Err(SplitError::Done { to, .. }), Some(ready)) if to == new => return Ok(end(store, ready).await),
            (ready, _) => ready?,
        };
        if dry {
            return Ok(ready.told);
        }
        // What was sent without a known outcome stands in no lane where nothing else waits, and is told by the commit alone.
        let refused = if ready.in_flight.is_empty() { store.split(&ready.split).await } else { Err(StoreError::Conflict(Vec::new())) };
        match refused {
            Ok(()) => return Ok(end(store, ready).await),
            Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => lost_answer = Some(ready),
            Err(StoreError::Conflict(_)) => return Err(SplitError::Busy { record: ready.told.record, targets: ready.in_flight }),
            Err(error) => return Err(error.into()),
        }
        attempt += 1;
        tokio::time::sleep(WAIT).await;
    }
}

/// What was read until the commit may refer to the record, too, and is read again. What is read from then on does not.
async fn end(store: &dyn Store, ready: Ready) -> Told {
    let Ready { split: Split { realm, id, now, .. }, told, readers, .. } = ready;
    let ask = async || {
        for (participant, ids) in referring(store, &realm, id, &readers).await? {
            store.request_reads(&realm, &participant, &ids, Haste::Soon, now).await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = ask().await {
        tracing::warn!(record = %id, %error, "the record is split, but what came to refer to it at the last moment is not read again; fairlead backfill does that");
    }
    told
}

/// What is decided and looked up of a split.
struct Ready {
    split: Split,
    told: Told,
    /// Those that leave and are read.
    readers: Vec<String>,
    /// Where a write of the record is under way.
    in_flight: Vec<String>,
}

async fn prepare(store: &dyn Store, wanted: &Wanted<'_>, new: RecordId) -> Result<Ready, SplitError> {
    let given = match wanted.record {
        Name::Canonical(id) => id.to_string(),
        Name::External { id, .. } => id.to_string(),
    };
    let mut found = records::find(store, wanted.integration, wanted.record, wanted.now).await?;
    if found.len() > 1 {
        return Err(SplitError::Several { id: given, realms: found.into_iter().map(|found| found.realm).collect() });
    }
    let Some(found) = found.pop() else { return Err(SplitError::Unknown(given)) };
    let (realm, known) = (found.realm, found.known);
    let place = match wanted.integration {
        Some(integration) => names::integration(store, integration).await?,
        None => Place::whole(&realm),
    };
    let mut leaves = wanted.leaves.to_vec();
    if let (true, Name::External { participant, id }) = (leaves.is_empty(), wanted.record) {
        let participant = place.full_name(participant);
        let is_alias = known.identity(&participant).is_none_or(|identity| identity.external_id != *id);
        let noted = store.note(&realm, &note(&realm, &participant)).await?;
        // That one was an alias and has left.
        let was_alias = past(noted.as_ref()).iter().any(|past| past.id == *id && past.to == known.record.id);
        leaves.extend((is_alias || was_alias).then(|| Leaves { participant, id: Some(id.clone()) }));
    }
    if leaves.is_empty() {
        return Err(SplitError::NobodyLeaves(held(&known)));
    }

    let (mut leavers, mut notes) = (Vec::new(), Vec::new());
    for each in &leaves {
        let (leaver, note) = leaver(store, &place, &known, each).await?;
        leavers.push(leaver);
        notes.push(note);
    }
    let parts = parts(store, &realm, &known, &leavers, wanted.now).await?;
    let decided = split::decide(&known, &leavers, &parts)?;
    let notes = notes.into_iter().zip(&decided.leaving).map(|((name, before), identity)| {
        let mut past = past(before.as_ref());
        past.drain(..past.len().saturating_sub(KEPT - 1));
        let (id, author, from) = (identity.external_id.clone(), wanted.author.to_owned(), known.record.id);
        past.push(Past { id, from, to: new, key: identity.state.keyed_as.unwrap_or(from), at: wanted.now, author });
        (name, before, serde_json::to_value(past).unwrap_or(Value::Null))
    });
    let notes = notes.collect();
    ready(store, (realm, known), decided, (new, notes), &parts, wanted.now).await
}

/// The command for what was decided.
async fn ready(
    store: &dyn Store,
    (realm, known): (String, Known),
    decided: Decided,
    (new, notes): (RecordId, Vec<(String, Option<Value>, Value)>),
    parts: &Parts,
    now: Timestamp,
) -> Result<Ready, SplitError> {
    let record = known.record.id;
    let Decided { home, provenance, enqueue, states, new_home, leaving, staying, mut rereads, came } = decided;
    let readers: Vec<String> =
        leaving.iter().map(|identity| identity.participant.clone()).filter(|name| parts.readers.contains(name)).collect();
    let leases = readers.iter().map(|reader| reader_key(&realm, reader)).collect();
    let refer = referring(store, &realm, record, &readers).await?;
    let referring = refer.values().map(Vec::len).sum();
    for (participant, ids) in refer {
        rereads.entry(participant).or_default().extend(ids);
    }
    let named =
        |identities: &[Identity]| identities.iter().map(|identity| (identity.participant.clone(), identity.external_id.clone())).collect();
    let told = Told { realm: realm.clone(), record, new, leaving: named(&leaving), staying: named(&staying), came, referring };
    let split = Split {
        realm,
        id: record,
        version: known.record.version + 1,
        home,
        provenance,
        enqueue,
        states,
        new,
        new_home,
        leaving,
        rereads: rereads.into_iter().collect(),
        leases,
        notes,
        now,
    };
    let in_flight = known.lanes.into_iter().filter(|lane| lane.in_flight).map(|lane| lane.target).collect();
    Ok(Ready { split, told, readers, in_flight })
}

/// Who holds a record, each with its id.
fn held(known: &Known) -> Vec<String> {
    known.identities.iter().map(|identity| format!("{}={}", identity.participant, identity.external_id)).collect()
}

/// One that is to leave, with the note of its participant.
async fn leaver(store: &dyn Store, place: &Place, known: &Known, leaves: &Leaves) -> Result<(Leaver, (String, Option<Value>)), SplitError> {
    let (realm, record) = (place.realm.as_str(), known.record.id);
    // Another Integration's participant of the same records is called in full.
    let is_held = |name: &str| known.identity(name).is_some();
    let full = place.full_name(&leaves.participant);
    let participant = if is_held(&full) || !is_held(&leaves.participant) { full } else { leaves.participant.clone() };
    let name = note(realm, &participant);
    let noted = store.note(realm, &name).await?;
    let past = past(noted.as_ref());
    let (identity, stood_for) = match (&leaves.id, known.identity(&participant)) {
        (Some(id), _) => {
            let found = store.known_by_external(realm, &participant, std::slice::from_ref(id)).await?.pop().flatten();
            let Some(found) = found else { return Err(not_held(known, &format!("{participant}={id}"))) };
            let stands_for = found.merged_into.unwrap_or(found.record.id);
            let identity = found.identities.iter().find(|identity| identity.participant == participant && identity.external_id == *id);
            match identity {
                Some(identity) if stands_for == record => (identity.clone(), found.record.id),
                _ => {
                    let moved = past.iter().rev().find(|past| past.id == *id && past.to == stands_for && past.from == record);
                    return Err(match moved {
                        Some(past) => done(&participant, past, None),
                        None => SplitError::Elsewhere { participant, id: id.clone(), other: stands_for, record },
                    });
                }
            }
        }
        (None, held) => {
            if let Some(past) = past.iter().rev().find(|past| past.from == record) {
                return Err(done(&participant, past, held.map(|identity| identity.external_id.clone())));
            }
            let Some(identity) = held else { return Err(not_held(known, &leaves.participant)) };
            (identity.clone(), record)
        }
    };
    if let Some(past) = past.iter().find(|past| past.id == identity.external_id && past.to == record) {
        return Err(done(&participant, past, None));
    }
    Ok((Leaver { identity, stood_for }, (name, noted)))
}

fn not_held(known: &Known, given: &str) -> SplitError {
    SplitError::NotHeld { given: given.to_owned(), record: known.record.id, held: held(known) }
}

fn done(participant: &str, past: &Past, now: Option<ExternalId>) -> SplitError {
    SplitError::Done { participant: participant.to_owned(), id: past.id.clone(), from: past.from, to: past.to, now }
}

/// Who is read and who is written, as far as the store knows: what was ever read has a checkpoint, what was ever to be written has a book, and
/// of what could be written it is known what it holds where.
async fn parts(store: &dyn Store, realm: &str, known: &Known, leavers: &[Leaver], now: Timestamp) -> Result<Parts, StoreError> {
    let readers: BTreeSet<String> = store.checkpoints(realm).await?.into_iter().map(|standing| standing.participant).collect();
    let mut targets: BTreeSet<String> = store.snapshot(realm, now).await?.lanes.into_iter().map(|lane| lane.target).collect();
    let held = known.identities.iter().chain(leavers.iter().map(|leaver| &leaver.identity));
    let written = held.filter(|identity| !identity.state.rows.is_empty() || !readers.contains(&identity.participant));
    targets.extend(written.map(|identity| identity.participant.clone()));
    Ok(Parts { readers, targets })
}

/// What refers to a record in the systems of these participants, by participant.
async fn referring(
    store: &dyn Store,
    realm: &str,
    record: RecordId,
    participants: &[String],
) -> Result<BTreeMap<String, Vec<ExternalId>>, StoreError> {
    let mut found: BTreeMap<String, Vec<ExternalId>> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.referring(realm, &[record], after, PAGE).await?;
        after = page.last().map(|known| known.record.id);
        for known in page.iter().filter(|known| known.record.id != record) {
            let held = participants.iter().filter_map(|participant| known.identity(participant));
            for identity in held.filter(|identity| !identity.state.deleted) {
                found.entry(identity.participant.clone()).or_default().push(identity.external_id.clone());
            }
        }
        if page.len() < PAGE {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::SystemRandom;
    use fairlead_store::SqliteStore;
    use fairlead_store::contract_tests::world::{CRM, ERP, REALM, World, at, crm_id, delivered, erp_id, id, merge_into};
    use fairlead_store::{Checkpoint, Keys, Origin};
    use serde_json::json;
    use std::sync::Arc;

    /// A store in which both systems hold three records and were read.
    async fn world() -> World {
        let world = World::new(Arc::new(SqliteStore::open_in_memory().unwrap()), "a").await;
        world.in_step([1, 2, 3], at(1)).await;
        let read = Checkpoint { slice: "main".into(), cursor: json!(1), complete: true };
        world.store.absorb(&fairlead_store::Absorb { checkpoint: Some(read), ..world.batch(at(1)) }).await.unwrap();
        world
    }

    async fn split_of(world: &World, record: Name, leaves: &[(&str, Option<ExternalId>)], dry: bool) -> Result<Told, String> {
        let leaves: Vec<_> = leaves.iter().map(|(participant, id)| Leaves { participant: (*participant).into(), id: id.clone() }).collect();
        let wanted = Wanted { integration: None, record: &record, leaves: &leaves, author: "kim", now: at(9) };
        split(world.store.as_ref(), &wanted, &SystemRandom, dry).await.map_err(|error| error.to_string())
    }

    fn external(participant: &str, id: ExternalId) -> Name {
        Name::External { participant: participant.into(), id }
    }

    #[tokio::test(start_paused = true)]
    async fn a_split_waits_for_a_write_and_says_so_when_that_does_not_end() {
        let world = world().await;
        world.enqueue(Keys::Records(vec![id(1)]), Origin::Repair, at(2)).await;
        world.claim(at(2)).await;
        let refused = split_of(&world, Name::Canonical(id(1)), &[(CRM, None)], false).await.unwrap_err();
        assert!(refused.starts_with(&format!("a write of record {} to erp is in flight", id(1))), "{refused}");
        assert_eq!(split_of(&world, Name::Canonical(id(1)), &[(CRM, None)], true).await.unwrap().staying.len(), 1, "to look is no harm");
        world.intend(&[id(1)], at(2)).await.unwrap();
        let ends = async {
            tokio::time::sleep(WAIT * 3).await;
            world.settle(1, 1, delivered(1, 1), at(3)).await;
        };
        let record = Name::Canonical(id(1));
        let leaves = [(CRM, None)];
        let (told, ()) = tokio::join!(split_of(&world, record, &leaves, false), ends);
        assert_eq!(told.unwrap().leaving, [(CRM.to_owned(), crm_id(1))]);
    }

    #[tokio::test]
    async fn an_alias_is_split_off_by_its_own_name_once() {
        let world = world().await;
        world.store.merge(&merge_into(&world, (1, 1), (2, 1), at(2))).await.unwrap();
        let alias = || external(CRM, crm_id(1));
        let told = split_of(&world, alias(), &[], false).await.unwrap();
        assert_eq!((told.record, told.leaving), (id(2), vec![(CRM.to_owned(), crm_id(1))]));
        let known = world.store.known_by_id(REALM, &[told.new]).await.unwrap().remove(0).unwrap();
        let state = &known.identity(CRM).unwrap().state;
        assert_eq!((state.keyed_as, state.deleted), (Some(id(1)), false), "what was folded had an id of its own");
        for record in [alias(), Name::Canonical(id(2))] {
            let leaves: &[_] = if matches!(record, Name::Canonical(_)) { &[(CRM, Some(crm_id(1)))] } else { &[] };
            let refused = split_of(&world, record, leaves, false).await.unwrap_err();
            assert_eq!(refused, format!("crm=c1 has left record {} and is record {} since; nothing is left to split", id(2), told.new));
        }
        assert!(split_of(&world, external(CRM, crm_id(2)), &[], false).await.unwrap_err().starts_with("say who leaves the record"));
        let refused = split_of(&world, Name::Canonical(id(2)), &[(CRM, Some(crm_id(3)))], false).await.unwrap_err();
        assert!(refused.starts_with(&format!("crm=c3 stands for record {} and not for {}", id(3), id(2))), "{refused}");
        let refused = split_of(&world, Name::Canonical(id(3)), &[(ERP, None)], false).await.unwrap_err();
        assert!(refused.starts_with("none of erp is read"), "{refused}");
        // The other system's second id is an alias as well.
        let refused = split_of(&world, external(ERP, erp_id(1)), &[], false).await.unwrap_err();
        assert!(refused.ends_with("have one leave with them that is read: crm"), "{refused}");
    }

    #[tokio::test]
    async fn an_id_that_another_one_carries_is_known_until_that_one_has_its_own() {
        let world = world().await;
        let told = split_of(&world, Name::Canonical(id(1)), &[(CRM, None)], false).await.unwrap();
        let asked = BTreeSet::from([id(1), id(2), told.new]);
        let named = async |target: &str| still_named(world.store.as_ref(), REALM, target, &asked).await.unwrap();
        assert_eq!((named(CRM).await, named(ERP).await), (BTreeSet::from([id(1)]), BTreeSet::new()));
        let noted = past(world.store.note(REALM, &note(REALM, CRM)).await.unwrap().as_ref());
        assert_eq!((noted.len(), noted[0].author.as_str(), noted[0].id.clone(), noted[0].to), (1, "kim", crm_id(1), told.new));
    }
}
