//! Plan units: what a runtime needs to run one resource, and nothing of any other tenant.
//!
//! A unit is serialisable text (field tables and expressions as source, never compiled programs) and carries a digest over its content, so
//! that a runtime can acknowledge exactly what it runs and compile by digest. Units come from the planner, which has checked every
//! expression; a runtime that cannot compile one reports it and keeps its last good one.

use crate::hash::Digest;
use crate::id::ObjectRef;
use crate::path::FieldPath;
use crate::realm;
use crate::route::RouteUnit;
use crate::schedule::ScheduleText;
use crate::schema::{CanonicalSchema, NativeSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Everything that should run, by resource. Units are shared, not copied: planner and runtimes hold the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Units {
    /// Connectors that passed planning.
    pub connectors: BTreeMap<ObjectKey, Arc<ConnectorUnit>>,
    /// Integrations that passed planning.
    pub integrations: BTreeMap<ObjectKey, Arc<IntegrationUnit>>,
    /// What contracts serve, by ApiContract.
    #[serde(default)]
    pub routes: BTreeMap<ObjectKey, Arc<RouteUnit>>,
    /// Integrations whose resource is gone, with what to do with their state; the runtime forgets them once done.
    pub removed: BTreeMap<ObjectKey, DeletionPolicy>,
}

/// `namespace/name`: an [`ObjectRef`] as a map key that survives JSON.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectKey(pub String);

impl From<&ObjectRef> for ObjectKey {
    fn from(object: &ObjectRef) -> Self {
        Self(object.to_string())
    }
}

impl ObjectKey {
    /// The object of this key, if it is one.
    #[must_use]
    pub fn object(&self) -> Option<ObjectRef> {
        let (namespace, name) = self.0.split_once('/')?;
        Some(ObjectRef::new(namespace, name))
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One connector: a system, its account and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorUnit {
    /// The Connector resource.
    pub object: ObjectRef,
    /// Its generation.
    pub generation: i64,
    /// The digest over everything below.
    pub digest: Digest,
    /// The system definition, complete (any `extends` resolved), as YAML or JSON text.
    pub definition: Arc<str>,
    /// The system's name, for status and metrics.
    pub system: String,
    /// The vendor API version to speak.
    pub version: String,
    /// Base URL.
    pub endpoint: String,
    /// What the definition declares (account, client, company).
    pub parameters: BTreeMap<String, String>,
    /// The authentication method's name in the definition.
    pub auth_method: String,
    /// Where the credentials are.
    pub secret: ObjectRef,
    /// Limits.
    pub limits: Limits,
    /// Circuit breaker.
    pub circuit_breaker: CircuitBreaker,
    /// How often a healthy connector is probed.
    pub probe_every: Duration,
    /// PEM certificates to trust besides the system's own.
    pub ca_pem: Option<String>,
}

/// What the account may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests per second, if limited.
    pub requests_per_second: Option<u32>,
    /// Requests under way at once.
    pub concurrency: u32,
    /// Requests a day (UTC), if limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_requests: Option<u64>,
    /// The share of the quota and of the places that is kept for callers of the API, in percent; 90 at most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interactive_reserve_percent: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// When a connector's circuit opens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// So many failures ...
    pub failures: u32,
    /// ... within this time open it ...
    pub within: Duration,
    /// ... for so long; then one half-open probe decides.
    pub open_for: Duration,
}

/// One Integration as master-data sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationUnit {
    /// The Integration resource.
    pub object: ObjectRef,
    /// Its generation.
    pub generation: i64,
    /// The digest over everything below but the revision, and what it knows of others.
    pub digest: Digest,
    /// Which revision of the Integration this is.
    #[serde(default)]
    pub revision: RevisionUnit,
    /// How a revision that maps records otherwise than the one before takes over; at once, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutUnit>,
    /// The canonical entity.
    pub entity: String,
    /// The contract it keeps.
    pub contract: ContractUnit,
    /// The systems that take part; at least two.
    pub participants: Vec<Arc<ParticipantUnit>>,
    /// The lookup tables that rows name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lookups: BTreeMap<String, Arc<LookupTable>>,
    /// What a first apply may do.
    pub initial_load: InitialLoad,
    /// Match rules, tried in order; each a list of canonical paths that must all be present and equal.
    pub matching: Vec<Vec<FieldPath>>,
    /// Canonical fields by which records can be found besides (the filters of the contract's `list` operations).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexed: Vec<FieldPath>,
    /// Who owns which field; the first rule that names a field decides, a field that none names has no owner (latest writer wins).
    pub ownership: Vec<OwnershipRule>,
    /// Which of several participants of one role wins.
    pub tie: Tie,
    /// How much may change before a person must confirm.
    pub guard: Guard,
    /// Any new value reads everything again and re-checks every target.
    pub resync: Option<String>,
    /// When what the systems hold is compared with what is known of them, and what becomes of differences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<ReconcileUnit>,
    /// Retries.
    pub retry: Retry,
    /// How long closed dead letters are kept.
    #[serde(default = "kept", skip_serializing_if = "is_kept")]
    pub keep_letters: Duration,
    /// Paused: neither reading nor writing; what is in flight settles.
    pub paused: bool,
    /// What happens to the state when the resource goes.
    pub deletion_policy: DeletionPolicy,
    /// Its records are golden records, which other Integrations of the contract feed as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<MasterUnit>,
}

/// Which revision of its Integration a unit was made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevisionUnit {
    /// Its number in the history that the cluster keeps; without a cluster, revisions are counted where they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// The digest of what was declared.
    pub spec: Digest,
}

/// How a revision that maps records otherwise takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutUnit {
    /// So long it is first only compared with the one in force; zero is not at all.
    pub shadow: Duration,
    /// Then it maps a share of the records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryUnit>,
}

/// On which records a revision is tried, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryUnit {
    /// The share of the records, in percent.
    pub percent: u32,
    /// So long.
    pub lasts: Duration,
}

/// What an Integration knows of the others that feed the same golden records: all that a decision about one of them needs, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterUnit {
    /// The participants of the other Integrations that run, by name.
    pub siblings: Vec<Sibling>,
}

/// A participant of another Integration that feeds the same golden records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sibling {
    /// Its name in the realm.
    pub name: String,
    /// Its role.
    pub role: String,
    /// It is read, and not paused.
    pub reads: bool,
    /// It is written.
    pub writes: bool,
    /// What its Integration may do: what only those hold that make nothing is made nowhere.
    pub load: InitialLoad,
}

/// The contract as the data plane needs it. Its version is not part of it: a new version of the same schema changes nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractUnit {
    /// The ApiContract resource.
    pub object: ObjectRef,
    /// The JSON Schema (2020-12) of the canonical entity.
    pub schema: Arc<Value>,
    /// The same, field by field.
    pub fields: Arc<CanonicalSchema>,
}

/// One system's part in an Integration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantUnit {
    /// Its name in the realm: as in the Integration's spec, or in full where records are golden records (see [`crate::realm`]).
    pub name: String,
    /// Its role (`crm`, `erp`).
    pub role: String,
    /// Through which connector.
    pub connector: ObjectRef,
    /// The native entity.
    pub entity: String,
    /// The native fields, as the definition tells them.
    pub native: Arc<NativeSchema>,
    /// How it is read, if it is.
    pub read: Option<ReadUnit>,
    /// How it is written, if it is.
    pub write: Option<WriteUnit>,
    /// The field table.
    pub rows: Vec<RowUnit>,
}

/// How a participant is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadUnit {
    /// Time between polls.
    pub every: Duration,
}

/// How a participant is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteUnit {
    /// The native field that holds the canonical id, where the system has one: creates upsert on it, reads look at it first for identity.
    pub key: Option<String>,
    /// Only records for which this expression over `.record` is true.
    pub when: Option<String>,
    /// What a deletion becomes here.
    pub on_delete: OnDelete,
    /// What becomes here of the second external id of a record into which another was merged.
    #[serde(default, skip_serializing_if = "OnMerge::keeps")]
    pub on_merge: OnMerge,
    /// What becomes of a record here for which `when` turns false.
    #[serde(default, skip_serializing_if = "OnLeave::keeps")]
    pub on_leave: OnLeave,
    /// What happens to an edit of a field that another system owns.
    pub on_foreign_edit: OnForeignEdit,
}

/// One row of a field table, as source. See `fairlead-mapping` for what each part means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct RowUnit {
    /// Canonical path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<FieldPath>,
    /// Native path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<FieldPath>,
    /// A constant for the native side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// A value table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ValuePair>,
    /// Expression over the native `.record` (and `.item` inside a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_canonical: Option<String>,
    /// Expression over the canonical `.record` (and `.item` inside a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_canonical: Option<String>,
    /// What a failing expression does.
    #[serde(default)]
    pub on_error: OnError,
    /// The value is another record's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// A table of the unit by which the value is translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupRow>,
    /// For a list row: the native field by which an element is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<FieldPath>,
    /// Where the row stands, if not in the Integration itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RowOrigin>,
}

impl RowUnit {
    /// How people call the row that stands at `index` in the table: by the number that they count in the place where they wrote it.
    #[must_use]
    pub fn called(&self, index: usize) -> String {
        RowOrigin::called(self.origin.as_ref(), index)
    }
}

/// Where a row stands that several Integrations share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowOrigin {
    /// The shared field table (a ConfigMap of the Integration's namespace).
    pub table: String,
    /// The row's index in it, from 0.
    pub row: usize,
}

impl RowOrigin {
    /// How people call a row of this origin, or the one at `index` of the Integration's own.
    #[must_use]
    pub fn called(origin: Option<&Self>, index: usize) -> String {
        origin.map_or_else(|| format!("row {index}"), |Self { table, row }| format!("row {row} of {table}"))
    }
}

/// A row's use of a lookup table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupRow {
    /// The table's name in [`IntegrationUnit::lookups`].
    pub name: String,
    /// The digest of what it holds: an edit of the table is an edit of the row.
    pub digest: Digest,
    /// The canonical value for a native one without a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical: Option<String>,
    /// The native value for a canonical one without a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<String>,
}

/// A lookup table: which canonical value stands for which native one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupTable {
    /// The digest of its pairs.
    pub digest: Digest,
    /// Its lines, in order.
    pub pairs: Vec<ValuePair>,
}

impl LookupTable {
    /// The table of these lines.
    #[must_use]
    pub fn new(pairs: Vec<ValuePair>) -> Self {
        Self { digest: Digest::of_serialized(&pairs), pairs }
    }
}

/// One line of a value table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValuePair {
    /// The canonical value.
    pub canonical: String,
    /// The native value.
    pub native: String,
}

/// A reference to another record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The canonical entity referred to. Only the Integration's own entity (a parent) can be referred to so far.
    pub entity: String,
    /// What becomes of new records that refer to each other in a cycle.
    #[serde(default, skip_serializing_if = "OnCycle::is_default")]
    pub on_cycle: OnCycle,
}

/// What becomes of new records that refer to each other in a cycle, of which none can be made before the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum OnCycle {
    /// The one that closes it becomes a dead letter.
    #[default]
    DeadLetter,
    /// One of them is made without this reference, and completed when the other is there.
    Complete,
}

impl OnCycle {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a failing expression does to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum OnError {
    /// The record becomes a dead letter.
    #[default]
    DeadLetter,
    /// The field is left as it is on the other side.
    Skip,
}

/// What a first apply may do, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub enum InitialLoad {
    /// Nothing is written; counts stand in status.
    #[default]
    Preview,
    /// Only records that match are kept in step; nothing is created.
    MatchOnly,
    /// What does not match is created.
    MatchOrCreate,
}

/// Who owns fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnershipRule {
    /// Canonical paths, or `*`.
    pub fields: Vec<String>,
    /// The owning role.
    pub role: String,
}

/// Which participant wins among several of the owning role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Tie {
    /// The one where the record was born.
    #[default]
    Home,
    /// The one whose vendor stamp is newer, then the order of participants.
    Latest,
}

/// How much may change within 24 hours, in percent of live records, before a person must confirm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// Deletes; `None` is no limit.
    pub max_delete_percent: Option<u32>,
    /// Changes; `None` is no limit.
    pub max_change_percent: Option<u32>,
    /// The token of status that lets one overrun through.
    pub confirm: Option<String>,
}

/// When what the systems hold is compared with what is known of them, and what becomes of differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileUnit {
    /// When.
    pub schedule: ScheduleText,
    /// Differences are put right, not only told.
    pub repair: bool,
    /// More differences than this share of the live records, in percent, are told only.
    pub max_repair_percent: u32,
}

/// How long closed dead letters are kept where nothing else is said.
const fn kept() -> Duration {
    Duration::from_secs(720 * 3600)
}

fn is_kept(keep: &Duration) -> bool {
    *keep == kept()
}

/// Retries of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts before a record that fails transiently while the circuit is closed becomes a dead letter.
    pub attempts: u32,
    /// First wait.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
}

/// What a deletion becomes in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum OnDelete {
    /// The record stays.
    #[default]
    Keep,
    /// The record is made inactive, as the definition says.
    Archive,
    /// The record is deleted.
    Delete,
}

/// What becomes in a target of a second external id, after a merge elsewhere of the two records that it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum OnMerge {
    /// It stays as it is, and is neither read nor written any more.
    #[default]
    Keep,
    /// It is made inactive, as the definition says.
    Archive,
}

impl OnMerge {
    fn keeps(&self) -> bool {
        *self == Self::Keep
    }
}

/// What becomes of a record in a target whose `when` turns false for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum OnLeave {
    /// It stays as it is, and is written no more.
    #[default]
    Keep,
    /// It is made inactive, as the definition says, and active again when `when` turns true again.
    Archive,
}

impl OnLeave {
    fn keeps(&self) -> bool {
        *self == Self::Keep
    }
}

/// What happens to an edit of a field that another system owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum OnForeignEdit {
    /// The owner's value is put back.
    #[default]
    Restore,
    /// The edit stays where it was made, and goes nowhere else.
    Keep,
}

/// What happens to an Integration's state when its resource is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum DeletionPolicy {
    /// Identities and checkpoints wait for a re-apply.
    #[default]
    Retain,
    /// Everything of its realm is removed.
    Delete,
}

impl ConnectorUnit {
    /// The same unit with its digest computed over all other content but the generation (an edit that changes nothing makes no new unit).
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.digest = Digest::default();
        let generation = std::mem::take(&mut self.generation);
        self.digest = Digest::of_serialized(&self);
        self.generation = generation;
        self
    }
}

impl IntegrationUnit {
    /// The same unit with its digest computed over all other content but the generation, the revision, and what it knows of others that feed the
    /// same records: nothing of its own changes with them.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.digest = Digest::default();
        let (generation, revision) = (std::mem::take(&mut self.generation), std::mem::take(&mut self.revision));
        let siblings = self.master.as_mut().map(std::mem::take);
        self.digest = Digest::of_serialized(&self);
        (self.generation, self.revision, self.master) = (generation, revision, siblings);
        self
    }

    /// The same unit beside these others that feed the same records.
    #[must_use]
    pub fn beside(&self, siblings: Vec<Sibling>) -> Self {
        Self { master: Some(MasterUnit { siblings }), ..self.clone() }
    }

    /// What others that feed the same records know of it.
    pub fn as_siblings(&self) -> impl Iterator<Item = Sibling> {
        self.participants.iter().map(|participant| Sibling {
            name: participant.name.clone(),
            role: participant.role.clone(),
            reads: participant.read.is_some() && !self.paused,
            writes: participant.write.is_some(),
            load: self.initial_load,
        })
    }

    /// Whether it stands beside the same others as `other` does. Whether one of them is read at the moment does not matter: a decision about a
    /// record never asks for that.
    #[must_use]
    pub fn is_beside_the_same(&self, other: &Self) -> bool {
        let known = |unit: &Self| unit.siblings().iter().map(|each| Sibling { reads: false, ..each.clone() }).collect::<Vec<_>>();
        known(self) == known(other)
    }

    /// The realm: whose records these are.
    #[must_use]
    pub fn realm(&self) -> String {
        match &self.master {
            None => self.object.to_string(),
            Some(_) => realm::of_contract(&self.contract.object),
        }
    }

    /// The participants of other Integrations that feed the same records.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        self.master.as_ref().map_or(&[], |master| &master.siblings)
    }

    /// The names of all participants of this realm with their roles.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.participants.iter().map(|each| (each.name.as_str(), each.role.as_str()));
        own.chain(self.siblings().iter().map(|each| (each.name.as_str(), each.role.as_str())))
    }

    /// The participant called `name`.
    #[must_use]
    pub fn participant(&self, name: &str) -> Option<&ParticipantUnit> {
        self.participants.iter().map(|p| &**p).find(|p| p.name == name)
    }
}

impl ParticipantUnit {
    /// How people call it within its Integration.
    #[must_use]
    pub fn called(&self) -> &str {
        realm::called(&self.name)
    }
}
