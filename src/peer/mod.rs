//! WHO: one connection to a Bitcoin peer, from its bytes to checked messages.
//!
//! In path order: `wire` cuts bytes into frames, `message` decodes them (numbers and hashes with `codec`),
//! `session` does the handshake and hands on what the later stages need, while `liveness` watches that the peer
//! answers; `backoff` says when to dial again.
//! No socket here, and no opinion about headers or blocks.

mod types;

mod wire;

mod codec;

mod compact;

mod address;

mod message;

mod liveness;

mod session;

mod private;

mod backoff;

pub use address::{Address, Gossip, Host};
pub use backoff::Backoff;
pub use message::{DecodeError, PROTOCOL_VERSION, decode, encode, name_of};
pub use private::{LIFETIME, PrivateOutput, PrivateSession};
pub use session::{Local, Output, Session, USER_AGENT};
pub use types::{
    CloseReason, CompactBlock, Inventory, InventoryKind, Message, Misbehavior, PeerId, PeerInfo, Version,
    WireBlock, serves_witnesses,
};
pub use wire::{Command, Frame, FrameDecoder, FrameError, HEADER_LEN, MAX_PAYLOAD_LEN, Pending};
