//! What is of no use any more goes, a little at a time: dead letters some time after they were closed, with the payloads that they hold, and values
//! that did not count when they were kept long enough.

use crate::shared::Shared;
use fairlead_model::{Clock, Timestamp, realm};
use fairlead_store::{Store, StoreError, Sweep};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often is looked for what may go.
const EVERY: Duration = Duration::from_secs(600);
/// Letters that go in one transaction.
const STEP: usize = 500;

/// Removes what may go until the Integration stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = shared.now();
        let before = now.before(shared.program.unit.keep_letters);
        // Others that feed the same records keep their letters as long as they say.
        let own = realm::is_contract(&shared.realm).then(|| realm::prefix(&shared.integration));
        let sweep = Sweep { realm: shared.realm.clone(), participants: own, closed_before: before, max: STEP, now };
        let removed = remove(shared.around.store.as_ref(), &sweep, || shared.cancel.is_cancelled()).await;
        shared.store_result(&removed);
        if let Ok(removed @ 1..) = removed {
            shared.around.metrics.removed(&shared.integration.0, removed);
            tracing::info!(integration = %shared.integration, removed, "dead letters that were closed long ago were removed");
        }
    }
}

/// How often is looked for values that did not count and were kept long enough, where nothing runs that would remove them.
const VALUES_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Removes such values of all realms until the engine stops: those of what is paused, or gone and retained, are none the less somebody's.
pub(crate) async fn values(store: Arc<dyn Store>, clock: Arc<dyn Clock>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(VALUES_EVERY) => {}
        }
        if let Err(error) = expire(store.as_ref(), clock.now()).await {
            tracing::warn!(%error, "values that did not count could not be removed yet");
        }
    }
}

async fn expire(store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
    for realm in store.realms().await? {
        // Of letters nothing is known here: each Integration says how long they are kept.
        let (participants, closed_before) = (None, Timestamp(i64::MIN));
        store.sweep(&Sweep { realm, participants, closed_before, max: STEP, now }).await?;
    }
    Ok(())
}

/// Removes what may go, step by step; returns how many letters.
async fn remove(store: &dyn Store, sweep: &Sweep, stops: impl Fn() -> bool) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let step = store.sweep(sweep).await?;
        removed += step;
        if step < sweep.max as u64 || stops() {
            return Ok(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::{ErrorClass, ExternalId, RecordId};
    use fairlead_store::{
        Absorb, CloseDeadLetters, CloseReason, DeadLetterFilter, Fate, FieldChange, HISTORY_FOR, LeaseRequest, NewDeadLetter, SqliteStore,
        Stage,
    };

    #[tokio::test]
    async fn all_steps_are_taken_and_open_letters_stay() {
        let store = SqliteStore::open_in_memory().unwrap();
        let now = Timestamp(1_000_000);
        let request = LeaseRequest { keys: vec!["reader/a/b/crm".into()], holder: "t".into(), ttl: Duration::from_secs(1), now };
        let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
        let letter = |n: usize| NewDeadLetter {
            stage: Stage::Inbound,
            participant: "crm".into(),
            external_id: Some(ExternalId(format!("c{n}"))),
            record: None,
            original: "{}".into(),
            payload: None,
            class: ErrorClass::Data,
            reason: "ValidationFailed".into(),
            message: "name".into(),
            detail: None,
            field: None,
            attempts: 1,
            parent: None,
        };
        let dead_letters = (0..2 * STEP + 7).map(letter).collect();
        store.absorb(&Absorb { dead_letters, ..Absorb::empty("a/b", "crm", fence, now) }).await.unwrap();
        let ids: Vec<i64> = (1..=i64::try_from(2 * STEP + 2).unwrap()).collect();
        let close = CloseDeadLetters { ids, reason: CloseReason::Discarded, author: "mia".into(), now };
        store.close_dead_letters(&close).await.unwrap();
        let sweep = Sweep { realm: "a/b".into(), participants: None, closed_before: now, max: STEP, now };
        assert_eq!(remove(&store, &sweep, || false).await, Ok(0), "not before its time");
        let sweep = Sweep { closed_before: Timestamp(now.0 + 1), ..sweep };
        assert_eq!(remove(&store, &sweep, || false).await, Ok(2 * STEP as u64 + 2));
        let all = DeadLetterFilter { closed: true, max: 5000, ..DeadLetterFilter::default() };
        let left = store.dead_letters(&all).await.unwrap();
        assert!(left.len() == 5 && left.iter().all(|letter| letter.closed.is_none()), "{left:?}");
    }

    #[tokio::test]
    async fn values_of_the_past_go_where_nothing_runs() {
        let store = SqliteStore::open_in_memory().unwrap();
        let now = Timestamp(1_000_000);
        let request = LeaseRequest { keys: vec!["reader/a/b/crm".into()], holder: "t".into(), ttl: Duration::from_secs(1), now };
        let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
        let record = RecordId(uuid::Uuid::from_u128(7));
        let history = vec![FieldChange::of_existence(record, Fate::Conflict)];
        store.absorb(&Absorb { history, ..Absorb::empty("a/b", "crm", fence, now) }).await.unwrap();
        let left = async || store.history("a/b", record, now).await.unwrap().len();
        expire(&store, now.plus(HISTORY_FOR)).await.unwrap();
        assert_eq!(left().await, 1);
        expire(&store, Timestamp(now.plus(HISTORY_FOR).0 + 1)).await.unwrap();
        assert_eq!(left().await, 0);
    }
}
