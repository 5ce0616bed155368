//! The header rules, each broken alone.

use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{Network, TxMerkleNode};

use super::*;

/// A chain that is only times and bits, from genesis.
#[derive(Clone)]
struct Chain(Vec<(u32, CompactTarget)>);

impl Chain {
    /// `count` blocks ten minutes apart, all with the same bits.
    fn steady(count: u32, bits: u32) -> Self {
        Self((0..count).map(|i| (1_600_000_000 + i * 600, CompactTarget::from_consensus(bits))).collect())
    }

    fn tip_time(&self) -> u32 {
        self.0[self.0.len() - 1].0
    }
}

impl Ancestors for Chain {
    fn tip_height(&self) -> Height {
        Height(self.0.len() as u32 - 1)
    }

    fn time(&self, height: Height) -> u32 {
        self.0[height.0 as usize].0
    }

    fn bits(&self, height: Height) -> CompactTarget {
        self.0[height.0 as usize].1
    }
}

const HARD: u32 = 0x1b00_ffff;
const EASIEST: u32 = 0x1d00_ffff;

fn bits(consensus: u32) -> CompactTarget {
    CompactTarget::from_consensus(consensus)
}

/// A header that follows the rules on top of `chain`, as far as they need no proof of work.
fn next(chain: &Chain, params: &Params) -> Header {
    let time = chain.tip_time() + 600;
    Header {
        version: Version::from_consensus(4),
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: next_work_required(chain, time, params),
        nonce: 0,
    }
}

fn now_of(header: &Header) -> u64 {
    u64::from(header.time)
}

fn hash_with_leading(bytes: &[u8]) -> BlockHash {
    let mut hash = [0; 32];
    hash[..bytes.len()].copy_from_slice(bytes);
    hash.reverse();
    BlockHash::from_byte_array(hash)
}

#[test]
fn a_hash_must_meet_the_target_of_its_bits() {
    let params = Params::of(Network::Bitcoin);
    let mut header = params.genesis.header;
    assert_eq!(check_proof_of_work(&header, header.block_hash(), &params), Ok(()));

    header.nonce += 1;
    let error = check_proof_of_work(&header, header.block_hash(), &params).unwrap_err();
    assert_eq!(error.reject_reason(), "high-hash");

    let at_target = hash_with_leading(&[0, 0, 0, 0, 0xff, 0xff]);
    let above = hash_with_leading(&[0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1]);
    assert!(check_proof_of_work(&header, at_target, &params).is_ok());
    assert!(check_proof_of_work(&header, above, &params).is_err());
}

#[test]
fn absurd_bits_are_no_target() {
    let zero = BlockHash::all_zeros();
    for (absurd, why) in [
        (0, "zero"),
        (0x1d00_0000, "a zero mantissa"),
        (0x0100_0100, "a mantissa shifted to nothing"),
        (0x1d80_ffff, "negative"),
        (0x01fe_dcba, "negative, though the sign is shifted out"),
        (0x2300_0001, "over 256 bits"),
        (0x2200_0100, "over 256 bits by its middle byte"),
        (0x2101_0000, "over 256 bits by its high byte"),
        (0xff12_3456, "over 256 bits by far"),
    ] {
        assert_eq!(target_of(bits(absurd)), None, "{why}");
        let mut header = Params::of(Network::Regtest).genesis.header;
        header.bits = bits(absurd);
        assert!(check_proof_of_work(&header, zero, &Params::of(Network::Regtest)).is_err(), "{why}");
    }
}

#[test]
fn targets_easier_than_the_network_allows_prove_nothing() {
    let zero = BlockHash::all_zeros();
    for (network, limit, above) in [
        (Network::Bitcoin, 0x1d00_ffff, 0x1d01_0000),
        (Network::Testnet, 0x1d00_ffff, 0x1d01_0000),
        (Network::Testnet4, 0x1d00_ffff, 0x1d01_0000),
        (Network::Signet, 0x1e03_77ae, 0x1e03_77af),
        (Network::Regtest, 0x207f_ffff, 0x2100_8000),
    ] {
        let params = Params::of(network);
        let mut header = params.genesis.header;
        header.bits = bits(limit);
        assert!(check_proof_of_work(&header, zero, &params).is_ok(), "{network}");
        header.bits = bits(above);
        assert!(check_proof_of_work(&header, zero, &params).is_err(), "{network}");
    }
}

#[test]
fn targets_are_read_as_by_the_library_where_both_are_defined() {
    for size in 3..=32 {
        for mantissa in [0x01_0000, 0x00_8000, 0x12_3456, 0x7f_ffff] {
            let bits = bits(size << 24 | mantissa);
            assert_eq!(target_of(bits), Some(Target::from_compact(bits)), "{bits:x}");
        }
    }
}

#[test]
fn bits_must_be_the_ones_that_the_chain_requires() {
    let params = Params::of(Network::Bitcoin);
    let chain = Chain::steady(100, HARD);
    let mut header = next(&chain, &params);
    assert_eq!(check_header(&header, &chain, now_of(&header), &params), Ok(()));

    header.bits = bits(HARD - 1);
    let error = check_header(&header, &chain, now_of(&header), &params).unwrap_err();
    assert_eq!(error, HeaderError::BadDiffBits { found: bits(HARD - 1), required: bits(HARD) });
    assert_eq!(error.reject_reason(), "bad-diffbits");
}

#[test]
fn a_period_in_its_time_keeps_its_difficulty_but_for_the_missing_spacing() {
    let params = Params::of(Network::Bitcoin);
    let chain = Chain::steady(2016, HARD);
    // 2,015 spacings pass for 2,016: 0xffff * 2015 / 2016 = 0xffde.
    assert_eq!(next(&chain, &params).bits, bits(0x1b00_ffde));
}

#[test]
fn difficulty_changes_by_a_factor_of_four_at_most() {
    let params = Params::of(Network::Bitcoin);
    let mut slow = Chain::steady(2016, HARD);
    slow.0[2015].0 += 10 * RETARGET_TIMESPAN;
    assert_eq!(next(&slow, &params).bits, bits(0x1b03_fffc));

    let mut quick = Chain::steady(2016, HARD);
    quick.0[2015].0 = quick.0[0].0 + 1;
    assert_eq!(next(&quick, &params).bits, bits(0x1a3f_ffc0));
}

#[test]
fn a_period_that_ends_before_it_started_counts_as_the_shortest() {
    let params = Params::of(Network::Testnet);
    let mut chain = Chain::steady(2016, HARD);
    chain.0[2015].0 = chain.0[0].0 - 8 * RETARGET_TIMESPAN;
    assert_eq!(next_work_required(&chain, 0, &params), bits(0x1a3f_ffc0));
}

#[test]
fn the_easiest_target_gets_no_easier() {
    for (network, easiest) in [(Network::Bitcoin, EASIEST), (Network::Signet, 0x1e03_77ae)] {
        let mut chain = Chain::steady(2016, easiest);
        chain.0[2015].0 += 3 * RETARGET_TIMESPAN;
        let params = Params::of(network);
        assert_eq!(next(&chain, &params).bits, bits(easiest), "{network}");
    }
}

#[test]
fn after_twenty_minutes_a_test_network_takes_the_easiest_target_and_then_forgets_it() {
    let params = Params::of(Network::Testnet);
    let mut chain = Chain::steady(100, HARD);
    let tip = chain.tip_time();
    assert_eq!(next_work_required(&chain, tip + 1_200, &params), bits(HARD));
    assert_eq!(next_work_required(&chain, tip + 1_201, &params), bits(EASIEST));

    for _ in 0..5 {
        chain.0.push((chain.tip_time() + 1_201, bits(EASIEST)));
    }
    assert_eq!(next_work_required(&chain, chain.tip_time() + 600, &params), bits(HARD));
    let mainnet = Params::of(Network::Bitcoin);
    assert_eq!(next_work_required(&chain, chain.tip_time() + 1_201, &mainnet), bits(EASIEST));
}

#[test]
fn the_search_for_the_last_real_difficulty_ends_with_its_period() {
    let params = Params::of(Network::Testnet);
    let mut chain = Chain::steady(2017, HARD);
    for block in &mut chain.0[2016..] {
        block.1 = bits(EASIEST);
    }
    for _ in 0..3 {
        chain.0.push((chain.tip_time() + 1_201, bits(EASIEST)));
    }
    assert_eq!(next_work_required(&chain, chain.tip_time() + 600, &params), bits(EASIEST));
}

#[test]
fn an_easy_block_at_the_end_of_a_period_spoils_testnet3_but_not_testnet4() {
    let mut chain = Chain::steady(2015, HARD);
    chain.0.push((chain.tip_time() + 600, bits(EASIEST)));
    let testnet3 = next(&chain, &Params::of(Network::Testnet)).bits;
    let testnet4 = next(&chain, &Params::of(Network::Testnet4)).bits;
    assert_eq!(testnet3, bits(0x1d00_ffde));
    assert_eq!(testnet4, bits(0x1b00_ffde));
}

#[test]
fn regtest_never_changes_its_difficulty() {
    let params = Params::of(Network::Regtest);
    for count in [1, 500, 2015, 2016, 2017] {
        let mut chain = Chain::steady(count, 0x207f_ffff);
        chain.0[count as usize - 1].0 += 1;
        assert_eq!(next(&chain, &params).bits, bits(0x207f_ffff));
    }
}

#[test]
fn a_block_is_later_than_the_median_of_the_eleven_below() {
    let params = Params::of(Network::Bitcoin);
    let chain = Chain::steady(100, HARD);
    let median = chain.0[94].0;
    assert_eq!(median_time_past(&chain), median);

    let mut header = next(&chain, &params);
    header.time = median;
    let error = check_header(&header, &chain, now_of(&header), &params).unwrap_err();
    assert_eq!(error, HeaderError::TimeTooOld { time: median, median });
    assert_eq!(error.reject_reason(), "time-too-old");
    header.time = median + 1;
    assert_eq!(check_header(&header, &chain, now_of(&header), &params), Ok(()));
}

#[test]
fn near_genesis_the_median_is_of_what_there_is() {
    for (count, expected) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5), (11, 5), (12, 6)] {
        let chain = Chain::steady(count, HARD);
        assert_eq!(median_time_past(&chain), chain.0[expected].0, "of {count} blocks");
    }
}

#[test]
fn the_median_does_not_care_for_the_order_of_times() {
    let mut chain = Chain::steady(11, HARD);
    chain.0.reverse();
    assert_eq!(median_time_past(&chain), chain.0[5].0);
}

#[test]
fn a_header_from_the_future_may_be_tried_again_later() {
    let params = Params::of(Network::Bitcoin);
    let chain = Chain::steady(100, HARD);
    let header = next(&chain, &params);
    let early = now_of(&header) - MAX_FUTURE_BLOCK_TIME - 1;

    let error = check_header(&header, &chain, early, &params).unwrap_err();
    assert_eq!(error.reject_reason(), "time-too-new");
    assert_eq!(error.retry_at(), Some(early + 1));
    assert_eq!(check_header(&header, &chain, early + 1, &params), Ok(()));
    assert_eq!(check_without_clock(&header, &chain, &params), Ok(()));
}

#[test]
fn bip94_dates_the_first_block_of_a_period_at_most_ten_minutes_back() {
    let params = Params::of(Network::Testnet4);
    let mut chain = Chain::steady(2016, HARD);
    // A block far ahead of the median, as a time warp needs.
    chain.0[2015].0 += 7_000;
    let mut header = next(&chain, &params);

    header.time = chain.tip_time() - 601;
    let error = check_header(&header, &chain, now_of(&header), &params).unwrap_err();
    assert_eq!(error.reject_reason(), "time-timewarp-attack");
    assert_eq!(error.retry_at(), None);
    header.time = chain.tip_time() - 600;
    assert_eq!(check_header(&header, &chain, now_of(&header), &params), Ok(()));

    header.time = chain.tip_time() - 601;
    let testnet3 = Params { bip94: false, ..params };
    assert_eq!(check_header(&header, &chain, now_of(&header), &testnet3), Ok(()));
}

#[test]
fn versions_go_up_at_the_heights_of_the_soft_forks() {
    // Heights of mainnet, moved down so that the chain stays short.
    let params =
        Params { bip34_height: 20, bip66_height: 30, bip65_height: 40, ..Params::of(Network::Bitcoin) };
    for (height, lowest) in [(19, 1), (20, 2), (29, 2), (30, 3), (39, 3), (40, 4), (50, 4)] {
        let chain = Chain::steady(height, HARD);
        let mut header = next(&chain, &params);
        header.version = Version::from_consensus(lowest);
        assert_eq!(check_header(&header, &chain, now_of(&header), &params), Ok(()), "at {height}");
        header.version = Version::from_consensus(lowest - 1);
        let result = check_header(&header, &chain, now_of(&header), &params);
        if height >= 20 {
            let error = result.unwrap_err();
            assert_eq!(error.reject_reason(), format!("bad-version(0x0000000{})", lowest - 1));
        } else {
            assert_eq!(result, Ok(()), "any version before BIP34");
        }
    }
}

#[test]
fn negative_versions_are_low_and_said_as_core_says_them() {
    let params = Params::of(Network::Regtest);
    let chain = Chain::steady(5, 0x207f_ffff);
    let mut header = next(&chain, &params);
    header.version = Version::from_consensus(-1);
    let error = check_header(&header, &chain, now_of(&header), &params).unwrap_err();
    assert_eq!(error.reject_reason(), "bad-version(0xffffffff)");
}

#[test]
fn work_is_the_number_of_hashes_it_takes() {
    assert_eq!(work_of(bits(EASIEST)).to_string(), "4295032833");
    assert_eq!(work_of(bits(0x207f_ffff)).to_string(), "2");
    assert_eq!(work_of(bits(0)).to_string(), "0");
}
