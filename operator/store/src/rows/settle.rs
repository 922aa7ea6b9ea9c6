//! The command `settle` in the form of its rows, made in the caller's task.

use super::codec::{IdBytes, id_bytes};
use super::packed::encode_state;
use crate::{LaneFence, NewDeadLetter, Outcome, Settle, StoreError};
use fairlead_model::{RecordId, Timestamp};

/// A [`Settle`] in the form of its rows.
pub(crate) struct Results {
    pub(crate) realm: String,
    pub(crate) target: String,
    pub(crate) fence: LaneFence,
    pub(crate) results: Vec<Item>,
    pub(crate) now: Timestamp,
}

pub(crate) struct Item {
    pub(crate) id: RecordId,
    pub(crate) version: i64,
    /// The target's id and state, as far as they are told.
    pub(crate) learnt: Option<(String, String)>,
    pub(crate) ending: Ending,
}

pub(crate) enum Ending {
    Delivered(Option<IdBytes>),
    Unchanged,
    Filtered(String),
    Retry { at: i64, attempt: bool, unknown: bool },
    WaitFor(IdBytes),
    DeadLetter(Box<NewDeadLetter>),
}

impl Results {
    pub(crate) fn new(command: &Settle) -> Result<Self, StoreError> {
        let ending = |outcome: &Outcome| -> Ending {
            match outcome {
                Outcome::Delivered { incomplete, .. } => Ending::Delivered(incomplete.map(id_bytes)),
                Outcome::Unchanged => Ending::Unchanged,
                Outcome::Filtered { reason } => Ending::Filtered(reason.clone()),
                Outcome::Retry { at, attempt, unknown } => Ending::Retry { at: at.0, attempt: *attempt, unknown: *unknown },
                Outcome::WaitFor { record } => Ending::WaitFor(id_bytes(*record)),
                Outcome::DeadLetter(letter) => Ending::DeadLetter(letter.clone()),
            }
        };
        let results = command.results.iter().map(|result| {
            let told = match &result.outcome {
                Outcome::Delivered { external_id, state, .. } => Some((external_id, state)),
                _ => result.learnt.as_ref().map(|(external_id, state)| (external_id, state)),
            };
            let learnt = told.map(|(external_id, state)| Ok::<_, StoreError>((external_id.0.clone(), encode_state(state)?))).transpose()?;
            Ok(Item { id: result.id, version: result.version.cast_signed(), learnt, ending: ending(&result.outcome) })
        });
        Ok(Self {
            realm: command.realm.clone(),
            target: command.target.clone(),
            fence: command.fence.clone(),
            results: results.collect::<Result<_, StoreError>>()?,
            now: command.now,
        })
    }
}
