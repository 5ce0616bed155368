//! peerdex: the Electrum server that needs no Bitcoin node.
//!
//! The modules stand in the order in which data passes through them. Each imports only what stands before it
//! (`tests/layering.rs` holds that), and all but the last are pure: no socket, no clock, no thread, no log line.
//! `docs/architecture.md` says why.

pub mod config;
pub mod time;

pub mod blocks;
pub mod headers;
pub mod peer;
pub mod validate;
// chainstore, its own crate, keeps what has been checked.
pub mod electrum;
pub mod query;

pub mod node;

pub mod io;
