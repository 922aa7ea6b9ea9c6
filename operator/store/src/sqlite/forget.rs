//! The commands `forget` and `forget_participants`: everything of a realm, or of some of its participants, goes, except the epochs of their
//! leases, which must never go back.

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
            "DELETE FROM guard_count WHERE realm = ?1",
            "DELETE FROM past_conflict WHERE realm = ?1",
            "DELETE FROM note WHERE realm = ?1",
        ] {
            connection.prepare_cached(statement)?.execute(params![id])?;
        }
    }
    Ok(())
}

/// What is known of the participants whose names begin with `?2`. They are few, and so are the names. A note about one, or of an Integration's
/// own, names it behind one word.
macro_rules! of_participants {
    ($table:literal, $column:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE realm = ?1 AND ",
            $column,
            " IN (SELECT id FROM name WHERE substr(text, 1, length(?2)) = ?2)"
        )
    };
}

pub(super) fn forget_participants(connection: &Connection, realm: &str, prefix: &str) -> Result<bool, StoreError> {
    leases::end_all(connection, &format!("{realm}/{}", prefix.trim_end_matches('/')))?;
    reach(Command::Forget, Step::Partly);
    let Some(id) = Names::new(connection).find(realm)? else { return Ok(false) };
    for statement in [
        of_participants!("identity", "participant"),
        of_participants!("lane", "target"),
        of_participants!("checkpoint", "participant"),
        of_participants!("reread", "participant"),
        "DELETE FROM note WHERE realm = ?1 AND name IN (SELECT 'edited/' || id FROM dead_letter WHERE realm = ?1
           AND participant IN (SELECT id FROM name WHERE substr(text, 1, length(?2)) = ?2))",
        of_participants!("dead_letter", "participant"),
        of_participants!("lane_book", "target"),
        of_participants!("filtered_book", "target"),
        of_participants!("source_book", "participant"),
        of_participants!("past_conflict", "participant"),
        "DELETE FROM guard_count WHERE realm = ?1 AND book IN (SELECT id FROM name WHERE text || '/' = ?2)",
        "DELETE FROM note WHERE realm = ?1 AND substr(name, instr(name, '/') + 1, length(?2)) = ?2",
    ] {
        connection.prepare_cached(statement)?.execute(params![id, prefix])?;
    }
    connection
        .prepare_cached(
            "UPDATE realm_book SET matched = (SELECT count(*) FROM record WHERE realm = ?1 AND deleted_at IS NULL
               AND (SELECT count(*) FROM identity WHERE identity.record = record.row) > 1) WHERE realm = ?1",
        )?
        .execute(params![id])?;
    reach(Command::Forget, Step::Rows);
    let mut held = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM identity WHERE realm = ?1)")?;
    Ok(held.query_row(params![id], |row| row.get(0))?)
}
