//! The books of one command: deltas gathered in memory, written once at its end.

use super::codec::id_bytes;
use crate::{Guarded, StoreError};
use fairlead_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;

const HOUR: i64 = 3_600_000;

/// Guard counts older than this many hours are of no use to anybody.
const GUARD_HOURS: i64 = 31 * 24;

/// The bucket of the guard's counts that `at` falls into.
pub(super) const fn hour_of(at: Timestamp) -> i64 {
    at.0.div_euclid(HOUR)
}

/// Which lane's book: realm, target, origin.
pub(super) type LaneKey = (i64, i64, i64);

#[derive(Default, Clone, Copy)]
struct Lane {
    entered: i64,
    delivered: i64,
    unchanged: i64,
    superseded: i64,
    discarded: i64,
}

/// What a command changes in the books.
#[derive(Default)]
pub(super) struct Books {
    lanes: HashMap<LaneKey, Lane>,
    filtered: HashMap<(LaneKey, String), i64>,
    /// Live records.
    pub(super) live: i64,
    /// Live records that more than one participant holds.
    pub(super) matched: i64,
    /// Conflicts on owned fields.
    pub(super) conflicts: i64,
    /// When something was delivered.
    pub(super) delivered_at: Option<i64>,
}

impl Books {
    pub(super) fn entered(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().entered += 1;
    }
    pub(super) fn delivered(&mut self, key: LaneKey, at: Timestamp) {
        self.lanes.entry(key).or_default().delivered += 1;
        self.delivered_at = Some(at.0);
    }
    pub(super) fn unchanged(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().unchanged += 1;
    }
    pub(super) fn superseded(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().superseded += 1;
    }
    pub(super) fn discarded(&mut self, key: LaneKey) {
        self.lanes.entry(key).or_default().discarded += 1;
    }
    pub(super) fn filtered(&mut self, key: LaneKey, reason: &str) {
        *self.filtered.entry((key, reason.to_owned())).or_default() += 1;
    }

    /// A record's standing changed: whether it lives, and how many participants hold it.
    pub(super) fn record(&mut self, (lived, held): (bool, i64), (lives, holds): (bool, i64)) {
        self.live += i64::from(lives) - i64::from(lived);
        self.matched += i64::from(lives && holds > 1) - i64::from(lived && held > 1);
    }

    /// Writes the deltas down. `realm` is the one that the record counts belong to.
    pub(super) fn write(self, connection: &Connection, realm: i64) -> Result<(), StoreError> {
        let mut lane = connection.prepare_cached(
            "INSERT INTO lane_book (realm, target, origin, entered, delivered, unchanged, superseded, discarded)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (realm, target, origin) DO UPDATE SET entered = entered + excluded.entered, delivered = delivered + excluded.delivered,
               unchanged = unchanged + excluded.unchanged, superseded = superseded + excluded.superseded, discarded = discarded + excluded.discarded",
        )?;
        for ((realm, target, origin), delta) in self.lanes {
            lane.execute(params![
                realm,
                target,
                origin,
                delta.entered,
                delta.delivered,
                delta.unchanged,
                delta.superseded,
                delta.discarded
            ])?;
        }
        let mut filtered = connection.prepare_cached(
            "INSERT INTO filtered_book (realm, target, origin, reason, count) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (realm, target, origin, reason) DO UPDATE SET count = count + excluded.count",
        )?;
        for (((realm, target, origin), reason), count) in self.filtered {
            filtered.execute(params![realm, target, origin, reason, count])?;
        }
        if self.live != 0 || self.matched != 0 || self.conflicts != 0 || self.delivered_at.is_some() {
            connection
                .prepare_cached(
                    "INSERT INTO realm_book (realm, live, matched, conflicts, last_delivered) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (realm) DO UPDATE SET live = live + excluded.live, matched = matched + excluded.matched,
                       conflicts = conflicts + excluded.conflicts,
                       last_delivered = coalesce(max(last_delivered, excluded.last_delivered), last_delivered, excluded.last_delivered)",
                )?
                .execute(params![realm, self.live, self.matched, self.conflicts, self.delivered_at])?;
        }
        Ok(())
    }
}

/// The source's book of one batch.
pub(super) struct SourceDelta {
    pub(super) changed: u64,
    pub(super) unchanged: u64,
    pub(super) dead_lettered: u64,
}

pub(super) fn write_source(connection: &Connection, realm: i64, participant: i64, delta: &SourceDelta) -> Result<(), StoreError> {
    let read = delta.changed + delta.unchanged + delta.dead_lettered;
    if read == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO source_book (realm, participant, read, changed, unchanged, dead_lettered) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (realm, participant) DO UPDATE SET read = read + excluded.read, changed = changed + excluded.changed,
               unchanged = unchanged + excluded.unchanged, dead_lettered = dead_lettered + excluded.dead_lettered",
        )?
        .execute(params![
            realm,
            participant,
            read.cast_signed(),
            delta.changed.cast_signed(),
            delta.unchanged.cast_signed(),
            delta.dead_lettered.cast_signed()
        ])?;
    Ok(())
}

/// Counts records for the guard. Each stands in the hour of its last change only, so that every window counts it once.
pub(super) fn write_guard(connection: &Connection, realm: i64, guarded: &Guarded, now: Timestamp) -> Result<(), StoreError> {
    if *guarded == Guarded::default() {
        return Ok(());
    }
    let hour = hour_of(now);
    for (ids, find, count, move_from, move_to) in [
        (
            &guarded.changed,
            "SELECT row, changed_hour FROM record WHERE realm = ?1 AND id = ?2 AND changed_hour IS NOT ?3",
            "UPDATE record SET changed_hour = ?2 WHERE row = ?1",
            "UPDATE guard_book SET changes = changes - 1 WHERE realm = ?1 AND hour = ?2",
            "INSERT INTO guard_book (realm, hour, changes, deletes) VALUES (?1, ?2, 1, 0)
             ON CONFLICT (realm, hour) DO UPDATE SET changes = changes + 1",
        ),
        (
            &guarded.deleted,
            "SELECT row, deleted_hour FROM record WHERE realm = ?1 AND id = ?2 AND deleted_hour IS NOT ?3",
            "UPDATE record SET deleted_hour = ?2 WHERE row = ?1",
            "UPDATE guard_book SET deletes = deletes - 1 WHERE realm = ?1 AND hour = ?2",
            "INSERT INTO guard_book (realm, hour, changes, deletes) VALUES (?1, ?2, 0, 1)
             ON CONFLICT (realm, hour) DO UPDATE SET deletes = deletes + 1",
        ),
    ] {
        for id in ids {
            let mut find = connection.prepare_cached(find)?;
            let found = find.query_row(params![realm, id_bytes(*id), hour], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some::<(i64, Option<i64>)>((row, before)) = found else { continue };
            connection.prepare_cached(count)?.execute(params![row, hour])?;
            if let Some(before) = before {
                connection.prepare_cached(move_from)?.execute(params![realm, before])?;
            }
            connection.prepare_cached(move_to)?.execute(params![realm, hour])?;
        }
    }
    connection.prepare_cached("DELETE FROM guard_book WHERE realm = ?1 AND hour < ?2")?.execute(params![realm, hour - GUARD_HOURS])?;
    Ok(())
}
