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
    Integration(Box<IntegrationStatus>),
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
            (Self::Integration(next), Some(Self::Integration(previous))) => pace(Some(&**previous), &**next, written, now, config),
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
    /// When the runtime last spoke at all.
    heard_at: Option<Timestamp>,
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

    /// The runtime has reported: what it says anew is to be judged again; after a silence everything, for that was judged too.
    pub(crate) fn reported(&mut self, reports: Arc<Reports>, planned: &Planned, config: &Config) {
        if self.heard_at.is_some_and(|before| reports.at.since(before) >= config.silent_after) {
            self.stale.extend(planned.verdicts().map(|verdict| (verdict.kind, verdict.object.clone())));
        }
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
        for object in planned.contracts.keys() {
            let key = ObjectKey::from(object);
            if self.reports.routes.get(&key) != reports.routes.get(&key) {
                self.stale.insert((Kind::ApiContract, object.clone()));
            }
        }
        self.heard_at = (reports.at > Timestamp(0)).then_some(reports.at);
        self.reports = reports;
    }

    /// When the runtime last spoke, by the clock as it stands now: one that was stepped since must not make a report of a moment ago look old.
    pub(crate) fn heard(&mut self, at: Timestamp) {
        self.heard_at = Some(at);
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
                    let report = self.reports.routes.get(&ObjectKey::from(&key.1));
                    let judged = contract_status(verdict, Heard { report, at: self.heard_at }, previous, moment, config);
                    (Status::ApiContract(judged.status.bounded()), judged.next_check)
                }
                Kind::Connector => {
                    let previous = previous.and_then(|status| if let Status::Connector(status) = status { Some(status) } else { None });
                    let report = self.reports.connectors.get(&ObjectKey::from(&key.1));
                    let judged = connector_status(verdict, Heard { report, at: self.heard_at }, previous, moment, config);
                    let status = judged.status.bounded();
                    if self.connectors.get(&key.1) != Some(&status) {
                        stale.extend(verdict.used_by.iter().map(|user| (Kind::Integration, user.clone())));
                        self.connectors.insert(key.1.clone(), status.clone());
                    }
                    (Status::Connector(status), judged.next_check)
                }
                Kind::Integration => {
                    let previous =
                        previous.and_then(|status| if let Status::Integration(status) = status { Some(&**status) } else { None });
                    let report = self.reports.integrations.get(&ObjectKey::from(&key.1));
                    let heard = Heard { report, at: self.heard_at };
                    let judged = integration_status(verdict, heard, &self.connectors, previous, moment, config);
                    (Status::Integration(Box::new(judged.status.bounded())), judged.next_check)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::hash::Digest;
    use fairlead_model::report::{Circuit, ConnectorReport, Quota};
    use fairlead_plan::Planner;
    use fairlead_systems::Catalog;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    /// Two connectors and a contract, planned, and everything judged once.
    struct Scene {
        cache: Cache,
        planned: Planned,
        judge: Judge,
        config: Config,
    }

    impl Scene {
        fn new() -> Self {
            let mut cache = Cache::new();
            for name in ["a", "b"] {
                let object = json!({
                    "metadata": {"name": name, "namespace": "sales", "uid": name, "resourceVersion": "1", "generation": 1},
                    "spec": {"system": "salesforce", "endpoint": "https://acme.my.salesforce.com", "auth": {"method": "ClientCredentials", "secretRef": {"name": "s"}}},
                });
                cache.saw(Kind::Connector, &None, Event::Apply(serde_json::from_value(object).unwrap()));
            }
            let config = Config::default();
            let planned = Planner::default().plan(&cache.world(), Catalog::builtin(), &config, START);
            let mut scene = Self { cache, planned, judge: Judge::default(), config };
            scene.judge.planned(&Planned::default(), &scene.planned);
            assert_eq!(scene.judge(START).len(), 2);
            scene
        }

        fn judge(&mut self, now: Timestamp) -> Vec<String> {
            let moment = Moment { now, listening_since: START };
            self.judge.judge(&self.planned, &self.cache, moment, &self.config).into_iter().map(|(_, object)| object.name).collect()
        }

        fn digest(&self, name: &str) -> Digest {
            self.planned.connectors[&ObjectRef::new("sales", name)].digest.clone().unwrap()
        }

        fn report(&mut self, at: Timestamp, healthy: &[&str]) {
            let report = |name: &&str| {
                let report = ConnectorReport {
                    digest: self.digest(name),
                    probe: Some(Ok(START)),
                    circuit: Circuit::Closed,
                    quota: Quota::Ample,
                    spent: None,
                    throttled_until: None,
                    last_error: None,
                };
                (ObjectKey(format!("sales/{name}")), report)
            };
            let connectors = healthy.iter().map(report).collect();
            self.judge.reported(Arc::new(Reports { at, connectors, ..Reports::default() }), &self.planned, &self.config);
        }

        fn ready(&self, name: &str) -> (String, String) {
            let status = self.judge.wanted(&(Kind::Connector, ObjectRef::new("sales", name))).unwrap();
            let ready = status.conditions().iter().find(|condition| condition.type_ == "Ready").unwrap();
            (ready.status.clone(), ready.reason.clone())
        }
    }

    #[test]
    fn only_what_a_report_speaks_anew_of_is_judged() {
        let mut scene = Scene::new();
        scene.report(START, &["a"]);
        assert_eq!(scene.judge(START), ["a"]);
        assert_eq!(scene.ready("a").0, "True");
        scene.report(START.plus(std::time::Duration::from_millis(250)), &["a"]);
        assert!(scene.judge(START).is_empty(), "the same again, a moment later");
        scene.report(START.plus(std::time::Duration::from_millis(500)), &["a", "b"]);
        assert_eq!(scene.judge(START), ["b"]);
    }

    #[test]
    fn silence_is_judged_when_its_time_comes_though_nothing_happens() {
        let mut scene = Scene::new();
        scene.report(START, &["a", "b"]);
        scene.judge(START);
        let at = scene.judge.next_check().unwrap();
        assert_eq!(at, START.plus(scene.config.silent_after));
        assert_eq!(scene.judge(at).len(), 2);
        assert_eq!(scene.ready("a").0, "Unknown");
        scene.judge(START.plus(scene.config.lost_after));
        assert_eq!(scene.ready("a"), ("False".into(), "WorkerNotReporting".into()));
        // The same words as before the silence are news.
        let back = START.plus(scene.config.lost_after * 2);
        scene.report(back, &["a", "b"]);
        assert_eq!(scene.judge(back).len(), 2);
        assert_eq!(scene.ready("a").0, "True");
    }

    #[test]
    fn what_is_no_longer_planned_is_forgotten() {
        let mut scene = Scene::new();
        let before = std::mem::take(&mut scene.planned);
        scene.judge.planned(&before, &scene.planned);
        assert!(scene.judge.next_check().is_none() && scene.judge.connectors.is_empty() && scene.judge.statuses.is_empty());
    }
}
