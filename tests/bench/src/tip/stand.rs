//! A server of our own at the tip of a forged chain, and the peer that gives it more blocks.
//!
//! The synced store and the blocks to come stay in one folder, so that the next run goes on where this one ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::more::{More, more};
use crate::load::start::Server;
use crate::sync::chain::summary;
use crate::sync::peer::{Peer, Served, served};
use crate::sync::program::Program;
use crate::sync::watch::{Wallet, free_address};

/// Longest first sync.
const SYNC: Duration = Duration::from_secs(3 * 3600);

/// What to start, and on what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub program: PathBuf,
    /// Folder that the forge wrote.
    pub chain: PathBuf,
    /// The seed that it was forged with.
    pub seed: u64,
    pub data: PathBuf,
    /// Blocks that are to come, and the transactions in each if its weight allows; the latter as in earlier runs.
    pub blocks: usize,
    pub transactions: usize,
    /// `--memory`, in MB.
    pub memory: Option<u64>,
    /// Further arguments.
    pub extra: Vec<String>,
}

#[derive(Debug)]
pub struct Stand {
    pub server: Server,
    pub service: SocketAddr,
    pub peer: Peer,
    /// What the server has, by height.
    pub chain: Vec<Served>,
    /// What comes next; the peer does not tell of it yet.
    pub coming: Vec<Served>,
    /// Height of the last block of the chain that the forge wrote: the truth knows nothing of those after it.
    pub known: usize,
}

impl Stand {
    /// Starts both, and waits until the server is synced.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&plan.data)?;
        let mut chain = served(&plan.chain)?;
        let base = chain.len();
        let peer = Peer::start(chain.clone())?;
        let service = free_address()?;
        let log = plan.data.join("log");
        let _ = std::fs::remove_file(&log);
        let mut server = Server::start(&Program {
            program: plan.program.clone(),
            data: plan.data.join("peerdex"),
            peer: peer.address,
            service,
            memory: plan.memory,
            limit: None,
            log: Some(log),
            extra: plan.extra.clone(),
        })?;
        let began = Instant::now();
        let height = server.synced_height(service, SYNC)?;
        println!("synced to height {height} in {:.1} s", began.elapsed().as_secs_f64());
        // What an earlier run announced is there already.
        let done =
            (height + 1).checked_sub(base).context("the server is synced and has less than the chain")?;
        let mut coming = continuation(plan, done)?;
        chain.extend(coming.drain(..done));
        peer.follow(base - 1, chain[base..].to_vec());
        ensure!(
            Wallet::connect(service)?.synced_tip()? == Some(display(&chain[height])),
            "the server has another chain than {}",
            plan.chain.display()
        );
        Ok(Self { server, service, peer, chain, coming, known: base - 1 })
    }

    pub fn height(&self) -> usize {
        self.chain.len() - 1
    }

    /// Lets the peer tell of the next block; its height.
    pub fn announce(&mut self) -> anyhow::Result<(usize, Served)> {
        ensure!(!self.coming.is_empty(), "no more blocks are prepared");
        let block = self.coming.remove(0);
        self.peer.follow(self.height(), vec![block.clone()]);
        self.chain.push(block.clone());
        Ok((self.height(), block))
    }
}

/// The blocks after the chain: those that were announced before, and those to come.
fn continuation(plan: &Plan, done: usize) -> anyhow::Result<Vec<Served>> {
    if done + plan.blocks == 0 {
        return Ok(Vec::new());
    }
    let began = Instant::now();
    let wanted = More { seed: plan.seed, blocks: done + plan.blocks, transactions: plan.transactions };
    let summary = summary(&plan.chain)?;
    let blocks = more(&summary, &wanted, &plan.data.join("more"))?;
    println!(
        "{} blocks after the chain, {done} of them announced before; {:.1} s",
        blocks.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(blocks)
}

fn display(block: &Served) -> String {
    block.hash.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
