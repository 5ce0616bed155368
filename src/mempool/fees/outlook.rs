//! What the pool tells: which feerate will be mined within some blocks, if blocks come as usual and demand stays.
//!
//! A transaction is mined once all that pays as much or more, what waits and what is still to come, has found room.

use super::super::policy::FeeRate;
use super::bands::{self, BANDS, PerBand};

/// Virtual bytes of a block that go to transactions by feerate: without the coinbase, what is mined out of turn, and
/// the blocks that are not filled.
const ROOM: f64 = 950_000.0;
/// Seconds between blocks.
const SPACING: f64 = 600.0;

/// How late blocks may be, in standard deviations of the time that so many take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(pub(super) f64);

/// What is before each band: of the pool, and each second.
#[derive(Debug)]
pub(super) struct Outlook {
    waiting: PerBand,
    coming: PerBand,
}

impl Outlook {
    /// From virtual bytes on each band and above: waiting, and coming in a second.
    pub(super) fn new(waiting: PerBand, coming: PerBand) -> Self {
        Self { waiting, coming }
    }

    /// The least feerate that is mined within 1, 2, .. `targets` blocks, in this order.
    pub(super) fn enough_within(&self, targets: usize, late: Patience) -> Vec<FeeRate> {
        let times: Vec<f64> = (1..=targets).map(|blocks| SPACING * time_of(blocks, late)).collect();
        // What pays more than anybody is never said to wait.
        let mut enough = vec![bands::lower_edge(BANDS - 1); targets];
        let mut first = 0;
        // What is before a band only grows towards lower ones, and so does the number of blocks that it has to wait.
        for band in (0..BANDS).rev() {
            let is_mined = |(time, blocks): (&f64, usize)| {
                self.waiting[band] + self.coming[band] * time <= ROOM * (blocks + 1) as f64
            };
            while times.get(first).is_some_and(|time| !is_mined((time, first))) {
                first += 1;
            }
            enough.iter_mut().skip(first).for_each(|rate| *rate = bands::lower_edge(band));
        }
        enough
    }
}

/// In how many times the spacing so many blocks come, but for those who are later than that. The times between blocks
/// are exponential, so their sum has an Erlang distribution (the approximation of Wilson and Hilferty).
fn time_of(blocks: usize, late: Patience) -> f64 {
    let blocks = blocks as f64;
    let part = 1.0 / (9.0 * blocks);
    blocks * (1.0 - part + late.0 * part.sqrt()).max(0.0).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(bands: &[(u64, f64)]) -> PerBand {
        let mut all = bands::none();
        for (rate, vsize) in bands {
            all[bands::band_of(FeeRate(*rate))] += vsize;
        }
        bands::add_up(&mut all);
        all
    }

    #[test]
    fn an_empty_pool_asks_for_nothing() {
        let outlook = Outlook::new(bands::none(), bands::none());
        assert_eq!(outlook.enough_within(3, Patience(0.0)), [FeeRate(0); 3]);
    }

    #[test]
    fn what_waits_is_mined_by_feerate() {
        let waiting = on(&[(20_000, 900_000.0), (10_000, 900_000.0), (5_000, 900_000.0), (1_000, 5e6)]);
        let outlook = Outlook::new(waiting, bands::none());
        let within = |target: usize| outlook.enough_within(target, Patience(0.0))[target - 1];
        let just_above = |rate| bands::lower_edge(bands::band_of(FeeRate(rate)) + 1);
        assert!(within(1) <= FeeRate(20_000) && within(1) >= just_above(10_000));
        assert!(within(2) <= FeeRate(10_000) && within(2) >= just_above(5_000));
        assert!(within(3) <= FeeRate(5_000) && within(3) >= just_above(1_000));
        assert_eq!(within(9), FeeRate(0));
    }

    #[test]
    fn what_is_still_to_come_counts() {
        let waiting = on(&[(1_000, 900_000.0)]);
        let coming = on(&[(8_000, 1_700.0)]);
        let outlook = Outlook::new(waiting, coming);
        assert!(outlook.enough_within(2, Patience(0.0))[1] > FeeRate(1_000));
        // With more coming than there is room, only who pays more than they do is sure.
        let flood = Outlook::new(bands::none(), on(&[(8_000, 3_000.0)]));
        assert!(flood.enough_within(6, Patience(0.0))[5] > FeeRate(8_000));
    }

    #[test]
    fn late_blocks_are_as_late_as_the_distribution_says() {
        // 90 % of blocks come within 2.30 spacings, 90 % of pairs within 3.89, 90 % of six within 9.27.
        let late = Patience(1.2816);
        for (blocks, expected) in [(1, 2.303), (2, 3.890), (6, 9.275)] {
            let time = time_of(blocks, late);
            assert!((time - expected).abs() < 0.03, "{blocks}: {time}");
        }
    }
}
