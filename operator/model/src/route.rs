//! What the gateway needs to serve one contract as an API, and what it reports back.
//!
//! A route belongs to one ApiContract and is served under `/<domain>/<entity>/v<major>`. Like every unit it is plain text with a digest over
//! its content; the gateway compiles it aside, swaps it in whole, and acknowledges the digest.

use crate::hash::Digest;
use crate::id::ObjectRef;
use crate::path::FieldPath;
use crate::realm;
use crate::schema::CanonicalSchema;
use crate::time::Timestamp;
use crate::unit::ObjectKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One contract as an API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteUnit {
    /// The ApiContract resource.
    pub object: ObjectRef,
    /// Its generation.
    pub generation: i64,
    /// The digest over everything below.
    pub digest: Digest,
    /// The owner's domain, first part of the path.
    pub domain: String,
    /// The canonical entity, second part of the path.
    pub entity: String,
    /// The major version, third part of the path.
    pub major: u32,
    /// The whole version, for documents.
    pub version: String,
    /// The JSON Schema (2020-12) of the canonical entity.
    pub schema: Arc<Value>,
    /// The same, field by field.
    pub fields: Arc<CanonicalSchema>,
    /// Host names that it answers to; empty is any.
    pub hostnames: Vec<String>,
    /// Whose tokens are accepted; empty accepts nobody's.
    pub issuers: Vec<Issuer>,
    /// The longest time since a token was issued.
    pub max_token_age: Option<Duration>,
    /// Who may call; empty is every client whose token is accepted and has the scopes.
    pub consumers: Vec<Consumer>,
    /// What can be asked for, by kind; at most one of each.
    pub operations: BTreeMap<OperationKind, OperationUnit>,
}

/// Whose tokens are accepted (RFC 9068 access tokens).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// The `iss` claim.
    pub issuer: String,
    /// Where its keys are (RFC 7517 JWK set).
    pub jwks_uri: String,
    /// One of these must stand in `aud`.
    pub audiences: Vec<String>,
}

/// Who may call, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// The consumer's name, for limits, logs and metrics.
    pub name: String,
    /// Whose tokens name it: a client id means nothing without the issuer that gave it out.
    pub issuer: String,
    /// The `client_id` claims that are this consumer.
    pub client_ids: Vec<String>,
    /// What it may ask for; empty is all.
    pub operations: Vec<OperationKind>,
    /// How often, if limited.
    pub rate: Option<Rate>,
}

/// So many requests in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests; at least one.
    pub requests: u32,
    /// Within this time.
    pub per: Duration,
}

/// The kinds of operations on an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OperationKind {
    /// `GET /` with paging and filters.
    List,
    /// `GET /{id}`.
    Get,
    /// `POST /`.
    Create,
    /// `PATCH /{id}` with a JSON Merge Patch (RFC 7396).
    Update,
}

impl OperationKind {
    /// The word that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
        }
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationUnit {
    /// Scopes that a token must all have.
    pub scopes: Vec<String>,
    /// Who answers.
    pub backend: Backend,
    /// List only: canonical fields that may be filtered by; each is an index in the store.
    pub filters: Vec<FieldPath>,
    /// How long the caller waits at most.
    pub timeout: Duration,
    /// Writes only: whether an Idempotency-Key must be sent.
    pub idempotency: Idempotency,
}

/// Who answers an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// The canonical store.
    Store {
        /// Whose records: the Integration `namespace/name`, or the contract's golden ones (see [`crate::realm`]).
        realm: ObjectKey,
    },
    /// A participant of an Integration: the first target whose `when` is true.
    Participants {
        /// Tried in order.
        targets: Vec<ParticipantTarget>,
    },
}

/// A participant that takes writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantTarget {
    /// An expression over the canonical document as `.input`; left out is always.
    pub when: Option<String>,
    /// The Integration.
    pub integration: ObjectKey,
    /// Its participant.
    pub participant: String,
}

/// Whether an Idempotency-Key must be sent with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Idempotency {
    /// A write without one is refused.
    #[default]
    Required,
    /// It counts where it is sent.
    Optional,
}

/// What the gateway says of one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// The unit that is served; none if the first one could not be taken over.
    pub served: Option<ServedRoute>,
    /// A newer unit that could not be taken over; the served one goes on.
    pub rejected: Option<RejectedRoute>,
    /// Issuers whose keys cannot be used, by their name, and why: nobody with a token of theirs gets in. One whose last fetch failed while its
    /// keys from before still serve is none of them.
    pub issuers: BTreeMap<String, String>,
}

/// The unit that answers requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedRoute {
    /// Its digest.
    pub digest: Digest,
    /// Its contract version.
    pub version: String,
    /// Since when this digest is served.
    pub since: Timestamp,
}

/// A unit that the gateway could not take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRoute {
    /// Its digest.
    pub digest: Digest,
    /// Another contract that is served under the same path and host, if that is why.
    pub conflict: Option<ObjectKey>,
    /// Why, for people.
    pub message: String,
}

/// Whether two routes with these host names stand in each other's way on one path: they share a name, or one of them names none and so
/// answers to any.
#[must_use]
pub fn hosts_meet(one: &[String], another: &[String]) -> bool {
    one.is_empty() || another.is_empty() || one.iter().any(|host| another.contains(host))
}

impl RouteUnit {
    /// The same unit with its digest computed over all other content but the generation.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.digest = Digest::default();
        let generation = std::mem::take(&mut self.generation);
        self.digest = Digest::of_serialized(&self);
        self.generation = generation;
        self
    }

    /// The Integrations that its operations speak of, some perhaps more than once. Golden records are the contract's own.
    pub fn integrations(&self) -> impl Iterator<Item = &ObjectKey> {
        self.operations.values().flat_map(|operation| match &operation.backend {
            Backend::Store { realm } => Some(realm).filter(|realm| !realm::is_contract(&realm.0)).into_iter().collect::<Vec<_>>(),
            Backend::Participants { targets } => targets.iter().map(|target| &target.integration).collect(),
        })
    }

    /// The path under which it is served, without a closing slash.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}/v{}", self.domain, self.entity, self.major)
    }
}
