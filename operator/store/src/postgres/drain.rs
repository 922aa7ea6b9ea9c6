//! The commands that move lanes: `claim`, `intend`, `settle`, `enqueue`.

use super::absorb::{code_of, name_of};
use super::books::write;
use super::codec::{get, stored_ids, uuid_of};
use super::command::{Done, Job};
use super::error::Failure;
use super::image::{Image, Naming};
use super::letters::{self, Opened};
use super::records::{KNOWN, by_ids, known_of};
use super::session::{Session, ask, lock_realm};
use super::{lane, leases, reads, records};
use crate::crash::{Command, Step, reach};
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, REPLAY, decode, encode, haste, id_bytes, record_id, special_origin};
use crate::rows::lane::{Entry, Lane, Phase, Sent, limit, shared_out};
use crate::rows::settle::{Ending, Item, Results};
use crate::{Claim, Claimed, CloseReason, Enqueue, Intend, Intent, Keys, LaneFence, NewDeadLetter, Origin, StoreError};
use async_trait::async_trait;
use fairlead_model::{ErrorClass, RecordId, Timestamp};
use std::collections::{HashMap, HashSet};
use tokio_postgres::Row;
use uuid::Uuid;

// ---- claim ------------------------------------------------------------------------------------------------------------------------------

const TEXTS: &str = "SELECT id, text FROM name WHERE id = ANY($1::int8[])";

#[async_trait]
impl Job for Claim {
    type Answer = Vec<Claimed>;
    const COMMAND: Command = Command::Claim;

    fn names(&self) -> Vec<&str> {
        vec![&self.realm, &self.target]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<Vec<Claimed>>, Failure> {
        let (realm, target) = (session.name(&self.realm)?, session.name(&self.target)?);
        let now = self.now.0;
        // Of what waits for another record: what has waited long enough.
        let due = |phase: Phase, bulk: bool| {
            let may = (self.creates || phase == Phase::Ready) && (self.bulk || !bulk);
            lane::due((realm, target), &self.fence, (phase, bulk), now, if may { limit(self.max) } else { 0 })
        };
        let [_, fence, left, ready, create, waited, bulk_ready, bulk_create, bulk_waited] = session
            .all([
                lock_realm(realm),
                leases::check_lane(&self.fence),
                lane::left(realm, target, &self.fence),
                due(Phase::Ready, false),
                due(Phase::Create, false),
                due(Phase::Waits, false),
                due(Phase::Ready, true),
                due(Phase::Create, true),
                due(Phase::Waits, true),
            ])
            .await?;
        leases::held_lane(&self.fence, &fence)?;
        reach(Command::Claim, Step::Fenced);
        let mut books = Books::default();
        let mut left = left.iter().map(lane::of_row).collect::<Result<Vec<_>, _>>()?;
        for lane in &mut left {
            if let Some(overtaken) = lane.take_over(now) {
                books.superseded((realm, target, overtaken));
            }
        }
        // What was left in flight is due again, like any other.
        let may = |lane: &Lane| {
            let phase = lane.phase();
            lane.due <= now && (self.bulk || !lane.bulk) && (phase == Phase::Ready || (self.creates && phase == Phase::Create))
        };
        let (mut due, untouched): (Vec<_>, Vec<_>) = left.into_iter().partition(may);
        let again: HashSet<i64> = due.iter().map(|lane| lane.record).collect();
        for rows in [ready, create, waited, bulk_ready, bulk_create, bulk_waited] {
            due.extend(rows.iter().map(lane::of_row).collect::<Result<Vec<_>, _>>()?);
        }
        let (mut due, surplus) = shared_out(due, self.max);
        let mut changed = untouched;
        changed.extend(surplus.into_iter().filter(|lane| again.contains(&lane.record)));
        if due.is_empty() && changed.is_empty() {
            return Ok(Done::Nothing(Vec::new()));
        }

        let rows: Vec<i64> = due.iter().map(|lane| lane.record).collect();
        let origins: Vec<i64> = due.iter().filter_map(|lane| lane.pending).map(|entry| entry.origin).filter(|code| *code > 0).collect();
        let [known, texts] = session.all([ask!(KNOWN, rows), ask!(TEXTS, origins)]).await?;
        let texts: HashMap<i64, String> = texts.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<_, Failure>>()?;
        let mut found = HashMap::with_capacity(known.len());
        for row in &known {
            let (_, row, known) = known_of(row)?;
            found.insert(row, known);
        }
        let mut claimed = Vec::with_capacity(due.len());
        for lane in &mut due {
            let Some(mut known) = found.remove(&lane.record) else {
                return Err(StoreError::Unusable(format!("a lane entry of {} names no record", self.target)).into());
            };
            let intent = lane.intent.as_ref().map(open_intent).transpose()?;
            let (attempts, waited) = (lane.attempts, lane.waits_for.is_some());
            let Some(epoch) = self.fence.epoch(lane.record) else { continue };
            let Some(entry) = lane.take(known.record.version.cast_signed(), epoch, now) else { continue };
            // The record was loaded before its place was marked; what the caller gets shows the mark.
            for place in known.lanes.iter_mut().filter(|place| place.target == self.target) {
                place.in_flight = true;
            }
            let origin = match special_origin(entry.origin) {
                Some(origin) => origin,
                None => Origin::Source(texts.get(&entry.origin).cloned().ok_or_else(records::unnamed)?),
            };
            claimed.push(Claimed { known, origin, haste: haste(lane.bulk), since: Timestamp(entry.since), attempts, waited, intent });
        }
        reach(Command::Claim, Step::Partly);
        session.run(lane::store(realm, changed.iter().chain(&due).map(|lane| (lane, true)))).await?;
        reach(Command::Claim, Step::Rows);
        Ok(Done::Commit(claimed, write(books, realm)))
    }
}

fn open_intent(intent: &Sent) -> Result<Intent, StoreError> {
    let sent = decode("intent", &intent.sent)?;
    Ok(Intent { at: Timestamp(intent.at), version: intent.version.cast_unsigned(), sent })
}

// ---- intend -----------------------------------------------------------------------------------------------------------------------------

const INTEND: &str = "UPDATE lane SET i_at = $3, i_version = lane.c_version, i_sent = n.sent
     FROM (SELECT asked.id, asked.sent, r.row FROM unnest($4::uuid[], $5::text[]) AS asked(id, sent) CROSS JOIN LATERAL
           (SELECT row FROM record WHERE realm = $1 AND id = asked.id LIMIT 1) AS r OFFSET 0) AS n
     WHERE lane.record = n.row AND lane.target = $2 AND lane.c_epoch = ($6::int8[])[(n.row % $7)::int4 + 1] RETURNING n.id";

#[async_trait]
impl Job for Intend {
    type Answer = ();
    const COMMAND: Command = Command::Intend;

    fn names(&self) -> Vec<&str> {
        vec![&self.realm, &self.target]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let (realm, target) = (session.name(&self.realm)?, session.name(&self.target)?);
        // Of what is said twice of a key, the last counts.
        let mut sent: HashMap<Uuid, String> = HashMap::with_capacity(self.sent.len());
        for (id, what) in &self.sent {
            sent.insert(id.0, encode(what)?);
        }
        let (ids, texts): (Vec<Uuid>, Vec<String>) = sent.into_iter().unzip();
        let [_, fence] = session.all([lock_realm(realm), leases::check_lane(&self.fence)]).await?;
        leases::held_lane(&self.fence, &fence)?;
        reach(Command::Intend, Step::Fenced);
        reach(Command::Intend, Step::Partly);
        let rows = session.ask(ask!(INTEND, realm, target, self.now.0, ids, texts, self.fence.epochs(), self.fence.count())).await?;
        let claimed = rows.iter().map(|row| get::<Uuid>(row, 0)).collect::<Result<HashSet<_>, _>>()?;
        let unclaimed: Vec<RecordId> = self.sent.iter().map(|(id, _)| *id).filter(|id| !claimed.contains(&id.0)).collect();
        if !unclaimed.is_empty() {
            return Err(StoreError::Conflict(unclaimed).into());
        }
        reach(Command::Intend, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}

// ---- settle -----------------------------------------------------------------------------------------------------------------------------

/// Whether there are any open letters, waiting entries and waiting reads of a target.
const ANY: &str = "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE realm = $1 AND participant = $2 AND stage >= 2 AND closed_at IS NULL),
       EXISTS (SELECT 1 FROM lane WHERE realm = $1 AND target = $2 AND waits_for IS NOT NULL),
       EXISTS (SELECT 1 FROM reread WHERE realm = $1 AND participant = $2 AND waits_for IS NOT NULL)";

/// For each record that is waited for: the one that it lives on in, whether that lives, and whether the target holds it.
const AWAITED: &str = concat!(
    "SELECT r.id, own.id, own.row, own.deleted_at IS NULL,
       EXISTS (SELECT 1 FROM identity WHERE identity.record = own.row AND identity.participant = $2)
     FROM ",
    by_ids!("$3"),
    " CROSS JOIN LATERAL (SELECT * FROM record WHERE record.row = coalesce(r.merged_into, r.row) LIMIT 1) AS own"
);

#[async_trait]
impl Job for Results {
    type Answer = ();
    const COMMAND: Command = Command::Settle;

    fn names(&self) -> Vec<&str> {
        let letters = self.results.iter().filter_map(|item| match &item.ending {
            Ending::DeadLetter(letter) => Some(letter.participant.as_str()),
            _ => None,
        });
        [self.realm.as_str(), self.target.as_str()].into_iter().chain(letters).collect()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let (realm, target) = (session.name(&self.realm)?, session.name(&self.target)?);
        let mut settling = self.load(session, (realm, target)).await?;
        reach(Command::Settle, Step::Fenced);
        let mut conflicts = Vec::new();
        for item in &self.results {
            if !settling.result(item) {
                conflicts.push(item.id);
            }
        }
        if !conflicts.is_empty() {
            return Err(StoreError::Conflict(conflicts).into());
        }
        let Settling { image, mut books, letters_open, arrived, letters, named, .. } = settling;
        let mut rows = image.writes(session, self.now.0)?;
        rows.extend(reads::free(realm, target, named));
        reach(Command::Settle, Step::Partly);
        session.run(rows).await?;

        let mut asks = Vec::new();
        if letters_open && !arrived.is_empty() {
            asks.push(letters::written_well(realm, target, &arrived, self.now));
        }
        if !letters.is_empty() {
            let opened = letters.iter().map(|(letter, origin)| {
                Ok(Opened { letter, participant: session.name(&letter.participant)?, lane: Some((target, *origin)) })
            });
            asks.extend(letters::add(&mut books, realm, &opened.collect::<Result<Vec<_>, Failure>>()?, self.now)?);
        }
        if !asks.is_empty() {
            for closed in session.run(asks).await? {
                letters::tell(&mut books, &closed, CloseReason::Superseded)?;
            }
        }
        reach(Command::Settle, Step::Rows);
        // The target's states know of the sequence of this very commit.
        let mut last = image.identity_writes();
        last.extend(write(books, realm));
        Ok(Done::Commit((), last))
    }
}

impl Results {
    /// Checks the lease, and loads everything that the results are decided on.
    async fn load(&self, session: &Session, (realm, target): (i64, i64)) -> Result<Settling<'_>, Failure> {
        let ids: Vec<Uuid> = self.results.iter().map(|item| item.id.0).collect();
        let external_ids = stored_ids(self.results.iter().filter_map(|item| item.learnt.as_ref()).map(|(id, _)| id.as_str()));
        let awaited: Vec<Uuid> = self
            .results
            .iter()
            .filter_map(|item| match &item.ending {
                Ending::WaitFor(record) | Ending::Delivered(Some(record)) => Some(uuid_of(*record)),
                _ => None,
            })
            .collect();
        let [records, identities, lanes] = Image::ask(realm, &ids);
        let [_, fence, any, records, identities, lanes, owners, awaited] = session
            .all([
                lock_realm(realm),
                leases::check_lane(&self.fence),
                ask!(ANY, realm, target),
                records,
                identities,
                lanes,
                records::owners(realm, target, external_ids),
                ask!(AWAITED, realm, target, awaited),
            ])
            .await?;
        leases::held_lane(&self.fence, &fence)?;
        let mut image = Image::of(realm, [&records, &identities, &lanes])?;
        image.add_owners(target, &owners)?;
        let [any] = any.as_slice() else { return Err(StoreError::Other("the database did not answer".into()).into()) };
        Ok(Settling {
            image,
            awaited: awaited.iter().map(Awaited::of).collect::<Result<_, _>>()?,
            realm,
            target,
            fence: &self.fence,
            letters_open: get(any, 0)?,
            lanes_wait: get(any, 1)?,
            reads_wait: get(any, 2)?,
            arrived: Vec::new(),
            letters: Vec::new(),
            named: Vec::new(),
            books: Books::default(),
            now: self.now,
        })
    }
}

/// What is known of a record that is waited for.
struct Awaited {
    /// The record that it lives on in.
    id: IdBytes,
    row: i64,
    lives: bool,
    held: bool,
}

impl Awaited {
    fn of(row: &Row) -> Result<(IdBytes, Self), Failure> {
        let own = Self { id: get::<Uuid>(row, 1)?.into_bytes(), row: get(row, 2)?, lives: get(row, 3)?, held: get(row, 4)? };
        Ok((get::<Uuid>(row, 0)?.into_bytes(), own))
    }
}

/// Results under way.
struct Settling<'c> {
    image: Image<'c>,
    awaited: HashMap<IdBytes, Awaited>,
    realm: i64,
    target: i64,
    fence: &'c LaneFence,
    letters_open: bool,
    lanes_wait: bool,
    reads_wait: bool,
    /// Records whose open letters of this target are void.
    arrived: Vec<IdBytes>,
    /// Letters to be opened, with the origins of the entries that end in them.
    letters: Vec<(&'c NewDeadLetter, i64)>,
    /// External ids that reads may wait for and that stand for a record since now.
    named: Vec<&'c str>,
    books: Books,
    now: Timestamp,
}

impl<'c> Settling<'c> {
    /// Settles one key; `false` when its external id is another record's, or the record has another one in this target.
    fn result(&mut self, item: &'c Item) -> bool {
        let Self { realm, target, now, .. } = *self;
        let id = id_bytes(item.id);
        let Some((row, lives)) = self.image.find(&id).map(|stored| (stored.row, stored.lives)) else {
            return self.ignored(&id, "the record is gone");
        };
        let Some(lane) = self.image.lane(row, target) else { return self.ignored(&id, "it is settled already") };
        let Some(flight) = lane.claimed else { return self.ignored(&id, "it is not claimed") };
        if self.fence.epoch(row) != Some(flight.epoch) || item.version < flight.entry.version {
            return self.ignored(&id, "it was claimed anew since");
        }
        let key = (realm, target, flight.entry.origin);
        if let Some((external_id, state)) = &item.learnt
            && !self.learn(id, (row, lives), external_id, state)
        {
            return false;
        }
        match &item.ending {
            Ending::Delivered(incomplete) => {
                self.books.delivered(key, now);
                self.arrived.push(id);
                self.with_lane(row, |lane| lane.finish(now.0, false));
                if let Some(awaited) = incomplete {
                    self.complete_later(row, flight.entry, awaited);
                }
            }
            Ending::Unchanged => {
                self.books.unchanged(key);
                self.arrived.push(id);
                self.with_lane(row, |lane| lane.finish(now.0, false));
            }
            Ending::Filtered(reason) => {
                self.books.filtered(key, reason);
                // What does not belong there any more need not be delivered any more.
                self.arrived.push(id);
                let held = self.with_lane(row, |lane| {
                    lane.finish(now.0, false);
                    lane.held
                });
                // Nor will it come for those who wait for it.
                if self.lanes_wait && held == Some(false) {
                    self.image.free_waiting(target, id, now.0);
                }
            }
            Ending::Retry { at, attempt, unknown } => {
                let overtaken = self.with_lane(row, |lane| lane.retry(*at, (*attempt, *unknown), now.0));
                self.superseded(overtaken.flatten());
            }
            Ending::WaitFor(record) => {
                self.lanes_wait = true;
                let (decided, record) = self.is_decided(record);
                let overtaken = self.with_lane(row, |lane| lane.wait((!decided).then_some(record), now.0));
                self.superseded(overtaken.flatten());
            }
            Ending::DeadLetter(letter) => {
                self.letters.push((letter, flight.entry.origin));
                self.with_lane(row, |lane| lane.finish(now.0, letter.class == ErrorClass::UnknownOutcome));
            }
        }
        true
    }

    fn with_lane<T>(&mut self, row: i64, how: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        self.image.with_lane(row, self.target, how)
    }

    fn superseded(&mut self, origin: Option<i64>) {
        if let Some(origin) = origin {
            self.books.superseded((self.realm, self.target, origin));
        }
    }

    /// A result that no claim of this epoch stands for: it was settled before (the answer to an earlier `settle` was lost).
    fn ignored(&self, id: &IdBytes, why: &str) -> bool {
        tracing::debug!(record = %record_id(*id), target = self.target, why, "a result was ignored");
        true
    }

    /// The target's id and state of the record.
    fn learn(&mut self, id: IdBytes, (row, lives): (i64, bool), external_id: &'c str, state: &'c str) -> bool {
        let Self { target, now, .. } = *self;
        match self.image.name((row, target), external_id, state, None) {
            Naming::Conflict => return false,
            Naming::Known => {}
            Naming::New => {
                self.image.mark_held(row, target);
                if self.lanes_wait {
                    self.image.free_waiting(target, id, now.0);
                }
                if self.reads_wait {
                    self.named.push(external_id);
                }
                self.image.count(&mut self.books, row, (lives, lives), true);
            }
        }
        true
    }

    /// What was delivered without a reference enters the lane again and waits for the record `awaited`. A newer entry does that by itself.
    fn complete_later(&mut self, row: i64, entry: Entry, awaited: &IdBytes) {
        let Self { target, now, .. } = *self;
        if self.image.lane(row, target).is_some_and(|lane| lane.pending.is_some()) {
            return;
        }
        let held = self.image.is_held(row, target);
        let (decided, awaited) = self.is_decided(awaited);
        self.image.enter(&mut self.books, (row, target), (entry.origin, entry.version, false), (now.0, now.0), held);
        self.with_lane(row, |lane| lane.wait_for((!decided).then_some(awaited), now.0));
        self.lanes_wait = true;
    }

    /// Whether there is no more to wait for with a record, or the one that it was folded into (the target holds it, or it is dead), and which of
    /// them that is.
    fn is_decided(&self, record: &IdBytes) -> (bool, IdBytes) {
        match self.awaited.get(record) {
            Some(own) => (!own.lives || own.held || self.image.is_held(own.row, self.target), own.id),
            None => (false, *record),
        }
    }
}

// ---- enqueue ----------------------------------------------------------------------------------------------------------------------------

/// So many records enter a lane at a time; `All` takes as many rounds as it needs.
const ROUND: usize = 2_000;

const NEXT_LIVE: &str = "SELECT id, row FROM record WHERE row > $2 AND realm = $1 AND deleted_at IS NULL ORDER BY row LIMIT $3";

#[async_trait]
impl Job for Enqueue {
    type Answer = u64;
    const COMMAND: Command = Command::Enqueue;

    fn names(&self) -> Vec<&str> {
        [self.realm.as_str(), self.target.as_str()].into_iter().chain(name_of(&self.origin)).collect()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<u64>, Failure> {
        let (realm, target) = (session.name(&self.realm)?, session.name(&self.target)?);
        session.ask(lock_realm(realm)).await?;
        let mut books = Books::default();
        let mut entered = 0;
        match &self.keys {
            Keys::Records(ids) => {
                for round in ids.chunks(ROUND) {
                    let ids: Vec<Uuid> = round.iter().map(|id| id.0).collect();
                    entered += self.round(session, &mut books, (realm, target), &ids).await?;
                }
            }
            Keys::DeadLetters => {
                for ids in letters::replay(session, &mut books, (realm, target), self.now).await?.chunks(ROUND) {
                    entered += self.round(session, &mut books, (realm, target), ids).await?;
                }
            }
            Keys::All => {
                let mut last = 0_i64;
                loop {
                    let rows = session.ask(ask!(NEXT_LIVE, realm, last, limit(ROUND))).await?;
                    let Some(end) = rows.last() else { break };
                    last = get(end, 1)?;
                    let ids = rows.iter().map(|row| get::<Uuid>(row, 0)).collect::<Result<Vec<_>, _>>()?;
                    entered += self.round(session, &mut books, (realm, target), &ids).await?;
                }
            }
        }
        reach(Command::Enqueue, Step::Rows);
        Ok(Done::Commit(entered, write(books, realm)))
    }
}

impl Enqueue {
    async fn round(&self, session: &Session, books: &mut Books, (realm, target): (i64, i64), ids: &[Uuid]) -> Result<u64, Failure> {
        let code = code_of(session, &self.origin)?;
        let [records, identities, lanes] = session.all(Image::ask(realm, ids)).await?;
        let mut image = Image::of(realm, [&records, &identities, &lanes])?;
        let mut entered = 0;
        for id in ids {
            let Some((row, version, lives)) = image.find(id.as_bytes()).map(|stored| (stored.row, stored.version, stored.lives)) else {
                continue;
            };
            let held = !lives || image.is_held(row, target);
            image.enter(books, (row, target), (code, version, code == REPLAY), (self.now.0, self.now.0), held);
            entered += 1;
        }
        session.run(image.writes(session, self.now.0)?).await?;
        reach(Command::Enqueue, Step::Partly);
        Ok(entered)
    }
}
