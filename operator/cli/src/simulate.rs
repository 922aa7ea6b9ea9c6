//! `fairlead simulate SYSTEM`: a vendor simulator for any CI.

use crate::signal;
use anyhow::Context as _;
use clap::Args;
use fairlead_simulators::{FaultScript, Options, Simulator, System};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Serve a simulated business system.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// Which system: salesforce or netsuite.
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
}

impl Simulate {
    /// Serves until it is told to stop. The first line on standard output tells how to reach it.
    #[allow(clippy::print_stdout, reason = "scripts read the announcement")]
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let system: System = self.system.parse().map_err(anyhow::Error::msg)?;
        let mut options = Options { listen: self.listen, tls: self.tls, seed: self.seed, ..Options::new(system) };
        options.records = self.records.unwrap_or(options.records);
        options.first = self.first.unwrap_or(options.first);
        if let Some(path) = &self.faults {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the fault script {}", path.display()))?;
            options.faults = Some(FaultScript::parse(&text).with_context(|| format!("{} is no fault script", path.display()))?);
        }
        let simulator = Simulator::start(options).await?;
        println!("{}", simulator.announcement());
        signal::terminated().await;
        simulator.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}
