//! Wallets' connections: from the listening socket to `electrum::Session` and back.
//!
//! In the order of a connection's life: `listener` accepts it, `wire` makes lines of whatever carries them,
//! `talk` moves those between the wire and its session; `views` gives every session the chain as it changes.

mod listener;
mod talk;
mod views;
mod wire;

pub use listener::{Shared, bind};
pub use talk::{BroadcastReply, BroadcastRequest};
pub use views::{Publisher, channel};
