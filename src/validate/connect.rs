//! Rung 5 of the validation ladder: what a block spends exists, is unspent and old enough, and nobody is paid more
//! than there is.
//!
//! The coins of earlier blocks are given; those made in the block itself are found here. Signatures are rung 6.
//! Source: Bitcoin Core `validation.cpp` (`ConnectBlock`, `GetBlockScriptFlags`, `GetBlockSubsidy`),
//! BIP30.

use bitcoin::{Amount, BlockHash, Txid};
use chainstore::{Coin, Height, OutputKind, TxNum};

use super::block::CheckedBlock;
use super::error::BlockError;
use super::inputs::{MAX_MONEY, SpentValue, check_values, lock_passed};
use super::params::Params;
use super::sigops::{MAX_BLOCK_SIGOPS_COST, WITNESS_SCALE};

/// Subsidy of the first blocks, in satoshi.
const FIRST_SUBSIDY: u64 = 50 * 100_000_000;

/// What the rules ask of the chain below the block.
pub struct SpendContext<'a> {
    pub params: &'a Params,
    /// Median time past of the parent, in Unix seconds.
    pub parent_mtp: u32,
    /// Median time past of the block at a height of this chain.
    pub mtp_at: &'a dyn Fn(Height) -> u32,
    /// The block of this chain at the height of BIP34; `None` below it.
    pub at_bip34_height: Option<BlockHash>,
    /// Whether a transaction of that id has an unspent output; asked only where BIP30 applies.
    pub has_unspent: &'a dyn Fn(&Txid, u32) -> bool,
}

impl std::fmt::Debug for SpendContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpendContext").field("parent_mtp", &self.parent_mtp).finish_non_exhaustive()
    }
}

/// A block that passed rung 5; only [`connect_block`] makes one.
#[derive(Clone, Debug)]
pub struct ConnectedBlock {
    checked: CheckedBlock,
    spent: Vec<Coin>,
    fees: Amount,
}

impl ConnectedBlock {
    pub fn checked(&self) -> &CheckedBlock {
        &self.checked
    }

    /// The coin of each input of each transaction after the coinbase, in block order. Of those made in the block
    /// itself, the transaction number is not known here and stands as 0.
    pub fn spent(&self) -> &[Coin] {
        &self.spent
    }

    pub fn fees(&self) -> Amount {
        self.fees
    }
}

/// Checks what a block spends. `coins` has the coin of each input of each transaction after the coinbase, in
/// block order; `None` where the chain below has none.
pub fn connect_block(
    checked: CheckedBlock,
    coins: &[Option<Coin>],
    context: &SpendContext<'_>,
) -> Result<ConnectedBlock, BlockError> {
    let repeats = context.params.bip30_applies(checked.height(), checked.hash(), context.at_bip34_height);
    if repeats {
        no_repeats(&checked, 1, context)?;
    }
    match spend(&checked, coins, context) {
        Ok((spent, fees)) => Ok(ConnectedBlock { checked, spent, fees }),
        Err(error) => {
            if repeats {
                no_repeats(&checked, usize::MAX, context)?;
            }
            Err(error)
        }
    }
}

/// BIP30 for the first `count` transactions: none has the id of one that still has an unspent output.
///
/// It is enough to ask for the coinbase. Any other transaction with the id of an earlier one spends the same
/// outputs, which that one has spent already: so it fails unless those too were made a second time, and so on down
/// to a coinbase. (Of the two that mainnet has twice, neither was spent before it was repeated.) Where a block
/// fails, all are looked at, as Core does first: so the reason is Core's.
fn no_repeats(checked: &CheckedBlock, count: usize, context: &SpendContext<'_>) -> Result<(), BlockError> {
    let outline = checked.outline();
    let mut ids = outline.txids().enumerate().take(count);
    match ids.find(|(at, txid)| (context.has_unspent)(txid, outline.outputs_of(*at).len() as u32)) {
        Some((_, txid)) => Err(BlockError::RepeatedTransaction { txid: *txid }),
        None => Ok(()),
    }
}

/// The coins that a block spends, and its fees.
fn spend(
    checked: &CheckedBlock,
    coins: &[Option<Coin>],
    context: &SpendContext<'_>,
) -> Result<(Vec<Coin>, Amount), BlockError> {
    let height = checked.height();
    let (outline, spends) = (checked.outline(), checked.spends());
    let mut coins = coins.iter();
    let mut spent: Vec<Coin> = Vec::with_capacity(outline.inputs().len());
    let (mut fees, mut sigops_cost) = (0, 0);
    for (position, (tx, txid)) in spends.txs.iter().zip(outline.txids()).enumerate() {
        sigops_cost += tx.legacy_sigops * WITNESS_SCALE;
        if position > 0 {
            let inputs = outline.inputs_of(position);
            for number in inputs.clone() {
                let input = outline.inputs()[number];
                let given = coins.next().copied().flatten();
                let coin = match input.maker() {
                    None => given,
                    Some(maker) => made_in_block(checked, maker, input.outpoint.vout),
                };
                let coin = coin.filter(|_| outline.spent_twice() != Some(number));
                spent.push(coin.ok_or(BlockError::MissingInput { outpoint: input.outpoint })?);
            }
            let bad = |reason| BlockError::BadTransaction { reason, txid: *txid };
            let of_tx = &spent[inputs.clone()];
            let values = of_tx.iter().map(|coin| SpentValue {
                value: coin.value,
                height: coin.height,
                is_coinbase: coin.is_coinbase,
            });
            fees += check_values(tx.paid_out, values, height).map_err(|error| bad(error.reason()))?;
            if fees > MAX_MONEY {
                return Err(bad("bad-txns-accumulated-fee-outofrange"));
            }
            let spending = || spends.inputs[inputs.clone()].iter().zip(of_tx);
            let passed = |sequence, coin_height| {
                lock_passed(sequence, coin_height, height, context.parent_mtp, context.mtp_at)
            };
            if tx.has_locks
                && height.0 >= context.params.csv_height
                && !spending().all(|(input, coin)| passed(input.sequence, coin.height))
            {
                return Err(bad("bad-txns-nonfinal"));
            }
            sigops_cost += spending().map(|(input, coin)| input.sigops.of_class(coin.class)).sum::<u64>();
        }
        if sigops_cost > MAX_BLOCK_SIGOPS_COST {
            return Err(BlockError::TooManySigops { cost: sigops_cost });
        }
    }
    let paid = spends.txs.first().map_or(0, |coinbase| coinbase.paid_out);
    let allowed = fees + subsidy(height, context.params);
    if paid > allowed {
        return Err(BlockError::BadCoinbaseAmount { paid, allowed });
    }
    Ok((spent, Amount::from_sat(fees)))
}

/// What a block at `height` may create, in satoshi.
pub fn subsidy(height: Height, params: &Params) -> u64 {
    FIRST_SUBSIDY.checked_shr(height.0 / params.halving_interval).unwrap_or(0)
}

/// The coin that an earlier transaction of the block made.
fn made_in_block(checked: &CheckedBlock, maker: usize, vout: u32) -> Option<Coin> {
    let outline = checked.outline();
    let output = outline.outputs()[outline.output_of(maker, vout)?];
    let OutputKind::Coin(class) = output.kind else { return None };
    Some(Coin {
        value: output.value,
        tx_num: TxNum(0),
        height: checked.height(),
        is_coinbase: maker == 0,
        class,
        script_key: output.key,
    })
}
