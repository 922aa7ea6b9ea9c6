//! How processes share the work of one Integration: who takes what is free, and who gives back what.
//!
//! Nobody hands out anything. Each process looks at who holds what, tries for what is free, and gives back what is more than its share once another
//! one waits for it. A process that may and can work and holds nothing sits down on a *seat*, a lease of its own, so that the others know of it.
//!
//! Shares are whole numbers, so nobody hands a partition to and fro: while nobody waits, a share is rounded up, which leaves nothing unheld and
//! takes nothing from anybody; while somebody does, it is rounded down for all who hold something, which leaves something over for whoever waits.

use std::collections::{BTreeMap, BTreeSet};

/// What a process does about the partitions of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partitions {
    /// Those to try for.
    pub take: Vec<u32>,
    /// Those to give back.
    pub give: Vec<u32>,
    /// Nothing is to be had: the others are to know that somebody waits.
    pub seat: bool,
}

/// Of a lane in `count` partitions this process holds `mine`; `others` are held by these processes, and some wait with nothing in hand. It tries
/// for free ones from `first` on: where each begins elsewhere, they seldom try for the same.
#[must_use]
pub fn partitions(count: u32, first: u32, mine: &BTreeSet<u32>, others: &BTreeMap<u32, &str>, waiting: &BTreeSet<&str>) -> Partitions {
    let holders: BTreeSet<&str> = others.values().copied().chain(waiting.iter().copied()).collect();
    let live = u32::try_from(holders.len()).unwrap_or(u32::MAX).saturating_add(1);
    let waiting = waiting.iter().any(|waits| !others.values().any(|holder| holder == waits));
    let share = if waiting { (count / live).max(1) } else { count.div_ceil(live) } as usize;
    let free = (0..count)
        .map(|place| (place + first % count) % count)
        .filter(|partition| !mine.contains(partition) && !others.contains_key(partition));
    let take: Vec<u32> = free.take(share.saturating_sub(mine.len())).collect();
    let give = mine.iter().copied().skip(share).collect();
    let seat = mine.is_empty() && take.is_empty();
    Partitions { take, give, seat }
}

/// What a process does about one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Read: it is this process's, or free.
    Read,
    /// Give it back to one that reads less.
    Give,
    /// Another one reads and has more to read than this process: it is to know that somebody waits.
    Seat,
    /// It is another one's, or another's turn.
    Wait,
}

/// About the reader `this`, where the readers of an Integration are held by these processes, and these wait for each. Of several that could go, one
/// process gives back one at a time: what others do about it is seen only at the next look.
#[must_use]
pub fn reader(me: &str, this: &str, holders: &BTreeMap<&str, &str>, waiting: &BTreeMap<&str, BTreeSet<&str>>) -> Reader {
    let load = |process: &str| holders.values().filter(|holder| **holder == process).count();
    let waits = |reader: &str, less: usize| {
        waiting.get(reader).is_some_and(|waiting| waiting.iter().any(|process| *process != me && load(process) + less <= load(me)))
    };
    match holders.get(this) {
        Some(holder) if *holder == me => {
            let given = holders.iter().rev().find(|(reader, holder)| **holder == me && waits(reader, 2));
            if given.is_some_and(|(reader, _)| *reader == this) { Reader::Give } else { Reader::Read }
        }
        Some(holder) if load(me) + 2 <= load(holder) => Reader::Seat,
        Some(_) => Reader::Wait,
        None if waits(this, 1) => Reader::Wait,
        None => Reader::Read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Processes that look and act in turns, each with what it saw before any of them acted.
    struct World {
        count: u32,
        held: BTreeMap<u32, usize>,
        seated: BTreeSet<usize>,
        live: BTreeSet<usize>,
    }

    fn name(process: usize) -> String {
        format!("p{process}")
    }

    impl World {
        fn new(count: u32) -> Self {
            Self { count, held: BTreeMap::new(), seated: BTreeSet::new(), live: BTreeSet::new() }
        }

        /// All look, then act in this order; how many partitions changed hands.
        fn round(&mut self, order: impl Iterator<Item = usize>) -> usize {
            let names: Vec<String> = (0..64).map(name).collect();
            let (held, seated) = (self.held.clone(), self.seated.clone());
            let mut moved = 0;
            for me in order.filter(|process| self.live.contains(process)).collect::<Vec<_>>() {
                let mine: BTreeSet<u32> = held.iter().filter(|(_, holder)| **holder == me).map(|(partition, _)| *partition).collect();
                let others = held.iter().filter(|(_, holder)| **holder != me).map(|(p, holder)| (*p, names[*holder].as_str())).collect();
                let waiting = seated.iter().filter(|process| **process != me).map(|process| names[*process].as_str()).collect();
                let plan = partitions(self.count, u32::try_from(me * 5).unwrap(), &mine, &others, &waiting);
                for partition in plan.give {
                    self.held.remove(&partition);
                    moved += 1;
                }
                for partition in plan.take {
                    if let std::collections::btree_map::Entry::Vacant(free) = self.held.entry(partition) {
                        free.insert(me);
                        moved += 1;
                    }
                }
                if plan.seat {
                    self.seated.insert(me);
                } else if self.held.values().any(|holder| *holder == me) {
                    self.seated.remove(&me);
                }
            }
            moved
        }

        fn dies(&mut self, process: usize) {
            self.live.remove(&process);
            self.seated.remove(&process);
            self.held.retain(|_, holder| *holder != process);
        }

        fn loads(&self) -> Vec<usize> {
            self.live.iter().map(|process| self.held.values().filter(|holder| *holder == process).count()).collect()
        }
    }

    proptest! {
        /// Whoever comes and goes: soon everything is held, everybody has something if there is enough, and nothing moves any more.
        #[test]
        fn shares_are_fair_and_come_to_rest(count in 1_u32..=16, course in proptest::collection::vec((0_usize..6, any::<bool>(), 0_usize..4, any::<bool>()), 1..30)) {
            let mut world = World::new(count);
            for (process, comes, rounds, backwards) in course {
                if comes {
                    world.live.insert(process);
                } else {
                    world.dies(process);
                }
                for _ in 0..rounds {
                    if backwards { world.round((0..6).rev()); } else { world.round(0..6); }
                }
            }
            world.live.insert(0);
            let settled = (0..40).find(|_| world.round(0..6) == 0 && world.round(0..6) == 0);
            prop_assert!(settled.is_some(), "it does not come to rest: {:?}", world.loads());
            let (loads, count, live) = (world.loads(), count as usize, world.live.len());
            prop_assert_eq!(loads.iter().sum::<usize>(), count, "something is nobody's: {:?}", loads);
            prop_assert!(loads.iter().all(|load| *load <= count.div_ceil(live)), "{:?}", loads);
            prop_assert!(count < live || loads.iter().all(|load| *load > 0), "{:?}", loads);
        }
    }

    #[test]
    fn one_alone_takes_everything_and_a_newcomer_gets_its_half() {
        let mut world = World::new(8);
        world.live.insert(0);
        world.round(0..2);
        assert_eq!(world.loads(), [8]);
        world.live.insert(1);
        for _ in 0..3 {
            world.round(0..2);
        }
        assert_eq!(world.loads(), [4, 4]);
        world.dies(0);
        world.round(0..2);
        assert_eq!(world.loads(), [8]);
    }

    #[test]
    fn a_reader_moves_only_to_one_that_reads_less() {
        // Who holds crm and erp, who waits for either, and what a and b do about both.
        let table: [(&str, &str, &str, &str); 9] = [
            ("- -", "- -", "Read Read", "Read Read"),
            ("a a", "- -", "Read Read", "Seat Seat"),
            // One of the two is given, not both, ...
            ("a a", "b b", "Read Give", "Seat Seat"),
            // ... and is not taken back on the way.
            ("a -", "b b", "Read Wait", "Wait Read"),
            ("a b", "b b", "Read Wait", "Wait Read"),
            ("a b", "- -", "Read Wait", "Wait Read"),
            // One alone is not handed on.
            ("a -", "- -", "Read Read", "Wait Read"),
            // Somebody who reads nothing waits for what b cannot read: it is a's to give.
            ("a a", "c -", "Give Read", "Seat Seat"),
            ("- a", "c -", "Wait Read", "Read Wait"),
        ];
        let names = |words: &'static str| ["crm", "erp"].into_iter().zip(words.split(' ')).filter(|(_, name)| *name != "-");
        for (held, waits, by_a, by_b) in table {
            let holders: BTreeMap<&str, &str> = names(held).collect();
            let waiting = names(waits).map(|(reader, process)| (reader, BTreeSet::from([process]))).collect();
            let done = |me: &str| ["crm", "erp"].map(|this| format!("{:?}", reader(me, this, &holders, &waiting))).join(" ");
            assert_eq!((done("a").as_str(), done("b").as_str()), (by_a, by_b), "{held}, waiting {waits}");
        }
    }

    proptest! {
        /// Whoever comes and goes: soon every reader is read, no process reads two more than another, and nothing moves any more.
        #[test]
        fn readers_come_to_rest(course in proptest::collection::vec((0_usize..4, any::<bool>(), 0_usize..4), 1..20)) {
            const READERS: [&str; 5] = ["a", "b", "c", "d", "e"];
            const NAMES: [&str; 4] = ["p0", "p1", "p2", "p3"];
            let (mut held, mut seats, mut live) = (BTreeMap::<&str, &str>::new(), BTreeSet::<(&str, &str)>::new(), BTreeSet::<&str>::new());
            let round = |held: &mut BTreeMap<&'static str, &'static str>, seats: &mut BTreeSet<(&'static str, &'static str)>, live: &BTreeSet<&'static str>| {
                let seen = held.clone();
                let mut waiting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
                for (this, process) in seats.iter().copied() {
                    waiting.entry(this).or_default().insert(process);
                }
                let mut moved = 0;
                for me in live.iter().copied() {
                    for this in READERS {
                        let turn = reader(me, this, &seen, &waiting);
                        if turn == Reader::Seat { seats.insert((this, me)); } else { seats.remove(&(this, me)); }
                        if turn == Reader::Give && held.get(this) == Some(&me) {
                            held.remove(this);
                            moved += 1;
                        }
                        if turn == Reader::Read && !held.contains_key(this) {
                            held.insert(this, me);
                            moved += 1;
                        }
                    }
                }
                moved
            };
            for (process, comes, rounds) in course {
                if comes {
                    live.insert(NAMES[process]);
                } else {
                    live.remove(NAMES[process]);
                    held.retain(|_, holder| *holder != NAMES[process]);
                    seats.retain(|(_, holder)| *holder != NAMES[process]);
                }
                for _ in 0..rounds {
                    round(&mut held, &mut seats, &live);
                }
            }
            live.insert("p0");
            let settled = (0..40).find(|_| round(&mut held, &mut seats, &live) == 0 && round(&mut held, &mut seats, &live) == 0);
            prop_assert!(settled.is_some(), "it does not come to rest: {:?}", held);
            let loads: Vec<usize> = live.iter().map(|process| held.values().filter(|holder| *holder == process).count()).collect();
            prop_assert_eq!(held.len(), READERS.len());
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() < 2, "{:?}", loads);
        }
    }
}
