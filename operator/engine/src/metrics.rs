//! Numbers of the data plane for Prometheus. Labels are bounded: integration and participant names, and result words from fixed lists.

use fairlead_store::Outcome;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

/// One Integration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfIntegration {
    integration: String,
}

/// The engine's metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    read: Family<Records, Counter>,
    settled: Family<Records, Counter>,
    pending: Family<OfParticipant, Gauge>,
    dead_letters: Family<OfParticipant, Gauge>,
    lag: Family<OfIntegration, Gauge>,
    unbalanced: Family<OfIntegration, Gauge>,
}

impl Metrics {
    /// Makes them known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("fairlead_records_read", "Records read, by what they were", self.read.clone());
        registry.register("fairlead_records_settled", "Lane entries settled, by outcome", self.settled.clone());
        registry.register("fairlead_lane_pending", "Keys waiting in a target's lane", self.pending.clone());
        registry.register("fairlead_dead_letters", "Open dead letters", self.dead_letters.clone());
        registry.register("fairlead_lag_seconds", "Age of the oldest undelivered change plus overdue reading", self.lag.clone());
        registry.register("fairlead_ledger_unbalanced", "1 while the ledger does not add up", self.unbalanced.clone());
    }

    /// A batch was absorbed.
    pub(crate) fn read(&self, integration: &str, participant: &str, absorbed: u64, unchanged: u64, dead_lettered: u64) {
        for (result, count) in [("absorbed", absorbed), ("unchanged", unchanged), ("dead_lettered", dead_lettered)] {
            let labels = Records { integration: integration.to_owned(), participant: participant.to_owned(), result };
            self.read.get_or_create(&labels).inc_by(count);
        }
    }

    /// A key was settled.
    pub(crate) fn settled(&self, integration: &str, target: &str, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Delivered { .. } => "delivered",
            Outcome::Unchanged { .. } => "unchanged",
            Outcome::Filtered { .. } => "filtered",
            Outcome::Retry { .. } => "retried",
            Outcome::WaitFor { .. } => "waiting",
            Outcome::DeadLetter(_) => "dead_lettered",
        };
        self.settled.get_or_create(&Records { integration: integration.to_owned(), participant: target.to_owned(), result }).inc();
    }

    /// A snapshot was taken.
    pub(crate) fn standing(
        &self,
        integration: &str,
        participants: impl Iterator<Item = (String, u64, u64)>,
        lag_seconds: u64,
        balanced: bool,
    ) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (participant, pending, dead) in participants {
            let labels = OfParticipant { integration: integration.to_owned(), participant };
            self.pending.get_or_create(&labels).set(number(pending));
            self.dead_letters.get_or_create(&labels).set(number(dead));
        }
        let labels = OfIntegration { integration: integration.to_owned() };
        self.lag.get_or_create(&labels).set(number(lag_seconds));
        self.unbalanced.get_or_create(&labels).set(i64::from(!balanced));
    }

    /// An Integration is gone.
    pub(crate) fn forget(&self, integration: &str, participants: impl Iterator<Item = String>) {
        for participant in participants {
            let labels = OfParticipant { integration: integration.to_owned(), participant };
            self.pending.remove(&labels);
            self.dead_letters.remove(&labels);
        }
        let labels = OfIntegration { integration: integration.to_owned() };
        self.lag.remove(&labels);
        self.unbalanced.remove(&labels);
    }
}
