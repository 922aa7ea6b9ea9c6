//! What is known of one record, for people: its fields and their history, where it stands, and what waits. Works beside a running engine, on the
//! store alone; so nothing is known here of what may be shown, and whoever shows values decides that.

use crate::names::{self, NameError};
use fairlead_model::{ExternalId, RecordId, Timestamp};
use fairlead_store::{DeadLetter, DeadLetterFilter, Known, PastChange, Store, StoreError};
use std::collections::BTreeMap;

/// So many open letters of a record are told.
const LETTERS: usize = 100;

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
    /// What became of its fields, the newest first.
    pub history: Vec<PastChange>,
    /// Its open dead letters.
    pub letters: Vec<DeadLetter>,
}

/// The records of this name: several only where Integrations that keep their own records know the same vendor's id. With `integration`
/// (`namespace/name`), the one that it keeps or feeds now.
///
/// # Errors
/// [`NameError::Integration`], and the store's.
pub async fn find(store: &dyn Store, integration: Option<&str>, name: &Name, now: Timestamp) -> Result<Vec<Found>, NameError> {
    let mut found = Vec::new();
    let places = match integration {
        Some(integration) => vec![names::integration(store, integration).await?],
        None => store.realms().await?.iter().map(|realm| names::Place::whole(realm)).collect(),
    };
    for place in places {
        let realm = &place.realm;
        let known = match name {
            Name::Canonical(id) => store.known_by_id(realm, &[*id]).await?,
            Name::External { participant, id } => {
                store.known_by_external(realm, &place.full_name(participant), std::slice::from_ref(id)).await?
            }
        };
        let Some(mut known) = known.into_iter().flatten().next() else { continue };
        if let Some(survivor) = known.merged_into
            && let Some(lives) = store.known_by_id(realm, &[survivor]).await?.pop().flatten()
        {
            known = lives;
        }
        let history = store.history(realm, known.record.id, now).await?;
        let letters = letters(store, realm, &known).await?;
        found.push(Found { realm: realm.clone(), known, history, letters });
    }
    Ok(found)
}

/// The open letters about a record: by its id, or by a participant's id of it. The newest first.
async fn letters(store: &dyn Store, realm: &str, known: &Known) -> Result<Vec<DeadLetter>, StoreError> {
    let of = |filter: DeadLetterFilter| DeadLetterFilter { realm: Some(realm.to_owned()), max: LETTERS, ..filter };
    let by_id = of(DeadLetterFilter { record: Some(known.record.id), ..DeadLetterFilter::default() });
    let mut letters: BTreeMap<i64, DeadLetter> = store.dead_letters(&by_id).await?.into_iter().map(|dead| (dead.id, dead)).collect();
    for identity in &known.identities {
        let (participant, text) = (Some(identity.participant.clone()), Some(identity.external_id.to_string()));
        let found = store.dead_letters(&of(DeadLetterFilter { participant, text, ..DeadLetterFilter::default() })).await?;
        let its = found.into_iter().filter(|dead| dead.letter.external_id.as_ref() == Some(&identity.external_id));
        letters.extend(its.map(|dead| (dead.id, dead)));
    }
    Ok(letters.into_values().rev().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::ErrorClass;
    use fairlead_model::hash::ValueHash;
    use fairlead_model::state::{FieldState, ParticipantState};
    use fairlead_store::{Absorb, AbsorbRecord, Fate, FieldChange, LeaseRequest, NewDeadLetter, Record, RecordChange, SqliteStore, Stage};
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
        let history = vec![FieldChange::of_existence(id, Fate::Conflict)];
        store.absorb(&Absorb { records, history, ..Absorb::empty(realm, participant, fence, NOW) }).await.unwrap();
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
        let europe = Some("europe/customers");
        assert_eq!(realms(europe, &external("crm")).await, ["europe/customers"]);
        let golden = "contract:contracts/customer";
        store.put_note(golden, "of/europe/customers/participants", &json!([])).await.unwrap();
        assert_eq!(realms(europe, &external("crm")).await, [golden], "what it feeds now");
        assert_eq!(realms(europe, &external("europe/customers/crm")).await, [golden]);
        assert!(realms(europe, &external("erp")).await.is_empty());
        assert!(find(&store, Some("north/customers"), &external("crm"), NOW).await.is_err(), "nobody is called so");
        let found = find(&store, None, &Name::Canonical(ID), NOW).await.unwrap().remove(0);
        assert_eq!((found.history.len(), found.letters.len()), (1, 0));
        let letter = |participant: &str, external: Option<&str>, record: Option<RecordId>| NewDeadLetter {
            stage: if record.is_some() { Stage::Delivery } else { Stage::Inbound },
            participant: participant.into(),
            external_id: external.map(|id| ExternalId(id.into())),
            record,
            original: "{}".into(),
            payload: None,
            class: ErrorClass::Data,
            reason: "ValidationFailed".into(),
            message: "001 is not right".into(),
            detail: None,
            field: None,
            attempts: 1,
            parent: None,
        };
        let crm = "europe/customers/crm";
        let dead_letters = vec![
            letter(crm, Some("001"), None),
            letter(crm, Some("0012"), None),
            letter("north/customers/erp", None, Some(ID)),
            letter("north/customers/erp", Some("001"), None),
        ];
        let request = LeaseRequest { keys: vec!["reader".into()], holder: "test".into(), ttl: Duration::from_secs(60), now: NOW };
        let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
        store.absorb(&Absorb { dead_letters, ..Absorb::empty(golden, crm, fence, NOW) }).await.unwrap();
        let found = find(&store, None, &Name::Canonical(ID), NOW).await.unwrap().remove(0);
        let told: Vec<_> = found.letters.iter().map(|dead| (dead.letter.participant.as_str(), dead.letter.record.is_some())).collect();
        assert_eq!(told, [("north/customers/erp", true), (crm, false)]);
    }
}
