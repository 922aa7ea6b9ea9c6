//! One way of reading for first load and increments: pages ordered by (stamp, id), from the beginning of time to the present, again and again.
//!
//! Within a pass each page begins strictly after the last row of the one before, so nothing is skipped or repeated however rows move. When a
//! page reaches the present, the pass ends, and the next begins at its *horizon* less the definition's lag: rows whose stamps are older than
//! their visibility are seen then. The horizon is a moment of the vendor's clock, or the newest stamp, taken **before** the pass's first page;
//! a later one could lie beyond a row that became visible behind the pass's back.
//!
//! Rows of the lag window come again in each pass. Those that this client handed out unchanged, and whose cursor came back (so that they were
//! taken in), are left out; the memory is small, per pass lineage, and losing it only means that they come again.

use super::line::Line;
use super::query::{Language, Place, Rows, Which, bad_cursor, unexpected};
use super::types::{NativeRecord, Page};
use fairlead_model::{FieldPath, RemoteError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// The most pages of one pass.
const MAX_PAGES: u32 = 100_000;

/// The most rows that are remembered as handed out, over all slices.
const MAX_REMEMBERED: usize = 50_000;

/// Where a reader stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    /// Within a pass: the last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Place>,
    /// Where the pass began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where the next pass begins, plus the lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    horizon: Option<String>,
    /// Pages of this pass so far.
    #[serde(default)]
    pages: u32,
    /// Whose memory of handed-out rows applies.
    #[serde(default)]
    lineage: u64,
    /// Which page of that memory came before.
    #[serde(default)]
    turn: u64,
}

/// Rows of the lag window that were handed out, by lineage.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<u64, Lineage>>);

#[derive(Default)]
struct Lineage {
    turn: u64,
    /// Rows of the last page, not yet known to have been taken in.
    pending: HashMap<String, (String, u64)>,
    /// Rows that were taken in: id -> stamp and hash of the content.
    taken: HashMap<String, (String, u64)>,
}

impl Memory {
    /// Leaves out rows that were taken in before and have not changed; remembers the rest for the next turn. Returns the next turn.
    fn sift(&self, position: &Position, fields: &[FieldPath], records: &mut Vec<(String, NativeRecord)>, window: Option<&str>) -> u64 {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.values().map(|lineage| lineage.taken.len() + lineage.pending.len()).sum::<usize>() > MAX_REMEMBERED {
            memory.clear();
        }
        let lineage = memory.entry(position.lineage).or_default();
        if lineage.turn == position.turn {
            let pending = std::mem::take(&mut lineage.pending);
            lineage.taken.extend(pending);
        } else {
            // A cursor of another process, or an old one: what is remembered is not what was taken in.
            lineage.taken.clear();
            lineage.pending.clear();
        }
        if let Some(window) = window {
            lineage.taken.retain(|_, (stamp, _)| stamp.as_str() >= window);
        }
        let print = |record: &NativeRecord| {
            let mut hasher = DefaultHasher::new();
            record.raw.hash(&mut hasher);
            record.deleted.hash(&mut hasher);
            fields.hash(&mut hasher);
            hasher.finish()
        };
        records.retain(|(stamp, record)| lineage.taken.get(record.id.as_str()) != Some(&(stamp.clone(), print(record))));
        if records.is_empty() {
            lineage.turn = position.turn;
            return lineage.turn;
        }
        lineage.pending = records.iter().map(|(stamp, record)| (record.id.0.clone(), (stamp.clone(), print(record)))).collect();
        lineage.turn = position.turn + 1;
        lineage.turn
    }
}

/// Reads one page. Without a memory, every row of the lag window comes again.
pub(crate) async fn read(
    line: &Line,
    memory: Option<&Memory>,
    language: &Language<'_>,
    fields: &[FieldPath],
    cursor: Option<&serde_json::Value>,
    deadline: Instant,
) -> Result<Page, RemoteError> {
    let mut position = match cursor {
        Some(cursor) => serde_json::from_value::<Position>(cursor.clone()).map_err(|_| bad_cursor())?,
        None => Position { lineage: rand::random(), ..Position::default() },
    };
    if position.pages >= MAX_PAGES {
        return Err(unexpected("the list of records does not end"));
    }
    let limit = language.page();
    let begins = position.after.is_none();
    let mut rows = ask(line, language, fields, &position, limit, deadline).await?;
    let mut complete = is_complete(&rows, limit);
    if begins && position.horizon.is_none() {
        if language.trusts_server_time() {
            position.horizon = Some(language.spell(rows.server_time.unwrap_or_else(|| line.clock.now())));
        } else if !complete {
            // The horizon must be older than the first page: look for it, then read the page anew.
            position.horizon = language.newest(line, deadline).await?;
            rows = ask(line, language, fields, &position, limit, deadline).await?;
            complete = is_complete(&rows, limit);
        }
    }
    let last = check_order(&position, &rows)?;
    position.pages += 1;
    let mut next = Position { lineage: position.lineage, ..Position::default() };
    if complete {
        // A pass of one page saw everything at one moment: its own newest row is as good a horizon as any.
        let horizon = position.horizon.clone().or_else(|| last.as_ref().map(|(stamp, _)| stamp.clone()));
        let from = horizon.and_then(|horizon| language.before(&horizon, language.lag()));
        // A pass that found nothing at all leaves the cursor as it was, so that a quiet system makes nobody write a checkpoint.
        next.from = if rows.records.is_empty() && begins && position.from.is_some() {
            position.from.clone()
        } else {
            from.max(position.from.clone())
        };
    } else {
        next.after = Some(last.ok_or_else(|| unexpected("a page that is not the last holds no records"))?);
        next.from = position.from.clone();
        next.horizon = position.horizon.clone();
        next.pages = position.pages;
    }
    // Only rows that a later pass can show again need remembering.
    let window = next.from.clone().filter(|_| complete);
    let mut records = rows.records;
    if let Some(memory) = memory {
        next.turn = memory.sift(&position, fields, &mut records, window.as_deref());
    }
    let cursor = serde_json::to_value(&next).map_err(|_| unexpected("the cursor cannot be written"))?;
    Ok(Page { records: records.into_iter().map(|(_, record)| record).collect(), cursor, caught_up: complete })
}

async fn ask(
    line: &Line,
    language: &Language<'_>,
    fields: &[FieldPath],
    position: &Position,
    limit: u32,
    deadline: Instant,
) -> Result<Rows, RemoteError> {
    let which = match (&position.after, &position.from) {
        (Some(place), _) => Which::After(place),
        (None, Some(from)) => Which::From(from),
        (None, None) => Which::All,
    };
    language.rows(line, fields, &which, limit, deadline).await
}

fn is_complete(rows: &Rows, limit: u32) -> bool {
    !rows.cut && u32::try_from(rows.records.len()).is_ok_and(|count| count < limit)
}

/// The last row's place, if the rows come in order and go on from where the page began. A vendor that repeats itself would keep us for ever.
fn check_order(position: &Position, rows: &Rows) -> Result<Option<Place>, RemoteError> {
    let mut before = position.after.as_ref().map(|(stamp, _)| stamp.as_str()).or(position.from.as_deref());
    for (stamp, _) in &rows.records {
        if before.is_some_and(|before| stamp.as_str() < before) {
            return Err(unexpected("the records do not come in the order that was asked for"));
        }
        before = Some(stamp);
    }
    let last = rows.records.last().map(|(stamp, record)| (stamp.clone(), record.id.0.clone()));
    if last.is_some() && last == position.after {
        return Err(unexpected("the vendor answers the same page again and again"));
    }
    Ok(last)
}
