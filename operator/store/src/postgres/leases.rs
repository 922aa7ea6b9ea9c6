//! Leases: who may commit for a reader or a lane, and under which epoch.

use super::codec::get;
use super::command::{Done, Job};
use super::error::Failure;
use super::session::{Ask, Session, ask};
use crate::crash::{Command, Step, reach};
use crate::{Fence, LeaseRequest, StoreError};
use async_trait::async_trait;
use fairlead_model::Timestamp;
use tokio_postgres::Row;

/// One statement, so that two who ask at once cannot both be granted: the second waits for the row and judges it anew.
const TAKE: &str = "INSERT INTO lease AS present (key, holder, epoch, until) VALUES ($1, $2, 1, $3)
     ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until,
       epoch = CASE WHEN present.holder = excluded.holder AND present.until > $4 THEN present.epoch ELSE present.epoch + 1 END
     WHERE present.holder IS NULL OR present.holder = excluded.holder OR present.until <= $4
     RETURNING epoch";

/// Ends the lease, if it still is this one. The row stays, so that the next epoch is higher.
const RELEASE: &str = "UPDATE lease SET holder = NULL WHERE key = $1 AND holder = $2 AND epoch = $3";

const END: &str = "UPDATE lease SET holder = NULL, until = 0 WHERE key = $1";

/// Nobody takes the lease until the transaction that asked is over.
const CHECK: &str = "SELECT 1 FROM lease WHERE key = $1 AND holder = $2 AND epoch = $3 FOR SHARE";

/// Of every lease of a realm: `<what>/<realm>/<part>`.
macro_rules! of_realm {
    ($before:literal, $after:literal) => {
        concat!($before, " WHERE starts_with(substr(key, strpos(key, '/') + 1), $1)", $after)
    };
}

const END_ALL: &str = of_realm!("UPDATE lease SET holder = NULL, until = $2", "");
const LIVE: &str = of_realm!("SELECT key FROM lease", " AND holder IS NOT NULL AND until > $2 ORDER BY key LIMIT 1");
const EPOCHS: &str = of_realm!("SELECT key, epoch FROM lease", " ORDER BY key");

/// A lease that is free, and whose next epoch is higher than this one.
const RAISE: &str = "INSERT INTO lease AS present (key, holder, epoch, until) VALUES ($1, NULL, $2, 0)
     ON CONFLICT (key) DO UPDATE SET holder = NULL, until = 0, epoch = greatest(present.epoch, excluded.epoch)";

#[async_trait]
impl Job for LeaseRequest {
    type Answer = Option<Fence>;
    const COMMAND: Command = Command::Lease;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<Option<Fence>>, Failure> {
        let until = self.now.plus(self.ttl);
        let rows = session.ask(ask!(TAKE, self.key.clone(), self.holder.clone(), until.0, self.now.0)).await?;
        reach(Command::Lease, Step::Rows);
        let Some(row) = rows.first() else { return Ok(Done::Nothing(None)) };
        let epoch: i64 = get(row, 0)?;
        let fence = Fence { key: self.key.clone(), holder: self.holder.clone(), epoch: epoch.cast_unsigned(), until };
        Ok(Done::Commit(Some(fence), Vec::new()))
    }
}

/// The command `release`.
pub(super) struct Release<'f>(pub(super) &'f Fence);

#[async_trait]
impl Job for Release<'_> {
    type Answer = ();
    const COMMAND: Command = Command::Release;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<()>, Failure> {
        let Fence { key, holder, epoch, .. } = self.0;
        session.ask(ask!(RELEASE, key.clone(), holder.clone(), epoch.cast_signed())).await?;
        reach(Command::Release, Step::Rows);
        Ok(Done::Commit((), Vec::new()))
    }
}

/// Asks whether a command's lease is still its own; see [`held`].
pub(super) fn check(fence: &Fence) -> Ask {
    ask!(CHECK, fence.key.clone(), fence.holder.clone(), fence.epoch.cast_signed())
}

/// Refuses a command whose lease is another's by now, was released, or is its holder's under a newer epoch. A lease that has run out
/// and that nobody has taken is still its holder's: no other can have acted meanwhile.
pub(super) fn held(fence: &Fence, rows: &[Row]) -> Result<(), Failure> {
    if rows.is_empty() { Err(StoreError::Fenced { key: fence.key.clone() }.into()) } else { Ok(()) }
}

/// Ends a lease, whoever holds it.
pub(super) fn end(key: &str) -> Ask {
    ask!(END, key.to_owned())
}

/// Asks for a lease of a realm that somebody holds.
pub(super) fn live(realm: &str, now: Timestamp) -> Ask {
    ask!(LIVE, format!("{realm}/"), now.0)
}

/// Asks for the epochs of a realm's leases.
pub(super) fn epochs(realm: &str) -> Ask {
    ask!(EPOCHS, format!("{realm}/"))
}

/// Frees a lease; its next epoch is higher than this one.
pub(super) fn raise(key: &str, epoch: i64) -> Ask {
    ask!(RAISE, key.to_owned(), epoch)
}

/// Ends every lease of a realm, so that nobody who still runs can bring a forgotten realm back.
pub(super) fn end_all(realm: &str) -> Ask {
    ask!(END_ALL, format!("{realm}/"), Timestamp::default().0)
}
