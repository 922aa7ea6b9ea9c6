//! Names that people give, compared with what the store knows.

use fairlead_store::{Store, StoreError};
use serde::Deserialize;
use std::collections::BTreeSet;

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No such Integration.
    #[error("the state holds nothing of an Integration {given:?}; {}", listed(.known))]
    Integration {
        /// What was given.
        given: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No such participant.
    #[error("{integration} has no participant {given:?}; {}", listed(.known))]
    Participant {
        /// The Integration.
        integration: String,
        /// What was given.
        given: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What there is, in words.
pub(crate) fn listed(known: &[String]) -> String {
    if known.is_empty() { "there is none".to_owned() } else { format!("there is {}", known.join(", ")) }
}

/// Sees to it that the state holds something of an Integration.
///
/// # Errors
/// [`NameError::Integration`], and the store's.
pub async fn integration(store: &dyn Store, given: &str) -> Result<(), NameError> {
    let known = store.realms().await?;
    if known.iter().any(|realm| realm == given) { Ok(()) } else { Err(NameError::Integration { given: given.to_owned(), known }) }
}

/// Sees to it that a participant is one of an Integration, or was.
///
/// # Errors
/// As [`integration`], and [`NameError::Participant`].
pub async fn participant(store: &dyn Store, realm: &str, given: &str) -> Result<(), NameError> {
    integration(store, realm).await?;
    let note = store.note(realm, PARTICIPANTS).await?;
    let mut known: BTreeSet<String> = note.and_then(|note| BTreeSet::deserialize(note).ok()).unwrap_or_default();
    known.extend(store.checkpoints(realm).await?.into_iter().map(|standing| standing.participant));
    if known.contains(given) {
        return Ok(());
    }
    Err(NameError::Participant { integration: realm.to_owned(), given: given.to_owned(), known: known.into_iter().collect() })
}

/// The note that lists the participants that an Integration ever had.
pub(crate) const PARTICIPANTS: &str = "participants";
