//! What admission asks of the chain, and the coins that a transaction spends.

use bitcoin::{OutPoint, TxOut, Txid};
use chainstore::Height;

/// An unspent output of the connected chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainCoin {
    pub output: TxOut,
    pub height: Height,
    pub is_coinbase: bool,
}

/// The connected chain at one tip. The shell reads it from the store; tests make one up.
pub trait ChainState {
    /// The unspent output there; `None` where there is none, and where the store failed (it says so itself).
    fn coin(&self, outpoint: &OutPoint) -> Option<ChainCoin>;

    /// Whether any output of a confirmed transaction with that id is unspent.
    fn has_unspent(&self, txid: &Txid, outputs: u32) -> bool;

    /// Median time past of the connected block at a height (BIP113), in Unix seconds.
    fn median_time_past(&self, height: Height) -> u32;

    /// Height of the last connected block.
    fn height(&self) -> Height;
}

/// Where a spent coin comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoinSource {
    Block {
        height: Height,
        is_coinbase: bool,
    },
    /// Another unconfirmed transaction.
    Mempool,
}

/// The coin that one input spends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentCoin {
    pub output: TxOut,
    pub source: CoinSource,
}
