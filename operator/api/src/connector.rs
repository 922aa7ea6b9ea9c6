//! Connector: one business system, its credentials and limits.
//!
//! Types only. Which parameters and methods a system offers stands in its definition; the planner compares.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    AllowedNamespaces, CircuitState, ConditionedStatus, LABEL, LastError, LocalRef, MAX_LABEL, MAX_SUBDOMAIN, MAX_TEXT, Owner, SUBDOMAIN,
    conditions_schema,
};
use crate::duration::Duration;
use crate::rules;

/// One business system as this namespace reaches it: where it is, with which credentials, within which limits.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "Connector",
    plural = "connectors",
    shortname = "fconn",
    category = "fairlead",
    namespaced,
    status = "ConnectorStatus",
    derive = "PartialEq",
    doc = "One business system as this namespace reaches it: where it is, with which credentials, within which limits.",
    printcolumn(name = "System", type_ = "string", json_path = ".status.system.name", description = "The system's name."),
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
    printcolumn(name = "Quota", type_ = "string", json_path = ".status.quota", description = "What is left of the quota."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since creation.")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::CONNECTOR)))]
#[schemars(transform = crate::crd::keep_field_words)]
pub struct ConnectorSpec {
    /// Who answers for this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The name of a built-in system definition, such as salesforce or netsuite. Either this or definitionRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub system: Option<String>,
    /// A ConfigMap in this namespace whose key definition.yaml holds a system definition, or one that extends a built-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition_ref: Option<LocalRef>,
    /// The base address of the system, without query or fragment.
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$"))]
    pub endpoint: String,
    /// The vendor's API version; the definition has a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub version: Option<String>,
    /// What else the definition asks for, such as NetSuite's account.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, String>,
    /// How to prove who we are.
    pub auth: Auth,
    /// What Fairlead may ask of the system, whatever the vendor would allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When to stop asking a system that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How often to try whether the system answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Whom to trust beyond the public certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Which other namespaces may refer to this connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

fn parameters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "x-kubernetes-map-type": "granular",
        "additionalProperties": {
            "type": "string", "maxLength": MAX_TEXT,
            "description": "The parameter's value.",
        },
    })
}

/// How to prove who we are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The method, one that the system's definition offers, such as JwtBearer, ClientCredentials or TokenBased.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = "^[A-Z][A-Za-z0-9]*$"))]
    pub method: String,
    /// The Secret in this namespace that holds the keys the method asks for. Its annotation fairlead.dev/allowed-hosts lists the hosts that may see it.
    pub secret_ref: LocalRef,
}

/// What Fairlead may ask of the system, whatever the vendor would allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Requests per second, shared by everything that uses this connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub requests_per_second: Option<i32>,
    /// Requests under way at one time (8 when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<i32>,
    /// Requests a day, from midnight to midnight in UTC, shared by everything that uses this connector; no limit of ours when left out. See docs/limits.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub daily_requests: Option<i32>,
    /// The share of the quota and of the concurrent requests that is kept for callers of the API, in percent (0 when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 90))]
    pub interactive_reserve_percent: Option<i32>,
}

/// When to stop asking a system that fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::CIRCUIT_BREAKER)))]
pub struct CircuitBreaker {
    /// So many failures open the circuit (5 when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub failures: Option<i32>,
    /// If they fall within this time (30s when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// How long requests then wait before one is tried (60s when left out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Duration>,
}

/// How often to try whether the system answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::cel(rules::PROBE)))]
pub struct Probe {
    /// The time between two probes (60s when left out); an unhealthy connector is tried after 5s, backing off to this, or to 60s where this is longer.
    pub every: Duration,
}

/// Whom to trust beyond the public certificate authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Where the certificates of a private authority lie, in PEM.
    pub ca_ref: CaRef,
}

/// Where the certificates of a private authority lie, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// The kind of object: ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CaKind>,
    /// The object's name, in this namespace.
    #[schemars(length(min = 1, max = MAX_SUBDOMAIN), regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// The key that holds the certificates.
    #[schemars(length(min = 1, max = MAX_SUBDOMAIN), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// The kinds of object that may hold certificates: ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    /// A ConfigMap.
    ConfigMap,
}

impl CircuitBreaker {
    /// How many failures open the circuit.
    pub fn failures(breaker: Option<&Self>) -> u32 {
        breaker.and_then(|b| b.failures).and_then(|n| u32::try_from(n).ok()).unwrap_or(5)
    }

    /// Within which time they must fall.
    pub fn within(breaker: Option<&Self>) -> std::time::Duration {
        breaker.and_then(|b| b.within).unwrap_or(Duration::from_secs(30)).0
    }

    /// How long requests wait then.
    pub fn open_for(breaker: Option<&Self>) -> std::time::Duration {
        breaker.and_then(|b| b.open_for).unwrap_or(Duration::from_secs(60)).0
    }
}

impl ConnectorSpec {
    /// The time between two probes of a healthy connector.
    pub fn probe_every(&self) -> std::time::Duration {
        self.probe.as_ref().map_or(Duration::from_secs(60), |probe| probe.every).0
    }

    /// The endpoint's host, where the endpoint is a URL that has one.
    pub fn host(&self) -> Option<String> {
        url::Url::parse(&self.endpoint).ok()?.host_str().map(str::to_owned)
    }
}

/// What the operator has seen of the system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::crd::keep_field_words)]
pub struct ConnectorStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Reachable and Ready always; Reconciling, Stalled, AuthExpiring and Throttled while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The system as its definition describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInfo>,
    /// Whether requests go out: Closed or Open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitState>,
    /// What is left of the quota, the vendor's or limits.dailyRequests: Ample, Low or Exhausted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// How many Integrations use this connector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub used_by: Option<i64>,
}

/// The system as its definition describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemInfo {
    /// The system's name.
    #[schemars(length(max = MAX_TEXT))]
    pub name: String,
    /// The vendor's API version in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub version: Option<String>,
    /// The day on which the vendor ends this version, such as 2027-06-30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub end_of_life: Option<String>,
}

/// What is left of the quota: Ample, Low or Exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quota {
    /// Enough.
    Ample,
    /// Little; backfills wait.
    Low,
    /// None, but for what is kept for callers of the API; the rest waits for the next window.
    Exhausted,
}

impl ConditionedStatus for ConnectorStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }
}
