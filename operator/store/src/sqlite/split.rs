//! The command `split`: some of what holds a record leaves it for a new one.

use super::absorb::enter;
use super::books;
use super::lane::mark_left;
use super::merge::{refuse_open_writes, set_state};
use super::names::Names;
use super::records::{self, Stored};
use super::{leases, notes, reads};
use crate::crash::{Command, Step, reach};
use crate::rows::books::Books;
use crate::rows::codec::{decode, encode, id_bytes};
use crate::rows::packed::{encode_provenance, encode_state};
use crate::{Haste, Identity, Split, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

pub(super) fn split(connection: &Connection, command: &Split, sequence: i64) -> Result<(), StoreError> {
    let names = Names::new(connection);
    let realm = names.intern(&command.realm)?;
    let conflict = || StoreError::Conflict(vec![command.id]);
    let stored = records::find(connection, realm, &id_bytes(command.id))?
        .filter(|stored| stored.version + 1 == command.version.cast_signed() && stored.lives && stored.merged_into.is_none())
        .ok_or_else(conflict)?;
    for (name, before, _) in &command.notes {
        let mut statement = connection.prepare_cached("SELECT value FROM note WHERE realm = ?1 AND name = ?2")?;
        let text: Option<String> = statement.query_row(params![realm, name], |row| row.get(0)).optional()?;
        if text.map(|text| decode::<Value>("note", &text)).transpose()? != *before {
            return Err(StoreError::Conflict(Vec::new()));
        }
    }
    refuse_open_writes(connection, command.id, stored.row)?;
    let held = records::holders(connection, stored.row)?;
    connection
        .prepare_cached(
            "INSERT INTO record (realm, id, version, home, deleted_at, index_keys, document) VALUES (?1, ?2, 0, ?3, NULL, x'', '{}')",
        )?
        .execute(params![realm, id_bytes(command.new), names.intern(&command.new_home)?])?;
    let new = connection.last_insert_rowid();
    reach(Command::Split, Step::Partly);

    let leaving = Leaving { connection, realm, stored: &stored, new };
    for identity in &command.leaving {
        let participant = names.intern(&identity.participant)?;
        if !leaving.leaves(participant, identity)? {
            return Err(conflict());
        }
    }
    for (participant, state) in &command.states {
        let participant = names.intern(participant)?;
        let settled: Option<i64> = connection
            .prepare_cached("SELECT settled FROM identity WHERE record = ?1 AND participant = ?2")?
            .query_row(params![stored.row, participant], |row| row.get(0))
            .optional()?;
        // A write was settled since it was looked up.
        if settled.is_none_or(|settled| settled > state.settled.cast_signed()) {
            return Err(conflict());
        }
        set_state(connection, stored.row, participant, state)?;
    }
    let (version, provenance) = (command.version.cast_signed(), encode_provenance(&command.provenance)?);
    connection.prepare_cached("UPDATE record SET version = ?2, home = ?3, provenance = ?4 WHERE row = ?1")?.execute(params![
        stored.row,
        version,
        names.intern(&command.home)?,
        provenance
    ])?;
    let mut books = Books::default();
    books.record((true, held), (true, records::holders(connection, stored.row)?));
    books.record((false, 0), (true, records::holders(connection, new)?));
    for (target, origin) in &command.enqueue {
        let target = names.intern(target)?;
        let held = || records::is_held(connection, stored.row, target);
        enter(connection, &names, &mut books, realm, (stored.row, target), (origin, version), command.now, held)?;
    }
    reach(Command::Split, Step::Rows);

    for (participant, ids) in &command.rereads {
        let participant = names.intern(participant)?;
        let asking = reads::Asking { connection, realm, participant, haste: Haste::Soon, now: command.now, sequence };
        ids.iter().try_for_each(|id| asking.request(id.as_str(), None))?;
    }
    command.leases.iter().try_for_each(|lease| leases::end(connection, lease))?;
    for (name, _, value) in &command.notes {
        notes::put(connection, realm, name, &encode(value)?)?;
    }
    reach(Command::Split, Step::Reads);
    books::write(books, connection, realm)
}

/// What leaves a record.
struct Leaving<'c> {
    connection: &'c Connection,
    realm: i64,
    stored: &'c Stored,
    new: i64,
}

impl Leaving<'_> {
    /// Has an external id leave; `false` where it does not stand for the record any more, or more is known of it by now.
    fn leaves(&self, participant: i64, identity: &Identity) -> Result<bool, StoreError> {
        let Self { connection, realm, stored, new } = *self;
        let external_id = identity.external_id.as_str();
        let found: Option<(i64, Option<i64>, i64)> = connection
            .prepare_cached(
                "SELECT record.row, record.merged_into, identity.settled FROM identity JOIN record ON record.row = identity.record
                 WHERE identity.realm = ?1 AND identity.participant = ?2 AND identity.external_id = ?3",
            )?
            .query_row(params![realm, participant, external_id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((row, merged_into, settled)) = found else { return Ok(false) };
        let known = identity.state.settled.cast_signed();
        if (row != stored.row && merged_into != Some(stored.row)) || settled > known {
            return Ok(false);
        }
        if row == stored.row {
            mark_left(connection, row, participant)?;
        } else {
            // An alias may be on its way to be put away.
            let open =
                "SELECT EXISTS (SELECT 1 FROM lane WHERE record = ?1 AND target = ?2 AND (c_origin IS NOT NULL OR i_at IS NOT NULL))";
            if connection.prepare_cached(open)?.query_row(params![row, participant], |row| row.get(0))? {
                return Ok(false);
            }
        }
        connection
            .prepare_cached("UPDATE identity SET record = ?3, settled = ?4, state = ?5 WHERE record = ?1 AND participant = ?2")?
            .execute(params![row, participant, new, known, encode_state(&identity.state)?])?;
        Ok(true)
    }
}
