//! `fairlead run DIR`: a folder of manifests in place of a cluster.

use crate::home::Home;
use crate::{signal, state};
use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::{Args, ValueEnum};
use fairlead_engine::metrics::Metrics;
use fairlead_systems::EndpointPolicy;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// How often files and reports are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Run the manifests of a folder without a cluster.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Folder (or files) with Connectors, ApiContracts, Integrations, Secrets and ConfigMaps; watched for changes.
    #[arg(required = true)]
    folder: Vec<PathBuf>,
    /// Where the state lives. Made if missing.
    #[arg(long, default_value = ".fairlead")]
    state: PathBuf,
    /// Where /status, /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// End when nothing moves any more: exit code 0 if all is Ready, the lanes are empty and no dead letter is open, 1 with the findings
    /// otherwise.
    #[arg(long)]
    until: Option<Until>,
    /// Networks that endpoints may lie in although they are private or loopback, and over plain HTTP (CIDR,...).
    #[arg(long, value_delimiter = ',')]
    allow_endpoints: Vec<String>,
    /// How the status is printed when the command ends.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// When `run` ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// When nothing moves any more.
    Settled,
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

impl Run {
    /// Runs until it is told to stop, or until things have settled.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = state::open(&self.state)?;
        let endpoints = endpoint_policy(&self.allow_endpoints)?;
        let metrics = Arc::new(Metrics::default());
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut home = Home::new(self.folder.clone(), store, endpoints, metrics);
        home.tick().await.context("read the folder of manifests")?;
        let served = Arc::new(Served { listing: RwLock::new(home.listing()), registry });
        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}; choose another address with --listen", self.listen))?;
        tracing::info!(address = %listener.local_addr()?, "serving /status");
        tokio::spawn(serve(listener, Arc::clone(&served)));

        for line in home.faults() {
            tracing::warn!("{line}");
        }
        let mut stop = std::pin::pin!(signal::terminated());
        let mut settled: Option<(fairlead_model::Timestamp, tokio::time::Instant)> = None;
        let code = loop {
            tokio::select! {
                () = &mut stop => break ExitCode::SUCCESS,
                () = tokio::time::sleep(TICK) => {}
            }
            match home.tick().await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!("manifests were taken over");
                    for line in home.faults() {
                        tracing::warn!("{line}");
                    }
                }
                // What runs goes on; the next look may find them again.
                Err(error) => tracing::warn!(%error, "the manifests cannot be read; what ran before goes on"),
            }
            if let Ok(mut listing) = served.listing.write() {
                *listing = home.listing();
            }
            if self.until == Some(Until::Settled) {
                // Once is a moment; twice, a second apart and from different reports, is rest.
                let standing = home.standing();
                match settled {
                    _ if !standing.resting => settled = None,
                    None => settled = Some((standing.at, tokio::time::Instant::now())),
                    Some((at, since)) if standing.at > at && since.elapsed() >= Duration::from_secs(2) => {
                        break if standing.well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                    }
                    Some(_) => {}
                }
            }
        };
        let (listing, findings) = (home.listing(), home.findings());
        let dead_letters = home.standing().dead_letters;
        home.stop().await;
        print(self.output, &listing, if code == ExitCode::SUCCESS { &[] } else { &findings }, dead_letters)?;
        Ok(code)
    }
}

/// Networks from the command line.
pub(crate) fn endpoint_policy(allow: &[String]) -> anyhow::Result<EndpointPolicy> {
    let mut nets = Vec::new();
    for text in allow.iter().filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(net) => nets.push(net),
            Err(_) => bail!("--allow-endpoints: {text:?} is no network; write one as 10.1.0.0/16"),
        }
    }
    Ok(EndpointPolicy { allow: nets })
}

#[allow(clippy::print_stdout, reason = "what the command was asked to print")]
fn print(output: Output, listing: &Value, findings: &[String], dead_letters: u64) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(listing)?),
        Output::Table => {
            for item in listing["items"].as_array().into_iter().flatten() {
                let ready = crate::home::condition(item, "Ready");
                println!(
                    "{:<12} {}/{}  Ready={} {}",
                    item["kind"].as_str().unwrap_or_default(),
                    item["metadata"]["namespace"].as_str().unwrap_or_default(),
                    item["metadata"]["name"].as_str().unwrap_or_default(),
                    ready.and_then(|r| r["status"].as_str()).unwrap_or("Unknown"),
                    ready.and_then(|r| r["reason"].as_str()).unwrap_or_default(),
                );
            }
        }
    }
    let mut lines: Vec<String> = findings.to_vec();
    if dead_letters > 0 && !findings.is_empty() {
        lines.push(format!("{dead_letters} dead letters are open; see them with `fairlead dead-letters list`"));
    }
    for line in lines {
        match output {
            Output::Json => tracing::error!("{line}"),
            Output::Table => println!("{line}"),
        }
    }
    Ok(())
}

struct Served {
    listing: RwLock<Value>,
    registry: Registry,
}

async fn serve(listener: tokio::net::TcpListener, served: Arc<Served>) {
    let app = Router::new()
        .route(
            "/status",
            get(|State(served): State<Arc<Served>>| async move { Json(served.listing.read().map(|l| l.clone()).unwrap_or(json!(null))) }),
        )
        .route("/metrics", get(|State(served): State<Arc<Served>>| async move { encode(&served.registry) }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .with_state(served);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the status address is no longer served");
    }
}

fn encode(registry: &Registry) -> Result<String, StatusCode> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(text)
}
