//! One report out of those of several workers.
//!
//! What the store counts is the same in all of them. What only one can know (how a participant is read, why a lane rests) is told by whoever holds its
//! lease. Of what each meets on its own (probes, circuits, errors) the worst counts, and the newest of its kind.

use fairlead_model::report::{
    Circuit, ConnectorReport, Failure, IntegrationReport, Lag, ParticipantReport, ParticipantState, Phase, Quota, Reports,
};
use fairlead_model::unit::{ObjectKey, Units};
use fairlead_model::{Timestamp, realm};
use std::collections::{BTreeMap, BTreeSet};

/// The report of all `workers` (by their names) of what should run; `holders` tells which worker holds which lease. Whoever reports is taken to be
/// alive; its moment is the newest of theirs.
#[must_use]
pub fn merge(workers: &BTreeMap<String, Reports>, holders: &BTreeMap<String, String>, units: &Units) -> Reports {
    let mut merged = Reports { at: workers.values().map(|reports| reports.at).max().unwrap_or_default(), ..Reports::default() };
    let keys: BTreeSet<&ObjectKey> = workers.values().flat_map(|reports| reports.connectors.keys()).collect();
    for key in keys {
        let of: Vec<&ConnectorReport> = workers.values().filter_map(|reports| reports.connectors.get(key)).collect();
        let wanted = units.connectors.get(key).map(|unit| &unit.digest);
        merged.connectors.extend(connector(&of, |report| Some(&report.digest) == wanted).map(|report| (key.clone(), report)));
    }
    let keys: BTreeSet<&ObjectKey> = workers.values().flat_map(|reports| reports.integrations.keys()).collect();
    for key in keys {
        let of: BTreeMap<&str, &IntegrationReport> =
            workers.iter().filter_map(|(worker, reports)| Some((worker.as_str(), reports.integrations.get(key)?))).collect();
        let wanted = units.integrations.get(key).map(|unit| &unit.digest);
        let current = |report: &IntegrationReport| Some(&report.digest) == wanted;
        let realm = units.integrations.get(key).map_or_else(|| key.0.clone(), |unit| unit.realm());
        let leases = realm::leases_of(&realm, key);
        merged.integrations.extend(integration(&leases, &of, holders, current).map(|report| (key.clone(), report)));
    }
    // Somebody who has not let go of it yet could bring it back.
    let mut forgotten = workers.values().map(|reports| reports.forgotten.iter().collect::<BTreeSet<_>>());
    if let Some(first) = forgotten.next() {
        merged.forgotten = forgotten.fold(first, |all, next| &all & &next).into_iter().cloned().collect();
    }
    merged
}

fn connector(of: &[&ConnectorReport], current: impl Fn(&ConnectorReport) -> bool) -> Option<ConnectorReport> {
    // One that runs another unit than it should is what is waited for.
    let told = of.iter().find(|report| !current(report)).or(of.first())?;
    Some(ConnectorReport {
        digest: told.digest.clone(),
        probe: of.iter().filter_map(|report| report.probe.clone()).reduce(worse_probe),
        circuit: of.iter().map(|report| report.circuit).max_by_key(|circuit| circuit_rank(*circuit)).unwrap_or_default(),
        quota: of.iter().map(|report| report.quota).max_by_key(|quota| quota_rank(*quota)).unwrap_or_default(),
        spent: of.iter().filter_map(|report| report.spent).max_by_key(|spent| spent.until),
        throttled_until: of.iter().filter_map(|report| report.throttled_until).max(),
        last_error: of.iter().filter_map(|report| report.last_error.clone()).max_by_key(|failure| failure.at),
    })
}

fn worse_probe(one: Result<Timestamp, Failure>, other: Result<Timestamp, Failure>) -> Result<Timestamp, Failure> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(one.max(other)),
        (Err(one), Err(other)) => Err(if one.at >= other.at { one } else { other }),
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
    }
}

const fn circuit_rank(circuit: Circuit) -> u8 {
    match circuit {
        Circuit::Closed => 0,
        Circuit::HalfOpen => 1,
        Circuit::Open => 2,
    }
}

const fn quota_rank(quota: Quota) -> u8 {
    match quota {
        Quota::Ample => 0,
        Quota::Low => 1,
        Quota::Exhausted => 2,
    }
}

/// What is furthest from running counts; what a person has to do before all.
const fn phase_rank(phase: Phase) -> u8 {
    match phase {
        Phase::Live => 0,
        Phase::Previewed => 1,
        Phase::Backfill => 2,
        Phase::Paused => 3,
        Phase::Guarded => 4,
    }
}

fn integration(
    leases: &str,
    of: &BTreeMap<&str, &IntegrationReport>,
    holders: &BTreeMap<String, String>,
    current: impl Fn(&IntegrationReport) -> bool,
) -> Option<IntegrationReport> {
    let told = of.values().find(|report| !current(report)).or(of.values().next())?;
    let all = || of.values();
    let names = told.participants.iter().map(|participant| participant.name.as_str());
    Some(IntegrationReport {
        digest: told.digest.clone(),
        rejected: all().find_map(|report| report.rejected.clone()),
        phase: all().map(|report| report.phase).max_by_key(|phase| phase_rank(*phase)).unwrap_or(told.phase),
        participants: names.filter_map(|name| participant(leases, name, of, holders)).collect(),
        awaited: all().map(|report| report.awaited.clone()).max_by_key(Vec::len).unwrap_or_default(),
        lag: all()
            .filter_map(|report| report.lag)
            .reduce(|one, other| Lag { age: one.age.max(other.age), pending: one.pending.max(other.pending) }),
        last_delivered: all().filter_map(|report| report.last_delivered).max(),
        last_error: all().filter_map(|report| report.last_error.clone()).max_by_key(|failure| failure.at),
        balanced: all().all(|report| report.balanced),
        preview: all().find_map(|report| report.preview),
        guard: all().find_map(|report| report.guard.clone()),
        reconciliation: all().filter_map(|report| report.reconciliation.clone()).max_by_key(|last| last.at),
        store_error: all().find_map(|report| report.store_error.clone()),
    })
}

fn participant(
    leases: &str,
    name: &str,
    of: &BTreeMap<&str, &IntegrationReport>,
    holders: &BTreeMap<String, String>,
) -> Option<ParticipantReport> {
    let said = |worker: &str| of.get(worker)?.participants.iter().find(|participant| participant.name == name);
    let reader = holders.get(&format!("reader/{leases}{name}"));
    let lane = format!("lane/{leases}{name}/");
    let writers = holders.range(lane.clone()..).take_while(|(lease, _)| lease.starts_with(&lane)).map(|(_, holder)| holder);
    // Where nobody reads, whoever knows why tells it.
    let trouble = || of.keys().copied().find(|worker| said(worker).is_some_and(|participant| participant.paused_by.is_some()));
    let teller =
        reader.map(String::as_str).filter(|worker| said(worker).is_some()).or_else(trouble).or_else(|| of.keys().next().copied())?;
    let mut told = said(teller)?.clone();
    told.dead_letters = of.keys().filter_map(|worker| said(worker)).map(|participant| participant.dead_letters).max().unwrap_or_default();
    told.conflicts = of.keys().filter_map(|worker| said(worker)).map(|participant| participant.conflicts).max().unwrap_or_default();
    told.pending = of.keys().filter_map(|worker| said(worker)).map(|participant| participant.pending).max().unwrap_or_default();
    if told.paused_by.is_none() {
        let rests = writers.filter_map(|worker| said(worker)).find_map(|participant| participant.paused_by.clone());
        if rests.is_some() {
            told.paused_by = rests;
            if told.state != ParticipantState::WriteOnly {
                told.state = ParticipantState::Paused;
            }
        }
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::hash::Digest;
    use fairlead_model::report::RecordFailure;
    use fairlead_model::{ErrorClass, RemoteError};
    use std::time::Duration;

    fn key() -> ObjectKey {
        ObjectKey("sales/customers".into())
    }

    fn error(reason: &str) -> RemoteError {
        RemoteError::new(ErrorClass::Auth, reason, "as the test says")
    }

    fn participant(name: &str, last_read: Option<i64>, paused: Option<&str>) -> ParticipantReport {
        ParticipantReport {
            name: name.into(),
            state: if paused.is_some() { ParticipantState::Paused } else { ParticipantState::Live },
            dead_letters: 1,
            pending: 2,
            conflicts: 3,
            last_read: last_read.map(Timestamp),
            paused_by: paused.map(error),
        }
    }

    fn report(digest: &str, participants: Vec<ParticipantReport>) -> IntegrationReport {
        IntegrationReport { participants, ..IntegrationReport::begun(Digest(digest.into()), Phase::Live) }
    }

    fn workers<const N: usize>(of: [(&str, IntegrationReport); N]) -> BTreeMap<String, Reports> {
        let reports =
            |at: i64, report| Reports { at: Timestamp(at), integrations: BTreeMap::from([(key(), report)]), ..Reports::default() };
        of.into_iter().zip(1..).map(|((worker, report), at)| (worker.to_owned(), reports(at, report))).collect()
    }

    fn holders<const N: usize>(of: [(&str, &str); N]) -> BTreeMap<String, String> {
        of.into_iter().map(|(lease, worker)| (lease.replace('@', "sales/customers"), worker.to_owned())).collect()
    }

    fn merged(workers: &BTreeMap<String, Reports>, holders: &BTreeMap<String, String>) -> IntegrationReport {
        merge(workers, holders, &Units::default()).integrations.remove(&key()).unwrap()
    }

    #[test]
    fn whoever_holds_the_reader_tells_how_it_is_read() {
        // Who reads; what each of two says of the participant; what is told of it.
        let table = [
            (Some("a"), (Some(5), None), (None, None), (Some(5), None)),
            (Some("b"), (None, None), (Some(6), None), (Some(6), None)),
            // What the other one once met is its own affair.
            (Some("b"), (None, Some("Old")), (Some(6), None), (Some(6), None)),
            (Some("a"), (None, Some("Refused")), (None, None), (None, Some("Refused"))),
            // Nobody reads: there is a reason for that.
            (None, (None, None), (None, Some("Refused")), (None, Some("Refused"))),
            (None, (None, None), (None, None), (None, None)),
            // Its holder has died, or says nothing of this one yet.
            (Some("gone"), (Some(5), None), (None, None), (Some(5), None)),
        ];
        for (number, (reader, a, b, told)) in table.into_iter().enumerate() {
            let of = |(last_read, paused)| report("d", vec![participant("crm", last_read, paused)]);
            let held = reader.map_or_else(BTreeMap::new, |reader| holders([("reader/@/crm", reader)]));
            let found = merged(&workers([("a", of(a)), ("b", of(b))]), &held).participants.remove(0);
            let words = (found.last_read.map(|at| at.0), found.paused_by.as_ref().map(|error| error.reason.as_str()));
            assert_eq!(words, told, "row {number}");
            assert_eq!((found.dead_letters, found.pending, found.conflicts), (1, 2, 3), "what the store counts is counted once");
        }
    }

    #[test]
    fn a_lane_that_rests_is_told_by_one_that_holds_a_part_of_it() {
        let of = |paused| report("d", vec![participant("erp", Some(1), paused)]);
        let workers = workers([("a", of(None)), ("b", of(Some("Refused"))), ("c", of(Some("Elsewhere")))]);
        let held = holders([("lane/@/erp/0", "a"), ("lane/@/erp/1", "b"), ("lane/@/erp2/0", "c"), ("reader/@/erp", "a")]);
        let found = merged(&workers, &held).participants.remove(0);
        assert_eq!((found.state, found.paused_by.unwrap().reason.as_str()), (ParticipantState::Paused, "Refused"));
    }

    #[test]
    fn leases_on_golden_records_name_the_contract_and_the_integration() {
        let leases = realm::leases_of("contract:contracts/customer", &key());
        let of = [report("d", vec![participant("crm", Some(1), None)]), report("d", vec![participant("crm", Some(2), None)])];
        let held = BTreeMap::from([
            ("reader/contract:contracts/customer/north/customers/crm".to_owned(), "a".to_owned()),
            ("reader/contract:contracts/customer/sales/customers/crm".to_owned(), "b".to_owned()),
        ]);
        let found = integration(&leases, &["a", "b"].into_iter().zip(&of).collect(), &held, |_| true).unwrap();
        assert_eq!(found.participants[0].last_read, Some(Timestamp(2)));
    }

    #[test]
    fn the_worst_and_the_newest_count() {
        let failure = |at, reason| RecordFailure {
            at: Timestamp(at),
            participant: "crm".into(),
            external_id: None,
            record: None,
            error: error(reason),
        };
        let lag = |age, pending| Some(Lag { age: Duration::from_secs(age), pending });
        let one = IntegrationReport {
            last_error: Some(failure(1, "First")),
            lag: lag(5, 3),
            last_delivered: Some(Timestamp(9)),
            ..report("d", Vec::new())
        };
        let other = IntegrationReport {
            phase: Phase::Backfill,
            last_error: Some(failure(2, "Second")),
            lag: lag(1, 4),
            balanced: false,
            store_error: Some("full".into()),
            ..report("d", Vec::new())
        };
        let reports = workers([("a", one), ("b", other)]);
        let found = merged(&reports, &BTreeMap::new());
        assert_eq!((found.phase, found.balanced, found.store_error.as_deref()), (Phase::Backfill, false, Some("full")));
        assert_eq!((found.lag, found.last_delivered), (lag(5, 4), Some(Timestamp(9))));
        assert_eq!(found.last_error.unwrap().error.reason, "Second");
        assert_eq!(merge(&reports, &BTreeMap::new(), &Units::default()).at, Timestamp(2));
    }

    #[test]
    fn a_unit_runs_when_it_runs_everywhere() {
        let wanted = "new";
        for (a, b, told) in [("new", "new", "new"), ("old", "new", "old"), ("new", "old", "old")] {
            let reports = workers([("a", report(a, Vec::new())), ("b", report(b, Vec::new()))]);
            let of = reports.values().zip(["a", "b"]).map(|(reports, name)| (name, &reports.integrations[&key()])).collect();
            let found =
                integration(&realm::leases_of(&key().0, &key()), &of, &BTreeMap::new(), |report| report.digest.0 == wanted).unwrap();
            assert_eq!(found.digest.0, told);
        }
    }

    #[test]
    fn connectors_are_as_the_worst_worker_finds_them() {
        let report = |probe, circuit, quota| ConnectorReport {
            digest: Digest("d".into()),
            probe,
            circuit,
            quota,
            spent: None,
            throttled_until: None,
            last_error: None,
        };
        let failed = |at| Err(Failure { at: Timestamp(at), error: error("Unreachable") });
        let one = report(Some(Ok(Timestamp(7))), Circuit::Closed, Quota::Low);
        let other = report(Some(failed(3)), Circuit::Open, Quota::Ample);
        let third = report(None, Circuit::HalfOpen, Quota::Ample);
        let found = connector(&[&one, &other, &third], |_| true).unwrap();
        assert_eq!((found.probe, found.circuit, found.quota), (Some(failed(3)), Circuit::Open, Quota::Low));
        let found = connector(&[&one, &third], |_| true).unwrap();
        assert_eq!(found.probe, Some(Ok(Timestamp(7))), "one that was not probed yet says nothing of it");
    }

    #[test]
    fn what_is_removed_is_forgotten_when_every_worker_has_let_go_of_it() {
        let of = |keys: &[&str]| Reports { forgotten: keys.iter().map(|key| ObjectKey((*key).into())).collect(), ..Reports::default() };
        let workers = BTreeMap::from([("a".to_owned(), of(&["r/1", "r/2"])), ("b".to_owned(), of(&["r/2"]))]);
        assert_eq!(merge(&workers, &BTreeMap::new(), &Units::default()).forgotten, [ObjectKey("r/2".into())]);
        assert!(merge(&BTreeMap::new(), &BTreeMap::new(), &Units::default()).forgotten.is_empty());
    }
}
