//! What is known of one record, for people: where it stands, what waits, and whose changes did not win. Works beside a running engine, on the
//! store alone; so nothing is known here of what may be shown, and whoever shows values decides that.

use fairlead_model::unit::ObjectKey;
use fairlead_model::{ExternalId, RecordId, Timestamp, realm};
use fairlead_store::{DeadLetter, DeadLetterFilter, Known, PastConflict, Store, StoreError};

/// So many open letters of a realm are looked at.
const LETTERS: usize = 10_000;

/// How a record is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// By its canonical id.
    Canonical(RecordId),
    /// By a participant's id of it.
    External {
        /// The participant: as in its Integration, or in full.
        participant: String,
        /// The vendor's id.
        id: ExternalId,
    },
}

/// A record, and what there is to say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whose record it is.
    pub realm: String,
    /// What is known of it; of its survivor, if it was merged.
    pub known: Known,
    /// Changes of fields that another owns, the newest first.
    pub conflicts: Vec<PastConflict>,
    /// Its open dead letters.
    pub letters: Vec<DeadLetter>,
}

/// The records of this name: several only where Integrations that keep their own records know the same vendor's id. With `integration`
/// (`namespace/name`), those that it keeps or feeds.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn Store, integration: Option<&str>, name: &Name, now: Timestamp) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    for realm in store.realms().await? {
        let golden = realm::is_contract(&realm);
        if integration.is_some_and(|integration| integration != realm) && !golden {
            continue;
        }
        let known = match name {
            Name::Canonical(id) => store.known_by_id(&realm, &[*id]).await?,
            Name::External { participant, id } => {
                let participant = match integration {
                    Some(integration) if golden => format!("{}{participant}", realm::prefix(&ObjectKey(integration.to_owned()))),
                    _ => participant.clone(),
                };
                store.known_by_external(&realm, &participant, std::slice::from_ref(id)).await?
            }
        };
        let Some(mut known) = known.into_iter().flatten().next() else { continue };
        if let Some(survivor) = known.merged_into
            && let Some(lives) = store.known_by_id(&realm, &[survivor]).await?.pop().flatten()
        {
            known = lives;
        }
        let conflicts = store.conflicts(&realm, known.record.id, now).await?;
        let filter = DeadLetterFilter { realm: Some(realm.clone()), max: LETTERS, ..DeadLetterFilter::default() };
        let mut letters = store.dead_letters(&filter).await?;
        letters.retain(|dead| concerns(dead, &known));
        found.push(Found { realm, known, conflicts, letters });
    }
    Ok(found)
}

/// Whether a letter is about this record: by its id, or by a participant's id of it.
fn concerns(dead: &DeadLetter, known: &Known) -> bool {
    let letter = &dead.letter;
    let held = known.identity(&letter.participant).map(|identity| &identity.external_id);
    letter.record == Some(known.record.id) || held.is_some() && held == letter.external_id.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::hash::ValueHash;
    use fairlead_model::state::{FieldState, ParticipantState};
    use fairlead_store::{Absorb, AbsorbRecord, Conflict, LeaseRequest, Record, RecordChange, SqliteStore};
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use uuid::Uuid;

    const ID: RecordId = RecordId(Uuid::from_u128(7));
    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    /// A store in which `participant` of `realm` shows a record under the id `external`.
    async fn absorb(store: &SqliteStore, realm: &str, participant: &str, id: RecordId, external: &str) {
        let key = format!("reader/{realm}/{participant}");
        let request = LeaseRequest { keys: vec![key], holder: "test".into(), ttl: Duration::from_secs(60), now: NOW };
        let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
        let document = json!({"name": "Acme"}).as_object().cloned().unwrap();
        let record = Record { id, version: 1, document, home: participant.into(), provenance: BTreeMap::new(), deleted_at: None };
        let field = FieldState { seen: Some(ValueHash(1)), ..FieldState::default() };
        let records = vec![AbsorbRecord {
            id,
            change: RecordChange::Insert { record, keys: Vec::new() },
            external_id: ExternalId(external.into()),
            state: ParticipantState { fields: BTreeMap::from([("name".into(), field)]), ..ParticipantState::default() },
            enqueue: Vec::new(),
            counts_as_changed: true,
        }];
        let conflicts = vec![Conflict::of_existence(id)];
        store.absorb(&Absorb { records, conflicts, ..Absorb::empty(realm, participant, fence, NOW) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_record_is_found_by_either_id_in_whichever_realm_it_stands() {
        let store = SqliteStore::open_in_memory().unwrap();
        absorb(&store, "europe/customers", "crm", RecordId(Uuid::from_u128(8)), "001").await;
        absorb(&store, "contract:contracts/customer", "europe/customers/crm", ID, "001").await;
        let external = |participant: &str| Name::External { participant: participant.into(), id: ExternalId("001".into()) };
        let realms = async |integration: Option<&str>, name: &Name| -> Vec<String> {
            find(&store, integration, name, NOW).await.unwrap().into_iter().map(|found| found.realm).collect()
        };
        assert_eq!(realms(None, &Name::Canonical(ID)).await, ["contract:contracts/customer"]);
        assert_eq!(realms(None, &external("crm")).await, ["europe/customers"]);
        assert_eq!(realms(None, &external("europe/customers/crm")).await, ["contract:contracts/customer"]);
        assert_eq!(realms(Some("europe/customers"), &external("crm")).await.len(), 2, "what it keeps and what it feeds");
        assert!(realms(Some("north/customers"), &external("crm")).await.is_empty());
        let found = find(&store, None, &Name::Canonical(ID), NOW).await.unwrap().remove(0);
        assert_eq!(found.conflicts.len(), 1);
    }
}
