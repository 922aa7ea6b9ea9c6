//! `fairlead demo`: two simulated systems and the quickstart's manifests, one command, nothing else needed.
//!
//! It tells what it does in plain lines (and in a terminal in a live table below them), breaks something on purpose and shows that it heals, and ends with facts. The facts are checked by
//! a comparer that looks only at what the two systems hold and at their own logs, never at Fairlead's state.

mod api;
mod compare;
mod manifests;

use crate::gateway::{self, GatewayArgs};
use crate::home::{Home, Standing};
use crate::screen::{self, Block};
use crate::{state, status};
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use compare::{Facts, Side};
use fairlead_admin::{Overview, Rates};
use fairlead_model::{Clock, SystemClock};
use fairlead_simulators::{Options, Simulator, System};
use fairlead_store::Store;
use fairlead_systems::EndpointPolicy;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two simulated systems kept in step; shows a fault and its healing, and checks what it shows.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many Salesforce accounts.
    #[arg(long, default_value_t = 10_000)]
    accounts: u64,
    /// How many NetSuite customers.
    #[arg(long, default_value_t = 6_000)]
    customers: u64,
    /// How many records both systems hold from the start, with differences.
    #[arg(long, default_value_t = 5_000)]
    shared: u64,
    /// How many records are edited on each side afterwards.
    #[arg(long, default_value_t = 500)]
    edits: u64,
    /// The same seed makes the same records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep manifests and state in this folder; a temporary one otherwise.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// `json` adds a summary as the last line.
    #[arg(short, long, default_value = "plain")]
    output: Output,
}

/// How the demo ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Plain lines.
    Plain,
    /// Plain lines, and a summary as the last one.
    Json,
}

/// Any free port of this machine, for itself only.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What the quickstart's `guard.maxChangePercent` says, and how many records the demo changes besides its `--edits`.
const GUARD: u64 = 30;
const BESIDES: u64 = 3;

/// Longest wait for any one step.
const PATIENCE: Duration = Duration::from_secs(600);

/// What runs, and where it is told: plain lines, and in a terminal a live table below them.
struct Stage {
    home: Home,
    store: Arc<dyn Store>,
    table: Option<Table>,
}

struct Table {
    block: Block,
    rates: Rates,
    drawn: Option<Instant>,
}

/// How often the table is drawn.
const REDRAW: Duration = Duration::from_millis(500);

impl Stage {
    fn new(home: Home, store: Arc<dyn Store>) -> Self {
        let table = screen::is_terminal().then(|| Table { block: Block::default(), rates: Rates::default(), drawn: None });
        Self { home, store, table }
    }

    /// A line that stays.
    fn say(&mut self, line: &str) {
        if let Some(table) = &mut self.table {
            let _ = table.block.clear();
            table.drawn = None;
        }
        screen::print(line);
    }

    /// Looks at the files and reports, and draws the table anew.
    async fn tick(&mut self) -> anyhow::Result<()> {
        self.home.tick().await?;
        let Some(table) = self.table.as_mut().filter(|table| table.drawn.is_none_or(|at| at.elapsed() >= REDRAW)) else { return Ok(()) };
        let reports = self.home.reports();
        let mut counted = self.store.snapshots(None, SystemClock.now()).await?;
        let books = reports.integrations.keys().map(|key| (key.clone(), counted.remove(&key.0).unwrap_or_default())).collect();
        let rates = table.rates.observe(&books, tokio::time::Instant::now());
        let overview = Overview::of(&self.home.listing(), &reports, &books, &rates);
        let mut lines = vec![String::new()];
        lines.extend(status::integrations(&overview.integrations));
        lines.push(String::new());
        lines.extend(status::connectors(&overview.connectors));
        table.block.draw(&lines)?;
        table.drawn = Some(Instant::now());
        Ok(())
    }

    /// Removes the table and stops what runs.
    async fn end(mut self) {
        if let Some(table) = &mut self.table {
            let _ = table.block.clear();
        }
        self.home.stop().await;
    }
}

/// A line before anything runs.
fn say(line: &str) {
    screen::print(line);
}

impl Demo {
    /// Shows everything; succeeds only if all it showed was so.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let temporary = TemporaryFolder::new(self.folder.clone())?;
        let started = Instant::now();
        if self.shared > self.accounts || self.shared > self.customers {
            bail!("--shared cannot be more than --accounts or --customers");
        }
        let records = self.accounts + self.customers - self.shared;
        let most = (records * GUARD / 100).saturating_sub(BESIDES) / 2;
        if self.edits > most {
            bail!(
                "the guard of the manifests stops changes of more than {GUARD} % of {records} records: give --edits {most} at most, or more records"
            );
        }

        say("1/7 starting two simulated business systems");
        let salesforce =
            Simulator::start(Options { seed: self.seed, records: self.accounts, first: 0, ..Options::new(System::Salesforce) }).await?;
        let first = self.accounts - self.shared;
        let netsuite =
            Simulator::start(Options { seed: self.seed, records: self.customers, first, ..Options::new(System::Netsuite) }).await?;
        say(&format!("    Salesforce with {} accounts at {}", self.accounts, salesforce.endpoint()));
        say(&format!(
            "    NetSuite with {} customers at {}; {} of them are in both, with differences",
            self.customers,
            netsuite.endpoint(),
            self.shared
        ));

        let (crm, erp) = (Side::salesforce(&salesforce)?, Side::netsuite(&netsuite)?);
        let matching = compare::count_matching(&crm, &erp).await?;
        let expected = (self.customers - matching, self.accounts - matching);

        let folder = temporary.path.join("manifests");
        let issuer = gateway::issuer(LOOPBACK, api::AUDIENCE).await?;
        manifests::write(&folder, &salesforce, &netsuite, &issuer)?;
        say(&format!("2/7 running the quickstart's manifests from {}", folder.display()));
        let store = state::open_folder(&temporary.path.join("state"))?;
        let loopback = ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect();
        let serve = GatewayArgs { gateway_listen: Some(LOOPBACK), ..GatewayArgs::default() };
        let policy = EndpointPolicy { allow: loopback };
        let home = Home::new(vec![folder.clone()], Arc::clone(&store), policy, &serve, None, &mut Registry::default(), None).await?;
        let mut stage = Stage::new(home, store);

        let first_load = Instant::now();
        settle(&mut stage, "first load").await?;
        let seconds = first_load.elapsed();
        let loaded = compare::compare(&crm, &erp).await?;
        stage.say(&format!("3/7 first load settled after {:.1} s", seconds.as_secs_f32()));
        tell(&mut stage, &loaded);

        stage.say("4/7 the contract is served: a consumer fetches a customer");
        let served = api::show(&stage.home.listing(), &issuer).await?;
        for (what, status) in &served.answers {
            stage.say(&format!("    {what}: {status}"));
        }

        stage.say(&format!("5/7 people edit {} records in each system", self.edits));
        let edits = Instant::now();
        let edited = compare::edit_both(&crm, &erp, self.edits).await?;
        settle_edits(&mut stage, &crm, &erp, &edited).await?;
        let after_edits = compare::compare(&crm, &erp).await?;
        stage.say(&format!("    settled after {:.1} s; {} records differ", edits.elapsed().as_secs_f32(), after_edits.differences.len()));

        stage.say("6/7 somebody edits a field that the other system owns: it is put back");
        let foreign = compare::edit_foreign(&erp).await?;
        let restored = wait_for(&mut stage, "the foreign edit to be put back", || compare::is_put_back(&erp, &foreign)).await?;
        stage.say(&format!("    {} was put back after {:.1} s", foreign.field, restored.as_secs_f32()));

        stage.say("7/7 NetSuite goes into maintenance for a while: reported, and healed when it is over");
        let fault = self.fault(&mut stage, &crm, &erp).await?;
        stage.say(&format!("    reported after {:.1} s: {}", fault.reported.as_secs_f32(), fault.words));
        stage.say(&format!("    healed {:.1} s after the maintenance ended; the edit made meanwhile arrived", fault.healed.as_secs_f32()));

        settle(&mut stage, "the end").await?;
        let end = compare::compare(&crm, &erp).await?;
        let standing = stage.home.standing();
        let conditions_good = stage.home.not_ready();
        let checks = [
            ("records that differ between the systems", end.differences.len() as u64, 0),
            ("accounts created in Salesforce", loaded.created_left, expected.0),
            ("customers created in NetSuite", loaded.created_right, expected.1),
            ("records that exist twice", end.duplicates, 0),
            ("writes that left a record unchanged", end.idle_writes, 0),
            ("open dead letters", standing.dead_letters, 0),
            ("entries left in the lanes", standing.pending, 0),
            ("resources that are not Ready", conditions_good.len() as u64, 0),
            ("answers of the gateway that are not as they should be", served.wrong, 0),
            ("ledgers that do not add up", u64::from(!stage.home.reports().integrations.values().all(|report| report.balanced)), 0),
        ];
        stage.say("\nwhat was checked, by looking at the two systems only (and at the status and the gateway for the last five):");
        let mut good = true;
        for (what, found, wanted) in checks {
            let mark = if found == wanted { "ok" } else { "NOT OK" };
            good &= found == wanted;
            stage.say(&format!("  {mark:<6} {what}: {found} (expected {wanted})"));
        }
        for line in end.differences.iter().take(5).chain(conditions_good.iter().take(5)).chain(end.idle_examples.iter().take(5)) {
            stage.say(&format!("         {line}"));
        }
        stage.say("\nwhat to try next:");
        stage.say("  fairlead demo --folder demo        keeps manifests and state, to look at and to change");
        stage.say("  fairlead check examples/quickstart what the operator would say of the manifests");
        stage.say("  make cluster                       a local Kubernetes API server to apply them to");
        if self.output == Output::Json {
            let summary = json!({
                "ok": good,
                "accounts": self.accounts, "customers": self.customers, "shared": self.shared,
                "createdInSalesforce": loaded.created_left, "createdInNetSuite": loaded.created_right,
                "differences": end.differences.len(), "duplicates": end.duplicates, "idleWrites": end.idle_writes,
                "apiAnswersWrong": served.wrong,
                "deadLetters": standing.dead_letters, "pending": standing.pending,
                "firstLoadSeconds": format!("{:.1}", seconds.as_secs_f32()),
                "totalSeconds": format!("{:.1}", started.elapsed().as_secs_f32()),
            });
            stage.say(&summary.to_string());
        }
        stage.end().await;
        salesforce.stop().await;
        netsuite.stop().await;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Puts NetSuite into maintenance, edits an account meanwhile, ends the maintenance.
    async fn fault(&self, stage: &mut Stage, crm: &Side, erp: &Side) -> anyhow::Result<FaultShown> {
        erp.faults(&json!({"rules": [{"fault": "maintenancePage", "times": "forever"}]})).await?;
        let began = Instant::now();
        let edit = compare::edit_one(crm).await?;
        let words = loop {
            stage.tick().await?;
            if let Some(words) = connector_trouble(&stage.home.listing()) {
                break words;
            }
            if began.elapsed() > PATIENCE {
                bail!("the maintenance was never reported; the status is\n{:#}", stage.home.listing());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let reported = began.elapsed();
        erp.faults(&json!({"rules": []})).await?;
        let healed = wait_for(stage, "the edit to arrive after the maintenance", || compare::has_arrived(erp, &edit)).await?;
        Ok(FaultShown { reported, words, healed })
    }
}

struct FaultShown {
    reported: Duration,
    words: String,
    healed: Duration,
}

/// What the NetSuite connector says while it is not Ready.
fn connector_trouble(listing: &Value) -> Option<String> {
    let items = listing["items"].as_array()?;
    let netsuite = items.iter().find(|item| item["kind"] == "Connector" && item["spec"]["system"] != "salesforce" && is_erp(item))?;
    let ready = crate::home::condition(netsuite, "Ready")?;
    (ready["status"] != "True").then(|| {
        format!(
            "Connector {} is not Ready: {} ({})",
            netsuite["metadata"]["name"].as_str().unwrap_or_default(),
            ready["message"].as_str().unwrap_or_default(),
            ready["reason"].as_str().unwrap_or_default()
        )
    })
}

fn is_erp(item: &Value) -> bool {
    item["metadata"]["name"].as_str().is_some_and(|name| name.contains("netsuite"))
}

/// Waits until nothing moves any more.
async fn settle(stage: &mut Stage, what: &str) -> anyhow::Result<Standing> {
    let began = Instant::now();
    let mut told = Instant::now();
    let mut rest: Option<(fairlead_model::Timestamp, Instant)> = None;
    loop {
        stage.tick().await?;
        let standing = stage.home.standing();
        match rest {
            _ if !(standing.resting && standing.well) => rest = None,
            None => rest = Some((standing.at, Instant::now())),
            Some((at, since)) if standing.at > at && since.elapsed() >= Duration::from_secs(2) => return Ok(standing),
            Some(_) => {}
        }
        if told.elapsed() > Duration::from_secs(3) && stage.table.is_none() {
            told = Instant::now();
            stage.say(&format!("    {what}: {} entries wait in the lanes, {} dead letters", standing.pending, standing.dead_letters));
        }
        if began.elapsed() > PATIENCE {
            bail!("{what} did not settle within {} s:\n{}", PATIENCE.as_secs(), stage.home.findings().join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Waits until every edit is in both systems.
async fn settle_edits(stage: &mut Stage, crm: &Side, erp: &Side, edited: &[compare::Edit]) -> anyhow::Result<()> {
    wait_for(stage, "the edits to arrive", || compare::all_arrived(crm, erp, edited)).await.map(|_| ())
}

async fn wait_for<F: Future<Output = anyhow::Result<bool>>>(
    stage: &mut Stage,
    what: &str,
    mut is_so: impl FnMut() -> F,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !is_so().await? {
        stage.tick().await?;
        if began.elapsed() > PATIENCE {
            bail!("waited {} s for {what}:\n{}", PATIENCE.as_secs(), stage.home.findings().join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(began.elapsed())
}

/// Says what the comparer found after the first load.
fn tell(stage: &mut Stage, facts: &Facts) {
    stage.say(&format!("    {} accounts and {} customers now; {} differ", facts.left, facts.right, facts.differences.len()));
    stage.say(&format!("    created: {} accounts in Salesforce, {} customers in NetSuite", facts.created_left, facts.created_right));
}

/// A folder that goes away with the demo unless the user named it.
struct TemporaryFolder {
    path: PathBuf,
    keep: bool,
}

impl TemporaryFolder {
    fn new(named: Option<PathBuf>) -> anyhow::Result<Self> {
        let keep = named.is_some();
        let path = named.unwrap_or_else(|| std::env::temp_dir().join(format!("fairlead-demo-{}", std::process::id())));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self { path, keep })
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::debug!(%error, "the demo's folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_edits_than_the_guard_lets_through_are_refused_before_anything_runs() {
        let demo = Demo { accounts: 20, customers: 20, shared: 10, edits: 4, seed: 1, folder: None, output: Output::Plain };
        let refused = demo.run().await.unwrap_err().to_string();
        assert!(refused.contains("--edits 3 at most"), "{refused}");
    }
}
