//! `create` and `update`.

use crate::support::*;
use fairlead_contract::Violation;
use fairlead_gateway::{BackendError, Options};
use fairlead_model::route::{Idempotency, OperationKind, RouteUnit};
use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn pointers(got: &Got) -> Vec<(String, String)> {
    let errors = got.json()["errors"].as_array().unwrap().clone();
    errors.iter().map(|error| (error["pointer"].as_str().unwrap().to_owned(), error["detail"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_record_is_created_in_canonical_spelling_and_can_be_read_where_it_is_said_to_be() {
    let world = World::new().await;
    let got = Got::of(world.post(&json!({"name": "ACME", "revenue": "1.50", "contacts": [{"email": "a@b.example"}]}))).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.json()["data"]["revenue"], "1.5");
    let read = world.get(got.header("location")).await;
    assert_eq!((read.text.as_str(), read.header("etag")), (got.text.as_str(), got.header("etag")));
}

#[tokio::test]
async fn a_body_that_breaks_the_contract_is_refused_with_every_place() {
    let world = World::new().await;
    let body = json!({"revenue": "1,5", "employees": -1, "unknown": 1, "address": {"country": "germany", "door": "9"}, "contacts": [{}, {"email": "x"}]});
    let got = Got::of(world.post(&body)).await;
    assert_eq!(got.problem(), is(400, "invalid-body"));
    let at: Vec<String> = pointers(&got).into_iter().map(|(pointer, _)| pointer).collect();
    for place in [
        "/data/name",
        "/data/revenue",
        "/data/employees",
        "/data/unknown",
        "/data/address/country",
        "/data/address/door",
        "/data/contacts/1/email",
    ] {
        assert!(at.iter().any(|at| at == place), "{place} is not in {at:?}");
    }
    assert_eq!(world.records.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn undeclared_fields_do_not_enter_even_where_the_schema_is_open() {
    let world =
        World::serving(vec![changed(unit("customer"), |unit| Arc::make_mut(&mut unit.schema)["additionalProperties"] = json!(true))]).await;
    let got = Got::of(world.post(&json!({"name": "n", "admin": true}))).await;
    assert_eq!(pointers(&got), [("/data/admin".to_owned(), "is no field of the contract".to_owned())]);
}

#[tokio::test]
async fn a_body_that_is_no_strict_json_envelope_is_refused() {
    let world = World::new().await;
    for (body, pointer) in [
        ("", ""),
        ("[]", ""),
        ("{}", "/data"),
        (r#"{"data":[]}"#, "/data"),
        (r#"{"data":{"name":"n"},"id":"x"}"#, "/id"),
        (r#"{"data":{"name":"a","name":"b"}}"#, "/data/name"),
        (r#"{"data":{"name":"n","employees":1.0}}"#, "/data/employees"),
        (r#"{"data":{"name":"n","revenue":1.5}}"#, "/data/revenue"),
    ] {
        let got = Got::of(world.request(Method::POST, PATH).header("content-type", "application/json").body(body)).await;
        assert_eq!(got.problem(), is(400, "invalid-body"), "{body}");
        assert_eq!(pointers(&got)[0].0, pointer, "{body}");
    }
    let deep = format!(r#"{{"data":{{"name":{}"#, "[".repeat(1000));
    let got = Got::of(world.request(Method::POST, PATH).header("content-type", "application/json").body(deep)).await;
    assert!(pointers(&got)[0].1.contains("deeper"), "{got:?}");
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused_with_the_kinds_that_are_taken() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "n"}));
    for (content_type, encoding) in
        [("text/plain", "identity"), ("application/json; charset=latin1", "identity"), ("application/json", "gzip")]
    {
        let post = world.request(Method::POST, PATH).header("content-type", content_type).header("content-encoding", encoding).body("{}");
        let got = Got::of(post).await;
        assert_eq!((got.problem(), got.header("accept-post")), (is(415, "unsupported-media-type"), "application/json"));
    }
    let patch = world.request(Method::PATCH, &format!("{PATH}/{id}")).header("content-type", "application/json-patch+json").body("{}");
    assert_eq!(Got::of(patch).await.header("accept-patch"), "application/merge-patch+json, application/json");
    let good = world.request(Method::POST, PATH).header("content-type", "Application/JSON; charset=UTF-8").body(r#"{"data":{"name":"n"}}"#);
    assert_eq!(Got::of(good).await.status, 201);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length() {
    let options = Options { max_body: 1000, ..Options::new([7; 32]) };
    let world = World::with(vec![unit("customer")], Setting { options, ..Setting::default() }).await;
    let body = json!({"data": {"name": "x".repeat(1000)}}).to_string();
    let post = || world.request(Method::POST, PATH).header("content-type", "application/json");
    assert_eq!(Got::of(post().body(body.clone())).await.problem(), is(413, "body-too-large"));
    let stream =
        futures::stream::iter(body.into_bytes().chunks(100).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>());
    assert_eq!(Got::of(post().body(reqwest::Body::wrap_stream(stream))).await.problem(), is(413, "body-too-large"));
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_leaves_the_rest() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME", "revenue": "2", "address": {"country": "DE"}}));
    let got = Got::of(world.patch(id, &json!({"revenue": null, "employees": 5, "address": {"country": "FR"}}))).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json(), json!({"id": id, "version": 2, "data": {"name": "ACME", "employees": 5, "address": {"country": "FR"}}}));
    let got = Got::of(world.patch(id, &json!({"name": null, "address": {"country": "x"}}))).await;
    let at: Vec<String> = pointers(&got).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(at, ["/data/address/country", "/data/name"]);
}

#[tokio::test]
async fn a_patch_need_not_mend_what_it_does_not_touch() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME", "address": {"country": "not in the pattern"}}));
    assert_eq!(Got::of(world.patch(id, &json!({"employees": 5}))).await.status, 200);
}

#[tokio::test]
async fn a_change_of_another_version_than_the_named_one_is_refused() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    let tag = world.get(&format!("{PATH}/{id}")).await.header("etag").to_owned();
    let patch = |tag: &str| Got::of(world.patch(id, &json!({"employees": 5})).header("if-match", tag));
    assert_eq!(patch("\"other\"").await.problem(), is(412, "changed"));
    assert_eq!(patch(&format!("W/{tag}")).await.problem(), is(412, "changed"));
    let done = patch(&tag).await;
    assert_eq!(done.status, 200);
    assert_eq!(patch(&tag).await.problem(), is(412, "changed"));
    assert_eq!(patch(done.header("etag")).await.status, 200);
    assert_eq!(patch("*").await.status, 200);
}

#[tokio::test]
async fn a_change_that_is_overtaken_is_computed_anew_unless_a_version_was_named() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    world.records.gate.forget_permits(usize::MAX);
    let patch = tokio::spawn(Got::of(world.patch(id, &json!({"employees": 5}))));
    world.records.begun(1).await;
    world.records.gate.add_permits(1);
    world.records.begun(2).await;
    world.records.records.lock().unwrap().get_mut(&id).unwrap().version = 7;
    world.records.gate.add_permits(100);
    let got = patch.await.unwrap();
    assert_eq!((got.status.as_u16(), &got.json()["version"]), (200, &json!(8)));
}

#[tokio::test]
async fn a_key_may_be_demanded() {
    let world = World::serving(vec![changed(unit("customer"), |unit| {
        unit.operations.get_mut(&OperationKind::Create).unwrap().idempotency = Idempotency::Required;
    })])
    .await;
    assert_eq!(Got::of(world.post(&json!({"name": "n"}))).await.problem(), is(400, "idempotency-key-missing"));
    assert_eq!(Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", "a b")).await.problem(), is(400, "invalid-header"));
    assert_eq!(Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", "\"k-1\"")).await.status, 201);
    assert_eq!(world.records.calls.lock().unwrap()[0].idempotency_key.as_deref(), Some("k-1"));
}

#[tokio::test]
async fn the_same_write_again_gets_the_same_answer_and_is_not_done_again() {
    let world = World::new().await;
    let write = |data: Value| Got::of(world.post(&data).header("idempotency-key", "k-1"));
    let first = write(json!({"name": "n", "revenue": "1.0"})).await;
    let again = write(json!({"revenue": "1", "name": "n"})).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for header in ["etag", "location", "content-type"] {
        assert_eq!(again.header(header), first.header(header));
    }
    assert!(first.headers.get("idempotency-replayed").is_none());
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(world.records.writes.load(Ordering::SeqCst), 1);
    assert_eq!(write(json!({"name": "other"})).await.problem(), is(422, "idempotency-key-reused"));
    let other = world.token_with(|claims| claims["client_id"] = json!("other"));
    let theirs = world.post(&json!({"name": "other"})).header("idempotency-key", "k-1");
    let (client, request) = theirs.build_split();
    let mut request = request.unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {other}").parse().unwrap());
    assert_eq!(client.execute(request).await.unwrap().status(), 201, "a key is its consumer's own");
}

#[tokio::test]
async fn a_change_that_was_made_is_replayed_although_its_condition_holds_no_longer() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    let tag = world.get(&format!("{PATH}/{id}")).await.header("etag").to_owned();
    let patch = || Got::of(world.patch(id, &json!({"employees": 5})).header("if-match", &tag).header("idempotency-key", "k"));
    let first = patch().await;
    let again = patch().await;
    assert_eq!((again.status.as_u16(), &again.text), (200, &first.text));
}

#[tokio::test]
async fn while_the_first_write_runs_a_second_one_is_told_so() {
    let world = World::new().await;
    world.records.gate.forget_permits(usize::MAX);
    let write = || Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", "k"));
    let first = tokio::spawn(write());
    world.records.begun(1).await;
    assert_eq!(write().await.problem(), is(409, "idempotency-key-running"));
    world.records.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, 201);
}

#[tokio::test]
async fn a_write_whose_caller_hangs_up_is_finished_and_its_answer_kept() {
    let world = World::new().await;
    world.records.gate.forget_permits(usize::MAX);
    let write = || Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", "k"));
    let first = tokio::spawn(write());
    world.records.begun(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.records.gate.add_permits(100);
    let again = loop {
        let again = write().await;
        if again.status != 409 {
            break again;
        }
    };
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
    assert_eq!(world.records.writes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_may_come_out_otherwise_later_may_be_tried_again_and_what_may_not_is_final() {
    let world = World::new().await;
    let write = |key: &'static str| Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", key));
    let violations = vec![Violation { path: "name".into(), pointer: "/name".into(), message: "is taken".into() }];
    let not_yet = BackendError::Conflict {
        detail: "it refers to another record".into(),
        violations: violations.clone(),
        retry_after: Some(Duration::from_secs(2)),
    };
    for (key, error, status) in [
        ("1", BackendError::Throttled { retry_after: None }, 503),
        ("2", BackendError::Timeout { sent: false }, 504),
        // The same write again finds out what became of the first: the backend makes nothing twice under one key.
        ("3", BackendError::Timeout { sent: true }, 504),
        ("4", BackendError::Unavailable { detail: "away".into(), retry_after: None }, 503),
        ("5", BackendError::Internal("broken".into()), 500),
        ("6", BackendError::Conflict { detail: "the key is taken".into(), violations: Vec::new(), retry_after: None }, 409),
        ("7", not_yet, 409),
    ] {
        world.records.fail_next(error);
        let first = write(key).await;
        assert_eq!(first.status, status, "{first:?}");
        if key == "7" {
            assert_eq!((first.header("retry-after"), &pointers(&first)[0].0), ("2", &"/data/name".to_owned()));
        }
        let again = write(key).await;
        assert_eq!((again.status.as_u16(), again.headers.get("idempotency-replayed")), (201, None), "{key}");
    }
    for (key, error) in [("8", BackendError::Rejected { detail: "duplicate rule".into(), violations }), ("9", BackendError::NoTarget)] {
        world.records.fail_next(error);
        let (first, again) = (write(key).await, write(key).await);
        assert_eq!((first.problem(), &first.text, "true"), (again.problem(), &again.text, again.header("idempotency-replayed")));
    }
    assert_eq!(world.records.writes.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn a_contradiction_is_told_once_and_not_sent_again() {
    let world = World::new().await;
    world.records.fail_next(BackendError::Conflict { detail: "a duplicate".into(), violations: Vec::new(), retry_after: None });
    assert_eq!(Got::of(world.post(&json!({"name": "n"}))).await.problem(), is(409, "conflict"));
    assert_eq!(world.records.calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_whose_write_has_an_open_outcome_takes_no_other_request() {
    let world = World::new().await;
    let write = |name: &'static str| Got::of(world.post(&json!({"name": name})).header("idempotency-key", "k"));
    world.records.fail_next(BackendError::Timeout { sent: true });
    assert_eq!(write("A").await.problem(), is(504, "timeout"));
    assert_eq!(write("B").await.problem(), is(422, "idempotency-key-reused"));
    let again = write("A").await;
    assert_eq!((again.status.as_u16(), &again.json()["data"]["name"]), (201, &json!("A")));
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_meets_its_own_work_under_the_same_condition() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    let tag = world.get(&format!("{PATH}/{id}")).await.header("etag").to_owned();
    let patch = |key: &'static str, employees: u32| {
        Got::of(world.patch(id, &json!({"employees": employees})).header("if-match", &tag).header("idempotency-key", key))
    };
    world.records.fail_next(BackendError::Timeout { sent: true });
    assert_eq!(patch("k", 5).await.problem(), is(504, "timeout"));
    // It took effect there, and its reader brought it in.
    if let Some(record) = world.records.records.lock().unwrap().get_mut(&id) {
        record.version = 2;
        record.document.insert("employees".into(), json!(5));
    }
    let again = patch("k", 5).await;
    assert_eq!((again.status.as_u16(), &again.json()["version"]), (200, &json!(2)));
    assert_eq!(world.records.writes.load(Ordering::SeqCst), 0, "nothing was left to do");
    assert_eq!(patch("other", 6).await.problem(), is(412, "changed"));
}

#[tokio::test]
async fn a_write_that_outlasts_its_caller_holds_its_key_until_its_end() {
    let world = World::serving(vec![changed(unit("customer"), |unit| {
        unit.operations.values_mut().for_each(|operation| operation.timeout = Duration::from_millis(50));
    })])
    .await;
    world.records.gate.forget_permits(usize::MAX);
    let write = || Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", "k"));
    let got = write().await;
    assert_eq!(got.problem(), is(504, "timeout"));
    assert!(got.json()["detail"].as_str().unwrap().contains("the outcome is not known"), "{got:?}");
    assert_eq!(write().await.problem(), is(409, "idempotency-key-running"));
    world.records.gate.add_permits(100);
    let again = loop {
        let again = write().await;
        if again.status != 409 {
            break again;
        }
    };
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
    assert_eq!(world.records.writes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_may_only_write_is_told_nothing_of_what_a_record_holds() {
    let writer = |claims: &mut Value| claims["scope"] = json!("customers.write");
    let by = |world: &World, request: reqwest::RequestBuilder, change: &dyn Fn(&mut Value)| {
        let (client, request) = request.build_split();
        let mut request = request.unwrap();
        let token = world.token_with(|claims| change(claims));
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        Got::of(reqwest::RequestBuilder::from_parts(client, request))
    };
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME", "revenue": "5"}));
    let got = by(&world, world.patch(id, &json!({})), &writer).await;
    assert_eq!((got.status.as_u16(), got.json()), (200, json!({"id": id, "version": 2})));
    assert!(got.headers.contains_key("etag"));
    // A kept answer is given to each token as it may read.
    let create = || world.post(&json!({"name": "n"})).header("idempotency-key", "k");
    let first = by(&world, create(), &writer).await;
    assert_eq!((first.status.as_u16(), first.json().get("data")), (201, None));
    let reader = Got::of(create()).await;
    assert_eq!((reader.header("idempotency-replayed"), &reader.json()["data"]["name"]), ("true", &json!("n")));
    assert_eq!(by(&world, create(), &writer).await.json().get("data"), None);
    // The same where the consumer is what may not, and where there is nothing to get.
    for change in [
        (|unit: &mut RouteUnit| {
            unit.consumers = vec![consumer("shop", "web-shop")];
            unit.consumers[0].operations = vec![OperationKind::List, OperationKind::Update];
        }) as fn(&mut RouteUnit),
        |unit| drop(unit.operations.remove(&OperationKind::Get)),
    ] {
        world.apply(vec![changed(unit("customer"), change)]).await;
        let got = Got::of(world.patch(id, &json!({}))).await;
        assert_eq!((got.status.as_u16(), got.json().get("data")), (200, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Rejected values are personal data more often than not, and answers end up in logs.
    #[test]
    fn no_rejected_value_is_ever_echoed(marks in proptest::collection::vec("[a-z]{12}", 6), number in 10_000_000_000i64..99_999_999_999) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(World::new().await);
            let canary = |index: usize| format!("canary-{}", marks[index]);
            let id = world.records.put(json!({"name": "n"}));
            let wrong = json!({
                "name": [canary(0)], "status": canary(1), "revenue": canary(2), "employees": -number,
                "address": {"country": canary(3)}, "contacts": [{"email": canary(4)}, canary(5)], "key": canary(0),
            });
            let raw = [
                format!(r#"{{"data":{{"name":"{}","employees":{number}.5}}}}"#, canary(0)),
                format!(r#"{{"data":{{"name":"{0}","name":"{0}"}}}}"#, canary(1)),
                format!(r#"{{"data":{{"name":"{}""#, canary(2)),
                format!(r#"{{"data":"{}"}}"#, canary(3)),
                format!(r#""{}""#, canary(4)),
            ];
            let mut answers = vec![Got::of(world.post(&wrong)).await, Got::of(world.patch(id, &wrong)).await];
            for body in raw {
                answers.push(Got::of(world.request(Method::POST, PATH).header("content-type", "application/json").body(body)).await);
            }
            for query in ["status", "employees", "key", "revenue", "limit", "pageToken", "name"] {
                answers.push(world.get(&format!("{PATH}?{query}={}", canary(0))).await);
            }
            answers.push(Got::of(world.post(&json!({"name": "n"})).header("idempotency-key", format!("{} {}", canary(0), canary(1)))).await);
            answers.push(Got::of(world.request(Method::POST, PATH).header("content-type", canary(0)).body("{}")).await);
            answers.push(world.get_with(&canary(0)).await);
            for got in answers {
                assert!(got.status.is_client_error(), "{got:?}");
                assert!(!got.text.contains("canary"), "{}", got.text);
                assert!(!got.text.contains(&number.to_string()), "{}", got.text);
                assert!(!format!("{:?}", got.headers).contains("canary"), "{:?}", got.headers);
            }
        });
    }
}
