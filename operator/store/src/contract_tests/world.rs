//! A small scenario for tests of stores: one realm, a CRM that is read and an ERP that is written, and short ways to say what happens.

use crate::{
    Absorb, AbsorbRecord, Absorbed, Claim, Claimed, Enqueue, Fate, Fence, FieldChange, Guarded, Identity, IndexKey, Intend, Keys, Known,
    LeaseRequest, Merge, NewDeadLetter, Origin, Outcome, Provenance, Record, RecordChange, Settle, Settlement, Snapshot, Split, Stage,
    Store, StoreError, Survivor,
};
use fairlead_model::state::{FieldState, ParticipantState};
use fairlead_model::{ErrorClass, ExternalId, RecordId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The realm.
pub const REALM: &str = "sales/customers";
/// The participant that is read.
pub const CRM: &str = "crm";
/// The target.
pub const ERP: &str = "erp";
/// A sequence after all others.
const EVER: u64 = i64::MAX.cast_unsigned();
/// The leases' length.
pub const TTL: Duration = Duration::from_secs(15);

/// A store with the leases of one process on it.
#[derive(Clone)]
pub struct World {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The lease to read the CRM.
    pub reader: Fence,
    /// The lease of the ERP's lane.
    pub lane: Fence,
}

/// The moment `seconds` after the scenario's begin.
#[must_use]
pub fn at(seconds: i64) -> Timestamp {
    Timestamp(1_790_000_000_000 + seconds * 1000)
}

/// The `n`th record.
#[must_use]
pub fn id(n: u64) -> RecordId {
    RecordId(Uuid::from_u64_pair(0x0190_0000_0000_7000, 0x8000_0000_0000_0000 | n))
}

/// The CRM's id of the `n`th record.
#[must_use]
pub fn crm_id(n: u64) -> ExternalId {
    ExternalId(format!("c{n}"))
}

/// The ERP's id of the `n`th record.
#[must_use]
pub fn erp_id(n: u64) -> ExternalId {
    ExternalId(format!("e{n}"))
}

/// A state that shows `version`.
#[must_use]
pub fn state(version: u64) -> ParticipantState {
    let field = FieldState { seen: Some(fairlead_model::hash::ValueHash(version)), ..FieldState::default() };
    ParticipantState { fields: BTreeMap::from([("name".into(), field)]), ..ParticipantState::default() }
}

/// The `n`th record in a version.
#[must_use]
pub fn record(n: u64, version: u64) -> Record {
    let document = serde_json::json!({"name": format!("Ünit {n} v{version}"), "amount": "12.30", "tags": [1, null, true]});
    Record {
        id: id(n),
        version,
        document: document.as_object().cloned().unwrap(),
        home: CRM.to_owned(),
        provenance: BTreeMap::from([("name".into(), Provenance { participant: CRM.into(), at: at(0) })]),
        deleted_at: None,
    }
}

/// The key of a match rule.
#[must_use]
pub const fn key(hash: u64) -> IndexKey {
    IndexKey { hash, matches: true }
}

/// The new record `n`, to enter the ERP's lane.
#[must_use]
pub fn inserted(n: u64) -> AbsorbRecord {
    AbsorbRecord {
        id: id(n),
        change: RecordChange::Insert { record: record(n, 1), keys: vec![key(u64::MAX - n)] },
        external_id: crm_id(n),
        state: state(1),
        enqueue: vec![(ERP.to_owned(), Origin::Source(CRM.to_owned()))],
        counts_as_changed: true,
    }
}

/// The record `n` in a later version, to enter the ERP's lane.
#[must_use]
pub fn updated(n: u64, version: u64) -> AbsorbRecord {
    let change = RecordChange::Update { record: record(n, version), keys: vec![key(u64::MAX - n)] };
    AbsorbRecord { change, state: state(version), ..inserted(n) }
}

/// The record `n`, deleted by a later version.
#[must_use]
pub fn deleted(n: u64, version: u64, now: Timestamp) -> AbsorbRecord {
    let record = Record { deleted_at: Some(now), ..record(n, version) };
    let state = ParticipantState { deleted: true, ..state(version) };
    AbsorbRecord { change: RecordChange::Update { record, keys: Vec::new() }, state, ..inserted(n) }
}

/// The CRM's merge of one record, in a version, into another.
#[must_use]
pub fn merge_into(world: &World, (loser, loser_version): (u64, u64), (survivor, version): (u64, u64), now: Timestamp) -> Merge {
    Merge {
        realm: REALM.to_owned(),
        participant: CRM.to_owned(),
        fence: world.reader.clone(),
        loser: id(loser),
        loser_version,
        survivor: Survivor::Record {
            record: record(survivor, version + 1),
            keys: vec![key(u64::MAX - survivor)],
            enqueue: Vec::new(),
            put_away: Vec::new(),
            aliases: vec![(CRM.to_owned(), ParticipantState { deleted: true, ..state(loser_version) })],
        },
        referring: Vec::new(),
        rereads: vec![crm_id(survivor)],
        reread_done: vec![crm_id(loser)],
        began: EVER,
        guard: Guarded::default(),
        history: Vec::new(),
        now,
    }
}

/// The ERP's id of the record `n`, looked up in a version, leaves it for the new record `new`.
#[must_use]
pub fn split_off((n, version): (u64, u64), new: u64, now: Timestamp) -> Split {
    Split {
        realm: REALM.to_owned(),
        id: id(n),
        version: version + 1,
        home: CRM.to_owned(),
        provenance: BTreeMap::from([("name".into(), Provenance::nobodys())]),
        enqueue: vec![(ERP.to_owned(), Origin::Source(CRM.to_owned()))],
        states: Vec::new(),
        new: id(new),
        new_home: ERP.to_owned(),
        leaving: vec![Identity {
            participant: ERP.to_owned(),
            external_id: erp_id(n),
            state: ParticipantState { keyed_as: Some(id(n)), settled: EVER, ..ParticipantState::default() },
        }],
        rereads: vec![(ERP.to_owned(), vec![erp_id(n)]), (CRM.to_owned(), vec![crm_id(n), crm_id(n + 100)])],
        leases: Vec::new(),
        notes: vec![("splits".to_owned(), None, serde_json::json!(n))],
        now,
    }
}

/// A dead letter of the record `n` on its way to the ERP.
#[must_use]
pub fn letter(n: u64, stage: Stage) -> NewDeadLetter {
    NewDeadLetter {
        stage,
        participant: if matches!(stage, Stage::Inbound | Stage::Identity) { CRM.to_owned() } else { ERP.to_owned() },
        external_id: matches!(stage, Stage::Inbound | Stage::Identity).then(|| crm_id(n)),
        record: matches!(stage, Stage::Outbound | Stage::Delivery).then(|| id(n)),
        original: "{\"name\":\"\"}".to_owned(),
        payload: None,
        class: ErrorClass::Data,
        reason: "ValidationFailed".to_owned(),
        message: "name: must not be empty".to_owned(),
        detail: Some("'' is no name".to_owned()),
        field: Some("name".to_owned()),
        attempts: 1,
        parent: None,
    }
}

/// The CRM showed another value of a field of record `n` than its owner's.
#[must_use]
pub fn contested(n: u64, field: &str) -> FieldChange {
    FieldChange {
        record: id(n),
        field: Some(field.parse().unwrap()),
        from: Some(serde_json::json!("7.50")),
        to: Some(serde_json::json!("5\u{0}")),
        fate: Fate::Conflict,
    }
}

impl World {
    /// The leases of `holder` on `store`, taken at [`at`]`(0)`.
    pub async fn new(store: Arc<dyn Store>, holder: &str) -> Self {
        let reader = lease(&*store, &format!("reader/{REALM}/{CRM}"), holder, at(0)).await.unwrap();
        let lane = lease(&*store, &format!("lane/{REALM}/{ERP}"), holder, at(0)).await.unwrap();
        Self { store, reader, lane }
    }

    /// An empty batch read from the CRM, after all that was ever asked for.
    #[must_use]
    pub fn batch(&self, now: Timestamp) -> Absorb {
        Absorb { began: EVER, ..Absorb::empty(REALM, CRM, self.reader.clone(), now) }
    }

    /// Absorbs `records` as read from the CRM.
    pub async fn try_absorb(&self, records: Vec<AbsorbRecord>, now: Timestamp) -> Result<Absorbed, StoreError> {
        self.store.absorb(&Absorb { records, ..self.batch(now) }).await
    }

    /// Absorbs `records` as read from the CRM; they must be accepted.
    pub async fn absorb(&self, records: Vec<AbsorbRecord>, now: Timestamp) -> Absorbed {
        self.try_absorb(records, now).await.unwrap()
    }

    /// Claims up to `max` keys of the ERP's lane.
    pub async fn try_claim(&self, max: usize, creates: bool, now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        self.store.claim(&self.claim_of(max, creates, true, now)).await
    }

    /// A claim of the ERP's lane; with `bulk` also of what has time.
    #[must_use]
    pub fn claim_of(&self, max: usize, creates: bool, bulk: bool, now: Timestamp) -> Claim {
        Claim { realm: REALM.to_owned(), target: ERP.to_owned(), fence: self.lane.clone().into(), max, creates, bulk, now }
    }

    /// Claims all keys of the ERP's lane that are due.
    pub async fn claim(&self, now: Timestamp) -> Vec<Claimed> {
        self.try_claim(1000, true, now).await.unwrap()
    }

    /// Says what is about to be sent for `keys`.
    pub async fn intend(&self, keys: &[RecordId], now: Timestamp) -> Result<(), StoreError> {
        let sent = keys.iter().map(|id| (*id, serde_json::json!({"to": id.to_string()}))).collect();
        let intend = Intend { realm: REALM.to_owned(), target: ERP.to_owned(), fence: self.lane.clone().into(), sent, now };
        self.store.intend(&intend).await
    }

    /// Settles claimed keys.
    pub async fn try_settle(&self, results: Vec<(RecordId, u64, Outcome)>, now: Timestamp) -> Result<(), StoreError> {
        let results = results.into_iter().map(|(id, version, outcome)| Settlement { id, version, learnt: None, outcome }).collect();
        self.try_settle_all(results, now).await
    }

    /// Settles claimed keys, with what was learnt of them.
    pub async fn try_settle_all(&self, results: Vec<Settlement>, now: Timestamp) -> Result<(), StoreError> {
        let settle = Settle { realm: REALM.to_owned(), target: ERP.to_owned(), fence: self.lane.clone().into(), results, now };
        self.store.settle(&settle).await
    }

    /// Settles one claimed key; it must be accepted.
    pub async fn settle(&self, n: u64, version: u64, outcome: Outcome, now: Timestamp) {
        self.try_settle(vec![(id(n), version, outcome)], now).await.unwrap();
    }

    /// Brings the new records `ns` into both systems.
    pub async fn in_step(&self, ns: impl IntoIterator<Item = u64> + Clone, now: Timestamp) {
        self.absorb(ns.clone().into_iter().map(inserted).collect(), now).await;
        self.claim(now).await;
        self.try_settle(ns.into_iter().map(|n| (id(n), 1, delivered(n, 1))).collect(), now).await.unwrap();
    }

    /// Puts the records `ns` in the ERP's lane.
    pub async fn enqueue(&self, keys: Keys, origin: Origin, now: Timestamp) -> u64 {
        self.store.enqueue(&Enqueue { realm: REALM.to_owned(), target: ERP.to_owned(), keys, origin, now }).await.unwrap()
    }

    /// What is known of the record `n`.
    pub async fn known(&self, n: u64) -> Option<Known> {
        self.store.known_by_id(REALM, &[id(n)]).await.unwrap().remove(0)
    }

    /// The realm in numbers; the books must add up.
    pub async fn snapshot(&self, now: Timestamp) -> Snapshot {
        let snapshot = self.store.snapshot(REALM, now).await.unwrap();
        assert!(snapshot.balanced(), "the books do not add up: {snapshot:#?}");
        snapshot
    }

    /// The book of the ERP's lane for one origin, as printed.
    pub async fn book(&self, origin: &str) -> crate::LaneLedger {
        let lanes = self.snapshot(at(0)).await.lanes;
        lanes.into_iter().find(|lane| lane.target == ERP && lane.origin == origin).unwrap_or_default()
    }
}

/// Takes or renews a lease.
pub async fn lease(store: &dyn Store, key: &str, holder: &str, now: Timestamp) -> Option<Fence> {
    leases(store, [key], holder, now).await.remove(0)
}

/// Takes or renews several leases at once.
pub async fn leases(store: &dyn Store, keys: impl IntoIterator<Item = &str>, holder: &str, now: Timestamp) -> Vec<Option<Fence>> {
    let keys = keys.into_iter().map(str::to_owned).collect();
    store.lease(&LeaseRequest { keys, holder: holder.to_owned(), ttl: TTL, now }).await.unwrap()
}

/// The record `n` arrived in the ERP in a version.
#[must_use]
pub fn delivered(n: u64, version: u64) -> Outcome {
    Outcome::Delivered { external_id: erp_id(n), state: state(version), incomplete: None }
}

/// To be tried again at a moment; an attempt with a known outcome.
#[must_use]
pub const fn retry(at: Timestamp) -> Outcome {
    Outcome::Retry { at, attempt: true, unknown: false }
}
