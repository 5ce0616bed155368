//! The bulk row: how far a bulk sync is durable, and which runs belong to it.
//!
//! ```text
//! row | blocks 4 | transactions 4 | hash 32 | secret 16 | next run 4 | runs 4 | run, for each
//!     | next file 4 | parts 4 | part, for each, as in the row of parts | repeated 4 | number 4, for each
//!     | crc32c of all before 4 |
//! run | kind 1 | level 1 | number 4 | records 8 |
//! ```

use std::collections::BTreeSet;

use super::hash::Secret;
use super::run::{Kind, RunInfo};
use crate::base::{BaseMark, PartInfo, put_part, read_part};
use crate::codec::{DecodeError, Reader, put_crc, put_u32, without_crc};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BulkState {
    /// How far the runs and the arrays go.
    pub(crate) mark: BaseMark,
    pub(crate) secret: Secret,
    /// Number of the next new run.
    pub(crate) next_run: u32,
    /// Of each kind in the order in which they were made; those of coins oldest first.
    pub(crate) runs: Vec<RunInfo>,
    /// While it ends: parts of the base that are written, and where the files go on.
    pub(crate) parts: Vec<PartInfo>,
    pub(crate) next_file: u32,
    /// Transactions whose id a later one has (BIP30), as the parts that are written found.
    pub(crate) repeated: BTreeSet<u32>,
}

impl BulkState {
    /// One that begins above a base.
    pub(crate) fn new(mark: BaseMark, secret: Secret, next_file: u32) -> Self {
        let (runs, parts, repeated) = Default::default();
        Self { mark, secret, next_run: 0, runs, parts, next_file, repeated }
    }

    /// Whether parts are being written: then no more blocks may come.
    pub(crate) fn is_ending(&self) -> bool {
        !self.parts.is_empty()
    }

    pub(crate) fn runs_of(&self, kind: Kind) -> Vec<RunInfo> {
        self.runs.iter().filter(|run| run.kind == kind).copied().collect()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(72 + self.runs.len() * 18);
        out.extend_from_slice(&self.mark.encode());
        out.extend_from_slice(self.secret.0.map(u64::to_le_bytes).as_flattened());
        put_u32(&mut out, self.next_run);
        put_u32(&mut out, self.runs.len() as u32);
        for run in &self.runs {
            out.push(match run.kind {
                Kind::History => 0,
                Kind::Txs => 1,
                Kind::Unspent => 3,
                Kind::Coins => 4,
            });
            out.push(run.level);
            put_u32(&mut out, run.number);
            out.extend_from_slice(&run.records.to_le_bytes());
        }
        put_u32(&mut out, self.next_file);
        put_u32(&mut out, self.parts.len() as u32);
        self.parts.iter().for_each(|part| put_part(&mut out, part));
        put_u32(&mut out, self.repeated.len() as u32);
        self.repeated.iter().for_each(|number| put_u32(&mut out, *number));
        put_crc(&mut out);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(without_crc(row)?);
        let mark = BaseMark::read(&mut reader)?;
        let secret = Secret([u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?)]);
        let (next_run, count) = (reader.u32()?, reader.u32()?);
        let mut runs = Vec::new();
        for _ in 0..count {
            let kind = match reader.u8()? {
                0 => Kind::History,
                1 => Kind::Txs,
                // Coins by another hash, as they were once written.
                2 => return reader.fail("coins by a hash of an older version"),
                3 => Kind::Unspent,
                4 => Kind::Coins,
                _ => return reader.fail("unknown kind of run"),
            };
            let (level, number) = (reader.u8()?, reader.u32()?);
            let records = u64::from_le_bytes(reader.array()?);
            runs.push(RunInfo { kind, level, number, records });
        }
        let (next_file, count) = (reader.u32()?, reader.u32()?);
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(read_part(&mut reader)?);
        }
        let mut repeated = BTreeSet::new();
        for _ in 0..reader.u32()? {
            repeated.insert(reader.u32()?);
        }
        reader.finish()?;
        Ok(Self { mark, secret, next_run, runs, parts, next_file, repeated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_comes_back_and_damage_is_seen() {
        let run = RunInfo { kind: Kind::Coins, level: 2, number: 7, records: 1 << 40 };
        let mark = BaseMark { blocks: 3, txs: 9, ..BaseMark::empty() };
        let runs = vec![run, run];
        let repeated = [7, 9].into();
        let state = BulkState { next_run: 8, runs, repeated, ..BulkState::new(mark, Secret([1, 2]), 4) };
        let row = state.encode();
        assert_eq!(BulkState::decode(&row).as_ref(), Ok(&state));
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 1;
            assert!(BulkState::decode(&damaged).is_err());
            assert!(BulkState::decode(&row[..at]).is_err());
        }
    }
}
