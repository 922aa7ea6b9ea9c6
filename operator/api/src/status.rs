//! When a status is worth a write: it says something new, not merely the same later.
//!
//! What counts as the same: a condition's transition time while its status stays, the order of lists that are keyed, a number that
//! moves without becoming or ceasing to be zero, the time of an error that is otherwise the same, a last-sync time less than ten
//! minutes on. Numbers ride along when something else changes. How often a write may happen at all is the status writer's matter.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::common::{LastError, MAX_LABEL, MAX_MESSAGE, MAX_PARTICIPANTS, MAX_TEXT};
use crate::conditions;
use crate::connector::ConnectorStatus;
use crate::contract::{ApiContractStatus, MAX_USED_BY, Served};
use crate::integration::{GuardStatus, IntegrationStatus, ParticipantStatus, PreviewStatus, RevisionStatus};

/// How far the last-sync time must move before it is written again.
pub const LAST_SYNC_STEP: std::time::Duration = std::time::Duration::from_secs(600);

/// A status that can tell whether another one says something new.
pub trait Meaning: Clone + PartialEq {
    /// The status without its noise: two statuses say the same exactly when these are equal.
    fn meaning(&self) -> Self;

    /// The status cut to what its schema allows, so that a long remote id or message never makes the API server refuse the whole.
    fn bounded(self) -> Self;

    /// Whether writing `next` in place of this one tells anybody anything.
    fn says_the_same(&self, next: &Self) -> bool {
        self.meaning() == next.meaning()
    }
}

/// The last-sync time to write: the one written before until the newest is ten minutes on.
pub fn coarse_time(written: Option<&Time>, newest: Option<&Time>) -> Option<Time> {
    match (written, newest) {
        (Some(written), Some(newest)) => {
            let step = i64::try_from(LAST_SYNC_STEP.as_secs()).unwrap_or(i64::MAX);
            let moved = newest.0.as_second().saturating_sub(written.0.as_second());
            Some(if moved >= step { newest.clone() } else { written.clone() })
        }
        (written, newest) => newest.or(written).cloned(),
    }
}

fn conditions_meaning(conditions: &[Condition]) -> Vec<Condition> {
    let mut conditions = conditions.to_vec();
    for condition in &mut conditions {
        condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
    }
    conditions.sort_by(|a, b| (conditions::rank(&a.type_), &a.type_).cmp(&(conditions::rank(&b.type_), &b.type_)));
    conditions
}

fn error_meaning(error: Option<&LastError>) -> Option<LastError> {
    error.cloned().map(|error| LastError { at: Time(Timestamp::UNIX_EPOCH), ..error })
}

fn cut(text: &mut String, most: usize) {
    if let Some((index, _)) = text.char_indices().nth(most) {
        text.truncate(index);
    }
}

fn error_bounded(error: Option<LastError>) -> Option<LastError> {
    error.map(|mut error| {
        error.participant.iter_mut().for_each(|text| cut(text, MAX_LABEL));
        error.external_id.iter_mut().chain(&mut error.record).for_each(|text| cut(text, MAX_TEXT));
        cut(&mut error.reason, 128);
        cut(&mut error.message, MAX_MESSAGE);
        error
    })
}

/// Zero, or not.
fn crossing(number: i64) -> i64 {
    i64::from(number != 0)
}

impl Meaning for ConnectorStatus {
    fn meaning(&self) -> Self {
        Self {
            conditions: conditions_meaning(&self.conditions),
            last_error: error_meaning(self.last_error.as_ref()),
            used_by: self.used_by.map(crossing),
            ..self.clone()
        }
    }

    fn bounded(mut self) -> Self {
        if let Some(system) = &mut self.system {
            cut(&mut system.name, MAX_TEXT);
            system.version.iter_mut().chain(&mut system.end_of_life).for_each(|text| cut(text, 32));
        }
        Self { last_error: error_bounded(self.last_error.take()), ..self }
    }
}

impl Meaning for ApiContractStatus {
    fn meaning(&self) -> Self {
        let mut used_by = self.used_by.clone();
        used_by.sort();
        // A gateway that starts anew serves the same since another moment.
        let served = self.served.clone().map(|served| Served { since: Time(Timestamp::UNIX_EPOCH), ..served });
        Self { conditions: conditions_meaning(&self.conditions), used_by, served, ..self.clone() }
    }

    fn bounded(mut self) -> Self {
        self.used_by.truncate(MAX_USED_BY);
        self
    }
}

impl Meaning for IntegrationStatus {
    fn meaning(&self) -> Self {
        let mut participants: Vec<ParticipantStatus> = self
            .participants
            .iter()
            .map(|each| ParticipantStatus {
                dead_letters: each.dead_letters.map(crossing),
                conflicts: each.conflicts.map(crossing),
                ..each.clone()
            })
            .collect();
        participants.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            conditions: conditions_meaning(&self.conditions),
            participants,
            dead_letters: self.dead_letters.map(crossing),
            last_error: error_meaning(self.last_error.as_ref()),
            preview: self.preview.as_ref().map(|preview| PreviewStatus {
                matched: crossing(preview.matched),
                ambiguous: crossing(preview.ambiguous),
                would_create: crossing(preview.would_create),
                would_change: crossing(preview.would_change),
            }),
            guard: self.guard.as_ref().map(|guard| GuardStatus {
                deletes: crossing(guard.deletes),
                changes: crossing(guard.changes),
                live: crossing(guard.live),
                ..guard.clone()
            }),
            revision: self.revision.as_ref().map(|revision| RevisionStatus {
                tried: revision.tried.map(crossing),
                different: revision.different.map(crossing),
                failing: revision.failing.map(crossing),
                ..revision.clone()
            }),
            ..self.clone()
        }
    }

    fn bounded(mut self) -> Self {
        if let Some(guard) = &mut self.guard {
            cut(&mut guard.token, 64);
            guard.participant.iter_mut().for_each(|text| cut(text, MAX_LABEL));
        }
        self.participants.truncate(MAX_PARTICIPANTS);
        Self { last_error: error_bounded(self.last_error.take()), ..self }
    }

    fn says_the_same(&self, next: &Self) -> bool {
        let kept = coarse_time(self.last_sync_time.as_ref(), next.last_sync_time.as_ref());
        self.last_sync_time == kept && self.meaning() == Self { last_sync_time: self.last_sync_time.clone(), ..next.meaning() }
    }
}
