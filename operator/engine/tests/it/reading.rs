//! What cannot be read, or not soon, holds up nothing else.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, until};
use fairlead_engine::Engine;
use fairlead_engine::backfill::{self, Asked, Which};
use fairlead_engine::checkpoints::{self, CheckpointError};
use fairlead_engine::decide::cursor::Wanted;
use fairlead_model::hash::Digest;
use fairlead_model::{ExternalId, Timestamp};
use fairlead_store::{Haste, SqliteStore};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

async fn ask_again(world: &World, ids: &[&str]) {
    let ids: Vec<ExternalId> = ids.iter().map(|id| ExternalId::from(*id)).collect();
    world.store.request_reads(REALM, "crm", &ids, Haste::Soon, Timestamp(0)).await.unwrap();
}

async fn pending(world: &World) -> Vec<ExternalId> {
    world.store.pending_reads(REALM, "crm", 100).await.unwrap()
}

/// Both systems are asked for news a few times more.
async fn some_polls(world: &World) {
    for name in ["crm", "erp"] {
        let vendor = world.vendor(name);
        let polls = vendor.asked("GET /things?since").len();
        until("some polls", async || vendor.asked("GET /things?since").len() >= polls + 4).await;
    }
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
async fn a_list_that_is_read_anew_and_cut_off_goes_on_where_it_was_and_holds_up_no_change() {
    let mut world = World::new(Offers::default(), true).await;
    world.sides[0].offers = Offers { get: false, page: 2, ..world.sides[0].offers };
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..8 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 8).await;
    // The third page of the list; what asks for changes says since when.
    crm.fault("GET /things?limit=2&after=c3 ", Fault::Status(500), usize::MAX);
    let asked: Vec<_> = (0..8).map(|number| ExternalId::from(format!("c{number}").as_str())).collect();
    world.store.request_reads(REALM, "crm", &asked, Haste::Bulk, Timestamp(0)).await.unwrap();
    until("half of it read", async || pending(&world).await.len() == 4).await;
    crm.put("c7", json!({"phone": "2"}));
    let seven = erp.id_of("Thing 7").unwrap();
    until("a change delivered", async || erp.value(&seven, "phone") == "2").await;
    assert_eq!(pending(&world).await.len(), 4);
    crm.heal();
    until("the rest", async || pending(&world).await.is_empty()).await;
    assert_eq!(crm.asked("GET /things?limit=2 ").len(), 2, "once to load, once anew: {:?}", crm.asked("GET /things"));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_set_back_is_taken_up_at_once_and_delivers_nothing_that_did_not_change() {
    let world = World::new(Offers::default(), true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..5 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 5).await;
    let two = erp.id_of("Thing 2").unwrap();
    // No poll ever sees this one: its stamp lies before the cursor.
    crm.slip("c2", json!({"phone": "slipped"}));
    let set = async |wanted: &Wanted, skip: bool| {
        let now = fairlead_model::Clock::now(&fairlead_model::SystemClock);
        let set = checkpoints::Set { integration: REALM, participant: "crm", slice: "main", wanted, skip, author: "mia", now };
        checkpoints::set(world.store.as_ref(), &set).await
    };
    let whole = || crm.asked("GET /things").iter().filter(|line| !line.contains("since=2026-01-01T00%3A00%3A0")).count();
    let (before, writes) = (whole(), erp.asked("PATCH").len());
    let changed = set(&Wanted::At(Timestamp::parse("2025-12-31T00:00:00Z").unwrap()), false).await.unwrap();
    assert!(changed.after["from"] == "2025-12-31T00:00:00.000Z" && changed.skips.is_none(), "{changed:?}");
    until("what had slipped by", async || erp.value(&two, "phone") == "slipped").await;
    assert!(whole() > before, "it was not read from there");
    assert_eq!(erp.asked("PATCH").len(), writes + 1, "something was written that did not change");
    let listed = checkpoints::list(world.store.as_ref(), Some(REALM), Timestamp(0)).await.unwrap();
    let of: Vec<_> = listed.iter().map(|each| (each.standing.participant.as_str(), each.entity.as_deref(), each.read > 4)).collect();
    assert_eq!(of, [("crm", Some("things"), true), ("erp", Some("things"), true)]);
    let note = world.store.note(REALM, "checkpoint/crm/main").await.unwrap().unwrap();
    assert!(note["author"] == "mia" && note["from"] == changed.before, "{note}");

    // Forward only by one's word; another kind of cursor, another name, not at all.
    let ahead = Wanted::At(Timestamp::parse("2030-01-01T00:00:00Z").unwrap());
    assert!(matches!(set(&ahead, false).await, Err(CheckpointError::Skips(what)) if what.contains("2030-01-01")));
    assert!(matches!(set(&Wanted::Text("41".into()), true).await, Err(CheckpointError::Cursor(_))));
    set(&ahead, true).await.unwrap();
    let unseen = crm.asked("since=2030").len();
    until("it read from there", async || crm.asked("since=2030").len() > unseen + 1).await;
    crm.put("c3", json!({"phone": "unseen"}));
    set(&Wanted::Beginning, false).await.unwrap();
    let three = erp.id_of("Thing 3").unwrap();
    until("what was skipped", async || erp.value(&three, "phone") == "unseen").await;
    let now = fairlead_model::Clock::now(&fairlead_model::SystemClock);
    let other = checkpoints::Set {
        integration: REALM,
        participant: "crn",
        slice: "main",
        wanted: &Wanted::Beginning,
        skip: false,
        author: "mia",
        now,
    };
    let refused = checkpoints::set(world.store.as_ref(), &other).await.unwrap_err().to_string();
    assert_eq!(refused, "test/things has no participant \"crn\"; there is crm, erp");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_resync_value_reads_everything_again_and_the_same_one_after_a_restart_nothing() {
    let world = World::new(Offers::default(), true).await;
    let engine = world.loaded(5).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let [one, two] = ["Thing 1", "Thing 2"].map(|name| erp.id_of(name).unwrap());
    // No poll ever sees these: their stamps lie before the cursors.
    crm.slip("c1", json!({"phone": "slipped"}));
    crm.slip("c9", json!({"name": "Thing 9", "phone": "9"}));
    erp.slip(&two, json!({"phone": "wrong"}));
    some_polls(&world).await;
    let phones = || [&one, &two].map(|id| erp.value(id, "phone"));
    assert_eq!((phones(), erp.count()), ([json!("0"), json!("wrong")], 5));

    let from_the_beginning = || [crm, erp].map(|vendor| vendor.asked("GET /things ").len());
    let written = || ["PUT", "PATCH"].map(|method| [crm, erp].map(|vendor| vendor.asked(method).len()));
    let ([of_crm, of_erp], [puts, patches]) = (from_the_beginning(), written());
    let mut units = world.units();
    let unit = Arc::make_mut(units.integrations.values_mut().next().unwrap());
    (unit.digest, unit.resync) = (Digest::of(&json!("resync")), Some("2026-12-01".into()));
    engine.apply(&units).await;
    until("what had slipped by", async || phones() == [json!("slipped"), json!("0")]).await;
    until("what nobody knew", async || erp.id_of("Thing 9").is_some()).await;
    let compared = async || {
        let lanes = world.store.snapshot(REALM, Timestamp(0)).await.unwrap().lanes;
        lanes.into_iter().find(|lane| lane.origin == "Resync").map(|lane| (lane.target, lane.entered, lane.pending))
    };
    until("the target compared", async || compared().await == Some(("erp".to_owned(), 5, 0))).await;
    some_polls(&world).await;
    assert_eq!(phones(), [json!("slipped"), json!("0")]);
    assert_eq!(from_the_beginning(), [of_crm + 1, of_erp + 1]);
    assert_eq!(written(), [[puts[0], puts[1] + 1], [patches[0], patches[1] + 2]], "more was written than had slipped by");
    assert_eq!([&one, &two].map(|id| erp.asked(&format!("PATCH /things/{id} ")).len()), [1, 1]);
    let snapshot = world.store.snapshot(REALM, Timestamp(0)).await.unwrap();
    assert!(snapshot.balanced() && snapshot.conflicts() == 1, "{snapshot:?}");

    engine.stop().await;
    let before = (from_the_beginning(), written());
    let engine = Engine::start(world.config());
    engine.apply(&units).await;
    some_polls(&world).await;
    assert_eq!((from_the_beginning(), written()), before);
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_reads_what_a_person_names_and_waits_behind_what_is_new() {
    let world = World::new(Offers::default(), true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for number in 0..6 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": "1"}));
    }
    let engine = world.engine().await;
    until("the first load", async || erp.count() == 6).await;
    let phone = |number: u32| erp.value(&erp.id_of(&format!("Thing {number}")).unwrap(), "phone");
    for number in 0..6 {
        crm.slip(&format!("c{number}"), json!({"phone": "slipped"}));
    }
    let store = world.store.as_ref();
    let now = || fairlead_model::Clock::now(&fairlead_model::SystemClock);
    let range = Which::Range("c1".into(), "c3".into());
    assert_eq!(backfill::read_again(store, REALM, "crm", &range, true, now()).await.unwrap(), Asked { records: 3, unknown: 0 });
    assert!(pending(&world).await.is_empty(), "it was only to be counted");
    backfill::read_again(store, REALM, "crm", &range, false, now()).await.unwrap();
    until("the three", async || (1..4).all(|number| phone(number) == "slipped")).await;
    assert_eq!((phone(0), phone(4)), (json!("1"), json!("1")));
    let some = Which::Ids(vec!["c0".into(), "nowhere".into()]);
    assert_eq!(backfill::read_again(store, REALM, "crm", &some, false, now()).await.unwrap(), Asked { records: 1, unknown: 1 });
    until("the one", async || phone(0) == "slipped").await;
    assert_eq!(backfill::read_again(store, REALM, "crm", &Which::All, false, now()).await.unwrap(), Asked { records: 6, unknown: 0 });
    until("all", async || phone(4) == "slipped" && phone(5) == "slipped").await;

    // Compared again, what is in step is written to nobody.
    until("all read", async || pending(&world).await.is_empty()).await;
    let writes = erp.asked("PATCH").len() + erp.asked("PUT").len();
    assert_eq!(backfill::compare_again(store, REALM, "erp", &Which::All, false, now()).await.unwrap(), Asked { records: 6, unknown: 0 });
    let unchanged = async || {
        let lanes = store.snapshot(REALM, now()).await.unwrap().lanes;
        lanes.iter().filter(|lane| lane.origin == "Resync").map(|lane| lane.unchanged).sum::<u64>()
    };
    until("all compared", async || unchanged().await == 6).await;
    assert_eq!(erp.asked("PATCH").len() + erp.asked("PUT").len(), writes);

    // A long backfill does not hold up what is new.
    crm.fault("GET /things/many", Fault::Slow(Duration::from_millis(5)), usize::MAX);
    let many = Which::Ids((0..2500).map(|number| ExternalId(format!("many{number}"))).collect());
    backfill::read_again(store, REALM, "crm", &many, false, now()).await.unwrap();
    until("the first of many", async || !crm.asked("GET /things/many").is_empty()).await;
    crm.put("c5", json!({"phone": "new"}));
    until("what is new", async || phone(5) == "new").await;
    assert!(!pending(&world).await.is_empty(), "it came after the backfill");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backfill_has_nobody_polled_the_more_often() {
    let mut world = World::new(Offers::default(), false).await;
    // Where processes share a store, a reader is told of what another one asks for.
    world.store = Arc::new(SqliteStore::open_in_memory().unwrap().partitioned(2));
    let crm = world.vendor("crm");
    crm.put("c0", json!({"name": "Thing", "phone": "1"}));
    let mut units = world.units();
    let unit = Arc::make_mut(units.integrations.values_mut().next().unwrap());
    Arc::make_mut(&mut unit.participants[0]).read.as_mut().unwrap().every = Duration::from_secs(300);
    let engine = Engine::start(world.config());
    engine.apply(&units).await;
    until("the first load", async || world.vendor("erp").count() == 1).await;
    let polls = || crm.asked("GET /things").iter().filter(|line| !line.contains("/things/")).count();
    let before = polls();
    let now = fairlead_model::Clock::now(&fairlead_model::SystemClock);
    let many = Which::Ids((0..2500).map(|number| ExternalId(format!("many{number}"))).collect());
    backfill::read_again(world.store.as_ref(), REALM, "crm", &many, false, now).await.unwrap();
    until("all of it", async || pending(&world).await.is_empty()).await;
    // One for whoever woke the reader, and one that was under way.
    assert!(polls() <= before + 2, "{} polls", polls() - before);
    engine.stop().await;
}
