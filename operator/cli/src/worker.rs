//! `fairlead worker`: runs what another process plans.

use crate::files::{self, FileSecrets};
use crate::state::StateArgs;
use crate::workers::is_shared;
use crate::{run, signal};
use anyhow::Context as _;
use async_trait::async_trait;
use clap::Args;
use fairlead_admin::{Resources, Surface, Writing};
use fairlead_controller::ClusterSecrets;
use fairlead_engine::way::Witness;
use fairlead_engine::{Config as EngineConfig, Engine};
use fairlead_fleet::{Follower, Link, worker};
use fairlead_model::unit::Units;
use fairlead_model::{SystemClock, SystemRandom};
use fairlead_systems::SecretSource;
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How long what is in flight may take to settle.
const SETTLE: Duration = Duration::from_secs(20);
/// How long telling the planner may take.
const LEAVE: Duration = Duration::from_secs(3);
/// How often manifests with Secrets are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Run what `fairlead operator` or `fairlead run` plans (--workers-listen), together with other workers on one PostgreSQL.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[command(flatten)]
    state: StateArgs,
    /// Where the planner serves units, such as https://fairlead.fairlead-system.svc:8082.
    #[arg(long, env = "FAIRLEAD_PLANNER", value_name = "URL")]
    planner: String,
    /// A file with the token that the planner takes; in a cluster, a projected service account token for the audience fairlead-workers.
    #[arg(long, env = "FAIRLEAD_WORKER_TOKEN_FILE", value_name = "FILE")]
    worker_token_file: PathBuf,
    /// Certificates in PEM to trust for the planner besides the system's own.
    #[arg(long, env = "FAIRLEAD_PLANNER_CA", value_name = "FILE")]
    planner_ca: Option<PathBuf>,
    /// Speak plain HTTP to a planner on another machine, where something in between adds TLS.
    #[arg(long, env = "FAIRLEAD_PLAIN_HTTP")]
    plain_http: bool,
    /// Folder (or files) of manifests to take Secrets from, where the planner is `fairlead run`; in a cluster they are read by name.
    #[arg(long)]
    secrets: Vec<PathBuf>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "FAIRLEAD_LISTEN", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Networks that endpoints may lie in although they are private or loopback, and over plain HTTP (CIDR,...).
    #[arg(long, env = "FAIRLEAD_ALLOW_ENDPOINTS", value_delimiter = ',')]
    allow_endpoints: Vec<String>,
}

impl Worker {
    /// Runs until it is told to stop.
    pub(crate) async fn run(self, witness: Option<Arc<dyn Witness>>) -> anyhow::Result<ExitCode> {
        let terminated = signal::terminated();
        let endpoints = run::endpoint_policy(&self.allow_endpoints)?;
        let certificates = self.planner_ca.as_deref().map(|file| read(file, "--planner-ca")).transpose()?;
        let link = Link::new(&self.planner, self.plain_http, self.worker_token_file, certificates.as_deref()).context("--planner")?;
        let store = self.state.open(".fairlead").await?;
        is_shared(store.as_ref())?;
        let secrets: Arc<dyn SecretSource> = if self.secrets.is_empty() {
            Arc::new(ClusterSecrets::new(fairlead_controller::connect().await?))
        } else {
            from_manifests(self.secrets).await?
        };

        let mut registry = Registry::default();
        let metrics = Arc::new(fairlead_engine::metrics::Metrics::default());
        metrics.register(&mut registry);
        let config = EngineConfig { metrics, witness, ..EngineConfig::new(Arc::clone(&store), secrets, endpoints) };
        let name = config.holder.clone();
        let engine = Arc::new(Engine::start(config));

        let (tell, units) = watch::channel(None);
        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}; choose another address with --listen", self.listen))?;
        tracing::info!(address = %listener.local_addr()?, worker = %name, planner = %self.planner, "working; serving /healthz, /readyz and /metrics");
        let surface = Surface::new(Following(units.clone()), Arc::clone(&engine), store, registry, Writing::Off);
        tokio::spawn(surface.serve(listener));

        let following = tokio::spawn(Follower::new(link.clone(), Arc::new(SystemRandom)).follow(tell));
        let (first, taken_over) = oneshot::channel();
        let running = tokio::spawn(take_over(Arc::clone(&engine), units, first));
        let report = worker::report(link.clone(), name.clone(), Arc::new(SystemClock), engine.reports());
        let reporting = tokio::spawn(async move {
            // What it has not taken over yet would count as not running anywhere.
            if taken_over.await.is_ok() {
                report.await;
            }
        });
        terminated.await;
        following.abort();
        // An engine that stops has less and less to report; that it leaves, is what is to be told.
        reporting.abort();
        let _ = reporting.await;
        let stopping = async {
            // A swap under way is completed first: cut off, it would leave behind what it had just taken out.
            let _ = running.await;
            engine.stop().await;
        };
        let leaving = tokio::time::timeout(LEAVE, worker::leave(&link, name));
        let (_, settled) = tokio::join!(leaving, tokio::time::timeout(SETTLE, stopping));
        if settled.is_err() {
            tracing::warn!("what is in flight has not settled in time; it is looked up by whoever goes on");
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs each set of units, the newest where several came meanwhile, until no more can come; tells when the first one runs.
async fn take_over(engine: Arc<Engine>, mut units: watch::Receiver<Option<Arc<Units>>>, first: oneshot::Sender<()>) {
    let mut first = Some(first);
    while units.changed().await.is_ok() {
        let now = units.borrow_and_update().clone();
        if let Some(now) = now {
            engine.apply(&now).await;
            if let Some(first) = first.take() {
                let _ = first.send(());
            }
        }
    }
}

fn read(file: &Path, flag: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{flag}: cannot read {}", file.display()))
}

/// The Secrets of manifests, which may change.
async fn from_manifests(folder: Vec<PathBuf>) -> anyhow::Result<Arc<dyn SecretSource>> {
    let secrets = Arc::new(FileSecrets::default());
    let load = |folder: &[PathBuf]| files::find(folder).map(|found| files::load(&found, false).secrets);
    secrets.replace(load(&folder).context("--secrets")?);
    let told = Arc::clone(&secrets);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            match load(&folder) {
                Ok(secrets) => told.replace(secrets),
                Err(error) => tracing::warn!(%error, "the manifests with Secrets cannot be read; what was read before stands"),
            }
        }
    });
    Ok(secrets)
}

/// What a worker tells of itself: it has no resources, and is ready once it was told what to run.
struct Following(watch::Receiver<Option<Arc<Units>>>);

#[async_trait]
impl Resources for Following {
    async fn listing(&self) -> Option<Value> {
        None
    }

    fn is_ready(&self) -> bool {
        self.0.borrow().is_some()
    }

    fn stuck(&self) -> Vec<&'static str> {
        Vec::new()
    }
}
