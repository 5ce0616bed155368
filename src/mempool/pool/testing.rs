//! Entries made up for tests.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid, Wtxid};
use bytes::Bytes;
use chainstore::{Height, ScriptKey};

use crate::mempool::{Entry, Input, Output};
use crate::time::{Instant, Now};

/// A coin of a block.
pub fn coin(number: u64) -> OutPoint {
    OutPoint { txid: id(number | 1 << 63), vout: 0 }
}

/// Output `vout` of an entry.
pub fn output(entry: &Entry, vout: u32) -> OutPoint {
    OutPoint { txid: entry.txid, vout }
}

fn id(number: u64) -> Txid {
    Txid::hash(&number.to_le_bytes())
}

pub fn script(number: u64) -> ScriptKey {
    let mut key = [0; ScriptKey::LEN];
    key[..8].copy_from_slice(&number.to_le_bytes());
    ScriptKey(key)
}

pub fn at(seconds: u64) -> Now {
    Now { instant: Instant::from_start(Duration::from_secs(seconds)), unix: 1_700_000_000 + seconds }
}

/// A transaction to be made up.
#[derive(Clone, Debug)]
pub struct Draft {
    pub number: u64,
    pub inputs: Vec<OutPoint>,
    pub outputs: usize,
    pub fee: u64,
    pub vsize: u64,
    pub is_truc: bool,
    pub dust: Option<u32>,
    pub at: Now,
}

/// One with two outputs that pays 1,000 satoshi for 200 virtual bytes.
pub fn draft(number: u64, inputs: &[OutPoint]) -> Draft {
    Draft {
        number,
        inputs: inputs.to_vec(),
        outputs: 2,
        fee: 1_000,
        vsize: 200,
        is_truc: false,
        dust: None,
        at: at(0),
    }
}

impl Draft {
    pub fn fee(self, fee: u64) -> Self {
        Self { fee, ..self }
    }

    pub fn vsize(self, vsize: u64) -> Self {
        Self { vsize, ..self }
    }

    pub fn outputs(self, outputs: usize) -> Self {
        Self { outputs, ..self }
    }

    pub fn truc(self) -> Self {
        Self { is_truc: true, ..self }
    }

    pub fn dust(self, vout: u32) -> Self {
        Self { dust: Some(vout), ..self }
    }

    pub fn at(self, at: Now) -> Self {
        Self { at, ..self }
    }

    pub fn entry(self) -> Arc<Entry> {
        let txid = id(self.number);
        let inputs = self.inputs.iter().map(|&outpoint| Input {
            outpoint,
            value: Amount::from_sat(10_000),
            script: script(self.number % 7),
        });
        let outputs = (0..self.outputs).map(|vout| Output {
            value: Amount::from_sat(5_000),
            script: script((self.number + vout as u64) % 11),
            is_unspendable: false,
        });
        Arc::new(Entry {
            txid,
            wtxid: Wtxid::from_byte_array(*txid.as_byte_array()),
            raw: Bytes::from(vec![0; self.vsize as usize]),
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            fee: Amount::from_sat(self.fee),
            weight: self.vsize * 4,
            vsize: self.vsize,
            sigops_cost: 0,
            dust: self.dust,
            is_truc: self.is_truc,
            spends_coinbase: false,
            at: self.at.instant,
            unix: self.at.unix,
            height: Height(800_000),
        })
    }
}
