//! Who gets in, and how often.

use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fairlead_gateway::issuer::{DevelopmentIssuer, Grant, IssuerError};
use fairlead_model::route::{OperationKind, Rate};
use fairlead_model::unit::ObjectKey;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;

fn customer() -> ObjectKey {
    ObjectKey("sales/customer".into())
}

fn keys_uri() -> String {
    format!("{ISSUER}/keys")
}

#[tokio::test]
async fn without_a_token_the_challenge_carries_no_error() {
    let world = World::new().await;
    for request in
        [world.client.get(world.url(PATH)), world.client.get(world.url(PATH)).header("authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==")]
    {
        let got = Got::of(request).await;
        assert_eq!((got.problem(), got.header("www-authenticate")), (is(401, "token-missing"), "Bearer"));
    }
}

#[tokio::test]
async fn a_token_that_breaks_a_rule_of_rfc_9068_or_8725_is_refused() {
    let world = World::new().await;
    let now = world.claims()["iat"].as_i64().unwrap();
    let mut wrong: Vec<(String, String)> = vec![];
    for claim in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        wrong.push((format!("without {claim}"), world.token_with(|claims| drop(claims.as_object_mut().unwrap().remove(claim)))));
    }
    for (name, claim, value) in [
        ("expired this second", "exp", json!(now)),
        ("exp as a text (CVE-2026-25537)", "exp", json!((now + 600).to_string())),
        ("issued in the future", "iat", json!(now + 60)),
        ("not valid yet", "nbf", json!(now + 60)),
        ("nbf as a text", "nbf", json!("0")),
        ("for another audience", "aud", json!(["https://other.example"])),
        ("of another issuer", "iss", json!("https://evil.example")),
    ] {
        wrong.push((name.into(), world.token_with(|claims| claims[claim] = value)));
    }
    let header = |change: fn(&mut Value)| {
        let mut header = world.signer.header();
        change(&mut header);
        world.signer.sign(&header, &world.claims())
    };
    wrong.push(("an ID token".into(), header(|header| header["typ"] = json!("JWT"))));
    wrong.push(("without a type".into(), header(|header| drop(header.as_object_mut().unwrap().remove("typ")))));
    wrong.push(("alg none".into(), header(|header| header["alg"] = json!("none"))));
    wrong.push(("HMAC".into(), header(|header| header["alg"] = json!("HS256"))));
    wrong.push(("another algorithm than the key's".into(), header(|header| header["alg"] = json!("ES256"))));
    wrong.push(("critical extensions".into(), header(|header| header["crit"] = json!(["x"]))));
    wrong.push(("an unknown key".into(), header(|header| header["kid"] = json!("other"))));
    wrong.push(("signed by somebody else".into(), Signer::new("first").sign(&world.signer.header(), &world.claims())));
    let good = world.token();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header_part, _) = message.split_once('.').unwrap();
    let other = URL_SAFE_NO_PAD.encode(world.claims().to_string());
    wrong.push(("claims exchanged".into(), format!("{header_part}.{other}.{signature}")));
    wrong.push(("without a signature".into(), format!("{message}.")));
    wrong.push(("four parts".into(), format!("{good}.{signature}")));
    wrong.push(("no token".into(), "canary".into()));
    wrong.push(("too long".into(), world.token_with(|claims| claims["padding"] = json!("x".repeat(8192)))));
    for (name, token) in wrong {
        let got = world.get_with(&token).await;
        assert_eq!(got.problem(), is(401, "token-invalid"), "{name}");
        assert!(got.header("www-authenticate").starts_with("Bearer error=\"invalid_token\", error_description=\""), "{name}");
        assert!(!got.text.contains("canary") && !got.text.contains("example"), "{name}: {}", got.text);
    }
    assert_eq!(world.get_with(&good).await.status, 200);
}

#[tokio::test]
async fn tokens_signed_by_rsa_and_elliptic_curves_get_in() {
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, EncodingKey};
    let world = World::new().await;
    let curve = rcgen::KeyPair::generate().unwrap().serialize_der();
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa: Vec<u8> = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap().as_ref().to_vec();
    let rsa = rsa_private(&rsa);
    let keys = [(Algorithm::ES256, EncodingKey::from_ec_der(&curve)), (Algorithm::RS256, EncodingKey::from_rsa_der(&rsa))];
    let set = keys.iter().map(|(algorithm, key)| {
        let mut jwk = Jwk::from_encoding_key(key, *algorithm).unwrap();
        jwk.common.key_id = Some(format!("{algorithm:?}"));
        serde_json::to_value(jwk).unwrap()
    });
    world.keys.publish_raw(&keys_uri(), set.collect());
    world.clock.advance(Duration::from_secs(60));
    for (algorithm, key) in keys {
        let mut header = jsonwebtoken::Header::new(algorithm);
        header.typ = Some("application/at+jwt".into());
        header.kid = Some(format!("{algorithm:?}"));
        let token = jsonwebtoken::encode(&header, &world.claims(), &key).unwrap();
        assert_eq!(world.get_with(&token).await.status, 200, "{algorithm:?}");
    }
}

/// The RSAPrivateKey inside a PKCS #8 envelope: its last OCTET STRING.
fn rsa_private(pkcs8: &[u8]) -> Vec<u8> {
    let at = pkcs8.windows(2).position(|pair| pair == [0x04, 0x82]).unwrap();
    pkcs8[at + 4..].to_vec()
}

#[tokio::test]
async fn a_token_is_not_believed_past_its_end_though_it_was_verified_before() {
    let world = World::new().await;
    let token = world.token();
    assert_eq!(world.get_with(&token).await.status, 200);
    world.clock.advance(Duration::from_secs(599));
    assert_eq!(world.get_with(&token).await.status, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.get_with(&token).await.problem(), is(401, "token-invalid"));
}

#[tokio::test]
async fn a_contract_may_want_young_tokens() {
    let world = World::serving(vec![changed(unit("customer"), |unit| unit.max_token_age = Some(Duration::from_secs(60)))]).await;
    let token = world.token();
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.get_with(&token).await.status, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.get_with(&token).await.problem(), is(401, "token-invalid"));
}

#[tokio::test]
async fn one_contracts_keys_vouch_for_no_token_of_another_contract() {
    let evil = Signer::new("evil");
    let mut theirs = unit("theirs");
    theirs.domain = "theirs".into();
    theirs.issuers[0].jwks_uri = "https://evil.example/keys".into();
    let world = World::serving(vec![unit("customer"), theirs.sealed()]).await;
    world.keys.publish("https://evil.example/keys", &[&evil]);
    world.clock.advance(Duration::from_secs(60));
    let token = evil.sign(&evil.header(), &world.claims());
    let there = Got::of(world.client.get(world.url("/theirs/customer/v1")).bearer_auth(&token)).await;
    assert_eq!(there.status, 200, "it is good where its key is trusted");
    assert_eq!(world.get_with(&token).await.problem(), is(401, "token-invalid"));
}

#[tokio::test]
async fn an_unknown_key_makes_one_fetch_however_many_ask() {
    let world = World::new().await;
    assert_eq!(world.get(PATH).await.status, 200);
    world.clock.advance(Duration::from_secs(60));
    let before = world.keys.fetches.load(Ordering::SeqCst);
    let stranger = Signer::new("stranger");
    for _ in 0..20 {
        let token = stranger.sign(&stranger.header(), &world.claims());
        assert_eq!(world.get_with(&token).await.problem(), is(401, "token-invalid"));
    }
    assert_eq!(world.keys.fetches.load(Ordering::SeqCst) - before, 1);
}

#[tokio::test]
async fn a_fetch_that_began_before_a_key_was_published_is_none_for_that_key() {
    let world = World::new().await;
    assert_eq!(world.get(PATH).await.status, 200);
    world.clock.advance(Duration::from_secs(60));
    let (second, third) = (Signer::new("second"), Signer::new("third"));
    let fetches = || world.keys.fetches.load(Ordering::SeqCst);
    let before = fetches();
    world.keys.publish(&keys_uri(), &[&second]);
    let held = world.keys.way.write().await;
    let late = async {
        while fetches() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.keys.publish(&keys_uri(), &[&second, &third]);
        world.clock.advance(Duration::from_secs(11));
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(held);
        };
        let token = third.sign(&third.header(), &world.claims());
        tokio::join!(world.get_with(&token), release).0
    };
    let token = second.sign(&second.header(), &world.claims());
    let (early, late) = tokio::join!(world.get_with(&token), late);
    assert_eq!((early.status.as_u16(), late.status.as_u16(), fetches() - before), (200, 200, 2));
}

#[tokio::test]
async fn a_rotated_key_is_found_and_the_old_ones_tokens_are_forgotten() {
    let world = World::new().await;
    let old = world.token();
    assert_eq!(world.get_with(&old).await.status, 200);
    let next = Signer::new("second");
    world.keys.publish(&keys_uri(), &[&next]);
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(world.get_with(&next.sign(&next.header(), &world.claims())).await.status, 200);
    assert_eq!(world.get_with(&old).await.problem(), is(401, "token-invalid"));
}

#[tokio::test]
async fn known_keys_serve_for_a_while_when_their_issuer_is_away() {
    let world = World::new().await;
    assert_eq!(world.get(PATH).await.status, 200);
    world.keys.go_away(&keys_uri());
    world.clock.advance(Duration::from_secs(3600));
    let stranger = Signer::new("stranger");
    assert_eq!(world.get_with(&stranger.sign(&stranger.header(), &world.claims())).await.problem(), is(401, "token-invalid"));
    let mut reports = world.gateway.reports();
    assert_eq!(world.get(PATH).await.status, 200);
    assert!(reports.borrow()[&customer()].issuers.is_empty(), "a fetch failed, and callers do not feel it");
    world.clock.advance(Duration::from_secs(24 * 3600));
    let got = world.get(PATH).await;
    assert_eq!((got.problem(), got.header("retry-after")), (is(503, "keys-unavailable"), "5"));
    let why = |reports: &fairlead_gateway::Reports| reports[&customer()].issuers.get(ISSUER).cloned();
    reports.wait_for(|reports| why(reports).is_some_and(|why| why.contains("refused"))).await.unwrap();
    world.keys.publish(&keys_uri(), &[&world.signer]);
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(world.get(PATH).await.status, 200);
    reports.wait_for(|reports| why(reports).is_none()).await.unwrap();
}

#[tokio::test]
async fn an_issuer_whose_keys_were_never_had_is_reported_with_the_unit_and_another_is_not() {
    let silent = changed(unit("silent"), |unit| {
        unit.entity = "silent".into();
        unit.issuers[0].jwks_uri = "https://silent.example/keys".into();
    });
    let world = World::serving(vec![unit("customer"), silent]).await;
    let reports = world.gateway.reports().borrow().clone();
    assert!(reports[&customer()].issuers.is_empty(), "its keys were there before it was served");
    assert_eq!(reports[&ObjectKey("sales/silent".into())].issuers[ISSUER], "connection refused");
    assert_eq!(world.get("/sales/silent/v1").await.problem(), is(503, "keys-unavailable"));
}

#[tokio::test]
async fn an_issuers_client_is_no_consumer_of_another_issuer() {
    const PARTNER: &str = "https://partner.example";
    let world = World::serving(vec![changed(unit("customer"), |unit| {
        let mut partner = unit.issuers[0].clone();
        partner.issuer = PARTNER.into();
        partner.jwks_uri = format!("{PARTNER}/keys");
        unit.issuers.push(partner);
        let mut theirs = consumer("partner-shop", "web-shop");
        theirs.issuer = PARTNER.into();
        unit.consumers = vec![consumer("back-office", "office"), consumer("shop", "web-shop"), theirs];
    })])
    .await;
    let partner = Signer::new("partner");
    world.keys.publish(&format!("{PARTNER}/keys"), &[&partner]);
    world.clock.advance(Duration::from_secs(60));
    let theirs = |client: &str| {
        let mut claims = world.claims();
        claims["iss"] = json!(PARTNER);
        claims["client_id"] = json!(client);
        partner.sign(&partner.header(), &claims)
    };
    assert_eq!(world.get_with(&theirs("office")).await.problem(), is(403, "consumer-unknown"));
    assert_eq!(world.get_with(&theirs("web-shop")).await.status, 200);
    assert_eq!(world.get(PATH).await.status, 200);
    let seen: Vec<String> = world.records.calls.lock().unwrap().iter().map(|call| call.consumer.clone()).collect();
    assert_eq!(seen, ["partner-shop", "shop"]);
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let world = World::new().await;
    let token = world.token_with(|claims| claims["scope"] = json!("customers.readonly customers.write"));
    let got = world.get_with(&token).await;
    assert_eq!(got.problem(), is(403, "scope-missing"));
    assert_eq!(got.header("www-authenticate"), "Bearer error=\"insufficient_scope\", scope=\"customers.read\"");
}

#[tokio::test]
async fn only_listed_consumers_get_in_and_only_to_their_operations() {
    let world = World::serving(vec![changed(unit("customer"), |unit| {
        let mut shop = consumer("shop", "web-shop");
        shop.operations = vec![OperationKind::List];
        unit.consumers = vec![shop];
    })])
    .await;
    assert_eq!(world.get(PATH).await.status, 200);
    assert_eq!(world.records.calls.lock().unwrap()[0].consumer, "shop");
    assert_eq!(Got::of(world.post(&json!({"name": "n"}))).await.problem(), is(403, "operation-not-allowed"));
    let stranger = world.token_with(|claims| claims["client_id"] = json!("stranger"));
    assert_eq!(world.get_with(&stranger).await.problem(), is(403, "consumer-unknown"));
}

#[tokio::test]
async fn a_consumers_rate_is_told_and_held_over_a_change_of_the_contract() {
    let limited = |version: &str| {
        changed(unit("customer"), |unit| {
            let mut shop = consumer("shop", "web-shop");
            shop.rate = Some(Rate { requests: 3, per: Duration::from_secs(3600) });
            unit.consumers = vec![shop, consumer("other", "other")];
            unit.version = version.into();
        })
    };
    let world = World::serving(vec![limited("1.4.0")]).await;
    let got = world.get(PATH).await;
    assert_eq!(
        (got.status.as_u16(), got.header("ratelimit-policy"), got.header("ratelimit")),
        (200, "\"consumer\";q=3;w=3600", "\"consumer\";r=2;t=1200")
    );
    world.get(PATH).await;
    world.apply(vec![limited("1.4.1")]).await;
    assert_eq!(world.get(PATH).await.status, 200);
    let got = world.get(PATH).await;
    assert_eq!(got.problem(), is(429, "too-many-requests"));
    assert!((1100..=1200).contains(&got.header("retry-after").parse::<u64>().unwrap()), "{got:?}");
    assert!(got.header("ratelimit").starts_with("\"consumer\";r=0;"), "{got:?}");
    let other = world.token_with(|claims| claims["client_id"] = json!("other"));
    let got = world.get_with(&other).await;
    assert!(got.status == 200 && got.headers.get("ratelimit").is_none(), "{got:?}");
}

#[tokio::test]
async fn the_development_issuer_gives_tokens_that_get_in_and_listens_on_loopback_only() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = DevelopmentIssuer::start(listener, AUDIENCE, world.clock.clone()).unwrap();
    let read = async |url: String| Got::of(world.client.get(url)).await.json();
    let metadata = read(format!("{}/.well-known/oauth-authorization-server", issuer.issuer())).await;
    let set = read(metadata["jwks_uri"].as_str().unwrap().to_owned()).await;
    world.keys.publish_raw(&issuer.jwks_uri(), set["keys"].as_array().unwrap().clone());
    world
        .apply(vec![changed(unit("customer"), |unit| {
            unit.issuers[0].issuer = issuer.issuer().into();
            unit.issuers[0].jwks_uri = issuer.jwks_uri();
        })])
        .await;
    let asked = [("grant_type", "client_credentials"), ("client_id", "web-shop"), ("scope", "customers.read")];
    let answer = Got::of(world.client.post(metadata["token_endpoint"].as_str().unwrap()).form(&asked)).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let token = answer.json();
    assert_eq!((&token["token_type"], &token["scope"]), (&json!("Bearer"), &json!("customers.read")));
    assert_eq!(world.get_with(token["access_token"].as_str().unwrap()).await.status, 200);
    let grant = Grant { client_id: "c".into(), scopes: vec![], audience: AUDIENCE.into(), lifetime: Duration::from_secs(60) };
    assert_eq!(world.get_with(&issuer.token(&grant)).await.problem(), is(403, "scope-missing"));
    let everywhere = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = DevelopmentIssuer::start(everywhere, AUDIENCE, Arc::new(fairlead_model::SystemClock));
    assert!(matches!(refused, Err(IssuerError::NotLoopback(_))));
}
