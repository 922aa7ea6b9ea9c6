//! The deterministic simulation: engines, a store and business systems in one thread under paused time, with people at work, faults at named
//! points, and one seed that decides everything.
//!
//! What is real: the engine, the store (SQLite, inline), the client with its protocol, limits, circuit and judgement. What is simulated: the
//! systems (below the client, so no socket is opened), time, chance, and the death and the pause of processes. After the faults have stopped
//! and people stand still, the world must reach the wanted state, stay there and be quiet.
//!
//! | variable | means |
//! |---|---|
//! | `FAIRLEAD_SEED` | only this seed, with its whole trace |
//! | `FAIRLEAD_SEEDS` | so many seeds; 200 if it is not given |
//! | `FAIRLEAD_FIRST_SEED` | the first of them; 0 if it is not given |
//!
//! A seed that fails is printed with the command that repeats it and the end of its trace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod chance;
mod outage;
mod people;
mod points;
mod process;
mod run;
mod system;
mod world;

use run::{Outcome, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that found a defect once, each with what it was.
const REGRESSIONS: [(u64, &str); 47] = [
    (44, "what its owner has emptied was filled by a participant seen later"),
    (52, "a creation of unknown outcome was found by its reader while it was looked up, and sent again"),
    (69, "what its owner has emptied was filled by a participant seen later"),
    (110, "what a system made of the owner's value before was kept as an edit, and the next one never written"),
    (178, "what a look-up had taught was lost with its process, and our own write taken for an edit"),
    (193, "what was merged into a creation of unknown outcome took its id, and it was made a second time"),
    (253, "what was deleted twice and entered a third time was made a second time"),
    (358, "a reference that its owner had turned elsewhere was written over unread, for a merge in another system"),
    (442, "a foreign edit after a write whose outcome was looked up was taken for a rendering, though our value had been read"),
    (757, "a write of unknown outcome in a target that nobody reads was taken for none, and what was cleared then stayed there"),
    (870, "what its owner had filled in since it was read was written over with what another system had there"),
    (991, "a write of unknown outcome in a target that nobody reads was taken for none: a reference"),
    (1182, "a record that was found where nobody reads was forgotten with its process, and made a second time"),
    (1199, "what a system made of a write of unknown outcome was kept as an edit, and the owner's next value never written"),
    (1362, "a record that was found where nobody reads was forgotten with its process, and made a second time"),
    (1446, "a record that was found where nobody reads was forgotten with its process, and made a second time"),
    (1589, "a write that never left was taken for part of the creation before it, and what it brought never came"),
    (1632, "what was merged away was not archived, for another id of it was never read"),
    (2242, "an older state that a read by key showed was taken for a restored backup"),
    (3558, "what was cleared since a creation of unknown outcome was filled again, for the creation was not known for ours"),
    (3908, "a write that was under way put back a foreign edit that had become the owner's value"),
    (3957, "a reference that its owner had entered and that was not known yet was emptied"),
    (3982, "what a system made of a creation of unknown outcome was kept as an edit, and the owner's next value never written"),
    (4081, "a reference that its owner had entered and that was not known yet was written over as if it had been read"),
    (4271, "what was deleted in a first load was made a second time, from a copy that was read later"),
    (4300, "a write that was under way put back a foreign edit that had become the owner's value"),
    (4405, "what a system made of a creation of unknown outcome was kept as an edit, and the owner's next value never written"),
    (4546, "what was cleared since a creation of unknown outcome was filled again, for the creation was not known for ours"),
    (4761, "what a look-up found to be our creation was not archived when it left"),
    (4815, "what was cleared never entered the lane of a target that is known natively alone"),
    (4913, "what was deleted in a first load was made a second time, from a copy that was read later"),
    (5423, "a write of unknown outcome of which a part was put back since was taken for none, and the part written again"),
    (5612, "what had been looked at was written long after the look, behind everything else"),
    (6941, "what was merged into a deleted record gave it another match value, and it was made a second time when it was entered again"),
    (7069, "a process that had stood still sent a request whose time was over, with an older value"),
    (8566, "what its owner entered again, after a look-up had seen another value in its place, was taken for our creation"),
    (
        9339,
        "a process that had stood still while it looked at the store took that for the cost of counting, and others began a quarter of an hour late",
    ),
    (9471, "a creation that a look-up had found was not known for ours by the next one, and the owner's value was never written over it"),
    (9638, "what stood in a system before anything was written there, and was entered again, was taken for how it renders"),
    (10240, "people removed more than the guard lets pass, and nobody is there to confirm it"),
    (11217, "a merge gave a copy, where nobody reads, to a record that stood there already, and that one was there twice"),
    (
        11729,
        "a write that was never sent was taken for done, for somebody had entered a part of it: not the reference, which a look leaves out",
    ),
    (14270, "what its owner cleared after a page that could not be stored had shown it was expected to be known"),
    (14301, "what was entered again was put off for a deletion that was known and only shown again, and was made a second time"),
    (15754, "a creation of unknown outcome, where nobody reads, was not known for ours once its record was deleted, and stayed"),
    (15936, "what a system made of the value before was kept in place of a write of unknown outcome that had no effect"),
    (17220, "a request that had passed the gate before its process stood still was blamed for a wait that was told afterwards"),
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text:?}")))
}

fn told(outcome: &Outcome) -> String {
    format!(
        "seed {seed} fails:\n{what}\n\nthe end of its trace:\n{trace}\n\nrepeat it: FAIRLEAD_SEED={seed} cargo nextest run --workspace --no-capture -E 'test(every_seed_)'\n",
        seed = outcome.seed,
        what = outcome.failures.join("\n"),
        trace = outcome.tail,
    )
}

#[test]
fn every_seed_reaches_the_wanted_state_stays_there_and_is_quiet() {
    if let Some(seed) = number("FAIRLEAD_SEED") {
        let outcome = run(seed, true);
        assert!(outcome.failures.is_empty(), "{}", told(&outcome));
        return;
    }
    let (first, count) = (number("FAIRLEAD_FIRST_SEED").unwrap_or(0), number("FAIRLEAD_SEEDS").unwrap_or(200));
    let next = AtomicU64::new(first);
    let failed: Mutex<Vec<String>> = Mutex::default();
    let reached: Mutex<BTreeMap<String, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(2) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run(seed, false);
                    if !outcome.failures.is_empty() {
                        eprintln!("{}", told(&outcome));
                        failed.lock().unwrap().push(format!("seed {seed}: {}", outcome.failures[0]));
                    }
                    let mut reached = reached.lock().unwrap();
                    for (point, times) in outcome.reached {
                        *reached.entry(point).or_default() += times;
                    }
                }
            });
        }
    });
    let (failed, reached) = (failed.into_inner().unwrap(), reached.into_inner().unwrap());
    for (point, times) in &reached {
        println!("{times:>8} {point}");
    }
    assert!(failed.is_empty(), "{} of {count} seeds fail:\n{}", failed.len(), failed.join("\n"));
    // Fewer seeds reach fewer points.
    if count >= 200 {
        let holes: Vec<String> = points::all().into_iter().filter(|point| !reached.contains_key(point)).collect();
        assert!(holes.is_empty(), "a hole in the faults: {count} seeds never reached {holes:?}");
    }
}

#[test]
fn a_seed_repeats_itself_to_the_last_event() {
    for seed in 0..6 {
        let (once, again) = (run(seed, false), run(seed, false));
        assert_eq!(once.events, again.events, "seed {seed}");
        assert_eq!(once.hash, again.hash, "seed {seed}");
    }
    assert_ne!(run(0, false).hash, run(1, false).hash);
}

#[test]
fn seeds_that_found_a_defect_find_it_no_more() {
    for (seed, what) in REGRESSIONS {
        let outcome = run(seed, false);
        assert!(outcome.failures.is_empty(), "{what}: {}", told(&outcome));
    }
}
