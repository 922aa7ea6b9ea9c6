//! The runtime as the controller sees it: units in, reports out. The engine in this process is one.

use std::sync::Arc;

use async_trait::async_trait;
use fairlead_engine::Engine;
use fairlead_model::report::Reports;
use fairlead_model::unit::Units;
use tokio::sync::watch;

/// Runs units and reports on them.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Makes `units` what runs. May take as long as what is in flight takes to settle.
    async fn apply(&self, units: &Units);
    /// Reports, renewed a few times a second.
    fn reports(&self) -> watch::Receiver<Arc<Reports>>;
    /// Stops everything after what is in flight has settled.
    async fn stop(&self);
}

#[async_trait]
impl Runtime for Engine {
    async fn apply(&self, units: &Units) {
        Engine::apply(self, units).await;
    }

    fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        Engine::reports(self)
    }

    async fn stop(&self) {
        Engine::stop(self).await;
    }
}
