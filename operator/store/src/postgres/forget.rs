//! The commands `forget` and `forget_participants`: everything of a realm, or of some of its participants, goes, except the epochs of their
//! leases, which must never go back.

use super::codec::get;
use super::command::{Done, Job};
use super::error::Failure;
use super::leases;
use super::session::{Session, ask, lock_realm};
use crate::crash::{Command, Step, reach};
use async_trait::async_trait;

const STATEMENTS: [&str; 14] = [
    "DELETE FROM identity WHERE realm = $1",
    "DELETE FROM index_key WHERE realm = $1",
    "DELETE FROM lane WHERE realm = $1",
    "DELETE FROM record WHERE realm = $1",
    "DELETE FROM checkpoint WHERE realm = $1",
    "DELETE FROM reread WHERE realm = $1",
    "DELETE FROM dead_letter WHERE realm = $1",
    "DELETE FROM lane_book WHERE realm = $1",
    "DELETE FROM filtered_book WHERE realm = $1",
    "DELETE FROM source_book WHERE realm = $1",
    "DELETE FROM realm_book WHERE realm = $1",
    "DELETE FROM guard_count WHERE realm = $1",
    "DELETE FROM past_conflict WHERE realm = $1",
    "DELETE FROM note WHERE realm = $1",
];

/// The realm's rows go.
pub(super) async fn rows(session: &Session, realm: i64) -> Result<(), Failure> {
    session.run(STATEMENTS.into_iter().map(|sql| ask!(sql, realm)).collect()).await?;
    Ok(())
}

/// The command.
pub(super) struct Forget<'r>(pub(super) &'r str);

#[async_trait]
impl Job for Forget<'_> {
    type Answer = ();
    const COMMAND: Command = Command::Forget;

    fn names(&self) -> Vec<&str> {
        vec![self.0]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let realm = session.name(self.0)?;
        session.all([lock_realm(realm), leases::end_all(self.0)]).await?;
        reach(Command::Forget, Step::Partly);
        rows(session, realm).await?;
        reach(Command::Forget, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}

/// What is known of the participants whose names begin with `$2`. They are few, and so are the names. A note about one, or of an Integration's
/// own, names it behind one word.
macro_rules! of_participants {
    ($table:literal, $column:literal) => {
        concat!("DELETE FROM ", $table, " WHERE realm = $1 AND ", $column, " IN (SELECT id FROM name WHERE starts_with(text, $2::text))")
    };
}

const OF_PARTICIPANTS: [&str; 12] = [
    of_participants!("identity", "participant"),
    of_participants!("lane", "target"),
    of_participants!("checkpoint", "participant"),
    of_participants!("reread", "participant"),
    "DELETE FROM note WHERE realm = $1 AND name IN (SELECT 'edited/' || id::text FROM dead_letter WHERE realm = $1
       AND participant IN (SELECT id FROM name WHERE starts_with(text, $2::text)))",
    of_participants!("dead_letter", "participant"),
    of_participants!("lane_book", "target"),
    of_participants!("filtered_book", "target"),
    of_participants!("source_book", "participant"),
    of_participants!("past_conflict", "participant"),
    "DELETE FROM guard_count WHERE realm = $1 AND book IN (SELECT id FROM name WHERE text || '/' = $2::text)",
    "DELETE FROM note WHERE realm = $1 AND starts_with(substr(name, strpos(name, '/') + 1), $2::text)",
];

/// The records that nobody holds any more, and that nobody is being told of.
macro_rules! of_nobody {
    () => {
        "(SELECT r.row FROM record AS r WHERE r.realm = $1 AND r.merged_into IS NULL
            AND NOT EXISTS (SELECT 1 FROM identity WHERE identity.record = r.row)
            AND NOT EXISTS (SELECT 1 FROM record AS loser WHERE loser.merged_into = r.row)
            AND NOT EXISTS (SELECT 1 FROM lane WHERE lane.record = r.row AND (c_origin IS NOT NULL OR i_at IS NOT NULL)))"
    };
}

/// The ids of these records.
macro_rules! ids_of_nobody {
    () => {
        concat!("(SELECT id FROM record WHERE row IN ", of_nobody!(), ")")
    };
}

/// Whoever could say what becomes of such a record is gone: so is the record. What others were still to be told of it is over.
const BURY: [&str; 7] = [
    concat!(
        "UPDATE lane_book SET superseded = superseded + (SELECT count(*) FROM lane WHERE lane.realm = $1 AND lane.target = lane_book.target
           AND lane.origin = lane_book.origin AND lane.record IN ",
        of_nobody!(),
        ") WHERE realm = $1"
    ),
    concat!(
        "UPDATE lane_book SET discarded = discarded + (SELECT count(*) FROM dead_letter WHERE dead_letter.realm = $1
           AND dead_letter.target = lane_book.target AND dead_letter.origin = lane_book.origin AND closed_at IS NULL AND dead_letter.record IN ",
        ids_of_nobody!(),
        ") WHERE realm = $1"
    ),
    concat!("DELETE FROM dead_letter WHERE realm = $1 AND record IN ", ids_of_nobody!()),
    concat!("DELETE FROM past_conflict WHERE realm = $1 AND record IN ", ids_of_nobody!()),
    concat!("DELETE FROM index_key WHERE realm = $1 AND record IN ", of_nobody!()),
    concat!("DELETE FROM lane WHERE realm = $1 AND record IN ", of_nobody!()),
    concat!("DELETE FROM record WHERE realm = $1 AND row IN ", of_nobody!()),
];

const MATCHED: &str = "UPDATE realm_book SET live = (SELECT count(*) FROM record WHERE record.realm = $1 AND deleted_at IS NULL), matched = (SELECT count(*) FROM record WHERE record.realm = $1 AND deleted_at IS NULL
       AND (SELECT count(*) FROM identity WHERE identity.record = record.row) > 1) WHERE realm = $1";

const HELD: &str = "SELECT EXISTS (SELECT 1 FROM identity WHERE realm = $1)";

/// The command `forget_participants`; whether others hold records.
pub(super) struct ForgetParticipants<'r> {
    pub(super) realm: &'r str,
    pub(super) prefix: &'r str,
}

#[async_trait]
impl Job for ForgetParticipants<'_> {
    type Answer = bool;
    const COMMAND: Command = Command::Forget;

    fn names(&self) -> Vec<&str> {
        vec![self.realm]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<bool>, Failure> {
        let realm = session.name(self.realm)?;
        let leases = leases::end_all(&format!("{}/{}", self.realm, self.prefix.trim_end_matches('/')));
        session.all([lock_realm(realm), leases]).await?;
        reach(Command::Forget, Step::Partly);
        let mut asks: Vec<_> = OF_PARTICIPANTS.into_iter().map(|sql| ask!(sql, realm, self.prefix.to_owned())).collect();
        asks.extend(BURY.into_iter().map(|sql| ask!(sql, realm)));
        asks.push(ask!(MATCHED, realm));
        session.run(asks).await?;
        reach(Command::Forget, Step::Rows);
        let held = session.ask(ask!(HELD, realm)).await?;
        Ok(Done::Commit(held.first().map_or(Ok(false), |row| get(row, 0))?, Vec::new()))
    }
}
