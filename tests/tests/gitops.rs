//! What GitOps tools do with Fairlead's resources and what they conclude from its statuses: judged by kstatus itself and by the health
//! rules of `examples/gitops` in the interpreters that Flux and Argo CD run them in, on fixtures and on every status of a quickstart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use fairlead_tests::stage::{PATIENCE, Stage};
use fairlead_tests::{AuditEvent, ControlPlane, Seen, wait_until};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// kstatus, Flux with our expressions, Argo CD with our scripts.
type Concluded = (&'static str, &'static str, &'static str);

const IN_PROGRESS: Concluded = ("InProgress", "InProgress", "Progressing");
const READY: Concluded = ("Current", "Current", "Healthy");
const PAUSED: Concluded = ("Current", "Current", "Suspended");
const STALLED: Concluded = ("Failed", "Failed", "Degraded");
/// Something remote is broken and may come back by itself: kstatus has no word for it and waits.
const DEGRADED: Concluded = ("InProgress", "Failed", "Degraded");
const GOING: Concluded = ("Terminating", "Terminating", "Progressing");
/// Before the first status kstatus falsely sees nothing to wait for; the rules of `examples/gitops` wait.
const UNSEEN: Concluded = ("Current", "Unknown", "Progressing");

#[derive(Debug, Deserialize)]
struct Verdict {
    kstatus: String,
    flux: String,
    argocd: String,
    message: String,
}

impl Verdict {
    fn concluded(&self) -> (&str, &str, &str) {
        (&self.kstatus, &self.flux, &self.argocd)
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gitops")
}

/// What the tools conclude from each of these objects.
async fn judge(objects: &[Value]) -> anyhow::Result<Vec<Verdict>> {
    let judge = std::env::var_os("FAIRLEAD_TEST_GITOPS")
        .context("FAIRLEAD_TEST_GITOPS is not set: run the tests with `make test` or `cargo nextest run`")?;
    let mut command = Command::new(judge);
    command.arg("-argocd").arg(examples().join("argocd/argocd-cm.yaml")).arg("-flux").arg(examples().join("flux/fleet.yaml"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("its standard input")?;
    let text = Value::from(objects).to_string();
    // It reads everything before it writes anything.
    input.write_all(text.as_bytes()).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn is(object: &Value, kind: &str, status: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|each| each["type"] == kind && each["status"] == status))
}

/// What the tools must conclude from an object, by the rules that statuses are written by.
fn expected(object: &Value) -> Concluded {
    let paused = |each: &Value| each["type"] == "Ready" && each["reason"] == "Paused";
    if !object["metadata"]["deletionTimestamp"].is_null() {
        GOING
    } else if object["status"]["conditions"].is_null() {
        UNSEEN
    } else if object["status"]["observedGeneration"] != object["metadata"]["generation"] || is(object, "Reconciling", "True") {
        IN_PROGRESS
    } else if is(object, "Stalled", "True") {
        STALLED
    } else if is(object, "Degraded", "True") {
        DEGRADED
    } else if object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(paused)) {
        PAUSED
    } else {
        assert!(is(object, "Ready", "True"), "not ready, and nothing says whether waiting helps: {object}");
        READY
    }
}

#[tokio::test]
async fn each_situation_is_judged_as_documented() -> anyhow::Result<()> {
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "in words", "observedGeneration": 2,
            "lastTransitionTime": "2026-11-24T12:00:00Z"})
    };
    let ready = |status: &str, reason: &str| condition("Ready", status, reason);
    let seen = |conditions: Value| json!({"observedGeneration": 2, "conditions": conditions});
    let situations = [
        ("no status yet", Value::Null, UNSEEN),
        ("an older generation was seen", json!({"observedGeneration": 1, "conditions": [ready("True", "Succeeded")]}), IN_PROGRESS),
        ("on its way", seen(json!([ready("False", "Progressing"), condition("Reconciling", "True", "Progressing")])), IN_PROGRESS),
        ("a person must act", seen(json!([ready("False", "SecretNotFound"), condition("Stalled", "True", "SecretNotFound")])), STALLED),
        (
            "something remote is broken",
            seen(json!([ready("False", "CircuitOpen"), condition("Degraded", "True", "CircuitOpen")])),
            DEGRADED,
        ),
        ("all is so", seen(json!([ready("True", "Succeeded")])), READY),
        ("all is so, and slowed down", seen(json!([ready("True", "Succeeded"), condition("Throttled", "True", "RateLimited")])), READY),
        ("the preview is done", seen(json!([ready("True", "Preview")])), READY),
        ("paused", seen(json!([ready("True", "Paused"), condition("Paused", "True", "Paused")])), PAUSED),
    ];
    for kind in ["Connector", "ApiContract", "Integration"] {
        let object = |status: &Value, extra: Value| {
            let mut metadata = json!({"name": "customers", "namespace": "north-america", "generation": 2});
            for (key, value) in extra.as_object().into_iter().flatten() {
                metadata[key] = value.clone();
            }
            let mut object = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": {}});
            if !status.is_null() {
                object["status"] = status.clone();
            }
            object
        };
        let going = object(&situations[5].1, json!({"deletionTimestamp": "2026-11-24T12:00:00Z", "finalizers": ["acme.example/held"]}));
        let mut objects: Vec<Value> = situations.iter().map(|(_, status, _)| object(status, json!({}))).collect();
        objects.push(going);
        let verdicts = judge(&objects).await?;
        let wanted = situations.iter().map(|(about, _, wanted)| (*about, *wanted)).chain([("going away", GOING)]);
        for (((about, wanted), verdict), object) in wanted.zip(&verdicts).zip(&objects) {
            assert_eq!(verdict.concluded(), wanted, "{kind}, {about}");
            assert_eq!(expected(object), wanted, "{kind}, {about}: this test's own rule");
        }
        assert_eq!(verdicts[3].message, "SecretNotFound: in words", "Argo CD tells the reason");
    }
    Ok(())
}

/// Every status that `user` wrote, as the object was then: what is applied names no generation, and speaks of the one that it observed.
fn written(stage: &Stage, user: &str) -> anyhow::Result<Vec<Value>> {
    let status = |event: &AuditEvent| event.is_write() && event.subresource == "status" && event.code == 200;
    let whole = |mut object: Value| {
        object["metadata"]["generation"] = object["status"]["observedGeneration"].clone();
        object
    };
    Ok(stage.requests(user)?.into_iter().filter(status).filter_map(|event| event.body).map(whole).collect())
}

#[tokio::test]
async fn at_every_moment_of_a_quickstart_the_tools_conclude_what_is_so() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "gitops-truth").await?;
    stage.apply_quickstart().await?;
    let kinds = [("fconn", "salesforce"), ("fconn", "netsuite"), ("fcontract", "customer-v1"), ("fint", "customers")];
    let now = async || {
        let mut objects = Vec::new();
        for (kind, name) in kinds {
            objects.push(stage.object(kind, name).await?);
        }
        anyhow::Ok(objects)
    };
    let mut seen = BTreeSet::new();
    let mut look = async |stage_name: &str| {
        let objects = now().await?;
        for (verdict, object) in judge(&objects).await?.iter().zip(&objects) {
            assert_eq!(verdict.concluded(), expected(object), "{stage_name}: {object}");
            seen.insert((object["kind"].as_str().unwrap_or_default().to_owned(), verdict.argocd.clone()));
        }
        anyhow::Ok(())
    };
    look("before the operator runs").await?;

    let user = format!("{}-operator", stage.namespace.name());
    let operator = stage.operator(&user).await?;
    stage.all_ready().await?;
    look("all ready").await?;

    stage.kubectl(&["patch", "fint", "customers", "--type=merge", "-p", r#"{"spec":{"state":"Paused"}}"#]).await?;
    stage.condition("fint", "customers", ("Ready", "True", "Paused"), PATIENCE).await?;
    look("paused").await?;
    stage.kubectl(&["patch", "fint", "customers", "--type=merge", "-p", r#"{"spec":{"state":"Running"}}"#]).await?;
    stage.condition("fint", "customers", ("Ready", "True", "Succeeded"), PATIENCE).await?;

    stage.kubectl(&["delete", "secret", "netsuite-credentials"]).await?;
    stage.kubectl(&["patch", "fconn", "netsuite", "--type=merge", "-p", r#"{"spec":{"auth":{"secretRef":{"name":"none"}}}}"#]).await?;
    stage.condition("fconn", "netsuite", ("Ready", "False", "SecretNotFound"), PATIENCE).await?;
    look("a Secret is missing").await?;

    stage.kubectl(&["patch", "fconn", "salesforce", "--type=merge", "-p", r#"{"metadata":{"finalizers":["acme.example/held"]}}"#]).await?;
    stage.kubectl(&["delete", "fconn", "salesforce", "--wait=false"]).await?;
    look("going away").await?;
    stage.kubectl(&["patch", "fconn", "salesforce", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await?;
    operator.stop().await?;

    for wanted in [("Integration", "Suspended"), ("Integration", "Healthy"), ("Connector", "Degraded"), ("Connector", "Progressing")] {
        assert!(seen.contains(&(wanted.0.to_owned(), wanted.1.to_owned())), "{wanted:?} was not among {seen:?}");
    }
    // And between the looks: every status that was ever written.
    let statuses = written(&stage, &user)?;
    assert!(statuses.len() > 6, "only {} statuses were written", statuses.len());
    for (verdict, object) in judge(&statuses).await?.iter().zip(&statuses) {
        assert_eq!(verdict.concluded(), expected(object), "{object}");
    }
    Ok(())
}

/// The parts of an object that an apply may change.
fn applied(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        if let Some(managers) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            managers.retain(|manager| manager["subresource"] != "status");
        }
    }
    object
}

#[tokio::test]
async fn applying_twice_changes_nothing_and_pruning_and_applying_again_creates_nothing_twice() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "gitops-apply").await?;
    let user = format!("{}-operator", stage.namespace.name());
    let operator = stage.operator(&user).await?;
    stage.apply(&stage.secret("salesforce-credentials", &stage.crm)).await?;
    stage.apply(&stage.secret("netsuite-credentials", &stage.erp)).await?;
    // Contracts first, then what the units declare, as the waves and `dependsOn` of examples/gitops order them.
    let waves = [vec!["30-contract.yaml"], vec!["10-definitions.yaml", "20-connectors.yaml", "40-integration.yaml"]];
    let sync = async || {
        for wave in &waves {
            for file in wave {
                // As Argo CD and Flux apply: on the server, as one field manager, without force.
                let arguments = ["apply", "--server-side", "--field-manager=gitops", "-f", "-"];
                let answer = plane.kubectl_with_input(arguments, &stage.manifest(file)?).await?;
                ensure!(answer.code == Some(0), "{answer}");
            }
        }
        anyhow::Ok(())
    };
    let all = async || {
        let listed = stage.kubectl(&["get", "fconn,fcontract,fint", "-o", "json", "--show-managed-fields"]).await?;
        let listed: Value = serde_json::from_str(&listed)?;
        anyhow::Ok(listed["items"].as_array().cloned().unwrap_or_default().into_iter().map(applied).collect::<Vec<Value>>())
    };
    sync().await?;
    stage.all_ready().await?;
    let before = all().await?;
    assert_eq!(before.len(), 4);
    sync().await?;
    assert_eq!(all().await?, before, "a second sync changes nothing");
    // What ServerSideDiff asks: with the operator's status and the schema's defaults there is no drift.
    for file in waves.iter().flatten() {
        let arguments = ["diff", "--server-side", "--field-manager=gitops", "-f", "-"];
        let answer = plane.kubectl_with_input(arguments, &stage.manifest(file)?).await?;
        assert_eq!(answer.code, Some(0), "{file} drifts: {answer}");
    }

    // Somebody takes the integration out of git: it is pruned, and with `deletionPolicy: Retain` what it knows waits.
    let created = (stage.crm.creations().await?, stage.erp.creations().await?);
    assert!(created.0 + created.1 > 0, "the first load creates something");
    stage.kubectl(&["delete", "fint", "customers", "--cascade=foreground", "--timeout=60s"]).await?;
    sync().await?;
    stage.all_ready().await?;
    stage.edit_arrives("+1 555 0100").await?;
    let again = (stage.crm.creations().await?, stage.erp.creations().await?);
    assert_eq!(again, created, "nothing is created twice");

    // The whole unit goes and comes back.
    stage.kubectl(&["delete", "fint,fconn,fcontract", "--all", "--cascade=foreground", "--timeout=60s"]).await?;
    wait_until("nothing left", PATIENCE, async || {
        let left = stage.kubectl(&["get", "fairlead", "-o", "name"]).await?;
        Ok(Seen::when(left.is_empty(), left))
    })
    .await?;
    sync().await?;
    stage.all_ready().await?;
    stage.edit_arrives("+1 555 0101").await?;
    let again = (stage.crm.creations().await?, stage.erp.creations().await?);
    assert_eq!(again, created, "nothing is created twice");
    operator.stop().await
}

#[test]
fn the_examples_give_the_chart_values_and_order_operator_contracts_units() -> anyhow::Result<()> {
    let documents =
        |file: &str| -> anyhow::Result<Vec<Value>> { Ok(serde_saphyr::from_multiple(&std::fs::read_to_string(examples().join(file))?)?) };
    let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(examples().join("../../charts/fairlead/values.yaml"))?)?;
    let known =
        |given: &Value| given.as_object().is_some_and(|given| !given.is_empty() && given.keys().all(|key| values.get(key).is_some()));

    let applications = documents("argocd/applications.yaml")?;
    let wave = |application: &Value| application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"].as_str().map(str::to_owned);
    let waves: Vec<_> = applications.iter().map(wave).collect();
    assert_eq!(waves, ["0", "1", "2"].map(|wave| Some(wave.to_owned())));
    assert!(known(&applications[0]["spec"]["source"]["helm"]["valuesObject"]));
    for application in &applications {
        let options = application["spec"]["syncPolicy"]["syncOptions"].as_array().context("syncOptions")?;
        assert!(options.contains(&json!("ServerSideApply=true")), "{application}");
        assert_eq!(application["spec"]["syncPolicy"]["automated"]["prune"], true);
    }

    let release = documents("flux/operator.yaml")?.into_iter().find(|each| each["kind"] == "HelmRelease").context("a HelmRelease")?;
    assert!(known(&release["spec"]["values"]));
    let fleet = documents("flux/fleet.yaml")?;
    let order: Vec<_> = fleet
        .iter()
        .filter(|each| each["kind"] == "Kustomization")
        .map(|each| (&each["metadata"]["name"], &each["spec"]["dependsOn"][0]["name"]))
        .collect();
    let (operator, contracts) = (json!("fairlead-operator"), json!("fairlead-contracts"));
    assert_eq!(order, [(&operator, &Value::Null), (&contracts, &operator), (&json!("fairlead-north-america"), &contracts)]);
    Ok(())
}
