//! Outputs with their scripts, which the index does not keep: they are read from the blocks that made them.
//!
//! Each transaction is read once for all that is asked of it, checked against its id, and several are read at once, as
//! each waits for the disk. An output may be asked for spent or not; the caller has its number from a coin.
//! What is asked of one coin is read only as far as its script, and checked against the coin: anybody may ask for
//! thousands of coins, each from a transaction of a megabyte, by sending one that claims to spend them.

use std::collections::BTreeSet;
use std::thread;

use bitcoin::{BlockHash, Script, Transaction, TxOut, Txid};

use crate::error::Error;
use crate::files::Files;
use crate::raw_tx::{output_of, txid_of};
use crate::repair::name_block;
use crate::segments::{BlockPos, file_name};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::types::{Coin, Height, ScriptHash, TxNum};
use crate::view::{LOOKING_THREADS, View};

/// First bytes of a transaction that are read for one output; most are shorter.
const FIRST_READ: u32 = 2_048;
/// So many times as many are read next.
const READ_MORE: u32 = 16;
/// Fewer transactions are not worth a thread.
const READS_OF_A_THREAD: usize = 64;

impl Store {
    /// The output of a transaction of the staged chain by its index; what is not there is [`Error::Corrupt`], and a
    /// block that cannot be read [`Error::DamagedBlock`].
    pub fn output(&self, tx_num: TxNum, vout: u32) -> Result<TxOut, Error> {
        one(self.outputs(&[(tx_num, vout)])?)
    }

    /// The same of many, in their order.
    pub fn outputs(&self, wanted: &[(TxNum, u32)]) -> Result<Vec<TxOut>, Error> {
        self.alive()?;
        let Some(bulk) = &self.bulk else { return self.staged.view.outputs(wanted) };
        // The bulk itself stays with its thread; where the bytes are is all that others need.
        let (files, headers) = (bulk.files(), &self.staged.headers);
        let places = numbers(wanted).map(|number| Ok((number, bulk.place_of(number)?)));
        let places = places.collect::<Result<Vec<_>, Error>>()?;
        collect(wanted, &places, |place| place.read(files, |height| headers.hash(files, height.0)))
    }
}

impl Snapshot {
    /// The output of a transaction by its index; what is not there is [`Error::Corrupt`], and a block that cannot be
    /// read [`Error::DamagedBlock`].
    pub fn output(&self, tx_num: TxNum, vout: u32) -> Result<TxOut, Error> {
        one(self.outputs(&[(tx_num, vout)])?)
    }

    /// The same of many, in their order.
    pub fn outputs(&self, wanted: &[(TxNum, u32)]) -> Result<Vec<TxOut>, Error> {
        self.read(|view| view.outputs(wanted))
    }

    /// The output that is this coin, by its index; errors as of [`Self::output`].
    pub fn output_of_coin(&self, coin: &Coin, vout: u32) -> Result<TxOut, Error> {
        self.read(|view| match view.seen_output(coin, vout)? {
            Some(output) => Ok(output),
            // The block is damaged, or the index: what is wrong is found by reading the whole.
            None => one(view.outputs(&[(coin.tx_num, vout)])?),
        })
    }
}

impl View {
    pub(crate) fn outputs(&self, wanted: &[(TxNum, u32)]) -> Result<Vec<TxOut>, Error> {
        let numbers: Vec<_> = numbers(wanted).map(|number| (number, number)).collect();
        collect(wanted, &numbers, |number| self.tx(*number))
    }

    /// Reads no more of the transaction than it must; `None` where what is found there is not the coin.
    fn seen_output(&self, coin: &Coin, vout: u32) -> Result<Option<TxOut>, Error> {
        let (pos, start, end) = self.tx_range(coin.height, coin.tx_num)?;
        let mut bytes = FIRST_READ;
        loop {
            let until = end.min(start.saturating_add(bytes));
            let Ok(raw) = self.files.blocks.read_part(pos, start, until) else { return Ok(None) };
            if let Some((value, script)) = output_of(&raw, vout) {
                let script = Script::from_bytes(script);
                let is_it = value == coin.value.to_sat() && ScriptHash::of(script).key() == coin.script_key;
                return Ok(is_it.then(|| TxOut { value: coin.value, script_pubkey: script.to_owned() }));
            }
            if until == end {
                return Ok(None);
            }
            bytes = bytes.saturating_mul(READ_MORE);
        }
    }
}

/// Where the bytes of a transaction are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxPlace {
    pub(crate) txid: Txid,
    /// Of its block.
    pub(crate) height: Height,
    pub(crate) pos: BlockPos,
    /// Within the block.
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl TxPlace {
    /// The transaction, checked against its id. A damaged block is named with the hash that `hash_of` has for its
    /// height.
    pub(crate) fn read(
        &self,
        files: &Files,
        hash_of: impl Fn(Height) -> Result<Option<BlockHash>, Error>,
    ) -> Result<Transaction, Error> {
        let bytes = self.read_bytes(files, hash_of)?;
        bitcoin::consensus::deserialize(&bytes).map_err(|_| self.is_not_there())
    }

    /// The same as it stands in its block.
    pub(crate) fn read_bytes(
        &self,
        files: &Files,
        hash_of: impl Fn(Height) -> Result<Option<BlockHash>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let Self { txid, height, pos, start, end } = *self;
        let bytes = files.blocks.read_part(pos, start, end);
        if bytes.as_ref().is_ok_and(|bytes| txid_of(bytes) == Some(txid)) {
            return bytes;
        }
        // The block is damaged, or else what says where in it the transaction is.
        if let Err(error) = files.blocks.read(pos) {
            return Err(name_block(error, height, hash_of(height)?.ok_or(Error::NoTip)?));
        }
        bytes?;
        Err(self.is_not_there())
    }

    fn is_not_there(&self) -> Error {
        let Self { txid, pos, start, end, .. } = self;
        let at = format!("byte {}: bytes {start} to {end} of its block", pos.offset);
        Error::corrupt(&file_name(pos.segment), format!("{at} are not transaction {txid}"))
    }
}

/// Each number once, ascending.
fn numbers(wanted: &[(TxNum, u32)]) -> impl Iterator<Item = TxNum> {
    wanted.iter().map(|(number, _)| *number).collect::<BTreeSet<_>>().into_iter()
}

/// Reads the transactions that `places` names by number, ascending, and takes from them what is wanted.
fn collect<P: Sync>(
    wanted: &[(TxNum, u32)],
    places: &[(TxNum, P)],
    read: impl Fn(&P) -> Result<Transaction, Error> + Sync,
) -> Result<Vec<TxOut>, Error> {
    let mut by_number: Vec<(TxNum, u32, usize)> =
        wanted.iter().enumerate().map(|(at, (number, vout))| (*number, *vout, at)).collect();
    by_number.sort_unstable();
    let some = |places: &[(TxNum, P)]| -> Result<Vec<(usize, TxOut)>, Error> {
        let mut found = Vec::new();
        for (number, place) in places {
            let tx = read(place)?;
            let from = by_number.partition_point(|(other, ..)| other < number);
            for (_, vout, at) in by_number[from..].iter().take_while(|(other, ..)| other == number) {
                let output = tx.output.get(*vout as usize).ok_or_else(|| missing(*number, *vout))?;
                found.push((*at, output.clone()));
            }
        }
        Ok(found)
    };
    let each = places.len().div_ceil(*LOOKING_THREADS).max(READS_OF_A_THREAD);
    let (first, rest) = places.split_at(each.min(places.len()));
    let mut found = thread::scope(|scope| {
        let some = &some;
        let rest: Vec<_> = rest.chunks(each).map(|places| scope.spawn(move || some(places))).collect();
        let mut found = some(first)?;
        for more in rest {
            let panicked = |_| Err(Error::corrupt("blocks", "a thread that read transactions panicked"));
            found.extend(more.join().unwrap_or_else(panicked)?);
        }
        Ok::<_, Error>(found)
    })?;
    found.sort_unstable_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, output)| output).collect())
}

fn one(outputs: Vec<TxOut>) -> Result<TxOut, Error> {
    outputs.into_iter().next().ok_or_else(|| Error::corrupt("blocks", "an output was not read"))
}

fn missing(number: TxNum, vout: u32) -> Error {
    Error::corrupt("txpos", format!("transaction {} has no output {vout}", number.0))
}
