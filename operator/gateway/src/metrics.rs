//! The gateway's numbers. Labels are bounded: contracts that are served, operations, classes of status.

use fairlead_model::metric;
use fairlead_model::route::OperationKind;
use fairlead_model::unit::ObjectKey;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Classes of status, `1xx` never being an answer of ours.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// The route's name for requests that no contract answers.
const NO_ROUTE: &str = "none";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    operation: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    route: String,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

fn seconds() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// The gateway's metrics.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    duration: Family<Operation, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    handshakes: Family<Outcome, Counter>,
    token_cache: Family<Outcome, Counter>,
    keys_fetched: Family<Outcome, Counter>,
    certificates: Family<Outcome, Counter>,
    replayed: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            handshakes: Family::default(),
            token_cache: Family::default(),
            keys_fetched: Family::default(),
            certificates: Family::default(),
            replayed: Counter::default(),
        }
    }
}

impl Metrics {
    /// Puts them into `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(metric::GATEWAY_REQUESTS.name, metric::GATEWAY_REQUESTS.help, self.requests.clone());
        registry.register(metric::GATEWAY_DURATION.name, metric::GATEWAY_DURATION.help, self.duration.clone());
        registry.register(metric::GATEWAY_IN_FLIGHT.name, metric::GATEWAY_IN_FLIGHT.help, self.in_flight.clone());
        registry.register(metric::GATEWAY_CONNECTIONS.name, metric::GATEWAY_CONNECTIONS.help, self.connections.clone());
        registry.register(metric::GATEWAY_HANDSHAKES.name, metric::GATEWAY_HANDSHAKES.help, self.handshakes.clone());
        registry.register(metric::GATEWAY_TOKEN_CACHE.name, metric::GATEWAY_TOKEN_CACHE.help, self.token_cache.clone());
        registry.register(metric::GATEWAY_KEY_SETS.name, metric::GATEWAY_KEY_SETS.help, self.keys_fetched.clone());
        registry.register(metric::GATEWAY_CERTIFICATES.name, metric::GATEWAY_CERTIFICATES.help, self.certificates.clone());
        registry.register(metric::GATEWAY_REPLAYS.name, metric::GATEWAY_REPLAYS.help, self.replayed.clone());
    }

    /// The counters of one operation, so that no label is hashed per request.
    pub(crate) fn operation(&self, route: &ObjectKey, operation: OperationKind) -> OperationMetrics {
        self.named(&route.0, operation.as_str())
    }

    /// The counters of everything that no operation answers.
    pub(crate) fn no_operation(&self) -> OperationMetrics {
        self.named(NO_ROUTE, NO_ROUTE)
    }

    fn named(&self, route: &str, operation: &'static str) -> OperationMetrics {
        OperationMetrics {
            classes: CLASSES.map(|class| self.requests.get_or_create(&Request { route: route.to_owned(), operation, class }).clone()),
            duration: self.duration.get_or_create(&Operation { route: route.to_owned(), operation }).clone(),
        }
    }

    /// Forgets a contract that is served no longer.
    pub(crate) fn forget(&self, route: &ObjectKey) {
        for operation in [OperationKind::List, OperationKind::Get, OperationKind::Create, OperationKind::Update].map(OperationKind::as_str)
        {
            for class in CLASSES {
                self.requests.remove(&Request { route: route.0.clone(), operation, class });
            }
            self.duration.remove(&Operation { route: route.0.clone(), operation });
        }
    }

    pub(crate) fn in_flight(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    pub(crate) fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    pub(crate) fn handshake(&self, good: bool) {
        self.handshakes.get_or_create(&Outcome { result: result(good) }).inc();
    }

    pub(crate) fn token_cache(&self, hit: bool) {
        self.token_cache.get_or_create(&Outcome { result: if hit { "hit" } else { "miss" } }).inc();
    }

    pub(crate) fn keys_fetched(&self, good: bool) {
        self.keys_fetched.get_or_create(&Outcome { result: result(good) }).inc();
    }

    pub(crate) fn certificate(&self, good: bool) {
        self.certificates.get_or_create(&Outcome { result: result(good) }).inc();
    }

    pub(crate) fn replayed(&self) {
        self.replayed.inc();
    }
}

fn result(good: bool) -> &'static str {
    if good { "success" } else { "error" }
}

/// One operation's counters.
#[derive(Debug, Clone)]
pub(crate) struct OperationMetrics {
    classes: [Counter; 4],
    duration: Histogram,
}

impl OperationMetrics {
    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.classes.get(class) {
            counter.inc();
        }
        self.duration.observe(took.as_secs_f64());
    }
}

/// Counts for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
