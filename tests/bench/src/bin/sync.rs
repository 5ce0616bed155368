//! Times peerdex's first sync of a forged chain, and what hashing alone takes.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use peerdex_bench::sync::chain::{Chain, summary};
use peerdex_bench::sync::node::Source;
use peerdex_bench::sync::{hashing, peer, run};

/// As `--memory` counts.
const MEGABYTE: u64 = 1024 * 1024;

#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Hidden>,
    /// Folder that the forge wrote.
    #[arg(long, required = true)]
    chain: Option<PathBuf>,
    #[arg(long, default_value = "target/release/peerdex")]
    peerdex: PathBuf,
    /// Passed on to peerdex.
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// Let the system refuse peerdex more private writable memory than this.
    #[arg(long, value_name = "MB")]
    limit_memory: Option<u64>,
    /// Sync from this real node instead of the replay peer.
    #[arg(long, value_name = "BITCOIND")]
    node: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Be the replay peer.
    #[command(hide = true)]
    Serve { chain: PathBuf },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Hidden::Serve { chain }) = arguments.command {
        return peer::serve(&chain);
    }
    let chain = arguments.chain.as_deref().unwrap_or(Path::new("."));
    let truth = summary(chain)?;
    let megabytes = truth.bytes as f64 / 1e6;
    let transactions = truth.transactions as f64;
    println!(
        "chain: {megabytes:.1} MB, {} blocks, {} transactions, {} scripts",
        truth.height, truth.transactions, truth.scripts
    );

    let threads = std::thread::available_parallelism()?.get();
    let blocks = Chain::open(chain)?;
    blocks.warm()?;
    let (hashing, hashed) = hashing::time(&blocks, threads)?;
    anyhow::ensure!(hashed == truth.transactions, "the chain has {hashed} transactions");
    drop(blocks);
    let hashing = hashing.as_secs_f64();
    println!("only hashed: {hashing:.2} s on {threads} threads, {:.0} MB/s", megabytes / hashing);

    let (source, name) = match &arguments.node {
        Some(program) => (Source::node(program, chain)?, "node"),
        None => (Source::replay(chain)?, "replay peer"),
    };
    let before = source.cpu()?;
    let limit = arguments.limit_memory.map(|megabytes| megabytes * MEGABYTE);
    let settings = run::Settings { memory: arguments.memory, limit };
    let sync = run::sync(&arguments.peerdex, source.address, &settings, &truth.tip)?;
    let other = source.cpu()? - before;
    let wall = sync.wall.as_secs_f64();
    println!("synced: {wall:.2} s wall, {:.1} MB/s, {:.2} times hashing", megabytes / wall, wall / hashing);
    println!(
        "processor: peerdex {:.2} s ({:.2} of {threads}), {name} {other:.2} s",
        sync.cpu,
        sync.cpu / wall
    );
    println!("peak memory: {:.0} MB", sync.peak_memory as f64 / 1e6);
    if let Some(megabytes) = arguments.limit_memory {
        println!("completed under a limit of {megabytes} MB on private writable memory");
    }
    println!("stopped: {:.2} s, {:.2} s of the processor", sync.stop.as_secs_f64(), sync.stop_cpu);
    println!("on disk, bytes a transaction:");
    let mut index = 0;
    for (name, bytes) in &sync.disk {
        println!("  {name:<24} {:>8.2}  ({:.1} MB)", *bytes as f64 / transactions, *bytes as f64 / 1e6);
        if name != "blocks" {
            index += bytes;
        }
    }
    println!(
        "  {:<24} {:>8.2}  ({:.1} MB)",
        "all but blocks",
        index as f64 / transactions,
        index as f64 / 1e6
    );
    Ok(())
}
