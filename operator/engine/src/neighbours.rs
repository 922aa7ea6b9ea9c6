//! The other processes that work on the same store, as its leases show them; and a seat by which they learn that this one waits for work.

use crate::decide::share::{self, Partitions, Reader};
use crate::lease::Lease;
use crate::news::{self, News, Teller};
use fairlead_model::Clock;
use fairlead_model::hash::ValueHash;
use fairlead_store::{Store, StoreError};
use fairlead_systems::Share;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked who holds what: a newcomer has its share after a few looks of either side.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So many processes can wait for the same thing at once. More would not make the share of any smaller that is not one already.
pub(crate) const SEATS: u32 = 32;

/// Who holds which lease.
type Holders = BTreeMap<String, String>;

/// A participant of a realm, as far as it uses an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UsedBy {
    /// Its realm.
    pub(crate) realm: String,
    /// Its name there.
    pub(crate) participant: String,
}

/// How things stand around a participant, each part as one number: another one means that something moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Around {
    /// The partitions of its lane, and who waits for them.
    pub(crate) lane: u64,
    /// The readers of its realm, and who waits for them.
    pub(crate) readers: u64,
}

/// The processes that share a store.
#[derive(Clone)]
pub(crate) struct Neighbours {
    me: String,
    partitions: u32,
    holders: News<Arc<Holders>>,
}

impl Neighbours {
    /// Looks around until nobody wants to know; not at all where the store is one process's.
    pub(crate) fn watch(store: &Arc<dyn Store>, clock: &Arc<dyn Clock>, me: String) -> Self {
        let (tell, holders) = news::channel(Arc::default());
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
        if !self.holders.changed().await {
            std::future::pending().await
        }
    }

    /// What to do about the partitions of the lane `key`, of which these are held.
    pub(crate) fn of_lane(&self, key: &str, seats: &str, mine: &BTreeSet<u32>) -> Partitions {
        let first = u32::try_from(ValueHash::of_text(&self.me).0 % u64::from(self.partitions)).unwrap_or_default();
        if !self.share() {
            return share::partitions(1, first, mine, &BTreeMap::new(), &BTreeSet::new());
        }
        let holders = self.holders.newest();
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
        let holders = self.holders.newest();
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

    /// Which part of an account's limits this process has, where these participants are what the account is used for: it is divided among all that
    /// read or write one of them, or wait to. Whoever waits counts, so that there is room when it gets something.
    pub(crate) fn share_of(&self, used_by: &BTreeSet<UsedBy>) -> Share {
        if !self.share() {
            return Share::default();
        }
        let holders = self.holders.newest();
        let mut all = BTreeSet::from([self.me.as_str()]);
        for UsedBy { realm, participant } in used_by {
            all.extend(holders.get(&format!("reader/{realm}/{participant}")).map(String::as_str));
            let prefixes = [
                format!("lane/{realm}/{participant}/"),
                format!("direct/{realm}/{participant}/"),
                format!("seat/{realm}/lane/{participant}/"),
                format!("seat/{realm}/reader/{participant}/"),
                format!("reconcile/{realm}/"),
            ];
            prefixes.iter().for_each(|prefix| all.extend(below(&holders, prefix).map(|(_, holder)| holder)));
        }
        let place = all.iter().position(|holder| *holder == self.me).unwrap_or_default();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Share { place: count(place), of: count(all.len()) }
    }

    /// Another process holds this lease.
    pub(crate) fn another_has(&self, key: &str) -> bool {
        self.holders.newest().get(key).is_some_and(|holder| *holder != self.me)
    }

    /// Who has and waits for what a participant's lane and the realm's readers are shared by.
    pub(crate) fn around(&self, realm: &str, participant: &str) -> Around {
        let holders = self.holders.newest();
        let of = |prefixes: [String; 2]| {
            let mut hasher = DefaultHasher::new();
            for prefix in prefixes {
                prefix.hash(&mut hasher);
                below(&holders, &prefix).for_each(|lease| lease.hash(&mut hasher));
            }
            hasher.finish()
        };
        Around {
            lane: of([format!("lane/{realm}/{participant}/"), format!("seat/{realm}/lane/{participant}/")]),
            readers: of([format!("reader/{realm}/"), format!("seat/{realm}/reader/")]),
        }
    }

    /// Who else sits there.
    fn waiting<'h>(&self, holders: &'h Holders, seats: &str) -> BTreeSet<&'h str> {
        below(holders, seats).map(|(_, holder)| holder).filter(|holder| *holder != self.me).collect()
    }

    /// A seat that was free a moment ago.
    fn free_seat(&self, seats: &str) -> Option<String> {
        let holders = self.holders.newest();
        (0..SEATS).map(|number| format!("{seats}{number}")).find(|key| !holders.contains_key(key))
    }
}

/// The leases whose keys begin with `prefix`: the rest of each key, and its holder.
fn below<'h>(holders: &'h Holders, prefix: &str) -> impl Iterator<Item = (&'h str, &'h str)> + use<'h> {
    let of = prefix.to_owned();
    holders.range(prefix.to_owned()..).map_while(move |(key, holder)| Some((key.strip_prefix(of.as_str())?, holder.as_str())))
}

async fn look_forever(store: Arc<dyn Store>, clock: Arc<dyn Clock>, tell: Teller<Arc<Holders>>) {
    loop {
        match store.leases(clock.now()).await {
            Ok(leases) => {
                let seen: Holders = leases.into_iter().map(|fence| (fence.key, fence.holder)).collect();
                tell.tell(|known| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(me: &str, leases: &[(&str, &str)]) -> Neighbours {
        let holders: Holders = leases.iter().map(|(key, holder)| ((*key).to_owned(), (*holder).to_owned())).collect();
        Neighbours { me: me.into(), partitions: 8, holders: news::channel(Arc::new(holders)).1 }
    }

    #[test]
    fn an_account_is_divided_among_those_that_use_it_or_wait_to() {
        let used = |names: &[&str]| {
            names.iter().map(|name| UsedBy { realm: "sales/customers".into(), participant: (*name).to_owned() }).collect::<BTreeSet<_>>()
        };
        let leases = [
            ("reader/sales/customers/crm", "a"),
            ("lane/sales/customers/erp/0", "a"),
            ("lane/sales/customers/erp/1", "b"),
            ("seat/sales/customers/lane/erp/0", "d"),
            // Of other accounts, and of another Integration.
            ("lane/sales/customers/erp2/1", "e"),
            ("reader/sales/customers/erp2", "f"),
            ("lane/sales/customers-eu/erp/1", "g"),
        ];
        let table: [(&str, &[&str], u32, u32); 6] = [
            ("a", &["crm"], 0, 1),
            ("a", &["erp"], 0, 3),
            ("b", &["erp"], 1, 3),
            ("d", &["crm", "erp"], 2, 3),
            // Whoever asks may want to.
            ("c", &["erp"], 2, 4),
            ("c", &[], 0, 1),
        ];
        for (me, names, place, of) in table {
            assert_eq!(seen(me, &leases).share_of(&used(names)), Share { place, of }, "{me} of {names:?}");
        }
        let gone: Vec<_> = leases.into_iter().filter(|(_, holder)| *holder != "b").collect();
        assert_eq!(seen("a", &gone).share_of(&used(&["erp"])), Share { place: 0, of: 2 }, "one whose leases have ended is not counted");
        let alone = Neighbours { partitions: 1, ..seen("a", &leases) };
        assert_eq!(alone.share_of(&used(&["erp"])), Share::default());
    }

    #[test]
    fn what_moves_elsewhere_moves_nothing_around_a_participant() {
        let of = |leases: &[(&str, &str)]| seen("a", leases).around("r/i", "erp");
        let before = of(&[("lane/r/i/erp/0", "a"), ("reader/r/i/erp", "a"), ("seat/r/i/lane/erp/0", "b")]);
        let mut more = vec![("lane/r/i/erp/0", "a"), ("reader/r/i/erp", "a"), ("seat/r/i/lane/erp/0", "b")];
        more.extend([("lane/r/other/erp/0", "c"), ("lane/r/i/crm/0", "c"), ("wait/account:r/erp", "c")]);
        assert_eq!(of(&more), before);
        // The one that waited has it now.
        let moved = of(&[("lane/r/i/erp/0", "b"), ("reader/r/i/erp", "a")]);
        assert_eq!((moved.lane == before.lane, moved.readers == before.readers), (false, true));
        let read = of(&[("lane/r/i/erp/0", "a"), ("reader/r/i/crm", "b"), ("reader/r/i/erp", "a"), ("seat/r/i/lane/erp/0", "b")]);
        assert_eq!((read.lane == before.lane, read.readers == before.readers), (true, false));
    }
}
