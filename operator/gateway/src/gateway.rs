//! The gateway as a whole: takes units over, reports what is served.

use crate::auth::{KeyFetcher, KeyOptions, KeySets, Verifier};
use crate::backend::Backends;
use crate::idempotency::IdempotencyLog;
use crate::metrics::{Metrics, OperationMetrics};
use crate::page_token::Sealer;
use crate::route::{Route, Workshop, compile};
use crate::table::{Claim, Place, Table, Wish, place};
use arc_swap::ArcSwap;
use fairlead_model::hash::Digest;
use fairlead_model::route::{RejectedRoute, RouteReport, RouteUnit, ServedRoute};
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Clock, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio_util::task::TaskTracker;

/// So long a new unit waits for the first word of issuers that were not known before. An issuer that does not answer holds nothing up for long.
const FIRST_KEYS: Duration = Duration::from_secs(2);

/// What the gateway asks of the rest of the world.
pub struct Parts {
    /// Who answers.
    pub backends: Arc<dyn Backends>,
    /// Who remembers writes.
    pub idempotency: Arc<dyn IdempotencyLog>,
    /// Who fetches issuers' keys.
    pub keys: Arc<dyn KeyFetcher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// How the gateway behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seals page tokens. Keep it across starts and between replicas, or pages begin anew.
    pub page_token_key: [u8; 32],
    /// The largest body, in bytes.
    pub max_body: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// Whether `RateLimit` and `RateLimit-Policy` are sent; they are a draft's, not an RFC's. `Retry-After` always is.
    pub rate_limit_headers: bool,
    /// How many verified tokens are remembered.
    pub token_cache: usize,
    /// How issuers' keys are kept.
    pub keys: KeyOptions,
}

impl Options {
    /// The defaults, with a key for page tokens.
    #[must_use]
    pub fn new(page_token_key: [u8; 32]) -> Self {
        Self {
            page_token_key,
            max_body: 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            rate_limit_headers: true,
            token_cache: 10_000,
            keys: KeyOptions::default(),
        }
    }
}

/// Reports, by contract.
pub type Reports = BTreeMap<ObjectKey, RouteReport>;

/// Serves contracts. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    workshop: Workshop,
    pub(crate) verifier: Verifier,
    pub(crate) sealer: Sealer,
    pub(crate) idempotency: Arc<dyn IdempotencyLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) no_operation: OperationMetrics,
    /// Writes that run, whether or not somebody waits for them.
    pub(crate) writes: TaskTracker,
    snapshot: ArcSwap<Snapshot>,
    reports: watch::Sender<Reports>,
    applying: Mutex<()>,
}

/// Everything that is served at one moment; replaced whole.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Units were handed over at least once: what is not in the table is not served.
    pub(crate) applied: bool,
    pub(crate) table: Table<Arc<Route>>,
    served: BTreeMap<ObjectKey, Served>,
    rejected: BTreeMap<ObjectKey, RejectedRoute>,
}

/// Units, compiled or not, with their digests.
type Compiled = BTreeMap<ObjectKey, (Digest, Result<Arc<Route>, String>)>;

#[derive(Clone)]
struct Served {
    route: Arc<Route>,
    since: Timestamp,
}

impl Gateway {
    /// A gateway that serves nothing yet. Runs tasks on the present tokio runtime; they end with its last clone.
    #[must_use]
    pub fn new(parts: Parts, options: Options) -> Self {
        let metrics = Arc::new(Metrics::default());
        let keys = KeySets::new(parts.keys, parts.clock.clone(), options.keys.clone(), metrics.clone());
        let mut changes = keys.changes();
        let shared = Arc::new(Shared {
            workshop: Workshop { backends: parts.backends, keys, metrics: metrics.clone() },
            verifier: Verifier::new(options.token_cache, metrics.clone()),
            sealer: Sealer::new(&options.page_token_key),
            idempotency: parts.idempotency,
            clock: parts.clock,
            options,
            no_operation: metrics.no_operation(),
            metrics,
            writes: TaskTracker::new(),
            snapshot: ArcSwap::default(),
            reports: watch::Sender::default(),
            applying: Mutex::default(),
        });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(shared) = weak.upgrade() else { return };
                shared.verifier.flush();
                shared.publish();
            }
        });
        Self(shared)
    }

    /// Its numbers.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
    }

    /// What is served and what is not. A digest appears here only when requests are answered by it.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Reports> {
        self.0.reports.subscribe()
    }

    /// Serves exactly `units` from now on. Compiled aside and swapped whole: a request sees either all of the old or all of the new, and none is
    /// dropped. A unit that cannot be served leaves its last good one serving; [`Gateway::reports`] says why. Returns after the swap.
    pub async fn apply(&self, units: BTreeMap<ObjectKey, Arc<RouteUnit>>) {
        let _one_at_a_time = self.0.applying.lock().await;
        let shared = self.0.clone();
        match tokio::task::spawn_blocking(move || shared.compile(units)).await {
            Ok(compiled) => {
                self.0.ask_for_keys(&compiled).await;
                self.0.swap(compiled);
            }
            Err(failure) => tracing::error!(error = %failure, "units could not be compiled; what was served goes on"),
        }
    }
}

impl Shared {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    fn compile(&self, units: BTreeMap<ObjectKey, Arc<RouteUnit>>) -> Compiled {
        let old = self.snapshot.load();
        let mut compiled = BTreeMap::new();
        for (key, unit) in units {
            let served = old.served.get(&key).map(|served| &served.route);
            let digest = unit.digest.clone();
            let route = match served.filter(|route| route.unit.digest == digest) {
                Some(route) => Ok(route.clone()),
                None => compile(&self.workshop, &key, unit, served.map(|route| &**route)).map(Arc::new),
            };
            compiled.insert(key, (digest, route));
        }
        compiled
    }

    /// Waits until each issuer's keys were fetched once or could not be, so that a report does not say of a moment that they are missing.
    async fn ask_for_keys(&self, compiled: &Compiled) {
        let mut changes = self.workshop.keys.changes();
        let routes = || compiled.values().filter_map(|(_, route)| route.as_ref().ok());
        let asked = || routes().all(|route| route.issuers.iter().all(|trusted| trusted.keys.asked()));
        let all = async { while !asked() && changes.changed().await.is_ok() {} };
        // Who is silent for longer is reported as what it is then: without keys.
        let _ = tokio::time::timeout(FIRST_KEYS, all).await;
    }

    fn swap(&self, compiled: Compiled) {
        let old = self.snapshot.load_full();
        let now = self.clock.now();
        let claim = |route: &Arc<Route>| Claim { path: route.path.clone(), hosts: route.unit.hostnames.clone() };
        let wishes: BTreeMap<ObjectKey, Wish> = compiled
            .iter()
            .map(|(key, (_, route))| {
                let served = old.served.get(key).map(|served| claim(&served.route));
                (key.clone(), Wish { served, wanted: route.as_ref().ok().map(claim) })
            })
            .collect();
        let mut places = place(&wishes);
        let mut next = Snapshot { applied: true, ..Snapshot::default() };
        for (key, (digest, route)) in compiled {
            let serve = |next: &mut Snapshot, served: Served| {
                next.table.insert(claim(&served.route), served.route.clone());
                next.served.insert(key.clone(), served);
            };
            let conflict = match (places.remove(&key), old.served.get(&key)) {
                (Some(Place::New), before) => {
                    if let Ok(route) = route {
                        let since = before.filter(|before| before.route.unit.digest == digest).map_or(now, |before| before.since);
                        serve(&mut next, Served { route, since });
                    }
                    continue;
                }
                (Some(Place::Old(conflict)), Some(before)) => {
                    serve(&mut next, before.clone());
                    conflict
                }
                (Some(Place::Nothing(conflict) | Place::Old(conflict)), _) => conflict,
                (None, _) => None,
            };
            let message = match (&route, &conflict) {
                (Err(problem), _) => problem.clone(),
                (Ok(route), Some(other)) => format!("{} is served by {other} already; another path or host is needed", route.path),
                (Ok(route), None) => format!("{} cannot be served", route.path),
            };
            next.rejected.insert(key.clone(), RejectedRoute { digest, conflict, message });
        }
        let gone: Vec<ObjectKey> =
            old.served.keys().chain(next.rejected.keys()).filter(|key| !next.served.contains_key(*key)).cloned().collect();
        self.snapshot.store(Arc::new(next));
        gone.iter().for_each(|key| self.metrics.forget(key));
        self.publish();
    }

    fn publish(&self) {
        let snapshot = self.snapshot.load_full();
        let mut reports = Reports::new();
        let empty = || RouteReport { served: None, rejected: None, issuers: BTreeMap::new() };
        for (key, Served { route, since }) in &snapshot.served {
            let report = reports.entry(key.clone()).or_insert_with(empty);
            report.served = Some(ServedRoute { digest: route.unit.digest.clone(), version: route.unit.version.clone(), since: *since });
            report.issuers = route.issuers.iter().filter_map(|trusted| Some((trusted.issuer.clone(), trusted.keys.unusable()?))).collect();
        }
        for (key, rejected) in &snapshot.rejected {
            reports.entry(key.clone()).or_insert_with(empty).rejected = Some(rejected.clone());
        }
        self.reports.send_if_modified(|present| {
            let changed = *present != reports;
            *present = reports;
            changed
        });
    }
}
