//! Conditions follow one another as the API conventions ask, and the invariants catch what tools would misread.

use chrono::{DateTime, TimeDelta, Utc};
use fairlead_api::conditions::*;
use fairlead_api::{Kind, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + seconds)
}

fn ready(status: bool) -> Wanted {
    Wanted::new(ConditionType::Ready, status, if status { Reason::Succeeded } else { Reason::InvalidSpec }, "words")
}

/// A healthy Integration.
fn settled() -> Vec<Wanted> {
    vec![
        Wanted::new(ConditionType::Accepted, true, Reason::Accepted, "valid"),
        Wanted::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, "all there"),
        Wanted::new(ConditionType::Programmed, true, Reason::Programmed, "generation 2 runs"),
        Wanted::new(ConditionType::Healthy, true, Reason::Succeeded, "data moves"),
        ready(true),
    ]
}

fn with(changes: impl IntoIterator<Item = Wanted>) -> Vec<Condition> {
    let mut wanted = settled();
    for change in changes {
        wanted.retain(|each| each.kind != change.kind);
        wanted.push(change);
    }
    replace_conditions(&[], wanted, 2, at(0))
}

fn breaches(conditions: &[Condition]) -> Vec<String> {
    judge(Kind::Integration, conditions, Some(2), 2)
}

#[test]
fn a_transition_time_moves_only_when_the_status_flips() {
    let mut conditions = Vec::new();
    set_condition(&mut conditions, ready(false), 1, at(0));
    set_condition(&mut conditions, Wanted { message: "other words".into(), ..ready(false) }, 2, at(60));
    assert_eq!(conditions.len(), 1);
    assert_eq!(conditions[0].last_transition_time, time(at(0)));
    assert_eq!(conditions[0].message, "other words");
    assert_eq!(conditions[0].observed_generation, Some(2));
    set_condition(&mut conditions, ready(true), 2, at(90));
    assert_eq!(conditions[0].last_transition_time, time(at(90)));
}

#[test]
fn a_new_list_keeps_the_times_of_the_old_one_and_drops_what_no_longer_holds() {
    let busy = [
        Wanted::new(ConditionType::Reconciling, true, Reason::Backfilling, "reading"),
        Wanted::new(ConditionType::Ready, false, Reason::Backfilling, "reading"),
    ];
    let before = with(busy);
    let mut wanted = settled();
    wanted.push(Wanted::new(ConditionType::Reconciling, false, Reason::Succeeded, ""));
    wanted.reverse();
    let after = replace_conditions(&before, wanted, 2, at(60));
    let words: Vec<&str> = after.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(words, ["Accepted", "ResolvedRefs", "Programmed", "Healthy", "Ready"]);
    assert_eq!(find(&after, ConditionType::Healthy).unwrap().last_transition_time, time(at(0)));
    assert_eq!(find(&after, ConditionType::Ready).unwrap().last_transition_time, time(at(60)));
}

#[test]
fn a_settled_a_stalled_and_a_busy_integration_break_no_invariant() {
    assert_eq!(breaches(&with([])), [""; 0]);
    let stalled = [
        ready(false),
        Wanted::new(ConditionType::Accepted, false, Reason::MappingInvalid, "row 3"),
        Wanted::new(ConditionType::Stalled, true, Reason::MappingInvalid, "row 3"),
    ];
    assert_eq!(breaches(&with(stalled)), [""; 0]);
    let first = [
        Wanted::new(ConditionType::Ready, Truth::Unknown, Reason::Progressing, "looking"),
        Wanted::new(ConditionType::Reconciling, true, Reason::Progressing, "looking"),
    ];
    assert_eq!(breaches(&with(first)), [""; 0]);
    let paused = [
        Wanted::new(ConditionType::Ready, true, Reason::Paused, "told to stand still"),
        Wanted::new(ConditionType::Paused, true, Reason::Paused, "told to stand still"),
    ];
    assert_eq!(breaches(&with(paused)), [""; 0]);
}

#[test]
fn every_invariant_is_broken_by_a_status_made_to_break_it() {
    let on = |kind| Wanted::new(kind, true, Reason::Progressing, "words");
    let cases: Vec<(Vec<Condition>, &str)> = vec![
        (with([on(ConditionType::Reconciling)]), "Ready is True while Reconciling is True"),
        (with([on(ConditionType::Stalled)]), "Ready is True while Stalled is True"),
        (with([on(ConditionType::Degraded)]), "Ready is True while Degraded is True"),
        (with([ready(false), on(ConditionType::Reconciling), on(ConditionType::Stalled)]), "Reconciling and Stalled are both True"),
        (
            with([Wanted::new(ConditionType::Healthy, Truth::Unknown, Reason::WorkerNotReporting, "silence")]),
            "Ready is True while Healthy is Unknown",
        ),
        (with([Wanted::new(ConditionType::Ready, Truth::Unknown, Reason::Progressing, "looking")]), "Ready is Unknown without Reconciling"),
        (with([ready(false)]), "Ready is False, and neither Reconciling, Stalled nor Degraded says whether waiting helps"),
        (with([on(ConditionType::Reachable)]), "Reachable is no condition of Integration"),
        (with([]).into_iter().skip(1).collect(), "Accepted is missing; it must always be present"),
        (with([]).into_iter().chain(with([]).into_iter().take(1)).collect(), "Accepted is listed twice"),
        (
            with([]).into_iter().map(|c| Condition { reason: "Whatever".into(), ..c }).collect(),
            "Accepted gives Whatever as its reason, which is not documented",
        ),
        (
            with([]).into_iter().map(|c| Condition { observed_generation: Some(3), ..c }).collect(),
            "Accepted speaks of generation 3, but the object is at 2",
        ),
        (
            with([]).into_iter().map(|c| Condition { observed_generation: Some(1), ..c }).collect(),
            "Ready is True while Accepted speaks of an older generation",
        ),
        (
            with([ready(false), on(ConditionType::Stalled)])
                .into_iter()
                .map(|c| if c.type_ == "Stalled" { Condition { status: "False".into(), ..c } } else { c })
                .collect(),
            "Stalled is False but may be present only while True",
        ),
        (with([on(ConditionType::Stalled), Wanted { message: String::new(), ..ready(false) }]), "Ready is False without a message"),
    ];
    for (conditions, wanted) in cases {
        let found = breaches(&conditions);
        assert!(found.iter().any(|breach| breach == wanted), "wanted: {wanted}\nfound: {found:#?}");
    }
    let stale = judge(Kind::Integration, &with([]), Some(1), 2);
    assert_eq!(stale, ["Ready is True while the status speaks of an older generation"]);
    let mute = judge(Kind::Integration, &with([]), None, 2);
    assert_eq!(mute, ["the status does not say which generation it speaks of"]);
}
