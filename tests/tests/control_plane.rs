//! The harness itself, proven on the real thing: the control plane works as a cluster does, as far as tests rely
//! on it.

use std::time::Duration;

use fairlead_tests::{ControlPlane, PrivateControlPlane, Process, Seen, TestNamespace, wait_until};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};

const SOON: Duration = Duration::from_secs(30);

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

#[tokio::test]
async fn the_controller_manager_gives_a_new_namespace_its_default_service_account() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let namespace = TestNamespace::new(&plane, "default-account").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.admin().await?, namespace.name());
    wait_until("the default service account", SOON, async || {
        let found = accounts.get_opt("default").await?;
        Ok(Seen::when(found.is_some(), "no account called default"))
    })
    .await
}

#[tokio::test]
async fn the_audit_log_tells_who_wrote_what() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let namespace = TestNamespace::new(&plane, "audited").await?;
    let user = format!("{}-writer", namespace.name());
    let rule = PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["configmaps".to_owned()]),
        verbs: vec!["create".to_owned()],
        ..PolicyRule::default()
    };
    plane.allow(&user, Some(namespace.name()), vec![rule]).await?;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client_for(&user, &[]).await?, namespace.name());

    let from = chrono::Utc::now();
    // The grant reaches the authorizer through a watch.
    wait_until("the write is allowed", SOON, async || {
        maps.create(&PostParams::default(), &config_map("written")).await?;
        Ok(Seen::Yes(()))
    })
    .await?;

    let write = wait_until("the write in the audit log", SOON, async || {
        let writes = plane.audit().writes(&user, from, chrono::Utc::now())?;
        Ok(match writes.iter().find(|write| write.code == 201) {
            Some(write) => Seen::Yes(write.clone()),
            None => Seen::NotYet(format!("{writes:?}")),
        })
    })
    .await?;
    assert_eq!((write.verb.as_str(), write.resource.as_str(), write.name.as_str()), ("create", "configmaps", "written"));
    assert_eq!(write.namespace, namespace.name());
    let others = plane.audit().writes("somebody-else", from, chrono::Utc::now())?;
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

#[tokio::test]
async fn a_user_without_a_grant_is_refused_also_by_impersonation() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    for client in [plane.client_for("nobody", &[]).await?, plane.impersonate("nobody", &[]).await?] {
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        match maps.list(&ListParams::default()).await {
            Err(kube::Error::Api(refusal)) => assert_eq!(refusal.code, 403, "{refusal:?}"),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn kubectl_answers_with_words_and_an_exit_code() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let namespace = TestNamespace::new(&plane, "kubectl").await?;
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {colour: blue}\n";
    let applied = plane.kubectl_with_input(["apply", "-n", namespace.name(), "-f", "-"], manifest).await?;
    assert_eq!(applied.code, Some(0), "{applied}");
    assert_eq!(applied.stdout, "configmap/applied created\n");

    let shown = plane.kubectl(["get", "configmap", "applied", "-n", namespace.name(), "-o", "jsonpath={.data.colour}"]).await?;
    assert_eq!(shown.stdout, "blue", "{shown}");

    let missing = plane.kubectl(["get", "configmap", "missing", "-n", namespace.name()]).await?;
    assert_eq!(missing.code, Some(1), "{missing}");
    assert!(missing.stderr.contains("\"missing\" not found"), "{missing}");
    Ok(())
}

#[tokio::test]
async fn a_private_api_server_goes_away_and_comes_back_with_its_data() -> anyhow::Result<()> {
    let mut plane = PrivateControlPlane::start().await?;
    let maps: Api<ConfigMap> = Api::namespaced(plane.admin().await?, "default");
    maps.create(&PostParams::default(), &config_map("kept")).await?;

    plane.kill_api_server().await?;
    let away = plane.kubectl(["get", "configmap", "kept"]).await?;
    assert_eq!(away.code, Some(1), "{away}");

    plane.resume_api_server().await?;
    wait_until("the data again", SOON, async || {
        maps.get("kept").await?;
        Ok(Seen::Yes(()))
    })
    .await
}

#[tokio::test]
async fn a_process_is_frozen_thawed_and_ended() -> anyhow::Result<()> {
    let logs = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "echo began; exec sleep 600"]);
    let mut process = Process::start("ticker", command, logs.path())?;
    process.line("its first line", SOON, |line| (line == "began").then_some(())).await?;

    process.freeze()?;
    let state = || -> anyhow::Result<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        Ok(stat.rsplit(')').next().unwrap_or_default().trim().chars().take(1).collect())
    };
    wait_until("the process to stand still", SOON, async || {
        let state = state()?;
        Ok(Seen::when(state == "T", state))
    })
    .await?;
    process.thaw()?;
    wait_until("the process to go on", SOON, async || {
        let state = state()?;
        Ok(Seen::when(state != "T", state))
    })
    .await?;

    process.terminate()?;
    let ended = process.end(SOON).await?;
    assert!(!ended.success(), "{ended}");
    assert!(process.terminate().is_err(), "a process that is gone takes no signal");
    Ok(())
}

#[tokio::test]
async fn a_missed_deadline_tells_what_was_seen_last() {
    let missed = wait_until("the moon", Duration::from_millis(120), async || Ok(Seen::<()>::NotYet("clouds".to_owned())));
    let message = missed.await.unwrap_err().to_string();
    assert_eq!(message, "waited 120ms for the moon; last seen: clouds");
}
