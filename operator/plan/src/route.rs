//! Planning of what a contract serves: its operations are looked up, and what is right becomes a route.
//!
//! Judged last, after the Integrations: an operation speaks of an Integration's records and participants, while an Integration needs only
//! what its contract says the records are. So an operation that is wrong harms nobody who builds on the contract.
//!
//! Assumption: an Integration serves the contract that it builds on and no other, or the records would not be what the contract says.

use crate::contract::PlannedContract;
use crate::finding::{Aspect, Check, Finding};
use crate::integration::{dependency, missing, not_permitted};
use crate::nearest;
use crate::planned::{RouteFacts, Verdict};
use crate::references::{RefKind, Target};
use crate::world::Index;
use fairlead_api::{self as api, AllowedNamespaces, ApiContract, Integration, Kind, Operation, Participant, Reason};
use fairlead_mapping::Predicate;
use fairlead_model::hash::Digest;
use fairlead_model::route::{
    Backend, Consumer, Idempotency, Issuer, OperationKind, OperationUnit, ParticipantTarget, Rate, RouteUnit, hosts_meet,
};
use fairlead_model::schema::{CanonicalSchema, FieldType};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{FieldPath, ObjectRef, realm};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a caller waits where the contract says nothing.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Under which paths which contract is served. The older contract keeps what two of them claim.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    claimed: BTreeMap<String, Vec<(ObjectRef, Vec<String>)>>,
}

impl Paths {
    /// Claims a contract's path (a broken one's too: its last good route may be served), or says who has it. Two contracts stand in each
    /// other's way where they share a host name, or one of them names none.
    fn claim(&mut self, object: &ObjectRef, facts: &RouteFacts, findings: &mut Vec<Finding>) {
        let Some(path) = &facts.path else { return };
        let known = self.claimed.entry(path.clone()).or_default();
        match known.iter().find(|(_, theirs)| hosts_meet(theirs, &facts.hostnames)) {
            Some((holder, _)) => findings.push(Finding::error(
                Reason::Conflict,
                "spec.operations",
                format!("the older ApiContract {holder} is served under {path} already"),
                "use another owner.domain, entity or major version, or other exposure.hostnames, or remove one of the two contracts",
            )),
            None => known.push((object.clone(), facts.hostnames.clone())),
        }
    }
}

/// The contracts, the older ones first; those of one age by name.
pub(crate) fn by_age(index: &Index<'_>) -> Vec<ObjectRef> {
    let mut all: Vec<_> = index.contracts.iter().collect();
    let born = |resource: &ApiContract| resource.metadata.creation_timestamp.as_ref().map(|time| time.0);
    all.sort_by(|(one, a), (another, b)| (born(a), *one).cmp(&(born(b), *another)));
    all.into_iter().map(|(object, _)| object.clone()).collect()
}

/// Judges a contract's operations: findings go to its verdict; the route comes back if nothing is wrong with the contract.
pub(crate) fn plan(
    planned: &mut PlannedContract<'_>,
    index: &Index<'_>,
    integrations: &BTreeMap<ObjectRef, Verdict>,
    paths: &mut Paths,
    names: &mut Vec<Target>,
) -> Option<RouteUnit> {
    let spec = &planned.resource.spec;
    if spec.operations.is_empty() {
        return None;
    }
    let domain = spec.owner.as_ref().and_then(|owner| owner.domain.clone());
    let major: Option<u32> = spec.major().and_then(|major| major.parse().ok());
    let facts = RouteFacts {
        path: domain.as_ref().zip(major).map(|(domain, major)| format!("/{domain}/{}/v{major}", spec.entity)),
        hostnames: spec.exposure.as_ref().map(|exposure| exposure.hostnames.clone()).unwrap_or_default(),
        consumers: spec.consumers.len(),
    };
    let object = planned.verdict.object.clone();
    let mut findings = Vec::new();
    paths.claim(&object, &facts, &mut findings);
    consumers(spec, &mut findings);

    let fields = planned.served.contract().map(fairlead_contract::Contract::fields);
    let mut judge = Judge { object: &object, index, integrations, fields, sound: planned.verdict.is_good(), findings, names };
    let operations: BTreeMap<OperationKind, OperationUnit> =
        spec.operations.iter().enumerate().filter_map(|(number, operation)| judge.operation(operation, number)).collect();
    let findings = judge.findings;

    let unit = domain.zip(major).zip(fields).zip(spec.security.as_ref()).map(|(((domain, major), fields), security)| {
        RouteUnit {
            object: object.clone(),
            generation: planned.verdict.generation,
            digest: Digest::default(),
            domain,
            entity: spec.entity.clone(),
            major,
            version: spec.version.clone(),
            schema: planned.served.text.clone(),
            fields: fields.clone(),
            hostnames: facts.hostnames.clone(),
            issuers: security.issuers.iter().map(issuer).collect(),
            max_token_age: security.max_token_age.map(|age| age.0),
            consumers: spec.consumers.iter().filter_map(|each| consumer(each, security)).collect(),
            operations,
        }
        .sealed()
    });

    let verdict = &mut planned.verdict;
    verdict.route = Some(facts);
    verdict.findings.extend(findings);
    verdict.accepted = Check::of(Aspect::Spec, &verdict.findings);
    verdict.resolved = Check::of(Aspect::References, &verdict.findings);
    unit.filter(|_| verdict.is_good())
}

fn issuer(issuer: &api::Issuer) -> Issuer {
    Issuer { issuer: issuer.issuer.clone(), jwks_uri: issuer.jwks_uri.clone(), audiences: issuer.audiences.clone() }
}

/// The issuer that gives out a consumer's client ids: the one that it names, or else the contract's only one.
fn issuer_of<'a>(consumer: &'a api::Consumer, security: &'a api::Security) -> Option<&'a str> {
    match (&consumer.issuer, security.issuers.as_slice()) {
        (Some(named), _) => Some(named),
        (None, [only]) => Some(&only.issuer),
        (None, _) => None,
    }
}

/// Nothing where its issuer is open, which is a finding.
fn consumer(consumer: &api::Consumer, security: &api::Security) -> Option<Consumer> {
    Some(Consumer {
        name: consumer.name.clone(),
        issuer: issuer_of(consumer, security)?.to_owned(),
        client_ids: consumer.client_ids.clone(),
        operations: consumer.operations.iter().map(|name| kind(*name)).collect(),
        rate: consumer.rate.map(|rate| Rate { requests: u32::try_from(rate.requests).unwrap_or(1), per: rate.per.0 }),
    })
}

fn kind(name: api::OperationName) -> OperationKind {
    match name {
        api::OperationName::List => OperationKind::List,
        api::OperationName::Get => OperationKind::Get,
        api::OperationName::Create => OperationKind::Create,
        api::OperationName::Update => OperationKind::Update,
    }
}

/// Each client of an issuer is one consumer's, and a consumer asks for what there is.
fn consumers(spec: &api::ApiContractSpec, findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<(Option<&str>, &str), &str> = BTreeMap::new();
    for (number, consumer) in spec.consumers.iter().enumerate() {
        // Without security the rules have spoken already.
        let trusted = spec.security.as_ref();
        let issuer = trusted.and_then(|security| issuer_of(consumer, security));
        if let Some(security) = trusted
            && !security.issuers.iter().any(|trusted| Some(trusted.issuer.as_str()) == issuer)
        {
            let names = security.issuers.iter().map(|trusted| trusted.issuer.as_str());
            let message = match issuer {
                // Two issuers may give the same client id to two different clients.
                None => "the contract accepts several issuers' tokens, and it is open whose client ids these are".to_owned(),
                Some(issuer) => format!("`{issuer}` is none of the contract's issuers"),
            };
            findings.push(Finding::error(
                Reason::InvalidSpec,
                format!("spec.consumers[{number}].issuer"),
                message,
                nearest::hint(issuer.unwrap_or_default(), names, "name one of spec.security.issuers"),
            ));
        }
        for (index, client) in consumer.client_ids.iter().enumerate() {
            let first = known.insert((issuer, client), &consumer.name);
            if let Some(first) = first.filter(|first| *first != consumer.name) {
                findings.push(Finding::error(
                    Reason::InvalidSpec,
                    format!("spec.consumers[{number}].clientIds[{index}]"),
                    format!("this client is the consumer `{first}` already"),
                    "list each client under one consumer",
                ));
            }
        }
        for (index, name) in consumer.operations.iter().enumerate() {
            if !spec.operations.iter().any(|operation| operation.name == *name) {
                findings.push(Finding::error(
                    Reason::InvalidSpec,
                    format!("spec.consumers[{number}].operations[{index}]"),
                    format!("the contract has no operation `{}`", kind(*name).as_str()),
                    "name one of spec.operations",
                ));
            }
        }
    }
}

/// What the operations' checks share.
struct Judge<'a> {
    object: &'a ObjectRef,
    index: &'a Index<'a>,
    integrations: &'a BTreeMap<ObjectRef, Verdict>,
    fields: Option<&'a Arc<CanonicalSchema>>,
    /// Nothing else is wrong with the contract: what breaks because of that is told once.
    sound: bool,
    findings: Vec<Finding>,
    names: &'a mut Vec<Target>,
}

impl<'a> Judge<'a> {
    fn operation(&mut self, operation: &Operation, number: usize) -> Option<(OperationKind, OperationUnit)> {
        let place = format!("spec.operations[{number}]");
        let backend = match (&operation.from, &operation.to) {
            (Some(from), None) => match &from.store.integration {
                Some(integration) => self.store(integration, &format!("{place}.from.store.integration")),
                None => Some(Backend::Store { realm: ObjectKey(realm::of_contract(self.object)) }),
            },
            (None, Some(to)) => self.participants(operation, to, &format!("{place}.to.participants")),
            // Told by the rules.
            _ => None,
        };
        let filters =
            operation.filters.iter().enumerate().filter_map(|(index, field)| self.filter(field, &format!("{place}.filters[{index}]")));
        let filters = filters.collect();
        let unit = OperationUnit {
            scopes: operation.scopes.clone(),
            backend: backend?,
            filters,
            timeout: operation.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            idempotency: match operation.idempotency {
                Some(api::Idempotency::Optional) => Idempotency::Optional,
                Some(api::Idempotency::Required) | None => Idempotency::Required,
            },
        };
        Some((kind(operation.name), unit))
    }

    fn store(&mut self, reference: &api::ObjectReference, place: &str) -> Option<Backend> {
        let target = ObjectRef::new(reference.namespace_or(&self.object.namespace), &reference.name);
        self.integration(&target, place)?;
        Some(Backend::Store { realm: ObjectKey::from(&target) })
    }

    fn participants(&mut self, operation: &Operation, to: &api::WriteTo, place: &str) -> Option<Backend> {
        let targets: Vec<_> = to
            .participants
            .iter()
            .enumerate()
            .filter_map(|(number, target)| self.participant(operation, target, &format!("{place}[{number}]")))
            .collect();
        (targets.len() == to.participants.len()).then_some(Backend::Participants { targets })
    }

    fn participant(&mut self, operation: &Operation, target: &api::TargetParticipant, place: &str) -> Option<ParticipantTarget> {
        let namespace = target.namespace.as_deref().unwrap_or(&self.object.namespace);
        let integration = ObjectRef::new(namespace, &target.integration);
        if let (Some(when), Some(fields)) = (&target.when, self.fields)
            && let Err(wrong) = Predicate::compile(when, fields)
        {
            self.findings.extend(
                wrong.into_iter().map(|(message, hint)| Finding::error(Reason::MappingInvalid, format!("{place}.when"), message, hint)),
            );
        }
        let resource = self.integration(&integration, &format!("{place}.integration"))?;
        let participants = &resource.spec.sync.participants;
        let Some(participant) = participants.iter().find(|participant| participant.name == target.participant) else {
            self.findings.push(Finding::reference(
                Reason::IntegrationNotFound,
                format!("{place}.participant"),
                format!("Integration {integration} has no participant `{}`", target.participant),
                nearest::hint(&target.participant, participants.iter().map(|each| each.name.as_str()), "name one of its participants"),
            ));
            return None;
        };
        if let Some((message, hint)) = unwritable(operation, participant) {
            self.findings.push(Finding::reference(
                Reason::UnsupportedValue,
                format!("{place}.participant"),
                format!("Integration {integration} {message}"),
                hint,
            ));
            return None;
        }
        Some(ParticipantTarget {
            when: target.when.clone(),
            integration: ObjectKey::from(&integration),
            participant: target.participant.clone(),
        })
    }

    /// The Integration, if it is there, may be used, and builds on this contract.
    fn integration(&mut self, target: &ObjectRef, place: &str) -> Option<&'a Integration> {
        self.names.push(Target::new(RefKind::Integration, target.clone()));
        let Some(resource) = self.index.integrations.get(target).copied() else {
            let known = self.index.integrations.keys().filter(|key| key.namespace == target.namespace).map(|key| key.name.as_str());
            self.findings.push(missing(self.index, Kind::Integration, target, place, Reason::IntegrationNotFound, known));
            return None;
        };
        if !AllowedNamespaces::permit(resource.spec.allowed_namespaces.as_ref(), &target.namespace, &self.object.namespace) {
            self.findings.push(not_permitted(place, "Integration", target, self.object));
            return None;
        }
        let theirs = ObjectRef::new(resource.spec.contract.namespace_or(&target.namespace), &resource.spec.contract.name);
        if theirs != *self.object {
            self.findings.push(Finding::reference(
                Reason::ContractMismatch,
                place,
                format!("Integration {target} builds on ApiContract {theirs}, so its records are not what this contract says"),
                "name an Integration on this contract",
            ));
            return None;
        }
        if self.sound
            && let Some((reason, message)) = self.integrations.get(target).and_then(Verdict::fault)
        {
            self.findings.push(dependency(place, "Integration", target, reason, message));
        }
        Some(resource)
    }

    fn filter(&mut self, field: &str, place: &str) -> Option<FieldPath> {
        let fields = self.fields?;
        let path: Option<FieldPath> = field.parse().ok();
        match path.as_ref().and_then(|path| fields.get(path)) {
            None => {
                let names: Vec<String> = fields.keys().map(ToString::to_string).collect();
                self.findings.push(Finding::error(
                    Reason::ContractMismatch,
                    place,
                    format!("the schema has no field `{field}`"),
                    nearest::hint(field, names.iter().map(String::as_str), "name a field of spec.schema"),
                ));
                None
            }
            Some(known) if matches!(known.kind, FieldType::List | FieldType::Object | FieldType::Any) || field.contains('[') => {
                self.findings.push(Finding::error(
                    Reason::UnsupportedValue,
                    place,
                    format!("`{field}` holds more than one value"),
                    "filter by a field with a single value",
                ));
                None
            }
            Some(_) => path,
        }
    }
}

/// Why a participant cannot take an operation, and what to do.
fn unwritable(operation: &Operation, participant: &Participant) -> Option<(String, String)> {
    let name = &participant.name;
    let Some(write) = &participant.write else {
        return Some((
            format!("does not write to its participant `{name}`"),
            "give the participant a write block, or name one that has it".to_owned(),
        ));
    };
    (operation.name == api::OperationName::Create && write.key.is_none()).then(|| {
        (
            format!("has no field for the record's id in its participant `{name}`, so a repeated create could make a second record"),
            "set write.key of the participant to a field that holds the id".to_owned(),
        )
    })
}
