//! A record in the form of its columns.

use super::codec::encode;
use super::packed::encode_provenance;
use crate::{IndexKey, Record, StoreError};

/// A record as it will be stored; made before the command waits for the writer, so that the writer's time is not spent on it.
pub(crate) struct Body {
    pub(crate) version: i64,
    pub(crate) home: String,
    pub(crate) deleted_at: Option<i64>,
    pub(crate) keys: Keys,
    pub(crate) provenance: Option<String>,
    pub(crate) document: String,
}

/// A record's index keys as they are stored.
pub(crate) struct Keys {
    /// Sorted.
    pub(crate) all: Vec<i64>,
    /// Those of match rules.
    pub(crate) matching: Vec<i64>,
}

impl Keys {
    pub(crate) fn new(keys: &[IndexKey]) -> Self {
        let mut all: Vec<i64> = keys.iter().map(|key| key.hash.cast_signed()).collect();
        all.sort_unstable();
        all.dedup();
        Self { all, matching: keys.iter().filter(|key| key.matches).map(|key| key.hash.cast_signed()).collect() }
    }
}

impl Body {
    pub(crate) fn new(record: &Record, keys: &[IndexKey]) -> Result<Self, StoreError> {
        Ok(Self {
            version: record.version.cast_signed(),
            home: record.home.clone(),
            deleted_at: record.deleted_at.map(|at| at.0),
            keys: Keys::new(keys),
            provenance: encode_provenance(&record.provenance)?,
            document: encode(&record.document)?,
        })
    }

    pub(crate) const fn lives(&self) -> bool {
        self.deleted_at.is_none()
    }
}
