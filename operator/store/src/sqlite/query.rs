//! The queries. Each runs in one read transaction, so that what it answers was true at one moment.

use super::names::Names;
use super::records;
use super::{checkpoints, letters};
use crate::rows::books::hour_of;
use crate::rows::codec::{IdBytes, decode, decode_word, encode_word, haste, id_bytes, record_id, special_origin, stage_code, stage_of};
use crate::rows::lane::{Phase, limit};
use crate::rows::packed;
use crate::{
    Checkpoint, CloseReason, DeadLetter, DeadLetterFilter, GuardCounts, Guarded, Haste, IndexKey, Known, LaneFence, LaneLedger,
    NewDeadLetter, Origin, Pending, Snapshot, SourceLedger, StoreError,
};
use fairlead_model::hash::ValueHash;
use fairlead_model::{ExternalId, RecordId, SmolStr, Timestamp, realm};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params, params_from_iter};
use serde_json::Value;
use std::collections::BTreeMap;

/// The most dead letters that one answer holds when the filter names no maximum.
const LETTERS: usize = 1000;

fn row_by_external(connection: &Connection, realm: i64, participant: i64, id: &ExternalId) -> Result<Option<i64>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT record FROM identity WHERE realm = ?1 AND participant = ?2 AND external_id = ?3")?;
    Ok(statement.query_row(params![realm, participant, id.as_str()], |row| row.get(0)).optional()?)
}

pub(super) fn known_by_external(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
) -> Result<Vec<Option<Known>>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(vec![None; ids.len()]) };
    let known = |id: &ExternalId| match row_by_external(connection, realm, participant, id)? {
        Some(row) => records::known(connection, &names, row),
        None => Ok(None),
    };
    ids.iter().map(known).collect()
}

pub(super) fn seen(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
    fields: &[SmolStr],
) -> Result<Option<ValueHash>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(None) };
    let mut statement =
        connection.prepare_cached("SELECT state FROM identity WHERE realm = ?1 AND participant = ?2 AND external_id = ?3")?;
    let states = ids.iter().map(|id| {
        let state = statement.query_row(params![realm, participant, id.as_str()], |row| row.get::<_, String>(0)).optional()?;
        Ok((id.as_str(), state))
    });
    packed::seen(states, fields)
}

pub(super) fn known_by_id(connection: &Connection, realm: &str, ids: &[RecordId]) -> Result<Vec<Option<Known>>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(vec![None; ids.len()]) };
    let known = |id: &RecordId| match records::resolve(connection, realm, &id_bytes(*id))? {
        Some((row, ..)) => records::known(connection, &names, row),
        None => Ok(None),
    };
    ids.iter().map(known).collect()
}

const LIVE_MATCHES: &str = "SELECT record.id FROM index_key JOIN record ON record.row = index_key.record
     WHERE index_key.realm = ?1 AND index_key.hash = ?2 AND record.deleted_at IS NULL ORDER BY record.row LIMIT 3";

/// Those that were deleted last: the others may long be nowhere any more.
const DELETED_MATCHES: &str = "SELECT record.id FROM index_key JOIN record ON record.row = index_key.record
     WHERE index_key.realm = ?1 AND index_key.hash = ?2 AND record.deleted_at IS NOT NULL ORDER BY record.deleted_at DESC, record.row DESC LIMIT 3";

pub(super) fn match_records(connection: &Connection, realm: &str, keys: &[IndexKey]) -> Result<Vec<Vec<RecordId>>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(vec![Vec::new(); keys.len()]) };
    let mut live = connection.prepare_cached(LIVE_MATCHES)?;
    let mut deleted = connection.prepare_cached(DELETED_MATCHES)?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let of = |statement: &mut CachedStatement<'_>| -> Result<Vec<RecordId>, StoreError> {
            let rows = statement.query_map(params![realm, key.hash.cast_signed()], |row| row.get::<_, IdBytes>(0).map(record_id))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let living = of(&mut live)?;
        found.push(if living.is_empty() { of(&mut deleted)? } else { living });
    }
    Ok(found)
}

pub(super) fn find(
    connection: &Connection,
    realm: &str,
    key: IndexKey,
    after: Option<RecordId>,
    max: usize,
) -> Result<Vec<Known>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(Vec::new()) };
    let after = match after {
        None => i64::MIN,
        Some(id) => match records::find(connection, realm, &id_bytes(id))? {
            Some(stored) => stored.row,
            None => return Ok(Vec::new()),
        },
    };
    let mut statement = connection.prepare_cached(
        "SELECT record FROM index_key JOIN record ON record.row = index_key.record
         WHERE index_key.realm = ?1 AND index_key.hash = ?2 AND record > ?3 AND record.deleted_at IS NULL ORDER BY record LIMIT ?4",
    )?;
    let rows = statement.query_map(params![realm, key.hash.cast_signed(), after, limit(max)], |row| row.get::<_, i64>(0))?;
    let mut page = Vec::new();
    for row in rows {
        page.extend(records::known(connection, &names, row?)?);
    }
    Ok(page)
}

pub(super) fn external_ids(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[RecordId],
) -> Result<Vec<Option<ExternalId>>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(vec![None; ids.len()]) };
    let mut statement = connection.prepare_cached(
        "SELECT external_id FROM record JOIN identity ON identity.record = ifnull(record.merged_into, record.row)
         WHERE record.realm = ?1 AND record.id = ?2 AND participant = ?3",
    )?;
    let mut external =
        |id: &RecordId| statement.query_row(params![realm, id_bytes(*id), participant], |row| row.get(0).map(ExternalId)).optional();
    Ok(ids.iter().map(&mut external).collect::<Result<_, _>>()?)
}

pub(super) fn record_ids(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
) -> Result<Vec<Option<RecordId>>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(vec![None; ids.len()]) };
    let mut statement = connection.prepare_cached(
        "SELECT own.id FROM identity JOIN record ON record.row = identity.record
           JOIN record AS own ON own.row = ifnull(record.merged_into, record.row)
         WHERE identity.realm = ?1 AND participant = ?2 AND external_id = ?3",
    )?;
    let mut record = |id: &ExternalId| {
        statement.query_row(params![realm, participant, id.as_str()], |row| row.get::<_, IdBytes>(0).map(record_id)).optional()
    };
    Ok(ids.iter().map(&mut record).collect::<Result<_, _>>()?)
}

pub(super) fn sequence(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT sequence FROM store")?;
    Ok(statement.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

pub(super) fn checkpoint(connection: &Connection, realm: &str, participant: &str, slice: &str) -> Result<Option<Checkpoint>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(None) };
    checkpoints::find(connection, realm, participant, slice)
}

pub(super) fn pending_reads(connection: &Connection, realm: &str, participant: &str, max: usize) -> Result<Vec<ExternalId>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT external_id FROM reread WHERE realm = ?1 AND participant = ?2 AND waits_for IS NULL
         ORDER BY bulk, since, external_id LIMIT ?3",
    )?;
    let rows = statement.query_map(params![realm, participant, limit(max)], |row| row.get(0).map(ExternalId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn pending_reads_of(
    connection: &Connection,
    realm: &str,
    participant: &str,
    haste: Haste,
    max: usize,
) -> Result<Vec<ExternalId>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT external_id FROM reread WHERE realm = ?1 AND participant = ?2 AND waits_for IS NULL AND bulk = ?4
         ORDER BY since, external_id LIMIT ?3",
    )?;
    let rows = statement.query_map(params![realm, participant, limit(max), haste == Haste::Bulk], |row| row.get(0).map(ExternalId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn awaits_read(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
) -> Result<Vec<Option<Haste>>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(vec![None; ids.len()]) };
    let mut statement = connection
        .prepare_cached("SELECT bulk FROM reread WHERE realm = ?1 AND participant = ?2 AND external_id = ?3 AND waits_for IS NULL")?;
    let mut awaits =
        |id: &ExternalId| statement.query_row(params![realm, participant, id.as_str()], |row| row.get(0).map(haste)).optional();
    Ok(ids.iter().map(&mut awaits).collect::<Result<_, _>>()?)
}

pub(super) fn note(connection: &Connection, realm: &str, name: &str) -> Result<Option<Value>, StoreError> {
    let Some(realm) = Names::new(connection).find(realm)? else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT value FROM note WHERE realm = ?1 AND name = ?2")?;
    let text: Option<String> = statement.query_row(params![realm, name], |row| row.get(0)).optional()?;
    text.map(|text| decode("note", &text)).transpose()
}

pub(super) fn changes_since(connection: &Connection, realm: &str, since: Timestamp, with: &Guarded) -> Result<GuardCounts, StoreError> {
    let names = Names::new(connection);
    let (Some(book), Some(realm)) = (names.find(with.book(realm))?, names.find(realm)?) else {
        return Ok(GuardCounts { changes: with.changed.len() as u64, deletes: with.deleted.len() as u64 });
    };
    let since = hour_of(since);
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(sum(changes), 0), coalesce(sum(deletes), 0) FROM guard_count WHERE realm = ?1 AND book = ?2 AND hour >= ?3",
    )?;
    let mut counts =
        statement.query_row(params![realm, book, since], |row| Ok(GuardCounts { changes: count(row, 0)?, deletes: count(row, 1)? }))?;
    let mut counted = connection.prepare_cached(
        "SELECT coalesce(changed_hour >= ?3 AND ifnull(changed_book, realm) = ?4, 0),
           coalesce(deleted_hour >= ?3 AND ifnull(deleted_book, realm) = ?4, 0) FROM record WHERE realm = ?1 AND id = ?2",
    )?;
    let mut counted = |id: &RecordId| -> rusqlite::Result<(bool, bool)> {
        let found = counted.query_row(params![realm, id_bytes(*id), since, book], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        Ok(found.unwrap_or_default())
    };
    for id in &with.changed {
        counts.changes += u64::from(!counted(id)?.0);
    }
    for id in &with.deleted {
        counts.deletes += u64::from(!counted(id)?.1);
    }
    Ok(counts)
}

pub(super) fn held(connection: &Connection, realm: &str, participants: &[String]) -> Result<u64, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(0) };
    let mut ids = Vec::with_capacity(participants.len());
    for participant in participants {
        ids.extend(names.find(participant)?.map(|id| id.to_string()));
    }
    // Numbers only; they need no binding.
    let sql = format!("SELECT count(DISTINCT record) FROM identity WHERE realm = ?1 AND participant IN ({})", ids.join(","));
    Ok(connection.prepare(&sql)?.query_row(params![realm], |row| count(row, 0))?)
}

pub(super) fn waits_for(connection: &Connection, realm: &str, target: &str, ids: &[RecordId]) -> Result<Vec<Option<RecordId>>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(target)) = (names.find(realm)?, names.find(target)?) else { return Ok(vec![None; ids.len()]) };
    let mut statement = connection.prepare_cached(
        "SELECT waits_for FROM lane WHERE record = (SELECT row FROM record WHERE realm = ?1 AND id = ?2) AND target = ?3
         AND phase = 2",
    )?;
    let mut waits = |id: &RecordId| -> rusqlite::Result<Option<RecordId>> {
        let found = statement.query_row(params![realm, id_bytes(*id), target], |row| row.get::<_, Option<IdBytes>>(0)).optional()?;
        Ok(found.flatten().map(record_id))
    };
    Ok(ids.iter().map(&mut waits).collect::<Result<_, _>>()?)
}

pub(super) fn creating(connection: &Connection, realm: &str, target: &str) -> Result<bool, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(target)) = (names.find(realm)?, names.find(target)?) else { return Ok(false) };
    Ok(connection.prepare_cached(CREATING)?.query_row(params![realm, target], |row| row.get(0))?)
}

/// What waits with an intent is in phase 1, and a first load's new records, which are many, are in phase 0. What became a dead letter (phase 4) waits
/// for a person; nobody waits for that.
pub(super) const CREATING: &str =
    "SELECT EXISTS (SELECT 1 FROM lane WHERE realm = ?1 AND target = ?2 AND phase IN (1, 3) AND i_at IS NOT NULL
     AND NOT EXISTS (SELECT 1 FROM identity WHERE identity.record = lane.record AND participant = target))";

pub(super) fn all_records(connection: &Connection, realm: &str, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(Vec::new()) };
    let after = after.map_or_else(Vec::new, |id| id_bytes(id).to_vec());
    let mut statement = connection.prepare_cached("SELECT row FROM record WHERE realm = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
    let rows = statement.query_map(params![realm, after, limit(max)], |row| row.get::<_, i64>(0))?;
    let mut page = Vec::new();
    for row in rows {
        page.extend(records::known(connection, &names, row?)?);
    }
    Ok(page)
}

pub(super) fn referring(
    connection: &Connection,
    realm: &str,
    ids: &[RecordId],
    after: Option<RecordId>,
    max: usize,
) -> Result<Vec<Known>, StoreError> {
    let names = Names::new(connection);
    let Some(realm) = names.find(realm)? else { return Ok(Vec::new()) };
    // Ids are hexadecimal digits and hyphens; they need no binding.
    let holds: Vec<String> = ids.iter().map(|id| format!("instr(document, '{id}')")).collect();
    let holds = if holds.is_empty() { "0".to_owned() } else { holds.join(" OR ") };
    let after = after.map_or_else(Vec::new, |id| id_bytes(id).to_vec());
    let mut statement = connection.prepare(&format!(
        "SELECT row FROM record WHERE realm = ?1 AND id > ?2 AND merged_into IS NULL AND ({holds}) ORDER BY id LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![realm, after, limit(max)], |row| row.get::<_, i64>(0))?;
    let mut page = Vec::new();
    for row in rows {
        page.extend(records::known(connection, &names, row?)?);
    }
    Ok(page)
}

pub(super) fn participant_ids(
    connection: &Connection,
    realm: &str,
    participant: &str,
    after: Option<&ExternalId>,
    max: usize,
) -> Result<Vec<ExternalId>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT external_id FROM identity JOIN record ON record.row = identity.record AND record.merged_into IS NULL
         WHERE identity.realm = ?1 AND participant = ?2 AND external_id > ?3 ORDER BY external_id LIMIT ?4",
    )?;
    // Every id is greater than the empty text, except an empty one, which no vendor gives.
    let after = after.map_or("", |id| id.as_str());
    let rows = statement.query_map(params![realm, participant, after, limit(max)], |row| row.get(0).map(ExternalId))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn next_due(
    connection: &Connection,
    realm: &str,
    target: &str,
    fence: &LaneFence,
    bulk: bool,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(target)) = (names.find(realm)?, names.find(target)?) else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT due FROM lane WHERE realm = ?1 AND target = ?2 AND phase = ?3 AND bulk = ?7 AND due > ?4 AND (?5 >> (record % ?6)) & 1
         ORDER BY due LIMIT 1",
    )?;
    let mut next: Option<i64> = None;
    for (phase, is_bulk) in [(0, false), (1, false), (0, true), (1, true)].into_iter().filter(|(_, is_bulk)| bulk || !is_bulk) {
        let values = params![realm, target, phase, now.0, fence.mask(), fence.count(), is_bulk];
        let due: Option<i64> = statement.query_row(values, |row| row.get(0)).optional()?;
        next = next.into_iter().chain(due).min();
    }
    Ok(next.map(Timestamp))
}

pub(super) fn wanted_soon(
    connection: &Connection,
    realm: &str,
    target: &str,
    fence: &LaneFence,
    creates: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(target)) = (names.find(realm)?, names.find(target)?) else { return Ok(false) };
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM lane WHERE realm = ?1 AND target = ?2 AND phase = ?3 AND bulk = 0 AND due <= ?4
           AND origin IS NOT NULL AND (?5 >> (record % ?6)) & 1)",
    )?;
    for phase in [Phase::Create, Phase::Ready, Phase::Claimed].into_iter().filter(|phase| creates || *phase != Phase::Create) {
        if statement.query_row(params![realm, target, phase as i64, now.0, fence.mask(), fence.count()], |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The realms that hold anything; notes of Connectors left out.
pub(super) fn realms(connection: &Connection) -> Result<Vec<String>, StoreError> {
    Ok(all_realms(connection)?.into_iter().filter(|realm| !realm::is_connector(realm)).collect())
}

pub(super) fn all_realms(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT text FROM name WHERE EXISTS (SELECT 1 FROM record WHERE realm = name.id)
           OR EXISTS (SELECT 1 FROM lane_book WHERE realm = name.id) OR EXISTS (SELECT 1 FROM source_book WHERE realm = name.id)
           OR EXISTS (SELECT 1 FROM checkpoint WHERE realm = name.id) OR EXISTS (SELECT 1 FROM reread WHERE realm = name.id)
           OR EXISTS (SELECT 1 FROM dead_letter WHERE realm = name.id) OR EXISTS (SELECT 1 FROM note WHERE realm = name.id)
           OR EXISTS (SELECT 1 FROM realm_book WHERE realm = name.id) OR EXISTS (SELECT 1 FROM guard_count WHERE realm = name.id)
         ORDER BY text",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn dead_lettered_records(
    connection: &Connection,
    realm: &str,
    participant: &str,
    ids: &[RecordId],
) -> Result<Vec<bool>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(vec![false; ids.len()]) };
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE realm = ?1 AND participant = ?2 AND record = ?3 AND closed_at IS NULL)",
    )?;
    let mut named = |id: &RecordId| statement.query_row(params![realm, participant, id_bytes(*id)], |row| row.get(0));
    Ok(ids.iter().map(&mut named).collect::<Result<_, _>>()?)
}

pub(super) fn dead_lettered(connection: &Connection, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<bool>, StoreError> {
    let names = Names::new(connection);
    let (Some(realm), Some(participant)) = (names.find(realm)?, names.find(participant)?) else { return Ok(vec![false; ids.len()]) };
    if !letters::any_read(connection, realm, participant)? {
        return Ok(vec![false; ids.len()]);
    }
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM dead_letter
           WHERE realm = ?1 AND participant = ?2 AND external_id = ?3 AND stage <= 1 AND closed_at IS NULL)",
    )?;
    let mut open = |id: &ExternalId| statement.query_row(params![realm, participant, id.as_str()], |row| row.get(0));
    Ok(ids.iter().map(&mut open).collect::<Result<_, _>>()?)
}

// ---- dead letters -----------------------------------------------------------------------------------------------------------------------

pub(super) fn dead_letters(connection: &Connection, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, StoreError> {
    let names = Names::new(connection);
    // A name that was never given an id fits no letter.
    let named = |text: &String| -> Result<i64, StoreError> { Ok(names.find(text)?.unwrap_or(-1)) };
    let (realm, participant) = (filter.realm.as_ref().map(named).transpose()?, &filter.participant);
    let max = if filter.max == 0 { LETTERS } else { filter.max };
    let ids: Vec<String> = filter.ids.iter().map(i64::to_string).collect();
    // Numbers only; they need no binding.
    let by_id = if ids.is_empty() { String::new() } else { format!(" AND id IN ({})", ids.join(",")) };
    let mut statement = connection.prepare(&format!(
        "SELECT id, realm, participant, stage, external_id, record, at, original, payload, class, reason, message, field, attempts, parent,
           close_reason, closed_at, closed_by, detail
         FROM dead_letter WHERE (?1 IS NULL OR realm = ?1) AND (?3 OR closed_at IS NULL){by_id}
           AND (?2 IS NULL OR participant IN (SELECT id FROM name WHERE text = ?2 OR ?2 LIKE '%/' AND substr(text, 1, length(?2)) = ?2))
           AND (?5 IS NULL OR stage = ?5) AND (?6 IS NULL OR class = ?6) AND (?7 IS NULL OR reason = ?7) AND (?8 IS NULL OR at < ?8)
           AND (?9 IS NULL OR instr(lower(ifnull(field, '') || char(10) || message || char(10) || ifnull(external_id, '')), lower(?9)) > 0)
           AND (?10 IS NULL OR id < ?10) AND (?11 IS NULL OR record = ?11)
         ORDER BY id DESC LIMIT ?4"
    ))?;
    let class = filter.class.as_ref().map(encode_word).transpose()?;
    let mut rows = statement.query(params![
        realm,
        participant,
        filter.closed,
        limit(max),
        filter.stage.map(stage_code),
        class,
        filter.reason,
        filter.before.map(|before| before.0),
        filter.text,
        filter.below,
        filter.record.map(id_bytes),
    ])?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        letters.push(letter(row, &names)?);
    }
    Ok(letters)
}

fn letter(row: &Row<'_>, names: &Names<'_>) -> Result<DeadLetter, StoreError> {
    let closed = match (row.get::<_, Option<String>>(15)?, row.get::<_, Option<i64>>(16)?) {
        (Some(reason), Some(at)) => {
            let reason: CloseReason = decode_word("close reason", &reason)?;
            Some((reason, Timestamp(at), row.get::<_, Option<String>>(17)?.unwrap_or_default()))
        }
        _ => None,
    };
    Ok(DeadLetter {
        id: row.get(0)?,
        realm: names.text(row.get(1)?)?,
        letter: NewDeadLetter {
            stage: stage_of(row.get(3)?)?,
            participant: names.text(row.get(2)?)?,
            external_id: row.get::<_, Option<String>>(4)?.map(ExternalId),
            record: row.get::<_, Option<IdBytes>>(5)?.map(record_id),
            original: row.get(7)?,
            payload: row.get(8)?,
            class: decode_word("error class", &row.get::<_, String>(9)?)?,
            reason: row.get(10)?,
            message: row.get(11)?,
            detail: row.get(18)?,
            field: row.get(12)?,
            attempts: row.get(13)?,
            parent: row.get(14)?,
        },
        at: Timestamp(row.get(6)?),
        closed,
    })
}

// ---- numbers ----------------------------------------------------------------------------------------------------------------------------

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// Asks for counts of one realm or of all.
struct Counting<'c> {
    connection: &'c Connection,
    names: Names<'c>,
    realm: Option<i64>,
    now: Timestamp,
}

impl Counting<'_> {
    /// Calls `each` with the realm of every row (its first column) and the row. In `sql`, `$REALM` stands for "of those realms" (a plan of its own
    /// for one and for all), `?2` for now.
    fn rows(&self, sql: &str, mut each: impl FnMut(i64, &Row<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let of = if self.realm.is_some() { "realm = ?1" } else { "?1 IS NULL" };
        let mut statement = self.connection.prepare_cached(&sql.replace("$REALM", of))?;
        let bound = [self.realm, Some(self.now.0)].into_iter().take(statement.parameter_count());
        let mut rows = statement.query(params_from_iter(bound))?;
        while let Some(row) = rows.next()? {
            each(row.get(0)?, row)?;
        }
        Ok(())
    }
}

pub(super) fn snapshots(connection: &Connection, only: Option<&str>, now: Timestamp) -> Result<BTreeMap<String, Snapshot>, StoreError> {
    let names = Names::new(connection);
    let realm = match only {
        None => None,
        Some(only) => match names.find(only)? {
            None => return Ok(BTreeMap::new()),
            known => known,
        },
    };
    let counting = Counting { connection, names, realm, now };
    let names = &counting.names;
    let mut all: BTreeMap<i64, Snapshot> = BTreeMap::new();
    let places = places(&counting)?;
    for ((realm, ..), book) in lanes(&counting, &places)? {
        all.entry(realm).or_default().lanes.push(book);
    }
    for (place, part) in &places {
        let pending = all.entry(place.realm).or_default().pending.entry(names.text(place.target)?).or_default();
        pending.keys += part.keys;
        pending.oldest = [pending.oldest, part.oldest].into_iter().flatten().min();
    }

    const SOURCES: &str = "SELECT realm, participant, read, changed, unchanged, dead_lettered, conflicts FROM source_book WHERE $REALM";
    counting.rows(SOURCES, |realm, row| {
        let ledger = SourceLedger {
            read: count(row, 2)?,
            changed: count(row, 3)?,
            unchanged: count(row, 4)?,
            dead_lettered: count(row, 5)?,
            conflicts: count(row, 6)?,
        };
        all.entry(realm).or_default().sources.insert(names.text(row.get(1)?)?, ledger);
        Ok(())
    })?;
    counting.rows(
        "SELECT realm, participant, count(*) FROM dead_letter WHERE $REALM AND closed_at IS NULL GROUP BY realm, participant",
        |realm, row| {
            all.entry(realm).or_default().dead_letters.insert(names.text(row.get(1)?)?, count(row, 2)?);
            Ok(())
        },
    )?;
    counting.rows("SELECT realm, live, matched, last_delivered FROM realm_book WHERE $REALM", |realm, row| {
        let snapshot = all.entry(realm).or_default();
        (snapshot.live, snapshot.matched) = (count(row, 1)?, count(row, 2)?);
        snapshot.last_delivered = row.get::<_, Option<i64>>(3)?.map(Timestamp);
        Ok(())
    })?;
    all.into_iter().map(|(realm, snapshot)| Ok((names.text(realm)?, snapshot))).collect()
}

/// Places of a lane that hold entries of the same origins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    realm: i64,
    target: i64,
    /// Of the entry that waits, and of the one in flight.
    origins: [Option<i64>; 2],
}

/// All lanes, in one walk. They may be long, and `GROUP BY` would sort them, in memory; so they are counted here. Places that hold no more than an intent are
/// left out.
fn places(counting: &Counting<'_>) -> Result<BTreeMap<Alike, Pending>, StoreError> {
    const PLACES: &str = "SELECT realm, target, origin, c_origin,
           CASE WHEN phase = 3 OR (phase < 2 AND due <= ?2) THEN min(ifnull(since, c_since), ifnull(c_since, since)) END
         FROM lane WHERE $REALM AND phase < 4";
    let mut places: BTreeMap<Alike, Pending> = BTreeMap::new();
    counting.rows(PLACES, |realm, row| {
        let alike = Alike { realm, target: row.get(1)?, origins: [row.get(2)?, row.get(3)?] };
        let pending = places.entry(alike).or_default();
        pending.keys += 1;
        pending.oldest = [pending.oldest, row.get::<_, Option<i64>>(4)?.map(Timestamp)].into_iter().flatten().min();
        Ok(())
    })?;
    Ok(places)
}

/// The books of every lane, by realm, target and origin: the cumulative counts, and what is pending or dead now.
fn lanes(counting: &Counting<'_>, places: &BTreeMap<Alike, Pending>) -> Result<BTreeMap<(i64, i64, i64), LaneLedger>, StoreError> {
    let mut books: BTreeMap<(i64, i64, i64), LaneLedger> = BTreeMap::new();
    let key = |realm: i64, row: &Row<'_>| -> Result<_, StoreError> { Ok((realm, row.get(1)?, row.get(2)?)) };

    counting.rows(
        "SELECT realm, target, origin, entered, delivered, unchanged, superseded, discarded, last_delivered FROM lane_book WHERE $REALM",
        |realm, row| {
            let book = books.entry(key(realm, row)?).or_default();
            book.entered = count(row, 3)?;
            book.delivered = count(row, 4)?;
            book.unchanged = count(row, 5)?;
            book.superseded = count(row, 6)?;
            book.discarded = count(row, 7)?;
            book.last_delivered = row.get::<_, Option<i64>>(8)?.map(Timestamp);
            Ok(())
        },
    )?;
    counting.rows("SELECT realm, target, origin, reason, count FROM filtered_book WHERE $REALM", |realm, row| {
        books.entry(key(realm, row)?).or_default().filtered.insert(row.get(3)?, count(row, 4)?);
        Ok(())
    })?;
    for (place, part) in places {
        for origin in place.origins.into_iter().flatten() {
            books.entry((place.realm, place.target, origin)).or_default().pending += part.keys;
        }
    }
    counting.rows(
        "SELECT realm, target, origin, count(*) FROM dead_letter WHERE $REALM AND closed_at IS NULL AND target IS NOT NULL
         GROUP BY realm, target, origin",
        |realm, row| {
            books.entry(key(realm, row)?).or_default().dead_lettered = count(row, 3)?;
            Ok(())
        },
    )?;

    for ((_, target, origin), book) in &mut books {
        book.target = counting.names.text(*target)?;
        book.origin = match special_origin(*origin) {
            Some(special) => encode_word::<Origin>(&special)?,
            None => counting.names.text(*origin)?,
        };
    }
    Ok(books)
}
