//! Integration: which systems are kept in step, by which field tables and rules.
//!
//! Types only, and the values that hold when a field is left out. Expressions and paths are text here; the room `mapping`
//! compiles them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    AllowedNamespaces, CANONICAL_FIELD, CANONICAL_PATH, CircuitState, ConditionedStatus, ENTITY, LABEL, LastError, LocalRef,
    MAX_EXPRESSION, MAX_LABEL, MAX_PARTICIPANTS, MAX_PATH, MAX_QUALIFIED, MAX_ROWS, MAX_SUBDOMAIN, MAX_TABLES, MAX_TEXT, ObjectReference,
    Owner, QUALIFIED, SUBDOMAIN, conditions_schema,
};
use crate::duration::Duration;
use crate::rules;

/// Keeps the records of one contract in step between systems.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "Integration",
    plural = "integrations",
    shortname = "fint",
    category = "fairlead",
    namespaced,
    status = "IntegrationStatus",
    derive = "PartialEq",
    doc = "Keeps the records of one contract in step between systems.",
    printcolumn(
        name = "Contract",
        type_ = "string",
        json_path = ".spec.contract.name",
        description = "The contract whose records are kept in step."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether what was declared is so."
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why; see docs/reasons."
    ),
    printcolumn(
        name = "Lag",
        type_ = "string",
        json_path = ".status.lag.bucket",
        description = "How old the oldest change is that should have been delivered."
    ),
    printcolumn(
        name = "DeadLetters",
        type_ = "integer",
        json_path = ".status.deadLetters",
        description = "Records that wait for a person."
    ),
    printcolumn(
        name = "LastSync",
        type_ = "date",
        json_path = ".status.lastSyncTime",
        description = "Time since the last delivered change, rounded."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since creation.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::crd::keep_field_words)]
pub struct IntegrationSpec {
    /// Who answers for this integration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The contract that says what the records are.
    pub contract: ObjectReference,
    /// Master data kept in step between the participants.
    pub sync: SyncSpec,
    /// How changes are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// When what the systems hold is compared, record by record, with what was read from them and written to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<Reconcile>,
    /// How a new revision of the field tables takes over: compared first, then tried on a share of the records. Left out, it takes over at
    /// once; so does, in any case, a revision that changes more than field tables and the conditions of writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Running (when left out) or Paused: neither reads nor writes; what is in flight settles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// What happens to identities and checkpoints when this object is deleted: Retain (when left out; a re-apply goes on from them) or Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Which other namespaces' contracts may serve these records and write through these participants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// Master data kept in step between the participants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::SYNC)))]
pub struct SyncSpec {
    /// The systems, each with its entity and field table; each may read, write or both.
    #[schemars(
        length(min = 1, max = MAX_PARTICIPANTS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub participants: Vec<Participant>,
    /// What a first apply may do: Preview (when left out; nothing is written), MatchOnly or MatchOrCreate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_load: Option<InitialLoad>,
    /// How much may change before a person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// Any new value reads everything again and re-checks every target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub resync: Option<String>,
    /// How records of different systems are recognised as the same: rules tried in order, each a list of canonical fields that must all be
    /// equal. This, onAmbiguous, ownership and tie stand in the contract where its master.scope is Contract, and not here.
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "match_schema")]
    pub match_rules: Vec<Vec<String>>,
    /// What happens to a record that matches several: DeadLetter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_ambiguous: Option<OnAmbiguous>,
    /// Whose value wins, field by field; the first rule that names a field counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub ownership: Vec<OwnershipRule>,
    /// Which of several participants of one role owns a field: Home (when left out; where the record was born, else the first by name of
    /// those that hold it) or Latest (the one that changed it last).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie: Option<Tie>,
}

pub(crate) fn match_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "array",
            "description": "Canonical fields that must all be equal.",
            "minItems": 1,
            "maxItems": 8,
            "x-kubernetes-list-type": "atomic",
            "items": {
                "type": "string", "minLength": 1, "maxLength": MAX_PATH, "pattern": CANONICAL_FIELD,
                "description": "A canonical field.",
            },
        },
    })
}

/// One system in a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::PARTICIPANT)))]
pub struct Participant {
    /// The participant's name, unique within the Integration. Its state is kept under this name.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub name: String,
    /// The part it plays in ownership rules, such as crm or erp. Several participants may play one.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub role: String,
    /// The Connector: a name in this namespace, or namespace/name where that Connector allows this namespace.
    #[schemars(length(min = 1, max = MAX_QUALIFIED), regex(pattern = QUALIFIED))]
    pub connector: String,
    /// The entity as the system calls it, such as Account.
    #[schemars(length(min = 1, max = 128), regex(pattern = ENTITY))]
    pub entity: String,
    /// How changes are read from it; left out when it only receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadSpec>,
    /// How changes are written to it; left out when it only gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<WriteSpec>,
    /// Shared field tables: ConfigMaps of this namespace that hold rows under fields.yaml. A later table's row takes the place of an
    /// earlier one's for the same canonical field, and a row of fields the place of both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_TABLES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub fields_from: Vec<LocalRef>,
    /// The field table, used in both directions where a row can be inverted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_ROWS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["canonical", "native"])
    )]
    pub fields: Vec<FieldRow>,
}

/// How changes are read: by polling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::READ)))]
pub struct ReadSpec {
    /// Ask the system at intervals for what changed. The first load is automatic and resumable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
}

/// Ask the system at intervals for what changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::POLL)))]
pub struct Poll {
    /// The time between two polls, at least 1s.
    pub every: Duration,
}

/// How changes are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::WRITE)))]
pub struct WriteSpec {
    /// The field that holds the canonical id, so that a create can be repeated without making a second record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<WriteKey>,
    /// A condition on the canonical record (.record); records for which it is false are not written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION))]
    pub when: Option<String>,
    /// What happens here to a record that was deleted where it was born: Keep (when left out), Archive or Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
    /// What happens here to the second record when two that this system holds were merged into one elsewhere: Keep (when left out; it
    /// stays, and is neither read nor written any more) or Archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_merge: Option<OnMerge>,
    /// What happens here to a record for which when turns false: Keep (when left out; it is written no more) or Archive (it is made
    /// inactive as its definition says, and active again when the condition turns true again). Archive concerns records that were let in
    /// before, not what the system had of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_leave: Option<OnLeave>,
    /// What happens to a change made here to a field that another system owns: Restore (when left out; it is put back) or Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_foreign_edit: Option<OnForeignEdit>,
}

/// The field that holds the canonical id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteKey {
    /// The field's name in the system.
    #[schemars(length(min = 1, max = MAX_PATH), regex(pattern = r"^\S+$"))]
    pub native: String,
}

/// One row of a field table: how one canonical field and one field of the system belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::ROW)))]
pub struct FieldRow {
    /// The canonical field's path, such as address.country or contacts[].email; empty for a constant of the system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = MAX_PATH), regex(pattern = CANONICAL_PATH), extend("default" = ""))]
    pub canonical: String,
    /// The field's path in the system, such as BillingCountryCode; empty for a canonical field that is computed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = MAX_PATH), regex(pattern = r"^\S*$"), extend("default" = ""))]
    pub native: String,
    /// A constant that is written to the system's field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_EXPRESSION))]
    pub value: Option<String>,
    /// Which canonical value stands for which of the system's. Going either way, the first row that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["canonical", "native"])
    )]
    pub values: Vec<ValuePair>,
    /// An expression over .record (and .item in lists) that makes the canonical value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION))]
    pub to_canonical: Option<String>,
    /// An expression over .record (and .item in lists) that makes the system's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION))]
    pub from_canonical: Option<String>,
    /// What happens to a record for which this row fails: DeadLetter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// The field holds the id of another record, which is translated between the systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// A table with many values, in a ConfigMap of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Lookup>,
    /// For a list: the field of its elements that tells one from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_PATH), regex(pattern = r"^\S+$"))]
    pub key: Option<String>,
}

/// One line of a value table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValuePair {
    /// The canonical value.
    #[schemars(length(max = MAX_TEXT))]
    pub canonical: String,
    /// The system's value.
    #[schemars(length(max = MAX_TEXT))]
    pub native: String,
}

/// A table with many values, in a ConfigMap of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// A ConfigMap of this namespace that holds the table under lookup.csv: a line canonical,native and below it one line per value.
    #[schemars(length(min = 1, max = MAX_SUBDOMAIN), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// What stands for a value that has no line; left out, its record is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Otherwise>,
}

/// What stands for a value that has no line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Otherwise {
    /// The canonical value for any other value of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_TEXT))]
    pub canonical: Option<String>,
    /// The system's value for any other canonical value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_TEXT))]
    pub native: Option<String>,
}

/// The record that a field points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// The canonical entity of the record pointed to.
    #[schemars(length(min = 1, max = 128), regex(pattern = ENTITY))]
    pub entity: String,
    /// What happens to new records that refer to each other in a cycle, of which none can be made before the other: DeadLetter or Complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cycle: Option<OnCycle>,
}

/// One ownership rule: these fields belong to the participants of this role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnershipRule {
    /// Canonical fields; * stands for every field.
    #[schemars(
        length(min = 1, max = MAX_ROWS),
        inner(length(min = 1, max = MAX_PATH), regex(pattern = r"^(\*|[A-Za-z_][A-Za-z0-9_-]*(\[\])?(\.[A-Za-z_][A-Za-z0-9_-]*(\[\])?)*)$")),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub fields: Vec<String>,
    /// The role whose value wins.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub role: String,
}

/// How much may change within 24 hours, in percent of the live records, before the Integration pauses and asks a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// The most deletions, in percent (5 when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_delete_percent: Option<i32>,
    /// The most changes, in percent (30 when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_change_percent: Option<i32>,
    /// The token that status.guard shows; repeating it here lets that one wave through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub confirm: Option<String>,
}

/// How changes are delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// How often and how fast a failed delivery is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long dead letters are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLetters>,
}

/// How long dead letters are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::DEAD_LETTERS)))]
pub struct DeadLetters {
    /// Letters that are closed are removed after this time (720h when left out), with the payloads that they hold. Open ones stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Duration>,
}

/// How often and how fast a failed delivery is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::RETRY)))]
pub struct Retry {
    /// Attempts before a record becomes a dead letter (8 when left out); those during an outage do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: Option<i32>,
    /// The first pause (1s when left out); it doubles each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Duration>,
    /// The longest pause (10m when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

/// When what the systems hold is compared with what was read from them and written to them, and what becomes of differences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reconcile {
    /// When.
    pub schedule: CronSchedule,
    /// What becomes of differences: Report (when left out) or Repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<ReconcilePolicy>,
    /// More differences than this share of the live records, in percent (5 when left out), are reported and not repaired. So few as 10
    /// are always repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_repair_percent: Option<i32>,
}

/// A cron expression in a time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronSchedule {
    /// Minute, hour, day of month, month and day of week, such as 0 2 * * *.
    #[schemars(length(min = 1, max = 128))]
    pub cron: String,
    /// The IANA time zone, such as Europe/Berlin (UTC when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

impl CronSchedule {
    /// The time zone.
    pub fn time_zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("UTC")
    }
}

impl Reconcile {
    /// What becomes of differences.
    pub fn policy(&self) -> ReconcilePolicy {
        self.policy.unwrap_or_default()
    }

    /// The largest share of the live records that may be repaired, in percent.
    pub fn max_repair_percent(&self) -> u32 {
        percent(self.max_repair_percent, 5)
    }
}

/// How a new revision of the field tables takes over. It stops by itself, and the revision before stays in force, when more records fail under it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::ROLLOUT)))]
pub struct Rollout {
    /// So long the new revision maps every record beside the one in force, and writes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Duration>,
    /// Then it maps this share of the records, in percent; which ones, their canonical ids decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub canary_percent: Option<i32>,
    /// So long, before it maps them all.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Duration>,
}

impl Rollout {
    /// The share of the records and the time, if it is tried on any.
    pub fn canary(&self) -> Option<(u32, std::time::Duration)> {
        Some((u32::try_from(self.canary_percent?).ok()?, self.lasts?.0))
    }
}

macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $(#[$first_meta:meta])* $first:ident $(, $(#[$variant_meta:meta])* $variant:ident)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $(#[$first_meta])*
            #[default]
            $first,
            $($(#[$variant_meta])* $variant),*
        }
    };
}

choice! {
    /// Whether the Integration works: Running or Paused.
    RunState {
        /// It reads and writes.
        Running,
        /// It neither reads nor writes.
        Paused,
    }
}
choice! {
    /// What becomes of differences that a reconciliation finds: Report or Repair.
    ReconcilePolicy {
        /// They are counted in status.
        Report,
        /// They are put right as well.
        Repair,
    }
}
choice! {
    /// What happens to the stored state on deletion: Retain or Delete.
    DeletionPolicy {
        /// Identities and checkpoints wait for a re-apply.
        Retain,
        /// They are deleted.
        Delete,
    }
}
choice! {
    /// What a first apply may do: Preview, MatchOnly or MatchOrCreate.
    InitialLoad {
        /// Read and match, write nothing.
        Preview,
        /// Keep the matched records in step, create none.
        MatchOnly,
        /// Keep the matched in step and create what is missing.
        MatchOrCreate,
    }
}
choice! {
    /// What happens to a record that matches several: DeadLetter.
    OnAmbiguous {
        /// It waits for a person.
        DeadLetter,
    }
}
choice! {
    /// What happens to a record for which a row fails: DeadLetter.
    OnError {
        /// It waits for a person.
        DeadLetter,
    }
}
choice! {
    /// What happens to new records that refer to each other in a cycle: DeadLetter or Complete.
    OnCycle {
        /// It waits for a person, as a hierarchy has no cycle.
        DeadLetter,
        /// One of them is made without this reference, and completed when the other is there.
        Complete,
    }
}
choice! {
    /// Which of several participants of one role owns a field: Home or Latest.
    Tie {
        /// The one where the record was born, else the first by name of those that hold it.
        Home,
        /// The one that changed it last.
        Latest,
    }
}
choice! {
    /// What happens to a record for which the condition of a target turns false: Keep or Archive.
    OnLeave {
        /// It stays as it is.
        Keep,
        /// It is marked inactive, as its definition says how.
        Archive,
    }
}
choice! {
    /// What happens to a record that was deleted elsewhere: Keep, Archive or Delete.
    OnDelete {
        /// It stays.
        Keep,
        /// It is marked inactive, as its definition says how.
        Archive,
        /// It is deleted.
        Delete,
    }
}
choice! {
    /// What happens to the second of two records that were merged elsewhere: Keep or Archive.
    OnMerge {
        /// It stays.
        Keep,
        /// It is marked inactive, as its definition says how.
        Archive,
    }
}
choice! {
    /// What happens to a change of a field that another system owns: Restore or Keep.
    OnForeignEdit {
        /// It is put back.
        Restore,
        /// It is left.
        Keep,
    }
}

impl IntegrationSpec {
    /// Whether it should read and write.
    pub fn run_state(&self) -> RunState {
        self.state.unwrap_or_default()
    }

    /// What happens to the stored state on deletion.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or_default()
    }

    /// How long closed dead letters are kept.
    pub fn keep_letters(&self) -> std::time::Duration {
        let letters = self.delivery.as_ref().and_then(|delivery| delivery.dead_letters.as_ref());
        letters.and_then(|letters| letters.keep).unwrap_or(Duration::from_secs(720 * 3600)).0
    }

    /// How failed deliveries are tried again, with the values that hold for what was left out.
    pub fn retry(&self) -> EffectiveRetry {
        let retry = self.delivery.as_ref().and_then(|delivery| delivery.retry.as_ref());
        let initial = retry.and_then(|r| r.initial).unwrap_or(Duration::from_secs(1));
        EffectiveRetry {
            attempts: retry.and_then(|r| r.attempts).and_then(|n| u32::try_from(n).ok()).unwrap_or(8),
            initial: initial.0,
            max: retry.and_then(|r| r.max).unwrap_or(Duration::from_secs(600)).max(initial).0,
        }
    }
}

/// [`Retry`] with nothing left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveRetry {
    /// Attempts before a dead letter.
    pub attempts: u32,
    /// The first pause.
    pub initial: std::time::Duration,
    /// The longest pause.
    pub max: std::time::Duration,
}

impl SyncSpec {
    /// What a first apply may do.
    pub fn initial_load(&self) -> InitialLoad {
        self.initial_load.unwrap_or_default()
    }

    /// Which of several participants of one role owns a field.
    pub fn tie(&self) -> Tie {
        self.tie.unwrap_or_default()
    }

    /// The most deletions within 24 hours, in percent of the live records.
    pub fn max_delete_percent(&self) -> u32 {
        percent(self.guard.as_ref().and_then(|guard| guard.max_delete_percent), 5)
    }

    /// The most changes within 24 hours, in percent of the live records.
    pub fn max_change_percent(&self) -> u32 {
        percent(self.guard.as_ref().and_then(|guard| guard.max_change_percent), 30)
    }
}

fn percent(value: Option<i32>, otherwise: u32) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(otherwise)
}

impl Participant {
    /// The Connector meant, as (namespace, name), for an Integration in `own`.
    pub fn connector_key<'a>(&'a self, own: &'a str) -> (&'a str, &'a str) {
        self.connector.split_once('/').unwrap_or((own, &self.connector))
    }

    /// The time between two polls, where it is read by polling.
    pub fn poll_every(&self) -> Option<std::time::Duration> {
        Some(self.read.as_ref()?.poll.as_ref()?.every.0)
    }
}

impl WriteSpec {
    /// What happens to a record that was deleted where it was born.
    pub fn on_delete(&self) -> OnDelete {
        self.on_delete.unwrap_or_default()
    }

    /// What happens to the second of two records that were merged elsewhere.
    pub fn on_merge(&self) -> OnMerge {
        self.on_merge.unwrap_or_default()
    }

    /// `onLeave`, or its default.
    #[must_use]
    pub fn on_leave(&self) -> OnLeave {
        self.on_leave.unwrap_or_default()
    }

    /// What happens to a change of a field that another system owns.
    pub fn on_foreign_edit(&self) -> OnForeignEdit {
        self.on_foreign_edit.unwrap_or_default()
    }
}

/// What the operator has seen of the integration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::crd::keep_field_words)]
pub struct IntegrationStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, Healthy and Ready always; Reconciling, Stalled, Lagging, Degraded, Paused and Throttled while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// How far behind the systems are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagStatus>,
    /// The last delivered change; rewritten at most every ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// How each participant does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_PARTICIPANTS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub participants: Vec<ParticipantStatus>,
    /// Records of all participants that wait for a person. Changes only together with something else in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub dead_letters: Option<i64>,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Whether every record is accounted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerStatus>,
    /// What a first load would do, while initialLoad is Preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewStatus>,
    /// The wave of changes that waits for a person, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardStatus>,
    /// What the last reconciliation found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<ReconciliationStatus>,
    /// Which revision maps the records, and which one is to take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionStatus>,
}

/// Which revision maps the records, and which one is to take over. Revisions are kept as ControllerRevisions of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The number of the revision in force.
    #[schemars(range(min = 1))]
    pub active: i64,
    /// The number of the revision that is to take over, while there is one; the same, where only a shared table has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub canary: Option<i64>,
    /// Where that one stands: Shadow, Canary or Stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RolloutPhase>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Records that it was tried on, once per system while it is only compared. Changes only together with something else in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub tried: Option<i64>,
    /// Those that it would write or read otherwise than the revision in force. Changes only together with something else in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub different: Option<i64>,
    /// Those that fail under it. Changes only together with something else in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failing: Option<i64>,
}

/// Where a revision stands that is to take over: Shadow, Canary or Stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// It is compared with the revision in force, and writes nothing.
    Shadow,
    /// It maps a share of the records.
    Canary,
    /// More records failed under it, and it maps nothing any more.
    Stopped,
}

/// How far behind the systems are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagStatus {
    /// The age of the oldest change that should have been delivered: Under10s, Under1m, Under10m, Under1h, Over1h or Unknown.
    pub bucket: LagBucket,
    /// Whether anything waits to be delivered.
    pub pending: bool,
}

/// Steps of lag: Under10s, Under1m, Under10m, Under1h, Over1h or Unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LagBucket {
    /// Less than ten seconds.
    Under10s,
    /// Less than a minute.
    Under1m,
    /// Less than ten minutes.
    Under10m,
    /// Less than an hour.
    Under1h,
    /// An hour or more.
    Over1h,
    /// Nothing was reported.
    Unknown,
}

impl LagBucket {
    /// The bucket of a lag; nothing known gives `Unknown`.
    pub fn of(lag: Option<std::time::Duration>) -> Self {
        match lag.map(|lag| lag.as_secs()) {
            None => Self::Unknown,
            Some(0..10) => Self::Under10s,
            Some(10..60) => Self::Under1m,
            Some(60..600) => Self::Under10m,
            Some(600..3600) => Self::Under1h,
            Some(_) => Self::Over1h,
        }
    }
}

/// How one participant does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantStatus {
    /// The participant's name.
    #[schemars(length(min = 1, max = MAX_LABEL))]
    pub name: String,
    /// What it is at: Pending, Backfill, Live, Paused or Failing.
    pub state: ParticipantState,
    /// Whether requests to its system go out: Closed or Open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitState>,
    /// Records that wait for a person because of this participant. Changes only together with something else in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub dead_letters: Option<i64>,
    /// Changes made in this participant, so far, to fields that another owns. Changes only together with something else in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub conflicts: Option<i64>,
}

/// What a participant is at: Pending, Backfill, Live, Paused or Failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ParticipantState {
    /// Not begun.
    Pending,
    /// Reading everything for the first time, or again.
    Backfill,
    /// Following changes.
    Live,
    /// Standing still because it was told to.
    Paused,
    /// Standing still because something is wrong.
    Failing,
}

/// Whether every record is accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerStatus {
    /// Whether what came in equals what went out, waits or was set aside.
    pub balanced: bool,
}

/// What a first load would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviewStatus {
    /// Records found in several systems.
    #[schemars(range(min = 0))]
    pub matched: i64,
    /// Records that match more than one.
    #[schemars(range(min = 0))]
    pub ambiguous: i64,
    /// Records that would be created somewhere.
    #[schemars(range(min = 0))]
    pub would_create: i64,
    /// Records that would be changed somewhere.
    #[schemars(range(min = 0))]
    pub would_change: i64,
}

/// The wave of changes that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardStatus {
    /// Repeat this in spec.sync.guard.confirm to let the wave through.
    #[schemars(length(min = 1, max = 64))]
    pub token: String,
    /// The participant from which the wave comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_LABEL))]
    pub participant: Option<String>,
    /// Deletions within 24 hours, those that wait included.
    #[schemars(range(min = 0))]
    pub deletes: i64,
    /// Changes within 24 hours, those that wait included.
    #[schemars(range(min = 0))]
    pub changes: i64,
    /// The live records of which the percentages are taken.
    #[schemars(range(min = 0))]
    pub live: i64,
}

/// What the last reconciliation found. What was on its way at the time, and what is a dead letter, is no difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReconciliationStatus {
    /// When it ended.
    pub at: Time,
    /// How it ended: InStep, Repaired, Drifted, ThresholdExceeded or Incomplete.
    pub outcome: ReconciliationOutcome,
    /// Records that were compared, once per system.
    #[schemars(range(min = 0))]
    pub compared: i64,
    /// Records that should be in a system and are not.
    #[schemars(range(min = 0))]
    pub missing: i64,
    /// Records that hold other values in a system than were read from it, or than they should.
    #[schemars(range(min = 0))]
    pub different: i64,
    /// Records of a system that were never read.
    #[schemars(range(min = 0))]
    pub unread: i64,
    /// Records that a system does not show any more, and that were not read as deleted.
    #[schemars(range(min = 0))]
    pub gone: i64,
    /// Differences that were put on their way to be put right.
    #[schemars(range(min = 0))]
    pub repaired: i64,
    /// The end of the last one after which nothing was left to put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// Why it is incomplete, or why differences were left that are to be put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_TEXT))]
    pub message: Option<String>,
}

/// How a reconciliation ended: InStep, Repaired, Drifted, ThresholdExceeded or Incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReconciliationOutcome {
    /// No differences.
    InStep,
    /// Differences were found and are being put right.
    Repaired,
    /// Differences were found and left, by the policy or for what the message says.
    Drifted,
    /// More differences were found than may be put right without a person.
    ThresholdExceeded,
    /// Not everything could be compared.
    Incomplete,
}

impl ConditionedStatus for IntegrationStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }
}
