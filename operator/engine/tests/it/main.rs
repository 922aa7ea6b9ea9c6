//! The engine between scripted systems: what one bad record, one slow answer, one newcomer does to everything else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod vendor;
mod world;

mod corrections;
mod golden;
mod hierarchies;
mod ledger;
mod limits;
mod moving;
mod newcomers;
mod reading;
mod reconciling;
mod rollout;
mod sharing;
mod splitting;
mod writing;
