//! What came in and what went out add up, or it is told that they do not.

use crate::world::{Offers, REALM, World, report, until};
use fairlead_engine::Engine;
use fairlead_model::metric::LEDGER_UNBALANCED;
use fairlead_store::PostgresStore;
use fairlead_store::contract_tests::server::Server;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn books_that_do_not_add_up_are_told_until_they_do_and_meanwhile_the_work_goes_on() {
    let server = Server::start();
    let mut world = World::new(Offers::default(), false).await;
    world.store = Arc::new(PostgresStore::open(&server.database("books")).await.unwrap());
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let (config, mut registry) = (world.config(), Registry::default());
    config.metrics.register(&mut registry);
    let engine = Engine::start(config);
    engine.apply(&world.units()).await;
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    until("the first load", async || erp.count() == 1).await;
    let id = erp.id_of("Thing").unwrap();
    let sample = format!("{}{{integration=\"{REALM}\"}} ", LEDGER_UNBALANCED.name);
    let told = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let unbalanced = text.lines().find_map(|line| line.strip_prefix(&sample)).map(str::to_owned);
        (report(&engine).map(|report| report.balanced), unbalanced)
    };
    let adds_up = |is_so: bool| (Some(is_so), Some(if is_so { "0" } else { "1" }.to_owned()));
    until("the report of books that add up", async || told() == adds_up(true)).await;
    // Behind its back: no command of the store leaves its books like that.
    for (by, phone, is_so) in [("+ 1", "1", false), ("- 1", "2", true)] {
        server.sql("books", &format!("UPDATE fairlead.lane_book SET entered = entered {by}"));
        crm.put("c0", json!({"phone": phone}));
        until("the edit", async || erp.value(&id, "phone") == phone).await;
        until("the report of these books", async || told() == adds_up(is_so)).await;
    }
    engine.stop().await;
}
