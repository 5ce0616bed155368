//! What wallets read of the mempool: one state of it, that stays as it is while the pool goes on.
//!
//! The maps share what did not change, so a view is made and copied in no time, and a change after it copies only the
//! few nodes on the way to what changed.

use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use chainstore::ScriptKey;
use hashbrown::{DefaultHashBuilder, HashSet};
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
        self.maps.entries.get(txid).filter(|_| !self.maps.is_hidden(txid))
    }

    /// Who spends that output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Arc<Entry>> {
        self.maps.spends.get(outpoint).filter(|entry| !self.maps.is_hidden(&entry.txid))
    }

    /// The entries that pay to a script or spend from it, each once, in the order in which they came.
    pub fn of_script(&self, script: &ScriptKey) -> impl Iterator<Item = &Arc<Entry>> {
        let all = self.maps.scripts.range((*script, 0)..=(*script, u64::MAX));
        all.map(|(_, entry)| entry).filter(|entry| !self.maps.is_hidden(&entry.txid))
    }

    /// Whether it spends an output of another entry: Electrum's height −1.
    pub fn has_unconfirmed_parent(&self, entry: &Entry) -> bool {
        entry.inputs.iter().any(|input| self.entry(&input.outpoint.txid).is_some())
    }

    pub fn len(&self) -> usize {
        self.maps.entries.len() - self.maps.hidden_left
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        self.maps.entries.values().filter(|entry| !self.maps.is_hidden(&entry.txid))
    }
}

/// What the pool keeps for its views.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    entries: Map<Txid, Arc<Entry>>,
    spends: Map<OutPoint, Arc<Entry>>,
    /// By script and by the entry's sequence number: flat, so that a script with many costs nothing more.
    scripts: OrdMap<(ScriptKey, u64), Arc<Entry>>,
    /// Left with a block, and still named by the maps: readers pass over them. Taking thousands out of maps that a view
    /// shares copies most of their nodes, and wallets would wait for that to hear of the block.
    hidden: Arc<HashSet<Txid>>,
    /// How many of them are still among the entries.
    hidden_left: usize,
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

    /// Takes entries out as far as readers can see. `remove` does it, for each and before anything is added, and
    /// [`Self::is_swept`] ends it.
    pub fn hide<'a>(&mut self, entries: impl Iterator<Item = &'a Arc<Entry>>) {
        let hidden = Arc::make_mut(&mut self.hidden);
        for entry in entries {
            self.hidden_left += usize::from(hidden.insert(entry.txid));
        }
    }

    pub fn is_hidden(&self, txid: &Txid) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(txid)
    }

    pub fn remove(&mut self, entry: &Entry, seq: u64) {
        self.entries.remove(&entry.txid);
        self.hidden_left -= usize::from(self.is_hidden(&entry.txid));
        for input in &entry.inputs {
            self.spends.remove(&input.outpoint);
        }
        for script in entry.scripts() {
            self.scripts.remove(&(script, seq));
        }
    }

    /// Nothing that is hidden is named any more.
    pub fn is_swept(&mut self) {
        debug_assert_eq!(self.hidden_left, 0);
        self.hidden = Arc::default();
    }
}
