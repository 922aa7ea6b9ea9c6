//! Reconciliation: on a schedule, everything that the systems hold is compared with what is known of them.
//!
//! Every reader's entity is read once from its beginning, beside the ordinary reading and without its cursor. What differs is a *suspect*: a
//! change that is simply not read yet looks the same. So the ordinary reader gets a round, and then the suspects are read once more by key; what
//! differs still was missed. The records of the store are then looked at from the other side: what each target should hold.
//!
//! Repair means putting keys where they are handled anyway: read again by key, or entered in a lane. Only a deletion that nobody tells of is
//! absorbed here, since no reading would show it.
//!
//! When the schedule was last done is a note in the store, so that a restart repeats nothing and an occurrence that fell into a pause is made
//! up for once. A crash begins the comparison anew.

use crate::decide::drift::{self, Kind, Shown};
use crate::decide::guard::FLOOR;
use crate::lease::Lease;
use crate::look_up::{Asked, read_apart};
use crate::program::Participant;
use crate::shared::{Shared, lock};
use crate::source::Source;
use fairlead_mapping::{Inbound, RowError};
use fairlead_model::hash::ValueHash;
use fairlead_model::report::{Drift, Reconciliation, ReconciliationOutcome};
use fairlead_model::schedule::{Schedule, ScheduleText};
use fairlead_model::unit::ReconcileUnit;
use fairlead_model::{ErrorClass, ExternalId, RecordId, RemoteError, SmolStr, Timestamp};
use fairlead_store::{Enqueue, Fence, Haste, Keys, Known, Origin, StoreError};
use fairlead_systems::{NativeRecord, Priority, ReadRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// The note that remembers when it was last done, and what it found.
const NOTE: &str = "reconciliation";
/// A clock may be stepped: whether it is due is looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// The wait while it cannot be done: another process does it, the first load is under way, the guard holds, the store refuses.
const LATER: Duration = Duration::from_secs(15);
/// Records looked at in one query.
const PAGE: usize = 500;
/// Records read by key in one call.
const KEYS: usize = 200;
/// So many differences are kept by name, per participant; more are only counted, and then nothing is repaired.
const MOST: usize = 100_000;
/// A request of the comparison is made so often; the first wait in between, and the longest that a vendor may ask for.
const ATTEMPTS: u32 = 4;
const RETRY: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often one looks whether something has happened.
const PEEK: Duration = Duration::from_millis(200);
/// The longest that the ordinary reader is waited for, besides its own interval.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is remembered.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    /// The schedule that `done` speaks of.
    schedule: Option<ScheduleText>,
    /// No occurrence before this is due any more.
    done: Timestamp,
    last: Option<Reconciliation>,
}

/// Why a comparison ended early.
enum Halt {
    /// The Integration stops, or another process has the lease now.
    Cancelled,
    /// The guard holds the Integration.
    Guarded,
    /// The store refuses.
    Store(StoreError),
}

/// Why that of one system did.
enum Stop {
    /// All of it ends.
    Halt(Halt),
    /// The system refuses: its part cannot be compared.
    Remote(RemoteError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Halt(Halt::Store(error))
    }
}

/// Reconciles by the unit's schedule until the Integration stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(unit) = shared.program.unit.reconcile.clone() else { return };
    // The planner has read it.
    let Ok(schedule) = Schedule::parse(&unit.schedule) else { return };
    let mut reconciler = Reconciler { lease: shared.reconcile_lease(), shared, unit, schedule, memory: None };
    loop {
        let pause = match reconciler.turn().await {
            Ok(pause) => pause,
            Err(error) => {
                reconciler.shared.store_result::<()>(&Err(error));
                LATER
            }
        };
        tokio::select! {
            biased;
            () = reconciler.shared.cancel.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    reconciler.lease.release().await;
}

struct Reconciler {
    shared: Arc<Shared>,
    unit: ReconcileUnit,
    schedule: Schedule,
    lease: Lease,
    memory: Option<Memory>,
}

/// The differences of one participant, by name.
#[derive(Default)]
struct Differences {
    kinds: BTreeMap<ExternalId, Kind>,
    /// There were more than can be kept.
    more: bool,
}

/// How far a walk over everything that a participant shows has come.
#[derive(Default)]
struct Pages {
    cursor: Option<Value>,
    caught_up: bool,
}

impl Differences {
    fn add(&mut self, found: impl IntoIterator<Item = (ExternalId, Kind)>) {
        for (id, kind) in found {
            if self.kinds.len() < MOST {
                self.kinds.insert(id, kind);
            } else {
                self.more = true;
            }
        }
    }
}

impl Reconciler {
    /// Does it if it is due, and says when to look again.
    async fn turn(&mut self) -> Result<Duration, StoreError> {
        let memory = match &self.memory {
            Some(memory) => memory.clone(),
            None => self.recall().await?,
        };
        let now = self.shared.now();
        let Some(due) = self.schedule.next_after(memory.done) else { return Ok(LATER) };
        if now < due {
            return Ok(due.since(now).min(LOOK));
        }
        // While a share of the records is mapped otherwise, either mapping would take the other's for drift.
        if self.shared.has_canary()
            || !self.shared.was_loaded()
            || !self.shared.loaded()
            || self.shared.guarded()
            || self.lease.ensure().await?.is_none()
        {
            self.memory = None;
            return Ok(LATER);
        }
        // Another process may have done it while this one had no lease.
        let memory = self.recall().await?;
        if self.schedule.next_after(memory.done).is_none_or(|due| now < due) {
            return Ok(Duration::ZERO);
        }
        tracing::info!(integration = %self.shared.integration, "reconciliation begins: everything is read and compared");
        let found = match self.compare().await {
            Ok(found) => found,
            Err(Halt::Store(error)) => return Err(error),
            Err(Halt::Cancelled | Halt::Guarded) => return Ok(LATER),
        };
        let success = matches!(found.outcome, ReconciliationOutcome::InStep | ReconciliationOutcome::Repaired).then_some(found.at);
        let last_success = success.or_else(|| memory.last.as_ref().and_then(|last| last.last_success));
        let last = Reconciliation { last_success, ..found };
        tracing::info!(integration = %self.shared.integration, outcome = ?last.outcome, compared = last.compared, drift = ?last.drift, repaired = last.repaired, trouble = last.trouble.as_deref().unwrap_or(""), "reconciliation ended");
        self.remember(Memory { done: now, last: Some(last), ..memory }).await?;
        Ok(Duration::ZERO)
    }

    /// What is remembered; a schedule that is new here begins now.
    async fn recall(&mut self) -> Result<Memory, StoreError> {
        let note = self.shared.around.store.note(&self.shared.realm, &self.shared.note(NOTE)).await?;
        let memory = note.and_then(|note| Memory::deserialize(note).ok()).unwrap_or_default();
        if memory.schedule.as_ref() == Some(&self.unit.schedule) {
            self.show(&memory);
            self.memory = Some(memory.clone());
            return Ok(memory);
        }
        let memory = Memory { schedule: Some(self.unit.schedule.clone()), done: self.shared.now(), ..memory };
        self.remember(memory.clone()).await?;
        Ok(memory)
    }

    async fn remember(&mut self, memory: Memory) -> Result<(), StoreError> {
        self.shared.around.store.put_note(&self.shared.realm, &self.shared.note(NOTE), &json!(memory)).await?;
        self.show(&memory);
        self.memory = Some(memory);
        Ok(())
    }

    fn show(&self, memory: &Memory) {
        lock(&self.shared.reconciliation).clone_from(&memory.last);
    }

    async fn fence(&mut self) -> Result<Fence, Halt> {
        if self.shared.cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        self.lease.ensure().await?.ok_or(Halt::Cancelled)
    }

    /// Compares everything, and puts on its way what may be put right.
    async fn compare(&mut self) -> Result<Reconciliation, Halt> {
        let shared = Arc::clone(&self.shared);
        let participants = &shared.program.participants;
        let (mut compared, mut drift, mut more, mut trouble) = (0, Drift::default(), false, None);
        let mut suspects = Vec::new();
        for (index, participant) in participants.iter().enumerate().filter(|(_, participant)| participant.readable()) {
            match self.read_all(index).await {
                Ok((records, found)) => {
                    compared += records;
                    suspects.push((index, found));
                }
                Err(Stop::Remote(error)) => note_trouble(&mut trouble, participant, &error),
                Err(Stop::Halt(halt)) => return Err(halt),
            }
        }
        let mut missed = Vec::new();
        for (index, found) in suspects {
            more |= found.more;
            if found.kinds.is_empty() {
                continue;
            }
            self.wait_for_reader(index).await?;
            match self.look_again(index, found.kinds.into_keys().collect()).await {
                Ok(found) => missed.push((index, found)),
                Err(Stop::Remote(error)) => note_trouble(&mut trouble, &participants[index], &error),
                Err(Stop::Halt(halt)) => return Err(halt),
            }
        }
        let (records, lacking) = self.look_at_targets().await?;
        compared += records;
        more |= lacking.len() >= MOST;
        missed
            .iter()
            .flat_map(|(_, found)| found.values())
            .chain(lacking.iter().map(|(_, _, kind)| kind))
            .for_each(|kind| kind.count(&mut drift));

        let live = shared.live.load(Ordering::Acquire);
        let most = (live.saturating_mul(u64::from(self.unit.max_repair_percent)) / 100).max(FLOOR);
        let too_many = more || drift.total() > most;
        // What a system that was not compared may hold, must not be made there a second time.
        let repairs = self.unit.repair && !too_many && trouble.is_none();
        let (repaired, left) = if repairs { self.repair(&missed, lacking).await? } else { (0, Vec::new()) };
        let outcome = match drift.total() {
            _ if trouble.is_some() => ReconciliationOutcome::Incomplete,
            0 => ReconciliationOutcome::InStep,
            _ if too_many => ReconciliationOutcome::ThresholdExceeded,
            total if repaired == total => ReconciliationOutcome::Repaired,
            _ => ReconciliationOutcome::Drifted,
        };
        let trouble = trouble.or_else(|| (!left.is_empty()).then(|| left.join("; ")));
        Ok(Reconciliation { at: shared.now(), outcome, compared, drift, repaired, trouble, last_success: None })
    }

    /// Reads everything that a participant shows, and says how much that was and what differs at first sight.
    async fn read_all(&mut self, index: usize) -> Result<(u64, Differences), Stop> {
        let shared = Arc::clone(&self.shared);
        let (mut compared, mut found, mut seen) = (0, Differences::default(), HashSet::new());
        let mut pages = Pages::default();
        while let Some(records) = self.next_page(index, &mut pages).await? {
            compared += records.iter().filter(|record| !record.deleted).count() as u64;
            // By hash, so that a million ids stay small. Two ids of one hash would hide that one of them is gone: a chance of about 1 in 10^7
            // for a million records.
            seen.extend(records.iter().filter(|record| !record.deleted).map(|record| ValueHash::of_text(record.id.as_str())));
            found.add(self.judge(index, &records).await?);
        }
        let name = &shared.program.participants[index].unit.name;
        let mut after: Option<ExternalId> = None;
        loop {
            self.fence().await?;
            let ids = shared.around.store.participant_ids(&shared.realm, name, after.as_ref(), PAGE).await?;
            let Some(last) = ids.last() else { return Ok((compared, found)) };
            if seen.is_empty() {
                let text = "it shows no record at all, and there were some; an empty answer deletes nothing";
                return Err(Stop::Remote(RemoteError::new(ErrorClass::Transient, "RemoteError", text)));
            }
            after = Some(last.clone());
            let unseen: Vec<_> = ids.into_iter().filter(|id| !seen.contains(&ValueHash::of_text(id.as_str()))).collect();
            found.add(self.judge_absent(index, unseen).await?);
        }
    }

    /// The next page of all that there is; `None` after the last.
    async fn next_page(&mut self, index: usize, pages: &mut Pages) -> Result<Option<Vec<NativeRecord>>, Stop> {
        if pages.caught_up {
            return Ok(None);
        }
        self.fence().await?;
        let shared = Arc::clone(&self.shared);
        let participant = &shared.program.participants[index];
        let connection = shared.connection(index).map_err(Stop::Remote)?;
        let system = connection.system(Priority::Backfill).map_err(|error| Stop::Remote(error.clone()))?;
        let request = ReadRequest {
            entity: participant.unit.entity.clone(),
            slice: "main".into(),
            fields: participant.native_paths.clone(),
            cursor: pages.cursor.take(),
            deadline: system.request_timeout(),
        };
        let mut attempt = 0;
        loop {
            let page = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return Err(Halt::Cancelled.into()),
                page = self.lease.during(system.read_page(&request)) => page,
            };
            match page {
                Ok(page) => {
                    *pages = Pages { cursor: Some(page.cursor), caught_up: page.caught_up };
                    return Ok(Some(page.records));
                }
                Err(error) => self.wait_after(error, attempt).await?,
            }
            attempt += 1;
        }
    }

    /// Waits after a request that failed, as told or ever longer. One that fails too often, or will fail again, ends the comparison of its system.
    async fn wait_after(&mut self, error: RemoteError, attempt: u32) -> Result<(), Stop> {
        let wait = error.retry_after.unwrap_or(RETRY * 2u32.saturating_pow(attempt));
        let passes = matches!(error.class, ErrorClass::Transient | ErrorClass::Throttled);
        if attempt + 1 >= ATTEMPTS || !passes || wait > LONGEST {
            return Err(Stop::Remote(error));
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.peek().await?;
        }
        Ok(())
    }

    /// What differs among records that a participant shows: by one hash over all of them first, and only where that differs by their fields.
    async fn judge(&self, index: usize, records: &[NativeRecord]) -> Result<Vec<(ExternalId, Kind)>, StoreError> {
        let shared = &self.shared;
        let (store, participant) = (&shared.around.store, &shared.program.participants[index]);
        let name = &participant.unit.name;
        // A record that changed during the walk is shown twice, and counts as it was shown last.
        let records: BTreeMap<_, _> = records.iter().map(|record| (record.id.clone(), record)).collect();
        let ids: Vec<ExternalId> = records.keys().cloned().collect();
        let mapped: Vec<_> = records.values().map(|record| participant.table.to_canonical(&record.body)).collect();
        let references: BTreeSet<ExternalId> =
            mapped.iter().flatten().flat_map(|inbound| inbound.references.iter().map(|(_, _, id)| id.clone())).collect();
        let references: Vec<_> = references.into_iter().collect();
        let resolved: HashMap<_, _> = references.iter().cloned().zip(store.record_ids(&shared.realm, name, &references).await?).collect();
        let show = |(record, inbound): (&&NativeRecord, Result<Inbound, RowError>)| match inbound {
            _ if record.deleted => Shown::Absent,
            Err(_) => Shown::Unmappable,
            Ok(inbound) => {
                let mut values = inbound.fields;
                // What refers to a record that is not known says nothing yet.
                values.extend(inbound.references.into_iter().filter_map(|(unit, _, external)| {
                    resolved.get(&external).copied().flatten().map(|record| (unit, Value::String(record.to_string())))
                }));
                Shown::Values(values)
            }
        };
        let shown: Vec<Shown> = records.values().zip(mapped).map(show).collect();
        let fields: Vec<SmolStr> = participant.table.readable_units().iter().map(|unit| unit.text().clone()).collect();
        let range = drift::of_range(participant, ids.iter().zip(&shown));
        if range.is_some() && range == store.seen(&shared.realm, name, &ids, &fields).await? {
            return Ok(Vec::new());
        }
        let known = store.known_by_external(&shared.realm, name, &ids).await?;
        // What is a dead letter waits for a person already.
        let dead = store.dead_lettered(&shared.realm, name, &ids).await?;
        let judged = ids.into_iter().zip(shown).zip(known).zip(dead);
        let differs = |(((id, shown), known), dead): (((ExternalId, Shown), Option<Known>), bool)| {
            drift::of_read(participant, &shown, known.as_ref()).filter(|_| !dead).map(|kind| (id, kind))
        };
        Ok(judged.filter_map(differs).collect())
    }

    /// What differs among ids that a participant does not show.
    async fn judge_absent(&self, index: usize, ids: Vec<ExternalId>) -> Result<Vec<(ExternalId, Kind)>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let participant = &self.shared.program.participants[index];
        let known = self.shared.around.store.known_by_external(&self.shared.realm, &participant.unit.name, &ids).await?;
        let judged = ids.into_iter().zip(known);
        Ok(judged.filter_map(|(id, known)| Some((id, drift::of_read(participant, &Shown::Absent, known.as_ref())?))).collect())
    }

    /// Waits until the ordinary reader has made a round that began after this moment; what it finds it puts right itself. Where another process
    /// reads, for as long as that would take.
    async fn wait_for_reader(&mut self, index: usize) -> Result<(), Halt> {
        let shared = Arc::clone(&self.shared);
        let facts = &shared.participants[index];
        let deadline = Instant::now() + self.interval(index) * 2 + PATIENCE;
        // The first that ends may have begun before.
        for _ in 0..2 {
            let asked = Instant::now();
            facts.wake_reader.notify_one();
            while Instant::now() < deadline && lock(&facts.last_read).is_none_or(|(_, last)| last <= asked) {
                self.peek().await?;
            }
        }
        Ok(())
    }

    fn interval(&self, index: usize) -> Duration {
        self.shared.program.participants[index].unit.read.as_ref().map_or(Duration::ZERO, |read| read.every)
    }

    /// Waits a little, and keeps the lease.
    async fn peek(&mut self) -> Result<(), Halt> {
        self.fence().await?;
        tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => Err(Halt::Cancelled),
            () = tokio::time::sleep(PEEK) => Ok(()),
        }
    }

    /// Looks at these records once more, by key where that can be done, and says what differs still.
    async fn look_again(&mut self, index: usize, ids: BTreeSet<ExternalId>) -> Result<BTreeMap<ExternalId, Kind>, Stop> {
        let shared = Arc::clone(&self.shared);
        let participant = &shared.program.participants[index];
        let waiting: BTreeSet<ExternalId> = self.waiting(index).await?;
        if waiting.len() >= MOST {
            let text = "too many of its records wait to be read again; compared when that is done";
            return Err(Stop::Remote(RemoteError::new(ErrorClass::Transient, "RemoteError", text)));
        }
        let mut ids: BTreeSet<ExternalId> = ids.difference(&waiting).cloned().collect();
        let connection = shared.connection(index).map_err(Stop::Remote)?;
        let system = connection.system(Priority::Backfill).map_err(|error| Stop::Remote(error.clone()))?;
        let by_key = connection.entity(&participant.unit.entity).is_some_and(fairlead_systems::Entity::can_read_keys);
        let mut found = BTreeMap::new();
        if !by_key {
            let mut pages = Pages::default();
            while let Some(records) = self.next_page(index, &mut pages).await? {
                let asked: Vec<_> = records.into_iter().filter(|record| ids.remove(&record.id)).collect();
                found.extend(self.judge(index, &asked).await?);
            }
            found.extend(self.judge_absent(index, ids.into_iter().collect()).await?);
            return Ok(found);
        }
        let ids: Vec<_> = ids.into_iter().collect();
        for ids in ids.chunks(KEYS) {
            self.fence().await?;
            let read = |ids: Vec<ExternalId>| async move {
                let records = system.read_keys(&participant.unit.entity, &participant.native_paths, &ids).await;
                (ids, records)
            };
            let mut attempt = 0;
            let asked: Asked = loop {
                let mut asked = tokio::select! {
                    biased;
                    () = shared.cancel.cancelled() => return Err(Halt::Cancelled.into()),
                    asked = self.lease.during(read_apart(ids.to_vec(), read)) => asked,
                };
                let trouble = asked.trouble.take().or_else(|| asked.failed.values().next().cloned());
                let Some(error) = trouble else { break asked };
                self.wait_after(error, attempt).await?;
                attempt += 1;
            };
            let (there, absent): (Vec<_>, Vec<_>) = asked.read.into_iter().partition(|(_, record)| record.is_some());
            let there: Vec<_> = there.into_iter().filter_map(|(_, record)| record).collect();
            // What is shown as deleted is absorbed as that when it is read by its key, like any other difference.
            let shown = self.judge(index, &there).await?.into_iter();
            found.extend(shown.map(|(id, kind)| (id, if kind == Kind::Gone { Kind::Different } else { kind })));
            found.extend(self.judge_absent(index, absent.into_iter().map(|(id, _)| id).collect()).await?);
        }
        Ok(found)
    }

    /// What a participant's reader is asked for by key.
    async fn waiting(&self, index: usize) -> Result<BTreeSet<ExternalId>, StoreError> {
        let name = &self.shared.program.participants[index].unit.name;
        Ok(self.shared.around.store.pending_reads(&self.shared.realm, name, MOST).await?.into_iter().collect())
    }

    /// What the targets lack by what is known of them, and how many records of targets that nobody reads were looked at for that.
    async fn look_at_targets(&mut self) -> Result<(u64, Vec<(usize, RecordId, Kind)>), Halt> {
        let shared = Arc::clone(&self.shared);
        let targets: Vec<_> = shared.program.participants.iter().enumerate().filter(|(_, target)| target.writable()).collect();
        let (mut compared, mut found) = (0, Vec::new());
        let mut after = None;
        loop {
            self.fence().await?;
            let page = shared.around.store.records(&shared.realm, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok((compared, found)) };
            after = Some(last.record.id);
            for (index, target) in &targets {
                let name = &target.unit.name;
                let held = page.iter().filter(|known| known.identity(name).is_some_and(|held| !held.state.deleted)).count() as u64;
                compared += if target.readable() { 0 } else { held };
                let lacks = |known: &Known| Some((*index, known.record.id, drift::of_target(&shared.program, target, known)?));
                let lacking: Vec<_> = page.iter().filter_map(lacks).collect();
                let ids: Vec<RecordId> = lacking.iter().map(|(_, id, _)| *id).collect();
                // What is a dead letter waits for a person already.
                let dead = shared.around.store.dead_lettered_records(&shared.realm, name, &ids).await?;
                let alive = lacking.into_iter().zip(dead).filter(|(_, dead)| !dead).map(|(lacking, _)| lacking);
                found.extend(alive.take(MOST - found.len().min(MOST)));
            }
        }
    }

    /// Puts on its way what was missed, and says how much that was, and what is left for a person. First what the systems hold, for what a target
    /// lacks may be among it.
    async fn repair(
        &mut self,
        missed: &[(usize, BTreeMap<ExternalId, Kind>)],
        lacking: Vec<(usize, RecordId, Kind)>,
    ) -> Result<(u64, Vec<String>), Halt> {
        let shared = Arc::clone(&self.shared);
        let store = &shared.around.store;
        let (mut repaired, mut left_over) = (0, Vec::new());
        let mut unread: HashSet<usize> = HashSet::new();
        for (index, found) in missed {
            let unit = &shared.program.participants[*index].unit;
            let (name, called) = (&unit.name, unit.called());
            let (gone, others): (Vec<_>, Vec<_>) = found.iter().partition(|(_, kind)| **kind == Kind::Gone);
            let others: Vec<ExternalId> = others.into_iter().map(|(id, _)| id.clone()).collect();
            if !others.is_empty() {
                store.request_reads(&shared.realm, name, &others, Haste::Bulk, shared.now()).await?;
                self.drain(*index, &others).await?;
                let waiting = self.waiting(*index).await?;
                let left = others.iter().filter(|id| waiting.contains(id)).count();
                if left > 0 {
                    unread.insert(*index);
                    left_over.push(format!("{left} of {called} could not be read again in time, and will be"));
                }
                repaired += (others.len() - left) as u64;
            }
            let gone: BTreeSet<ExternalId> = gone.into_iter().map(|(id, _)| id.clone()).collect();
            if gone.is_empty() {
                continue;
            }
            if self.tells_deletions(*index) {
                let (number, example) = (gone.len(), gone.first().map(ToString::to_string).unwrap_or_default());
                left_over.push(format!(
                    "{called} does not show {number} that it has not told as deleted, such as {example}: see whether its account may read them"
                ));
            } else {
                let asked = gone.len() as u64;
                let absorbed = self.absorb_gone(*index, gone).await?;
                if absorbed < asked {
                    left_over.push(format!(
                        "of {asked} that {called} does not show any more, {} were not seen to be gone right before",
                        asked - absorbed
                    ));
                }
                repaired += absorbed;
            }
        }
        let mut by_target: BTreeMap<usize, Vec<RecordId>> = BTreeMap::new();
        for (index, id, _) in lacking.into_iter().filter(|(index, _, kind)| *kind != Kind::Missing || !unread.contains(index)) {
            by_target.entry(index).or_default().push(id);
        }
        for (index, ids) in by_target {
            let target = &shared.program.participants[index];
            for ids in ids.chunks(PAGE) {
                self.fence().await?;
                let known = store.known_by_id(&shared.realm, ids).await?;
                let still = |known: &Known| drift::of_target(&shared.program, target, known).is_some();
                let records: Vec<_> = known.into_iter().flatten().filter(still).map(|known| known.record.id).collect();
                let enqueue = Enqueue {
                    realm: shared.realm.clone(),
                    target: target.unit.name.clone(),
                    keys: Keys::Records(records),
                    origin: Origin::Repair,
                    now: shared.now(),
                };
                store.enqueue(&enqueue).await?;
                // What the readings above have put right meanwhile is right all the same.
                repaired += ids.len() as u64;
            }
            shared.participants[index].wake_lane.notify_one();
        }
        Ok((repaired, left_over))
    }

    /// Waits until the reader has read these.
    async fn drain(&mut self, index: usize, ids: &[ExternalId]) -> Result<(), Halt> {
        self.shared.participants[index].wake_reader.notify_one();
        let deadline = Instant::now() + self.interval(index) * 3 + PATIENCE;
        while Instant::now() < deadline {
            let waiting = self.waiting(index).await?;
            if !ids.iter().any(|id| waiting.contains(id)) {
                break;
            }
            self.peek().await?;
        }
        Ok(())
    }

    /// Whether the vendor tells of deletions. Then what is not shown and not told may merely be hidden from this account.
    fn tells_deletions(&self, index: usize) -> bool {
        let entity = &self.shared.program.participants[index].unit.entity;
        let connection = self.shared.connection(index).ok();
        connection.is_none_or(|connection| connection.entity(entity).is_none_or(fairlead_systems::Entity::tells_deletions))
    }

    /// Absorbs that these records are deleted, within what the guard allows, and says how many were. A deletion goes on to every other system,
    /// and time has passed since they were missed: they are looked at once more, right before.
    async fn absorb_gone(&mut self, index: usize, ids: BTreeSet<ExternalId>) -> Result<u64, Halt> {
        let shared = Arc::clone(&self.shared);
        let began = shared.around.store.sequence().await?;
        let found = match self.look_again(index, ids).await {
            Ok(found) => found,
            Err(Stop::Remote(error)) => {
                tracing::warn!(integration = %shared.integration, reason = %error.reason, detail = %error.message, "what is gone could not be looked at once more, and nothing is deleted");
                return Ok(0);
            }
            Err(Stop::Halt(halt)) => return Err(halt),
        };
        let gone: Vec<ExternalId> = found.into_iter().filter(|(_, kind)| *kind == Kind::Gone).map(|(id, _)| id).collect();
        for ids in gone.chunks(PAGE) {
            let fence = self.fence().await?;
            if !Source::new(Arc::clone(&shared), index).absorb_gone(ids, began, &fence).await? {
                return Err(Halt::Guarded);
            }
        }
        Ok(gone.len() as u64)
    }
}

fn note_trouble(trouble: &mut Option<String>, participant: &Participant, error: &RemoteError) {
    tracing::warn!(participant = %participant.unit.name, reason = %error.reason, detail = %error.message, "reconciliation cannot read a participant");
    trouble.get_or_insert_with(|| format!("{} could not be read: {}", participant.unit.called(), error.message));
}
