//! What readers see: the chain at one tip.

use bitcoin::block::Header;
use bitcoin::hashes::sha256d;
use bitcoin::{Amount, OutPoint, Txid};

use crate::error::Error;
use crate::types::{Coin, Height, HistoryEntry, ScriptHash, Tip, TxNum, Unspent};

/// The committed chain at one tip. Reads take no lock and never wait for the writer.
#[derive(Debug)]
pub struct Snapshot {}

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLocation {
    pub tx_num: TxNum,
    pub height: Height,
    /// Position within its block; the coinbase is 0.
    pub pos: u32,
}

/// A transaction as it stands in its block, witness included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTx {
    pub bytes: Vec<u8>,
    pub height: Height,
}

/// That a header is one of those up to a checkpoint height: hashes in computing order, deepest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderProof {
    pub branch: Vec<sha256d::Hash>,
    pub root: sha256d::Hash,
}

impl Snapshot {
    /// The highest connected block; `None` before genesis is connected.
    pub fn tip(&self) -> Option<Tip> {
        unimplemented!()
    }

    /// Headers in the header chain, which runs on above the tip while blocks are being fetched.
    pub fn header_count(&self) -> u32 {
        unimplemented!()
    }

    /// The header at a height: of the connected chain up to the tip, of the header chain above.
    pub fn header(&self, _height: Height) -> Result<Option<Header>, Error> {
        unimplemented!()
    }

    /// Up to `count` headers of 80 bytes from `from` on, one after another; fewer at the end of the chain.
    pub fn headers(&self, _from: Height, _count: u32) -> Result<Vec<u8>, Error> {
        unimplemented!()
    }

    /// Proof for the header at `height` among those up to and including `cp_height`.
    ///
    /// `None` when `height > cp_height` or `cp_height` is beyond the headers.
    pub fn header_proof(&self, _height: Height, _cp_height: Height) -> Result<Option<HeaderProof>, Error> {
        unimplemented!()
    }

    /// Median time past of the block at a height (BIP113), in Unix seconds; `None` beyond the headers.
    pub fn median_time_past(&self, _height: Height) -> Result<Option<u32>, Error> {
        unimplemented!()
    }

    /// Confirmed transactions that pay to or spend from a script, in chain order.
    pub fn history(&self, _script: &ScriptHash) -> Result<Vec<HistoryEntry>, Error> {
        unimplemented!()
    }

    /// Unspent outputs of a script, by transaction number, then output index.
    pub fn unspent(&self, _script: &ScriptHash) -> Result<Vec<Unspent>, Error> {
        unimplemented!()
    }

    /// Sum of the unspent outputs.
    pub fn balance(&self, _script: &ScriptHash) -> Result<Amount, Error> {
        unimplemented!()
    }

    /// The unspent output at `outpoint`.
    pub fn coin(&self, _outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        unimplemented!()
    }

    /// The number of a transaction: of two with one txid (BIP30) the later, of the genesis coinbase none.
    pub fn tx_num(&self, _txid: &Txid) -> Result<Option<TxNum>, Error> {
        unimplemented!()
    }

    /// Number, height and position of a transaction.
    pub fn tx_location(&self, _txid: &Txid) -> Result<Option<TxLocation>, Error> {
        unimplemented!()
    }

    /// The id of the transaction with that number.
    pub fn txid(&self, _tx_num: TxNum) -> Result<Option<Txid>, Error> {
        unimplemented!()
    }

    /// The height at which the transaction with that number is.
    pub fn height_of(&self, _tx_num: TxNum) -> Option<Height> {
        unimplemented!()
    }

    /// A transaction's bytes.
    pub fn raw_tx(&self, _txid: &Txid) -> Result<Option<RawTx>, Error> {
        unimplemented!()
    }

    /// A block's bytes.
    pub fn raw_block(&self, _height: Height) -> Result<Option<Vec<u8>>, Error> {
        unimplemented!()
    }

    /// Ids of all transactions of a block, in its order.
    pub fn block_txids(&self, _height: Height) -> Result<Option<Vec<Txid>>, Error> {
        unimplemented!()
    }

    /// The id of one transaction of a block.
    pub fn txid_at(&self, _height: Height, _pos: u32) -> Result<Option<Txid>, Error> {
        unimplemented!()
    }
}
