//! The check of a block that a peer sent, and what a refusal says of the peer.
//!
//! Rungs 3 and 4 are `validate`'s; here the checksum of the message is added, which is looked at only where the bytes
//! are not the block that its header's work was done for. A pure function: the shell calls it from its checker
//! threads, as hashing megabytes is not for the node's loop.

use crate::peer::WireBlock;
use crate::validate::{BlockContext, BlockError, CheckedBlock, Params, Verdict, check_block};

/// Why a block that a peer sent is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are not the ones that were sent: nobody is to blame, and the block is to be asked again.
    Damaged,
    /// It was sent so.
    Refused(BlockError),
}

/// Rungs 3 and 4 for a block as it came.
pub fn check_received(
    block: WireBlock,
    context: &BlockContext,
    params: &Params,
) -> Result<CheckedBlock, Refusal> {
    check_block(block.bytes.clone(), context, params).map_err(|error| match error.verdict() {
        Verdict::Mutated if !block.is_as_sent() => Refusal::Damaged,
        Verdict::Mutated | Verdict::Invalid | Verdict::Unsupported => Refusal::Refused(error),
    })
}
