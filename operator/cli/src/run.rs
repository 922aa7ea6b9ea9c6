//! `fairlead run DIR`: a folder of manifests in place of a cluster.

use crate::gateway::{self, GatewayArgs};
use crate::home::Home;
use crate::screen;
use crate::signal;
use crate::state::StateArgs;
use crate::workers::PlannerArgs;
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use clap::{Args, ValueEnum};
use fairlead_admin::{Resources, Surface, Writing};
use fairlead_engine::way::Witness;
use fairlead_fleet::SharedToken;
use fairlead_systems::EndpointPolicy;
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// How often files and reports are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Run the manifests of a folder without a cluster.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Folder (or files) with Connectors, ApiContracts, Integrations, Secrets and ConfigMaps; watched for changes.
    #[arg(required = true)]
    folder: Vec<PathBuf>,
    #[command(flatten)]
    state: StateArgs,
    /// Where the console, /status, /metrics, /healthz and /readyz are served.
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
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    planner: PlannerArgs,
    /// A file with the token of at least 16 characters that workers must show.
    #[arg(long, env = "FAIRLEAD_WORKER_TOKEN_FILE", value_name = "FILE", requires = "workers_listen")]
    worker_token_file: Option<PathBuf>,
    /// Give tokens to anybody who asks on this loopback address, for calling what --gateway-listen serves. For development only.
    #[arg(long, requires = "gateway_listen")]
    dev_tokens: Option<SocketAddr>,
    /// Whom these tokens are for, unless the client asks for another audience.
    #[arg(long, default_value = "fairlead")]
    dev_audience: String,
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
    pub(crate) async fn run(self, witness: Option<Arc<dyn Witness>>) -> anyhow::Result<ExitCode> {
        let store = self.state.open(".fairlead").await?;
        let endpoints = endpoint_policy(&self.allow_endpoints)?;
        let _issuer = match self.dev_tokens {
            Some(address) => Some(gateway::issuer(address, &self.dev_audience).await?),
            None => None,
        };
        let mut registry = Registry::default();
        let token = || {
            let file = self.worker_token_file.as_deref().context("--workers-listen needs --worker-token-file")?;
            SharedToken::read(file).map_err(|why| anyhow::anyhow!("--worker-token-file: {why}"))
        };
        let planner = self.planner.start(&store, token).await?;
        let mut home =
            Home::new(self.folder.clone(), Arc::clone(&store), endpoints, &self.gateway, planner, &mut registry, witness).await?;
        home.tick().await.context("read the folder of manifests")?;
        let shown = Arc::new(RwLock::new(Arc::new(home.listing())));
        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}; choose another address with --listen", self.listen))?;
        let address = listener.local_addr()?;
        tracing::info!(%address, console = %format_args!("http://{address}/console/"), "serving status, metrics and the console");
        let surface = Surface::new(Shown(Arc::clone(&shown)), home.engine(), store, registry, Writing::Local).reporting(home.reporting());
        tokio::spawn(async move {
            if let Err(error) = surface.serve(listener).await {
                tracing::error!(%error, "the admin address is no longer served");
            }
        });

        home.tell_faults();
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
                    home.tell_faults();
                }
                // What runs goes on; the next look may find them again.
                Err(error) => tracing::warn!(%error, "the manifests cannot be read; what ran before goes on"),
            }
            *shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(home.listing());
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

fn print(output: Output, listing: &Value, findings: &[String], dead_letters: u64) -> anyhow::Result<()> {
    match output {
        Output::Json => screen::print(serde_json::to_string_pretty(listing)?),
        Output::Table => {
            for item in listing["items"].as_array().into_iter().flatten() {
                let ready = crate::home::condition(item, "Ready");
                screen::print(format_args!(
                    "{:<12} {}/{}  Ready={} {}",
                    item["kind"].as_str().unwrap_or_default(),
                    item["metadata"]["namespace"].as_str().unwrap_or_default(),
                    item["metadata"]["name"].as_str().unwrap_or_default(),
                    ready.and_then(|r| r["status"].as_str()).unwrap_or("Unknown"),
                    ready.and_then(|r| r["reason"].as_str()).unwrap_or_default(),
                ));
            }
        }
    }
    let mut lines: Vec<String> = findings.to_vec();
    if dead_letters > 0 && !findings.is_empty() {
        lines.push(format!("{dead_letters} dead letters are open; see them with `fairlead dead-letters list`"));
    }
    for line in lines {
        match output {
            Output::Json => tracing::error!(finding = %line, "not everything is well"),
            Output::Table => screen::print(line),
        }
    }
    Ok(())
}

/// What `run` tells on its address: the listing as of the last look.
struct Shown(Arc<RwLock<Arc<Value>>>);

#[async_trait]
impl Resources for Shown {
    async fn listing(&self) -> Option<Value> {
        let listing = Arc::clone(&*self.0.read().unwrap_or_else(PoisonError::into_inner));
        Some((*listing).clone())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stuck(&self) -> Vec<&'static str> {
        Vec::new()
    }
}
