//! How far reading or importing is, how fast it goes, and when it will be done.
//!
//! Both are measured in bytes, which say more of the time that is left than blocks do: old ones are small.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(120);
/// How often a sample is taken.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// One look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub bytes_per_second: f64,
    /// What is left at that rate; `None` where nothing can be said yet.
    pub eta: Option<Duration>,
}

impl Progress {
    /// Whole percent of the bytes, 100 only when none is left.
    pub fn percent(&self) -> u8 {
        let done = u128::from(self.done_bytes.min(self.total_bytes)) * 100;
        let percent = done.checked_div(u128::from(self.total_bytes)).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }
}

/// Remembers the last two minutes.
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Notes what is done now, and says what follows.
    pub fn look(&mut self, now: Instant, done_bytes: u64, total_bytes: u64) -> Progress {
        if self.samples.back().is_none_or(|(last, _)| now - *last >= SAMPLE_EVERY) {
            self.samples.push_back((now, done_bytes));
        }
        while self.samples.front().is_some_and(|(first, _)| now - *first > RATE_WINDOW) {
            self.samples.pop_front();
        }
        let bytes_per_second = match (self.samples.front(), self.samples.back()) {
            (Some((start, before)), Some((end, after))) if end > start => {
                after.saturating_sub(*before) as f64 / (*end - *start).as_secs_f64()
            }
            (_, _) => 0.0,
        };
        let eta = match total_bytes.saturating_sub(done_bytes) {
            0 => Some(Duration::ZERO),
            left if bytes_per_second > 0.0 => {
                Some(Duration::from_secs_f64((left as f64 / bytes_per_second).min(1e9)))
            }
            _ => None,
        };
        Progress { done_bytes, total_bytes, bytes_per_second, eta }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn the_forecast_follows_the_rate_of_the_last_two_minutes() {
        let mut meter = Meter::default();
        for second in 0..=300 {
            // A thousand bytes a second at first, ten in the end.
            let done = if second <= 100 { second * 1000 } else { 100_000 + (second - 100) * 10 };
            meter.look(at(second), done, 103_000);
        }

        let progress = meter.look(at(300), 102_000, 103_000);

        assert!((progress.bytes_per_second - 10.0).abs() < 0.01, "{progress:?}");
        assert_eq!(progress.eta, Some(Duration::from_secs(100)));
        assert_eq!(progress.percent(), 99);
    }

    #[test]
    fn nothing_is_promised_before_anything_moved_and_nothing_is_all_of_nothing() {
        let mut meter = Meter::default();
        meter.look(at(0), 5, 10);
        let stuck = meter.look(at(10), 5, 10);
        assert_eq!((stuck.eta, stuck.percent()), (None, 50));
        let nothing = meter.look(at(11), 0, 0);
        assert_eq!((nothing.eta, nothing.percent()), (Some(Duration::ZERO), 100));
    }
}
