//! The status of an Integration: its plan, whether the runtime holds it (Programmed), whether data moves (Healthy), and what that makes of
//! Ready.
//!
//! Decided here:
//! - *Healthy* speaks of what actually runs, be it the last good unit of a spec that is broken now. *Programmed* is True only when the
//!   runtime's digest is the one planned from this generation.
//! - Lateness alone (`Lagging`) is an advisory while changes arrive; when nothing has arrived for as long as the objective allows, data
//!   stands still and Healthy is False.
//! - Open dead letters are one bad thing each: Ready stays True and gives them as its reason. A participant that stands still is
//!   `Degraded`: it works, but not all of it.
//! - A paused Integration is Ready: what was declared is so. Its connectors' trouble is told by the connectors.

use super::conditions::{Outlook, Readiness, held, of_check, of_plan, settle};
use super::{Heard, Hearing, Judged, LOST, Moment, SILENT, class_of, clean, earliest, hearing, reason_of, settling, time, told};
use crate::config::Config;
use crate::planned::Verdict;
use fairlead_api::conditions::{ConditionType, Truth, Wanted, find, is_true};
use fairlead_api::status::{Meaning, coarse_time};
use fairlead_api::{
    self as api, ConnectorStatus, GuardStatus, IntegrationStatus, LagBucket, LagStatus, LastError, LedgerStatus, ParticipantState,
    ParticipantStatus, PreviewStatus, Reason, ReconciliationStatus, RevisionStatus, RolloutPhase,
};
use fairlead_model::report::{
    GuardStop, IntegrationReport, Lag, ParticipantReport, ParticipantState as ReportedState, Phase, Reconciliation, ReconciliationOutcome,
    RecordFailure, Revisions, TrialPhase, TrialReport,
};
use fairlead_model::{ObjectRef, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// The status of an Integration. `connectors` are this round's statuses of the Connectors it uses.
#[must_use]
pub fn integration_status(
    verdict: &Verdict,
    heard: Heard<'_, IntegrationReport>,
    connectors: &BTreeMap<ObjectRef, ConnectorStatus>,
    previous: Option<&IntegrationStatus>,
    moment: Moment,
    config: &Config,
) -> Judged<IntegrationStatus> {
    let (hearing, changes) = hearing(heard.at, moment, config);
    let report = heard.report.filter(|_| hearing == Hearing::Clear);
    let view = View { verdict, hearing, report, connectors, moment, config };

    let hold = settling(moment, config)
        .filter(|_| !view.has_looked() || report.is_some_and(|report| report.phase == Phase::Backfill))
        .and_then(|until| Some((held(previous.map(|status| status.conditions.as_slice()), verdict.generation, verdict.is_good())?, until)));
    let holding = hold.as_ref().map(|(_, until)| *until);
    let conditions = match hold {
        Some((conditions, _)) => conditions,
        None => settle(previous.map_or(&[], |status| &status.conditions), view.wanted(), verdict.generation, moment),
    };

    // Before the runtime has looked, its zeros are no counts.
    let counted = report.filter(|report| !report.participants.is_empty());
    let newest = report.and_then(|report| report.last_delivered).map(time);
    let written = previous.and_then(|status| status.last_sync_time.as_ref());
    let next = IntegrationStatus {
        observed_generation: Some(verdict.generation),
        conditions,
        lag: Some(view.lag(previous, holding.is_some())),
        last_sync_time: coarse_time(written, newest.as_ref()),
        participants: view.participants(previous, holding.is_some()),
        dead_letters: match counted {
            Some(report) => Some(report.participants.iter().map(|each| count(each.dead_letters)).fold(0, i64::saturating_add)),
            None => previous.and_then(|status| status.dead_letters),
        },
        last_error: match report.and_then(|report| report.last_error.as_ref()) {
            Some(failure) => Some(record_error(failure)),
            None => previous.and_then(|status| status.last_error.clone()),
        },
        ledger: match counted {
            Some(report) => Some(LedgerStatus { balanced: report.balanced }),
            None => previous.and_then(|status| status.ledger.clone()),
        },
        preview: match counted {
            Some(report) => report.preview.map(|preview| PreviewStatus {
                matched: count(preview.matched),
                ambiguous: count(preview.ambiguous),
                would_create: count(preview.would_create),
                would_change: count(preview.would_change),
            }),
            None => previous.and_then(|status| status.preview.clone()),
        },
        guard: match counted {
            Some(report) => report.guard.as_ref().map(guard),
            None => previous.and_then(|status| status.guard.clone()),
        },
        reconciliation: match counted {
            Some(report) => report.reconciliation.as_ref().map(reconciliation),
            None => previous.and_then(|status| status.reconciliation.clone()),
        },
        revision: view.revision().or_else(|| previous.and_then(|status| status.revision.clone())),
    };
    let status = match previous {
        Some(previous) if previous.says_the_same(&next) => previous.clone(),
        _ => next,
    };
    Judged { status, next_check: earliest([changes, holding, view.stands_still_at()]) }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is known in this round.
struct View<'a> {
    verdict: &'a Verdict,
    hearing: Hearing,
    /// The report, if the runtime is heard; perhaps of an older unit.
    report: Option<&'a IntegrationReport>,
    connectors: &'a BTreeMap<ObjectRef, ConnectorStatus>,
    moment: Moment,
    config: &'a Config,
}

/// Why data does not move, or not all of it.
struct Trouble {
    reason: Reason,
    message: String,
    outlook: Outlook,
    /// Other participants go on.
    partial: bool,
}

impl View<'_> {
    /// The report, if it is about the unit of this generation.
    fn current(&self) -> Option<&IntegrationReport> {
        self.report.filter(|report| self.verdict.digest.as_ref() == Some(&report.digest) && report.rejected.is_none())
    }

    /// Whether the runtime has looked at the data since it took the unit over. A report without participants only acknowledges the unit.
    fn has_looked(&self) -> bool {
        self.report.is_some_and(|report| !report.participants.is_empty() || report.phase == Phase::Paused || report.store_error.is_some())
    }

    fn wanted(&self) -> Vec<Wanted> {
        let verdict = self.verdict;
        let programmed = self.programmed();
        let trouble = self.trouble();
        let healthy = self.healthy(trouble.as_ref());
        let ready = self.ready(&programmed, &healthy, trouble.as_ref());
        let mut wanted = vec![
            of_check(ConditionType::Accepted, &verdict.accepted, Reason::Accepted, "the integration is valid"),
            of_check(
                ConditionType::ResolvedRefs,
                &verdict.resolved,
                Reason::ResolvedRefs,
                "contract and connectors were found and may be used",
            ),
            programmed,
            healthy,
        ];
        if let Some(trouble) = trouble.filter(|trouble| trouble.partial) {
            wanted.push(Wanted::new(ConditionType::Degraded, true, trouble.reason, trouble.message));
        } else if self.report.is_some_and(|report| !report.balanced && report.phase != Phase::Paused) {
            wanted.push(Wanted::new(ConditionType::Degraded, true, Reason::LedgerUnbalanced, UNBALANCED));
        }
        if self.lateness().is_some() {
            wanted.push(Wanted::new(
                ConditionType::Lagging,
                true,
                Reason::Lagging,
                format!("changes are delivered later than {} s after they were made; status.participants and the connectors show which system is slow", self.config.lag_objective.as_secs()),
            ));
        }
        if self.report.is_some_and(|report| report.phase == Phase::Paused) {
            wanted.push(Wanted::new(ConditionType::Paused, true, Reason::Paused, PAUSED));
        }
        if let Some((connector, reason)) = self.throttled() {
            wanted.push(Wanted::new(
                ConditionType::Throttled,
                true,
                reason,
                format!("Connector {connector} is asked for fewer requests; changes wait meanwhile"),
            ));
        }
        wanted.extend(ready.conditions());
        wanted
    }

    fn programmed(&self) -> Wanted {
        let say = |status: Truth, reason: Reason, message: String| Wanted::new(ConditionType::Programmed, status, reason, message);
        let runs = self.report.is_some();
        if let Some((reason, _)) = self.verdict.fault() {
            let rest = if runs { "; what ran before goes on" } else { "" };
            return say(Truth::False, reason, format!("this generation does not plan{rest}"));
        }
        if !self.verdict.is_good() {
            return say(Truth::Unknown, Reason::DependencyNotReady, "this generation could not be judged completely".into());
        }
        match self.hearing {
            Hearing::Silent => return say(Truth::Unknown, Reason::WorkerNotReporting, SILENT.into()),
            Hearing::Lost => return say(Truth::False, Reason::WorkerNotReporting, LOST.into()),
            Hearing::Listening => return say(Truth::False, Reason::Progressing, "waiting for the first report of the runtime".into()),
            Hearing::Clear => {}
        }
        match self.report {
            Some(report) if report.rejected.is_some() => say(
                Truth::False,
                Reason::InternalError,
                format!(
                    "the runtime cannot take this generation over, and keeps what ran before: {}",
                    clean(report.rejected.as_deref().unwrap_or_default())
                ),
            ),
            Some(_) if self.current().is_some() => say(Truth::True, Reason::Programmed, "the runtime works by this generation".into()),
            _ => say(Truth::False, Reason::Progressing, "the runtime has not taken this generation over yet".into()),
        }
    }

    /// What keeps data from moving, the gravest first.
    fn trouble(&self) -> Option<Trouble> {
        let report = self.report?;
        if report.phase == Phase::Paused {
            return None;
        }
        let act = |reason, message: String| Some(Trouble { reason, message, outlook: Outlook::Act, partial: false });
        if let Some(error) = &report.store_error {
            return act(Reason::StoreUnavailable, clean(error));
        }
        if let Some(guard) = report.guard.as_ref().filter(|_| report.phase == Phase::Guarded) {
            return act(Reason::ChangeThresholdExceeded, format!("{} (the token is {})", clean(&guard.message), guard.token));
        }
        if report.phase == Phase::Guarded {
            return act(Reason::ChangeThresholdExceeded, "more changes than spec.sync.guard allows; a person must look".into());
        }
        self.connector_trouble().or_else(|| self.participant_trouble(report))
    }

    /// A connector that is known not to be ready.
    fn connector_trouble(&self) -> Option<Trouble> {
        let broken: Vec<_> = self
            .verdict
            .participants
            .iter()
            .filter_map(|(participant, connector)| {
                let conditions = &self.connectors.get(connector)?.conditions;
                let ready = find(conditions, ConditionType::Ready).filter(|ready| ready.status == "False")?;
                Some((participant, connector, ready, is_true(conditions, ConditionType::Stalled)))
            })
            .collect();
        // What a person must repair is told before what may come back by itself.
        let (participant, connector, ready, stalled) = broken.iter().max_by_key(|(_, _, _, stalled)| *stalled)?;
        Some(Trouble {
            reason: Reason::DependencyNotReady,
            message: format!("the participant `{participant}` waits for Connector {connector}: {}: {}", ready.reason, ready.message),
            outlook: if *stalled { Outlook::Act } else { Outlook::Wait(Reason::ProgressingWithRetry) },
            partial: broken.len() < self.verdict.participants.len(),
        })
    }

    /// A participant that stands still for a reason of its own.
    fn participant_trouble(&self, report: &IntegrationReport) -> Option<Trouble> {
        let paused: Vec<&ParticipantReport> = report.participants.iter().filter(|each| each.state == ReportedState::Paused).collect();
        let first = paused.iter().find(|each| each.paused_by.is_some()).or_else(|| paused.first())?;
        let (reason, message) = match &first.paused_by {
            Some(error) => (reason_of(error), format!("the participant `{}` stands still: {}", first.name, told(error))),
            None => (Reason::DependencyNotReady, format!("the participant `{}` stands still", first.name)),
        };
        let outlook = Readiness::trouble(reason, "").outlook;
        Some(Trouble { reason, message, outlook, partial: paused.len() < report.participants.len() })
    }

    fn healthy(&self, trouble: Option<&Trouble>) -> Wanted {
        let say = |status: Truth, reason: Reason, message: &str| Wanted::new(ConditionType::Healthy, status, reason, message);
        match self.hearing {
            Hearing::Silent => return say(Truth::Unknown, Reason::WorkerNotReporting, SILENT),
            Hearing::Lost => return say(Truth::False, Reason::WorkerNotReporting, LOST),
            Hearing::Listening => return say(Truth::Unknown, Reason::Progressing, "waiting for the first report of the runtime"),
            Hearing::Clear => {}
        }
        let Some(report) = self.report else {
            let reason = self.verdict.fault().map_or(Reason::Progressing, |(reason, _)| reason);
            return say(Truth::Unknown, reason, "nothing runs yet");
        };
        if !self.has_looked() {
            return say(Truth::Unknown, Reason::Progressing, STARTING);
        }
        if let Some(trouble) = trouble {
            return say(Truth::False, trouble.reason, &trouble.message);
        }
        match report.phase {
            Phase::Paused => return say(Truth::True, Reason::Paused, "nothing should move"),
            Phase::Backfill => return say(Truth::True, Reason::Backfilling, &backfilling(report, "the first load is under way")),
            Phase::Previewed => return say(Truth::True, Reason::Preview, "nothing should be written"),
            Phase::Live | Phase::Guarded => {}
        }
        let Some(lag) = report.lag else {
            return say(Truth::Unknown, Reason::Progressing, "the runtime cannot tell yet how late changes are");
        };
        if self.stands_still(report, lag) {
            return say(
                Truth::False,
                Reason::Lagging,
                &format!("changes wait for longer than {} s and none has arrived meanwhile", self.config.lag_objective.as_secs()),
            );
        }
        if open_dead_letters(report) {
            return say(Truth::True, Reason::DeadLetters, DEAD_LETTERS);
        }
        if let Some(drift) = drift_left(report) {
            return say(Truth::True, Reason::DriftFound, &drift);
        }
        say(Truth::True, Reason::Succeeded, "changes arrive in time")
    }

    fn ready(&self, programmed: &Wanted, healthy: &Wanted, trouble: Option<&Trouble>) -> Readiness {
        if let Some(ready) = of_plan(&self.verdict.accepted, &self.verdict.resolved) {
            return ready;
        }
        match programmed.status {
            Truth::True => {}
            Truth::Unknown => return Readiness::unknown(programmed.reason, programmed.message.clone()),
            Truth::False if programmed.reason == Reason::Progressing => {
                return Readiness::waiting(programmed.reason, programmed.message.clone());
            }
            Truth::False => return Readiness::stalled(programmed.reason, programmed.message.clone()),
        }
        let Some(report) = self.report else {
            return Readiness::unknown(Reason::Progressing, "waiting for a report of the runtime");
        };
        if report.phase == Phase::Paused {
            return Readiness::ready(Reason::Paused, PAUSED);
        }
        if let Some(trouble) = trouble {
            return Readiness { status: Truth::False, reason: trouble.reason, message: trouble.message.clone(), outlook: trouble.outlook };
        }
        if !self.has_looked() {
            return Readiness::unknown(Reason::Progressing, STARTING);
        }
        if report.phase == Phase::Backfill {
            let usual = "everything is read for the first time, or again; it goes on where it stopped if it is interrupted";
            return Readiness::waiting(Reason::Backfilling, backfilling(report, usual));
        }
        match healthy.status {
            Truth::True => {}
            Truth::Unknown => return Readiness::unknown(healthy.reason, healthy.message.clone()),
            Truth::False => return Readiness::trouble(healthy.reason, healthy.message.clone()),
        }
        if !report.balanced {
            return Readiness::stalled(Reason::LedgerUnbalanced, UNBALANCED);
        }
        if let Some(trial) = self.trial() {
            return on_trial(trial);
        }
        if report.phase == Phase::Previewed {
            return Readiness::ready(
                Reason::Preview,
                "the first load was read and matched, and nothing was written; status.preview has the counts",
            );
        }
        if open_dead_letters(report) {
            return Readiness::ready(Reason::DeadLetters, DEAD_LETTERS);
        }
        if let Some(drift) = drift_left(report) {
            return Readiness::ready(Reason::DriftFound, drift);
        }
        Readiness::ready(Reason::Succeeded, "the systems are kept in step")
    }

    /// Which revisions there are, once the runtime has told of the one of this generation. Its number is the history's, where there is one.
    fn revision(&self) -> Option<RevisionStatus> {
        let Revisions { active, trial } = self.current()?.revision.as_ref()?;
        let told = self.verdict.revision.as_ref().and_then(|revision| revision.unit.number);
        let newest = told.or(trial.as_ref().map_or(*active, |trial| trial.revision));
        let Some(trial) = trial else {
            let none =
                RevisionStatus { active: newest?, canary: None, phase: None, since: None, tried: None, different: None, failing: None };
            return Some(none);
        };
        Some(RevisionStatus {
            active: active.or(newest)?,
            canary: newest,
            phase: Some(match trial.phase {
                TrialPhase::Shadow => RolloutPhase::Shadow,
                TrialPhase::Canary => RolloutPhase::Canary,
                TrialPhase::Stopped => RolloutPhase::Stopped,
            }),
            since: Some(time(trial.since)),
            tried: Some(count(trial.tried)),
            different: Some(count(trial.different)).filter(|_| trial.phase != TrialPhase::Canary),
            failing: Some(count(trial.failing)),
        })
    }

    /// The revision that is to take over and has not.
    fn trial(&self) -> Option<&TrialReport> {
        self.current()?.revision.as_ref()?.trial.as_ref()
    }

    /// The lag, if it is beyond the objective and should not be (a first load and a pause have none to keep).
    fn lateness(&self) -> Option<Lag> {
        let report = self.report.filter(|report| report.phase == Phase::Live)?;
        report.lag.filter(|lag| lag.age > self.config.lag_objective)
    }

    fn stands_still(&self, report: &IntegrationReport, lag: Lag) -> bool {
        lag.age > self.config.lag_objective && report.last_delivered.is_none_or(|at| self.moment.now.since(at) >= self.config.lag_objective)
    }

    /// When lateness becomes a standstill if nothing arrives.
    fn stands_still_at(&self) -> Option<Timestamp> {
        self.lateness()?;
        let at = self.report?.last_delivered?.plus(self.config.lag_objective);
        (at > self.moment.now).then_some(at)
    }

    fn throttled(&self) -> Option<(&ObjectRef, Reason)> {
        self.verdict.participants.iter().find_map(|(_, connector)| {
            let condition = find(&self.connectors.get(connector)?.conditions, ConditionType::Throttled)?;
            Some((connector, condition.reason.parse().unwrap_or(Reason::RateLimited)))
        })
    }

    /// The bucket, slow to improve so that a lag near a boundary does not flap; and whether changes wait for longer than they take
    /// anyway (in the lowest bucket they are simply on their way).
    fn lag(&self, previous: Option<&IntegrationStatus>, holding: bool) -> LagStatus {
        let before = previous.and_then(|status| status.lag.clone());
        let Some(report) = self.report.filter(|_| !holding) else {
            let unknown = LagStatus { bucket: LagBucket::Unknown, pending: before.as_ref().is_some_and(|lag| lag.pending) };
            return before.filter(|_| holding).unwrap_or(unknown);
        };
        let bucket = match report.lag {
            None => LagBucket::Unknown,
            Some(lag) => steady(before.map(|lag| lag.bucket), lag.age),
        };
        LagStatus { bucket, pending: bucket != LagBucket::Under10s && report.lag.is_some_and(|lag| lag.pending > 0) }
    }

    fn participants(&self, previous: Option<&IntegrationStatus>, holding: bool) -> Vec<ParticipantStatus> {
        let spoken = self.report.filter(|_| !holding);
        let before = |name: &str| previous.and_then(|status| status.participants.iter().find(|each| each.name == name));
        self.verdict
            .participants
            .iter()
            .map(|(name, connector)| {
                let report = spoken.and_then(|report| report.participants.iter().find(|each| each.name == *name));
                let paused = spoken.is_some_and(|report| report.phase == Phase::Paused);
                let status = self.connectors.get(connector);
                let circuit = status.and_then(|status| status.circuit);
                let broken =
                    status.and_then(|status| find(&status.conditions, ConditionType::Ready)).is_some_and(|ready| ready.status == "False");
                ParticipantStatus {
                    name: name.clone(),
                    state: match report {
                        _ if paused => ParticipantState::Paused,
                        Some(report) => state(report, broken),
                        None => before(name).map_or(ParticipantState::Pending, |each| each.state),
                    },
                    circuit,
                    dead_letters: match report {
                        Some(report) => Some(count(report.dead_letters)),
                        None => before(name).and_then(|each| each.dead_letters),
                    },
                    conflicts: match report {
                        Some(report) => Some(count(report.conflicts)).filter(|conflicts| *conflicts > 0),
                        None => before(name).and_then(|each| each.conflicts),
                    },
                }
            })
            .collect()
    }
}

const STARTING: &str = "the runtime has taken the integration over and looks where it stands";
const PAUSED: &str = "it neither reads nor writes, because spec.state is Paused";
const DEAD_LETTERS: &str = "some records wait for a person, everything else goes on; `fairlead dead-letters list` shows them";
const UNBALANCED: &str = "what came in and what went out do not add up, so a record may be unaccounted for; report it with status.ledger, and set spec.sync.resync to a new value to have every record checked (the counts stay as they are)";

/// What its first load is about.
fn backfilling(report: &IntegrationReport, usual: &str) -> String {
    match report.awaited.as_slice() {
        [] => usual.to_owned(),
        [first, rest @ ..] => format!(
            "its own systems were read, and nothing is made before {}{} of the same golden records was read once; repair or pause that one to go on",
            clean(first),
            if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) }
        ),
    }
}

/// While a revision is on trial, what was declared is not so yet.
fn on_trial(trial: &TrialReport) -> Readiness {
    match trial.phase {
        TrialPhase::Shadow => {
            Readiness::waiting(Reason::RolloutShadow, "the new revision is compared with the one in force; status.revision has the counts")
        }
        TrialPhase::Canary => Readiness::waiting(
            Reason::RolloutCanary,
            "the new revision maps a share of the records; the others are mapped by the one before",
        ),
        TrialPhase::Stopped => {
            let why = trial.stopped.as_deref().unwrap_or("more records fail under it");
            let message = format!("the new revision was stopped, and the one before stays in force: {}", clean(why));
            Readiness::stalled(Reason::RolloutStopped, message)
        }
    }
}

fn open_dead_letters(report: &IntegrationReport) -> bool {
    report.participants.iter().any(|participant| participant.dead_letters > 0)
}

/// What the last reconciliation found and left, in words.
fn drift_left(report: &IntegrationReport) -> Option<String> {
    let last = report.reconciliation.as_ref()?;
    let why = match last.outcome {
        ReconciliationOutcome::Drifted => last.trouble.as_deref().unwrap_or("and spec.reconcile.policy is Report"),
        ReconciliationOutcome::ThresholdExceeded => "more than spec.reconcile.maxRepairPercent allows to repair",
        ReconciliationOutcome::InStep | ReconciliationOutcome::Repaired | ReconciliationOutcome::Incomplete => return None,
    };
    let found = last.drift.total();
    Some(format!("the last reconciliation found {found} differences, {}; status.reconciliation counts them by kind", clean(why)))
}

fn reconciliation(last: &Reconciliation) -> ReconciliationStatus {
    ReconciliationStatus {
        at: time(last.at),
        outcome: match last.outcome {
            ReconciliationOutcome::InStep => api::ReconciliationOutcome::InStep,
            ReconciliationOutcome::Repaired => api::ReconciliationOutcome::Repaired,
            ReconciliationOutcome::Drifted => api::ReconciliationOutcome::Drifted,
            ReconciliationOutcome::ThresholdExceeded => api::ReconciliationOutcome::ThresholdExceeded,
            ReconciliationOutcome::Incomplete => api::ReconciliationOutcome::Incomplete,
        },
        compared: count(last.compared),
        missing: count(last.drift.missing),
        different: count(last.drift.different),
        unread: count(last.drift.unread),
        gone: count(last.drift.gone),
        repaired: count(last.repaired),
        last_success_time: last.last_success.map(time),
        message: last.trouble.as_deref().map(|why| clean(why).chars().take(256).collect()),
    }
}

fn state(report: &ParticipantReport, broken: bool) -> ParticipantState {
    match report.state {
        ReportedState::Paused => ParticipantState::Failing,
        _ if broken => ParticipantState::Failing,
        ReportedState::Backfill => ParticipantState::Backfill,
        ReportedState::Live | ReportedState::WriteOnly => ParticipantState::Live,
    }
}

/// The bucket of a lag, but the worse one from before until the lag has left it by a fifth.
fn steady(before: Option<LagBucket>, age: Duration) -> LagBucket {
    let now = LagBucket::of(Some(age));
    match before {
        Some(before) if before != LagBucket::Unknown && now < before && LagBucket::of(Some(age + age / 4)) >= before => before,
        _ => now,
    }
}

/// The report tells the numbers in its sentence only ("51 deletes within 24h are more than 5 % of 1000 live records"). A sentence of
/// another shape gives no block; the token then stands in the conditions' message.
fn guard(stop: &GuardStop) -> GuardStatus {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    GuardStatus {
        token: stop.token.clone(),
        participant: None,
        deletes: count(stop.deletes),
        changes: count(stop.changes),
        live: count(stop.live),
    }
}

fn record_error(failure: &RecordFailure) -> LastError {
    LastError {
        at: time(failure.at),
        participant: Some(failure.participant.clone()),
        external_id: failure.external_id.as_deref().map(|id| clean(id).chars().take(256).collect()),
        record: failure.record.map(|record| record.to_string()),
        class: class_of(&failure.error),
        reason: reason_of(&failure.error).as_str().to_owned(),
        message: told(&failure.error),
    }
}
