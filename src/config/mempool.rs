//! How many unconfirmed transactions are kept, and for how long. What is relayed is as in Bitcoin Core: wallets and
//! peers could not guess at anything else.

use std::time::Duration;

use super::ConfigError;
use super::layers::Layers;
use super::limits::{set, set_time};
use crate::mempool::Policy;

/// A year, in hours.
const LONG: u64 = 366 * 24;

pub(super) fn policy(layers: &Layers) -> Result<Policy, ConfigError> {
    let is_knots = layers.one("relay-as-knots").is_some();
    let mut policy = if is_knots { Policy::knots() } else { Policy::core() };
    let mut megabytes = policy.max_bytes / 1_000_000;
    set(layers, "max-mempool", 5..=100_000, &mut megabytes)?;
    policy.max_bytes = megabytes * 1_000_000;
    let hours = |hours| Duration::from_secs(hours * 60 * 60);
    set_time(layers, "mempool-expiry", 1..=LONG, hours, &mut policy.expiry)?;
    Ok(policy)
}
