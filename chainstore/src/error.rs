//! What can go wrong in the store, in words that name the file and the values.

use std::io;

use bitcoin::BlockHash;

use crate::types::Height;

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds `LOCK`.
    #[error("data folder {dir} is in use by another process")]
    Locked { dir: String },
    /// The folder belongs to another network.
    #[error("data folder holds {found}, not {wanted}: give another with --data-dir")]
    WrongNetwork { found: String, wanted: &'static str },
    /// `MANIFEST` names a format that this version cannot read.
    #[error("data folder has format {found}; this version reads format {known}")]
    UnknownFormat { found: String, known: u32 },
    /// Files contradict each other, or hold what was never written.
    #[error("{file}: {what}")]
    Corrupt { file: String, what: String },
    /// A stored block is not what was written.
    #[error("block file {segment:05} at byte {offset}: checksum {found:08x} does not match {wanted:08x}")]
    Checksum { segment: u32, offset: u32, found: u32, wanted: u32 },
    /// The bytes of a block are not there, or not those that were written; all else is as it was. Fetched again,
    /// the block can be put in their place with `Store::repair_block`.
    #[error("block {hash} at height {height} is damaged on disk: {what}")]
    DamagedBlock { height: Height, hash: BlockHash, what: String },
    /// The disk is full, or `needed` bytes, the reserve among them, are not free. Nothing is damaged: what was
    /// staged is lost when the store is reopened ([`crate::Store::stop`]), what was committed stands.
    #[error("{file}: no space left on the disk{}", needed_words(*.needed))]
    StorageFull { file: String, needed: u64 },
    /// The operating system refused.
    #[error("{file}: {what}: {source}")]
    Io { file: String, what: &'static str, source: io::Error },
    /// redb refused.
    #[error("{file}: {source}")]
    Index { file: String, source: Box<redb::Error> },
    /// An earlier write or fsync failed, so nothing more is written; reopening recovers.
    #[error("the store stopped after an error: {why}")]
    Dead { why: String },
    /// A reorg deeper than the deltas replaced files that this snapshot reads; take a new one.
    #[error("the chain was reorganised under this snapshot")]
    SnapshotGone,
    /// `connect` was given a block that does not extend the tip.
    #[error("block {hash} does not extend the tip at height {tip:?}")]
    NotNext { hash: BlockHash, tip: Option<Height> },
    /// The parts given to `connect` do not belong together.
    #[error("block {hash}: {what}")]
    BadInput { hash: BlockHash, what: &'static str },
    /// Transaction numbers have four bytes.
    #[error("transaction number overflow at height {height}")]
    TxNumOverflow { height: Height },
    /// Nothing is connected.
    #[error("no block to disconnect")]
    NoTip,
    /// `merge` was called between staging and commit.
    #[error("merge with uncommitted work")]
    Staged,
    /// Headers given to `follow_headers` do not link, or would replace connected ones.
    #[error("header at height {height} does not link to the chain of headers above the tip")]
    BadHeaders { height: Height },
}

impl Error {
    /// An operating system's error met at `what` on `file`.
    pub(crate) fn io(file: &str, what: &'static str, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::StorageFull { file: file.to_owned(), needed: 0 }
        } else {
            Self::Io { file: file.to_owned(), what, source }
        }
    }

    /// redb's error on `file`.
    pub(crate) fn index(file: &str, source: impl Into<redb::Error>) -> Self {
        match source.into() {
            redb::Error::Io(source) => Self::io(file, "index", source),
            redb::Error::Corrupted(what) => Self::corrupt(file, what),
            source => Self::Index { file: file.to_owned(), source: Box::new(source) },
        }
    }

    pub(crate) fn corrupt(file: &str, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), what: what.into() }
    }
}

/// How much would have been enough, where that is known.
fn needed_words(needed: u64) -> String {
    if needed == 0 { String::new() } else { format!(": {} MB must be free", needed.div_ceil(1_000_000)) }
}
