//! The controller: watches the three kinds on an API server, plans, hands units to a runtime, and writes status.
//!
//! Flow: guarded watches fill a [`World`](fairlead_plan::World); a change is planned after a moment's wait; the units go to the runtime; what
//! the plan found and the runtime reports becomes status, written only where it says something new, and only by the replica that holds the
//! Kubernetes lease; so are the revisions of Integrations, as ControllerRevisions. All decisions are the planner's; this room moves them between the API server and the runtime.
//!
//! Guarantees: an object that cannot be decoded is named in its own status and harms no other; nothing is written besides the lease once
//! everything has settled; a replica that lost its lease, or was paused beyond it, writes nothing that takes effect; no call is without a
//! deadline; losing the API server or the lease stops neither the runtime nor the watches.
//!
//! Assumes: one runtime per process, in the same process. Caveats: an unreachable API server shows in `/readyz` only at the start; afterwards
//! the last known world holds. An Integration with `deletionPolicy: Delete` that is deleted while no operator runs leaves its state behind,
//! as `Retain` would: a world in which it is merely missing is no order to delete (apply it again, then delete it).
//!
//! This room must not know vendors, mappings or the store, and reads no Secret: [`ClusterSecrets`] hands them to the runtime by name.

mod cache;
mod client;
mod config_maps;
mod directory;
mod election;
mod events;
mod guarded;
mod health;
mod judge;
mod metrics;
mod operator;
mod revisions;
mod runtime;
mod secrets;
mod watches;
mod workers;
mod writer;

#[cfg(test)]
mod fake;

pub use client::{ConnectError, connect};
pub use directory::Directory;
pub use election::{LEASE_NAME, LeaseSettings};
pub use health::Health;
pub use metrics::Metrics;
pub use operator::{Operator, Settings};
pub use revisions::{HISTORY, Revision, revisions};
pub use runtime::Runtime;
pub use secrets::ClusterSecrets;
pub use workers::{Judged, WorkerTokens};

/// The field manager under which status is applied, and the name under which events are reported.
pub const FIELD_MANAGER: &str = "fairlead-controller";
