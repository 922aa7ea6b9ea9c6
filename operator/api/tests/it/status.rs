//! A status is written when it says something new, and only then.

use chrono::{DateTime, TimeDelta};
use fairlead_api::conditions::{ConditionType, Wanted, replace_conditions, time};
use fairlead_api::status::{Meaning, coarse_time};
use fairlead_api::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn at(seconds: i64) -> Time {
    time(DateTime::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + seconds))
}

fn status() -> IntegrationStatus {
    let ready = Wanted::new(ConditionType::Ready, true, Reason::Succeeded, "in step");
    IntegrationStatus {
        observed_generation: Some(2),
        conditions: replace_conditions(&[], [ready], 2, DateTime::UNIX_EPOCH),
        lag: Some(LagStatus { bucket: LagBucket::Under1m, pending: false }),
        last_sync_time: Some(at(0)),
        participants: vec![
            ParticipantStatus { name: "crm".into(), state: ParticipantState::Live, circuit: None, dead_letters: None, conflicts: None },
            ParticipantStatus {
                name: "erp".into(),
                state: ParticipantState::Live,
                circuit: Some(CircuitState::Closed),
                dead_letters: Some(5),
                conflicts: Some(2),
            },
        ],
        dead_letters: Some(5),
        last_error: Some(LastError {
            at: at(0),
            participant: Some("erp".into()),
            external_id: None,
            record: None,
            class: ErrorClass::Data,
            reason: "ValidationFailed".into(),
            message: "name: too long".into(),
        }),
        ledger: Some(LedgerStatus { balanced: true }),
        preview: None,
        guard: None,
        reconciliation: None,
        revision: None,
    }
}

fn changed(change: impl FnOnce(&mut IntegrationStatus)) -> bool {
    let before = status();
    let mut after = before.clone();
    change(&mut after);
    !before.says_the_same(&after)
}

#[test]
fn noise_is_not_written() {
    assert!(!changed(|_| {}));
    assert!(!changed(|s| s.participants.reverse()));
    assert!(!changed(|s| s.conditions[0].last_transition_time = at(900)));
    assert!(!changed(|s| s.dead_letters = Some(6)));
    assert!(!changed(|s| s.participants[1].dead_letters = Some(7)));
    assert!(!changed(|s| s.last_error.as_mut().unwrap().at = at(900)));
    assert!(!changed(|s| s.last_sync_time = Some(at(599))));
}

#[test]
fn a_status_cut_to_its_bounds_is_one_that_the_api_server_takes() {
    let long = "ü".repeat(10_000);
    let mut status = status();
    status.participants = (0..20).map(|i| ParticipantStatus { name: format!("p{i}"), ..status.participants[0].clone() }).collect();
    status.guard = Some(GuardStatus { token: long.clone(), participant: Some(long.clone()), deletes: 1, changes: 1, live: 1 });
    let error = status.last_error.as_mut().unwrap();
    error.participant = Some(long.clone());
    error.external_id = Some(long.clone());
    error.record = Some(long.clone());
    error.message = long.clone();
    let connector = ConnectorStatus {
        conditions: replace_conditions(
            &[],
            [Wanted::new(ConditionType::Ready, false, Reason::RemoteError, long.clone())],
            1,
            DateTime::UNIX_EPOCH,
        ),
        last_error: status.last_error.clone(),
        system: Some(SystemInfo { name: long.clone(), version: Some(long.clone()), end_of_life: Some(long) }),
        ..ConnectorStatus::default()
    };
    let contract =
        ApiContractStatus { used_by: (0..2_000).map(|i| format!("europe/customers-{i}")).collect(), ..ApiContractStatus::default() };
    let faults = |kind, status: serde_json::Value| schema::check_status(kind, &status);
    assert!(!faults(Kind::Integration, serde_json::to_value(&status).unwrap()).is_empty());
    assert_eq!(faults(Kind::Integration, serde_json::to_value(status.bounded()).unwrap()), []);
    assert_eq!(faults(Kind::Connector, serde_json::to_value(connector.bounded()).unwrap()), []);
    assert_eq!(faults(Kind::ApiContract, serde_json::to_value(contract.bounded()).unwrap()), []);
}

#[test]
fn news_is_written() {
    assert!(changed(|s| s.conditions[0].message = "other words".into()));
    assert!(changed(|s| s.observed_generation = Some(3)));
    assert!(changed(|s| s.lag = Some(LagStatus { bucket: LagBucket::Under10m, pending: true })));
    assert!(changed(|s| s.dead_letters = Some(0)));
    assert!(changed(|s| s.participants[0].circuit = Some(CircuitState::Open)));
    assert!(changed(|s| s.last_error.as_mut().unwrap().message = "other".into()));
    assert!(changed(|s| s.last_sync_time = Some(at(600))));
    assert!(changed(|s| s.ledger = Some(LedgerStatus { balanced: false })));
    assert!(changed(|s| s.preview = Some(PreviewStatus::default())));
}

#[test]
fn the_last_sync_time_moves_in_steps_of_ten_minutes() {
    assert_eq!(coarse_time(None, Some(&at(0))), Some(at(0)));
    assert_eq!(coarse_time(Some(&at(0)), Some(&at(599))), Some(at(0)));
    assert_eq!(coarse_time(Some(&at(0)), Some(&at(600))), Some(at(600)));
    assert_eq!(coarse_time(Some(&at(0)), None), Some(at(0)));
}

#[test]
fn lag_falls_into_its_bucket() {
    let bucket = |seconds| LagBucket::of(Some(std::time::Duration::from_secs(seconds)));
    assert_eq!(bucket(9), LagBucket::Under10s);
    assert_eq!(bucket(10), LagBucket::Under1m);
    assert_eq!(bucket(60), LagBucket::Under10m);
    assert_eq!(bucket(600), LagBucket::Under1h);
    assert_eq!(bucket(3600), LagBucket::Over1h);
    assert_eq!(LagBucket::of(None), LagBucket::Unknown);
}
