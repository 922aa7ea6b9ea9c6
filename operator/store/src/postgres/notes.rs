//! Small named values of a realm. A name may end in an external id, and is stored as one.

use super::codec::stored_id;
use super::command::{Done, Job};
use super::error::Failure;
use super::session::{Ask, Session, ask, lock_realm};
use crate::crash::{Command, Step, reach};
use async_trait::async_trait;

const PUT: &str =
    "INSERT INTO note (realm, name, value) VALUES ($1, $2, $3) ON CONFLICT (realm, name) DO UPDATE SET value = excluded.value";
const REPLACE: &str = "UPDATE note SET value = $3 WHERE realm = $1 AND name = $2 AND value = $4 RETURNING true";
const ADD: &str = "INSERT INTO note (realm, name, value) VALUES ($1, $2, $3) ON CONFLICT (realm, name) DO NOTHING RETURNING true";

pub(super) fn put(realm: i64, name: &str, value: &str) -> Ask {
    ask!(PUT, realm, stored_id(name).into_owned(), value.to_owned())
}

/// The command `put_note`.
pub(super) struct Put<'n> {
    pub(super) realm: &'n str,
    pub(super) name: &'n str,
    /// As JSON text.
    pub(super) value: String,
}

#[async_trait]
impl Job for Put<'_> {
    type Answer = ();
    const COMMAND: Command = Command::PutNote;

    fn names(&self) -> Vec<&str> {
        vec![self.realm]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let realm = session.name(self.realm)?;
        session.all([lock_realm(realm), put(realm, self.name, &self.value)]).await?;
        reach(Command::PutNote, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}

/// The command `replace_note`.
pub(super) struct Replace<'n> {
    pub(super) realm: &'n str,
    pub(super) name: &'n str,
    /// As JSON text, as is the value.
    pub(super) known: Option<String>,
    pub(super) value: String,
}

#[async_trait]
impl Job for Replace<'_> {
    type Answer = bool;
    const COMMAND: Command = Command::PutNote;

    fn names(&self) -> Vec<&str> {
        vec![self.realm]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<bool>, Failure> {
        let (realm, name, value) = (session.name(self.realm)?, stored_id(self.name).into_owned(), self.value.clone());
        let replace = match self.known.clone() {
            Some(known) => ask!(REPLACE, realm, name, value, known),
            None => ask!(ADD, realm, name, value),
        };
        let [_, changed] = session.all([lock_realm(realm), replace]).await?;
        Ok(if changed.is_empty() { Done::Nothing(false) } else { Done::Commit(true, Vec::new()) })
    }
}
