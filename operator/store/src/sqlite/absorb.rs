//! The command `absorb`: a batch of observed changes becomes durable.

use super::books::{self, write_guard, write_source};
use super::lane::{any_waiting, free_from_dead, free_waiting, mark_held, mark_life};
use super::names::Names;
use super::records::{self, Named, Naming};
use super::{checkpoints, history, leases, letters, reads};
use crate::crash::{Command, Step, reach};
use crate::rows::absorb::{Batch, Change, Item};
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, id_bytes};
use crate::rows::lane::Lane;
use crate::{Haste, Origin, StoreError};
use fairlead_model::Timestamp;
use rusqlite::Connection;

pub(super) fn run(batch: &Batch, connection: &Connection, sequence: i64) -> Result<(), StoreError> {
    leases::check(connection, &batch.fence)?;
    reach(Command::Absorb, Step::Fenced);
    let names = Names::new(connection);
    let realm = names.intern(&batch.realm)?;
    let participant = names.intern(&batch.participant)?;
    let mut work = Work {
        letters_open: letters::any_read(connection, realm, participant)?,
        lanes_wait: any_waiting(connection, realm, participant)?,
        reads_wait: reads::any_waiting(connection, realm, participant)?,
        connection,
        names,
        realm,
        participant,
        books: Books::default(),
        now: batch.now,
    };
    let mut refused = Vec::new();
    for (place, item) in batch.records.iter().enumerate() {
        if !work.item(item)? {
            refused.push(item.id);
        }
        if place == 0 {
            reach(Command::Absorb, Step::Partly);
        }
    }
    if !refused.is_empty() {
        return Err(StoreError::Conflict(refused));
    }
    reach(Command::Absorb, Step::Rows);
    let Work { names, mut books, letters_open, .. } = work;
    for letter in &batch.dead_letters {
        letters::add(connection, &names, &mut books, realm, letter, None, batch.now)?;
    }
    for id in batch.gone.iter().filter(|_| letters_open) {
        letters::read_well(connection, &mut books, (realm, participant), id, batch.now)?;
    }
    reach(Command::Absorb, Step::DeadLetters);
    for id in &batch.reread_done {
        reads::done(connection, (realm, participant), id, batch.began)?;
    }
    for (id, _) in batch.rereads.iter().filter(|(_, after)| after.is_some()) {
        reads::wait_no_more(connection, (realm, participant), id)?;
    }
    let asking = reads::Asking { connection, realm, participant, haste: Haste::Soon, now: batch.now, sequence };
    for (id, after) in &batch.rereads {
        asking.request(id, after.as_deref())?;
    }
    if let Some((slice, cursor, complete)) = &batch.checkpoint {
        checkpoints::put(connection, (realm, participant), (slice, cursor, *complete), batch.now)?;
    }
    reach(Command::Absorb, Step::Reads);
    write_source(connection, realm, participant, &batch.source)?;
    write_guard(connection, (realm, names.intern(batch.guard.book(&batch.realm))?), &batch.guard, batch.now)?;
    history::add(connection, (realm, participant), &batch.history, batch.now)?;
    for _ in 0..batch.direct {
        let book = (realm, participant, names.intern_origin(&Origin::Api)?);
        books.entered(book);
        books.delivered(book, batch.now);
    }
    books::write(books, connection, realm)
}

/// A batch under way.
struct Work<'c> {
    connection: &'c Connection,
    names: Names<'c>,
    realm: i64,
    participant: i64,
    letters_open: bool,
    lanes_wait: bool,
    reads_wait: bool,
    books: Books,
    now: Timestamp,
}

impl Work<'_> {
    /// Stores one record; `false` when somebody else was there first.
    fn item(&mut self, item: &Item) -> Result<bool, StoreError> {
        let Self { connection, realm, participant, now, .. } = *self;
        let id: IdBytes = id_bytes(item.id);
        let is_new = matches!(item.change, Change::Insert(_));
        // What is new is not looked for: where it is stored all the same, it is not inserted.
        let stored = if is_new { None } else { records::find(connection, realm, &id)? };
        if stored.as_ref().is_some_and(|stored| stored.merged_into.is_some()) {
            return Ok(false);
        }
        let (row, version, lived, lives) = match (&item.change, stored) {
            (Change::Keep(version), Some(stored)) if stored.version == *version => (stored.row, *version, stored.lives, stored.lives),
            // Two readers may decide at the same time that a record is new. The second one to commit must look again, and will match.
            (Change::Insert(body), None) if records::is_matched(connection, realm, body)? => return Ok(false),
            (Change::Insert(body), None) => {
                let Some(row) = records::insert(connection, &self.names, realm, &id, body)? else { return Ok(false) };
                (row, body.version, false, body.lives())
            }
            (Change::Update(body), Some(stored)) if stored.version + 1 == body.version => {
                records::update(connection, &self.names, realm, &stored, body)?;
                (stored.row, body.version, stored.lives, body.lives())
            }
            _ => return Ok(false),
        };
        let naming = Naming {
            realm,
            participant,
            record: row,
            external_id: &item.external_id,
            state: &item.state,
            settled: item.settled,
            guarded: true,
        };
        let named = if is_new { records::name_first(connection, &naming, 0)? } else { records::name(connection, &naming)? };
        let others = match named {
            Named::Conflict => return Ok(false),
            Named::New { others } => Some(others),
            // A write went into flight since the reader looked: its settlement will put down the state that it began with, and what was
            // read would be forgotten.
            Named::Known if item.changed && Lane::load(connection, row, participant)?.is_some_and(|lane| lane.claimed.is_some()) => {
                return Ok(false);
            }
            Named::Known => None,
        };
        if others.is_some() {
            if !is_new {
                mark_held(connection, row, participant)?;
            }
            if self.lanes_wait {
                free_waiting(connection, realm, participant, &id, now.0)?;
            }
            if self.reads_wait {
                reads::free(connection, realm, participant, &item.external_id)?;
            }
        }
        records::count(connection, &mut self.books, row, (lived, lives), others)?;
        if !is_new && lived != lives {
            mark_life(connection, row, lives)?;
            if !lives {
                free_from_dead(connection, realm, &id, now.0)?;
            }
        }
        for (place, (name, origin)) in item.enqueue.iter().enumerate() {
            let target = self.names.intern(name)?;
            if is_new && !item.enqueue[..place].iter().any(|(before, _)| before == name) {
                // What is new stands in no lane yet.
                let lane = Lane::new(row, target, !lives || target == participant);
                put(connection, &self.names, &mut self.books, realm, lane, (origin, version), now)?;
                continue;
            }
            let held = || -> Result<bool, StoreError> {
                Ok(!lives || target == participant || (!is_new && records::is_held(connection, row, target)?))
            };
            enter(connection, &self.names, &mut self.books, realm, (row, target), (origin, version), now, held)?;
        }
        if self.letters_open {
            letters::read_well(connection, &mut self.books, (realm, participant), &item.external_id, now)?;
        }
        Ok(true)
    }
}

/// Puts a record in a lane and keeps the books of it. `held` is asked only when the record does not stand in that lane yet.
#[allow(clippy::too_many_arguments, reason = "the row's key and values")]
pub(super) fn enter(
    connection: &Connection,
    names: &Names<'_>,
    books: &mut Books,
    realm: i64,
    (record, target): (i64, i64),
    (origin, version): (&Origin, i64),
    now: Timestamp,
    held: impl FnOnce() -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let lane = match Lane::load(connection, record, target)? {
        Some(lane) => lane,
        None => Lane::new(record, target, held()?),
    };
    put(connection, names, books, realm, lane, (origin, version), now)
}

fn put(
    connection: &Connection,
    names: &Names<'_>,
    books: &mut Books,
    realm: i64,
    mut lane: Lane,
    (origin, version): (&Origin, i64),
    now: Timestamp,
) -> Result<(), StoreError> {
    let (code, target) = (names.intern_origin(origin)?, lane.target);
    let overtaken = lane.enter(code, version, now.0, *origin == Origin::Replay);
    lane.store(connection, realm)?;
    books.entered((realm, target, code));
    if let Some(older) = overtaken {
        books.superseded((realm, target, older));
    }
    Ok(())
}
