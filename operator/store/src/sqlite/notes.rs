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
