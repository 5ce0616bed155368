//! Records of one size by number, in a flat file.
//!
//! An array does not know how many records count: the state row does. Appends go behind what it names, cuts come
//! after it has named less.

use crate::disk::{Disk, NamedFile};
use crate::error::Error;

/// Bytes between two records up to which they are read together, and the most that is read at once.
const GAP_BYTES: u64 = 4 * 1024;
const WINDOW_BYTES: u64 = 64 * 1024;

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

    /// The records at `indexes`, which ascend. Those that lie near each other are read at once: to copy what lies
    /// between costs less than to ask again.
    pub(crate) fn read_scattered(&self, indexes: &[u32]) -> Result<Vec<[u8; N]>, Error> {
        let mut records = Vec::with_capacity(indexes.len());
        let mut window = Vec::new();
        let mut rest = indexes;
        while let Some(&first) = rest.first() {
            let near = |pair: &[u32]| Self::offset(pair[1]) - Self::offset(pair[0]) <= GAP_BYTES;
            let joined = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
            let most =
                rest.partition_point(|index| Self::offset(*index) - Self::offset(first) < WINDOW_BYTES);
            let (together, after) = rest.split_at(joined.min(most));
            let last = together.last().copied().unwrap_or(first);
            window.resize((Self::offset(last) - Self::offset(first)) as usize + N, 0);
            self.file.read(&mut window, Self::offset(first))?;
            let chunks = window.as_chunks::<N>().0;
            records.extend(together.iter().map(|index| chunks[(index - first) as usize]));
            rest = after;
        }
        Ok(records)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn scattered_records_are_those_read_one_by_one() {
        let disk = SimDisk::new();
        NamedFile::create(&disk, "numbers").unwrap();
        let array = Array::<4>::open(&disk, "numbers").unwrap();
        let records: Vec<[u8; 4]> = (0..100_000u32).map(u32::to_be_bytes).collect();
        array.append(0, &records).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        for step in [1, 5, 1_000, 1_030, 5_000, 60_000] {
            let mut indexes = vec![rng.u32(..step)];
            while let Some(next) =
                indexes.last().map(|last| last + rng.u32(0..=step)).filter(|next| *next < 100_000)
                && indexes.len() < 20_000
            {
                indexes.push(next);
            }
            let found = array.read_scattered(&indexes).unwrap();
            assert!(
                found.iter().zip(&indexes).all(|(record, index)| *record == index.to_be_bytes()),
                "{step}"
            );
            assert_eq!(found.len(), indexes.len());
        }
        assert!(array.read_scattered(&[99_999, 100_000]).is_err());
    }
}
