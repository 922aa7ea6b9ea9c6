//! Writes of API callers by their key: begun, answered, remembered for a while.

use crate::crash::{Command, Step, reach};
use crate::{BeginWrite, StoreError, WriteBegun};
use rusqlite::{Connection, OptionalExtension, params};

/// So many writes are remembered; beyond, the oldest are forgotten before their time.
const MOST: i64 = 1_000_000;
/// So many expired ones go with each new one: more than come, so that the table shrinks to what is needed.
const SWEEP: i64 = 16;

pub(super) fn begin(connection: &Connection, begin: &BeginWrite) -> Result<WriteBegun, StoreError> {
    let now = begin.now.0;
    connection
        .prepare_cached("DELETE FROM api_write WHERE number IN (SELECT number FROM api_write WHERE expires <= ?1 LIMIT ?2)")?
        .execute(params![now, SWEEP])?;
    let known = connection
        .prepare_cached("SELECT number, fingerprint, held_until, answer FROM api_write WHERE scope = ?1 AND expires > ?2")?
        .query_row(params![begin.scope, now], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, Option<String>>(3)?))
        })
        .optional()?;
    let (held_until, expires) = (begin.now.plus(begin.held).0, begin.now.plus(begin.keep).0);
    let begun = match known {
        Some((_, fingerprint, _, _)) if fingerprint != begin.fingerprint => WriteBegun::Mismatch,
        Some((_, _, _, Some(answer))) => WriteBegun::Done(answer),
        Some((_, _, held_until, None)) if held_until > now => WriteBegun::Running,
        Some((number, ..)) => {
            connection
                .prepare_cached("UPDATE api_write SET held_until = ?2, expires = ?3 WHERE number = ?1")?
                .execute(params![number, held_until, expires])?;
            WriteBegun::Fresh
        }
        None => {
            // One that has expired and was not swept yet makes room.
            connection.prepare_cached("DELETE FROM api_write WHERE scope = ?1")?.execute(params![begin.scope])?;
            connection
                .prepare_cached("INSERT INTO api_write (scope, fingerprint, held_until, expires) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![begin.scope, begin.fingerprint, held_until, expires])?;
            let number = connection.last_insert_rowid();
            connection.prepare_cached("DELETE FROM api_write WHERE number <= ?1")?.execute(params![number - MOST])?;
            WriteBegun::Fresh
        }
    };
    reach(Command::BeginWrite, Step::Rows);
    Ok(begun)
}

pub(super) fn finish(connection: &Connection, scope: &str, answer: &str) -> Result<(), StoreError> {
    connection.prepare_cached("UPDATE api_write SET answer = ?2 WHERE scope = ?1")?.execute(params![scope, answer])?;
    reach(Command::FinishWrite, Step::Rows);
    Ok(())
}

pub(super) fn abandon(connection: &Connection, scope: &str) -> Result<(), StoreError> {
    // The fingerprint stays: whatever became of this write, another one under its key is not it.
    connection.prepare_cached("UPDATE api_write SET held_until = 0 WHERE scope = ?1 AND answer IS NULL")?.execute(params![scope])?;
    reach(Command::AbandonWrite, Step::Rows);
    Ok(())
}
