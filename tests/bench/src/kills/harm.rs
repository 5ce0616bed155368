//! Rounds of kills: each begins with an empty folder and goes through every phase of a server's life.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::aim::{Aim, FIRST, LATER};
use super::check;
use super::model::Model;
use super::sample::sample;
use super::server::{Phase, Server};
use super::tally::Tally;
use super::world::World;
use crate::sync::peer::{Peer, Served};
use crate::sync::program::Program;
use crate::sync::watch::free_address;

/// Small limits of the store, and lines about merges.
const EXTRA: [&str; 3] = ["--miniature", "--log", "debug"];
/// First blocks of a round, above the hundred that only fund.
const BLOCKS: std::ops::Range<usize> = 200..400;
/// Depths of reorgs: around the 20 deltas that a store with small limits keeps, and far below them.
const DEPTHS: [usize; 12] = [1, 2, 3, 6, 15, 20, 21, 34, 60, 100, 200, 320];
/// Of so many kills at the tip, one is followed by a comparison.
const CHECK_EVERY: u32 = 4;
/// Blocks within which a merge must come.
const MERGE_WITHIN: usize = 40;

#[derive(Clone, Debug)]
pub struct Plan {
    pub kills: u32,
    pub seed: u64,
    pub peerdex: PathBuf,
    /// Must be empty; kept if something fails.
    pub folder: PathBuf,
    /// Longest wait for anything.
    pub patience: Duration,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tally: Tally,
    pub rounds: u32,
    pub comparisons: u32,
    pub deepest_reorg: usize,
}

/// Kills as often as planned. An error says what was found wrong, and where.
pub fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut took = HashMap::new();
    while outcome.tally.total() < plan.kills {
        let round = outcome.rounds;
        let folder = plan.folder.join(format!("round-{round}"));
        let mut harm = Harm::new(plan, &folder, round, took)?;
        let done = harm.round(&mut outcome);
        done.with_context(|| {
            format!(
                "seed {}, round {round}, after {} kills of {:?}, aiming at {:?}, folder {}",
                plan.seed,
                outcome.tally.total(),
                plan.kills,
                harm.aim,
                folder.display()
            )
        })?;
        took = harm.took;
        outcome.rounds += 1;
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(outcome)
}

struct Harm<'a> {
    plan: &'a Plan,
    rng: fastrand::Rng,
    world: World,
    peer: Peer,
    data: PathBuf,
    log: PathBuf,
    /// Longest that a phase was seen to take, in seconds; switching for each block.
    took: HashMap<Phase, f64>,
    /// From a block's announcement until the tip changed, in seconds.
    block_took: f64,
    /// From a branch's announcement until it is gone over to, for each block.
    fetch_took: f64,
    aim: Option<Aim>,
    /// Whether the last thing announced was a branch.
    reorging: bool,
}

impl<'a> Harm<'a> {
    fn new(plan: &'a Plan, folder: &Path, round: u32, took: HashMap<Phase, f64>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let seed = plan.seed.wrapping_mul(1_000).wrapping_add(round.into());
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new(seed, 100 + rng.usize(BLOCKS), folder)?;
        let peer = Peer::start(world.chain.clone())?;
        let (data, log) = (folder.join("data"), folder.join("log"));
        Ok(Self {
            plan,
            rng,
            world,
            peer,
            data,
            log,
            took,
            block_took: 0.05,
            fetch_took: 0.005,
            aim: None,
            reorging: false,
        })
    }

    fn round(&mut self, outcome: &mut Outcome) -> anyhow::Result<()> {
        if outcome.rounds == 0 {
            self.undisturbed()?;
            outcome.comparisons += 1;
        }
        let mut later = LATER;
        self.rng.shuffle(&mut later);
        for aim in FIRST.into_iter().chain(later) {
            if outcome.tally.total() >= self.plan.kills {
                break;
            }
            self.aim = Some(aim);
            let server = match aim {
                Aim::Opening => self.at_opening()?,
                Aim::Bulk => self.in_bulk()?,
                Aim::BulkEnd => self.at_bulk_end()?,
                Aim::CatchingUp => self.catching_up()?,
                Aim::Tip => self.at_tip()?,
                Aim::Merge => self.in_merge()?,
                Aim::Reorg => self.in_reorg(&mut outcome.deepest_reorg)?,
            };
            outcome.tally.add(self.hit(&server.kill()?));
            if self.aim.is_some_and(|aim| LATER.contains(&aim)) && self.rng.u32(..CHECK_EVERY) == 0 {
                self.compare()?;
                outcome.comparisons += 1;
            }
        }
        self.compare()?;
        outcome.comparisons += 1;
        self.aim = None;
        Ok(())
    }

    /// A sync that nobody kills, some blocks, merges and a reorg: what they take, and that all is right then.
    fn undisturbed(&mut self) -> anyhow::Result<()> {
        let mut server = self.start()?;
        for phase in [Phase::Opening, Phase::Bulk, Phase::BulkEnd, Phase::CatchingUp] {
            self.learn(&mut server, phase)?;
        }
        self.reach(&mut server)?;
        for _ in 0..MERGE_WITHIN {
            if self.block(&mut server)? {
                self.learn(&mut server, Phase::Merging)?;
                break;
            }
        }
        self.branch(10)?;
        let announced = Instant::now();
        ensure!(self.until(&mut server, Phase::Switching)?, "no reorg");
        self.fetch_took = announced.elapsed().as_secs_f64() / 10.0;
        self.learn(&mut server, Phase::Switching)?;
        *self.took.entry(Phase::Switching).or_default() /= 10.0;
        self.reach(&mut server)?;
        server.stop()?;
        let model = Model::of(&self.world.chain)?;
        check::folder(&self.data, &model, &self.world.universe).context("nobody was killed yet")?;
        self.wipe()
    }

    fn start(&self) -> anyhow::Result<Server> {
        let program = Program {
            program: self.plan.peerdex.clone(),
            data: self.data.clone(),
            peer: self.peer.address,
            service: free_address()?,
            memory: None,
            limit: None,
            log: None,
            extra: EXTRA.map(str::to_owned).to_vec(),
        };
        Server::start(&program, &self.log)
    }

    fn wipe(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_dir_all(&self.data)?)
    }

    fn tip(&self) -> String {
        display(&self.world.chain[self.world.height()])
    }

    fn reach(&mut self, server: &mut Server) -> anyhow::Result<()> {
        self.reorging = false;
        server.reach(&self.tip(), self.plan.patience)
    }

    /// Until it is at this phase, or at the tip; whether it is.
    fn until(&self, server: &mut Server, phase: Phase) -> anyhow::Result<bool> {
        let tip = self.tip();
        let there = server.until(self.plan.patience, |server| {
            server.seen.phase == phase
                || server.seen.phase == Phase::Tip && server.tip.as_deref() == Some(tip.as_str())
        })?;
        ensure!(there, "neither {phase:?} nor the tip is reached, but {:?}", server.seen.phase);
        Ok(server.seen.phase == phase)
    }

    /// Notes how long it stays in this phase, if it is in it.
    fn learn(&mut self, server: &mut Server, phase: Phase) -> anyhow::Result<()> {
        if server.seen.phase != phase {
            return Ok(());
        }
        let since = server.seen.since;
        let left = server.until(self.plan.patience, |server| server.seen.phase != phase)?;
        ensure!(left, "{phase:?} does not end");
        let seconds = server.seen.since.saturating_duration_since(since).as_secs_f64();
        let longest = self.took.entry(phase).or_default();
        *longest = longest.max(seconds);
        Ok(())
    }

    /// Waits for a random part of what this takes, and a little more.
    fn some_of(&mut self, server: &mut Server, seconds: f64) -> anyhow::Result<()> {
        let wait = Duration::from_secs_f64(self.rng.f64() * (seconds * 1.1 + 0.001));
        server.until(wait, |_| false).map(drop)
    }

    fn some_of_phase(&mut self, server: &mut Server, phase: Phase) -> anyhow::Result<()> {
        let seconds = self.took.get(&phase).copied().unwrap_or(0.1);
        self.some_of(server, seconds)
    }

    fn at_opening(&mut self) -> anyhow::Result<Server> {
        let mut server = self.start()?;
        self.some_of_phase(&mut server, Phase::Opening)?;
        Ok(server)
    }

    fn in_bulk(&mut self) -> anyhow::Result<Server> {
        let mut server = self.start_in(Phase::Bulk)?;
        self.some_of_phase(&mut server, Phase::Bulk)?;
        Ok(server)
    }

    fn at_bulk_end(&mut self) -> anyhow::Result<Server> {
        let mut server = self.start_in(Phase::BulkEnd)?;
        self.some_of_phase(&mut server, Phase::BulkEnd)?;
        Ok(server)
    }

    /// Starts until it is in a phase of the first sync. A folder that is past it is compared and begun anew.
    fn start_in(&mut self, phase: Phase) -> anyhow::Result<Server> {
        for _ in 0..2 {
            let mut server = self.start()?;
            if self.until(&mut server, phase)? {
                return Ok(server);
            }
            server.stop()?;
            self.compare_folder()?;
            self.wipe()?;
        }
        bail!("a first sync does not come to {phase:?}")
    }

    fn catching_up(&mut self) -> anyhow::Result<Server> {
        let mut server = self.start_in(Phase::CatchingUp)?;
        self.some_of_phase(&mut server, Phase::CatchingUp)?;
        Ok(server)
    }

    /// Announces the next block.
    fn announce(&mut self) -> anyhow::Result<()> {
        let height = self.world.height();
        let blocks = self.world.grow(1)?.to_vec();
        self.peer.follow(height, blocks);
        Ok(())
    }

    /// A block that nobody disturbs; whether a merge began with it.
    fn block(&mut self, server: &mut Server) -> anyhow::Result<bool> {
        let began = Instant::now();
        self.announce()?;
        let tip = self.tip();
        let come = server.until(self.plan.patience, |server| {
            server.seen.phase == Phase::Merging || server.tip.as_deref() == Some(tip.as_str())
        })?;
        ensure!(come, "the block at height {} is not taken", self.world.height());
        self.block_took = self.block_took * 0.8 + began.elapsed().as_secs_f64() * 0.2;
        // The writer says that it merges about when the loop says that the tip changed.
        server.until(Duration::from_millis(2), |server| server.seen.phase == Phase::Merging)
    }

    fn at_tip(&mut self) -> anyhow::Result<Server> {
        let mut server = self.start()?;
        self.reach(&mut server)?;
        for _ in 0..self.rng.u32(0..4) {
            self.block(&mut server)?;
            self.reach(&mut server)?;
        }
        self.announce()?;
        let seconds = self.block_took;
        self.some_of(&mut server, seconds)?;
        Ok(server)
    }

    fn in_merge(&mut self) -> anyhow::Result<Server> {
        let mut server = self.start()?;
        self.reach(&mut server)?;
        for _ in 0..MERGE_WITHIN {
            if self.block(&mut server)? {
                self.some_of_phase(&mut server, Phase::Merging)?;
                return Ok(server);
            }
            self.reach(&mut server)?;
        }
        bail!("no merge within {MERGE_WITHIN} blocks")
    }

    /// Goes over to a branch that leaves the chain so many blocks below the tip.
    fn branch(&mut self, depth: usize) -> anyhow::Result<()> {
        let other = self.rng.bool().then(|| self.rng.u64(..));
        self.world.fork(depth, other)?;
        let fork = self.world.height();
        let blocks = self.world.grow(depth + self.rng.usize(1..4))?.to_vec();
        self.peer.follow(fork, blocks);
        self.reorging = true;
        Ok(())
    }

    fn in_reorg(&mut self, deepest: &mut usize) -> anyhow::Result<Server> {
        let mut server = self.start()?;
        self.reach(&mut server)?;
        let depth = self.rng.choice(DEPTHS).unwrap_or(1).min(self.world.height() - 1);
        *deepest = depth.max(*deepest);
        self.branch(depth)?;
        let announced = Instant::now();
        if self.rng.bool() {
            let fetching = self.fetch_took * depth as f64;
            self.some_of(&mut server, fetching)?;
        } else if self.until(&mut server, Phase::Switching)? {
            let took = server.seen.since.saturating_duration_since(announced).as_secs_f64();
            self.fetch_took = self.fetch_took * 0.5 + took / depth as f64 * 0.5;
            let switching = self.took.get(&Phase::Switching).copied().unwrap_or(0.01) * depth as f64;
            self.some_of(&mut server, switching)?;
        }
        Ok(server)
    }

    /// What a killed server was at.
    fn hit(&self, server: &Server) -> usize {
        match server.seen.phase {
            Phase::Opening => 0,
            Phase::Started => 1,
            Phase::Bulk => 2,
            Phase::BulkEnd => 3,
            Phase::CatchingUp => 4,
            Phase::Tip if server.tip.as_deref() == Some(self.tip().as_str()) => 6,
            Phase::Tip if self.reorging => 8,
            Phase::Tip => 5,
            Phase::Merging => 7,
            Phase::Switching => 9,
        }
    }

    /// Starts, asks at the tip, ends one way or the other, and looks into the folder.
    fn compare(&mut self) -> anyhow::Result<()> {
        let mut server = self.start()?;
        self.reach(&mut server)?;
        let model = Model::of(&self.world.chain)?;
        check::wallet(server.service, &model, &sample(&self.world, &mut self.rng)?)?;
        if self.rng.bool() {
            server.stop()?;
        } else {
            drop(server.kill()?);
        }
        check::folder(&self.data, &model, &self.world.universe)
    }

    fn compare_folder(&self) -> anyhow::Result<()> {
        check::folder(&self.data, &Model::of(&self.world.chain)?, &self.world.universe)
    }
}

fn display(block: &Served) -> String {
    block.hash.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}
