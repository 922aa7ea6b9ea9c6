//! The world's one source of chance, its clock, and the trace of what happened.

use fairlead_model::{Clock, Random, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::Instant;

/// When every world begins: 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600_000;
/// So many lines of the trace are told when a seed fails.
const TAIL: usize = 120;

/// The virtual clock: what the runtime's paused time makes of the beginning.
pub(crate) struct VirtualClock(Instant);

impl VirtualClock {
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp(BEGIN + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

/// Chance for one part of the world, drawn apart from all others, so that it does not move when they draw more.
pub(crate) struct Dice(Mutex<StdRng>);

impl Dice {
    pub(crate) fn new(seed: u64, part: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, part).hash(&mut hasher);
        Self(Mutex::new(StdRng::seed_from_u64(hasher.finish())))
    }

    fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.0.lock().unwrap()
    }

    /// A number of the range.
    pub(crate) fn of(&self, range: RangeInclusive<u64>) -> u64 {
        self.rng().random_range(range)
    }

    /// Yes, in so many of a thousand cases.
    pub(crate) fn permille(&self, share: u64) -> bool {
        self.rng().random_range(0..1000) < share
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        let at = self.rng().random_range(0..from.len());
        &from[at]
    }
}

impl Random for Dice {
    fn bits(&self) -> u64 {
        self.rng().random()
    }
}

/// What happened, in order.
pub(crate) struct Trace {
    clock: Arc<VirtualClock>,
    told: bool,
    inner: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    hasher: DefaultHasher,
    count: u64,
    tail: VecDeque<String>,
    reached: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Trace {
    pub(crate) fn new(clock: Arc<VirtualClock>, told: bool) -> Self {
        Self { clock, told, inner: Mutex::default() }
    }

    /// Something happened.
    pub(crate) fn event(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        let now = self.clock.now().0 - BEGIN;
        let mut inner = self.inner.lock().unwrap();
        (now, text).hash(&mut inner.hasher);
        inner.count += 1;
        let mut line = String::new();
        let short: String = text.chars().take(600).collect();
        write!(line, "{:>5}.{:03} {short}", now / 1000, now % 1000).unwrap();
        if self.told {
            println!("{line}");
        }
        if inner.tail.len() == TAIL {
            inner.tail.pop_front();
        }
        inner.tail.push_back(line);
    }

    /// A named point was reached.
    pub(crate) fn reach(&self, point: &str) {
        *self.inner.lock().unwrap().reached.entry(point.to_owned()).or_default() += 1;
        self.event(format!("** {point}"));
    }

    /// Something is wrong.
    pub(crate) fn fail(&self, what: String) {
        self.event(format!("!! {what}"));
        let mut inner = self.inner.lock().unwrap();
        if inner.failures.len() < 10 {
            inner.failures.push(what);
        }
    }

    pub(crate) fn failed(&self) -> bool {
        !self.inner.lock().unwrap().failures.is_empty()
    }

    /// All of it: how many events, their hash, the last of them, the points, what is wrong.
    pub(crate) fn end(&self) -> (u64, u64, String, BTreeMap<String, u64>, Vec<String>) {
        let inner = self.inner.lock().unwrap();
        let tail: Vec<&str> = inner.tail.iter().map(String::as_str).collect();
        (inner.count, inner.hasher.finish(), tail.join("\n"), inner.reached.clone(), inner.failures.clone())
    }
}
