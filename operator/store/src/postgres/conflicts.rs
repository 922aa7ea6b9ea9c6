//! Conflicts of the past: the newest of each record, for a while. Nothing is done where there are none.

use super::codec::get;
use super::error::Failure;
use super::session::{Ask, Session, ask};
use crate::rows::absorb::{Contested, EXPIRED};
use crate::rows::codec::decode;
use crate::rows::lane::limit;
use crate::{CONFLICTS_FOR, CONFLICTS_PER_RECORD, Conflict, PastConflict};
use fairlead_model::{RecordId, Timestamp};
use uuid::Uuid;

const ADD: &str = "INSERT INTO past_conflict (realm, participant, at, record, field, shown, kept)
     SELECT $1::int8, $2::int8, $3::int8, n.record, n.field, n.shown, n.kept
     FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY AS n(record, field, shown, kept, place) ORDER BY n.place";

const CUT: &str = "DELETE FROM past_conflict WHERE number IN (SELECT number FROM
       (SELECT number, row_number() OVER (PARTITION BY record ORDER BY number DESC) AS place FROM past_conflict
        WHERE realm = $1 AND record = ANY($2::uuid[])) AS ranked WHERE place > $3::int8)";

const EXPIRE: &str = "DELETE FROM past_conflict WHERE number IN
       (SELECT number FROM past_conflict WHERE realm = $1 AND at < $2 ORDER BY at, number LIMIT $3) RETURNING number";

const MOVE: &str = "UPDATE past_conflict SET record = $3 WHERE realm = $1 AND record = $2";

const OF_RECORD: &str = "SELECT c.record, p.text, c.field, c.shown, c.kept, c.at FROM past_conflict c JOIN name p ON p.id = c.participant
     WHERE c.realm = (SELECT id FROM name WHERE text = $1) AND c.record = $2 AND c.at >= $3 ORDER BY c.number DESC
     LIMIT $4";

pub(super) fn add(realm: i64, participant: i64, conflicts: &[Contested], now: Timestamp) -> Vec<Ask> {
    if conflicts.is_empty() {
        return Vec::new();
    }
    let records: Vec<Uuid> = conflicts.iter().map(|conflict| conflict.record.0).collect();
    let column = |of: fn(&Contested) -> &Option<String>| conflicts.iter().map(|conflict| of(conflict).clone()).collect::<Vec<_>>();
    let (fields, shown, kept) = (column(|c| &c.field), column(|c| &c.shown), column(|c| &c.kept));
    vec![
        ask!(ADD, realm, participant, now.0, records.clone(), fields, shown, kept),
        ask!(CUT, realm, records, limit(CONFLICTS_PER_RECORD)),
        expire(realm, now),
    ]
}

/// Those that were kept long enough go, some at a time; a row for each.
pub(super) fn expire(realm: i64, now: Timestamp) -> Ask {
    ask!(EXPIRE, realm, now.before(CONFLICTS_FOR).0, limit(EXPIRED))
}

/// What was kept of one record is the other's.
pub(super) fn move_to(realm: i64, loser: RecordId, survivor: RecordId) -> Ask {
    ask!(MOVE, realm, loser.0, survivor.0)
}

/// The newest first.
pub(super) async fn of_record(session: &Session, realm: &str, record: RecordId, since: Timestamp) -> Result<Vec<PastConflict>, Failure> {
    let rows = session.ask(ask!(OF_RECORD, realm.to_owned(), record.0, since.0, limit(CONFLICTS_PER_RECORD))).await?;
    let past = |row: &tokio_postgres::Row| -> Result<PastConflict, Failure> {
        let value = |column: usize| -> Result<_, Failure> {
            Ok(get::<Option<&str>>(row, column)?.map(|text| decode("conflict", text)).transpose()?)
        };
        Ok(PastConflict {
            conflict: Conflict {
                record: RecordId(get(row, 0)?),
                field: get::<Option<&str>>(row, 2)?.and_then(|field| field.parse().ok()),
                shown: value(3)?,
                kept: value(4)?,
            },
            participant: get(row, 1)?,
            at: Timestamp(get(row, 5)?),
        })
    };
    rows.iter().map(past).collect()
}
