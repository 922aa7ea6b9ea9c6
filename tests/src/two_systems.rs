//! Two simulated systems, the quickstart's manifests made to fit them, and `fairlead run` between them: all of them processes.
//!
//! A test starts [`TwoSystems`], changes the [`Manifests`] where it must, applies them, and runs one or several [`Fairlead`]s on the same
//! state. What happened is asked of the simulators ([`TwoSystems::told`]) and judged by [`history`].

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use fairlead_simulators::core::value::Value as Native;
use fairlead_simulators::history::{self, Agreement, Entry, Report, Told};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Process, fairlead, free_port};
use crate::wait::{Seen, wait_until};

/// Longer than anything takes to start.
const START: Duration = Duration::from_secs(60);

/// Which companies a system holds: the first, and how many. The same number is the same company in both.
pub type Companies = (u64, u64);

/// A simulated system.
#[derive(Debug)]
pub struct Simulated {
    process: Process,
    http: reqwest::Client,
    endpoint: String,
    credentials: Value,
    entity: &'static str,
}

impl Simulated {
    async fn start(
        address: Ipv4Addr,
        system: &'static str,
        entity: &'static str,
        companies: Companies,
        seed: u64,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = fairlead()?;
        command.args(["simulate", system, "--listen", &format!("{address}:0"), "--seed", &seed.to_string()]);
        command.args(["--first", &companies.0.to_string(), "--records", &companies.1.to_string()]);
        let mut process = Process::start(system, command, folder)?;
        let line = process.line("the simulator's announcement", START, |line| serde_json::from_str::<Value>(line).ok()).await?;
        let endpoint = line["endpoint"].as_str().ok_or_else(|| anyhow!("no endpoint in {line}"))?.to_owned();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().context("make a client")?;
        Ok(Self { process, http, endpoint, credentials: line["credentials"].clone(), entity })
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it takes for its client's credentials, and `account` where it has one.
    #[must_use]
    pub fn credentials(&self) -> &Value {
        &self.credentials
    }

    #[allow(clippy::disallowed_methods, reason = "our own simulator, whose size we chose")]
    async fn exchange(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Vec<u8>> {
        let response = request.send().await.with_context(|| format!("ask {}", self.process.name()))?;
        let status = response.status();
        let body = response.bytes().await.context("read a simulator's page")?;
        ensure!(status.is_success(), "{}: {status}: {}", self.process.name(), String::from_utf8_lossy(&body));
        Ok(body.into())
    }

    async fn get(&self, page: &str) -> anyhow::Result<Vec<u8>> {
        self.exchange(self.http.get(format!("{}/__fairlead/{page}", self.endpoint))).await
    }

    async fn post(&self, page: &str, body: &Value) -> anyhow::Result<Value> {
        let body = self.exchange(self.http.post(format!("{}/__fairlead/{page}", self.endpoint)).body(body.to_string())).await?;
        if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body).context("read a simulator's answer") }
    }

    /// Everything it holds of the record type that is kept in step.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn records(&self) -> anyhow::Result<Vec<Native>> {
        self.records_of(self.entity).await
    }

    /// The record with this id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn record(&self, id: &str) -> anyhow::Result<Native> {
        let records = self.records().await?;
        let record = records.into_iter().find(|record| [text(record, "Id"), text(record, "id")].contains(&id.to_owned()));
        record.ok_or_else(|| anyhow!("{} holds no record {id}", self.process.name()))
    }

    /// The one record whose field holds `value`.
    ///
    /// # Errors
    /// When there is none, or several.
    pub async fn find(&self, field: &str, value: &str) -> anyhow::Result<Native> {
        let mut found: Vec<Native> = self.records().await?.into_iter().filter(|record| text(record, field) == value).collect();
        ensure!(found.len() == 1, "{} holds {} records whose {field} is {value:?}", self.process.name(), found.len());
        found.pop().ok_or_else(|| anyhow!("nothing found"))
    }

    /// The lines of its log after the line numbered `since`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn log(&self, since: u64) -> anyhow::Result<Vec<Entry>> {
        Told::read_log(&self.get(&format!("log?since={since}")).await?)
    }

    /// The number of the last line of its log.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn mark(&self) -> anyhow::Result<u64> {
        Ok(self.log(0).await?.last().map_or(0, |entry| entry.sequence))
    }

    /// How many requests of a kind it was sent, by its own count: `query`, `collections`, `token`, ...
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn requests(&self, kind: &str) -> anyhow::Result<u64> {
        let counters: Value = serde_json::from_slice(&self.get("requests").await?).context("read a simulator's counters")?;
        Ok(counters["byKind"][kind].as_object().into_iter().flat_map(|counts| counts.values()).filter_map(Value::as_u64).sum())
    }

    /// All its counters, for a failure message.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn counters(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.get("requests").await?).context("read a simulator's counters")
    }

    /// A person edits a record.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn edit(&self, id: &str, values: Value) -> anyhow::Result<()> {
        self.edit_of(self.entity, id, values).await
    }

    /// Everything it holds of another record type.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn records_of(&self, entity: &str) -> anyhow::Result<Vec<Native>> {
        Told::read_records(&self.get(&format!("records/{entity}")).await?)
    }

    /// A person edits a record of another type.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn edit_of(&self, entity: &str, id: &str, values: Value) -> anyhow::Result<()> {
        self.post("edit", &json!({"entity": entity, "id": id, "values": values})).await.map(|_| ())
    }

    /// A person makes a record; its id.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn create(&self, values: Value) -> anyhow::Result<String> {
        let record = self.post("create", &json!({"entity": self.entity, "values": values})).await?;
        let id = record["Id"].as_str().or_else(|| record["id"].as_str());
        id.map(str::to_owned).ok_or_else(|| anyhow!("no id in {record}"))
    }

    /// A person deletes a record.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn delete(&self, id: &str) -> anyhow::Result<()> {
        self.post("delete", &json!({"entity": self.entity, "id": id})).await.map(|_| ())
    }

    /// A person takes a record out of the recycle bin.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn undelete(&self, id: &str) -> anyhow::Result<()> {
        self.post("undelete", &json!({"entity": self.entity, "id": id})).await.map(|_| ())
    }

    /// A person merges a record into another, which stays.
    ///
    /// # Errors
    /// What the system says of it.
    pub async fn merge(&self, id: &str, into: &str) -> anyhow::Result<()> {
        self.post("merge", &json!({"entity": self.entity, "id": id, "into": into})).await.map(|_| ())
    }

    /// Goes wrong as this list of rules says, from now on; an empty list heals it.
    ///
    /// # Errors
    /// When a rule is wrong.
    pub async fn faults(&self, rules: Value) -> anyhow::Result<()> {
        self.post("faults", &json!({"rules": rules})).await.map(|_| ())
    }
}

/// A field of a record as text; nothing where it has no value, the id where it is a reference.
#[must_use]
pub fn text(record: &Native, field: &str) -> String {
    match record.get(field) {
        Some(Native::Text(text)) => text.clone(),
        Some(Native::Number(number)) => number.clone(),
        Some(Native::Bool(flag)) => flag.to_string(),
        Some(object @ Native::Object(_)) => text(object, "id"),
        Some(Native::Null | Native::List(_)) | None => String::new(),
    }
}

/// The two systems and what runs between them, in a folder of their own.
#[derive(Debug)]
pub struct TwoSystems {
    folder: TempDir,
    /// Salesforce: accounts.
    pub salesforce: Simulated,
    /// NetSuite: customers.
    pub netsuite: Simulated,
    before: [Vec<Native>; 2],
    /// The database that the state lies in, in place of the folder.
    database: Option<String>,
}

impl TwoSystems {
    /// Starts both systems with these companies. Companies 5,000 to 9,999 all have a tax number, by which they are matched.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(seed: u64, accounts: Companies, customers: Companies) -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, seed, accounts, customers).await
    }

    /// Starts both systems where pods can reach them.
    ///
    /// # Errors
    /// As [`TwoSystems::start`].
    pub async fn start_at(address: Ipv4Addr, seed: u64, accounts: Companies, customers: Companies) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("fairlead-two-").tempdir().context("make a folder")?;
        let (salesforce, netsuite) = tokio::try_join!(
            Simulated::start(address, "salesforce", "Account", accounts, seed, folder.path()),
            Simulated::start(address, "netsuite", "customer", customers, seed, folder.path()),
        )?;
        let before = [salesforce.records().await?, netsuite.records().await?];
        let systems = Self { folder, salesforce, netsuite, before, database: None };
        systems.apply(&systems.manifests()?)?;
        Ok(systems)
    }

    /// Keeps the state in the PostgreSQL database with this URL from now on, or else in the folder.
    #[must_use]
    pub fn with_database(self, url: Option<String>) -> Self {
        Self { database: url, ..self }
    }

    /// Tells a command where the state lies.
    fn with_state(&self, command: &mut Command) {
        match &self.database {
            Some(url) => command.env("FAIRLEAD_DATABASE_URL", url),
            None => command.arg("--state").arg(self.state()),
        };
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder of manifests.
    #[must_use]
    pub fn manifests_folder(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// The quickstart's manifests with these systems' addresses and credentials, and with the patience of a test: polls and retries every
    /// second, a guard that lets every record change once.
    ///
    /// # Errors
    /// When the quickstart cannot be read.
    pub fn manifests(&self) -> anyhow::Result<Manifests> {
        Manifests::fitted(&self.salesforce, &self.netsuite)
    }

    /// Puts manifests into the folder that is watched; each file changes at once.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn apply(&self, manifests: &Manifests) -> anyhow::Result<()> {
        let folder = self.manifests_folder();
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        for (name, documents) in &manifests.files {
            let text: String = documents.iter().map(|document| format!("---\n{document}\n")).collect();
            let (written, path) = (self.folder.path().join("written"), folder.join(name));
            if fs::read_to_string(&path).is_ok_and(|present| present == text) {
                continue;
            }
            fs::write(&written, text).context("write a manifest")?;
            fs::rename(&written, &path).with_context(|| format!("publish {}", path.display()))?;
        }
        Ok(())
    }

    /// Starts `fairlead run` on the manifests and the state; `prepare` may add arguments and environment.
    ///
    /// # Errors
    /// When it cannot be started. That it serves is not waited for.
    pub fn fairlead(&self, name: &str, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<Fairlead> {
        let mut command = fairlead()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        command.arg("run").arg(self.manifests_folder());
        self.with_state(&mut command);
        command.args(["--listen", &address, "--allow-endpoints", "127.0.0.0/8"]);
        prepare(&mut command);
        Ok(Fairlead { process: Process::start(name, command, self.folder.path())?, http: self.salesforce.http.clone(), address })
    }

    /// A file with the token that a planner and its workers have in common.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn worker_token(&self) -> anyhow::Result<PathBuf> {
        let token = self.folder.path().join("token");
        fs::write(&token, "a token that workers have in common\n").context("write the workers' token")?;
        Ok(token)
    }

    /// Starts a `fairlead run` that only plans, and serves its units on this port of loopback to workers with the token in a file. It alone knows
    /// the status; what the lanes hold, its workers tell.
    ///
    /// # Errors
    /// When it cannot be started. That it serves is not waited for.
    pub fn planner(&self, name: &str, port: u16, token: &Path) -> anyhow::Result<Fairlead> {
        self.fairlead(name, |command| {
            command.args(["--workers-listen", &format!("127.0.0.1:{port}")]).arg("--worker-token-file").arg(token);
        })
    }

    /// Starts a `fairlead worker` of the planner that serves its units on this port of loopback, with the token in a file. It has metrics, and no
    /// status.
    ///
    /// # Errors
    /// When it cannot be started. That it serves is not waited for.
    pub fn worker(&self, name: &str, planner: u16, token: &Path) -> anyhow::Result<Fairlead> {
        let mut command = fairlead()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        command.args(["worker", "--planner", &format!("http://127.0.0.1:{planner}")]);
        command.arg("--worker-token-file").arg(token).arg("--secrets").arg(self.manifests_folder());
        self.with_state(&mut command);
        command.args(["--listen", &address, "--allow-endpoints", "127.0.0.0/8"]);
        Ok(Fairlead { process: Process::start(name, command, self.folder.path())?, http: self.salesforce.http.clone(), address })
    }

    /// Runs `fairlead run --until settled` and returns the resources with their status.
    ///
    /// # Errors
    /// When it does not settle within the deadline, or something is wrong when it has.
    pub async fn settle(&self, deadline: Duration) -> anyhow::Result<Value> {
        let mut running = self.fairlead("settling", |command| {
            command.args(["--until", "settled", "-o", "json"]);
        })?;
        let status = running.process.end(deadline).await?;
        let told = running.process.stdout()?;
        ensure!(status.success(), "it settled badly ({status}): {told}\n{}", running.process.tail());
        serde_json::from_str(&told).with_context(|| format!("read the status from {told}"))
    }

    /// The folder that goes away with the systems.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a `fairlead` command on the state and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = fairlead()?;
        command.args(arguments);
        self.with_state(&mut command);
        let output = command.output().await.context("run it")?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `fairlead dead-letters` on the state and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub async fn dead_letters(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.ask(&[&["dead-letters"], arguments].concat()).await
    }

    /// The open dead letters, or all of them.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn open_letters(&self, closed: bool) -> anyhow::Result<Vec<Value>> {
        let listed = self.dead_letters(if closed { &["list", "-o", "json", "--closed"] } else { &["list", "-o", "json"] }).await?;
        serde_json::from_str(&listed).context("read the listed dead letters")
    }

    /// What the two systems say of themselves, the left one (Salesforce) first.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn told(&self) -> anyhow::Result<[Told; 2]> {
        let [left, right] = &self.before;
        // The log first: what is written in between shows as a difference, never as a loss.
        Ok([
            Told { before: left.clone(), log: self.salesforce.log(0).await?, after: self.salesforce.records().await? },
            Told { before: right.clone(), log: self.netsuite.log(0).await?, after: self.netsuite.records().await? },
        ])
    }

    /// The checker's verdict on everything so far.
    ///
    /// # Errors
    /// When a system does not answer.
    pub async fn judged(&self) -> anyhow::Result<Report> {
        let [left, right] = self.told().await?;
        Ok(history::check(&Agreement::quickstart(), &[&left, &right]))
    }

    /// Waits until the checker finds nothing wrong, for the awaited end of a story.
    ///
    /// # Errors
    /// When it still does at the deadline; the message is its last report.
    pub async fn in_step(&self, deadline: Duration) -> anyhow::Result<Report> {
        wait_until("both systems in step", deadline, async || {
            let report = self.judged().await?;
            Ok(match report.correct() {
                Ok(()) => Seen::Yes(report),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
        .await
    }
}

/// A `fairlead run` or `fairlead worker`.
#[derive(Debug)]
pub struct Fairlead {
    /// The process.
    pub process: Process,
    http: reqwest::Client,
    address: String,
}

impl Fairlead {
    /// A process that serves on this admin address.
    #[must_use]
    pub fn at(process: Process, address: String) -> Self {
        Self { process, http: reqwest::Client::new(), address }
    }

    /// The admin address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    #[allow(clippy::disallowed_methods, reason = "our own process")]
    async fn page(&self, page: &str) -> anyhow::Result<Vec<u8>> {
        let request = self.http.get(format!("http://{}/{page}", self.address)).timeout(Duration::from_secs(5));
        let response = request.send().await?.error_for_status()?;
        Ok(response.bytes().await?.into())
    }

    /// Every resource with its status.
    ///
    /// # Errors
    /// When it does not serve (yet).
    pub async fn status(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.page("status").await?).context("read the status")
    }

    /// The status of the Integration.
    ///
    /// # Errors
    /// When it does not serve (yet).
    pub async fn integration(&self) -> anyhow::Result<Value> {
        let status = self.status().await?;
        let items = status["items"].as_array().into_iter().flatten();
        let found = items.into_iter().find(|item| item["kind"] == "Integration").cloned();
        found.map(|item| item["status"].clone()).ok_or_else(|| anyhow!("no Integration in {status}"))
    }

    /// Everything under `/metrics`.
    ///
    /// # Errors
    /// When it does not serve (yet).
    pub async fn metrics(&self) -> anyhow::Result<String> {
        String::from_utf8(self.page("metrics").await?).context("read the metrics")
    }

    /// The sum of a metric over all its labels.
    ///
    /// # Errors
    /// When it does not serve (yet).
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let page = self.metrics().await?;
        let values = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        values.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>().with_context(|| format!("read {line}"))).sum()
    }

    /// Keys that wait in the lanes of both targets.
    ///
    /// # Errors
    /// When it does not serve (yet).
    pub async fn pending(&self) -> anyhow::Result<u64> {
        self.metric("fairlead_lane_pending").await
    }

    /// Waits until the Integration's condition `kind` has this status and reason.
    ///
    /// # Errors
    /// When it has not by the deadline; the message holds the conditions.
    pub async fn condition(&self, kind: &str, status: &str, reason: &str, deadline: Duration) -> anyhow::Result<Value> {
        wait_until(&format!("{kind}={status} {reason}"), deadline, async || {
            let integration = self.integration().await?;
            let conditions = integration["conditions"].as_array().cloned().unwrap_or_default();
            let is_so = |found: &&Value| found["type"] == kind && found["status"] == status && found["reason"] == reason;
            Ok(match conditions.iter().find(is_so) {
                Some(_) => Seen::Yes(integration.clone()),
                None => Seen::NotYet(format!("{}", Value::Array(conditions))),
            })
        })
        .await
    }

    /// Waits until the Integration is Ready and its lanes are empty.
    ///
    /// # Errors
    /// When it is not by the deadline; the message holds its status.
    pub async fn ready(&self, deadline: Duration) -> anyhow::Result<()> {
        wait_until("a Ready integration with empty lanes", deadline, async || {
            let (integration, pending) = (self.integration().await?, self.pending().await?);
            let conditions = integration["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|found| found["type"] == "Ready" && found["status"] == "True");
            Ok(Seen::when(ready && pending == 0, format_args!("{pending} pending, {integration}")))
        })
        .await
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not within the grace of 25 seconds, or badly.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.terminate()?;
        let status: ExitStatus = self.process.end(Duration::from_secs(25)).await?;
        ensure!(status.success(), "it ended with {status}; the end of its log:\n{}", self.process.tail());
        Ok(())
    }
}

/// Manifests by file.
#[derive(Clone, Debug)]
pub struct Manifests {
    files: Vec<(String, Vec<Value>)>,
}

impl Manifests {
    fn fitted(salesforce: &Simulated, netsuite: &Simulated) -> anyhow::Result<Self> {
        let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
        let mut files = Vec::new();
        for name in ["00-namespace.yaml", "10-definitions.yaml", "20-connectors.yaml", "30-contract.yaml", "40-integration.yaml"] {
            let path = quickstart.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let documents = serde_saphyr::from_multiple(&text).with_context(|| format!("read {}", path.display()))?;
            files.push((name.to_owned(), documents));
        }
        for (name, system) in [("salesforce", salesforce), ("netsuite", netsuite)] {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {
                    "name": format!("{name}-credentials"), "namespace": "north-america",
                    "annotations": {"fairlead.dev/allowed-hosts": "127.0.0.1"},
                },
                "stringData": system.credentials,
            });
            files.push((format!("21-secret-{name}.yaml"), vec![secret]));
        }
        let mut manifests = Self { files };
        for (name, system) in [("salesforce", salesforce), ("netsuite", netsuite)] {
            let connector = manifests.document("Connector", name)?;
            connector["spec"]["endpoint"] = json!(system.endpoint);
            connector["spec"]["probe"] = json!({"every": "5s"});
            connector["spec"]["circuitBreaker"] = json!({"failures": 10, "within": "10s", "openFor": "1s"});
            if let Some(account) = system.credentials.get("account") {
                connector["spec"]["parameters"]["account"] = account.clone();
            }
            manifests.extend_definition(&format!("{name}-acme"), "throttle: {initial: 200ms, max: 1s}\n")?;
        }
        let integration = manifests.integration()?;
        integration["spec"]["delivery"] = json!({"retry": {"attempts": 50, "initial": "200ms", "max": "2s"}});
        integration["spec"]["sync"]["guard"] = json!({"maxDeletePercent": 100, "maxChangePercent": 100});
        for participant in ["crm", "erp"] {
            manifests.participant(participant)?["read"]["poll"]["every"] = json!("1s");
        }
        Ok(manifests)
    }

    /// Every document, in the order of the files.
    pub fn documents(&self) -> impl Iterator<Item = &Value> {
        self.files.iter().flat_map(|(_, documents)| documents)
    }

    /// The document of this kind and name.
    ///
    /// # Errors
    /// When there is none.
    pub fn document(&mut self, kind: &str, name: &str) -> anyhow::Result<&mut Value> {
        let mut documents = self.files.iter_mut().flat_map(|(_, documents)| documents);
        let found = documents.find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
        found.ok_or_else(|| anyhow!("the quickstart has no {kind} {name}"))
    }

    /// Adds a document in a file of its own.
    pub fn add(&mut self, file: &str, document: Value) {
        self.files.push((file.to_owned(), vec![document]));
    }

    /// The Integration.
    ///
    /// # Errors
    /// When there is none.
    pub fn integration(&mut self) -> anyhow::Result<&mut Value> {
        self.document("Integration", "customers")
    }

    /// A participant of the Integration: `crm` or `erp`.
    ///
    /// # Errors
    /// When there is none.
    pub fn participant(&mut self, name: &str) -> anyhow::Result<&mut Value> {
        let participants = self.integration()?["spec"]["sync"]["participants"].as_array_mut();
        let found = participants.into_iter().flatten().find(|participant| participant["name"] == name);
        found.ok_or_else(|| anyhow!("the quickstart has no participant {name}"))
    }

    /// The row of a participant for a canonical field.
    ///
    /// # Errors
    /// When there is none.
    pub fn row(&mut self, participant: &str, canonical: &str) -> anyhow::Result<&mut Value> {
        let rows = self.participant(participant)?["fields"].as_array_mut();
        let found = rows.into_iter().flatten().find(|row| row["canonical"] == canonical);
        found.ok_or_else(|| anyhow!("participant {participant} has no row for {canonical}"))
    }

    /// Adds lines to the definition in a ConfigMap.
    ///
    /// # Errors
    /// When there is none.
    pub fn extend_definition(&mut self, name: &str, lines: &str) -> anyhow::Result<()> {
        let document = self.document("ConfigMap", name)?;
        let Some(Value::String(definition)) = document.pointer_mut("/data/definition.yaml") else {
            bail!("ConfigMap {name} holds no definition.yaml");
        };
        if !definition.ends_with('\n') {
            definition.push('\n');
        }
        definition.write_str(lines).context("extend the definition")
    }
}
