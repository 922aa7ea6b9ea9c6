//! The store in a PostgreSQL database that several processes share.
//!
//! # Flow
//! A command is one transaction ([`command`]) of a few round trips, however many records it carries: it takes the lock of its realm, checks its
//! lease, loads the rows that it is about, decides on them in memory as the SQLite store does ([`image`]), writes what changed, raises the
//! store's sequence and commits.
//!
//! # Guarantees
//! What a command answered is committed on the server's disk (`synchronous_commit` is never off), and a command that failed is
//! committed not at all; only when the connection is lost during the commit itself is that unknown, and said so: trying again does no
//! harm by the trait's rules. Commits become visible in the order of their sequences. A lease that another process takes waits for the commit that
//! is under way under it, and every later one is refused.
//!
//! # Assumptions
//! The server is PostgreSQL (tested with Debian's, 15 on Debian 12), or one that keeps its promises (advisory locks, row locks, READ COMMITTED). Connections are the
//! server's own or those of a pooler in session mode: settings and prepared statements belong to the session. The server's clock says which
//! leases have run out; where another server takes over, theirs agree to a few seconds.
//!
//! # Caveats
//! Commands of one realm wait for each other, so a realm's throughput is bounded by the round trips to the database; realms run beside each
//! other. Asynchronous replicas that take over may lack the last commits: what was answered is then lost, as for any client.

mod absorb;
mod archive;
mod books;
mod checkpoints;
mod codec;
mod command;
mod drain;
mod error;
mod forget;
mod history;
mod image;
mod lane;
mod leases;
mod letters;
mod merge;
mod notes;
mod place;
mod query;
mod reads;
mod records;
mod reindex;
mod schema;
mod session;
mod split;
mod tls;
mod writes;

use crate::archive::{Import, Rows, Sink};
use crate::rows::absorb::Batch;
use crate::rows::codec::encode;
use crate::rows::reindex::Page;
use crate::rows::settle::Results;
use crate::{
    Absorb, Absorbed, BeginWrite, Checkpoint, Claim, Claimed, CloseDeadLetters, DeadLetter, DeadLetterFilter, Enqueue, Fence, GuardCounts,
    Guarded, HISTORY_FOR, Haste, IndexKey, Intend, Known, LaneFence, LeaseRequest, Merge, PastChange, Reindex, SetCheckpoint, Settle,
    Snapshot, Split, Standing, Store, StoreError, Sweep, WriteBegun,
};
use async_trait::async_trait;
use command::{Job, run};
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use error::Failure;
use fairlead_model::hash::ValueHash;
use fairlead_model::{ExternalId, RecordId, SmolStr, Timestamp};
use place::Place;
use session::Session;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many connections a process has at most.
pub const CONNECTIONS: usize = 16;

/// How long a command waits for a connection to come free, or to be made.
const WAIT: Duration = Duration::from_secs(15);

/// In how many partitions a lane is drained: so many processes can work on one target of one Integration. Each costs its holder a row of a command
/// every few seconds. Another number needs a migration that ends every claim, as 0004 does.
const PARTITIONS: u32 = 8;

/// A [`Store`] in a PostgreSQL database.
pub struct PostgresStore {
    pool: Pool,
    words: String,
    /// Leases are judged by the moments that come with the commands.
    on_given_time: bool,
}

impl PostgresStore {
    /// Opens the store in the database that `url` names (`postgres://ROLE:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`), and makes or brings
    /// up to date its tables. They lie in one schema: `fairlead`, or the one of `options=-c search_path=NAME`. `sslmode` and `sslrootcert`
    /// mean what they mean to PostgreSQL's own clients.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] for a URL, a role, a database or a schema that will not do; others when the database does not answer. None
    /// repeats the URL.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, true).await
    }

    /// Like [`PostgresStore::open`], but refuses a database that holds no store yet.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn open_existing(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, false).await
    }

    async fn open_with(url: &str, make: bool) -> Result<Self, StoreError> {
        let place = Place::of(url)?;
        let words = place.words();
        let Place { config, schema, tls } = place;
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let settings = schema::settings(&schema);
        let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let settings = settings.clone();
            Box::pin(async move { client.batch_execute(&settings).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .post_create(prepare)
            .build()
            .map_err(|error| StoreError::Other(format!("the database's connections: {error}")))?;
        schema::migrate(&pool, &schema, make).await.map_err(|failure| failure.error)?;
        Ok(Self { pool, words, on_given_time: false })
    }

    /// The same store, which judges leases by the moments that come with the commands, as SQLite does, for whoever makes time pass. Processes of
    /// several machines have several clocks: theirs are judged by the server's.
    #[must_use]
    pub fn on_given_time(mut self) -> Self {
        self.on_given_time = true;
        self
    }

    /// The moment by which leases are judged, if not by the server's clock.
    fn given(&self, now: Timestamp) -> Option<Timestamp> {
        self.on_given_time.then_some(now)
    }

    /// Which database and schema this is, for people; without the role's password.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.words
    }

    /// Ends the connections. Commands after this fail. Dropping the store does the same.
    pub fn close(&self) {
        self.pool.close();
    }

    async fn write<J: Job>(&self, job: &J) -> Result<J::Answer, StoreError> {
        run(&self.pool, job).await.map(|(answer, _)| answer)
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("place", &self.words).finish_non_exhaustive()
    }
}

/// Answers a query; once more on another connection, if the one at hand was lost.
macro_rules! answer {
    ($store:ident, $session:ident => $query:expr) => {{
        let once = async || -> Result<_, Failure> {
            #[allow(unused_mut, reason = "only some queries begin a transaction")]
            let mut $session = Session::new(&$store.pool).await?;
            $query.await
        };
        let answered = match once().await {
            Err(Failure { passing: true, .. }) => once().await,
            answered => answered,
        };
        match answered {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(schema::told(&$store.pool, failure).await),
        }
    }};
}

#[async_trait]
impl Store for PostgresStore {
    async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Option<Fence>>, StoreError> {
        self.write(&leases::Take { request, given: self.given(request.now) }).await
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        self.write(&leases::Release(fence)).await
    }

    async fn leases(&self, now: Timestamp) -> Result<Vec<Fence>, StoreError> {
        answer!(self, session => leases::all_held(&session, self.given(now)))
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn absorb(&self, batch: &Absorb) -> Result<Absorbed, StoreError> {
        let ((), sequence) = run(&self.pool, &Batch::new(batch)?).await?;
        Ok(Absorbed { sequence })
    }

    async fn merge(&self, merge: &Merge) -> Result<(), StoreError> {
        self.write(&merge::Folding::new(merge)?).await
    }

    async fn split(&self, split: &Split) -> Result<(), StoreError> {
        self.write(&split::Splitting::new(split)?).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, StoreError> {
        self.write(claim).await
    }

    async fn intend(&self, intend: &Intend) -> Result<(), StoreError> {
        self.write(intend).await
    }

    async fn settle(&self, settle: &Settle) -> Result<(), StoreError> {
        self.write(&Results::new(settle)?).await
    }

    async fn enqueue(&self, enqueue: &Enqueue) -> Result<u64, StoreError> {
        self.write(enqueue).await
    }

    async fn request_reads(
        &self,
        realm: &str,
        participant: &str,
        ids: &[ExternalId],
        haste: Haste,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(&reads::Request { realm, participant, ids, haste, now }).await
    }

    async fn close_dead_letters(&self, close: &CloseDeadLetters) -> Result<u64, StoreError> {
        self.write(close).await
    }

    async fn sweep(&self, sweep: &Sweep) -> Result<u64, StoreError> {
        self.write(sweep).await
    }

    async fn reindex(&self, page: &Reindex) -> Result<(), StoreError> {
        self.write(&Page::new(page)?).await
    }

    async fn set_checkpoint(&self, set: &SetCheckpoint) -> Result<(), StoreError> {
        self.write(set).await
    }

    async fn put_note(&self, realm: &str, name: &str, value: &serde_json::Value) -> Result<(), StoreError> {
        self.write(&notes::Put { realm, name, value: encode(value)? }).await
    }

    async fn replace_note(
        &self,
        realm: &str,
        name: &str,
        known: Option<&serde_json::Value>,
        value: &serde_json::Value,
    ) -> Result<bool, StoreError> {
        self.write(&notes::Replace { realm, name, known: known.map(encode).transpose()?, value: encode(value)? }).await
    }

    async fn forget(&self, realm: &str) -> Result<(), StoreError> {
        self.write(&forget::Forget(realm)).await
    }

    async fn forget_participants(&self, realm: &str, prefix: &str) -> Result<bool, StoreError> {
        self.write(&forget::ForgetParticipants { realm, prefix }).await
    }

    async fn import(&self, import: Import, rows: Rows) -> Result<(), StoreError> {
        archive::import(&self.pool, &import, self.given(import.now), rows).await
    }

    async fn begin_write(&self, begin: &BeginWrite) -> Result<WriteBegun, StoreError> {
        self.write(begin).await
    }

    async fn finish_write(&self, scope: &str, answer: &str) -> Result<(), StoreError> {
        self.write(&writes::Finish(scope, answer)).await
    }

    async fn abandon_write(&self, scope: &str) -> Result<(), StoreError> {
        self.write(&writes::Abandon(scope)).await
    }

    async fn known_by_external(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<Known>>, StoreError> {
        answer!(self, session => query::known_by_external(&session, realm, participant, ids))
    }

    async fn seen(&self, realm: &str, participant: &str, ids: &[ExternalId], fields: &[SmolStr]) -> Result<Option<ValueHash>, StoreError> {
        answer!(self, session => query::seen(&session, realm, participant, ids, fields))
    }

    async fn known_by_id(&self, realm: &str, ids: &[RecordId]) -> Result<Vec<Option<Known>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        answer!(self, session => query::known_by_id(&session, realm, ids))
    }

    async fn match_records(&self, realm: &str, keys: &[IndexKey]) -> Result<Vec<Vec<RecordId>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        answer!(self, session => query::match_records(&session, realm, keys))
    }

    async fn find(&self, realm: &str, key: IndexKey, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
        answer!(self, session => query::find(&session, realm, key, after, max))
    }

    async fn referring(&self, realm: &str, ids: &[RecordId], after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
        answer!(self, session => query::referring(&session, realm, ids, after, max))
    }

    async fn external_ids(&self, realm: &str, participant: &str, ids: &[RecordId]) -> Result<Vec<Option<ExternalId>>, StoreError> {
        answer!(self, session => query::external_ids(&session, realm, participant, ids))
    }

    async fn record_ids(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<RecordId>>, StoreError> {
        answer!(self, session => query::record_ids(&session, realm, participant, ids))
    }

    async fn sequence(&self) -> Result<u64, StoreError> {
        answer!(self, session => query::sequence(&session))
    }

    async fn checkpoint(&self, realm: &str, participant: &str, slice: &str) -> Result<Option<Checkpoint>, StoreError> {
        answer!(self, session => query::checkpoint(&session, realm, participant, slice))
    }

    async fn checkpoints(&self, realm: &str) -> Result<Vec<Standing>, StoreError> {
        answer!(self, session => checkpoints::all(&session, realm))
    }

    async fn pending_reads(&self, realm: &str, participant: &str, max: usize) -> Result<Vec<ExternalId>, StoreError> {
        answer!(self, session => query::pending_reads(&session, realm, participant, max))
    }

    async fn pending_reads_of(&self, realm: &str, participant: &str, haste: Haste, max: usize) -> Result<Vec<ExternalId>, StoreError> {
        answer!(self, session => query::pending_reads_of(&session, realm, participant, haste, max))
    }

    async fn awaits_read(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<Haste>>, StoreError> {
        answer!(self, session => query::awaits_read(&session, realm, participant, ids))
    }

    async fn note(&self, realm: &str, name: &str) -> Result<Option<serde_json::Value>, StoreError> {
        answer!(self, session => query::note(&session, realm, name))
    }

    async fn snapshots(&self, only: Option<&str>, now: Timestamp) -> Result<BTreeMap<String, Snapshot>, StoreError> {
        answer!(self, session => query::snapshots(&mut session, only, now))
    }

    async fn changes_since(&self, realm: &str, since: Timestamp, with: &Guarded) -> Result<GuardCounts, StoreError> {
        answer!(self, session => query::changes_since(&session, realm, since, with))
    }

    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, StoreError> {
        answer!(self, session => query::dead_letters(&session, filter))
    }

    async fn dead_lettered(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<bool>, StoreError> {
        answer!(self, session => query::dead_lettered(&session, realm, participant, ids))
    }

    async fn dead_lettered_records(&self, realm: &str, participant: &str, ids: &[RecordId]) -> Result<Vec<bool>, StoreError> {
        answer!(self, session => query::dead_lettered_records(&session, realm, participant, ids))
    }

    async fn records(&self, realm: &str, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
        answer!(self, session => query::records(&session, realm, after, max))
    }

    async fn participant_ids(
        &self,
        realm: &str,
        participant: &str,
        after: Option<&ExternalId>,
        max: usize,
    ) -> Result<Vec<ExternalId>, StoreError> {
        answer!(self, session => query::participant_ids(&session, realm, participant, after, max))
    }

    async fn history(&self, realm: &str, record: RecordId, now: Timestamp) -> Result<Vec<PastChange>, StoreError> {
        answer!(self, session => history::of_record(&session, realm, record, now.before(HISTORY_FOR)))
    }

    async fn held(&self, realm: &str, participants: &[String]) -> Result<u64, StoreError> {
        answer!(self, session => query::held(&session, realm, participants))
    }

    async fn waits_for(&self, realm: &str, target: &str, ids: &[RecordId]) -> Result<Vec<Option<RecordId>>, StoreError> {
        answer!(self, session => query::waits_for(&session, realm, target, ids))
    }

    async fn creating(&self, realm: &str, target: &str) -> Result<bool, StoreError> {
        answer!(self, session => query::creating(&session, realm, target))
    }

    async fn next_due(
        &self,
        realm: &str,
        target: &str,
        fence: &LaneFence,
        bulk: bool,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        answer!(self, session => query::next_due(&session, realm, target, fence, bulk, now))
    }

    async fn wanted_soon(&self, realm: &str, target: &str, fence: &LaneFence, creates: bool, now: Timestamp) -> Result<bool, StoreError> {
        answer!(self, session => query::wanted_soon(&session, realm, target, fence, creates, now))
    }

    async fn export(&self, only: Option<&str>, now: Timestamp, mut sink: Box<dyn Sink>) -> Result<(), StoreError> {
        // Not once more if the connection is lost: what was told is told.
        let mut session = Session::new(&self.pool).await.map_err(|failure| failure.error)?;
        archive::export(&mut session, only, now, sink.as_mut()).await.map_err(|failure| failure.error)
    }

    async fn realms(&self) -> Result<Vec<String>, StoreError> {
        answer!(self, session => query::realms(&session))
    }
}
