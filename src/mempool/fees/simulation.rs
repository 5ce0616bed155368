//! A market for block space: users whose demand changes, miners who take the best, and whoever wants to spoil the
//! estimates. Only for tests; seeded, so a bad run can be run again.
//!
//! Demand has waves of a day and a week, bursts, and nights in which blocks have room. Some parents are paid for by
//! their child, some transactions reach us only in a block, some are mined out of turn, miners work on what was there
//! some seconds ago, and one block in a hundred is empty. Users look at what was mined lately, not at our estimate.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use chainstore::Height;

use super::super::policy::FeeRate;
use super::{BlockFees, BlockTransaction, Covered, FeeEstimator, Mode};
use crate::time::Instant;

/// Virtual bytes of a block.
const ROOM: u64 = 997_000;
/// Seconds.
const DAY: f64 = 86_400.0;
/// The pool holds no more; what pays least has to go.
const POOL_CHUNKS: u32 = 3_000;
/// Satoshi per 1,000 vB; the bulk that waits and that nobody mines pays less.
pub(super) const BULK: u64 = 200;
const FLOOR: FeeRate = FeeRate(100);

/// What a spoiler does beside the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spam {
    None,
    /// Pays well, but miners have another transaction that spends the same: a tenth of a block more with each block.
    Conflicting,
    /// The same, and each is replaced over and over by one that pays more.
    Replacing,
    /// Fifty blocks at one to two times the least feerate, which miners do not take.
    Bulk,
}

/// A chunk that waits.
#[derive(Clone, Debug)]
struct Chunk {
    rate: FeeRate,
    fee: u64,
    vsize: u64,
    /// Fee and virtual bytes of a parent that the rest pays for.
    parent: Option<(u64, u64)>,
    at: f64,
    /// When the first that it replaced came.
    born: f64,
    /// Whether miners have it.
    mineable: bool,
    is_spam: bool,
    /// Whether we have it.
    known: bool,
}

/// One estimate, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) rate: FeeRate,
    pub(super) target: u16,
    pub(super) mode: Mode,
    /// The number of the block in which it was mined, counted from the next one.
    pub(super) mined_in: Option<u32>,
    /// Twentieth percentile of that block.
    pub(super) enough: FeeRate,
    age: u32,
}

pub(super) struct Market {
    pub(super) seed: u64,
    rng: fastrand::Rng,
    spammer: fastrand::Rng,
    spam: Spam,
    time: f64,
    height: u32,
    /// In descending order of feerate.
    pool: Vec<Chunk>,
    pub(super) estimator: FeeEstimator,
    /// What users take for the price, in satoshi per 1,000 vB.
    price: f64,
    burst_until: f64,
    burst: f64,
    open: Vec<Trial>,
    done: Vec<Trial>,
    /// Of each block, the estimate for six blocks made before it.
    pub(super) sixes: Vec<FeeRate>,
    pub(super) full: u32,
    pub(super) with_room: u32,
}

impl Market {
    pub(super) fn new(seed: u64, spam: Spam) -> Self {
        let mut market = Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            spammer: fastrand::Rng::with_seed(seed ^ 0x5ba6),
            spam,
            time: 0.0,
            height: 0,
            pool: Vec::new(),
            estimator: FeeEstimator::new(instant(0.0)),
            price: 2_000.0,
            burst_until: 0.0,
            burst: 1.0,
            open: Vec::new(),
            done: Vec::new(),
            sixes: Vec::new(),
            full: 0,
            with_room: 0,
        };
        if spam == Spam::Bulk {
            let bulk = (0..500).map(|_| {
                let rate = market.spammer.u64(100..BULK);
                Chunk { mineable: false, is_spam: true, ..chunk(FeeRate(rate), 100_000, 0.0) }
            });
            let bulk = bulk.collect();
            market.arrive(bulk);
        }
        market
    }

    /// Until the next block, and that block.
    pub(super) fn step(&mut self) {
        let interval = -(1.0 - self.rng.f64()).ln() * 600.0;
        let asked = self.time + interval * self.rng.f64();
        let template = self.time + (interval - 15.0).max(0.0);
        let end = self.time + interval;
        let mut arrivals = self.users(end);
        arrivals.extend(self.spam(end));
        arrivals.sort_by(|one, other| one.at.total_cmp(&other.at));
        let later = arrivals.split_off(arrivals.partition_point(|chunk| chunk.at < asked));
        self.arrive(arrivals);
        self.replace(asked);
        self.ask(asked);
        self.arrive(later);
        self.time = end;
        self.mine(template, asked < template);
    }

    /// What became of the estimates of that kind.
    pub(super) fn of(&self, target: u16, mode: Mode) -> impl Iterator<Item = &Trial> {
        self.done.iter().filter(move |trial| (trial.target, trial.mode) == (target, mode))
    }

    /// What users send until then.
    fn users(&mut self, until: f64) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut at = self.time;
        // A burst each day or two.
        if at > self.burst_until && self.rng.u8(0..200) == 0 {
            self.burst_until = at + 1_800.0 + self.rng.f64() * 9_000.0;
            self.burst = 1.5 + 2.0 * self.rng.f64();
        }
        // Who finds it too dear stays at home.
        let taste = (self.price / 3_000.0).powf(-0.3).clamp(0.3, 1.1);
        loop {
            let day = (at / DAY * std::f64::consts::TAU).sin();
            let week = (at / DAY / 7.0 * std::f64::consts::TAU).sin();
            let burst = if at < self.burst_until { self.burst } else { 1.0 };
            let per_second =
                0.88 * (1.0 + 0.6 * day) * (1.0 + 0.2 * week) * burst * taste * ROOM as f64 / 600.0;
            let chunk = self.user(at);
            // Until it is this one's turn.
            at += -(1.0 - self.rng.f64()).ln() * chunk.vsize as f64 / per_second;
            if at >= until {
                return chunks;
            }
            chunks.push(Chunk { at, born: at, ..chunk });
        }
    }

    fn user(&mut self, at: f64) -> Chunk {
        let vsize = match self.rng.u8(0..20) {
            0 => self.rng.u64(8_000..40_000),
            1..4 => self.rng.u64(1_000..5_000),
            _ => self.rng.u64(200..1_500),
        };
        // Sum of twelve: about a normal distribution.
        let normal = (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0;
        let wanted = match self.rng.u8(0..10) {
            // Who can wait.
            0..2 => self.price * (0.35 + 0.4 * self.rng.f64()),
            // Who cannot.
            2 => self.price * (1.5 + 2.0 * self.rng.f64()),
            _ => self.price * (0.35 * normal).exp(),
        };
        // Many choose whole numbers.
        let wanted =
            if wanted > 1_000.0 && self.rng.bool() { (wanted / 1_000.0).ceil() * 1_000.0 } else { wanted };
        let mut chunk = chunk(FeeRate(wanted.clamp(100.0, 5e6) as u64), vsize, at);
        if self.rng.u8(0..10) == 0 && vsize > 600 {
            // The parent alone would have stayed where it was.
            let parent = vsize / 2;
            chunk.parent = Some((FLOOR.fee(parent).min(chunk.fee / 2), parent));
        }
        chunk.known = self.rng.u8(0..100) > 0;
        chunk
    }

    fn spam(&mut self, until: f64) -> Vec<Chunk> {
        if !matches!(self.spam, Spam::Conflicting | Spam::Replacing) {
            return Vec::new();
        }
        let at = self.time + (until - self.time) * self.spammer.f64();
        let rate = FeeRate((self.price * (1.2 + self.spammer.f64())) as u64 + 200);
        vec![Chunk { mineable: false, is_spam: true, ..chunk(rate, 100_000, at) }]
    }

    /// Each transaction of the spoiler gives way six times a block to one that pays more.
    fn replace(&mut self, now: f64) {
        if self.spam != Spam::Replacing {
            return;
        }
        for chunk in self.pool.iter_mut().filter(|chunk| !chunk.mineable) {
            for _ in 0..6 {
                chunk.rate = FeeRate(chunk.rate.0 + chunk.rate.0 / 50 + 100);
                chunk.fee = chunk.rate.fee(chunk.vsize);
                chunk.at = now;
            }
        }
        self.pool.sort_by_key(|chunk| std::cmp::Reverse(chunk.rate));
    }

    fn arrive(&mut self, chunks: Vec<Chunk>) {
        for chunk in chunks.iter().filter(|chunk| chunk.known) {
            self.estimator.admitted(instant(chunk.at), chunk.rate, chunk.vsize);
        }
        self.pool.extend(chunks);
        self.pool.sort_by_key(|chunk| std::cmp::Reverse(chunk.rate));
    }

    fn ask(&mut self, now: f64) {
        let pool = &self.pool;
        let known = || pool.iter().filter(|chunk| chunk.known).map(|chunk| (chunk.fee, chunk.vsize));
        self.estimator.refresh(instant(now), known);
        let questions = [
            (2, Mode::Economical),
            (2, Mode::Conservative),
            (6, Mode::Economical),
            (24, Mode::Economical),
            (144, Mode::Economical),
        ];
        for (target, mode) in questions {
            let Some(rate) = self.estimator.estimate(target, mode, FLOOR) else { continue };
            self.open.push(Trial { rate, target, mode, mined_in: None, enough: FeeRate(0), age: 0 });
        }
        self.sixes.push(self.estimator.estimate(6, Mode::Economical, FLOOR).unwrap_or_default());
    }

    /// The next block, of what was there at `template`.
    fn mine(&mut self, template: f64, asked_in_time: bool) {
        self.height += 1;
        let is_empty = self.rng.u8(0..100) == 0;
        let out_of_turn = (0..3).map(|_| self.rng.u64(0..4_000)).collect::<Vec<_>>();
        let mut block: Vec<Chunk> = Vec::new();
        let (mut room, mut least) = (ROOM, FeeRate(0));
        if !is_empty {
            room -= out_of_turn.iter().sum::<u64>();
            let mut is_full = false;
            self.pool.retain(|chunk| {
                if !chunk.mineable || chunk.at > template || is_full {
                    return true;
                }
                if chunk.vsize > room {
                    // A miner looks on for what still fits, but not for ever.
                    is_full = room < 4_000;
                    return true;
                }
                room -= chunk.vsize;
                least = chunk.rate;
                block.push(chunk.clone());
                false
            });
            block.extend(out_of_turn.iter().map(|vsize| chunk(FeeRate(100), vsize + 100, 0.0)));
        }
        let is_full = room < 10_000;
        let needed = if is_full { FeeRate(least.0 + 1) } else { FLOOR };
        self.full += u32::from(is_full);
        self.with_room += u32::from(!is_full && !is_empty);
        let height = self.height;
        let (estimator, time) = (&mut self.estimator, self.time);
        self.pool.retain(|chunk| {
            let stays = chunk.mineable || chunk.rate.0 < BULK || time - chunk.born < 7_200.0;
            if !stays {
                estimator.dropped(chunk.rate, chunk.vsize);
            }
            stays
        });
        let mut users = 0;
        self.pool.retain(|chunk| {
            users += u32::from(!chunk.is_spam);
            chunk.is_spam || users <= POOL_CHUNKS
        });

        let fees = fees_of(height, &block);
        self.follow(&fees, (!is_empty).then_some(needed), asked_in_time);
        if !is_empty {
            let wanted = if is_full { least.0 as f64 * 1.3 } else { self.price * 0.6 };
            self.price = (self.price * 0.7 + wanted * 0.3).max(100.0);
        }
        let weight = |chunk: &Chunk| 4 * chunk.vsize;
        let covered = Covered {
            had: block.iter().filter(|chunk| chunk.known && chunk.at > 0.0).map(weight).sum(),
            all: block.iter().map(weight).sum(),
        };
        let left = self.pool.iter().filter(|chunk| chunk.known).map(|chunk| (chunk.fee, chunk.vsize));
        self.estimator.block_connected(instant(self.time), fees, covered, left);
    }

    /// Which estimates were good enough for a block that took whatever paid at least `needed`.
    fn follow(&mut self, fees: &BlockFees, needed: Option<FeeRate>, asked_in_time: bool) {
        for trial in &mut self.open {
            // Who asked after the miners' last look cannot be in this block.
            let is_late = trial.age == 0 && !asked_in_time;
            trial.age += 1;
            let Some(needed) = needed.filter(|_| !is_late) else { continue };
            if trial.mined_in.is_none() && trial.rate >= needed {
                trial.mined_in = Some(trial.age);
                trial.enough = fees.enough();
            }
        }
        let is_done = |trial: &Trial| trial.age > u32::from(trial.target);
        self.done.extend(self.open.iter().filter(|trial| is_done(trial)).cloned());
        self.open.retain(|trial| !is_done(trial));
    }
}

fn chunk(rate: FeeRate, vsize: u64, at: f64) -> Chunk {
    Chunk {
        rate,
        fee: rate.fee(vsize),
        vsize,
        parent: None,
        at,
        born: at,
        mineable: true,
        is_spam: false,
        known: true,
    }
}

fn fees_of(height: u32, chunks: &[Chunk]) -> BlockFees {
    let mut transactions = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let (mut fee, mut vsize, mut parents) = (chunk.fee, chunk.vsize, Vec::new());
        if let Some((parents_fee, parents_vsize)) = chunk.parent {
            parents.push(transactions.len());
            transactions.push(BlockTransaction {
                fee: parents_fee,
                weight: 4 * parents_vsize,
                parents: vec![],
            });
            fee -= parents_fee;
            vsize -= parents_vsize;
        }
        transactions.push(BlockTransaction { fee, weight: 4 * vsize, parents });
    }
    BlockFees::of_transactions(BlockHash::hash(&height.to_le_bytes()), Height(height), &transactions)
}

fn instant(seconds: f64) -> Instant {
    Instant::from_start(std::time::Duration::from_secs_f64(seconds))
}
