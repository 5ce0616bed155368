//! What a block spends, as far as the block itself tells: which inputs spend outputs of the same block, and whether an
//! outpoint is spent twice.
//!
//! Made where blocks are checked, by many threads, for the one that connects them. Coins are not known here.

use bitcoin::{Block, OutPoint, Txid};

/// The source of an input that an earlier block made.
pub(super) const FROM_CHAIN: u32 = u32::MAX;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Spends {
    /// Of each input after the coinbase, in block order: the position of the transaction of this block that made it,
    /// or [`FROM_CHAIN`].
    pub(super) sources: Vec<u32>,
    /// The first of them that spends what one before it has spent.
    pub(super) spent_twice: Option<usize>,
    /// Of each transaction, how many outputs all before it have.
    pub(super) first_output: Vec<u32>,
    /// Of each transaction, the signature operations that it shows by itself.
    pub(super) legacy_sigops: Vec<u64>,
}

impl Spends {
    pub(super) fn of(block: &Block, txids: &[Txid], legacy_sigops: Vec<u64>) -> Self {
        let mut by_txid: Vec<(u64, u32)> = txids.iter().map(start).zip(0..).collect();
        by_txid.sort_unstable();
        let mut sources = Vec::new();
        let mut places = Vec::new();
        for (tx, position) in block.txdata.iter().zip(0u32..).skip(1) {
            for input in &tx.input {
                let OutPoint { txid, vout } = input.previous_output;
                let start = start(&txid);
                let from = by_txid.partition_point(|(other, _)| *other < start);
                let same = by_txid[from..].iter().take_while(|(other, _)| *other == start);
                // Only what was made before can be spent.
                let found = same.map(|(_, at)| *at).find(|at| *at < position && txids[*at as usize] == txid);
                places.push((start ^ u64::from(vout) << 40, sources.len()));
                sources.push(found.unwrap_or(FROM_CHAIN));
            }
        }
        let mut outputs = 0;
        let first_output = block.txdata.iter().map(|tx| {
            let first = outputs;
            outputs += tx.output.len() as u32;
            first
        });
        let first_output = first_output.collect();
        Self { sources, spent_twice: spent_twice(block, places), first_output, legacy_sigops }
    }
}

/// The lowest number of an input that spends an outpoint again. `places` has something of each outpoint, and the
/// number of the input.
fn spent_twice(block: &Block, mut places: Vec<(u64, usize)>) -> Option<usize> {
    places.sort_unstable();
    let alike = places.chunk_by(|one, other| one.0 == other.0).filter(|alike| alike.len() > 1);
    let mut alike: Vec<usize> = alike.flatten().map(|(_, number)| *number).collect();
    if alike.is_empty() {
        return None;
    }
    alike.sort_unstable();
    let inputs: Vec<OutPoint> =
        block.txdata.iter().skip(1).flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
    let mut seen = std::collections::BTreeSet::new();
    alike.into_iter().find(|number| !seen.insert(inputs[*number]))
}

/// The first bytes of a txid as a number.
fn start(txid: &Txid) -> u64 {
    let bytes: &[u8; 32] = txid.as_ref();
    bytes.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}
