//! Starts a peerdex of its own to ask.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::sync::program::Program;
use crate::sync::watch::Wallet;

/// Between two questions whether it has synced.
const TICK: Duration = Duration::from_millis(200);

/// A running peerdex; it is told to end, and awaited, when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts on what data it has.
    pub fn start(program: &Program) -> anyhow::Result<Self> {
        Ok(Self { child: program.start()? })
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it answers for the chain that ends in `tip`.
    pub fn synced(&mut self, service: SocketAddr, tip: &str, patience: Duration) -> anyhow::Result<()> {
        self.until(service, patience, |wallet| {
            Ok((wallet.synced_tip()?.as_deref() == Some(tip)).then_some(()))
        })
    }

    /// Waits until it answers for any chain; the height of its tip.
    pub fn synced_height(&mut self, service: SocketAddr, patience: Duration) -> anyhow::Result<usize> {
        self.until(service, patience, |wallet| {
            if wallet.synced_tip()?.is_none() {
                return Ok(None);
            }
            let answer = wallet.call("blockchain.headers.subscribe", &json!([]))?;
            Ok(Some(answer["result"]["height"].as_u64().with_context(|| answer.to_string())? as usize))
        })
    }

    fn until<T>(
        &mut self,
        service: SocketAddr,
        patience: Duration,
        mut ask: impl FnMut(&mut Wallet) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        let mut wallet = None;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("peerdex ended with {status}");
            }
            if wallet.is_none() {
                wallet = Wallet::connect(service).ok();
            }
            if let Some(found) = wallet.as_mut().map(&mut ask).transpose()?.flatten() {
                return Ok(found);
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
