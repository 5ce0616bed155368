//! The blocks' fees as bytes, for a restart.
//!
//! ```text
//! state | magic 8 | count 4 LE | blocks, the oldest first | checksum 4: sha256d of all before it [..4] |
//! block | height 4 LE | hash 32 | fill 1: 0 full, 1 room, 2 nothing | weight 8 LE |
//!       | least 8 LE | enough 8 LE | middle 8 LE: sat/kvB |
//! ```
//! What the pool was and what came in is not kept: it is judged anew by the blocks that come.

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256d};
use chainstore::Height;

use super::super::policy::FeeRate;
use super::block::{BlockFees, Fill};
use super::estimator::FeeEstimator;
use super::history::{History, MAX_BLOCKS};
use crate::time::Instant;

/// Ends with the version.
const MAGIC: [u8; 8] = *b"pdxfees\x01";
const BLOCK_LEN: usize = 4 + 32 + 1 + 4 * 8;
const CHECKSUM_LEN: usize = 4;

/// Why bytes are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("not the fees of blocks, or of another version")]
    Foreign,
    #[error("the fees of blocks: {0} bytes do not fit what they announce")]
    Torn(usize),
    #[error("the fees of blocks: the checksum does not match")]
    BadChecksum,
    #[error("the fees of blocks: block {0} makes no sense")]
    BadBlock(usize),
}

impl FeeEstimator {
    /// What a restart needs.
    pub fn to_bytes(&self) -> Vec<u8> {
        let blocks = self.history().blocks();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        for block in blocks {
            out.extend_from_slice(&block.height.0.to_le_bytes());
            out.extend_from_slice(block.hash.as_byte_array());
            out.push(match block.fill {
                Fill::Full => 0,
                Fill::Room => 1,
                Fill::Nothing => 2,
            });
            for number in [block.weight, block.least.0, block.enough.0, block.middle.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        out
    }

    /// What [`to_bytes`](Self::to_bytes) wrote. Nothing is set aside for what is announced and not there.
    pub fn from_bytes(now: Instant, bytes: &[u8]) -> Result<Self, StateError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(StateError::Foreign)?;
        let torn = StateError::Torn(bytes.len());
        let (count, rest) = rest.split_first_chunk().ok_or(torn)?;
        let count = u32::from_le_bytes(*count) as usize;
        if count > MAX_BLOCKS || rest.len() != count * BLOCK_LEN + CHECKSUM_LEN {
            return Err(torn);
        }
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(torn)?;
        if checksum(body) != *sum {
            return Err(StateError::BadChecksum);
        }
        let mut history = History::default();
        for (number, block) in rest.chunks_exact(BLOCK_LEN).enumerate() {
            history.push(read_block(block).ok_or(StateError::BadBlock(number))?);
        }
        Ok(Self::with(now, history))
    }
}

fn read_block(bytes: &[u8]) -> Option<BlockFees> {
    let (height, rest) = bytes.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    let (fill, rest) = rest.split_first()?;
    let (weight, rest) = rest.split_first_chunk()?;
    let (least, rest) = rest.split_first_chunk()?;
    let (enough, rest) = rest.split_first_chunk()?;
    let (middle, _) = rest.split_first_chunk()?;
    let fill = match fill {
        0 => Fill::Full,
        1 => Fill::Room,
        2 => Fill::Nothing,
        _ => return None,
    };
    // No fee is over all money, and no transaction is smaller than some sixty bytes: twice that fits.
    let rate = |bytes| Some(FeeRate(u64::from_le_bytes(bytes))).filter(|rate| rate.0 <= u64::MAX / 4);
    Some(BlockFees {
        hash: BlockHash::from_byte_array(*hash),
        height: Height(u32::from_le_bytes(*height)),
        fill,
        weight: u64::from_le_bytes(*weight),
        least: rate(*least)?,
        enough: rate(*enough)?,
        middle: rate(*middle)?,
    })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(bytes).to_byte_array();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::fees::{BlockTransaction, Covered, Mode};

    fn filled(blocks: u32) -> FeeEstimator {
        let mut estimator = FeeEstimator::new(Instant::default());
        for height in 1..=blocks {
            let transactions: Vec<_> = (0..1_000u64)
                .map(|at| BlockTransaction {
                    fee: at * u64::from(height % 7 + 1),
                    weight: 3_900,
                    parents: vec![],
                })
                .collect();
            let hash = BlockHash::hash(&height.to_le_bytes());
            let fees = BlockFees::of_transactions(hash, Height(height), &transactions);
            estimator.block_connected(Instant::default(), fees, Covered::default(), std::iter::empty());
        }
        estimator
    }

    fn answers(mut estimator: FeeEstimator) -> Vec<Option<FeeRate>> {
        estimator.refresh(Instant::default(), std::iter::empty);
        (1..=1_008).map(|target| estimator.estimate(target, Mode::Conservative, FeeRate(100))).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        for blocks in [0, 1, 300, MAX_BLOCKS as u32 + 9] {
            let estimator = filled(blocks);
            let read = FeeEstimator::from_bytes(Instant::default(), &estimator.to_bytes()).unwrap();
            assert_eq!(read.tip(), estimator.tip());
            assert_eq!(read.to_bytes(), estimator.to_bytes());
            assert_eq!(answers(read), answers(estimator));
        }
    }

    #[test]
    fn the_first_bytes_say_what_it_is() {
        let bytes = filled(1).to_bytes();
        assert_eq!(bytes[..16], *b"pdxfees\x01\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes.len(), 8 + 4 + BLOCK_LEN + 4);
    }

    #[test]
    fn every_damage_is_noticed_and_none_panics() {
        let bytes = filled(20).to_bytes();
        let read = |bytes: &[u8]| FeeEstimator::from_bytes(Instant::default(), bytes).map(|_| ());
        for at in 0..bytes.len() {
            assert!(read(&bytes[..at]).is_err());
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        assert_eq!(read(b"pdxfees\x02"), Err(StateError::Foreign));
        assert_eq!(read(b"pdxfees\x01\xff\xff\xff\xff"), Err(StateError::Torn(12)));
        assert_eq!(read(&[&bytes[..], &[0]].concat()), Err(StateError::Torn(bytes.len() + 1)));
    }
}
