//! The side that plans: serves units, takes reports, and makes one report of them.

use crate::merge::merge;
use crate::message::{Change, Line, Posted};
use crate::{REPORTS, UNITS};
use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use fairlead_model::report::Reports;
use fairlead_model::unit::Units;
use fairlead_model::{Clock, Random};
use fairlead_store::Store;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

/// Where nothing changes, the stream says so this often.
const BEAT: Duration = Duration::from_secs(5);
/// A worker that has said nothing for so long counts no more.
const SILENT: Duration = Duration::from_secs(30);
/// How often the reports of all are put together.
const MERGE: Duration = Duration::from_millis(500);
/// The largest report of a worker.
const MAX_REPORT: usize = 32 * 1024 * 1024;
/// The longest name of a worker.
const MAX_NAME: usize = 253;
/// A stream is ended after so long at least and at most: whoever is let in shows its token again, and a load balancer in between chooses again. The
/// worker begins a new one, and what it runs goes on.
const STREAM: (Duration, Duration) = (Duration::from_secs(8 * 60), Duration::from_secs(12 * 60));
/// So many workers are listened to.
const MAX_WORKERS: usize = 1024;

/// Why a caller is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no worker.
    Denied,
    /// It cannot be told at the moment.
    Unavailable,
}

/// Whoever was let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bearer {
    /// The pod that its token is bound to, where that is known. One worker runs in it.
    pub pod: Option<String>,
}

/// Tells whether whoever has a bearer token is a worker.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Lets the bearer of `token` in, or says why not.
    async fn admit(&self, token: &str) -> Result<Bearer, Refusal>;
}

/// One token for all workers, from a file. It is kept as its digest: it cannot be printed, and comparing digests tells nothing by its time.
#[derive(Clone, Copy)]
pub struct SharedToken([u8; 32]);

impl SharedToken {
    /// The shortest one that is taken.
    pub const MIN: usize = 16;

    /// The token that a file holds.
    ///
    /// # Errors
    /// The file cannot be read, or holds less than [`SharedToken::MIN`] characters.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let text = text.trim();
        if text.len() < Self::MIN {
            return Err(format!("{} holds fewer than {} characters", file.display(), Self::MIN));
        }
        Ok(Self(digest(text)))
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[async_trait]
impl Admission for SharedToken {
    async fn admit(&self, token: &str) -> Result<Bearer, Refusal> {
        if digest(token) == self.0 { Ok(Bearer::default()) } else { Err(Refusal::Denied) }
    }
}

/// The planner of a fleet of workers.
pub struct Planner {
    admission: Box<dyn Admission>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// What should run; nothing until it was planned for the first time, for "nothing is to run" would stop everything.
    units: watch::Sender<Option<Arc<Units>>>,
    heard: Mutex<BTreeMap<String, Heard>>,
    reports: watch::Receiver<Arc<Reports>>,
}

/// The last that a worker said, its moment by this process's clock.
struct Heard {
    at: Instant,
    by: Bearer,
    reports: Reports,
}

impl Planner {
    /// A planner that knows no units yet. The store tells which worker holds which lease.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>, random: Arc<dyn Random>, admission: impl Admission) -> Arc<Self> {
        let (publish, reports) = watch::channel(Arc::default());
        let units = watch::Sender::new(None);
        let planner = Arc::new(Self { admission: Box::new(admission), clock, random, units, heard: Mutex::default(), reports });
        tokio::spawn(merge_forever(Arc::downgrade(&planner), store, publish));
        planner
    }

    /// Makes `units` what workers run.
    pub fn publish(&self, units: &Units) {
        // Routes are served here.
        let units = Units { routes: BTreeMap::new(), ..units.clone() };
        self.units.send_replace(Some(Arc::new(units)));
    }

    /// The reports of all workers as one.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.reports.clone()
    }

    /// Serves workers until the listener fails.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        axum::serve(listener, self.router()).await
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route(UNITS, get(units))
            .route(REPORTS, post(reports))
            .layer(DefaultBodyLimit::max(MAX_REPORT))
            .layer(from_fn_with_state(Arc::clone(&self), admitted))
            .with_state(self)
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workers that are listened to.
    #[cfg(test)]
    pub(crate) fn heard_of(&self) -> Vec<String> {
        self.heard().keys().cloned().collect()
    }
}

/// Lets workers in, before anything that they send is read.
async fn admitted(State(planner): State<Arc<Planner>>, mut request: Request, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let refused = match bearer {
        None => Refusal::Denied,
        Some(token) => match planner.admission.admit(token.trim()).await {
            Ok(bearer) => {
                request.extensions_mut().insert(bearer);
                return next.run(request).await;
            }
            Err(refused) => refused,
        },
    };
    match refused {
        Refusal::Denied => {
            let asked = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
            (StatusCode::UNAUTHORIZED, asked, "this is for workers with a token of this planner").into_response()
        }
        Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "tokens cannot be judged at the moment").into_response(),
    }
}

async fn merge_forever(planner: std::sync::Weak<Planner>, store: Arc<dyn Store>, publish: watch::Sender<Arc<Reports>>) {
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    while let Some(planner) = planner.upgrade() {
        match store.leases(planner.clock.now()).await {
            Ok(leases) => holders = leases.into_iter().map(|lease| (lease.key, lease.holder)).collect(),
            Err(error) => tracing::debug!(%error, "it cannot be seen who holds what"),
        }
        let workers: BTreeMap<String, Reports> = {
            let mut heard = planner.heard();
            heard.retain(|worker, heard| {
                let alive = heard.at.elapsed() < SILENT;
                if !alive {
                    tracing::warn!(worker, "a worker is silent and counts no more");
                }
                alive
            });
            heard.iter().map(|(worker, heard)| (worker.clone(), heard.reports.clone())).collect()
        };
        // Without any worker the last report stands and grows old, which is what status tells of.
        if !workers.is_empty() {
            let units = planner.units.borrow().clone().unwrap_or_default();
            publish.send_replace(Arc::new(merge(&workers, &holders, &units)));
        }
        drop(planner);
        tokio::time::sleep(MERGE).await;
    }
}

async fn units(State(planner): State<Arc<Planner>>) -> Response {
    let seconds = planner.random.within(STREAM.0.as_secs()..=STREAM.1.as_secs());
    let ends = Instant::now() + Duration::from_secs(seconds);
    let streaming = Streaming { units: planner.units.subscribe(), sent: None, lines: VecDeque::new(), ends };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(futures::stream::unfold(streaming, Streaming::next))).into_response()
}

/// One worker's stream.
struct Streaming {
    units: watch::Receiver<Option<Arc<Units>>>,
    sent: Option<Arc<Units>>,
    lines: VecDeque<Line>,
    ends: Instant,
}

impl Streaming {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                let mut text = match serde_json::to_vec(&line) {
                    Ok(text) => text,
                    Err(error) => {
                        tracing::error!(%error, "units cannot be sent; this is a defect of Fairlead");
                        return None;
                    }
                };
                text.push(b'\n');
                return Some((Ok(text.into()), self));
            }
            // Between whole sets only.
            if Instant::now() >= self.ends {
                return None;
            }
            let now = self.units.borrow_and_update().clone();
            if let Some(now) = now {
                let change = self.sent.as_ref().map_or_else(|| Change::whole(&now), |before| Change::between(before, &now));
                self.sent = Some(now);
                if !change.is_empty() {
                    self.lines.extend(change.pieces().into_iter().map(Line::Units));
                    continue;
                }
            }
            tokio::select! {
                biased;
                changed = self.units.changed() => if changed.is_err() { return None },
                () = tokio::time::sleep(BEAT) => self.lines.push_back(Line::Beat),
            }
        }
    }
}

async fn reports(State(planner): State<Arc<Planner>>, Extension(by): Extension<Bearer>, Json(posted): Json<Posted>) -> Response {
    let Posted { worker, age, reports } = posted;
    if !is_name(&worker) {
        let form = format!("a worker's name has 1 to {MAX_NAME} letters, digits, dots, dashes and underscores");
        return (StatusCode::BAD_REQUEST, form).into_response();
    }
    let mut heard = planner.heard();
    if heard.get(&worker).is_some_and(|heard| heard.by != by) {
        tracing::warn!(worker, pod = by.pod, "a report was refused: the worker of that name runs in another pod");
        return (StatusCode::FORBIDDEN, "the worker of this name runs in another pod").into_response();
    }
    match reports {
        Some(reports) => {
            if by.pod.is_some() {
                // One that started anew in the same pod has taken the place of the one before.
                heard.retain(|name, heard| *name == worker || heard.by != by);
            }
            if heard.len() >= MAX_WORKERS && !heard.contains_key(&worker) {
                return (StatusCode::SERVICE_UNAVAILABLE, format!("{MAX_WORKERS} workers are listened to already")).into_response();
            }
            let reports = Reports { at: planner.clock.now().before(age), routes: BTreeMap::new(), ..reports };
            heard.insert(worker, Heard { at: Instant::now(), by, reports });
        }
        None => {
            tracing::info!(worker, "a worker has left");
            heard.remove(&worker);
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

/// Names stand in leases, logs and metrics.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::{SystemClock, SystemRandom};
    use fairlead_store::SqliteStore;

    /// Lets everybody in; the token is the pod.
    struct Pods;

    #[async_trait]
    impl Admission for Pods {
        async fn admit(&self, token: &str) -> Result<Bearer, Refusal> {
            Ok(Bearer { pod: Some(token.to_owned()) })
        }
    }

    #[tokio::test]
    async fn a_name_is_one_pods_and_a_pod_has_one_worker() {
        let store = Arc::new(SqliteStore::open_in_memory().unwrap());
        let planner = Planner::start(store, Arc::new(SystemClock), Arc::new(SystemRandom), Pods);
        let post = async |pod: &str, worker: &str, leaves: bool| {
            let reports = (!leaves).then(Reports::default);
            let posted = Posted { worker: worker.into(), age: Duration::ZERO, reports };
            let by = Bearer { pod: Some(pod.to_owned()) };
            super::reports(State(Arc::clone(&planner)), Extension(by), Json(posted)).await.status()
        };
        let ok = StatusCode::NO_CONTENT;
        assert_eq!((post("pod-a", "one", false).await, post("pod-b", "two", false).await), (ok, ok));
        assert_eq!(post("pod-b", "one", false).await, StatusCode::FORBIDDEN);
        assert_eq!(post("pod-b", "one", true).await, StatusCode::FORBIDDEN, "nor does it send the other away");
        assert_eq!(planner.heard_of(), ["one", "two"]);
        assert_eq!(post("pod-a", "three", false).await, ok);
        assert_eq!(planner.heard_of(), ["three", "two"], "the process before it is gone");
        assert_eq!(post("pod-a", "three", true).await, ok);
        assert_eq!(planner.heard_of(), ["two"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_beats_and_ends_between_whole_sets() {
        let (units, start) = (watch::Sender::new(Some(Arc::new(Units::default()))), Instant::now());
        let mut stream = Streaming { units: units.subscribe(), sent: None, lines: VecDeque::new(), ends: start + BEAT * 3 };
        let mut told = Vec::new();
        while let Some((line, next)) = stream.next().await {
            told.push((start.elapsed().as_secs(), line.unwrap().starts_with(b"{\"units\"")));
            stream = next;
        }
        assert_eq!(told, [(0, true), (5, false), (10, false), (15, false)]);
        assert_eq!(start.elapsed(), BEAT * 3);
    }
}
