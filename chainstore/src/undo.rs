//! Makes the delta of a block below the deltas again, from what is stored, so that it can be undone.
//!
//! Which coin an input spent follows from its txid's number, that from its place in the raw blocks. No record of
//! undo is kept for 1.4 billion transactions that will never be undone.

use bitcoin::{Block, OutPoint, Txid};

use crate::build::{Source, build};
use crate::delta::Delta;
use crate::error::Error;
use crate::outline::{Outline, spending_inputs};
use crate::segments::file_name;
use crate::types::{Coin, Height, ScriptClass, ScriptHash, TxNum, is_unspendable};
use crate::view::View;

/// The delta of the top block of `view`, which has no deltas above its base.
pub(crate) fn rebuild(view: &View, height: Height) -> Result<Delta, Error> {
    let corrupt = |what: &str| Error::corrupt("base", format!("block at height {height}: {what}"));
    let pos = view.block_pos(height)?.ok_or_else(|| corrupt("no position"))?;
    let raw = view.raw_block(height)?.ok_or_else(|| corrupt("no position"))?;
    let block: Block = bitcoin::consensus::deserialize(&raw)
        .map_err(|error| Error::corrupt(&file_name(pos.segment), format!("byte {}: {error}", pos.offset)))?;
    let txids = view.block_txids(height)?.ok_or_else(|| corrupt("no txids"))?;
    let first_tx = view.txs_of(height).ok_or_else(|| corrupt("no numbers"))?.start;
    let mut spent = Vec::new();
    for outpoint in spending_inputs(&block) {
        let number = view.tx_num(&outpoint.txid, TxNum(u32::MAX))?;
        let number = number.ok_or_else(|| corrupt("an input's transaction is missing"))?;
        // An output of this very block: `build` finds it, and looks at no coin. If an older transaction has the
        // same txid the block still spends its own.
        spent.push(if number.0 >= first_tx {
            unlooked(number)
        } else {
            spent_coin(view, number, &outpoint)?
        });
    }
    let older = match (txids.first(), height) {
        (Some(txid), Height(1..)) => match view.tx_num(txid, TxNum(first_tx))? {
            Some(number) => Some((number, overwritten(view, number, txid, first_tx)?)),
            None => None,
        },
        _ => None,
    };
    let hash = block.block_hash();
    let outline = Outline::of(&block);
    if !outline.txids().eq(&txids) {
        return Err(corrupt("its ids are not those of the block"));
    }
    let source = Source {
        height,
        hash,
        header: &block.header,
        outline: &outline,
        length: pos.length,
        first_tx,
        spent: &spent,
        older,
    };
    build(source, pos).map_err(|error| corrupt(&error.to_string()))
}

fn unlooked(tx_num: TxNum) -> Coin {
    Coin {
        value: bitcoin::Amount::ZERO,
        tx_num,
        height: Height::GENESIS,
        is_coinbase: false,
        class: ScriptClass::Other,
        script_key: ScriptHash([0; 32]).key(),
    }
}

/// The coin that was at `outpoint`, from the raw transaction.
fn spent_coin(view: &View, number: TxNum, outpoint: &OutPoint) -> Result<Coin, Error> {
    let tx = view.tx(number)?;
    let missing = || Error::corrupt("base", format!("{outpoint} was spent but never made"));
    let output = tx.output.get(outpoint.vout as usize).ok_or_else(missing)?;
    let height = view.height_of(number).ok_or_else(missing)?;
    let script = &output.script_pubkey;
    Ok(Coin {
        value: output.value,
        tx_num: number,
        height,
        is_coinbase: tx.is_coinbase(),
        class: ScriptClass::of(script),
        script_key: ScriptHash::of(script).key(),
    })
}

/// Coins of an older transaction `number` that a coinbase with the same `txid`, at `first_tx`, overwrote: those
/// that no transaction between the two spent. A spender is in the history of the coin's script.
fn overwritten(view: &View, number: TxNum, txid: &Txid, first_tx: u32) -> Result<Vec<(u32, Coin)>, Error> {
    let older = view.tx(number)?;
    let mut coins = Vec::new();
    for (output, vout) in older.output.iter().zip(0u32..) {
        if is_unspendable(&output.script_pubkey) {
            continue;
        }
        let outpoint = OutPoint::new(*txid, vout);
        let key = ScriptHash::of(&output.script_pubkey).key();
        let between = |at: &TxNum| *at > number && at.0 < first_tx;
        let mut was_spent = false;
        for at in view.history(&key)?.into_iter().filter(between) {
            let tx = view.tx(at)?;
            was_spent |= tx.input.iter().any(|input| input.previous_output == outpoint);
        }
        if !was_spent {
            coins.push((vout, spent_coin(view, number, &outpoint)?));
        }
    }
    Ok(coins)
}
