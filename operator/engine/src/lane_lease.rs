//! Holding a lane, or this process's share of it: a lease on each of its partitions.
//!
//! Flow: before each batch the share is looked after ([`LaneLease::ensure`]): what is more than a fair share is given back, what is free is tried for,
//! what is held is renewed. While a batch is under way nothing is given back or taken; what it was claimed under is kept
//! ([`LaneLease::during`]).

use crate::lease::{Asked, MARGIN, RENEW, TTL, Validity};
use crate::neighbours::{Neighbours, Seat};
use fairlead_model::Clock;
use fairlead_store::{Fence, LaneFence, LeaseRequest, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The leases of one lane, held or campaigned for.
pub(crate) struct LaneLease {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    key: String,
    holder: String,
    neighbours: Neighbours,
    seat: Seat,
    held: BTreeMap<u32, Fence>,
    /// To be given back before anything else is done.
    abandoned: Vec<Fence>,
    validity: Validity,
}

impl LaneLease {
    /// The lane `key` (`lane/<realm>/<target>`) for `holder`, of which nothing is held yet; whoever waits for it sits on one of `seats`.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        (key, seats): (String, String),
        holder: String,
        neighbours: Neighbours,
    ) -> Self {
        let seat = Seat::new(neighbours.clone(), Arc::clone(&store), Arc::clone(&clock), seats);
        Self { store, clock, key, holder, neighbours, seat, held: BTreeMap::new(), abandoned: Vec::new(), validity: Validity::default() }
    }

    /// What is held, valid for at least [`MARGIN`], after the share was looked after; `None` while other processes hold everything.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(crate) async fn ensure(&mut self) -> Result<Option<LaneFence>, StoreError> {
        self.give_back().await?;
        let share = self.neighbours.of_lane(&self.key, self.seat.seats(), &self.held.keys().copied().collect());
        if !share.give.is_empty() {
            tracing::debug!(lane = %self.key, partitions = ?share.give, "partitions are given back for others");
            self.abandoned.extend(share.give.iter().filter_map(|partition| self.held.remove(partition)));
            self.give_back().await?;
        }
        self.take(&share.take).await?;
        if share.seat {
            self.seat.sit().await?;
        } else if !self.held.is_empty() {
            self.seat.rise().await;
        }
        Ok(self.fence())
    }

    /// What is held, whoever may have taken it meanwhile.
    pub(crate) fn fence(&self) -> Option<LaneFence> {
        (!self.held.is_empty()).then(|| LaneFence::new(self.neighbours.partitions(), self.held.clone()))
    }

    /// Renews what is held if need be.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when any of it was lost, or lost and taken again: what was claimed under it is another's to settle.
    pub(crate) async fn renew(&mut self) -> Result<(), StoreError> {
        if self.take(&[]).await? { Ok(()) } else { Err(StoreError::Fenced { key: self.key.clone() }) }
    }

    /// Keeps what is held while `work` takes its time. If it is lost all the same, the commit that follows is refused.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(RENEW) => drop(self.take(&[]).await),
            }
        }
    }

    /// Until when everything that is held holds; follows renewals.
    pub(crate) fn validity(&self) -> Validity {
        self.validity.clone()
    }

    /// Gives everything up although work under it is unfinished: the next epochs, be they our own, find what was left.
    pub(crate) fn abandon(&mut self) {
        self.validity.end();
        self.abandoned.extend(std::mem::take(&mut self.held).into_values());
    }

    /// Gives everything back.
    pub(crate) async fn release(&mut self) {
        self.abandon();
        if let Err(error) = self.give_back().await {
            tracing::debug!(lane = %self.key, %error, "leases could not be released; they will expire");
        }
        self.seat.rise().await;
    }

    async fn give_back(&mut self) -> Result<(), StoreError> {
        while let Some(fence) = self.abandoned.last() {
            self.store.release(fence).await?;
            self.abandoned.pop();
        }
        Ok(())
    }

    /// Renews what is held if need be, and tries for `more`; whether everything that was held still is, under its epoch.
    async fn take(&mut self, more: &[u32]) -> Result<bool, StoreError> {
        let asked = Asked::now(self.clock.as_ref());
        if more.is_empty() && (self.held.is_empty() || self.validity.lasts_for(asked.wall(), MARGIN)) {
            return Ok(true);
        }
        let wanted: Vec<u32> = self.held.keys().copied().chain(more.iter().copied()).collect();
        let keys = wanted.iter().map(|partition| self.key_of(*partition)).collect();
        let granted = self.store.lease(&LeaseRequest { keys, holder: self.holder.clone(), ttl: TTL, now: asked.wall() }).await?;
        let before = std::mem::take(&mut self.held);
        self.held = wanted.into_iter().zip(granted).filter_map(|(partition, fence)| Some((partition, fence?))).collect();
        let lost: Vec<u32> = before.keys().copied().filter(|partition| !self.held.contains_key(partition)).collect();
        if !lost.is_empty() {
            tracing::warn!(lane = %self.key, partitions = ?lost, "lease was taken by another process; standing back");
        }
        let kept = before.iter().all(|(partition, fence)| self.held.get(partition).is_some_and(|now| now.epoch == fence.epoch));
        if !kept {
            self.validity.end();
        }
        // They are all asked for together.
        if !self.held.is_empty() {
            self.validity.prolong(asked);
        }
        Ok(kept)
    }

    /// Where a lane is one process's its lease is of the whole.
    fn key_of(&self, partition: u32) -> String {
        if self.neighbours.share() { format!("{}/{partition}", self.key) } else { self.key.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::Timestamp;
    use fairlead_store::SqliteStore;
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }

    /// A store whose lanes have so many partitions, a clock, and a way to make the leases of a process on one of its lanes.
    fn world(partitions: u32) -> (Arc<Hand>, impl Fn(&str) -> LaneLease) {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().unwrap().partitioned(partitions));
        let clock = Arc::new(Hand(AtomicI64::new(1_000_000)));
        let of = Arc::clone(&clock);
        (clock, move |holder: &str| {
            let clock: Arc<dyn Clock> = of.clone();
            let neighbours = Neighbours::watch(&store, &clock, holder.to_owned());
            let keys = ("lane/r/erp".to_owned(), "seat/r/lane/erp/".to_owned());
            LaneLease::new(Arc::clone(&store), clock, keys, holder.to_owned(), neighbours)
        })
    }

    fn count(fence: Option<&LaneFence>) -> usize {
        fence.map_or(0, |fence| fence.fences().count())
    }

    /// Both look after their shares for some seconds.
    async fn rounds(clock: &Hand, both: &mut [&mut LaneLease]) {
        for _ in 0..6 {
            clock.0.fetch_add(1_000, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            for lease in both.iter_mut() {
                lease.ensure().await.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_its_half_and_the_half_of_the_dead_moves_when_its_leases_end() {
        let (clock, lease) = world(8);
        let (mut one, mut other) = (lease("one"), lease("other"));
        assert_eq!(count(one.ensure().await.unwrap().as_ref()), 8);
        rounds(&clock, &mut [&mut one, &mut other]).await;
        assert_eq!((count(one.fence().as_ref()), count(other.fence().as_ref())), (4, 4));
        // Nothing moves any more, so what was allowed under these epochs stays allowed.
        let (mine, theirs) = (one.validity(), other.validity());
        rounds(&clock, &mut [&mut one, &mut other]).await;
        assert!(mine.lasts(clock.now()) && theirs.lasts(clock.now()));
        drop(other);
        rounds(&clock, &mut [&mut one]).await;
        assert_eq!(count(one.fence().as_ref()), 4, "its leases have not run out yet");
        for _ in 0..3 {
            rounds(&clock, &mut [&mut one]).await;
        }
        assert_eq!(count(one.fence().as_ref()), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_paused_past_its_leases_stands_back_and_gets_a_share_anew() {
        let (clock, lease) = world(8);
        let (mut paused, mut heir) = (lease("paused"), lease("heir"));
        paused.ensure().await.unwrap();
        let allowed = paused.validity();
        for _ in 0..4 {
            rounds(&clock, &mut [&mut heir]).await;
        }
        assert_eq!(count(heir.fence().as_ref()), 8);
        assert!(matches!(paused.renew().await, Err(StoreError::Fenced { .. })));
        assert!(!allowed.lasts(clock.now()));
        assert!(paused.fence().is_none());
        rounds(&clock, &mut [&mut heir, &mut paused]).await;
        assert_eq!((count(heir.fence().as_ref()), count(paused.fence().as_ref())), (4, 4));
    }

    #[tokio::test]
    async fn what_was_abandoned_is_given_back_at_the_end() {
        let (_, lease) = world(1);
        let mut mine = lease("mine");
        assert_eq!(mine.ensure().await.unwrap().unwrap().fences().next().unwrap().key, "lane/r/erp");
        mine.abandon();
        mine.release().await;
        assert!(lease("other").ensure().await.unwrap().is_some(), "nobody should have to wait for it");
    }
}
