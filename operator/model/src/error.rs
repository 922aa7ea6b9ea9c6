//! Error classes: what kind of trouble it is, which decides what happens next.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What a failure means for the record and for the connector (DESIGN: "Results settle").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// Passing trouble at the far end or on the way; retried with backoff. Nothing took effect.
    Transient,
    /// The vendor asks to slow down; waits as told, counts as no attempt.
    Throttled,
    /// The credentials are refused: pauses the connector once.
    Auth,
    /// The account may not touch this record type: pauses that entity on that connector.
    Permission,
    /// The record itself is refused: a dead letter.
    Data,
    /// Somebody else changed the record: read again, difference again.
    Conflict,
    /// The record is not there.
    NotFound,
    /// The request may have taken effect and no answer came: look it up before writing again.
    UnknownOutcome,
    /// Fairlead's own configuration or surroundings forbid it (endpoint not allowed, no Secret, unusable CA).
    Configuration,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A failure of a call to a business system, cleaned for people: no secret, no raw remote body, control characters neutralised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}: {message}")]
pub struct RemoteError {
    /// What happens next.
    pub class: ErrorClass,
    /// The documented reason word (`AuthenticationFailed`, `EndpointUnreachable`, `RateLimited`, `ValidationFailed`, ...).
    pub reason: String,
    /// For people: what was tried, what the vendor's code was, what to do.
    pub message: String,
    /// How long the vendor asks to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// The native field the vendor names, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The vendor's own words, cleaned and cut, where they may repeat values of the record. They are for the guarded view of a dead letter
    /// alone: never for status, metrics or a log that is on by default. They have no serial form, so that no report can carry them.
    #[serde(skip)]
    pub detail: Option<Box<str>>,
}

impl RemoteError {
    /// An error of `class` with a reason word and a message for people.
    #[must_use]
    pub fn new(class: ErrorClass, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), message: message.into(), retry_after: None, field: None, detail: None }
    }

    /// The same error with a wait that the vendor asked for.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The same error with the native field it speaks of.
    #[must_use]
    pub fn field(mut self, field: Option<String>) -> Self {
        self.field = field;
        self
    }

    /// The same error with the vendor's own words, which may hold personal values; or without them, for everybody's eyes.
    #[must_use]
    pub fn detail(mut self, detail: Option<String>) -> Self {
        self.detail = detail.map(String::into_boxed_str);
        self
    }
}
