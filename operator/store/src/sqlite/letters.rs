//! Dead letters: opened, replaced, closed; and what each closing means for the books of the lane that the letter came from.

use super::books;
use super::names::Names;
use crate::archive::CORRECTED;
use crate::crash::{Command, Step, reach};
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, corrections, encode_word, id_bytes, stage_code};
use crate::rows::lane::limit;
use crate::{CloseDeadLetters, CloseReason, NewDeadLetter, StoreError, Sweep};
use fairlead_model::Timestamp;
use rusqlite::{Connection, params};
use std::collections::HashSet;

/// Who closes letters that a good version made void.
const BY_ITSELF: &str = "fairlead";

/// An open letter.
struct Open {
    id: i64,
    realm: i64,
    record: Option<IdBytes>,
    /// Target and origin of the lane entry that became this letter.
    lane: Option<(i64, i64)>,
}

const OPEN: &str = "SELECT id, realm, record, target, origin FROM dead_letter WHERE closed_at IS NULL AND ";

fn open(connection: &Connection, filter: &str, values: impl rusqlite::Params) -> Result<Vec<Open>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{OPEN}{filter}"))?;
    let rows = statement.query_map(values, |row| {
        let (target, origin): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        Ok(Open { id: row.get(0)?, realm: row.get(1)?, record: row.get(2)?, lane: target.zip(origin) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn close(
    connection: &Connection,
    books: &mut Books,
    letters: &[Open],
    (reason, now, author): (CloseReason, Timestamp, &str),
) -> Result<(), StoreError> {
    let word = encode_word(&reason)?;
    for letter in letters {
        connection
            .prepare_cached("UPDATE dead_letter SET close_reason = ?2, closed_at = ?3, closed_by = ?4 WHERE id = ?1")?
            .execute(params![letter.id, word, now.0, author])?;
        if let Some((target, origin)) = letter.lane {
            let key = (letter.realm, target, origin);
            if reason == CloseReason::Discarded { books.discarded(key) } else { books.superseded(key) }
        }
    }
    Ok(())
}

/// Whether any letter is open of what was read from this participant; the usual answer spares a look-up per record.
pub(super) fn any_read(connection: &Connection, realm: i64, participant: i64) -> Result<bool, StoreError> {
    any(connection, realm, participant, 0, 1)
}

/// Whether any letter is open of what was to be written to this target.
pub(super) fn any_written(connection: &Connection, realm: i64, target: i64) -> Result<bool, StoreError> {
    any(connection, realm, target, 2, 3)
}

fn any(connection: &Connection, realm: i64, participant: i64, first: i64, last: i64) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM dead_letter WHERE realm = ?1 AND participant = ?2 AND stage BETWEEN ?3 AND ?4 AND closed_at IS NULL)",
    )?;
    Ok(statement.query_row(params![realm, participant, first, last], |row| row.get(0))?)
}

/// A good version of `external_id` was read: letters of earlier ones are void.
pub(super) fn read_well(
    connection: &Connection,
    books: &mut Books,
    (realm, participant): (i64, i64),
    external_id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let filter = "realm = ?1 AND participant = ?2 AND external_id = ?3 AND stage <= 1";
    let letters = open(connection, filter, params![realm, participant, external_id])?;
    close(connection, books, &letters, (CloseReason::Superseded, now, BY_ITSELF))
}

/// The record arrived in `target`: letters of its earlier versions are void.
pub(super) fn written_well(
    connection: &Connection,
    books: &mut Books,
    (realm, target): (i64, i64),
    record: &IdBytes,
    now: Timestamp,
) -> Result<(), StoreError> {
    let filter = "realm = ?1 AND participant = ?2 AND record = ?3 AND stage >= 2";
    let letters = open(connection, filter, params![realm, target, record])?;
    close(connection, books, &letters, (CloseReason::Superseded, now, BY_ITSELF))
}

/// The record `loser` was folded into `survivor`, and its open letters go with it; where that one has a letter of the same stage in the same
/// participant, the loser's is superseded.
pub(super) fn fold(
    connection: &Connection,
    books: &mut Books,
    realm: i64,
    (loser, survivor): (&IdBytes, &IdBytes),
    now: Timestamp,
) -> Result<(), StoreError> {
    let filter = "realm = ?1 AND record = ?2 AND EXISTS (SELECT 1 FROM dead_letter AS own WHERE own.realm = dead_letter.realm
                    AND own.record = ?3 AND own.participant = dead_letter.participant AND own.stage = dead_letter.stage AND own.closed_at IS NULL)";
    let overtaken = open(connection, filter, params![realm, loser, survivor])?;
    close(connection, books, &overtaken, (CloseReason::Superseded, now, BY_ITSELF))?;
    connection
        .prepare_cached("UPDATE dead_letter SET record = ?3 WHERE realm = ?1 AND record = ?2 AND closed_at IS NULL")?
        .execute(params![realm, loser, survivor])?;
    Ok(())
}

/// Opens a letter. One that is open for the same record at the same stage is replaced. `lane` is the target and origin of the lane entry
/// that ends in this letter.
pub(super) fn add(
    connection: &Connection,
    names: &Names<'_>,
    books: &mut Books,
    realm: i64,
    letter: &NewDeadLetter,
    lane: Option<(i64, i64)>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let participant = names.intern(&letter.participant)?;
    let stage = stage_code(letter.stage);
    let record = letter.record.map(id_bytes);
    let external_id = letter.external_id.as_ref().map(|id| id.as_str());
    if let Some(record) = &record {
        let filter = "realm = ?1 AND participant = ?2 AND record = ?3 AND stage = ?4";
        let replaced = open(connection, filter, params![realm, participant, record, stage])?;
        close(connection, books, &replaced, (CloseReason::Superseded, now, BY_ITSELF))?;
    }
    if let Some(external_id) = external_id {
        let filter = "realm = ?1 AND participant = ?2 AND external_id = ?3 AND stage = ?4";
        let replaced = open(connection, filter, params![realm, participant, external_id, stage])?;
        close(connection, books, &replaced, (CloseReason::Superseded, now, BY_ITSELF))?;
    }
    connection
        .prepare_cached(
            "INSERT INTO dead_letter (realm, participant, stage, external_id, record, target, origin, at, original, payload, class, reason,
               message, field, attempts, parent, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        )?
        .execute(params![
            realm,
            participant,
            stage,
            external_id,
            record,
            lane.map(|lane| lane.0),
            lane.map(|lane| lane.1),
            now.0,
            letter.original,
            letter.payload,
            encode_word(&letter.class)?,
            letter.reason,
            letter.message,
            letter.field,
            letter.attempts,
            letter.parent,
            letter.detail,
        ])?;
    Ok(())
}

/// Closes a target's open letters whose records can be put in its lane again; returns those records.
pub(super) fn replay(
    connection: &Connection,
    books: &mut Books,
    (realm, target): (i64, i64),
    now: Timestamp,
) -> Result<Vec<IdBytes>, StoreError> {
    let filter = "realm = ?1 AND participant = ?2 AND stage >= 2 AND EXISTS (SELECT 1 FROM record
                    WHERE record.realm = dead_letter.realm AND record.id = dead_letter.record) ORDER BY id";
    let letters = open(connection, filter, params![realm, target])?;
    close(connection, books, &letters, (CloseReason::Replayed, now, BY_ITSELF))?;
    let mut seen = HashSet::new();
    Ok(letters.iter().filter_map(|letter| letter.record).filter(|record| seen.insert(*record)).collect())
}

/// Closes letters by number; returns how many were open.
pub(super) fn close_by_number(connection: &Connection, command: &CloseDeadLetters) -> Result<u64, StoreError> {
    let mut books = Books::default();
    let mut closed = 0;
    for id in &command.ids {
        let letters = open(connection, "id = ?1", params![id])?;
        close(connection, &mut books, &letters, (command.reason, command.now, &command.author))?;
        closed += letters.len() as u64;
    }
    books::write(books, connection, 0)?;
    Ok(closed)
}

/// Removes letters that were closed long ago and whose corrections do not wait any more, and the notes that speak of them or of corrections that are over; returns how many letters.
pub(super) fn sweep(connection: &Connection, command: &Sweep) -> Result<u64, StoreError> {
    let Some(realm) = Names::new(connection).find(&command.realm)? else { return Ok(0) };
    let mut statement = connection.prepare_cached(
        "DELETE FROM dead_letter WHERE id IN
           (SELECT id FROM dead_letter WHERE realm = ?1 AND closed_at < ?2
              AND (?4 IS NULL OR participant IN (SELECT id FROM name WHERE substr(text, 1, length(?4)) = ?4))
              AND id NOT IN (SELECT json_extract(value, '$.letter') FROM note
                WHERE realm = ?1 AND name >= ?5 AND name < ?6 AND json_extract(value, '$.letter') IS NOT NULL)
            ORDER BY closed_at LIMIT ?3)
         RETURNING id",
    )?;
    let (first, end) = corrections();
    let asked = params![realm, command.closed_before.0, limit(command.max), command.participants, first, end];
    let ids = statement.query_map(asked, |row| row.get::<_, i64>(0))?;
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    for id in &ids {
        connection
            .prepare_cached("DELETE FROM note WHERE realm = ?1 AND name = ?2")?
            .execute(params![realm, format!("{CORRECTED}{id}")])?;
    }
    connection
        .prepare_cached("DELETE FROM note WHERE realm = ?1 AND name >= ?2 AND name < ?3 AND value = 'null'")?
        .execute(params![realm, first, end])?;
    super::history::expire(connection, realm, command.now)?;
    reach(Command::Sweep, Step::Rows);
    Ok(ids.len() as u64)
}
