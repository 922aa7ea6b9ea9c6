//! What became of records' fields: the newest changes of each record, for a while. Nothing is done where there are none.
//!
//! The table is called by what it held at first, the changes that did not win: `kept` is what the record held, `shown` what it was to be.

use super::names::Names;
use crate::rows::absorb::{ChangeRow, EXPIRED, FATES, fate};
use crate::rows::codec::{IdBytes, decode, id_bytes};
use crate::rows::lane::limit;
use crate::{FieldChange, HISTORY_FOR, HISTORY_PER_RECORD, PastChange, StoreError};
use fairlead_model::{RecordId, Timestamp};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

pub(super) fn add(
    connection: &Connection,
    (realm, participant): (i64, i64),
    changes: &[ChangeRow],
    now: Timestamp,
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    for ChangeRow { record, field, from, to, fate } in changes {
        connection
            .prepare_cached(
                "INSERT INTO past_conflict (realm, record, participant, field, kept, shown, fate, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![realm, id_bytes(*record), participant, field, from, to, fate, now.0])?;
    }
    let lists: BTreeSet<(RecordId, i16)> = changes.iter().map(|change| (change.record, change.fate)).collect();
    for (record, fate) in lists {
        cut(connection, realm, &id_bytes(record), fate)?;
    }
    expire(connection, realm, now)
}

/// The newest stay.
fn cut(connection: &Connection, realm: i64, record: &IdBytes, fate: i16) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "DELETE FROM past_conflict WHERE realm = ?1 AND record = ?2 AND fate = ?3 AND number <=
               (SELECT number FROM past_conflict WHERE realm = ?1 AND record = ?2 AND fate = ?3 ORDER BY number DESC LIMIT 1 OFFSET ?4)",
        )?
        .execute(params![realm, record, fate, limit(HISTORY_PER_RECORD)])?;
    Ok(())
}

/// Those that were kept long enough go, some at a time.
pub(super) fn expire(connection: &Connection, realm: i64, now: Timestamp) -> Result<(), StoreError> {
    let oldest = now.before(HISTORY_FOR);
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
    FATES.into_iter().try_for_each(|fate| cut(connection, realm, survivor, fate as i16))
}

/// The newest first.
pub(super) fn of_record(connection: &Connection, realm: &str, record: RecordId, since: Timestamp) -> Result<Vec<PastChange>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT participant, field, kept, shown, fate, at FROM past_conflict WHERE realm = ?1 AND record = ?2 AND at >= ?3 ORDER BY number DESC",
    )?;
    let mut rows = statement.query(params![realm, id_bytes(record), since.0])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let field: Option<String> = row.get(1)?;
        let value = |column: usize| -> Result<_, StoreError> {
            row.get::<_, Option<String>>(column)?.map(|text| decode("change", &text)).transpose()
        };
        found.push(PastChange {
            change: FieldChange {
                record,
                field: field.and_then(|field| field.parse().ok()),
                from: value(2)?,
                to: value(3)?,
                fate: fate(row.get(4)?)?,
            },
            participant: names.text(row.get(0)?)?,
            at: Timestamp(row.get(5)?),
        });
    }
    Ok(found)
}
