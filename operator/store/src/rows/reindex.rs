//! The command `reindex` in the form of its rows.

use super::codec::encode;
use super::record::Keys;
use crate::{Reindex, StoreError};
use fairlead_model::RecordId;

/// A [`Reindex`] in the form of its rows.
pub(crate) struct Page {
    pub(crate) realm: String,
    pub(crate) records: Vec<(RecordId, i64, Keys)>,
    pub(crate) state: String,
    pub(crate) note: String,
}

impl Page {
    pub(crate) fn new(command: &Reindex) -> Result<Self, StoreError> {
        let records = command.records.iter().map(|(id, version, keys)| (*id, version.cast_signed(), Keys::new(keys)));
        Ok(Self { realm: command.realm.clone(), records: records.collect(), state: encode(&command.state)?, note: command.note.clone() })
    }
}
