//! What times a sync: a peer that serves a forged chain, the same chain only hashed, and peerdex watched from outside.

pub mod chain;
pub mod hashing;
pub mod node;
pub mod peer;
pub mod program;
pub mod run;
pub mod watch;
pub mod wire;

#[cfg(test)]
mod tests;
