//! How soon a changed status is written. Conditions at once; noise (a number that left zero, a lag bucket, an error text) at most once per
//! interval, because each write costs the API server and wakes every watcher.

use crate::config::Config;
use fairlead_api::common::ConditionedStatus;
use fairlead_api::conditions::{ConditionType, Polarity};
use fairlead_api::status::Meaning;
use fairlead_model::Timestamp;

/// Whether to write a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// It says nothing new.
    Never,
    /// Now.
    Now,
    /// Not before then; judge again at that time, since by then there may be nothing left to say.
    At(Timestamp),
}

/// How soon `next` should replace `previous`, which this operator wrote at `written` (nothing if it did not write it itself).
#[must_use]
pub fn pace<S: Meaning + ConditionedStatus>(
    previous: Option<&S>,
    next: &S,
    written: Option<Timestamp>,
    now: Timestamp,
    config: &Config,
) -> Pace {
    let Some(previous) = previous else { return Pace::Now };
    if previous.says_the_same(next) {
        return Pace::Never;
    }
    if urgent(previous) != urgent(next) {
        return Pace::Now;
    }
    match written.map(|written| written.plus(config.noise_interval)) {
        Some(earliest) if earliest > now => Pace::At(earliest),
        _ => Pace::Now,
    }
}

/// What must not wait: the generation, and every condition's status and reason, but for the advisories, which come and go.
fn urgent<S: ConditionedStatus>(status: &S) -> (Option<i64>, Vec<(&str, &str, &str)>) {
    let weighty =
        |word: &str| ConditionType::parse(word).is_none_or(|kind| kind.polarity() != Polarity::Advisory || kind == ConditionType::Paused);
    let conditions = status
        .conditions()
        .iter()
        .filter(|condition| weighty(&condition.type_))
        .map(|condition| (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()))
        .collect();
    (status.observed_generation(), conditions)
}
