//! The schema and its numbered migrations.
//!
//! The table `migration` says which were run. They run in one transaction under an advisory lock, so several processes that start at once
//! migrate once. A schema that stands costs one look, so a store opens on a database that is read-only, too, and says so when it writes.
//!
//! A process that still runs under the schema before must not go on by rules that hold no more. A migration ends every lease, so that nothing
//! more is committed under one, and whoever asks for leases looks at the schema's number in the same transaction: an older process gets none
//! ([`still_known`]). A migration holds the table `migration` for itself, so nobody can look before it and take a lease after.

use super::codec::get;
use super::error::Failure;
use crate::StoreError;
use deadpool_postgres::{Object, Pool};

/// The schema's history; entry n is the number n + 1. An entry that was released is never edited.
const MIGRATIONS: [&str; 9] = [
    include_str!("../../migrations/postgres/0001.sql"),
    include_str!("../../migrations/postgres/0002.sql"),
    include_str!("../../migrations/postgres/0003.sql"),
    include_str!("../../migrations/postgres/0004.sql"),
    include_str!("../../migrations/postgres/0005.sql"),
    include_str!("../../migrations/postgres/0006.sql"),
    include_str!("../../migrations/postgres/0007.sql"),
    include_str!("../../migrations/postgres/0008.sql"),
    include_str!("../../migrations/postgres/0009.sql"),
];

/// Marks the advisory lock of migrations; see `session` for the others.
const LOCK: i32 = 0x464C_4544 + 2;

/// What a session is set to. `schema` consists of letters that need no quoting.
///
/// Plans must not depend on statistics: a store that fills within its first minute has none yet, and a plan that was made for empty tables would read
/// whole ones. Everything that commands and queries ask goes by an index, so no other plans are considered, and each statement is planned once.
/// A process that is paused in mid-command keeps its locks for ten seconds at most: less than the leases that it may hold.
pub(super) fn settings(schema: &str) -> String {
    format!(
        "SET search_path = {schema};
         SET idle_in_transaction_session_timeout = '10s';
         SET lock_timeout = '30s';
         SET default_transaction_isolation = 'read committed';
         SET plan_cache_mode = force_generic_plan;
         SET enable_seqscan = off;
         SET enable_bitmapscan = off;
         SET enable_hashjoin = off;
         SET enable_mergejoin = off;
         SET jit = off;
         SET client_min_messages = warning;
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
    )
}

/// Brings the schema up to date; makes it only if told so.
pub(super) async fn migrate(pool: &Pool, schema: &str, make: bool) -> Result<(), Failure> {
    let object = pool.get().await?;
    match present(&object).await? {
        Some(version) if version == wanted() => return Ok(()),
        None if !make => {
            return Err(StoreError::Unusable(format!(
                "the schema {schema} of the database holds no state of Fairlead; name the database that `run` or `operator` was given"
            ))
            .into());
        }
        _ => {}
    }
    let result = migrate_under_lock(&object, schema).await;
    if result.is_err() {
        // Whatever it left open ends with it.
        drop(Object::take(object));
    }
    result
}

/// The schema's number.
pub(super) fn wanted() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Refuses to work on a schema that came after this program.
pub(super) fn still_known(present: Option<i32>) -> Result<(), StoreError> {
    match present {
        Some(number) if number > wanted() => Err(StoreError::Unusable(format!(
            "a newer Fairlead has brought the database to schema {number}, and this one knows schemas up to {}; it stands back: replace it by \
             the newer one",
            wanted()
        ))),
        _ => Ok(()),
    }
}

/// The number of the last migration that was run.
async fn present(client: &Object) -> Result<Option<i32>, Failure> {
    let there = client.query_one("SELECT to_regclass('migration') IS NOT NULL", &[]).await?;
    if !get::<bool>(&there, 0)? {
        return Ok(None);
    }
    get(&client.query_one("SELECT max(number) FROM migration", &[]).await?, 0)
}

/// What a failure comes to. Where a newer Fairlead has migrated the schema meanwhile, what this one asks for may not be there any more.
pub(super) async fn told(pool: &Pool, failure: Failure) -> StoreError {
    if failure.elsewhere
        && let Ok(object) = pool.get().await
        && let Ok(Some(version)) = present(&object).await
        && version > wanted()
    {
        return StoreError::Unusable(format!(
            "a newer Fairlead has brought the database to schema {version} and this one knows schemas up to {}; end this process, the newer \
             one goes on with its work",
            wanted()
        ));
    }
    failure.error
}

async fn migrate_under_lock(client: &Object, schema: &str) -> Result<(), Failure> {
    client.batch_execute("BEGIN").await?;
    client.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", &[&LOCK, &schema]).await?;
    let there = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema]).await?;
    if there.is_none() {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    let version = present(client).await?;
    if version.is_none() {
        let tables = client.query_one("SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace", &[&schema]).await?;
        if get::<i64>(&tables, 0)? > 0 {
            return Err(StoreError::Unusable(format!(
                "the schema {schema} holds tables that are not Fairlead's; name another with options=-c%20search_path%3DNAME in the URL"
            ))
            .into());
        }
        client.batch_execute("CREATE TABLE migration (number int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())").await?;
    }
    let done = version.unwrap_or_default();
    let Some(steps) = usize::try_from(done).ok().and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(StoreError::Unusable(format!(
            "the database has schema {done} and this Fairlead knows schemas up to {}; run the newer Fairlead that wrote it",
            wanted()
        ))
        .into());
    };
    if done > 0 && !steps.is_empty() {
        client.batch_execute("LOCK TABLE migration IN ACCESS EXCLUSIVE MODE; UPDATE lease SET holder = NULL, until = 0").await?;
    }
    for (number, step) in (done + 1..).zip(steps) {
        client.batch_execute(step).await?;
        client.execute("INSERT INTO migration (number) VALUES ($1)", &[&number]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}
