//! When to dial a peer again.
//!
//! In: that a handshake was done, that a connection ended and why. Out: the moment of the next attempt.
//! It never gives up: the operator named the peer, and every peer may come back. It does not dial.

use std::time::Duration;

use crate::time::Instant;

use super::types::CloseReason;

/// First wait, doubled with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait for a peer that is merely not there.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How much longer a peer waits that misbehaved, and the most it waits.
const MISBEHAVIOR_FACTOR: u32 = 10;
const MAX_MISBEHAVIOR_WAIT: Duration = Duration::from_secs(10 * 60);
/// A connection that lasts this long after its handshake was a success: a peer that accepts and hangs up at once
/// must not be dialled every second.
const STAYED_UP: Duration = Duration::from_secs(60);

/// The waits between the attempts to reach one peer.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// Attempts that failed in a row.
    failures: u32,
    /// Since when the connection of now is up.
    ready_since: Option<Instant>,
}

impl Backoff {
    pub fn new() -> Self {
        Self::default()
    }

    /// The handshake was done.
    pub fn handle_ready(&mut self, now: Instant) {
        self.ready_since = Some(now);
    }

    /// The connection ended, or could not be made; when to try again.
    ///
    /// The wait is random between half of the nominal one and all of it, so that what failed together is not
    /// tried again together.
    pub fn handle_closed(&mut self, now: Instant, reason: &CloseReason, rng: &mut fastrand::Rng) -> Instant {
        let stayed_up = self.ready_since.take().is_some_and(|since| now.saturating_since(since) >= STAYED_UP);
        if stayed_up && !reason.is_misbehavior() {
            self.failures = 0;
        }
        let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX_WAIT);
        self.failures = self.failures.saturating_add(1);
        let wait = if reason.is_misbehavior() {
            (doubled * MISBEHAVIOR_FACTOR).min(MAX_MISBEHAVIOR_WAIT)
        } else {
            doubled
        };
        now + wait.mul_f64(0.5 + rng.f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Misbehavior;

    fn gone() -> CloseReason {
        CloseReason::Gone("connection refused".to_owned())
    }

    /// The nominal waits, seen from the random ones: each lies in the upper half of its nominal wait.
    fn assert_waits(backoff: &mut Backoff, reason: &CloseReason, nominal_seconds: &[u64]) {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut now = Instant::default();
        for &nominal in nominal_seconds {
            let nominal = Duration::from_secs(nominal);
            let at = backoff.handle_closed(now, reason, &mut rng);
            assert!(at - now >= nominal / 2 && at - now <= nominal, "{:?} for {nominal:?}", at - now);
            now = at;
        }
    }

    #[test]
    fn waits_double_from_one_second_to_a_minute_and_never_end() {
        let mut backoff = Backoff::new();
        assert_waits(&mut backoff, &gone(), &[1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.failures = u32::MAX;
        assert_waits(&mut backoff, &gone(), &[60, 60]);
    }

    #[test]
    fn misbehavior_waits_ten_times_longer_but_at_most_ten_minutes() {
        let bad = CloseReason::Misbehaved(Misbehavior::Stalled);
        assert_waits(&mut Backoff::new(), &bad, &[10, 20, 40, 80, 160, 320, 600, 600]);
    }

    #[test]
    fn a_connection_that_stayed_up_starts_again_at_one_second() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut backoff = Backoff::new();
        assert_waits(&mut backoff, &gone(), &[1, 2, 4, 8]);

        let up = Instant::from_start(Duration::from_secs(1000));
        backoff.handle_ready(up);
        let down = up + STAYED_UP;
        assert!(backoff.handle_closed(down, &gone(), &mut rng) - down <= FIRST_WAIT);
    }

    #[test]
    fn a_peer_that_hangs_up_after_the_handshake_is_dialled_ever_less() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut backoff = Backoff::new();
        let mut now = Instant::default();
        for nominal in [1, 2, 4, 8, 16, 32, 60] {
            backoff.handle_ready(now);
            let down = now + Duration::from_secs(5);
            now = backoff.handle_closed(down, &gone(), &mut rng);
            assert!(now - down >= Duration::from_secs(nominal) / 2);
        }
    }

    #[test]
    fn misbehavior_after_a_long_time_does_not_count_as_success() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut backoff = Backoff::new();
        assert_waits(&mut backoff, &gone(), &[1, 2, 4]);
        backoff.handle_ready(Instant::default());
        let down = Instant::from_start(STAYED_UP * 10);
        let again =
            backoff.handle_closed(down, &CloseReason::Misbehaved(Misbehavior::InvalidChain), &mut rng);
        assert!(again - down >= Duration::from_secs(40));
    }
}
