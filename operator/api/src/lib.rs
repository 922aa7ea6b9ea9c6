//! The three custom resources of Fairlead, as people write them and as Kubernetes stores them.
//!
//! This room holds the types of `Connector`, `ApiContract` and `Integration` (group `fairlead.dev`, version `v1alpha1`), the
//! schemas generated from them, the rules that a schema cannot say, and the words that a status may use: condition types and
//! reasons. Everything here is pure: text and values in, types and findings out.
//!
//! It must not know what a field *means* at run time: no mapping is compiled here, no system definition read, no client built.
//! References are checked for their form only; whether the named object exists is the planner's question.
//!
//! ```
//! let yaml = "
//! apiVersion: fairlead.dev/v1alpha1
//! kind: Connector
//! metadata: {name: crm, namespace: sales}
//! spec:
//!   system: salesforce
//!   endpoint: https://acme.my.salesforce.com
//!   auth: {method: JwtBearer, secretRef: {name: crm-credentials}}
//!   limits: {requestsPerSecond: 0}
//! ";
//! let manifest = fairlead_api::manifest::from_yaml(yaml).unwrap().remove(0);
//! let violations = fairlead_api::manifest::Resource::read(&manifest).unwrap_err();
//! assert_eq!(violations[0].field, "spec.limits.requestsPerSecond");
//! ```

pub mod common;
pub mod conditions;
#[allow(clippy::duplicated_attributes, reason = "printer columns repeat their keys")]
pub mod connector;
#[allow(clippy::duplicated_attributes, reason = "printer columns repeat their keys")]
pub mod contract;
pub mod crd;
pub mod duration;
#[allow(clippy::duplicated_attributes, reason = "printer columns repeat their keys")]
pub mod integration;
pub mod manifest;
pub mod reasons;
pub mod reference;
pub mod rules;
pub mod schema;
pub mod status;
pub mod tables;

pub use common::{AllowedNamespaces, CircuitState, ConditionedStatus, ErrorClass, LastError, LocalRef, ObjectReference, Owner};
pub use connector::{
    Auth, CaKind, CaRef, CircuitBreaker, Connector, ConnectorSpec, ConnectorStatus, Limits, Probe, Quota, SystemInfo, Tls,
};
pub use contract::{
    ApiContract, ApiContractSpec, ApiContractStatus, Consumer, ContractOwner, Exposure, Extension, Idempotency, Issuer, Lifecycle, Master,
    MasterScope, Operation, OperationName, Phase, Rate, ReadFrom, Security, Served, StoreSource, TargetParticipant, WriteTo,
};
pub use crd::{crds, crds_yaml};
pub use duration::Duration;
pub use integration::{
    CronSchedule, DeadLetters, DeletionPolicy, Delivery, EffectiveRetry, FieldRow, Guard, GuardStatus, InitialLoad, Integration,
    IntegrationSpec, IntegrationStatus, LagBucket, LagStatus, LedgerStatus, Lookup, OnAmbiguous, OnCycle, OnDelete, OnError, OnForeignEdit,
    OnLeave, OnMerge, Otherwise, OwnershipRule, Participant, ParticipantState, ParticipantStatus, Poll, PreviewStatus, ReadSpec, Reconcile,
    ReconcilePolicy, ReconciliationOutcome, ReconciliationStatus, Reference, Retry, RevisionStatus, Rollout, RolloutPhase, RunState,
    SyncSpec, Tie, ValuePair, WriteKey, WriteSpec,
};
pub use manifest::{Kind, Resource};
pub use reasons::Reason;
pub use rules::{Validate, Violation};
pub use tables::{FieldTable, LookupTable};

/// The API group of all three kinds.
pub const GROUP: &str = "fairlead.dev";
/// The one version served and stored.
pub const VERSION: &str = "v1alpha1";
/// `group/version`, as it stands in a manifest's `apiVersion`.
pub const API_VERSION: &str = "fairlead.dev/v1alpha1";
/// The annotation on a Secret that says for which hosts it may be used: host names, separated by commas.
pub const ALLOWED_HOSTS_ANNOTATION: &str = "fairlead.dev/allowed-hosts";
/// The label that marks a ConfigMap as a system definition; its value is the system's name.
pub const SYSTEM_DEFINITION_LABEL: &str = "fairlead.dev/system-definition";
/// The key of a system-definition ConfigMap that holds the definition.
pub const SYSTEM_DEFINITION_KEY: &str = "definition.yaml";
/// The label that marks a ConfigMap as a shared field table; its value is the entity or system that it is about.
pub const FIELD_TABLE_LABEL: &str = "fairlead.dev/field-table";
/// The key of a field-table ConfigMap that holds the rows.
pub const FIELD_TABLE_KEY: &str = "fields.yaml";
/// The label that marks a ConfigMap as a lookup table; its value says of what.
pub const LOOKUP_TABLE_LABEL: &str = "fairlead.dev/lookup-table";
/// The key of a lookup-table ConfigMap that holds the lines.
pub const LOOKUP_TABLE_KEY: &str = "lookup.csv";
/// The label, and its value, that marks the ControllerRevisions which the operator keeps.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "fairlead");
/// The label of a ControllerRevision with the name of its Integration, where that is short enough for a label.
pub const INTEGRATION_LABEL: &str = "fairlead.dev/integration";
/// The annotation of a ControllerRevision with its number.
pub const REVISION_ANNOTATION: &str = "fairlead.dev/revision";
/// The annotation of a ControllerRevision with the digest of the spec that it holds.
pub const SPEC_DIGEST_ANNOTATION: &str = "fairlead.dev/spec-digest";
