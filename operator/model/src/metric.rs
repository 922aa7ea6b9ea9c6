//! Every metric that Fairlead exposes: name, type, labels and meaning, defined once. The rooms register theirs from here; the reference page,
//! the alert rules and the board are compared with this table by tests.

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Its name. A counter's samples have `_total` after it.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels. Their values are names of resources and participants, or words from fixed lists.
    pub labels: &'static [&'static str],
    /// What it says, without a full stop.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until the process starts again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations in buckets.
    Histogram,
}

impl Kind {
    /// The word that the exposition format has for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Definition {
    /// The names that a query may use.
    #[must_use]
    pub fn series(&self) -> Vec<String> {
        match self.kind {
            Kind::Counter => vec![format!("{}_total", self.name)],
            Kind::Gauge => vec![self.name.to_owned()],
            Kind::Histogram => ["bucket", "sum", "count"].iter().map(|part| format!("{}_{part}", self.name)).collect(),
        }
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Definition = Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All of them, in the order of the reference page.
        pub const ALL: &[Definition] = &[$($constant),*];
    };
}

metrics! {
    // The data plane.
    RECORDS_READ = Counter "fairlead_records_read" ["integration", "participant", "result"] "Records read, by what they were: absorbed, unchanged, dead_lettered";
    RECORDS_SETTLED = Counter "fairlead_records_settled" ["integration", "participant", "result"] "Lane entries settled, by outcome: delivered, unchanged, filtered, retried, waiting, dead_lettered";
    CONFLICTS = Counter "fairlead_conflicts" ["integration", "participant"] "Changes made in a participant to fields that another owns, or deletions of records that are not its to delete";
    LANE_PENDING = Gauge "fairlead_lane_pending" ["integration", "participant"] "Keys waiting in a target's lane";
    DEAD_LETTERS = Gauge "fairlead_dead_letters" ["integration", "participant"] "Open dead letters";
    DEAD_LETTERS_REMOVED = Counter "fairlead_dead_letters_removed" ["integration"] "Closed dead letters that were removed when their time was over";
    LAG = Gauge "fairlead_lag_seconds" ["integration"] "Age of the oldest undelivered change plus overdue reading";
    LEDGER_UNBALANCED = Gauge "fairlead_ledger_unbalanced" ["integration"] "1 while the ledger does not add up";
    LAST_READ = Gauge "fairlead_last_read_timestamp_seconds" ["integration", "participant"] "When a participant was last read to its present (Unix time)";
    LAST_DELIVERED = Gauge "fairlead_last_delivered_timestamp_seconds" ["integration"] "When a write was last acknowledged (Unix time)";
    RECONCILIATION_DRIFT = Gauge "fairlead_reconciliation_drift" ["integration", "kind"] "Differences that the last reconciliation found, by kind: missing, different, unread, gone";
    RECONCILIATION_SUCCESS = Gauge "fairlead_reconciliation_last_success_timestamp_seconds" ["integration"] "When a reconciliation last left nothing to put right (Unix time)";
    ROLLOUT = Gauge "fairlead_rollout" ["integration", "phase"] "1 for the phase of a revision that is to take over: shadow, canary, stopped";
    CONNECTOR_REACHABLE = Gauge "fairlead_connector_reachable" ["connector"] "1 while the last authenticated probe succeeded";
    CONNECTOR_CIRCUIT_OPEN = Gauge "fairlead_connector_circuit_open" ["connector"] "1 while nothing is sent, because requests failed";
    CONNECTOR_QUOTA_LOW = Gauge "fairlead_connector_quota_low" ["connector"] "1 while so little of the quota is left that backfills wait, 2 while only what is kept for callers of the API is";
    CONNECTOR_REQUESTS_USED = Gauge "fairlead_connector_requests_used" ["connector", "window"] "Requests of a window of the quota that are used, by window: day (UTC, counted here), vendor (as it tells)";
    CONNECTOR_REQUESTS_LIMIT = Gauge "fairlead_connector_requests_limit" ["connector", "window"] "Requests that a window of the quota has, where it is limited";
    CONNECTOR_REQUESTS_WAITING = Gauge "fairlead_connector_requests_waiting" ["connector", "priority"] "Requests that wait for their turn, by priority: interactive, live, flow, backfill";
    // The control plane, under controller-runtime's names where it has one.
    RECONCILE = Counter "controller_runtime_reconcile" ["controller", "result"] "Judgements of an object, by kind and result";
    RECONCILE_ERRORS = Counter "controller_runtime_reconcile_errors" ["controller"] "Judgements whose status could not be written";
    RECONCILE_PANICS = Counter "controller_runtime_reconcile_panics" [] "Plans that ended in a panic";
    RECONCILE_TIME = Histogram "controller_runtime_reconcile_time_seconds" ["controller"] "Time to judge one object";
    ACTIVE_WORKERS = Gauge "controller_runtime_active_workers" ["controller"] "Status writes under way";
    MAX_CONCURRENT = Gauge "controller_runtime_max_concurrent_reconciles" ["controller"] "Status writes that may be under way at once";
    QUEUE_DEPTH = Gauge "workqueue_depth" ["name"] "Status writes that wait";
    QUEUE_ADDS = Counter "workqueue_adds" ["name"] "Status writes that were queued";
    STATUS_PATCHES = Counter "fairlead_status_patches" ["controller", "result"] "Status writes, by kind and result";
    WATCH_RESTARTS = Counter "fairlead_watch_restarts" ["resource"] "Watches that failed and began again";
    UNDECODABLE = Gauge "fairlead_undecodable_objects" ["controller"] "Objects that are stored and do not fit their schema";
    OBJECTS = Gauge "fairlead_objects" ["controller"] "Objects that are known";
    LEADER = Gauge "leader_election_master_status" ["name"] "1 while this replica writes status";
    LAST_SUCCESS = Gauge "fairlead_last_success_timestamp_seconds" [] "When the last plan succeeded (Unix time)";
    RUNTIME_REPORTED = Gauge "fairlead_runtime_reported_timestamp_seconds" [] "When the runtime last reported (Unix time)";
    LAG_OBJECTIVE = Gauge "fairlead_lag_objective_seconds" [] "The lag beyond which an Integration is Lagging";
    PLAN_TIME = Histogram "fairlead_plan_seconds" [] "Time of one plan of everything";
    EVENTS = Counter "fairlead_events_published" ["result"] "Events, by result";
    // The gateway.
    GATEWAY_REQUESTS = Counter "fairlead_gateway_requests" ["route", "operation", "class"] "Requests answered, by contract, operation and class of status";
    GATEWAY_DURATION = Histogram "fairlead_gateway_request_duration_seconds" ["route", "operation"] "From a request's head to its answer";
    GATEWAY_IN_FLIGHT = Gauge "fairlead_gateway_requests_in_flight" [] "Requests being answered";
    GATEWAY_CONNECTIONS = Gauge "fairlead_gateway_connections" [] "Open connections";
    GATEWAY_HANDSHAKES = Counter "fairlead_gateway_tls_handshakes" ["result"] "TLS handshakes, by result";
    GATEWAY_TOKEN_CACHE = Counter "fairlead_gateway_token_cache" ["result"] "Tokens looked for among the verified ones, by result";
    GATEWAY_KEY_SETS = Counter "fairlead_gateway_key_set_fetches" ["result"] "Fetches of issuers' key sets, by result";
    GATEWAY_CERTIFICATES = Counter "fairlead_gateway_certificate_reloads" ["result"] "Certificates read anew, by result";
    GATEWAY_REPLAYS = Counter "fairlead_gateway_idempotent_replays" [] "Writes answered from the idempotency log";
}

/// The reference page.
#[must_use]
pub fn page() -> String {
    let mut text = "# Metrics\n\nGenerated from `operator/model/src/metric.rs`. Served at `/metrics` of the admin address, in the OpenMetrics text \
                    format. Label values are names of\nresources (`namespace/name`) and participants, or words from fixed lists, so the number of \
                    series is bounded by what is declared. The\n[alert rules](../../charts/fairlead/files/prometheus-rules.yaml) and the \
                    [board](../../charts/fairlead/files/grafana-dashboard.json) use no others.\n\n\
                    | name | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for metric in ALL {
        let names = metric.series().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ");
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        text.push_str(&format!("| {names} | {} | {labels} | {} |\n", metric.kind.word(), metric.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_defined_once_and_under_a_name_that_prometheus_takes() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert!(metric.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", metric.name);
            assert!(!metric.name.ends_with("_total"), "{}: the exposition adds it", metric.name);
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
