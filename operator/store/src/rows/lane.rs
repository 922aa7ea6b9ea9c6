//! One record's place in one target's lane: the pure steps it can take. How its row is loaded and stored is each database's own.
//!
//! A place holds an entry that waits, an entry that is claimed, or both (a newer one came while the older was in flight). Every entry
//! ends exactly once: each step that ends one returns the origin whose books must tell of it.

use super::codec::{IdBytes, REMAP, REPLAY, is_bulk};
use crate::WAITS_FOR;
use fairlead_model::Timestamp;

/// Something to do for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) origin: i64,
    pub(crate) since: i64,
    pub(crate) version: i64,
}

/// An entry in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) entry: Entry,
    pub(crate) epoch: i64,
    pub(crate) at: i64,
}

/// A write that was about to be sent and whose outcome is not known. `sent` is text of the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: i64,
    pub(crate) version: i64,
    pub(crate) sent: String,
}

/// Where a place stands; also the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for its time, and the target has no id for it.
    Create = 0,
    /// Waits for its time.
    Ready = 1,
    /// Waits for another record.
    Waits = 2,
    /// Claimed.
    Claimed = 3,
    /// Nothing is to be done, but the outcome of an earlier write was never found out; the next entry has to.
    Unsure = 4,
}

/// A record's place in a target's lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) record: i64,
    pub(crate) target: i64,
    pub(crate) held: bool,
    pub(crate) due: i64,
    pub(crate) attempts: u32,
    pub(crate) waits_for: Option<IdBytes>,
    pub(crate) pending: Option<Entry>,
    pub(crate) claimed: Option<InFlight>,
    pub(crate) intent: Option<Sent>,
    /// Everything that entered here since it was empty has time. What is wanted soon stays so, whatever overtakes it.
    pub(crate) bulk: bool,
}

impl Lane {
    pub(crate) const fn new(record: i64, target: i64, held: bool) -> Self {
        Self { record, target, held, due: 0, attempts: 0, waits_for: None, pending: None, claimed: None, intent: None, bulk: true }
    }

    /// Whether a write is in flight, or was and has no known outcome.
    pub(crate) const fn is_open(&self) -> bool {
        self.claimed.is_some() || self.intent.is_some()
    }

    /// A new entry. An older one that waits is overtaken by it and leaves its age; one in flight is left alone. What waited for another record
    /// is due at once, for the new version may not have to; that it waited stays noted, or what changes all the time would wait for ever.
    /// `at_once` sets retries and that back, because a person asked; what is mapped otherwise has not failed yet, and keeps its time. What a person asked for keeps its name whatever comes after it, for a correction is looked up by that: then
    /// the new one ends, and the older takes over its version.
    pub(crate) fn enter(&mut self, origin: i64, version: i64, now: i64, at_once: bool) -> Option<i64> {
        let older = self.pending;
        let had_time = self.bulk && older.is_some();
        self.bulk = is_bulk(origin) && (self.bulk || (older.is_none() && self.claimed.is_none()));
        // What had time may have been put off for long.
        let hastens = had_time && !self.bulk;
        let waited = self.waits_for.is_some();
        if at_once || origin == REMAP {
            self.attempts = 0;
        }
        let (origin, ended) = match older {
            Some(Entry { origin: REPLAY, .. }) => (REPLAY, Some(origin)),
            older => (origin, older.map(|entry| entry.origin)),
        };
        self.pending = Some(Entry { origin, since: older.map_or(now, |entry| entry.since), version });
        if self.claimed.is_none() && (older.is_none() || waited || at_once || hastens) {
            self.make_due(now);
        }
        if at_once {
            self.waits_for = None;
        }
        ended
    }

    /// A newer epoch found this in flight. If an intent stands, what came of it is unknown; else nothing was sent.
    pub(crate) fn take_over(&mut self, now: i64) -> Option<i64> {
        let flight = self.claimed.take()?;
        let ended = self.put_back(flight.entry);
        self.make_due(now);
        ended
    }

    /// The entry that waits goes into flight; it writes `version`. Returns it as it waited.
    pub(crate) fn take(&mut self, version: i64, epoch: i64, now: i64) -> Option<Entry> {
        let entry = self.pending.take()?;
        self.claimed = Some(InFlight { entry: Entry { version, ..entry }, epoch, at: now });
        self.waits_for = None;
        self.due = now;
        Some(entry)
    }

    /// The entry in flight came to its end. A newer one beside it is due at once. What was sent is known to have arrived, or not; when it
    /// is not (`unsure`), the intent stays for the next entry to look up.
    pub(crate) fn finish(&mut self, now: i64, unsure: bool) -> Option<i64> {
        let flight = self.claimed.take()?;
        if !unsure {
            self.intent = None;
        }
        self.attempts = 0;
        self.make_due(now);
        Some(flight.entry.origin)
    }

    /// The entry in flight is tried again at `at`. An outcome that is unknown leaves the intent open; where none was committed, the claim
    /// itself stands for it. What has time and was put off without an attempt does not put off a newer one that has none.
    pub(crate) fn retry(&mut self, at: i64, (attempt, unknown): (bool, bool), now: i64) -> Option<i64> {
        let flight = self.claimed.take()?;
        let unsaid = || Sent { at: flight.at, version: flight.entry.version, sent: "null".into() };
        self.intent = unknown.then(|| self.intent.take().unwrap_or_else(unsaid));
        self.attempts += u32::from(attempt);
        let ended = self.put_back(flight.entry);
        if ended.is_some() && !attempt && !self.bulk && is_bulk(flight.entry.origin) {
            self.make_due(now);
        } else {
            self.due = at;
        }
        ended
    }

    /// The entry in flight waits for another record; for none, if that has come. A newer one beside it may not have to. Nothing was sent, and
    /// what an earlier one sent was looked up before.
    pub(crate) fn wait(&mut self, record: Option<IdBytes>, now: i64) -> Option<i64> {
        let flight = self.claimed.take()?;
        self.intent = None;
        let ended = self.put_back(flight.entry);
        self.make_due(now);
        if ended.is_none() {
            self.wait_for(record, now);
        }
        ended
    }

    /// What waits is due when `record` has come, or when its time is up.
    pub(crate) fn wait_for(&mut self, record: Option<IdBytes>, now: i64) {
        self.waits_for = record;
        if record.is_some() {
            self.due = Timestamp(now).plus(WAITS_FOR).0;
        }
    }

    /// An entry in flight waits again, unless a newer one does; that one inherits its age, and the name that a person's asking gave it.
    fn put_back(&mut self, entry: Entry) -> Option<i64> {
        match self.pending.as_mut() {
            Some(newer) => {
                newer.since = newer.since.min(entry.since);
                Some(if entry.origin == REPLAY { std::mem::replace(&mut newer.origin, REPLAY) } else { entry.origin })
            }
            None => {
                self.pending = Some(entry);
                None
            }
        }
    }

    /// What is due at once is ordered by its age.
    fn make_due(&mut self, now: i64) {
        self.due = self.pending.map_or(now, |entry| entry.since.min(now));
    }

    /// Waits for another record, and nothing has entered since: an entry that did is due by its age.
    const fn waits(&self) -> bool {
        matches!((&self.waits_for, self.pending), (Some(_), Some(entry)) if self.due > entry.since)
    }

    pub(crate) const fn phase(&self) -> Phase {
        if self.claimed.is_some() {
            Phase::Claimed
        } else if self.pending.is_none() {
            Phase::Unsure
        } else if self.waits() {
            Phase::Waits
        } else if self.held || self.intent.is_some() {
            Phase::Ready
        } else {
            Phase::Create
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.claimed.is_none() && self.intent.is_none()
    }
}

/// Of so many places in a claim, one is for what has time.
const SHARE: usize = 10;

/// Which places are claimed of those that are due, and which are left: what is wanted soon, then what has time, each oldest first.
pub(crate) fn shared_out(due: Vec<Lane>, max: usize) -> (Vec<Lane>, Vec<Lane>) {
    let (mut bulk, mut soon): (Vec<_>, Vec<_>) = due.into_iter().partition(|lane| lane.bulk);
    for places in [&mut soon, &mut bulk] {
        places.sort_by_key(|lane| (lane.due, lane.record));
    }
    let kept = bulk.len().min(max / SHARE);
    let mut left = soon.split_off((max - kept).min(soon.len()));
    left.extend(bulk.split_off((max - soon.len()).min(bulk.len())));
    soon.extend(bulk);
    (soon, left)
}

/// How many rows a page has, as a number of the databases.
pub(crate) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRM: i64 = 7;

    fn waiting(record: i64, origin: i64, due: i64) -> Lane {
        let mut lane = Lane::new(record, 1, true);
        lane.enter(origin, 1, due, false);
        lane
    }

    #[test]
    fn what_is_wanted_soon_goes_first_and_what_has_time_is_not_starved() {
        let rows = |lanes: &[Lane]| lanes.iter().map(|lane| lane.record).collect::<Vec<_>>();
        let due = |soon: i64, bulk: i64| {
            let bulk = (0..bulk).rev().map(|n| waiting(100 + n, REMAP, n));
            bulk.chain((0..soon).rev().map(|n| waiting(n, CRM, 1000 + n))).collect::<Vec<_>>()
        };
        for (soon, bulk, max, claimed, left) in [
            (0, 0, 10, vec![], 0),
            (2, 3, 10, vec![0, 1, 100, 101, 102], 0),
            (30, 30, 10, vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 100], 50),
            (30, 0, 4, vec![0, 1, 2, 3], 26),
            (0, 30, 4, vec![100, 101, 102, 103], 26),
            (3, 30, 5, vec![0, 1, 2, 100, 101], 28),
            (9, 9, 1, vec![0], 17),
        ] {
            let (taken, rest) = shared_out(due(soon, bulk), max);
            assert_eq!((rows(&taken), rest.len()), (claimed, left), "{soon} and {bulk}, {max} at most");
        }
    }

    #[test]
    fn what_is_mapped_otherwise_has_not_failed_yet_and_keeps_its_time() {
        let mut lane = waiting(1, CRM, 1);
        for (origin, attempts) in [(CRM, 1), (REMAP, 0)] {
            lane.take(1, 1, 2);
            lane.retry(9, (true, false), 3);
            lane.attempts = 1;
            lane.enter(origin, 2, 4, false);
            assert_eq!((lane.attempts, lane.due), (attempts, 9), "{origin}");
        }
    }

    #[test]
    fn what_is_wanted_soon_stays_so_until_it_is_over() {
        let mut lane = waiting(1, CRM, 1);
        lane.enter(REMAP, 2, 2, false);
        assert!(!lane.bulk, "overtaken by what has time");
        lane.take(2, 1, 3);
        lane.enter(REMAP, 3, 4, false);
        lane.retry(9, (true, false), 9);
        assert!(!lane.bulk, "tried again");
        lane.take(3, 1, 9);
        lane.finish(9, true);
        lane.enter(REMAP, 4, 10, false);
        assert!(lane.bulk, "what comes later has time, whatever was before");
        lane.enter(CRM, 5, 11, false);
        assert!(!lane.bulk);
    }

    #[test]
    fn what_has_time_and_was_put_off_does_not_put_off_what_has_none() {
        let put_off = |beside: Option<i64>, attempt: bool| {
            let mut lane = waiting(1, REMAP, 1);
            lane.take(1, 1, 2);
            if let Some(origin) = beside {
                lane.enter(origin, 2, 3, false);
            }
            lane.retry(900, (attempt, false), 4);
            lane
        };
        assert_eq!(put_off(None, false).due, 900);
        assert_eq!(put_off(Some(REMAP), false).due, 900);
        assert!(put_off(Some(CRM), false).due <= 4, "it came while the other was in flight");
        assert_eq!(put_off(Some(CRM), true).due, 900, "a failure is one for both");
        let mut lane = put_off(None, false);
        lane.enter(CRM, 2, 5, false);
        assert!(lane.due <= 5, "it came while the other waited");
    }
}
