//! The connected chain as admission asks for it, read from a snapshot of the store.
//!
//! Questions have no room for a failing store, so a failure is kept here: whoever asked looks for it afterwards, and an
//! answer that was given meanwhile does not count.

use std::cell::RefCell;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use chainstore::{Error, Height, Snapshot};

use crate::mempool::{ChainCoin, ChainState};
use crate::oldest::Oldest;

/// Bytes of coins that are remembered: those of what is being judged at once, but for the largest.
const REMEMBERED_BYTES: usize = 4_000_000;
/// What a coin takes beside its script.
const COIN_BYTES: usize = 200;

/// One snapshot, asked by admission.
#[derive(Debug)]
pub(super) struct Reader {
    snapshot: Arc<Snapshot>,
    /// The coins that were read last. A transaction is looked at again once its scripts were run, and reading a coin
    /// costs more than all else.
    last: RefCell<Oldest<OutPoint, ChainCoin>>,
    failure: RefCell<Option<Error>>,
}

fn bytes_of(coin: &ChainCoin) -> usize {
    COIN_BYTES + coin.output.script_pubkey.len()
}

impl Reader {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        let last = RefCell::new(Oldest::with_limit(REMEMBERED_BYTES));
        Self { snapshot, last, failure: RefCell::default() }
    }

    /// What went wrong since this was last asked.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    fn or_keep<T: Default>(&self, answer: Result<T, Error>) -> T {
        answer.unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            T::default()
        })
    }

    fn read_coin(&self, outpoint: &OutPoint) -> Result<Option<ChainCoin>, Error> {
        if let Some(coin) = self.last.borrow().get(outpoint) {
            return Ok(Some(coin.clone()));
        }
        let Some(coin) = self.snapshot.coin(outpoint)? else { return Ok(None) };
        // The index keeps no script: it is read from the block that made it.
        let output = self.snapshot.output_of_coin(&coin, outpoint.vout)?;
        let coin = ChainCoin { output, height: coin.height, is_coinbase: coin.is_coinbase };
        self.last.borrow_mut().insert_weighing(*outpoint, coin.clone(), bytes_of(&coin));
        Ok(Some(coin))
    }
}

impl ChainState for Reader {
    fn coin(&self, outpoint: &OutPoint) -> Option<ChainCoin> {
        self.or_keep(self.read_coin(outpoint))
    }

    fn has_unspent(&self, txid: &Txid, outputs: u32) -> bool {
        (0..outputs).any(|vout| self.or_keep(self.snapshot.coin(&OutPoint::new(*txid, vout))).is_some())
    }

    fn median_time_past(&self, height: Height) -> u32 {
        self.or_keep(self.snapshot.median_time_past(height)).unwrap_or(0)
    }

    fn height(&self) -> Height {
        self.snapshot.tip().map_or(Height::GENESIS, |tip| tip.height)
    }
}
