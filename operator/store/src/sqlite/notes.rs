//! Small named values of a realm.

use crate::StoreError;
use rusqlite::{Connection, params};

pub(super) fn put(connection: &Connection, realm: i64, name: &str, value: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO note (realm, name, value) VALUES (?1, ?2, ?3) ON CONFLICT (realm, name) DO UPDATE SET value = excluded.value",
        )?
        .execute(params![realm, name, value])?;
    Ok(())
}

/// Whether the note was as it is `known`, and is replaced.
pub(super) fn replace(connection: &Connection, realm: i64, name: &str, known: Option<&str>, value: &str) -> Result<bool, StoreError> {
    let changed = match known {
        Some(known) => connection
            .prepare_cached("UPDATE note SET value = ?3 WHERE realm = ?1 AND name = ?2 AND value = ?4")?
            .execute(params![realm, name, value, known])?,
        None => connection
            .prepare_cached("INSERT INTO note (realm, name, value) VALUES (?1, ?2, ?3) ON CONFLICT (realm, name) DO NOTHING")?
            .execute(params![realm, name, value])?,
    };
    Ok(changed > 0)
}
