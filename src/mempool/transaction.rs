//! A transaction as it came from a peer or a wallet: its bytes, read once, and its two ids.

use bitcoin::{Transaction, Txid, Wtxid};
use bytes::Bytes;

/// Bytes that are no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a transaction")]
pub struct Malformed;

/// One unconfirmed transaction, read and hashed once. Shared, as it waits in several places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    raw: Bytes,
    tx: Transaction,
    txid: Txid,
    wtxid: Wtxid,
    weight: u64,
}

impl Unconfirmed {
    /// Reads a serialized transaction, witness included, to its last byte.
    ///
    /// The bytes are copied: those of a message may keep a much larger buffer alive.
    pub fn parse(raw: &[u8]) -> Result<Self, Malformed> {
        let tx: Transaction = bitcoin::consensus::deserialize(raw).map_err(|_| Malformed)?;
        // With a witness marker the library lets this pass, where Bitcoin Core finds a witness of nothing.
        if tx.input.is_empty() {
            return Err(Malformed);
        }
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        let weight = tx.weight().to_wu();
        Ok(Self { raw: Bytes::copy_from_slice(raw), tx, txid, wtxid, weight })
    }

    /// As it goes over the wire, witness included.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    pub fn tx(&self) -> &Transaction {
        &self.tx
    }

    pub fn txid(&self) -> Txid {
        self.txid
    }

    pub fn wtxid(&self) -> Wtxid {
        self.wtxid
    }

    /// Weight units (BIP141).
    pub fn weight(&self) -> u64 {
        self.weight
    }

    pub fn has_witness(&self) -> bool {
        self.tx.input.iter().any(|input| !input.witness.is_empty())
    }
}
