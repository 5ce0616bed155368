//! One block as rows of the index: what it adds, and with what it takes away, also how to undo it.
//!
//! The newest blocks are kept as deltas, each one row of `tip.redb`, and as these structures in memory. A delta
//! knows its block alone; what it means on top of others is [`crate::view`]'s work. `build` makes one from a
//! block, `delta_row` its bytes.
//!
//! Coins made and spent within the block are in its histories only. A coin that a duplicate coinbase overwrites
//! (BIP30) counts as spent, and the older transaction's place in histories as replaced.

use bitcoin::block::Header;
use bitcoin::{Amount, BlockHash, OutPoint, Txid};

use crate::base::Table;
use crate::error::Error;
use crate::filter::Filter;
use crate::segments::BlockPos;
use crate::types::{Height, ScriptClass, ScriptKey, TxNum};

/// Bytes of a txid in the keys of the index. Whatever is found under them is checked against the whole txid.
pub(crate) const PREFIX_LEN: usize = 6;

/// Bits of a txid's start.
const START_BITS: u32 = 8 * PREFIX_LEN as u32;

/// First bytes of a txid, as index keys have them.
pub(crate) type TxPrefix = [u8; PREFIX_LEN];

pub(crate) fn tx_prefix(txid: &Txid) -> TxPrefix {
    let bytes: &[u8; 32] = txid.as_ref();
    let mut prefix = [0; PREFIX_LEN];
    prefix.copy_from_slice(&bytes[..PREFIX_LEN]);
    prefix
}

/// The first bytes of a hash as a number, in whose low bits there is something to tell hashes apart by.
fn word(start: &[u8]) -> u64 {
    start.iter().take(PREFIX_LEN).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// What filters know a transaction by.
pub(crate) fn tx_word(txid: &Txid) -> u64 {
    word(txid.as_ref())
}

/// What filters know an output of an earlier block by that is spent. Not the transaction alone: of one that pays
/// hundreds, each of as many blocks spends one, and all of them would be asked for each.
pub(crate) fn outpoint_word(outpoint: &OutPoint) -> u64 {
    spent_word(tx_word(&outpoint.txid), outpoint.vout)
}

fn spent_word(start: u64, vout: u32) -> u64 {
    let mixed = (start ^ u64::from(vout) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 8
}

/// What filters know a script by.
pub(crate) fn script_word(key: &ScriptKey) -> u64 {
    word(&key.0)
}

/// A coin without its place: what the value of a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoinValue {
    pub(crate) value: Amount,
    pub(crate) class: ScriptClass,
    pub(crate) script_key: ScriptKey,
}

/// A coin that the block makes and does not spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Made {
    /// Position of the transaction in its block.
    pub(crate) tx: u32,
    pub(crate) vout: u32,
    pub(crate) value: Amount,
    pub(crate) class: ScriptClass,
}

/// A coin of an earlier block that the block spends or overwrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spent {
    pub(crate) tx_num: TxNum,
    pub(crate) vout: u32,
    pub(crate) prefix: TxPrefix,
    pub(crate) value: Amount,
    pub(crate) class: ScriptClass,
}

/// What the block does to one script. Slices are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScriptRows<'a> {
    pub(crate) key: ScriptKey,
    /// Positions in the block of the transactions that pay to it or spend from it.
    pub(crate) history: &'a [u32],
    /// Earlier transactions that leave its history, as a later one has their txid.
    pub(crate) replaced: &'a [TxNum],
    pub(crate) made: &'a [Made],
    pub(crate) spent: &'a [Spent],
}

/// Where the rows of a script end; they begin where those of the script before end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    history: u32,
    replaced: u32,
    made: u32,
    spent: u32,
}

/// What is known of a block before its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeltaHead {
    pub(crate) height: Height,
    pub(crate) header: Header,
    pub(crate) pos: BlockPos,
    /// Number of the coinbase.
    pub(crate) first_tx: u32,
    pub(crate) txids: Vec<Txid>,
    /// Where each transaction starts within the block.
    pub(crate) offsets: Vec<u32>,
}

/// One block's rows.
#[derive(Debug)]
pub(crate) struct Delta {
    pub(crate) head: DeltaHead,
    pub(crate) hash: BlockHash,
    keys: Vec<ScriptKey>,
    ends: Vec<Ends>,
    history: Vec<u32>,
    replaced: Vec<TxNum>,
    made: Vec<Made>,
    spent: Vec<Spent>,
    /// Orders for looking up, made anew when a delta is read back.
    /// Start of a txid, position in the block.
    by_txid: Vec<(u64, u32)>,
    /// For each value of the uppermost bits of a start, the first place in `by_txid`, and the end of all: to halve
    /// thousands of places takes a dozen accesses to memory, each after the other.
    txid_places: Vec<u32>,
    /// What of a start is below those bits.
    start_shift: u32,
    /// Output, place among the made, place of their script; by position in the block, then by output.
    by_made: Vec<[u32; 3]>,
    /// For each position in the block the first place in `by_made`, and the end of all.
    made_places: Vec<u32>,
    /// Start of a txid, output, number.
    by_spent: Vec<(u64, u32, u32)>,
    /// A question goes to some 300 deltas; a binary search in each would cost more than the base.
    filter: Filter,
}

/// Rows of all scripts, to be grouped; any order, duplicates of history allowed.
#[derive(Debug, Default)]
pub(crate) struct LooseRows {
    pub(crate) history: Vec<(ScriptKey, u32)>,
    pub(crate) replaced: Vec<(ScriptKey, TxNum)>,
    pub(crate) made: Vec<(ScriptKey, Made)>,
    pub(crate) spent: Vec<(ScriptKey, Spent)>,
}

/// The rows of one script as decoded.
#[derive(Debug)]
pub(crate) struct OwnedRows {
    pub(crate) key: ScriptKey,
    pub(crate) history: Vec<u32>,
    pub(crate) replaced: Vec<TxNum>,
    pub(crate) made: Vec<Made>,
    pub(crate) spent: Vec<Spent>,
}

impl Delta {
    /// Groups rows by script.
    pub(crate) fn new(head: DeltaHead, mut rows: LooseRows) -> Self {
        rows.history.sort_unstable();
        rows.history.dedup();
        rows.replaced.sort_unstable();
        rows.replaced.dedup();
        rows.made.sort_unstable();
        rows.spent.sort_unstable();
        let mut keys: Vec<ScriptKey> = rows.history.iter().map(|row| row.0).collect();
        keys.extend(rows.replaced.iter().map(|row| row.0));
        keys.extend(rows.made.iter().map(|row| row.0));
        keys.extend(rows.spent.iter().map(|row| row.0));
        keys.sort_unstable();
        keys.dedup();
        let mut end = Ends::default();
        let ends = keys.iter().map(|key| {
            end = Ends {
                history: advance(&rows.history, end.history, key),
                replaced: advance(&rows.replaced, end.replaced, key),
                made: advance(&rows.made, end.made, key),
                spent: advance(&rows.spent, end.spent, key),
            };
            end
        });
        let ends = ends.collect();
        let mut delta = Self {
            hash: head.header.block_hash(),
            head,
            keys,
            ends,
            history: rows.history.into_iter().map(|row| row.1).collect(),
            replaced: rows.replaced.into_iter().map(|row| row.1).collect(),
            made: rows.made.into_iter().map(|row| row.1).collect(),
            spent: rows.spent.into_iter().map(|row| row.1).collect(),
            by_txid: Vec::new(),
            txid_places: Vec::new(),
            start_shift: 0,
            by_made: Vec::new(),
            made_places: Vec::new(),
            by_spent: Vec::new(),
            filter: Filter::default(),
        };
        delta.index();
        delta
    }

    /// Makes the orders that are not kept on disk.
    fn index(&mut self) {
        let txids = self.head.txids.iter().map(tx_word).zip(0..);
        // The genesis coinbase is not found by its id.
        self.by_txid = txids.skip(usize::from(self.head.height == Height::GENESIS)).collect();
        self.by_txid.sort_unstable();
        self.start_shift = START_BITS - self.by_txid.len().max(1).ilog2() - 1;
        let starts = self.by_txid.iter().map(|(start, _)| (start >> self.start_shift) as usize);
        self.txid_places = places(starts, 1 << (START_BITS - self.start_shift));
        let mut script = 0;
        let made = self.made.iter().zip(0u32..).map(|(made, at)| {
            while self.ends[script].made <= at {
                script += 1;
            }
            [made.tx, made.vout, at, script as u32]
        });
        let mut made: Vec<[u32; 4]> = made.collect();
        made.sort_unstable();
        self.made_places = places(made.iter().map(|place| place[0] as usize), self.head.txids.len());
        self.by_made = made.into_iter().map(|[_, vout, at, script]| [vout, at, script]).collect();
        let spent = self.spent.iter().map(|spent| (word(&spent.prefix), spent.vout, spent.tx_num.0));
        self.by_spent = spent.collect();
        self.by_spent.sort_unstable();
        self.filter = Filter::with_capacity(self.keys.len() + self.spent.len());
        self.keys.iter().for_each(|key| self.filter.add(script_word(key)));
        self.by_spent.iter().for_each(|(start, vout, _)| self.filter.add(spent_word(*start, *vout)));
    }

    /// About how many entries of a table it makes.
    pub(crate) fn entries(&self, table: Table) -> usize {
        match table {
            Table::Scripts => self.keys.len() / 2,
            Table::Coins => self.made.len().saturating_sub(self.spent.len()),
            Table::Txs => self.head.txids.len(),
        }
    }

    pub(crate) fn tx_count(&self) -> u32 {
        self.head.txids.len() as u32
    }

    /// Number of the next block's coinbase.
    pub(crate) fn end_tx(&self) -> u32 {
        self.head.first_tx + self.tx_count()
    }

    /// What the block does to each script, by key.
    pub(crate) fn scripts(&self) -> impl ExactSizeIterator<Item = ScriptRows<'_>> {
        (0..self.keys.len()).map(|at| self.script_at(at))
    }

    pub(crate) fn keys(&self) -> &[ScriptKey] {
        &self.keys
    }

    /// What the block does to a script.
    pub(crate) fn script(&self, key: &ScriptKey) -> Option<ScriptRows<'_>> {
        if !self.filter.may_have(script_word(key)) {
            return None;
        }
        self.keys.binary_search(key).ok().map(|at| self.script_at(at))
    }

    /// What the block does to the script at a place of [`Delta::keys`].
    pub(crate) fn script_at(&self, at: usize) -> ScriptRows<'_> {
        let start = if at == 0 { Ends::default() } else { self.ends[at - 1] };
        let end = self.ends[at];
        ScriptRows {
            key: self.keys[at],
            history: &self.history[start.history as usize..end.history as usize],
            replaced: &self.replaced[start.replaced as usize..end.replaced as usize],
            made: &self.made[start.made as usize..end.made as usize],
            spent: &self.spent[start.spent as usize..end.spent as usize],
        }
    }

    /// Position in the block of the transaction with that id.
    pub(crate) fn position_of(&self, txid: &Txid) -> Option<u32> {
        let wanted = tx_word(txid);
        let place = (wanted >> self.start_shift) as usize;
        let near = &self.by_txid[self.txid_places[place] as usize..self.txid_places[place + 1] as usize];
        let from = near.partition_point(|(start, _)| *start < wanted);
        let alike = near[from..].iter().take_while(|(start, _)| *start == wanted);
        alike.map(|(_, at)| *at).find(|at| self.head.txids[*at as usize] == *txid)
    }

    /// A coin that this block makes.
    pub(crate) fn made(&self, tx: u32, vout: u32) -> Option<CoinValue> {
        let places = self.made_places.get(tx as usize..)?;
        let [from, end] = *places.first_chunk::<2>()?;
        let of_tx = &self.by_made[from as usize..end as usize];
        let at = of_tx.binary_search_by_key(&vout, |[vout, _, _]| *vout).ok()?;
        let [_, at, script] = of_tx[at];
        let made = self.made[at as usize];
        Some(CoinValue { value: made.value, class: made.class, script_key: self.keys[script as usize] })
    }

    /// Numbers of transactions of which this block spends output `outpoint.vout` and which, by their first bytes,
    /// may be `outpoint.txid`.
    pub(crate) fn maybe_spent(&self, outpoint: &OutPoint) -> impl Iterator<Item = TxNum> {
        let wanted = (tx_word(&outpoint.txid), outpoint.vout);
        let rows: &[_] = if self.filter.may_have(outpoint_word(outpoint)) { &self.by_spent } else { &[] };
        let from = rows.partition_point(|(start, vout, _)| (*start, *vout) < wanted);
        let alike = rows[from..].iter().take_while(move |(start, vout, _)| (*start, *vout) == wanted);
        alike.map(|(_, _, number)| TxNum(*number))
    }

    /// What it may be asked for: its scripts, its transactions, and the outputs that it spends.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        let spent = self.by_spent.iter().map(|(start, vout, _)| spent_word(*start, *vout));
        self.keys.iter().map(script_word).chain(self.head.txids.iter().map(tx_word)).chain(spent)
    }

    /// Whether two rows spend one coin.
    pub(crate) fn spends_twice(&self) -> bool {
        self.by_spent.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Puts decoded scripts, sorted by key, together.
    pub(crate) fn from_scripts(head: DeltaHead, scripts: Vec<OwnedRows>) -> Self {
        let mut rows = LooseRows::default();
        for script in scripts {
            let key = script.key;
            rows.history.extend(script.history.into_iter().map(|row| (key, row)));
            rows.replaced.extend(script.replaced.into_iter().map(|row| (key, row)));
            rows.made.extend(script.made.into_iter().map(|row| (key, row)));
            rows.spent.extend(script.spent.into_iter().map(|row| (key, row)));
        }
        Self::new(head, rows)
    }

    /// Start and end of a transaction within the block.
    pub(crate) fn tx_range(&self, tx: u32) -> Result<(u32, u32), Error> {
        let start = self.head.offsets.get(tx as usize).copied();
        let end = self.head.offsets.get(tx as usize + 1).copied().unwrap_or(self.head.pos.length);
        match start {
            Some(start) => Ok((start, end)),
            None => {
                Err(Error::corrupt("tip.redb", format!("no transaction {tx} at height {}", self.head.height)))
            }
        }
    }
}

/// Of ascending numbers below `end`: for each number the place of the first that is not below it, and the count of all.
fn places(numbers: impl Iterator<Item = usize>, end: usize) -> Vec<u32> {
    let mut places = vec![0; end + 1];
    numbers.for_each(|number| places[number + 1] += 1);
    let mut sum = 0;
    for place in &mut places {
        sum += *place;
        *place = sum;
    }
    places
}

fn advance<T>(rows: &[(ScriptKey, T)], from: u32, key: &ScriptKey) -> u32 {
    from + rows[from as usize..].iter().take_while(|row| row.0 == *key).count() as u32
}
