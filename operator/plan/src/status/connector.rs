//! The status of a Connector: its plan, the last authenticated probe, its circuit.
//!
//! Trouble with the Secret is trouble with a reference, though only a runtime can see it: ResolvedRefs says so. Everything about
//! the far end stands in Reachable.

use super::conditions::{Readiness, held, is_secret, of_check, of_plan, settle};
use super::{Heard, Hearing, Judged, LOST, Moment, SILENT, earliest, hearing, last_error, reason_of, settling, told};
use crate::config::Config;
use crate::planned::Verdict;
use fairlead_api::conditions::{ConditionType, Truth, Wanted, find};
use fairlead_api::reasons::Class;
use fairlead_api::status::Meaning;
use fairlead_api::{CircuitState, ConnectorStatus, Quota, Reason, SystemInfo};
use fairlead_model::Timestamp;
use fairlead_model::report::{Circuit, ConnectorReport, Failure, Quota as ReportedQuota, Window};

/// The status of a Connector.
#[must_use]
pub fn connector_status(
    verdict: &Verdict,
    heard: Heard<'_, ConnectorReport>,
    previous: Option<&ConnectorStatus>,
    moment: Moment,
    config: &Config,
) -> Judged<ConnectorStatus> {
    let (hearing, changes) = hearing(heard.at, moment, config);
    // What an older unit's runtime said is not about this spec.
    let report = heard.report.filter(|report| hearing == Hearing::Clear && verdict.digest.as_ref() == Some(&report.digest));
    let probed = report.is_some_and(|report| report.probe.is_some());
    let hold = settling(moment, config)
        .filter(|_| !probed)
        .and_then(|until| Some((held(previous.map(|status| status.conditions.as_slice()), verdict.generation, verdict.is_good())?, until)));
    let holding = hold.as_ref().map(|(_, until)| *until);

    let (conditions, throttled) = match hold {
        Some((conditions, _)) => (conditions, None),
        None => {
            let (wanted, throttled) = judge(verdict, hearing, report, previous, moment.now);
            (settle(previous.map_or(&[], |status| &status.conditions), wanted, verdict.generation, moment), throttled)
        }
    };
    let newest = report.and_then(|report| {
        let probe = report.probe.as_ref().and_then(|probe| probe.as_ref().err());
        [probe, report.last_error.as_ref()].into_iter().flatten().filter(|failure| is_cause(failure)).max_by_key(|failure| failure.at)
    });
    let next = ConnectorStatus {
        observed_generation: Some(verdict.generation),
        conditions,
        system: match &verdict.system {
            Some(system) => Some(SystemInfo {
                name: system.name.clone(),
                version: Some(system.version.clone()).filter(|version| !version.is_empty()),
                end_of_life: system.end_of_life.clone(),
            }),
            None => previous.and_then(|status| status.system.clone()),
        },
        circuit: report.map(|report| circuit(report.circuit)).or_else(|| previous.and_then(|status| status.circuit)),
        quota: report.map(|report| quota(report.quota)).or_else(|| previous.and_then(|status| status.quota)),
        last_error: newest.map(last_error).or_else(|| previous.and_then(|status| status.last_error.clone())),
        used_by: Some(i64::try_from(verdict.used_by.len()).unwrap_or(i64::MAX)),
    };
    // The count of users is no live number: it moves when somebody declares something.
    let status = match previous {
        Some(previous) if previous.says_the_same(&next) && previous.used_by == next.used_by => previous.clone(),
        _ => next,
    };
    Judged { status, next_check: earliest([changes, holding, throttled]) }
}

/// The conditions, and when a throttle ends.
fn judge(
    verdict: &Verdict,
    hearing: Hearing,
    report: Option<&ConnectorReport>,
    previous: Option<&ConnectorStatus>,
    now: Timestamp,
) -> (Vec<Wanted>, Option<Timestamp>) {
    let failure = report.and_then(|report| report.probe.as_ref()).and_then(|probe| probe.as_ref().err());
    let secret = failure.filter(|failure| is_secret(reason_of(&failure.error)));
    let resolved = match secret.filter(|_| verdict.resolved.is_ok()) {
        Some(failure) => Wanted::new(ConditionType::ResolvedRefs, false, reason_of(&failure.error), told(&failure.error)),
        None => of_check(ConditionType::ResolvedRefs, &verdict.resolved, Reason::ResolvedRefs, "everything it refers to was found"),
    };
    let reachable = reachable(verdict, hearing, report, failure, previous);
    let ready = of_plan(&verdict.accepted, &verdict.resolved).unwrap_or_else(|| match reachable.status {
        Truth::True => Readiness::ready(Reason::Succeeded, "the system answers and accepts the credentials"),
        Truth::Unknown => Readiness::unknown(reachable.reason, reachable.message.clone()),
        Truth::False => Readiness::trouble(reachable.reason, reachable.message.clone()),
    });
    let mut wanted =
        vec![of_check(ConditionType::Accepted, &verdict.accepted, Reason::Accepted, "the connector is valid"), resolved, reachable];
    wanted.extend(ready.conditions());
    let until = report.and_then(|report| report.throttled_until).filter(|until| *until > now);
    if let Some(report) = report.filter(|report| report.quota == ReportedQuota::Exhausted) {
        let message = match report.spent.map(|spent| spent.window) {
            Some(Window::Day) => {
                "the requests of spec.limits.dailyRequests are used up, but for what is kept for callers of the API; the rest waits for midnight (UTC)"
            }
            Some(Window::Vendor) | None => {
                "the vendor's quota for this window is used up, but for what is kept for callers of the API; the rest waits for the next one"
            }
        };
        wanted.push(Wanted::new(ConditionType::Throttled, true, Reason::QuotaExhausted, message));
    } else if until.is_some() {
        wanted.push(Wanted::new(
            ConditionType::Throttled,
            true,
            Reason::RateLimited,
            "the system asks for fewer requests; Fairlead waits as long as it was told",
        ));
    }
    (wanted, until)
}

fn reachable(
    verdict: &Verdict,
    hearing: Hearing,
    report: Option<&ConnectorReport>,
    failure: Option<&Failure>,
    previous: Option<&ConnectorStatus>,
) -> Wanted {
    let say = |status: Truth, reason: Reason, message: &str| Wanted::new(ConditionType::Reachable, status, reason, message);
    if !verdict.is_good() {
        return say(
            Truth::Unknown,
            Reason::DependencyNotReady,
            "the system is not asked before the connector is valid and everything it refers to is there",
        );
    }
    match hearing {
        Hearing::Silent => return say(Truth::Unknown, Reason::WorkerNotReporting, SILENT),
        Hearing::Lost => return say(Truth::False, Reason::WorkerNotReporting, LOST),
        Hearing::Listening => return say(Truth::Unknown, Reason::Progressing, "waiting for the first report of the runtime"),
        Hearing::Clear => {}
    }
    let Some(report) = report else {
        return say(Truth::Unknown, Reason::Progressing, "the runtime has not taken over this version of the connector yet");
    };
    if let Some(failure) = failure.filter(|failure| is_cause(failure)) {
        return say(Truth::False, reason_of(&failure.error), &told(&failure.error));
    }
    if failure.is_some() || report.circuit != Circuit::Closed {
        let (reason, message) = why_open(report, previous).unwrap_or_else(|| (Reason::CircuitOpen, OPEN.to_owned()));
        return say(Truth::False, reason, &message);
    }
    match report.probe {
        None => say(Truth::Unknown, Reason::Progressing, "the first probe is under way"),
        Some(_) => say(Truth::True, Reason::Succeeded, "the last probe succeeded"),
    }
}

const OPEN: &str = "the system failed several times in a row, so requests wait before one tries again";

/// Whether a failure says what is wrong; that nothing is sent because the circuit is open is only what follows.
fn is_cause(failure: &Failure) -> bool {
    reason_of(&failure.error) != Reason::CircuitOpen
}

/// Why the circuit is open: the last failure of the far end, or what stood here before it opened.
fn why_open(report: &ConnectorReport, previous: Option<&ConnectorStatus>) -> Option<(Reason, String)> {
    let remote = |reason: Reason| reason.class() == Class::Remote && reason != Reason::CircuitOpen;
    if let Some(failure) = report.last_error.as_ref().filter(|failure| remote(reason_of(&failure.error))) {
        return Some((reason_of(&failure.error), format!("{}; {OPEN}", told(&failure.error))));
    }
    let before = find(&previous?.conditions, ConditionType::Reachable).filter(|condition| condition.status == "False")?;
    let reason: Reason = before.reason.parse().ok().filter(|reason| remote(*reason))?;
    Some((reason, before.message.clone()))
}

/// A circuit that lets one request try is still open to everybody else; saying so with each try would be noise.
pub(super) fn circuit(circuit: Circuit) -> CircuitState {
    match circuit {
        Circuit::Closed => CircuitState::Closed,
        Circuit::HalfOpen | Circuit::Open => CircuitState::Open,
    }
}

fn quota(quota: ReportedQuota) -> Quota {
    match quota {
        ReportedQuota::Ample => Quota::Ample,
        ReportedQuota::Low => Quota::Low,
        ReportedQuota::Exhausted => Quota::Exhausted,
    }
}
