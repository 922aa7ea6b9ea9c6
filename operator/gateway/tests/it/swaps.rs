//! Units change while requests run.

use crate::support::*;
use fairlead_gateway::issuer::{DevelopmentIssuer, Grant};
use fairlead_model::route::{RejectedRoute, RouteUnit};
use fairlead_model::unit::ObjectKey;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

fn report(world: &World, name: &str) -> fairlead_model::route::RouteReport {
    world.gateway.reports().borrow()[&ObjectKey(format!("sales/{name}"))].clone()
}

#[tokio::test]
async fn a_digest_is_acknowledged_once_it_is_served() {
    let world = World::new().await;
    let first = report(&world, "customer").served.unwrap();
    assert_eq!((first.digest, first.version.as_str()), (unit("customer").digest, "1.4.0"));
    world.clock.advance(Duration::from_secs(5));
    world.apply(vec![unit("customer")]).await;
    assert_eq!(report(&world, "customer").served.unwrap().since, first.since, "the same digest is served since it was");
    let next = changed(unit("customer"), |unit| unit.version = "1.5.0".into());
    world.apply(vec![next.clone()]).await;
    let served = report(&world, "customer").served.unwrap();
    assert_eq!((served.digest, served.since.since(first.since)), (next.digest, Duration::from_secs(5)));
    world.apply(vec![]).await;
    assert!(world.gateway.reports().borrow().is_empty());
    assert_eq!(world.get(PATH).await.problem(), is(404, "not-found"));
}

#[tokio::test]
async fn before_the_first_units_nobody_is_told_that_there_is_nothing() {
    let world = World::started(Setting::default()).await;
    for path in [PATH, "/.well-known/api-catalog"] {
        let got = world.get(path).await;
        assert_eq!((got.problem(), got.header("retry-after")), (is(503, "unavailable"), "1"), "{path}");
    }
    world.apply(vec![]).await;
    assert_eq!(world.get(PATH).await.problem(), is(404, "not-found"), "no units are an answer");
}

#[tokio::test]
async fn whatever_entity_a_contract_may_have_is_served() {
    let names = ["salesOrder", "sales_order", "Sales.Order-2", "Record"];
    let named = |entity: &str| {
        changed(unit("customer"), |unit| {
            unit.object.name = entity.to_ascii_lowercase();
            unit.entity = entity.into();
        })
    };
    let world = World::serving(names.map(named).into()).await;
    for name in names {
        assert_eq!(world.get(&format!("/sales/{name}/v1")).await.status, 200, "{name}");
        let document = world.get(&format!("/sales/{name}/v1/openapi.json")).await.json();
        let data = document["components"]["schemas"]["Record"]["properties"]["data"]["$ref"].as_str().unwrap().to_owned();
        assert!(document.pointer(data.trim_start_matches('#')).unwrap()["properties"]["name"].is_object(), "{name}: {data}");
    }
    let bad = ["", ".", "..", "a/b", "a b", "ä"];
    let units =
        bad.iter().enumerate().map(|(number, entity)| changed(unit(&format!("bad-{number}")), |unit| unit.entity = (*entity).into()));
    world.apply(units.collect()).await;
    assert!(
        world
            .gateway
            .reports()
            .borrow()
            .values()
            .all(|report| report.rejected.as_ref().is_some_and(|rejected| rejected.message.contains("cannot stand in a path")))
    );
}

#[tokio::test]
async fn a_unit_that_cannot_be_served_leaves_the_last_good_one_serving() {
    let world = World::new().await;
    let good = report(&world, "customer").served;
    let bad: [(RouteUnit, &str); 4] = [
        (changed(unit("customer"), |unit| unit.domain = "broken".into()), "expression does not compile"),
        (changed(unit("customer"), |unit| Arc::make_mut(&mut unit.schema)["allOf"] = json!([])), "the schema cannot be used: "),
        (changed(unit("customer"), |unit| unit.entity = "a/b".into()), "cannot stand in a path"),
        (changed(unit("customer"), |unit| unit.consumers = vec![consumer("a", "same"), consumer("b", "same")]), "belongs to two consumers"),
    ];
    for (bad, why) in bad {
        world.apply(vec![bad.clone()]).await;
        let told = report(&world, "customer");
        assert_eq!(told.served, good);
        let rejected = told.rejected.unwrap();
        assert_eq!((rejected.digest, rejected.conflict), (bad.digest, None));
        assert!(rejected.message.contains(why), "{}", rejected.message);
        assert_eq!(world.get(PATH).await.status, 200);
    }
    world.apply(vec![unit("customer")]).await;
    assert_eq!(report(&world, "customer").rejected, None);
}

#[tokio::test]
async fn of_two_contracts_on_one_path_the_first_stays() {
    let world = World::serving(vec![unit("second")]).await;
    let first = changed(unit("first"), |unit| unit.version = "2.0.0".into());
    world.apply(vec![first.clone(), unit("second")]).await;
    let told = report(&world, "first");
    assert_eq!(told.served, None);
    assert_eq!(
        told.rejected,
        Some(RejectedRoute {
            digest: first.digest.clone(),
            conflict: Some(ObjectKey("sales/second".into())),
            message: "/sales/customer/v1 is served by sales/second already; another path or host is needed".into(),
        })
    );
    assert!(report(&world, "second").served.is_some());
    world.apply(vec![first]).await;
    assert!(report(&world, "first").served.is_some(), "once the other is gone the path is free");
}

/// Requests over several connections of both protocol versions until told to stop; what is not 200 is a failure.
struct Load {
    stop: Arc<AtomicBool>,
    /// How many requests of each were answered.
    done: Arc<[AtomicUsize; 4]>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(url: &str, token: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let (stop, done, token) = (Arc::new(AtomicBool::new(false)), Arc::<[AtomicUsize; 4]>::default(), Arc::new(token));
        let tasks = (0..done.len())
            .map(|index| {
                let builder = reqwest::Client::builder().no_proxy();
                let builder = if index % 2 == 0 { builder.http2_prior_knowledge() } else { builder };
                let (client, url, stop, done, token) =
                    (builder.build().unwrap(), url.to_owned(), stop.clone(), done.clone(), token.clone());
                tokio::spawn(async move {
                    let mut failures = vec![];
                    while !stop.load(Ordering::SeqCst) {
                        match Got::try_of(client.get(&url).bearer_auth(token())).await {
                            Ok(got) if got.status == 200 => {}
                            other => failures.push(format!("{other:?}")),
                        }
                        done[index].fetch_add(1, Ordering::SeqCst);
                    }
                    failures
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    /// Resolves when `count` more requests of each were answered. One that has taken its token and is not served by a busy machine for long would
    /// come with a key of several rotations before.
    async fn answered(&self, count: usize) {
        for done in self.done.iter() {
            let until = done.load(Ordering::SeqCst) + count;
            while done.load(Ordering::SeqCst) < until {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = vec![];
        for task in self.tasks {
            failures.extend(task.await.unwrap());
        }
        failures
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_swapped_under_load_without_a_failed_request() {
    let world = World::new().await;
    world.records.put(json!({"name": "n"}));
    let token = world.token();
    let load = Load::start(&world.url(PATH), move || token.clone());
    for patch in 0..40 {
        let next = changed(unit("customer"), |unit| unit.version = format!("1.4.{patch}"));
        world.apply(vec![next.clone()]).await;
        assert_eq!(report(&world, "customer").served.unwrap().digest, next.digest);
        load.answered(2).await;
    }
    assert_eq!(load.failures().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_under_load_without_a_failed_request() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = Arc::new(DevelopmentIssuer::start(listener, AUDIENCE, world.clock.clone()).unwrap());
    let fetch = async || Got::of(world.client.get(issuer.jwks_uri())).await.json()["keys"].as_array().unwrap().clone();
    world.keys.publish_raw(&issuer.jwks_uri(), fetch().await);
    world
        .apply(vec![changed(unit("customer"), |unit| {
            unit.issuers[0].issuer = issuer.issuer().into();
            unit.issuers[0].jwks_uri = issuer.jwks_uri();
        })])
        .await;
    let grant = Grant {
        client_id: "c".into(),
        scopes: vec!["customers.read".into()],
        audience: AUDIENCE.into(),
        lifetime: Duration::from_secs(100_000),
    };
    // Each request has a token of its own, as if all clients fetched one at every moment.
    let signed = Arc::new(std::sync::Mutex::new(issuer.token(&grant)));
    let load = Load::start(&world.url(PATH), {
        let signed = signed.clone();
        move || signed.lock().unwrap().clone()
    });
    for _ in 0..20 {
        issuer.rotate().unwrap();
        world.keys.publish_raw(&issuer.jwks_uri(), fetch().await);
        world.clock.advance(Duration::from_secs(11));
        *signed.lock().unwrap() = issuer.token(&grant);
        load.answered(5).await;
    }
    let fetches = world.keys.fetches.load(Ordering::SeqCst);
    assert!(fetches >= 20, "every rotation was found: {fetches}");
    assert_eq!(load.failures().await, Vec::<String>::new());
}
