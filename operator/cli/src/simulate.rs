//! `fairlead simulate SYSTEM`: a stand-in for a vendor's system, or for a company's authorization server, for any CI.

use crate::screen;
use crate::signal;
use anyhow::{Context as _, ensure};
use clap::Args;
use fairlead_gateway::issuer::DevelopmentIssuer;
use fairlead_model::SystemClock;
use fairlead_simulators::{FaultScript, Options, Simulator, System};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What is simulated besides business systems: an OAuth 2.0 authorization server.
const ISSUER: &str = "issuer";

/// Serve a simulated business system.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Which system: salesforce or netsuite; or issuer, an authorization server that gives anybody any token for a served contract.
    system: String,
    /// Where it listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak TLS; the announcement then holds the authority's certificate under `ca`.
    #[arg(long)]
    tls: bool,
    /// The same seed makes the same records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many records.
    #[arg(long)]
    records: Option<u64>,
    /// Number of the first of them; the same number is the same company in every system.
    #[arg(long)]
    first: Option<u64>,
    /// A fault script in YAML or JSON.
    #[arg(long)]
    faults: Option<PathBuf>,
    /// Whom an issuer's tokens are for, unless the client asks for another audience.
    #[arg(long, default_value = "fairlead")]
    audience: String,
}

impl Simulate {
    /// Serves until it is told to stop. The first line on standard output tells how to reach it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.system == ISSUER {
            return self.run_issuer().await;
        }
        let system: System = self.system.parse().map_err(anyhow::Error::msg)?;
        let mut options = Options { listen: self.listen, tls: self.tls, seed: self.seed, ..Options::new(system) };
        options.records = self.records.unwrap_or(options.records);
        options.first = self.first.unwrap_or(options.first);
        if let Some(path) = &self.faults {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the fault script {}", path.display()))?;
            options.faults = Some(FaultScript::parse(&text).with_context(|| format!("{} is no fault script", path.display()))?);
        }
        let simulator = Simulator::start(options).await?;
        screen::print(simulator.announcement());
        signal::terminated().await;
        simulator.stop().await;
        Ok(ExitCode::SUCCESS)
    }
    async fn run_issuer(self) -> anyhow::Result<ExitCode> {
        let records = self.records.is_some() || self.first.is_some() || self.faults.is_some();
        ensure!(!records && !self.tls, "an issuer has no records, faults or TLS: leave out --records, --first, --faults and --tls");
        let listener = TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let issuer = DevelopmentIssuer::simulate(listener, &self.audience, Arc::new(SystemClock))?;
        let endpoint = issuer.issuer();
        let credentials = json!({"issuer": endpoint, "jwksUri": issuer.jwks_uri(), "tokenEndpoint": format!("{endpoint}/token")});
        screen::print(json!({"system": ISSUER, "endpoint": endpoint, "credentials": credentials}));
        signal::terminated().await;
        Ok(ExitCode::SUCCESS)
    }
}
