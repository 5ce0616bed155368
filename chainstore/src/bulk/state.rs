//! The bulk row: how far a bulk sync is durable, and which runs belong to it.
//!
//! ```text
//! row | blocks 4 | transactions 4 | hash 32 | secret 16 | next run 4 | runs 4 | run, for each | crc32c of all before 4 |
//! run | kind 1 | level 1 | number 4 | records 8 | crc32c 4 |
//! ```

use super::coins::Secret;
use super::run::{Kind, RunInfo};
use crate::base::BaseMark;
use crate::codec::{DecodeError, Reader, put_u32};

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
}

impl BulkState {
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
                Kind::Coins => 2,
                Kind::Unspent => 3,
            });
            out.push(run.level);
            put_u32(&mut out, run.number);
            out.extend_from_slice(&run.records.to_le_bytes());
            put_u32(&mut out, run.crc);
        }
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        let Some((body, crc)) = row.split_last_chunk::<4>() else { return reader.fail("row ends early") };
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return reader.fail("checksum does not match");
        }
        let mark = BaseMark::read(&mut reader)?;
        let secret = Secret([u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?)]);
        let (next_run, count) = (reader.u32()?, reader.u32()?);
        let mut runs = Vec::new();
        for _ in 0..count {
            let kind = match reader.u8()? {
                0 => Kind::History,
                1 => Kind::Txs,
                2 => Kind::Coins,
                3 => Kind::Unspent,
                _ => return reader.fail("unknown kind of run"),
            };
            let (level, number) = (reader.u8()?, reader.u32()?);
            let records = u64::from_le_bytes(reader.array()?);
            runs.push(RunInfo { kind, level, number, records, crc: reader.u32()? });
        }
        reader.u32()?;
        reader.finish()?;
        Ok(Self { mark, secret, next_run, runs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_comes_back_and_damage_is_seen() {
        let run = RunInfo { kind: Kind::Coins, level: 2, number: 7, records: 1 << 40, crc: 5 };
        let mark = BaseMark { blocks: 3, txs: 9, ..BaseMark::empty() };
        let state = BulkState { mark, secret: Secret([1, 2]), next_run: 8, runs: vec![run, run] };
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
