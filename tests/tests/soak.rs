//! The soak of orders in small, and its judge, shown to find each fault that it names. `make soak` does it in large.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use fairlead_tests::soak::judge::{Verdict, Write, judge};
use fairlead_tests::soak::{self, Judged, Plan, Report};
use rand::Rng as _;

const fn write(record: u32, order: u32, version: u16) -> Write {
    Write { record, order, version, at: 0 }
}

/// Three orders belong there, the second at its third version; the third one does not.
const WANTED: [Option<u16>; 4] = [Some(0), Some(2), None, Some(0)];
/// Everything as it should be, a version left out.
const RIGHT: [Write; 4] = [write(0, 1, 0), write(1, 0, 0), write(0, 1, 2), write(2, 3, 0)];

fn with(writes: &[Write]) -> Verdict {
    judge(&WANTED, &[&RIGHT[..], writes].concat())
}

/// Nothing but this fault, so often.
fn only(verdict: &Verdict, name: &str, count: u64) {
    let faults = verdict.faults();
    assert!(faults.len() == 1 && faults[0].starts_with(&format!("{name}: {count} (")), "{faults:?}");
}

#[test]
fn a_course_of_writes_without_a_fault_has_none() {
    let verdict = judge(&WANTED, &RIGHT);
    assert_eq!((verdict.faults(), verdict.repeated.count, verdict.writes, verdict.records), (Vec::new(), 0, 4, 3));
}

#[test]
fn what_is_lost_is_found_be_it_a_record_or_its_newest_version() {
    only(&judge(&WANTED, &RIGHT[..3]), "lost", 1);
    only(&judge(&WANTED, &[RIGHT[0], RIGHT[1], RIGHT[3]]), "lost", 1);
    only(&judge(&WANTED, &[]), "lost", 3);
}

#[test]
fn a_second_record_of_an_order_is_found() {
    only(&with(&[write(3, 1, 2)]), "doubled", 1);
    only(&with(&[write(3, 1, 2), write(4, 1, 2), write(5, 0, 0)]), "doubled", 3);
}

#[test]
fn an_older_version_after_a_newer_one_is_found_even_when_the_newest_comes_after_it() {
    only(&with(&[write(0, 1, 1), write(0, 1, 2)]), "inverted", 1);
    let faults = with(&[write(0, 1, 1)]).faults();
    assert!(faults.len() == 2 && faults[0].starts_with("lost: 1") && faults[1].starts_with("inverted: 1"), "{faults:?}");
}

#[test]
fn what_does_not_belong_there_is_found() {
    only(&with(&[write(3, 2, 0)]), "invented", 1);
    only(&with(&[write(3, 9, 0)]), "invented", 1);
    only(&with(&[write(1, 3, 0), write(1, 0, 0)]), "invented", 2);
}

fn report(targets: Vec<Judged>, store: Vec<String>) -> Report {
    let plan = Plan { records: 4, kills: 1, seed: 1 };
    Report { plan, changes: 2, kills: [].into(), took: std::time::Duration::ZERO, targets, books: String::new(), store }
}

#[test]
fn writes_that_change_nothing_are_a_fault_where_they_are_more_than_declared() {
    let verdict = with(&[write(0, 1, 2), write(1, 0, 0)]);
    assert_eq!((verdict.faults(), verdict.repeated.count), (Vec::new(), 2));
    let judged = |may_repeat| Judged { target: "a target", verdict: verdict.clone(), may_repeat, wrong: None, mixed: Vec::new() };
    assert_eq!(report(vec![judged(2)], Vec::new()).faults(), Vec::<String>::new());
    let faults = report(vec![judged(1)], Vec::new()).faults();
    assert!(faults.len() == 1 && faults[0].contains("repeated, where 1 are allowed: 2"), "{faults:?}");
}

#[test]
fn what_the_store_says_and_a_wrong_write_fail_the_soak() {
    let judged =
        Judged { target: "a target", verdict: judge(&WANTED, &RIGHT), may_repeat: 0, wrong: Some("it".into()), mixed: vec!["one".into()] };
    let faults = report(vec![judged], vec!["the ledger does not add up".into()]).faults();
    let told = ["the ledger does not add up", "a target: a write that is not what the feed shows: it"];
    assert_eq!(faults, [&told[..], &["a target: 1 records are a mixture of versions: one"]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_survive_the_deaths_of_processes_targets_and_connections() -> anyhow::Result<()> {
    let plan = Plan { records: 3_000, kills: 8, seed: rand::rng().random_range(1..1_000_000) };
    println!("seed {}", plan.seed);
    let folder = tempfile::tempdir()?;
    let report = soak::run(plan, folder.path(), &|line| println!("{line}")).await?;
    assert_eq!(report.faults(), Vec::<String>::new(), "seed {}: {report:#?}", plan.seed);
    assert!(report.changes > 0 && report.targets.iter().all(|judged| judged.verdict.records > 0), "{report:#?}");
    Ok(())
}
