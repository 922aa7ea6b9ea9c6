//! Two engines share the work of one Integration on one real database.

use crate::world::{Offers, World, until};
use fairlead_engine::{Config, Engine};
use fairlead_model::{Clock, SystemClock};
use fairlead_store::contract_tests::server::Server;
use fairlead_store::{PostgresStore, Store};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many of the ERP's partitions, and how many readers, each holder has.
async fn shares(store: &dyn Store) -> [BTreeMap<String, usize>; 2] {
    let leases = store.leases(SystemClock.now()).await.unwrap();
    ["lane/test/things/erp/", "reader/test/things/"].map(|kind| {
        let mut shares = BTreeMap::new();
        for lease in leases.iter().filter(|lease| lease.key.starts_with(kind)) {
            *shares.entry(lease.holder.clone()).or_default() += 1;
        }
        shares
    })
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|(holder, count)| ((*holder).to_owned(), *count)).collect()
}

/// An engine of a process of its own, as far as its tasks go: with the value they end, and nothing is given back.
struct Elsewhere(Option<tokio::runtime::Runtime>);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn another(world: &World, url: String, holder: &str) -> Elsewhere {
    let (units, config, holder) = (world.units(), world.config(), holder.to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let begun = runtime.spawn(async move {
        let store = Arc::new(PostgresStore::open(&url).await.unwrap());
        let engine = Engine::start(Config { store, holder, ..config });
        engine.apply(&units).await;
        tokio::spawn(async move {
            let _engine = engine;
            std::future::pending::<()>().await;
        });
    });
    begun.await.unwrap();
    Elsewhere(Some(runtime))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_share_lanes_and_readers_and_one_goes_on_alone_when_the_other_dies() {
    let server = Server::start();
    let url = server.database("shared");
    let mut world = World::new(Offers::default(), true).await;
    world.store = Arc::new(PostgresStore::open(&url).await.unwrap());
    let (crm, erp) = (world.vendor("crm").clone(), world.vendor("erp").clone());
    for number in 0..40 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    let engine = Engine::start(Config { holder: "one".into(), ..world.config() });
    engine.apply(&world.units()).await;
    until("the first load", async || erp.count() == 40).await;
    assert_eq!(shares(&*world.store).await, [of(&[("one", 8)]), of(&[("one", 2)])]);

    let other = another(&world, url, "two").await;
    let fair = [of(&[("one", 4), ("two", 4)]), of(&[("one", 1), ("two", 1)])];
    until("a fair share for the newcomer", async || shares(&*world.store).await == fair).await;
    for number in 0..40 {
        crm.put(&format!("c{number}"), json!({"phone": "1"}));
    }
    let ids: Vec<String> = (0..40).map(|number| erp.id_of(&format!("Thing {number}")).unwrap()).collect();
    until("forty edits, by both", async || ids.iter().all(|id| erp.value(id, "phone") == "1")).await;
    assert_eq!(shares(&*world.store).await, fair, "shares do not move without need");
    assert_eq!(erp.asked("PATCH").len(), 40, "each was written once");

    drop(other);
    for number in 0..40 {
        crm.put(&format!("c{number}"), json!({"phone": "2"}));
    }
    until("what the dead one held", async || ids.iter().all(|id| erp.value(id, "phone") == "2")).await;
    assert_eq!(shares(&*world.store).await, [of(&[("one", 8)]), of(&[("one", 2)])]);
    assert_eq!(erp.count(), 40);
    engine.stop().await;
    assert_eq!(world.store.leases(SystemClock.now()).await.unwrap(), []);
}
