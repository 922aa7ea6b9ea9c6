//! `make bench-orders`: the same work by Fairlead and by its peers, as a table from one run. It asserts that the work was done, and nothing about time.
//!
//! The work: a paged feed of orders (1.1 KB, 5 lines each) becomes canonical orders, which go to an HTTP target in batches of 200. Every
//! peer does it once per round, in turn, so that whatever drifts drifts in all; Fairlead on SQLite does it twice, and what the two differ by is
//! noise. Feed and target are this process. CPU is the kernel's account of the peer's processes (user and system time), from their start until
//! the target holds every order and, for Fairlead, all is settled; memory is the peak of their resident sets. How Fairlead's cost grows with what
//! it has stored is told below the table.
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
use fairlead_model::Decimal;
use fairlead_store::contract_tests::server::Server;
use fairlead_tests::two_systems::Fairlead;
use fairlead_tests::{Process, fairlead, free_port};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

/// The longest that one peer may take.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two looks at the peer.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Orders on a page of the feed.
const PAGE: usize = 200;
/// Orders come one a second since this moment, in milliseconds since 1970.
const BEGIN: i64 = 1_735_689_600_000;
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
    /// The folder of the peers as tools/bench-orders has built them
    #[arg(long)]
    built: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Peer {
    /// Fairlead on SQLite
    Fairlead,
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
    match run(&Cli::parse()).await {
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

fn hundredths(value: u64) -> String {
    format!("{}.{:02}", value / 100, value % 100)
}

async fn once(cli: &Cli, peer: Peer) -> anyhow::Result<Took> {
    let orders = if peer == Peer::Airbyte { (cli.orders / cli.slow_part).max(PAGE) } else { cli.orders };
    let world = Arc::new(World::new(orders));
    let address = serve(Arc::clone(&world)).await?;
    let folder = tempfile::Builder::new().prefix("fairlead-bench-").tempdir().context("make a folder")?;
    let server = (peer == Peer::FairleadPostgres).then(Server::start);
    let (mut command, status) = match peer {
        Peer::Fairlead | Peer::FairleadAgain | Peer::FairleadPostgres => {
            let status = format!("127.0.0.1:{}", free_port()?);
            (by_fairlead(folder.path(), &address, &status, server.as_ref())?, Some(status))
        }
        Peer::Benthos => (benthos(&cli.built), None),
        Peer::Camel => (camel(&cli.built), None),
        Peer::Airbyte => (airbyte(&cli.built), None),
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
    orders: usize,
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
    fn new(orders: usize) -> Self {
        Self { orders, arrived: Mutex::new(Arrived { there: vec![false; orders], left: orders, again: 0, wrong: None }) }
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
}

async fn serve(world: Arc<World>) -> anyhow::Result<String> {
    let router = Router::new()
        .route("/orders", get(page))
        .route("/orders/batch", post(batch))
        .route("/me", get(async || Json(json!({}))))
        .layer(axum::extract::DefaultBodyLimit::max(16 << 20))
        .with_state(world);
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

fn stamp(number: usize) -> String {
    let at = chrono::DateTime::from_timestamp_millis(BEGIN + i64::try_from(number).unwrap_or(0) * 1000).unwrap_or_default();
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Five lines, and the total of the order.
fn lines(number: usize) -> (usize, [(usize, usize); 5]) {
    let lines: [(usize, usize); 5] = std::array::from_fn(|line| (1 + (number + line) % 9, 101 + (number * 37 + line * 11) % 9899));
    (lines.iter().map(|(quantity, price)| quantity * price).sum(), lines)
}

/// One order, as text: 1.1 KB.
fn order(number: usize, out: &mut String) {
    use std::fmt::Write as _;
    let (total, lines) = lines(number);
    let status = ["A", "B", "C"][number % 3];
    let (stamp, customer, total) = (stamp(number), number % 10_007, hundredths(total as u64));
    // Writing to a String does not fail.
    let _ = write!(
        out,
        r#"{{"id":"O-{number:09}","number":"SO-{number:09}","status":"{status}","currency":"EUR","total":{total},"createdAt":"{stamp}","updatedAt":"{stamp}","customer":{{"id":"C-{customer:06}","name":"Müller & Söhne GmbH {customer}","email":"orders-{customer}@customer.example","address":{{"street":"Hafenstraße {customer}","city":"Hamburg","zip":"20457","country":"de"}}}},"notes":"Deliver to the rear entrance between eight and four; call the warehouse before you arrive. Reference {number}.","items":["#
    );
    for (line, (quantity, price)) in lines.into_iter().enumerate() {
        let (comma, price) = (if line == 0 { "" } else { "," }, hundredths(price as u64));
        let _ = write!(
            out,
            r#"{comma}{{"lineId":"{number}-{line}","sku":"SKU-{:05}","description":"Stainless bracket, type {line}","quantity":{quantity},"unitPrice":{price}}}"#,
            (number * 7 + line) % 50_000
        );
    }
    out.push_str("]}");
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    page: Option<usize>,
    #[serde(default)]
    since: Option<String>,
}

/// A page of the orders that were changed at `since` or later.
async fn page(State(world): State<Arc<World>>, Query(ask): Query<Ask>) -> ([(&'static str, &'static str); 1], String) {
    let since = ask.since.and_then(|since| chrono::DateTime::parse_from_rfc3339(&since).ok());
    let first = since.map_or(0, |since| usize::try_from((since.timestamp_millis() - BEGIN + 999) / 1000).unwrap_or(0));
    let page = ask.page.unwrap_or(0);
    let begin = (first + page * PAGE).min(world.orders);
    let end = (begin + PAGE).min(world.orders);
    let mut out = String::with_capacity(PAGE * 1200);
    out.push_str(r#"{"data":["#);
    for number in begin..end {
        if number > begin {
            out.push(',');
        }
        order(number, &mut out);
    }
    out.push_str(&if end < world.orders { format!(r#"],"next":{}}}"#, page + 1) } else { r#"],"next":null}"#.to_owned() });
    ([("content-type", "application/json")], out)
}

#[derive(Deserialize)]
struct Batch {
    records: Vec<Sent>,
}

/// What is judged of an order that arrives.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    order_no: String,
    state: String,
    country: String,
    amount: Value,
    lines: Vec<SentLine>,
}

#[derive(Debug, Deserialize)]
struct SentLine {
    sku: String,
    qty: u64,
}

impl Sent {
    fn number(&self) -> Option<usize> {
        self.order_no.strip_prefix("SO-")?.parse().ok()
    }

    fn is_right(&self, number: usize) -> bool {
        let (total, lines) = lines(number);
        let state = ["draft", "confirmed", "shipped"][number % 3];
        let quantities = self.lines.iter().map(|line| line.qty).eq(lines.iter().map(|(quantity, _)| *quantity as u64));
        let decimal = |text: &str| text.parse::<Decimal>().ok();
        let amount = decimal(self.amount.to_string().trim_matches('"')) == decimal(&hundredths(total as u64));
        let skus = self.lines.iter().all(|line| line.sku.starts_with("SKU-"));
        self.state == state && self.country == "DE" && amount && quantities && skus
    }
}

async fn batch(State(world): State<Arc<World>>, Json(batch): Json<Batch>) -> Json<Value> {
    let mut arrived = world.arrived.lock().unwrap_or_else(PoisonError::into_inner);
    for sent in &batch.records {
        match sent.number().filter(|number| *number < world.orders) {
            Some(number) if sent.is_right(number) => {
                if std::mem::replace(&mut arrived.there[number], true) {
                    arrived.again += 1;
                } else {
                    arrived.left -= 1;
                }
            }
            _ => arrived.wrong = Some(format!("{sent:?}")),
        }
    }
    Json(json!({"results": batch.records.iter().map(|sent| json!({"id": sent.order_no, "status": "ok"})).collect::<Vec<_>>()}))
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

fn by_fairlead(folder: &Path, address: &str, status: &str, server: Option<&Server>) -> anyhow::Result<Command> {
    let manifests = folder.join("manifests");
    std::fs::create_dir_all(&manifests)?;
    std::fs::write(
        manifests.join("orders.yaml"),
        include_str!("bench_orders.yaml").replace("http://orders.example", &format!("http://{address}")),
    )?;
    let mut command = fairlead()?;
    command.env("FAIRLEAD_LOG", "warn").arg("run").arg(manifests);
    command.args(["--listen", status, "--allow-endpoints", "127.0.0.0/8"]);
    match server {
        Some(server) => command.env("FAIRLEAD_DATABASE_URL", server.database("orders")),
        None => command.arg("--state").arg(folder.join("state")),
    };
    Ok(command)
}
