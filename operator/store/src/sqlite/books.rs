//! The books are written.

use crate::rows::books::{Books, GUARD_HOURS, SourceDelta, hour_of};
use crate::rows::codec::id_bytes;
use crate::{Guarded, StoreError};
use fairlead_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

/// Writes the deltas down. `realm` is the one that the record counts belong to.
pub(super) fn write(books: Books, connection: &Connection, realm: i64) -> Result<(), StoreError> {
    let mut lane = connection.prepare_cached(
        "INSERT INTO lane_book (realm, target, origin, entered, delivered, unchanged, superseded, discarded, last_delivered)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (realm, target, origin) DO UPDATE SET entered = entered + excluded.entered, delivered = delivered + excluded.delivered,
           unchanged = unchanged + excluded.unchanged, superseded = superseded + excluded.superseded, discarded = discarded + excluded.discarded,
           last_delivered = coalesce(max(last_delivered, excluded.last_delivered), last_delivered, excluded.last_delivered)",
    )?;
    for ((realm, target, origin), delta) in books.lanes {
        lane.execute(params![
            realm,
            target,
            origin,
            delta.entered,
            delta.delivered,
            delta.unchanged,
            delta.superseded,
            delta.discarded,
            delta.delivered_at
        ])?;
    }
    let mut filtered = connection.prepare_cached(
        "INSERT INTO filtered_book (realm, target, origin, reason, count) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (realm, target, origin, reason) DO UPDATE SET count = count + excluded.count",
    )?;
    for (((realm, target, origin), reason), count) in books.filtered {
        filtered.execute(params![realm, target, origin, reason, count])?;
    }
    if books.live != 0 || books.matched != 0 || books.delivered_at.is_some() {
        connection
            .prepare_cached(
                "INSERT INTO realm_book (realm, live, matched, last_delivered) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (realm) DO UPDATE SET live = live + excluded.live, matched = matched + excluded.matched,
                   last_delivered = coalesce(max(last_delivered, excluded.last_delivered), last_delivered, excluded.last_delivered)",
            )?
            .execute(params![realm, books.live, books.matched, books.delivered_at])?;
    }
    Ok(())
}

pub(super) fn write_source(connection: &Connection, realm: i64, participant: i64, delta: &SourceDelta) -> Result<(), StoreError> {
    let read = delta.changed + delta.unchanged + delta.dead_lettered;
    if read + delta.conflicts == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO source_book (realm, participant, read, changed, unchanged, dead_lettered, conflicts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (realm, participant) DO UPDATE SET read = read + excluded.read, changed = changed + excluded.changed,
               unchanged = unchanged + excluded.unchanged, dead_lettered = dead_lettered + excluded.dead_lettered,
               conflicts = conflicts + excluded.conflicts",
        )?
        .execute(params![
            realm,
            participant,
            read.cast_signed(),
            delta.changed.cast_signed(),
            delta.unchanged.cast_signed(),
            delta.dead_lettered.cast_signed(),
            delta.conflicts.cast_signed()
        ])?;
    Ok(())
}

/// Counts records for the guard. Each stands in the hour and the book of its last change only, so that every window counts it once.
pub(super) fn write_guard(connection: &Connection, (realm, book): (i64, i64), guarded: &Guarded, now: Timestamp) -> Result<(), StoreError> {
    if guarded.is_empty() {
        return Ok(());
    }
    let hour = hour_of(now);
    for (ids, find, count, move_from, move_to) in [
        (
            &guarded.changed,
            "SELECT row, ifnull(changed_book, realm), changed_hour FROM record
             WHERE realm = ?1 AND id = ?2 AND (changed_hour IS NOT ?3 OR ifnull(changed_book, realm) <> ?4)",
            "UPDATE record SET changed_hour = ?2, changed_book = ?3 WHERE row = ?1",
            "UPDATE guard_count SET changes = changes - 1 WHERE realm = ?1 AND book = ?2 AND hour = ?3",
            "INSERT INTO guard_count (realm, book, hour, changes, deletes) VALUES (?1, ?2, ?3, 1, 0)
             ON CONFLICT (realm, book, hour) DO UPDATE SET changes = changes + 1",
        ),
        (
            &guarded.deleted,
            "SELECT row, ifnull(deleted_book, realm), deleted_hour FROM record
             WHERE realm = ?1 AND id = ?2 AND (deleted_hour IS NOT ?3 OR ifnull(deleted_book, realm) <> ?4)",
            "UPDATE record SET deleted_hour = ?2, deleted_book = ?3 WHERE row = ?1",
            "UPDATE guard_count SET deletes = deletes - 1 WHERE realm = ?1 AND book = ?2 AND hour = ?3",
            "INSERT INTO guard_count (realm, book, hour, changes, deletes) VALUES (?1, ?2, ?3, 0, 1)
             ON CONFLICT (realm, book, hour) DO UPDATE SET deletes = deletes + 1",
        ),
    ] {
        for id in ids {
            let mut find = connection.prepare_cached(find)?;
            let asked = params![realm, id_bytes(*id), hour, book];
            let found = find.query_row(asked, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
            let Some::<(i64, i64, Option<i64>)>((row, from, before)) = found else { continue };
            connection.prepare_cached(count)?.execute(params![row, hour, book])?;
            if let Some(before) = before {
                connection.prepare_cached(move_from)?.execute(params![realm, from, before])?;
            }
            connection.prepare_cached(move_to)?.execute(params![realm, book, hour])?;
        }
    }
    connection.prepare_cached("DELETE FROM guard_count WHERE realm = ?1 AND hour < ?2")?.execute(params![realm, hour - GUARD_HOURS])?;
    Ok(())
}
