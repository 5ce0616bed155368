//! Loads an Electrum server that has synced a forged chain, and compares its answers with what the forge knows.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use peerdex_bench::load::known::Known;
use peerdex_bench::load::question::Load;
use peerdex_bench::load::report;
use peerdex_bench::load::run::{Plan, run};
use peerdex_bench::load::start::Server;
use peerdex_bench::sync::program::Program;
use peerdex_bench::sync::watch::free_address;

#[derive(Debug, Parser)]
struct Arguments {
    /// Folder that the forge wrote.
    #[arg(long)]
    chain: PathBuf,
    /// Where the server listens.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "start")]
    server: Option<SocketAddr>,
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Requests that each connection keeps in flight.
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1000))]
    depth: u16,
    /// For each method.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Nothing but this; more than once for more.
    #[arg(long, value_name = "METHOD")]
    only: Vec<Load>,
    /// The server's process, to count its processor time.
    #[arg(long)]
    pid: Option<u32>,
    /// Start this program as the server.
    #[arg(long, value_name = "PEERDEX", requires = "data_dir", conflicts_with = "pid")]
    start: Option<PathBuf>,
    /// The started server's data.
    #[arg(long, value_name = "FOLDER", requires = "start")]
    data_dir: Option<PathBuf>,
    /// The started server's peer.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1")]
    peer: SocketAddr,
    /// How long the started server may take to sync.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    patience: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let known = Known::load(&arguments.chain)?;
    let server = arguments.server.map_or_else(free_address, Ok)?;
    let mut process = arguments.pid;
    let mut started = None;
    if let (Some(program), Some(folder)) = (&arguments.start, &arguments.data_dir) {
        let program = Program {
            program: program.clone(),
            data: folder.clone(),
            peer: arguments.peer,
            service: server,
            memory: None,
            limit: None,
            log: None,
            extra: Vec::new(),
        };
        process = Some(started.insert(Server::start(&program)?).process());
    }
    if let Some(started) = &mut started {
        started.synced(server, &known.summary.tip, Duration::from_secs(arguments.patience))?;
    }
    let plan = Plan {
        server,
        connections: arguments.connections.into(),
        depth: arguments.depth.into(),
        time: Duration::from_secs(arguments.seconds.into()),
        process,
    };
    let longest = known.scripts.iter().map(|script| script.history.len()).max().unwrap_or(0);
    println!(
        "chain: {:.1} MB, {} blocks; known {} scripts, longest history {longest}, and {} transactions",
        known.summary.bytes as f64 / 1e6,
        known.summary.height,
        known.scripts.len(),
        known.transactions.len()
    );
    println!("{}", report::head());
    let loads = if arguments.only.is_empty() { Load::value_variants() } else { &arguments.only };
    let mut mismatches = 0;
    for &load in loads {
        let Some(outcome) = run(&known, load, &plan)? else {
            eprintln!("the truth has nothing for {load:?}");
            continue;
        };
        println!("{}", report::row(&outcome));
        for mismatch in &outcome.tally.told {
            eprintln!("  {mismatch}");
        }
        mismatches += outcome.tally.mismatches;
    }
    drop(started);
    Ok(if mismatches == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
