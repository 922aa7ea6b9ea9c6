//! Looking into a target before a key is written: what became of a write that has no known outcome, whether a target that nobody reads
//! holds a new record already, and whether values on which the target itself may have the word are still what was read of them.
//!
//! A record that the target is known to hold is read by its id. A creation is searched for: by the correlation field where there is one,
//! else by the match rules with what was sent, once everything of it must have become visible. One hit is adopted, none means that it is not there,
//! several are a person's to tell apart.
//!
//! What another process was sending may still be under way after it died; it is looked up when a request can take no longer. What cannot be
//! read by key at all is sent again, if that does no harm, and is a person's to find out about if it may.

use crate::decide::outbound::{self, Failed, LookedUp, Planned, Trouble};
use crate::program::{Participant, Program};
use crate::shared::Shared;
use fairlead_model::state::{ParticipantState, Standing};
use fairlead_model::{Decimal, ErrorClass, ExternalId, FieldPath, RecordId, RemoteError, Timestamp, document};
use fairlead_store::{Claimed, Identity, Outcome, Stage, StoreError, WAITS_FOR};
use fairlead_systems::{Entity, NativeRecord, reason};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What looking a key up led to.
pub(crate) enum Found {
    /// It is as sure now as if nothing had been in flight; with what was learnt, it may be written.
    Clear(Box<Claimed>),
    /// It is the target's record of this id, entered or edited by somebody else as it seems: what the target holds is read and absorbed
    /// before anything is written.
    Adopted(Box<Claimed>),
    /// It is settled.
    Settled(Outcome),
    /// It is settled, and this is known of it from now on.
    GivenUp(Box<Claimed>, Outcome),
}

/// What a look into a target needs.
pub(crate) struct LookUp<'a> {
    pub(crate) shared: &'a Shared,
    /// By which the keys are mapped.
    pub(crate) program: &'a Program,
    /// The target's place among the participants.
    pub(crate) index: usize,
    pub(crate) target: &'a Participant,
    pub(crate) system: &'a dyn crate::system::System,
    pub(crate) entity: Option<&'a Entity>,
    /// The wait after a failure, by the attempts so far.
    pub(crate) backoff: &'a (dyn Fn(u32) -> Duration + Sync),
    /// Records whose last write came to its end in this process.
    pub(crate) ended: &'a HashSet<RecordId>,
}

impl LookUp<'_> {
    /// Whether this key is looked up before it is written.
    pub(crate) fn wants(&self, claimed: &Claimed) -> bool {
        claimed.intent.is_some() || self.searches_first(claimed)
    }

    /// What nobody reads may hold a new record already.
    fn searches_first(&self, claimed: &Claimed) -> bool {
        let record = &claimed.known.record;
        !self.target.readable()
            && self.entity.is_some_and(Entity::can_search)
            && claimed.known.identity(self.name()).is_none()
            && record.deleted_at.is_none()
            && self.target.table.accepts(&record.document) == Ok(true)
    }

    fn name(&self) -> &str {
        &self.target.unit.name
    }

    /// Looks up every key. One that cannot be looked up holds up no other; trouble that all share ends the asking, not the look-ups that went
    /// well.
    pub(crate) async fn all(&self, keys: Vec<Claimed>) -> Result<Vec<(Claimed, Found)>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        let (mut held, mut new) = (Vec::new(), Vec::new());
        for claimed in keys {
            if let Some(until) = self.under_way(&claimed) {
                found.push((claimed, Found::Settled(Outcome::Retry { at: until, attempt: false, unknown: true })));
            } else if let Some(identity) = claimed.known.identity(self.name()) {
                held.push((identity.external_id.clone(), claimed));
            } else {
                new.push(claimed);
            }
        }
        let mut trouble: Option<RemoteError> = None;
        if self.entity.is_some_and(|entity| !entity.can_read_keys()) {
            found.extend(held.into_iter().map(|(_, claimed)| self.unreadable(claimed)));
        } else if !held.is_empty() {
            let ids: Vec<ExternalId> = held.iter().map(|(id, _)| id.clone()).collect();
            let mut asked = self.read_apart(ids).await;
            let alone = !asked.read.is_empty();
            for (id, claimed) in held {
                if let Some(record) = asked.read.remove(&id) {
                    let result = match record.filter(|record| !record.deleted) {
                        None => gone(&claimed, self.name()),
                        Some(record) => self.compare(&claimed, &record),
                    };
                    found.push((claimed, result));
                } else if let Some(error) = asked.failed.get(&id) {
                    found.push(self.failed(claimed, error, alone));
                } else {
                    found.push(self.not_asked(claimed, asked.trouble.as_ref()));
                }
            }
            trouble = asked.trouble.filter(concerns_all);
        }
        let (mut failed, mut alone) = (Vec::new(), false);
        for claimed in new {
            if trouble.is_some() || failed.len() >= MOST_FAILED {
                found.push(self.not_asked(claimed, trouble.as_ref()));
                continue;
            }
            match self.creation(&claimed).await? {
                Ok(result) => {
                    alone = true;
                    found.push((claimed, result));
                }
                Err(error) => {
                    trouble = Some(error.clone()).filter(concerns_all);
                    failed.push((claimed, error));
                }
            }
        }
        found.extend(failed.into_iter().map(|(claimed, error)| self.failed(claimed, &error, alone)));
        Ok(found)
    }

    /// Looks at records right before values are written over on which the target itself may have the word, and for others that would be second ones; what
    /// may be written, and what comes of the others.
    pub(crate) async fn before_writing(
        &self,
        writes: Vec<(Claimed, Planned)>,
    ) -> Result<(Vec<(Claimed, Planned)>, Vec<(Claimed, Failed)>), StoreError> {
        let (writes, mut others) = self.without_seconds(writes).await?;
        let can_look = self.target.readable() && self.entity.is_some_and(Entity::can_read_keys);
        let looks = |(claimed, planned): &(Claimed, Planned)| {
            can_look && !outbound::own_rows(self.program, self.target, claimed, planned).is_empty()
        };
        let (own, rest): (Vec<_>, Vec<_>) = writes.into_iter().partition(looks);
        if own.is_empty() {
            return Ok((rest, others));
        }
        let ids: Vec<ExternalId> = own.iter().filter_map(|(_, planned)| planned.item.id.clone()).collect();
        let mut asked = self.read_apart(ids).await;
        let alone = !asked.read.is_empty();
        // What was looked at is written first, while the look is fresh.
        let mut ready = Vec::new();
        for (claimed, planned) in own {
            let id = planned.item.id.as_ref();
            let failed = match (id.and_then(|id| asked.read.remove(id)), id.and_then(|id| asked.failed.get(id))) {
                // What is gone, its write will tell.
                (Some(shown), _) => shown.and_then(|shown| self.edited_since(&claimed, &planned, &shown)),
                (None, Some(error)) => Some(Failed { outcome: self.trouble(&claimed, error, alone), reread: None }),
                (None, None) => Some(Failed { outcome: self.put_off(&claimed, asked.trouble.as_ref()), reread: None }),
            };
            match failed {
                Some(failed) => others.push((claimed, failed)),
                None => ready.push((claimed, planned)),
            }
        }
        ready.extend(rest);
        Ok((ready, others))
    }

    /// What nobody reads may hold a second record already of what a write makes of the one that is known: a merge has given a record the copy of
    /// another, and its own was never searched for, or its match fields were edited.
    async fn without_seconds(
        &self,
        writes: Vec<(Claimed, Planned)>,
    ) -> Result<(Vec<(Claimed, Planned)>, Vec<(Claimed, Failed)>), StoreError> {
        if self.target.readable() || !self.entity.is_some_and(Entity::can_search) {
            return Ok((writes, Vec::new()));
        }
        let of = |write: (Claimed, Planned)| (outbound::becomes(self.program, self.target, &write.0, &write.1), write);
        let (asks, rest): (Vec<_>, Vec<_>) = writes.into_iter().map(of).partition(|(rules, _)| !rules.is_empty());
        let mut ready: Vec<(Claimed, Planned)> = rest.into_iter().map(|(_, write)| write).collect();
        let (mut others, mut failed, mut trouble) = (Vec::new(), 0, None);
        for (rules, (claimed, planned)) in asks {
            let outcome = match &trouble {
                Some(trouble) => Some(self.put_off(&claimed, Some(trouble))),
                None => match self.second(&claimed, &planned, &rules).await? {
                    Ok(second) => second,
                    Err(error) => {
                        failed += 1;
                        trouble = Some(error.clone()).filter(|error| concerns_all(error) || failed >= MOST_FAILED);
                        Some(self.trouble(&claimed, &error, false))
                    }
                },
            };
            match outcome {
                Some(outcome) => others.push((claimed, Failed { outcome, reread: None })),
                None => ready.push((claimed, planned)),
            }
        }
        Ok((ready, others))
    }

    /// What becomes of a write after which another record of the target would fit the same rule; the first rule by which anything is found counts.
    async fn second(
        &self,
        claimed: &Claimed,
        planned: &Planned,
        rules: &[Vec<(FieldPath, Value)>],
    ) -> Result<Result<Option<Outcome>, RemoteError>, StoreError> {
        let own = claimed.known.identity(self.name()).map(|held| &held.external_id);
        for criteria in rules {
            let search = self.system.search(&self.target.unit.entity, &self.target.native_paths, criteria);
            let hits = match self.unless_stopped(search).await {
                Ok(hits) => hits,
                // By these fields nobody, or not this account, can search there.
                Err(error) if !may_pass(&error) || error.class == ErrorClass::Permission => continue,
                Err(error) => return Ok(Err(error)),
            };
            // It is found itself.
            if hits.iter().any(|hit| Some(&hit.id) == own) {
                return Ok(Ok(None));
            }
            // One of them may be what a creation without an answer has made, whose own look-up will know it.
            let now = self.shared.now();
            let creating =
                self.shared.around.store.creating(&self.shared.realm, self.name()).await? && now.since(claimed.since) < WAITS_FOR;
            match self.free(claimed, hits, criteria).await?.as_deref() {
                None => return Ok(Ok(None)),
                Some([]) => {}
                Some(_) if creating => {
                    return Ok(Ok(Some(Outcome::Retry { at: now.plus(WHILE_CREATING), attempt: false, unknown: false })));
                }
                Some(seconds) => {
                    let ids: Vec<ExternalId> = seconds.iter().map(|second| second.id.clone()).collect();
                    return Ok(Ok(Some(outbound::has_a_second(self.target, claimed, planned, &ids, criteria))));
                }
            }
        }
        Ok(Ok(None))
    }

    fn edited_since(&self, claimed: &Claimed, planned: &Planned, shown: &NativeRecord) -> Option<Failed> {
        let error = outbound::edited_since(self.program, self.target, claimed, planned, &shown.body)?;
        let (wait, now) = ((self.backoff)(claimed.attempts), self.shared.now());
        let trouble = Trouble { error: &error, wait, circuit_closed: true, alone: false, now };
        Some(outbound::failed(self.program, self.target, claimed, planned, &trouble, Duration::ZERO))
    }

    /// A key that was not looked up, for the trouble of others ended the asking.
    fn not_asked(&self, claimed: Claimed, trouble: Option<&RemoteError>) -> (Claimed, Found) {
        let outcome = self.put_off(&claimed, trouble);
        (claimed, Found::Settled(outcome))
    }

    fn put_off(&self, claimed: &Claimed, trouble: Option<&RemoteError>) -> Outcome {
        let told = trouble.and_then(|error| error.retry_after);
        let at = self.shared.now().plus(told.unwrap_or_else(|| (self.backoff)(0)));
        Outcome::Retry { at, attempt: false, unknown: claimed.intent.is_some() }
    }

    /// Until when a write of this key may still be under way: one that another process has sent, of whose end nothing is known here. A
    /// creation that is found by the match rules alone waits in any case, for a second one would be worse than a late one.
    fn under_way(&self, claimed: &Claimed) -> Option<Timestamp> {
        let intent = claimed.intent.as_ref()?;
        let found_by_rules = claimed.known.identity(self.name()).is_none() && self.target.key.is_none();
        if self.ended.contains(&claimed.known.record.id) && !found_by_rules {
            return None;
        }
        let visible_after = self.entity.map_or(Duration::ZERO, Entity::visible_after);
        let until = outbound::under_way_until(intent, self.system.request_timeout(), visible_after);
        (self.shared.now() < until).then_some(until)
    }

    /// A key whose record the target holds and cannot show by its id.
    fn unreadable(&self, claimed: Claimed) -> (Claimed, Found) {
        let mut unknown = Box::new(without_intent(&claimed));
        let identity = unknown.known.identities.iter_mut().find(|identity| identity.participant == self.target.unit.name);
        if let (Some(identity), Some(intent)) = (identity, &claimed.intent) {
            outbound::Sent::read(&intent.sent).unknown(self.target, &mut identity.state);
        }
        let found = if self.entity.is_some_and(Entity::idempotent_update) {
            Found::Clear(unknown)
        } else {
            // Nothing can ever be learnt of this intent, so it ends here: whoever replays the letter, or edits the record, sends it again.
            let error = RemoteError { class: ErrorClass::Data, ..outbound::outcome_unknown("its record cannot be read by id") };
            let outcome = outbound::dead_letter(self.target, &claimed, Stage::Delivery, &error, None);
            Found::GivenUp(unknown, outcome)
        };
        (claimed, found)
    }

    async fn read_apart(&self, ids: Vec<ExternalId>) -> Asked {
        let read = |ids: Vec<ExternalId>| async move {
            let read = self.system.read_keys(&self.target.unit.entity, &self.target.native_paths, &ids);
            let read = self.unless_stopped(read).await;
            (ids, read)
        };
        read_apart(ids, read).await
    }

    /// Waits for a reading call; not when the Integration stops meanwhile, for then nothing depends on it.
    async fn unless_stopped<T>(&self, call: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
        tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => {
                Err(RemoteError::new(ErrorClass::Transient, reason::BUSY, "it was not looked up: the Integration stops"))
            }
            result = call => result,
        }
    }

    fn failed(&self, claimed: Claimed, error: &RemoteError, alone: bool) -> (Claimed, Found) {
        let outcome = self.trouble(&claimed, error, alone);
        (claimed, Found::Settled(outcome))
    }

    fn trouble(&self, claimed: &Claimed, error: &RemoteError, alone: bool) -> Outcome {
        self.shared.failed(self.index, None, Some(claimed.known.record.id), error);
        let circuit_closed = self.system.circuit() == fairlead_model::report::Circuit::Closed;
        let trouble = Trouble { error, wait: (self.backoff)(claimed.attempts), circuit_closed, alone, now: self.shared.now() };
        outbound::look_up_failed(self.program, self.target, claimed, &trouble)
    }

    /// Searches for a record that was perhaps created, or that nobody has read.
    async fn creation(&self, claimed: &Claimed) -> Result<Result<Found, RemoteError>, StoreError> {
        let by_key = self.target.key.as_ref().map(|key| (key.clone(), Value::String(claimed.known.record.id.to_string())));
        // What was created by the correlation field carries it. What somebody has entered since, or what nobody has read, carries the match fields only;
        // for a record that is deleted, that would be somebody else's.
        let deleted = claimed.known.record.deleted_at.is_some();
        let rules = if by_key.is_some() && deleted { Vec::new() } else { self.rules(claimed) };
        let searches: Vec<Vec<(FieldPath, Value)>> = by_key.iter().map(|key| vec![key.clone()]).chain(rules).collect();
        if searches.is_empty() || !self.entity.is_some_and(Entity::can_search) {
            return Ok(Ok(self.unsearchable(claimed)));
        }
        for (place, criteria) in searches.iter().enumerate() {
            let search = self.system.search(&self.target.unit.entity, &self.target.native_paths, criteria);
            let hits = match self.unless_stopped(search).await {
                Ok(hits) => hits,
                // By these fields nobody can search there; by the correlation field it was not found, and that is what counts.
                Err(error) if place > 0 && by_key.is_some() && self.target.readable() && !may_pass(&error) => continue,
                Err(error) => return Ok(Err(error)),
            };
            let keyed = place == 0 && by_key.is_some();
            // What is found may be what a creation of ours has made.
            let made = claimed.intent.is_some() && (keyed || by_key.is_none());
            let free = if keyed { Some(hits) } else { self.free(claimed, hits, criteria).await? };
            let Some(hits) = free else {
                // A reader has found it since the key was claimed.
                return Ok(Ok(Found::Settled(Outcome::Retry { at: self.shared.now(), attempt: false, unknown: false })));
            };
            match hits.as_slice() {
                [] => {}
                [one] if keyed => return Ok(Ok(self.compare(claimed, one))),
                [one] if made => return Ok(Ok(self.compare_made(claimed, one))),
                [one] => return Ok(Ok(adopt(self.target, claimed, one))),
                _ => {
                    let fields: Vec<String> = criteria.iter().map(|(field, _)| field.to_string()).collect();
                    return Ok(Ok(Found::Settled(self.several(claimed, made, &fields.join(", ")))));
                }
            }
        }
        Ok(Ok(Found::Clear(Box::new(without_intent(claimed)))))
    }

    /// The match rules as searches in the target: those of which it has every field, with the values that were sent, then with those that would be
    /// written.
    fn rules(&self, claimed: &Claimed) -> Vec<Vec<(FieldPath, Value)>> {
        let sent = sent_before(claimed);
        let mut rules = sent.sought().to_vec();
        if self.program.unit.matching.is_empty() {
            return rules;
        }
        // What cannot be mapped is not written either.
        let mapped = self.target.table.to_native(&claimed.known.record.document, &|_, _| None).ok();
        let wanted = mapped.map(|mapped| outbound::searches(self.program, self.target, &mapped)).unwrap_or_default();
        rules.extend(wanted.into_iter().filter(|rule| !sent.sought().contains(rule)));
        rules
    }

    /// By what a record that was found for a key of which nobody had an id is found again, when a write over it was sent: by what that makes of it
    /// first, for then it was seen that no other record holds that.
    pub(crate) fn found_by(&self, claimed: &Claimed) -> Vec<Vec<(FieldPath, Value)>> {
        let mut rules = self.rules(claimed);
        rules.rotate_left(sent_before(claimed).sought().len());
        rules
    }

    /// The hits that hold just these values (vendors compare without regard to case) and stand for no other record; `None` if one of them
    /// stands for this very record by now.
    async fn free(
        &self,
        claimed: &Claimed,
        hits: Vec<NativeRecord>,
        criteria: &[(FieldPath, Value)],
    ) -> Result<Option<Vec<NativeRecord>>, StoreError> {
        let equal = |hit: &NativeRecord| {
            !hit.deleted && criteria.iter().all(|(field, value)| document::present(&hit.body, field).is_some_and(|held| same(held, value)))
        };
        let hits: Vec<NativeRecord> = hits.into_iter().filter(equal).collect();
        let ids: Vec<ExternalId> = hits.iter().map(|hit| hit.id.clone()).collect();
        let taken = self.shared.around.store.record_ids(&self.shared.realm, self.name(), &ids).await?;
        if taken.contains(&Some(claimed.known.record.id)) {
            return Ok(None);
        }
        Ok(Some(hits.into_iter().zip(taken).filter(|(_, record)| record.is_none()).map(|(hit, _)| hit).collect()))
    }

    /// Compares what the target shows with what was sent and with what it held before; what took effect is learnt, and the key goes on from
    /// there: if the canonical record has moved meanwhile, the difference is written, else there is nothing left to do.
    fn compare(&self, claimed: &Claimed, shown: &NativeRecord) -> Found {
        let target = self.target;
        let name = &target.unit.name;
        let sent = claimed.intent.as_ref().map(|intent| outbound::Sent::read(&intent.sent));
        let fields = outbound::canonical_of(&target.table, &shown.body);
        let mut learnt = without_intent(claimed);
        let created = claimed.known.identity(name).is_none();
        // What nobody reads is known natively, however it was made.
        let Some(sent) = sent.filter(|sent| !created || (!sent.is_empty() && target.readable())) else {
            return adopt(target, claimed, shown);
        };
        if created {
            learnt.known.identities.push(Identity {
                participant: name.clone(),
                external_id: shown.id.clone(),
                // Nothing is made where it does not belong.
                state: ParticipantState { standing: target.archives_leavers.then_some(Standing::Inside), ..ParticipantState::default() },
            });
        }
        let Some(identity) = learnt.known.identities.iter_mut().find(|identity| identity.participant == *name) else {
            return Found::Clear(Box::new(learnt));
        };
        if !target.readable() {
            sent.held_natively(target, &outbound::adopted(target, shown), &mut identity.state);
            return Found::Clear(Box::new(learnt));
        }
        let edited = if created {
            // A record found by the canonical id was made by our creation; what differs since is an edit, which is read before it is written over.
            sent.made(&fields, &mut identity.state)
        } else {
            let before = identity.state.clone();
            let looked_up = outbound::looked_up(&before, &fields, &sent);
            match looked_up {
                LookedUp::NoEffect | LookedUp::Edited => sent.no_effect(&fields, &mut identity.state),
                LookedUp::TookEffect | LookedUp::PutBack => sent.took_effect(&mut identity.state),
            }
            let refers_elsewhere = sent.references(target, &shown.body, &before, &mut identity.state);
            refers_elsewhere || matches!(looked_up, LookedUp::Edited | LookedUp::PutBack)
        };
        if edited {
            let stale_for = self.entity.map_or(Duration::ZERO, Entity::stale_for);
            // What was just made has no older state.
            if created || outbound::is_newer(&identity.state, shown.modified, stale_for, self.shared.now()) {
                outbound::glimpsed(&fields, shown.modified, &mut identity.state);
            }
            return Found::Adopted(Box::new(learnt));
        }
        Found::Clear(Box::new(learnt))
    }

    /// A record found by the match rules after a creation: ours, if it shows just what was sent, or more of it than what it was found by; what it shows
    /// otherwise, somebody has entered or emptied since.
    fn compare_made(&self, claimed: &Claimed, shown: &NativeRecord) -> Found {
        let target = self.target;
        let sent = sent_before(claimed);
        let fields = outbound::canonical_of(&target.table, &shown.body);
        let matching = &self.program.unit.matching;
        // What nobody reads has no canonical form.
        let ours = if target.readable() { sent.shows_beyond(&fields, matching) } else { sent.stands_in(target, &shown.body, matching) };
        if ours {
            return self.compare(claimed, shown);
        }
        match outbound::looked_up(&ParticipantState::default(), &fields, &sent) {
            LookedUp::TookEffect => self.compare(claimed, shown),
            // What is deleted takes nobody else's record with it.
            _ if claimed.known.record.deleted_at.is_some() => Found::Clear(Box::new(without_intent(claimed))),
            LookedUp::NoEffect | LookedUp::PutBack | LookedUp::Edited => {
                let mut found = adopt(target, claimed, shown);
                if let Found::Adopted(adopted) | Found::Clear(adopted) = &mut found
                    && let Some(identity) = adopted.known.identities.iter_mut().find(|identity| identity.participant == target.unit.name)
                {
                    // What it holds as it was sent is no entry of its own, wherever entries of their own may stay.
                    sent.echoes(&fields, &mut identity.state);
                }
                found
            }
        }
    }

    fn unsearchable(&self, claimed: &Claimed) -> Found {
        let repeatable =
            self.entity.is_some_and(|entity| entity.idempotent_create(self.target.key.as_ref().map(ToString::to_string).as_deref()));
        if claimed.intent.is_none() || repeatable {
            return Found::Clear(Box::new(without_intent(claimed)));
        }
        let error = outbound::outcome_unknown("there is nothing to look it up by");
        Found::Settled(outbound::dead_letter(self.target, claimed, Stage::Delivery, &error, None))
    }

    fn several(&self, claimed: &Claimed, made: bool, fields: &str) -> Outcome {
        let name = self.target.unit.called();
        let error = if made {
            let message =
                format!("it was sent, no answer came, and several records in {name} fit it by {fields}; remove all but one, then replay");
            RemoteError::new(ErrorClass::UnknownOutcome, "OutcomeUnknown", message)
        } else {
            let message = format!("several records in {name} fit it by {fields}; merge them or tell them apart, then replay");
            RemoteError::new(ErrorClass::Data, "AmbiguousMatch", message)
        };
        outbound::dead_letter(self.target, claimed, Stage::Delivery, &error, None)
    }
}

/// So many ids of one call that cannot be read end it: they have something in common.
const MOST_FAILED: usize = 3;
/// So soon a write that may make a second record is tried again while one of unknown outcome is being created.
const WHILE_CREATING: Duration = Duration::from_secs(15);

/// What came of asking for records by id. What is in none of the two was not asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// What there is, and what there is not.
    pub(crate) read: HashMap<ExternalId, Option<NativeRecord>>,
    /// What cannot be read, and why.
    pub(crate) failed: HashMap<ExternalId, RemoteError>,
    /// Why the asking ended before all was asked.
    pub(crate) trouble: Option<RemoteError>,
}

/// Reads records by id with `read`, such that one that cannot be read holds up no other: a call that fails is made again in halves. Trouble
/// that concerns the system as a whole ends the asking.
pub(crate) async fn read_apart<F>(ids: Vec<ExternalId>, mut read: impl FnMut(Vec<ExternalId>) -> F) -> Asked
where
    F: Future<Output = (Vec<ExternalId>, Result<Vec<Option<NativeRecord>>, RemoteError>)>,
{
    let mut asked = Asked::default();
    let mut waiting = vec![ids];
    while let Some(ids) = waiting.pop() {
        let (mut ids, result) = read(ids).await;
        match result {
            Ok(records) => asked.read.extend(ids.into_iter().zip(records)),
            Err(error) if concerns_all(&error) => {
                asked.trouble = Some(error);
                break;
            }
            Err(_) if ids.len() > 1 => {
                waiting.push(ids.split_off(ids.len() / 2));
                waiting.push(ids);
            }
            Err(error) => {
                asked.failed.extend(ids.pop().map(|id| (id, error.clone())));
                if asked.failed.len() >= MOST_FAILED {
                    asked.trouble = Some(error);
                    break;
                }
            }
        }
    }
    asked
}

/// Whether a failed call by id says nothing of the id.
fn concerns_all(error: &RemoteError) -> bool {
    matches!(error.class, ErrorClass::Auth | ErrorClass::Throttled) || outbound::held_back(error)
}

/// Whether a call that failed may go well when it is made again.
fn may_pass(error: &RemoteError) -> bool {
    !matches!(error.class, ErrorClass::Data | ErrorClass::Configuration)
}

/// Equal as they stand, or as numbers.
fn same(held: &Value, wanted: &Value) -> bool {
    let number = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).parse::<Decimal>().ok();
    held == wanted || matches!((number(held), number(wanted)), (Some(held), Some(wanted)) if held == wanted)
}

fn gone(claimed: &Claimed, target: &str) -> Found {
    let deleting = claimed.known.record.deleted_at.is_some();
    match claimed.known.identity(target) {
        Some(identity) if deleting => {
            let state = ParticipantState { deleted: true, ..identity.state.clone() };
            Found::Settled(Outcome::Delivered { external_id: identity.external_id.clone(), state, incomplete: None })
        }
        Some(_) => Found::Adopted(Box::new(without_intent(claimed))),
        None => Found::Clear(Box::new(without_intent(claimed))),
    }
}

/// Takes a record that was found for the target's form of this one. Where the target is read, its values take part by their owners before
/// anything is written over them; where it is not, what differs is written.
fn adopt(target: &Participant, claimed: &Claimed, shown: &NativeRecord) -> Found {
    let mut learnt = without_intent(claimed);
    learnt.known.identities.push(Identity {
        participant: target.unit.name.clone(),
        external_id: shown.id.clone(),
        state: outbound::adopted(target, shown),
    });
    if target.readable() { Found::Adopted(Box::new(learnt)) } else { Found::Clear(Box::new(learnt)) }
}

/// What was sent of a key, and has no known outcome.
fn sent_before(claimed: &Claimed) -> outbound::Sent {
    claimed.intent.as_ref().map(|intent| outbound::Sent::read(&intent.sent)).unwrap_or_default()
}

fn without_intent(claimed: &Claimed) -> Claimed {
    Claimed { intent: None, ..claimed.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn record(id: &ExternalId) -> NativeRecord {
        let body = fairlead_model::Document::new();
        NativeRecord { id: id.clone(), version: None, modified: None, deleted: false, merged_into: None, body, raw: None }
    }

    /// Asks for 200 records of which `bad` cannot be read for `error`; what came of it, and in how many calls.
    async fn asked(bad: &[usize], error: RemoteError) -> (Asked, usize) {
        let ids: Vec<ExternalId> = (0..200).map(|number| ExternalId(number.to_string())).collect();
        let calls = Cell::new(0);
        let asked = read_apart(ids, |ids| {
            calls.set(calls.get() + 1);
            let failed = ids.iter().any(|id| bad.iter().any(|bad| id.0 == bad.to_string()));
            let answer = if failed { Err(error.clone()) } else { Ok(ids.iter().map(|id| Some(record(id))).collect()) };
            async move { (ids, answer) }
        })
        .await;
        (asked, calls.get())
    }

    fn error(class: ErrorClass) -> RemoteError {
        RemoteError::new(class, "Reason", "message")
    }

    #[tokio::test]
    async fn one_record_that_cannot_be_read_holds_up_no_other() {
        for class in [ErrorClass::Transient, ErrorClass::Permission, ErrorClass::Configuration] {
            let (asked, calls) = asked(&[77], error(class)).await;
            assert_eq!((asked.read.len(), asked.failed.len(), asked.trouble.is_none()), (199, 1, true), "{class}");
            assert!(asked.failed.contains_key(&ExternalId("77".into())) && calls < 20, "{calls} calls");
        }
    }

    #[tokio::test]
    async fn trouble_of_the_whole_system_is_not_asked_for_each_record() {
        let all: Vec<usize> = (0..200).collect();
        let (shared, calls) = asked(&all, error(ErrorClass::Throttled)).await;
        assert_eq!((shared.failed.len(), shared.trouble.is_some(), calls), (0, true, 1));
        let busy = RemoteError::new(ErrorClass::Transient, reason::CIRCUIT_OPEN, "message");
        assert_eq!(asked(&all, busy).await.1, 1);
        let (none, calls) = asked(&all, error(ErrorClass::Transient)).await;
        assert_eq!((none.read.len(), none.failed.len(), none.trouble.is_some()), (0, MOST_FAILED, true));
        assert!(calls < 20, "{calls} calls");
    }
}
