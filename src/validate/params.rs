//! What differs between the five networks: proof of work, soft-fork heights, magic and ports.
//!
//! Source: Bitcoin Core `kernel/chainparams.cpp` (31.99).

use bitcoin::Network;

/// The rules of one network.
#[derive(Clone, Debug)]
pub struct Params {
    pub network: Network,
}
