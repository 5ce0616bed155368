//! What a wallet asks of a transaction: its bytes, its place in a block, whether an output is unspent.

use bitcoin::hashes::sha256d;
use bitcoin::{OutPoint, Txid};
use bytes::Bytes;
use chainstore::{Coin, Height, RawTx};

use super::{Error, View};

/// Where in a block a transaction is, and the proof of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleProof {
    /// Position in the block; the coinbase is 0.
    pub pos: usize,
    /// Siblings on the way up, deepest first.
    pub branch: Vec<sha256d::Hash>,
}

/// A transaction, witness included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTx {
    pub bytes: Bytes,
    /// Of its block; `None` in the mempool.
    pub height: Option<Height>,
}

impl View {
    /// A transaction of the mempool or of the chain; of two with one txid (BIP30) the later.
    pub fn transaction(&self, txid: &Txid) -> Result<Option<FoundTx>, Error> {
        if let Some(entry) = self.mempool.entry(txid) {
            return Ok(Some(FoundTx { bytes: entry.raw.clone(), height: None }));
        }
        let found = self.snapshot.raw_tx(txid)?;
        Ok(found.map(|RawTx { bytes, height }| FoundTx { bytes: bytes.into(), height: Some(height) }))
    }

    /// Whether the chain holds a transaction; the genesis coinbase does not count.
    pub fn has_transaction(&self, txid: &Txid) -> Result<bool, Error> {
        Ok(self.snapshot.tx_num(txid)?.is_some())
    }

    /// The unspent output at `outpoint`.
    pub fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>, Error> {
        Ok(self.snapshot.coin(outpoint)?)
    }

    /// The id of the transaction at a position of a block; `None` where there is none.
    pub fn txid_at(&self, height: Height, pos: u32) -> Result<Option<Txid>, Error> {
        Ok(self.snapshot.txid_at(height, pos)?)
    }

    /// Proof that a block holds a transaction; `None` when it does not, or there is no such block.
    ///
    /// The block is the one at `height` and no other, so of two equal transactions (BIP30) both have a proof.
    pub fn merkle_proof(&self, height: Height, txid: &Txid) -> Result<Option<MerkleProof>, Error> {
        let Some(pos) = self.snapshot.position(height, txid)? else { return Ok(None) };
        self.branch(height, pos as usize)
    }

    /// The transaction at a position of a block with its proof; `None` where there is none.
    pub fn proof_at(&self, height: Height, pos: usize) -> Result<Option<(Txid, MerkleProof)>, Error> {
        let Ok(number) = u32::try_from(pos) else { return Ok(None) };
        let txid = self.snapshot.txid_at(height, number)?;
        Ok(txid.zip(self.branch(height, pos)?))
    }

    /// The block's transactions were checked when it was connected, so its leaves are transactions and no inner nodes
    /// (CVE-2017-12842), and its list does not end in copies of itself (CVE-2012-2459).
    fn branch(&self, height: Height, pos: usize) -> Result<Option<MerkleProof>, Error> {
        let branch = self.snapshot.merkle_branch(height, pos)?;
        Ok(branch.map(|branch| MerkleProof { pos, branch }))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::serialize;
    use bitcoin::{Amount, ScriptBuf};

    use super::*;
    use crate::query::testing::{Chain, transaction};

    #[test]
    fn a_transaction_is_found_in_the_mempool_then_in_its_block_and_back() {
        let mut chain = Chain::mainnet(3);
        let coin = OutPoint::new(chain.forge(ScriptBuf::new(), &[]), 0);
        let payment = transaction(&[(coin, ScriptBuf::new())], &[(Amount::ONE_BTC, ScriptBuf::new())]);
        let txid = payment.compute_txid();
        let found = |chain: &mut Chain| {
            let (view, _) = chain.commit();
            let proof = view.merkle_proof(Height(5), &txid).unwrap().map(|proof| proof.pos);
            let confirmed = view.has_transaction(&txid).unwrap();
            assert_eq!(proof.is_some(), confirmed);
            view.transaction(&txid).unwrap().map(|found| (found.bytes.to_vec(), found.height, proof))
        };
        let bytes = serialize(&payment);
        assert_eq!(found(&mut chain), None);
        chain.receive(&payment);
        assert_eq!(found(&mut chain), Some((bytes.clone(), None, None)));
        chain.forge_of(ScriptBuf::new(), &[txid]);
        assert_eq!(found(&mut chain), Some((bytes.clone(), Some(Height(5)), Some(1))));
        chain.undo_to_mempool();
        assert_eq!(found(&mut chain), Some((bytes, None, None)));
        chain.evict(&txid);
        assert_eq!(found(&mut chain), None);
    }
}
