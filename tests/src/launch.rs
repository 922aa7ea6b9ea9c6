//! Starts etcd, kube-apiserver and kube-controller-manager on loopback, with a node if wanted, and ends them without a trace.
//!
//! Flow: certificates, etcd, API server, then the controller manager and Fairlead's CRDs; ready means that the CRDs
//! are established. Guarantees: every process dies with the one that started it (even by SIGKILL, through the
//! kernel's parent-death signal), and the folder is wiped only after all of them are gone, since an etcd that lingers
//! makes the next API server hang on every read. Caveat: the parent-death signal follows the starting *thread*, so
//! planes are started from a thread that lives as long as they shall.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::audit;
use crate::control_plane::{ControlPlane, Facts};
use crate::node::{self, Enclosure, Network, Node, Programs};
use crate::pki::Pki;
use crate::process::{Process, free_port};
use crate::wait::{Seen, wait_until};

/// Each step of a start takes about a second; on a machine busy with compiling, many times that.
const STEP_DEADLINE: Duration = Duration::from_secs(90);

/// A port that was free when it was chosen may be taken by the time it is bound.
const ATTEMPTS: usize = 3;

/// The folder with the binaries, as `tools/control-plane` prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Assets(PathBuf);

impl Assets {
    /// Takes `folder` when it holds everything that is needed.
    ///
    /// # Errors
    /// When a binary is missing.
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        for binary in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] {
            if !folder.join(binary).is_file() {
                bail!("{} holds no {binary}: pass the folder that tools/control-plane prints", folder.display());
            }
        }
        Ok(Self(folder.to_owned()))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn kubectl(&self) -> PathBuf {
        self.0.join("kubectl")
    }

    /// A command for `binary` that the kernel kills when the thread that starts it ends.
    fn command(&self, binary: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.0.join(binary));
        command
    }
}

/// The processes of a control plane; dropping it ends them.
#[derive(Debug)]
pub struct Running {
    plane: ControlPlane,
    // Dropped in this order: nobody writes to a data base that is gone.
    node: Option<Node>,
    controller_manager: Process,
    api_server: Process,
    etcd: Process,
}

impl Running {
    /// Starts a control plane in `folder` and applies the manifests in `crds`, when that folder has any.
    ///
    /// # Errors
    /// When a process ends or does not become ready; the message holds the end of its log.
    pub async fn start(folder: &Path, assets: &Assets, crds: &Path) -> anyhow::Result<Self> {
        let running = Self::start_bare(folder, assets, None).await?;
        running.apply_crds(crds).await?;
        Ok(running)
    }

    /// Starts a control plane in `folder` with a node, so that pods run. Fairlead's CRDs are not in it: a chart brings them.
    ///
    /// # Errors
    /// As [`Running::start`], and when the machine lacks what a node needs.
    pub async fn start_with_node(folder: &Path, assets: &Assets, programs: &Programs) -> anyhow::Result<Self> {
        let enclosure = Enclosure::open(folder, programs).await?;
        let mut running = Self::start_bare(folder, assets, Some(enclosure.facts())).await?;
        running.node = Some(Node::start(&running.plane, enclosure).await?);
        Ok(running)
    }

    async fn start_bare(folder: &Path, assets: &Assets, node: Option<&node::Facts>) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::try_start(folder, assets, node).await {
                Err(error) if attempt < ATTEMPTS && format!("{error:#}").contains("address already in use") => {
                    attempt += 1;
                    let data = folder.join("etcd");
                    if data.exists() {
                        fs::remove_dir_all(data).context("clear the data of a failed start")?;
                    }
                }
                done => return done,
            }
        }
    }

    async fn try_start(folder: &Path, assets: &Assets, node: Option<&node::Facts>) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let etcd_port = free_port()?;
        let port = free_port()?;
        let network = node.map(|node| node.network);
        let address = network.map_or(Ipv4Addr::LOCALHOST, Network::machine);
        let server = format!("https://{address}:{port}");
        let pki = Pki::at(folder);
        let addresses = network.map(|network| vec![network.machine(), network.api_server()]).unwrap_or_default();
        pki.create(&addresses)?;
        let plane = ControlPlane::record(folder, Facts { server: server.clone(), assets: assets.clone(), node: node.cloned() })?;
        pki.kubeconfig(&server, "fairlead-test-admin", &["system:masters"], &plane.kubeconfig())?;
        let manager_kubeconfig = folder.join("controller-manager.kubeconfig");
        pki.kubeconfig(&server, "system:kube-controller-manager", &[], &manager_kubeconfig)?;

        let mut etcd = start_etcd(folder, assets, etcd_port)?;
        reached(&mut etcd, "etcd answers", async || {
            TcpStream::connect(("127.0.0.1", etcd_port)).await?;
            Ok(())
        })
        .await?;

        let mut api_server = start_api_server(&plane, etcd_port, port)?;
        api_ready(&mut api_server, &plane).await?;

        let mut command = assets.command("kube-controller-manager");
        command
            .arg(flag("kubeconfig", &manager_kubeconfig))
            .arg(flag("authentication-kubeconfig", &manager_kubeconfig))
            .arg(flag("authorization-kubeconfig", &manager_kubeconfig))
            .arg(flag("root-ca-file", &pki.authority_certificate()))
            .arg(flag("service-account-private-key-file", &pki.key("service-accounts")))
            .args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"]);
        let controller_manager = Process::start("kube-controller-manager", command, &logs(folder))?;
        Ok(Self { plane, node: None, controller_manager, api_server, etcd })
    }

    async fn apply_crds(&self, crds: &Path) -> anyhow::Result<()> {
        let any = crds.is_dir()
            && fs::read_dir(crds)
                .with_context(|| format!("read {}", crds.display()))?
                .filter_map(Result::ok)
                .any(|entry| entry.path().extension().is_some_and(|extension| extension == "yaml"));
        if !any {
            return Ok(());
        }
        let crds = crds.as_os_str();
        let applied = self.plane.kubectl(["apply".as_ref(), "--server-side".as_ref(), "-f".as_ref(), crds]).await?;
        if applied.code != Some(0) {
            bail!("the API server refuses the CRDs: {applied}");
        }
        let established = self
            .plane
            .kubectl(["wait".as_ref(), "--for=condition=Established".as_ref(), "--timeout=60s".as_ref(), "-f".as_ref(), crds])
            .await?;
        if established.code != Some(0) {
            bail!("the CRDs are not established: {established}");
        }
        Ok(())
    }

    /// The control plane that these processes are.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The first process that has ended, with the end of its log.
    ///
    /// # Errors
    /// When a process's state cannot be read.
    pub fn failure(&mut self) -> anyhow::Result<Option<String>> {
        for process in [&mut self.etcd, &mut self.api_server, &mut self.controller_manager] {
            if let Some(status) = process.ended()? {
                return Ok(Some(format!("{} ended ({status}):\n{}", process.name(), process.tail())));
            }
        }
        self.node.as_mut().map_or(Ok(None), Node::failure)
    }
}

/// A control plane of one test's own, for tests that stop its API server.
#[derive(Debug)]
pub struct PrivateControlPlane {
    // Dropped before the folder is removed.
    running: Running,
    _folder: tempfile::TempDir,
}

impl Deref for PrivateControlPlane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.running.plane
    }
}

impl PrivateControlPlane {
    /// Starts one with the binaries and CRDs of the shared one.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start() -> anyhow::Result<Self> {
        let assets = ControlPlane::shared()?.assets().clone();
        let folder = tempfile::Builder::new().prefix("fairlead-plane-").tempdir().context("make a folder")?;
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        let running = Running::start(folder.path(), &assets, &crds).await?;
        Ok(Self { running, _folder: folder })
    }

    /// Kills the API server: connections break and new ones are refused until [`Self::resume_api_server`].
    ///
    /// # Errors
    /// When waiting for its end fails.
    pub async fn kill_api_server(&mut self) -> anyhow::Result<()> {
        self.running.api_server.kill().await
    }

    /// Starts the API server again at the same address with the same data, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn resume_api_server(&mut self) -> anyhow::Result<()> {
        let plane = self.running.plane.clone();
        let port =
            |address: &str| address.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or_else(|| anyhow!("no port in {address}"));
        let folder = plane.folder();
        let etcd: u16 = port(fs::read_to_string(etcd_address(folder)).context("read etcd's address")?.trim())?;
        let api: u16 = port(plane.server())?;
        let mut api_server = start_api_server(&plane, etcd, api)?;
        api_ready(&mut api_server, &plane).await?;
        self.running.api_server = api_server;
        Ok(())
    }

    /// Freezes the API server: connections stay open and nothing answers, until [`Self::thaw_api_server`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze_api_server(&self) -> anyhow::Result<()> {
        self.running.api_server.freeze()
    }

    /// Lets a frozen API server go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw_api_server(&self) -> anyhow::Result<()> {
        self.running.api_server.thaw()
    }
}

fn start_etcd(folder: &Path, assets: &Assets, port: u16) -> anyhow::Result<Process> {
    let address = format!("http://127.0.0.1:{port}");
    fs::write(etcd_address(folder), &address).context("write etcd's address")?;
    let mut command = assets.command("etcd");
    command
        .arg(flag("data-dir", &folder.join("etcd")))
        .arg(format!("--listen-client-urls={address}"))
        .arg(format!("--advertise-client-urls={address}"))
        .args(["--listen-peer-urls=http://127.0.0.1:0", "--unsafe-no-fsync", "--log-level=warn"]);
    Process::start("etcd", command, &logs(folder))
}

fn start_api_server(plane: &ControlPlane, etcd: u16, port: u16) -> anyhow::Result<Process> {
    let folder = plane.folder();
    let pki = Pki::at(folder);
    let policy = folder.join("audit-policy.json");
    fs::write(&policy, audit::POLICY).context("write the audit policy")?;
    let mut command = plane.assets().command("kube-apiserver");
    if let Some(node) = plane.node_facts() {
        // It listens where pods find it, and speaks to kubelets.
        pki.sign_client("apiserver-kubelet-client", &["system:masters"])?;
        command
            .arg(format!("--bind-address={}", node.network.machine()))
            .arg(format!("--advertise-address={}", node.network.machine()))
            .arg(format!("--service-cluster-ip-range={}", node.network.services()))
            .arg(flag("kubelet-client-certificate", &pki.certificate("apiserver-kubelet-client")))
            .arg(flag("kubelet-client-key", &pki.key("apiserver-kubelet-client")))
            .args(["--kubelet-preferred-address-types=InternalIP", "--authorization-mode=Node,RBAC"]);
    } else {
        command
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"]);
    }
    command
        .arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"))
        .arg(format!("--secure-port={port}"))
        .arg(flag("cert-dir", &folder.join("pki")))
        .arg(flag("tls-cert-file", &pki.certificate("kube-apiserver")))
        .arg(flag("tls-private-key-file", &pki.key("kube-apiserver")))
        .arg(flag("client-ca-file", &pki.authority_certificate()))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(flag("service-account-key-file", &pki.public_key("service-accounts")))
        .arg(flag("service-account-signing-key-file", &pki.key("service-accounts")))
        .arg(flag("audit-policy-file", &policy))
        .arg(flag("audit-log-path", &folder.join("audit.log")));
    Process::start("kube-apiserver", command, &logs(folder))
}

async fn api_ready(api_server: &mut Process, plane: &ControlPlane) -> anyhow::Result<()> {
    let admin = plane.admin().await?;
    reached(api_server, "the API server is ready", async || {
        let request = http_get("/readyz")?;
        // The client retries by itself for long; a look is short.
        tokio::time::timeout(Duration::from_secs(2), admin.request_text(request))
            .await
            .map_err(|_| anyhow!("no answer from {}/readyz", plane.server()))??;
        Ok(())
    })
    .await
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).context("build a request")
}

/// Waits until `look` succeeds, and gives up at once when the process has ended.
async fn reached(process: &mut Process, what: &str, look: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let ended = wait_until(what, STEP_DEADLINE, async || {
        if let Some(status) = process.ended()? {
            return Ok(Seen::Yes(Some(status)));
        }
        look().await?;
        Ok(Seen::Yes(None))
    })
    .await
    .with_context(|| format!("{} logged:\n{}", process.name(), process.tail()))?;
    match ended {
        Some(status) => bail!("{} ended ({status}) before {what}:\n{}", process.name(), process.tail()),
        None => Ok(()),
    }
}

fn logs(folder: &Path) -> PathBuf {
    folder.join("logs")
}

fn etcd_address(folder: &Path) -> PathBuf {
    folder.join("etcd.address")
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}
