//! Durable state behind a few coarse commands: records, identities, participant state, lanes, checkpoints, dead letters, the ledger.
//!
//! The trait hands out no transaction. Each command is one, fenced by the epoch of the lease it names, so that a process which was paused
//! past its lease commits nothing. What the engine decides (differences, ownership, what to enqueue) arrives here decided; this room only
//! makes it durable, keeps the ledger's books while doing so, and answers questions. It must not know Kubernetes, vendors or mappings.
//!
//! Time comes in with each command. The store has no clock, but for one thing: where several processes share it, their clocks may differ, and the
//! database's own says which leases have run out.

pub mod archive;
#[cfg(feature = "contract-tests")]
pub mod contract_tests;
pub mod crash;
mod partitions;
pub mod postgres;
mod rows;
pub mod sqlite;
mod types;

pub use partitions::LaneFence;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use types::*;

use archive::{Import, Rows, Sink};
use async_trait::async_trait;
use fairlead_model::hash::ValueHash;
use fairlead_model::{ExternalId, RecordId, SmolStr, Timestamp};
use std::collections::BTreeMap;

/// Durable state. Implementations: SQLite ([`sqlite`]) and PostgreSQL ([`postgres`]); every implementation passes the contract suite of `contract_tests` (feature of
/// that name).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- leases -----------------------------------------------------------------------------------------------------------------

    /// Takes or renews each of the leases `keys` for `holder` until `now + ttl`; answers positionally. Free or expired leases are granted with a
    /// new epoch, an own unexpired one is prolonged with its epoch; another's unexpired one answers `None`. What has expired is judged by `now`, or
    /// by the database's clock where processes of several machines share it. [`Fence::until`] is the asker's `now + ttl` all the same: it asked
    /// before it was granted, so until then it may count on the lease by its own clock.
    ///
    /// [`StoreError::Unusable`]: a newer Fairlead has changed the database meanwhile. It has ended all leases, and this one gets none.
    async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Option<Fence>>, StoreError>;

    /// Gives a lease back, so that the next holder need not wait. The epoch still rises.
    async fn release(&self, fence: &Fence) -> Result<(), StoreError>;

    /// The leases that are held and have not run out, judged as by [`Store::lease`], in the order of their keys. They run out by the clock that judges.
    async fn leases(&self, now: Timestamp) -> Result<Vec<Fence>, StoreError>;

    /// In how many partitions processes drain the lanes of this store, each under a lease of its own: one where a single process is the rule. It
    /// never changes while a store is in use, for a record's place is always in one of them ([`LaneFence`]).
    fn partitions(&self) -> u32;

    // ---- commands ---------------------------------------------------------------------------------------------------------------

    /// Commits a batch of observed changes in ONE transaction: records (optimistic on their versions), identities, participant states,
    /// the checkpoint, lane entries, dead letters, ledger. All or nothing: on [`StoreError::Conflict`] the caller looks the records up
    /// again and decides again. When it returns, the source counts as acknowledged.
    ///
    /// A conflict is: another version than the one looked up; an id that is there already (Insert) or not (Keep, Update); a live record
    /// with one of the match keys (Insert); a record that was merged; an external id that stands for another record; a second external id of this participant for one
    /// record; a state that does not know of a write which was settled since it was looked up (`state.settled` below the stored one: a
    /// state is changed, never made anew); and a change (`counts_as_changed`) in a record of which a write to this participant is claimed,
    /// since that write will settle by the state it was claimed with.
    ///
    /// Open inbound and identity letters of an external id that is absorbed close as superseded. Lanes and reads that waited for a newly
    /// named record are due at once.
    async fn absorb(&self, batch: &Absorb) -> Result<Absorbed, StoreError>;

    /// Folds one record into another in ONE transaction, because a vendor merged the two; or has a record go on under another external id.
    ///
    /// The loser stays as a tombstone whose id resolves to the survivor wherever records are looked up by id; external ids that it keeps are
    /// *aliases*: they resolve likewise, and are neither absorbed nor written. Its match keys go, its waiting lane entries and open letters
    /// pass to the survivor (where that one has its own, the loser's are superseded), and what waited for it waits for the survivor. A merge
    /// that was committed before is repeated without effect.
    ///
    /// [`StoreError::Conflict`]: another version than the one looked up, or a write to either that is in flight or has no known outcome yet (of a live
    /// record that goes on under another id, in that participant's lane alone); also an external id that stands for a record by now. Nothing is
    /// committed then.
    async fn merge(&self, merge: &Merge) -> Result<(), StoreError>;

    /// Splits a record in ONE transaction, by a person's word: external ids leave it, aliases of it among them, and stand for a new record in
    /// version 0. What is to be read again, and the lanes that the record enters, are committed with it; its waiting entries and open letters
    /// stay its own. In a target whose id has left there is something to create.
    ///
    /// [`StoreError::Conflict`]: another version than the one looked up, or a record that is deleted or merged; a write of it that is in flight
    /// or has no known outcome; an external id that does not stand for it any more, or was written since its state was looked up. Without
    /// records: a note that has changed. Nothing is committed then.
    async fn split(&self, split: &Split) -> Result<(), StoreError>;

    /// Claims up to `max` due keys of one target's lane, or of those of its partitions that are held, marks them in flight under the
    /// epoch of their partition (until they are settled, or claimed again under a newer epoch) and returns them with everything needed to write
    /// them. Those that are wanted soon come first, those that have time after them, each oldest first; of ten keys one has time, where such wait.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, StoreError>;

    /// Commits, right before the requests go out, what claimed keys are about to be sent: the *intent*. A later epoch, or the same one
    /// after an unknown outcome, gets it back in [`Claimed::intent`] and looks the record up before it writes again. A key that was claimed
    /// without an intent was never sent, and is claimed again as if nothing had happened. [`StoreError::Conflict`] names keys that are not
    /// claimed under this fence; nothing is committed then, and nothing may be sent.
    async fn intend(&self, intend: &Intend) -> Result<(), StoreError>;

    /// Commits the results of claimed keys in one transaction. A result for a key that is not claimed under this fence (it was settled
    /// before, and the answer was lost) is ignored. [`StoreError::Conflict`] names records whose external id stands for another record, or
    /// that have another one in this target: nothing is committed, and those are to be settled as dead letters.
    async fn settle(&self, settle: &Settle) -> Result<(), StoreError>;

    /// Puts keys in a lane again (Remap, Resync, Repair, Replay, Restore). Returns how many were entered; records that the realm does not
    /// hold are left out. `Replay` also sets attempts and waiting times back, `Remap` the attempts alone; the others leave a retry both.
    async fn enqueue(&self, enqueue: &Enqueue) -> Result<u64, StoreError>;

    /// Asks for records to be read again by key (stale read, conflict, changed read row, missing reference that has come). They take their turn in
    /// the order of `now`: a moment to come puts them behind what is asked for until then. Of several requests for one record the earliest counts,
    /// and the one that is wanted sooner. Each stands until a read is absorbed that began after it ([`Absorb::began`]).
    async fn request_reads(
        &self,
        realm: &str,
        participant: &str,
        ids: &[ExternalId],
        haste: Haste,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Closes open dead letters without delivering them.
    async fn close_dead_letters(&self, close: &CloseDeadLetters) -> Result<u64, StoreError>;

    /// Removes dead letters that were closed long ago, the oldest first, with what was corrected of them, the notes of corrections that are over,
    /// and history that was kept long enough. A letter whose correction waits stays: what becomes of that is told by it. Returns how many letters went; as many as were allowed says that there may be more. Books and open letters stay as they are.
    async fn sweep(&self, sweep: &Sweep) -> Result<u64, StoreError>;

    /// Gives a page of stored records other index keys (match rules were edited, another field is to be found by) and notes how far that is,
    /// in one transaction. Nothing else of a record changes. [`StoreError::Conflict`] names records that are not there in the version that
    /// their keys were taken of; nothing is committed then.
    async fn reindex(&self, page: &Reindex) -> Result<(), StoreError>;

    /// Sets a checkpoint by a person's word, notes that, and ends the reader's lease, in one transaction: a reader that runs commits nothing that
    /// it read from the old one, and begins anew from this one. That the first full read was complete stays as it is.
    /// [`StoreError::Conflict`], without records: another checkpoint stands there by now.
    async fn set_checkpoint(&self, set: &SetCheckpoint) -> Result<(), StoreError>;

    /// Writes a small named value of a realm (resync token, table digests, guard confirmations).
    async fn put_note(&self, realm: &str, name: &str, value: &serde_json::Value) -> Result<(), StoreError>;

    /// Writes a note where the present one is `known` (`None`: there is none), and says whether it is: else somebody else wrote it meanwhile, and
    /// nothing was changed. So processes add to one value without losing what another adds.
    async fn replace_note(
        &self,
        realm: &str,
        name: &str,
        known: Option<&serde_json::Value>,
        value: &serde_json::Value,
    ) -> Result<bool, StoreError>;

    /// Removes everything of a realm, and ends its leases (those with `/<realm>/` in their key), so that nobody who still runs brings it
    /// back. Epochs stay.
    async fn forget(&self, realm: &str) -> Result<(), StoreError>;

    /// Removes what is known of those participants of a realm whose names begin with `prefix` (which ends with a slash), their notes among it,
    /// and ends their leases. The records stay, and so does what others hold of them; whether anybody does is the answer.
    async fn forget_participants(&self, realm: &str, prefix: &str) -> Result<bool, StoreError>;

    /// Takes over rows that an export told, in ONE transaction: all realms of its head, or nothing. They must be empty, or are replaced; letters
    /// whose numbers another realm has by now get new ones; the sequence and the epochs of leases are no lower afterwards than they were here
    /// or there, and every lease of the realms is free, so that no fence from before commits anything. A write of an API caller that is
    /// known here already stays as it is. [`archive::import`] reads rows from text.
    ///
    /// [`StoreError::Refused`]: a realm that holds something, a lease that somebody holds, a row that contradicts those before it.
    async fn import(&self, import: Import, rows: Rows) -> Result<(), StoreError>;

    /// Notes that a write of an API caller begins, unless its key is known. A write that was begun and neither answered nor given up within
    /// `held` belongs to a process that died: it may be done again. What has expired is forgotten, and the oldest where there are too many.
    async fn begin_write(&self, begin: &BeginWrite) -> Result<WriteBegun, StoreError>;

    /// Keeps the answer to a write that was begun.
    async fn finish_write(&self, scope: &str, answer: &str) -> Result<(), StoreError>;

    /// Gives up a write that was begun and has no answer: the same one can be tried again at once, and another one under its key stays refused.
    async fn abandon_write(&self, scope: &str) -> Result<(), StoreError>;

    // ---- queries ----------------------------------------------------------------------------------------------------------------

    /// What is known of each external id of one participant, positionally; of an alias, the merged record ([`Known::merged_into`]).
    async fn known_by_external(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<Known>>, StoreError>;

    /// The hash over what a participant was last seen to hold in `fields` of each of these ids, in the order given ([`RangeHash`]). `None` where
    /// a hash does not tell: one of them is unknown or deleted there, a field was never seen, or a look has shown another value since.
    ///
    /// [`RangeHash`]: fairlead_model::hash::RangeHash
    async fn seen(&self, realm: &str, participant: &str, ids: &[ExternalId], fields: &[SmolStr]) -> Result<Option<ValueHash>, StoreError>;

    /// What is known of each record, positionally; of the survivor where it was merged.
    async fn known_by_id(&self, realm: &str, ids: &[RecordId]) -> Result<Vec<Option<Known>>, StoreError>;

    /// The live records that carry each match key, positionally, or where there is none, the ones deleted last, the last first (at most 3 each: of the
    /// living, one is a match, two are ambiguous).
    async fn match_records(&self, realm: &str, keys: &[IndexKey]) -> Result<Vec<Vec<RecordId>>, StoreError>;

    /// A page of the live records that carry `key`, after the record `after` (none, if the realm does not hold that one), in the order in
    /// which the realm first saw them. Whether it carries the key of every record is told by [`IndexState`]; that a record really holds the
    /// value is for the caller to check.
    async fn find(&self, realm: &str, key: IndexKey, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError>;

    /// A page of records whose documents hold one of these ids as text, in id order after `after`.
    async fn referring(&self, realm: &str, ids: &[RecordId], after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError>;

    /// The external id of each record in one participant, positionally; the survivor's where it was merged.
    async fn external_ids(&self, realm: &str, participant: &str, ids: &[RecordId]) -> Result<Vec<Option<ExternalId>>, StoreError>;

    /// The record of each external id of one participant, positionally (deleted records included; of an alias, the
    /// survivor).
    async fn record_ids(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<RecordId>>, StoreError>;

    /// The store's present sequence: every commit raises it. A read notes it when its request starts.
    async fn sequence(&self) -> Result<u64, StoreError>;

    /// A checkpoint, if one was committed.
    async fn checkpoint(&self, realm: &str, participant: &str, slice: &str) -> Result<Option<Checkpoint>, StoreError>;

    /// A realm's checkpoints, by participant and slice.
    async fn checkpoints(&self, realm: &str) -> Result<Vec<Standing>, StoreError>;

    /// External ids that wait to be read again by key: those that are wanted soon, then those that have time, each oldest first. Those that wait
    /// for another id are not due.
    async fn pending_reads(&self, realm: &str, participant: &str, max: usize) -> Result<Vec<ExternalId>, StoreError>;

    /// The same of those alone that are wanted so soon.
    async fn pending_reads_of(&self, realm: &str, participant: &str, haste: Haste, max: usize) -> Result<Vec<ExternalId>, StoreError>;

    /// Whether each of these waits to be read again by key, and how soon that is wanted, positionally.
    async fn awaits_read(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<Option<Haste>>, StoreError>;

    /// A note written with [`Store::put_note`].
    async fn note(&self, realm: &str, name: &str) -> Result<Option<serde_json::Value>, StoreError>;

    /// Counts by realm, all of one moment: ledger per lane and origin, reads per source, pending, dead letters, live records. Of every realm that
    /// has any, or of one; together they cost little more than one alone.
    async fn snapshots(&self, only: Option<&str>, now: Timestamp) -> Result<BTreeMap<String, Snapshot>, StoreError>;

    /// The counts of one realm.
    async fn snapshot(&self, realm: &str, now: Timestamp) -> Result<Snapshot, StoreError> {
        Ok(self.snapshots(Some(realm), now).await?.remove(realm).unwrap_or_default())
    }

    /// How many records were changed and how many deleted since `since` (to the hour) by the book of `with`, those of `with` among them, for
    /// the guard.
    async fn changes_since(&self, realm: &str, since: Timestamp, with: &Guarded) -> Result<GuardCounts, StoreError>;

    /// Dead letters by filter, newest first.
    async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, StoreError>;

    /// Whether an inbound or identity letter is open of each external id, positionally. A record that is read well and unchanged closes its
    /// letter only if it is absorbed (`Keep`), and this tells which ones need that.
    async fn dead_lettered(&self, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<bool>, StoreError>;

    /// Whether a letter of a participant is open that names the record, positionally.
    async fn dead_lettered_records(&self, realm: &str, participant: &str, ids: &[RecordId]) -> Result<Vec<bool>, StoreError>;

    /// A page of records in id order, after `after`; for previews, resync, and the API.
    async fn records(&self, realm: &str, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError>;

    /// A page of a participant's external ids in order, after `after`; without aliases.
    async fn participant_ids(
        &self,
        realm: &str,
        participant: &str,
        after: Option<&ExternalId>,
        max: usize,
    ) -> Result<Vec<ExternalId>, StoreError>;

    /// What became of a record's fields, newest first: of each fate at most [`HISTORY_PER_RECORD`],
    /// none older than [`HISTORY_FOR`]. It holds values of the record.
    async fn history(&self, realm: &str, record: RecordId, now: Timestamp) -> Result<Vec<PastChange>, StoreError>;

    /// How many records any of these participants holds, those that were deleted among them.
    async fn held(&self, realm: &str, participants: &[String]) -> Result<u64, StoreError>;

    /// For which record each of these waits in a target's lane, positionally. What is due has to be looked at first, whatever it waited for.
    async fn waits_for(&self, realm: &str, target: &str, ids: &[RecordId]) -> Result<Vec<Option<RecordId>>, StoreError>;

    /// Whether a record is being created in a target at this moment, or perhaps was: what is read there and known to nobody may be that one.
    async fn creating(&self, realm: &str, target: &str) -> Result<bool, StoreError>;

    /// When the next entry of a target's lane, or of those of its partitions that are held, falls due that is not due `now`: one that was put off
    /// (`Retry`). With `bulk` also one that has time. Claim until a claim comes back empty, then wait for this time or for a new entry.
    async fn next_due(
        &self,
        realm: &str,
        target: &str,
        fence: &LaneFence,
        bulk: bool,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Whether something waits in a target's lane, or in those of its partitions that are held, that has no time: due `now`, or beside an older
    /// version that is in flight. Without `creates`, not if the target has no id for it.
    async fn wanted_soon(&self, realm: &str, target: &str, fence: &LaneFence, creates: bool, now: Timestamp) -> Result<bool, StoreError>;

    /// Tells everything that is known of a realm, or of all and the writes of API callers, but who holds which lease: rows of one moment, in an
    /// order that is the same for every implementation. [`archive::export`] writes them as text.
    ///
    /// [`StoreError::Refused`]: the realm holds nothing, or the sink takes no more.
    async fn export(&self, only: Option<&str>, now: Timestamp, sink: Box<dyn Sink>) -> Result<(), StoreError>;

    /// The realms that hold anything, but those of Connectors ([`fairlead_model::realm::of_connector`]).
    async fn realms(&self) -> Result<Vec<String>, StoreError>;
}
