//! External ids that are to be read again by key.

use super::codec::{stored_id, stored_ids};
use super::command::{Done, Job};
use super::error::Failure;
use super::session::{Ask, Session, ask, lock_realm};
use crate::Haste;
use crate::crash::{Command, Step, reach};
use async_trait::async_trait;
use fairlead_model::{ExternalId, Timestamp};

/// With `after` a request waits until that id of the same participant stands for a record. It knows the sequence of the commit that is under way.
const REQUEST: &str = "INSERT INTO reread AS present (realm, participant, external_id, since, waits_for, bulk, asked)
     SELECT $1::int8, $2::int8, asked.external_id, $5::int8, asked.waits_for, $6::bool, (SELECT sequence FROM store)
     FROM (SELECT DISTINCT n.external_id, CASE WHEN EXISTS (SELECT 1 FROM identity
               WHERE identity.realm = $1 AND identity.participant = $2 AND identity.external_id = n.after) THEN NULL ELSE n.after END AS waits_for
           FROM unnest($3::text[], $4::text[]) AS n(external_id, after)) AS asked
     ON CONFLICT (realm, participant, external_id, coalesce(waits_for, '')) DO UPDATE
       SET since = least(present.since, excluded.since), bulk = present.bulk AND excluded.bulk, asked = excluded.asked";

const DONE: &str = "DELETE FROM reread WHERE realm = $1 AND participant = $2 AND external_id = ANY($3::text[]) AND asked <= $4";

const WAIT_NO_MORE: &str =
    "DELETE FROM reread WHERE realm = $1 AND participant = $2 AND external_id = ANY($3::text[]) AND waits_for IS NOT NULL";

const FREE: &str = "WITH freed AS (DELETE FROM reread WHERE realm = $1::int8 AND participant = $2::int8 AND waits_for = ANY($3::text[])
         AND waits_for IS NOT NULL RETURNING external_id, since, bulk, asked)
     INSERT INTO reread AS present (realm, participant, external_id, since, waits_for, bulk, asked)
     SELECT $1::int8, $2::int8, external_id, min(since), NULL, bool_and(bulk), max(asked) FROM freed GROUP BY external_id
     ON CONFLICT (realm, participant, external_id, coalesce(waits_for, '')) DO UPDATE
       SET since = least(present.since, excluded.since), bulk = present.bulk AND excluded.bulk, asked = greatest(present.asked, excluded.asked)";

/// Asks for ids, each with the one that it waits for. One of the last statements of a commit: it uses the commit's sequence.
pub(super) fn request((realm, participant): (i64, i64), ids: &[(&str, Option<&str>)], haste: Haste, now: Timestamp) -> Option<Ask> {
    (!ids.is_empty()).then(|| {
        let after: Vec<Option<String>> = ids.iter().map(|(_, after)| after.map(|after| stored_id(after).into_owned())).collect();
        ask!(REQUEST, realm, participant, stored_ids(ids.iter().map(|(id, _)| *id)), after, now.0, haste == Haste::Bulk)
    })
}

/// What these ids wait for is told anew.
pub(super) fn wait_no_more<'a>((realm, participant): (i64, i64), ids: impl IntoIterator<Item = &'a str>) -> Option<Ask> {
    let ids = stored_ids(ids);
    (!ids.is_empty()).then(|| ask!(WAIT_NO_MORE, realm, participant, ids))
}

/// A read of these ids was absorbed that began when the store stood at `began`.
pub(super) fn done<'a>((realm, participant): (i64, i64), ids: impl IntoIterator<Item = &'a str>, began: u64) -> Option<Ask> {
    let ids = stored_ids(ids);
    (!ids.is_empty()).then(|| ask!(DONE, realm, participant, ids, began.cast_signed()))
}

/// These ids stand for a record now: what waited for them is due.
pub(super) fn free<'a>(realm: i64, participant: i64, ids: impl IntoIterator<Item = &'a str>) -> Option<Ask> {
    let ids = stored_ids(ids);
    (!ids.is_empty()).then(|| ask!(FREE, realm, participant, ids))
}

/// The command `request_reads`.
pub(super) struct Request<'r> {
    pub(super) realm: &'r str,
    pub(super) participant: &'r str,
    pub(super) ids: &'r [ExternalId],
    pub(super) haste: Haste,
    pub(super) now: Timestamp,
}

#[async_trait]
impl Job for Request<'_> {
    type Answer = ();
    const COMMAND: Command = Command::RequestReads;

    fn names(&self) -> Vec<&str> {
        vec![self.realm, self.participant]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let (realm, participant) = (session.name(self.realm)?, session.name(self.participant)?);
        let ids: Vec<(&str, Option<&str>)> = self.ids.iter().map(|id| (id.as_str(), None)).collect();
        session.ask(lock_realm(realm)).await?;
        reach(Command::RequestReads, Step::Rows);
        Ok(Done::Commit((), request((realm, participant), &ids, self.haste, self.now).into_iter().collect()))
    }
}
