//! The soak of orders in small, and its judge, shown to find each fault that it names; and one of three targets that is away. `make soak` does both in
//! large.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use fairlead_tests::orders::{Feed, PAGE};
use fairlead_tests::soak::judge::{Verdict, Write, judge};
use fairlead_tests::soak::target::{Kind, Target};
use fairlead_tests::soak::{self, Judged, Plan, Report};
use fairlead_tests::{Seen, wait_until};
use rand::Rng as _;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

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
    Report { plan, changes: 2, kills: [].into(), took: Duration::ZERO, targets, books: String::new(), store }
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

// ---- one of three targets is away --------------------------------------------------------------------------------------------------------

/// Far below what a debug build on a busy machine carries.
const CHANGES_PER_SECOND: u32 = 40;
/// No order changes twice while a target is away, so each change is a write of its own.
const ORDERS: usize = 4_000;
/// So long it is away for a rate to say anything.
const A_MINUTE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);

/// Changes one order after the other for so long; how many writes each target took meanwhile, in a thousand changes.
async fn changes_for(time: Duration, feed: &Feed, next: &mut usize, targets: [&Target; 2]) -> [usize; 2] {
    let before = targets.map(Target::writes);
    let (end, begun) = (Instant::now() + time, *next);
    let mut tick = interval(Duration::from_secs(1) / CHANGES_PER_SECOND);
    // A busy machine makes up for nothing: what is offered is what counts.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while tick.tick().await < end {
        feed.change(*next % ORDERS);
        *next += 1;
    }
    let offered = *next - begun;
    [0, 1].map(|place| (targets[place].writes() - before[place]) * 1000 / offered)
}

async fn all_arrived(what: &str, feed: &Feed, targets: &[&Target]) -> anyhow::Result<()> {
    wait_until(what, PATIENCE, async || {
        let missing: Vec<u64> = targets.iter().map(|target| judge(&target.wanted(feed), &target.told()).lost.count).collect();
        Ok(Seen::when(missing.iter().all(|count| *count == 0), format_args!("not there: {missing:?}")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_targets_that_is_away_takes_nothing_from_the_others_and_catches_up() -> anyhow::Result<()> {
    let time = std::env::var("FAIRLEAD_OUTAGE_SECONDS").map_or(Ok(8), |text| text.parse()).map(Duration::from_secs)?;
    let feed = Feed::of(ORDERS);
    let [one, two, away] = [Target::start(Kind::Upserts).await?, Target::start(Kind::Upserts).await?, Target::start(Kind::Upserts).await?];
    let folder = tempfile::tempdir()?;
    soak::manifests(folder.path(), &soak::serve(feed.clone()).await?, &[("warehouse", &one), ("billing", &two), ("archive", &away)])?;
    let state = folder.path().join("state");
    let fairlead = soak::start(folder.path(), "fairlead", |command| {
        command.arg("--state").arg(&state);
    })?;
    all_arrived("the first load", &feed, &[&one, &two, &away]).await?;
    fairlead.ready(PATIENCE).await?;

    let mut next = 0;
    let before = changes_for(time, &feed, &mut next, [&one, &two]).await;
    all_arrived("the changes before", &feed, &[&one, &two, &away]).await?;
    let untouched = away.writes();
    let during = away
        .relay
        .away_during(async {
            let during = changes_for(time, &feed, &mut next, [&one, &two]).await;
            all_arrived("everything for the others", &feed, &[&one, &two]).await?;
            anyhow::Ok(during)
        })
        .await?;
    assert_eq!(away.writes(), untouched, "it was not away");
    println!("writes for a thousand changes, within {time:?}: {before:?}, and {during:?} while the third target is away");
    if time >= A_MINUTE {
        assert!(before.iter().all(|count| *count >= 900), "the load is above saturation");
        assert!(before.iter().zip(during).all(|(before, during)| during * 100 >= before * 95), "the others lost more than a twentieth");
    }

    all_arrived("its backlog", &feed, &[&away]).await?;
    fairlead.ready(PATIENCE).await?;
    let integration = fairlead.integration().await?;
    assert_eq!(integration["ledger"]["balanced"], true, "{integration}");
    fairlead.stop().await?;
    for (target, may_repeat) in [(&one, 0), (&two, 0), (&away, PAGE)] {
        let verdict = judge(&target.wanted(&feed), &target.told());
        assert_eq!((verdict.faults(), target.wrong()), (Vec::new(), None));
        // Written again by its key, and that changes nothing: the batch that was under way when it went.
        assert!(verdict.repeated.count <= may_repeat as u64, "repeated: {}", verdict.repeated);
    }
    let letters: i64 =
        rusqlite::Connection::open(state.join("fairlead.sqlite"))?.query_row("SELECT count(*) FROM dead_letter", [], |row| row.get(0))?;
    assert_eq!(letters, 0, "of its backlog, something became a dead letter");
    Ok(())
}
