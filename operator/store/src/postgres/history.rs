//! What became of records' fields: the newest changes of each record, for a while. Nothing is done where there are none.
//!
//! The table is called by what it held at first, the changes that did not win: `kept` is what the record held, `shown` what it was to be.

use super::codec::get;
use super::error::Failure;
use super::session::{Ask, Session, ask};
use crate::rows::absorb::{ChangeRow, EXPIRED, FATES, fate};
use crate::rows::codec::decode;
use crate::rows::lane::limit;
use crate::{FieldChange, HISTORY_FOR, HISTORY_PER_RECORD, PastChange};
use fairlead_model::{RecordId, Timestamp};
use std::collections::BTreeSet;
use uuid::Uuid;

const ADD: &str = "INSERT INTO past_conflict (realm, participant, at, record, field, kept, shown, fate)
     SELECT $1::int8, $2::int8, $3::int8, n.record, n.field, n.kept, n.shown, n.fate
     FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::int2[]) WITH ORDINALITY AS n(record, field, kept, shown, fate, place)
     ORDER BY n.place";

/// A probe of the index for each list: most have nothing to cut.
const CUT: &str = "DELETE FROM past_conflict WHERE number IN (SELECT old.number FROM unnest($2::uuid[], $3::int2[]) AS n(record, fate),
       LATERAL (SELECT number FROM past_conflict WHERE realm = $1 AND record = n.record AND fate = n.fate
                ORDER BY number DESC OFFSET $4::int8) AS old)";

const EXPIRE: &str = "DELETE FROM past_conflict WHERE number IN
       (SELECT number FROM past_conflict WHERE realm = $1 AND at < $2 ORDER BY at, number LIMIT $3) RETURNING number";

const MOVE: &str = "UPDATE past_conflict SET record = $3 WHERE realm = $1 AND record = $2";

const OF_RECORD: &str = "SELECT p.text, c.field, c.kept, c.shown, c.fate, c.at FROM past_conflict c JOIN name p ON p.id = c.participant
     WHERE c.realm = (SELECT id FROM name WHERE text = $1) AND c.record = $2 AND c.at >= $3 ORDER BY c.number DESC";

pub(super) fn add((realm, participant): (i64, i64), changes: &[ChangeRow], now: Timestamp) -> Vec<Ask> {
    if changes.is_empty() {
        return Vec::new();
    }
    let records: Vec<Uuid> = changes.iter().map(|change| change.record.0).collect();
    let column = |of: fn(&ChangeRow) -> &Option<String>| changes.iter().map(|change| of(change).clone()).collect::<Vec<_>>();
    let (fields, from, to) = (column(|c| &c.field), column(|c| &c.from), column(|c| &c.to));
    let fates: Vec<i16> = changes.iter().map(|change| change.fate).collect();
    let lists: BTreeSet<(Uuid, i16)> = records.iter().copied().zip(fates.iter().copied()).collect();
    vec![ask!(ADD, realm, participant, now.0, records, fields, from, to, fates), cut(realm, lists), expire(realm, now)]
}

/// Of each record's changes of a fate the newest stay.
fn cut(realm: i64, lists: impl IntoIterator<Item = (Uuid, i16)>) -> Ask {
    let (records, fates): (Vec<Uuid>, Vec<i16>) = lists.into_iter().unzip();
    ask!(CUT, realm, records, fates, limit(HISTORY_PER_RECORD))
}

/// Those that were kept long enough go, some at a time; a row for each.
pub(super) fn expire(realm: i64, now: Timestamp) -> Ask {
    ask!(EXPIRE, realm, now.before(HISTORY_FOR).0, limit(EXPIRED))
}

/// What was kept of one record is the other's.
pub(super) fn move_to(realm: i64, loser: RecordId, survivor: RecordId) -> [Ask; 2] {
    [ask!(MOVE, realm, loser.0, survivor.0), cut(realm, FATES.map(|fate| (survivor.0, fate as i16)))]
}

/// The newest first.
pub(super) async fn of_record(session: &Session, realm: &str, record: RecordId, since: Timestamp) -> Result<Vec<PastChange>, Failure> {
    let rows = session.ask(ask!(OF_RECORD, realm.to_owned(), record.0, since.0)).await?;
    let past = |row: &tokio_postgres::Row| -> Result<PastChange, Failure> {
        let value =
            |column: usize| -> Result<_, Failure> { Ok(get::<Option<&str>>(row, column)?.map(|text| decode("change", text)).transpose()?) };
        Ok(PastChange {
            change: FieldChange {
                record,
                field: get::<Option<&str>>(row, 1)?.and_then(|field| field.parse().ok()),
                from: value(2)?,
                to: value(3)?,
                fate: fate(get(row, 4)?)?,
            },
            participant: get(row, 0)?,
            at: Timestamp(get(row, 5)?),
        })
    };
    rows.iter().map(past).collect()
}
