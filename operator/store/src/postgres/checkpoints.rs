//! Where reading stands.

use super::codec::get;
use super::command::{Done, Job};
use super::error::Failure;
use super::session::{Ask, Session, ask, lock_realm};
use super::{leases, notes};
use crate::crash::{Command, Step, reach};
use crate::rows::codec::{decode, encode};
use crate::{Checkpoint, SetCheckpoint, Standing, StoreError};
use async_trait::async_trait;
use fairlead_model::Timestamp;
use serde_json::Value;

const PUT: &str = "INSERT INTO checkpoint (realm, participant, slice, cursor, complete, at) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (realm, participant, slice) DO UPDATE SET cursor = excluded.cursor, complete = excluded.complete, at = excluded.at";
const FIND: &str = "SELECT cursor, complete FROM checkpoint WHERE realm = $1 AND participant = $2 AND slice = $3";
const ALL: &str =
    "SELECT p.text, c.slice, c.cursor, c.complete, c.at FROM name r JOIN checkpoint c ON c.realm = r.id JOIN name p ON p.id = c.participant
     WHERE r.text = $1 ORDER BY p.text, c.slice";

pub(super) fn put(realm: i64, participant: i64, (slice, cursor, complete): (&str, &str, bool), now: Timestamp) -> Ask {
    ask!(PUT, realm, participant, slice.to_owned(), cursor.to_owned(), complete, now.0)
}

pub(super) async fn all(session: &Session, realm: &str) -> Result<Vec<Standing>, Failure> {
    let rows = session.ask(ask!(ALL, realm.to_owned())).await?;
    let standing = |row: &tokio_postgres::Row| -> Result<Standing, Failure> {
        let checkpoint = Checkpoint { slice: get(row, 1)?, cursor: decode("cursor", get(row, 2)?)?, complete: get(row, 3)? };
        Ok(Standing { participant: get(row, 0)?, checkpoint, at: get::<Option<i64>>(row, 4)?.map(Timestamp) })
    };
    rows.iter().map(standing).collect()
}

#[async_trait]
impl Job for SetCheckpoint {
    type Answer = ();
    const COMMAND: Command = Command::SetCheckpoint;

    fn names(&self) -> Vec<&str> {
        vec![&self.realm, &self.participant]
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let (realm, participant) = (session.name(&self.realm)?, session.name(&self.participant)?);
        let Checkpoint { slice, cursor, complete } = &self.before;
        let [_, found] = session.all([lock_realm(realm), ask!(FIND, realm, participant, slice.clone())]).await?;
        let stands = match found.first() {
            None => false,
            Some(row) => decode::<Value>("cursor", get(row, 0)?)? == *cursor && get::<bool>(row, 1)? == *complete,
        };
        if !stands {
            return Err(StoreError::Conflict(Vec::new()).into());
        }
        let set = encode(&self.cursor)?;
        let told = notes::put(realm, &self.note.0, &encode(&self.note.1)?);
        session.all([leases::end(&self.lease), put(realm, participant, (slice, &set, *complete), self.now), told]).await?;
        reach(Command::SetCheckpoint, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}
