//! Whether the disk can hold what comes, before a server starts.
//!
//! What is needed is `chainstore::forecast`'s matter; a disk that fills up later is the writer's.

use std::fmt;

use bitcoin::Network;
use chainstore::{Disk, Forecast, Options, Progress, RealDisk, Store, forecast};

use super::words::Bytes;
use crate::config::Config;

/// A disk that is too small, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    dir: String,
    forecast: Forecast,
    reserve_bytes: u64,
    free_bytes: u64,
}

impl std::error::Error for Shortage {}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forecast { raw_bytes, index_bytes, run_bytes, .. } = self.forecast;
        let needed = self.forecast.needed_bytes().saturating_add(self.reserve_bytes);
        write!(
            f,
            "the disk of {} is too small: {} more are needed ({} of blocks, {} of index",
            self.dir,
            Bytes(needed),
            Bytes(raw_bytes),
            Bytes(index_bytes)
        )?;
        if run_bytes > 0 {
            write!(f, ", {} until the first sync ends", Bytes(run_bytes))?;
        }
        write!(
            f,
            ", {} to be kept free), {} are free: make room, give a folder on a larger disk with --data-dir, \
             or start all the same with --ignore-disk-space",
            Bytes(self.reserve_bytes),
            Bytes(self.free_bytes)
        )
    }
}

/// Refuses a disk that cannot hold what comes, unless the operator wants it so. A `store` that is not there yet is
/// not made for it.
pub fn ensure_space(config: &Config, store: Option<&Store>) -> anyhow::Result<()> {
    if config.ignore_disk_space {
        return Ok(());
    }
    let (progress, free) = match store {
        Some(store) => (store.progress()?, store.free_bytes()?),
        None if config.data_dir.join("MANIFEST").exists() => return Ok(()),
        None => {
            let progress = Progress { first_sync: true, ..Progress::default() };
            (progress, RealDisk::new(&config.data_dir).free_bytes()?)
        }
    };
    let dir = config.data_dir.display().to_string();
    shortage(dir, config.network, &progress, free).map_or(Ok(()), |shortage| Err(shortage.into()))
}

fn shortage(dir: String, network: Network, progress: &Progress, free_bytes: u64) -> Option<Shortage> {
    let forecast = forecast(network, progress);
    let reserve_bytes = Options::new(network).reserve_bytes;
    // A chain that is complete is served whatever is free.
    let needed = match forecast.needed_bytes() {
        0 => 0,
        needed => needed.saturating_add(reserve_bytes),
    };
    (needed > free_bytes).then_some(Shortage { dir, forecast, reserve_bytes, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn a_disk_is_too_small_by_one_byte() {
        let fresh = Progress { first_sync: true, ..Progress::default() };
        let find = |network, free| shortage("/data".into(), network, &fresh, free);
        let needed = forecast(Network::Bitcoin, &fresh).needed_bytes() + GB;
        assert_eq!(find(Network::Bitcoin, needed), None);

        let said = find(Network::Bitcoin, needed - 1).unwrap().to_string();
        for word in [
            "/data",
            "1242.0 GB more",
            "800.0 GB of blocks",
            "161.0 GB of index",
            "280.0 GB until",
            "--data-dir",
        ] {
            assert!(said.contains(word), "'{word}' is missing in: {said}");
        }
        let said = find(Network::Bitcoin, 44 * GB).unwrap().to_string();
        assert!(said.contains("44.0 GB are free") && said.contains("--ignore-disk-space"), "{said}");

        assert_eq!(find(Network::Regtest, 0), None, "regtest needs nothing");
    }

    #[test]
    fn a_chain_that_is_there_is_served_from_a_full_disk() {
        let synced = Progress {
            headers: 960_000,
            blocks: 960_000,
            txs: 1_400_000_000,
            first_sync: false,
            ..Progress::default()
        };
        assert_eq!(shortage("/data".into(), Network::Bitcoin, &synced, 0), None);
    }
}
