//! The rules of writing, told as stories of two systems (see [`crate::decide::sample`]).

use super::*;
use crate::decide::sample::{ID, World, document, unit};
use fairlead_model::unit::OnDelete;
use fairlead_systems::WriteOperation;
use serde_json::json;
use uuid::Uuid;

fn settled(step: Step) -> Outcome {
    match step {
        Step::Settle(outcome) => outcome,
        Step::Write(planned) => panic!("not to be written: {:?}", planned.item),
    }
}

fn written(step: Step) -> Planned {
    match step {
        Step::Write(planned) => *planned,
        Step::Settle(outcome) => panic!("not to be settled: {outcome:?}"),
    }
}

fn filtered(step: Step) -> String {
    match settled(step) {
        Outcome::Filtered { reason } => reason,
        outcome => panic!("not filtered: {outcome:?}"),
    }
}

/// A record that both systems hold.
fn in_both() -> World {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.write("erp");
    world
}

#[test]
fn a_creation_sends_every_value_there_is_and_the_correlation_field() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": null}));
    let planned = written(world.step("erp"));
    assert_eq!(planned.item.operation, WriteOperation::Create);
    assert_eq!(planned.item.key, Some(("ExternalId".parse().unwrap(), ID.to_string())));
    assert_eq!(planned.item.body, document(json!({"Name": "Acme"})));
}

#[test]
fn an_update_sends_only_what_differs_and_empties_what_is_gone() {
    let mut world = in_both();
    assert!(matches!(settled(world.step("erp")), Outcome::Unchanged { .. }));
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Corp"})));
    world.read("crm", json!({"Name": null, "Credit": "5"}));
    assert_eq!(world.write("erp"), Some(json!({"Name": null})));
    assert_eq!(world.write("erp"), None);
}

#[test]
fn a_value_that_the_answer_shows_rendered_is_not_sent_again() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    world.write_answered("erp", Some(json!({"Name": "ACME"})));
    assert_eq!(world.write("erp"), None);
    assert!(world.read("erp", json!({"Name": "ACME"})).lanes().is_empty());
    assert_eq!(world.canonical(), json!({"name": "Acme"}));
}

#[test]
fn a_changed_row_is_compared_natively_without_reading() {
    let mut world = in_both();
    world.read("erp", json!({"Name": "Acme", "Credit": "5"}));
    let mut edited = unit();
    let row =
        json!({"canonical": "name", "native": "Name", "toCanonical": ".record.Name", "fromCanonical": "upcase(string!(.record.name))"});
    edited.participants[1].rows[0] = serde_json::from_value(row).unwrap();
    world.program = Program::compile(edited).unwrap();
    assert_eq!(world.write("erp"), Some(json!({"Name": "ACME"})));
    assert_eq!(world.write("erp"), None);
}

#[test]
fn what_does_not_belong_there_is_filtered_with_its_reason() {
    let mut conditional = unit();
    conditional.participants[1].write.as_mut().unwrap().when = Some(r#".record.note == "yes""#.into());
    let mut world = World::of(conditional);
    world.read("crm", json!({"Name": "Acme", "Note": "no"}));
    assert_eq!(filtered(world.step("erp")), "When");
    world.read("erp", json!({"Name": "Acme", "Note": "no"}));
    assert_eq!(filtered(world.step("erp")), "Left");

    let mut matching = unit();
    matching.initial_load = InitialLoad::MatchOnly;
    let mut world = World::of(matching);
    world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(filtered(world.step("erp")), "MatchOnly");

    let mut world = in_both();
    world.read_deleted("erp");
    assert_eq!(filtered(world.step("erp")), "DeletedThere");
}

#[test]
fn a_deletion_becomes_what_the_target_says() {
    for (on_delete, operation) in
        [(OnDelete::Archive, Some(WriteOperation::Archive)), (OnDelete::Delete, Some(WriteOperation::Delete)), (OnDelete::Keep, None)]
    {
        let mut unit = unit();
        unit.participants[1].write.as_mut().unwrap().on_delete = on_delete;
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Acme"}));
        world.write("erp");
        world.read_deleted("crm");
        match operation {
            None => assert_eq!(filtered(world.step("erp")), "Keep"),
            Some(operation) => {
                assert_eq!(written(world.step("erp")).item.operation, operation);
                world.write("erp");
                assert!(matches!(settled(world.step("erp")), Outcome::Unchanged { learnt: None }), "once is enough");
            }
        }
    }
}

#[test]
fn what_was_never_created_there_needs_no_deletion() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    world.read_deleted("crm");
    assert_eq!(filtered(world.step("erp")), "NeverCreated");
}

#[test]
fn a_record_waits_for_the_one_that_it_refers_to() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    let parent = RecordId(Uuid::from_u128(8));
    world.known().record.document.insert("parentId".into(), json!(parent.to_string()));
    assert_eq!(references(world.participant("erp"), &world.claimed().known.record.document), [parent]);
    assert!(matches!(settled(world.step("erp")), Outcome::WaitFor { record } if record == parent));
}

#[test]
fn nobody_waits_for_a_record_that_never_comes() {
    let reason = |world: &World, known: Option<&Known>| {
        never_there(&world.program, world.participant("erp"), ID, known).map_or("may come".to_owned(), |error| error.reason)
    };
    let mut conditional = unit();
    conditional.participants[1].write.as_mut().unwrap().when = Some(r#".record.note == "yes""#.into());
    let mut matching = unit();
    matching.initial_load = InitialLoad::MatchOnly;
    for (unit, expected) in [(unit(), "may come"), (conditional, "ReferenceUnresolved"), (matching, "ReferenceUnresolved")] {
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Parent"}));
        assert_eq!(reason(&world, world.known.as_ref()), expected);
        assert_eq!(reason(&world, None), "ReferenceUnresolved");
        world.read_deleted("crm");
        assert_eq!(reason(&world, world.known.as_ref()), "ReferenceUnresolved");
    }
}

#[test]
fn each_class_of_failure_has_its_outcome() {
    let mut world = in_both();
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let planned = written(world.step("erp"));
    let (wait, visible) = (Duration::from_secs(4), Duration::from_secs(1));
    let outcome = |class: ErrorClass, attempts: u32, closed: bool, told: Option<u64>| {
        let error = RemoteError::new(class, "Reason", "message").retry_after(told.map(Duration::from_secs));
        let claimed = Claimed { attempts, ..world.claimed() };
        let failed = failed(&world.program, world.participant("erp"), &claimed, &planned, &error, wait, visible, closed, Timestamp(0));
        let word = match failed.outcome {
            Outcome::Retry { at, attempt, unknown } => format!("retry at {} attempt={attempt} unknown={unknown}", at.0 / 1000),
            Outcome::DeadLetter(letter) => format!("dead letter {} after {}", letter.class, letter.attempts),
            outcome => panic!("{outcome:?}"),
        };
        if failed.reread.is_some() { format!("{word}, read again") } else { word }
    };
    use ErrorClass as Class;
    let cases = [
        (Class::Transient, 0, true, None, "retry at 4 attempt=true unknown=false"),
        (Class::Transient, 2, true, None, "dead letter Transient after 3"),
        (Class::Transient, 2, false, None, "retry at 4 attempt=false unknown=false"),
        (Class::Throttled, 9, true, Some(30), "retry at 30 attempt=false unknown=false"),
        (Class::Auth, 9, true, None, "retry at 4 attempt=false unknown=false"),
        (Class::Permission, 9, true, None, "retry at 4 attempt=false unknown=false"),
        (Class::Configuration, 9, true, None, "retry at 4 attempt=false unknown=false"),
        (Class::Data, 0, true, None, "dead letter Data after 1"),
        (Class::Conflict, 0, true, None, "retry at 4 attempt=true unknown=false, read again"),
        (Class::Conflict, 2, true, None, "dead letter Conflict after 3"),
        (Class::NotFound, 0, true, None, "retry at 4 attempt=true unknown=false, read again"),
        (Class::UnknownOutcome, 0, true, None, "retry at 4 attempt=true unknown=true"),
        (Class::UnknownOutcome, 2, false, None, "retry at 4 attempt=false unknown=true"),
        (Class::UnknownOutcome, 2, true, None, "dead letter UnknownOutcome after 3"),
    ];
    for (class, attempts, closed, told, expected) in cases {
        assert_eq!(
            outcome(class, attempts, closed, told),
            expected,
            "{class} on attempt {} with the circuit closed: {closed}",
            attempts + 1
        );
    }
}

#[test]
fn deleting_what_is_not_there_is_done() {
    let mut unit = unit();
    unit.participants[1].write.as_mut().unwrap().on_delete = OnDelete::Delete;
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme"}));
    world.write("erp");
    world.read_deleted("crm");
    let planned = written(world.step("erp"));
    let error = RemoteError::new(ErrorClass::NotFound, "NotFound", "message");
    let wait = Duration::from_secs(1);
    let failed = failed(&world.program, world.participant("erp"), &world.claimed(), &planned, &error, wait, wait, true, Timestamp(0));
    assert!(matches!(failed.outcome, Outcome::Delivered { state, .. } if state.deleted));
}

#[test]
fn looking_up_tells_what_became_of_a_write() {
    let mut world = in_both();
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let planned = written(world.step("erp"));
    let sent = Sent::read(&Sent::of(&planned).write());
    let target = world.participant("erp");
    let state = world.claimed().known.identity("erp").unwrap().state.clone();
    let shown = |name: &str| target.table.to_canonical(&document(json!({"Name": name, "Credit": "5"}))).unwrap().fields;
    assert_eq!(looked_up(&state, &shown("Acme Corp"), &sent), LookedUp::TookEffect);
    assert_eq!(looked_up(&state, &shown("Acme"), &sent), LookedUp::NoEffect);
    assert_eq!(looked_up(&state, &shown("Somebody else's"), &sent), LookedUp::Edited);
    let mut after = state.clone();
    sent.took_effect(&mut after);
    assert!(crate::decide::inbound::in_step(target, &world.claimed().known.record.document, &after));
}

#[test]
fn what_cannot_be_read_back_is_written_again_rather_than_taken_for_done() {
    let mut unit = unit();
    let rows = json!([{"canonical": "credit", "native": "Credit"}, {"native": "Label", "fromCanonical": ".record.name"}]);
    unit.participants[1].rows = serde_json::from_value(rows).unwrap();
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.write("erp");
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let sent = Sent::of(&written(world.step("erp")));
    let state = world.claimed().known.identity("erp").unwrap().state.clone();
    let shown = world.participant("erp").table.to_canonical(&document(json!({"Credit": "5", "Label": "Acme"}))).unwrap().fields;
    assert_eq!(looked_up(&state, &shown, &sent), LookedUp::NoEffect);
}

#[test]
fn a_removal_whose_outcome_is_unknown_is_sent_again() {
    let mut world = in_both();
    world.read_deleted("crm");
    let sent = Sent::of(&written(world.step("erp")));
    assert_eq!(looked_up(&world.claimed().known.identity("erp").unwrap().state, &[], &sent), LookedUp::NoEffect);
}
