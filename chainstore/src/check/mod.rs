//! Whether everything that a folder holds is what its raw blocks say.
//!
//! `blocks` reads each block once and compares headers, merkle nodes and arrays with it. `index` then compares the
//! base in passes over ranges of script keys, each of which reads the blocks again (`walk`) and holds no more than the
//! coins of its range that are unspent at a time: rows are compared as sums of keyed hashes, and only where a sum
//! differs one by one. `deltas` makes the newest blocks' rows again.
//! Nothing is repaired.

mod blocks;
mod deltas;
mod index;
mod rows;
mod walk;

use std::sync::Arc;

use bitcoin::block::Header;

use crate::error::Error;
use crate::store::Store;

/// Problems that are told; more are counted.
const MOST_PROBLEMS: usize = 50;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as a path inside the folder.
    pub file: String,
    /// What is wrong and where, in words.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub problems: Vec<Problem>,
    /// Problems beyond those that are told.
    pub more: u64,
    /// What could not be compared, and why.
    pub skipped: Vec<String>,
    /// Blocks, transactions and passes over all blocks.
    pub blocks: u32,
    pub txs: u64,
    pub passes: u32,
}

impl Report {
    /// Whether nothing was wrong, as far as it was compared.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, file: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem { file: file.into(), what: what.into() });
        } else {
            self.more += 1;
        }
    }

    /// An error that was met while reading names its file itself.
    fn add_error(&mut self, place: &str, error: &Error) {
        match error {
            Error::Corrupt { file, what } => self.add(file.clone(), format!("{place}: {what}")),
            Error::Checksum { segment, .. } => {
                self.add(crate::segments::file_name(*segment), format!("{place}: {error}"));
            }
            Error::Io { file, .. } | Error::Index { file, .. } => {
                self.add(file.clone(), format!("{place}: {error}"));
            }
            error => self.add("data folder", format!("{place}: {error}")),
        }
    }
}

/// What to check with.
pub struct Checker<'a> {
    /// Memory to aim at for the coins of a range, in bytes; more makes fewer passes.
    pub memory_bytes: usize,
    /// Whether a header has the work that its network asks for; the error is in words.
    pub header: &'a dyn Fn(&Header) -> Result<(), String>,
    /// Told after each block which share of the work is done, 0 to 1.
    pub progress: &'a mut dyn FnMut(f64),
}

impl std::fmt::Debug for Checker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("memory_bytes", &self.memory_bytes).finish_non_exhaustive()
    }
}

impl Store {
    /// Compares the whole folder, as committed, with its raw blocks. An error is one of this machine's; what is wrong
    /// with the folder is in the report.
    ///
    /// A merge that was cut off is ended first: only then does the index say one thing.
    pub fn check(&mut self, checker: &mut Checker<'_>) -> Result<Report, Error> {
        self.alive()?;
        if self.bulk.is_none() && !self.view.index.is_level(self.view.base.blocks) {
            self.merge()?;
        }
        let mut report = Report::default();
        let mut view = self.view.clone();
        if let Some(bulk) = &self.bulk {
            let what =
                "the first sync has not ended: its sorted runs are not compared, the index is not written";
            report.skipped.push(what.to_owned());
            // The arrays go as far as the last flush.
            view.base = bulk.state().mark;
            let ends = bulk.tx_ends().iter().take(view.base.blocks as usize);
            view.tx_ends = Arc::new(ends.copied().collect());
            view.deltas = crate::deltas::Deltas::default();
        }
        report.blocks = view.blocks();
        report.txs = u64::from(view.end_tx());
        let passes = if self.bulk.is_some() { 0 } else { index::passes(&*view.index, checker.memory_bytes) };
        blocks::check(&view, self.state.headers, 1.0 / f64::from(1 + passes), checker, &mut report)?;
        if report.problems.iter().any(|problem| problem.file.starts_with("blocks/")) {
            let what = "the index was not compared: that needs all blocks as they were";
            report.skipped.push(what.to_owned());
        } else if self.bulk.is_none() {
            index::check(&view, &*view.index, self.options.txid_prefix, passes, checker, &mut report)?;
            deltas::check(&view, &mut report);
        }
        Ok(report)
    }
}
