//! Backfill by a person's word: records of a participant are read again by their keys, or compared again with what a target is known to hold.
//!
//! Works beside a running engine, in this process or another: what is asked for lies in the store until a reader or a lane takes it up. It is
//! asked for page by page, and readings wait behind all that the engine itself asks for ([`turn`]).

use crate::names::{self, NameError};
use fairlead_model::{ExternalId, RecordId, Timestamp};
use fairlead_store::{Enqueue, Haste, Keys, Origin, Store, StoreError};
use std::time::Duration;

/// Keys that are asked for at once.
const PAGE: usize = 1000;

/// Readings in bulk take their turn in the order in which they were asked for; a backfill's come behind those of the year to come.
const BEHIND: Duration = Duration::from_secs(365 * 24 * 3600);

/// When it is the turn of readings that nobody waits for.
#[must_use]
pub fn turn(now: Timestamp) -> Timestamp {
    now.plus(BEHIND)
}

/// Which records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those with these external ids.
    Ids(Vec<ExternalId>),
    /// Those whose external ids lie between these two, both included. Where both are digits alone, ids are numbers, and others do not lie between
    /// them; else they are compared as text, byte by byte.
    Range(ExternalId, ExternalId),
    /// All of them.
    All,
}

impl Which {
    /// Whether an id lies in the range; all do where there is none.
    fn covers(&self, id: &ExternalId) -> bool {
        match self {
            Self::Range(from, to) => match (number(from), number(to)) {
                (Some(from), Some(to)) => number(id).is_some_and(|id| from <= id && id <= to),
                _ => from <= id && id <= to,
            },
            Self::Ids(_) | Self::All => true,
        }
    }

    /// Whether nothing can lie in the range.
    fn is_reversed(&self) -> bool {
        matches!(self, Self::Range(from, to) if !(self.covers(from) && self.covers(to)))
    }
}

/// An id of digits alone, however many, as what orders it as a number.
fn number(id: &ExternalId) -> Option<(usize, &str)> {
    let digits = id.as_str();
    let significant = digits.trim_start_matches('0');
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some((significant.len(), significant))
}

/// Why nothing was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    /// A name that nothing has.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is not read.
    #[error("{given} was never read; {}", names::listed(.known))]
    NotRead {
        /// What was given.
        given: String,
        /// The participants that are read.
        known: Vec<String>,
    },
    /// It is not written.
    #[error("nothing was ever to be written to {given}; {}", names::listed(.known))]
    NotWritten {
        /// What was given.
        given: String,
        /// The targets.
        known: Vec<String>,
    },
    /// A range in which nothing can lie.
    #[error(
        "nothing lies from {from} to {to}: the first comes after the second, as numbers where both are digits alone, else as text; swap them"
    )]
    Reversed {
        /// Its beginning.
        from: String,
        /// Its end.
        to: String,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Records.
    pub records: u64,
    /// Ids that stand for none: they are read all the same, and compared with nothing.
    pub unknown: u64,
}

/// The participants of an Integration that are read.
///
/// # Errors
/// [`NameError`].
pub async fn readers(store: &dyn Store, integration: &str) -> Result<Vec<String>, NameError> {
    let place = names::integration(store, integration).await?;
    let standing = store.checkpoints(&place.realm).await?;
    let mut known: Vec<String> = standing.iter().filter_map(|each| place.called(&each.participant)).map(str::to_owned).collect();
    known.dedup();
    Ok(known)
}

fn refuse_reversed(which: &Which) -> Result<(), BackfillError> {
    match which {
        Which::Range(from, to) if which.is_reversed() => Err(BackfillError::Reversed { from: from.to_string(), to: to.to_string() }),
        _ => Ok(()),
    }
}

/// Has records of an Integration's participant read again by key. `dry` only counts.
///
/// # Errors
/// [`BackfillError`]; pages before a failure of the store stay asked for.
pub async fn read_again(
    store: &dyn Store,
    integration: &str,
    participant: &str,
    which: &Which,
    dry: bool,
    now: Timestamp,
) -> Result<Asked, BackfillError> {
    refuse_reversed(which)?;
    let member = names::participant(store, integration, participant).await?;
    let known = readers(store, integration).await?;
    if !known.iter().any(|name| name == member.called()) {
        return Err(BackfillError::NotRead { given: participant.to_owned(), known });
    }
    let (realm, participant) = (member.place.realm.as_str(), member.name.as_str());
    let mut asked = Asked::default();
    let mut pages = Pages::new(realm, participant, which);
    while let Some((ids, records)) = pages.next(store).await? {
        asked.unknown += records.iter().filter(|record| record.is_none()).count() as u64;
        asked.records += records.iter().flatten().count() as u64;
        if !dry {
            store.request_reads(realm, participant, &ids, Haste::Bulk, turn(now)).await?;
        }
    }
    Ok(asked)
}

/// Has records compared again with what a target of an Integration is known to hold, and written where they differ; all of them, or those that
/// it holds. `dry` only counts.
///
/// # Errors
/// [`BackfillError`]; pages before a failure of the store stay asked for.
pub async fn compare_again(
    store: &dyn Store,
    integration: &str,
    target: &str,
    which: &Which,
    dry: bool,
    now: Timestamp,
) -> Result<Asked, BackfillError> {
    refuse_reversed(which)?;
    let member = names::participant(store, integration, target).await?;
    let lanes = store.snapshot(&member.place.realm, now).await?.lanes;
    let mut known: Vec<String> = lanes.iter().filter_map(|lane| member.place.called(&lane.target)).map(str::to_owned).collect();
    known.dedup();
    if !known.iter().any(|name| name == member.called()) {
        return Err(BackfillError::NotWritten { given: target.to_owned(), known });
    }
    let (realm, target) = (member.place.realm.as_str(), member.name.as_str());
    let enqueue = async |ids: Vec<RecordId>| {
        if dry || ids.is_empty() {
            return Ok(());
        }
        let (realm, target) = (realm.to_owned(), target.to_owned());
        store.enqueue(&Enqueue { realm, target, keys: Keys::Records(ids), origin: Origin::Resync, now }).await.map(|_| ())
    };
    let mut asked = Asked::default();
    if *which == Which::All {
        // Those that it does not hold yet as well.
        let mut after = None;
        loop {
            let page = store.records(realm, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(asked) };
            after = Some(last.record.id);
            let lives = page.iter().filter(|known| known.record.deleted_at.is_none() && known.merged_into.is_none());
            let ids: Vec<_> = lives.map(|known| known.record.id).collect();
            asked.records += ids.len() as u64;
            enqueue(ids).await?;
        }
    }
    let mut pages = Pages::new(realm, target, which);
    while let Some((_, records)) = pages.next(store).await? {
        asked.unknown += records.iter().filter(|record| record.is_none()).count() as u64;
        let ids: Vec<_> = records.into_iter().flatten().collect();
        asked.records += ids.len() as u64;
        enqueue(ids).await?;
    }
    Ok(asked)
}

/// External ids of a participant with the records that they stand for, a page at a time.
struct Pages<'a> {
    realm: &'a str,
    participant: &'a str,
    which: &'a Which,
    given: usize,
    after: Option<ExternalId>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(realm: &'a str, participant: &'a str, which: &'a Which) -> Self {
        Self { realm, participant, which, given: 0, after: None, ended: false }
    }

    async fn next(&mut self, store: &dyn Store) -> Result<Option<(Vec<ExternalId>, Vec<Option<RecordId>>)>, StoreError> {
        let ids = match self.which {
            Which::Ids(ids) => {
                let page: Vec<_> = ids.iter().skip(self.given).take(PAGE).cloned().collect();
                self.given += page.len();
                page
            }
            Which::All => self.stored(store).await?,
            Which::Range(from, to) => {
                // The store's order is that of the text, which is no help with numbers: all are looked at.
                let by_text = number(from).is_none() || number(to).is_none();
                let mut page = Vec::new();
                if by_text && self.after.is_none() {
                    // What is asked for lies after an id, and the first one is to be among them.
                    let first = store.record_ids(self.realm, self.participant, std::slice::from_ref(from)).await?;
                    page.extend(first.into_iter().flatten().map(|_| from.clone()));
                    self.after = Some(from.clone());
                }
                while !self.ended && page.len() < PAGE {
                    let stored = self.stored(store).await?;
                    self.ended = stored.is_empty() || (by_text && stored.iter().any(|id| id > to));
                    page.extend(stored.into_iter().filter(|id| self.which.covers(id)));
                }
                page
            }
        };
        if ids.is_empty() {
            return Ok(None);
        }
        let records = store.record_ids(self.realm, self.participant, &ids).await?;
        Ok(Some((ids, records)))
    }

    async fn stored(&mut self, store: &dyn Store) -> Result<Vec<ExternalId>, StoreError> {
        let page = store.participant_ids(self.realm, self.participant, self.after.as_ref(), PAGE).await?;
        self.after = page.last().cloned().or(self.after.take());
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_numbers_and_everything_else_is_text() {
        let range = |from: &str, to: &str| Which::Range(from.into(), to.into());
        for (from, to, inside, outside) in [
            ("9", "100", vec!["9", "10", "99", "100", "0042"], vec!["8", "101", "1000", "c50", "", "9a"]),
            ("007", "7", vec!["7", "07"], vec!["8", "70"]),
            ("99999999999999999999998", "99999999999999999999999", vec!["99999999999999999999999"], vec!["100000000000000000000000"]),
            ("a9", "b1", vec!["a9", "aa", "b", "b1"], vec!["a10", "b10", "B"]),
            ("9", "c1", vec!["9", "95", "b", "c1"], vec!["10", "c10"]),
        ] {
            let which = range(from, to);
            assert!(!which.is_reversed(), "{from} to {to}");
            for id in inside {
                assert!(which.covers(&id.into()), "{id} lies from {from} to {to}");
            }
            for id in outside {
                assert!(!which.covers(&id.into()), "{id} lies outside {from} to {to}");
            }
        }
        assert!(range("100", "9").is_reversed() && range("b", "a").is_reversed());
        assert!(!range("x", "x").is_reversed() && !Which::All.is_reversed());
    }
}
