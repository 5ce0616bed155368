//! What the last blocks tell together: the feerate that would have been enough for most who had that much time.

use std::collections::VecDeque;

use bitcoin::BlockHash;
use chainstore::Height;

use super::super::policy::FeeRate;
use super::block::{BlockFees, Fill};

/// Two weeks: as long as the longest target, and the pattern of the week twice.
pub(super) const MAX_BLOCKS: usize = 2_016;
/// Fewer say nothing.
pub(super) const MIN_BLOCKS: usize = 6;
/// What would have been enough is looked for among those who came in the last day at least.
const MIN_STARTS: usize = 144;
/// Blocks missing before the next that make what came before worthless: a day.
const MAX_GAP: u32 = 144;

/// The last connected blocks, the newest at the back.
#[derive(Debug, Default)]
pub(super) struct History {
    blocks: VecDeque<BlockFees>,
}

impl History {
    /// Takes the next block. One at a height that is here already replaces what is from there on.
    pub(super) fn push(&mut self, block: BlockFees) {
        while self.blocks.back().is_some_and(|last| last.height >= block.height) {
            self.blocks.pop_back();
        }
        if self.blocks.back().is_some_and(|last| block.height.0 - last.height.0 > MAX_GAP) {
            self.blocks.clear();
        }
        self.blocks.push_back(block);
        while self.blocks.len() > MAX_BLOCKS {
            self.blocks.pop_front();
        }
    }

    /// Forgets the newest block if it is that one.
    pub(super) fn pop(&mut self, hash: &BlockHash) -> bool {
        let is_last = self.blocks.back().is_some_and(|last| last.hash == *hash);
        if is_last {
            self.blocks.pop_back();
        }
        is_last
    }

    pub(super) fn last(&self) -> Option<(Height, BlockHash)> {
        self.blocks.back().map(|last| (last.height, last.hash))
    }

    pub(super) fn blocks(&self) -> impl DoubleEndedIterator<Item = &BlockFees> + ExactSizeIterator {
        self.blocks.iter()
    }

    /// Whether there are enough blocks to say anything.
    pub(super) fn is_enough(&self) -> bool {
        self.blocks.len() >= MIN_BLOCKS
    }

    /// Median of what would have been enough in the last `count` blocks that tell anything; 0 where none does, and
    /// whatever is relayed was mined.
    pub(super) fn median(&self, count: usize) -> FeeRate {
        quantile(&mut self.enough().rev().take(count).collect::<Vec<_>>(), 0.5)
    }

    /// The highest that was paid by half of one of the last `count` blocks.
    pub(super) fn highest_middle(&self, count: usize) -> FeeRate {
        let telling = self.blocks.iter().rev().filter(|block| block.fill != Fill::Nothing);
        telling.take(count).map(|block| block.middle).max().unwrap_or_default()
    }

    /// The feerates that were enough within `target` blocks for these shares of those who paid them at any time of the
    /// last days.
    pub(super) fn enough_within<const N: usize>(&self, target: usize, shares: [f64; N]) -> [FeeRate; N] {
        let starts = (2 * target).max(MIN_STARTS);
        let mut prices: Vec<FeeRate> = self.enough().rev().take(starts).collect();
        prices.reverse();
        let window = target.min(prices.len() / 2).max(1);
        let mut least = sliding_least(&prices, window);
        shares.map(|share| quantile(&mut least, share))
    }

    fn enough(&self) -> impl DoubleEndedIterator<Item = FeeRate> {
        self.blocks.iter().filter_map(|block| match block.fill {
            Fill::Full => Some(block.enough),
            Fill::Room => Some(FeeRate(0)),
            Fill::Nothing => None,
        })
    }
}

/// The least of each `window` neighbours.
fn sliding_least(prices: &[FeeRate], window: usize) -> Vec<FeeRate> {
    // Positions whose price is below all after them, within the window.
    let mut rising: VecDeque<usize> = VecDeque::new();
    let mut least = Vec::with_capacity(prices.len());
    for (position, price) in prices.iter().enumerate() {
        while rising.back().is_some_and(|last| prices[*last] >= *price) {
            rising.pop_back();
        }
        rising.push_back(position);
        if rising.front().is_some_and(|first| first + window <= position) {
            rising.pop_front();
        }
        if position + 1 >= window
            && let Some(first) = rising.front()
        {
            least.push(prices[*first]);
        }
    }
    least
}

/// The value that at least `share` of them do not exceed.
fn quantile(of: &mut [FeeRate], share: f64) -> FeeRate {
    if of.is_empty() {
        return FeeRate(0);
    }
    let at = ((of.len() as f64 * share).ceil() as usize).clamp(1, of.len());
    *of.select_nth_unstable(at - 1).1
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn block(height: u32, fill: Fill, enough: u64) -> BlockFees {
        let hash = BlockHash::hash(&height.to_le_bytes());
        let (height, enough) = (Height(height), FeeRate(enough));
        BlockFees { hash, height, fill, weight: 0, least: enough, enough, middle: FeeRate(2 * enough.0) }
    }

    fn history(prices: &[u64]) -> History {
        let mut history = History::default();
        for (height, price) in (1..).zip(prices) {
            history.push(block(height, Fill::Full, *price));
        }
        history
    }

    #[test]
    fn sliding_least_is_that_of_a_naive_search() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let prices: Vec<FeeRate> = (0..rng.usize(1..60)).map(|_| FeeRate(rng.u64(0..20))).collect();
            let window = rng.usize(1..=prices.len());
            let naive: Vec<FeeRate> =
                prices.windows(window).map(|some| some.iter().copied().min().unwrap()).collect();
            assert_eq!(sliding_least(&prices, window), naive, "{prices:?} by {window}");
        }
    }

    #[test]
    fn who_can_wait_pays_what_the_cheapest_block_took() {
        // A cheap block in each dozen.
        let prices: Vec<u64> = (0..288).map(|at| if at % 12 == 0 { 1_000 } else { 9_000 }).collect();
        let history = history(&prices);
        assert_eq!(history.median(6), FeeRate(9_000));
        assert_eq!(history.enough_within(12, [0.9]), [FeeRate(1_000)]);
        assert_eq!(history.enough_within(6, [0.4, 0.9]), [FeeRate(1_000), FeeRate(9_000)]);
        assert_eq!(history.enough_within(1_008, [1.0]), [FeeRate(1_000)]);
    }

    #[test]
    fn a_block_with_room_took_anything_and_an_empty_one_says_nothing() {
        let mut history = history(&[5_000; 6]);
        (7..=9).for_each(|height| history.push(block(height, Fill::Nothing, 0)));
        assert_eq!(history.median(6), FeeRate(5_000));
        (10..=13).for_each(|height| history.push(block(height, Fill::Room, 4_000)));
        assert_eq!(history.median(6), FeeRate(0));
    }

    #[test]
    fn another_block_at_the_same_height_takes_the_place_of_what_follows() {
        let mut history = history(&[5_000; 9]);
        history.push(block(8, Fill::Full, 1));
        assert_eq!(history.blocks().len(), 8);
        assert_eq!(history.last().unwrap().0, Height(8));
        assert!(!history.pop(&BlockHash::all_zeros()));
        assert!(history.pop(&BlockHash::hash(&8u32.to_le_bytes())));
        assert_eq!(history.blocks().len(), 7);
    }

    #[test]
    fn after_a_day_without_blocks_the_old_ones_are_forgotten() {
        let mut history = history(&[5_000; 9]);
        history.push(block(9 + MAX_GAP, Fill::Full, 1));
        assert_eq!(history.blocks().len(), 10);
        history.push(block(9 + 2 * MAX_GAP + 1, Fill::Full, 1));
        assert_eq!(history.blocks().len(), 1);
    }

    #[test]
    fn no_more_blocks_are_kept_than_are_asked_for() {
        assert_eq!(history(&vec![1; MAX_BLOCKS + 50]).blocks().len(), MAX_BLOCKS);
    }
}
