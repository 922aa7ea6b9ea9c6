//! How a revision that maps records otherwise takes over: compared in the shadow of the one in force, then tried on a share of the records, then in
//! force; or stopped, because it does worse.
//!
//! What is decided upon was counted from what the store holds, not from what a process remembers: a restart loses no evidence, and whichever of
//! several processes looks comes to the same answer. The time in which nobody worked is no time of trial.
//!
//! The rule: the revision in force says how many records of the share would fail anyway. The new one is stopped when [`LEAST`] more than that
//! fail, and that many more than chance explains (three standard deviations of a count); or when most of the share fails, however small it is.
//! One bad record is one bad record, and stops nothing but a share of one.
//!
//! A record of a canary fails when it is a dead letter, or when its write has failed [`ERRORS`] times in a row though it is tried again: a letter may
//! come only after many attempts, while the share is written in vain. One failure is ordinary (a 5xx, a conflict with somebody's edit), and so are two.
//! While the circuit is open, or the vendor puts off, no attempt is counted. But the share is written as a whole, and the others only as they change:
//! they do not tell how often a vendor fails by itself. So errors stop a revision only where one in [`ERRING`] of its share errs at a time, which
//! takes a vendor that fails more than every third request and yet lets the circuit closed. Fewer become letters in the end, if they are not written.
//! Where the writes of the share open the circuit themselves, that looks like an outage: the revision is not stopped by it, and does not take over
//! ([`WAITING`]).

use crate::decide::inbound;
use crate::program::Participant;
use fairlead_contract::Contract;
use fairlead_model::hash::{Digest, ValueHash};
use fairlead_model::report::TrialPhase;
use fairlead_model::unit::RolloutUnit;
use fairlead_model::{Document, ExternalId, FieldPath, RecordId, RemoteError, Timestamp};
use fairlead_store::LaneEntry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many records must fail that would not fail under the revision in force.
pub const LEAST: u64 = 3;
/// A record whose write has failed so many times in a row fails, though it is tried again.
pub const ERRORS: u32 = 3;
/// Such records count where they are one in so many of the share.
pub const ERRING: u64 = 20;
/// A canary does not take over while more than one in so many of its records still waits to be read or written.
pub const WAITING: u64 = 10;
/// What passed between two looks counts for no more: nobody was at work meanwhile.
pub const BETWEEN: Duration = Duration::from_secs(60);

/// Whether a record is in the share of `percent`: by its canonical id, so it stays in whoever asks and whenever, and a larger share holds all of a
/// smaller one.
#[must_use]
pub fn is_in_share(record: RecordId, percent: u32) -> bool {
    // Not the bare id, which others may divide records by.
    ValueHash::of_text(&format!("canary/{record}")).0 % 100 < u64::from(percent)
}

/// The place of a record among these lanes in which it fails again and again, if there is one; of several, where it has failed most often.
#[must_use]
pub fn erring<'a>(places: &'a [LaneEntry], lanes: &[&str]) -> Option<&'a LaneEntry> {
    places.iter().filter(|place| place.attempts >= ERRORS && lanes.contains(&place.target.as_str())).max_by_key(|place| place.attempts)
}

/// What maps records, by its digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Over what can be tried on a share of the records.
    pub mapping: Digest,
    /// Over what cannot.
    pub shape: Digest,
}

/// A revision on trial, as it is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its mapping.
    pub mapping: Digest,
    /// The mapping in force, which it is compared with.
    pub against: Digest,
    /// Where it stands.
    pub phase: TrialPhase,
    /// Since when.
    pub since: Timestamp,
    /// So long it has run in this phase, in milliseconds.
    pub ran: u64,
    /// That was counted up to this moment.
    pub counted: Timestamp,
    /// What was found when it was last looked at in this phase; in the end, what it was stopped for.
    pub found: Option<Findings>,
    /// Why it was stopped.
    pub stopped: Option<String>,
}

/// What a look at a revision on trial has found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// The records that it was tried on, and those of them that fail.
    pub tried: Rate,
    /// The same of the revision in force, on its records.
    pub active: Rate,
    /// Of those that fail as a canary: those that are no dead letters, but have failed [`ERRORS`] times in a row and are tried again.
    #[serde(default)]
    pub erring: u64,
    /// Records that it would write otherwise.
    pub different: u64,
    /// Records of its share that wait to be read or written.
    pub waiting: u64,
    /// One of those that fail, in words.
    pub example: Option<String>,
    /// Why it cannot be tried at all.
    pub refused: Option<String>,
    /// It was looked at when its time was over.
    pub last: bool,
}

/// How many records, and how many of them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rate {
    /// All.
    pub records: u64,
    /// Those that fail.
    pub failing: u64,
}

/// What becomes of a revision on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It goes on as it is.
    Stay,
    /// It is tried on its share.
    Canary,
    /// It is in force.
    TakeOver,
    /// It stays out, and this is why.
    Stop(String),
}

/// Which revision is on trial, if one is. `active` is in force, `noted` was on trial, `candidate` is what was declared.
#[must_use]
pub fn on_trial(
    rollout: Option<&RolloutUnit>,
    active: Option<&Candidate>,
    noted: Option<&Trial>,
    candidate: &Candidate,
    now: Timestamp,
) -> Option<Trial> {
    let (rollout, active) = (rollout?, active?);
    if active.mapping == candidate.mapping || active.shape != candidate.shape {
        return None;
    }
    let same = noted.filter(|noted| noted.mapping == candidate.mapping && noted.against == active.mapping);
    let first = if rollout.shadow.is_zero() { TrialPhase::Canary } else { TrialPhase::Shadow };
    Some(same.cloned().unwrap_or_else(|| Trial {
        mapping: candidate.mapping.clone(),
        against: active.mapping.clone(),
        phase: first,
        since: now,
        ran: 0,
        counted: now,
        found: None,
        stopped: None,
    }))
}

impl Trial {
    /// Whether two are of one revision, beside the same one in force.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.mapping, &self.against) == (&other.mapping, &other.against)
    }

    /// Counts the time since it was counted last.
    pub fn count(&mut self, now: Timestamp) {
        let passed = now.since(self.counted).min(BETWEEN);
        self.ran = self.ran.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        self.counted = now;
    }

    /// Whether its time in this phase is over.
    #[must_use]
    pub fn is_due(&self, rollout: &RolloutUnit) -> bool {
        let lasts = match self.phase {
            TrialPhase::Shadow => rollout.shadow,
            TrialPhase::Canary => rollout.canary.map_or(Duration::ZERO, |canary| canary.lasts),
            TrialPhase::Stopped => return false,
        };
        Duration::from_millis(self.ran) >= lasts
    }

    /// What becomes of it.
    #[must_use]
    pub fn next(&self, rollout: &RolloutUnit) -> Step {
        let Some(found) = self.found.as_ref().filter(|_| self.phase != TrialPhase::Stopped) else { return Step::Stay };
        if let Some(why) = found.trouble(self.phase) {
            return Step::Stop(why);
        }
        if !self.is_due(rollout) || !found.last {
            return Step::Stay;
        }
        match self.phase {
            TrialPhase::Shadow if rollout.canary.is_some() => Step::Canary,
            TrialPhase::Canary if found.waiting.saturating_mul(WAITING) > found.tried.records => Step::Stay,
            TrialPhase::Shadow | TrialPhase::Canary => Step::TakeOver,
            TrialPhase::Stopped => Step::Stay,
        }
    }

    /// It enters another phase.
    #[must_use]
    pub fn at(&self, phase: TrialPhase, now: Timestamp) -> Self {
        Self { phase, since: now, ran: 0, counted: now, found: None, ..self.clone() }
    }
}

impl Findings {
    /// Why it must not go on.
    fn trouble(&self, phase: TrialPhase) -> Option<String> {
        if let Some(why) = &self.refused {
            return Some(why.clone());
        }
        let letters = self.tried.failing.saturating_sub(self.erring);
        let erring = if self.erring.saturating_mul(ERRING) < self.tried.records { 0 } else { self.erring };
        let (tried, active) = (Rate { failing: letters + erring, ..self.tried }, self.active);
        if !tried.is_worse_than(active) {
            return None;
        }
        let counts = if phase == TrialPhase::Shadow {
            format!("{} of {} records fail under it that do not fail under the revision in force", tried.failing, tried.records)
        } else {
            format!(
                "{} of the {} records of its share fail ({letters} as dead letters, {erring} again and again), and {} of the {} others",
                tried.failing, tried.records, active.failing, active.records
            )
        };
        let example = self.example.as_ref().map(|example| format!("; one of them: {example}"));
        Some(format!("{counts}{}", example.unwrap_or_default()))
    }
}

impl Rate {
    /// Whether more fail than can be expected by what fails among `active`.
    #[must_use]
    pub fn is_worse_than(self, active: Self) -> bool {
        let share = u128::from(active.failing) * u128::from(self.records);
        let expected = share.div_ceil(u128::from(active.records.max(1)));
        let more = u128::from(self.failing).saturating_sub(expected);
        let beyond_chance = more >= u128::from(LEAST) && more * more > 9 * expected;
        let most = more > 0 && self.failing.saturating_mul(2) > self.records;
        beyond_chance || most
    }
}

/// What a record becomes under a revision on trial, beside the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// The same; or it fails under both.
    Same,
    /// Something else.
    Different,
    /// It fails, and does not under the revision in force.
    Failing(String),
}

impl Compared {
    fn of<T: PartialEq>(active: Result<T, RemoteError>, tried: Result<T, RemoteError>) -> Self {
        match (active, tried) {
            (Err(_), Err(_)) => Self::Same,
            (Ok(active), Ok(tried)) if active == tried => Self::Same,
            (Ok(_), Err(error)) => Self::Failing(error.message),
            _ => Self::Different,
        }
    }
}

impl Findings {
    /// Takes in what one record becomes in one system.
    pub fn add(&mut self, participant: &str, compared: Compared) {
        self.tried.records += 1;
        self.active.records += 1;
        match compared {
            Compared::Same => {}
            Compared::Different => self.different += 1,
            Compared::Failing(why) => {
                self.tried.failing += 1;
                self.example.get_or_insert_with(|| format!("{participant}: {why}"));
            }
        }
    }
}

/// Compares what a record becomes in a target. Where it refers to others, both write the same.
#[must_use]
pub fn compare_written(active: &Participant, tried: &Participant, canonical: &Document) -> Compared {
    let written = |target: &Participant| -> Result<Option<BTreeMap<FieldPath, Value>>, RemoteError> {
        if !target.table.accepts(canonical).map_err(|error| inbound::unmapped("when", &error))? {
            return Ok(None);
        }
        let referred = |_: &_, _| Some(ExternalId("0".to_owned()));
        let outbound = target.table.to_native(canonical, &referred).map_err(|error| inbound::unmapped("mapping", &error))?;
        Ok(Some(outbound.rows.into_iter().map(|row| (row.native, row.value)).collect()))
    };
    Compared::of(written(active), written(tried))
}

/// Compares what a record of a source becomes.
#[must_use]
pub fn compare_read(active: &Participant, tried: &Participant, contract: &Contract, native: &Document) -> Compared {
    let read = |source: &Participant| -> Result<_, RemoteError> {
        let inbound = inbound::canonical(source, contract, native)?;
        let fields: BTreeMap<FieldPath, Value> = inbound.fields.into_iter().collect();
        let references: BTreeMap<FieldPath, ExternalId> = inbound.references.into_iter().map(|(unit, _, id)| (unit, id)).collect();
        Ok((fields, references))
    };
    Compared::of(read(active), read(tried))
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
