//! The short ids of compact blocks: SipHash-2-4 of the wtxid, cut to 48 bits and salted for each block (BIP152).
//!
//! Of each new block all transactions of a full mempool are hashed, so it is written out for 32 bytes: the library's
//! hash of any length takes several times as long.

use bitcoin::Wtxid;
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, HashEngine, sha256};

use crate::peer::CompactBlock;

/// Short ids have 48 bits.
const MASK: u64 = (1 << 48) - 1;
/// Ends what is hashed: its length, in the highest byte.
const LENGTH: u64 = 32 << 56;

/// What short ids are salted with.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShortIdKey(u64, u64);

impl ShortIdKey {
    pub fn of(block: &CompactBlock) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(&serialize(&block.header));
        engine.input(&block.nonce.to_le_bytes());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        let [first, second, ..] = words(&hash);
        Self(first, second)
    }

    pub fn short_id(self, wtxid: &Wtxid) -> u64 {
        let Self(first, second) = self;
        let mut state = [
            first ^ 0x736f_6d65_7073_6575,
            second ^ 0x646f_7261_6e64_6f6d,
            first ^ 0x6c79_6765_6e65_7261,
            second ^ 0x7465_6462_7974_6573,
        ];
        for word in words(wtxid.as_byte_array()).into_iter().chain([LENGTH]) {
            state[3] ^= word;
            state = round(round(state));
            state[0] ^= word;
        }
        state[2] ^= 0xff;
        let [a, b, c, d] = round(round(round(round(state))));
        (a ^ b ^ c ^ d) & MASK
    }
}

/// Four words, the lowest byte first.
fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = eight.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

fn round([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let a = a.wrapping_add(b);
    let b = b.rotate_left(13) ^ a;
    let a = a.rotate_left(32);
    let c = c.wrapping_add(d);
    let d = d.rotate_left(16) ^ c;
    let a = a.wrapping_add(d);
    let d = d.rotate_left(21) ^ a;
    let c = c.wrapping_add(b);
    let b = b.rotate_left(17) ^ c;
    let c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use bitcoin::bip152::ShortId;

    use super::*;

    #[test]
    fn ids_are_those_of_another_library() {
        let mut header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
        for nonce in 0..200_u64 {
            header.nonce += 1;
            let block = CompactBlock { header, nonce: nonce << 40, short_ids: vec![], prefilled: vec![] };
            let wtxid = Wtxid::hash(&nonce.to_le_bytes());
            let theirs =
                ShortId::with_siphash_keys(&wtxid, ShortId::calculate_siphash_keys(&header, block.nonce));
            let ours = ShortIdKey::of(&block).short_id(&wtxid).to_le_bytes();
            assert_eq!((&ours[..6], &ours[6..]), (&theirs[..], &[0, 0][..]));
        }
    }
}
