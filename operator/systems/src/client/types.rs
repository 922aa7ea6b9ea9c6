//! What goes into a client and what comes out.

use super::transport::Transport;
use crate::egress::EndpointPolicy;
use crate::secret::SecretSource;
use fairlead_model::{Clock, Document, ExternalId, FieldPath, Random, RemoteError, SystemClock, SystemRandom, Timestamp};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What comes to clients from outside.
#[derive(Clone)]
pub struct Outside {
    /// Credentials.
    pub secrets: Arc<dyn SecretSource>,
    /// Which addresses may be connected to.
    pub endpoints: EndpointPolicy,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
    /// What carries requests, if it is not sockets.
    pub transport: Option<Arc<dyn Transport>>,
}

impl Outside {
    /// With the machine's clock, chance and sockets.
    #[must_use]
    pub fn new(secrets: Arc<dyn SecretSource>, endpoints: EndpointPolicy) -> Self {
        Self { secrets, endpoints, clock: Arc::new(SystemClock), random: Arc::new(SystemRandom), transport: None }
    }
}

/// A page to read.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The native entity.
    pub entity: String,
    /// One of the entity's slices.
    pub slice: String,
    /// The native fields that are wanted; id, stamp and deletion mark come without asking.
    pub fields: Vec<FieldPath>,
    /// Where the last page ended; `None` begins at the beginning of time.
    pub cursor: Option<serde_json::Value>,
    /// The longest that the page may take, waits included.
    pub deadline: Duration,
}

/// Records in the order of their changes, and where to go on.
#[derive(Debug, Clone)]
pub struct Page {
    /// The records.
    pub records: Vec<NativeRecord>,
    /// Opaque; goes into the next request.
    pub cursor: serde_json::Value,
    /// The page reached the present: the next one is worth asking for when something may have changed.
    pub caught_up: bool,
    /// Rows of this page that are no records. The cursor goes on past them, so whoever reads the page must keep them.
    pub unusable: Vec<Unusable>,
}

/// A row that cannot become a record: it has no id.
#[derive(Debug, Clone, PartialEq)]
pub struct Unusable {
    /// What came, as JSON text, for a dead letter.
    pub raw: String,
    /// What is wrong, and with which row of which page.
    pub error: RemoteError,
}

/// A record as the vendor holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeRecord {
    /// Its id.
    pub id: ExternalId,
    /// Its version, as text that can be compared for equality.
    pub version: Option<String>,
    /// When the vendor says it was last modified.
    pub modified: Option<Timestamp>,
    /// It is deleted; the body may be empty.
    pub deleted: bool,
    /// It is deleted because the vendor merged it into this record.
    pub merged_into: Option<ExternalId>,
    /// Its fields, typed by the definition, without floats; decimals are canonical decimal strings.
    pub body: Document,
    /// What came, where that is not the body itself.
    pub raw: Option<Value>,
}

impl NativeRecord {
    /// What came, as JSON, for dead letters.
    #[must_use]
    pub fn original(&self) -> String {
        match &self.raw {
            Some(raw) => raw.to_string(),
            None => serde_json::to_string(&self.body).unwrap_or_default(),
        }
    }
}

/// Records to write.
#[derive(Debug, Clone)]
pub struct WriteBatch {
    /// The native entity.
    pub entity: String,
    /// The records; answers come in their order.
    pub items: Vec<WriteItem>,
}

/// One record to write.
#[derive(Debug, Clone)]
pub struct WriteItem {
    /// What to do.
    pub operation: WriteOperation,
    /// The vendor's id; needed by all but `Create`.
    pub id: Option<ExternalId>,
    /// For `Create`: the correlation field and the canonical id that it is to hold.
    pub key: Option<(FieldPath, String)>,
    /// The native fields to write, nested by path.
    pub body: Document,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOperation {
    /// Make it; with a key, make or find it.
    Create,
    /// Change the named fields.
    Update,
    /// Make it inactive, as the definition says.
    Archive,
    /// Change the named fields, and make it active again, as the definition says.
    Reactivate,
    /// Delete it.
    Delete,
}

impl WriteOperation {
    /// The word for it in messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Archive => "archive",
            Self::Reactivate => "reactivation",
            Self::Delete => "delete",
        }
    }
}

/// A record was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Its id.
    pub id: ExternalId,
    /// Its version afterwards, if the vendor tells.
    pub version: Option<String>,
    /// It was made, as far as the vendor tells.
    pub created: bool,
    /// The record as the vendor answered it, if it did.
    pub answer: Option<Document>,
}

/// Calls by what came of them, since the client was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCounters {
    /// Answered as wished.
    pub succeeded: u64,
    /// Passing trouble.
    pub transient: u64,
    /// Told to slow down.
    pub throttled: u64,
    /// Credentials refused.
    pub auth: u64,
    /// Refused: data, permission, conflict, not found, configuration.
    pub refused: u64,
    /// No answer to a write that was sent.
    pub unknown: u64,
    /// Not sent: circuit open, vendor's wait, pause, no turn before the deadline, called off.
    pub held_back: u64,
    /// Token requests.
    pub tokens: u64,
    /// Whole seconds that the vendor asked to wait.
    pub throttle_seconds: u64,
}

/// Counts what came of one call.
impl CallCounters {
    pub(crate) fn count<T>(&mut self, result: &Result<T, RemoteError>) {
        use fairlead_model::ErrorClass as Class;
        let counter = match result {
            Ok(_) => &mut self.succeeded,
            Err(error) => match error.class {
                Class::Transient => &mut self.transient,
                Class::Throttled => &mut self.throttled,
                Class::Auth => &mut self.auth,
                Class::UnknownOutcome => &mut self.unknown,
                Class::Permission | Class::Data | Class::Conflict | Class::NotFound | Class::Configuration => &mut self.refused,
            },
        };
        *counter += 1;
    }
}
