//! The connected chain as admission asks for it, read from a snapshot of the store.
//!
//! Questions have no room for a failing store, so a failure is kept here: whoever asked looks for it afterwards, and an
//! answer that was given meanwhile does not count.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use chainstore::{Error, Height, Snapshot};

use crate::mempool::{ChainCoin, ChainState};

/// Bytes of coins that are remembered: those of what is being judged at once, but for the largest.
const REMEMBERED_BYTES: usize = 4_000_000;
/// What a coin takes beside its script.
const COIN_BYTES: usize = 200;

/// One snapshot, asked by admission.
#[derive(Debug)]
pub(super) struct Reader {
    snapshot: Arc<Snapshot>,
    last: RefCell<LastCoins>,
    failure: RefCell<Option<Error>>,
}

/// The coins that were read last. A transaction is looked at again once its scripts were run, and reading a coin costs
/// more than all else.
#[derive(Debug, Default)]
struct LastCoins {
    known: HashMap<OutPoint, ChainCoin>,
    /// The oldest first.
    order: VecDeque<OutPoint>,
    bytes: usize,
}

impl LastCoins {
    fn insert(&mut self, outpoint: OutPoint, coin: ChainCoin) {
        let bytes = bytes_of(&coin);
        if bytes > REMEMBERED_BYTES || self.known.contains_key(&outpoint) {
            return;
        }
        while self.bytes + bytes > REMEMBERED_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.known.remove(&oldest).map_or(0, |coin| bytes_of(&coin));
        }
        self.bytes += bytes;
        self.order.push_back(outpoint);
        self.known.insert(outpoint, coin);
    }
}

fn bytes_of(coin: &ChainCoin) -> usize {
    COIN_BYTES + coin.output.script_pubkey.len()
}

impl Reader {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, last: RefCell::default(), failure: RefCell::default() }
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
        if let Some(coin) = self.last.borrow().known.get(outpoint) {
            return Ok(Some(coin.clone()));
        }
        let Some(coin) = self.snapshot.coin(outpoint)? else { return Ok(None) };
        // The index keeps no script: it is read from the block that made it.
        let output = self.snapshot.output_of_coin(&coin, outpoint.vout)?;
        let coin = ChainCoin { output, height: coin.height, is_coinbase: coin.is_coinbase };
        self.last.borrow_mut().insert(*outpoint, coin.clone());
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

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf, TxOut};

    use super::*;

    #[test]
    fn the_oldest_coins_are_forgotten() {
        let outpoint = |vout| OutPoint::new(Txid::all_zeros(), vout);
        let coin = |script: usize| ChainCoin {
            output: TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::from_bytes(vec![0; script]) },
            height: Height(1),
            is_coinbase: false,
        };
        let mut last = LastCoins::default();
        let half = REMEMBERED_BYTES / 2 - COIN_BYTES;
        for vout in [0, 0, 1, 2] {
            last.insert(outpoint(vout), coin(half));
        }
        assert_eq!(last.order, [outpoint(1), outpoint(2)]);
        assert_eq!((last.known.len(), last.bytes), (2, REMEMBERED_BYTES));
        last.insert(outpoint(3), coin(REMEMBERED_BYTES));
        assert!(!last.known.contains_key(&outpoint(3)), "too large to be kept");
        last.insert(outpoint(4), coin(1));
        assert_eq!(last.order, [outpoint(2), outpoint(4)]);
    }
}
