//! PostgreSQL's errors in the store's words, and whether a command may be tried again at once. Decides nothing else.
//!
//! No message carries what was in the URL: the library's own errors name no password, and the server's are passed on only with their code.

use crate::StoreError;
use deadpool_postgres::{HookError, PoolError};
use std::error::Error as _;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// What ended an attempt at a command.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Nothing was committed for sure, and the next attempt may well succeed.
    pub(super) passing: bool,
    /// What was asked for is not in the schema.
    pub(super) elsewhere: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, passing: false, elsewhere: false }
    }
}

impl From<Error> for Failure {
    /// An error of a statement before the commit: whatever it was, nothing is committed.
    fn from(error: Error) -> Self {
        let passing = match error.as_db_error() {
            Some(answer) => is_passing(answer.code()) || ends_session(answer.code()),
            None => is_lost(&error),
        };
        let elsewhere = error.code().is_some_and(is_elsewhere);
        Self { error: explain(&error), passing, elsewhere }
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                Self { error: explain(&error), passing: false, elsewhere: false }
            }
            PoolError::Timeout(_) => StoreError::Other(
                "no connection to the database came free in time: the server does not answer, or its commands take too long".into(),
            )
            .into(),
            other => StoreError::Other(format!("the database's connections: {other}")).into(),
        }
    }
}

/// What a commit's error means. Only an error that the server answered, and went on after, says that nothing was committed.
pub(super) fn of_commit(error: &Error) -> Failure {
    match error.as_db_error() {
        Some(answer) if answer.parsed_severity() == Some(Severity::Error) && *answer.code() != SqlState::TRANSACTION_RESOLUTION_UNKNOWN => {
            Failure { error: explain(error), passing: is_passing(answer.code()), elsewhere: false }
        }
        _ => StoreError::Other(
            "the connection to the database was lost while a commit was under way; whether it took effect is not known, and trying again \
             does no harm"
                .into(),
        )
        .into(),
    }
}

/// Two transactions were in each other's way; the server undid this one.
fn is_passing(code: &SqlState) -> bool {
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE].contains(code)
}

/// The schema is another than this Fairlead knows.
fn is_elsewhere(code: &SqlState) -> bool {
    [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::INVALID_COLUMN_REFERENCE].contains(code)
}

/// The server ended this session; another one may be had.
fn ends_session(code: &SqlState) -> bool {
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT].contains(code)
}

/// Why a row cannot stand beside those that are there, if that is what the error says.
pub(super) fn contradiction(error: &Error) -> Option<String> {
    let answer = error.as_db_error()?;
    // Class 22 is data that is none of its type, 23 a constraint.
    let code = answer.code().code();
    (code.starts_with("22") || code.starts_with("23")).then(|| format!("{} (SQLSTATE {code})", answer.message()))
}

/// The connection broke.
fn is_lost(error: &Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// The server's certificate is not what `sslmode` asks for.
fn is_distrusted(error: &Error) -> bool {
    let io = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let tls = io.and_then(std::io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

pub(super) fn explain(error: &Error) -> StoreError {
    match error.as_db_error() {
        Some(answer) => of_server(answer),
        None if is_distrusted(error) => StoreError::Unusable(format!(
            "the database server's certificate is not believed ({}); check the host in the URL, and name the authority's certificate with sslrootcert",
            chain(error)
        )),
        None if is_lost(error) => StoreError::Other(format!("the database cannot be reached ({})", chain(error))),
        None => StoreError::Other(format!("the database's answer was not understood: {}", chain(error))),
    }
}

/// An error and what it was caused by. The library names hosts, ports and options in them, never a password.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn of_server(answer: &DbError) -> StoreError {
    let code = answer.code();
    let text = format!("{} (SQLSTATE {})", answer.message(), code.code());
    let with = |advice: &str| format!("{text}; {advice}");
    match *code {
        SqlState::DISK_FULL => StoreError::Full(with("give the database server more room")),
        SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::ReadOnly(with(
            "the URL may lead to a replica (name the primary, or target_session_attrs=read-write), or the database was made read-only",
        )),
        SqlState::TOO_MANY_CONNECTIONS | SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
            StoreError::Other(with("raise max_connections of the server, or the connection limit of the role or the database"))
        }
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            StoreError::Unusable(with("check the role and its password in the database's URL, and the server's pg_hba.conf"))
        }
        SqlState::INVALID_CATALOG_NAME => StoreError::Unusable(with("create the database, or name another one in the URL")),
        SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Unusable(with(
            "the role must own the schema of the store, or be allowed to create it: GRANT CREATE ON DATABASE, or CREATE SCHEMA ... AUTHORIZATION",
        )),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
            StoreError::Other(with("the database server stops or starts; it is tried again"))
        }
        SqlState::LOCK_NOT_AVAILABLE => StoreError::Other(with("another process holds the store's rows for too long; it is tried again")),
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::INVALID_SCHEMA_NAME => {
            StoreError::Unusable(with("the schema of the store was changed or dropped; restore it from a backup"))
        }
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => {
            StoreError::Unusable(with("the database is damaged; restore it from a backup"))
        }
        _ => StoreError::Other(text),
    }
}
