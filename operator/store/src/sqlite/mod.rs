//! The store on SQLite: one file, one writer with group commit, a few connections that read.
//!
//! WAL and `synchronous=FULL`: what a command answered survives a power cut. Several processes may share a file; nothing is remembered
//! outside a transaction, so each sees what the others committed, and leases keep them apart. [`SqliteStore::open_inline`] runs everything
//! on the caller's own thread, for tests under paused time.

mod absorb;
mod archive;
mod books;
mod checkpoints;
mod drain;
mod error;
mod forget;
mod history;
mod lane;
mod leases;
mod letters;
mod merge;
mod names;
mod notes;
mod query;
mod reads;
mod records;
mod reindex;
mod schema;
mod split;
mod writer;
mod writes;

use crate::archive::{Import, Rows, Sink};
use crate::crash::Command;
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
use error::name_disk;
use fairlead_model::hash::ValueHash;
use fairlead_model::{ExternalId, RecordId, SmolStr, Timestamp};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use writer::{Writer, job, run_group};

/// How many queries may run at once. Each has a connection with a page cache of its own.
const READERS: usize = 4;

/// A [`Store`] in a SQLite file.
pub struct SqliteStore {
    path: Option<PathBuf>,
    mode: Mode,
    partitions: u32,
}

enum Mode {
    /// One connection, used on the caller's thread.
    Inline(Mutex<Connection>),
    Threaded {
        writer: Mutex<Option<Writer>>,
        readers: Arc<Readers>,
    },
}

/// Connections that read, opened when they are first needed.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl SqliteStore {
    /// Opens the store in the file `path`, which is made if it does not exist, as is its folder.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open_writer(Some(path)).map_err(|error| name_disk(error, Some(path)))?;
        let writer = Mutex::new(Some(Writer::start(connection, path.to_owned())?));
        let permits = Arc::new(Semaphore::new(READERS));
        let readers = Arc::new(Readers { path: path.to_owned(), idle: Mutex::default(), permits });
        Ok(Self { path: Some(path.to_owned()), mode: Mode::Threaded { writer, readers }, partitions: 1 })
    }

    /// Like [`SqliteStore::open`], but without threads: every command and query runs on the caller's thread and blocks it.
    pub fn open_inline(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open_writer(Some(path)).map_err(|error| name_disk(error, Some(path)))?;
        Ok(Self { path: Some(path.to_owned()), mode: Mode::Inline(Mutex::new(connection)), partitions: 1 })
    }

    /// A store that ends with the value; without threads.
    pub fn open_in_memory() -> Result<Self, StoreError> {
        Ok(Self { path: None, mode: Mode::Inline(Mutex::new(schema::open_writer(None)?)), partitions: 1 })
    }

    /// The same store, whose lanes several processes drain in `partitions`. All that open one file name the same number.
    #[must_use]
    pub fn partitioned(mut self, partitions: u32) -> Self {
        self.partitions = partitions.clamp(1, LaneFence::MOST);
        self
    }

    /// The file, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Finishes what is queued and ends the thread. Commands after this fail. Dropping the store does the same.
    pub async fn close(&self) {
        if let Mode::Threaded { writer, readers } = &self.mode {
            let ending = lock(writer).take();
            if let Some(writer) = ending {
                let _ = tokio::task::spawn_blocking(move || writer.stop()).await;
            }
            lock(&readers.idle).clear();
        }
    }

    async fn write<T, W>(&self, command: Command, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, answer) = job(command, work);
        match &self.mode {
            Mode::Inline(connection) => run_group(&lock(connection), self.path.as_deref(), vec![job]),
            Mode::Threaded { writer, .. } => {
                let queue = lock(writer).as_ref().map(Writer::queue).ok_or_else(closed)?;
                queue.send(job).await.map_err(|_| closed())?;
            }
        }
        answer.await.map_err(|_| closed())?
    }

    async fn read<T, Q>(&self, query: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        // Even a query may need room, for the file that readers and the writer share.
        self.run_query(query).await.map_err(|error| name_disk(error, self.path()))
    }

    async fn run_query<T, Q>(&self, query: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.mode {
            Mode::Inline(connection) => in_one_moment(&lock(connection), query),
            Mode::Threaded { readers, .. } => {
                let permit = Arc::clone(&readers.permits).acquire_owned().await.map_err(|_| closed())?;
                let readers = Arc::clone(readers);
                let work = move || {
                    let idle = lock(&readers.idle).pop();
                    let connection = match idle {
                        Some(connection) => connection,
                        None => schema::open_reader(&readers.path)?,
                    };
                    let result = in_one_moment(&connection, query);
                    lock(&readers.idle).push(connection);
                    drop(permit);
                    result
                };
                let result = tokio::task::spawn_blocking(work).await;
                result.map_err(|error| StoreError::Other(format!("a query did not end: {error}")))?
            }
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Mode::Threaded { writer, .. } = &mut self.mode
            && let Some(writer) = writer.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            writer.stop();
        }
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A panic while the lock was held left no half-done state behind: SQLite's transactions see to that.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> StoreError {
    StoreError::Other("the store is closed".into())
}

/// Runs a query in one read transaction.
fn in_one_moment<T>(connection: &Connection, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let transaction = connection.unchecked_transaction()?;
    let result = query(&transaction);
    transaction.finish()?;
    result
}

#[async_trait]
impl Store for SqliteStore {
    async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Option<Fence>>, StoreError> {
        let request = request.clone();
        self.write(Command::Lease, move |connection, _| {
            let fence = leases::lease(connection, &request)?;
            crate::crash::reach(Command::Lease, crate::crash::Step::Rows);
            Ok(fence)
        })
        .await
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        let fence = fence.clone();
        self.write(Command::Release, move |connection, _| {
            leases::release(connection, &fence)?;
            crate::crash::reach(Command::Release, crate::crash::Step::Rows);
            Ok(())
        })
        .await
    }

    async fn leases(&self, now: Timestamp) -> Result<Vec<Fence>, StoreError> {
        self.read(move |connection| leases::held(connection, now)).await
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn absorb(&self, batch: &Absorb) -> Result<Absorbed, StoreError> {
        let batch = Batch::new(batch)?;
        self.write(Command::Absorb, move |connection, sequence| {
            absorb::run(&batch, connection, sequence)?;
            Ok(Absorbed { sequence: sequence.cast_unsigned() })
        })
        .await
    }

    async fn merge(&self, merge: &Merge) -> Result<(), StoreError> {
        let merge = merge.clone();
        self.write(Command::Merge, move |connection, sequence| merge::merge(connection, &merge, sequence)).await
    }

    async fn split(&self, split: &Split) -> Result<(), StoreError> {
        let split = split.clone();
        self.write(Command::Split, move |connection, sequence| split::split(connection, &split, sequence)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, StoreError> {
        let claim = claim.clone();
        self.write(Command::Claim, move |connection, _| drain::claim(connection, &claim)).await
    }

    async fn intend(&self, intend: &Intend) -> Result<(), StoreError> {
        let intents = drain::Intents::new(intend)?;
        self.write(Command::Intend, move |connection, _| drain::intend(connection, &intents)).await
    }

    async fn settle(&self, settle: &Settle) -> Result<(), StoreError> {
        let results = Results::new(settle)?;
        self.write(Command::Settle, move |connection, sequence| drain::settle(&results, connection, sequence)).await
    }

    async fn enqueue(&self, enqueue: &Enqueue) -> Result<u64, StoreError> {
        let enqueue = enqueue.clone();
        self.write(Command::Enqueue, move |connection, _| drain::enqueue(connection, &enqueue)).await
    }

    async fn request_reads(
        &self,
        realm: &str,
        participant: &str,
        ids: &[ExternalId],
        haste: Haste,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.write(Command::RequestReads, move |connection, sequence| {
            reads::request_all(connection, &realm, &participant, &ids, (haste, now, sequence))?;
            crate::crash::reach(Command::RequestReads, crate::crash::Step::Rows);
            Ok(())
        })
        .await
    }

    async fn close_dead_letters(&self, close: &CloseDeadLetters) -> Result<u64, StoreError> {
        let close = close.clone();
        self.write(Command::CloseDeadLetters, move |connection, _| {
            let closed = letters::close_by_number(connection, &close)?;
            crate::crash::reach(Command::CloseDeadLetters, crate::crash::Step::Rows);
            Ok(closed)
        })
        .await
    }

    async fn sweep(&self, sweep: &Sweep) -> Result<u64, StoreError> {
        let sweep = sweep.clone();
        self.write(Command::Sweep, move |connection, _| letters::sweep(connection, &sweep)).await
    }

    async fn reindex(&self, page: &Reindex) -> Result<(), StoreError> {
        let page = Page::new(page)?;
        self.write(Command::Reindex, move |connection, _| reindex::run(&page, connection)).await
    }

    async fn set_checkpoint(&self, set: &SetCheckpoint) -> Result<(), StoreError> {
        let set = set.clone();
        self.write(Command::SetCheckpoint, move |connection, _| checkpoints::set(connection, &set)).await
    }

    async fn put_note(&self, realm: &str, name: &str, value: &serde_json::Value) -> Result<(), StoreError> {
        let (realm, name, value) = (realm.to_owned(), name.to_owned(), encode(value)?);
        self.write(Command::PutNote, move |connection, _| {
            let realm = names::Names::new(connection).intern(&realm)?;
            notes::put(connection, realm, &name, &value)?;
            crate::crash::reach(Command::PutNote, crate::crash::Step::Rows);
            Ok(())
        })
        .await
    }

    async fn replace_note(
        &self,
        realm: &str,
        name: &str,
        known: Option<&serde_json::Value>,
        value: &serde_json::Value,
    ) -> Result<bool, StoreError> {
        let (realm, name, known, value) = (realm.to_owned(), name.to_owned(), known.map(encode).transpose()?, encode(value)?);
        self.write(Command::PutNote, move |connection, _| {
            let realm = names::Names::new(connection).intern(&realm)?;
            notes::replace(connection, realm, &name, known.as_deref(), &value)
        })
        .await
    }

    async fn forget(&self, realm: &str) -> Result<(), StoreError> {
        let realm = realm.to_owned();
        self.write(Command::Forget, move |connection, _| forget::forget(connection, &realm)).await
    }

    async fn forget_participants(&self, realm: &str, prefix: &str) -> Result<bool, StoreError> {
        let (realm, prefix) = (realm.to_owned(), prefix.to_owned());
        self.write(Command::Forget, move |connection, _| forget::forget_participants(connection, &realm, &prefix)).await
    }

    async fn import(&self, import: Import, rows: Rows) -> Result<(), StoreError> {
        self.write(Command::Import, move |connection, _| archive::import(connection, &import, rows)).await
    }

    async fn begin_write(&self, begin: &BeginWrite) -> Result<WriteBegun, StoreError> {
        let begin = begin.clone();
        self.write(Command::BeginWrite, move |connection, _| writes::begin(connection, &begin)).await
    }

    async fn finish_write(&self, scope: &str, answer: &str) -> Result<(), StoreError> {
        let (scope, answer) = (scope.to_owned(), answer.to_owned());
        self.write(Command::FinishWrite, move |connection, _| writes::finish(connection, &scope, &answer)).await
    }

    async fn abandon_write(&self, scope: &str) -> Result<(), StoreError> {
        let scope = scope.to_owned();
        self.write(Command::AbandonWrite, move |connection, _| writes::abandon(connection, &scope)).await
    }

    async fn known_by_external(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<Known>>, StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.read(move |connection| query::known_by_external(connection, &realm, &participant, &ids)).await
    }

    async fn seen(&self, realm: &str, participant: &str, ids: &[ExternalId], fields: &[SmolStr]) -> Result<Option<ValueHash>, StoreError> {
        let (realm, participant, ids, fields) = (realm.to_owned(), participant.to_owned(), ids.to_vec(), fields.to_vec());
        self.read(move |connection| query::seen(connection, &realm, &participant, &ids, &fields)).await
    }

    async fn known_by_id(&self, realm: &str, ids: &[RecordId]) -> Result<Vec<Option<Known>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (realm, ids) = (realm.to_owned(), ids.to_vec());
        self.read(move |connection| query::known_by_id(connection, &realm, &ids)).await
    }

    async fn match_records(&self, realm: &str, keys: &[IndexKey]) -> Result<Vec<Vec<RecordId>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (realm, keys) = (realm.to_owned(), keys.to_vec());
        self.read(move |connection| query::match_records(connection, &realm, &keys)).await
    }

    async fn referring(&self, realm: &str, ids: &[RecordId], after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
        let (realm, ids) = (realm.to_owned(), ids.to_vec());
        self.read(move |connection| query::referring(connection, &realm, &ids, after, max)).await
    }

    async fn find(&self, realm: &str, key: IndexKey, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
        let realm = realm.to_owned();
        self.read(move |connection| query::find(connection, &realm, key, after, max)).await
    }

    async fn external_ids(&self, realm: &str, participant: &str, ids: &[RecordId]) -> Result<Vec<Option<ExternalId>>, StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.read(move |connection| query::external_ids(connection, &realm, &participant, &ids)).await
    }

    async fn record_ids(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<RecordId>>, StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.read(move |connection| query::record_ids(connection, &realm, &participant, &ids)).await
    }

    async fn sequence(&self) -> Result<u64, StoreError> {
        self.read(query::sequence).await
    }

    async fn checkpoint(&self, realm: &str, participant: &str, slice: &str) -> Result<Option<Checkpoint>, StoreError> {
        let (realm, participant, slice) = (realm.to_owned(), participant.to_owned(), slice.to_owned());
        self.read(move |connection| query::checkpoint(connection, &realm, &participant, &slice)).await
    }

    async fn checkpoints(&self, realm: &str) -> Result<Vec<Standing>, StoreError> {
        let realm = realm.to_owned();
        self.read(move |connection| checkpoints::all(connection, &realm)).await
    }

    async fn pending_reads(&self, realm: &str, participant: &str, max: usize) -> Result<Vec<ExternalId>, StoreError> {
        let (realm, participant) = (realm.to_owned(), participant.to_owned());
        self.read(move |connection| query::pending_reads(connection, &realm, &participant, max)).await
    }

    async fn pending_reads_of(&self, realm: &str, participant: &str, haste: Haste, max: usize) -> Result<Vec<ExternalId>, StoreError> {
        let (realm, participant) = (realm.to_owned(), participant.to_owned());
        self.read(move |connection| query::pending_reads_of(connection, &realm, &participant, haste, max)).await
    }

    async fn awaits_read(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<Haste>>, StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.read(move |connection| query::awaits_read(connection, &realm, &participant, &ids)).await
    }

    async fn note(&self, realm: &str, name: &str) -> Result<Option<serde_json::Value>, StoreError> {
        let (realm, name) = (realm.to_owned(), name.to_owned());
        self.read(move |connection| query::note(connection, &realm, &name)).await
    }

    async fn snapshots(&self, only: Option<&str>, now: Timestamp) -> Result<BTreeMap<String, Snapshot>, StoreError> {
        let only = only.map(str::to_owned);
        self.read(move |connection| query::snapshots(connection, only.as_deref(), now)).await
    }

    async fn changes_since(&self, realm: &str, since: Timestamp, with: &Guarded) -> Result<GuardCounts, StoreError> {
        let (realm, with) = (realm.to_owned(), with.clone());
        self.read(move |connection| query::changes_since(connection, &realm, since, &with)).await
    }

    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, StoreError> {
        let filter = filter.clone();
        self.read(move |connection| query::dead_letters(connection, &filter)).await
    }

    async fn dead_lettered(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<bool>, StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.read(move |connection| query::dead_lettered(connection, &realm, &participant, &ids)).await
    }

    async fn dead_lettered_records(&self, realm: &str, participant: &str, ids: &[RecordId]) -> Result<Vec<bool>, StoreError> {
        let (realm, participant, ids) = (realm.to_owned(), participant.to_owned(), ids.to_vec());
        self.read(move |connection| query::dead_lettered_records(connection, &realm, &participant, &ids)).await
    }

    async fn records(&self, realm: &str, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
        let realm = realm.to_owned();
        self.read(move |connection| query::all_records(connection, &realm, after, max)).await
    }

    async fn participant_ids(
        &self,
        realm: &str,
        participant: &str,
        after: Option<&ExternalId>,
        max: usize,
    ) -> Result<Vec<ExternalId>, StoreError> {
        let (realm, participant, after) = (realm.to_owned(), participant.to_owned(), after.cloned());
        self.read(move |connection| query::participant_ids(connection, &realm, &participant, after.as_ref(), max)).await
    }

    async fn history(&self, realm: &str, record: RecordId, now: Timestamp) -> Result<Vec<PastChange>, StoreError> {
        let (realm, since) = (realm.to_owned(), now.before(HISTORY_FOR));
        self.read(move |connection| history::of_record(connection, &realm, record, since)).await
    }

    async fn held(&self, realm: &str, participants: &[String]) -> Result<u64, StoreError> {
        let (realm, participants) = (realm.to_owned(), participants.to_vec());
        self.read(move |connection| query::held(connection, &realm, &participants)).await
    }

    async fn waits_for(&self, realm: &str, target: &str, ids: &[RecordId]) -> Result<Vec<Option<RecordId>>, StoreError> {
        let (realm, target, ids) = (realm.to_owned(), target.to_owned(), ids.to_vec());
        self.read(move |connection| query::waits_for(connection, &realm, &target, &ids)).await
    }

    async fn creating(&self, realm: &str, target: &str) -> Result<bool, StoreError> {
        let (realm, target) = (realm.to_owned(), target.to_owned());
        self.read(move |connection| query::creating(connection, &realm, &target)).await
    }

    async fn next_due(
        &self,
        realm: &str,
        target: &str,
        fence: &LaneFence,
        bulk: bool,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (realm, target, fence) = (realm.to_owned(), target.to_owned(), fence.clone());
        self.read(move |connection| query::next_due(connection, &realm, &target, &fence, bulk, now)).await
    }

    async fn wanted_soon(&self, realm: &str, target: &str, fence: &LaneFence, creates: bool, now: Timestamp) -> Result<bool, StoreError> {
        let (realm, target, fence) = (realm.to_owned(), target.to_owned(), fence.clone());
        self.read(move |connection| query::wanted_soon(connection, &realm, &target, &fence, creates, now)).await
    }

    async fn export(&self, only: Option<&str>, now: Timestamp, mut sink: Box<dyn Sink>) -> Result<(), StoreError> {
        let only = only.map(str::to_owned);
        let tell = move |connection: &Connection| archive::export(connection, only.as_deref(), now, sink.as_mut());
        match &self.mode {
            Mode::Inline(connection) => in_one_moment(&lock(connection), tell),
            Mode::Threaded { readers, .. } => {
                // On a connection of its own: it may take long, and what must be sorted lies in a file, however much it is.
                let path = readers.path.clone();
                let work = move || {
                    let connection = schema::open_reader(&path)?;
                    connection.pragma_update(None, "temp_store", "FILE")?;
                    in_one_moment(&connection, tell)
                };
                let told = tokio::task::spawn_blocking(work).await;
                told.map_err(|error| StoreError::Other(format!("an export did not end: {error}")))?
                    .map_err(|error| name_disk(error, self.path()))
            }
        }
    }

    async fn realms(&self) -> Result<Vec<String>, StoreError> {
        self.read(query::realms).await
    }
}

#[cfg(all(test, feature = "contract-tests"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
mod tests {
    use super::*;
    use crate::contract_tests::world::{REALM, World, at, inserted};

    fn on(store: &SqliteStore, statement: &str) {
        let Mode::Inline(connection) = &store.mode else { panic!("an inline store was expected") };
        lock(connection).query_row(statement, [], |_| Ok(())).unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_has_a_name_and_ends_when_there_is_room_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open_inline(&folder.path().join("store.db")).unwrap());
        let world = World::new(store.clone(), "a").await;
        world.absorb((0..20).map(inserted).collect(), at(1)).await;
        let before = world.snapshot(at(1)).await;
        on(&store, "PRAGMA max_page_count = 1");
        let full = world.try_absorb((100..300).map(inserted).collect(), at(2)).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
        assert_eq!(world.snapshot(at(1)).await, before);
        on(&store, "PRAGMA max_page_count = 100000");
        world.absorb((100..300).map(inserted).collect(), at(3)).await;
        assert_eq!(world.snapshot(at(3)).await.live, 220);
    }

    #[tokio::test]
    async fn a_read_only_store_has_a_name() {
        let store = Arc::new(SqliteStore::open_in_memory().unwrap());
        let world = World::new(store.clone(), "a").await;
        let Mode::Inline(connection) = &store.mode else { panic!("an inline store was expected") };
        lock(connection).pragma_update(None, "query_only", true).unwrap();
        let refused = world.try_absorb(vec![inserted(1)], at(1)).await;
        assert!(matches!(refused, Err(StoreError::ReadOnly(_))), "{refused:?}");
    }

    #[test]
    fn a_command_that_fails_in_a_group_is_undone_alone() {
        let connection = schema::open_writer(None).unwrap();
        let note = |name: &'static str, fails: bool| {
            job(Command::PutNote, move |connection: &Connection, sequence| {
                let realm = names::Names::new(connection).intern(REALM)?;
                connection.execute("INSERT INTO note VALUES (?1, ?2, '1')", rusqlite::params![realm, name])?;
                if fails { Err(StoreError::Conflict(Vec::new())) } else { Ok(sequence) }
            })
        };
        let ((one, mut first), (two, mut second), (three, mut third)) = (note("a", false), note("b", true), note("c", false));
        run_group(&connection, None, vec![one, two, three]);
        assert_eq!(first.try_recv().unwrap(), Ok(1));
        assert_eq!(second.try_recv().unwrap(), Err(StoreError::Conflict(Vec::new())));
        assert_eq!(third.try_recv().unwrap(), Ok(2));
        let names: String = connection.query_row("SELECT group_concat(name) FROM note", [], |row| row.get(0)).unwrap();
        assert_eq!(names, "a,c");
    }

    #[test]
    fn a_commit_that_fails_fails_every_command_in_it() {
        let connection = schema::open_writer(None).unwrap();
        connection
            .execute_batch("PRAGMA foreign_keys = ON; CREATE TABLE parent (x PRIMARY KEY); CREATE TABLE child (x REFERENCES parent DEFERRABLE INITIALLY DEFERRED);")
            .unwrap();
        let (good, mut first) = job(Command::PutNote, |connection: &Connection, _| {
            connection.execute("INSERT INTO name (text) VALUES ('lost')", [])?;
            Ok(())
        });
        let (bad, mut second) = job(Command::PutNote, |connection: &Connection, _| {
            connection.execute("INSERT INTO child VALUES (1)", [])?;
            Ok(())
        });
        run_group(&connection, None, vec![good, bad]);
        assert!(first.try_recv().unwrap().is_err() && second.try_recv().unwrap().is_err());
        let left: i64 = connection.query_row("SELECT count(*) FROM name", [], |row| row.get(0)).unwrap();
        assert_eq!((left, connection.is_autocommit()), (0, true));
    }
}
