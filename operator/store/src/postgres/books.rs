//! The books are written.

use super::codec::uuids;
use super::records::by_ids;
use super::session::{Ask, ask};
use crate::Guarded;
use crate::rows::books::{Books, GUARD_HOURS, SourceDelta, hour_of};
use fairlead_model::Timestamp;

const LANES: &str =
    "INSERT INTO lane_book AS book (realm, target, origin, entered, delivered, unchanged, superseded, discarded, last_delivered)
     SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[])
     ON CONFLICT (realm, target, origin) DO UPDATE SET entered = book.entered + excluded.entered,
       delivered = book.delivered + excluded.delivered, unchanged = book.unchanged + excluded.unchanged,
       superseded = book.superseded + excluded.superseded, discarded = book.discarded + excluded.discarded,
       last_delivered = greatest(book.last_delivered, excluded.last_delivered)";

const FILTERED: &str = "INSERT INTO filtered_book AS book (realm, target, origin, reason, count)
     SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::int8[])
     ON CONFLICT (realm, target, origin, reason) DO UPDATE SET count = book.count + excluded.count";

const REALM: &str = "INSERT INTO realm_book AS book (realm, live, matched, last_delivered) VALUES ($1, $2, $3, $4)
     ON CONFLICT (realm) DO UPDATE SET live = book.live + excluded.live, matched = book.matched + excluded.matched,
       last_delivered = greatest(book.last_delivered, excluded.last_delivered)";

const SOURCE: &str = "INSERT INTO source_book AS book (realm, participant, read, changed, unchanged, dead_lettered, conflicts)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (realm, participant) DO UPDATE SET read = book.read + excluded.read, changed = book.changed + excluded.changed,
       unchanged = book.unchanged + excluded.unchanged, dead_lettered = book.dead_lettered + excluded.dead_lettered,
       conflicts = book.conflicts + excluded.conflicts";

/// Moves records to the present hour and this book, and their count with them.
const CHANGED: &str = concat!(
    "WITH old AS (SELECT r.row, r.changed_hour AS hour, coalesce(r.changed_book, r.realm) AS place FROM ",
    by_ids!("$2"),
    " WHERE r.changed_hour IS DISTINCT FROM $3::int8 OR coalesce(r.changed_book, r.realm) <> $4::int8),
       moved AS (UPDATE record SET changed_hour = $3::int8, changed_book = $4::int8 FROM old WHERE record.row = old.row),
       less AS (UPDATE guard_count AS book SET changes = book.changes - left_hour.count
         FROM (SELECT place, hour, count(*) AS count FROM old WHERE hour IS NOT NULL GROUP BY place, hour) AS left_hour
         WHERE book.realm = $1 AND book.book = left_hour.place AND book.hour = left_hour.hour)
     INSERT INTO guard_count AS book (realm, book, hour, changes, deletes)
     SELECT $1::int8, $4::int8, $3::int8, count(*), 0 FROM old HAVING count(*) > 0
     ON CONFLICT (realm, book, hour) DO UPDATE SET changes = book.changes + excluded.changes"
);

const DELETED: &str = concat!(
    "WITH old AS (SELECT r.row, r.deleted_hour AS hour, coalesce(r.deleted_book, r.realm) AS place FROM ",
    by_ids!("$2"),
    " WHERE r.deleted_hour IS DISTINCT FROM $3::int8 OR coalesce(r.deleted_book, r.realm) <> $4::int8),
       moved AS (UPDATE record SET deleted_hour = $3::int8, deleted_book = $4::int8 FROM old WHERE record.row = old.row),
       less AS (UPDATE guard_count AS book SET deletes = book.deletes - left_hour.count
         FROM (SELECT place, hour, count(*) AS count FROM old WHERE hour IS NOT NULL GROUP BY place, hour) AS left_hour
         WHERE book.realm = $1 AND book.book = left_hour.place AND book.hour = left_hour.hour)
     INSERT INTO guard_count AS book (realm, book, hour, changes, deletes)
     SELECT $1::int8, $4::int8, $3::int8, 0, count(*) FROM old HAVING count(*) > 0
     ON CONFLICT (realm, book, hour) DO UPDATE SET deletes = book.deletes + excluded.deletes"
);

const FORGET_HOURS: &str = "DELETE FROM guard_count WHERE realm = $1 AND hour < $2";

/// Writes the deltas down. `realm` is the one that the record counts belong to.
pub(super) fn write(books: Books, realm: i64) -> Vec<Ask> {
    let mut asks = Vec::new();
    if !books.lanes.is_empty() {
        let mut lanes: Vec<_> = books.lanes.into_iter().collect();
        lanes.sort_unstable_by_key(|(key, _)| *key);
        asks.push(ask!(
            LANES,
            lanes.iter().map(|(key, _)| key.0).collect::<Vec<_>>(),
            lanes.iter().map(|(key, _)| key.1).collect::<Vec<_>>(),
            lanes.iter().map(|(key, _)| key.2).collect::<Vec<_>>(),
            lanes.iter().map(|(_, delta)| delta.entered).collect::<Vec<_>>(),
            lanes.iter().map(|(_, delta)| delta.delivered).collect::<Vec<_>>(),
            lanes.iter().map(|(_, delta)| delta.unchanged).collect::<Vec<_>>(),
            lanes.iter().map(|(_, delta)| delta.superseded).collect::<Vec<_>>(),
            lanes.iter().map(|(_, delta)| delta.discarded).collect::<Vec<_>>(),
            lanes.iter().map(|(_, delta)| delta.delivered_at).collect::<Vec<_>>(),
        ));
    }
    if !books.filtered.is_empty() {
        let mut filtered: Vec<_> = books.filtered.into_iter().collect();
        filtered.sort_unstable();
        asks.push(ask!(
            FILTERED,
            filtered.iter().map(|((key, _), _)| key.0).collect::<Vec<_>>(),
            filtered.iter().map(|((key, _), _)| key.1).collect::<Vec<_>>(),
            filtered.iter().map(|((key, _), _)| key.2).collect::<Vec<_>>(),
            filtered.iter().map(|((_, reason), _)| reason.clone()).collect::<Vec<_>>(),
            filtered.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
        ));
    }
    if books.live != 0 || books.matched != 0 || books.delivered_at.is_some() {
        asks.push(ask!(REALM, realm, books.live, books.matched, books.delivered_at));
    }
    asks
}

pub(super) fn write_source(realm: i64, participant: i64, delta: &SourceDelta) -> Option<Ask> {
    let read = delta.changed + delta.unchanged + delta.dead_lettered;
    (read + delta.conflicts > 0).then(|| {
        ask!(
            SOURCE,
            realm,
            participant,
            read.cast_signed(),
            delta.changed.cast_signed(),
            delta.unchanged.cast_signed(),
            delta.dead_lettered.cast_signed(),
            delta.conflicts.cast_signed()
        )
    })
}

/// Counts records for the guard. Each stands in the hour and the book of its last change only, so that every window counts it once.
pub(super) fn write_guard((realm, book): (i64, i64), guarded: &Guarded, now: Timestamp) -> Vec<Ask> {
    let hour = hour_of(now);
    let mut asks = Vec::new();
    for (sql, ids) in [(CHANGED, &guarded.changed), (DELETED, &guarded.deleted)] {
        if !ids.is_empty() {
            asks.push(ask!(sql, realm, uuids(ids), hour, book));
        }
    }
    if !asks.is_empty() {
        asks.push(ask!(FORGET_HOURS, realm, hour - GUARD_HOURS));
    }
    asks
}
