//! Conflicts of the past: the newest of each record, for a while. Nothing is done where there are none.

use super::names::Names;
use crate::rows::absorb::{Contested, EXPIRED};
use crate::rows::codec::{IdBytes, decode, id_bytes, record_id};
use crate::rows::lane::limit;
use crate::{CONFLICTS_FOR, CONFLICTS_PER_RECORD, Conflict, PastConflict, StoreError};
use fairlead_model::{RecordId, Timestamp};
use rusqlite::{Connection, params};

pub(super) fn add(
    connection: &Connection,
    realm: i64,
    participant: i64,
    conflicts: &[Contested],
    now: Timestamp,
) -> Result<(), StoreError> {
    if conflicts.is_empty() {
        return Ok(());
    }
    for Contested { record, field, shown, kept } in conflicts {
        let id = id_bytes(*record);
        connection
            .prepare_cached(
                "INSERT INTO past_conflict (realm, record, participant, field, shown, kept, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![realm, id, participant, field, shown, kept, now.0])?;
        connection
            .prepare_cached(
                "DELETE FROM past_conflict WHERE realm = ?1 AND record = ?2 AND number <=
                   (SELECT number FROM past_conflict WHERE realm = ?1 AND record = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)",
            )?
            .execute(params![realm, id, limit(CONFLICTS_PER_RECORD)])?;
    }
    expire(connection, realm, now)
}

/// Those that were kept long enough go, some at a time.
pub(super) fn expire(connection: &Connection, realm: i64, now: Timestamp) -> Result<(), StoreError> {
    let oldest = now.before(CONFLICTS_FOR);
    connection
        .prepare_cached(
            "DELETE FROM past_conflict WHERE number IN
               (SELECT number FROM past_conflict WHERE realm = ?1 AND at < ?2 ORDER BY at, number LIMIT ?3)",
        )?
        .execute(params![realm, oldest.0, limit(EXPIRED)])?;
    Ok(())
}

/// What was kept of one record is the other's.
pub(super) fn move_to(connection: &Connection, realm: i64, (loser, survivor): (&IdBytes, &IdBytes)) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE past_conflict SET record = ?3 WHERE realm = ?1 AND record = ?2")?
        .execute(params![realm, loser, survivor])?;
    Ok(())
}

/// The newest first.
pub(super) fn of_record(connection: &Connection, realm: &str, record: RecordId, since: Timestamp) -> Result<Vec<PastConflict>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT record, participant, field, shown, kept, at FROM past_conflict WHERE realm = ?1 AND record = ?2 AND at >= ?3
         ORDER BY number DESC LIMIT ?4",
    )?;
    let mut rows = statement.query(params![realm, id_bytes(record), since.0, limit(CONFLICTS_PER_RECORD)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let field: Option<String> = row.get(2)?;
        let value = |column: usize| -> Result<_, StoreError> {
            row.get::<_, Option<String>>(column)?.map(|text| decode("conflict", &text)).transpose()
        };
        found.push(PastConflict {
            conflict: Conflict {
                record: record_id(row.get(0)?),
                field: field.and_then(|field| field.parse().ok()),
                shown: value(3)?,
                kept: value(4)?,
            },
            participant: names.text(row.get(1)?)?,
            at: Timestamp(row.get(5)?),
        });
    }
    Ok(found)
}
