//! Looking into a target before a key is written: what became of a write that has no known outcome, and whether a target that nobody reads
//! holds a new record already.
//!
//! A record that the target is known to hold is read by its id. A creation is searched for: by the correlation field where there is one,
//! else by the match rules, once everything that was sent must have become visible. One hit is adopted, none means that it is not there,
//! several are a person's to tell apart.

use crate::decide::outbound::{self, LookedUp};
use crate::program::Participant;
use crate::shared::Shared;
use fairlead_model::state::ParticipantState;
use fairlead_model::{Decimal, ErrorClass, ExternalId, FieldPath, RemoteError, document};
use fairlead_store::{Claimed, Identity, Outcome, Stage, StoreError};
use fairlead_systems::{Entity, NativeRecord};
use serde_json::Value;
use std::time::Duration;

/// What looking a key up led to.
pub(crate) enum Found {
    /// It is as sure now as if nothing had been in flight; with what was learnt, it may be written.
    Clear(Box<Claimed>),
    /// It is the target's record of this id, entered by somebody else as it seems: what the target holds is read and absorbed before
    /// anything is written.
    Adopted(Box<Claimed>),
    /// It is settled.
    Settled(Outcome),
    /// Somebody else edited it meanwhile: read and absorb first.
    Edited(ExternalId),
}

/// What a look into a target needs.
pub(crate) struct LookUp<'a> {
    pub(crate) shared: &'a Shared,
    /// The target's place among the participants.
    pub(crate) index: usize,
    pub(crate) target: &'a Participant,
    pub(crate) system: &'a dyn crate::system::System,
    pub(crate) entity: Option<&'a Entity>,
    /// The wait after a failure, by the attempts so far.
    pub(crate) backoff: &'a (dyn Fn(u32) -> Duration + Sync),
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
            && claimed.known.identity(self.name()).is_none()
            && record.deleted_at.is_none()
            && self.target.table.accepts(&record.document) == Ok(true)
    }

    fn name(&self) -> &str {
        &self.target.unit.name
    }

    /// Looks up every key. Trouble that all share ends the asking, not the look-ups that went well.
    pub(crate) async fn all(&self, keys: Vec<Claimed>) -> Result<Vec<(Claimed, Found)>, StoreError> {
        let (held, new): (Vec<_>, Vec<_>) = keys.into_iter().partition(|claimed| claimed.known.identity(self.name()).is_some());
        let mut found = Vec::with_capacity(held.len() + new.len());
        let mut trouble: Option<RemoteError> = None;
        let ids: Vec<ExternalId> =
            held.iter().filter_map(|claimed| claimed.known.identity(self.name())).map(|identity| identity.external_id.clone()).collect();
        if !ids.is_empty() {
            match self.system.read_keys(&self.target.unit.entity, &self.target.native_paths, &ids).await {
                Ok(shown) => {
                    for (claimed, record) in held.into_iter().zip(shown) {
                        let result = match record.filter(|record| !record.deleted) {
                            None => gone(&claimed, self.name()),
                            Some(record) => compare(self.target, &claimed, &record),
                        };
                        found.push((claimed, result));
                    }
                }
                Err(error) => {
                    found.extend(held.into_iter().map(|claimed| self.failed(claimed, &error)));
                    trouble = Some(error);
                }
            }
        }
        for claimed in new {
            let result = match &trouble {
                Some(error) => Err(error.clone()),
                None => self.creation(&claimed).await?,
            };
            match result {
                Ok(result) => found.push((claimed, result)),
                Err(error) => {
                    found.push(self.failed(claimed, &error));
                    trouble = Some(error).filter(|error| error.class != ErrorClass::Data);
                }
            }
        }
        Ok(found)
    }

    fn failed(&self, claimed: Claimed, error: &RemoteError) -> (Claimed, Found) {
        self.shared.failed(self.index, None, Some(claimed.known.record.id), error);
        let closed = self.system.circuit() == fairlead_model::report::Circuit::Closed;
        let wait = (self.backoff)(claimed.attempts);
        let outcome = outbound::look_up_failed(&self.shared.program, self.target, &claimed, error, wait, closed, self.shared.now());
        (claimed, Found::Settled(outcome))
    }

    /// Searches for a record that was perhaps created, or that nobody has read.
    async fn creation(&self, claimed: &Claimed) -> Result<Result<Found, RemoteError>, StoreError> {
        let by_key = self.target.key.as_ref().map(|key| (key.clone(), Value::String(claimed.known.record.id.to_string())));
        if let (None, Some(intent)) = (&by_key, &claimed.intent) {
            let visible_after = self.entity.map_or(Duration::ZERO, Entity::visible_after);
            let visible = intent.at.plus(self.system.request_timeout()).plus(visible_after);
            if self.shared.now() < visible {
                return Ok(Ok(Found::Settled(Outcome::Retry { at: visible, attempt: false, unknown: true })));
            }
        }
        // What was created by the correlation field carries it; what nobody has read may carry the match fields only.
        let rules = if by_key.is_some() && claimed.intent.is_some() { Vec::new() } else { self.rules(claimed) };
        let searches: Vec<Vec<(FieldPath, Value)>> = by_key.iter().map(|key| vec![key.clone()]).chain(rules).collect();
        if searches.is_empty() || !self.entity.is_some_and(Entity::can_search) {
            return Ok(Ok(self.unsearchable(claimed)));
        }
        for (place, criteria) in searches.iter().enumerate() {
            let hits = match self.system.search(&self.target.unit.entity, &self.target.native_paths, criteria).await {
                Ok(hits) => hits,
                Err(error) => return Ok(Err(error)),
            };
            let keyed = place == 0 && by_key.is_some();
            let hits = if keyed { hits } else { self.free(hits, criteria).await? };
            match hits.as_slice() {
                [] => {}
                [one] if keyed => return Ok(Ok(compare(self.target, claimed, one))),
                [one] if claimed.intent.is_some() => return Ok(Ok(compare_made(self.target, claimed, one))),
                [one] => return Ok(Ok(adopt(self.target, claimed, one))),
                _ => {
                    let fields: Vec<String> = criteria.iter().map(|(field, _)| field.to_string()).collect();
                    return Ok(Ok(Found::Settled(self.several(claimed, &fields.join(", ")))));
                }
            }
        }
        Ok(Ok(Found::Clear(Box::new(without_intent(claimed)))))
    }

    /// The match rules as searches in the target: those of which it has every field, with the values that would be written.
    fn rules(&self, claimed: &Claimed) -> Vec<Vec<(FieldPath, Value)>> {
        match self.target.table.to_native(&claimed.known.record.document, &|_, _| None) {
            Ok(outbound) => outbound::searches(&self.shared.program, self.target, &outbound),
            // What cannot be mapped is not written either.
            Err(_) => Vec::new(),
        }
    }

    /// The hits that hold just these values (vendors compare without regard to case) and stand for no other record.
    async fn free(&self, hits: Vec<NativeRecord>, criteria: &[(FieldPath, Value)]) -> Result<Vec<NativeRecord>, StoreError> {
        let equal = |hit: &NativeRecord| {
            !hit.deleted && criteria.iter().all(|(field, value)| document::present(&hit.body, field).is_some_and(|held| same(held, value)))
        };
        let hits: Vec<NativeRecord> = hits.into_iter().filter(equal).collect();
        let ids: Vec<ExternalId> = hits.iter().map(|hit| hit.id.clone()).collect();
        let taken = self.shared.around.store.record_ids(&self.shared.realm, self.name(), &ids).await?;
        Ok(hits.into_iter().zip(taken).filter(|(_, record)| record.is_none()).map(|(hit, _)| hit).collect())
    }

    fn unsearchable(&self, claimed: &Claimed) -> Found {
        let repeatable =
            self.entity.is_some_and(|entity| entity.idempotent_create(self.target.key.as_ref().map(ToString::to_string).as_deref()));
        if claimed.intent.is_none() || repeatable {
            return Found::Clear(Box::new(without_intent(claimed)));
        }
        let error = RemoteError::new(
            ErrorClass::UnknownOutcome,
            "OutcomeUnknown",
            "the creation was sent, no answer came, and there is nothing to look it up by; see whether it exists, then replay or discard",
        );
        Found::Settled(outbound::dead_letter(self.target, claimed, Stage::Delivery, &error, None))
    }

    fn several(&self, claimed: &Claimed, fields: &str) -> Outcome {
        let name = self.name();
        let error = if claimed.intent.is_some() {
            let message = format!(
                "the creation was sent, no answer came, and several records in {name} fit it by {fields}; remove all but one, then replay"
            );
            RemoteError::new(ErrorClass::UnknownOutcome, "OutcomeUnknown", message)
        } else {
            let message = format!("several records in {name} fit it by {fields}; merge them or tell them apart, then replay");
            RemoteError::new(ErrorClass::Data, "AmbiguousMatch", message)
        };
        outbound::dead_letter(self.target, claimed, Stage::Delivery, &error, None)
    }
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
        Some(identity) => Found::Edited(identity.external_id.clone()),
        None => Found::Clear(Box::new(without_intent(claimed))),
    }
}

/// Compares what the target shows with what was sent and with what it held before; what took effect is learnt, and the key goes on from
/// there: if the canonical record has moved meanwhile, the difference is written, else there is nothing left to do.
fn compare(target: &Participant, claimed: &Claimed, shown: &NativeRecord) -> Found {
    let name = &target.unit.name;
    let sent = claimed.intent.as_ref().map(|intent| outbound::Sent::read(&intent.sent));
    let fields = outbound::canonical_of(&target.table, &shown.body);
    let mut learnt = without_intent(claimed);
    let created = claimed.known.identity(name).is_none();
    let Some(sent) = sent.filter(|sent| !created || !sent.is_empty()) else {
        return adopt(target, claimed, shown);
    };
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

/// A record found by the match rules after a creation: ours, if it shows just what was sent.
fn compare_made(target: &Participant, claimed: &Claimed, shown: &NativeRecord) -> Found {
    let sent = claimed.intent.as_ref().map(|intent| outbound::Sent::read(&intent.sent)).unwrap_or_default();
    let fields = outbound::canonical_of(&target.table, &shown.body);
    match outbound::looked_up(&ParticipantState::default(), &fields, &sent) {
        LookedUp::TookEffect => compare(target, claimed, shown),
        LookedUp::NoEffect | LookedUp::Edited => adopt(target, claimed, shown),
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

fn without_intent(claimed: &Claimed) -> Claimed {
    Claimed { intent: None, ..claimed.clone() }
}
