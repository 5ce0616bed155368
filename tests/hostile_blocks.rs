//! Real blocks, damaged: nothing panics, and no other bytes pass for a block that is known.
//!
//! A block's hash covers its header, the merkle root its transactions, the commitment its witnesses. So bytes that
//! differ and pass would be either another block, or another way to write the same one: the store keeps the bytes
//! as they came, and must have one way only.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Block, Network};
use bytes::Bytes;
use chainstore::Height;
use peerdex::validate::{BlockContext, BlockError, CheckedBlock, Params, Verdict, check_block};

#[path = "support/fixtures.rs"]
#[allow(dead_code, reason = "no runs of blocks here")]
mod fixtures;

/// Bytes of the header that neither the merkle root nor the rules of rungs 3 and 4 look at: all but the root.
const ROOT: std::ops::Range<usize> = 36..68;
const HEADER_BYTES: usize = 80;

struct Real {
    network: Network,
    height: Height,
    raw: Vec<u8>,
}

impl Real {
    fn new(network: Network, folder: &str, file: &str, height: u32) -> Self {
        let raw = fixtures::block(&format!("blocks/{folder}/{file}"));
        let real = Self { network, height: Height(height), raw };
        real.check(&real.raw).unwrap();
        real
    }

    fn check(&self, raw: &[u8]) -> Result<CheckedBlock, BlockError> {
        // Any time later than the real one would do: no lock may be what refuses a damaged block.
        let context = BlockContext { height: self.height, parent_mtp: u32::MAX };
        check_block(Bytes::copy_from_slice(raw), &context, &Params::of(self.network))
    }

    /// The damaged bytes are refused, unless the damage is to the header alone: then it is another block, whose
    /// hash tells.
    fn assert_refused_or_another(&self, raw: &[u8], what: &str) {
        match self.check(raw) {
            Ok(checked) => {
                assert_eq!(raw[HEADER_BYTES..], self.raw[HEADER_BYTES..], "{what}");
                assert_eq!(raw[ROOT], self.raw[ROOT], "{what}");
                assert_ne!(checked.hash(), self.check(&self.raw).unwrap().hash(), "{what}");
                // Signet's miners sign most of the header.
                assert!(
                    self.network != Network::Signet || raw[..ROOT.end + 4] == self.raw[..ROOT.end + 4],
                    "{what}"
                );
            }
            Err(error) if raw.get(..HEADER_BYTES) == Some(&self.raw[..HEADER_BYTES]) => {
                // The header is the real one, and must not be condemned for what somebody did to the rest.
                assert_eq!(error.verdict(), Verdict::Mutated, "{what}: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Small ones, of all kinds: with and without witnesses, before and after BIP34, with a solution.
fn small() -> Vec<Real> {
    vec![
        Real::new(Network::Bitcoin, "mainnet", "block-0000170.bin", 170),
        Real::new(Network::Bitcoin, "mainnet", "block-0363725.bin", 363_725),
        Real::new(Network::Testnet, "testnet3", "block-0700000.bin", 700_000),
        Real::new(Network::Testnet, "testnet3", "block-0924634.bin", 924_634),
        Real::new(Network::Testnet4, "testnet4", "block-0040000.bin", 40_000),
        Real::new(Network::Signet, "signet", "block-0031500.bin", 31_500),
    ]
}

#[test]
fn no_flipped_bit_passes_for_the_block() {
    for real in small() {
        let mut raw = real.raw.clone();
        for bit in 0..raw.len() * 8 {
            // All bits of the small ones, of the others every seventh.
            if real.raw.len() > 1_000 && bit % 7 != 0 {
                continue;
            }
            raw[bit / 8] ^= 1 << (bit % 8);
            real.assert_refused_or_another(&raw, &format!("{} {} bit {bit}", real.network, real.height));
            raw[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(raw, real.raw);
    }
}

#[test]
fn no_truncated_or_lengthened_block_passes() {
    for real in small() {
        for length in 0..real.raw.len() {
            let error = real.check(&real.raw[..length]).unwrap_err();
            assert_eq!(error.verdict(), Verdict::Mutated, "{} of {length} bytes", real.height);
        }
        for trailer in [&[0][..], &[0xff; 9], &real.raw] {
            let error = real.check(&[&real.raw, trailer].concat()).unwrap_err();
            assert_eq!(error.reject_reason(), "block-undecodable", "{}", real.height);
        }
    }
}

#[test]
fn random_damage_never_passes_and_never_panics() {
    let reals = small();
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let real = &reals[rng.usize(..reals.len())];
        let mut raw = real.raw.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(HEADER_BYTES..raw.len());
            match rng.u8(..6) {
                0 => raw[at] = rng.u8(..),
                1 => drop(raw.remove(at)),
                2 => raw.insert(at, rng.u8(..)),
                3 => raw.truncate(at.max(HEADER_BYTES + 1)),
                4 => raw[at] = *rng.choice(&[0, 1, 0xfc, 0xfd, 0xfe, 0xff]).unwrap(),
                _ => {
                    // A part over again.
                    let end = rng.usize(at..=raw.len());
                    let part = raw[at..end].to_vec();
                    raw.splice(at..at, part);
                }
            }
        }
        if raw != real.raw {
            let error = real.check(&raw).expect_err(&format!("seed {seed}"));
            assert_eq!(error.verdict(), Verdict::Mutated, "seed {seed}: {error}");
        }
    }
}

#[test]
fn announced_lengths_allocate_nothing() {
    let real = &small()[0];
    // The count of transactions, and then that of the first one's inputs, is the largest that can be written.
    for at in [HEADER_BYTES, HEADER_BYTES + 5] {
        let raw = [&real.raw[..at], &[0xff; 9], &real.raw[at + 1..]].concat();
        assert_eq!(real.check(&raw).unwrap_err().reject_reason(), "block-undecodable");
    }
    assert_eq!(real.check(&vec![0; 4_000_001]).unwrap_err().reject_reason(), "block-undecodable");
}

#[test]
fn a_number_is_written_one_way_only() {
    for real in small() {
        let count = real.raw[HEADER_BYTES];
        assert!(count < 0xfd);
        for long in [vec![0xfd, count, 0], vec![0xfe, count, 0, 0, 0], vec![0xff, count, 0, 0, 0, 0, 0, 0, 0]]
        {
            // The count of transactions.
            let raw = [&real.raw[..HEADER_BYTES], &long, &real.raw[HEADER_BYTES + 1..]].concat();
            assert_eq!(real.check(&raw).unwrap_err().reject_reason(), "block-undecodable", "{}", real.height);
        }
        // The counts of the coinbase's inputs: where a witness flag stands between, two bytes on.
        let flag = if real.raw[HEADER_BYTES + 5] == 0 { 2 } else { 0 };
        let inputs = HEADER_BYTES + 5 + flag;
        assert_eq!(real.raw[inputs], 1);
        let raw = [&real.raw[..inputs], &[0xfd, 1, 0], &real.raw[inputs + 1..]].concat();
        assert_eq!(real.check(&raw).unwrap_err().reject_reason(), "block-undecodable", "{}", real.height);
    }
}

#[test]
fn a_witness_flag_stands_only_before_witnesses() {
    for real in small() {
        let block: Block = deserialize(&real.raw).unwrap();
        // The last transaction, written again with a flag and witnesses that are empty.
        let last = block.txdata.last().unwrap();
        let mut bare = last.clone();
        bare.input.iter_mut().for_each(|input| input.witness.clear());
        let plain = serialize(&bare);
        let (version, rest) = plain.split_at(4);
        let (body, lock_time) = rest.split_at(rest.len() - 4);
        let empty = vec![0; bare.input.len()];
        let before = &real.raw[..real.raw.len() - serialize(last).len()];
        for flag in [0, 1, 2, 3, 0x80] {
            let raw = [before, version, &[0, flag], body, &empty, lock_time].concat();
            let error = real.check(&raw).unwrap_err();
            assert_eq!(error.reject_reason(), "block-undecodable", "{} flag {flag}", real.height);
        }
    }
}

#[test]
fn big_blocks_do_not_panic_either() {
    let real = Real::new(Network::Bitcoin, "mainnet", "block-0367891.bin.zst", 367_891);
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut raw = real.raw.clone();
        let at = rng.usize(HEADER_BYTES..raw.len());
        raw[at] ^= 1 << rng.u8(..8);
        real.assert_refused_or_another(&raw, &format!("seed {seed}"));
        raw.truncate(at);
        assert_eq!(real.check(&raw).unwrap_err().reject_reason(), "block-undecodable", "seed {seed}");
    }
}
