//! What is known is carried to another store, and the work goes on there.

use crate::world::{Offers, REALM, World, report, until};
use fairlead_engine::Engine;
use fairlead_model::report::Phase;
use fairlead_model::{Clock as _, SystemClock};
use fairlead_store::archive::{self, Options};
use fairlead_store::contract_tests::archive::{rows, text_of};
use fairlead_store::contract_tests::server::Server;
use fairlead_store::{PostgresStore, SqliteStore, Store};
use serde_json::json;
use std::io::Cursor;
use std::sync::Arc;

async fn settled(engine: &Engine) {
    let rests = |report: fairlead_model::report::IntegrationReport| {
        report.phase == Phase::Live
            && report.participants.iter().all(|participant| participant.pending == 0 && participant.last_read.is_some())
    };
    until("rest", async || report(engine).is_some_and(rests)).await;
}

/// Both systems are looked at twice more.
async fn two_looks(world: &World) {
    for name in ["crm", "erp"] {
        let vendor = world.vendor(name);
        let asked = vendor.asked("GET /things?").len();
        until("two more looks", async || vendor.asked("GET /things?").len() > asked + 2).await;
    }
}

fn writes(world: &World) -> Vec<String> {
    ["crm", "erp"].iter().flat_map(|name| ["PUT", "PATCH"].map(|method| world.vendor(name).asked(method))).flatten().collect()
}

async fn import(store: &dyn Store, text: &str) {
    let options = Options { replace: false, behind: true, now: SystemClock.now() };
    archive::import(store, Cursor::new(text.to_owned()), options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_that_moves_to_postgresql_goes_on_without_a_creation_or_a_write() {
    let mut world = World::new(Offers::default(), true).await;
    for number in 0..20 {
        world.vendor("crm").put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    world.vendor("crm").put("c20", json!({"name": "x".repeat(40), "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || world.vendor("erp").count() == 20).await;
    settled(&engine).await;
    engine.stop().await;
    let text = text_of(world.store.as_ref(), None).await;

    let server = Server::start();
    world.store = Arc::new(PostgresStore::open(&server.database("moved")).await.unwrap());
    import(world.store.as_ref(), &text).await;
    // That its participants are to be looked at before anything is created there is all that differs.
    let there = text_of(world.store.as_ref(), None).await.replace("\"complete\":false", "\"complete\":true");
    assert_eq!(&rows(&there)[..rows(&there).len() - 1], &rows(&text)[..rows(&text).len() - 1]);
    let before = writes(&world);
    let engine = world.engine().await;
    settled(&engine).await;
    two_looks(&world).await;
    assert_eq!(writes(&world), before);
    assert_eq!(world.letters().await.len(), 1, "an open letter stays one");
    // It works there.
    world.vendor("crm").put("c3", json!({"phone": "3"}));
    let id = world.vendor("erp").id_of("Thing 3").unwrap();
    until("an edit delivered", async || world.vendor("erp").value(&id, "phone") == "3").await;
    assert_eq!(writes(&world).len(), before.len() + 1);
    assert!(report(&engine).unwrap().balanced);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_export_converges_with_systems_that_went_on() {
    let mut world = World::new(Offers::default(), true).await;
    for number in 0..5 {
        world.vendor("crm").put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    let engine = world.engine().await;
    until("the first load", async || world.vendor("erp").count() == 5).await;
    settled(&engine).await;
    let text = text_of(world.store.as_ref(), Some(REALM)).await;
    // An edit, a newcomer and a foreign edit after the backup, all brought to the other side.
    world.vendor("crm").put("c1", json!({"phone": "1"}));
    world.vendor("crm").put("c9", json!({"name": "Thing 9", "phone": "9"}));
    until("both delivered", async || world.vendor("erp").count() == 6).await;
    let one = world.vendor("erp").id_of("Thing 1").unwrap();
    until("the edit", async || world.vendor("erp").value(&one, "phone") == "1").await;
    settled(&engine).await;
    engine.stop().await;

    // The store is lost, and the backup takes its place.
    world.store = Arc::new(SqliteStore::open_in_memory().unwrap());
    import(world.store.as_ref(), &text).await;
    let before = writes(&world);
    // The CRM is seen first, and what is new there must not be created a second time before the ERP was looked at.
    world.vendor("erp").fault("GET /things?", crate::vendor::Fault::Status(503), 2);
    let engine = world.engine().await;
    until("the newcomer known", async || world.store.snapshot(REALM, SystemClock.now()).await.unwrap().matched == 6).await;
    settled(&engine).await;
    two_looks(&world).await;
    assert_eq!(writes(&world), before, "what both systems hold was written again");
    assert_eq!(world.vendor("erp").count(), 6);
    world.vendor("crm").put("c9", json!({"phone": "99"}));
    let nine = world.vendor("erp").id_of("Thing 9").unwrap();
    until("an edit delivered", async || world.vendor("erp").value(&nine, "phone") == "99").await;
    assert!(report(&engine).unwrap().balanced);
    engine.stop().await;
}
