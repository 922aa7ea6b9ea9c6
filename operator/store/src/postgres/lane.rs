//! Rows of lanes: how places are loaded and stored, and what is changed for many places at once.

use super::codec::{get, uuid_of};
use super::error::Failure;
use super::records::by_ids;
use super::session::{Ask, ask};
use crate::LaneFence;
use crate::rows::codec::IdBytes;
use crate::rows::lane::{Entry, InFlight, Lane, Phase, Sent};
use tokio_postgres::Row;
use uuid::Uuid;

/// The columns that [`of_row`] reads, in its order, of the table `l`.
macro_rules! columns {
    () => {
        "l.record, l.target, l.held, l.due, l.attempts, l.waits_for, l.origin, l.since, l.version,
         l.c_origin, l.c_since, l.c_version, l.c_epoch, l.c_at, l.i_at, l.i_version, l.i_sent, l.bulk"
    };
}

/// All places of records of a realm.
const OF_RECORDS: &str =
    concat!("SELECT ", columns!(), " FROM ", by_ids!("$2"), " CROSS JOIN LATERAL (SELECT * FROM lane WHERE record = r.row OFFSET 0) AS l");

const DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lane l WHERE l.realm = $1 AND l.target = $2 AND l.phase = $3 AND l.bulk = $8 AND l.due <= $4 AND ($6::int8 >> (l.record % $7)::int4) & 1 = 1
     ORDER BY l.due, l.record LIMIT $5"
);

/// The places that an epoch before the one that holds them now left in flight.
const LEFT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lane l WHERE l.realm = $1 AND l.target = $2 AND l.phase = 3 AND l.c_epoch < ($3::int8[])[(l.record % $4)::int4 + 1]"
);

pub(super) fn of_records(realm: i64, ids: Vec<Uuid>) -> Ask {
    ask!(OF_RECORDS, realm, ids)
}

/// Up to `max` places of a lane, as far as it is held, in one phase and of one haste that are due by `now`, oldest first.
pub(super) fn due((realm, target): (i64, i64), fence: &LaneFence, (phase, bulk): (Phase, bool), now: i64, max: i64) -> Ask {
    ask!(DUE, realm, target, phase as i16, now, max, fence.mask(), fence.count(), bulk)
}

pub(super) fn left(realm: i64, target: i64, fence: &LaneFence) -> Ask {
    ask!(LEFT, realm, target, fence.epochs(), fence.count())
}

pub(super) fn of_row(row: &Row) -> Result<Lane, Failure> {
    let entry = |origin: usize| -> Result<Option<Entry>, Failure> {
        match get::<Option<i64>>(row, origin)? {
            None => Ok(None),
            Some(code) => Ok(Some(Entry { origin: code, since: get(row, origin + 1)?, version: get(row, origin + 2)? })),
        }
    };
    let claimed = match entry(9)? {
        None => None,
        Some(entry) => Some(InFlight { entry, epoch: get(row, 12)?, at: get(row, 13)? }),
    };
    let intent = match get::<Option<i64>>(row, 14)? {
        None => None,
        Some(at) => Some(Sent { at, version: get(row, 15)?, sent: get(row, 16)? }),
    };
    Ok(Lane {
        record: get(row, 0)?,
        target: get(row, 1)?,
        held: get(row, 2)?,
        due: get(row, 3)?,
        attempts: u32::try_from(get::<i64>(row, 4)?).unwrap_or(u32::MAX),
        waits_for: get::<Option<Uuid>>(row, 5)?.map(Uuid::into_bytes),
        pending: entry(6)?,
        claimed,
        intent,
        bulk: get(row, 17)?,
    })
}

// ---- storing ----------------------------------------------------------------------------------------------------------------------------

const DELETE: &str = "DELETE FROM lane USING unnest($1::int8[], $2::int8[]) AS n(record, target)
     WHERE lane.record = n.record AND lane.target = n.target";

/// The columns that are stored, in the order of the parameters of [`stored`].
macro_rules! new_rows {
    () => {
        "unnest($2::int8[], $3::int8[], $4::int2[], $5::bool[], $6::int8[], $7::int8[], $8::uuid[], $9::int8[], $10::int8[], $11::int8[],
           $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[], $17::int8[], $18::int8[], $19::text[],
           $20::bool[])
         AS n(record, target, phase, held, due, attempts, waits_for, origin, since, version, c_origin, c_since, c_version, c_epoch, c_at,
           i_at, i_version, i_sent, bulk)"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO lane (realm, record, target, phase, held, due, attempts, waits_for, origin, since, version, c_origin, c_since, c_version,
       c_epoch, c_at, i_at, i_version, i_sent, bulk) SELECT $1::int8, n.* FROM ",
    new_rows!()
);

const UPDATE: &str = concat!(
    "UPDATE lane SET phase = n.phase, held = n.held, due = n.due, attempts = n.attempts, waits_for = n.waits_for, origin = n.origin,
       since = n.since, version = n.version, c_origin = n.c_origin, c_since = n.c_since, c_version = n.c_version, c_epoch = n.c_epoch,
       c_at = n.c_at, i_at = n.i_at, i_version = n.i_version, i_sent = n.i_sent,
       bulk = n.bulk FROM ",
    new_rows!(),
    " WHERE lane.realm = $1 AND lane.record = n.record AND lane.target = n.target"
);

/// Stores places that were loaded (`true`) or are new; those in which nothing is left are removed.
pub(super) fn store<'l>(realm: i64, places: impl IntoIterator<Item = (&'l Lane, bool)>) -> Vec<Ask> {
    let (mut emptied, mut added, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for (lane, loaded) in places {
        match (lane.is_empty(), loaded) {
            (true, true) => emptied.push(lane),
            (true, false) => {}
            (false, true) => changed.push(lane),
            (false, false) => added.push(lane),
        }
    }
    let mut asks = Vec::new();
    if !emptied.is_empty() {
        let (records, targets): (Vec<i64>, Vec<i64>) = emptied.iter().map(|lane| (lane.record, lane.target)).unzip();
        asks.push(ask!(DELETE, records, targets));
    }
    if !changed.is_empty() {
        asks.push(stored(UPDATE, realm, &changed));
    }
    if !added.is_empty() {
        asks.push(stored(INSERT, realm, &added));
    }
    asks
}

fn stored(sql: &'static str, realm: i64, lanes: &[&Lane]) -> Ask {
    fn column<T>(lanes: &[&Lane], of: impl Fn(&Lane) -> T) -> Vec<T> {
        lanes.iter().map(|lane| of(lane)).collect()
    }
    let pending = |of: fn(&Entry) -> i64| column(lanes, |lane| lane.pending.as_ref().map(of));
    let claimed = |of: fn(&InFlight) -> i64| column(lanes, |lane| lane.claimed.as_ref().map(of));
    ask!(
        sql,
        realm,
        column(lanes, |lane| lane.record),
        column(lanes, |lane| lane.target),
        column(lanes, |lane| lane.phase() as i16),
        column(lanes, |lane| lane.held),
        column(lanes, |lane| lane.due),
        column(lanes, |lane| i64::from(lane.attempts)),
        column(lanes, |lane| lane.waits_for.map(uuid_of)),
        pending(|entry| entry.origin),
        pending(|entry| entry.since),
        pending(|entry| entry.version),
        claimed(|flight| flight.entry.origin),
        claimed(|flight| flight.entry.since),
        claimed(|flight| flight.entry.version),
        claimed(|flight| flight.epoch),
        claimed(|flight| flight.at),
        column(lanes, |lane| lane.intent.as_ref().map(|intent| intent.at)),
        column(lanes, |lane| lane.intent.as_ref().map(|intent| intent.version)),
        column(lanes, |lane| lane.intent.as_ref().map(|intent| intent.sent.clone())),
        column(lanes, |lane| lane.bulk),
    )
}

// ---- waiting ----------------------------------------------------------------------------------------------------------------------------

const FREE: &str = "UPDATE lane SET waits_for = NULL, due = least(since, $4), phase = (held OR i_at IS NOT NULL)::int::int2
     WHERE realm = $1 AND target = $2 AND waits_for = ANY($3::uuid[]) AND waits_for IS NOT NULL";

const FREE_EVERYWHERE: &str = "UPDATE lane SET waits_for = NULL, due = least(since, $3), phase = (held OR i_at IS NOT NULL)::int::int2
     WHERE realm = $1 AND waits_for = ANY($2::uuid[]) AND waits_for IS NOT NULL";

/// The target has ids for these records now, or never will: what waited for them is due at once.
pub(super) fn free(realm: i64, target: i64, ids: &[IdBytes], now: i64) -> Ask {
    ask!(FREE, realm, target, ids.iter().copied().map(uuid_of).collect::<Vec<_>>(), now)
}

/// These records are dead: no target will ever get them, and what waits for them is to be judged again.
pub(super) fn free_from_dead(realm: i64, ids: &[IdBytes], now: i64) -> Ask {
    ask!(FREE_EVERYWHERE, realm, ids.iter().copied().map(uuid_of).collect::<Vec<_>>(), now)
}

const WAIT_FOR_SURVIVOR: &str = "UPDATE lane SET waits_for = $3 WHERE realm = $1 AND waits_for = $2";

const FREE_WHERE_HELD: &str = "UPDATE lane SET waits_for = NULL, due = least(since, $4), phase = (held OR i_at IS NOT NULL)::int::int2
     WHERE realm = $1 AND waits_for = $2
       AND EXISTS (SELECT 1 FROM identity WHERE identity.record = $3 AND identity.participant = lane.target)";

/// The record `loser` was folded into `survivor`: what waited for it waits for that one, and is due where the target holds that one.
pub(super) fn free_all_waiting(realm: i64, (loser, survivor): (IdBytes, IdBytes), survivor_row: i64, now: i64) -> [Ask; 2] {
    [ask!(WAIT_FOR_SURVIVOR, realm, uuid_of(loser), uuid_of(survivor)), ask!(FREE_WHERE_HELD, realm, uuid_of(survivor), survivor_row, now)]
}

/// A place that waited is due at once.
pub(super) fn set_free(lane: &mut Lane, now: i64) {
    lane.waits_for = None;
    lane.due = lane.pending.map_or(now, |entry| entry.since.min(now));
}
