//! The hard cases of the design that two systems can show, each with a test of its name.
//!
//! Salesforce and NetSuite hold a few dozen companies; `fairlead run` keeps them in step by the quickstart's manifests; people and faults do
//! what the case is about. What happened is read from the systems: their contents, their logs, their counters of requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use fairlead_simulators::core::value::Value as Native;
use fairlead_simulators::history::{Entry, Origin, Outcome};
use fairlead_store::contract_tests::archive;
use fairlead_store::contract_tests::server::{Server, Small};
use fairlead_tests::two_systems::{Fairlead, Manifests, Simulated, TwoSystems, text};
use fairlead_tests::{Seen, fairlead, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Longer than any step takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Accounts 5,000 to 5,029 and customers 5,015 to 5,044: half of each are the same company.
async fn two_systems() -> anyhow::Result<TwoSystems> {
    TwoSystems::start(3, (5_000, 30), (5_015, 30)).await
}

/// The two systems after their first load, with the worker that did it.
async fn in_step() -> anyhow::Result<(TwoSystems, Fairlead)> {
    in_step_by(|_| Ok(())).await
}

/// Likewise, by manifests that differ from the quickstart's.
async fn in_step_by(change: impl FnOnce(&mut Manifests) -> anyhow::Result<()>) -> anyhow::Result<(TwoSystems, Fairlead)> {
    let systems = two_systems().await?;
    let mut manifests = systems.manifests()?;
    change(&mut manifests)?;
    systems.apply(&manifests)?;
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    Ok((systems, worker))
}

/// The account and the customer of one company that both systems held from the start, with a phone number and a credit limit.
async fn one_company(systems: &TwoSystems) -> anyhow::Result<(Native, Native)> {
    let [left, right] = systems.told().await?;
    for account in left.before {
        let complete = ["Phone", "Email__c", "Tax_Number__c"].iter().all(|field| !text(&account, field).is_empty());
        let same = |customer: &&Native| text(customer, "vatRegNumber") == text(&account, "Tax_Number__c");
        if complete
            && let Some(customer) = right.before.iter().find(same)
            && !text(customer, "creditLimit").is_empty()
        {
            return Ok((account, customer.clone()));
        }
    }
    anyhow::bail!("no company is complete in both systems")
}

/// Waits until a system was polled so often again; whatever was to follow from what happened before has been seen by then.
async fn polls(side: &Simulated, more: u64) -> anyhow::Result<()> {
    let before = side.requests("query").await?;
    wait_until(&format!("{more} more polls"), SOON, async || {
        let now = side.requests("query").await?;
        // A poll asks for changes and, in NetSuite, for deletions.
        Ok(Seen::when(now >= before + 2 * more, format_args!("{now} queries after {before}")))
    })
    .await
}

/// Waits until a field of a record holds `value`.
async fn holds(side: &Simulated, id: &str, field: &str, value: &str) -> anyhow::Result<()> {
    wait_until(&format!("{field} of {id} to be {value}"), SOON, async || {
        let record = side.record(id).await?;
        Ok(Seen::when(text(&record, field) == value, format_args!("{record}")))
    })
    .await
}

/// What the API wrote, or tried to write, since a mark.
async fn writes(side: &Simulated, mark: u64) -> anyhow::Result<Vec<Entry>> {
    Ok(side.log(mark).await?.into_iter().filter(|entry| entry.origin == Origin::Api).collect())
}

/// The outcomes of what the API wrote since a mark.
async fn outcomes(side: &Simulated, mark: u64) -> anyhow::Result<Vec<Outcome>> {
    Ok(writes(side, mark).await?.iter().map(|entry| entry.outcome).collect())
}

fn new_account(name: &str, tax: &str) -> Value {
    json!({"Name": name, "Tax_Number__c": tax, "Phone": "+49 30 1", "Type": "Customer", "BillingCountryCode": "DE"})
}

/// Waits for the customer with this tax number; its id.
async fn customer_of(systems: &TwoSystems, tax: &str) -> anyhow::Result<String> {
    wait_until("its customer", SOON, async || {
        let found = systems.netsuite.find("vatRegNumber", tax).await;
        Ok(found.map_or_else(|error| Seen::NotYet(error.to_string()), |customer| Seen::Yes(text(&customer, "id"))))
    })
    .await
}

/// One rule of a fault script about writes.
fn on_write(fault: Value) -> Value {
    let mut rule = json!({"match": {"operation": "write"}});
    rule.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
    json!([rule])
}

#[tokio::test]
async fn create_with_unknown_outcome_is_looked_up_and_not_sent_again() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    // The creation takes effect and its answer never comes; both ways round.
    for side in [&systems.netsuite, &systems.salesforce] {
        side.faults(on_write(json!({"fault": "timeoutAfterEffect", "times": 1, "millis": 100}))).await?;
    }
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    systems.salesforce.create(new_account("Made on the left", "DE-LEFT")).await?;
    let customer = json!({"companyName": "Made on the right", "vatRegNumber": "DE-RIGHT", "subsidiary": {"id": "3"}, "creditLimit": 5});
    systems.netsuite.create(customer).await?;
    systems.in_step(SOON).await?;
    worker.ready(SOON).await?;
    for (side, mark) in [(&systems.netsuite, right), (&systems.salesforce, left)] {
        let written = writes(side, mark).await?;
        assert_eq!(written.iter().map(|entry| entry.outcome).collect::<Vec<_>>(), [Outcome::Created], "{written:#?}");
        assert!(!written[0].answered);
    }
    worker.stop().await
}

#[tokio::test]
async fn create_that_never_took_effect_is_sent_again_after_looking() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let mark = systems.netsuite.mark().await?;
    systems.netsuite.faults(on_write(json!({"fault": "timeoutBeforeEffect", "times": 1, "millis": 100}))).await?;
    systems.salesforce.create(new_account("Made on the left", "DE-LEFT")).await?;
    systems.in_step(SOON).await?;
    assert_eq!(outcomes(&systems.netsuite, mark).await?, [Outcome::Rejected, Outcome::Created]);
    worker.stop().await
}

/// NetSuite gets no field that holds Fairlead's id: what was created there is found by the match rules alone.
fn without_key(manifests: &mut Manifests) -> anyhow::Result<()> {
    manifests.participant("erp")?["write"].as_object_mut().unwrap().remove("key");
    manifests.extend_definition("netsuite-acme", "timeout: 3s\n")
}

#[tokio::test]
async fn create_with_unknown_outcome_is_searched_by_the_match_rules_where_there_is_no_key() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(without_key).await?;
    for (fault, tax, expected) in [
        ("timeoutAfterEffect", "DE-AFTER", &[Outcome::Created][..]),
        ("timeoutBeforeEffect", "DE-BEFORE", &[Outcome::Rejected, Outcome::Created][..]),
    ] {
        let mark = systems.netsuite.mark().await?;
        systems.netsuite.faults(on_write(json!({"fault": fault, "times": 1, "millis": 100}))).await?;
        systems.salesforce.create(new_account(&format!("Made on the left, {fault}"), tax)).await?;
        systems.in_step(SOON).await?;
        worker.ready(SOON).await?;
        assert_eq!(outcomes(&systems.netsuite, mark).await?, expected, "{fault}");
    }
    worker.stop().await
}

#[tokio::test]
async fn create_with_unknown_outcome_that_several_records_fit_is_a_dead_letter() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(without_key).await?;
    systems.netsuite.faults(on_write(json!({"fault": "timeoutAfterEffect", "times": 1, "millis": 100}))).await?;
    systems.salesforce.create(new_account("Made twice", "DE-TWICE")).await?;
    wait_until("the creation without an answer", SOON, async || {
        Ok(Seen::when(systems.netsuite.find("vatRegNumber", "DE-TWICE").await.is_ok(), "not created"))
    })
    .await?;
    // Before anybody looks, somebody enters the same company by hand.
    let by_hand = json!({"companyName": "Made by hand", "vatRegNumber": "DE-TWICE", "subsidiary": {"id": "3"}});
    systems.netsuite.create(by_hand).await?;
    let mark = systems.netsuite.mark().await?;
    wait_until("its dead letter", SOON, async || {
        let letters = systems.open_letters(true).await?;
        let told = letters.iter().any(|letter| letter["reason"] == "OutcomeUnknown" && letter["participant"] == "erp");
        Ok(Seen::when(told, format_args!("{letters:?}")))
    })
    .await?;
    assert!(!outcomes(&systems.netsuite, mark).await?.contains(&Outcome::Created), "a third one was made");
    worker.stop().await
}

#[tokio::test]
async fn first_apply_searches_a_target_that_is_not_read_before_it_creates() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    let mut manifests = systems.manifests()?;
    manifests.participant("erp")?.as_object_mut().unwrap().remove("read");
    systems.apply(&manifests)?;
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    let customers = systems.netsuite.records().await?;
    assert_eq!(customers.len(), 45, "15 of 30 accounts are customers already");
    let numbers: BTreeSet<String> = customers.iter().map(|customer| text(customer, "vatRegNumber")).collect();
    assert_eq!(numbers.len(), 45, "a company is there twice");
    let outcomes = outcomes(&systems.netsuite, 0).await?;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Created).count(), 15, "{outcomes:?}");
    assert!(!outcomes.contains(&Outcome::Unchanged), "{outcomes:?}");
    assert!(systems.open_letters(true).await?.is_empty());
    // What was found is known from then on: an edit is written to it.
    let account = systems.told().await?[0].after.iter().find(|account| !text(account, "Phone").is_empty()).cloned().unwrap();
    systems.salesforce.edit(&text(&account, "Id"), json!({"Phone": "+49 30 77"})).await?;
    let customer = systems.netsuite.find("vatRegNumber", &text(&account, "Tax_Number__c")).await?;
    holds(&systems.netsuite, &text(&customer, "id"), "phone", "+49 30 77").await?;
    assert_eq!(systems.netsuite.records().await?.len(), 45);
    worker.stop().await
}

#[tokio::test]
async fn first_apply_with_both_systems_full_creates_nothing_before_all_is_matched() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    // NetSuite takes writes but cannot be read: nothing is known of what it holds.
    systems.netsuite.faults(json!([{"match": {"operation": "read"}, "fault": "status", "status": 503, "times": "forever"}])).await?;
    let worker = systems.fairlead("worker", |_| {})?;
    wait_until("all accounts waiting for NetSuite", SOON, async || {
        let pending = worker.pending().await?;
        Ok(Seen::when(pending == 30, format_args!("{pending} pending")))
    })
    .await?;
    wait_until("several attempts to read NetSuite", SOON, async || {
        let counters = systems.netsuite.counters().await?;
        Ok(Seen::when(counters["faultsFired"][0].as_u64().is_some_and(|fired| fired >= 4), format_args!("{counters}")))
    })
    .await?;
    assert!(writes(&systems.netsuite, 0).await?.is_empty(), "created before it was read");
    systems.netsuite.faults(json!([])).await?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;

    for (side, created) in [(&systems.salesforce, 15), (&systems.netsuite, 15)] {
        let outcomes = outcomes(side, 0).await?;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Created).count(), created, "{outcomes:?}");
        assert!(!outcomes.contains(&Outcome::Unchanged), "{outcomes:?}");
    }
    // An owner's empty value replaced nothing: what only NetSuite had is in both.
    let [left, right] = systems.told().await?;
    let mut filled = 0;
    for account in left.before.iter().filter(|account| text(account, "Website").is_empty()) {
        let tax = text(account, "Tax_Number__c");
        if let Some(customer) =
            right.before.iter().find(|customer| text(customer, "vatRegNumber") == tax && !text(customer, "url").is_empty())
        {
            assert_eq!(text(&systems.salesforce.find("Tax_Number__c", &tax).await?, "Website"), text(customer, "url"));
            filled += 1;
        }
    }
    assert!(filled > 0, "no company shows the case; choose another seed");
    worker.stop().await
}

#[tokio::test]
async fn first_apply_makes_a_second_external_id_of_one_record_a_dead_letter() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    let (account, _) = one_company(&systems).await?;
    let tax = text(&account, "Tax_Number__c");
    let twin = json!({"companyName": "The same again", "vatRegNumber": tax, "subsidiary": {"id": "3"}});
    systems.netsuite.create(twin).await?;
    let worker = systems.fairlead("worker", |_| {})?;
    let letters = wait_until("the dead letter of the twin", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(if letters.len() == 1 { Seen::Yes(letters) } else { Seen::NotYet(format!("{letters:?}")) })
    })
    .await?;
    assert_eq!(
        (letters[0]["reason"].as_str(), letters[0]["participant"].as_str()),
        (Some("DuplicateIdentity"), Some("erp")),
        "{letters:?}"
    );
    // Everything else goes on.
    wait_until("every other company in both systems", SOON, async || {
        let (left, right) = (systems.salesforce.records().await?.len(), systems.netsuite.records().await?.len());
        Ok(Seen::when((left, right) == (45, 46), format_args!("{left} accounts, {right} customers")))
    })
    .await?;
    worker.stop().await
}

#[tokio::test]
async fn vendor_normalises_and_nobody_fights_over_capitals() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    systems.salesforce.edit(&text(&account, "Id"), json!({"Email__c": "Office@ACME.example"})).await?;
    holds(&systems.netsuite, &text(&customer, "id"), "email", "office@acme.example").await?;
    for side in [&systems.netsuite, &systems.salesforce] {
        polls(side, 4).await?;
    }
    worker.ready(SOON).await?;
    assert!(writes(&systems.salesforce, left).await?.is_empty(), "the owner's capitals were taken away");
    assert_eq!(text(&systems.salesforce.record(&text(&account, "Id")).await?, "Email__c"), "Office@ACME.example");
    let written = writes(&systems.netsuite, right).await?;
    assert!(written.len() <= 2, "a fight: {written:#?}");
    // A real edit there is still seen, and put back.
    systems.netsuite.edit(&text(&customer, "id"), json!({"email": "somebody@else.example"})).await?;
    holds(&systems.netsuite, &text(&customer, "id"), "email", "office@acme.example").await?;
    worker.stop().await
}

#[tokio::test]
async fn stale_reads_revert_nothing() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    // Each system is written, and owns a field that was edited; then both show for a while what they held before that.
    systems.salesforce.edit(&account, json!({"Phone": "+49 30 22"})).await?;
    systems.netsuite.edit(&customer, json!({"creditLimit": 22_000})).await?;
    holds(&systems.netsuite, &customer, "phone", "+49 30 22").await?;
    holds(&systems.salesforce, &account, "Credit_Limit__c", "22000.0").await?;
    for side in [&systems.salesforce, &systems.netsuite] {
        side.faults(json!([{"match": {"operation": "read"}, "fault": "staleRead", "millis": 20_000, "times": "forever"}])).await?;
    }
    for side in [&systems.salesforce, &systems.netsuite] {
        polls(side, 5).await?;
        side.faults(json!([])).await?;
    }
    for side in [&systems.salesforce, &systems.netsuite] {
        polls(side, 2).await?;
    }
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    for (side, mark) in [(&systems.salesforce, left), (&systems.netsuite, right)] {
        let written = writes(side, mark).await?;
        assert_eq!(written.iter().map(|entry| entry.outcome).collect::<Vec<_>>(), [Outcome::Updated], "{written:#?}");
    }
    worker.stop().await
}

#[tokio::test]
async fn two_systems_edit_different_fields_of_one_record_and_both_survive() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    // Nobody looks while both are edited.
    worker.stop().await?;
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    systems.salesforce.edit(&account, json!({"Phone": "+49 30 33", "Description": "left"})).await?;
    systems.netsuite.edit(&customer, json!({"creditLimit": 33_000})).await?;
    systems.settle(SOON).await?;
    let report = systems.judged().await?;
    report.correct()?;
    assert_eq!(report.edits, 3, "{report}");
    assert_eq!(text(&systems.netsuite.record(&customer).await?, "phone"), "+49 30 33");
    assert_eq!(text(&systems.salesforce.record(&account).await?, "Credit_Limit__c"), "33000.0");
    assert_eq!(outcomes(&systems.salesforce, left).await?, [Outcome::Updated]);
    assert_eq!(outcomes(&systems.netsuite, right).await?, [Outcome::Updated]);
    Ok(())
}

#[tokio::test]
async fn both_edit_the_same_field_and_the_owners_value_wins() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    worker.stop().await?;
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    systems.salesforce.edit(&account, json!({"Phone": "the owner's"})).await?;
    systems.netsuite.edit(&customer, json!({"phone": "the other's"})).await?;
    systems.salesforce.edit(&account, json!({"Credit_Limit__c": 44})).await?;
    systems.netsuite.edit(&customer, json!({"creditLimit": 44_000})).await?;
    systems.settle(SOON).await?;
    let report = systems.judged().await?;
    report.correct()?;
    assert_eq!((report.edits, report.foreign_edits, report.idle.count), (2, 2, 0), "{report}");
    assert_eq!(text(&systems.netsuite.record(&customer).await?, "phone"), "the owner's");
    assert_eq!(text(&systems.salesforce.record(&account).await?, "Credit_Limit__c"), "44000.0");
    for (side, mark) in [(&systems.salesforce, left), (&systems.netsuite, right)] {
        let outcomes = outcomes(side, mark).await?;
        assert!((1..=2).contains(&outcomes.len()), "{outcomes:?}");
    }
    Ok(())
}

/// Everything that was asked of a system besides writes, by its own count.
async fn reads(side: &Simulated) -> anyhow::Result<u64> {
    let counters = side.counters().await?;
    let kinds = counters["byKind"].as_object().unwrap();
    let reading =
        kinds.iter().filter(|(kind, _)| matches!(kind.as_str(), "query" | "get" | "list" | "retrieve" | "retrieveCollection" | "describe"));
    Ok(reading.flat_map(|(_, counts)| counts.as_object().unwrap().values()).filter_map(Value::as_u64).sum())
}

/// Applies manifests to a running worker, waits until they work, `shown` holds and all is quiet, and tells how many reads that took in
/// Salesforce.
async fn reads_of_applying(
    systems: &TwoSystems,
    worker: &Fairlead,
    manifests: &Manifests,
    shown: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let before = reads(&systems.salesforce).await?;
    apply_to(systems, worker, manifests).await?;
    shown().await?;
    // The round of reading with which a revision starts is over when a time of reading is told again.
    worker.ready(SOON).await?;
    Ok(reads(&systems.salesforce).await? - before)
}

/// Applies manifests to a running worker, and waits until it works by them.
async fn apply_to(systems: &TwoSystems, worker: &Fairlead, manifests: &Manifests) -> anyhow::Result<()> {
    let generation = worker.integration().await?["observedGeneration"].as_u64().unwrap();
    systems.apply(manifests)?;
    wait_until("the next generation at work", SOON, async || {
        let integration = worker.integration().await?;
        let conditions = integration["conditions"].as_array().unwrap();
        let programmed = conditions.iter().any(|found| {
            found["type"] == "Programmed" && found["status"] == "True" && found["observedGeneration"].as_u64() == Some(generation + 1)
        });
        Ok(Seen::when(programmed, format_args!("{integration}")))
    })
    .await
}

/// The quickstart's manifests with a constant in Salesforce, and with polls and probes that rest: every read is one that an edit asked for, or
/// the one poll with which a new revision starts.
fn resting(manifests: &mut Manifests, number: &str) -> anyhow::Result<()> {
    for participant in ["crm", "erp"] {
        manifests.participant(participant)?["read"]["poll"]["every"] = json!("1h");
    }
    for connector in ["salesforce", "netsuite"] {
        manifests.document("Connector", connector)?["spec"]["probe"]["every"] = json!("1h");
    }
    let rows = manifests.participant("crm")?["fields"].as_array_mut().unwrap();
    rows.push(json!({"native": "AccountNumber", "value": number}));
    Ok(())
}

/// Waits until the API has written 45 records since a mark, and tells how many writes that took.
async fn all_written(side: &Simulated, mark: u64) -> anyhow::Result<usize> {
    wait_until("all 45 records written", SOON, async || {
        let written = writes(side, mark).await?;
        let keys: BTreeSet<&String> = written.iter().map(|entry| &entry.key).collect();
        Ok(if keys.len() == 45 { Seen::Yes(written.len()) } else { Seen::NotYet(format!("{} of 45", keys.len())) })
    })
    .await
}

#[tokio::test]
async fn mapping_edited_in_a_write_row_reads_nothing_and_in_a_read_row_each_record_once() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| resting(manifests, "first")).await?;
    let crm = &systems.salesforce;

    // A write row says something else: each account is written once.
    let mut manifests = systems.manifests()?;
    resting(&mut manifests, "second")?;
    let (left, right) = (crm.mark().await?, systems.netsuite.mark().await?);
    let written = reads_of_applying(&systems, &worker, &manifests, async || {
        assert_eq!(all_written(crm, left).await?, 45, "each account once");
        Ok(())
    })
    .await?;
    assert!(writes(&systems.netsuite, right).await?.is_empty());
    assert!(crm.records().await?.iter().all(|account| text(account, "AccountNumber") == "second"));

    // It says the same in other words: nothing is written.
    let left = crm.mark().await?;
    manifests.row("crm", "description")?["fromCanonical"] = json!(".record.description");
    let same = reads_of_applying(&systems, &worker, &manifests, async || Ok(())).await?;
    let rewritten = writes(crm, left).await?;
    assert!(rewritten.is_empty(), "{rewritten:?}");

    // Neither was read for: it took what any new revision takes, one that changes no row as well.
    manifests.integration()?["spec"]["delivery"]["retry"]["attempts"] = json!(20);
    let start = reads_of_applying(&systems, &worker, &manifests, async || Ok(())).await?;
    assert_eq!((written, same), (start, start), "a write row was read for");

    // A read row says something else: each account is read by key once, all in one request, and what came of it is delivered.
    let right = systems.netsuite.mark().await?;
    let shouted = "if is_null(.record.Segment__c) { null } else { upcase(string!(.record.Segment__c)) }";
    manifests.row("crm", "segment")?["toCanonical"] = json!(shouted);
    let read = reads_of_applying(&systems, &worker, &manifests, async || {
        assert_eq!(all_written(&systems.netsuite, right).await?, 45, "each customer once");
        Ok(())
    })
    .await?;
    assert_eq!(read, start + 1, "each of the 45 accounts once, in one request");
    let customers = systems.netsuite.records().await?;
    assert!(customers.iter().map(|customer| text(customer, "custentity_segment")).all(|segment| segment == segment.to_uppercase()));
    worker.stop().await
}

/// Makes NetSuite refuse one write of an account's phone for its data; the dead letter's number.
async fn dead_letter(systems: &TwoSystems, account: &str, phone: &str) -> anyhow::Result<String> {
    systems.netsuite.faults(on_write(json!({"fault": "status", "status": 400, "times": 1}))).await?;
    systems.salesforce.edit(account, json!({"Phone": phone})).await?;
    let letter = wait_until("a dead letter", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(if letters.len() == 1 { Seen::Yes(letters[0].clone()) } else { Seen::NotYet(format!("{letters:?}")) })
    })
    .await?;
    assert_eq!(letter["participant"], "erp", "{letter}");
    Ok(letter["id"].to_string())
}

#[tokio::test]
async fn dead_letter_is_closed_by_a_later_good_version_and_cannot_be_replayed_over_it() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let mark = systems.netsuite.mark().await?;
    let id = dead_letter(&systems, &account, "the refused").await?;
    systems.salesforce.edit(&account, json!({"Phone": "the later"})).await?;
    holds(&systems.netsuite, &customer, "phone", "the later").await?;
    worker.ready(SOON).await?;
    assert!(systems.open_letters(false).await?.is_empty());
    let refusal = systems.dead_letters(&["replay", &id]).await.unwrap_err().to_string();
    assert!(refusal.contains(&format!("no open dead letter {id}")), "{refusal}");
    let written = writes(&systems.netsuite, mark).await?;
    assert_eq!(written.iter().map(|entry| entry.outcome).collect::<Vec<_>>(), [Outcome::Rejected, Outcome::Updated], "{written:#?}");
    worker.stop().await
}

#[tokio::test]
async fn dead_letter_replayed_late_writes_the_newest_version() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let mark = systems.netsuite.mark().await?;
    let id = dead_letter(&systems, &account, "the refused").await?;
    worker.stop().await?;
    systems.salesforce.edit(&account, json!({"Phone": "the newest"})).await?;
    systems.dead_letters(&["replay", &id]).await?;
    systems.settle(SOON).await?;
    assert_eq!(text(&systems.netsuite.record(&customer).await?, "phone"), "the newest");
    let written = writes(&systems.netsuite, mark).await?;
    systems.judged().await?.correct()?;
    assert!(systems.open_letters(false).await?.is_empty());
    assert!(written.len() <= 3, "{written:#?}");
    Ok(())
}

#[tokio::test]
async fn merge_of_records_folds_them_repoints_what_refers_to_them_and_archives_the_second_external_id() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("erp")?["write"]["onMerge"] = json!("Archive");
        Ok(())
    })
    .await?;
    let (loser, survivor) = (
        systems.salesforce.create(new_account("Merged away", "DE-LOSER")).await?,
        systems.salesforce.create(new_account("Lives on", "DE-SURVIVOR")).await?,
    );
    let mut child = new_account("Child of the merged", "DE-CHILD");
    child["ParentId"] = json!(loser);
    let child = systems.salesforce.create(child).await?;
    systems.in_step(SOON).await?;
    worker.ready(SOON).await?;
    let customer = async |tax: &str| anyhow::Ok(text(&systems.netsuite.find("vatRegNumber", tax).await?, "id"));
    let (second, first, below) = (customer("DE-LOSER").await?, customer("DE-SURVIVOR").await?, customer("DE-CHILD").await?);
    assert_eq!(text(&systems.netsuite.record(&below).await?, "parent"), second);

    let mark = systems.salesforce.mark().await?;
    systems.salesforce.merge(&loser, &survivor).await?;
    holds(&systems.netsuite, &second, "isInactive", "true").await?;
    holds(&systems.netsuite, &below, "parent", &first).await?;
    // The survivor goes on as itself; what somebody still does to the alias goes nowhere.
    systems.netsuite.edit(&second, json!({"phone": "nobody's"})).await?;
    systems.salesforce.edit(&survivor, json!({"Phone": "+49 30 77"})).await?;
    holds(&systems.netsuite, &first, "phone", "+49 30 77").await?;
    polls(&systems.netsuite, 2).await?;
    worker.ready(SOON).await?;
    assert_eq!(text(&systems.netsuite.record(&second).await?, "phone"), "nobody's");
    assert_eq!(text(&systems.salesforce.record(&survivor).await?, "Phone"), "+49 30 77");
    assert_eq!(text(&systems.salesforce.record(&child).await?, "ParentId"), survivor);
    let written = writes(&systems.salesforce, mark).await?;
    assert!(written.is_empty(), "Salesforce was written for its own merge: {written:#?}");
    assert!(systems.open_letters(true).await?.is_empty());
    // Somebody takes the loser out of the recycle bin: nobody's record changes with it, so somebody has to hear of it.
    systems.salesforce.undelete(&loser).await?;
    let letters = wait_until("a dead letter of the one that is there again", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(if letters.is_empty() { Seen::NotYet("none".into()) } else { Seen::Yes(letters) })
    })
    .await?;
    assert_eq!((letters[0]["reason"].as_str(), letters[0]["externalId"].as_str()), (Some("DuplicateIdentity"), Some(loser.as_str())));
    systems.salesforce.delete(&loser).await?;
    wait_until("it closed with the record gone", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(Seen::when(letters.is_empty(), format_args!("{letters:?}")))
    })
    .await?;
    worker.stop().await
}

#[tokio::test]
async fn merge_of_records_that_is_taken_back_becomes_two_records_by_a_persons_word() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("erp")?["write"]["onMerge"] = json!("Archive");
        Ok(())
    })
    .await?;
    let (loser, survivor) = (
        systems.salesforce.create(new_account("Merged away", "DE-LOSER")).await?,
        systems.salesforce.create(new_account("Lives on", "DE-SURVIVOR")).await?,
    );
    systems.in_step(SOON).await?;
    worker.ready(SOON).await?;
    let customer = async |tax: &str| anyhow::Ok(text(&systems.netsuite.find("vatRegNumber", tax).await?, "id"));
    let (second, first) = (customer("DE-LOSER").await?, customer("DE-SURVIVOR").await?);
    systems.salesforce.merge(&loser, &survivor).await?;
    holds(&systems.netsuite, &second, "isInactive", "true").await?;
    worker.ready(SOON).await?;
    systems.salesforce.undelete(&loser).await?;
    let letters = wait_until("a dead letter of the one that is there again", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(if letters.is_empty() { Seen::NotYet("none".into()) } else { Seen::Yes(letters) })
    })
    .await?;
    // The letter says how; what was put away in the ERP for the merge belongs to it, too.
    let cure = letters[0]["message"].as_str().and_then(|message| message.split_once("fairlead split ")).unwrap().1.to_owned();
    let (leaves_crm, leaves_erp) = (format!("crm={loser}"), format!("erp={second}"));
    let mut words: Vec<&str> = ["split"].into_iter().chain(cure.split(' ')).collect();
    words.extend(["--leaves", &leaves_crm, "--leaves", &leaves_erp, "--author", "kim"]);
    let told = systems.ask(&[words.as_slice(), &["--dry-run"]].concat()).await?;
    assert!(told.contains(&format!("would leave for a new record: {leaves_crm}, {leaves_erp}")), "{told}");
    assert_eq!(systems.open_letters(false).await?.len(), 1, "only looked");
    let told = systems.ask(&words).await?;
    let new = told.split_once("has left for ").and_then(|(_, rest)| rest.split_once(':')).unwrap().0.to_owned();
    let refused = systems.ask(&words).await.unwrap_err().to_string();
    assert!(refused.contains("nothing is left to split"), "{refused}");

    holds(&systems.netsuite, &second, "isInactive", "false").await?;
    holds(&systems.netsuite, &second, "externalId", &new).await?;
    holds(&systems.salesforce, &loser, "Fairlead_Id__c", &new).await?;
    systems.salesforce.edit(&loser, json!({"Phone": "+49 30 66"})).await?;
    systems.salesforce.edit(&survivor, json!({"Phone": "+49 30 77"})).await?;
    holds(&systems.netsuite, &second, "phone", "+49 30 66").await?;
    holds(&systems.netsuite, &first, "phone", "+49 30 77").await?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    assert!(systems.open_letters(false).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn merge_of_records_into_one_that_was_turned_away_as_their_double_goes_on_under_its_id() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let tax = text(&systems.salesforce.record(&account).await?, "Tax_Number__c");
    let twin = systems.salesforce.create(new_account("The same again", &tax)).await?;
    wait_until("the dead letter of the twin", SOON, async || {
        let letters = systems.open_letters(false).await?;
        let one = letters.len() == 1 && letters[0]["reason"] == "DuplicateIdentity";
        Ok(Seen::when(one, format_args!("{letters:?}")))
    })
    .await?;
    // As its message says: merge the two. A person may choose either to stay.
    systems.salesforce.merge(&account, &twin).await?;
    holds(&systems.netsuite, &customer, "companyName", "The same again").await?;
    systems.salesforce.edit(&twin, json!({"Phone": "+49 30 88"})).await?;
    holds(&systems.netsuite, &customer, "phone", "+49 30 88").await?;
    worker.ready(SOON).await?;
    assert!(systems.open_letters(false).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn delete_while_a_write_is_pending_wins_over_the_write() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("erp")?["write"]["onDelete"] = json!("Delete");
        Ok(())
    })
    .await?;
    let account = systems.salesforce.create(new_account("Soon gone", "DE-GONE")).await?;
    systems.in_step(SOON).await?;
    let customer = text(&systems.netsuite.find("vatRegNumber", "DE-GONE").await?, "id");
    let mark = systems.netsuite.mark().await?;
    systems.netsuite.faults(on_write(json!({"fault": "outage", "times": "forever"}))).await?;
    systems.salesforce.edit(&account, json!({"Phone": "the last"})).await?;
    wait_until("an attempt to write the edit", SOON, async || {
        Ok(Seen::when(!writes(&systems.netsuite, mark).await?.is_empty(), "nothing tried"))
    })
    .await?;
    systems.salesforce.delete(&account).await?;
    polls(&systems.salesforce, 2).await?;
    systems.netsuite.faults(json!([])).await?;
    wait_until("the customer to be gone", SOON, async || {
        let there = systems.netsuite.record(&customer).await;
        Ok(Seen::when(there.is_err(), format_args!("{there:?}")))
    })
    .await?;
    worker.ready(SOON).await?;
    assert!(systems.open_letters(true).await?.is_empty());
    // It stays gone, on both sides.
    for side in [&systems.netsuite, &systems.salesforce] {
        polls(side, 2).await?;
        assert_eq!(side.records().await?.len(), 45);
    }
    systems.judged().await?.correct()?;
    worker.stop().await
}

#[tokio::test]
async fn delete_of_what_was_never_created_there_settles_without_a_write() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("erp")?["write"]["onDelete"] = json!("Delete");
        Ok(())
    })
    .await?;
    let mark = systems.netsuite.mark().await?;
    systems.netsuite.faults(on_write(json!({"fault": "outage", "times": "forever"}))).await?;
    let account = systems.salesforce.create(new_account("Never there", "DE-NEVER")).await?;
    wait_until("an attempt to create it", SOON, async || {
        Ok(Seen::when(!writes(&systems.netsuite, mark).await?.is_empty(), "nothing tried"))
    })
    .await?;
    systems.salesforce.delete(&account).await?;
    polls(&systems.salesforce, 2).await?;
    systems.netsuite.faults(json!([])).await?;
    worker.ready(SOON).await?;
    polls(&systems.netsuite, 2).await?;
    let effects: Vec<Outcome> = outcomes(&systems.netsuite, mark).await?.into_iter().filter(|o| *o != Outcome::Rejected).collect();
    assert!(effects.is_empty(), "{effects:?}");
    assert!(systems.open_letters(true).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn delete_that_is_taken_back_makes_active_again_what_it_had_archived() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    let mut manifests = systems.manifests()?;
    // Nobody is told by reading what became of it there.
    manifests.participant("erp")?.as_object_mut().unwrap().remove("read");
    manifests.participant("erp")?["write"]["onDelete"] = json!("Archive");
    systems.apply(&manifests)?;
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    let account = systems.salesforce.create(new_account("Back again", "DE-BACK")).await?;
    let customer = customer_of(&systems, "DE-BACK").await?;
    systems.salesforce.delete(&account).await?;
    holds(&systems.netsuite, &customer, "isInactive", "true").await?;
    systems.salesforce.undelete(&account).await?;
    holds(&systems.netsuite, &customer, "isInactive", "false").await?;
    systems.salesforce.edit(&account, json!({"Phone": "+49 30 99"})).await?;
    holds(&systems.netsuite, &customer, "phone", "+49 30 99").await?;
    worker.ready(SOON).await?;
    assert!(systems.open_letters(true).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn delete_and_then_entered_again_is_the_same_customer_under_another_id() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("crm")?["write"]["onDelete"] = json!("Keep");
        Ok(())
    })
    .await?;
    let account = systems.salesforce.create(new_account("Entered twice", "DE-TWICE")).await?;
    let customer = customer_of(&systems, "DE-TWICE").await?;
    worker.ready(SOON).await?;
    let marks = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    systems.salesforce.delete(&account).await?;
    let mut values = new_account("Entered twice", "DE-TWICE");
    values["Phone"] = json!("+49 30 22");
    let again = systems.salesforce.create(values).await?;
    holds(&systems.netsuite, &customer, "phone", "+49 30 22").await?;
    systems.netsuite.edit(&customer, json!({"creditLimit": 4321})).await?;
    holds(&systems.salesforce, &again, "Credit_Limit__c", "4321.0").await?;
    worker.ready(SOON).await?;
    for made in [outcomes(&systems.salesforce, marks.0).await?, outcomes(&systems.netsuite, marks.1).await?] {
        assert!(!made.contains(&Outcome::Created), "{made:?}");
    }
    assert!(systems.open_letters(true).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn delete_that_is_taken_back_is_a_dead_letter_where_the_record_is_really_gone() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("erp")?["write"]["onDelete"] = json!("Delete");
        Ok(())
    })
    .await?;
    let account = systems.salesforce.create(new_account("Back again", "DE-BACK")).await?;
    systems.in_step(SOON).await?;
    systems.salesforce.delete(&account).await?;
    wait_until("the customer to be gone", SOON, async || {
        Ok(Seen::when(systems.netsuite.find("vatRegNumber", "DE-BACK").await.is_err(), "still there"))
    })
    .await?;
    polls(&systems.netsuite, 2).await?;
    systems.salesforce.undelete(&account).await?;
    let letters = wait_until("a dead letter", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(if letters.is_empty() { Seen::NotYet("none".into()) } else { Seen::Yes(letters) })
    })
    .await?;
    assert_eq!((letters.len(), letters[0]["participant"].as_str()), (1, Some("erp")), "{letters:?}");
    worker.stop().await
}

/// Former customers do not belong in NetSuite.
fn without_former(manifests: &mut Manifests) -> anyhow::Result<()> {
    manifests.participant("erp")?["write"]["when"] = json!(".record.status != \"former\"");
    // Everything that is there already is a customer for this story.
    manifests.row("crm", "status")?["values"].as_array_mut().unwrap().retain(|pair| pair["canonical"] != "partner");
    manifests.row("crm", "status")?["values"].as_array_mut().unwrap().iter_mut().for_each(|pair| {
        if pair["canonical"] == "former" {
            *pair = json!({"canonical": "former", "native": "Partner"});
        }
    });
    let values = manifests.row("crm", "status")?["values"].as_array_mut().unwrap();
    values.push(json!({"canonical": "partner", "native": "Former Customer"}));
    Ok(())
}

#[tokio::test]
async fn a_targets_when_that_turns_false_archives_the_record_if_it_says_so() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        without_former(manifests)?;
        manifests.participant("erp")?["write"]["onLeave"] = json!("Archive");
        Ok(())
    })
    .await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let mark = systems.netsuite.mark().await?;
    systems.salesforce.edit(&account, json!({"Type": "Partner"})).await?;
    holds(&systems.netsuite, &customer, "isInactive", "true").await?;
    systems.salesforce.edit(&account, json!({"Phone": "after it left"})).await?;
    for side in [&systems.salesforce, &systems.netsuite] {
        polls(side, 3).await?;
    }
    worker.ready(SOON).await?;
    assert_eq!(outcomes(&systems.netsuite, mark).await?, [Outcome::Updated], "archived once, and then left alone");
    // It comes back with everything that changed meanwhile.
    systems.salesforce.edit(&account, json!({"Type": "Customer"})).await?;
    holds(&systems.netsuite, &customer, "phone", "after it left").await?;
    holds(&systems.netsuite, &customer, "isInactive", "false").await?;
    worker.ready(SOON).await?;
    assert_eq!(outcomes(&systems.netsuite, mark).await?, [Outcome::Updated, Outcome::Updated]);
    worker.stop().await
}

#[tokio::test]
async fn a_targets_when_that_turns_false_leaves_the_record_as_it_is() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(without_former).await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let phone = text(&systems.netsuite.record(&customer).await?, "phone");
    let mark = systems.netsuite.mark().await?;
    systems.salesforce.edit(&account, json!({"Type": "Partner", "Phone": "after it left"})).await?;
    polls(&systems.salesforce, 3).await?;
    worker.ready(SOON).await?;
    assert!(writes(&systems.netsuite, mark).await?.is_empty());
    assert_eq!(text(&systems.netsuite.record(&customer).await?, "phone"), phone);
    // It comes back with everything that changed meanwhile.
    systems.salesforce.edit(&account, json!({"Type": "Customer"})).await?;
    holds(&systems.netsuite, &customer, "phone", "after it left").await?;
    worker.stop().await
}

/// The state of a participant in the status.
async fn participant(worker: &Fairlead, name: &str) -> anyhow::Result<Value> {
    let integration = worker.integration().await?;
    let found = integration["participants"].as_array().into_iter().flatten().find(|participant| participant["name"] == name).cloned();
    found.ok_or_else(|| anyhow::anyhow!("no participant {name} in {integration}"))
}

#[tokio::test]
async fn permission_missing_for_one_entity_pauses_that_entity_and_not_the_connector() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let denied = json!([{"match": {"operation": "write", "entity": "customer"}, "fault": "status", "status": 403, "times": "forever"}]);
    systems.netsuite.faults(denied).await?;
    let mark = systems.netsuite.mark().await?;
    systems.salesforce.edit(&account, json!({"Phone": "+49 30 55"})).await?;
    wait_until("the participant resting", SOON, async || {
        let erp = participant(&worker, "erp").await?;
        Ok(Seen::when(erp["state"] == "Failing", format_args!("{erp}")))
    })
    .await?;
    let status = worker.status().await?;
    let connector =
        status["items"].as_array().unwrap().iter().find(|item| item["kind"] == "Connector" && item["metadata"]["name"] == "netsuite");
    let conditions = connector.unwrap()["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|found| found["type"] == "Ready" && found["status"] == "True"), "{conditions:?}");
    // The other direction goes on.
    systems.netsuite.edit(&customer, json!({"creditLimit": 55_000})).await?;
    holds(&systems.salesforce, &account, "Credit_Limit__c", "55000.0").await?;
    assert!(systems.open_letters(false).await?.is_empty(), "a missing permission dead-letters nothing");
    systems.netsuite.faults(json!([])).await?;
    holds(&systems.netsuite, &customer, "phone", "+49 30 55").await?;
    worker.ready(SOON).await?;
    let tried = writes(&systems.netsuite, mark).await?.len();
    assert!(tried < 60, "a storm of refused writes: {tried}");
    worker.stop().await
}

#[tokio::test]
async fn guard_holds_too_many_deletions_until_its_token_is_repeated() -> anyhow::Result<()> {
    let (systems, worker) = in_step_by(|manifests| {
        manifests.participant("erp")?["write"]["onDelete"] = json!("Delete");
        manifests.integration()?["spec"]["sync"]["guard"]["maxDeletePercent"] = json!(5);
        Ok(())
    })
    .await?;
    let mut doomed = Vec::new();
    for number in 0..12 {
        doomed.push(systems.salesforce.create(new_account(&format!("Doomed {number}"), &format!("DOOMED-{number}"))).await?);
    }
    systems.in_step(SOON).await?;
    let before = systems.netsuite.records().await?.len();
    // Somebody's data loader goes wrong, and nobody looks while it does.
    worker.stop().await?;
    for id in &doomed {
        systems.salesforce.delete(id).await?;
    }
    let worker = systems.fairlead("worker", |_| {})?;
    let integration = worker.condition("Ready", "False", "ChangeThresholdExceeded", SOON).await?;
    let token = integration["guard"]["token"].as_str().expect("a token in the status").to_owned();
    let mark = systems.netsuite.mark().await?;
    assert!(writes(&systems.netsuite, mark).await?.is_empty());
    assert_eq!(systems.netsuite.records().await?.len(), before, "the guard let deletions through");

    let mut manifests = systems.manifests()?;
    manifests.participant("erp")?["write"]["onDelete"] = json!("Delete");
    manifests.integration()?["spec"]["sync"]["guard"] = json!({"maxDeletePercent": 5, "maxChangePercent": 100, "confirm": token});
    systems.apply(&manifests)?;
    wait_until("the deletions let through", SOON, async || {
        let left = systems.netsuite.records().await?.len();
        Ok(Seen::when(left == before - 12, format_args!("{left} of {before} customers")))
    })
    .await?;
    worker.ready(SOON).await?;
    systems.judged().await?.correct()?;
    worker.stop().await
}

#[tokio::test]
async fn poison_record_is_parked_while_the_others_go_on() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let (account, customer) = one_company(&systems).await?;
    // Salesforce takes 255 characters; the contract allows 200.
    let poison = systems.salesforce.create(new_account(&"x".repeat(201), "DE-POISON")).await?;
    systems.salesforce.edit(&text(&account, "Id"), json!({"Phone": "+49 30 66"})).await?;
    systems.salesforce.create(new_account("After the poison", "DE-AFTER")).await?;
    holds(&systems.netsuite, &text(&customer, "id"), "phone", "+49 30 66").await?;
    let letters = wait_until("its dead letter, and the one after it delivered", SOON, async || {
        let (letters, after) = (systems.open_letters(false).await?, systems.netsuite.find("vatRegNumber", "DE-AFTER").await);
        Ok(if letters.len() == 1 && after.is_ok() { Seen::Yes(letters) } else { Seen::NotYet(format!("{letters:?}, {after:?}")) })
    })
    .await?;
    let letter = &letters[0];
    assert_eq!((letter["reason"].as_str(), letter["field"].as_str()), (Some("ValidationFailed"), Some("name")), "{letter}");
    assert_eq!(letter["externalId"], poison.as_str(), "{letter}");
    wait_until("it in the metrics", SOON, async || {
        let count = worker.metric("fairlead_dead_letters").await?;
        Ok(Seen::when(count == 1, format_args!("{count}")))
    })
    .await?;
    // Seen again and again by the lag window, it stays one.
    polls(&systems.salesforce, 3).await?;
    assert_eq!(systems.open_letters(true).await?.len(), 1);
    // Mended at its source, it closes by itself.
    systems.salesforce.edit(&poison, json!({"Name": "No poison any more"})).await?;
    systems.in_step(SOON).await?;
    worker.ready(SOON).await?;
    assert!(systems.open_letters(false).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn mapping_edited_in_the_match_rules_finds_records_that_were_stored_before() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    let mut manifests = systems.manifests()?;
    manifests.integration()?["spec"]["sync"]["initialLoad"] = json!("MatchOnly");
    systems.apply(&manifests)?;
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    // An account without a customer; nothing but its tax number would tell who it is.
    let known: BTreeSet<String> = systems.netsuite.records().await?.iter().map(|customer| text(customer, "vatRegNumber")).collect();
    let accounts = systems.salesforce.records().await?;
    let account = accounts.iter().find(|account| !known.contains(&text(account, "Tax_Number__c"))).unwrap();
    manifests.integration()?["spec"]["sync"]["match"] = json!([["name"]]);
    apply_to(&systems, &worker, &manifests).await?;
    let customer = json!({"companyName": text(account, "Name"), "vatRegNumber": "ANOTHER", "subsidiary": {"id": "3"}});
    let customer = systems.netsuite.create(customer).await?;
    holds(&systems.netsuite, &customer, "vatRegNumber", &text(account, "Tax_Number__c")).await?;
    worker.ready(SOON).await?;
    assert!(systems.open_letters(true).await?.is_empty());
    worker.stop().await
}

/// Egg came from Hen, and Hen from Egg.
async fn egg_and_hen(systems: &TwoSystems, on_cycle: &str) -> anyhow::Result<()> {
    let mut manifests = systems.manifests()?;
    // Both vendors refuse a company that is above itself; a reference that is kept in a text may go round.
    for (participant, native) in [("crm", "AccountNumber"), ("erp", "custentity_credit_rating")] {
        let row = manifests.row(participant, "parentId")?;
        row["native"] = json!(native);
        row["reference"]["onCycle"] = json!(on_cycle);
    }
    // What that text holds of its own is nobody's id, so it is not read.
    manifests.participant("erp")?.as_object_mut().unwrap().remove("read");
    systems.apply(&manifests)?;
    let (egg, hen) =
        (systems.salesforce.create(new_account("Egg", "DE-EGG")).await?, systems.salesforce.create(new_account("Hen", "DE-HEN")).await?);
    systems.salesforce.edit(&egg, json!({"AccountNumber": hen})).await?;
    systems.salesforce.edit(&hen, json!({"AccountNumber": egg})).await
}

#[tokio::test]
async fn two_new_records_that_refer_to_each_other_are_both_made_and_then_completed_where_the_row_says_so() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    egg_and_hen(&systems, "Complete").await?;
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    let (egg, hen) = (systems.netsuite.find("vatRegNumber", "DE-EGG").await?, systems.netsuite.find("vatRegNumber", "DE-HEN").await?);
    assert_eq!(text(&egg, "custentity_credit_rating"), text(&hen, "id"));
    assert_eq!(text(&hen, "custentity_credit_rating"), text(&egg, "id"));
    assert!(systems.open_letters(true).await?.is_empty());
    worker.stop().await
}

#[tokio::test]
async fn two_new_records_that_refer_to_each_other_are_a_dead_letter_where_that_is_a_hierarchy() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    egg_and_hen(&systems, "DeadLetter").await?;
    let worker = systems.fairlead("worker", |_| {})?;
    let letters = wait_until("a dead letter", SOON, async || {
        let letters = systems.open_letters(false).await?;
        Ok(if letters.len() == 1 { Seen::Yes(letters) } else { Seen::NotYet(format!("{letters:?}")) })
    })
    .await?;
    assert_eq!(letters[0]["reason"], "ReferenceCycle", "{letters:?}");
    assert!(letters[0]["message"].as_str().is_some_and(|message| message.contains("2 new records")), "{letters:?}");
    worker.stop().await
}

#[tokio::test]
async fn children_that_are_edited_without_their_parents_stamp_reread_the_parent() -> anyhow::Result<()> {
    let systems = two_systems().await?;
    let mut manifests = systems.manifests()?;
    manifests.document("ApiContract", "customer-v1")?["spec"]["schema"]["properties"]["contacts"] = json!({
        "type": "array", "maxItems": 100,
        "items": {"type": "object", "additionalProperties": false, "properties": {"id": {"type": "string"}, "email": {"type": "string"}}},
    });
    let rows = json!([
        {"canonical": "contacts[]", "native": "Contacts.records[]", "key": "Id"},
        {"canonical": "contacts[].id", "native": "Contacts.records[].Id"},
        {"canonical": "contacts[].email", "native": "Contacts.records[].Email"},
    ]);
    manifests.participant("crm")?["fields"].as_array_mut().unwrap().extend(rows.as_array().unwrap().clone());
    // What NetSuite is told of the contacts of a company.
    let row = manifests.row("erp", "description")?;
    *row = json!({"native": "comments", "fromCanonical": ".record.contacts[0].email"});
    systems.apply(&manifests)?;
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;

    let contacts = systems.salesforce.records_of("Contact").await?;
    let mut of_account: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for contact in &contacts {
        of_account.entry(text(contact, "AccountId")).or_default().push(text(contact, "Id"));
    }
    let accounts = systems.salesforce.records().await?;
    let account =
        accounts.iter().find(|account| of_account.contains_key(&text(account, "Id")) && !text(account, "Tax_Number__c").is_empty());
    let account = account.unwrap();
    let first = of_account[&text(account, "Id")].iter().min().unwrap();
    let customer = text(&systems.netsuite.find("vatRegNumber", &text(account, "Tax_Number__c")).await?, "id");
    for number in 0..2 {
        let email = format!("assistant-{number}@company.example");
        systems.salesforce.edit_of("Contact", first, json!({"Email": email})).await?;
        holds(&systems.netsuite, &customer, "comments", &email).await?;
    }
    let after = systems.salesforce.record(&text(account, "Id")).await?;
    assert_eq!(text(&after, "SystemModstamp"), text(account, "SystemModstamp"), "the parent's stamp told of it: nothing was shown");
    worker.ready(SOON).await?;
    assert!(systems.open_letters(true).await?.is_empty());
    worker.stop().await
}

/// What `fairlead check` prints of the manifests: reason and text of every error.
async fn checked(systems: &TwoSystems) -> anyhow::Result<Vec<(String, String)>> {
    let output = fairlead()?.args(["check", "--output", "json"]).arg(systems.manifests_folder()).output().await?;
    let printed: Value = serde_json::from_slice(&output.stdout)?;
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let errors = printed["findings"].as_array().into_iter().flatten().filter(|finding| finding["severity"] == "error");
    Ok(errors.map(|finding| (of(finding, "reason"), of(finding, "message"))).collect())
}

#[tokio::test]
async fn a_wrong_row_is_told_alike_by_the_checker_and_by_the_status_and_what_ran_runs_on() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    let good = systems.manifests()?;
    for (place, wrong) in [("native", json!("Phnoe")), ("fromCanonical", json!("to_float(.)")), ("canonical", json!("nmae"))] {
        let mut manifests = good.clone();
        manifests.row("crm", "phone")?[place] = wrong;
        systems.apply(&manifests)?;
        let said = checked(&systems).await?;
        assert!(said.iter().all(|(_, text)| text.contains("fields[")), "each names its row: {said:?}");
        let (reason, texts) = (said[0].0.clone(), said.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; "));
        wait_until(&format!("a wrong {place} in the status"), SOON, async || {
            let integration = worker.integration().await?;
            let told = integration["conditions"].as_array().and_then(|all| all.iter().find(|told| told["type"] == "Accepted"));
            Ok(Seen::when(
                told.is_some_and(|told| told["reason"] == *reason && told["message"] == *texts),
                format_args!("{told:?} is not {texts}"),
            ))
        })
        .await?;
    }
    let (account, customer) = one_company(&systems).await?;
    systems.salesforce.edit(&text(&account, "Id"), json!({"Phone": "+49 30 77"})).await?;
    holds(&systems.netsuite, &text(&customer, "id"), "phone", "+49 30 77").await?;
    systems.apply(&good)?;
    worker.ready(SOON).await?;
    worker.stop().await
}

/// Whether the status says that the store is of no use, in these words, and that therefore nothing is Ready.
async fn store_refuses(worker: &Fairlead, words: &str) -> anyhow::Result<Seen<()>> {
    let integration = worker.integration().await?;
    let conditions = integration["conditions"].as_array().cloned().unwrap_or_default();
    let refuses = |kind: &str| {
        conditions.iter().any(|told| {
            let message = told["message"].as_str().unwrap_or_default();
            told["type"] == kind && told["status"] == "False" && told["reason"] == "StoreUnavailable" && message.contains(words)
        })
    };
    Ok(Seen::when(refuses("Healthy") && refuses("Ready"), &integration))
}

/// Waits until the status says so.
async fn store_is_named(worker: &Fairlead, words: &str) -> anyhow::Result<()> {
    wait_until(&format!("a store that is called {words:?}"), SOON, async || store_refuses(worker, words).await).await
}

/// The database is read-only for a while, then it is away: the status names it, nothing is lost or made twice, and it heals without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_read_only_or_away_is_named_and_nothing_is_lost() -> anyhow::Result<()> {
    let mut server = Server::start();
    let systems = two_systems().await?.with_database(Some(server.database("away")));
    systems.apply(&systems.manifests()?)?;
    let mut worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    let edit = async |phone: &str| systems.salesforce.edit(&account, json!({"Phone": phone})).await;

    let set = |setting: &str| {
        server.sql("postgres", &format!("ALTER DATABASE away {setting}"));
        server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'away'");
    };
    set("SET default_transaction_read_only = on");
    edit("+49 30 1001").await?;
    store_is_named(&worker, "read-only").await?;
    set("RESET default_transaction_read_only");
    holds(&systems.netsuite, &customer, "phone", "+49 30 1001").await?;
    worker.ready(SOON).await?;

    server.stop();
    edit("+49 30 1002").await?;
    let made = systems.salesforce.create(new_account("Made meanwhile", "DE-AWAY")).await?;
    store_is_named(&worker, "database").await?;
    // Who starts meanwhile ends, and says why.
    let mut late = systems.fairlead("late", |_| {})?;
    let ended = late.process.end(SOON).await?;
    let said = late.process.stderr()?;
    assert!(!ended.success() && said.contains("database"), "{ended}: {said}");
    server.start_again();
    holds(&systems.netsuite, &customer, "phone", "+49 30 1002").await?;
    customer_of(&systems, "DE-AWAY").await?;
    worker.ready(SOON).await?;

    // Killed while the database is away, and started when it answers again.
    server.stop();
    edit("+49 30 1003").await?;
    systems.salesforce.edit(&made, json!({"Phone": "+49 30 1004"})).await?;
    store_is_named(&worker, "database").await?;
    worker.process.kill().await?;
    server.start_again();
    let worker = systems.fairlead("again", |_| {})?;
    holds(&systems.netsuite, &customer, "phone", "+49 30 1003").await?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    assert_eq!(worker.integration().await?["ledger"]["balanced"], true);
    worker.stop().await
}

/// The database's disk fills up while data flows: the status names it and asks for room, and with that everything goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_disk_is_full_is_named_and_goes_on_when_there_is_room() -> anyhow::Result<()> {
    let small = Small::mount("32m");
    let server = Server::start();
    let systems = two_systems().await?.with_database(Some(server.database_in("small", small.path())));
    let worker = systems.fairlead("worker", |_| {})?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    let (account, customer) = one_company(&systems).await?;
    let (account, customer) = (text(&account, "Id"), text(&customer, "id"));
    small.fill();

    let (mut rng, mut edits) = (StdRng::seed_from_u64(1), 0);
    let mut last = text(&systems.netsuite.record(&customer).await?, "phone");
    wait_until("a full disk in the status", SOON, async || {
        // Each edit takes room. There was some for the one that has arrived, so the next one comes.
        if text(&systems.netsuite.record(&customer).await?, "phone") == last {
            edits += 1;
            last = format!("+49 30 {}", 2000 + edits);
            // Noise, since the server compresses.
            let noise: String = (0..20_000).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
            systems.salesforce.edit(&account, json!({"Phone": last, "Description": noise})).await?;
        }
        store_refuses(&worker, "more room").await
    })
    .await?;

    small.resize("128m");
    holds(&systems.netsuite, &customer, "phone", &last).await?;
    worker.ready(SOON).await?;
    systems.in_step(SOON).await?;
    assert_eq!(worker.integration().await?["ledger"]["balanced"], true);
    worker.stop().await
}

/// The rows of an export as an import leaves them: the systems may have gone on since, so no first full read counts as complete.
fn as_imported(export: &str) -> Vec<String> {
    let behind = |row: &str| {
        let is_checkpoint = row.starts_with(r#"{"checkpoint":"#);
        if is_checkpoint { row.replace(r#""complete":true"#, r#""complete":false"#) } else { row.to_owned() }
    };
    archive::rows(export).into_iter().map(behind).collect()
}

/// `fairlead state export` and `fairlead state import` carry two systems in step from SQLite to PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_carried_from_sqlite_to_postgresql_goes_on_there_and_writes_nothing_anew() -> anyhow::Result<()> {
    let (systems, worker) = in_step().await?;
    worker.stop().await?;
    let place = |name: &str| systems.folder().join(name).display().to_string();
    let (file, again, url_file) = (place("state.jsonl"), place("again.jsonl"), place("url"));
    systems.ask(&["state", "export", &file]).await?;
    let server = Server::start();
    let url = server.database("moved");
    std::fs::write(&url_file, &url)?;
    let on_server = async |action: &str, file: &str| -> anyhow::Result<String> {
        let output = fairlead()?.args(["state", action, "--database-url-file", url_file.as_str(), file]).output().await?;
        anyhow::ensure!(output.status.success(), "state {action}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = on_server("import", &file).await?;
    assert!(said.contains("imported 45 records"), "{said}");
    on_server("export", &again).await?;
    let (exported, imported) = (std::fs::read_to_string(&file)?, std::fs::read_to_string(&again)?);
    assert!(exported.contains(r#""complete":true"#), "nothing was loaded:\n{exported}");
    assert_eq!(archive::rows(&imported), as_imported(&exported));

    // Everything is there that is read again, so nothing comes of it.
    let systems = systems.with_database(Some(url));
    let (left, right) = (systems.salesforce.mark().await?, systems.netsuite.mark().await?);
    let worker = systems.fairlead("on-postgresql", |_| {})?;
    worker.condition("Ready", "True", "Succeeded", SOON).await?;
    for side in [&systems.salesforce, &systems.netsuite] {
        polls(side, 3).await?;
    }
    worker.ready(SOON).await?;
    for (side, mark) in [(&systems.salesforce, left), (&systems.netsuite, right)] {
        let written = writes(side, mark).await?;
        assert!(written.is_empty(), "{written:#?}");
    }

    // An edit goes on from where the other database stood: to the record that it belongs to, once.
    let (account, customer) = one_company(&systems).await?;
    systems.salesforce.edit(&text(&account, "Id"), json!({"Phone": "+49 30 88"})).await?;
    holds(&systems.netsuite, &text(&customer, "id"), "phone", "+49 30 88").await?;
    systems.in_step(SOON).await?;
    worker.ready(SOON).await?;
    assert_eq!(outcomes(&systems.netsuite, right).await?, [Outcome::Updated]);
    assert!(writes(&systems.salesforce, left).await?.is_empty(), "an edit came back");
    assert_eq!(worker.integration().await?["ledger"]["balanced"], true);
    worker.stop().await
}
