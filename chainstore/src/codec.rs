//! Bytes of rows: little-endian integers, and varints of seven bits a byte, lowest first (LEB128).
//!
//! A reader never believes a count before the bytes for it are there, and never panics.

/// Why bytes are not a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct DecodeError {
    pub(crate) what: &'static str,
    pub(crate) at: usize,
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Ends a row with the checksum of all before.
pub(crate) fn put_crc(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    put_u32(out, crc);
}

/// A row without the checksum that it ends with, which must be right.
pub(crate) fn without_crc(row: &[u8]) -> Result<&[u8], DecodeError> {
    let Some((body, crc)) = row.split_last_chunk::<4>() else {
        return Err(DecodeError { what: "row ends early", at: row.len() });
    };
    if crc32c::crc32c(body) == u32::from_le_bytes(*crc) {
        Ok(body)
    } else {
        Err(DecodeError { what: "checksum does not match", at: body.len() })
    }
}

/// Reads a row from its start.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn fail<T>(&self, what: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { what, at: self.at })
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => self.fail("row ends early"),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return self.fail("varint above 64 bits");
            }
            value |= bits << shift;
            if byte < 0x80 {
                // One value has one form, so equal rows are equal bytes.
                return if byte == 0 && shift > 0 {
                    self.fail("varint with a useless byte")
                } else {
                    Ok(value)
                };
            }
        }
        self.fail("varint above 64 bits")
    }

    /// A varint that fits four bytes.
    pub(crate) fn varint32(&mut self) -> Result<u32, DecodeError> {
        match u32::try_from(self.varint()?) {
            Ok(value) => Ok(value),
            Err(_) => self.fail("number above 32 bits"),
        }
    }

    /// A number of items that each take at least `item_bytes` of what follows.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= (self.bytes.len() - self.at) / item_bytes.max(1) => Ok(count),
            _ => self.fail("count beyond the row's end"),
        }
    }

    /// A varint added to what came before: ascending numbers are kept as differences.
    pub(crate) fn add(&mut self, before: u32) -> Result<u32, DecodeError> {
        match self.varint32()?.checked_add(before) {
            Some(sum) => Ok(sum),
            None => self.fail("number above 32 bits"),
        }
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { self.fail("row goes on") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_varint_has_one_form() {
        for bytes in
            [&[0x80, 0][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &[0x80]]
        {
            assert!(Reader::new(bytes).varint().is_err(), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
