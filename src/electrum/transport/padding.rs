//! Traffic padding: what is sent comes in pieces of few sizes, so that who listens on an encrypted line learns little
//! from lengths.
//!
//! Lines are held until there are enough of them or a second has passed, then sent together, filled up to a power
//! of two with the spaces that JSON allows before a closing bracket. Whether it is used is a setting, for all
//! transports alike. Source: ElectrumX 2.0, `PaddedRSTransport`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::time::Instant;

/// The smallest piece, and what is worth sending at once.
const LEAST_BYTES: usize = 1_024;
/// How long a line may be held.
const HOLD: Duration = Duration::from_secs(1);
/// Sent at once at the beginning of a session, so that a wallet's first questions are not slowed down.
const WARM_UP_BYTES: usize = 1_024;

/// What carries lines, as far as it changes how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A newline after each, which is part of the line.
    Lines,
    /// A header before each, and no newline (RFC 6455, section 5.2).
    Websocket,
}

impl Framing {
    /// Bytes on the wire of a line with so many bytes, its newline included.
    fn bytes(self, line: usize) -> usize {
        match self {
            Self::Lines => line,
            Self::Websocket => match line - 1 {
                text @ ..126 => text + 2,
                text @ ..65_536 => text + 4,
                text => text + 10,
            },
        }
    }
}

/// Lines on their way to be padded.
#[derive(Debug)]
pub struct Padder {
    framing: Framing,
    /// Whole lines with their newlines.
    held: Vec<Bytes>,
    /// What those take on the wire.
    held_bytes: usize,
    sent_bytes: usize,
    last_flush: Instant,
}

impl Padder {
    pub fn new(framing: Framing, now: Instant) -> Self {
        Self { framing, held: Vec::new(), held_bytes: 0, sent_bytes: 0, last_flush: now }
    }

    /// Takes a line, its newline included.
    pub fn push(&mut self, line: Bytes) {
        self.held_bytes += self.framing.bytes(line.len());
        self.held.push(line);
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// When [`Padder::flush`] is to be called although nothing came.
    pub fn next_timeout(&self) -> Option<Instant> {
        (!self.held.is_empty()).then_some(self.last_flush + HOLD)
    }

    /// Moves to `out` what is to be sent now.
    pub fn flush(&mut self, now: Instant, out: &mut BytesMut) {
        let is_due = self.held_bytes >= LEAST_BYTES
            || now >= self.last_flush + HOLD
            || self.sent_bytes < WARM_UP_BYTES;
        if is_due {
            self.flush_some(now, out, false);
        }
    }

    /// The same for all that is held, before the connection closes.
    pub fn flush_all(&mut self, now: Instant, out: &mut BytesMut) {
        self.flush_some(now, out, true);
    }

    fn flush_some(&mut self, now: Instant, out: &mut BytesMut, all: bool) {
        if self.held.is_empty() {
            return;
        }
        // Everything in a piece that is larger, or whole lines in one of half its size: what wastes less.
        let large = (self.held_bytes + 1).next_power_of_two().max(LEAST_BYTES);
        let small = (large / 2).max(LEAST_BYTES);
        let (mut count, mut bytes) = (0, 0);
        for line in &self.held {
            let next = bytes + self.framing.bytes(line.len());
            if next > small {
                break;
            }
            (count, bytes) = (count + 1, next);
        }
        let takes_all = all || count == 0 || large - self.held_bytes <= small - bytes;
        let (count, bytes, target) =
            if takes_all { (self.held.len(), self.held_bytes, large) } else { (count, bytes, small) };
        let mut lines = self.held.drain(..count);
        let last = lines.next_back();
        lines.for_each(|line| out.extend_from_slice(&line));
        if let Some(last) = last {
            self.framing.pad(&last, target - bytes, out);
        }
        self.held_bytes -= bytes;
        self.sent_bytes += target;
        self.last_flush = now;
    }
}

impl Framing {
    /// Appends a line that takes `more` bytes more on the wire than it would.
    fn pad(self, line: &[u8], more: usize, out: &mut BytesMut) {
        let wanted = self.bytes(line.len()) + more;
        // A longer header may take some of it; where two lengths of header meet, a byte or more cannot be filled.
        let mut spaces = more;
        while spaces > 0 && self.bytes(line.len() + spaces) > wanted {
            spaces -= 1;
        }
        // Before the bracket that closes it, and the newline.
        let (start, end) = line.split_at(line.len().saturating_sub(2));
        out.extend_from_slice(start);
        out.extend(std::iter::repeat_n(b' ', spaces));
        out.extend_from_slice(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: usize) -> Bytes {
        Bytes::from(format!("{{\"r\":\"{}\"}}\n", "x".repeat(bytes - 9)))
    }

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    /// A session that has sent its first bytes.
    fn warm(framing: Framing) -> Padder {
        let mut padder = Padder::new(framing, at(0));
        padder.push(line(100));
        padder.flush(at(0), &mut BytesMut::new());
        assert_eq!(padder.held_bytes(), 0);
        padder
    }

    fn wire_bytes(framing: Framing, out: &[u8]) -> usize {
        out.split_inclusive(|byte| *byte == b'\n').map(|line| framing.bytes(line.len())).sum()
    }

    #[test]
    fn a_line_waits_for_more_or_for_a_second() {
        let mut padder = warm(Framing::Lines);
        let mut out = BytesMut::new();
        padder.push(line(200));
        padder.flush(at(999), &mut out);
        assert!(out.is_empty());
        assert_eq!(padder.next_timeout(), Some(at(1_000)));
        padder.flush(at(1_000), &mut out);
        assert_eq!(out.len(), 1_024);
        assert_eq!(padder.next_timeout(), None);
        padder.push(line(600));
        padder.push(line(424));
        padder.flush(at(1_001), &mut out);
        assert_eq!(out.len(), 2_048, "1,024 bytes go at once, as they are");
    }

    #[test]
    fn the_first_answers_do_not_wait() {
        let mut padder = Padder::new(Framing::Lines, at(0));
        let mut out = BytesMut::new();
        padder.push(line(50));
        padder.flush(at(0), &mut out);
        assert_eq!(out.len(), 1_024);
    }

    #[test]
    fn what_wastes_less_is_sent() {
        let mut padder = warm(Framing::Lines);
        let mut out = BytesMut::new();
        // 1,100 bytes: 948 would be wasted of 2,048, and 24 of 1,024 if the last line waits.
        padder.push(line(1_000));
        padder.push(line(100));
        padder.flush(at(1), &mut out);
        assert_eq!((out.len(), padder.held_bytes()), (1_024, 100));
        padder.flush_all(at(1), &mut out);
        assert_eq!((out.len(), padder.held_bytes()), (2_048, 0));
        // One line that no smaller piece could hold.
        out.clear();
        padder.push(line(1_100));
        padder.flush(at(2), &mut out);
        assert_eq!(out.len(), 2_048);
    }

    #[test]
    fn sizes_are_powers_of_two_and_nothing_is_lost() {
        let mut random = fastrand::Rng::with_seed(3);
        for framing in [Framing::Lines, Framing::Websocket] {
            let mut padder = Padder::new(framing, at(0));
            let (mut sent, mut heard) = (Vec::new(), Vec::new());
            for step in 0..3_000 {
                let size = if random.u8(..).is_multiple_of(8) {
                    random.usize(9..200_000)
                } else {
                    random.usize(9..400)
                };
                let next = line(size);
                sent.push(next.clone());
                padder.push(next);
                let mut out = BytesMut::new();
                let now = at(step * random.u64(0..30));
                if random.u8(..).is_multiple_of(16) {
                    padder.flush_all(now, &mut out)
                } else {
                    padder.flush(now, &mut out)
                }
                if out.is_empty() {
                    continue;
                }
                let bytes = wire_bytes(framing, &out);
                // A websocket's header may leave a few bytes that cannot be filled.
                let near = bytes.next_power_of_two() - bytes;
                assert!(near <= if framing == Framing::Lines { 0 } else { 8 }, "{bytes}");
                assert!(bytes + near >= LEAST_BYTES);
                for line in out.split_inclusive(|byte| *byte == b'\n') {
                    let value: serde_json::Value = serde_json::from_slice(line).unwrap();
                    heard.push(value);
                }
            }
            let sent: Vec<serde_json::Value> =
                sent.iter().take(heard.len()).map(|line| serde_json::from_slice(line).unwrap()).collect();
            assert_eq!(heard, sent);
        }
    }
}
