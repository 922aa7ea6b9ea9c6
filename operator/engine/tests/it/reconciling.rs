//! What slipped past reading and writing is found on schedule.

use crate::vendor::{Fault, Vendor};
use crate::world::{Offers, REALM, Side, World, report, until};
use fairlead_engine::Engine;
use fairlead_model::Clock;
use fairlead_model::report::{Drift, Reconciliation, ReconciliationOutcome};
use fairlead_model::schedule::ScheduleText;
use fairlead_model::unit::{OnDelete, ReconcileUnit};
use serde_json::json;
use std::time::Duration;

const A_DAY: Duration = Duration::from_secs(24 * 3600);

fn every_night(repair: bool, max_repair_percent: u32) -> ReconcileUnit {
    let schedule = ScheduleText { cron: "0 2 * * *".into(), time_zone: "Europe/Berlin".into() };
    ReconcileUnit { schedule, repair, max_repair_percent }
}

/// Forty things that both systems hold, reconciled every night.
async fn in_step(offers: Offers, repair: bool, max_repair_percent: u32) -> (World, Engine) {
    let mut world = World::new(offers, true).await;
    world.sides[0].offers.get = offers.get;
    world.reconcile = Some(every_night(repair, max_repair_percent));
    let engine = world.loaded(40).await;
    (world, engine)
}

/// Lets a day pass, and waits for what the night's reconciliation found.
async fn tomorrow(world: &World, engine: &Engine) -> Reconciliation {
    let before = report(engine).and_then(|report| report.reconciliation).map(|last| last.at);
    let found = || report(engine).and_then(|report| report.reconciliation).filter(|last| Some(last.at) != before);
    // The schedule begins when it is first seen.
    until("the schedule noted", async || world.store.note(REALM, "reconciliation").await.unwrap().is_some()).await;
    world.clock.pass(A_DAY);
    until("a reconciliation", async || found().is_some()).await;
    found().unwrap()
}

async fn is_deleted(world: &World, participant: &str, id: &str) -> (bool, bool) {
    let known = world.store.known_by_external(REALM, participant, &[id.into()]).await.unwrap().pop().flatten().unwrap();
    (known.record.deleted_at.is_some(), known.identity(participant).unwrap().state.deleted)
}

async fn what_slipped_past_is_put_right(offers: Offers) {
    let (world, engine) = in_step(offers, true, 50).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let [zero, two, three] = ["Thing 0", "Thing 2", "Thing 3"].map(|name| erp.id_of(name).unwrap());
    crm.slip("c0", json!({"phone": "new"}));
    crm.slip("c99", json!({"name": "Thing 99", "phone": "0"}));
    crm.vanish("c1");
    erp.slip(&two, json!({"phone": "wrong"}));
    erp.vanish(&three);
    let last = tomorrow(&world, &engine).await;
    assert_eq!(last.drift, Drift { missing: 0, different: 2, unread: 1, gone: 2 }, "{last:?}");
    assert_eq!((last.outcome, last.repaired, last.compared), (ReconciliationOutcome::Repaired, 5, 79));
    assert_eq!(last.last_success, Some(last.at));
    until("the missed edit", async || erp.value(&zero, "phone") == "new").await;
    until("the foreign edit put back", async || erp.value(&two, "phone") == "0").await;
    until("the record that nobody had read", async || erp.id_of("Thing 99").is_some()).await;
    assert_eq!(is_deleted(&world, "crm", "c1").await, (true, true), "gone from its home");
    assert_eq!(is_deleted(&world, "erp", &three).await, (false, true), "gone from a copy, and not made anew");
    // The next night finds nothing, and nobody writes any more.
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.outcome, last.drift.total()), (ReconciliationOutcome::InStep, 0), "{last:?}");
    assert!(world.letters().await.is_empty());
    let report = report(&engine).unwrap();
    assert!(report.balanced);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slipped_past_reading_is_found_on_schedule_and_put_right() {
    what_slipped_past_is_put_right(Offers::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_can_only_be_listed_is_listed_twice() {
    what_slipped_past_is_put_right(Offers { get: false, ..Offers::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vanished_from_its_home_is_deleted_where_the_copy_is_and_nothing_else_is_written() {
    let mut world = World::new(Offers::default(), true).await;
    (world.reconcile, world.on_delete) = (Some(every_night(true, 50)), OnDelete::Delete);
    let engine = world.loaded(2).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let [zero, one] = ["Thing 0", "Thing 1"].map(|name| erp.id_of(name).unwrap());
    let written = || ["POST", "PUT", "PATCH"].map(|method| crm.asked(method).len() + erp.asked(method).len());
    let before = written();
    crm.vanish("c0");
    let last = tomorrow(&world, &engine).await;
    assert_eq!(last.drift, Drift { gone: 1, ..Drift::default() }, "{last:?}");
    assert_eq!((last.outcome, last.repaired, last.compared), (ReconciliationOutcome::Repaired, 1, 3));
    until("its copy deleted", async || is_deleted(&world, "erp", &zero).await == (true, true)).await;
    assert_eq!(is_deleted(&world, "crm", "c0").await, (true, true));
    // The next night finds nothing, and until then nobody wrote anything else.
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.outcome, last.drift.total()), (ReconciliationOutcome::InStep, 0), "{last:?}");
    assert_eq!(erp.asked("DELETE"), [format!("DELETE /things/{zero} ")]);
    assert!(crm.asked("DELETE").is_empty());
    assert_eq!(written(), before);
    assert_eq!((erp.count(), erp.id_of("Thing 1"), erp.value(&one, "phone")), (1, Some(one.clone()), json!("0")));
    assert_eq!(is_deleted(&world, "erp", &one).await, (false, false));
    assert!(world.letters().await.is_empty());
    let snapshot = world.store.snapshot(REALM, world.clock.now()).await.unwrap();
    assert!(snapshot.balanced(), "{snapshot:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_back_while_others_are_waited_for_is_not_deleted() {
    let (world, engine) = in_step(Offers::default(), true, 50).await;
    let crm = world.vendor("crm");
    let before = crm.asked("GET /things/c0 ").len();
    crm.slip("c0", json!({"phone": "new"}));
    crm.vanish("c1");
    // It is read when it is found, and again by the reader to put it right: that takes its time.
    crm.fault("GET /things/c0 ", Fault::Slow(Duration::ZERO), 1);
    crm.fault("GET /things/c0 ", Fault::Slow(Duration::from_secs(1)), 1);
    let meanwhile = async {
        until("the reader asking for c0", async || crm.asked("GET /things/c0 ").len() > before + 1).await;
        crm.slip("c1", json!({"name": "Thing 1", "phone": "0"}));
    };
    let (last, ()) = tokio::join!(tomorrow(&world, &engine), meanwhile);
    assert_eq!((last.drift, last.repaired), (Drift { different: 1, gone: 1, ..Drift::default() }, 1), "{last:?}");
    assert_eq!(is_deleted(&world, "crm", "c1").await, (false, false));
    assert_eq!(tomorrow(&world, &engine).await.outcome, ReconciliationOutcome::InStep);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_taken_as_gone_and_is_shown_again_lives() {
    let (world, engine) = in_step(Offers::default(), true, 50).await;
    let crm = world.vendor("crm");
    crm.vanish("c1");
    assert_eq!(tomorrow(&world, &engine).await.drift.gone, 1);
    assert_eq!(is_deleted(&world, "crm", "c1").await, (true, true));
    crm.slip("c1", json!({"name": "Thing 1", "phone": "0"}));
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.drift, last.repaired), (Drift { different: 1, ..Drift::default() }, 1), "{last:?}");
    assert_eq!(is_deleted(&world, "crm", "c1").await, (false, false));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_and_is_entered_again_is_the_same_record() {
    let (mut world, engine) = in_step(Offers::default(), true, 50).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let [one, two, three] = ["Thing 1", "Thing 2", "Thing 3"].map(|name| erp.id_of(name).unwrap());
    let known = async |participant: &str, id: &str| {
        let known = world.store.known_by_external(REALM, participant, &[id.into()]).await.unwrap().pop().flatten();
        known.map(|known| (known.record.id, known.record.deleted_at.is_some()))
    };
    let records = [known("erp", &one).await, known("erp", &two).await, known("erp", &three).await];
    let four = erp.id_of("Thing 4").unwrap();
    crm.vanish("c1");
    crm.vanish("c3");
    crm.vanish("c4");
    erp.vanish(&two);
    // Nobody knows yet that the one before is gone.
    crm.put("c94", json!({"name": "Thing 4", "phone": "4"}));
    assert_eq!(world.letter(0).await.letter.reason, "DuplicateIdentity");
    assert_eq!(tomorrow(&world, &engine).await.drift.gone, 4);
    until("the copy that was kept", async || erp.value(&four, "phone") == "4").await;
    assert_eq!(world.letters().await.len(), 0, "it is no second one any more");
    // At home, while a copy was kept.
    crm.put("c91", json!({"name": "Thing 1", "phone": "1"}));
    until("the copy that was kept", async || erp.value(&one, "phone") == "1").await;
    assert_eq!(known("crm", "c91").await, records[0]);
    // A copy, while it lived at home.
    erp.put("e92", json!({"name": "Thing 2"}));
    until("the new copy", async || erp.value("e92", "phone") == "0").await;
    crm.put("c2", json!({"phone": "2"}));
    until("an edit in the new copy", async || erp.value("e92", "phone") == "2").await;
    assert_eq!(known("erp", "e92").await, records[1]);
    assert_eq!((erp.count(), world.letters().await.len()), (40, 0));
    // A copy that nobody knew of.
    let vendor = Vendor::start().await;
    vendor.put("m3", json!({"name": "Thing 3", "phone": "3"}));
    world.sides.push(Side { name: "mdm", vendor, offers: Offers::default(), read: true, write: true });
    engine.apply(&world.units()).await;
    until("the golden value", async || world.vendor("mdm").value("m3", "phone") == "0").await;
    let store = &world.store;
    let joined = store.known_by_external(REALM, "mdm", &["m3".into()]).await.unwrap().pop().flatten().unwrap();
    assert_eq!((Some((joined.record.id, joined.record.deleted_at.is_some())), joined.record.home.as_str()), (records[2], "mdm"));
    assert_eq!(world.vendor("erp").count(), 40);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_policy_to_report_nothing_is_put_right() {
    let (world, engine) = in_step(Offers::default(), false, 50).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let zero = erp.id_of("Thing 0").unwrap();
    crm.slip("c0", json!({"phone": "new"}));
    for _ in 0..2 {
        let last = tomorrow(&world, &engine).await;
        assert_eq!((last.outcome, last.drift.different, last.repaired, last.last_success), (ReconciliationOutcome::Drifted, 1, 0, None));
        assert_eq!(erp.value(&zero, "phone"), "0");
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_differences_than_a_person_allowed_are_only_counted() {
    let (world, engine) = in_step(Offers::default(), true, 5).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..11 {
        crm.slip(&format!("c{number}"), json!({"phone": "new"}));
    }
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.outcome, last.drift.different, last.repaired), (ReconciliationOutcome::ThresholdExceeded, 11, 0));
    assert_eq!(erp.value(&erp.id_of("Thing 0").unwrap(), "phone"), "0");
    // One less is within what is always put right.
    crm.slip("c10", json!({"phone": "0"}));
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.outcome, last.drift.different, last.repaired), (ReconciliationOutcome::Repaired, 10, 10));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_is_away_is_named_and_another_process_goes_on_with_the_schedule() {
    let (world, engine) = in_step(Offers::default(), true, 50).await;
    let erp = world.vendor("erp");
    erp.fault("GET /things ", Fault::Status(500), usize::MAX);
    let last = tomorrow(&world, &engine).await;
    assert_eq!(last.outcome, ReconciliationOutcome::Incomplete);
    assert!(last.trouble.as_ref().unwrap().contains("erp could not be read"), "{last:?}");
    engine.stop().await;
    erp.heal();
    // While nobody ran, a night passed; it is made up for once.
    world.clock.pass(A_DAY);
    let engine = world.engine().await;
    let found = || report(&engine).and_then(|report| report.reconciliation).filter(|now| now.at != last.at);
    until("the night that nobody saw", async || found().is_some()).await;
    assert_eq!(found().unwrap().outcome, ReconciliationOutcome::InStep);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_fails_once_is_asked_for_again() {
    let (world, engine) = in_step(Offers::default(), true, 50).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.slip("c0", json!({"phone": "new"}));
    // The pages from the beginning, and what is looked at by its key.
    erp.fault("GET /things ", Fault::Status(503), 1);
    crm.fault("GET /things/c0 ", Fault::Status(503), 1);
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.outcome, last.drift.different), (ReconciliationOutcome::Repaired, 1), "{last:?}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_shows_nothing_any_more_deletes_nothing() {
    let (world, engine) = in_step(Offers::default(), true, 100).await;
    for number in 0..40 {
        world.vendor("crm").vanish(&format!("c{number}"));
    }
    let last = tomorrow(&world, &engine).await;
    assert_eq!((last.outcome, last.repaired), (ReconciliationOutcome::Incomplete, 0), "{last:?}");
    assert!(last.trouble.as_ref().unwrap().contains("no record at all"), "{last:?}");
    assert_eq!(is_deleted(&world, "crm", "c1").await, (false, false));
    engine.stop().await;
}
