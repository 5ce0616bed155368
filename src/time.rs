//! The clock that is given to every state machine.
//!
//! Pure code never asks what time it is: the shell, or a test, says so. `Instant` only ever grows and is for
//! timers; Unix time may jump when somebody sets the clock and is only for what the protocol dates.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of a clock that never goes back, counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The moment `since_start` after the process began.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Time since the process began.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time passed since `earlier`; zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

/// What time it is: for timers, and for dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// Unix time in seconds.
    pub unix: u64,
}

impl Now {
    /// The same clock `wait` later; Unix time moves by whole seconds.
    pub fn after(self, wait: Duration) -> Self {
        Self { instant: self.instant + wait, unix: self.unix.saturating_add(wait.as_secs()) }
    }
}
