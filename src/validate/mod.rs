//! CHECK: the consensus rules as pure functions, and the only makers of `CheckedBlock` and `ConnectedBlock`.
//!
//! `params` holds what differs between networks, `header` rungs 0 and 1 of the validation ladder, `block`
//! rungs 3 and 4 (with `raw`, `merkle`, `transaction`, `sigops`, `signet`, `spends`), `connect` rung 5 (with `inputs`).
//! The rules of single transactions (`transaction`, `inputs`, `sigops`) also hold for those that no block has yet.
//! Reject reasons are Bitcoin Core's words. Nothing here knows of peers, files or time of its own.

mod block;
mod connect;
mod error;
mod header;
mod inputs;
mod merkle;
mod params;
mod raw;
mod signet;
mod sigops;
mod spends;
mod transaction;

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod connect_tests;
#[cfg(test)]
mod signet_tests;
#[cfg(test)]
mod testing;

pub use block::{BlockContext, CheckedBlock, check_block};
pub use connect::{ConnectedBlock, SpendContext, connect_block, subsidy};
pub use error::{BlockError, Verdict};
pub use header::{
    Ancestors, HeaderError, MAX_FUTURE_BLOCK_TIME, check_header, check_proof_of_work, check_without_clock,
    median_time_past, next_work_required, work_of,
};
pub use inputs::{InputError, SpentValue, check_inputs, locks_passed};
pub use params::{BLOCK_SPACING, Params, RETARGET_INTERVAL, RETARGET_TIMESPAN};
pub use sigops::{MAX_BLOCK_SIGOPS_COST, executed_legacy_sigops, script_sigops, transaction_sigops_cost};
pub use transaction::{InputParts, OutputParts, TransactionParts, check_transaction, is_coinbase, is_final};
