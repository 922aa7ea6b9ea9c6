//! One live connector: reading, searching and writing in one account of one system.
//!
//! A [`Client`] is built without I/O and shared by everything that uses the Connector, so that its limits, its quota, its pause and its circuit are
//! the account's. It is a handle for calls of one priority; [`Client::at`] gives another. It keeps no record; what it remembers (token, Secret, what
//! the vendor said of limits) may be lost at any time.

mod budget;
mod classify;
pub(crate) mod credentials;
mod gate;
mod keyset;
mod line;
mod query;
mod rest;
mod sign;
pub mod transport;
mod turns;
mod types;
mod write;

pub use budget::{Usage, Use};
pub use transport::Transport;
pub use turns::{Priority, Share};
pub use types::{CallCounters, NativeRecord, Outside, Page, ReadRequest, Unusable, WriteBatch, WriteItem, WriteOperation, Written};

use crate::definition::{Definition, Entity, MAIN};
use crate::egress::system_lookup;
use credentials::invalid;
use fairlead_model::report::{Circuit, Failure, Quota, Spent};
use fairlead_model::unit::ConnectorUnit;
use fairlead_model::{ExternalId, FieldPath, RemoteError, Timestamp};
use keyset::{Limits, Memory, Reader};
use line::{Allowed, Line};
use query::{Language, Which};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The most results of a search: enough to tell none, one and several apart.
const MAX_FOUND: usize = 3;

/// The most rows that are remembered as told of.
const MAX_TOLD: usize = 10_000;

/// One live connector, for calls of one priority.
pub struct Client {
    line: Line,
    shared: Arc<Shared>,
}

/// What all handles share besides the line.
struct Shared {
    memory: Memory,
    limits: Limits,
    /// Rows that are no records, by their hashes: those that were told of.
    told: Mutex<HashSet<u64>>,
    concurrency: usize,
}

impl Client {
    /// Builds a client for live calls that speaks by `definition`, which is its unit's ([`Definition::of_unit`]) and may be shared by many; no I/O. An endpoint, parameter, method or certificate that cannot be used is the error.
    pub fn connect(unit: &ConnectorUnit, definition: Arc<Definition>, outside: &Outside) -> Result<Self, RemoteError> {
        let line = Line::new(unit, definition, outside, &system_lookup())?;
        let concurrency = usize::try_from(unit.limits.concurrency.max(1)).unwrap_or(1);
        let shared = Shared { memory: Memory::default(), limits: Limits::default(), told: Mutex::default(), concurrency };
        Ok(Self { line, shared: Arc::new(shared) })
    }

    /// The same connector for calls of another priority: limits, quota, credentials and circuit are one.
    #[must_use]
    pub fn at(&self, priority: Priority) -> Self {
        Self { line: self.line.at(priority), shared: Arc::clone(&self.shared) }
    }

    /// The definition that this client speaks by.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.line.definition
    }

    /// The longest that one request may take. A caller whose lease ends sooner must not write.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.line.timeout()
    }

    fn entity(&self, name: &str) -> Result<&Entity, RemoteError> {
        self.line
            .definition
            .entity(name)
            .ok_or_else(|| invalid(format!("{} has no entity {name:?} in its definition", self.line.definition.system())))
    }

    /// The cheapest call that needs valid credentials. It is sent whatever is left of the quota, and waits behind nobody.
    pub async fn probe(&self) -> Result<(), RemoteError> {
        let request = &self.line.definition.format.probe;
        let mut call = self.line.call("the probe".into(), request, &[], false)?;
        call.body.clone_from(&request.body);
        call.probe = true;
        // A wrong version shows in the path alone, and "not found" says nothing without it.
        if let Ok(asked) = self.line.outgoing(&call, None) {
            call.what = format!("the probe of {}", asked.url.path());
        }
        self.line.json(&call).await.map(drop)
    }

    /// Reads a page of changes.
    pub async fn read_page(&self, request: &ReadRequest) -> Result<Page, RemoteError> {
        let page = self.read_slice(request).await?;
        self.tell(request, &page.unusable);
        Ok(page)
    }

    /// Says of each row that cannot become a record once that it came.
    fn tell(&self, request: &ReadRequest, unusable: &[Unusable]) {
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        for row in unusable {
            let mut hasher = DefaultHasher::new();
            (&request.entity, &request.slice, &row.raw).hash(&mut hasher);
            if told.len() >= MAX_TOLD {
                told.clear();
            }
            if told.insert(hasher.finish()) {
                let (system, entity, slice) = (self.line.definition.system(), request.entity.as_str(), request.slice.as_str());
                tracing::warn!(system, entity, slice, detail = row.error.message, "a row was read that is no record");
            }
        }
    }

    async fn read_slice(&self, request: &ReadRequest) -> Result<Page, RemoteError> {
        let entity = self.entity(&request.entity)?;
        let deadline = Instant::now() + request.deadline;
        if let Some(language) = Language::of(entity, &request.slice) {
            let (line, limits) = (&self.line, &self.shared.limits);
            let reader = Reader { line, language: &language, request, deadline, limits, memory: Some(&self.shared.memory) };
            return match &language {
                Language::Children { child, .. } => Box::pin(self.read_children(entity, &child.name, reader)).await,
                _ => Box::pin(reader.read()).await,
            };
        }
        match entity.format.read.as_ref().and_then(|read| Some((read, read.request.as_ref()?))) {
            Some((read, format)) if request.slice == MAIN => {
                Box::pin(rest::read(&self.line, entity, read, format, request.cursor.as_ref(), deadline)).await
            }
            _ => Err(invalid(format!("{} has no slice {:?} to read", entity.name(), request.slice))),
        }
    }

    /// Reads which child rows changed, and gives their parents as they are now.
    async fn read_children(&self, entity: &Entity, relation: &str, reader: Reader<'_>) -> Result<Page, RemoteError> {
        let request = reader.request;
        let wanted = request.fields.iter().any(|field| field.segments().first().is_some_and(|first| first.name() == relation));
        if !wanted {
            let cursor = request.cursor.clone().unwrap_or_else(|| Value::Object(fairlead_model::Document::new()));
            return Ok(Page { records: Vec::new(), cursor, caught_up: true, unusable: Vec::new() });
        }
        // Stamps have whole seconds and a child's row shows little of it, so an equal row may hide a second change: none is left out.
        let page = Reader { memory: None, ..reader }.read().await?;
        let mut parents: Vec<ExternalId> =
            page.records.iter().filter_map(|child| child.body.get(query::PARENT)?.as_str().map(ExternalId::from)).collect();
        parents.sort();
        parents.dedup();
        let parents = self.read_keys(entity.name(), &request.fields, &parents).await?;
        Ok(Page { records: parents.into_iter().flatten().collect(), ..page })
    }

    /// Reads records by their ids, each in its place; `None` where there is no such record.
    pub async fn read_keys(
        &self,
        entity: &str,
        fields: &[FieldPath],
        ids: &[ExternalId],
    ) -> Result<Vec<Option<NativeRecord>>, RemoteError> {
        let entity = self.entity(entity)?;
        let mut found: HashMap<String, NativeRecord> = HashMap::new();
        if let Some(language) = Language::of(entity, MAIN) {
            let usable: Vec<&str> = ids.iter().map(ExternalId::as_str).filter(|id| language.is_id(id)).collect();
            for chunk in usable.chunks(language.most_ids()) {
                let most = u32::try_from(language.most_ids()).unwrap_or(200);
                let rows = Box::pin(language.rows(&self.line, fields, &Which::Ids(chunk), most, self.line.soon())).await?;
                found.extend(rows.whole()?.into_iter().map(|record| (record.id.0.clone(), record)));
            }
        } else if let Some(get) = &entity.format.get {
            for id in ids {
                if let Some(record) = Box::pin(rest::get(&self.line, entity, get, id.as_str())).await? {
                    found.insert(id.0.clone(), record);
                }
            }
        } else {
            return Err(invalid(format!("{} cannot be read by id", entity.name())));
        }
        Ok(ids.iter().map(|id| found.get(id.as_str()).cloned()).collect())
    }

    /// Looks for records whose fields have these values; at most three are returned.
    pub async fn search(
        &self,
        entity: &str,
        fields: &[FieldPath],
        criteria: &[(FieldPath, Value)],
    ) -> Result<Vec<NativeRecord>, RemoteError> {
        let entity = self.entity(entity)?;
        if criteria.is_empty() {
            return Err(invalid("a search needs at least one field"));
        }
        let mut found: Vec<NativeRecord> = if let Some(language) = Language::of(entity, MAIN) {
            let most = u32::try_from(MAX_FOUND).unwrap_or(3);
            let rows = Box::pin(language.rows(&self.line, fields, &Which::Equal(criteria), most, self.line.soon())).await?;
            rows.whole()?
        } else if let Some(search) = &entity.format.search {
            Box::pin(rest::search(&self.line, entity, search, criteria)).await?
        } else {
            return Err(invalid(format!("{} cannot be searched", entity.name())));
        };
        found.truncate(MAX_FOUND);
        Ok(found)
    }

    /// Writes records. Each item gets its own result, in its place; batches and single calls are made as the vendor wants them.
    pub async fn write(&self, batch: &WriteBatch) -> Vec<Result<Written, RemoteError>> {
        self.write_inner(batch, None).await
    }

    /// Like [`Client::write`], but asks `allowed` while a request stands in line, and right before it goes out; once it says no, what was not sent comes back as
    /// `Transient` and nothing of it took effect. For callers whose lease may end, or who may want
    /// something more urgent, while a long batch is under way.
    pub async fn write_while(&self, batch: &WriteBatch, allowed: Arc<dyn Fn() -> bool + Send + Sync>) -> Vec<Result<Written, RemoteError>> {
        self.write_inner(batch, Some(&allowed)).await
    }

    async fn write_inner(&self, batch: &WriteBatch, allowed: Option<&Allowed>) -> Vec<Result<Written, RemoteError>> {
        match self.entity(&batch.entity) {
            Ok(entity) => Box::pin(write::write(&self.line, entity, &batch.items, self.shared.concurrency, allowed)).await,
            Err(error) => batch.items.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// The circuit breaker's state.
    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.line.gate.circuit()
    }

    /// How much of the account's quota is left, as far as is known.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.line.gate.quota()
    }

    /// The quota that is used up for calls of this priority, if one is.
    #[must_use]
    pub fn spent(&self) -> Option<Spent> {
        self.line.gate.spent(self.line.priority)
    }

    /// Until when no call of this priority is sent: the vendor asked for it, or the quota is used up.
    #[must_use]
    pub fn throttled_until(&self) -> Option<Timestamp> {
        self.line.gate.wait_until().max(self.spent().map(|spent| spent.until))
    }

    /// For how long the vendor still wants nothing sent, if it asked for that.
    #[must_use]
    pub fn asked_to_wait(&self) -> Option<Duration> {
        self.line.gate.wait_until().map(|until| until.since(self.line.clock.now()))
    }

    /// The vendor was heard to want nothing sent for so long: by a client of the same account before this one.
    pub fn wait(&self, wait: Duration) {
        self.line.gate.learn(&gate::Showed::Throttling { wait: Some(wait), exhausted: false });
    }

    /// How far each window of the quota is used.
    #[must_use]
    pub fn uses(&self) -> Vec<Use> {
        self.line.gate.uses()
    }

    /// How many calls wait for their turn, by priority.
    #[must_use]
    pub fn waiting(&self) -> [(Priority, usize); 4] {
        self.line.gate.waiting()
    }

    /// What was sent today and is noted nowhere yet; see [`Client::noted`].
    #[must_use]
    pub fn unnoted(&self) -> Usage {
        self.line.gate.unnoted()
    }

    /// Takes in that `all` is noted to have been sent, by whomever, `ours` of [`Client::unnoted`] among it. That is how the count of a day
    /// outlives a process, and is shared by several.
    pub fn noted(&self, all: Usage, ours: Usage) {
        self.line.gate.noted(all, ours);
    }

    /// This process has this part of the account's limits: others use the account as well.
    pub fn divide(&self, share: Share) {
        self.line.gate.divide(share);
    }

    /// Sends nothing for so long, since the vendor asked another process for that.
    pub fn hold(&self, wait: Duration) {
        self.line.gate.hold(wait);
    }

    /// Until when the vendor asked this very process to wait.
    #[must_use]
    pub fn told_to_wait(&self) -> Option<Timestamp> {
        self.line.gate.told_to_wait()
    }

    /// The last error of any call.
    #[must_use]
    pub fn last_error(&self) -> Option<Failure> {
        self.line.last_error()
    }

    /// Why the client is paused for its credentials, if it is.
    #[must_use]
    pub fn auth_paused(&self) -> Option<Failure> {
        self.line.credentials.paused()
    }

    /// Reads the Secret now; a changed one ends a pause.
    pub async fn refresh_secret(&self) -> Result<(), RemoteError> {
        self.line.credentials.refresh().await
    }

    /// Calls by what came of them.
    #[must_use]
    pub fn counters(&self) -> CallCounters {
        self.line.counters()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("system", &self.line.definition.system()).finish_non_exhaustive()
    }
}
