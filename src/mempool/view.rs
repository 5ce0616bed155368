//! What wallets read of the mempool: one state of it, that stays as it is while the pool goes on.
//!
//! The maps share what did not change, so a view is made and copied in no time, and a change after it copies only the
//! few nodes on the way to what changed.

use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use chainstore::ScriptKey;
use hashbrown::DefaultHashBuilder;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap};

use super::{Entry, FeeRate};

type Map<K, V> = GenericHashMap<K, V, DefaultHashBuilder, DefaultSharedPtr>;

/// Sums over the mempool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Virtual bytes of all transactions.
    pub vsize: u64,
    /// Bytes of memory.
    pub bytes: usize,
    /// Fees of all transactions, in satoshi.
    pub fees: u64,
    /// Below this nothing is taken for now: what was evicted paid less. Zero while there is room.
    pub min_fee: FeeRate,
}

/// See the module. Made by [`Pool::view`](super::Pool::view).
#[derive(Clone, Debug, Default)]
pub struct MempoolView {
    maps: Maps,
    figures: Figures,
    recent: Arc<[Arc<Entry>]>,
}

impl MempoolView {
    pub(super) fn new(maps: Maps, figures: Figures, recent: Arc<[Arc<Entry>]>) -> Self {
        Self { maps, figures, recent }
    }

    pub fn entry(&self, txid: &Txid) -> Option<&Arc<Entry>> {
        self.maps.entries.get(txid)
    }

    /// Who spends that output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Arc<Entry>> {
        self.maps.spends.get(outpoint).filter(|entry| self.maps.is_here(entry))
    }

    /// The entries that pay to a script or spend from it, each once, in the order in which they came.
    pub fn of_script(&self, script: &ScriptKey) -> impl Iterator<Item = &Arc<Entry>> {
        let all = self.maps.scripts.range((*script, 0)..=(*script, u64::MAX));
        all.map(|(_, entry)| entry).filter(|entry| self.maps.is_here(entry))
    }

    /// Whether it spends an output of another entry: Electrum's height −1.
    pub fn has_unconfirmed_parent(&self, entry: &Entry) -> bool {
        entry.inputs.iter().any(|input| self.maps.entries.contains_key(&input.outpoint.txid))
    }

    pub fn len(&self) -> usize {
        self.maps.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.maps.entries.is_empty()
    }

    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// The newest ten, the newest first.
    pub fn recent(&self) -> &[Arc<Entry>] {
        &self.recent
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.maps.entries.values()
    }
}

/// What the pool keeps for its views.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    entries: Map<Txid, Arc<Entry>>,
    spends: Map<OutPoint, Arc<Entry>>,
    /// By script and by the entry's sequence number: flat, so that a script with many costs nothing more.
    scripts: OrdMap<(ScriptKey, u64), Arc<Entry>>,
    /// Whether the other maps name some that are not among the entries any more.
    has_leftovers: bool,
}

impl Maps {
    pub fn add(&mut self, entry: &Arc<Entry>, seq: u64) {
        self.entries.insert(entry.txid, Arc::clone(entry));
        for input in &entry.inputs {
            self.spends.insert(input.outpoint, Arc::clone(entry));
        }
        for script in entry.scripts() {
            self.scripts.insert((script, seq), Arc::clone(entry));
        }
    }

    pub fn remove(&mut self, entry: &Entry, seq: u64) {
        self.entries.remove(&entry.txid);
        self.forget(entry, seq);
    }

    /// Takes an entry out as far as readers can see. The rest is done by [`Self::forget`], before anything is added,
    /// and [`Self::is_swept`] after the last.
    pub fn hide(&mut self, entry: &Entry) {
        self.entries.remove(&entry.txid);
        self.has_leftovers = true;
    }

    /// No leftovers are named any more.
    pub fn is_swept(&mut self) {
        self.has_leftovers = false;
    }

    fn is_here(&self, entry: &Entry) -> bool {
        !self.has_leftovers || self.entries.contains_key(&entry.txid)
    }

    /// Takes it out of what it is found by beside its id.
    pub fn forget(&mut self, entry: &Entry, seq: u64) {
        for input in &entry.inputs {
            self.spends.remove(&input.outpoint);
        }
        for script in entry.scripts() {
            self.scripts.remove(&(script, seq));
        }
    }
}
