//! The mempool, what was learnt of fees, and addresses of peers as files of the data folder, for restarts.
//!
//! Each is written beside its place, made durable, and then put there, so a stop at any instant leaves the old file or
//! the new one. A file that cannot be read is said and passed over: peers have what was in it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use bitcoin::BlockHash;
use tracing::{info, warn};

use crate::mempool::{DumpHeader, DumpReader, DumpWriter, Dumped, FeeEstimator, MempoolView};
use crate::time::Now;

const MEMPOOL: &str = "mempool.dat";
const FEES: &str = "fees.dat";
const ADDRESSES: &str = "addresses.txt";
/// Longer than any that is written.
const MAX_ADDRESSES_BYTES: u64 = 4 << 20;
/// Bytes that are handed to the file at once.
const PIECE: usize = 1 << 20;

/// Writes all that a view has.
pub fn write_mempool(
    folder: &Path,
    view: &MempoolView,
    tip: BlockHash,
    now: Now,
    expiry: Duration,
) -> io::Result<()> {
    let mut entries: Vec<_> = view.entries().collect();
    // Parents came before their children, but for those that a reorganisation brought back.
    entries.sort_by_key(|entry| entry.at);
    replace(&folder.join(MEMPOOL), |file| {
        let mut out = Vec::with_capacity(PIECE);
        let mut writer = DumpWriter::begin(DumpHeader { tip, written: now.unix }, expiry, &mut out);
        for entry in entries {
            let dumped = Dumped { raw: entry.raw.clone(), first_seen: entry.unix, unbroadcast: false };
            writer.push(&dumped, &mut out);
            if out.len() >= PIECE {
                file.write_all(&out)?;
                out.clear();
            }
        }
        writer.finish(&mut out);
        file.write_all(&out)
    })
}

/// What was written last; nothing where there is no such file.
pub fn read_mempool(folder: &Path, now: Now, expiry: Duration) -> Vec<Dumped> {
    let path = folder.join(MEMPOOL);
    let Ok(mut file) = File::open(&path) else { return Vec::new() };
    let (mut all, mut piece) = (Vec::new(), vec![0; PIECE]);
    let mut reader = DumpReader::new(now.unix, expiry);
    let read = loop {
        match file.read(&mut piece) {
            Ok(0) => break reader.finish().map_err(|error| error.to_string()),
            Ok(count) => reader.feed(piece.get(..count).unwrap_or_default()),
            Err(error) => break Err(error.to_string()),
        }
        let failed = loop {
            match reader.next_transaction() {
                Ok(Some(dumped)) => all.push(dumped),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        if let Some(error) = failed {
            break Err(error);
        }
    };
    if let Err(error) = read {
        warn!(file = %path.display(), error, "the mempool of before cannot be read to its end");
    }
    if !all.is_empty() {
        info!(
            transactions = all.len(),
            "unconfirmed transactions of before the last stop are looked at again"
        );
    }
    all
}

/// Writes what `FeeEstimator::to_bytes` gave.
pub fn write_fees(folder: &Path, fees: &[u8]) -> io::Result<()> {
    replace(&folder.join(FEES), |file| file.write_all(fees))
}

/// An estimator with what was learnt; a new one where there is nothing to be read.
pub fn read_fees(folder: &Path, now: Now) -> FeeEstimator {
    let path = folder.join(FEES);
    let read = match fs::read(&path) {
        Ok(bytes) => FeeEstimator::from_bytes(now.instant, &bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FeeEstimator::new(now.instant)),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|error| {
        warn!(file = %path.display(), error, "what was learnt of fees is lost");
        FeeEstimator::new(now.instant)
    })
}

/// Writes what `Addresses::to_text` gave.
pub fn write_addresses(folder: &Path, addresses: &str) -> io::Result<()> {
    replace(&folder.join(ADDRESSES), |file| file.write_all(addresses.as_bytes()))
}

/// What was written last; nothing where there is no such file, or one that cannot be read.
pub fn read_addresses(folder: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(folder.join(ADDRESSES))
        .and_then(|file| file.take(MAX_ADDRESSES_BYTES).read_to_end(&mut text));
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&text).into_owned())
}

fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The name is durable once its folder is.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (now, expiry) = (Now { unix: 1_000, ..Now::default() }, Duration::from_secs(100));
        assert!(read_mempool(folder.path(), now, expiry).is_empty());
        let view = MempoolView::default();
        let tip = bitcoin::hashes::Hash::all_zeros();
        write_mempool(folder.path(), &view, tip, now, expiry).unwrap();
        assert!(read_mempool(folder.path(), now, expiry).is_empty());
        assert!(!folder.path().join("mempool.new").exists());
        fs::write(folder.path().join(MEMPOOL), b"nonsense").unwrap();
        assert!(read_mempool(folder.path(), now, expiry).is_empty());

        assert_eq!(read_fees(folder.path(), now).tip(), None);
        write_fees(folder.path(), &FeeEstimator::new(now.instant).to_bytes()).unwrap();
        fs::write(folder.path().join(FEES), b"nonsense").unwrap();
        assert_eq!(read_fees(folder.path(), now).tip(), None);
    }
}
