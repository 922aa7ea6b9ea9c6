//! What becomes of writes whose outcome is not known, and of those that nobody may make.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, report, until};
use fairlead_engine::Engine;
use fairlead_engine::decide::difference::{Sight, observe};
use fairlead_engine::decide::outbound::Sent;
use fairlead_model::hash::ValueHash;
use fairlead_model::state::ParticipantState;
use fairlead_model::{ExternalId, Timestamp};
use serde_json::json;
use std::time::Duration;

/// Whether the ERP's lane rests.
fn rests(engine: &Engine) -> bool {
    let participants = report(engine).map(|report| report.participants).unwrap_or_default();
    participants.iter().any(|participant| participant.name == "erp" && participant.paused_by.is_some())
}

/// The ERP holds one thing that the CRM made.
async fn one_thing(world: &World) -> String {
    world.vendor("crm").put("c0", json!({"name": "Thing", "phone": "0"}));
    until("the first load", async || world.vendor("erp").id_of("Thing").is_some()).await;
    world.vendor("erp").id_of("Thing").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_an_answer_is_sent_again_where_nothing_can_be_read_and_twice_does_no_harm() {
    let world = World::new(Offers { get: false, ..Offers::default() }, false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let engine = world.engine().await;
    let id = one_thing(&world).await;
    erp.fault("PATCH", Fault::Status(500), 1);
    crm.put("c0", json!({"phone": "1"}));
    until("the edit", async || erp.value(&id, "phone") == "1").await;
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_an_answer_is_a_persons_to_find_out_where_twice_may_do_harm() {
    let world = World::new(Offers { get: false, idempotent: false, ..Offers::default() }, false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let engine = world.engine().await;
    let id = one_thing(&world).await;
    erp.fault("PATCH", Fault::Status(500), usize::MAX);
    crm.put("c0", json!({"phone": "1"}));
    let letter = world.letter(0).await;
    assert_eq!((letter.letter.reason.as_str(), erp.asked("PATCH").len()), ("OutcomeUnknown", 1));
    // Creations are not held up by it.
    crm.put("c1", json!({"name": "Next"}));
    until("the next thing", async || erp.id_of("Next").is_some()).await;
    // A person has looked, and has it sent again.
    erp.heal();
    fairlead_engine::letters::replay(world.store.as_ref(), &letter, "mia", fairlead_model::Timestamp(0)).await.unwrap();
    until("the edit", async || erp.value(&id, "phone") == "1").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_was_sending_is_waited_out_before_it_is_looked_up() {
    let world = World::new(Offers { timeout: "60s", ..Offers::default() }, false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let first = mortal(&world);
    let id = one_thing(&world).await;
    erp.fault("PATCH", Fault::Held, 1);
    crm.put("c0", json!({"phone": "1"}));
    until("the first version on its way", async || erp.asked("PATCH").len() == 1).await;
    first.shutdown_background();

    // Its leases run out, and the next process carries the next version; the vendor still works at the first one.
    crm.put("c0", json!({"phone": "2"}));
    world.clock.pass(Duration::from_secs(16));
    let second = world.engine().await;
    let polls = crm.asked("GET /things?").len();
    until("the second at work", async || crm.asked("GET /things?").len() > polls + 15).await;
    assert_eq!(erp.asked("PATCH").len(), 1, "the second version could be overtaken by the first");
    erp.release();
    until("the first version", async || erp.value(&id, "phone") == "1").await;
    world.clock.pass(Duration::from_secs(60));
    until("the second version", async || erp.value(&id, "phone") == "2").await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_everything_for_how_it_is_declared_rests() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    erp.fault("PUT", Fault::Status(410), usize::MAX);
    for number in 0..30 {
        crm.put(&format!("c{number}"), json!({"name": format!("Thing {number}")}));
    }
    let engine = world.engine().await;
    until("a refusal in the report", async || rests(&engine)).await;
    // A while in which keys that are tried again every two seconds would have been.
    let polls = crm.asked("GET /things?").len();
    until("twenty polls", async || crm.asked("GET /things?").len() >= polls + 20).await;
    let tried = erp.asked("PUT").len();
    assert!(tried <= 30, "{tried} requests to a system that refuses them all");
    assert!(world.letters().await.is_empty());
    erp.heal();
    world.clock.pass(Duration::from_secs(31));
    until("all of them", async || erp.count() == 30).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_refused_so_while_others_go_through_becomes_a_dead_letter() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    erp.fault("\"name\":\"Refused\"", Fault::Status(410), usize::MAX);
    crm.put("c0", json!({"name": "Refused"}));
    crm.put("c1", json!({"name": "Other"}));
    let engine = world.engine().await;
    until("the other thing", async || erp.id_of("Other").is_some()).await;
    // Tried alone, it cannot be told from a target that refuses everything, and the target rests; then it is tried in company once more.
    until("the target at rest", async || rests(&engine)).await;
    crm.put("c1", json!({"phone": "1"}));
    let polls = crm.asked("GET /things?").len();
    until("the edit read", async || crm.asked("GET /things?").len() > polls + 3).await;
    world.clock.pass(Duration::from_secs(31));
    let letter = world.letter(0).await;
    assert_eq!(letter.letter.class, fairlead_model::ErrorClass::Configuration);
    assert_eq!(erp.value(&erp.id_of("Other").unwrap(), "phone"), "1");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_record_that_cannot_be_searched_for_holds_up_no_other() {
    let world = World::new(Offers::default(), false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    for status in [500, 410, 403] {
        let (bad, good) = (format!("Bad {status}"), format!("Good {status}"));
        erp.fault(&format!("equals=Bad%20{status}"), Fault::Status(status), usize::MAX);
        crm.put(&format!("a{status}"), json!({"name": bad}));
        crm.put(&format!("b{status}"), json!({"name": good}));
    }
    let engine = world.engine().await;
    until("the good ones", async || [500, 410, 403].iter().all(|status| erp.id_of(&format!("Good {status}")).is_some())).await;
    assert_eq!(erp.count(), 3, "one was made without having been searched for");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_to_be_read_again_is_not_written_before() {
    let world = World::new(Offers::default(), true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let engine = world.engine().await;
    let id = one_thing(&world).await;
    let by_key = format!("GET /things/{id}");
    erp.fault(&by_key, Fault::Held, 1);
    world.store.request_reads(REALM, "erp", &[ExternalId(id.clone())], fairlead_store::Haste::Soon, Timestamp(0)).await.unwrap();
    until("the reading by key", async || !erp.asked(&by_key).is_empty()).await;
    crm.put("c0", json!({"phone": "1"}));
    let polls = crm.asked("GET /things?").len();
    until("fifteen polls", async || crm.asked("GET /things?").len() >= polls + 15).await;
    assert!(erp.asked("PATCH").is_empty(), "what somebody edited there meanwhile would be written over");
    erp.release();
    until("the edit", async || erp.value(&id, "phone") == "1").await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_without_an_answer_is_found_by_what_was_sent_though_the_record_has_another_name_by_now() {
    let world = World::new(Offers { keyed: false, ..Offers::default() }, true).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let engine = world.engine().await;
    erp.fault("POST /things", Fault::Held, 1);
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    until("the creation on its way", async || !erp.asked("POST /things").is_empty()).await;
    crm.put("c0", json!({"name": "Renamed"}));
    let known = async || world.store.known_by_external(REALM, "crm", &["c0".into()]).await.unwrap().pop().flatten();
    until("the other name", async || known().await.is_some_and(|known| known.record.document["name"] == "Renamed")).await;
    erp.release();
    until("what was made", async || erp.id_of("Thing").is_some()).await;
    // Until then it may still be under way.
    world.clock.pass(Duration::from_secs(60));
    until("the other name there", async || erp.id_of("Renamed").is_some()).await;
    let polls = erp.asked("GET /things?since").len();
    until("five more polls", async || erp.asked("GET /things?since").len() >= polls + 5).await;
    assert_eq!((erp.count(), crm.count()), (1, 1), "it was made a second time");
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}

/// An engine with threads of its own, so that it can die as a process does.
fn mortal(world: &World) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (config, units) = (world.config(), world.units());
    runtime.spawn(async move {
        let engine = Engine::start(config);
        engine.apply(&units).await;
        std::future::pending::<()>().await;
    });
    runtime
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_was_found_is_found_again_by_the_process_after_though_the_record_has_another_name_by_now() {
    let world = World::new(Offers { keyed: false, ..Offers::default() }, false).await;
    let (crm, erp) = (world.vendor("crm"), world.vendor("erp"));
    let known = async || world.store.known_by_external(REALM, "crm", &["c0".into()]).await.unwrap().pop().flatten();
    let holds = async |field: &str, value: &str| known().await.is_some_and(|known| known.record.document[field] == value);
    let first = mortal(&world);
    erp.fault("POST /things", Fault::Held, 1);
    crm.put("c0", json!({"name": "Thing", "phone": "0"}));
    until("the creation on its way", async || !erp.asked("POST /things").is_empty()).await;
    crm.put("c0", json!({"phone": "1"}));
    until("the other number", async || holds("phone", "1").await).await;
    first.shutdown_background();
    erp.release();
    until("what was made", async || erp.id_of("Thing").is_some()).await;

    // The second finds it, and dies while it writes the number over it.
    world.clock.pass(Duration::from_secs(80));
    let second = mortal(&world);
    erp.fault("PATCH", Fault::Held, 1);
    until("the number on its way", async || !erp.asked("PATCH").is_empty()).await;
    crm.put("c0", json!({"name": "Renamed"}));
    until("the other name", async || holds("name", "Renamed").await).await;
    second.shutdown_background();
    erp.release();

    world.clock.pass(Duration::from_secs(80));
    let third = world.engine().await;
    until("the other name there", async || erp.id_of("Renamed").is_some()).await;
    assert_eq!(erp.count(), 1, "it was made a second time");
    assert_eq!(erp.value(&erp.id_of("Renamed").unwrap(), "phone"), "1");
    assert!(world.letters().await.is_empty());
    third.stop().await;
}

#[test]
fn what_a_target_shows_as_it_was_sent_is_an_echo_and_the_rest_may_be_what_it_made_of_that() {
    let hash = |text: &str| ValueHash::of(Some(&json!(text)));
    let sent = Sent::read(&json!({"rows": [], "units": {"name": hash("Thing"), "phone": hash("1")}}));
    let mut state = ParticipantState::default();
    let shown = [("name".parse().unwrap(), json!("Thing")), ("phone".parse().unwrap(), json!("2"))];
    sent.echoes(&shown, &mut state);
    assert_eq!(state.fields["name"].seen, Some(hash("Thing")));
    let phone = state.fields.get_mut("phone").unwrap();
    assert_eq!((phone.seen, phone.sent), (None, Some(hash("1"))));
    let mut rendered = *phone;
    assert_eq!(observe(&mut rendered, hash("2"), hash("1")), Sight::First);
    assert_eq!(observe(phone, hash("1"), hash("3")), Sight::First, "what was sent has come back by somebody's hand");
}
