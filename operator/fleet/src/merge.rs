//! One report out of those of several workers.
//!
//! What the store counts is the same in all of them. What only one can know (how a participant is read, why a lane rests) is told by whoever holds its
//! lease. Of what each meets on its own (probes, circuits, errors) the worst counts, and the newest of its kind.
//!
//! What should run runs when it runs everywhere: a worker that says nothing of it has not taken it over yet. One that has only just begun it knows
//! nothing of it either, and adds nothing to what the others say.

use fairlead_model::hash::Digest;
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
        let told = connector(&of, |report| Some(&report.digest) == wanted);
        let told = told.map(|report| ConnectorReport { digest: everywhere(report.digest, wanted, of.len(), workers.len()), ..report });
        merged.connectors.extend(told.map(|report| (key.clone(), report)));
    }
    let keys: BTreeSet<&ObjectKey> = workers.values().flat_map(|reports| reports.integrations.keys()).collect();
    for key in keys {
        let of: BTreeMap<&str, &IntegrationReport> =
            workers.iter().filter_map(|(worker, reports)| Some((worker.as_str(), reports.integrations.get(key)?))).collect();
        let wanted = units.integrations.get(key).map(|unit| &unit.digest);
        let current = |report: &IntegrationReport| Some(&report.digest) == wanted;
        let realm = units.integrations.get(key).map_or_else(|| key.0.clone(), |unit| unit.realm());
        let leases = realm::leases_of(&realm, key);
        let told = integration(&leases, &of, holders, current);
        let told = told.map(|report| IntegrationReport { digest: everywhere(report.digest, wanted, of.len(), workers.len()), ..report });
        merged.integrations.extend(told.map(|report| (key.clone(), report)));
    }
    // Somebody who has not let go of it yet could bring it back.
    let mut forgotten = workers.values().map(|reports| reports.forgotten.iter().collect::<BTreeSet<_>>());
    if let Some(first) = forgotten.next() {
        merged.forgotten = forgotten.fold(first, |all, next| &all & &next).into_iter().cloned().collect();
    }
    merged
}

/// The digest to tell: none, where the one that is wanted does not run in each of `all` workers, of which `told` say something of it.
fn everywhere(digest: Digest, wanted: Option<&Digest>, told: usize, all: usize) -> Digest {
    if wanted == Some(&digest) && told < all { Digest::default() } else { digest }
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
    let unlike = of.values().find(|report| !current(report)).or(of.values().next())?;
    let known: BTreeMap<&str, &IntegrationReport> =
        of.iter().filter(|(_, report)| !report.participants.is_empty()).map(|(worker, report)| (*worker, *report)).collect();
    let known = if known.is_empty() { of } else { &known };
    let told = known.values().find(|report| !current(report)).or(known.values().next())?;
    let all = || known.values();
    let names = told.participants.iter().map(|participant| participant.name.as_str());
    Some(IntegrationReport {
        digest: unlike.digest.clone(),
        rejected: of.values().find_map(|report| report.rejected.clone()),
        phase: all().map(|report| report.phase).max_by_key(|phase| phase_rank(*phase)).unwrap_or(told.phase),
        participants: names.filter_map(|name| participant(leases, name, known, holders)).collect(),
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
        // All read it where one writes it; who has read it last is right.
        revision: all().filter_map(|report| report.revision.clone()).max_by_key(|told| told.trial.as_ref().map(|trial| trial.since)),
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
    // Its reader's holder may be gone, or have said nothing of it yet: then whoever knows of the last reading.
    let last =
        || of.keys().copied().filter(|worker| said(worker).is_some()).max_by_key(|worker| said(worker).and_then(|told| told.last_read));
    let teller = reader.map(String::as_str).filter(|worker| said(worker).is_some()).or_else(trouble).or_else(last)?;
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
    use fairlead_model::report::RecordFailure;
    use fairlead_model::unit::{CircuitBreaker, ConnectorUnit, Limits};
    use fairlead_model::{ErrorClass, ObjectRef, RemoteError};
    use std::sync::Arc;
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

    fn connector_report() -> ConnectorReport {
        ConnectorReport {
            digest: Digest("d".into()),
            probe: None,
            circuit: Circuit::Closed,
            quota: Quota::Ample,
            spent: None,
            throttled_until: None,
            last_error: None,
        }
    }

    fn connector_unit(digest: &str) -> ConnectorUnit {
        ConnectorUnit {
            object: ObjectRef::new("sales", "customers"),
            generation: 1,
            digest: Digest(digest.into()),
            definition: "".into(),
            system: "things".into(),
            version: String::new(),
            endpoint: "http://127.0.0.1".into(),
            parameters: BTreeMap::new(),
            auth_method: "ApiKey".into(),
            secret: ObjectRef::new("sales", "key"),
            limits: Limits { requests_per_second: None, concurrency: 1, daily_requests: None, interactive_reserve_percent: 0 },
            circuit_breaker: CircuitBreaker { failures: 1, within: Duration::ZERO, open_for: Duration::ZERO },
            probe_every: Duration::from_secs(60),
            ca_pem: None,
        }
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
            (None, (Some(4), None), (Some(5), None), (Some(5), None)),
            // Its holder has died, or says nothing of this one yet.
            (Some("gone"), (Some(5), None), (None, None), (Some(5), None)),
            (Some("gone"), (None, None), (Some(5), None), (Some(5), None)),
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
    fn a_unit_that_a_worker_says_nothing_of_does_not_run_everywhere() {
        let unit = |digest: &str| {
            let mut units = Units::default();
            units.connectors.insert(key(), Arc::new(connector_unit(digest)));
            units
        };
        let connected = ConnectorReport { digest: Digest("new".into()), ..connector_report() };
        let runs = Reports { connectors: BTreeMap::from([(key(), connected)]), ..Reports::default() };
        let told = |workers: &[(&str, &Reports)], wanted: &str| {
            let workers = workers.iter().map(|(name, reports)| ((*name).to_owned(), (*reports).clone())).collect();
            merge(&workers, &BTreeMap::new(), &unit(wanted)).connectors[&key()].digest.0.clone()
        };
        let nothing = Reports::default();
        assert_eq!(told(&[("a", &runs), ("b", &runs)], "new"), "new");
        for workers in [[("a", &runs), ("b", &nothing)], [("a", &nothing), ("b", &runs)]] {
            assert_eq!(told(&workers, "new"), "", "one of them has not begun it");
            assert_eq!(told(&workers, "newer"), "new", "what runs is told where it is not what should");
        }
        let digest = |told, wanted: Option<&Digest>, count| everywhere(Digest("new".into()), wanted, told, count).0;
        assert_eq!(digest(1, None, 2), "new", "what should not run at all holds nothing back");
    }

    #[test]
    fn one_that_has_just_begun_changes_nothing_of_what_is_known_whatever_its_name() {
        let knows = report("d", vec![participant("crm", Some(5), None)]);
        let begun = IntegrationReport::begun(Digest("d".into()), Phase::Backfill);
        let alone = merged(&workers([("m", knows.clone())]), &BTreeMap::new());
        for name in ["a", "z"] {
            assert_eq!(merged(&workers([("m", knows.clone()), (name, begun.clone())]), &BTreeMap::new()), alone, "{name}");
        }
        let before = IntegrationReport::begun(Digest("before".into()), Phase::Backfill);
        let told = merged(&workers([("m", knows), ("a", before)]), &BTreeMap::new());
        assert_eq!(told.participants, alone.participants);
    }

    #[test]
    fn connectors_are_as_the_worst_worker_finds_them() {
        let report = |probe, circuit, quota| ConnectorReport { probe, circuit, quota, ..connector_report() };
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
