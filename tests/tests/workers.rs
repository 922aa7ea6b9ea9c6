//! One process plans and two run what it planned, on one PostgreSQL: each of them is killed once, and the records go on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::time::Duration;

use fairlead_store::contract_tests::server::Server;
use fairlead_tests::two_systems::{Fairlead, TwoSystems, text};
use fairlead_tests::{Seen, fairlead, free_port, wait_until};
use serde_json::json;

/// Enough for leases and silence to run out.
const PATIENCE: Duration = Duration::from_secs(90);

/// A person edits a customer, and the edit arrives.
async fn an_edit_arrives(systems: &TwoSystems, (id, tax): (&str, &str), limit: u64) -> anyhow::Result<()> {
    systems.netsuite.edit(id, json!({"creditLimit": limit})).await?;
    wait_until(&format!("the limit {limit}"), PATIENCE, async || {
        let account = systems.salesforce.find("Tax_Number__c", tax).await?;
        Ok(Seen::when(text(&account, "Credit_Limit__c") == format!("{limit}.0"), format_args!("{account}")))
    })
    .await
}

/// Waits until a worker holds so many partitions of the two lanes, which have eight each.
async fn has(server: &Server, worker: &Fairlead, partitions: u32) -> anyhow::Result<()> {
    let count = format!("SELECT count(*) FROM fairlead.lease WHERE key LIKE 'lane/%' AND holder LIKE '{}-%'", worker.process.pid());
    wait_until(&format!("{partitions} partitions for a worker"), PATIENCE, async || {
        let held = server.sql("fleet", &count);
        Ok(Seen::when(held == partitions.to_string(), held))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_run_what_one_process_plans_and_each_of_them_may_die() -> anyhow::Result<()> {
    let server = Server::start();
    let systems = TwoSystems::start(21, (5_000, 60), (5_020, 60)).await?.with_database(Some(server.database("fleet")));
    let (port, token) = (free_port()?, systems.worker_token()?);
    let plans = systems.planner("planner", port, &token)?;
    let mut workers = [systems.worker("one", port, &token)?, systems.worker("two", port, &token)?];
    plans.condition("Ready", "True", "Succeeded", PATIENCE).await?;
    systems.in_step(PATIENCE).await?;
    let customer = systems.netsuite.records().await?.into_iter().find(|record| !text(record, "creditLimit").is_empty()).unwrap();
    let (id, tax) = (text(&customer, "id"), text(&customer, "vatRegNumber"));
    an_edit_arrives(&systems, (&id, &tax), 2_000_001).await?;
    assert!(!plans.process.stderr()?.contains("reachable"), "the planner talks to no system: {}", plans.process.tail());
    assert_eq!(plans.integration().await?["ledger"]["balanced"], true);

    // A worker dies: the other has everything.
    workers[0].process.kill().await?;
    an_edit_arrives(&systems, (&id, &tax), 2_000_002).await?;

    // The planner dies: the worker goes on with what it knows; one that begins meanwhile waits for it.
    let mut plans = plans;
    plans.process.kill().await?;
    an_edit_arrives(&systems, (&id, &tax), 2_000_003).await?;
    workers[0] = systems.worker("three", port, &token)?;
    wait_until("a worker that asks in vain", PATIENCE, async || {
        let told = workers[0].process.stderr()?;
        Ok(Seen::when(told.contains("no units come from the planner"), workers[0].process.tail()))
    })
    .await?;
    let plans = systems.planner("planner-again", port, &token)?;
    plans.condition("Ready", "True", "Succeeded", PATIENCE).await?;
    // The one that waited gets its share.
    has(&server, &workers[0], 8).await?;

    // An edit of a resource reaches both: what is Programmed, runs everywhere.
    let mut manifests = systems.manifests()?;
    manifests.integration()?["spec"]["sync"]["resync"] = json!("again");
    systems.apply(&manifests)?;
    wait_until("the edited Integration, Ready", PATIENCE, async || {
        let integration = plans.integration().await?;
        let ready =
            integration["conditions"].as_array().into_iter().flatten().any(|found| found["type"] == "Ready" && found["status"] == "True");
        Ok(Seen::when(ready && integration["observedGeneration"] == 2, &integration))
    })
    .await?;

    // The other worker dies, too: the one that is left has everything.
    workers[1].process.kill().await?;
    an_edit_arrives(&systems, (&id, &tax), 2_000_004).await?;
    has(&server, &workers[0], 16).await?;

    // Whoever stops says so; without any worker nothing is known any more.
    let [left, _] = workers;
    left.stop().await?;
    plans.condition("Ready", "Unknown", "WorkerNotReporting", PATIENCE).await?;
    let report = systems.judged().await?;
    report.correct()?;
    plans.stop().await
}

#[tokio::test]
async fn a_worker_that_cannot_work_says_what_to_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("token"), "short")?;
    let token = folder.path().join("token");
    for (arguments, said) in [
        (vec!["worker", "--planner", "http://planner.example:8082"], "plain HTTP to another machine"),
        (vec!["worker", "--planner", "planner"], "is no address of a planner"),
        (vec!["worker", "--planner", "http://127.0.0.1:1", "--secrets", "."], "only where the state lies in PostgreSQL"),
        (vec!["run", ".", "--workers-listen", "127.0.0.1:0"], "only where the state lies in PostgreSQL"),
    ] {
        let mut command = fairlead()?;
        command.args(&arguments).arg("--worker-token-file").arg(&token).arg("--state").arg(folder.path().join("state"));
        let output = command.current_dir(folder.path()).output().await?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(said), "{arguments:?}: {told}");
    }
    Ok(())
}
