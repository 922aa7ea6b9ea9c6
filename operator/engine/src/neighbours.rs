//! The other processes that work on the same store, as its leases show them; and a seat by which they learn that this one waits for work.

use crate::decide::share::{self, Partitions, Reader};
use crate::lease::Lease;
use fairlead_model::Clock;
use fairlead_model::hash::ValueHash;
use fairlead_store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked who holds what: a newcomer has its share after a few looks of either side.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So many processes can wait for the same thing at once. More would not make the share of any smaller that is not one already.
pub(crate) const SEATS: u32 = 32;

/// Who holds which lease.
type Holders = BTreeMap<String, String>;

/// The processes that share a store.
#[derive(Clone)]
pub(crate) struct Neighbours {
    me: String,
    partitions: u32,
    holders: watch::Receiver<Arc<Holders>>,
}

impl Neighbours {
    /// Looks around until nobody wants to know; not at all where the store is one process's.
    pub(crate) fn watch(store: &Arc<dyn Store>, clock: &Arc<dyn Clock>, me: String) -> Self {
        let (tell, holders) = watch::channel(Arc::default());
        let partitions = store.partitions();
        if partitions > 1 {
            tokio::spawn(look_forever(Arc::clone(store), Arc::clone(clock), tell));
        }
        Self { me, partitions, holders }
    }

    /// Whether several processes share the work of one Integration.
    pub(crate) const fn share(&self) -> bool {
        self.partitions > 1
    }

    /// In how many partitions a lane is drained.
    pub(crate) const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Somebody took a lease, or gave one back; never where the store is one process's.
    pub(crate) async fn changed(&mut self) {
        if self.holders.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// What to do about the partitions of the lane `key`, of which these are held.
    pub(crate) fn of_lane(&self, key: &str, seats: &str, mine: &BTreeSet<u32>) -> Partitions {
        let first = u32::try_from(ValueHash::of_text(&self.me).0 % u64::from(self.partitions)).unwrap_or_default();
        if !self.share() {
            return share::partitions(1, first, mine, &BTreeMap::new(), &BTreeSet::new());
        }
        let holders = self.holders.borrow();
        let others = below(&holders, &format!("{key}/"))
            .filter(|(_, holder)| *holder != self.me)
            .filter_map(|(partition, holder)| Some((partition.parse().ok()?, holder)))
            .collect();
        share::partitions(self.partitions, first, mine, &others, &self.waiting(&holders, seats))
    }

    /// What to do about the reader of `participant`, one of those of `realm`.
    pub(crate) fn of_reader(&self, realm: &str, participant: &str) -> Reader {
        if !self.share() {
            return Reader::Read;
        }
        let holders = self.holders.borrow();
        let read = below(&holders, &format!("reader/{realm}/")).collect();
        let mut waiting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (seat, holder) in below(&holders, &format!("seat/{realm}/reader/")) {
            // The name of a participant may have slashes, the number of a seat has none.
            if let Some((reader, _)) = seat.rsplit_once('/') {
                waiting.entry(reader).or_default().insert(holder);
            }
        }
        share::reader(&self.me, participant, &read, &waiting)
    }

    /// Who else sits there.
    fn waiting<'h>(&self, holders: &'h Holders, seats: &str) -> BTreeSet<&'h str> {
        below(holders, seats).map(|(_, holder)| holder).filter(|holder| *holder != self.me).collect()
    }

    /// A seat that was free a moment ago.
    fn free_seat(&self, seats: &str) -> Option<String> {
        let holders = self.holders.borrow();
        (0..SEATS).map(|number| format!("{seats}{number}")).find(|key| !holders.contains_key(key))
    }
}

/// The leases whose keys begin with `prefix`: the rest of each key, and its holder.
fn below<'h>(holders: &'h Holders, prefix: &str) -> impl Iterator<Item = (&'h str, &'h str)> + use<'h> {
    let of = prefix.to_owned();
    holders.range(prefix.to_owned()..).map_while(move |(key, holder)| Some((key.strip_prefix(of.as_str())?, holder.as_str())))
}

async fn look_forever(store: Arc<dyn Store>, clock: Arc<dyn Clock>, tell: watch::Sender<Arc<Holders>>) {
    loop {
        match store.leases(clock.now()).await {
            Ok(leases) => {
                let seen: Holders = leases.into_iter().map(|fence| (fence.key, fence.holder)).collect();
                tell.send_if_modified(|known| {
                    let moved = **known != seen;
                    if moved {
                        *known = Arc::new(seen);
                    }
                    moved
                });
            }
            // What was seen last stands: whatever is done upon it, the store has the last word.
            Err(error) => tracing::debug!(%error, "it cannot be seen who holds what"),
        }
        tokio::select! {
            biased;
            () = tell.closed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// A seat, taken or not.
pub(crate) struct Seat {
    neighbours: Neighbours,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    seats: String,
    taken: Option<Lease>,
}

impl Seat {
    /// Among the leases that begin with `seats`; not yet taken.
    pub(crate) fn new(neighbours: Neighbours, store: Arc<dyn Store>, clock: Arc<dyn Clock>, seats: String) -> Self {
        Self { neighbours, store, clock, seats, taken: None }
    }

    /// What the keys of its kind begin with.
    pub(crate) fn seats(&self) -> &str {
        &self.seats
    }

    /// Sits down, or stays there.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(crate) async fn sit(&mut self) -> Result<(), StoreError> {
        if self.taken.is_none() {
            let Some(key) = self.neighbours.free_seat(&self.seats) else { return Ok(()) };
            self.taken = Some(Lease::new(Arc::clone(&self.store), Arc::clone(&self.clock), key, self.neighbours.me.clone()));
        }
        if let Some(lease) = &mut self.taken
            && lease.ensure().await?.is_none()
        {
            // Somebody was faster; another one is free at the next look.
            self.taken = None;
        }
        Ok(())
    }

    /// Leaves it, if it was taken.
    pub(crate) async fn rise(&mut self) {
        if let Some(mut lease) = self.taken.take() {
            lease.release().await;
        }
    }
}
