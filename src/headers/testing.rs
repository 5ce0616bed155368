//! Regtest chains for the tests of this folder.

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, TxMerkleNode};

use super::tree::HeaderTree;
use crate::validate::Params;

/// A clock at which every header made here is old enough.
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn regtest() -> HeaderTree {
    HeaderTree::new(Params::of(Network::Regtest))
}

pub(super) fn genesis() -> Header {
    Params::of(Network::Regtest).genesis.header
}

/// A header on top of `parent`, ten minutes later; `salt` tells siblings apart.
pub(super) fn child(parent: &Header, salt: u32) -> Header {
    child_at(parent, salt, parent.time + 600)
}

/// The same, dated `time`.
pub(super) fn child_at(parent: &Header, salt: u32, time: u32) -> Header {
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::hash(&salt.to_le_bytes()),
        time,
        bits: parent.bits,
        nonce: 0,
    };
    mine(header)
}

/// Gives a header the first nonce that proves its work: two tries on regtest.
pub(super) fn mine(mut header: Header) -> Header {
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

/// `count` headers in a row on top of `parent`.
pub(super) fn chain(parent: &Header, salt: u32, count: usize) -> Vec<Header> {
    let mut headers = Vec::with_capacity(count);
    let mut tip = *parent;
    for _ in 0..count {
        tip = child(&tip, salt);
        headers.push(tip);
    }
    headers
}

pub(super) fn hashes(headers: &[Header]) -> Vec<BlockHash> {
    headers.iter().map(Header::block_hash).collect()
}
