//! Blocks that more than one kind uses: owners, references, consent, the last error, the maxima.
//!
//! Doc comments of types and fields in this and the three kinds' files are what `kubectl explain` prints, so they speak to the
//! person who writes the YAML. No field may carry a default that the API server fills in unless a list key needs it: each such
//! default shows as drift in a GitOps tool.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An object's name: a DNS label, so that it can stand in labels, hosts and file names.
pub(crate) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A ConfigMap's or Secret's name: a DNS subdomain.
pub(crate) const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A name, or namespace/name.
pub(crate) const QUALIFIED: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A canonical field path: names with dots (those of namespaces with hyphens), `[]` after a list. Empty where a row has no canonical side.
pub(crate) const CANONICAL_PATH: &str = r"^([A-Za-z_][A-Za-z0-9_-]*(\[\])?(\.[A-Za-z_][A-Za-z0-9_-]*(\[\])?)*)?$";
/// A canonical field path that must not be empty.
pub(crate) const CANONICAL_FIELD: &str = r"^[A-Za-z_][A-Za-z0-9_-]*(\[\])?(\.[A-Za-z_][A-Za-z0-9_-]*(\[\])?)*$";
/// An entity as a system or a contract calls it.
pub(crate) const ENTITY: &str = "^[A-Za-z][A-Za-z0-9_.-]*$";

pub(crate) const MAX_LABEL: usize = 63;
pub(crate) const MAX_SUBDOMAIN: usize = 253;
pub(crate) const MAX_QUALIFIED: usize = 127;
pub(crate) const MAX_PATH: usize = 256;
pub(crate) const MAX_EXPRESSION: usize = 1024;
pub(crate) const MAX_TEXT: usize = 256;
pub(crate) const MAX_MESSAGE: usize = 4096;
pub(crate) const MAX_NAMESPACES: usize = 256;
pub(crate) const MAX_CONDITIONS: usize = 16;
pub(crate) const MAX_PARTICIPANTS: usize = 8;
pub(crate) const MAX_ROWS: usize = 300;
/// Rows of one participant, those of its shared tables among them.
pub const MAX_MERGED_ROWS: usize = 600;
pub(crate) const MAX_TABLES: usize = 8;

/// Who answers for this object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The team that answers for this object.
    #[schemars(length(min = 1, max = MAX_TEXT))]
    pub team: String,
    /// Where that team can be reached: an address, a channel, a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_TEXT))]
    pub contact: Option<String>,
}

/// An object of a fixed kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// The object's name.
    #[schemars(length(min = 1, max = MAX_SUBDOMAIN), regex(pattern = SUBDOMAIN))]
    pub name: String,
}

/// An object of a fixed kind, here or in a namespace that allows this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// The object's name.
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub name: String,
    /// The object's namespace; this object's own when left out. The other side must list this namespace under allowedNamespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL))]
    pub namespace: Option<String>,
}

impl ObjectReference {
    /// The namespace meant, for a referrer in `own`.
    pub fn namespace_or<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}

/// Which other namespaces may refer to this object. Withdrawing one stops its use at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    /// The namespaces that may refer to this object, besides its own.
    #[schemars(
        length(max = MAX_NAMESPACES),
        inner(length(min = 1, max = MAX_LABEL), regex(pattern = LABEL)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub names: Vec<String>,
}

impl AllowedNamespaces {
    /// Whether an object in `target` with this consent (or none) may be used from `caller`.
    pub fn permit(consent: Option<&Self>, target: &str, caller: &str) -> bool {
        target == caller || consent.is_some_and(|allowed| allowed.names.iter().any(|name| name == caller))
    }
}

/// Whose hands an error is in: User, Data, Remote or Platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ErrorClass {
    /// Something that was declared is wrong; the author of a manifest or Secret acts.
    User,
    /// One record cannot be handled; the owner of the data or of the mapping acts.
    Data,
    /// The business system refuses or is away; waiting may help.
    Remote,
    /// Fairlead itself or the cluster beneath it; the platform team acts.
    Platform,
}

/// Whether requests to a system go out: Closed (they do) or Open (they wait, but for one now and then that tries).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CircuitState {
    /// Requests go out.
    Closed,
    /// Requests wait until the system has had time to recover, which one of them tries now and then.
    Open,
}

/// The last thing that went wrong. It stays after the cure, for a person who looks later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When it was seen.
    pub at: Time,
    /// The participant at which it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_LABEL))]
    pub participant: Option<String>,
    /// The record's id in the participant's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_TEXT))]
    pub external_id: Option<String>,
    /// The canonical record's id, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_TEXT))]
    pub record: Option<String>,
    /// Whose hands it is in: User, Data, Remote or Platform.
    pub class: ErrorClass,
    /// The reason, one of the documented list.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
    /// What happened, where, and what to do.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// The schema of a list of conditions: keyed by type, so that several writers can each own one.
pub(crate) fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the present state.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "type": "string", "minLength": 1, "maxLength": 316,
                    "description": "The aspect.",
                },
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds: True, False or Unknown.",
                },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the spec that was judged.",
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time",
                    "description": "When the status last changed from one value to another.",
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 128,
                    "description": "A stable word for why; each is explained under docs/reasons.",
                },
                "message": {
                    "type": "string", "maxLength": MAX_MESSAGE,
                    "description": "What is so, where, and what to do, for people.",
                },
            },
        },
    })
}

/// A status that carries conditions and says which generation it has seen.
pub trait ConditionedStatus {
    /// The conditions.
    fn conditions(&self) -> &[Condition];
    /// The generation of the spec that the whole status speaks of.
    fn observed_generation(&self) -> Option<i64>;
}
