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

/// The records that nobody holds any more, and that nobody is being told of.
macro_rules! of_nobody {
    () => {
        "(SELECT row FROM record WHERE realm = ?1 AND merged_into IS NULL
            AND NOT EXISTS (SELECT 1 FROM identity WHERE identity.record = record.row)
            AND NOT EXISTS (SELECT 1 FROM record AS loser WHERE loser.merged_into = record.row)
            AND NOT EXISTS (SELECT 1 FROM lane WHERE lane.record = record.row AND (c_origin IS NOT NULL OR i_at IS NOT NULL)))"
    };
}

/// The ids of these records.
macro_rules! ids_of_nobody {
    () => {
        concat!("(SELECT id FROM record WHERE row IN ", of_nobody!(), ")")
    };
}

/// Whoever could say what becomes of such a record is gone: so is the record. What others were still to be told of it is over.
const BURY: [&str; 7] = [
    concat!(
        "UPDATE lane_book SET superseded = superseded + (SELECT count(*) FROM lane WHERE lane.realm = ?1 AND lane.target = lane_book.target
           AND lane.origin = lane_book.origin AND lane.record IN ",
        of_nobody!(),
        ") WHERE realm = ?1"
    ),
    concat!(
        "UPDATE lane_book SET discarded = discarded + (SELECT count(*) FROM dead_letter WHERE dead_letter.realm = ?1
           AND dead_letter.target = lane_book.target AND dead_letter.origin = lane_book.origin AND closed_at IS NULL AND dead_letter.record IN ",
        ids_of_nobody!(),
        ") WHERE realm = ?1"
    ),
    concat!("DELETE FROM dead_letter WHERE realm = ?1 AND record IN ", ids_of_nobody!()),
    concat!("DELETE FROM past_conflict WHERE realm = ?1 AND record IN ", ids_of_nobody!()),
    concat!("DELETE FROM index_key WHERE realm = ?1 AND record IN ", of_nobody!()),
    concat!("DELETE FROM lane WHERE realm = ?1 AND record IN ", of_nobody!()),
    concat!("DELETE FROM record WHERE realm = ?1 AND row IN ", of_nobody!()),
];

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
    for statement in BURY {
        connection.prepare_cached(statement)?.execute(params![id])?;
    }
    connection
        .prepare_cached(
            "UPDATE realm_book SET live = (SELECT count(*) FROM record WHERE realm = ?1 AND deleted_at IS NULL), matched = (SELECT count(*) FROM record WHERE realm = ?1 AND deleted_at IS NULL
               AND (SELECT count(*) FROM identity WHERE identity.record = record.row) > 1) WHERE realm = ?1",
        )?
        .execute(params![id])?;
    reach(Command::Forget, Step::Rows);
    let mut held = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM identity WHERE realm = ?1)")?;
    Ok(held.query_row(params![id], |row| row.get(0))?)
}
