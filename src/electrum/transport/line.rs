//! Cuts a stream of bytes into lines.
//!
//! Knows only the newline: what a line says is `jsonrpc`'s work. Never holds more than one request over what it
//! was last given, and never scans a byte twice.
//! Source: electrum-protocol, "Message Stream".

/// Longest request, its newline included. Electrum's own limit for what it receives is eight times this;
/// the largest transaction that nodes relay is 800,000 hex digits.
pub const MAX_REQUEST_BYTES: usize = 1_000_000;

/// An empty buffer that grew past this is given back: one large request must not cost memory for as long as the
/// wallet stays.
const KEEP_BYTES: usize = 16 * 1024;

/// A line grew past the limit. The stream cannot be trusted from there on: say so and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTooLong;

/// Bytes that have arrived and are not yet a line.
///
/// Give it what the socket gave with [`push`](Self::push), then take lines with
/// [`next_line`](Self::next_line) until there is none.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: Vec<u8>,
    /// Start of the first line not yet taken.
    start: usize,
    /// Up to here no newline was found, `start <= scanned <= buffer.len()`.
    scanned: usize,
    max_bytes: usize,
}

impl Default for LineDecoder {
    fn default() -> Self {
        Self::new(MAX_REQUEST_BYTES)
    }
}

impl LineDecoder {
    /// A decoder of lines of at most `max_bytes`, newline included.
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, max_bytes }
    }

    /// Adds bytes from the socket. Take all lines before pushing again: only that keeps memory bounded.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its newline; `None` until one has arrived.
    ///
    /// Fails, and goes on failing, once the limit has passed without a newline.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, LineTooLong> {
        let newline = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let end = newline.map_or(self.buffer.len(), |offset| self.scanned + offset);
        let with_newline = end - self.start + 1;
        if with_newline > self.max_bytes {
            return Err(LineTooLong);
        }
        if newline.is_none() {
            self.scanned = end;
            if self.start == end && self.buffer.capacity() > KEEP_BYTES {
                *self = Self::new(self.max_bytes);
            }
            return Ok(None);
        }
        let line = self.start..end;
        self.start = end + 1;
        self.scanned = self.start;
        Ok(Some(&self.buffer[line]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(decoder: &mut LineDecoder) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(line) = decoder.next_line().unwrap() {
            lines.push(line.to_vec());
        }
        lines
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let stream = b"one\n\ntwo and more\nrest";
        for cut in 1..stream.len() {
            let mut decoder = LineDecoder::new(20);
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                seen.extend(lines(&mut decoder));
            }
            assert_eq!(seen, [&b"one"[..], b"", b"two and more"], "in pieces of {cut}");
        }
    }

    #[test]
    fn the_newline_counts_towards_the_limit() {
        let mut decoder = LineDecoder::new(5);
        decoder.push(b"1234\n1234");
        assert_eq!(decoder.next_line(), Ok(Some(&b"1234"[..])));
        assert_eq!(decoder.next_line(), Ok(None));
        decoder.push(b"\n12345\n");
        assert_eq!(decoder.next_line(), Ok(Some(&b"1234"[..])));
        assert_eq!(decoder.next_line(), Err(LineTooLong));
        assert_eq!(decoder.next_line(), Err(LineTooLong));
    }

    #[test]
    fn the_memory_of_a_large_request_is_given_back() {
        let mut decoder = LineDecoder::default();
        decoder.push(&[b'x'; 100_000]);
        decoder.push(b"\nnext");
        assert_eq!(decoder.next_line().unwrap().unwrap().len(), 100_000);
        assert_eq!(decoder.next_line(), Ok(None));
        decoder.push(b" one\n");
        assert_eq!(decoder.next_line(), Ok(Some(&b"next one"[..])));
        assert_eq!(decoder.next_line(), Ok(None));
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut decoder = LineDecoder::default();
        let piece = [b'x'; 4096];
        let refused = (1..1000).find(|_| {
            decoder.push(&piece);
            decoder.next_line().is_err()
        });
        assert_eq!(refused, Some(MAX_REQUEST_BYTES.div_ceil(piece.len())));
    }
}
