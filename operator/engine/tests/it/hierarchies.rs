//! Children wait for their parents; who waits for itself in the end is told so.

use crate::world::{Offers, REALM, World, report, until};
use fairlead_engine::{Engine, letters};
use fairlead_model::unit::{OnCycle, Reference};
use fairlead_model::{ExternalId, Timestamp};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Longer than a cycle is given to come apart by itself.
const PATIENCE: Duration = Duration::from_secs(11);

async fn start(on_cycle: OnCycle) -> (World, Engine) {
    let world = World::new(Offers::default(), true).await;
    let engine = Engine::start(world.config());
    engine.apply(&world.units_with_parents(on_cycle)).await;
    (world, engine)
}

/// How many of these wait for another one.
async fn waiting(world: &World, ids: &[&str]) -> usize {
    let ids: Vec<ExternalId> = ids.iter().map(|id| ExternalId((*id).into())).collect();
    let records: Vec<_> = world.store.record_ids(REALM, "crm", &ids).await.unwrap().into_iter().flatten().collect();
    world.store.waits_for(REALM, "erp", &records).await.unwrap().into_iter().flatten().count()
}

/// Three things that are each below the next, and a child of one of them.
fn put_cycle(world: &World) {
    let crm = world.vendor("crm");
    for (id, parent) in [("c1", "c2"), ("c2", "c3"), ("c3", "c1"), ("c4", "c3")] {
        crm.put(id, json!({"name": format!("Thing {id}"), "parent": parent}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_of_parents_is_a_dead_letter_that_names_it_and_the_rest_follows_when_it_is_broken() {
    let (world, engine) = start(OnCycle::DeadLetter).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    put_cycle(&world);
    // The one that closes it is put off, and the others wait.
    until("a cycle seen", async || waiting(&world, &["c1", "c2", "c3", "c4"]).await == 3).await;
    assert_eq!(world.letters().await.len(), 0, "it may come apart by itself");
    world.clock.pass(PATIENCE);
    let letter = world.letter(0).await;
    assert_eq!(letter.letter.reason, "ReferenceCycle");
    let message = &letter.letter.message;
    assert!(
        message.contains("3 new records") && message.contains("onCycle: Complete") && message.matches(" -> ").count() == 3,
        "{message}"
    );
    assert_eq!(erp.count(), 0);
    // Somebody corrects the one that it refers to, which is made; then the letter is replayed.
    let closer = world.store.known_by_id(REALM, &[letter.letter.record.unwrap()]).await.unwrap().remove(0).unwrap();
    let parents = [("c1", "c2"), ("c2", "c3"), ("c3", "c1"), ("c4", "c3")];
    let closer = closer.identity("crm").unwrap().external_id.0.clone();
    let (_, root) = parents.into_iter().find(|(child, _)| *child == closer).unwrap();
    crm.put(root, json!({"parent": null}));
    until("its parent", async || erp.count() == 1).await;
    letters::replay(world.store.as_ref(), &letter, "mia", Timestamp(0)).await.unwrap();
    until("all of them", async || erp.count() == 4 && world.letters().await.is_empty()).await;
    let id = |name: &str| erp.id_of(&format!("Thing {name}")).unwrap();
    for (child, parent) in parents.into_iter().filter(|(child, _)| *child != root) {
        assert_eq!(erp.value(&id(child), "parent"), id(parent).as_str(), "{child}");
    }
    assert!(report(&engine).is_some_and(|report| report.balanced));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_that_comes_apart_in_time_is_nobodys_letter() {
    for corrected in ["c1", "c2"] {
        let (world, engine) = start(OnCycle::DeadLetter).await;
        let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
        for (id, parent) in [("c1", "c2"), ("c2", "c1")] {
            crm.put(id, json!({"name": format!("Thing {id}"), "parent": parent}));
        }
        until("a cycle seen", async || waiting(&world, &["c1", "c2"]).await == 1).await;
        crm.put(corrected, json!({"parent": null}));
        until("both", async || {
            world.clock.pass(Duration::from_millis(100));
            erp.count() == 2
        })
        .await;
        assert!(world.letters().await.is_empty());
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thing_that_is_its_own_parent_is_a_cycle() {
    for (on_cycle, is_made) in [(OnCycle::DeadLetter, false), (OnCycle::Complete, true)] {
        let (world, engine) = start(on_cycle).await;
        let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
        crm.put("c1", json!({"name": "Ouroboros", "parent": "c1"}));
        if is_made {
            until("it with itself", async || erp.id_of("Ouroboros").is_some_and(|id| erp.value(&id, "parent") == id.as_str())).await;
        } else {
            until("a letter", async || {
                world.clock.pass(Duration::from_secs(1));
                world.letters().await.len() == 1
            })
            .await;
            assert_eq!(world.letters().await[0].letter.reason, "ReferenceCycle");
            // A later good version closes the letter.
            crm.put("c1", json!({"parent": null}));
            until("it made", async || erp.count() == 1).await;
        }
        assert!(world.letters().await.is_empty());
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_too_long_to_be_seen_at_once_is_found_when_it_has_waited_long_enough() {
    const COUNT: usize = 450;
    let (world, engine) = start(OnCycle::DeadLetter).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let ids: Vec<String> = (0..COUNT).map(|n| format!("c{n:03}")).collect();
    for (n, id) in ids.iter().enumerate() {
        crm.put(id, json!({"name": format!("Thing {id}"), "parent": ids[(n + 1) % COUNT]}));
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    until("all of them waiting", async || waiting(&world, &ids).await == COUNT).await;
    // Whoever waits for another one waits for a day.
    world.clock.pass(Duration::from_secs(24 * 3600 + 1));
    until("a letter", async || {
        world.clock.pass(Duration::from_secs(1));
        !world.letters().await.is_empty()
    })
    .await;
    let letters = world.letters().await;
    assert!(letters.iter().all(|letter| letter.letter.reason == "ReferenceCycle"), "{letters:?}");
    assert!(letters[0].letter.message.contains("450 new records"), "{}", letters[0].letter.message);
    assert_eq!(erp.count(), 0);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_row_says_so_one_of_them_is_made_first_and_completed() {
    let (world, engine) = start(OnCycle::Complete).await;
    let erp = world.vendor("erp");
    put_cycle(&world);
    until("all of them", async || erp.count() == 4).await;
    let id = |name: &str| erp.id_of(&format!("Thing {name}")).unwrap();
    for (child, parent) in [("c1", "c2"), ("c2", "c3"), ("c3", "c1"), ("c4", "c3")] {
        until("its parent", async || erp.value(&id(child), "parent") == id(parent).as_str()).await;
    }
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cycle_of_two_rows_the_one_that_may_be_completed_gives_way() {
    let world = World::new(Offers::default(), true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let mut units = world.units_with_parents(OnCycle::DeadLetter);
    for participant in &mut Arc::make_mut(units.integrations.values_mut().next().unwrap()).participants {
        let phone = &mut Arc::make_mut(participant).rows[1];
        phone.reference = Some(Reference { entity: "thing".into(), on_cycle: OnCycle::Complete });
    }
    let engine = Engine::start(world.config());
    engine.apply(&units).await;
    // Whichever of either pair closes it.
    for (child, parent) in [("c1", "c2"), ("c4", "c3")] {
        crm.put(child, json!({"name": child, "parent": parent}));
        crm.put(parent, json!({"name": parent, "phone": child}));
    }
    until("all of them", async || erp.count() == 4).await;
    let id = |name: &str| erp.id_of(name).unwrap();
    for (child, parent) in [("c1", "c2"), ("c4", "c3")] {
        until("both ways", async || {
            erp.value(&id(child), "parent") == id(parent).as_str() && erp.value(&id(parent), "phone") == id(child).as_str()
        })
        .await;
    }
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}
