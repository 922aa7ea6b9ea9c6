//! The stories of OPERATOR.md and API.md as tables, and a property over arbitrary verdicts and reports: no status breaks the rules that
//! Flux, kstatus and Argo CD conclude from, and time alone changes nothing before the moment that was announced.

use super::*;
use crate::finding::Check;
use crate::planned::{RouteFacts, SystemFacts};
use fairlead_api::conditions::{ConditionType, find, is_true, judge};
use fairlead_api::{Kind, LagBucket, ParticipantState};
use fairlead_model::ErrorClass as Class;
use fairlead_model::hash::Digest;
use fairlead_model::report::{
    Circuit, ConnectorReport, Drift, GuardStop, IntegrationReport, Lag, ParticipantReport, ParticipantState as Reported, Phase, Preview,
    Quota, Reconciliation, ReconciliationOutcome as Outcome, RecordFailure, Revisions, Spent, TrialPhase, TrialReport, Window,
};
use fairlead_model::route::{RejectedRoute, RouteReport, ServedRoute};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use proptest::prelude::*;
use std::time::Duration;

const START: Timestamp = Timestamp(1_800_000_000_000);

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn moment(seconds: u64) -> Moment {
    Moment { now: at(seconds), listening_since: START }
}

fn verdict(kind: Kind) -> Verdict {
    let name = match kind {
        Kind::Connector => "salesforce",
        Kind::ApiContract => "customer-v1",
        Kind::Integration => "customers",
    };
    let mut verdict = Verdict::of(kind, ObjectRef::new("na", name), 3, Vec::new());
    verdict.digest = Some(Digest("sha256:now".into()));
    match kind {
        Kind::Connector => {
            verdict.system = Some(SystemFacts { name: "salesforce".into(), version: "67.0".into(), end_of_life: None });
        }
        Kind::Integration => {
            verdict.participants =
                vec![("crm".into(), ObjectRef::new("na", "salesforce")), ("erp".into(), ObjectRef::new("na", "netsuite"))];
        }
        Kind::ApiContract => {}
    }
    verdict
}

use crate::planned::Verdict;

fn failed(reason: Reason) -> Check {
    Check::Failed { reason, message: "spec.x: is wrong (correct it)".into() }
}

fn connector_report() -> ConnectorReport {
    ConnectorReport {
        digest: Digest("sha256:now".into()),
        probe: Some(Ok(at(100))),
        circuit: Circuit::Closed,
        quota: Quota::Ample,
        spent: None,
        throttled_until: None,
        last_error: None,
    }
}

fn integration_report() -> IntegrationReport {
    let participant = |name: &str| ParticipantReport {
        name: name.into(),
        state: Reported::Live,
        dead_letters: 0,
        pending: 0,
        conflicts: 0,
        last_read: None,
        paused_by: None,
    };
    IntegrationReport {
        digest: Digest("sha256:now".into()),
        rejected: None,
        phase: Phase::Live,
        participants: vec![participant("crm"), participant("erp")],
        awaited: Vec::new(),
        lag: Some(Lag { age: Duration::from_secs(2), pending: 0 }),
        last_delivered: Some(at(95)),
        last_error: None,
        balanced: true,
        preview: None,
        guard: None,
        reconciliation: None,
        revision: None,
        store_error: None,
    }
}

fn failure(class: Class, reason: &str) -> Failure {
    Failure { at: at(99), error: RemoteError::new(class, reason, "what happened, where and what to do") }
}

/// Type, status and reason of what is not simply good, and of Ready.
fn story(conditions: &[Condition]) -> Vec<String> {
    conditions
        .iter()
        .filter(|c| {
            c.type_ == "Ready"
                || c.status != "True"
                || !["Accepted", "ResolvedRefs", "Reachable", "Programmed", "Healthy"].contains(&c.type_.as_str())
        })
        .map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
        .collect()
}

fn lawful(kind: Kind, conditions: &[Condition], observed: Option<i64>) {
    let breaches = judge(kind, conditions, observed, 3);
    assert!(breaches.is_empty(), "{breaches:?}\n{conditions:#?}");
}

fn connector(edit: impl Fn(&mut ConnectorReport)) -> ConnectorStatus {
    let mut report = connector_report();
    edit(&mut report);
    let heard = Heard { report: Some(&report), at: Some(at(100)) };
    let status = connector_status(&verdict(Kind::Connector), heard, None, moment(101), &Config::default()).status;
    lawful(Kind::Connector, &status.conditions, status.observed_generation);
    status
}

#[test]
fn a_connector_says_whose_turn_it_is() {
    let probe = |class, reason: &'static str| move |report: &mut ConnectorReport| report.probe = Some(Err(failure(class, reason)));
    let cases: Vec<(ConnectorStatus, &[&str])> = vec![
        (connector(|_| {}), &["Ready=True Succeeded"]),
        (
            connector(probe(Class::Configuration, "SecretNotFound")),
            &[
                "ResolvedRefs=False SecretNotFound",
                "Reachable=False SecretNotFound",
                "Ready=False SecretNotFound",
                "Stalled=True SecretNotFound",
            ],
        ),
        (
            connector(probe(Class::Configuration, "SecretForbidden")),
            &[
                "ResolvedRefs=False SecretNotReadable",
                "Reachable=False SecretNotReadable",
                "Ready=False SecretNotReadable",
                "Stalled=True SecretNotReadable",
            ],
        ),
        (
            connector(probe(Class::Auth, "AuthenticationFailed")),
            &["Reachable=False AuthenticationFailed", "Ready=False AuthenticationFailed", "Stalled=True AuthenticationFailed"],
        ),
        (
            connector(probe(Class::Configuration, "EndpointNotAllowed")),
            &["Reachable=False EndpointNotAllowed", "Ready=False EndpointNotAllowed", "Stalled=True EndpointNotAllowed"],
        ),
        (
            connector(probe(Class::Transient, "EndpointUnreachable")),
            &["Reachable=False EndpointUnreachable", "Ready=False EndpointUnreachable", "Reconciling=True ProgressingWithRetry"],
        ),
        (
            connector(probe(Class::Transient, "MaintenancePage")),
            &["Reachable=False RemoteError", "Ready=False RemoteError", "Reconciling=True ProgressingWithRetry"],
        ),
        (
            connector(|report| report.circuit = Circuit::HalfOpen),
            &["Reachable=False CircuitOpen", "Ready=False CircuitOpen", "Reconciling=True ProgressingWithRetry"],
        ),
        (
            connector(|report| report.probe = None),
            &["Reachable=Unknown Progressing", "Ready=Unknown Progressing", "Reconciling=True Progressing"],
        ),
        (connector(|report| report.throttled_until = Some(at(110))), &["Ready=True Succeeded", "Throttled=True RateLimited"]),
        (connector(|report| report.quota = Quota::Exhausted), &["Ready=True Succeeded", "Throttled=True QuotaExhausted"]),
        (
            connector(|report| report.digest = Digest("sha256:before".into())),
            &["Reachable=Unknown Progressing", "Ready=Unknown Progressing", "Reconciling=True Progressing"],
        ),
    ];
    for (status, wanted) in cases {
        assert_eq!(story(&status.conditions), wanted);
    }
}

#[test]
fn a_used_up_quota_says_whose_it_is() {
    for (window, words) in [(Window::Day, "spec.limits.dailyRequests are used up"), (Window::Vendor, "the vendor's quota")] {
        let status = connector(|report| {
            report.quota = Quota::Exhausted;
            report.spent = Some(Spent { window, until: at(110), ends: true });
        });
        let throttled = find(&status.conditions, ConditionType::Throttled).unwrap();
        assert!(throttled.message.contains(words), "{}", throttled.message);
    }
}

#[test]
fn an_open_circuit_does_not_hide_why_it_opened() {
    let dead = connector(|report| report.probe = Some(Err(failure(Class::Transient, "EndpointUnreachable"))));
    let mut report =
        ConnectorReport { circuit: Circuit::Open, probe: Some(Err(failure(Class::Transient, "CircuitOpen"))), ..connector_report() };
    let judged = |report: &ConnectorReport, previous: &ConnectorStatus| {
        connector_status(
            &verdict(Kind::Connector),
            Heard { report: Some(report), at: Some(at(100)) },
            Some(previous),
            moment(101),
            &Config::default(),
        )
        .status
    };
    let open = judged(&report, &dead);
    assert_eq!(story(&open.conditions), story(&dead.conditions));
    assert_eq!(open.last_error, dead.last_error);
    report.last_error = Some(failure(Class::Transient, "ServerError"));
    assert_eq!(find(&judged(&report, &open).conditions, ConditionType::Ready).unwrap().reason, "RemoteError");
}

#[test]
fn an_invalid_connector_is_stalled_whatever_runs() {
    let mut wrong = verdict(Kind::Connector);
    (wrong.accepted, wrong.digest) = (failed(Reason::UnsupportedValue), None);
    let report = connector_report();
    let status = connector_status(&wrong, Heard { report: Some(&report), at: Some(at(100)) }, None, moment(101), &Config::default()).status;
    lawful(Kind::Connector, &status.conditions, status.observed_generation);
    assert_eq!(
        story(&status.conditions),
        [
            "Accepted=False UnsupportedValue",
            "Reachable=Unknown DependencyNotReady",
            "Ready=False UnsupportedValue",
            "Stalled=True UnsupportedValue"
        ]
    );
}

fn contract(verdict: &Verdict, report: Option<&RouteReport>, previous: Option<&ApiContractStatus>) -> ApiContractStatus {
    let config = Config { gateway: Some("https://api.acme.example".into()), ..Config::default() };
    let status = contract_status(verdict, Heard { report, at: Some(at(100)) }, previous, moment(101), &config).status;
    lawful(Kind::ApiContract, &status.conditions, status.observed_generation);
    status
}

/// A contract with operations.
fn serving() -> Verdict {
    let mut verdict = verdict(Kind::ApiContract);
    verdict.route = Some(RouteFacts { path: Some("/sales/customer/v1".into()), hostnames: Vec::new(), consumers: 2 });
    verdict
}

fn route_report(digest: &str) -> RouteReport {
    let served = ServedRoute { digest: Digest(digest.into()), version: "1.3.0".into(), since: at(50) };
    RouteReport { served: Some(served), rejected: None, issuers: BTreeMap::new() }
}

#[test]
fn a_contract_is_ready_when_it_plans_and_names_its_users() {
    let mut good = verdict(Kind::ApiContract);
    good.used_by = vec![ObjectRef::new("na", "customers")];
    let status = contract(&good, None, None);
    assert_eq!((story(&status.conditions), &status.used_by[..]), (vec!["Ready=True Succeeded".into()], &["na/customers".to_owned()][..]));
    assert!(is_true(&status.conditions, ConditionType::Programmed), "it asks nothing of a gateway");
    assert_eq!((&status.served, &status.url, status.consumers), (&None, &None, None));
    good.accepted = failed(Reason::SchemaInvalid);
    let status = contract(&good, None, Some(&status));
    assert_eq!(
        story(&status.conditions),
        ["Accepted=False SchemaInvalid", "Programmed=False SchemaInvalid", "Ready=False SchemaInvalid", "Stalled=True SchemaInvalid"]
    );
}

#[test]
fn a_contract_with_operations_is_programmed_only_when_the_gateway_has_acknowledged_its_digest() {
    let waiting = ["Programmed=False Progressing", "Ready=False Progressing", "Reconciling=True Progressing"];
    assert_eq!(story(&contract(&serving(), None, None).conditions), waiting);
    let status = contract(&serving(), Some(&route_report("sha256:before")), None);
    assert_eq!(story(&status.conditions), waiting);
    assert_eq!(status.served.as_ref().map(|served| (served.version.as_str(), served.digest.as_str())), Some(("1.3.0", "sha256:before")));
    let status = contract(&serving(), Some(&route_report("sha256:now")), Some(&status));
    assert_eq!(story(&status.conditions), ["Ready=True Succeeded"]);
    assert_eq!(status.url.as_deref(), Some("https://api.acme.example/sales/customer/v1"));
    assert_eq!(status.consumers, Some(2));
}

#[test]
fn a_contract_that_is_wrong_says_what_goes_on_being_served() {
    let mut wrong = serving();
    wrong.resolved = failed(Reason::IntegrationNotFound);
    wrong.digest = None;
    let status = contract(&wrong, Some(&route_report("sha256:before")), None);
    assert_eq!(
        story(&status.conditions),
        [
            "ResolvedRefs=False IntegrationNotFound",
            "Programmed=False IntegrationNotFound",
            "Ready=False IntegrationNotFound",
            "Stalled=True IntegrationNotFound"
        ]
    );
    assert!(find(&status.conditions, ConditionType::Programmed).unwrap().message.contains("version 1.3.0 goes on being served"));
    assert!(status.served.is_some() && status.url.is_some());
}

#[test]
fn what_keeps_a_gateway_from_serving_is_told() {
    let nowhere = contract_status(&serving(), Heard { report: None, at: Some(at(100)) }, None, moment(101), &Config::default()).status;
    assert_eq!(
        story(&nowhere.conditions),
        ["Programmed=False GatewayNotRunning", "Ready=False GatewayNotRunning", "Stalled=True GatewayNotRunning"]
    );
    let rejected = |conflict: Option<ObjectKey>| {
        let rejected = RejectedRoute { digest: Digest("sha256:now".into()), conflict, message: "because".into() };
        story(&contract(&serving(), Some(&RouteReport { rejected: Some(rejected), ..route_report("sha256:before") }), None).conditions)
    };
    assert_eq!(rejected(None)[0], "Programmed=False InternalError");
    assert_eq!(rejected(Some(ObjectKey("na/older".into())))[0], "Programmed=False Conflict");
    let keyless = RouteReport { issuers: [("https://login".to_owned(), "no answer".to_owned())].into(), ..route_report("sha256:now") };
    assert_eq!(
        story(&contract(&serving(), Some(&keyless), None).conditions),
        ["Ready=False IssuerKeysUnavailable", "Reconciling=True ProgressingWithRetry"]
    );
}

#[test]
fn a_restarted_operator_moves_nothing_of_a_contract_that_is_served() {
    let before = contract(&serving(), Some(&route_report("sha256:now")), None);
    let config = Config { gateway: Some("https://api.acme.example".into()), ..Config::default() };
    let young = contract_status(&serving(), Heard { report: None, at: None }, Some(&before), moment(1), &config);
    assert_eq!(young.status, before);
    let old = contract_status(&serving(), Heard { report: None, at: None }, Some(&before), moment(70), &config);
    assert_eq!(story(&old.status.conditions)[0], "Programmed=False WorkerNotReporting");
}

fn good_connectors() -> BTreeMap<ObjectRef, ConnectorStatus> {
    ["salesforce", "netsuite"].map(|name| (ObjectRef::new("na", name), connector(|_| {}))).into()
}

fn integration_with(edit: impl Fn(&mut IntegrationReport), connectors: &BTreeMap<ObjectRef, ConnectorStatus>) -> IntegrationStatus {
    let mut report = integration_report();
    edit(&mut report);
    let heard = Heard { report: Some(&report), at: Some(at(100)) };
    let status = integration_status(&verdict(Kind::Integration), heard, connectors, None, moment(101), &Config::default()).status;
    lawful(Kind::Integration, &status.conditions, status.observed_generation);
    status
}

fn integration(edit: impl Fn(&mut IntegrationReport)) -> IntegrationStatus {
    integration_with(edit, &good_connectors())
}

fn on_trial(phase: TrialPhase) -> Revisions {
    let stopped = (phase == TrialPhase::Stopped).then(|| "3 of 9 fail".to_owned());
    let trial = TrialReport { revision: Some(8), phase, since: at(90), tried: 9, different: 4, failing: 3, stopped };
    Revisions { active: Some(7), trial: Some(trial) }
}

#[test]
fn a_rollout_is_no_readiness_and_a_stopped_one_is_a_persons_turn() {
    let told = |phase| integration(move |report| report.revision = Some(on_trial(phase)));
    let (shadow, canary, stopped) = (told(TrialPhase::Shadow), told(TrialPhase::Canary), told(TrialPhase::Stopped));
    assert_eq!(story(&shadow.conditions), ["Ready=False RolloutShadow", "Reconciling=True RolloutShadow"]);
    assert_eq!(story(&canary.conditions), ["Ready=False RolloutCanary", "Reconciling=True RolloutCanary"]);
    assert_eq!(story(&stopped.conditions), ["Ready=False RolloutStopped", "Stalled=True RolloutStopped"]);
    let ready = find(&stopped.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.ends_with("stays in force: 3 of 9 fail"), "{}", ready.message);

    let revision = shadow.revision.unwrap();
    assert_eq!((revision.active, revision.canary, revision.phase), (7, Some(8), Some(fairlead_api::RolloutPhase::Shadow)));
    assert_eq!((revision.tried, revision.different, revision.failing), (Some(9), Some(4), Some(3)));
    assert_eq!(canary.revision.unwrap().different, None, "what it writes is written");
    let over = integration(|report| report.revision = Some(Revisions { active: Some(8), trial: None })).revision.unwrap();
    assert_eq!((over.active, over.canary, over.phase), (8, None, None));
    // What ran before goes on and says nothing of what was declared since.
    let other = integration(|report| {
        report.revision = Some(on_trial(TrialPhase::Canary));
        report.digest = Digest("sha256:before".into());
    });
    assert!(story(&other.conditions).contains(&"Ready=False Progressing".to_owned()));
    assert_eq!(other.revision, None);
}

fn reconciled(outcome: Outcome) -> Reconciliation {
    let drift = Drift { missing: 1, different: 2, unread: 0, gone: 0 };
    Reconciliation { at: at(50), outcome, compared: 100, drift, repaired: 0, trouble: None, last_success: None }
}

#[test]
fn the_last_reconciliation_stands_in_status_with_its_counts() {
    let status = integration(|report| report.reconciliation = Some(reconciled(Outcome::Drifted)));
    let last = status.reconciliation.unwrap();
    assert_eq!((last.compared, last.missing, last.different, last.repaired), (100, 1, 2, 0));
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("found 3 differences") && ready.message.contains("policy is Report"), "{}", ready.message);

    let left = Reconciliation { trouble: Some("crm does not show 1".into()), ..reconciled(Outcome::Drifted) };
    let status = integration(|report| report.reconciliation = Some(left.clone()));
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("found 3 differences, crm does not show 1; status"), "{}", ready.message);
}

#[test]
fn a_first_load_that_waits_for_another_integration_names_whom() {
    let message = |awaited: &[&str]| {
        let status = integration(|report| {
            report.phase = Phase::Backfill;
            report.awaited = awaited.iter().map(|name| (*name).to_owned()).collect();
        });
        find(&status.conditions, ConditionType::Ready).unwrap().message.clone()
    };
    assert!(message(&[]).starts_with("everything is read for the first time"));
    assert!(message(&["eu/customers/erp"]).contains("nothing is made before eu/customers/erp of the same golden records was read once"));
    assert!(message(&["eu/customers/erp", "us/customers/crm"]).contains("eu/customers/erp and 1 more of the same"));
}

#[test]
fn an_integration_tells_where_it_stands() {
    let lag = |seconds, delivered| {
        move |report: &mut IntegrationReport| {
            report.lag = Some(Lag { age: Duration::from_secs(seconds), pending: 7 });
            report.last_delivered = delivered;
        }
    };
    let cases: Vec<(IntegrationStatus, &[&str])> = vec![
        (integration(|_| {}), &["Ready=True Succeeded"]),
        (integration(|report| report.phase = Phase::Backfill), &["Ready=False Backfilling", "Reconciling=True Backfilling"]),
        (integration(|report| report.phase = Phase::Paused), &["Ready=True Paused", "Paused=True Paused"]),
        (integration(|report| report.phase = Phase::Previewed), &["Ready=True Preview"]),
        (
            integration(|report| {
                report.phase = Phase::Guarded;
                report.guard = Some(GuardStop { message: GUARD.into(), token: "k7".into(), deletes: 812, changes: 0, live: 5000 });
            }),
            &["Healthy=False ChangeThresholdExceeded", "Ready=False ChangeThresholdExceeded", "Stalled=True ChangeThresholdExceeded"],
        ),
        (
            integration(|report| report.store_error = Some("the disk is full".into())),
            &["Healthy=False StoreUnavailable", "Ready=False StoreUnavailable", "Stalled=True StoreUnavailable"],
        ),
        (integration(|report| report.participants[1].dead_letters = 2), &["Ready=True DeadLetters"]),
        (integration(|report| report.reconciliation = Some(reconciled(Outcome::Repaired))), &["Ready=True Succeeded"]),
        (integration(|report| report.reconciliation = Some(reconciled(Outcome::Drifted))), &["Ready=True DriftFound"]),
        (integration(|report| report.reconciliation = Some(reconciled(Outcome::ThresholdExceeded))), &["Ready=True DriftFound"]),
        (
            integration(|report| {
                report.participants[1].state = Reported::Paused;
                report.participants[1].paused_by =
                    Some(RemoteError::new(Class::Permission, "EntityPermissionMissing", "no access to customer"));
            }),
            &[
                "Healthy=False EntityPermissionMissing",
                "Ready=False EntityPermissionMissing",
                "Stalled=True EntityPermissionMissing",
                "Degraded=True EntityPermissionMissing",
            ],
        ),
        (
            integration(|report| report.balanced = false),
            &["Ready=False LedgerUnbalanced", "Stalled=True LedgerUnbalanced", "Degraded=True LedgerUnbalanced"],
        ),
        (
            integration(|report| report.digest = Digest("sha256:before".into())),
            &["Programmed=False Progressing", "Ready=False Progressing", "Reconciling=True Progressing"],
        ),
        (
            integration(|report| report.rejected = Some("row 3 does not compile".into())),
            &["Programmed=False InternalError", "Ready=False InternalError", "Stalled=True InternalError"],
        ),
        (integration(lag(300, Some(at(95)))), &["Ready=True Succeeded", "Lagging=True Lagging"]),
        (
            integration(lag(300, Some(at(20)))),
            &["Healthy=False Lagging", "Ready=False Lagging", "Reconciling=True ProgressingWithRetry", "Lagging=True Lagging"],
        ),
    ];
    for (status, wanted) in cases {
        assert_eq!(story(&status.conditions), wanted);
    }
}

#[test]
fn an_integration_names_the_connector_it_waits_for_and_heals_with_it() {
    let mut connectors = good_connectors();
    let broken = connector(|report| report.probe = Some(Err(failure(Class::Auth, "AuthenticationFailed"))));
    connectors.insert(ObjectRef::new("na", "netsuite"), broken);
    let status = integration_with(|_| {}, &connectors);
    assert_eq!(
        story(&status.conditions),
        [
            "Healthy=False DependencyNotReady",
            "Ready=False DependencyNotReady",
            "Stalled=True DependencyNotReady",
            "Degraded=True DependencyNotReady"
        ]
    );
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert_eq!(
        ready.message,
        "the participant `erp` waits for Connector na/netsuite: AuthenticationFailed: what happened, where and what to do"
    );
    assert_eq!(status.participants.iter().map(|each| each.state).collect::<Vec<_>>(), [ParticipantState::Live, ParticipantState::Failing]);

    let report = integration_report();
    let heard = Heard { report: Some(&report), at: Some(at(110)) };
    let healed =
        integration_status(&verdict(Kind::Integration), heard, &good_connectors(), Some(&status), moment(111), &Config::default()).status;
    assert_eq!(story(&healed.conditions), ["Ready=True Succeeded"]);
}

#[test]
fn a_broken_edit_says_so_while_the_last_good_unit_keeps_its_health() {
    let mut wrong = verdict(Kind::Integration);
    (wrong.accepted, wrong.digest) = (failed(Reason::MappingInvalid), None);
    let report = IntegrationReport { digest: Digest("sha256:before".into()), ..integration_report() };
    let heard = Heard { report: Some(&report), at: Some(at(100)) };
    let status = integration_status(&wrong, heard, &good_connectors(), None, moment(101), &Config::default()).status;
    lawful(Kind::Integration, &status.conditions, status.observed_generation);
    assert_eq!(
        story(&status.conditions),
        ["Accepted=False MappingInvalid", "Programmed=False MappingInvalid", "Ready=False MappingInvalid", "Stalled=True MappingInvalid"]
    );
}

#[test]
fn a_silent_runtime_is_unknown_first_and_lost_later_at_the_announced_moments() {
    let (config, verdict, connectors) = (Config::default(), verdict(Kind::Integration), good_connectors());
    let report = integration_report();
    let heard = Heard { report: Some(&report), at: Some(at(100)) };
    let judge_at = |now: Timestamp, previous: Option<&IntegrationStatus>| {
        integration_status(&verdict, heard, &connectors, previous, Moment { now, listening_since: START }, &config)
    };
    let good = judge_at(at(101), None);
    assert_eq!(story(&good.status.conditions), ["Ready=True Succeeded"]);
    assert_eq!(good.next_check, Some(at(120)));

    let before = judge_at(Timestamp(at(120).0 - 1), Some(&good.status));
    assert_eq!(before.status, good.status, "nothing moves before the announced moment");

    let silent = judge_at(at(120), Some(&good.status));
    assert_eq!(
        story(&silent.status.conditions),
        [
            "Programmed=Unknown WorkerNotReporting",
            "Healthy=Unknown WorkerNotReporting",
            "Ready=Unknown WorkerNotReporting",
            "Reconciling=True WorkerNotReporting"
        ]
    );
    assert_eq!(silent.status.lag.as_ref().map(|lag| lag.bucket), Some(LagBucket::Unknown));
    assert_eq!(silent.next_check, Some(at(160)));

    let lost = judge_at(at(160), Some(&silent.status));
    assert_eq!(
        story(&lost.status.conditions),
        [
            "Programmed=False WorkerNotReporting",
            "Healthy=False WorkerNotReporting",
            "Ready=False WorkerNotReporting",
            "Stalled=True WorkerNotReporting"
        ]
    );
    assert_eq!(judge_at(at(10_000), Some(&lost.status)), Judged { status: lost.status, next_check: None });
}

#[test]
fn a_restart_moves_nothing_that_settles_again() {
    let (config, verdict, connectors) = (Config::default(), verdict(Kind::Integration), good_connectors());
    let settled = integration(|_| {});
    let restarted = at(1_000);
    let nothing: Heard<'_, IntegrationReport> = Heard { report: None, at: None };
    let spoke = Heard { report: None, at: Some(at(1_003)) };
    for (seconds, heard) in [(1_001, nothing), (1_004, spoke), (1_019, spoke)] {
        let judged = integration_status(
            &verdict,
            heard,
            &connectors,
            Some(&settled),
            Moment { now: at(seconds), listening_since: restarted },
            &config,
        );
        assert_eq!(judged.status, settled, "after {seconds} s");
        assert!(judged.next_check.is_some_and(|next| next <= at(1_023)));
    }
    // It has taken the unit over and not looked at the data yet, then it waits for its leases.
    let starting = IntegrationReport { phase: Phase::Backfill, participants: Vec::new(), lag: None, ..integration_report() };
    let mut waiting = IntegrationReport { phase: Phase::Backfill, lag: None, ..integration_report() };
    waiting.participants.iter_mut().for_each(|participant| participant.state = Reported::Backfill);
    let moment = Moment { now: at(1_006), listening_since: restarted };
    for report in [&starting, &waiting] {
        let heard = Heard { report: Some(report), at: Some(at(1_005)) };
        assert_eq!(integration_status(&verdict, heard, &connectors, Some(&settled), moment, &config).status, settled);
    }
    // But a first load that only begins is told at once.
    let first = integration(|report| report.digest = Digest("sha256:before".into()));
    let heard = Heard { report: Some(&waiting), at: Some(at(1_005)) };
    let judged = integration_status(&verdict, heard, &connectors, Some(&first), moment, &config);
    assert_eq!(story(&judged.status.conditions), ["Ready=False Backfilling", "Reconciling=True Backfilling"]);
    // A runtime that speaks and still does not know of it after that: the truth is told.
    let heard = Heard { report: None, at: Some(at(1_020)) };
    let moment = Moment { now: at(1_021), listening_since: restarted };
    let judged = integration_status(&verdict, heard, &connectors, Some(&settled), moment, &config);
    assert!(!is_true(&judged.status.conditions, ConditionType::Ready));
}

#[test]
fn a_restart_moves_nothing_of_a_connector_whose_secret_is_missing() {
    let missing = connector(|report| report.probe = Some(Err(failure(Class::Configuration, "SecretNotFound"))));
    let begun = ConnectorReport { probe: None, ..connector_report() };
    for report in [None, Some(&begun)] {
        let moment = Moment { now: at(1_004), listening_since: at(1_000) };
        let heard = Heard { report, at: Some(at(1_003)) };
        let judged = connector_status(&verdict(Kind::Connector), heard, Some(&missing), moment, &Config::default());
        assert_eq!(judged.status, missing);
    }
}

#[test]
fn numbers_ride_along_and_never_travel_alone() {
    let (config, verdict, connectors) = (Config::default(), verdict(Kind::Integration), good_connectors());
    let with = |report: &IntegrationReport, previous: &IntegrationStatus, now: u64| {
        let heard = Heard { report: Some(report), at: Some(at(now)) };
        integration_status(&verdict, heard, &connectors, Some(previous), moment(now), &config).status
    };
    let mut report = integration_report();
    report.participants[0].dead_letters = 3;
    report.participants[0].conflicts = 2;
    let three = with(&report, &integration(|_| {}), 101);
    assert_eq!(three.dead_letters, Some(3), "leaving zero is told");
    report.participants[0].dead_letters = 4;
    report.participants[0].conflicts = 5;
    report.last_delivered = Some(at(200));
    report.lag = Some(Lag { age: Duration::from_secs(6), pending: 900 });
    assert_eq!(with(&report, &three, 201), three, "more of the same is not");
    report.last_error = Some(RecordFailure {
        at: at(210),
        participant: "crm".into(),
        external_id: Some("001".into()),
        record: None,
        error: RemoteError::new(Class::Data, "ValidationFailed", "bad\u{7} phone"),
    });
    let told = with(&report, &three, 211);
    assert_eq!((told.dead_letters, told.participants[0].conflicts), (Some(4), Some(5)), "but rides along with an error");
    assert_eq!(told.last_error.unwrap().message, "bad  phone");
    assert_eq!(told.last_sync_time, three.last_sync_time, "the last sync time moves in steps of ten minutes");
    report.last_delivered = Some(at(95 + 600));
    assert_eq!(with(&report, &three, 700).last_sync_time, Some(time(at(695))));
}

#[test]
fn a_lag_near_a_boundary_does_not_flap() {
    let (config, verdict, connectors) = (Config::default(), verdict(Kind::Integration), good_connectors());
    let mut status = integration(|_| {});
    let mut buckets = Vec::new();
    for age in [9, 11, 9, 10, 8, 7] {
        let report = IntegrationReport { lag: Some(Lag { age: Duration::from_secs(age), pending: 1 }), ..integration_report() };
        let heard = Heard { report: Some(&report), at: Some(at(100)) };
        status = integration_status(&verdict, heard, &connectors, Some(&status), moment(101), &config).status;
        buckets.push(status.lag.clone().unwrap());
    }
    let shown: Vec<(LagBucket, bool)> = buckets.into_iter().map(|lag| (lag.bucket, lag.pending)).collect();
    let (low, high) = ((LagBucket::Under10s, false), (LagBucket::Under1m, true));
    assert_eq!(shown, [low, high, high, high, high, low]);
}

#[test]
fn noise_is_paced_and_conditions_are_not() {
    let config = Config::default();
    let quiet = integration(|_| {});
    let noisy = integration(|report| report.participants[0].pending = 0);
    assert_eq!(pace(Some(&quiet), &noisy, Some(at(100)), at(101), &config), Pace::Never);
    let mut error = quiet.clone();
    error.last_error = Some(last_error(&failure(Class::Transient, "EndpointUnreachable")));
    assert_eq!(pace(Some(&quiet), &error, Some(at(100)), at(101), &config), Pace::At(at(160)));
    assert_eq!(pace(Some(&quiet), &error, Some(at(100)), at(160), &config), Pace::Now);
    let paused = integration(|report| report.phase = Phase::Paused);
    assert_eq!(pace(Some(&quiet), &paused, Some(at(100)), at(101), &config), Pace::Now);
    assert_eq!(pace(None, &quiet, None, at(101), &config), Pace::Now);
}

#[test]
fn the_preview_shows_its_counts() {
    let status = integration(|report| {
        report.phase = Phase::Previewed;
        report.preview = Some(Preview { matched: 812, ambiguous: 3, would_create: 9185, would_change: 40 });
    });
    let preview = status.preview.unwrap();
    assert_eq!((preview.matched, preview.ambiguous, preview.would_create, preview.would_change), (812, 3, 9185, 40));
}

const GUARD: &str = "812 deletes within 24h are more than 5 % of 5000 live records; if this is meant, set spec.sync.guard.confirm to the token, or raise the limit";

#[test]
fn a_held_wave_shows_its_token_and_numbers() {
    let status = integration(|report| {
        report.phase = Phase::Guarded;
        report.guard = Some(GuardStop { message: GUARD.into(), token: "k7".into(), deletes: 812, changes: 0, live: 5000 });
    });
    let guard = status.guard.unwrap();
    assert_eq!((guard.token.as_str(), guard.deletes, guard.live), ("k7", 812, 5000));
    assert!(find(&status.conditions, ConditionType::Ready).unwrap().message.ends_with("or raise the limit (the token is k7)"));
}

#[test]
fn the_runtimes_finer_words_all_mean_a_documented_one() {
    for word in fairlead_systems::reason::ALL {
        for class in [Class::Transient, Class::Configuration, Class::Data] {
            let reason = reason_of(&RemoteError::new(class, word, ""));
            assert_ne!(reason, Reason::InternalError, "{word}");
        }
    }
    assert_eq!(reason_of(&RemoteError::new(Class::Auth, "SomethingNew", "")), Reason::AuthenticationFailed);
}

// Arbitrary worlds.

fn any_check() -> impl Strategy<Value = Check> {
    let reason =
        prop::sample::select(vec![Reason::InvalidSpec, Reason::RefNotPermitted, Reason::DependencyNotReady, Reason::MappingInvalid]);
    prop_oneof![
        4 => Just(Check::Ok),
        1 => reason.clone().prop_map(|reason| Check::Failed { reason, message: "is wrong".into() }),
        1 => reason.prop_map(|reason| Check::Unknown { reason, message: "is not given".into() }),
    ]
}

fn any_error() -> impl Strategy<Value = RemoteError> {
    let classes =
        vec![Class::Transient, Class::Throttled, Class::Auth, Class::Permission, Class::Data, Class::Configuration, Class::UnknownOutcome];
    (prop::sample::select(classes), prop::sample::select(fairlead_systems::reason::ALL.to_vec()), prop::sample::select(vec!["", "text"]))
        .prop_map(|(class, reason, message)| RemoteError::new(class, reason, message))
}

fn any_failure() -> impl Strategy<Value = Failure> {
    (0u64..200, any_error()).prop_map(|(seconds, error)| Failure { at: at(seconds), error })
}

fn any_digest() -> impl Strategy<Value = Digest> {
    prop::sample::select(vec!["sha256:now", "sha256:now", "sha256:before"]).prop_map(|text| Digest(text.into()))
}

fn any_verdict(kind: Kind) -> impl Strategy<Value = Verdict> {
    (any_check(), any_check(), 1i64..4).prop_map(move |(accepted, resolved, generation)| {
        let mut verdict = verdict(kind);
        (verdict.accepted, verdict.resolved, verdict.generation) = (accepted, resolved, generation);
        if !verdict.is_good() {
            verdict.digest = None;
        }
        verdict
    })
}

fn any_connector_report() -> impl Strategy<Value = ConnectorReport> {
    let probe = prop::option::of(prop_oneof![(0u64..200).prop_map(|s| Ok(at(s))), any_failure().prop_map(Err)]);
    let circuit = prop::sample::select(vec![Circuit::Closed, Circuit::Closed, Circuit::HalfOpen, Circuit::Open]);
    let quota = prop::sample::select(vec![Quota::Ample, Quota::Low, Quota::Exhausted]);
    (any_digest(), probe, circuit, quota, prop::option::of(0u64..400), prop::option::of(any_failure())).prop_map(
        |(digest, probe, circuit, quota, until, last_error)| ConnectorReport {
            digest,
            probe,
            circuit,
            quota,
            spent: until.map(|until| Spent {
                window: if until.is_multiple_of(2) { Window::Day } else { Window::Vendor },
                until: at(until),
                ends: true,
            }),
            throttled_until: until.map(at),
            last_error,
        },
    )
}

fn any_participant(name: &'static str) -> impl Strategy<Value = ParticipantReport> {
    let state = prop::sample::select(vec![Reported::Live, Reported::Backfill, Reported::Paused, Reported::WriteOnly]);
    (state, 0u64..3, 0u64..3, prop::option::of(any_error())).prop_map(move |(state, dead_letters, pending, paused_by)| ParticipantReport {
        name: name.into(),
        state,
        dead_letters,
        pending,
        conflicts: dead_letters * 2,
        last_read: None,
        paused_by,
    })
}

fn any_participants() -> impl Strategy<Value = Vec<ParticipantReport>> {
    prop_oneof![1 => Just(Vec::new()), 4 => (any_participant("crm"), any_participant("erp")).prop_map(|(crm, erp)| vec![crm, erp])]
}

fn any_integration_report() -> impl Strategy<Value = IntegrationReport> {
    let phase = prop::sample::select(vec![Phase::Backfill, Phase::Previewed, Phase::Live, Phase::Live, Phase::Paused, Phase::Guarded]);
    let lag = prop::option::of((0u64..5_000, 0u64..3).prop_map(|(age, pending)| Lag { age: Duration::from_secs(age), pending }));
    let guard = prop::option::of(Just(GuardStop { message: "too many".into(), token: "k7".into(), deletes: 1, changes: 2, live: 3 }));
    let error = prop::option::of((0u64..200, any_error()).prop_map(|(seconds, error)| RecordFailure {
        at: at(seconds),
        participant: "crm".into(),
        external_id: None,
        record: None,
        error,
    }));
    let trouble = (
        prop::option::weighted(0.1, Just("no".to_owned())),
        prop::option::weighted(0.1, Just("disk full".to_owned())),
        prop::bool::weighted(0.9),
        prop::option::weighted(
            0.3,
            prop_oneof![Just(Outcome::InStep), Just(Outcome::Drifted), Just(Outcome::Incomplete)].prop_map(reconciled),
        ),
        prop::option::weighted(0.3, prop::sample::select(TrialPhase::ALL.to_vec()).prop_map(on_trial)),
    );
    ((any_digest(), phase, any_participants()), (lag, prop::option::of(0u64..400), guard, error, trouble)).prop_map(
        |(
            (digest, phase, participants),
            (lag, delivered, guard, last_error, (rejected, store_error, balanced, reconciliation, revision)),
        )| {
            IntegrationReport {
                digest,
                rejected,
                phase,
                awaited: vec!["eu/customers/erp".into(); usize::from(participants.is_empty())],
                participants,
                lag,
                last_delivered: delivered.map(at),
                last_error,
                balanced,
                preview: None,
                guard,
                reconciliation,
                revision,
                store_error,
            }
        },
    )
}

/// When a runtime spoke last, and how long after that a status is judged.
fn any_times() -> impl Strategy<Value = (Option<u64>, u64)> {
    (prop::option::of(0u64..200), 0u64..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_connector_status_breaks_a_rule_and_time_moves_nothing_unannounced(
        verdict in any_verdict(Kind::Connector),
        history in prop::collection::vec((prop::option::of(any_connector_report()), any_times()), 1..4),
        later in 0u64..500,
    ) {
        let config = Config::default();
        let mut previous: Option<ConnectorStatus> = None;
        for (report, (spoke, wait)) in &history {
            let now = spoke.unwrap_or_default() + wait;
            let heard = Heard { report: report.as_ref(), at: spoke.map(at) };
            let judged = connector_status(&verdict, heard, previous.as_ref(), moment(now), &config);
            let breaches = judge(Kind::Connector, &judged.status.conditions, judged.status.observed_generation, verdict.generation);
            prop_assert!(breaches.is_empty(), "{breaches:?}");
            let then = at(now + later);
            if judged.next_check.is_none_or(|next| then < next) {
                let again = connector_status(&verdict, heard, Some(&judged.status), Moment { now: then, listening_since: START }, &config);
                prop_assert_eq!(&again.status, &judged.status);
            }
            previous = Some(judged.status);
        }
    }

    #[test]
    fn no_integration_status_breaks_a_rule_and_time_moves_nothing_unannounced(
        verdict in any_verdict(Kind::Integration),
        crm in (any_verdict(Kind::Connector), any_connector_report()),
        history in prop::collection::vec((prop::option::of(any_integration_report()), any_times()), 1..4),
        later in 0u64..500,
    ) {
        let config = Config::default();
        let heard = Heard { report: Some(&crm.1), at: Some(at(100)) };
        let broken = connector_status(&crm.0, heard, None, moment(101), &config).status;
        let connectors = BTreeMap::from([(ObjectRef::new("na", "salesforce"), broken)]);
        let mut previous: Option<IntegrationStatus> = None;
        for (report, (spoke, wait)) in &history {
            let now = spoke.unwrap_or_default() + wait;
            let heard = Heard { report: report.as_ref(), at: spoke.map(at) };
            let judged = integration_status(&verdict, heard, &connectors, previous.as_ref(), moment(now), &config);
            let breaches = judge(Kind::Integration, &judged.status.conditions, judged.status.observed_generation, verdict.generation);
            prop_assert!(breaches.is_empty(), "{breaches:?}");
            let then = at(now + later);
            if judged.next_check.is_none_or(|next| then < next) {
                let again = integration_status(&verdict, heard, &connectors, Some(&judged.status), Moment { now: then, listening_since: START }, &config);
                prop_assert_eq!(&again.status, &judged.status);
            }
            previous = Some(judged.status);
        }
    }

    #[test]
    fn no_contract_status_breaks_a_rule_and_time_moves_nothing_unannounced(
        verdict in any_verdict(Kind::ApiContract),
        serves in any::<bool>(),
        gateway in any::<bool>(),
        history in prop::collection::vec((prop::option::of((prop::sample::select(vec!["sha256:now", "sha256:before"]), any::<bool>(), any::<bool>())), any_times()), 1..4),
        later in 0u64..500,
    ) {
        let config = Config { gateway: gateway.then(|| "https://api.acme.example".to_owned()), ..Config::default() };
        let verdict = Verdict { route: serves.then(|| serving().route).flatten(), ..verdict };
        let mut previous: Option<ApiContractStatus> = None;
        for (report, (spoke, wait)) in &history {
            let now = spoke.unwrap_or_default() + wait;
            let report = report.map(|(digest, rejected, keyless)| RouteReport {
                rejected: rejected.then(|| RejectedRoute { digest: Digest("sha256:now".into()), conflict: None, message: "because".into() }),
                issuers: keyless.then(|| ("https://login".to_owned(), "no answer".to_owned())).into_iter().collect(),
                ..route_report(digest)
            });
            let heard = Heard { report: report.as_ref(), at: spoke.map(at) };
            let judged = contract_status(&verdict, heard, previous.as_ref(), moment(now), &config);
            let breaches = judge(Kind::ApiContract, &judged.status.conditions, judged.status.observed_generation, verdict.generation);
            prop_assert!(breaches.is_empty(), "{breaches:?}");
            let then = at(now + later);
            if judged.next_check.is_none_or(|next| then < next) {
                let again = contract_status(&verdict, heard, Some(&judged.status), Moment { now: then, listening_since: START }, &config);
                prop_assert_eq!(&again.status, &judged.status);
            }
            previous = Some(judged.status);
        }
    }
}
