//! Opening a file: connection settings and numbered migrations.
//!
//! `user_version` is the schema's number, `application_id` marks the file as ours. Migrations run in one transaction under the write
//! lock, so two processes that open a file at once migrate it once.

use super::error::of_file;
use crate::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::path::Path;
use std::time::{Duration, Instant};

/// "FLED": marks a SQLite file as a Fairlead store.
const APPLICATION_ID: i64 = 0x464C_4544;

/// The schema's history; entry n leads to `user_version` n + 1. An entry that was released is never edited.
const MIGRATIONS: [&str; 12] = [
    include_str!("../../migrations/sqlite/0001.sql"),
    include_str!("../../migrations/sqlite/0002.sql"),
    include_str!("../../migrations/sqlite/0003.sql"),
    include_str!("../../migrations/sqlite/0004.sql"),
    include_str!("../../migrations/sqlite/0005.sql"),
    include_str!("../../migrations/sqlite/0006.sql"),
    include_str!("../../migrations/sqlite/0007.sql"),
    include_str!("../../migrations/sqlite/0008.sql"),
    include_str!("../../migrations/sqlite/0009.sql"),
    include_str!("../../migrations/sqlite/0010.sql"),
    include_str!("../../migrations/sqlite/0011.sql"),
    include_str!("../../migrations/sqlite/0012.sql"),
];

/// How long a writer waits for another process that is writing.
const BUSY: Duration = Duration::from_secs(10);

/// Opens the connection that writes, and brings the schema up to date.
pub(super) fn open_writer(path: Option<&Path>) -> Result<Connection, StoreError> {
    let mut connection = match path {
        None => Connection::open_in_memory()?,
        Some(path) => {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent).map_err(|error| of_file(&error, parent))?;
            }
            Connection::open(path).map_err(|error| explain_open(error, path))?
        }
    };
    connection.busy_timeout(BUSY)?;
    refuse_foreign(&connection)?;
    connection.pragma_update(None, "page_size", 8192)?;
    if path.is_some() {
        enter_wal(&connection)?;
    }
    common_settings(&connection, WRITER_CACHE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    migrate(&mut connection)?;
    if connection.is_readonly("main")? {
        let place = path.map_or_else(String::new, |path| path.display().to_string());
        return Err(super::error::read_only(&place));
    }
    Ok(connection)
}

/// Opens a connection that only reads. The schema must stand.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| explain_open(error, path))?;
    connection.busy_timeout(BUSY)?;
    common_settings(&connection, READER_CACHE)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Page caches, in KiB. The writer's saves it from reading pages that it changes again and again; a reader's misses are served from the
/// operating system's cache of the file, so four large ones would only hold the same pages four times. For twice as much
/// of each `bench_store` showed nothing beyond noise (400,000 records changed in random order, 205 us for each; 190 with these).
const WRITER_CACHE: i64 = 16 * 1024;
const READER_CACHE: i64 = 2 * 1024;

fn common_settings(connection: &Connection, cache: i64) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "cache_size", -cache)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

fn explain_open(error: rusqlite::Error, path: &Path) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen) => match std::fs::OpenOptions::new().append(true).create(true).open(path) {
            Err(cause) => of_file(&cause, path),
            Ok(_) => StoreError::Unusable(format!("{}: {error}", path.display())),
        },
        _ => StoreError::from(error),
    }
}

/// Refuses a file that belongs to something else before anything is written to it.
fn refuse_foreign(connection: &Connection) -> Result<(), StoreError> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, tables) {
        (APPLICATION_ID, _) | (0, 0) => Ok(()),
        _ => Err(StoreError::Unusable("the file is a SQLite database, but not a Fairlead store; name another file".into())),
    }
}

/// Two processes may enter WAL mode at once; SQLite then answers busy without waiting, so the waiting is done here.
fn enter_wal(connection: &Connection) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return Ok(done?),
        }
    }
}

/// The schema's number.
pub(super) const fn version() -> usize {
    MIGRATIONS.len()
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let present = |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let wanted = MIGRATIONS.len() as i64;
    if present(connection)? == wanted {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = present(&transaction)?;
    let Some(steps) = usize::try_from(version).ok().and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(StoreError::Unusable(format!(
            "the file has schema {version} and this Fairlead knows schemas up to {wanted}; run the newer Fairlead that wrote it"
        )));
    };
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", wanted)?;
    transaction.commit()?;
    Ok(())
}
