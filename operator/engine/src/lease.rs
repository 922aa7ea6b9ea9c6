//! Holding a lease in the store: who may read a participant. Those on a lane, which several may drain, are in [`crate::lane_lease`].
//!
//! A lease is an optimisation that keeps two processes from doing the same work; safety comes from the epoch that every commit carries. A
//! request that is under way when its lease ends may still take effect: the next holder finds its intent, and waits until it can no longer.
//!
//! Whether a lease has run out is the store's to say. Here it is over [`TTL`] after it was asked for, by the wall clock or by the clock that nobody
//! steps, whichever says so first: never later than for the store.

use crate::shared::lock;
use fairlead_model::{Clock, Timestamp};
use fairlead_store::{Fence, LeaseRequest, Store, StoreError};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// A lease is valid for so long. A process that died is replaced after this time.
pub(crate) const TTL: Duration = Duration::from_secs(15);

/// Work is begun only while the lease is valid for at least so much longer. What takes longer keeps the lease ([`Lease::during`]).
pub(crate) const MARGIN: Duration = Duration::from_secs(11);

/// How often a lease is looked after while work under it takes its time.
pub(crate) const RENEW: Duration = Duration::from_secs(2);

/// One lease, held or campaigned for.
pub(crate) struct Lease {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    key: String,
    holder: String,
    held: Option<Fence>,
    validity: Validity,
}

/// Until when a lease holds, readable while it is being renewed. It ends with its epoch: where another was the holder in between, what is
/// left of an old batch must not go out, although the lease is ours again.
#[derive(Clone, Default)]
pub(crate) struct Validity(Arc<Mutex<Option<Asked>>>);

/// When a lease was asked for that was granted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    wall: Timestamp,
    at: Instant,
}

impl Asked {
    /// It is asked for now.
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), at: Instant::now() }
    }

    /// The moment for the store.
    pub(crate) const fn wall(&self) -> Timestamp {
        self.wall
    }
}

impl Validity {
    /// Whether the lease still holds at `now`.
    pub(crate) fn lasts(&self, now: Timestamp) -> bool {
        self.lasts_for(now, Duration::ZERO)
    }

    /// Whether it holds for so much longer.
    pub(crate) fn lasts_for(&self, now: Timestamp, longer: Duration) -> bool {
        lock(&self.0).is_some_and(|asked| now.plus(longer) < asked.wall.plus(TTL) && asked.at.elapsed() + longer < TTL)
    }

    /// It was asked for then, and granted.
    pub(crate) fn prolong(&self, asked: Asked) {
        *lock(&self.0) = Some(asked);
    }

    /// Whoever was told how long this epoch holds is told that it is over.
    pub(crate) fn end(&mut self) {
        *lock(&self.0) = None;
        *self = Self::default();
    }
}

impl Lease {
    /// A lease on `key` for `holder`, not yet campaigned for.
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, key: String, holder: String) -> Self {
        Self { store, clock, key, holder, held: None, validity: Validity::default() }
    }

    /// The fence, valid for at least [`MARGIN`], renewing it if need be; `None` while another process holds the lease.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(crate) async fn ensure(&mut self) -> Result<Option<Fence>, StoreError> {
        let asked = Asked::now(self.clock.as_ref());
        if let Some(fence) = &self.held
            && self.validity.lasts_for(asked.wall(), MARGIN)
        {
            return Ok(Some(fence.clone()));
        }
        let request = LeaseRequest { keys: vec![self.key.clone()], holder: self.holder.clone(), ttl: TTL, now: asked.wall() };
        let fence = self.store.lease(&request).await?.pop().flatten();
        if let (Some(before), Some(after)) = (&self.held, &fence)
            && before.epoch != after.epoch
        {
            tracing::debug!(lease = %self.key, "lease had expired and was taken again");
            self.validity.end();
        }
        if self.held.is_some() && fence.is_none() {
            self.lost();
        }
        self.held.clone_from(&fence);
        if fence.is_some() {
            self.validity.prolong(asked);
        }
        Ok(fence)
    }

    /// Keeps the lease while `work` takes its time. If it is lost all the same, the commit that follows is refused.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(RENEW) => drop(self.ensure().await),
            }
        }
    }

    /// Whether it was held when it was last looked after.
    pub(crate) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Until when the lease holds; follows renewals.
    pub(crate) fn validity(&self) -> Validity {
        self.validity.clone()
    }

    /// Forgets the lease after the store said that it is another's.
    pub(crate) fn lost(&mut self) {
        tracing::warn!(lease = %self.key, "lease was taken by another process; standing back");
        self.held = None;
        self.validity.end();
    }

    /// Gives the lease back.
    pub(crate) async fn release(&mut self) {
        if let Some(fence) = self.held.take()
            && let Err(error) = self.store.release(&fence).await
        {
            tracing::debug!(lease = %self.key, %error, "lease could not be released; it will expire");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_store::SqliteStore;
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }

    /// A store, a clock, and a way to make leases on one thing.
    fn world() -> (Arc<Hand>, impl Fn(&str) -> Lease) {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().unwrap());
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let of = Arc::clone(&clock);
        (clock, move |holder: &str| Lease::new(Arc::clone(&store), of.clone(), "lane/r/erp".into(), holder.into()))
    }

    #[tokio::test]
    async fn what_was_allowed_under_one_epoch_is_not_allowed_under_the_next_of_the_same_holder() {
        let (clock, lease) = world();
        let (mut mine, mut other) = (lease("mine"), lease("other"));
        mine.ensure().await.unwrap().unwrap();
        let before = mine.validity();
        assert!(before.lasts(clock.now()));
        // Paused past the lease; another one held it meanwhile and has given it back.
        clock.0.fetch_add(20_000, Ordering::SeqCst);
        other.ensure().await.unwrap().unwrap();
        other.release().await;
        mine.ensure().await.unwrap().unwrap();
        assert!(!before.lasts(clock.now()), "the rest of an old batch would go out");
        assert!(mine.validity().lasts(clock.now()));
    }

    #[tokio::test]
    async fn a_lease_that_is_renewed_goes_on_for_whoever_asks_how_long() {
        let (clock, lease) = world();
        let mut mine = lease("mine");
        mine.ensure().await.unwrap().unwrap();
        let validity = mine.validity();
        for _ in 0..5 {
            clock.0.fetch_add(6_000, Ordering::SeqCst);
            mine.ensure().await.unwrap().unwrap();
        }
        assert!(validity.lasts(clock.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_stepped_back_prolongs_nothing() {
        let (clock, lease) = world();
        let mut mine = lease("mine");
        mine.ensure().await.unwrap().unwrap();
        let validity = mine.validity();
        clock.0.fetch_sub(500_000, Ordering::SeqCst);
        tokio::time::advance(TTL.saturating_sub(Duration::from_secs(1))).await;
        assert!(validity.lasts(clock.now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!validity.lasts(clock.now()), "it would hold for minutes by the wall clock");
        mine.ensure().await.unwrap().unwrap();
        assert!(mine.validity().lasts(clock.now()), "and is asked for again");
    }
}
