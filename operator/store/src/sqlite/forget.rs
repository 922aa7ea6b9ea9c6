//! The command `forget`: everything of a realm goes, except the epochs of its leases, which must never go back.

use super::leases;
use super::names::Names;
use crate::StoreError;
use crate::crash::{Command, Step, reach};
use rusqlite::{Connection, params};

pub(super) fn forget(connection: &Connection, realm: &str) -> Result<(), StoreError> {
    leases::end_all(connection, realm)?;
    reach(Command::Forget, Step::Partly);
    rows(connection, realm)?;
    reach(Command::Forget, Step::Rows);
    Ok(())
}

/// The realm's rows go.
pub(super) fn rows(connection: &Connection, realm: &str) -> Result<(), StoreError> {
    if let Some(id) = Names::new(connection).find(realm)? {
        for statement in [
            "DELETE FROM identity WHERE realm = ?1",
            "DELETE FROM index_key WHERE realm = ?1",
            "DELETE FROM lane WHERE realm = ?1",
            "DELETE FROM record WHERE realm = ?1",
            "DELETE FROM checkpoint WHERE realm = ?1",
            "DELETE FROM reread WHERE realm = ?1",
            "DELETE FROM dead_letter WHERE realm = ?1",
            "DELETE FROM lane_book WHERE realm = ?1",
            "DELETE FROM filtered_book WHERE realm = ?1",
            "DELETE FROM source_book WHERE realm = ?1",
            "DELETE FROM realm_book WHERE realm = ?1",
            "DELETE FROM guard_book WHERE realm = ?1",
            "DELETE FROM note WHERE realm = ?1",
        ] {
            connection.prepare_cached(statement)?.execute(params![id])?;
        }
    }
    Ok(())
}
