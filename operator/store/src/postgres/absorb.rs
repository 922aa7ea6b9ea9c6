//! The command `absorb`: a batch of observed changes becomes durable.

use super::books::{write, write_guard, write_source};
use super::codec::{get, stored_ids};
use super::command::{Done, Job};
use super::error::Failure;
use super::image::{Image, Naming};
use super::letters::{self, Opened};
use super::session::{Session, ask, lock_realm};
use super::{checkpoints, history, leases, reads, records};
use crate::crash::{Command, Step, reach};
use crate::rows::absorb::{Batch, Change, Item};
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, REPLAY, id_bytes, origin_code};
use crate::{CloseReason, Haste, Origin, StoreError};
use async_trait::async_trait;
use fairlead_model::Timestamp;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Whether there are any open letters, waiting entries and waiting reads of a participant: the usual answer spares looking for each record's.
const ANY: &str = "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE realm = $1 AND participant = $2 AND stage <= 1 AND closed_at IS NULL),
       EXISTS (SELECT 1 FROM lane WHERE realm = $1 AND target = $2 AND waits_for IS NOT NULL),
       EXISTS (SELECT 1 FROM reread WHERE realm = $1 AND participant = $2 AND waits_for IS NOT NULL)";

/// The code of an origin, for the books.
pub(super) fn code_of(session: &Session, origin: &Origin) -> Result<i64, Failure> {
    origin_code(origin).or_else(|participant| session.name(participant))
}

/// The name that an origin needs an id for.
pub(super) fn name_of(origin: &Origin) -> Option<&str> {
    origin_code(origin).err().map(String::as_str)
}

#[async_trait]
impl Job for Batch {
    type Answer = ();
    const COMMAND: Command = Command::Absorb;

    fn names(&self) -> Vec<&str> {
        let mut names = BTreeSet::from([self.realm.as_str(), self.participant.as_str(), self.guard.book(&self.realm)]);
        names.extend(self.dead_letters.iter().map(|letter| letter.participant.as_str()));
        for item in &self.records {
            if let Change::Insert(body) | Change::Update(body) = &item.change {
                names.insert(&body.home);
            }
            for (target, origin) in &item.enqueue {
                names.insert(target);
                names.extend(name_of(origin));
            }
        }
        names.into_iter().collect()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let (realm, participant) = (session.name(&self.realm)?, session.name(&self.participant)?);
        let mut work = self.load(session, (realm, participant)).await?;
        reach(Command::Absorb, Step::Fenced);
        let mut refused = Vec::new();
        for item in &self.records {
            if !work.item(item)? {
                refused.push(item.id);
            }
        }
        if !refused.is_empty() {
            return Err(StoreError::Conflict(refused).into());
        }
        let Work { image, mut books, letters_open, named, .. } = work;

        let mut rows = image.writes(session, self.now.0)?;
        rows.extend(image.identity_writes());
        rows.extend(write_guard((realm, session.name(self.guard.book(&self.realm))?), &self.guard, self.now));
        rows.extend(history::add((realm, participant), &self.history, self.now));
        reach(Command::Absorb, Step::Partly);
        session.run(rows).await?;
        reach(Command::Absorb, Step::Rows);

        self.write_letters(session, &mut books, (realm, participant), letters_open).await?;
        reach(Command::Absorb, Step::DeadLetters);

        let mut asks = Vec::new();
        asks.extend(reads::free(realm, participant, named));
        asks.extend(reads::done((realm, participant), self.reread_done.iter().map(String::as_str), self.began));
        if let Some((slice, cursor, complete)) = &self.checkpoint {
            asks.push(checkpoints::put(realm, participant, (slice, cursor, *complete), self.now));
        }
        if !asks.is_empty() {
            session.run(asks).await?;
        }
        reach(Command::Absorb, Step::Reads);

        for _ in 0..self.direct {
            let book = (realm, participant, code_of(session, &Origin::Api)?);
            books.entered(book);
            books.delivered(book, self.now);
        }
        let rereads: Vec<(&str, Option<&str>)> = self.rereads.iter().map(|(id, after)| (id.as_str(), after.as_deref())).collect();
        let mut last = write(books, realm);
        last.extend(write_source(realm, participant, &self.source));
        let waiting = rereads.iter().filter(|(_, after)| after.is_some()).map(|(id, _)| *id);
        last.extend(reads::wait_no_more((realm, participant), waiting));
        last.extend(reads::request((realm, participant), &rereads, Haste::Soon, self.now));
        Ok(Done::Commit((), last))
    }
}

impl Batch {
    /// Checks the lease, and loads everything that the batch is decided on.
    async fn load<'s, 'c>(&'c self, session: &'s Session, (realm, participant): (i64, i64)) -> Result<Work<'s, 'c>, Failure> {
        let ids: Vec<Uuid> = self.records.iter().map(|item| item.id.0).collect();
        let bodies = || {
            self.records.iter().filter_map(|item| match &item.change {
                Change::Insert(body) => Some(body),
                _ => None,
            })
        };
        let hashes: Vec<i64> = bodies().flat_map(|body| body.keys.matching.iter().copied()).collect();
        // Of those that carry a key, all may be in this batch and give it up.
        let most = i64::try_from(self.records.len() + 1).unwrap_or(i64::MAX);
        let external_ids = stored_ids(self.records.iter().map(|item| item.external_id.as_str()));
        let [records, identities, lanes] = Image::ask(realm, &ids);
        let [_, fence, any, records, identities, lanes, owners, carriers, fresh] = session
            .all([
                lock_realm(realm),
                leases::check(&self.fence),
                ask!(ANY, realm, participant),
                records,
                identities,
                lanes,
                records::owners(realm, participant, external_ids),
                records::carriers(realm, hashes, most),
                records::fresh(bodies().count()),
            ])
            .await?;
        leases::held(&self.fence, &fence)?;
        let mut image = Image::of(realm, [&records, &identities, &lanes])?;
        image.add_owners(participant, &owners)?;
        image.add_carriers(&carriers)?;
        image.add_fresh(&fresh)?;
        let [any] = any.as_slice() else { return Err(StoreError::Other("the database did not answer".into()).into()) };
        Ok(Work {
            session,
            image,
            participant,
            letters_open: get(any, 0)?,
            lanes_wait: get(any, 1)?,
            reads_wait: get(any, 2)?,
            named: Vec::new(),
            books: Books::default(),
            now: self.now,
        })
    }

    /// Closes letters of what was read well and of what is gone, and opens those of the batch.
    async fn write_letters(
        &self,
        session: &Session,
        books: &mut Books,
        (realm, participant): (i64, i64),
        letters_open: bool,
    ) -> Result<(), Failure> {
        let mut asks = Vec::new();
        if letters_open && !self.records.is_empty() {
            asks.push(letters::read_well(realm, participant, self.records.iter().map(|item| item.external_id.as_str()), self.now));
        }
        if !self.dead_letters.is_empty() {
            let opened =
                self.dead_letters.iter().map(|letter| Ok(Opened { letter, participant: session.name(&letter.participant)?, lane: None }));
            asks.extend(letters::add(books, realm, &opened.collect::<Result<Vec<_>, Failure>>()?, self.now)?);
        }
        if letters_open && !self.gone.is_empty() {
            asks.push(letters::read_well(realm, participant, self.gone.iter().map(String::as_str), self.now));
        }
        if !asks.is_empty() {
            for closed in session.run(asks).await? {
                letters::tell(books, &closed, CloseReason::Superseded)?;
            }
        }
        Ok(())
    }
}

/// A batch under way.
struct Work<'s, 'c> {
    session: &'s Session,
    image: Image<'c>,
    participant: i64,
    letters_open: bool,
    lanes_wait: bool,
    reads_wait: bool,
    /// External ids that reads may wait for and that stand for a record since now.
    named: Vec<&'c str>,
    books: Books,
    now: Timestamp,
}

impl<'c> Work<'_, 'c> {
    /// Decides on one record; `false` when somebody else was there first.
    fn item(&mut self, item: &'c Item) -> Result<bool, Failure> {
        let Self { participant, now, .. } = *self;
        let id: IdBytes = id_bytes(item.id);
        let stored = self.image.find(&id).map(|stored| (stored.row, stored.version, stored.lives, stored.merged_into));
        if stored.is_some_and(|stored| stored.3.is_some()) {
            return Ok(false);
        }
        let is_new = stored.is_none();
        let (row, version, lived, lives) = match (&item.change, stored) {
            (Change::Keep(wanted), Some((row, version, lives, _))) if version == *wanted => (row, version, lives, lives),
            // Two readers may decide at the same time that a record is new. The second one to commit must look again, and will match.
            (Change::Insert(body), None) if self.image.is_matched(body) => return Ok(false),
            (Change::Insert(body), None) => (self.image.insert(id, body)?, body.version, false, body.lives()),
            (Change::Update(body), Some((row, version, lives, _))) if version + 1 == body.version => {
                self.image.update(&id, body);
                (row, body.version, lives, body.lives())
            }
            _ => return Ok(false),
        };
        let added = match self.image.name((row, participant), &item.external_id, &item.state, Some(item.settled)) {
            Naming::Conflict => return Ok(false),
            Naming::New => true,
            // A write went into flight since the reader looked: its settlement will put down the state that it began with, and what was
            // read would be forgotten.
            Naming::Known if item.changed && self.image.lane(row, participant).is_some_and(|lane| lane.claimed.is_some()) => {
                return Ok(false);
            }
            Naming::Known => false,
        };
        if added {
            self.image.mark_held(row, participant);
            if self.lanes_wait {
                self.image.free_waiting(participant, id, now.0);
            }
            if self.reads_wait {
                self.named.push(&item.external_id);
            }
        }
        self.image.count(&mut self.books, row, (lived, lives), added);
        if !is_new && lived != lives {
            self.image.mark_life(row, lives);
            if !lives {
                self.image.free_from_dead(id, now.0);
            }
        }
        for (target, origin) in &item.enqueue {
            let target = self.session.name(target)?;
            let held = !lives || self.image.is_held(row, target);
            let code = code_of(self.session, origin)?;
            self.image.enter(&mut self.books, (row, target), (code, version, code == REPLAY), (now.0, now.0), held);
        }
        Ok(true)
    }
}
