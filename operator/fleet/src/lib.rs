//! How a process that plans and the workers that run its units talk to each other: units go out on a stream, reports come back.
//!
//! # Flow
//! A worker asks the planner for its units and keeps the answer open: one JSON document per line, first everything, then what changes, and a
//! beat every few seconds where nothing does ([`message`]). It runs them, and posts what it has to report ([`worker`]). The planner makes one
//! report of those of all workers ([`merge`]) and serves both ([`planner`]).
//!
//! # Guarantees
//! A worker takes over a whole set of units or none: a stream that breaks off in the middle of one changes nothing, and while the planner is away its
//! last good units go on. A stream is ended after some minutes, and another one begun: a token that is good no more tells nothing new. A peer that is gone without a word is noticed by the missing beats, from either side. Nobody who was not admitted
//! learns of a unit. Where tokens are bound to pods, none reports under the name of another's worker. Units name Secrets; what these hold is never sent.
//!
//! # Assumptions
//! One process plans at a time. TLS is the business of what lies in between; a worker speaks plain HTTP to another machine only if told so.
//!
//! # Caveats
//! A worker that starts while the planner is away has nothing to run until it is back.
//!
//! This room must not know Kubernetes, vendors or mappings, nor how units are made or run.

pub mod merge;
pub mod message;
pub mod planner;
pub mod worker;

pub use planner::{Admission, Bearer, Planner, Refusal, SharedToken};
pub use worker::{Follower, Link};

/// The audience of the tokens by which workers of a cluster are known.
pub const AUDIENCE: &str = "fairlead-workers";

/// The path of the units.
pub(crate) const UNITS: &str = "/workers/v1/units";
/// The path of the reports.
pub(crate) const REPORTS: &str = "/workers/v1/reports";
