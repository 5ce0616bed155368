//! Kills the program at chosen moments, hundreds of times, and compares what is left with what must be true.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use peerdex_bench::kills::harm::{Plan, run};

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value = "300", value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// The same chains, and about the same moments; any if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Where to work; what failed is left there. A temporary folder if not given.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[arg(long, default_value = "target/release/peerdex")]
    peerdex: PathBuf,
    /// Longest wait for the tip or a phase.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let parent = arguments.out.unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&parent)?;
    let folder = tempfile::Builder::new().prefix("peerdex-kills-").tempdir_in(parent)?;
    let plan = Plan {
        kills: arguments.kills,
        seed,
        peerdex: arguments.peerdex,
        folder: folder.path().into(),
        patience: Duration::from_secs(arguments.patience),
    };
    let began = Instant::now();
    let outcome = match run(&plan) {
        Ok(outcome) => outcome,
        Err(error) => {
            let kept = folder.keep();
            return Err(error)
                .with_context(|| format!("failed with --seed {seed}, kept in {}", kept.display()));
        }
    };
    println!(
        "seed {seed}: {} kills, {} rounds, deepest reorg {} blocks, {:.0} s",
        outcome.tally.total(),
        outcome.rounds,
        outcome.deepest_reorg,
        began.elapsed().as_secs_f64()
    );
    print!("{}", outcome.tally);
    println!("{} comparisons of every script, coin and transaction: nothing differed", outcome.comparisons);
    Ok(())
}
