//! The API gateway: serves contracts over HTTP, from units, with records that its backends give.
//!
//! A request passes, in this order: path and host, method, access token, consumer and rate, body, contract, backend. What is wrong is told as
//! RFC 9457 problem details that name the place and never repeat a value. Only declared fields enter and leave.
//!
//! **Flow.** [`Gateway::apply`] compiles units aside and swaps an immutable snapshot; requests take the snapshot once and hold no lock.
//! [`Gateway::reports`] acknowledges a digest after the swap, never before.
//! **Guarantees.** A unit that cannot be served leaves its last good one serving. A write runs to its end even if its caller is gone, and its
//! answer is kept under its Idempotency-Key before it is given; while it runs, and when its outcome is open, no other request takes its key.
//! Draining answers what was asked.
//! **Caveats.** Rates are counted per process: N replicas admit up to N times the rate.
//!
//! This room knows contracts, tokens and HTTP. It must not know the store, the engine, mappings, vendors or Kubernetes: records come through
//! [`Backend`], remembered answers through [`IdempotencyLog`], issuers' keys through [`KeyFetcher`], which keeps to the egress rules.

mod auth;
mod backend;
mod decode;
mod gateway;
mod handle;
mod idempotency;
pub mod issuer;
mod limits;
mod metrics;
mod openapi;
mod page_token;
mod problem;
mod request;
mod route;
mod serve;
mod shape;
mod table;
mod tls;

pub use auth::{KeyFetcher, KeyOptions};
pub use backend::{Backend, BackendError, Backends, Call, Filter, ListQuery, Page, Record, Update};
pub use decode::MAX_DEPTH;
pub use gateway::{Gateway, Options, Parts, Reports};
pub use idempotency::{Answer, Begin, IdempotencyLog, MAX_KEY, Scope};
pub use metrics::Metrics;
pub use problem::{Kind, Problem, TYPE_BASE};
pub use request::TraceContext;
pub use serve::{Drained, Server, ServerLimits};
pub use tls::{CertificateFiles, CertificateStatus, Certificates, TlsError};
