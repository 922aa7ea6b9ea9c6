//! NetSuite's error body: a problem with one or more `o:errorDetails`.
//!
//! Status, code and place of every refusal are words that a connector classifies by; they live here and nowhere else.
//! Codes follow the vendor's published table; spelling that no public source confirms is what clients report.

use crate::core::value::Value;
use crate::core::vendor::Reply;

/// The media type of error bodies.
const CONTENT_TYPE: &str = "application/vnd.oracle.resource+json; type=error";

/// Where in a request an error lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A property of the body, as a path.
    Property(String),
    /// A query parameter.
    Parameter(&'static str),
    /// A header.
    Header(&'static str),
}

/// One entry of `o:errorDetails`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detail {
    pub(super) code: String,
    pub(super) text: String,
    pub(super) place: Option<Place>,
}

/// A refusal. It has had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: u16,
    title: Option<&'static str>,
    details: Vec<Detail>,
    location: Option<String>,
}

impl Problem {
    pub(super) fn new(status: u16, code: impl Into<String>, text: impl Into<String>) -> Self {
        let detail = Detail { code: code.into(), text: text.into(), place: None };
        Self { status, title: None, details: vec![detail], location: None }
    }

    /// The same problem, at this place.
    pub(super) fn at(mut self, place: Place) -> Self {
        for detail in &mut self.details {
            detail.place = Some(place.clone());
        }
        self
    }

    /// Several problems of one body; none if there are none.
    pub(super) fn all(details: Vec<Detail>) -> Option<Self> {
        (!details.is_empty()).then_some(Self { status: 400, title: None, details, location: None })
    }

    pub(super) fn login() -> Self {
        let text = "Invalid login attempt. For more details, see the Login Audit Trail in the NetSuite UI at Setup > \
                    Users/Roles > User Management > View Login Audit Trail.";
        Self::new(401, "INVALID_LOGIN", text)
    }

    pub(super) fn content(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(400, "INVALID_CONTENT", text).at(Place::Property(path.into()))
    }

    pub(super) fn parameter(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(400, "INVALID_PARAMETER", text).at(Place::Parameter(name))
    }

    pub(super) fn header(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(400, "INVALID_HEADER", text).at(Place::Header(name))
    }

    pub(super) fn absent(record: &str) -> Self {
        let text = format!("The record instance does not exist. Provide a valid record instance ID. ({record})");
        Self::new(404, "NONEXISTENT_ID", text)
    }

    pub(super) fn unknown_type(record_type: &str) -> Self {
        Self::new(404, "NOT_FOUND", format!("Record type '{record_type}' does not exist or is not accessible."))
    }

    pub(super) fn method(method: &http::Method, allowed: &str) -> Self {
        Self::new(405, "METHOD_NOT_ALLOWED", format!("Method {method} is not allowed here; allowed: {allowed}."))
    }

    pub(super) fn throttled() -> Self {
        Self::new(
            429,
            "CONCURRENCY_LIMIT_EXCEEDED",
            "The request was rejected because the account's limit of concurrent requests is exceeded. Try again later.",
        )
    }

    /// A second asynchronous request with the same idempotency key: the job it names is the first one's.
    pub(super) fn idempotency(job: String) -> Self {
        let mut problem = Self::new(400, "IDEMPOTENCY_ERROR", "A request with this idempotency key has been submitted already.")
            .at(Place::Header("X-NetSuite-Idempotency-Key"));
        problem.title = Some("Conflict");
        problem.location = Some(job);
        problem
    }

    /// What the account usually says with this status; for faults that only name a status.
    pub(super) fn usual(status: u16) -> Self {
        match status {
            401 => Self::login(),
            403 => {
                Self::new(403, "INSUFFICIENT_PERMISSION", "Permission Violation: the subrecord or record is not accessible to the role.")
            }
            404 => Self::absent("unknown"),
            409 => Self::new(409, "RCRD_HAS_BEEN_CHANGED", "Record has been changed since it was read."),
            429 => Self::throttled(),
            400..=499 => Self::new(status, "INVALID_CONTENT", "The request was refused."),
            _ => Self::new(status, "UNEXPECTED_ERROR", "An unexpected error has occurred. Error ID: m4x0q1y7-simulated"),
        }
    }

    /// The first code, for the log.
    pub(super) fn code(&self) -> &str {
        self.details.first().map_or("", |detail| detail.code.as_str())
    }

    /// The words for people.
    pub(super) fn text(&self) -> String {
        self.details.iter().map(|detail| detail.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let (section, title) = match self.status {
            400 => ("10.4.1", "Bad Request"),
            401 => ("10.4.2", "Unauthorized"),
            403 => ("10.4.4", "Forbidden"),
            404 => ("10.4.5", "Not Found"),
            405 => ("10.4.6", "Method Not Allowed"),
            409 => ("10.4.10", "Conflict"),
            415 => ("10.4.16", "Unsupported Media Type"),
            429 => ("10.4", "Too Many Requests"),
            502 => ("10.5.3", "Bad Gateway"),
            503 => ("10.5.4", "Service Unavailable"),
            504 => ("10.5.5", "Gateway Timeout"),
            500.. => ("10.5.1", "Internal Server Error"),
            _ => ("10.4", "Error"),
        };
        let detail = |detail: &Detail| {
            let mut pairs = vec![("detail", Value::text(&detail.text))];
            match &detail.place {
                Some(Place::Property(path)) => pairs.push(("o:errorPath", Value::text(path))),
                Some(Place::Parameter(name)) => pairs.push(("o:errorQueryParam", Value::text(*name))),
                Some(Place::Header(name)) => pairs.push(("o:errorHeader", Value::text(*name))),
                None => {}
            }
            pairs.push(("o:errorCode", Value::text(&detail.code)));
            Value::object(pairs)
        };
        Value::object([
            ("type", Value::text(format!("https://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#sec{section}"))),
            ("title", Value::text(self.title.unwrap_or(title))),
            ("status", Value::int(self.status)),
            ("o:errorDetails", Value::List(self.details.iter().map(detail).collect())),
        ])
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let reply = Self::json(problem.status, CONTENT_TYPE, &problem.body());
        match problem.location {
            Some(location) => reply.with("location", location),
            None => reply,
        }
    }
}
