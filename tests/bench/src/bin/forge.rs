//! Forges a regtest chain of mainnet's shape: `blocks.dat` and `truth.jsonl`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use peerdex_bench::forge::forge;
use peerdex_bench::size;

#[derive(Debug, Parser)]
struct Arguments {
    /// Bytes of all blocks, such as 50MB or 5GB.
    #[arg(long, value_parser = size::parse)]
    size: u64,
    /// Another seed gives another chain.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the files.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.out)?;
    let file = |name: &str| -> anyhow::Result<BufWriter<File>> {
        let path = arguments.out.join(name);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(BufWriter::with_capacity(1 << 20, file))
    };
    let (mut blocks, mut truth) = (file("blocks.dat")?, file("truth.jsonl")?);
    let start = Instant::now();
    let summary = forge(arguments.size, arguments.seed, &mut blocks, &mut truth)?;
    blocks.flush()?;
    truth.flush()?;
    let seconds = start.elapsed().as_secs_f64();
    let each = |bytes: u64, things: u64| bytes as f64 / things as f64;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    println!(
        "{:.0} bytes a transaction, {:.0} transactions and {:.0} KB a block; {seconds:.1} s, {:.0} MB/s",
        each(summary.bytes, summary.transactions),
        each(summary.transactions, u64::from(summary.height)),
        each(summary.bytes, u64::from(summary.height)) / 1e3,
        summary.bytes as f64 / seconds / 1e6,
    );
    Ok(())
}
