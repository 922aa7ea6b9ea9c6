//! The status of an ApiContract: its plan, and whether the gateway serves what the plan made of its operations.
//!
//! *Programmed* is True only when the gateway has acknowledged the digest that this generation came to. A contract without operations asks
//! nothing of a gateway: there Programmed holds with the plan, so that one wait fits every contract.
//! What is served may be older than the contract: `served` names it, be it of the last good generation.

use super::conditions::{Readiness, held, of_check, of_plan, settle};
use super::{Heard, Hearing, Judged, LOST, Moment, SILENT, clean, earliest, hearing, settling, time};
use crate::config::Config;
use crate::finding::Check;
use crate::planned::{RouteFacts, Verdict};
use fairlead_api::conditions::{ConditionType, Wanted};
use fairlead_api::status::Meaning;
use fairlead_api::{ApiContractStatus, Reason, Served};
use fairlead_model::ObjectRef;
use fairlead_model::route::RouteReport;

/// The status of an ApiContract.
#[must_use]
pub fn contract_status(
    verdict: &Verdict,
    heard: Heard<'_, RouteReport>,
    previous: Option<&ApiContractStatus>,
    moment: Moment,
    config: &Config,
) -> Judged<ApiContractStatus> {
    // Nobody need speak of a contract that is not served.
    let (hearing, changes) = match (&verdict.route, &config.gateway) {
        (Some(_), Some(_)) => hearing(heard.at, moment, config),
        _ => (Hearing::Clear, None),
    };
    let report = heard.report.filter(|_| hearing == Hearing::Clear);
    let hold = settling(moment, config)
        .filter(|_| verdict.route.is_some() && report.is_none_or(|report| report.served.is_none()))
        .and_then(|until| Some((held(previous.map(|status| status.conditions.as_slice()), verdict.generation, verdict.is_good())?, until)));
    let holding = hold.as_ref().map(|(_, until)| *until);
    let conditions = match hold {
        Some((conditions, _)) => conditions,
        None => {
            let wanted = wanted(verdict, hearing, report, config);
            settle(previous.map_or(&[], |status| &status.conditions), wanted, verdict.generation, moment)
        }
    };
    let served = match (&verdict.route, report.and_then(|report| report.served.as_ref())) {
        (_, Some(served)) => Some(Served { version: served.version.clone(), digest: served.digest.to_string(), since: time(served.since) }),
        // Silence does not take away what was served; a gateway that speaks and serves nothing does.
        (Some(_), None) if report.is_none() && config.gateway.is_some() => previous.and_then(|status| status.served.clone()),
        _ => None,
    };
    let next = ApiContractStatus {
        observed_generation: Some(verdict.generation),
        conditions,
        used_by: verdict.used_by.iter().map(ObjectRef::to_string).collect(),
        url: served.as_ref().and_then(|_| url(verdict.route.as_ref()?, config.gateway.as_deref()?)),
        served,
        consumers: verdict.route.as_ref().map(|route| i64::try_from(route.consumers).unwrap_or(i64::MAX)),
    };
    let status = match previous {
        Some(previous) if previous.says_the_same(&next) => previous.clone(),
        _ => next,
    };
    Judged { status, next_check: earliest([changes, holding]) }
}

fn wanted(verdict: &Verdict, hearing: Hearing, report: Option<&RouteReport>, config: &Config) -> Vec<Wanted> {
    let programmed = programmed(verdict, hearing, report, config);
    let ready =
        of_plan(&verdict.accepted, &verdict.resolved).or_else(|| programmed.clone().err()).unwrap_or_else(|| ready(verdict, report));
    let programmed = match programmed {
        Ok(message) => Wanted::new(ConditionType::Programmed, true, Reason::Programmed, message),
        Err(not) => Wanted::new(ConditionType::Programmed, not.status, not.reason, not.message),
    };
    let mut wanted = vec![
        of_check(ConditionType::Accepted, &verdict.accepted, Reason::Accepted, "the contract is valid"),
        of_check(ConditionType::ResolvedRefs, &verdict.resolved, Reason::ResolvedRefs, "it refers to nothing that is missing"),
        programmed,
    ];
    wanted.extend(ready.conditions());
    wanted
}

/// What Ready says of a contract that is right and, if it has operations, served as it stands.
fn ready(verdict: &Verdict, report: Option<&RouteReport>) -> Readiness {
    if verdict.route.is_none() {
        return Readiness::ready(Reason::Succeeded, "the schema compiles and may be built on");
    }
    match report.and_then(|report| report.issuers.iter().next()) {
        Some((issuer, why)) => {
            Readiness::trouble(Reason::IssuerKeysUnavailable, format!("the keys of {} cannot be had: {}", clean(issuer), clean(why)))
        }
        None => Readiness::ready(Reason::Succeeded, "the gateway serves the operations as they stand"),
    }
}

/// Why the gateway serves what this generation asks for, or why not.
fn programmed(verdict: &Verdict, hearing: Hearing, report: Option<&RouteReport>, config: &Config) -> Result<&'static str, Readiness> {
    let served = report.and_then(|report| report.served.as_ref());
    let older = served.map_or(String::new(), |served| format!("; version {} goes on being served as it was", served.version));
    for check in [&verdict.accepted, &verdict.resolved] {
        match check {
            Check::Ok => {}
            Check::Failed { reason, message } => return Err(Readiness::stalled(*reason, format!("{message}{older}"))),
            Check::Unknown { reason, message } => return Err(Readiness::unknown(*reason, message.clone())),
        }
    }
    if verdict.route.is_none() {
        return Ok("it has no operations to serve");
    }
    if config.gateway.is_none() {
        return Err(Readiness::stalled(
            Reason::GatewayNotRunning,
            "the contract has operations, and no gateway runs here; start the operator with --gateway-listen, or remove spec.operations",
        ));
    }
    match hearing {
        Hearing::Lost => return Err(Readiness::stalled(Reason::WorkerNotReporting, LOST)),
        Hearing::Silent => return Err(Readiness::unknown(Reason::WorkerNotReporting, SILENT)),
        Hearing::Clear | Hearing::Listening => {}
    }
    if served.is_some_and(|served| verdict.digest.as_ref() == Some(&served.digest)) {
        return Ok("the gateway serves this generation");
    }
    match report.and_then(|report| report.rejected.as_ref()) {
        Some(rejected) if verdict.digest.as_ref() == Some(&rejected.digest) => {
            let reason = if rejected.conflict.is_some() { Reason::Conflict } else { Reason::InternalError };
            Err(Readiness::stalled(reason, format!("the gateway cannot serve it: {}{older}", clean(&rejected.message))))
        }
        _ => Err(Readiness::waiting(Reason::Progressing, format!("the gateway has not taken it over yet{older}"))),
    }
}

/// Where a contract is served: under its first host name, if it names any, or under the gateway's own.
fn url(route: &RouteFacts, gateway: &str) -> Option<String> {
    let path = route.path.as_ref()?;
    let mut base = url::Url::parse(gateway).ok()?;
    if let Some(host) = route.hostnames.first() {
        base.set_host(Some(host)).ok()?;
    }
    Some(format!("{}{path}", base.as_str().trim_end_matches('/')))
}
