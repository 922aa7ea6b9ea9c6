//! Named places at which a test may have the process die, so that every boundary inside and between the commands is proven.
//!
//! The environment variable `FAIRLEAD_STORE_CRASH=<command>/<step>:<nth pass>` (say `absorb/rows:2`) aborts the process there; without it
//! a place costs one load and a comparison. [`points`] lists every place, so that a test can walk all of them and fail when one is never reached.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "FAIRLEAD_STORE_CRASH";

/// A command, as far as crash points are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the trait's commands")]
pub enum Command {
    Lease,
    Release,
    Absorb,
    Merge,
    Split,
    Claim,
    Intend,
    Settle,
    Enqueue,
    RequestReads,
    CloseDeadLetters,
    Sweep,
    Reindex,
    SetCheckpoint,
    PutNote,
    Forget,
    Import,
    BeginWrite,
    FinishWrite,
    AbandonWrite,
}

/// A place inside a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The command was taken from the queue; no transaction yet.
    Received,
    /// The transaction has begun.
    Begun,
    /// The lease was checked.
    Fenced,
    /// Some of the records, results or keys are written.
    Partly,
    /// All of the records, results or keys are written.
    Rows,
    /// Dead letters are written.
    DeadLetters,
    /// Requests to read again, and the checkpoint, are written.
    Reads,
    /// The books are written; the command is complete and not committed.
    Books,
    /// The transaction is committed, the caller knows nothing yet.
    Committed,
    /// The caller was answered.
    Answered,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 20] = [
        Self::Lease,
        Self::Release,
        Self::Absorb,
        Self::Merge,
        Self::Split,
        Self::Claim,
        Self::Intend,
        Self::Settle,
        Self::Enqueue,
        Self::RequestReads,
        Self::CloseDeadLetters,
        Self::Sweep,
        Self::Reindex,
        Self::SetCheckpoint,
        Self::PutNote,
        Self::Forget,
        Self::Import,
        Self::BeginWrite,
        Self::FinishWrite,
        Self::AbandonWrite,
    ];

    /// The name in [`VARIABLE`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Release => "release",
            Self::Absorb => "absorb",
            Self::Merge => "merge",
            Self::Split => "split",
            Self::Claim => "claim",
            Self::Intend => "intend",
            Self::Settle => "settle",
            Self::Enqueue => "enqueue",
            Self::RequestReads => "request-reads",
            Self::CloseDeadLetters => "close-dead-letters",
            Self::Sweep => "sweep",
            Self::Reindex => "reindex",
            Self::SetCheckpoint => "set-checkpoint",
            Self::PutNote => "put-note",
            Self::Forget => "forget",
            Self::Import => "import",
            Self::BeginWrite => "begin-write",
            Self::FinishWrite => "finish-write",
            Self::AbandonWrite => "abandon-write",
        }
    }

    /// The steps that lie between this command's begin and its commit.
    #[must_use]
    pub const fn inner_steps(self) -> &'static [Step] {
        match self {
            Self::Absorb => &[Step::Fenced, Step::Partly, Step::Rows, Step::DeadLetters, Step::Reads],
            Self::Merge => &[Step::Fenced, Step::Partly, Step::Rows, Step::Reads],
            Self::Split => &[Step::Partly, Step::Rows, Step::Reads],
            Self::Claim | Self::Intend | Self::Settle => &[Step::Fenced, Step::Partly, Step::Rows],
            Self::Enqueue | Self::Reindex | Self::Forget | Self::Import => &[Step::Partly, Step::Rows],
            Self::Lease
            | Self::Release
            | Self::RequestReads
            | Self::CloseDeadLetters
            | Self::Sweep
            | Self::SetCheckpoint
            | Self::PutNote
            | Self::BeginWrite
            | Self::FinishWrite
            | Self::AbandonWrite => &[Step::Rows],
        }
    }
}

impl Step {
    const AROUND: [Self; 5] = [Self::Received, Self::Begun, Self::Books, Self::Committed, Self::Answered];

    /// The name in [`VARIABLE`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Begun => "begun",
            Self::Fenced => "fenced",
            Self::Partly => "partly",
            Self::Rows => "rows",
            Self::DeadLetters => "dead-letters",
            Self::Reads => "reads",
            Self::Books => "books",
            Self::Committed => "committed",
            Self::Answered => "answered",
        }
    }
}

/// Every place, in the form that [`VARIABLE`] takes.
#[must_use]
pub fn points() -> Vec<String> {
    let steps =
        |command: Command| Step::AROUND.iter().chain(command.inner_steps()).map(move |step| format!("{}/{}", command.name(), step.name()));
    Command::ALL.into_iter().flat_map(steps).collect()
}

/// Dies if the environment names this place and it is passed for the named time.
pub(crate) fn reach(command: Command, step: Step) {
    static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (place, pass) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Chosen { place: place.to_owned(), left: AtomicU64::new(pass.parse().unwrap_or(1)) })
    });
    if let Some(Chosen { place, left }) = chosen
        && place.split_once('/') == Some((command.name(), step.name()))
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

/// Where the process is to die, and how many passes are left until then.
struct Chosen {
    place: String,
    left: AtomicU64,
}
