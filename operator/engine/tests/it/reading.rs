//! What cannot be read, or not soon, holds up nothing else.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, until};
use fairlead_model::ExternalId;
use serde_json::json;
use std::time::Duration;

async fn ask_again(world: &World, ids: &[&str]) {
    let ids: Vec<ExternalId> = ids.iter().map(|id| ExternalId::from(*id)).collect();
    world.store.request_reads(REALM, "crm", &ids, fairlead_model::Timestamp(0)).await.unwrap();
}

async fn pending(world: &World) -> Vec<ExternalId> {
    world.store.pending_reads(REALM, "crm", 100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_by_its_key_becomes_a_dead_letter_and_the_others_go_on() {
    let world = World::new(Offers::default(), true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..5 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 5).await;
    crm.fault("GET /things/c2", Fault::Status(500), usize::MAX);
    ask_again(&world, &["c0", "c1", "c2", "c3", "c4"]).await;
    until("the good ones read", async || pending(&world).await == [ExternalId::from("c2")]).await;
    // The list goes on all the while.
    crm.put("c4", json!({"phone": "2"}));
    let four = erp.id_of("Thing 4").unwrap();
    until("an edit delivered", async || erp.value(&four, "phone") == "2").await;
    let letter = world.letter(0).await;
    assert_eq!(letter.letter.external_id, Some("c2".into()));
    assert!(letter.letter.message.contains("cannot be read by its id"), "{}", letter.letter.message);
    assert!(pending(&world).await.is_empty());
    // A version of it that the list shows closes the letter.
    crm.put("c2", json!({"phone": "3"}));
    until("the letter closed", async || world.letters().await.is_empty()).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_can_only_be_listed_is_listed_anew_for_what_is_asked_for_by_key() {
    let mut world = World::new(Offers::default(), true).await;
    world.sides[0].offers.get = false;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Old", "phone": "1"}));
    crm.put("c1", json!({"name": "New", "phone": "1"}));
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 2).await;
    let whole = || crm.asked("GET /things ").len();
    let before = whole();
    ask_again(&world, &["c0", "never-there"]).await;
    until("both answered", async || pending(&world).await.is_empty()).await;
    assert!(whole() > before, "the list was not read from its beginning");
    crm.put("c1", json!({"phone": "2"}));
    let new = erp.id_of("New").unwrap();
    until("an edit delivered", async || erp.value(&new, "phone") == "2").await;
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_take_as_long_as_the_definition_says_and_longer_than_a_leases_margin() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Slow", "phone": "1"}));
    crm.fault("GET /things ", Fault::Slow(Duration::from_secs(12)), 1);
    let engine = world.engine().await;
    until("what the slow page held", async || erp.count() == 1).await;
    assert_eq!(crm.asked("GET /things").iter().filter(|line| !line.contains("since")).count(), 1, "it was asked for again");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_an_id_is_one_dead_letter_and_stops_nobody() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Whole", "phone": "1"}));
    crm.put("c1", json!({"name": "Nameless", "phone": "1"}));
    crm.hide_id("c1");
    let engine = world.engine().await;
    let dead = world.letter(0).await;
    assert!(dead.letter.external_id.is_none() && dead.letter.original.contains("Nameless"), "{dead:?}");
    until("the other one", async || erp.count() == 1).await;
    engine.stop().await;
    // Another process reads it again, and knows it.
    let engine = world.engine().await;
    let asked = crm.asked("GET /things").len();
    until("two more looks", async || crm.asked("GET /things").len() > asked + 2).await;
    assert_eq!(world.letters().await.len(), 1);
    engine.stop().await;
}
