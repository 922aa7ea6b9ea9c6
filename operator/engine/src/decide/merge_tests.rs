use super::*;
use crate::decide::outbound::Step;
use crate::decide::sample::{World, document, erp, golden, unit};
use fairlead_model::unit::{OnDelete, OwnershipRule};
use fairlead_store::Outcome;
use fairlead_systems::WriteOperation;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// A record of that id, held by these participants, each showing its values.
fn held(id: u128, by: &[(&str, Value)]) -> Known {
    let mut world = World::new();
    for (who, body) in by {
        world.read(who, body.clone());
    }
    let mut known = world.known.unwrap();
    known.record.id = RecordId(Uuid::from_u128(id));
    known.lanes.clear();
    known
}

fn folded(world: &World, loser: &Known, survivor: &Known) -> (Record, Vec<String>, Vec<String>) {
    match fold(&world.program, world.participant("crm"), loser, survivor, None) {
        Survivor::Record { record, enqueue, put_away, aliases, .. } => {
            assert!(aliases.iter().all(|(participant, state)| participant == "crm" && state.deleted), "{aliases:?}");
            let names = |lanes: Vec<(String, Origin)>| lanes.into_iter().map(|(target, _)| target).collect();
            (record, names(enqueue), names(put_away))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_survivor_is_as_the_vendor_left_it_and_takes_what_only_the_losers_owners_know() {
    let loser = held(1, &[("crm", json!({"Name": "Acme Ltd", "Note": "old"})), ("erp", json!({"Name": "Acme Ltd", "Credit": "70"}))]);
    let survivor = held(2, &[("crm", json!({"Name": "Acme", "Credit": "5"}))]);
    let (record, enqueue, put_away) = folded(&World::new(), &loser, &survivor);
    assert_eq!((record.id, record.version), (survivor.record.id, survivor.record.version + 1));
    assert_eq!(Value::Object(record.document), json!({"name": "Acme", "credit": "70"}));
    // The ERP has the loser's name, the CRM the survivor's own idea of the credit.
    assert_eq!(enqueue, ["crm", "erp"]);
    assert!(put_away.is_empty());
}

#[test]
fn a_second_external_id_is_put_away_only_where_that_is_declared() {
    let both =
        |id: u128, name: &str| held(id, &[("crm", json!({"Name": name, "Credit": "7"})), ("erp", json!({"Name": name, "Credit": "7"}))]);
    let (loser, survivor) = (both(1, "Acme Ltd"), both(2, "Acme"));
    let (_, enqueue, put_away) = folded(&World::new(), &loser, &survivor);
    assert_eq!((enqueue.len(), put_away.len()), (0, 0), "Keep");
    let mut archives = unit();
    erp(&mut archives).write.as_mut().unwrap().on_merge = OnMerge::Archive;
    erp(&mut archives).write.as_mut().unwrap().on_delete = OnDelete::Delete;
    let mut world = World::of(archives);
    assert_eq!(folded(&world, &loser, &survivor).2, ["erp"]);
    // The lane then finds the merged record, and does to it what is declared for merges, not for deletions.
    let mut merged = loser;
    (merged.merged_into, merged.record.deleted_at) = (Some(survivor.record.id), Some(Timestamp(1)));
    world.known = Some(merged);
    let Step::Write(planned) = world.step("erp") else { panic!("nothing is written") };
    assert_eq!((planned.item.operation, planned.item.id), (WriteOperation::Archive, Some(ExternalId("erp-1".into()))));
    let mut keeps = World::new();
    keeps.known = world.known;
    assert!(matches!(keeps.step("erp"), Step::Settle(Outcome::Filtered { reason }) if reason == "Keep"));
}

#[test]
fn nobody_is_above_himself_after_a_merge_whichever_integration_maps_the_parent() {
    let mut unit = golden();
    for participant in &mut unit.participants {
        Arc::make_mut(participant).rows.retain(|row| row.reference.is_none());
    }
    let loser = held(1, &[("crm", json!({"Name": "Acme Ltd"}))]);
    let mut survivor = held(2, &[("crm", json!({"Name": "Acme"}))]);
    survivor.record.document.insert("parentId".into(), json!(loser.record.id.to_string()));
    let (record, ..) = folded(&World::of(unit), &loser, &survivor);
    assert_eq!(Value::Object(record.document), json!({"name": "Acme"}));
}

#[test]
fn a_merge_concerns_the_systems_of_other_integrations_as_well() {
    const EU: &str = "eu/customers/erp";
    let world = World::of(golden());
    let mut loser = held(1, &[("crm", json!({"Name": "Acme Ltd"})), ("erp", json!({"Name": "Acme Ltd", "Credit": "70"}))]);
    // Filled by the others alone.
    loser.record.document.insert("ext".into(), json!({"europe": {"vatGroup": "DE1"}}));
    let mut owned = golden();
    owned.ownership.push(OwnershipRule { fields: vec!["*".into()], role: "erp".into() });
    let survivor = held(2, &[("crm", json!({"Name": "Acme"}))]);
    let (record, enqueue, put_away) = folded(&World::of(owned), &loser, &survivor);
    assert_eq!(record.document["ext"], json!({"europe": {"vatGroup": "DE1"}}));
    assert_eq!(enqueue, ["crm", "erp", EU]);
    assert!(put_away.is_empty());
    let there = |known: &Known| {
        let identity = Identity { participant: EU.into(), external_id: ExternalId(known.record.id.to_string()), state: Default::default() };
        Known { identities: known.identities.iter().cloned().chain([identity]).collect(), ..known.clone() }
    };
    let (loser, survivor) = (there(&loser), there(&survivor));
    assert_eq!(folded(&world, &loser, &survivor).2, [EU], "what becomes of the second one is found out in its lane");
    let ids = (RecordId(Uuid::from_u128(8)), RecordId(Uuid::from_u128(9)));
    let (found, _) = referring(&world.program, world.participant("crm"), &[survivor], ids);
    assert!(found[0].enqueue.iter().any(|(target, _)| target == EU));
}

#[test]
fn what_refers_to_the_loser_refers_to_the_survivor_and_nothing_to_itself() {
    let world = World::new();
    let ids = (RecordId(Uuid::from_u128(1)), RecordId(Uuid::from_u128(2)));
    let refers = |id: u128, to: RecordId| {
        let mut known = held(id, &[("crm", json!({"Name": "Child"})), ("erp", json!({"Name": "Child"}))]);
        known.record.document.insert("parentId".into(), json!(to.to_string()));
        known
    };
    let page = [refers(3, ids.0), refers(4, ids.1), refers(2, ids.0)];
    let (found, rereads) = referring(&world.program, world.participant("crm"), &page, ids);
    let parents: Vec<_> = found
        .iter()
        .map(|found| match &found.change {
            RecordChange::Update { record, .. } => record.document["parentId"].clone(),
            RecordChange::Keep { .. } => Value::Null,
            RecordChange::Insert { .. } => panic!("a record that is there is not inserted"),
        })
        .collect();
    assert_eq!(parents, [json!(ids.1.to_string()), Value::Null], "the survivor itself is not among them");
    assert!(found.iter().all(|found| found.enqueue == [("erp".to_owned(), Origin::Source("crm".into()))]));
    assert_eq!(rereads, [ExternalId("crm-1".into())], "where the vendor merged, it is read and not written");
    let (record, ..) = folded(&world, &held(1, &[("crm", json!({"Name": "Acme"}))]), &page[2]);
    assert_eq!(record.document.get("parentId"), None);
    let mut lists = document(json!({"lines": [{"product": "a"}, {"product": "b"}]}));
    assert!(replace(&mut lists, "b", "c"));
    assert_eq!(Value::Object(lists), json!({"lines": [{"product": "a"}, {"product": "c"}]}));
}

#[test]
fn a_merge_is_undone_when_the_loser_is_shown_alive_after_it() {
    let alias = |deleted: bool, modified: Option<i64>| Identity {
        participant: "crm".into(),
        external_id: "crm-2".into(),
        state: fairlead_model::state::ParticipantState { deleted, modified, ..Default::default() },
    };
    let at = |stamp: i64| Some(Timestamp(stamp));
    assert!(undone(&alias(true, Some(5)), false, at(6)));
    assert!(!undone(&alias(true, Some(5)), false, at(5)), "a read from before the merge");
    assert!(!undone(&alias(true, Some(5)), true, at(6)), "it is gone");
    assert!(!undone(&alias(false, Some(5)), false, at(6)), "a second id elsewhere, which its vendor never deleted");
    assert!(undone(&alias(true, None), false, None), "where nothing tells the order, it is what it looks like");
}
