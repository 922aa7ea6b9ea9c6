//! Whose turn it is: requests in line for one of an account's places and, one after the other, for a slot of its rate.
//!
//! The line is kept by priority, then by arrival. Only its head may take a place, and only at the time of the next slot; nobody reserves a slot, so a
//! request of a higher priority never waits behind the queue of a lower one. Some places may be kept for interactive requests. Whoever gives up
//! leaves the line, and whoever is then at its head is woken.
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

/// The line of one account.
pub(crate) struct Turns {
    places: usize,
    /// Of the places: kept for interactive requests.
    kept: usize,
    /// The time between two requests.
    interval: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Interactive requests under way.
    interactive: usize,
    /// Other requests under way.
    others: usize,
    /// When the next request may leave.
    next_slot: Option<Instant>,
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
    /// With `reserve` percent of the places kept for interactive requests: one at least if it is any, and never all.
    pub(crate) fn new(places: u32, requests_per_second: Option<u32>, reserve: u32) -> Self {
        let places = usize::try_from(places.max(1)).unwrap_or(1);
        let share = places.saturating_mul(usize::try_from(reserve.min(100)).unwrap_or(0)) / 100;
        let kept = if reserve > 0 { share.max(1).min(places - 1) } else { 0 };
        let interval = requests_per_second.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(1) / rate);
        Self { places, kept, interval, state: Mutex::default() }
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
        let free = state.interactive + state.others < self.places;
        let may = key.0 == Priority::Interactive || state.others < self.places - self.kept;
        if !(is_head && free && may) {
            return Answer::Wait;
        }
        if let Some(interval) = self.interval {
            let now = Instant::now();
            let slot = state.next_slot.filter(|next| *next + LATE > now).unwrap_or(now);
            if slot > now {
                return Answer::At(slot);
            }
            state.next_slot = Some(slot + interval);
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
            assert_eq!(Turns::new(places, None, reserve).kept, kept, "{reserve} % of {places}");
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
}
