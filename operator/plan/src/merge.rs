//! Last good units: a broken edit must not stop what ran before it.
//!
//! Kept is what ran before, whose resource is still there, and which does not plan now. Not kept is what lost its ground: a contract or
//! connector that the *running* unit uses and that was deleted, or no longer allows it; or what an older Integration claims. That is a
//! decision of its owner, and use stops with it, whatever the Integration's own spec says by now. (A deleted ConfigMap is no such decision: its content lies in the unit.)
//! The same holds for the route of a contract: it goes on being served while the contract is wrong, and ends with its operations, its path's
//! older claimant, or the Integrations that it speaks of.
//! A person who pauses an Integration is obeyed even while the rest of the spec is broken. Who feeds the same golden records knows of the
//! others what runs, be it their last good units; of those that do not run, what they declare.

use crate::finding::Severity;
use crate::planned::{Planned, Verdict};
use fairlead_api::Reason;
use fairlead_model::ObjectRef;
use fairlead_model::route::RouteUnit;
use fairlead_model::unit::{DeletionPolicy, IntegrationUnit, ObjectKey, Sibling, Units};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What stays true of objects whatever else is wrong with them. `None` is an object that is there and cannot be decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The namespaces that each Connector allows.
    pub(crate) connectors: BTreeMap<ObjectRef, Option<Vec<String>>>,
    /// The namespaces that each ApiContract allows.
    pub(crate) contracts: BTreeMap<ObjectRef, Option<Vec<String>>>,
    /// What each Integration orders.
    pub(crate) integrations: BTreeMap<ObjectRef, Option<Orders>>,
    /// The namespaces whose contracts may serve each Integration's records.
    pub(crate) served: BTreeMap<ObjectRef, Option<Vec<String>>>,
    /// The contracts that have no operations.
    pub(crate) silent: BTreeSet<ObjectRef>,
    /// By realm of golden records: what each Integration that may feed it declares of itself.
    pub(crate) feeds: BTreeMap<String, BTreeMap<ObjectKey, Vec<Sibling>>>,
}

impl Standing {
    /// Makes those that feed the same golden records know each other: by what runs, whatever their specs say by now. Who does not run for a while
    /// (its Connector is gone, say, and no unit of it is left) counts by what it declares, until it is removed: it goes on owning what it holds,
    /// and what it misses waits in its lanes.
    pub(crate) fn acquaint(&self, integrations: &mut BTreeMap<ObjectKey, Arc<IntegrationUnit>>) {
        let mut realms: BTreeMap<String, BTreeMap<ObjectKey, Vec<Sibling>>> = BTreeMap::new();
        for (key, unit) in integrations.iter().filter(|(_, unit)| unit.master.is_some()) {
            realms.entry(unit.realm()).or_default().insert(key.clone(), unit.as_siblings().collect());
        }
        for (realm, all) in &mut realms {
            let declared = self.feeds.get(realm).into_iter().flatten();
            let away = declared.filter(|(key, _)| !integrations.contains_key(*key));
            all.extend(away.map(|(key, siblings)| (key.clone(), siblings.clone())));
        }
        for (key, unit) in integrations.iter_mut().filter(|(_, unit)| unit.master.is_some()) {
            let all = realms.get(&unit.realm()).into_iter().flatten();
            let mut siblings: Vec<Sibling> = all.filter(|(of, _)| *of != key).flat_map(|(_, siblings)| siblings.clone()).collect();
            siblings.sort();
            if unit.siblings() != siblings {
                *unit = Arc::new(unit.beside(siblings));
            }
        }
    }
}

/// What an Integration's spec orders that needs nothing else to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) paused: bool,
    pub(crate) deletion_policy: DeletionPolicy,
}

/// What should run now: the planned units, the last good ones of resources that do not plan at the moment, and under `removed` the
/// Integrations whose resource is gone (with those from before; the caller drops them from `previous` once runtimes have forgotten them).
///
/// `previous` is what this function gave last; after a restart of the operator, what the runtimes report to run, or nothing.
#[must_use]
pub fn merge_last_good(previous: &Units, planned: &Planned) -> Units {
    let standing = &planned.standing;
    let mut units = planned.units.clone();

    for (key, unit) in &previous.connectors {
        if !units.connectors.contains_key(key) && standing.connectors.contains_key(&unit.object) {
            units.connectors.insert(key.clone(), unit.clone());
        }
    }
    for (key, unit) in &previous.integrations {
        if units.integrations.contains_key(key) {
            continue;
        }
        match standing.integrations.get(&unit.object) {
            Some(orders) if has_ground(unit, planned) => {
                units.integrations.insert(key.clone(), obeying(unit, orders.as_ref()));
            }
            Some(_) => {}
            None => {
                units.removed.insert(key.clone(), unit.deletion_policy);
            }
        }
    }
    standing.acquaint(&mut units.integrations);
    for (key, unit) in &previous.routes {
        if !units.routes.contains_key(key) && may_be_served(unit, planned) {
            units.routes.insert(key.clone(), unit.clone());
        }
    }
    for (key, policy) in &previous.removed {
        units.removed.entry(key.clone()).or_insert(*policy);
    }
    // A re-apply takes its records up again, even where it does not plan yet: nothing is removed under an object that is there.
    units.removed.retain(|key, _| key.object().is_none_or(|object| !standing.integrations.contains_key(&object)));
    units
}

/// Whether everything that a running unit uses is still there and still allows it, and no older Integration claims the same.
fn has_ground(unit: &IntegrationUnit, planned: &Planned) -> bool {
    let caller = &unit.object.namespace;
    !lost_claim(planned.integrations.get(&unit.object))
        && allows(&planned.standing.contracts, &unit.contract.object, caller)
        && unit.participants.iter().all(|participant| allows(&planned.standing.connectors, &participant.connector, caller))
}

/// The same of a route, whose contract must still have operations.
fn may_be_served(unit: &RouteUnit, planned: &Planned) -> bool {
    let standing = &planned.standing;
    standing.contracts.contains_key(&unit.object)
        && !standing.silent.contains(&unit.object)
        && !lost_claim(planned.contracts.get(&unit.object))
        && unit
            .integrations()
            .all(|key| key.object().is_some_and(|integration| allows(&standing.served, &integration, &unit.object.namespace)))
}

/// Whether an older resource claims the same.
fn lost_claim(verdict: Option<&Verdict>) -> bool {
    verdict.is_some_and(|verdict| {
        verdict.findings.iter().any(|finding| finding.severity == Severity::Error && finding.reason == Reason::Conflict)
    })
}

fn allows(consents: &BTreeMap<ObjectRef, Option<Vec<String>>>, target: &ObjectRef, caller: &str) -> bool {
    match consents.get(target) {
        None => false,
        Some(None) => true,
        Some(Some(names)) => target.namespace == caller || names.iter().any(|name| name == caller),
    }
}

fn obeying(unit: &Arc<IntegrationUnit>, orders: Option<&Orders>) -> Arc<IntegrationUnit> {
    match orders {
        Some(orders) if orders.paused != unit.paused || orders.deletion_policy != unit.deletion_policy => {
            let obeying = IntegrationUnit { paused: orders.paused, deletion_policy: orders.deletion_policy, ..(**unit).clone() };
            Arc::new(obeying.sealed())
        }
        _ => Arc::clone(unit),
    }
}
