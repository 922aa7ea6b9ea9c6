//! How many requests a Connector sent today, kept in the store: a restart does not give the day anew, and processes that share an account learn of
//! each other's requests.
//!
//! Each adds what it sent since it last did, and takes what comes out for the count. Caveats: a process that is killed forgets what it sent since;
//! so may one of two that add at the same moment.

use crate::system::System;
use fairlead_model::realm;
use fairlead_model::unit::ObjectKey;
use fairlead_store::{Store, StoreError};
use fairlead_systems::Usage;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// So often what was sent is noted. What a process sent since is what its death makes forgotten.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

/// The note of a Connector.
const NOTE: &str = "requests";

/// Adds what was sent to the note, and takes in what others added.
pub(crate) async fn keep(store: &dyn Store, connector: &ObjectKey, system: &dyn System) -> Result<(), StoreError> {
    let realm = realm::of_connector(connector);
    let fresh = system.unnoted();
    let note = store.note(&realm, NOTE).await?;
    let all = note.and_then(|note| Usage::deserialize(note).ok()).unwrap_or_default().and(fresh);
    if fresh.requests > 0 {
        store.put_note(&realm, NOTE, &json!(all)).await?;
    }
    system.noted(all, fresh);
    Ok(())
}
