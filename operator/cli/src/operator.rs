//! `fairlead operator`: the loop on a cluster, with the engine in the same process.

use crate::gateway::{self, GatewayArgs, Runtimes};
use crate::state::StateArgs;
use crate::workers::{ClusterTokens, PlannerArgs};
use crate::{run, signal};
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use clap::Args;
use fairlead_admin::{Resources, Surface, Token, Writing};
use fairlead_controller::{
    ClusterSecrets, Directory, Health, LeaseSettings, Metrics, Operator as Controller, Runtime as _, Settings, WorkerTokens,
};
use fairlead_engine::way::Witness;
use fairlead_engine::{Config as EngineConfig, Engine};
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Run on the cluster that KUBECONFIG or the pod's service account names.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    #[command(flatten)]
    state: StateArgs,
    /// Where the console, /status, /metrics, /healthz and /readyz are served.
    #[arg(long, env = "FAIRLEAD_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Networks that endpoints may lie in although they are private or loopback, and over plain HTTP (CIDR,...).
    #[arg(long, env = "FAIRLEAD_ALLOW_ENDPOINTS", value_delimiter = ',')]
    allow_endpoints: Vec<String>,
    /// The namespaces to look at (a,b); all of them when left out.
    #[arg(long, env = "FAIRLEAD_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// The namespace of the lease that decides which replica writes.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// This replica's name, for the lease and for events; the host's name when left out.
    #[arg(long, env = "POD_NAME")]
    name: Option<String>,
    /// A file with a token of at least 16 characters: whoever has it may replay, correct and discard dead letters in the console, and see
    /// personal fields. Without it, the console only shows.
    #[arg(long, env = "FAIRLEAD_CONSOLE_WRITE", value_name = "FILE")]
    console_write: Option<PathBuf>,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    planner: PlannerArgs,
    /// The service accounts whose tokens workers show (NAMESPACE/NAME,...); the tokens are made for the audience fairlead-workers.
    #[arg(long, env = "FAIRLEAD_WORKER_ACCOUNTS", value_delimiter = ',', requires = "workers_listen")]
    worker_accounts: Vec<String>,
}

impl Operator {
    /// Runs until it is told to stop.
    pub(crate) async fn run(self, witness: Option<Arc<dyn Witness>>) -> anyhow::Result<ExitCode> {
        let terminated = signal::terminated();
        let endpoints = run::endpoint_policy(&self.allow_endpoints)?;
        let writing = self.console_write.as_deref().map_or(Ok(Writing::Off), console_token)?;
        let store = self.state.open("/var/lib/fairlead").await?;
        let client = fairlead_controller::connect().await?;

        let mut registry = Registry::default();
        let engine_metrics = Arc::new(fairlead_engine::metrics::Metrics::default());
        engine_metrics.register(&mut registry);
        let metrics = Arc::new(Metrics::default());
        metrics.register(&mut registry);
        let secrets = Arc::new(ClusterSecrets::new(client.clone()));
        let works = self.planner.works();
        let config =
            EngineConfig { metrics: engine_metrics, witness, works, ..EngineConfig::new(Arc::clone(&store), secrets, endpoints.clone()) };
        // The engine's name for its own leases is unique per start; the Kubernetes lease uses the same one.
        let name = self.name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "fairlead".to_owned());
        let lease = LeaseSettings { namespace: self.lease_namespace, identity: format!("{name}_{}", config.holder) };
        let engine = Arc::new(Engine::start(config));
        let judge = |accounts| ClusterTokens(WorkerTokens::new(client.clone(), fairlead_fleet::AUDIENCE, accounts));
        let planner = self.planner.start(&store, || accounts(&self.worker_accounts).map(judge)).await?;
        let serving = gateway::start(&self.gateway, &engine, &store, &endpoints, &mut registry).await?;
        let settings = Settings {
            namespaces: self.namespaces.into_iter().filter(|namespace| !namespace.is_empty()).collect(),
            lease,
            plan: fairlead_plan::Config {
                gateway: serving.as_ref().map(|serving| serving.url.clone()),
                ..fairlead_plan::Config::default()
            },
        };

        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}; choose another address with --listen", self.listen))?;
        let address = listener.local_addr()?;
        let health = Arc::new(Health::default());
        let runtime = Arc::new(Runtimes::new(Arc::clone(&engine), planner, serving));
        let reporting = runtime.reports();
        let controller = Controller::new(client, settings, runtime, metrics, Arc::clone(&health));
        let known = Known { directory: controller.directory(), health };
        let surface = Surface::new(known, engine, store, registry, writing).reporting(reporting);
        tracing::info!(%address, "serving the console, /status, /healthz, /readyz and /metrics");
        let serving = tokio::spawn(surface.serve(listener));

        let stop = CancellationToken::new();
        let told = stop.clone();
        tokio::spawn(async move {
            terminated.await;
            told.cancel();
        });
        controller.run(stop).await;
        serving.abort();
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

/// The accounts of workers as the API server names them.
fn accounts(named: &[String]) -> anyhow::Result<Vec<String>> {
    let accounts = named.iter().filter(|text| !text.is_empty()).map(|text| match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(format!("system:serviceaccount:{namespace}:{name}")),
        _ => bail!("--worker-accounts: {text:?} is no service account; write one as fairlead-system/fairlead-worker"),
    });
    let accounts = accounts.collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(!accounts.is_empty(), "--workers-listen needs --worker-accounts: whose tokens let a worker in");
    Ok(accounts)
}

fn console_token(file: &Path) -> anyhow::Result<Writing> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--console-write: cannot read {}", file.display()))?;
    let token =
        Token::new(&text).with_context(|| format!("--console-write: {} holds fewer than {} characters", file.display(), Token::MIN))?;
    Ok(Writing::Token(token))
}

/// What the operator tells on its admin address.
struct Known {
    directory: Directory,
    health: Arc<Health>,
}

#[async_trait]
impl Resources for Known {
    async fn listing(&self) -> Option<Value> {
        self.directory.listing().await
    }

    fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    fn stuck(&self) -> Vec<&'static str> {
        self.health.stuck()
    }
}
