//! Several Integrations that feed one golden record.

use crate::vendor::{Fault, Vendor};
use crate::world::{Offers, Side, World, until};
use fairlead_engine::Engine;
use fairlead_model::hash::Digest;
use fairlead_model::unit::{
    DeletionPolicy, Guard, InitialLoad, IntegrationUnit, MasterUnit, ObjectKey, ParticipantUnit, Sibling, Tie, Units,
};
use fairlead_model::{Clock, ExternalId, ObjectRef, realm};
use fairlead_store::{Fate, Known};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const REALM: &str = "contract:test/thing";
pub(crate) const EUROPE: &str = "test/europe";
pub(crate) const AMERICA: &str = "test/america";

/// Two units, each with a CRM and an ERP that are read and written.
pub(crate) async fn two_units() -> World {
    let mut world = World::new(Offers::default(), true).await;
    world.sides.clear();
    for name in ["eu-crm", "eu-erp", "us-crm", "us-erp"] {
        world.sides.push(Side { name, vendor: Vendor::start().await, offers: Offers::default(), read: true, write: true });
    }
    world
}

/// The units of these Integrations, which know each other.
fn units(world: &World, running: &[&str]) -> Units {
    let all = world.units();
    let whole = all.integrations.values().next().unwrap();
    let integrations: BTreeMap<&str, Vec<Arc<ParticipantUnit>>> = running
        .iter()
        .map(|key| {
            let object = ObjectKey((*key).into()).object().unwrap();
            let unit = if *key == EUROPE { "eu" } else { "us" };
            let own = whole.participants.iter().filter(|each| each.name.starts_with(unit));
            let named = own.map(|each| {
                let role = each.name[3..].to_owned();
                Arc::new(ParticipantUnit { name: realm::full_name(&object, &each.name), role, ..(**each).clone() })
            });
            (*key, named.collect())
        })
        .collect();
    let sibling = |each: &Arc<ParticipantUnit>| Sibling {
        name: each.name.clone(),
        role: each.role.clone(),
        reads: true,
        writes: true,
        load: InitialLoad::MatchOrCreate,
    };
    let unit = |key: &str| {
        let others = integrations.iter().filter(|(other, _)| **other != key);
        let object: ObjectRef = ObjectKey(key.into()).object().unwrap();
        IntegrationUnit {
            object,
            digest: Digest::default(),
            participants: integrations[key].clone(),
            master: Some(MasterUnit { siblings: others.flat_map(|(_, participants)| participants.iter().map(sibling)).collect() }),
            ..(**whole).clone()
        }
    };
    Units { integrations: running.iter().map(|key| (ObjectKey((*key).into()), Arc::new(unit(key).sealed()))).collect(), ..all }
}

/// The same while one of them may do no more than this.
fn loading(mut units: Units, key: &str, load: InitialLoad) -> Units {
    for (of, unit) in &mut units.integrations {
        let unit = Arc::make_mut(unit);
        if of.0 == key {
            *unit = IntegrationUnit { initial_load: load, ..unit.clone() }.sealed();
        } else if let Some(master) = &mut unit.master {
            master.siblings.iter_mut().filter(|sibling| sibling.name.starts_with(key)).for_each(|sibling| sibling.load = load);
        }
    }
    units
}

/// The same while one of them is paused.
fn paused(mut units: Units, key: &str) -> Units {
    for (of, unit) in &mut units.integrations {
        let unit = Arc::make_mut(unit);
        if of.0 == key {
            *unit = IntegrationUnit { paused: true, ..unit.clone() }.sealed();
        } else if let Some(master) = &mut unit.master {
            master.siblings.iter_mut().filter(|sibling| sibling.name.starts_with(key)).for_each(|sibling| sibling.reads = false);
        }
    }
    units
}

pub(crate) async fn engine(world: &World, running: &[&str]) -> Engine {
    let engine = Engine::start(world.config());
    engine.apply(&units(world, running)).await;
    engine
}

/// What was written to a system, in all.
fn writes(world: &World, name: &str) -> usize {
    world.vendor(name).asked("PUT").len() + world.vendor(name).asked("PATCH").len()
}

/// Waits until everybody was asked for news a few times more, and says what was written meanwhile.
async fn writes_while_nothing_happens(world: &World) -> usize {
    let all = || world.sides.iter().map(|side| writes(world, side.name)).sum::<usize>();
    let before = all();
    let asked: Vec<usize> = world.sides.iter().map(|side| side.vendor.asked("GET /things").len()).collect();
    until("some more polls", async || {
        world.sides.iter().zip(&asked).all(|(side, asked)| side.vendor.asked("GET /things").len() >= asked + 8)
    })
    .await;
    all() - before
}

async fn known(world: &World, participant: &str, id: &str) -> Option<Known> {
    world.store.known_by_external(REALM, participant, &[ExternalId(id.into())]).await.unwrap().pop().flatten()
}

/// Whether all systems hold this number of the one thing.
fn everybody_holds(world: &World, phone: &str) -> bool {
    world.sides.iter().all(|side| side.vendor.value(&side.vendor.id_of("Acme").unwrap(), "phone") == phone)
}

/// Two units in which the latest of several systems of one role has the word; a thing that was born in Europe is everywhere, and all is quiet.
async fn where_the_latest_counts() -> (World, Engine) {
    let mut world = two_units().await;
    world.tie = Tie::Latest;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    everywhere(&world, "Acme").await;
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    (world, engine)
}

async fn everywhere(world: &World, name: &str) {
    until("the thing everywhere", async || world.sides.iter().all(|side| side.vendor.id_of(name).is_some())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_in_one_unit_arrives_in_the_others_once_and_then_all_is_quiet() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    everywhere(&world, "Acme").await;
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    let before: Vec<usize> = world.sides.iter().map(|side| writes(&world, side.name)).collect();
    world.vendor("eu-crm").put("e1", json!({"phone": "2"}));
    until("the edit everywhere", async || everybody_holds(&world, "2")).await;
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    let since: Vec<usize> = world.sides.iter().zip(before).map(|(side, before)| writes(&world, side.name) - before).collect();
    assert_eq!(since, [0, 1, 1, 1], "once in each of the others");
    let known = known(&world, "test/europe/eu-crm", "e1").await.unwrap();
    assert_eq!((known.identities.len(), known.record.home.as_str()), (4, "test/europe/eu-crm"));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_own_a_field_has_it_put_back_in_whichever_unit_and_that_is_kept() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    everywhere(&world, "Acme").await;
    // The ERP owns nothing, and of the two CRMs the one where the record was born has the word.
    for name in ["us-erp", "us-crm"] {
        let vendor = world.vendor(name);
        let id = vendor.id_of("Acme").unwrap();
        until("its first reading", async || known(&world, &format!("test/america/{name}"), &id).await.is_some()).await;
        assert_eq!(writes_while_nothing_happens(&world).await, 0);
        vendor.put(&id, json!({"phone": "wrong"}));
        until("the word of the owner", async || vendor.value(&id, "phone") == "1").await;
    }
    assert_eq!(world.vendor("eu-crm").value("e1", "phone"), "1");
    let record = known(&world, "test/europe/eu-crm", "e1").await.unwrap().record.id;
    let history = world.store.history(REALM, record, world.clock.now()).await.unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|past| (past.participant.as_str(), past.change.field.as_ref().unwrap().to_string(), past.change.to.clone().unwrap()))
        .collect();
    let expected = ["test/america/us-crm", "test/america/us-erp"].map(|participant| (participant, "phone".to_owned(), json!("wrong")));
    assert_eq!(told, expected, "the newest first");
    let reported = engine.reports().borrow().integrations[&ObjectKey(AMERICA.into())].clone();
    let names: Vec<_> = reported.participants.iter().map(|each| each.name.as_str()).collect();
    assert_eq!(names, ["us-crm", "us-erp"], "within its Integration a participant has its own name");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_latest_has_the_word_it_is_the_vendors_times_that_count_and_not_where_the_record_was_born() {
    let (world, engine) = where_the_latest_counts().await;
    let (home, other) = (world.vendor("eu-crm"), world.vendor("us-crm"));
    let written = || -> Vec<usize> { world.sides.iter().map(|side| writes(&world, side.name)).collect() };
    let conflicts = |key: &str| -> Vec<u64> {
        let reports = engine.reports().borrow().clone();
        reports.integrations[&ObjectKey(key.into())].participants.iter().map(|each| each.conflicts).collect()
    };
    // An hour later than the home's clock says.
    other.forward(3600);
    other.put(&other.id_of("Acme").unwrap(), json!({"phone": "later"}));
    until("the later edit everywhere", async || everybody_holds(&world, "later")).await;
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    // What is edited at home comes after that, and is earlier by the home's own clock.
    let before = written();
    home.put("e1", json!({"phone": "earlier"}));
    until("the word of the later one", async || home.value("e1", "phone") == "later").await;
    until("the conflict", async || conflicts(EUROPE) == [1, 0]).await;
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    let since: Vec<usize> = written().into_iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!((since, everybody_holds(&world, "later")), (vec![1, 0, 0, 0], true), "it goes nowhere else");
    home.forward(7200);
    home.put("e1", json!({"phone": "latest"}));
    until("the latest edit everywhere", async || everybody_holds(&world, "latest")).await;
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    assert_eq!((conflicts(EUROPE), conflicts(AMERICA)), (vec![1, 0], vec![0, 0]));
    let record = known(&world, "test/europe/eu-crm", "e1").await.unwrap().record.id;
    let told = world.store.history(REALM, record, world.clock.now()).await.unwrap();
    let told: Vec<_> = told.into_iter().map(|past| (past.participant, past.change.from, past.change.to, past.change.fate)).collect();
    let past = |participant: &str, from: &str, to: &str, fate: Fate| (participant.to_owned(), Some(json!(from)), Some(json!(to)), fate);
    let (europe, america) = ("test/europe/eu-crm", "test/america/us-crm");
    let expected = [
        past(europe, "later", "latest", Fate::Won),
        past(europe, "later", "earlier", Fate::Conflict),
        past(america, "1", "later", Fate::Won),
    ];
    assert_eq!(told, expected, "the newest first");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_latest_has_the_word_an_edit_that_is_not_read_yet_is_not_written_over() {
    let (world, engine) = where_the_latest_counts().await;
    let (home, other) = (world.vendor("eu-crm"), world.vendor("us-crm"));
    // The later edit lies in a system that cannot be listed just now, and the earlier one is on its way there.
    other.fault("GET /things?since", Fault::Status(503), usize::MAX);
    other.forward(3600);
    other.put(&other.id_of("Acme").unwrap(), json!({"phone": "later"}));
    home.put("e1", json!({"phone": "earlier"}));
    until("the later edit everywhere", async || everybody_holds(&world, "later")).await;
    other.heal();
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    assert!(everybody_holds(&world, "later"));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_before_the_readers_of_all_units_are_matched() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    world.vendor("us-crm").put("u1", json!({"name": "Acme", "phone": "2"}));
    world.vendor("us-crm").fault("GET /things", Fault::Status(500), usize::MAX);
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    until("the other asked", async || world.vendor("us-crm").asked("GET /things").len() > 2).await;
    until("the ERP read", async || world.vendor("eu-erp").asked("GET /things").len() > 8).await;
    assert_eq!(world.sides.iter().map(|side| writes(&world, side.name)).sum::<usize>(), 0);
    let awaited = || engine.reports().borrow().integrations[&ObjectKey(EUROPE.into())].awaited.clone();
    until("who is waited for", async || awaited() == ["test/america/us-crm"]).await;
    world.vendor("us-crm").heal();
    everywhere(&world, "Acme").await;
    assert!(world.sides.iter().all(|side| side.vendor.count() == 1), "one record, found in both units");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_reader_that_is_refused() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    world.vendor("us-crm").fault("GET /things", Fault::Status(403), usize::MAX);
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    until("the first unit alone", async || world.vendor("eu-erp").id_of("Acme").is_some()).await;
    assert_eq!(writes(&world, "us-erp"), 0, "its own wait for it");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_does_not_wait_for_the_readers_of_others() {
    let mut world = two_units().await;
    world.guard = Guard { max_delete_percent: None, max_change_percent: Some(50), confirm: None };
    for number in 0..20 {
        world.vendor("eu-crm").put(&format!("e{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    world.vendor("us-crm").fault("GET /things", Fault::Status(500), usize::MAX);
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    let report = || engine.reports().borrow().integrations.get(&ObjectKey(EUROPE.into())).cloned();
    until("its own readers", async || report().is_some_and(|report| !report.awaited.is_empty())).await;
    for number in 0..20 {
        world.vendor("eu-crm").put(&format!("e{number}"), json!({"phone": "gone wrong"}));
    }
    until("the guard", async || report().is_some_and(|report| report.guard.is_some())).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_readers_of_a_unit_that_is_paused_and_nobody_begins_anew_for_it() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    world.vendor("us-crm").fault("GET /things", Fault::Status(500), usize::MAX);
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    until("the other asked", async || world.vendor("us-crm").asked("GET /things").len() > 2).await;
    assert_eq!(writes(&world, "eu-erp"), 0);
    let digest = |engine: &Engine| engine.reports().borrow().integrations[&ObjectKey(EUROPE.into())].digest.clone();
    let before = digest(&engine);
    engine.apply(&paused(units(&world, &[EUROPE, AMERICA]), AMERICA)).await;
    until("the first unit alone", async || world.vendor("eu-erp").id_of("Acme").is_some()).await;
    assert_eq!((digest(&engine), writes(&world, "us-erp")), (before, 0));
    // What it missed waits in its lanes.
    world.vendor("us-crm").heal();
    engine.apply(&units(&world, &[EUROPE, AMERICA])).await;
    everywhere(&world, "Acme").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_joins_later_is_matched_first_and_stops_nobody() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    let engine = engine(&world, &[EUROPE]).await;
    until("the first unit", async || world.vendor("eu-erp").id_of("Acme").is_some()).await;
    world.vendor("us-crm").put("u1", json!({"name": "Acme", "phone": "old"}));
    world.vendor("us-crm").fault("GET /things", Fault::Status(500), usize::MAX);
    engine.apply(&units(&world, &[EUROPE, AMERICA])).await;
    until("the newcomer asked", async || world.vendor("us-crm").asked("GET /things").len() > 2).await;
    world.vendor("eu-crm").put("e2", json!({"name": "Bolt", "phone": "1"}));
    until("a creation in the first unit", async || world.vendor("eu-erp").id_of("Bolt").is_some()).await;
    assert_eq!(writes(&world, "us-erp"), 0, "its own systems wait for it");
    world.vendor("us-crm").heal();
    everywhere(&world, "Bolt").await;
    until("the golden value", async || world.vendor("us-crm").value("u1", "phone") == "1").await;
    everywhere(&world, "Acme").await;
    assert!(world.sides.iter().all(|side| side.vendor.count() == 2));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_previews_or_only_matches_makes_nothing_in_the_systems_of_others() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme"}));
    let engine = engine(&world, &[EUROPE]).await;
    until("the first unit", async || world.vendor("eu-erp").id_of("Acme").is_some()).await;
    // Its own record is read back: from then on nothing of the first unit is on its way.
    let polls = |name: &str| world.vendor(name).asked("GET /things").len();
    let (crm, erp) = (polls("eu-crm"), polls("eu-erp"));
    until("it at rest", async || polls("eu-crm") > crm + 3 && polls("eu-erp") > erp + 3).await;
    world.vendor("us-crm").put("u1", json!({"name": "Acme", "phone": "1"}));
    world.vendor("us-crm").put("u2", json!({"name": "Bolt", "phone": "2"}));
    let before = writes(&world, "eu-crm") + writes(&world, "eu-erp");
    let both = || units(&world, &[EUROPE, AMERICA]);
    engine.apply(&loading(both(), AMERICA, InitialLoad::Preview)).await;
    until("a preview", async || {
        engine.reports().borrow().integrations.get(&ObjectKey(AMERICA.into())).is_some_and(|report| report.preview.is_some())
    })
    .await;
    let preview = engine.reports().borrow().integrations[&ObjectKey(AMERICA.into())].preview.unwrap();
    assert_eq!((preview.matched, preview.would_create), (1, 2), "in its own ERP");
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    assert_eq!(writes(&world, "eu-crm") + writes(&world, "eu-erp"), before);

    engine.apply(&loading(both(), AMERICA, InitialLoad::MatchOnly)).await;
    let phone = |name: &str| world.vendor(name).value(&world.vendor(name).id_of("Acme").unwrap(), "phone");
    until("what matches", async || phone("eu-erp") == "1" && phone("eu-crm") == "1").await;
    world.vendor("us-crm").put("u2", json!({"phone": "3"}));
    assert_eq!(writes_while_nothing_happens(&world).await, 0);
    assert_eq!((world.vendor("eu-erp").count(), world.vendor("eu-crm").count()), (1, 1), "what matches nothing is made nowhere");

    engine.apply(&both()).await;
    everywhere(&world, "Bolt").await;
    everywhere(&world, "Acme").await;
    assert!(world.sides.iter().all(|side| side.vendor.count() == 2));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_of_one_unit_holds_that_one_alone() {
    let mut world = two_units().await;
    world.guard = Guard { max_delete_percent: None, max_change_percent: Some(50), confirm: None };
    for number in 0..20 {
        world.vendor("us-crm").put(&format!("u{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    until("the first load", async || world.sides.iter().all(|side| side.vendor.count() == 21)).await;
    let loaded = |engine: &Engine| {
        let reports = engine.reports().borrow().clone();
        reports.integrations.values().all(|report| report.lag.is_some_and(|lag| lag.pending == 0))
    };
    until("rest", async || loaded(&engine)).await;
    for number in 0..20 {
        world.vendor("us-crm").put(&format!("u{number}"), json!({"phone": "gone wrong"}));
    }
    let held = |key: &str| engine.reports().borrow().integrations[&ObjectKey(key.into())].guard.is_some();
    until("the guard", async || held(AMERICA)).await;
    world.vendor("eu-crm").put("e1", json!({"phone": "2"}));
    let id = world.vendor("eu-erp").id_of("Acme").unwrap();
    until("the other unit", async || world.vendor("eu-erp").value(&id, "phone") == "2").await;
    assert!(!held(EUROPE));
    // Without the other it begins anew, with the unit that the guard holds.
    engine.apply(&units(&world, &[AMERICA])).await;
    until("its first look", async || !engine.reports().borrow().integrations[&ObjectKey(AMERICA.into())].participants.is_empty()).await;
    assert!(held(AMERICA));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unit_leaves_and_the_golden_records_stay_as_long_as_anybody_holds_them() {
    let world = two_units().await;
    world.vendor("eu-crm").put("e1", json!({"name": "Acme", "phone": "1"}));
    let engine = engine(&world, &[EUROPE, AMERICA]).await;
    everywhere(&world, "Acme").await;
    until("all of it known", async || known(&world, "test/europe/eu-crm", "e1").await.is_some_and(|known| known.identities.len() == 4))
        .await;
    let without = |running: &[&str], gone: &str| {
        let mut units = units(&world, running);
        units.removed.insert(ObjectKey(gone.into()), DeletionPolicy::Delete);
        units
    };
    let two_hold = async || known(&world, "test/europe/eu-crm", "e1").await.is_some_and(|known| known.identities.len() == 2);
    engine.apply(&without(&[EUROPE], AMERICA)).await;
    until("what went is forgotten", two_hold).await;
    world.vendor("eu-crm").put("e1", json!({"phone": "2"}));
    let id = world.vendor("eu-erp").id_of("Acme").unwrap();
    until("the others go on", async || world.vendor("eu-erp").value(&id, "phone") == "2").await;

    // It comes back: what was there is found again, and nothing is made a second time.
    engine.apply(&units(&world, &[EUROPE, AMERICA])).await;
    until("what it missed", async || {
        ["us-crm", "us-erp"].iter().all(|name| {
            let vendor = world.vendor(name);
            vendor.value(&vendor.id_of("Acme").unwrap(), "phone") == "2"
        })
    })
    .await;
    assert!(world.sides.iter().all(|side| side.vendor.count() == 1));

    engine.apply(&without(&[EUROPE], AMERICA)).await;
    until("it is forgotten again", two_hold).await;
    engine.apply(&without(&[], EUROPE)).await;
    until("nobody is left", async || !world.store.realms().await.unwrap().contains(&REALM.to_owned())).await;
    engine.stop().await;
}
