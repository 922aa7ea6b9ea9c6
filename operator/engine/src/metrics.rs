//! Numbers of the data plane for Prometheus. Labels are bounded: integration and participant names, and result words from fixed lists.

use fairlead_model::metric;
use fairlead_model::report::{Circuit, ConnectorReport, Drift, Lag, ParticipantReport, Quota, Reconciliation, TrialPhase, Window};
use fairlead_model::unit::ObjectKey;
use fairlead_store::{Outcome, Snapshot};
use fairlead_systems::{Priority, Use};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Whose records, and what came of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Records {
    integration: String,
    participant: String,
    result: &'static str,
}

/// One participant of one Integration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfParticipant {
    integration: String,
    participant: String,
}

/// One Integration, and a kind of difference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDrift {
    integration: String,
    kind: &'static str,
}

/// One Integration, and where a revision on trial stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTrial {
    integration: String,
    phase: &'static str,
}

/// One Integration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfIntegration {
    integration: String,
}

/// One Connector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfConnector {
    connector: String,
}

/// One Connector, and a window of its quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfWindow {
    connector: String,
    window: &'static str,
}

/// One Connector, and a priority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPriority {
    connector: String,
    priority: &'static str,
}

/// What a connector has to do.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// How far its quota is used.
    pub(crate) uses: Vec<Use>,
    /// Requests that wait for their turn.
    pub(crate) waiting: Vec<(Priority, usize)>,
}

/// What comes of a record that is read.
const READ: [&str; 3] = ["absorbed", "unchanged", "dead_lettered"];

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The engine's metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    read: Family<Records, Counter>,
    settled: Family<Records, Counter>,
    conflicts: Family<OfParticipant, Counter>,
    pending: Family<OfParticipant, Gauge>,
    dead_letters: Family<OfParticipant, Gauge>,
    removed: Family<OfIntegration, Counter>,
    lag: Family<OfIntegration, Gauge>,
    unbalanced: Family<OfIntegration, Gauge>,
    last_read: Family<OfParticipant, Gauge>,
    last_delivered: Family<OfIntegration, Gauge>,
    drift: Family<OfDrift, Gauge>,
    reconciled: Family<OfIntegration, Gauge>,
    rollout: Family<OfTrial, Gauge>,
    reachable: Family<OfConnector, Gauge>,
    circuit_open: Family<OfConnector, Gauge>,
    quota_low: Family<OfConnector, Gauge>,
    requests_used: Family<OfWindow, Gauge>,
    requests_limit: Family<OfWindow, Gauge>,
    requests_waiting: Family<OfPriority, Gauge>,
    known: Mutex<BTreeSet<ObjectKey>>,
}

impl Metrics {
    /// Makes them known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register(metric::RECORDS_READ.name, metric::RECORDS_READ.help, self.read.clone());
        r.register(metric::RECORDS_SETTLED.name, metric::RECORDS_SETTLED.help, self.settled.clone());
        r.register(metric::CONFLICTS.name, metric::CONFLICTS.help, self.conflicts.clone());
        r.register(metric::LANE_PENDING.name, metric::LANE_PENDING.help, self.pending.clone());
        r.register(metric::DEAD_LETTERS.name, metric::DEAD_LETTERS.help, self.dead_letters.clone());
        r.register(metric::DEAD_LETTERS_REMOVED.name, metric::DEAD_LETTERS_REMOVED.help, self.removed.clone());
        r.register(metric::LAG.name, metric::LAG.help, self.lag.clone());
        r.register(metric::LEDGER_UNBALANCED.name, metric::LEDGER_UNBALANCED.help, self.unbalanced.clone());
        r.register(metric::LAST_READ.name, metric::LAST_READ.help, self.last_read.clone());
        r.register(metric::LAST_DELIVERED.name, metric::LAST_DELIVERED.help, self.last_delivered.clone());
        r.register(metric::RECONCILIATION_DRIFT.name, metric::RECONCILIATION_DRIFT.help, self.drift.clone());
        r.register(metric::RECONCILIATION_SUCCESS.name, metric::RECONCILIATION_SUCCESS.help, self.reconciled.clone());
        r.register(metric::ROLLOUT.name, metric::ROLLOUT.help, self.rollout.clone());
        r.register(metric::CONNECTOR_REACHABLE.name, metric::CONNECTOR_REACHABLE.help, self.reachable.clone());
        r.register(metric::CONNECTOR_CIRCUIT_OPEN.name, metric::CONNECTOR_CIRCUIT_OPEN.help, self.circuit_open.clone());
        r.register(metric::CONNECTOR_QUOTA_LOW.name, metric::CONNECTOR_QUOTA_LOW.help, self.quota_low.clone());
        r.register(metric::CONNECTOR_REQUESTS_USED.name, metric::CONNECTOR_REQUESTS_USED.help, self.requests_used.clone());
        r.register(metric::CONNECTOR_REQUESTS_LIMIT.name, metric::CONNECTOR_REQUESTS_LIMIT.help, self.requests_limit.clone());
        r.register(metric::CONNECTOR_REQUESTS_WAITING.name, metric::CONNECTOR_REQUESTS_WAITING.help, self.requests_waiting.clone());
    }

    /// A batch was absorbed: so many records, so many of them unchanged, so many dead letters, so many conflicts.
    pub(crate) fn read(&self, integration: &str, participant: &str, (absorbed, unchanged, dead_lettered, conflicts): (u64, u64, u64, u64)) {
        let labels = OfParticipant { integration: integration.to_owned(), participant: participant.to_owned() };
        self.conflicts.get_or_create(&labels).inc_by(conflicts);
        for (result, count) in READ.into_iter().zip([absorbed, unchanged, dead_lettered]) {
            let labels = Records { integration: integration.to_owned(), participant: participant.to_owned(), result };
            self.read.get_or_create(&labels).inc_by(count);
        }
    }

    /// Keys were settled.
    pub(crate) fn settled<'o>(&self, integration: &str, target: &str, outcomes: impl Iterator<Item = &'o Outcome>) {
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        outcomes.for_each(|outcome| *counts.entry(outcome.word()).or_default() += 1);
        for (result, count) in counts {
            let records = Records { integration: integration.to_owned(), participant: target.to_owned(), result };
            self.settled.get_or_create(&records).inc_by(count);
        }
    }

    /// Dead letters went that were closed long ago.
    pub(crate) fn removed(&self, integration: &str, count: u64) {
        self.removed.get_or_create(&OfIntegration { integration: integration.to_owned() }).inc_by(count);
    }

    /// A snapshot was taken.
    pub(crate) fn standing(
        &self,
        integration: &str,
        participants: &[ParticipantReport],
        lag: Option<Lag>,
        snapshot: &Snapshot,
        balanced: bool,
    ) {
        for participant in participants {
            let labels = OfParticipant { integration: integration.to_owned(), participant: participant.name.clone() };
            self.pending.get_or_create(&labels).set(number(participant.pending));
            self.dead_letters.get_or_create(&labels).set(number(participant.dead_letters));
            if let Some(at) = participant.last_read {
                self.last_read.get_or_create(&labels).set(at.0 / 1000);
            }
        }
        let labels = OfIntegration { integration: integration.to_owned() };
        self.lag.get_or_create(&labels).set(lag.map_or(0, |lag| number(lag.age.as_secs())));
        self.unbalanced.get_or_create(&labels).set(i64::from(!balanced));
        if let Some(at) = snapshot.last_delivered {
            self.last_delivered.get_or_create(&labels).set(at.0 / 1000);
        }
    }

    /// A reconciliation ended.
    pub(crate) fn reconciled(&self, integration: &str, last: &Reconciliation) {
        for (kind, count) in last.drift.by_kind() {
            self.drift.get_or_create(&OfDrift { integration: integration.to_owned(), kind }).set(number(count));
        }
        if let Some(at) = last.last_success {
            self.reconciled.get_or_create(&OfIntegration { integration: integration.to_owned() }).set(at.0 / 1000);
        }
    }

    /// Where a revision on trial stands, if there is one.
    pub(crate) fn rollout(&self, integration: &str, now: Option<TrialPhase>) {
        for phase in TrialPhase::ALL {
            let labels = OfTrial { integration: integration.to_owned(), phase: phase.word() };
            if now == Some(phase) {
                self.rollout.get_or_create(&labels).set(1);
            } else {
                self.rollout.remove(&labels);
            }
        }
    }

    /// What the connectors are like; those that are gone are forgotten.
    pub(crate) fn connectors(&self, reports: &BTreeMap<ObjectKey, ConnectorReport>, loads: &BTreeMap<ObjectKey, Load>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.iter().filter(|key| !reports.contains_key(*key)) {
            for family in [&self.reachable, &self.circuit_open, &self.quota_low] {
                family.remove(&OfConnector { connector: gone.0.clone() });
            }
            self.load(gone, &Load::default());
        }
        *known = reports.keys().cloned().collect();
        for (key, load) in loads {
            self.load(key, load);
        }
        for (key, report) in reports {
            let labels = OfConnector { connector: key.0.clone() };
            self.reachable.get_or_create(&labels).set(i64::from(matches!(report.probe, Some(Ok(_)))));
            self.circuit_open.get_or_create(&labels).set(i64::from(report.circuit == Circuit::Open));
            self.quota_low.get_or_create(&labels).set(match report.quota {
                Quota::Ample => 0,
                Quota::Low => 1,
                Quota::Exhausted => 2,
            });
        }
    }

    /// What a connector has to do; what it says nothing of is forgotten.
    fn load(&self, connector: &ObjectKey, load: &Load) {
        let set = |family: &Family<OfWindow, Gauge>, window: Window, count: Option<u64>| {
            let labels = OfWindow { connector: connector.0.clone(), window: window.word() };
            match count {
                Some(count) => {
                    family.get_or_create(&labels).set(number(count));
                }
                None => {
                    family.remove(&labels);
                }
            }
        };
        for window in [Window::Day, Window::Vendor] {
            let told = load.uses.iter().find(|told| told.window == window);
            set(&self.requests_used, window, told.map(|told| told.used));
            set(&self.requests_limit, window, told.and_then(|told| told.limit));
        }
        for priority in Priority::ALL {
            let labels = OfPriority { connector: connector.0.clone(), priority: priority.word() };
            match load.waiting.iter().find(|(of, _)| *of == priority) {
                Some((_, count)) => {
                    self.requests_waiting.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
                }
                None => {
                    self.requests_waiting.remove(&labels);
                }
            }
        }
    }

    /// An Integration is gone, and what was counted of it.
    pub(crate) fn forget_counts(&self, integration: &str, participants: impl Iterator<Item = String>) {
        for participant in participants {
            self.conflicts.remove(&OfParticipant { integration: integration.to_owned(), participant: participant.clone() });
            for (family, results) in [(&self.read, &READ[..]), (&self.settled, &Outcome::WORDS[..])] {
                for result in results.iter().copied() {
                    family.remove(&Records { integration: integration.to_owned(), participant: participant.clone(), result });
                }
            }
        }
        self.removed.remove(&OfIntegration { integration: integration.to_owned() });
    }

    /// An Integration has stopped, perhaps to begin anew: nothing is known of how it stands.
    pub(crate) fn forget(&self, integration: &str, participants: impl Iterator<Item = String>) {
        for participant in participants {
            let labels = OfParticipant { integration: integration.to_owned(), participant };
            self.pending.remove(&labels);
            self.dead_letters.remove(&labels);
            self.last_read.remove(&labels);
        }
        self.rollout(integration, None);
        let labels = OfIntegration { integration: integration.to_owned() };
        self.lag.remove(&labels);
        self.unbalanced.remove(&labels);
        self.last_delivered.remove(&labels);
        self.reconciled.remove(&labels);
        for (kind, _) in Drift::default().by_kind() {
            self.drift.remove(&OfDrift { integration: integration.to_owned(), kind });
        }
    }
}
