//! One running Integration: its readers, its lanes, what a new unit asks to be read or compared again, and its report.

use crate::backfill;
use crate::counts::Counts;
use crate::decide::{inbound, outbound, ownership};
use crate::invariants;
use crate::lane::Lane;
use crate::masks::Masks;
use crate::names::{self, PARTICIPANTS};
use crate::neighbours::Neighbours;
use crate::program::{self, Participant, Program};
use crate::reconcile;
use crate::retention;
use crate::revision::{self, Arrangement, Before};
use crate::shared::{ParticipantFacts, Shared, Surroundings, lock};
use crate::source::Source;
use fairlead_contract::Contract;
use fairlead_model::hash::Digest;
use fairlead_model::report::{IntegrationReport, Lag, ParticipantReport, ParticipantState, Phase, Preview};
use fairlead_model::unit::{InitialLoad, ObjectKey, RevisionUnit};
use fairlead_model::{ErrorClass, ExternalId, RecordId, RemoteError, realm};
use fairlead_store::{
    Absorb, Checkpoint, DeadLetterFilter, Enqueue, Haste, IndexState, Keys, Known, NewDeadLetter, Origin, Pending, Reindex, Snapshot,
    Stage, StoreError,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Of a contract's records those that are one's own are counted anew after so long at the latest.
const COUNT_AGAIN: Duration = Duration::from_secs(300);
/// A preview maps every record; it is counted anew this often at most.
const PREVIEW_EVERY: Duration = Duration::from_secs(5);
/// Ids handled at once when a whole participant is to be read again.
const PAGE: usize = 1000;
/// How many dead letters of a participant are read again when a new unit comes.
const RETRIED_LETTERS: usize = 10_000;
/// How many dead letters are looked at when a preview counts ambiguous ones.
const PREVIEW_LETTERS: usize = 10_000;

/// By what a process ran an Integration. Another process may have run a newer unit meanwhile, and have asked for everything that this asks for: what
/// was read, entered into lanes or settled by the older one since is to be looked at again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ran {
    /// By participant of its own: the digests of what its table says about reading and about writing.
    tables: BTreeMap<String, (u64, u64)>,
    /// Whoever was told of changes.
    targets: BTreeSet<String>,
    ownership: u64,
    unit: Digest,
}

impl Ran {
    fn of(program: &Program) -> Self {
        let tables = program.participants.iter().map(|each| (each.unit.name.clone(), (each.read_digest, each.write_digest)));
        let own = program.participants.iter().filter(|each| each.writable()).map(|each| each.unit.name.clone());
        let others = program.unit.siblings().iter().filter(|sibling| sibling.writes).map(|sibling| sibling.name.clone());
        Self {
            tables: tables.collect(),
            targets: own.chain(others).collect(),
            ownership: program::ownership_digest(&program.unit.ownership),
            unit: program.unit.digest.clone(),
        }
    }

    fn read_otherwise(&self, participant: &Participant) -> bool {
        self.tables.get(&participant.unit.name).is_some_and(|(read, _)| *read != participant.read_digest)
    }

    /// Whoever was no target was told of nothing.
    fn wrote_otherwise(&self, participant: &Participant) -> bool {
        self.tables.get(&participant.unit.name).is_none_or(|(_, write)| *write != participant.write_digest)
    }
}

/// A running Integration.
pub(crate) struct Running {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    report: Arc<Mutex<IntegrationReport>>,
}

impl Running {
    /// Starts the tasks of a compiled Integration, which takes the place of `before`.
    pub(crate) fn start(program: Program, around: Surroundings, before: Option<&Self>) -> Self {
        let wanted = Arc::new(program);
        let newest = wanted.unit.revision.clone();
        let before = before.map(Self::as_before).unwrap_or_default();
        let phase = if wanted.unit.paused { Phase::Paused } else { Phase::Backfill };
        let report = IntegrationReport::begun(wanted.unit.digest.clone(), phase);
        Self::begin(Arc::clone(&wanted), wanted, OnceLock::new(), around, before, newest, report)
    }

    /// Starts the same by another arrangement, after it was stopped.
    pub(crate) fn again(&self, arrangement: Arrangement) -> Self {
        let before = &self.shared;
        let (program, wanted, newest) = (Arc::clone(&arrangement.program), Arc::clone(&before.wanted), lock(&before.newest).clone());
        let around = before.around.clone();
        Self::begin(program, wanted, OnceLock::from(arrangement), around, self.as_before(), newest, self.report())
    }

    fn begin(
        program: Arc<Program>,
        wanted: Arc<Program>,
        arrangement: OnceLock<Arrangement>,
        around: Surroundings,
        before: Before,
        newest: RevisionUnit,
        report: IntegrationReport,
    ) -> Self {
        let (realm, integration) = (program.unit.realm(), ObjectKey::from(&program.unit.object));
        let participants = program.participants.iter().map(|_| ParticipantFacts::default()).collect();
        let shared = Arc::new(Shared {
            program,
            wanted,
            arrangement,
            before,
            newest: Mutex::new(newest),
            around,
            realm,
            integration,
            others: Mutex::default(),
            cancel: CancellationToken::new(),
            prepared: AtomicBool::new(false),
            whole: AtomicBool::new(false),
            participants,
            live: AtomicU64::new(0),
            count_again: Mutex::default(),
            guard: Mutex::default(),
            reconciliation: Mutex::default(),
            last_error: Mutex::default(),
            store_error: Mutex::default(),
        });
        shared.wait_for_readers(shared.program.unit.siblings());
        let report = Arc::new(Mutex::new(report));
        let tasks = TaskTracker::new();
        if shared.around.works {
            tasks.spawn(run(Arc::clone(&shared), tasks.clone()));
            tasks.spawn(report_forever(Arc::clone(&shared), Arc::clone(&report)));
        }
        tasks.close();
        Self { shared, tasks, report }
    }

    /// The unit that runs.
    pub(crate) fn unit(&self) -> &fairlead_model::unit::IntegrationUnit {
        &self.shared.wanted.unit
    }

    /// By what this process read and wrote until now, as far as nothing was asked for since.
    fn as_before(&self) -> Before {
        let Shared { around, program, before, .. } = &*self.shared;
        // Before it is prepared nothing is read or written by it.
        let is_prepared = self.shared.prepared.load(Ordering::Acquire);
        let ran = if is_prepared { Some(Ran::of(program)) } else { before.ran.clone() };
        let percent = if is_prepared { self.shared.percent() } else { before.percent };
        Before { ran: ran.filter(|_| around.neighbours.share()), percent }
    }

    /// Its contract.
    pub(crate) fn contract(&self) -> &Arc<Contract> {
        &self.shared.program.contract
    }

    /// Which fields of a participant's records may be shown.
    pub(crate) fn masks(&self, participant: &str) -> Option<Masks> {
        let program = &self.shared.program;
        program.participant(participant).map(|participant| Masks::of(program, participant))
    }

    /// These connectors are others than before: whoever waited for what the ones before refused looks again.
    pub(crate) fn look_again(&self, connectors: &BTreeSet<ObjectKey>) {
        for (participant, facts) in self.shared.program.participants.iter().zip(&self.shared.participants) {
            if connectors.contains(&ObjectKey::from(&participant.unit.connector)) {
                facts.wake_reader.notify_one();
                facts.wake_lane.notify_one();
            }
        }
    }

    /// What its tasks share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs a task that [`Running::stop`] waits for.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(task)
    }

    /// What it is like.
    pub(crate) fn report(&self) -> IntegrationReport {
        lock(&self.report).clone()
    }

    /// The same unit is of another revision now.
    pub(crate) fn renumbered(&self, revision: &RevisionUnit) {
        if revision.number.is_some() {
            lock(&self.shared.newest).clone_from(revision);
        }
    }

    /// Takes note that a newer unit could not be taken over.
    pub(crate) fn rejected(&self, why: Option<String>) {
        lock(&self.report).rejected = why;
    }

    /// Forgets what was counted of it.
    pub(crate) fn forget_counts(&self) {
        let names = self.shared.program.participants.iter().map(|p| p.unit.called().to_owned());
        self.shared.around.metrics.forget_counts(&self.shared.integration.0, names);
    }

    /// Stops: no new work, what is in flight settles, leases are given back.
    pub(crate) async fn stop(&self) {
        self.shared.cancel.cancel();
        self.tasks.wait().await;
        let names = self.shared.program.participants.iter().map(|p| p.unit.called().to_owned());
        self.shared.around.metrics.forget(&self.shared.integration.0, names);
    }
}

/// Does what the new unit asks for, then starts readers and lanes.
async fn run(shared: Arc<Shared>, tasks: TaskTracker) {
    if !until_done(&shared, arrange).await || shared.arrangement.get().is_none() {
        return;
    }
    // Also while it is paused: the gateway goes on serving, and finds records by what the unit says.
    if !until_done(&shared, reindex).await || shared.program.unit.paused || !until_done(&shared, find_moved).await {
        return;
    }
    if shared.participants.iter().any(|facts| lock(&facts.moved).is_some()) {
        until_done(&shared, note_all_refused).await;
        return;
    }
    if !until_done(&shared, prepare).await {
        return;
    }
    shared.prepared.store(true, Ordering::Release);
    for (index, participant) in shared.program.participants.iter().enumerate() {
        if participant.readable() {
            tasks.spawn(Source::new(Arc::clone(&shared), index).run());
        }
        if participant.writable() {
            tasks.spawn(Lane::new(Arc::clone(&shared), index).run());
        }
    }
    tasks.spawn(retention::run(Arc::clone(&shared)));
    tasks.spawn(revision::run(Arc::clone(&shared)));
    tasks.spawn(reconcile::run(shared));
}

/// Does one thing, again until the store lets it; `false` when the Integration stops before that.
async fn until_done(shared: &Arc<Shared>, work: impl AsyncFn(&Arc<Shared>) -> Result<(), StoreError>) -> bool {
    loop {
        let result = work(shared).await;
        shared.store_result(&result);
        match result {
            Ok(()) => return !shared.cancel.is_cancelled(),
            Err(error) => tracing::warn!(integration = %shared.integration, %error, "integration waits for the store"),
        }
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Finds out by which revisions it runs. Where that is not as it was started, it does nothing, and is started by that instead.
async fn arrange(shared: &Arc<Shared>) -> Result<(), StoreError> {
    if shared.arrangement.get().is_none() {
        let arrangement = revision::arrange(shared).await?;
        if arrangement.trial.is_none() {
            // Only this task ever sets it.
            let _ = shared.arrangement.set(arrangement);
        } else {
            shared.renew(arrangement);
        }
    }
    Ok(())
}

/// Gives the stored records the keys by which this unit finds them, where the unit before found them by others. Page by page, each with the
/// note how far it is, so that a restart goes on there. Readers wait for it: a record that cannot be found would be made a second time.
///
/// Of several Integrations that feed one realm, each goes through the records itself: when it does, its unit before has written the last one
/// by its own rules.
async fn reindex(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let (store, program) = (&shared.around.store, &shared.program);
    let (digest, note) = (program.index_digest(), shared.note(IndexState::NOTE));
    let before = store.note(&shared.realm, &note).await?.and_then(|note| IndexState::deserialize(note).ok());
    let mut state = before.clone().filter(|state| state.digest == digest).unwrap_or_else(|| {
        let had = before.map(|state| state.fields).unwrap_or_default();
        IndexState {
            digest,
            fields: had.into_iter().filter(|field| program.unit.indexed.contains(field)).collect(),
            complete: false,
            after: None,
        }
    });
    while !state.complete && !shared.cancel.is_cancelled() {
        let page = store.records(&shared.realm, state.after, PAGE).await?;
        let next = match page.last() {
            Some(last) => IndexState { after: Some(last.record.id), ..state.clone() },
            None => IndexState { digest, fields: program.unit.indexed.clone(), complete: true, after: None },
        };
        let kept = page.iter().filter(|known| known.merged_into.is_none());
        let records =
            kept.map(|known| (known.record.id, known.record.version, program.keys_of(&known.record, known.lives_on(None)))).collect();
        match store.reindex(&Reindex { realm: shared.realm.clone(), records, state: next.clone(), note: note.clone() }).await {
            Ok(()) => state = next,
            // Somebody who is about to stop still commits; the page is taken once more.
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if note != IndexState::NOTE && state.complete && !shared.cancel.is_cancelled() {
        // For whoever looks for records without being one of those that write them.
        let (known, state) = (store.note(&shared.realm, IndexState::NOTE).await?, json!(state));
        if known.as_ref() != Some(&state) {
            store.put_note(&shared.realm, IndexState::NOTE, &state).await?;
        }
    }
    Ok(())
}

/// Compares what the unit says with what was in force before, and asks for readings and comparisons where that differs. The note that says
/// so is written last: a crash in between repeats the asking, which is harmless.
///
/// Where several processes share the work, another one may have swapped before this one, asked, and noted it, while this one still went by the unit
/// before. So what this process itself ran by counts like the note; what still waits to be done is not asked for twice.
async fn prepare(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let unit = &shared.program.unit;
    names::note_realm(store.as_ref(), &shared.integration, &shared.realm).await?;
    revision::note(shared).await?;
    forget_absent(shared).await?;
    refresh_live(shared, &store.snapshot(&shared.realm, shared.now()).await?).await?;
    let ran = shared.before.ran.as_ref();
    let digest = program::ownership_digest(&unit.ownership);
    let ownership = json!(digest);
    let (owners_note, unit_note) = (shared.note("ownership"), shared.note("unit"));
    let owners_changed =
        changed(&store.note(&shared.realm, &owners_note).await?, &ownership) || ran.is_some_and(|ran| ran.ownership != digest);
    let loads = Loads::of(shared).await?;
    for participant in &shared.program.participants {
        let name = &participant.unit.name;
        let note = program::table_note(name);
        let table = json!({"read": participant.read_digest, "write": participant.write_digest, "of": origin(participant)});
        let before = store.note(&shared.realm, &note).await?;
        let read_changed = changed(&before.as_ref().and_then(|b| b.get("read").cloned()), &table["read"])
            || ran.is_some_and(|ran| ran.read_otherwise(participant));
        if participant.readable() && read_changed {
            tracing::info!(integration = %shared.integration, participant = %name, "read rows changed: known records are read again by key");
            read_all_again(shared, name).await?;
        }
        // A target that is new here has everything before it; on a first apply there is nothing yet.
        let write_changed = before.as_ref().and_then(|b| b.get("write")) != Some(&table["write"])
            || ran.is_some_and(|ran| ran.wrote_otherwise(participant));
        if participant.writable() && (write_changed || owners_changed || loads.more) {
            if before.is_some() {
                tracing::info!(integration = %shared.integration, target = %name, "write rows changed: known records are compared again");
            }
            enqueue_all(shared, name, Origin::Remap).await?;
        }
        if before.as_ref() != Some(&table) {
            store.put_note(&shared.realm, &note, &table).await?;
        }
    }
    if loads.previewed {
        enqueue_deleted(shared).await?;
    }
    // Others may have begun to be written while this process told them nothing yet; each asks for itself in its own process alone.
    for newcomer in unit.siblings().iter().filter(|each| each.writes && ran.is_some_and(|ran| !ran.targets.contains(&each.name))) {
        enqueue_all(shared, &newcomer.name, Origin::Remap).await?;
    }
    if store.note(&shared.realm, &owners_note).await?.as_ref() != Some(&ownership) {
        store.put_note(&shared.realm, &owners_note, &ownership).await?;
    }
    loads.note(shared).await?;
    revision::ask(shared).await?;
    // What others bring makes nothing good that was bad here, and is no part of the digest. A revision on trial has not made anything good yet, but
    // for its share.
    let revision = shared.trial().map_or_else(|| json!(unit.digest), |trial| json!([unit.digest, trial.phase]));
    let before = store.note(&shared.realm, &unit_note).await?;
    if changed(&before, &revision) || ran.is_some_and(|ran| ran.unit != unit.digest) {
        retry_dead_letters(shared).await?;
    }
    if before.as_ref() != Some(&revision) {
        shared.let_go().await?;
        store.put_note(&shared.realm, &unit_note, &revision).await?;
    }
    note_complete(shared).await?;
    shared.note_loaded().await?;
    shared.note_held().await?;
    resync(shared).await
}

/// What others that feed the same records may do, as it was noted when they were last seen. One that previewed told nobody of what it read, and
/// what one holds alone that only matches is made nowhere: when it may do more, whoever was not told compares for himself.
struct Loads {
    note: String,
    before: BTreeMap<String, InitialLoad>,
    now: BTreeMap<String, InitialLoad>,
    /// Somebody may do more than before.
    more: bool,
    /// And did nothing but preview.
    previewed: bool,
}

impl Loads {
    async fn of(shared: &Shared) -> Result<Self, StoreError> {
        let note = shared.note("loads");
        let noted = shared.around.store.note(&shared.realm, &note).await?;
        let before: BTreeMap<String, InitialLoad> = noted.and_then(|noted| BTreeMap::deserialize(noted).ok()).unwrap_or_default();
        let siblings = shared.program.unit.siblings().iter().map(|sibling| (sibling.name.clone(), sibling.load));
        let grown = |name: &String, load: InitialLoad| before.get(name).copied().filter(|before| *before < load);
        let grown: Vec<InitialLoad> = siblings.clone().filter_map(|(name, load)| grown(&name, load)).collect();
        let (more, previewed) = (!grown.is_empty(), grown.contains(&InitialLoad::Preview));
        // Who is away may come back and do more.
        let now = before.clone().into_iter().chain(siblings).collect();
        Ok(Self { note, before, now, more, previewed })
    }

    async fn note(self, shared: &Shared) -> Result<(), StoreError> {
        if self.before != self.now {
            shared.around.store.put_note(&shared.realm, &self.note, &json!(self.now)).await?;
        }
        Ok(())
    }
}

/// Where a participant's ids and states come from.
fn origin(participant: &Participant) -> Value {
    json!([participant.unit.connector, participant.unit.entity])
}

/// A participant that names another connector or entity than it did: the ids, states and cursor kept under its name are those of other records.
/// Nothing of the Integration runs then; records would be taken for each other.
async fn find_moved(shared: &Arc<Shared>) -> Result<(), StoreError> {
    for (participant, facts) in shared.program.participants.iter().zip(&shared.participants) {
        let unit = &participant.unit;
        let before = shared.around.store.note(&shared.realm, &program::table_note(&unit.name)).await?;
        let before = before.as_ref().and_then(|before| before.get("of"));
        if before.is_some_and(|before| *before != origin(participant)) {
            let message = format!(
                "the participant {} names another connector or entity than before, and what is known under its name is not of {} in {}; \
                 name the participant otherwise, so that it is read and matched anew",
                unit.called(),
                unit.entity,
                unit.connector
            );
            *lock(&facts.moved) = Some(RemoteError::new(ErrorClass::Configuration, "InvalidSpec", message));
        }
    }
    Ok(())
}

/// Nothing of it is read; nobody waits for that.
async fn note_all_refused(shared: &Arc<Shared>) -> Result<(), StoreError> {
    for (index, _) in shared.program.participants.iter().enumerate().filter(|(_, participant)| participant.readable()) {
        shared.note_refused(index, true).await?;
    }
    Ok(())
}

/// The tables of participants that are there no more are forgotten: who comes back has missed what happened meanwhile, and is compared again.
/// Those of another Integration that feeds the same records are told from here, since it cannot tell itself.
async fn forget_absent(shared: &Shared) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let name = shared.note(PARTICIPANTS);
    let now: BTreeSet<&str> = shared.program.unit.roles().map(|(participant, _)| participant).collect();
    let note = store.note(&shared.realm, &name).await?;
    let before: BTreeSet<String> = note.as_ref().and_then(|note| BTreeSet::deserialize(note).ok()).unwrap_or_default();
    for absent in before.iter().filter(|name| !now.contains(name.as_str())) {
        let table = program::table_note(absent);
        let known = store.note(&shared.realm, &table).await?.unwrap_or_default();
        if known.get("write").is_some() {
            store.put_note(&shared.realm, &table, &json!({"of": known.get("of")})).await?;
        }
    }
    // Those that were here once stay in the list: nothing else tells that they have records.
    let all: BTreeSet<&str> = before.iter().map(String::as_str).chain(now).collect();
    if note != Some(json!(all)) {
        store.put_note(&shared.realm, &name, &json!(all)).await?;
    }
    Ok(())
}

/// What was bad under the unit before may be good under this one: bad reads are read again by key, what was refused enters its lane again.
async fn retry_dead_letters(shared: &Shared) -> Result<(), StoreError> {
    let store = &shared.around.store;
    for participant in &shared.program.participants {
        let name = &participant.unit.name;
        let (realm, of) = (Some(shared.realm.clone()), Some(name.clone()));
        let filter = DeadLetterFilter { realm, participant: of, max: RETRIED_LETTERS, ..DeadLetterFilter::default() };
        let letters = store.dead_letters(&filter).await?;
        let read = letters.iter().filter(|letter| matches!(letter.letter.stage, Stage::Inbound | Stage::Identity));
        let ids: Vec<_> = read.filter_map(|letter| letter.letter.external_id.clone()).collect();
        if participant.readable() && !ids.is_empty() {
            store.request_reads(&shared.realm, name, &ids, Haste::Bulk, shared.now()).await?;
        }
        if participant.writable() {
            let (realm, target) = (shared.realm.clone(), name.clone());
            store.enqueue(&Enqueue { realm, target, keys: Keys::DeadLetters, origin: Origin::Replay, now: shared.now() }).await?;
        }
    }
    Ok(())
}

/// That a first full read was complete is known to the store, also while its system is away or another process reads it.
async fn note_complete(shared: &Shared) -> Result<(), StoreError> {
    for (participant, facts) in shared.program.participants.iter().zip(&shared.participants) {
        if participant.readable() && !facts.complete.load(Ordering::Acquire) {
            let checkpoint = shared.around.store.checkpoint(&shared.realm, &participant.unit.name, "main").await?;
            if checkpoint.is_some_and(|checkpoint| checkpoint.complete) {
                facts.complete.store(true, Ordering::Release);
            }
        }
    }
    let others = lock(&shared.others).clone();
    for (reader, _) in others.into_iter().filter(|(_, complete)| !complete) {
        if shared.waits_not_for(&reader).await?
            && let Some(complete) = lock(&shared.others).get_mut(&reader)
        {
            *complete = true;
        }
    }
    Ok(())
}

/// A new `resync` value reads everything again and re-checks every target.
async fn resync(shared: &Shared) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let (wanted, note) = (json!(shared.program.unit.resync), shared.note("resync"));
    let before = store.note(&shared.realm, &note).await?;
    if before.as_ref() == Some(&wanted) {
        return Ok(());
    }
    if before.is_some() && !wanted.is_null() {
        tracing::info!(integration = %shared.integration, "resync: everything is read again and every target compared");
        for (index, participant) in shared.program.participants.iter().enumerate() {
            let name = &participant.unit.name;
            if participant.readable() {
                rewind(shared, index).await?;
            }
            if participant.writable() {
                enqueue_all(shared, name, Origin::Resync).await?;
            }
        }
    }
    store.put_note(&shared.realm, &note, &wanted).await
}

/// True when something was in force before and it was different; a first apply changes nothing.
fn changed(before: &Option<Value>, now: &Value) -> bool {
    before.as_ref().is_some_and(|before| before != now)
}

async fn read_all_again(shared: &Shared, participant: &str) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let mut after: Option<ExternalId> = None;
    loop {
        let ids = store.participant_ids(&shared.realm, participant, after.as_ref(), PAGE).await?;
        if ids.is_empty() {
            return Ok(());
        }
        store.request_reads(&shared.realm, participant, &ids, Haste::Bulk, backfill::turn(shared.now())).await?;
        after = ids.last().cloned();
    }
}

async fn enqueue_all(shared: &Shared, target: &str, origin: Origin) -> Result<(), StoreError> {
    let enqueue = Enqueue { realm: shared.realm.clone(), target: target.to_owned(), keys: Keys::All, origin, now: shared.now() };
    shared.around.store.enqueue(&enqueue).await.map(|_| ())
}

/// What one's targets hold of records that are deleted enters their lanes.
async fn enqueue_deleted(shared: &Shared) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let mut after: Option<RecordId> = None;
    loop {
        let page = store.records(&shared.realm, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.record.id);
        for participant in shared.program.participants.iter().filter(|participant| participant.writable()) {
            let target = participant.unit.name.clone();
            let held = |known: &&Known| known.record.deleted_at.is_some() && ownership::holds(known, &target);
            let keys: Vec<RecordId> = page.iter().filter(held).map(|known| known.record.id).collect();
            if !keys.is_empty() {
                let (realm, keys, origin) = (shared.realm.clone(), Keys::Records(keys), Origin::Remap);
                store.enqueue(&Enqueue { realm, target, keys, origin, now: shared.now() }).await?;
            }
        }
    }
}

/// Sets a reader's cursors back to the beginning; that its first full read was complete stays true.
async fn rewind(shared: &Shared, index: usize) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let name = &shared.program.participants[index].unit.name;
    let mut lease = shared.reader_lease(index);
    for slice in shared.slices(index) {
        let Some(checkpoint) = store.checkpoint(&shared.realm, name, &slice).await? else { continue };
        let Some(fence) = lease.ensure().await? else {
            return Err(StoreError::Other("another process still reads; trying again".into()));
        };
        let checkpoint = Some(Checkpoint { cursor: Value::Null, ..checkpoint });
        store.absorb(&Absorb { checkpoint, ..Absorb::empty(&shared.realm, name, fence, shared.now()) }).await?;
    }
    lease.release().await;
    Ok(())
}

async fn report_forever(shared: Arc<Shared>, report: Arc<Mutex<IntegrationReport>>) {
    let mut looks = shared.around.looks.clone();
    let mut neighbours = shared.around.neighbours.clone();
    let names: Vec<&str> = shared.program.participants.iter().map(|participant| participant.unit.name.as_str()).collect();
    let around = |neighbours: &Neighbours| names.iter().map(|name| neighbours.around(&shared.realm, name)).collect::<Vec<_>>();
    let mut stood = around(&neighbours);
    let mut seen = Seen::default();
    loop {
        let seen_there = looks.take().seen.clone();
        if let Some(counts) = seen_there {
            let result = match counts {
                Ok(counts) => observe(&shared, &report, &counts, &mut seen).await,
                Err(error) => Err(error),
            };
            shared.store_result(&result);
            if result.is_ok() {
                shared.try_store().await;
            }
            lock(&report).store_error = lock(&shared.store_error).as_ref().map(|(error, _)| error.clone());
        }
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            looked = looks.changed() => if !looked { return },
            () = neighbours.changed() => {
                let stand = around(&neighbours);
                for (facts, (before, now)) in shared.participants.iter().zip(stood.iter().zip(&stand)) {
                    if before.lane != now.lane {
                        facts.wake_lane.notify_one();
                    }
                    if before.readers != now.readers {
                        facts.leases_moved.notify_one();
                    }
                }
                stood = stand;
            }
        }
    }
}

/// Wakes whom it concerns what other processes did, or others that feed the same records: lanes whose keys became others, and readers that are asked to read something again. What a
/// reader's last round left unread it has its own pace for. Where the store is one process's, what happens here wakes them at once.
async fn tell_news(shared: &Shared, snapshot: &Snapshot, seen: &mut BTreeMap<String, Pending>) -> Result<(), StoreError> {
    for (participant, facts) in shared.program.participants.iter().zip(&shared.participants) {
        let name = &participant.unit.name;
        let waits = snapshot.pending.get(name).copied().unwrap_or_default();
        if seen.insert(name.clone(), waits) != Some(waits) && waits.keys > 0 {
            facts.wake_lane.notify_one();
        }
        if facts.reads.load(Ordering::Acquire)
            && !facts.unread.load(Ordering::Acquire)
            && !shared.around.store.pending_reads(&shared.realm, name, 1).await?.is_empty()
        {
            facts.wake_reader.notify_one();
        }
    }
    Ok(())
}

/// The store's sequence at the last look, and what was counted then.
#[derive(Default)]
struct Seen {
    sequence: Option<u64>,
    pending: BTreeMap<String, Pending>,
    preview: Option<Previewed>,
}

/// A preview, and what it was counted from.
struct Previewed {
    preview: Preview,
    snapshot: Snapshot,
    at: Instant,
}

/// Writes the report from what the store holds.
async fn observe(shared: &Shared, report: &Mutex<IntegrationReport>, counts: &Counts, seen: &mut Seen) -> Result<(), StoreError> {
    let none = Snapshot::default();
    let snapshot = shared.own(counts.of(&shared.realm).unwrap_or(&none));
    let snapshot = snapshot.as_ref();
    refresh_live(shared, snapshot).await?;
    let before = seen.sequence.replace(counts.sequence);
    let moved = before != Some(counts.sequence);
    // A paused one reads nothing: the first look tells all there is.
    if moved && (before.is_none() || !shared.program.unit.paused) {
        note_complete(shared).await?;
        shared.note_held().await?;
    }
    revision::renumber(shared).await?;
    if moved && (shared.around.neighbours.share() || realm::is_contract(&shared.realm)) {
        tell_news(shared, snapshot, &mut seen.pending).await?;
    }
    let loaded = shared.loaded();
    if shared.program.unit.initial_load == InitialLoad::Preview && loaded {
        let stands = |last: &Previewed| last.snapshot == *snapshot || last.at.elapsed() < PREVIEW_EVERY;
        if !seen.preview.as_ref().is_some_and(stands) {
            let preview = count_preview(shared).await?;
            seen.preview = Some(Previewed { preview, snapshot: snapshot.clone(), at: Instant::now() });
        }
    } else {
        seen.preview = None;
    }

    let phase = if shared.program.unit.paused {
        Phase::Paused
    } else if shared.guarded() {
        Phase::Guarded
    } else if !loaded {
        Phase::Backfill
    } else if seen.preview.is_some() {
        Phase::Previewed
    } else {
        Phase::Live
    };
    let participants: Vec<_> = (0..shared.participants.len()).map(|index| participant_report(shared, index, snapshot)).collect();
    let lag = lag(shared, snapshot, phase);
    let broken = invariants::ledger(snapshot);
    for violation in &broken {
        tracing::error!(integration = %shared.integration, detail = %violation.what, "the ledger does not add up");
    }
    let balanced = broken.is_empty();
    shared.around.metrics.standing(&shared.integration.0, &participants, lag, snapshot, balanced);
    let trial = shared.revisions().and_then(|revisions| revisions.trial);
    shared.around.metrics.rollout(&shared.integration.0, trial.map(|trial| trial.phase));
    if let Some(last) = &*lock(&shared.reconciliation) {
        shared.around.metrics.reconciled(&shared.integration.0, last);
    }

    let mut report = lock(report);
    report.phase = phase;
    report.awaited = if phase == Phase::Backfill && shared.own_is_read() { shared.awaited() } else { Vec::new() };
    report.participants = participants;
    report.lag = lag;
    report.last_delivered = snapshot.last_delivered;
    report.last_error.clone_from(&lock(&shared.last_error));
    report.balanced = balanced;
    report.preview = seen.preview.as_ref().map(|last| last.preview);
    report.guard.clone_from(&lock(&shared.guard));
    report.reconciliation.clone_from(&lock(&shared.reconciliation));
    report.revision = shared.revisions();
    Ok(())
}

async fn refresh_live(shared: &Shared, snapshot: &Snapshot) -> Result<(), StoreError> {
    if !realm::is_contract(&shared.realm) {
        shared.live.store(snapshot.live, Ordering::Release);
        return Ok(());
    }
    let began = Instant::now();
    if lock(&shared.count_again).is_some_and(|due| began < due) {
        return Ok(());
    }
    let own: Vec<String> = shared.program.participants.iter().map(|participant| participant.unit.name.clone()).collect();
    shared.live.store(shared.around.store.held(&shared.realm, &own).await?, Ordering::Release);
    // A store that hung meanwhile says nothing of what counting takes.
    *lock(&shared.count_again) = Some(Instant::now() + began.elapsed().saturating_mul(100).min(COUNT_AGAIN));
    Ok(())
}

fn participant_report(shared: &Shared, index: usize, snapshot: &Snapshot) -> ParticipantReport {
    let participant = &shared.program.participants[index];
    let facts = &shared.participants[index];
    let name = &participant.unit.name;
    let refused = [&facts.moved, &facts.paused, &facts.refused].into_iter().find_map(|why| lock(why).clone());
    let paused_by = refused.or_else(|| shared.connection(index).map_or_else(Some, |connection| connection.blocked()));
    let state = if !participant.readable() {
        ParticipantState::WriteOnly
    } else if paused_by.is_some() {
        ParticipantState::Paused
    } else if facts.complete.load(Ordering::Acquire) {
        ParticipantState::Live
    } else {
        ParticipantState::Backfill
    };
    let last_read = lock(&facts.last_read).map(|(at, _)| at);
    ParticipantReport {
        name: participant.unit.called().to_owned(),
        state,
        dead_letters: snapshot.dead_letters.get(name).copied().unwrap_or(0),
        pending: snapshot.pending.get(name).map_or(0, |pending| pending.keys),
        conflicts: snapshot.sources.get(name).map_or(0, |source| source.conflicts),
        last_read: last_read.filter(|_| !facts.unread.load(Ordering::Acquire)),
        paused_by,
    }
}

/// The age of the oldest entry that should have been delivered, plus the age of the last successful read beyond its schedule.
fn lag(shared: &Shared, snapshot: &Snapshot, phase: Phase) -> Option<Lag> {
    if !matches!(phase, Phase::Live) {
        return None;
    }
    let now = shared.now();
    // What waits for a participant that is not here, or is not written any more, is late for nobody.
    let targets = shared.program.participants.iter().filter(|participant| participant.writable());
    let pending: Vec<_> = targets.filter_map(|target| snapshot.pending.get(&target.unit.name)).collect();
    let oldest = pending.iter().filter_map(|pending| pending.oldest).map(|since| now.since(since)).max().unwrap_or_default();
    let overdue = shared
        .program
        .participants
        .iter()
        .zip(&shared.participants)
        .filter_map(|(participant, facts)| {
            let every = participant.unit.read.as_ref()?.every;
            // A wall clock stepped ahead would make a read of a moment ago look late. A round may take a while itself; twice the schedule is late.
            let (_, last) = (*lock(&facts.last_read))?;
            Some(last.elapsed().saturating_sub(every.saturating_mul(2) + Duration::from_secs(5)))
        })
        .max()
        .unwrap_or_default();
    Some(Lag { age: oldest + overdue, pending: pending.iter().map(|pending| pending.keys).sum() })
}

/// Counts what a first apply would do, without doing it.
async fn count_preview(shared: &Shared) -> Result<Preview, StoreError> {
    let store = &shared.around.store;
    let mut preview = Preview::default();
    let filter = DeadLetterFilter { realm: Some(shared.realm.clone()), max: PREVIEW_LETTERS, ..DeadLetterFilter::default() };
    let letters = store.dead_letters(&filter).await?;
    let ambiguous =
        |letter: &&NewDeadLetter| letter.reason == "AmbiguousMatch" && shared.program.participant(&letter.participant).is_some();
    preview.ambiguous = letters.iter().map(|letter| &letter.letter).filter(ambiguous).count() as u64;
    let mut after: Option<RecordId> = None;
    loop {
        let page = store.records(&shared.realm, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(preview) };
        after = Some(last.record.id);
        for known in page.iter().filter(|known| known.record.deleted_at.is_none()) {
            let own = known.identities.iter().any(|identity| shared.program.participant(&identity.participant).is_some());
            preview.matched += u64::from(own && known.identities.len() > 1);
            for target in shared.program.participants.iter().filter(|p| p.writable()) {
                match known.identity(&target.unit.name) {
                    None if outbound::brought_by(&shared.program, known).is_some() => {}
                    None => preview.would_create += u64::from(target.table.accepts(&known.record.document).unwrap_or(false)),
                    Some(identity) => preview.would_change += u64::from(!inbound::in_step(target, &known.record.document, &identity.state)),
                }
            }
        }
    }
}
