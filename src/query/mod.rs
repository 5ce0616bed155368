//! ASK: the chain as one read-only answer at one tip.
//!
//! In the order of a question: `view` is what sessions hold (a snapshot of the store and how far the sync has
//! come), `history`, `unconfirmed` and `status` answer for a script, `transaction` for a transaction and the proof of its place in a
//! block, `outpoint` for an output, `touched` says what a new view changed.
//! Every answer is taken from the one snapshot of its view and the mempool on top of it, so two answers of a view
//! never contradict each other.

mod history;
mod outpoint;
mod status;
mod touched;
mod transaction;
mod unconfirmed;
mod view;

#[cfg(test)]
pub(crate) mod testing;

use chainstore::Height;

pub use history::push_txid;
pub use outpoint::{OutpointAnswer, OutpointStatus, Whereabouts};
pub use status::{Known, Status, TooLong, status_of};
pub use touched::Touched;
pub use transaction::{FoundTx, MerkleProof};
pub use unconfirmed::{MempoolHeight, UnconfirmedEntry, UnconfirmedOutput};
pub use view::{SyncState, TipHeader, View};

/// Why a question has no answer: the store failed. What is not in the chain is no error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] chainstore::Error);

impl Error {
    /// Whether a newer view would answer: the chain was reorganised under this one.
    pub fn is_outdated(&self) -> bool {
        matches!(self.0, chainstore::Error::SnapshotGone)
    }

    /// The height of a block whose stored bytes are damaged: a later question may find it whole again.
    pub fn damaged_block(&self) -> Option<Height> {
        match self.0 {
            chainstore::Error::DamagedBlock { height, .. } => Some(height),
            _ => None,
        }
    }
}
