//! One of three targets is away for a minute, at a load that all of them bear.

use crate::chance::Dice;
use crate::run::{Run, play};
use crate::world::World;
use fairlead_model::{Clock, Timestamp};
use fairlead_simulators::history::Origin;
use fairlead_store::DeadLetterFilter;
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Things that people edit.
const THINGS: u64 = 300;
/// Between two edits.
const EDIT_EVERY: Duration = Duration::from_millis(200);
const MINUTE: Duration = Duration::from_secs(60);
/// The target that goes away, in the order of the systems; the others are 1 and 2.
const AWAY: usize = 3;

/// People at the first system for a minute.
async fn a_minute_of_edits(run: &Run, dice: &Dice, number: &mut u64) {
    let end = Instant::now() + MINUTE;
    while Instant::now() < end {
        *number += 1;
        let id = format!("crm-{:04}", dice.of(1..=THINGS));
        let now = run.clock.now().0;
        run.world.systems[0].lock().unwrap().edit(&id, Map::from_iter([("Phone".to_owned(), json!(format!("p{number}")))]), now, now);
        tokio::time::sleep(EDIT_EVERY).await;
    }
}

/// What our writes did to a system since a moment.
fn delivered(run: &Run, place: usize, since: Timestamp) -> u64 {
    let system = run.world.systems[place].lock().unwrap();
    let ours = system.log().into_iter().filter(|entry| entry.origin == Origin::Api);
    ours.filter(|entry| Timestamp::parse(&entry.time).is_some_and(|at| at >= since)).count() as u64
}

#[test]
fn a_target_that_is_away_takes_nothing_from_the_others_and_catches_up() {
    let outcome = play(7, false, |clock, trace| async move {
        let run = Run::of(7, Arc::new(World::three_targets()), Dice::new(7, "fates"), (0, 0), (1, 1), clock, trace);
        let (dice, mut number) = (Dice::new(7, "people"), 0);
        for thing in 0..THINGS {
            let now = run.clock.now().0;
            let values =
                Map::from_iter([("Code".to_owned(), json!(format!("c{thing}"))), ("Name".to_owned(), json!(format!("Thing {thing}")))]);
            run.world.systems[0].lock().unwrap().create(values, now, now);
        }
        run.start(0);
        tokio::time::sleep(MINUTE).await;

        let begun = run.clock.now();
        a_minute_of_edits(&run, &dice, &mut number).await;
        let before = [1, 2].map(|place| delivered(&run, place, begun));

        run.sim.away.lock().unwrap()[AWAY] = Some(Instant::now() + MINUTE);
        let gone = run.clock.now();
        a_minute_of_edits(&run, &dice, &mut number).await;
        let during = [1, 2].map(|place| delivered(&run, place, gone));
        println!(
            "delivered in a minute: {before:?}, while another target is away: {during:?}, to that one: {}",
            delivered(&run, AWAY, gone)
        );
        for (before, during) in before.into_iter().zip(during) {
            if before < 200 || during * 100 < before * 95 {
                run.trace.fail(format!("{before} before and {during} while another target was away"));
            }
        }
        if delivered(&run, AWAY, gone) > 0 {
            run.trace.fail("it was not away".into());
        }

        a_minute_of_edits(&run, &dice, &mut number).await;
        // Every system holds what people entered, each once; nothing waits, and it is quiet.
        run.settle().await;
        let filter = DeadLetterFilter { realm: Some(run.world.realm()), closed: true, max: 10, ..DeadLetterFilter::default() };
        for letter in run.store.dead_letters(&filter).await.unwrap() {
            run.trace.fail(format!("an outage made a dead letter: {}", letter.letter.message));
        }
    });
    assert!(outcome.failures.is_empty(), "{:?}\n{}", outcome.failures, outcome.tail);
}
