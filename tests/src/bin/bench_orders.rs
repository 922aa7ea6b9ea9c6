//! `make bench`: the same work by Fairlead and by its peers, as a table from one run. It asserts that the work was done, and nothing about time.
//!
//! The work: a paged feed of orders (1.1 KB, 5 lines each) becomes canonical orders, which go to an HTTP target in batches of 200. Every
//! peer does it once per round, in turn, so that whatever drifts drifts in all; Fairlead on SQLite does it twice, and what the two differ by is
//! noise. Feed and target are this process. CPU is the kernel's account of the peer's processes (user and system time), from their start until
//! the target holds every order and, for Fairlead, all is settled; memory is the peak of their resident sets. How Fairlead's cost grows with what
//! it has stored is told below the table.
//!
//! `--workers 1,2` measures another thing: how fast one Integration is when so many processes share it on one PostgreSQL, with a target that answers at once and
//! with one that answers late (`--latency`), so that waiting for it, and not this machine, is the limit.
//!
//! It is not the same promise: Fairlead has every order committed before it counts as read, and keeps the golden record, its identities, what each
//! system holds and the ledger; the others keep nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::{Parser, ValueEnum};
use fairlead_store::contract_tests::server::Server;
use fairlead_tests::orders::{self, Ask, Batch, Feed, PAGE, hundredths};
use fairlead_tests::two_systems::Fairlead;
use fairlead_tests::{Process, fairlead, free_port};
use serde_json::{Value, json};
use tokio::process::Command;

/// The longest that one peer may take.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two looks at the peer.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The database of those that share one.
const DATABASE: &str = "orders";
/// Several processes are measured once this part of the orders has arrived: by then they have divided the work.
const DIVIDED: usize = 5;
/// Of a growing store the cost is told around this many orders, and at its end.
const SMALL: u64 = 10_000;
/// The unit in which Linux tells a process's times, on every architecture that Fairlead runs on.
const TICKS_PER_SECOND: u64 = 100;

#[derive(Parser)]
#[command(name = "bench-orders", about = "A feed of orders to an HTTP target, by Fairlead and by its peers")]
struct Cli {
    /// How often each peer does it
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Orders in the feed
    #[arg(long, default_value_t = 1_000_000)]
    orders: usize,
    /// One that needs a millisecond and more per order does this part of them: one in so many
    #[arg(long, default_value_t = 10)]
    slow_part: usize,
    /// Who does it
    #[arg(long, value_delimiter = ',', default_values_t = Peer::value_variants().to_vec())]
    peers: Vec<Peer>,
    /// The folder of the peers as tools/bench has built them
    #[arg(long, required_unless_present = "workers")]
    built: Option<PathBuf>,
    /// In place of the peers: one Integration by so many processes on one PostgreSQL
    #[arg(long, value_delimiter = ',')]
    workers: Vec<usize>,
    /// With --workers: the target answers so many milliseconds late
    #[arg(long, value_delimiter = ',', default_values_t = [0, 500], requires = "workers")]
    latency: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Peer {
    /// Fairlead on SQLite
    Fairlead,
    /// The same rows in the same commits, and nothing decided (orders_floor.rs)
    Floor,
    /// Benthos, the engine of Redpanda Connect
    Benthos,
    /// Fairlead on PostgreSQL
    FairleadPostgres,
    /// Apache Camel on the JVM
    Camel,
    /// The Airbyte CDK: a low-code source, a destination in Python
    Airbyte,
    /// Fairlead on SQLite once more
    FairleadAgain,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "a command's error")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if cli.workers.is_empty() { run(&cli).await } else { by_workers(&cli).await };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What doing it once took.
struct Took {
    orders: u64,
    wall: Duration,
    cpu: Duration,
    /// Of the database server, if there is one.
    server: Option<Duration>,
    peak_mib: u64,
    /// CPU per order, in microseconds: around [`SMALL`] orders, and of the last tenth.
    growth: Option<(u64, u64)>,
}

/// What had been spent when so many orders had arrived, a moment each.
type Course = Vec<(u64, Duration)>;

/// See [`Took::growth`]; nothing for a run that is too short to tell the two apart.
fn growth(course: &Course, orders: u64) -> Option<(u64, u64)> {
    let at = |wanted: u64| course.iter().find(|(arrived, _)| *arrived >= wanted).copied();
    let between = |from: u64, to: u64| {
        let ((first, before), (last, after)) = (at(from)?, at(to)?);
        Some(per_order(after.checked_sub(before)?, last.checked_sub(first).filter(|orders| *orders > 0)?))
    };
    (orders >= 10 * SMALL).then_some(())?;
    Some((between(SMALL / 2, SMALL / 2 * 3)?, between(orders / 10 * 9, course.last()?.0)?))
}

#[expect(clippy::print_stderr, reason = "progress")]
async fn run(cli: &Cli) -> anyhow::Result<()> {
    ensure!(cli.orders >= PAGE && cli.slow_part >= 1 && cli.rounds >= 1, "at least one round of {PAGE} orders is needed");
    let peers: BTreeSet<Peer> = cli.peers.iter().copied().collect();
    let mut took: Vec<(Peer, Vec<Took>)> = peers.iter().map(|peer| (*peer, Vec::new())).collect();
    for round in 1..=cli.rounds {
        for (peer, times) in &mut took {
            eprintln!("==> round {round} of {}: {peer}", cli.rounds);
            let once = once(cli, *peer).await.with_context(|| format!("{peer}"))?;
            eprintln!("    {} us of CPU per order, {} orders/s", per_order(once.cpu, once.orders), rate(&once));
            times.push(once);
        }
    }
    print(&took);
    Ok(())
}

fn per_order(time: Duration, orders: u64) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / orders.max(1)
}

fn rate(took: &Took) -> u64 {
    took.orders.saturating_mul(1000) / u64::try_from(took.wall.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn print(took: &[(Peer, Vec<Took>)]) {
    let spread = |mut values: Vec<u64>| {
        values.sort_unstable();
        let (least, most) = (values.first().copied().unwrap_or(0), values.last().copied().unwrap_or(0));
        (values.get(values.len() / 2).copied().unwrap_or(0), format!("{least} .. {most}"))
    };
    let cpu = |times: &[Took]| spread(times.iter().map(|once| per_order(once.cpu, once.orders)).collect());
    let ours = took.iter().find(|(peer, _)| *peer == Peer::Fairlead).map(|(_, times)| cpu(times).0);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("Orders of 1.1 KB with 5 lines, in pages and batches of {PAGE}; {cores} cores, shared with feed and target");
    println!(
        "| {:<18} | {:>9} | {:>14} | {:>16} | {:>9} | {:>13} | {:>8} |",
        "", "orders", "CPU us / order", "spread", "orders/s", "x of Fairlead", "peak MiB"
    );
    println!("|{:-<20}|{:->11}|{:->16}|{:->18}|{:->11}|{:->15}|{:->10}|", "", "", "", "", "", "", "");
    for (peer, times) in took {
        let (median, range) = cpu(times);
        let (speed, _) = spread(times.iter().map(rate).collect());
        let (peak, _) = spread(times.iter().map(|once| once.peak_mib).collect());
        let ratio = ours.map_or_else(String::new, |ours| hundredths(median.saturating_mul(100) / ours.max(1)));
        let orders = times.first().map_or(0, |once| once.orders);
        println!("| {peer:<18} | {orders:>9} | {median:>14} | {range:>16} | {speed:>9} | {ratio:>13} | {peak:>8} |");
        if times.iter().any(|once| once.server.is_some()) {
            let (median, range) = spread(times.iter().filter_map(|once| Some(per_order(once.server?, once.orders))).collect());
            println!("| {:<18} | {:>9} | {median:>14} | {range:>16} | {:>9} | {:>13} | {:>8} |", "  its database", "", "", "", "");
        }
    }
    for (peer, times) in took {
        let told: Vec<(u64, u64)> = times.iter().filter_map(|once| once.growth).collect();
        if let Some(orders) = times.first().map(|once| once.orders).filter(|_| !told.is_empty()) {
            let (small, _) = spread(told.iter().map(|(small, _)| *small).collect());
            let (large, _) = spread(told.iter().map(|(_, large)| *large).collect());
            let ratio = hundredths(large.saturating_mul(100) / small.max(1));
            println!("{peer}: {small} us of CPU per order while {SMALL} are stored, {large} us at {orders}: {ratio} times as much");
        }
    }
}

async fn once(cli: &Cli, peer: Peer) -> anyhow::Result<Took> {
    let orders = if peer == Peer::Airbyte { (cli.orders / cli.slow_part).max(PAGE) } else { cli.orders };
    let world = Arc::new(World::new(orders, Duration::ZERO));
    let address = serve(Arc::clone(&world)).await?;
    let folder = tempfile::Builder::new().prefix("fairlead-bench-").tempdir().context("make a folder")?;
    let server = (peer == Peer::FairleadPostgres).then(Server::start);
    let built = cli.built.as_deref().ok_or_else(|| anyhow!("the folder of the peers is not named: give --built"))?;
    let (mut command, status) = match peer {
        Peer::Fairlead | Peer::FairleadAgain | Peer::FairleadPostgres => {
            let status = format!("127.0.0.1:{}", free_port()?);
            let database = server.as_ref().map(|server| server.database(DATABASE));
            (by_fairlead(folder.path(), &address, &status, database.as_deref())?, Some(status))
        }
        Peer::Floor => (fairlead_tests::beside_test("orders-floor")?, None),
        Peer::Benthos => (benthos(built), None),
        Peer::Camel => (camel(built), None),
        Peer::Airbyte => (airbyte(built), None),
    };
    let origin = format!("http://{address}");
    command.env("FEED", &origin).env("TARGET", &origin).env("PAGES", orders.div_ceil(PAGE).to_string());

    let database = |server: &Server| cpu_of_tree(server.pid());
    let before = server.as_ref().map(database).transpose()?;
    let begun = Instant::now();
    let process = Process::start("peer", command, folder.path())?;
    let pid = process.pid();
    let (mut peak, mut course) = (0, Course::new());
    // Whichever it is, it ends with its value.
    let (peer, fairlead) = match status {
        Some(status) => (None, Some(Fairlead::at(process, status))),
        None => (Some(process), None),
    };
    while world.left() > 0 {
        world.judged()?;
        // One that has ended keeps its times until it is waited for.
        if let Some(peer) = peer.as_ref().filter(|_| stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z"))) {
            ensure!(world.left() == 0, "it ended with {} orders missing; the end of its log:\n{}", world.left(), peer.tail());
        }
        peak = peak.max(resident_of_tree(pid)?);
        if fairlead.is_some() {
            course.push(((orders - world.left()) as u64, cpu_of_tree(pid)?));
        }
        ensure!(begun.elapsed() < PATIENCE, "{} orders are missing after {PATIENCE:?}", world.left());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(fairlead) = &fairlead {
        fairlead.ready(PATIENCE).await?;
    }
    let (wall, cpu) = (begun.elapsed(), cpu_of_tree(pid)?);
    let server = server.as_ref().map(database).transpose()?.zip(before).map(|(after, before)| after.saturating_sub(before));
    if let Some(fairlead) = fairlead {
        fairlead.stop().await?;
    }
    drop(peer);
    world.judged()?;
    let orders = u64::try_from(orders)?;
    Ok(Took { orders, wall, cpu, server, peak_mib: peak / 1024, growth: growth(&course, orders) })
}

// ---- several processes ----------------------------------------------------------------------------------------------------------------------

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "progress, and what the command is for")]
async fn by_workers(cli: &Cli) -> anyhow::Result<()> {
    ensure!(cli.orders >= 10 * PAGE && cli.rounds >= 1, "at least one round of {} orders is needed", 10 * PAGE);
    ensure!(!cli.workers.contains(&0), "at least one worker is needed: give --workers 1,2");
    let mut rows = Vec::new();
    for latency in &cli.latency {
        let mut rates: Vec<(usize, Vec<u64>)> = cli.workers.iter().map(|workers| (*workers, Vec::new())).collect();
        for round in 1..=cli.rounds {
            for (workers, rates) in &mut rates {
                let rate = rate_of_workers(cli.orders, *workers, Duration::from_millis(*latency)).await?;
                eprintln!("==> round {round} of {}: {workers} workers, {latency} ms: {rate} orders/s", cli.rounds);
                rates.push(rate);
            }
        }
        let mut first = None;
        for (workers, mut rates) in rates {
            rates.sort_unstable();
            let median = rates[rates.len() / 2];
            let ratio = hundredths(median * 100 / (*first.get_or_insert(median)).max(1));
            let spread = format!("{} .. {}", rates[0], rates[rates.len() - 1]);
            rows.push(format!("| {latency:>7} ms | {workers:>7} | {median:>8} | {spread:>16} | {ratio:>5} |"));
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("One Integration, {} orders of 1.1 KB, batches of {PAGE}; {cores} cores, shared with feed, target and database", cli.orders);
    println!("| {:>10} | {:>7} | {:>8} | {:>16} | {:>5} |", "answers in", "workers", "orders/s", "spread", "ratio");
    println!("|{:->12}|{:->9}|{:->10}|{:->18}|{:->7}|", ":", ":", ":", ":", ":");
    println!("{}", rows.join("\n"));
    Ok(())
}

/// Orders a second that so many processes deliver, once they have divided the work.
async fn rate_of_workers(orders: usize, workers: usize, latency: Duration) -> anyhow::Result<u64> {
    let world = Arc::new(World::new(orders, latency));
    let address = serve(Arc::clone(&world)).await?;
    let folder = tempfile::Builder::new().prefix("fairlead-bench-").tempdir().context("make a folder")?;
    let server = Server::start();
    let url = server.database(DATABASE);
    let started = (1..=workers).map(|number| {
        let status = format!("127.0.0.1:{}", free_port()?);
        let command = by_fairlead(folder.path(), &address, &status, Some(&url))?;
        Ok(Fairlead::at(Process::start(&format!("worker-{number}"), command, folder.path())?, status))
    });
    let started = started.collect::<anyhow::Result<Vec<Fairlead>>>()?;
    let begun = Instant::now();
    let mut divided = None;
    while world.left() > 0 {
        world.judged()?;
        ensure!(begun.elapsed() < PATIENCE, "{} orders are missing after {PATIENCE:?}", world.left());
        if divided.is_none() && world.left() <= orders - orders / DIVIDED {
            divided = Some((world.left(), Instant::now()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (left, since) = divided.ok_or_else(|| anyhow!("all orders arrived at once: give more --orders"))?;
    let rate = (left as u64).saturating_mul(1000) / u64::try_from(since.elapsed().as_millis())?.max(1);
    for worker in &started {
        worker.ready(PATIENCE).await?;
    }
    for worker in started {
        worker.stop().await?;
    }
    world.judged()?;
    Ok(rate)
}

// ---- the kernel's account of processes ----------------------------------------------------------------------------------------------------

/// A process's fields as proc_pid_stat(5) counts them, from the third on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// A process and all that descend from it.
fn tree(root: i32) -> anyhow::Result<Vec<i32>> {
    let all = std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = all.filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(tree)
}

/// User and system time of a process, its descendants, and those of them that ended.
fn cpu_of_tree(root: i32) -> anyhow::Result<Duration> {
    let fields = tree(root)?.into_iter().filter_map(stat);
    let ticks: u64 = fields.flat_map(|fields| fields.into_iter().skip(11).take(4)).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_micros(ticks * (1_000_000 / TICKS_PER_SECOND)))
}

/// The resident sets of a process and its descendants, in KiB.
fn resident_of_tree(root: i32) -> anyhow::Result<u64> {
    let resident = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Ok(tree(root)?.into_iter().filter_map(resident).sum())
}

// ---- feed and target ------------------------------------------------------------------------------------------------------------------------

/// Which orders have arrived.
struct World {
    feed: Feed,
    /// The target answers so late.
    latency: Duration,
    arrived: Mutex<Arrived>,
}

struct Arrived {
    /// By number.
    there: Vec<bool>,
    left: usize,
    /// Orders that came more than once.
    again: usize,
    /// What was wrong with one.
    wrong: Option<String>,
}

impl World {
    fn new(orders: usize, latency: Duration) -> Self {
        let arrived = Arrived { there: vec![false; orders], left: orders, again: 0, wrong: None };
        Self { feed: Feed::of(orders), latency, arrived: Mutex::new(arrived) }
    }

    fn left(&self) -> usize {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).left
    }

    fn judged(&self) -> anyhow::Result<()> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        match &arrived.wrong {
            Some(wrong) => Err(anyhow!("an order arrived that is wrong: {wrong}")),
            None if arrived.again > 0 => Err(anyhow!("{} orders arrived more than once", arrived.again)),
            None => Ok(()),
        }
    }

    fn take(&self, batch: &Batch) -> Value {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        for sent in &batch.records {
            match sent.number().filter(|number| *number < arrived.there.len()) {
                Some(number) if sent.is_whole() && sent.is_right(number, 0) => {
                    if std::mem::replace(&mut arrived.there[number], true) {
                        arrived.again += 1;
                    } else {
                        arrived.left -= 1;
                    }
                }
                _ => arrived.wrong = Some(format!("{sent:?}")),
            }
        }
        json!({"results": batch.records.iter().map(|sent| json!({"id": sent.order_no, "status": "ok"})).collect::<Vec<_>>()})
    }
}

async fn serve(world: Arc<World>) -> anyhow::Result<String> {
    let router = Router::new()
        .route("/orders", get(page))
        .route("/orders/batch", post(batch))
        .route("/me", get(async || Json(json!({}))))
        .with_state(world);
    orders::serve(router).await
}

async fn page(State(world): State<Arc<World>>, Query(ask): Query<Ask>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "application/json")], world.feed.page(&ask))
}

async fn batch(State(world): State<Arc<World>>, Json(batch): Json<Batch>) -> Json<Value> {
    tokio::time::sleep(world.latency).await;
    Json(world.take(&batch))
}

// ---- the peers ------------------------------------------------------------------------------------------------------------------------------

fn benthos(built: &Path) -> Command {
    let mut command = Command::new(built.join("benthos/benthos"));
    command.arg("-c").arg(built.join("benthos/orders.yaml"));
    command
}

fn camel(built: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(built.join("camel/lib/*")).arg("orders.Orders");
    command
}

fn airbyte(built: &Path) -> Command {
    let mut command = Command::new("bash");
    let line = r#"cd "$0" && bin/python source.py read --config config.json --catalog catalog.json | bin/python destination.py write --config config.json --catalog catalog.json"#;
    command.args(["-c", line]).arg(built.join("airbyte"));
    command
}

fn by_fairlead(folder: &Path, address: &str, status: &str, database: Option<&str>) -> anyhow::Result<Command> {
    let manifests = folder.join("manifests");
    std::fs::create_dir_all(&manifests)?;
    std::fs::write(manifests.join("orders.yaml"), orders::MANIFESTS.replace(orders::ENDPOINT, &format!("http://{address}")))?;
    let mut command = fairlead()?;
    command.env("FAIRLEAD_LOG", "warn").arg("run").arg(manifests);
    command.args(["--listen", status, "--allow-endpoints", "127.0.0.0/8"]);
    match database {
        Some(url) => command.env("FAIRLEAD_DATABASE_URL", url),
        None => command.arg("--state").arg(folder.join("state")),
    };
    Ok(command)
}
