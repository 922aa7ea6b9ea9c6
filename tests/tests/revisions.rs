//! The revisions of an Integration on a real API server: kept as ControllerRevisions, rolled out in steps, and taken back.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use fairlead_tests::stage::{PATIENCE, Stage, judge_statuses};
use fairlead_tests::{ControlPlane, Seen, fairlead, wait_until};
use serde_json::{Value, json};

/// Long enough for both phases of the rollout below, on a busy machine.
const ROLLED_OUT: Duration = Duration::from_secs(120);

/// The revisions of the Integration, the oldest first.
async fn revisions(stage: &Stage) -> anyhow::Result<Vec<Value>> {
    let text = stage.kubectl(&["get", "controllerrevisions", "-l", "fairlead.dev/integration=customers", "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let mut revisions = list["items"].as_array().cloned().context("a list")?;
    revisions.sort_by_key(|revision| revision["revision"].as_i64());
    Ok(revisions)
}

/// Waits until `status.revision` is this.
async fn in_force(stage: &Stage, number: i64) -> anyhow::Result<()> {
    wait_until(&format!("revision {number} to be in force"), ROLLED_OUT, async || {
        let object = stage.object("fint", "customers").await?;
        let revision = &object["status"]["revision"];
        Ok(Seen::when(*revision == json!({"active": number}), revision))
    })
    .await
    .map(drop)
}

#[tokio::test]
async fn each_change_is_a_revision_that_the_integration_owns_and_one_is_rolled_out_and_taken_back() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "revisions").await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    stage.apply_quickstart().await?;
    stage.all_ready().await?;
    in_force(&stage, 1).await?;

    let integration = stage.object("fint", "customers").await?;
    let kept = revisions(&stage).await?;
    ensure!(kept.len() == 1 && kept[0]["revision"] == 1, "{kept:#?}");
    let owner = &kept[0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Integration"), &json!("customers")));
    assert_eq!((&owner["uid"], &owner["controller"]), (&integration["metadata"]["uid"], &json!(true)));
    assert_eq!(kept[0]["data"]["spec"]["contract"]["name"], "customer-v1");

    // The same row in other words: compared, tried, and in force, while changes arrive.
    let plain = stage.manifest("40-integration.yaml")?;
    let rolled = plain
        .replace(
            "  contract: {name: customer-v1}\n",
            "  contract: {name: customer-v1}\n  rollout: {shadow: 3s, canaryPercent: 50, for: 3s}\n",
        )
        .replace(
            "{canonical: website, native: url}",
            "{canonical: website, native: url, toCanonical: .record.url, fromCanonical: .record.website}",
        );
    stage.apply(&rolled).await?;
    stage.condition("fint", "customers", ("Ready", "False", "RolloutShadow"), PATIENCE).await?;
    let object = stage.object("fint", "customers").await?;
    assert_eq!((&object["status"]["revision"]["active"], &object["status"]["revision"]["canary"]), (&json!(1), &json!(2)));
    stage.condition("fint", "customers", ("Ready", "False", "RolloutCanary"), ROLLED_OUT).await?;
    stage.edit_arrives("+15550300001").await?;
    in_force(&stage, 2).await?;
    stage.all_ready().await?;
    stage.edit_arrives("+15550300002").await?;

    // Taken back, it is the next revision, and declares what the first did.
    let printed = fairlead()?
        .args(["rollback", &format!("{}/customers", stage.namespace.name())])
        .env("KUBECONFIG", plane.kubeconfig())
        .output()
        .await?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    stage.apply(&String::from_utf8(printed.stdout)?).await?;
    wait_until("the third revision", PATIENCE, async || {
        let kept = revisions(&stage).await?;
        Ok(Seen::when(kept.len() == 3, format!("{} revisions", kept.len())))
    })
    .await?;
    let kept = revisions(&stage).await?;
    assert_eq!(kept[2]["data"], kept[0]["data"]);
    in_force(&stage, 3).await?;

    // They go with the Integration.
    stage.kubectl(&["delete", "fint/customers", "--timeout=20s"]).await?;
    wait_until("the revisions to be collected", PATIENCE, async || {
        let kept = revisions(&stage).await?;
        Ok(Seen::when(kept.is_empty(), format!("{} revisions", kept.len())))
    })
    .await?;
    let requests = stage.requests(&operator.user)?;
    judge_statuses(&requests);
    let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    operator.stop().await
}
