//! How much space a network's chain will yet take, from heights and averages alone.
//!
//! Nothing is measured here: what the folder holds is given. The figures of the networks are estimates of a day, and
//! blocks beyond them are counted as that day's newest.

use bitcoin::Network;

use crate::space::Usage;

/// Bytes of everything but raw blocks, a transaction: `docs/performance.md` has 113 to 120.
const INDEX_BYTES_PER_TX: u64 = 115;
/// Bytes of sorted runs a transaction, until the first sync ends.
const RUN_BYTES_PER_TX: u64 = 200;
/// Blocks that Bitcoin aims at in a year.
const BLOCKS_PER_YEAR: u64 = 52_560;

/// What a network's chain was on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub network: Network,
    /// The day, and who says so.
    pub source: &'static str,
    /// Blocks of the chain, with their transactions and raw bytes.
    pub blocks: u32,
    pub txs: u64,
    pub raw_bytes: u64,
    /// Of an average block of that time.
    pub new_block_txs: u64,
    pub new_block_bytes: u64,
}

/// For Core's networks but mainnet its sizes are a tenth above what they were; regtest's chain is what its owner
/// makes of it.
const ESTIMATES: [Estimate; 4] = [
    Estimate {
        network: Network::Bitcoin,
        source: "July 2026, the project's own count",
        blocks: 960_000,
        txs: 1_400_000_000,
        raw_bytes: 800_000_000_000,
        new_block_txs: 3_600,
        new_block_bytes: 1_600_000,
    },
    Estimate {
        network: Network::Testnet,
        source: "February 2026, Bitcoin Core 31 (kernel/chainparams.cpp)",
        blocks: 4_842_348,
        txs: 536_108_416,
        raw_bytes: 245_000_000_000,
        new_block_txs: 100,
        new_block_bytes: 50_000,
    },
    Estimate {
        network: Network::Testnet4,
        source: "February 2026, Bitcoin Core 31 (kernel/chainparams.cpp)",
        blocks: 123_613,
        txs: 14_191_421,
        raw_bytes: 31_000_000_000,
        new_block_txs: 120,
        new_block_bytes: 250_000,
    },
    Estimate {
        network: Network::Signet,
        source: "February 2026, Bitcoin Core 31 (kernel/chainparams.cpp)",
        blocks: 293_175,
        txs: 28_676_833,
        raw_bytes: 24_000_000_000,
        new_block_txs: 200,
        new_block_bytes: 150_000,
    },
];

impl Estimate {
    /// What is known of a network; nothing of regtest.
    pub fn of(network: Network) -> Option<&'static Self> {
        ESTIMATES.iter().find(|estimate| estimate.network == network)
    }

    /// Bytes by which blocks and index grow in a year.
    pub fn yearly_bytes(&self) -> u64 {
        (self.new_block_bytes + self.new_block_txs * INDEX_BYTES_PER_TX) * BLOCKS_PER_YEAR
    }
}

/// How far a folder is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Headers of the best chain known, genesis counted.
    pub headers: u32,
    /// Blocks that are indexed, and their transactions.
    pub blocks: u32,
    pub txs: u64,
    /// Whether the index has yet to be written for the first time.
    pub first_sync: bool,
    pub usage: Usage,
}

/// Bytes that are yet to be written until the chain is complete, beyond what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Blocks of the complete chain.
    pub blocks: u32,
    pub raw_bytes: u64,
    pub index_bytes: u64,
    /// Given back when the first sync ends.
    pub run_bytes: u64,
}

impl Forecast {
    /// All of them together.
    pub fn needed_bytes(&self) -> u64 {
        self.raw_bytes.saturating_add(self.index_bytes).saturating_add(self.run_bytes)
    }
}

/// What `network` yet needs where so much is done. What is stored counts, and what is left is never taken for more
/// than so many of the newest, largest blocks.
pub fn forecast(network: Network, progress: &Progress) -> Forecast {
    let Some(estimate) = Estimate::of(network) else {
        return Forecast { blocks: progress.headers, ..Forecast::default() };
    };
    let blocks = estimate.blocks.max(progress.headers);
    let beyond = u64::from(blocks - estimate.blocks);
    let left = u64::from(blocks.saturating_sub(progress.blocks));
    let txs = estimate.txs + beyond * estimate.new_block_txs;
    let raw_bytes = estimate.raw_bytes + beyond * estimate.new_block_bytes;
    let usage = &progress.usage;

    let txs_left = txs.saturating_sub(progress.txs).min(left * MOST_TXS);
    let raw_left = raw_bytes.saturating_sub(usage.raw_blocks).min(left * MOST_BLOCK_BYTES);
    let (index_left, runs_left) = if progress.first_sync {
        let runs = (txs * RUN_BYTES_PER_TX).saturating_sub(usage.runs);
        ((txs * INDEX_BYTES_PER_TX).saturating_sub(usage.index()), runs)
    } else {
        (txs_left * INDEX_BYTES_PER_TX, 0)
    };
    Forecast { blocks, raw_bytes: raw_left, index_bytes: index_left, run_bytes: runs_left }
}

/// No block is larger, and few have more transactions.
const MOST_BLOCK_BYTES: u64 = 4_000_000;
const MOST_TXS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn usage(raw_blocks: u64, txids: u64, base: u64, runs: u64) -> Usage {
        Usage { raw_blocks, txids, base, runs, ..Usage::default() }
    }

    #[test]
    fn what_a_chain_needs_is_what_is_not_there_yet() {
        let synced = usage(812 * GB, 45 * GB, 105 * GB, 0);
        let cases = [
            // What the folder holds; then blocks, raw, index and runs still to be written, in GB.
            (
                "nothing",
                Network::Bitcoin,
                Progress { first_sync: true, ..Progress::default() },
                [960_000, 800, 161, 280],
            ),
            (
                "half of a first sync",
                Network::Bitcoin,
                Progress {
                    headers: 960_000,
                    blocks: 700_000,
                    txs: 700_000_000,
                    first_sync: true,
                    usage: usage(400 * GB, 25 * GB, 0, 140 * GB),
                },
                [960_000, 400, 136, 140],
            ),
            (
                "years later, a chain that is longer than the estimate",
                Network::Bitcoin,
                Progress { headers: 1_060_000, first_sync: true, ..Progress::default() },
                [1_060_000, 960, 202, 352],
            ),
            (
                "all of it, smaller than the estimate",
                Network::Bitcoin,
                Progress {
                    headers: 965_000,
                    blocks: 965_000,
                    txs: 1_390_000_000,
                    first_sync: false,
                    usage: usage(790 * GB, 45 * GB, 105 * GB, 0),
                },
                [965_000, 0, 0, 0],
            ),
            (
                "a year behind",
                Network::Bitcoin,
                Progress {
                    headers: 1_012_560,
                    blocks: 960_000,
                    txs: 1_400_000_000,
                    first_sync: false,
                    usage: synced,
                },
                // 52,560 blocks of 1.6 MB and 3,600 transactions, less the 12 GB that it has above the estimate.
                [1_012_560, 72, 21, 0],
            ),
            (
                "testnet3",
                Network::Testnet,
                Progress { first_sync: true, ..Progress::default() },
                [4_842_348, 245, 61, 107],
            ),
            (
                "testnet4",
                Network::Testnet4,
                Progress { first_sync: true, ..Progress::default() },
                [123_613, 31, 1, 2],
            ),
            (
                "signet",
                Network::Signet,
                Progress { first_sync: true, ..Progress::default() },
                [293_175, 24, 3, 5],
            ),
            (
                "regtest needs nothing",
                Network::Regtest,
                Progress { headers: 5_000, first_sync: true, ..Progress::default() },
                [5_000, 0, 0, 0],
            ),
        ];
        for (what, network, progress, wanted) in cases {
            let found = forecast(network, &progress);
            let gb = |bytes: u64| bytes / GB;
            let in_gb =
                [u64::from(found.blocks), gb(found.raw_bytes), gb(found.index_bytes), gb(found.run_bytes)];
            assert_eq!(in_gb, wanted, "{what}: {found:?}");
            let sum = found.raw_bytes + found.index_bytes + found.run_bytes;
            assert_eq!(found.needed_bytes(), sum, "{what}");
        }
    }

    #[test]
    fn a_chain_that_has_little_left_never_needs_more_than_its_largest_blocks() {
        // The estimate is of larger blocks than these were.
        let progress = Progress {
            headers: 960_000,
            blocks: 959_990,
            txs: 1_300_000_000,
            first_sync: false,
            usage: usage(700 * GB, 0, 0, 0),
        };
        let found = forecast(Network::Bitcoin, &progress);
        assert_eq!((found.raw_bytes, found.run_bytes), (10 * 4_000_000, 0));
        assert_eq!(found.index_bytes, 10 * 10_000 * 115);
    }

    #[test]
    fn mainnet_grows_by_a_hundred_gigabytes_a_year() {
        let yearly = Estimate::of(Network::Bitcoin).unwrap().yearly_bytes();
        assert_eq!(yearly / GB, 105);
        assert_eq!(Estimate::of(Network::Regtest), None);
    }
}
