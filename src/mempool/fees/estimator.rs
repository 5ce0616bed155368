//! The estimate: what the pool tells, held against what the last blocks tell.
//!
//! The pool knows what the next blocks will be filled with, and the blocks know what was really mined. So the pool
//! decides for short waits, within bounds that the blocks set, and the blocks for long ones. As long as the pool lacks
//! much of what is mined, as after a start, it is not asked at all.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::BlockHash;
use chainstore::Height;

use super::super::policy::FeeRate;
use super::bands::{self, BANDS, Inflow, PerBand};
use super::block::{BlockFees, Covered, Fill};
use super::history::History;
use super::outlook::{Outlook, Patience};
use crate::time::Instant;

/// The longest wait, in blocks, that is told apart (Bitcoin Core: the longest horizon).
pub const MAX_TARGET: u16 = 1_008;
/// The targets for which an estimate is made; another one is answered with that of the next shorter one.
const TARGETS: [u16; 36] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 30, 36, 48, 72,
    96, 144, 216, 288, 432, 504, 720, 1_008,
];
/// Up to here the pool decides; from the second on, the blocks alone.
const POOL_DECIDES: u16 = 6;
const BLOCKS_DECIDE: u16 = 24;

/// Over so long what comes in is averaged: bursts take tens of minutes, and a single block is no trend.
const INFLOW_TIME: Duration = Duration::from_secs(20 * 60);
/// The same of what is found to be passed over: that is learnt only by blocks.
const PASSED_OVER_TIME: Duration = Duration::from_secs(60 * 60);

/// An answer may be this old while the pool moves.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Blocks by which the pool's completeness is judged.
const COVERED_BLOCKS: usize = 3;
/// Share of those blocks' weight that we must have had.
const WARM: f64 = 0.90;
/// Virtual bytes that wait when a block leaves room although it could have taken them: its miner did not look.
const OVERLOOKED: f64 = 250_000.0;
/// Weight of a block whose miner did look.
const LOOKED: u64 = 2_000_000;
/// How late blocks may be for an economical estimate: four of five pairs come sooner; and for a conservative one: nine
/// of ten.
const USUAL: Patience = Patience(0.8);
const LATE: Patience = Patience(1.2);
/// For how many of those who came in the last days it must have been enough.
const MOST: f64 = 0.90;
const NEARLY_ALL: f64 = 0.97;
/// A conservative estimate falls no faster than what was paid over so many blocks.
const LATELY: u16 = 12;
/// The blocks that bound what the pool says.
const BOUNDING_BLOCKS: usize = 6;

/// How an estimate errs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Follows the mempool.
    Economical,
    /// Falls slowly, and reckons with late blocks.
    Conservative,
}

/// See the module.
#[derive(Debug)]
pub struct FeeEstimator {
    history: History,
    inflow: Inflow,
    /// Of the last blocks, the newest at the back.
    covered: VecDeque<Covered>,
    passed_over: PassedOver,
    /// For each of [`TARGETS`], economical and conservative; `None` without data.
    table: Option<Vec<(FeeRate, FeeRate)>>,
    /// When the table was made; `None` when something has changed since that cannot wait.
    made: Option<Instant>,
}

impl FeeEstimator {
    pub fn new(now: Instant) -> Self {
        Self::with(now, History::default())
    }

    pub(super) fn with(now: Instant, history: History) -> Self {
        Self {
            history,
            inflow: Inflow::new(now, INFLOW_TIME),
            covered: VecDeque::new(),
            passed_over: PassedOver::new(now),
            table: None,
            made: None,
        }
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// A transaction was admitted. Not one that was read from a dump, and not one that replaced another: the demand is
    /// that of the first, however often it is replaced.
    pub fn admitted(&mut self, now: Instant, rate: FeeRate, vsize: u64) {
        self.inflow.add(now, rate, vsize);
    }

    /// A transaction left the pool without being mined or replaced: a block conflicts with it, it was evicted, or it is
    /// too old.
    pub fn dropped(&mut self, rate: FeeRate, vsize: u64) {
        self.passed_over.dropped(rate, vsize);
    }

    /// A block was connected. `pool` has the chunks (fee in satoshi, virtual bytes) that are left without it.
    pub fn block_connected(
        &mut self,
        now: Instant,
        mut fees: BlockFees,
        covered: Covered,
        pool: impl Iterator<Item = (u64, u64)>,
    ) {
        let left = bands::spread(pool);
        if fees.fill == Fill::Room && self.is_warm() && self.passed_over.added_by(&left) > OVERLOOKED {
            // Something waits and was not taken: it pays less than this miner asks for, or he did not look.
            fees.fill = if fees.weight < LOOKED { Fill::Nothing } else { Fill::Full };
            fees.enough = fees.least;
        }
        match fees.fill {
            Fill::Nothing => {}
            Fill::Full => self.passed_over.block_connected(now, fees.enough, left),
            Fill::Room => self.passed_over.block_connected(now, FeeRate(0), left),
        }
        if covered.all > 0 {
            self.covered.push_back(covered);
            while self.covered.len() > COVERED_BLOCKS {
                self.covered.pop_front();
            }
        }
        self.history.push(fees);
        self.made = None;
    }

    /// The newest block was disconnected.
    pub fn block_disconnected(&mut self, hash: &BlockHash) {
        if self.history.pop(hash) {
            self.made = None;
        }
    }

    /// The newest block that it knows; after a restart the chain may have gone on without it, or elsewhere.
    pub fn tip(&self) -> Option<(Height, BlockHash)> {
        self.history.last()
    }

    /// Share of the last blocks, by weight, that the pool had before they came. `None` before any came.
    pub fn coverage(&self) -> Option<f64> {
        let all: u64 = self.covered.iter().map(|covered| covered.all).sum();
        let had: u64 = self.covered.iter().map(|covered| covered.had).sum();
        (all > 0).then(|| had as f64 / all as f64)
    }

    /// Whether the pool is complete enough to be asked.
    pub fn is_warm(&self) -> bool {
        self.covered.len() == COVERED_BLOCKS && self.coverage().is_some_and(|share| share >= WARM)
    }

    /// Whether [`refresh`](Self::refresh) would do anything.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.made.is_none_or(|made| now.saturating_since(made) >= MAX_AGE)
    }

    /// Makes the estimates anew if they are older than some seconds, or a block came. `pool` gives its chunks (fee in
    /// satoshi, virtual bytes).
    pub fn refresh<P: Iterator<Item = (u64, u64)>>(&mut self, now: Instant, pool: impl FnOnce() -> P) {
        if !self.is_stale(now) {
            return;
        }
        self.made = Some(now);
        let outlook = self.is_warm().then(|| {
            let (mut waiting, mut coming) = (bands::spread(pool()), self.inflow.per_second(now));
            bands::add_up(&mut waiting);
            bands::add_up(&mut coming);
            Outlook::new(self.passed_over.without(waiting), self.passed_over.without_more(now, coming))
        });
        let has_history = self.history.is_enough();
        self.table = match (&outlook, has_history) {
            (None, false) => None,
            (_, _) => Some(table(outlook.as_ref(), has_history.then_some(&self.history))),
        };
    }

    /// The feerate for being mined within `target` blocks, at least `floor`, as of the last
    /// [`refresh`](Self::refresh). A target of 0 counts as 1, one over [`MAX_TARGET`] as that.
    ///
    /// `None` without data: fewer than six blocks, and a pool that is not complete.
    pub fn estimate(&self, target: u16, mode: Mode, floor: FeeRate) -> Option<FeeRate> {
        let place = TARGETS.partition_point(|made| *made <= target).saturating_sub(1);
        let (economical, conservative) = self.table.as_ref()?.get(place)?;
        let rate = match mode {
            Mode::Economical => *economical,
            Mode::Conservative => *conservative,
        };
        Some(rate.max(floor))
    }
}

/// An estimate for each target in both modes, none higher than that for a shorter wait.
fn table(outlook: Option<&Outlook>, history: Option<&History>) -> Vec<(FeeRate, FeeRate)> {
    let pool = |late| outlook.map(|outlook| outlook.enough_within(usize::from(BLOCKS_DECIDE), late));
    let (usual, late) = (pool(USUAL), pool(LATE));
    // What the pool tells for the longest wait that it can look ahead holds for each longer one.
    let told = |pool: &Option<Vec<FeeRate>>, target: u16| {
        pool.as_ref().and_then(|pool| pool.get(usize::from(target) - 1).or(pool.last()).copied())
    };
    let lately = |target: u16| {
        history.map_or(FeeRate(0), |history| {
            let [lately] = history.enough_within(usize::from(target.min(LATELY)), [0.6]);
            lately
        })
    };
    let mut least = (FeeRate(u64::MAX), FeeRate(u64::MAX));
    let estimates = TARGETS.iter().map(|target| {
        let paid = history.map(|history| Paid::within(*target, history));
        let economical =
            combine(*target, told(&usual, *target), paid.map(|paid| (paid.by_most, paid.highest)));
        let careful =
            combine(*target, told(&late, *target), paid.map(|paid| (paid.by_nearly_all, paid.highest)));
        let conservative = careful.max(lately(*target)).max(economical);
        least = (least.0.min(economical), least.1.min(conservative));
        least
    });
    estimates.collect()
}

/// What the last blocks tell for one target.
#[derive(Clone, Copy, Debug)]
struct Paid {
    by_most: FeeRate,
    by_nearly_all: FeeRate,
    /// Nobody needs to pay twice as much.
    highest: FeeRate,
}

impl Paid {
    fn within(target: u16, history: &History) -> Self {
        let highest = history.highest_middle(BOUNDING_BLOCKS);
        let [by_most, by_nearly_all] = match target {
            ..=POOL_DECIDES => [history.median(BOUNDING_BLOCKS); 2],
            _ => history.enough_within(usize::from(target), [MOST, NEARLY_ALL]),
        };
        Self { by_most, by_nearly_all, highest }
    }
}

/// Out of what the pool tells, and of what was paid: enough, and the highest.
fn combine(target: u16, pool: Option<FeeRate>, paid: Option<(FeeRate, FeeRate)>) -> FeeRate {
    match (pool, paid) {
        (None, None) => FeeRate(0),
        (Some(pool), None) => pool,
        (None, Some((paid, _))) => paid,
        (Some(pool), Some((paid, highest))) => {
            let pool = pool.max(FeeRate(paid.0 / 2)).min(FeeRate(2 * paid.max(highest).0));
            mean(pool, paid, weight_of_pool(target))
        }
    }
}

/// 1 where the pool decides, 0 where the blocks do.
fn weight_of_pool(target: u16) -> f64 {
    let share = f64::from(BLOCKS_DECIDE.saturating_sub(target)) / f64::from(BLOCKS_DECIDE - POOL_DECIDES);
    share.min(1.0)
}

/// The geometric mean: feerates differ by factors.
fn mean(one: FeeRate, other: FeeRate, weight_of_one: f64) -> FeeRate {
    let log = |rate: FeeRate| (rate.0.max(1) as f64).ln();
    let mean = log(one) * weight_of_one + log(other) * (1.0 - weight_of_one);
    FeeRate(mean.exp().round() as u64)
}

/// What blocks leave behind although it pays more than they took: miners do not have it, or do not want it. It stays
/// in nobody's way.
///
/// Counted from the top down to each band, as it may be replaced by what pays more and still never be mined.
#[derive(Debug)]
struct PassedOver {
    /// Virtual bytes on each band and above that the last block left.
    last: PerBand,
    /// And that it and the one before left: one miner alone may be choosy.
    twice: PerBand,
    /// Virtual bytes on each band that were dropped since the last block.
    dropped: PerBand,
    /// How fast more is found to be passed over, on each band and above.
    growth: Inflow,
}

impl PassedOver {
    fn new(now: Instant) -> Self {
        let growth = Inflow::new(now, PASSED_OVER_TIME);
        Self { last: bands::none(), twice: bands::none(), dropped: bands::none(), growth }
    }

    fn dropped(&mut self, rate: FeeRate, vsize: u64) {
        if let Some(sum) = self.dropped.get_mut(bands::band_of(rate)) {
            *sum += vsize as f64;
        }
    }

    /// A block whose room was worth `enough` left this, on each band.
    fn block_connected(&mut self, now: Instant, enough: FeeRate, mut left: PerBand) {
        let first = if enough.0 == 0 { 0 } else { bands::band_of(enough) + 1 };
        bands::add_up(&mut left);
        // What is dropped makes room for more of its kind, so it counts as if it still lay there.
        let mut more = std::mem::replace(&mut self.dropped, bands::none());
        bands::add_up(&mut more);
        for (band, left) in left.iter().enumerate() {
            let (last, twice) = (&mut self.last[band], &mut self.twice[band]);
            let before = *twice;
            // Below the price of room it tells nothing that something is left.
            if band >= first {
                *twice = last.min(*left);
                *last = *left;
            } else {
                *twice = twice.min(*left);
                *last = last.min(*left);
            }
            more[band] += *twice - before;
        }
        // Whatever is passed over above the price is so above each lower feerate.
        for sums in [&mut self.last, &mut self.twice, &mut more] {
            let above = sums.get(first).copied().unwrap_or_default();
            sums.iter_mut().take(first).for_each(|sum| *sum = sum.max(above));
        }
        self.growth.add_all(now, &more);
    }

    /// Virtual bytes on all bands together beyond what was passed over before.
    fn added_by(&self, left: &[f64; BANDS]) -> f64 {
        left.iter().sum::<f64>() - self.twice[0]
    }

    /// What waits on each band and above, without it.
    fn without(&self, waiting: PerBand) -> PerBand {
        difference(waiting, &self.twice)
    }

    /// What comes on each band and above, without what will be passed over as before.
    fn without_more(&mut self, now: Instant, coming: PerBand) -> PerBand {
        let growth = self.growth.per_second(now);
        difference(coming, &growth)
    }
}

/// Of sums from the top down, which stay such: never less than above.
fn difference(mut of: PerBand, less: &[f64; BANDS]) -> PerBand {
    let mut most = 0.0;
    for (of, less) in of.iter_mut().zip(less).rev() {
        most = f64::max(most, *of - less.max(0.0));
        *of = most;
    }
    of
}
