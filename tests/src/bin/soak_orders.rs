//! The soak of orders (part of `make soak`; see `fairlead_tests::soak` for what happens): says what happens while it runs, prints the dated result as
//! Markdown for docs/soak.md, and fails if anything is lost, doubled or turned round.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use fairlead_tests::soak::{self, Plan, Report};

#[derive(Parser)]
#[command(name = "soak-orders", about = "Orders from a feed to two targets, while processes, targets and the database's connections die")]
struct Cli {
    /// Orders in the feed
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// How often something dies
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// What everything random is drawn from; drawn itself when left out
    #[arg(long)]
    seed: Option<u64>,
    /// Where manifests and logs stay; they are removed when left out
    #[arg(long)]
    folder: Option<PathBuf>,
    /// What was built, for the result
    #[arg(long, default_value = "unknown")]
    commit: String,
}

#[tokio::main]
#[expect(clippy::print_stderr, clippy::print_stdout, reason = "what the command is for")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(report) => {
            let faults = report.faults();
            println!("{}", markdown(&report, &cli.commit));
            for fault in &faults {
                eprintln!("error: {fault}");
            }
            if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "progress")]
async fn run(cli: &Cli) -> anyhow::Result<Report> {
    let seed = cli.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    eprintln!("==> seed {seed}");
    let temporary = tempfile::Builder::new().prefix("fairlead-soak-").tempdir().context("make a folder")?;
    let folder = cli.folder.as_deref().unwrap_or(temporary.path());
    let plan = Plan { records: cli.records, kills: cli.kills, seed };
    soak::run(plan, folder, &|line| eprintln!("{line}")).await.with_context(|| format!("seed {seed}"))
}

fn markdown(report: &Report, commit: &str) -> String {
    let Report { plan, changes, kills, took, targets, books, .. } = report;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kills = kills.iter().map(|(kill, count)| format!("{count} {kill}")).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ("date", chrono::Utc::now().format("%Y-%m-%d").to_string()),
        ("commit", commit.to_owned()),
        ("machine", format!("{cores} cores, shared with feed, targets and database")),
        ("seed", plan.seed.to_string()),
        ("orders, changes", format!("{}, {changes}", plan.records)),
        ("kills", format!("{}: {kills}", plan.kills)),
        ("wall time", format!("{} min {} s", took.as_secs() / 60, took.as_secs() % 60)),
    ];
    for judged in targets {
        let found = &judged.verdict;
        rows.push((
            judged.target,
            format!(
                "{} records by {} writes: lost {}, doubled {}, inverted {}, invented {}, mixed {}, repeated {} of {} allowed",
                found.records,
                found.writes,
                found.lost.count,
                found.doubled.count,
                found.inverted.count,
                found.invented.count,
                judged.mixed.len(),
                found.repeated.count,
                judged.may_repeat
            ),
        ));
    }
    rows.extend(books.lines().map(|book| ("lane", book.to_owned())));
    let faults = report.faults();
    let passed = "passed: ledger balanced, no dead letter, identities one to one";
    rows.push(("result", if faults.is_empty() { passed.to_owned() } else { format!("FAILED: {} faults", faults.len()) }));
    let rows: Vec<String> = rows.into_iter().map(|(name, value)| format!("| {name} | {value} |")).collect();
    format!("| | |\n|---|---|\n{}", rows.join("\n"))
}
