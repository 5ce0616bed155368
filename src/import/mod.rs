//! FILES: takes the blocks that a Bitcoin Core on this disk has left behind.
//!
//! In the order of the data: `xor` undoes Core's obfuscation, `scan` finds the records in a file's bytes, `catalog`
//! puts their headers into the header tree and remembers where each block lies, and `session` sends the blocks of the
//! best chain through the same checks as those of peers; `meter` says how fast that goes.
//! No file is opened here, and no rule is made: headers are judged by `headers`, blocks by `validate` and `node::chain`.
//! Source: Bitcoin Core `LoadExternalBlockFile`, `node/blockstorage.cpp`.

mod catalog;
mod meter;
mod scan;
mod session;
mod xor;

pub use catalog::{Catalog, Collector, MAX_RECORDS, Ordered, Place, Tally};
pub use meter::{Meter, Progress};
pub use scan::{Record, Scanner};
pub use session::{Output, Report, Session, Ticket};
pub use xor::Xor;
