//! The mempool as bytes, so that a restart does not begin with nothing.
//!
//! ```text
//! dump   | magic 8, the last byte is the version | tip 32 | written 8 LE: Unix seconds | checksum 4 | records | end |
//! record | length 4 LE | first seen 8 LE: Unix seconds | flags 1 | transaction, `length` bytes | checksum 4 |
//! end    | 0: 4 | number of records 8 LE | checksum 4 |
//! flags  | bit 0: no peer is known to have it (Core: unbroadcast) |
//! ```
//! A checksum is sha256d(all before it in the same part)[..4]. Nothing is believed because it was written once: what is
//! read goes through the admission again. Files are the shell's; here are only bytes.
//! Source of the idea: Bitcoin Core `node/mempool_persist.cpp`.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bytes::Bytes;

const MAGIC: [u8; 7] = *b"pdxpool";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
const LENGTH_LEN: usize = 4;
const HEADER_LEN: usize = MAGIC.len() + 1 + 32 + 8 + CHECKSUM_LEN;
/// Of a record without its transaction.
const RECORD_LEN: usize = LENGTH_LEN + 8 + 1 + CHECKSUM_LEN;
const END_LEN: usize = LENGTH_LEN + 8 + CHECKSUM_LEN;
/// No transaction that fits into a block is longer.
const MAX_TRANSACTION_LEN: usize = 4_000_000;
const UNBROADCAST: u8 = 1;

/// A transaction as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// As it goes over the wire, witness included.
    pub raw: Bytes,
    /// Unix time in seconds.
    pub first_seen: u64,
    /// Whether no peer is known to have it.
    pub unbroadcast: bool,
}

/// What a dump says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpHeader {
    /// The block after which these were unconfirmed.
    pub tip: BlockHash,
    /// Unix time in seconds.
    pub written: u64,
}

/// Why bytes are no dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error("not a mempool dump")]
    Foreign,
    #[error("mempool dump of version {0}, which is not known here")]
    Version(u8),
    #[error("mempool dump: checksum at byte {at} does not match")]
    BadChecksum { at: u64 },
    #[error("mempool dump: record at byte {at} announces {len} bytes")]
    TooLong { at: u64, len: usize },
    #[error("mempool dump: record at byte {at} has the unknown flags {flags:#04x}")]
    BadFlags { at: u64, flags: u8 },
    #[error("mempool dump ends at byte {at} in the middle")]
    Torn { at: u64 },
    #[error("mempool dump announces {announced} records and has {found}")]
    BadCount { announced: u64, found: u64 },
    #[error("mempool dump goes on after its end at byte {at}")]
    Trailing { at: u64 },
}

/// Writes a dump piece by piece; each call appends to `out`, which the shell empties into a file as it likes.
#[derive(Debug)]
pub struct DumpWriter {
    expiry: Duration,
    written: u64,
    count: u64,
}

impl DumpWriter {
    /// Begins a dump. What is older than `expiry` will be left out.
    pub fn begin(header: DumpHeader, expiry: Duration, out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(header.tip.as_byte_array());
        out.extend_from_slice(&header.written.to_le_bytes());
        put_checksum(out, start);
        Self { expiry, written: header.written, count: 0 }
    }

    /// Appends a transaction; parents come before their children. One that no block could hold is left out too.
    pub fn push(&mut self, dumped: &Dumped, out: &mut Vec<u8>) {
        let fits = (1..=MAX_TRANSACTION_LEN).contains(&dumped.raw.len());
        if !fits || is_expired(dumped.first_seen, self.written, self.expiry) {
            return;
        }
        let start = out.len();
        out.extend_from_slice(&(dumped.raw.len() as u32).to_le_bytes());
        out.extend_from_slice(&dumped.first_seen.to_le_bytes());
        out.push(if dumped.unbroadcast { UNBROADCAST } else { 0 });
        out.extend_from_slice(&dumped.raw);
        put_checksum(out, start);
        self.count += 1;
    }

    /// The end, without which a dump counts as torn.
    pub fn finish(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_LEN]);
        out.extend_from_slice(&self.count.to_le_bytes());
        put_checksum(out, start);
    }
}

/// Reads a dump from bytes in pieces of any size. It holds no more than one unfinished record and what was given and
/// not yet read.
#[derive(Debug)]
pub struct DumpReader {
    /// Unix time in seconds.
    now: u64,
    expiry: Duration,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read.
    start: usize,
    /// Bytes of the dump before the buffer.
    before: u64,
    header: Option<DumpHeader>,
    count: u64,
    is_done: bool,
}

impl DumpReader {
    /// What is older than `expiry` at `now`, Unix time in seconds, will be left out.
    pub fn new(now: u64, expiry: Duration) -> Self {
        Self { now, expiry, buffer: Vec::new(), start: 0, before: 0, header: None, count: 0, is_done: false }
    }

    /// Takes the next bytes of the dump.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.before += self.start as u64;
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// What the dump says of itself, once that was read.
    pub fn header(&self) -> Option<DumpHeader> {
        self.header
    }

    /// The next transaction; `None` when more bytes are needed, or all was read. After an error nothing more is to be
    /// had; what came before it is good.
    pub fn next_transaction(&mut self) -> Result<Option<Dumped>, DumpError> {
        if self.header.is_none() && !self.read_header()? {
            return Ok(None);
        }
        while !self.is_done {
            match self.read_record()? {
                Some(dumped) if is_expired(dumped.first_seen, self.now, self.expiry) => {}
                None if self.is_done => {}
                read => return Ok(read),
            }
        }
        match self.rest().is_empty() {
            true => Ok(None),
            false => Err(DumpError::Trailing { at: self.at() }),
        }
    }

    /// There are no more bytes: whether that was all.
    pub fn finish(&self) -> Result<(), DumpError> {
        let is_whole = self.is_done && self.rest().is_empty();
        if is_whole { Ok(()) } else { Err(DumpError::Torn { at: self.at() + self.rest().len() as u64 }) }
    }

    fn read_header(&mut self) -> Result<bool, DumpError> {
        // Something else is known by its first bytes.
        let seen = self.rest().len().min(MAGIC.len());
        if self.rest().get(..seen) != MAGIC.get(..seen) {
            return Err(DumpError::Foreign);
        }
        match self.rest().get(MAGIC.len()) {
            None => return Ok(false),
            Some(&VERSION) => {}
            Some(&version) => return Err(DumpError::Version(version)),
        }
        let Some(part) = self.part(HEADER_LEN)? else { return Ok(false) };
        let fields = part.get(MAGIC.len() + 1..).and_then(|rest| rest.split_first_chunk());
        let header = fields.and_then(|(tip, rest)| {
            let written = u64::from_le_bytes(*rest.first_chunk()?);
            Some(DumpHeader { tip: BlockHash::from_byte_array(*tip), written })
        });
        self.header = header;
        self.start += HEADER_LEN;
        Ok(header.is_some())
    }

    fn read_record(&mut self) -> Result<Option<Dumped>, DumpError> {
        let Some(length) = self.rest().first_chunk().map(|length| u32::from_le_bytes(*length) as usize)
        else {
            return Ok(None);
        };
        if length == 0 {
            self.read_end()?;
            return Ok(None);
        }
        let at = self.at();
        if length > MAX_TRANSACTION_LEN {
            return Err(DumpError::TooLong { at, len: length });
        }
        let Some(part) = self.part(RECORD_LEN + length)? else { return Ok(None) };
        let fields = part.get(LENGTH_LEN..).and_then(|rest| rest.split_first_chunk());
        let Some((first_seen, [flags, raw @ ..])) = fields else { return Ok(None) };
        if flags & !UNBROADCAST != 0 {
            return Err(DumpError::BadFlags { at, flags: *flags });
        }
        let dumped = Dumped {
            raw: Bytes::copy_from_slice(raw),
            first_seen: u64::from_le_bytes(*first_seen),
            unbroadcast: flags & UNBROADCAST != 0,
        };
        self.start += RECORD_LEN + length;
        self.count += 1;
        Ok(Some(dumped))
    }

    fn read_end(&mut self) -> Result<(), DumpError> {
        let Some(part) = self.part(END_LEN)? else { return Ok(()) };
        let announced = part.get(LENGTH_LEN..).and_then(|rest| rest.first_chunk());
        let announced = announced.map_or(0, |count| u64::from_le_bytes(*count));
        if announced != self.count {
            return Err(DumpError::BadCount { announced, found: self.count });
        }
        self.start += END_LEN;
        self.is_done = true;
        Ok(())
    }

    /// The next so many bytes without their checksum, which matches; `None` while they are not all here.
    fn part(&self, len: usize) -> Result<Option<&[u8]>, DumpError> {
        let Some(part) = self.rest().get(..len) else { return Ok(None) };
        match part.split_last_chunk() {
            Some((body, sum)) if checksum(body) == *sum => Ok(Some(body)),
            _ => Err(DumpError::BadChecksum { at: self.at() }),
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Bytes of the dump that were read.
    fn at(&self) -> u64 {
        self.before + self.start as u64
    }
}

fn is_expired(first_seen: u64, now: u64, expiry: Duration) -> bool {
    now.saturating_sub(first_seen) > expiry.as_secs()
}

fn put_checksum(out: &mut Vec<u8>, start: usize) {
    let sum = checksum(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum);
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut engine = sha256d::Hash::engine();
    engine.input(bytes);
    let [a, b, c, d, ..] = sha256d::Hash::from_engine(engine).to_byte_array();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const EXPIRY: Duration = Duration::from_secs(336 * 60 * 60);

    fn header() -> DumpHeader {
        DumpHeader { tip: BlockHash::from_byte_array([7; 32]), written: NOW }
    }

    fn some() -> impl Strategy<Value = Vec<Dumped>> {
        let age = 0..EXPIRY.as_secs();
        let one = (vec(any::<u8>(), 1..300), age, any::<bool>()).prop_map(|(raw, age, unbroadcast)| Dumped {
            raw: raw.into(),
            first_seen: NOW - age,
            unbroadcast,
        });
        vec(one, 0..12)
    }

    fn written(transactions: &[Dumped]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = DumpWriter::begin(header(), EXPIRY, &mut out);
        transactions.iter().for_each(|dumped| writer.push(dumped, &mut out));
        writer.finish(&mut out);
        out
    }

    /// What is read from these pieces, and how it ends.
    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Dumped>, Result<(), DumpError>) {
        let mut reader = DumpReader::new(NOW, EXPIRY);
        let mut found = Vec::new();
        for piece in pieces {
            reader.feed(piece);
            loop {
                match reader.next_transaction() {
                    Ok(Some(dumped)) => found.push(dumped),
                    Ok(None) => break,
                    Err(error) => return (found, Err(error)),
                }
            }
        }
        let end = reader.finish();
        assert!(end.is_err() || reader.header() == Some(header()));
        (found, end)
    }

    fn read_whole(bytes: &[u8]) -> (Vec<Dumped>, Result<(), DumpError>) {
        read(std::iter::once(bytes))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_pieces_of_any_size(transactions in some(), size in 1..400usize) {
            let bytes = written(&transactions);
            prop_assert_eq!(read(bytes.chunks(size)), (transactions, Ok(())));
        }

        #[test]
        fn a_torn_dump_gives_what_is_whole_and_says_that_it_is_torn(
            transactions in some(), cut in any::<prop::sample::Index>()
        ) {
            let bytes = written(&transactions);
            let cut = cut.index(bytes.len());
            let (found, end) = read_whole(&bytes[..cut]);
            prop_assert_eq!(end, Err(DumpError::Torn { at: cut as u64 }));
            prop_assert!(transactions.starts_with(&found));
        }

        #[test]
        fn a_flipped_bit_is_noticed_and_nothing_wrong_is_read(
            transactions in some(), at in any::<prop::sample::Index>(), bit in 0..8u8
        ) {
            let mut bytes = written(&transactions);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (found, end) = read_whole(&bytes);
            prop_assert!(end.is_err());
            prop_assert!(transactions.starts_with(&found));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..500), size in 1..64usize) {
            prop_assert!(read(bytes.chunks(size)).1.is_err());
            let begun = [&written(&[])[..HEADER_LEN], &bytes].concat();
            prop_assert!(read(begun.chunks(size)).0.is_empty());
        }
    }

    #[test]
    fn the_first_bytes_say_what_it_is() {
        let bytes = written(&[]);
        assert_eq!(bytes.len(), HEADER_LEN + END_LEN);
        assert_eq!(bytes[..8], *b"pdxpool\x01");
        assert_eq!(read_whole(b"pdxpool\x02").1, Err(DumpError::Version(2)));
        assert_eq!(read_whole(b"SQLite format 3").1, Err(DumpError::Foreign));
        assert_eq!(read_whole(b"p").1, Err(DumpError::Torn { at: 1 }));
        assert_eq!(
            read_whole(&[&bytes[..], b"x"].concat()).1,
            Err(DumpError::Trailing { at: bytes.len() as u64 })
        );
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_kept_for_it() {
        let bytes = written(&[]);
        let begun = [&bytes[..HEADER_LEN], &u32::MAX.to_le_bytes()].concat();
        let expected = DumpError::TooLong { at: HEADER_LEN as u64, len: u32::MAX as usize };
        assert_eq!(read_whole(&begun).1, Err(expected));
    }

    #[test]
    fn a_record_that_was_cut_out_is_missed() {
        let one = Dumped { raw: Bytes::from_static(b"one"), first_seen: NOW, unbroadcast: true };
        let bytes = written(&[one.clone(), one]);
        let cut = [&bytes[..HEADER_LEN], &bytes[HEADER_LEN + RECORD_LEN + 3..]].concat();
        assert_eq!(read_whole(&cut).1, Err(DumpError::BadCount { announced: 2, found: 1 }));
    }

    #[test]
    fn what_is_older_than_two_weeks_is_left_out() {
        let aged = |age| Dumped { raw: Bytes::from_static(b"tx"), first_seen: NOW - age, unbroadcast: false };
        let (young, old) = (aged(EXPIRY.as_secs()), aged(EXPIRY.as_secs() + 1));
        assert_eq!(read_whole(&written(&[old, young.clone()])), (vec![young.clone()], Ok(())));
        // And what has become old since.
        let mut reader = DumpReader::new(NOW + 1, EXPIRY);
        reader.feed(&written(&[young]));
        assert_eq!(reader.next_transaction(), Ok(None));
        assert_eq!(reader.finish(), Ok(()));
    }
}
