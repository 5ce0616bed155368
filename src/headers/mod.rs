//! WHICH CHAIN: every header we know, which of them end the best chain, and whom to ask for more.
//!
//! In the order of the data: `sync` asks peers and takes their answers, `tree` holds what passed, on a `trunk` and
//! as `branches` beside it, `view` shows the rules one branch of it, and `locator` says to peers where we stand.
//! No blocks here: that a header's block is invalid is told by [`HeaderTree::mark_invalid`].

mod branches;
mod locator;
mod tree;
mod trunk;
mod view;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod testing;

pub use tree::{HeaderInfo, HeaderTip, HeaderTree, InsertError, Inserted, MAX_BRANCH_HEADERS};
pub use view::Branch;
