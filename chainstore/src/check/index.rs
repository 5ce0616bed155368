//! The base beside what the blocks say, range by range of script keys.
//!
//! Of each range's rows only sums of keyed hashes are kept, one for each of 65,536 buckets; nobody who does not know
//! the key can make two sums meet. Where one differs the range is gone through again, and the rows of its bucket are
//! compared one by one, to say which script it is.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash};

use bitcoin::Txid;

use super::rows::{BaseCoin, BaseRows};
use super::walk::{COIN_BYTES, Range, Sink, Walked, walk};
use super::{Checker, Report};
use crate::base::cut;
use crate::delta::{CoinValue, TxPrefix, tx_prefix};
use crate::delta_row::class_code;
use crate::error::Error;
use crate::types::{ScriptKey, TxNum};
use crate::view::View;

/// How problems name the base.
const FILE: &str = "base";
/// Buckets, by two bytes of a key.
const BUCKETS: usize = 1 << 16;
/// Buckets of a range that are compared row by row, when more differ.
const MOST_BUCKETS: usize = 8;

/// How many passes the base will take at least.
pub(super) fn passes(base: &dyn BaseRows, memory_bytes: usize) -> u32 {
    let mut coins = 0u64;
    // What cannot be read is told by the pass that reads it.
    let _ = base.each_coin(&mut |_| {
        coins += 1;
        Ok(())
    });
    let passes = (coins * COIN_BYTES as u64).div_ceil(memory_bytes.max(1) as u64);
    passes.clamp(1, 1 << 16) as u32
}

/// Compares all rows of the base with the blocks that it goes to.
pub(super) fn check(
    view: &View,
    base: &dyn BaseRows,
    prefix_len: u8,
    mut of: u32,
    checker: &mut Checker<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    loop {
        let mut found = report.clone();
        let mut whole = true;
        for (range, pass) in Range::all(of).zip(0u32..) {
            let mut pass = Pass { view, base, prefix_len, range, is_first: pass == 0, of, pass };
            whole = pass.check(checker, &mut found)? == Walked::Whole;
            if !whole {
                break;
            }
        }
        if whole {
            *report = found;
            return Ok(());
        }
        // At some height more was unspent than there is now.
        of = of.saturating_mul(2);
    }
}

/// One range.
struct Pass<'a> {
    view: &'a View,
    base: &'a dyn BaseRows,
    prefix_len: u8,
    range: Range,
    /// The one that compares transactions too.
    is_first: bool,
    of: u32,
    pass: u32,
}

impl Pass<'_> {
    fn check(&mut self, checker: &mut Checker<'_>, report: &mut Report) -> Result<Walked, Error> {
        let secret = RandomState::new();
        let mut wanted = Sums::new(&secret, self.prefix_len, self.is_first);
        let (range, blocks) = (self.range, self.view.base.blocks);
        let most = checker.memory_bytes / COIN_BYTES * 2;
        let (of, pass) = (f64::from(self.of), f64::from(self.pass));
        let mut progress = |height: u32| {
            let here = f64::from(height + 1) / f64::from(blocks);
            (checker.progress)((1.0 + pass + here) / (1.0 + of));
        };
        let walked = walk(self.view, blocks, &|key| range.has(key), most, &mut wanted, &mut progress)?;
        if walked == Walked::TooMany {
            return Ok(walked);
        }
        report.passes += 1;
        let mut found = Sums::new(&secret, self.prefix_len, self.is_first);
        if let Err(error) = self.read(&|key| range.has(key), &mut found) {
            report.add_error("the index cannot be read", &error);
            return Ok(walked);
        }
        let scripts = wanted.differing(&found);
        let txs: BTreeSet<usize> = (0..BUCKETS).filter(|at| wanted.txs[*at] != found.txs[*at]).collect();
        if !scripts.is_empty() || !txs.is_empty() {
            self.compare(&scripts, &txs, report)?;
        }
        Ok(walked)
    }

    /// Tells a sink what the base has.
    fn read(&self, has: &dyn Fn(&ScriptKey) -> bool, sink: &mut dyn Rows) -> Result<(), Error> {
        self.base.each_group(&mut |key, group| {
            if has(&key) {
                group.history.iter().for_each(|number| sink.history(&key, *number));
                group.unspent.iter().for_each(|coin| {
                    sink.unspent(&key, coin.tx_num, coin.vout, coin.value.to_sat());
                });
            }
            Ok(())
        })?;
        self.base.each_coin(&mut |coin| {
            if has(&coin.coin.script_key) {
                sink.coin(&coin);
            }
            Ok(())
        })?;
        if self.is_first {
            self.base.each_tx(&mut |prefix, number| {
                sink.tx(prefix, number);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Compares the rows of some buckets one by one.
    fn compare(
        &self,
        scripts: &BTreeSet<usize>,
        txs: &BTreeSet<usize>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let looked_at = |all: &BTreeSet<usize>| all.iter().take(MOST_BUCKETS).copied().collect();
        let (some_scripts, some_txs): (BTreeSet<usize>, BTreeSet<usize>) =
            (looked_at(scripts), looked_at(txs));
        let has = |key: &ScriptKey| self.range.has(key) && some_scripts.contains(&script_bucket(key));
        let mut wanted = Exact::new(self.prefix_len, &some_txs);
        walk(self.view, self.view.base.blocks, &has, usize::MAX, &mut wanted, &mut |_| {})?;
        let mut found = Exact::new(self.prefix_len, &some_txs);
        self.read(&has, &mut found)?;
        wanted.tell(&found, self.view, report);
        let more = scripts.len() + txs.len() - some_scripts.len() - some_txs.len();
        if more > 0 {
            report.add(FILE, format!("{more} more buckets of scripts or transactions differ"));
        }
        report.passes += 1;
        Ok(())
    }
}

fn script_bucket(key: &ScriptKey) -> usize {
    // The first four bytes make the range.
    usize::from(u16::from_be_bytes([key.0[4], key.0[5]]))
}

fn tx_bucket(prefix: TxPrefix) -> usize {
    usize::from(u16::from_be_bytes([prefix[0], prefix[1]]))
}

/// Rows as both sides have them.
trait Rows {
    fn history(&mut self, key: &ScriptKey, number: TxNum);
    fn unspent(&mut self, key: &ScriptKey, number: TxNum, vout: u32, value: u64);
    fn coin(&mut self, coin: &BaseCoin);
    fn tx(&mut self, prefix: TxPrefix, number: TxNum);
}

/// Sums of the hashes of rows.
struct Sums<'a> {
    secret: &'a RandomState,
    prefix_len: u8,
    with_txs: bool,
    history: Vec<u64>,
    unspent: Vec<u64>,
    coins: Vec<u64>,
    txs: Vec<u64>,
}

impl<'a> Sums<'a> {
    fn new(secret: &'a RandomState, prefix_len: u8, with_txs: bool) -> Self {
        let sums = || vec![0; BUCKETS];
        let (history, unspent, coins, txs) = (sums(), sums(), sums(), sums());
        Self { secret, prefix_len, with_txs, history, unspent, coins, txs }
    }

    fn hash(&self, row: impl Hash) -> u64 {
        self.secret.hash_one(row)
    }

    /// Buckets of scripts whose rows are others.
    fn differing(&self, other: &Self) -> BTreeSet<usize> {
        let of = |sums: &Self, at: usize| (sums.history[at], sums.unspent[at], sums.coins[at]);
        (0..BUCKETS).filter(|at| of(self, *at) != of(other, *at)).collect()
    }
}

impl Rows for Sums<'_> {
    fn history(&mut self, key: &ScriptKey, number: TxNum) {
        let hash = self.hash((key, number));
        let sum = &mut self.history[script_bucket(key)];
        *sum = sum.wrapping_add(hash);
    }

    fn unspent(&mut self, key: &ScriptKey, number: TxNum, vout: u32, value: u64) {
        let hash = self.hash((key, number, vout, value));
        let sum = &mut self.unspent[script_bucket(key)];
        *sum = sum.wrapping_add(hash);
    }

    fn coin(&mut self, row: &BaseCoin) {
        let hash = self.hash(coin_words(row));
        let sum = &mut self.coins[script_bucket(&row.coin.script_key)];
        *sum = sum.wrapping_add(hash);
    }

    fn tx(&mut self, prefix: TxPrefix, number: TxNum) {
        let hash = self.hash((prefix, number));
        let sum = &mut self.txs[tx_bucket(prefix)];
        *sum = sum.wrapping_add(hash);
    }
}

/// All that a row of the coins table says.
fn coin_words(row: &BaseCoin) -> (TxNum, u32, TxPrefix, u64, u8, ScriptKey) {
    let CoinValue { value, class, script_key } = row.coin;
    (row.tx_num, row.vout, row.prefix, value.to_sat(), class_code(class), script_key)
}

impl Sink for Sums<'_> {
    fn history(&mut self, key: &ScriptKey, number: TxNum) {
        Rows::history(self, key, number);
    }

    fn replaced(&mut self, key: &ScriptKey, number: TxNum) {
        let hash = self.hash((key, number));
        let sum = &mut self.history[script_bucket(key)];
        *sum = sum.wrapping_sub(hash);
    }

    fn unspent(&mut self, txid: &Txid, vout: u32, tx_num: TxNum, coin: &CoinValue) {
        Rows::unspent(self, &coin.script_key, tx_num, vout, coin.value.to_sat());
        let prefix = cut(tx_prefix(txid), self.prefix_len);
        self.coin(&BaseCoin { prefix, vout, tx_num, coin: *coin });
    }

    fn tx(&mut self, txid: &Txid, number: TxNum) {
        if self.with_txs {
            Rows::tx(self, cut(tx_prefix(txid), self.prefix_len), number);
        }
    }
}

/// The rows themselves, of a few buckets.
struct Exact<'a> {
    prefix_len: u8,
    tx_buckets: &'a BTreeSet<usize>,
    history: BTreeSet<(ScriptKey, TxNum)>,
    unspent: BTreeSet<(ScriptKey, TxNum, u32, u64)>,
    coins: BTreeMap<(TxNum, u32, TxPrefix), (u64, u8, ScriptKey)>,
    txs: BTreeSet<(TxPrefix, TxNum)>,
}

impl<'a> Exact<'a> {
    fn new(prefix_len: u8, tx_buckets: &'a BTreeSet<usize>) -> Self {
        Self {
            prefix_len,
            tx_buckets,
            history: BTreeSet::new(),
            unspent: BTreeSet::new(),
            coins: BTreeMap::new(),
            txs: BTreeSet::new(),
        }
    }

    /// Says where `found` is not what is wanted, of each kind of damage the first few.
    fn tell(&self, found: &Self, view: &View, report: &mut Report) {
        let tx = |number: &TxNum| {
            let txid = view.txid(*number).ok().flatten().map_or_else(String::new, |txid| format!(" {txid}"));
            let height = view.height_of(*number).map_or_else(String::new, |at| format!(" at height {at}"));
            format!("transaction {}{txid}{height}", number.0)
        };
        let missing = self.history.difference(&found.history);
        add_some(report, missing.map(|(key, n)| format!("{}: its history misses {}", script(key), tx(n))));
        let extra = found.history.difference(&self.history);
        add_some(
            report,
            extra.map(|(key, n)| format!("{}: its history has {} too much", script(key), tx(n))),
        );
        let missing = self.unspent.difference(&found.unspent).map(|(key, n, vout, value)| {
            format!("{}: misses unspent output {vout} of {}, {value} satoshi", script(key), tx(n))
        });
        add_some(report, missing);
        let extra = found.unspent.difference(&self.unspent).map(|(key, n, vout, value)| {
            let place = format!("{}: has output {vout} of {}", script(key), tx(n));
            format!("{place}, {value} satoshi, which is not unspent")
        });
        add_some(report, extra);
        let missing = self.coins.keys().filter(|place| !found.coins.contains_key(*place));
        add_some(
            report,
            missing.map(|(n, vout, _)| format!("the coin of output {vout} of {} is missing", tx(n))),
        );
        let other = self.coins.iter().filter_map(|(place @ (n, vout, _), coin)| {
            let other = found.coins.get(place).filter(|other| *other != coin)?;
            let place = format!("the coin of output {vout} of {}", tx(n));
            Some(format!("{place} is {other:?}, not {coin:?} (satoshi, class, script)"))
        });
        add_some(report, other);
        let extra =
            found.coins.keys().filter(|place| !self.coins.contains_key(*place)).map(|(n, vout, _)| {
                format!("there is a coin of output {vout} of {}, which is not unspent", tx(n))
            });
        add_some(report, extra);
        let missing = self.txs.difference(&found.txs);
        add_some(report, missing.map(|(_, n)| format!("{} is not found by its id", tx(n))));
        let extra = found
            .txs
            .difference(&self.txs)
            .map(|(prefix, n)| format!("{} is found by an id that begins with {prefix:02x?}", tx(n)));
        add_some(report, extra);
    }
}

/// Tells some of one kind, and counts the others.
fn add_some(report: &mut Report, mut problems: impl Iterator<Item = String>) {
    const SOME: usize = 5;
    problems.by_ref().take(SOME).for_each(|what| report.add(FILE, what));
    report.more += problems.count() as u64;
}

/// The start of a script's hash in the order in which wallets show it: its end.
fn script(key: &ScriptKey) -> String {
    use std::fmt::Write;
    let mut text = "script hash …".to_owned();
    for byte in key.0.iter().rev() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Rows for Exact<'_> {
    fn history(&mut self, key: &ScriptKey, number: TxNum) {
        self.history.insert((*key, number));
    }

    fn unspent(&mut self, key: &ScriptKey, number: TxNum, vout: u32, value: u64) {
        self.unspent.insert((*key, number, vout, value));
    }

    fn coin(&mut self, row: &BaseCoin) {
        let (number, vout, prefix, value, class, key) = coin_words(row);
        self.coins.insert((number, vout, prefix), (value, class, key));
    }

    fn tx(&mut self, prefix: TxPrefix, number: TxNum) {
        if self.tx_buckets.contains(&tx_bucket(prefix)) {
            self.txs.insert((prefix, number));
        }
    }
}

impl Sink for Exact<'_> {
    fn history(&mut self, key: &ScriptKey, number: TxNum) {
        Rows::history(self, key, number);
    }

    fn replaced(&mut self, key: &ScriptKey, number: TxNum) {
        self.history.remove(&(*key, number));
    }

    fn unspent(&mut self, txid: &Txid, vout: u32, tx_num: TxNum, coin: &CoinValue) {
        Rows::unspent(self, &coin.script_key, tx_num, vout, coin.value.to_sat());
        let prefix = cut(tx_prefix(txid), self.prefix_len);
        self.coin(&BaseCoin { prefix, vout, tx_num, coin: *coin });
    }

    fn tx(&mut self, txid: &Txid, number: TxNum) {
        Rows::tx(self, cut(tx_prefix(txid), self.prefix_len), number);
    }
}
