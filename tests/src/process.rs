//! Processes under test: started with their output in files, frozen, thawed, ended kindly or not at all kindly.
//!
//! A [`Process`] never outlives its value: dropping it kills it and waits until it is gone, since a lingering server
//! makes the next one fail without a word. When a test panics, the end of its standard error is told.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::wait::{Seen, wait_until};

/// How many lines of a log go into a failure message.
const TAIL: usize = 30;

/// The `fairlead` binary of this build, ready for arguments.
///
/// # Errors
/// When it has not been built beside the test.
pub fn fairlead() -> anyhow::Result<Command> {
    beside_test("fairlead")
}

/// The Python interpreter that has the vendors' own clients.
///
/// # Errors
/// When the tests were not started through nextest's setup script.
pub fn python() -> anyhow::Result<Command> {
    let path = std::env::var_os("FAIRLEAD_TEST_PYTHON")
        .ok_or_else(|| anyhow!("FAIRLEAD_TEST_PYTHON is not set: run the tests with `make test` or `cargo nextest run`"))?;
    Ok(Command::new(path))
}

/// A TCP port on loopback that was free a moment ago.
///
/// # Errors
/// When the machine has none left.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("read the free port")?.port())
}

/// A binary of this repository that was built with the running one.
///
/// # Errors
/// When it is not built.
pub fn beside_test(name: &str) -> anyhow::Result<Command> {
    let this = std::env::current_exe().context("find the test executable")?;
    let mut folder = this.parent().ok_or_else(|| anyhow!("{} has no folder", this.display()))?;
    // Test executables lie in `deps` below the profile's folder, binaries in the folder itself.
    if folder.ends_with("deps") {
        folder = folder.parent().ok_or_else(|| anyhow!("{} has no folder", folder.display()))?;
    }
    let binary = folder.join(name);
    if !binary.is_file() {
        bail!("{} is not built: run `cargo build --workspace --bin {name}`, or the tests with `make test`", binary.display());
    }
    Ok(Command::new(binary))
}

/// A running process with its output in files.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdout: Log,
    stderr: Log,
}

impl Process {
    /// Starts `command` with its output appended to `NAME.stdout` and `NAME.stderr` in `folder`.
    ///
    /// # Errors
    /// When a log cannot be opened or the program cannot be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let (stdout, to_stdout) = Log::open(folder.join(format!("{name}.stdout")))?;
        let (stderr, to_stderr) = Log::open(folder.join(format!("{name}.stderr")))?;
        command.stdin(Stdio::null()).stdout(to_stdout).stderr(to_stderr).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let pid =
            child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).ok_or_else(|| anyhow!("{name} has no process id"))?;
        Ok(Self { name: name.to_owned(), child, pid, stdout, stderr })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Asks it to stop (SIGTERM).
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Stops its clock (SIGSTOP): it holds its connections and leases and does nothing, as a paused machine would.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`Process::freeze`] (SIGCONT).
    ///
    /// # Errors
    /// When it is gone already.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When waiting for it fails.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look after {}", self.name))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it still runs after `deadline`; the message holds the end of its log.
    pub async fn end(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => status.with_context(|| format!("wait for {}", self.name)),
            Err(_) => bail!("{} still runs after {deadline:?}; the end of its log:\n{}", self.name, self.stderr.tail()),
        }
    }

    /// Waits for the first complete line of standard output that `pick` takes.
    ///
    /// # Errors
    /// When the process ends first, or after `deadline`; the message holds the end of its log.
    pub async fn line<T>(&mut self, what: &str, deadline: Duration, pick: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let name = self.name.clone();
        let ended = wait_until(what, deadline, async || {
            let ended = self.ended()?;
            let text = self.stdout()?;
            let complete = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(found) = complete.lines().find_map(&pick) {
                return Ok(Seen::Yes(Ok(found)));
            }
            Ok(match ended {
                Some(status) => Seen::Yes(Err(status)),
                None => Seen::NotYet(format!("{} wrote: {text}", self.name)),
            })
        })
        .await
        .with_context(|| format!("{name} logged:\n{}", self.stderr.tail()))?;
        ended.map_err(|status| anyhow!("{name} ended ({status}) before {what}; it logged:\n{}", self.stderr.tail()))
    }

    /// What it has written to standard output since it was started.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn stdout(&self) -> anyhow::Result<String> {
        self.stdout.read()
    }

    /// What it has written to standard error since it was started.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn stderr(&self) -> anyhow::Result<String> {
        self.stderr.read()
    }

    /// The last lines of its standard error, for a failure message.
    pub fn tail(&self) -> String {
        self.stderr.tail()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The id stays ours until the child is waited for, so this reaches no stranger.
        if self.child.id().is_none() {
            bail!("{} is gone already", self.name);
        }
        kill_process(self.pid, signal).with_context(|| format!("signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.ended().ok().flatten();
        if std::thread::panicking() {
            let state = match ended {
                None => "ran until now".to_owned(),
                Some(status) => match status.signal() {
                    Some(signal) => format!("was ended by signal {signal}"),
                    None => format!("ended: {status}"),
                },
            };
            #[expect(clippy::print_stderr, reason = "the failing test's output is where a person looks")]
            {
                eprintln!("--- {} {state}; the end of its standard error:\n{}", self.name, self.stderr.tail());
            }
        }
        let _ = self.child.start_kill();
        // Milliseconds after SIGKILL; the limit is for a process that the kernel itself cannot end.
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A file that a process appends to, read from where this process began.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    begin: usize,
}

impl Log {
    fn open(path: PathBuf) -> anyhow::Result<(Self, Stdio)> {
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(|| format!("open {}", path.display()))?;
        let begin = usize::try_from(file.metadata().context("measure a log")?.len())?;
        Ok((Self { path, begin }, file.into()))
    }

    fn read(&self) -> anyhow::Result<String> {
        let bytes = fs::read(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        Ok(String::from_utf8_lossy(bytes.get(self.begin..).unwrap_or_default()).into_owned())
    }

    fn tail(&self) -> String {
        let text = self.read().unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}
