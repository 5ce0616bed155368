//! The keyed hash by which outpoints are told apart.
//!
//! Multilinear hashing: the eight-byte words of an outpoint times secret numbers of sixteen bytes, summed, and of that
//! the upper half. For any two outpoints the odds that they meet are one in 2^64 over the choice of the secret, which
//! is of this folder and never told; so whoever makes transactions can do no better than chance, and coins are told
//! apart without reading txids. It costs a fraction of SipHash, and the part of the txid is shared by its outputs.
//! Source: D. Lemire and O. Kaser, "Strongly universal string hashing is fast", The Computer Journal 57 (2014).

use bitcoin::hashes::siphash24;
use bitcoin::{OutPoint, Txid};

use super::rows::CoinKey;
use crate::delta::tx_prefix;

/// The secret of a folder's bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u64; 2]);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutpointHash {
    first: u128,
    txid: [u128; 4],
    vout: u128,
}

/// The part of a transaction's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxHash {
    sum: u128,
    vout: u128,
}

impl OutpointHash {
    /// The numbers are drawn from the secret by SipHash-2-4 of their places: first the constant, then those of the
    /// txid's words, then that of the output, the upper half of each before the lower.
    pub(crate) fn new(secret: Secret) -> Self {
        let half =
            |at: u8| u128::from(siphash24::Hash::hash_to_u64_with_keys(secret.0[0], secret.0[1], &[at]));
        let number = |at: u8| half(2 * at) << 64 | half(2 * at + 1);
        Self { first: number(0), txid: [1, 2, 3, 4].map(number), vout: number(5) }
    }

    pub(crate) fn of_tx(&self, txid: &Txid) -> TxHash {
        let bytes: &[u8; 32] = txid.as_ref();
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u128::from(u64::from_le_bytes(*word)));
        let sum = words
            .zip(&self.txid)
            .fold(self.first, |sum, (word, number)| sum.wrapping_add(number.wrapping_mul(word)));
        TxHash { sum, vout: self.vout }
    }

    pub(crate) fn key(&self, outpoint: &OutPoint) -> CoinKey {
        let hash = self.of_tx(&outpoint.txid).of_output(outpoint.vout);
        CoinKey::new(tx_prefix(&outpoint.txid), outpoint.vout, hash)
    }
}

impl TxHash {
    pub(crate) fn of_output(&self, vout: u32) -> u64 {
        (self.sum.wrapping_add(self.vout.wrapping_mul(u128::from(vout))) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bitcoin::hashes::Hash;

    use super::*;

    #[test]
    fn it_is_what_its_words_say() {
        let secret = Secret([7, 8]);
        let half = |at: u8| u128::from(siphash24::Hash::hash_to_u64_with_keys(7, 8, &[at]));
        let bytes: [u8; 32] = std::array::from_fn(|at| at as u8);
        let outpoint = OutPoint::new(Txid::from_byte_array(bytes), 0x0102_0304);
        let words =
            [0x0706_0504_0302_0100u128, 0x0f0e_0d0c_0b0a_0908, 0x1716_1514_1312_1110, 0x1f1e_1d1c_1b1a_1918];
        let mut sum = half(0) << 64 | half(1);
        for (at, word) in (1u8..).zip(words.into_iter().chain([0x0102_0304])) {
            sum = sum.wrapping_add((half(2 * at) << 64 | half(2 * at + 1)).wrapping_mul(word));
        }
        assert_eq!(OutpointHash::new(secret).key(&outpoint).hash, (sum >> 64) as u64);
    }

    #[test]
    fn no_bit_of_an_outpoint_is_lost_and_another_secret_gives_another_hash() {
        let hash = OutpointHash::new(Secret([1, 2]));
        let zero = OutPoint::new(Txid::all_zeros(), 0);
        let mut seen = HashSet::from([hash.key(&zero).hash]);
        for bit in 0..256 {
            let mut bytes = [0; 32];
            bytes[bit / 8] = 1 << (bit % 8);
            assert!(seen.insert(hash.key(&OutPoint::new(Txid::from_byte_array(bytes), 0)).hash), "{bit}");
        }
        for bit in 0..32 {
            assert!(seen.insert(hash.key(&OutPoint::new(Txid::all_zeros(), 1 << bit)).hash), "{bit}");
        }
        assert!(seen.insert(OutpointHash::new(Secret([1, 3])).key(&zero).hash));
    }

    /// Outputs of few transactions, as an attacker would choose them: a table's places are shared out evenly.
    #[test]
    fn outputs_in_a_row_do_not_heap_up() {
        for secret in 0..20 {
            let hash = OutpointHash::new(Secret([secret, 99]));
            let mut counts = [0u32; 1 << 10];
            for tx in 0..64u8 {
                let of_tx = hash.of_tx(&Txid::from_byte_array([tx; 32]));
                for vout in 0..256 {
                    counts[of_tx.of_output(vout) as usize % (1 << 10)] += 1;
                }
            }
            let most = counts.iter().max().unwrap();
            assert!(*most < 128, "secret {secret}: {most} of 16 in one place");
        }
    }
}
