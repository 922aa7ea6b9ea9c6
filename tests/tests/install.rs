//! The chart on a node: installed, killed, upgraded, uninstalled and installed again, with the quickstart kept in step and served all along.
//!
//! The node runs on this machine, the two systems and a token issuer beside it, and what is installed is the image that `tools/image` builds.
//! It needs root, as `tests/src/node.rs` says; where that is missing, it fails with the words of what is.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fairlead_gateway::issuer::{DevelopmentIssuer, Grant};
use fairlead_model::SystemClock;
use fairlead_tests::two_systems::{TwoSystems, text};
use fairlead_tests::{Cluster, Seen, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;

/// Long for anything that must come; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// R3 of what is promised: from the death of the pod to Ready.
const READY_AGAIN: Duration = Duration::from_secs(20);

const QUICKSTART: &str = "north-america";

/// The name under which clients know the gateway.
const GATEWAY: &str = "api.acme.example";

/// A cluster, two systems, and the quickstart filled in for them.
struct Company {
    // Dropped first: whoever speaks to the systems goes before them.
    cluster: Cluster,
    systems: TwoSystems,
    quickstart: TempDir,
    edits: u64,
}

#[allow(clippy::disallowed_methods, reason = "our own gateway and issuer, which bound their answers")]
async fn body(answer: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    Ok(answer.bytes().await?.to_vec())
}

/// The contract of `examples/gateway` served by the release, and whoever calls it.
struct Served {
    issuer: DevelopmentIssuer,
    certificate: String,
}

impl Served {
    /// Gives the gateway its certificate, and the quickstart the contract.
    async fn prepare(company: &Company) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((company.cluster.machine()?, 0)).await?;
        let issuer = DevelopmentIssuer::simulate(listener, "fairlead", Arc::new(SystemClock))?;
        let contract = fs::read_to_string(repository().join("examples/gateway/customer-v1.yaml"))?;
        let mut contract: Value = serde_saphyr::from_str(&contract)?;
        contract["spec"]["security"]["issuers"][0]["issuer"] = json!(issuer.issuer());
        contract["spec"]["security"]["issuers"][0]["jwksUri"] = json!(issuer.jwks_uri());
        let made = rcgen::generate_simple_self_signed([GATEWAY.to_owned()])?;
        fs::write(company.quickstart.path().join("30-contract.yaml"), contract.to_string())?;
        let certificate = made.cert.pem();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "gateway-tls", "namespace": "fairlead"},
            "stringData": {"tls.crt": certificate, "tls.key": made.signing_key.serialize_pem()},
        });
        let applied = company.cluster.kubectl_with_input(["apply", "-f", "-"], &secret.to_string()).await?;
        ensure!(applied.code == Some(0), "{applied}");
        Ok(Self { issuer, certificate })
    }

    fn token(&self, client: &str, scopes: &[&str]) -> String {
        self.issuer.token(&Grant {
            client_id: client.to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            audience: "fairlead".to_owned(),
            lifetime: Duration::from_secs(600),
        })
    }

    /// Calls the gateway by its Service, as a client that trusts its certificate only.
    async fn judge(&self, company: &Company) -> anyhow::Result<()> {
        company.kubectl(&["wait", "-n", QUICKSTART, "--for=condition=Ready", "fcontract/customer-v1", "--timeout=60s"]).await?;
        let service = company.object(&["service", "-n", "fairlead", "fairlead-gateway"]).await?;
        let address: IpAddr = service["spec"]["clusterIP"].as_str().context("the Service has an address")?.parse()?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .tls_certs_only([reqwest::Certificate::from_pem(self.certificate.as_bytes())?])
            .resolve(GATEWAY, (address, 443).into())
            .build()?;
        let url = format!("https://{GATEWAY}/sales/customer/v1");
        let get = async |query: &str, token: Option<String>| {
            let request = client.get(format!("{url}{query}"));
            let answer = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth).send().await?;
            anyhow::Ok((answer.status().as_u16(), body(answer).await?))
        };
        let office = || Some(self.token("back-office", &["customers.read", "customers.write"]));
        let (status, page) = get("?limit=1", office()).await?;
        let page: Value = serde_json::from_slice(&page)?;
        ensure!(status == 200 && page["items"][0]["data"]["name"].is_string(), "{status}: {page}");
        assert_eq!(get("?limit=1", None).await?.0, 401, "without a token");
        assert_eq!(get("?limit=1", Some(self.token("back-office", &["customers.write"]))).await?.0, 403, "with another scope");
        let shop = self.token("web-shop", &["customers.read"]);
        let calls = (0..200).map(|_| get("?limit=1", Some(shop.clone())));
        let told: Vec<u16> = futures::future::try_join_all(calls).await?.into_iter().map(|(status, _)| status).collect();
        ensure!(told.contains(&429) && told.contains(&200) && told.iter().all(|told| matches!(told, 200 | 429)), "{told:?}");
        let request = client.post(&url).bearer_auth(office().unwrap_or_default()).header("idempotency-key", "bad");
        let answer = request.header("content-type", "application/json").body(r#"{"data":{"name":"","employees":-1}}"#).send().await?;
        let status = answer.status().as_u16();
        let problem: Value = serde_json::from_slice(&body(answer).await?)?;
        let pointers: Vec<_> = problem["errors"].as_array().into_iter().flatten().map(|error| error["pointer"].clone()).collect();
        ensure!(status == 400 && pointers.contains(&json!("/data/employees")), "{status}: {problem}");
        Ok(())
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Does what examples/quickstart/README.md says: a copy of the folder with these systems' addresses, and both Secrets.
fn fill_in(systems: &TwoSystems) -> anyhow::Result<TempDir> {
    let copy = tempfile::Builder::new().prefix("fairlead-quickstart-").tempdir()?;
    let [salesforce, netsuite] = [&systems.salesforce, &systems.netsuite];
    let account = netsuite.credentials()["account"].as_str().context("the simulator has an account")?;
    for entry in fs::read_dir(repository().join("examples/quickstart"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a file's name")?;
        if name.ends_with(".yaml") {
            let manifest = fs::read_to_string(&path)?
                .replace("https://acme.my.salesforce.com", salesforce.endpoint())
                .replace("https://1234567.suitetalk.api.netsuite.com", netsuite.endpoint())
                .replace("\"1234567\"", &json!(account).to_string());
            fs::write(copy.path().join(name), manifest)?;
        } else if let Some(name) = name.strip_suffix(".example") {
            let system = if name.contains("salesforce") { salesforce } else { netsuite };
            let mut secret: Value = serde_saphyr::from_str(&fs::read_to_string(&path)?)?;
            let host = reqwest::Url::parse(system.endpoint())?.host_str().context("a host")?.to_owned();
            secret["metadata"]["annotations"]["fairlead.dev/allowed-hosts"] = json!(host);
            for (key, value) in secret["stringData"].as_object_mut().context("what the example asks for")? {
                *value = system.credentials()[key].clone();
                ensure!(value.is_string(), "the simulator gives no {key}, which {name} asks for");
            }
            fs::write(copy.path().join(name), secret.to_string())?;
        }
    }
    Ok(copy)
}

impl Company {
    async fn found() -> anyhow::Result<Self> {
        let cluster = Cluster::start().await?;
        let image = std::env::var_os("FAIRLEAD_TEST_IMAGE").context("FAIRLEAD_TEST_IMAGE is not set: run the tests with `make test`")?;
        cluster.load_image(Path::new(&image)).await?;
        let systems = TwoSystems::start_at(cluster.machine()?, 5, (5_000, 60), (5_020, 60)).await?;
        let quickstart = fill_in(&systems)?;
        Ok(Self { cluster, systems, quickstart, edits: 0 })
    }

    async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let answer = self.cluster.kubectl(arguments).await?;
        ensure!(answer.code == Some(0), "kubectl {arguments:?}: {answer}");
        Ok(answer.stdout)
    }

    async fn object(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let told = self.kubectl(&[&["get", "-o", "json"], arguments].concat()).await?;
        serde_json::from_str(&told).context("read what kubectl prints")
    }

    /// Runs helm for the release `fairlead` in the namespace `fairlead`.
    async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let tools = std::env::var_os("FAIRLEAD_TEST_CHART_TOOLS").context("FAIRLEAD_TEST_CHART_TOOLS is not set: run `make test`")?;
        let mut command = Command::new(Path::new(&tools).join("helm"));
        for (variable, folder) in [("HELM_CONFIG_HOME", "config"), ("HELM_CACHE_HOME", "cache"), ("HELM_DATA_HOME", "data")] {
            command.env(variable, self.quickstart.path().join(folder));
        }
        command.env("KUBECONFIG", self.cluster.kubeconfig()).args(["--namespace", "fairlead"]).args(arguments).kill_on_drop(true);
        let output = command.output().await.context("run helm")?;
        if !output.status.success() {
            let pods = self.kubectl(&["-n", "fairlead", "describe", "pods"]).await.unwrap_or_default();
            let log = self.kubectl(&["-n", "fairlead", "logs", "deployment/fairlead", "--tail=30"]).await.unwrap_or_default();
            anyhow::bail!("helm {arguments:?}: {}\n{pods}\n{log}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Installs or upgrades the release with these values and waits until its pod is ready.
    async fn release(&self, action: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let chart = repository().join("charts/fairlead");
        let chart = chart.to_str().context("the chart's path")?;
        self.helm(&[&[action, "fairlead", chart, "--wait", "--timeout", "3m"], arguments].concat()).await.map(drop)
    }

    /// The one pod of the release that is not on its way out.
    async fn pod(&self) -> anyhow::Result<Value> {
        let pods = self.object(&["pods", "-n", "fairlead", "-l", "app.kubernetes.io/instance=fairlead"]).await?;
        let mut pods = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let pod = pods.next().context("no pod")?.clone();
        ensure!(pods.next().is_none(), "more than one pod");
        Ok(pod)
    }

    /// Waits until a pod is ready that is not `old` as it was, and says how long after `since` that was.
    async fn ready_again(&self, old: &Value, since: Instant) -> anyhow::Result<Duration> {
        let life = |pod: &Value| (pod["metadata"]["uid"].clone(), pod["status"]["containerStatuses"][0]["restartCount"].clone());
        wait_until("the pod to be ready again", PATIENCE, async || {
            let pod = self.pod().await?;
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
            Ok(Seen::when(ready && life(&pod) != life(old), format_args!("{}", pod["status"])))
        })
        .await?;
        Ok(since.elapsed())
    }

    /// Judges what follows the death of `old`: a pod is ready soon enough (how soon is told), and the edit on its way arrives with the next ones.
    async fn recovers(&mut self, old: &Value, since: Instant) -> anyhow::Result<Duration> {
        let took = self.ready_again(old, since).await?;
        assert!(took < READY_AGAIN, "{took:?}");
        self.integration_is_ready().await?;
        self.edits_arrive().await?;
        Ok(took)
    }

    async fn integration_is_ready(&self) -> anyhow::Result<()> {
        self.kubectl(&["wait", "-n", QUICKSTART, "--for=condition=Ready", "fint/customers", "--timeout=150s"]).await.map(drop)
    }

    /// A person edits a record in each system; waits until both hold both, and judges all that has happened so far.
    async fn edits_arrive(&mut self) -> anyhow::Result<()> {
        self.edit().await?;
        let report = self.systems.in_step(PATIENCE).await?;
        ensure!(report.edits > self.edits, "the checker has not heard of the edits: {report}");
        Ok(())
    }

    async fn edit(&mut self) -> anyhow::Result<()> {
        self.edits += 1;
        let account = self.systems.salesforce.find("Tax_Number__c", &self.tax_number().await?).await?;
        let customer = self.systems.netsuite.find("vatRegNumber", &self.tax_number().await?).await?;
        let (phone, limit) = (format!("+1 555 {:04}", self.edits), 1_000_000 + self.edits);
        self.systems.salesforce.edit(&text(&account, "Id"), json!({"Phone": phone})).await?;
        self.systems.netsuite.edit(&text(&customer, "id"), json!({"creditLimit": limit})).await
    }

    /// Of a company that both systems have, and that had a credit limit from the start.
    async fn tax_number(&self) -> anyhow::Result<String> {
        let accounts = self.systems.salesforce.records().await?;
        let customers = self.systems.netsuite.records().await?;
        let shared =
            customers.iter().filter(|customer| !text(customer, "creditLimit").is_empty()).map(|customer| text(customer, "vatRegNumber"));
        let mut shared = shared.filter(|tax| accounts.iter().any(|account| text(account, "Tax_Number__c") == *tax && !tax.is_empty()));
        shared.next().context("a company that both have")
    }

    /// Records that Fairlead has created in both systems.
    async fn creations(&self) -> anyhow::Result<usize> {
        let told = self.systems.told().await?;
        let created = |told: &fairlead_simulators::history::Told| told.after.len() - told.before.len();
        Ok(told.iter().map(created).sum())
    }
}

/// Kills the program of the pod's container as the kernel would, out of memory.
fn kill_program(cluster: &Cluster, pod: &Value) -> anyhow::Result<()> {
    let uid = pod["metadata"]["uid"].as_str().context("the pod has a uid")?;
    let is_ours = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("fairlead\0operator"));
    let processes = cluster.pod_processes(uid)?;
    let pid = processes.iter().copied().find(is_ours).with_context(|| format!("no fairlead operator among {processes:?}"))?;
    kill_process(Pid::from_raw(pid).context("a process id")?, Signal::KILL).context("kill it")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_keeps_the_quickstart_in_step_through_deaths_upgrade_and_a_second_installation() -> anyhow::Result<()> {
    let mut company = Company::found().await?;
    let machine = format!("allowEndpoints={{{}/32}}", company.cluster.machine()?);
    let everywhere = ["--set", &machine, "--set", "gateway.enabled=true", "--set", "gateway.tls.secretName=gateway-tls"];
    let values = [everywhere.as_slice(), &["--set", "secretNamespaces={north-america}", "--set", "createNamespaces=true"]].concat();

    // Installed as a newcomer does, into a namespace that admits nothing but restricted pods.
    company.kubectl(&["create", "namespace", "fairlead"]).await?;
    company.kubectl(&["label", "namespace", "fairlead", "pod-security.kubernetes.io/enforce=restricted"]).await?;
    let served = Served::prepare(&company).await?;
    company.release("install", &values).await?;
    let folder = company.quickstart.path().to_str().context("the folder")?.to_owned();
    company.kubectl(&["apply", "-f", &folder]).await?;
    company.integration_is_ready().await?;
    company.edits_arrive().await?;
    let created = company.creations().await?;
    assert_eq!(created, 40, "each of the 20 + 20 companies that one of them lacked");
    served.judge(&company).await?;

    // The program dies with an edit on its way.
    let pod = company.pod().await?;
    company.edit().await?;
    let since = Instant::now();
    kill_program(&company.cluster, &pod)?;
    let took = company.recovers(&pod, since).await?;
    println!("ready {took:?} after the program was killed");

    // The pod is taken away by force: the next one may start while the old program still runs.
    let pod = company.pod().await?;
    company.edit().await?;
    let since = Instant::now();
    let name = pod["metadata"]["name"].as_str().context("its name")?.to_owned();
    company.kubectl(&["delete", "pod", "-n", "fairlead", &name, "--force", "--grace-period=0"]).await?;
    let took = company.recovers(&pod, since).await?;
    println!("ready {took:?} after the pod was deleted by force");
    served.judge(&company).await?;

    // A changed value replaces the pod.
    let pod = company.pod().await?;
    company.release("upgrade", &["--reuse-values", "--set", "log.level=debug"]).await?;
    let upgraded = company.pod().await?;
    assert_ne!(pod["metadata"]["uid"], upgraded["metadata"]["uid"]);
    assert!(upgraded["spec"].to_string().contains(r#"{"name":"FAIRLEAD_LOG","value":"debug"}"#), "{}", upgraded["spec"]);
    company.integration_is_ready().await?;
    company.edits_arrive().await?;

    // Without Fairlead people go on, and what they declared stays.
    company.helm(&["uninstall", "fairlead", "--wait", "--timeout", "2m"]).await?;
    company.kubectl(&["get", "crd", "integrations.fairlead.dev", "connectors.fairlead.dev", "apicontracts.fairlead.dev"]).await?;
    company.kubectl(&["get", "-n", QUICKSTART, "fint/customers", "secret/salesforce-credentials", "secret/netsuite-credentials"]).await?;
    company.edit().await?;

    // The second installation has no rights in the cluster, only in two namespaces, and goes on where the first one stopped.
    let few_rights = ["--set", "namespaces={north-america}", "--set", "crds.enabled=false", "--set", "rbac.aggregate=false"];
    let namespaced = [everywhere.as_slice(), &few_rights].concat();
    let tenant = |namespace: &str| {
        let metadata = json!({"name": "tenant", "namespace": namespace});
        let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [everything]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
             "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tenant"}]},
        ]})
    };
    for namespace in ["fairlead", QUICKSTART] {
        let applied = company.cluster.kubectl_with_input(["apply", "-f", "-"], &tenant(namespace).to_string()).await?;
        ensure!(applied.code == Some(0), "{applied}");
    }
    company.release("install", &[namespaced.as_slice(), &["--kube-as-user", "tenant"]].concat()).await?;
    let rights = ["--as=system:serviceaccount:fairlead:fairlead", "list", "integrations.fairlead.dev"];
    let may = async |place: &[&str]| {
        let answer = company.cluster.kubectl([["auth", "can-i"].as_slice(), &rights, place].concat()).await?;
        anyhow::Ok(answer.code == Some(0))
    };
    assert!(may(&["-n", QUICKSTART]).await?);
    assert!(!may(&["--all-namespaces"]).await? && !may(&["-n", "default"]).await?, "rights beyond its namespace");
    company.integration_is_ready().await?;
    company.edits_arrive().await?;
    assert_eq!(company.creations().await?, created, "created again what was there");
    served.judge(&company).await?;
    Ok(())
}
