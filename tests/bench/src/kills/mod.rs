//! The program killed again and again at chosen moments, and compared with what must be true of its chain.
//!
//! `world` forges chains and branches, `model` says what is true of one, `server` runs the program and knows from
//! its log lines what it is doing, `harm` kills it, `check` compares.

pub mod aim;
pub mod check;
pub mod harm;
pub mod model;
pub mod sample;
pub mod server;
pub mod tally;
pub mod world;

#[cfg(test)]
mod tests;
