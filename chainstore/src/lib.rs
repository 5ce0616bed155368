//! Raw blocks in flat files and a wallet index in redb.

mod types;

pub use types::{
    Coin, Height, HistoryEntry, ScriptClass, ScriptHash, ScriptKey, Tip, TxNum, Unspent, has_history,
    is_unspendable,
};
