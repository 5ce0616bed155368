//! SOLVER: what a script is by its form alone; nothing is run here.
//!
//! `ops` cuts a script into its operations, `script_type` tells the kinds of output apart. Both what is relayed and
//! what a wallet is shown go by them.

mod ops;
mod script_type;

pub use ops::{OP_1, OP_16, OP_PUSHDATA4, OP_RESERVED, Op, Ops, Truncated};
pub use script_type::ScriptType;
