//! Which revision of an Integration maps its records, and how another one takes over.
//!
//! The truth of what is in force is a note in the store: the mapping itself, as text. So a new revision can be compared with the one in force, tried
//! on a share of the records beside it and stopped in favour of it, whoever works and whatever was restarted meanwhile; with or without a cluster,
//! whose history of revisions is for people. The mapping is that of the unit, so an edit of a shared table is rolled out like one of the spec.
//!
//! | note | says | commits |
//! |---|---|---|
//! | `revision` | the mapping in force | that a revision has taken over |
//! | `rollout` | the revision on trial, where it stands and what was found; the share that another mapping may have written | every step before that |
//!
//! A process runs by one arrangement at a time, which is fixed: the program of the mapping in force, and perhaps the one on trial with its share.
//! When a note says otherwise, the Integration is taken over anew by the arrangement that it says ([`Renewal`]), as if another unit had come. Only
//! then the process asks for what is to be read and compared again: what it was asked for before, it would have handled by the old one.
//!
//! Who advances a trial holds its lease. That is an optimisation: each step follows from the notes and the store alone, so a holder that was
//! paused beyond its lease decides what another one would.

use crate::decide::rollout::{self, Candidate, Findings, Rate, Step, Trial, is_in_share};
use crate::integration::Ran;
use crate::lease::Lease;
use crate::look_up::read_apart;
use crate::program::Program;
use crate::shared::{LOADED, Shared, lock};
use fairlead_model::hash::{Digest, ValueHash};
use fairlead_model::report::{RecordFailure, Revisions, TrialPhase, TrialReport};
use fairlead_model::unit::{InitialLoad, IntegrationUnit, LookupTable, ParticipantUnit, RevisionUnit, RolloutUnit, RowUnit, WriteUnit};
use fairlead_model::{ErrorClass, ExternalId, FieldPath, RecordId, RemoteError};
use fairlead_store::{DeadLetterFilter, Enqueue, Haste, Keys, LaneEntry, Origin, StoreError};
use fairlead_systems::Priority;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// The note of the mapping in force.
const ACTIVE: &str = "revision";
/// The note of the revision on trial.
const ROLLOUT: &str = "rollout";
/// How often a trial is looked after.
const TICK: Duration = Duration::from_secs(1);
/// While nothing happens, the time that it ran is noted this often.
const NOTE: Duration = Duration::from_secs(10);
/// The wait after a look that could not be finished.
const LATER: Duration = Duration::from_secs(5);
/// A look that takes long is not taken all the time: at most one part in so many.
const REST: u32 = 20;
/// Records looked at in one query.
const PAGE: usize = 1000;
/// So many records of a system whose reading changes are read for comparison, and so many of them in one call.
const SAMPLE: usize = 500;
const KEYS: usize = 200;
/// So many open letters and requested readings of a participant are looked at.
const MOST: usize = 10_000;

/// What maps records, as text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mapping {
    participants: BTreeMap<String, Rows>,
    lookups: BTreeMap<String, Arc<LookupTable>>,
}

/// The same of one participant.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rows {
    rows: Vec<RowUnit>,
    when: Option<String>,
}

impl Mapping {
    fn of(unit: &IntegrationUnit) -> Self {
        let rows = |participant: &Arc<ParticipantUnit>| {
            let when = participant.write.as_ref().and_then(|write| write.when.clone());
            (participant.name.clone(), Rows { rows: participant.rows.clone(), when })
        };
        Self { participants: unit.participants.iter().map(rows).collect(), lookups: unit.lookups.clone() }
    }

    /// Where a row stands makes no difference, and what a table holds is told by the rows that name it.
    fn digest(&self) -> Digest {
        let bare = |row: &RowUnit| RowUnit { origin: None, ..row.clone() };
        let rows = |of: &Rows| (of.rows.iter().map(bare).collect::<Vec<_>>(), of.when.clone());
        Digest::of_serialized(&self.participants.iter().map(|(name, of)| (name, rows(of))).collect::<Vec<_>>())
    }

    /// The unit, mapped like this.
    fn onto(&self, unit: &IntegrationUnit) -> IntegrationUnit {
        let mapped = |participant: &Arc<ParticipantUnit>| match self.participants.get(&participant.name) {
            None => Arc::clone(participant),
            Some(Rows { rows, when }) => {
                let write = participant.write.as_ref().map(|write| WriteUnit { when: when.clone(), ..write.clone() });
                Arc::new(ParticipantUnit { rows: rows.clone(), write, ..(**participant).clone() })
            }
        };
        IntegrationUnit { participants: unit.participants.iter().map(mapped).collect(), lookups: self.lookups.clone(), ..unit.clone() }
    }
}

/// The digest over what cannot be tried on a share of the records: who takes part with what, and whose value wins. What only says when and how much
/// is done is none of it, and holds at once in any case.
fn shape(unit: &IntegrationUnit) -> Digest {
    let participant = |participant: &Arc<ParticipantUnit>| {
        let write = participant.write.as_ref().map(|write| WriteUnit { when: None, ..write.clone() });
        json!([participant.name, participant.role, participant.connector, participant.entity, participant.read.is_some(), write])
    };
    let participants: Vec<_> = unit.participants.iter().map(participant).collect();
    let ownership: Vec<_> = unit.ownership.iter().map(|rule| (&rule.fields, &rule.role)).collect();
    let contract = (&unit.entity, &unit.contract.object, &unit.contract.schema);
    Digest::of(&json!([contract, participants, unit.initial_load, unit.matching, ownership, unit.tie]))
}

/// The note of the mapping in force.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Active {
    revision: RevisionUnit,
    shape: Digest,
    mapping: Mapping,
}

impl Active {
    fn of(unit: &IntegrationUnit, revision: RevisionUnit) -> Self {
        Self { revision, shape: shape(unit), mapping: Mapping::of(unit) }
    }

    fn candidate(&self) -> Candidate {
        Candidate { mapping: self.mapping.digest(), shape: self.shape.clone() }
    }
}

/// The note of the revision on trial.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    trial: Option<Trial>,
    /// The share of the records, in percent, that another mapping than the one in force may have read or written last.
    touched: u32,
    /// The newest revision.
    newest: RevisionUnit,
    /// The mapping on trial, its phase and its share in percent, by which records were asked for last.
    #[serde(default)]
    asked: Option<(Digest, TrialPhase, u32)>,
}

async fn recall<T: for<'de> Deserialize<'de>>(shared: &Shared, name: &str) -> Result<Option<T>, StoreError> {
    let note = shared.around.store.note(&shared.realm, &shared.note(name)).await?;
    Ok(note.and_then(|note| T::deserialize(note).ok()))
}

async fn remember<T: Serialize + Sync>(shared: &Shared, name: &str, what: &T) -> Result<(), StoreError> {
    shared.around.store.put_note(&shared.realm, &shared.note(name), &json!(what)).await
}

/// By what a process runs an Integration.
pub(crate) struct Arrangement {
    /// The mapping in force.
    pub(crate) program: Arc<Program>,
    /// What is on trial beside it.
    pub(crate) trial: Option<OnTrial>,
    /// The revision in force.
    active: Mutex<RevisionUnit>,
}

/// A revision on trial, as this process runs it.
pub(crate) struct OnTrial {
    /// Where it stands; another phase is another arrangement.
    pub(crate) phase: TrialPhase,
    /// The share of the records that it maps, in percent.
    percent: u32,
    rollout: RolloutUnit,
    /// What is asked for when records are read that either mapping may read, per participant.
    native_paths: Vec<Vec<FieldPath>>,
    /// As it was last noted, by whoever looks after it.
    noted: Mutex<Trial>,
}

/// An Integration is to be run by another arrangement than before.
pub(crate) struct Renewal {
    /// What runs now.
    pub(crate) of: Weak<Shared>,
    /// By what it is to run.
    pub(crate) arrangement: Arrangement,
}

/// By what a process ran an Integration before.
#[derive(Default)]
pub(crate) struct Before {
    /// Its program, where another process may have noted and asked for what this one runs by now; what happens in one process alone, the notes tell.
    pub(crate) ran: Option<Ran>,
    /// The share that the revision on trial mapped.
    pub(crate) percent: u32,
}

impl Shared {
    /// What is on trial.
    pub(crate) fn trial(&self) -> Option<&OnTrial> {
        self.arrangement.get()?.trial.as_ref()
    }

    /// The share of the records that a revision on trial maps, in percent.
    pub(crate) fn percent(&self) -> u32 {
        self.trial().map_or(0, |trial| trial.percent)
    }

    /// A share of the records is mapped by another revision than the others.
    pub(crate) fn has_canary(&self) -> bool {
        self.percent() > 0
    }

    /// The program by which a record is mapped.
    pub(crate) fn program_of(&self, record: RecordId) -> &Program {
        if self.has_canary() && is_in_share(record, self.percent()) { &self.wanted } else { &self.program }
    }

    /// The native fields to ask for when records of a participant are read.
    pub(crate) fn native_paths(&self, participant: usize) -> &[FieldPath] {
        match self.trial().filter(|_| self.has_canary()) {
            Some(trial) => &trial.native_paths[participant],
            None => &self.program.participants[participant].native_paths,
        }
    }

    /// Which of these records of a participant are mapped by the revision on trial. One that is not known yet is mapped by the one in force.
    pub(crate) async fn canaries(&self, participant: usize, ids: &[ExternalId]) -> Result<HashSet<ExternalId>, StoreError> {
        if !self.has_canary() || ids.is_empty() {
            return Ok(HashSet::new());
        }
        let name = &self.program.participants[participant].unit.name;
        let records = self.around.store.record_ids(&self.realm, name, ids).await?;
        let canary = |(id, record): (&ExternalId, Option<RecordId>)| {
            record.filter(|record| is_in_share(*record, self.percent())).map(|_| id.clone())
        };
        Ok(ids.iter().zip(records).filter_map(canary).collect())
    }

    /// What is told of its revisions.
    pub(crate) fn revisions(&self) -> Option<Revisions> {
        let arrangement = self.arrangement.get()?;
        let newest = lock(&self.newest).number;
        let trial = arrangement.trial.as_ref().map(|trial| {
            let noted = lock(&trial.noted).clone();
            let found = noted.found.unwrap_or_default();
            TrialReport {
                revision: newest,
                phase: noted.phase,
                since: noted.since,
                tried: found.tried.records,
                different: found.different,
                failing: found.tried.failing,
                stopped: noted.stopped,
            }
        });
        Some(Revisions { active: lock(&arrangement.active).number, trial })
    }
}

/// Finds out by what the Integration is to run. Writes nothing.
pub(crate) async fn arrange(shared: &Shared) -> Result<Arrangement, StoreError> {
    let (wanted, now) = (&shared.wanted, shared.now());
    let active: Option<Active> = recall(shared, ACTIVE).await?;
    let noted: Noted = recall(shared, ROLLOUT).await?.unwrap_or_default();
    let newest = counted(&wanted.unit.revision, active.as_ref().map(|active| &active.revision), &noted.newest);
    lock(&shared.newest).clone_from(&newest);
    let at_once = || Arrangement { program: Arc::clone(wanted), trial: None, active: Mutex::new(newest.clone()) };
    // Before it was loaded there is nothing to protect.
    let protects = wanted.unit.initial_load != InitialLoad::Preview && recall::<serde_json::Value>(shared, LOADED).await?.is_some();
    let Some(active) = active.filter(|_| protects) else { return Ok(at_once()) };
    let candidate = Active::of(&wanted.unit, newest.clone()).candidate();
    let rollout = wanted.unit.rollout.as_ref();
    let trial = rollout::on_trial(rollout, Some(&active.candidate()), noted.trial.as_ref(), &candidate, now);
    let (Some(trial), Some(rollout)) = (trial, rollout) else { return Ok(at_once()) };
    let program = match Program::with_contract(Arc::new(active.mapping.onto(&wanted.unit)), Arc::clone(&wanted.contract)) {
        Ok(program) => Arc::new(program),
        Err(why) => {
            tracing::warn!(integration = %shared.integration, why, "the revision in force cannot go on beside what is declared now; the new one takes over at once");
            return Ok(at_once());
        }
    };
    let both = program.participants.iter().zip(&wanted.participants).map(|(active, tried)| {
        let more = tried.native_paths.iter().filter(|path| !active.native_paths.contains(path));
        active.native_paths.iter().chain(more).cloned().collect()
    });
    let percent = rollout.canary.filter(|_| trial.phase == TrialPhase::Canary).map_or(0, |canary| canary.percent);
    let on_trial =
        OnTrial { phase: trial.phase, percent, rollout: rollout.clone(), native_paths: both.collect(), noted: Mutex::new(trial) };
    Ok(Arrangement { program, trial: Some(on_trial), active: Mutex::new(active.revision) })
}

/// The revision with its number. Where no history gives it one, revisions are counted here.
fn counted(told: &RevisionUnit, active: Option<&RevisionUnit>, newest: &RevisionUnit) -> RevisionUnit {
    let last = Some(newest).filter(|newest| newest.number.is_some()).or(active);
    let same = || last.filter(|last| last.spec == told.spec).and_then(|last| last.number);
    let next = || last.and_then(|last| last.number).unwrap_or(0) + 1;
    RevisionUnit { number: Some(told.number.or_else(same).unwrap_or_else(next)), spec: told.spec.clone() }
}

/// Notes by what the Integration runs here, before anything is asked for by that. The share that another mapping may have touched is noted as long
/// as that was not put back.
pub(crate) async fn note(shared: &Shared) -> Result<(), StoreError> {
    let newest = lock(&shared.newest).clone();
    if shared.trial().is_none() {
        let active = Active::of(&shared.wanted.unit, newest.clone());
        if recall(shared, ACTIVE).await?.as_ref() != Some(&active) {
            remember(shared, ACTIVE, &active).await?;
        }
    }
    let before: Option<Noted> = recall(shared, ROLLOUT).await?;
    let noted = before.clone().unwrap_or_default();
    let mine = shared.trial().map(|trial| lock(&trial.noted).clone());
    // Another process may have moved it on since this one looked.
    let trial = match (noted.trial, mine) {
        (Some(noted), Some(mine)) if noted.is_same(&mine) => Some(noted),
        (_, mine) => mine,
    };
    let noted = Noted { trial, touched: noted.touched.max(shared.percent()), newest, asked: noted.asked };
    if before.as_ref() != Some(&noted) {
        remember(shared, ROLLOUT, &noted).await?;
    }
    Ok(())
}

/// Asks for the records of the share to be read and compared again, where this arrangement maps them otherwise than they were mapped. Repeated, it
/// comes to nothing: what is in step stays as it is, and what has failed goes on failing.
pub(crate) async fn ask(shared: &Shared) -> Result<(), StoreError> {
    let noted: Noted = recall(shared, ROLLOUT).await?.unwrap_or_default();
    let percent = noted.touched.max(shared.before.percent);
    let asked = shared.trial().map(|trial| (lock(&trial.noted).mapping.clone(), trial.phase, trial.percent));
    if percent > 0 {
        tracing::info!(integration = %shared.integration, percent, "records of the share that a revision is tried on are read and compared again");
        let origin = if asked.is_some() && noted.asked == asked { Origin::Resync } else { Origin::Remap };
        ask_share(shared, percent, &origin).await?;
    }
    // Where another process has moved the trial on meanwhile, that one's share is yet to be asked for.
    let newest: Noted = recall(shared, ROLLOUT).await?.unwrap_or_default();
    let arranged = asked.as_ref().map(|(mapping, phase, _)| (mapping, *phase));
    let stands = newest.trial.as_ref().map(|trial| (&trial.mapping, trial.phase)) == arranged && newest.touched == noted.touched;
    let done = Noted { touched: shared.percent(), asked, ..newest.clone() };
    if stands && done != newest {
        remember(shared, ROLLOUT, &done).await?;
    }
    Ok(())
}

async fn ask_share(shared: &Shared, percent: u32, origin: &Origin) -> Result<(), StoreError> {
    let store = &shared.around.store;
    let mut after: Option<RecordId> = None;
    loop {
        let page = store.records(&shared.realm, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.record.id);
        let share: Vec<_> =
            page.iter().filter(|known| known.record.deleted_at.is_none() && is_in_share(known.record.id, percent)).collect();
        if share.is_empty() {
            continue;
        }
        // By which mapping they were read and written last is not known: it may be one that another revision has tried.
        for participant in &shared.program.participants {
            let name = &participant.unit.name;
            if participant.writable() {
                let keys = Keys::Records(share.iter().map(|known| known.record.id).collect());
                let (realm, target) = (shared.realm.clone(), name.clone());
                store.enqueue(&Enqueue { realm, target, keys, origin: origin.clone(), now: shared.now() }).await?;
            }
            if participant.readable() {
                let held = share.iter().filter_map(|known| known.identity(name)).filter(|identity| !identity.state.deleted);
                let ids: Vec<ExternalId> = held.map(|identity| identity.external_id.clone()).collect();
                store.request_reads(&shared.realm, name, &ids, Haste::Bulk, shared.now()).await?;
            }
        }
    }
}

/// A newer revision that maps the same has another number, and the mapping in force has it from now on.
pub(crate) async fn renumber(shared: &Shared) -> Result<(), StoreError> {
    let newest = lock(&shared.newest).clone();
    let Some(arrangement) = shared.arrangement.get().filter(|arrangement| arrangement.trial.is_none()) else { return Ok(()) };
    if *lock(&arrangement.active) == newest || shared.wanted.unit.paused {
        return Ok(());
    }
    remember(shared, ACTIVE, &Active::of(&shared.wanted.unit, newest.clone())).await?;
    *lock(&arrangement.active) = newest;
    Ok(())
}

/// Looks after a revision on trial until it is to be run otherwise, or the Integration stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(trial) = shared.trial().filter(|trial| trial.phase != TrialPhase::Stopped) else { return };
    let now = Instant::now();
    let mut keeper = Keeper { shared: &shared, trial, lease: shared.rollout_lease(), look: now, noted: now };
    loop {
        match keeper.turn().await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => shared.store_result::<()>(&Err(error)),
        }
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
    }
    keeper.lease.release().await;
}

struct Keeper<'a> {
    shared: &'a Arc<Shared>,
    trial: &'a OnTrial,
    lease: Lease,
    /// Not looked at before.
    look: Instant,
    /// When it was noted last.
    noted: Instant,
}

impl Keeper<'_> {
    /// Looks at the trial, and moves it on. Whether it is to be run otherwise from now on.
    async fn turn(&mut self) -> Result<bool, StoreError> {
        let shared = self.shared;
        let noted: Noted = recall(shared, ROLLOUT).await?.unwrap_or_default();
        let mine = lock(&self.trial.noted).clone();
        let same = |noted: &&Trial| noted.is_same(&mine) && noted.phase == mine.phase;
        let Some(mut trial) = noted.trial.as_ref().filter(same).cloned() else {
            // Another process has moved it on.
            return self.renew().await;
        };
        lock(&self.trial.noted).clone_from(&trial);
        if shared.guarded() || !shared.was_loaded() || self.lease.ensure().await?.is_none() {
            return Ok(false);
        }
        let before = trial.found.clone();
        trial.count(shared.now());
        let due = trial.is_due(&self.trial.rollout);
        let looked = trial.phase == TrialPhase::Shadow && trial.found.as_ref().is_some_and(|found| found.last || !due);
        if !looked && Instant::now() >= self.look {
            let began = Instant::now();
            let found = match trial.phase {
                TrialPhase::Shadow => self.compare().await?,
                TrialPhase::Canary | TrialPhase::Stopped => self.count().await?,
            };
            let rest = (began.elapsed() * REST).max(if found.is_some() { TICK } else { LATER });
            self.look = Instant::now() + rest;
            if let Some(found) = found {
                trial.found = Some(Findings { last: due, ..found });
            }
        }
        // What took long may have outlasted the lease.
        if !self.lease.validity().lasts(shared.now()) {
            return Ok(false);
        }
        // Another process may have moved it on, or taken over another revision.
        let noted: Noted = recall(shared, ROLLOUT).await?.unwrap_or_default();
        if !noted.trial.as_ref().is_some_and(|noted| same(&noted)) {
            return self.renew().await;
        }
        let (step, now) = (trial.next(&self.trial.rollout), shared.now());
        match &step {
            Step::Stay => {
                if trial.found != before || self.noted.elapsed() >= NOTE {
                    remember(shared, ROLLOUT, &Noted { trial: Some(trial.clone()), ..noted }).await?;
                    self.noted = Instant::now();
                }
                *lock(&self.trial.noted) = trial;
                return Ok(false);
            }
            Step::Canary => {
                tracing::info!(integration = %shared.integration, "the new revision is tried on its share of the records");
                let touched = noted.touched.max(self.trial.rollout.canary.map_or(0, |canary| canary.percent));
                remember(shared, ROLLOUT, &Noted { trial: Some(trial.at(TrialPhase::Canary, now)), touched, ..noted }).await?;
            }
            Step::Stop(why) => {
                tracing::warn!(integration = %shared.integration, why, "the new revision does worse than the one in force, and is stopped");
                let stopped = Trial { found: trial.found.clone(), stopped: Some(why.clone()), ..trial.at(TrialPhase::Stopped, now) };
                remember(shared, ROLLOUT, &Noted { trial: Some(stopped), ..noted }).await?;
            }
            Step::TakeOver => {
                tracing::info!(integration = %shared.integration, "the new revision takes over");
                let newest = lock(&shared.newest).clone();
                remember(shared, ACTIVE, &Active::of(&shared.wanted.unit, newest)).await?;
            }
        }
        self.renew().await
    }

    /// Has the Integration run by what the notes say now.
    async fn renew(&self) -> Result<bool, StoreError> {
        let arrangement = arrange(self.shared).await?;
        self.shared.renew(arrangement);
        Ok(true)
    }

    /// Maps by both revisions whatever would be mapped otherwise: every record for the targets, and a sample of the records of each system that is
    /// read. Nothing, if that cannot be told now.
    async fn compare(&mut self) -> Result<Option<Findings>, StoreError> {
        let shared = Arc::clone(self.shared);
        let pairs: Vec<_> = shared.program.participants.iter().zip(&shared.wanted.participants).enumerate().collect();
        let mut found = Findings::default();
        let mut after: Option<RecordId> = None;
        loop {
            if shared.cancel.is_cancelled() || self.lease.ensure().await?.is_none() {
                return Ok(None);
            }
            let page = shared.around.store.records(&shared.realm, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.record.id);
            for known in page.iter().filter(|known| known.record.deleted_at.is_none()) {
                for (_, (active, tried)) in &pairs {
                    let lost = known.identity(&active.unit.name).is_some_and(|identity| identity.state.deleted);
                    if active.writable() && active.write_digest != tried.write_digest && !lost {
                        found.add(active.unit.called(), rollout::compare_written(active, tried, &known.record.document));
                    }
                }
            }
        }
        for (index, (active, tried)) in pairs {
            if active.readable() && active.read_digest != tried.read_digest && !self.compare_read(index, &mut found).await? {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// The same for records as a system shows them; `false` if that cannot be told now.
    async fn compare_read(&mut self, index: usize, found: &mut Findings) -> Result<bool, StoreError> {
        let shared = Arc::clone(self.shared);
        let (active, tried) = (&shared.program.participants[index], &shared.wanted.participants[index]);
        let (Ok(connection), entity) = (shared.connection(index), &active.unit.entity) else { return Ok(false) };
        let Ok(system) = connection.system(Priority::Backfill) else { return Ok(false) };
        if connection.blocked().is_some() {
            return Ok(false);
        }
        if !connection.entity(entity).is_some_and(fairlead_systems::Entity::can_read_keys) {
            // What can only be listed shows in the canary what becomes of it.
            return Ok(true);
        }
        let sample = self.sample(&active.unit.name).await?;
        for ids in sample.chunks(KEYS) {
            let read = |ids: Vec<ExternalId>| {
                let (system, paths) = (&system, &self.trial.native_paths[index]);
                async move {
                    let records = system.read_keys(entity, paths, &ids).await;
                    (ids, records)
                }
            };
            let mut asked = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return Ok(false),
                asked = self.lease.during(read_apart(ids.to_vec(), read)) => asked,
            };
            if asked.read.is_empty() {
                // Perhaps a field that only the new revision names cannot be read.
                let error = asked.failed.drain().map(|(_, error)| error).next().or(asked.trouble);
                let Some(error) = error else { return Ok(false) };
                if !may_be_the_field(&error) {
                    return Ok(false);
                }
                let one = system.read_keys(entity, &active.native_paths, &ids[..1]);
                if self.lease.during(one).await.is_ok() {
                    found.refused = Some(format!("{} cannot be read by it: {}", active.unit.called(), error.message));
                    return Ok(true);
                }
                // Records that neither can read tell nothing.
                continue;
            }
            if asked.trouble.is_some() {
                return Ok(false);
            }
            for record in asked.read.into_values().flatten().filter(|record| !record.deleted) {
                found.add(active.unit.called(), rollout::compare_read(active, tried, &shared.program.contract, &record.body));
            }
        }
        Ok(true)
    }

    /// Why a system refuses to be read with the fields that only the revision on trial names, if it does.
    fn refused(&self) -> Option<String> {
        let pairs = self.shared.program.participants.iter().zip(&self.shared.wanted.participants);
        let told = pairs.zip(&self.shared.participants).zip(&self.trial.native_paths).find_map(|(((active, _), facts), paths)| {
            let error = lock(&facts.paused).clone().filter(may_be_the_field)?;
            (paths.len() > active.native_paths.len()).then(|| (active.unit.called().to_owned(), error))
        });
        told.map(|(called, error)| format!("{called} cannot be read by it: {}", error.message))
    }

    /// Some records of a participant: the same ones each time, as long as there are no others.
    async fn sample(&self, participant: &str) -> Result<Vec<ExternalId>, StoreError> {
        let (store, realm) = (&self.shared.around.store, &self.shared.realm);
        let mut sample: BTreeMap<u64, ExternalId> = BTreeMap::new();
        let mut after: Option<ExternalId> = None;
        loop {
            let ids = store.participant_ids(realm, participant, after.as_ref(), PAGE).await?;
            if ids.is_empty() || self.shared.cancel.is_cancelled() {
                return Ok(sample.into_values().collect());
            }
            after = ids.last().cloned();
            sample.extend(ids.into_iter().map(|id| (ValueHash::of_text(id.as_str()).0, id)));
            while sample.len() > SAMPLE {
                sample.pop_last();
            }
        }
    }

    /// Counts the records of the share and the others, which of either are dead letters or fail again and again, and what of the share still waits.
    async fn count(&mut self) -> Result<Option<Findings>, StoreError> {
        let (shared, percent) = (Arc::clone(self.shared), self.trial.percent);
        let store = &shared.around.store;
        let names: Vec<&str> = shared.program.participants.iter().map(|participant| participant.unit.name.as_str()).collect();
        let (mut tried, mut active) = (Rate::default(), Rate::default());
        let mut waiting: HashSet<RecordId> = HashSet::new();
        let last_error = lock(&shared.last_error).clone();
        let (mut erring, mut erring_example) = (Vec::new(), None);
        let mut after: Option<RecordId> = None;
        loop {
            if shared.cancel.is_cancelled() || self.lease.ensure().await?.is_none() {
                return Ok(None);
            }
            let page = store.records(&shared.realm, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.record.id);
            for known in page.iter().filter(|known| known.record.deleted_at.is_none()) {
                let is_tried = is_in_share(known.record.id, percent);
                let rate = if is_tried { &mut tried } else { &mut active };
                rate.records += 1;
                if is_tried && known.lanes.iter().any(|lane| names.contains(&lane.target.as_str())) {
                    waiting.insert(known.record.id);
                }
                let Some(place) = rollout::erring(&known.lanes, &names) else { continue };
                erring.push(known.record.id);
                let is_last = last_error.as_ref().is_some_and(|last| last.record == Some(known.record.id));
                if is_tried && (erring_example.is_none() || is_last) {
                    erring_example = Some(told_of(known.record.id, place, last_error.as_ref()));
                }
            }
        }
        let (mut failing, mut example) = (HashSet::new(), None);
        for name in &names {
            let (realm, participant) = (Some(shared.realm.clone()), Some((*name).to_owned()));
            let filter = DeadLetterFilter { realm, participant, max: MOST, ..DeadLetterFilter::default() };
            let letters = store.dead_letters(&filter).await?;
            let read: Vec<ExternalId> =
                letters.iter().filter(|each| each.letter.record.is_none()).filter_map(|each| each.letter.external_id.clone()).collect();
            let records = store.record_ids(&shared.realm, name, &read).await?;
            let known: BTreeMap<_, _> = read.into_iter().zip(records).collect();
            for letter in letters.into_iter().map(|each| each.letter) {
                let found = letter.record.or_else(|| known.get(letter.external_id.as_ref()?).copied().flatten());
                let Some(record) = found else {
                    // Nobody's record yet: read by the revision in force.
                    active.failing += 1;
                    active.records += 1;
                    continue;
                };
                if failing.insert(record) {
                    let is_tried = is_in_share(record, percent);
                    let rate = if is_tried { &mut tried } else { &mut active };
                    rate.failing += 1;
                    if is_tried && example.is_none() {
                        let called = fairlead_model::realm::called(name);
                        example = Some(format!("{called}: {}: {}", letter.reason, letter.message));
                    }
                }
            }
            let read = store.pending_reads(&shared.realm, name, MOST).await?;
            let records = store.record_ids(&shared.realm, name, &read).await?;
            waiting.extend(records.into_iter().flatten().filter(|record| is_in_share(*record, percent)));
        }
        // Each record once: one with a letter is counted by now.
        let mut again = 0;
        for record in erring {
            if failing.insert(record) {
                let is_tried = is_in_share(record, percent);
                let rate = if is_tried { &mut tried } else { &mut active };
                rate.failing += 1;
                again += u64::from(is_tried);
            }
        }
        let (example, waiting) = (example.or(erring_example), waiting.len() as u64);
        Ok(Some(Findings { tried, active, erring: again, waiting, example, refused: self.refused(), ..Findings::default() }))
    }
}

/// A record that fails again and again, in words; with what was wrong, if that is the last thing that this process saw go wrong.
fn told_of(record: RecordId, place: &LaneEntry, last_error: Option<&RecordFailure>) -> String {
    let called = fairlead_model::realm::called(&place.target);
    let last = last_error.filter(|last| last.record == Some(record) && last.participant == called);
    let why = last.map(|last| format!(": {}: {}", last.error.reason, last.error.message)).unwrap_or_default();
    format!("{called}: writing record {record} has failed {} times{why}", place.attempts)
}

/// Whether this is how a system refuses a field that it does not have, or does not show.
fn may_be_the_field(error: &RemoteError) -> bool {
    matches!(error.class, ErrorClass::Configuration | ErrorClass::Permission | ErrorClass::Data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::sample;

    #[test]
    fn revisions_are_counted_where_no_history_gives_them_a_number() {
        let revision = |number, spec: &str| RevisionUnit { number, spec: Digest::of(&json!(spec)) };
        let (none, told) = (RevisionUnit::default(), |spec| revision(None, spec));
        assert_eq!(counted(&told("a"), None, &none), revision(Some(1), "a"));
        assert_eq!(counted(&told("a"), None, &revision(Some(1), "a")), revision(Some(1), "a"));
        assert_eq!(counted(&told("b"), Some(&revision(Some(1), "a")), &revision(Some(1), "a")), revision(Some(2), "b"));
        let back = counted(&told("a"), Some(&revision(Some(1), "a")), &revision(Some(2), "b"));
        assert_eq!(back, revision(Some(3), "a"), "going back is a revision too");
        assert_eq!(counted(&revision(Some(9), "c"), None, &revision(Some(2), "b")), revision(Some(9), "c"));
    }

    #[test]
    fn a_mapping_is_what_it_maps_and_not_where_its_rows_stand() {
        let unit = sample::unit();
        let (mapping, shape_before) = (Mapping::of(&unit), shape(&unit));
        let edit = |edit: &dyn Fn(&mut ParticipantUnit)| {
            let mut unit = unit.clone();
            edit(Arc::make_mut(&mut unit.participants[1]));
            unit
        };
        let moved = edit(&|erp| erp.rows[0].origin = Some(fairlead_model::unit::RowOrigin { table: "shared".into(), row: 3 }));
        assert_eq!(Mapping::of(&moved).digest(), mapping.digest());
        let edited = edit(&|erp| {
            erp.rows.pop();
            erp.write.as_mut().unwrap().when = Some("true".into());
            erp.read = None;
        });
        assert_ne!(Mapping::of(&edited).digest(), mapping.digest());
        assert_ne!(shape(&edited), shape_before, "who is not read any more takes part otherwise");
        let unread = edit(&|erp| erp.read = None);
        assert_eq!(mapping.onto(&edited), unread, "mapped as before, and everything else as declared");
        let slower = edit(&|erp| erp.read.as_mut().unwrap().every = Duration::from_secs(3600));
        assert_eq!((Mapping::of(&slower).digest(), shape(&slower)), (mapping.digest(), shape_before), "how often it is read holds at once");
    }
}
