//! GOSSIP: unconfirmed transactions to and from peers.
//!
//! In: what peers announce and send, what the mempool said of it, blocks, the time. Out: what to send to whom, and what the
//! mempool shall judge. In the order of the data: `gossip` takes what comes; `download` decides what is asked for, with
//! `requests` (whom to ask), `filter` (what was seen of late) and `orphans` (whose parents are unknown), and lets the
//! rest be `waiting` for its turn to be judged. `holdings` is what the mempool has. What it took is told to others by
//! `announce`, and `fee_filter` tells them what it would not take. `broadcast` hands out what wallets send, and finds out
//! what became of it; `private` says when connections are made for that alone.
//! No rule is checked here: what a transaction must be like is for `mempool`, and nothing of a peer's word is believed.

mod types;

mod gossip;

mod download;

mod requests;

mod filter;

mod orphans;

mod waiting;

mod holdings;

mod announce;

mod fee_filter;

mod broadcast;

mod private;

#[cfg(test)]
mod testing;

pub use gossip::Relay;
pub use types::{
    BroadcastError, BroadcastId, BroadcastReport, Confirmed, Evidence, Job, JobId, KeptState, Load, Output,
    PrivateEvent, PrivateId, PrivateState, Role, Verdict, Way,
};
