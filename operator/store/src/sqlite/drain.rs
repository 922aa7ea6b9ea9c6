//! The commands that move lanes: `claim`, `intend`, `settle`, `enqueue`.

use super::absorb::enter;
use super::books;
use super::lane::{any_waiting, free_waiting};
use super::names::Names;
use super::records::{self, Named, Naming};
use super::{leases, letters, reads};
use crate::crash::{Command, Step, reach};
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, decode, encode, haste, id_bytes, record_id};
use crate::rows::lane::{Entry, Lane, Phase, Sent, shared_out};
use crate::rows::settle::{Ending, Item, Results};
use crate::{Claim, Claimed, Enqueue, Intend, Intent, Keys, LaneFence, StoreError};
use fairlead_model::{ErrorClass, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

// ---- claim ------------------------------------------------------------------------------------------------------------------------------

pub(super) fn claim(connection: &Connection, command: &Claim) -> Result<Vec<Claimed>, StoreError> {
    leases::check_lane(connection, &command.fence)?;
    reach(Command::Claim, Step::Fenced);
    let names = Names::new(connection);
    let realm = names.intern(&command.realm)?;
    let target = names.intern(&command.target)?;
    let now = command.now.0;
    let mut books = Books::default();
    let mut claimed = Vec::new();
    for mut lane in Lane::left(connection, (realm, target), &command.fence)? {
        if let Some(overtaken) = lane.take_over(now) {
            books.superseded((realm, target, overtaken));
        }
        lane.store(connection, realm)?;
    }
    for mut lane in due(connection, realm, target, command)? {
        let Some(known) = records::known(connection, &names, lane.record)? else {
            return Err(StoreError::Unusable(format!("a lane entry of {} names no record", command.target)));
        };
        let intent = lane.intent.as_ref().map(open_intent).transpose()?;
        let Some(epoch) = command.fence.epoch(lane.record) else { continue };
        let waited = lane.waits_for.is_some();
        let Some(entry) = lane.take(known.record.version.cast_signed(), epoch, now) else { continue };
        lane.store(connection, realm)?;
        // The record was loaded before its place was marked; what the caller gets shows the mark.
        let mut known = known;
        for place in known.lanes.iter_mut().filter(|place| place.target == command.target) {
            place.in_flight = true;
        }
        claimed.push(Claimed {
            known,
            origin: names.origin(entry.origin)?,
            haste: haste(lane.bulk),
            since: Timestamp(entry.since),
            attempts: lane.attempts,
            waited,
            intent,
        });
        if claimed.len() == 1 {
            reach(Command::Claim, Step::Partly);
        }
    }
    reach(Command::Claim, Step::Rows);
    books::write(books, connection, realm)?;
    Ok(claimed)
}

fn open_intent(intent: &Sent) -> Result<Intent, StoreError> {
    let sent = decode("intent", &intent.sent)?;
    Ok(Intent { at: Timestamp(intent.at), version: intent.version.cast_unsigned(), sent })
}

/// What is claimed.
fn due(connection: &Connection, realm: i64, target: i64, command: &Claim) -> Result<Vec<Lane>, StoreError> {
    // What waits for another record, and its time is up.
    let phases: &[Phase] = if command.creates { &[Phase::Ready, Phase::Create, Phase::Waits] } else { &[Phase::Ready] };
    let hastes: &[bool] = if command.bulk { &[false, true] } else { &[false] };
    let mut places = Vec::new();
    for bulk in hastes {
        for phase in phases {
            places.extend(Lane::due(connection, (realm, target), &command.fence, (*phase, *bulk), command.now.0, command.max)?);
        }
    }
    Ok(shared_out(places, command.max).0)
}

// ---- intend -----------------------------------------------------------------------------------------------------------------------------

/// An [`Intend`] in the form of its rows, made in the caller's task.
pub(super) struct Intents {
    realm: String,
    target: String,
    fence: LaneFence,
    sent: Vec<(IdBytes, String)>,
    now: Timestamp,
}

impl Intents {
    pub(super) fn new(command: &Intend) -> Result<Self, StoreError> {
        let sent = command.sent.iter().map(|(id, sent)| Ok((id_bytes(*id), encode(sent)?))).collect::<Result<_, StoreError>>()?;
        Ok(Self { realm: command.realm.clone(), target: command.target.clone(), fence: command.fence.clone(), sent, now: command.now })
    }
}

pub(super) fn intend(connection: &Connection, command: &Intents) -> Result<(), StoreError> {
    leases::check_lane(connection, &command.fence)?;
    reach(Command::Intend, Step::Fenced);
    let names = Names::new(connection);
    let realm = names.intern(&command.realm)?;
    let target = names.intern(&command.target)?;
    let mut find = connection.prepare_cached("SELECT row FROM record WHERE realm = ?1 AND id = ?2")?;
    let mut mark = connection.prepare_cached(
        "UPDATE lane SET i_at = ?3, i_version = c_version, i_sent = ?4 WHERE record = ?1 AND target = ?2 AND c_epoch = ?5",
    )?;
    let mut unclaimed = Vec::new();
    for (place, (id, sent)) in command.sent.iter().enumerate() {
        let row: Option<i64> = find.query_row(params![realm, id], |row| row.get(0)).optional()?;
        let marked = match row.and_then(|row| Some((row, command.fence.epoch(row)?))) {
            Some((row, epoch)) => mark.execute(params![row, target, command.now.0, sent, epoch])?,
            None => 0,
        };
        if marked == 0 {
            unclaimed.push(record_id(*id));
        }
        if place == 0 {
            reach(Command::Intend, Step::Partly);
        }
    }
    if !unclaimed.is_empty() {
        return Err(StoreError::Conflict(unclaimed));
    }
    reach(Command::Intend, Step::Rows);
    Ok(())
}

// ---- settle -----------------------------------------------------------------------------------------------------------------------------

pub(super) fn settle(command: &Results, connection: &Connection, sequence: i64) -> Result<(), StoreError> {
    leases::check_lane(connection, &command.fence)?;
    reach(Command::Settle, Step::Fenced);
    let names = Names::new(connection);
    let realm = names.intern(&command.realm)?;
    let target = names.intern(&command.target)?;
    let mut settling = Settling {
        connection,
        names,
        realm,
        target,
        fence: &command.fence,
        sequence,
        letters_open: letters::any_written(connection, realm, target)?,
        lanes_wait: any_waiting(connection, realm, target)?,
        reads_wait: reads::any_waiting(connection, realm, target)?,
        books: Books::default(),
        now: command.now,
    };
    let mut conflicts = Vec::new();
    for (place, item) in command.results.iter().enumerate() {
        if !settling.result(item)? {
            conflicts.push(item.id);
        }
        if place == 0 {
            reach(Command::Settle, Step::Partly);
        }
    }
    if !conflicts.is_empty() {
        return Err(StoreError::Conflict(conflicts));
    }
    reach(Command::Settle, Step::Rows);
    books::write(settling.books, connection, realm)
}

/// Results under way.
struct Settling<'c> {
    connection: &'c Connection,
    names: Names<'c>,
    realm: i64,
    target: i64,
    fence: &'c LaneFence,
    sequence: i64,
    letters_open: bool,
    lanes_wait: bool,
    reads_wait: bool,
    books: Books,
    now: Timestamp,
}

impl Settling<'_> {
    /// Settles one key; `false` when its external id is another record's, or the record has another one in this target.
    fn result(&mut self, item: &Item) -> Result<bool, StoreError> {
        let Self { connection, realm, target, now, .. } = *self;
        let id = &id_bytes(item.id);
        let Some(stored) = records::find(connection, realm, id)? else { return Ok(self.ignored(id, "the record is gone")) };
        let Some(mut lane) = Lane::load(connection, stored.row, target)? else { return Ok(self.ignored(id, "it is settled already")) };
        let Some(flight) = lane.claimed else { return Ok(self.ignored(id, "it is not claimed")) };
        if self.fence.epoch(stored.row) != Some(flight.epoch) || item.version < flight.entry.version {
            return Ok(self.ignored(id, "it was claimed anew since"));
        }
        let key = (realm, target, flight.entry.origin);
        if let Some((external_id, state)) = &item.learnt
            && !self.learn(id, (stored.row, stored.lives), external_id, state, &mut lane)?
        {
            return Ok(false);
        }
        let overtaken = match &item.ending {
            Ending::Delivered(incomplete) => {
                self.books.delivered(key, now);
                self.arrived(id)?;
                lane.finish(now.0, false);
                if let Some(awaited) = incomplete {
                    self.complete_later(&mut lane, flight.entry, awaited)?;
                }
                None
            }
            Ending::Unchanged => {
                self.books.unchanged(key);
                self.arrived(id)?;
                lane.finish(now.0, false);
                None
            }
            Ending::Filtered(reason) => {
                self.books.filtered(key, reason);
                // What does not belong there any more need not be delivered any more.
                self.arrived(id)?;
                lane.finish(now.0, false);
                // Nor will it come for those who wait for it.
                if self.lanes_wait && !lane.held {
                    free_waiting(connection, realm, target, id, now.0)?;
                }
                None
            }
            Ending::Retry { at, attempt, unknown } => lane.retry(*at, (*attempt, *unknown), now.0),
            Ending::WaitFor(record) => {
                self.lanes_wait = true;
                self.wait(&mut lane, record)?
            }
            Ending::DeadLetter(letter) => {
                letters::add(connection, &self.names, &mut self.books, realm, letter, Some((target, flight.entry.origin)), now)?;
                self.letters_open = true;
                lane.finish(now.0, letter.class == ErrorClass::UnknownOutcome);
                None
            }
        };
        if let Some(origin) = overtaken {
            self.books.superseded((realm, target, origin));
        }
        lane.store(connection, realm)?;
        Ok(true)
    }

    /// A result that no claim of this epoch stands for: it was settled before (the answer to an earlier `settle` was lost).
    fn ignored(&self, id: &IdBytes, why: &str) -> bool {
        tracing::debug!(record = %record_id(*id), target = self.target, why, "a result was ignored");
        true
    }

    /// The target's id and state of the record.
    fn learn(
        &mut self,
        id: &IdBytes,
        (row, lives): (i64, bool),
        external_id: &str,
        state: &str,
        lane: &mut Lane,
    ) -> Result<bool, StoreError> {
        let Self { connection, realm, target, now, sequence, .. } = *self;
        let naming = Naming { realm, participant: target, record: row, external_id, state, settled: sequence, guarded: false };
        let others = match records::name(connection, &naming)? {
            Named::Conflict => return Ok(false),
            Named::New { others } => Some(others),
            Named::Known => None,
        };
        if others.is_some() {
            lane.held = true;
            if self.lanes_wait {
                free_waiting(connection, realm, target, id, now.0)?;
            }
            if self.reads_wait {
                reads::free(connection, realm, target, external_id)?;
            }
            records::count(connection, &mut self.books, row, (lives, lives), others)?;
        }
        Ok(true)
    }

    fn arrived(&mut self, id: &IdBytes) -> Result<(), StoreError> {
        if !self.letters_open {
            return Ok(());
        }
        letters::written_well(self.connection, &mut self.books, (self.realm, self.target), id, self.now)
    }

    /// Waits for `record`, unless the target holds that one by now, or never will.
    fn wait(&self, lane: &mut Lane, record: &IdBytes) -> Result<Option<i64>, StoreError> {
        let (decided, record) = self.is_decided(record)?;
        Ok(lane.wait((!decided).then_some(record), self.now.0))
    }

    /// What was delivered without a reference enters the lane again and waits for the record `awaited`. A newer entry does that by itself.
    fn complete_later(&mut self, lane: &mut Lane, entry: Entry, awaited: &IdBytes) -> Result<(), StoreError> {
        if lane.pending.is_none() {
            lane.enter(entry.origin, entry.version, self.now.0, false);
            self.books.entered((self.realm, self.target, entry.origin));
            let (decided, awaited) = self.is_decided(awaited)?;
            lane.wait_for((!decided).then_some(awaited), self.now.0);
            self.lanes_wait = true;
        }
        Ok(())
    }

    /// Whether there is no more to wait for with a record, or the one that it was folded into (the target holds it, or it is dead), and which of
    /// them that is.
    fn is_decided(&self, record: &IdBytes) -> Result<(bool, IdBytes), StoreError> {
        Ok(match records::resolve(self.connection, self.realm, record)? {
            Some((row, id, lives)) => (!lives || records::is_held(self.connection, row, self.target)?, id),
            None => (false, *record),
        })
    }
}

// ---- enqueue ----------------------------------------------------------------------------------------------------------------------------

pub(super) fn enqueue(connection: &Connection, command: &Enqueue) -> Result<u64, StoreError> {
    let names = Names::new(connection);
    let realm = names.intern(&command.realm)?;
    let target = names.intern(&command.target)?;
    let mut books = Books::default();
    let mut entered = 0_u64;
    let mut put = |books: &mut Books, row: i64, version: i64, lives: bool| -> Result<(), StoreError> {
        let held = || Ok(!lives || records::is_held(connection, row, target)?);
        enter(connection, &names, books, realm, (row, target), (&command.origin, version), command.now, held)?;
        entered += 1;
        if entered == 1 {
            reach(Command::Enqueue, Step::Partly);
        }
        Ok(())
    };
    match &command.keys {
        Keys::Records(ids) => {
            for id in ids {
                if let Some(stored) = records::find(connection, realm, &id_bytes(*id))? {
                    put(&mut books, stored.row, stored.version, stored.lives)?;
                }
            }
        }
        Keys::DeadLetters => {
            for id in letters::replay(connection, &mut books, (realm, target), command.now)? {
                if let Some(stored) = records::find(connection, realm, &id)? {
                    put(&mut books, stored.row, stored.version, stored.lives)?;
                }
            }
        }
        Keys::All => {
            let mut last = 0_i64;
            while let Some((row, version)) = next_live(connection, realm, last)? {
                put(&mut books, row, version, true)?;
                last = row;
            }
        }
    }
    reach(Command::Enqueue, Step::Rows);
    books::write(books, connection, realm)?;
    Ok(entered)
}

/// The live record after `row`, with its version. Rows of one realm lie close together, so this walks the table.
fn next_live(connection: &Connection, realm: i64, row: i64) -> Result<Option<(i64, i64)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT row, version FROM record WHERE row > ?2 AND +realm = ?1 AND deleted_at IS NULL ORDER BY row LIMIT 1")?;
    Ok(statement.query_row(params![realm, row], |found| Ok((found.get(0)?, found.get(1)?))).optional()?)
}
