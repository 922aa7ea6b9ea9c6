//! The lane of one target: from waiting keys to acknowledged writes.
//!
//! Flow: hold the lane lease; claim due keys (which marks them in flight); look up those whose last outcome is unknown; map the *current*
//! record, compare with what the target holds, write only what differs; settle. A crash between the target's effect and `settle` leaves the
//! mark, and the next holder looks before it writes.

use crate::crash;
use crate::decide::outbound::{self, LookedUp, Planned, Step};
use crate::edits;
use crate::lease::Lease;
use crate::program::Participant;
use crate::shared::{Shared, lock};
use fairlead_mapping::Table;
use fairlead_model::state::ParticipantState;
use fairlead_model::unit::InitialLoad;
use fairlead_model::{Document, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, Timestamp};
use fairlead_store::{Claim, Claimed, Fence, Identity, Intend, Origin, Outcome, Settle, Settlement, Stage, StoreError};
use fairlead_systems::{NativeRecord, WriteBatch, WriteOperation};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Keys claimed at once.
const BATCH: usize = 200;
/// Without a wake-up (retries that fall due, keys that another process entered), the lane looks for keys after so long: soon after it had
/// work, later while it is idle.
const TICK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

/// A missing permission is somebody's to give; so long the entity rests.
const REFUSED: Duration = Duration::from_secs(30);

/// The lane of one target.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    index: usize,
    lease: Lease,
    /// The account may not write this entity; until then it is not tried again.
    refused_until: Timestamp,
}

impl Lane {
    /// The lane of the participant at `index`.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let lease = shared.lane_lease(index);
        Self { shared, index, lease, refused_until: Timestamp::default() }
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
                Err(StoreError::Fenced { .. }) => {
                    self.lease.lost();
                    false
                }
                Err(error) => {
                    tracing::debug!(integration = %self.shared.realm, target = %self.target().unit.name, %error, "lane waits for the store");
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
                () = self.shared.cancel.cancelled() => {}
                () = self.shared.participants[self.index].wake_lane.notified() => {}
                () = tokio::time::sleep(self.until_due(tick).await) => tick = (tick * 2).min(TICK.1),
            }
        }
        self.lease.release().await;
    }

    /// How long to wait: until the next retry falls due, `tick` at most.
    async fn until_due(&self, tick: Duration) -> Duration {
        let due = self.shared.around.store.next_due(&self.shared.realm, &self.target().unit.name).await.ok().flatten();
        due.map_or(tick, |due| due.since(self.shared.now()).max(Duration::from_millis(250)).min(tick))
    }

    /// Claims, writes and settles one batch; how many keys were settled.
    async fn drain(&mut self) -> Result<usize, StoreError> {
        let shared = Arc::clone(&self.shared);
        if shared.program.unit.initial_load == InitialLoad::Preview || shared.guarded() || !shared.loaded() {
            return Ok(0);
        }
        let Ok(connection) = shared.connection(self.index) else { return Ok(0) };
        let Ok(system) = connection.system() else { return Ok(0) };
        if connection.blocked().is_some()
            || self.refused_until > shared.now()
            || system.circuit() == fairlead_model::report::Circuit::Open
            || system.throttled_until().is_some_and(|until| until > shared.now())
        {
            return Ok(0);
        }
        let Some(fence) = self.lease.ensure().await? else { return Ok(0) };
        let target = &shared.program.participants[self.index];
        let batch_max = connection.entity(&target.unit.entity).map_or(BATCH, |entity| entity.batch_max().max(1));
        let claim = Claim {
            realm: shared.realm.clone(),
            target: target.unit.name.clone(),
            fence: fence.clone(),
            max: batch_max.clamp(20, BATCH),
            creates: true,
            now: shared.now(),
        };
        let claimed = shared.around.store.claim(&claim).await?;
        if claimed.is_empty() {
            return Ok(0);
        }
        crash::point("lane.claimed");
        let Delivery { results, edited } = self.deliver(claimed, &connection, &fence).await?;
        let count = results.len();
        for result in &results {
            if let Outcome::DeadLetter(letter) = &result.outcome {
                tracing::warn!(integration = %shared.realm, target = %target.unit.name, record = %result.id, reason = %letter.reason, message = %letter.message, "record became a dead letter");
            }
            shared.around.metrics.settled(&shared.realm, &target.unit.name, &result.outcome);
        }
        let settle = Settle { realm: claim.realm, target: claim.target, fence, results, now: shared.now() };
        let settle = match shared.around.store.settle(&settle).await {
            Err(StoreError::Conflict(ids)) => {
                let settle = self.without_duplicates(settle, &ids).await?;
                shared.around.store.settle(&settle).await?;
                settle
            }
            settled => settled.map(|()| settle)?,
        };
        crash::point("lane.settled");
        edits::forget(shared.around.store.as_ref(), &settle.realm, &settle.target, &edited).await?;
        Ok(count)
    }

    /// The same results, with a dead letter for each record whose id in the target stands for another record by now, or that got another one.
    async fn without_duplicates(&self, mut settle: Settle, ids: &[RecordId]) -> Result<Settle, StoreError> {
        let target = self.target();
        let known = self.shared.around.store.known_by_id(&settle.realm, ids).await?;
        for known in known.into_iter().flatten() {
            let Some(result) = settle.results.iter_mut().find(|result| result.id == known.record.id) else { continue };
            let told = match &result.outcome {
                Outcome::Delivered { external_id, .. } | Outcome::Unchanged { learnt: Some((external_id, _)) } => external_id.to_string(),
                _ => continue,
            };
            let error = RemoteError::new(
                ErrorClass::Data,
                "DuplicateIdentity",
                format!(
                    "it was written as {told}, which stands for another record, or it has another id there; merge the two in {}, then replay",
                    settle.target
                ),
            );
            let claimed = Claimed { known, origin: Origin::Repair, since: settle.now, attempts: 0, intent: None };
            result.outcome = outbound::dead_letter(target, &claimed, Stage::Delivery, &error, None);
        }
        Ok(settle)
    }

    async fn deliver(
        &mut self,
        claimed: Vec<Claimed>,
        connection: &crate::connector::Connection,
        fence: &Fence,
    ) -> Result<Delivery, StoreError> {
        let shared = Arc::clone(&self.shared);
        let target = &shared.program.participants[self.index];
        let Ok(system) = connection.system() else {
            return Err(StoreError::Other("the connector went away while keys were claimed".into()));
        };
        let visible_after = connection.entity(&target.unit.entity).map_or(Duration::from_secs(1), |entity| entity.visible_after());
        let mut results = Vec::with_capacity(claimed.len());
        let mut settle = |claimed: &Claimed, outcome: Outcome| {
            results.push(Settlement { id: claimed.known.record.id, version: claimed.known.record.version, outcome });
        };

        let (unknown, clear): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|claimed| claimed.intent.is_some());
        let mut ready = clear;
        if !unknown.is_empty() {
            // Looking up many takes longer than a lease; under a lost one it would begin anew each time.
            match self.lease.during(look_up(target, system.as_ref(), unknown)).await {
                Ok(found) => {
                    crash::point("lane.looked-up");
                    for (claimed, result) in found {
                        match result {
                            Found::Clear(claimed) => ready.push(*claimed),
                            Found::Settled(outcome) => settle(&claimed, outcome),
                            Found::Edited(external_id) => {
                                shared.read_again(self.index, &external_id).await?;
                                settle(
                                    &claimed,
                                    Outcome::Retry { at: shared.now().plus(Duration::from_secs(1)), attempt: false, unknown: false },
                                );
                            }
                        }
                    }
                }
                Err((unknown, error)) => {
                    shared.failed(self.index, None, None, &error);
                    let wait = error.retry_after.unwrap_or(Duration::from_secs(1));
                    for claimed in &unknown {
                        settle(claimed, Outcome::Retry { at: shared.now().plus(wait), attempt: false, unknown: true });
                    }
                }
            }
        }

        let references: Vec<RecordId> = ready
            .iter()
            .flat_map(|claimed| outbound::references(target, &claimed.known.record.document))
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
        let never: HashMap<RecordId, RemoteError> = if missing.is_empty() {
            HashMap::new()
        } else {
            let known = shared.around.store.known_by_id(&shared.realm, &missing).await?;
            let never = |(id, known): (&RecordId, Option<fairlead_store::Known>)| {
                Some((*id, outbound::never_there(&shared.program, target, *id, known.as_ref())?))
            };
            missing.iter().zip(known).filter_map(never).collect()
        };

        let replayed = ready.iter().filter(|claimed| claimed.origin == Origin::Replay).map(|claimed| claimed.known.record.id.to_string());
        let edits = edits::waiting(shared.around.store.as_ref(), &shared.realm, &target.unit.name, replayed).await?;
        let mut writes: Vec<(Claimed, Planned)> = Vec::new();
        for claimed in ready {
            let map = |document: &Document| target.table.to_native(document, &|_, record| resolved.get(&record).cloned().flatten());
            match outbound::decide(&shared.program, target, &claimed, &map) {
                Step::Write(mut planned) => {
                    if let Some(edit) = edits.get(&claimed.known.record.id.to_string()) {
                        planned.correct(edit);
                    }
                    writes.push((claimed, *planned));
                }
                Step::Settle(outcome) => {
                    let outcome = match &outcome {
                        Outcome::WaitFor { record } => {
                            never.get(record).map_or(outcome, |error| outbound::dead_letter(target, &claimed, Stage::Outbound, error, None))
                        }
                        _ => outcome,
                    };
                    settle(&claimed, outcome);
                }
            }
        }
        if writes.is_empty() {
            return Ok(Delivery { results, edited: Vec::new() });
        }

        // A request goes out only while the lease outlives it.
        if self.lease.ensure().await?.is_none() {
            return Err(StoreError::Fenced { key: format!("lane/{}/{}", shared.realm, target.unit.name) });
        }
        let sent = writes.iter().map(|(claimed, planned)| (claimed.known.record.id, outbound::Sent::of(planned).write())).collect();
        let intend =
            Intend { realm: shared.realm.clone(), target: target.unit.name.clone(), fence: fence.clone(), sent, now: shared.now() };
        shared.around.store.intend(&intend).await?;
        crash::point("lane.intended");
        let batch =
            WriteBatch { entity: target.unit.entity.clone(), items: writes.iter().map(|(_, planned)| planned.item.clone()).collect() };
        let (validity, clock) = (self.lease.validity(), Arc::clone(&shared.around.clock));
        // If the lease is lost all the same, the next holder finds the intents.
        let answers = self.lease.during(system.write(&batch, Arc::new(move || validity.lasts(clock.now())))).await;
        crash::point("lane.written");
        if writes.iter().any(|(_, planned)| planned.item.operation == WriteOperation::Create) {
            crash::point("lane.created");
        }
        let circuit_closed = system.circuit() == fairlead_model::report::Circuit::Closed;
        let mut through: Vec<String> = Vec::new();
        for ((claimed, planned), answer) in writes.iter().zip(answers) {
            let outcome = match answer {
                Ok(written) => {
                    *lock(&shared.participants[self.index].refused) = None;
                    through.extend(edits.contains_key(&claimed.known.record.id.to_string()).then(|| claimed.known.record.id.to_string()));
                    let answered = written.answer.as_ref().map(|answer| canonical_of(&target.table, answer)).unwrap_or_default();
                    outbound::delivered(target, claimed, planned, &written, &answered, shared.now())
                }
                Err(error) => {
                    shared.failed(self.index, planned.item.id.as_ref().map(ToString::to_string), Some(claimed.known.record.id), &error);
                    if matches!(error.class, ErrorClass::Permission) {
                        self.refused_until = shared.now().plus(REFUSED);
                        *lock(&shared.participants[self.index].refused) = Some(error.clone());
                    }
                    let wait = backoff(&shared, claimed.attempts);
                    let failed = outbound::failed(
                        &shared.program,
                        target,
                        claimed,
                        planned,
                        &error,
                        wait,
                        visible_after,
                        circuit_closed,
                        shared.now(),
                    );
                    if let Some(external_id) = failed.reread {
                        shared.read_again(self.index, &external_id).await?;
                    }
                    match (failed.outcome, edits.get(&claimed.known.record.id.to_string())) {
                        (Outcome::DeadLetter(mut letter), Some(edit)) => {
                            letter.parent = Some(edit.letter);
                            Outcome::DeadLetter(letter)
                        }
                        (outcome, _) => outcome,
                    }
                }
            };
            settle(claimed, outcome);
        }
        edits::close(shared.around.store.as_ref(), &edits, &through, shared.now()).await?;
        Ok(Delivery { results, edited: through })
    }
}

/// What came of a claimed batch.
struct Delivery {
    results: Vec<Settlement>,
    /// Records that went through with a person's correction.
    edited: Vec<String>,
}

/// Exponential with full jitter, between a tenth of and the whole step.
fn backoff(shared: &Shared, attempts: u32) -> Duration {
    let retry = &shared.program.unit.retry;
    let step = retry.initial.saturating_mul(2u32.saturating_pow(attempts.min(20))).min(retry.max);
    let millis = u64::try_from(step.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(rand::random_range(millis.div_ceil(10)..=millis))
}

/// What looking up a key with an unknown outcome led to.
enum Found {
    /// It is as sure now as if nothing had been in flight; with what was learnt, it may be written.
    Clear(Box<Claimed>),
    /// It is settled.
    Settled(Outcome),
    /// Somebody else edited it meanwhile: read and absorb first.
    Edited(ExternalId),
}

/// Looks up every key whose last write may or may not have taken effect.
async fn look_up(
    target: &Participant,
    system: &dyn crate::system::System,
    unknown: Vec<Claimed>,
) -> Result<Vec<(Claimed, Found)>, (Vec<Claimed>, RemoteError)> {
    let name = &target.unit.name;
    let entity = &target.unit.entity;
    let (held, new): (Vec<_>, Vec<_>) = unknown.iter().cloned().partition(|claimed| claimed.known.identity(name).is_some());
    let mut found = Vec::with_capacity(unknown.len());

    let ids: Vec<ExternalId> = held.iter().filter_map(|claimed| claimed.known.identity(name)).map(|i| i.external_id.clone()).collect();
    if !ids.is_empty() {
        let shown = match system.read_keys(entity, &target.native_paths, &ids).await {
            Ok(shown) => shown,
            Err(error) => return Err((unknown, error)),
        };
        for (claimed, record) in held.into_iter().zip(shown) {
            let result = match record.filter(|record| !record.deleted) {
                None => gone(&claimed, name),
                Some(record) => compare(target, &claimed, &record),
            };
            found.push((claimed, result));
        }
    }
    for claimed in new {
        let Some(key) = &target.key else {
            let error = RemoteError::new(
                ErrorClass::UnknownOutcome,
                "OutcomeUnknown",
                "the creation was sent, no answer came, and this entity has no field to look it up by; see whether it exists, then replay or discard",
            );
            let outcome = outbound::dead_letter(target, &claimed, Stage::Delivery, &error, None);
            found.push((claimed, Found::Settled(outcome)));
            continue;
        };
        let criteria = [(key.clone(), Value::String(claimed.known.record.id.to_string()))];
        let hits = match system.search(entity, &target.native_paths, &criteria).await {
            Ok(hits) => hits,
            Err(error) => return Err((unknown, error)),
        };
        let result = match hits.as_slice() {
            [] => Found::Clear(Box::new(without_intent(&claimed))),
            [one] => compare(target, &claimed, one),
            _ => {
                let error = RemoteError::new(
                    ErrorClass::UnknownOutcome,
                    "OutcomeUnknown",
                    format!("several records carry the canonical id in {key}; remove all but one, then replay"),
                );
                Found::Settled(outbound::dead_letter(target, &claimed, Stage::Delivery, &error, None))
            }
        };
        found.push((claimed, result));
    }
    Ok(found)
}

fn gone(claimed: &Claimed, target: &str) -> Found {
    let deleting = claimed.known.record.deleted_at.is_some();
    match claimed.known.identity(target) {
        Some(identity) if deleting => {
            let mut state = identity.state.clone();
            state.deleted = true;
            Found::Settled(Outcome::Delivered { external_id: identity.external_id.clone(), state })
        }
        Some(identity) => Found::Edited(identity.external_id.clone()),
        None => Found::Clear(Box::new(without_intent(claimed))),
    }
}

/// Compares what the target shows with what was sent and with what it held before; what took effect is learnt, and the key goes on from
/// there: if the canonical record has moved meanwhile, the difference is written, else there is nothing left to do.
fn compare(target: &Participant, claimed: &Claimed, shown: &NativeRecord) -> Found {
    let name = &target.unit.name;
    let sent = claimed.intent.as_ref().map(|intent| outbound::Sent::read(&intent.sent)).unwrap_or_default();
    let fields = canonical_of(&target.table, &shown.body);
    let mut learnt = without_intent(claimed);
    let created = claimed.known.identity(name).is_none();
    if created {
        learnt.known.identities.push(Identity {
            participant: name.clone(),
            external_id: shown.id.clone(),
            state: ParticipantState::default(),
        });
    }
    let Some(identity) = learnt.known.identities.iter_mut().find(|identity| identity.participant == *name) else {
        return Found::Clear(Box::new(learnt));
    };
    match outbound::looked_up(&identity.state, &fields, &sent) {
        LookedUp::NoEffect if !created => {}
        // A record found by the canonical id was made by our creation; what differs since is an edit, and a read will tell.
        LookedUp::Edited if !created => return Found::Edited(shown.id.clone()),
        _ => sent.took_effect(&mut identity.state),
    }
    Found::Clear(Box::new(learnt))
}

fn without_intent(claimed: &Claimed) -> Claimed {
    Claimed { intent: None, ..claimed.clone() }
}

/// What the field table makes of a native body, leaving out references and what cannot be mapped: enough for comparing.
fn canonical_of(table: &Table, body: &Document) -> Vec<(FieldPath, Value)> {
    table.to_canonical(body).map(|inbound| inbound.fields).unwrap_or_default()
}
