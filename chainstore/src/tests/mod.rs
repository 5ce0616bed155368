//! The store against a naive model, against crashes, and against real blocks.

mod bulk;
pub(crate) mod chain;
mod check;
mod crash;
mod deep;
mod format;
mod full;
mod model;
mod outputs;
mod refused;
