//! Realms: whose records they are, and how a participant is called in them.
//!
//! An Integration keeps its own records: its realm is `namespace/name`, and a participant is called there as in its spec. Under a contract
//! whose `master.scope` is `Contract`, all its Integrations feed one golden record: the realm is the contract's, and a participant's name
//! there begins with its Integration's, so that two Integrations' `crm` are two. No namespace contains a colon, so the two kinds never meet. What is
//! noted of a Connector stands in a realm of its own kind, which holds no records and is nobody's to list.

use crate::id::ObjectRef;
use crate::unit::ObjectKey;

/// What the realm of a contract begins with.
const CONTRACT: &str = "contract:";

/// The realm of the golden records of a contract.
#[must_use]
pub fn of_contract(contract: &ObjectRef) -> String {
    format!("{CONTRACT}{contract}")
}

/// What the realm of a Connector begins with; an Integration's has one slash.
const CONNECTOR: &str = "connector/";

/// The realm of what is noted of a Connector.
#[must_use]
pub fn of_connector(connector: &ObjectKey) -> String {
    format!("{CONNECTOR}{connector}")
}

/// Whether only notes of a Connector stand in this realm.
#[must_use]
pub fn is_connector(realm: &str) -> bool {
    realm.strip_prefix(CONNECTOR).is_some_and(|connector| connector.contains('/'))
}

/// Whether several Integrations may feed this realm.
#[must_use]
pub fn is_contract(realm: &str) -> bool {
    realm.starts_with(CONTRACT)
}

/// The name of an Integration's participant in the realm of a contract.
#[must_use]
pub fn full_name(integration: &ObjectRef, participant: &str) -> String {
    format!("{}{participant}", prefix(&ObjectKey::from(integration)))
}

/// What the names of all participants of an Integration begin with in the realm of a contract.
#[must_use]
pub fn prefix(integration: &ObjectKey) -> String {
    format!("{integration}/")
}

/// How an Integration's note of its own is called in a realm. In a contract's no other name of a note begins like this, whatever namespaces are
/// called.
#[must_use]
pub fn note(realm: &str, integration: &ObjectKey, name: &str) -> String {
    if is_contract(realm) { format!("of/{}{name}", prefix(integration)) } else { name.to_owned() }
}

/// What stands in the names of an Integration's leases between their kind and the thing, as the Integration calls it.
#[must_use]
pub fn leases_of(realm: &str, integration: &ObjectKey) -> String {
    if is_contract(realm) { format!("{realm}/{}", prefix(integration)) } else { format!("{realm}/") }
}

/// How people call a participant within its Integration.
#[must_use]
pub fn called(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// How a participant is called in something that is told to those of another participant of its realm: in full, where that is another
/// Integration's.
#[must_use]
pub fn told<'n>(name: &'n str, to: &str) -> &'n str {
    let of = |name: &'n str| name.rsplit_once('/').map(|(integration, _)| integration);
    let same = of(name) == to.rsplit_once('/').map(|(integration, _)| integration);
    if same { called(name) } else { name }
}

/// The Integration that a participant of a realm belongs to.
#[must_use]
pub fn integration(realm: &str, participant: &str) -> ObjectKey {
    match participant.rsplit_once('/') {
        Some((integration, _)) if is_contract(realm) => ObjectKey(integration.to_owned()),
        _ => ObjectKey(realm.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_contracts_realm_tells_whose_it_is_and_how_people_call_it() {
        let realm = of_contract(&ObjectRef::new("contracts", "customer-v1"));
        let name = full_name(&ObjectRef::new("europe", "customers"), "crm");
        assert_eq!((realm.as_str(), name.as_str()), ("contract:contracts/customer-v1", "europe/customers/crm"));
        assert_eq!((integration(&realm, &name).0.as_str(), called(&name)), ("europe/customers", "crm"));
        assert!(is_contract(&realm) && !is_contract("contracts/customer-v1"));
        assert_eq!((told(&name, "europe/customers/erp"), told(&name, "north/customers/erp")), ("crm", "europe/customers/crm"));
        assert_eq!(told("crm", "erp"), "crm");
        let europe = integration(&realm, &name);
        assert_eq!(note(&realm, &europe, "unit"), "of/europe/customers/unit");
        assert_eq!(leases_of(&realm, &europe), "contract:contracts/customer-v1/europe/customers/");
    }

    #[test]
    fn a_connectors_notes_are_no_integrations() {
        let realm = of_connector(&ObjectKey("sales/crm".into()));
        assert_eq!(realm, "connector/sales/crm");
        assert!(is_connector(&realm));
        for integration in ["connector/crm", "sales/connector", "contract:connector/crm"] {
            assert!(!is_connector(integration), "{integration}");
        }
    }

    #[test]
    fn an_integrations_own_realm_is_its_name() {
        let own = integration("europe/customers", "crm");
        assert_eq!((own.0.as_str(), called("crm")), ("europe/customers", "crm"));
        assert_eq!((note(&own.0, &own, "unit"), leases_of(&own.0, &own)), ("unit".to_owned(), "europe/customers/".to_owned()));
    }
}
