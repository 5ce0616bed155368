//! SERVE: what a wallet says, and what it is answered.
//!
//! In path order: `transport` cuts bytes into lines, `jsonrpc` finds the requests in a line, `version` agrees
//! on a protocol, `methods` names what can be asked, `params` reads the arguments, the `answer_*` files answer
//! from one `query::View` (`decoded` writes a transaction as Bitcoin Core does), `subscriptions` remembers what the wallet was told, `batch` collects what is answered
//! together, and `session` ties them up, one for each connection.
//! No socket here, no clock, and no question is answered from two views of the chain.

mod answer_block;
mod answer_fees;
mod answer_script;
mod answer_server;
mod answer_transaction;
mod batch;
mod broadcast;
mod decoded;
mod error;
mod json;
mod jsonrpc;
mod methods;
mod params;
mod session;
mod subscriptions;
pub mod transport;
mod version;

#[cfg(test)]
mod tests;

pub use batch::MAX_RESPONSE_BYTES;
pub use error::RpcError;
pub use methods::{Extra, Method, Param, Serves, document, methods};
pub use session::{BroadcastError, BroadcastId, Output, Server, Session};
pub use version::ProtocolVersion;
