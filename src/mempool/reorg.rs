//! The chain moves: what a block confirms leaves, what a disconnected block had may come back, and what was final or
//! ripe may be so no more.
//!
//! Blocks are told in the order in which they go and come, and `tip_changed` once after them.
//! Source: Bitcoin Core `validation.cpp` (`MaybeUpdateMempoolForReorg`), `txmempool.cpp` (`removeForBlock`,
//! `removeForReorg`).

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::consensus::deserialize;
use bitcoin::{Transaction, Txid};

use crate::time::Now;
use crate::validate::is_coinbase;

use super::admission::{Moment, ScriptCheck, Terms};
use super::coins::{ChainState, SpentCoin};
use super::entry::Entry;
use super::inputs::{check_amounts, check_final, check_sequence_locks};
use super::machine::Mempool;
use super::pool::Removal;
use super::transaction::Unconfirmed;

/// Bytes of disconnected transactions that are kept for their return (`MAX_DISCONNECTED_TX_POOL_BYTES`).
const MAX_DISCONNECTED_BYTES: usize = 20_000_000;
/// BIP68: no relative lock, or one of no time.
const SEQUENCE_DISABLED: u32 = 1 << 31;
const SEQUENCE_MASK: u32 = 0xffff;

/// Transactions of blocks that were disconnected, until the chain stands still again.
#[derive(Debug, Default)]
pub(super) struct Disconnected {
    /// In the order of the chain.
    txs: Vec<Arc<Unconfirmed>>,
    bytes: usize,
    /// Whether a block was disconnected since all was looked at.
    any: bool,
}

impl Mempool {
    /// A block was connected: of each transaction its id and itself.
    pub fn connect_block<'a>(
        &mut self,
        now: Now,
        txs: impl IntoIterator<Item = (Txid, &'a Transaction)> + Clone,
    ) {
        self.begin_block(now, txs);
        self.finish_block();
    }

    /// The same for views alone, until [`Self::finish_block`]: before anything but views is asked for.
    pub fn begin_block<'a>(
        &mut self,
        now: Now,
        txs: impl IntoIterator<Item = (Txid, &'a Transaction)> + Clone,
    ) {
        if !self.disconnected.txs.is_empty() {
            let confirmed: HashSet<Txid> = txs.clone().into_iter().map(|(txid, _)| txid).collect();
            self.disconnected.txs.retain(|tx| !confirmed.contains(&tx.txid()));
            self.disconnected.bytes = self.disconnected.txs.iter().map(|tx| tx.raw().len()).sum();
        }
        let spent = |tx: &'a Transaction| tx.input.iter().map(|input| input.previous_output);
        let changes = self.pool.begin_block(now, txs.into_iter().map(|(txid, tx)| (txid, spent(tx))));
        self.changes.merge(changes);
    }

    /// What left with the block that was begun leaves the pool's own books too.
    pub fn finish_block(&mut self) {
        self.pool.finish_block();
    }

    /// The tip was disconnected: all its transactions, in the order of the block.
    pub fn disconnect_block(&mut self, txs: Vec<Arc<Unconfirmed>>) {
        let disconnected = &mut self.disconnected;
        disconnected.any = true;
        disconnected.bytes += txs.iter().map(|tx| tx.raw().len()).sum::<usize>();
        disconnected.txs.splice(..0, txs);
        // Those of the old tip go first: the others may be what they depend on.
        while self.disconnected.bytes > MAX_DISCONNECTED_BYTES
            && let Some(tx) = self.disconnected.txs.pop()
        {
            self.disconnected.bytes -= tx.raw().len();
            self.remove_spenders(&tx);
        }
    }

    /// The chain stands still again, at the tip that `chain` has: after a reorganisation what may comes back, and what
    /// the next block may not hold any more leaves.
    ///
    /// What comes back had its scripts run for its block, so they are not run again.
    pub fn tip_changed(&mut self, chain: &dyn ChainState, now: Now) {
        let disconnected = std::mem::take(&mut self.disconnected);
        if !disconnected.any {
            return;
        }
        let moment = Moment { chain, now, scripts: ScriptCheck::Trusted };
        for tx in &disconnected.txs {
            if self.pool.get(&tx.txid()).is_none() && !self.comes_back(tx, moment) {
                self.remove_spenders(tx);
            }
        }
        let settled = self.pool.settle_reorg();
        self.changes.merge(settled);
        let entries: Vec<Arc<Entry>> = self.pool.entries().map(Arc::clone).collect();
        let premature = entries.iter().filter(|entry| !self.is_still_valid(entry, chain));
        let premature: Vec<Txid> = premature.map(|entry| entry.txid).collect();
        let removed = self.pool.remove(&premature, Removal::Reorg);
        self.changes.merge(removed);
        self.trim(now);
    }

    fn remove_spenders(&mut self, tx: &Unconfirmed) {
        let outputs = tx.tx().output.len() as u32;
        let removed = self.pool.remove_spenders(tx.txid(), outputs, Removal::Reorg);
        self.changes.merge(removed);
    }

    /// Neither its fee is asked for nor what its children do.
    fn comes_back(&mut self, tx: &Arc<Unconfirmed>, moment: Moment<'_>) -> bool {
        if is_coinbase(tx.tx()) {
            return false;
        }
        let terms = Terms { pays_alone: false, ..Terms::ALONE };
        let Ok(candidate) = self.candidate(tx, &[], moment, terms) else { return false };
        let Ok(changes) = self.pool.insert_from_block(candidate.entry) else { return false };
        self.changes.merge(changes);
        true
    }

    /// Whether the next block may hold an entry, as far as the chain has a say.
    fn is_still_valid(&self, entry: &Entry, chain: &dyn ChainState) -> bool {
        let Ok(tx) = deserialize::<Transaction>(&entry.raw) else { return false };
        if check_final(&tx, chain).is_err() {
            return false;
        }
        let is_locked = tx.input.iter().any(|input| {
            let sequence = input.sequence.to_consensus_u32();
            sequence & SEQUENCE_DISABLED == 0 && sequence & SEQUENCE_MASK != 0
        });
        if !is_locked && !entry.spends_coinbase {
            return true;
        }
        let coins = tx.input.iter().map_while(|input| self.coin(&input.previous_output, &[], chain));
        let coins: Vec<SpentCoin> = coins.collect();
        coins.len() == tx.input.len()
            && check_sequence_locks(&tx, &coins, chain).is_ok()
            && check_amounts(&tx, &coins, chain.height()).is_ok()
    }
}
