//! The one place that reads the clocks.

use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now};

/// The process's clock: monotonic time since it was made, and Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: StdInstant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: StdInstant::now() }
    }

    pub fn now(&self) -> Now {
        // A clock before 1970 reads as 1970: headers then look too new and wait, nothing breaks.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { instant: Instant::from_start(self.start.elapsed()), unix }
    }

    /// The moment at which a timer that is due at `at` should fire.
    pub fn deadline(&self, at: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + at.since_start())
    }
}
