//! A PostgreSQL server of one test's own: Debian's package, on a private port, in a temporary folder, durable as in production.
//!
//! It ends with the value, and with the process however that ends: the kernel kills it when the thread that started it is gone. PostgreSQL
//! refuses to run as root, so for root it runs as the package's user `postgres`.

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The role that owns everything, and its password, which no message may show.
pub const ROLE: &str = "fairlead";
/// See [`ROLE`].
pub const PASSWORD: &str = "s3cret-of-the-test";

/// Starting takes a second; on a machine busy with compiling, many times that.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server that runs, or is stopped for the moment.
pub struct Server {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    running: Option<Running>,
}

struct Running {
    pid: i32,
    stop: mpsc::Sender<()>,
    keeper: JoinHandle<()>,
}

impl Server {
    /// Starts a server with an empty cluster.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(&std::env::temp_dir(), &[])
    }

    /// Starts a server whose data lie in a new folder within `place`, with further settings (`name=value`).
    #[must_use]
    pub fn start_in(place: &Path, options: &[&str]) -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("fairlead-postgres-").tempdir_in(place).expect("a folder for the server");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the password's file");
        if let Some((user, group)) = unprivileged() {
            chown(folder.path(), Some(user), Some(group)).expect("the folder given to the server's user");
            chown(&password, Some(user), Some(group)).expect("the password's file given to the server's user");
        }
        let mut server =
            Self { programs, folder, port: 0, options: options.iter().map(|option| (*option).to_owned()).collect(), running: None };
        let mut initdb = server.command("initdb");
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--username", ROLE, "--pwfile"]);
        run(initdb.arg(&password).arg("--pgdata").arg(server.data()));
        server.start_again();
        server
    }

    /// Starts it on the same port, after [`Server::stop`].
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs");
        let begun = Instant::now();
        loop {
            if self.port == 0 {
                self.port = free_port();
            }
            let mut running = self.spawn();
            match self.answers(&mut running, begun) {
                Ok(()) => {
                    self.running = Some(running);
                    return;
                }
                // Somebody else took the port between the look and the start.
                Err(log) if log.contains("Address already in use") && begun.elapsed() < PATIENCE => self.port = 0,
                Err(log) => panic!("PostgreSQL did not start:\n{log}"),
            }
        }
    }

    fn spawn(&self) -> Running {
        let log = std::fs::File::create(self.log()).expect("the server's log");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=64MB", "deadlock_timeout=200ms"] {
            command.args(["-c", setting]);
        }
        for setting in &self.options {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let (stop, told) = mpsc::channel::<()>();
        let (started, pid) = mpsc::channel();
        // The kernel's signal follows the thread that started the server, so that one lives as long as the server shall.
        let keeper = std::thread::spawn(move || {
            let mut child: Child = command.spawn().expect("PostgreSQL can be started");
            started.send(i32::try_from(child.id()).expect("a process id")).expect("somebody waits");
            let _ = told.recv();
            child.wait().expect("the server's end");
        });
        Running { pid: pid.recv().expect("PostgreSQL was started"), stop, keeper }
    }

    fn answers(&self, running: &mut Running, begun: Instant) -> Result<(), String> {
        loop {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if ready.status().expect("pg_isready runs").success() {
                return Ok(());
            }
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let gone = !Path::new(&format!("/proc/{}/exe", running.pid)).exists();
            if gone || log.contains("FATAL") && log.contains("could not create") || begun.elapsed() > PATIENCE {
                return Err(log);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as an operator would, ending what is under way, and waits for its end.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    fn end(&mut self, signal: &str) {
        if let Some(Running { pid, stop, keeper }) = self.running.take() {
            let _ = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
            let _ = stop.send(());
            let _ = keeper.join();
        }
    }

    /// Makes a new database; gives its URL.
    #[must_use]
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
        self.url(name)
    }

    /// Makes a new database whose tables lie in a new folder within `place`; gives its URL.
    #[must_use]
    pub fn database_in(&self, name: &str, place: &Path) -> String {
        let data = place.join(name);
        std::fs::create_dir(&data).expect("a folder for the tables");
        if let Some((user, group)) = unprivileged() {
            chown(&data, Some(user), Some(group)).expect("the folder given to the server's user");
        }
        self.sql("postgres", &format!("CREATE TABLESPACE \"{name}\" LOCATION '{}'", data.display()));
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\" TABLESPACE \"{name}\""));
        self.url(name)
    }

    /// The URL of a database, for the role that owns everything.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The port it listens on, on loopback.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server's first process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running.as_ref().expect("the server runs").pid
    }

    /// Runs statements in a database, as an administrator; gives what they print, unaligned and without headers.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.env("PGPASSWORD", PASSWORD).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", ROLE, "-d", database]);
        run(psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", statements]))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// One of PostgreSQL's programs, without root's rights, killed with the thread that starts it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if unprivileged().is_some() {
            // Apart, since a change of user takes the kernel's signal away again.
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--", "setpriv"]);
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.programs.join(program)).current_dir("/");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

/// A small file system of its own in memory; root may mount one.
pub struct Small(tempfile::TempDir);

impl Small {
    /// Mounts one of this size, as `mount` spells it: `24m`.
    #[must_use]
    pub fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder to mount on");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=777"), "tmpfs"]).arg(folder.path()));
        Self(folder)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room in it.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.path().join("ballast")).expect("a file for the ballast");
        let full = loop {
            if let Err(error) = ballast.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    /// Makes it as large as this.
    pub fn resize(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.path()));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// Where Debian's package has the server's programs; the newest version that is installed.
fn programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path().join("bin"));
    let number = |bin: &PathBuf| bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file()).max_by_key(number);
    newest.expect("PostgreSQL's server is not installed: run tools/setup test (Debian: apt-get install postgresql)")
}

/// The user and group of Debian's package, where this process is root.
fn unprivileged() -> Option<(u32, u32)> {
    let is_root = std::fs::metadata("/proc/self").expect("/proc").uid() == 0;
    is_root.then(|| {
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = users.lines().find(|line| line.starts_with("postgres:")).expect("the package's user `postgres`");
        let mut fields = line.split(':').skip(2);
        let mut id = || fields.next().and_then(|field| field.parse().ok()).expect("a user's and a group's number");
        (id(), id())
    })
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port").local_addr().expect("its number").port()
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("a program of PostgreSQL can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
