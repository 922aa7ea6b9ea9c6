//! Where reading stands.

use super::names::Names;
use super::{leases, notes};
use crate::crash::{Command, Step, reach};
use crate::rows::codec::{decode, encode};
use crate::{Checkpoint, SetCheckpoint, Standing, StoreError};
use fairlead_model::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn put(
    connection: &Connection,
    (realm, participant): (i64, i64),
    (slice, cursor, complete): (&str, &str, bool),
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO checkpoint (realm, participant, slice, cursor, complete, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (realm, participant, slice) DO UPDATE SET cursor = excluded.cursor, complete = excluded.complete, at = excluded.at",
        )?
        .execute(params![realm, participant, slice, cursor, complete, now.0])?;
    Ok(())
}

pub(super) fn find(connection: &Connection, realm: i64, participant: i64, slice: &str) -> Result<Option<Checkpoint>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT cursor, complete FROM checkpoint WHERE realm = ?1 AND participant = ?2 AND slice = ?3")?;
    let found: Option<(String, bool)> =
        statement.query_row(params![realm, participant, slice], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    found.map(|(cursor, complete)| Ok(Checkpoint { slice: slice.to_owned(), cursor: decode("cursor", &cursor)?, complete })).transpose()
}

pub(super) fn all(connection: &Connection, realm: &str) -> Result<Vec<Standing>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached("SELECT participant, slice, cursor, complete, at FROM checkpoint WHERE realm = ?1")?;
    let mut rows = statement.query(params![realm])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let cursor = decode("cursor", &row.get::<_, String>(2)?)?;
        found.push(Standing {
            participant: names.text(row.get(0)?)?,
            checkpoint: Checkpoint { slice: row.get(1)?, cursor, complete: row.get(3)? },
            at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        });
    }
    found.sort_by(|one, other| (&one.participant, &one.checkpoint.slice).cmp(&(&other.participant, &other.checkpoint.slice)));
    Ok(found)
}

pub(super) fn set(connection: &Connection, set: &SetCheckpoint) -> Result<(), StoreError> {
    let names = Names::new(connection);
    let (realm, participant) = (names.intern(&set.realm)?, names.intern(&set.participant)?);
    if find(connection, realm, participant, &set.before.slice)?.as_ref() != Some(&set.before) {
        return Err(StoreError::Conflict(Vec::new()));
    }
    leases::end(connection, &set.lease)?;
    put(connection, (realm, participant), (&set.before.slice, &encode(&set.cursor)?, set.before.complete), set.now)?;
    notes::put(connection, realm, &set.note.0, &encode(&set.note.1)?)?;
    reach(Command::SetCheckpoint, Step::Rows);
    Ok(())
}
