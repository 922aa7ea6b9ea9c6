//! The values that commands and queries carry. They hold decisions; this module takes none.

use fairlead_model::state::ParticipantState;
use fairlead_model::{Document, ErrorClass, ExternalId, RecordId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a store command or query could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The lease was taken by another holder: stop, drop what is in hand, campaign again.
    #[error("lease {key} is held under a newer epoch; this holder must stop")]
    Fenced {
        /// The lease.
        key: String,
    },
    /// Records were changed by somebody else since they were looked up: look up and decide again.
    #[error("{} records changed meanwhile", .0.len())]
    Conflict(Vec<RecordId>),
    /// The disk is full.
    #[error("the store's disk is full: {0}")]
    Full(String),
    /// The store cannot be written (read-only file system or file).
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// The file is no store of ours, is damaged, or comes from a newer Fairlead.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// Anything else; retried.
    #[error("store failure: {0}")]
    Other(String),
}

/// A request for a lease.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// What: `reader/<realm>/<participant>` or `lane/<realm>/<target>`.
    pub key: String,
    /// Who: unique per process and start.
    pub holder: String,
    /// For how long.
    pub ttl: Duration,
    /// The present moment.
    pub now: Timestamp,
}

/// A held lease: what every commit is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The lease.
    pub key: String,
    /// Its holder.
    pub holder: String,
    /// Rises with each new holder.
    pub epoch: u64,
    /// Valid until then.
    pub until: Timestamp,
}

/// Who put a key in a lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A change read from this participant.
    Source(String),
    /// A foreign edit is put back.
    Restore,
    /// A mapping row changed.
    Remap,
    /// `spec.sync.resync` changed.
    Resync,
    /// Reconciliation found a difference.
    Repair,
    /// A dead letter is tried again.
    Replay,
}

/// A canonical record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Rises by one with every change.
    pub version: u64,
    /// The canonical document.
    pub document: Document,
    /// The participant where it was born.
    pub home: String,
    /// Per canonical field (list fields by root): who set it last and when, as far as it matters (unowned fields, `tie: Latest`).
    pub provenance: BTreeMap<String, Provenance>,
    /// Deleted then; the identities outlive it.
    pub deleted_at: Option<Timestamp>,
}

/// Who set a field last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The participant.
    #[serde(rename = "p")]
    pub participant: String,
    /// The vendor's modification time.
    #[serde(rename = "t")]
    pub at: Timestamp,
}

/// An external id that stands for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// In which participant.
    pub participant: String,
    /// The vendor's id.
    pub external_id: ExternalId,
    /// What that participant was last known to hold.
    pub state: ParticipantState,
}

/// Everything known of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The record.
    pub record: Record,
    /// Its external ids with their states, at most one per participant.
    pub identities: Vec<Identity>,
    /// Targets in whose lane it stands, and whether a write is in flight there.
    pub lanes: Vec<LaneEntry>,
}

impl Known {
    /// The identity in `participant`.
    #[must_use]
    pub fn identity(&self, participant: &str) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.participant == participant)
    }
}

/// A record's place in a target's lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneEntry {
    /// The target.
    pub target: String,
    /// A write is in flight, or was when a process died, or was sent and has no known outcome yet.
    pub in_flight: bool,
}

/// An index entry by which records are found that no identity names yet. `rule` is the rule's place in the list, `hash` covers the
/// rule's paths and values; equal hashes are checked against the documents by the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatchKey {
    /// The hash over rule and values.
    pub hash: u64,
}

/// A batch of observed changes.
#[derive(Debug, Clone)]
pub struct Absorb {
    /// The realm.
    pub realm: String,
    /// The participant that was read.
    pub participant: String,
    /// The reader's lease.
    pub fence: Fence,
    /// What was decided per read record.
    pub records: Vec<AbsorbRecord>,
    /// What could not be decided.
    pub dead_letters: Vec<NewDeadLetter>,
    /// External ids to read again by key; with the participant's external id they wait for, if they wait for one.
    pub rereads: Vec<(ExternalId, Option<ExternalId>)>,
    /// External ids whose requested re-read is herewith done.
    pub reread_done: Vec<ExternalId>,
    /// Where the next read begins, if this batch moves it.
    pub checkpoint: Option<Checkpoint>,
    /// Reads counted: how many records the batch held, and how many of those were equal to what was known.
    pub unchanged: u64,
    /// Changes and deletes that count towards the guard.
    pub guard: GuardCounts,
    /// Conflicts on owned fields (foreign edits) seen in this batch.
    pub conflicts: u64,
    /// The present moment.
    pub now: Timestamp,
}

impl Absorb {
    /// A batch that commits nothing yet.
    #[must_use]
    pub fn empty(realm: impl Into<String>, participant: impl Into<String>, fence: Fence, now: Timestamp) -> Self {
        Self {
            realm: realm.into(),
            participant: participant.into(),
            fence,
            records: Vec::new(),
            dead_letters: Vec::new(),
            rereads: Vec::new(),
            reread_done: Vec::new(),
            checkpoint: None,
            unchanged: 0,
            guard: GuardCounts::default(),
            conflicts: 0,
            now,
        }
    }
}

/// What was decided for one read record.
#[derive(Debug, Clone)]
pub struct AbsorbRecord {
    /// The record's id.
    pub id: RecordId,
    /// The record itself, if it is new or changed.
    pub change: RecordChange,
    /// The external id it was read under.
    pub external_id: ExternalId,
    /// The new state of the participant that was read.
    pub state: ParticipantState,
    /// Lanes to enter.
    pub enqueue: Vec<(String, Origin)>,
    /// Whether this counts as `changed` (true) or `unchanged` (false) in the source's ledger.
    pub counts_as_changed: bool,
}

/// What happens to the canonical record.
#[derive(Debug, Clone)]
pub enum RecordChange {
    /// It stays as it is; only state (and perhaps the identity) is new. The record must still have this version.
    Keep {
        /// The version that was looked up.
        version: u64,
    },
    /// It is new. A conflict if a live record carries one of its match keys by now: another reader found the same record first.
    Insert {
        /// The record, version 1.
        record: Record,
        /// Its match keys.
        match_keys: Vec<MatchKey>,
    },
    /// It changed.
    Update {
        /// The record, its version one above the one that was looked up.
        record: Record,
        /// Its match keys, all of them.
        match_keys: Vec<MatchKey>,
    },
}

/// The result of [`crate::Store::absorb`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absorbed {
    /// The store's sequence after the commit.
    pub sequence: u64,
}

/// Where reading stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// A slice of the entity's stream: `main`, `deletes`, or a child collection.
    pub slice: String,
    /// The definition's cursor, opaque.
    pub cursor: serde_json::Value,
    /// The first full read is complete.
    pub complete: bool,
}

/// A claim on a lane.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The realm.
    pub realm: String,
    /// The target.
    pub target: String,
    /// The lane's lease.
    pub fence: Fence,
    /// How many keys at most.
    pub max: usize,
    /// Whether keys that the target does not hold yet may be claimed (no, until every reader's first backfill is matched). Keys whose
    /// record is deleted, and keys with an open intent, are claimed in any case.
    pub creates: bool,
    /// The present moment.
    pub now: Timestamp,
}

/// A claimed key with everything needed to write it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The record and all its identities.
    pub known: Known,
    /// Who put it in the lane.
    pub origin: Origin,
    /// Since when it waits.
    pub since: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// An intent was committed for this key and never settled (an earlier epoch died, or a Retry said `unknown`): look it up first. `None`
    /// when nothing was sent.
    pub intent: Option<Intent>,
}

/// A write that was begun and not settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// When it was committed, right before the request went out.
    pub at: Timestamp,
    /// The record's version that was being written.
    pub version: u64,
    /// What was being sent, as the engine described it with [`crate::Store::intend`]; opaque here.
    pub sent: serde_json::Value,
}

/// What claimed keys are about to be sent.
#[derive(Debug, Clone)]
pub struct Intend {
    /// The realm.
    pub realm: String,
    /// The target.
    pub target: String,
    /// The lane's lease.
    pub fence: Fence,
    /// Per record: a description of what is sent, opaque to the store.
    pub sent: Vec<(RecordId, serde_json::Value)>,
    /// The present moment.
    pub now: Timestamp,
}

/// Results of claimed keys.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The realm.
    pub realm: String,
    /// The target.
    pub target: String,
    /// The lane's lease.
    pub fence: Fence,
    /// One result per key.
    pub results: Vec<Settlement>,
    /// The present moment.
    pub now: Timestamp,
}

/// The result of one claimed key.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The record.
    pub id: RecordId,
    /// The version that was claimed. If the lane wants a newer one by now, the key stays.
    pub version: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of one claimed key.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Written and acknowledged.
    Delivered {
        /// The target's id of the record.
        external_id: ExternalId,
        /// The target's state now (the store sets `settled` to the commit's sequence).
        state: ParticipantState,
    },
    /// The target held it already; nothing was sent. With a state if something was learnt.
    Unchanged {
        /// External id and state, if they are new.
        learnt: Option<(ExternalId, ParticipantState)>,
    },
    /// It does not belong in this target.
    Filtered {
        /// Why: `When`, `NeverCreated`, `MatchOnly`, `Keep`.
        reason: String,
    },
    /// To be tried again.
    Retry {
        /// Not before.
        at: Timestamp,
        /// Whether it counts as an attempt (throttling and an open circuit do not).
        attempt: bool,
        /// The write may have taken effect: the intent stays open (an earlier one too, if none was committed for this claim), and the next
        /// claim sees it. `false` says that no write is outstanding.
        unknown: bool,
    },
    /// Another record must come to this target first. Nothing was sent; an earlier intent that is still open stays so.
    WaitFor {
        /// That record.
        record: RecordId,
    },
    /// It cannot be delivered as it is. With the class `UnknownOutcome` an open intent outlives the letter: whatever enters the lane next is
    /// looked up before it is written.
    DeadLetter(Box<NewDeadLetter>),
}

/// Keys to put in a lane again.
#[derive(Debug, Clone)]
pub struct Enqueue {
    /// The realm.
    pub realm: String,
    /// The target.
    pub target: String,
    /// Which keys.
    pub keys: Keys,
    /// Who asks.
    pub origin: Origin,
    /// The present moment.
    pub now: Timestamp,
}

/// Which keys.
#[derive(Debug, Clone)]
pub enum Keys {
    /// These records.
    Records(Vec<RecordId>),
    /// Every live record of the realm.
    All,
    /// The records of the target's open outbound dead letters (which close as superseded by the new entry).
    DeadLetters,
}

/// Where in its way a record became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Native to canonical, or the contract's validation.
    Inbound,
    /// Identity: several matches.
    Identity,
    /// Canonical to native.
    Outbound,
    /// The target refused it, or the attempts ran out.
    Delivery,
}

/// A dead letter to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDeadLetter {
    /// Where it happened.
    pub stage: Stage,
    /// The participant it was read from, or the target it goes to.
    pub participant: String,
    /// That participant's external id, if it has one.
    pub external_id: Option<ExternalId>,
    /// The canonical record, if known.
    pub record: Option<RecordId>,
    /// The record's bytes as they were read, or the canonical document, as JSON text.
    pub original: String,
    /// The payload as it was to be sent, as JSON text.
    pub payload: Option<String>,
    /// What kind of error.
    pub class: ErrorClass,
    /// The reason word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field or mapping row.
    pub field: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// The dead letter whose edit or replay led here.
    pub parent: Option<i64>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The realm.
    pub realm: String,
    /// What it holds.
    pub letter: NewDeadLetter,
    /// When it was first seen.
    pub at: Timestamp,
    /// `None` while open; else how and when it was closed, and by whom.
    pub closed: Option<(CloseReason, Timestamp, String)>,
}

/// How a dead letter was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// A later good version, a newer original, or a replay made it void.
    Superseded,
    /// A person gave it up.
    Discarded,
    /// It was tried again.
    Replayed,
    /// A person corrected it.
    Edited,
}

/// Which dead letters.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Of this realm; `None` is all.
    pub realm: Option<String>,
    /// These numbers; empty is all.
    pub ids: Vec<i64>,
    /// Of this participant.
    pub participant: Option<String>,
    /// Closed ones too.
    pub closed: bool,
    /// At most so many.
    pub max: usize,
}

/// Dead letters to close.
#[derive(Debug, Clone)]
pub struct CloseDeadLetters {
    /// Their numbers.
    pub ids: Vec<i64>,
    /// How.
    pub reason: CloseReason,
    /// Who.
    pub author: String,
    /// The present moment.
    pub now: Timestamp,
}

/// Counts for the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardCounts {
    /// Records changed.
    pub changes: u64,
    /// Records deleted.
    pub deletes: u64,
}

/// One realm in numbers, from one snapshot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Per target and origin.
    pub lanes: Vec<LaneLedger>,
    /// Per source participant.
    pub sources: BTreeMap<String, SourceLedger>,
    /// Per target: keys waiting (in flight included), the `since` of the oldest that is due or in flight.
    pub pending: BTreeMap<String, Pending>,
    /// Open dead letters per participant (source or target).
    pub dead_letters: BTreeMap<String, u64>,
    /// Live records, and how many of them more than one participant holds.
    pub live: u64,
    /// Live records that have identities in more than one participant.
    pub matched: u64,
    /// The time of the last `Delivered`.
    pub last_delivered: Option<Timestamp>,
    /// Conflicts on owned fields so far.
    pub conflicts: u64,
}

/// What waits in one target's lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Keys.
    pub keys: u64,
    /// Since when the oldest of them waits.
    pub oldest: Option<Timestamp>,
}

/// The books of one lane and origin: `entered = delivered + unchanged + filtered + superseded + discarded + dead_lettered + pending`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaneLedger {
    /// The target.
    pub target: String,
    /// The origin, printed: a participant's name, or `Restore`, `Remap`, ...
    pub origin: String,
    /// Entries made.
    pub entered: u64,
    /// Written and acknowledged.
    pub delivered: u64,
    /// Found to be in step.
    pub unchanged: u64,
    /// Not belonging there, by reason.
    pub filtered: BTreeMap<String, u64>,
    /// Overtaken by a newer entry.
    pub superseded: u64,
    /// Given up by a person.
    pub discarded: u64,
    /// Open dead letters now.
    pub dead_lettered: u64,
    /// Waiting now.
    pub pending: u64,
}

impl LaneLedger {
    /// Whether the books add up.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let out = self.delivered + self.unchanged + self.filtered.values().sum::<u64>() + self.superseded + self.discarded;
        self.entered == out + self.dead_lettered + self.pending
    }
}

/// The books of one source: `read = changed + unchanged + dead_lettered`, all cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceLedger {
    /// Records read.
    pub read: u64,
    /// Of these, changed something.
    pub changed: u64,
    /// Of these, equal to what was known (or to be read again).
    pub unchanged: u64,
    /// Of these, dead letters.
    pub dead_lettered: u64,
}

impl SourceLedger {
    /// Whether the books add up.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.read == self.changed + self.unchanged + self.dead_lettered
    }
}

impl Snapshot {
    /// Whether every book adds up.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.lanes.iter().all(LaneLedger::balanced) && self.sources.values().all(SourceLedger::balanced)
    }
}
