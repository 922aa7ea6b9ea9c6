//! Who needs whom: the edges between resources and what they name, followed both ways.
//!
//! Forward it says what to read and watch; backward it says whom a change concerns, so that repairing a cause heals its dependants
//! without another touch. Edges to things that do not exist are kept too: their arrival matters most.

use fairlead_model::ObjectRef;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The kinds of objects that resources name, and the resources themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefKind {
    /// A Connector.
    Connector,
    /// An ApiContract.
    ApiContract,
    /// An Integration.
    Integration,
    /// A ConfigMap: a system definition, or certificates.
    ConfigMap,
    /// A Secret; named here, read only by runtimes.
    Secret,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Its kind.
    pub kind: RefKind,
    /// Its name.
    pub object: ObjectRef,
}

impl Target {
    /// The object of this kind and name.
    #[must_use]
    pub fn new(kind: RefKind, object: ObjectRef) -> Self {
        Self { kind, object }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.object)
    }
}

/// All edges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    needs: BTreeMap<Target, BTreeSet<Target>>,
    needed_by: BTreeMap<Target, BTreeSet<Target>>,
}

impl References {
    pub(crate) fn add(&mut self, from: Target, to: Target) {
        self.needed_by.entry(to.clone()).or_default().insert(from.clone());
        self.needs.entry(from).or_default().insert(to);
    }

    /// What this object names itself.
    pub fn needs(&self, object: &Target) -> impl Iterator<Item = &Target> {
        self.needs.get(object).into_iter().flatten()
    }

    /// Who names this object.
    pub fn needed_by(&self, object: &Target) -> impl Iterator<Item = &Target> {
        self.needed_by.get(object).into_iter().flatten()
    }

    /// Everybody whom a change of this object concerns, through any number of steps; without the object itself.
    #[must_use]
    pub fn concerned(&self, object: &Target) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        let mut open = vec![object];
        while let Some(next) = open.pop() {
            for user in self.needed_by(next) {
                if found.insert(user.clone()) {
                    open.push(user);
                }
            }
        }
        found
    }

    /// Every object of a kind that somebody names: which ConfigMaps to watch, for one.
    pub fn named(&self, kind: RefKind) -> impl Iterator<Item = &ObjectRef> {
        self.needed_by.keys().filter(move |target| target.kind == kind).map(|target| &target.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_definition_concerns_the_connector_and_its_integrations() {
        let target = |kind, name| Target::new(kind, ObjectRef::new("na", name));
        let (map, connector, integration) =
            (target(RefKind::ConfigMap, "definition"), target(RefKind::Connector, "crm"), target(RefKind::Integration, "customers"));
        let mut references = References::default();
        references.add(connector.clone(), map.clone());
        references.add(integration.clone(), connector.clone());
        assert_eq!(references.concerned(&map), BTreeSet::from([connector, integration]));
    }
}
