//! A running peerdex: the program itself, in a folder of its own, on free ports.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256d};
use serde_json::json;
use tempfile::TempDir;

use super::client::{Client, RpcError};
use super::{free_address, wait_for};

/// Longest wait for a start.
const START: Duration = Duration::from_secs(30);
/// What is promised after SIGINT or SIGTERM.
pub const STOP: Duration = Duration::from_secs(10);

/// The program, without the settings that the environment of the tests may hold.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PEERDEX_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Whether this machine lets us mount a file system for one process.
pub fn can_mount() -> bool {
    let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The program in a mount namespace of its own, where `folder` is a small file system in memory.
fn on_small_disk(program: &str, folder: &Path, megabytes: u32) -> Command {
    const MOUNT: &str = "mount -t tmpfs -o size=$1m tmpfs \"$2\" && shift 2 && exec \"$@\"";
    let mut command = command("unshare");
    command.args(["-rm", "sh", "-c", MOUNT, "sh", &megabytes.to_string()]).arg(folder).arg(program);
    command
}

fn with_open_files(program: &str, soft: u32, hard: u32) -> Command {
    const LIMIT: &str = "ulimit -Sn $1 && ulimit -Hn $2 && shift 2 && exec \"$@\"";
    let mut command = command("sh");
    command.args(["-c", LIMIT, "sh", &soft.to_string(), &hard.to_string()]).arg(program);
    command
}

/// How to start it. What is not said here are its defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// `env!("CARGO_BIN_EXE_peerdex")`, which only a test file itself can say.
    pub program: &'static str,
    pub network: &'static str,
    pub connect: Vec<SocketAddr>,
    pub min_chain_work: Option<&'static str>,
    /// Recorded chains are shorter than their network's forecast.
    pub ignore_disk_space: bool,
    /// Megabytes of a file system of its own, which the folder is on; it ends with the server.
    pub disk_mb: Option<u32>,
    /// Soft and hard limit on its open files.
    pub open_files: Option<(u32, u32)>,
    /// Whether wallets of this machine pay for what they ask, as any others do.
    pub limited: bool,
    pub extra: Vec<String>,
}

impl Options {
    pub fn new(program: &'static str, network: &'static str) -> Self {
        Self {
            program,
            network,
            connect: Vec::new(),
            min_chain_work: Some("0"),
            ignore_disk_space: true,
            disk_mb: None,
            open_files: None,
            limited: false,
            extra: Vec::new(),
        }
    }

    pub fn connect(mut self, peer: SocketAddr) -> Self {
        self.connect.push(peer);
        self
    }

    /// Starts it on a new folder.
    pub fn start(&self) -> Server {
        self.start_in(TempDir::new().expect("a temporary folder"))
    }

    /// Starts it on a folder that was used before.
    pub fn start_in(&self, folder: TempDir) -> Server {
        let electrum = free_address();
        let mut command = match (self.disk_mb, self.open_files) {
            (Some(megabytes), _) => on_small_disk(self.program, folder.path(), megabytes),
            (None, Some((soft, hard))) => with_open_files(self.program, soft, hard),
            (None, None) => command(self.program),
        };
        command.args(["--network", self.network]).arg("--data-dir").arg(folder.path());
        command.args(["--service", &format!("tcp://{electrum}")]);
        if !self.limited {
            command.args(["--exempt-address", "127.0.0.0/8"]);
        }
        if self.ignore_disk_space {
            command.arg("--ignore-disk-space");
        }
        for peer in &self.connect {
            command.args(["--connect", &peer.to_string()]);
        }
        if let Some(work) = self.min_chain_work {
            command.args(["--min-chain-work", work]);
        }
        command.args(&self.extra).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program));
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("it is piped"), log.clone());
        collect(child.stderr.take().expect("it is piped"), log.clone());
        Server { child, folder: Some(folder), electrum, log, started: Instant::now() }
    }
}

/// A running server; it is killed when dropped.
pub struct Server {
    child: Child,
    folder: Option<TempDir>,
    electrum: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    started: Instant,
}

impl Server {
    /// Where wallets connect.
    pub fn address(&self) -> SocketAddr {
        self.electrum
    }

    /// Its number among the system's processes.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The folder of blocks and index.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("it is kept until the server ends").path()
    }

    /// The folder as the server sees it, also when that is on a file system of its own.
    pub fn folder_inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(self.folder().strip_prefix("/").expect("an absolute path"))
    }

    /// A client that speaks 1.4, once the server listens.
    pub fn client(&mut self) -> Client {
        self.client_of(json!(["1.4", "1.4.3"]))
    }

    /// A client of this version, or of this range of versions.
    pub fn client_of(&mut self, protocol: serde_json::Value) -> Client {
        let address = self.electrum;
        self.wait_for("peerdex to listen", START, |_| super::connect(address).ok());
        Client::connect(address, protocol)
    }

    /// Waits until wallets are served from the block with this hash, as shown to people. How long it took
    /// since the start.
    pub fn wait_synced(&mut self, tip: &str, limit: Duration) -> Duration {
        let mut client = self.client();
        self.wait_for(&format!("block {tip} to be served"), limit, |_| {
            // Headers are served before the sync is done, histories are not.
            match client.history(&[]) {
                Ok(_) => {}
                // Or a reorg is just being published.
                Err(error) if error.code == 2 => return None,
                Err(error) => panic!("{error:?}"),
            }
            let (_, header) = client.tip().expect("the tip is always served");
            (sha256d::Hash::hash(&header).to_string() == tip).then_some(())
        });
        self.started.elapsed()
    }

    /// Waits, and panics with the log when the server ends or `limit` passes.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("peerdex ended with {status} before {what}; its log:\n{}", self.log());
            }
            assert!(start.elapsed() < limit, "waited {limit:?} for {what}; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a line of the log that holds all these words, in any case, and returns it.
    pub fn wait_for_log(&mut self, words: &[&str], limit: Duration) -> String {
        self.wait_for(&format!("a line with {words:?}"), limit, |server| server.log_line(words))
    }

    /// The first line of the log that holds all these words, in any case.
    pub fn log_line(&self, words: &[&str]) -> Option<String> {
        let has_all = |line: &&String| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(&word.to_lowercase()))
        };
        self.lock_log().iter().find(has_all).cloned()
    }

    /// All that it printed so far.
    pub fn log(&self) -> String {
        self.lock_log().join("\n")
    }

    fn lock_log(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most memory that it held so far, in bytes (VmHWM).
    pub fn peak_memory_bytes(&self) -> u64 {
        let path = PathBuf::from(format!("/proc/{}/status", self.child.id()));
        let status =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux counts memory");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
        kib * 1024
    }

    /// Sends a signal by its name, as `kill -NAME` does.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("there is a kill").success(), "kill -{name}");
    }

    /// Stops it with SIGTERM, as promised within ten seconds and with exit code 0; the folder remains.
    pub fn stop(mut self) -> TempDir {
        self.signal("TERM");
        let status = self.wait_for_end(STOP);
        assert!(status.success(), "peerdex ended with {status}; its log:\n{}", self.log());
        self.folder.take().expect("it is kept until the server ends")
    }

    /// Kills it as a power cut would; the folder remains.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
        self.folder.take().expect("it is kept until the server ends")
    }

    /// The folder of one that has ended.
    pub fn take_folder(&mut self) -> TempDir {
        self.folder.take().expect("it is kept until the server ends")
    }

    /// Waits until it ended by itself with exit code 1, and returns the line that holds all these words.
    pub fn wait_for_end_with_log(&mut self, words: &[&str]) -> String {
        assert_eq!(self.wait_for_end(START).code(), Some(1), "{}", self.log());
        super::wait_for(&format!("a line with {words:?}"), START, || self.log_line(words))
    }

    /// Waits until it ended by itself or by a signal.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let log = self.log.clone();
        let what = || log.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(start.elapsed() < limit, "peerdex did not end within {limit:?}; its log:\n{}", what());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of peerdex\n{}\n---", self.log());
        }
    }
}

/// Whether this is the answer of a server that has not finished its first sync.
pub fn is_syncing(error: &RpcError) -> bool {
    error.code == 2 && error.message.starts_with("server is syncing")
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            log.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            line.clear();
        }
    });
}
