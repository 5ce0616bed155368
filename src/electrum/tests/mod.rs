//! Sessions as wallets meet them: transcripts, the pitfalls of the protocol, and hostile input.

mod hostile;
mod limits;
mod pitfalls;
mod transcripts;
mod walk;
mod wallet;
