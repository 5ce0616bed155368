//! What loads an Electrum server: questions whose answers the forge knows, connections that keep several of them in
//! flight, and what to print of it.
//!
//! While the time runs, the client only cuts lines and reads their ids, for it shares its processors with the
//! server. One answer in `SAMPLE` is kept and compared with the truth afterwards; all are compared once before.

pub mod check;
pub mod connection;
pub mod known;
pub mod question;
pub mod report;
pub mod run;
pub mod start;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
