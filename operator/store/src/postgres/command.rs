//! How a command runs: one transaction, tried again while it is certain that nothing was committed.
//!
//! Commands of one realm run one after another (an advisory lock that the server gives back with the transaction), so each decides on rows that
//! nobody else changes meanwhile, as on SQLite. Those of different realms run beside each other, up to the last step, which raises the
//! store's sequence. Locks are taken in one order everywhere (realms by number, the lease, the sequence), so nobody waits in a circle.
//! The isolation is READ COMMITTED: each statement after the lock sees everything that was committed before.

use super::error::Failure;
use super::schema;
use super::session::{Ask, Session, raise_sequence};
use crate::StoreError;
use crate::crash::{Command, Step, reach};
use async_trait::async_trait;
use deadpool_postgres::Pool;
use std::time::Duration;

/// How often a command is begun before its failure is told.
const ATTEMPTS: u32 = 4;

/// How long to wait before the second attempt; each further one waits twice as long.
const PAUSE: Duration = Duration::from_millis(50);

/// What a command has come to.
pub(super) enum Done<T> {
    /// To be committed, after these last statements, which may use the commit's sequence.
    Commit(T, Vec<Ask>),
    /// Nothing has changed, so there is nothing to commit.
    Nothing(T),
}

/// A command. `run` may be called several times, and must not change anything but through the session.
#[async_trait]
pub(super) trait Job: Sync {
    type Answer: Send;
    const COMMAND: Command;

    /// The names (realm, participants, targets) whose ids it needs.
    fn names(&self) -> Vec<&str>;

    async fn run(&self, session: &mut Session) -> Result<Done<Self::Answer>, Failure>;
}

/// Runs a command; answers with the sequence of its commit, or zero if there was none.
pub(super) async fn run<J: Job>(pool: &Pool, job: &J) -> Result<(J::Answer, u64), StoreError> {
    reach(J::COMMAND, Step::Received);
    let mut pause = PAUSE;
    let mut attempt = 1;
    loop {
        match attempt_once(pool, job).await {
            Ok(answer) => {
                reach(J::COMMAND, Step::Answered);
                return Ok(answer);
            }
            Err(Failure { error, passing: true, .. }) if attempt < ATTEMPTS => {
                tracing::debug!(command = J::COMMAND.name(), attempt, %error, "a command that was not committed is tried again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            Err(failure) => return Err(schema::told(pool, failure).await),
        }
    }
}

async fn attempt_once<J: Job>(pool: &Pool, job: &J) -> Result<(J::Answer, u64), Failure> {
    let mut session = Session::new(pool).await?;
    let result = within(&mut session, job).await;
    if let Err(Failure { error: StoreError::Conflict(_) | StoreError::Fenced { .. } | StoreError::Unusable(_), .. }) = result {
        // The connection is as good as before. If this fails, it is ended instead.
        let _ = session.rollback().await;
    }
    result
}

async fn within<J: Job>(session: &mut Session, job: &J) -> Result<(J::Answer, u64), Failure> {
    session.begin(&job.names()).await?;
    reach(J::COMMAND, Step::Begun);
    match job.run(session).await? {
        Done::Nothing(answer) => {
            session.rollback().await?;
            Ok((answer, 0))
        }
        Done::Commit(answer, last) => {
            let mut asks = vec![raise_sequence()];
            asks.extend(last);
            let rows = session.run(asks).await?;
            let sequence = match rows.first().and_then(|rows| rows.first()) {
                Some(row) => super::codec::get::<i64>(row, 0)?,
                None => return Err(StoreError::Unusable("the table `store` has lost its row; restore it from a backup".into()).into()),
            };
            reach(J::COMMAND, Step::Books);
            session.commit().await?;
            reach(J::COMMAND, Step::Committed);
            Ok((answer, sequence.cast_unsigned()))
        }
    }
}
