//! Watching it: what `fairlead status`, the console in a real browser, the metrics and the traces show of two systems kept in step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fairlead_tests::browser::{Browser, ENTER, TAB};
use fairlead_tests::two_systems::{Fairlead, TwoSystems, text};
use fairlead_tests::{Seen, fairlead, free_port, wait_until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::process::Command;

/// Longer than any step takes on a busy machine.
const SOON: Duration = Duration::from_secs(90);

async fn in_step(prepare: impl FnOnce(&mut Command)) -> anyhow::Result<(TwoSystems, Fairlead)> {
    let systems = TwoSystems::start(5, (5_000, 20), (5_010, 20)).await?;
    let worker = systems.fairlead("worker", prepare)?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    // What the first load wrote has been read back by then: no write follows that is not of the test's doing.
    polls(&systems).await?;
    Ok((systems, worker))
}

/// Waits until NetSuite was polled three times more, by two queries each.
async fn polls(systems: &TwoSystems) -> anyhow::Result<()> {
    let before = systems.netsuite.requests("query").await?;
    wait_until("three more polls", SOON, async || {
        let now = systems.netsuite.requests("query").await?;
        Ok(Seen::when(now >= before + 6, now))
    })
    .await
}

/// An account that both systems hold, and its customer.
async fn one_company(systems: &TwoSystems) -> anyhow::Result<(String, String)> {
    let customers = systems.netsuite.records().await?;
    for account in systems.salesforce.records().await? {
        let tax = text(&account, "Tax_Number__c");
        if let Some(customer) = customers.iter().find(|customer| !tax.is_empty() && text(customer, "vatRegNumber") == tax) {
            return Ok((text(&account, "Id"), text(customer, "id")));
        }
    }
    anyhow::bail!("no company is in both systems")
}

/// NetSuite refuses one write for its data; the number of the dead letter.
async fn dead_letter(systems: &TwoSystems, account: &str, values: Value) -> anyhow::Result<String> {
    let refusal = json!({"match": {"operation": "write"}, "fault": "status", "status": 400, "times": 1});
    systems.netsuite.faults(json!([refusal])).await?;
    systems.salesforce.edit(account, values).await?;
    let letter = wait_until("a dead letter", SOON, async || {
        let letters = systems.open_letters(false).await?;
        let refused = letters.iter().find(|letter| letter["stage"] == "Delivery" && letter["reason"] == "ValidationFailed");
        if let Some(letter) = refused {
            return Ok(Seen::Yes(letter.clone()));
        }
        let (account, counters) = (systems.salesforce.record(account).await?, systems.netsuite.counters().await?);
        let customer = systems.netsuite.find("vatRegNumber", &text(&account, "Tax_Number__c")).await?;
        Ok(Seen::NotYet(format!("{letters:?}, {account}, {customer}, {counters}")))
    })
    .await?;
    Ok(letter["id"].to_string())
}

async fn status(worker: &Fairlead, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
    let server = format!("http://{}", worker.address());
    fairlead()?.args(["status", "--server", &server]).args(arguments).output().await.context("run fairlead status")
}

#[tokio::test]
async fn status_tells_lag_rates_ledger_and_connectors_and_whether_all_is_well() -> anyhow::Result<()> {
    let (systems, worker) = in_step(|command| _ = command.arg("--log-json")).await?;
    let output = status(&worker, &["-o", "json"]).await?;
    assert!(output.status.success(), "all is well: {}", String::from_utf8_lossy(&output.stderr));
    let overview: Value = serde_json::from_slice(&output.stdout)?;
    let integration = &overview["integrations"][0];
    assert_eq!((&integration["namespace"], &integration["name"]), (&json!("north-america"), &json!("customers")), "{overview:#}");
    assert_eq!((&integration["ready"], &integration["phase"]), (&json!("True"), &json!("Live")));
    let open = systems.open_letters(false).await?.len();
    assert_eq!((&integration["pending"], &integration["deadLetters"], &integration["balanced"]), (&json!(0), &json!(open), &json!(true)));
    assert_eq!(integration["records"], 30, "20 and 20 companies, 10 of them in both");
    let lanes = integration["lanes"].as_array().unwrap();
    let sum = |field: &str| lanes.iter().filter_map(|lane| lane[field].as_u64()).sum::<u64>();
    assert!(sum("delivered") >= 20, "10 companies were created in each system: {lanes:?}");
    assert!(integration["sources"].as_array().unwrap().iter().all(|source| source["read"].as_u64() >= Some(20)));
    let connectors: BTreeSet<_> = overview["connectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str(), c["circuit"].as_str(), c["quota"].as_str()))
        .collect();
    let well = |name| (Some(name), Some("Closed"), Some("Ample"));
    assert_eq!(connectors, BTreeSet::from([well("salesforce"), well("netsuite")]));

    let (account, _) = one_company(&systems).await?;
    dead_letter(&systems, &account, json!({"Phone": "+49 30 1111"})).await?;
    wait_until("the dead letter in the table", SOON, async || {
        let output = status(&worker, &["--namespace", "north-america"]).await?;
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = table.contains("open dead letters: ") && table.contains("LAG") && table.contains("ledger of north-america/customers");
        Ok(Seen::when(told && table.contains("adds up"), table))
    })
    .await?;
    let elsewhere = status(&worker, &["--namespace", "elsewhere", "-o", "json"]).await?;
    assert_eq!(serde_json::from_slice::<Value>(&elsewhere.stdout)?["integrations"], json!([]));

    let log = worker.process.stderr()?;
    assert!(log.lines().any(|line| line.contains("record became a dead letter")), "{log}");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
        assert_eq!(line.matches("\"message\":").count(), 1, "a field takes the message's name: {line}");
    }
    worker.stop().await
}

#[tokio::test]
async fn status_says_which_address_to_name_when_nothing_answers() -> anyhow::Result<()> {
    let server = format!("http://127.0.0.1:{}", free_port()?);
    let output = fairlead()?.args(["status", "--server", &server]).output().await?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("does not answer") && told.contains("--server"), "{told}");
    Ok(())
}

#[tokio::test]
async fn console_shows_a_real_run_and_a_correction_of_a_dead_letter_goes_through() -> anyhow::Result<()> {
    let (systems, worker) = in_step(|_| {}).await?;
    let (account, customer) = one_company(&systems).await?;
    let hostile = "<img src=x onerror=\"document.title='owned'\">";
    let id = dead_letter(&systems, &account, json!({"Phone": "+49 30 refused", "Name": hostile})).await?;

    let browser = Browser::start(systems.folder()).await?;
    let console = format!("http://{}/console/", worker.address());
    browser.go(&console).await?;
    browser.shows(SOON, &["Overview", "north-america/customers", "north-america/salesforce", "Ready", "Closed", "Live,"]).await?;
    browser.picture("overview").await?;

    // By keyboard alone: the skip link, the brand, two pages.
    for _ in 0..4 {
        browser.press(TAB).await?;
    }
    browser.press(ENTER).await?;
    browser.shows(SOON, &["What could not be delivered", &format!("#{id}"), "erp", "Delivery"]).await?;
    browser.picture("dead-letters").await?;

    browser.click(&format!("a[href='#/dead-letters/{id}']")).await?;
    let page = browser.shows(SOON, &["Correct and try again", "What was to be sent"]).await?;
    assert!(!page.contains("+49 30 refused"), "personal fields are masked:\n{page}");
    let phone = "input[data-field='phone']";
    assert_eq!(browser.value(phone).await?, "", "a masked field has no value in the page");
    browser.picture("dead-letter-masked").await?;

    browser.click_button("Show personal fields").await?;
    wait_until("the personal field", SOON, async || {
        let value = browser.value(phone).await?;
        Ok(Seen::when(value == "+49 30 refused", value))
    })
    .await?;
    assert_eq!(browser.count("main img").await?, 0, "text from outside became markup");
    assert!(browser.title().await?.contains("Fairlead"), "text from outside ran");
    browser.fill(phone, "+49 30 corrected").await?;
    browser.fill("#author", "Ada").await?;
    browser.picture("dead-letter-edited").await?;
    browser.click_button("Correct and try again").await?;

    browser.shows(SOON, &["Closed: Edited by Ada"]).await?;
    wait_until("the correction in NetSuite", SOON, async || {
        let held = text(&systems.netsuite.record(&customer).await?, "phone");
        Ok(Seen::when(held == "+49 30 corrected", held))
    })
    .await?;
    // The person's word stands: reading it back does not undo it.
    polls(&systems).await?;
    assert_eq!(text(&systems.netsuite.record(&customer).await?, "phone"), "+49 30 corrected");
    wait_until("the letter to close as edited by its author", SOON, async || {
        let letters = systems.open_letters(true).await?;
        let closed = letters.iter().find(|letter| letter["id"].as_u64() == id.parse().ok()).map(|letter| letter["closed"].clone());
        let edited = closed.as_ref().is_some_and(|closed| closed["reason"] == "Edited" && closed["author"] == "Ada");
        Ok(Seen::when(edited, format_args!("{closed:?}")))
    })
    .await?;

    browser.go(&format!("{console}#/integrations/north-america/customers")).await?;
    browser.shows(SOON, &["Participants", "Ledger", "Adds up", "Conditions"]).await?;
    browser.picture("integration").await?;
    assert_eq!(browser.complaints().await?, Vec::<String>::new(), "the browser found something wrong with the page");
    browser.close().await?;
    worker.stop().await
}

#[tokio::test]
async fn console_refuses_what_does_not_come_from_its_own_page() -> anyhow::Result<()> {
    let (systems, worker) = in_step(|_| {}).await?;
    let (account, _) = one_company(&systems).await?;
    let id = dead_letter(&systems, &account, json!({"Phone": "+49 30 refused"})).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let base = format!("http://{}", worker.address());
    let session = answer(http.get(format!("{base}/api/v1/session"))).await?;
    assert_eq!(session["writing"], "Open");
    let csrf = session["csrf"].as_str().unwrap();
    let discard = || http.post(format!("{base}/api/v1/dead-letters/{id}/discard")).header("content-type", "application/json").body("{}");
    let refused = |name: &'static str, request: reqwest::RequestBuilder| async move {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
    };
    refused("without the page's token", discard()).await;
    refused("from another site", discard().header("x-fairlead-csrf", csrf).header("origin", "https://evil.example")).await;
    refused("by another site's script", discard().header("x-fairlead-csrf", csrf).header("sec-fetch-site", "cross-site")).await;
    refused("under a name that resolves here", discard().header("x-fairlead-csrf", csrf).header("host", "rebound.example")).await;
    refused("personal fields", http.get(format!("{base}/api/v1/dead-letters/{id}?personal=true"))).await;
    refused("records under a name that resolves here", http.get(format!("{base}/api/v1/dead-letters")).header("host", "rebound.example"))
        .await;
    let shown = answer(http.get(format!("{base}/api/v1/dead-letters/{id}"))).await?;
    assert!(!shown.to_string().contains("+49 30 refused"), "{shown:#}");
    assert_eq!(systems.open_letters(false).await?.len(), 1, "nothing was changed");

    let page = http.get(format!("{base}/console/")).send().await?;
    let policy = page.headers()["content-security-policy"].to_str()?.to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");

    answer(discard().header("x-fairlead-csrf", csrf).header("origin", &base)).await?;
    assert!(systems.open_letters(false).await?.is_empty());
    worker.stop().await
}

#[allow(clippy::disallowed_methods, reason = "our own process")]
async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
    let answer = request.send().await?.error_for_status()?;
    serde_json::from_slice(&answer.bytes().await?).context("read an answer")
}

/// The generated reference: the labels of each name that may be asked for.
fn reference() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let page = fs::read_to_string(repository("docs/reference/metrics.md"))?;
    let mut known = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').collect();
        for name in words(cells[1]) {
            known.insert(name, words(cells[3]));
        }
    }
    ensure!(known.len() > 20, "the reference page names only {} series", known.len());
    Ok(known)
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[tokio::test]
async fn every_exposed_metric_stands_in_the_reference_with_its_labels() -> anyhow::Result<()> {
    let (_systems, worker) = in_step(|_| {}).await?;
    let known = reference()?;
    let page = worker.metrics().await?;
    let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(samples.iter().any(|line| line.starts_with("fairlead_records_settled_total{")), "{page}");
    assert!(samples.iter().any(|line| line.starts_with("fairlead_connector_reachable{")), "{page}");
    for sample in samples {
        let name = sample.split(['{', ' ']).next().unwrap();
        let labels: BTreeSet<String> = match sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) {
            Some((labels, _)) => labels.split("\",").filter_map(|pair| pair.split_once('=')).map(|(label, _)| label.to_owned()).collect(),
            None => BTreeSet::new(),
        };
        let wanted = known.get(name).with_context(|| format!("{name} is not in docs/reference/metrics.md"))?;
        let without_bucket: BTreeSet<_> = labels.into_iter().filter(|label| label != "le").collect();
        assert_eq!(&without_bucket, wanted, "{sample}");
    }
    worker.stop().await
}

#[test]
fn alert_rules_and_board_ask_only_for_metrics_that_exist() -> anyhow::Result<()> {
    let known = reference()?;
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(repository("charts/fairlead/files/prometheus-rules.yaml"))?)?;
    let board: Value = serde_json::from_str(&fs::read_to_string(repository("charts/fairlead/files/grafana-dashboard.json"))?)?;
    let mut expressions = Vec::new();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        expressions.push(rule["expr"].as_str().unwrap().to_owned());
        assert!(rule["annotations"]["summary"].is_string() && rule["annotations"]["description"].is_string(), "{rule}");
    }
    for panel in board["panels"].as_array().unwrap() {
        expressions.extend(panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    assert!(expressions.len() > 25, "{expressions:?}");
    for expression in expressions {
        let opened = expression.matches(['(', '{', '[']).count();
        assert_eq!(opened, expression.matches([')', '}', ']']).count(), "{expression}");
        let names = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let series: Vec<&str> = names
            .filter(|name| ["fairlead_", "controller_runtime_", "workqueue_", "leader_election_"].iter().any(|p| name.starts_with(p)))
            .collect();
        assert!(!series.is_empty(), "{expression} asks for nothing of Fairlead's");
        for name in series {
            assert!(known.contains_key(name), "{name} in {expression:?} is not in docs/reference/metrics.md");
        }
    }
    Ok(())
}

/// A collector that keeps every span it is sent.
struct Collector {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let take = move |body: axum::body::Bytes| {
            let kept = Arc::clone(&kept);
            async move {
                let Ok(request) = ExportTraceServiceRequest::decode(body) else { return axum::http::StatusCode::BAD_REQUEST };
                let sent = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
                kept.lock().unwrap().extend(sent);
                axum::http::StatusCode::OK
            }
        };
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, spans })
    }

    /// The spans of each trace whose target was written.
    fn written(&self) -> Vec<Vec<Span>> {
        let mut traces: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
        for span in self.spans.lock().unwrap().iter() {
            traces.entry(span.trace_id.clone()).or_default().push(span.clone());
        }
        traces.into_values().filter(|spans| spans.iter().any(|span| span.name == "write")).collect()
    }
}

#[tokio::test]
async fn the_way_of_a_record_from_one_system_to_the_other_is_one_trace_without_personal_values() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let systems = TwoSystems::start(5, (5_000, 20), (5_010, 20)).await?;
    let worker = systems.fairlead("worker", |command| {
        command.args(["--otlp-endpoint", &collector.address]).env("OTEL_BSP_SCHEDULE_DELAY", "200");
    })?;
    worker.ready(SOON).await?;
    let (account, customer) = one_company(&systems).await?;
    systems.salesforce.edit(&account, json!({"Phone": "+49 30 4711"})).await?;
    wait_until("the edit in NetSuite", SOON, async || {
        let held = text(&systems.netsuite.record(&customer).await?, "phone");
        Ok(Seen::when(held == "+49 30 4711", held))
    })
    .await?;
    worker.stop().await?;

    let wanted = BTreeSet::from(["record", "read", "map", "absorb", "deliver", "claim", "write", "settle"]);
    let whole: Vec<Vec<Span>> = collector
        .written()
        .into_iter()
        .filter(|spans| spans.iter().map(|span| span.name.as_str()).collect::<BTreeSet<_>>() == wanted)
        .collect();
    assert!(!whole.is_empty(), "no trace holds a whole way: {:?}", collector.written().first());
    for spans in &whole {
        let ids: BTreeSet<&[u8]> = spans.iter().map(|span| &*span.span_id).collect();
        assert_eq!(ids.len(), spans.len(), "every step has an id of its own: {spans:#?}");
        let roots: Vec<_> = spans.iter().filter(|span| span.parent_span_id.is_empty()).collect();
        assert_eq!(roots.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["record"]);
        assert!(spans.iter().all(|span| span.parent_span_id.is_empty() || ids.contains(&*span.parent_span_id)), "{spans:#?}");
        assert!(spans.iter().all(|span| span.start_time_unix_nano <= span.end_time_unix_nano));
    }
    let told = format!("{:?}", collector.spans.lock().unwrap());
    assert!(told.contains("fairlead.record.id") && told.contains("north-america/customers") && told.contains("delivered"));
    for record in systems.salesforce.records().await? {
        for field in ["Name", "Phone", "Email__c", "Tax_Number__c"] {
            let value = text(&record, field);
            assert!(value.is_empty() || !told.contains(&value), "{field} {value:?} stands in a trace");
        }
    }
    Ok(())
}
