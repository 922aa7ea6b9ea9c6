//! The command `merge`: one record is folded into another, or goes on under another external id.

use super::absorb::enter;
use super::books::{self, write_guard};
use super::lane::{free_all_waiting, mark_held};
use super::names::Names;
use super::records::{self, Stored};
use super::{history, leases, letters, reads};
use crate::crash::{Command, Step, reach};
use crate::rows::absorb::ChangeRow;
use crate::rows::books::Books;
use crate::rows::codec::id_bytes;
use crate::rows::lane::Lane;
use crate::rows::packed::encode_state;
use crate::rows::record::Body;
use crate::{Haste, Merge, Origin, RecordChange, StoreError, Survivor};
use fairlead_model::state::ParticipantState;
use fairlead_model::{RecordId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

pub(super) fn merge(connection: &Connection, command: &Merge, sequence: i64) -> Result<(), StoreError> {
    leases::check(connection, &command.fence)?;
    reach(Command::Merge, Step::Fenced);
    let names = Names::new(connection);
    let realm = names.intern(&command.realm)?;
    let participant = names.intern(&command.participant)?;
    let mut merging = Merging { connection, names, realm, participant, books: Books::default(), now: command.now };
    let Some(loser) = records::find(connection, realm, &id_bytes(command.loser))? else {
        return Err(StoreError::Conflict(vec![command.loser]));
    };
    // It was committed before, and the answer was lost.
    let repeated = loser.merged_into.is_some();
    if !repeated {
        if loser.version != command.loser_version.cast_signed() {
            return Err(StoreError::Conflict(vec![command.loser]));
        }
        merging.referring(command)?;
    }
    reach(Command::Merge, Step::Partly);
    if !repeated {
        match &command.survivor {
            Survivor::Later => {}
            Survivor::Record { .. } => merging.merge_into_record(command, &loser)?,
            Survivor::ExternalId { .. } => merging.under_another_id(command, &loser)?,
        }
        let changes = command.history.iter().map(ChangeRow::new).collect::<Result<Vec<_>, _>>()?;
        history::add(connection, (realm, participant), &changes, command.now)?;
        let book = merging.names.intern(command.guard.book(&command.realm))?;
        write_guard(connection, (realm, book), &command.guard, command.now)?;
    }
    reach(Command::Merge, Step::Rows);
    for id in &command.reread_done {
        reads::done(connection, (realm, participant), id.as_str(), command.began)?;
    }
    let asking = reads::Asking { connection, realm, participant, haste: Haste::Soon, now: command.now, sequence };
    for id in &command.rereads {
        asking.request(id.as_str(), None)?;
    }
    reach(Command::Merge, Step::Reads);
    books::write(merging.books, connection, realm)
}

/// A write that is in flight, or was and has no known outcome, comes to its end first.
pub(super) fn refuse_open_writes(connection: &Connection, id: RecordId, row: i64) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM lane WHERE record = ?1 AND (c_origin IS NOT NULL OR i_at IS NOT NULL))")?;
    if statement.query_row(params![row], |row| row.get(0))? { Err(StoreError::Conflict(vec![id])) } else { Ok(()) }
}

/// What a participant that holds a record is known to hold from now on.
pub(super) fn set_state(connection: &Connection, row: i64, participant: i64, state: &ParticipantState) -> Result<(), StoreError> {
    connection.prepare_cached("UPDATE identity SET settled = ?3, state = ?4 WHERE record = ?1 AND participant = ?2")?.execute(params![
        row,
        participant,
        state.settled.cast_signed(),
        encode_state(state)?
    ])?;
    Ok(())
}

/// An identity as it is stored.
struct Row {
    participant: i64,
    external_id: String,
    held: bool,
}

/// A merge under way.
struct Merging<'c> {
    connection: &'c Connection,
    names: Names<'c>,
    realm: i64,
    participant: i64,
    books: Books,
    now: Timestamp,
}

impl Merging<'_> {
    /// Records that refer to the two.
    fn referring(&mut self, command: &Merge) -> Result<(), StoreError> {
        let mut conflicts = Vec::new();
        for item in &command.referring {
            let stored = records::find(self.connection, self.realm, &id_bytes(item.id))?;
            let (row, version, lives) = match (&item.change, stored) {
                (RecordChange::Keep { version }, Some(stored)) if stored.version == version.cast_signed() => {
                    (stored.row, stored.version, stored.lives)
                }
                (RecordChange::Update { record, keys }, Some(stored)) if stored.version + 1 == record.version.cast_signed() => {
                    let body = Body::new(record, keys)?;
                    records::update(self.connection, &self.names, self.realm, &stored, &body)?;
                    (stored.row, body.version, stored.lives)
                }
                _ => {
                    conflicts.push(item.id);
                    continue;
                }
            };
            self.enter_all((row, version, lives), &item.enqueue)?;
        }
        if conflicts.is_empty() { Ok(()) } else { Err(StoreError::Conflict(conflicts)) }
    }

    fn enter_all(&mut self, (row, version, lives): (i64, i64, bool), lanes: &[(String, Origin)]) -> Result<(), StoreError> {
        for (target, origin) in lanes {
            let target = self.names.intern(target)?;
            let held = || Ok(!lives || records::is_held(self.connection, row, target)?);
            enter(self.connection, &self.names, &mut self.books, self.realm, (row, target), (origin, version), self.now, held)?;
        }
        Ok(())
    }

    fn merge_into_record(&mut self, command: &Merge, loser: &Stored) -> Result<(), StoreError> {
        let Survivor::Record { record, keys, enqueue, put_away, aliases } = &command.survivor else { return Ok(()) };
        let Self { connection, realm, now, .. } = *self;
        let (loser_id, survivor_id) = (id_bytes(command.loser), id_bytes(record.id));
        let survivor = records::find(connection, realm, &survivor_id)?
            .filter(|stored| stored.version + 1 == record.version.cast_signed() && stored.merged_into.is_none() && stored.row != loser.row)
            .ok_or_else(|| StoreError::Conflict(vec![record.id]))?;
        refuse_open_writes(connection, command.loser, loser.row)?;
        refuse_open_writes(connection, record.id, survivor.row)?;

        let body = Body::new(record, keys)?;
        let held = (records::holders(connection, loser.row)?, records::holders(connection, survivor.row)?);
        for identity in self.identities(loser.row, survivor.row)? {
            if identity.held {
                // The alias is not absorbed any more, so nothing else would close what was wrong with it.
                letters::read_well(connection, &mut self.books, (realm, identity.participant), &identity.external_id, now)?;
            } else {
                connection.prepare_cached("UPDATE identity SET record = ?3 WHERE record = ?1 AND participant = ?2")?.execute(params![
                    loser.row,
                    identity.participant,
                    survivor.row
                ])?;
                mark_held(connection, survivor.row, identity.participant)?;
            }
        }
        for (participant, state) in aliases {
            set_state(connection, loser.row, self.names.intern(participant)?, state)?;
        }
        self.bury(loser, survivor.row)?;
        records::update(connection, &self.names, realm, &survivor, &body)?;
        self.books.record((loser.lives, held.0), (false, 0));
        self.books.record((survivor.lives, held.1), (body.lives(), records::holders(connection, survivor.row)?));

        self.fold_lanes(loser.row, (survivor.row, body.version, body.lives()))?;
        free_all_waiting(connection, realm, (&loser_id, &survivor_id), survivor.row, now.0)?;
        history::move_to(connection, realm, (&loser_id, &survivor_id))?;
        letters::fold(connection, &mut self.books, realm, (&loser_id, &survivor_id), now)?;
        self.enter_all((survivor.row, body.version, body.lives()), enqueue)?;
        self.enter_all((loser.row, loser.version + 1, false), put_away)
    }

    /// The same record under an external id that no record has; a tombstone of its own carries the old one.
    fn under_another_id(&mut self, command: &Merge, stored: &Stored) -> Result<(), StoreError> {
        let Survivor::ExternalId { external_id, state, alias, alias_state } = &command.survivor else { return Ok(()) };
        let Self { connection, realm, participant, now, .. } = *self;
        if !stored.lives {
            // It may live again under that id: first ends what may be removing it elsewhere.
            refuse_open_writes(connection, command.loser, stored.row)?;
        }
        // What is written elsewhere is the same record as before.
        if Lane::load(connection, stored.row, participant)?.is_some_and(|lane| lane.is_open()) {
            return Err(StoreError::Conflict(vec![command.loser]));
        }
        let former: Option<String> = connection
            .prepare_cached("SELECT external_id FROM identity WHERE record = ?1 AND participant = ?2")?
            .query_row(params![stored.row, participant], |row| row.get(0))
            .optional()?;
        let taken: bool = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM identity WHERE realm = ?1 AND participant = ?2 AND external_id = ?3)")?
            .query_row(params![realm, participant, external_id.as_str()], |row| row.get(0))?;
        let Some(former) = former.filter(|_| !taken) else { return Err(StoreError::Conflict(vec![command.loser])) };
        connection
            .prepare_cached("UPDATE identity SET external_id = ?3, settled = ?4, state = ?5 WHERE record = ?1 AND participant = ?2")?
            .execute(params![stored.row, participant, external_id.as_str(), state.settled.cast_signed(), encode_state(state)?])?;
        reads::free(connection, realm, participant, external_id.as_str())?;
        letters::read_well(connection, &mut self.books, (realm, participant), &former, now)?;
        // A reader that looked the record up before must look again: it knows the old id.
        connection.prepare_cached("UPDATE record SET version = version + 1 WHERE row = ?1")?.execute(params![stored.row])?;
        connection
            .prepare_cached(
                "INSERT INTO record (realm, id, version, home, deleted_at, index_keys, document, merged_into)
                 VALUES (?1, ?2, 1, ?3, ?4, x'', '{}', ?5)",
            )?
            .execute(params![realm, id_bytes(*alias), participant, now.0, stored.row])?;
        connection
            .prepare_cached(
                "INSERT INTO identity (record, participant, realm, external_id, settled, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                connection.last_insert_rowid(),
                participant,
                realm,
                former,
                alias_state.settled.cast_signed(),
                encode_state(alias_state)?
            ])?;
        Ok(())
    }

    /// The identities of the record in `row`, and whether `other` has one in the same participant.
    fn identities(&self, row: i64, other: i64) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT participant, external_id, EXISTS (SELECT 1 FROM identity AS own WHERE own.record = ?2 AND own.participant = identity.participant)
             FROM identity WHERE record = ?1",
        )?;
        let rows = statement
            .query_map(params![row, other], |row| Ok(Row { participant: row.get(0)?, external_id: row.get(1)?, held: row.get(2)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The loser becomes a tombstone of `survivor`, and so do those that were folded into it before.
    fn bury(&self, loser: &Stored, survivor: i64) -> Result<(), StoreError> {
        records::drop_keys(self.connection, self.realm, loser)?;
        self.connection
            .prepare_cached(
                "UPDATE record SET version = version + 1, deleted_at = ifnull(deleted_at, ?3), index_keys = x'', merged_into = ?2 WHERE row = ?1",
            )?
            .execute(params![loser.row, survivor, self.now.0])?;
        self.connection
            .prepare_cached("UPDATE record SET merged_into = ?2 WHERE merged_into = ?1")?
            .execute(params![loser.row, survivor])?;
        Ok(())
    }

    /// What the loser waits for in a lane, the survivor waits for; where that one waits already, the loser's entry is superseded.
    fn fold_lanes(&mut self, loser: i64, (survivor, version, lives): (i64, i64, bool)) -> Result<(), StoreError> {
        for mut lane in Lane::all_of(self.connection, loser)? {
            let target = lane.target;
            let Some(entry) = lane.pending.take() else { continue };
            lane.store(self.connection, self.realm)?;
            let place = Lane::load(self.connection, survivor, target)?;
            if place.as_ref().is_some_and(|place| place.pending.is_some()) {
                self.books.superseded((self.realm, target, entry.origin));
                continue;
            }
            let held = !lives || records::is_held(self.connection, survivor, target)?;
            let mut place = place.unwrap_or_else(|| Lane::new(survivor, target, held));
            place.enter(entry.origin, version, entry.since.min(self.now.0), false);
            place.store(self.connection, self.realm)?;
        }
        Ok(())
    }
}
