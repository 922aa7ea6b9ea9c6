//! The lane of one target: from waiting keys to acknowledged writes.
//!
//! Flow: hold the lane's leases, or this process's share of them; claim due keys (which marks them in flight); look up those whose last outcome is unknown; map the *current*
//! record, compare with what the target holds, write only what differs, and what goes over values of the target's own only after a look at them; settle. A crash between the target's effect and `settle` leaves the
//! mark, and the next holder looks before it writes.

use crate::connector::Connection;
use crate::crash;
use crate::decide::outbound::{self, Planned, Step, Trouble};
use crate::decide::priority;
use crate::edits::{self, Edit, Edits};
use crate::lane_lease::LaneLease;
use crate::look_up::{Found, LookUp};
use crate::program::{Participant, Program};
use crate::shared::{Shared, lock};
use crate::split;
use crate::system::System;
use crate::way::{TargetTimes, Way};
use fairlead_model::state::ParticipantState;
use fairlead_model::unit::{InitialLoad, OnCycle};
use fairlead_model::{Document, ErrorClass, ExternalId, RecordId, RemoteError, Timestamp};
use fairlead_store::{
    Claim, Claimed, Enqueue, Haste, Intend, Keys, Known, LaneFence, Origin, Outcome, Provenance, Settle, Settlement, Stage, StoreError,
    WAITS_FOR,
};
use fairlead_systems::{Priority, WriteBatch, WriteOperation, Written};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Keys claimed at once.
const BATCH: usize = 200;
/// Without a wake-up (retries that fall due, keys that another process entered), the lane looks for keys after so long: soon after it had
/// work, later while it is idle.
const TICK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

/// A cycle of more records that wait for each other is found only when one of them is overdue, and one of more than the second never.
const LONGEST_CYCLE: (usize, usize) = (100, 10_000);
/// So soon a key that closes a cycle is looked at again.
const CYCLE_LOOK: Duration = Duration::from_secs(5);
/// So soon it is looked whether a record that had to be read first has been read.
const AFTER_READING: Duration = Duration::from_secs(1);
/// The same where both have time: as long as the write has waited already, between these. A whole participant may have to be read.
const AFTER_BULK: (Duration, Duration) = (AFTER_READING, Duration::from_secs(900));
/// So soon a write that has time, and stands in line for its turn, gives way to what is wanted soon in the same lane; and, where it had to
/// several times in a row, at the latest. Else it would never come to its end where the line is long.
const GIVES_WAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// A missing permission is somebody's to give, and a wrong definition somebody's to mend; so long the entity rests.
const REFUSED: Duration = Duration::from_secs(30);

/// The lane of one target.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    index: usize,
    lease: LaneLease,
    /// The account may not write this entity, or cannot as it is declared; until then it is not tried again.
    refused_until: Timestamp,
    /// Records whose write came to its end here without telling what it did: it is not under way any more, and may be looked up at once.
    ended: HashSet<RecordId>,
    /// The leases under which these ended, with their epochs.
    epochs: Vec<(String, u64)>,
    /// Whether the system serves requests that have time.
    bulk: bool,
    /// How long what has time stands in line before it gives way.
    gives_way: Duration,
    /// Records that closed a cycle of references, and when that was first seen.
    cycles: HashMap<RecordId, Timestamp>,
    /// A cycle is to be broken by another record than the one that closed it.
    nudges: bool,
    way: Way,
}

impl Lane {
    /// The lane of the participant at `index`.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let lease = shared.lane_lease(index);
        let way = shared.way(index);
        Self {
            shared,
            index,
            lease,
            refused_until: Timestamp::default(),
            ended: HashSet::new(),
            epochs: Vec::new(),
            bulk: true,
            gives_way: GIVES_WAY.0,
            cycles: HashMap::new(),
            nudges: false,
            way,
        }
    }

    fn target(&self) -> &Participant {
        &self.shared.program.participants[self.index]
    }

    /// Drains until the Integration stops. What is in flight then settles first.
    pub(crate) async fn run(mut self) {
        let mut tick = TICK.0;
        loop {
            if self.shared.cancel.is_cancelled() {
                break;
            }
            let result = self.drain().await;
            self.shared.store_result(&result);
            let more = match result {
                Ok(settled) => {
                    if settled > 0 {
                        self.shared.store_works();
                    }
                    settled > 0
                }
                Err(error) => {
                    match error {
                        StoreError::Fenced { key } => {
                            tracing::warn!(lease = %key, "lease was taken by another process; standing back")
                        }
                        error => {
                            tracing::debug!(integration = %self.shared.integration, target = %self.target().unit.name, %error, "lane waits for the store");
                        }
                    }
                    // Keys may be claimed and not settled; the next epoch takes them up again.
                    self.lease.abandon();
                    false
                }
            };
            if more {
                tick = TICK.0;
                continue;
            }
            tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => {}
                () = self.shared.participants[self.index].wake_lane.notified() => {}
                () = tokio::time::sleep(self.until_due(tick).await) => tick = (tick * 2).min(TICK.1),
            }
        }
        self.lease.release().await;
    }

    /// How long to wait: until the next retry falls due, `tick` at most.
    async fn until_due(&self, tick: Duration) -> Duration {
        let Some(fence) = self.lease.fence() else { return tick };
        let store = &self.shared.around.store;
        let due = store.next_due(&self.shared.realm, &self.target().unit.name, &fence, self.bulk, self.shared.now()).await.ok().flatten();
        due.map_or(tick, |due| due.since(self.shared.now()).max(Duration::from_millis(250)).min(tick))
    }

    /// Claims one batch, writes and settles what is wanted soon, then what has time; how many keys were settled.
    async fn drain(&mut self) -> Result<usize, StoreError> {
        let shared = Arc::clone(&self.shared);
        let previews = shared.program.unit.initial_load == InitialLoad::Preview;
        if previews || shared.guarded() || !shared.note_loaded().await? || !shared.delivers_to(self.index) {
            return Ok(0);
        }
        let Ok(connection) = shared.connection(self.index) else { return Ok(0) };
        let Ok(system) = connection.system(Priority::Live) else { return Ok(0) };
        if connection.blocked().is_some()
            || self.refused_until > shared.now()
            || system.circuit() == fairlead_model::report::Circuit::Open
            || system.throttled_until().is_some_and(|until| until > shared.now())
        {
            return Ok(0);
        }
        // What would only be refused is not claimed.
        let serves = |system: &Arc<dyn System>| system.throttled_until().is_none_or(|until| until <= shared.now());
        self.bulk = connection.system(Priority::Backfill).is_ok_and(serves);
        let Some(fence) = self.lease.ensure().await? else { return Ok(0) };
        let epochs: Vec<(String, u64)> = fence.fences().map(|fence| (fence.key.clone(), fence.epoch)).collect();
        if epochs != self.epochs {
            // Others may have sent writes meanwhile, of whose end nothing is known here.
            self.ended.clear();
            self.epochs = epochs;
        }
        let target = &shared.program.participants[self.index];
        let batch_max = connection.entity(&target.unit.entity).map_or(BATCH, |entity| entity.batch_max().max(1));
        let claim = Claim {
            realm: shared.realm.clone(),
            target: target.unit.name.clone(),
            fence: fence.clone(),
            max: batch_max.clamp(20, BATCH),
            creates: shared.loaded(),
            bulk: self.bulk,
            now: shared.now(),
        };
        let mark = self.way.mark();
        let claimed = shared.around.store.claim(&claim).await?;
        let times = TargetTimes { claim: self.way.since(mark), ..TargetTimes::default() };
        if claimed.is_empty() {
            return Ok(0);
        }
        crash::point("lane.claimed");
        // Each by requests of its own: what is wanted soon does not take what has time along to where little is left of the quota.
        let (soon, bulk): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| claimed.haste == Haste::Soon);
        let mut count = 0;
        for (haste, claimed) in [(Haste::Soon, soon), (Haste::Bulk, bulk)] {
            // Each revision's part is settled before the next is sent.
            for (program, claimed) in shared.by_program(claimed) {
                count += self.write(program, claimed, haste, &connection, &fence, times).await?;
            }
        }
        Ok(count)
    }

    /// Writes and settles claimed keys; how many were settled.
    async fn write(
        &mut self,
        program: &Program,
        claimed: Vec<Claimed>,
        haste: Haste,
        connection: &Connection,
        fence: &LaneFence,
        mut times: TargetTimes,
    ) -> Result<usize, StoreError> {
        let shared = Arc::clone(&self.shared);
        let target = &shared.program.participants[self.index];
        let Results { list: results, over, .. } = self.deliver(program, claimed, haste, connection, fence, &mut times).await?;
        let mark = self.way.mark();
        let count = results.len();
        for result in &results {
            if let Outcome::DeadLetter(letter) = &result.outcome {
                tracing::warn!(integration = %shared.integration, target = %target.unit.name, record = %result.id, reason = %letter.reason, detail = %letter.message, "record became a dead letter");
            }
        }
        shared.around.metrics.settled(&shared.integration.0, target.unit.called(), results.iter().map(|result| &result.outcome));
        let (realm, name) = (shared.realm.clone(), target.unit.name.clone());
        let settle = Settle { realm, target: name, fence: fence.clone(), results, now: shared.now() };
        let settle = match shared.around.store.settle(&settle).await {
            Err(StoreError::Fenced { key }) => {
                tracing::warn!(lease = %key, keys = count, "a commit was refused: another process holds the lease");
                return Err(StoreError::Fenced { key });
            }
            Err(StoreError::Conflict(ids)) => {
                let settle = self.without_duplicates(settle, &ids).await?;
                shared.around.store.settle(&settle).await?;
                settle
            }
            settled => settled.map(|()| settle)?,
        };
        crash::point("lane.settled");
        times.settle = self.way.since(mark);
        self.way.settled(&settle.results, times);
        edits::forget(shared.around.store.as_ref(), &settle.realm, &settle.target, &over).await?;
        self.nudge(&settle.results).await?;
        Ok(count)
    }

    /// The same results, with a dead letter for each record whose id in the target stands for another record by now, or that got another one.
    async fn without_duplicates(&self, mut settle: Settle, ids: &[RecordId]) -> Result<Settle, StoreError> {
        let target = self.target();
        let known = self.shared.around.store.known_by_id(&settle.realm, ids).await?;
        for known in known.into_iter().flatten() {
            let Some(result) = settle.results.iter_mut().find(|result| result.id == known.record.id) else { continue };
            let told = match (&result.outcome, result.learnt.take()) {
                (Outcome::Delivered { external_id, .. }, _) => external_id.to_string(),
                (_, Some((external_id, _))) => external_id.to_string(),
                _ => continue,
            };
            let error = RemoteError::new(
                ErrorClass::Data,
                "DuplicateIdentity",
                format!(
                    "it was written as {told}, which stands for another record, or it has another id there; merge the two in {}, then replay",
                    target.unit.called()
                ),
            );
            let claimed =
                Claimed { known, origin: Origin::Repair, haste: Haste::Bulk, since: settle.now, attempts: 0, waited: false, intent: None };
            result.outcome = outbound::dead_letter(target, &claimed, Stage::Delivery, &error, None);
        }
        Ok(settle)
    }

    /// New records that wait for each other would wait for ever. The last of them that begins to wait closes the cycle: it is made without the
    /// reference that has it wait, if its row says that this may be completed later. If another one's row says so, that one is to be looked at
    /// once more ([`Self::nudge`]), and else the key becomes a dead letter, unless the cycle comes apart before. `own` are the records that the
    /// references lead to, where they are not there yet.
    async fn break_cycles(
        &mut self,
        program: &Program,
        steps: &mut [(Claimed, Step)],
        own: impl Fn(RecordId) -> RecordId,
        again: impl Fn(&Claimed) -> Step,
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let (target, now) = (&program.participants[self.index], shared.now());
        let begins = steps.iter().map(|(claimed, step)| match step {
            Step::Settle(Outcome::WaitFor { record }) => (claimed.known.record.id, Some(own(*record))),
            _ => (claimed.known.record.id, None),
        });
        let waits: HashMap<RecordId, Option<RecordId>> = begins.collect();
        // Whoever waits for another one waits so long, and a cycle that was found then is looked at again.
        let any_old = steps.iter().any(|(claimed, _)| now.since(claimed.since) >= WAITS_FOR);
        let longest = if any_old { LONGEST_CYCLE.1 } else { LONGEST_CYCLE.0 };
        let mut waits = self.lease.during(follow(&shared, self.index, waits, longest)).await?;
        for (claimed, step) in steps {
            let id = claimed.known.record.id;
            let Some(cycle) = outbound::cycle_of(id, &waits) else {
                self.cycles.remove(&id);
                continue;
            };
            let completers = completers(&shared, self.index, &cycle).await?;
            if completers.contains(&id) {
                tracing::info!(integration = %shared.integration, target = %target.unit.name, record = %id, records = cycle.len(), "new records wait for each other in a cycle; this one is made first and completed later");
                *step = again(claimed);
            } else if !completers.is_empty() {
                self.nudges = true;
                continue;
            } else {
                let until = self.cycles.entry(id).or_insert(now).plus(outbound::cycle_patience(program));
                *step = Step::Settle(if now < until {
                    // Not all at once: what is corrected meanwhile shall not wait for that.
                    Outcome::Retry { at: until.min(now.plus(CYCLE_LOOK)), attempt: false, unknown: false }
                } else {
                    self.cycles.remove(&id);
                    outbound::closes_a_cycle(target, claimed, &cycle)
                });
            }
            waits.insert(id, None);
        }
        Ok(())
    }

    /// Looks once more at what has just begun to wait. Of a cycle that closed in two lanes at once nobody saw all, and one that another record has
    /// to break waits for that one to be claimed: the same record, whoever looks.
    async fn nudge(&mut self, results: &[Settlement]) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        if !std::mem::take(&mut self.nudges) && shared.around.store.partitions() < 2 {
            return Ok(());
        }
        let begun = results.iter().filter(|result| matches!(result.outcome, Outcome::WaitFor { .. })).map(|result| result.id);
        let begun: Vec<RecordId> = begun.collect();
        if begun.is_empty() {
            return Ok(());
        }
        let of_begun = shared.around.store.waits_for(&shared.realm, &self.target().unit.name, &begun).await?;
        let waits = begun.iter().copied().zip(of_begun).collect();
        let waits = self.lease.during(follow(&shared, self.index, waits, LONGEST_CYCLE.0)).await?;
        let mut claimed_again = BTreeSet::new();
        for cycle in begun.iter().filter_map(|id| outbound::cycle_of(*id, &waits)) {
            claimed_again.extend(completers(&shared, self.index, &cycle).await?.first().or(cycle.iter().min()));
        }
        if claimed_again.is_empty() {
            return Ok(());
        }
        let enqueue = Enqueue {
            realm: shared.realm.clone(),
            target: self.target().unit.name.clone(),
            keys: Keys::Records(claimed_again.into_iter().collect()),
            origin: Origin::Repair,
            now: shared.now(),
        };
        shared.around.store.enqueue(&enqueue).await?;
        shared.participants[self.index].wake_lane.notify_one();
        Ok(())
    }

    /// A record that is to be read again is not written before: what was edited there meanwhile would be written over. The reader may be in
    /// another process, and somebody else may have asked it.
    async fn without_unread(&self, claimed: Vec<Claimed>, results: &mut Results) -> Result<Vec<Claimed>, StoreError> {
        let (shared, target) = (&self.shared, self.target());
        let (name, now) = (&target.unit.name, self.shared.now());
        // What was sent without an answer is looked up in any case; until its outcome is known, a read proves nothing.
        let held = |claimed: &Claimed| Some(claimed.known.identity(name)?.external_id.clone()).filter(|_| claimed.intent.is_none());
        let ids: Vec<ExternalId> = claimed.iter().filter_map(held).collect();
        if !target.readable() || ids.is_empty() {
            return Ok(claimed);
        }
        let awaits = shared.around.store.awaits_read(&shared.realm, name, &ids).await?;
        let awaits: HashMap<ExternalId, Haste> = ids.into_iter().zip(awaits).filter_map(|(id, haste)| Some((id, haste?))).collect();
        let (mut ready, mut sooner) = (Vec::with_capacity(claimed.len()), Vec::new());
        for claimed in claimed {
            let Some((id, haste)) = held(&claimed).and_then(|id| awaits.get_key_value(&id)) else {
                ready.push(claimed);
                continue;
            };
            let after = match (claimed.haste, haste) {
                (Haste::Bulk, Haste::Bulk) => now.since(claimed.since).clamp(AFTER_BULK.0, AFTER_BULK.1),
                _ => AFTER_READING,
            };
            // A reading that has time holds up no write that has none.
            sooner.extend((claimed.haste == Haste::Soon && *haste == Haste::Bulk).then(|| id.clone()));
            results.settle(&claimed, Outcome::Retry { at: now.plus(after), attempt: false, unknown: false });
        }
        if !sooner.is_empty() {
            shared.read_all_again(self.index, &sooner).await?;
        }
        Ok(ready)
    }

    /// A record that another one was split off is not made before its values are its own: what came from the other one stays only until those
    /// who hold it are read. Nor is it made where the other one still carries its id in the correlation field: it would be written over.
    async fn without_split(&self, claimed: Vec<Claimed>, results: &mut Results) -> Result<Vec<Claimed>, StoreError> {
        let (shared, target) = (&self.shared, self.target());
        let is_new = |claimed: &&Claimed| {
            !is_put_right(target, claimed)
                && claimed.known.identity(&target.unit.name).is_none()
                && claimed.known.record.deleted_at.is_none()
        };
        let mut early: BTreeSet<RecordId> = BTreeSet::new();
        let new: BTreeSet<RecordId> = claimed.iter().filter(is_new).map(|claimed| claimed.known.record.id).collect();
        if target.key.is_some() && !new.is_empty() {
            early = split::still_named(shared.around.store.as_ref(), &shared.realm, &target.unit.name, &new).await?;
        }
        let taken = early.clone();
        for Claimed { known, .. } in claimed.iter().filter(is_new) {
            if known.record.provenance.values().any(Provenance::is_nobodys) && self.awaits_reading(known).await? {
                early.insert(known.record.id);
            }
        }
        let now = shared.now();
        let (wait, ready): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| early.contains(&claimed.known.record.id));
        for claimed in wait {
            let waited = now.since(claimed.since);
            if waited >= WAITS_FOR && taken.contains(&claimed.known.record.id) {
                results.settle(&claimed, outbound::id_is_taken(target, &claimed));
                continue;
            }
            let after = waited.clamp(AFTER_BULK.0, AFTER_BULK.1);
            results.settle(&claimed, Outcome::Retry { at: now.plus(after), attempt: false, unknown: claimed.intent.is_some() });
        }
        Ok(ready)
    }

    /// Whether the record is to be read again in one of this Integration's systems.
    async fn awaits_reading(&self, known: &Known) -> Result<bool, StoreError> {
        let shared = &self.shared;
        for participant in shared.program.participants.iter().filter(|participant| participant.readable()) {
            let name = &participant.unit.name;
            let Some(identity) = known.identity(name) else { continue };
            let ids = std::slice::from_ref(&identity.external_id);
            if shared.around.store.awaits_read(&shared.realm, name, ids).await?.into_iter().flatten().next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes what these keys need, mapped by `program`.
    async fn deliver(
        &mut self,
        program: &Program,
        claimed: Vec<Claimed>,
        haste: Haste,
        connection: &Connection,
        fence: &LaneFence,
        times: &mut TargetTimes,
    ) -> Result<Results, StoreError> {
        let mark = self.way.mark();
        let shared = Arc::clone(&self.shared);
        let target = &program.participants[self.index];
        let Ok(system) = connection.system(priority::of_writes(haste)) else {
            return Err(StoreError::Other("the connector went away while keys were claimed".into()));
        };
        let entity = connection.entity(&target.unit.entity);
        let visible_after = entity.map_or(Duration::from_secs(1), fairlead_systems::Entity::visible_after);
        let replayed = claimed.iter().filter(|claimed| claimed.origin == Origin::Replay).map(|claimed| claimed.known.record.id.to_string());
        let edits = edits::waiting(shared.around.store.as_ref(), &shared.realm, &target.unit.name, replayed, shared.now()).await?;
        let mut results = Results { edits, ..Results::default() };

        let claimed = self.without_unread(claimed, &mut results).await?;
        let claimed = self.without_split(claimed, &mut results).await?;
        let wait = |attempts: u32| backoff(&shared, attempts);
        let ended = self.ended.clone();
        let look_up =
            LookUp { shared: &shared, program, index: self.index, target, system: system.as_ref(), entity, backoff: &wait, ended: &ended };
        let (unsure, mut ready): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| look_up.wants(claimed));
        // By what was found that is the target's form of a record of which nobody had an id.
        let mut sought = HashMap::new();
        if !unsure.is_empty() {
            // Looking up many takes longer than a lease; under a lost one it would begin anew each time.
            let found = self.lease.during(look_up.all(unsure)).await?;
            crash::point("lane.looked-up");
            for (claimed, found) in found {
                if !matches!(found, Found::Settled(Outcome::Retry { .. })) {
                    self.ended.remove(&claimed.known.record.id);
                }
                let after_reading = Outcome::Retry { at: shared.now().plus(AFTER_READING), attempt: false, unknown: false };
                match found {
                    Found::Clear(clear) => {
                        results.learn(target, &claimed, &clear);
                        if claimed.known.identity(&target.unit.name).is_none() && target.key.is_none() {
                            sought.insert(claimed.known.record.id, look_up.found_by(&claimed));
                        }
                        ready.push(*clear);
                    }
                    Found::Settled(outcome) => results.settle(&claimed, outcome),
                    Found::GivenUp(unknown, outcome) => {
                        results.learn(target, &claimed, &unknown);
                        results.settle(&claimed, outcome);
                    }
                    Found::Adopted(found) => {
                        results.learn(target, &claimed, &found);
                        if let Some(identity) = found.known.identity(&target.unit.name).filter(|_| target.readable()) {
                            shared.read_again(self.index, &identity.external_id).await?;
                        }
                        results.settle(&claimed, after_reading);
                    }
                }
            }
        }

        let references: Vec<RecordId> = ready
            .iter()
            .flat_map(|claimed| outbound::references(target, &claimed.known.record.document))
            .map(|(record, _)| record)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let resolved: HashMap<RecordId, Option<ExternalId>> = if references.is_empty() {
            HashMap::new()
        } else {
            let ids = shared.around.store.external_ids(&shared.realm, &target.unit.name, &references).await?;
            references.iter().copied().zip(ids).collect()
        };
        let missing: Vec<RecordId> = resolved.iter().filter(|(_, id)| id.is_none()).map(|(record, _)| *record).collect();
        let awaited: HashMap<RecordId, Option<Known>> = if missing.is_empty() {
            HashMap::new()
        } else {
            let known = shared.around.store.known_by_id(&shared.realm, &missing).await?;
            missing.into_iter().zip(known).collect()
        };
        let never: HashMap<RecordId, RemoteError> =
            awaited.iter().filter_map(|(id, known)| Some((*id, outbound::never_there(program, target, *id, known.as_ref())?))).collect();

        let map = |document: &Document| target.table.to_native(document, &|_, record| resolved.get(&record).cloned().flatten());
        let decide = |claimed: &Claimed| match outbound::decide(program, target, claimed, &map) {
            Step::Settle(Outcome::WaitFor { record }) if never.contains_key(&record) => {
                Step::Settle(outbound::dead_letter(target, claimed, Stage::Outbound, &never[&record], None))
            }
            step => step,
        };
        let decided = |claimed: Claimed| {
            let step = decide(&claimed);
            (claimed, step)
        };
        let mut steps: Vec<(Claimed, Step)> = ready.into_iter().map(decided).collect();
        let own = |record: RecordId| awaited.get(&record).and_then(Option::as_ref).map_or(record, |known| known.record.id);
        let again = |claimed: &Claimed| outbound::decide_to_complete(program, target, claimed, &map);
        self.break_cycles(program, &mut steps, own, again).await?;
        let stays_archived = entity.is_some_and(|entity| !entity.can_reactivate());
        let mut writes: Vec<(Claimed, Planned)> = Vec::new();
        for (claimed, step) in steps {
            match step {
                Step::Settle(Outcome::WaitFor { record })
                    if outbound::overdue(&claimed, shared.now())
                        && outbound::waits_in_vain(target, awaited.get(&record).and_then(Option::as_ref)) =>
                {
                    let error = outbound::not_there_in_time(target, record);
                    results.settle(&claimed, outbound::dead_letter(target, &claimed, Stage::Outbound, &error, None));
                }
                Step::Write(planned) if planned.removes() && outbound::may_live_again(&claimed, shared.now()) => {
                    let now = shared.now();
                    let after = now.since(claimed.since).clamp(AFTER_BULK.0, AFTER_BULK.1);
                    results.settle(&claimed, Outcome::Retry { at: now.plus(after), attempt: false, unknown: false });
                }
                Step::Write(planned) if planned.item.operation == WriteOperation::Reactivate && stays_archived => {
                    if let Some((learnt, outcome)) = outbound::stays_archived(target, &claimed) {
                        results.learnt.insert(claimed.known.record.id, learnt);
                        results.settle(&claimed, outcome);
                    }
                }
                Step::Write(planned) if planned.renames() && !entity.is_some_and(fairlead_systems::Entity::updates_by_id) => {
                    if let Some(renamed) = outbound::is_renamed(target, &claimed).filter(|_| is_put_right(target, &claimed)) {
                        results.learnt.insert(claimed.known.record.id, renamed);
                        results.settle(&claimed, Outcome::Retry { at: shared.now(), attempt: false, unknown: false });
                        continue;
                    }
                    results.settle(&claimed, outbound::stays_misnamed(target, &claimed, &planned));
                }
                Step::Write(mut planned) => {
                    if let Some(edit) = results.edit(&claimed) {
                        planned.correct(edit);
                    }
                    writes.push((claimed, *planned));
                }
                Step::Settle(outcome) => {
                    if let (Outcome::Unchanged, Some(learnt)) = (&outcome, outbound::inside(target, &claimed)) {
                        results.learnt.insert(claimed.known.record.id, learnt);
                    }
                    results.settle(&claimed, outcome);
                }
            }
        }
        times.map = self.way.since(mark);
        // The time since the last read is long enough for an edit.
        let (writes, others) = self.lease.during(look_up.before_writing(writes)).await?;
        for (claimed, failed) in others {
            if let Some(external_id) = failed.reread {
                shared.read_again(self.index, &external_id).await?;
            }
            results.settle(&claimed, failed.outcome);
        }
        if writes.is_empty() {
            return Ok(results);
        }

        // Requests go out only while the lease holds; it is kept while they are under way.
        self.lease.renew().await?;
        let sent = |(claimed, planned): &(Claimed, Planned)| {
            let (id, sent) = (claimed.known.record.id, outbound::Sent::of(planned).findable(program, target, planned));
            let sent = match results.learnt.get(&id) {
                Some((_, learnt)) => sent.over(learnt),
                None => sent,
            };
            let sent = match sought.get(&id).filter(|_| planned.item.id.is_some()) {
                Some(rules) => sent.found_by(rules.clone()),
                None => sent,
            };
            (id, sent.write())
        };
        let sent = writes.iter().map(sent).collect();
        let intend =
            Intend { realm: shared.realm.clone(), target: target.unit.name.clone(), fence: fence.clone(), sent, now: shared.now() };
        shared.around.store.intend(&intend).await?;
        crash::point("lane.intended");
        let (mut items, mut written) = (Vec::with_capacity(writes.len()), Vec::with_capacity(writes.len()));
        for (claimed, Planned { item, rows, incomplete }) in writes {
            items.push(item);
            written.push((claimed, rows, incomplete));
        }
        let batch = WriteBatch { entity: target.unit.entity.clone(), items };
        let (validity, clock, cancel) = (self.lease.validity(), Arc::clone(&shared.around.clock), shared.cancel.clone());
        // If the lease is lost all the same, the next holder finds the intents. Who stops, is held by the guard, or is in the way, sends
        // nothing more, and awaits what is under way.
        let (held, in_the_way) = (Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
        let gives_way = Arc::clone(&in_the_way);
        let may_send = Arc::new(move || {
            validity.lasts(clock.now()) && !cancel.is_cancelled() && !held.guarded() && !gives_way.load(Ordering::Relaxed)
        });
        let mark = self.way.mark();
        let patience = self.gives_way;
        let writing = async {
            tokio::select! {
                biased;
                answers = system.write(&batch, may_send) => answers,
                never = watch_the_urgent(&shared, target, fence, patience, &in_the_way), if haste == Haste::Bulk => match never {},
            }
        };
        let answers = self.lease.during(writing).await;
        let gave_way =
            |answer: &Result<Written, RemoteError>| in_the_way.load(Ordering::Relaxed) && answer.as_ref().is_err_and(outbound::held_back);
        if haste == Haste::Bulk {
            self.gives_way = if answers.iter().all(gave_way) { (patience * 2).min(GIVES_WAY.1) } else { GIVES_WAY.0 };
        }
        times.write = self.way.since(mark);
        crash::point("lane.written");
        if batch.items.iter().any(|item| item.operation == WriteOperation::Create) {
            crash::point("lane.created");
        }
        let circuit_closed = system.circuit() == fairlead_model::report::Circuit::Closed;
        let any_through = answers.iter().any(Result::is_ok);
        let mut through: Vec<String> = Vec::new();
        let written = written.into_iter().zip(batch.items).zip(answers);
        for (((claimed, rows, incomplete), item), answer) in written {
            let (claimed, planned) = (&claimed, &Planned { item, rows, incomplete });
            let id = claimed.known.record.id;
            self.ended.remove(&id);
            let outcome = match answer {
                Ok(written) => {
                    *lock(&shared.participants[self.index].refused) = None;
                    let answered = match (&written.answer, results.edit(claimed)) {
                        (Some(answer), _) => outbound::canonical_of(&target.table, answer),
                        (None, Some(edit)) => planned.corrected(&target.table, edit),
                        (None, None) => Vec::new(),
                    };
                    through.extend(results.edit(claimed).map(|_| id.to_string()));
                    outbound::delivered(target, claimed, planned, &written, &answered, shared.now())
                }
                Err(error) => {
                    // What gives way to others is no trouble.
                    if !in_the_way.load(Ordering::Relaxed) || !outbound::held_back(&error) {
                        shared.failed(self.index, planned.item.id.as_ref().map(ToString::to_string), Some(id), &error);
                    }
                    // Where others went through it is the key's own trouble; else none will until somebody mends it.
                    if matches!(error.class, ErrorClass::Permission | ErrorClass::Configuration) && !any_through {
                        self.refused_until = shared.now().plus(REFUSED);
                        *lock(&shared.participants[self.index].refused) = Some(error.clone());
                    }
                    if error.class == ErrorClass::UnknownOutcome {
                        self.ended.insert(id);
                    }
                    let wait = backoff(&shared, claimed.attempts);
                    let trouble = Trouble { error: &error, wait, circuit_closed, alone: any_through, now: shared.now() };
                    let failed = outbound::failed(program, target, claimed, planned, &trouble, visible_after);
                    if let Some(external_id) = failed.reread {
                        shared.read_again(self.index, &external_id).await?;
                    }
                    failed.outcome
                }
            };
            results.settle(claimed, outcome);
        }
        edits::close(shared.around.store.as_ref(), &results.edits, &through, shared.now()).await?;
        Ok(results)
    }
}

/// Results of a batch under way.
#[derive(Default)]
struct Results {
    list: Vec<Settlement>,
    /// What looking records up has taught, until they are settled.
    learnt: HashMap<RecordId, (ExternalId, ParticipantState)>,
    /// What people corrected in these records.
    edits: Edits,
    /// Of these, the ones whose record has a result: a correction is for one result.
    over: Vec<String>,
}

impl Results {
    /// Keeps what `after` knows of the record in the target and `before` did not.
    fn learn(&mut self, target: &Participant, before: &Claimed, after: &Claimed) {
        let name = &target.unit.name;
        if let Some(identity) = after.known.identity(name).filter(|identity| before.known.identity(name) != Some(*identity)) {
            self.learnt.insert(after.known.record.id, (identity.external_id.clone(), identity.state.clone()));
        }
    }

    /// What a person corrected in this record.
    fn edit(&self, claimed: &Claimed) -> Option<&Edit> {
        // Nearly always there are none.
        if self.edits.is_empty() { None } else { self.edits.get(&claimed.known.record.id.to_string()) }
    }

    fn settle(&mut self, claimed: &Claimed, mut outcome: Outcome) {
        let id = claimed.known.record.id;
        if let Some(letter) = self.edit(claimed).map(|edit| edit.letter) {
            let over = match &mut outcome {
                Outcome::Retry { .. } | Outcome::WaitFor { .. } => false,
                Outcome::DeadLetter(failed) => {
                    failed.parent = Some(letter);
                    // What failed before there was a payload to correct says nothing of the correction.
                    failed.stage == Stage::Delivery
                }
                Outcome::Delivered { .. } | Outcome::Unchanged | Outcome::Filtered { .. } => true,
            };
            self.over.extend(over.then(|| id.to_string()));
        }
        self.list.push(Settlement { id, version: claimed.known.record.version, learnt: self.learnt.remove(&id), outcome });
    }
}

/// Notes, not before `patience`, when something waits in the lane that is wanted soon. It never ends.
async fn watch_the_urgent(shared: &Shared, target: &Participant, fence: &LaneFence, patience: Duration, waits: &AtomicBool) -> Infallible {
    tokio::time::sleep(patience - GIVES_WAY.0).await;
    while !waits.load(Ordering::Relaxed) {
        tokio::time::sleep(GIVES_WAY.0).await;
        let wanted = shared.around.store.wanted_soon(&shared.realm, &target.unit.name, fence, shared.loaded(), shared.now()).await;
        // Where the store has no answer, the settlement will tell.
        waits.store(wanted.unwrap_or(false), Ordering::Relaxed);
    }
    std::future::pending().await
}

/// Adds what the records that these wait for wait for themselves, and so on.
async fn follow(
    shared: &Shared,
    index: usize,
    mut waits: HashMap<RecordId, Option<RecordId>>,
    longest: usize,
) -> Result<HashMap<RecordId, Option<RecordId>>, StoreError> {
    let target = &shared.program.participants[index].unit.name;
    for _ in 0..longest {
        let unknown: BTreeSet<RecordId> = waits.values().flatten().filter(|id| !waits.contains_key(id)).copied().collect();
        if unknown.is_empty() {
            break;
        }
        let unknown: Vec<RecordId> = unknown.into_iter().collect();
        let found = shared.around.store.waits_for(&shared.realm, target, &unknown).await?;
        waits.extend(unknown.into_iter().zip(found));
    }
    Ok(waits)
}

/// The records of a cycle that may be made before the one that they wait for.
async fn completers(shared: &Shared, index: usize, cycle: &[RecordId]) -> Result<BTreeSet<RecordId>, StoreError> {
    let store = &shared.around.store;
    let known = store.known_by_id(&shared.realm, cycle).await?;
    let refers = |(id, known): (&RecordId, &Option<Known>)| {
        let target = &shared.program_of(*id).participants[index];
        known.as_ref().map(|known| outbound::references(target, &known.record.document).collect()).unwrap_or_default()
    };
    let refers: Vec<Vec<(RecordId, OnCycle)>> = cycle.iter().zip(&known).map(refers).collect();
    // A document names a record that was merged by the id that it had.
    let named: Vec<RecordId> = refers.iter().flatten().map(|(record, _)| *record).collect();
    let own = store.known_by_id(&shared.realm, &named).await?;
    let own: HashMap<RecordId, RecordId> =
        named.into_iter().zip(own).filter_map(|(named, known)| Some((named, known?.record.id))).collect();
    let completes = |(place, id): (usize, &RecordId)| {
        let awaited = cycle[(place + 1) % cycle.len()];
        let resolved = refers[place].iter().filter_map(|(named, on_cycle)| Some((*own.get(named)?, *on_cycle)));
        outbound::may_be_completed(resolved, awaited).then_some(*id)
    };
    Ok(cycle.iter().enumerate().filter_map(completes).collect())
}

/// Whether a person says that the correlation field of what was split off is put right. Where the target is read, its reading tells.
fn is_put_right(target: &Participant, claimed: &Claimed) -> bool {
    claimed.origin == Origin::Replay && !target.readable()
}

/// Exponential with full jitter, between a tenth of and the whole step.
fn backoff(shared: &Shared, attempts: u32) -> Duration {
    let retry = &shared.program.unit.retry;
    let step = retry.initial.saturating_mul(2u32.saturating_pow(attempts.min(20))).min(retry.max);
    let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(shared.around.random.within(millis.div_ceil(10)..=millis))
}
