//! ApiContract: what an entity is in this company.
//!
//! Types only. The JSON Schema inside is carried as it was written; the room `contract` reads it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{AllowedNamespaces, CANONICAL_FIELD, ConditionedStatus, ENTITY, MAX_PATH, MAX_QUALIFIED, Owner, conditions_schema};
use crate::rules;

/// The most Integrations that a contract's status names.
pub const MAX_USED_BY: usize = 1024;
/// The largest canonical schema, in bytes of JSON.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;

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
    pub owner: Option<Owner>,
    /// Where the contract stands in its life.
    pub lifecycle: Lifecycle,
    /// The JSON Schema (2020-12) of the canonical entity: an object with properties; at most 256 KiB.
    #[schemars(schema_with = "free_schema")]
    pub schema: serde_json::Map<String, serde_json::Value>,
    /// The canonical fields that tell one record from another for people, such as customerId.
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = MAX_PATH), regex(pattern = CANONICAL_FIELD)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub key: Vec<String>,
    /// Which other namespaces may build on this contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
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
    /// The major part of the version, or nothing where the version has none.
    pub fn major(&self) -> Option<&str> {
        self.version.split('.').next().filter(|part| !part.is_empty())
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
    /// Accepted, ResolvedRefs and Ready always; Reconciling and Stalled while they hold.
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
}

impl ConditionedStatus for ApiContractStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }
}
