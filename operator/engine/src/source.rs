//! The reader of one participant: from pages and requested keys to committed changes.
//!
//! Flow: hold the reader lease; read what was asked for by key; read pages until the present is reached; wait for the next poll or for a
//! request. What cannot be read by key holds up neither the others nor the pages: it is asked for again ever more rarely, and becomes a dead
//! letter. What can only be listed is read again by reading the list from its beginning. Each batch is mapped, identified, decided ([`crate::decide::inbound`]) and absorbed in one transaction with the checkpoint, so
//! a crash anywhere repeats reading and loses nothing.

use crate::crash;
use crate::decide::guard::{self, Window};
use crate::decide::inbound::{self, Context, Decision, ReadRecord};
use crate::decide::merge;
use crate::decide::ownership;
use crate::decide::priority;
use crate::decide::share::Reader;
use crate::edits::{self, Edit, Edits};
use crate::lease::{Lease, RENEW};
use crate::look_up::{Asked, read_apart};
use crate::neighbours::Seat;
use crate::program::Participant;
use crate::shared::{Shared, lock};
use crate::way::{SourceTimes, Span, Way};
use fairlead_mapping::Inbound;
use fairlead_model::hash::ValueHash;
use fairlead_model::state::ParticipantState;
use fairlead_model::unit::InitialLoad;
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, Timestamp, document, realm};
use fairlead_store::{
    Absorb, AbsorbRecord, Checkpoint, DeadLetterFilter, Fence, GuardCounts, Guarded, Haste, Known, Merge, NewDeadLetter, RecordChange,
    Stage, StoreError, Survivor,
};
use fairlead_systems::{NativeRecord, ReadRequest, Unusable};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// So many letters are looked at for a row without an id that is known already.
const UNUSABLE: usize = 1000;
/// So many letters of a participant are looked through for what a deletion makes room for; where there are more, a person replays.
const TURNED_AWAY: usize = 1000;
/// Records read by key in one call.
const KEYS_PER_READ: usize = 200;
/// So many calls of them, and then it is the pages' turn: a backfill must not keep them waiting. The last one is for what has time, however much
/// there is that has not.
const READS_PER_TURN: usize = 5;
/// Records that refer to a merged one, rewritten in one transaction.
const REFERRING: usize = 500;
/// How often a batch is decided again after a conflict, before it is left to the next read.
const CONFLICT_RETRIES: u32 = 8;
/// The wait after a failed read, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// While its connector sends nothing at all, a reader looks this often whether that is over; nobody is asked for it.
const BLOCKED: Duration = Duration::from_secs(5);
/// The wait before keys are read again that could not be taken because a write was in flight; doubles up to the poll's own time.
const STALE: Duration = Duration::from_millis(500);
/// The wait before a record is asked for again that could not be read by its key, at first and at most.
const UNREADABLE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Records that are looked for in one reading of a list.
const KEYS_PER_LIST: usize = 100_000;
/// While another process holds the lease, it is asked for this often.
const CAMPAIGN: Duration = Duration::from_secs(1);
/// The note that remembers which overrun of the guard a person confirmed.
const CONFIRMED: &str = "guard.confirmed";

/// Why a round of reading ended early.
enum Stop {
    /// Trouble that passes or that somebody mends; try again after a wait.
    Remote(RemoteError),
    /// The store refuses.
    Store(StoreError),
    /// The guard holds the Integration.
    Guarded,
    /// The Integration stops.
    Cancelled,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A record that could not be read by its key.
struct Unreadable {
    /// How often, while everything else could be read.
    attempts: u32,
    /// Not asked for again before.
    until: Instant,
    /// Why; of this round.
    error: Option<RemoteError>,
    /// Where the store stood when it was last asked for.
    began: u64,
}

/// A list that is read from its beginning for what was asked for by key, as far as it has come.
struct Anew {
    /// What it is still to show.
    asked: BTreeSet<ExternalId>,
    haste: Haste,
    /// Where it goes on; nothing at its beginning.
    cursor: Option<Value>,
    begun: Begun,
}

/// When a list was begun: under which lease, and whether all was loaded. Under another one somebody else may have read, or set a checkpoint.
#[derive(PartialEq, Eq)]
struct Begun {
    epoch: u64,
    loaded: bool,
}

/// What a round was.
enum Round {
    /// Another process reads.
    Theirs,
    /// More of what was asked for by key.
    Keys,
    /// All that there is to read.
    All,
}

/// The reader of one participant.
pub(crate) struct Source {
    shared: Arc<Shared>,
    index: usize,
    lease: Lease,
    /// Where it waits for the reader to be given back, while that is another process's.
    seat: Seat,
    /// Dead letters already written, by external id: the lag window shows the same bad record again and again.
    parked: HashMap<ExternalId, u64>,
    /// Something is to be read again by key soon, and for how many rounds that has been so.
    stale: bool,
    stale_rounds: u32,
    /// More was asked for by key than one turn has room for.
    more: bool,
    /// What was asked for by key and has time waits until the quota has some for it.
    held_back: bool,
    /// The list that is read anew. Where that is cut off, it goes on here and not from its beginning.
    anew: Option<Anew>,
    /// When the pages were last read to the present.
    polled: Option<Instant>,
    /// Somebody wants the next round to be a whole one.
    woken: bool,
    /// Records that were asked for and could not be read by their keys.
    unreadable: HashMap<ExternalId, Unreadable>,
    /// What was noted of its being refused.
    refused: Option<bool>,
    way: Way,
    /// When the batch in hand was read, if anybody wants to know.
    read: Span,
}

impl Source {
    /// The reader of the participant at `index`.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let (lease, seat) = (shared.reader_lease(index), shared.reader_seat(index));
        let way = shared.way(index);
        let (parked, unreadable) = (HashMap::new(), HashMap::new());
        Self {
            shared,
            index,
            lease,
            seat,
            parked,
            stale: false,
            stale_rounds: 0,
            more: false,
            held_back: false,
            anew: None,
            polled: None,
            woken: false,
            unreadable,
            refused: None,
            way,
            read: None,
        }
    }

    fn participant(&self) -> &Participant {
        &self.shared.program.participants[self.index]
    }

    fn name(&self) -> &str {
        &self.participant().unit.name
    }

    /// The time between two polls.
    fn every(&self) -> Duration {
        self.participant().unit.read.as_ref().map_or(Duration::from_secs(60), |read| read.every)
    }

    /// Reads until the Integration stops.
    pub(crate) async fn run(mut self) {
        let every = self.every();
        let mut wait = RETRY.0;
        loop {
            let result = self.round().await;
            self.tell_refused(&result).await;
            let reads = matches!(result, Ok(Round::Keys | Round::All));
            let facts = &self.shared.participants[self.index];
            let pause = match result {
                Ok(round @ (Round::Keys | Round::All)) => {
                    wait = RETRY.0;
                    *lock(&facts.paused) = None;
                    if matches!(round, Round::All) {
                        *lock(&facts.last_read) = Some((self.shared.now(), Instant::now()));
                    }
                    // Not at once: a write in flight takes its time, and each look costs the vendor's quota.
                    let unread = self.stale || self.more || self.held_back || !self.unreadable.is_empty();
                    facts.unread.store(unread, Ordering::Release);
                    self.stale_rounds = if std::mem::take(&mut self.stale) { self.stale_rounds + 1 } else { 0 };
                    let every = if self.stale_rounds == 0 { every } else { every.min(STALE * 2u32.pow(self.stale_rounds.min(8) - 1)) };
                    // While the quota has none left for what has time, those of it cannot be tried again, and nobody is asked the more often.
                    let unreadable = self.unreadable.values().filter(|_| !self.held_back);
                    let due = unreadable.map(|unreadable| unreadable.until).min();
                    let every = due.map_or(every, |due| every.min(due.saturating_duration_since(Instant::now()).max(STALE)));
                    if self.more { Duration::ZERO } else { every }
                }
                Ok(Round::Theirs) => {
                    // How it is with the participant, another process knows.
                    *lock(&facts.last_read) = None;
                    *lock(&facts.paused) = None;
                    CAMPAIGN
                }
                Err(Stop::Cancelled) => break,
                Err(Stop::Guarded) => {
                    // Only a new unit (a raised limit, a confirmation) ends this.
                    self.shared.cancel.cancelled().await;
                    break;
                }
                Err(Stop::Store(StoreError::Fenced { .. })) => {
                    self.lease.lost();
                    CAMPAIGN
                }
                Err(Stop::Store(_)) => {
                    wait = (wait * 2).min(RETRY.1);
                    wait
                }
                Err(Stop::Remote(error)) => {
                    self.shared.failed(self.index, None, None, &error);
                    tracing::debug!(integration = %self.shared.integration, participant = self.name(), reason = %error.reason, "read failed");
                    if needs_mending(&error) {
                        *lock(&facts.paused) = Some(error.clone());
                    }
                    let blocked = self.shared.connection(self.index).is_ok_and(|connection| connection.blocked().is_some());
                    let pause = error.retry_after.unwrap_or(wait);
                    wait = (wait * 2).min(RETRY.1);
                    pause.min(if blocked { BLOCKED } else { Duration::from_secs(300) })
                }
            };
            if !self.wait(pause, reads).await {
                break;
            }
        }
        self.lease.release().await;
        self.seat.rise().await;
    }

    /// Others that feed the same records wait at first until this has read once, but not for somebody to mend something.
    async fn tell_refused(&mut self, result: &Result<Round, Stop>) {
        let refused = match result {
            Ok(Round::Keys | Round::All) => false,
            Err(Stop::Remote(error)) if needs_mending(error) => true,
            _ => return,
        };
        if self.refused != Some(refused) {
            let noted = self.shared.note_refused(self.index, refused).await;
            self.shared.store_result(&noted);
            self.refused = noted.ok().map(|()| refused);
        }
    }

    /// Waits for the next round, which begins sooner if somebody asks for it; `false` if there is none. Where processes share readers, one that `reads`
    /// well keeps its lease meanwhile: a reader that moved with every poll would poll the more often, the more processes there are.
    async fn wait(&mut self, pause: Duration, reads: bool) -> bool {
        let (shared, next) = (Arc::clone(&self.shared), Instant::now() + pause);
        let keeps = reads && shared.around.neighbours.share();
        let mut renew = Instant::now() + RENEW;
        loop {
            let (held, facts) = (self.lease.is_held(), &shared.participants[self.index]);
            facts.reads.store(held, Ordering::Release);
            tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return false,
                () = facts.wake_reader.notified() => {
                    self.woken = true;
                    return true;
                }
                () = facts.leases_moved.notified() => {
                    if !held || shared.turn_of_reader(self.index) == Reader::Give {
                        return true;
                    }
                }
                () = tokio::time::sleep_until(next) => return true,
                () = tokio::time::sleep_until(renew), if keeps && held => {
                    renew = Instant::now() + RENEW;
                    if !matches!(self.lease.ensure().await, Ok(Some(_))) {
                        return true;
                    }
                }
            }
        }
    }

    /// One round: requested keys, then pages until the present.
    async fn round(&mut self) -> Result<Round, Stop> {
        let (more, woken) = (std::mem::take(&mut self.more), std::mem::take(&mut self.woken));
        // Who cannot read leaves it to others.
        if let Some(error) = self.shared.connection(self.index).map_err(Stop::Remote)?.blocked() {
            return Err(Stop::Remote(error));
        }
        if !self.is_its_turn().await? {
            return Ok(Round::Theirs);
        }
        let Some(mut fence) = self.fence().await? else { return Ok(Round::Theirs) };
        self.read_requested(&mut fence).await?;
        // However much is asked for by key, the pages are polled no more often for it.
        if more && !woken && self.polled.is_some_and(|polled| polled.elapsed() < self.every()) {
            return Ok(Round::Keys);
        }
        for slice in self.shared.slices(self.index) {
            self.read_pages(&slice, &mut fence).await?;
        }
        // Records that came in late may have set free readings by key. Only then its records are all that they can be.
        self.read_requested(&mut fence).await?;
        self.give_up_unreadable(&fence).await?;
        self.polled = Some(Instant::now());
        self.shared.participants[self.index].complete.store(true, Ordering::Release);
        if self.shared.loaded() {
            self.shared.note_loaded().await?;
            self.shared.participants.iter().for_each(|facts| facts.wake_lane.notify_one());
        }
        Ok(Round::All)
    }

    /// Whether this process is to read, as far as processes share readers; gives the reader back to one that reads less.
    async fn is_its_turn(&mut self) -> Result<bool, Stop> {
        match self.shared.turn_of_reader(self.index) {
            Reader::Read => {
                self.seat.rise().await;
                return Ok(true);
            }
            Reader::Give => {
                tracing::debug!(integration = %self.shared.integration, participant = self.name(), "reader is given back for another process");
                self.lease.release().await;
            }
            Reader::Seat => self.seat.sit().await?,
            Reader::Wait => self.seat.rise().await,
        }
        Ok(false)
    }

    async fn fence(&mut self) -> Result<Option<Fence>, Stop> {
        if self.shared.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        // One reader's overrun holds them all.
        if self.shared.guarded() {
            return Err(Stop::Guarded);
        }
        let result = self.lease.ensure().await;
        self.shared.store_result(&result);
        Ok(result?)
    }

    async fn renew(&mut self, fence: &mut Fence) -> Result<(), Stop> {
        match self.fence().await? {
            // Where the lease was ended in between (a checkpoint was set by hand, say), what is in hand goes on from nowhere.
            Some(renewed) if renewed.epoch == fence.epoch => {
                *fence = renewed;
                Ok(())
            }
            _ => Err(Stop::Store(StoreError::Fenced { key: fence.key.clone() })),
        }
    }

    /// Whether the entity can be listed and not read by key.
    fn only_lists(&self) -> bool {
        let connection = self.shared.connection(self.index).ok();
        let entity = connection.as_ref().and_then(|connection| connection.entity(&self.participant().unit.entity));
        entity.is_some_and(|entity| !entity.can_read_keys())
    }

    /// Reads the keys that somebody asked for: stale reads, conflicts, changed rows, references that have come.
    async fn read_requested(&mut self, fence: &mut Fence) -> Result<(), Stop> {
        if self.only_lists() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let participant = &shared.program.participants[self.index];
        let mut read_before: Vec<Vec<ExternalId>> = vec![Vec::new(); 2];
        for turn in 0.. {
            // Until the first load is complete its pages need all that they refer to.
            if turn >= READS_PER_TURN && shared.is_read(self.index) {
                self.more = true;
                break;
            }
            self.renew(fence).await?;
            let store = Arc::clone(&shared.around.store);
            let connection = shared.connection(self.index).map_err(Stop::Remote)?;
            let loaded = shared.is_read(self.index);
            let mut due = self.due_reads().await?;
            self.hold_back(&mut due[1], loaded)?;
            // The same keys again: writes are still in flight for them; the next round looks again.
            let is_next = |which: &usize| !due[*which].is_empty() && due[*which] != read_before[*which];
            let order = if turn % READS_PER_TURN == READS_PER_TURN - 1 { [1, 0] } else { [0, 1] };
            let Some(next) = order.into_iter().find(is_next) else { return Ok(()) };
            let (haste, ids) = ([Haste::Soon, Haste::Bulk][next], std::mem::take(&mut due[next]));
            let system = connection.system(priority::of_keys(haste, loaded)).map_err(|error| Stop::Remote(error.clone()))?;
            let began = store.sequence().await?;
            let mark = self.way.mark();
            let (shared, index) = (&shared, self.index);
            let read = |ids: Vec<ExternalId>| async move {
                let records = system.read_keys(&participant.unit.entity, shared.native_paths(index), &ids).await;
                (ids, records)
            };
            let asked = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return Err(Stop::Cancelled),
                asked = self.lease.during(read_apart(ids.clone(), read)) => asked,
            };
            self.read = self.way.since(mark);
            let Asked { read, failed, trouble } = asked;
            for (id, error) in failed {
                self.could_not_read(id, error, began);
            }
            let ids_read: Vec<ExternalId> = read.keys().cloned().collect();
            self.unreadable.retain(|id, _| !read.contains_key(id));
            let edits = self.edits(&ids_read).await?;
            // What is not found by key is not deleted for that: it may be hidden from this account. Deletions are told by the vendor, in
            // the record itself or in a slice of their own.
            for (id, _) in read.iter().filter(|(_, record)| record.is_none()) {
                tracing::info!(integration = %shared.integration, participant = self.name(), external_id = %id, "asked for by key and not found");
            }
            // Somebody wants to know: what is still bad becomes a dead letter again, though it was told before.
            self.parked.retain(|id, _| !read.contains_key(id));
            let records = read.into_values().flatten().collect();
            if !ids_read.is_empty() {
                self.absorb(records, began, None, &Requested { ids: &ids_read, edits: &edits }, fence).await?;
            }
            if let Some(error) = trouble {
                // If it concerns all, the pages will tell; if not, they must not wait for this.
                tracing::debug!(integration = %shared.integration, participant = self.name(), reason = %error.reason, "reading by key failed");
                self.stale = true;
                return Ok(());
            }
            read_before[next] = ids;
        }
        Ok(())
    }

    /// The list to be read anew for what was asked for of an entity that can only be listed. One that is under way goes on, and what was asked for
    /// meanwhile is for the next; what is wanted soon waits for none that has time.
    async fn list_anew(&mut self, begun: Begun) -> Result<Option<Anew>, Stop> {
        let (store, realm) = (&self.shared.around.store, &self.shared.realm);
        let soon = store.pending_reads_of(realm, self.name(), Haste::Soon, KEYS_PER_LIST).await?;
        let mut bulk = store.pending_reads_of(realm, self.name(), Haste::Bulk, KEYS_PER_LIST).await?;
        let haste = if soon.is_empty() { Haste::Bulk } else { Haste::Soon };
        self.held_back = false;
        if haste == Haste::Bulk {
            self.hold_back(&mut bulk, begun.loaded)?;
        }
        let asked: BTreeSet<_> = soon.into_iter().chain(bulk).take(KEYS_PER_LIST).collect();
        if asked.is_empty() {
            return Ok(None);
        }
        let goes_on = |anew: &Anew| anew.begun == begun && (anew.haste, haste) != (Haste::Bulk, Haste::Soon);
        Ok(self.anew.take().filter(goes_on).or(Some(Anew { asked, haste, cursor: None, begun })))
    }

    /// Leaves what has time for later while the quota has none left for it.
    fn hold_back(&mut self, bulk: &mut Vec<ExternalId>, loaded: bool) -> Result<(), Stop> {
        let connection = self.shared.connection(self.index).map_err(Stop::Remote)?;
        let system = connection.system(priority::of_keys(Haste::Bulk, loaded)).map_err(|error| Stop::Remote(error.clone()))?;
        self.held_back = !bulk.is_empty() && system.throttled_until().is_some_and(|until| until > self.shared.now());
        if self.held_back {
            bulk.clear();
        }
        Ok(())
    }

    /// What was asked for and is due: what is wanted soon, and what has time. What could not be read a moment ago is not.
    async fn due_reads(&mut self) -> Result<[Vec<ExternalId>; 2], StoreError> {
        let most = KEYS_PER_READ + self.unreadable.len();
        let (store, realm) = (&self.shared.around.store, &self.shared.realm);
        let mut due = [
            store.pending_reads_of(realm, self.name(), Haste::Soon, most).await?,
            store.pending_reads_of(realm, self.name(), Haste::Bulk, most).await?,
        ];
        if due.iter().all(|ids| ids.len() < most) {
            self.unreadable.retain(|id, _| due.iter().any(|ids| ids.contains(id)));
        }
        let now = Instant::now();
        for ids in &mut due {
            ids.retain(|id| self.unreadable.get(id).is_none_or(|unreadable| unreadable.until <= now));
            ids.truncate(KEYS_PER_READ);
        }
        Ok(due)
    }

    /// What a person has corrected and is about to be read again with that: what a page shows of it meanwhile is no letter of its own, which would take
    /// the place of the corrected one.
    async fn leave_out_corrected(
        &self,
        batch: &mut Absorb,
        parked: &mut Vec<(ExternalId, u64)>,
        requested: &Requested<'_>,
    ) -> Result<(), StoreError> {
        let ours = |letter: &NewDeadLetter| {
            letter.external_id.clone().filter(|id| letter.participant == self.name() && !requested.ids.contains(id))
        };
        let ids: Vec<ExternalId> = batch.dead_letters.iter().filter_map(ours).collect();
        let corrected = self.edits(&ids).await?;
        if corrected.is_empty() {
            return Ok(());
        }
        let awaits = self.shared.around.store.awaits_read(&self.shared.realm, self.name(), &ids).await?;
        let awaited = |(id, haste): (ExternalId, Option<Haste>)| haste.is_some() && corrected.contains_key(id.as_str());
        let left_out: BTreeSet<ExternalId> = ids.into_iter().zip(awaits).filter(|each| awaited(each.clone())).map(|(id, _)| id).collect();
        batch.unchanged += left_out.len() as u64;
        batch.dead_letters.retain(|letter| !ours(letter).is_some_and(|id| left_out.contains(&id)));
        parked.retain(|(id, _)| !left_out.contains(id));
        Ok(())
    }

    /// What people corrected in these records.
    async fn edits(&self, ids: &[ExternalId]) -> Result<Edits, StoreError> {
        let keys = ids.iter().map(ToString::to_string);
        edits::waiting(self.shared.around.store.as_ref(), &self.shared.realm, self.name(), keys, self.shared.now()).await
    }

    /// Takes note of a record that could not be read by its key.
    fn could_not_read(&mut self, id: ExternalId, error: RemoteError, began: u64) {
        self.shared.failed(self.index, Some(id.to_string()), None, &error);
        let unreadable = self.unreadable.entry(id).or_insert(Unreadable { attempts: 0, until: Instant::now(), error: None, began });
        unreadable.began = began;
        let wait = UNREADABLE.0.saturating_mul(2u32.saturating_pow(unreadable.attempts)).min(UNREADABLE.1);
        unreadable.until = Instant::now() + wait;
        unreadable.error = Some(error);
    }

    /// Counts the records that could not be read by their keys in a round in which everything else could be read: the trouble is their own. One
    /// that fails too often becomes a dead letter, and is asked for no more until somebody replays that.
    async fn give_up_unreadable(&mut self, fence: &Fence) -> Result<(), Stop> {
        let most = self.shared.program.unit.retry.attempts;
        let (mut given_up, mut began) = (Vec::new(), u64::MAX);
        for (id, unreadable) in &mut self.unreadable {
            let Some(error) = unreadable.error.take() else { continue };
            unreadable.attempts += 1;
            if unreadable.attempts >= most {
                began = began.min(unreadable.began);
                given_up.push((id.clone(), unreadable.attempts, error));
            }
        }
        if given_up.is_empty() {
            return Ok(());
        }
        let ids: Vec<ExternalId> = given_up.iter().map(|(id, ..)| id.clone()).collect();
        let edits = self.edits(&ids).await?;
        let dead_letters = given_up
            .into_iter()
            .map(|(id, attempts, error)| {
                tracing::warn!(integration = %self.shared.integration, participant = self.name(), external_id = %id, reason = %error.reason, detail = %error.message, "record cannot be read and became a dead letter");
                NewDeadLetter {
                    parent: edits.get(id.as_str()).map(|edit| edit.letter),
                    external_id: Some(id),
                    message: format!("it cannot be read by its id: {}", error.message),
                    attempts,
                    ..NewDeadLetter::of(Stage::Inbound, self.name(), "{}".into(), &error)
                }
            })
            .collect();
        let now = self.shared.now();
        let batch = Absorb::empty(&self.shared.realm, self.name(), fence.clone(), now);
        let batch = Absorb { dead_letters, reread_done: ids.clone(), began, ..batch };
        let result = self.shared.around.store.absorb(&batch).await;
        self.shared.store_result(&result);
        result?;
        self.unreadable.retain(|id, _| !ids.contains(id));
        Ok(())
    }

    /// Rows without an id become dead letters, each once: by what they hold, for nothing else tells them apart. Committed before the page is, whose
    /// cursor goes past them.
    async fn keep_unusable(&mut self, rows: Vec<Unusable>, fence: &Fence) -> Result<(), Stop> {
        if rows.is_empty() {
            return Ok(());
        }
        let (shared, name) = (&self.shared, self.name());
        let (realm, participant) = (Some(shared.realm.clone()), Some(name.to_owned()));
        let filter = DeadLetterFilter { realm, participant, closed: true, max: UNUSABLE, ..DeadLetterFilter::default() };
        let letters = shared.around.store.dead_letters(&filter).await?;
        let nameless = letters.into_iter().map(|dead| dead.letter).filter(|letter| letter.external_id.is_none() && letter.record.is_none());
        let mut known: HashSet<String> = nameless.map(|letter| letter.original).collect();
        let read = rows.len();
        let dead_letters: Vec<_> = rows
            .into_iter()
            .filter(|row| known.insert(row.raw.clone()))
            .map(|row| NewDeadLetter::of(Stage::Inbound, name, row.raw, &row.error))
            .collect();
        let unchanged = u64::try_from(read - dead_letters.len()).unwrap_or(0);
        let batch = Absorb { dead_letters, unchanged, ..Absorb::empty(&shared.realm, name, fence.clone(), shared.now()) };
        let result = shared.around.store.absorb(&batch).await;
        shared.store_result(&result);
        result?;
        Ok(())
    }

    /// Reads one slice until its present.
    async fn read_pages(&mut self, slice: &str, fence: &mut Fence) -> Result<(), Stop> {
        let checkpoint = self.shared.around.store.checkpoint(&self.shared.realm, self.name(), slice).await?;
        let loaded = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.complete);
        if loaded && slice == "main" {
            self.shared.participants[self.index].complete.store(true, Ordering::Release);
        }
        let begun = Begun { epoch: fence.epoch, loaded };
        let mut anew = if slice == "main" && self.only_lists() { self.list_anew(begun).await? } else { None };
        let has_time = loaded && anew.as_ref().is_some_and(|anew| anew.haste == Haste::Bulk);
        if has_time {
            // What was changed goes first.
            self.read_slice(slice, checkpoint.clone(), &mut None, fence).await?;
        }
        let result = self.read_slice(slice, checkpoint, &mut anew, fence).await;
        if anew.is_some() {
            self.anew = anew;
        }
        match result {
            Err(Stop::Remote(error)) if has_time => {
                let shared = &self.shared;
                tracing::debug!(integration = %shared.integration, participant = self.name(), reason = %error.reason, "reading anew was cut off");
                self.held_back = true;
                Ok(())
            }
            result => result,
        }
    }

    /// Reads one slice from its checkpoint, or a list `anew`, of which nothing is left at its end.
    async fn read_slice(
        &mut self,
        slice: &str,
        checkpoint: Option<Checkpoint>,
        anew: &mut Option<Anew>,
        fence: &mut Fence,
    ) -> Result<(), Stop> {
        let store = Arc::clone(&self.shared.around.store);
        let loaded = checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.complete);
        let mut complete = loaded;
        let mut cursor = checkpoint.map(|checkpoint| checkpoint.cursor).filter(|cursor| !cursor.is_null());
        let mut priority = priority::of_pages(!complete || cursor.is_none());
        if let Some(anew) = anew {
            priority = priority::of_keys(anew.haste, loaded);
            cursor.clone_from(&anew.cursor);
            self.parked.retain(|id, _| !anew.asked.contains(id));
        }
        loop {
            self.renew(fence).await?;
            let connection = self.shared.connection(self.index).map_err(Stop::Remote)?;
            let system = connection.system(priority).map_err(|error| Stop::Remote(error.clone()))?;
            let began = store.sequence().await?;
            let participant = self.participant();
            let request = ReadRequest {
                entity: participant.unit.entity.clone(),
                slice: slice.to_owned(),
                fields: self.shared.native_paths(self.index).to_vec(),
                cursor: cursor.clone(),
                deadline: system.request_timeout(),
            };
            let mark = self.way.mark();
            // It may take longer than a lease; what comes of it is fenced when it is committed.
            let page = tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => return Err(Stop::Cancelled),
                page = self.lease.during(system.read_page(&request)) => page.map_err(Stop::Remote)?,
            };
            self.read = self.way.since(mark);
            crash::point("source.read");
            let moved = cursor.as_ref() != Some(&page.cursor) || (page.caught_up && !complete);
            complete = complete || page.caught_up;
            // Until a list is read anew to its end, changes are looked for from where they were.
            let moves = anew.is_none() || !loaded || page.caught_up;
            let next = moves.then(|| Checkpoint { slice: slice.to_owned(), cursor: page.cursor.clone(), complete });
            let shown: Vec<ExternalId> = match &anew {
                // What the list does not hold was asked for in vain.
                Some(anew) if page.caught_up => anew.asked.iter().cloned().collect(),
                Some(anew) => page.records.iter().map(|record| &record.id).filter(|id| anew.asked.contains(*id)).cloned().collect(),
                None => Vec::new(),
            };
            let edits = self.edits(&shown).await?;
            self.keep_unusable(page.unusable, fence).await?;
            if moved || !page.records.is_empty() || !shown.is_empty() {
                self.absorb(page.records, began, next, &Requested { ids: &shown, edits: &edits }, fence).await?;
            }
            if let Some(anew) = anew {
                shown.iter().for_each(|id| _ = anew.asked.remove(id));
                anew.cursor = Some(page.cursor.clone());
            }
            cursor = Some(page.cursor);
            crash::point("source.absorbed");
            if page.caught_up {
                *anew = None;
                return Ok(());
            }
        }
    }

    /// Absorbs that these records are deleted, which was found by comparing keys when the store stood at `began`; what was written since is left
    /// out. The fence may be of another lease than the reader's. `false` when the guard holds the Integration for it.
    pub(crate) async fn absorb_gone(mut self, ids: &[ExternalId], began: u64, fence: &Fence) -> Result<bool, StoreError> {
        let known = self.shared.around.store.known_by_external(&self.shared.realm, self.name(), ids).await?;
        let settled = |known: &Known| known.identity(self.name()).is_some_and(|identity| identity.state.settled > began);
        let ids: Vec<ExternalId> =
            ids.iter().zip(known).filter(|(_, known)| !known.as_ref().is_some_and(settled)).map(|(id, _)| id.clone()).collect();
        let gone = |id: &ExternalId| NativeRecord {
            id: id.clone(),
            version: None,
            modified: None,
            deleted: true,
            merged_into: None,
            body: Document::new(),
            raw: None,
        };
        let records = ids.iter().map(gone).collect();
        match self.absorb(records, began, None, &Requested { ids: &ids, edits: &Edits::default() }, fence).await {
            Ok(()) => Ok(true),
            Err(Stop::Store(error)) => Err(error),
            Err(Stop::Guarded | Stop::Remote(_) | Stop::Cancelled) => Ok(false),
        }
    }

    /// Commits a batch, deciding again when somebody else changed a record meanwhile.
    async fn absorb(
        &mut self,
        records: Vec<NativeRecord>,
        began: u64,
        checkpoint: Option<Checkpoint>,
        requested: &Requested<'_>,
        fence: &Fence,
    ) -> Result<(), Stop> {
        let mut latest: BTreeMap<ExternalId, NativeRecord> = BTreeMap::new();
        let read = records.len();
        for record in records {
            latest.insert(record.id.clone(), record);
        }
        let repeated = u64::try_from(read - latest.len()).unwrap_or(0);
        let records: Vec<_> = latest.into_values().collect();
        for _ in 0..CONFLICT_RETRIES {
            let result = self.try_absorb(&records, began, checkpoint.clone(), requested, repeated, fence).await;
            if let Err(Stop::Store(error)) = &result {
                if matches!(error, StoreError::Conflict(_)) {
                    continue;
                }
                self.shared.store_result::<()>(&Err(StoreError::Other(error.to_string())));
            }
            return result;
        }
        if records.len() < 2 {
            return Err(Stop::Store(StoreError::Other("a record kept changing while it was absorbed".into())));
        }
        // Two records of one batch may stand in each other's way (one takes the match value of the other, say); one after the other they
        // do not, and the rest of the stream goes on.
        for record in records {
            let id = record.id.clone();
            let ids = if requested.ids.contains(&id) { vec![id] } else { Vec::new() };
            let requested = Requested { ids: &ids, edits: requested.edits };
            Box::pin(self.absorb(vec![record], began, None, &requested, fence)).await?;
        }
        let requested = Requested { ids: &[], edits: requested.edits };
        self.try_absorb(&[], began, checkpoint, &requested, repeated, fence).await
    }

    async fn try_absorb(
        &mut self,
        records: &[NativeRecord],
        began: u64,
        checkpoint: Option<Checkpoint>,
        requested: &Requested<'_>,
        repeated: u64,
        fence: &Fence,
    ) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let store = &shared.around.store;
        let participant = &shared.program.participants[self.index];
        let name = &participant.unit.name;
        let now = shared.now();
        let mut batch = Absorb { checkpoint, unchanged: repeated, began, ..Absorb::empty(&shared.realm, name, fence.clone(), now) };
        batch.guard.book = shared.book();
        let mut parked = Vec::new();

        let mut times = SourceTimes { read: self.read, ..SourceTimes::default() };
        let mark = self.way.mark();
        let ids: Vec<_> = records.iter().map(|record| record.id.clone()).collect();
        let canaries = shared.canaries(self.index, &ids).await?;
        let program_of = |id: &ExternalId| if canaries.contains(id) { &*shared.wanted } else { &*shared.program };
        let by = |id: &ExternalId| &program_of(id).participants[self.index];
        let mapped = map(by, &shared.program.contract, records, requested.edits, &mut batch, &mut self.parked, &mut parked);
        times.map = self.way.since(mark);
        let mark = self.way.mark();
        let ids: Vec<_> = mapped.iter().map(|(native, _)| native.id.clone()).collect();
        let known = store.known_by_external(&shared.realm, name, &ids).await?;
        let mut identified = self.identify(mapped, known, &mut batch, &mut parked).await?;
        let merged: Vec<Identified> = identified.extract_if(.., |record| record.merged.is_some()).collect();
        let resolved = self.resolve(identified, &mut batch).await?;

        let connection = shared.connection(self.index).ok();
        let entity = connection.as_ref().and_then(|connection| connection.entity(&participant.unit.entity));
        let stale_for = entity.map_or(Duration::ZERO, |entity| entity.stale_for());
        let mut done: BTreeSet<ExternalId> = requested.ids.iter().cloned().collect();
        let (mut through, mut gone) = (Vec::new(), Vec::new());
        let mut targets = BTreeSet::new();
        let ids: Vec<_> = resolved.iter().map(|record| record.read.external_id.clone()).collect();
        let was_dead: HashSet<ExternalId> = ids
            .iter()
            .zip(store.dead_lettered(&shared.realm, name, &ids).await?)
            .filter(|(_, dead)| *dead)
            .map(|(id, _)| id.clone())
            .collect();
        for Identified { mut read, known, id, .. } in resolved {
            if let Some(edit) = requested.edits.get(read.external_id.as_str()) {
                read.edited = edited_units(by(&read.external_id), edit);
                through.push(read.external_id.0.clone());
            }
            let context = Context { new_id: id, began, by_key: done.contains(&read.external_id), stale_for, now };
            let program = program_of(&read.external_id);
            match inbound::decide(program, &program.participants[self.index], &mut read, known.as_ref(), context) {
                // A record that is good again closes its dead letter, even if nothing else came of it.
                Decision::Unchanged if was_dead.contains(&read.external_id) => batch.records.extend(kept(name, &read, known.as_ref())),
                Decision::Unchanged => batch.unchanged += 1,
                Decision::Stale => {
                    batch.unchanged += 1;
                    // A correction waits with its record.
                    through.retain(|id| *id != read.external_id.0);
                    batch.rereads.push((read.external_id, None));
                }
                Decision::Absorb(absorbed) => {
                    gone.extend(read.deleted.then(|| read.external_id.clone()));
                    batch.history.extend(absorbed.history);
                    batch.guard.changed.extend(absorbed.changes.then_some(absorbed.record.id));
                    batch.guard.deleted.extend(absorbed.deletes.then_some(absorbed.record.id));
                    targets.extend(absorbed.record.enqueue.iter().map(|(target, _)| target.clone()));
                    self.parked.remove(&absorbed.record.external_id);
                    if !std::ptr::eq(program, shared.program_of(id)) {
                        // A record whose identity is new here: from now on the revision on trial maps it.
                        batch.rereads.push((absorbed.record.external_id.clone(), None));
                    }
                    let lost = absorbed.lost.iter().filter_map(|target| Some(inbound::lost(participant, target, known.as_ref()?)));
                    batch.dead_letters.extend(lost);
                    batch.records.push(absorbed.record);
                }
            }
        }
        let turned_away = self.turned_away_for(&gone).await?;
        let stale = !batch.rereads.is_empty() || !turned_away.is_empty();
        // A merge is a command of its own. Until it is committed, the request to read the record again stands for it.
        for record in &merged {
            batch.unchanged += 1;
            batch.rereads.push((record.read.external_id.clone(), None));
        }
        // Nothing came of those yet that are to be read again, whatever they wait for.
        let again: BTreeSet<&ExternalId> = batch.rereads.iter().filter(|(_, after)| after.is_none()).map(|(id, _)| id).collect();
        done.retain(|id| !again.contains(id));
        batch.rereads.extend(turned_away.into_iter().map(|id| (id, None)));
        batch.reread_done = done.into_iter().collect();
        // A correction is for one result, whichever it is; where that is another letter, it names the one that was corrected.
        let over: Vec<String> = batch.reread_done.iter().map(|id| id.0.clone()).filter(|id| requested.edits.contains_key(id)).collect();
        self.leave_out_corrected(&mut batch, &mut parked, requested).await?;
        for letter in batch.dead_letters.iter_mut().filter(|letter| letter.participant == *name) {
            letter.parent = letter.external_id.as_ref().and_then(|id| requested.edits.get(id.as_str())).map(|edit| edit.letter);
        }
        self.guard(&batch.guard, now).await?;
        if self.first_load() {
            // The first load changes everything, and must not weigh on the day after it.
            batch.guard.changed.clear();
        }
        let conflicts = batch.history.iter().filter(|change| change.is_conflict()).count();
        let counts = (batch.records.len() as u64, batch.unchanged, batch.dead_letters.len() as u64, conflicts as u64);
        edits::close(store.as_ref(), requested.edits, &through, now).await?;
        let result = store.absorb(&batch).await;
        shared.store_result(&result);
        result?;
        shared.store_works();
        times.absorb = self.way.since(mark);
        self.way.absorbed(&batch.records, times);
        edits::forget(store.as_ref(), &shared.realm, name, &over).await?;
        self.parked.extend(parked);
        shared.around.metrics.read(&shared.integration.0, participant.unit.called(), counts);
        for letter in &batch.dead_letters {
            tracing::warn!(integration = %shared.integration, participant = %name, reason = %letter.reason, field = letter.field.as_deref().unwrap_or(""), detail = %letter.message, "record became a dead letter");
            let error = RemoteError::new(letter.class, letter.reason.clone(), letter.message.clone()).field(letter.field.clone());
            // What concerns another Integration's system is told to that one's people.
            if let Some(index) = shared.program.participants.iter().position(|participant| participant.unit.name == letter.participant) {
                shared.failed(index, letter.external_id.as_ref().map(ToString::to_string), letter.record, &error);
            }
        }
        shared.wake_lanes(targets.iter().map(String::as_str));
        self.stale |= stale;
        for record in &merged {
            crash::point("source.merging");
            self.merge(record, began, fence).await?;
        }
        Ok(())
    }

    /// One id gave way to another. What cannot be done now (a write of ours is open) is done when it is read again.
    async fn merge(&mut self, shown: &Identified, began: u64, fence: &Fence) -> Result<(), Stop> {
        let (shared, name) = (Arc::clone(&self.shared), self.name().to_owned());
        let (store, participant) = (&shared.around.store, &shared.program.participants[self.index]);
        let Some(Merged { gone, master, by_vendor }) = &shown.merged else { return Ok(()) };
        let ids = [gone.clone(), master.clone()];
        let loser = store.known_by_external(&shared.realm, &name, &ids[..1]).await?.pop().flatten();
        // What was deleted may be there again.
        let stands = |loser: &Known| loser.merged_into.is_none() && (*by_vendor || !ownership::holds(loser, &name));
        let Some(loser) = loser.filter(stands) else { return Ok(()) };
        let survivor = match store.record_ids(&shared.realm, &name, &ids[1..]).await?.pop().flatten() {
            // It may be what a creation of ours has made; who it is, is told when that one's outcome is known (seeds 193 and 952).
            None if self.creates().await? => return Ok(()),
            None => None,
            // Somebody has found out since whose it is.
            Some(_) if !by_vendor => return Ok(()),
            Some(id) => store.known_by_id(&shared.realm, &[id]).await?.pop().flatten(),
        };
        let deleted = Some(loser.record.id).filter(|_| *by_vendor).into_iter().collect();
        let guard = Guarded { deleted, book: shared.book(), ..Guarded::default() };
        self.guard(&guard, shared.now()).await?;
        let mut merge = Merge {
            realm: shared.realm.clone(),
            participant: name.clone(),
            fence: fence.clone(),
            loser: loser.record.id,
            loser_version: loser.record.version,
            survivor: Survivor::Later,
            referring: Vec::new(),
            rereads: Vec::new(),
            reread_done: Vec::new(),
            began,
            guard: Guarded::default(),
            history: Vec::new(),
            now: shared.now(),
        };
        let mut after = None;
        let committed = loop {
            let last = match &survivor {
                None => true,
                Some(survivor) => {
                    let ids = (loser.record.id, survivor.record.id);
                    let page = store.referring(&shared.realm, &[ids.0, ids.1], after, REFERRING).await?;
                    after = page.last().map(|known| known.record.id);
                    (merge.referring, merge.rereads) = merge::referring(&shared.program, participant, &page, ids);
                    page.len() < REFERRING
                }
            };
            if last {
                (merge.guard, merge.reread_done) = (guard.clone(), vec![shown.read.external_id.clone()]);
                merge.survivor = match &survivor {
                    Some(survivor) => merge::fold(&shared.program, participant, &loser, survivor, shown.read.modified),
                    None => under_another_id(&name, &loser, master, shared.new_id()),
                };
                merge.history =
                    survivor.as_ref().map(|before| merge::history(&shared.program, &before.record, &merge.survivor)).unwrap_or_default();
                // The survivor's values are read again, in its new standing.
                merge.rereads.push(master.clone());
            }
            match store.merge(&merge).await {
                Ok(()) if last => break true,
                Ok(()) => {}
                Err(StoreError::Conflict(_)) => break false,
                Err(error) => return Err(error.into()),
            }
        };
        self.stale = true;
        if committed {
            let what = if *by_vendor { "records were merged" } else { "what was deleted has been entered again, under another id" };
            tracing::info!(integration = %shared.integration, participant = name, loser = %gone, survivor = %master, "{what}");
            let lanes: Vec<String> = shared.program.participants.iter().map(|participant| participant.unit.name.clone()).collect();
            shared.wake_lanes(lanes.iter().map(String::as_str));
        }
        Ok(())
    }

    /// What was turned away as the same as one of these, which are deleted now: it may have been entered in their place before anybody knew of that.
    async fn turned_away_for(&self, gone: &[ExternalId]) -> Result<Vec<ExternalId>, StoreError> {
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let filter = DeadLetterFilter {
            realm: Some(self.shared.realm.clone()),
            participant: Some(self.name().to_owned()),
            reason: Some("DuplicateIdentity".into()),
            max: TURNED_AWAY,
            ..DeadLetterFilter::default()
        };
        let letters = self.shared.around.store.dead_letters(&filter).await?.into_iter().map(|letter| letter.letter);
        let named: Vec<String> = gone.iter().map(same_as).collect();
        let for_one = letters.filter(|letter| named.iter().any(|named| letter.message.starts_with(named.as_str())));
        Ok(for_one.filter_map(|letter| letter.external_id).collect())
    }

    /// Whether creations of ours are under way here, or have no known outcome: a record that nobody knows may be what one of them has made.
    async fn creates(&self) -> Result<bool, StoreError> {
        Ok(self.participant().writable() && self.shared.around.store.creating(&self.shared.realm, self.name()).await?)
    }

    /// Finds each record's identity: known, told by the correlation field, matched, or new.
    async fn identify(
        &self,
        mapped: Vec<(&NativeRecord, Inbound)>,
        known: Vec<Option<Known>>,
        batch: &mut Absorb,
        parked: &mut Vec<(ExternalId, u64)>,
    ) -> Result<Vec<Identified>, Stop> {
        let shared = &self.shared;
        let (store, program, participant) = (&shared.around.store, &shared.program, self.participant());
        let (name, called) = (&participant.unit.name, participant.unit.called());
        let mut identified = Vec::with_capacity(mapped.len());
        let mut unknown = Vec::new();
        let deleted: HashSet<ExternalId> =
            mapped.iter().filter(|(native, _)| native.deleted).map(|(native, _)| native.id.clone()).collect();
        for ((native, inbound), known) in mapped.into_iter().zip(known) {
            match known {
                // An alias: it stands for its survivor, and nobody's record changes with it.
                Some(known) if known.merged_into.is_some() => {
                    let alias = known.identity(name).filter(|alias| alias.external_id == native.id);
                    if alias.is_some_and(|alias| merge::undone(alias, native.deleted, native.modified)) {
                        let message = format!(
                            "it gave way to another record in {called} and is there again; merge it into that one, or make it a record of its own: fairlead split {} --participant {called} --integration {}",
                            native.id, shared.integration
                        );
                        park(name, native, "DuplicateIdentity", &message, batch, &self.parked, parked);
                        continue;
                    }
                    batch.unchanged += 1;
                    batch.gone.extend(native.deleted.then(|| native.id.clone()));
                }
                Some(known) => identified.push(Identified::new(participant, native, inbound, known.record.id, Some(known))),
                None if native.deleted => {
                    batch.unchanged += 1;
                    batch.gone.push(native.id.clone());
                }
                None => unknown.push((native, inbound)),
            }
        }
        if unknown.is_empty() {
            return Ok(identified);
        }

        let told: Vec<Option<RecordId>> = unknown
            .iter()
            .map(|(native, _)| {
                participant.key.as_ref().and_then(|key| document::present(&native.body, key)?.as_str().and_then(RecordId::parse))
            })
            .collect();
        let asked: Vec<_> = told.iter().flatten().copied().collect();
        let told_known: HashMap<_, _> = asked.iter().copied().zip(store.known_by_id(&shared.realm, &asked).await?).collect();

        let keys: Vec<Vec<_>> = match program.unit.matching.as_slice() {
            [] => vec![Vec::new(); unknown.len()],
            _ => unknown.iter().map(|(_, inbound)| program.match_keys(&inbound::partial(&inbound.fields))).collect(),
        };
        let flat: Vec<_> = keys.iter().flatten().cloned().collect();
        let mut found = store.match_records(&shared.realm, &flat).await?.into_iter();
        let candidates: Vec<Vec<Vec<RecordId>>> = keys.iter().map(|keys| found.by_ref().take(keys.len()).collect()).collect();
        let wanted: Vec<_> = candidates.iter().flatten().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let by_id: HashMap<_, _> = wanted.iter().copied().zip(store.known_by_id(&shared.realm, &wanted).await?).collect();

        // Where there is a key, that tells who it is.
        let creating = participant.key.is_none() && self.creates().await?;
        // Match keys of records that are new in this very batch: two of them in one system are one record twice.
        let mut fresh: HashMap<u64, ExternalId> = HashMap::new();
        let mut claimed: HashMap<RecordId, ExternalId> = HashMap::new();
        for (((native, inbound), told), (keys, candidates)) in unknown.into_iter().zip(told).zip(keys.into_iter().zip(candidates)) {
            // What carries an id that nobody knows was made by a write whose process died before it took note, or outlived a lost store.
            let own = told.filter(|id| told_known.get(id).is_some_and(Option::is_none));
            let told = told.and_then(|id| told_known.get(&id).cloned().flatten());
            let is_matched = candidates.iter().any(|ids| !ids.is_empty());
            let document = if is_matched { inbound::partial(&inbound.fields) } else { Document::new() };
            let hits = candidates.into_iter().map(|ids| {
                let known = ids.into_iter().filter_map(|id| by_id.get(&id).cloned().flatten());
                known.filter(|known| program.same_match(&known.record.document, &document)).collect::<Vec<_>>()
            });
            let is_told = told.is_some();
            let known = match (told, inbound::matching(hits, name)) {
                (Some(told), _) => Some(told),
                (None, several) if several.len() > 1 => {
                    let message =
                        format!("{} records match it; give one of them another value in the match fields, or merge them", several.len());
                    park(name, native, "AmbiguousMatch", &message, batch, &self.parked, parked);
                    continue;
                }
                // What carries an id of its own was made by us, beside what is deleted.
                (None, mut one) => one.pop().filter(|known| own.is_none() || known.record.deleted_at.is_none()),
            };
            if creating && known.as_ref().is_none_or(|known| known.record.deleted_at.is_some()) {
                // It may be what a creation of ours has made; who it is, is told when that one's outcome is known.
                batch.unchanged += 1;
                batch.rereads.push((native.id.clone(), None));
                continue;
            }
            let previews = program.unit.initial_load == InitialLoad::Preview;
            if let Some(deleted) = known.as_ref().filter(|known| previews && !is_told && known.record.deleted_at.is_some()) {
                let home = realm::told(&deleted.record.home, name);
                let message = format!(
                    "it is the same record by the match rules as one that was deleted in {home}, and brings that back when this is no preview any more"
                );
                park(name, native, "DuplicateIdentity", &message, batch, &self.parked, parked);
                continue;
            }
            let taken = match &known {
                Some(known) => {
                    claimed.get(&known.record.id).cloned().or_else(|| known.identity(name).map(|identity| identity.external_id.clone()))
                }
                None => keys.iter().find_map(|key| fresh.get(&key.hash).cloned()),
            };
            // Itself: a lane made it and noted it since this batch was asked for by its ids.
            let taken = taken.filter(|other| *other != native.id);
            if inbound::deletion_goes_first(known.as_ref(), name, &deleted) {
                // Deleted and entered again, in one page: first that.
                batch.unchanged += 1;
                batch.rereads.push((native.id.clone(), None));
                continue;
            }
            if let (Some(known), Some(gone)) = (&known, &taken)
                && !ownership::holds(known, name)
                && claimed.insert(known.record.id, native.id.clone()).is_none()
            {
                let mut again = Identified::new(participant, native, inbound, known.record.id, Some(known.clone()));
                again.merged = Some(Merged { gone: gone.clone(), master: native.id.clone(), by_vendor: false });
                identified.push(again);
                continue;
            }
            if let Some(other) = taken {
                let message = format!("{}; merge the two in {called}, or tell them apart", same_as(&other));
                park(name, native, "DuplicateIdentity", &message, batch, &self.parked, parked);
                continue;
            }
            let id = match &known {
                Some(known) => {
                    claimed.insert(known.record.id, native.id.clone());
                    known.record.id
                }
                None => {
                    for key in keys {
                        fresh.insert(key.hash, native.id.clone());
                    }
                    // A vendor's copy of a record carries the same id once more; the second one is a record of its own.
                    let own = own.filter(|id| !claimed.contains_key(id));
                    let id = own.unwrap_or_else(|| shared.new_id());
                    claimed.insert(id, native.id.clone());
                    id
                }
            };
            identified.push(Identified::new(participant, native, inbound, id, known));
        }
        Ok(identified)
    }

    /// Turns the vendor's references into canonical ids. What refers to a record that has not come yet keeps that field back and is read
    /// again when it has.
    async fn resolve(&self, mut records: Vec<Identified>, batch: &mut Absorb) -> Result<Vec<Identified>, Stop> {
        let shared = &self.shared;
        let name = self.name();
        let here: HashMap<ExternalId, RecordId> = records.iter().map(|r| (r.read.external_id.clone(), r.id)).collect();
        let wanted: Vec<ExternalId> = records
            .iter()
            .flat_map(|record| record.references.iter().map(|(_, id)| id.clone()))
            .filter(|id| !here.contains_key(id))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let stored: HashMap<_, _> = if wanted.is_empty() {
            HashMap::new()
        } else {
            wanted.iter().cloned().zip(shared.around.store.record_ids(&shared.realm, name, &wanted).await?).collect()
        };
        for record in &mut records {
            for (unit, external) in std::mem::take(&mut record.references) {
                match here.get(&external).copied().or_else(|| stored.get(&external).copied().flatten()) {
                    Some(id) => record.read.fields.push((unit, Value::String(id.to_string()))),
                    None => batch.rereads.push((record.read.external_id.clone(), Some(external))),
                }
            }
        }
        Ok(records)
    }

    /// Whether what is read now is a first load: this participant's own, for one that comes later must not let the others' changes pass
    /// unguarded; or that of the whole, as far as it is this Integration's.
    fn first_load(&self) -> bool {
        !self.shared.is_read(self.index) || !(self.shared.was_loaded() || self.shared.own_is_read())
    }

    /// Holds the Integration when more changes or disappears than a person said could be right.
    async fn guard(&self, batch: &Guarded, now: Timestamp) -> Result<(), Stop> {
        if batch.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let store = &shared.around.store;
        let day_ago = Timestamp(now.0 - 24 * 3600 * 1000);
        let note_name = shared.note(CONFIRMED);
        let confirmed = store.note(&shared.realm, &note_name).await?.unwrap_or(Value::Null);
        let number = |name: &str| confirmed.get(name).and_then(Value::as_u64).unwrap_or(0);
        let began = confirmed.get("at").and_then(Value::as_i64).unwrap_or(0);
        let since = async |at: Timestamp| store.changes_since(&shared.realm, at, batch).await;
        let next = guard::hour_after(Timestamp(began));
        // As long as its hour counts.
        let counts = if next > day_ago {
            let after = if now < next { GuardCounts::default() } else { since(next).await? };
            guard::beyond(since(Timestamp(began)).await?, after, GuardCounts { changes: number("changes"), deletes: number("deletes") })
        } else {
            since(day_ago).await?
        };
        let window = Window { counts, live: shared.live.load(Ordering::Acquire), began, first_load: self.first_load() };
        let Some(stop) = guard::judge(&shared.integration.0, &shared.program.unit.guard, window) else { return Ok(()) };
        if shared.program.unit.guard.confirm.as_deref() == Some(stop.token.as_str()) {
            let excused = since(now).await?;
            let note = json!({"at": now.0, "changes": excused.changes, "deletes": excused.deletes});
            store.put_note(&shared.realm, &note_name, &note).await?;
            tracing::info!(integration = %shared.integration, "guard overrun was confirmed");
            return Ok(());
        }
        tracing::warn!(integration = %shared.integration, detail = %stop.message, "guard holds the integration");
        shared.hold(stop).await?;
        Err(Stop::Guarded)
    }
}

/// Whether this is somebody's to mend; until then it is of no use to try.
fn needs_mending(error: &RemoteError) -> bool {
    matches!(error.class, ErrorClass::Auth | ErrorClass::Permission | ErrorClass::Configuration)
}

/// The beginning of what is said of a second record.
fn same_as(other: &ExternalId) -> String {
    format!("it is the same record as {other} by the match rules")
}

/// A read record whose identity is settled.
struct Identified {
    read: ReadRecord,
    references: Vec<(FieldPath, ExternalId)>,
    id: RecordId,
    known: Option<Known>,
    /// It shows that one id of the system gave way to another.
    merged: Option<Merged>,
}

/// One id gave way to another.
struct Merged {
    gone: ExternalId,
    master: ExternalId,
    /// The vendor says so; else the one was deleted, and the same is there again under the other.
    by_vendor: bool,
}

impl Identified {
    fn new(participant: &Participant, native: &NativeRecord, inbound: Inbound, id: RecordId, known: Option<Known>) -> Self {
        Self {
            merged: native.merged_into.clone().filter(|_| native.deleted).map(|master| Merged {
                gone: native.id.clone(),
                master,
                by_vendor: true,
            }),
            references: inbound.references.into_iter().map(|(unit, _, external)| (unit, external)).collect(),
            read: ReadRecord {
                external_id: native.id.clone(),
                version: native.version.clone(),
                modified: native.modified,
                deleted: native.deleted,
                fields: inbound.fields,
                // What a system holds natively is compared with what is written there.
                body: if participant.writable() { native.body.clone() } else { Document::new() },
                edited: BTreeSet::new(),
            },
            id,
            known,
        }
    }
}

/// The survivor is no record here (it came since, or was turned away as the same as this one): then it is this one under another id, of which
/// nothing has been read yet.
fn under_another_id(participant: &str, loser: &Known, master: &ExternalId, alias: RecordId) -> Survivor {
    let before = loser.identity(participant).map(|identity| identity.state.clone()).unwrap_or_default();
    Survivor::ExternalId {
        external_id: master.clone(),
        state: ParticipantState { settled: before.settled, ..ParticipantState::default() },
        alias,
        alias_state: ParticipantState { deleted: true, ..before },
    }
}

/// Which records were asked for by key, and what people corrected in some of them.
struct Requested<'a> {
    ids: &'a [ExternalId],
    edits: &'a Edits,
}

/// The canonical units that an edit of native fields speaks of.
fn edited_units(participant: &Participant, edit: &Edit) -> BTreeSet<FieldPath> {
    let touched = |native: &FieldPath| edit.set.keys().any(|path| path.starts_with(native) || native.starts_with(path));
    participant
        .table
        .lineage()
        .into_iter()
        .filter(|lineage| lineage.read.iter().flat_map(|trace| &trace.native).any(&touched))
        .map(|lineage| lineage.unit)
        .collect()
}

/// The same record once more, with nothing new.
fn kept(participant: &str, read: &ReadRecord, known: Option<&Known>) -> Option<AbsorbRecord> {
    let known = known?;
    Some(AbsorbRecord {
        id: known.record.id,
        change: RecordChange::Keep { version: known.record.version },
        external_id: read.external_id.clone(),
        state: known.identity(participant)?.state.clone(),
        enqueue: Vec::new(),
        counts_as_changed: false,
    })
}

/// Maps and validates; what fails becomes a dead letter with its row and reason.
fn map<'a, 'r>(
    by: impl Fn(&ExternalId) -> &'a Participant,
    contract: &fairlead_contract::Contract,
    records: &'r [NativeRecord],
    edits: &Edits,
    batch: &mut Absorb,
    before: &mut HashMap<ExternalId, u64>,
    parked: &mut Vec<(ExternalId, u64)>,
) -> Vec<(&'r NativeRecord, Inbound)> {
    let mut mapped = Vec::with_capacity(records.len());
    for native in records {
        if native.deleted {
            mapped.push((native, Inbound { fields: Vec::new(), references: Vec::new(), skipped: Vec::new() }));
            continue;
        }
        let participant = by(&native.id);
        let edit = edits.get(native.id.as_str());
        let corrected = edit.map(|edit| {
            let mut body = native.body.clone();
            edit.apply(&mut body);
            body
        });
        match inbound::canonical(participant, contract, corrected.as_ref().unwrap_or(&native.body)) {
            Ok(inbound) => mapped.push((native, inbound)),
            Err(problem) => park_with(Stage::Inbound, &participant.unit.name, native, &problem, batch, before, parked),
        }
    }
    mapped
}

fn park(
    participant: &str,
    native: &NativeRecord,
    reason: &str,
    message: &str,
    batch: &mut Absorb,
    before: &HashMap<ExternalId, u64>,
    parked: &mut Vec<(ExternalId, u64)>,
) {
    let problem = RemoteError::new(ErrorClass::Data, reason, message);
    park_with(Stage::Identity, participant, native, &problem, batch, before, parked);
}

/// Makes a dead letter, unless this very one was made before: the lag window shows the same record again.
fn park_with(
    stage: Stage,
    participant: &str,
    native: &NativeRecord,
    problem: &RemoteError,
    batch: &mut Absorb,
    before: &HashMap<ExternalId, u64>,
    parked: &mut Vec<(ExternalId, u64)>,
) {
    let raw = native.original();
    let fingerprint = ValueHash::of_text(&format!("{}\u{0}{}\u{0}{raw}", problem.reason, problem.message)).0;
    if before.get(&native.id) == Some(&fingerprint) {
        batch.unchanged += 1;
        return;
    }
    parked.push((native.id.clone(), fingerprint));
    let letter = NewDeadLetter::of(stage, participant, raw, problem);
    batch.dead_letters.push(NewDeadLetter { external_id: Some(native.id.clone()), ..letter });
}
