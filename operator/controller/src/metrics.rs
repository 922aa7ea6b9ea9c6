//! The controller's numbers, under controller-runtime's names where it has one, so that known boards and alerts work. Labels are bounded:
//! kinds and fixed words.

use fairlead_api::Kind;
use fairlead_model::metric;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

fn seconds() -> Histogram {
    Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0])
}

/// The controller's metrics.
#[derive(Debug)]
pub struct Metrics {
    reconciles: Family<Result, Counter>,
    reconcile_errors: Family<Controller, Counter>,
    panics: Counter,
    reconcile_time: Family<Controller, Histogram, fn() -> Histogram>,
    active: Family<Controller, Gauge>,
    limit: Family<Controller, Gauge>,
    queue_depth: Family<Name, Gauge>,
    queue_adds: Family<Name, Counter>,
    patches: Family<Result, Counter>,
    watch_restarts: Family<Watched, Counter>,
    undecodable: Family<Controller, Gauge>,
    objects: Family<Controller, Gauge>,
    leader: Family<Name, Gauge>,
    last_success: Gauge,
    reported: Gauge,
    lag_objective: Gauge,
    plan_time: Histogram,
    events: Family<Outcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            panics: Counter::default(),
            reconcile_time: Family::new_with_constructor(seconds),
            active: Family::default(),
            limit: Family::default(),
            queue_depth: Family::default(),
            queue_adds: Family::default(),
            patches: Family::default(),
            watch_restarts: Family::default(),
            undecodable: Family::default(),
            objects: Family::default(),
            leader: Family::default(),
            last_success: Gauge::default(),
            reported: Gauge::default(),
            lag_objective: Gauge::default(),
            plan_time: seconds(),
            events: Family::default(),
        }
    }
}

const STATUS_QUEUE: Name = Name { name: "status" };

impl Metrics {
    /// Makes them known to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register(metric::RECONCILE.name, metric::RECONCILE.help, self.reconciles.clone());
        r.register(metric::RECONCILE_ERRORS.name, metric::RECONCILE_ERRORS.help, self.reconcile_errors.clone());
        r.register(metric::RECONCILE_PANICS.name, metric::RECONCILE_PANICS.help, self.panics.clone());
        r.register(metric::RECONCILE_TIME.name, metric::RECONCILE_TIME.help, self.reconcile_time.clone());
        r.register(metric::ACTIVE_WORKERS.name, metric::ACTIVE_WORKERS.help, self.active.clone());
        r.register(metric::MAX_CONCURRENT.name, metric::MAX_CONCURRENT.help, self.limit.clone());
        r.register(metric::QUEUE_DEPTH.name, metric::QUEUE_DEPTH.help, self.queue_depth.clone());
        r.register(metric::QUEUE_ADDS.name, metric::QUEUE_ADDS.help, self.queue_adds.clone());
        r.register(metric::STATUS_PATCHES.name, metric::STATUS_PATCHES.help, self.patches.clone());
        r.register(metric::WATCH_RESTARTS.name, metric::WATCH_RESTARTS.help, self.watch_restarts.clone());
        r.register(metric::UNDECODABLE.name, metric::UNDECODABLE.help, self.undecodable.clone());
        r.register(metric::OBJECTS.name, metric::OBJECTS.help, self.objects.clone());
        r.register(metric::LEADER.name, metric::LEADER.help, self.leader.clone());
        r.register(metric::LAST_SUCCESS.name, metric::LAST_SUCCESS.help, self.last_success.clone());
        r.register(metric::PLAN_TIME.name, metric::PLAN_TIME.help, self.plan_time.clone());
        r.register(metric::RUNTIME_REPORTED.name, metric::RUNTIME_REPORTED.help, self.reported.clone());
        r.register(metric::LAG_OBJECTIVE.name, metric::LAG_OBJECTIVE.help, self.lag_objective.clone());
        r.register(metric::EVENTS.name, metric::EVENTS.help, self.events.clone());
    }

    pub(crate) fn judged(&self, kind: Kind, took: Duration) {
        self.reconciles.get_or_create(&Result { controller: controller(kind), result: "success" }).inc();
        self.reconcile_time.get_or_create(&Controller { controller: controller(kind) }).observe(took.as_secs_f64());
    }

    pub(crate) fn patched(&self, kind: Kind, result: &'static str, failed: bool) {
        self.patches.get_or_create(&Result { controller: controller(kind), result }).inc();
        if failed {
            self.reconciles.get_or_create(&Result { controller: controller(kind), result: "error" }).inc();
            self.reconcile_errors.get_or_create(&Controller { controller: controller(kind) }).inc();
        }
    }

    pub(crate) fn queued(&self) {
        self.queue_adds.get_or_create(&STATUS_QUEUE).inc();
    }

    pub(crate) fn writing(&self, waiting: usize, under_way: usize, limit: usize) {
        self.queue_depth.get_or_create(&STATUS_QUEUE).set(number(waiting));
        let writer = Controller { controller: "status" };
        self.active.get_or_create(&writer).set(number(under_way));
        self.limit.get_or_create(&writer).set(number(limit));
    }

    pub(crate) fn planned(&self, took: Duration, at: i64) {
        self.plan_time.observe(took.as_secs_f64());
        self.last_success.set(at);
    }

    /// A report of the runtime came.
    pub(crate) fn reported(&self, at: i64) {
        self.reported.set(at);
    }

    /// What lag is meant to be.
    pub(crate) fn objective(&self, lag: Duration) {
        self.lag_objective.set(i64::try_from(lag.as_secs()).unwrap_or(i64::MAX));
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    pub(crate) fn watch_failed(&self, resource: &'static str) {
        self.watch_restarts.get_or_create(&Watched { resource }).inc();
    }

    pub(crate) fn holds(&self, kind: Kind, objects: usize, undecodable: usize) {
        self.objects.get_or_create(&Controller { controller: controller(kind) }).set(number(objects));
        self.undecodable.get_or_create(&Controller { controller: controller(kind) }).set(number(undecodable));
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.get_or_create(&Name { name: crate::election::LEASE_NAME }).set(i64::from(leads));
    }

    pub(crate) fn event(&self, result: &'static str) {
        self.events.get_or_create(&Outcome { result }).inc();
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// controller-runtime names a controller after its kind, in lower case.
fn controller(kind: Kind) -> &'static str {
    match kind {
        Kind::ApiContract => "apicontract",
        Kind::Connector => "connector",
        Kind::Integration => "integration",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_controller_runtime_boards_ask_for() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.judged(Kind::Connector, Duration::from_millis(1));
        metrics.patched(Kind::Connector, "timeout", true);
        metrics.queued();
        metrics.writing(1, 2, 8);
        metrics.leads(true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"controller_runtime_reconcile_total{controller="connector",result="success"} 1"#,
            r#"controller_runtime_reconcile_total{controller="connector",result="error"} 1"#,
            r#"controller_runtime_reconcile_errors_total{controller="connector"} 1"#,
            r#"controller_runtime_reconcile_time_seconds_count{controller="connector"} 1"#,
            r#"workqueue_depth{name="status"} 1"#,
            r#"fairlead_status_patches_total{controller="connector",result="timeout"} 1"#,
            r#"leader_election_master_status{name="fairlead-controller"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}
