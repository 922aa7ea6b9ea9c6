//! The books of one command: deltas gathered in memory, written once at its end by each database in its own way.

use fairlead_model::Timestamp;
use std::collections::HashMap;

const HOUR: i64 = 3_600_000;

/// Guard counts older than this many hours are of no use to anybody.
pub(crate) const GUARD_HOURS: i64 = 31 * 24;

/// The bucket of the guard's counts that `at` falls into.
pub(crate) const fn hour_of(at: Timestamp) -> i64 {
    at.0.div_euclid(HOUR)
}

/// Which lane's book: realm, target, origin.
pub(crate) type LaneKey = (i64, i64, i64);

/// What a command changes in one lane's book.
#[derive(Default, Clone, Copy)]
pub(crate) struct LaneDelta {
    pub(crate) entered: i64,
    pub(crate) delivered: i64,
    pub(crate) unchanged: i64,
    pub(crate) superseded: i64,
    pub(crate) discarded: i64,
    /// When something was delivered.
    pub(crate) delivered_at: Option<i64>,
}

/// What a command changes in the books.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) lanes: HashMap<LaneKey, LaneDelta>,
    pub(crate) filtered: HashMap<(LaneKey, String), i64>,
    /// Live records.
    pub(crate) live: i64,
    /// Live records that more than one participant holds.
    pub(crate) matched: i64,
    /// When something was delivered.
    pub(crate) delivered_at: Option<i64>,
}

impl Books {
    pub(crate) fn entered(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().entered += 1;
    }
    pub(crate) fn delivered(&mut self, key: LaneKey, at: Timestamp) {
        let lane = self.lanes.entry(key).or_default();
        lane.delivered += 1;
        lane.delivered_at = Some(at.0);
        self.delivered_at = Some(at.0);
    }
    pub(crate) fn unchanged(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().unchanged += 1;
    }
    pub(crate) fn superseded(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().superseded += 1;
    }
    pub(crate) fn discarded(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().discarded += 1;
    }
    pub(crate) fn filtered(&mut self, key: LaneKey, reason: &str) {
        *self.filtered.entry((key, reason.to_owned())).or_default() += 1;
    }

    /// A record's standing changed: whether it lives, and how many participants hold it.
    pub(crate) fn record(&mut self, (lived, held): (bool, i64), (lives, holds): (bool, i64)) {
        self.live += i64::from(lives) - i64::from(lived);
        self.matched += i64::from(lives && holds > 1) - i64::from(lived && held > 1);
    }
}

/// The source's book of one batch.
pub(crate) struct SourceDelta {
    pub(crate) changed: u64,
    pub(crate) unchanged: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) conflicts: u64,
}
