//! UNCONFIRMED: the transactions that no block has yet, as Bitcoin Core would keep them.
//!
//! In: transactions with the coins that they spend, blocks that were connected or disconnected, the time. Out: what
//! was taken, why something was not, what wallets should see. In the order of an admission: `transaction` is one as it
//! came, `coins` what the chain says of its inputs, `policy` which transactions are relayed, `reject` why not,
//! `entry` one that was taken, `submission` what wallets hand in and are told.
//! Who sent it, whom to ask and whom to tell is for `relay`; scripts are run by `scripts`.

mod coins;
mod entry;
mod policy;
mod reject;
mod submission;
mod transaction;

pub use coins::{ChainCoin, ChainState, CoinSource, SpentCoin};
pub use entry::{Entry, Input, Output};
pub use policy::{ChainLimits, FeeRate, Policy, ReplacementRule};
pub use reject::{Reject, RejectKind};
pub use submission::{MAX_PACKAGE, Outcome, PackageMember, PackageOutcome, Submission, Taken, Tested};
pub use transaction::{Malformed, Unconfirmed};
