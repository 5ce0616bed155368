//! Below which feerate peers need not announce anything to us (BIP133).
//!
//! In: what the mempool takes at least, the time. Out: `feefilter` messages. The value is rounded, and sent at random
//! moments, so that nobody can follow our mempool by it.
//! Source: Bitcoin Core `net_processing.cpp` (MaybeSendFeefilter), `block_policy_estimator.cpp` (FeeFilterRounder).

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::Amount;

use super::announce::exponential;
use crate::mempool::FeeRate;
use crate::peer::PeerId;
use crate::time::Instant;

/// Core: AVG_FEEFILTER_BROADCAST_INTERVAL.
pub(super) const MEAN_WAIT: Duration = Duration::from_secs(10 * 60);
/// After a change of a quarter down or a third up it comes within this (Core: MAX_FEEFILTER_CHANGE_DELAY).
pub(super) const AFTER_CHANGE: Duration = Duration::from_secs(5 * 60);
/// Highest rounded rate (FeeFilterRounder::MAX_FILTER_FEERATE).
const MAX_RATE: f64 = 1e7;
/// Each step over the one before (FeeFilterRounder::FEE_FILTER_SPACING).
const STEP: f64 = 1.1;

/// See the module.
#[derive(Debug)]
pub(super) struct FeeFilters {
    /// What the mempool takes at least.
    floor: FeeRate,
    /// No filter is lower.
    min_relay: FeeRate,
    /// The rates to which is rounded, ascending.
    steps: Vec<u64>,
    peers: BTreeMap<PeerId, Sent>,
    is_synced: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    rate: FeeRate,
    next: Instant,
}

impl FeeFilters {
    pub fn new(min_relay: FeeRate, incremental: FeeRate) -> Self {
        let first = (incremental.0 / 2).max(1) as f64;
        let steps = std::iter::successors(Some(first), |step| Some(step * STEP));
        let steps =
            std::iter::once(0).chain(steps.take_while(|step| *step <= MAX_RATE).map(|step| step as u64));
        Self { floor: min_relay, min_relay, steps: steps.collect(), peers: BTreeMap::new(), is_synced: false }
    }

    /// The peer was told at its handshake to send nothing.
    pub fn add_peer(&mut self, now: Instant, peer: PeerId) {
        self.peers.insert(peer, Sent { rate: FeeRate(Amount::MAX_MONEY.to_sat()), next: now });
    }

    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// What is told at the handshake stays until we are synced.
    pub fn set_synced(&mut self, now: Instant, is_synced: bool) {
        if is_synced && !self.is_synced {
            self.peers.values_mut().for_each(|sent| sent.next = now);
        }
        self.is_synced = is_synced;
    }

    pub fn set_floor(&mut self, now: Instant, floor: FeeRate, rng: &mut fastrand::Rng) {
        self.floor = floor;
        for sent in self.peers.values_mut() {
            let (new, old) = (u128::from(floor.0), u128::from(sent.rate.0));
            let is_much = new < old * 3 / 4 || new > old * 4 / 3;
            if is_much && now + AFTER_CHANGE < sent.next {
                sent.next = now + AFTER_CHANGE.mul_f64(rng.f64());
            }
        }
    }

    /// What is to be sent now.
    pub fn take(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Vec<(PeerId, FeeRate)> {
        if !self.is_synced {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (peer, sent) in &mut self.peers {
            if sent.next > now {
                continue;
            }
            let rate = round(&self.steps, self.floor, rng).max(self.min_relay);
            if rate != sent.rate {
                due.push((*peer, rate));
            }
            *sent = Sent { rate, next: now + exponential(rng, MEAN_WAIT) };
        }
        due
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.peers.values().map(|sent| sent.next).min().filter(|_| self.is_synced)
    }
}

/// The step at or above it, or, two times in three, the one below.
fn round(steps: &[u64], rate: FeeRate, rng: &mut fastrand::Rng) -> FeeRate {
    let above = steps.partition_point(|step| *step < rate.0);
    let below = above == steps.len() || (above > 0 && rng.u32(..3) != 0);
    FeeRate(steps.get(above - usize::from(below)).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_start(SECOND * seconds as u32)
    }

    fn synced() -> (FeeFilters, fastrand::Rng) {
        let (mut filters, mut rng) =
            (FeeFilters::new(FeeRate(100), FeeRate(100)), fastrand::Rng::with_seed(3));
        filters.add_peer(at(0), PEER);
        assert_eq!(filters.take(at(1), &mut rng), [], "what the handshake said stays while we sync");
        assert_eq!(filters.next_timeout(), None);
        filters.set_synced(at(2), true);
        (filters, rng)
    }

    #[test]
    fn once_we_are_synced_the_floor_is_told_and_stays_within_a_step() {
        let (mut filters, mut rng) = synced();
        assert_eq!(filters.take(at(2), &mut rng).len(), 1);
        for hour in 1..20 {
            // Between the steps of 98 and 107, but never below what is relayed at all.
            let told = filters.take(at(hour * 3_600), &mut rng);
            assert!(told.iter().all(|(_, rate)| [FeeRate(100), FeeRate(107)].contains(rate)), "{told:?}");
        }
    }

    #[test]
    fn a_change_of_much_is_told_within_five_minutes_and_of_little_with_the_next() {
        for (floor, soon) in [(10_000, true), (110, false)] {
            let (mut filters, mut rng) = synced();
            filters.take(at(2), &mut rng);
            filters.peers.get_mut(&PEER).unwrap().next = at(3_000);
            filters.set_floor(at(10), FeeRate(floor), &mut rng);
            assert_eq!(filters.next_timeout().unwrap() <= at(10) + AFTER_CHANGE, soon, "{floor}");
        }
    }

    #[test]
    fn it_is_rounded_to_a_step_at_or_next_to_it() {
        let (filters, mut rng) = synced();
        let (mut below, mut above) = (0, 0);
        for _ in 0..3_000 {
            let FeeRate(rate) = round(&filters.steps, FeeRate(12_345), &mut rng);
            assert!((11_000..13_700).contains(&rate), "{rate}");
            if rate < 12_345 { below += 1 } else { above += 1 }
        }
        assert!((1_900..2_100).contains(&below), "{below} below, {above} above");
        let FeeRate(highest) = round(&filters.steps, FeeRate(u64::MAX), &mut rng);
        assert!((9_000_000..=10_000_000).contains(&highest));
    }
}
