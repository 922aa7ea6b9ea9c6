//! Rows of lanes: how a place is loaded and stored, and what is changed for many places at once.

use crate::rows::codec::IdBytes;
use crate::rows::lane::{Entry, InFlight, Lane, Phase, Sent, limit};
use crate::{LaneFence, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The columns that [`Lane::from_row`] reads, in its order.
macro_rules! columns {
    () => {
        "record, held, due, attempts, waits_for, origin, since, version, c_origin, c_since, c_version, c_epoch, c_at, i_at, i_version, i_sent, target, bulk"
    };
}

const DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lane WHERE realm = ?1 AND target = ?2 AND phase = ?3 AND bulk = ?8 AND due <= ?4 AND (?6 >> (record % ?7)) & 1
     ORDER BY due, record LIMIT ?5"
);

impl Lane {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let entry = |origin: usize, since: usize, version: usize| -> rusqlite::Result<Option<Entry>> {
            match row.get::<_, Option<i64>>(origin)? {
                None => Ok(None),
                Some(origin) => Ok(Some(Entry { origin, since: row.get(since)?, version: row.get(version)? })),
            }
        };
        let claimed = match entry(8, 9, 10)? {
            None => None,
            Some(entry) => Some(InFlight { entry, epoch: row.get(11)?, at: row.get(12)? }),
        };
        let intent = match row.get::<_, Option<i64>>(13)? {
            None => None,
            Some(at) => Some(Sent { at, version: row.get(14)?, sent: row.get(15)? }),
        };
        Ok(Self {
            record: row.get(0)?,
            target: row.get(16)?,
            bulk: row.get(17)?,
            held: row.get(1)?,
            due: row.get(2)?,
            attempts: row.get(3)?,
            waits_for: row.get(4)?,
            pending: entry(5, 6, 7)?,
            claimed,
            intent,
        })
    }

    /// The place of `record` in the lane of `target`.
    pub(super) fn load(connection: &Connection, record: i64, target: i64) -> Result<Option<Self>, StoreError> {
        let mut statement = connection.prepare_cached(concat!("SELECT ", columns!(), " FROM lane WHERE record = ?1 AND target = ?2"))?;
        Ok(statement.query_row(params![record, target], Self::from_row).optional()?)
    }

    /// The places of `record` in all lanes.
    pub(super) fn all_of(connection: &Connection, record: i64) -> Result<Vec<Self>, StoreError> {
        let mut statement = connection.prepare_cached(concat!("SELECT ", columns!(), " FROM lane WHERE record = ?1"))?;
        let rows = statement.query_map(params![record], Self::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Up to `max` places of a lane, as far as it is held, in one phase and of one haste that are due by `now`, oldest first.
    pub(super) fn due(
        connection: &Connection,
        (realm, target): (i64, i64),
        fence: &LaneFence,
        (phase, bulk): (Phase, bool),
        now: i64,
        max: usize,
    ) -> Result<Vec<Self>, StoreError> {
        let mut statement = connection.prepare_cached(DUE)?;
        let (mask, count) = (fence.mask(), fence.count());
        let rows = statement.query_map(params![realm, target, phase as i64, now, limit(max), mask, count, bulk], Self::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The places that an epoch before the one that holds them now left in flight.
    pub(super) fn left(connection: &Connection, (realm, target): (i64, i64), fence: &LaneFence) -> Result<Vec<Self>, StoreError> {
        let newest = fence.epochs().into_iter().max().unwrap_or_default();
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM lane WHERE realm = ?1 AND target = ?2 AND phase = 3 AND c_epoch < ?3"
        ))?;
        let rows = statement.query_map(params![realm, target, newest], Self::from_row)?;
        let earlier = |lane: &Self| lane.claimed.is_some_and(|flight| fence.epoch(lane.record).is_some_and(|epoch| flight.epoch < epoch));
        Ok(rows.filter(|lane| lane.as_ref().map_or(true, earlier)).collect::<Result<_, _>>()?)
    }

    /// Stores the place, or removes it when nothing is left in it.
    pub(super) fn store(&self, connection: &Connection, realm: i64) -> Result<(), StoreError> {
        if self.is_empty() {
            connection.prepare_cached("DELETE FROM lane WHERE record = ?1 AND target = ?2")?.execute(params![self.record, self.target])?;
            return Ok(());
        }
        let (pending, claimed) = (self.pending.as_ref(), self.claimed.as_ref());
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO lane (record, target, realm, phase, due, held, attempts, waits_for, origin, since, version,
                   c_origin, c_since, c_version, c_epoch, c_at, i_at, i_version, i_sent, bulk)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
            )?
            .execute(params![
                self.record,
                self.target,
                realm,
                self.phase() as i64,
                self.due,
                self.held,
                self.attempts,
                self.waits_for,
                pending.map(|entry| entry.origin),
                pending.map(|entry| entry.since),
                pending.map(|entry| entry.version),
                claimed.map(|flight| flight.entry.origin),
                claimed.map(|flight| flight.entry.since),
                claimed.map(|flight| flight.entry.version),
                claimed.map(|flight| flight.epoch),
                claimed.map(|flight| flight.at),
                self.intent.as_ref().map(|intent| intent.at),
                self.intent.as_ref().map(|intent| intent.version),
                self.intent.as_ref().map(|intent| intent.sent.as_str()),
                self.bulk,
            ])?;
        Ok(())
    }
}

/// The target holds the record now, so writing it creates nothing.
pub(super) fn mark_held(connection: &Connection, record: i64, target: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE lane SET held = 1, phase = max(phase, 1) WHERE record = ?1 AND target = ?2")?
        .execute(params![record, target])?;
    Ok(())
}

/// The target does not hold the record any more: there is something to create.
pub(super) fn mark_left(connection: &Connection, record: i64, target: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET held = 0, phase = CASE WHEN phase = 1 AND i_at IS NULL THEN 0 ELSE phase END WHERE record = ?1 AND target = ?2",
        )?
        .execute(params![record, target])?;
    Ok(())
}

/// The record died or came to life again: in a target without an id for it there is something to create, or not.
pub(super) fn mark_life(connection: &Connection, record: i64, lives: bool) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET held = NOT ?2 OR EXISTS (SELECT 1 FROM identity WHERE identity.record = lane.record AND participant = target)
             WHERE record = ?1",
        )?
        .execute(params![record, lives])?;
    connection
        .prepare_cached("UPDATE lane SET phase = (held OR i_at IS NOT NULL) WHERE record = ?1 AND phase < 2")?
        .execute(params![record])?;
    Ok(())
}

/// Whether anything in a lane waits for another record; the usual answer spares a look-up per newly named record.
pub(super) fn any_waiting(connection: &Connection, realm: i64, target: i64) -> Result<bool, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM lane WHERE realm = ?1 AND target = ?2 AND waits_for IS NOT NULL)")?;
    Ok(statement.query_row(params![realm, target], |row| row.get(0))?)
}

/// The target has an id for `id` now: what waited for it is due at once.
pub(super) fn free_waiting(connection: &Connection, realm: i64, target: i64, id: &IdBytes, now: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET waits_for = NULL, due = min(since, ?4), phase = (held OR i_at IS NOT NULL)
             WHERE realm = ?1 AND target = ?2 AND waits_for = ?3",
        )?
        .execute(params![realm, target, id, now])?;
    Ok(())
}

/// The record `id` is dead: no target will ever get it, and what waits for it is to be judged again.
pub(super) fn free_from_dead(connection: &Connection, realm: i64, id: &IdBytes, now: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET waits_for = NULL, due = min(since, ?3), phase = (held OR i_at IS NOT NULL) WHERE realm = ?1 AND waits_for = ?2",
        )?
        .execute(params![realm, id, now])?;
    Ok(())
}

/// The record `loser` was folded into `survivor`: what waited for it waits for that one, and is due where the target holds that one.
pub(super) fn free_all_waiting(
    connection: &Connection,
    realm: i64,
    (loser, survivor): (&IdBytes, &IdBytes),
    survivor_row: i64,
    now: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE lane SET waits_for = ?3 WHERE realm = ?1 AND waits_for = ?2")?
        .execute(params![realm, loser, survivor])?;
    connection
        .prepare_cached(
            "UPDATE lane SET waits_for = NULL, due = min(since, ?4), phase = (held OR i_at IS NOT NULL)
             WHERE realm = ?1 AND waits_for = ?2 AND EXISTS (SELECT 1 FROM identity WHERE identity.record = ?3 AND participant = target)",
        )?
        .execute(params![realm, survivor, survivor_row, now])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use rusqlite::{Connection, types::Value};

    fn plan(connection: &Connection, sql: &str) -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let values = vec![Value::Integer(1); statement.parameter_count()];
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    /// However many keys wait.
    #[test]
    fn a_claim_and_a_turn_of_readings_walk_an_index_in_its_order() {
        let connection = schema::open_writer(None).unwrap();
        let claim = plan(&connection, super::DUE);
        assert!(claim.contains("USING INDEX lane_order (realm=? AND target=? AND phase=? AND bulk=? AND due<?)"), "{claim}");
        let reads = "SELECT external_id FROM reread WHERE realm = ?1 AND participant = ?2 AND waits_for IS NULL";
        for order in ["AND bulk = ?4 ORDER BY since, external_id LIMIT ?3", "ORDER BY bulk, since, external_id LIMIT ?3"] {
            let reads = plan(&connection, &format!("{reads} {order}"));
            assert!(reads.contains("reread_order (realm=? AND participant=?"), "{reads}");
            assert!(!claim.contains("TEMP B-TREE") && !reads.contains("TEMP B-TREE"), "{claim}; {reads}");
        }
        let no_more = plan(&connection, super::super::reads::WAIT_NO_MORE);
        assert!(no_more.contains("USING INDEX reread_of (realm=? AND participant=? AND external_id=?)"), "{no_more}");
        let creating = plan(&connection, super::super::query::CREATING);
        assert!(creating.contains("USING INDEX lane_order (realm=? AND target=? AND phase=?)"), "{creating}");
    }
}
