//! THE WORLD: the one folder with sockets, threads, clocks and tasks.
//!
//! `dialer` is the only code that connects or resolves; `connection` keeps one Bitcoin peer, `private` makes one
//! connection for a wallet's transaction; `threads` check
//! blocks, `scripts` run those of a block, `keeper` keeps the mempool, `broadcasts` wallets' transactions on disk;
//! `writer` writes the chain; `wallets` accepts Electrum clients; `runtime` is the loop that ties them to the
//! pure `node`; `import` reads Bitcoin Core's files (`import_files`) before that; `operator` and `log` say what
//! happens.

mod broadcasts;
mod clock;
mod connection;
mod dialer;
mod dump;
mod import;
mod import_files;
mod keeper;
mod log;
mod open_files;
mod operator;
mod private;
mod rpc;
mod runtime;
pub mod scripts;
mod threads;
mod wallets;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use anyhow::Context;
use chainstore::{Options, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::care;
use crate::config::{Config, Import};
use crate::electrum::Server;
use crate::mempool::{FeeBoard, MempoolView, Policy};
use crate::node::Node;
use crate::node::chain::Chain;
use crate::node::keeper::{Command, Keeper};
use crate::query::{SyncState, View};
pub use rpc::call;
use scripts::{ScriptThreads, Verified};
use writer::OnFull;

/// Peer events that wait for the node; each may be a block, so this bounds memory.
const PEER_EVENTS: usize = 16;
/// What wallets handed in and the node has not looked at.
const SUBMISSIONS: usize = 64;
/// How long the writer may take to commit what it has when we stop.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// What the rows of a block of mainnet's size take in memory.
const DELTA_BYTES: usize = 640 * 1024;

/// How the memory that the operator grants is shared out.
#[derive(Clone, Copy, Debug)]
struct Budget {
    total_bytes: usize,
    /// Raw bytes of blocks that were received and are not connected; checked, a block takes half as much again.
    block_bytes: usize,
}

impl Budget {
    fn of(megabytes: u32) -> Self {
        let total_bytes = megabytes as usize * 1024 * 1024;
        Self { total_bytes, block_bytes: (total_bytes / 16).min(128 * 1024 * 1024) }
    }

    /// Five eighths for what bulk sync gathers. The index is read through the system's memory, which is not ours.
    fn store(&self, network: bitcoin::Network) -> Options {
        Options {
            bulk_memory_bytes: self.total_bytes / 8 * 5,
            directory_bytes: (self.total_bytes / 32) as u64,
            tip_cache_bytes: self.total_bytes / 32,
            merge_batch: (self.total_bytes / 8 / DELTA_BYTES).clamp(50, 200),
            ..Options::new(network)
        }
    }

    /// For tests: what takes gigabytes of blocks to happen happens within megabytes.
    fn miniature(&self, network: bitcoin::Network) -> Options {
        Options {
            keep_deltas: 20,
            merge_batch: 10,
            part_bytes: 256 << 10,
            segment_bytes: 4 << 20,
            bulk_memory_bytes: 2 << 20,
            tip_cache_bytes: 1 << 20,
            ..self.store(network)
        }
    }
}

/// Runs the server until SIGINT or SIGTERM.
pub fn run(config: &Config) -> anyhow::Result<()> {
    until_signal(config, async |stop| serve(config, stop).await)
}

/// Takes the blocks of files, then runs the server until SIGINT or SIGTERM, unless it was told to end.
pub fn import(config: &Config, what: &Import) -> anyhow::Result<()> {
    until_signal(config, async |stop| {
        let clock = clock::Clock::start();
        let verified = Arc::default();
        let chain = open(config, Arc::clone(&verified))?;
        let memory_bytes = Budget::of(config.memory_mb).block_bytes;
        let min_chain_work = chain.params().min_chain_work;
        let import = import::Importer::new(clock, memory_bytes, min_chain_work, stop.clone());
        match import.run(what, chain).await? {
            Some(chain) if !what.stop_after && !stop.is_cancelled() => {
                serve_chain(config, clock, chain, verified, stop).await
            }
            Some(_) | None => {
                info!("stopped");
                Ok(())
            }
        }
    })
}

fn until_signal(
    config: &Config,
    run: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    log::start(config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let stop = CancellationToken::new();
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let on_signal = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("stopping");
            on_signal.cancel();
        });
        run(stop).await
    });
    log::clear_bar();
    // Tasks that still wait for a name server or a peer are not waited for.
    runtime.shutdown_background();
    result
}

/// Runs the server until `stop`.
pub async fn serve(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    let clock = clock::Clock::start();
    let verified = Arc::default();
    let chain = open(config, Arc::clone(&verified))?;
    serve_chain(config, clock, chain, verified, stop).await
}

fn open(config: &Config, verified: Arc<Verified>) -> anyhow::Result<Chain> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        network = chainstore::network_name(config.network),
        data_dir = %config.data_dir.display(),
        "peerdex"
    );
    say_what_is_verified(config)?;
    care::ensure_space(config, None)?;
    let budget = Budget::of(config.memory_mb);
    let options = if config.miniature { Budget::miniature } else { Budget::store };
    let store = Store::open(&config.data_dir, options(&budget, config.network))?;
    care::ensure_space(config, Some(&store))?;
    let params = Arc::new(config.params());
    Ok(Chain::new(store, params, Box::new(ScriptThreads::new(verified)))?)
}

/// What is known of scripts, said once.
fn say_what_is_verified(config: &Config) -> anyhow::Result<()> {
    if !crate::scripts::is_available() {
        anyhow::ensure!(
            config.unverified_scripts,
            "this program was built without the verifier of scripts (the feature `kernel`): it would follow a chain \
             in which coins are stolen. Give --unverified-scripts to start it all the same, with peers that you trust"
        );
        tracing::warn!("scripts are not verified: this program was built without the feature kernel");
        return Ok(());
    }
    match config.params().assume_valid {
        Some(hash) => info!(%hash, "scripts are verified above the block that is assumed valid"),
        None => info!("scripts of all blocks are verified"),
    }
    Ok(())
}

async fn serve_chain(
    config: &Config,
    clock: clock::Clock,
    chain: Chain,
    verified: Arc<Verified>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let params = Arc::new(chain.params().clone());
    let budget = Budget::of(config.memory_mb);
    let min_chain_work = params.min_chain_work;
    let mut node = Node::restore(
        clock.now(),
        &chain,
        min_chain_work,
        budget.block_bytes,
        &config.policy,
        fastrand::u64(..),
    )?;
    info!(height = node.progress().height.0, headers = node.progress().target.0, "store opened");

    let doors = wallets::open(&config.services, &config.wallets, &config.data_dir)?;
    let office = rpc::bind(&config.services.listen)?;
    let view = View::new(chain.snapshot(), SyncState::Syncing { percent: 0, left: None })?;
    let Policy { min_relay, incremental, .. } = config.policy;
    let fees = FeeBoard::new(min_relay, min_relay, incremental);
    let view = view.with_mempool(MempoolView::default(), Arc::new(fees));
    let mut server = Server::new(config.network, params.genesis_hash(), env!("CARGO_PKG_VERSION"));
    if !crate::scripts::is_available() {
        server.banner.push_str("\nThis server does not verify scripts.");
    }
    server.hosts = config.services.reported_hosts();
    let turns = wallets::Turns::start(&stop).context("cannot start threads")?;
    let hub = Arc::new(wallets::Hub::with_turns(Arc::new(view), turns.clone()));
    let (submission_sender, submissions) = mpsc::channel(SUBMISSIONS);
    let shared = doors.serve(clock, server, (hub.clone(), turns), submission_sender, stop.clone());
    let relayed = Arc::default();
    office.serve(config.network, &shared, &relayed);
    drop(shared);

    let (peer_events, peers) = mpsc::channel(PEER_EVENTS);
    let dialer = dialer::Dialer::new(config.proxy.clone()).context("no random numbers")?;
    let private = config.private_broadcast.then(|| private::PrivateConnections {
        clock,
        magic: params.magic,
        dialer: dialer.clone(),
        events: peer_events.clone(),
        stop: stop.clone(),
    });
    let height = Arc::new(AtomicI32::new(0));
    let connections = connection::Connections {
        clock,
        magic: params.magic,
        dialer: dialer.clone(),
        next_peer: Arc::new(AtomicU64::new(0)),
        height: height.clone(),
        events: peer_events,
        stop: stop.clone(),
    };
    for target in &config.connect {
        tokio::spawn(connections.clone().keep(target.clone()));
    }
    drop(connections);

    let (thread_events, threads) = mpsc::unbounded_channel();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let keeper = Keeper::with_fees(
        clock.now(),
        config.policy.clone(),
        chain.snapshot(),
        crate::scripts::is_available(),
        dump::read_fees(&config.data_dir, clock.now()),
    );
    let (orders, order_queue) = std_mpsc::channel();
    let checks = threads::start_checkers(cores, &params, Some((&orders, &verified)), &thread_events)
        .context("cannot start threads")?;
    let keeper = keeper::start(
        clock,
        keeper,
        config.data_dir.clone(),
        order_queue,
        checks.clone(),
        thread_events.clone(),
    )
    .context("cannot start threads")?;
    let before = dump::read_mempool(&config.data_dir, clock.now(), config.policy.expiry);
    let _ = orders.send(keeper::Order::Do(Command::Restore(before)));
    let (kept, kept_before) = broadcasts::start(&config.data_dir, thread_events.clone())?;
    if config.connect.iter().any(|target| dialer.is_proxied(target)) {
        node.be_patient();
    }
    if private.is_some() {
        node.enable_private(clock.now());
        node.restore_addresses(clock.now(), &dump::read_addresses(&config.data_dir));
    }
    for broadcasts::Kept { wtxid, transactions, state } in kept_before {
        node.note_kept(wtxid, state);
        let transactions = transactions.into_iter().map(Arc::new).collect();
        let _ = orders.send(keeper::Order::Do(Command::RestoreBroadcast(wtxid, transactions)));
    }
    let (commands, command_queue) = std_mpsc::channel();
    let writer =
        writer::start(chain, command_queue, thread_events, OnFull::Wait).context("cannot start threads")?;

    let runtime = runtime::Runtime {
        clock,
        node,
        operator: operator::Operator::new(),
        peers,
        threads,
        submissions,
        checks,
        chain: commands,
        keeper: orders.clone(),
        kept,
        hub,
        height,
        stop: stop.clone(),
        links: runtime::Links::default(),
        private,
        data_dir: config.data_dir.clone(),
        next_addresses: clock.now().instant,
        trust: config.trust.clone(),
        relayed,
    };
    let result = runtime.run().await;
    stop.cancel();
    let _ = orders.send(keeper::Order::Stop);
    let data_dir = config.data_dir.clone();
    let dumped = tokio::task::spawn_blocking(move || {
        if let Ok(keeper) = keeper.join() {
            keeper::dump(&keeper, clock.now(), &data_dir, |write| write());
        }
    });
    // The loop has dropped its end of the writer's commands: it commits what it has and ends.
    let ended = tokio::task::spawn_blocking(move || writer.join().is_ok_and(|chain| chain.is_some()));
    match tokio::time::timeout(STOP_WITHIN, ended).await {
        Ok(Ok(true)) => info!("stopped"),
        Ok(_) => error!("the writer of the chain failed"),
        // Whatever it is doing survives being cut off.
        Err(_) => info!("stopped before the last blocks were stored; they will be fetched again"),
    }
    drop(dumped.await);
    result
}
