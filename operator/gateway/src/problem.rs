//! Errors as callers read them: RFC 9457 problem details with stable types. They name the place and never repeat a value.

use crate::backend::BackendError;
use fairlead_contract::Violation;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::time::Duration;

/// Where the types are described; the type of a problem is this and its slug.
pub const TYPE_BASE: &str = "https://fairlead.dev/problems/";
/// The longest text from outside that is repeated: a field's or parameter's name.
const MAX_NAME: usize = 128;

macro_rules! kinds {
    ($($variant:ident $slug:literal $status:ident $title:literal;)*) => {
        /// The kinds of problems. Slug and status are an API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $title] $variant,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The last part of its type.
            #[must_use]
            pub fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug),* }
            }

            /// Its HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),* }
            }

            /// What it says in general.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

kinds! {
    InvalidParameter "invalid-parameter" BAD_REQUEST "A query parameter is not usable";
    InvalidHeader "invalid-header" BAD_REQUEST "A header is not usable";
    InvalidBody "invalid-body" BAD_REQUEST "The body does not keep to the contract";
    IdempotencyKeyMissing "idempotency-key-missing" BAD_REQUEST "This operation needs an Idempotency-Key";
    TokenMissing "token-missing" UNAUTHORIZED "An access token is needed";
    TokenInvalid "token-invalid" UNAUTHORIZED "The access token is not accepted";
    ScopeMissing "scope-missing" FORBIDDEN "The access token lacks a scope";
    ConsumerUnknown "consumer-unknown" FORBIDDEN "The client is no consumer of this contract";
    OperationNotAllowed "operation-not-allowed" FORBIDDEN "The consumer may not use this operation";
    NotFound "not-found" NOT_FOUND "There is nothing here";
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The contract does not offer this method here";
    NotAcceptable "not-acceptable" NOT_ACCEPTABLE "Only application/json can be given";
    RequestTimeout "request-timeout" REQUEST_TIMEOUT "The request did not arrive in time";
    Conflict "conflict" CONFLICT "The request contradicts what is there";
    IdempotencyKeyRunning "idempotency-key-running" CONFLICT "The first request with this Idempotency-Key is still running";
    Gone "gone" GONE "The record is deleted";
    Changed "changed" PRECONDITION_FAILED "The record is not the version that the request is about";
    BodyTooLarge "body-too-large" PAYLOAD_TOO_LARGE "The body is too large";
    UriTooLong "uri-too-long" URI_TOO_LONG "The request target is too long";
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "The body's media type or encoding is not usable here";
    IdempotencyKeyReused "idempotency-key-reused" UNPROCESSABLE_ENTITY "The Idempotency-Key was used for another request";
    Rejected "rejected" UNPROCESSABLE_ENTITY "The target refuses the data";
    NoTarget "no-target" UNPROCESSABLE_ENTITY "No target takes this record";
    TooManyRequests "too-many-requests" TOO_MANY_REQUESTS "The consumer's rate is used up";
    Internal "internal" INTERNAL_SERVER_ERROR "Something went wrong in the gateway";
    Unavailable "unavailable" SERVICE_UNAVAILABLE "The target is not available";
    KeysUnavailable "keys-unavailable" SERVICE_UNAVAILABLE "The issuer's keys cannot be had for now";
    Timeout "timeout" GATEWAY_TIMEOUT "The target did not answer in time";
}

/// One problem, to be sent.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: Option<String>,
    errors: Vec<Value>,
    /// Boxed, since a problem is the rare half of nearly every result here.
    headers: Box<HeaderMap>,
}

impl Problem {
    /// A problem without particulars.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, detail: None, errors: vec![], headers: Box::default() }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds a sentence about this occurrence.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a place in the body. Its pointer is into the body as sent.
    #[must_use]
    pub(crate) fn at(mut self, pointer: &str, detail: &str) -> Self {
        self.errors.push(json!({"pointer": short(pointer), "detail": clean(detail, 512)}));
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub(crate) fn parameter(mut self, name: &str, detail: &str) -> Self {
        self.errors.push(json!({"parameter": short(name), "detail": detail}));
        self
    }

    /// Adds the contract's violations; their pointers are below `data`.
    #[must_use]
    pub(crate) fn violations(self, violations: &[Violation]) -> Self {
        violations.iter().fold(self, |problem, violation| problem.at(&format!("/data{}", violation.pointer), &violation.message))
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Says when to come again, in whole seconds, rounded up.
    #[must_use]
    pub(crate) fn retry_after(self, after: Option<Duration>) -> Self {
        match after {
            Some(after) => self.header(header::RETRY_AFTER, HeaderValue::from(seconds_up(after))),
            None => self,
        }
    }

    /// Status, headers and body.
    pub(crate) fn into_parts(self) -> (StatusCode, HeaderMap, String) {
        let mut body = json!({
            "type": format!("{TYPE_BASE}{}", self.kind.slug()),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
        });
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        if !self.errors.is_empty() {
            body["errors"] = self.errors.into();
        }
        let mut headers = *self.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        (self.kind.status(), headers, body.to_string())
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NotFound => Self::new(Kind::NotFound),
            BackendError::Gone => Self::new(Kind::Gone),
            BackendError::Changed => Self::new(Kind::Changed),
            BackendError::Conflict { detail, violations, retry_after } => {
                Self::new(Kind::Conflict).detail(detail).violations(&violations).retry_after(retry_after)
            }
            BackendError::Rejected { detail, violations } => Self::new(Kind::Rejected).detail(detail).violations(&violations),
            BackendError::NoTarget => Self::new(Kind::NoTarget),
            BackendError::Throttled { retry_after } => {
                Self::new(Kind::Unavailable).detail("the target takes no more requests for now").retry_after(retry_after)
            }
            BackendError::Unavailable { detail, retry_after } => Self::new(Kind::Unavailable).detail(detail).retry_after(retry_after),
            BackendError::Timeout { sent: true } => {
                Self::new(Kind::Timeout).detail("the outcome is not known; repeat the request with the same Idempotency-Key")
            }
            BackendError::Timeout { sent: false } => Self::new(Kind::Timeout),
            BackendError::Internal(_) => Self::new(Kind::Internal),
        }
    }
}

/// Whole seconds, rounded up.
pub(crate) fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// A name from outside, cut.
pub(crate) fn short(name: &str) -> String {
    clean(name, MAX_NAME)
}

/// Text from outside without control characters, cut at `most` characters.
fn clean(text: &str, most: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_statuses_are_errors() {
        let mut slugs: Vec<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.status().is_client_error() || kind.status().is_server_error()));
    }

    #[test]
    fn every_kind_has_its_row_in_the_documentation() {
        let page = include_str!("../../../docs/problems.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | {} |", kind.slug(), kind.status().as_u16());
            assert!(page.contains(&row), "docs/problems.md lacks {row}");
        }
        assert_eq!(page.matches("\n| `").count(), Kind::ALL.len());
    }

    #[test]
    fn what_only_the_log_may_know_does_not_leave() {
        let (_, _, body) = Problem::from(BackendError::Internal("pg://user:secret@host".into())).into_parts();
        assert!(!body.contains("secret"), "{body}");
    }
}
