//! The soak: orders go from a feed to two targets by two processes on one PostgreSQL, while processes, targets and the database's connections die
//! at random; then it is judged what the targets were sent, and what the store says of itself.
//!
//! Flow: most orders are there at the beginning and are a first load; the others, and changes of any of them, are published while it goes on. Each kill has its
//! moment, drawn from the seed as a number of orders that have arrived, so that there is work whenever something dies. When the last one is over,
//! the run waits until everything is delivered and nothing is written any more.
//!
//! Guarantees, each of which [`Report::faults`] would name if it were broken: [`judge`] finds nothing lost, doubled, inverted or invented in either target; the
//! repeated writes are within the declared bound, and none where a target can be asked; the ledger is balanced, no dead letter is open, and
//! identities are one to one and of the same order everywhere.
//!
//! The declared bound: a process has one batch under way to each target, so a death leaves the outcome of one open, and a target or a database that goes
//! away one of each process. What was perhaps written is looked up where it can be, and written again by its key where it cannot.

pub mod judge;
pub mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use fairlead_store::contract_tests::server::Server;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::orders::{self, Ask, Feed, PAGE};
use crate::process::{Process, fairlead, free_port};
use crate::relay::{Moment, Relay};
use crate::two_systems::Fairlead;
use judge::{Verdict, judge};
use target::{Kind, Target};

/// The processes that share the work.
const PROCESSES: usize = 2;
/// The database.
const DATABASE: &str = "soak";
/// Without any progress for so long, something is stuck: far longer than a dead process's leases, requests under way, and pauses before
/// another attempt.
const STUCK: Duration = Duration::from_secs(300);
/// Nothing is written for so long in the end: longer than the polls and the pauses before another attempt.
const QUIET: Duration = Duration::from_secs(15);
/// A fault that waits for its moment is given up after so long.
const AWAITED: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The last message of a transaction.
const COMMIT: &[u8] = b"COMMIT\0";
/// What a process says that ended because it could not reach the database when it started.
const NO_DATABASE: &str = "cannot open the store in the database";
/// Half of all changes are of these few orders, again and again.
const BUSY_ORDERS: usize = 50;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Orders in the feed, in the end.
    pub records: usize,
    /// How often something dies.
    pub kills: usize,
    /// What everything random is drawn from.
    pub seed: u64,
}

/// What dies, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kill {
    /// One of the processes, by SIGKILL; another one is started at once.
    Process,
    /// A target takes no connection for a while.
    TargetAway,
    /// A target's connections are cut.
    TargetCut,
    /// A target's connections are cut when a batch is there and has not taken effect.
    TargetBeforeEffect,
    /// A target's connections are cut when a batch has taken effect and is not answered.
    TargetAfterEffect,
    /// The database takes no connection for a while.
    StoreAway,
    /// The database's connections are cut.
    StoreCut,
    /// The database's connections are cut when a transaction is to be committed.
    StoreBeforeCommit,
    /// The database's connections are cut when a transaction is committed and nobody knows.
    StoreAfterCommit,
}

impl Kill {
    const TARGET: [Self; 4] = [Self::TargetAway, Self::TargetCut, Self::TargetBeforeEffect, Self::TargetAfterEffect];
    const STORE: [Self; 4] = [Self::StoreAway, Self::StoreCut, Self::StoreBeforeCommit, Self::StoreAfterCommit];

    /// So many of them: half are processes, a quarter targets, a quarter the database; each kind in turn, in a random order.
    fn drawn(count: usize, rng: &mut StdRng) -> Vec<Self> {
        let mut kills: Vec<Self> = (0..count)
            .map(|number| match number % 4 {
                1 => Self::TARGET[number / 4 % Self::TARGET.len()],
                3 => Self::STORE[number / 4 % Self::STORE.len()],
                _ => Self::Process,
            })
            .collect();
        kills.shuffle(rng);
        kills
    }

    /// How many batches to one target it may leave open.
    fn opens(self) -> u64 {
        if self == Self::Process { 1 } else { PROCESSES as u64 }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process killed",
            Self::TargetAway => "target away",
            Self::TargetCut => "target cut",
            Self::TargetBeforeEffect => "target cut before effect",
            Self::TargetAfterEffect => "target cut after effect",
            Self::StoreAway => "database away",
            Self::StoreCut => "database cut",
            Self::StoreBeforeCommit => "database cut before COMMIT",
            Self::StoreAfterCommit => "database cut after COMMIT",
        })
    }
}

/// What a target was sent, and what is allowed of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What kind of target.
    pub target: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// So many writes may be repeated.
    pub may_repeat: u64,
    /// The first write that was not what the feed shows.
    pub wrong: Option<String>,
    /// Records of which a part is not as in the newest version of the order.
    pub mixed: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was to be done.
    pub plan: Plan,
    /// How often an order was changed.
    pub changes: usize,
    /// How often each thing died.
    pub kills: BTreeMap<Kill, usize>,
    /// From the first start until nothing was written any more.
    pub took: Duration,
    /// By target.
    pub targets: Vec<Judged>,
    /// By lane: what entered, and what became of it, as the store tells.
    pub books: String,
    /// What the store says that must not be.
    pub store: Vec<String>,
}

impl Report {
    /// Everything that is wrong; nothing if the soak was passed.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.store.clone();
        for Judged { target, verdict, may_repeat, wrong, mixed } in &self.targets {
            faults.extend(verdict.faults().into_iter().map(|fault| format!("{target}: {fault}")));
            faults.extend(wrong.iter().map(|wrong| format!("{target}: a write that is not what the feed shows: {wrong}")));
            if let Some(first) = mixed.first() {
                faults.push(format!("{target}: {} records are a mixture of versions: {first}", mixed.len()));
            }
            if verdict.repeated.count > *may_repeat {
                faults.push(format!("{target}: repeated, where {may_repeat} are allowed: {}", verdict.repeated));
            }
        }
        faults
    }
}

/// Everything that runs.
struct Soak<'a> {
    plan: Plan,
    rng: StdRng,
    tell: &'a dyn Fn(&str),
    folder: PathBuf,
    feed: Feed,
    targets: [Target; 2],
    server: Server,
    store: Relay,
    processes: Vec<Fairlead>,
    started: usize,
    changes: usize,
    /// Faults that end by themselves.
    away: JoinSet<()>,
}

/// Does it, with its manifests and the processes' logs in `folder`. Progress goes to `tell`; what is wrong in the end stands in the report, what kept
/// it from coming to its end is an error.
///
/// # Errors
/// When something cannot be started, a process ended by itself, or nothing goes on any more.
pub async fn run(plan: Plan, folder: &Path, tell: &dyn Fn(&str)) -> anyhow::Result<Report> {
    ensure!(plan.records >= 5 * PAGE, "at least {} orders are needed", 5 * PAGE);
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let feed = Feed::of(plan.records / 10 * 6);
    let server = Server::start();
    let _ = server.database(DATABASE);
    let store = Relay::start(server.port()).await?;
    let targets = [Target::start(Kind::Upserts).await?, Target::start(Kind::Creates).await?];
    let kills = Kill::drawn(plan.kills, &mut rng);
    let mut moments: Vec<usize> = kills.iter().map(|_| rng.random_range(plan.records / 50..plan.records / 50 * 49)).collect();
    moments.sort_unstable();
    manifests(folder, &serve(feed.clone()).await?, &[("warehouse", &targets[0]), ("billing", &targets[1])])?;
    let mut soak = Soak {
        plan,
        rng,
        tell,
        folder: folder.to_owned(),
        feed,
        targets,
        server,
        store,
        processes: Vec::new(),
        started: 0,
        changes: 0,
        away: JoinSet::new(),
    };
    let begun = Instant::now();
    for _ in 0..PROCESSES {
        let process = soak.start()?;
        soak.processes.push(process);
    }
    for (number, (kill, moment)) in kills.iter().copied().zip(moments).enumerate() {
        soak.arrived(moment).await?;
        soak.kill(kill).await.with_context(|| format!("{kill}, at {moment} orders"))?;
        let (arrived, elapsed) = (soak.targets[0].records(), begun.elapsed().as_millis());
        tell(&format!("{elapsed:>8} ms  {arrived:>8} orders  kill {} of {}: {kill}", number + 1, plan.kills));
    }
    soak.arrived(plan.records).await?;
    while soak.away.join_next().await.is_some() {}
    soak.settled().await?;
    let took = begun.elapsed().saturating_sub(QUIET);
    soak.judged(&kills, took).await
}

/// Serves a feed on loopback until the process ends; the address.
///
/// # Errors
/// When there is no port.
pub async fn serve(feed: Feed) -> anyhow::Result<String> {
    let page = async |State(feed): State<Feed>, Query(ask): Query<Ask>| ([("content-type", "application/json")], feed.page(&ask));
    orders::serve(Router::new().route("/orders", get(page)).route("/me", get(async || Json(json!({})))).with_state(feed)).await
}

/// Starts a process on the [`manifests`] in `folder`; its log goes there, too. `with` says where its state lies.
///
/// # Errors
/// When it cannot be started.
pub fn start(folder: &Path, name: &str, with: impl FnOnce(&mut Command)) -> anyhow::Result<Fairlead> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut command = fairlead()?;
    if std::env::var_os("FAIRLEAD_LOG").is_none() {
        command.env("FAIRLEAD_LOG", "warn");
    }
    command.arg("run").arg(folder.join("manifests"));
    command.args(["--listen", &address, "--allow-endpoints", "127.0.0.0/8"]);
    with(&mut command);
    Ok(Fairlead::at(Process::start(name, command, folder)?, address))
}

impl Soak<'_> {
    fn start(&mut self) -> anyhow::Result<Fairlead> {
        self.started += 1;
        let port = |port: u16| format!(":{port}/");
        let url = self.server.url(DATABASE).replace(&port(self.server.port()), &port(self.store.address().port()));
        start(&self.folder, &format!("fairlead-{}", self.started), |command| {
            command.env("FAIRLEAD_DATABASE_URL", url);
        })
    }

    fn watched(&mut self) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        for (place, running) in self.processes.iter_mut().enumerate() {
            if let Some(status) = running.process.ended()? {
                // Whoever starts while the database is away ends, and is started again: Kubernetes would do so.
                if running.process.tail().contains(NO_DATABASE) {
                    ended.push(place);
                    continue;
                }
                bail!("a process ended by itself ({status}); the end of its log:\n{}", running.process.tail());
            }
        }
        for place in ended {
            self.processes[place] = self.start()?;
        }
        Ok(())
    }

    fn tails(&self) -> String {
        self.processes.iter().map(|running| running.process.tail()).collect::<Vec<_>>().join("\n---\n")
    }

    /// Waits until so many orders have arrived, and publishes meanwhile what shall be there by then.
    async fn arrived(&mut self, wanted: usize) -> anyhow::Result<()> {
        let mut last = (0, Instant::now());
        loop {
            self.watched()?;
            let arrived = self.targets[0].records();
            self.publish(arrived);
            if arrived >= wanted {
                return Ok(());
            }
            let writes = self.targets.iter().map(Target::writes).sum();
            if writes > last.0 {
                last = (writes, Instant::now());
            }
            if last.1.elapsed() > STUCK {
                bail!("nothing was written for {STUCK:?}, and {arrived} orders of {wanted} are there; logs end:\n{}", self.tails());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// After the first load, orders come as fast as they are delivered; one change comes for each five orders that arrive.
    fn publish(&mut self, arrived: usize) {
        let ahead = (self.plan.records / 50).max(PAGE);
        self.feed.publish((arrived + ahead).min(self.plan.records));
        while self.changes < arrived / 5 {
            let among = if self.rng.random_bool(0.5) { BUSY_ORDERS } else { self.feed.orders() };
            self.feed.change(self.rng.random_range(0..among));
            self.changes += 1;
        }
    }

    async fn kill(&mut self, kill: Kill) -> anyhow::Result<()> {
        let time = Duration::from_millis(self.rng.random_range(500..4000));
        let place = self.rng.random_range(0..self.targets.len());
        let target = self.targets[place].clone();
        match kill {
            Kill::Process => {
                let place = self.rng.random_range(0..self.processes.len());
                self.processes[place].process.kill().await?;
                self.processes[place] = self.start()?;
            }
            Kill::TargetAway => {
                self.away.spawn(async move { target.relay.away(time).await });
            }
            Kill::TargetCut => target.relay.cut(),
            Kill::TargetBeforeEffect | Kill::TargetAfterEffect => {
                target.hang_up(if kill == Kill::TargetBeforeEffect { Moment::Before } else { Moment::Answered });
                self.until(|| !target.awaits()).await?;
            }
            Kill::StoreAway => {
                let store = self.store.clone();
                self.away.spawn(async move { store.away(time).await });
            }
            Kill::StoreCut => self.store.cut(),
            Kill::StoreBeforeCommit | Kill::StoreAfterCommit => {
                let store = self.store.clone();
                store.cut_at(COMMIT, if kill == Kill::StoreBeforeCommit { Moment::Before } else { Moment::Answered });
                self.until(|| !store.awaits()).await?;
            }
        }
        Ok(())
    }

    /// Waits for a fault to happen, and publishes meanwhile: without anything to do it never would.
    async fn until(&mut self, happened: impl Fn() -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !happened() {
            ensure!(begun.elapsed() < AWAITED, "its moment did not come within {AWAITED:?}; logs end:\n{}", self.tails());
            self.watched()?;
            self.publish(self.targets[0].records());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until everything is delivered and settled and nothing is written any more. What is not after a long time is told by the judge.
    async fn settled(&mut self) -> anyhow::Result<()> {
        (self.tell)("waiting until everything is delivered");
        let mut last = (0, Instant::now());
        while last.1.elapsed() < STUCK {
            self.watched()?;
            let writes: usize = self.targets.iter().map(Target::writes).sum();
            if writes > last.0 {
                last = (writes, Instant::now());
            }
            if last.1.elapsed() >= QUIET
                && self.targets.iter().all(|target| judge(&target.wanted(&self.feed), &target.told()).lost.count == 0)
            {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for running in &self.processes {
            running.ready(STUCK).await?;
        }
        Ok(())
    }

    async fn judged(self, kills: &[Kill], took: Duration) -> anyhow::Result<Report> {
        let mut store = Vec::new();
        for running in &self.processes {
            let integration = running.integration().await?;
            if integration["ledger"]["balanced"] != true {
                store.push(format!("the ledger does not add up: {integration}"));
            }
        }
        store.extend(self.identities());
        let letters = self
            .server
            .sql(DATABASE, "SELECT reason || ': ' || count(*) FROM fairlead.dead_letter WHERE closed_at IS NULL GROUP BY reason");
        store.extend((!letters.is_empty()).then(|| format!("open dead letters: {}", letters.replace('\n', ", "))));
        let books = self.books();
        let opened: u64 = kills.iter().map(|kill| kill.opens() * PAGE as u64).sum();
        let judged = |target: &Target, name, may_repeat| Judged {
            target: name,
            verdict: judge(&target.wanted(&self.feed), &target.told()),
            may_repeat,
            wrong: target.wrong(),
            mixed: target.mixed(&self.feed.versions()),
        };
        // What can be read and searched is never written twice.
        let targets = vec![judged(&self.targets[0], "upserts by key", opened), judged(&self.targets[1], "creates and can be searched", 0)];
        let (plan, changes) = (self.plan, self.changes);
        let kills = kills.iter().fold(BTreeMap::new(), |mut counts, kill| {
            *counts.entry(*kill).or_default() += 1;
            counts
        });
        for running in self.processes {
            running.stop().await?;
        }
        Ok(Report { plan, changes, kills, took, targets, books, store })
    }

    /// What is wrong with the identities: each record is one order, and has one id in each system that holds it.
    fn identities(&self) -> Vec<String> {
        let (orders, rare) = (self.plan.records, (0..self.plan.records).filter(|order| self.targets[1].wants(*order)).count());
        let expected = format!("shop {orders} {orders}\nwarehouse {orders} {orders}\nbilling {rare} {rare}");
        let told = self.server.sql(
            DATABASE,
            "SELECT regexp_replace(name.text, '^.*/', '') || ' ' || count(*) || ' ' || count(DISTINCT identity.record)
             FROM fairlead.identity JOIN fairlead.name ON name.id = identity.participant GROUP BY name.text ORDER BY name.text DESC",
        );
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let mut wrong = Vec::new();
        if lines(&told) != lines(&expected) {
            wrong.push(format!("identities and their records are {told:?}, not {expected:?}"));
        }
        // In the feed an id is `O-NUMBER`, in the targets `NUMBER-RECORD`.
        let confused = self.server.sql(
            DATABASE,
            r"SELECT count(*) FROM (SELECT record FROM fairlead.identity GROUP BY record
              HAVING count(DISTINCT substring(external_id FROM '(\d{9})')) > 1) AS confused",
        );
        if confused != "0" {
            wrong.push(format!("{confused} records are several orders"));
        }
        let records = self.server.sql(DATABASE, "SELECT count(*) FROM fairlead.record");
        if records != orders.to_string() {
            wrong.push(format!("{records} records for {orders} orders"));
        }
        wrong
    }

    fn books(&self) -> String {
        self.server.sql(
            DATABASE,
            "SELECT regexp_replace(name.text, '^.*/', '') || ': entered ' || sum(entered) || ', delivered ' || sum(delivered) || ', unchanged '
                 || sum(unchanged) || ', superseded ' || sum(superseded) || ', discarded ' || sum(discarded)
             FROM fairlead.lane_book JOIN fairlead.name ON name.id = lane_book.target GROUP BY name.text ORDER BY name.text DESC",
        )
    }
}

/// What a target is besides the one that the manifests have: it makes a record each time, of the orders in the rare currency.
const CREATES: &str = "\
- name: invoices
  key: .id
  create: {request: {method: POST, path: /invoices, body: .record}, result: {id: .id}}
  update: {request: {method: PATCH, path: '/invoices/{{id}}', body: .record}}
  get: {request: {path: '/invoices/{{id}}'}}
  search: {request: {path: /invoices, query: {field: '{{field}}', value: '{{value}}'}}, records: .records}
  batch:
    request: {method: POST, path: /invoices/batch, body: '{\"records\": .records}'}
    max: 200
    results: .results
    result: {id: .id, status: .status, ok: [ok]}
  fields:
  - {name: id, type: String, writable: false}
  - {name: orderNo, type: String}
  - {name: state, type: String}
  - {name: amount, type: Decimal}
  - {name: comment, type: String}
";

/// Writes the manifests of [`orders`] into `folder`, with these targets apart from the feed and the patience of a test.
///
/// # Errors
/// When they cannot be written.
pub fn manifests(folder: &Path, feed: &str, targets: &[(&str, &Target)]) -> anyhow::Result<()> {
    let text = orders::MANIFESTS.replace(orders::ENDPOINT, &format!("http://{feed}"));
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("read the manifests")?;
    let definition = document(&mut documents, "ConfigMap")?.pointer_mut("/data/definition.yaml");
    let Some(Value::String(definition)) = definition else { bail!("the manifests hold no definition") };
    // The entities stand at its end. A request is under way for so long at most, and is not looked up before.
    *definition = format!("timeout: 10s\n{definition}{CREATES}");
    let shop = document(&mut documents, "Connector")?.clone();
    for (name, target) in targets {
        let mut connector = shop.clone();
        connector["metadata"]["name"] = json!(name);
        connector["spec"]["endpoint"] = json!(format!("http://{}", target.relay.address()));
        connector["spec"]["circuitBreaker"] = json!({"failures": 10, "within": "10s", "openFor": "1s"});
        connector["spec"]["probe"] = json!({"every": "5s"});
        documents.push(connector);
    }
    let spec = &mut document(&mut documents, "Integration")?["spec"];
    spec["delivery"] = json!({"retry": {"initial": "200ms", "max": "5s"}});
    spec["sync"]["match"] = json!([["number"]]);
    spec["sync"]["guard"] = json!({"maxDeletePercent": 100, "maxChangePercent": 100});
    let participants = spec["sync"]["participants"].as_array_mut().ok_or_else(|| anyhow!("the manifests have no participants"))?;
    let upserts = participants.pop().ok_or_else(|| anyhow!("the manifests have no target"))?;
    for shop in participants.iter_mut() {
        shop["read"]["poll"]["every"] = json!("1s");
    }
    participants.extend(targets.iter().map(|(name, target)| {
        let mut participant = match target.kind() {
            Kind::Upserts => upserts.clone(),
            Kind::Creates => json!({
                "entity": "invoices",
                "write": {"onDelete": "Keep", "when": format!(".record.currency == {:?}", orders::RARE_CURRENCY)},
                "fields": [
                    {"canonical": "number", "native": "orderNo"}, {"canonical": "state", "native": "state"},
                    {"canonical": "total", "native": "amount"}, {"canonical": "comment", "native": "comment"},
                ],
            }),
        };
        for key in ["name", "role", "connector"] {
            participant[key] = json!(name);
        }
        participant
    }));
    let folder = folder.join("manifests");
    fs::create_dir_all(&folder).context("make a folder for the manifests")?;
    let text: String = documents.iter().map(|document| format!("---\n{document}\n")).collect();
    fs::write(folder.join("orders.yaml"), text).context("write the manifests")
}

fn document<'a>(documents: &'a mut [Value], kind: &str) -> anyhow::Result<&'a mut Value> {
    documents.iter_mut().find(|document| document["kind"] == kind).ok_or_else(|| anyhow!("the manifests have no {kind}"))
}
