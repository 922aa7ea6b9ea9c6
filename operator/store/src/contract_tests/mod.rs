//! What every implementation of [`Store`](crate::Store) must do, as a library: an implementation's tests call [`run_all`] with a function
//! that makes an empty store.
//!
//! Each case is one property on a store of its own. It speaks only through the trait, so nothing here knows how a store stores. A case
//! that fails panics; its name is printed before it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "this is test code that is a library")]

pub mod archive;
pub mod books;
mod cases;
#[cfg(feature = "test-server")]
pub mod server;
pub mod world;

use crate::Store;
use std::pin::Pin;
use std::sync::Arc;

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One property: its name, and the test of it on an empty store.
pub struct Case {
    /// A sentence.
    pub name: &'static str,
    run: fn(Arc<dyn Store>) -> Run,
}

impl Case {
    /// Runs the case on `store`, which must be empty.
    pub async fn run(&self, store: Arc<dyn Store>) {
        (self.run)(store).await;
    }
}

/// Every case.
#[must_use]
pub fn all() -> Vec<Case> {
    cases::all()
}

/// Runs every case, each on a store that `make` makes.
pub async fn run_all(make: impl AsyncFn() -> Arc<dyn Store>) {
    for case in all() {
        println!("contract: {}", case.name);
        case.run(make().await).await;
    }
}
