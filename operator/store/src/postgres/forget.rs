//! The command `forget`: everything of a realm goes, except the epochs of its leases, which must never go back.

use super::command::{Done, Job};
use super::error::Failure;
use super::leases;
use super::session::{Session, ask, lock_realm};
use crate::crash::{Command, Step, reach};
use async_trait::async_trait;

const STATEMENTS: [&str; 13] = [
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
    "DELETE FROM guard_book WHERE realm = $1",
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
