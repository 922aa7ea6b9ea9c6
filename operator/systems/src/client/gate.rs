//! When a request may be sent: the account's limits, the waits that the vendor asked for, the circuit breaker, the quota.
//!
//! Order of the gates: vendor's wait, circuit, quota, then in line ([`super::turns`]) for a place among the concurrent requests and a slot of the
//! rate; then the first two once more, for the vendor may have said "wait" while this request stood in line. What it costs of the quota
//! ([`super::budget`]) is taken when it leaves. No request leaves before a time that the vendor named.
//! A circuit opens after so many failures in a row within a time; any answer that shows the vendor alive closes it.

use super::budget::{self, Budget, Usage, Use, Word};
use super::turns::{Priority, Share, Turn, Turns};
use crate::definition::format::ThrottleFormat;
use crate::reason;
use fairlead_model::report::{Circuit, Quota, Spent};
use fairlead_model::unit::{CircuitBreaker, Limits};
use fairlead_model::{Clock, ErrorClass, Random, RemoteError, Timestamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait that a vendor's header can cause.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What an exchange showed of the vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Showed {
    /// It works.
    Alive,
    /// It does not.
    Outage,
    /// It wants us to wait, perhaps for so long.
    Throttling { wait: Option<Duration>, exhausted: bool },
    /// Nothing: the request ended before it showed anything.
    Nothing,
}

pub(crate) struct Gate {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    breaker: CircuitBreaker,
    throttle: ThrottleFormat,
    turns: Turns,
    state: Mutex<State>,
}

/// On whose account a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// The probe's: it costs the quota too, and is sent whatever is left, for it tells when there is some again.
    Probe,
    /// Somebody's.
    Of(Priority),
}

impl Errand {
    fn priority(self) -> Priority {
        match self {
            Self::Probe => Priority::Interactive,
            Self::Of(priority) => priority,
        }
    }
}

struct State {
    circuit: Circuit,
    /// Failures in a row, by time.
    failures: VecDeque<Timestamp>,
    open_until: Timestamp,
    /// A half-open probe is under way.
    probing: bool,
    wait_until: Option<Timestamp>,
    /// The vendor asked another process to wait, until then at least.
    others_wait_until: Option<Timestamp>,
    /// The last wait that we chose ourselves.
    wait: Duration,
    waited: Duration,
    budget: Budget,
}

/// The right to send one request.
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    probe: bool,
    _turn: Turn<'a>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.gate.lock().probing = false;
        }
    }
}

impl Gate {
    pub(crate) fn new(
        limits: &Limits,
        breaker: &CircuitBreaker,
        throttle: &ThrottleFormat,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let state = State {
            circuit: Circuit::default(),
            failures: VecDeque::new(),
            open_until: Timestamp::default(),
            probing: false,
            wait_until: None,
            others_wait_until: None,
            wait: Duration::ZERO,
            waited: Duration::ZERO,
            budget: Budget::new(limits),
        };
        Self {
            clock,
            random,
            breaker: breaker.clone(),
            throttle: throttle.clone(),
            turns: Turns::new(limits.concurrency, limits.requests_per_second, limits.interactive_reserve_percent),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn until `deadline`, or says why there is none.
    pub(crate) async fn enter(&self, errand: Errand, deadline: Instant) -> Result<Pass<'_>, RemoteError> {
        self.open(false)?;
        if let Errand::Of(priority) = errand
            && let Some(spent) = self.spent(priority)
        {
            return Err(budget::refusal(spent, self.clock.now()));
        }
        if let Errand::Of(priority) = errand
            && self.lock().budget.ahead(priority, self.clock.now())
        {
            return Err(budget::ahead_refusal());
        }
        let turn = self.turns.take(errand.priority(), deadline).await.ok_or_else(|| {
            RemoteError::new(
                ErrorClass::Transient,
                reason::BUSY,
                "no turn came before the deadline: the connector's limits are used up by other requests",
            )
        })?;
        let probe = self.open(true)?;
        Ok(Pass { gate: self, probe, _turn: turn })
    }

    /// A request leaves now: takes it out of the quota, or says that there is none left for it.
    pub(crate) fn leave(&self, errand: Errand) -> Result<(), RemoteError> {
        let now = self.clock.now();
        let mut state = self.lock();
        match errand {
            Errand::Probe => state.budget.count(now),
            Errand::Of(priority) if state.budget.ahead(priority, now) => return Err(budget::ahead_refusal()),
            Errand::Of(priority) => state.budget.take(priority, now).map_err(|spent| budget::refusal(spent, now))?,
        }
        Ok(())
    }

    /// Whether a request may go now; with `claim`, takes the half-open probe and says so.
    fn open(&self, claim: bool) -> Result<bool, RemoteError> {
        self.waited_out()?;
        let now = self.clock.now();
        let mut state = self.lock();
        if state.circuit == Circuit::Closed {
            return Ok(false);
        }
        let wait = if state.probing { Duration::from_secs(1) } else { state.open_until.since(now) };
        if state.probing || now < state.open_until {
            let text = format!(
                "the circuit is open after {} failures in a row; one request tries again at {}",
                self.breaker.failures, state.open_until
            );
            return Err(RemoteError::new(ErrorClass::Transient, reason::CIRCUIT_OPEN, text).retry_after(Some(wait)));
        }
        if claim {
            state.circuit = Circuit::HalfOpen;
            state.probing = true;
        }
        Ok(claim)
    }

    /// Whether the vendor wants nothing sent at this moment. It may have said so since the pass was given.
    pub(crate) fn waited_out(&self) -> Result<(), RemoteError> {
        let now = self.clock.now();
        let Some(until) = self.wait_until() else { return Ok(()) };
        let text = format!("the vendor asked to slow down; nothing is sent before {until}");
        Err(RemoteError::new(ErrorClass::Throttled, reason::RATE_LIMITED, text).retry_after(Some(until.since(now))))
    }

    /// Learns from what an exchange showed. A wait that the vendor asked for is returned as it will be kept.
    pub(crate) fn learn(&self, showed: &Showed) -> Option<Duration> {
        let now = self.clock.now();
        let mut state = self.lock();
        match showed {
            Showed::Nothing => None,
            Showed::Alive => {
                state.failures.clear();
                state.circuit = Circuit::Closed;
                if state.wait_until.is_none_or(|until| until <= now) {
                    state.wait = Duration::ZERO;
                    state.wait_until = None;
                }
                None
            }
            Showed::Outage => {
                let (within, most) = (self.breaker.within, usize::try_from(self.breaker.failures.max(1)).unwrap_or(1));
                state.failures.push_back(now);
                while state.failures.len() > most || state.failures.front().is_some_and(|first| now.since(*first) > within) {
                    state.failures.pop_front();
                }
                if state.circuit != Circuit::Closed || state.failures.len() >= most {
                    state.circuit = Circuit::Open;
                    state.open_until = now.plus(self.breaker.open_for);
                }
                None
            }
            Showed::Throttling { wait, exhausted } => {
                state.failures.clear();
                state.circuit = Circuit::Closed;
                // Several requests that were under way together are refused together: that is one refusal, not several.
                let waiting = state.wait_until.filter(|until| *until > now);
                // "At once" is no wait: a clock that is off would have us ask without end.
                let wait = wait.filter(|wait| !wait.is_zero()).map(|wait| wait.min(MAX_WAIT)).unwrap_or_else(|| match waiting {
                    Some(until) => until.since(now),
                    None => {
                        state.wait = if state.wait.is_zero() {
                            self.throttle.initial.0
                        } else {
                            state.wait.saturating_mul(2).min(self.throttle.max.0)
                        };
                        self.jittered(state.wait)
                    }
                });
                let until = now.plus(wait).max(waiting.unwrap_or_default());
                state.waited = state.waited.saturating_add(until.since(waiting.unwrap_or(now)));
                state.wait_until = Some(until);
                state.budget.refused(*exhausted, until, now);
                Some(until.since(now))
            }
        }
    }

    /// The vendor told how much quota is left.
    pub(crate) fn quota_told(&self, word: Word) {
        let now = self.clock.now();
        self.lock().budget.told(word, now);
    }

    /// A request was served, and the vendor says nothing of what is left.
    pub(crate) fn quota_unknown(&self) {
        self.lock().budget.unknown();
    }

    pub(crate) fn circuit(&self) -> Circuit {
        let state = self.lock();
        match state.circuit {
            Circuit::Open if self.clock.now() >= state.open_until => Circuit::HalfOpen,
            circuit => circuit,
        }
    }

    pub(crate) fn quota(&self) -> Quota {
        self.lock().budget.quota(self.clock.now())
    }

    /// The quota that is used up for `priority`, if one is.
    pub(crate) fn spent(&self, priority: Priority) -> Option<Spent> {
        self.lock().budget.spent(priority, self.clock.now())
    }

    /// How far each window of the quota is used.
    pub(crate) fn uses(&self) -> Vec<Use> {
        self.lock().budget.uses(self.clock.now())
    }

    /// How many requests are in line, by priority.
    pub(crate) fn waiting(&self) -> [(Priority, usize); 4] {
        self.turns.waiting()
    }

    /// What was sent today and is noted nowhere.
    pub(crate) fn unnoted(&self) -> Usage {
        self.lock().budget.unnoted(self.clock.now())
    }

    /// It is noted that `all` were sent, `ours` among them.
    pub(crate) fn noted(&self, all: Usage, ours: Usage) {
        self.lock().budget.noted(all, ours);
    }

    pub(crate) fn wait_until(&self) -> Option<Timestamp> {
        let state = self.lock();
        state.wait_until.max(state.others_wait_until).filter(|until| *until > self.clock.now())
    }

    /// Until when the vendor asked this very process to wait.
    pub(crate) fn told_to_wait(&self) -> Option<Timestamp> {
        self.lock().wait_until.filter(|until| *until > self.clock.now())
    }

    /// The vendor asked another process that uses the account to wait: nothing is sent for so long.
    pub(crate) fn hold(&self, wait: Duration) {
        let until = self.clock.now().plus(wait);
        self.lock().others_wait_until = Some(until);
    }

    /// This process has this part of the account's limits.
    pub(crate) fn divide(&self, share: Share) {
        self.turns.divide(share);
        self.lock().budget.divide(share);
    }

    /// Up to a fifth longer, so that several connectors do not come back at one moment.
    fn jittered(&self, wait: Duration) -> Duration {
        let fifth = u64::try_from(wait.as_millis() / 5).unwrap_or(0);
        wait + Duration::from_millis(self.random.within(0..=fifth))
    }

    /// Seconds that the vendor asked to wait, in all.
    pub(crate) fn waited(&self) -> u64 {
        self.lock().waited.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    const LIVE: Errand = Errand::Of(Priority::Live);

    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }

    fn gate(rate: Option<u32>, concurrency: u32) -> (Gate, Arc<Hand>) {
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let breaker = CircuitBreaker { failures: 3, within: Duration::from_secs(30), open_for: Duration::from_secs(60) };
        let limits = Limits { requests_per_second: rate, concurrency, daily_requests: None, interactive_reserve_percent: 0 };
        (Gate::new(&limits, &breaker, &ThrottleFormat::default(), clock.clone(), Arc::new(fairlead_model::SystemRandom)), clock)
    }

    fn pass(clock: &Hand, seconds: i64) {
        clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn refused(gate: &Gate) -> (String, Duration) {
        let error = gate.enter(LIVE, soon()).await.err().expect("the gate should be shut");
        (error.reason, error.retry_after.unwrap_or_default())
    }

    #[tokio::test]
    async fn failures_in_a_row_open_the_circuit_and_one_probe_decides() {
        let (gate, clock) = gate(None, 8);
        gate.learn(&Showed::Outage);
        gate.learn(&Showed::Outage);
        gate.learn(&Showed::Alive);
        gate.learn(&Showed::Outage);
        gate.learn(&Showed::Outage);
        assert_eq!(gate.circuit(), Circuit::Closed, "a success in between starts the count anew");
        pass(&clock, 31);
        gate.learn(&Showed::Outage);
        assert_eq!(gate.circuit(), Circuit::Closed, "failures long ago do not count");
        gate.learn(&Showed::Outage);
        gate.learn(&Showed::Outage);
        assert_eq!(gate.circuit(), Circuit::Open);
        assert_eq!(refused(&gate).await, (reason::CIRCUIT_OPEN.into(), Duration::from_secs(60)));
        pass(&clock, 60);
        let probe = gate.enter(LIVE, soon()).await.map_err(|e| e.to_string()).unwrap();
        assert_eq!(refused(&gate).await.0, reason::CIRCUIT_OPEN, "only one request decides");
        gate.learn(&Showed::Outage);
        drop(probe);
        assert_eq!(refused(&gate).await, (reason::CIRCUIT_OPEN.into(), Duration::from_secs(60)), "a failed probe opens it again");
        pass(&clock, 60);
        let probe = gate.enter(LIVE, soon()).await.map_err(|e| e.to_string()).unwrap();
        gate.learn(&Showed::Alive);
        drop(probe);
        assert_eq!(gate.circuit(), Circuit::Closed);
        assert!(gate.enter(LIVE, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_probe_that_is_given_up_makes_room_for_the_next() {
        let (gate, clock) = gate(None, 8);
        for _ in 0..3 {
            gate.learn(&Showed::Outage);
        }
        pass(&clock, 60);
        drop(gate.enter(LIVE, soon()).await.map_err(|e| e.to_string()).unwrap());
        assert!(gate.enter(LIVE, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_sent_before_the_time_that_the_vendor_names() {
        let (gate, clock) = gate(None, 8);
        assert_eq!(gate.learn(&Showed::Throttling { wait: Some(Duration::from_secs(7)), exhausted: false }), Some(Duration::from_secs(7)));
        gate.learn(&Showed::Alive);
        assert_eq!(refused(&gate).await, (reason::RATE_LIMITED.into(), Duration::from_secs(7)), "a late success does not shorten the wait");
        pass(&clock, 6);
        assert_eq!(refused(&gate).await.1, Duration::from_secs(1));
        pass(&clock, 1);
        assert!(gate.enter(LIVE, soon()).await.is_ok());
        assert_eq!(gate.waited(), 7);
    }

    #[tokio::test]
    async fn what_another_process_was_told_holds_here_and_is_not_told_again() {
        let (gate, clock) = gate(None, 8);
        gate.hold(Duration::from_secs(2));
        assert_eq!((gate.wait_until(), gate.told_to_wait()), (Some(clock.now().plus(Duration::from_secs(2))), None));
        gate.learn(&Showed::Alive);
        assert_eq!(refused(&gate).await, (reason::RATE_LIMITED.into(), Duration::from_secs(2)));
        gate.learn(&Showed::Throttling { wait: Some(Duration::from_secs(1)), exhausted: false });
        assert_eq!((refused(&gate).await.1, gate.told_to_wait()), (Duration::from_secs(2), Some(clock.now().plus(Duration::from_secs(1)))));
        pass(&clock, 2);
        assert!(gate.enter(LIVE, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_request_in_line_waits_too_when_the_vendor_says_wait() {
        let (gate, _clock) = gate(None, 1);
        let first = gate.enter(LIVE, soon()).await.map_err(|e| e.to_string()).unwrap();
        let second = gate.enter(LIVE, soon());
        let finish = async {
            tokio::task::yield_now().await;
            gate.learn(&Showed::Throttling { wait: Some(Duration::from_secs(5)), exhausted: true });
            drop(first);
        };
        let (second, ()) = tokio::join!(second, finish);
        assert_eq!(second.err().map(|error| error.reason).as_deref(), Some(reason::RATE_LIMITED));
        assert_eq!(gate.quota(), Quota::Exhausted);
    }

    #[tokio::test]
    async fn who_has_a_pass_and_has_not_sent_yet_is_told_of_the_wait() {
        let (gate, clock) = gate(None, 2);
        let _pass = gate.enter(LIVE, soon()).await.map_err(|e| e.to_string()).unwrap();
        assert!(gate.waited_out().is_ok());
        gate.learn(&Showed::Throttling { wait: Some(Duration::from_secs(5)), exhausted: false });
        assert_eq!(gate.waited_out().err().and_then(|error| error.retry_after), Some(Duration::from_secs(5)));
        pass(&clock, 5);
        assert!(gate.waited_out().is_ok());
    }

    #[tokio::test]
    async fn waits_of_our_own_double_once_per_refusal_and_start_anew_after_a_success() {
        let (gate, clock) = gate(None, 8);
        let told = Showed::Throttling { wait: None, exhausted: false };
        let within = |wait: Option<Duration>, low: u64, high: u64| {
            let wait = wait.unwrap();
            assert!(wait >= Duration::from_millis(low) && wait <= Duration::from_millis(high), "{wait:?}");
        };
        within(gate.learn(&told), 1000, 1200);
        within(gate.learn(&told), 1000, 1200);
        pass(&clock, 2);
        within(gate.learn(&told), 2000, 2400);
        pass(&clock, 3);
        gate.learn(&Showed::Alive);
        within(gate.learn(&told), 1000, 1200);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance() {
        let (gate, _) = gate(Some(4), 100);
        let start = Instant::now();
        for _ in 0..9 {
            drop(gate.enter(LIVE, start + Duration::from_secs(60)).await.map_err(|e| e.to_string()).unwrap());
        }
        assert_eq!(start.elapsed().as_millis() / 10, 200, "eight intervals of a quarter second");
        assert_eq!(
            gate.enter(LIVE, Instant::now() + Duration::from_millis(10)).await.err().map(|e| e.reason).as_deref(),
            Some(reason::BUSY)
        );
    }

    #[tokio::test]
    async fn what_is_used_up_is_refused_before_the_line_and_when_it_leaves() {
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let limits = Limits { requests_per_second: None, concurrency: 2, daily_requests: Some(1), interactive_reserve_percent: 0 };
        let breaker = CircuitBreaker { failures: 3, within: Duration::from_secs(30), open_for: Duration::from_secs(60) };
        let gate = Gate::new(&limits, &breaker, &ThrottleFormat::default(), clock.clone(), Arc::new(fairlead_model::SystemRandom));
        let passes = (gate.enter(LIVE, soon()).await, gate.enter(LIVE, soon()).await);
        assert!(passes.0.is_ok() && passes.1.is_ok(), "nothing has left yet");
        assert_eq!(gate.leave(LIVE), Ok(()));
        let refused = gate.leave(LIVE).unwrap_err();
        assert_eq!((refused.class, refused.reason.as_str()), (ErrorClass::Throttled, reason::QUOTA_EXHAUSTED));
        assert!(refused.message.ends_with("nothing is sent before 1970-01-02T00:00:00.000Z"), "{}", refused.message);
        assert_eq!(refused.retry_after, Some(Duration::from_secs(300)), "it may ask again sooner: the limit may be another by then");
        drop(passes);
        assert_eq!(self::refused(&gate).await.0, reason::QUOTA_EXHAUSTED);
        assert!(gate.enter(Errand::Probe, soon()).await.is_ok() && gate.leave(Errand::Probe).is_ok(), "the probe is always sent");
        assert_eq!(gate.uses()[0].used, 2, "and counted");
        pass(&clock, 24 * 3600);
        assert!(gate.enter(LIVE, soon()).await.is_ok() && gate.leave(LIVE).is_ok(), "another day");
    }
}
