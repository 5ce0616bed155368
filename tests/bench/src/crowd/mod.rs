//! What shows a server under very many wallets: ten thousand that idle, a block that concerns them all, a thousand
//! that sync at once while somebody asks for whatever is dearest.
//!
//! All connections of a kind live in one thread that sleeps in `epoll`, for it shares its processors with the
//! server. Whatever takes time to check is kept and checked when the clock has stopped.

pub mod abuser;
pub mod active;
pub mod files;
pub mod gathering;
pub mod idle;
pub mod notify;
pub mod report;
pub mod request;
pub mod scripts;
pub mod wallet;
pub mod wire;

#[cfg(test)]
mod tests;
