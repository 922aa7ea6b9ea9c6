//! A node of a control plane: containerd, kubelet and kube-proxy in namespaces of their own, so that pods run.
//!
//! Flow: a first process opens network, mount and process namespaces (`tests/node/hold.sh`); a veth pair links them to the
//! machine; the API server listens on the machine's end of it; then the node's programs are started inside.
//!
//! Guarantees: when the process that started a node dies, however that happens, the kernel ends every process of the
//! node, and with them go mounts, network and the veth pair. Empty cgroups are all that may stay then; the next node of
//! the same number removes them. The machine's own network, files and kernel settings are left alone, but for one route
//! to the node's addresses.
//!
//! Assumptions: root, with the right to make namespaces and cgroups; `ip`, `nft` and `runc` are installed. Pods reach
//! each other, Services and the machine, not the world outside, and there is no cluster DNS.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use k8s_openapi::api::core::v1;
use kube::Api;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::control_plane::ControlPlane;
use crate::pki::Pki;
use crate::process::{Process, beside_test};
use crate::wait::{Seen, wait_until};

/// The one node's name.
const NAME: &str = "node";

/// Steps take a second or two; on a machine that compiles beside, many times that.
const STEP_DEADLINE: Duration = Duration::from_secs(120);

/// So many claims of pods can be bound: each is a folder of the node.
const VOLUMES: usize = 8;

/// Where containerd listens, inside.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// The folder with a node's programs, as `tools/node` prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Programs(PathBuf);

impl Programs {
    /// Takes `folder` when it holds everything that is needed.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn at(folder: &Path) -> anyhow::Result<Self> {
        for program in ["containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy", "kube-scheduler", "ptp", "sandbox.tar"] {
            ensure!(folder.join(program).is_file(), "{} holds no {program}: pass the folder that tools/node prints", folder.display());
        }
        Ok(Self(folder.to_owned()))
    }

    fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }
}

/// The addresses of one node, its pods and Services: the 256 below `10.231.NUMBER.0`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Network(u8);

impl Network {
    fn address(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.0, last)
    }

    /// The machine, as the node and its pods see it.
    pub(crate) fn machine(self) -> Ipv4Addr {
        self.address(1)
    }

    fn node(self) -> Ipv4Addr {
        self.address(2)
    }

    fn pods(self) -> String {
        format!("{}/26", self.address(64))
    }

    /// Addresses of Services.
    pub(crate) fn services(self) -> String {
        format!("{}/25", self.address(128))
    }

    /// The Service through which pods reach the API server.
    pub(crate) fn api_server(self) -> Ipv4Addr {
        self.address(129)
    }

    fn all(self) -> String {
        format!("{}/24", self.address(0))
    }

    /// The name of the veth pair's end on the machine, and of the cgroups.
    fn name(self) -> String {
        format!("fairlead-{}", self.0)
    }
}

/// What a handle needs to know of a node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Facts {
    pub(crate) network: Network,
    /// The process that opened the namespaces.
    namespaces: i32,
    programs: Programs,
}

/// Namespaces, link and cgroups of a node; dropping it ends everything inside.
#[derive(Debug)]
pub(crate) struct Enclosure {
    holder: Process,
    /// The first process inside; when it ends, so do all.
    first: Pid,
    facts: Facts,
    folder: PathBuf,
}

impl Enclosure {
    /// Opens one that keeps its files below `plane`.
    ///
    /// # Errors
    /// When the machine lacks something: what, and how to get it.
    pub(crate) async fn open(plane: &Path, programs: &Programs) -> anyhow::Result<Self> {
        ensure!(geteuid().is_root(), "a node needs root, for namespaces and mounts: run this as root");
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("runc", "runc"), ("unshare", "util-linux")] {
            let found =
                std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
            ensure!(found, "a node needs {program}: run tools/setup test, or install the package {package}");
        }
        let folder = plane.join("node");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;

        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--", "bash", "-c", include_str!("../node/hold.sh"), "hold"])
            .args([&folder, &programs.0]);
        let mut holder = Process::start("namespaces", command, &plane.join("logs"))?;
        holder
            .line("the node's namespaces", STEP_DEADLINE, |line| (line == "held").then_some(()))
            .await
            .context("a node needs the right to make namespaces and mounts (a container must be privileged), and veth in the kernel")?;
        let namespaces = holder.pid();
        let children = fs::read_to_string(format!("/proc/{namespaces}/task/{namespaces}/children")).context("look inside")?;
        let first = children.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("no first process in {children:?}"))?;

        let network = claim(namespaces).await?;
        let enclosure = Self { holder, first, facts: Facts { network, namespaces, programs: programs.clone() }, folder };
        let (name, machine, node) = (network.name(), format!("{}/30", network.machine()), format!("{}/30", network.node()));
        run(ip(["address", "add", &machine, "dev", &name])).await?;
        run(ip(["link", "set", &name, "up"])).await?;
        for inside in [
            ["ip", "address", "add", &node, "dev", "eth0"].as_slice(),
            &["ip", "link", "set", "eth0", "up"],
            &["ip", "route", "add", "default", "via", &network.machine().to_string()],
        ] {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/proc/{namespaces}/ns/net")).arg("--").args(inside);
            run(command).await?;
        }
        run(ip(["route", "add", &network.all(), "via", &network.node().to_string()])).await?;
        cgroups::remove(&name, Duration::ZERO).context("remove what an earlier node left behind")?;
        cgroups::create(&name)?;
        Ok(enclosure)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        // The holder waits for the first process, and that one's end is complete only when all others inside are gone.
        let _ = kill_process(self.first, Signal::KILL);
        let started = Instant::now();
        while matches!(self.holder.ended(), Ok(None)) && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let name = self.facts.network.name();
        // The kernel takes the network away some time later; whoever looks now shall find nothing.
        let _ = std::process::Command::new("ip").args(["link", "delete", &name]).stderr(Stdio::null()).status();
        let _ = cgroups::remove(&name, Duration::from_secs(10));
    }
}

/// Makes the link between the machine and the namespaces of `namespaces`, at the first number that is free.
async fn claim(namespaces: i32) -> anyhow::Result<Network> {
    for number in 0..=u8::MAX {
        let network = Network(number);
        let made = ip(["link", "add", &network.name(), "type", "veth", "peer", "name", "eth0", "netns", &namespaces.to_string()])
            .output()
            .await
            .context("run ip")?;
        let told = String::from_utf8_lossy(&made.stderr);
        match told.contains("File exists") {
            _ if made.status.success() => return Ok(network),
            true => {}
            false => bail!("cannot link a node to the machine (ip link add type veth): {}", told.trim()),
        }
    }
    bail!("256 nodes run on this machine already: see `ip link`, links called fairlead-NUMBER")
}

fn ip<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments);
    command
}

async fn run(mut command: Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{:?} failed: {}", command.as_std(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Facts {
    /// A command for one of the programs inside, which the kernel kills when the thread that starts it ends.
    fn command(&self, program: &str) -> Command {
        let namespace = |flag: &str, name: &str| format!("--{flag}=/proc/{}/ns/{name}", self.namespaces);
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "nsenter"])
            .args([namespace("net", "net"), namespace("ipc", "ipc"), namespace("mount", "mnt"), namespace("pid", "pid_for_children")])
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(self.programs.path(program))
            // containerd looks for its shim there, and the shim for runc.
            .env("PATH", format!("{}:{path}", self.programs.0.display()));
        command
    }

    /// Gives the node the images in an archive, as `docker save` and `tools/image` write them.
    async fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let file = fs::File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        let mut command = self.command("ctr");
        // Read here, since the node may not see the file.
        let output = command
            .args(["--address", CONTAINERD, "--namespace", "k8s.io", "images", "import", "-"])
            .stdin(file)
            .kill_on_drop(true)
            .output()
            .await
            .context("run ctr")?;
        ensure!(output.status.success(), "{} does not load: {}", archive.display(), String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

/// The processes of a node and the scheduler; dropping it ends them and all pods.
#[derive(Debug)]
pub(crate) struct Node {
    scheduler: Process,
    kube_proxy: Process,
    kubelet: Process,
    containerd: Process,
    // Dropped last: it ends whatever is left inside.
    _enclosure: Enclosure,
}

impl Node {
    /// Starts them and waits until the node is ready for pods.
    ///
    /// # Errors
    /// When a process ends or the node does not become ready; the message holds the end of a log.
    pub(crate) async fn start(plane: &ControlPlane, enclosure: Enclosure) -> anyhow::Result<Self> {
        let (facts, logs) = (enclosure.facts().clone(), plane.folder().join("logs"));
        let kubeconfig = |user: &str, groups: &[&str]| -> anyhow::Result<PathBuf> { plane.kubeconfig_for(user, groups) };

        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(facts.programs.path("kube-scheduler"))
            .arg(format!("--kubeconfig={}", kubeconfig("system:kube-scheduler", &[])?.display()))
            .args(["--leader-elect=false", "--secure-port=0"]);
        let scheduler = Process::start("kube-scheduler", command, &logs)?;

        let networks = enclosure.folder.join("cni");
        fs::create_dir_all(&networks).context("make the folder of networks")?;
        enclosure.write("cni/node.conflist", &pod_network(facts.network).to_string())?;
        let settings = containerd_settings(&networks, &facts.programs.0);
        let mut command = facts.command("containerd");
        command.arg("--config").arg(enclosure.write("containerd.toml", &settings)?);
        let mut containerd = Process::start("containerd", command, &logs)?;
        let sandbox = facts.programs.path("sandbox.tar");
        wait_until("containerd takes images", STEP_DEADLINE, async || {
            if let Some(status) = containerd.ended()? {
                return Ok(Seen::Yes(Err(status)));
            }
            facts.load(&sandbox).await?;
            Ok(Seen::Yes(Ok(())))
        })
        .await?
        .map_err(|status| anyhow!("containerd ended ({status}):\n{}", containerd.tail()))?;

        let settings = kubelet_settings(plane.folder(), &enclosure.folder, facts.network);
        fs::write(enclosure.folder.join("resolv.conf"), "").context("write resolv.conf")?;
        let mut command = facts.command("kubelet");
        command
            .arg(format!("--config={}", enclosure.write("kubelet.json", &settings.to_string())?.display()))
            .arg(format!("--kubeconfig={}", kubeconfig(&format!("system:node:{NAME}"), &["system:nodes"])?.display()))
            .arg(format!("--hostname-override={NAME}"))
            .arg(format!("--node-ip={}", facts.network.node()));
        let kubelet = Process::start("kubelet", command, &logs)?;

        let settings = proxy_settings(&kubeconfig("system:kube-proxy", &[])?, facts.network);
        let mut command = facts.command("kube-proxy");
        command.arg(format!("--config={}", enclosure.write("kube-proxy.json", &settings.to_string())?.display()));
        let kube_proxy = Process::start("kube-proxy", command, &logs)?;

        let mut node = Self { scheduler, kube_proxy, kubelet, containerd, _enclosure: enclosure };
        node.provide_volumes(plane).await?;
        node.ready(plane).await?;
        Ok(node)
    }

    /// Folders of the node as volumes, in the default storage class.
    async fn provide_volumes(&self, plane: &ControlPlane) -> anyhow::Result<()> {
        let folder = self._enclosure.folder.join("lib/volumes");
        let volume = |number: usize| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("local-{number}")},
                "spec": {
                    "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"},
                    "persistentVolumeReclaimPolicy": "Retain", "local": {"path": format!("/var/lib/volumes/{number}")},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}]},
                    ]}},
                },
            })
        };
        let mut items = vec![json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
        })];
        for number in 0..VOLUMES {
            fs::create_dir_all(folder.join(number.to_string())).context("make a volume's folder")?;
            items.push(volume(number));
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let applied = plane.kubectl_with_input(["apply", "--server-side", "-f", "-"], &list.to_string()).await?;
        ensure!(applied.code == Some(0), "the API server refuses the node's volumes: {applied}");
        Ok(())
    }

    async fn ready(&mut self, plane: &ControlPlane) -> anyhow::Result<()> {
        let nodes: Api<v1::Node> = Api::all(plane.admin().await?);
        let failed = wait_until("the node is Ready", STEP_DEADLINE, async || {
            if let Some(failure) = self.failure()? {
                return Ok(Seen::Yes(Some(failure)));
            }
            let conditions = nodes.get(NAME).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            Ok(if ready { Seen::Yes(None) } else { Seen::NotYet(serde_json::to_string(&conditions)?) })
        })
        .await
        .with_context(|| format!("kubelet logged:\n{}", self.kubelet.tail()))?;
        failed.map_or(Ok(()), |failure| bail!(failure))
    }

    /// The first process that has ended, with the end of its log.
    pub(crate) fn failure(&mut self) -> anyhow::Result<Option<String>> {
        for process in [&mut self.containerd, &mut self.kubelet, &mut self.kube_proxy, &mut self.scheduler] {
            if let Some(status) = process.ended()? {
                return Ok(Some(format!("{} ended ({status}):\n{}", process.name(), process.tail())));
            }
        }
        Ok(None)
    }
}

/// A control plane with a node, of one test's own. A supervisor holds it, so that nothing stays when the test is killed.
#[derive(Debug)]
pub struct Cluster {
    plane: ControlPlane,
}

impl Deref for Cluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.plane
    }
}

impl Cluster {
    /// Starts one. Fairlead's CRDs are not in it: a chart brings them.
    ///
    /// # Errors
    /// When it does not become ready, or the machine lacks something.
    pub async fn start() -> anyhow::Result<Self> {
        let programs = std::env::var_os("FAIRLEAD_TEST_NODE")
            .ok_or_else(|| anyhow!("FAIRLEAD_TEST_NODE is not set: run the tests with `make test` or `cargo nextest run`"))?;
        let mut command = beside_test("controlplane")?;
        command.arg("start").arg("--assets").arg(ControlPlane::shared()?.assets().folder()).arg("--node").arg(programs);
        command.args(["--while-alive", &std::process::id().to_string()]);
        let folder = run(command).await?;
        Ok(Self { plane: ControlPlane::at(Path::new(folder.trim()))? })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(command) = beside_test("controlplane") {
            let _ = command.into_std().arg("stop").arg("--dir").arg(self.plane.folder()).status();
        }
    }
}

impl ControlPlane {
    /// The machine's address as pods see it: where they find what listens there. Only with a node.
    ///
    /// # Errors
    /// When the control plane has no node.
    pub fn machine(&self) -> anyhow::Result<Ipv4Addr> {
        Ok(self.node()?.network.machine())
    }

    /// Whether it has a node.
    pub fn has_node(&self) -> bool {
        self.node_facts().is_some()
    }

    /// Gives the node the images in an archive, as `docker save` and `tools/image` write them.
    ///
    /// # Errors
    /// When the control plane has no node, or containerd cannot read the archive.
    pub async fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        self.node()?.load(archive).await
    }

    /// The processes of a pod's containers, by their ids on the machine; its sandbox is one of them.
    ///
    /// # Errors
    /// When the control plane has no node, or cgroups cannot be read.
    pub fn pod_processes(&self, uid: &str) -> anyhow::Result<Vec<i32>> {
        cgroups::processes(&self.node()?.network.name(), &format!("pod{uid}"))
    }

    /// Removes the cgroups of its node, if it has one whose processes are gone.
    ///
    /// # Errors
    /// When one of them still holds a process.
    pub fn remove_cgroups(&self) -> anyhow::Result<()> {
        match self.node_facts().map(|node| node.network.name()) {
            // While the link is there, the number is a running node's.
            Some(name) if !Path::new("/sys/class/net").join(&name).exists() => cgroups::remove(&name, Duration::from_secs(10)),
            _ => Ok(()),
        }
    }

    fn node(&self) -> anyhow::Result<&Facts> {
        self.node_facts().ok_or_else(|| anyhow!("this control plane has no node: start it with one (make cluster NODE=1)"))
    }
}

/// The network of pods, as CNI plugins read it: each pod has a link of its own to the node, so that every packet passes the node's rules
/// for Services, whoever sends it to whom.
fn pod_network(network: Network) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "node",
        "plugins": [{
            "type": "ptp",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": network.pods()}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

fn containerd_settings(networks: &Path, programs: &Path) -> String {
    format!(
        r#"version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "fairlead.local/sandbox:1"

[plugins.'io.containerd.cri.v1.runtime']
# A machine may lack CAP_SYS_RESOURCE; runc ends without a word then, when it is to lower a score.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{programs:?}]
conf_dir = {networks:?}
"#
    )
}

fn kubelet_settings(plane: &Path, folder: &Path, network: Network) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": Pki::at(plane).authority_certificate()}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "resolvConf": folder.join("resolv.conf"),
        "cgroupRoot": format!("/{}", network.name()),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        // A machine whose disk is nearly full still runs the tests' pods.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
    })
}

fn proxy_settings(kubeconfig: &Path, network: Network) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": NAME,
        "clusterCIDR": network.pods(),
        "clientConnection": {"kubeconfig": kubeconfig},
        "oomScoreAdj": 0,
        // These would be set for the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// The node's cgroups: one folder of its name in each hierarchy (cgroups v1), or one in all (v2).
mod cgroups {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use anyhow::Context as _;

    const ROOT: &str = "/sys/fs/cgroup";

    fn unified() -> bool {
        Path::new(ROOT).join("cgroup.controllers").exists()
    }

    fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
        if unified() {
            return Ok(vec![ROOT.into()]);
        }
        let mounted = fs::read_dir(ROOT).context("a node needs cgroups, mounted at /sys/fs/cgroup")?;
        Ok(mounted.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect())
    }

    pub(super) fn create(name: &str) -> anyhow::Result<()> {
        for hierarchy in hierarchies()? {
            let folder = hierarchy.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("create the cgroup {}; is /sys/fs/cgroup writable?", folder.display()))?;
            if unified() {
                let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).context("read the controllers")?;
                for controller in controllers.split_whitespace() {
                    for level in [&hierarchy, &folder] {
                        // One that cannot be handed down is one that kubelet names, if it needs it.
                        let _ = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes them all, children first; waits up to `patience` for processes in them to be gone.
    pub(super) fn remove(name: &str, patience: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        for hierarchy in hierarchies()? {
            let folder = hierarchy.join(name);
            while let Err(error) = remove_tree(&folder) {
                if started.elapsed() >= patience {
                    return Err(error).with_context(|| format!("remove the cgroup {}", folder.display()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn remove_tree(folder: &Path) -> std::io::Result<()> {
        if !folder.exists() {
            return Ok(());
        }
        for child in children(folder)? {
            remove_tree(&child)?;
        }
        fs::remove_dir(folder)
    }

    fn children(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
    }

    /// The processes in the cgroups that are called `called` below the one called `name`.
    pub(super) fn processes(name: &str, called: &str) -> anyhow::Result<Vec<i32>> {
        let hierarchy = hierarchies()?.into_iter().next().context("no cgroups")?;
        let mut found = Vec::new();
        let mut waiting = vec![(hierarchy.join(name), false)];
        while let Some((folder, within)) = waiting.pop() {
            let within = within || folder.ends_with(called);
            if within {
                let text = fs::read_to_string(folder.join("cgroup.procs")).context("read a cgroup's processes")?;
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
            waiting.extend(children(&folder).context("list cgroups")?.into_iter().map(|child| (child, within)));
        }
        Ok(found)
    }
}
