//! The rules of reading, told as stories of two systems (see [`crate::decide::sample`]).

use super::*;
use crate::decide::sample::{ID, Seen, World, document, erp, golden, unit};
use fairlead_model::unit::{InitialLoad, IntegrationUnit, OnDelete, ParticipantUnit, Tie};
use fairlead_store::LaneEntry;
use serde_json::json;
use std::sync::Arc;

fn both(world: &mut World, body: serde_json::Value) {
    world.read("crm", body.clone());
    world.write("erp");
    world.read("erp", body);
}

#[test]
fn a_new_record_is_seeded_with_all_of_its_creators_fields_and_enters_the_other_lane() {
    let mut world = World::new();
    let seen = world.read("erp", json!({"Name": "Acme", "Credit": "5"}));
    assert_eq!(world.canonical(), json!({"name": "Acme", "credit": "5"}));
    assert_eq!(seen.lanes(), ["crm:erp"]);
    let absorbed = seen.absorbed();
    assert!(absorbed.record.counts_as_changed && !absorbed.changes && absorbed.history.is_empty());
    let known = world.known();
    assert_eq!((known.record.id, known.record.version, known.record.home.as_str()), (ID, 1, "erp"));
}

#[test]
fn an_echo_a_repeat_and_a_touched_record_change_nothing() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    for who in ["crm", "erp"] {
        let touched = world.read(who, json!({"Name": "Acme"}));
        assert!(touched.lanes().is_empty() && !touched.absorbed().record.counts_as_changed, "only the vendor's stamp is new");
        let again = world.shown(who, json!({"Name": "Acme"}));
        let sequence = world.sequence;
        assert!(matches!(world.take(who, &again, sequence), Seen::Unchanged));
    }
    assert_eq!(world.known().record.version, 1);
}

#[test]
fn the_owners_change_is_taken_and_goes_to_the_others() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme", "Credit": "5"}));
    let seen = world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"}));
    assert_eq!(seen.lanes(), ["erp:crm"]);
    assert!(seen.absorbed().changes, "counts for the guard");
    let seen = world.read("erp", json!({"Name": "Acme", "Credit": "9"}));
    assert_eq!(world.canonical(), json!({"name": "Acme Corp", "credit": "9"}), "both edits survive");
    assert!(seen.lanes().contains(&"crm:erp".to_owned()));
}

#[test]
fn a_foreign_edit_is_counted_and_put_back() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    let seen = world.read("erp", json!({"Name": "Acne"}));
    assert_eq!((seen.lanes(), seen.conflicts()), (vec!["erp:Restore".to_owned()], 1));
    assert_eq!(world.canonical(), json!({"name": "Acme"}));
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme"})));
}

#[test]
fn what_stood_there_before_anything_was_written_is_an_edit_when_it_is_entered_again() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    assert!(world.read("erp", json!({"Name": "ACME"})).conflicts() == 0, "it is seen first");
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme"})));
    // Entered before our value was read there (seed 9638).
    let seen = world.read("erp", json!({"Name": "ACME"}));
    assert_eq!((seen.lanes(), seen.conflicts()), (vec!["erp:Restore".to_owned()], 1));
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme"})));
    assert!(world.read("erp", json!({"Name": "ACME"})).lanes().is_empty(), "put back once, shown again: that is how it renders");
    assert_eq!(world.write("erp"), None);
}

#[test]
fn a_change_is_kept_with_both_values_and_whether_it_won() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme", "Credit": "5"}));
    let told = |seen: &Seen| -> Vec<_> {
        let told = |past: &FieldChange| (past.field.as_ref().map(ToString::to_string), past.from.clone(), past.to.clone(), past.fate);
        seen.absorbed().history.iter().map(told).collect()
    };
    let name = |shown: Option<&str>| vec![(Some("name".to_owned()), Some(json!("Acme")), shown.map(|shown| json!(shown)), Fate::Conflict)];
    assert_eq!(told(&world.read("erp", json!({"Name": "Acne", "Credit": "5"}))), name(Some("Acne")));
    world.write("erp");
    assert_eq!(told(&world.read("erp", json!({"Credit": "5"}))), name(None), "cleared");
    world.write("erp");
    assert_eq!(told(&world.read_deleted("erp")), [(None, None, None, Fate::Conflict)], "not its to delete");
    // What wins, too, with the value that it replaces.
    let seen = world.read("crm", json!({"Name": "Acme Ltd", "Credit": "5"}));
    assert_eq!(told(&seen), [(Some("name".to_owned()), Some(json!("Acme")), Some(json!("Acme Ltd")), Fate::Won)]);
    assert_eq!(told(&world.read_deleted("crm")), [(None, None, None, Fate::Won)]);
    // And what its own value takes the place of where a system is seen first.
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme"}));
    let seen = world.read("erp", json!({"Name": "ACME", "Credit": "5"}));
    assert_eq!(told(&seen), [(Some("name".to_owned()), Some(json!("Acme")), Some(json!("ACME")), Fate::FirstSeen)]);
}

#[test]
fn a_change_enters_the_lanes_of_other_integrations_whatever_they_make_of_it() {
    let mut world = World::of(golden());
    let seen = world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(seen.lanes(), ["erp:crm", "eu/customers/erp:crm"], "what is only read there is not written");
    world.write("erp");
    assert!(world.read("erp", json!({"Name": "Acme"})).lanes().is_empty(), "an echo goes nowhere");
    assert_eq!(world.read("erp", json!({"Name": "Acne"})).lanes(), ["erp:Restore"], "nor does a foreign edit");
    world.learn("eu/customers/erp", ExternalId("e1".into()), ParticipantState { deleted: true, ..ParticipantState::default() });
    assert_eq!(world.read("crm", json!({"Name": "Acme Corp"})).lanes(), ["erp:crm"], "what was deleted there is not written");
    world.learn("eu/customers/erp", ExternalId("e1".into()), ParticipantState::default());
    world.known().lanes.clear();
    assert_eq!(world.read_deleted("crm").lanes(), ["erp:crm", "eu/customers/erp:crm"]);
}

#[test]
fn a_record_whose_home_is_gone_is_deleted_by_the_first_that_holds_it() {
    let mut world = World::of(golden());
    world.read("crm", json!({"Name": "Acme"}));
    world.write("erp");
    world.learn("eu/customers/erp", ExternalId("e1".into()), ParticipantState::default());
    world.known().record.home = "asia/customers/crm".into();
    world.known().lanes.clear();
    assert_eq!(world.read_deleted("erp").conflicts(), 1, "another one holds it and comes first");
    assert!(world.known().record.deleted_at.is_none());
    let seen = world.read_deleted("crm");
    assert_eq!(seen.lanes(), ["eu/customers/erp:crm"], "of those that hold it");
    assert_eq!((world.known().record.deleted_at.is_some(), world.known().record.home.as_str()), (true, "crm"));
    world.known().lanes.clear();
    world.read("crm", json!({"Name": "Acme"}));
    assert!(world.known().record.deleted_at.is_none(), "and who deleted it may bring it back");
}

#[test]
fn what_a_preview_reads_is_told_to_no_other_integration() {
    let mut world = World::of(IntegrationUnit { initial_load: InitialLoad::Preview, ..golden() });
    assert_eq!(world.read("crm", json!({"Name": "Acme"})).lanes(), ["erp:crm"]);
    world.learn("eu/customers/erp", ExternalId("e1".into()), ParticipantState::default());
    assert_eq!(world.read("crm", json!({"Name": "Acme Corp"})).lanes(), ["erp:crm"]);
    world.known().lanes.clear();
    assert!(!world.read_deleted("crm").lanes().contains(&"eu/customers/erp:crm".to_owned()));
}

#[test]
fn a_record_that_lives_again_is_told_where_another_integration_has_deleted_it() {
    let mut world = World::of(golden());
    world.read("crm", json!({"Name": "Acme"}));
    world.read_deleted("crm");
    world.learn("eu/customers/erp", ExternalId("e1".into()), ParticipantState { deleted: true, ..ParticipantState::default() });
    let seen = world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(seen.absorbed().lost, ["eu/customers/erp"]);
    let letter = lost(world.participant("crm"), "eu/customers/erp", world.known.as_ref().unwrap());
    assert_eq!(letter.participant, "eu/customers/erp");
    assert!(letter.message.starts_with("it lives again in crm and was deleted or put away in erp"), "{}", letter.message);
}

#[test]
fn with_keep_an_edit_does_not_stay_where_the_owner_has_had_another_value_meanwhile() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_foreign_edit = OnForeignEdit::Keep;
    let mut world = World::of(unit);
    both(&mut world, json!({"Name": "Acme"}));
    world.read("crm", json!({"Name": "Acme Corp"}));
    // On its way, and not written yet (seed 110): also what a system made of the value before looks like an edit.
    world.read("erp", json!({"Name": "ACME"}));
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Corp"})));
    world.read("erp", json!({"Name": "ACME CORP"}));
    assert_eq!(world.write("erp"), None, "of the present value it stays");
}

#[test]
fn what_was_filled_at_first_and_its_owner_empties_then_is_emptied_everywhere() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    world.read("erp", json!({"Name": "Acme"}));
    assert_eq!(world.write("erp"), Some(json!({"Credit": "5"})), "nobody had emptied it");
    // The first that is read of it since (seed 468).
    let seen = world.read("erp", json!({"Name": "Acme"}));
    assert_eq!(world.canonical(), json!({"name": "Acme"}));
    assert!(seen.lanes().contains(&"crm:erp".to_owned()));
}

#[test]
fn with_keep_a_foreign_edit_stays_until_the_owner_has_another_value() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_foreign_edit = OnForeignEdit::Keep;
    let mut world = World::of(unit);
    both(&mut world, json!({"Name": "Acme"}));
    let seen = world.read("erp", json!({"Name": "Acne"}));
    assert_eq!((seen.lanes(), seen.conflicts()), (vec![], 1));
    assert_eq!(world.write("erp"), None);
    assert!(world.read("erp", json!({"Name": "Acne"})).lanes().is_empty());
    assert_eq!(world.read("crm", json!({"Name": "Acme Corp"})).lanes(), ["erp:crm"]);
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Corp"})), "the owner's next value is not withheld");
}

#[test]
fn an_edit_back_to_what_fairlead_once_wrote_is_not_taken_for_an_echo() {
    let mut world = World::new();
    world.read("erp", json!({"Name": "Acme"}));
    world.write("crm");
    world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(world.read("crm", json!({"Name": "Oops"})).lanes(), ["erp:crm"]);
    world.write("erp");
    assert_eq!(world.read("crm", json!({"Name": "Acme"})).lanes(), ["erp:crm"]);
    assert_eq!(world.canonical(), json!({"name": "Acme"}));
}

#[test]
fn two_systems_that_each_render_a_field_that_nobody_owns_come_to_rest() {
    let mut world = World::new();
    world.read("crm", json!({"Note": "Acme"}));
    let mut turns = 0;
    while turns < 10 {
        let upper = world.write("erp").map(|_| world.read("erp", json!({"Note": "ACME"})));
        let title = world.write("crm").map(|_| world.read("crm", json!({"Note": "Acme"})));
        turns += 1;
        if upper.is_none() && title.is_none() {
            break;
        }
    }
    assert!(turns <= 4, "still fighting after {turns} turns");
}

#[test]
fn a_deletion_at_home_is_taken_and_elsewhere_only_counted() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    let elsewhere = world.read_deleted("erp");
    assert!(elsewhere.lanes().is_empty() && !elsewhere.absorbed().deletes && elsewhere.conflicts() == 1);
    assert_eq!(world.known().record.deleted_at, None);

    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    let home = world.read_deleted("crm");
    assert!(home.absorbed().deletes);
    assert_eq!(home.lanes(), ["erp:crm"]);
    assert!(world.known().record.deleted_at.is_some());
    assert!(matches!(world.read_deleted("crm"), Seen::Unchanged), "told twice, it is one deletion");
    assert!(world.read("erp", json!({"Name": "Edited"})).lanes().is_empty(), "what others still do with their copy goes nowhere");
}

#[test]
fn an_unknown_record_that_is_deleted_is_nothing() {
    assert!(matches!(World::new().read_deleted("crm"), Seen::Unchanged));
}

#[test]
fn a_record_that_comes_back_is_told_of_where_it_was_really_deleted() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_delete = OnDelete::Delete;
    let mut world = World::of(unit);
    both(&mut world, json!({"Name": "Acme"}));
    world.read_deleted("crm");
    world.write("erp");
    let seen = world.read("crm", json!({"Name": "Acme"}));
    assert!(seen.lanes().is_empty(), "it is not made there a second time");
    assert_eq!(seen.absorbed().lost, ["erp"]);
    let letter = lost(world.participant("crm"), "erp", world.known.as_ref().unwrap());
    assert_eq!((letter.stage, letter.participant.as_str(), letter.record), (Stage::Delivery, "erp", Some(ID)));
    assert!(letter.message.contains("lives again in crm and was deleted"), "{}", letter.message);
    // Told once.
    assert!(world.read("crm", json!({"Name": "Acme Inc"})).absorbed().lost.is_empty());
}

#[test]
fn a_record_that_its_home_shows_again_lives_again() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_delete = OnDelete::Keep;
    let mut world = World::of(unit);
    both(&mut world, json!({"Name": "Acme"}));
    world.read_deleted("crm");
    world.write("erp");
    let seen = world.read("crm", json!({"Name": "Acme Reborn"}));
    assert_eq!(world.known().record.deleted_at, None);
    assert_eq!(seen.lanes(), ["erp:crm"]);
}

/// Deleted at home, while the ERP keeps its copy.
fn deleted_at_home() -> World {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_delete = OnDelete::Keep;
    unit.participants.push(Arc::new(ParticipantUnit { name: "mdm".into(), role: "mdm".into(), ..(*unit.participants[1]).clone() }));
    let mut world = World::of(unit);
    both(&mut world, json!({"Name": "Acme"}));
    let seen = world.read_deleted("crm");
    let RecordChange::Update { keys, .. } = &seen.absorbed().record.change else { panic!("{seen:?}") };
    assert_eq!(keys, &world.program.match_keys(&document(json!({"name": "Acme"}))), "it is found, for a copy lives on");
    world.known().lanes.clear();
    world
}

#[test]
fn a_copy_that_nobody_knew_of_brings_a_deleted_record_back() {
    let mut world = deleted_at_home();
    let seen = world.read("mdm", json!({"Name": "Acme", "Credit": "5"}));
    assert_eq!((world.known().record.deleted_at, world.known().record.home.as_str()), (None, "mdm"));
    assert_eq!(seen.lanes(), ["erp:mdm"], "the copy that was kept is given what it lacks");
    assert_eq!(seen.absorbed().lost, ["crm"]);
    // One that carries the record's id was made by us, before it was deleted.
    let mut world = deleted_at_home();
    let seen = world.read("mdm", json!({"Name": "Acme", "ExternalId": ID.to_string()}));
    assert!(world.known().record.deleted_at.is_some() && seen.lanes().is_empty());
}

#[test]
fn a_deleted_record_is_matched_where_copies_live_on_and_nothing_else_lives() {
    let mut world = deleted_at_home();
    let deleted = world.known().clone();
    let mut live = deleted.clone();
    live.record.deleted_at = None;
    let of = |hits: Vec<Vec<Known>>, who: &str| matching(hits.into_iter(), who).len();
    assert_eq!(of(vec![vec![deleted.clone()]], "mdm"), 1);
    assert_eq!(of(vec![vec![deleted.clone()]], "crm"), 1, "its home enters it again");
    let mut earlier = deleted.clone();
    earlier.record.deleted_at = deleted.record.deleted_at.map(|at| Timestamp(at.0 - 1));
    for several in [vec![earlier.clone(), deleted.clone()], vec![deleted.clone(), earlier]] {
        assert_eq!(matching([several].into_iter(), "mdm"), std::slice::from_ref(&deleted), "the one that was deleted last");
    }
    assert!(matching([vec![deleted.clone()], vec![live.clone()]].into_iter(), "mdm")[0].record.deleted_at.is_none());
    assert_eq!(of(vec![Vec::new(), vec![live.clone(), live.clone()], vec![live.clone()]], "mdm"), 2, "a person tells");
    assert_eq!(of(vec![vec![deleted.clone()]], "erp"), 0, "it has a copy");
    world.known().identities.retain(|identity| identity.participant != "erp");
    assert_eq!(of(vec![vec![world.known().clone()]], "mdm"), 0, "nothing is left of it");
    world.known().lanes = vec![LaneEntry { target: "erp".into(), in_flight: true, attempts: 0 }];
    assert_eq!(of(vec![vec![world.known().clone()]], "mdm"), 1, "a copy may be on its way");
    assert!(world.read("mdm", json!({"Name": "Acme"})).is_stale(), "and what becomes of it is waited for");
}

#[test]
fn a_deletion_in_the_same_batch_goes_first_only_while_nobody_knows_of_it() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    let shown = HashSet::from([world.known().identity("erp").unwrap().external_id.clone()]);
    let first = |world: &World, who: &str| deletion_goes_first(world.known.as_ref(), who, &shown);
    assert_eq!((first(&world, "erp"), first(&world, "crm")), (true, false));
    world.read_deleted("erp");
    assert!(!first(&world, "erp"), "the lag window shows it again (seed 14301)");
    assert!(!deletion_goes_first(None, "erp", &shown));
}

#[test]
fn what_was_entered_again_under_another_id_brings_a_deleted_record_back() {
    let mut world = deleted_at_home();
    world.learn("mdm", ExternalId("m-2".into()), ParticipantState { settled: 3, ..ParticipantState::default() });
    let read = ReadRecord { external_id: ExternalId("m-2".into()), ..world.shown("mdm", json!({"Name": "Acme"})) };
    let sequence = world.sequence;
    world.take("mdm", &read, sequence);
    assert_eq!((world.known().record.deleted_at, world.known().record.home.as_str()), (None, "mdm"));
}

#[test]
fn a_copy_that_comes_back_is_brought_up_to_date() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    world.read_deleted("erp");
    assert!(world.read("crm", json!({"Name": "Acme Corp"})).lanes().is_empty(), "nothing is written to a copy that is gone");
    assert_eq!(world.read("erp", json!({"Name": "Acme"})).lanes(), ["erp:Restore"]);
    assert_eq!(world.write("erp"), Some(json!({"Name": "Acme Corp"})));
}

#[test]
fn stale_reads_are_read_again_by_key() {
    type Twist = fn(&mut World) -> (ReadRecord, u64);
    let cases: [(&str, Twist); 3] = [
        ("began before our write was settled", |world| (world.shown("erp", json!({"Name": "Old"})), 0)),
        ("older than the vendor's stamp that was seen", |world| {
            let mut read = world.shown("erp", json!({"Name": "Old"}));
            read.modified = Some(Timestamp(1));
            (read, world.sequence)
        }),
        ("a write is in flight", |world| {
            world.in_flight("erp");
            (world.shown("erp", json!({"Name": "Old"})), world.sequence)
        }),
    ];
    for (why, twist) in cases {
        let mut world = World::new();
        both(&mut world, json!({"Name": "Acme"}));
        let (read, began) = twist(&mut world);
        assert!(world.take("erp", &read, began).is_stale(), "{why}");
    }
}

#[test]
fn a_lagging_index_does_not_undo_what_was_just_written() {
    let mut world = World::new();
    both(&mut world, json!({"Note": "old"}));
    world.stale_for = Duration::from_secs(30);
    let lagging = world.shown("erp", json!({"Note": "old"}));
    world.read("crm", json!({"Note": "new"}));
    world.write("erp");
    for by_key in [false, true] {
        world.by_key = by_key;
        let sequence = world.sequence;
        assert!(world.take("erp", &lagging, sequence).is_stale(), "the stamp is that of before our write");
    }
    assert_eq!(world.read("erp", json!({"Note": "edited"})).lanes(), ["crm:erp"], "a newer stamp is somebody's edit");
    world.clock += 31_000;
    assert!(!world.read("erp", json!({"Note": "edited"})).is_stale());
}

#[test]
fn a_read_by_key_is_taken_although_its_stamp_is_older() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    world.by_key = true;
    let mut restored = world.shown("crm", json!({"Name": "Restored"}));
    restored.modified = Some(Timestamp(1));
    let sequence = world.sequence;
    assert_eq!(world.take("crm", &restored, sequence).lanes(), ["erp:crm"]);
}

#[test]
fn a_read_that_shows_nothing_new_is_never_stale() {
    let mut world = World::new();
    both(&mut world, json!({"Name": "Acme"}));
    world.in_flight("erp");
    assert!(!world.read("erp", json!({"Name": "Acme"})).is_stale());
}

#[test]
fn a_creation_that_is_not_settled_yet_does_not_undo_the_edit_that_came_after_it() {
    let mut world = World::new();
    world.read("erp", json!({"Name": "One"}));
    world.in_flight("crm");
    world.read("erp", json!({"Name": "Two"}));
    assert_eq!(world.canonical(), json!({"name": "Two"}), "the owner has no record yet");
    assert!(world.read("crm", json!({"Name": "One"})).is_stale(), "the CRM shows what was sent before the edit");
}

#[test]
fn at_first_sight_an_owners_empty_value_replaces_nothing_and_is_filled() {
    let mut world = World::new();
    world.read("erp", json!({"Name": "Acme", "Credit": "5"}));
    let seen = world.read("crm", json!({"Name": null, "Credit": "9"}));
    assert_eq!(world.canonical(), json!({"name": "Acme", "credit": "5"}));
    assert_eq!((seen.lanes(), seen.conflicts()), (vec!["crm:erp".to_owned()], 0));
    assert_eq!(world.write("crm"), Some(json!({"Name": "Acme", "Credit": "5"})));
}

#[test]
fn what_its_owner_has_emptied_is_not_filled_by_who_is_seen_later() {
    let mut world = World::new();
    world.read("crm", json!({"Name": "Acme", "Credit": "9"}));
    world.read("crm", json!({"Name": null, "Credit": "9"}));
    world.read("erp", json!({"Name": "Acme Ltd", "Credit": "9"}));
    assert_eq!(world.canonical(), json!({"credit": "9"}));
}

#[test]
fn at_first_sight_the_owners_value_wins_whichever_was_read_first() {
    for order in [["crm", "erp"], ["erp", "crm"]] {
        let mut world = World::new();
        for who in order {
            world.read(who, json!({"Name": format!("Name of {who}"), "Credit": format!("Credit of {who}")}));
        }
        assert_eq!(world.canonical(), json!({"name": "Name of crm", "credit": "Credit of erp"}), "{order:?}");
    }
}

#[test]
fn a_field_that_nobody_owns_belongs_to_the_newer_stamp() {
    let mut world = World::new();
    both(&mut world, json!({"Note": "first"}));
    world.read("crm", json!({"Note": "second"}));
    let mut late = world.shown("erp", json!({"Note": "third"}));
    late.modified = Some(Timestamp(world.clock - 500));
    world.known().identities.iter_mut().for_each(|identity| identity.state.modified = None);
    let sequence = world.sequence;
    world.take("erp", &late, sequence);
    assert_eq!(world.canonical(), json!({"note": "second"}), "edited earlier, read later");
    world.read("erp", json!({"Note": "fourth"}));
    assert_eq!(world.canonical(), json!({"note": "fourth"}));
}

#[test]
fn between_two_of_the_owning_role_the_tie_decides() {
    for (tie, expected) in [(Tie::Home, "home"), (Tie::Latest, "edited")] {
        let mut unit = unit();
        unit.tie = tie;
        unit.ownership.iter_mut().for_each(|rule| rule.role = "crm".into());
        erp(&mut unit).role = "crm".into();
        let mut world = World::of(unit);
        both(&mut world, json!({"Name": "home"}));
        world.read("erp", json!({"Name": "edited"}));
        assert_eq!(world.canonical(), json!({"name": expected}), "{tie:?}");
    }
}

#[test]
fn a_row_that_derives_from_other_fields_is_compared_by_its_lane() {
    let mut unit = unit();
    let rows = json!([{"canonical": "credit", "native": "Credit"}, {"native": "Label", "fromCanonical": ".record.name"}]);
    erp(&mut unit).rows = serde_json::from_value(rows).unwrap();
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    assert_eq!(world.write("erp"), Some(json!({"Credit": "5", "Label": "Acme"})));
    assert_eq!(world.read("crm", json!({"Name": "Acme Corp", "Credit": "5"})).lanes(), ["erp:crm"]);
    assert_eq!(world.write("erp"), Some(json!({"Label": "Acme Corp"})));
}

#[test]
fn a_record_enters_only_lanes_whose_condition_it_meets() {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().when = Some(r#".record.note == "yes""#.into());
    let mut world = World::of(unit);
    assert!(world.read("crm", json!({"Name": "Acme", "Note": "no"})).lanes().is_empty());
    assert_eq!(world.read("crm", json!({"Name": "Acme", "Note": "yes"})).lanes(), ["erp:crm"]);
}

#[test]
fn a_bystanders_first_sight_replaces_nothing_before_the_owner_has_the_record() {
    let mut unit = unit();
    unit.participants.push(Arc::new(ParticipantUnit { name: "mdm".into(), role: "mdm".into(), ..(*unit.participants[0]).clone() }));
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "Credit": "5"}));
    let seen = world.read("mdm", json!({"Name": "Acme", "Credit": "6"}));
    assert_eq!(world.canonical(), json!({"name": "Acme", "credit": "5"}), "the creator's value stands");
    assert_eq!(seen.lanes(), ["mdm:crm"]);
    world.read("erp", json!({"Name": "Acme", "Credit": "7"}));
    assert_eq!(world.canonical(), json!({"name": "Acme", "credit": "7"}), "until the owner has it");
}

#[test]
fn constants_are_written_to_a_record_that_is_read_for_the_first_time() {
    let mut unit = unit();
    erp(&mut unit).rows.push(serde_json::from_value(json!({"native": "Label", "value": "ours"})).unwrap());
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme"}));
    assert_eq!(world.read("erp", json!({"Name": "Acme"})).lanes(), ["erp:crm"]);
    assert_eq!(world.write("erp"), Some(json!({"Label": "ours"})));
    // What the system makes of it is its own affair: no fight.
    assert!(world.read("erp", json!({"Name": "Acme", "Label": "OURS"})).lanes().is_empty());
}
