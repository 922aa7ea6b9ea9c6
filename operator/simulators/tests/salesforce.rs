//! The Salesforce simulator over HTTP: paging, writes, errors, faults and the log, as a client meets them.
//!
//! Each test starts its own simulator on a free port with the default seed (1), so a failure can be repeated.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::HashSet;
use std::str::FromStr;

use bigdecimal::BigDecimal;
use fairlead_simulators::core::value::Value;
use fairlead_simulators::{Options, Simulator, System};
use http::Method;

/// A client with a session.
struct Org {
    simulator: Simulator,
    http: reqwest::Client,
    token: String,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        Value::parse(self.text.as_bytes()).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text))
    }

    fn code(&self) -> String {
        self.json().as_list().unwrap()[0].get("errorCode").and_then(Value::as_str).unwrap().to_owned()
    }
}

fn small() -> Options {
    Options { records: 300, ..Options::new(System::Salesforce) }
}

impl Org {
    async fn start(options: Options) -> Self {
        let simulator = Simulator::start(options).await.unwrap();
        let mut org = Self { simulator, http: reqwest::Client::new(), token: String::new() };
        org.sign_in().await;
        org
    }

    async fn sign_in(&mut self) {
        let secret = self.simulator.credentials();
        let form = [("grant_type", "client_credentials"), ("client_id", &secret["clientId"]), ("client_secret", &secret["clientSecret"])];
        let answer = self.http.post(format!("{}/services/oauth2/token", self.simulator.endpoint())).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = common::json(answer).await;
        assert!(body.get("expires_in").is_none());
        self.token = body.get("access_token").and_then(Value::as_str).unwrap().to_owned();
    }

    async fn try_call(&self, method: Method, path: &str, body: Option<&str>) -> Result<Answer, reqwest::Error> {
        let url = match path.starts_with("/__fairlead") || path.starts_with("/services") {
            true => format!("{}{path}", self.simulator.endpoint()),
            false => format!("{}/services/data/v67.0{path}", self.simulator.endpoint()),
        };
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, text: String::from_utf8(common::body(answer).await).unwrap() })
    }

    async fn call(&self, method: Method, path: &str, body: Option<&str>) -> Answer {
        self.try_call(method, path, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    async fn query(&self, soql: &str) -> Answer {
        self.get(&format!("/query?{}", url::form_urlencoded::Serializer::new(String::new()).append_pair("q", soql).finish())).await
    }

    /// All rows of a query, page by page.
    async fn rows(&self, soql: &str) -> Vec<Value> {
        let mut page = self.query(soql).await.json();
        let mut rows = Vec::new();
        loop {
            rows.extend(page.get("records").and_then(Value::as_list).unwrap_or_else(|| panic!("{page}")).to_vec());
            match page.get("nextRecordsUrl").and_then(Value::as_str).map(str::to_owned) {
                Some(next) => page = self.get(&next).await.json(),
                None => return rows,
            }
        }
    }

    async fn faults(&self, script: &str) {
        assert_eq!(self.call(Method::POST, "/__fairlead/faults", Some(script)).await.status, 204);
    }

    async fn log(&self) -> Vec<Value> {
        self.get("/__fairlead/log").await.json().as_list().unwrap().to_vec()
    }
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or_else(|| panic!("no {field} in {record}"))
}

#[tokio::test]
async fn ten_thousand_accounts_come_in_pages_of_two_thousand_each_once() {
    let org = Org::start(Options::new(System::Salesforce)).await;
    let first = org.query("SELECT Id, Name, Parent.Name FROM Account ORDER BY SystemModstamp, Id").await;
    assert_eq!(first.headers["sforce-limit-info"], "api-usage=1/115000");
    let page = first.json();
    assert_eq!(page.get("totalSize"), Some(&Value::int(10_000)));
    assert_eq!(page.get("records").and_then(Value::as_list).unwrap().len(), 2_000);
    let next = text(&page, "nextRecordsUrl").to_owned();
    assert!(next.starts_with("/services/data/v67.0/query/01g") && next.ends_with("-2000"), "{next}");

    // What changes meanwhile does not move the pages.
    let id = text(&page.get("records").and_then(Value::as_list).unwrap()[0], "Id").to_owned();
    org.call(Method::DELETE, &format!("/sobjects/Account/{id}"), None).await;
    let mut seen: HashSet<String> = HashSet::new();
    let (mut parents, mut contacts) = (0, 0);
    for record in org.rows("SELECT Id, Parent.Name, (SELECT Id FROM Contacts) FROM Account ORDER BY SystemModstamp, Id").await {
        assert!(seen.insert(text(&record, "Id").to_owned()));
        parents += usize::from(record.get("Parent").is_some_and(|parent| !parent.is_null()));
        contacts += record.get("Contacts").and_then(|found| found.get("records")).and_then(Value::as_list).map_or(0, <[_]>::len);
    }
    assert_eq!(seen.len(), 9_999);
    assert!(parents > 1_000 && contacts > 15_000, "{parents} {contacts}");
    // Rows with children come in smaller pages than a client may expect: only `done` tells the end.
    let wide = org.query("SELECT Id, (SELECT Id FROM Contacts) FROM Account LIMIT 2000").await.json();
    assert_eq!((wide.get("done"), wide.get("records").and_then(Value::as_list).map(<[_]>::len)), (Some(&Value::Bool(false)), Some(500)));
    let rest = org.get(&next).await.json();
    assert_eq!(rest.get("totalSize"), Some(&Value::int(10_000)));
}

#[tokio::test]
async fn the_eleventh_open_locator_ends_the_first() {
    let org = Org::start(small()).await;
    let open = async || {
        let url = format!("{}/services/data/v67.0/query?q=SELECT+Id+FROM+Account", org.simulator.endpoint());
        let answer = org.http.get(url).bearer_auth(&org.token).header("sforce-query-options", "batchSize=200").send().await.unwrap();
        text(&common::json(answer).await, "nextRecordsUrl").to_owned()
    };
    let first = open().await;
    for _ in 0..9 {
        open().await;
    }
    let last = org.get(&first).await.json();
    assert_eq!((last.get("done"), last.get("nextRecordsUrl")), (Some(&Value::Bool(true)), None));
    open().await;
    let gone = org.get(&first).await;
    assert_eq!((gone.status, gone.code().as_str()), (400, "INVALID_QUERY_LOCATOR"));
}

#[tokio::test]
async fn a_keyset_over_stamp_and_id_finds_every_row_once() {
    let org = Org::start(small()).await;
    let mut after: Option<(String, String)> = None;
    let mut seen = HashSet::new();
    loop {
        let condition = after
            .as_ref()
            .map_or(String::new(), |(stamp, id)| format!("WHERE (SystemModstamp = {stamp} AND Id > '{id}') OR SystemModstamp > {stamp}"));
        let rows = org.rows(&format!("SELECT Id, SystemModstamp FROM Account {condition} ORDER BY SystemModstamp, Id LIMIT 37")).await;
        let Some(last) = rows.last() else { break };
        after = Some((text(last, "SystemModstamp").replace("+0000", "Z"), text(last, "Id").to_owned()));
        for row in &rows {
            assert!(seen.insert(text(row, "Id").to_owned()), "twice");
        }
    }
    assert_eq!(seen.len(), 300);
}

#[tokio::test]
async fn conditions_select_what_they_say() {
    let org = Org::start(small()).await;
    let count = async |condition: &str| -> usize {
        let answer = org.query(&format!("SELECT COUNT() FROM Account WHERE {condition}")).await;
        assert_eq!(answer.status, 200, "{condition}: {}", answer.text);
        let Some(Value::Number(total)) = answer.json().get("totalSize").cloned() else { panic!() };
        total.parse().unwrap()
    };
    assert_eq!(count("Phone = null").await + count("Phone != null").await, 300);
    assert_eq!(
        count("Credit_Limit__c > 1000.5").await + count("Credit_Limit__c <= 1000.5").await + count("Credit_Limit__c = null").await,
        300
    );
    assert_eq!(
        count("Segment__c IN ('Enterprise', 'mid-market')").await + count("Segment__c NOT IN ('Enterprise', 'Mid-Market')").await,
        300
    );
    assert_eq!(
        count("ParentId IN (SELECT Id FROM Account WHERE ParentId = null) OR ParentId = null OR Parent.ParentId != null").await,
        300
    );
    assert_eq!(count("Parent.Name LIKE '%' AND ParentId = null").await, 0);
    assert_eq!(count("Name LIKE '%\\'%'").await, count("NOT (NOT Name LIKE '%\\'%')").await);
    assert_eq!(count("CreatedDate = TODAY").await, 0);
    assert_eq!(count("IsDeleted = true").await, 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_said_in_the_vendors_words() {
    let org = Org::start(small()).await;
    for (soql, code) in [
        ("SELEC Id FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'a' AND Name = 'b' OR Name = 'c'", "MALFORMED_QUERY"),
        ("SELECT Nope FROM Account", "INVALID_FIELD"),
        ("SELECT Id FROM Nope", "INVALID_TYPE"),
        ("SELECT Id, (SELECT Id FROM Nopes) FROM Account", "INVALID_TYPE"),
    ] {
        let answer = org.query(soql).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{soql}");
        assert_eq!(answer.headers["content-type"], "application/json;charset=UTF-8");
    }
}

#[tokio::test]
async fn money_goes_in_and_out_as_a_number_that_no_double_can_hold() {
    let org = Org::start(small()).await;
    let made = org
        .call(Method::POST, "/sobjects/Account/", Some(r#"{"Name":"Big","Credit_Limit__c":9007199254740993.01,"AnnualRevenue":10.005}"#))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = text(&made.json(), "id").to_owned();
    assert!(made.headers["location"].to_str().unwrap().ends_with(&id));
    let read = org.get(&format!("/sobjects/Account/{id}?fields=Credit_Limit__c,AnnualRevenue")).await;
    assert!(read.text.contains("\"Credit_Limit__c\":9007199254740993.01"), "{}", read.text);
    assert!(read.text.contains("\"AnnualRevenue\":10.01"), "{}", read.text);
    for row in org.rows("SELECT AnnualRevenue FROM Account WHERE AnnualRevenue > 9007199254740992").await {
        let Some(Value::Number(amount)) = row.get("AnnualRevenue") else { panic!("{row}") };
        assert!(BigDecimal::from_str(amount).is_ok());
    }
}

#[tokio::test]
async fn an_upsert_creates_once_then_updates_and_a_repeat_is_logged_as_unchanged() {
    let org = Org::start(small()).await;
    let path = "/sobjects/Account/Fairlead_Id__c/a%2Fb%201";
    let first = org.call(Method::PATCH, path, Some(r#"{"Name":"  Acme  ","Phone":""}"#)).await;
    assert_eq!((first.status, first.json().get("created")), (201, Some(&Value::Bool(true))));
    let second = org.call(Method::PATCH, path, Some(r#"{"Name":"Acme"}"#)).await;
    assert_eq!((second.status, second.json().get("created")), (200, Some(&Value::Bool(false))));
    let read = org.get(path).await.json();
    assert_eq!((text(&read, "Name"), text(&read, "Fairlead_Id__c")), ("Acme", "a/b 1"));
    assert_eq!(read.get("Phone"), Some(&Value::Null));

    let log = org.log().await;
    let outcomes: Vec<&str> = log.iter().map(|entry| text(entry, "outcome")).collect();
    assert_eq!(outcomes, ["created", "unchanged"]);
    assert!(log.iter().all(|entry| text(entry, "key") == text(&read, "Id") && text(entry, "externalId") == "a/b 1"));
    assert_eq!(log[0].get("values").map(ToString::to_string).as_deref(), Some(r#"{"Name":"  Acme  ","Phone":""}"#));
}

#[tokio::test]
async fn an_external_id_that_names_several_records_is_answered_with_their_addresses() {
    let org = Org::start(small()).await;
    for name in ["One", "Two"] {
        let body = format!(r#"{{"Name":"{name}","Tax_Number__c":"T-1"}}"#);
        assert_eq!(org.call(Method::POST, "/sobjects/Account", Some(&body)).await.status, 201);
    }
    let several = org.call(Method::PATCH, "/sobjects/Account/Tax_Number__c/T-1", Some(r#"{"Name":"Three"}"#)).await;
    assert_eq!((several.status, several.json().as_list().unwrap().len()), (300, 2));
}

#[tokio::test]
async fn a_collection_is_answered_in_order_and_each_record_for_itself() {
    let org = Org::start(small()).await;
    let body = r#"{"allOrNone":false,"records":[
        {"attributes":{"type":"Account"},"Fairlead_Id__c":"1","Name":"One","Segment__c":"Enterprise"},
        {"attributes":{"type":"Account"},"Fairlead_Id__c":"2","Name":""},
        {"attributes":{"type":"Account"},"Fairlead_Id__c":"3","Name":"Three","Segment__c":"Nope"},
        {"attributes":{"type":"Account"},"Fairlead_Id__c":"1","Name":"One again"},
        {"attributes":{"type":"Account"},"Name":"No key"},
        {"attributes":{"type":"Account"},"Fairlead_Id__c":"4","Name":"Four","Parent":{"Fairlead_Id__c":"1"}}]}"#;
    let answer = org.call(Method::PATCH, "/composite/sobjects/Account/Fairlead_Id__c", Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let codes: Vec<String> = answer
        .json()
        .as_list()
        .unwrap()
        .iter()
        .map(|item| match item.get("errors").and_then(Value::as_list).unwrap() {
            [] => "ok".to_owned(),
            [error, ..] => text(error, "statusCode").to_owned(),
        })
        .collect();
    let expected = ["ok", "REQUIRED_FIELD_MISSING", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "DUPLICATE_VALUE", "MISSING_ARGUMENT", "ok"];
    assert_eq!(codes, expected);
    assert_eq!(
        org.rows("SELECT Parent.Name FROM Account WHERE Fairlead_Id__c = '4'").await[0]
            .get("Parent")
            .map(|parent| text(parent, "Name").to_owned())
            .as_deref(),
        Some("One")
    );

    let all_or_none = body.replace("\"allOrNone\":false", "\"allOrNone\":true").replace("\"1\"", "\"11\"");
    let answer = org.call(Method::PATCH, "/composite/sobjects/Account/Fairlead_Id__c", Some(&all_or_none)).await;
    assert!(answer.text.contains("ALL_OR_NONE_OPERATION_ROLLED_BACK"));
    assert!(org.rows("SELECT Id FROM Account WHERE Fairlead_Id__c = '11'").await.is_empty());
    let rejected = org.log().await.iter().filter(|entry| text(entry, "outcome") == "rejected").count();
    assert_eq!(rejected, 4 + 6);

    let many = format!(r#"{{"records":[{}]}}"#, vec![r#"{"attributes":{"type":"Account"},"Name":"x"}"#; 201].join(","));
    assert_eq!(org.call(Method::POST, "/composite/sobjects", Some(&many)).await.code(), "EXCEEDED_ID_LIMIT");
}

#[tokio::test]
async fn data_that_breaks_a_rule_is_refused_and_changes_nothing() {
    let org = Org::start(small()).await;
    let row = org.rows("SELECT Id, ParentId FROM Account WHERE ParentId != null LIMIT 1").await.remove(0);
    let (id, parent) = (text(&row, "Id"), text(&row, "ParentId"));
    let before = org.get("/__fairlead/records/Account").await.text;
    for (target, body, code) in [
        (id, format!(r#"{{"Name":"{}"}}"#, "x".repeat(256)), "STRING_TOO_LONG"),
        (id, r#"{"Name":null}"#.to_owned(), "REQUIRED_FIELD_MISSING"),
        (id, r#"{"Nope":1}"#.to_owned(), "INVALID_FIELD"),
        (id, r#"{"CreatedDate":"2026-01-01T00:00:00Z"}"#.to_owned(), "INVALID_FIELD_FOR_INSERT_UPDATE"),
        (id, r#"{"Email__c":"nobody"}"#.to_owned(), "INVALID_EMAIL_ADDRESS"),
        (id, r#"{"Credit_Limit__c":1e17}"#.to_owned(), "NUMBER_OUTSIDE_VALID_RANGE"),
        (id, r#"{"ParentId":"001Hs00000ZZZZZ"}"#.to_owned(), "INVALID_CROSS_REFERENCE_KEY"),
        (id, r#"{"ParentId":"xyz"}"#.to_owned(), "MALFORMED_ID"),
        (parent, format!(r#"{{"ParentId":"{id}"}}"#), "CIRCULAR_DEPENDENCY"),
        (id, r#"{"BillingCountryCode":"XX"}"#.to_owned(), "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        (id, r#"{"BillingCountry":"Atlantis"}"#.to_owned(), "FIELD_INTEGRITY_EXCEPTION"),
        (id, "{".to_owned(), "JSON_PARSER_ERROR"),
        ("nope", "{}".to_owned(), "MALFORMED_ID"),
        ("001Hs00000ZZZZZ", "{}".to_owned(), "NOT_FOUND"),
    ] {
        let answer = org.call(Method::PATCH, &format!("/sobjects/Account/{target}"), Some(&body)).await;
        assert_eq!(answer.code(), code, "{body}: {}", answer.text);
    }
    assert_eq!(before, org.get("/__fairlead/records/Account").await.text);
    assert!(org.log().await.iter().all(|entry| text(entry, "outcome") == "rejected"));
}

#[tokio::test]
async fn a_deleted_account_takes_its_contacts_and_shows_in_query_all_and_in_the_feed() {
    let org = Org::start(small()).await;
    let rows = org.rows("SELECT Id, (SELECT Id FROM Contacts) FROM Account WHERE Id IN (SELECT AccountId FROM Contact)").await;
    let id = text(&rows[0], "Id");
    let contact = text(&rows[0].get("Contacts").unwrap().get("records").unwrap().as_list().unwrap()[0], "Id").to_owned();
    assert_eq!(org.call(Method::DELETE, &format!("/sobjects/Account/{id}"), None).await.status, 204);
    assert_eq!(org.get(&format!("/sobjects/Account/{id}")).await.code(), "ENTITY_IS_DELETED");
    assert_eq!(org.get(&format!("/sobjects/Contact/{contact}")).await.code(), "ENTITY_IS_DELETED");
    let all = org.get(&format!("/queryAll/?q=SELECT+Id,IsDeleted+FROM+Account+WHERE+Id='{id}'")).await.json();
    assert_eq!(all.get("records").unwrap().as_list().unwrap()[0].get("IsDeleted"), Some(&Value::Bool(true)));
    let feed = org.get("/sobjects/Account/deleted/?start=2020-01-01T00:00:00%2B00:00&end=2020-01-02T00:00:00%2B00:00").await;
    assert_eq!(feed.code(), "INVALID_REPLICATION_DATE");
    let now = chrono::Utc::now();
    let (from, to) = (
        (now - chrono::TimeDelta::minutes(5)).format("%Y-%m-%dT%H:%M:%SZ"),
        (now + chrono::TimeDelta::minutes(5)).format("%Y-%m-%dT%H:%M:%SZ"),
    );
    let feed = org.get(&format!("/sobjects/Account/deleted/?start={from}&end={to}")).await;
    assert!(feed.text.contains(id), "{}", feed.text);
}

#[tokio::test]
async fn a_session_that_ended_is_answered_with_an_array_and_a_new_one_works() {
    let mut org = Org::start(small()).await;
    org.faults("rules: [{match: {pathContains: /query}, fault: tokenExpiry}]").await;
    let answer = org.query("SELECT Id FROM Account").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "INVALID_SESSION_ID"));
    org.sign_in().await;
    assert_eq!(org.query("SELECT Id FROM Account").await.status, 200);
}

#[tokio::test]
async fn a_signed_assertion_gives_a_session_and_a_wrong_one_an_error_object() {
    let org = Org::start(small()).await;
    let secret = org.simulator.credentials();
    let exchange = async |audience: &str, subject: &str| {
        let claims =
            serde_json::json!({"iss": secret["clientId"], "sub": subject, "aud": audience, "exp": chrono::Utc::now().timestamp() + 180});
        let key = jsonwebtoken::EncodingKey::from_rsa_pem(secret["privateKey"].as_bytes()).unwrap();
        let assertion = jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256), &claims, &key).unwrap();
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
        let answer = org.http.post(format!("{}/services/oauth2/token/", org.simulator.endpoint())).form(&form).send().await.unwrap();
        (answer.status().as_u16(), String::from_utf8(common::body(answer).await).unwrap())
    };
    assert_eq!(exchange("https://login.salesforce.com", &secret["username"]).await.0, 200);
    let (status, body) = exchange("https://evil.example", &secret["username"]).await;
    assert_eq!((status, body.as_str()), (400, r#"{"error":"invalid_grant","error_description":"audience is invalid"}"#));
    assert_eq!(exchange("https://login.salesforce.com", "someone@else.example").await.0, 400);
}

#[tokio::test]
async fn a_timeout_after_the_effect_leaves_the_record_and_a_log_line_that_nobody_was_answered() {
    let org = Org::start(small()).await;
    org.faults("rules: [{match: {operation: write, entity: account}, fault: timeoutAfterEffect, millis: 10}]").await;
    let path = "/sobjects/Account/Fairlead_Id__c/t1";
    assert!(org.try_call(Method::PATCH, path, Some(r#"{"Name":"Lost answer"}"#)).await.is_err());
    let log = org.log().await;
    assert_eq!((text(&log[0], "outcome"), log[0].get("answered")), ("created", Some(&Value::Bool(false))));
    assert_eq!(text(&org.get(path).await.json(), "Name"), "Lost answer");

    org.faults("rules: [{match: {operation: write}, fault: timeoutBeforeEffect, millis: 10}]").await;
    assert!(org.try_call(Method::PATCH, "/sobjects/Account/Fairlead_Id__c/t2", Some(r#"{"Name":"Never"}"#)).await.is_err());
    assert_eq!(org.get("/sobjects/Account/Fairlead_Id__c/t2").await.status, 404);
    assert_eq!(text(&org.log().await[1], "outcome"), "rejected");
}

#[tokio::test]
async fn faults_speak_the_vendors_language_in_the_order_of_the_script() {
    let org = Org::start(small()).await;
    org.faults(
        "rules:
        - {match: {operation: read}, fault: limit, times: 1}
        - {match: {operation: read}, fault: status, status: 503}
        - {match: {operation: read}, fault: maintenancePage}
        - {match: {operation: read}, fault: maintenancePage, status: 503}
        - {match: {operation: read}, fault: outage}
        - {match: {operation: read}, fault: slowDrip, millis: 200}",
    )
    .await;
    let limit = org.query("SELECT Id FROM Account").await;
    assert_eq!((limit.status, limit.code().as_str()), (403, "REQUEST_LIMIT_EXCEEDED"));
    let busy = org.query("SELECT Id FROM Account").await;
    assert_eq!((busy.status, busy.code().as_str()), (503, "SERVER_UNAVAILABLE"));
    for status in [200, 503] {
        let page = org.query("SELECT Id FROM Account").await;
        assert_eq!(page.status, status);
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html") && page.text.starts_with("<!DOCTYPE"));
    }
    assert!(org.try_call(Method::GET, "/limits", None).await.is_err());
    let dripped = org.query("SELECT Id FROM Account").await;
    assert_eq!(dripped.json().get("totalSize"), Some(&Value::int(300)));
    assert_eq!(org.query("SELECT Id FROM Account").await.status, 200);
    let counters = org.get("/__fairlead/requests").await.json();
    assert_eq!(counters.get("faultsFired").map(ToString::to_string).as_deref(), Some("[1,1,1,1,1,1]"));
    let query = counters.get("byKind").unwrap().get("query").unwrap().to_string();
    assert_eq!(query, r#"{"200":3,"403":1,"503":2}"#);
}

#[tokio::test]
async fn some_records_of_a_batch_fail_and_the_others_stand() {
    let org = Org::start(small()).await;
    org.faults("rules: [{match: {operation: write}, fault: partialBatchFailure, items: [1]}]").await;
    let record = |id: &str| format!(r#"{{"attributes":{{"type":"Account"}},"Fairlead_Id__c":"{id}","Name":"N{id}"}}"#);
    let body = format!(r#"{{"records":[{},{},{}]}}"#, record("a"), record("b"), record("c"));
    let answer = org.call(Method::PATCH, "/composite/sobjects/Account/Fairlead_Id__c/", Some(&body)).await.json();
    let items = answer.as_list().unwrap();
    assert_eq!(items.iter().map(|item| item.get("success").and_then(Value::as_bool).unwrap()).collect::<Vec<_>>(), [true, false, true]);
    assert!(items[1].to_string().contains("UNABLE_TO_LOCK_ROW"));
    assert_eq!(org.rows("SELECT Id FROM Account WHERE Fairlead_Id__c IN ('a','b','c')").await.len(), 2);
}

#[tokio::test]
async fn a_stale_read_does_not_know_what_just_happened() {
    let org = Org::start(small()).await;
    let id = text(&org.rows("SELECT Id FROM Account LIMIT 1").await[0], "Id").to_owned();
    let name = async || text(&org.rows(&format!("SELECT Name FROM Account WHERE Id = '{id}'")).await[0], "Name").to_owned();
    let before = name().await;
    assert_eq!(org.call(Method::PATCH, &format!("/sobjects/Account/{id}"), Some(r#"{"Name":"New"}"#)).await.status, 204);
    org.faults("rules: [{match: {operation: read}, fault: staleRead, millis: 60000}]").await;
    assert_eq!(name().await, before);
    assert_eq!(name().await, "New");
}

#[tokio::test]
async fn a_person_edits_creates_and_deletes_under_the_same_rules() {
    let org = Org::start(small()).await;
    let row = org.rows("SELECT Id, SystemModstamp FROM Account LIMIT 1").await.remove(0);
    let id = text(&row, "Id");
    let edited = org
        .call(Method::POST, "/__fairlead/edit", Some(&format!(r#"{{"entity":"Account","id":"{id}","values":{{"Phone":"+1 2"}}}}"#)))
        .await;
    assert_eq!((edited.status, text(&edited.json(), "Phone")), (200, "+1 2"));
    assert_ne!(text(&edited.json(), "SystemModstamp"), text(&row, "SystemModstamp"));
    let wrong =
        org.call(Method::POST, "/__fairlead/edit", Some(&format!(r#"{{"entity":"Account","id":"{id}","values":{{"Name":""}}}}"#))).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("REQUIRED_FIELD_MISSING"), "{}", wrong.text);
    let made = org.call(Method::POST, "/__fairlead/create", Some(r#"{"entity":"Account","values":{"Name":"By hand"}}"#)).await.json();
    let gone = org.call(Method::POST, "/__fairlead/delete", Some(&format!(r#"{{"entity":"Account","id":"{}"}}"#, text(&made, "Id")))).await;
    assert_eq!(gone.status, 200);
    let log = org.get("/__fairlead/log?since=1").await.json();
    let told: Vec<(&str, &str)> = log.as_list().unwrap().iter().map(|entry| (text(entry, "operation"), text(entry, "outcome"))).collect();
    assert_eq!(told, [("edit", "rejected"), ("create", "created"), ("delete", "deleted")]);
    assert!(log.as_list().unwrap().iter().all(|entry| text(entry, "origin") == "person"));
}

#[tokio::test]
async fn a_long_transaction_is_seen_after_changes_with_later_stamps() {
    let org = Org::start(small()).await;
    let rows = org.rows("SELECT Id FROM Account LIMIT 2").await;
    let edit = async |row: &Value, more: &str| {
        let body = format!(r#"{{"entity":"Account","id":"{}","values":{{"Phone":"1"}}{more}}}"#, text(row, "Id"));
        text(&org.call(Method::POST, "/__fairlead/edit", Some(&body)).await.json(), "SystemModstamp").to_owned()
    };
    let first = edit(&rows[0], "").await;
    let second = edit(&rows[1], r#","secondsAgo":90"#).await;
    assert!(second < first, "{second} {first}");
}

#[tokio::test]
async fn describe_tells_what_a_mapping_needs_to_know() {
    let org = Org::start(small()).await;
    let described = org.get("/sobjects/Account/describe/").await.json();
    let fields = described.get("fields").and_then(Value::as_list).unwrap();
    let field = |name: &str| fields.iter().find(|field| text(field, "name") == name).unwrap();
    let facts = |name: &str, keys: &[&str]| -> Vec<String> { keys.iter().map(|key| field(name).get(key).unwrap().to_string()).collect() };
    assert_eq!(facts("Fairlead_Id__c", &["externalId", "unique", "idLookup", "custom", "length"]), ["true", "true", "true", "true", "64"]);
    assert_eq!(facts("Credit_Limit__c", &["type", "precision", "scale", "nillable"]), ["\"currency\"", "18", "2", "true"]);
    assert_eq!(facts("ParentId", &["type", "referenceTo", "relationshipName"]), ["\"reference\"", "[\"Account\"]", "\"Parent\""]);
    assert_eq!(facts("Segment__c", &["restrictedPicklist"]), ["true"]);
    assert_eq!(facts("SystemModstamp", &["createable", "updateable"]), ["false", "false"]);
    let names: Vec<&str> = fields.iter().map(|field| text(field, "name")).filter(|name| *name != "BillingAddress").collect();
    let all = org.query(&format!("SELECT {} FROM Account LIMIT 1", names.join(","))).await;
    assert_eq!(all.status, 200, "{}", all.text);
}

#[tokio::test]
async fn a_wrong_fault_script_is_refused_with_the_place() {
    let org = Org::start(small()).await;
    let wrong = org.call(Method::POST, "/__fairlead/faults", Some("rules: [{fault: explode}]")).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("explode"), "{}", wrong.text);
    let typo = org.call(Method::POST, "/__fairlead/faults", Some("rules: [{match: {methud: GET}, fault: limit}]")).await;
    assert!(typo.status == 400 && typo.text.contains("methud"), "{}", typo.text);
}

#[tokio::test]
async fn a_stopped_simulator_gives_its_port_back() {
    let org = Org::start(small()).await;
    let address = org.simulator.addr();
    org.simulator.stop().await;
    let again = Simulator::start(Options { listen: address, ..small() }).await.unwrap();
    assert_eq!(again.announcement()["system"], "salesforce");
}
