//! The `fairlead` binary: one program for the operator, the cluster-less mode, the checks and the simulators.

use clap::{Parser, Subcommand};
use fairlead_engine::way::Witness;
use std::process::ExitCode;
use std::sync::Arc;

mod backfill;
mod check;
mod crds;
mod dead_letters;
mod demo;
mod files;
mod gateway;
mod home;
mod operator;
mod preview;
mod rollback;
mod run;
mod screen;
mod signal;
mod simulate;
mod split;
mod state;
mod status;
mod stored;
mod telemetry;
mod test;
mod trace;
mod worker;
mod workers;

/// Records are many small allocations, made on one thread and let go on another; with this one an order costs a quarter less than with the system's, in the
/// same memory (docs/costs.md). Its settings stand in .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Keeps business records in step between CRMs and ERPs, declared as Kubernetes resources.
#[derive(Debug, Parser)]
#[command(name = "fairlead", version, max_term_width = 120)]
struct Fairlead {
    /// How much is told on standard error: error, warn, info, debug, trace, or per target as in RUST_LOG.
    #[arg(long, env = "FAIRLEAD_LOG", default_value = "info", global = true)]
    log: String,
    /// Logs as JSON lines.
    #[arg(long, env = "FAIRLEAD_LOG_JSON", global = true)]
    log_json: bool,
    /// Send each record's way as an OTLP trace (protobuf over HTTP) to this collector, such as http://localhost:4318. The standard OTEL_*
    /// variables count too.
    #[arg(long, global = true, value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Operator(operator::Operator),
    Run(run::Run),
    Worker(worker::Worker),
    Status(status::Status),
    Check(check::Check),
    Preview(preview::Preview),
    Test(test::Test),
    Crds(crds::Crds),
    Simulate(simulate::Simulate),
    DeadLetters(dead_letters::DeadLetters),
    State(stored::Stored),
    Backfill(backfill::Backfill),
    Rollback(rollback::Rollback),
    Trace(trace::Trace),
    Split(split::Split),
    Demo(demo::Demo),
}

fn main() -> ExitCode {
    let fairlead = Fairlead::parse();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    let quiet = matches!(fairlead.command, Command::Demo(_)) && std::env::var_os("FAIRLEAD_LOG").is_none() && fairlead.log == "info";
    start_logging(if quiet { "error" } else { &fairlead.log }, fairlead.log_json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let traces = telemetry::Traces::start(fairlead.otlp_endpoint.as_deref())?;
        let witness = traces.clone().map(|traces| traces as Arc<dyn Witness>);
        let result = match fairlead.command {
            Command::Operator(command) => command.run(witness).await,
            Command::Run(command) => command.run(witness).await,
            Command::Worker(command) => command.run(witness).await,
            Command::Status(command) => command.run().await,
            Command::Check(command) => command.run(),
            Command::Preview(command) => command.run().await,
            Command::Test(command) => command.run(),
            Command::Crds(command) => Ok(command.run()),
            Command::Simulate(command) => command.run().await,
            Command::DeadLetters(command) => command.run().await,
            Command::State(command) => command.run().await,
            Command::Backfill(command) => command.run().await,
            Command::Rollback(command) => command.run().await,
            Command::Trace(command) => command.run().await,
            Command::Split(command) => command.run().await,
            Command::Demo(command) => command.run().await,
        };
        if let Some(traces) = traces {
            tokio::task::block_in_place(|| traces.stop());
        }
        result
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match (result, screen::lost()) {
        (Ok(_), Some(error)) => {
            tracing::error!(%error, "standard output cannot be written");
            ExitCode::FAILURE
        }
        (Ok(code), None) => code,
        (Err(error), _) => {
            tracing::error!(error = %format_args!("{error:#}"), "the command failed");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(filter: &str, json: bool) {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(BoxMakeWriter::new(std::io::stderr)).with_ansi(ansi);
    // By default it would tell standard error that standard error cannot be written, and panic.
    let builder = builder.log_internal_errors(false);
    if json { builder.json().init() } else { builder.init() }
}
