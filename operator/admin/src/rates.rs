//! How much moves: the ledger's cumulative counts now and up to a minute ago.

use crate::overview::Rate;
use fairlead_model::unit::ObjectKey;
use fairlead_store::Snapshot;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// The time over which rates are told.
const WINDOW: Duration = Duration::from_secs(60);
/// The least time between two kept samples, which bounds how many there are.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    read: u64,
    delivered: u64,
}

/// Samples of the last minute.
#[derive(Debug, Default)]
pub struct Rates {
    samples: VecDeque<(Instant, BTreeMap<ObjectKey, Counts>)>,
}

impl Rates {
    /// The rates by now, from what was counted before. Keeps these counts as a sample when it is time for one.
    pub fn observe(&mut self, books: &BTreeMap<ObjectKey, Snapshot>, now: Instant) -> BTreeMap<ObjectKey, Rate> {
        let counts: BTreeMap<ObjectKey, Counts> = books.iter().map(|(key, snapshot)| (key.clone(), count(snapshot))).collect();
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        let rates = counts.iter().map(|(key, now_counts)| (key.clone(), self.rate(key, *now_counts, now))).collect();
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= EVERY) {
            self.samples.push_back((now, counts));
        }
        rates
    }

    fn rate(&self, key: &ObjectKey, counts: Counts, now: Instant) -> Rate {
        let Some((at, before)) = self.samples.iter().find_map(|(at, sample)| Some((at, sample.get(key)?))) else { return Rate::default() };
        let millis = u64::try_from(now.duration_since(*at).as_millis()).unwrap_or(u64::MAX);
        let per_minute = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(60_000).checked_div(millis).unwrap_or(0);
        Rate { read_per_minute: per_minute(counts.read, before.read), delivered_per_minute: per_minute(counts.delivered, before.delivered) }
    }
}

fn count(snapshot: &Snapshot) -> Counts {
    Counts {
        read: snapshot.sources.values().map(|source| source.read).sum(),
        delivered: snapshot.lanes.iter().map(|lane| lane.delivered).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_store::SourceLedger;

    fn books(read: u64) -> BTreeMap<ObjectKey, Snapshot> {
        let sources = BTreeMap::from([("crm".to_owned(), SourceLedger { read, changed: read, ..SourceLedger::default() })]);
        BTreeMap::from([(ObjectKey("a/b".into()), Snapshot { sources, ..Snapshot::default() })])
    }

    #[test]
    fn a_rate_speaks_of_the_last_minute() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let mut at =
            |seconds: u64, read: u64| rates.observe(&books(read), start + Duration::from_secs(seconds)).into_values().next().unwrap();
        assert_eq!(at(0, 1000).read_per_minute, 0, "there is nothing to compare with yet");
        assert_eq!(at(30, 1300).read_per_minute, 600);
        assert_eq!(at(60, 1600).read_per_minute, 600);
        assert_eq!(at(120, 1600).read_per_minute, 0, "what was read before the last minute does not count");
    }
}
