//! Dead letters: opened, replaced, closed; and what each closing means for the books of the lane that the letter came from.

use super::codec::{get, plain, stored_id, stored_ids, uuid_of};
use super::command::{Done, Job};
use super::error::Failure;
use super::session::{Ask, Session, ask, lock_realm};
use super::{books, codec};
use crate::archive::CORRECTED;
use crate::crash::{Command, Step, reach};
use crate::rows::books::Books;
use crate::rows::codec::{IdBytes, corrections, encode_word, stage_code};
use crate::rows::lane::limit;
use crate::{CloseDeadLetters, CloseReason, NewDeadLetter, Sweep};
use async_trait::async_trait;
use fairlead_model::Timestamp;
use std::collections::{HashMap, HashSet};
use tokio_postgres::Row;
use uuid::Uuid;

/// Closes letters that a good version made void, and answers what [`tell`] wants to know of each.
macro_rules! superseded {
    ($now:literal, $filter:literal) => {
        concat!(
            "UPDATE dead_letter AS d SET close_reason = 'Superseded', closed_by = 'fairlead', closed_at = ",
            $now,
            $filter,
            " AND d.closed_at IS NULL RETURNING d.realm, d.target, d.origin, d.id, d.record"
        )
    };
}

const READ_WELL: &str = superseded!(
    "$4",
    " WHERE d.realm = $1 AND d.participant = $2 AND d.external_id = ANY($3::text[]) AND d.external_id IS NOT NULL AND d.stage <= 1"
);
const WRITTEN_WELL: &str = superseded!(
    "$4",
    " WHERE d.realm = $1 AND d.participant = $2 AND d.record = ANY($3::uuid[]) AND d.record IS NOT NULL AND d.stage >= 2"
);
const REPLACED_BY_RECORD: &str = superseded!(
    "$5",
    " FROM unnest($2::int8[], $3::uuid[], $4::int2[]) AS n(participant, record, stage)
      WHERE d.realm = $1 AND d.participant = n.participant AND d.record = n.record AND d.stage = n.stage"
);
const REPLACED_BY_EXTERNAL: &str = superseded!(
    "$5",
    " FROM unnest($2::int8[], $3::text[], $4::int2[]) AS n(participant, external_id, stage)
      WHERE d.realm = $1 AND d.participant = n.participant AND d.external_id = n.external_id AND d.stage = n.stage"
);
/// Letters of a record that was folded into another which has one of the same stage in the same participant.
const FOLDED: &str = superseded!(
    "$4",
    " WHERE d.realm = $1 AND d.record = $2 AND EXISTS (SELECT 1 FROM dead_letter AS own WHERE own.realm = d.realm AND own.record = $3
        AND own.participant = d.participant AND own.stage = d.stage AND own.closed_at IS NULL)"
);
const FOLD: &str = "UPDATE dead_letter SET record = $3 WHERE realm = $1 AND record = $2 AND closed_at IS NULL";

/// A target's open letters whose records can be put in its lane again.
const REPLAY: &str = "UPDATE dead_letter AS d SET close_reason = 'Replayed', closed_by = 'fairlead', closed_at = $3
     WHERE d.realm = $1 AND d.participant = $2 AND d.stage >= 2 AND d.closed_at IS NULL
       AND EXISTS (SELECT 1 FROM record WHERE record.realm = d.realm AND record.id = d.record)
     RETURNING d.realm, d.target, d.origin, d.id, d.record";

const REALMS: &str = "SELECT DISTINCT realm FROM dead_letter WHERE id = ANY($1::int8[]) ORDER BY realm";
const CLOSE: &str = "UPDATE dead_letter AS d SET close_reason = $2, closed_at = $3, closed_by = $4
     WHERE d.id = ANY($1::int8[]) AND d.closed_at IS NULL RETURNING d.realm, d.target, d.origin";

const ADD: &str = "INSERT INTO dead_letter (realm, at, participant, stage, external_id, record, target, origin, original, payload, class,
       reason, message, detail, field, attempts, parent, close_reason, closed_at, closed_by)
     SELECT $1::int8, $2::int8, n.participant, n.stage, n.external_id, n.record, n.target, n.origin, n.original, n.payload, n.class, n.reason, n.message,
       n.detail, n.field, n.attempts, n.parent, CASE WHEN n.replaced THEN 'Superseded' END, CASE WHEN n.replaced THEN $2::int8 END,
       CASE WHEN n.replaced THEN 'fairlead' END
     FROM unnest($3::int8[], $4::int2[], $5::text[], $6::uuid[], $7::int8[], $8::int8[], $9::text[], $10::text[], $11::text[], $12::text[],
         $13::text[], $14::text[], $15::text[], $16::int8[], $17::int8[], $18::bool[]) WITH ORDINALITY
       AS n(participant, stage, external_id, record, target, origin, original, payload, class, reason, message, detail, field, attempts,
         parent, replaced, place)
     ORDER BY n.place";

/// Good versions of these external ids were read: letters of earlier ones are void.
pub(super) fn read_well<'a>(realm: i64, participant: i64, external_ids: impl IntoIterator<Item = &'a str>, now: Timestamp) -> Ask {
    ask!(READ_WELL, realm, participant, stored_ids(external_ids), now.0)
}

/// The records arrived in the target: letters of their earlier versions are void.
pub(super) fn written_well(realm: i64, target: i64, records: &[IdBytes], now: Timestamp) -> Ask {
    ask!(WRITTEN_WELL, realm, target, records.iter().copied().map(uuid_of).collect::<Vec<_>>(), now.0)
}

/// A record was folded into another, and its open letters go with it; where that one has its own, the loser's are superseded.
pub(super) fn fold(realm: i64, (loser, survivor): (IdBytes, IdBytes), now: Timestamp) -> [Ask; 2] {
    [ask!(FOLDED, realm, uuid_of(loser), uuid_of(survivor), now.0), ask!(FOLD, realm, uuid_of(loser), uuid_of(survivor))]
}

/// Enters closed letters in the books of the lanes that they came from.
pub(super) fn tell(books: &mut Books, rows: &[Row], reason: CloseReason) -> Result<(), Failure> {
    for row in rows {
        let (target, origin): (Option<i64>, Option<i64>) = (get(row, 1)?, get(row, 2)?);
        if let Some((target, origin)) = target.zip(origin) {
            let key = (get(row, 0)?, target, origin);
            if reason == CloseReason::Discarded { books.discarded(key) } else { books.superseded(key) }
        }
    }
    Ok(())
}

/// A letter to be opened.
pub(super) struct Opened<'l> {
    pub(super) letter: &'l NewDeadLetter,
    /// The id of its participant's name.
    pub(super) participant: i64,
    /// The target and origin of the lane entry that ends in it.
    pub(super) lane: Option<(i64, i64)>,
}

/// Opens letters. Those that are open for the same record at the same stage are replaced; the answers to all but the last statement are for
/// [`tell`].
pub(super) fn add(books: &mut Books, realm: i64, letters: &[Opened<'_>], now: Timestamp) -> Result<[Ask; 3], Failure> {
    let mut replaced = vec![false; letters.len()];
    let mut last: HashMap<(i64, i64, Who<'_>), usize> = HashMap::new();
    for (place, opened) in letters.iter().enumerate() {
        let stage = stage_code(opened.letter.stage);
        let record = opened.letter.record.map(|id| Who::Record(id.0));
        let external = opened.letter.external_id.as_ref().map(|id| Who::External(id.as_str()));
        for who in record.into_iter().chain(external) {
            if let Some(earlier) = last.insert((opened.participant, stage, who), place)
                && !replaced[earlier]
            {
                replaced[earlier] = true;
                if let Some((target, origin)) = letters[earlier].lane {
                    books.superseded((realm, target, origin));
                }
            }
        }
    }
    fn column<T>(letters: &[Opened<'_>], of: impl Fn(&Opened<'_>) -> T) -> Vec<T> {
        letters.iter().map(of).collect()
    }
    let stage = |opened: &Opened<'_>| stage_code(opened.letter.stage) as i16;
    let external_id = |opened: &Opened<'_>| opened.letter.external_id.as_ref().map(|id| stored_id(id.as_str()).into_owned());
    let record = |opened: &Opened<'_>| opened.letter.record.map(|id| id.0);
    let participants = column(letters, |opened| opened.participant);
    let stages = column(letters, stage);
    let classes = letters.iter().map(|opened| encode_word(&opened.letter.class)).collect::<Result<Vec<_>, _>>()?;
    Ok([
        ask!(REPLACED_BY_RECORD, realm, participants.clone(), column(letters, record), stages.clone(), now.0),
        ask!(REPLACED_BY_EXTERNAL, realm, participants.clone(), column(letters, external_id), stages.clone(), now.0),
        ask!(
            ADD,
            realm,
            now.0,
            participants,
            stages,
            column(letters, external_id),
            column(letters, record),
            column(letters, |opened| opened.lane.map(|lane| lane.0)),
            column(letters, |opened| opened.lane.map(|lane| lane.1)),
            column(letters, |opened| plain(&opened.letter.original)),
            column(letters, |opened| opened.letter.payload.as_deref().map(plain)),
            classes,
            column(letters, |opened| plain(&opened.letter.reason)),
            column(letters, |opened| plain(&opened.letter.message)),
            column(letters, |opened| opened.letter.detail.as_deref().map(plain)),
            column(letters, |opened| opened.letter.field.as_deref().map(plain)),
            column(letters, |opened| i64::from(opened.letter.attempts)),
            column(letters, |opened| opened.letter.parent),
            replaced,
        ),
    ])
}

#[derive(PartialEq, Eq, Hash)]
enum Who<'l> {
    Record(Uuid),
    External(&'l str),
}

/// Closes a target's open letters whose records can be put in its lane again; returns those records.
pub(super) async fn replay(
    session: &Session,
    books: &mut Books,
    (realm, target): (i64, i64),
    now: Timestamp,
) -> Result<Vec<Uuid>, Failure> {
    let rows = session.ask(ask!(REPLAY, realm, target, now.0)).await?;
    tell(books, &rows, CloseReason::Replayed)?;
    let mut closed = rows.iter().map(|row| Ok((get::<i64>(row, 3)?, get::<Uuid>(row, 4)?))).collect::<Result<Vec<_>, Failure>>()?;
    closed.sort_unstable();
    let mut seen = HashSet::new();
    Ok(closed.into_iter().map(|(_, record)| record).filter(|record| seen.insert(*record)).collect())
}

#[async_trait]
impl Job for CloseDeadLetters {
    type Answer = u64;
    const COMMAND: Command = Command::CloseDeadLetters;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<u64>, Failure> {
        let realms = session.ask(ask!(REALMS, self.ids.clone())).await?;
        let mut asks = realms.iter().map(|row| Ok(lock_realm(codec::get(row, 0)?))).collect::<Result<Vec<_>, Failure>>()?;
        asks.push(ask!(CLOSE, self.ids.clone(), encode_word(&self.reason)?, self.now.0, plain(&self.author)));
        let closed = session.run(asks).await?.pop().unwrap_or_default();
        reach(Command::CloseDeadLetters, Step::Rows);
        let mut deltas = Books::default();
        tell(&mut deltas, &closed, self.reason)?;
        // Letters say nothing of a realm's records, so the counts of no realm change.
        Ok(Done::Commit(closed.len() as u64, books::write(deltas, 0)))
    }
}

const SWEEP: &str = "DELETE FROM dead_letter WHERE id IN
       (SELECT id FROM dead_letter WHERE realm = $1 AND closed_at < $2 AND closed_at IS NOT NULL
          AND ($4::text IS NULL OR participant IN (SELECT id FROM name WHERE starts_with(text, $4::text)))
          AND NOT EXISTS (SELECT 1 FROM note WHERE note.realm = $1 AND name >= $5 AND name < $6
                AND (value::json ->> 'letter') = dead_letter.id::text)
        ORDER BY closed_at LIMIT $3) RETURNING id";
const SWEEP_NOTES: &str = "DELETE FROM note WHERE realm = $1 AND name = ANY($2::text[])";
const SWEEP_CORRECTIONS: &str = "DELETE FROM note WHERE realm = $1 AND name >= $2 AND name < $3 AND value = 'null' RETURNING name";

#[async_trait]
impl Job for Sweep {
    type Answer = u64;
    const COMMAND: Command = Command::Sweep;

    fn names(&self) -> Vec<&str> {
        vec![&self.realm]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<u64>, Failure> {
        let realm = session.name(&self.realm)?;
        let (first, end) = corrections();
        let (closed_before, participants) = (self.closed_before.0, self.participants.clone());
        let sweep = ask!(SWEEP, realm, closed_before, limit(self.max), participants, first.clone(), end.clone());
        let corrections = ask!(SWEEP_CORRECTIONS, realm, first, end);
        let expire = super::history::expire(realm, self.now);
        let [_, gone, over, expired] = session.all([lock_realm(realm), sweep, corrections, expire]).await?;
        if !gone.is_empty() {
            let names = gone.iter().map(|row| Ok(format!("{CORRECTED}{}", get::<i64>(row, 0)?))).collect::<Result<Vec<_>, Failure>>()?;
            session.ask(ask!(SWEEP_NOTES, realm, names)).await?;
        }
        reach(Command::Sweep, Step::Rows);
        let done = gone.len() as u64;
        Ok(if gone.is_empty() && over.is_empty() && expired.is_empty() { Done::Nothing(done) } else { Done::Commit(done, Vec::new()) })
    }
}
