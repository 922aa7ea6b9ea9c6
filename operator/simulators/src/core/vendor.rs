//! The seam between the shared server and one vendor's protocol.
//!
//! A vendor is a function from requests to replies over tables in memory. It does no I/O and never waits: cutting
//! connections, delays and dripping bodies are the server's work. Flow: the server asks [`Vendor::classify`], draws a fault,
//! lets the vendor [`Vendor::answer`] or [`Vendor::refuse`], and counts the request. Every write a vendor makes or rejects
//! goes through [`Desk::record`] while the vendor holds its state.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};
use indexmap::IndexMap;

use super::faults::PartialFailure;
use super::log::{Attempt, Log, Origin};
use super::value::{Fields, Value};

/// A request as a vendor sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Scheme and authority under which the simulator was started, such as `http://127.0.0.1:8080`.
    pub endpoint: String,
    /// The path as sent, still percent-encoded.
    pub path: String,
    /// The path cut at slashes and decoded; empty segments (a trailing slash) are left out.
    pub segments: Vec<String>,
    /// The query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Request {
    /// The first query parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The segments as string slices, for matching.
    pub fn parts(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The body as form fields (`application/x-www-form-urlencoded`).
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers; `content-length` and `date` are the server's business.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty for none.
    pub body: Bytes,
}

impl Reply {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// A JSON answer of this content type.
    pub fn json(status: u16, content_type: &str, body: &Value) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: Bytes::from(body.to_string()) }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What kind of work a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// Changes nothing.
    Read,
    /// Changes records.
    Write,
    /// Asks for or revokes a token.
    Auth,
}

/// What the server needs to know of a request before it is answered.
#[derive(Clone, Debug)]
pub struct Class {
    /// Read, write or auth.
    pub operation: Operation,
    /// A short stable word for the counters: `query`, `describe`, `upsert`, `token`.
    pub kind: &'static str,
    /// The vendor's name of the record type, where the request names one.
    pub entity: Option<String>,
}

/// A refusal that the vendor words in its own way. None of them has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request quota or the concurrency limit is used up.
    Limit {
        /// Sent as `Retry-After` where the vendor knows that header or the script insists.
        retry_after: Option<Duration>,
    },
    /// An error status (4xx or 5xx) with the vendor's usual body.
    Status(u16),
    /// An HTML page for people where a client expects JSON, with this status (200 or 503).
    Maintenance(u16),
}

/// Where a write is reported to.
#[derive(Clone, Copy, Debug)]
pub struct Desk<'a> {
    /// The log.
    pub log: &'a Log,
    /// Who asks.
    pub origin: Origin,
    /// False where the caller will not get the answer.
    pub answered: bool,
    /// The number of the HTTP request.
    pub request: u64,
    /// How long ago the stamps of this change say it was made: a long transaction is stamped when it begins and seen when
    /// it ends, after changes with later stamps. Zero but for a person's acts that say `secondsAgo`.
    pub late: Duration,
}

impl Desk<'_> {
    /// The time for the stamps of a change that is made now.
    #[must_use]
    pub fn stamp(&self) -> DateTime<Utc> {
        Utc::now() - self.late
    }

    /// Writes one line of the log, at this moment. Call it while the vendor's state is held.
    pub fn record(&self, attempt: Attempt<'_>) {
        self.log.append(Utc::now(), self.origin, self.answered, self.request, attempt);
    }
}

/// One request together with what a fault script does to it.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request.
    pub request: &'a Request,
    /// Where writes are reported to.
    pub desk: Desk<'a>,
    /// Read as if the last changes, no older than this, had not reached the reader yet.
    pub stale: Option<Duration>,
    /// Which items of a batch fail.
    pub partial: Option<&'a PartialFailure>,
}

impl Exchange<'_> {
    /// True where the script makes the item at this position (from 0) of a batch fail; the vendor words the error with
    /// [`PartialFailure::code`] or its own usual one.
    pub fn item_fails(&self, position: usize) -> bool {
        self.partial.is_some_and(|partial| partial.fails(position))
    }
}

/// What a person does in the vendor's own screens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Changes fields of a record.
    Edit {
        /// The vendor's id.
        id: String,
        /// New values by the vendor's field names; null clears.
        values: Fields,
    },
    /// Makes a record.
    Create {
        /// Its fields.
        values: Fields,
    },
    /// Deletes a record.
    Delete {
        /// The vendor's id.
        id: String,
    },
    /// Takes a deleted record out of the recycle bin.
    Undelete {
        /// The vendor's id.
        id: String,
    },
    /// Merges a record into another: it is deleted, what hangs on it goes to the other.
    Merge {
        /// The vendor's id of the record that goes.
        id: String,
        /// The vendor's id of the record that stays.
        into: String,
    },
}

/// One vendor's protocol.
pub trait Vendor: Send + Sync + 'static {
    /// What goes into the Kubernetes Secret: every key of every way to authenticate that this vendor offers.
    fn credentials(&self) -> IndexMap<String, String>;

    /// How many requests it answers at the same time; one more is refused with [`Refusal::Limit`]. No limit if none.
    fn concurrency(&self) -> Option<usize> {
        None
    }

    /// Says what a request is, without answering it.
    fn classify(&self, request: &Request) -> Class;

    /// Answers a request. The vendor reports each write to `exchange.desk`.
    fn answer(&self, exchange: &Exchange<'_>) -> Reply;

    /// Words a refusal.
    fn refuse(&self, request: &Request, refusal: Refusal) -> Reply;

    /// Makes every token given so far invalid.
    fn expire_tokens(&self);

    /// Everything present in an entity, all fields; `None` if there is no such entity.
    fn records(&self, entity: &str) -> Option<Vec<Value>>;

    /// Does what a person does in the vendor's screens, moving stamps as the vendor would, and reports it to `desk` with
    /// operation `edit`, `create`, `delete`, `undelete` or `merge`. Answers the record as it is afterwards, or what was wrong in words; an
    /// act that the vendor does not offer is wrong.
    fn person(&self, entity: &str, act: &Act, desk: &Desk<'_>) -> Result<Value, String>;
}
