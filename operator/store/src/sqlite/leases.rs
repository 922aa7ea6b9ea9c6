//! Leases: who may commit for a reader or a lane, and under which epoch.

use crate::{Fence, LaneFence, LeaseRequest, StoreError};
use fairlead_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn lease(connection: &Connection, request: &LeaseRequest) -> Result<Vec<Option<Fence>>, StoreError> {
    request.keys.iter().map(|key| one(connection, request, key)).collect()
}

fn one(connection: &Connection, request: &LeaseRequest, key: &str) -> Result<Option<Fence>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT holder, epoch, until FROM lease WHERE key = ?1")?;
    let present: Option<(Option<String>, i64, i64)> =
        statement.query_row(params![key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let epoch = match present {
        None => 1,
        Some((None, epoch, _)) => epoch + 1,
        Some((Some(_), epoch, until)) if until <= request.now.0 => epoch + 1,
        Some((Some(holder), epoch, _)) if holder == request.holder => epoch,
        Some(_) => return Ok(None),
    };
    let until = request.now.plus(request.ttl);
    connection
        .prepare_cached(
            "INSERT INTO lease (key, holder, epoch, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, until = excluded.until",
        )?
        .execute(params![key, request.holder, epoch, until.0])?;
    Ok(Some(Fence { key: key.to_owned(), holder: request.holder.clone(), epoch: epoch.cast_unsigned(), until }))
}

/// Ends the lease, if it still is this one. The row stays, so that the next epoch is higher.
pub(super) fn release(connection: &Connection, fence: &Fence) -> Result<(), StoreError> {
    connection.prepare_cached("UPDATE lease SET holder = NULL WHERE key = ?1 AND holder = ?2 AND epoch = ?3")?.execute(params![
        fence.key,
        fence.holder,
        fence.epoch.cast_signed()
    ])?;
    Ok(())
}

/// Refuses a command whose lease is another's by now, was released, or is its holder's under a newer epoch. A lease that has run out
/// and that nobody has taken is still its holder's: no other can have acted meanwhile.
pub(super) fn check(connection: &Connection, fence: &Fence) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM lease WHERE key = ?1 AND holder = ?2 AND epoch = ?3")?;
    let held: Option<i64> =
        statement.query_row(params![fence.key, fence.holder, fence.epoch.cast_signed()], |row| row.get(0)).optional()?;
    held.map(|_| ()).ok_or_else(|| StoreError::Fenced { key: fence.key.clone() })
}

/// The leases of a realm: `<what>/<realm>/<part>`.
const OF_REALM: &str = "substr(key, instr(key, '/') + 1, length(?1)) = ?1";

/// A lease of a realm that somebody holds.
pub(super) fn live(connection: &Connection, realm: &str, now: Timestamp) -> Result<Option<String>, StoreError> {
    let mut statement = connection
        .prepare(&format!("SELECT key FROM lease WHERE {OF_REALM} AND holder IS NOT NULL AND until > ?2 ORDER BY key LIMIT 1"))?;
    Ok(statement.query_row(params![format!("{realm}/"), now.0], |row| row.get(0)).optional()?)
}

/// The epochs of a realm's leases.
pub(super) fn epochs(connection: &Connection, realm: &str) -> Result<Vec<(String, i64)>, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT key, epoch FROM lease WHERE {OF_REALM} ORDER BY key"))?;
    let rows = statement.query_map(params![format!("{realm}/")], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A lease that is free, and whose next epoch is higher than this one.
pub(super) fn raise(connection: &Connection, key: &str, epoch: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO lease (key, holder, epoch, until) VALUES (?1, NULL, ?2, 0)
             ON CONFLICT (key) DO UPDATE SET holder = NULL, until = 0, epoch = max(epoch, excluded.epoch)",
        )?
        .execute(params![key, epoch])?;
    Ok(())
}

/// Ends a lease, whoever holds it.
pub(super) fn end(connection: &Connection, key: &str) -> Result<(), StoreError> {
    connection.prepare_cached("UPDATE lease SET holder = NULL, until = 0 WHERE key = ?1")?.execute(params![key])?;
    Ok(())
}

/// The same for all the leases under which a lane is drained.
pub(super) fn check_lane(connection: &Connection, fence: &LaneFence) -> Result<(), StoreError> {
    fence.fences().try_for_each(|fence| check(connection, fence))
}

/// The leases that are held and have not run out.
pub(super) fn held(connection: &Connection, now: Timestamp) -> Result<Vec<Fence>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT key, holder, epoch, until FROM lease WHERE holder IS NOT NULL AND until > ?1 ORDER BY key")?;
    let fence = |row: &rusqlite::Row<'_>| {
        let epoch: i64 = row.get(2)?;
        Ok(Fence { key: row.get(0)?, holder: row.get(1)?, epoch: epoch.cast_unsigned(), until: Timestamp(row.get(3)?) })
    };
    Ok(statement.query_map(params![now.0], fence)?.collect::<Result<_, _>>()?)
}

/// Ends every lease of a realm (`<what>/<realm>/<part>`), so that nobody who still runs can bring a forgotten realm back.
pub(super) fn end_all(connection: &Connection, realm: &str) -> Result<(), StoreError> {
    let middle = format!("{realm}/");
    connection
        .prepare_cached(&format!("UPDATE lease SET holder = NULL, until = ?2 WHERE {OF_REALM}"))?
        .execute(params![middle, Timestamp::default().0])?;
    Ok(())
}
