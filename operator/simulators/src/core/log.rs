//! The ordered log of every request that changed something or tried to.
//!
//! It is the oracle of loss, duplicate and order checks, so it says what the simulator *did*, not what a client believes:
//! an entry stands in the order of its effect, and `answered` is false where the caller never got the answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::value::Value;

/// What a request did to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// A record came into being.
    Created,
    /// A record has other content than before.
    Updated,
    /// The write was accepted and left the record as it was.
    Unchanged,
    /// A record went away.
    Deleted,
    /// Nothing was changed; `code` says why.
    Rejected,
}

/// Who asked for the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// A client of the vendor's API.
    Api,
    /// A person in the vendor's own screens (`/__fairlead/edit`, `create`, `delete`).
    Person,
}

/// What a vendor reports about one record of one request.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The vendor's name of the record type (`Account`, `customer`).
    pub entity: &'a str,
    /// The vendor's id of the record; empty where no record came of it.
    pub key: &'a str,
    /// The external id by which the caller named the record, if it did.
    pub external_id: Option<&'a str>,
    /// `create`, `update`, `upsert`, `delete`, `edit` or a vendor's own word.
    pub operation: &'a str,
    /// What the caller wanted to write.
    pub values: Value,
    /// What came of it.
    pub outcome: Outcome,
    /// The vendor's error code where it was rejected.
    pub code: Option<&'a str>,
}

/// One line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counts from 1 without a gap.
    pub sequence: u64,
    /// When the effect happened, RFC 3339 with microseconds.
    pub time: String,
    /// The vendor's name of the record type.
    pub entity: String,
    /// The vendor's id of the record; empty where no record came of it.
    pub key: String,
    /// The external id by which the caller named the record, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// `create`, `update`, `upsert`, `delete`, `edit` or a vendor's own word.
    pub operation: String,
    /// What the caller wanted to write.
    pub values: Value,
    /// What came of it.
    pub outcome: Outcome,
    /// The vendor's error code where it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// False where a fault (or the caller's own end) kept the answer from the caller.
    pub answered: bool,
    /// Who asked.
    pub origin: Origin,
    /// The number of the HTTP request; the items of one batch share it.
    pub request: u64,
}

impl Entry {
    /// Whether a client of the API changed something with it.
    #[must_use]
    pub fn is_effect_of_api(&self) -> bool {
        self.origin == Origin::Api && matches!(self.outcome, Outcome::Created | Outcome::Updated | Outcome::Deleted)
    }
}

/// The log and the counters of all requests, reads included.
#[derive(Debug, Default)]
pub struct Log {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    requests: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an entry and returns its sequence. A vendor calls this while it holds its own state, so that the log has
    /// the order of the effects.
    pub fn append(&self, at: DateTime<Utc>, origin: Origin, answered: bool, request: u64, attempt: Attempt<'_>) -> u64 {
        let mut inner = self.lock();
        let sequence = inner.entries.len() as u64 + 1;
        inner.entries.push(Entry {
            sequence,
            time: at.to_rfc3339_opts(SecondsFormat::Micros, true),
            entity: attempt.entity.to_owned(),
            key: attempt.key.to_owned(),
            external_id: attempt.external_id.map(str::to_owned),
            operation: attempt.operation.to_owned(),
            values: attempt.values,
            outcome: attempt.outcome,
            code: attempt.code.map(str::to_owned),
            answered,
            origin,
            request,
        });
        sequence
    }

    /// The entries with a sequence above `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<Entry> {
        let inner = self.lock();
        let from = usize::try_from(since).unwrap_or(usize::MAX).min(inner.entries.len());
        inner.entries[from..].to_vec()
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.lock().entries.len() as u64
    }

    /// True while nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Marks the entries of a request of which the caller turned out not to have got the answer.
    pub fn unanswered(&self, request: u64) {
        for entry in &mut self.lock().entries {
            if entry.request == request && entry.origin == Origin::Api {
                entry.answered = false;
            }
        }
    }

    /// Counts one request by kind (`query`, `describe`, `token`) and status (`cut` where no answer was given).
    pub fn count(&self, kind: &str, status: &str) {
        let mut inner = self.lock();
        *inner.requests.entry(kind.to_owned()).or_default().entry(status.to_owned()).or_default() += 1;
    }

    /// The counters: kind, then status, then how many.
    pub fn requests(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.lock().requests.clone()
    }
}
