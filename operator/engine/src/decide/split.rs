//! What a person's split of a record means: what leaves is a record of its own, empty until it is read; what stays keeps the canonical values,
//! and those that came from what leaves only until somebody who holds the record on shows one of his own.
//!
//! Beside a running engine nothing is known of mappings and owners. So no value is made up here: everybody named is read again, and the
//! ordinary decisions ([`crate::decide::inbound`]) put the values where they belong.

use fairlead_model::hash::ValueHash;
use fairlead_model::state::ParticipantState;
use fairlead_model::{ExternalId, FieldPath, RecordId, SmolStr, document};
use fairlead_store::{Identity, Known, Origin, Provenance};
use std::collections::{BTreeMap, BTreeSet};

/// An external id that is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    /// The id, and what its participant is known to hold.
    pub identity: Identity,
    /// The record whose id a correlation field there would hold: the one that is split, or the one that was folded into it with this alias.
    pub stood_for: RecordId,
}

/// What is known of the participants of a realm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Those that are read.
    pub readers: BTreeSet<String>,
    /// Those that are written.
    pub targets: BTreeSet<String>,
}

/// Why a record is not split like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is deleted.
    #[error("the record is deleted; bring it back where it was born ({home}) first")]
    Deleted {
        /// Where that is.
        home: String,
    },
    /// Nobody would hold it any more.
    #[error(
        "all that hold the record would leave it; have fewer leave: what stays keeps its id, and it does not matter which of the two that is"
    )]
    NothingStays,
    /// A participant has one id of a record.
    #[error("two ids of {0} would leave together, and a record has one in each participant; split them off one after the other")]
    Twice(String),
    /// It would leave with nothing to be read.
    #[error("{id} is deleted in {participant}, so nothing can be read of it; bring it back there first, or leave it where it is")]
    Gone {
        /// Where.
        participant: String,
        /// The id.
        id: ExternalId,
    },
    /// Nothing would ever be known of the new record.
    #[error("none of {} is read, so nothing would ever be known of the new record; have one leave with them that is read{}", .leaves.join(", "), there_is(.read))]
    Unread {
        /// What leaves.
        leaves: Vec<String>,
        /// Who holds the record and is read.
        read: Vec<String>,
    },
}

fn there_is(read: &[String]) -> String {
    if read.is_empty() { String::new() } else { format!(": {}", read.join(", ")) }
}

/// A split that may be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Where what stays was born, as far as it is still there.
    pub home: String,
    /// Who set its fields; nobody any more, where that came from what leaves.
    pub provenance: BTreeMap<SmolStr, Provenance>,
    /// Lanes that it enters: what has left it in a target is to be made there.
    pub enqueue: Vec<(String, Origin)>,
    /// New states of those that hold it on: what came from the others is looked at as if for the first time.
    pub states: Vec<(String, ParticipantState)>,
    /// Where the new record was born.
    pub new_home: String,
    /// What leaves, with its new states.
    pub leaving: Vec<Identity>,
    /// What stays.
    pub staying: Vec<Identity>,
    /// What is read again, by participant.
    pub rereads: BTreeMap<String, Vec<ExternalId>>,
    /// Fields whose value came from what leaves.
    pub came: Vec<FieldPath>,
}

/// Decides about a split.
///
/// # Errors
/// [`Refusal`], with what to do instead.
pub fn decide(known: &Known, leavers: &[Leaver], parts: &Parts) -> Result<Decided, Refusal> {
    let record = &known.record;
    if record.deleted_at.is_some() {
        return Err(Refusal::Deleted { home: record.home.clone() });
    }
    let leaves = |identity: &Identity| leavers.iter().any(|leaver| is_same(&leaver.identity, identity));
    let (gone, staying): (Vec<_>, Vec<_>) = known.identities.iter().cloned().partition(leaves);
    let stays = |identity: &&Identity| !identity.state.deleted;
    if !staying.iter().any(|identity| stays(&identity)) {
        return Err(Refusal::NothingStays);
    }
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for Leaver { identity, .. } in leavers {
        if !names.insert(&identity.participant) {
            return Err(Refusal::Twice(identity.participant.clone()));
        }
    }
    if let Some(Identity { participant, external_id, .. }) = gone.iter().find(|identity| identity.state.deleted) {
        return Err(Refusal::Gone { participant: participant.clone(), id: external_id.clone() });
    }
    let is_read = |participant: &str| parts.readers.contains(participant);
    let Some(first_read) = names.iter().copied().find(|name| is_read(name)) else {
        let read = staying.iter().map(|identity| identity.participant.clone()).filter(|name| is_read(name)).collect();
        return Err(Refusal::Unread { leaves: names.into_iter().map(str::to_owned).collect(), read });
    };

    let home_leaves = gone.iter().any(|identity| identity.participant == record.home);
    let first =
        |read: bool| staying.iter().filter(stays).map(|identity| identity.participant.as_str()).filter(|name| is_read(name) == read).min();
    let home = if home_leaves { first(true).or_else(|| first(false)).unwrap_or(&record.home) } else { &record.home }.to_owned();
    let new_home = if home_leaves { record.home.clone() } else { first_read.to_owned() };

    let came = came(known, leavers, &gone, &staying);
    let mut provenance = record.provenance.clone();
    provenance.extend(came.iter().map(|unit| (unit.text().clone(), Provenance::nobodys())));
    let mut states = Vec::new();
    for identity in staying.iter().filter(stays).filter(|identity| is_read(&identity.participant)) {
        let mut state = identity.state.clone();
        state.fields.retain(|unit, _| !came.iter().any(|came| came.text() == unit));
        if state != identity.state {
            states.push((identity.participant.clone(), state));
        }
    }
    let leaving: Vec<Identity> = leavers.iter().map(|leaver| left(leaver, is_read(&leaver.identity.participant))).collect();
    let mut rereads: BTreeMap<String, Vec<ExternalId>> = BTreeMap::new();
    for identity in leaving.iter().chain(staying.iter().filter(stays)).filter(|identity| is_read(&identity.participant)) {
        rereads.entry(identity.participant.clone()).or_default().push(identity.external_id.clone());
    }
    let to_make = gone.iter().map(|identity| identity.participant.as_str()).filter(|name| parts.targets.contains(*name));
    let enqueue = to_make.map(|target| (target.to_owned(), Origin::Source(home.clone()))).collect();
    Ok(Decided { home, provenance, enqueue, states, new_home, leaving, staying, rereads, came })
}

fn is_same(one: &Identity, other: &Identity) -> bool {
    one.participant == other.participant && one.external_id == other.external_id
}

/// What is known of a system's record that leaves: natively what it holds. What a reader shows of it is seen for the first time, as of any
/// new record; what nobody reads is known by what was written.
fn left(leaver: &Leaver, is_read: bool) -> Identity {
    let mut identity = leaver.identity.clone();
    identity.state.keyed_as = Some(leaver.stood_for);
    if is_read {
        identity.state.fields.clear();
        identity.state.vendor_version = None;
        identity.state.deleted = false;
    }
    identity
}

/// The fields whose value came from what leaves: by who set it, as far as that is known; else by who has shown it without being sent it.
fn came(known: &Known, leavers: &[Leaver], gone: &[Identity], staying: &[Identity]) -> Vec<FieldPath> {
    let record = &known.record;
    let states = leavers.iter().map(|leaver| &leaver.identity).chain(staying);
    let units: BTreeSet<&SmolStr> = states.flat_map(|identity| identity.state.fields.keys()).chain(record.provenance.keys()).collect();
    let of_leaver = |unit: &str, value: ValueHash| match record.provenance.get(unit) {
        // Left behind before: it still is nobody's.
        Some(provenance) if provenance.is_nobodys() => true,
        Some(provenance) => gone.iter().any(|identity| identity.participant == provenance.participant),
        None => {
            let own = |identity: &Identity| {
                identity.state.fields.get(unit).is_some_and(|field| field.seen == Some(value) && field.sent != Some(value))
            };
            leavers.iter().any(|leaver| own(&leaver.identity)) && !staying.iter().any(own)
        }
    };
    let present = |unit: &SmolStr| {
        let path: FieldPath = unit.parse().ok()?;
        let value = ValueHash::of(Some(document::present(&record.document, &path)?));
        of_leaver(unit, value).then_some(path)
    };
    units.into_iter().filter_map(present).collect()
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
