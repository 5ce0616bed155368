//! One sync of peerdex from an empty folder, timed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::program::{self, Program};
use super::watch::{self, Wallet};

/// Between two questions whether the sync is done.
const TICK: Duration = Duration::from_millis(50);
/// Longest wait for the end after SIGTERM.
const STOP: Duration = Duration::from_secs(120);

/// What the program is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// `--memory`, in MB.
    pub memory: Option<u64>,
    /// As in [`Program`], in bytes.
    pub limit: Option<u64>,
}

/// What was seen.
#[derive(Debug)]
pub struct Sync {
    pub wall: Duration,
    /// Processor seconds when the sync was done.
    pub cpu: f64,
    /// Until the process had ended, after SIGTERM; and its processor seconds for that.
    pub stop: Duration,
    pub stop_cpu: f64,
    pub peak_memory: u64,
    /// Bytes on disk after the end, by name.
    pub disk: BTreeMap<String, u64>,
}

struct Running {
    child: Child,
    folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn last_words(&self) -> String {
        program::last_words(&self.folder.path().join("log"))
    }

    fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("peerdex ended with {status}:\n{}", self.last_words());
        }
        Ok(())
    }
}

/// Syncs from `source` until `tip` is served, and stops.
pub fn sync(program: &Path, source: SocketAddr, settings: &Settings, tip: &str) -> anyhow::Result<Sync> {
    let folder = TempDir::new()?;
    let data = folder.path().join("data");
    let service = watch::free_address()?;
    let log = folder.path().join("log");
    let starting = Program {
        program: program.into(),
        data: data.clone(),
        peer: source,
        service,
        memory: settings.memory,
        limit: settings.limit,
        log: Some(log),
        extra: Vec::new(),
    };
    let start = Instant::now();
    let child = starting.start()?;
    let process = child.id();
    let mut running = Running { child, folder };

    let mut wallet = loop {
        running.check()?;
        match Wallet::connect(service) {
            Ok(wallet) => break wallet,
            Err(_) => std::thread::sleep(TICK),
        }
    };
    let mut seen = None;
    while seen.as_deref() != Some(tip) {
        std::thread::sleep(TICK);
        running.check()?;
        seen = wallet.synced_tip().with_context(|| running.last_words())?;
    }
    let wall = start.elapsed();
    let (cpu, _) = watch::cpu(process)?;
    let peak_memory = watch::peak_memory(process)?;

    let stopped = Instant::now();
    ensure!(Command::new("kill").args(["-TERM", &process.to_string()]).status()?.success(), "no SIGTERM");
    // What ended still tells its processor time until it is waited for.
    let all_cpu = loop {
        let (cpu, ended) = watch::cpu(process)?;
        if ended {
            break cpu;
        }
        ensure!(stopped.elapsed() < STOP, "peerdex does not stop:\n{}", running.last_words());
        std::thread::sleep(TICK / 5);
    };
    let stop = stopped.elapsed();
    let status = running.child.wait()?;
    ensure!(status.success(), "peerdex ended with {status}:\n{}", running.last_words());
    let disk = watch::disk_usage(&data)?;
    Ok(Sync { wall, cpu, stop, stop_cpu: all_cpu - cpu, peak_memory, disk })
}
