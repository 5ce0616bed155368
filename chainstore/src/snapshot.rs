//! What readers see: the chain at one tip.

use bitcoin::block::Header;
use bitcoin::hashes::sha256d;
use bitcoin::{Amount, OutPoint, Txid};

use crate::error::Error;
use crate::store::State;
use crate::types::{Coin, Height, HistoryEntry, ScriptHash, Tip, TxNum, Unspent};

/// The committed chain at one tip. Reads take no lock and never wait for the writer.
#[derive(Debug)]
pub struct Snapshot(pub(crate) State);

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLocation {
    pub tx_num: TxNum,
    pub height: Height,
    /// Position within its block; the coinbase is 0.
    pub pos: u32,
}

/// A transaction as it stands in its block, witness included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTx {
    pub bytes: Vec<u8>,
    pub height: Height,
}

/// That a header is one of those up to a checkpoint height: hashes in computing order, deepest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderProof {
    pub branch: Vec<sha256d::Hash>,
    pub root: sha256d::Hash,
}

impl Snapshot {
    pub fn tip(&self) -> Option<Tip> {
        self.0.tip()
    }
    pub fn header_count(&self) -> u32 {
        self.0.headers.len() as u32
    }
    pub fn header(&self, h: Height) -> Result<Option<Header>, Error> {
        Ok(self.0.blocks.get(h.0 as usize).map(|b| b.header).or(self.0.headers.get(h.0 as usize).copied()))
    }
    pub fn headers(&self, from: Height, count: u32) -> Result<Vec<u8>, Error> {
        let mut out = vec![];
        for h in from.0..from.0 + count {
            if let Some(x) = self.header(Height(h))? {
                out.extend(bitcoin::consensus::serialize(&x));
            }
        }
        Ok(out)
    }
    pub fn header_proof(&self, height: Height, cp: Height) -> Result<Option<HeaderProof>, Error> {
        use bitcoin::hashes::{Hash, HashEngine};
        let mut v: Vec<sha256d::Hash> = vec![];
        for h in 0..=cp.0 {
            let Some(x) = self.header(Height(h))? else { return Ok(None) };
            v.push(x.block_hash().to_raw_hash());
        }
        let mut i = height.0 as usize;
        let mut branch = vec![];
        while v.len() > 1 {
            if v.len() % 2 == 1 {
                v.push(*v.last().expect("x"));
            }
            branch.push(v[i ^ 1]);
            i /= 2;
            v = v
                .chunks(2)
                .map(|c| {
                    let mut e = sha256d::Hash::engine();
                    e.input(&c[0][..]);
                    e.input(&c[1][..]);
                    sha256d::Hash::from_engine(e)
                })
                .collect();
        }
        Ok(Some(HeaderProof { branch, root: v[0] }))
    }
    pub fn median_time_past(&self, h: Height) -> Result<Option<u32>, Error> {
        Ok(self.0.mtp(h))
    }
    pub fn history(&self, s: &ScriptHash) -> Result<Vec<HistoryEntry>, Error> {
        Ok(self
            .0
            .histories
            .get(&s.key())
            .into_iter()
            .flatten()
            .map(|n| HistoryEntry {
                tx_num: *n,
                txid: self.0.txids[n.0 as usize],
                height: self.0.height_of(*n).expect("x"),
            })
            .collect())
    }
    pub fn unspent(&self, s: &ScriptHash) -> Result<Vec<Unspent>, Error> {
        let mut v: Vec<Unspent> = self
            .0
            .coins
            .iter()
            .filter(|(_, c)| c.script_key == s.key())
            .map(|(o, c)| Unspent {
                tx_num: c.tx_num,
                txid: o.txid,
                vout: o.vout,
                height: c.height,
                value: c.value,
            })
            .collect();
        v.sort_by_key(|u| (u.tx_num, u.vout));
        Ok(v)
    }
    pub fn balance(&self, s: &ScriptHash) -> Result<Amount, Error> {
        Ok(self.unspent(s)?.iter().map(|u| u.value).sum())
    }
    pub fn coin(&self, o: &OutPoint) -> Result<Option<Coin>, Error> {
        Ok(self.0.coins.get(o).copied())
    }
    pub fn tx_num(&self, t: &Txid) -> Result<Option<TxNum>, Error> {
        Ok(self.0.txids.iter().rposition(|x| x == t).filter(|n| *n > 0).map(|n| TxNum(n as u32)))
    }
    pub fn tx_location(&self, t: &Txid) -> Result<Option<TxLocation>, Error> {
        Ok(self.tx_num(t)?.map(|n| {
            let height = self.0.height_of(n).expect("x");
            TxLocation { tx_num: n, height, pos: n.0 - self.0.blocks[height.0 as usize].first }
        }))
    }
    pub fn txid(&self, n: TxNum) -> Result<Option<Txid>, Error> {
        Ok(self.0.txids.get(n.0 as usize).copied())
    }
    pub fn height_of(&self, n: TxNum) -> Option<Height> {
        self.0.height_of(n)
    }
    pub fn raw_tx(&self, t: &Txid) -> Result<Option<RawTx>, Error> {
        let Some(l) = self.tx_location(t)? else { return Ok(None) };
        let b: bitcoin::Block =
            bitcoin::consensus::deserialize(&self.0.blocks[l.height.0 as usize].raw).expect("x");
        Ok(Some(RawTx { bytes: bitcoin::consensus::serialize(&b.txdata[l.pos as usize]), height: l.height }))
    }
    pub fn raw_block(&self, h: Height) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.blocks.get(h.0 as usize).map(|b| b.raw.to_vec()))
    }
    pub fn block_txids(&self, h: Height) -> Result<Option<Vec<Txid>>, Error> {
        Ok(self
            .0
            .blocks
            .get(h.0 as usize)
            .map(|b| self.0.txids[b.first as usize..(b.first + b.count) as usize].to_vec()))
    }
    pub fn txid_at(&self, h: Height, p: u32) -> Result<Option<Txid>, Error> {
        Ok(self.block_txids(h)?.and_then(|v| v.get(p as usize).copied()))
    }
}
