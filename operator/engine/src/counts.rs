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
            // A long lane takes long to count; it is not counted all the time.
            () = tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * 20)) => {}
        }
    }
}

async fn look(store: &dyn Store, now: Timestamp, last: Option<Arc<Counts>>) -> Result<Arc<Counts>, StoreError> {
    let sequence = store.sequence().await?;
    if let Some(last) = last.filter(|last| last.sequence == sequence && now.since(last.at) < RECOUNT_AFTER) {
        return Ok(last);
    }
    Ok(Arc::new(Counts { sequence, at: now, realms: store.snapshots(None, now).await? }))
}
