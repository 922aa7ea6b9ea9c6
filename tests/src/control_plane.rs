//! A control plane as a test sees it: clients for several users, kubectl, the audit log.
//!
//! It is a handle on a folder and an address and owns no process; `launch.rs` starts and ends those.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::audit::AuditLog;
use crate::launch::Assets;
use crate::node;
use crate::pki::Pki;

/// Where `tools/test-setup` tells the tests of a run which control plane is theirs.
const SHARED: &str = "FAIRLEAD_TEST_CONTROL_PLANE";

/// No kubectl call of a test takes longer than this; `kubectl wait --timeout` stays below it.
const KUBECTL_DEADLINE: Duration = Duration::from_secs(180);

/// A running control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    facts: Facts,
}

/// What a handle needs to know, kept in the plane's folder.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Facts {
    /// The API server's address.
    pub(crate) server: String,
    /// The binaries it was started from.
    pub(crate) assets: Assets,
    /// Its node, when it has one.
    pub(crate) node: Option<node::Facts>,
}

/// What a kubectl call answered.
#[derive(Clone, Debug)]
pub struct KubectlOutput {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for KubectlOutput {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl ControlPlane {
    /// The one control plane of this test run.
    ///
    /// # Errors
    /// When the tests were not started through nextest, or it does not run.
    pub fn shared() -> anyhow::Result<Self> {
        let folder = std::env::var_os(SHARED)
            .ok_or_else(|| anyhow!("{SHARED} is not set: run the tests with `make test` or `cargo nextest run`"))?;
        Self::at(Path::new(&folder))
    }

    /// The control plane that was started in `folder`.
    ///
    /// # Errors
    /// When none was.
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        let path = facts_path(folder);
        let text = fs::read_to_string(&path).with_context(|| format!("no control plane in {}", folder.display()))?;
        let facts = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        Ok(Self { folder: folder.to_owned(), facts })
    }

    pub(crate) fn record(folder: &Path, facts: Facts) -> anyhow::Result<Self> {
        let path = facts_path(folder);
        fs::write(&path, serde_json::to_string(&facts)?).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { folder: folder.to_owned(), facts })
    }

    /// The folder with everything the control plane keeps.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.facts.server
    }

    pub(crate) fn assets(&self) -> &Assets {
        &self.facts.assets
    }

    pub(crate) fn node_facts(&self) -> Option<&node::Facts> {
        self.facts.node.as_ref()
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A client that may do everything.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn admin(&self) -> anyhow::Result<Client> {
        client(self.config(&self.kubeconfig()).await?)
    }

    /// A client that acts as `user` in `groups` by impersonation: what somebody else may do.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn impersonate(&self, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
        let mut config = self.config(&self.kubeconfig()).await?;
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups.iter().map(|&group| group.to_owned()).collect());
        client(config)
    }

    /// Makes a kubeconfig for `user` in `groups` with a client certificate: what a process of ours is started with,
    /// so that the audit log tells its requests apart. It may do what [`ControlPlane::allow`] grants.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> anyhow::Result<PathBuf> {
        let users = self.folder.join("users");
        fs::create_dir_all(&users).with_context(|| format!("create {}", users.display()))?;
        let path = users.join(format!("{user}.kubeconfig"));
        Pki::at(&self.folder).kubeconfig(self.server(), user, groups, &path)?;
        Ok(path)
    }

    /// A client with the certificate of `user` in `groups`.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub async fn client_for(&self, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
        client(self.config(&self.kubeconfig_for(user, groups)?).await?)
    }

    /// Grants `rules` to `user`, in `namespace` or, with `None`, everywhere.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub async fn allow(&self, user: &str, namespace: Option<&str>, rules: Vec<PolicyRule>) -> anyhow::Result<()> {
        let admin = self.admin().await?;
        let create = PostParams::default();
        let name = format!("{user}-{}", uuid::Uuid::new_v4().simple());
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let subjects = Some(vec![Subject {
            kind: "User".to_owned(),
            name: user.to_owned(),
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            namespace: None,
        }]);
        let role =
            |kind: &str| RoleRef { api_group: Some("rbac.authorization.k8s.io".to_owned()), kind: kind.to_owned(), name: name.clone() };
        if let Some(namespace) = namespace {
            let granted = Role { metadata: metadata.clone(), rules: Some(rules) };
            Api::namespaced(admin.clone(), namespace).create(&create, &granted).await?;
            let binding = RoleBinding { metadata, role_ref: role("Role"), subjects };
            Api::namespaced(admin, namespace).create(&create, &binding).await?;
        } else {
            let granted = ClusterRole { metadata: metadata.clone(), rules: Some(rules), aggregation_rule: None };
            Api::all(admin.clone()).create(&create, &granted).await?;
            let binding = ClusterRoleBinding { metadata, role_ref: role("ClusterRole"), subjects };
            Api::all(admin).create(&create, &binding).await?;
        }
        Ok(())
    }

    /// The audit log of the API server.
    pub fn audit(&self) -> AuditLog {
        AuditLog::at(self.folder.join("audit.log"))
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    /// When it cannot be run or does not come back; a refusal is an answer with its exit code, not an error.
    pub async fn kubectl<I>(&self, args: I) -> anyhow::Result<KubectlOutput>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        run(self.kubectl_command(args), None).await
    }

    /// Runs kubectl as the administrator with `input` on standard input, for `kubectl apply -f -`.
    ///
    /// # Errors
    /// As [`ControlPlane::kubectl`].
    pub async fn kubectl_with_input<I>(&self, args: I, input: &str) -> anyhow::Result<KubectlOutput>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        run(self.kubectl_command(args), Some(input)).await
    }

    /// The kubectl command itself, for a test that runs it beside something else.
    pub fn kubectl_command<I>(&self, args: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = Command::new(self.facts.assets.kubectl());
        // A cache and settings of its own: nothing of the person who runs the tests is read or written.
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBERC", "off")
            .arg("--cache-dir")
            .arg(self.folder.join("kubectl-cache"))
            .args(args)
            .kill_on_drop(true);
        command
    }

    async fn config(&self, kubeconfig: &Path) -> anyhow::Result<Config> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }
}

fn client(config: Config) -> anyhow::Result<Client> {
    Ok(Client::try_from(config)?)
}

fn facts_path(folder: &Path) -> PathBuf {
    folder.join("plane.json")
}

async fn run(mut command: Command, input: Option<&str>) -> anyhow::Result<KubectlOutput> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start kubectl")?;
    let pipe = child.stdin.take();
    let answered = async {
        // Fed while the output is read: neither side can block the other on a full pipe.
        let feed = async {
            if let (Some(mut pipe), Some(input)) = (pipe, input) {
                // A kubectl that refuses its arguments closes the pipe; its answer says why.
                let _ = pipe.write_all(input.as_bytes()).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        output
    };
    match tokio::time::timeout(KUBECTL_DEADLINE, answered).await {
        Ok(output) => {
            let output = output.context("run kubectl")?;
            Ok(KubectlOutput {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
        Err(_) => bail!("kubectl did not answer within {KUBECTL_DEADLINE:?}: {command:?}"),
    }
}
