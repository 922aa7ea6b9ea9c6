//! How many requests a Connector sent today, kept in the store: a restart does not give the day anew, and processes that share an account learn of
//! each other's requests.
//!
//! Each adds what it sent since it last did, and takes what comes out for the count. A process that is killed forgets what it sent since.

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

/// Of processes that add at the same moment one comes through each time; who does not by then adds the next time.
const ATTEMPTS: usize = 20;

/// The note of a Connector.
const NOTE: &str = "requests";

/// Adds what was sent to the note, and takes in what others added.
pub(crate) async fn keep(store: &dyn Store, connector: &ObjectKey, system: &dyn System) -> Result<(), StoreError> {
    let realm = realm::of_connector(connector);
    for _ in 0..ATTEMPTS {
        let fresh = system.unnoted();
        let note = store.note(&realm, NOTE).await?;
        let all = note.as_ref().and_then(|note| Usage::deserialize(note).ok()).unwrap_or_default().and(fresh);
        if fresh.requests == 0 || store.replace_note(&realm, NOTE, note.as_ref(), &json!(all)).await? {
            system.noted(all, fresh);
            return Ok(());
        }
    }
    Ok(())
}
