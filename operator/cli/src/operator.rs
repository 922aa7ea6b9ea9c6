//! `fairlead operator`: the loop on a cluster, with the engine in the same process.

use crate::{run, signal, state};
use anyhow::Context as _;
use clap::Args;
use fairlead_controller::{ClusterSecrets, Health, LeaseSettings, Metrics, Operator as Controller, Settings};
use fairlead_engine::{Config as EngineConfig, Engine};
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Run on the cluster that KUBECONFIG or the pod's service account names.
#[derive(Debug, Args)]
pub(crate) struct Operator {
    /// Where the state lives. Made if missing.
    #[arg(long, env = "FAIRLEAD_STATE", default_value = "/var/lib/fairlead")]
    state: PathBuf,
    /// Where /healthz, /readyz and /metrics are served.
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
}

impl Operator {
    /// Runs until it is told to stop.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let endpoints = run::endpoint_policy(&self.allow_endpoints)?;
        let store = state::open(&self.state)?;
        let client = fairlead_controller::connect().await?;

        let mut registry = Registry::default();
        let engine_metrics = Arc::new(fairlead_engine::metrics::Metrics::default());
        engine_metrics.register(&mut registry);
        let metrics = Arc::new(Metrics::default());
        metrics.register(&mut registry);
        let secrets = Arc::new(ClusterSecrets::new(client.clone()));
        let config = EngineConfig { metrics: engine_metrics, ..EngineConfig::new(store, secrets, endpoints) };
        // The engine's name for its own leases is unique per start; the Kubernetes lease uses the same one.
        let name = self.name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "fairlead".to_owned());
        let settings = Settings {
            namespaces: self.namespaces.into_iter().filter(|namespace| !namespace.is_empty()).collect(),
            lease: LeaseSettings { namespace: self.lease_namespace, identity: format!("{name}_{}", config.holder) },
            plan: fairlead_plan::Config::default(),
        };

        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}; choose another address with --listen", self.listen))?;
        tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
        let health = Arc::new(Health::default());
        let serving = tokio::spawn(fairlead_controller::serve(listener, Arc::clone(&health), registry));

        let stop = CancellationToken::new();
        let told = stop.clone();
        tokio::spawn(async move {
            signal::terminated().await;
            told.cancel();
        });
        Controller::new(client, settings, Arc::new(Engine::start(config)), metrics, health).run(stop).await;
        serving.abort();
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}
