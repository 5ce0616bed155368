//! Raw blocks and a wallet index in flat files, and what changes with each block in redb.
//!
//! Blocking, one writer ([`Store`]), many readers ([`Snapshot`]). It knows nothing of peers, rules or wallets:
//! what it is given has been checked.
//!
//! Promises:
//! - What [`Store::commit`] returned from survives `kill -9` and a lost page cache; what it did not is gone
//!   without a trace. A reorg of any depth is one commit: all of it or nothing.
//! - A snapshot speaks of one tip. When a deep reorg takes the files from under an old one, it answers
//!   [`Error::SnapshotGone`], never with data of another chain.
//! - Undoing a block needs no peer, at any depth.
//! - A failed fsync is not retried: the store is dead from then on, and says so.
//!
//! `docs/format.md` draws the files.

mod array;
mod base;
mod build;
mod bulk;
mod catch_up;
mod check;
mod codec;
mod commit;
mod delta;
mod delta_row;
mod deltas;
mod disk;
mod error;
mod files;
mod filter;
mod forecast;
mod group;
mod headers;
mod manifest;
mod merge;
mod merkle;
mod mmr;
mod open;
mod outline;
mod outputs;
mod raw_tx;
mod repair;
mod segments;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod snapshot;
mod space;
mod stopped;
mod store;
mod tip;
mod types;
mod undo;
mod view;

pub use check::{Checker, Problem, Report};
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::Error;
pub use forecast::{Estimate, Forecast, Progress, forecast};
pub use manifest::FORMAT;
pub use merge::{MergeJob, MergeResult};
pub use outline::{Outline, OutlineInput, OutlineOutput, OutlineTx, OutputKind};
pub use repair::Damaged;
pub use snapshot::{HeaderProof, RawTx, Snapshot, Spender, TxLocation};
pub use space::Usage;
pub use stopped::Stopped;
pub use store::{Commit, LoadedHeaders, NewBlock, Options, Store};
pub use types::{
    Coin, Height, HistoryEntry, ScriptClass, ScriptHash, ScriptKey, Tip, TxNum, Unspent, has_history,
    is_unspendable, network_name,
};

#[cfg(test)]
mod tests;
