//! Rungs 0 and 1 of the validation ladder: what a header alone, and a header on its chain, must satisfy.
//!
//! Knows proof of work, difficulty, the clock rules and the version rules of all networks. It keeps no chain: the
//! headers below are asked for through [`Ancestors`].
//!
//! Source: Bitcoin Core `pow.cpp` and `validation.cpp` (`CheckBlockHeader`, `ContextualCheckBlockHeader`); BIP34,
//! BIP65, BIP66, BIP94, BIP113.

use std::borrow::Cow;

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Target, Work};
use chainstore::Height;
use thiserror::Error;

use super::params::{BLOCK_SPACING, Params, RETARGET_INTERVAL, RETARGET_TIMESPAN};

/// How far a block's time may be ahead of our clock, in seconds.
pub const MAX_FUTURE_BLOCK_TIME: u64 = 2 * 60 * 60;
/// How far the first block of a period may be dated before its parent under BIP94, in seconds.
const MAX_TIMEWARP: u32 = 600;
/// Blocks whose times make a median.
const MEDIAN_TIME_SPAN: u32 = 11;

/// The chain that ends at a header's parent.
pub trait Ancestors {
    /// Height of the parent.
    fn tip_height(&self) -> Height;
    /// Time of the block at `height`, in Unix seconds; `height` is at most that of the tip.
    fn time(&self, height: Height) -> u32;
    /// Claimed difficulty of the block at `height`, which is at most that of the tip.
    fn bits(&self, height: Height) -> CompactTarget;
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    #[error("{hash}: no proof of work for the target that its bits {bits:#x} claim")]
    HighHash { hash: BlockHash, bits: CompactTarget },
    #[error("bits are {found:#x} where the chain requires {required:#x}")]
    BadDiffBits { found: CompactTarget, required: CompactTarget },
    #[error("time {time} is not after {median}, the median of the 11 blocks below")]
    TimeTooOld { time: u32, median: u32 },
    #[error("time {time} of a period's first block is more than 600 s before its parent's {parent}")]
    TimeTimewarpAttack { time: u32, parent: u32 },
    /// Says nothing about the header for good: our clock may be wrong, and time passes.
    #[error("time {time} is more than two hours ahead; acceptable at {acceptable_at}")]
    TimeTooNew {
        time: u32,
        /// Unix second at which the header will no longer be too new.
        acceptable_at: u64,
    },
    #[error("version {version:#010x} is too low for its height")]
    BadVersion { version: i32 },
}

impl HeaderError {
    /// Bitcoin Core's word for it.
    pub fn reject_reason(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::HighHash { .. } => "high-hash",
            Self::BadDiffBits { .. } => "bad-diffbits",
            Self::TimeTooOld { .. } => "time-too-old",
            Self::TimeTimewarpAttack { .. } => "time-timewarp-attack",
            Self::TimeTooNew { .. } => "time-too-new",
            Self::BadVersion { version } => return Cow::Owned(format!("bad-version({version:#010x})")),
        })
    }

    /// Unix second from which the header may be tried again; `None` when it is wrong for ever.
    pub fn retry_at(&self) -> Option<u64> {
        match self {
            Self::TimeTooNew { acceptable_at, .. } => Some(*acceptable_at),
            Self::HighHash { .. }
            | Self::BadDiffBits { .. }
            | Self::TimeTooOld { .. }
            | Self::TimeTimewarpAttack { .. }
            | Self::BadVersion { .. } => None,
        }
    }
}

/// Rung 0: the header's `hash` meets the target that its bits claim, and no network rule makes that target absurd.
///
/// It says nothing about whether the target is the one that the chain requires.
pub fn check_proof_of_work(header: &Header, hash: BlockHash, params: &Params) -> Result<(), HeaderError> {
    match target_of(header.bits) {
        Some(target) if target <= params.pow_limit && target.is_met_by(hash) => Ok(()),
        Some(_) | None => Err(HeaderError::HighHash { hash, bits: header.bits }),
    }
}

/// Rung 1: the header fits on top of `parent`. `now_unix` is our clock, in seconds.
pub fn check_header(
    header: &Header,
    parent: &impl Ancestors,
    now_unix: u64,
    params: &Params,
) -> Result<(), HeaderError> {
    check_without_clock(header, parent, params)?;
    let acceptable_at = u64::from(header.time).saturating_sub(MAX_FUTURE_BLOCK_TIME);
    if now_unix < acceptable_at {
        return Err(HeaderError::TimeTooNew { time: header.time, acceptable_at });
    }
    Ok(())
}

/// Rung 1 without the two-hour rule, for headers that were accepted once: a clock that went back must not undo them.
///
/// Core checks the version after the two-hour rule; here a header wrong for ever is never called too new.
pub fn check_without_clock(
    header: &Header,
    parent: &impl Ancestors,
    params: &Params,
) -> Result<(), HeaderError> {
    let required = next_work_required(parent, header.time, params);
    if header.bits != required {
        return Err(HeaderError::BadDiffBits { found: header.bits, required });
    }

    let median = median_time_past(parent);
    if header.time <= median {
        return Err(HeaderError::TimeTooOld { time: header.time, median });
    }

    let height = parent.tip_height().next().0;
    if params.bip94 && height.is_multiple_of(RETARGET_INTERVAL) {
        let parent = parent.time(parent.tip_height());
        if header.time < parent.saturating_sub(MAX_TIMEWARP) {
            return Err(HeaderError::TimeTimewarpAttack { time: header.time, parent });
        }
    }

    let version = header.version.to_consensus();
    let too_low = (version < 2 && height >= params.bip34_height)
        || (version < 3 && height >= params.bip66_height)
        || (version < 4 && height >= params.bip65_height);
    if too_low {
        return Err(HeaderError::BadVersion { version });
    }
    Ok(())
}

/// The bits that the block on top of `parent` must have. `block_time` is its own time, which only the 20-minute
/// rule of the test networks looks at.
///
/// Source: Core `GetNextWorkRequired`, `CalculateNextWorkRequired`.
pub fn next_work_required(parent: &impl Ancestors, block_time: u32, params: &Params) -> CompactTarget {
    let tip = parent.tip_height();
    let easiest = params.pow_limit.to_compact_lossy();

    if !tip.next().0.is_multiple_of(RETARGET_INTERVAL) {
        if !params.min_difficulty_blocks {
            return parent.bits(tip);
        }
        if u64::from(block_time) > u64::from(parent.time(tip)) + 2 * u64::from(BLOCK_SPACING) {
            return easiest;
        }
        // Blocks that took the easy way out do not count: back to the last one of this period that did not.
        let mut height = tip;
        while !height.0.is_multiple_of(RETARGET_INTERVAL) && parent.bits(height) == easiest {
            height = Height(height.0 - 1);
        }
        return parent.bits(height);
    }

    if params.no_retarget {
        return parent.bits(tip);
    }
    // 2,015 spacings and not 2,016: the off-by-one is consensus.
    let first = Height(tip.0 - (RETARGET_INTERVAL - 1));
    let timespan = i64::from(parent.time(tip)) - i64::from(parent.time(first));
    let old = if params.bip94 { parent.bits(first) } else { parent.bits(tip) };
    retarget(old, timespan, params.pow_limit)
}

/// Median of the times of the last eleven blocks up to and including the tip, in Unix seconds; near genesis of as
/// many as there are.
///
/// Source: Core `GetMedianTimePast`.
pub fn median_time_past(chain: &impl Ancestors) -> u32 {
    let tip = chain.tip_height().0;
    let mut times = [0; MEDIAN_TIME_SPAN as usize];
    let mut len = 0;
    // From the tip down, as chains that are linked lists like it best.
    for (slot, height) in times.iter_mut().zip((0..=tip).rev()) {
        *slot = chain.time(Height(height));
        len += 1;
    }
    let times = &mut times[..len];
    times.sort_unstable();
    times[len / 2]
}

/// The work that a header with these bits proves: the number of hashes it takes on average. Zero for bits that no
/// header can meet.
///
/// Source: Core `GetBlockProof`.
pub fn work_of(bits: CompactTarget) -> Work {
    match target_of(bits) {
        Some(target) => target.to_work(),
        None => Work::from_be_bytes([0; 32]),
    }
}

/// The target in expanded form; `None` when it is zero, negative or over 256 bits.
///
/// Source: Core `arith_uint256::SetCompact`. The sign is that of the mantissa as written, before it is shifted.
fn target_of(bits: CompactTarget) -> Option<Target> {
    let bits = bits.to_consensus();
    let size = (bits >> 24) as usize;
    let [_, high, middle, low] = bits.to_be_bytes();
    if high & 0x80 != 0 {
        return None;
    }
    let mut target = [0; 32];
    for (place, byte) in [(3, high), (2, middle), (1, low)] {
        // `place` bytes of the mantissa from here on down, of which the lowest is worth 256^(size - 3).
        match (size + place).checked_sub(4) {
            Some(power) if power < 32 => target[31 - power] = byte,
            Some(_) if byte != 0 => return None,
            Some(_) | None => {}
        }
    }
    (target != [0; 32]).then(|| Target::from_be_bytes(target))
}

/// `old` changed in proportion to how long the period took, by a factor of four at most.
///
/// `timespan` is in seconds and signed: a period may end before it started, which counts as the shortest one
/// (rust-bitcoin's helper takes it for the longest).
fn retarget(old: CompactTarget, timespan: i64, limit: Target) -> CompactTarget {
    let wanted = i64::from(RETARGET_TIMESPAN);
    let timespan = timespan.clamp(wanted / 4, wanted * 4).unsigned_abs();
    let Some(old) = target_of(old) else { return CompactTarget::default() };

    // No network's limit times the longest timespan exceeds 256 bits; signet's was chosen for that.
    let mut product = [0_u8; 32];
    let mut carry = 0_u64;
    for (digit, byte) in product.iter_mut().zip(old.to_be_bytes()).rev() {
        carry += u64::from(byte) * timespan;
        *digit = (carry & 0xff) as u8;
        carry >>= 8;
    }
    let mut quotient = [0_u8; 32];
    let mut remainder = 0_u64;
    for (digit, byte) in quotient.iter_mut().zip(product) {
        remainder = (remainder << 8) | u64::from(byte);
        *digit = (remainder / u64::from(RETARGET_TIMESPAN)) as u8;
        remainder %= u64::from(RETARGET_TIMESPAN);
    }
    Target::from_be_bytes(quotient).min(limit).to_compact_lossy()
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
