//! UNCONFIRMED: the transactions that no block has yet, as Bitcoin Core would keep them.
//!
//! In: transactions with the coins that they spend, blocks that were connected or disconnected, the time. Out: what
//! was taken, why something was not, what wallets should see. In the order of an admission: `transaction` is one as it
//! came, `coins` what the chain says of its inputs, `policy` which transactions are relayed, `reject` why not,
//! `entry` one that was taken. What is asked of it: `standard` of itself alone, `dust` of outputs worth less than
//! spending them costs, `inputs` and `witness` (with `redeem`) of what it spends and with what;
//! `checks` puts them in order. `pool` is all that were taken, `view` what wallets read of them.
//! `machine` is the whole: `admission` takes in one transaction (with `stored` outputs, and `verified` scripts),
//! `package` several (with `topology`), `submit` what wallets hand in (`submission`), `reorg` follows the chain.
//! `fees` is what to pay for the next blocks, `board` what wallets are told of that, `dump` what is kept for a restart.
//! Who sent it, whom to ask and whom to tell is for `relay`; scripts are run by `scripts`.

mod admission;
mod board;
mod checks;
mod coins;
mod dump;
mod dust;
mod entry;
mod fees;
mod inputs;
mod machine;
mod package;
mod policy;
mod pool;
mod redeem;
mod reject;
mod reorg;
mod standard;
mod stored;
mod submission;
mod submit;
mod topology;
mod transaction;
mod verified;
mod view;
mod witness;

#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod checks_tests;

pub use admission::{Admission, Moment, ScriptCheck, ScriptJob};
pub use board::FeeBoard;
pub use checks::{check_alone, check_feerate, check_spending};
pub use coins::{ChainCoin, ChainState, CoinSource, SpentCoin};
pub use dump::{DumpError, DumpHeader, DumpReader, DumpWriter, Dumped};
pub use entry::{Entry, Input, Output};
pub use fees::{
    Bin, BlockFees, BlockTransaction, Covered, FeeEstimator, MAX_TARGET, Mode, StateError, histogram,
};
pub use machine::Mempool;
pub use package::{Member, Package, PackageResult, PackageStep};
pub use policy::{ChainLimits, DataCarrier, FeeRate, Policy, ReplacementRule};
pub use pool::{Changes, Chunk, PackageRefusal, Plan, Pool, Removal};
pub use reject::{Reject, RejectKind};
pub use standard::check_standard;
pub use submission::{MAX_PACKAGE, Outcome, PackageMember, PackageOutcome, Submission, Taken, Tested};
pub use submit::{Request, RequestStep, TestResult};
pub use transaction::{Malformed, Unconfirmed};
pub use view::{Figures, MempoolView};
pub use witness::spends_witness_program;
