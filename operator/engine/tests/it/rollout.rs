//! A new revision is compared, tried on a share of the records, and takes over; or is stopped, and what it has touched is put back.

use crate::vendor::Fault;
use crate::world::{Offers, REALM, World, report, until};
use fairlead_engine::Engine;
use fairlead_engine::decide::rollout::is_in_share;
use fairlead_model::hash::Digest;
use fairlead_model::report::{Revisions, TrialPhase, TrialReport};
use fairlead_model::unit::{CanaryUnit, ObjectKey, RevisionUnit, RolloutUnit, Units};
use serde_json::{Value, from_value, json};
use std::sync::Arc;
use std::time::Duration;

/// As long as each phase lasts.
const MINUTE: Duration = Duration::from_secs(60);
/// So many records there are, and half of them are the canary's.
const THINGS: usize = 60;
const PERCENT: u32 = 50;

/// What is declared as the revision of this number: `phone` has another row in `participant`.
fn revision(world: &World, number: i64, participant: &str, phone: &Value) -> Units {
    let mut units = world.units();
    let unit = Arc::make_mut(units.integrations.get_mut(&ObjectKey(REALM.into())).unwrap());
    let part = unit.participants.iter_mut().find(|each| each.name == participant).unwrap();
    Arc::make_mut(part).rows[1] = from_value(phone.clone()).unwrap();
    unit.digest = Digest::of(&json!([participant, phone]));
    unit.revision = RevisionUnit { number: Some(number), spec: unit.digest.clone() };
    unit.rollout = Some(RolloutUnit { shadow: MINUTE, canary: Some(CanaryUnit { percent: PERCENT, lasts: MINUTE }) });
    units
}

fn plain() -> Value {
    json!({"canonical": "phone", "native": "phone"})
}

fn plus(from: &str) -> Value {
    let expression = r#""+" + string!(.record.phone)"#;
    json!({"canonical": "phone", "native": "phone", from: expression})
}

/// Two systems in step under the first revision.
async fn in_step() -> (World, Engine) {
    let world = World::new(Offers::default(), false).await;
    for number in 0..THINGS {
        world.vendor("crm").put(&format!("c{number}"), json!({"name": format!("Thing {number}"), "phone": number.to_string()}));
    }
    let engine = Engine::start(world.config());
    engine.apply(&revision(&world, 1, "erp", &plain())).await;
    until("the first load", async || phones(&world, |phone| !phone.is_empty()) == THINGS).await;
    until("its revision", async || told(&engine) == Some(Revisions { active: Some(1), trial: None })).await;
    (world, engine)
}

/// How many phones in the ERP are like this.
fn phones(world: &World, like: impl Fn(&str) -> bool) -> usize {
    let erp = world.vendor("erp");
    let phone = |number: usize| erp.value(&erp.id_of(&format!("Thing {number}"))?, "phone").as_str().map(str::to_owned);
    (0..THINGS).filter_map(phone).filter(|phone| like(phone)).count()
}

fn told(engine: &Engine) -> Option<Revisions> {
    report(engine)?.revision
}

fn trial(engine: &Engine) -> Option<TrialReport> {
    told(engine)?.trial
}

async fn phase(engine: &Engine, wanted: TrialPhase) -> TrialReport {
    until(wanted.word(), async || trial(engine).is_some_and(|trial| trial.phase == wanted)).await;
    trial(engine).unwrap()
}

/// Its time in this phase passes.
async fn due(world: &World, engine: &Engine) {
    let was = trial(engine).unwrap().phase;
    // What passes between two looks of the engine counts for no more than this.
    until("the next phase", async || {
        world.clock.pass(MINUTE / 4);
        tokio::time::sleep(Duration::from_millis(300)).await;
        trial(engine).is_none_or(|trial| trial.phase != was)
    })
    .await;
}

/// How many records are the canary's.
async fn share(world: &World) -> usize {
    let records = world.store.records(REALM, None, 1000).await.unwrap();
    records.iter().filter(|known| is_in_share(known.record.id, PERCENT)).count()
}

/// The same two, and a second revision that was compared and has written its share.
async fn in_canary() -> (World, Engine) {
    let (world, engine) = in_step().await;
    engine.apply(&revision(&world, 2, "erp", &plus("fromCanonical"))).await;
    until("a comparison", async || trial(&engine).is_some_and(|trial| trial.tried > 0)).await;
    due(&world, &engine).await;
    let share = share(&world).await;
    until("the share", async || phones(&world, |phone| phone.starts_with('+')) == share).await;
    (world, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_writes_nothing_in_the_shadow_its_share_as_a_canary_and_then_all() {
    let (world, engine) = in_step().await;
    let second = revision(&world, 2, "erp", &plus("fromCanonical"));
    engine.apply(&second).await;
    until("a comparison", async || trial(&engine).is_some_and(|trial| trial.tried > 0)).await;
    let shadow = phase(&engine, TrialPhase::Shadow).await;
    let all = u64::try_from(THINGS).unwrap();
    assert_eq!((shadow.revision, shadow.tried, shadow.different, shadow.failing), (Some(2), all, all, 0));
    assert_eq!(told(&engine).unwrap().active, Some(1));

    // It goes on where it was, whoever restarts.
    engine.stop().await;
    let engine = Engine::start(world.config());
    engine.apply(&second).await;
    assert_eq!(phase(&engine, TrialPhase::Shadow).await.since, shadow.since);
    // Changes go on being delivered as they were.
    world.vendor("crm").put("c0", json!({"phone": "1000"}));
    until("a change", async || phones(&world, |phone| phone == "1000") == 1).await;
    assert!(world.vendor("erp").asked("\"+").is_empty(), "nothing is written by it");

    due(&world, &engine).await;
    phase(&engine, TrialPhase::Canary).await;
    let share = share(&world).await;
    assert!((5..THINGS - 5).contains(&share), "{share}");
    until("the share", async || phones(&world, |phone| phone.starts_with('+')) == share).await;

    engine.stop().await;
    let engine = Engine::start(world.config());
    engine.apply(&second).await;
    phase(&engine, TrialPhase::Canary).await;
    for number in 0..THINGS {
        world.vendor("crm").put(&format!("c{number}"), json!({"phone": (2000 + number).to_string()}));
    }
    until("changes of either", async || {
        phones(&world, |phone| phone.trim_start_matches('+').starts_with('2') && phone.len() > 3) == THINGS
    })
    .await;
    assert_eq!(phones(&world, |phone| phone.starts_with('+')), share, "each by its own revision");

    due(&world, &engine).await;
    until("all of them", async || phones(&world, |phone| phone.starts_with('+')) == THINGS).await;
    until("its number", async || told(&engine) == Some(Revisions { active: Some(2), trial: None })).await;
    engine.stop().await;
    let engine = Engine::start(world.config());
    engine.apply(&second).await;
    until("the same after a restart", async || told(&engine) == Some(Revisions { active: Some(2), trial: None })).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_reads_otherwise_is_compared_with_a_sample_and_reads_its_share_again() {
    let (world, engine) = in_step().await;
    engine.apply(&revision(&world, 2, "crm", &plus("toCanonical"))).await;
    until("a comparison", async || trial(&engine).is_some_and(|trial| trial.tried > 0)).await;
    let shadow = trial(&engine).unwrap();
    let all = u64::try_from(THINGS).unwrap();
    assert_eq!((shadow.tried, shadow.different, shadow.failing), (all, all, 0));
    due(&world, &engine).await;
    phase(&engine, TrialPhase::Canary).await;
    let share = share(&world).await;
    until("the share", async || phones(&world, |phone| phone.starts_with('+')) == share).await;
    due(&world, &engine).await;
    until("all of them", async || phones(&world, |phone| phone.starts_with('+')) == THINGS).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_whose_writes_are_refused_is_stopped_and_its_share_is_put_back() {
    let (world, engine) = in_step().await;
    engine.apply(&revision(&world, 2, "erp", &plus("fromCanonical"))).await;
    until("a comparison", async || trial(&engine).is_some_and(|trial| trial.tried > 0)).await;
    world.vendor("erp").fault("\"+", Fault::Status(422), 5);
    due(&world, &engine).await;
    let stopped = phase(&engine, TrialPhase::Stopped).await;
    let why = stopped.stopped.unwrap();
    assert!(why.contains("as dead letters, 0 again and again), and 0 of the") && why.contains("one of them: erp: "), "{why}");
    until("all put back", async || phones(&world, |phone| !phone.starts_with('+')) == THINGS && world.letters().await.is_empty()).await;

    // It stays stopped, until another revision comes; the one before is in force already.
    engine.stop().await;
    let engine = Engine::start(world.config());
    engine.apply(&revision(&world, 2, "erp", &plus("fromCanonical"))).await;
    phase(&engine, TrialPhase::Stopped).await;
    world.vendor("crm").put("c0", json!({"phone": "1000"}));
    until("a change", async || phones(&world, |phone| phone == "1000") == 1).await;
    engine.apply(&revision(&world, 3, "erp", &plain())).await;
    until("the one before", async || told(&engine) == Some(Revisions { active: Some(3), trial: None })).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_whose_writes_fail_again_and_again_is_stopped_before_any_is_a_dead_letter() {
    let (world, engine) = in_step().await;
    let erp = world.vendor("erp");
    let mut second = revision(&world, 2, "erp", &plus("fromCanonical"));
    // A letter would come long after.
    Arc::make_mut(second.integrations.get_mut(&ObjectKey(REALM.into())).unwrap()).retry.attempts = 50;
    engine.apply(&second).await;
    until("a comparison", async || trial(&engine).is_some_and(|trial| trial.tried > 0)).await;
    // About half of what the share is written with; the rest goes through.
    let bad = ["\"+1", "\"+2", "\"+3"];
    for part in bad {
        erp.fault(part, Fault::Status(503), usize::MAX);
    }
    due(&world, &engine).await;
    let stopped = phase(&engine, TrialPhase::Stopped).await;
    let why = stopped.stopped.unwrap();
    assert!(why.contains("of its share fail (0 as dead letters, ") && why.contains(" again and again), and 0 of the "), "{why}");
    assert!(why.contains("one of them: erp: writing record ") && why.contains(" has failed "), "{why}");
    assert!(stopped.failing >= 3 && world.letters().await.is_empty());
    // Every other one is answered well.
    assert!(erp.asked("\"+").iter().any(|line| !bad.iter().any(|part| line.contains(part))), "others went through");

    // What was sent without an answer is looked up once it cannot arrive any more.
    world.clock.pass(MINUTE / 2);
    until("all put back", async || {
        let records = world.store.records(REALM, None, 1000).await.unwrap();
        phones(&world, |phone| !phone.starts_with('+')) == THINGS && records.iter().all(|known| known.lanes.is_empty())
    })
    .await;
    assert!(world.letters().await.is_empty());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_a_canary_back_has_its_share_put_back() {
    let (world, engine) = in_canary().await;
    // While nobody works.
    engine.stop().await;
    let engine = Engine::start(world.config());
    engine.apply(&revision(&world, 3, "erp", &plain())).await;
    until("all put back", async || phones(&world, |phone| !phone.starts_with('+')) == THINGS).await;
    until("its revision", async || told(&engine) == Some(Revisions { active: Some(3), trial: None })).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_canary_has_written_is_put_back_also_where_the_next_revision_is_tried_on_another_table() {
    let (world, engine) = in_canary().await;
    let third = json!({"canonical": "phone", "native": "phone", "toCanonical": "string!(.record.phone)"});
    engine.apply(&revision(&world, 3, "crm", &third)).await;
    phase(&engine, TrialPhase::Shadow).await;
    until("all put back", async || phones(&world, |phone| !phone.starts_with('+')) == THINGS).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_cannot_map_what_there_is_never_writes() {
    let (world, engine) = in_step().await;
    let fails = json!({"canonical": "phone", "native": "phone", "fromCanonical": r#"to_string(parse_int!(string!(.record.name), 10))"#});
    let mut units = revision(&world, 2, "erp", &fails);
    engine.apply(&units).await;
    let stopped = phase(&engine, TrialPhase::Stopped).await;
    assert_eq!(stopped.failing, u64::try_from(THINGS).unwrap());
    assert!(
        stopped.stopped.is_some_and(|why| why.contains("that do not fail under the revision in force; one of them: erp: mapping row 1"))
    );
    assert!(world.letters().await.is_empty());

    // Without a rollout, it takes over all the same.
    let unit = Arc::make_mut(units.integrations.get_mut(&ObjectKey(REALM.into())).unwrap());
    (unit.rollout, unit.digest) = (None, Digest::of(&json!("at once")));
    engine.apply(&units).await;
    until("letters", async || world.letters().await.len() == THINGS).await;
    until("its revision", async || told(&engine) == Some(Revisions { active: Some(2), trial: None })).await;
    engine.stop().await;
}
