//! The Helm chart: what it renders for several values is judged by kubeconform and by the real API server, and read for what the chart
//! promises. Nothing is installed here; what needs pods to run is proven on a whole node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use fairlead_tests::{ControlPlane, Seen, TestNamespace, fairlead, wait_until};
use serde_json::{Map, Value, json};
use tokio::process::Command;

/// The values that are tried, each with a word for it, for a release in `namespace`.
fn combinations(namespace: &str) -> Vec<(&'static str, Value)> {
    let peers = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    let probe = json!({"name": "FAIRLEAD_ANYTHING", "value": "1"});
    vec![
        ("the defaults", json!({})),
        ("the whole cluster, Secrets in one namespace", json!({"secretNamespaces": [namespace]})),
        (
            "one namespace, made by the chart",
            json!({"namespaces": [namespace], "createNamespaces": true, "allowEndpoints": ["10.0.0.0/8"]}),
        ),
        (
            "as little as possible",
            json!({
                "crds": {"enabled": false}, "rbac": {"create": false, "aggregate": false},
                "serviceAccount": {"create": false, "name": "mine"}, "persistence": {"enabled": false},
                "networkPolicy": {"enabled": false}, "resources": {"limits": null, "requests": null},
            }),
        ),
        (
            "workers on a database",
            json!({
                "mode": "distributed", "database": {"secretName": "fairlead-database"}, "namespaces": [namespace],
                "workers": {"replicas": 3, "plainHttp": true}, "allowEndpoints": ["10.0.0.0/8"],
                "metrics": {"serviceMonitor": {"enabled": true}},
            }),
        ),
        ("a database in place of the volume", json!({"database": {"secretName": "fairlead-database", "secretKey": "uri"}})),
        (
            "every switch",
            json!({
                "namespaces": [namespace], "fullnameOverride": "lines", "listenAddress": "[::]", "allowEndpoints": ["10.0.0.0/8", "fd00::/8"],
                "image": {"repository": "registry.acme.example/fairlead", "digest": format!("sha256:{:064}", 7), "pullPolicy": "Never"},
                "imagePullSecrets": [{"name": "registry"}], "crds": {"keep": false},
                "serviceAccount": {"name": "own", "annotations": {"acme.example/a": "1"}}, "log": {"level": "debug", "json": false},
                "persistence": {"storageClass": "fast", "accessModes": ["ReadWriteOncePod"], "keep": false, "annotations": {"acme.example/b": "2"}},
                "service": {"type": "NodePort", "port": 9090, "annotations": {"acme.example/c": "3"}},
                "gateway": {
                    "enabled": true, "url": "https://api.acme.example", "tls": {"secretName": "gateway-tls"},
                    "service": {"type": "LoadBalancer", "port": 8443, "annotations": {"acme.example/d": "4"}},
                },
                "metrics": {
                    "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                    "prometheusRule": {"enabled": true, "labels": {"release": "prometheus"}}, "dashboard": {"enabled": true},
                },
                "networkPolicy": {"metricsFrom": peers, "gatewayFrom": peers, "egressPorts": [443, 6443]},
                "podDisruptionBudget": {"enabled": true},
                "commonLabels": {"acme.example/team": "platform"}, "commonAnnotations": {"acme.example/e": "5"},
                "podLabels": {"acme.example/f": "6"}, "podAnnotations": {"acme.example/g": "7"},
                "extraArgs": ["--name=lines"], "extraEnv": [probe],
                "extraVolumes": [{"name": "extra", "emptyDir": {}}], "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
                "nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
                ]}}},
                "priorityClassName": "system-cluster-critical",
            }),
        ),
    ]
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    repository().join("charts/fairlead")
}

/// A tool that `tools/chart` built: helm or kubeconform.
fn tool(name: &str) -> anyhow::Result<Command> {
    let tools = std::env::var_os("FAIRLEAD_TEST_CHART_TOOLS")
        .context("FAIRLEAD_TEST_CHART_TOOLS is not set: run the tests with `make test` or `cargo nextest run`")?;
    let mut command = Command::new(Path::new(&tools).join(name));
    // Nothing of the person who runs the tests is read.
    command.env("HELM_CONFIG_HOME", "/nonexistent").env("HELM_PLUGINS", "/nonexistent").env("KUBECONFIG", "/nonexistent");
    Ok(command)
}

/// What `helm template` prints for a release `fairlead`, as text.
async fn template(namespace: &str, values: &Value, extra: &[&str]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let mut helm = tool("helm")?;
    helm.args(["template", "fairlead"]).arg(chart()).args(["--namespace", namespace, "--values"]).arg(&file).args(extra);
    let output = helm.output().await?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn render(namespace: &str, values: &Value) -> anyhow::Result<Vec<Value>> {
    documents(&template(namespace, values, &[]).await?)
}

fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn of_kind<'a>(objects: &'a [Value], wanted: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| kind(object) == wanted)
}

fn is_cluster_scoped(object: &Value) -> bool {
    ["CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Namespace"].contains(&kind(object))
}

fn deployment(objects: &[Value]) -> anyhow::Result<&Value> {
    of_kind(objects, "Deployment").next().context("a Deployment")
}

#[tokio::test]
async fn kubeconform_and_the_api_server_accept_every_rendering_and_admission_finds_its_pods_restricted() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let namespace = TestNamespace::new(&plane, "chart").await?;
    let namespace = namespace.name();
    monitoring_kinds(&plane).await?;
    let enforce = ["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"];
    let answer = plane.kubectl(enforce).await?;
    ensure!(answer.code == Some(0), "{answer}");
    let schemas = Schemas::of(&plane).await?;
    for (about, values) in combinations(namespace) {
        let objects = render(namespace, &values).await?;
        schemas.judge(about, &objects).await?;
        let answer = apply(&plane, &objects, &["--dry-run=server"]).await?;
        ensure!(answer.code == Some(0), "{about}: {answer}");

        // A Deployment is only warned about; a pod made from it is refused. Its account must exist for that.
        for template in of_kind(&objects, "Deployment").map(|deployment| &deployment["spec"]["template"]) {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": template["spec"]["serviceAccountName"], "namespace": namespace}});
            let answer = apply(&plane, &[account], &[]).await?;
            ensure!(answer.code == Some(0), "{about}: {answer}");
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
            pod["metadata"]["name"] = json!("judged");
            pod["metadata"]["namespace"] = json!(namespace);
            let answer = apply(&plane, &[pod], &["--dry-run=server"]).await?;
            ensure!(answer.code == Some(0) && !answer.stderr.contains("Warning"), "{about}: {answer}");
        }
    }
    Ok(())
}

/// What a selector of labels finds among objects of a kind, by their labels as `labels` finds them.
fn selected<'a>(objects: &'a [Value], of: &str, selector: &Value, labels: impl Fn(&Value) -> Value) -> Vec<&'a Value> {
    let wanted = selector.as_object().cloned().unwrap_or_default();
    let matches = |labels: &Value| !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value);
    of_kind(objects, of).filter(|object| matches(&labels(object))).collect()
}

#[tokio::test]
async fn everything_that_has_metrics_is_scraped_and_nothing_twice() -> anyhow::Result<()> {
    for (values, scraped) in [
        (json!({}), vec!["fairlead"]),
        (
            json!({"mode": "distributed", "database": {"secretName": "db"}, "workers": {"plainHttp": true}, "gateway": {"enabled": true}}),
            vec!["fairlead", "fairlead-worker"],
        ),
    ] {
        let mut values = values;
        values["metrics"] = json!({"serviceMonitor": {"enabled": true, "interval": "10s"}});
        let objects = render("fairlead-system", &values).await?;
        let mut found = Vec::new();
        for monitor in of_kind(&objects, "ServiceMonitor") {
            let endpoint = &monitor["spec"]["endpoints"][0];
            assert_eq!((&endpoint["path"], &endpoint["interval"]), (&json!("/metrics"), &json!("10s")));
            for service in
                selected(&objects, "Service", &monitor["spec"]["selector"]["matchLabels"], |service| service["metadata"]["labels"].clone())
            {
                let port = list(&service["spec"]["ports"]).find(|port| port["name"] == endpoint["port"]).context("the monitor's port")?;
                let pods = |deployment: &Value| deployment["spec"]["template"]["metadata"]["labels"].clone();
                for deployment in selected(&objects, "Deployment", &service["spec"]["selector"], pods) {
                    let containers = list(&deployment["spec"]["template"]["spec"]["containers"]);
                    let named = containers.flat_map(|container| list(&container["ports"])).any(|each| each["name"] == port["targetPort"]);
                    assert!(named, "{} has no port {}", name(deployment), port["targetPort"]);
                    found.push(name(deployment));
                }
            }
        }
        found.sort_unstable();
        assert_eq!(found, scraped);
    }
    Ok(())
}

#[tokio::test]
async fn kubeconform_accepts_the_examples_and_refuses_a_typo() -> anyhow::Result<()> {
    let plane = ControlPlane::shared()?;
    let schemas = Schemas::of(&plane).await?;
    let mut judged = 0;
    for folder in ["examples/quickstart", "examples/operator"] {
        for entry in std::fs::read_dir(repository().join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let objects = documents(&std::fs::read_to_string(&path)?)?;
                schemas.judge(&path.display().to_string(), &objects).await?;
                judged += objects.len();
            }
        }
    }
    assert!(judged > 5, "only {judged} objects were judged");
    let typo = json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "Integration", "metadata": {"name": "a"}, "spec": {"snyc": {}}});
    let refused = schemas.judge("a typo", &[typo]).await.expect_err("kubeconform refuses a typo");
    assert!(refused.to_string().contains("snyc"), "{refused}");
    Ok(())
}

async fn apply(plane: &ControlPlane, objects: &[Value], flags: &[&str]) -> anyhow::Result<fairlead_tests::KubectlOutput> {
    let input = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    plane.kubectl_with_input(["apply", "--server-side", "--force-conflicts", "-f", "-"].iter().chain(flags), &input).await
}

/// Teaches the API server the Prometheus operator's kinds.
async fn monitoring_kinds(plane: &ControlPlane) -> anyhow::Result<()> {
    let tools = PathBuf::from(std::env::var_os("FAIRLEAD_TEST_CHART_TOOLS").context("FAIRLEAD_TEST_CHART_TOOLS")?);
    let folder = tools.join("crds");
    let answer = plane.kubectl(["apply", "--server-side", "-f"].map(Into::into).into_iter().chain([folder.into_os_string()])).await?;
    ensure!(answer.code == Some(0), "{answer}");
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd/servicemonitors.monitoring.coreos.com"];
    let answer = plane.kubectl(established.into_iter().chain(["crd/prometheusrules.monitoring.coreos.com"])).await?;
    ensure!(answer.code == Some(0), "{answer}");
    // What is established is served at once and published a little later.
    wait_until("the kinds are published", Duration::from_secs(60), async || {
        let answer = plane.kubectl(["get", "--raw", "/openapi/v3/apis/monitoring.coreos.com/v1"]).await?;
        let published = ["ServiceMonitor", "PrometheusRule"].iter().all(|kind| answer.stdout.contains(&format!("\"kind\":\"{kind}\"")));
        Ok(Seen::when(published, answer.stdout.len()))
    })
    .await
}

/// JSON Schemas for kubeconform, made from what the API server itself publishes, so that they need no download.
struct Schemas {
    folder: tempfile::TempDir,
}

impl Schemas {
    async fn of(plane: &ControlPlane) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let raw = async |path: &str| -> anyhow::Result<Value> {
            let answer = plane.kubectl(["get", "--raw", path]).await?;
            ensure!(answer.code == Some(0), "{answer}");
            Ok(serde_json::from_str(&answer.stdout)?)
        };
        let index = raw("/openapi/v3").await?;
        for (path, entry) in index["paths"].as_object().context("paths of /openapi/v3")? {
            let version = path.rsplit('/').next().unwrap_or_default();
            // Only whole versions: "api/v1", "apis/apps/v1".
            if !version.starts_with('v') {
                continue;
            }
            let published = raw(entry["serverRelativeURL"].as_str().context("an address")?).await?;
            let text = published["components"]["schemas"].to_string().replace("#/components/schemas/", "#/definitions/");
            let mut definitions: Map<String, Value> = serde_json::from_str(&text)?;
            definitions.values_mut().for_each(close);
            for (id, schema) in &definitions {
                for identity in list(&schema["x-kubernetes-group-version-kind"]) {
                    let word = |key: &str| identity[key].as_str().unwrap_or_default().to_lowercase();
                    let group = word("group").split('.').next().unwrap_or_default().to_owned();
                    let suffix = if group.is_empty() { word("version") } else { format!("{group}-{}", word("version")) };
                    let whole = json!({"$ref": format!("#/definitions/{id}"), "definitions": definitions});
                    std::fs::write(folder.path().join(format!("{}-{suffix}.json", word("kind"))), whole.to_string())?;
                }
            }
        }
        Ok(Self { folder })
    }

    async fn judge(&self, about: &str, objects: &[Value]) -> anyhow::Result<()> {
        let manifests = self.folder.path().join("manifests.json");
        std::fs::write(&manifests, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        let schemas = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", self.folder.path().display());
        let output = tool("kubeconform")?.args(["-summary", "-schema-location", &schemas]).arg(&manifests).output().await?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{about}: {told}");
        ensure!(told.contains("Skipped: 0"), "{about}: kubeconform skipped something: {told}");
        Ok(())
    }
}

/// Refuses fields that a schema does not name, where it does not ask to keep them.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let open =
                fields.contains_key("additionalProperties") || fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if fields.get("properties").is_some_and(Value::is_object) && !open {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[tokio::test]
async fn a_secret_may_be_read_by_name_in_listed_namespaces_and_nowhere_else() -> anyhow::Result<()> {
    for (about, values) in combinations("sales") {
        let objects = render("fairlead-system", &values).await?;
        let rights = |object: &Value| list(&object["rules"]).cloned().map(|rule| (name(object).to_owned(), rule)).collect::<Vec<_>>();
        let mut reads = 0;
        for object in objects.iter().filter(|object| ["Role", "ClusterRole"].contains(&kind(object))) {
            for (role, rule) in rights(object) {
                let has = |key: &str, word: &str| list(&rule[key]).any(|each| each == word);
                assert!(!["apiGroups", "resources", "verbs"].iter().any(|key| has(key, "*")), "{about}: {role} grants everything: {rule}");
                if has("resources", "secrets") {
                    assert_eq!(kind(object), "Role", "{about}: {role}");
                    assert_eq!(object["metadata"]["namespace"], "sales", "{about}: {role}");
                    assert_eq!(rule["verbs"], json!(["get"]), "{about}: {role}");
                    reads += 1;
                }
            }
        }
        let listed = values.get("secretNamespaces").or(values.get("namespaces")).is_some_and(|names| list(names).next().is_some());
        assert_eq!(reads, usize::from(listed), "{about}");
    }
    Ok(())
}

#[tokio::test]
async fn with_listed_namespaces_nothing_is_granted_across_the_cluster_but_the_words_for_people() -> anyhow::Result<()> {
    let objects = render("fairlead-system", &json!({"namespaces": ["europe", "north-america"]})).await?;
    assert_eq!(of_kind(&objects, "ClusterRoleBinding").count(), 0);
    let cluster_roles: BTreeSet<&str> = of_kind(&objects, "ClusterRole").map(name).collect();
    let people = ["view", "edit", "admin"].map(|role| format!("fairlead-system-fairlead-{role}"));
    assert_eq!(cluster_roles, people.iter().map(String::as_str).collect());
    for role in of_kind(&objects, "ClusterRole") {
        let resources: Vec<&Value> = list(&role["rules"]).flat_map(|rule| list(&rule["resources"])).collect();
        let writes_status = list(&role["rules"]).any(|rule| {
            list(&rule["resources"]).any(|resource| resource.as_str().is_some_and(|text| text.ends_with("/status")))
                && rule["verbs"] != json!(["get"])
        });
        assert!(!resources.is_empty() && !writes_status, "{role}");
    }
    let bound: BTreeSet<(&str, &str)> = of_kind(&objects, "RoleBinding")
        .map(|binding| (binding["metadata"]["namespace"].as_str().unwrap_or_default(), name(binding)))
        .collect();
    let wanted = [
        ("europe", "fairlead-system-fairlead"),
        ("europe", "fairlead-system-fairlead-secrets"),
        ("fairlead-system", "fairlead-lease"),
        ("north-america", "fairlead-system-fairlead"),
        ("north-america", "fairlead-system-fairlead-secrets"),
    ];
    assert_eq!(bound, wanted.into());
    Ok(())
}

#[tokio::test]
async fn two_releases_in_two_namespaces_share_nothing_but_the_kinds() -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for namespace in ["one", "two"] {
        for object in render(namespace, &json!({"namespaces": ["sales"]})).await? {
            if kind(&object) != "CustomResourceDefinition" {
                let place = if is_cluster_scoped(&object) { "" } else { object["metadata"]["namespace"].as_str().unwrap_or_default() };
                assert!(seen.insert((kind(&object).to_owned(), place.to_owned(), name(&object).to_owned())), "twice: {object}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_object_says_whose_it_is_and_where_it_lies() -> anyhow::Result<()> {
    for (about, values) in combinations("sales") {
        for object in render("fairlead-system", &values).await? {
            let (labels, annotations) = (&object["metadata"]["labels"], &object["metadata"]["annotations"]);
            assert_eq!(labels["app.kubernetes.io/instance"], "fairlead", "{about}: {object}");
            assert_eq!(labels["app.kubernetes.io/part-of"], "fairlead", "{about}: {object}");
            assert_eq!(object["metadata"]["namespace"].is_null(), is_cluster_scoped(&object), "{about}: {object}");
            assert!(name(&object).len() <= 63, "{about}: {}", name(&object));
            if values.get("commonLabels").is_some() {
                assert_eq!(labels["acme.example/team"], "platform", "{about}: {object}");
                assert_eq!(annotations["acme.example/e"], "5", "{about}: {object}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_crds_are_those_of_the_repository_and_are_kept_unless_told_otherwise() -> anyhow::Result<()> {
    let mut checked_in = BTreeMap::new();
    for entry in std::fs::read_dir(repository().join("crds"))? {
        let [crd] = documents(&std::fs::read_to_string(entry?.path())?)?.try_into().map_err(|_| anyhow!("one document per file"))?;
        checked_in.insert(name(&crd).to_owned(), crd);
    }
    assert_eq!(checked_in.len(), 3);
    for (values, policy) in [(json!({}), json!("keep")), (json!({"crds": {"keep": false}}), Value::Null)] {
        let mut rendered = BTreeMap::new();
        for mut crd in of_kind(&render("fairlead-system", &values).await?, "CustomResourceDefinition").cloned() {
            assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], policy, "{}", name(&crd));
            crd["metadata"] = json!({"name": crd["metadata"]["name"]});
            rendered.insert(name(&crd).to_owned(), crd);
        }
        assert!(rendered == checked_in, "the chart's CRDs are behind the types: run `make crds`");
    }
    let without = render("fairlead-system", &json!({"crds": {"enabled": false}})).await?;
    assert_eq!(of_kind(&without, "CustomResourceDefinition").count(), 0);
    Ok(())
}

#[tokio::test]
async fn operator_and_workers_know_every_flag_and_variable_that_the_chart_gives_them() -> anyhow::Result<()> {
    let mut helps = BTreeMap::new();
    for command in ["operator", "worker"] {
        let output = fairlead()?.args([command, "--help"]).output().await?;
        helps.insert(command, String::from_utf8(output.stdout)?);
    }
    let mut containers = Vec::new();
    for (about, values) in combinations("sales") {
        let objects = render("fairlead-system", &values).await?;
        let of = |deployment: &Value| (about, deployment["spec"]["template"]["spec"]["containers"][0].clone());
        assert_eq!(of(deployment(&objects)?).1["args"][0], "operator", "{about}");
        containers.extend(of_kind(&objects, "Deployment").map(of));
    }
    for (about, container) in containers {
        let help = &helps[container["args"][0].as_str().unwrap_or_default()];
        for argument in list(&container["args"]).skip(1).filter_map(Value::as_str) {
            let flag = argument.split('=').next().unwrap_or_default();
            assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{about}: {flag} is unknown:\n{help}");
        }
        for variable in list(&container["env"]).filter_map(|each| each["name"].as_str()).filter(|name| *name != "FAIRLEAD_ANYTHING") {
            assert!(help.contains(&format!("[env: {variable}=")), "{about}: {variable} is unknown:\n{help}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_database_takes_the_place_of_the_volume() -> anyhow::Result<()> {
    let objects = render("fairlead-system", &json!({"database": {"secretName": "fairlead-database", "secretKey": "uri"}})).await?;
    assert_eq!(of_kind(&objects, "PersistentVolumeClaim").count(), 0);
    let pod = &deployment(&objects)?["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(list(&container["args"]).filter_map(Value::as_str).all(|argument| !argument.starts_with("--state")));
    // The URL carries a password: the pod's specification names a file, and the Secret that it lies in.
    let variable = list(&container["env"]).find(|each| each["name"] == "FAIRLEAD_DATABASE_URL_FILE").expect("the variable");
    assert_eq!(variable["value"], "/etc/fairlead/database/uri");
    let volume = list(&pod["volumes"]).find(|each| each["name"] == "database").expect("the Secret's volume");
    assert_eq!(volume["secret"]["secretName"], "fairlead-database");
    let mount = list(&container["volumeMounts"]).find(|each| each["name"] == "database").expect("its mount");
    assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!("/etc/fairlead/database"), &json!(true)));
    assert!(list(&pod["volumes"]).chain(list(&container["volumeMounts"])).all(|each| each["name"] != "state"));

    let objects = render("fairlead-system", &json!({})).await?;
    assert_eq!(of_kind(&objects, "PersistentVolumeClaim").count(), 1);
    let container = &deployment(&objects)?["spec"]["template"]["spec"]["containers"][0];
    assert!(list(&container["env"]).all(|each| each["name"] != "FAIRLEAD_DATABASE_URL_FILE"));
    Ok(())
}

#[tokio::test]
async fn a_mistyped_value_is_refused() -> anyhow::Result<()> {
    let mistakes = [
        json!({"namespace": ["sales"]}),
        json!({"persistence": {"enable": true}}),
        json!({"database": {"url": "postgres://u:p@h/d"}}),
        json!({"mode": "clustered"}),
        json!({"allowEndpoints": ["10.0.0.0"]}),
        json!({"image": {"digest": "latest"}}),
    ];
    for values in mistakes {
        let refused = template("fairlead-system", &values, &[]).await.expect_err("the schema refuses it");
        assert!(refused.to_string().contains("values.schema.json") || refused.to_string().contains("schema"), "{values}: {refused}");
    }
    Ok(())
}

/// A value of values.yaml: its path, its default as JSON, and the comment above it.
#[derive(Debug)]
struct Documented {
    path: String,
    default: Value,
    comment: String,
}

/// Reads values.yaml as a person does: comments stand above what they tell of.
fn documented() -> anyhow::Result<Vec<Documented>> {
    let text = std::fs::read_to_string(chart().join("values.yaml"))?;
    let values: Value = serde_saphyr::from_str(&text)?;
    let mut found: Vec<Documented> = Vec::new();
    let (mut place, mut comment): (Vec<(usize, String)>, Vec<String>) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words.to_owned());
        } else if let Some((key, _)) = line.split_once(':') {
            place.retain(|(depth, _)| *depth < indent);
            place.push((indent, key.to_owned()));
            // Below a documented value everything is its default.
            let path: Vec<&str> = place.iter().map(|(_, key)| key.as_str()).collect();
            let path = path.join(".");
            if !comment.is_empty() {
                let default = values.pointer(&format!("/{}", path.replace('.', "/"))).cloned().unwrap_or_default();
                found.push(Documented { path, default, comment: comment.join(" ") });
            } else if !found.iter().any(|parent| path.starts_with(&format!("{}.", parent.path))) {
                let below = values.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(Value::is_object);
                ensure!(below, "values.yaml: nothing is said about {path}");
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    Ok(found)
}

#[test]
fn the_readme_tells_of_every_value() -> anyhow::Result<()> {
    let row = |value: Documented| format!("| `{}` | `{}` | {} |\n", value.path, value.default, value.comment.replace('|', "\\|"));
    let table: String = documented()?.into_iter().map(row).collect();
    let readme = std::fs::read_to_string(chart().join("README.md"))?;
    let (_, after) = readme.split_once("|---|---|---|\n").context("a table of values in charts/fairlead/README.md")?;
    let found: String = after.lines().take_while(|line| line.starts_with('|')).map(|line| format!("{line}\n")).collect();
    assert!(found == table, "the rows of the table in charts/fairlead/README.md must be:\n{table}");
    Ok(())
}

#[test]
fn the_schema_knows_exactly_the_values_that_there_are() -> anyhow::Result<()> {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json"))?)?;
    let mut paths = BTreeSet::new();
    let mut open = vec![(String::new(), &schema)];
    while let Some((path, schema)) = open.pop() {
        match schema["properties"].as_object() {
            Some(properties) => {
                assert_eq!(schema["additionalProperties"], json!(false), "{path} takes any key");
                open.extend(properties.iter().map(|(key, below)| (format!("{path}/{key}"), below)));
            }
            None => {
                paths.insert(path);
            }
        }
    }
    // What Helm gives to every chart, and what values.yaml gives as a whole.
    paths.remove("/global");
    let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(chart().join("values.yaml"))?)?;
    paths.remove("/resources/claims");
    for path in &paths {
        assert!(values.pointer(path).is_some(), "values.yaml has no {path}");
    }
    let mut leaves = vec![(String::new(), &values)];
    while let Some((path, value)) = leaves.pop() {
        if paths.contains(&path) {
            continue;
        }
        let below = value.as_object().ok_or_else(|| anyhow!("values.schema.json has no {path}"))?;
        leaves.extend(below.iter().map(|(key, value)| (format!("{path}/{key}"), value)));
    }
    Ok(())
}

#[test]
fn the_chart_carries_the_version_and_the_kinds_of_the_repository() -> anyhow::Result<()> {
    let chart: Value = serde_saphyr::from_str(&std::fs::read_to_string(chart().join("Chart.yaml"))?)?;
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let annotation = |key: &str| -> anyhow::Result<Vec<Value>> {
        let text = chart["annotations"][key].as_str().with_context(|| format!("annotation {key}"))?;
        Ok(serde_saphyr::from_str(text)?)
    };
    let told: BTreeSet<String> =
        annotation("artifacthub.io/crds")?.iter().filter_map(|crd| crd["name"].as_str()).map(|name| format!("{name}.yaml")).collect();
    let mut crds = BTreeSet::new();
    for entry in std::fs::read_dir(repository().join("crds"))? {
        crds.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    assert_eq!(told, crds);
    assert_eq!(annotation("artifacthub.io/images")?[0]["image"], format!("fairlead:{}", env!("CARGO_PKG_VERSION")));
    Ok(())
}

#[tokio::test]
async fn the_manifest_for_those_without_helm_is_what_the_chart_renders() -> anyhow::Result<()> {
    let path = "examples/operator/rbac.yaml";
    let wanted = ["--show-only=templates/serviceaccount.yaml", "--show-only=templates/rbac.yaml"];
    let rendered = template("fairlead-system", &json!({"namespaces": ["north-america"]}), &wanted).await?;
    let text = std::fs::read_to_string(repository().join(path))?;
    let (head, found) = text.split_once("---\n").context("a head comment")?;
    assert!(found == rendered.trim_start_matches("---\n"), "{path} must be this:\n{head}{rendered}");
    Ok(())
}

#[tokio::test]
async fn workers_are_known_by_a_token_for_the_operator_alone_and_only_they_read_secrets() -> anyhow::Result<()> {
    let values = json!({
        "mode": "distributed", "database": {"secretName": "db"}, "namespaces": ["sales"], "workers": {"replicas": 3, "plainHttp": true},
    });
    let objects = render("fairlead-system", &values).await?;
    let [operator, worker] =
        ["fairlead", "fairlead-worker"].map(|wanted| of_kind(&objects, "Deployment").find(|each| name(each) == wanted));
    let (operator, worker) = (operator.context("the operator")?, worker.context("the workers")?);
    assert_eq!((&operator["spec"]["replicas"], &worker["spec"]["replicas"]), (&json!(1), &json!(3)));
    let arguments = |deployment: &Value| -> Vec<String> {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        list(&container["args"]).filter_map(Value::as_str).map(str::to_owned).collect()
    };
    assert!(arguments(operator).contains(&"--worker-accounts=fairlead-system/fairlead-worker".to_owned()));
    assert!(arguments(worker).contains(&"--planner=http://fairlead-planner.fairlead-system.svc:8082".to_owned()));
    // The token is for the operator alone, where the worker looks for it.
    let pod = &worker["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "fairlead-worker");
    let volume = list(&pod["volumes"]).find(|each| each["name"] == "planner-access").context("the token's volume")?;
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["audience"], "fairlead-workers");
    let mount = list(&pod["containers"][0]["volumeMounts"]).find(|each| each["name"] == "planner-access").context("its mount")?;
    let token = format!("--worker-token-file={}/token", mount["mountPath"].as_str().unwrap_or_default());
    assert!(arguments(worker).contains(&token), "{token}");
    // Nothing that selects the operator's pod finds a worker.
    let labels = &worker["spec"]["template"]["metadata"]["labels"];
    let selecting =
        |object: &&Value| ["Service", "Deployment", "NetworkPolicy"].contains(&kind(object)) && !name(object).ends_with("-worker");
    for object in objects.iter().filter(selecting) {
        let spec = &object["spec"];
        let selector = [&spec["selector"]["matchLabels"], &spec["podSelector"]["matchLabels"], &spec["selector"]];
        let selector = selector.into_iter().find_map(Value::as_object).context("a selector")?;
        assert!(selector.iter().any(|(key, value)| labels[key] != *value), "{object}");
    }
    for binding in of_kind(&objects, "RoleBinding").filter(|binding| name(binding).ends_with("-secrets")) {
        assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "fairlead-worker", "namespace": "fairlead-system"}]));
    }
    let reviews =
        of_kind(&objects, "ClusterRole").find(|role| name(role).ends_with("-workers")).context("the right to ask whose a token is")?;
    assert_eq!(reviews["rules"], json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]));

    for (values, said) in [
        (json!({"mode": "distributed", "workers": {"plainHttp": true}}), "needs database.secretName"),
        (json!({"mode": "distributed", "database": {"secretName": "db"}}), "in the clear"),
        (
            json!({"mode": "distributed", "database": {"secretName": "db"}, "workers": {"plannerUrl": "http://mesh.example"}}),
            "in the clear",
        ),
    ] {
        let refused = template("fairlead-system", &values, &[]).await.expect_err("it is refused");
        assert!(refused.to_string().contains(said), "{values}: {refused}");
    }
    let encrypted = json!({"mode": "distributed", "database": {"secretName": "db"}, "workers": {"plannerUrl": "https://mesh.example"}});
    let objects = render("fairlead-system", &encrypted).await?;
    let worker = of_kind(&objects, "Deployment").find(|each| name(each) == "fairlead-worker").context("the workers")?;
    assert!(!arguments(worker).contains(&"--plain-http".to_owned()));
    Ok(())
}
