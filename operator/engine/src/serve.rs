//! Records for callers of the API: read from the store, written to a participant at once.
//!
//! A write goes to the participant through its connector (limits, circuit and all), under a lease, and is absorbed when the
//! participant has acknowledged it, as if the change had been made and read there: identity, ownership and the other lanes follow. What the
//! participant refuses is told to the caller and leaves no trace here.
//!
//! Guarantees: a write whose caller goes away runs to its end, and what was not sent when its caller stops waiting is not sent; one that died
//! between the participant's effect and `absorb` can be repeated with the same id, which makes nothing a second time, since the id is the key
//! that the participant upserts on; or its reader finds it first. Writes to one connector that run at once are bounded in number.
//! Caveat: a write that races one from the lane to the same field is read again afterwards, and what the participant then shows counts.

use crate::connector::Connection;
use crate::crash;
use crate::decide::direct::{self, Refused};
use crate::decide::outbound::canonical_of;
use crate::decide::outbound::{self, Planned, Step};
use crate::integration::Running;
use crate::program::Program;
use crate::shared::{Shared, Surroundings, lock};
use crate::split;
use fairlead_model::report::Circuit;
use fairlead_model::state::ParticipantState;
use fairlead_model::unit::{InitialLoad, ObjectKey};
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, SmolStr};
use fairlead_store::{Absorb, Claimed, Haste, IndexKey, IndexState, Known, Origin, Outcome, Record, StoreError};
use fairlead_systems::{Entity, Priority, WriteBatch, WriteOperation};
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a write waits for one that is under way to the same record.
const IN_FLIGHT: Duration = Duration::from_secs(3);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// How often a commit is decided again after a conflict.
const COMMITS: u32 = 200;
/// How many writes to one connector may run at once, those that wait for their turn there among them. More than a connector is ever granted
/// at once; beyond, waiting would only last longer than callers do.
const AT_ONCE: usize = 64;
/// When to come again while an Integration is not ready.
const SOON: Duration = Duration::from_secs(2);
/// Records looked at in one query.
const PAGE: usize = 200;

/// The records of running Integrations.
#[derive(Clone)]
pub struct Records {
    pub(crate) running: Arc<Mutex<BTreeMap<ObjectKey, Arc<Running>>>>,
    pub(crate) around: Surroundings,
    pub(crate) doors: Arc<Doors>,
}

/// Lets so many writes in to each connector.
#[derive(Default)]
pub(crate) struct Doors(Mutex<BTreeMap<ObjectKey, Arc<Semaphore>>>);

impl Doors {
    /// A place, until it is dropped; none while all are taken.
    fn enter(&self, connector: &ObjectKey) -> Option<OwnedSemaphorePermit> {
        let mut doors = lock(&self.0);
        let door = doors.entry(connector.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        Arc::clone(door).try_acquire_owned().ok()
    }
}

/// Some records in the order of their ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordPage {
    /// The records.
    pub records: Vec<Record>,
    /// There are more after the last one.
    pub more: bool,
}

/// Why there is no answer. Texts hold no values of records.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ServeError {
    /// There is no such record.
    #[error("there is no such record")]
    NotFound,
    /// There was one.
    #[error("the record is deleted")]
    Gone,
    /// The record is no longer at the version that the change was computed from.
    #[error("the record was changed meanwhile")]
    Changed,
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// Something that it needs is not there yet; comes by itself.
    #[error("{detail}")]
    NotYet {
        /// In short.
        detail: String,
        /// Which fields, where that is known.
        fields: Vec<Refused>,
        /// When to come again.
        retry_after: Duration,
    },
    /// The participant cannot take it as it is.
    #[error("{detail}")]
    Refused {
        /// In short.
        detail: String,
        /// Which fields, where that is known.
        fields: Vec<Refused>,
    },
    /// The business system wants nothing more for now; nothing was sent.
    #[error("the business system takes no more requests for now")]
    Throttled(Option<Duration>),
    /// It cannot be done now; nothing was sent.
    #[error("{detail}")]
    Unavailable {
        /// In short.
        detail: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The caller stopped waiting before anything was sent.
    #[error("no answer in time; nothing was sent")]
    Late,
    /// The write was sent, and what came of it is not known.
    #[error("the outcome is not known")]
    Unknown,
    /// A defect of ours.
    #[error("{0}")]
    Defect(String),
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced { .. } => unavailable("another process writes here"),
            StoreError::Full(_) | StoreError::ReadOnly(_) | StoreError::Unusable(_) | StoreError::Refused(_) | StoreError::Other(_) => {
                tracing::warn!(%error, "the store refuses a caller of the API");
                unavailable("the store cannot be used")
            }
            StoreError::Conflict(_) => Self::Changed,
        }
    }
}

fn unavailable(detail: impl Into<String>) -> ServeError {
    ServeError::Unavailable { detail: detail.into(), retry_after: Some(SOON) }
}

fn not_yet(detail: impl Into<String>, fields: Vec<Refused>) -> ServeError {
    ServeError::NotYet { detail: detail.into(), fields, retry_after: SOON }
}

fn refusal(detail: impl Into<String>, fields: Vec<Refused>) -> ServeError {
    ServeError::Refused { detail: detail.into(), fields }
}

/// What a caller wants of a record.
#[derive(Debug, Clone)]
enum Wish {
    /// A new one.
    Create(Document),
    /// The record at this version, changed to this document.
    Update(u64, Document),
}

impl Records {
    /// One live record of an Integration.
    ///
    /// # Errors
    /// [`ServeError::NotFound`], [`ServeError::Gone`], or the store's.
    pub async fn get(&self, realm: &ObjectKey, id: RecordId) -> Result<Record, ServeError> {
        let known = self.around.store.known_by_id(&realm.0, &[id]).await?.pop().flatten().ok_or(ServeError::NotFound)?;
        match known.record {
            Record { deleted_at: Some(_), .. } => Err(ServeError::Gone),
            record if record.is_unread() => Err(unavailable("it was split off another record, and has not been read yet")),
            record => Ok(record),
        }
    }

    /// A page of live records that have these values, after `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        realm: &ObjectKey,
        filters: &[(FieldPath, Value)],
        after: Option<RecordId>,
        limit: usize,
    ) -> Result<RecordPage, ServeError> {
        let mut page = RecordPage::default();
        let mut after = after;
        let key = self.index_key(realm, filters).await?;
        loop {
            let found = match key {
                Some(key) => self.around.store.find(&realm.0, key, after, PAGE).await?,
                None => self.around.store.records(&realm.0, after, PAGE).await?,
            };
            let end = found.len() < PAGE;
            for known in found {
                after = Some(known.record.id);
                let matches =
                    |(field, value): &(FieldPath, Value)| fairlead_model::document::present(&known.record.document, field) == Some(value);
                if known.record.deleted_at.is_none() && !known.record.is_unread() && filters.iter().all(matches) {
                    if page.records.len() == limit {
                        page.more = true;
                        return Ok(page);
                    }
                    page.records.push(known.record);
                }
            }
            if end {
                return Ok(page);
            }
        }
    }

    /// The key of the first filter by which every record can be found. While the index is made, all records are looked at.
    async fn index_key(&self, realm: &ObjectKey, filters: &[(FieldPath, Value)]) -> Result<Option<IndexKey>, ServeError> {
        if filters.is_empty() {
            return Ok(None);
        }
        let note = self.around.store.note(&realm.0, IndexState::NOTE).await?;
        let fields = note.and_then(|note| IndexState::deserialize(note).ok()).map(|state| state.fields).unwrap_or_default();
        Ok(filters.iter().find(|(field, _)| fields.contains(field)).map(|(field, value)| IndexKey::of_field(field, value)))
    }

    /// Creates a record in a participant, under an id that the caller derives from what makes its request one request, what is to be created
    /// among it: the same id again makes nothing a second time. Nothing is sent after `deadline`.
    ///
    /// # Errors
    /// Why not; see [`ServeError`].
    pub async fn create(
        &self,
        integration: &ObjectKey,
        participant: &str,
        id: RecordId,
        document: Document,
        deadline: Instant,
    ) -> Result<Record, ServeError> {
        self.write(integration, participant, id, Wish::Create(document), deadline).await
    }

    /// Changes a record in a participant. `base` is the version that `document`, the whole of it, was computed from. Nothing is sent after
    /// `deadline`.
    ///
    /// # Errors
    /// Why not; see [`ServeError`].
    pub async fn update(
        &self,
        integration: &ObjectKey,
        participant: &str,
        id: RecordId,
        base: u64,
        document: Document,
        deadline: Instant,
    ) -> Result<Record, ServeError> {
        self.write(integration, participant, id, Wish::Update(base, document), deadline).await
    }

    async fn write(
        &self,
        integration: &ObjectKey,
        participant: &str,
        id: RecordId,
        wish: Wish,
        deadline: Instant,
    ) -> Result<Record, ServeError> {
        let wish = Arc::new(wish);
        loop {
            let running = lock(&self.running).get(integration).cloned();
            let Some(running) = running else { return Err(unavailable("the Integration does not run")) };
            let shared = running.shared();
            if !shared.around.works {
                return Err(unavailable("this process answers from what is stored, and others write"));
            }
            if shared.takes_writes() {
                let index = shared.program.participants.iter().position(|each| each.unit.called() == participant && each.writable());
                let Some(index) = index else { return Err(unavailable("the Integration does not write to this participant")) };
                let connector = ObjectKey::from(&shared.program.participants[index].unit.connector);
                let Some(place) = self.doors.enter(&connector) else { return Err(ServeError::Throttled(Some(SOON))) };
                let (write, wish) = (Write { shared: Arc::clone(shared), index, id, deadline }, Arc::clone(&wish));
                // It runs to its end whether or not somebody waits, and a new unit is not taken over before.
                let task = running.spawn(async move {
                    let _place = place;
                    write.unless_renewed(&wish).await
                });
                if let Some(done) = task.await.unwrap_or_else(|error| Some(Err(ServeError::Defect(error.to_string())))) {
                    return done;
                }
            }
            // Its successor is on its way and takes the write.
            if Instant::now() >= deadline {
                return Err(unavailable("the Integration is being renewed"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Shared {
    /// Whether a write past the lane is worth deciding on: not while a new unit is being taken over.
    fn takes_writes(&self) -> bool {
        // A paused one prepares nothing, and refuses.
        !self.cancel.is_cancelled() && (self.program.unit.paused || self.prepared.load(Ordering::Acquire))
    }
}

/// One write.
struct Write {
    shared: Arc<Shared>,
    index: usize,
    id: RecordId,
    deadline: Instant,
}

impl Write {
    /// The program that maps the record.
    fn program(&self) -> &Program {
        self.shared.program_of(self.id)
    }

    /// Nothing if the unit was given up before the write began.
    async fn unless_renewed(&self, wish: &Wish) -> Option<Result<Record, ServeError>> {
        if self.shared.cancel.is_cancelled() { None } else { Some(self.run(wish).await) }
    }

    /// Whether anybody still waits.
    fn in_time(&self) -> Result<(), ServeError> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(ServeError::Late) }
    }

    async fn run(&self, wish: &Wish) -> Result<Record, ServeError> {
        let shared = &self.shared;
        let source = &self.program().participants[self.index];
        let connection = self.connection()?;
        let known = self.settled_known().await?;
        let changes = match wish {
            Wish::Create(document) => match &known {
                Some(known) if known.record.deleted_at.is_some() => return Err(ServeError::Gone),
                // Made before: the answer was lost, or its reader was faster.
                Some(known) if known.identity(&source.unit.name).is_some() => return Ok(known.record.clone()),
                Some(known) => direct::changes(self.program(), &known.record.document, document),
                None => {
                    self.no_twin(document).await?;
                    direct::changes(self.program(), &Document::new(), document)
                }
            },
            Wish::Update(base, document) => {
                let known = known.as_ref().ok_or(ServeError::NotFound)?;
                if known.record.deleted_at.is_some() {
                    return Err(ServeError::Gone);
                }
                if known.record.version != *base {
                    return Err(ServeError::Changed);
                }
                if known.identity(&source.unit.name).is_none() {
                    return Err(not_yet(format!("the record is not in {} yet", source.unit.called()), Vec::new()));
                }
                direct::changes(self.program(), &known.record.document, document)
            }
        };
        let foreign = direct::refused(self.program(), source, &changes, known.as_ref(), shared.now());
        if !foreign.is_empty() {
            return Err(refusal(format!("{} cannot take all of these fields", source.unit.called()), foreign));
        }
        if changes.is_empty()
            && let Some(known) = known
        {
            return Ok(known.record);
        }

        let record = direct::wanted(source, self.id, known.as_ref(), &changes, shared.now());
        let identities = known.as_ref().map(|known| known.identities.clone()).unwrap_or_default();
        let claimed = Claimed {
            known: Known { record, identities, lanes: Vec::new(), merged_into: None },
            origin: Origin::Api,
            haste: Haste::Soon,
            since: shared.now(),
            attempts: 0,
            waited: false,
            intent: None,
        };
        let raced = known.as_ref().is_some_and(|known| known.lanes.iter().any(|lane| lane.target == source.unit.name));
        match self.plan(&claimed).await? {
            Sending::Write(planned) => {
                let (external_id, learnt) = self.send(&connection, &claimed, &planned).await?;
                crash::point("api.written");
                let held = known.is_some_and(|known| known.identity(&source.unit.name).is_some());
                let committed = self.commit(&changes, &external_id, &learnt, held, 1).await;
                crash::point("api.absorbed");
                if raced {
                    self.read_again(&external_id).await;
                }
                // It took effect there: whatever stands in the way here, the caller may repeat, and the reader brings it in.
                committed.map_err(|error| match error {
                    ServeError::Conflict(_) => error,
                    error => {
                        tracing::warn!(integration = %shared.integration, record = %self.id, %error, "a write took effect and is not absorbed yet");
                        ServeError::Unknown
                    }
                })
            }
            Sending::Nothing(external_id, state) => self.commit(&changes, &external_id, &Learnt::from(state), true, 0).await,
        }
    }

    /// The connector, if a write may go out now.
    fn connection(&self) -> Result<Arc<Connection>, ServeError> {
        let shared = &self.shared;
        let unit = &shared.program.unit;
        let why = if unit.paused {
            "the Integration is paused"
        } else if unit.initial_load == InitialLoad::Preview {
            "the Integration only previews its first load"
        } else if shared.guarded() {
            "the Integration is held by its guard"
        } else if !shared.delivers_to(self.index) {
            "the Integration is still reading for the first time"
        } else {
            ""
        };
        if !why.is_empty() {
            return Err(unavailable(why));
        }
        let away = |error: RemoteError| {
            tracing::debug!(integration = %shared.integration, reason = %error.reason, "no write can go out");
            unavailable("the business system cannot be used at the moment")
        };
        let connection = shared.connection(self.index).map_err(away)?;
        if let Some(error) = connection.blocked() {
            return Err(away(error));
        }
        let system = connection.system(Priority::Interactive).map_err(|error| away(error.clone()))?;
        if system.circuit() == Circuit::Open {
            return Err(unavailable("the business system fails at the moment"));
        }
        if let Some(until) = system.throttled_until().filter(|until| *until > shared.now()) {
            return Err(ServeError::Throttled(Some(until.since(shared.now()))));
        }
        Ok(connection)
    }

    /// Asks for the record to be read again. What became of the write is known by now, and stands whether or not this can be noted.
    async fn read_again(&self, external_id: &ExternalId) {
        if let Err(error) = self.shared.read_again(self.index, external_id).await {
            tracing::warn!(integration = %self.shared.integration, record = %self.id, %error, "a record that was written cannot be asked for again");
        }
    }

    async fn known(&self) -> Result<Option<Known>, StoreError> {
        Ok(self.shared.around.store.known_by_id(&self.shared.realm, &[self.id]).await?.pop().flatten())
    }

    /// What is known of the record once no write from the lane to this participant is under way.
    async fn settled_known(&self) -> Result<Option<Known>, ServeError> {
        let name = &self.shared.program.participants[self.index].unit.name;
        let until = self.shared.now().plus(IN_FLIGHT);
        loop {
            let known = self.known().await?;
            let in_flight = known.iter().flat_map(|known| &known.lanes).any(|lane| lane.target == *name && lane.in_flight);
            if !in_flight {
                return Ok(known);
            }
            if self.shared.now() >= until {
                return Err(unavailable("another write to this record is under way"));
            }
            self.in_time()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// That no live record is the same one by the match rules.
    async fn no_twin(&self, document: &Document) -> Result<(), ServeError> {
        let (shared, program) = (&self.shared, self.program());
        let keys = program.match_keys(document);
        let found: Vec<RecordId> = shared.around.store.match_records(&shared.realm, &keys).await?.into_iter().flatten().collect();
        let twins = shared.around.store.known_by_id(&shared.realm, &found).await?;
        let is_twin = |known: &Known| known.record.deleted_at.is_none() && known.record.id != self.id;
        if twins.iter().flatten().any(|known| is_twin(known) && program.same_match(&known.record.document, document)) {
            return Err(ServeError::Conflict("a record with the same values in the fields that tell records apart exists".into()));
        }
        Ok(())
    }

    /// What is to be sent.
    async fn plan(&self, claimed: &Claimed) -> Result<Sending, ServeError> {
        let shared = &self.shared;
        let source = &self.program().participants[self.index];
        let name = &source.unit.name;
        let references: Vec<RecordId> = outbound::references(source, &claimed.known.record.document).map(|(record, _)| record).collect();
        let ids = shared.around.store.external_ids(&shared.realm, name, &references).await?;
        let resolved: HashMap<RecordId, ExternalId> =
            references.into_iter().zip(ids).filter_map(|(id, external)| Some((id, external?))).collect();
        let map = |document: &Document| source.table.to_native(document, &|_, record| resolved.get(&record).cloned());
        match outbound::decide(self.program(), source, claimed, &map) {
            Step::Write(planned) => {
                let made = planned.item.operation == WriteOperation::Create && planned.item.key.is_some();
                if made
                    && !split::still_named(shared.around.store.as_ref(), &shared.realm, name, &BTreeSet::from([self.id])).await?.is_empty()
                {
                    return Err(unavailable("a record that was split off this one has not got an id of its own there yet"));
                }
                let updates_by_id =
                    || self.connection().is_ok_and(|connection| connection.entity(&source.unit.entity).is_some_and(Entity::updates_by_id));
                if planned.renames() && !updates_by_id() {
                    return Err(unavailable(
                        "it was split off another record, whose id it still carries there; its dead letter tells what to do",
                    ));
                }
                Ok(Sending::Write(planned))
            }
            Step::Settle(Outcome::Unchanged) => match claimed.known.identity(name) {
                Some(held) => Ok(Sending::Nothing(held.external_id.clone(), held.state.clone())),
                None => Err(ServeError::Defect("a record that is not there was found unchanged".into())),
            },
            Step::Settle(Outcome::DeadLetter(letter)) => {
                let field = letter.field.as_deref().and_then(|field| field.parse().ok());
                let fields = field.map(|field| Refused { field, message: "cannot be turned into what the system wants".into() });
                Err(refusal(format!("the record cannot be written to {}", source.unit.called()), fields.into_iter().collect()))
            }
            Step::Settle(Outcome::WaitFor { .. }) => {
                let missing = |field: &FieldPath| {
                    fairlead_model::document::present(&claimed.known.record.document, field)
                        .and_then(Value::as_str)
                        .and_then(RecordId::parse)
                        .is_some_and(|id| !resolved.contains_key(&id))
                };
                let rows = source.unit.rows.iter().filter(|row| row.reference.is_some()).filter_map(|row| row.canonical.clone());
                let fields = rows
                    .filter(missing)
                    .map(|field| Refused { field, message: format!("refers to a record that {} does not hold yet", source.unit.called()) })
                    .collect();
                Err(not_yet("it refers to another record".to_owned(), fields))
            }
            Step::Settle(_) => Err(refusal(format!("the Integration keeps this record out of {}", source.unit.called()), Vec::new())),
        }
    }

    /// Sends it.
    async fn send(&self, connection: &Connection, claimed: &Claimed, planned: &Planned) -> Result<(ExternalId, Learnt), ServeError> {
        let shared = &self.shared;
        let source = &self.program().participants[self.index];
        let system =
            connection.system(Priority::Interactive).map_err(|_| unavailable("the business system cannot be used at the moment"))?;
        let Some((mut lease, _)) = shared.direct_lease(self.index).await? else { return Err(unavailable("another process writes here")) };
        self.in_time()?;
        let (validity, clock, deadline) = (lease.validity(), Arc::clone(&shared.around.clock), self.deadline);
        let may_send = Arc::new(move || validity.lasts(clock.now()) && Instant::now() < deadline);
        let batch = WriteBatch { entity: source.unit.entity.clone(), items: vec![planned.item.clone()] };
        let answer = lease.during(system.write(&batch, may_send)).await.pop();
        let Some(answer) = answer else { return Err(ServeError::Defect("a write came back without an answer".into())) };
        match answer {
            Ok(written) => {
                let answered = written.answer.as_ref().map(|answer| canonical_of(&source.table, answer)).unwrap_or_default();
                match outbound::delivered(source, claimed, planned, &written, &answered, shared.now()) {
                    Outcome::Delivered { external_id, state, .. } => Ok((external_id, Learnt::of(planned, state))),
                    _ => Err(ServeError::Defect("an acknowledged write has another outcome".into())),
                }
            }
            Err(error) => {
                if matches!(error.class, ErrorClass::UnknownOutcome | ErrorClass::Conflict | ErrorClass::NotFound)
                    && let Some(external_id) = &planned.item.id
                {
                    self.read_again(external_id).await;
                }
                if matches!(error.class, ErrorClass::Auth | ErrorClass::Permission | ErrorClass::Configuration) {
                    shared.failed(self.index, None, Some(self.id), &error);
                }
                Err(told(source.unit.called(), &error, planned))
            }
        }
    }

    /// Commits what the participant acknowledged, over whatever happened to the record meanwhile. `held` tells whether the participant held
    /// the record before.
    async fn commit(
        &self,
        changes: &[(FieldPath, Value)],
        external_id: &ExternalId,
        learnt: &Learnt,
        held: bool,
        direct: u64,
    ) -> Result<Record, ServeError> {
        let shared = &self.shared;
        let store = &shared.around.store;
        let source = &self.program().participants[self.index];
        let name = &source.unit.name;
        for _ in 0..COMMITS {
            // Taking the lease raises the sequence above everything that a read which began before the write can have noted.
            let Some((mut lease, fence)) = shared.direct_lease(self.index).await? else {
                return Err(unavailable("another process writes here"));
            };
            let sequence = store.sequence().await?;
            let known = self.known().await?;
            let mut batch = Absorb { direct, ..Absorb::empty(&shared.realm, name, fence, shared.now()) };
            let there = known.as_ref().and_then(|known| known.identity(name));
            let record = match &known {
                // Its reader found the new record first, and knows better what the participant made of it.
                Some(known) if !held && there.is_some() => known.record.clone(),
                _ => {
                    let record = direct::wanted(source, self.id, known.as_ref(), changes, shared.now());
                    let mut state = learnt.over(there.map(|identity| &identity.state));
                    state.settled = sequence;
                    let absorbed = direct::absorbed(self.program(), source, known.as_ref(), record.clone(), external_id.clone(), state);
                    batch.guard.book = shared.book();
                    batch.guard.changed.extend(held.then_some(self.id));
                    batch.records.push(absorbed);
                    batch.history = known.as_ref().map(|known| direct::history(self.program(), &known.record, &record)).unwrap_or_default();
                    record
                }
            };
            match store.absorb(&batch).await {
                Ok(_) => {
                    shared.store_works();
                    shared.wake_lanes(batch.records.iter().flat_map(|record| &record.enqueue).map(|(target, _)| target.as_str()));
                    if shared.cancel.is_cancelled() {
                        lease.release().await;
                    }
                    return Ok(record);
                }
                Err(StoreError::Fenced { .. } | StoreError::Conflict(_)) => {
                    let named = store.record_ids(&shared.realm, name, std::slice::from_ref(external_id)).await?.pop().flatten();
                    if named.is_some_and(|named| named != self.id) {
                        return Err(ServeError::Conflict(format!("{} holds it as another record", source.unit.called())));
                    }
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    shared.store_result::<()>(&Err(error.clone()));
                    return Err(error.into());
                }
            }
        }
        Err(unavailable("the record kept changing"))
    }
}

/// A failed write to the participant `name` in words for the caller. The system's own text may hold values, so it is not repeated.
fn told(name: &str, error: &RemoteError, planned: &Planned) -> ServeError {
    match error.class {
        ErrorClass::UnknownOutcome => ServeError::Unknown,
        ErrorClass::Throttled => ServeError::Throttled(error.retry_after),
        ErrorClass::Transient => {
            ServeError::Unavailable { detail: format!("{name} does not answer"), retry_after: error.retry_after.or(Some(SOON)) }
        }
        ErrorClass::Auth | ErrorClass::Permission | ErrorClass::Configuration => unavailable(format!("{name} does not let Fairlead write")),
        // A duplicate, a lock, a version there: nothing that another attempt with our newest version would mend.
        ErrorClass::Conflict => ServeError::Conflict(format!("{name} finds a contradiction to what it holds ({})", error.reason)),
        ErrorClass::NotFound => ServeError::Conflict(format!("the record is no longer in {name}")),
        ErrorClass::Data => {
            let native = error.field.as_deref().and_then(|field| field.parse::<FieldPath>().ok());
            let row = native.and_then(|native| planned.rows.iter().find(|row| row.native == native));
            let unit = row.and_then(|row| row.unit.as_ref().map(|(unit, _)| unit.clone()));
            let fields = unit.map(|field| Refused { field, message: format!("is refused by {name}") }).into_iter().collect();
            refusal(format!("{name} refuses the record ({})", error.reason), fields)
        }
    }
}

/// What a write comes to.
enum Sending {
    /// This goes out.
    Write(Box<Planned>),
    /// The participant holds it already.
    Nothing(ExternalId, ParticipantState),
}

/// What an acknowledged write taught of the participant's state, to be laid over what else was learnt meanwhile.
struct Learnt {
    state: ParticipantState,
    fields: Vec<SmolStr>,
    rows: Vec<u64>,
}

impl From<ParticipantState> for Learnt {
    fn from(state: ParticipantState) -> Self {
        Self { fields: Vec::new(), rows: Vec::new(), state }
    }
}

impl Learnt {
    fn of(planned: &Planned, state: ParticipantState) -> Self {
        Self {
            fields: planned.rows.iter().filter_map(|row| row.unit.as_ref()).map(|(unit, _)| unit.text().clone()).collect(),
            rows: planned.rows.iter().map(|row| fairlead_model::hash::ValueHash::of_text(row.native.text()).0).collect(),
            state,
        }
    }

    fn over(&self, present: Option<&ParticipantState>) -> ParticipantState {
        let Some(present) = present else { return self.state.clone() };
        let mut state = present.clone();
        for field in &self.fields {
            if let Some(learnt) = self.state.fields.get(field) {
                state.fields.insert(field.clone(), *learnt);
            }
        }
        for row in &self.rows {
            if let Some(learnt) = self.state.rows.get(row) {
                state.rows.insert(*row, *learnt);
            }
        }
        state.written = self.state.written.max(state.written);
        if self.state.vendor_version.is_some() {
            state.vendor_version.clone_from(&self.state.vendor_version);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::Connectors;
    use crate::decide::sample;
    use fairlead_model::{Clock, ObjectRef, SystemClock, SystemRandom};
    use fairlead_store::{SqliteStore, Store};
    use fairlead_systems::{EndpointPolicy, Outside, SecretData, SecretError, SecretSource};

    struct NoSecrets;

    #[async_trait::async_trait]
    impl SecretSource for NoSecrets {
        async fn get(&self, _: &ObjectRef) -> Result<SecretData, SecretError> {
            Err(SecretError::NotFound)
        }
    }

    /// Records without any Integration, and without systems.
    fn records() -> Records {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_in_memory().unwrap());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let neighbours = crate::neighbours::Neighbours::watch(&store, &clock, "test".to_owned());
        let outside = Outside::new(Arc::new(NoSecrets), EndpointPolicy::default());
        let connectors = Connectors::new(outside, Arc::clone(&store), neighbours.clone());
        let around = Surroundings {
            store: Arc::clone(&store),
            looks: crate::news::channel(crate::counts::Look { at: tokio::time::Instant::now(), seen: None }).1,
            neighbours,
            connectors: Arc::new(connectors),
            clock: Arc::clone(&clock),
            random: Arc::new(SystemRandom),
            metrics: Arc::default(),
            holder: "test".to_owned(),
            witness: None,
            works: true,
            renewals: tokio::sync::mpsc::unbounded_channel().0,
        };
        Records { running: Arc::default(), around, doors: Arc::default() }
    }

    fn customers() -> ObjectKey {
        ObjectKey("default/customers".into())
    }

    impl Records {
        fn start(&self) -> Arc<Running> {
            let running = Arc::new(Running::start(Program::compile(Arc::new(sample::unit())).unwrap(), self.around.clone(), None));
            lock(&self.running).insert(customers(), Arc::clone(&running));
            running
        }

        async fn create_within(&self, patience: Duration) -> ServeError {
            let document = sample::document(serde_json::json!({"name": "A"}));
            self.create(&customers(), "crm", sample::ID, document, Instant::now() + patience).await.unwrap_err()
        }
    }

    #[tokio::test]
    async fn a_write_during_a_change_of_its_unit_is_taken_by_the_new_one() {
        let records = records();
        records.start().stop().await;
        assert_eq!(records.create_within(Duration::ZERO).await, unavailable("the Integration is being renewed"));
        let waiting = {
            let records = records.clone();
            tokio::spawn(async move { records.create_within(Duration::from_secs(60)).await })
        };
        tokio::task::yield_now().await;
        let next = records.start();
        // Which says what there is to say here: nothing was read yet.
        assert_eq!(waiting.await.unwrap(), unavailable("the Integration is still reading for the first time"));
        next.stop().await;
    }

    fn planned() -> Box<Planned> {
        let mut world = sample::World::new();
        assert!(!world.read("crm", serde_json::json!({"Name": "A"})).is_stale());
        match world.step("erp") {
            Step::Write(planned) => planned,
            step => panic!("nothing to write: {step:?}"),
        }
    }

    #[test]
    fn a_vendors_contradiction_is_no_change_of_the_version_that_a_caller_holds() {
        let told = |class| told("erp", &RemoteError::new(class, "RecordConflict", "DUPLICATE_VALUE"), &planned());
        assert!(matches!(told(ErrorClass::Conflict), ServeError::Conflict(why) if why.contains("erp") && !why.contains("DUPLICATE")));
        assert_eq!(told(ErrorClass::UnknownOutcome), ServeError::Unknown);
        assert!(matches!(told(ErrorClass::Transient), ServeError::Unavailable { .. }));
    }

    #[test]
    fn each_connector_lets_so_many_writes_in_at_once_and_no_more() {
        let (doors, one, another) = (Doors::default(), ObjectKey("default/crm".into()), ObjectKey("default/erp".into()));
        let mut inside: Vec<_> = (0..AT_ONCE).map(|_| doors.enter(&one).unwrap()).collect();
        assert!(doors.enter(&one).is_none());
        assert!(doors.enter(&another).is_some());
        inside.pop();
        assert!(doors.enter(&one).is_some());
    }
}
