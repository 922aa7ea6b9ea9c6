//! Whether this process itself is alive and ready. Liveness follows our own loops, never the API server: restarting helps only against
//! what hangs in here. Readiness follows the caches, not the lease, so that standbys count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A loop that has not come round for so long hangs. Every loop comes round at least every few seconds.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What the probes ask.
#[derive(Debug, Default)]
pub struct Health {
    beats: Mutex<BTreeMap<&'static str, Instant>>,
    ready: AtomicBool,
}

impl Health {
    /// The loop of this name has come round.
    pub(crate) fn beat(&self, name: &'static str) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
    }

    /// The loop of this name ends as it should.
    pub(crate) fn retire(&self, name: &'static str) {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The caches hold the world, or do not.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether the caches hold the world.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The loops that hang; none is good.
    #[must_use]
    pub fn stuck(&self) -> Vec<&'static str> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.iter().filter(|(_, beat)| beat.elapsed() >= STUCK_AFTER).map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_come_round_is_named() {
        let health = Health::default();
        health.beat("main");
        health.beat("lease");
        assert!(health.stuck().is_empty());
        tokio::time::advance(STUCK_AFTER).await;
        health.beat("main");
        assert_eq!(health.stuck(), ["lease"]);
        health.retire("lease");
        assert!(health.stuck().is_empty());
    }
}
