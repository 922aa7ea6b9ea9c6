//! Writes of API callers by their key: begun, answered, remembered for a while.

use super::codec::get;
use super::command::{Done, Job};
use super::error::Failure;
use super::session::{Session, ask, lock_write};
use crate::crash::{Command, Step, reach};
use crate::{BeginWrite, WriteBegun};
use async_trait::async_trait;

/// So many writes are remembered; beyond, the oldest are forgotten before their time.
const MOST: i64 = 1_000_000;
/// So many expired ones go with each new one: more than come, so that the table shrinks to what is needed.
const SWEEP: i64 = 16;

const KNOWN: &str = "SELECT number, fingerprint, held_until, answer FROM api_write WHERE scope = $1 AND expires > $2 FOR UPDATE";
const AGAIN: &str = "UPDATE api_write SET held_until = $2, expires = $3 WHERE number = $1";
/// One that has expired and was not swept yet makes room.
const MAKE_ROOM: &str = "DELETE FROM api_write WHERE scope = $1";
const ADD: &str = "INSERT INTO api_write (scope, fingerprint, held_until, expires) VALUES ($1, $2, $3, $4) RETURNING number";
/// What another transaction has in hand is left to it: two that sweep never wait for each other.
const SWEEP_EXPIRED: &str = "DELETE FROM api_write WHERE number IN
       (SELECT number FROM api_write WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)";
const SWEEP_OLDEST: &str = "DELETE FROM api_write WHERE number IN
       (SELECT number FROM api_write WHERE number <= $1 ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED)";
const FINISH: &str = "UPDATE api_write SET answer = $2 WHERE scope = $1";
/// The fingerprint stays: whatever became of this write, another one under its key is not it.
const ABANDON: &str = "UPDATE api_write SET held_until = 0 WHERE scope = $1 AND answer IS NULL";

#[async_trait]
impl Job for BeginWrite {
    type Answer = WriteBegun;
    const COMMAND: Command = Command::BeginWrite;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<WriteBegun>, Failure> {
        let now = self.now.0;
        let hash = fairlead_model::hash::ValueHash::of(Some(&serde_json::Value::from(self.scope.as_str()))).0.cast_signed();
        let [_, known] = session.all([lock_write(hash), ask!(KNOWN, self.scope.clone(), now)]).await?;
        let (held_until, expires) = (self.now.plus(self.held).0, self.now.plus(self.keep).0);
        let begun = match known.first() {
            None => {
                let add = ask!(ADD, self.scope.clone(), self.fingerprint.clone(), held_until, expires);
                let [_, added] = session.all([ask!(MAKE_ROOM, self.scope.clone()), add]).await?;
                let number: i64 = added.first().map_or(Ok(0), |row| get(row, 0))?;
                session.all([ask!(SWEEP_EXPIRED, now, SWEEP), ask!(SWEEP_OLDEST, number - MOST, SWEEP)]).await?;
                WriteBegun::Fresh
            }
            Some(row) => match get::<Option<String>>(row, 3)? {
                _ if get::<&str>(row, 1)? != self.fingerprint => WriteBegun::Mismatch,
                Some(answer) => WriteBegun::Done(answer),
                None if get::<i64>(row, 2)? > now => WriteBegun::Running,
                None => {
                    session.ask(ask!(AGAIN, get::<i64>(row, 0)?, held_until, expires)).await?;
                    WriteBegun::Fresh
                }
            },
        };
        reach(Command::BeginWrite, Step::Rows);
        // Who only asked has changed nothing.
        Ok(if begun == WriteBegun::Fresh { Done::Commit(begun, Vec::new()) } else { Done::Nothing(begun) })
    }
}

/// The command `finish_write`.
pub(super) struct Finish<'w>(pub(super) &'w str, pub(super) &'w str);

#[async_trait]
impl Job for Finish<'_> {
    type Answer = ();
    const COMMAND: Command = Command::FinishWrite;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        session.ask(ask!(FINISH, self.0.to_owned(), self.1.to_owned())).await?;
        reach(Command::FinishWrite, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}

/// The command `abandon_write`.
pub(super) struct Abandon<'w>(pub(super) &'w str);

#[async_trait]
impl Job for Abandon<'_> {
    type Answer = ();
    const COMMAND: Command = Command::AbandonWrite;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        session.ask(ask!(ABANDON, self.0.to_owned())).await?;
        reach(Command::AbandonWrite, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}
