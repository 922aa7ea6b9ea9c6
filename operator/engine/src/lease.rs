//! Holding a lease in the store: who may read a participant. Those on a lane, which several may drain, are in [`crate::lane_lease`].
//!
//! A lease is an optimisation that keeps two processes from doing the same work; safety comes from the epoch that every commit carries. A
//! request that is under way when its lease ends may still take effect: the next holder finds its intent, and waits until it can no longer.

use fairlead_model::{Clock, Timestamp};
use fairlead_store::{Fence, LeaseRequest, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

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
pub(crate) struct Validity(Arc<AtomicI64>);

impl Validity {
    /// Whether the lease still holds at `now`.
    pub(crate) fn lasts(&self, now: Timestamp) -> bool {
        now.0 < self.0.load(Ordering::Acquire)
    }

    /// It holds until then.
    pub(crate) fn prolong(&self, until: Timestamp) {
        self.0.store(until.0, Ordering::Release);
    }

    /// Whoever was told how long this epoch holds is told that it is over.
    pub(crate) fn end(&mut self) {
        self.0.store(0, Ordering::Release);
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
        let now = self.clock.now();
        if let Some(fence) = &self.held
            && fence.until > now.plus(MARGIN)
        {
            return Ok(Some(fence.clone()));
        }
        let request = LeaseRequest { keys: vec![self.key.clone()], holder: self.holder.clone(), ttl: TTL, now };
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
        self.validity.prolong(fence.as_ref().map_or(Timestamp(0), |fence| fence.until));
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
}
