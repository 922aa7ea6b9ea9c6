//! Rows of records, identities and index keys.

use super::names::Names;
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, decode_document, pack_keys, record_id, unpack_keys};
use crate::rows::packed::{decode_provenance, decode_state};
use crate::rows::record::{Body, Keys};
use crate::{Identity, Known, LaneEntry, Record, StoreError};
use rusqlite::{Connection, OptionalExtension, params};

/// What a command needs to know of a stored record.
pub(super) struct Stored {
    pub(super) row: i64,
    pub(super) version: i64,
    pub(super) lives: bool,
    /// The row of the record that it was folded into.
    pub(super) merged_into: Option<i64>,
    keys: Vec<i64>,
}

pub(super) fn find(connection: &Connection, realm: i64, id: &IdBytes) -> Result<Option<Stored>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT row, version, deleted_at IS NULL, index_keys, merged_into FROM record WHERE realm = ?1 AND id = ?2")?;
    let stored = statement
        .query_row(params![realm, id], |row| {
            let keys = unpack_keys(row.get_ref(3)?.as_blob()?);
            Ok(Stored { row: row.get(0)?, version: row.get(1)?, lives: row.get(2)?, merged_into: row.get(4)?, keys })
        })
        .optional()?;
    Ok(stored)
}

/// The row and the id of the record that `id` stands for (its own, or the survivor's where it was merged), and whether that lives.
pub(super) fn resolve(connection: &Connection, realm: i64, id: &IdBytes) -> Result<Option<(i64, IdBytes, bool)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT own.row, own.id, own.deleted_at IS NULL FROM record JOIN record AS own ON own.row = ifnull(record.merged_into, record.row)
         WHERE record.realm = ?1 AND record.id = ?2",
    )?;
    Ok(statement.query_row(params![realm, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?)
}

/// Adds a record; returns its row, or `None` where it is stored already.
pub(super) fn insert(connection: &Connection, names: &Names<'_>, realm: i64, id: &IdBytes, body: &Body) -> Result<Option<i64>, StoreError> {
    let added = connection
        .prepare_cached(
            "INSERT INTO record (realm, id, version, home, deleted_at, index_keys, provenance, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (realm, id) DO NOTHING",
        )?
        .execute(params![
            realm,
            id,
            body.version,
            names.intern(&body.home)?,
            body.deleted_at,
            pack_keys(&body.keys.all),
            body.provenance,
            body.document
        ])?;
    if added == 0 {
        return Ok(None);
    }
    let row = connection.last_insert_rowid();
    replace_keys(connection, realm, row, &[], &body.keys.all)?;
    Ok(Some(row))
}

pub(super) fn update(connection: &Connection, names: &Names<'_>, realm: i64, stored: &Stored, body: &Body) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE record SET version = ?2, home = ?3, deleted_at = ?4, index_keys = ?5, provenance = ?6, document = ?7 WHERE row = ?1",
        )?
        .execute(params![
            stored.row,
            body.version,
            names.intern(&body.home)?,
            body.deleted_at,
            pack_keys(&body.keys.all),
            body.provenance,
            body.document
        ])?;
    replace_keys(connection, realm, stored.row, &stored.keys, &body.keys.all)
}

/// Gives a stored record other keys.
pub(super) fn reindex(connection: &Connection, realm: i64, stored: &Stored, keys: &Keys) -> Result<(), StoreError> {
    if stored.keys == keys.all {
        return Ok(());
    }
    connection.prepare_cached("UPDATE record SET index_keys = ?2 WHERE row = ?1")?.execute(params![stored.row, pack_keys(&keys.all)])?;
    replace_keys(connection, realm, stored.row, &stored.keys, &keys.all)
}

/// Nothing finds the record by its match keys any more.
pub(super) fn drop_keys(connection: &Connection, realm: i64, stored: &Stored) -> Result<(), StoreError> {
    replace_keys(connection, realm, stored.row, &stored.keys, &[])
}

/// Whether a live record carries one of the match keys already.
pub(super) fn is_matched(connection: &Connection, realm: i64, body: &Body) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM index_key JOIN record ON record.row = index_key.record
         WHERE index_key.realm = ?1 AND index_key.hash = ?2 AND record.deleted_at IS NULL)",
    )?;
    for key in &body.keys.matching {
        if statement.query_row(params![realm, key], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Both lists are sorted. Keys that stay are not touched: they lie at random places.
fn replace_keys(connection: &Connection, realm: i64, row: i64, old: &[i64], new: &[i64]) -> Result<(), StoreError> {
    for key in old.iter().filter(|key| new.binary_search(key).is_err()) {
        connection
            .prepare_cached("DELETE FROM index_key WHERE realm = ?1 AND hash = ?2 AND record = ?3")?
            .execute(params![realm, key, row])?;
    }
    for key in new.iter().filter(|key| old.binary_search(key).is_err()) {
        connection.prepare_cached("INSERT INTO index_key (realm, hash, record) VALUES (?1, ?2, ?3)")?.execute(params![realm, key, row])?;
    }
    Ok(())
}

/// An identity to be stored.
pub(super) struct Naming<'a> {
    pub(super) realm: i64,
    pub(super) participant: i64,
    pub(super) record: i64,
    pub(super) external_id: &'a str,
    pub(super) state: &'a str,
    /// The sequence for the column of that name.
    pub(super) settled: i64,
    /// Refuse when a write of ours was settled that this state does not know of.
    pub(super) guarded: bool,
}

/// What came of storing an identity.
#[derive(PartialEq, Eq)]
pub(super) enum Named {
    /// The participant holds the record since now, beside so many others.
    New { others: i64 },
    /// It was known.
    Known,
    /// The external id stands for another record, the record has another external id there, or the state is older than the stored one.
    Conflict,
}

pub(super) fn name(connection: &Connection, naming: &Naming<'_>) -> Result<Named, StoreError> {
    let Naming { participant, record, external_id, state, settled, guarded, .. } = *naming;
    let mut statement = connection.prepare_cached("SELECT participant, external_id, settled FROM identity WHERE record = ?1")?;
    let mut held = statement.query(params![record])?;
    let (mut present, mut others) = (None, 0);
    while let Some(row) = held.next()? {
        if row.get::<_, i64>(0)? == participant {
            present = Some((row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)? == external_id, row.get::<_, i64>(2)?));
        } else {
            others += 1;
        }
    }
    match present {
        Some((false, _)) => Ok(Named::Conflict),
        Some((_, newer)) if guarded && newer > settled => Ok(Named::Conflict),
        Some(_) => {
            connection
                .prepare_cached("UPDATE identity SET settled = ?3, state = ?4 WHERE record = ?1 AND participant = ?2")?
                .execute(params![record, participant, settled, state])?;
            Ok(Named::Known)
        }
        None => name_first(connection, naming, others),
    }
}

/// Names a record for the participant, which has no name for it yet; `others` have.
pub(super) fn name_first(connection: &Connection, naming: &Naming<'_>, others: i64) -> Result<Named, StoreError> {
    let Naming { realm, participant, record, external_id, state, settled, .. } = *naming;
    let added = connection
        .prepare_cached(
            "INSERT INTO identity (record, participant, realm, external_id, settled, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (realm, participant, external_id) DO NOTHING",
        )?
        .execute(params![record, participant, realm, external_id, settled, state])?;
    Ok(if added == 1 { Named::New { others } } else { Named::Conflict })
}

/// How many participants hold the record.
pub(super) fn holders(connection: &Connection, record: i64) -> Result<i64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT count(*) FROM identity WHERE record = ?1")?;
    Ok(statement.query_row(params![record], |row| row.get(0))?)
}

pub(super) fn is_held(connection: &Connection, record: i64, participant: i64) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM identity WHERE record = ?1 AND participant = ?2")?;
    Ok(statement.query_row(params![record, participant], |_| Ok(())).optional()?.is_some())
}

/// Keeps the counts of live and matched records when a record lived before and lives now, or not, and an identity was `added` beside so many others,
/// or none was.
pub(super) fn count(
    connection: &Connection,
    books: &mut Books,
    record: i64,
    (lived, lives): (bool, bool),
    added: Option<i64>,
) -> Result<(), StoreError> {
    if lived != lives || (lives && added.is_some()) {
        let holds = match added {
            Some(others) => others + 1,
            None => holders(connection, record)?,
        };
        books.record((lived, holds - i64::from(added.is_some())), (lives, holds));
    }
    Ok(())
}

/// Everything known of the record in `row`.
pub(super) fn known(connection: &Connection, names: &Names<'_>, row: i64) -> Result<Option<Known>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, version, home, deleted_at, provenance, document,
           (SELECT survivor.id FROM record AS survivor WHERE survivor.row = record.merged_into)
         FROM record WHERE row = ?1",
    )?;
    let found = statement.query_row(params![row], |found| {
        let document = decode_document(found.get_ref(5)?.as_str()?);
        let provenance = found.get_ref(4)?.as_str_or_null()?.map_or_else(|| Ok(std::collections::BTreeMap::new()), decode_provenance);
        Ok((
            found.get::<_, IdBytes>(0)?,
            found.get::<_, i64>(1)?,
            found.get::<_, i64>(2)?,
            found.get::<_, Option<i64>>(3)?,
            provenance,
            document,
            found.get::<_, Option<IdBytes>>(6)?.map(record_id),
        ))
    });
    let Some((id, version, home, deleted_at, provenance, document, merged_into)) = found.optional()? else { return Ok(None) };
    let record = Record {
        id: record_id(id),
        version: version.cast_unsigned(),
        document: document?,
        home: names.text(home)?,
        provenance: provenance?,
        deleted_at: deleted_at.map(fairlead_model::Timestamp),
    };
    let mut statement = connection.prepare_cached("SELECT participant, external_id, settled, state FROM identity WHERE record = ?1")?;
    let mut rows = statement.query(params![row])?;
    let mut identities = Vec::new();
    while let Some(found) = rows.next()? {
        identities.push(Identity {
            participant: names.text(found.get(0)?)?,
            external_id: fairlead_model::ExternalId(found.get(1)?),
            state: decode_state(found.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?, found.get(2)?)?,
        });
    }
    let mut statement = connection
        .prepare_cached("SELECT target, c_origin IS NOT NULL OR i_at IS NOT NULL, attempts FROM lane WHERE record = ?1 AND phase < 4")?;
    let mut rows = statement.query(params![row])?;
    let mut lanes = Vec::new();
    while let Some(found) = rows.next()? {
        lanes.push(LaneEntry { target: names.text(found.get(0)?)?, in_flight: found.get(1)?, attempts: found.get(2)? });
    }
    Ok(Some(Known { record, identities, lanes, merged_into }))
}
