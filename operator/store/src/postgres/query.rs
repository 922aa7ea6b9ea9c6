//! The queries. Each is one statement, or several in a transaction that sees one moment, so that what it answers was true at one moment.

use super::codec::{count, get, place, read_id, stored_id, stored_ids, uuids};
use super::error::Failure;
use super::records::{known, known_of, unnamed};
use super::session::{Ask, Session, ask};
use crate::rows::books::hour_of;
use crate::rows::codec::{decode, decode_word, encode_word, haste, special_origin, stage_code, stage_of};
use crate::rows::lane::{Phase, limit};
use crate::rows::packed;
use crate::{
    Checkpoint, CloseReason, DeadLetter, DeadLetterFilter, GuardCounts, Guarded, Haste, IndexKey, Known, LaneFence, LaneLedger,
    NewDeadLetter, Origin, Snapshot, SourceLedger,
};
use fairlead_model::hash::ValueHash;
use fairlead_model::{ExternalId, RecordId, SmolStr, Timestamp, realm};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use tokio_postgres::Row;
use uuid::Uuid;

/// The most dead letters that one answer holds when the filter names no maximum.
const LETTERS: usize = 1000;

/// The id of the name in a parameter; of one that was never given an id, nothing is found.
macro_rules! id_of {
    ($parameter:literal) => {
        concat!("(SELECT id FROM name WHERE text = ", $parameter, ")")
    };
}

/// Puts what rows tell in the places that they belong to.
fn in_places<T: Clone>(asked: usize, rows: &[Row], empty: T, of: impl Fn(&Row) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut answers = vec![empty; asked];
    for row in rows {
        if let Some(answer) = answers.get_mut(place(row)?) {
            *answer = of(row)?;
        }
    }
    Ok(answers)
}

fn known_in_places(asked: usize, rows: &[Row]) -> Result<Vec<Option<Known>>, Failure> {
    in_places(asked, rows, None, |row| known_of(row).map(|(_, _, known)| Some(known)))
}

fn page(rows: &[Row]) -> Result<Vec<Known>, Failure> {
    rows.iter().map(|row| known_of(row).map(|(_, _, known)| known)).collect()
}

// ---- records ----------------------------------------------------------------------------------------------------------------------------

const BY_EXTERNAL: &str = known!(concat!(
    "(SELECT x.record, asked.place FROM unnest($3::text[]) WITH ORDINALITY AS asked(external_id, place) CROSS JOIN LATERAL
       (SELECT record FROM identity WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND external_id = asked.external_id LIMIT 1) AS x)"
));

pub(super) async fn known_by_external(
    session: &Session,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
) -> Result<Vec<Option<Known>>, Failure> {
    let asked = stored_ids(ids.iter().map(ExternalId::as_str));
    let rows = session.ask(ask!(BY_EXTERNAL, realm.to_owned(), participant.to_owned(), asked)).await?;
    known_in_places(ids.len(), &rows)
}

const BY_ID: &str = known!(concat!(
    "(SELECT x.row, asked.place FROM unnest($2::uuid[]) WITH ORDINALITY AS asked(id, place) CROSS JOIN LATERAL
       (SELECT coalesce(merged_into, row) AS row FROM record WHERE realm = ",
    id_of!("$1"),
    " AND id = asked.id LIMIT 1) AS x)"
));

pub(super) async fn known_by_id(session: &Session, realm: &str, ids: &[RecordId]) -> Result<Vec<Option<Known>>, Failure> {
    let rows = session.ask(ask!(BY_ID, realm.to_owned(), uuids(ids))).await?;
    known_in_places(ids.len(), &rows)
}

const MATCHES: &str = concat!(
    "WITH realm AS (SELECT ",
    id_of!("$1"),
    " AS id)
     SELECT asked.place, found.id FROM unnest($2::int8[]) WITH ORDINALITY AS asked(hash, place) CROSS JOIN LATERAL
       ((SELECT r.id, r.row AS rank FROM index_key k JOIN record r ON r.row = k.record
         WHERE k.realm = (SELECT id FROM realm) AND k.hash = asked.hash AND r.deleted_at IS NULL ORDER BY k.record LIMIT 3)
        UNION ALL
        (SELECT r.id, row_number() OVER (ORDER BY r.deleted_at DESC, r.row DESC) AS rank FROM index_key k JOIN record r ON r.row = k.record
         WHERE k.realm = (SELECT id FROM realm) AND k.hash = asked.hash AND NOT EXISTS
           (SELECT 1 FROM index_key l JOIN record m ON m.row = l.record
            WHERE l.realm = (SELECT id FROM realm) AND l.hash = asked.hash AND m.deleted_at IS NULL) ORDER BY rank LIMIT 3)
       ) AS found ORDER BY asked.place, found.rank"
);

pub(super) async fn match_records(session: &Session, realm: &str, keys: &[IndexKey]) -> Result<Vec<Vec<RecordId>>, Failure> {
    let hashes: Vec<i64> = keys.iter().map(|key| key.hash.cast_signed()).collect();
    let mut found = vec![Vec::new(); keys.len()];
    for row in session.ask(ask!(MATCHES, realm.to_owned(), hashes)).await? {
        if let Some(records) = found.get_mut(place(&row)?) {
            records.push(RecordId(get(&row, 1)?));
        }
    }
    Ok(found)
}

/// After a record that the realm does not hold comes nothing.
const FIND: &str = known!(concat!(
    "(SELECT k.record, k.record FROM index_key k JOIN record x ON x.row = k.record
      WHERE k.realm = ",
    id_of!("$1"),
    " AND k.hash = $2 AND x.deleted_at IS NULL
        AND k.record > CASE WHEN $3::uuid IS NULL THEN 0 ELSE (SELECT row FROM record WHERE realm = ",
    id_of!("$1"),
    " AND id = $3) END ORDER BY k.record LIMIT $4)"
));

pub(super) async fn find(
    session: &Session,
    realm: &str,
    key: IndexKey,
    after: Option<RecordId>,
    max: usize,
) -> Result<Vec<Known>, Failure> {
    let after: Option<Uuid> = after.map(|id| id.0);
    page(&session.ask(ask!(FIND, realm.to_owned(), key.hash.cast_signed(), after, limit(max))).await?)
}

const ALL: &str = known!(concat!(
    "(SELECT x.row, row_number() OVER (ORDER BY x.id) FROM record x WHERE x.realm = ",
    id_of!("$1"),
    " AND x.id > $2 ORDER BY x.id LIMIT $3)"
));

pub(super) async fn records(session: &Session, realm: &str, after: Option<RecordId>, max: usize) -> Result<Vec<Known>, Failure> {
    // No record has the nil id, so every id comes after it.
    let after = after.map_or_else(Uuid::nil, |id| id.0);
    page(&session.ask(ask!(ALL, realm.to_owned(), after, limit(max))).await?)
}

const REFERRING: &str = known!(concat!(
    "(SELECT x.row, row_number() OVER (ORDER BY x.id) FROM record x WHERE x.realm = ",
    id_of!("$1"),
    " AND x.id > $2 AND x.merged_into IS NULL AND x.document LIKE ANY ($3::text[]) ORDER BY x.id LIMIT $4)"
));

pub(super) async fn referring(
    session: &Session,
    realm: &str,
    ids: &[RecordId],
    after: Option<RecordId>,
    max: usize,
) -> Result<Vec<Known>, Failure> {
    let after = after.map_or_else(Uuid::nil, |id| id.0);
    // Ids are hexadecimal digits and hyphens; none of them is a wildcard.
    let holds: Vec<String> = ids.iter().map(|id| format!("%{id}%")).collect();
    page(&session.ask(ask!(REFERRING, realm.to_owned(), after, holds, limit(max))).await?)
}

const EXTERNAL_IDS: &str = concat!(
    "SELECT asked.place, i.external_id FROM unnest($3::uuid[]) WITH ORDINALITY AS asked(id, place)
       CROSS JOIN LATERAL (SELECT coalesce(merged_into, row) AS row FROM record WHERE realm = ",
    id_of!("$1"),
    " AND id = asked.id LIMIT 1) AS r
       CROSS JOIN LATERAL (SELECT external_id FROM identity WHERE record = r.row AND participant = ",
    id_of!("$2"),
    " LIMIT 1) AS i"
);

pub(super) async fn external_ids(
    session: &Session,
    realm: &str,
    participant: &str,
    ids: &[RecordId],
) -> Result<Vec<Option<ExternalId>>, Failure> {
    let rows = session.ask(ask!(EXTERNAL_IDS, realm.to_owned(), participant.to_owned(), uuids(ids))).await?;
    in_places(ids.len(), &rows, None, |row| Ok(Some(ExternalId(read_id(get(row, 1)?)))))
}

const SEEN: &str = concat!(
    "SELECT asked.place, i.state FROM unnest($3::text[]) WITH ORDINALITY AS asked(external_id, place)
       CROSS JOIN LATERAL (SELECT state FROM identity WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND external_id = asked.external_id LIMIT 1) AS i"
);

pub(super) async fn seen(
    session: &Session,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
    fields: &[SmolStr],
) -> Result<Option<ValueHash>, Failure> {
    let asked = stored_ids(ids.iter().map(ExternalId::as_str));
    let rows = session.ask(ask!(SEEN, realm.to_owned(), participant.to_owned(), asked)).await?;
    let states: Vec<Option<String>> = in_places(ids.len(), &rows, None, |row| Ok(Some(get(row, 1)?)))?;
    Ok(packed::seen(ids.iter().zip(states).map(|(id, state)| Ok((id.as_str(), state))), fields)?)
}

const RECORD_IDS: &str = concat!(
    "SELECT asked.place, own.id FROM unnest($3::text[]) WITH ORDINALITY AS asked(external_id, place)
       CROSS JOIN LATERAL (SELECT record FROM identity WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND external_id = asked.external_id LIMIT 1) AS i
       CROSS JOIN LATERAL (SELECT coalesce(merged_into, row) AS row FROM record WHERE record.row = i.record LIMIT 1) AS r
       CROSS JOIN LATERAL (SELECT id FROM record WHERE record.row = r.row LIMIT 1) AS own"
);

pub(super) async fn record_ids(
    session: &Session,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
) -> Result<Vec<Option<RecordId>>, Failure> {
    let asked = stored_ids(ids.iter().map(ExternalId::as_str));
    let rows = session.ask(ask!(RECORD_IDS, realm.to_owned(), participant.to_owned(), asked)).await?;
    in_places(ids.len(), &rows, None, |row| Ok(Some(RecordId(get(row, 1)?))))
}

const PARTICIPANT_IDS: &str = concat!(
    "SELECT i.external_id FROM identity i JOIN record r ON r.row = i.record AND r.merged_into IS NULL WHERE i.realm = ",
    id_of!("$1"),
    " AND i.participant = ",
    id_of!("$2"),
    " AND i.external_id > $3 ORDER BY i.external_id LIMIT $4"
);

pub(super) async fn participant_ids(
    session: &Session,
    realm: &str,
    participant: &str,
    after: Option<&ExternalId>,
    max: usize,
) -> Result<Vec<ExternalId>, Failure> {
    // Every id is greater than the empty text, except an empty one, which no vendor gives.
    let after = after.map_or_else(String::new, |id| stored_id(id.as_str()).into_owned());
    let rows = session.ask(ask!(PARTICIPANT_IDS, realm.to_owned(), participant.to_owned(), after, limit(max))).await?;
    rows.iter().map(|row| Ok(ExternalId(read_id(get(row, 0)?)))).collect()
}

// ---- the rest ---------------------------------------------------------------------------------------------------------------------------

const SEQUENCE: &str = "SELECT sequence FROM store";

pub(super) async fn sequence(session: &Session) -> Result<u64, Failure> {
    let rows = session.ask(ask!(SEQUENCE)).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

const CHECKPOINT: &str =
    concat!("SELECT cursor, complete FROM checkpoint WHERE realm = ", id_of!("$1"), " AND participant = ", id_of!("$2"), " AND slice = $3");

pub(super) async fn checkpoint(session: &Session, realm: &str, participant: &str, slice: &str) -> Result<Option<Checkpoint>, Failure> {
    let rows = session.ask(ask!(CHECKPOINT, realm.to_owned(), participant.to_owned(), slice.to_owned())).await?;
    let of = |row: &Row| Ok(Checkpoint { slice: slice.to_owned(), cursor: decode("cursor", get(row, 0)?)?, complete: get(row, 1)? });
    rows.first().map(of).transpose()
}

const PENDING_READS: &str = concat!(
    "SELECT external_id FROM reread WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND waits_for IS NULL ORDER BY bulk, since, external_id LIMIT $3"
);

const PENDING_READS_OF: &str = concat!(
    "SELECT external_id FROM reread WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND waits_for IS NULL AND bulk = $4 ORDER BY since, external_id LIMIT $3"
);

const AWAITS_READ: &str = concat!(
    "SELECT asked.place, reread.bulk FROM unnest($3::text[]) WITH ORDINALITY AS asked(external_id, place) CROSS JOIN LATERAL
       (SELECT bulk FROM reread WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND external_id = asked.external_id AND waits_for IS NULL LIMIT 1) AS reread"
);

pub(super) async fn pending_reads(session: &Session, realm: &str, participant: &str, max: usize) -> Result<Vec<ExternalId>, Failure> {
    let rows = session.ask(ask!(PENDING_READS, realm.to_owned(), participant.to_owned(), limit(max))).await?;
    rows.iter().map(|row| Ok(ExternalId(read_id(get(row, 0)?)))).collect()
}

pub(super) async fn pending_reads_of(
    session: &Session,
    realm: &str,
    participant: &str,
    of: Haste,
    max: usize,
) -> Result<Vec<ExternalId>, Failure> {
    let ask = ask!(PENDING_READS_OF, realm.to_owned(), participant.to_owned(), limit(max), of == Haste::Bulk);
    session.ask(ask).await?.iter().map(|row| Ok(ExternalId(read_id(get(row, 0)?)))).collect()
}

pub(super) async fn awaits_read(
    session: &Session,
    realm: &str,
    participant: &str,
    ids: &[ExternalId],
) -> Result<Vec<Option<Haste>>, Failure> {
    let asked = stored_ids(ids.iter().map(|id| id.as_str()));
    let rows = session.ask(ask!(AWAITS_READ, realm.to_owned(), participant.to_owned(), asked)).await?;
    in_places(ids.len(), &rows, None, |row| Ok(Some(haste(get(row, 1)?))))
}

const NOTE: &str = concat!("SELECT value FROM note WHERE realm = ", id_of!("$1"), " AND name = $2");

pub(super) async fn note(session: &Session, realm: &str, name: &str) -> Result<Option<Value>, Failure> {
    let rows = session.ask(ask!(NOTE, realm.to_owned(), stored_id(name).into_owned())).await?;
    rows.first().map(|row| Ok(decode("note", get(row, 0)?)?)).transpose()
}

const CHANGES: &str = concat!(
    "SELECT coalesce(sum(changes), 0)::int8 + (SELECT count(*) FROM unnest($3::uuid[]) AS n(id) WHERE NOT EXISTS
         (SELECT 1 FROM record WHERE record.realm = ",
    id_of!("$1"),
    " AND record.id = n.id AND changed_hour >= $2 AND coalesce(changed_book, realm) = ",
    id_of!("$5"),
    ")),
       coalesce(sum(deletes), 0)::int8 + (SELECT count(*) FROM unnest($4::uuid[]) AS n(id) WHERE NOT EXISTS
         (SELECT 1 FROM record WHERE record.realm = ",
    id_of!("$1"),
    " AND record.id = n.id AND deleted_hour >= $2 AND coalesce(deleted_book, realm) = ",
    id_of!("$5"),
    "))
     FROM guard_count WHERE realm = ",
    id_of!("$1"),
    " AND book = ",
    id_of!("$5"),
    " AND hour >= $2"
);

pub(super) async fn changes_since(session: &Session, realm: &str, since: Timestamp, with: &Guarded) -> Result<GuardCounts, Failure> {
    let book = with.book(realm).to_owned();
    let ask = ask!(CHANGES, realm.to_owned(), hour_of(since), uuids(&with.changed), uuids(&with.deleted), book);
    let rows = session.ask(ask).await?;
    rows.first().map_or(Ok(GuardCounts::default()), |row| Ok(GuardCounts { changes: count(row, 0)?, deletes: count(row, 1)? }))
}

const HELD: &str = concat!(
    "SELECT count(DISTINCT record) FROM identity WHERE realm = ",
    id_of!("$1"),
    " AND participant IN (SELECT id FROM name WHERE text = ANY($2::text[]))"
);

pub(super) async fn held(session: &Session, realm: &str, participants: &[String]) -> Result<u64, Failure> {
    let rows = session.ask(ask!(HELD, realm.to_owned(), participants.to_vec())).await?;
    rows.first().map_or(Ok(0), |row| count(row, 0))
}

const WAITS_FOR: &str = concat!(
    "SELECT asked.place, l.waits_for FROM unnest($3::uuid[]) WITH ORDINALITY AS asked(id, place)
       CROSS JOIN LATERAL (SELECT row FROM record WHERE realm = ",
    id_of!("$1"),
    " AND id = asked.id LIMIT 1) AS r
       CROSS JOIN LATERAL (SELECT waits_for FROM lane WHERE record = r.row AND target = ",
    id_of!("$2"),
    " AND phase = 2 LIMIT 1) AS l"
);

pub(super) async fn waits_for(session: &Session, realm: &str, target: &str, ids: &[RecordId]) -> Result<Vec<Option<RecordId>>, Failure> {
    let rows = session.ask(ask!(WAITS_FOR, realm.to_owned(), target.to_owned(), uuids(ids))).await?;
    in_places(ids.len(), &rows, None, |row| Ok(get::<Option<Uuid>>(row, 1)?.map(RecordId)))
}

/// What waits with an intent is in phase 1, and a first load's new records, which are many, are in phase 0. What became a dead letter (phase 4) waits
/// for a person; nobody waits for that.
const CREATING: &str = concat!(
    "SELECT EXISTS (SELECT 1 FROM lane WHERE realm = ",
    id_of!("$1"),
    " AND target = ",
    id_of!("$2"),
    " AND phase IN (1, 3) AND i_at IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM identity WHERE identity.record = lane.record AND identity.participant = lane.target))"
);

pub(super) async fn creating(session: &Session, realm: &str, target: &str) -> Result<bool, Failure> {
    let rows = session.ask(ask!(CREATING, realm.to_owned(), target.to_owned())).await?;
    rows.first().map_or(Ok(false), |row| get(row, 0))
}

/// The next entry of one phase and haste that is not due yet.
macro_rules! next_of {
    ($phase:literal, $bulk:literal) => {
        concat!(
            "(SELECT due FROM lane WHERE realm = ",
            id_of!("$1"),
            " AND target = ",
            id_of!("$2"),
            " AND phase = ",
            $phase,
            " AND bulk = ",
            $bulk,
            " AND due > $3 AND ($4::int8 >> (record % $5)::int4) & 1 = 1 ORDER BY due LIMIT 1)"
        )
    };
}

const NEXT_DUE: &str = concat!(
    "SELECT least(",
    next_of!("0", "false"),
    ", ",
    next_of!("1", "false"),
    ", CASE WHEN $6 THEN least(",
    next_of!("0", "true"),
    ", ",
    next_of!("1", "true"),
    ") END)"
);

pub(super) async fn next_due(
    session: &Session,
    realm: &str,
    target: &str,
    fence: &LaneFence,
    bulk: bool,
    now: Timestamp,
) -> Result<Option<Timestamp>, Failure> {
    let rows = session.ask(ask!(NEXT_DUE, realm.to_owned(), target.to_owned(), now.0, fence.mask(), fence.count(), bulk)).await?;
    rows.first().map_or(Ok(None), |row| Ok(get::<Option<i64>>(row, 0)?.map(Timestamp)))
}

const WANTED_SOON: &str = concat!(
    "SELECT EXISTS (SELECT 1 FROM lane WHERE realm = ",
    id_of!("$1"),
    " AND target = ",
    id_of!("$2"),
    " AND phase = ANY($6::int2[]) AND NOT bulk AND due <= $3 AND origin IS NOT NULL AND ($4::int8 >> (record % $5)::int4) & 1 = 1)"
);

pub(super) async fn wanted_soon(
    session: &Session,
    realm: &str,
    target: &str,
    fence: &LaneFence,
    creates: bool,
    now: Timestamp,
) -> Result<bool, Failure> {
    let phases = [Phase::Create, Phase::Ready, Phase::Claimed].into_iter().filter(|phase| creates || *phase != Phase::Create);
    let phases: Vec<i16> = phases.map(|phase| phase as i16).collect();
    let rows = session.ask(ask!(WANTED_SOON, realm.to_owned(), target.to_owned(), now.0, fence.mask(), fence.count(), phases)).await?;
    rows.first().map_or(Ok(false), |row| get(row, 0))
}

const REALMS: &str = "SELECT text FROM name WHERE EXISTS (SELECT 1 FROM record WHERE realm = name.id)
       OR EXISTS (SELECT 1 FROM lane_book WHERE realm = name.id) OR EXISTS (SELECT 1 FROM source_book WHERE realm = name.id)
       OR EXISTS (SELECT 1 FROM checkpoint WHERE realm = name.id) OR EXISTS (SELECT 1 FROM reread WHERE realm = name.id)
       OR EXISTS (SELECT 1 FROM dead_letter WHERE realm = name.id) OR EXISTS (SELECT 1 FROM note WHERE realm = name.id)
       OR EXISTS (SELECT 1 FROM realm_book WHERE realm = name.id) OR EXISTS (SELECT 1 FROM guard_count WHERE realm = name.id)
     ORDER BY text";

/// The realms that hold anything; notes of Connectors left out.
pub(super) async fn realms(session: &Session) -> Result<Vec<String>, Failure> {
    Ok(all_realms(session).await?.into_iter().filter(|realm| !realm::is_connector(realm)).collect())
}

pub(super) async fn all_realms(session: &Session) -> Result<Vec<String>, Failure> {
    session.ask(ask!(REALMS)).await?.iter().map(|row| get(row, 0)).collect()
}

/// Every name by its id.
pub(super) async fn names(session: &Session) -> Result<HashMap<i64, String>, Failure> {
    by_id(&session.ask(ask!(TEXTS)).await?)
}

fn by_id(texts: &[Row]) -> Result<HashMap<i64, String>, Failure> {
    texts.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

const DEAD_LETTERED: &str = concat!(
    "SELECT asked.place, EXISTS (SELECT 1 FROM dead_letter WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND external_id = asked.external_id AND stage <= 1 AND closed_at IS NULL)
     FROM unnest($3::text[]) WITH ORDINALITY AS asked(external_id, place)"
);

const DEAD_LETTERED_RECORDS: &str = concat!(
    "SELECT asked.place, EXISTS (SELECT 1 FROM dead_letter WHERE realm = ",
    id_of!("$1"),
    " AND participant = ",
    id_of!("$2"),
    " AND record = asked.id AND closed_at IS NULL) FROM unnest($3::uuid[]) WITH ORDINALITY AS asked(id, place)"
);

pub(super) async fn dead_lettered_records(
    session: &Session,
    realm: &str,
    participant: &str,
    ids: &[RecordId],
) -> Result<Vec<bool>, Failure> {
    let rows = session.ask(ask!(DEAD_LETTERED_RECORDS, realm.to_owned(), participant.to_owned(), uuids(ids))).await?;
    in_places(ids.len(), &rows, false, |row| get(row, 1))
}

pub(super) async fn dead_lettered(session: &Session, realm: &str, participant: &str, ids: &[ExternalId]) -> Result<Vec<bool>, Failure> {
    let asked = stored_ids(ids.iter().map(ExternalId::as_str));
    let rows = session.ask(ask!(DEAD_LETTERED, realm.to_owned(), participant.to_owned(), asked)).await?;
    in_places(ids.len(), &rows, false, |row| get(row, 1))
}

// ---- dead letters -----------------------------------------------------------------------------------------------------------------------

macro_rules! letters {
    ($filter:literal) => {
        concat!(
            "SELECT id, (SELECT text FROM name WHERE name.id = d.realm), (SELECT text FROM name WHERE name.id = d.participant), stage,
               external_id, record, at, original, payload, class, reason, message, field, attempts, parent, close_reason, closed_at, closed_by,
               detail
             FROM dead_letter d WHERE ($1::text IS NULL OR d.realm = ",
            id_of!("$1"),
            ") AND ($2::text IS NULL OR d.participant IN
               (SELECT id FROM name WHERE text = $2 OR right($2, 1) = '/' AND starts_with(text, $2))) AND ($3 OR d.closed_at IS NULL) AND ",
            $filter,
            " AND ($6::int8 IS NULL OR d.stage = $6) AND ($7::text IS NULL OR d.class = $7) AND ($8::text IS NULL OR d.reason = $8)
              AND ($9::int8 IS NULL OR d.at < $9)
              AND ($10::text IS NULL
                OR strpos(lower(concat_ws(E'\n', coalesce(d.field, ''), d.message, coalesce(d.external_id, ''))), lower($10)) > 0)
              AND ($11::int8 IS NULL OR d.id < $11) AND ($12::uuid IS NULL OR d.record = $12)
             ORDER BY id DESC LIMIT $5"
        )
    };
}

const BY_NUMBER: &str = letters!("d.id = ANY($4::int8[])");
const OF_REALM: &str = letters!("d.realm = (SELECT id FROM name WHERE text = $1) AND cardinality($4::int8[]) = 0");
const OF_ALL: &str = letters!("cardinality($4::int8[]) = 0");

pub(super) async fn dead_letters(session: &Session, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, Failure> {
    let max = if filter.max == 0 { LETTERS } else { filter.max };
    let sql = match (filter.ids.is_empty(), &filter.realm) {
        (false, _) => BY_NUMBER,
        (true, Some(_)) => OF_REALM,
        (true, None) => OF_ALL,
    };
    let ask = ask!(
        sql,
        filter.realm.clone(),
        filter.participant.clone(),
        filter.closed,
        filter.ids.clone(),
        limit(max),
        filter.stage.map(stage_code),
        filter.class.as_ref().map(encode_word).transpose()?,
        filter.reason.clone(),
        filter.before.map(|before| before.0),
        filter.text.clone(),
        filter.below,
        filter.record.map(|record| record.0),
    );
    session.ask(ask).await?.iter().map(letter).collect()
}

fn letter(row: &Row) -> Result<DeadLetter, Failure> {
    let closed = match (get::<Option<&str>>(row, 15)?, get::<Option<i64>>(row, 16)?) {
        (Some(reason), Some(at)) => {
            let reason: CloseReason = decode_word("close reason", reason)?;
            Some((reason, Timestamp(at), get::<Option<String>>(row, 17)?.unwrap_or_default()))
        }
        _ => None,
    };
    Ok(DeadLetter {
        id: get(row, 0)?,
        realm: get::<Option<String>>(row, 1)?.ok_or_else(unnamed)?,
        letter: NewDeadLetter {
            stage: stage_of(i64::from(get::<i16>(row, 3)?))?,
            participant: get::<Option<String>>(row, 2)?.ok_or_else(unnamed)?,
            external_id: get::<Option<String>>(row, 4)?.map(read_id).map(ExternalId),
            record: get::<Option<Uuid>>(row, 5)?.map(RecordId),
            original: get(row, 7)?,
            payload: get(row, 8)?,
            class: decode_word("error class", get(row, 9)?)?,
            reason: get(row, 10)?,
            message: get(row, 11)?,
            detail: get(row, 18)?,
            field: get(row, 12)?,
            attempts: u32::try_from(get::<i64>(row, 13)?).unwrap_or(u32::MAX),
            parent: get(row, 14)?,
        },
        at: Timestamp(get(row, 6)?),
        closed,
    })
}

// ---- numbers ----------------------------------------------------------------------------------------------------------------------------

/// Everything is counted, so the tables are read as they lie; the session's other statements look single rows up.
const AS_THEY_LIE: &str = "SET LOCAL enable_seqscan = on";
const TEXTS: &str = "SELECT id, text FROM name";

/// `$1` is the realm, or null for all.
macro_rules! of_realms {
    ($select:literal, $filter:literal, $group:literal) => {
        concat!($select, " WHERE ($1::text IS NULL OR realm = (SELECT id FROM name WHERE text = $1))", $filter, $group)
    };
}

const SOURCES: &str = of_realms!("SELECT realm, participant, read, changed, unchanged, dead_lettered, conflicts FROM source_book", "", "");
/// All lanes, in one walk: they may be long. A row for the places that hold entries of the same origins.
const PLACES: &str = of_realms!(
    "SELECT realm, target, origin, c_origin, count(*), min(CASE WHEN phase = 3 OR (phase < 2 AND due <= $2) THEN least(since, c_since) END)
     FROM lane",
    " AND phase < 4",
    " GROUP BY realm, target, origin, c_origin"
);
const OPEN_LETTERS: &str =
    of_realms!("SELECT realm, participant, count(*) FROM dead_letter", " AND closed_at IS NULL", " GROUP BY realm, participant");
const BOOKS: &str = of_realms!("SELECT realm, live, matched, last_delivered FROM realm_book", "", "");
const LANES: &str =
    of_realms!("SELECT realm, target, origin, entered, delivered, unchanged, superseded, discarded, last_delivered FROM lane_book", "", "");
const FILTERED: &str = of_realms!("SELECT realm, target, origin, reason, count FROM filtered_book", "", "");
const DEAD: &str = of_realms!(
    "SELECT realm, target, origin, count(*) FROM dead_letter",
    " AND closed_at IS NULL AND target IS NOT NULL",
    " GROUP BY realm, target, origin"
);

pub(super) async fn snapshots(session: &mut Session, only: Option<&str>, now: Timestamp) -> Result<BTreeMap<String, Snapshot>, Failure> {
    session.begin_moment().await?;
    let of = |sql: &'static str| ask!(sql, only.map(str::to_owned));
    session.ask(ask!(AS_THEY_LIE)).await?;
    let places: Ask = ask!(PLACES, only.map(str::to_owned), now.0);
    let [texts, sources, places, letters, books, lanes, filtered, dead] =
        session.all([ask!(TEXTS), of(SOURCES), places, of(OPEN_LETTERS), of(BOOKS), of(LANES), of(FILTERED), of(DEAD)]).await?;
    session.rollback().await?;
    let texts = by_id(&texts)?;
    let text = |id: i64| texts.get(&id).cloned().ok_or_else(unnamed);
    let mut all: BTreeMap<i64, Snapshot> = BTreeMap::new();
    for ((realm, target, origin), mut book) in lane_books([&lanes, &filtered, &places, &dead])? {
        book.target = text(target)?;
        book.origin = match special_origin(origin) {
            Some(special) => encode_word::<Origin>(&special)?,
            None => text(origin)?,
        };
        all.entry(realm).or_default().lanes.push(book);
    }
    for row in &sources {
        let ledger = SourceLedger {
            read: count(row, 2)?,
            changed: count(row, 3)?,
            unchanged: count(row, 4)?,
            dead_lettered: count(row, 5)?,
            conflicts: count(row, 6)?,
        };
        all.entry(get(row, 0)?).or_default().sources.insert(text(get(row, 1)?)?, ledger);
    }
    for row in &places {
        let pending = all.entry(get(row, 0)?).or_default().pending.entry(text(get(row, 1)?)?).or_default();
        pending.keys += count(row, 4)?;
        pending.oldest = [pending.oldest, get::<Option<i64>>(row, 5)?.map(Timestamp)].into_iter().flatten().min();
    }
    for row in &letters {
        all.entry(get(row, 0)?).or_default().dead_letters.insert(text(get(row, 1)?)?, count(row, 2)?);
    }
    for row in &books {
        let snapshot = all.entry(get(row, 0)?).or_default();
        (snapshot.live, snapshot.matched) = (count(row, 1)?, count(row, 2)?);
        snapshot.last_delivered = get::<Option<i64>>(row, 3)?.map(Timestamp);
    }
    all.into_iter().map(|(realm, snapshot)| Ok((text(realm)?, snapshot))).collect()
}

/// The books of every lane, by realm, target and origin: the cumulative counts, and what is pending or dead now.
fn lane_books([lanes, filtered, places, dead]: [&[Row]; 4]) -> Result<BTreeMap<(i64, i64, i64), LaneLedger>, Failure> {
    let mut books: BTreeMap<(i64, i64, i64), LaneLedger> = BTreeMap::new();
    let key = |row: &Row| -> Result<_, Failure> { Ok((get(row, 0)?, get(row, 1)?, get(row, 2)?)) };
    for row in lanes {
        let book = books.entry(key(row)?).or_default();
        book.entered = count(row, 3)?;
        book.delivered = count(row, 4)?;
        book.unchanged = count(row, 5)?;
        book.superseded = count(row, 6)?;
        book.discarded = count(row, 7)?;
        book.last_delivered = get::<Option<i64>>(row, 8)?.map(Timestamp);
    }
    for row in filtered {
        books.entry(key(row)?).or_default().filtered.insert(get(row, 3)?, count(row, 4)?);
    }
    for row in places {
        for origin in [get::<Option<i64>>(row, 2)?, get(row, 3)?].into_iter().flatten() {
            books.entry((get(row, 0)?, get(row, 1)?, origin)).or_default().pending += count(row, 4)?;
        }
    }
    for row in dead {
        books.entry(key(row)?).or_default().dead_lettered = count(row, 3)?;
    }
    Ok(books)
}
