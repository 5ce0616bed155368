//! The histogram of the mempool that wallets draw (`mempool.get_fee_histogram`).
//!
//! By the feerates of chunks, in which order blocks take them: Electrum reads from it how deep in the mempool a feerate
//! is, and a parent whose child pays for it is not as deep as its own fee says. ElectrumX takes each transaction by
//! itself, for want of knowing better.
//! Source: ElectrumX `server/mempool.py` (`_update_histogram`, `_compress_histogram`), Electrum `fee_policy.py`
//! (`FeeHistogram`).

use std::fmt;

/// Virtual bytes from which on the first bin is full. Each further one holds a tenth more.
const FIRST_BIN_VSIZE: u64 = 100_000;

/// Chunks of similar feerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// The least feerate in it, in tenths of a satoshi per virtual byte, rounded down.
    pub tenths: u64,
    /// Virtual bytes, from here up to the bin above.
    pub vsize: u64,
}

/// Puts chunks (fee in satoshi, virtual bytes), in descending order of feerate, into bins of strictly falling feerate.
///
/// Their sizes add up to that of the mempool: ElectrumX leaves out what does not fill the last bin.
pub fn histogram(chunks: impl Iterator<Item = (u64, u64)>) -> Vec<Bin> {
    let mut bins = Vec::new();
    let mut limit = FIRST_BIN_VSIZE;
    let mut open: Option<Bin> = None;
    let mut lines = chunks.map(line).peekable();
    while let Some(mut next) = lines.next() {
        // All of one feerate stay together. An order that is a little off shifts bins, but never turns them around.
        while let Some(same) = lines.next_if(|other| other.tenths >= next.tenths) {
            next.vsize += same.vsize;
        }
        // A lump is not allowed to make what pays more look as if it paid as little.
        if next.vsize > 2 * limit
            && let Some(bin) = open.take()
        {
            close(&mut bins, &mut limit, bin);
        }
        let bin = Bin { tenths: next.tenths, vsize: open.map_or(0, |bin| bin.vsize) + next.vsize };
        if bin.vsize > limit {
            close(&mut bins, &mut limit, bin);
            open = None;
        } else {
            open = Some(bin);
        }
    }
    bins.extend(open);
    bins
}

fn line((fee, vsize): (u64, u64)) -> Bin {
    Bin { tenths: (u128::from(fee) * 10 / u128::from(vsize.max(1))) as u64, vsize }
}

fn close(bins: &mut Vec<Bin>, limit: &mut u64, bin: Bin) {
    bins.push(bin);
    *limit = limit.saturating_add(*limit / 10);
}

/// The feerate as a JSON number in satoshi per virtual byte: no exponent, and never more than one digit after the dot.
impl fmt::Display for Bin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tenths / 10, self.tenths % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenth) => write!(f, "{whole}.{tenth}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(chunks: &[(u64, u64)]) -> Vec<(String, u64)> {
        histogram(chunks.iter().copied()).iter().map(|bin| (bin.to_string(), bin.vsize)).collect()
    }

    fn named(bins: &[(&str, u64)]) -> Vec<(String, u64)> {
        bins.iter().map(|(rate, vsize)| ((*rate).to_owned(), *vsize)).collect()
    }

    #[test]
    fn feerates_are_written_in_tenths() {
        let shown = |fee, vsize| line((fee, vsize)).to_string();
        assert_eq!(shown(100, 1_000), "0.1");
        assert_eq!(shown(99, 1_000), "0");
        assert_eq!(shown(1_000, 1_000), "1");
        assert_eq!(shown(12_399, 1_000), "12.3");
        assert_eq!(shown(21_000_000 * 100_000_000, 100), "21000000000000");
    }

    #[test]
    fn an_empty_mempool_has_no_bins() {
        assert_eq!(bins(&[]), []);
    }

    #[test]
    fn bins_are_closed_once_they_hold_enough_and_the_rest_is_kept() {
        let chunks =
            [(500_000, 60_000), (450_000, 60_000), (200_000, 50_000), (10_000, 50_000), (100, 1_000)];
        assert_eq!(bins(&chunks), named(&[("7.5", 120_000), ("0.1", 101_000)]));
    }

    #[test]
    fn a_lump_stands_by_itself() {
        let chunks = [(500_000, 50_000), (500_000, 250_000), (100_000, 100_000)];
        assert_eq!(bins(&chunks), named(&[("10", 50_000), ("2", 250_000), ("1", 100_000)]));
    }

    #[test]
    fn what_pays_the_same_is_never_torn_apart() {
        let many = vec![(1_500, 1_000); 900];
        assert_eq!(bins(&many), named(&[("1.5", 900_000)]));
    }

    #[test]
    fn bins_fall_strictly_and_hold_everything_whatever_comes() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let mut chunks: Vec<(u64, u64)> = (0..rng.usize(0..400))
                .map(|_| {
                    let vsize = rng.u64(100..30_000);
                    (rng.u64(0..vsize * 20), vsize)
                })
                .collect();
            if rng.u8(0..4) > 0 {
                chunks.sort_by_key(|(fee, vsize)| std::cmp::Reverse(fee * 1_000_000 / vsize));
            }
            let found = histogram(chunks.iter().copied());
            assert!(found.is_sorted_by(|one, other| one.tenths > other.tenths), "{found:?}");
            let sum: u64 = chunks.iter().map(|(_, vsize)| vsize).sum();
            assert_eq!(found.iter().map(|bin| bin.vsize).sum::<u64>(), sum);
        }
    }
}
