//! The command `reindex`: stored records are found by other keys from now on.

use super::codec::{encode, id_bytes};
use super::names::Names;
use super::notes;
use super::records::{self, Keys};
use crate::crash::{Command, Step, reach};
use crate::{IndexState, Reindex, StoreError};
use fairlead_model::RecordId;
use rusqlite::Connection;

/// A [`Reindex`] in the form of its rows.
pub(super) struct Page {
    realm: String,
    records: Vec<(RecordId, i64, Keys)>,
    state: String,
}

impl Page {
    pub(super) fn new(command: &Reindex) -> Result<Self, StoreError> {
        let records = command.records.iter().map(|(id, version, keys)| (*id, version.cast_signed(), Keys::new(keys)));
        Ok(Self { realm: command.realm.clone(), records: records.collect(), state: encode(&command.state)? })
    }

    pub(super) fn run(&self, connection: &Connection) -> Result<(), StoreError> {
        let realm = Names::new(connection).intern(&self.realm)?;
        let mut conflicts = Vec::new();
        for (place, (id, version, keys)) in self.records.iter().enumerate() {
            match records::find(connection, realm, &id_bytes(*id))? {
                Some(stored) if stored.version == *version => records::reindex(connection, realm, &stored, keys)?,
                _ => conflicts.push(*id),
            }
            if place == 0 {
                reach(Command::Reindex, Step::Partly);
            }
        }
        if !conflicts.is_empty() {
            return Err(StoreError::Conflict(conflicts));
        }
        notes::put(connection, realm, IndexState::NOTE, &self.state)?;
        reach(Command::Reindex, Step::Rows);
        Ok(())
    }
}
