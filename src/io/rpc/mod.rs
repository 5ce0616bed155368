//! The operator's service: `server` has the sockets, `methods` what may be asked, and `client` is the other side,
//! `peerdex rpc`.

mod client;
mod methods;
mod server;

pub use client::call;
pub use methods::Relayed;
pub use server::bind;
