//! The client against the NetSuite simulator: authentication, SuiteQL, records by external id, and what goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Bed, batch, change, class, create, paths};
use fairlead_model::{ErrorClass, Timestamp};
use fairlead_simulators::System;
use fairlead_systems::WriteOperation;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const EXTENSION: &str = "
extends: netsuite
entities:
- name: customer
  fields:
  - {name: custentity_segment, type: String}
  - {name: custentity_credit_rating, type: String}
";

async fn bed(records: u64) -> Bed {
    Bed::start(System::Netsuite, records, "M2M", EXTENSION).await
}

const FIELDS: &[&str] = &[
    "companyName",
    "creditLimit",
    "isInactive",
    "isPerson",
    "subsidiary.id",
    "parent.id",
    "externalId",
    "custentity_segment",
    "dateCreated",
    "defaultBillingAddress.country",
];

#[tokio::test]
async fn both_ways_to_authenticate_are_let_in() {
    let mut bed = bed(3).await;
    assert_eq!(bed.client.probe().await, Ok(()));
    let credentials = bed.simulator.credentials().clone();
    for (id, key) in [("certificateId", "rsaCertificateId"), ("privateKey", "rsaPrivateKey")] {
        bed.secrets.set(id, &credentials[key]);
    }
    bed.reconnect(|_| {});
    assert_eq!(bed.client.probe().await, Ok(()), "an RSA key signs with PS256");
    bed.reconnect(|unit| unit.auth_method = "TokenBased".into());
    assert_eq!(bed.client.probe().await, Ok(()), "OAuth 1.0a");
    assert_eq!(bed.pass("customer", "main", FIELDS, None).await.0.len(), 3);
    bed.secrets.set("tokenSecret", "wrong-token-secret");
    bed.reconnect(|_| {});
    assert_eq!(class(&bed.client.probe().await), Some((ErrorClass::Auth, "AuthenticationFailed")));
}

#[tokio::test]
async fn a_first_load_reads_every_record_once_with_its_types() {
    let bed = bed(2500).await;
    let held = bed.get("records/customer").await;
    let held: HashMap<&str, &Value> = held.as_array().unwrap().iter().map(|record| (record["id"].as_str().unwrap(), record)).collect();
    let (records, cursor, pages) = bed.pass("customer", "main", FIELDS, None).await;
    assert_eq!(records.len(), 2500);
    assert!(pages >= 3);
    let ids: HashSet<_> = records.iter().map(|record| record.id.clone()).collect();
    assert_eq!(ids.len(), 2500);
    for record in &records {
        assert_eq!(record.body["companyName"], held[record.id.as_str()]["companyName"]);
        assert_eq!(record.body["isInactive"], held[record.id.as_str()]["isInactive"]);
        assert!(record.body["subsidiary"]["id"].is_string());
        assert!(
            record.body["creditLimit"].is_null() || record.body["creditLimit"].as_str().unwrap().parse::<fairlead_model::Decimal>().is_ok()
        );
        assert!(record.body["dateCreated"].as_str().unwrap().ends_with("Z"));
    }
    assert!(records.iter().any(|record| record.body["defaultBillingAddress"]["country"] == "DE"));
    let victim = records[5].id.as_str();
    bed.post(
        "edit",
        json!({"entity": "customer", "id": victim, "values": {"companyName": "O'Neil's \"Söhne\"", "creditLimit": 1234567890123.45}}),
    )
    .await;
    let (changes, cursor, _) = bed.pass("customer", "main", FIELDS, Some(cursor)).await;
    let changed = changes.iter().find(|record| record.id.as_str() == victim).expect("the edit is seen");
    assert_eq!(changed.body["companyName"], "O'Neil's \"Söhne\"");
    assert_eq!(changed.body["creditLimit"], "1234567890123.45");
    let (again, ..) = bed.pass("customer", "main", FIELDS, Some(cursor)).await;
    assert_eq!(again, [], "the window comes again from the vendor, but not from the client");
}

#[tokio::test]
async fn deletions_are_a_slice_of_their_own() {
    let bed = bed(5).await;
    let (none, cursor, _) = bed.pass("customer", "deletes", FIELDS, None).await;
    assert_eq!(none, []);
    let made = bed.client.write(&batch("customer", vec![create(Some(("externalId", "gone-1")), customer("Gone"))])).await;
    let id = made[0].as_ref().unwrap().id.clone();
    let deleted = bed.client.write(&batch("customer", vec![change(WriteOperation::Delete, id.as_str(), json!({}))])).await;
    assert!(deleted[0].is_ok(), "{deleted:?}");
    let (found, ..) = bed.pass("customer", "deletes", FIELDS, Some(cursor)).await;
    assert_eq!(found.iter().map(|record| (&record.id, record.deleted, record.body.len())).collect::<Vec<_>>(), [(&id, true, 0)]);
    let again = bed.client.write(&batch("customer", vec![change(WriteOperation::Delete, id.as_str(), json!({}))])).await;
    assert_eq!(class(&again[0]), Some((ErrorClass::NotFound, "RecordNotFound")));
}

fn customer(name: &str) -> Value {
    json!({"companyName": name, "isPerson": false, "subsidiary": {"id": "1"}, "creditLimit": "5000.25"})
}

#[tokio::test]
async fn creates_by_external_id_are_idempotent_and_updates_merge() {
    let bed = bed(3).await;
    let item = |n: usize| create(Some(("externalId", &format!("8c3f-{n}"))), customer(&format!("Made {n}")));
    let written = bed.client.write(&batch("customer", (0..12).map(item).collect())).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    let again = bed.client.write(&batch("customer", vec![item(3)])).await;
    assert_eq!(again[0].as_ref().unwrap().id, written[3].as_ref().unwrap().id);
    let id = written[3].as_ref().unwrap().id.clone();
    let changed = change(WriteOperation::Update, id.as_str(), json!({"creditLimit": "99999999.99", "custentity_segment": "Enterprise"}));
    let archived = change(WriteOperation::Archive, written[4].as_ref().unwrap().id.as_str(), json!({}));
    let results = bed.client.write(&batch("customer", vec![changed, archived])).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let keys = [id, written[4].as_ref().unwrap().id.clone(), "999999999".into(), "x".into()];
    let read = bed.client.read_keys("customer", &paths(FIELDS), &keys).await.unwrap();
    let first = read[0].as_ref().unwrap();
    assert_eq!(first.body["companyName"], "Made 3");
    assert_eq!(first.body["creditLimit"], "99999999.99");
    assert_eq!(first.body["externalId"], "8c3f-3");
    assert_eq!(read[1].as_ref().unwrap().body["isInactive"], true);
    assert!(read[2].is_none() && read[3].is_none());
    let found = bed.client.search("customer", &paths(FIELDS), &[("externalId".parse().unwrap(), json!("8c3f-3"))]).await.unwrap();
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn a_wrong_record_names_its_field_and_harms_no_other() {
    let bed = bed(3).await;
    let wrong = create(Some(("externalId", "w-1")), json!({"companyName": "W", "subsidiary": {"id": "1"}, "email": "no mail"}));
    let typo = create(Some(("externalId", "w-2")), json!({"companyName": "W2", "subsidiary": {"id": "1"}, "companyNam": "typo"}));
    let good = create(Some(("externalId", "w-3")), customer("Good"));
    let results = bed.client.write(&batch("customer", vec![wrong, typo, good])).await;
    assert_eq!(class(&results[0]), Some((ErrorClass::Data, "ValidationFailed")), "{results:?}");
    assert_eq!(class(&results[1]), Some((ErrorClass::Data, "ValidationFailed")), "a misspelt name is an error, not silence: {results:?}");
    assert!(results[1].as_ref().unwrap_err().field.as_deref().is_some_and(|field| field.contains("companyNam")));
    assert!(results[2].is_ok());
}

#[tokio::test]
async fn a_write_without_an_answer_has_an_unknown_outcome_and_is_found_by_its_key() {
    let bed = bed(3).await;
    bed.client.probe().await.unwrap();
    bed.faults(json!([{"match": {"operation": "write"}, "fault": "timeoutAfterEffect", "millis": 10}])).await;
    let results = bed.client.write(&batch("customer", vec![create(Some(("externalId", "u-1")), customer("Unknown"))])).await;
    assert_eq!(class(&results[0]), Some((ErrorClass::UnknownOutcome, "OutcomeUnknown")));
    let found = bed.client.search("customer", &paths(&["companyName"]), &[("externalId".parse().unwrap(), json!("u-1"))]).await.unwrap();
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn the_concurrency_limit_is_kept_and_a_refusal_is_a_wait() {
    let mut bed = bed(3).await;
    bed.reconnect(|unit| unit.limits.concurrency = 3);
    let items = (0..30).map(|n| create(Some(("externalId", &format!("c-{n}"))), customer(&format!("C {n}")))).collect();
    let results = bed.client.write(&batch("customer", items)).await;
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    bed.faults(json!([{"match": {"operation": "write"}, "fault": "limit", "retryAfter": 7}])).await;
    let results = bed.client.write(&batch("customer", vec![create(Some(("externalId", "c-x")), customer("X"))])).await;
    assert_eq!(class(&results[0]), Some((ErrorClass::Throttled, "RateLimited")));
    assert_eq!(results[0].as_ref().unwrap_err().retry_after.map(|wait| wait.as_secs()), Some(7));
}

#[tokio::test]
async fn refused_at_a_fifth_of_the_calls_it_keeps_to_every_wait_and_is_back_at_its_rate_within_a_second() {
    const RATE: usize = 20;
    let mut bed = bed(3).await;
    bed.reconnect(|unit| {
        (unit.limits.requests_per_second, unit.limits.concurrency) = (u32::try_from(RATE).ok(), 1);
    });
    bed.client.probe().await.unwrap();
    bed.faults(json!([{"match": {"operation": "write"}, "fault": "limit", "percent": 20, "times": 3, "retryAfter": 1}])).await;
    let (mut refused, mut since) = (0, 0);
    for n in 0.. {
        let item = create(Some(("externalId", &format!("r-{n}"))), customer(&format!("R {n}")));
        match bed.client.write(&batch("customer", vec![item])).await.remove(0) {
            Ok(_) => since += 1,
            Err(error) => {
                assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Throttled, "RateLimited"));
                (refused, since) = (refused + 1, 0);
                tokio::time::sleep(error.retry_after.unwrap()).await;
            }
        }
        if refused == 3 && since > RATE {
            break;
        }
    }
    // The vendor's own log judges.
    let log = bed.get("log").await;
    let log: Vec<(i64, bool)> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (Timestamp::parse(entry["time"].as_str().unwrap()).unwrap().0, entry["code"] == "REFUSED_BY_FAULT"))
        .collect();
    let refusals: Vec<usize> = (0..log.len()).filter(|at| log[*at].1).collect();
    assert_eq!(refusals.len(), 3);
    for at in &refusals {
        assert!(log[at + 1].0 >= log[*at].0 + 1000, "nothing comes before the stated time: {log:?}");
    }
    let back = log[refusals[2] + 1].0;
    assert!(back < log[refusals[2]].0 + 2000, "{log:?}");
    let within = log.iter().filter(|(time, _)| (back..back + 1000).contains(time)).count();
    assert!(within * 10 >= RATE * 9, "{within} requests in the first second: {log:?}");
}

#[tokio::test]
async fn a_batch_whose_lease_ends_sends_nothing_more() {
    let mut bed = bed(3).await;
    bed.reconnect(|unit| unit.limits.concurrency = 1);
    bed.client.probe().await.unwrap();
    let before = bed.total().await;
    let left = std::sync::atomic::AtomicI64::new(4);
    let lease = std::sync::Arc::new(move || left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0);
    let items = (0..10).map(|n| create(Some(("externalId", &format!("l-{n}"))), customer(&format!("L {n}")))).collect();
    let results = bed.client.write_while(&batch("customer", items), lease).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    assert_eq!(results.iter().filter(|result| class(result) == Some((ErrorClass::Transient, "Busy"))).count(), 6);
    assert_eq!(bed.total().await - before, 4);
}

#[tokio::test]
async fn a_quiet_system_leaves_the_cursor_as_it_was() {
    let bed = bed(5).await;
    let (_, first, _) = bed.pass("customer", "main", FIELDS, None).await;
    let (_, second, _) = bed.pass("customer", "main", FIELDS, Some(first)).await;
    let (_, third, _) = bed.pass("customer", "main", FIELDS, Some(second.clone())).await;
    assert_eq!(second, third);
}

#[tokio::test]
async fn an_expired_token_is_renewed_and_a_failing_server_is_unknown_for_writes_only() {
    let bed = bed(3).await;
    bed.client.probe().await.unwrap();
    bed.post("expire-tokens", json!({})).await;
    assert_eq!(bed.client.probe().await, Ok(()));
    bed.faults(json!([{"match": {"operation": "write"}, "fault": "status", "status": 500}, {"match": {"operation": "read"}, "fault": "status", "status": 503}])).await;
    let results = bed.client.write(&batch("customer", vec![create(Some(("externalId", "s-1")), customer("S"))])).await;
    assert_eq!(class(&results[0]), Some((ErrorClass::UnknownOutcome, "OutcomeUnknown")));
    assert_eq!(class(&bed.read("customer", "main", FIELDS, None).await).map(|(class, _)| class), Some(ErrorClass::Transient));
    assert_eq!(bed.pass("customer", "main", FIELDS, None).await.0.len(), 3);
}

/// A change that becomes visible only after the reader has passed its place is seen by the next pass.
#[tokio::test]
async fn what_becomes_visible_late_is_read_late_but_read() {
    let bed = bed(10).await;
    let (records, cursor, _) = bed.pass("customer", "main", FIELDS, None).await;
    let (first, second) = (records[2].id.as_str(), records[3].id.as_str());
    bed.post("edit", json!({"entity": "customer", "id": first, "values": {"companyName": "Late"}})).await;
    bed.faults(json!([{"match": {"operation": "read"}, "fault": "staleRead", "millis": 60000}])).await;
    let (before, cursor, _) = bed.pass("customer", "main", FIELDS, Some(cursor)).await;
    assert!(!before.iter().any(|record| record.body["companyName"] == "Late"), "the reader was shown an older state");
    bed.post("edit", json!({"entity": "customer", "id": second, "values": {"companyName": "Later"}})).await;
    let (after, ..) = bed.pass("customer", "main", FIELDS, Some(cursor)).await;
    for name in ["Late", "Later"] {
        assert!(after.iter().any(|record| record.body["companyName"] == name), "{name}");
    }
}
