//! Systems that lie, stall, repeat themselves, or lead elsewhere; and an ordinary REST system described by YAML alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use common::{Secrets, batch, change, class, connect, create, paths};
use fairlead_model::{ErrorClass, RemoteError};
use fairlead_systems::{Client, Definition, Outside, Page, ReadRequest, WriteOperation};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEY: &str = "acme-canary-7f3a91";

const ACME: &str = r#"
system: acme-billing
auth: [{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]
permissions: [invoices.read, invoices.write]
errors:
- {status: 429, class: Throttled, retryAfter: header}
- {status: 422, class: Data, message: '.errors[0].detail'}
probe: {path: /v2/me}
entities:
- name: invoices
  key: .id
  modified: .updated_at
  fields:
  - {name: id, type: String}
  - {name: reference, type: String, correlation: true}
  - {name: amount, type: Decimal}
  - {name: 'lines[]', type: List, children: Nested}
  - {name: 'lines[].price', type: Decimal}
  read: {request: {path: /v2/invoices, query: {updated_after: '{{cursor}}', limit: 200}}, records: .data, next: {cursor: .meta.next}, cursor: {field: .updated_at, lag: 30s}}
  get: {request: {path: '/v2/invoices/{{id}}'}}
  search: {request: {path: /v2/invoices, query: {field: '{{field}}', equals: '{{value}}'}}, records: .data}
  upsert: {request: {method: PUT, path: '/v2/invoices/{{key}}', body: .record}, result: {id: .id, version: .updated_at, record: .}, idempotent: true}
  delete: {request: {method: DELETE, path: '/v2/invoices/{{id}}'}}
- name: payments
  key: .id
  fields: [{name: id, type: String}, {name: amount, type: Decimal}]
  batch: {request: {method: POST, path: /v2/payments/batch, body: '{"records": .records}'}, max: 2, results: .results, result: {id: .id, status: .status, ok: [ok]}}
"#;

type Seen = Arc<Mutex<Vec<String>>>;

/// A server that answers with `answer(request line, body)` and remembers what it was asked.
async fn serve<F>(answer: F) -> (SocketAddr, Seen)
where
    F: Fn(&str, &str) -> Response + Clone + Send + Sync + 'static,
{
    let seen = Seen::default();
    let handler = {
        move |State(seen): State<Seen>, request: Request| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            let line = format!("{} {}", parts.method, parts.uri);
            let key = parts.headers.get("x-api-key").and_then(|key| key.to_str().ok()).unwrap_or("-");
            seen.lock().unwrap().push(format!("{line} {key} {body}"));
            answer(&line, &body)
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handler).with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

fn reply(status: u16, kind: &str, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header("content-type", kind).body(body.into()).unwrap()
}

fn ok(body: &Value) -> Response {
    reply(200, "application/json", body.to_string())
}

/// A body without end.
fn endless() -> Response {
    let pieces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(axum::body::Bytes::from_static(&[b' '; 65536])));
    reply(200, "application/json", Body::from_stream(pieces))
}

/// A body of which nothing ever comes.
fn stalled() -> Response {
    reply(200, "application/json", Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>()))
}

fn client(address: SocketAddr, allowed: &str) -> Client {
    connect(
        &common::unit(
            Definition::parse(ACME).unwrap_or_else(|findings| panic!("{findings:?}")).text(),
            "acme-billing",
            &format!("http://{address}"),
            "ApiKey",
        ),
        &Secrets::of([("apiKey", KEY)], allowed),
    )
}

async fn read(client: &Client, cursor: Option<Value>, deadline: u64) -> Result<Page, RemoteError> {
    let request = ReadRequest {
        entity: "invoices".into(),
        slice: "main".into(),
        fields: paths(&["id", "amount"]),
        cursor,
        deadline: Duration::from_millis(deadline),
    };
    let result = client.read_page(&request).await;
    if let Err(error) = &result {
        assert!(!error.message.contains(KEY), "the key is in {}", error.message);
        assert!(!error.message.chars().any(char::is_control), "{:?}", error.message);
    }
    result
}

#[tokio::test]
async fn an_ordinary_rest_system_needs_no_code() {
    let (address, seen) = serve(|line, body| match line {
        "GET /v2/me" => ok(&json!({})),
        "GET /v2/invoices?limit=200" => {
            reply(200, "application/json", r#"{"data":[{"id":"a","amount":12.50,"updated_at":"2026-05-06T10:00:00Z"}],"meta":{"next":"p2"}}"#)
        }
        "GET /v2/invoices?limit=200&cursor=p2" => {
            reply(200, "application/json", r#"{"data":[{"id":"b","amount":9007199254740993.01,"updated_at":"2026-05-06T09:00:00Z","lines":[{"price":0.1}]}],"meta":{"next":null}}"#)
        }
        "GET /v2/invoices?limit=200&updated_after=2026-05-06T09%3A59%3A30.000Z" => ok(&json!({"data": [], "meta": {}})),
        "GET /v2/invoices/a%2Fb" => ok(&json!({"id": "a/b", "amount": 1})),
        "GET /v2/invoices?equals=O%27Neil%20%26%20Co&field=reference" => ok(&json!({"data": [{"id": "a", "reference": "O'Neil & Co"}]})),
        "PUT /v2/invoices/k-1" => reply(200, "application/json", format!(r#"{{"id":"n-1","updated_at":"2026-05-06T11:00:00Z","echo":{body},"amount":1.50}}"#)),
        "DELETE /v2/invoices/n-1" => reply(204, "", ""),
        "POST /v2/payments/batch" => {
            let count = serde_json::from_str::<Value>(body).unwrap()["records"].as_array().unwrap().len();
            let results = (0..count).map(|n| if n == 1 { json!({"status": "refused"}) } else { json!({"id": format!("p{n}"), "status": "ok"}) });
            ok(&json!({"results": results.collect::<Vec<_>>()}))
        }
        _ => reply(404, "application/json", "{}"),
    })
    .await;
    let client = client(address, "127.0.0.1");
    assert_eq!(client.probe().await, Ok(()));
    let first = read(&client, None, 5000).await.unwrap();
    assert_eq!((first.records[0].body["amount"].clone(), first.caught_up), (json!("12.5"), false));
    let second = read(&client, Some(first.cursor), 5000).await.unwrap();
    assert!(second.caught_up);
    assert_eq!(second.records[0].body["amount"], "9007199254740993.01");
    assert_eq!(second.records[0].body["lines"][0]["price"], "0.1");
    let third = read(&client, Some(second.cursor), 5000).await.unwrap();
    assert!(third.caught_up && third.records.is_empty(), "the newest stamp less the lag");
    let ids = ["a/b".into(), "missing".into()];
    let found = client.read_keys("invoices", &paths(&["amount"]), &ids).await.unwrap();
    assert_eq!((found[0].as_ref().unwrap().body["amount"].clone(), found[1].is_none()), (json!("1"), true));
    let found = client.search("invoices", &paths(&["amount"]), &[("reference".parse().unwrap(), json!("O'Neil & Co"))]).await.unwrap();
    assert_eq!(found.len(), 1);
    let written = client
        .write(&batch(
            "invoices",
            vec![create(Some(("reference", "k-1")), json!({"amount": "1.5"})), change(WriteOperation::Delete, "n-1", json!({}))],
        ))
        .await;
    let made = written[0].as_ref().unwrap();
    assert_eq!((made.id.as_str(), made.version.as_deref()), ("n-1", Some("2026-05-06T11:00:00Z")));
    assert_eq!(made.answer.as_ref().unwrap()["amount"], "1.5");
    assert!(written[1].is_ok());
    let payments = (0..3).map(|n| create(None, json!({"amount": format!("{n}.25")}))).collect();
    let results = client.write(&batch("payments", payments)).await;
    assert_eq!((results[0].is_ok(), class(&results[1]), results[2].is_ok()), (true, Some((ErrorClass::Data, "ValidationFailed")), true));
    let seen = seen.lock().unwrap();
    assert!(seen.contains(&format!("PUT /v2/invoices/k-1 {KEY} {{\"amount\":1.5}}")), "{seen:#?}");
    assert!(
        seen.contains(&format!("POST /v2/payments/batch {KEY} {{\"records\": [{{\"amount\":0.25}},{{\"amount\":1.25}}]}}")),
        "{seen:#?}"
    );
}

#[tokio::test]
async fn answers_that_are_no_data_are_named_and_never_taken_for_data() {
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![b' '; 1 << 20];
        for _ in 0..200 {
            encoder.write_all(&zeros).unwrap();
        }
        encoder.finish().unwrap()
    };
    assert!(bomb.len() < 1 << 20);
    let deep = format!(r#"{{"data":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    type Make = Arc<dyn Fn() -> Response + Send + Sync>;
    let json_reply = |body: &'static str| -> Make { Arc::new(move || reply(200, "application/json", body)) };
    let cases: Vec<(&str, Make, &str)> = vec![
        ("a web page", Arc::new(|| reply(200, "text/html", "<html>We are down</html>")), "MaintenancePage"),
        ("a web page that claims to be JSON", json_reply("  <html>"), "MaintenancePage"),
        ("nothing", json_reply(""), "UnexpectedResponse"),
        ("half a body", json_reply(r#"{"data":[{"id":"a""#), "UnexpectedResponse"),
        ("two bodies", json_reply(r#"{"data":[]}{"data":[]}"#), "UnexpectedResponse"),
        ("no list", json_reply(r#"{"data":{"id":"a"}}"#), "UnexpectedResponse"),
        ("too deep", Arc::new(move || reply(200, "application/json", deep.clone())), "UnexpectedResponse"),
        (
            "a small body that inflates",
            Arc::new(move || {
                Response::builder()
                    .header("content-type", "application/json")
                    .header("content-encoding", "gzip")
                    .body(Body::from(bomb.clone()))
                    .unwrap()
            }),
            "AnswerTooLarge",
        ),
        ("a body without end", Arc::new(endless), "AnswerTooLarge"),
        (
            "a cut connection",
            Arc::new(|| {
                let pieces = futures::stream::iter([Ok("{\"data\":".into()), Err::<axum::body::Bytes, _>(std::io::Error::other("cut"))]);
                reply(200, "application/json", Body::from_stream(pieces))
            }),
            "EndpointUnreachable",
        ),
        ("a stall", Arc::new(stalled), "EndpointUnreachable"),
    ];
    for (name, make, word) in cases {
        let (address, _) = serve({
            let make = make.clone();
            move |_, _| make()
        })
        .await;
        let started = Instant::now();
        let deadline = if name == "a stall" { 300 } else { 20_000 };
        let result = read(&client(address, "127.0.0.1"), None, deadline).await;
        assert_eq!(class(&result), Some((ErrorClass::Transient, word)), "{name}: {result:?}");
        assert!(started.elapsed() < Duration::from_secs(15), "{name} took {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_list_that_repeats_its_page_is_noticed() {
    let (address, _) = serve(|_, _| ok(&json!({"data": [{"id": "a"}], "meta": {"next": "same"}}))).await;
    let client = client(address, "127.0.0.1");
    let first = read(&client, None, 5000).await.unwrap();
    let second = read(&client, Some(first.cursor), 5000).await;
    assert_eq!(class(&second), Some((ErrorClass::Transient, "UnexpectedResponse")));
    for cursor in [json!("text"), json!({"from": 5}), json!({"strange": true}), json!([1])] {
        assert_eq!(class(&read(&client, Some(cursor), 5000).await), Some((ErrorClass::Configuration, "DefinitionInvalid")));
    }
}

/// The first load takes an hour, in the order of ids; what it reads first is edited meanwhile.
#[tokio::test]
async fn what_changes_while_a_list_is_read_is_read_by_the_next_pass() {
    let dated = |time: &str, body: Value| {
        let mut response = ok(&body);
        response.headers_mut().insert("date", format!("Wed, 06 May 2026 {time} GMT").parse().unwrap());
        response
    };
    let row = |id: &str, time: &str| json!({"id": id, "updated_at": format!("2026-05-06T{time}Z")});
    let (address, seen) = serve(move |line, _| match line {
        "GET /v2/invoices?limit=200" => {
            dated("10:00:00", json!({"data": [row("a", "08:00:00"), row("b", "09:00:00")], "meta": {"next": "p2"}}))
        }
        "GET /v2/invoices?limit=200&cursor=p2" => {
            dated("10:30:00", json!({"data": [row("c", "09:30:00"), row("d", "09:59:30"), row("e", "10:29:00")], "meta": {"next": "p3"}}))
        }
        "GET /v2/invoices?limit=200&cursor=p3" => dated("11:00:00", json!({"data": [row("f", "10:59:00")], "meta": {}})),
        "GET /v2/invoices?limit=200&updated_after=2026-05-06T09%3A29%3A30.000Z" => {
            let changed = [row("b", "10:10:00"), row("c", "09:30:00"), row("d", "09:59:30"), row("e", "10:29:00"), row("f", "10:59:00")];
            dated("11:00:30", json!({"data": changed, "meta": {}}))
        }
        "GET /v2/invoices?limit=200&updated_after=2026-05-06T10%3A58%3A30.000Z" => dated("11:01:00", json!({"data": [], "meta": {}})),
        _ => reply(404, "application/json", "{}"),
    })
    .await;
    let client = client(address, "127.0.0.1");
    let (mut cursor, mut passes) = (None, vec![Vec::new()]);
    for _ in 0..5 {
        let page = read(&client, cursor, 5000).await.unwrap_or_else(|error| panic!("{error}: {:#?}", seen.lock().unwrap()));
        passes.last_mut().unwrap().extend(page.records.iter().map(|record| record.id.0.clone()));
        if page.caught_up {
            passes.push(Vec::new());
        }
        cursor = Some(page.cursor);
    }
    let expected: [&[&str]; 4] = [&["a", "b", "c", "d", "e", "f"], &["b", "c", "d", "e", "f"], &[], &[]];
    assert_eq!(passes, expected, "the second pass begins at c: the newest that was older than the first pass, less the lag");
}

/// Counts warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_row_without_id_is_told_of_once_and_one_without_stamp_is_read() {
    let (address, _) = serve(|line, _| match line {
        "GET /v2/invoices?limit=200" => ok(&json!({"meta": {}, "data": [
            {"amount": 7}, {"id": "a"}, {"id": "b", "updated_at": "2026-05-06T10:00:00Z"}, {"id": "c", "updated_at": "soon"}, "text",
        ]})),
        "GET /v2/invoices?limit=200&updated_after=2026-05-06T09%3A59%3A30.000Z" => {
            ok(&json!({"meta": {}, "data": [{"amount": 7}, {"id": "c", "updated_at": "soon"}]}))
        }
        _ => reply(404, "application/json", "{}"),
    })
    .await;
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let client = client(address, "127.0.0.1");
    let first = read(&client, None, 5000).await.unwrap();
    assert_eq!(first.records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let unusable: Vec<_> = first.unusable.iter().map(|row| (row.raw.as_str(), row.error.class, row.error.message.as_str())).collect();
    assert_eq!(
        unusable,
        [
            (r#"{"amount":7}"#, ErrorClass::Data, "row 1 of a page of invoices has no id, so it cannot be kept"),
            (r#""text""#, ErrorClass::Data, "row 5 of a page of invoices has no id, so it cannot be kept"),
        ]
    );
    let second = read(&client, Some(first.cursor.clone()), 5000).await.unwrap();
    assert_eq!((second.records.len(), second.unusable.len()), (1, 1));
    assert_eq!(second.cursor, first.cursor, "a stamp that is none does not move the cursor");
    let warnings = warnings.0.lock().unwrap();
    assert_eq!(warnings.len(), 2, "each once: {warnings:#?}");
    assert!(warnings[0].contains("invoices") && warnings[0].contains("row 1") && !warnings[0].contains("amount"), "{warnings:#?}");
}

const CRM: &str = r#"
system: acme-crm
auth: [{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]
permissions: [records.read]
probe: {path: /me}
entities:
- name: Account
  key: .Id
  modified: .SystemModstamp
  fields: [{name: Name, type: String}]
  read: {soql: {from: Account, stamp: SystemModstamp, lag: 1m, page: 200}}
"#;

/// A client of a system that is queried, with so many rows to a page.
fn querying(address: SocketAddr, page: u32) -> Client {
    let definition = CRM.replace("page: 200", &format!("page: {page}"));
    let secrets = Secrets::of([("apiKey", KEY)], "127.0.0.1");
    connect(&common::unit(&definition, "acme-crm", &format!("http://{address}"), "ApiKey"), &secrets)
}

async fn query(client: &Client, cursor: Option<Value>, deadline: u64) -> Result<Page, RemoteError> {
    let (entity, slice, fields, deadline) = ("Account".into(), "main".into(), paths(&["Name"]), Duration::from_millis(deadline));
    client.read_page(&ReadRequest { entity, slice, fields, cursor, deadline }).await
}

/// The `LIMIT` of a query.
fn limit(line: &str) -> u32 {
    line.rsplit("LIMIT%20").next().and_then(|rest| rest.split([' ', '&']).next()?.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[tokio::test]
async fn a_queried_row_without_id_or_stamp_does_not_stop_the_pass() {
    let (address, _) = serve(|line, _| {
        if line.starts_with("GET /query?") {
            return ok(&json!({"records": [{"Name": "who"}]}));
        }
        if !line.contains("WHERE") {
            let stamp = "2026-05-06T10:00:00.000+0000";
            return ok(&json!({"records": [{"Name": "who"}, {"Id": "1", "SystemModstamp": null}, {"Id": "2", "SystemModstamp": stamp}]}));
        }
        assert!(line.contains("Id%20%3E%20%272%27"), "{line}");
        ok(&json!({"records": []}))
    })
    .await;
    let client = querying(address, 3);
    let first = query(&client, None, 5000).await.unwrap();
    assert!(!first.caught_up, "the page was full, whatever was in it");
    assert_eq!(
        first.records.iter().map(|record| (record.id.as_str(), record.modified.is_some())).collect::<Vec<_>>(),
        [("1", false), ("2", true)]
    );
    assert_eq!(first.unusable.len(), 1);
    assert!(query(&client, Some(first.cursor), 5000).await.unwrap().caught_up);
    let searched = client.search("Account", &paths(&["Name"]), &[("Name".parse().unwrap(), json!("who"))]).await;
    let known = Some((ErrorClass::Transient, "UnexpectedResponse"));
    assert_eq!(class(&searched), known, "who searches and is told of none would create a second record");
}

#[tokio::test]
async fn a_page_that_is_too_large_or_too_slow_is_asked_for_in_smaller_ones() {
    let asked = |seen: &Seen| seen.lock().unwrap().iter().map(|line| limit(line)).collect::<Vec<_>>();
    let (address, seen) = serve(|line, _| if limit(line) > 50 { endless() } else { ok(&json!({"records": []})) }).await;
    let client = querying(address, 200);
    let page = query(&client, None, 20_000).await.unwrap();
    assert_eq!(asked(&seen), [200, 100, 50]);
    query(&client, Some(page.cursor), 20_000).await.unwrap();
    assert_eq!(asked(&seen)[3..], [63, 31], "it grows back");

    let (address, seen) = serve(|line, _| if limit(line) > 100 { stalled() } else { ok(&json!({"records": []})) }).await;
    let client = querying(address, 200);
    assert_eq!(class(&query(&client, None, 300).await), Some((ErrorClass::Transient, "EndpointUnreachable")));
    assert!(query(&client, None, 5000).await.is_ok());
    assert_eq!(asked(&seen), [200, 100]);

    let (address, seen) = serve(|_, _| endless()).await;
    assert_eq!(class(&query(&querying(address, 4), None, 20_000).await), Some((ErrorClass::Transient, "AnswerTooLarge")));
    assert_eq!(asked(&seen), [4, 2, 1]);
}

/// A clock that a test sets.
#[derive(Default)]
struct Hand(std::sync::atomic::AtomicI64);

impl fairlead_model::Clock for Hand {
    fn now(&self) -> fairlead_model::Timestamp {
        fairlead_model::Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_secret_that_the_vendor_repeats_is_taken_out_whole_for_as_long_as_it_is_used() {
    // A token outlives the content of the Secret that it was made with.
    let definition = ACME.replace(
        "[{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]",
        "[{method: ClientCredentials, token: {url: '{{endpoint}}/token'}}]",
    );
    let (address, seen) = serve(|line, _| match line {
        "POST /token" => ok(&json!({"access_token": "token-canary-1"})),
        _ => reply(422, "application/json", json!({"errors": [{"detail": "no token-canary-1 here"}]}).to_string()),
    })
    .await;
    let unit = common::unit(&definition, "acme-billing", &format!("http://{address}"), "ClientCredentials");
    let (secrets, clock) = (Secrets::of([("clientId", "client-1"), ("clientSecret", KEY)], "127.0.0.1"), Arc::new(Hand::default()));
    let definition = Arc::new(Definition::of_unit(&unit).unwrap());
    let client =
        Client::connect(&unit, definition, &Outside { clock: clock.clone(), ..Outside::new(secrets.clone(), common::local()) }).unwrap();
    for hour in 0..3 {
        clock.0.store(hour * 3_600_000, std::sync::atomic::Ordering::SeqCst);
        let refused = read(&client, None, 5000).await.unwrap_err();
        assert!(refused.message.ends_with("no [redacted] here"), "{}", refused.message);
    }
    assert_eq!(seen.lock().unwrap().iter().filter(|line| line.starts_with("POST /token")).count(), 1, "it is the same token");
    assert_eq!(secrets.reads.load(std::sync::atomic::Ordering::SeqCst), 3);

    // A text that is cut in the middle of a secret.
    let (address, _) = serve(|_, _| {
        let detail = format!("{} {KEY}", "x".repeat(290));
        reply(422, "application/json", json!({"errors": [{"detail": detail}]}).to_string())
    })
    .await;
    let refused = read(&self::client(address, "127.0.0.1"), None, 5000).await.unwrap_err();
    assert!(!refused.message.contains(&KEY[..6]), "{}", refused.message);

    // Name and password together, as Basic authentication sends them.
    let (address, _) =
        serve(|_, _| reply(422, "application/json", json!({"errors": [{"detail": "not YWxpY2UxOndvbmRlcmxhbmQ= again"}]}).to_string()))
            .await;
    let definition = ACME.replace("[{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]", "[{method: Basic}]");
    let secrets = Secrets::of([("username", "alice1"), ("password", "wonderland")], "127.0.0.1");
    let refused = connect(&common::unit(&definition, "acme-billing", &format!("http://{address}"), "Basic"), &secrets).probe().await;
    let refused = refused.unwrap_err();
    assert!(refused.message.ends_with("not [redacted] again"), "{}", refused.message);
}

#[tokio::test]
async fn errors_of_the_vendor_are_cleaned_before_anybody_sees_them() {
    let (address, _) = serve(|_, _| {
        reply(
            422,
            "application/json",
            json!({"errors": [{"detail": format!("bad <b>key</b> {KEY}\u{1b}[2J\r\nERROR forged line {}", "x".repeat(5000))}]}).to_string(),
        )
    })
    .await;
    let client = client(address, "127.0.0.1");
    let result = client.write(&batch("invoices", vec![create(Some(("reference", "k")), json!({"amount": "1"}))])).await;
    let error = result[0].as_ref().unwrap_err();
    assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Data, "ValidationFailed"));
    let detail = error.detail.as_deref().unwrap();
    assert!(detail.starts_with("bad ‹b›key‹/b› [redacted] [2J ERROR forged line"), "{detail}");
    assert!(detail.chars().count() < 500 && !error.message.contains("bad"), "{}", error.message);
    let told = format!("{:?} {:?} {:?}", client, client.last_error(), result);
    assert!(!told.contains(KEY));
    assert_eq!(client.last_error().unwrap().error.detail, None, "what goes to status has no words of the vendor's");
}

#[tokio::test]
async fn a_redirect_is_an_error_and_the_other_host_hears_nothing() {
    let (trap, heard) = serve(|_, _| ok(&json!({"data": []}))).await;
    let (address, seen) =
        serve(move |_, _| Response::builder().status(307).header("location", format!("http://{trap}/steal")).body(Body::empty()).unwrap())
            .await;
    let client = client(address, "127.0.0.1");
    assert_eq!(class(&read(&client, None, 5000).await), Some((ErrorClass::Configuration, "UnexpectedResponse")));
    let written = client.write(&batch("invoices", vec![create(Some(("reference", "k")), json!({"amount": "1"}))])).await;
    assert_eq!(written[0].as_ref().unwrap_err().class, ErrorClass::Configuration);
    assert!(heard.lock().unwrap().is_empty(), "{heard:?}");
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn credentials_go_to_no_host_that_the_secret_does_not_name() {
    let (trap, heard) = serve(|_, _| ok(&json!({"data": []}))).await;
    for allowed in ["", "acme.example", "127.0.0.1:1", "localhost", "127.0.0.2"] {
        let error = read(&client(trap, allowed), None, 5000).await.unwrap_err();
        assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Configuration, "SecretHostNotAllowed"), "{allowed}");
    }
    assert!(heard.lock().unwrap().is_empty());

    // A token endpoint that names another host for data.
    let definition = ACME.replace(
        "[{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]",
        "[{method: ClientCredentials, token: {url: '{{endpoint}}/token', instance: .instance_url}}]",
    );
    let port = trap.port();
    let (login, _) =
        serve(move |_, _| ok(&json!({"access_token": "token-canary-1", "instance_url": format!("http://localhost:{port}")}))).await;
    let unit = common::unit(&definition, "acme-billing", &format!("http://{login}"), "ClientCredentials");
    let secrets = Secrets::of([("clientId", "client-1"), ("clientSecret", KEY)], "127.0.0.1");
    let error = connect(&unit, &secrets).probe().await.unwrap_err();
    assert_eq!(error.reason, "SecretHostNotAllowed");
    assert!(error.message.contains("localhost"));
    assert!(heard.lock().unwrap().is_empty(), "{heard:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_public_is_refused_before_anything_is_sent() {
    let (trap, heard) = serve(|_, _| ok(&json!({"data": []}))).await;
    let definition = Arc::new(Definition::parse(ACME).unwrap());
    let secrets = Secrets::of([("apiKey", KEY)], "127.0.0.1,localhost");
    let strict = fairlead_systems::EndpointPolicy::default();
    let outside = Outside::new(secrets.clone(), strict);
    for endpoint in [
        format!("http://{trap}"),
        format!("https://{trap}"),
        format!("https://user:{KEY}@127.0.0.1:{}", trap.port()),
        "nonsense".into(),
        "ftp://a".into(),
    ] {
        let unit = common::unit(definition.text(), "acme-billing", &endpoint, "ApiKey");
        let error = Client::connect(&unit, Arc::clone(&definition), &outside).expect_err(&endpoint);
        assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Configuration, "EndpointNotAllowed"), "{endpoint}");
        assert!(!error.message.contains(KEY));
    }
    // A name is judged when it is resolved.
    let unit = common::unit(definition.text(), "acme-billing", &format!("https://localhost:{}", trap.port()), "ApiKey");
    let client = Client::connect(&unit, Arc::clone(&definition), &outside).unwrap();
    let error = client.probe().await.unwrap_err();
    assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Configuration, "EndpointNotAllowed"));
    assert!(error.message.contains("loopback"), "{}", error.message);
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn retry_after_is_kept_to_and_basic_credentials_are_sent_as_such() {
    let (address, seen) = serve(|line, _| match line {
        "GET /v2/me" => Response::builder().status(429).header("retry-after", "30").body(Body::from("{}")).unwrap(),
        _ => ok(&json!({"data": []})),
    })
    .await;
    let client = client(address, "127.0.0.1");
    let refused = client.probe().await.unwrap_err();
    assert_eq!((refused.class, refused.retry_after), (ErrorClass::Throttled, Some(Duration::from_secs(30))));
    for _ in 0..5 {
        assert_eq!(class(&read(&client, None, 5000).await), Some((ErrorClass::Throttled, "RateLimited")));
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    let counters = client.counters();
    assert_eq!((counters.throttled, counters.held_back, counters.throttle_seconds), (6, 5, 30));

    let definition = ACME.replace("[{method: ApiKey, header: X-Api-Key, secretKey: apiKey}]", "[{method: Basic}]");
    let (address, _) = serve(|_, _| ok(&json!({}))).await;
    let values: BTreeMap<&str, &str> = [("username", "u"), ("password", "p\n")].into();
    let client =
        connect(&common::unit(&definition, "acme-billing", &format!("http://{address}"), "Basic"), &Secrets::of(values, "127.0.0.1"));
    assert_eq!(client.probe().await, Ok(()));
}

#[tokio::test]
async fn a_list_whose_next_page_is_refused_is_begun_anew_some_times() {
    let invoice = |id: &str| json!({"id": id, "updated_at": "2026-01-02T03:04:05"});
    let (address, seen) = serve(move |line, _| {
        if line.contains("cursor=old") {
            reply(400, "application/json", r#"{"errors":[{"detail":"the mark has expired"}]}"#)
        } else {
            ok(&json!({"data": [invoice("i1")], "meta": {"next": "old"}}))
        }
    })
    .await;
    let client = client(address, "127.0.0.1");
    let first = read(&client, None, 5).await.unwrap();
    let anew = read(&client, Some(first.cursor), 5).await.unwrap();
    assert!(anew.records.is_empty() && !anew.caught_up);
    let again = read(&client, Some(anew.cursor.clone()), 5).await.unwrap();
    assert_eq!(again.records.len(), 1);
    assert_eq!(anew.cursor["again"], 1);
    let mut last = again.cursor;
    last["again"] = json!(8);
    let refused = read(&client, Some(last), 5).await.unwrap_err();
    assert!(refused.message.contains("400") && refused.message.contains("set this participant's checkpoint"), "{}", refused.message);
    assert_eq!(seen.lock().unwrap().len(), 4);
}
