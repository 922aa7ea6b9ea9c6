//! What was made one record by mistake becomes two again, by a person's word.

use crate::golden::{self, AMERICA, EUROPE};
use crate::vendor::{Fault, Vendor};
use crate::world::{Offers, REALM, Side, World, until};
use fairlead_engine::records::Name;
use fairlead_engine::split::{Leaves, SplitError, Told, Wanted, split};
use fairlead_engine::{Engine, invariants, letters};
use fairlead_model::unit::OnCycle;
use fairlead_model::{Clock, ExternalId, SystemRandom};
use fairlead_store::Known;
use serde_json::json;

/// A CRM that owns every field, and an ERP; both are read and written, and things have parents.
async fn two_systems() -> World {
    let mut world = World::new(Offers::default(), true).await;
    world.sides[0].write = true;
    world
}

async fn engine(world: &World) -> Engine {
    let engine = Engine::start(world.config());
    engine.apply(&world.units_with_parents(OnCycle::DeadLetter)).await;
    engine
}

async fn known(world: &World, realm: &str, participant: &str, id: &str) -> Option<Known> {
    world.store.known_by_external(realm, participant, &[ExternalId(id.into())]).await.unwrap().pop().flatten()
}

/// The ids under which a record is held, in the order of the participants' names.
async fn ids(world: &World, realm: &str, participant: &str, id: &str) -> Vec<(String, String)> {
    let known = known(world, realm, participant, id).await;
    let mut ids: Vec<_> = known.into_iter().flat_map(|known| known.identities).map(|held| (held.participant, held.external_id.0)).collect();
    ids.sort();
    ids
}

async fn people_split(
    world: &World,
    integration: &str,
    (participant, id): (&str, &str),
    leaves: &[&str],
    dry: bool,
) -> Result<Told, SplitError> {
    let record = Name::External { participant: participant.into(), id: id.into() };
    let leaving = |each: &&str| match each.split_once('=') {
        Some((participant, id)) => Leaves { participant: participant.into(), id: Some(id.into()) },
        None => Leaves { participant: (*each).into(), id: None },
    };
    let leaves: Vec<Leaves> = leaves.iter().map(leaving).collect();
    let wanted = Wanted { integration: Some(integration), record: &record, leaves: &leaves, author: "kim", now: world.clock.now() };
    split(world.store.as_ref(), &wanted, &SystemRandom, dry).await
}

/// Nothing is out of order, and nothing waits.
async fn at_rest(world: &World, realm: &str) {
    until("rest", async || {
        let snapshot = world.store.snapshot(realm, world.clock.now()).await.unwrap();
        snapshot.pending.values().all(|pending| pending.keys == 0)
    })
    .await;
    let snapshot = world.store.snapshot(realm, world.clock.now()).await.unwrap();
    assert_eq!(invariants::ledger(&snapshot), []);
    assert_eq!(invariants::identities(&world.store.records(realm, None, 100).await.unwrap()), []);
}

/// Everybody is asked for news a few times more.
async fn some_polls(world: &World) {
    let asked: Vec<usize> = world.sides.iter().map(|side| side.vendor.asked("GET /things?").len()).collect();
    until("some more polls", async || {
        world.sides.iter().zip(&asked).all(|(side, asked)| side.vendor.asked("GET /things?").len() >= asked + 6)
    })
    .await;
}

/// Acme of both systems is two companies of one name, and the ERP's was written the CRM's number; the CRM's has a daughter.
async fn taken_for_one(world: &World) -> Engine {
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c1", json!({"name": "Acme", "phone": "1"}));
    crm.put("c2", json!({"name": "Daughter", "parent": "c1"}));
    erp.put("e1", json!({"name": "Acme", "phone": "2"}));
    let engine = engine(world).await;
    until("one record of two", async || erp.value("e1", "phone") == "1").await;
    until("its daughter", async || erp.id_of("Daughter").is_some_and(|id| erp.value(&id, "parent") == "e1")).await;
    at_rest(world, REALM).await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_were_taken_for_one_go_their_ways_whoever_is_asleep_meanwhile() {
    let mut world = two_systems().await;
    let engine = taken_for_one(&world).await;
    let (crm, erp) = (world.vendor("crm").clone(), world.vendor("erp").clone());
    let old = known(&world, REALM, "crm", "c1").await.unwrap().record.id;
    assert_eq!(erp.value("e1", "key"), old.to_string(), "it was written by that");
    // What is split stands in the store alone: nobody has to be awake for it.
    engine.stop().await;

    let dry = people_split(&world, REALM, ("crm", "c1"), &["erp"], true).await.unwrap();
    assert_eq!(
        (dry.record, dry.leaving.clone(), dry.staying.clone()),
        (old, vec![("erp".into(), "e1".into())], vec![("crm".into(), "c1".into())])
    );
    assert_eq!(dry.referring, 1);
    assert!(dry.came.iter().all(|field| field.to_string() == "name"), "whoever was read first has brought it: {:?}", dry.came);
    assert_eq!(ids(&world, REALM, "crm", "c1").await.len(), 2, "only looked");
    let told = people_split(&world, REALM, ("crm", "c1"), &["erp"], false).await.unwrap();
    let new = told.new;
    for (named, leaves, said) in [
        (("crm", "c1"), "erp", "erp=e1 has left record"),
        (("erp", "e1"), "erp", "erp=e1 has left record"),
        (("crm", "c1"), "erp=e1", "erp=e1 has left record"),
        (("crm", "c1"), "shop", "shop does not hold record"),
        (("crm", "c1"), "erp=e9", "erp=e9 does not hold record"),
        (("crm", "c1"), "crm=c2", "crm=c2 stands for record"),
        (("crm", "c9"), "erp", "no record c9 is known"),
    ] {
        let refused = people_split(&world, REALM, named, &[leaves], false).await.unwrap_err().to_string();
        assert!(refused.starts_with(said), "{named:?} {leaves}: {refused}");
    }

    let engine = self::engine(&world).await;
    until("both in both", async || ids(&world, REALM, "crm", "c1").await.len() == 2 && ids(&world, REALM, "erp", "e1").await.len() == 2)
        .await;
    at_rest(&world, REALM).await;
    let made_in_erp = ids(&world, REALM, "crm", "c1").await[1].1.clone();
    let made_in_crm = ids(&world, REALM, "erp", "e1").await[0].1.clone();
    assert_eq!((erp.value("e1", "key"), erp.value(&made_in_erp, "key")), (json!(new.to_string()), json!(old.to_string())));
    assert_eq!((erp.value("e1", "name"), erp.value(&made_in_erp, "phone")), (json!("Acme"), json!("1")));
    assert_eq!(
        (crm.value(&made_in_crm, "key"), crm.value(&made_in_crm, "phone")),
        (json!(new.to_string()), json!("1")),
        "what was overwritten is lost"
    );
    // The CRM's daughter belongs to the CRM's Acme, whatever the ERP's was once told.
    let daughter = erp.id_of("Daughter").unwrap();
    until("the daughter with her mother", async || erp.value(&daughter, "parent") == made_in_erp.as_str()).await;
    assert_eq!(crm.value("c2", "parent"), "c1");
    crm.put("c1", json!({"phone": "11"}));
    crm.put(&made_in_crm, json!({"phone": "22"}));
    until("each its own number", async || erp.value(&made_in_erp, "phone") == "11" && erp.value("e1", "phone") == "22").await;
    some_polls(&world).await;
    at_rest(&world, REALM).await;
    assert_eq!((crm.count(), erp.count()), (3, 3), "nothing twice");
    assert!(world.letters().await.is_empty());
    let again = people_split(&world, REALM, ("crm", "c1"), &["erp"], false).await.unwrap_err().to_string();
    assert!(again.ends_with(&format!("unless what it holds there now is to leave as well: --leaves erp={made_in_erp}")), "{again}");

    // Who comes with the name of both is nobody's guess.
    let mdm = Side { name: "mdm", vendor: Vendor::start().await, offers: Offers::default(), read: true, write: false };
    mdm.vendor.put("m1", json!({"name": "Acme", "phone": "3"}));
    world.sides.push(mdm);
    engine.apply(&world.units_with_parents(OnCycle::DeadLetter)).await;
    let letter = world.letter(0).await.letter;
    assert_eq!((letter.reason.as_str(), letter.external_id.unwrap().0.as_str()), ("AmbiguousMatch", "m1"));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_by_an_id_that_another_one_still_carries() {
    let world = two_systems().await;
    let engine = taken_for_one(&world).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let old = known(&world, REALM, "crm", "c1").await.unwrap().record.id.to_string();
    // The ERP's Acme cannot be changed for a while, so the CRM's cannot be made there.
    erp.fault("PATCH /things/e1", Fault::Status(503), usize::MAX);
    let told = people_split(&world, REALM, ("crm", "c1"), &["erp"], false).await.unwrap();
    crm.put("c1", json!({"phone": "11"}));
    let letter = world.letter(0).await;
    some_polls(&world).await;
    assert!(erp.asked(&format!("PUT /things/{old}")).is_empty());
    assert_eq!((erp.value("e1", "phone"), erp.value("e1", "key"), erp.count()), (json!("1"), json!(old.as_str()), 2));
    erp.heal();
    letters::replay(world.store.as_ref(), &letter, "kim", world.clock.now()).await.unwrap();
    until("both in both", async || ids(&world, REALM, "crm", "c1").await.len() == 2 && ids(&world, REALM, "erp", "e1").await.len() == 2)
        .await;
    at_rest(&world, REALM).await;
    let made = ids(&world, REALM, "crm", "c1").await[1].1.clone();
    assert_eq!((erp.value("e1", "key"), erp.value("e1", "phone")), (json!(told.new.to_string()), json!("1")));
    assert_eq!((erp.value(&made, "key"), erp.value(&made, "phone")), (json!(old), json!("11")));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_records_of_several_units_are_split_while_all_of_them_run() {
    let world = golden::two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    world.vendor("us-crm").put("u1", json!({"name": "Acme", "phone": "2"}));
    let engine = golden::engine(&world, &[EUROPE, AMERICA]).await;
    let (europe, america) = ("test/europe/eu-crm", "test/america/us-crm");
    until("one record in all", async || ids(&world, golden::REALM, europe, "e1").await.len() == 4).await;
    // Whichever was read first has the word.
    until("one number", async || world.vendor("us-crm").value("u1", "phone") == world.vendor("eu-crm").value("e1", "phone")).await;
    at_rest(&world, golden::REALM).await;
    let unknown = people_split(&world, AMERICA, ("us-crm", "u1"), &[], false).await.unwrap_err().to_string();
    assert!(
        unknown.starts_with("say who leaves the record with --leaves; it is held by") && unknown.contains("test/america/us-crm=u1"),
        "{unknown}"
    );

    let told = people_split(&world, AMERICA, ("us-crm", "u1"), &["us-crm", "test/america/us-erp"], false).await.unwrap();
    assert_eq!((told.leaving.len(), told.staying.len()), (2, 2));
    until("both in all", async || {
        ids(&world, golden::REALM, europe, "e1").await.len() == 4 && ids(&world, golden::REALM, america, "u1").await.len() == 4
    })
    .await;
    at_rest(&world, golden::REALM).await;
    let (stayed, left) = (ids(&world, golden::REALM, europe, "e1").await, ids(&world, golden::REALM, america, "u1").await);
    assert!(stayed.iter().all(|each| !left.contains(each)));
    world.vendor("us-crm").put("u1", json!({"phone": "7"}));
    world.vendor("eu-crm").put("e1", json!({"phone": "8"}));
    let number = |(participant, id): &(String, String)| world.vendor(participant.rsplit('/').next().unwrap()).value(id, "phone");
    until("each its own number", async || left.iter().all(|each| number(each) == "7") && stayed.iter().all(|each| number(each) == "8"))
        .await;
    some_polls(&world).await;
    at_rest(&world, golden::REALM).await;
    assert!(world.sides.iter().all(|side| side.vendor.count() == 2), "nothing twice");
    let keys: Vec<_> = world
        .sides
        .iter()
        .map(|side| {
            let id = left.iter().find(|(participant, _)| participant.ends_with(side.name)).unwrap().1.clone();
            side.vendor.value(&id, "key")
        })
        .collect();
    assert!(keys.iter().all(|key| *key == told.new.to_string().as_str()), "{keys:?}");
    let letters = world.store.dead_letters(&fairlead_store::DeadLetterFilter { max: 9, ..Default::default() }).await.unwrap();
    assert!(letters.is_empty(), "{letters:?}");
    engine.stop().await;
}
