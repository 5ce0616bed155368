//! What the mempool holds, by both ids.
//!
//! Kept here, as it tells what came and left, so that an announcement costs one look into a table. Some of it is secret:
//! a wallet's transaction that goes over private connections. To peers we are then as one that has not got it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Txid, Wtxid};
use hashbrown::HashTable;

use super::filter::Key;
use crate::mempool::{Entry, Unconfirmed};
use crate::peer::Inventory;

/// See the module.
#[derive(Debug)]
pub(super) struct Holdings {
    key: Key,
    by_txid: HashTable<Arc<Entry>>,
    by_wtxid: HashTable<Arc<Entry>>,
    secrets: BTreeSet<Wtxid>,
}

impl Holdings {
    pub fn new(key: Key) -> Self {
        Self { key, by_txid: HashTable::new(), by_wtxid: HashTable::new(), secrets: BTreeSet::new() }
    }

    /// Added twice, it is there once.
    pub fn add(&mut self, entry: &Arc<Entry>) {
        if self.by_wtxid(&entry.wtxid).is_some() {
            return;
        }
        let Self { key, by_txid, by_wtxid, .. } = self;
        let of_txid = |entry: &Arc<Entry>| key.of(entry.txid.as_byte_array());
        let of_wtxid = |entry: &Arc<Entry>| key.of(entry.wtxid.as_byte_array());
        by_txid.insert_unique(of_txid(entry), entry.clone(), of_txid);
        by_wtxid.insert_unique(of_wtxid(entry), entry.clone(), of_wtxid);
    }

    pub fn remove(&mut self, gone: &Entry) {
        self.secrets.remove(&gone.wtxid);
        let hash = self.key.of(gone.txid.as_byte_array());
        if let Ok(entry) = self.by_txid.find_entry(hash, |entry| entry.wtxid == gone.wtxid) {
            entry.remove();
        }
        let hash = self.key.of(gone.wtxid.as_byte_array());
        if let Ok(entry) = self.by_wtxid.find_entry(hash, |entry| entry.wtxid == gone.wtxid) {
            entry.remove();
        }
    }

    /// Says whether that is another than before.
    pub fn set_secret(&mut self, wtxid: Wtxid, is_secret: bool) -> bool {
        if is_secret { self.secrets.insert(wtxid) } else { self.secrets.remove(&wtxid) }
    }

    /// Whether peers may learn that we have it: it is no secret, and needs none.
    pub fn is_public(&self, entry: &Entry) -> bool {
        if self.secrets.is_empty() {
            return true;
        }
        let (mut seen, mut queue) = (BTreeSet::new(), vec![entry]);
        while let Some(entry) = queue.pop() {
            if self.secrets.contains(&entry.wtxid) {
                return false;
            }
            let parents = entry.inputs.iter().filter_map(|input| self.by_txid(&input.outpoint.txid));
            queue.extend(parents.filter(|parent| seen.insert(parent.wtxid)).map(Arc::as_ref));
        }
        true
    }

    /// The secrets that it spends from.
    pub fn secret_parents(&self, tx: &Unconfirmed) -> Vec<Txid> {
        if self.secrets.is_empty() {
            return Vec::new();
        }
        let parents: BTreeSet<Txid> = tx.tx().input.iter().map(|input| input.previous_output.txid).collect();
        let is_secret =
            |txid: &Txid| self.by_txid(txid).is_some_and(|entry| self.secrets.contains(&entry.wtxid));
        parents.into_iter().filter(is_secret).collect()
    }

    /// Whether we have what an `inv` names, as far as peers may know.
    pub fn is_known(&self, named: &Inventory) -> bool {
        self.find(named).is_some_and(|entry| !self.secrets.contains(&entry.wtxid))
    }

    pub fn by_txid(&self, txid: &Txid) -> Option<&Arc<Entry>> {
        self.by_txid.find(self.key.of(txid.as_byte_array()), |entry| entry.txid == *txid)
    }

    pub fn by_wtxid(&self, wtxid: &Wtxid) -> Option<&Arc<Entry>> {
        self.by_wtxid.find(self.key.of(wtxid.as_byte_array()), |entry| entry.wtxid == *wtxid)
    }

    /// What an entry of an `inv` or `getdata` names.
    pub fn find(&self, named: &Inventory) -> Option<&Arc<Entry>> {
        match named.by_wtxid() {
            Some(wtxid) => self.by_wtxid(&wtxid),
            None => self.by_txid(&named.by_txid()?),
        }
    }
}
