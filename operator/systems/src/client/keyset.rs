//! One way of reading for first load and increments: pages ordered by (stamp, id), from the beginning of time to the present, again and again.
//!
//! Within a pass each page begins strictly after the last row of the one before, so nothing is skipped or repeated however rows move. When a
//! page reaches the present, the pass ends, and the next begins at its *horizon* less the definition's lag: rows whose stamps are older than
//! their visibility are seen then. The horizon is a moment of the vendor's clock, or the newest stamp, taken **before** the pass's first page;
//! a later one could lie beyond a row that became visible behind the pass's back.
//!
//! Rows of the lag window come again in each pass. Those that this client handed out unchanged, and whose cursor came back (so that they were
//! taken in), are left out; the memory is small, per pass lineage, and losing it only means that they come again.
//!
//! A page that is too large to be read, or does not come whole in time, is asked for with half as many rows; the size grows back page by page.

use super::line::Line;
use super::query::{Language, Place, Row, Rows, Which, bad_cursor, unexpected};
use super::types::{NativeRecord, Page, ReadRequest};
use crate::reason;
use fairlead_model::hash::ValueHash;
use fairlead_model::{FieldPath, RemoteError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    fn sift(&self, position: &Position, fields: &[FieldPath], records: &mut Vec<Row>, window: Option<&str>) -> u64 {
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
            match &record.raw {
                Some(raw) => ValueHash::of(Some(raw)).hash(&mut hasher),
                None => record.body.iter().for_each(|(name, value)| (name, ValueHash::of(Some(value))).hash(&mut hasher)),
            }
            record.deleted.hash(&mut hasher);
            fields.hash(&mut hasher);
            hasher.finish()
        };
        let seen = |(stamp, record): &Row| (stamp.clone().unwrap_or_default(), print(record));
        records.retain(|row| lineage.taken.get(row.1.id.as_str()) != Some(&seen(row)));
        if records.is_empty() {
            lineage.turn = position.turn;
            return lineage.turn;
        }
        lineage.pending = records.iter().map(|row| (row.1.id.0.clone(), seen(row))).collect();
        lineage.turn = position.turn + 1;
        lineage.turn
    }
}

/// How many rows pages may have, by entity and slice, where that is fewer than the definition says.
#[derive(Default)]
pub(crate) struct Limits(Mutex<HashMap<(String, String), u32>>);

impl Limits {
    fn get(&self, request: &ReadRequest, most: u32) -> u32 {
        self.lock().get(&Self::key(request)).copied().unwrap_or(most)
    }

    /// A page of `limit` rows was too much.
    fn shrink(&self, request: &ReadRequest, limit: u32) {
        self.lock().insert(Self::key(request), (limit / 2).max(1));
    }

    /// A page of `limit` rows came. In small steps, for each step too far costs a page.
    fn grow(&self, request: &ReadRequest, limit: u32, most: u32) {
        let larger = limit.saturating_add(limit / 4 + 1);
        if larger < most {
            self.lock().insert(Self::key(request), larger);
        } else {
            self.lock().remove(&Self::key(request));
        }
    }

    fn key(request: &ReadRequest) -> (String, String) {
        (request.entity.clone(), request.slice.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is needed to read a page.
pub(crate) struct Reader<'a> {
    pub(crate) line: &'a Line,
    pub(crate) language: &'a Language<'a>,
    pub(crate) request: &'a ReadRequest,
    pub(crate) deadline: Instant,
    pub(crate) limits: &'a Limits,
    /// Without a memory, every row of the lag window comes again.
    pub(crate) memory: Option<&'a Memory>,
}

impl Reader<'_> {
    /// Reads one page.
    pub(crate) async fn read(&self) -> Result<Page, RemoteError> {
        let language = self.language;
        let mut position = match &self.request.cursor {
            Some(cursor) => serde_json::from_value::<Position>(cursor.clone()).map_err(|_| bad_cursor())?,
            None => Position { lineage: self.line.random.bits(), ..Position::default() },
        };
        if position.pages >= MAX_PAGES {
            return Err(unexpected("the list of records does not end"));
        }
        let begins = position.after.is_none();
        let (mut rows, mut complete) = self.ask(&position).await?;
        if begins && position.horizon.is_none() {
            if language.trusts_server_time() {
                position.horizon = Some(language.spell(rows.server_time.unwrap_or_else(|| self.line.clock.now())));
            } else if !complete {
                // The horizon must be older than the first page: look for it, then read the page anew.
                position.horizon = language.newest(self.line, self.deadline).await?;
                (rows, complete) = self.ask(&position).await?;
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
            next.after = Some(last.ok_or_else(|| unexpected("a page that is not the last holds no record to go on from"))?);
            next.from = position.from.clone();
            next.horizon = position.horizon.clone();
            next.pages = position.pages;
        }
        // Only rows that a later pass can show again need remembering.
        let window = next.from.clone().filter(|_| complete);
        let Rows { mut records, unusable, .. } = rows;
        if let Some(memory) = self.memory {
            next.turn = memory.sift(&position, &self.request.fields, &mut records, window.as_deref());
        }
        let cursor = serde_json::to_value(&next).map_err(|_| unexpected("the cursor cannot be written"))?;
        Ok(Page { records: records.into_iter().map(|(_, record)| record).collect(), cursor, caught_up: complete, unusable })
    }

    /// The rows that follow `position`, and whether they reach the present.
    async fn ask(&self, position: &Position) -> Result<(Rows, bool), RemoteError> {
        let which = match (&position.after, &position.from) {
            (Some(place), _) => Which::After(place),
            (None, Some(from)) => Which::From(from),
            (None, None) => Which::All,
        };
        let most = self.language.page();
        loop {
            let limit = self.limits.get(self.request, most);
            let error = match self.language.rows(self.line, &self.request.fields, &which, limit, self.deadline).await {
                Ok(rows) => {
                    self.limits.grow(self.request, limit, most);
                    let complete = !rows.cut && u32::try_from(rows.count()).is_ok_and(|count| count < limit);
                    return Ok((rows, complete));
                }
                Err(error) => error,
            };
            let late = Instant::now() >= self.deadline;
            let too_large = error.reason == reason::ANSWER_TOO_LARGE;
            if too_large || (late && error.reason == reason::ENDPOINT_UNREACHABLE) {
                self.limits.shrink(self.request, limit);
            }
            if !too_large || late || limit == 1 {
                return Err(error);
            }
        }
    }
}

/// The last row's place, if the rows come in order and go on from where the page began. A vendor that repeats itself would keep us for ever.
fn check_order(position: &Position, rows: &Rows) -> Result<Option<Place>, RemoteError> {
    let mut before = position.after.as_ref().map(|(stamp, _)| stamp.as_str()).or(position.from.as_deref());
    for stamp in rows.records.iter().filter_map(|(stamp, _)| stamp.as_deref()) {
        if before.is_some_and(|before| stamp < before) {
            return Err(unexpected("the records do not come in the order that was asked for"));
        }
        before = Some(stamp);
    }
    let last = rows.records.iter().rev().find_map(|(stamp, record)| Some((stamp.clone()?, record.id.0.clone())));
    if last.is_some() && last == position.after {
        return Err(unexpected("the vendor answers the same page again and again"));
    }
    Ok(last)
}
