//! A person's correction is for the letter that it corrects, and for one result.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, until};
use fairlead_engine::letters;
use fairlead_model::hash::Digest;
use fairlead_model::unit::ObjectKey;
use fairlead_model::{ErrorClass, ExternalId, FieldPath, Timestamp};
use fairlead_store::{CloseReason, DeadLetter, DeadLetterFilter, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

async fn correct(world: &World, dead: &DeadLetter, field: &str, value: &str) {
    let set: BTreeMap<FieldPath, Value> = BTreeMap::from([(field.parse().unwrap(), json!(value))]);
    letters::correct(world.store.as_ref(), dead, set, "mia", now()).await.unwrap();
}

fn now() -> Timestamp {
    fairlead_model::Clock::now(&fairlead_model::SystemClock)
}

/// What waits of corrections of this letter's record.
async fn waits(world: &World, dead: &DeadLetter) -> bool {
    let key = dead.letter.record.map_or_else(|| dead.letter.external_id.as_ref().unwrap().to_string(), |id| id.to_string());
    let note = world.store.note(REALM, &format!("edit/{}/{key}", dead.letter.participant)).await.unwrap();
    note.is_some_and(|note| !note.is_null())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_was_refused_does_not_come_back_with_a_later_letter() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 1).await;
    let id = erp.id_of("Thing").unwrap();
    erp.fault("wrong", Fault::Status(422), usize::MAX);

    crm.put("c0", json!({"phone": "wrong"}));
    let first = world.letter(0).await;
    correct(&world, &first, "phone", "wrong too").await;
    let second = world.letter(first.id).await;
    assert_eq!(second.letter.parent, Some(first.id), "the letter of a correction that failed names the one that was corrected");
    until("the correction forgotten", async || !waits(&world, &second).await).await;
    crm.put("c0", json!({"phone": "2"}));
    until("the good version", async || erp.value(&id, "phone") == "2" && world.letters().await.is_empty()).await;

    crm.put("c0", json!({"name": "wrong name"}));
    let third = world.letter(second.id).await;
    erp.heal();
    letters::replay(world.store.as_ref(), &third, "mia", now()).await.unwrap();
    until("the name", async || erp.value(&id, "name") == "wrong name").await;
    assert_eq!(erp.value(&id, "phone"), "2", "the refused correction came back");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_waits_for_its_target_goes_through_and_is_forgotten() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 1).await;
    let id = erp.id_of("Thing").unwrap();
    erp.fault("wrong", Fault::Status(422), usize::MAX);
    crm.put("c0", json!({"phone": "wrong"}));
    let letter = world.letter(0).await;
    // A retry is no result.
    erp.fault("PATCH", Fault::Status(429), 1);
    correct(&world, &letter, "phone", "good").await;
    until("the correction", async || erp.value(&id, "phone") == "good").await;
    until("the letter closed", async || world.letters().await.is_empty()).await;
    let closed = letters::find(world.store.as_ref(), letter.id).await.unwrap().unwrap().closed.unwrap();
    assert_eq!((closed.0, closed.2.as_str()), (CloseReason::Edited, "mia"));
    let corrected = letters::corrected(world.store.as_ref(), &letter).await.unwrap().unwrap();
    assert_eq!(corrected.changes, [("phone".parse().unwrap(), json!("wrong"), json!("good"))], "what was corrected stays told");
    until("the correction forgotten", async || !waits(&world, &letter).await).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_of_what_was_read_does_not_come_back_when_everything_is_read_again() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let long = |what: &str| format!("{what} {}", "x".repeat(40));
    crm.put("c0", json!({"name": long("first"), "phone": "0"}));
    let engine = world.engine().await;
    let first = world.letter(0).await;
    correct(&world, &first, "name", &long("second")).await;
    let second = world.letter(first.id).await;
    assert_eq!(second.letter.parent, Some(first.id));
    until("the correction forgotten", async || !waits(&world, &second).await).await;
    crm.put("c0", json!({"name": "Good"}));
    until("the good version", async || erp.id_of("Good").is_some() && world.letters().await.is_empty()).await;
    let ids = [ExternalId::from("c0")];
    world.store.request_reads(REALM, "crm", &ids, fairlead_store::Haste::Soon, now()).await.unwrap();
    until("it read again", async || world.store.pending_reads(REALM, "crm", 9).await.unwrap().is_empty()).await;
    assert!(world.letters().await.is_empty(), "the refused correction came back");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_of_what_may_be_our_own_creation_waits_until_that_is_known() {
    let world = World::new(Offers { keyed: false, ..Offers::default() }, true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let engine = world.engine().await;
    erp.put("e1", json!({"name": "x".repeat(40), "phone": "1"}));
    let letter = world.letter(0).await;
    erp.fault("POST /things", Fault::Held, 1);
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    until("a creation on its way", async || !erp.asked("POST /things").is_empty()).await;
    let reads = erp.asked("GET /things/e1").len();
    correct(&world, &letter, "name", "Short").await;
    until("it read and put off", async || erp.asked("GET /things/e1").len() > reads + 1).await;
    assert!(waits(&world, &letter).await, "nothing has come of it yet");
    erp.release();
    until("what was made", async || erp.id_of("Thing").is_some()).await;
    world.clock.pass(std::time::Duration::from_secs(60));
    let known = async || world.store.known_by_external(REALM, "erp", &["e1".into()]).await.unwrap().pop().flatten();
    until("what was corrected", async || known().await.is_some_and(|known| known.record.document["name"] == "Short")).await;
    until("the correction forgotten", async || !waits(&world, &letter).await && world.letters().await.is_empty()).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_is_given_up_with_its_letter_and_with_a_good_version() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 1).await;
    erp.fault("wrong", Fault::Status(422), usize::MAX);
    crm.put("c0", json!({"phone": "wrong"}));
    let letter = world.letter(0).await;
    // Nobody is there to take it up.
    engine.stop().await;
    correct(&world, &letter, "phone", "given up").await;
    assert!(waits(&world, &letter).await);
    letters::discard(world.store.as_ref(), &[letter.id], "mia", now()).await.unwrap();
    assert!(!waits(&world, &letter).await, "discarded");
    let id = erp.id_of("Thing").unwrap();
    erp.heal();
    let engine = world.engine().await;
    until("the value that was refused", async || erp.value(&id, "phone") == "wrong").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mended_mapping_closes_what_it_was_wrong_about_and_many_are_tried_again_at_once() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..3 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number} {}", "x".repeat(40)), "phone": "0"}));
    }
    crm.put("c3", json!({"name": "Good", "phone": "0"}));
    let engine = world.engine().await;
    until("the letters", async || world.letters().await.len() == 3 && erp.count() == 1).await;
    assert!(world.letters().await.iter().all(|dead| dead.letter.stage == Stage::Inbound));
    engine.stop().await;
    // Tried again, they are bad again: those that are open are other ones.
    let highest = world.letters().await[0].id;
    let filter = DeadLetterFilter { realm: Some(REALM.into()), class: Some(ErrorClass::Data), ..DeadLetterFilter::default() };
    assert_eq!(letters::count(world.store.as_ref(), &filter).await.unwrap(), 3);
    let bulk = letters::replay_all(world.store.as_ref(), &filter, "mia", now()).await.unwrap();
    assert_eq!((bulk.done, bulk.left), (3, 0));
    let engine = world.engine().await;
    until("three other letters", async || {
        let open = world.letters().await;
        open.len() == 3 && open.iter().all(|dead| dead.id > highest)
    })
    .await;
    // A mapping that cuts the names: nobody asks for anything.
    let mut units = world.units();
    let unit = units.integrations.get_mut(&ObjectKey(REALM.into())).unwrap();
    let unit = Arc::make_mut(unit);
    unit.digest = Digest::of(&json!("mended"));
    let crm_unit = Arc::make_mut(&mut unit.participants[0]);
    crm_unit.rows = serde_json::from_value(json!([
        {"canonical": "name", "native": "name", "toCanonical": "truncate(string!(.record.name), 20)"},
        {"canonical": "phone", "native": "phone"},
    ]))
    .unwrap();
    engine.apply(&units).await;
    until("all of them delivered", async || erp.count() == 4 && world.letters().await.is_empty()).await;
    let all = DeadLetterFilter { closed: true, max: 100, ..filter };
    let mut closed: Vec<_> = world.store.dead_letters(&all).await.unwrap().into_iter().filter_map(|dead| dead.closed).collect();
    closed.sort_by_key(|closed| closed.2.clone());
    let words: Vec<_> = closed.iter().map(|closed| (closed.0, closed.2.as_str())).collect();
    let expected = [[(CloseReason::Superseded, "fairlead"); 3], [(CloseReason::Replayed, "mia"); 3]].concat();
    assert_eq!(words, expected);
    engine.stop().await;
}
