//! The client against the Salesforce simulator: authentication, reading, writing, and what goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Bed, batch, change, class, create, paths};
use fairlead_model::ErrorClass;
use fairlead_model::report::{Circuit, Quota};
use fairlead_simulators::System;
use fairlead_systems::WriteOperation;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

const EXTENSION: &str = "
extends: salesforce
entities:
- name: Account
  fields:
  - {name: Fairlead_Id__c, type: String, maxLength: 64, correlation: true}
  - {name: Tax_Number__c, type: String, maxLength: 40}
  - {name: Credit_Limit__c, type: Decimal}
  - {name: Segment__c, type: String}
";

async fn bed(records: u64) -> Bed {
    Bed::start(System::Salesforce, records, "ClientCredentials", EXTENSION).await
}

const FIELDS: &[&str] = &["Name", "AnnualRevenue", "NumberOfEmployees", "Tax_Number__c", "Credit_Limit__c", "ParentId", "CreatedDate"];

#[tokio::test]
async fn both_ways_to_authenticate_are_let_in() {
    let mut bed = bed(3).await;
    assert_eq!(bed.client.probe().await, Ok(()));
    bed.reconnect(|unit| unit.auth_method = "JwtBearer".into());
    assert_eq!(bed.client.probe().await, Ok(()));
    assert_eq!(bed.client.quota(), Quota::Ample);
}

#[tokio::test]
async fn a_first_load_reads_every_record_once_and_an_increment_only_what_changed() {
    let bed = bed(4500).await;
    let held = bed.get("records/Account").await;
    let held: HashMap<&str, &Value> = held.as_array().unwrap().iter().map(|record| (record["Id"].as_str().unwrap(), record)).collect();
    let (records, cursor, pages) = bed.pass("Account", "main", FIELDS, None).await;
    assert_eq!(records.len(), 4500);
    assert!(pages >= 3);
    let mut seen = std::collections::HashSet::new();
    for record in &records {
        assert!(seen.insert(record.id.clone()), "{} came twice", record.id);
        let theirs = held[record.id.as_str()];
        assert_eq!(record.body["Name"], theirs["Name"]);
        assert!(record.body["AnnualRevenue"].is_null() || record.body["AnnualRevenue"].is_string(), "{}", record.body["AnnualRevenue"]);
        assert!(!fairlead_model::document::has_float(&Value::Object(record.body.clone())));
        assert!(record.modified.is_some() && !record.deleted && record.original().contains("SystemModstamp"));
        assert!(!record.body.contains_key("attributes"));
    }
    let victim = records[17].id.as_str();
    bed.post(
        "edit",
        json!({"entity": "Account", "id": victim, "values": {"Name": "Ünïcødé & Söhne", "AnnualRevenue": 9007199254740993i64}}),
    )
    .await;
    let gone = records
        .iter()
        .map(|record| record.id.as_str())
        .find(|id| *id != victim && !records.iter().any(|other| other.body["ParentId"].as_str() == Some(id)));
    bed.post("delete", json!({"entity": "Account", "id": gone.unwrap()})).await;
    let (changes, cursor, _) = bed.pass("Account", "main", FIELDS, Some(cursor)).await;
    let by_id: HashMap<&str, _> = changes.iter().map(|record| (record.id.as_str(), record)).collect();
    assert_eq!(by_id[victim].body["Name"], "Ünïcødé & Söhne");
    assert_eq!(by_id[victim].body["AnnualRevenue"], "9007199254740993");
    assert!(by_id[gone.unwrap()].deleted);
    assert!(changes.len() < 50, "{} records for two changes", changes.len());
    let (again, ..) = bed.pass("Account", "main", FIELDS, Some(cursor)).await;
    assert_eq!(again, [], "what was taken in and has not changed does not come again");
}

#[tokio::test]
async fn a_cursor_of_another_process_repeats_the_lag_window_and_loses_nothing() {
    let mut bed = bed(20).await;
    let (_, cursor, _) = bed.pass("Account", "main", FIELDS, None).await;
    let made = bed.post("create", json!({"entity": "Account", "values": {"Name": "Newcomer"}})).await;
    let (first, cursor, _) = bed.pass("Account", "main", FIELDS, Some(cursor)).await;
    assert!(first.iter().any(|record| record.id.as_str() == made["Id"].as_str().unwrap()));
    bed.reconnect(|_| {});
    let (second, ..) = bed.pass("Account", "main", FIELDS, Some(cursor)).await;
    assert!(second.iter().any(|record| record.body["Name"] == "Newcomer"), "a fresh client shows the window again");
}

#[tokio::test]
async fn a_quiet_system_leaves_the_cursor_as_it_was() {
    let bed = bed(5).await;
    let (_, first, _) = bed.pass("Account", "main", FIELDS, None).await;
    let (_, second, _) = bed.pass("Account", "main", FIELDS, Some(first)).await;
    let (_, third, _) = bed.pass("Account", "main", FIELDS, Some(second.clone())).await;
    assert_eq!(second, third);
}

#[tokio::test]
async fn a_page_whose_cursor_does_not_come_back_is_shown_again() {
    let bed = bed(20).await;
    let (_, cursor, _) = bed.pass("Account", "main", FIELDS, None).await;
    bed.post("create", json!({"entity": "Account", "values": {"Name": "Newcomer"}})).await;
    for _ in 0..2 {
        let (records, ..) = bed.pass("Account", "main", FIELDS, Some(cursor.clone())).await;
        assert!(records.iter().any(|record| record.body["Name"] == "Newcomer"));
    }
}

#[tokio::test]
async fn records_are_read_by_key_with_their_children_and_found_by_value() {
    let bed = bed(40).await;
    let (records, ..) = bed.pass("Account", "main", &["Name", "Contacts.records[]", "Contacts.records[].Email"], None).await;
    let with = records
        .iter()
        .find(|record| record.body["Contacts"]["records"].as_array().is_some_and(|rows| rows.len() > 1))
        .expect("an account with contacts");
    assert!(with.body["Contacts"]["records"][0].as_object().unwrap().contains_key("Email"));
    let ids = vec![records[3].id.clone(), "001000000000000AAA".into(), "not an id'".into(), records[1].id.clone()];
    let found = bed.client.read_keys("Account", &paths(FIELDS), &ids).await.unwrap();
    let found: Vec<Option<&str>> = found.iter().map(|record| record.as_ref().map(|record| record.id.as_str())).collect();
    assert_eq!(found, [Some(records[3].id.as_str()), None, None, Some(records[1].id.as_str())]);

    let name = r"O'Brien \ Söhne % 'x";
    let made = bed.post("create", json!({"entity": "Account", "values": {"Name": name, "Credit_Limit__c": 12.50}})).await;
    let criteria = [("Name".parse().unwrap(), json!(name)), ("Credit_Limit__c".parse().unwrap(), json!("12.5"))];
    let found = bed.client.search("Account", &paths(FIELDS), &criteria).await.unwrap();
    assert_eq!(found.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), [made["Id"].as_str().unwrap()]);
    assert_eq!(found[0].body["Credit_Limit__c"], "12.5");
}

#[tokio::test]
async fn creates_upsert_on_the_correlation_field_in_batches() {
    let bed = bed(3).await;
    let item = |n: usize| {
        create(Some(("Fairlead_Id__c", &format!("id-{n:04}"))), json!({"Name": format!("Made {n}"), "Credit_Limit__c": "1234567890.12"}))
    };
    let before = bed.total().await;
    let written = bed.client.write(&batch("Account", (0..450).map(item).collect())).await;
    assert!(written.iter().all(|result| result.as_ref().is_ok_and(|written| written.created)), "{:?}", written.iter().find(|r| r.is_err()));
    assert!(bed.total().await - before <= 4, "450 records in three requests and a token");
    let again = bed.client.write(&batch("Account", vec![item(7), item(8)])).await;
    for (first, second) in written[7..9].iter().zip(&again) {
        let (first, second) = (first.as_ref().unwrap(), second.as_ref().unwrap());
        assert_eq!(first.id, second.id);
        assert!(!second.created);
    }
    let read = bed
        .client
        .read_keys("Account", &paths(&["Credit_Limit__c", "Fairlead_Id__c"]), &[written[7].as_ref().unwrap().id.clone()])
        .await
        .unwrap();
    assert_eq!(read[0].as_ref().unwrap().body["Credit_Limit__c"], "1234567890.12");
    assert_eq!(read[0].as_ref().unwrap().body["Fairlead_Id__c"], "id-0007");
}

#[tokio::test]
async fn each_item_gets_its_own_result_in_its_own_place() {
    let bed = bed(5).await;
    let (records, ..) = bed.pass("Account", "main", &["Name", "ParentId"], None).await;
    let id = |n: usize| records[n].id.as_str();
    let childless =
        records.iter().find(|record| !records.iter().any(|other| other.body["ParentId"].as_str() == Some(record.id.as_str()))).unwrap();
    let other = records.iter().find(|record| record.id != childless.id).unwrap();
    let results = bed
        .client
        .write(&batch(
            "Account",
            vec![
                change(WriteOperation::Update, other.id.as_str(), json!({"Name": "First"})),
                change(WriteOperation::Update, other.id.as_str(), json!({"Phone": "1"})),
                change(WriteOperation::Update, "001000000000000AAA", json!({"Name": "Nobody"})),
                create(None, json!({"Phone": "1"})),
                change(WriteOperation::Delete, childless.id.as_str(), json!({})),
                change(WriteOperation::Archive, id(0), json!({})),
                create(Some(("Name", "x")), json!({})),
            ],
        ))
        .await;
    assert_eq!(results[0].as_ref().unwrap().id, other.id);
    assert!(results[1].is_ok(), "a second write of one record goes into another request: {:?}", results[1]);
    assert!(matches!(class(&results[2]), Some((ErrorClass::NotFound | ErrorClass::Data, _))), "{:?}", results[2]);
    assert_eq!(class(&results[3]), Some((ErrorClass::Data, "ValidationFailed")));
    assert_eq!(results[3].as_ref().unwrap_err().field.as_deref(), Some("Name"));
    assert!(results[3].as_ref().unwrap_err().message.contains("REQUIRED_FIELD_MISSING"), "{:?}", results[3]);
    assert!(results[4].is_ok());
    assert_eq!(class(&results[5]), Some((ErrorClass::Configuration, "DefinitionInvalid")));
    assert_eq!(class(&results[6]), Some((ErrorClass::Configuration, "DefinitionInvalid")));
    let held = bed.get("records/Account").await;
    let held: Vec<&Value> = held.as_array().unwrap().iter().filter(|record| record["Id"] == other.id.as_str()).collect();
    assert_eq!((&held[0]["Name"], &held[0]["Phone"]), (&json!("First"), &json!("1")));
}

#[tokio::test]
async fn items_that_fail_in_a_batch_fail_alone() {
    let bed = bed(3).await;
    bed.faults(json!([{"match": {"operation": "write"}, "fault": "partialBatchFailure", "items": [1]}])).await;
    let items = (0..3).map(|n| create(Some(("Fairlead_Id__c", &format!("p-{n}"))), json!({"Name": "x"}))).collect();
    let results = bed.client.write(&batch("Account", items)).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(class(&results[1]), Some((ErrorClass::Transient, "RecordConflict")));
    assert_eq!(bed.client.circuit(), Circuit::Closed);
}

#[tokio::test]
async fn a_write_without_an_answer_has_an_unknown_outcome_whether_it_took_effect_or_not() {
    for (fault, exists) in [("timeoutAfterEffect", 1), ("timeoutBeforeEffect", 0)] {
        let bed = bed(3).await;
        bed.faults(json!([{"match": {"operation": "write"}, "fault": fault, "millis": 10}])).await;
        let results = bed.client.write(&batch("Account", vec![create(Some(("Fairlead_Id__c", "u-1")), json!({"Name": "Unknown"}))])).await;
        assert_eq!(class(&results[0]), Some((ErrorClass::UnknownOutcome, "OutcomeUnknown")), "{fault}");
        let found = bed.client.search("Account", &paths(&["Name"]), &[("Fairlead_Id__c".parse().unwrap(), json!("u-1"))]).await.unwrap();
        assert_eq!(found.len(), exists, "{fault}");
    }
}

#[tokio::test]
async fn a_connection_that_never_came_about_is_transient() {
    let mut bed = bed(3).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bed.reconnect(|unit| unit.endpoint = format!("http://{closed}"));
    let results = bed.client.write(&batch("Account", vec![create(None, json!({"Name": "x"}))])).await;
    assert_eq!(class(&results[0]), Some((ErrorClass::Transient, "EndpointUnreachable")));
    for _ in 0..4 {
        assert!(bed.client.probe().await.is_err());
    }
    assert_eq!(bed.client.circuit(), Circuit::Open);
    assert_eq!(class(&bed.client.probe().await), Some((ErrorClass::Transient, "CircuitOpen")));
}

#[tokio::test]
async fn the_limit_is_a_wait_during_which_nothing_is_sent() {
    let bed = bed(3).await;
    assert_eq!(bed.client.probe().await, Ok(()));
    bed.faults(json!([{"match": {"operation": "read"}, "fault": "limit"}])).await;
    let refused = bed.client.probe().await;
    assert_eq!(class(&refused), Some((ErrorClass::Throttled, "RateLimited")));
    assert!(refused.unwrap_err().retry_after.unwrap() >= Duration::from_secs(15));
    assert_eq!(bed.client.quota(), Quota::Exhausted);
    assert!(bed.client.throttled_until().is_some());
    let before = bed.total().await;
    let written = bed.client.write(&batch("Account", vec![create(None, json!({"Name": "x"}))])).await;
    assert_eq!(class(&written[0]), Some((ErrorClass::Throttled, "RateLimited")));
    assert_eq!(class(&bed.read("Account", "main", &["Name"], None).await), Some((ErrorClass::Throttled, "RateLimited")));
    assert_eq!(bed.total().await, before, "not one request before the time is over");
    assert_eq!(bed.client.circuit(), Circuit::Closed);
}

#[tokio::test]
async fn an_expired_token_is_renewed_once_for_all_and_the_calls_are_sent_again() {
    let bed = bed(200).await;
    bed.client.probe().await.unwrap();
    bed.post("expire-tokens", json!({})).await;
    let tokens = bed.requests("token").await;
    let items = |n: usize| batch("Account", vec![create(Some(("Fairlead_Id__c", &format!("t-{n}"))), json!({"Name": "x"}))]);
    let batches: Vec<_> = (0..6).map(items).collect();
    let results = futures::future::join_all(batches.iter().map(|batch| bed.client.write(batch))).await;
    assert!(results.iter().flatten().all(Result::is_ok), "{results:?}");
    assert_eq!(bed.requests("token").await - tokens, 1, "one caller fetches the token for all");
    assert_eq!(bed.client.auth_paused(), None);
}

#[tokio::test]
async fn wrong_credentials_pause_the_client_until_the_secret_changes() {
    let bed = bed(3).await;
    let right = bed.simulator.credentials()["clientSecret"].clone();
    bed.secrets.set("clientSecret", "wrong-secret-value");
    let refused = bed.client.probe().await;
    assert_eq!(class(&refused), Some((ErrorClass::Auth, "AuthenticationFailed")));
    assert!(!refused.unwrap_err().message.contains("wrong-secret-value"));
    assert_eq!(bed.client.auth_paused().unwrap().error.reason, "AuthenticationFailed");
    let before = bed.total().await;
    for _ in 0..20 {
        assert_eq!(class(&bed.client.probe().await), Some((ErrorClass::Auth, "AuthenticationFailed")));
    }
    assert_eq!(bed.total().await, before, "one refusal, no storm");
    bed.secrets.set("clientSecret", &right);
    bed.client.refresh_secret().await.unwrap();
    assert_eq!(bed.client.probe().await, Ok(()));
    assert_eq!(bed.client.auth_paused(), None);
}

#[tokio::test]
async fn wrong_credentials_are_asked_about_once_however_many_want_them() {
    let bed = bed(3).await;
    let right = bed.simulator.credentials()["clientSecret"].clone();
    bed.secrets.set("clientSecret", "wrong-secret-value");
    let results = futures::future::join_all((0..40).map(|_| bed.client.probe())).await;
    assert!(results.iter().all(|result| class(result) == Some((ErrorClass::Auth, "AuthenticationFailed"))), "{results:?}");
    assert_eq!((bed.requests("token").await, bed.total().await), (1, 1), "those in line share the answer");
    bed.secrets.set("clientSecret", &right);
    bed.client.refresh_secret().await.unwrap();
    let results = futures::future::join_all((0..40).map(|_| bed.client.probe())).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(bed.requests("token").await, 2);
}

#[tokio::test]
async fn a_missing_key_and_an_unusable_one_are_named() {
    let mut bed = bed(3).await;
    bed.secrets.put([("clientId", "x")], "127.0.0.1");
    let error = bed.client.probe().await.unwrap_err();
    assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Configuration, "SecretKeyMissing"));
    assert!(error.message.contains("\"clientSecret\""), "{}", error.message);
    bed.secrets.put([("clientId", "x"), ("username", "u"), ("privateKey", "garbage")], "127.0.0.1");
    bed.reconnect(|unit| unit.auth_method = "JwtBearer".into());
    let error = bed.client.probe().await.unwrap_err();
    assert_eq!(error.reason, "SecretKeyMissing");
    assert!(error.message.contains("privateKey") && !error.message.contains("garbage"), "{}", error.message);
}

#[tokio::test]
async fn a_maintenance_page_with_status_200_is_never_data() {
    let bed = bed(3).await;
    bed.client.probe().await.unwrap();
    let page = json!([{"match": {"operation": "read"}, "fault": "maintenancePage"}, {"match": {"operation": "write"}, "fault": "maintenancePage"}]);
    bed.faults(page).await;
    assert_eq!(class(&bed.read("Account", "main", &["Name"], None).await), Some((ErrorClass::Transient, "MaintenancePage")));
    let written = bed.client.write(&batch("Account", vec![create(None, json!({"Name": "x"}))])).await;
    assert_eq!(class(&written[0]), Some((ErrorClass::UnknownOutcome, "OutcomeUnknown")));
    assert_eq!(bed.pass("Account", "main", &["Name"], None).await.0.len(), 3);
}

#[tokio::test]
async fn a_dripping_answer_is_waited_for_until_the_deadline_and_no_longer() {
    let bed = bed(30).await;
    bed.client.probe().await.unwrap();
    bed.faults(json!([{"match": {"operation": "read"}, "fault": "slowDrip", "millis": 20000}])).await;
    let request = fairlead_systems::ReadRequest {
        entity: "Account".into(),
        slice: "main".into(),
        fields: paths(&["Name"]),
        cursor: None,
        deadline: Duration::from_millis(600),
    };
    let started = std::time::Instant::now();
    assert_eq!(class(&bed.client.read_page(&request).await), Some((ErrorClass::Transient, "EndpointUnreachable")));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_retired_version_and_a_host_that_the_secret_does_not_allow_are_configuration() {
    let mut bed = bed(3).await;
    bed.reconnect(|unit| unit.version = "20.0".into());
    assert_eq!(class(&bed.client.probe().await), Some((ErrorClass::Configuration, "VersionRetired")));
    bed.reconnect(|unit| unit.version = "67.0".into());
    let credentials = bed.simulator.credentials().clone();
    bed.secrets.put(credentials.iter().map(|(key, value)| (key.as_str(), value.as_str())), "acme.my.salesforce.com");
    let before = bed.total().await;
    let error = bed.client.probe().await.unwrap_err();
    assert_eq!((error.class, error.reason.as_str()), (ErrorClass::Configuration, "SecretHostNotAllowed"));
    assert!(error.message.contains("fairlead.dev/allowed-hosts"));
    assert_eq!(bed.total().await, before, "not even the token request was sent");
}

#[tokio::test]
async fn tls_is_verified_against_the_connectors_own_authority() {
    let options = fairlead_simulators::Options { records: 3, tls: true, ..fairlead_simulators::Options::new(System::Salesforce) };
    let simulator = fairlead_simulators::Simulator::start(options).await.unwrap();
    let credentials = simulator.credentials();
    let secrets = common::Secrets::of(credentials.iter().map(|(key, value)| (key.as_str(), value.as_str())), "127.0.0.1");
    let definition = fairlead_systems::Catalog::builtin().get("salesforce").unwrap().text();
    let mut unit = common::unit(definition, "salesforce", simulator.endpoint(), "ClientCredentials");
    let error = common::connect(&unit, &secrets).probe().await.unwrap_err();
    assert_eq!(error.reason, "EndpointUnreachable");
    assert!(error.message.to_lowercase().contains("certificate"), "{}", error.message);
    unit.ca_pem = simulator.authority().map(str::to_owned);
    assert_eq!(common::connect(&unit, &secrets).probe().await, Ok(()));
}

#[tokio::test]
async fn a_field_that_the_vendor_does_not_know_is_drift_and_no_record_is_blamed() {
    let mut bed = bed(3).await;
    let extension = format!("{EXTENSION}  - {{name: Gone__c, type: String}}\n");
    let definition = fairlead_systems::Catalog::builtin().resolve(&extension).unwrap();
    bed.reconnect(|unit| unit.definition = definition.text().clone());
    assert_eq!(class(&bed.read("Account", "main", &["Gone__c"], None).await), Some((ErrorClass::Configuration, "SchemaDrift")));
    assert_eq!(class(&bed.read("Account", "main", &["Nonsense"], None).await), Some((ErrorClass::Configuration, "DefinitionInvalid")));
}

#[tokio::test]
async fn a_childs_change_re_reads_its_parent_and_nothing_is_asked_while_no_child_is_wanted() {
    let bed = bed(30).await;
    bed.client.probe().await.unwrap();
    let before = bed.total().await;
    let (none, cursor, _) = bed.pass("Account", "Contacts", FIELDS, None).await;
    assert_eq!((none.len(), bed.total().await), (0, before));
    let fields = &["Name", "Contacts.records[]", "Contacts.records[].Email"];
    let (parents, cursor, _) = bed.pass("Account", "Contacts", fields, Some(cursor)).await;
    assert!(!parents.is_empty());
    let parent = parents[0].id.clone();
    let child = parents[0].body["Contacts"]["records"][0]["Id"].as_str().unwrap().to_owned();
    bed.post("edit", json!({"entity": "Contact", "id": child, "values": {"Email": "changed@fairlead.example"}})).await;
    let (changed, cursor, _) = bed.pass("Account", "Contacts", fields, Some(cursor)).await;
    assert!(changed.iter().any(|record| record.id == parent && record.original().contains("changed@fairlead.example")), "{changed:?}");
    bed.post("delete", json!({"entity": "Contact", "id": child})).await;
    let (changed, ..) = bed.pass("Account", "Contacts", fields, Some(cursor)).await;
    let after = changed.iter().find(|record| record.id == parent).expect("a deleted child is a change of its parent");
    assert!(!after.original().contains("changed@fairlead.example"));
}

#[tokio::test]
async fn a_system_that_shows_only_a_web_page_opens_the_circuit() {
    let bed = bed(3).await;
    bed.client.probe().await.unwrap();
    bed.faults(json!([{"match": {"operation": "read"}, "fault": "maintenancePage", "times": "forever"}])).await;
    for _ in 0..5 {
        assert_eq!(class(&bed.client.probe().await), Some((ErrorClass::Transient, "MaintenancePage")));
    }
    assert_eq!(bed.client.circuit(), Circuit::Open);
}

/// A change that becomes visible only after the reader has passed its place is seen by the next pass.
#[tokio::test]
async fn what_becomes_visible_late_is_read_late_but_read() {
    let bed = bed(10).await;
    let (records, cursor, _) = bed.pass("Account", "main", FIELDS, None).await;
    let id = records[2].id.as_str();
    bed.post("edit", json!({"entity": "Account", "id": id, "values": {"Name": "Late"}})).await;
    bed.faults(json!([{"match": {"operation": "read"}, "fault": "staleRead", "millis": 60000}])).await;
    let (before, cursor, _) = bed.pass("Account", "main", FIELDS, Some(cursor)).await;
    assert!(!before.iter().any(|record| record.body["Name"] == "Late"), "the reader was shown an older state");
    let (after, ..) = bed.pass("Account", "main", FIELDS, Some(cursor)).await;
    assert!(after.iter().any(|record| record.id.as_str() == id && record.body["Name"] == "Late"));
}

#[tokio::test]
async fn nulls_clear_fields() {
    let bed = bed(3).await;
    let made = bed.client.write(&batch("Account", vec![create(None, json!({"Name": "x", "Phone": "1"}))])).await;
    let id = made[0].as_ref().unwrap().id.clone();
    let cleared = bed.client.write(&batch("Account", vec![change(WriteOperation::Update, id.as_str(), json!({"Phone": null}))])).await;
    assert!(cleared[0].is_ok());
    let read = bed.client.read_keys("Account", &paths(&["Phone"]), &[id]).await.unwrap();
    assert_eq!(read[0].as_ref().unwrap().body["Phone"], Value::Null);
}
