//! What a data folder holds, takes and will need, as text.

use std::fmt;

use bitcoin::Network;
use chainstore::{Estimate, FORMAT, Options, Progress, Store, Tip, forecast, network_name};

use super::words::{Bytes, Utc};
use crate::config::Folder;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Info {
    dir: String,
    network: Network,
    tip: Option<Tip>,
    /// When the tip's miner says that it was found, in Unix seconds.
    tip_time: Option<u32>,
    progress: Progress,
    txid_prefix: u8,
    free_bytes: u64,
}

impl Info {
    /// What an open store says.
    pub fn of(folder: &Folder, store: &Store) -> anyhow::Result<Self> {
        let tip = store.tip();
        // A first sync is ahead of what readers see; its headers are in the same array.
        let header = tip.map(|tip| store.snapshot().header(tip.height)).transpose()?.flatten();
        Ok(Self {
            dir: folder.data_dir.display().to_string(),
            network: folder.network,
            tip,
            tip_time: header.map(|header| header.time),
            progress: store.progress()?,
            txid_prefix: Options::new(folder.network).txid_prefix,
            free_bytes: store.free_bytes()?,
        })
    }

    fn chain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { headers, txs, first_sync, .. } = self.progress;
        match self.tip {
            Some(tip) => {
                writeln!(f, "blocks           to height {}", tip.height)?;
                writeln!(f, "headers          to height {}", headers.saturating_sub(1))?;
                writeln!(f, "tip              {}", tip.hash)?;
            }
            None => writeln!(f, "blocks           none")?,
        }
        if let Some(time) = self.tip_time {
            writeln!(f, "tip time         {}", Utc(time))?;
        }
        writeln!(f, "transactions     {txs}")?;
        let state =
            if first_sync { "first sync not ended: the index is not written yet" } else { "complete" };
        writeln!(f, "index            {state}")
    }

    fn sizes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { txs, ref usage, .. } = self.progress;
        writeln!(f, "takes            {:>10}", Bytes(usage.total()))?;
        for (part, bytes) in [
            ("raw blocks", usage.raw_blocks),
            ("headers", usage.headers),
            ("txids", usage.txids),
            ("txpos", usage.txpos),
            ("blockpos", usage.blockpos),
            ("base", usage.base),
            ("tip.redb", usage.tip),
            ("bulk runs", usage.runs),
        ] {
            writeln!(f, "  {part:<14} {:>10}", Bytes(bytes))?;
        }
        if let Some(share) = usage.index().saturating_mul(10).checked_div(txs) {
            writeln!(f, "index            {}.{} bytes a transaction", share / 10, share % 10)?;
        }
        writeln!(f, "free             {:>10}", Bytes(self.free_bytes))
    }

    fn forecast(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(estimate) = Estimate::of(self.network) else {
            return writeln!(f, "will need        unknown: nobody knows how long this chain gets");
        };
        let forecast = forecast(self.network, &self.progress);
        let needed = forecast.needed_bytes();
        writeln!(
            f,
            "will need        {:>10} more, to height {}",
            Bytes(needed),
            forecast.blocks.saturating_sub(1)
        )?;
        if needed > 0 {
            writeln!(f, "  {:<14} {:>10}", "raw blocks", Bytes(forecast.raw_bytes))?;
            writeln!(f, "  {:<14} {:>10}", "index", Bytes(forecast.index_bytes))?;
            writeln!(f, "  {:<14} {:>10} until the first sync ends", "bulk runs", Bytes(forecast.run_bytes))?;
        }
        if needed > self.free_bytes {
            writeln!(f, "  that is {} too much for this disk", Bytes(needed - self.free_bytes))?;
        }
        writeln!(f, "grows by         {:>10} a year", Bytes(estimate.yearly_bytes()))?;
        writeln!(f, "estimated        {}", estimate.source)
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "folder           {}", self.dir)?;
        writeln!(f, "network          {}", network_name(self.network))?;
        writeln!(f, "format           {FORMAT}")?;
        writeln!(f, "options          txid-prefix {}", self.txid_prefix)?;
        self.chain(f)?;
        self.sizes(f)?;
        self.forecast(f)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use chainstore::{Height, Usage};

    use super::*;

    #[test]
    fn all_that_an_operator_asks_is_there() {
        let info = Info {
            dir: "/data".into(),
            network: Network::Bitcoin,
            tip: Some(Tip { height: Height(699_999), hash: BlockHash::all_zeros() }),
            tip_time: Some(1_231_006_505),
            progress: Progress {
                headers: 960_000,
                blocks: 700_000,
                txs: 700_000_000,
                first_sync: true,
                usage: Usage {
                    raw_blocks: 400_000_000_000,
                    txids: 22_400_000_000,
                    runs: 140_000_000_000,
                    ..Usage::default()
                },
            },
            txid_prefix: 8,
            free_bytes: 50_000_000_000,
        };
        let said = info.to_string();
        for line in [
            "folder           /data",
            "network          mainnet",
            "options          txid-prefix 8",
            "blocks           to height 699999",
            "headers          to height 959999",
            "tip time         2009-01-03 18:15:05 UTC",
            "transactions     700000000",
            "index            first sync not ended: the index is not written yet",
            "takes              562.4 GB",
            "  raw blocks       400.0 GB",
            "  txids             22.4 GB",
            "  tip.redb              0 B",
            "index            32.0 bytes a transaction",
            "free                50.0 GB",
            "will need          678.6 GB more, to height 959999",
            "  bulk runs        140.0 GB until the first sync ends",
            "  that is 628.6 GB too much for this disk",
            "grows by           105.9 GB a year",
        ] {
            assert!(said.lines().any(|said| said == line), "'{line}' is missing in:\n{said}");
        }
    }

    #[test]
    fn regtest_is_nobodys_to_forecast() {
        let info = Info {
            dir: "/data".into(),
            network: Network::Regtest,
            tip: None,
            tip_time: None,
            progress: Progress::default(),
            txid_prefix: 8,
            free_bytes: 0,
        };
        let said = info.to_string();
        assert!(
            said.contains("will need        unknown") && said.contains("blocks           none"),
            "{said}"
        );
        assert!(!said.contains("bytes a transaction"), "there is none:\n{said}");
    }
}
