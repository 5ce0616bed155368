//! peerdex: the Electrum server that needs no Bitcoin node.
//!
//! The modules stand in the order in which data passes through them. Each imports only what stands before it
//! (`tests/layering.rs` holds that), and all but the last are pure: no socket, no clock, no thread, no log line.
//! `docs/architecture.md` says why.

// What every stage is given.
pub mod config;

pub mod oldest;
pub mod time;

// SCRIPTS: whether whoever spends may; the rules of blocks ask it for a signet's solution.
pub mod scripts;
// CHECK: the rules stand first, as they hold the networks' parameters that every stage reads.
pub mod validate;

// SOLVER: kinds of script, for what is relayed and what wallets are shown.
pub mod solver;

// WHO
pub mod peer;

// WHERE
pub mod addresses;

// WHICH CHAIN
pub mod headers;

// FETCH
pub mod blocks;

// KEEP is a crate of its own: chainstore.

// UNCONFIRMED
pub mod mempool;

// GOSSIP
pub mod relay;

// ASK
pub mod query;

// SERVE
pub mod electrum;

// TIES
pub mod node;

// FILES: blocks that lie on the disk already.
pub mod import;
// LOOKS AFTER the data folder.
pub mod care;

// THE WORLD
pub mod io;
