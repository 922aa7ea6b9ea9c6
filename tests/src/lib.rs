//! Harness of the tests that look at Fairlead as a whole: a real control plane, processes, clients, waiting.
//!
//! ```no_run
//! use fairlead_tests::{ControlPlane, TestNamespace};
//!
//! # async fn shown() -> anyhow::Result<()> {
//! let plane = ControlPlane::shared()?;
//! let namespace = TestNamespace::new(&plane, "wrong-secret").await?;
//! let answer = plane.kubectl(["get", "serviceaccounts", "-n", namespace.name()]).await?;
//! assert_eq!(answer.code, Some(0), "{answer}");
//! # Ok(())
//! # }
//! ```
//!
//! What holds here:
//! - One control plane serves a whole run: nextest runs `tools/test-setup` once, which starts it, and it ends when
//!   nextest does. A test that must stop or freeze an API server starts a [`PrivateControlPlane`].
//! - A namespace per test; nobody waits for its deletion.
//! - Tests wait on state with [`wait_until`], which tells the last state seen when it gives up; they never sleep.
//! - It knows nothing of Fairlead's rooms: the binary is a process, its resources are what the API server shows.

mod audit;
pub mod browser;
mod control_plane;
mod launch;
mod namespace;
mod node;
pub mod orders;
mod pki;
mod process;
pub mod proxy;
pub mod relay;
pub mod soak;
pub mod stage;
pub mod two_systems;
mod wait;

pub use audit::{AuditEvent, AuditLog, AuditMark};
pub use control_plane::{ControlPlane, KubectlOutput};
pub use launch::{Assets, PrivateControlPlane, Running};
pub use namespace::TestNamespace;
pub use node::{Cluster, Programs};
pub use process::{Process, beside_test, fairlead, free_port, python};
pub use wait::{Seen, wait_until};
