//! What the tasks of one Integration share: the compiled program, its surroundings, and small facts that one task learns and another needs.

use crate::connector::{Connection, Connectors};
use crate::counts::Look;
use crate::decide::outbound::held_back;
use crate::decide::share::Reader;
use crate::lane_lease::LaneLease;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::neighbours::{Neighbours, SEATS, Seat};
use crate::news::News;
use crate::program::Program;
use crate::revision::{Arrangement, Before, Renewal};
use crate::way::{Way, Witness};
use fairlead_model::hash::Digest;
use fairlead_model::report::{GuardStop, Reconciliation, RecordFailure};
use fairlead_model::unit::{ObjectKey, RevisionUnit, Sibling};
use fairlead_model::{Clock, ExternalId, Random, RecordId, RemoteError, Timestamp, realm};
use fairlead_store::{Claimed, Fence, Haste, Snapshot, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// So long after the last trouble with the store it is tried again.
const TRY_STORE: Duration = Duration::from_secs(5);

/// The note that the Integration was loaded as a whole.
pub(crate) const LOADED: &str = "loaded";

/// The note by which one process's guard holds the Integration in all.
const HELD: &str = "guard.held";

/// The note that a reader is refused, or not any more.
fn refused_note(participant: &str) -> String {
    format!("refused/{participant}")
}

/// What it holds.
#[derive(Serialize, Deserialize)]
struct Held {
    /// The unit for which it does.
    unit: Digest,
    stop: GuardStop,
}

/// What an Integration runs in.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What it was last seen to hold.
    pub looks: News<Look>,
    /// The other processes that work on it.
    pub neighbours: Neighbours,
    /// The connectors.
    pub connectors: Arc<Connectors>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// Numbers for Prometheus.
    pub metrics: Arc<Metrics>,
    /// This process, for leases.
    pub holder: String,
    /// Who listens to each record's way.
    pub witness: Option<Arc<dyn Witness>>,
    /// Whether anything is read and written here.
    pub works: bool,
    /// Where it is told that an Integration is to run otherwise.
    pub renewals: mpsc::UnboundedSender<Renewal>,
}

/// Shared between the tasks of one running Integration.
pub(crate) struct Shared {
    /// What runs: what was declared, mapped by the revision in force.
    pub program: Arc<Program>,
    /// What was declared.
    pub wanted: Arc<Program>,
    /// By which revisions it runs, once that was looked up.
    pub arrangement: OnceLock<Arrangement>,
    /// By what this process ran it before.
    pub before: Before,
    /// The revision that was declared.
    pub newest: Mutex<RevisionUnit>,
    /// Where it runs.
    pub around: Surroundings,
    /// The realm of its records.
    pub realm: String,
    /// Itself, for notes, reports and metrics. Others may feed the same realm.
    pub integration: ObjectKey,
    /// The readers of others that feed the same realm and are read at the moment, and whether they are waited for no more.
    pub others: Mutex<BTreeMap<String, bool>>,
    /// Cancelled to stop.
    pub cancel: CancellationToken,
    /// Its records can be found as the unit says, and what is known of its loads is noted: before, a write past the lane is too early.
    pub prepared: AtomicBool,
    /// It was loaded as a whole once; see [`Shared::was_loaded`].
    pub whole: AtomicBool,
    /// Per participant, in the unit's order.
    pub participants: Vec<ParticipantFacts>,
    /// Live records, refreshed by the reporter: the realm's, or where others feed it as well, those that it holds itself.
    pub live: AtomicU64,
    /// When the latter are to be counted again: a long count is not made all the time.
    pub count_again: Mutex<Option<Instant>>,
    /// Set while the guard holds the Integration.
    pub guard: Mutex<Option<GuardStop>>,
    /// What the last reconciliation found.
    pub reconciliation: Mutex<Option<Reconciliation>>,
    /// The last thing that went wrong with a record or call.
    pub last_error: Mutex<Option<RecordFailure>>,
    /// Trouble with the store, and when it was last met.
    pub store_error: Mutex<Option<(String, Timestamp)>>,
}

/// What is known of one participant right now.
#[derive(Default)]
pub(crate) struct ParticipantFacts {
    /// Its first full read is complete.
    pub complete: AtomicBool,
    /// Wakes its reader.
    pub wake_reader: Notify,
    /// Wakes its lane.
    pub wake_lane: Notify,
    /// Its reader is this process's, as far as processes share readers.
    pub reads: AtomicBool,
    /// Has its reader look whether it is still to be.
    pub leases_moved: Notify,
    /// The last successful read: when it was, and the same on the clock that nobody steps, which tells how long ago.
    pub last_read: Mutex<Option<(Timestamp, Instant)>>,
    /// That read was not all: something is to be read again by key before one can say that nothing moves.
    pub unread: AtomicBool,
    /// Why it may not run: it is not the participant that it was.
    pub moved: Mutex<Option<RemoteError>>,
    /// Why it is paused.
    pub paused: Mutex<Option<RemoteError>>,
    /// The number under which this process last wrote past the lane; see [`Shared::direct_lease`].
    pub direct: AtomicU32,
    /// Why its lane rests: the account may not write the entity, or cannot as it is declared. A reader that succeeds says nothing of it.
    pub refused: Mutex<Option<RemoteError>>,
}

impl Shared {
    /// The connection of a participant, or why there is none.
    ///
    /// # Errors
    /// A configuration error that names the connector.
    pub(crate) fn connection(&self, participant: usize) -> Result<Arc<Connection>, RemoteError> {
        let unit = &self.program.participants[participant].unit;
        self.around.connectors.get(&ObjectKey::from(&unit.connector)).ok_or_else(|| {
            RemoteError::new(
                fairlead_model::ErrorClass::Configuration,
                "DependencyNotReady",
                format!("connector {} is not running; see its status", unit.connector),
            )
        })
    }

    /// The slices of a participant's entity, as far as its connector can tell.
    pub(crate) fn slices(&self, participant: usize) -> Vec<String> {
        let entity = &self.program.participants[participant].unit.entity;
        let known = self.connection(participant).ok().and_then(|connection| Some(connection.entity(entity)?.slices().to_vec()));
        known.unwrap_or_else(|| vec!["main".to_owned()])
    }

    /// Tells the steps of a participant's records.
    pub(crate) fn way(&self, participant: usize) -> Way {
        let called = self.program.participants[participant].unit.called();
        Way::new(self.around.witness.clone(), &self.realm, &self.integration.0, called)
    }

    /// The lease on reading a participant.
    pub(crate) fn reader_lease(&self, participant: usize) -> Lease {
        self.lease_on(reader_key(&self.realm, &self.program.participants[participant].unit.name))
    }

    /// What this process does about a participant's reader, where several share readers.
    pub(crate) fn turn_of_reader(&self, participant: usize) -> Reader {
        self.around.neighbours.of_reader(&self.realm, self.name(participant))
    }

    /// Where a process sits that waits for a reader to be given back.
    pub(crate) fn reader_seat(&self, participant: usize) -> Seat {
        let around = &self.around;
        let seats = format!("seat/{}/reader/{}/", self.realm, self.name(participant));
        Seat::new(around.neighbours.clone(), Arc::clone(&around.store), Arc::clone(&around.clock), seats)
    }

    /// The leases on draining a participant's lane.
    pub(crate) fn lane_lease(&self, participant: usize) -> LaneLease {
        let (around, name) = (&self.around, self.name(participant));
        let keys = (format!("lane/{}/{name}", self.realm), format!("seat/{}/lane/{name}/", self.realm));
        LaneLease::new(Arc::clone(&around.store), Arc::clone(&around.clock), keys, around.holder.clone(), around.neighbours.clone())
    }

    /// The lease for a write past a participant's lane. Where one process works, that is the lane's own. Where several share the lane, each of
    /// them may write past it, under one of a few leases that are there for that; `None` if all of these are taken.
    pub(crate) async fn direct_lease(&self, participant: usize) -> Result<Option<(Lease, Fence)>, StoreError> {
        let name = self.name(participant);
        if !self.around.neighbours.share() {
            let mut lease = self.lease("lane", participant);
            return Ok(lease.ensure().await?.map(|fence| (lease, fence)));
        }
        let last = &self.participants[participant].direct;
        let first = last.load(Ordering::Relaxed);
        for number in (first..SEATS).chain(0..first) {
            let mut lease = self.lease_on(format!("direct/{}/{name}/{number}", self.realm));
            if let Some(fence) = lease.ensure().await? {
                last.store(number, Ordering::Relaxed);
                return Ok(Some((lease, fence)));
            }
        }
        Ok(None)
    }

    fn name(&self, participant: usize) -> &str {
        &self.program.participants[participant].unit.name
    }

    /// The lease on reconciling.
    pub(crate) fn reconcile_lease(&self) -> Lease {
        self.lease_on(format!("reconcile/{}", realm::leases_of(&self.realm, &self.integration)))
    }

    /// The lease on looking after a revision on trial.
    pub(crate) fn rollout_lease(&self) -> Lease {
        self.lease_on(format!("rollout/{}", realm::leases_of(&self.realm, &self.integration)))
    }

    /// Asks to be run by another arrangement.
    pub(crate) fn renew(self: &Arc<Self>, arrangement: Arrangement) {
        // Nobody hears it where the engine stops.
        let _ = self.around.renewals.send(Renewal { of: Arc::downgrade(self), arrangement });
    }

    fn lease(&self, what: &str, participant: usize) -> Lease {
        self.lease_on(format!("{what}/{}/{}", self.realm, self.name(participant)))
    }

    fn lease_on(&self, key: String) -> Lease {
        Lease::new(Arc::clone(&self.around.store), Arc::clone(&self.around.clock), key, self.around.holder.clone())
    }

    /// The name under which the Integration notes something of its own; others that feed the same records note theirs.
    pub(crate) fn note(&self, name: &str) -> String {
        realm::note(&self.realm, &self.integration, name)
    }

    /// The book in which the guard counts.
    pub(crate) fn book(&self) -> Option<String> {
        realm::is_contract(&self.realm).then(|| self.integration.0.clone())
    }

    /// What the store counts of this Integration alone.
    pub(crate) fn own<'a>(&self, snapshot: &'a Snapshot) -> Cow<'a, Snapshot> {
        if realm::is_contract(&self.realm) {
            Cow::Owned(snapshot.of(|participant| self.program.participant(participant).is_some()))
        } else {
            Cow::Borrowed(snapshot)
        }
    }

    /// Asks the reader of a participant to read a record again by key.
    pub(crate) async fn read_again(&self, participant: usize, external_id: &ExternalId) -> Result<(), StoreError> {
        self.read_all_again(participant, std::slice::from_ref(external_id)).await
    }

    /// The same for several.
    pub(crate) async fn read_all_again(&self, participant: usize, ids: &[ExternalId]) -> Result<(), StoreError> {
        let name = &self.program.participants[participant].unit.name;
        self.around.store.request_reads(&self.realm, name, ids, Haste::Soon, self.now()).await?;
        self.participants[participant].wake_reader.notify_one();
        Ok(())
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        self.around.clock.now()
    }

    /// An id for a new record.
    pub(crate) fn new_id(&self) -> RecordId {
        RecordId::new(self.now(), self.around.random.as_ref())
    }

    /// All that it had to read at first was read once, now or long ago: since then changes are guarded.
    pub(crate) fn was_loaded(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Whether `participant` may be written to. A newcomer is loaded while the others go on: what they are told meanwhile is not wrong, only
    /// not yet by the newcomer's word. The newcomer itself waits, for a record of its that refers to one not yet read has no value for that
    /// reference here, and an older one would be written over it.
    pub(crate) fn delivers_to(&self, participant: usize) -> bool {
        self.was_loaded() && self.is_read(participant)
    }

    /// A participant's first full read is complete, or it is not read at all.
    pub(crate) fn is_read(&self, participant: usize) -> bool {
        !self.program.participants[participant].readable() || self.participants[participant].complete.load(Ordering::Acquire)
    }

    /// Finds out whether it was loaded, and notes it when that is first so. A store that was loaded before this was noted gets the note then.
    pub(crate) async fn note_loaded(&self) -> Result<bool, StoreError> {
        if self.was_loaded() {
            return Ok(true);
        }
        let store = &self.around.store;
        let loaded = self.note(LOADED);
        let noted = store.note(&self.realm, &loaded).await?.is_some();
        if !noted && !self.loaded() {
            return Ok(false);
        }
        if !noted {
            store.put_note(&self.realm, &loaded, &self.now().0.into()).await?;
        }
        self.whole.store(true, Ordering::Release);
        Ok(true)
    }

    /// Every reader's first full read is complete: creations may be sent. Those of others count the first time; who joins later waits alone, and
    /// cannot stop anybody.
    pub(crate) fn loaded(&self) -> bool {
        self.own_is_read() && (self.was_loaded() || lock(&self.others).values().all(|complete| *complete))
    }

    /// All that it reads itself was read once.
    pub(crate) fn own_is_read(&self) -> bool {
        (0..self.participants.len()).all(|participant| self.is_read(participant))
    }

    /// The readers of others that have to have read once before anything is made here.
    pub(crate) fn awaited(&self) -> Vec<String> {
        if self.was_loaded() {
            return Vec::new();
        }
        lock(&self.others).iter().filter(|(_, complete)| !**complete).map(|(reader, _)| reader.clone()).collect()
    }

    /// Takes note that a reader is refused: that somebody has to mend something before it reads. Others that feed the same records wait for it at
    /// first, but not for that.
    pub(crate) async fn note_refused(&self, participant: usize, refused: bool) -> Result<(), StoreError> {
        if !realm::is_contract(&self.realm) || self.participants[participant].complete.load(Ordering::Acquire) {
            return Ok(());
        }
        self.around.store.put_note(&self.realm, &refused_note(self.name(participant)), &refused.into()).await
    }

    /// Whether nobody waits for the reader of another Integration: it has read once, it is refused, or a guard holds it.
    pub(crate) async fn waits_not_for(&self, reader: &str) -> Result<bool, StoreError> {
        let (store, realm) = (&self.around.store, &self.realm);
        if store.checkpoint(realm, reader, "main").await?.is_some_and(|checkpoint| checkpoint.complete) {
            return Ok(true);
        }
        let held = realm::note(realm, &realm::integration(realm, reader), HELD);
        let (refused, held) = (store.note(realm, &refused_note(reader)).await?, store.note(realm, &held).await?);
        Ok(refused == Some(true.into()) || held.is_some_and(|held| !held.is_null()))
    }

    /// Takes note whose readers there are besides one's own. Who is paused is waited for by nobody.
    pub(crate) fn wait_for_readers(&self, siblings: &[Sibling]) {
        let mut others = lock(&self.others);
        let read = siblings.iter().filter(|sibling| sibling.reads);
        *others = read.map(|sibling| (sibling.name.clone(), others.get(&sibling.name).copied().unwrap_or(false))).collect();
    }

    /// Takes note of trouble with a record or call, if it is news.
    pub(crate) fn failed(&self, participant: usize, external_id: Option<String>, record: Option<RecordId>, error: &RemoteError) {
        let failure = RecordFailure {
            at: self.now(),
            participant: self.program.participants[participant].unit.called().to_owned(),
            external_id,
            record,
            error: error.clone(),
        };
        let mut last = lock(&self.last_error);
        if is_news(last.as_ref(), &failure) {
            *last = Some(failure);
        }
    }

    /// A batch was committed: whatever was wrong with the store is over.
    pub(crate) fn store_works(&self) {
        *lock(&self.store_error) = None;
    }

    /// Where nothing is to be committed, nobody would ever learn that the store works again: some time after the last trouble it is tried
    /// with a note.
    pub(crate) async fn try_store(&self) {
        let due = lock(&self.store_error).as_ref().is_some_and(|(_, at)| self.now().since(*at) >= TRY_STORE);
        if due {
            match self.around.store.put_note(&self.realm, &self.note("tried"), &self.now().0.into()).await {
                Ok(()) => self.store_works(),
                failed => self.store_result(&failed),
            }
        }
    }

    /// Takes note of trouble with the store.
    pub(crate) fn store_result<T>(&self, result: &Result<T, StoreError>) {
        let mut noted = lock(&self.store_error);
        match result {
            // Reading may work while writing does not: only a commit takes the note away.
            Ok(_) | Err(StoreError::Fenced { .. } | StoreError::Conflict(_)) => {}
            Err(error) => {
                if noted.is_none() {
                    tracing::error!(integration = %self.integration, %error, "the store refuses; nothing is lost, it is tried again");
                }
                *noted = Some((error.to_string(), self.now()));
            }
        }
    }

    /// Claimed keys by the program that maps their records.
    pub(crate) fn by_program(&self, claimed: Vec<Claimed>) -> Vec<(&Program, Vec<Claimed>)> {
        let in_force = |claimed: &Claimed| std::ptr::eq(self.program_of(claimed.known.record.id), &*self.program);
        let (others, share): (Vec<_>, Vec<_>) = claimed.into_iter().partition(in_force);
        [(&*self.program, others), (&*self.wanted, share)].into_iter().filter(|(_, claimed)| !claimed.is_empty()).collect()
    }

    /// Wakes the lanes of these targets.
    pub(crate) fn wake_lanes<'a>(&self, targets: impl Iterator<Item = &'a str>) {
        let index: BTreeMap<_, _> = self.program.participants.iter().enumerate().map(|(i, p)| (p.unit.name.as_str(), i)).collect();
        for target in targets {
            if let Some(&i) = index.get(target) {
                self.participants[i].wake_lane.notify_one();
            }
        }
    }

    /// What the guard holds is noted where another process runs the same, or where it may begin anew with the very same unit: beside others
    /// than before.
    fn notes_holds(&self) -> bool {
        self.around.neighbours.share() || realm::is_contract(&self.realm)
    }

    /// Has the guard hold the Integration, in all processes that run it, until a new unit lets it go.
    pub(crate) async fn hold(&self, stop: GuardStop) -> Result<(), StoreError> {
        if self.notes_holds() {
            let held = Held { unit: self.program.unit.digest.clone(), stop: stop.clone() };
            self.around.store.put_note(&self.realm, &self.note(HELD), &serde_json::json!(held)).await?;
        }
        *lock(&self.guard) = Some(stop);
        Ok(())
    }

    /// Forgets what the guard held under another unit: that unit's text may come back, and means something new then.
    pub(crate) async fn let_go(&self) -> Result<(), StoreError> {
        let name = self.note(HELD);
        if self.notes_holds() && self.around.store.note(&self.realm, &name).await?.is_some_and(|held| !held.is_null()) {
            self.around.store.put_note(&self.realm, &name, &serde_json::Value::Null).await?;
        }
        Ok(())
    }

    /// Finds out whether a guard that is not this one's holds the Integration.
    pub(crate) async fn note_held(&self) -> Result<(), StoreError> {
        if !self.notes_holds() || self.guarded() {
            return Ok(());
        }
        let note = self.around.store.note(&self.realm, &self.note(HELD)).await?;
        let held = note.and_then(|note| Held::deserialize(note).ok()).filter(|held| held.unit == self.program.unit.digest);
        if let Some(held) = held {
            tracing::warn!(integration = %self.integration, detail = %held.stop.message, "the guard has held the integration before");
            *lock(&self.guard) = Some(held.stop);
        }
        Ok(())
    }

    /// Held by the guard.
    pub(crate) fn guarded(&self) -> bool {
        lock(&self.guard).is_some()
    }
}

/// The lease on reading a participant.
pub(crate) fn reader_key(realm: &str, participant: &str) -> String {
    format!("reader/{realm}/{participant}")
}

/// Whether a lease is on something of a realm: on what a participant's name begins with `on`, or on anything if that is empty. Whoever waits for such
/// a lease sits on one, too.
pub(crate) fn is_lease_on(key: &str, realm: &str, on: &str) -> bool {
    let of_realm = key.split_once('/').and_then(|(_, rest)| rest.strip_prefix(realm)?.strip_prefix('/'));
    of_realm.is_some_and(|part| {
        let waits_for = ["lane/", "reader/"].into_iter().find_map(|kind| part.strip_prefix(kind));
        part.starts_with(on) || waits_for.is_some_and(|part| key.starts_with("seat/") && part.starts_with(on))
    })
}

/// Whether trouble takes the place of what was known. What was not sent for want of a turn, or while the circuit is open, shows nothing of the system,
/// and must not hide what did.
fn is_news(last: Option<&RecordFailure>, failure: &RecordFailure) -> bool {
    let Some(last) = last else { return true };
    let same_system = last.participant == failure.participant;
    // The same again keeps the time it was first seen, so that status does not move with every retry.
    let same = same_system && last.error.reason == failure.error.reason && last.external_id == failure.external_id;
    let hides = same_system && held_back(&failure.error) && !held_back(&last.error);
    !same && !hides
}

/// Locks a mutex; a panic elsewhere does not make small facts unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::ErrorClass;

    #[test]
    fn what_was_never_sent_hides_no_trouble() {
        let of = |participant: &str, reason: &str, id: &str| RecordFailure {
            at: Timestamp(0),
            participant: participant.into(),
            external_id: Some(id.into()),
            record: None,
            error: RemoteError::new(ErrorClass::Transient, reason, "message"),
        };
        let failure = |reason: &str, id: &str| of("erp", reason, id);
        for (last, next, news) in [
            (("ServerError", "1"), ("ServerError", "1"), false),
            (("ServerError", "1"), ("ServerError", "2"), true),
            (("ServerError", "1"), ("Timeout", "1"), true),
            (("ServerError", "1"), ("Busy", "1"), false),
            (("ServerError", "1"), ("CircuitOpen", "2"), false),
            (("Busy", "1"), ("CircuitOpen", "1"), true),
            (("Busy", "1"), ("ServerError", "1"), true),
        ] {
            assert_eq!(is_news(Some(&failure(last.0, last.1)), &failure(next.0, next.1)), news, "{next:?} after {last:?}");
        }
        assert!(is_news(None, &failure("Busy", "1")), "better than nothing");
        assert!(is_news(Some(&failure("ServerError", "1")), &of("crm", "Busy", "1")), "another system's");
    }

    #[test]
    fn a_lease_is_on_a_realm_and_there_on_a_participant() {
        let golden = "contract:c/customer";
        for (key, realm, on, is) in [
            ("lane/sales/customers/erp/3", "sales/customers", "", true),
            ("seat/sales/customers/reader/crm/0", "sales/customers", "", true),
            ("reconcile/sales/customers/", "sales/customers", "", true),
            ("lane/sales/customers-eu/erp/3", "sales/customers", "", false),
            ("lane/contract:c/customer/sales/customers/erp/3", golden, "sales/customers/", true),
            ("seat/contract:c/customer/lane/sales/customers/erp/0", golden, "sales/customers/", true),
            ("lane/contract:c/customer/north/customers/erp/3", golden, "sales/customers/", false),
            ("lane/contract:c/customer/north/customers/erp/3", golden, "", true),
            ("lane/contract:c/customer/lane/sales/customers/erp/3", golden, "sales/customers/", false),
        ] {
            assert_eq!(is_lease_on(key, realm, on), is, "{key} on {on} of {realm}");
        }
    }
}
