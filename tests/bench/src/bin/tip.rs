//! Times blocks at the tip: from the block's last byte on the wire until a wallet is told of what it touches.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use peerdex_bench::sync::watch::Wallet;
use peerdex_bench::tip::measure::{Taken, announce, quantile};
use peerdex_bench::tip::stand::{Plan, Stand};

/// What is wanted, for the last of the touched scripts.
const MEDIAN: Duration = Duration::from_millis(50);
const NINETY_NINTH: Duration = Duration::from_millis(150);
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
    /// A further argument for peerdex, such as --unverified-scripts; may be given again.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pass: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut stand = Stand::start(&Plan {
        program: arguments.peerdex,
        chain: arguments.chain,
        seed: arguments.seed,
        data: arguments.data_dir,
        blocks: arguments.blocks as usize,
        transactions: arguments.transactions as usize,
        memory: arguments.memory,
        extra: arguments.pass,
    })?;
    let mut wallet = Wallet::connect(stand.service)?;
    // It is told of new tips from now on.
    wallet.synced_tip()?;
    let mut rng = fastrand::Rng::with_seed(arguments.seed);
    let mut taken = Vec::new();
    for _ in 0..arguments.blocks {
        std::thread::sleep(Duration::from_millis(arguments.pause));
        taken.push(announce(&mut stand, &mut wallet, arguments.scripts as usize, &mut rng)?);
    }
    drop(stand);
    Ok(report(&taken))
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
