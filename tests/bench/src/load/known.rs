//! The truth of a forged chain, all in memory but the transactions' bytes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::sync::chain::Chain;
use crate::truth::{Line, Script, Summary, Transaction};

#[derive(Debug)]
pub struct Known {
    pub summary: Summary,
    pub scripts: Vec<Script>,
    pub transactions: Vec<Transaction>,
    chain: Chain,
}

impl Known {
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("truth.jsonl");
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        let (mut summary, mut scripts, mut transactions) = (None, Vec::new(), Vec::new());
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let known = serde_json::from_slice(&line)
                .with_context(|| format!("line {number} of {}", path.display()))?;
            match known {
                Line::Summary(known) => summary = Some(known),
                Line::Script(script) => scripts.push(script),
                Line::Transaction(transaction) => transactions.push(transaction),
            }
        }
        let Some(summary) = summary else { bail!("{} has no summary", path.display()) };
        let chain = Chain::open(folder)?;
        let blocks = chain.blocks.len();
        if blocks != summary.height as usize + 1 {
            bail!("{} has {blocks} blocks, the truth a height of {}", folder.display(), summary.height);
        }
        Ok(Self { summary, scripts, transactions, chain })
    }

    /// A transaction as it is in the chain.
    pub fn raw(&self, transaction: &Transaction) -> std::io::Result<Vec<u8>> {
        let mut raw = vec![0; transaction.length as usize];
        self.chain.file.read_exact_at(&mut raw, transaction.offset)?;
        Ok(raw)
    }

    pub fn header(&self, height: usize) -> &[u8; 80] {
        &self.chain.blocks[height].header
    }

    /// Number of blocks, the genesis included.
    pub fn blocks(&self) -> usize {
        self.chain.blocks.len()
    }

    #[cfg(test)]
    pub fn block(&self, height: usize) -> bitcoin::Block {
        let mut bytes = Vec::new();
        self.chain.read(&self.chain.blocks[height], &mut bytes).expect("the file is whole");
        bitcoin::consensus::deserialize(&bytes).expect("the forge writes blocks")
    }
}
