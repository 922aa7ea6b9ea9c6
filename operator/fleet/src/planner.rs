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
use axum::{Json, Router};
use bytes::Bytes;
use fairlead_model::Clock;
use fairlead_model::report::Reports;
use fairlead_model::unit::Units;
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

/// Tells whether whoever has a bearer token is a worker.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Lets the bearer of `token` in, or says why not.
    async fn admit(&self, token: &str) -> Result<(), Refusal>;
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
    async fn admit(&self, token: &str) -> Result<(), Refusal> {
        if digest(token) == self.0 { Ok(()) } else { Err(Refusal::Denied) }
    }
}

/// The planner of a fleet of workers.
pub struct Planner {
    admission: Box<dyn Admission>,
    clock: Arc<dyn Clock>,
    /// What should run; nothing until it was planned for the first time, for "nothing is to run" would stop everything.
    units: watch::Sender<Option<Arc<Units>>>,
    heard: Mutex<BTreeMap<String, Heard>>,
    reports: watch::Receiver<Arc<Reports>>,
}

/// The last that a worker said, its moment by this process's clock.
struct Heard {
    at: Instant,
    reports: Reports,
}

impl Planner {
    /// A planner that knows no units yet. The store tells which worker holds which lease.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>, admission: impl Admission) -> Arc<Self> {
        let (publish, reports) = watch::channel(Arc::default());
        let units = watch::Sender::new(None);
        let planner = Arc::new(Self { admission: Box::new(admission), clock, units, heard: Mutex::default(), reports });
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
async fn admitted(State(planner): State<Arc<Planner>>, request: Request, next: Next) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let refused = match bearer {
        None => Refusal::Denied,
        Some(token) => match planner.admission.admit(token.trim()).await {
            Ok(()) => return next.run(request).await,
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
    let streaming = Streaming { units: planner.units.subscribe(), sent: None, lines: VecDeque::new() };
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

async fn reports(State(planner): State<Arc<Planner>>, Json(posted): Json<Posted>) -> Response {
    let Posted { worker, age, reports } = posted;
    let mut heard = planner.heard();
    if worker.is_empty() || worker.len() > MAX_NAME || (heard.len() >= MAX_WORKERS && !heard.contains_key(&worker)) {
        return (StatusCode::BAD_REQUEST, "a worker has a name, and there are not too many of them").into_response();
    }
    match reports {
        Some(reports) => {
            let reports = Reports { at: planner.clock.now().before(age), routes: BTreeMap::new(), ..reports };
            heard.insert(worker, Heard { at: Instant::now(), reports });
        }
        None => {
            tracing::info!(worker, "a worker has left");
            heard.remove(&worker);
        }
    }
    StatusCode::NO_CONTENT.into_response()
}
