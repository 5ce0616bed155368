//! WHO: one connection to a Bitcoin peer, from its bytes to checked messages.
//!
//! In path order: `wire` cuts bytes into frames, `message` decodes them, `session` does the handshake, keeps
//! the connection alive and hands on what the later stages need, `backoff` says when to dial again.
//! No socket here, and no opinion about headers or blocks.

mod types;

pub use types::{CloseReason, Inventory, InventoryKind, Message, Misbehavior, PeerId, PeerInfo, Version};
