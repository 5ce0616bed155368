//! Shows a server of our own under very many wallets, and prints its figures beside what is wanted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use peerdex_bench::crowd::notify::{Spread, play};
use peerdex_bench::crowd::wire::BALANCER;
use peerdex_bench::crowd::{abuser, active, files, idle, report};
use peerdex_bench::load::known::Known;
use peerdex_bench::tip::stand::{Plan, Stand};

/// Sessions beside those that are measured: those that watch.
const WATCHERS: usize = 100;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sessions that subscribe and do nothing: what they take.
    Idle {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        crowd: CrowdArguments,
    },
    /// Blocks that concern many of those sessions: when the last has heard.
    Notify {
        #[command(flatten)]
        server: ServerArguments,
        #[command(flatten)]
        crowd: CrowdArguments,
        /// Of either kind: whose scripts each concern one session, and with a script that concerns all.
        #[arg(long, default_value = "10", value_parser = clap::value_parser!(u16).range(1..=1_000))]
        blocks: u16,
        /// Of each block of the first kind, subscribed to.
        #[arg(long, default_value_t = 5_000)]
        scripts: usize,
    },
    /// Wallets that sync: how long their requests take, by themselves and beside an abuser.
    Active {
        #[command(flatten)]
        server: ServerArguments,
        #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=20_000))]
        wallets: u32,
        #[arg(long, default_value_t = 100)]
        addresses: usize,
        /// Addresses of a hundred that were used.
        #[arg(long, value_name = "PERCENT", default_value_t = 30)]
        used: usize,
        /// Requests that each wallet keeps in flight.
        #[arg(long, default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1_000))]
        depth: u16,
        /// The wallets come one by one in this time, and not all at once.
        #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
        over: f64,
        /// Once more, beside one who asks for whatever is dearest.
        #[arg(long)]
        abuser: bool,
        #[arg(long, value_name = "CONNECTIONS", default_value_t = 50)]
        abuser_connections: u16,
        /// The abuser does not mind the hard limit.
        #[arg(long)]
        reckless: bool,
    },
}

#[derive(Debug, Args)]
struct ServerArguments {
    /// Folder that the forge wrote.
    #[arg(long)]
    chain: PathBuf,
    /// The seed that it was forged with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// In each block to come; the same in every run with this data.
    #[arg(long, default_value = "3000", value_parser = clap::value_parser!(u32).range(1..=4_000))]
    transactions: u32,
    /// Keeps the synced store and the blocks to come.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    #[arg(long, value_name = "PEERDEX", default_value = "target/release/peerdex")]
    start: PathBuf,
    /// Passed on to peerdex.
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// One more argument for peerdex; repeat for more.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pass: Vec<String>,
}

#[derive(Debug, Args)]
struct CrowdArguments {
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Of all of them together.
    #[arg(long, default_value_t = 1_000_000)]
    subscriptions: usize,
    /// Scripts of a hundred that the chain has; the others were never seen.
    #[arg(long, value_name = "PERCENT", default_value_t = 30)]
    used: usize,
    /// How long they do nothing.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    idle: u64,
}

impl ServerArguments {
    fn start(&self, connections: usize, blocks: usize) -> anyhow::Result<Stand> {
        files::allow(connections + WATCHERS)?;
        let mut extra = vec!["--max-sessions".to_owned(), (connections + WATCHERS).to_string()];
        extra.extend(["--proxy-protocol-from".to_owned(), BALANCER.to_string()]);
        extra.extend(self.pass.iter().cloned());
        Stand::start(&Plan {
            program: self.start.clone(),
            chain: self.chain.clone(),
            seed: self.seed,
            data: self.data_dir.clone(),
            blocks,
            transactions: self.transactions as usize,
            memory: self.memory,
            extra,
        })
    }
}

impl CrowdArguments {
    fn plan(&self) -> idle::Plan {
        idle::Plan {
            sessions: self.sessions,
            subscriptions: self.subscriptions,
            used_percent: self.used,
            idle: Duration::from_secs(self.idle),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let met = match Arguments::parse().command {
        Command::Idle { server, crowd } => {
            let stand = server.start(crowd.sessions, 0)?;
            let plan = crowd.plan();
            let (_crowd, seated) = idle::seat(&stand, &plan)?;
            report::seated(&plan, &seated)
        }
        Command::Notify { server, crowd, blocks, scripts } => {
            let mut stand = server.start(crowd.sessions, 2 * usize::from(blocks))?;
            let plan = crowd.plan();
            let (mut crowd, seated) = idle::seat(&stand, &plan)?;
            let mut met = report::seated(&plan, &seated);
            let mut rng = fastrand::Rng::with_seed(server.seed);
            for (name, spread) in
                [("scripts of many sessions", Spread::Each(scripts)), ("a script of all", Spread::One)]
            {
                let told = (0..blocks).map(|_| play(&mut stand, &mut crowd, spread, &mut rng));
                met &= report::told(name, &told.collect::<anyhow::Result<Vec<_>>>()?);
            }
            met
        }
        Command::Active {
            server,
            wallets,
            addresses,
            used,
            depth,
            over,
            abuser,
            abuser_connections,
            reckless,
        } => {
            let wallets = wallets as usize;
            let stand = server.start(wallets + usize::from(abuser_connections), 0)?;
            let known = Known::load(&server.chain)?;
            let over = Duration::try_from_secs_f64(over)?;
            let depth = depth.into();
            let plan = active::Plan { wallets, addresses, used_percent: used, depth, over };
            let alone = active::sync(&stand, &known, &plan, 0)?;
            let mut met = report::synced("by themselves", &alone, addresses);
            if abuser {
                let menu = abuser::menu(&stand, &known)?;
                let abusing = abuser::Plan { connections: abuser_connections, is_reckless: reckless };
                let stop = AtomicBool::new(false);
                let (beside, got) = std::thread::scope(|scope| {
                    let dining = scope.spawn(|| abuser::dine(stand.service, &menu, &abusing, &stop));
                    let beside = active::sync(&stand, &known, &plan, 1);
                    stop.store(true, Ordering::Relaxed);
                    (beside, dining.join())
                });
                met &= report::synced("beside an abuser", &beside?, addresses);
                report::got(&got.map_err(|_| anyhow!("the abuser panicked"))?.context("the abuser")?);
            }
            met
        }
    };
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
