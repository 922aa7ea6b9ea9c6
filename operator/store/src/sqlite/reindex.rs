//! The command `reindex`: stored records are found by other keys from now on.

use super::names::Names;
use super::{notes, records};
use crate::StoreError;
use crate::crash::{Command, Step, reach};
use crate::rows::codec::id_bytes;
use crate::rows::reindex::Page;
use rusqlite::Connection;

pub(super) fn run(page: &Page, connection: &Connection) -> Result<(), StoreError> {
    let realm = Names::new(connection).intern(&page.realm)?;
    let mut conflicts = Vec::new();
    for (place, (id, version, keys)) in page.records.iter().enumerate() {
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
    notes::put(connection, realm, &page.note, &page.state)?;
    reach(Command::Reindex, Step::Rows);
    Ok(())
}
