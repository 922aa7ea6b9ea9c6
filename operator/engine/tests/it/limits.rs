//! One account, and all that use it: its credentials are asked about once, and its requests of a day are counted beyond a process.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, until};
use fairlead_engine::Engine;
use fairlead_model::hash::Digest;
use fairlead_model::report::{ConnectorReport, Quota, Window};
use fairlead_model::unit::{IntegrationUnit, Limits, ObjectKey, Units};
use fairlead_model::{Clock, ExternalId, ObjectRef, realm};
use fairlead_store::Haste;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DAY: i64 = 24 * 3600 * 1000;

fn connector(engine: &Engine, name: &str) -> Option<ConnectorReport> {
    engine.reports().borrow().connectors.get(&ObjectKey(format!("test/{name}"))).cloned()
}

/// Three Integrations of the same systems.
fn threefold(mut units: Units) -> Units {
    let (_, one) = units.integrations.iter().next().map(|(key, unit)| (key.clone(), Arc::clone(unit))).unwrap();
    for name in ["more", "others"] {
        let unit = IntegrationUnit { object: ObjectRef::new("test", name), digest: Digest::of(&json!(name)), ..(*one).clone() };
        units.integrations.insert(ObjectKey(format!("test/{name}")), Arc::new(unit));
    }
    units
}

/// Every record of the ERP gets the same phone from now on, so each is to be written once more when there is time.
fn map_the_erp_anew(units: &mut Units) {
    let edited = Arc::make_mut(units.integrations.values_mut().next().unwrap());
    edited.digest = Digest::of(&json!("remapped"));
    let rows = json!([{"canonical": "name", "native": "name"}, {"native": "phone", "value": "none"}]);
    Arc::make_mut(&mut edited.participants[1]).rows = serde_json::from_value(rows).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_one_trouble_for_all_integrations_and_it_ends_with_the_secret() {
    let world = World::new(Offers { tokens: true, ..Offers::default() }, true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    erp.fault("client_secret=secret-1", Fault::Status(401), usize::MAX);
    crm.put("c0", json!({"name": "Thing"}));
    let (began, engine) = (Instant::now(), Engine::start(world.config()));
    engine.apply(&threefold(world.units())).await;
    let paused = |engine: &Engine| {
        let reports = engine.reports().borrow().clone();
        let of = |participant: &fairlead_model::report::ParticipantReport| {
            participant.name == "erp" && participant.paused_by.as_ref().is_some_and(|error| error.reason == "AuthenticationFailed")
        };
        reports.integrations.values().filter(|report| report.participants.iter().any(of)).count()
    };
    until("all three to be paused", async || paused(&engine) == 3).await;
    // One look every five seconds, whoever wants something.
    let looks = 1 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    let asked = erp.asked("").len();
    assert!(asked <= looks, "{asked} requests where {looks} had been enough: {:?}", erp.asked(""));
    let failure = connector(&engine, "erp").unwrap().probe.unwrap().unwrap_err();
    assert_eq!(failure.error.reason, "AuthenticationFailed");

    world.key.renew();
    let reachable = || connector(&engine, "erp").is_some_and(|report| matches!(report.probe, Some(Ok(_))));
    until("all three to go on", async || paused(&engine) == 0 && reachable() && erp.id_of("Thing").is_some()).await;
    assert_eq!(erp.asked("client_secret=secret-2").len(), 1, "one token for all");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_a_day_are_counted_beyond_a_restart() {
    let mut world = World::new(Offers::default(), false).await;
    world.limits = Limits { daily_requests: Some(12), ..world.limits };
    // At noon: no day ends meanwhile.
    let past = world.clock.now().0.rem_euclid(DAY);
    world.clock.pass(Duration::from_millis(u64::try_from(DAY - past + DAY / 2).unwrap()));
    let crm = world.vendor("crm").clone();
    let spent = |engine: &Engine| {
        let report = connector(engine, "crm").filter(|report| matches!(report.probe, Some(Ok(_))));
        report.filter(|report| report.quota == Quota::Exhausted).and_then(|report| report.spent)
    };

    let engine = world.engine().await;
    until("the budget to be used up", async || spent(&engine).is_some()).await;
    assert_eq!(spent(&engine).map(|spent| (spent.window, spent.until.0 % DAY)), Some((Window::Day, 0)));
    engine.stop().await;
    assert_eq!(crm.asked("").len(), 12);

    let engine = world.engine().await;
    until("the count of before", async || spent(&engine).is_some()).await;
    assert_eq!(crm.asked("").len(), 13, "the probe alone is sent: {:?}", crm.asked(""));
    // More are allowed: what was sent stays sent.
    world.limits = Limits { daily_requests: Some(20), ..world.limits };
    let mut units = world.units();
    let raised = units.connectors.get_mut(&ObjectKey("test/crm".into())).unwrap();
    Arc::make_mut(raised).digest = Digest::of(&json!("raised"));
    engine.apply(&units).await;
    until("the larger budget to be used up", async || crm.asked("").len() >= 20 && spent(&engine).is_some()).await;
    assert_eq!(crm.asked("").len(), 20);
    engine.stop().await;
    world.clock.pass(Duration::from_secs(24 * 3600));
    let engine = world.engine().await;
    until("another day", async || crm.asked("").len() > 25).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_only_backfills_have_no_quota_left_changes_go_out_and_nothing_goes_round() {
    let world = World::new(Offers::default(), false).await;
    let past = world.clock.now().0.rem_euclid(DAY);
    world.clock.pass(Duration::from_millis(u64::try_from(DAY - past + DAY / 2).unwrap()));
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..30 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    // Thirty creations, each looked for by its key and by its name, and a probe leave 44 of a day; 27 of them are not for backfills.
    let mut units = world.units();
    Arc::make_mut(units.connectors.get_mut(&ObjectKey("test/erp".into())).unwrap()).limits.daily_requests = Some(135);
    let engine = Engine::start(world.config());
    engine.apply(&units).await;
    until("the first load", async || erp.count() == 30).await;
    let two = erp.id_of("Thing 2").unwrap();
    map_the_erp_anew(&mut units);
    engine.apply(&units).await;
    until("what backfills may use to be used", async || erp.asked("PATCH").len() == 17).await;
    // What time does is the matter here: the rest waits, and nobody turns it over meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = world.store.sequence().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let commits = world.store.sequence().await.unwrap() - before;
    assert!(commits < 60, "{commits} commits within three seconds of waiting");
    crm.put("c2", json!({"name": "Changed"}));
    until("the change", async || erp.value(&two, "name") == "Changed").await;
    assert_eq!(erp.asked("PATCH").len(), 18, "it took along what had time");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_time_gives_way_to_a_change_before_its_next_request() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..3 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    let mut units = world.units();
    Arc::make_mut(units.connectors.get_mut(&ObjectKey("test/erp".into())).unwrap()).limits.concurrency = 1;
    let engine = Engine::start(world.config());
    engine.apply(&units).await;
    until("the first load", async || erp.count() == 3).await;
    erp.fault("PATCH", Fault::Slow(Duration::from_secs(4)), 1);
    map_the_erp_anew(&mut units);
    engine.apply(&units).await;
    until("the first of what is mapped anew", async || erp.asked("PATCH").len() == 1).await;
    crm.put("c3", json!({"name": "New"}));
    until("the rest of it", async || erp.asked("PATCH").len() == 3).await;
    let writes: Vec<String> = erp.asked("").into_iter().filter(|line| !line.starts_with("GET")).collect();
    let places = |part: &str| -> Vec<usize> { (3..writes.len()).filter(|place| writes[*place].contains(part)).collect() };
    assert_eq!((places("PATCH"), places("New")), (vec![3, 5, 6], vec![4]), "{writes:#?}");
    let told = engine.reports().borrow().integrations.values().next().unwrap().last_error.clone();
    assert!(told.is_none(), "who gives way is in no trouble: {told:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_read_anew_for_a_backfill_leaves_the_last_quota_to_changes() {
    let mut world = World::new(Offers::default(), true).await;
    world.sides[0].offers = Offers { get: false, page: 2, ..world.sides[0].offers };
    world.limits = Limits { daily_requests: Some(1000), ..world.limits };
    let past = world.clock.now().0.rem_euclid(DAY);
    world.clock.pass(Duration::from_millis(u64::try_from(DAY - past + DAY / 2).unwrap()));
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..30 {
        crm.put(&format!("c{number:02}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    // A fifth of the day is for changes alone. The first load takes fifteen pages; then there is something left for a backfill, but not for fifteen more.
    let sent = json!({"day": world.clock.now().0.div_euclid(DAY), "requests": 800 - 16 - 10});
    world.store.put_note(&realm::of_connector(&ObjectKey("test/crm".into())), "requests", &sent).await.unwrap();
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 30).await;
    let asked: Vec<_> = (0..30).map(|number| ExternalId::from(format!("c{number:02}").as_str())).collect();
    world.store.request_reads(REALM, "crm", &asked, Haste::Bulk, world.clock.now()).await.unwrap();
    let quota = |engine: &Engine| connector(engine, "crm").map(|report| report.quota);
    until("only changes to have quota left", async || quota(&engine) == Some(Quota::Low)).await;
    crm.put("c29", json!({"phone": "2"}));
    let last = erp.id_of("Thing 29").unwrap();
    until("a change", async || erp.value(&last, "phone") == "2").await;
    let pending = async || world.store.pending_reads(REALM, "crm", 100).await.unwrap().len();
    assert!(pending().await > 0, "the list was read anew with what was left for changes");
    world.clock.pass(Duration::from_secs(24 * 3600));
    until("another day", async || pending().await == 0).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_a_vendor_asked_for_outlives_an_edit_of_its_connector() {
    let world = World::new(Offers::default(), false).await;
    let crm = world.vendor("crm").clone();
    crm.fault("GET /things", Fault::Throttled(600), 1);
    let engine = world.engine().await;
    let until_when = |engine: &Engine| connector(engine, "crm").and_then(|report| report.throttled_until);
    until("the wait to be told", async || until_when(&engine).is_some()).await;
    let (before, asked) = (until_when(&engine).unwrap(), crm.asked("GET /things").len());
    let mut units = world.units();
    let edited = Arc::make_mut(units.connectors.get_mut(&ObjectKey("test/crm".into())).unwrap());
    (edited.digest, edited.limits.concurrency) = (Digest::of(&json!("edited")), 2);
    let digest = edited.digest.clone();
    engine.apply(&units).await;
    until("the edit to be in force", async || connector(&engine, "crm").is_some_and(|report| report.digest == digest)).await;
    let after = until_when(&engine).unwrap();
    assert!(after.since(before) < Duration::from_secs(5) && before.since(after) < Duration::from_secs(5), "{before} and {after}");
    assert_eq!(crm.asked("GET /things").len(), asked, "it was asked while it wanted not to be");
    // Another account was told nothing.
    let edited = Arc::make_mut(units.connectors.get_mut(&ObjectKey("test/crm".into())).unwrap());
    (edited.digest, edited.secret) = (Digest::of(&json!("other")), ObjectRef::new("test", "other"));
    engine.apply(&units).await;
    until("another account to be read", async || crm.asked("GET /things").len() > asked).await;
    engine.stop().await;
}
