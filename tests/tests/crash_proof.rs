//! The crash proof: processes die under load and faults, and nothing is lost, doubled or turned round.
//!
//! Three pairs of systems run side by side, each with its own worker, so that twenty-two kills take the time of eight: a worker that follows
//! a dead one must wait until that one's leases have run out. People edit and make records on both sides all the while, and both systems
//! refuse, time out before and after the effect, fail parts of batches and forget tokens. Seven or eight deaths per pair, at named points of engine
//! and store and at moments chosen by their lanes not being empty. Then load and faults end, things settle, and the checker reads both
//! systems' logs.
//!
//! Two workers of one planner also share one database, are killed in turns, and one of them is paused beyond its leases.
//!
//! Two races belong to the vendors and not to this proof: neither offers a precondition on updates, so a field that its owner left empty and
//! that is being filled from the other side can be filled over what a person enters in that very moment. People here edit fields that have a
//! value.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fairlead_simulators::core::value::Value as Native;
use fairlead_simulators::history::{Entry, Origin, Outcome, Report};
use fairlead_store::contract_tests::server::Server;
use fairlead_tests::two_systems::{Fairlead, Simulated, TwoSystems, text};
use fairlead_tests::{Seen, free_port, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Enough for a worker to wait out a dead one's leases and to do its share under faults.
const PATIENCE: Duration = Duration::from_secs(90);
/// The pause between two acts of the people on one side.
const PACE: Duration = Duration::from_millis(300);

/// How a worker dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// When it passes this point of the engine, so often.
    At(&'static str),
    /// At this place within a command of the store.
    InStore(&'static str),
    /// Killed from outside while it writes and its lanes are not empty.
    Killed,
    /// Likewise, after everything was in step for a moment: what comes later are updates rather than the first load's creations.
    KilledAfterFirstLoad,
}

/// What both systems do wrong, in percent of the requests that fit.
fn faults() -> Value {
    json!([
        {"match": {"operation": "write"}, "fault": "timeoutAfterEffect", "percent": 4, "millis": 100},
        {"match": {"operation": "write"}, "fault": "timeoutBeforeEffect", "percent": 2, "millis": 100},
        {"match": {"operation": "write"}, "fault": "partialBatchFailure", "percent": 5},
        {"match": {"operation": "write"}, "fault": "status", "status": 503, "percent": 3},
        {"match": {"operation": "read"}, "fault": "status", "status": 500, "percent": 3},
        {"match": {"operation": "read"}, "fault": "timeoutBeforeEffect", "percent": 2, "millis": 100},
        {"fault": "limit", "percent": 2},
        {"fault": "maintenancePage", "percent": 1},
        {"fault": "tokenExpiry", "percent": 2},
    ])
}

/// The people on one side: what they edit of their own, what they edit although it is the other side's, and what they make.
struct People {
    systems: Arc<TwoSystems>,
    left: bool,
    ids: Vec<(String, Vec<&'static str>)>,
    rng: StdRng,
    stamp: u64,
    done: Arc<AtomicU64>,
}

impl People {
    async fn new(systems: &Arc<TwoSystems>, left: bool, seed: u64, done: &Arc<AtomicU64>) -> anyhow::Result<Self> {
        let (records, id): (Vec<Native>, _) =
            if left { (systems.salesforce.records().await?, "Id") } else { (systems.netsuite.records().await?, "id") };
        let fields: &[&str] = if left { &["Phone", "Website", "Description"] } else { &["creditLimit"] };
        let editable = |record: &Native| fields.iter().copied().filter(|field| !text(record, field).is_empty()).collect::<Vec<_>>();
        let ids = records.iter().map(|record| (text(record, id), editable(record))).filter(|(_, fields)| !fields.is_empty()).collect();
        Ok(Self { systems: Arc::clone(systems), left, ids, rng: StdRng::seed_from_u64(seed), stamp: 0, done: Arc::clone(done) })
    }

    fn side(&self) -> &Simulated {
        if self.left { &self.systems.salesforce } else { &self.systems.netsuite }
    }

    /// A value that no field ever held before.
    fn fresh(&mut self, field: &str) -> Value {
        self.stamp += 1;
        match field {
            "creditLimit" | "Credit_Limit__c" => json!(1_000_000 + self.stamp),
            "Website" => json!(format!("https://www.moved-{}.example/", self.stamp)),
            "Description" => json!(format!("note {} of a person, über \"alles\"", self.stamp)),
            _ => json!(format!("+1 {} {:06}", if self.left { "L" } else { "R" }, self.stamp)),
        }
    }

    async fn act(&mut self) -> anyhow::Result<()> {
        let chance = self.rng.random_range(0..100);
        // Half of all edits hit the same few records, again and again.
        let among = if self.rng.random_bool(0.5) { 12 } else { self.ids.len() };
        let (id, fields) = self.ids[self.rng.random_range(0..among)].clone();
        if chance < 6 {
            let number = self.stamp;
            let phone = self.fresh("phone");
            let values = if self.left {
                json!({"Name": format!("Left {number} Łódź & Sons"), "Tax_Number__c": format!("L{number:08}"), "Phone": phone, "Type": "Customer"})
            } else {
                json!({"companyName": format!("Right {number} GmbH"), "vatRegNumber": format!("R{number:08}"), "phone": phone,
                       "subsidiary": {"id": "2"}, "creditLimit": 7_000 + number})
            };
            self.side().create(values).await?;
        } else if chance < 12 {
            let field = if self.left { "Credit_Limit__c" } else { "phone" };
            let value = self.fresh(field);
            self.side().edit(&id, json!({field: value})).await?;
        } else {
            let field = fields[self.rng.random_range(0..fields.len())];
            let value = self.fresh(field);
            self.side().edit(&id, json!({field: value})).await?;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn act_until(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let mut pace = tokio::time::interval(PACE);
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            self.act().await?;
        }
        Ok(())
    }
}

/// What one death left behind.
#[derive(Debug)]
struct Died {
    how: String,
    /// Keys in the lanes when it was last asked.
    pending: u64,
    /// Effects that the dead worker's writes had in the systems.
    effects: BTreeMap<&'static str, u64>,
}

async fn effects_since(systems: &TwoSystems, marks: [u64; 2]) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let mut effects = BTreeMap::new();
    for (side, mark) in [(&systems.salesforce, marks[0]), (&systems.netsuite, marks[1])] {
        for entry in side.log(mark).await?.iter().filter(|entry| entry.origin == Origin::Api) {
            match entry.outcome {
                Outcome::Created => *effects.entry("created").or_default() += 1,
                Outcome::Updated => *effects.entry("updated").or_default() += 1,
                _ => {}
            }
        }
    }
    Ok(effects)
}

/// Runs one worker until it has died that death.
async fn die(systems: &TwoSystems, death: Death) -> anyhow::Result<Died> {
    let marks = [systems.salesforce.mark().await?, systems.netsuite.mark().await?];
    let mut worker = systems.fairlead("worker", |command| match death {
        Death::At(point) => {
            command.env("FAIRLEAD_CRASH_AT", point);
        }
        Death::InStore(place) => {
            command.env("FAIRLEAD_STORE_CRASH", place);
        }
        Death::Killed | Death::KilledAfterFirstLoad => {}
    })?;
    let mut pending = 0;
    match death {
        Death::At(_) | Death::InStore(_) => {
            let status = wait_until(&format!("the worker's death {death:?}"), PATIENCE, async || {
                if let Some(status) = worker.process.ended()? {
                    return Ok(Seen::Yes(status));
                }
                pending = worker.pending().await?;
                Ok(Seen::NotYet(format!("{pending} pending; it logged:\n{}", worker.process.tail())))
            })
            .await?;
            anyhow::ensure!(!status.success(), "it ended by itself: {}", worker.process.tail());
        }
        Death::Killed => {
            pending = busy(systems, marks, &worker).await?;
            worker.process.kill().await?;
        }
        Death::KilledAfterFirstLoad => {
            worker.condition("Ready", "True", "Succeeded", PATIENCE).await?;
            let marks = [systems.salesforce.mark().await?, systems.netsuite.mark().await?];
            pending = busy(systems, marks, &worker).await?;
            worker.process.kill().await?;
        }
    }
    Ok(Died { how: format!("{death:?}"), pending, effects: effects_since(systems, marks).await? })
}

/// Waits until the worker has written something since and still has something in its lanes.
async fn busy(systems: &TwoSystems, marks: [u64; 2], worker: &Fairlead) -> anyhow::Result<u64> {
    wait_until("a worker that writes, with lanes that are not empty", PATIENCE, async || {
        let (effects, pending) = (effects_since(systems, marks).await?, worker.pending().await?);
        Ok(if pending > 0 && !effects.is_empty() { Seen::Yes(pending) } else { Seen::NotYet(format!("{pending} pending, {effects:?}")) })
    })
    .await
}

/// One pair of systems through all its deaths, to the verdict. The state lies in a file, or in the database with this URL.
async fn survive(seed: u64, deaths: &[Death], database: Option<String>) -> anyhow::Result<(Vec<Died>, Report)> {
    let systems = Arc::new(TwoSystems::start(seed, (5_000, 600), (5_350, 550)).await?.with_database(database));
    for side in [&systems.salesforce, &systems.netsuite] {
        side.faults(faults()).await?;
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut people = tokio::task::JoinSet::new();
    for (left, seed) in [(true, seed), (false, seed + 1_000)] {
        people.spawn(People::new(&systems, left, seed, &done).await?.act_until(Arc::clone(&stop)));
    }

    let mut died = Vec::new();
    for death in deaths {
        died.push(die(&systems, *death).await?);
        println!("seed {seed}: {:?}", died.last());
    }

    stop.store(true, Ordering::Relaxed);
    while let Some(side) = people.join_next().await {
        side??;
    }
    for side in [&systems.salesforce, &systems.netsuite] {
        println!("seed {seed}: requests of a simulator {}", side.counters().await?);
        side.faults(json!([])).await?;
    }
    let status = systems.settle(Duration::from_secs(180)).await?;
    let report = systems.judged().await?;
    println!("seed {seed}: {} acts of people; {report}", done.load(Ordering::Relaxed));
    report.correct()?;
    let integration = status["items"].as_array().unwrap().iter().find(|item| item["kind"] == "Integration").unwrap();
    anyhow::ensure!(integration["status"]["ledger"]["balanced"] == true, "the ledger does not add up: {integration}");
    Ok((died, report))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_and_faults_lose_nothing_double_nothing_and_turn_nothing_round() -> anyhow::Result<()> {
    use Death::{At, InStore, Killed, KilledAfterFirstLoad};
    // The first worker of each pair meets the first load: what it writes are creations for the most part.
    let one = [
        At("source.read:2"),
        At("lane.intended:1"),
        At("lane.created:1"),
        At("lane.looked-up:1"),
        KilledAfterFirstLoad,
        At("lane.written:1"),
        At("lane.settled:2"),
    ];
    let two = [
        At("source.absorbed:1"),
        InStore("absorb/rows"),
        Killed,
        At("lane.written:1"),
        KilledAfterFirstLoad,
        InStore("settle/rows"),
        InStore("settle/committed"),
    ];
    let three = [
        // A fault may fall on the creation of the one above.
        At("lane.created:1"),
        At("lane.written:2"),
        InStore("intend/committed"),
        At("source.absorbed:3"),
        KilledAfterFirstLoad,
        At("lane.claimed:2"),
        At("lane.written:1"),
        Killed,
    ];
    let seed = rand::rng().random_range(1..1_000_000_u64);
    println!("seeds {seed}, {}, {}", seed + 1, seed + 2);
    let (one, two, three) = tokio::try_join!(survive(seed, &one, None), survive(seed + 1, &two, None), survive(seed + 2, &three, None))?;

    let pairs = [one, two, three];
    let sum = |count: fn(&Report) -> u64| pairs.iter().map(|(_, report)| count(report)).sum::<u64>();
    let heard =
        [sum(|report| report.edits), sum(|report| report.creations), sum(|report| report.unanswered), sum(|report| report.rejected)];
    assert!(heard[0] > 300 && heard[1] > 15 && heard[2] > 0 && heard[3] > 0, "too quiet a proof: {heard:?}");
    let died: Vec<Died> = pairs.into_iter().flat_map(|(died, _)| died).collect();
    assert!(died.len() >= 20, "{}", died.len());
    // Where the first batch to be written is the death, nothing that the worker had effected was settled; and a batch with a creation in it
    // has a point of its own.
    let unsettled = |at: &str, what: &str| died.iter().any(|died| died.how.contains(at) && died.effects.contains_key(what));
    assert!(unsettled("lane.created", "created"), "no death between the effect of a creation and its settling: {died:#?}");
    assert!(unsettled("lane.written:1", "updated"), "no death between the effect of an update and its settling: {died:#?}");
    let busy = died.iter().filter(|died| died.pending > 0 || died.how.contains("lane.")).count();
    assert!(busy >= 10, "too few deaths with lanes that were not empty: {died:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_too_kills_under_load_and_faults_lose_nothing_double_nothing_and_turn_nothing_round() -> anyhow::Result<()> {
    use Death::{At, InStore, Killed, KilledAfterFirstLoad};
    let server = Server::start();
    let one =
        [At("lane.created:1"), InStore("absorb/rows"), Killed, KilledAfterFirstLoad, InStore("settle/committed"), At("lane.written:1")];
    let two = [
        InStore("claim/committed"),
        At("lane.looked-up:1"),
        InStore("settle/rows"),
        KilledAfterFirstLoad,
        InStore("intend/committed"),
        Killed,
    ];
    let seed = rand::rng().random_range(1..1_000_000_u64);
    println!("seeds {seed}, {}", seed + 1);
    let (one, two) =
        tokio::try_join!(survive(seed, &one, Some(server.database("one"))), survive(seed + 1, &two, Some(server.database("two"))))?;
    let edits = one.1.edits + two.1.edits;
    assert!(edits > 100, "too quiet a proof: {edits}");
    let busy = one.0.iter().chain(&two.0).filter(|died| died.pending > 0 || died.how.contains("lane.")).count();
    assert!(busy >= 6, "too few deaths with lanes that were not empty: {:#?} {:#?}", one.0, two.0);
    Ok(())
}

/// Whether somebody else may write to the store now: a worker that was frozen within a transaction keeps everybody out.
fn store_is_free(systems: &TwoSystems) -> anyhow::Result<bool> {
    let connection = rusqlite::Connection::open(systems.state().join("fairlead.sqlite"))?;
    connection.busy_timeout(Duration::from_millis(200))?;
    Ok(connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok())
}

/// Freezes a worker at a moment when it holds no lock on the store.
fn freeze(systems: &TwoSystems, worker: &Fairlead) -> anyhow::Result<()> {
    for _ in 0..100 {
        worker.process.freeze()?;
        if store_is_free(systems)? {
            return Ok(());
        }
        worker.process.thaw()?;
    }
    anyhow::bail!("the worker holds the store's lock whenever one looks")
}

/// The effects of the API in a log.
fn api_effects(log: &[Entry]) -> Vec<&Entry> {
    log.iter().filter(|entry| entry.is_effect_of_api()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_paused_beyond_its_leases_commits_nothing_after_another_took_over() -> anyhow::Result<()> {
    let systems = TwoSystems::start(11, (5_000, 40), (5_010, 40)).await?;
    let first = systems.fairlead("first", |_| {})?;
    first.ready(PATIENCE).await?;
    systems.in_step(PATIENCE).await?;

    // A write whose effect is there and whose answer is not, and a read that is under way: with both in hand the first worker is frozen.
    let customer = systems.netsuite.records().await?.into_iter().find(|record| !text(record, "creditLimit").is_empty()).unwrap();
    let (id, tax) = (text(&customer, "id"), text(&customer, "vatRegNumber"));
    let drip = |operation: &str| json!([{"match": {"operation": operation}, "fault": "slowDrip", "millis": 60_000, "times": 1}]);
    systems.salesforce.faults(drip("write")).await?;
    let mark = systems.salesforce.mark().await?;
    systems.netsuite.edit(&id, json!({"creditLimit": 1_000_001})).await?;
    wait_until("the effect of the write whose answer drips", PATIENCE, async || {
        Ok(Seen::when(!api_effects(&systems.salesforce.log(mark).await?).is_empty(), "nothing written"))
    })
    .await?;
    systems.netsuite.faults(drip("read")).await?;
    wait_until("a read whose answer drips", PATIENCE, async || {
        let counters = systems.netsuite.counters().await?;
        Ok(Seen::when(counters["faultsFired"][0] == 1, format_args!("{counters}")))
    })
    .await?;
    freeze(&systems, &first)?;
    for side in [&systems.salesforce, &systems.netsuite] {
        side.faults(json!([])).await?;
    }

    // The other takes over when the leases have run out, and carries a newer value of the same field.
    systems.netsuite.edit(&id, json!({"creditLimit": 1_000_002})).await?;
    let second = systems.fairlead("second", |_| {})?;
    wait_until("the newer value, carried by the second worker", PATIENCE, async || {
        let account = systems.salesforce.find("Tax_Number__c", &tax).await?;
        Ok(Seen::when(text(&account, "Credit_Limit__c") == "1000002.0", format_args!("{account}")))
    })
    .await?;
    second.ready(PATIENCE).await?;
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);

    first.process.thaw()?;
    wait_until("the first worker to stand back", PATIENCE, async || {
        let told = first.process.stderr()?;
        let stood_back = |lease: &str| told.lines().any(|line| line.contains("standing back") && line.contains(lease));
        let leases = [
            "reader/north-america/customers/crm",
            "reader/north-america/customers/erp",
            "lane/north-america/customers/crm",
            "lane/north-america/customers/erp",
        ];
        Ok(Seen::when(leases.iter().all(|lease| stood_back(lease)), first.process.tail()))
    })
    .await?;
    // Both go on polling; whatever the first one still believed, it writes nothing of it.
    let polls = systems.netsuite.requests("query").await?;
    wait_until("five more polls", PATIENCE, async || {
        let now = systems.netsuite.requests("query").await?;
        Ok(Seen::when(now >= polls + 5, format_args!("{now} after {polls}")))
    })
    .await?;
    let (lefts, rights) = (systems.salesforce.log(left).await?, systems.netsuite.log(right).await?);
    assert!(api_effects(&lefts).is_empty() && api_effects(&rights).is_empty(), "written after the pause: {lefts:#?} {rights:#?}");

    // The one that took over goes on, and every edit is written once.
    for number in 0..3_u64 {
        systems.netsuite.edit(&id, json!({"creditLimit": 1_000_003 + number})).await?;
        systems.in_step(PATIENCE).await?;
    }
    let written = systems.salesforce.log(left).await?;
    assert_eq!(api_effects(&written).len(), 3, "{written:#?}");
    second.ready(PATIENCE).await?;
    let integration = second.integration().await?;
    assert_eq!(integration["ledger"]["balanced"], true, "{integration}");
    let report = systems.judged().await?;
    assert_eq!(report.idle.count, 0, "{report}");
    first.stop().await?;
    second.stop().await
}

// ---- several workers on one database -----------------------------------------------------------------------------------------------------

/// The database of these workers.
const SHARED: &str = "shared";

/// Seconds from the environment; `tools/soak` sets what is more.
fn seconds(variable: &str, otherwise: u64) -> Duration {
    Duration::from_secs(std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?}"))))
}

/// How many leases of this kind each process holds, by its number.
fn held(server: &Server, kind: &str) -> anyhow::Result<BTreeMap<i32, u64>> {
    let now = chrono::Utc::now().timestamp_millis();
    let told = server.sql(
        SHARED,
        &format!(
            "SELECT split_part(holder, '-', 1) || ' ' || count(*) FROM fairlead.lease
             WHERE key LIKE '{kind}/%' AND holder IS NOT NULL AND until > {now} GROUP BY holder ORDER BY holder"
        ),
    );
    told.lines()
        .map(|line| {
            let (process, count) = line.split_once(' ').ok_or_else(|| anyhow::anyhow!("{line:?}"))?;
            Ok((process.parse()?, count.parse()?))
        })
        .collect()
}

/// Waits until both have their half of both lanes and one reader each.
async fn shared_fairly(server: &Server, workers: [&Fairlead; 2]) -> anyhow::Result<()> {
    let fair = |each: u64| workers.iter().map(|worker| (worker.process.pid(), each)).collect::<BTreeMap<_, _>>();
    wait_until("a fair share for both workers", PATIENCE, async || {
        let (lanes, readers) = (held(server, "lane")?, held(server, "reader")?);
        Ok(Seen::when(lanes == fair(8) && readers == fair(1), format_args!("lanes {lanes:?}, readers {readers:?}")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_on_one_database_that_are_killed_in_turns_lose_nothing_double_nothing_and_turn_nothing_round() -> anyhow::Result<()> {
    let server = Server::start();
    let seed = rand::rng().random_range(1..1_000_000_u64);
    println!("seed {seed}");
    let systems = TwoSystems::start(seed, (5_000, 400), (5_250, 400)).await?.with_database(Some(server.database(SHARED)));
    let systems = Arc::new(systems);
    for side in [&systems.salesforce, &systems.netsuite] {
        side.faults(faults()).await?;
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut people = tokio::task::JoinSet::new();
    for (left, seed) in [(true, seed), (false, seed + 1_000)] {
        people.spawn(People::new(&systems, left, seed, &done).await?.act_until(Arc::clone(&stop)));
    }

    let (port, token) = (free_port()?, systems.worker_token()?);
    let plans = systems.planner("planner", port, &token)?;
    let mut workers = [systems.worker("one", port, &token)?, systems.worker("two", port, &token)?];
    let (end, every) = (Instant::now() + seconds("FAIRLEAD_WORKERS_SECONDS", 40), seconds("FAIRLEAD_WORKERS_KILLED_EVERY", 8));
    let (mut killed, mut busy) = (0, 0);
    while Instant::now() + every < end {
        // The pace of the deaths is what this is about.
        tokio::time::sleep(every).await;
        let worker = &mut workers[killed % 2];
        busy += usize::from(worker.pending().await.unwrap_or_default() > 0);
        worker.process.kill().await?;
        killed += 1;
        *worker = systems.worker(&format!("worker-{killed}"), port, &token)?;
    }
    println!("{killed} kills, {busy} of them with lanes that were not empty");

    stop.store(true, Ordering::Relaxed);
    while let Some(side) = people.join_next().await {
        side??;
    }
    for side in [&systems.salesforce, &systems.netsuite] {
        side.faults(json!([])).await?;
    }
    // Both go on to the end, each with its share.
    let [one, two] = &workers;
    shared_fairly(&server, [one, two]).await?;
    systems.in_step(Duration::from_secs(180)).await?;
    for worker in workers {
        worker.stop().await?;
    }
    plans.stop().await?;
    assert_eq!(held(&server, "%")?, BTreeMap::new(), "who stops gives everything back");
    let status = systems.settle(Duration::from_secs(180)).await?;
    let report = systems.judged().await?;
    println!("seed {seed}: {} acts of people; {report}", done.load(Ordering::Relaxed));
    report.correct()?;
    let integration = status["items"].as_array().unwrap().iter().find(|item| item["kind"] == "Integration").unwrap();
    anyhow::ensure!(integration["status"]["ledger"]["balanced"] == true, "the ledger does not add up: {integration}");
    assert!(killed >= 3 && report.edits > 50, "too quiet a proof: {killed} kills, {} edits", report.edits);
    assert!(killed < 20 || busy > 0, "none of {killed} kills amid work");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_workers_that_is_paused_beyond_its_leases_commits_nothing_and_gets_its_share_again() -> anyhow::Result<()> {
    let server = Server::start();
    let systems = TwoSystems::start(12, (5_000, 40), (5_010, 40)).await?.with_database(Some(server.database(SHARED)));
    let (port, token) = (free_port()?, systems.worker_token()?);
    let plans = systems.planner("planner", port, &token)?;
    let workers = [systems.worker("one", port, &token)?, systems.worker("two", port, &token)?];
    systems.in_step(PATIENCE).await?;
    shared_fairly(&server, [&workers[0], &workers[1]]).await?;

    // A write whose effect is there and whose answer is not: the worker that sent it is frozen.
    let customer = systems.netsuite.records().await?.into_iter().find(|record| !text(record, "creditLimit").is_empty()).unwrap();
    let (id, tax) = (text(&customer, "id"), text(&customer, "vatRegNumber"));
    systems.salesforce.faults(json!([{"match": {"operation": "write"}, "fault": "slowDrip", "millis": 60_000, "times": 1}])).await?;
    let mark = systems.salesforce.mark().await?;
    systems.netsuite.edit(&id, json!({"creditLimit": 1_000_001})).await?;
    wait_until("the effect of the write whose answer drips", PATIENCE, async || {
        Ok(Seen::when(!api_effects(&systems.salesforce.log(mark).await?).is_empty(), "nothing written"))
    })
    .await?;
    let sender = server.sql(
        SHARED,
        "SELECT DISTINCT split_part(lease.holder, '-', 1) FROM fairlead.lane
         JOIN fairlead.lease ON lease.key = 'lane/north-america/customers/crm/' || (lane.record % 8) WHERE lane.phase = 3",
    );
    let place = workers.iter().position(|worker| worker.process.pid().to_string() == sender);
    let place = place.ok_or_else(|| anyhow::anyhow!("nobody sent it: {sender:?}"))?;
    let (paused, other) = (&workers[place], &workers[1 - place]);
    paused.process.freeze()?;
    systems.salesforce.faults(json!([])).await?;

    // The other takes over when the leases have run out, and carries a newer value of the same field.
    systems.netsuite.edit(&id, json!({"creditLimit": 1_000_002})).await?;
    wait_until("the newer value, carried by the other worker", PATIENCE, async || {
        let account = systems.salesforce.find("Tax_Number__c", &tax).await?;
        Ok(Seen::when(text(&account, "Credit_Limit__c") == "1000002.0", format_args!("{account}; {}", other.process.tail())))
    })
    .await?;
    systems.in_step(PATIENCE).await?;
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);

    paused.process.thaw()?;
    wait_until("a refused commit of the paused worker", PATIENCE, async || {
        let told = paused.process.stderr()?;
        let refused = told.lines().any(|line| line.contains("a commit was refused") && line.contains("lane/north-america/customers/crm"));
        Ok(Seen::when(refused, paused.process.tail()))
    })
    .await?;
    shared_fairly(&server, [paused, other]).await?;
    let (lefts, rights) = (systems.salesforce.log(left).await?, systems.netsuite.log(right).await?);
    assert!(api_effects(&lefts).is_empty() && api_effects(&rights).is_empty(), "written after the pause: {lefts:#?} {rights:#?}");

    // Every edit is written once, whoever writes it.
    for number in 0..3_u64 {
        systems.netsuite.edit(&id, json!({"creditLimit": 1_000_003 + number})).await?;
        systems.in_step(PATIENCE).await?;
    }
    let written = systems.salesforce.log(left).await?;
    assert_eq!(api_effects(&written).len(), 3, "{written:#?}");
    let report = systems.judged().await?;
    assert_eq!(report.idle.count, 0, "{report}");
    let integration = plans.integration().await?;
    assert_eq!(integration["ledger"]["balanced"], true, "{integration}");
    for worker in workers {
        worker.stop().await?;
    }
    plans.stop().await
}
