//! Holding a lease in the store: who may read a participant, who may drain a lane.
//!
//! A lease is an optimisation that keeps two processes from doing the same work; safety comes from the epoch that every commit carries.

use fairlead_model::{Clock, Timestamp};
use fairlead_store::{Fence, LeaseRequest, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A lease is valid for so long. A process that died is replaced after this time.
pub(crate) const TTL: Duration = Duration::from_secs(15);

/// A request is begun only while the lease is valid for at least so much longer; the systems' request deadline is below it.
pub(crate) const MARGIN: Duration = Duration::from_secs(11);

/// How often a lease is looked after while work under it takes its time.
const RENEW: Duration = Duration::from_secs(2);

/// One lease, held or campaigned for.
pub(crate) struct Lease {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    key: String,
    holder: String,
    held: Option<Fence>,
    /// To be given back before it is used again.
    abandoned: Option<Fence>,
    validity: Validity,
}

/// Until when a lease holds, readable while it is being renewed.
#[derive(Clone, Default)]
pub(crate) struct Validity(Arc<AtomicI64>);

impl Validity {
    /// Whether the lease still holds at `now`.
    pub(crate) fn lasts(&self, now: Timestamp) -> bool {
        now.0 < self.0.load(Ordering::Acquire)
    }
}

impl Lease {
    /// A lease on `key` for `holder`, not yet campaigned for.
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, key: String, holder: String) -> Self {
        Self { store, clock, key, holder, held: None, abandoned: None, validity: Validity::default() }
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
        if let Some(fence) = &self.abandoned {
            self.store.release(fence).await?;
            self.abandoned = None;
        }
        let request = LeaseRequest { key: self.key.clone(), holder: self.holder.clone(), ttl: TTL, now };
        let fence = self.store.lease(&request).await?;
        if let (Some(before), Some(after)) = (&self.held, &fence)
            && before.epoch != after.epoch
        {
            tracing::debug!(lease = %self.key, "lease had expired and was taken again");
        }
        if self.held.is_some() && fence.is_none() {
            self.lost();
        }
        self.held.clone_from(&fence);
        self.validity.0.store(fence.as_ref().map_or(0, |fence| fence.until.0), Ordering::Release);
        Ok(fence)
    }

    /// Keeps the lease while `work` takes its time. If it is lost all the same, the commit that follows is refused.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(RENEW) => drop(self.ensure().await),
            }
        }
    }

    /// Until when the lease holds; follows renewals.
    pub(crate) fn validity(&self) -> Validity {
        self.validity.clone()
    }

    /// Gives the lease up although work under it is unfinished: the next epoch, be it our own, finds what was left.
    pub(crate) fn abandon(&mut self) {
        self.validity.0.store(0, Ordering::Release);
        self.abandoned = self.held.take().or(self.abandoned.take());
    }

    /// Forgets the lease after the store said that it is another's.
    pub(crate) fn lost(&mut self) {
        tracing::warn!(lease = %self.key, "lease was taken by another process; standing back");
        self.held = None;
        self.validity.0.store(0, Ordering::Release);
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
