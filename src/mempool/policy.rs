//! Which transactions are relayed and kept: one struct of figures, with the presets of two nodes.
//!
//! Source: Bitcoin Core `policy/policy.h`, `kernel/mempool_options.h`, `kernel/mempool_limits.h`.

use std::time::Duration;

/// Satoshi per 1,000 virtual bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeRate(pub u64);

impl FeeRate {
    /// The fee of that many virtual bytes, rounded up (`CFeeRate::GetFee`).
    pub fn fee(self, vsize: u64) -> u64 {
        (u128::from(self.0) * u128::from(vsize)).div_ceil(1_000) as u64
    }

    /// The rate at which `fee` satoshi pay for `vsize` virtual bytes, rounded down.
    pub fn of(fee: u64, vsize: u64) -> Self {
        Self((u128::from(fee) * 1_000 / u128::from(vsize.max(1))) as u64)
    }
}

/// What may be written into OP_RETURN outputs, in bytes of their scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCarrier {
    /// Bitcoin Core since 30: so many in all of them.
    Together { bytes: usize },
    /// Before: there may be one, of so many.
    One { bytes: usize },
}

/// How much may hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainLimits {
    /// Bitcoin Core since 31: whatever is connected by spending.
    Cluster { count: usize, vsize: u64 },
    /// Before: ancestors and descendants, each with the transaction itself.
    Ancestors { count: usize, vsize: u64 },
}

/// When a transaction takes the place of those that it conflicts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplacementRule {
    /// Bitcoin Core since 31: the feerate diagram becomes strictly better; at most so many clusters are touched.
    Diagram { max_clusters: usize },
    /// BIP125 rules 2 to 5, whether it was signalled or not: at most so many transactions are evicted.
    Bip125 { max_evicted: usize },
}

/// See the module. Rates, sizes in virtual bytes where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `-minrelaytxfee`.
    pub min_relay: FeeRate,
    /// `-incrementalrelayfee`.
    pub incremental: FeeRate,
    /// `-dustrelayfee`.
    pub dust_relay: FeeRate,
    /// Weight units (`MAX_STANDARD_TX_WEIGHT`).
    pub max_weight: u64,
    /// `-datacarriersize`.
    pub data_carrier: DataCarrier,
    /// `-permitbaremultisig`.
    pub permit_bare_multisig: bool,
    /// `-bytespersigop`.
    pub bytes_per_sigop: u64,
    /// Whether a transaction may execute at most 2,500 signature operations outside its witness (BIP54).
    pub limit_legacy_sigops: bool,
    pub limits: ChainLimits,
    pub replacement: ReplacementRule,
    /// Bytes in memory (`-maxmempool`).
    pub max_bytes: usize,
    /// `-mempoolexpiry`.
    pub expiry: Duration,
}

impl Policy {
    /// Bitcoin Core's, as of its master before 32.
    pub fn core() -> Self {
        Self {
            min_relay: FeeRate(100),
            incremental: FeeRate(100),
            dust_relay: FeeRate(3_000),
            max_weight: 400_000,
            data_carrier: DataCarrier::Together { bytes: 100_000 },
            permit_bare_multisig: true,
            bytes_per_sigop: 20,
            limit_legacy_sigops: true,
            limits: ChainLimits::Cluster { count: 64, vsize: 101_000 },
            replacement: ReplacementRule::Diagram { max_clusters: 100 },
            max_bytes: 300_000_000,
            expiry: Duration::from_secs(336 * 60 * 60),
        }
    }
    /// Bitcoin Knots', as of 29.4 with `-corepolicy`: of the node that tests compare with.
    pub fn knots() -> Self {
        Self {
            data_carrier: DataCarrier::One { bytes: 83 },
            limits: ChainLimits::Ancestors { count: 25, vsize: 101_000 },
            replacement: ReplacementRule::Bip125 { max_evicted: 100 },
            ..Self::core()
        }
    }
}
