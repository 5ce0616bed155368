//! The blocks that come after a forged chain: the forge makes the chain again, keeps none of it, and goes on.
//!
//! Coins are spent young with a long tail, so these blocks spend coins of the whole chain.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use crate::forge::{Fill, Forge, MAGIC};
use crate::sync::peer::{Served, served};
use crate::truth::Summary;

/// What is to come after a chain.
#[derive(Clone, Debug)]
pub struct More {
    /// The seed that the chain was forged with.
    pub seed: u64,
    pub blocks: usize,
    /// In each block, if its weight allows.
    pub transactions: usize,
}

/// The blocks after the chain, at least so many; those that an earlier run left in the folder are taken again.
pub fn more(summary: &Summary, wanted: &More, folder: &Path) -> anyhow::Result<Vec<Served>> {
    std::fs::create_dir_all(folder)?;
    let note = format!("{} {} {}\n", summary.tip, wanted.seed, wanted.transactions);
    let note_path = folder.join("after");
    if std::fs::read_to_string(&note_path).is_ok_and(|kept| kept == note)
        && let Ok(blocks) = served(folder)
        && blocks.len() >= wanted.blocks
    {
        return Ok(blocks);
    }
    let path = folder.join("blocks.new");
    let mut to = BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?);
    write(summary, wanted, &mut to)?;
    to.flush()?;
    std::fs::rename(path, folder.join("blocks.dat"))?;
    std::fs::write(note_path, note)?;
    served(folder)
}

fn write(summary: &Summary, wanted: &More, to: &mut impl Write) -> anyhow::Result<()> {
    let mut forge = Forge::new(summary.bytes, wanted.seed);
    let mut raw = Vec::new();
    let mut tip = [0; 32];
    while forge.bytes() < summary.bytes {
        tip = forge.next_block(0, &mut raw);
    }
    ensure!(
        BlockHash::from_byte_array(tip).to_string() == summary.tip,
        "the chain was not forged with seed {}: give --seed",
        wanted.seed
    );
    forge.fill(Fill::Transactions(wanted.transactions));
    for _ in 0..wanted.blocks {
        forge.next_block(0, &mut raw);
        to.write_all(&MAGIC)?;
        to.write_all(&(raw.len() as u32).to_le_bytes())?;
        to.write_all(&raw)?;
    }
    Ok(())
}
