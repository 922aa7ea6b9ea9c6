//! The router, and what it serves from.

use crate::guard::{Guard, Writing};
use crate::overview::Overview;
use crate::problem::Problem;
use crate::rates::{self, Rates};
use crate::{console, letters};
use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fairlead_engine::Engine;
use fairlead_engine::masks::Masks;
use fairlead_model::report::Reports;
use fairlead_model::unit::ObjectKey;
use fairlead_model::{Clock, SystemClock, realm};
use fairlead_store::{Snapshot, Store, StoreError};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::limit::GlobalConcurrencyLimitLayer;

/// The longest body of a request.
const MAX_BODY: usize = 256 * 1024;
/// Requests that are answered at once, probes aside.
const AT_ONCE: usize = 32;

/// The longest that a request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the process knows of the resources and of itself.
#[async_trait]
pub trait Resources: Send + Sync + 'static {
    /// Every resource with its status, as a Kubernetes List; `None` while the process begins or ends.
    async fn listing(&self) -> Option<Value>;
    /// Whether it is ready.
    fn is_ready(&self) -> bool;
    /// The loops that hang; none is good.
    fn stuck(&self) -> Vec<&'static str>;
}

/// Everything that is served from.
pub struct Surface {
    resources: Box<dyn Resources>,
    engine: Arc<Engine>,
    pub(crate) store: Arc<dyn Store>,
    registry: Registry,
    pub(crate) guard: Guard,
    rates: Mutex<Rates>,
    reports: watch::Receiver<Arc<Reports>>,
}

impl Surface {
    /// What is served from these parts.
    #[must_use]
    pub fn new(resources: impl Resources, engine: Arc<Engine>, store: Arc<dyn Store>, registry: Registry, writing: Writing) -> Self {
        let reports = engine.reports();
        Self { resources: Box::new(resources), engine, store, registry, guard: Guard::new(writing), rates: Mutex::default(), reports }
    }

    /// The same, with the reports of whatever runs units in the engine's place.
    #[must_use]
    pub fn reporting(self, reports: watch::Receiver<Arc<Reports>>) -> Self {
        Self { reports, ..self }
    }

    /// Serves until the listener fails.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let surface = Arc::new(self);
        // Rates look back a minute, also when nobody asked during it.
        let sampled = Arc::downgrade(&surface);
        tokio::spawn(async move {
            while let Some(surface) = sampled.upgrade() {
                if let Err(error) = surface.books().await {
                    tracing::debug!(%error, "no sample for the rates");
                }
                drop(surface);
                tokio::time::sleep(rates::EVERY).await;
            }
        });
        axum::serve(listener, router(surface)).await
    }

    pub(crate) fn reports(&self) -> Arc<Reports> {
        self.reports.borrow().clone()
    }

    pub(crate) fn masks(&self, realm: &str, participant: &str) -> Masks {
        // What does not run shows nothing.
        self.engine.masks(realm, participant).unwrap_or_default()
    }

    /// The ledgers of what runs, with their rates.
    async fn books(&self) -> Result<(BTreeMap<ObjectKey, Snapshot>, BTreeMap<ObjectKey, crate::Rate>), StoreError> {
        let mut counted = self.store.snapshots(None, SystemClock.now()).await?;
        let running = self.reports();
        let books = running.integrations.keys().map(|key| {
            let realm = self.engine.realm(key).unwrap_or_else(|| key.0.clone());
            let book = if realm::is_contract(&realm) {
                // Several feed it.
                counted.get(&realm).map(|all| all.of(|participant| realm::integration(&realm, participant) == *key))
            } else {
                counted.remove(&realm)
            };
            (key.clone(), book.unwrap_or_default())
        });
        let books = books.collect();
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner).observe(&books, Instant::now());
        Ok((books, rates))
    }
}

/// The routes.
pub(crate) fn router(surface: Arc<Surface>) -> Router {
    let api = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/session", get(session))
        .route("/api/v1/dead-letters", get(letters::list))
        .route("/api/v1/dead-letters/{id}", get(letters::show))
        .route("/api/v1/dead-letters/{id}/replay", post(letters::replay))
        .route("/api/v1/dead-letters/{id}/edit", post(letters::edit))
        .route("/api/v1/dead-letters/{id}/discard", post(letters::discard))
        .layer(map_response(never_stored))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .layer(from_fn(in_time));
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).merge(api).merge(console::routes()).with_state(surface)
}

/// Whoever sends a body drop by drop holds its place for so long only.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(PATIENCE, next.run(request)).await;
    answer.unwrap_or_else(|_| (StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response())
}

async fn never_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn healthz(State(surface): State<Arc<Surface>>) -> impl IntoResponse {
    let stuck = surface.resources.stuck();
    if stuck.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("stuck: {}", stuck.join(", ")))
    }
}

async fn readyz(State(surface): State<Arc<Surface>>) -> impl IntoResponse {
    if surface.resources.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the resources are not listed yet")
    }
}

async fn metrics(State(surface): State<Arc<Surface>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &surface.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn listing(surface: &Surface) -> Result<Value, Problem> {
    let listing = surface.resources.listing().await;
    listing.ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the process begins or ends; ask again in a moment"))
}

async fn status(State(surface): State<Arc<Surface>>) -> Result<Json<Value>, Problem> {
    listing(&surface).await.map(Json)
}

async fn overview(State(surface): State<Arc<Surface>>) -> Result<Json<Overview>, Problem> {
    let listing = listing(&surface).await?;
    let (books, rates) = surface.books().await?;
    Ok(Json(Overview::of(&listing, &surface.reports(), &books, &rates)))
}

async fn session(State(surface): State<Arc<Surface>>, headers: HeaderMap) -> Json<Value> {
    Json(json!({"csrf": surface.guard.csrf(), "writing": surface.guard.word(&headers), "version": env!("CARGO_PKG_VERSION")}))
}
