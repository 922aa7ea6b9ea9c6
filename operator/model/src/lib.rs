//! The words every room of Fairlead shares: documents without floats, decimals, field paths, ids, error classes, plan units, reports.
//!
//! This crate holds plain values and the small pure functions on them. It must not know Kubernetes, a vendor, a database or a clock
//! (the traits [`Clock`] and [`Random`] are how time and chance come in from outside).

pub mod decimal;
pub mod document;
pub mod error;
pub mod hash;
pub mod id;
pub mod metric;
pub mod packed;
pub mod path;
pub mod random;
pub mod realm;
pub mod report;
pub mod route;
pub mod schedule;
pub mod schema;
pub mod state;
pub mod time;
pub mod unit;

pub use decimal::Decimal;
pub use document::Document;
pub use error::{ErrorClass, RemoteError};
pub use id::{ExternalId, ObjectRef, RecordId};
pub use path::FieldPath;
pub use random::{Random, SystemRandom};
pub use smol_str::SmolStr;
pub use time::{Clock, SystemClock, Timestamp};
