//! Two engines share the work of one Integration: on one real database, or where what is told does not depend on that, on one in memory.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, until};
use fairlead_engine::{Config, Engine};
use fairlead_model::hash::Digest;
use fairlead_model::unit::{DeletionPolicy, ObjectKey, Units};
use fairlead_model::{Clock, SystemClock};
use fairlead_store::contract_tests::server::Server;
use fairlead_store::{Fence, LeaseRequest, PostgresStore, SqliteStore, Store};
use serde_json::{from_value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

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

/// A world whose store several engines of this process share.
async fn shared() -> World {
    let mut world = World::new(Offers::default(), false).await;
    world.store = Arc::new(SqliteStore::open_in_memory().unwrap().partitioned(4));
    world
}

/// The same, but that every phone in the ERP is to be `phone`.
fn with_phone(mut units: Units, phone: &str) -> Units {
    let unit = Arc::make_mut(units.integrations.get_mut(&ObjectKey(REALM.into())).unwrap());
    let erp = unit.participants.iter_mut().find(|participant| participant.name == "erp").unwrap();
    Arc::make_mut(erp).rows = from_value(json!([{"canonical": "name", "native": "name"}, {"native": "phone", "value": phone}])).unwrap();
    unit.digest = Digest::of(&json!(phone));
    units
}

/// Somebody else, who holds a lease.
async fn other(world: &World, key: &str, ttl: Duration) -> Fence {
    let request = LeaseRequest { keys: vec![key.into()], holder: "other".into(), ttl, now: world.clock.now() };
    world.store.lease(&request).await.unwrap().remove(0).expect("nobody else should hold it")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_that_was_behind_settled_by_the_old_table_is_compared_when_it_swaps() {
    let world = shared().await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    let behind = Engine::start(Config { holder: "behind".into(), ..world.config() });
    behind.apply(&world.units()).await;
    until("the first load", async || erp.count() == 1).await;
    let id = erp.id_of("Thing").unwrap();
    let table = async || world.store.note(REALM, "table/erp").await.unwrap();
    let before = table().await;

    let new = with_phone(world.units(), "new");
    let ahead = Engine::start(Config { holder: "ahead".into(), ..world.config() });
    ahead.apply(&new).await;
    until("the one ahead to have asked for everything", async || table().await != before).await;
    ahead.stop().await;
    crm.put("c0", json!({"phone": "1"}));
    until("the one behind to write by the old table", async || erp.value(&id, "phone") == "1").await;
    behind.apply(&new).await;
    until("what the new table says", async || erp.value(&id, "phone") == "new").await;
    behind.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_while_another_one_still_works_on_it() {
    let world = shared().await;
    let erp = world.vendor("erp");
    world.vendor("crm").put("c0", json!({"name": "Thing", "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 1).await;
    let fence = other(&world, "reconcile/test/things/", Duration::from_secs(3600)).await;
    let mut gone = world.units();
    gone.integrations.clear();
    gone.removed.insert(ObjectKey(REALM.into()), DeletionPolicy::Delete);
    engine.apply(&gone).await;
    let live = async || world.store.snapshot(REALM, world.clock.now()).await.unwrap().live;
    let forgotten = || engine.reports().borrow().forgotten.clone();
    // Long enough for it to have been forgotten.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((live().await, forgotten()), (1, Vec::new()));
    world.store.release(&fence).await.unwrap();
    until("it to be forgotten", async || forgotten() == [ObjectKey(REALM.into())]).await;
    assert_eq!(live().await, 0);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vendor_asks_one_of_them_to_wait_holds_for_the_other() {
    let world = shared().await;
    let throttled = |engine: &Engine| {
        let connector = engine.reports().borrow().connectors.get(&ObjectKey("test/erp".into())).cloned();
        connector.is_some_and(|connector| connector.throttled_until.is_some())
    };
    let waits = async || world.store.leases(world.clock.now()).await.unwrap().iter().any(|lease| lease.key == "wait/account:test/erp");
    let fence = other(&world, "wait/account:test/erp", Duration::from_secs(3600)).await;
    let engine = world.engine().await;
    until("it to wait with the other", async || throttled(&engine)).await;
    world.vendor("crm").put("c0", json!({"name": "Thing", "phone": "0"}));
    world.store.release(&fence).await.unwrap();
    until("it to go on", async || world.vendor("erp").count() == 1 && !throttled(&engine)).await;
    assert!(!waits().await, "what it only heard of is not passed on");
    // Told by the vendor itself, it passes it on.
    world.vendor("erp").fault("PATCH", Fault::Status(429), usize::MAX);
    world.vendor("crm").put("c0", json!({"phone": "1"}));
    until("the others to be told", waits).await;
    world.vendor("erp").heal();
    let id = world.vendor("erp").id_of("Thing").unwrap();
    until("the change", async || world.vendor("erp").value(&id, "phone") == "1").await;
    engine.stop().await;
}
