//! Whose turn it is: requests in line for one of an account's places and, one after the other, for a slot of its rate.
//!
//! The line is kept by priority, then by arrival. Only its head may take a place, and only at the time of the next slot; nobody reserves a slot, so a
//! request of a higher priority never waits behind the queue of a lower one. Some places may be kept for interactive requests. Whoever gives up
//! leaves the line, and whoever is then at its head is woken.
//!
//! Where several processes work on one account, each has its part of the places and of the rate ([`Share`]), and keeps its own line.
//!
//! Guarantees: within a priority the first comes first. Caveat: a priority waits for as long as those above it want every place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Timers wake late. A slot that is missed by less than this is made up for, or a high rate would never be reached.
const LATE: Duration = Duration::from_millis(5);

/// How urgent a request is. In this order they have their turns, and the quota ([`super::budget`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for the answer: callers of the API.
    Interactive,
    /// Changes on their way.
    Live,
    /// Steps of flows.
    Flow,
    /// What has time: first loads, comparisons of everything.
    Backfill,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::Live, Self::Flow, Self::Backfill];

    /// The word for it in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Live => "live",
            Self::Flow => "flow",
            Self::Backfill => "backfill",
        }
    }
}

/// Which part of an account's limits this process has: those of several processes together make up the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The place of this process among those that share, the first being 0.
    pub place: u32,
    /// How many share.
    pub of: u32,
}

impl Default for Share {
    /// Nobody else is there.
    fn default() -> Self {
        Self { place: 0, of: 1 }
    }
}

impl Share {
    /// Its part of `whole` things; what does not come out even goes to the first.
    #[must_use]
    pub fn part(self, whole: u64) -> u64 {
        let of = u64::from(self.of.max(1));
        whole / of + u64::from(u64::from(self.place) < whole % of)
    }
}

/// The line of one account.
pub(crate) struct Turns {
    /// Requests under way at once, of all processes.
    places: u32,
    requests_per_second: Option<u32>,
    reserve: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Requests under way at once.
    places: usize,
    /// Of these: kept for interactive requests.
    kept: usize,
    /// The time between two requests.
    interval: Option<Duration>,
    /// Interactive requests under way.
    interactive: usize,
    /// Other requests under way.
    others: usize,
    /// The slot in which the last request left.
    last_slot: Option<Instant>,
    tickets: u64,
    line: BTreeMap<(Priority, u64), Arc<Notify>>,
}

impl State {
    fn wake_head(&self) {
        if let Some(head) = self.line.values().next() {
            head.notify_one();
        }
    }
}

/// A place, until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    priority: Priority,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        *Turns::under_way(&mut state, self.priority) -= 1;
        state.wake_head();
    }
}

/// Somebody in line, until it is dropped.
struct Waiter<'a> {
    turns: &'a Turns,
    key: (Priority, u64),
    wake: Arc<Notify>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.line.remove(&self.key);
        state.wake_head();
    }
}

/// What somebody in line gets.
enum Answer {
    Taken,
    /// It is the head, and has a place from then on.
    At(Instant),
    Wait,
}

impl Turns {
    /// With `reserve` percent of the places kept for interactive requests: one at least if it is any, and never all. All of it is this process's.
    pub(crate) fn new(places: u32, requests_per_second: Option<u32>, reserve: u32) -> Self {
        let turns = Self { places, requests_per_second, reserve: reserve.min(100), state: Mutex::default() };
        turns.divide(Share::default());
        turns
    }

    /// This process has so much of the places, one at least, and of the rate from now on. Whoever is under way stays so.
    pub(crate) fn divide(&self, share: Share) {
        let places = usize::try_from(share.part(u64::from(self.places))).unwrap_or(1).max(1);
        let reserved = places.saturating_mul(usize::try_from(self.reserve).unwrap_or(0)) / 100;
        let rate = self.requests_per_second.filter(|rate| *rate > 0);
        let mut state = self.lock();
        state.places = places;
        state.kept = if self.reserve > 0 { reserved.max(1).min(places - 1) } else { 0 };
        // A rate is divided into longer pauses, however few requests a second it comes to.
        state.interval = rate.map(|rate| Duration::from_secs(u64::from(share.of.max(1))) / rate);
        state.wake_head();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(state: &mut State, priority: Priority) -> &mut usize {
        if priority == Priority::Interactive { &mut state.interactive } else { &mut state.others }
    }

    /// Waits for a turn until `deadline`; `None` if none came.
    pub(crate) async fn take(&self, priority: Priority, deadline: Instant) -> Option<Turn<'_>> {
        let waiter = self.join(priority);
        loop {
            let until = match self.try_take(waiter.key) {
                Answer::Taken => return Some(Turn { turns: self, priority }),
                Answer::At(slot) if slot > deadline => return None,
                Answer::At(slot) => slot,
                Answer::Wait => deadline,
            };
            if Instant::now() >= deadline {
                return None;
            }
            tokio::select! {
                biased;
                () = waiter.wake.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn join(&self, priority: Priority) -> Waiter<'_> {
        let mut state = self.lock();
        state.tickets += 1;
        let (key, wake) = ((priority, state.tickets), Arc::new(Notify::new()));
        state.line.insert(key, Arc::clone(&wake));
        Waiter { turns: self, key, wake }
    }

    fn try_take(&self, key: (Priority, u64)) -> Answer {
        let mut state = self.lock();
        let is_head = state.line.keys().next() == Some(&key);
        let free = state.interactive + state.others < state.places;
        let may = key.0 == Priority::Interactive || state.others < state.places - state.kept;
        if !(is_head && free && may) {
            return Answer::Wait;
        }
        if let Some(interval) = state.interval {
            let now = Instant::now();
            let slot = state.last_slot.map(|last| last + interval).filter(|next| *next + LATE > now).unwrap_or(now);
            if slot > now {
                return Answer::At(slot);
            }
            state.last_slot = Some(slot);
        }
        *Self::under_way(&mut state, key.0) += 1;
        state.line.remove(&key);
        state.wake_head();
        Answer::Taken
    }

    /// How many are in line, by priority.
    pub(crate) fn waiting(&self) -> [(Priority, usize); 4] {
        let state = self.lock();
        Priority::ALL.map(|priority| (priority, state.line.keys().filter(|(of, _)| *of == priority).count()))
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Backfill, Flow, Interactive, Live};
    use super::*;
    use futures::FutureExt;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// Takes turns in this order, all at once, each for so many milliseconds; tells who began when.
    async fn run(turns: &Arc<Turns>, of: &[Priority], millis: u64) -> Vec<(Priority, u128)> {
        let (start, began) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let tasks = of.iter().map(|priority| {
            let (turns, began, priority) = (Arc::clone(turns), Arc::clone(&began), *priority);
            async move {
                let turn = turns.take(priority, later()).await.unwrap();
                began.lock().unwrap().push((priority, start.elapsed().as_millis()));
                tokio::time::sleep(Duration::from_millis(millis)).await;
                drop(turn);
            }
        });
        futures::future::join_all(tasks).await;
        began.lock().unwrap().clone()
    }

    #[test]
    fn places_are_kept_for_interactive_requests_but_never_all() {
        for (places, reserve, kept) in
            [(8, 0, 0), (8, 1, 1), (8, 20, 1), (8, 25, 2), (8, 90, 7), (2, 90, 1), (1, 90, 0), (1, 0, 0), (0, 50, 0), (10, 20, 2)]
        {
            assert_eq!(Turns::new(places, None, reserve).lock().kept, kept, "{reserve} % of {places}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_urgent_go_first_and_within_a_priority_the_first() {
        let turns = Arc::new(Turns::new(1, None, 0));
        let order = run(&turns, &[Backfill, Live, Backfill, Interactive, Flow, Live], 10).await;
        // The first finds the place free.
        let wanted = [Backfill, Interactive, Live, Live, Flow, Backfill];
        assert_eq!(order, wanted.into_iter().zip((0..).step_by(10)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_place_stands_free_for_interactive_requests() {
        let turns = Arc::new(Turns::new(3, None, 30));
        let busy = [turns.take(Backfill, later()).await.unwrap(), turns.take(Live, later()).await.unwrap()];
        assert!(turns.take(Live, later()).now_or_never().is_none(), "two of three are for all");
        let first = turns.take(Interactive, later()).now_or_never().flatten();
        assert!(first.is_some());
        assert!(turns.take(Interactive, later()).now_or_never().is_none(), "there are three places");
        drop(busy);
        let more: Vec<_> = [Interactive, Interactive].iter().filter_map(|who| turns.take(*who, later()).now_or_never().flatten()).collect();
        assert_eq!(more.len(), 2, "interactive requests may have the others too");
        assert!(turns.take(Live, later()).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_nobodys_before_its_time() {
        let turns = Arc::new(Turns::new(8, Some(10), 0));
        let start = Instant::now();
        let queue = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { run(&turns, &[Backfill; 20], 0).await }
        });
        tokio::time::sleep(Duration::from_millis(450)).await;
        drop(turns.take(Interactive, later()).await.unwrap());
        assert_eq!(start.elapsed().as_millis(), 500, "the very next slot, with fifteen before it in line");
        let told: Vec<_> = queue.await.unwrap().into_iter().map(|(_, at)| at).collect();
        let wanted: Vec<u128> = (0..=20).filter(|slot| *slot != 5).map(|slot| slot * 100).collect();
        assert_eq!(told, wanted, "and the others keep their distance");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_line() {
        let turns = Arc::new(Turns::new(1, None, 0));
        let busy = turns.take(Live, later()).await.unwrap();
        let mut given_up = Box::pin(turns.take(Interactive, later()));
        assert!(given_up.as_mut().now_or_never().is_none());
        let next = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(Backfill, later()).await.is_some() }
        });
        tokio::task::yield_now().await;
        assert_eq!(turns.waiting(), [(Interactive, 1), (Live, 0), (Flow, 0), (Backfill, 1)]);
        drop(busy);
        // The place is promised to the head, which goes away without taking it.
        drop(given_up);
        assert!(next.await.unwrap());
        assert_eq!(turns.waiting().map(|(_, count)| count), [0; 4]);
        assert!(turns.take(Live, later()).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_deadline() {
        let turns = Turns::new(1, Some(1), 0);
        let busy = turns.take(Live, later()).await.unwrap();
        let start = Instant::now();
        assert!(turns.take(Live, start + Duration::from_millis(300)).await.is_none());
        assert_eq!(start.elapsed().as_millis(), 300);
        drop(busy);
        let soon = Instant::now() + Duration::from_millis(300);
        assert!(turns.take(Live, soon).await.is_none(), "the next slot is later than that");
        assert!(Instant::now() < soon, "which is known at once");
        assert!(turns.take(Live, later()).await.is_some());
    }

    #[test]
    fn parts_make_up_the_whole() {
        for whole in 0..40 {
            for of in 1..9 {
                let parts: Vec<u64> = (0..of).map(|place| Share { place, of }.part(whole)).collect();
                assert_eq!(parts.iter().sum::<u64>(), whole);
                assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() < 2, "{parts:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_the_rate_is_a_longer_pause_from_the_next_request_on() {
        let turns = Turns::new(8, Some(2), 0);
        let start = Instant::now();
        let next = async || {
            drop(turns.take(Live, later()).await.unwrap());
            start.elapsed().as_millis()
        };
        assert_eq!((next().await, next().await), (0, 500));
        // Five share two a second: one each in two and a half.
        turns.divide(Share { place: 4, of: 5 });
        assert_eq!((next().await, next().await), (3000, 5500), "it counts from the last request on");
        // Whoever waits for a slot learns that the others are gone.
        let waits = async { next().await };
        let gone = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            turns.divide(Share::default());
        };
        assert_eq!(tokio::join!(waits, gone).0, 6200);
        assert_eq!(next().await, 6700);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_the_places_is_one_at_least_and_shrinks_at_once() {
        let turns = Turns::new(3, None, 50);
        let mut busy: Vec<_> = Vec::new();
        let fill = |busy: &mut Vec<_>| {
            while let Some(turn) = turns.take(Interactive, later()).now_or_never().flatten() {
                busy.push(turn);
            }
            busy.len()
        };
        assert_eq!(fill(&mut busy), 3);
        turns.divide(Share { place: 1, of: 2 });
        busy.pop();
        assert_eq!(fill(&mut busy), 2, "one place is its part, and two are under way still");
        busy.clear();
        assert_eq!(fill(&mut busy), 1);
        turns.divide(Share { place: 0, of: 2 });
        assert_eq!(fill(&mut busy), 2, "the first has what does not come out even");
        busy.clear();
        turns.divide(Share { place: 6, of: 7 });
        assert!(turns.take(Live, later()).now_or_never().flatten().is_some(), "and nothing of that one place is kept");
    }
}
