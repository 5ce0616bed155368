//! FETCH: which peer is asked for which block, and where each block goes once it is checked.
//!
//! In the order of the data: `sync` takes what happens, `window` names the blocks that come next, `scheduler` decides
//! who is asked for them (with what `peers` knows of each, and with `patience`), `reorder` holds what arrived until
//! its turn, `activation` hands it on: to be connected, kept, or switched to from `shelf`, the blocks that lie on disk.
//! At the tip, `compact` asks for blocks without what is here already, and `rebuild` puts them together by
//! each `short_id`.
//! Beside that way, `repair` fetches blocks again that were damaged on disk.
//! Blocks are checked by `validate`, which `check` calls, and connected by `node::chain`; no header is judged here.

mod activation;
mod check;
mod compact;
mod patience;
mod peers;
mod rebuild;
mod reorder;
mod repair;
mod scheduler;
mod shelf;
mod short_id;
mod sync;
mod types;
mod window;

#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod reorg_tests;
#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod testing_forge;

pub use check::{Refusal, check_received};
pub use compact::CompactFigures;
pub use rebuild::{Partial, Rebuilt, Unfit};
pub use sync::BlockSync;
pub use types::{ChainEvent, Output, Progress};
