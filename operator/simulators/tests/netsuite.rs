//! The NetSuite simulator as a client meets it: over HTTP, with credentials from the announcement.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::json;
use fairlead_simulators::core::value::Value;
use fairlead_simulators::{FaultScript, Options, Simulator, System};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, Response};

const REST: &str = "/services/rest";
const BATCH: &str = "application/vnd.oracle.resource+json; type=collection";
const STRICT: (&str, &str) = ("X-NetSuite-PropertyNameValidation", "Error");

/// An account of 60 companies and a client that has logged in.
struct Bench {
    simulator: Simulator,
    http: reqwest::Client,
    token: String,
}

impl Bench {
    async fn new() -> Self {
        Self::with(60).await
    }

    async fn with(records: u64) -> Self {
        let options = Options { records, ..Options::new(System::Netsuite) };
        let simulator = Simulator::start(options).await.unwrap();
        let mut bench = Self { simulator, http: reqwest::Client::new(), token: String::new() };
        bench.login().await;
        bench
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.simulator.endpoint())
    }

    async fn token(&self, algorithm: Algorithm, certificate: &str, key: &str) -> (u16, Value) {
        let credentials = self.simulator.credentials();
        let url = self.url("/services/rest/auth/oauth2/v1/token");
        let now = chrono::Utc::now().timestamp();
        let claims = serde_json::json!({
            "iss": credentials["clientId"], "aud": url, "iat": now, "exp": now + 300, "scope": ["rest_webservices"],
        });
        let pem = credentials[key].as_bytes();
        let signer = if algorithm == Algorithm::ES256 { EncodingKey::from_ec_pem(pem) } else { EncodingKey::from_rsa_pem(pem) };
        let header = Header { kid: Some(credentials[certificate].clone()), ..Header::new(algorithm) };
        let assertion = jsonwebtoken::encode(&header, &claims, &signer.unwrap()).unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        let response = self.http.post(url).form(&form).send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    }

    async fn login(&mut self) {
        let (status, body) = self.token(Algorithm::ES256, "certificateId", "privateKey").await;
        assert_eq!(status, 200, "{body}");
        self.token = body.get("access_token").unwrap().as_str().unwrap().to_owned();
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(&format!("{REST}{path}"))).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.request(Method::GET, path).send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = self.request(method, path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    /// Status, error code (or location) of a write.
    async fn write(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let response = self.send(method, path, headers, body).await;
        let status = response.status().as_u16();
        let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        let body = json(response).await;
        (status, if body.is_null() { location.unwrap_or_default() } else { code(&body) })
    }

    async fn suiteql(&self, sql: &str, limit: usize, offset: usize) -> (u16, Value) {
        let body = Value::object([("q", Value::text(sql))]).to_string();
        let path = format!("/query/v1/suiteql?limit={limit}&offset={offset}");
        let response = self.send(Method::POST, &path, &[("Prefer", "transient")], &body).await;
        (response.status().as_u16(), json(response).await)
    }

    async fn rows(&self, sql: &str) -> Vec<Value> {
        let (status, body) = self.suiteql(sql, 1_000, 0).await;
        assert_eq!(status, 200, "{body}");
        body.get("items").unwrap().as_list().unwrap().to_vec()
    }

    async fn faults(&self, script: &str) {
        FaultScript::parse(script).unwrap();
        let response = self.http.post(self.url("/__fairlead/faults")).body(script.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 204);
    }

    async fn page(&self, path: &str) -> Vec<Value> {
        let response = self.http.get(self.url(&format!("/__fairlead/{path}"))).send().await.unwrap();
        json(response).await.as_list().unwrap().to_vec()
    }

    /// `outcome` and `answered` of every line of the log.
    async fn outcomes(&self) -> Vec<(String, bool)> {
        let line = |entry: &Value| (string(entry, "outcome"), entry.get("answered").unwrap().as_bool().unwrap());
        self.page("log").await.iter().map(line).collect()
    }
}

fn string(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn code(body: &Value) -> String {
    let details = body.get("o:errorDetails").and_then(Value::as_list).unwrap_or_default();
    details.first().map(|detail| string(detail, "o:errorCode")).unwrap_or_default()
}

#[tokio::test]
async fn a_token_is_given_for_each_key_and_ends_when_tokens_expire() {
    let mut bench = Bench::new().await;
    let (status, body) = bench.token(Algorithm::PS256, "rsaCertificateId", "rsaPrivateKey").await;
    assert_eq!((status, string(&body, "token_type")), (200, "bearer".into()));
    assert_eq!(body.get("expires_in"), Some(&Value::number("3600")));
    let (status, body) = bench.token(Algorithm::RS256, "rsaCertificateId", "rsaPrivateKey").await;
    assert_eq!((status, string(&body, "error")), (400, "invalid_request".into()));

    let path = "/record/v1/customer?limit=1";
    assert_eq!(bench.get(path).await.0, 200);
    bench.faults("rules: [{fault: tokenExpiry}]").await;
    let (status, body) = bench.get(path).await;
    assert_eq!((status, code(&body)), (401, "INVALID_LOGIN".into()));
    assert_eq!(string(&body, "title"), "Unauthorized");
    bench.login().await;
    assert_eq!(bench.get(path).await.0, 200);
    bench.token = String::new();
    assert_eq!(bench.get(path).await.0, 401);
}

#[tokio::test]
async fn suiteql_answers_strings_without_nulls_and_wants_its_header() {
    let bench = Bench::new().await;
    let body = r#"{"q":"SELECT id FROM customer"}"#;
    assert_eq!(bench.write(Method::POST, "/query/v1/suiteql", &[], body).await, (400, "INVALID_HEADER".into()));
    assert_eq!(code(&bench.suiteql("SELECT id FROM customer", 1_001, 0).await.1), "INVALID_PARAMETER");
    assert_eq!(code(&bench.suiteql("SELECT id FROM nothing", 10, 0).await.1), "INVALID_PARAMETER");

    let sql = "SELECT id, externalid, creditlimit, isinactive, TO_CHAR(lastmodifieddate,'YYYY-MM-DD\"T\"HH24:MI:SS') AS stamp \
               FROM customer WHERE creditlimit IS NOT NULL ORDER BY id";
    let (status, body) = bench.suiteql(sql, 2, 2).await;
    assert_eq!(status, 200);
    let number = |name: &str| body.get(name).cloned();
    assert_eq!((number("count"), number("offset")), (Some(Value::int(2)), Some(Value::int(2))));
    assert_eq!(body.get("hasMore"), Some(&Value::Bool(true)));
    let item = body.get("items").unwrap().as_list().unwrap()[0].as_object().unwrap();
    assert_eq!(item.keys().collect::<Vec<_>>(), ["links", "id", "creditlimit", "isinactive", "stamp"], "no external id yet");
    assert!(item.values().skip(1).all(|value| value.as_str().is_some()), "{item:?}");
    assert_eq!(item["stamp"].as_str().unwrap().len(), 19);
}

#[tokio::test]
async fn pages_of_ids_cover_the_account_and_reads_come_by_id_and_in_batches() {
    let bench = Bench::new().await;
    let (mut ids, mut next) = (BTreeSet::new(), Some("/record/v1/customer?limit=25".to_owned()));
    while let Some(path) = next {
        let (status, body) = bench.get(&path).await;
        assert_eq!(status, 200);
        let items = body.get("items").unwrap().as_list().unwrap();
        assert!(items.iter().all(|item| item.as_object().unwrap().keys().eq(["links", "id"])));
        ids.extend(items.iter().map(|item| string(item, "id")));
        let links = body.get("links").unwrap().as_list().unwrap();
        let link = links.iter().find(|link| string(link, "rel") == "next");
        next = link.map(|link| string(link, "href").split_once(REST).unwrap().1.to_owned());
    }
    assert_eq!(ids.len(), 60);

    let (status, record) = bench.get("/record/v1/customer/1001?expandSubResources=true").await;
    assert_eq!(status, 200);
    assert_eq!(string(record.get("subsidiary").unwrap(), "id").len(), 1);
    assert!(!string(record.get("currency").unwrap(), "refName").is_empty());
    let line = &record.get("addressBook").unwrap().get("items").unwrap().as_list().unwrap()[0];
    assert!(!string(line.get("addressBookAddress").unwrap(), "city").is_empty());
    let (_, plain) = bench.get("/record/v1/customer/1001").await;
    assert!(plain.get("addressBook").unwrap().as_object().unwrap().keys().eq(["links"]));

    let (_, body) = bench.get("/record/v1/customer?expandRecords=true&ids=1003,1002,999999").await;
    let items = body.get("items").unwrap().as_list().unwrap();
    assert_eq!(items.iter().map(|item| string(item, "id")).collect::<Vec<_>>(), ["1003", "1002"]);
    assert!(items.iter().all(|item| item.get("companyName").is_some()));
    assert_eq!(bench.get("/record/v1/Customer/1001").await.0, 404);
    assert_eq!(code(&bench.get("/record/v1/customer/999999").await.1), "NONEXISTENT_ID");
}

#[tokio::test]
async fn a_record_lives_from_post_to_deletedrecord() {
    let bench = Bench::new().await;
    let body = r#"{"externalId":"SF-1","companyName":"  Nova Żółw  ","email":"Info@Nova.Example","subsidiary":{"id":"1"},
        "creditLimit":90071992547409.93,"vatRegNumber":"PL1","parent":{"id":"1001"},"custentity_segment":"Enterprise"}"#;
    let (status, location) = bench.write(Method::POST, "/record/v1/customer", &[STRICT], body).await;
    assert_eq!(status, 204);
    let id = location.rsplit('/').next().unwrap().to_owned();
    let (_, record) = bench.get("/record/v1/customer/eid:SF-1").await;
    assert_eq!(string(&record, "id"), id);
    assert_eq!((string(&record, "companyName"), string(&record, "email")), ("Nova Żółw".into(), "info@nova.example".into()));
    assert_eq!(record.get("creditLimit"), Some(&Value::number("90071992547409.93")), "a number token, exact");
    assert_eq!(string(record.get("parent").unwrap(), "id"), "1001");
    let row = &bench.rows("SELECT creditlimit, externalid FROM customer WHERE vatregnumber = 'PL1'").await[0];
    assert_eq!(string(row, "creditlimit"), "90071992547409.93");

    assert_eq!(bench.write(Method::POST, "/record/v1/customer", &[], body).await, (400, "DUP_RCRD".into()));
    let patch = r#"{"creditLimit":null,"phone":"+48-22-5550100","parent":null}"#;
    assert_eq!(bench.write(Method::PATCH, "/record/v1/customer/eid:SF-1", &[STRICT], patch).await.0, 204);
    let (_, record) = bench.get(&format!("/record/v1/customer/{id}")).await;
    assert!(record.get("creditLimit").is_none() && record.get("parent").is_none(), "cleared fields are absent");
    assert_eq!(bench.write(Method::DELETE, &format!("/record/v1/customer/{id}"), &[], "").await.0, 204);
    assert_eq!(bench.write(Method::PATCH, "/record/v1/customer/eid:SF-1", &[], patch).await, (404, "NONEXISTENT_ID".into()));
    let deleted = bench.rows("SELECT type, recordid, TO_CHAR(deleteddate,'YYYY') AS year FROM deletedrecord").await;
    assert_eq!((string(&deleted[0], "type"), string(&deleted[0], "recordid")), ("customer".into(), id));
    let outcomes: Vec<String> = bench.outcomes().await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["created", "rejected", "updated", "deleted", "rejected"]);
}

#[tokio::test]
async fn putting_the_same_record_twice_leaves_one() {
    let bench = Bench::new().await;
    let body = r#"{"companyName":"Twice","subsidiary":{"id":"1"}}"#;
    let first = bench.write(Method::PUT, "/record/v1/customer/eid:A%20b", &[STRICT], body).await;
    let second = bench.write(Method::PUT, "/record/v1/customer/eid:A%20b", &[STRICT], body).await;
    assert_eq!((first.0, &first), (204, &second));
    assert_eq!(bench.rows("SELECT id FROM customer WHERE externalid = 'A b'").await.len(), 1);
    let outcomes: Vec<String> = bench.outcomes().await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["created", "unchanged"]);
    assert_eq!(bench.write(Method::PUT, "/record/v1/customer/1001", &[], body).await.0, 400, "PUT takes an external id");
}

#[tokio::test]
async fn a_misspelt_name_is_dropped_in_silence_unless_errors_are_wanted() {
    let bench = Bench::new().await;
    let body = r#"{"companyname":"typo","phone":"+1-212-5550199"}"#;
    let path = "/record/v1/customer/1001";
    assert_eq!(bench.write(Method::PATCH, path, &[STRICT], body).await, (400, "INVALID_CONTENT".into()));
    assert_eq!(bench.write(Method::PATCH, path, &[], body).await.0, 204);
    let (_, record) = bench.get(path).await;
    assert_eq!(string(&record, "phone"), "+1-212-5550199");
    assert_ne!(string(&record, "companyName"), "typo");
}

#[tokio::test]
async fn wrong_records_are_refused_with_the_field() {
    let bench = Bench::new().await;
    let long = "x".repeat(201);
    let with = |extra: &str| format!(r#"{{"companyName":"Check","subsidiary":{{"id":"1"}}{extra}}}"#);
    for (body, wanted, path) in [
        (r#"{"subsidiary":{"id":"1"}}"#.to_owned(), "USER_ERROR", "companyName"),
        (r#"{"companyName":"Check"}"#.to_owned(), "USER_ERROR", "subsidiary"),
        (format!(r#"{{"companyName":"{long}","subsidiary":{{"id":"1"}}}}"#), "USER_ERROR", "companyName"),
        (with(r#","email":"nobody""#), "USER_ERROR", "email"),
        (with(r#","parent":{"id":"7"}"#), "INVALID_CONTENT", "parent"),
        (with(r#","parent":"1001""#), "INVALID_CONTENT", "parent"),
        (with(r#","subsidiary":{"id":"77"}"#), "INVALID_CONTENT", "subsidiary"),
        (with(r#","creditLimit":"12.50""#), "INVALID_CONTENT", "creditLimit"),
        (with(r#","creditLimit":-1"#), "USER_ERROR", "creditLimit"),
        (with(r#","isInactive":"T""#), "INVALID_CONTENT", "isInactive"),
        (with(r#","entityId":"CUST1001""#), "UNIQUE_CUST_ID_REQD", "entityId"),
        (with(r#","custentity_unknown":"x""#), "INVALID_CONTENT", "custentity_unknown"),
    ] {
        let response = bench.send(Method::POST, "/record/v1/customer", &[STRICT], &body).await;
        let status = response.status().as_u16();
        let answer = json(response).await;
        let detail = &answer.get("o:errorDetails").unwrap().as_list().unwrap()[0];
        assert_eq!((status, code(&answer).as_str(), string(detail, "o:errorPath").as_str()), (400, wanted, path), "{body}");
    }
    assert_eq!(bench.page("records/customer").await.len(), 60);
    assert_eq!(bench.write(Method::PATCH, "/record/v1/customer/1001", &[], r#"{"parent":{"id":"1001"}}"#).await.0, 400);
}

#[tokio::test]
async fn an_address_book_is_merged_by_line_or_replaced_whole() {
    let bench = Bench::new().await;
    let lines = async || {
        let (_, book) = bench.get("/record/v1/customer/1001/addressBook").await;
        let items = book.get("items").unwrap().as_list().unwrap().to_vec();
        items.iter().map(|line| string(line.get("addressBookAddress").unwrap(), "city")).collect::<Vec<_>>()
    };
    let before = lines().await.remove(0);
    let body = r#"{"addressBook":{"items":[{"defaultBilling":true,"addressBookAddress":{"city":"Ulm","country":{"id":"DE"}}}]}}"#;
    let path = "/record/v1/customer/1001";
    assert_eq!(bench.write(Method::PATCH, path, &[STRICT], body).await.0, 204);
    assert_eq!(lines().await, [before, "Ulm".to_owned()]);
    assert_eq!(bench.write(Method::PATCH, &format!("{path}?replace=addressBook"), &[STRICT], body).await.0, 204);
    assert_eq!(lines().await, ["Ulm"]);
    let sql = "SELECT a.city, a.country FROM customer c JOIN customeraddressbookentityaddress a ON a.nkey = c.defaultbillingaddress WHERE c.id = 1001";
    let row = &bench.rows(sql).await[0];
    assert_eq!((string(row, "city"), string(row, "country")), ("Ulm".into(), "DE".into()));
}

/// The result of a job, polled as a client polls it.
async fn result(bench: &Bench, location: &str) -> Value {
    let path = location.split_once(REST).unwrap().1;
    let (_, first) = bench.get(path).await;
    assert_eq!(first.get("completed"), Some(&Value::Bool(false)));
    assert_eq!(bench.get(&format!("{path}/task/1/result")).await.1.get("completed"), None);
    let (_, job) = bench.get(path).await;
    assert_eq!((job.get("completed"), string(&job, "progress")), (Some(&Value::Bool(true)), "succeeded".into()));
    let (_, tasks) = bench.get(&format!("{path}/task/")).await;
    assert_eq!(string(&tasks.get("items").unwrap().as_list().unwrap()[0], "id"), "1");
    assert_eq!(bench.get(&format!("{path}/task/1")).await.0, 200);
    bench.get(&format!("{path}/task/1/result")).await.1
}

#[tokio::test]
async fn a_batch_tells_each_items_outcome_through_its_job_and_honours_the_idempotency_key() {
    let bench = Bench::new().await;
    bench.faults("rules: [{match: {operation: write}, fault: partialBatchFailure, items: [3]}]").await;
    let body = r#"{"items":[
        {"externalId":"B-0","companyName":"Null","subsidiary":{"id":"1"}},
        {"externalId":"B-1","companyName":"Eins"},
        {"companyName":"no key","subsidiary":{"id":"1"}},
        {"externalId":"B-3","companyName":"Drei","subsidiary":{"id":"1"}},
        {"externalId":"B-4","companyName":"Vier","subsidiary":{"id":"1"}}]}"#;
    let key = ("X-NetSuite-Idempotency-Key", "6f0cbd4e-5b6f-4b7a-9d2a-111111111111");
    let headers = [("Content-Type", BATCH), ("Prefer", "respond-async"), STRICT, key];
    let response = bench.send(Method::PUT, "/record/v1/customer", &headers, body).await;
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["preference-applied"], "respond-async");
    let location = response.headers()["location"].to_str().unwrap().to_owned();

    let result = result(&bench, &location).await;
    let items = result.get("items").unwrap().as_list().unwrap();
    let told: Vec<String> = items.iter().map(|item| if item.get("id").is_some() { "ok".into() } else { code(item) }).collect();
    assert_eq!(told, ["ok", "USER_ERROR", "INVALID_CONTENT", "UNEXPECTED_ERROR", "ok"]);
    assert_eq!(bench.get("/record/v1/customer/eid:B-4").await.0, 200);
    assert_eq!(bench.get("/record/v1/customer/eid:B-3").await.0, 404);

    let again = bench.send(Method::PUT, "/record/v1/customer", &headers, body).await;
    assert_eq!((again.status().as_u16(), again.headers()["location"].to_str().unwrap()), (400, location.as_str()));
    let again = json(again).await;
    assert_eq!((code(&again), string(&again, "title")), ("IDEMPOTENCY_ERROR".into(), "Conflict".into()));

    let synchronous = [("Content-Type", BATCH)];
    assert_eq!(bench.write(Method::PUT, "/record/v1/customer", &synchronous, body).await.0, 400);
    let many = format!("{{\"items\":[{}]}}", vec!["{}"; 101].join(","));
    let accepted = bench.send(Method::POST, "/record/v1/customer", &headers[..3], &many).await;
    let path = accepted.headers()["location"].to_str().unwrap().split_once(REST).unwrap().1.to_owned();
    bench.get(&path).await;
    assert_eq!(code(&bench.get(&format!("{path}/task/1/result")).await.1), "INVALID_CONTENT");
}

#[tokio::test]
async fn one_record_and_deletes_by_id_run_as_jobs_too() {
    let bench = Bench::new().await;
    let job = async |method: Method, path: &str, body: &str| {
        let response = bench.send(method, path, &[("Prefer", "respond-async")], body).await;
        assert_eq!(response.status(), 202);
        let location = response.headers()["location"].to_str().unwrap().split_once(REST).unwrap().1.to_owned();
        bench.get(&location).await;
        bench.send(Method::GET, &format!("{location}/task/1/result"), &[], "").await
    };
    let body = r#"{"companyName":"Later","subsidiary":{"id":"1"}}"#;
    let result = job(Method::PUT, "/record/v1/customer/eid:J", body).await;
    assert_eq!(result.status(), 204);
    assert!(result.headers().contains_key("location"));
    let result = json(job(Method::DELETE, "/record/v1/customer?ids=eid:J,999999", "").await).await;
    let items = result.get("items").unwrap().as_list().unwrap();
    assert_eq!((items.len(), code(&items[1])), (2, "NONEXISTENT_ID".into()));
    assert_eq!(bench.get("/record/v1/customer/eid:J").await.0, 404);
}

#[tokio::test]
async fn a_contact_refers_to_its_customer_and_outlives_it() {
    let bench = Bench::new().await;
    let customer = r#"{"companyName":"House","subsidiary":{"id":"1"}}"#;
    assert_eq!(bench.write(Method::PUT, "/record/v1/customer/eid:H", &[STRICT], customer).await.0, 204);
    let contact = r#"{"firstName":"Zoë","lastName":"Yılmaz","company":{"externalId":"H"},"subsidiary":{"id":"1"}}"#;
    assert_eq!(bench.write(Method::PUT, "/record/v1/contact/eid:P", &[STRICT], contact).await.0, 204);
    let (_, person) = bench.get("/record/v1/contact/eid:P").await;
    assert_eq!(string(person.get("company").unwrap(), "refName"), "House");
    assert_eq!(string(&person, "entityId"), "Zoë Yılmaz");
    let sql = "SELECT p.id, BUILTIN.DF(p.company) AS house FROM contact p JOIN customer c ON c.id = p.company WHERE c.externalid = 'H'";
    assert_eq!(string(&bench.rows(sql).await[0], "house"), "House");
    assert_eq!(bench.write(Method::DELETE, "/record/v1/customer/eid:H", &[], "").await.0, 204);
    assert!(bench.get("/record/v1/contact/eid:P").await.1.get("company").is_none());
}

#[tokio::test]
async fn an_idempotency_key_on_a_synchronous_create_is_ignored() {
    let bench = Bench::new().await;
    let key = ("X-NetSuite-Idempotency-Key", "6f0cbd4e-5b6f-4b7a-9d2a-222222222222");
    let body = r#"{"companyName":"Double","subsidiary":{"id":"1"}}"#;
    for _ in 0..2 {
        assert_eq!(bench.write(Method::POST, "/record/v1/customer", &[key], body).await.0, 204);
    }
    assert_eq!(bench.rows("SELECT id FROM customer WHERE companyname = 'Double'").await.len(), 2);
}

#[tokio::test]
async fn faults_show_in_the_log_as_what_the_caller_got() {
    let bench = Bench::new().await;
    let body = r#"{"companyName":"Lost","subsidiary":{"id":"1"}}"#;
    bench.faults("rules: [{match: {operation: write, entity: customer}, fault: limit}]").await;
    assert_eq!(bench.write(Method::PUT, "/record/v1/customer/eid:L", &[], body).await, (429, "CONCURRENCY_LIMIT_EXCEEDED".into()));
    bench.faults("rules: [{match: {operation: write}, fault: timeoutAfterEffect, millis: 1}]").await;
    let sent = bench.request(Method::PUT, "/record/v1/customer/eid:L").body(body).send().await;
    assert!(sent.is_err(), "the answer never comes");
    assert_eq!(bench.get("/record/v1/customer/eid:L").await.0, 200, "the effect is there");
    let wanted = [("rejected".to_owned(), true), ("created".to_owned(), false)];
    assert_eq!(bench.outcomes().await, wanted);

    bench.faults("rules: [{fault: maintenancePage}]").await;
    let response = bench.send(Method::GET, "/record/v1/customer", &[], "").await;
    assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (200, "text/html; charset=utf-8"));
    bench.faults("rules: [{fault: staleRead}]").await;
    assert_eq!(bench.get("/record/v1/customer/eid:L").await.0, 404, "a lagging replica does not know it yet");
    assert_eq!(bench.get("/record/v1/customer/eid:L").await.0, 200);
}

#[tokio::test]
async fn more_requests_at_a_time_than_the_account_may_have_are_refused() {
    let bench = Bench::new().await;
    bench.faults("rules: [{fault: slowDrip, times: 5, millis: 60000}]").await;
    let mut dripping = Vec::new();
    for _ in 0..5 {
        // The head has come, the body has not: the request is still being answered.
        dripping.push(bench.send(Method::GET, "/record/v1/customer", &[], "").await);
    }
    let response = bench.send(Method::GET, "/record/v1/customer", &[], "").await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().get("retry-after").is_none(), "the vendor does not say when");
    assert_eq!(code(&json(response).await), "CONCURRENCY_LIMIT_EXCEEDED");
    drop(dripping);
    let (_, limits) = loop {
        let answer = bench.get("/system/v1/governanceLimits").await;
        if answer.0 == 200 {
            break answer;
        }
    };
    assert_eq!(limits.get("accountConcurrencyLimit"), Some(&Value::int(5)));
}

#[tokio::test]
async fn a_persons_edit_moves_the_stamp_and_stands_in_the_log() {
    let bench = Bench::new().await;
    let (_, before) = bench.get("/record/v1/customer/1001").await;
    let body = r#"{"entity":"customer","id":"1001","values":{"companyName":"Renamed","creditLimit":1.005}}"#;
    let response = bench.http.post(bench.url("/__fairlead/edit")).body(body).send().await.unwrap();
    let edited = json(response).await;
    assert_eq!((string(&edited, "companyName"), edited.get("creditLimit")), ("Renamed".into(), Some(&Value::number("1.01"))));
    assert!(string(&edited, "lastModifiedDate") > string(&before, "lastModifiedDate"));
    let log = bench.page("log").await;
    assert_eq!((string(&log[0], "operation"), string(&log[0], "origin")), ("edit".into(), "person".into()));
}

#[tokio::test]
async fn metadata_names_the_records_and_their_fields() {
    let bench = Bench::new().await;
    let (_, list) = bench.get("/record/v1/metadata-catalog").await;
    let names: Vec<String> = list.get("items").unwrap().as_list().unwrap().iter().map(|item| string(item, "name")).collect();
    assert_eq!(names, ["customer", "contact"]);
    let accept = [("Accept", "application/schema+json")];
    let schema = json(bench.send(Method::GET, "/record/v1/metadata-catalog/customer", &accept, "").await).await;
    let properties = schema.get("properties").unwrap();
    assert_eq!(string(properties.get("creditLimit").unwrap(), "type"), "number");
    assert!(properties.get("custentity_segment").is_some());
}

#[tokio::test]
async fn the_whole_account_is_read_once_by_key_and_as_seeded() {
    let bench = Bench::with(3_000).await;
    let (mut seen, mut last) = (Vec::new(), 0_u64);
    loop {
        let sql = format!("SELECT id, vatregnumber, parent FROM customer WHERE id > {last} ORDER BY id");
        let (_, body) = bench.suiteql(&sql, 1_000, 0).await;
        let items = body.get("items").unwrap().as_list().unwrap().to_vec();
        let Some(item) = items.last() else { break };
        last = string(item, "id").parse().unwrap();
        seen.extend(items);
    }
    let ids: BTreeSet<String> = seen.iter().map(|item| string(item, "id")).collect();
    let taxes: BTreeSet<String> = seen.iter().map(|item| string(item, "vatregnumber")).collect();
    assert_eq!((seen.len(), ids.len(), taxes.len()), (3_000, 3_000, 3_000));
    let parents: Vec<String> = seen.iter().map(|item| string(item, "parent")).filter(|parent| !parent.is_empty()).collect();
    assert!(parents.len() > 300 && parents.iter().all(|parent| ids.contains(parent)));
    assert!(bench.rows("SELECT COUNT(*) AS n FROM contact WHERE company IS NOT NULL").await[0].get("n").is_some());
    assert!(bench.rows("SELECT id FROM customer WHERE externalid IS NOT NULL").await.is_empty());
}
