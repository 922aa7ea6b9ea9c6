//! `list` and `get`, and what every request has in common.

use crate::support::*;
use fairlead_gateway::BackendError;
use fairlead_model::RecordId;
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_record_is_given_in_its_envelope_with_declared_fields_only() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME", "revenue": "1.5", "secret": 7, "address": {"country": "DE", "door": "9"}}));
    let got = world.get(&format!("{PATH}/{id}")).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("cache-control"), "private, no-cache");
    assert_eq!(got.json(), json!({"id": id, "version": 1, "data": {"name": "ACME", "revenue": "1.5", "address": {"country": "DE"}}}));
}

#[tokio::test]
async fn an_unchanged_record_is_not_sent_again() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    let path = format!("{PATH}/{id}");
    let tag = world.get(&path).await.header("etag").to_owned();
    assert!(tag.starts_with('"'), "strong: {tag}");
    let conditional = || Got::of(world.request(Method::GET, &path).header("if-none-match", format!("\"other\", W/{tag}")));
    let same = conditional().await;
    assert_eq!((same.status.as_u16(), same.text.as_str(), same.header("etag")), (304, "", tag.as_str()));
    world.records.records.lock().unwrap().get_mut(&id).unwrap().version = 2;
    assert_eq!(conditional().await.status, 200);
}

#[tokio::test]
async fn a_record_under_another_contract_digest_has_another_tag() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    let path = format!("{PATH}/{id}");
    let before = world.get(&path).await.header("etag").to_owned();
    world.apply(vec![changed(unit("customer"), |unit| unit.version = "1.4.1".into())]).await;
    assert_ne!(world.get(&path).await.header("etag"), before);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_was_there_is_gone() {
    let world = World::new().await;
    for path in [
        format!("{PATH}/{}", RecordId(uuid::Uuid::new_v4())),
        format!("{PATH}/no-id"),
        format!("{PATH}/a/b"),
        "/".into(),
        "/sales".into(),
        "/sales/customer/v2".into(),
    ] {
        assert_eq!(world.get(&path).await.problem(), is(404, "not-found"), "{path}");
    }
    world.records.fail_next(BackendError::Gone);
    let id = world.records.put(json!({"name": "ACME"}));
    assert_eq!(world.get(&format!("{PATH}/{id}")).await.problem(), is(410, "gone"));
}

#[tokio::test]
async fn pages_follow_each_other_until_the_last() {
    let world = World::new().await;
    for index in 0..5 {
        world.records.put(json!({"name": format!("c{index}")}));
    }
    let mut names = vec![];
    let mut path = format!("{PATH}?limit=2");
    loop {
        let page = world.get(&path).await.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["data"]["name"].as_str().unwrap().to_owned()));
        let Some(token) = page["nextPageToken"].as_str() else { break };
        path = format!("{PATH}?limit=2&pageToken={token}");
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_list_only() {
    let world = World::new().await;
    for _ in 0..3 {
        world.records.put(json!({"name": "n", "status": "active"}));
    }
    let token = world.get(&format!("{PATH}?limit=1")).await.json()["nextPageToken"].as_str().unwrap().to_owned();
    for path in [format!("{PATH}?status=active&pageToken={token}"), format!("{PATH}?pageToken=x{token}"), format!("{PATH}?pageToken=")] {
        let got = world.get(&path).await;
        assert_eq!(got.problem(), is(400, "invalid-parameter"), "{path}");
        assert_eq!(got.json()["errors"][0]["parameter"], "pageToken");
        assert!(!got.text.contains(&token));
    }
}

#[tokio::test]
async fn declared_filters_choose_by_type_and_others_are_named() {
    let world = World::new().await;
    world
        .records
        .put(json!({"name": "a", "status": "active", "revenue": "1.5", "employees": 7, "key": true, "address": {"country": "DE"}}));
    world.records.put(json!({"name": "b", "status": "closed", "revenue": "2", "employees": 8, "key": false, "address": {"country": "FR"}}));
    for query in ["status=active", "revenue=1.50", "employees=7", "key=true", "address.country=DE", "status=active&key=true"] {
        let page = world.get(&format!("{PATH}?{query}")).await.json();
        assert_eq!((page["items"].as_array().unwrap().len(), &page["items"][0]["data"]["name"]), (1, &json!("a")), "{query}");
    }
    for (query, parameter) in [
        ("name=a", "name"),
        ("contacts[].email=x", "contacts[].email"),
        ("status=canary", "status"),
        ("employees=canary", "employees"),
        ("key=canary", "key"),
        ("revenue=canary", "revenue"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1&limit=2", "limit"),
    ] {
        let got = world.get(&format!("{PATH}?{query}")).await;
        assert_eq!(got.problem(), is(400, "invalid-parameter"), "{query}");
        assert_eq!(got.json()["errors"][0]["parameter"], parameter, "{query}");
        assert!(!got.text.contains("canary"), "{}", got.text);
    }
}

#[tokio::test]
async fn a_method_that_is_not_offered_is_answered_with_those_that_are() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    for (method, path, allow) in
        [(Method::DELETE, PATH.to_owned(), "GET, HEAD, POST, OPTIONS"), (Method::PUT, format!("{PATH}/{id}"), "GET, HEAD, PATCH, OPTIONS")]
    {
        let got = Got::of(world.request(method, &path)).await;
        assert_eq!(got.problem(), is(405, "method-not-allowed"));
        assert_eq!(got.header("allow"), allow);
    }
    world.apply(vec![changed(unit("customer"), |unit| unit.operations.retain(|kind, _| kind.as_str() == "get"))]).await;
    let got = Got::of(world.post(&json!({"name": "n"}))).await;
    assert_eq!((got.problem(), got.header("allow")), (is(405, "method-not-allowed"), "OPTIONS"));
}

#[tokio::test]
async fn options_tells_the_methods_and_grants_no_cross_origin() {
    let world = World::new().await;
    let got = Got::of(world.client.request(Method::OPTIONS, world.url(PATH)).header("origin", "https://elsewhere.example")).await;
    assert_eq!((got.status.as_u16(), got.header("allow")), (204, "GET, HEAD, POST, OPTIONS"));
    assert!(!got.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{:?}", got.headers);
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let world = World::new().await;
    let id = world.records.put(json!({"name": "ACME"}));
    let path = format!("{PATH}/{id}");
    let (get, head) = (world.get(&path).await, Got::of(world.request(Method::HEAD, &path)).await);
    assert_eq!((head.status, head.text.as_str()), (get.status, ""));
    assert_eq!(head.header("content-length"), get.text.len().to_string());
    assert_eq!(head.header("etag"), get.header("etag"));
}

#[tokio::test]
async fn only_json_can_be_asked_for() {
    let world = World::new().await;
    let got = Got::of(world.request(Method::GET, PATH).header("accept", "text/html")).await;
    assert_eq!(got.problem(), is(406, "not-acceptable"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let world = World::serving(vec![changed(unit("customer"), |unit| {
        unit.operations.values_mut().for_each(|operation| operation.timeout = Duration::from_millis(50));
    })])
    .await;
    world.records.gate.forget_permits(usize::MAX);
    assert_eq!(world.get(PATH).await.problem(), is(504, "timeout"));
}

#[tokio::test]
async fn an_unavailable_backend_says_when_to_come_again_and_an_internal_failure_says_nothing() {
    let world = World::new().await;
    world.records.fail_next(BackendError::Unavailable { detail: "paused".into(), retry_after: Some(Duration::from_millis(1500)) });
    let got = world.get(PATH).await;
    assert_eq!((got.problem(), got.header("retry-after")), (is(503, "unavailable"), "2"));
    world.records.fail_next(BackendError::Internal("canary".into()));
    let got = world.get(PATH).await;
    assert_eq!(got.problem(), is(500, "internal"));
    assert!(!got.text.contains("canary"));
}

#[tokio::test]
async fn request_id_and_trace_go_through_to_the_backend() {
    let world = World::new().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = world
        .request(Method::GET, PATH)
        .header("x-request-id", "order-4711")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("tracestate", "vendor=1");
    let got = Got::of(request).await;
    assert_eq!(got.header("x-request-id"), "order-4711");
    let call = world.records.calls.lock().unwrap().pop().unwrap();
    assert_eq!((call.request_id.as_str(), call.trace.trace_id.as_str()), ("order-4711", trace));
    assert_eq!((call.trace.parent_id.as_deref(), call.trace.state.as_deref()), (Some("00f067aa0ba902b7"), Some("vendor=1")));
    assert!(call.trace.traceparent().starts_with(&format!("00-{trace}-")) && call.trace.sampled);
    let made = world.get(PATH).await.header("x-request-id").to_owned();
    assert!(uuid::Uuid::parse_str(&made).is_ok(), "{made}");
}

#[tokio::test]
async fn hosts_are_told_apart() {
    let world = World::serving(vec![changed(unit("customer"), |unit| unit.hostnames = vec!["api.acme.example".into()])]).await;
    let on = |host: &'static str| Got::of(world.request(Method::GET, PATH).header("host", host));
    assert_eq!(on("API.acme.example:8443").await.status, 200);
    assert_eq!(on("other.example").await.problem(), is(404, "not-found"));
}

#[tokio::test]
async fn requests_are_counted_by_contract_operation_and_class() {
    let world = World::new().await;
    world.get(PATH).await;
    world.get(&format!("{PATH}/no-id")).await;
    world.get("/nowhere").await;
    let mut registry = prometheus_client::registry::Registry::default();
    world.gateway.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"fairlead_gateway_requests_total{route="sales/customer",operation="list",class="2xx"} 1"#,
        r#"fairlead_gateway_requests_total{route="sales/customer",operation="get",class="4xx"} 1"#,
        r#"fairlead_gateway_requests_total{route="none",operation="none",class="4xx"} 1"#,
        "fairlead_gateway_requests_in_flight 0",
        r#"fairlead_gateway_request_duration_seconds_count{route="sales/customer",operation="list"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    world.apply(vec![]).await;
    text.clear();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(!text.contains("sales/customer"), "a contract that is gone keeps no series:\n{text}");
}
