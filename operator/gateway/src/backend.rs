//! Who answers: the gateway's side of the canonical store and of the participants that take writes.
//!
//! The gateway knows contracts, tokens and HTTP. Where records are, how they are mapped and which `when` is true it asks through these traits.

use crate::request::TraceContext;
use async_trait::async_trait;
use fairlead_contract::Violation;
use fairlead_model::route::{OperationKind, RouteUnit};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Document, FieldPath, RecordId};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Makes backends for routes.
pub trait Backends: Send + Sync + 'static {
    /// Prepares whatever `unit`'s operations need: expressions compiled, realms found. Called off the request path, before the unit is swapped
    /// in; may take its time.
    ///
    /// # Errors
    /// Why the unit cannot be served, for people. The unit is rejected and the last good one goes on.
    fn bind(&self, unit: &RouteUnit) -> Result<Arc<dyn Backend>, String>;
}

/// Answers the operations of one route.
///
/// A read's future is dropped when its deadline passes. A write's never is: it runs to its end whether or not somebody still waits, so that its
/// outcome is kept under its Idempotency-Key. It keeps to the deadline by itself: what was not sent by then is not sent at all.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// A page of records, in a stable order.
    async fn list(&self, call: &Call, query: ListQuery) -> Result<Page, BackendError>;

    /// One record. Called for `get`, and to find what an `update` changes.
    async fn get(&self, call: &Call, id: RecordId) -> Result<Record, BackendError>;

    /// Creates a record. With the same [`Call::idempotency_key`] and the same document it must not create a second one; with another document it
    /// must not take the first one for its own.
    async fn create(&self, call: &Call, document: Document) -> Result<Record, BackendError>;

    /// Changes a record.
    async fn update(&self, call: &Call, update: Update) -> Result<Record, BackendError>;
}

/// Who asks, and how long they wait.
#[derive(Debug, Clone)]
pub struct Call {
    /// The contract.
    pub contract: ObjectKey,
    /// What is asked for.
    pub operation: OperationKind,
    /// The consumer's name, or `issuer client_id` where the contract lists no consumers.
    pub consumer: String,
    /// The request's id, for logs.
    pub request_id: String,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Writes: the caller's key, if one was sent. Unique only together with contract, operation and consumer.
    pub idempotency_key: Option<String>,
}

/// A canonical record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Rises with every change.
    pub version: u64,
    /// What it holds. Fields that the contract does not declare never leave the gateway.
    pub document: Document,
}

/// What to list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// All must hold.
    pub filters: Vec<Filter>,
    /// The most records wanted.
    pub limit: u32,
    /// [`Page::next`] of the page before. It went through the caller's hands sealed, so it is what the backend gave.
    pub after: Option<String>,
}

/// A field that must have this value.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The field; one of the operation's declared filters.
    pub field: FieldPath,
    /// The value in canonical form: a whole number, true or false, or text (decimals and dates as documents hold them).
    pub value: Value,
}

/// Some records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// Where the next page begins, at most 1 KiB; none if this is the last one.
    pub next: Option<String>,
}

/// A change that has been checked against the contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The record.
    pub id: RecordId,
    /// The version that the change was computed from. If the record has another by now, answer [`BackendError::Changed`].
    pub base: u64,
    /// What the caller sent: a JSON Merge Patch (RFC 7396); null takes a field away.
    pub patch: Document,
    /// The declared fields as they should be afterwards.
    pub document: Document,
}

/// Why a backend has no answer. Texts are read by the caller and must not hold values of records.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// There is no such record.
    #[error("there is no such record")]
    NotFound,
    /// There was one; it is deleted.
    #[error("the record is deleted")]
    Gone,
    /// The record is no longer at [`Update::base`].
    #[error("the record was changed meanwhile")]
    Changed,
    /// It contradicts what is there, such as a record with the same key, or lacks what is not there yet.
    #[error("conflict: {detail}")]
    Conflict {
        /// In short.
        detail: String,
        /// Fields, where they are known.
        violations: Vec<Violation>,
        /// When to come again, where it passes by itself.
        retry_after: Option<Duration>,
    },
    /// The business system refuses the data.
    #[error("refused: {detail}")]
    Rejected {
        /// In short.
        detail: String,
        /// Fields, where the system names them.
        violations: Vec<Violation>,
    },
    /// No participant's `when` is true for the record.
    #[error("no target takes this record")]
    NoTarget,
    /// Quota or rate of the business system is used up; nothing was sent.
    #[error("the target takes no more requests for now")]
    Throttled {
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// It cannot be reached, or is paused; nothing was sent.
    #[error("unavailable: {detail}")]
    Unavailable {
        /// In short.
        detail: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout {
        /// Whether the write may have reached the business system, so that its outcome is not known.
        sent: bool,
    },
    /// Something of ours is broken; the text is for the log and never leaves.
    #[error("internal: {0}")]
    Internal(String),
}
