//! Contracts served as APIs, as a consumer meets them: a real API server, `fairlead operator` with its gateway, two simulated systems, tokens of
//! a development issuer that the test holds in its own hands.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use fairlead_gateway::issuer::{DevelopmentIssuer, Grant};
use fairlead_model::SystemClock;
use fairlead_tests::two_systems::{Manifests, TwoSystems, text};
use fairlead_tests::{ControlPlane, Process, Seen, TestNamespace, fairlead, free_port, python, wait_until};
use k8s_openapi::api::rbac::v1::PolicyRule;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::RwLock;

/// Long for anything that must come; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Whom tokens are for.
const AUDIENCE: &str = "fairlead";
/// The contract.
const CONTRACT: &str = "customer-v1";

/// A served company.
struct Stage {
    plane: ControlPlane,
    namespace: TestNamespace,
    systems: TwoSystems,
    issuer: DevelopmentIssuer,
    http: reqwest::Client,
    gateway: String,
    kubeconfig: PathBuf,
    /// Every answer so far, as `tests/clients/openapi_check.py` wants to have them.
    answers: Mutex<Vec<Value>>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    etag: Option<String>,
    retry_after: Option<String>,
    challenge: Option<String>,
    replayed: bool,
    body: Value,
}

impl Stage {
    async fn new(name: &str) -> anyhow::Result<Self> {
        let plane = ControlPlane::shared()?;
        let namespace = TestNamespace::new(&plane, name).await?;
        let systems = TwoSystems::start(1, (5000, 30), (5000, 20)).await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let issuer = DevelopmentIssuer::start(listener, AUDIENCE, Arc::new(SystemClock))?;
        plane.allow(name, Some(namespace.name()), granted()?).await?;
        let kubeconfig = plane.kubeconfig_for(name, &[])?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let gateway = format!("127.0.0.1:{}", free_port()?);
        Ok(Self { plane, namespace, systems, issuer, http, gateway, kubeconfig, answers: Mutex::default() })
    }

    /// The quickstart's manifests with the contract of `examples/gateway`, for this issuer.
    fn manifests(&self) -> anyhow::Result<Manifests> {
        let mut manifests = self.systems.manifests()?;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gateway/customer-v1.yaml");
        let mut contract: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        contract["spec"]["security"]["issuers"][0]["issuer"] = json!(self.issuer.issuer());
        contract["spec"]["security"]["issuers"][0]["jwksUri"] = json!(self.issuer.jwks_uri());
        *manifests.document("ApiContract", CONTRACT)? = contract;
        Ok(manifests)
    }

    async fn apply(&self, manifests: &Manifests) -> anyhow::Result<()> {
        let documents = manifests.documents().filter(|document| document["kind"] != "Namespace");
        let text: String = documents.map(|document| format!("---\n{document}\n")).collect();
        let text = text.replace("north-america", self.namespace.name());
        let answer = self.plane.kubectl_with_input(["apply", "--server-side", "--force-conflicts", "-f", "-"], &text).await?;
        ensure!(answer.code == Some(0), "{answer}");
        Ok(())
    }

    fn operator(&self, prepare: impl FnOnce(&mut tokio::process::Command)) -> anyhow::Result<Process> {
        let mut command = fairlead()?;
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .args(["operator", "--listen", &format!("127.0.0.1:{}", free_port()?), "--allow-endpoints", "127.0.0.0/8"])
            .args(["--namespaces", self.namespace.name(), "--lease-namespace", self.namespace.name()])
            .args(["--gateway-listen", &self.gateway])
            .arg("--state")
            .arg(self.systems.state());
        prepare(&mut command);
        Process::start("operator", command, &self.systems.manifests_folder())
    }

    async fn contract(&self) -> anyhow::Result<Value> {
        let answer = self.plane.kubectl(["get", "fcontract", CONTRACT, "-n", self.namespace.name(), "-o", "json"]).await?;
        ensure!(answer.code == Some(0), "{answer}");
        Ok(serde_json::from_str(&answer.stdout)?)
    }

    /// Waits until a condition of the contract has this status and reason for the present generation.
    async fn condition(&self, kind: &str, status: &str, reason: &str) -> anyhow::Result<Value> {
        wait_until(&format!("{kind}={status} {reason}"), PATIENCE, async || {
            let contract = self.contract().await?;
            let conditions = contract["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let generation = &contract["metadata"]["generation"];
            let is_so =
                |c: &&Value| c["type"] == kind && c["status"] == status && c["reason"] == reason && c["observedGeneration"] == *generation;
            Ok(match conditions.iter().find(is_so) {
                Some(_) => Seen::Yes(contract.clone()),
                None => Seen::NotYet(format!("{}", contract["status"])),
            })
        })
        .await
    }

    async fn all_ready(&self) -> anyhow::Result<()> {
        for kind in ["fcontract", "fconn", "fint"] {
            let answer =
                self.plane.kubectl(["wait", "--for=condition=Ready", "--timeout=120s", kind, "--all", "-n", self.namespace.name()]).await?;
            ensure!(answer.code == Some(0), "{answer}");
        }
        Ok(())
    }

    fn token(&self, client: &str, scopes: &[&str]) -> String {
        self.issuer.token(&Grant {
            client_id: client.to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            audience: AUDIENCE.to_owned(),
            lifetime: Duration::from_secs(600),
        })
    }

    fn office(&self) -> String {
        self.token("back-office", &["customers.read", "customers.write"])
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}/sales/customer/v1{rest}", self.gateway)
    }

    async fn ask(
        &self,
        method: Method,
        rest: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.http.request(method.clone(), self.url(rest));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", media).body(body.to_string());
        }
        let answer = request.send().await.with_context(|| format!("{method} {rest}"))?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (etag, retry_after, challenge) = (header("etag"), header("retry-after"), header("www-authenticate"));
        let replayed = header("idempotency-replayed").is_some();
        let status = answer.status().as_u16();
        let body = body_of(answer).await?;
        let path = if rest.starts_with('/') { "/sales/customer/v1/{id}" } else { "/sales/customer/v1" };
        let told = json!({"method": method.as_str(), "path": path, "status": status, "body": body});
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        Ok(Answer { status, etag, retry_after, challenge, replayed, body })
    }

    /// Judges the published document, and all answers so far by it.
    async fn keep_to_the_document(&self) -> anyhow::Result<()> {
        let answer = self.http.get(self.url("/openapi.json")).bearer_auth(self.office()).send().await?;
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        let line = format!("{}\n", json!({"document": body_of(answer).await?, "answers": answers}));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/openapi_check.py");
        let mut judge = python()?
            .arg(script)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        let mut stdin = judge.stdin.take().context("a standard input")?;
        stdin.write_all(line.as_bytes()).await?;
        drop(stdin);
        let told = judge.wait_with_output().await?;
        ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let judged: usize = String::from_utf8(told.stdout)?.trim().parse()?;
        ensure!(judged == answers.len() && judged > 0, "{judged} of {} answers were judged", answers.len());
        Ok(())
    }

    async fn get(&self, rest: &str, token: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, rest, Some(token), &[], None).await
    }

    async fn create(&self, key: &str, data: Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, "", Some(&self.office()), &[("idempotency-key", key)], Some(json!({"data": data}))).await
    }

    async fn named(&self, name: &str) -> anyhow::Result<(usize, usize)> {
        let count = |records: Vec<_>, field: &str| records.iter().filter(|record| text(record, field) == name).count();
        Ok((count(self.systems.salesforce.records().await?, "Name"), count(self.systems.netsuite.records().await?, "companyName")))
    }

    /// Waits until each system holds exactly one company of this name.
    async fn once_each(&self, name: &str) -> anyhow::Result<()> {
        wait_until(&format!("{name} once in each system"), PATIENCE, async || {
            let (left, right) = self.named(name).await?;
            Ok(Seen::when((left, right) == (1, 1), format!("{left} accounts and {right} customers")))
        })
        .await
    }
}

#[allow(clippy::disallowed_methods, reason = "our own gateway, which bounds its answers")]
async fn body_of(answer: reqwest::Response) -> anyhow::Result<Value> {
    let bytes = answer.bytes().await?;
    if bytes.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&bytes)?) }
}

/// The rules of `examples/operator/rbac.yaml`.
fn granted() -> anyhow::Result<Vec<PolicyRule>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/operator/rbac.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path)?)?;
    let rules = documents.into_iter().flat_map(|document| document["rules"].as_array().cloned().unwrap_or_default());
    Ok(rules.map(serde_json::from_value).collect::<Result<_, _>>()?)
}

fn first_pointer(answer: &Answer) -> &str {
    answer.body["errors"][0]["pointer"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_with_operations_is_served_and_only_as_it_says() -> anyhow::Result<()> {
    let stage = Stage::new("served").await?;
    stage.apply(&stage.manifests()?).await?;
    let mut operator = stage.operator(|_| {})?;
    stage.all_ready().await?;
    let contract = stage.contract().await?;
    assert_eq!(contract["status"]["url"], json!(stage.url("")));
    assert_eq!((&contract["status"]["served"]["version"], &contract["status"]["consumers"]), (&json!("1.0.0"), &json!(2)));

    // Who may not.
    let answer = stage.ask(Method::GET, "", None, &[], None).await?;
    assert_eq!((answer.status, answer.challenge.as_deref()), (401, Some("Bearer")));
    let answer = stage.get("", &stage.token("back-office", &[])).await?;
    assert_eq!(answer.status, 403);
    assert!(answer.challenge.unwrap_or_default().contains("insufficient_scope"));
    assert_eq!(stage.get("", &stage.token("stranger", &["customers.read"])).await?.status, 403);
    let shop = stage.token("web-shop", &["customers.read", "customers.write"]);
    assert_eq!(
        stage.ask(Method::POST, "", Some(&shop), &[("idempotency-key", "x")], Some(json!({"data": {"name": "X"}}))).await?.status,
        403
    );

    // Pages and filters.
    let office = stage.office();
    let first = stage.get("?limit=20", &office).await?;
    assert_eq!((first.status, first.body["items"].as_array().map(Vec::len)), (200, Some(20)));
    let token = first.body["nextPageToken"].as_str().context("a next page")?;
    let second = stage.get(&format!("?limit=20&pageToken={token}"), &office).await?;
    assert_eq!(second.body["items"].as_array().map(Vec::len), Some(10));
    let one = &second.body["items"][0];
    let (id, tax) = (one["id"].as_str().context("an id")?, one["data"]["taxId"].as_str().context("a tax number")?);
    let found = stage.get(&format!("?taxId={tax}"), &office).await?;
    assert_eq!(found.body["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(found.body["items"][0]["id"], json!(id));
    assert_eq!(stage.get("?phone=1", &office).await?.status, 400);

    // One record, and whether it is still the same.
    let got = stage.get(&format!("/{id}"), &office).await?;
    assert_eq!((got.status, &got.body["data"]["taxId"]), (200, &json!(tax)));
    let etag = got.etag.context("an entity tag")?;
    let same = stage.ask(Method::GET, &format!("/{id}"), Some(&office), &[("if-none-match", &etag)], None).await?;
    assert_eq!((same.status, same.body), (304, Value::Null));
    assert_eq!(stage.get("/0190f1b2-0000-7000-8000-000000000000", &office).await?.status, 404);

    // Too many.
    let mut limited = None;
    for _ in 0..400 {
        let answer = stage.get(&format!("/{id}"), &shop).await?;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    ensure!(limited.context("the rate never ended")?.retry_after.is_some(), "429 without Retry-After");

    // What the contract forbids.
    let answer = stage.create("bad", json!({"name": "", "employees": -1})).await?;
    assert_eq!(answer.status, 400);
    let pointers: Vec<&str> = answer.body["errors"].as_array().context("errors")?.iter().filter_map(|e| e["pointer"].as_str()).collect();
    assert!(pointers.contains(&"/data/name") && pointers.contains(&"/data/employees"), "{pointers:?}");
    assert_eq!(stage.ask(Method::POST, "", Some(&office), &[], Some(json!({"data": {"name": "X"}}))).await?.status, 400, "without a key");
    stage.keep_to_the_document().await?;

    operator.terminate()?;
    ensure!(operator.end(Duration::from_secs(25)).await?.success(), "{}", operator.tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_writes_goes_to_one_system_at_once_and_arrives_in_the_other_exactly_once() -> anyhow::Result<()> {
    let stage = Stage::new("written").await?;
    stage.apply(&stage.manifests()?).await?;
    let mut operator = stage.operator(|_| {})?;
    stage.all_ready().await?;

    let data =
        json!({"name": "Gateway Works AG", "taxId": "DE-GATEWAY-1", "email": "office@gateway.example", "address": {"country": "DE"}});
    let created = stage.create("once", data.clone()).await?;
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.body["id"].as_str().context("an id")?.to_owned();
    assert_eq!(stage.named("Gateway Works AG").await?.0, 1, "it is in Salesforce when the answer comes");
    let again = stage.create("once", data).await?;
    assert_eq!((again.status, again.replayed, &again.body["id"]), (201, true, &json!(id)));
    assert_eq!(stage.create("once", json!({"name": "Another"})).await?.status, 422);
    // Who may only write learns nothing of what the record holds.
    let writer = stage.token("back-office", &["customers.write"]);
    let blind = [("idempotency-key", "blind")];
    let told = stage.ask(Method::PATCH, &format!("/{id}"), Some(&writer), &blind, Some(json!({"data": {}}))).await?;
    assert_eq!((told.status, &told.body["id"], told.body.get("data")), (200, &json!(id), None), "{told:?}");
    stage.once_each("Gateway Works AG").await?;
    let twin = stage.create("twin", json!({"name": "Twin", "taxId": "DE-GATEWAY-1"})).await?;
    assert_eq!(twin.status, 409, "{twin:?}");

    // Changes, with and without a condition.
    let office = stage.office();
    let etag = stage.get(&format!("/{id}"), &office).await?.etag.context("an entity tag")?;
    let path = format!("/{id}");
    let patch = |key: &'static str, etag: Option<&str>, data: Value| {
        let headers: Vec<(String, String)> = [Some(("idempotency-key", key)), etag.map(|etag| ("if-match", etag))]
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let (stage, office, path) = (&stage, &office, &path);
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            stage.ask(Method::PATCH, path, Some(office), &headers, Some(json!({"data": data}))).await
        }
    };
    let changed = patch("phone", Some(&etag), json!({"phone": "+49 1"})).await?;
    assert_eq!((changed.status, &changed.body["data"]["phone"]), (200, &json!("+49 1")), "{changed:?}");
    let stale = patch("phone-2", Some(&etag), json!({"phone": "+49 2"})).await?;
    assert_eq!(stale.status, 412, "{stale:?}");
    wait_until("the phone number in NetSuite", PATIENCE, async || {
        let customer = stage.systems.netsuite.find("companyName", "Gateway Works AG").await?;
        Ok(Seen::when(text(&customer, "phone") == "+49 1", text(&customer, "phone")))
    })
    .await?;
    // Another system owns it, or nobody there holds it.
    let foreign = patch("credit", None, json!({"creditLimit": "5"})).await?;
    assert_eq!((foreign.status, first_pointer(&foreign)), (422, "/data/creditLimit"), "{foreign:?}");
    assert!(!foreign.body.to_string().contains("\"5\""));
    let nowhere = patch("subsidiary", None, json!({"subsidiary": "2"})).await?;
    assert_eq!((nowhere.status, first_pointer(&nowhere)), (422, "/data/subsidiary"), "{nowhere:?}");

    // The system answers, and the answer is lost; it refuses; it wants patience.
    let on_write = |fault: Value| json!([{"match": {"operation": "write", "entity": "Account"}, "fault": fault["fault"], "times": 1, "millis": 100, "status": fault.get("status").cloned().unwrap_or(json!(503)), "retryAfter": 3}]);
    stage.systems.salesforce.faults(on_write(json!({"fault": "timeoutAfterEffect"}))).await?;
    let lost = stage.create("lost", json!({"name": "Lost Answer Ltd", "taxId": "DE-LOST-1"})).await?;
    assert_eq!(lost.status, 504, "{lost:?}");
    assert!(lost.body["detail"].as_str().unwrap_or_default().contains("same Idempotency-Key"), "{lost:?}");
    assert_eq!(stage.create("lost", json!({"name": "Other Ltd", "taxId": "DE-LOST-2"})).await?.status, 422, "the key is not free");
    let found = stage.create("lost", json!({"name": "Lost Answer Ltd", "taxId": "DE-LOST-1"})).await?;
    assert_eq!(found.status, 201, "{found:?}");
    stage.once_each("Lost Answer Ltd").await?;
    stage.systems.salesforce.faults(on_write(json!({"fault": "status", "status": 400}))).await?;
    let refused = stage.create("refused", json!({"name": "Refused Ltd"})).await?;
    assert_eq!(refused.status, 422, "{refused:?}");
    // What contradicts what is there is no matter of versions, and is not sent again behind the caller's back.
    stage.systems.salesforce.faults(on_write(json!({"fault": "status", "status": 409}))).await?;
    let duplicate = patch("duplicate", None, json!({"phone": "+49 3"})).await?;
    assert_eq!((duplicate.status, duplicate.body["type"].as_str()), (409, Some("https://fairlead.dev/problems/conflict")), "{duplicate:?}");
    stage.systems.salesforce.faults(on_write(json!({"fault": "limit"}))).await?;
    let busy = stage.create("busy", json!({"name": "Busy Ltd"})).await?;
    assert_eq!((busy.status, busy.retry_after.is_some()), (503, true), "{busy:?}");
    stage.systems.salesforce.faults(json!([])).await?;

    stage.all_ready().await?;
    assert_eq!(stage.named("Refused Ltd").await?, (0, 0));
    stage.keep_to_the_document().await?;
    operator.terminate()?;
    ensure!(operator.end(Duration::from_secs(25)).await?.success(), "{}", operator.tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_effect_and_our_taking_note_makes_nothing_twice() -> anyhow::Result<()> {
    // At once, for each waits until the key of the request that died is free again.
    tokio::try_join!(crash_at("api.written", "crash-written"), crash_at("api.absorbed", "crash-absorbed")).map(|_| ())
}

async fn crash_at(point: &str, name: &str) -> anyhow::Result<()> {
    let stage = Stage::new(name).await?;
    stage.apply(&stage.manifests()?).await?;
    let mut first = stage.operator(|command| {
        command.env("FAIRLEAD_CRASH_AT", point);
    })?;
    stage.all_ready().await?;
    let data = json!({"name": "Crash Test GmbH", "taxId": "DE-CRASH-1"});
    let cut = stage.create("crash", data.clone()).await;
    ensure!(cut.is_err(), "{point}: the process outlived its crash point: {cut:?}");
    ensure!(!first.end(PATIENCE).await?.success(), "{point}");
    assert_eq!(stage.named("Crash Test GmbH").await?.0, 1, "{point}: it took effect");
    let mut second = stage.operator(|_| {})?;
    // The key is held for the request that died until its time is over; another key is another request, and is refused for the twin.
    let answer = wait_until("the same request to be answered", PATIENCE, async || {
        let answer = stage.create("crash", data.clone()).await?;
        Ok(match answer.status {
            201 => Seen::Yes(answer),
            _ => Seen::NotYet(format!("{answer:?}")),
        })
    })
    .await?;
    stage.once_each("Crash Test GmbH").await?;
    let office = stage.office();
    let id = answer.body["id"].as_str().context("an id")?;
    assert_eq!(stage.get(&format!("/{id}"), &office).await?.body["data"]["taxId"], json!("DE-CRASH-1"), "{point}");
    second.terminate()?;
    ensure!(second.end(Duration::from_secs(25)).await?.success(), "{}", second.tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_contract_keeps_the_last_good_one_serving_and_heals_with_its_cause() -> anyhow::Result<()> {
    let stage = Stage::new("kept").await?;
    let good = stage.manifests()?;
    stage.apply(&good).await?;
    let mut operator = stage.operator(|_| {})?;
    stage.all_ready().await?;
    let before = stage.contract().await?["status"]["served"].clone();
    let office = stage.office();

    let mut wrong = good.clone();
    let contract = wrong.document("ApiContract", CONTRACT)?;
    contract["spec"]["version"] = json!("1.1.0");
    contract["spec"]["operations"][0]["filters"] = json!(["taxid"]);
    stage.apply(&wrong).await?;
    let told = stage.condition("Programmed", "False", "ContractMismatch").await?;
    assert_eq!(told["status"]["served"], before);
    assert!(told["status"].to_string().contains("did you mean `taxId`?"));
    assert_eq!(stage.get("?limit=1", &office).await?.status, 200);

    wrong.document("ApiContract", CONTRACT)?["spec"]["operations"][0]["filters"] = json!(["taxId", "segment"]);
    stage.apply(&wrong).await?;
    let healed = stage.condition("Programmed", "True", "Programmed").await?;
    assert_eq!(healed["status"]["served"]["version"], "1.1.0");
    assert_eq!(stage.get("?segment=none", &office).await?.status, 200, "acknowledged is served");

    // The Integration is what is wrong: the contract says so, and follows its repair without a touch.
    let mut broken = wrong.clone();
    broken.participant("crm")?["entity"] = json!("Acount");
    stage.apply(&broken).await?;
    stage.condition("ResolvedRefs", "False", "DependencyNotReady").await?;
    assert_eq!(stage.get("?limit=1", &office).await?.status, 200);
    stage.apply(&wrong).await?;
    stage.condition("Ready", "True", "Succeeded").await?;

    operator.terminate()?;
    ensure!(operator.end(Duration::from_secs(25)).await?.success(), "{}", operator.tail());
    Ok(())
}

/// How many requests, during how many changes. `make test` has little time; the full size is 100,000 and 200.
fn size() -> anyhow::Result<(usize, usize)> {
    match std::env::var("FAIRLEAD_TEST_GATEWAY_LOAD") {
        Err(_) => Ok((10_000, 20)),
        Ok(text) => {
            let (requests, changes) = text.split_once('/').ok_or_else(|| anyhow!("write it as 100000/200"))?;
            Ok((requests.parse()?, changes.parse()?))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_contracts_change_and_keys_rotate() -> anyhow::Result<()> {
    let (requests, changes) = size()?;
    let stage = Arc::new(Stage::new("changing").await?);
    let mut manifests = stage.manifests()?;
    stage.apply(&manifests).await?;
    let mut operator = stage.operator(|_| {})?;
    stage.all_ready().await?;
    let listed = stage.get("?limit=20", &stage.office()).await?;
    let ids: Vec<String> =
        listed.body["items"].as_array().context("items")?.iter().filter_map(|item| Some(item["id"].as_str()?.to_owned())).collect();

    let (sent, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let token = Arc::new(RwLock::new(stage.office()));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (stage, ids, sent, done) = (Arc::clone(&stage), ids.clone(), Arc::clone(&sent), Arc::clone(&done));
            let token = Arc::clone(&token);
            tokio::spawn(async move {
                let mut failures = Vec::new();
                // Goes on until all requests were sent and all changes made, whichever is later.
                while sent.fetch_add(1, Ordering::Relaxed) < requests || !done.load(Ordering::Relaxed) {
                    let number = sent.load(Ordering::Relaxed);
                    let rest = if number % 10 == worker { "?limit=5".to_owned() } else { format!("/{}", ids[number % ids.len()]) };
                    let token = token.read().await.clone();
                    match stage.get(&rest, &token).await {
                        Ok(answer) if answer.status == StatusCode::OK.as_u16() => {}
                        Ok(answer) => failures.push(format!("{rest}: {answer:?}")),
                        Err(error) => failures.push(format!("{rest}: {error:#}")),
                    }
                }
                failures
            })
        })
        .collect();

    // Keys rotate all the while. As issuers do, each is published before tokens are signed with it.
    let rotations = Arc::new(AtomicUsize::new(0));
    let rotating = {
        let (stage, done, token, rotations) = (Arc::clone(&stage), Arc::clone(&done), Arc::clone(&token), Arc::clone(&rotations));
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                stage.issuer.rotate()?;
                let next = stage.office();
                tokio::time::timeout(PATIENCE, async {
                    while stage.get("?limit=1", &next).await?.status != StatusCode::OK.as_u16() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    anyhow::Ok(())
                })
                .await
                .context("the new key was never known")??;
                *token.write().await = next;
                rotations.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        })
    };

    let mut digests = std::collections::BTreeSet::new();
    for change in 1..=changes {
        manifests.document("ApiContract", CONTRACT)?["spec"]["version"] = json!(format!("1.0.{change}"));
        stage.apply(&manifests).await?;
        let wanted = format!("1.0.{change}");
        let served = wait_until(&format!("version {wanted} to be served"), PATIENCE, async || {
            let status = stage.contract().await?["status"].clone();
            Ok(if status["served"]["version"] == wanted.as_str() {
                Seen::Yes(status["served"].clone())
            } else {
                Seen::NotYet(format!("{status}"))
            })
        })
        .await?;
        digests.insert(served["digest"].to_string());
        // Each share of the requests sees each change.
        wait_until("its share of the requests", PATIENCE, async || {
            let now = sent.load(Ordering::Relaxed);
            Ok(Seen::when(now >= requests / changes * change, now))
        })
        .await?;
    }
    wait_until("two rotations", PATIENCE, async || {
        let rotations = rotations.load(Ordering::Relaxed);
        Ok(Seen::when(rotations >= 2, rotations))
    })
    .await?;
    done.store(true, Ordering::Relaxed);
    rotating.await??;
    let mut failures = Vec::new();
    for worker in workers {
        failures.extend(worker.await?);
    }
    assert_eq!(digests.len(), changes, "each change altered the served digest");
    let sent = sent.load(Ordering::Relaxed);
    ensure!(
        failures.is_empty() && sent >= requests,
        "{} of {sent} requests failed: {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    println!("{sent} requests during {changes} changes and {} key rotations: none failed", rotations.load(Ordering::Relaxed));
    operator.terminate()?;
    ensure!(operator.end(Duration::from_secs(25)).await?.success(), "{}", operator.tail());
    Ok(())
}
