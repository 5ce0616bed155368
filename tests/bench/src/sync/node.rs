//! The other side of the sync: a replay peer, or a real node that has the chain already.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::watch::{self, connect, free_address};

/// What peerdex syncs from; it ends when dropped.
#[derive(Debug)]
pub struct Source {
    pub address: SocketAddr,
    child: Child,
    /// A node's data.
    _folder: Option<TempDir>,
}

impl Source {
    /// This program once more, as a replay peer.
    pub fn replay(chain: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(chain)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the replay peer did not start")?;
        Ok(Self { address, child, _folder: None })
    }

    /// A real node: loads the chain, ends, and starts again to listen.
    pub fn node(program: &Path, chain: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let command = || {
            let mut command = Command::new(program);
            command.arg("-regtest").arg(format!("-datadir={}", folder.path().display()));
            command.args(["-connect=0", "-dnsseed=0", "-listenonion=0", "-server=0", "-printtoconsole=0"]);
            command.args(["-dbcache=1000", "-disablewallet"]).stdin(Stdio::null());
            command
        };
        let status = command()
            .arg(format!("-loadblock={}", chain.join("blocks.dat").display()))
            .args(["-listen=0", "-stopafterblockimport"])
            .status()
            .with_context(|| program.display().to_string())?;
        ensure!(status.success(), "the node ended with {status} while it loaded the chain");
        let address = free_address()?;
        let child = command().arg("-listen=1").arg(format!("-bind={address}")).spawn()?;
        let mut source = Self { address, child, _folder: Some(folder) };
        while connect(address).is_err() {
            ensure!(source.child.try_wait()?.is_none(), "the node ended instead of listening");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(source)
    }

    /// Its processor seconds so far.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        Ok(watch::cpu(self.child.id())?.0)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
