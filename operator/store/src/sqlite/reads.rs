//! External ids that are to be read again by key.

use super::names::Names;
use crate::{Haste, StoreError};
use fairlead_model::{ExternalId, Timestamp};
use rusqlite::{Connection, params};

/// Requests of one commit.
pub(super) struct Asking<'c> {
    pub(super) connection: &'c Connection,
    pub(super) realm: i64,
    pub(super) participant: i64,
    pub(super) haste: Haste,
    pub(super) now: Timestamp,
    /// The commit's.
    pub(super) sequence: i64,
}

impl Asking<'_> {
    /// Asks for `id`. With `after` it waits until that id of the same participant stands for a record.
    pub(super) fn request(&self, id: &str, after: Option<&str>) -> Result<(), StoreError> {
        let Self { connection, realm, participant, haste, now, sequence } = self;
        connection
            .prepare_cached(
                "INSERT INTO reread (realm, participant, external_id, since, waits_for, bulk, asked)
                 VALUES (?1, ?2, ?3, ?4, CASE WHEN EXISTS (SELECT 1 FROM identity WHERE realm = ?1 AND participant = ?2 AND external_id = ?5)
                   THEN NULL ELSE ?5 END, ?6, ?7)
                 ON CONFLICT (realm, participant, external_id, ifnull(waits_for, '')) DO UPDATE
                   SET since = min(since, excluded.since), bulk = min(bulk, excluded.bulk), asked = excluded.asked",
            )?
            .execute(params![realm, participant, id, now.0, after, *haste == Haste::Bulk, sequence])?;
        Ok(())
    }
}

/// What `id` waits for is told anew.
pub(super) fn wait_no_more(connection: &Connection, (realm, participant): (i64, i64), id: &str) -> Result<(), StoreError> {
    connection.prepare_cached(WAIT_NO_MORE)?.execute(params![realm, participant, id])?;
    Ok(())
}

/// The plus keeps SQLite from going by everything that waits.
pub(super) const WAIT_NO_MORE: &str =
    "DELETE FROM reread WHERE realm = ?1 AND participant = ?2 AND external_id = ?3 AND +waits_for IS NOT NULL";

/// A read of `id` was absorbed that began when the store stood at `began`.
pub(super) fn done(connection: &Connection, (realm, participant): (i64, i64), id: &str, began: u64) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM reread WHERE realm = ?1 AND participant = ?2 AND external_id = ?3 AND asked <= ?4")?
        .execute(params![realm, participant, id, began.cast_signed()])?;
    Ok(())
}

/// Whether any read waits for another id; the usual answer spares a look-up per newly named record.
pub(super) fn any_waiting(connection: &Connection, realm: i64, participant: i64) -> Result<bool, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM reread WHERE realm = ?1 AND participant = ?2 AND waits_for IS NOT NULL)")?;
    Ok(statement.query_row(params![realm, participant], |row| row.get(0))?)
}

/// `id` stands for a record now: what waited for it is due.
pub(super) fn free(connection: &Connection, realm: i64, participant: i64, id: &str) -> Result<(), StoreError> {
    let due = connection
        .prepare_cached(
            "INSERT INTO reread (realm, participant, external_id, since, waits_for, bulk, asked)
             SELECT realm, participant, external_id, since, NULL, bulk, asked FROM reread WHERE realm = ?1 AND participant = ?2 AND waits_for = ?3
             ON CONFLICT (realm, participant, external_id, ifnull(waits_for, '')) DO UPDATE
               SET since = min(since, excluded.since), bulk = min(bulk, excluded.bulk), asked = max(asked, excluded.asked)",
        )?
        .execute(params![realm, participant, id])?;
    if due > 0 {
        connection.prepare_cached("DELETE FROM reread WHERE realm = ?1 AND participant = ?2 AND waits_for = ?3")?.execute(params![
            realm,
            participant,
            id
        ])?;
    }
    Ok(())
}

pub(super) fn request_all(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
    (haste, now, sequence): (Haste, Timestamp, i64),
) -> Result<(), StoreError> {
    let names = Names::new(connection);
    let (realm, participant) = (names.intern(realm)?, names.intern(participant)?);
    let asking = Asking { connection, realm, participant, haste, now, sequence };
    ids.iter().try_for_each(|id| asking.request(id.as_str(), None))
}
