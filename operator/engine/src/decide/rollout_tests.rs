use super::*;
use fairlead_model::unit::CanaryUnit;
use fairlead_model::{Random, SystemRandom};
use serde_json::json;

const START: Timestamp = Timestamp(1_800_000_000_000);

fn rollout(shadow: u64, percent: u32, lasts: u64) -> RolloutUnit {
    let canary = (percent > 0).then_some(CanaryUnit { percent, lasts: Duration::from_secs(lasts) });
    RolloutUnit { shadow: Duration::from_secs(shadow), canary }
}

fn candidate(mapping: &str, shape: &str) -> Candidate {
    Candidate { mapping: Digest::of(&json!(mapping)), shape: Digest::of(&json!(shape)) }
}

fn begun(rollout: &RolloutUnit) -> Trial {
    on_trial(Some(rollout), Some(&candidate("a", "s")), None, &candidate("b", "s"), START).unwrap()
}

fn rate(records: u64, failing: u64) -> Rate {
    Rate { records, failing }
}

fn found(tried: Rate, active: Rate, last: bool) -> Option<Findings> {
    Some(Findings { tried, active, last, ..Findings::default() })
}

#[test]
fn one_bad_record_stops_nothing_and_three_more_than_expected_do() {
    assert!(!rate(50, 0).is_worse_than(rate(950, 0)));
    assert!(!rate(50, 1).is_worse_than(rate(950, 0)));
    assert!(!rate(50, 2).is_worse_than(rate(950, 0)));
    assert!(rate(50, 3).is_worse_than(rate(950, 0)));
    // What fails among the others fails in the share as well.
    assert!(!rate(1000, 100).is_worse_than(rate(10_000, 1000)));
    assert!(!rate(1000, 125).is_worse_than(rate(10_000, 1000)), "five more than a hundred say nothing, and twenty-five neither");
    assert!(rate(1000, 131).is_worse_than(rate(10_000, 1000)), "thirty-one more than a hundred are no chance");
    assert!(!rate(1000, 0).is_worse_than(rate(10_000, 1000)), "it may well be better");
}

#[test]
fn a_small_share_of_which_most_fails_is_enough() {
    assert!(rate(1, 1).is_worse_than(rate(20, 0)));
    assert!(rate(3, 2).is_worse_than(rate(20, 0)));
    assert!(!rate(4, 2).is_worse_than(rate(20, 0)));
    assert!(!rate(2, 2).is_worse_than(rate(20, 20)), "where everything fails, it is not the revision");
    assert!(!rate(0, 0).is_worse_than(rate(0, 0)));
    assert!(rate(u64::MAX, u64::MAX).is_worse_than(rate(u64::MAX, 1)), "no overflow");
}

#[test]
fn what_can_be_tried_on_a_share_is_tried_and_everything_else_takes_over_at_once() {
    let (all, active) = (rollout(600, 5, 600), candidate("a", "s"));
    let trial = |rollout: Option<&RolloutUnit>, active: Option<&Candidate>, candidate: &Candidate| {
        on_trial(rollout, active, None, candidate, START).map(|trial| trial.phase)
    };
    assert_eq!(trial(Some(&all), Some(&active), &candidate("b", "s")), Some(TrialPhase::Shadow));
    assert_eq!(trial(Some(&rollout(0, 5, 600)), Some(&active), &candidate("b", "s")), Some(TrialPhase::Canary));
    assert_eq!(trial(None, Some(&active), &candidate("b", "s")), None, "nothing is said");
    assert_eq!(trial(Some(&all), None, &candidate("b", "s")), None, "the first");
    assert_eq!(trial(Some(&all), Some(&active), &candidate("a", "s")), None, "the same mapping");
    assert_eq!(trial(Some(&all), Some(&active), &candidate("b", "t")), None, "another participant, say");
}

#[test]
fn a_trial_goes_on_where_it_was_and_another_revision_begins_its_own() {
    let all = rollout(600, 5, 600);
    let stopped = Trial { stopped: Some("why".into()), ..begun(&all).at(TrialPhase::Stopped, START) };
    let later = START.plus(Duration::from_secs(60));
    let next = |mapping: &str| on_trial(Some(&all), Some(&candidate("a", "s")), Some(&stopped), &candidate(mapping, "s"), later);
    assert_eq!(next("b").as_ref(), Some(&stopped), "it stays stopped, whoever restarts");
    let other = next("c").unwrap();
    assert_eq!((other.phase, other.since, other.stopped), (TrialPhase::Shadow, later, None));
    assert_eq!(next("a"), None, "rolled back");
}

#[test]
fn the_phases_follow_each_other_when_their_time_is_over_and_was_looked_at() {
    let all = rollout(60, 5, 60);
    let mut trial = begun(&all);
    assert_eq!(trial.next(&all), Step::Stay, "nobody has looked");
    trial.found = found(rate(100, 0), rate(100, 0), false);
    assert_eq!(trial.next(&all), Step::Stay);
    trial.count(START.plus(Duration::from_secs(30)));
    assert!(!trial.is_due(&all));
    trial.count(START.plus(Duration::from_secs(60)));
    assert!(trial.is_due(&all));
    assert_eq!(trial.next(&all), Step::Stay, "the last look is missing");
    trial.found = found(rate(100, 0), rate(100, 0), true);
    assert_eq!(trial.next(&all), Step::Canary);
    assert_eq!(trial.next(&rollout(60, 0, 0)), Step::TakeOver, "without a canary");

    let mut trial = trial.at(TrialPhase::Canary, START);
    assert!(trial.found.is_none() && trial.ran == 0);
    trial.count(START.plus(Duration::from_secs(60)));
    trial.found = found(rate(20, 0), rate(380, 0), true);
    trial.found.as_mut().unwrap().waiting = 3;
    assert_eq!(trial.next(&all), Step::Stay, "what waits proves nothing");
    trial.found.as_mut().unwrap().waiting = 2;
    assert_eq!(trial.next(&all), Step::TakeOver);
}

#[test]
fn the_time_in_which_nobody_worked_does_not_count() {
    let all = rollout(300, 5, 300);
    let mut trial = begun(&all);
    trial.count(START.plus(Duration::from_secs(3600)));
    assert_eq!(Duration::from_millis(trial.ran), BETWEEN);
    trial.count(START);
    assert_eq!(Duration::from_millis(trial.ran), BETWEEN, "a clock that was set back takes nothing away");
}

#[test]
fn it_is_stopped_before_its_time_and_says_why() {
    let all = rollout(600, 5, 600);
    let mut trial = begun(&all);
    trial.found = found(rate(100, 3), rate(100, 0), false);
    trial.found.as_mut().unwrap().example = Some("crm: row 2".into());
    let Step::Stop(why) = trial.next(&all) else { panic!("it goes on") };
    assert_eq!(why, "3 of 100 records fail under it that do not fail under the revision in force; one of them: crm: row 2");
    trial.phase = TrialPhase::Canary;
    let Step::Stop(why) = trial.next(&all) else { panic!("it goes on") };
    let letters = "3 of the 100 records of its share fail (3 as dead letters, 0 again and again), and 0 of the 100 others; one of them: ";
    assert!(why.starts_with(letters), "{why}");
    trial.found = Some(Findings { erring: 5, ..found(rate(100, 6), rate(100, 0), false).unwrap() });
    let Step::Stop(why) = trial.next(&all) else { panic!("it goes on") };
    assert!(why.starts_with("6 of the 100 records of its share fail (1 as dead letters, 5 again and again), and"), "{why}");
    // So many err where every third request fails by chance; the letters speak for themselves.
    for (erring, letters, stops) in [(4, 0, false), (4, 2, false), (4, 3, true)] {
        trial.found = Some(Findings { erring, ..found(rate(100, erring + letters), rate(100, 0), false).unwrap() });
        assert_eq!(matches!(trial.next(&all), Step::Stop(_)), stops, "{erring} err and {letters} are letters");
    }
    trial.found = Some(Findings { refused: Some("no such field".into()), ..Findings::default() });
    assert_eq!(trial.next(&all), Step::Stop("no such field".into()));
    trial.phase = TrialPhase::Stopped;
    assert_eq!(trial.next(&all), Step::Stay);
}

#[test]
fn a_write_that_fails_three_times_in_a_row_fails_and_only_in_the_lanes_of_the_integration() {
    let place = |target: &str, attempts| LaneEntry { target: target.into(), in_flight: false, attempts };
    let errs = |places: &[LaneEntry]| erring(places, &["crm", "erp"]).map(|place| place.target.clone());
    assert_eq!(errs(&[]), None);
    assert_eq!(errs(&[place("erp", ERRORS - 1)]), None, "one answer with 5xx is ordinary, and so are two");
    assert_eq!(errs(&[place("erp", ERRORS)]).as_deref(), Some("erp"));
    assert_eq!(errs(&[place("crm", ERRORS), place("erp", ERRORS + 1)]).as_deref(), Some("erp"), "the worse one");
    assert_eq!(errs(&[place("eu/b/shop", 9), place("erp", 1)]), None, "of the same records, and another Integration's");
}

#[test]
fn what_was_noted_before_errors_were_counted_is_read() {
    let mut noted = json!(Findings { waiting: 7, erring: 2, ..Findings::default() });
    noted.as_object_mut().unwrap().remove("erring").unwrap();
    let found: Findings = serde_json::from_value(noted).unwrap();
    assert_eq!(found, Findings { waiting: 7, ..Findings::default() });
}

#[test]
fn a_share_is_about_as_large_as_it_says_and_a_larger_one_holds_a_smaller_one() {
    let random: &dyn Random = &SystemRandom;
    let ids: Vec<RecordId> = (0..2000).map(|_| RecordId::new(START, random)).collect();
    let share = |percent: u32| ids.iter().filter(|id| is_in_share(**id, percent)).count();
    assert_eq!((share(0), share(100)), (0, 2000));
    assert!((120..280).contains(&share(10)), "{}", share(10));
    assert!(ids.iter().all(|id| !is_in_share(*id, 5) || is_in_share(*id, 20)));
}
