//! The operator on a real API server, as a person meets it: manifests by kubectl, simulators at the far end, conditions and reasons to read.
//!
//! Each test has a namespace, simulators and an operator process of its own; the operator is a user with the rights of
//! `examples/operator/rbac.yaml` and no others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use fairlead_tests::stage::{PATIENCE, Stage, count, find, judge_statuses};
use fairlead_tests::{AuditEvent, ControlPlane, PrivateControlPlane, Seen, fairlead, free_port, wait_until};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

/// How soon a cause shows, where nothing remote must time out.
const SHOWN: Duration = Duration::from_secs(5);
/// How soon a mended Secret or remote shows, that was found bad less than a minute before.
const MENDED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_quickstart_by_kubectl_alone_is_ready_moves_data_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "quickstart").await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    stage.apply_quickstart().await?;
    stage.all_ready().await?;
    assert_eq!(operator.page("readyz").await?, "ok");
    assert_eq!(operator.page("healthz").await?, "ok");
    stage.edit_arrives("+15550100001").await?;

    // The live numbers on the admin address are the same as for `run`; its console only shows.
    let server = format!("http://{}", operator.listen);
    let told = fairlead()?.args(["status", "--server", &server, "-o", "json"]).output().await?;
    let overview: Value = serde_json::from_slice(&told.stdout).with_context(|| String::from_utf8_lossy(&told.stderr).into_owned())?;
    assert_eq!(
        (&overview["integrations"][0]["ready"], &overview["integrations"][0]["balanced"]),
        (&json!("True"), &json!(true)),
        "{overview:#}"
    );
    assert_eq!(overview["connectors"].as_array().map(Vec::len), Some(2), "{overview:#}");
    let session: Value = serde_json::from_str(&operator.page("api/v1/session").await?)?;
    assert_eq!(session["writing"], "Off");
    assert!(operator.page("console/").await?.contains("main.js"));

    let listed = stage.kubectl(&["get", "fint", "customers", "--no-headers"]).await?;
    assert!(listed.contains("customer-v1") && listed.contains("True"), "{listed}");
    let events = stage.kubectl(&["events", "--for", "integration/customers", "--no-headers"]).await?;
    assert!(events.contains("Normal"), "coming to be Ready is an event: {events}");

    // Deleted in an unkind order: what others need first, a Secret in between.
    let created = stage.erp.creations().await?;
    for object in [
        "secret/netsuite-credentials",
        "fconn/salesforce",
        "configmap/netsuite-acme",
        "fcontract/customer-v1",
        "fint/customers",
        "fconn/netsuite",
    ] {
        stage.kubectl(&["delete", object, "--timeout=20s"]).await?;
    }
    let left = stage.kubectl(&["get", "fcontract,fconn,fint", "--no-headers"]).await?;
    assert_eq!(left, "", "no object stays");
    let store = stage.folder.path().join(format!("state-{}", operator.user)).join("fairlead.sqlite");
    wait_until("no lease in the store", PATIENCE, async || {
        let held = count(&store, "SELECT count(*) FROM lease WHERE holder IS NOT NULL")?;
        Ok(Seen::when(held == 0, format!("{held} leases")))
    })
    .await?;
    assert!(count(&store, "SELECT count(*) FROM record")? >= 60, "Retain keeps the records");

    // The state waited (Retain): a re-apply finds everything again and creates nothing twice.
    stage.apply_quickstart().await?;
    stage.all_ready().await?;
    stage.edit_arrives("+15550100002").await?;
    assert_eq!(stage.erp.creations().await?, created);

    // Delete removes them with the Integration.
    stage
        .apply(
            &stage
                .manifest("40-integration.yaml")?
                .replace("  contract: {name: customer-v1}\n", "  contract: {name: customer-v1}\n  deletionPolicy: Delete\n"),
        )
        .await?;
    stage.all_ready().await?;
    stage.kubectl(&["delete", "fint/customers", "--timeout=20s"]).await?;
    wait_until("the records to be gone", PATIENCE, async || {
        let left = count(&store, "SELECT count(*) FROM record")?;
        Ok(Seen::when(left == 0, format!("{left} records")))
    })
    .await?;

    // Exactly the rights that were granted, and each of them is used. (A watch is told when it ends.)
    let user = operator.user.clone();
    operator.stop().await?;
    wait_until("the end of every watch", PATIENCE, async || {
        let watched: BTreeSet<_> =
            stage.requests(&user)?.into_iter().filter(|request| request.verb == "watch").map(|request| request.resource).collect();
        Ok(Seen::when(watched.len() == 5, format!("{watched:?}")))
    })
    .await?;
    let requests = stage.requests(&user)?;
    judge_statuses(&requests);
    let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let used: BTreeSet<_> = requests.iter().map(|r| (r.resource.as_str(), r.subresource.as_str(), r.verb.as_str())).collect();
    for (resource, verbs) in
        [("secrets", vec!["get"]), ("configmaps", vec!["get", "list", "watch"]), ("leases", vec!["create", "get", "update"])]
    {
        let found: Vec<_> = used.iter().filter(|(found, _, _)| *found == resource).map(|(_, _, verb)| *verb).collect();
        assert_eq!(found, verbs, "{resource}");
    }
    assert!(
        used.iter().all(|(resource, subresource, verb)| *verb != "patch" || *subresource == "status" || *resource == "events"),
        "{used:?}"
    );
    Ok(())
}

#[tokio::test]
async fn each_cause_is_named_and_heals_when_only_the_cause_is_mended() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "causes").await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    operator.leads().await?;
    stage.apply_files(&["10-definitions.yaml", "20-connectors.yaml", "30-contract.yaml", "40-integration.yaml"]).await?;
    stage.apply(&stage.secret("netsuite-credentials", &stage.erp)).await?;

    // A Secret that is not there.
    stage.condition("fconn", "salesforce", ("ResolvedRefs", "False", "SecretNotFound"), SHOWN).await?;
    stage.condition("fconn", "netsuite", ("Ready", "True", "Succeeded"), PATIENCE).await?;
    stage.apply(&stage.secret("salesforce-credentials", &stage.crm)).await?;
    stage.condition("fconn", "salesforce", ("Ready", "True", "Succeeded"), MENDED).await?;
    stage.all_ready().await?;

    // A Secret that is wrong.
    let wrong = stage
        .secret("salesforce-credentials", &stage.crm)
        .replace(stage.crm.credentials["clientSecret"].as_str().context("a secret")?, "wrong");
    stage.kubectl(&["delete", "fconn", "salesforce"]).await?;
    stage.apply(&wrong).await?;
    stage.apply_files(&["20-connectors.yaml"]).await?;
    stage.condition("fconn", "salesforce", ("Reachable", "False", "AuthenticationFailed"), SHOWN).await?;
    stage.apply(&stage.secret("salesforce-credentials", &stage.crm)).await?;
    stage.condition("fconn", "salesforce", ("Ready", "True", "Succeeded"), MENDED).await?;

    // An endpoint at which nobody listens.
    let dead = stage.manifest("20-connectors.yaml")?.replace(&stage.crm.endpoint, &format!("http://127.0.0.1:{}", free_port()?));
    stage.apply(&dead).await?;
    stage.condition("fconn", "salesforce", ("Reachable", "False", "EndpointUnreachable"), SHOWN).await?;
    stage.apply_files(&["20-connectors.yaml"]).await?;
    stage.condition("fconn", "salesforce", ("Ready", "True", "Succeeded"), MENDED).await?;

    // A mapping row that cannot be.
    let bad = stage.manifest("40-integration.yaml")?.replace("{canonical: phone, native: Phone}", "{canonical: employees, native: Phone}");
    let bad = bad.replace("      - {canonical: employees, native: NumberOfEmployees}\n", "");
    stage.apply(&bad).await?;
    stage.condition("fint", "customers", ("Accepted", "False", "MappingInvalid"), SHOWN).await?;
    let object = stage.object("fint", "customers").await?;
    let message = find(&object, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("employees"), "the message names the row: {message}");
    assert_eq!(find(&object, "Stalled")["status"], "True", "a person must act");
    stage.apply_files(&["40-integration.yaml"]).await?;
    stage.condition("fint", "customers", ("Accepted", "True", "Accepted"), SHOWN).await?;

    // A definition that goes, and a contract that goes: their users say so, and heal when only that is back.
    stage.kubectl(&["delete", "configmap", "salesforce-acme"]).await?;
    stage.condition("fconn", "salesforce", ("ResolvedRefs", "False", "ConfigMapNotFound"), SHOWN).await?;
    stage.apply_files(&["10-definitions.yaml"]).await?;
    stage.condition("fconn", "salesforce", ("Ready", "True", "Succeeded"), MENDED).await?;
    stage.kubectl(&["delete", "fcontract", "customer-v1"]).await?;
    stage.condition("fint", "customers", ("ResolvedRefs", "False", "ContractNotFound"), SHOWN).await?;
    stage.apply_files(&["30-contract.yaml"]).await?;
    stage.condition("fint", "customers", ("ResolvedRefs", "True", "ResolvedRefs"), SHOWN).await?;
    stage.all_ready().await?;
    stage.edit_arrives("+15550100003").await?;
    judge_statuses(&stage.requests(&operator.user)?);
    operator.stop().await
}

#[tokio::test]
async fn the_lease_changes_hands_and_a_former_leader_writes_nothing() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "leaders").await?;
    let name = |suffix: &str| format!("{}-{suffix}", stage.namespace.name());
    let first = stage.operator(&name("first")).await?;
    first.leads().await?;
    let second = stage.operator(&name("second")).await?;
    wait_until("the standby to be ready", PATIENCE, async || Ok(Seen::when(second.page("readyz").await? == "ok", "not ready"))).await?;
    stage.apply_files(&["10-definitions.yaml", "20-connectors.yaml"]).await?;
    stage.condition("fconn", "salesforce", ("ResolvedRefs", "False", "SecretNotFound"), PATIENCE).await?;

    // Paused beyond the lease: the standby takes over, and the first finds out before it writes.
    first.process.freeze()?;
    let frozen = Instant::now();
    second.leads().await?;
    let took = frozen.elapsed();
    assert!(took <= Duration::from_secs(20), "{took:?}");
    let thawed = chrono::Utc::now();
    first.process.thaw()?;
    stage.apply_files(&["30-contract.yaml"]).await?;
    stage.condition("fcontract", "customer-v1", ("Accepted", "True", "Accepted"), PATIENCE).await?;
    wait_until("the first to know", PATIENCE, async || {
        let leads = first.metric(r#"leader_election_master_status{name="fairlead-controller"}"#).await?;
        Ok(Seen::when(leads == Some(0.0), format!("{leads:?}")))
    })
    .await?;
    let writes = plane.audit().writes(&first.user, thawed, chrono::Utc::now())?;
    let effective: Vec<_> = writes.iter().filter(|write| write.code < 300).collect();
    assert!(effective.is_empty(), "{effective:?}");
    let states = stage.object("lease", "fairlead-controller").await?;
    assert!(states["spec"]["holderIdentity"].as_str().unwrap_or_default().starts_with(&second.user), "{states}");

    // A graceful stop hands over at once.
    second.stop().await?;
    let stopped = Instant::now();
    first.leads().await?;
    let took = stopped.elapsed();
    assert!(took <= Duration::from_secs(3), "{took:?}");
    first.stop().await
}

#[tokio::test]
async fn data_flows_while_the_api_server_is_away_and_status_catches_up() -> anyhow::Result<()> {
    /// How long the API server is away.
    const AWAY: Duration = Duration::from_secs(60);
    const EDITS: u32 = 10;
    let mut private = PrivateControlPlane::start().await?;
    let plane = (*private).clone();
    let stage = Stage::new(&plane, "away").await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    stage.apply_quickstart().await?;
    stage.all_ready().await?;

    private.kill_api_server().await?;
    let away = tokio::time::Instant::now();
    // Few enough for the guard, which counts changes against the live records.
    for edit in 1..=EDITS {
        stage.edit_arrives(&format!("+1555020{edit:04}")).await?;
        tokio::time::sleep_until(away + AWAY / EDITS * edit).await;
    }
    stage
        .crm
        .post(
            "edit",
            &json!({"entity": "Account", "id": stage.crm.records("Account").await?[0]["Id"], "values": {"Phone": "+15550100005"}}),
        )
        .await?;
    assert_eq!(operator.page("healthz").await?, "ok", "restarting would not bring the API server back");
    private.resume_api_server().await?;

    let back = Instant::now();
    stage
        .apply(
            &stage
                .manifest("40-integration.yaml")?
                .replace("criticality: high", "criticality: low")
                .replace("poll: {every: 1s}", "poll: {every: 2s}"),
        )
        .await?;
    wait_until("the new generation in the status", PATIENCE, async || {
        let object = stage.object("fint", "customers").await?;
        Ok(Seen::when(object["status"]["observedGeneration"] == object["metadata"]["generation"], &object["status"]))
    })
    .await?;
    assert!(back.elapsed() <= Duration::from_secs(30), "{:?}", back.elapsed());
    stage.all_ready().await?;
    stage.edit_arrives("+15550100006").await?;

    // Not gone but frozen: connections stay open and nothing answers. No call waits for ever, and nobody leads on old trust.
    private.freeze_api_server()?;
    wait_until("the end of leading", Duration::from_secs(20), async || {
        let leads = operator.metric(r#"leader_election_master_status{name="fairlead-controller"}"#).await?;
        Ok(Seen::when(leads == Some(0.0), format!("{leads:?}")))
    })
    .await?;
    assert_eq!(operator.page("healthz").await?, "ok");
    stage.edit_arrives("+15550100008").await?;
    private.thaw_api_server()?;
    operator.leads().await?;
    operator.stop().await
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_named_and_harms_no_other() -> anyhow::Result<()> {
    let private = PrivateControlPlane::start().await?;
    let plane = (*private).clone();
    // An API server that knows no rules, as an older release's would: it stores what this release cannot read.
    let lax = json!({"spec": {"versions": [{
        "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    }]}});
    let patched = plane.kubectl(["patch", "crd", "connectors.fairlead.dev", "--type=merge", "-p", &lax.to_string()]).await?;
    ensure!(patched.code == Some(0), "{patched}");

    let stage = Stage::new(&plane, "undecodable").await?;
    let broken = json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Connector",
        "metadata": {"name": "broken", "namespace": stage.namespace.name()},
        "spec": {"endpoint": 7, "auth": ["no", "object"]},
    });
    wait_until("the laxer schema", PATIENCE, async || {
        stage.apply(&broken.to_string()).await?;
        Ok(Seen::Yes(()))
    })
    .await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    stage.apply_quickstart().await?;
    stage.condition("fconn", "broken", ("Accepted", "False", "InvalidSpec"), PATIENCE).await?;
    let object = stage.object("fconn", "broken").await?;
    assert_eq!(find(&object, "Stalled")["status"], "True");
    let message = find(&object, "Accepted")["message"].as_str().unwrap_or_default();
    assert!(message.contains("spec.endpoint"), "{message}");
    stage.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", "fconn/salesforce", "fconn/netsuite", "fint/customers"]).await?;
    assert_eq!(operator.metric(r#"fairlead_undecodable_objects{controller="connector"}"#).await?, Some(1.0));

    // Mended by nothing but a correct spec.
    let mended = stage.manifest("20-connectors.yaml")?.replace("name: salesforce\n", "name: broken\n");
    stage.apply(&mended).await?;
    stage.condition("fconn", "broken", ("Ready", "True", "Succeeded"), MENDED).await?;
    operator.stop().await
}

#[tokio::test]
async fn waiting_five_minutes_once_settled_nothing_is_written_besides_the_lease_not_even_by_a_restart() -> anyhow::Result<()> {
    /// The suite's one long wait (`FAIRLEAD_QUIET_SECONDS`).
    const QUIET: u64 = 300;
    let quiet = std::env::var("FAIRLEAD_QUIET_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(QUIET);
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "quiet").await?;
    let user = format!("{}-operator", stage.namespace.name());
    stage.apply_quickstart().await?;
    let operator = stage.operator(&user).await?;
    stage.all_ready().await?;
    // What is stuck or paused is as quiet as what is well.
    let stuck =
        stage.manifest("20-connectors.yaml")?.replace("name: salesforce\n", "name: stuck\n").replace("salesforce-credentials", "missing");
    stage.apply(&stuck).await?;
    let paused = stage.manifest("40-integration.yaml")?.replace("name: customers\n", "name: paused\n");
    stage.apply(&paused.replace("  sync:\n", "  state: Paused\n  sync:\n").replace("name: customer-v1", "name: missing")).await?;
    stage.condition("fconn", "stuck", ("ResolvedRefs", "False", "SecretNotFound"), PATIENCE).await?;
    stage.condition("fint", "paused", ("ResolvedRefs", "False", "ContractNotFound"), PATIENCE).await?;
    // Settled: what is written once a minute at most has been written too.
    let writes = || -> anyhow::Result<Vec<AuditEvent>> {
        Ok(stage.requests(&user)?.into_iter().filter(|request| request.is_write() && request.resource != "leases").collect())
    };
    wait_until("ten seconds without a write", PATIENCE * 2, async || {
        let last = writes()?.last().map(|write| write.received).ok_or_else(|| anyhow!("no write yet"))?;
        let since = chrono::Utc::now() - last;
        let waiting = operator.metric(r#"workqueue_depth{name="status"}"#).await?;
        Ok(Seen::when(since.num_seconds() >= 10 && waiting == Some(0.0), format!("the last write is {since} old, {waiting:?} wait")))
    })
    .await?;
    let before = writes()?.len();
    // The one thing that can be seen only by waiting.
    tokio::time::sleep(Duration::from_secs(quiet)).await;
    let after = writes()?;
    assert!(after.len() == before, "{:#?}", &after[before..]);

    // A restart finds everything as it was and has nothing to say.
    operator.stop().await?;
    let kubeconfig = plane.kubeconfig_for(&user, &[])?;
    let operator = stage.operator_with(&user, &kubeconfig).await?;
    operator.leads().await?;
    stage.edit_arrives("+15550100007").await?;
    let since_restart: Vec<_> = writes()?.split_off(before);
    assert!(since_restart.is_empty(), "{since_restart:#?}");
    operator.stop().await
}

/// Many paused Integrations: everything is planned, programmed and told, while no data moves. `FAIRLEAD_SCALE=1000` for the published figures.
#[tokio::test]
async fn a_change_among_many_integrations_is_programmed_at_once_and_a_restart_writes_nothing() -> anyhow::Result<()> {
    let count: usize = std::env::var("FAIRLEAD_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "many").await?;
    let user = format!("{}-operator", stage.namespace.name());
    let operator = stage.operator(&user).await?;
    stage.apply_files(&["10-definitions.yaml", "20-connectors.yaml", "30-contract.yaml"]).await?;
    stage.apply(&stage.secret("salesforce-credentials", &stage.crm)).await?;
    stage.apply(&stage.secret("netsuite-credentials", &stage.erp)).await?;

    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("fairlead.dev", "v1alpha1", "Integration"), "integrations");
    let integrations: Api<DynamicObject> = Api::namespaced_with(plane.admin().await?, stage.namespace.name(), &resource);
    let one: Vec<Value> = serde_saphyr::from_multiple(&stage.manifest("40-integration.yaml")?)?;
    let started = Instant::now();
    for index in 0..count {
        let mut object = one.first().context("an integration")?.clone();
        object["metadata"]["name"] = json!(format!("customers-{index}"));
        object["spec"]["state"] = json!("Paused");
        // A correlation field has one holder; these have none.
        for participant in object["spec"]["sync"]["participants"].as_array_mut().into_iter().flatten() {
            participant["write"] = json!({"onDelete": "Keep"});
        }
        integrations.create(&kube::api::PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    let created = started.elapsed();
    let programmed = |object: &DynamicObject| {
        let status = find(&object.data, "Programmed");
        status["status"] == "True" && status["observedGeneration"].as_i64() == object.metadata.generation
    };
    let all_programmed = async || {
        let listed = integrations.list(&ListParams::default()).await?;
        let done = listed.iter().filter(|object| programmed(object)).count();
        let first = listed.iter().find(|object| !programmed(object)).map(|object| object.data["status"].to_string());
        Ok(Seen::when(done == count, format!("{done} of {count}; another one: {first:?}")))
    };
    wait_until("every integration programmed", PATIENCE * 4, all_programmed).await?;
    println!("{count} integrations: created in {created:?}, all programmed {:?} after the first", started.elapsed());

    // Ten changes a second.
    let mut took = Vec::new();
    for change in 0..30 {
        let name = format!("customers-{}", change * 7 % count);
        let begun = Instant::now();
        let patch = json!({"spec": {"sync": {"guard": {"maxDeletePercent": 6 + change}}}});
        integrations.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        wait_until("the change programmed", PATIENCE, async || Ok(Seen::when(programmed(&integrations.get(&name).await?), "not yet")))
            .await?;
        took.push(begun.elapsed());
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("change to Programmed: median {median:?}, worst {worst:?} (looked at every 50 ms)");
    let resident = || -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", operator.process.pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
    };
    println!("resident: {} MiB", resident()? / 1024);
    println!(
        "{}",
        operator.page("metrics").await?.lines().filter(|line| line.starts_with("fairlead_plan_seconds")).collect::<Vec<_>>().join("\n")
    );
    assert!(median <= Duration::from_secs(1), "{median:?}");

    wait_until("nothing left to write", PATIENCE * 2, async || {
        let waiting = operator.metric(r#"workqueue_depth{name="status"}"#).await?;
        Ok(Seen::when(waiting == Some(0.0), format!("{waiting:?}")))
    })
    .await?;
    operator.stop().await?;
    let before = stage.requests(&user)?.len();
    let operator = stage.operator_with(&user, &plane.kubeconfig_for(&user, &[])?).await?;
    operator.leads().await?;
    wait_until("the world to be judged", Duration::from_secs(30), async || {
        let judged = operator.metric(r#"controller_runtime_reconcile_total{controller="integration",result="success"}"#).await?;
        Ok(Seen::when(judged.is_some_and(|judged| judged >= count as f64), format!("{judged:?}")))
    })
    .await?;
    operator.stop().await?;
    let writes: Vec<_> = stage.requests(&user)?.split_off(before).into_iter().filter(|r| r.is_write() && r.resource != "leases").collect();
    assert!(writes.is_empty(), "{} writes, such as {:#?}", writes.len(), writes.first());
    Ok(())
}

#[tokio::test]
async fn an_integration_follows_its_shared_field_table_and_its_lookup_table_when_only_they_are_mended() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "tables").await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    operator.leads().await?;

    // The last row of the CRM's own table moves into a shared one, and the country is looked up.
    let own = "      - {canonical: address.country, native: BillingCountryCode}\n";
    let shared = stage.manifest("40-integration.yaml")?;
    ensure!(shared.contains(own), "the quickstart maps the country");
    let shared = shared.replace(own, "").replace(
        "      fields:\n      - {canonical: name, native: Name}\n",
        "      fieldsFrom: [{name: account-fields}]\n      fields:\n      - {canonical: name, native: Name}\n",
    );
    let map = |name: &str, key: &str, text: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": stage.namespace.name()}, "data": {key: text}})
            .to_string()
    };
    let rows = |row: &str| map("account-fields", "fields.yaml", &format!("owner: {{team: crm-platform}}\nfields:\n- {row}\n"));
    let looked_up =
        "{canonical: address.country, native: BillingCountryCode, lookup: {name: country-codes, otherwise: {canonical: ZZ, native: US}}}";
    let message = async |condition: &str| -> anyhow::Result<String> {
        let object = stage.object("fint", "customers").await?;
        Ok(find(&object, condition)["message"].as_str().unwrap_or_default().to_owned())
    };

    for secret in [stage.secret("netsuite-credentials", &stage.erp), stage.secret("salesforce-credentials", &stage.crm)] {
        stage.apply(&secret).await?;
    }
    stage.apply_files(&["10-definitions.yaml", "20-connectors.yaml", "30-contract.yaml"]).await?;
    stage.apply(&shared).await?;
    stage.condition("fint", "customers", ("ResolvedRefs", "False", "ConfigMapNotFound"), SHOWN).await?;

    // A table that cannot be read, one with a wrong row, and one whose lookup table is missing.
    stage.apply(&rows("{canonical: address.country, nativ: BillingCountryCode}")).await?;
    stage.condition("fint", "customers", ("ResolvedRefs", "False", "TableInvalid"), SHOWN).await?;
    ensure!(message("ResolvedRefs").await?.contains("fields[0].nativ"), "{}", message("ResolvedRefs").await?);
    stage.apply(&rows("{canonical: address.country, native: BillingCountyCode}")).await?;
    stage.condition("fint", "customers", ("Accepted", "False", "MappingInvalid"), SHOWN).await?;
    let told = message("Accepted").await?;
    let row = format!("ConfigMap {}/account-fields, fields[0].native: address.country", stage.namespace.name());
    ensure!(told.contains(&row) && told.contains("did you mean"), "{told}");
    stage.apply(&rows(looked_up)).await?;
    stage.condition("fint", "customers", ("ResolvedRefs", "False", "ConfigMapNotFound"), SHOWN).await?;
    stage.apply(&map("country-codes", "lookup.csv", "canonical,native\nUS\n")).await?;
    stage.condition("fint", "customers", ("ResolvedRefs", "False", "TableInvalid"), SHOWN).await?;
    stage.apply(&map("country-codes", "lookup.csv", "canonical,native\nUS,US\nDE,DE\nFR,FR\nGB,GB\n")).await?;
    stage.all_ready().await?;
    judge_statuses(&stage.requests(&operator.user)?);
    operator.stop().await
}

#[tokio::test]
async fn waiting_for_the_schedule_what_slipped_past_reading_is_put_right_and_told_in_the_status() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let stage = Stage::new(&plane, "reconciling").await?;
    let operator = stage.operator(&format!("{}-operator", stage.namespace.name())).await?;
    stage.apply_quickstart().await?;
    let scheduled = "  reconcile: {schedule: {cron: \"* * * * *\", timeZone: Europe/Berlin}, policy: Repair}\n  sync:\n";
    stage.apply(&stage.manifest("40-integration.yaml")?.replacen("  sync:\n", scheduled, 1)).await?;
    stage.all_ready().await?;
    stage.edit_arrives("+15550100003").await?;

    // A transaction that ended long after its records were stamped: reading by stamps has passed that moment.
    let account = stage.crm.records("Account").await?.into_iter().nth(1).context("an account")?;
    let edit = json!({"entity": "Account", "id": account["Id"], "values": {"Phone": "+15550100004"}, "secondsAgo": 7200});
    stage.crm.post("edit", &edit).await?;
    let arrived = async || -> anyhow::Result<bool> {
        let customers = stage.erp.records("customer").await?;
        Ok(customers.iter().any(|customer| customer["companyName"] == account["Name"] && customer["phone"] == "+15550100004"))
    };
    stage.edit_arrives("+15550100005").await?;
    ensure!(!arrived().await?, "it is not read by its stamp");
    let schedule = 2 * Duration::from_secs(60) + PATIENCE;
    wait_until("what slipped past", schedule, async || Ok(Seen::when(arrived().await?, "not there"))).await?;
    let told = async || -> anyhow::Result<Value> { Ok(stage.object("fint", "customers").await?["status"]["reconciliation"].clone()) };
    wait_until("a reconciliation that finds nothing", schedule, async || {
        let told = told().await?;
        let in_step = told["outcome"] == "InStep" && told["lastSuccessTime"] == told["at"] && told["compared"].as_u64() > Some(100);
        Ok(Seen::when(in_step, told))
    })
    .await?;
    judge_statuses(&stage.requests(&operator.user)?);
    operator.stop().await
}
