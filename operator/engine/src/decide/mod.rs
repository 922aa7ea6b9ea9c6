//! The decisions of the engine: pure functions from what was read or claimed, and what is known, to what should happen.
//!
//! No I/O, no clock, no randomness: ids and moments come in as arguments, so a decision can be repeated and tested as a table.

pub mod cursor;
pub mod difference;
pub mod direct;
pub mod drift;
pub mod guard;
pub mod inbound;
pub mod merge;
pub mod outbound;
pub mod ownership;
pub mod priority;
pub mod rollout;
pub mod share;
pub mod split;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a world for tests")]
pub(crate) mod sample;
