//! A participant that comes later is loaded while the others go on.

use crate::vendor::{Fault, Vendor};
use crate::world::{Offers, Side, World, report, until};
use fairlead_model::ObjectRef;
use fairlead_model::hash::Digest;
use fairlead_model::unit::{Guard, ObjectKey};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Two systems in step, and then a third that cannot be read.
async fn with_a_newcomer(world: &mut World) -> fairlead_engine::Engine {
    for number in 0..20 {
        world.vendor("crm").put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    let engine = world.engine().await;
    until("the first load", async || world.vendor("erp").count() == 20).await;
    let vendor = Vendor::start().await;
    vendor.fault("GET /things", Fault::Status(500), usize::MAX);
    world.sides.push(Side { name: "mdm", vendor, offers: Offers::default(), read: true, write: true });
    engine.apply(&world.units()).await;
    until("the third asked", async || world.vendor("mdm").asked("GET /things").len() > 1).await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_that_cannot_be_read_stops_nobody_and_is_not_written() {
    let mut world = World::new(Offers::default(), true).await;
    let engine = with_a_newcomer(&mut world).await;
    let (crm, erp, mdm) = (world.vendor("crm"), world.vendor("erp"), world.vendor("mdm"));
    let id = erp.id_of("Thing 7").unwrap();
    crm.put("c7", json!({"phone": "7"}));
    until("an edit delivered", async || erp.value(&id, "phone") == "7").await;
    assert!(mdm.asked("PUT").is_empty() && mdm.asked("PATCH").is_empty());
    // Once it is read, it is written what it lacks; nothing twice.
    mdm.put("m7", json!({"name": "Thing 7", "phone": "old"}));
    mdm.heal();
    until("all of them there", async || mdm.count() == 20 && mdm.value("m7", "phone") == "7").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_watches_the_others_while_a_newcomer_is_loaded() {
    let mut world = World::new(Offers::default(), true).await;
    world.guard = Guard { max_delete_percent: None, max_change_percent: Some(50), confirm: None };
    let engine = with_a_newcomer(&mut world).await;
    for number in 0..20 {
        world.vendor("crm").put(&format!("c{number}"), json!({"phone": "gone wrong"}));
    }
    until("the guard", async || report(&engine).is_some_and(|report| report.guard.is_some())).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_that_was_confirmed_is_excused_and_not_the_next_one_of_the_same_records() {
    let mut world = World::new(Offers::default(), true).await;
    world.guard = Guard { max_delete_percent: None, max_change_percent: Some(50), confirm: None };
    for number in 0..20 {
        world.vendor("crm").put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "0"}));
    }
    let engine = world.engine().await;
    until("the first load", async || world.vendor("erp").count() == 20).await;
    world.clock.pass(Duration::from_secs(25 * 3600));
    let erp = world.vendor("erp").clone();
    let is_at = |number: usize, phone: &str| erp.id_of(&format!("Thing {number}")).is_some_and(|id| erp.value(&id, "phone") == phone);
    let token = || report(&engine).and_then(|report| report.guard).map(|guard| guard.token);
    for number in 0..20 {
        world.vendor("crm").put(&format!("c{number}"), json!({"phone": "meant"}));
    }
    until("the guard", async || token().is_some()).await;
    let first = token();
    world.guard.confirm.clone_from(&first);
    engine.apply(&world.units()).await;
    until("what was meant", async || (0..20).all(|number| is_at(number, "meant"))).await;
    world.clock.pass(Duration::from_secs(2 * 3600));
    for number in 0..20 {
        world.vendor("crm").put(&format!("c{number}"), json!({"phone": "gone wrong"}));
    }
    until("the guard once more", async || token().is_some_and(|token| Some(token) != first)).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_gets_what_it_missed_and_is_late_for_nobody_meanwhile() {
    let mut world = World::new(Offers::default(), false).await;
    world.sides.push(Side { name: "mdm", vendor: Vendor::start().await, offers: Offers::default(), read: false, write: true });
    world.vendor("crm").put("c0", json!({"name": "Thing", "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || world.vendor("erp").count() == 1 && world.vendor("mdm").count() == 1).await;
    // Its last entry never arrives.
    world.vendor("mdm").fault("PATCH", Fault::Status(503), usize::MAX);
    world.vendor("crm").put("c0", json!({"phone": "1"}));
    until("a refusal", async || !world.vendor("mdm").asked("PATCH").is_empty()).await;
    let away = world.sides.pop().unwrap();
    engine.apply(&world.units()).await;
    world.vendor("crm").put("c0", json!({"phone": "2"}));
    let id = world.vendor("erp").id_of("Thing").unwrap();
    until("the others go on", async || world.vendor("erp").value(&id, "phone") == "2").await;
    until("nobody is late", async || report(&engine).and_then(|report| report.lag).is_some_and(|lag| lag.pending == 0)).await;
    away.vendor.heal();
    world.sides.push(away);
    engine.apply(&world.units()).await;
    let mdm = world.vendor("mdm");
    let id = mdm.id_of("Thing").unwrap();
    until("what it missed", async || mdm.value(&id, "phone") == "2").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_names_another_connector_is_not_taken_for_the_one_before() {
    let world = World::new(Offers::default(), true).await;
    world.vendor("crm").put("c0", json!({"name": "Thing", "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || world.vendor("erp").count() == 1).await;
    let mut units = world.units();
    let unit = Arc::make_mut(units.integrations.values_mut().next().unwrap());
    Arc::make_mut(&mut unit.participants[1]).connector = ObjectRef::new("test", "production");
    unit.digest = Digest::of(&json!("edited"));
    let mut production = (*units.connectors[&ObjectKey("test/erp".into())]).clone();
    production.object = ObjectRef::new("test", "production");
    units.connectors.insert(ObjectKey("test/production".into()), Arc::new(production));
    engine.apply(&units).await;
    let told = async || {
        let report = report(&engine)?;
        report.participants.into_iter().find_map(|each| each.paused_by)
    };
    until("the refusal", async || told().await.is_some_and(|error| error.reason == "InvalidSpec")).await;
    let asked = world.vendor("erp").asked("").len();
    world.vendor("crm").put("c0", json!({"phone": "1"}));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let since = &world.vendor("erp").asked("")[asked..];
    assert!(since.iter().all(|line| !line.starts_with("P")), "{since:?}");
    engine.stop().await;
}
