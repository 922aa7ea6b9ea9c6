//! One record's place in one target's lane: the pure steps it can take, and how its row is loaded and stored.
//!
//! A place holds an entry that waits, an entry that is claimed, or both (a newer one came while the older was in flight). Every entry
//! ends exactly once: each step that ends one returns the origin whose books must tell of it.

use super::codec::{IdBytes, REPLAY};
use crate::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The columns that [`Lane::from_row`] reads, in its order.
macro_rules! columns {
    () => {
        "record, held, due, attempts, waits_for, origin, since, version, c_origin, c_since, c_version, c_epoch, c_at, i_at, i_version, i_sent, target"
    };
}

/// Something to do for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) origin: i64,
    pub(super) since: i64,
    pub(super) version: i64,
}

/// An entry in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) entry: Entry,
    pub(super) epoch: i64,
    pub(super) at: i64,
}

/// A write that was about to be sent and whose outcome is not known. `sent` is text of the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) at: i64,
    pub(super) version: i64,
    pub(super) sent: String,
}

/// Where a place stands; also the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for its time, and the target has no id for it.
    Create = 0,
    /// Waits for its time.
    Ready = 1,
    /// Waits for another record.
    Waits = 2,
    /// Claimed.
    Claimed = 3,
    /// Nothing is to be done, but the outcome of an earlier write was never found out; the next entry has to.
    Unsure = 4,
}

/// A record's place in a target's lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) record: i64,
    pub(super) target: i64,
    pub(super) held: bool,
    pub(super) due: i64,
    pub(super) attempts: u32,
    pub(super) waits_for: Option<IdBytes>,
    pub(super) pending: Option<Entry>,
    pub(super) claimed: Option<InFlight>,
    pub(super) intent: Option<Sent>,
}

impl Lane {
    pub(super) const fn new(record: i64, target: i64, held: bool) -> Self {
        Self { record, target, held, due: 0, attempts: 0, waits_for: None, pending: None, claimed: None, intent: None }
    }

    /// A new entry. An older one that waits is overtaken by it and leaves its age; one in flight is left alone. `at_once` sets retries
    /// back, because a person asked. What a person asked for keeps its name whatever comes after it, for a correction is looked up by that: then
    /// the new one ends, and the older takes over its version.
    pub(super) fn enter(&mut self, origin: i64, version: i64, now: i64, at_once: bool) -> Option<i64> {
        let older = self.pending;
        let waited = self.waits_for.take().is_some();
        let (origin, ended) = match older {
            Some(Entry { origin: REPLAY, .. }) => (REPLAY, Some(origin)),
            older => (origin, older.map(|entry| entry.origin)),
        };
        self.pending = Some(Entry { origin, since: older.map_or(now, |entry| entry.since), version });
        if self.claimed.is_none() && (older.is_none() || waited || at_once) {
            self.make_due(now);
        }
        if at_once {
            self.attempts = 0;
        }
        ended
    }

    /// A newer epoch found this in flight. If an intent stands, what came of it is unknown; else nothing was sent.
    pub(super) fn take_over(&mut self, now: i64) -> Option<i64> {
        let flight = self.claimed.take()?;
        let ended = self.put_back(flight.entry);
        self.make_due(now);
        ended
    }

    /// The entry that waits goes into flight; it writes `version`. Returns it as it waited.
    pub(super) fn take(&mut self, version: i64, epoch: i64, now: i64) -> Option<Entry> {
        let entry = self.pending.take()?;
        self.claimed = Some(InFlight { entry: Entry { version, ..entry }, epoch, at: now });
        self.waits_for = None;
        self.due = now;
        Some(entry)
    }

    /// The entry in flight came to its end. A newer one beside it is due at once. What was sent is known to have arrived, or not; when it
    /// is not (`unsure`), the intent stays for the next entry to look up.
    pub(super) fn finish(&mut self, now: i64, unsure: bool) -> Option<i64> {
        let flight = self.claimed.take()?;
        if !unsure {
            self.intent = None;
        }
        self.attempts = 0;
        self.make_due(now);
        Some(flight.entry.origin)
    }

    /// The entry in flight is tried again at `at`. An outcome that is unknown leaves the intent open; where none was committed, the claim
    /// itself stands for it.
    pub(super) fn retry(&mut self, at: i64, attempt: bool, unknown: bool) -> Option<i64> {
        let flight = self.claimed.take()?;
        let unsaid = || Sent { at: flight.at, version: flight.entry.version, sent: "null".into() };
        self.intent = unknown.then(|| self.intent.take().unwrap_or_else(unsaid));
        self.attempts += u32::from(attempt);
        let ended = self.put_back(flight.entry);
        self.due = at;
        ended
    }

    /// The entry in flight waits for another record. A newer one beside it may not have to. Nothing was sent, and what an earlier one sent was
    /// looked up before.
    pub(super) fn wait(&mut self, record: IdBytes, now: i64) -> Option<i64> {
        let flight = self.claimed.take()?;
        self.intent = None;
        let ended = self.put_back(flight.entry);
        if ended.is_none() {
            self.waits_for = Some(record);
        }
        self.make_due(now);
        ended
    }

    /// An entry in flight waits again, unless a newer one does; that one inherits its age, and the name that a person's asking gave it.
    fn put_back(&mut self, entry: Entry) -> Option<i64> {
        match self.pending.as_mut() {
            Some(newer) => {
                newer.since = newer.since.min(entry.since);
                Some(if entry.origin == REPLAY { std::mem::replace(&mut newer.origin, REPLAY) } else { entry.origin })
            }
            None => {
                self.pending = Some(entry);
                None
            }
        }
    }

    /// What is due at once is ordered by its age.
    fn make_due(&mut self, now: i64) {
        self.due = self.pending.map_or(now, |entry| entry.since.min(now));
    }

    pub(super) const fn phase(&self) -> Phase {
        if self.claimed.is_some() {
            Phase::Claimed
        } else if self.pending.is_none() {
            Phase::Unsure
        } else if self.waits_for.is_some() {
            Phase::Waits
        } else if self.held || self.intent.is_some() {
            Phase::Ready
        } else {
            Phase::Create
        }
    }

    const fn is_empty(&self) -> bool {
        self.pending.is_none() && self.claimed.is_none() && self.intent.is_none()
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let entry = |origin: usize, since: usize, version: usize| -> rusqlite::Result<Option<Entry>> {
            match row.get::<_, Option<i64>>(origin)? {
                None => Ok(None),
                Some(origin) => Ok(Some(Entry { origin, since: row.get(since)?, version: row.get(version)? })),
            }
        };
        let claimed = match entry(8, 9, 10)? {
            None => None,
            Some(entry) => Some(InFlight { entry, epoch: row.get(11)?, at: row.get(12)? }),
        };
        let intent = match row.get::<_, Option<i64>>(13)? {
            None => None,
            Some(at) => Some(Sent { at, version: row.get(14)?, sent: row.get(15)? }),
        };
        Ok(Self {
            record: row.get(0)?,
            target: row.get(16)?,
            held: row.get(1)?,
            due: row.get(2)?,
            attempts: row.get(3)?,
            waits_for: row.get(4)?,
            pending: entry(5, 6, 7)?,
            claimed,
            intent,
        })
    }

    /// The place of `record` in the lane of `target`.
    pub(super) fn load(connection: &Connection, record: i64, target: i64) -> Result<Option<Self>, StoreError> {
        let mut statement = connection.prepare_cached(concat!("SELECT ", columns!(), " FROM lane WHERE record = ?1 AND target = ?2"))?;
        Ok(statement.query_row(params![record, target], Self::from_row).optional()?)
    }

    /// The places of `record` in all lanes.
    pub(super) fn all_of(connection: &Connection, record: i64) -> Result<Vec<Self>, StoreError> {
        let mut statement = connection.prepare_cached(concat!("SELECT ", columns!(), " FROM lane WHERE record = ?1"))?;
        let rows = statement.query_map(params![record], Self::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Up to `max` places of a lane in one phase that are due by `now`, oldest first.
    pub(super) fn due(
        connection: &Connection,
        realm: i64,
        target: i64,
        phase: Phase,
        now: i64,
        max: usize,
    ) -> Result<Vec<Self>, StoreError> {
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM lane WHERE realm = ?1 AND target = ?2 AND phase = ?3 AND due <= ?4 ORDER BY due, record LIMIT ?5"
        ))?;
        let rows = statement.query_map(params![realm, target, phase as i64, now, limit(max)], Self::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The places that an epoch before `epoch` left in flight.
    pub(super) fn left(connection: &Connection, realm: i64, target: i64, epoch: i64) -> Result<Vec<Self>, StoreError> {
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM lane WHERE realm = ?1 AND target = ?2 AND phase = 3 AND c_epoch < ?3"
        ))?;
        let rows = statement.query_map(params![realm, target, epoch], Self::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Stores the place, or removes it when nothing is left in it.
    pub(super) fn store(&self, connection: &Connection, realm: i64) -> Result<(), StoreError> {
        if self.is_empty() {
            connection.prepare_cached("DELETE FROM lane WHERE record = ?1 AND target = ?2")?.execute(params![self.record, self.target])?;
            return Ok(());
        }
        let (pending, claimed) = (self.pending.as_ref(), self.claimed.as_ref());
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO lane (record, target, realm, phase, due, held, attempts, waits_for, origin, since, version,
                   c_origin, c_since, c_version, c_epoch, c_at, i_at, i_version, i_sent)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
            )?
            .execute(params![
                self.record,
                self.target,
                realm,
                self.phase() as i64,
                self.due,
                self.held,
                self.attempts,
                self.waits_for,
                pending.map(|entry| entry.origin),
                pending.map(|entry| entry.since),
                pending.map(|entry| entry.version),
                claimed.map(|flight| flight.entry.origin),
                claimed.map(|flight| flight.entry.since),
                claimed.map(|flight| flight.entry.version),
                claimed.map(|flight| flight.epoch),
                claimed.map(|flight| flight.at),
                self.intent.as_ref().map(|intent| intent.at),
                self.intent.as_ref().map(|intent| intent.version),
                self.intent.as_ref().map(|intent| intent.sent.as_str()),
            ])?;
        Ok(())
    }
}

pub(super) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// The target holds the record now, so writing it creates nothing.
pub(super) fn mark_held(connection: &Connection, record: i64, target: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE lane SET held = 1, phase = max(phase, 1) WHERE record = ?1 AND target = ?2")?
        .execute(params![record, target])?;
    Ok(())
}

/// The record died or came to life again: in a target without an id for it there is something to create, or not.
pub(super) fn mark_life(connection: &Connection, record: i64, lives: bool) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET held = NOT ?2 OR EXISTS (SELECT 1 FROM identity WHERE identity.record = lane.record AND participant = target)
             WHERE record = ?1",
        )?
        .execute(params![record, lives])?;
    connection
        .prepare_cached("UPDATE lane SET phase = (held OR i_at IS NOT NULL) WHERE record = ?1 AND phase < 2")?
        .execute(params![record])?;
    Ok(())
}

/// Whether anything in a lane waits for another record; the usual answer spares a look-up per newly named record.
pub(super) fn any_waiting(connection: &Connection, realm: i64, target: i64) -> Result<bool, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM lane WHERE realm = ?1 AND target = ?2 AND waits_for IS NOT NULL)")?;
    Ok(statement.query_row(params![realm, target], |row| row.get(0))?)
}

/// The target has an id for `id` now: what waited for it is due at once.
pub(super) fn free_waiting(connection: &Connection, realm: i64, target: i64, id: &IdBytes, now: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET waits_for = NULL, due = min(since, ?4), phase = (held OR i_at IS NOT NULL)
             WHERE realm = ?1 AND target = ?2 AND waits_for = ?3",
        )?
        .execute(params![realm, target, id, now])?;
    Ok(())
}

/// The record `id` is dead: no target will ever get it, and what waits for it is to be judged again.
pub(super) fn free_from_dead(connection: &Connection, realm: i64, id: &IdBytes, now: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE lane SET waits_for = NULL, due = min(since, ?3), phase = (held OR i_at IS NOT NULL) WHERE realm = ?1 AND waits_for = ?2",
        )?
        .execute(params![realm, id, now])?;
    Ok(())
}

/// The record `loser` was folded into `survivor`: what waited for it waits for that one, and is due where the target holds that one.
pub(super) fn free_all_waiting(
    connection: &Connection,
    realm: i64,
    (loser, survivor): (&IdBytes, &IdBytes),
    survivor_row: i64,
    now: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE lane SET waits_for = ?3 WHERE realm = ?1 AND waits_for = ?2")?
        .execute(params![realm, loser, survivor])?;
    connection
        .prepare_cached(
            "UPDATE lane SET waits_for = NULL, due = min(since, ?4), phase = (held OR i_at IS NOT NULL)
             WHERE realm = ?1 AND waits_for = ?2 AND EXISTS (SELECT 1 FROM identity WHERE identity.record = ?3 AND participant = target)",
        )?
        .execute(params![realm, survivor, survivor_row, now])?;
    Ok(())
}
