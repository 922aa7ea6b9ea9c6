//! One golden record, fed by two Integrations: the quickstart's pair, each system in an Integration of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use fairlead_tests::two_systems::{Fairlead, Manifests, TwoSystems, text};
use fairlead_tests::{Seen, wait_until};
use serde_json::{Value, json};

/// Longer than any step takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Salesforce shows what was written without an answer only after a minute; until then nobody looks.
const AFTER_A_CRASH: Duration = Duration::from_secs(150);

/// The quickstart with its rules in the contract, and NetSuite in an Integration called `books`.
fn golden(systems: &TwoSystems) -> anyhow::Result<Manifests> {
    let mut manifests = systems.manifests()?;
    let integration = manifests.integration()?;
    let mut books = integration.clone();
    books["metadata"]["name"] = json!("books");
    let mut rules = json!({"scope": "Contract"});
    for (document, participant) in [(integration, "crm"), (&mut books, "erp")] {
        let sync = document["spec"]["sync"].as_object_mut().unwrap();
        for rule in ["match", "ownership"] {
            rules[rule] = sync.remove(rule).unwrap();
        }
        sync["participants"].as_array_mut().unwrap().retain(|each| each["name"] == participant);
    }
    manifests.document("ApiContract", "customer-v1")?["spec"]["master"] = rules;
    manifests.add("41-books.yaml", books);
    Ok(manifests)
}

/// The status of an Integration.
async fn integration(worker: &Fairlead, name: &str) -> anyhow::Result<Value> {
    let status = worker.status().await?;
    let items = status["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["kind"] == "Integration" && item["metadata"]["name"] == name);
    Ok(found.map(|item| item["status"].clone()).unwrap_or_default())
}

/// Waits until both are Ready and every lane is empty.
async fn ready(worker: &Fairlead, deadline: Duration) -> anyhow::Result<()> {
    wait_until("two Ready integrations with empty lanes", deadline, async || {
        let (mut ready, mut told) = (worker.pending().await? == 0, String::new());
        for name in ["customers", "books"] {
            let status = integration(worker, name).await?;
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            ready &= conditions.iter().any(|found| found["type"] == "Ready" && found["status"] == "True");
            told = format!("{told}{name}: {status}\n");
        }
        Ok(Seen::when(ready, format_args!("{} pending, {told}", worker.pending().await?)))
    })
    .await
}

#[tokio::test]
async fn two_integrations_feed_one_record_and_a_crash_in_between_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let systems = TwoSystems::start(3, (5_000, 30), (5_015, 30)).await?;
    systems.apply(&golden(&systems)?)?;
    for point in ["source.absorbed:2", "lane.written:1"] {
        let mut victim = systems.fairlead("victim", |command| {
            command.env("FAIRLEAD_CRASH_AT", point);
        })?;
        let status = victim.process.end(SOON).await?;
        assert!(!status.success(), "{point} was never passed");
    }
    let worker = systems.fairlead("worker", |_| {})?;
    ready(&worker, AFTER_A_CRASH).await?;
    systems.in_step(SOON).await?;

    // The ERP owns the credit limit: what the CRM says of it is put back, counted, and kept.
    let account = systems.salesforce.records().await?.into_iter().find(|account| !text(account, "Credit_Limit__c").is_empty()).unwrap();
    let (id, credit) = (text(&account, "Id"), text(&account, "Credit_Limit__c"));
    systems.salesforce.edit(&id, json!({"Credit_Limit__c": 4711})).await?;
    wait_until("the conflict", SOON, async || {
        let status = integration(&worker, "customers").await?;
        let counted = worker.metric("fairlead_conflicts_total").await?;
        let back = text(&systems.salesforce.record(&id).await?, "Credit_Limit__c") == credit;
        Ok(Seen::when(back && counted == 1, format_args!("{counted} counted, {status}")))
    })
    .await?;
    let trace = |values: bool| {
        let (systems, id) = (&systems, id.clone());
        async move {
            let mut arguments = vec!["trace", id.as_str(), "--participant", "crm", "--integration", "north-america/customers"];
            arguments.extend(values.then_some("--values"));
            systems.ask(&arguments).await
        }
    };
    let told = trace(true).await?;
    assert!(told.contains("north-america/customers/crm") && told.contains("north-america/books/erp") && told.contains("4711"), "{told}");
    let masked = trace(false).await?;
    assert!(masked.contains("creditLimit") && !masked.contains("4711") && !masked.contains(&text(&account, "Name")), "{masked}");

    let report = systems.judged().await?;
    report.correct()?;
    assert_eq!(report.foreign_edits, 1, "{report}");
    worker.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_integration_that_contradicts_the_contract_is_refused_and_the_other_goes_on() -> anyhow::Result<()> {
    let systems = TwoSystems::start(4, (5_000, 5), (5_000, 5)).await?;
    let mut manifests = golden(&systems)?;
    systems.apply(&manifests)?;
    let worker = systems.fairlead("worker", |_| {})?;
    ready(&worker, SOON).await?;
    manifests.document("Integration", "books")?["spec"]["sync"]["tie"] = json!("Latest");
    systems.apply(&manifests)?;
    let refused = wait_until("the refusal", SOON, async || {
        let status = integration(&worker, "books").await?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let accepted = conditions.into_iter().find(|condition| condition["type"] == "Accepted").unwrap_or_default();
        Ok(if accepted["status"] == "False" { Seen::Yes(accepted) } else { Seen::NotYet(accepted.to_string()) })
    })
    .await?;
    let message = refused["message"].as_str().unwrap();
    assert!(message.starts_with("spec.sync.tie: ApiContract north-america/customer-v1 says this for all its Integrations"), "{message}");
    // Its last good unit goes on, and so does the other one.
    let account = systems.salesforce.records().await?.remove(0);
    systems.salesforce.edit(&text(&account, "Id"), json!({"Phone": "+1 555 0100"})).await?;
    wait_until("the edit", SOON, async || {
        let customer = systems.netsuite.find("vatRegNumber", &text(&account, "Tax_Number__c")).await?;
        Ok(Seen::when(text(&customer, "phone") == "+1 555 0100", text(&customer, "phone")))
    })
    .await?;
    worker.stop().await?;
    Ok(())
}
