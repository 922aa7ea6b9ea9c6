//! Rows of records, identities and index keys: how they are loaded and stored, and everything known of a record.

use super::codec::{get, place, read_id};
use super::error::Failure;
use super::session::{Ask, ask};
use crate::rows::codec::decode_document;
use crate::rows::packed::{decode_provenance, decode_state};
use crate::{Identity, Known, LaneEntry, Record, StoreError};
use fairlead_model::{ExternalId, RecordId, Timestamp};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// The records `r` of the realm `$1` that have one of these ids, for `FROM`.
///
/// Each is looked up by itself, through its index (`LATERAL` with `LIMIT` or `OFFSET` is not joined otherwise). A statement is planned when the tables
/// are empty, and for an empty table it looks as cheap to go through all of it once for what is asked; that plan would stay while the table grows.
macro_rules! by_ids {
    ($ids:literal) => {
        concat!(
            "(SELECT DISTINCT unnest(",
            $ids,
            "::uuid[]) AS id) AS asked CROSS JOIN LATERAL (SELECT * FROM record WHERE realm = $1 AND id = asked.id LIMIT 1) AS r"
        )
    };
}
pub(super) use by_ids;

/// Records by id, as far as commands need to know of them.
const BY_ID: &str = concat!("SELECT r.id, r.row, r.version, r.deleted_at IS NULL, r.merged_into, r.index_keys FROM ", by_ids!("$2"));

/// Their identities.
const IDENTITIES: &str = concat!(
    "SELECT i.record, i.participant, i.external_id, i.settled FROM ",
    by_ids!("$2"),
    " CROSS JOIN LATERAL (SELECT * FROM identity WHERE record = r.row OFFSET 0) AS i"
);

/// For which records external ids of a participant stand.
const OWNERS: &str = "SELECT i.external_id, i.record FROM (SELECT DISTINCT unnest($3::text[]) AS id) AS asked CROSS JOIN LATERAL
       (SELECT external_id, record FROM identity WHERE realm = $1 AND participant = $2 AND external_id = asked.id LIMIT 1) AS i";

/// Live records that carry keys, a few of each key.
const CARRIERS: &str = "SELECT wanted, found.record FROM unnest($2::int8[]) AS wanted CROSS JOIN LATERAL
       (SELECT k.record FROM index_key k JOIN record r ON r.row = k.record
        WHERE k.realm = $1 AND k.hash = wanted AND r.deleted_at IS NULL ORDER BY k.record LIMIT $3) AS found";

/// Rows for records that are to be added, in order.
const FRESH: &str = "SELECT nextval('record_row_seq') FROM generate_series(1, $1::int8)";

pub(super) fn by_id(realm: i64, ids: Vec<Uuid>) -> Ask {
    ask!(BY_ID, realm, ids)
}

pub(super) fn identities(realm: i64, ids: Vec<Uuid>) -> Ask {
    ask!(IDENTITIES, realm, ids)
}

pub(super) fn owners(realm: i64, participant: i64, external_ids: Vec<String>) -> Ask {
    ask!(OWNERS, realm, participant, external_ids)
}

pub(super) fn carriers(realm: i64, hashes: Vec<i64>, max: i64) -> Ask {
    ask!(CARRIERS, realm, hashes, max)
}

pub(super) fn fresh(count: usize) -> Ask {
    ask!(FRESH, i64::try_from(count).unwrap_or(i64::MAX))
}

// ---- storing ----------------------------------------------------------------------------------------------------------------------------

/// New records.
pub(super) const INSERT: &str = "INSERT INTO record (row, realm, id, version, home, deleted_at, index_keys, provenance, document)
     OVERRIDING SYSTEM VALUE SELECT n.row, $1::int8, n.id, n.version, n.home, n.deleted_at, n.index_keys, n.provenance, n.document
     FROM unnest($2::int8[], $3::uuid[], $4::int8[], $5::int8[], $6::int8[], $7::bytea[], $8::text[], $9::text[])
       AS n(row, id, version, home, deleted_at, index_keys, provenance, document)";

/// Changed records.
pub(super) const UPDATE: &str =
    "UPDATE record SET version = n.version, home = n.home, deleted_at = n.deleted_at, index_keys = n.index_keys,
       provenance = n.provenance, document = n.document
     FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::bytea[], $6::text[], $7::text[])
       AS n(row, version, home, deleted_at, index_keys, provenance, document)
     WHERE record.row = n.row";

/// Records of which only the keys change.
pub(super) const REINDEX: &str = "UPDATE record SET index_keys = n.index_keys FROM unnest($1::int8[], $2::bytea[]) AS n(row, index_keys)
     WHERE record.row = n.row";

pub(super) const ADD_KEYS: &str =
    "INSERT INTO index_key (realm, hash, record) SELECT $1::int8, n.* FROM unnest($2::int8[], $3::int8[]) AS n(hash, record)";

pub(super) const DROP_KEYS: &str = "DELETE FROM index_key USING unnest($2::int8[], $3::int8[]) AS n(hash, record)
     WHERE index_key.realm = $1 AND index_key.hash = n.hash AND index_key.record = n.record";

/// New identities. Without a sequence of its own, one is settled by the commit that is under way.
pub(super) const NAME: &str = "INSERT INTO identity (realm, record, participant, settled, external_id, state)
     SELECT $1::int8, n.record, n.participant, coalesce(n.settled, (SELECT sequence FROM store)), n.external_id, n.state
     FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::text[], $6::text[]) AS n(record, participant, settled, external_id, state)";

/// Known identities whose participant holds something else now.
pub(super) const SET_STATE: &str = "UPDATE identity SET settled = coalesce(n.settled, (SELECT sequence FROM store)), state = n.state
     FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[]) AS n(record, participant, settled, state)
     WHERE identity.record = n.record AND identity.participant = n.participant";

// ---- everything known of a record -------------------------------------------------------------------------------------------------------

/// Selects what [`known`] reads of every record in `asked (row, place)`. One statement, so that all of it was true at one moment.
macro_rules! known {
    ($asked:expr) => {
        concat!(
            "SELECT asked.place, r.row, r.id, r.version, (SELECT text FROM name WHERE name.id = r.home), r.deleted_at, r.provenance, r.document,
               (SELECT survivor.id FROM record AS survivor WHERE survivor.row = r.merged_into),
               i.names, i.external_ids, i.settled, i.states, l.names, l.open, l.attempts
             FROM ",
            $asked,
            " AS asked(row, place) CROSS JOIN LATERAL (SELECT * FROM record WHERE record.row = asked.row LIMIT 1) AS r
             CROSS JOIN LATERAL (SELECT array_agg(x.name) AS names, array_agg(x.external_id) AS external_ids, array_agg(x.settled) AS settled,
                 array_agg(x.state) AS states
               FROM (SELECT (SELECT text FROM name WHERE name.id = participant) AS name, external_id, settled, state
                     FROM identity WHERE identity.record = r.row ORDER BY participant) AS x) AS i
             CROSS JOIN LATERAL (SELECT array_agg(x.name) AS names, array_agg(x.open) AS open, array_agg(x.attempts) AS attempts
               FROM (SELECT (SELECT text FROM name WHERE name.id = target) AS name, c_origin IS NOT NULL OR i_at IS NOT NULL AS open,
                       attempts
                     FROM lane WHERE lane.record = r.row AND phase < 4 ORDER BY target) AS x) AS l
             ORDER BY asked.place"
        )
    };
}
pub(super) use known;

/// Rows by number, in the order asked for.
pub(super) const KNOWN: &str = known!("unnest($1::int8[]) WITH ORDINALITY");

/// A row that [`known!`] selected: its place in what was asked for, the record's row, and the record.
pub(super) fn known_of(row: &Row) -> Result<(usize, i64, Known), Failure> {
    let text = |column: usize| get::<Option<&str>>(row, column);
    let record = Record {
        id: RecordId(get::<Uuid>(row, 2)?),
        version: get::<i64>(row, 3)?.cast_unsigned(),
        document: decode_document(get(row, 7)?)?,
        home: text(4)?.ok_or_else(unnamed)?.to_owned(),
        provenance: text(6)?.map_or_else(|| Ok(BTreeMap::new()), decode_provenance)?,
        deleted_at: get::<Option<i64>>(row, 5)?.map(Timestamp),
    };
    let names: Vec<Option<String>> = get::<Option<Vec<_>>>(row, 9)?.unwrap_or_default();
    let external_ids: Vec<String> = get::<Option<Vec<_>>>(row, 10)?.unwrap_or_default();
    let settled: Vec<i64> = get::<Option<Vec<_>>>(row, 11)?.unwrap_or_default();
    let states: Vec<&str> = get::<Option<Vec<_>>>(row, 12)?.unwrap_or_default();
    let mut identities = Vec::with_capacity(names.len());
    for (((name, external_id), settled), state) in names.into_iter().zip(external_ids).zip(settled).zip(states) {
        let participant = name.ok_or_else(unnamed)?;
        identities.push(Identity { participant, external_id: ExternalId(read_id(external_id)), state: decode_state(state, settled)? });
    }
    let targets: Vec<Option<String>> = get::<Option<Vec<_>>>(row, 13)?.unwrap_or_default();
    let open: Vec<bool> = get::<Option<Vec<_>>>(row, 14)?.unwrap_or_default();
    let attempts: Vec<i64> = get::<Option<Vec<_>>>(row, 15)?.unwrap_or_default();
    let mut lanes = Vec::with_capacity(targets.len());
    for ((target, in_flight), attempts) in targets.into_iter().zip(open).zip(attempts) {
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        lanes.push(LaneEntry { target: target.ok_or_else(unnamed)?, in_flight, attempts });
    }
    let merged_into = get::<Option<Uuid>>(row, 8)?.map(RecordId);
    Ok((place(row)?, get(row, 1)?, Known { record, identities, lanes, merged_into }))
}

pub(super) fn unnamed() -> StoreError {
    StoreError::Unusable("a row refers to a name that is not there; restore the database from a backup".into())
}
