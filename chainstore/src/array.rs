//! Records of one size by number, in a flat file.
//!
//! An array does not know how many records count: the state row does. Appends go behind what it names, cuts come
//! after it has named less.

use crate::disk::{Disk, NamedFile};
use crate::error::Error;

/// A file of `N`-byte records.
#[derive(Clone, Debug)]
pub(crate) struct Array<const N: usize> {
    file: NamedFile,
}

impl<const N: usize> Array<N> {
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<Self, Error> {
        Ok(Self { file: NamedFile::open(disk, name)? })
    }

    /// One record.
    pub(crate) fn read(&self, index: u32) -> Result<[u8; N], Error> {
        let mut record = [0; N];
        self.file.read(&mut record, Self::offset(index))?;
        Ok(record)
    }

    /// `count` records from `from` on; the caller knows that they are there.
    pub(crate) fn read_many(&self, from: u32, count: u32) -> Result<Vec<[u8; N]>, Error> {
        let mut bytes = vec![0; count as usize * N];
        self.file.read(&mut bytes, Self::offset(from))?;
        Ok(bytes.as_chunks::<N>().0.to_vec())
    }

    /// Puts records behind the first `count`. Durable after [`Array::sync`].
    pub(crate) fn append(&self, count: u32, records: &[[u8; N]]) -> Result<(), Error> {
        if records.is_empty() { Ok(()) } else { self.file.write(records.as_flattened(), Self::offset(count)) }
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync()
    }

    /// Cuts to `count` records; fewer is corruption.
    pub(crate) fn cut_to(&self, count: u32) -> Result<(), Error> {
        self.file.cut_to(Self::offset(count))
    }

    fn offset(index: u32) -> u64 {
        u64::from(index) * N as u64
    }
}
