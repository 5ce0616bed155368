//! The scale of feerates, and how much comes in on each of its bands.
//!
//! Bands are 5 % wide, as the buckets of Bitcoin Core's estimator: finer than anyone chooses fees, and few enough to
//! look at all of them for each estimate.
//! Source: Bitcoin Core `policy/fees/block_policy_estimator.h` (`FEE_SPACING`, bucket limits).

use std::time::Duration;

use super::super::policy::FeeRate;
use crate::time::Instant;

/// Band 0 is below the first edge; the last one has no upper edge.
pub(super) const BANDS: usize = 237;
/// Lower edge of band 1 in satoshi per 1,000 vB: the least that is relayed.
const FIRST_EDGE: f64 = 100.0;
/// From one edge to the next. 100 x 1.05^235 is 9.5 million, ten thousand satoshi per virtual byte.
const SPACING: f64 = 1.05;

/// An average over less says nothing: a young one counts as if it were this old.
const LEAST_AGE: Duration = Duration::from_secs(60);

/// Virtual bytes on each band.
pub(super) type PerBand = Box<[f64; BANDS]>;

pub(super) fn none() -> PerBand {
    Box::new([0.0; BANDS])
}

/// The band that holds a feerate.
pub(super) fn band_of(rate: FeeRate) -> usize {
    let rate = rate.0 as f64;
    if rate < FIRST_EDGE {
        return 0;
    }
    // The nudge keeps a feerate that is just an edge above it, whatever the logarithm's last bit.
    let steps = (rate / FIRST_EDGE).ln() / SPACING.ln() + 1e-9;
    (steps as usize + 1).min(BANDS - 1)
}

/// The least feerate of a band.
pub(super) fn lower_edge(band: usize) -> FeeRate {
    match band.checked_sub(1) {
        None => FeeRate(0),
        Some(steps) => FeeRate((FIRST_EDGE * SPACING.powi(steps as i32)).ceil() as u64),
    }
}

/// Sorts chunks into bands.
pub(super) fn spread(chunks: impl Iterator<Item = (u64, u64)>) -> PerBand {
    let mut bands = none();
    for (fee, vsize) in chunks {
        if let Some(band) = bands.get_mut(band_of(FeeRate::of(fee, vsize))) {
            *band += vsize as f64;
        }
    }
    bands
}

/// From what is on each band to what is on it or above.
pub(super) fn add_up(bands: &mut [f64; BANDS]) {
    let mut sum = 0.0;
    for band in bands.iter_mut().rev() {
        sum += *band;
        *band = sum;
    }
}

/// Virtual bytes a second that come in on each band, as an average in which the past fades.
#[derive(Debug)]
pub(super) struct Inflow {
    /// Fading sums of what was admitted, as of `at`.
    sums: PerBand,
    at: Instant,
    since: Instant,
    /// Over about so long it is averaged.
    over: Duration,
}

impl Inflow {
    pub(super) fn new(now: Instant, over: Duration) -> Self {
        Self { sums: none(), at: now, since: now, over }
    }

    pub(super) fn add(&mut self, now: Instant, rate: FeeRate, vsize: u64) {
        self.fade(now);
        if let Some(sum) = self.sums.get_mut(band_of(rate)) {
            *sum += vsize as f64;
        }
    }

    /// Adds to each band.
    pub(super) fn add_all(&mut self, now: Instant, bands: &[f64; BANDS]) {
        self.fade(now);
        self.sums.iter_mut().zip(bands).for_each(|(sum, more)| *sum += more);
    }

    /// Virtual bytes a second on each band.
    pub(super) fn per_second(&mut self, now: Instant) -> PerBand {
        self.fade(now);
        let age = now.saturating_since(self.since).max(LEAST_AGE);
        // A young average has not seen a whole period yet.
        let seconds = self.over.as_secs_f64() * (1.0 - self.faded(age));
        let mut rates = self.sums.clone();
        rates.iter_mut().for_each(|sum| *sum /= seconds);
        rates
    }

    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_since(self.at);
        // Steps of a second: transactions come by the dozen, and the sums need not fade for each.
        if passed >= Duration::from_secs(1) {
            let left = self.faded(passed);
            self.sums.iter_mut().for_each(|sum| *sum *= left);
            self.at = now;
        }
    }

    /// What is left of one after so long.
    fn faded(&self, passed: Duration) -> f64 {
        (-passed.as_secs_f64() / self.over.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn bands_follow_each_other_and_hold_their_own_edge() {
        assert_eq!(band_of(FeeRate(0)), 0);
        assert_eq!(band_of(FeeRate(99)), 0);
        assert_eq!(lower_edge(0), FeeRate(0));
        for band in 1..BANDS {
            assert_eq!(band_of(lower_edge(band)), band, "band {band}");
            assert!(lower_edge(band) > lower_edge(band - 1));
        }
        assert_eq!(band_of(FeeRate(u64::MAX)), BANDS - 1);
    }

    #[test]
    fn a_steady_flow_is_seen_as_what_it_is_from_the_second_minute_on() {
        let mut inflow = Inflow::new(at(0), Duration::from_secs(1_200));
        for second in 1..=120 {
            inflow.add(at(second), FeeRate(5_000), 1_700);
        }
        let early = inflow.per_second(at(120))[band_of(FeeRate(5_000))];
        assert!((1_650.0..1_750.0).contains(&early), "{early}");
        for second in 121..=10_000 {
            inflow.add(at(second), FeeRate(5_000), 1_700);
        }
        let late = inflow.per_second(at(10_000))[band_of(FeeRate(5_000))];
        assert!((1_690.0..1_710.0).contains(&late), "{late}");
        assert!(inflow.per_second(at(10_000 + 3 * 1_200))[band_of(FeeRate(5_000))] < 0.06 * late);
    }
}
