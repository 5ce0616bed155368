//! FEES: what a transaction has to pay to be in one of the next blocks, and what the mempool's transactions pay.
//!
//! In: what was admitted, the fees of connected blocks, the chunks of the pool. Out: a feerate for a number of blocks,
//! and the histogram that wallets draw. In the order of an estimate: `bands` is the scale of feerates and what comes
//! in on each of its bands, `block` what a block tells, `history` what the last blocks tell together, `outlook` what
//! the pool tells, `estimator` the answer out of both, `state` what is kept for a restart. `histogram` stands by itself.
//! Whether a transaction is taken at all is decided before, so what cannot be mined does not count here.
//! Which fees and why: `docs/fees.md`.

mod bands;
mod block;
mod estimator;
mod histogram;
mod history;
mod outlook;
mod state;

#[cfg(test)]
mod estimator_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod simulation_tests;

pub use block::{BlockFees, BlockTransaction, Covered};
pub use estimator::{FeeEstimator, MAX_TARGET, Mode};
pub use histogram::{Bin, histogram};
pub use state::StateError;
