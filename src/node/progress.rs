//! How far the sync has come, how fast it goes, and when it will be done.
//!
//! The estimate is by blocks: the rate of the last few minutes against what is left. Old blocks are small, so
//! on mainnet it is too hopeful in the first hours; it is a forecast, not a promise.

use std::collections::VecDeque;
use std::time::Duration;

use chainstore::Height;

use crate::time::{Instant, Now};

/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(120);
/// How often a sample is taken.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// One look at the sync, for the operator and for wallets that must wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Newest connected block.
    pub height: Height,
    /// Newest header of the best chain.
    pub target: Height,
    pub peers: usize,
    /// Blocks connected per second, lately.
    pub blocks_per_second: f64,
    /// Bytes of blocks received per second, lately.
    pub bytes_per_second: f64,
    /// What is left at that rate; `None` where nothing can be said yet.
    pub eta: Option<Duration>,
    /// Whether wallets are served.
    pub synced: bool,
}

impl Progress {
    /// Whole percent of the blocks, 100 only when none is missing.
    pub fn percent(&self) -> u8 {
        if self.target.0 == 0 {
            return 0;
        }
        let percent = u64::from(self.height.0.min(self.target.0)) * 100 / u64::from(self.target.0);
        u8::try_from(percent).unwrap_or(100)
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    height: Height,
    bytes: u64,
}

/// Remembers the last two minutes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    samples: VecDeque<Sample>,
    bytes: u64,
}

impl Meter {
    /// A block of `len_bytes` arrived.
    pub fn received(&mut self, len_bytes: usize) {
        self.bytes += len_bytes as u64;
    }

    /// Notes where the sync stands; more often than once a second is ignored.
    pub fn sample(&mut self, now: Now, height: Height) {
        if self.samples.back().is_some_and(|last| now.instant - last.at < SAMPLE_EVERY) {
            return;
        }
        self.samples.push_back(Sample { at: now.instant, height, bytes: self.bytes });
        while self.samples.front().is_some_and(|first| now.instant - first.at > RATE_WINDOW) {
            self.samples.pop_front();
        }
    }

    pub fn progress(&self, height: Height, target: Height, peers: usize, synced: bool) -> Progress {
        let (blocks_per_second, bytes_per_second) = self.rates();
        let left = target.0.saturating_sub(height.0);
        let eta = match (left, blocks_per_second) {
            (0, _) => Some(Duration::ZERO),
            (_, rate) if rate > 0.0 => Some(Duration::from_secs_f64((f64::from(left) / rate).min(1e9))),
            (_, _) => None,
        };
        Progress { height, target, peers, blocks_per_second, bytes_per_second, eta, synced }
    }

    fn rates(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return (0.0, 0.0);
        };
        let seconds = (last.at - first.at).as_secs_f64();
        if seconds == 0.0 {
            return (0.0, 0.0);
        }
        let blocks = f64::from(last.height.0.saturating_sub(first.height.0));
        (blocks / seconds, (last.bytes - first.bytes) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { instant: Instant::from_start(Duration::from_secs(seconds)), unix: 0 }
    }

    #[test]
    fn the_forecast_follows_the_rate_of_the_last_two_minutes() {
        let mut meter = Meter::default();
        for second in 0..=300 {
            // A thousand blocks a second at first, ten in the end.
            let height = if second <= 100 { second * 1000 } else { 100_000 + (second - 100) * 10 };
            meter.received(500);
            meter.sample(at(second), Height(height as u32));
        }

        let progress = meter.progress(Height(102_000), Height(103_000), 3, false);

        assert!((progress.blocks_per_second - 10.0).abs() < 0.01, "{progress:?}");
        assert!((progress.bytes_per_second - 500.0).abs() < 0.01, "{progress:?}");
        assert_eq!(progress.eta, Some(Duration::from_secs(100)));
        assert_eq!(progress.percent(), 99);
    }

    #[test]
    fn nothing_is_promised_before_anything_moved() {
        let mut meter = Meter::default();
        meter.sample(at(0), Height(5));
        meter.sample(at(10), Height(5));

        let progress = meter.progress(Height(5), Height(10), 1, false);

        assert_eq!((progress.eta, progress.percent()), (None, 50));
        assert_eq!(meter.progress(Height(0), Height(0), 0, false).percent(), 0);
    }
}
