//! What a wallet asks of an outpoint: whether it is there, where, and who spends it.

use bitcoin::{OutPoint, Transaction, Txid};
use chainstore::{Height, ScriptHash, ScriptKey};

use super::{Error, MempoolHeight, View};

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    Block(Height),
    Mempool(MempoolHeight),
}

impl Whereabouts {
    /// As the protocol writes it: a height, 0, or -1.
    pub fn number(self) -> i64 {
        match self {
            Self::Block(height) => i64::from(height.0),
            Self::Mempool(height) => height.number(),
        }
    }
}

/// What became of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutpointStatus {
    /// There is none: no such transaction, or not so many outputs.
    #[default]
    Missing,
    Unspent {
        funder: Whereabouts,
    },
    Spent {
        funder: Whereabouts,
        spender: Txid,
        at: Whereabouts,
    },
}

/// What was found out about an outpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutpointAnswer {
    pub status: OutpointStatus,
    /// Its script: a change of the status touches it. `None` while there is none.
    pub script: Option<ScriptKey>,
    /// Transactions that were read for the answer.
    pub read: usize,
}

impl View {
    /// Where an output is and who spends it; of two transactions with one txid (BIP30) the later counts. A confirmed
    /// spender hides the mempool.
    pub fn outpoint(&self, outpoint: &OutPoint) -> Result<OutpointAnswer, Error> {
        if let Some(coin) = self.snapshot.coin(outpoint)? {
            let status = self.unless_spent_in_mempool(outpoint, Whereabouts::Block(coin.height));
            return Ok(OutpointAnswer { status, script: Some(coin.script_key), read: 0 });
        }
        // The genesis coinbase has no number, so it is not found here.
        let Some(location) = self.snapshot.tx_location(&outpoint.txid)? else {
            return Ok(self.unconfirmed_outpoint(outpoint));
        };
        let raw = self.snapshot.raw_tx(&outpoint.txid)?;
        let transaction: Option<Transaction> =
            raw.and_then(|raw| bitcoin::consensus::deserialize(&raw.bytes).ok());
        let output = transaction.and_then(|mut transaction| {
            let index = outpoint.vout as usize;
            (index < transaction.output.len()).then(|| transaction.output.swap_remove(index))
        });
        let Some(output) = output else { return Ok(OutpointAnswer { read: 1, ..Default::default() }) };
        let script = ScriptHash::of(&output.script_pubkey).key();
        let spender = self.snapshot.spender(outpoint, &script, location.tx_num)?;
        let funder = Whereabouts::Block(location.height);
        let status = match spender.entry {
            Some(entry) => {
                OutpointStatus::Spent { funder, spender: entry.txid, at: Whereabouts::Block(entry.height) }
            }
            // Nobody can spend it (OP_RETURN).
            None => OutpointStatus::Unspent { funder },
        };
        Ok(OutpointAnswer { status, script: Some(script), read: 1 + spender.read })
    }

    fn unconfirmed_outpoint(&self, outpoint: &OutPoint) -> OutpointAnswer {
        let Some(entry) = self.mempool.entry(&outpoint.txid) else { return OutpointAnswer::default() };
        let Some(output) = entry.outputs.get(outpoint.vout as usize) else {
            return OutpointAnswer::default();
        };
        let funder = Whereabouts::Mempool(self.mempool_height(entry));
        let status = self.unless_spent_in_mempool(outpoint, funder);
        OutpointAnswer { status, script: Some(output.script), read: 0 }
    }

    fn unless_spent_in_mempool(&self, outpoint: &OutPoint, funder: Whereabouts) -> OutpointStatus {
        match self.mempool.spender(outpoint) {
            None => OutpointStatus::Unspent { funder },
            Some(entry) => OutpointStatus::Spent {
                funder,
                spender: entry.txid,
                at: Whereabouts::Mempool(self.mempool_height(entry)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Amount, ScriptBuf};

    use super::*;
    use crate::query::testing::{Chain, transaction};

    /// The coinbase of block 9, spent in block 170 by the first payment.
    const COINBASE_9: &str = "0437cd7f8525ceed2324359c2d0ba26006d92d856a9c20fa0241106ee5a597c9";
    const FIRST_PAYMENT: &str = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16";

    fn status(chain: &mut Chain, outpoint: OutPoint) -> OutpointStatus {
        chain.commit().0.outpoint(&outpoint).unwrap().status
    }

    #[test]
    fn an_output_is_missing_then_unspent_then_spent_and_back() {
        let mut chain = Chain::mainnet(8);
        let coin = OutPoint::new(COINBASE_9.parse().unwrap(), 0);
        assert_eq!(status(&mut chain, coin), OutpointStatus::Missing);
        chain.mine();
        let unspent = OutpointStatus::Unspent { funder: Whereabouts::Block(Height(9)) };
        assert_eq!(status(&mut chain, coin), unspent);
        (10..=170).for_each(|_| chain.mine());
        let spent = OutpointStatus::Spent {
            funder: Whereabouts::Block(Height(9)),
            spender: FIRST_PAYMENT.parse().unwrap(),
            at: Whereabouts::Block(Height(170)),
        };
        assert_eq!(status(&mut chain, coin), spent);
        chain.undo();
        assert_eq!(status(&mut chain, coin), unspent);
    }

    #[test]
    fn what_never_was_is_missing() {
        let mut chain = Chain::mainnet(9);
        let beyond = OutPoint::new(COINBASE_9.parse().unwrap(), 1);
        assert_eq!(status(&mut chain, beyond), OutpointStatus::Missing);
        assert_eq!(status(&mut chain, OutPoint { vout: u32::MAX, ..beyond }), OutpointStatus::Missing);
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin).txdata[0].compute_txid();
        assert_eq!(status(&mut chain, OutPoint::new(genesis, 0)), OutpointStatus::Missing);
    }

    #[test]
    fn an_output_that_nobody_can_spend_is_there() {
        let mut chain = Chain::mainnet(9);
        let coin = OutPoint::new(COINBASE_9.parse().unwrap(), 0);
        let data = ScriptBuf::from_bytes(vec![0x6a, 1, 1]);
        let outputs = [(Amount::ZERO, data), (Amount::ONE_BTC, ScriptBuf::from_bytes(vec![0x51]))];
        let payment = transaction(&[(coin, ScriptBuf::new())], &outputs);
        let txid = payment.compute_txid();
        let next = transaction(
            &[(OutPoint::new(txid, 1), ScriptBuf::new())],
            &[(Amount::ONE_BTC, ScriptBuf::from_bytes(vec![0x51]))],
        );
        let spender = next.compute_txid();
        chain.forge(ScriptBuf::new(), &[payment, next]);
        let funder = Whereabouts::Block(Height(10));
        assert_eq!(status(&mut chain, OutPoint::new(txid, 0)), OutpointStatus::Unspent { funder });
        // Spent in its own block: no coin of it is left anywhere.
        let spent = OutpointStatus::Spent { funder, spender, at: funder };
        assert_eq!(status(&mut chain, OutPoint::new(txid, 1)), spent);
    }

    #[test]
    fn an_output_goes_from_nothing_over_the_mempool_into_blocks_and_back() {
        let mut chain = Chain::mainnet(9);
        let coin = OutPoint::new(COINBASE_9.parse().unwrap(), 0);
        let pay = |coin, btc| {
            let script = ScriptBuf::from_bytes(vec![0x51]);
            transaction(&[(coin, ScriptBuf::new())], &[(Amount::from_int_btc(btc), script)])
        };
        let (first, second) = (pay(coin, 49), pay(OutPoint::new(pay(coin, 49).compute_txid(), 0), 48));
        let outpoint = OutPoint::new(second.compute_txid(), 0);
        let third = pay(outpoint, 47);
        let block = |height| Whereabouts::Block(Height(height));
        let waiting = Whereabouts::Mempool;
        let (on, below) = (MempoolHeight::OnConfirmed, MempoolHeight::OnUnconfirmed);
        let unspent = |funder| OutpointStatus::Unspent { funder };
        let spent = |funder, at| OutpointStatus::Spent { funder, spender: third.compute_txid(), at };

        let first = chain.receive(&first);
        assert_eq!(status(&mut chain, outpoint), OutpointStatus::Missing);
        let second = chain.receive(&second);
        assert_eq!(status(&mut chain, outpoint), unspent(waiting(below)));
        assert_eq!(status(&mut chain, OutPoint { vout: 1, ..outpoint }), OutpointStatus::Missing);
        chain.forge_of(ScriptBuf::new(), &[first]);
        assert_eq!(status(&mut chain, outpoint), unspent(waiting(on)));
        let third = chain.receive(&third);
        assert_eq!(status(&mut chain, outpoint), spent(waiting(on), waiting(below)));
        chain.forge_of(ScriptBuf::new(), &[second]);
        assert_eq!(status(&mut chain, outpoint), spent(block(11), waiting(on)));
        chain.forge_of(ScriptBuf::new(), &[third]);
        assert_eq!(status(&mut chain, outpoint), spent(block(11), block(12)));

        chain.undo_to_mempool();
        assert_eq!(status(&mut chain, outpoint), spent(block(11), waiting(on)));
        chain.undo_to_mempool();
        assert_eq!(status(&mut chain, outpoint), spent(waiting(on), waiting(below)));
        chain.undo_to_mempool();
        assert_eq!(status(&mut chain, outpoint), spent(waiting(below), waiting(below)));
        chain.evict(&third);
        assert_eq!(status(&mut chain, outpoint), unspent(waiting(below)));
        chain.evict(&first);
        assert_eq!(status(&mut chain, outpoint), OutpointStatus::Missing);
    }

    #[test]
    fn an_unconfirmed_output_that_nobody_can_spend_is_there() {
        let mut chain = Chain::mainnet(9);
        let coin = OutPoint::new(COINBASE_9.parse().unwrap(), 0);
        let note = (Amount::ZERO, ScriptBuf::from_bytes(vec![0x6a, 1, 1]));
        let txid = chain.receive(&transaction(&[(coin, ScriptBuf::new())], &[note]));
        let funder = Whereabouts::Mempool(MempoolHeight::OnConfirmed);
        assert_eq!(status(&mut chain, OutPoint::new(txid, 0)), OutpointStatus::Unspent { funder });
    }
}
