//! The rules of writing, told as stories of two systems (see [`crate::decide::sample`]).

use super::*;
use crate::decide::sample::{ID, World, document, erp, golden, unit};
use fairlead_contract::Contract;
use fairlead_model::schema::NativeSchema;
use fairlead_model::unit::{LookupTable, OnDelete, OnForeignEdit, OnLeave, RowUnit, Tie, ValuePair};
use fairlead_systems::WriteOperation;
use serde_json::json;
use std::sync::Arc;
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
fn what_was_deleted_and_may_have_been_entered_again_is_not_removed_elsewhere_until_that_is_read() {
    let mut world = in_both();
    world.read_deleted("crm");
    assert!(!may_live_again(&world.claimed(), Timestamp(0)));
    world.learn("crm", ExternalId("c2".into()), ParticipantState { settled: 3, ..ParticipantState::default() });
    let claimed = Claimed { since: Timestamp(0), ..world.claimed() };
    assert!(may_live_again(&claimed, Timestamp(1000)));
    assert!(!may_live_again(&claimed, Timestamp(0).plus(WAITS_FOR)), "it may never be readable");
    let merged = Claimed { known: Known { merged_into: Some(ID), ..claimed.known.clone() }, ..claimed };
    assert!(!may_live_again(&merged, Timestamp(1000)), "what was merged away never lives again");
}

#[test]
fn an_update_sends_only_what_differs_and_empties_what_is_gone() {
    let mut world = in_both();
    assert!(matches!(settled(world.step("erp")), Outcome::Unchanged));
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
    erp(&mut edited).rows[0] = serde_json::from_value(row).unwrap();
    world.program = Program::compile(edited.into()).unwrap();
    assert_eq!(world.write("erp"), Some(json!({"Name": "ACME"})));
    assert_eq!(world.write("erp"), None);
}

#[test]
fn an_edited_lookup_table_is_an_edit_of_the_rows_that_name_it() {
    let with = |native: &str| {
        let mut unit = unit();
        let table = LookupTable::new(vec![ValuePair { canonical: "Acme".into(), native: native.into() }]);
        let row = json!({"canonical": "name", "native": "Name", "lookup": {"name": "names", "digest": table.digest}});
        erp(&mut unit).rows[0] = serde_json::from_value(row).unwrap();
        unit.lookups.insert("names".into(), table.into());
        Program::compile(unit.into()).unwrap()
    };
    let mut world = World::new();
    world.program = with("ACME");
    world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(world.write("erp"), Some(json!({"Name": "ACME"})));
    assert_eq!(world.write("erp"), None);
    let edited = with("Acme Inc");
    let digests = |program: &Program, name: &str| program.participant(name).map(|each| (each.read_digest, each.write_digest)).unwrap();
    assert_eq!(digests(&edited, "crm"), digests(&world.program, "crm"), "the other participant's rows are as they were");
    let (before, after) = (digests(&world.program, "erp"), digests(&edited, "erp"));
    assert!(before.0 != after.0 && before.1 != after.1, "what was read by the table is read again, what was written is compared");
    world.program = edited;
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Inc"})));
    assert_eq!(world.write("erp"), None);
}

#[test]
fn an_edited_row_inside_a_list_is_an_edit_of_the_list() {
    let with = |inside: Value| {
        let mut unit = unit();
        let mut schema = Value::clone(&unit.contract.schema);
        let contact = json!({"type": "object", "additionalProperties": false, "properties": {"email": {"type": "string"}}});
        schema["properties"]["contacts"] = json!({"type": "array", "items": contact});
        unit.contract.fields = Contract::compile(&schema).unwrap().fields().clone();
        unit.contract.schema = schema.into();
        for (participant, inside) in unit.participants.iter_mut().zip([json!({}), inside]) {
            let participant = Arc::make_mut(participant);
            let fields = json!({"Contacts[]": {"type": "List"}, "Contacts[].Email": {"type": "String"}});
            Arc::make_mut(&mut participant.native).extend(serde_json::from_value::<NativeSchema>(fields).unwrap());
            let mut row = json!({"canonical": "contacts[].email", "native": "Contacts[].Email"});
            row.as_object_mut().unwrap().extend(document(inside));
            let list = json!([{"canonical": "contacts[]", "native": "Contacts[]"}, row]);
            participant.rows.extend(serde_json::from_value::<Vec<RowUnit>>(list).unwrap());
        }
        Program::compile(unit.into()).unwrap()
    };
    let mut world = World::new();
    world.program = with(json!({}));
    world.read("crm", json!({"Name": "Acme", "Contacts": [{"Email": "a@b"}]}));
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme", "Contacts": [{"Email": "a@b"}]})));
    assert_eq!(world.write("erp"), None);
    world.program = with(json!({"toCanonical": ".item.Email", "fromCanonical": "upcase(string!(.item.email))"}));
    assert_eq!(world.write("erp"), Some(json!({"Contacts": [{"Email": "A@B"}]})));
    assert_eq!(world.write("erp"), None);
}

#[test]
fn what_does_not_belong_there_is_filtered_with_its_reason() {
    let mut conditional = unit();
    erp(&mut conditional).write.as_mut().unwrap().when = Some(r#".record.note == "yes""#.into());
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
fn what_only_those_hold_that_make_nothing_is_made_nowhere() {
    let brought = |load: InitialLoad| {
        let mut unit = golden();
        unit.master.as_mut().unwrap().siblings.iter_mut().for_each(|sibling| sibling.load = load);
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Acme"}));
        world.known().identities.clear();
        world.learn("eu/customers/crm", ExternalId("e1".into()), ParticipantState::default());
        world
    };
    assert!(matches!(brought(InitialLoad::MatchOrCreate).step("erp"), Step::Write(_)));
    for (load, reason) in [(InitialLoad::Preview, "Preview"), (InitialLoad::MatchOnly, "MatchOnly")] {
        let mut world = brought(load);
        assert_eq!(filtered(world.step("erp")), reason);
        let never = never_there(&world.program, world.participant("erp"), ID, world.known.as_ref());
        assert_eq!(never.is_some(), load == InitialLoad::MatchOnly, "a preview ends");
        world.learn("crm", ExternalId("c1".into()), ParticipantState::default());
        assert!(matches!(world.step("erp"), Step::Write(_)), "it is one's own as well");
        world.known().identities.retain(|identity| identity.participant != "crm");
        world.learn("asia/customers/crm", ExternalId("a1".into()), ParticipantState::default());
        assert!(matches!(world.step("erp"), Step::Write(_)), "or somebody's who has left");
        world.known().identities.retain(|identity| !identity.participant.starts_with("asia"));
        world.learn("erp", ExternalId("7".into()), ParticipantState::default());
        assert!(matches!(world.step("erp"), Step::Write(_)), "and what is there is kept in step");
    }
}

#[test]
fn a_deletion_becomes_what_the_target_says() {
    for (on_delete, operation) in
        [(OnDelete::Archive, Some(WriteOperation::Archive)), (OnDelete::Delete, Some(WriteOperation::Delete)), (OnDelete::Keep, None)]
    {
        let mut unit = unit();
        erp(&mut unit).write.as_mut().unwrap().on_delete = on_delete;
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Acme"}));
        world.write("erp");
        world.read_deleted("crm");
        match operation {
            None => assert_eq!(filtered(world.step("erp")), "Keep"),
            Some(operation) => {
                assert_eq!(written(world.step("erp")).item.operation, operation);
                world.write("erp");
                assert!(matches!(settled(world.step("erp")), Outcome::Unchanged), "once is enough");
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
    let claimed = world.claimed();
    assert!(references(world.participant("erp"), &claimed.known.record.document).eq([(parent, OnCycle::DeadLetter)]));
    assert!(matches!(settled(world.step("erp")), Outcome::WaitFor { record } if record == parent));
}

#[test]
fn what_is_only_read_has_nothing_to_wait_for() {
    let mut read_only = unit();
    let native = json!({"Name": {"type": "String"}, "Parent": {"type": "Reference", "writable": false}, "ExternalId": {"type": "String"}});
    let erp = erp(&mut read_only);
    erp.native = Arc::new(serde_json::from_value(native).unwrap());
    erp.rows.retain(|row| row.native.as_ref().is_some_and(|path| ["Name", "Parent"].contains(&path.text().as_str())));
    let mut world = World::of(read_only);
    world.read("crm", json!({"Name": "Acme"}));
    world.known().record.document.insert("parentId".into(), json!(RecordId(Uuid::from_u128(8)).to_string()));
    let claimed = world.claimed();
    assert_eq!(references(world.participant("erp"), &claimed.known.record.document).count(), 0);
    written(world.step("erp"));
}

#[test]
fn nobody_waits_for_another_record_for_longer_than_a_day() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    let key = |waited: bool, since: i64| Claimed { waited, since: Timestamp(since), ..world.claimed() };
    let (day, now) = (i64::try_from(WAITS_FOR.as_millis()).unwrap(), Timestamp(1_000_000_000));
    for (story, key, expected) in [
        ("its time is up", key(true, now.0 - day), true),
        ("it waits since a while, but not for another record", key(false, now.0 - 2 * day), false),
        ("it began to wait before this was counted", key(true, now.0 - day + 1), false),
    ] {
        assert_eq!(overdue(&key, now), expected, "{story}");
    }
    let error = not_there_in_time(world.participant("erp"), ID);
    assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Data, "ReferenceUnresolved"));
    assert!(error.message.contains("24 hours") && error.message.contains("not in erp yet"), "{}", error.message);
}

#[test]
fn nobody_waits_in_vain_for_what_is_on_its_way_itself() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Parent"}));
    let in_vain = |world: &World| waits_in_vain(world.participant("erp"), world.known.as_ref());
    assert!(!in_vain(&world), "it stands in the lane, whatever holds it up there");
    world.in_flight("erp");
    assert!(!in_vain(&world));
    world.known().lanes.clear();
    assert!(in_vain(&world), "it became a letter");
    world.write("erp");
    assert!(!in_vain(&world), "it has just come");
    assert!(waits_in_vain(world.participant("erp"), None));
}

#[test]
fn nobody_waits_for_a_record_that_never_comes() {
    let reason = |world: &World, known: Option<&Known>| {
        never_there(&world.program, world.participant("erp"), ID, known).map_or("may come".to_owned(), |error| error.reason)
    };
    let mut conditional = unit();
    erp(&mut conditional).write.as_mut().unwrap().when = Some(r#".record.note == "yes""#.into());
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
        let trouble = Trouble { error: &error, wait, circuit_closed: closed, alone: false, now: Timestamp(0) };
        let failed = failed(&world.program, world.participant("erp"), &claimed, &planned, &trouble, visible);
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
fn what_was_never_sent_is_no_attempt() {
    let mut world = in_both();
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let planned = written(world.step("erp"));
    let claimed = Claimed { attempts: 9, ..world.claimed() };
    for reason in [reason::BUSY, reason::CIRCUIT_OPEN] {
        let error = RemoteError::new(ErrorClass::Transient, reason, "message");
        let trouble = Trouble { error: &error, wait: Duration::from_secs(4), circuit_closed: true, alone: false, now: Timestamp(0) };
        let failed = failed(&world.program, world.participant("erp"), &claimed, &planned, &trouble, Duration::ZERO);
        assert!(matches!(failed.outcome, Outcome::Retry { attempt: false, unknown: false, .. }), "{reason}: {:?}", failed.outcome);
        assert!(matches!(
            look_up_failed(&world.program, world.participant("erp"), &claimed, &trouble),
            Outcome::Retry { attempt: false, .. }
        ));
    }
}

#[test]
fn what_is_refused_while_others_go_through_is_the_keys_own_trouble() {
    let mut world = in_both();
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let planned = written(world.step("erp"));
    for class in [ErrorClass::Permission, ErrorClass::Configuration] {
        let error = RemoteError::new(class, "Reason", "message");
        let outcome = |attempts: u32, alone: bool| {
            let trouble = Trouble { error: &error, wait: Duration::from_secs(4), circuit_closed: true, alone, now: Timestamp(0) };
            let claimed = Claimed { attempts, ..world.claimed() };
            failed(&world.program, world.participant("erp"), &claimed, &planned, &trouble, Duration::ZERO).outcome
        };
        assert!(matches!(outcome(9, false), Outcome::Retry { attempt: false, .. }), "{class}: of all");
        assert!(matches!(outcome(0, true), Outcome::Retry { attempt: true, .. }), "{class}: its own");
        assert!(matches!(outcome(2, true), Outcome::DeadLetter(_)), "{class}: its own, once too often");
    }
}

#[test]
fn what_was_archived_for_a_deletion_is_made_active_when_the_record_comes_back() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    world.write("erp");
    world.read_deleted("crm");
    assert_eq!(written(world.step("erp")).item.operation, WriteOperation::Archive);
    world.write("erp");
    assert!(matches!(settled(world.step("erp")), Outcome::Unchanged), "once is enough");
    // Nothing differs, and still there is something to do.
    assert_eq!(world.read("crm", json!({"Name": "Acme"})).lanes(), ["erp:crm"]);
    let planned = written(world.step("erp"));
    assert_eq!((planned.item.operation, planned.item.body.is_empty()), (WriteOperation::Reactivate, true));
    world.write("erp");
    assert!(matches!(settled(world.step("erp")), Outcome::Unchanged));
    assert!(world.read("crm", json!({"Name": "Acme Inc"})).lanes() == ["erp:crm"]);
    assert_eq!(written(world.step("erp")).item.operation, WriteOperation::Update);
}

#[test]
fn what_cannot_be_made_active_again_is_a_letter_once_and_goes_on_when_that_is_replayed() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    world.write("erp");
    world.read_deleted("crm");
    world.write("erp");
    world.read("crm", json!({"Name": "Acme Inc"}));
    let ((external_id, state), outcome) = stays_archived(world.participant("erp"), &world.claimed()).unwrap();
    assert!(matches!(outcome, Outcome::DeadLetter(letter) if letter.message.contains("active by hand in erp")));
    world.known().identities.retain(|identity| identity.participant != "erp");
    world.known().identities.push(Identity { participant: "erp".into(), external_id, state });
    let planned = written(world.step("erp"));
    assert_eq!((planned.item.operation, planned.item.body), (WriteOperation::Update, document(json!({"Name": "Acme Inc"}))));
}

#[test]
fn a_write_of_another_process_is_under_way_for_as_long_as_a_request_may_take() {
    let intent = Intent { at: Timestamp(1_000), version: 1, sent: Value::Null };
    assert_eq!(under_way_until(&intent, Duration::from_secs(60), Duration::from_secs(2)), Timestamp(63_000));
}

#[test]
fn deleting_what_is_not_there_is_done() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_delete = OnDelete::Delete;
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme"}));
    world.write("erp");
    world.read_deleted("crm");
    let planned = written(world.step("erp"));
    let error = RemoteError::new(ErrorClass::NotFound, "NotFound", "message");
    let wait = Duration::from_secs(1);
    let trouble = Trouble { error: &error, wait, circuit_closed: true, alone: false, now: Timestamp(0) };
    let failed = failed(&world.program, world.participant("erp"), &world.claimed(), &planned, &trouble, wait);
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
fn a_creation_is_found_by_what_was_sent_where_no_field_names_it() {
    let keyed = |key: bool| {
        let mut unit = unit();
        if let Some(write) = erp(&mut unit).write.as_mut().filter(|_| !key) {
            write.key = None;
        }
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
        let planned = written(world.step("erp"));
        Sent::read(&Sent::of(&planned).findable(&world.program, world.participant("erp"), &planned).write())
    };
    assert_eq!(keyed(false).sought(), [vec![("Name".parse::<FieldPath>().unwrap(), json!("Acme"))]]);
    assert!(keyed(true).sought().is_empty());
    assert!(!keyed(false).is_empty() && !keyed(true).is_empty());
}

#[test]
fn what_may_be_a_rendering_of_the_write_before_does_not_stay_in_place_of_one_without_an_answer() {
    // With and without an effect of the write (seed 15936).
    for shown_as in ["ACME", "ACME CORP"] {
        let mut unit = unit();
        erp(&mut unit).write.as_mut().unwrap().on_foreign_edit = OnForeignEdit::Keep;
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
        world.write("erp");
        // Nobody has read what became of that.
        world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
        let sent = Sent::of(&written(world.step("erp")));
        let shown = world.shown("erp", json!({"Name": shown_as, "Credit": "5"}));
        let identity = world.claimed().known.identity("erp").unwrap().clone();
        let mut state = identity.state.clone();
        assert_eq!(looked_up(&state, &shown.fields, &sent), LookedUp::Edited);
        sent.no_effect(&shown.fields, &mut state);
        world.learn("erp", identity.external_id, state);
        world.read("erp", json!({"Name": shown_as, "Credit": "5"}));
        assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Corp"})));
        world.read("erp", json!({"Name": "ACME CORP", "Credit": "5"}));
        assert_eq!(world.write("erp"), None, "of the present value it stays");
    }
}

#[test]
fn a_creation_is_known_natively_for_ours_where_nobody_reads() {
    let mut unit = unit();
    let erp = erp(&mut unit);
    erp.read = None;
    erp.write.as_mut().unwrap().key = None;
    let by_name = [vec!["name".parse().unwrap()]];
    let mut world = World::of(unit.clone());
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    let planned = written(world.step("erp"));
    let sent = Sent::read(&Sent::of(&planned).findable(&world.program, world.participant("erp"), &planned).write());
    let target = world.participant("erp");
    let body = document(json!({"Name": "Acme", "Credit": "5"}));
    assert!(canonical_of(&target.table, &body).is_empty(), "there is no canonical form of what nobody reads (seed 15754)");
    assert!(sent.stands_in(target, &body, &by_name));
    assert!(sent.stands_in(target, &document(json!({"Name": "Acme", "Credit": "5", "Note": "n"})), &by_name), "somebody has added to it");
    let renamed = document(json!({"Name": "Beta", "Credit": "5"}));
    assert!(!sent.stands_in(target, &renamed, &by_name), "found by another name that the record has got since: somebody else's");
    assert!(!sent.stands_in(target, &document(json!({"Name": "Acme", "Credit": "7"})), &by_name), "by its name alone it is nobody's");
    assert!(!sent.stands_in(target, &document(json!({"Name": "Acme"})), &by_name), "what is empty proves nothing");
    assert!(!Sent::default().stands_in(target, &body, &by_name), "nothing is known of what was sent");

    // Nothing was sent but what it is found by.
    let mut bare = World::of(unit);
    bare.read("crm", json!({"Name": "Acme"}));
    let sent = Sent::of(&written(bare.step("erp")));
    assert!(sent.stands_in(bare.participant("erp"), &document(json!({"Name": "Acme"})), &by_name));
}

#[test]
fn what_an_older_fairlead_noted_as_sent_is_read() {
    let mut world = in_both();
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let sent = Sent::of(&written(world.step("erp")));
    let object = serde_json::to_value(&sent).unwrap();
    assert_eq!(object["units"]["name"], json!(ValueHash::of(Some(&json!("Acme Corp")))));
    assert_eq!(Sent::read(&object), sent);
    // Before there were look-ups to tell of, and removals.
    let mut older = object.clone();
    older.as_object_mut().unwrap().retain(|name, _| ["rows", "units"].contains(&name.as_str()));
    assert_eq!(Sent::read(&older), sent);
    for unknown in [json!(null), json!("null"), json!("B"), json!(7)] {
        assert!(Sent::read(&unknown).is_empty());
    }
}

#[test]
fn what_a_look_up_taught_is_known_to_the_next_one_too() {
    let mut world = in_both();
    let stored = world.claimed().known.identity("erp").unwrap().state.clone();
    // A write takes effect and nobody hears of it; a look-up does, and writes what has come since; and dies.
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let mut learnt = stored.clone();
    Sent::of(&written(world.step("erp"))).took_effect(&mut learnt);
    world.read("crm", json!({"Name": "Acme Inc", "Credit": "5"}));
    let sent = Sent::read(&Sent::of(&written(world.step("erp"))).over(&learnt).write());
    let shown = |name: &str| {
        let shown = document(json!({"Name": name, "Credit": "5"}));
        world.participant("erp").table.to_canonical(&shown).unwrap().fields
    };
    assert_eq!(looked_up(&stored, &shown("Acme Corp"), &sent), LookedUp::NoEffect, "our own earlier write, and nobody's edit");
    assert_eq!(looked_up(&stored, &shown("Acme Inc"), &sent), LookedUp::TookEffect);
    assert_eq!(looked_up(&stored, &shown("Somebody else's"), &sent), LookedUp::Edited);
    let mut state = stored.clone();
    sent.no_effect(&shown("Acme Corp"), &mut state);
    assert_eq!(state.fields["name"], learnt.fields["name"]);
}

#[test]
fn what_may_be_a_rendering_of_a_write_without_an_answer_gives_way_to_the_owners_next_value_where_edits_are_kept() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_foreign_edit = OnForeignEdit::Keep;
    let mut world = World::of(unit);
    world.read("crm", json!({"Credit": "5"}));
    world.read("erp", json!({"Credit": "5"}));
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    let sent = Sent::of(&written(world.step("erp")));
    let shown = world.shown("erp", json!({"Name": "ACME", "Credit": "5"}));
    let identity = world.claimed().known.identity("erp").unwrap().clone();
    let mut state = identity.state.clone();
    assert_eq!(looked_up(&state, &shown.fields, &sent), LookedUp::Edited);
    sent.no_effect(&shown.fields, &mut state);
    assert!(!crate::decide::inbound::in_step(world.participant("erp"), &world.claimed().known.record.document, &state));
    world.learn("erp", identity.external_id, state);
    // The owner's next value comes before the target is read (seed 1199).
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    world.read("erp", json!({"Name": "ACME", "Credit": "5"}));
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Corp"})));
}

#[test]
fn what_nobody_reads_is_compared_natively_after_a_write_without_an_answer() {
    let mut unit = unit();
    erp(&mut unit).read = None;
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.write("erp");
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    let sent = Sent::of(&written(world.step("erp")));
    // Meanwhile it has another value again: the one that was there before, and that the target has no more if the write took effect (seed 757).
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    let identity = world.claimed().known.identity("erp").unwrap().clone();
    let mut after = |shown: Value| {
        let body = document(shown);
        let native = NativeRecord {
            id: identity.external_id.clone(),
            version: None,
            modified: None,
            deleted: false,
            merged_into: None,
            body,
            raw: None,
        };
        let mut state = identity.state.clone();
        let erp = world.participant("erp");
        sent.held_natively(erp, &adopted(erp, &native), &mut state);
        world.learn("erp", identity.external_id.clone(), state);
        world.write("erp")
    };
    assert_eq!(after(json!({"Name": "Acme Corp", "Credit": "5"})), Some(json!({"Name": "Acme"})), "it took effect");
    assert_eq!(after(json!({"Name": "Acme", "Credit": "5"})), None, "it did not");
}

#[test]
fn what_is_entered_again_after_a_creation_was_found_otherwise_is_no_echo() {
    // Sent as 5, found otherwise, read as 5 again (seed 8566): its owner has entered that.
    for (found_as, read_as) in [(json!("7"), "5"), (json!("7"), "7"), (json!(null), "5")] {
        let mut world = World::new();
        world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
        let creation = Sent::read(&Sent::of(&written(world.step("erp"))).write());
        // Its owner does not have it yet.
        world.read("crm", json!({"Name": "Acme", "Credit": "8"}));
        let shown = world.participant("erp").table.to_canonical(&document(json!({"Name": "Acme", "Credit": found_as}))).unwrap().fields;
        let mut found = ParticipantState::default();
        assert!(creation.made(&shown, &mut found), "it is to be read first");
        glimpsed(&shown, None, &mut found);
        world.learn("erp", ExternalId("erp-1".into()), found);
        assert_eq!(world.canonical(), json!({"name": "Acme", "credit": "8"}));
        world.read("erp", json!({"Name": "Acme", "Credit": read_as}));
        assert_eq!(world.canonical(), json!({"name": "Acme", "credit": read_as}));
    }
}

#[test]
fn a_look_that_may_show_an_older_state_proves_nothing() {
    let newer = |written: Option<i64>, held: Option<i64>, shown: Option<i64>| {
        let state = ParticipantState { written, modified: held, ..ParticipantState::default() };
        is_newer(&state, shown.map(Timestamp), Duration::from_secs(6), Timestamp(100_000))
    };
    assert!(newer(None, Some(1), Some(2)) && newer(Some(94_000), Some(1), Some(2)));
    assert!(!newer(None, Some(2), Some(2)) && !newer(None, Some(2), Some(1)));
    assert!(!newer(Some(94_001), Some(1), Some(2)), "it may be from before that write");
    assert!(!newer(None, None, Some(2)) && !newer(None, Some(1), None), "nothing tells");
}

#[test]
fn what_never_left_after_a_creation_was_found_is_not_taken_for_part_of_it() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    let creation = Sent::read(&Sent::of(&written(world.step("erp"))).write());
    let shown = |body: serde_json::Value| {
        let target = World::new();
        target.participant("erp").table.to_canonical(&document(body)).unwrap().fields
    };
    let mut found = ParticipantState::default();
    assert!(!creation.made(&shown(json!({"Name": "Acme", "Credit": "5"})), &mut found));
    assert!(
        creation.made(&shown(json!({"Name": "Acme", "Credit": "7"})), &mut ParticipantState::default()),
        "edited since: to be read first"
    );

    // A look-up finds what was made, writes over it what has come since, and dies before that is sent (seed 1589).
    world.read("crm", json!({"Name": "Acme", "Credit": "5", "Note": "new"}));
    world.learn("erp", ExternalId("erp-1".into()), found.clone());
    let planned = written(world.step("erp"));
    assert_eq!(planned.item.body, document(json!({"Note": "new"})));
    let sent = Sent::read(&Sent::of(&planned).over(&found).write());
    let wanted = &world.claimed().known.record.document;
    let in_step = |state: &ParticipantState| inbound::in_step(world.participant("erp"), wanted, state);
    let mut without = ParticipantState::default();
    assert!(!sent.made(&shown(json!({"Name": "Acme", "Credit": "5"})), &mut without));
    assert!(!in_step(&without) && without.fields["name"] == found.fields["name"], "the note is still to be written, and only that");
    let mut with = ParticipantState::default();
    assert!(!sent.made(&shown(json!({"Name": "Acme", "Credit": "5", "Note": "new"})), &mut with));
    assert!(in_step(&with), "it was sent after all");
    assert!(sent.made(&shown(json!({"Name": "Acme", "Credit": "7"})), &mut ParticipantState::default()), "somebody's edit");

    // Where no field names it, it is known for ours by what it was made with, though nothing of the later write shows (seed 9471).
    let by_name = [vec!["name".parse().unwrap()]];
    assert!(sent.shows_beyond(&shown(json!({"Name": "Acme", "Credit": "5"})), &by_name));
    assert!(!sent.shows_beyond(&shown(json!({"Name": "Acme", "Credit": "7"})), &by_name), "by its name alone it is nobody's");
}

#[test]
fn a_value_on_which_the_target_has_the_word_is_not_written_over_unread() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    assert!(
        own_rows(&world.program, world.participant("erp"), &world.claimed(), &written(world.step("erp"))).is_empty(),
        "it is not there yet"
    );
    // Its owner has left it empty, so the creator's value is to fill it (seeds 374, 870, 1383).
    world.read("erp", json!({"Name": "Acme"}));
    let planned = written(world.step("erp"));
    let edited =
        |shown: serde_json::Value| edited_since(&world.program, world.participant("erp"), &world.claimed(), &planned, &document(shown));
    assert_eq!(edited(json!({"Name": "Somebody else's"})), None, "as it was read, and the name is not its own");
    let error = edited(json!({"Name": "Acme", "Credit": "7"})).unwrap();
    assert_eq!((error.class, error.field.as_deref()), (ErrorClass::Conflict, Some("Credit")));
    // So it is read first, and its owner's value wins.
    world.read("erp", json!({"Name": "Acme", "Credit": "7"}));
    assert_eq!((world.canonical(), world.write("erp")), (json!({"name": "Acme", "credit": "7"}), None));
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "7"}));
    let planned = written(world.step("erp"));
    assert!(
        own_rows(&world.program, world.participant("erp"), &world.claimed(), &planned).is_empty(),
        "the name is the CRM's: no look is needed"
    );
    // Nor where the value is only ever written.
    let mut unit = unit();
    erp(&mut unit).rows = serde_json::from_value(json!([
        {"canonical": "name", "native": "Name"},
        {"native": "Credit", "fromCanonical": ".record.credit"},
    ]))
    .unwrap();
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.read("erp", json!({"Name": "Acme"}));
    let planned = written(world.step("erp"));
    assert!(own_rows(&world.program, world.participant("erp"), &world.claimed(), &planned).is_empty(), "{planned:?}");
}

#[test]
fn a_value_that_is_merely_written_otherwise_is_no_edit_since_it_was_read() {
    // Two of one role, of which the latest counts.
    let mut unit = unit();
    Arc::make_mut(&mut unit.participants[0]).role = "erp".into();
    unit.tie = Tie::Latest;
    let downcased = json!({
        "canonical": "credit", "native": "Credit",
        "toCanonical": "downcase(string(.record.Credit) ?? \"\")", "fromCanonical": ".record.credit",
    });
    erp(&mut unit).rows = serde_json::from_value(json!([{"canonical": "name", "native": "Name"}, downcased])).unwrap();
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "low"}));
    world.write("erp");
    world.read("crm", json!({"Name": "Acme", "Credit": "high"}));
    let planned = written(world.step("erp"));
    let edited = |shown: &str| {
        let shown = document(json!({"Name": "Acme", "Credit": shown}));
        edited_since(&world.program, world.participant("erp"), &world.claimed(), &planned, &shown).and_then(|error| error.field)
    };
    assert_eq!((edited("low"), edited("LOW"), edited("none").as_deref()), (None, None, Some("Credit")));
}

#[test]
fn what_was_sent_and_never_heard_of_is_written_again_whatever_the_record_holds_by_then() {
    let mut unit = unit();
    erp(&mut unit).read = None;
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.write("erp");
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "5", "Note": "new"}));
    let sent = Sent::of(&written(world.step("erp")));
    // The values of before again: what the target holds of them nobody can tell.
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    let mut identity = world.claimed().known.identity("erp").unwrap().clone();
    sent.unknown(world.participant("erp"), &mut identity.state);
    world.learn("erp", identity.external_id, identity.state);
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme", "Note": null})));
    assert_eq!(world.write("erp"), None, "once");
}

#[test]
fn what_cannot_be_read_back_is_written_again_rather_than_taken_for_done() {
    let mut unit = unit();
    let rows = json!([{"canonical": "credit", "native": "Credit"}, {"native": "Label", "fromCanonical": ".record.name"}]);
    erp(&mut unit).rows = serde_json::from_value(rows).unwrap();
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
fn a_reference_took_effect_where_it_stands_natively_as_it_was_sent() {
    let mut world = in_both();
    let (one, two) = (RecordId(Uuid::from_u128(8)), RecordId(Uuid::from_u128(9)));
    let plan = |world: &World| {
        let target = world.participant("erp");
        let map = |document: &Document| target.table.to_native(document, &|_, id| Some(if id == one { "e8" } else { "e9" }.into()));
        decide(&world.program, target, &world.claimed(), &map)
    };
    let refer = |world: &mut World, id: RecordId| {
        world.known().record.document.insert("parentId".into(), json!(id.to_string()));
    };
    refer(&mut world, one);
    let identity = world.claimed().known.identity("erp").unwrap().clone();
    let mut before = identity.state.clone();
    Sent::of(&written(plan(&world))).took_effect(&mut before);
    world.learn("erp", identity.external_id.clone(), before.clone());
    refer(&mut world, two);
    world.known().record.document.insert("name".into(), json!("Acme Corp"));
    let sent = Sent::read(&Sent::of(&written(plan(&world))).write());
    // Somebody has entered the same name, and nothing of the write was ever sent (seed 11729).
    let mut after = |parent: &str, owner: RecordId| {
        let body = document(json!({"Name": "Acme Corp", "Credit": "5", "Parent": parent}));
        let shown = canonical_of(&world.participant("erp").table, &body);
        assert_eq!(looked_up(&before, &shown, &sent), LookedUp::TookEffect);
        let mut state = before.clone();
        sent.took_effect(&mut state);
        let elsewhere = sent.references(world.participant("erp"), &body, &before, &mut state);
        world.learn("erp", identity.external_id.clone(), state);
        refer(&mut world, owner);
        let step = plan(&world);
        (elsewhere, matches!(step, Step::Write(_)).then(|| Value::Object(written(step).item.body)))
    };
    assert_eq!(after("e8", two), (false, Some(json!({"Parent": "e9"}))), "it did not");
    assert_eq!(after("e9", two), (false, None), "it did");
    assert_eq!(after("e9", one), (false, Some(json!({"Parent": "e8"}))), "it did, and its owner has turned it back");
    assert!(after("e7", two).0, "somebody else's is read first");
}

#[test]
fn what_shows_one_value_of_a_write_and_one_of_before_has_been_put_back_since() {
    let mut unit = unit();
    unit.ownership.clear();
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.write("erp");
    world.read("crm", json!({"Name": "Acme Corp", "Credit": "6"}));
    let sent = Sent::of(&written(world.step("erp")));
    let target = world.participant("erp");
    let state = world.claimed().known.identity("erp").unwrap().state.clone();
    let shown = |name: &str, credit: &str| target.table.to_canonical(&document(json!({"Name": name, "Credit": credit}))).unwrap().fields;
    assert_eq!(looked_up(&state, &shown("Acme Corp", "6"), &sent), LookedUp::TookEffect);
    assert_eq!(looked_up(&state, &shown("Acme Corp", "5"), &sent), LookedUp::PutBack);
    assert_eq!(looked_up(&state, &shown("Acme", "5"), &sent), LookedUp::NoEffect);
    // Of a record that was found by its name, the name proves nothing.
    let by_name = [vec!["name".parse().unwrap()]];
    assert!(sent.shows_beyond(&shown("Acme Corp", "6"), &by_name));
    assert!(!sent.shows_beyond(&shown("Acme Corp", "5"), &by_name));
}

#[test]
fn a_removal_whose_outcome_is_unknown_is_sent_again() {
    let mut world = in_both();
    world.read_deleted("crm");
    let sent = Sent::of(&written(world.step("erp")));
    assert_eq!(looked_up(&world.claimed().known.identity("erp").unwrap().state, &[], &sent), LookedUp::NoEffect);
}

/// A target that archives what leaves it, told by the field `note`.
fn leaving() -> World {
    let mut unit = unit();
    let write = erp(&mut unit).write.as_mut().unwrap();
    write.when = Some(r#".record.note == "yes""#.into());
    write.on_leave = OnLeave::Archive;
    World::of(unit)
}

#[test]
fn what_leaves_a_target_is_archived_once_and_made_active_when_it_returns() {
    let mut world = leaving();
    world.read("crm", json!({"Name": "Acme", "Note": "yes"}));
    world.write("erp");
    assert_eq!(world.read("crm", json!({"Name": "Acme Corp", "Note": "no"})).lanes(), ["erp:crm"]);
    let planned = written(world.step("erp"));
    assert_eq!((planned.item.operation, planned.item.body.is_empty()), (WriteOperation::Archive, true));
    world.write("erp");
    assert_eq!(filtered(world.step("erp")), "Left", "once is enough");
    // What changes outside is not written, and comes with the return.
    world.read("crm", json!({"Name": "Acme Inc", "Note": "no"}));
    assert_eq!(filtered(world.step("erp")), "Left");
    assert_eq!(world.read("crm", json!({"Name": "Acme Inc", "Note": "yes"})).lanes(), ["erp:crm"]);
    let planned = written(world.step("erp"));
    assert_eq!(planned.item.operation, WriteOperation::Reactivate);
    assert_eq!(planned.item.body, document(json!({"Name": "Acme Inc"})));
    world.write("erp");
    assert!(matches!(settled(world.step("erp")), Outcome::Unchanged));
}

#[test]
fn leaving_concerns_what_was_let_in_and_not_what_the_target_had_of_its_own() {
    // Never inside: it stays as it is.
    let mut world = leaving();
    world.read("erp", json!({"Name": "Acme", "Note": "no"}));
    world.read("crm", json!({"Name": "Acme", "Note": "no"}));
    assert_eq!(filtered(world.step("erp")), "Left");
    // Seen inside, it has been let in, also where nothing was ever written.
    let mut world = leaving();
    world.read("erp", json!({"Name": "Acme", "Note": "yes"}));
    world.read("crm", json!({"Name": "Acme", "Note": "yes"}));
    assert_eq!(world.read("crm", json!({"Name": "Acme", "Note": "no"})).lanes(), ["erp:crm"]);
    assert_eq!(written(world.step("erp")).item.operation, WriteOperation::Archive);
    // It came in by a change that needed no write; that is kept when its key is settled.
    let mut world = leaving();
    world.read("erp", json!({"Name": "Acme", "Note": "no"}));
    world.known().record.document.insert("note".into(), json!("yes"));
    let (_, state) = inside(world.participant("erp"), &world.claimed()).unwrap();
    assert_eq!(state.standing, Some(Standing::Inside));
    assert!(inside(World::new().participant("erp"), &world.claimed()).is_none(), "where leaving has no consequence nothing is kept");
}

#[test]
fn a_record_of_a_cycle_is_made_without_what_may_be_completed_and_says_what_it_lacks() {
    let mut completes = unit();
    for row in &mut erp(&mut completes).rows {
        row.reference.iter_mut().for_each(|reference| reference.on_cycle = OnCycle::Complete);
    }
    let parent = RecordId(Uuid::from_u128(8));
    let of = |unit| {
        let mut world = World::of(unit);
        world.read("crm", json!({"Name": "Acme"}));
        world.known().record.document.insert("parentId".into(), json!(parent.to_string()));
        let target = world.participant("erp");
        let map = |document: &Document| target.table.to_native(document, &|_, _| None);
        let step = decide_to_complete(&world.program, target, &world.claimed(), &map);
        (world, step)
    };
    let (_, step) = of(unit());
    assert!(matches!(settled(step), Outcome::WaitFor { record } if record == parent), "a hierarchy has no cycles");
    let (world, step) = of(completes);
    let (target, planned) = (world.participant("erp"), written(step));
    assert_eq!(planned.item.body, document(json!({"Name": "Acme"})));
    assert!(planned.rows.iter().all(|row| row.native.to_string() != "Parent"), "what was not told is not taken for known");
    let done = Written { id: "e1".into(), version: None, created: true, answer: None };
    let outcome = delivered(target, &world.claimed(), &planned, &done, &[], Timestamp(0));
    assert!(matches!(outcome, Outcome::Delivered { incomplete: Some(record), .. } if record == parent));
}

#[test]
fn what_may_be_completed_later_is_waited_for_last() {
    let mut two = unit();
    let rows = json!([{"canonical": "note", "native": "Note", "reference": {"entity": "customer", "on_cycle": "Complete"}}]);
    let rows: Vec<RowUnit> = serde_json::from_value(rows).unwrap();
    erp(&mut two).rows.retain(|row| row.canonical.as_ref().is_none_or(|path| path.text() != "note"));
    erp(&mut two).rows.splice(0..0, rows);
    let mut world = World::of(two);
    world.read("crm", json!({"Name": "Acme"}));
    let (parent, spouse) = (RecordId(Uuid::from_u128(8)), RecordId(Uuid::from_u128(9)));
    let document = &mut world.known().record.document;
    document.insert("parentId".into(), json!(parent.to_string()));
    document.insert("note".into(), json!(spouse.to_string()));
    let waits = |there: &[RecordId], to_complete: bool| {
        let target = world.participant("erp");
        let map = |document: &Document| target.table.to_native(document, &|_, id| there.contains(&id).then(|| "e9".into()));
        let decided = if to_complete { decide_to_complete } else { decide };
        match decided(&world.program, target, &world.claimed(), &map) {
            Step::Settle(Outcome::WaitFor { record }) => Some(record),
            _ => None,
        }
    };
    assert_eq!((waits(&[], false), waits(&[], true)), (Some(parent), Some(parent)), "the parent first, though its row comes later");
    assert_eq!((waits(&[parent], false), waits(&[parent], true)), (Some(spouse), None));
    assert_eq!((waits(&[spouse], false), waits(&[spouse], true)), (Some(parent), Some(parent)));
    assert_eq!(waits(&[parent, spouse], false), None);
}

#[test]
fn a_cycle_is_found_by_who_stands_in_it() {
    let id = |n: u128| RecordId(Uuid::from_u128(n));
    let waits = [(1, Some(2)), (2, Some(3)), (3, Some(1)), (4, Some(1)), (5, Some(5)), (6, Some(7)), (7, None), (8, Some(9))];
    let waits: HashMap<_, _> = waits.into_iter().map(|(who, of)| (id(who), of.map(id))).collect();
    let cycle = |n: u128| cycle_of(id(n), &waits).map(|cycle| cycle.iter().map(|id| id.0.as_u128()).collect::<Vec<_>>());
    assert_eq!(cycle(2), Some(vec![2, 3, 1]));
    assert_eq!(cycle(5), Some(vec![5]), "its own parent");
    for (n, story) in [(4, "below a cycle"), (6, "below one that may come"), (8, "below one that does not wait"), (10, "unknown")] {
        assert_eq!(cycle(n), None, "{story}");
    }
}

#[test]
fn what_waits_may_be_completed_where_every_row_that_names_the_other_says_so() {
    use OnCycle::{Complete, DeadLetter};
    let (a, b) = (RecordId(Uuid::from_u128(1)), RecordId(Uuid::from_u128(2)));
    for (refers, expected) in [
        (vec![], false),
        (vec![(a, Complete)], true),
        (vec![(a, DeadLetter)], false),
        (vec![(b, Complete)], false),
        (vec![(b, DeadLetter), (a, Complete)], true),
        (vec![(a, Complete), (a, DeadLetter)], false),
    ] {
        assert_eq!(may_be_completed(refers.iter().copied(), a), expected, "{refers:?}");
    }
}

#[test]
fn a_cycle_is_given_two_rounds_of_reading_and_then_named() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(cycle_patience(&world.program), Duration::from_secs(10));
    let mut seldom = unit();
    erp(&mut seldom).read.as_mut().unwrap().every = Duration::from_secs(60);
    assert_eq!(cycle_patience(&World::of(seldom).program), Duration::from_secs(120));
    let ids: Vec<RecordId> = (1..=12).map(|n| RecordId(Uuid::from_u128(n))).collect();
    let message = |cycle: &[RecordId]| match closes_a_cycle(world.participant("erp"), &world.claimed(), cycle) {
        Outcome::DeadLetter(letter) => {
            assert_eq!((letter.reason.as_str(), letter.stage), ("ReferenceCycle", Stage::Outbound));
            letter.message
        }
        outcome => panic!("{outcome:?}"),
    };
    let two = format!("2 new records, none of which can be in erp before the next: {0} -> {1} -> {0};", ids[0], ids[1]);
    assert!(message(&ids[..2]).contains(&two), "{}", message(&ids[..2]));
    assert!(message(&ids[..1]).contains(&format!(": {0} -> {0};", ids[0])));
    assert!(message(&ids).contains(&format!("{} -> ...;", ids[9])), "{}", message(&ids));
}

#[test]
fn a_look_up_that_fails_keeps_the_outcome_unknown_until_the_attempts_run_out() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    let intent = Some(fairlead_store::Intent { at: Timestamp(0), version: 1, sent: Value::Null });
    let outcome = |class: ErrorClass, attempts: u32, closed: bool, unknown: bool| {
        let claimed = Claimed { attempts, intent: intent.clone().filter(|_| unknown), ..world.claimed() };
        let error = RemoteError::new(class, "SchemaDrift", "no such column");
        let trouble = Trouble { error: &error, wait: Duration::from_secs(4), circuit_closed: closed, alone: false, now: Timestamp(0) };
        match look_up_failed(&world.program, world.participant("erp"), &claimed, &trouble) {
            Outcome::Retry { at, attempt, unknown } => format!("retry at {} attempt={attempt} unknown={unknown}", at.0 / 1000),
            Outcome::DeadLetter(letter) => format!("dead letter {} {}", letter.class, letter.reason),
            outcome => panic!("{outcome:?}"),
        }
    };
    use ErrorClass as Class;
    for (class, attempts, closed, unknown, expected) in [
        (Class::Data, 0, true, true, "retry at 4 attempt=true unknown=true"),
        (Class::Data, 2, true, true, "dead letter UnknownOutcome OutcomeUnknown"),
        (Class::Data, 2, true, false, "dead letter Data SchemaDrift"),
        (Class::Transient, 2, false, true, "retry at 4 attempt=false unknown=true"),
        (Class::Throttled, 9, true, true, "retry at 4 attempt=false unknown=true"),
        (Class::Permission, 9, true, true, "retry at 4 attempt=false unknown=true"),
    ] {
        assert_eq!(outcome(class, attempts, closed, unknown), expected, "{class} after {attempts}, closed: {closed}, unknown: {unknown}");
    }
}

#[test]
fn match_rules_are_searched_by_the_fields_that_the_target_has() {
    let mut unit = unit();
    unit.matching = ["note,name", "credit", "missing"].map(|rule| rule.split(',').map(|path| path.parse().unwrap()).collect()).to_vec();
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Note": "n", "Credit": null}));
    let target = world.participant("erp");
    let mapped = target.table.to_native(&world.claimed().known.record.document, &|_, _| None).unwrap();
    let path = |text: &str| text.parse::<FieldPath>().unwrap();
    assert_eq!(searches(&world.program, target, &mapped), [vec![(path("Note"), json!("n")), (path("Name"), json!("Acme"))]]);
}

#[test]
fn what_is_found_is_adopted_as_it_stands_and_only_the_difference_is_written() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": "5", "Note": "n"}));
    let body = document(json!({"Name": "ACME", "Note": "n"}));
    let shown = NativeRecord { id: "e7".into(), version: None, modified: None, deleted: false, merged_into: None, body, raw: None };
    let state = adopted(world.participant("erp"), &shown);
    world.known().identities.push(Identity { participant: "erp".into(), external_id: "e7".into(), state });
    let planned = written(world.step("erp"));
    assert_eq!(planned.item.operation, WriteOperation::Update);
    assert_eq!(planned.item.body, document(json!({"Name": "Acme", "Credit": "5"})));
}

#[test]
fn a_copy_that_becomes_another_record_is_searched_for_by_what_that_one_is_found_by() {
    let mut unit = unit();
    unit.matching = ["note", "name"].map(|rule| vec![rule.parse().unwrap()]).to_vec();
    erp(&mut unit).read = None;
    let mut world = World::of(unit);
    let becomes = |world: &World| {
        let planned = written(world.step("erp"));
        let rules = becomes(&world.program, world.participant("erp"), &world.claimed(), &planned);
        rules.iter().map(|rule| rule.iter().map(|(native, value)| format!("{native}={value}")).collect::<String>()).collect::<Vec<_>>()
    };
    world.read("crm", json!({"Name": "Acme"}));
    assert!(becomes(&world).is_empty(), "what is made is searched for before");
    world.write("erp");
    world.read("crm", json!({"Name": "Acme Corp"}));
    assert_eq!(becomes(&world), ["Name=\"Acme Corp\""], "a merge gave the copy to another record (seed 11217)");
    world.read("crm", json!({"Name": "Acme Corp", "Note": "n"}));
    assert_eq!(becomes(&world), ["Note=\"n\"", "Name=\"Acme Corp\""]);
    world.write("erp");
    world.read("crm", json!({"Name": "Acme", "Note": "n"}));
    assert!(becomes(&world).is_empty(), "by its note it is found itself");

    let criteria = [("Name".parse().unwrap(), json!("Acme"))];
    let planned = written(world.step("erp"));
    let Outcome::DeadLetter(letter) = has_a_second(world.participant("erp"), &world.claimed(), &planned, &["e7".into()], &criteria) else {
        panic!("nobody would know")
    };
    assert_eq!((letter.reason.as_str(), letter.stage, letter.record), ("DuplicateIdentity", Stage::Delivery, Some(ID)));
    assert!(letter.message.starts_with("e7 in erp fits it by Name"), "{}", letter.message);
}

#[test]
fn a_record_whose_id_another_one_carries_is_a_persons_after_a_while_and_who_says_it_is_put_right_is_believed() {
    let mut world = in_both();
    let target = world.participant("erp");
    let Outcome::DeadLetter(letter) = id_is_taken(target, &world.claimed()) else { panic!("nobody would know") };
    assert_eq!((letter.reason.as_str(), letter.stage, letter.record), ("DuplicateIdentity", Stage::Outbound, Some(ID)));
    assert!(letter.message.starts_with("its id stands in ExternalId of a record in erp"), "{}", letter.message);

    let held = world.claimed().known.identity("erp").unwrap().state.clone();
    let misnamed = ParticipantState { keyed_as: Some(RecordId(Uuid::from_u128(2))), ..held.clone() };
    world.learn("erp", "erp-1".into(), misnamed);
    let target = world.participant("erp");
    assert_eq!(is_renamed(target, &world.claimed()), Some(("erp-1".into(), held)));
}
