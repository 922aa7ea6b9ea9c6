//! What the three kinds' conditions have in common: how a check becomes a condition, and how Ready takes Reconciling or Stalled along.

use super::{Moment, utc};
use crate::finding::Check;
use fairlead_api::Reason;
use fairlead_api::conditions::{ConditionType, Truth, Wanted, find, replace_conditions};
use fairlead_api::reasons::Class;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// What Ready says, and with it whether waiting helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) status: Truth,
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) outlook: Outlook,
}

/// What becomes of a resource that is not Ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It is Ready.
    Good,
    /// Waiting helps; the word says how.
    Wait(Reason),
    /// A person must act.
    Act,
}

impl Readiness {
    pub(super) fn ready(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Truth::True, reason, message: message.into(), outlook: Outlook::Good }
    }

    pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Truth::Unknown, reason, message: message.into(), outlook: Outlook::Wait(reason) }
    }

    pub(super) fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Truth::False, reason, message: message.into(), outlook: Outlook::Wait(reason) }
    }

    pub(super) fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Truth::False, reason, message: message.into(), outlook: Outlook::Act }
    }

    /// Not Ready because of trouble whose class decides: a remote system may come back by itself, everything else needs a person.
    pub(super) fn trouble(reason: Reason, message: impl Into<String>) -> Self {
        let outlook = match reason.class() {
            Class::Remote | Class::None => Outlook::Wait(Reason::ProgressingWithRetry),
            Class::User | Class::Platform => Outlook::Act,
        };
        Self { status: Truth::False, reason, message: message.into(), outlook }
    }

    /// The conditions that say so.
    pub(super) fn conditions(self) -> Vec<Wanted> {
        let mut wanted = vec![Wanted::new(ConditionType::Ready, self.status, self.reason, self.message.clone())];
        match self.outlook {
            Outlook::Good => {}
            Outlook::Wait(reason) => wanted.push(Wanted::new(ConditionType::Reconciling, true, reason, self.message)),
            Outlook::Act => wanted.push(Wanted::new(ConditionType::Stalled, true, self.reason, self.message)),
        }
        wanted
    }
}

/// The condition that a check amounts to.
pub(super) fn of_check(kind: ConditionType, check: &Check, good: Reason, text: &str) -> Wanted {
    match check {
        Check::Ok => Wanted::new(kind, true, good, text),
        Check::Failed { reason, message } => Wanted::new(kind, false, *reason, message.clone()),
        Check::Unknown { reason, message } => Wanted::new(kind, Truth::Unknown, *reason, message.clone()),
    }
}

/// Why a resource is not ready by its plan alone, if it is not.
pub(super) fn of_plan(accepted: &Check, resolved: &Check) -> Option<Readiness> {
    [accepted, resolved].into_iter().find_map(|check| match check {
        Check::Ok => None,
        Check::Failed { reason, message } => Some(Readiness::stalled(*reason, message.clone())),
        Check::Unknown { reason, message } => Some(Readiness::unknown(*reason, message.clone())),
    })
}

/// A whole list after an old one.
pub(super) fn settle(previous: &[Condition], wanted: Vec<Wanted>, generation: i64, moment: Moment) -> Vec<Condition> {
    replace_conditions(previous, wanted, generation, utc(moment.now))
}

/// The conditions as they were, for a resource of which a runtime that has only just been listened to cannot tell yet. Only if they were
/// about this generation, the plan was and is in order, and they told more than that somebody was on the way.
pub(super) fn held(previous: Option<&[Condition]>, generation: i64, planned_well: bool) -> Option<Vec<Condition>> {
    let previous = previous?;
    let good = |kind| find(previous, kind).is_some_and(|c| c.status == "True" && c.observed_generation == Some(generation));
    let ready = find(previous, ConditionType::Ready).filter(|ready| ready.observed_generation == Some(generation))?;
    let passing = [Reason::Progressing, Reason::Backfilling, Reason::WorkerNotReporting].iter().any(|word| word.as_str() == ready.reason);
    // That a Secret is wrong is a runtime's finding too, though it stands among the references.
    let found = |condition: &Condition| condition.observed_generation == Some(generation) && condition.reason.parse().is_ok_and(is_secret);
    let resolved = good(ConditionType::ResolvedRefs) || find(previous, ConditionType::ResolvedRefs).is_some_and(found);
    (planned_well && !passing && good(ConditionType::Accepted) && resolved).then(|| previous.to_vec())
}

/// Whether a reason speaks of a Secret, which only a runtime can look into.
pub(super) const fn is_secret(reason: Reason) -> bool {
    matches!(reason, Reason::SecretNotFound | Reason::SecretKeyMissing | Reason::SecretNotReadable | Reason::SecretHostNotAllowed)
}
