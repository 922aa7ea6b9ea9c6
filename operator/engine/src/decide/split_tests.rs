use super::*;
use crate::decide::outbound::Step;
use crate::decide::sample::{World, erp, unit};
use fairlead_model::Timestamp;
use fairlead_model::unit::OnForeignEdit;
use fairlead_systems::WriteOperation;
use serde_json::json;
use uuid::Uuid;

const NEW: RecordId = RecordId(Uuid::from_u128(8));

/// Both systems are read and written.
fn parts() -> Parts {
    let both: BTreeSet<String> = ["crm", "erp"].map(str::to_owned).into();
    Parts { readers: both.clone(), targets: both }
}

fn leaver(world: &World, who: &str) -> Leaver {
    let known = world.known.as_ref().unwrap();
    Leaver { identity: known.identity(who).unwrap().clone(), stood_for: known.record.id }
}

fn fields(came: &[FieldPath]) -> Vec<String> {
    came.iter().map(ToString::to_string).collect()
}

/// Two that were taken for one: the ERP was written the CRM's name, and filled the note. Where it owned nothing it kept what it had.
fn matched(on_foreign_edit: OnForeignEdit) -> World {
    let mut unit = unit();
    erp(&mut unit).write.as_mut().unwrap().on_foreign_edit = on_foreign_edit;
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme", "FairleadId": "x"}));
    world.read("erp", json!({"Name": "Acme GmbH", "Credit": "7", "Note": "paid"}));
    world.write("erp");
    world.write("crm");
    world
}

/// The store's part of it: the record that stays, and the new one.
fn split(mut world: World, who: &str) -> (World, World, Decided) {
    let known = world.known.clone().unwrap();
    let decided = decide(&known, &[leaver(&world, who)], &parts()).unwrap();
    let mut new = World::of(unit());
    let mut record = known.record.clone();
    (record.id, record.version, record.home) = (NEW, 0, decided.new_home.clone());
    (record.document, record.provenance) = Default::default();
    new.known = Some(Known { record, identities: decided.leaving.clone(), lanes: Vec::new(), merged_into: None });
    (new.clock, new.sequence) = (world.clock, world.sequence);
    let known = world.known();
    (known.record.version, known.record.home) = (known.record.version + 1, decided.home.clone());
    known.record.provenance = decided.provenance.clone();
    known.identities.clone_from(&decided.staying);
    for (participant, state) in &decided.states {
        known.identities.iter_mut().filter(|identity| identity.participant == *participant).for_each(|held| held.state = state.clone());
    }
    (world, new, decided)
}

#[test]
fn what_leaves_takes_the_values_that_its_system_shows_and_the_rest_keeps_its_own() {
    let (mut stays, mut new, decided) = split(matched(OnForeignEdit::Keep), "crm");
    assert_eq!(fields(&decided.came), ["name"], "the credit and the note are the ERP's");
    assert_eq!((decided.home.as_str(), decided.new_home.as_str()), ("erp", "crm"));
    assert_eq!(decided.enqueue, [("crm".to_owned(), Origin::Source("erp".into()))], "it is to be made there");
    assert_eq!(decided.rereads["crm"], [ExternalId("crm-1".into())]);
    assert_eq!(decided.rereads["erp"], [ExternalId("erp-1".into())]);
    assert_eq!(stays.canonical(), json!({"name": "Acme", "credit": "7", "note": "paid"}), "until it is read");

    stays.read("erp", json!({"Name": "Acme GmbH", "Credit": "7", "Note": "paid"}));
    assert_eq!(stays.canonical(), json!({"name": "Acme GmbH", "credit": "7", "note": "paid"}));
    assert!(!stays.known().record.provenance["name"].is_nobodys());
    let Step::Write(made) = stays.step("crm") else { panic!("it is made anew") };
    assert_eq!((made.item.operation, made.item.body["Name"].clone()), (WriteOperation::Create, json!("Acme GmbH")));

    let seen = new.read("crm", json!({"Name": "Acme", "Credit": "7", "Note": "paid"}));
    assert_eq!(seen.lanes(), ["crm:Restore", "erp:crm"], "its correlation field, and the other system");
    assert_eq!(new.canonical(), json!({"name": "Acme", "credit": "7", "note": "paid"}), "what was overwritten is lost");
    assert_eq!(new.known().record.version, 1);
}

#[test]
fn a_value_that_the_others_show_too_is_theirs() {
    let (mut stays, _, decided) = split(matched(OnForeignEdit::Restore), "crm");
    assert_eq!(fields(&decided.came), ["name"]);
    let seen = stays.read("erp", json!({"Name": "Acme", "Credit": "7", "Note": "paid"}));
    assert_eq!(stays.canonical()["name"], "Acme", "it was written there");
    assert!(!stays.known().record.provenance.contains_key("name"), "and is not the other's any more");
    assert!(seen.absorbed().history.is_empty() && !seen.absorbed().changes);
    // Whoever comes later finds it as it is with any record.
    stays.read("crm", json!({"Name": "Acme AG"}));
    assert_eq!(stays.canonical()["name"], "Acme AG", "the owner's");
}

#[test]
fn nothing_is_written_of_a_record_that_nobody_has_been_read_of() {
    let (_, mut new, _) = split(matched(OnForeignEdit::Restore), "erp");
    for who in ["crm", "erp"] {
        let Step::Settle(fairlead_store::Outcome::Filtered { reason }) = new.step(who) else { panic!("{who} is written") };
        assert_eq!(reason, "Unread");
    }
    new.read("erp", json!({"Name": "Acme GmbH", "Credit": "7"}));
    let Step::Write(made) = new.step("crm") else { panic!("it is made there") };
    assert_eq!(made.item.body, crate::decide::sample::document(json!({"Name": "Acme GmbH", "Credit": "7"})));
}

#[test]
fn a_correlation_field_gets_the_new_id_once() {
    let (_, mut new, _) = split(matched(OnForeignEdit::Restore), "erp");
    let shown = json!({"Name": "Acme", "Credit": "7", "Note": "paid", "ExternalId": World::new().shown("erp", json!({})).external_id});
    new.read("erp", shown.clone());
    let Step::Write(planned) = new.step("erp") else { panic!("its id is another") };
    assert_eq!((planned.item.operation, planned.renames()), (WriteOperation::Update, true));
    assert_eq!(new.write("erp"), Some(json!({"ExternalId": NEW.to_string()})));
    assert!(matches!(new.step("erp"), Step::Settle(fairlead_store::Outcome::Unchanged)));
    // Where a person puts it right, a reading tells.
    let (_, mut new, _) = split(matched(OnForeignEdit::Restore), "erp");
    let mut shown = shown;
    shown["ExternalId"] = json!(NEW.to_string());
    assert_eq!(new.read("erp", shown).lanes(), ["crm:erp"]);
    assert!(matches!(new.step("erp"), Step::Settle(fairlead_store::Outcome::Unchanged)));
}

#[test]
fn without_stamps_of_the_vendors_a_value_is_whose_system_showed_it_without_being_sent_it() {
    let mut world = matched(OnForeignEdit::Restore);
    world.known().record.provenance.clear();
    let known = world.known.clone().unwrap();
    let of = |who: &str| fields(&decide(&known, &[leaver(&world, who)], &parts()).unwrap().came);
    assert_eq!(of("crm"), ["name"]);
    assert_eq!(of("erp"), ["credit", "note"]);
    // What both showed of themselves stays with both.
    let mut both = World::new();
    both.read("crm", json!({"Name": "Acme"}));
    both.read("erp", json!({"Name": "Acme"}));
    both.known().record.provenance.clear();
    let known = both.known.clone().unwrap();
    assert!(decide(&known, &[leaver(&both, "crm")], &parts()).unwrap().came.is_empty());
}

#[test]
fn an_alias_leaves_alone_and_nothing_is_made_where_it_was() {
    let world = matched(OnForeignEdit::Restore);
    let known = world.known.clone().unwrap();
    let folded = RecordId(Uuid::from_u128(5));
    let state = ParticipantState { deleted: true, settled: 3, ..ParticipantState::default() };
    let identity = Identity { participant: "crm".into(), external_id: "crm-2".into(), state };
    let decided = decide(&known, &[Leaver { identity, stood_for: folded }], &parts()).unwrap();
    assert_eq!((decided.enqueue, decided.staying.len(), decided.came), (Vec::new(), 2, Vec::new()));
    let left = &decided.leaving[0].state;
    assert_eq!((left.deleted, left.keyed_as, left.settled), (false, Some(folded), 3));
    assert_eq!((decided.home.as_str(), decided.new_home.as_str()), ("crm", "crm"));
    assert_eq!(decided.rereads["crm"], [ExternalId("crm-2".into()), ExternalId("crm-1".into())]);
}

#[test]
fn what_cannot_be_split_is_refused_with_what_to_do() {
    let world = matched(OnForeignEdit::Restore);
    let known = world.known.clone().unwrap();
    let (crm, erp) = (leaver(&world, "crm"), leaver(&world, "erp"));
    let alias = Leaver { identity: Identity { external_id: "crm-2".into(), ..crm.identity.clone() }, ..crm.clone() };
    let with = |how: &dyn Fn(&mut Known)| {
        let mut known = known.clone();
        how(&mut known);
        known
    };
    let deleted = with(&|known| known.record.deleted_at = Some(Timestamp(1)));
    let gone = |who: &'static str| {
        with(&move |known| known.identities.iter_mut().filter(|held| held.participant == who).for_each(|held| held.state.deleted = true))
    };
    let unread = Parts { readers: ["erp".to_owned()].into(), ..parts() };
    for (known, leavers, parts, said) in [
        (deleted, vec![&crm], parts(), "the record is deleted; bring it back where it was born (crm)"),
        (known.clone(), vec![&crm, &erp], parts(), "all that hold the record would leave it"),
        (gone("erp"), vec![&crm], parts(), "all that hold the record would leave it"),
        (known.clone(), vec![&crm, &alias], parts(), "two ids of crm would leave together"),
        (gone("crm"), vec![&crm], parts(), "crm-1 is deleted in crm"),
        (
            known.clone(),
            vec![&crm],
            unread,
            "none of crm is read, so nothing would ever be known of the new record; have one leave with them that is read: erp",
        ),
    ] {
        let leavers: Vec<Leaver> = leavers.into_iter().cloned().collect();
        let refused = decide(&known, &leavers, &parts).unwrap_err().to_string();
        assert!(refused.starts_with(said), "{refused}");
    }
}

#[test]
fn what_nobody_reads_is_known_by_what_was_written_there() {
    let mut unit = unit();
    erp(&mut unit).read = None;
    let mut world = World::of(unit);
    world.read("crm", json!({"Name": "Acme"}));
    world.write("erp");
    world.learn("shop", "shop-1".into(), ParticipantState::default());
    let known = world.known.clone().unwrap();
    let parts = Parts { readers: ["crm".to_owned(), "shop".to_owned()].into(), targets: ["erp".to_owned()].into() };
    let decided = decide(&known, &[leaver(&world, "erp"), leaver(&world, "shop")], &parts).unwrap();
    assert_eq!(decided.leaving[0].state.fields, known.identity("erp").unwrap().state.fields);
    assert!(!decided.rereads.contains_key("erp"));
    // Its correlation field is put right when the values of the other one arrive.
    let mut new = World::new();
    let mut record = known.record.clone();
    (record.id, record.version, record.home) = (NEW, 0, decided.new_home.clone());
    (record.document, record.provenance) = Default::default();
    new.known = Some(Known { record, identities: decided.leaving.clone(), lanes: Vec::new(), merged_into: None });
    let seen = new.read("crm", json!({"Name": "Acme"}));
    assert_eq!(seen.lanes(), ["erp:crm"]);
    assert_eq!(new.write("erp"), Some(json!({"ExternalId": NEW.to_string()})));
}
