//! The compile step: a world becomes units, verdicts and the edges between objects.
//!
//! Order matters only inwards: contracts and connectors are judged first, then each Integration against them. One broken object yields a
//! verdict of its own and harms nobody who does not need it. What contracts serve is judged last, since it speaks of Integrations. An Integration becomes a unit only if everything it needs is right; what
//! happens to one that ran before and does not plan now is decided by [`crate::merge_last_good`].

use crate::config::Config;
use crate::connector::PlannedConnector;
use crate::contract::PlannedContract;
use crate::finding::{Aspect, Check, Finding};
use crate::integration::{self, Remembered};
use crate::merge::Standing;
use crate::references::{RefKind, References, Target};
use crate::tables::Read;
use crate::world::{Index, World};
use crate::{connector, contract, route};
use fairlead_api::{FieldTable, Integration, Kind, Reason};
use fairlead_model::hash::Digest;
use fairlead_model::unit::{ConnectorUnit, LookupTable, ObjectKey, RevisionUnit, Units};
use fairlead_model::{ObjectRef, Timestamp};
use fairlead_systems::{Catalog, Definition};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the planner made of a world.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Planned {
    /// What should run, as far as it is right.
    pub units: Units,
    /// What was found of each Connector.
    pub connectors: BTreeMap<ObjectRef, Verdict>,
    /// What was found of each ApiContract.
    pub contracts: BTreeMap<ObjectRef, Verdict>,
    /// What was found of each Integration.
    pub integrations: BTreeMap<ObjectRef, Verdict>,
    /// Who needs whom.
    pub references: References,
    /// When the answer would change by itself, if it would.
    pub next_check: Option<Timestamp>,
    /// What stays true of objects whatever else is wrong with them: that they are there, whom they allow, whether they are paused.
    pub(crate) standing: Standing,
}

/// What was found of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its kind.
    pub kind: Kind,
    /// The resource.
    pub object: ObjectRef,
    /// The generation that was judged.
    pub generation: i64,
    /// Whether it is valid, together with what it is compiled against.
    pub accepted: Check,
    /// Whether everything it refers to exists, may be used and is right.
    pub resolved: Check,
    /// Everything that was found, warnings included.
    pub findings: Vec<Finding>,
    /// The Integrations that use it and may.
    pub used_by: Vec<ObjectRef>,
    /// The digest of the unit made of it, if one was.
    pub digest: Option<Digest>,
    /// Of a Connector: the system behind it.
    pub system: Option<SystemFacts>,
    /// Of an Integration: its participants' names and connectors, in order.
    pub participants: Vec<(String, ObjectRef)>,
    /// Of an ApiContract with operations: where it should be served.
    pub route: Option<RouteFacts>,
    /// Of an Integration: which revision this generation is.
    pub revision: Option<RevisionFacts>,
}

/// Which revision of its Integration a generation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionFacts {
    /// Its number, and what was declared.
    pub unit: RevisionUnit,
    /// It stands in the history, or nobody keeps one. What does not plan is not recorded: nobody could go back to it.
    pub recorded: bool,
}

/// Where a contract's operations should be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFacts {
    /// The path, if the contract says enough for one.
    pub path: Option<String>,
    /// The host names; none is any.
    pub hostnames: Vec<String>,
    /// How many consumers it names.
    pub consumers: usize,
}

/// The system behind a Connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFacts {
    /// Its name.
    pub name: String,
    /// The vendor API version that is spoken.
    pub version: String,
    /// The day on which the vendor ends that version, if it is known.
    pub end_of_life: Option<String>,
}

impl Verdict {
    pub(crate) fn of(kind: Kind, object: ObjectRef, generation: i64, findings: Vec<Finding>) -> Self {
        Self {
            kind,
            object,
            generation,
            accepted: Check::of(Aspect::Spec, &findings),
            resolved: Check::of(Aspect::References, &findings),
            findings,
            used_by: Vec::new(),
            digest: None,
            system: None,
            participants: Vec::new(),
            route: None,
            revision: None,
        }
    }

    /// Whether nothing stands in the way of running it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.accepted.is_ok() && self.resolved.is_ok()
    }

    /// Its first fault: the reason and message that its dependants and its Ready condition give.
    #[must_use]
    pub fn fault(&self) -> Option<(Reason, &str)> {
        [&self.accepted, &self.resolved].into_iter().find_map(|check| match check {
            Check::Failed { reason, message } => Some((*reason, message.as_str())),
            Check::Ok | Check::Unknown { .. } => None,
        })
    }
}

impl Planned {
    /// The verdict of one resource.
    #[must_use]
    pub fn verdict(&self, kind: Kind, object: &ObjectRef) -> Option<&Verdict> {
        match kind {
            Kind::Connector => self.connectors.get(object),
            Kind::ApiContract => self.contracts.get(object),
            Kind::Integration => self.integrations.get(object),
        }
    }

    /// All verdicts: contracts, connectors, integrations.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.contracts.values().chain(self.connectors.values()).chain(self.integrations.values())
    }

    /// Whether no verdict holds an error.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdicts().all(|verdict| verdict.fault().is_none())
    }
}

/// Plans a world. No I/O, no clock; `now` is used for nothing but what has a date.
#[must_use]
pub fn plan(world: &World, catalog: &Catalog, config: &Config, now: Timestamp) -> Planned {
    Planner::default().plan(world, catalog, config, now)
}

/// The same, remembering what was compiled, so that one edit among a thousand objects costs one compilation. Its answers are those of
/// [`plan`]; it only comes to them sooner.
#[derive(Debug, Default)]
pub struct Planner {
    memo: Memo,
}

/// What was compiled, by content. Rebuilt at each pass from what the pass used, so it holds nothing of objects that are gone.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    pub(crate) contracts: BTreeMap<Digest, (Arc<Value>, contract::Compiled)>,
    pub(crate) definitions: BTreeMap<String, Arc<Result<Definition, Vec<Finding>>>>,
    pub(crate) connectors: BTreeMap<ObjectRef, Arc<ConnectorUnit>>,
    pub(crate) integrations: BTreeMap<ObjectRef, Remembered>,
    pub(crate) field_tables: BTreeMap<String, Read<FieldTable>>,
    pub(crate) lookups: BTreeMap<String, Read<Arc<LookupTable>>>,
}

impl Planner {
    /// Plans a world.
    #[must_use]
    pub fn plan(&mut self, world: &World, catalog: &Catalog, _config: &Config, now: Timestamp) -> Planned {
        let index = Index::of(world);
        let mut fresh = Memo::default();
        let mut planned = Planned::default();

        let mut contracts: BTreeMap<ObjectRef, PlannedContract<'_>> = BTreeMap::new();
        for (object, resource) in &index.contracts {
            let mut result = contract::plan(object, resource, &self.memo, &mut fresh);
            double_check(&index, &mut result.verdict);
            planned.standing.contracts.insert(object.clone(), Some(allowed(resource.spec.allowed_namespaces.as_ref())));
            if resource.spec.operations.is_empty() {
                planned.standing.silent.insert(object.clone());
            }
            contracts.insert(object.clone(), result);
        }

        let mut connectors: BTreeMap<ObjectRef, PlannedConnector<'_>> = BTreeMap::new();
        for (object, resource) in &index.connectors {
            let mut result = connector::plan(object, resource, &index, catalog, now, &self.memo, &mut fresh);
            double_check(&index, &mut result.verdict);
            for (kind, name) in &result.names {
                planned.references.add(Target::new(RefKind::Connector, object.clone()), Target::new(*kind, name.clone()));
            }
            if let Some(unit) = result.unit.take_if(|_| result.verdict.is_good()) {
                result.verdict.digest = Some(unit.digest.clone());
                planned.units.connectors.insert(ObjectKey::from(object), unit);
            }
            planned.next_check = [planned.next_check, result.next_check].into_iter().flatten().min();
            planned.standing.connectors.insert(object.clone(), Some(allowed(resource.spec.allowed_namespaces.as_ref())));
            connectors.insert(object.clone(), result);
        }

        let mut claims = Claims::default();
        for (object, resource) in &by_age(&index) {
            let mut result = integration::plan(object, resource, &index, &contracts, &connectors, &mut self.memo, &mut fresh);
            double_check(&index, &mut result.verdict);
            result.verdict.revision = result.revision.take().map(|unit| RevisionFacts { recorded: index.is_recorded(object, &unit), unit });
            for target in &result.names {
                planned.references.add(Target::new(RefKind::Integration, object.clone()), target.clone());
            }
            claims.check(resource, &connectors, result.feeds.as_ref().map(|(realm, _)| realm.as_str()), &mut result.verdict);
            if let Some((realm, siblings)) = result.feeds {
                planned.standing.feeds.entry(realm).or_default().insert(ObjectKey::from(object), siblings);
            }
            if let Some(unit) = result.unit.take_if(|_| result.verdict.is_good()) {
                result.verdict.digest = Some(unit.digest.clone());
                planned.units.integrations.insert(ObjectKey::from(object), unit);
            }
            planned.standing.integrations.insert(object.clone(), Some(result.orders));
            planned.standing.served.insert(object.clone(), Some(allowed(resource.spec.allowed_namespaces.as_ref())));
            planned.integrations.insert(object.clone(), result.verdict);
        }

        // Only now is it known who feeds the same records.
        planned.standing.acquaint(&mut planned.units.integrations);

        let mut paths = route::Paths::default();
        for object in route::by_age(&index) {
            let Some(result) = contracts.get_mut(&object) else { continue };
            let mut names = Vec::new();
            let unit = route::plan(result, &index, &planned.integrations, &mut paths, &mut names);
            for target in names {
                planned.references.add(Target::new(RefKind::ApiContract, object.clone()), target);
            }
            if let Some(unit) = unit {
                result.verdict.digest = Some(unit.digest.clone());
                planned.units.routes.insert(ObjectKey::from(&object), Arc::new(unit));
            }
        }

        for (object, mut result) in contracts {
            result.verdict.used_by = users(&planned.references, &Target::new(RefKind::ApiContract, object.clone()), |user| {
                fairlead_api::AllowedNamespaces::permit(
                    result.resource.spec.allowed_namespaces.as_ref(),
                    &object.namespace,
                    &user.namespace,
                )
            });
            planned.contracts.insert(object, result.verdict);
        }
        for (object, mut result) in connectors {
            result.verdict.used_by = users(&planned.references, &Target::new(RefKind::Connector, object.clone()), |user| {
                fairlead_api::AllowedNamespaces::permit(
                    result.resource.spec.allowed_namespaces.as_ref(),
                    &object.namespace,
                    &user.namespace,
                )
            });
            planned.connectors.insert(object, result.verdict);
        }
        for unreadable in index.undecodable.values() {
            let object = unreadable.object.clone();
            let verdict = Verdict::of(unreadable.kind, object.clone(), unreadable.generation, unreadable.findings());
            match unreadable.kind {
                Kind::Connector => {
                    planned.standing.connectors.entry(object.clone()).or_insert(None);
                    planned.connectors.entry(object).or_insert(verdict);
                }
                Kind::ApiContract => {
                    planned.standing.contracts.entry(object.clone()).or_insert(None);
                    planned.contracts.entry(object).or_insert(verdict);
                }
                Kind::Integration => {
                    planned.standing.integrations.entry(object.clone()).or_insert(None);
                    planned.standing.served.entry(object.clone()).or_insert(None);
                    planned.integrations.entry(object).or_insert(verdict);
                }
            }
        }
        self.memo = fresh;
        planned
    }
}

fn allowed(consent: Option<&fairlead_api::AllowedNamespaces>) -> Vec<String> {
    consent.map(|consent| consent.names.clone()).unwrap_or_default()
}

fn users(references: &References, target: &Target, may: impl Fn(&ObjectRef) -> bool) -> Vec<ObjectRef> {
    references
        .needed_by(target)
        .filter(|user| user.kind == RefKind::Integration && may(&user.object))
        .map(|user| user.object.clone())
        .collect()
}

/// The Integrations, the older ones first; those of one age by name.
fn by_age<'a>(index: &Index<'a>) -> Vec<(ObjectRef, &'a Integration)> {
    let mut all: Vec<_> = index.integrations.iter().map(|(object, resource)| (object.clone(), *resource)).collect();
    let born = |resource: &Integration| resource.metadata.creation_timestamp.as_ref().map(|time| time.0);
    all.sort_by(|(one, a), (another, b)| (born(a), one).cmp(&(born(b), another)));
    all
}

/// Which Integration holds its ids in which field. Two that wrote theirs into one field would take each other's records away. And which one
/// feeds golden records from which entity: two would be two names for one thing.
#[derive(Debug, Default)]
struct Claims {
    held: BTreeMap<(ObjectRef, String, String), ObjectRef>,
    /// Which Integration feeds which golden records from which entity.
    fed: BTreeMap<(String, ObjectRef, String), ObjectRef>,
}

impl Claims {
    /// Claims the correlation fields of an Integration (a broken one too: its last good unit may run), or says who holds them.
    /// What it may not use, it cannot claim.
    fn check(
        &mut self,
        resource: &Integration,
        connectors: &BTreeMap<ObjectRef, PlannedConnector<'_>>,
        golden: Option<&str>,
        verdict: &mut Verdict,
    ) {
        for (number, participant) in resource.spec.sync.participants.iter().enumerate() {
            let (namespace, name) = participant.connector_key(&verdict.object.namespace);
            let connector = ObjectRef::new(namespace, name);
            let consent = connectors.get(&connector).and_then(|planned| planned.resource.spec.allowed_namespaces.as_ref());
            if !fairlead_api::AllowedNamespaces::permit(consent, namespace, &verdict.object.namespace) {
                continue;
            }
            if let Some(realm) = golden {
                let source = (realm.to_owned(), connector.clone(), participant.entity.clone());
                let first = self.fed.entry(source).or_insert_with(|| verdict.object.clone());
                if *first != verdict.object {
                    verdict.findings.push(Finding::error(
                        Reason::Conflict,
                        format!("spec.sync.participants[{number}].entity"),
                        format!(
                            "the older Integration {first} feeds the golden records from {} through Connector {namespace}/{name} already",
                            participant.entity
                        ),
                        "name another entity or connector, or leave that system to the other Integration",
                    ));
                    continue;
                }
            }
            let Some(key) = participant.write.as_ref().and_then(|write| write.key.as_ref()) else { continue };
            let field = (connector, participant.entity.clone(), key.native.clone());
            let holder = self.held.entry(field).or_insert_with(|| verdict.object.clone());
            if *holder != verdict.object {
                verdict.findings.push(Finding::error(
                    Reason::Conflict,
                    format!("spec.sync.participants[{number}].write.key.native"),
                    format!(
                        "the older Integration {holder} holds its ids in `{}` of {} through Connector {namespace}/{name}",
                        key.native, participant.entity
                    ),
                    "name another field, or remove one of the two Integrations",
                ));
            }
        }
        verdict.accepted = Check::of(Aspect::Spec, &verdict.findings);
    }
}

/// Files can hold an object twice; a cluster cannot.
fn double_check(index: &Index<'_>, verdict: &mut Verdict) {
    if index.is_doubled(verdict.kind, &verdict.object) {
        verdict.findings.push(Finding::error(
            Reason::Conflict,
            "metadata.name",
            format!("{} {} is given more than once; only the first was judged", verdict.kind, verdict.object),
            "remove or rename one of them",
        ));
        verdict.accepted = Check::of(Aspect::Spec, &verdict.findings);
    }
}
