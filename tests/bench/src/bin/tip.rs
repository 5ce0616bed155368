//! Times blocks at the tip: from the block's last byte on the wire until a wallet is told of what it touches.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use peerdex_bench::load::start::Server;
use peerdex_bench::sync::chain::summary;
use peerdex_bench::sync::peer::{Peer, Served, served};
use peerdex_bench::sync::program::Program;
use peerdex_bench::sync::watch::{Wallet, free_address};
use peerdex_bench::tip::measure::{Taken, announce, quantile};
use peerdex_bench::tip::more::{More, more};

/// What is wanted, for the last of the touched scripts.
const MEDIAN: Duration = Duration::from_millis(50);
const NINETY_NINTH: Duration = Duration::from_millis(150);
/// Longest first sync.
const SYNC: Duration = Duration::from_secs(3 * 3600);
/// The slowest blocks are told of by height.
const TOLD: usize = 5;

#[derive(Debug, Parser)]
struct Arguments {
    /// Folder that the forge wrote.
    #[arg(long)]
    chain: PathBuf,
    /// The seed that it was forged with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Blocks to announce, one after the other.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: u32,
    /// In each of them.
    #[arg(long, default_value = "3000", value_parser = clap::value_parser!(u32).range(1..=4_000))]
    transactions: u32,
    /// Scripts of each block that the wallet is subscribed to.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    scripts: u32,
    /// Between a block's last notification and the next block.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pause: u64,
    /// Keeps the synced store and the blocks to come, so that the next run goes on where this one ended.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    #[arg(long, default_value = "target/release/peerdex")]
    peerdex: PathBuf,
    /// Passed on to peerdex.
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.data_dir)?;
    let mut chain = served(&arguments.chain)?;
    let base = chain.len();
    let peer = Peer::start(chain.clone())?;
    let service = free_address()?;
    let log = arguments.data_dir.join("log");
    let _ = std::fs::remove_file(&log);
    let mut server = Server::start(&Program {
        program: arguments.peerdex.clone(),
        data: arguments.data_dir.join("peerdex"),
        peer: peer.address,
        service,
        memory: arguments.memory,
        limit: None,
        log: Some(log),
        extra: &[],
    })?;
    let began = Instant::now();
    let height = server.synced_height(service, SYNC)?;
    println!("synced to height {height} in {:.1} s", began.elapsed().as_secs_f64());
    // What an earlier run announced is there already.
    let done = (height + 1).checked_sub(base).context("the server is synced and has less than the chain")?;
    chain.extend(prepare(&arguments, done)?);
    peer.follow(base - 1, chain[base..=height].to_vec());
    let mut wallet = Wallet::connect(service)?;
    ensure!(
        wallet.synced_tip()? == Some(display(&chain[height])),
        "the server has another chain than {}",
        arguments.chain.display()
    );
    let taken = announce_all(&arguments, &peer, &mut wallet, &chain, height)?;
    drop(server);
    Ok(report(&taken))
}

/// The blocks after the chain, those included that were announced before.
fn prepare(arguments: &Arguments, done: usize) -> anyhow::Result<Vec<Served>> {
    let began = Instant::now();
    let wanted = More {
        seed: arguments.seed,
        blocks: done + arguments.blocks as usize,
        transactions: arguments.transactions as usize,
    };
    let summary = summary(&arguments.chain)?;
    let blocks = more(&summary, &wanted, &folder(&arguments.data_dir))?;
    println!(
        "{} blocks after the chain, {done} of them announced before; {:.1} s",
        blocks.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(blocks)
}

fn folder(data: &Path) -> PathBuf {
    data.join("more")
}

fn display(block: &Served) -> String {
    block.hash.iter().rev().map(|byte| format!("{byte:02x}")).collect()
}

fn announce_all(
    arguments: &Arguments,
    peer: &Peer,
    wallet: &mut Wallet,
    chain: &[Served],
    height: usize,
) -> anyhow::Result<Vec<Taken>> {
    let mut rng = fastrand::Rng::with_seed(arguments.seed);
    let mut taken = Vec::new();
    let blocks = chain.iter().enumerate().skip(height + 1).take(arguments.blocks as usize);
    for (next, block) in blocks {
        std::thread::sleep(Duration::from_millis(arguments.pause));
        taken.push(announce(peer, wallet, next, block, arguments.scripts as usize, &mut rng)?);
    }
    Ok(taken)
}

fn report(taken: &[Taken]) -> ExitCode {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let transactions: usize = taken.iter().map(|taken| taken.transactions).sum();
    println!("{} blocks, {} transactions each on average", taken.len(), transactions / taken.len().max(1));
    println!("ms after the block's last byte     median      90th      99th       max");
    let row = |name: &str, of: fn(&Taken) -> Duration| {
        let mut times: Vec<Duration> = taken.iter().map(of).collect();
        let found = [500, 900, 990, 1_000].map(|share| quantile(&mut times, share));
        let [median, ninetieth, ninety_ninth, max] = found.map(ms);
        println!("{name:<31} {median:>9.1} {ninetieth:>9.1} {ninety_ninth:>9.1} {max:>9.1}");
        found
    };
    row("announced to sent", |taken| taken.asked);
    row("header told", |taken| taken.header);
    row("first touched script told", |taken| taken.first);
    let [median, _, ninety_ninth, _] = row("last touched script told", |taken| taken.last);
    let mut slowest = taken.to_vec();
    slowest.sort_by_key(|taken| std::cmp::Reverse(taken.last));
    slowest.truncate(TOLD);
    let slowest: Vec<String> =
        slowest.iter().map(|taken| format!("{} at height {}", ms(taken.last) as u64, taken.height)).collect();
    println!("slowest: {}", slowest.join(", "));
    let met = median <= MEDIAN && ninety_ninth <= NINETY_NINTH;
    println!(
        "wanted: median {} ms, 99th {} ms: {}",
        MEDIAN.as_millis(),
        NINETY_NINTH.as_millis(),
        if met { "met" } else { "MISSED" }
    );
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
