//! What is told about the API itself. The OpenAPI document is judged by its content; no validator has read it yet.

use crate::support::*;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn every_contract_describes_itself_without_a_token() {
    let world = World::new().await;
    let url = world.url(&format!("{PATH}/openapi.json"));
    let got = Got::of(world.client.get(&url)).await;
    assert_eq!(got.header("content-type"), "application/openapi+json");
    let document = got.json();
    assert_eq!((&document["openapi"], &document["info"]["version"]), (&json!("3.1.0"), &json!("1.4.0")));
    let paths = &document["paths"];
    assert_eq!(paths[PATH]["get"]["security"], json!([{"accessToken": ["customers.read"]}]));
    let parameters: Vec<&str> =
        paths[PATH]["get"]["parameters"].as_array().unwrap().iter().filter_map(|parameter| parameter["name"].as_str()).collect();
    assert_eq!(parameters, ["limit", "pageToken", "address.country", "status", "revenue", "employees", "key"]);
    assert!(paths[format!("{PATH}/{{id}}")]["patch"]["requestBody"]["content"]["application/merge-patch+json"].is_object());
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["customer"]["properties"]["address"]["$ref"], "#/components/schemas/customer.Address");
    assert!(schemas["customer.Address"]["properties"]["country"].is_object());
    // Whoever may only write gets no data.
    assert_eq!(schemas["Written"]["required"], json!(["id", "version"]));
    assert_eq!(paths[PATH]["post"]["responses"]["201"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Written");
    let again = Got::of(world.client.get(&url).header("if-none-match", got.header("etag"))).await;
    assert_eq!(again.status, 304);
    assert_eq!(Got::of(world.client.post(&url)).await.problem(), is(405, "method-not-allowed"));
}

#[tokio::test]
async fn only_offered_operations_are_described() {
    let world = World::serving(vec![changed(unit("customer"), |unit| unit.operations.retain(|kind, _| kind.as_str() == "get"))]).await;
    let document = Got::of(world.client.get(world.url(&format!("{PATH}/openapi.json")))).await.json();
    assert!(document["paths"][PATH].is_null() && document["paths"][format!("{PATH}/{{id}}")]["patch"].is_null());
}

#[tokio::test]
async fn the_catalog_lists_what_is_served_on_a_host() {
    let hidden = changed(unit("hidden"), |unit| {
        unit.entity = "hidden".into();
        unit.hostnames = vec!["inside.example".into()];
    });
    let world = World::serving(vec![unit("customer"), hidden]).await;
    let url = world.url("/.well-known/api-catalog");
    let got = Got::of(world.client.get(&url)).await;
    assert_eq!(got.header("content-type"), "application/linkset+json; profile=\"https://www.rfc-editor.org/info/rfc9727\"");
    let base = world.url("");
    let entry = json!({
        "anchor": format!("{base}{PATH}"),
        "service-desc": [{"href": format!("{base}{PATH}/openapi.json"), "type": "application/openapi+json"}],
    });
    assert_eq!(got.json(), json!({"linkset": [entry]}));
    let inside = Got::of(world.client.get(&url).header("host", "inside.example")).await.json();
    assert_eq!(inside["linkset"].as_array().unwrap().len(), 2);
    assert_eq!(Got::of(world.client.request(Method::HEAD, &url)).await.status, 200);
}
