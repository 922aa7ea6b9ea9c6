//! What must hold at every moment, written once: the reports and metrics of a running engine use it, and so do the tests.
//!
//! | invariant | means |
//! |---|---|
//! | `ledger` | every book of a realm adds up |
//! | `identity` | an external id stands for one record, and a record has one external id in each participant |
//! | `fence` | nothing is committed under an older epoch than the newest that was granted |
//! | `wait` | nothing is sent to a system before the time that it named |
//! | `guard` | nothing is written while the guard holds the Integration |
//!
//! The first two look at what the store holds. The others are about a course of events, which [`Watch`] is told; only a harness sees all of it.

use fairlead_model::{ExternalId, RecordId, Timestamp};
use fairlead_store::{Fence, Known, LaneFence, Snapshot};
use std::collections::BTreeMap;
use std::fmt;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its word in the table above.
    pub invariant: &'static str,
    /// What is wrong, for people.
    pub what: String,
}

impl Violation {
    fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// The books of a realm that do not add up.
#[must_use]
pub fn ledger(snapshot: &Snapshot) -> Vec<Violation> {
    let lanes = snapshot.lanes.iter().filter(|lane| !lane.balanced());
    let sources = snapshot.sources.iter().filter(|(_, source)| !source.balanced());
    lanes
        .map(|lane| format!("the lane does not add up: {lane:?}"))
        .chain(sources.map(|(name, source)| format!("the source {name} does not add up: {source:?}")))
        .map(|what| Violation::new("ledger", what))
        .collect()
}

/// Ids that stand for several things, among all records of a realm.
#[must_use]
pub fn identities(records: &[Known]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut stands_for: BTreeMap<(&str, &ExternalId), RecordId> = BTreeMap::new();
    for known in records {
        let id = known.record.id;
        let mut of_record: BTreeMap<&str, &ExternalId> = BTreeMap::new();
        for identity in &known.identities {
            let (participant, external) = (identity.participant.as_str(), &identity.external_id);
            if let Some(other) = of_record.insert(participant, external) {
                found.push(Violation::new("identity", format!("{id} is both {other} and {external} in {participant}")));
            }
            if let Some(other) = stands_for.insert((participant, external), id) {
                found.push(Violation::new("identity", format!("{external} in {participant} stands for both {other} and {id}")));
            }
        }
    }
    found
}

/// Follows a course of events. A *client* is one connector of one process: what another process was told, it does not know.
#[derive(Debug, Default)]
pub struct Watch {
    epochs: BTreeMap<String, u64>,
    waits: BTreeMap<String, Timestamp>,
}

impl Watch {
    /// A lease was granted.
    pub fn granted(&mut self, fence: &Fence) {
        let newest = self.epochs.entry(fence.key.clone()).or_default();
        *newest = fence.epoch.max(*newest);
    }

    /// Something was committed under the leases of a lane.
    pub fn committed_in_lane(&self, command: &str, fence: &LaneFence) -> Option<Violation> {
        fence.fences().find_map(|fence| self.committed(command, fence))
    }

    /// Something was committed under a lease.
    pub fn committed(&self, command: &str, fence: &Fence) -> Option<Violation> {
        let newest = self.epochs.get(&fence.key).copied().unwrap_or_default();
        let what = || format!("{command} was committed under epoch {} of {}, whose newest is {newest}", fence.epoch, fence.key);
        (fence.epoch < newest).then(|| Violation::new("fence", what()))
    }

    /// A system told a client to send nothing before `until`.
    pub fn told_to_wait(&mut self, client: &str, until: Timestamp) {
        let wait = self.waits.entry(client.to_owned()).or_default();
        *wait = until.max(*wait);
    }

    /// A client sends something.
    pub fn sends(&self, client: &str, request: &str, now: Timestamp) -> Option<Violation> {
        let until = self.waits.get(client).copied().filter(|until| *until > now)?;
        Some(Violation::new("wait", format!("{client} sent {request} at {now}, and was told to wait until {until}")))
    }

    /// A client writes; `guarded` tells that its process reports that the guard holds.
    pub fn writes(&self, client: &str, request: &str, guarded: bool) -> Option<Violation> {
        guarded.then(|| Violation::new("guard", format!("{client} sent {request} while the guard holds")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::state::ParticipantState;
    use fairlead_store::{Identity, LaneLedger, Record, SourceLedger};

    fn words(found: &[Violation]) -> Vec<&str> {
        found.iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn each_book_that_does_not_add_up_is_named() {
        let mut snapshot = Snapshot::default();
        snapshot.lanes.push(LaneLedger { target: "erp".into(), entered: 2, delivered: 1, pending: 1, ..LaneLedger::default() });
        snapshot.sources.insert("crm".into(), SourceLedger { read: 1, unchanged: 1, ..SourceLedger::default() });
        assert!(ledger(&snapshot).is_empty());
        snapshot.lanes[0].pending = 0;
        snapshot.sources.insert("crm".into(), SourceLedger { read: 2, unchanged: 1, ..SourceLedger::default() });
        let found = ledger(&snapshot);
        assert_eq!(words(&found), ["ledger", "ledger"]);
        assert!(found[0].what.contains("erp") && found[1].what.contains("crm"), "{found:?}");
        assert!(!snapshot.balanced());
    }

    #[test]
    fn an_id_that_stands_for_two_records_and_a_record_with_two_ids_are_found() {
        let known = |number: u8, ids: &[&str]| Known {
            record: Record {
                id: RecordId::parse(&format!("00000000-0000-0000-0000-0000000000{number:02}")).unwrap(),
                version: 1,
                document: fairlead_model::Document::new(),
                home: "crm".into(),
                provenance: BTreeMap::new(),
                deleted_at: None,
            },
            merged_into: None,
            identities: ids
                .iter()
                .map(|id| Identity { participant: "crm".into(), external_id: (*id).into(), state: ParticipantState::default() })
                .collect(),
            lanes: Vec::new(),
        };
        assert!(identities(&[known(1, &["a"]), known(2, &["b"])]).is_empty());
        assert_eq!(words(&identities(&[known(1, &["a"]), known(2, &["a"])])), ["identity"]);
        assert_eq!(words(&identities(&[known(1, &["a", "b"])])), ["identity"]);
    }

    #[test]
    fn a_commit_under_an_old_epoch_is_found() {
        let fence = |epoch| Fence { key: "lane/r/erp".into(), holder: "h".into(), epoch, until: Timestamp(0) };
        let mut watch = Watch::default();
        watch.granted(&fence(1));
        assert_eq!(watch.committed("settle", &fence(1)), None);
        watch.granted(&fence(2));
        assert_eq!(watch.committed("settle", &fence(1)).map(|found| found.invariant), Some("fence"));
        assert_eq!(watch.committed("settle", &fence(2)), None);
    }

    #[test]
    fn a_request_before_its_time_and_a_write_under_the_guard_are_found() {
        let mut watch = Watch::default();
        watch.told_to_wait("one/erp", Timestamp(5000));
        watch.told_to_wait("one/erp", Timestamp(4000));
        assert_eq!(watch.sends("one/erp", "GET /", Timestamp(4999)).map(|found| found.invariant), Some("wait"));
        assert_eq!((watch.sends("one/erp", "GET /", Timestamp(5000)), watch.sends("two/erp", "GET /", Timestamp(0))), (None, None));
        assert_eq!(watch.writes("one/erp", "POST /", true).map(|found| found.invariant), Some("guard"));
        assert_eq!(watch.writes("one/erp", "POST /", false), None);
    }
}
