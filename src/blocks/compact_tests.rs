use bitcoin::absolute::LockTime;
use bitcoin::bip152::HeaderAndShortIds;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};

use super::*;

const ALICE: PeerId = PeerId(1);
const BOB: PeerId = PeerId(2);

fn transaction(number: u32) -> Transaction {
    let previous_output = OutPoint::new(Txid::from_byte_array([9; 32]), number);
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(u64::from(number)), script_pubkey: ScriptBuf::new() }],
    }
}

/// A coinbase and nine others.
fn block() -> Block {
    let mut block = bitcoin::constants::genesis_block(Network::Regtest);
    let mut coinbase = transaction(0);
    coinbase.input[0].previous_output = OutPoint::null();
    coinbase.input[0].script_sig = Builder::new().push_int(200).into_script();
    block.txdata = std::iter::once(coinbase).chain((1..10).map(transaction)).collect();
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}

/// As another library writes it, the coinbase prefilled.
fn compact(block: &Block) -> CompactBlock {
    let theirs = HeaderAndShortIds::from_block(block, 7, 2, &[]).unwrap();
    let short_ids = theirs.short_ids.iter().map(|id| {
        let bytes: [u8; 6] = *id.as_ref();
        bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    });
    let coinbase = serialize(&block.txdata[0]).into();
    CompactBlock {
        header: block.header,
        nonce: 7,
        short_ids: short_ids.collect(),
        prefilled: vec![(0, coinbase)],
    }
}

fn pool<'a>(of: impl Iterator<Item = &'a Transaction>) -> Vec<(Wtxid, Bytes)> {
    of.map(|tx| (tx.compute_wtxid(), serialize(tx).into())).collect()
}

/// Alice was asked for the block and sends it.
fn received(block: &Block, compact: &CompactBlock, pool: &[(Wtxid, Bytes)]) -> (CompactFetch, Step) {
    let mut fetch = CompactFetch::default();
    let hash = block.block_hash();
    assert_eq!(fetch.ask(ALICE, hash, true, true), Some(Inventory::compact_block(hash)));
    let step = fetch.handle_block(ALICE, compact, pool.iter().map(|(wtxid, raw)| (*wtxid, raw)));
    (fetch, step)
}

fn whole(block: &Block) -> Step {
    Step::Done { hash: block.block_hash(), block: WireBlock::unsummed(serialize(block).into()) }
}

fn request(block: &Block, positions: &[u16]) -> Step {
    Step::Ask(Message::GetBlockTxn { block: block.block_hash(), positions: positions.to_vec() })
}

#[test]
fn a_block_whose_transactions_are_here_is_whole_at_once() {
    let block = block();
    let strangers = [transaction(77), transaction(78)];
    let pool = pool(block.txdata.iter().chain(&strangers));
    let (mut fetch, step) = received(&block, &compact(&block), &pool);
    assert_eq!(step, whole(&block));
    assert_eq!(fetch.handle_transactions(ALICE, block.block_hash(), &[]), Step::Ignored);
}

#[test]
fn what_is_missing_is_asked_for_once() {
    let block = block();
    let pool = pool(block.txdata.iter().skip(1).filter(|tx| ![3, 8].contains(&tx.output[0].value.to_sat())));
    let (mut fetch, step) = received(&block, &compact(&block), &pool);
    assert_eq!(step, request(&block, &[3, 8]));
    let missing: Vec<Bytes> = [3, 8].map(|at: usize| serialize(&block.txdata[at]).into()).to_vec();
    assert_eq!(fetch.handle_transactions(BOB, block.block_hash(), &missing), Step::Ignored);
    assert_eq!(fetch.handle_transactions(ALICE, BlockHash::all_zeros(), &missing), Step::Ignored);
    assert!(fetch.is_asked(ALICE, &block.block_hash()));
    assert_eq!(fetch.handle_transactions(ALICE, block.block_hash(), &missing), whole(&block));
    assert_eq!(fetch.handle_transactions(ALICE, block.block_hash(), &missing), Step::Ignored);
}

#[test]
fn too_few_or_too_many_transactions_are_misbehavior() {
    let block = block();
    let raw: Bytes = serialize(&block.txdata[1]).into();
    for answer in [0, 1, 8, 10] {
        let (mut fetch, step) = received(&block, &compact(&block), &[]);
        assert_eq!(step, request(&block, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
        let step = fetch.handle_transactions(ALICE, block.block_hash(), &vec![raw.clone(); answer]);
        assert!(matches!(step, Step::Drop { why: Misbehavior::BadMessage(_), .. }), "{answer}: {step:?}");
        assert!(!fetch.is_asked(ALICE, &block.block_hash()));
    }
}

#[test]
fn other_transactions_than_the_blocks_lead_to_the_whole_block() {
    let block = block();
    let (mut fetch, _) = received(&block, &compact(&block), &[]);
    let wrong = vec![serialize(&transaction(50)).into(); 9];
    let step = fetch.handle_transactions(ALICE, block.block_hash(), &wrong);
    assert_eq!(step, Step::FetchWhole { hash: block.block_hash() });
}

#[test]
fn two_equal_short_ids_lead_to_the_whole_block() {
    let block = block();
    let mut compact = compact(&block);
    compact.short_ids[3] = compact.short_ids[5];
    let (_, step) = received(&block, &compact, &pool(block.txdata.iter()));
    assert_eq!(step, Step::FetchWhole { hash: block.block_hash() });
}

#[test]
fn of_two_candidates_with_one_id_neither_is_taken() {
    let block = block();
    let compact = compact(&block);
    // An id of one that is not in the block takes the place of another's.
    let key = ShortIdKey::of(&compact);
    let right = pool(block.txdata.iter());
    let (wtxid, raw) = right[4].clone();
    let twice: Vec<_> = right.iter().cloned().chain([(wtxid, raw)]).collect();
    assert_eq!(received(&block, &compact, &twice).1, whole(&block));
    let mut swapped = compact.clone();
    let stranger = transaction(99);
    swapped.short_ids[3] = key.short_id(&stranger.compute_wtxid());
    let with_stranger = pool(block.txdata.iter().chain([&stranger]));
    let (_, step) = received(&block, &swapped, &with_stranger);
    assert_eq!(step, Step::FetchWhole { hash: block.block_hash() });
}

#[test]
fn positions_that_the_block_does_not_have_are_misbehavior() {
    let block = block();
    let right = compact(&block);
    let coinbase = right.prefilled[0].1.clone();
    let behind = CompactBlock { prefilled: vec![(10, coinbase.clone())], ..right.clone() };
    let twice = CompactBlock { prefilled: vec![(0, coinbase.clone()), (0, coinbase)], ..right.clone() };
    let empty = CompactBlock { prefilled: vec![], short_ids: vec![], ..right.clone() };
    let huge = CompactBlock { short_ids: (0..100_000).collect(), ..right };
    for wrong in [behind, twice, empty, huge] {
        let (_, step) = received(&block, &wrong, &[]);
        assert!(matches!(step, Step::Drop { .. }), "{step:?}");
    }
}

#[test]
fn only_a_block_at_the_tip_is_asked_for_so_and_only_what_was_asked_for_is_looked_at() {
    let block = block();
    let (hash, compact) = (block.block_hash(), compact(&block));
    let mut fetch = CompactFetch::default();
    assert_eq!(fetch.ask(ALICE, hash, false, true), None);
    assert_eq!(fetch.ask(ALICE, hash, true, false), None);
    assert_eq!(fetch.handle_block(ALICE, &compact, std::iter::empty()), Step::Ignored);
    assert!(fetch.ask(ALICE, BlockHash::all_zeros(), true, true).is_some());
    assert_eq!(fetch.ask(ALICE, hash, true, true), None);
    assert_eq!(fetch.handle_block(ALICE, &compact, std::iter::empty()), Step::Ignored);
    fetch.forget(ALICE);
    assert!(fetch.ask(ALICE, hash, true, true).is_some());
    assert_eq!(fetch.handle_block(BOB, &compact, std::iter::empty()), Step::Ignored);
    let all = pool(block.txdata.iter());
    assert_eq!(fetch.handle_block(ALICE, &compact, all.iter().map(|(id, raw)| (*id, raw))), whole(&block));
}
