//! Status as it should be, for every object, judged anew only where something it depends on has changed: its verdict, what was reported of
//! it, the status that stands in it, its connectors' status, or time.
//!
//! The rules are the planner's; this is bookkeeping. One report among a thousand objects costs one judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_api::common::ConditionedStatus;
use fairlead_api::status::Meaning;
use fairlead_api::{ApiContractStatus, ConnectorStatus, IntegrationStatus, Kind};
use fairlead_model::report::Reports;
use fairlead_model::unit::ObjectKey;
use fairlead_model::{ObjectRef, Timestamp};
use fairlead_plan::{Config, Heard, Moment, Pace, Planned, connector_status, contract_status, integration_status, pace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use crate::cache::{Cache, Key};

/// The status of an object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Status {
    ApiContract(ApiContractStatus),
    Connector(ConnectorStatus),
    Integration(IntegrationStatus),
}

impl Status {
    pub(crate) fn conditions(&self) -> &[Condition] {
        match self {
            Self::ApiContract(status) => status.conditions(),
            Self::Connector(status) => status.conditions(),
            Self::Integration(status) => status.conditions(),
        }
    }

    pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::ApiContract(status) => serde_json::to_value(status),
            Self::Connector(status) => serde_json::to_value(status),
            Self::Integration(status) => serde_json::to_value(status),
        }
    }

    /// How soon this status should replace the one that stands in the object.
    pub(crate) fn pace(&self, previous: Option<&Self>, written: Option<Timestamp>, now: Timestamp, config: &Config) -> Pace {
        match (self, previous) {
            (Self::ApiContract(next), Some(Self::ApiContract(previous))) => pace(Some(previous), next, written, now, config),
            (Self::Connector(next), Some(Self::Connector(previous))) => pace(Some(previous), next, written, now, config),
            (Self::Integration(next), Some(Self::Integration(previous))) => pace(Some(previous), next, written, now, config),
            _ => Pace::Now,
        }
    }
}

/// The statuses as they should be.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    statuses: BTreeMap<Key, Status>,
    /// The connectors' among them, in the form in which the integrations' rules want them.
    connectors: BTreeMap<ObjectRef, ConnectorStatus>,
    next_check: BTreeMap<Key, Timestamp>,
    stale: BTreeSet<Key>,
    reports: Arc<Reports>,
}

impl Judge {
    /// The status that an object should have.
    pub(crate) fn wanted(&self, key: &Key) -> Option<&Status> {
        self.statuses.get(key)
    }

    /// This object is to be judged again.
    pub(crate) fn touch(&mut self, key: Key) {
        self.stale.insert(key);
    }

    /// A plan was made: what it says anew is to be judged again, and what is gone is forgotten.
    pub(crate) fn planned(&mut self, before: &Planned, now: &Planned) {
        for verdict in now.verdicts() {
            if before.verdict(verdict.kind, &verdict.object) != Some(verdict) {
                self.stale.insert((verdict.kind, verdict.object.clone()));
            }
        }
        let there = |(kind, object): &Key| now.verdict(*kind, object).is_some();
        self.statuses.retain(|key, _| there(key));
        self.next_check.retain(|key, _| there(key));
        self.stale.retain(there);
        self.connectors.retain(|object, _| now.connectors.contains_key(object));
    }

    /// The runtime has reported: what it says anew is to be judged again.
    pub(crate) fn reported(&mut self, reports: Arc<Reports>, planned: &Planned) {
        for object in planned.connectors.keys() {
            let key = ObjectKey::from(object);
            if self.reports.connectors.get(&key) != reports.connectors.get(&key) {
                self.stale.insert((Kind::Connector, object.clone()));
            }
        }
        for object in planned.integrations.keys() {
            let key = ObjectKey::from(object);
            if self.reports.integrations.get(&key) != reports.integrations.get(&key) {
                self.stale.insert((Kind::Integration, object.clone()));
            }
        }
        self.reports = reports;
    }

    /// When the passing of time alone asks for a judgement.
    pub(crate) fn next_check(&self) -> Option<Timestamp> {
        self.next_check.values().min().copied()
    }

    /// Judges what is stale. Returns what was judged.
    pub(crate) fn judge(&mut self, planned: &Planned, cache: &Cache, moment: Moment, config: &Config) -> Vec<Key> {
        let due = self.next_check.iter().filter(|(_, at)| **at <= moment.now).map(|(key, _)| key.clone());
        let mut stale = std::mem::take(&mut self.stale);
        stale.extend(due);
        let mut judged = Vec::with_capacity(stale.len());

        // Keys are in the order of their kinds' names: contracts and connectors come before the integrations that depend on them.
        while let Some(key) = stale.pop_first() {
            let Some(verdict) = planned.verdict(key.0, &key.1) else { continue };
            let previous = cache.entry(&key).and_then(|entry| entry.status.as_ref());
            let (status, next_check) = match key.0 {
                Kind::ApiContract => {
                    let previous = previous.and_then(|status| if let Status::ApiContract(status) = status { Some(status) } else { None });
                    let judged = contract_status(verdict, previous, moment);
                    (Status::ApiContract(judged.status.bounded()), judged.next_check)
                }
                Kind::Connector => {
                    let previous = previous.and_then(|status| if let Status::Connector(status) = status { Some(status) } else { None });
                    let report = self.reports.connectors.get(&ObjectKey::from(&key.1));
                    let judged = connector_status(verdict, Heard { report, at: self.heard_at() }, previous, moment, config);
                    let status = judged.status.bounded();
                    if self.connectors.get(&key.1) != Some(&status) {
                        stale.extend(verdict.used_by.iter().map(|user| (Kind::Integration, user.clone())));
                        self.connectors.insert(key.1.clone(), status.clone());
                    }
                    (Status::Connector(status), judged.next_check)
                }
                Kind::Integration => {
                    let previous = previous.and_then(|status| if let Status::Integration(status) = status { Some(status) } else { None });
                    let report = self.reports.integrations.get(&ObjectKey::from(&key.1));
                    let heard = Heard { report, at: self.heard_at() };
                    let judged = integration_status(verdict, heard, &self.connectors, previous, moment, config);
                    (Status::Integration(judged.status.bounded()), judged.next_check)
                }
            };
            match next_check {
                Some(at) => self.next_check.insert(key.clone(), at),
                None => self.next_check.remove(&key),
            };
            self.statuses.insert(key.clone(), status);
            judged.push(key);
        }
        judged
    }

    /// When the runtime last spoke at all.
    fn heard_at(&self) -> Option<Timestamp> {
        (self.reports.at > Timestamp(0)).then_some(self.reports.at)
    }
}
