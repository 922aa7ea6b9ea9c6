//! The admin surface: `/healthz`, `/readyz`, `/metrics`, over plain HTTP. It reads and changes nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::health::Health;

struct Surface {
    health: Arc<Health>,
    registry: Registry,
}

/// Serves until the listener fails.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, health: Arc<Health>, registry: Registry) -> std::io::Result<()> {
    let surface = Arc::new(Surface { health, registry });
    let routes = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics));
    axum::serve(listener, routes.with_state(surface)).await
}

async fn healthz(State(surface): State<Arc<Surface>>) -> impl IntoResponse {
    let stuck = surface.health.stuck();
    if stuck.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("stuck: {}", stuck.join(", ")))
    }
}

async fn readyz(State(surface): State<Arc<Surface>>) -> impl IntoResponse {
    if surface.health.is_ready() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "the resources are not listed yet") }
}

async fn metrics(State(surface): State<Arc<Surface>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &surface.registry) {
        Ok(()) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
