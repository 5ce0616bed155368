//! What one block tells of fees.
//!
//! A parent that pays little is mined for its child's fee, and the block tells nothing of what the parent alone would
//! have needed. So transactions that hang together in the block are put into chunks: whatever is mined for one price.

use std::collections::HashMap;

use bitcoin::{BlockHash, Transaction, Txid};
use chainstore::Height;

use super::super::policy::FeeRate;
use crate::validate::ConnectedBlock;

/// Weight from which a block is full: what is left is what a miner keeps for the coinbase, and gaps.
const FULL_WEIGHT: u64 = 3_800_000;
/// Share of the block, cheapest first, that tells nothing: paid for in other ways than by fees.
const OUT_OF_BAND: f64 = 0.02;
/// The 20th percentile counted from there is what would have been enough with some certainty.
const ENOUGH: f64 = 0.20;

/// How far a block was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// Room was short, so its fees are the price of room.
    Full,
    /// There was room for whatever is relayed at all.
    Room,
    /// It tells nothing, as a block whose miner took no transactions.
    Nothing,
}

/// What one connected block tells of fees. Feerates are those of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFees {
    pub hash: BlockHash,
    pub height: Height,
    pub(super) fill: Fill,
    /// Weight units of all but the coinbase.
    pub(super) weight: u64,
    /// The cheapest that was mined for its fee.
    pub(super) least: FeeRate,
    /// The feerate that would have been enough: the 20th percentile of its bytes without the cheapest.
    pub(super) enough: FeeRate,
    /// Half of its bytes pay less.
    pub(super) middle: FeeRate,
}

/// One transaction of a block, as its fees go. The coinbase is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTransaction {
    /// Satoshi.
    pub fee: u64,
    pub weight: u64,
    /// Positions in the same list of earlier transactions that it spends from.
    pub parents: Vec<usize>,
}

impl BlockFees {
    /// Reads the fees of a connected block.
    pub fn of(connected: &ConnectedBlock) -> Self {
        let checked = connected.checked();
        let (outline, spent) = (checked.outline(), connected.spent());
        let transactions = checked.sums().enumerate().skip(1).map(|(position, (paid_out, weight))| {
            let inputs = outline.inputs_of(position);
            let paid_in: u64 = spent[inputs.clone()].iter().map(|coin| coin.value.to_sat()).sum();
            let makers = outline.inputs()[inputs].iter().filter_map(|input| input.maker());
            BlockTransaction {
                fee: paid_in.saturating_sub(paid_out),
                weight,
                // The coinbase is none, so it is nobody's parent, and positions are one less.
                parents: makers.filter_map(|maker| maker.checked_sub(1)).collect(),
            }
        });
        Self::of_transactions(checked.hash(), checked.height(), &transactions.collect::<Vec<_>>())
    }

    /// The same from a block's transactions, in its order.
    pub fn of_transactions(hash: BlockHash, height: Height, transactions: &[BlockTransaction]) -> Self {
        let weight: u64 = transactions.iter().map(|tx| tx.weight).sum();
        let fill = match weight {
            0 => Fill::Nothing,
            FULL_WEIGHT.. => Fill::Full,
            1.. => Fill::Room,
        };
        let mut chunks: Vec<(FeeRate, u64)> =
            chunks(transactions).iter().map(|(fee, weight)| (rate(*fee, *weight), *weight)).collect();
        chunks.sort_unstable();
        let at = |share: f64| {
            let mut left = (weight as f64 * share) as u64;
            let reached = chunks.iter().find(|(_, weight)| match left.checked_sub(*weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
            reached.or(chunks.last()).map_or(FeeRate(0), |(rate, _)| *rate)
        };
        let of_rest = |share: f64| at(OUT_OF_BAND + (1.0 - OUT_OF_BAND) * share);
        Self {
            hash,
            height,
            fill,
            weight,
            least: of_rest(0.0),
            enough: of_rest(ENOUGH),
            middle: of_rest(0.5),
        }
    }

    /// The feerate that would have been enough for this block: the 20th percentile of its bytes, without the
    /// cheapest 2 %.
    pub fn enough(&self) -> FeeRate {
        self.enough
    }
}

/// By weight, as vsizes are rounded up and do not add up.
fn rate(fee: u64, weight: u64) -> FeeRate {
    FeeRate((u128::from(fee) * 4_000 / u128::from(weight.max(1))) as u64)
}

/// Fee and weight of each chunk.
///
/// The miner's order is taken as the order in which each cluster is mined; a transaction that pays more than the chunk
/// before it, in its own cluster, is mined for that chunk too and joins it.
fn chunks(transactions: &[BlockTransaction]) -> Vec<(u64, u64)> {
    let clusters = clusters(transactions);
    // Of each cluster, by its first transaction, its chunks so far.
    let mut open: HashMap<usize, Vec<(u64, u64)>> = HashMap::new();
    for (tx, cluster) in transactions.iter().zip(clusters) {
        let chunks = open.entry(cluster).or_default();
        let mut last = (tx.fee, tx.weight);
        while let Some((fee, weight)) = chunks.pop() {
            if u128::from(last.0) * u128::from(weight) <= u128::from(fee) * u128::from(last.1) {
                chunks.push((fee, weight));
                break;
            }
            last = (last.0 + fee, last.1 + weight);
        }
        chunks.push(last);
    }
    open.into_values().flatten().collect()
}

/// Of each transaction, one that stands for all that hang together with it.
fn clusters(transactions: &[BlockTransaction]) -> Vec<usize> {
    let mut leader: Vec<usize> = (0..transactions.len()).collect();
    for (position, tx) in transactions.iter().enumerate() {
        for parent in tx.parents.iter().filter(|parent| **parent < position) {
            let (one, other) = (find(&mut leader, position), find(&mut leader, *parent));
            leader[one.max(other)] = one.min(other);
        }
    }
    (0..transactions.len()).map(|position| find(&mut leader, position)).collect()
}

fn find(leader: &mut [usize], mut of: usize) -> usize {
    while leader[of] != of {
        // Shortens the way for the next who asks.
        leader[of] = leader[leader[of]];
        of = leader[of];
    }
    of
}

/// How much of a block we had before it came, by weight: what shows how complete our mempool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// Weight of the transactions that we had.
    pub had: u64,
    /// Weight of all but the coinbase.
    pub all: u64,
}

impl Covered {
    /// Counts a block's transactions, the coinbase among them but not counted, by whether `had` knows them; ask before they
    /// leave the pool.
    pub fn of<'a>(
        transactions: impl IntoIterator<Item = (&'a Transaction, &'a Txid)>,
        mut had: impl FnMut(&Txid) -> bool,
    ) -> Self {
        let mut covered = Self::default();
        for (tx, txid) in transactions.into_iter().skip(1) {
            let weight = tx.weight().to_wu();
            covered.all += weight;
            covered.had += if had(txid) { weight } else { 0 };
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::script::Builder;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut};
    use chainstore::{Coin, ScriptClass, ScriptHash, TxNum};

    use super::*;
    use crate::validate::{BlockContext, Params, SpendContext, check_block, connect_block};

    fn tx(fee: u64, weight: u64, parents: &[usize]) -> BlockTransaction {
        BlockTransaction { fee, weight, parents: parents.to_vec() }
    }

    fn block(transactions: &[BlockTransaction]) -> BlockFees {
        BlockFees::of_transactions(BlockHash::all_zeros(), Height(1), transactions)
    }

    fn sorted(transactions: &[BlockTransaction]) -> Vec<(u64, u64)> {
        let mut found = chunks(transactions);
        found.sort_unstable();
        found
    }

    #[test]
    fn a_child_that_pays_for_its_parent_makes_one_chunk_with_it() {
        assert_eq!(sorted(&[tx(10, 400, &[]), tx(990, 600, &[0])]), [(1_000, 1_000)]);
    }

    #[test]
    fn a_child_that_pays_less_than_its_parent_is_a_chunk_of_its_own() {
        assert_eq!(sorted(&[tx(990, 600, &[]), tx(10, 400, &[0])]), [(10, 400), (990, 600)]);
    }

    #[test]
    fn strangers_between_parent_and_child_keep_out_of_the_chunk() {
        let found = sorted(&[tx(0, 400, &[]), tx(500, 400, &[]), tx(2_000, 400, &[0])]);
        assert_eq!(found, [(500, 400), (2_000, 800)]);
    }

    #[test]
    fn a_child_joins_all_chunks_that_it_lifts() {
        let found = sorted(&[tx(10, 100, &[]), tx(5, 100, &[0]), tx(100, 100, &[1]), tx(1, 100, &[2])]);
        assert_eq!(found, [(1, 100), (115, 300)]);
        let two_parents = sorted(&[tx(1, 100, &[]), tx(2, 100, &[]), tx(300, 100, &[0, 1])]);
        assert_eq!(two_parents, [(303, 300)]);
    }

    #[test]
    fn the_cheapest_fiftieth_of_a_block_is_not_its_price() {
        let mut transactions = vec![tx(0, 40_000, &[])];
        transactions.extend((0..960).map(|_| tx(5_000, 4_000, &[])));
        let block = block(&transactions);
        assert_eq!((block.fill, block.enough(), block.middle), (Fill::Full, FeeRate(5_000), FeeRate(5_000)));
    }

    #[test]
    fn a_fifth_of_the_block_pays_less_than_enough() {
        let transactions: Vec<_> = (0..1_000).map(|rate| tx(rate * 4, 4_000, &[])).collect();
        let block = block(&transactions);
        assert_eq!((block.enough(), block.middle), (FeeRate(864), FeeRate(2_040)));
    }

    #[test]
    fn a_block_says_how_far_it_was_filled() {
        assert_eq!(block(&[]).fill, Fill::Nothing);
        assert_eq!(block(&[tx(5, 400, &[])]).fill, Fill::Room);
        assert_eq!(block(&[tx(5, 3_900_000, &[])]).fill, Fill::Full);
    }

    /// A coinbase, a transaction, its child, and one that has nothing to do with them; 1,000 satoshi come in each time.
    fn connected() -> ConnectedBlock {
        let spend = |previous_output: OutPoint, paid: u64| Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { previous_output, ..TxIn::default() }],
            output: vec![TxOut { value: Amount::from_sat(paid), script_pubkey: ScriptBuf::new() }],
        };
        let mut coinbase = spend(OutPoint::null(), 0);
        coinbase.input[0].script_sig = Builder::new().push_int(200).push_int(0).into_script();
        let from_chain = |byte: u8| OutPoint::new(Txid::from_byte_array([byte; 32]), 0);
        let parent = spend(from_chain(1), 1_000);
        let child = spend(OutPoint::new(parent.compute_txid(), 0), 400);
        let stranger = spend(from_chain(2), 900);
        let mut block = bitcoin::constants::genesis_block(Network::Regtest);
        block.txdata = vec![coinbase, parent, stranger, child];
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let params = Params::of(Network::Regtest);
        let context = BlockContext { height: Height(200), parent_mtp: 0 };
        let checked = check_block(bitcoin::consensus::serialize(&block).into(), &context, &params).unwrap();
        let coin = Coin {
            value: Amount::from_sat(1_000),
            tx_num: TxNum(1),
            height: Height(1),
            is_coinbase: false,
            class: ScriptClass::Other,
            script_key: ScriptHash([0; 32]).key(),
        };
        let context = SpendContext {
            params: &params,
            parent_mtp: 0,
            mtp_at: &|_| 0,
            at_bip34_height: None,
            has_unspent: &|_, _| false,
        };
        connect_block(checked, &[Some(coin), Some(coin), None], &context).unwrap()
    }

    #[test]
    fn a_connected_block_is_read_with_its_fees_and_families() {
        let connected = connected();
        let (_, weight) = connected.checked().sums().nth(1).unwrap();
        let fees = BlockFees::of(&connected);
        assert_eq!(
            (fees.height, fees.hash, fees.weight),
            (Height(200), connected.checked().hash(), 3 * weight)
        );
        // The parent pays nothing, the child 600 for both, the stranger 100 for itself.
        assert_eq!((fees.least, fees.middle), (rate(100, weight), rate(600, 2 * weight)));
    }

    #[test]
    fn coverage_is_counted_by_weight_and_without_the_coinbase() {
        let connected = connected();
        let checked = connected.checked();
        let weights: Vec<u64> = checked.sums().map(|(_, weight)| weight).collect();
        let had = *checked.txids().nth(2).unwrap();
        let block = checked.decode().unwrap();
        let covered = Covered::of(block.txdata.iter().zip(checked.txids()), |txid| *txid == had);
        assert_eq!(covered, Covered { had: weights[2], all: weights[1..].iter().sum() });
    }

    #[test]
    fn a_long_chain_is_read_in_one_go() {
        let transactions: Vec<_> = (0..20_000)
            .map(|at: usize| tx(at as u64, 200, &at.checked_sub(1).map_or(vec![], |p| vec![p])))
            .collect();
        assert_eq!(chunks(&transactions).len(), 1);
    }
}
