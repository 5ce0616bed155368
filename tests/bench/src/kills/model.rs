//! What is true of a chain, found by reading its blocks one after the other.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Context;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Block, OutPoint, ScriptBuf, Txid};

use crate::sync::peer::Served;

/// SHA-256 of a locking script.
pub type ScriptHash = [u8; 32];

/// A height and a position in the block, which order a chain's transactions.
pub type Place = (u32, u32);

/// Everything that any branch had, and that may be asked for.
#[derive(Debug, Default)]
pub struct Universe {
    pub scripts: HashSet<ScriptHash>,
    pub txids: HashSet<Txid>,
    pub outpoints: HashSet<OutPoint>,
}

impl Universe {
    pub fn add(&mut self, block: &Block) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.txids.insert(txid);
            for (output, vout) in tx.output.iter().zip(0..) {
                self.scripts.insert(script_hash(&output.script_pubkey));
                self.outpoints.insert(OutPoint { txid, vout });
            }
        }
    }
}

pub fn script_hash(script: &ScriptBuf) -> ScriptHash {
    sha256::Hash::hash(script.as_bytes()).to_byte_array()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinFacts {
    pub script: ScriptHash,
    pub value: u64,
    pub place: Place,
}

/// A script's transactions in chain order, and its coins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptFacts {
    pub history: Vec<(Place, Txid)>,
    pub unspent: BTreeMap<(Place, u32), (Txid, u64)>,
}

/// A chain as wallets see it.
#[derive(Debug, Default)]
pub struct Model {
    pub blocks: Vec<Block>,
    pub txids: HashMap<Txid, Place>,
    pub coins: HashMap<OutPoint, CoinFacts>,
    pub scripts: HashMap<ScriptHash, ScriptFacts>,
}

impl Model {
    pub fn of(chain: &[Served]) -> anyhow::Result<Self> {
        let mut model = Self::default();
        for served in chain {
            let block: Block = bitcoin::consensus::deserialize(&served.read()?)?;
            // Genesis's coinbase has no history and no coin.
            if !model.blocks.is_empty() {
                model.connect(&block)?;
            }
            model.blocks.push(block);
        }
        Ok(model)
    }

    fn connect(&mut self, block: &Block) -> anyhow::Result<()> {
        let height = self.blocks.len() as u32;
        for (tx, position) in block.txdata.iter().zip(0..) {
            let (txid, place) = (tx.compute_txid(), (height, position));
            self.txids.insert(txid, place);
            for input in tx.input.iter().filter(|input| !input.previous_output.is_null()) {
                let outpoint = input.previous_output;
                let coin = self.coins.remove(&outpoint).context("the forge spends what is not there")?;
                let script = self.touch(coin.script, place, txid);
                script.unspent.remove(&(coin.place, outpoint.vout));
            }
            for (output, vout) in tx.output.iter().zip(0..) {
                if output.script_pubkey.is_op_return() {
                    continue;
                }
                let (script, value) = (script_hash(&output.script_pubkey), output.value.to_sat());
                self.coins.insert(OutPoint { txid, vout }, CoinFacts { script, value, place });
                self.touch(script, place, txid).unspent.insert((place, vout), (txid, value));
            }
        }
        Ok(())
    }

    fn touch(&mut self, script: ScriptHash, place: Place, txid: Txid) -> &mut ScriptFacts {
        let facts = self.scripts.entry(script).or_default();
        if facts.history.last().is_none_or(|(last, _)| *last != place) {
            facts.history.push((place, txid));
        }
        facts
    }

    pub fn height(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    /// Nothing, for a script that the chain does not have.
    pub fn script(&self, hash: &ScriptHash) -> ScriptFacts {
        self.scripts.get(hash).cloned().unwrap_or_default()
    }
}
