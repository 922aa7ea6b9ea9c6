//! One record's place in one target's lane: the pure steps it can take. How its row is loaded and stored is each database's own.
//!
//! A place holds an entry that waits, an entry that is claimed, or both (a newer one came while the older was in flight). Every entry
//! ends exactly once: each step that ends one returns the origin whose books must tell of it.

use super::codec::{IdBytes, REPLAY};
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
}

impl Lane {
    pub(crate) const fn new(record: i64, target: i64, held: bool) -> Self {
        Self { record, target, held, due: 0, attempts: 0, waits_for: None, pending: None, claimed: None, intent: None }
    }

    /// A new entry. An older one that waits is overtaken by it and leaves its age; one in flight is left alone. What waited for another record
    /// is due at once, for the new version may not have to; that it waited stays noted, or what changes all the time would wait for ever.
    /// `at_once` sets retries and that back, because a person asked. What a person asked for keeps its name whatever comes after it, for a correction is looked up by that: then
    /// the new one ends, and the older takes over its version.
    pub(crate) fn enter(&mut self, origin: i64, version: i64, now: i64, at_once: bool) -> Option<i64> {
        let older = self.pending;
        let waited = self.waits_for.is_some();
        let (origin, ended) = match older {
            Some(Entry { origin: REPLAY, .. }) => (REPLAY, Some(origin)),
            older => (origin, older.map(|entry| entry.origin)),
        };
        self.pending = Some(Entry { origin, since: older.map_or(now, |entry| entry.since), version });
        if self.claimed.is_none() && (older.is_none() || waited || at_once) {
            self.make_due(now);
        }
        if at_once {
            self.attempts = 0;
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
    /// itself stands for it.
    pub(crate) fn retry(&mut self, at: i64, attempt: bool, unknown: bool) -> Option<i64> {
        let flight = self.claimed.take()?;
        let unsaid = || Sent { at: flight.at, version: flight.entry.version, sent: "null".into() };
        self.intent = unknown.then(|| self.intent.take().unwrap_or_else(unsaid));
        self.attempts += u32::from(attempt);
        let ended = self.put_back(flight.entry);
        self.due = at;
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

/// How many rows a page has, as a number of the databases.
pub(crate) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}
