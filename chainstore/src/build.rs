//! Makes a delta from a block and the coins that it spends.

use bitcoin::block::Header;
use bitcoin::consensus::encode::VarInt;
use bitcoin::{Block, BlockHash, OutPoint};

use crate::delta::{Delta, DeltaHead, LooseRows, Made, Spent, tx_prefix};
use crate::error::Error;
use crate::outline::{Outline, OutputKind};
use crate::segments::BlockPos;
use crate::types::{Coin, Height, ScriptKey, TxNum};

/// A block at its place in the chain.
pub(crate) struct Source<'a> {
    pub(crate) height: Height,
    pub(crate) hash: BlockHash,
    pub(crate) header: &'a Header,
    pub(crate) outline: &'a Outline,
    /// Bytes of the raw block.
    pub(crate) length: u32,
    pub(crate) first_tx: u32,
    /// One for each input after the coinbase; not looked at where the output is of this block.
    pub(crate) spent: &'a [Coin],
    /// The earlier transaction with the coinbase's id, and its coins that are unspent below this block.
    pub(crate) older: Option<(TxNum, Vec<(u32, Coin)>)>,
}

/// The rows of a block that lies, or will lie, at `pos`.
pub(crate) fn build(source: Source<'_>, pos: BlockPos) -> Result<Delta, Error> {
    let Source { height, hash, header, outline, .. } = source;
    let bad = |what| Error::BadInput { hash, what };
    let txs = outline.txs();
    let Some(coinbase) = txs.first() else { return Err(bad("no transactions")) };
    if outline.inputs().len() != source.spent.len() {
        return Err(bad("not one coin for each input"));
    }
    if outline.length() != source.length {
        return Err(bad("the raw bytes are not those of the block"));
    }
    let count = u32::try_from(txs.len()).map_err(|_| Error::TxNumOverflow { height })?;
    source.first_tx.checked_add(count).ok_or(Error::TxNumOverflow { height })?;

    let mut rows = LooseRows::default();
    // Coins of this block that are not spent yet, by number of the output.
    let mut fresh: Vec<Option<(ScriptKey, Made)>> = vec![None; outline.outputs().len()];
    let mut coinbase_scripts = Vec::new();
    for (position, at) in (0..txs.len()).zip(0u32..) {
        if height == Height::GENESIS && at == 0 {
            // Its output never was a coin, and Core does not know the transaction.
            continue;
        }
        let inputs = outline.inputs_of(position);
        for (input, coin) in outline.inputs()[inputs.clone()].iter().zip(&source.spent[inputs]) {
            let outpoint = input.outpoint;
            if let Some(maker) = input.maker() {
                let made = outline.output_of(maker, outpoint.vout).and_then(|number| fresh[number].take());
                let (key, _) = made.ok_or(bad("coin of this block missing or spent twice"))?;
                rows.history.push((key, at));
                continue;
            }
            if coin.tx_num.0 >= source.first_tx {
                return Err(bad("coin of a later block"));
            }
            rows.history.push((coin.script_key, at));
            rows.spent.push((coin.script_key, spent_row(&outpoint, coin)));
        }
        for (number, vout) in outline.outputs_of(position).zip(0u32..) {
            let output = &outline.outputs()[number];
            if output.kind == OutputKind::Unindexed {
                continue;
            }
            rows.history.push((output.key, at));
            if at == 0 {
                coinbase_scripts.push(output.key);
            }
            if let OutputKind::Coin(class) = output.kind {
                fresh[number] = Some((output.key, Made { tx: at, vout, value: output.value, class }));
            }
        }
    }
    rows.made.extend(fresh.into_iter().flatten());
    if let Some((older, coins)) = &source.older {
        rows.replaced.extend(coinbase_scripts.into_iter().map(|key| (key, *older)));
        for (vout, coin) in coins {
            rows.spent.push((coin.script_key, spent_row(&OutPoint::new(coinbase.txid, *vout), coin)));
        }
    }
    let first_tx = source.first_tx;
    let head = DeltaHead {
        height,
        header: *header,
        pos,
        first_tx,
        txids: outline.txids().copied().collect(),
        offsets: txs.iter().map(|tx| tx.offset).collect(),
    };
    let delta = Delta::new(head, rows);
    if delta.hash != hash {
        return Err(bad("not the hash of its header"));
    }
    if delta.spends_twice() {
        return Err(bad("a coin is spent twice"));
    }
    Ok(delta)
}

fn spent_row(outpoint: &OutPoint, coin: &Coin) -> Spent {
    let Coin { value, tx_num, class, .. } = *coin;
    Spent { tx_num, vout: outpoint.vout, prefix: tx_prefix(&outpoint.txid), value, class }
}

/// Where each transaction starts within the block's bytes, and how many those are.
pub(crate) fn tx_offsets(block: &Block) -> (Vec<u32>, u32) {
    let mut at = 80 + VarInt::from(block.txdata.len()).size() as u32;
    let offsets = block.txdata.iter().map(|tx| {
        let start = at;
        at += tx.total_size() as u32;
        start
    });
    (offsets.collect(), at)
}
