//! SCRIPTS: whether whoever spends an output may, by Bitcoin Core's own interpreter.
//!
//! `flags` says which rules hold, `verifier` runs the interpreter (a build without the feature `kernel` has none, and
//! says so), `template` follows the usual scripts step by step, as the interpreter tells no reasons, `policy` is
//! what nodes relay beyond what blocks may hold, `block` runs what a whole block spends, `verified` remembers what
//! was run. All of it may be called from many threads at once.
//!
//! Amounts, lock times against the chain and whether a coin exists are not looked at here.

mod block;
mod encoding;
mod error;
mod flags;
mod policy;
mod template;
mod verified;
mod verifier;

pub use block::{BlockSpends, InTurn, RunScripts, SpendingTx, verify_one};
pub use error::{Reason, ScriptError, VerifyError};
pub use flags::Flags;
pub use policy::{check_policy, verify_standard};
pub use template::verify_template;
pub use verified::VerifiedScripts;
pub use verifier::{is_available, verify};
