//! How long a block that everything waits for may take.
//!
//! The stall timeout is Core's: it doubles when a peer was dropped over it, so that a slow link of our own does not
//! drop one peer after the other, and shrinks as blocks connect. Here it also never falls below twice what blocks
//! usually take: a peer that is no slower than the others does not stall (over Tor that may be half a minute).
//! Source: Bitcoin Core `net_processing.cpp` (`BLOCK_STALLING_TIMEOUT_*`, `BlockConnected`).

use std::time::Duration;

/// The stall timeout when all goes well.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(2);
/// What it never exceeds.
pub(super) const MAX_STALL_TIMEOUT: Duration = Duration::from_secs(64);
/// The same two where all comes through Tor, whose circuits pause for longer than that.
const SLOW_STALL_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_SLOW_STALL_TIMEOUT: Duration = Duration::from_secs(180);
/// What each connected block leaves of it, in percent.
const DECAY_PERCENT: u32 = 85;
/// Share of one delivery in the moving average.
const AVERAGE_OVER: u32 = 16;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    least: Duration,
    most: Duration,
    stall: Duration,
    /// Moving average of the time from asking for a block to having it; `None` before the first.
    usual: Option<Duration>,
}

impl Patience {
    pub fn new() -> Self {
        Self { least: STALL_TIMEOUT, most: MAX_STALL_TIMEOUT, stall: STALL_TIMEOUT, usual: None }
    }

    /// Peers are reached through a proxy.
    pub fn slow() -> Self {
        let (least, most) = (SLOW_STALL_TIMEOUT, MAX_SLOW_STALL_TIMEOUT);
        Self { least, most, stall: least, usual: None }
    }

    /// How long the first missing block may take before its peer is said to stall.
    pub fn timeout(&self) -> Duration {
        let usual = self.usual.unwrap_or_default();
        self.stall.max((usual * 2).min(self.most))
    }

    /// A peer was dropped: perhaps it is our own link that is slow.
    pub fn evicted(&mut self) {
        self.stall = (self.stall * 2).min(self.most);
    }

    /// A block was connected.
    pub fn connected(&mut self) {
        self.stall = (self.stall * DECAY_PERCENT / 100).max(self.least);
    }

    /// A block arrived `took` after it was asked for.
    pub fn delivered(&mut self, took: Duration) {
        let took = took.min(self.most);
        let usual = self.usual.unwrap_or(took);
        self.usual = Some((usual * (AVERAGE_OVER - 1) + took) / AVERAGE_OVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_doubles_to_its_bound_and_decays_to_its_floor() {
        let mut patience = Patience::new();
        let doubled: Vec<u64> = std::iter::repeat_with(|| {
            patience.evicted();
            patience.timeout().as_secs()
        })
        .take(7)
        .collect();
        assert_eq!(doubled, [4, 8, 16, 32, 64, 64, 64]);

        patience.connected();
        assert_eq!(patience.timeout(), Duration::from_millis(54_400));
        for _ in 0..30 {
            patience.connected();
        }
        assert_eq!(patience.timeout(), STALL_TIMEOUT);
    }

    #[test]
    fn through_a_proxy_it_begins_at_twenty_seconds() {
        let mut patience = Patience::slow();
        assert_eq!(patience.timeout(), Duration::from_secs(20));
        for expected in [40, 80, 160, 180, 180] {
            patience.evicted();
            assert_eq!(patience.timeout(), Duration::from_secs(expected));
        }
        for _ in 0..30 {
            patience.connected();
        }
        assert_eq!(patience.timeout(), Duration::from_secs(20));
    }

    #[test]
    fn where_blocks_usually_take_long_nobody_is_called_slow_for_it() {
        let mut patience = Patience::new();
        patience.delivered(Duration::from_secs(10));
        assert_eq!(patience.timeout(), Duration::from_secs(20));

        // Nor can a peer that dawdles on purpose make us wait for ever.
        for _ in 0..200 {
            patience.delivered(Duration::from_secs(3_600));
        }
        assert_eq!(patience.timeout(), MAX_STALL_TIMEOUT);
    }
}
