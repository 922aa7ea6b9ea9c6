//! The one writer: commands queue up, a thread runs what has gathered in one transaction, commits once and then answers all.
//!
//! A command that fails is undone alone (a savepoint); a commit that fails fails every command in it. Without the thread ([`run_group`]
//! on the caller's own thread) every command is a transaction of its own.

use super::error::name_disk;
use crate::StoreError;
use crate::crash::{Command, Step, reach};
use rusqlite::Connection;
use std::path::PathBuf;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// How many commands may wait; more make their callers wait.
const QUEUE: usize = 256;

/// How many commands one commit may carry.
const GROUP: usize = 64;

/// A command in the queue.
pub(super) trait Job: Send {
    fn command(&self) -> Command;
    /// Runs inside the transaction; keeps its result.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Answers the caller: with the result if the transaction was committed, else with what went wrong.
    fn answer(self: Box<Self>, transaction: Result<(), StoreError>);
}

struct Task<T, W> {
    command: Command,
    work: Option<W>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

/// A job that runs `work` with the connection and the sequence of its commit, and the place where its result arrives.
pub(super) fn job<T, W>(command: Command, work: W) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>)
where
    T: Send + 'static,
    W: FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Task { command, work: Some(work), result: None, reply }), answer)
}

impl<T, W> Job for Task<T, W>
where
    T: Send,
    W: FnOnce(&Connection, i64) -> Result<T, StoreError> + Send,
{
    fn command(&self) -> Command {
        self.command
    }

    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let mut statement = connection.prepare_cached("UPDATE store SET sequence = sequence + 1 RETURNING sequence")?;
        let result = statement.query_row([], |row| row.get(0)).map_err(StoreError::from).and_then(|sequence| work(connection, sequence));
        let done = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        done
    }

    fn answer(self: Box<Self>, transaction: Result<(), StoreError>) {
        let result = match (self.result, transaction) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Other("a command was not run".into())),
        };
        // A caller that no longer waits is no reason to worry: the command stands or fell by itself.
        let _ = self.reply.send(result);
    }
}

/// Runs `jobs` in one transaction and answers them.
pub(super) fn run_group(connection: &Connection, beside: Option<&std::path::Path>, mut jobs: Vec<Box<dyn Job>>) {
    let commands: Vec<Command> = jobs.iter().map(|job| job.command()).collect();
    commands.iter().for_each(|command| reach(*command, Step::Received));
    let transaction = run_transaction(connection, &mut jobs).map_err(|error| name_disk(error, beside));
    if transaction.is_ok() {
        commands.iter().for_each(|command| reach(*command, Step::Committed));
    } else if !connection.is_autocommit() {
        // The file stays as it was; a transaction left open would swallow every later command.
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }
    for job in jobs {
        let command = job.command();
        job.answer(transaction.clone());
        reach(command, Step::Answered);
    }
}

fn run_transaction(connection: &Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let execute = |sql: &str| -> Result<(), StoreError> {
        connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    execute("BEGIN IMMEDIATE")?;
    let alone = jobs.len() == 1;
    for job in jobs.iter_mut() {
        let command = job.command();
        reach(command, Step::Begun);
        if alone {
            // A command that is alone needs no savepoint: what undoes it undoes the transaction.
            if let Err(error) = job.run(connection) {
                if !connection.is_autocommit() {
                    execute("ROLLBACK")?;
                }
                return Err(error);
            }
        } else {
            execute("SAVEPOINT command")?;
            if let Err(error) = job.run(connection) {
                if connection.is_autocommit() {
                    // SQLite gave up the whole transaction (a full disk, say), and the commands before this one with it.
                    return Err(error);
                }
                execute("ROLLBACK TO command")?;
            }
            execute("RELEASE command")?;
        }
        reach(command, Step::Books);
    }
    execute("COMMIT")
}

/// The thread and the way to it.
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(connection: Connection, path: PathBuf) -> Result<Self, StoreError> {
        let (queue, mut waiting) = mpsc::channel::<Box<dyn Job>>(QUEUE);
        let work = move || {
            while let Some(first) = waiting.blocking_recv() {
                let mut group = vec![first];
                while group.len() < GROUP
                    && let Ok(next) = waiting.try_recv()
                {
                    group.push(next);
                }
                run_group(&connection, Some(&path), group);
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(work)
            .map_err(|error| StoreError::Other(format!("the writer's thread cannot be started: {error}")))?;
        Ok(Self { queue, thread })
    }

    pub(super) fn queue(&self) -> mpsc::Sender<Box<dyn Job>> {
        self.queue.clone()
    }

    /// Lets the thread finish what is queued, and waits for it.
    pub(super) fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}
