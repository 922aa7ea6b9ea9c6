//! `make bench-operator`: what Fairlead costs, as a table. It asserts nothing; a machine that does other things meanwhile measures those too.
//!
//! Each round measures two things, one after the other, so that whatever drifts drifts in both:
//! - *first load*: two simulators in other processes, half of whose companies are the same; `fairlead run` brings them in step, from its
//!   start until it is Ready with empty lanes. Its CPU is the kernel's account of the process (user and system time, as getrusage(2) tells
//!   it, to a hundredth of a second), its memory the resident set: at its peak while it loads, and when nothing has moved for a while. In the
//!   last round it goes on until the lag window of its systems has passed: before, each poll reads again all that was just written.
//! - *change to Programmed*: `fairlead operator` on a control plane with many paused Integrations, of which ten a second are edited; from
//!   just before the request that edits one until a watch shows `Programmed` for that generation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use clap::Parser;
use fairlead_tests::two_systems::TwoSystems;
use fairlead_tests::{Assets, Process, Running, Seen, fairlead, free_port, wait_until};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, discovery::ApiResource};
use serde_json::{Value, json};

/// The longest that anything may take; a slow machine is no failure here.
const PATIENCE: Duration = Duration::from_secs(1800);
/// So long nothing moves before the idle memory is read.
const REST: Duration = Duration::from_secs(10);
/// The longest lag of the built-in definitions, and a little: for so long after a load, each poll reads all of it again.
const LAG_WINDOW: Duration = Duration::from_secs(310);
/// Between two edits of Integrations.
const EDIT_EVERY: Duration = Duration::from_millis(100);
/// The unit in which Linux tells a process's times, on every architecture that Fairlead runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Where the quickstart's objects live.
const NAMESPACE: &str = "north-america";

#[derive(Parser)]
#[command(name = "bench-operator", about = "What Fairlead costs: first load, memory, change to Programmed")]
struct Cli {
    /// How often each thing is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records in each system; half of them are in both
    #[arg(long, default_value_t = 10_000)]
    records: u64,
    /// Paused Integrations on the control plane
    #[arg(long, default_value_t = 1_000)]
    integrations: usize,
    /// Integrations edited, ten a second
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Folder with etcd, kube-apiserver, kube-controller-manager, kubectl; without it only the first load is measured
    #[arg(long)]
    assets: Option<PathBuf>,
    /// The CustomResourceDefinitions
    #[arg(long, default_value = "crds")]
    crds: PathBuf,
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

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let mut table = Table::default();
    for round in 1..=cli.rounds {
        say(&format!("round {round} of {}: first load", cli.rounds));
        first_load(cli, u64::try_from(round)?, round == cli.rounds, &mut table).await?;
        if let Some(assets) = &cli.assets {
            say(&format!("round {round} of {}: change to Programmed", cli.rounds));
            programmed(cli, &Assets::at(assets)?, &mut table).await?;
        }
    }
    table.print(cli);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress")]
fn say(text: &str) {
    eprintln!("==> {text}");
}

/// Values by what was measured, in the order in which they came first.
#[derive(Default)]
struct Table {
    rows: Vec<(&'static str, &'static str, Vec<u64>)>,
}

impl Table {
    fn add(&mut self, what: &'static str, unit: &'static str, value: u64) {
        match self.rows.iter_mut().find(|(known, ..)| *known == what) {
            Some((.., values)) => values.push(value),
            None => self.rows.push((what, unit, vec![value])),
        }
    }

    #[expect(clippy::print_stdout, reason = "what the command is for")]
    fn print(&self, cli: &Cli) {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        println!("{} records in each of two systems, {} Integrations, {cores} cores", cli.records, cli.integrations);
        println!("| {:<46} | {:>9} | {:>17} | unit", "measured", "median", "spread");
        println!("|{:-<48}|{:->11}|{:->19}|-----", "", "", "");
        for (what, unit, values) in &self.rows {
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let (least, most) = (sorted.first().copied().unwrap_or(0), sorted.last().copied().unwrap_or(0));
            println!("| {what:<46} | {:>9} | {:>17} | {unit}", percentile(&sorted, 50), format!("{least} .. {most}"));
        }
    }
}

/// The value below which `percent` of the sorted values lie.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0)
}

// ---- the kernel's account of a process --------------------------------------------------------------------------------------------------

/// User and system time so far, in microseconds.
fn cpu_micros(pid: i32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read the process's times")?;
    // The name stands in parentheses and may hold anything; utime and stime are the 12th and 13th field after it (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').ok_or_else(|| anyhow!("unexpected {stat}"))?;
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let (user, system) = (ticks.next().context("utime")??, ticks.next().context("stime")??);
    Ok((user + system) * (1_000_000 / TICKS_PER_SECOND))
}

/// A line of a process's status in KiB, as MiB.
fn memory_mib(pid: i32, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's status")?;
    let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kib: u64 = found.and_then(|text| text.split_whitespace().next()).with_context(|| format!("no {line}"))?.parse()?;
    Ok(kib / 1024)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// ---- first load -------------------------------------------------------------------------------------------------------------------------

async fn first_load(cli: &Cli, seed: u64, is_last: bool, table: &mut Table) -> anyhow::Result<()> {
    let systems = TwoSystems::start(seed, (0, cli.records), (cli.records / 2, cli.records)).await?;
    let started = Instant::now();
    let worker = systems.fairlead("worker", |_| {})?;
    let pid = worker.process.pid();
    wait_until("an API that answers", PATIENCE, async || worker.status().await.map(Seen::Yes)).await?;
    worker.ready(PATIENCE).await?;
    let (took, cpu) = (micros(started.elapsed()), cpu_micros(pid)?);
    let read = worker.metric("fairlead_records_read").await?;
    let written = systems.salesforce.mark().await? + systems.netsuite.mark().await?;
    ensure!(read + written > 0, "nothing was read or written");
    table.add("first load: CPU per record read or written", "µs", cpu / (read + written));
    table.add("first load: records read and written", "records/s", (read + written).saturating_mul(1_000_000) / took.max(1));
    table.add("first load: until Ready", "ms", took / 1000);
    table.add("memory at full rate (peak resident set)", "MiB", memory_mib(pid, "VmHWM")?);
    tokio::time::sleep(REST).await;
    table.add("memory idle (resident set)", "MiB", memory_mib(pid, "VmRSS")?);
    let rests = async || {
        let before = cpu_micros(pid)?;
        tokio::time::sleep(REST).await;
        anyhow::Ok((cpu_micros(pid)? - before) / REST.as_secs())
    };
    table.add("CPU polling each second, all in the lag window", "µs/s", rests().await?);
    if is_last {
        tokio::time::sleep(LAG_WINDOW).await;
        table.add("CPU polling each second, lag window empty", "µs/s", rests().await?);
    }
    worker.stop().await
}

// ---- change to Programmed ---------------------------------------------------------------------------------------------------------------

/// Edits under way: by Integration, the generation that is awaited and since when; and how long the others took.
#[derive(Default)]
struct Edits {
    awaited: BTreeMap<String, (i64, Instant)>,
    took: Vec<u64>,
}

async fn programmed(cli: &Cli, assets: &Assets, table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("fairlead-bench-").tempdir().context("make a folder")?;
    let plane = Running::start(&folder.path().join("plane"), assets, &cli.crds).await?;
    let plane = plane.plane();
    let systems = TwoSystems::start(1, (0, 10), (5, 10)).await?;
    let mut manifests = systems.manifests()?;
    let template = manifests.integration()?.clone();
    let others: String =
        manifests.documents().filter(|document| document["kind"] != "Integration").map(|document| format!("---\n{document}\n")).collect();
    let applied = plane.kubectl_with_input(["apply", "--server-side", "-f", "-"], &others).await?;
    ensure!(applied.code == Some(0), "{applied}");

    let operator = operator(folder.path(), &plane.kubeconfig())?;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("fairlead.dev", "v1alpha1", "Integration"), "integrations");
    let integrations: Api<DynamicObject> = Api::namespaced_with(plane.admin().await?, NAMESPACE, &resource);
    let objects = (0..cli.integrations).map(|number| paused(&template, number)).collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    let post = PostParams::default();
    stream::iter(objects)
        .map(Ok)
        .try_for_each_concurrent(8, |object| {
            let integrations = &integrations;
            let post = &post;
            async move { integrations.create(post, &object).await.map(drop) }
        })
        .await
        .context("create the Integrations")?;
    wait_until("every Integration programmed", PATIENCE, async || {
        let listed = integrations.list(&ListParams::default()).await?;
        let done = listed.iter().filter(|object| programmed_generation(object) == object.metadata.generation).count();
        Ok(Seen::when(done == cli.integrations, format_args!("{done} of {}", cli.integrations)))
    })
    .await?;
    table.add("all Integrations created and Programmed", "ms", micros(begun.elapsed()) / 1000);

    let edits = Arc::new(Mutex::new(Edits::default()));
    let watching = tokio::spawn(watch(integrations.clone(), Arc::clone(&edits)));
    let pid = operator.pid();
    let cpu = cpu_micros(pid)?;
    let mut ticks = tokio::time::interval(EDIT_EVERY);
    for change in 0..cli.changes {
        ticks.tick().await;
        let name = name(change % cli.integrations);
        let begun = Instant::now();
        let patch = json!({"spec": {"sync": {"guard": {"maxDeletePercent": 1 + change % 90, "maxChangePercent": 1 + change / 90}}}});
        // Nobody else edits them, so the generation is known before the answer, which the watch may outrun.
        let generation = 2 + i64::try_from(change / cli.integrations)?;
        edits.lock().unwrap_or_else(PoisonError::into_inner).awaited.insert(name.clone(), (generation, begun));
        integrations.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    wait_until("the last change programmed", PATIENCE, async || {
        let listed = integrations.list(&ListParams::default()).await?;
        let mut edits = edits.lock().unwrap_or_else(PoisonError::into_inner);
        listed.iter().for_each(|object| edits.see(object));
        Ok(Seen::when(edits.awaited.is_empty(), format_args!("{} awaited", edits.awaited.len())))
    })
    .await?;
    watching.abort();
    table.add("CPU of the operator per change", "µs", (cpu_micros(pid)? - cpu) / u64::try_from(cli.changes.max(1))?);
    table.add("memory of the operator (resident set)", "MiB", memory_mib(pid, "VmRSS")?);
    let mut took = std::mem::take(&mut edits.lock().unwrap_or_else(PoisonError::into_inner).took);
    took.sort_unstable();
    table.add("change to Programmed, P50", "ms", percentile(&took, 50) / 1000);
    table.add("change to Programmed, P99", "ms", percentile(&took, 99) / 1000);
    Ok(())
}

fn operator(folder: &Path, kubeconfig: &Path) -> anyhow::Result<Process> {
    let mut command = fairlead()?;
    command
        .env("KUBECONFIG", kubeconfig)
        .env("POD_NAME", "bench")
        .args(["operator", "--listen", &format!("127.0.0.1:{}", free_port()?), "--allow-endpoints", "127.0.0.0/8"])
        .args(["--namespaces", NAMESPACE, "--lease-namespace", NAMESPACE])
        .arg("--state")
        .arg(folder.join("state"));
    Process::start("operator", command, folder)
}

fn name(number: usize) -> String {
    format!("customers-{number}")
}

/// The quickstart's Integration under another name, paused; without correlation fields, since each of those has one holder.
fn paused(template: &Value, number: usize) -> anyhow::Result<DynamicObject> {
    let mut object = template.clone();
    object["metadata"]["name"] = json!(name(number));
    object["spec"]["state"] = json!("Paused");
    for participant in object["spec"]["sync"]["participants"].as_array_mut().into_iter().flatten() {
        participant["write"] = json!({"onDelete": "Keep"});
    }
    serde_json::from_value(object).context("an Integration")
}

/// The generation for which `Programmed` is true.
fn programmed_generation(object: &DynamicObject) -> Option<i64> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|found| found["type"] == "Programmed" && found["status"] == "True")?;
    found["observedGeneration"].as_i64()
}

impl Edits {
    fn see(&mut self, object: &DynamicObject) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let Some((generation, begun)) = self.awaited.get(name) else { return };
        if programmed_generation(object).is_some_and(|programmed| programmed >= *generation) {
            self.took.push(micros(begun.elapsed()));
            self.awaited.remove(name);
        }
    }
}

/// Takes note of every change as the API server tells it.
async fn watch(integrations: Api<DynamicObject>, edits: Arc<Mutex<Edits>>) -> anyhow::Result<()> {
    let from = integrations.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version.unwrap_or_default();
    let mut events = integrations.watch(&WatchParams::default(), &from).await?.boxed();
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Modified(object) = event {
            edits.lock().unwrap_or_else(PoisonError::into_inner).see(&object);
        }
    }
    Ok(())
}
