//! What times blocks at the tip: the chain's continuation, and how long a block takes to reach a wallet.

pub mod measure;
pub mod more;
pub mod stand;
pub mod touched;

#[cfg(test)]
mod tests;
