//! Names that people give, compared with what the store knows.

use fairlead_model::unit::ObjectKey;
use fairlead_model::{Timestamp, realm};
use fairlead_store::{Store, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
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

/// Where the records of an Integration lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The realm.
    pub realm: String,
    /// What the names of its participants begin with there; nothing where the realm is its own, or was named itself.
    prefix: String,
}

impl Place {
    /// A realm with all its participants.
    pub(crate) fn whole(realm: &str) -> Self {
        Self { realm: realm.to_owned(), prefix: String::new() }
    }

    /// Whether other Integrations feed the same records.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// The name in the realm of a participant that is called so, or by that name already.
    pub(crate) fn full_name(&self, called: &str) -> String {
        if called.starts_with(&self.prefix) { called.to_owned() } else { format!("{}{called}", self.prefix) }
    }

    /// How people call a participant of the realm here; `None` for another Integration's.
    pub(crate) fn called<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.prefix.as_str())
    }
}

/// A participant, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where it stands.
    pub place: Place,
    /// Its name in the realm.
    pub name: String,
}

impl Member {
    /// How people call it.
    pub(crate) fn called(&self) -> &str {
        self.place.called(&self.name).unwrap_or(&self.name)
    }
}

/// Where it is noted which realm each Integration keeps or feeds now, by its name: it may have moved, and what it left behind is still known.
/// No Integration is called so: theirs have one slash.
const NOW: &str = "fairlead/realms/now";

/// Takes note of the realm that an Integration keeps or feeds now.
pub(crate) async fn note_realm(store: &dyn Store, integration: &ObjectKey, realm: &str) -> Result<(), StoreError> {
    let noted = store.note(NOW, &integration.0).await?;
    // Of those that keep their own and never did otherwise, there is nothing to note.
    let known = noted.as_ref().and_then(Value::as_str).unwrap_or(&integration.0);
    if known != realm {
        store.put_note(NOW, &integration.0, &json!(realm)).await?;
    }
    Ok(())
}

/// Where the records of an Integration (`namespace/name`) lie: with the golden records that it feeds, or in its own realm; where it has been in
/// both, in those that it fed last. The name of a realm (`contract:namespace/name`) stands for all that feed it.
///
/// # Errors
/// [`NameError::Integration`], and the store's.
pub async fn integration(store: &dyn Store, given: &str) -> Result<Place, NameError> {
    let realms = store.realms().await?;
    let key = ObjectKey(given.to_owned());
    let now = store.note(NOW, given).await?.and_then(|now| now.as_str().map(str::to_owned));
    if now.as_deref() == Some(given) && realms.iter().any(|realm| realm == given) {
        return Ok(Place::whole(given));
    }
    let first = realms.iter().filter(|realm| now.as_ref() == Some(*realm));
    for realm in first.chain(&realms).filter(|realm| realm::is_contract(realm)) {
        if store.note(realm, &realm::note(realm, &key, PARTICIPANTS)).await?.is_some() {
            return Ok(Place { realm: realm.clone(), prefix: realm::prefix(&key) });
        }
    }
    if realms.iter().any(|realm| realm == given) {
        return Ok(Place::whole(given));
    }
    let mut known = BTreeSet::new();
    for realm in realms {
        if realm::is_contract(&realm) {
            let standing = store.checkpoints(&realm).await?;
            known.extend(standing.into_iter().map(|standing| realm::integration(&realm, &standing.participant).0));
        }
        known.insert(realm);
    }
    Err(NameError::Integration { given: given.to_owned(), known: known.into_iter().collect() })
}

/// Finds a participant of an Integration, one that is or was; by the name that its Integration gives it, or in full.
///
/// # Errors
/// As [`integration`], and [`NameError::Participant`].
pub(crate) async fn participant(store: &dyn Store, integration: &str, given: &str) -> Result<Member, NameError> {
    let place = self::integration(store, integration).await?;
    let name = place.full_name(given);
    let noted = realm::note(&place.realm, &realm::integration(&place.realm, &name), PARTICIPANTS);
    let note = store.note(&place.realm, &noted).await?;
    let mut known: BTreeSet<String> = note.and_then(|note| BTreeSet::deserialize(note).ok()).unwrap_or_default();
    known.extend(store.checkpoints(&place.realm).await?.into_iter().map(|standing| standing.participant));
    if known.contains(&name) {
        return Ok(Member { place, name });
    }
    let known = known.iter().filter_map(|name| place.called(name)).map(str::to_owned).collect();
    Err(NameError::Participant { integration: integration.to_owned(), given: given.to_owned(), known })
}

/// Checks names that letters are looked for by. Without an Integration a participant may be any realm's, by its name there.
///
/// # Errors
/// [`NameError`], with what there is; and the store's.
pub async fn check_letters(
    store: &dyn Store,
    integration: Option<&str>,
    participant: Option<&str>,
    now: Timestamp,
) -> Result<(), NameError> {
    let places = match integration {
        Some(given) => vec![self::integration(store, given).await?],
        None => store.realms().await?.iter().map(|realm| Place::whole(realm)).collect(),
    };
    let Some(given) = participant else { return Ok(()) };
    let mut known = BTreeSet::new();
    for place in places {
        // Whatever was read, written or refused stands in the books.
        let snapshot = store.snapshot(&place.realm, now).await?;
        let written = snapshot.lanes.into_iter().map(|lane| lane.target);
        let names = snapshot.sources.into_keys().chain(written).chain(snapshot.dead_letters.into_keys());
        known.extend(names.filter_map(|name| place.called(&name).map(str::to_owned)));
    }
    if known.contains(given) {
        return Ok(());
    }
    let integration = integration.map_or_else(|| "the state".to_owned(), str::to_owned);
    Err(NameError::Participant { integration, given: given.to_owned(), known: known.into_iter().collect() })
}

/// The note that lists the participants that an Integration ever had, and those of others that feed the same records; see
/// `Shared::note`.
pub(crate) const PARTICIPANTS: &str = "participants";

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::{ErrorClass, RemoteError};
    use fairlead_store::{Absorb, LeaseRequest, NewDeadLetter, SqliteStore, Stage};
    use serde_json::json;
    use std::time::Duration;

    const GOLDEN: &str = "contract:contracts/customer";

    #[tokio::test]
    async fn an_integration_that_moved_is_found_where_it_is_now() {
        let store = SqliteStore::open_in_memory().unwrap();
        let europe = ObjectKey("europe/customers".into());
        let next = "contract:contracts/customer-2";
        for realm in [GOLDEN, next, "europe/customers"] {
            store.put_note(realm, &realm::note(realm, &europe, PARTICIPANTS), &json!([])).await.unwrap();
        }
        let found = async || integration(&store, "europe/customers").await.unwrap().realm;
        assert_eq!(found().await, GOLDEN, "from before this was noted");
        for realm in [next, "europe/customers", GOLDEN] {
            note_realm(&store, &europe, realm).await.unwrap();
            assert_eq!(found().await, realm);
        }
        store.forget(GOLDEN).await.unwrap();
        assert_eq!(found().await, next, "what is forgotten is nowhere");
    }

    #[tokio::test]
    async fn an_integration_is_found_where_its_records_lie_and_its_participants_by_short_and_full_name() {
        let store = SqliteStore::open_in_memory().unwrap();
        store.put_note("sales/orders", PARTICIPANTS, &json!(["crm"])).await.unwrap();
        let all = json!(["europe/customers/crm", "north/customers/crm"]);
        for each in ["europe/customers", "north/customers"] {
            store.put_note(GOLDEN, &realm::note(GOLDEN, &ObjectKey(each.into()), PARTICIPANTS), &all).await.unwrap();
        }
        let place = integration(&store, "europe/customers").await.unwrap();
        assert_eq!((place.realm.as_str(), place.is_shared()), (GOLDEN, true));
        assert_eq!((place.called("europe/customers/crm"), place.called("north/customers/crm")), (Some("crm"), None));
        assert_eq!(integration(&store, "sales/orders").await.unwrap(), Place::whole("sales/orders"));
        assert_eq!(integration(&store, GOLDEN).await.unwrap(), Place::whole(GOLDEN));
        for (of, given, name) in [
            ("sales/orders", "crm", "crm"),
            ("europe/customers", "crm", "europe/customers/crm"),
            ("europe/customers", "europe/customers/crm", "europe/customers/crm"),
            (GOLDEN, "north/customers/crm", "north/customers/crm"),
        ] {
            assert_eq!(participant(&store, of, given).await.unwrap().name, name, "{of} {given}");
        }
        let refused = participant(&store, "europe/customers", "erp").await.unwrap_err().to_string();
        assert_eq!(refused, "europe/customers has no participant \"erp\"; there is crm");
        let refused = integration(&store, "europe/custom").await.unwrap_err().to_string();
        assert!(refused.ends_with("there is contract:contracts/customer, sales/orders"), "{refused}");
    }

    #[tokio::test]
    async fn letters_are_looked_for_by_names_that_are_there() {
        let store = SqliteStore::open_in_memory().unwrap();
        let now = Timestamp(1_000);
        let error = RemoteError::new(ErrorClass::Data, "ValidationFailed", "name");
        for (realm, participant) in [("sales/orders", "crm"), (GOLDEN, "europe/customers/erp"), (GOLDEN, "north/customers/shop")] {
            let request = LeaseRequest { keys: vec![format!("reader/{realm}/x")], holder: "t".into(), ttl: Duration::from_secs(1), now };
            let fence = store.lease(&request).await.unwrap().pop().flatten().unwrap();
            let dead_letters = vec![NewDeadLetter::of(Stage::Inbound, participant, "{}".into(), &error)];
            store.absorb(&Absorb { dead_letters, ..Absorb::empty(realm, participant, fence, now) }).await.unwrap();
        }
        for each in ["europe/customers", "north/customers"] {
            store.put_note(GOLDEN, &realm::note(GOLDEN, &ObjectKey(each.into()), PARTICIPANTS), &json!([])).await.unwrap();
        }
        let check = async |integration, participant| {
            check_letters(&store, integration, participant, now).await.map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        for (integration, participant) in [
            (None, None),
            (None, Some("crm")),
            (None, Some("north/customers/shop")),
            (Some("sales/orders"), Some("crm")),
            (Some("europe/customers"), None),
            (Some("europe/customers"), Some("erp")),
            (Some(GOLDEN), Some("north/customers/shop")),
        ] {
            assert_eq!(check(integration, participant).await, "", "{integration:?} {participant:?}");
        }
        for (integration, participant, said) in [
            (Some("sales/order"), None, "the state holds nothing of an Integration \"sales/order\"; there is"),
            (Some("europe/customers"), Some("shop"), "europe/customers has no participant \"shop\"; there is erp"),
            (None, Some("crn"), "the state has no participant \"crn\"; there is crm, europe/customers/erp, north/customers/shop"),
        ] {
            let refused = check(integration, participant).await;
            assert!(refused.starts_with(said), "{refused}");
        }
    }
}
