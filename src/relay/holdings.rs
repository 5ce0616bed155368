//! What the mempool holds, by both ids.
//!
//! Kept here, as it tells what came and left, so that an announcement costs one look into a table.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Txid, Wtxid};
use hashbrown::HashTable;

use super::filter::Key;
use crate::mempool::Entry;
use crate::peer::Inventory;

/// See the module.
#[derive(Debug)]
pub(super) struct Holdings {
    key: Key,
    by_txid: HashTable<Arc<Entry>>,
    by_wtxid: HashTable<Arc<Entry>>,
}

impl Holdings {
    pub fn new(key: Key) -> Self {
        Self { key, by_txid: HashTable::new(), by_wtxid: HashTable::new() }
    }

    /// Added twice, it is there once.
    pub fn add(&mut self, entry: &Arc<Entry>) {
        if self.by_wtxid(&entry.wtxid).is_some() {
            return;
        }
        let Self { key, by_txid, by_wtxid } = self;
        let of_txid = |entry: &Arc<Entry>| key.of(entry.txid.as_byte_array());
        let of_wtxid = |entry: &Arc<Entry>| key.of(entry.wtxid.as_byte_array());
        by_txid.insert_unique(of_txid(entry), entry.clone(), of_txid);
        by_wtxid.insert_unique(of_wtxid(entry), entry.clone(), of_wtxid);
    }

    pub fn remove(&mut self, gone: &Entry) {
        let hash = self.key.of(gone.txid.as_byte_array());
        if let Ok(entry) = self.by_txid.find_entry(hash, |entry| entry.wtxid == gone.wtxid) {
            entry.remove();
        }
        let hash = self.key.of(gone.wtxid.as_byte_array());
        if let Ok(entry) = self.by_wtxid.find_entry(hash, |entry| entry.wtxid == gone.wtxid) {
            entry.remove();
        }
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
