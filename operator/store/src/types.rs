//! The values that commands and queries carry. They hold decisions; this module takes none.

use crate::LaneFence;
use fairlead_model::hash::ValueHash;
use fairlead_model::state::ParticipantState;
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, SmolStr, Timestamp, document};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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
    /// What was asked for cannot be done as things stand: the message says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// Anything else; retried.
    #[error("store failure: {0}")]
    Other(String),
}

/// A request for leases, each on its own.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// What: `reader/<realm>/<participant>`, `lane/<realm>/<target>` or, in partitions, `lane/<realm>/<target>/<number>`.
    pub keys: Vec<String>,
    /// Who: unique per process and start.
    pub holder: String,
    /// For how long.
    pub ttl: Duration,
    /// The present moment, by the asker's clock.
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
    /// Valid until then, by the asker's clock; in a listing, by the one that judges.
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
    /// A caller of the API.
    Api,
}

impl Origin {
    /// How soon what it put there is wanted.
    #[must_use]
    pub const fn haste(&self) -> Haste {
        match self {
            Self::Source(_) | Self::Restore | Self::Replay | Self::Api => Haste::Soon,
            Self::Remap | Self::Resync | Self::Repair => Haste::Bulk,
        }
    }
}

/// How soon something is wanted that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// A person or a system changed something, or a write waits for it.
    Soon,
    /// It was asked for in bulk, to be mapped, compared or put right: it has time.
    Bulk,
}

/// A canonical record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Rises by one with every change; none has been yet where a record was split off another one and nobody who holds it was read since.
    pub version: u64,
    /// The canonical document.
    pub document: Document,
    /// The participant where it was born.
    pub home: String,
    /// Per canonical field (list fields by root): who set it last and when, as far as it matters (unowned fields, `tie: Latest`).
    pub provenance: BTreeMap<SmolStr, Provenance>,
    /// Deleted then; the identities outlive it.
    pub deleted_at: Option<Timestamp>,
}

impl Record {
    /// Whether it was split off another one and nobody who holds it was read since: nothing is known of it.
    #[must_use]
    pub const fn is_unread(&self) -> bool {
        self.version == 0
    }
}

/// Who set a field last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The participant.
    #[serde(rename = "p")]
    pub participant: SmolStr,
    /// The vendor's modification time.
    #[serde(rename = "t")]
    pub at: Timestamp,
}

impl Provenance {
    /// Of a value that came from somebody who does not hold the record any more, for it was split: the first who shows one of its own has the
    /// word.
    #[must_use]
    pub const fn nobodys() -> Self {
        Self { participant: SmolStr::new_static(""), at: Timestamp(0) }
    }

    /// Whether it is such a value.
    #[must_use]
    pub fn is_nobodys(&self) -> bool {
        self.participant.is_empty()
    }
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
    /// It was folded into this record, which lives on in its place; the identities that it still has are aliases of that one.
    pub merged_into: Option<RecordId>,
}

impl Known {
    /// The identity in `participant`.
    #[must_use]
    pub fn identity(&self, participant: &str) -> Option<&Identity> {
        self.identities.iter().find(|identity| identity.participant == participant)
    }

    /// Whether some participant but `except` has a copy that it has not deleted, or may be getting one just now.
    #[must_use]
    pub fn lives_on(&self, except: Option<&str>) -> bool {
        let other = |participant: &str| except != Some(participant);
        self.identities.iter().any(|identity| !identity.state.deleted && other(&identity.participant))
            || self.lanes.iter().any(|lane| lane.in_flight && other(&lane.target))
    }
}

/// A record's place in a target's lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneEntry {
    /// The target.
    pub target: String,
    /// A write is in flight, or was when a process died, or was sent and has no known outcome yet.
    pub in_flight: bool,
    /// Attempts that counted and failed since something entered the empty place, an entry of it ended, or it was entered to be mapped otherwise
    /// or tried again. A newer version that overtakes the one that failed inherits them; what is put off or waits for another record keeps them.
    pub attempts: u32,
}

/// An entry of the index by which records are found by what they hold: by a match rule (who a record is that no identity names yet; deleted ones
/// too, while copies of them live on), or by one field (a list that is filtered). Equal hashes are checked against the documents by whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexKey {
    /// The hash over paths and values.
    pub hash: u64,
    /// The key of a match rule: it tells who the record is.
    pub matches: bool,
}

impl IndexKey {
    /// The key of a match rule, if all its fields are there. It depends on the rule's paths, not on its place among the rules: another rule
    /// before it changes nothing for the records that it finds.
    #[must_use]
    pub fn of_rule(paths: &[FieldPath], document: &Document) -> Option<Self> {
        let mut values = Vec::with_capacity(paths.len() * 2);
        for path in paths {
            values.push(Value::from(path.to_string()));
            values.push(document::present(document, path)?.clone());
        }
        Some(Self { hash: ValueHash::of(Some(&Value::Array(values))).0, matches: true })
    }

    /// The key of one field that holds `value`; for [`crate::Store::find`].
    #[must_use]
    pub fn of_field(path: &FieldPath, value: &Value) -> Self {
        let named = Value::Object(Document::from_iter([(path.to_string(), value.clone())]));
        Self { hash: ValueHash::of(Some(&named)).0, matches: false }
    }
}

/// By what a realm's records can be found, and how far a change of that has come; kept as the note [`IndexState::NOTE`]. Of several that write
/// one realm each keeps a note of its own besides, for how far it has come itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexState {
    /// Over the match rules and fields that are wanted.
    pub digest: u64,
    /// The fields by which every record can be found now. While the index is rebuilt, those that the former one had and this one keeps.
    pub fields: Vec<FieldPath>,
    /// Every record has its keys.
    pub complete: bool,
    /// Until then: the last record that has.
    pub after: Option<RecordId>,
}

impl IndexState {
    /// The name of the note.
    pub const NOTE: &'static str = "index";
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
    /// The store's sequence when that reading began: what was asked for since is not done by it, and stays.
    pub began: u64,
    /// External ids that stand for no record and are gone: what was wrong with them is over, so their open letters close as superseded.
    pub gone: Vec<ExternalId>,
    /// Where the next read begins, if this batch moves it.
    pub checkpoint: Option<Checkpoint>,
    /// Reads counted: how many records the batch held, and how many of those were equal to what was known.
    pub unchanged: u64,
    /// What counts towards the guard.
    pub guard: Guarded,
    /// What became of fields in this batch; kept for a while. Conflicts among it are counted.
    pub history: Vec<FieldChange>,
    /// Writes of API callers that this participant has acknowledged, past its lane: they enter its book under `Api` and are delivered at once.
    pub direct: u64,
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
            began: 0,
            gone: Vec::new(),
            checkpoint: None,
            unchanged: 0,
            guard: Guarded::default(),
            history: Vec::new(),
            direct: 0,
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

/// What a participant showed of a field of a record that was known, otherwise than the record had it.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// The record.
    pub record: RecordId,
    /// The canonical field; none where the participant has deleted the record.
    pub field: Option<FieldPath>,
    /// What the canonical record held before; none is no value.
    pub from: Option<Value>,
    /// What the participant showed.
    pub to: Option<Value>,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The field, or the record's existence, is another's: `from` stands.
    Conflict = 0,
    /// The record holds it since.
    Won = 1,
    /// It is no change: the participant held it when it was seen first. The field is another's, and `from` stands.
    FirstSeen = 2,
}

impl FieldChange {
    /// A participant has deleted its copy of a record, which is therewith deleted or lives on.
    #[must_use]
    pub fn of_existence(record: RecordId, fate: Fate) -> Self {
        Self { record, field: None, from: None, to: None, fate }
    }

    /// Whether it counts as a conflict.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.fate == Fate::Conflict
    }
}

/// Of a longer value (so many bytes as JSON) the history keeps the beginning.
pub const HISTORY_VALUE: usize = 2048;
/// So many changes of each fate are kept of each record: the newest.
pub const HISTORY_PER_RECORD: usize = 50;
/// For so long the history is kept.
pub const HISTORY_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// A change of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastChange {
    /// What it was.
    pub change: FieldChange,
    /// Whose it was.
    pub participant: String,
    /// When it was absorbed.
    pub at: Timestamp,
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
        /// What it is found by.
        keys: Vec<IndexKey>,
    },
    /// It changed.
    Update {
        /// The record, its version one above the one that was looked up.
        record: Record,
        /// What it is found by, all of it.
        keys: Vec<IndexKey>,
    },
}

/// One record is folded into another, because a vendor merged the two, or goes on under another external id, because it was entered again.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The realm.
    pub realm: String,
    /// The participant whose vendor merged them.
    pub participant: String,
    /// The reader's lease.
    pub fence: Fence,
    /// The record that goes.
    pub loser: RecordId,
    /// Its version, as it was looked up.
    pub loser_version: u64,
    /// What lives on.
    pub survivor: Survivor,
    /// Records that refer to either of the two.
    pub referring: Vec<Referring>,
    /// External ids of the participant to read again by key.
    pub rereads: Vec<ExternalId>,
    /// External ids whose requested re-read is herewith done.
    pub reread_done: Vec<ExternalId>,
    /// The store's sequence when that reading began; see [`Absorb::began`].
    pub began: u64,
    /// What counts towards the guard.
    pub guard: Guarded,
    /// What the survivor's fields held before; kept for a while.
    pub history: Vec<FieldChange>,
    /// The present moment.
    pub now: Timestamp,
}

/// What lives on after a merge.
#[derive(Debug, Clone)]
pub enum Survivor {
    /// Not yet decided: only a part of what refers to the two is dealt with here, because one command is bounded.
    Later,
    /// Another record. It gets the loser's external ids in participants where it has none; the others stay with the loser as aliases.
    Record {
        /// The record as it is from now on, its version one above the one that was looked up.
        record: Record,
        /// What it is found by, all of it.
        keys: Vec<IndexKey>,
        /// Lanes that it enters.
        enqueue: Vec<(String, Origin)>,
        /// Lanes that the loser enters, to have the alias there put away.
        put_away: Vec<(String, Origin)>,
        /// New states of aliases, by participant.
        aliases: Vec<(String, ParticipantState)>,
    },
    /// The same record, under an external id of this participant that no record had. The old one becomes an alias.
    ExternalId {
        /// The new external id.
        external_id: ExternalId,
        /// What the participant is known to hold under it.
        state: ParticipantState,
        /// The id for the tombstone that carries the alias.
        alias: RecordId,
        /// The alias's state.
        alias_state: ParticipantState,
    },
}

/// A record that refers to one that is merged.
#[derive(Debug, Clone)]
pub struct Referring {
    /// The record.
    pub id: RecordId,
    /// What becomes of it.
    pub change: RecordChange,
    /// Lanes that it enters.
    pub enqueue: Vec<(String, Origin)>,
}

/// Some of what holds a record leaves it, because the record was made one of two by mistake, and is a record of its own from then on.
#[derive(Debug, Clone)]
pub struct Split {
    /// The realm.
    pub realm: String,
    /// The record that is split, as it is from now on but for its document, which stays: its version one above the one that was looked up.
    pub id: RecordId,
    /// That version.
    pub version: u64,
    /// The participant where what stays was born.
    pub home: String,
    /// Who set which of its fields.
    pub provenance: BTreeMap<SmolStr, Provenance>,
    /// Lanes that it enters.
    pub enqueue: Vec<(String, Origin)>,
    /// New states of participants that hold it on.
    pub states: Vec<(String, ParticipantState)>,
    /// The record of what leaves: in version 0 and empty, for nothing of it was read yet.
    pub new: RecordId,
    /// The participant where it was born.
    pub new_home: String,
    /// What leaves; at least one.
    pub leaving: Vec<Identity>,
    /// External ids to read again by key, by participant.
    pub rereads: Vec<(String, Vec<ExternalId>)>,
    /// Leases of readers, which end, so that nothing is committed that was read when the record was still one.
    pub leases: Vec<String>,
    /// Notes by name, as they were looked up and as they are from now on.
    pub notes: Vec<(String, Option<Value>, Value)>,
    /// The present moment.
    pub now: Timestamp,
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
    pub cursor: Value,
    /// The first full read is complete.
    pub complete: bool,
}

/// A checkpoint as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Whose.
    pub participant: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// When it was committed; of one that an older Fairlead committed, nothing is known.
    pub at: Option<Timestamp>,
}

/// A checkpoint that a person sets.
#[derive(Debug, Clone)]
pub struct SetCheckpoint {
    /// The realm.
    pub realm: String,
    /// The participant.
    pub participant: String,
    /// As it was looked up.
    pub before: Checkpoint,
    /// Where the next read begins instead.
    pub cursor: Value,
    /// The reader's lease. It ends, so that whoever reads begins anew from here.
    pub lease: String,
    /// The name and value of a note that tells of it.
    pub note: (String, Value),
    /// The present moment.
    pub now: Timestamp,
}

/// Index keys for records that are stored already, because what they are found by has changed.
#[derive(Debug, Clone)]
pub struct Reindex {
    /// The realm.
    pub realm: String,
    /// Records with the version that the keys were taken of, and all their keys.
    pub records: Vec<(RecordId, u64, Vec<IndexKey>)>,
    /// How far this is, and under which name that is noted.
    pub state: IndexState,
    /// See [`IndexState::NOTE`].
    pub note: String,
}

/// A claim on a lane, as far as it is held.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The realm.
    pub realm: String,
    /// The target.
    pub target: String,
    /// The lane's leases.
    pub fence: LaneFence,
    /// How many keys at most.
    pub max: usize,
    /// Whether keys that the target does not hold yet may be claimed (no, until every reader's first backfill is matched). Keys whose
    /// record is deleted, and keys with an open intent, are claimed in any case.
    pub creates: bool,
    /// Whether keys may be claimed that have time ([`Haste::Bulk`]); no, while the system serves no such requests.
    pub bulk: bool,
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
    /// How soon it is wanted: whoever put it there last may have time, and somebody before may not.
    pub haste: Haste,
    /// Since when it waits.
    pub since: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// It waited for another record until its time was up ([`WAITS_FOR`]), or until a newer version of it entered.
    pub waited: bool,
    /// An intent was committed for this key and never settled (an earlier epoch died, or a Retry said `unknown`): look it up first. `None`
    /// when nothing was sent.
    pub intent: Option<Intent>,
}

/// A key that waits for another record is claimed again after so long, even where that record has not come.
pub const WAITS_FOR: Duration = Duration::from_secs(24 * 3600);

/// A write that was begun and not settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// When it was committed, right before the request went out.
    pub at: Timestamp,
    /// The record's version that was being written.
    pub version: u64,
    /// What was being sent, as the engine described it with [`crate::Store::intend`]; opaque here.
    pub sent: Value,
}

/// What claimed keys are about to be sent.
#[derive(Debug, Clone)]
pub struct Intend {
    /// The realm.
    pub realm: String,
    /// The target.
    pub target: String,
    /// The lane's leases.
    pub fence: LaneFence,
    /// Per record: a description of what is sent, opaque to the store.
    pub sent: Vec<(RecordId, Value)>,
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
    /// The lane's leases.
    pub fence: LaneFence,
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
    /// What looking it up in the target taught, to be kept whatever came of it then: its id there and the state.
    pub learnt: Option<(ExternalId, ParticipantState)>,
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
        /// A reference was left out, since this record and the other one wait for each other: the key stays, and waits for that one.
        incomplete: Option<RecordId>,
    },
    /// The target held it already; nothing was sent.
    Unchanged,
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
    /// Another record must come to this target first, or [`WAITS_FOR`] must pass. Nothing was sent; an earlier intent that is still open stays so.
    WaitFor {
        /// That record.
        record: RecordId,
    },
    /// It cannot be delivered as it is. With the class `UnknownOutcome` an open intent outlives the letter: whatever enters the lane next is
    /// looked up before it is written.
    DeadLetter(Box<NewDeadLetter>),
}

impl Outcome {
    /// All words for outcomes.
    pub const WORDS: [&'static str; 6] = ["delivered", "unchanged", "filtered", "retried", "waiting", "dead_lettered"];

    /// The word for metrics and traces.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Unchanged => "unchanged",
            Self::Filtered { .. } => "filtered",
            Self::Retry { .. } => "retried",
            Self::WaitFor { .. } => "waiting",
            Self::DeadLetter(_) => "dead_lettered",
        }
    }
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
    /// The vendor's own words, where they may repeat values of the record; for whoever may see those.
    pub detail: Option<String>,
    /// The field or mapping row.
    pub field: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// The dead letter whose edit or replay led here.
    pub parent: Option<i64>,
}

impl NewDeadLetter {
    /// A letter of the first attempt, of which nothing is known but this.
    #[must_use]
    pub fn of(stage: Stage, participant: &str, original: String, error: &RemoteError) -> Self {
        Self {
            stage,
            participant: participant.to_owned(),
            external_id: None,
            record: None,
            original,
            payload: None,
            class: error.class,
            reason: error.reason.clone(),
            message: error.message.clone(),
            detail: error.detail.as_deref().map(str::to_owned),
            field: error.field.clone(),
            attempts: 1,
            parent: None,
        }
    }
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
    /// Of this participant; a name that ends with a slash stands for all that begin with it.
    pub participant: Option<String>,
    /// Of this stage.
    pub stage: Option<Stage>,
    /// Of this class of errors.
    pub class: Option<ErrorClass>,
    /// With this reason word.
    pub reason: Option<String>,
    /// Opened before this moment.
    pub before: Option<Timestamp>,
    /// With this text in their field, message or external id; letters of the Latin alphabet may be small or capital.
    pub text: Option<String>,
    /// Of the record with this canonical id, as far as they name it by that.
    pub record: Option<RecordId>,
    /// With lower numbers than this one: the page after the one that ended with it.
    pub below: Option<i64>,
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

/// What is of no use any more: closed dead letters, and history that is older than [`HISTORY_FOR`].
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The realm.
    pub realm: String,
    /// Only letters of participants whose names begin with this.
    pub participants: Option<String>,
    /// Dead letters that were closed before this moment.
    pub closed_before: Timestamp,
    /// At most so many of them.
    pub max: usize,
    /// The present moment.
    pub now: Timestamp,
}

/// Records that count towards the guard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guarded {
    /// In whose book, where several guard one realm; else it is the realm's. A record counts in one book at a time: that of its last change.
    pub book: Option<String>,
    /// Records whose values are replaced.
    pub changed: Vec<RecordId>,
    /// Records that are deleted.
    pub deleted: Vec<RecordId>,
}

impl Guarded {
    /// Nothing counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.deleted.is_empty()
    }

    pub(crate) fn book<'a>(&'a self, realm: &'a str) -> &'a str {
        self.book.as_deref().unwrap_or(realm)
    }
}

/// Counts for the guard; a record counts once, however often it changes.
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
    /// The time of the last `Delivered`, since this is noted.
    pub last_delivered: Option<Timestamp>,
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
    /// Conflicts on owned fields so far. Not part of the sum: one record may hold several.
    pub conflicts: u64,
}

impl SourceLedger {
    /// Whether the books add up.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.read == self.changed + self.unchanged + self.dead_lettered
    }
}

impl Snapshot {
    /// The same of some participants alone. What is counted of the realm as a whole stays.
    #[must_use]
    pub fn of(&self, own: impl Fn(&str) -> bool) -> Self {
        fn some<T: Clone>(all: &BTreeMap<String, T>, own: impl Fn(&str) -> bool) -> BTreeMap<String, T> {
            all.iter().filter(|(name, _)| own(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        let lanes: Vec<LaneLedger> = self.lanes.iter().filter(|lane| own(&lane.target)).cloned().collect();
        Self {
            last_delivered: lanes.iter().filter_map(|lane| lane.last_delivered).max(),
            lanes,
            sources: some(&self.sources, &own),
            pending: some(&self.pending, &own),
            dead_letters: some(&self.dead_letters, &own),
            ..*self
        }
    }

    /// Conflicts on owned fields so far.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.sources.values().map(|source| source.conflicts).sum()
    }

    /// Whether every book adds up.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.lanes.iter().all(LaneLedger::balanced) && self.sources.values().all(SourceLedger::balanced)
    }
}

/// A write of an API caller that begins.
#[derive(Debug, Clone)]
pub struct BeginWrite {
    /// What the caller's key is unique in, and the key; opaque here.
    pub scope: String,
    /// What was sent, in short: the same key with another fingerprint is another write.
    pub fingerprint: String,
    /// A write that has no answer after this time belongs to a process that died.
    pub held: Duration,
    /// For how long the write is remembered.
    pub keep: Duration,
    /// The present moment.
    pub now: Timestamp,
}

/// What is known of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteBegun {
    /// Nothing, or it was begun by a process that died: do it.
    Fresh,
    /// It is being done.
    Running,
    /// It was done, with this answer.
    Done(String),
    /// The key was used for another write.
    Mismatch,
}
