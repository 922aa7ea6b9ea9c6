//! Leases: who may commit for a reader or a lane, and under which epoch.
//!
//! Processes on several machines ask for them, so the server's clock alone says which have run out. A holder counts from the moment at which it
//! asked, by its own clock, and so believes in a lease no longer than the server does, whatever either clock shows.

use super::codec::get;
use super::command::{Done, Job};
use super::error::Failure;
use super::schema;
use super::session::{Ask, Session, ask};
use crate::crash::{Command, Step, reach};
use crate::{Fence, LaneFence, LeaseRequest, StoreError};
use async_trait::async_trait;
use fairlead_model::Timestamp;
use std::collections::{HashMap, HashSet};
use tokio_postgres::Row;

/// By what leases are judged: the server's own clock, which is one for all processes, or a moment that is given.
macro_rules! now {
    ($given:literal) => {
        concat!("coalesce(", $given, "::int8, (extract(epoch FROM clock_timestamp()) * 1000)::int8)")
    };
}

/// One statement, so that two who ask at once cannot both be granted: the second waits for the row and judges it anew. Rows are taken in the
/// order of their keys, as by everybody who locks several. The clock is read once the row is had, however long that took.
const TAKE: &str = concat!(
    "INSERT INTO lease AS present (key, holder, epoch, until)
     SELECT wanted, $2::text, 1::int8, $3::int8 + ",
    now!("$4"),
    " FROM (SELECT DISTINCT wanted COLLATE \"C\" AS wanted FROM unnest($1::text[]) AS wanted ORDER BY 1) AS n
     ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = $3::int8 + ",
    now!("$4"),
    ", epoch = CASE WHEN present.holder = excluded.holder AND present.until > ",
    now!("$4"),
    " THEN present.epoch ELSE present.epoch + 1 END
     WHERE present.holder IS NULL OR present.holder = excluded.holder OR present.until <= ",
    now!("$4"),
    " RETURNING key, epoch"
);

/// Waits for a migration that is under way; see [`super::schema`].
const VERSION: &str = "SELECT max(number) FROM migration";

/// Ends the lease, if it still is this one. The row stays, so that the next epoch is higher.
const RELEASE: &str = "UPDATE lease SET holder = NULL WHERE key = $1 AND holder = $2 AND epoch = $3";

const END: &str = "UPDATE lease SET holder = NULL, until = 0 WHERE key = $1";

/// Nobody takes the lease until the transaction that asked is over.
const CHECK: &str = "SELECT 1 FROM lease WHERE key = $1 AND holder = $2 AND epoch = $3 FOR SHARE";

/// The same for several, in the order in which they are named.
const CHECK_ALL: &str = "SELECT lease.key FROM unnest($1::text[], $2::text[], $3::int8[]) AS held(key, holder, epoch)
     JOIN lease ON lease.key = held.key AND lease.holder = held.holder AND lease.epoch = held.epoch FOR SHARE OF lease";

const HELD: &str =
    concat!("SELECT key, holder, epoch, until FROM lease WHERE holder IS NOT NULL AND until > ", now!("$1"), " ORDER BY key");

/// Of every lease of a realm: `<what>/<realm>/<part>`.
macro_rules! of_realm {
    ($before:literal $(, $after:expr)*) => {
        concat!($before, " WHERE starts_with(substr(key, strpos(key, '/') + 1), $1)" $(, $after)*)
    };
}

const END_ALL: &str = of_realm!("UPDATE lease SET holder = NULL, until = $2");
const LIVE: &str = of_realm!("SELECT key FROM lease", " AND holder IS NOT NULL AND until > ", now!("$2"), " ORDER BY key LIMIT 1");
const EPOCHS: &str = of_realm!("SELECT key, epoch FROM lease", " ORDER BY key");

/// A lease that is free, and whose next epoch is higher than this one.
const RAISE: &str = "INSERT INTO lease AS present (key, holder, epoch, until) VALUES ($1, NULL, $2, 0)
     ON CONFLICT (key) DO UPDATE SET holder = NULL, until = 0, epoch = greatest(present.epoch, excluded.epoch)";

/// The command `lease`.
pub(super) struct Take<'r> {
    pub(super) request: &'r LeaseRequest,
    /// The moment by which it is judged, where that is given; see [`now`].
    pub(super) given: Option<Timestamp>,
}

#[async_trait]
impl Job for Take<'_> {
    type Answer = Vec<Option<Fence>>;
    const COMMAND: Command = Command::Lease;

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    async fn run(&self, session: &mut Session) -> Result<Done<Vec<Option<Fence>>>, Failure> {
        let LeaseRequest { keys, holder, ttl, now } = self.request;
        let length = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2);
        let take = ask!(TAKE, keys.clone(), holder.clone(), length, self.given.map(|given| given.0));
        let [version, rows] = session.all([ask!(VERSION), take]).await?;
        if let Some(row) = version.first() {
            schema::still_known(get(row, 0)?)?;
        }
        reach(Command::Lease, Step::Rows);
        let granted = rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<HashMap<String, i64>, Failure>>()?;
        let fence = |key: &String| {
            let epoch = granted.get(key)?.cast_unsigned();
            // It was asked for before it was granted, so this is over no later than what the server noted.
            Some(Fence { key: key.clone(), holder: holder.clone(), epoch, until: now.plus(*ttl) })
        };
        let fences = keys.iter().map(fence).collect();
        Ok(if granted.is_empty() { Done::Nothing(fences) } else { Done::Commit(fences, Vec::new()) })
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
pub(super) fn live(realm: &str, given: Option<Timestamp>) -> Ask {
    ask!(LIVE, format!("{realm}/"), given.map(|given| given.0))
}

/// Asks for the epochs of a realm's leases.
pub(super) fn epochs(realm: &str) -> Ask {
    ask!(EPOCHS, format!("{realm}/"))
}

/// Frees a lease; its next epoch is higher than this one.
pub(super) fn raise(key: &str, epoch: i64) -> Ask {
    ask!(RAISE, key.to_owned(), epoch)
}

/// Asks whether all leases under which a lane is drained are still their holder's; see [`held_lane`].
pub(super) fn check_lane(fence: &LaneFence) -> Ask {
    let mut fences: Vec<&Fence> = fence.fences().collect();
    fences.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<String> = fences.iter().map(|fence| fence.key.clone()).collect();
    let holders: Vec<String> = fences.iter().map(|fence| fence.holder.clone()).collect();
    let epochs: Vec<i64> = fences.iter().map(|fence| fence.epoch.cast_signed()).collect();
    ask!(CHECK_ALL, keys, holders, epochs)
}

/// Like [`held`], for a lane: one lease that is another's refuses all.
pub(super) fn held_lane(fence: &LaneFence, rows: &[Row]) -> Result<(), Failure> {
    let still = rows.iter().map(|row| get(row, 0)).collect::<Result<HashSet<String>, Failure>>()?;
    match fence.fences().find(|fence| !still.contains(&fence.key)) {
        Some(lost) => Err(StoreError::Fenced { key: lost.key.clone() }.into()),
        None => Ok(()),
    }
}

/// The leases that are held and have not run out.
pub(super) async fn all_held(session: &Session, given: Option<Timestamp>) -> Result<Vec<Fence>, Failure> {
    let rows = session.ask(ask!(HELD, given.map(|given| given.0))).await?;
    let fence = |row: &Row| {
        Ok(Fence { key: get(row, 0)?, holder: get(row, 1)?, epoch: get::<i64>(row, 2)?.cast_unsigned(), until: Timestamp(get(row, 3)?) })
    };
    rows.iter().map(fence).collect()
}

/// Ends every lease of a realm, so that nobody who still runs can bring a forgotten realm back.
pub(super) fn end_all(realm: &str) -> Ask {
    ask!(END_ALL, format!("{realm}/"), Timestamp::default().0)
}
