//! Starts and stops a control plane in the background: the one way to it, for test runs and for `make cluster`.
//!
//! `start` leaves a supervisor behind (`serve`), which holds the processes, ends them all as soon as one of them
//! fails, it is told to stop, or the process it was tied to is gone, and then removes the folder.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use fairlead_tests::{Assets, ControlPlane, Programs, Running, Seen, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

/// How soon after its end the process that a plane is tied to is missed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Certificates, three processes, CRDs; seconds, or minutes on a machine that compiles beside.
const START_DEADLINE: Duration = Duration::from_secs(240);

#[derive(Parser)]
#[command(about = "A control plane for tests: etcd, kube-apiserver, kube-controller-manager on loopback")]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Start one in the background, wait until it is ready, print its folder
    Start {
        #[command(flatten)]
        plane: Plane,
        /// Its folder; without one, a new temporary folder
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Hold one in the foreground
    Serve {
        #[command(flatten)]
        plane: Plane,
        /// Its folder
        #[arg(long)]
        dir: PathBuf,
    },
    /// Give the node of the one in a folder the images in an archive
    Load {
        /// Its folder
        #[arg(long)]
        dir: PathBuf,
        /// An archive as `docker save` or tools/image writes it
        archive: PathBuf,
    },
    /// Stop the one in a folder and remove the folder
    Stop {
        /// Its folder
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Plane {
    /// Folder with etcd, kube-apiserver, kube-controller-manager, kubectl
    #[arg(long)]
    assets: PathBuf,
    /// Folder with CustomResourceDefinitions to apply
    #[arg(long, required_unless_present = "node", conflicts_with = "node")]
    crds: Option<PathBuf>,
    /// Folder with the programs of a node: pods run, and no CustomResourceDefinitions are there
    #[arg(long)]
    node: Option<PathBuf>,
    /// End when the process with this id is gone
    #[arg(long)]
    while_alive: Option<i32>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Cmd::Start { plane, dir } => start(&plane, dir).await,
        Cmd::Serve { plane, dir } => serve(&plane, &dir).await,
        Cmd::Load { dir, archive } => load(&dir, &archive).await,
        Cmd::Stop { dir } => stop(&dir).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the words of this program")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn start(plane: &Plane, dir: Option<PathBuf>) -> anyhow::Result<()> {
    let dir = match dir {
        Some(dir) if Supervisor::of(&dir).is_some_and(|supervisor| supervisor.incarnation.is_alive()) => {
            if ControlPlane::at(&dir)?.has_node() != plane.node.is_some() {
                bail!("one runs in {} that is not of this kind (with or without a node); stop it first", dir.display());
            }
            return tell(&dir);
        }
        Some(dir) => {
            // Left behind by a machine that went down, or a supervisor that was killed; its processes went with it.
            clear(&dir)?;
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            dir
        }
        None => tempfile::Builder::new().prefix("fairlead-plane-").tempdir().context("make a folder")?.keep(),
    };
    let log_path = dir.join("supervisor.log");
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let mut command = Command::new(std::env::current_exe().context("find this executable")?);
    command.arg("serve").arg("--dir").arg(&dir).arg("--assets").arg(&plane.assets);
    for (flag, folder) in [("--crds", &plane.crds), ("--node", &plane.node)] {
        if let Some(folder) = folder {
            command.arg(flag).arg(folder);
        }
    }
    if let Some(pid) = plane.while_alive {
        command.arg("--while-alive").arg(pid.to_string());
    }
    // In a process group of its own: an interrupt at the terminal is for the tests, whose end the supervisor sees.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("start the supervisor")?;
    let failed = wait_until("the control plane is ready", START_DEADLINE, async || {
        if let Some(status) = child.try_wait()? {
            return Ok(Seen::Yes(Some(status)));
        }
        Ok(match Supervisor::of(&dir) {
            Some(_) => Seen::Yes(None),
            None => Seen::NotYet("the supervisor is starting it".to_owned()),
        })
    })
    .await?;
    if let Some(status) = failed {
        let log = fs::read_to_string(&log_path).unwrap_or_default();
        bail!("the control plane did not start ({status}), see {}:\n{log}", dir.display());
    }
    tell(&dir)
}

#[expect(clippy::print_stdout, reason = "the answer of this program")]
fn tell(dir: &Path) -> anyhow::Result<()> {
    println!("{}", dir.display());
    Ok(())
}

async fn serve(plane: &Plane, dir: &Path) -> anyhow::Result<()> {
    let tied_to = plane.while_alive.map(Incarnation::of).transpose()?;
    let assets = Assets::at(&plane.assets)?;
    let mut running = match (&plane.node, &plane.crds) {
        (Some(node), _) => Running::start_with_node(dir, &assets, &Programs::at(node)?).await?,
        (None, Some(crds)) => Running::start(dir, &assets, crds).await?,
        (None, None) => bail!("say --crds or --node"),
    };
    Supervisor { incarnation: Incarnation::of(i32::try_from(std::process::id())?)? }.record(dir)?;

    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if tied_to.as_ref().is_some_and(|process| !process.is_alive()) {
            break;
        }
        // The folder stays, for whoever looks into what happened.
        if let Some(failure) = running.failure()? {
            bail!("{failure}");
        }
    }
    drop(running);
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}

async fn load(dir: &Path, archive: &Path) -> anyhow::Result<()> {
    let dir = fs::canonicalize(dir).with_context(|| format!("no control plane in {}", dir.display()))?;
    ControlPlane::at(&dir)?.load_image(archive).await
}

async fn stop(dir: &Path) -> anyhow::Result<()> {
    if let Some(Supervisor { incarnation }) = Supervisor::of(dir)
        && incarnation.is_alive()
    {
        let pid = Pid::from_raw(incarnation.pid).ok_or_else(|| anyhow!("no process id in {}", dir.display()))?;
        kill_process(pid, Signal::TERM).context("stop the supervisor")?;
        wait_until("the control plane is down", Duration::from_secs(60), async || {
            Ok(Seen::when(!incarnation.is_alive(), format_args!("process {} runs", incarnation.pid)))
        })
        .await?;
    }
    clear(dir)
}

/// Removes what is left of a control plane whose processes are gone.
fn clear(dir: &Path) -> anyhow::Result<()> {
    if let Ok(plane) = ControlPlane::at(dir) {
        plane.remove_cgroups()?;
    }
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

/// Who holds a control plane; written when it is ready.
#[derive(Deserialize, Serialize)]
struct Supervisor {
    incarnation: Incarnation,
}

impl Supervisor {
    fn path(dir: &Path) -> PathBuf {
        dir.join("supervisor.json")
    }

    fn of(dir: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(Self::path(dir)).ok()?).ok()
    }

    fn record(&self, dir: &Path) -> anyhow::Result<()> {
        // Moved into place, so that a reader sees all of it or nothing.
        let written = dir.join("supervisor.json.new");
        fs::write(&written, serde_json::to_string(self)?).context("write who supervises")?;
        fs::rename(&written, Self::path(dir)).context("publish who supervises")
    }
}

/// A process id together with when that process began, since ids are used again.
#[derive(Deserialize, Eq, PartialEq, Serialize)]
struct Incarnation {
    pid: i32,
    began: u64,
}

impl Incarnation {
    fn of(pid: i32) -> anyhow::Result<Self> {
        let began = began(pid).ok_or_else(|| anyhow!("there is no process {pid}"))?;
        Ok(Self { pid, began })
    }

    fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// When the process began, in clock ticks since boot (proc(5), field 22 of stat); `None` when it is gone or a zombie.
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18)?.parse().ok() }
}
