//! Planning of one Integration: everything it names is looked up, every row compiled against contract and definition, and what is right
//! becomes a unit. What was compiled is thrown away: units are text.
//!
//! Findings name the place as the manifest has it. Rows that cannot even be read as paths are told once and left out of compilation, so
//! that one slip is not told twice; all other rows are still judged.

use crate::connector::PlannedConnector;
use crate::contract::PlannedContract;
use crate::finding::{Finding, Severity};
use crate::merge::Orders;
use crate::nearest;
use crate::planned::{Memo, Verdict};
use crate::references::{RefKind, Target};
use crate::tables::{self, Tables};
use crate::world::Index;
use fairlead_api::common::MAX_MERGED_ROWS;
use fairlead_api::{self as api, AllowedNamespaces, FieldRow, Integration, Kind, Participant, Phase, Reason, Validate};
use fairlead_contract::{Contract, SchemaFinding};
use fairlead_mapping as mapping;
use fairlead_model::hash::Digest;
use fairlead_model::schedule::{Schedule, ScheduleError, ScheduleText};
use fairlead_model::schema::{CanonicalSchema, FieldType, NativeSchema};
use fairlead_model::unit::{
    CanaryUnit, ContractUnit, DeletionPolicy, Guard, InitialLoad, IntegrationUnit, LookupRow, LookupTable, MasterUnit, OnCycle, OnDelete,
    OnError, OnForeignEdit, OnLeave, OnMerge, OwnershipRule, ParticipantUnit, ReadUnit, ReconcileUnit, Reference, Retry, RevisionUnit,
    RolloutUnit, RowOrigin, RowUnit, Sibling, Tie, ValuePair, WriteUnit,
};
use fairlead_model::{FieldPath, ObjectRef, realm};
use fairlead_systems::{Definition, Entity};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An Integration, judged.
#[derive(Debug, Clone)]
pub(crate) struct PlannedIntegration {
    pub(crate) verdict: Verdict,
    /// The unit, if it could be made; it counts only if the verdict is good.
    pub(crate) unit: Option<Arc<IntegrationUnit>>,
    /// What it names.
    pub(crate) names: Vec<Target>,
    pub(crate) orders: Orders,
    /// The realm of golden records that it feeds, and what it declares of itself there.
    pub(crate) feeds: Option<(String, Vec<Sibling>)>,
    /// Which revision it is.
    pub(crate) revision: Option<RevisionUnit>,
}

/// An Integration's plan and everything it was made from. While all of that is the same, so is the plan. Kept only where everything it
/// names was found: what is missing also depends on what else there is.
#[derive(Debug)]
pub(crate) struct Remembered {
    spec: api::IntegrationSpec,
    generation: i64,
    revision: RevisionUnit,
    contract: ContractInput,
    connectors: Vec<ConnectorInput>,
    tables: Tables,
    plan: PlannedIntegration,
}

/// What a plan takes from its contract.
#[derive(Debug)]
struct ContractInput {
    compiled: Arc<Result<Contract, Vec<SchemaFinding>>>,
    permitted: bool,
    facts: (String, String, Phase),
    indexed: Vec<FieldPath>,
    master: Option<MasterRules>,
    verdict: Verdict,
}

/// What a plan takes from one of its connectors.
#[derive(Debug)]
struct ConnectorInput {
    definition: Option<Arc<Result<Definition, Vec<Finding>>>>,
    permitted: bool,
    verdict: Verdict,
}

impl PartialEq for ContractInput {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.compiled, &other.compiled)
            && (self.permitted, &self.facts, &self.indexed, &self.master, &self.verdict)
                == (other.permitted, &other.facts, &other.indexed, &other.master, &other.verdict)
    }
}

impl PartialEq for ConnectorInput {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.definition, &other.definition) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (None, None) => true,
            _ => false,
        };
        same && (self.permitted, &self.verdict) == (other.permitted, &other.verdict)
    }
}

/// Plans an Integration, or remembers what came out before.
pub(crate) fn plan(
    object: &ObjectRef,
    resource: &Integration,
    index: &Index<'_>,
    contracts: &BTreeMap<ObjectRef, PlannedContract<'_>>,
    connectors: &BTreeMap<ObjectRef, PlannedConnector<'_>>,
    memo: &mut Memo,
    fresh: &mut Memo,
) -> PlannedIntegration {
    let generation = resource.metadata.generation.unwrap_or_default();
    let inputs = inputs(object, resource, contracts, connectors);
    let tables = Tables::of(object, resource, index, memo, fresh);
    let revision = index.revision(object, &resource.spec);
    let remembered = memo.integrations.remove(object).filter(|known| {
        inputs.as_ref().is_some_and(|(contract, connectors)| {
            (known.generation, &known.spec, &known.revision, &known.contract, &known.connectors, &known.tables)
                == (generation, &resource.spec, &revision, contract, connectors, &tables)
        })
    });
    if let Some(known) = remembered {
        let plan = known.plan.clone();
        fresh.integrations.insert(object.clone(), known);
        return plan;
    }
    let plan = compile(object, resource, &revision, index, contracts, connectors, &tables);
    if let Some((contract, connectors)) = inputs {
        let known = Remembered { spec: resource.spec.clone(), generation, revision, contract, connectors, tables, plan: plan.clone() };
        fresh.integrations.insert(object.clone(), known);
    }
    plan
}

fn inputs(
    object: &ObjectRef,
    resource: &Integration,
    contracts: &BTreeMap<ObjectRef, PlannedContract<'_>>,
    connectors: &BTreeMap<ObjectRef, PlannedConnector<'_>>,
) -> Option<(ContractInput, Vec<ConnectorInput>)> {
    let reference = &resource.spec.contract;
    let contract = contracts.get(&ObjectRef::new(reference.namespace_or(&object.namespace), &reference.name))?;
    let permit =
        |consent: Option<&AllowedNamespaces>, target: &ObjectRef| AllowedNamespaces::permit(consent, &target.namespace, &object.namespace);
    let spec = &contract.resource.spec;
    let contract = ContractInput {
        compiled: contract.schema_for(&object.namespace).compiled.clone(),
        permitted: permit(spec.allowed_namespaces.as_ref(), &contract.verdict.object),
        facts: (spec.entity.clone(), spec.version.clone(), spec.lifecycle.phase),
        indexed: indexed(object, contract),
        master: contract.master.clone(),
        verdict: contract.verdict.clone(),
    };
    let connectors = resource.spec.sync.participants.iter().map(|participant| {
        let (namespace, name) = participant.connector_key(&object.namespace);
        let connector = connectors.get(&ObjectRef::new(namespace, name))?;
        Some(ConnectorInput {
            definition: connector.definition.clone(),
            permitted: permit(connector.resource.spec.allowed_namespaces.as_ref(), &connector.verdict.object),
            verdict: connector.verdict.clone(),
        })
    });
    Some((contract, connectors.collect::<Option<_>>()?))
}

/// What the participants' checks share.
struct Context<'a> {
    object: &'a ObjectRef,
    index: &'a Index<'a>,
    connectors: &'a BTreeMap<ObjectRef, PlannedConnector<'a>>,
    /// The contract, where it is there and compiles.
    contract: Option<(&'a PlannedContract<'a>, &'a Contract)>,
    /// The tables in ConfigMaps.
    tables: &'a Tables,
    /// Those of them that rows look values up in, compiled.
    lookups: mapping::Lookups,
}

fn compile(
    object: &ObjectRef,
    resource: &Integration,
    revision: &RevisionUnit,
    index: &Index<'_>,
    contracts: &BTreeMap<ObjectRef, PlannedContract<'_>>,
    connectors: &BTreeMap<ObjectRef, PlannedConnector<'_>>,
    tables: &Tables,
) -> PlannedIntegration {
    let spec = &resource.spec;
    let mut findings: Vec<Finding> = spec.validate().into_iter().map(Finding::from).collect();
    let mut names = Vec::new();

    let contract_ref = ObjectRef::new(spec.contract.namespace_or(&object.namespace), &spec.contract.name);
    names.push(Target::new(RefKind::ApiContract, contract_ref.clone()));
    let contract = contract(object, &contract_ref, index, contracts, &mut findings);

    names.extend(tables.names(object).map(|map| Target::new(RefKind::ConfigMap, map)));
    let lookups: BTreeMap<String, Arc<LookupTable>> =
        tables.lookups.iter().filter_map(|(name, found)| Some((name.clone(), Arc::clone(found.table()?)))).collect();
    let context = Context { object, index, connectors, contract, tables, lookups: mapping::Lookups::of(&lookups) };
    let mut participants = Vec::new();
    let mut facts = Vec::new();
    for (number, participant) in spec.sync.participants.iter().enumerate() {
        let place = format!("spec.sync.participants[{number}]");
        let (namespace, name) = participant.connector_key(&object.namespace);
        let connector = ObjectRef::new(namespace, name);
        names.push(Target::new(RefKind::Connector, connector.clone()));
        facts.push((participant.name.clone(), connector.clone()));
        participants.push(context.participant(participant, connector, &place, &mut findings));
    }
    same_entity_twice(spec, object, &mut findings);

    let sync = &spec.sync;
    let golden = contracts.get(&contract_ref).and_then(|planned| planned.master.as_ref());
    let permitted = contracts.get(&contract_ref).is_some_and(|planned| {
        AllowedNamespaces::permit(planned.resource.spec.allowed_namespaces.as_ref(), &contract_ref.namespace, &object.namespace)
    });
    if contracts.contains_key(&contract_ref) {
        flow(sync, golden, &mut findings);
    }
    let rules = match (golden, context.contract) {
        (Some(master), _) => {
            contradictions(sync, &contract_ref, &mut findings);
            recognised(master, &participants, &mut findings);
            master.clone()
        }
        (None, Some((_, contract))) => {
            let rules = Rules {
                place: "spec.sync",
                matching: &sync.match_rules,
                ownership: &sync.ownership,
                fields: contract.fields(),
                participants: &participants,
            };
            rules.judge(sync.tie(), &mut findings)
        }
        (None, None) => MasterRules::default(),
    };

    let reconcile = reconcile(spec, &mut findings);

    let orders = Orders {
        paused: spec.run_state() == api::RunState::Paused,
        deletion_policy: match spec.deletion_policy() {
            api::DeletionPolicy::Retain => DeletionPolicy::Retain,
            api::DeletionPolicy::Delete => DeletionPolicy::Delete,
        },
    };
    let generation = resource.metadata.generation.unwrap_or_default();
    let initial_load = match sync.initial_load() {
        api::InitialLoad::Preview => InitialLoad::Preview,
        api::InitialLoad::MatchOnly => InitialLoad::MatchOnly,
        api::InitialLoad::MatchOrCreate => InitialLoad::MatchOrCreate,
    };
    let feeds = golden.filter(|_| permitted).map(|_| {
        let sibling = |participant: &Participant| Sibling {
            name: realm::full_name(object, &participant.name),
            role: participant.role.clone(),
            reads: false,
            writes: participant.write.is_some(),
            load: initial_load,
        };
        (realm::of_contract(&contract_ref), sync.participants.iter().map(sibling).collect())
    });
    let named = |participant: ParticipantUnit| {
        let name = if golden.is_some() { realm::full_name(object, &participant.name) } else { participant.name };
        Arc::new(ParticipantUnit { name, ..participant })
    };
    let participants: Option<Vec<_>> = participants.into_iter().map(|participant| participant.map(named)).collect();
    let unit = context.contract.zip(participants).map(|((planned, contract), participants)| {
        let retry = spec.retry();
        let unit = IntegrationUnit {
            object: object.clone(),
            generation,
            digest: Digest::default(),
            revision: revision.clone(),
            rollout: spec.rollout.as_ref().map(rollout),
            entity: planned.resource.spec.entity.clone(),
            contract: ContractUnit {
                object: contract_ref.clone(),
                schema: planned.schema_for(&object.namespace).text.clone(),
                fields: contract.fields().clone(),
            },
            participants,
            lookups,
            initial_load,
            matching: rules.matching,
            indexed: indexed(object, planned),
            ownership: rules.ownership,
            tie: rules.tie,
            guard: Guard {
                max_delete_percent: Some(spec.sync.max_delete_percent()),
                max_change_percent: Some(spec.sync.max_change_percent()),
                confirm: spec.sync.guard.as_ref().and_then(|guard| guard.confirm.clone()),
            },
            resync: spec.sync.resync.clone(),
            reconcile,
            retry: Retry { attempts: retry.attempts, initial: retry.initial, max: retry.max },
            keep_letters: spec.keep_letters(),
            paused: orders.paused,
            deletion_policy: orders.deletion_policy,
            master: golden.map(|_| MasterUnit::default()),
        };
        Arc::new(unit.sealed())
    });
    let mut verdict = Verdict::of(Kind::Integration, object.clone(), generation, findings);
    verdict.participants = facts;
    PlannedIntegration { verdict, unit, names, orders, feeds, revision: Some(revision.clone()) }
}

/// How a new revision takes over.
fn rollout(rollout: &api::Rollout) -> RolloutUnit {
    RolloutUnit {
        shadow: rollout.shadow.unwrap_or_default().0,
        canary: rollout.canary().map(|(percent, lasts)| CanaryUnit { percent, lasts }),
    }
}

/// Whether anything can flow, and meet. What feeds a golden record need not have its counterpart in the same Integration.
fn flow(sync: &api::SyncSpec, golden: Option<&MasterRules>, findings: &mut Vec<Finding>) {
    let all = &sync.participants;
    let mut refuse = |at: &str, message: &str, hint: &str| {
        findings.push(Finding::error(Reason::InvalidSpec, format!("spec.sync.{at}"), message, hint));
    };
    if golden.is_none() && all.len() < 2 {
        refuse(
            "participants",
            "a sync needs at least two participants",
            "add the system that should be kept in step with this one; one alone can feed a contract whose master.scope is Contract",
        );
    } else if golden.is_none() && !all.iter().any(|p| p.read.is_some() && all.iter().any(|q| q.name != p.name && q.write.is_some())) {
        refuse(
            "participants",
            "nothing can flow: no participant reads while another one writes",
            "give one participant a read block and another one a write block",
        );
    }
    let unmatched = golden.map_or(sync.match_rules.is_empty(), |master| master.matching.is_empty());
    if sync.initial_load == Some(api::InitialLoad::MatchOnly) && unmatched {
        let hint =
            if golden.is_some() { "the contract needs spec.master.match for that" } else { "add match rules, such as match: [[taxId]]" };
        refuse("initialLoad", "MatchOnly without match rules would never bring two records together", hint);
    }
}

/// What the contract says for all its Integrations, none of them says for itself.
fn contradictions(sync: &api::SyncSpec, contract: &ObjectRef, findings: &mut Vec<Finding>) {
    let said = [
        ("match", !sync.match_rules.is_empty()),
        ("onAmbiguous", sync.on_ambiguous.is_some()),
        ("ownership", !sync.ownership.is_empty()),
        ("tie", sync.tie.is_some()),
    ];
    for (field, _) in said.into_iter().filter(|(_, said)| *said) {
        findings.push(Finding::error(
            Reason::InvalidSpec,
            format!("spec.sync.{field}"),
            format!("ApiContract {contract} says this for all its Integrations, since they feed one golden record"),
            format!("remove it here; what is to hold stands in the contract's spec.master.{field}"),
        ));
    }
}

/// The contract's match rules as far as they concern these participants.
fn recognised(master: &MasterRules, participants: &[Option<ParticipantUnit>], findings: &mut Vec<Finding>) {
    let fields: BTreeSet<&FieldPath> = master.matching.iter().flatten().collect();
    for (number, participant) in participants.iter().enumerate() {
        let Some(participant) = participant.as_ref().filter(|participant| participant.read.is_some()) else { continue };
        let place = format!("spec.sync.participants[{number}].fields");
        for field in &fields {
            match participant.rows.iter().find(|row| row.canonical.as_ref() == Some(*field)) {
                None => findings.push(
                    Finding::error(
                        Reason::ContractMismatch,
                        &place,
                        format!("no row fills `{field}`, so none of its records is found by the contract's match rule for it"),
                        "add a row for it, if the system holds it",
                    )
                    .with_severity(Severity::Warning),
                ),
                Some(row) if row.reference.is_some() => findings.push(Finding::error(
                    Reason::ContractMismatch,
                    &place,
                    format!(
                        "`{field}` is a reference here, which is known only after records are recognised, and the contract matches by it"
                    ),
                    "fill it with a value of the record itself, or have the contract match by another field",
                )),
                Some(_) => {}
            }
        }
    }
}

/// When it is reconciled. What is a schedule, only its parser can say.
fn reconcile(spec: &api::IntegrationSpec, findings: &mut Vec<Finding>) -> Option<ReconcileUnit> {
    let reconcile = spec.reconcile.as_ref()?;
    let schedule = ScheduleText { cron: reconcile.schedule.cron.clone(), time_zone: reconcile.schedule.time_zone().to_owned() };
    if let Err(error) = Schedule::parse(&schedule) {
        let (at, hint) = match error {
            ScheduleError::TimeZone(_) => ("timeZone", "write a name such as Europe/Berlin or UTC"),
            _ => ("cron", "write minute, hour, day of month, month and day of week, such as `0 2 * * *`"),
        };
        findings.push(Finding::error(Reason::InvalidSpec, format!("spec.reconcile.schedule.{at}"), error.to_string(), hint));
        return None;
    }
    let repair = reconcile.policy() == api::ReconcilePolicy::Repair;
    Some(ReconcileUnit { schedule, repair, max_repair_percent: reconcile.max_repair_percent() })
}

/// The fields by which the contract's callers filter this Integration's records. What is wrong with one is the contract's matter.
fn indexed(object: &ObjectRef, contract: &PlannedContract<'_>) -> Vec<FieldPath> {
    let own = &contract.verdict.object.namespace;
    // Golden records hold the fields of every unit, and each of their Integrations writes what they are found by.
    let schema = if contract.master.is_some() { &contract.served } else { contract.schema_for(&object.namespace) };
    let compiled = schema.contract();
    let is_field = |path: &FieldPath| {
        let field = compiled.and_then(|compiled| compiled.fields().get(path));
        path.list_root().is_none() && field.is_some_and(|field| !matches!(field.kind, FieldType::List | FieldType::Object | FieldType::Any))
    };
    let reads = |operation: &&api::Operation| match operation.from.as_ref().map(|from| &from.store.integration) {
        Some(Some(reference)) => reference.name == object.name && reference.namespace_or(own) == object.namespace,
        Some(None) => contract.master.is_some(),
        None => false,
    };
    let operations = contract.resource.spec.operations.iter().filter(reads);
    let mut fields: Vec<FieldPath> = operations.flat_map(|operation| &operation.filters).filter_map(|field| field.parse().ok()).collect();
    fields.retain(is_field);
    fields.sort();
    fields.dedup();
    fields
}

/// The contract, if it is there, may be used, is published and compiles.
fn contract<'a>(
    object: &ObjectRef,
    contract_ref: &ObjectRef,
    index: &Index<'_>,
    contracts: &'a BTreeMap<ObjectRef, PlannedContract<'a>>,
    findings: &mut Vec<Finding>,
) -> Option<(&'a PlannedContract<'a>, &'a Contract)> {
    const PLACE: &str = "spec.contract";
    let Some(planned) = contracts.get(contract_ref) else {
        findings.push(missing(
            index,
            Kind::ApiContract,
            contract_ref,
            PLACE,
            Reason::ContractNotFound,
            contracts.keys().filter(|key| key.namespace == contract_ref.namespace).map(|key| key.name.as_str()),
        ));
        return None;
    };
    let resource = planned.resource;
    if !AllowedNamespaces::permit(resource.spec.allowed_namespaces.as_ref(), &contract_ref.namespace, &object.namespace) {
        findings.push(not_permitted(PLACE, "ApiContract", contract_ref, object));
        return None;
    }
    if let Some((reason, message)) = planned.verdict.fault() {
        findings.push(dependency(PLACE, "ApiContract", contract_ref, reason, message));
    } else if resource.spec.lifecycle.phase == Phase::Draft {
        findings.push(Finding::reference(
            Reason::DependencyNotReady,
            PLACE,
            format!("ApiContract {contract_ref} is a draft, which may change freely"),
            "set its spec.lifecycle.phase to Published when others may build on it",
        ));
    }
    planned.schema_for(&object.namespace).contract().map(|contract| (planned, contract))
}

pub(crate) fn not_permitted(place: &str, kind: &str, target: &ObjectRef, object: &ObjectRef) -> Finding {
    Finding::reference(
        Reason::RefNotPermitted,
        place,
        format!("{kind} {target} does not allow the namespace {}", object.namespace),
        format!("ask its owner to add `{}` to its spec.allowedNamespaces.names", object.namespace),
    )
}

pub(crate) fn dependency(place: &str, kind: &str, target: &ObjectRef, reason: Reason, message: &str) -> Finding {
    Finding::reference(
        Reason::DependencyNotReady,
        place,
        format!("{kind} {target} cannot be used: {reason}: {message}"),
        "repair it; this resource follows by itself",
    )
}

pub(crate) fn missing<'a>(
    index: &Index<'_>,
    kind: Kind,
    target: &ObjectRef,
    place: &str,
    reason: Reason,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Finding {
    if let Some(unreadable) = index.unreadable(kind, target) {
        return dependency(place, kind.name(), target, Reason::InvalidSpec, &unreadable.message());
    }
    if !index.complete {
        return Finding::reference(
            reason,
            place,
            format!("{kind} {target} is not among the given files"),
            "give its file too to have it checked",
        )
        .with_severity(Severity::Unknown);
    }
    let otherwise = format!("create it, or correct the name; in the namespace {} there is none yet", target.namespace);
    Finding::reference(reason, place, format!("{kind} {target} does not exist"), nearest::hint(&target.name, names, &otherwise))
}

/// Two participants on one entity of one connector would be two names for one thing.
fn same_entity_twice(spec: &api::IntegrationSpec, object: &ObjectRef, findings: &mut Vec<Finding>) {
    let participants = &spec.sync.participants;
    for (number, participant) in participants.iter().enumerate() {
        let same = |other: &&Participant| {
            other.entity == participant.entity && other.connector_key(&object.namespace) == participant.connector_key(&object.namespace)
        };
        if let Some(first) = participants.iter().take(number).find(same) {
            findings.push(Finding::error(
                Reason::InvalidSpec,
                format!("spec.sync.participants[{number}].entity"),
                format!("the participant `{}` already stands for {} of this connector", first.name, participant.entity),
                "use another entity or connector, or merge the two participants",
            ));
        }
    }
}

impl Context<'_> {
    fn participant(
        &self,
        participant: &Participant,
        connector: ObjectRef,
        place: &str,
        findings: &mut Vec<Finding>,
    ) -> Option<ParticipantUnit> {
        let Rows { units: rows, places, whole } = self.rows(participant, place, findings);
        let definition = self.connector(&connector, &format!("{place}.connector"), findings)?;
        let Some(entity) = definition.entity(&participant.entity) else {
            let names: Vec<&str> = definition.entity_names().collect();
            findings.push(Finding::error(
                Reason::InvalidSpec,
                format!("{place}.entity"),
                format!("the system `{}` has no entity `{}`", definition.system(), participant.entity),
                nearest::hint(
                    &participant.entity,
                    names.iter().copied(),
                    "name an entity of the system, or declare it in a definition that extends it",
                ),
            ));
            return None;
        };
        let native = entity.native_schema();
        let rows = typed_constants(rows, native);
        self.directions(participant, entity, definition.system(), place, findings);
        if let Some(write) = &participant.write {
            self.key(write, &participant.entity, entity, definition.system(), place, findings);
        }
        // Where no row could be read, that is told already.
        let table = (whole || !rows.is_empty()) && self.table(participant, &rows, &places, native, place, findings);
        let write = participant.write.as_ref().map(|write| WriteUnit {
            key: write.key.as_ref().map(|key| key.native.clone()),
            when: write.when.clone(),
            on_delete: match write.on_delete() {
                api::OnDelete::Keep => OnDelete::Keep,
                api::OnDelete::Archive => OnDelete::Archive,
                api::OnDelete::Delete => OnDelete::Delete,
            },
            on_merge: match write.on_merge() {
                api::OnMerge::Keep => OnMerge::Keep,
                api::OnMerge::Archive => OnMerge::Archive,
            },
            on_leave: match write.on_leave() {
                api::OnLeave::Keep => OnLeave::Keep,
                api::OnLeave::Archive => OnLeave::Archive,
            },
            on_foreign_edit: match write.on_foreign_edit() {
                api::OnForeignEdit::Restore => OnForeignEdit::Restore,
                api::OnForeignEdit::Keep => OnForeignEdit::Keep,
            },
        });
        (table && whole).then(|| ParticipantUnit {
            name: participant.name.clone(),
            role: participant.role.clone(),
            connector,
            entity: participant.entity.clone(),
            native: native.clone(),
            read: participant.poll_every().map(|every| ReadUnit { every }),
            write,
            rows,
        })
    }

    /// The definition behind a connector that is there, may be used and is right.
    fn connector(&self, connector: &ObjectRef, place: &str, findings: &mut Vec<Finding>) -> Option<&Definition> {
        let Some(planned) = self.connectors.get(connector) else {
            let names = self.connectors.keys().filter(|key| key.namespace == connector.namespace).map(|key| key.name.as_str());
            findings.push(missing(self.index, Kind::Connector, connector, place, Reason::ConnectorNotFound, names));
            return None;
        };
        if !AllowedNamespaces::permit(planned.resource.spec.allowed_namespaces.as_ref(), &connector.namespace, &self.object.namespace) {
            findings.push(not_permitted(place, "Connector", connector, self.object));
            return None;
        }
        if let Some((reason, message)) = planned.verdict.fault() {
            findings.push(dependency(place, "Connector", connector, reason, message));
        } else if !planned.verdict.is_good() {
            findings.push(
                Finding::reference(
                    Reason::DependencyNotReady,
                    place,
                    format!("Connector {connector} needs something that is not among the given files"),
                    "give its files too to have this participant checked",
                )
                .with_severity(Severity::Unknown),
            );
        }
        planned.definition()
    }

    /// The rows as units, with their places: the participant's own, then those of its shared tables that no later table and no row of its
    /// own takes the place of. Those that cannot be read are told and left out.
    fn rows(&self, participant: &Participant, place: &str, findings: &mut Vec<Finding>) -> Rows {
        let mut rows = Rows { units: Vec::new(), places: Vec::new(), whole: true };
        // A row without a canonical field (a constant) is known by what it writes.
        let known_by = |row: &'_ FieldRow| if row.canonical.is_empty() { format!(" {}", row.native) } else { row.canonical.clone() };
        let own: BTreeSet<String> = participant.fields.iter().map(known_by).collect();
        for (number, row) in participant.fields.iter().enumerate() {
            self.row(row, RowPlace { place: format!("{place}.fields[{number}]"), row: number, table: None }, &mut rows, findings);
        }
        let mut later: BTreeSet<String> = BTreeSet::new();
        let mut shared: Vec<(&FieldRow, RowPlace)> = Vec::new();
        for (number, reference) in participant.fields_from.iter().enumerate().rev() {
            let place = format!("{place}.fieldsFrom[{number}]");
            let map = ObjectRef::new(&self.object.namespace, &reference.name);
            let Some(found) = self.tables.fields.get(&reference.name) else { continue };
            tables::field_table(&map, found, &place, self.index, findings);
            let Some(table) = found.table() else {
                rows.whole = false;
                continue;
            };
            let names: BTreeSet<String> = table.fields.iter().map(known_by).collect();
            let kept = table.fields.iter().enumerate().filter(|(_, row)| {
                let name = known_by(row);
                !own.contains(&name) && !later.contains(&name)
            });
            let kept: Vec<_> = kept.map(|(row, unit)| (unit, RowPlace { place: place.clone(), row, table: Some(map.clone()) })).collect();
            shared.splice(0..0, kept);
            later.extend(names);
        }
        for (row, place) in shared {
            self.row(row, place, &mut rows, findings);
        }
        if rows.units.len() > MAX_MERGED_ROWS {
            let message =
                format!("the table has {} rows, those of shared tables among them, more than {MAX_MERGED_ROWS}", rows.units.len());
            findings.push(Finding::error(
                Reason::MappingInvalid,
                format!("{place}.fieldsFrom"),
                message,
                "take rows out of the shared tables",
            ));
            rows.whole = false;
        }
        rows
    }

    fn row(&self, row: &FieldRow, place: RowPlace, rows: &mut Rows, findings: &mut Vec<Finding>) {
        let before = findings.len();
        let mut path = |column: &str, text: &str| -> Option<FieldPath> {
            if text.is_empty() {
                return None;
            }
            let told = |error| {
                let message = format!("`{text}` is no field path: {error}");
                findings.push(place.finding(
                    Some(column),
                    Reason::MappingInvalid,
                    &message,
                    "write it like address.country or contacts[].email",
                ));
            };
            text.parse().map_err(told).ok()
        };
        let paths = [path("canonical", &row.canonical), path("native", &row.native), path("key", row.key.as_deref().unwrap_or_default())];
        // A field of another unit is no slip of the pen.
        let extended = self.contract.is_some_and(|(planned, _)| !planned.resource.spec.extensions.is_empty());
        if let Some(unit) = paths[0].as_ref().filter(|_| extended).and_then(|path| other_unit(path, &self.object.namespace)) {
            let own = &self.object.namespace;
            let message =
                format!("{unit} belongs to the Integrations of the namespace {}; this one is in {own}", unit.trim_start_matches("ext."));
            let hint = format!("map a field of the contract itself, or of ext.{own}");
            findings.push(place.finding(Some("canonical"), Reason::MappingInvalid, &message, &hint));
        }
        let unreadable = findings.len() > before;
        let lookup = row.lookup.as_ref().map(|lookup| self.lookup(lookup, &place, findings));
        rows.whole &= !unreadable && lookup.as_ref().is_none_or(Option::is_some);
        if unreadable {
            return;
        }
        let origin = place.table.as_ref().map(|map| RowOrigin { table: map.name.clone(), row: place.row });
        // A row whose table is missing is told once and not again as one that looks nothing up.
        if let Some(None) = lookup {
            return;
        }
        rows.units.push(row_unit(row, origin, lookup.flatten(), paths));
        rows.places.push(place);
    }

    fn lookup(&self, lookup: &api::Lookup, place: &RowPlace, findings: &mut Vec<Finding>) -> Option<LookupRow> {
        let found = self.tables.lookups.get(&lookup.name)?;
        let map = ObjectRef::new(&self.object.namespace, &lookup.name);
        let at = if place.table.is_none() { format!("{}.lookup", place.place) } else { place.place.clone() };
        let before = findings.len();
        tables::lookup_table(&map, found, &at, self.index, findings);
        for finding in &mut findings[before..] {
            finding.row = Some(place.row);
            finding.message = format!("{}{}", place.said(Some("lookup")), finding.message);
        }
        let otherwise = lookup.otherwise.as_ref();
        Some(LookupRow {
            name: lookup.name.clone(),
            digest: found.table()?.digest.clone(),
            canonical: otherwise.and_then(|otherwise| otherwise.canonical.clone()),
            native: otherwise.and_then(|otherwise| otherwise.native.clone()),
        })
    }

    /// What is asked of the entity, it must be able to do.
    fn directions(&self, participant: &Participant, entity: &Entity, system: &str, place: &str, findings: &mut Vec<Finding>) {
        let name = &participant.entity;
        let mut refuse = |place: String, what: &str, hint: &str| {
            findings.push(Finding::error(
                Reason::UnsupportedValue,
                place,
                format!("the definition of `{system}` cannot {what} {name}"),
                hint,
            ));
        };
        if participant.read.is_some() && !entity.readable() {
            refuse(
                format!("{place}.read"),
                "read",
                "remove the read block, or declare how it is read in a definition that extends the system",
            );
        }
        if let Some(write) = &participant.write {
            if !entity.writable() {
                refuse(
                    format!("{place}.write"),
                    "write",
                    "remove the write block, or declare how it is written in a definition that extends the system",
                );
            }
            match write.on_delete() {
                api::OnDelete::Archive if !entity.can_archive() => {
                    refuse(
                        format!("{place}.write.onDelete"),
                        "archive",
                        "use Keep or Delete, or declare `archive` in a definition that extends the system",
                    );
                }
                api::OnDelete::Delete if !entity.can_delete() => {
                    refuse(
                        format!("{place}.write.onDelete"),
                        "delete",
                        "use Keep or Archive, or declare `delete` in a definition that extends the system",
                    );
                }
                _ => {}
            }
            if write.on_merge() == api::OnMerge::Archive && !entity.can_archive() {
                refuse(
                    format!("{place}.write.onMerge"),
                    "archive",
                    "use Keep, or declare `archive` in a definition that extends the system",
                );
            }
            if write.on_leave() == api::OnLeave::Archive {
                if !entity.can_archive() {
                    refuse(
                        format!("{place}.write.onLeave"),
                        "archive",
                        "use Keep, or declare `archive` in a definition that extends the system",
                    );
                } else if !entity.can_reactivate() {
                    refuse(
                        format!("{place}.write.onLeave"),
                        "make active again an archived",
                        "use Keep, or declare `reactivate` in a definition that extends the system",
                    );
                }
            }
        }
    }

    /// The correlation field, as far as the system is concerned: it must be one on which records can be found and upserted. (That it is
    /// there, takes text, is long enough and belongs to nobody else is judged with the field table.)
    fn key(&self, write: &api::WriteSpec, name: &str, entity: &Entity, system: &str, place: &str, findings: &mut Vec<Finding>) {
        let Some(key) = &write.key else {
            if entity.creatable() {
                findings.push(
                    Finding::error(
                        Reason::InvalidSpec,
                        format!("{place}.write.key"),
                        format!("without a field that holds Fairlead's id, a creation in {name} whose answer is lost must be searched for before it is tried again"),
                        "name a field that the system keeps unique, such as an external id",
                    )
                    .with_severity(Severity::Warning),
                );
            }
            return;
        };
        let path = key.native.parse::<FieldPath>().ok().filter(|path| entity.native_schema().contains_key(path));
        if path.is_some_and(|path| !entity.key_fields().contains(&path)) {
            findings.push(Finding::error(
                Reason::InvalidSpec,
                format!("{place}.write.key.native"),
                format!("the definition of `{system}` does not say that {name} can be found and upserted by `{}`", key.native),
                "declare the field with `correlation: true` in the definition if the system keeps it unique, or name another field",
            ));
        }
    }

    /// Whether the field table compiles, in the directions that are used.
    fn table(
        &self,
        participant: &Participant,
        rows: &[RowUnit],
        places: &[RowPlace],
        native: &NativeSchema,
        place: &str,
        findings: &mut Vec<Finding>,
    ) -> bool {
        let Some((planned, contract)) = self.contract else { return false };
        let write = participant.write.as_ref();
        let compiled = mapping::Table::compile(&mapping::TableSource {
            rows,
            lookups: &self.lookups,
            native,
            canonical: contract.fields(),
            entity: &planned.resource.spec.entity,
            key: write.and_then(|write| write.key.as_ref()).map(|key| key.native.as_str()),
            when: write.and_then(|write| write.when.as_deref()),
            read: participant.read.is_some(),
            write: write.is_some(),
        });
        let found = match &compiled {
            Ok(table) => table.warnings(),
            Err(found) => found.as_slice(),
        };
        findings.extend(found.iter().map(|finding| row_finding(finding, places, place)));
        compiled.is_ok()
    }
}

/// The unit (`ext.europe`) that a canonical field belongs to, if it is not the one of `namespace`.
fn other_unit(path: &FieldPath, namespace: &str) -> Option<String> {
    let [ext, unit, ..] = path.segments() else { return None };
    (ext.name() == fairlead_contract::EXTENSIONS && unit.name() != namespace).then(|| format!("{}.{}", ext.name(), unit.name()))
}

/// The rows of a participant.
struct Rows {
    units: Vec<RowUnit>,
    /// Where each stands.
    places: Vec<RowPlace>,
    /// Whether all could be read.
    whole: bool,
}

/// Where a row stands.
struct RowPlace {
    /// The row's field, or that of the reference to its table.
    place: String,
    /// Its index among the rows there.
    row: usize,
    /// The shared table, if it stands in one.
    table: Option<ObjectRef>,
}

impl RowPlace {
    /// Names the row where the field path does not.
    fn said(&self, column: Option<&str>) -> String {
        let column = column.map(|column| format!(".{column}")).unwrap_or_default();
        self.table.as_ref().map(|map| format!("ConfigMap {map}, fields[{}]{column}: ", self.row)).unwrap_or_default()
    }

    fn finding(&self, column: Option<&str>, reason: Reason, message: &str, hint: &str) -> Finding {
        let field = match (column, &self.table) {
            (Some(column), None) => format!("{}.{column}", self.place),
            _ => self.place.clone(),
        };
        Finding::error(reason, field, format!("{}{message}", self.said(column)), hint).in_row(self.row)
    }
}

/// A finding of the mapping room, told in the places of the manifest or the shared table.
fn row_finding(found: &mapping::Finding, places: &[RowPlace], place: &str) -> Finding {
    let hint = found.hint.as_deref().unwrap_or_default();
    let severity = match found.severity {
        mapping::Severity::Error => Severity::Error,
        mapping::Severity::Warning => Severity::Warning,
    };
    let told = match (found.row.and_then(|row| places.get(row)), found.column) {
        (Some(row), mapping::Column::Row) => row.finding(None, Reason::MappingInvalid, &found.message, hint),
        (Some(row), column) => row.finding(Some(&column.to_string()), Reason::MappingInvalid, &found.message, hint),
        (None, column) => {
            let place = match column {
                mapping::Column::When => format!("{place}.write.when"),
                mapping::Column::Key => format!("{place}.write.key.native"),
                _ => format!("{place}.fields"),
            };
            Finding::error(Reason::MappingInvalid, place, found.message.clone(), hint)
        }
    };
    told.with_severity(severity)
}

fn row_unit(
    row: &FieldRow,
    origin: Option<RowOrigin>,
    lookup: Option<LookupRow>,
    [canonical, native, key]: [Option<FieldPath>; 3],
) -> RowUnit {
    RowUnit {
        canonical,
        native,
        value: row.value.clone().map(Value::String),
        values: row.values.iter().map(|pair| ValuePair { canonical: pair.canonical.clone(), native: pair.native.clone() }).collect(),
        to_canonical: row.to_canonical.clone(),
        from_canonical: row.from_canonical.clone(),
        on_error: match row.on_error {
            None | Some(api::OnError::DeadLetter) => OnError::DeadLetter,
        },
        reference: row.reference.as_ref().map(|reference| Reference {
            entity: reference.entity.clone(),
            on_cycle: match reference.on_cycle.unwrap_or_default() {
                api::OnCycle::DeadLetter => OnCycle::DeadLetter,
                api::OnCycle::Complete => OnCycle::Complete,
            },
        }),
        lookup,
        key,
        origin,
    }
}

/// Constants are written as text; a field that holds a flag or a whole number gets one. What does not fit stays text, and the compiler says so.
fn typed_constants(rows: Vec<RowUnit>, native: &NativeSchema) -> Vec<RowUnit> {
    rows.into_iter()
        .map(|mut row| {
            let kind = row.native.as_ref().and_then(|path| native.get(path)).map(|field| field.kind);
            if let Some(Value::String(text)) = &row.value {
                row.value = match kind {
                    Some(FieldType::Boolean) => text.parse::<bool>().map(Value::Bool).ok(),
                    Some(FieldType::Integer) => text.parse::<i64>().map(Value::from).ok(),
                    _ => None,
                }
                .or_else(|| row.value.take());
            }
            row
        })
        .collect()
}

/// Who a record is, and whose value wins: an Integration's own rules, or those of a contract for all its Integrations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MasterRules {
    pub(crate) matching: Vec<Vec<FieldPath>>,
    pub(crate) ownership: Vec<OwnershipRule>,
    pub(crate) tie: Tie,
}

/// The rules that speak of canonical fields, as they are written.
pub(crate) struct Rules<'a> {
    /// Where they stand.
    pub(crate) place: &'static str,
    pub(crate) matching: &'a [Vec<String>],
    pub(crate) ownership: &'a [api::OwnershipRule],
    pub(crate) fields: &'a CanonicalSchema,
    /// The participants that they speak of, as far as those are known.
    pub(crate) participants: &'a [Option<ParticipantUnit>],
}

impl Rules<'_> {
    /// The rules, with what is wrong with them.
    pub(crate) fn judge(&self, tie: api::Tie, findings: &mut Vec<Finding>) -> MasterRules {
        let tie = match tie {
            api::Tie::Home => Tie::Home,
            api::Tie::Latest => Tie::Latest,
        };
        MasterRules { matching: self.matching(findings), ownership: self.ownership(findings), tie }
    }

    fn unknown_field(&self, place: String, path: &str) -> Finding {
        let names: Vec<String> = self.fields.keys().map(ToString::to_string).collect();
        Finding::error(
            Reason::ContractMismatch,
            place,
            format!("the contract has no field `{path}`"),
            nearest::hint(path, names.iter().map(String::as_str), "name a field of the contract's schema"),
        )
    }

    fn matching(&self, findings: &mut Vec<Finding>) -> Vec<Vec<FieldPath>> {
        let mut rules = Vec::new();
        for (number, rule) in self.matching.iter().enumerate() {
            let mut paths = Vec::new();
            for (step, text) in rule.iter().enumerate() {
                let place = format!("{}.match[{number}][{step}]", self.place);
                let path = text.parse::<FieldPath>().ok().filter(|path| self.fields.contains_key(path));
                let Some(path) = path else {
                    findings.push(self.unknown_field(place, text));
                    continue;
                };
                let kind = self.fields.get(&path).map(|field| field.kind);
                if path.list_root().is_some() || matches!(kind, Some(FieldType::List | FieldType::Object)) {
                    findings.push(Finding::error(
                        Reason::ContractMismatch,
                        place,
                        format!("`{text}` holds more than one value, so records cannot be recognised by it"),
                        "name a field that holds a single value",
                    ));
                    continue;
                }
                if self
                    .participants
                    .iter()
                    .flatten()
                    .flat_map(|p| &p.rows)
                    .any(|row| row.canonical.as_ref() == Some(&path) && row.reference.is_some())
                {
                    findings.push(Finding::error(
                        Reason::ContractMismatch,
                        place,
                        format!("`{text}` is a reference, which is known only after records are recognised"),
                        "name a field that holds a value of the record itself",
                    ));
                    continue;
                }
                self.everybody_fills(&path, &place, findings);
                paths.push(path);
            }
            rules.push(paths);
        }
        rules
    }

    /// A match field that one reading participant never fills can match nothing there.
    fn everybody_fills(&self, path: &FieldPath, place: &str, findings: &mut Vec<Finding>) {
        for participant in self.participants.iter().flatten().filter(|participant| participant.read.is_some()) {
            if !participant.rows.iter().any(|row| row.canonical.as_ref() == Some(path)) {
                findings.push(
                    Finding::error(
                        Reason::ContractMismatch,
                        place,
                        format!(
                            "no row of the participant `{}` fills `{path}`, so none of its records is found by this rule",
                            participant.name
                        ),
                        "add a row for it, or match by another field",
                    )
                    .with_severity(Severity::Warning),
                );
            }
        }
    }

    /// Rules with objects spelled out: who owns `address` owns `address.city`.
    fn ownership(&self, findings: &mut Vec<Finding>) -> Vec<OwnershipRule> {
        let mut rules = Vec::new();
        let mut named: Vec<String> = Vec::new();
        for (number, rule) in self.ownership.iter().enumerate() {
            let mut fields = Vec::new();
            for (step, text) in rule.fields.iter().enumerate() {
                let place = format!("{}.ownership[{number}].fields[{step}]", self.place);
                if named.contains(text) || named.iter().any(|name| name == "*") {
                    findings.push(
                        Finding::error(
                            Reason::InvalidSpec,
                            place.clone(),
                            format!("an earlier rule already decides about `{text}`"),
                            "the first rule that names a field counts; remove this entry or move it up",
                        )
                        .with_severity(Severity::Warning),
                    );
                }
                named.push(text.clone());
                if text == "*" {
                    fields.push(text.clone());
                    continue;
                }
                let path = text.parse::<FieldPath>().ok();
                let inside: Vec<&FieldPath> =
                    path.iter().flat_map(|path| self.fields.keys().filter(move |field| field.starts_with(path))).collect();
                if inside.is_empty() {
                    findings.push(self.unknown_field(place, text));
                    continue;
                }
                fields.push(text.clone());
                fields.extend(inside.into_iter().map(ToString::to_string).filter(|name| name != text));
                if let Some(path) = path {
                    self.somebody_gives(&path, &rule.role, &place, findings);
                }
            }
            rules.push(OwnershipRule { fields, role: rule.role.clone() });
        }
        rules
    }

    /// A field whose owner is never read from has a value that nobody may change.
    fn somebody_gives(&self, path: &FieldPath, role: &str, place: &str, findings: &mut Vec<Finding>) {
        let mut owners = self.participants.iter().flatten().filter(|participant| participant.role == role).peekable();
        let gives = |participant: &ParticipantUnit| {
            participant.read.is_some()
                && participant.rows.iter().any(|row| row.canonical.as_ref().is_some_and(|canonical| canonical.starts_with(path)))
        };
        if owners.peek().is_some() && !owners.any(gives) {
            findings.push(
                Finding::error(
                    Reason::ContractMismatch,
                    place,
                    format!("no participant of the role `{role}` reads `{path}`, so its value can never change"),
                    "add a row that reads it there, or give the field to another role",
                )
                .with_severity(Severity::Warning),
            );
        }
    }
}
