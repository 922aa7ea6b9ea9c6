//! Waiting for a state of the world, with a deadline and a message that is enough to start from when it is missed.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::bail;

/// How often a state is looked at; short against every deadline, long against the cost of a look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What one look at the world showed.
#[derive(Debug)]
pub enum Seen<T> {
    /// The awaited state, with what the caller wants to know of it.
    Yes(T),
    /// Something else: what it was, in words for the failure message.
    NotYet(String),
}

impl Seen<()> {
    /// `Yes` when `reached`, else `NotYet` with what was seen instead.
    pub fn when(reached: bool, seen: impl Display) -> Self {
        if reached { Self::Yes(()) } else { Self::NotYet(seen.to_string()) }
    }
}

/// Looks again and again until the state named by `what` is reached, and returns what the look yielded.
///
/// An error of a look counts as not yet reached (the thing looked at may not be up), and is told when the deadline
/// passes. A level is awaited, not an edge: what was true only between two looks is not seen.
///
/// # Errors
/// When `deadline` passes: names what was awaited and what was seen last.
pub async fn wait_until<T, F>(what: &str, deadline: Duration, mut look: F) -> anyhow::Result<T>
where
    F: AsyncFnMut() -> anyhow::Result<Seen<T>>,
{
    let started = Instant::now();
    let mut last = "nothing yet: the first look did not come back".to_owned();
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(Seen::Yes(found))) => return Ok(found),
            Ok(Ok(Seen::NotYet(seen))) => last = seen,
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        // Asked of the clock, not of the timeout, which lets a look that is ready at once through for ever.
        if started.elapsed() >= deadline {
            bail!("waited {deadline:?} for {what}; last seen: {last}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
