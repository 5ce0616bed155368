//! The chain at one tip with the mempool on top of it, as sessions hold them, and its headers.
//!
//! While blocks are still being fetched the headers run on to the best validated header; once synced they end at
//! the connected tip, whatever headers are known beyond it. Never mixes two snapshots.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use chainstore::{HeaderProof, Height, Snapshot};

use super::Error;
use crate::mempool::{FeeBoard, MempoolView};

/// Bytes of a serialized header.
const HEADER_BYTES: usize = 80;

/// How far the node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Blocks are missing: only headers can be asked for. `percent` is 0 to 99; `left` is a guess.
    Syncing { percent: u8, left: Option<Duration> },
    /// Was in step with its peers once; from then on every answer speaks of the connected tip.
    Synced,
}

/// The last header that a view answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TipHeader {
    pub height: Height,
    pub hash: BlockHash,
    pub header: Header,
}

/// One state of the chain, from which all of an answer is taken.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) snapshot: Arc<Snapshot>,
    /// Made on the snapshot's tip.
    pub(super) mempool: MempoolView,
    fees: Arc<FeeBoard>,
    sync: SyncState,
    tip: Option<TipHeader>,
}

impl View {
    /// A view without a mempool.
    pub fn new(snapshot: Arc<Snapshot>, sync: SyncState) -> Result<Self, Error> {
        let height = match sync {
            SyncState::Syncing { .. } => snapshot.header_count().checked_sub(1).map(Height),
            SyncState::Synced => snapshot.tip().map(|tip| tip.height),
        };
        let header = match height {
            Some(height) => snapshot.header(height)?.map(|header| (height, header)),
            None => None,
        };
        let tip = header.map(|(height, header)| TipHeader { height, hash: header.block_hash(), header });
        Ok(Self { snapshot, mempool: MempoolView::default(), fees: Arc::default(), sync, tip })
    }

    /// The same view with a mempool, which must have been made on its tip, and what is to be said of fees.
    pub fn with_mempool(self, mempool: MempoolView, fees: Arc<FeeBoard>) -> Self {
        Self { mempool, fees, ..self }
    }

    /// What is said of fees.
    pub fn fees(&self) -> &FeeBoard {
        &self.fees
    }

    /// All unconfirmed transactions.
    pub fn mempool(&self) -> &MempoolView {
        &self.mempool
    }

    pub fn sync(&self) -> SyncState {
        self.sync
    }

    /// The last header to answer for; `None` only before genesis.
    pub fn tip(&self) -> Option<&TipHeader> {
        self.tip.as_ref()
    }

    /// The header at a height; `None` above the tip.
    pub fn header(&self, height: Height) -> Result<Option<Header>, Error> {
        if self.reaches(height) { Ok(self.snapshot.header(height)?) } else { Ok(None) }
    }

    /// Up to `count` serialized headers from a height on, one after another; fewer only at the tip.
    pub fn headers(&self, from: Height, count: u32) -> Result<Vec<u8>, Error> {
        let Some(tip) = self.tip.as_ref().filter(|tip| from <= tip.height) else { return Ok(Vec::new()) };
        let count = count.min(tip.height.0 - from.0 + 1);
        let mut headers = self.snapshot.headers(from, count)?;
        // The header chain may have grown or changed above the tip; what the tip ends is what is asked for.
        headers.truncate(count as usize * HEADER_BYTES);
        Ok(headers)
    }

    /// Proof that a header is one of those up to and including `checkpoint`; `None` unless
    /// `height <= checkpoint <= tip`.
    pub fn header_proof(&self, height: Height, checkpoint: Height) -> Result<Option<HeaderProof>, Error> {
        if height <= checkpoint && self.reaches(checkpoint) {
            Ok(self.snapshot.header_proof(height, checkpoint)?)
        } else {
            Ok(None)
        }
    }

    /// Median time past of the tip (BIP113), in Unix seconds; `None` only before genesis.
    pub fn median_time_past(&self) -> Result<Option<u32>, Error> {
        match &self.tip {
            Some(tip) => Ok(self.snapshot.median_time_past(tip.height)?),
            None => Ok(None),
        }
    }

    fn reaches(&self, height: Height) -> bool {
        self.tip.as_ref().is_some_and(|tip| height <= tip.height)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::{Hash as _, sha256d};

    use super::*;
    use crate::query::testing::Chain;

    const SYNCING: SyncState = SyncState::Syncing { percent: 10, left: None };

    #[test]
    fn a_syncing_view_ends_at_the_best_header_and_a_synced_one_at_the_connected_tip() {
        let mut chain = Chain::mainnet(4);
        chain.learn_headers(10);
        for (sync, last) in [(SYNCING, 14), (SyncState::Synced, 4)] {
            let (view, _) = chain.commit_as(sync);
            let tip = *view.tip().unwrap();
            assert_eq!(tip.height, Height(last));
            assert_eq!(view.header(Height(last)).unwrap(), Some(tip.header));
            assert_eq!(view.header(Height(last + 1)).unwrap(), None);
            assert_eq!(view.headers(Height(0), 2_016).unwrap().len(), (last as usize + 1) * 80);
            assert_eq!(view.headers(Height(last), 5).unwrap(), bitcoin::consensus::serialize(&tip.header));
            assert!(view.headers(Height(last + 1), 5).unwrap().is_empty());
            assert!(view.headers(Height(u32::MAX), u32::MAX).unwrap().is_empty());
            assert!(view.header_proof(Height(3), Height(last)).unwrap().is_some());
            assert_eq!(view.header_proof(Height(3), Height(last + 1)).unwrap(), None);
            assert_eq!(view.header_proof(Height(3), Height(2)).unwrap(), None);
        }
    }

    #[test]
    fn header_proofs_climb_to_the_root_of_all_headers_up_to_the_checkpoint() {
        let (view, _) = Chain::mainnet(40).commit();
        let hashes: Vec<_> = (0..=40)
            .map(|height| view.header(Height(height)).unwrap().unwrap().block_hash().to_raw_hash())
            .collect();
        for checkpoint in [1, 7, 8, 9, 31, 39, 40_usize] {
            let root = bitcoin::merkle_tree::calculate_root(hashes[..=checkpoint].iter().copied()).unwrap();
            for (height, hash) in hashes.iter().enumerate().take(checkpoint + 1) {
                let proof =
                    view.header_proof(Height(height as u32), Height(checkpoint as u32)).unwrap().unwrap();
                assert_eq!(proof.root, root);
                let mut index = height;
                let climbed = proof.branch.iter().fold(*hash, |node, sibling| {
                    let pair = if index.is_multiple_of(2) { [node, *sibling] } else { [*sibling, node] };
                    index /= 2;
                    sha256d::Hash::hash(&pair.map(|hash| hash.to_byte_array()).concat())
                });
                assert_eq!(climbed, root, "height {height} of {checkpoint}");
            }
        }
    }
}
