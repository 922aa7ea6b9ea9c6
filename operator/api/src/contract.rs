//! ApiContract: what an entity is in this company, and who may ask for it how.
//!
//! Types only. The JSON Schema inside is carried as it was written; the room `contract` reads it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::common::{
    AllowedNamespaces, CANONICAL_FIELD, ConditionedStatus, ENTITY, LABEL, MAX_EXPRESSION, MAX_LABEL, MAX_PARTICIPANTS, MAX_PATH,
    MAX_QUALIFIED, MAX_SUBDOMAIN, MAX_TEXT, ObjectReference, SUBDOMAIN, conditions_schema,
};
use crate::duration::Duration;
use crate::integration::{OnAmbiguous, OwnershipRule, Tie, match_schema};
use crate::rules;

/// The most Integrations that a contract's status names.
pub const MAX_USED_BY: usize = 1024;
/// The largest canonical schema, in bytes of JSON.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// The most consumers of one contract.
pub const MAX_CONSUMERS: usize = 64;
/// Business units with fields of their own.
const MAX_EXTENSIONS: usize = 32;
/// A namespace whose name can stand in a field path.
const UNIT: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// An OAuth scope (RFC 6749, section 3.3): printable ASCII without space, quote and backslash.
pub(crate) const SCOPE: &str = r"^[!#-\[\]-~]+$";
/// A client id (RFC 6749, appendix A.1): printable ASCII.
pub(crate) const CLIENT_ID: &str = "^[ -~]+$";
/// An issuer or an audience: printable ASCII without spaces.
pub(crate) const TOKEN_TEXT: &str = "^[!-~]+$";
/// Where a key set lies.
pub(crate) const JWKS_URI: &str = r"^https?://[A-Za-z0-9._\-\[\]:]+(/[!-~]*)?$";

/// What an entity is in this company: its fields, its key, its version, and who may build on it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "ApiContract",
    plural = "apicontracts",
    shortname = "fcontract",
    category = "fairlead",
    namespaced,
    status = "ApiContractStatus",
    derive = "PartialEq",
    doc = "What an entity is in this company: its fields, its key, its version, and who may build on it.",
    printcolumn(name = "Entity", type_ = "string", json_path = ".spec.entity", description = "The canonical entity."),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version", description = "The contract's version."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".spec.lifecycle.phase", description = "Where it stands in its life."),
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since creation.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel_with(rules::CONTRACT, rules::CONTRACT_CHANGES)))]
#[schemars(transform = crate::crd::keep_field_words)]
pub struct ApiContractSpec {
    /// The canonical entity, such as customer.
    #[schemars(length(min = 1, max = 128), regex(pattern = ENTITY))]
    pub entity: String,
    /// The contract's version, major.minor.patch. The major part never changes within one object.
    #[schemars(length(min = 5, max = 32), regex(pattern = r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$"))]
    pub version: String,
    /// Who answers for this contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ContractOwner>,
    /// Where the contract stands in its life.
    pub lifecycle: Lifecycle,
    /// The JSON Schema (2020-12) of the canonical entity: an object with properties; at most 256 KiB.
    #[schemars(schema_with = "free_schema")]
    pub schema: serde_json::Map<String, serde_json::Value>,
    /// Fields of business units besides: each namespace's own stand under ext.NAMESPACE and are filled by the Integrations of that namespace
    /// alone. The rest of the schema stays as it is for everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_EXTENSIONS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace"])
    )]
    pub extensions: Vec<Extension>,
    /// The canonical fields that tell one record from another for people, such as customerId.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = MAX_PATH), regex(pattern = CANONICAL_FIELD)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub key: Vec<String>,
    /// Whose record it is, and whose value wins. When left out, each Integration keeps its own records and says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Master>,
    /// Which other namespaces may build on this contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// What callers can ask for, under /domain/entity/v1: at most one operation of each name. Without operations nothing is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 4),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub operations: Vec<Operation>,
    /// Whose tokens are accepted. Needed as soon as there are operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Who may call. When left out, every client whose token is accepted and has the scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_CONSUMERS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub consumers: Vec<Consumer>,
    /// Under which host names the operations are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
}

/// The fields of one business unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// The namespace whose Integrations fill these fields.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = UNIT))]
    pub namespace: String,
    /// The JSON Schema (2020-12) of ext.NAMESPACE: an object with properties. It may refer to the $defs of spec.schema.
    #[schemars(schema_with = "free_schema")]
    pub schema: serde_json::Map<String, serde_json::Value>,
}

/// Whose record it is, and whose value wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::MASTER)))]
pub struct Master {
    /// Integration (when left out): each Integration keeps its own records. Contract: all Integrations on this contract feed one golden
    /// record, and what stands here holds for all of them. Cannot change within one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<MasterScope>,
    /// How records of different systems are recognised as the same: rules tried in order, each a list of canonical fields that must all be equal.
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

/// Whose record it is: Integration or Contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MasterScope {
    /// Each Integration keeps its own records.
    #[default]
    Integration,
    /// All Integrations on the contract feed one golden record.
    Contract,
}

/// Who answers for a contract, and in which domain it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContractOwner {
    /// The team that answers for this object.
    #[schemars(length(min = 1, max = MAX_TEXT))]
    pub team: String,
    /// The business domain, such as sales: the first part of the path under which the operations are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub domain: Option<String>,
    /// Where that team can be reached: an address, a channel, a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_TEXT))]
    pub contact: Option<String>,
}

/// What callers can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::OPERATION)))]
pub struct Operation {
    /// list (GET on the collection), get (GET on a record), create (POST) or update (PATCH with a JSON Merge Patch).
    pub name: OperationName,
    /// The scopes that a token must all have. When left out, any accepted token will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = 128), regex(pattern = SCOPE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub scopes: Vec<String>,
    /// Where list and get read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ReadFrom>,
    /// Where create and update go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<WriteTo>,
    /// Canonical fields by which a list may be filtered, as ?field=value; each becomes an index of the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = MAX_PATH), regex(pattern = CANONICAL_FIELD)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub filters: Vec<String>,
    /// How long a caller waits at most; 5s when left out, 30s at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether a create or update without an Idempotency-Key is refused: Required (when left out) or Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
}

/// The operations on an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OperationName {
    /// GET on the collection, with paging and filters.
    List,
    /// GET on a record.
    Get,
    /// POST on the collection.
    Create,
    /// PATCH on a record, with a JSON Merge Patch (RFC 7396).
    Update,
}

impl OperationName {
    /// Whether it changes anything.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }
}

/// Where list and get read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadFrom {
    /// The canonical records that Fairlead keeps.
    pub store: StoreSource,
}

/// Canonical records: the golden ones of the contract, or those of one Integration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreSource {
    /// The Integration whose records are served. It must build on this contract. Left out where master.scope is Contract: there the records
    /// are the contract's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<ObjectReference>,
}

/// Where create and update go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteTo {
    /// The participants that take the write; the first whose when is true.
    #[schemars(
        length(min = 1, max = MAX_PARTICIPANTS),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub participants: Vec<TargetParticipant>,
}

/// A participant that takes writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetParticipant {
    /// Only documents for which this VRL expression over .input, the canonical document, is true. When left out, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION))]
    pub when: Option<String>,
    /// The Integration's namespace; this object's own when left out. The Integration must list this namespace under allowedNamespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// The Integration. It must build on this contract.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub integration: String,
    /// Its participant, which must be written by the Integration.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub participant: String,
}

/// Whether a write needs an Idempotency-Key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Idempotency {
    /// A write without one is refused.
    Required,
    /// It counts where it is sent.
    Optional,
}

/// Whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::SECURITY)))]
pub struct Security {
    /// The issuers of JWT access tokens (RFC 9068).
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer"])
    )]
    pub issuers: Vec<Issuer>,
    /// The longest time since a token was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_token_age: Option<Duration>,
}

/// One issuer of access tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// The token's iss claim, letter for letter.
    #[schemars(length(min = 1, max = 512), regex(pattern = TOKEN_TEXT))]
    pub issuer: String,
    /// Where its public keys are (a JWK set, RFC 7517). Fetched again as keys rotate.
    #[schemars(length(min = 1, max = 512), regex(pattern = JWKS_URI))]
    pub jwks_uri: String,
    /// One of these must stand in the token's aud claim.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 512), regex(pattern = TOKEN_TEXT)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
}

/// Who may call, what, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// The consumer's name, for limits, logs and metrics.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub name: String,
    /// Whose tokens name it: one of security.issuers. Needed where there are several; another issuer's client of the same id is not this consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = TOKEN_TEXT))]
    pub issuer: Option<String>,
    /// The client_id claims that are this consumer. Each belongs to one consumer of its issuer only.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = MAX_TEXT), regex(pattern = CLIENT_ID)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub client_ids: Vec<String>,
    /// What it may ask for. When left out, all operations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub operations: Vec<OperationName>,
    /// How often; not limited when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// So many requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::RATE)))]
pub struct Rate {
    /// How many requests ...
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: i32,
    /// ... within this time; from 1s to 1h.
    pub per: Duration,
}

/// Under which host names the operations are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// The host names; requests to others find nothing here.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = MAX_SUBDOMAIN), regex(pattern = SUBDOMAIN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,
}

fn free_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Where the contract stands in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Draft (may change freely) or Published (others build on it).
    pub phase: Phase,
}

/// The phases of a contract's life: Draft or Published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// May change freely.
    Draft,
    /// Others build on it.
    Published,
}

impl ApiContractSpec {
    /// Whether all Integrations on this contract feed one golden record.
    pub fn is_master(&self) -> bool {
        self.master.as_ref().is_some_and(Master::is_golden)
    }

    /// The major part of the version, or nothing where the version has none.
    pub fn major(&self) -> Option<&str> {
        self.version.split('.').next().filter(|part| !part.is_empty())
    }
}

impl Master {
    /// Whether all Integrations on the contract feed one golden record.
    pub fn is_golden(&self) -> bool {
        self.scope == Some(MasterScope::Contract)
    }

    /// Which of several participants of one role owns a field.
    pub fn tie(&self) -> Tie {
        self.tie.unwrap_or_default()
    }
}

/// What the operator has found of the contract.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::crd::keep_field_words)]
pub struct ApiContractStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed and Ready always; Reconciling and Stalled while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The Integrations that build on this contract, as namespace/name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_USED_BY),
        inner(length(min = 1, max = MAX_QUALIFIED)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub used_by: Vec<String>,
    /// What the gateway serves; it may be an older version while a newer one is wrong or on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
    /// Where it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// How many consumers the contract names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub consumers: Option<i64>,
}

/// What the gateway serves of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// The contract's version.
    #[schemars(length(min = 1, max = 32))]
    pub version: String,
    /// The digest of the route, as the gateway acknowledged it.
    #[schemars(length(min = 1, max = 128))]
    pub digest: String,
    /// Since when.
    pub since: Time,
}

impl ConditionedStatus for ApiContractStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }
}
