//! WHICH CHAIN: every header we know, which of them end the best chain, and whom to ask for more.
//!
//! In the order of the data: `sync` takes what peers send, `asking` decides whose turn it is (with a `locator`, from
//! the `peer_state`), `intake` checks the answers, `presync` those whose work is doubtful; `tree` holds what passed, on a
//! `trunk` and as `branches` beside it, `view` shows the rules one branch of it, and `assumed` says whose scripts are known.
//! No blocks here: that a header's block is invalid is told by [`HeaderTree::mark_invalid`].

mod asking;
mod assumed;
mod branches;
mod intake;
mod locator;
mod peer_state;
mod presync;
mod sync;
mod tree;
mod trunk;
mod view;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_sync;

pub use sync::{HeaderSync, MAX_HEADERS, Output, Progress, Warning};
pub use tree::{HeaderInfo, HeaderTip, HeaderTree, InsertError, Inserted, MAX_BRANCH_HEADERS};
pub use view::Branch;
