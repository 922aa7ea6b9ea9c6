//! A company on a cluster: a namespace, two simulated systems, the quickstart's manifests, operator processes.
//!
//! The operator is a user with the rights of `examples/operator/rbac.yaml` and no others. What a person sees is read by kubectl, what an
//! operator asked for is read from the audit log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::audit::AuditEvent;
use crate::control_plane::ControlPlane;
use crate::namespace::TestNamespace;
use crate::process::{Process, fairlead, free_port};
use crate::wait::{Seen, wait_until};

/// Long for anything that must come; a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A simulated system.
pub struct System {
    _process: Process,
    /// Where it listens.
    pub endpoint: String,
    /// What goes into its Secret.
    pub credentials: Value,
    http: reqwest::Client,
}

impl System {
    /// Starts one with this many companies.
    ///
    /// # Errors
    /// When it does not announce itself.
    pub async fn start(name: &str, records: u64, folder: &Path) -> anyhow::Result<Self> {
        let mut command = fairlead()?;
        // Companies from 5000 on are held by both systems, with tax numbers that match.
        command.args(["simulate", name, "--first", "5000", "--records", &records.to_string()]);
        let mut process = Process::start(name, command, folder)?;
        let announced = process.line("its announcement", PATIENCE, |line| serde_json::from_str::<Value>(line).ok()).await?;
        let endpoint = announced["endpoint"].as_str().context("an endpoint")?.to_owned();
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { _process: process, endpoint, credentials: announced["credentials"].clone(), http })
    }

    /// One of the simulator's pages for tests.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, page: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&body(self.http.get(format!("{}/__fairlead/{page}", self.endpoint)).send().await?).await?)?)
    }

    /// Posts to one of the simulator's pages for tests.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn post(&self, page: &str, what: &Value) -> anyhow::Result<()> {
        let answer = self.http.post(format!("{}/__fairlead/{page}", self.endpoint)).body(what.to_string()).send().await?;
        ensure!(answer.status().is_success(), "{page}: {}", answer.status());
        Ok(())
    }

    /// Everything it holds of an entity.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn records(&self, entity: &str) -> anyhow::Result<Vec<Value>> {
        Ok(self.get(&format!("records/{entity}")).await?.as_array().cloned().unwrap_or_default())
    }

    /// How many records the vendor's API was asked to make.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn creations(&self) -> anyhow::Result<usize> {
        let log = self.get("log").await?;
        let created = |entry: &&Value| entry["origin"] == "api" && entry["outcome"] == "created";
        Ok(log.as_array().map_or(0, |entries| entries.iter().filter(created).count()))
    }
}

#[allow(clippy::disallowed_methods, reason = "our own simulator, whose size we chose")]
async fn body(answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    Ok(answer.error_for_status()?.bytes().await?.to_vec())
}

/// A company's stage: namespace, two systems, manifests.
pub struct Stage {
    /// The API server.
    pub plane: ControlPlane,
    admin: Client,
    /// Its namespace.
    pub namespace: TestNamespace,
    /// Where logs and states lie.
    pub folder: TempDir,
    /// The CRM.
    pub crm: System,
    /// The ERP.
    pub erp: System,
}

impl Stage {
    /// A fresh namespace with two fresh systems.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn new(plane: &ControlPlane, name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let namespace = TestNamespace::new(plane, name).await?;
        let crm = System::start("salesforce", 60, folder.path()).await?;
        let erp = System::start("netsuite", 40, folder.path()).await?;
        Ok(Self { plane: plane.clone(), admin: plane.admin().await?, namespace, folder, crm, erp })
    }

    /// A file of the quickstart, as this company would fill it in.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn manifest(&self, file: &str) -> anyhow::Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let account = self.erp.credentials["account"].as_str().unwrap_or("1234567");
        Ok(text
            .replace("north-america", self.namespace.name())
            .replace("https://acme.my.salesforce.com", &self.crm.endpoint)
            .replace("https://1234567.suitetalk.api.netsuite.com", &self.erp.endpoint)
            .replace("account: \"1234567\"", &format!("account: {account:?}"))
            .replace("poll: {every: 5s}", "poll: {every: 1s}"))
    }

    /// The Secret with a system's credentials.
    pub fn secret(&self, name: &str, system: &System) -> String {
        let mut data = system.credentials.clone();
        if let Some(fields) = data.as_object_mut() {
            fields.retain(|_, value| value.is_string());
        }
        let metadata =
            json!({"name": name, "namespace": self.namespace.name(), "annotations": {"fairlead.dev/allowed-hosts": "127.0.0.1"}});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}).to_string()
    }

    /// Applies a manifest as a person would.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        let answer = self.plane.kubectl_with_input(["apply", "--server-side", "--force-conflicts", "-f", "-"], manifest).await?;
        ensure!(answer.code == Some(0), "{answer}");
        Ok(())
    }

    /// Applies files of the quickstart.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn apply_files(&self, files: &[&str]) -> anyhow::Result<()> {
        for file in files {
            self.apply(&self.manifest(file)?).await?;
        }
        Ok(())
    }

    /// Everything that the quickstart's README says to apply.
    ///
    /// # Errors
    /// When the API server refuses a part.
    pub async fn apply_quickstart(&self) -> anyhow::Result<()> {
        self.apply_files(&["10-definitions.yaml", "20-connectors.yaml", "30-contract.yaml", "40-integration.yaml"]).await?;
        self.apply(&self.secret("salesforce-credentials", &self.crm)).await?;
        self.apply(&self.secret("netsuite-credentials", &self.erp)).await
    }

    /// Grants what `examples/operator/rbac.yaml` grants, within the namespace, and gives the credentials.
    ///
    /// # Errors
    /// When the API server refuses the grant.
    pub async fn operator_user(&self, user: &str) -> anyhow::Result<PathBuf> {
        self.plane.allow(user, Some(self.namespace.name()), granted()?).await?;
        self.plane.kubeconfig_for(user, &[])
    }

    /// An operator under a new account.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn operator(&self, user: &str) -> anyhow::Result<Operator> {
        let kubeconfig = self.operator_user(user).await?;
        self.operator_with(user, &kubeconfig).await
    }

    /// Starts an operator under an account that exists; its state folder has the account's name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn operator_with(&self, user: &str, kubeconfig: &Path) -> anyhow::Result<Operator> {
        let (listen, command) = self.operator_command(user, kubeconfig)?;
        self.operator_by(user, listen, command)
    }

    /// The command that [`Stage::operator_with`] starts, for a test that starts it in surroundings of its own, and the address it listens on.
    ///
    /// # Errors
    /// When the binary has not been built.
    pub fn operator_command(&self, user: &str, kubeconfig: &Path) -> anyhow::Result<(String, Command)> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut command = fairlead()?;
        command
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", user)
            .args(["operator", "--listen", &listen, "--allow-endpoints", "127.0.0.0/8"])
            .args(["--namespaces", self.namespace.name(), "--lease-namespace", self.namespace.name()])
            .arg("--state")
            .arg(self.state(user));
        Ok((listen, command))
    }

    /// The state folder of an operator.
    pub fn state(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("state-{user}"))
    }

    /// Starts an operator by a command of [`Stage::operator_command`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn operator_by(&self, user: &str, listen: String, command: Command) -> anyhow::Result<Operator> {
        let process = Process::start(user, command, self.folder.path())?;
        Ok(Operator { process, listen, http: reqwest::Client::builder().no_proxy().build()?, user: user.to_owned() })
    }

    /// What kubectl prints about this namespace.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let answer = self.plane.kubectl(args.iter().copied().chain(["-n", self.namespace.name()])).await?;
        ensure!(answer.code == Some(0), "{answer}");
        Ok(answer.stdout)
    }

    /// An object of this namespace, by the short name of its kind.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn object(&self, kind: &str, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::to_value(self.api(kind)?.get(name).await?)?)
    }

    /// The resources of a kind in this namespace, by the kind's short name, as an administrator sees them.
    ///
    /// # Errors
    /// When the short name is unknown.
    pub fn api(&self, kind: &str) -> anyhow::Result<Api<DynamicObject>> {
        let (group, version, kind, plural) = match kind {
            "fcontract" => ("fairlead.dev", "v1alpha1", "ApiContract", "apicontracts"),
            "fconn" => ("fairlead.dev", "v1alpha1", "Connector", "connectors"),
            "fint" => ("fairlead.dev", "v1alpha1", "Integration", "integrations"),
            "lease" => ("coordination.k8s.io", "v1", "Lease", "leases"),
            "secret" => ("", "v1", "Secret", "secrets"),
            "configmap" => ("", "v1", "ConfigMap", "configmaps"),
            other => bail!("no kind of these tests has the short name {other}"),
        };
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Ok(Api::namespaced_with(self.admin.clone(), self.namespace.name(), &resource))
    }

    /// Waits until every resource of ours is Ready.
    ///
    /// # Errors
    /// When one does not become so.
    pub async fn all_ready(&self) -> anyhow::Result<()> {
        for kind in ["fcontract", "fconn", "fint"] {
            self.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", kind, "--all"]).await?;
        }
        Ok(())
    }

    /// Waits until a condition has this status and reason. Gives the time that it took.
    ///
    /// # Errors
    /// When it does not come, or comes too late.
    pub async fn condition(&self, kind: &str, name: &str, wanted: (&str, &str, &str), deadline: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let (condition, status, reason) = wanted;
        wait_until(&format!("{kind} {name}: {condition}={status} {reason}"), deadline.max(PATIENCE), async || {
            let object = self.object(kind, name).await?;
            let found = find(&object, condition);
            Ok(Seen::when(found["status"] == status && found["reason"] == reason, &object["status"]))
        })
        .await?;
        let took = started.elapsed();
        ensure!(took <= deadline, "{kind} {name}: {condition}={status} {reason} took {took:?}, more than {deadline:?}");
        Ok(took)
    }

    /// A person edits an account's phone number; the wait ends when the customer has it.
    ///
    /// # Errors
    /// When it does not arrive.
    pub async fn edit_arrives(&self, phone: &str) -> anyhow::Result<()> {
        let accounts = self.crm.records("Account").await?;
        let account = accounts.first().context("an account")?;
        let name = account["Name"].clone();
        self.crm.post("edit", &json!({"entity": "Account", "id": account["Id"], "values": {"Phone": phone}})).await?;
        wait_until("the edit in the other system", PATIENCE, async || {
            let customers = self.erp.records("customer").await?;
            let arrived = customers.iter().any(|customer| customer["companyName"] == name && customer["phone"] == phone);
            Ok(Seen::when(arrived, format!("{name} without {phone}")))
        })
        .await
    }

    /// The requests of an operator so far.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn requests(&self, user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        Ok(self.plane.audit().all()?.into_iter().filter(|event| event.is_by(user)).collect())
    }
}

/// A condition of an object; null when it has none of that type.
pub fn find<'a>(object: &'a Value, condition: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|each| each["type"] == condition)).unwrap_or(&Value::Null)
}

/// The rules of `examples/operator/rbac.yaml`.
fn granted() -> anyhow::Result<Vec<PolicyRule>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/operator/rbac.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path)?)?;
    let rules = documents.into_iter().flat_map(|document| document["rules"].as_array().cloned().unwrap_or_default());
    Ok(rules.map(serde_json::from_value).collect::<Result<_, _>>()?)
}

/// Holds every status that was written against what Flux, kstatus and Argo CD conclude from. `writes` are in the order of the answers, and
/// of everybody who writes statuses. A write whose caller went away may have had an effect or none.
pub fn judge_statuses(writes: &[AuditEvent]) {
    // What may stand there: the last write that was answered well (at first nothing), and those of unknown effect since.
    let mut earlier: BTreeMap<String, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    let statuses = writes.iter().filter(|write| write.subresource == "status" && (write.code == 200 || !(100..500).contains(&write.code)));
    let mut judged = 0;
    for (write, body) in statuses.filter_map(|write| Some((write, write.body.as_ref()?))) {
        let about = format!("{} {}", body["kind"], body["metadata"]["name"]);
        let conditions: BTreeMap<String, Value> = body["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|condition| (condition["type"].as_str().unwrap_or_default().to_owned(), condition.clone()))
            .collect();
        let is = |kind: &str, status: &str| conditions.get(kind).is_some_and(|condition| condition["status"] == status);
        assert!(conditions.contains_key("Ready") && conditions.contains_key("Accepted"), "{about}: {body}");
        assert!(!(is("Reconciling", "True") && is("Stalled", "True")), "{about} is both on its way and stuck: {body}");
        for negative in ["Reconciling", "Stalled", "Degraded", "Lagging", "Paused", "Throttled"] {
            assert!(conditions.get(negative).is_none_or(|_| is(negative, "True")), "{about}: {negative} while not True: {body}");
        }
        let excused = ["Reconciling", "Stalled", "Degraded"].into_iter().any(|negative| is(negative, "True"));
        if is("Ready", "True") {
            let positives = ["Accepted", "ResolvedRefs", "Reachable", "Programmed", "Healthy"];
            let broken = positives.into_iter().filter(|kind| conditions.contains_key(*kind) && !is(kind, "True")).collect::<Vec<_>>();
            assert!(!excused && broken.is_empty(), "{about} is Ready while it is not: {body}");
        } else {
            assert!(excused, "{about} is not Ready, and nothing says whether waiting helps: {body}");
        }
        // A transition time moves exactly when the status does.
        let before = earlier.entry(body["metadata"]["uid"].to_string()).or_insert_with(|| vec![BTreeMap::new()]);
        let follows = |before: &BTreeMap<String, Value>| {
            conditions.iter().all(|(kind, condition)| {
                let same = before.get(kind).filter(|old| old["status"] == condition["status"]);
                same.is_none_or(|old| old["lastTransitionTime"] == condition["lastTransitionTime"])
            })
        };
        assert!(
            write.code != 200 || before.iter().any(follows),
            "{about}: a transition time moved and nothing has flipped: {body}\nbefore: {before:?}"
        );
        if write.code == 200 {
            before.clear();
        }
        before.push(conditions);
        judged += 1;
    }
    assert!(judged > 0, "no status was written");
}

/// A number from an operator's store, read beside it.
///
/// # Errors
/// When the store cannot be read.
pub fn count(store: &Path, query: &str) -> anyhow::Result<i64> {
    let connection = rusqlite::Connection::open_with_flags(store, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(connection.query_row(query, [], |row| row.get(0))?)
}

/// An operator process.
pub struct Operator {
    /// The process.
    pub process: Process,
    /// The address of its admin surface.
    pub listen: String,
    http: reqwest::Client,
    /// The account that it acts as.
    pub user: String,
}

impl Operator {
    /// A page of its admin surface.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn page(&self, page: &str) -> anyhow::Result<String> {
        let answer = self.http.get(format!("http://{}/{page}", self.listen)).send().await?;
        Ok(String::from_utf8(body(answer).await?)?)
    }

    /// A metric's value, by the beginning of its line.
    pub async fn metric(&self, series: &str) -> anyhow::Result<Option<f64>> {
        let text = self.page("metrics").await?;
        Ok(text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()))
    }

    /// Waits until it leads.
    ///
    /// # Errors
    /// When it does not.
    pub async fn leads(&self) -> anyhow::Result<()> {
        wait_until("leadership", PATIENCE, async || {
            let leads = self.metric(r#"leader_election_master_status{name="fairlead-controller"}"#).await?;
            Ok(Seen::when(leads == Some(1.0), format!("{leads:?}")))
        })
        .await
    }

    /// Stops it kindly.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.terminate()?;
        let ended = self.process.end(Duration::from_secs(25)).await?;
        ensure!(ended.success(), "{ended}: {}", self.process.tail());
        Ok(())
    }
}
