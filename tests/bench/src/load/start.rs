//! Starts a peerdex of its own to ask.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::sync::watch::Wallet;

/// Between two questions whether it has synced.
const TICK: Duration = Duration::from_millis(200);

/// A running peerdex; it is told to end, and awaited, when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts on the data of `folder`, with the one peer.
    pub fn start(
        program: &Path,
        folder: &Path,
        peer: SocketAddr,
        service: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--network", "regtest", "--min-chain-work", "0"]);
        command.args(["--connect", &peer.to_string()]).arg("--data-dir").arg(folder);
        command.args(["--service", &format!("tcp://{service}")]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PEERDEX_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn().with_context(|| program.display().to_string())? })
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it answers for the chain that ends in `tip`.
    pub fn synced(&mut self, service: SocketAddr, tip: &str, patience: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut wallet = None;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("peerdex ended with {status}");
            }
            if wallet.is_none() {
                wallet = Wallet::connect(service).ok();
            }
            let seen = wallet.as_mut().map(Wallet::synced_tip).transpose()?.flatten();
            if seen.as_deref() == Some(tip) {
                return Ok(());
            }
            if start.elapsed() > patience {
                bail!(
                    "peerdex has not synced in {} s: it needs a --peer that has the chain",
                    patience.as_secs()
                );
            }
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.process().to_string()]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
