//! Names and identifiers that must not be mixed up.

use crate::{Random, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The id of a canonical record; Fairlead's own, the same in every system that takes a correlation field. Text form: a lower-case UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordId(pub Uuid);

impl RecordId {
    /// A new id, in the order of time (UUID version 7).
    #[must_use]
    pub fn new(now: Timestamp, random: &dyn Random) -> Self {
        let mut tail = [0; 10];
        tail[..8].copy_from_slice(&random.bits().to_be_bytes());
        tail[8..].copy_from_slice(&random.bits().to_be_bytes()[..2]);
        Self(uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.0).unwrap_or_default(), &tail).into_uuid())
    }

    /// Reads the text form; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_hyphenated())
    }
}

/// The id by which a vendor knows a record, as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExternalId(pub String);

impl ExternalId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ExternalId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A named object in a namespace: a resource, or the Secret or ConfigMap it refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// The object `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
