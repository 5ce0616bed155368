//! SERVE: what a wallet says, and what it is answered.
//!
//! In path order: `transport` cuts bytes into lines, `jsonrpc` finds the requests in a line, `client` and `version`
//! say who asks and in which protocol, `methods` names what can be asked, `params` reads the arguments, the `answer_*`
//! files answer from one `query::View` (`decoded` writes a transaction as Bitcoin Core does), `subscriptions` remembers
//! what the wallet was told, `batch` collects what is answered together, and `session` ties them up, one for each
//! connection. `server` is what sessions have in common, `limits` what they may ask for, `cost` what it
//! costs them.
//! No socket here, no clock, and no question is answered from two views of the chain.

mod answer_block;
mod answer_fees;
mod answer_legacy;
mod answer_outpoint;
mod answer_script;
mod answer_server;
mod answer_transaction;
mod batch;
mod broadcast;
mod client;
mod cost;
mod decoded;
mod error;
mod json;
mod jsonrpc;
mod limits;
mod methods;
mod params;
mod server;
mod session;
mod subnet;
mod subscriptions;
pub mod transport;
mod version;

#[cfg(test)]
mod tests;

pub use cost::{Group, Prices, Standing};
pub use error::RpcError;
pub use limits::Limits;
pub use methods::{Cost, Extra, Method, Param, Serves, document, methods};
pub use server::{Commons, Server, Token};
pub use session::{Counts, Output, Session, SubmissionId};
pub use subnet::Subnet;
pub use subscriptions::{Interest, InterestChange};
pub use version::ProtocolVersion;
