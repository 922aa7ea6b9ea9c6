//! One connection at work: a command's transaction, a query's moment, and statements that travel together.
//!
//! Statements that need nothing of each other's answers are sent at once and answered in order, so that a command costs the same few round
//! trips whatever the size of its batch.

use super::error::{Failure, of_commit};
use crate::StoreError;
use deadpool_postgres::{Object, Pool};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

/// A parameter of a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;

/// A statement and its parameters.
pub(super) struct Ask {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

/// A statement with its parameters in order.
macro_rules! ask {
    ($sql:expr $(, $value:expr)* $(,)?) => {
        crate::postgres::session::Ask { sql: $sql, values: vec![$(Box::new($value) as crate::postgres::session::Value),*] }
    };
}
pub(super) use ask;

const NAMES: &str = "SELECT text, id FROM name WHERE text = ANY($1::text[])";
/// In order, so that two processes that add the same names wait for each other instead of standing in each other's way.
const ADD_NAMES: &str =
    "INSERT INTO name (text) SELECT wanted FROM (SELECT DISTINCT wanted FROM unnest($1::text[]) AS wanted ORDER BY 1) AS n
     ON CONFLICT (text) DO NOTHING";
/// The last lock that a transaction takes, held until its commit is answered: so commits become visible in the order of their sequences, and
/// whoever sees a sequence sees every commit up to it.
const RAISE: &str = "UPDATE store SET sequence = sequence + 1 RETURNING sequence";
/// One command of a realm at a time. Held to the end of the transaction; the server gives it back when the session ends, however it ends.
const LOCK: &str = "SELECT pg_advisory_xact_lock($1::int4, $2::int4)";

/// Marks advisory locks as ours: "FLED" for realms, the next number for writes of API callers.
const REALMS: i32 = 0x464C_4544;
const WRITES: i32 = REALMS + 1;

/// A connection in use. When it is dropped with a transaction open (its command failed, or its caller went away), the connection is ended,
/// and the server undoes the transaction.
pub(super) struct Session {
    object: Option<Object>,
    open: bool,
    names: HashMap<String, i64>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open
            && let Some(object) = self.object.take()
        {
            drop(Object::take(object));
        }
    }
}

impl Session {
    pub(super) async fn new(pool: &Pool) -> Result<Self, Failure> {
        Ok(Self { object: Some(pool.get().await?), open: false, names: HashMap::new() })
    }

    fn client(&self) -> Result<&Object, Failure> {
        self.object.as_ref().ok_or_else(|| StoreError::Other("the connection is gone".into()).into())
    }

    /// Begins a transaction that knows the ids of these names. Names are added before it, in a commit of their own: they are only ever
    /// added, so nothing is wrong with one that no command came to use.
    pub(super) async fn begin(&mut self, names: &[&str]) -> Result<(), Failure> {
        let wanted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let known = self.prepare(NAMES).await?;
        self.open = true;
        let client = self.client()?;
        let wanted_value: [&(dyn ToSql + Sync); 1] = [&wanted];
        let (begun, rows) = tokio::join!(biased; client.batch_execute("BEGIN"), client.query(&known, &wanted_value));
        begun?;
        self.names = rows?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, tokio_postgres::Error>>()?;
        if wanted.iter().any(|name| !self.names.contains_key(name)) {
            self.rollback().await?;
            self.ask(ask!(ADD_NAMES, wanted.clone())).await?;
            self.open = true;
            self.client()?.batch_execute("BEGIN").await?;
            let rows = self.ask(ask!(NAMES, wanted)).await?;
            self.names = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, tokio_postgres::Error>>()?;
        }
        Ok(())
    }

    /// Begins a transaction that sees one moment and changes nothing.
    pub(super) async fn begin_moment(&mut self) -> Result<(), Failure> {
        self.open = true;
        Ok(self.client()?.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// The id of a name that the transaction was begun with.
    pub(super) fn name(&self, text: &str) -> Result<i64, Failure> {
        self.names.get(text).copied().ok_or_else(|| StoreError::Other(format!("the name {text} was not asked for")).into())
    }

    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        let result = self.client()?.batch_execute("COMMIT").await;
        match result {
            Ok(()) => {
                self.open = false;
                Ok(())
            }
            Err(error) => Err(of_commit(&error)),
        }
    }

    pub(super) async fn rollback(&mut self) -> Result<(), Failure> {
        self.client()?.batch_execute("ROLLBACK").await?;
        self.open = false;
        Ok(())
    }

    async fn prepare(&self, sql: &'static str) -> Result<Statement, Failure> {
        Ok(self.client()?.prepare_cached(sql).await?)
    }

    /// Runs statements that are made up as they are needed, and answer nothing.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client()?.batch_execute(sql).await?)
    }

    /// Prepares a statement that is made up as it is needed, for [`Session::fetch`].
    pub(super) async fn prepare_once(&self, sql: &str) -> Result<Statement, Failure> {
        Ok(self.client()?.prepare(sql).await?)
    }

    /// Runs a prepared statement without parameters.
    pub(super) async fn fetch(&self, statement: &Statement) -> Result<Vec<Row>, Failure> {
        Ok(self.client()?.query(statement, &[]).await?)
    }

    /// Runs a statement with one text as its parameter; answers how many rows it changed, or why the server did not take it.
    pub(super) async fn add(&self, sql: &str, text: &String) -> Result<Result<u64, tokio_postgres::Error>, Failure> {
        Ok(self.client()?.execute(sql, &[text]).await)
    }

    /// Runs one statement.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Vec<Row>, Failure> {
        let [rows] = self.all([ask]).await?;
        Ok(rows)
    }

    /// Runs statements in order, all of them sent at once; the first error counts.
    pub(super) async fn all<const N: usize>(&self, asks: [Ask; N]) -> Result<[Vec<Row>; N], Failure> {
        let mut answers = self.run(asks.into()).await?.into_iter();
        Ok(std::array::from_fn(|_| answers.next().unwrap_or_default()))
    }

    /// Like [`Session::all`], for as many statements as there are.
    pub(super) async fn run(&self, asks: Vec<Ask>) -> Result<Vec<Vec<Row>>, Failure> {
        let client = self.client()?;
        // What is not prepared yet would come to its turn later than what is.
        let mut statements = Vec::with_capacity(asks.len());
        for ask in &asks {
            statements.push(self.prepare(ask.sql).await?);
        }
        let mut running: Vec<_> = statements
            .iter()
            .zip(&asks)
            .map(|(statement, ask)| {
                Some(Box::pin(async move {
                    let values: Vec<&(dyn ToSql + Sync)> = ask.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
                    client.query(statement, &values).await
                }))
            })
            .collect();
        let mut answers: Vec<Vec<Row>> = running.iter().map(|_| Vec::new()).collect();
        // A statement is sent when it is polled for the first time: in order.
        poll_fn(|context| {
            let mut waiting = false;
            for (place, slot) in running.iter_mut().enumerate() {
                let Some(future) = slot else { continue };
                match Pin::new(future).poll(context) {
                    Poll::Pending => waiting = true,
                    Poll::Ready(Ok(rows)) => {
                        answers[place] = rows;
                        *slot = None;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            if waiting { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await?;
        Ok(answers)
    }
}

/// Waits until no other command of the realm is under way.
pub(super) fn lock_realm(realm: i64) -> Ask {
    ask!(LOCK, REALMS, narrow(realm))
}

/// Waits until no other write of an API caller under this key is under way.
pub(super) fn lock_write(hash: i64) -> Ask {
    ask!(LOCK, WRITES, narrow(hash))
}

/// Two numbers that become one only wait for each other without need.
fn narrow(number: i64) -> i32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

pub(super) fn raise_sequence() -> Ask {
    ask!(RAISE)
}
