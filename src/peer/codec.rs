//! Numbers and hashes as they stand in a payload.
//!
//! A `Reader` takes them off the front and fails when the payload ends too early; it allocates nothing, so what a
//! payload announces costs nothing until the bytes are there. What is left over is nobody's business: Core too
//! ignores bytes at the end of a message, which is how messages grow new fields.
//! Source: Bitcoin Core `serialize.h` (ReadCompactSize).

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};

/// Largest count or length that means anything (Core: MAX_SIZE, 32 MiB).
const MAX_SIZE: u64 = 0x0200_0000;

/// Stands after the 0 where the count of inputs would, in a transaction with witnesses (BIP144).
const WITNESS_FLAG: u8 = 1;

/// Why a payload cannot be read.
pub(super) type Malformed = &'static str;

#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not yet taken.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("ends too early")?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or("ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A count or length: one to nine bytes, at most 32 MiB, in its shortest form.
    pub(super) fn compact_size(&mut self) -> Result<usize, Malformed> {
        let value = self.compact_u64()?;
        if value > MAX_SIZE {
            return Err("compact size over 32 MiB");
        }
        Ok(value as usize)
    }

    /// The same for a number that is no length.
    pub(super) fn compact_u64(&mut self) -> Result<u64, Malformed> {
        let (value, least) = match self.u8()? {
            0xff => (self.u64()?, 0x1_0000_0000),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xfd => (u64::from(u16::from_le_bytes(self.array()?)), 0xfd),
            byte => (u64::from(byte), 0),
        };
        if value < least {
            return Err("compact size not in its shortest form");
        }
        Ok(value)
    }

    pub(super) fn hash(&mut self) -> Result<sha256d::Hash, Malformed> {
        Ok(sha256d::Hash::from_byte_array(self.array()?))
    }

    pub(super) fn block_hash(&mut self) -> Result<BlockHash, Malformed> {
        Ok(BlockHash::from_raw_hash(self.hash()?))
    }

    /// The bytes of one transaction, of which only the counts and lengths are looked at.
    pub(super) fn transaction(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.rest;
        self.slice(4)?;
        let mut inputs = self.compact_size()?;
        let has_witnesses = inputs == 0;
        if has_witnesses {
            if self.u8()? != WITNESS_FLAG {
                return Err("transaction without inputs");
            }
            inputs = self.compact_size()?;
        }
        if inputs == 0 {
            return Err("transaction without inputs");
        }
        for _ in 0..inputs {
            self.slice(36)?;
            self.string()?;
            self.slice(4)?;
        }
        for _ in 0..self.compact_size()? {
            self.slice(8)?;
            self.string()?;
        }
        if has_witnesses {
            for _ in 0..inputs {
                for _ in 0..self.compact_size()? {
                    self.string()?;
                }
            }
        }
        self.slice(4)?;
        start.get(..start.len() - self.rest.len()).ok_or("ends too early")
    }

    /// Bytes behind their length.
    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.compact_size()?;
        self.slice(len)
    }

    pub(super) fn header(&mut self) -> Result<Header, Malformed> {
        Ok(Header {
            version: Version::from_consensus(self.i32()?),
            prev_blockhash: self.block_hash()?,
            merkle_root: TxMerkleNode::from_raw_hash(self.hash()?),
            time: self.u32()?,
            bits: CompactTarget::from_consensus(self.u32()?),
            nonce: self.u32()?,
        })
    }
}

/// Appends a count or length in its shortest form.
pub(super) fn put_compact_size(out: &mut Vec<u8>, value: usize) {
    match value {
        0..=0xfc => out.push(value as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&(value as u64).to_le_bytes());
        }
    }
}

pub(super) fn put_header(out: &mut Vec<u8>, header: &Header) {
    out.extend_from_slice(&header.version.to_consensus().to_le_bytes());
    out.extend_from_slice(header.prev_blockhash.as_byte_array());
    out.extend_from_slice(header.merkle_root.as_byte_array());
    out.extend_from_slice(&header.time.to_le_bytes());
    out.extend_from_slice(&header.bits.to_consensus().to_le_bytes());
    out.extend_from_slice(&header.nonce.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_sizes_come_back_in_their_shortest_form_only() {
        for value in [0, 0xfc, 0xfd, 0xffff, 0x1_0000, MAX_SIZE as usize] {
            let mut out = Vec::new();
            put_compact_size(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.compact_size(), Ok(value));
            assert!(reader.is_empty());
        }
        let longer_than_needed: [&[u8]; 3] =
            [&[0xfd, 0xfc, 0], &[0xfe, 0xff, 0xff, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]];
        for bytes in longer_than_needed {
            assert_eq!(Reader::new(bytes).compact_size(), Err("compact size not in its shortest form"));
        }
    }

    #[test]
    fn a_compact_size_over_32_mib_or_cut_short_is_refused() {
        assert_eq!(Reader::new(&[0xfe, 1, 0, 0, 2]).compact_size(), Err("compact size over 32 MiB"));
        assert_eq!(Reader::new(&[0xff; 9]).compact_size(), Err("compact size over 32 MiB"));
        for bytes in [&[][..], &[0xfd, 1], &[0xfe, 1, 2, 3], &[0xff, 1, 2, 3, 4, 5, 6, 7]] {
            assert_eq!(Reader::new(bytes).compact_size(), Err("ends too early"));
        }
    }
}
