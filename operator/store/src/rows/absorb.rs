//! The command `absorb` in the form of its rows, made in the caller's task, so that a writer spends no time on encoding and the caller's
//! documents need not be copied. Every check (lease, versions, identities) is made inside the transaction.

use super::books::SourceDelta;
use super::codec::encode;
use super::packed::encode_state;
use super::record::Body;
use crate::{
    Absorb, AbsorbRecord, Fate, Fence, FieldChange, Guarded, HISTORY_VALUE, NewDeadLetter, Origin, RecordChange, Stage, StoreError,
};
use fairlead_model::{RecordId, Timestamp};
use serde_json::Value;

/// An [`Absorb`] in the form of its rows.
pub(crate) struct Batch {
    pub(crate) realm: String,
    pub(crate) participant: String,
    pub(crate) fence: Fence,
    pub(crate) records: Vec<Item>,
    pub(crate) dead_letters: Vec<NewDeadLetter>,
    pub(crate) rereads: Vec<(String, Option<String>)>,
    pub(crate) reread_done: Vec<String>,
    pub(crate) began: u64,
    pub(crate) gone: Vec<String>,
    pub(crate) checkpoint: Option<(String, String, bool)>,
    pub(crate) source: SourceDelta,
    pub(crate) guard: Guarded,
    pub(crate) history: Vec<ChangeRow>,
    pub(crate) direct: u64,
    pub(crate) now: Timestamp,
}

pub(crate) struct Item {
    pub(crate) id: RecordId,
    pub(crate) change: Change,
    pub(crate) external_id: String,
    pub(crate) state: String,
    pub(crate) settled: i64,
    pub(crate) enqueue: Vec<(String, Origin)>,
    /// The read shows something new.
    pub(crate) changed: bool,
}

/// So many changes that are too old go in one transaction.
pub(crate) const EXPIRED: usize = 1000;

/// A [`FieldChange`] in the form of its row.
pub(crate) struct ChangeRow {
    pub(crate) record: RecordId,
    pub(crate) field: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) fate: i16,
}

impl ChangeRow {
    pub(crate) fn new(change: &FieldChange) -> Result<Self, StoreError> {
        Ok(Self {
            record: change.record,
            field: change.field.as_ref().map(ToString::to_string),
            from: change.from.as_ref().map(bounded).transpose()?,
            to: change.to.as_ref().map(bounded).transpose()?,
            fate: change.fate as i16,
        })
    }
}

/// All of them.
pub(crate) const FATES: [Fate; 3] = [Fate::Conflict, Fate::Won, Fate::FirstSeen];

/// What became of a change, as its row tells it.
pub(crate) fn fate(code: i16) -> Result<Fate, StoreError> {
    FATES.into_iter().find(|fate| *fate as i16 == code).ok_or_else(|| StoreError::Unusable(format!("{code} is no fate of a change")))
}

/// A value as it is kept: of a long one the beginning, as text.
fn bounded(value: &Value) -> Result<String, StoreError> {
    let text = encode(value)?;
    if text.len() <= HISTORY_VALUE {
        return Ok(text);
    }
    let start: String = value.as_str().unwrap_or(&text).chars().take(HISTORY_VALUE / 8).collect();
    encode(&Value::String(format!("{start}… ({} bytes)", text.len())))
}

pub(crate) enum Change {
    Keep(i64),
    Insert(Body),
    Update(Body),
}

impl Batch {
    pub(crate) fn new(command: &Absorb) -> Result<Self, StoreError> {
        let changed = command.records.iter().filter(|record| record.counts_as_changed).count() as u64;
        let inbound = |letter: &&NewDeadLetter| matches!(letter.stage, Stage::Inbound | Stage::Identity);
        let checkpoint = match &command.checkpoint {
            None => None,
            Some(checkpoint) => Some((checkpoint.slice.clone(), encode(&checkpoint.cursor)?, checkpoint.complete)),
        };
        Ok(Self {
            realm: command.realm.clone(),
            participant: command.participant.clone(),
            fence: command.fence.clone(),
            records: command.records.iter().map(Item::new).collect::<Result<_, _>>()?,
            dead_letters: command.dead_letters.clone(),
            rereads: command.rereads.iter().map(|(id, after)| (id.0.clone(), after.as_ref().map(|id| id.0.clone()))).collect(),
            reread_done: command.reread_done.iter().map(|id| id.0.clone()).collect(),
            began: command.began,
            gone: command.gone.iter().map(|id| id.0.clone()).collect(),
            checkpoint,
            source: SourceDelta {
                changed,
                unchanged: command.unchanged + command.records.len() as u64 - changed,
                dead_lettered: command.dead_letters.iter().filter(inbound).count() as u64,
                conflicts: command.history.iter().filter(|change| change.is_conflict()).count() as u64,
            },
            guard: command.guard.clone(),
            history: command.history.iter().map(ChangeRow::new).collect::<Result<_, _>>()?,
            direct: command.direct,
            now: command.now,
        })
    }
}

impl Item {
    fn new(record: &AbsorbRecord) -> Result<Self, StoreError> {
        let change = match &record.change {
            RecordChange::Keep { version } => Change::Keep(version.cast_signed()),
            RecordChange::Insert { record, keys } => Change::Insert(Body::new(record, keys)?),
            RecordChange::Update { record, keys } => Change::Update(Body::new(record, keys)?),
        };
        Ok(Self {
            id: record.id,
            change,
            external_id: record.external_id.0.clone(),
            state: encode_state(&record.state)?,
            settled: record.state.settled.cast_signed(),
            enqueue: record.enqueue.clone(),
            changed: record.counts_as_changed,
        })
    }
}
