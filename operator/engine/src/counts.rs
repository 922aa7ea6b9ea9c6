//! The counts that reports are made of, taken once for all that runs: one look at the store, however many Integrations there are.

use crate::news::Teller;
use fairlead_model::{Clock, Timestamp};
use fairlead_store::{Snapshot, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While the store stands still, the last count is good for so long: what waits falls due without a commit.
const RECOUNT_AFTER: Duration = Duration::from_secs(10);
/// A long lane takes long to count. It is not counted all the time, but rests so many times as long as a look took.
const REST: u32 = 40;

/// What the store held at one moment.
pub(crate) struct Counts {
    /// Its sequence right before.
    pub(crate) sequence: u64,
    at: Timestamp,
    realms: BTreeMap<String, Snapshot>,
}

impl Counts {
    /// Those of one realm, if it has any.
    pub(crate) fn of(&self, realm: &str) -> Option<&Snapshot> {
        self.realms.get(realm)
    }
}

/// The newest look, or why the store could not be looked at.
#[derive(Clone)]
pub(crate) struct Look {
    /// When it ended. While the store hangs, this stands still, and with it what is reported.
    pub(crate) at: Instant,
    /// What was seen; none before the first.
    pub(crate) seen: Option<Result<Arc<Counts>, StoreError>>,
}

/// Looks until nobody listens. Tells of every look, also where nothing moved: what is reported besides may have.
pub(crate) async fn look_forever(store: Arc<dyn Store>, clock: Arc<dyn Clock>, tell: Teller<Look>) {
    let mut last = None;
    loop {
        let began = Instant::now();
        let seen = look(&*store, clock.now(), last.take()).await;
        last = seen.as_ref().ok().cloned();
        tell.tell(|look| {
            *look = Look { at: Instant::now(), seen: Some(seen) };
            true
        });
        tokio::select! {
            biased;
            () = tell.closed() => return,
            () = tokio::time::sleep(rest(began.elapsed())) => {}
        }
    }
}

/// How long to wait after a look that took so long. A store that hung, or a process that stood still meanwhile, says nothing of what counting takes;
/// and whoever rests longer than the last count is good for would be taken for silent, and learn too late what others have read or hold.
fn rest(took: Duration) -> Duration {
    took.saturating_mul(REST).clamp(LOOK_EVERY, RECOUNT_AFTER)
}

async fn look(store: &dyn Store, now: Timestamp, last: Option<Arc<Counts>>) -> Result<Arc<Counts>, StoreError> {
    let sequence = store.sequence().await?;
    if let Some(last) = last.filter(|last| last.sequence == sequence && now.since(last.at) < RECOUNT_AFTER) {
        return Ok(last);
    }
    Ok(Arc::new(Counts { sequence, at: now, realms: store.snapshots(None, now).await? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_count_rests_longer_and_one_that_was_held_up_is_not_made_up_for() {
        for (took, rests) in [(0, 500), (10, 500), (100, 4_000), (400, 10_000), (1_000, 10_000), (49_000, 10_000)] {
            assert_eq!(rest(Duration::from_millis(took)), Duration::from_millis(rests), "after {took} ms");
        }
        assert_eq!(rest(Duration::MAX), RECOUNT_AFTER);
    }
}
