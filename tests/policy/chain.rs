//! The node's chain as we see it: every unspent output, and the median times.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::consensus::deserialize;
use bitcoin::consensus::encode::serialize;
use bitcoin::{Block, OutPoint, Txid};
use chainstore::Height;
use peerdex::mempool::{ChainCoin, ChainState, Mempool, Unconfirmed};
use peerdex::time::Now;

use super::support::node::{Node, text};

/// See the module. Never empty.
pub struct Chain {
    /// From the genesis block on.
    blocks: Vec<Block>,
    coins: BTreeMap<OutPoint, ChainCoin>,
}

impl Chain {
    pub fn of(node: &Node) -> Self {
        let mut chain = Self { blocks: Vec::new(), coins: BTreeMap::new() };
        for raw in node.raw_blocks_from(0) {
            chain.push(deserialize(&raw).unwrap());
        }
        chain
    }

    /// Follows the node, and tells the mempool block by block as a node does that gives up blocks by hand.
    pub fn follow(&mut self, node: &Node, mempool: &mut Mempool, now: Now) {
        let hashes: Vec<String> = node.hashes_from(0).iter().map(text).collect();
        let is_common = |(ours, theirs): &(&Block, &String)| ours.block_hash().to_string() == **theirs;
        let common = self.blocks.iter().zip(&hashes).take_while(is_common).count();
        while self.blocks.len() > common {
            let block = self.blocks.pop().unwrap();
            self.coins.clear();
            for block in std::mem::take(&mut self.blocks) {
                self.push(block);
            }
            let txs = block.txdata.iter().map(|tx| Arc::new(Unconfirmed::parse(&serialize(tx)).unwrap()));
            mempool.disconnect_block(txs.collect());
            mempool.tip_changed(self, now);
        }
        if hashes.len() > common {
            for raw in node.raw_blocks_from(common as u32) {
                let block: Block = deserialize(&raw).unwrap();
                mempool.connect_block(now, block.txdata.iter().map(|tx| (tx.compute_txid(), tx)));
                self.push(block);
            }
        }
        mempool.tip_changed(self, now);
    }

    fn push(&mut self, block: Block) {
        let height = Height(self.blocks.len() as u32);
        for (position, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            for input in &tx.input {
                self.coins.remove(&input.previous_output);
            }
            for (vout, output) in (0..).zip(&tx.output) {
                // The genesis block's output is no coin.
                if !output.script_pubkey.is_op_return() && height.0 > 0 {
                    let coin = ChainCoin { output: output.clone(), height, is_coinbase: position == 0 };
                    self.coins.insert(OutPoint { txid, vout }, coin);
                }
            }
        }
        self.blocks.push(block);
    }

    pub fn coins(&self) -> impl Iterator<Item = (&OutPoint, &ChainCoin)> {
        self.coins.iter()
    }
}

impl ChainState for Chain {
    fn coin(&self, outpoint: &OutPoint) -> Option<ChainCoin> {
        self.coins.get(outpoint).cloned()
    }

    fn has_unspent(&self, txid: &Txid, outputs: u32) -> bool {
        (0..outputs).any(|vout| self.coins.contains_key(&OutPoint { txid: *txid, vout }))
    }

    fn median_time_past(&self, height: Height) -> u32 {
        let upto = self.blocks.iter().take(height.0 as usize + 1);
        let mut times: Vec<u32> = upto.rev().take(11).map(|block| block.header.time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn height(&self) -> Height {
        Height(self.blocks.len() as u32 - 1)
    }
}
