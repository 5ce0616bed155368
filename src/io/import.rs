//! The import from end to end: finds the files, scans them, and feeds the pure session with a reader, the checkers and
//! the chain's writer.
//!
//! It gives the chain back as it found it or longer, for the server to go on with. Whatever moment it is cut off at,
//! the store is whole, and the next import reads the headers again and goes on above the last durable block.

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bitcoin::{Network, Work};
use bytes::Bytes;
use chainstore::Height;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::Clock;
use super::import_files::{self, BlockFile, Reader};
use super::operator::Operator;
use super::threads::{self, CheckJob, ThreadEvent};
use super::writer::{self, OnFull};
use crate::config::Import;
use crate::headers::HeaderTree;
use crate::import::{Collector, MAX_RECORDS, Meter, Ordered, Output, Place, Report, Session, Tally, Ticket};
use crate::node::Input;
use crate::node::chain::{Chain, Command, Event};

/// Headers that are handed to the writer, and made durable, at once.
const HEADERS_AT_ONCE: usize = 20_000;
/// Between two looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes scanned between two looks.
const LOOK_AFTER_BYTES: u64 = 16 * 1024 * 1024;
/// Where the newest header is younger, nearly all of the chain is there: the index is written at the end of the
/// import, and not only when peers have given the rest.
const RECENT_SECS: u64 = 24 * 60 * 60;

/// What an import needs beside its files.
#[derive(Debug)]
pub struct Importer {
    clock: Clock,
    memory_bytes: usize,
    min_chain_work: Work,
    stop: CancellationToken,
    operator: Operator,
}

/// What scanning found.
#[derive(Debug)]
struct Scanned {
    operator: Operator,
    collector: Collector,
}

/// A block to read.
type ReadJob = (Ticket, Place);
/// A block that was read, or why not.
type Read = (Ticket, Place, Result<Bytes, String>);

impl Importer {
    /// `memory_bytes` bounds the blocks in memory. A chain below `min_chain_work` is imported, with a warning.
    pub fn new(clock: Clock, memory_bytes: usize, min_chain_work: Work, stop: CancellationToken) -> Self {
        Self { clock, memory_bytes, min_chain_work, stop, operator: Operator::new() }
    }

    /// Imports, and gives the chain back; `None` when it was told to stop before the writer was done.
    pub async fn run(mut self, import: &Import, chain: Chain) -> anyhow::Result<Option<Chain>> {
        let network = chain.params().network;
        let files = Arc::new(import_files::find(&import.paths, network)?);
        let total_bytes: u64 = files.iter().map(|file| file.len_bytes).sum();
        let gigabytes = total_bytes as f64 / 1e9;
        info!(files = files.len(), gb = %format_args!("{gigabytes:.2}"), height = chain.tip()?.height.0, "importing");

        let Scanned { operator, collector } = self.scan(&files, total_bytes, &chain).await?;
        self.operator = operator;
        if self.stop.is_cancelled() {
            return Ok(Some(chain));
        }
        if collector.is_empty() {
            let network = chainstore::network_name(network);
            warn!(
                "no block of {network} in these files: are they another network's, or is their xor.dat missing?"
            );
            return Ok(Some(chain));
        }
        let mut tree = chain.header_tree()?;
        let now_unix = self.clock.now().unix;
        let (tree, ordered) = tokio::task::spawn_blocking(move || {
            let ordered = collector.order(&mut tree, now_unix);
            (tree, ordered)
        })
        .await
        .context("ordering the headers failed")?;
        self.say_what_was_found(&ordered, &tree);
        self.import(files, chain, tree, ordered).await
    }

    /// Reads all files once, as far as that takes.
    async fn scan(
        &mut self,
        files: &Arc<Vec<BlockFile>>,
        total_bytes: u64,
        chain: &Chain,
    ) -> anyhow::Result<Scanned> {
        let (files, params) = (files.clone(), Arc::new(chain.params().clone()));
        let (clock, stop) = (self.clock, self.stop.clone());
        let mut operator = std::mem::replace(&mut self.operator, Operator::new());
        let scan = move || {
            let mut collector = Collector::default();
            let mut meter = Meter::default();
            let (mut before, mut looked) = (0, 0);
            for (number, file) in (0..).zip(files.iter()) {
                let passed = |at: u64| {
                    if before + at >= looked + LOOK_AFTER_BYTES {
                        looked = before + at;
                        let progress = meter.look(clock.now().instant, looked, total_bytes);
                        operator.importing("reading headers", None, &progress);
                    }
                    !stop.is_cancelled()
                };
                let path = file.path.display();
                match import_files::scan(number, file, &params, &mut collector, passed) {
                    Ok(0) => {}
                    Ok(count) => warn!(file = %path, count, "blocks that end before they are whole"),
                    Err(error) => {
                        warn!(file = %path, %error, "cannot be read on, its other blocks are left out")
                    }
                }
                before += file.len_bytes;
                if stop.is_cancelled() {
                    break;
                }
            }
            Scanned { operator, collector }
        };
        let scanned = tokio::task::spawn_blocking(scan).await.context("scanning failed")?;
        super::log::clear_bar();
        if scanned.collector.overflow() > 0 {
            let left_out = scanned.collector.overflow();
            warn!(left_out, "more than {MAX_RECORDS} blocks: import again for the rest");
        }
        Ok(scanned)
    }

    fn say_what_was_found(&self, ordered: &Ordered, tree: &HeaderTree) {
        let Tally { records, known, new, refused, orphans, stale } = ordered.tally;
        let best = tree.best();
        info!(records, new, known, stale, orphans, refused, best = best.height.0, "headers read");
        if let Some(reason) = &ordered.first_refusal {
            warn!(reason, count = refused, "headers that are not accepted");
        }
        if orphans > 0 && new == 0 && known == 0 {
            warn!(
                orphans,
                "nothing leads from the genesis block to these blocks: are the first files missing, \
                 was the node pruned?"
            );
        }
        if best.work < self.min_chain_work {
            warn!(
                height = best.height.0,
                work = %format_args!("{:x}", best.work),
                minimum = %format_args!("{:x}", self.min_chain_work),
                "the chain of these files has less work than the minimum; it is imported, and wallets are \
                 served once peers have given the rest"
            );
        }
    }

    /// Feeds the chain's writer until nothing more can be had.
    async fn import(
        mut self,
        files: Arc<Vec<BlockFile>>,
        chain: Chain,
        tree: HeaderTree,
        ordered: Ordered,
    ) -> anyhow::Result<Option<Chain>> {
        let params = Arc::new(chain.params().clone());
        let (connected, stored) = (chain.tip()?, chain.store().stored_blocks());
        let (events, mut threads) = mpsc::unbounded_channel();
        let (commands, queue) = std_mpsc::channel();
        let writer =
            writer::start(chain, queue, events.clone(), OnFull::Fail).context("cannot start threads")?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let checks =
            threads::start_checkers(cores, &params, None, &events).context("cannot start threads")?;
        drop(events);
        let (places, mut reads) = start_reader(files.clone()).context("cannot start threads")?;

        keep_headers(&ordered, &tree, &commands, &mut threads).await?;
        let age = self.clock.now().unix.saturating_sub(u64::from(tree.best_time()));
        // Regtest's blocks are made by hand, and what their times say means nothing.
        if age < RECENT_SECS || params.network == Network::Regtest {
            let _ = commands.send(Command::HeadersComplete);
        }
        let mut session = Session::new(tree, ordered.into_catalog(), self.memory_bytes, connected, stored);
        let mut meter = Meter::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            while let Some(output) = session.poll() {
                match output {
                    // The threads live as long as these ends of their channels; one that failed has said so.
                    Output::Read { ticket, place } => drop(places.send((ticket, place))),
                    Output::Check { hash, block, context } => {
                        drop(checks.send(CheckJob::Block { hash, block, context }))
                    }
                    Output::Chain(command) => drop(commands.send(command)),
                    Output::Report(report) => report_block(&report, &files),
                }
            }
            if session.is_done() {
                break;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(event) = threads.recv() => match event {
                    ThreadEvent::Input(Input::Checked { hash, result }) => session.handle_checked(hash, result),
                    ThreadEvent::Input(Input::Chain(Event::Chain(event))) => session.handle_chain_event(event),
                    // Durable, or nothing of ours.
                    ThreadEvent::Input(_) => {}
                    ThreadEvent::Fatal(failure) => bail!("{failure}"),
                },
                Some((ticket, place, result)) = reads.recv() => session.handle_read(ticket, place, result),
                _ = look.tick() => {
                    let (done, total) = session.bytes();
                    let progress = meter.look(self.clock.now().instant, done, total);
                    let heights = (session.connected().height, session.target());
                    self.operator.importing("importing", Some(heights), &progress);
                }
            }
        }
        super::log::clear_bar();
        drop((commands, checks, places));
        let mut ended = tokio::task::spawn_blocking(move || writer.join());
        let late = async {
            self.stop.cancelled().await;
            tokio::time::sleep(super::STOP_WITHIN).await;
        };
        let chain = tokio::select! {
            ended = &mut ended => match ended {
                Ok(Ok(Some(chain))) => chain,
                Ok(Ok(None)) => bail!("{}", failure_in(&mut threads)),
                Ok(Err(_)) | Err(_) => bail!("the writer of the chain failed"),
            },
            // Whatever it is doing survives being cut off.
            () = late => {
                info!("stopped before the last blocks were stored; they will be imported again");
                return Ok(None);
            }
        };
        self.sum_up(&session, &chain)?;
        Ok(Some(chain))
    }

    fn sum_up(&self, session: &Session, chain: &Chain) -> anyhow::Result<()> {
        let tip = chain.tip()?;
        let (bytes, _) = session.bytes();
        let what = if self.stop.is_cancelled() { "import interrupted" } else { "import done" };
        info!(
            height = tip.height.0,
            hash = %tip.hash,
            imported = session.imported(),
            gb = %format_args!("{:.2}", bytes as f64 / 1e9),
            damaged = session.damaged(),
            invalid = session.invalid(),
            "{what}"
        );
        let missing = session.reach().next();
        if session.reach() < session.target() {
            warn!(height = missing.0, "the files lack block {missing}: it and those above come from peers");
        }
        if chain.is_bulk() {
            info!("the index is written when peers have given the rest of the chain");
        }
        Ok(())
    }
}

/// Lets the writer keep the headers of the best chain, in parts.
async fn keep_headers(
    ordered: &Ordered,
    tree: &HeaderTree,
    commands: &std_mpsc::Sender<Command>,
    threads: &mut mpsc::UnboundedReceiver<ThreadEvent>,
) -> anyhow::Result<()> {
    let mut from = ordered.fork.next();
    loop {
        let headers = ordered.headers(tree, from, HEADERS_AT_ONCE);
        let Some((last, _)) = headers.last() else { return Ok(()) };
        from = last.next();
        let _ = commands.send(Command::PutHeaders(headers));
        let _ = commands.send(Command::Commit);
        // No more of them in memory than one part.
        loop {
            match threads.recv().await {
                Some(ThreadEvent::Input(Input::Chain(Event::Committed(..)))) => break,
                Some(ThreadEvent::Input(_)) => {}
                Some(ThreadEvent::Fatal(failure)) => bail!("{failure}"),
                None => bail!("the writer of the chain failed"),
            }
        }
    }
}

/// A thread that reads blocks in the order in which they are asked for. It ends when the sender is dropped.
fn start_reader(
    files: Arc<Vec<BlockFile>>,
) -> std::io::Result<(std_mpsc::Sender<ReadJob>, mpsc::UnboundedReceiver<Read>)> {
    let (places, queue) = std_mpsc::channel::<ReadJob>();
    let (reads, results) = mpsc::unbounded_channel();
    std::thread::Builder::new().name("read".into()).spawn(move || {
        let mut reader = Reader::new(files);
        while let Ok((ticket, place)) = queue.recv() {
            if reads.send((ticket, place, reader.read(place))).is_err() {
                return;
            }
        }
    })?;
    Ok((places, results))
}

fn report_block(report: &Report, files: &[BlockFile]) {
    let Report { hash, height, place, invalid, reason } = report;
    let file =
        place.and_then(|place| files.get(place.file as usize)).map(|file| file.path.display().to_string());
    let offset = place.map(|place| place.offset);
    let height = height.map(|Height(height)| height);
    if *invalid {
        warn!(height, %hash, file, offset, reason, "invalid block, its chain is not followed");
    } else {
        warn!(height, %hash, file, offset, reason, "damaged block, it is not taken from there");
    }
}

/// What the writer said last.
fn failure_in(threads: &mut mpsc::UnboundedReceiver<ThreadEvent>) -> anyhow::Error {
    while let Ok(event) = threads.try_recv() {
        if let ThreadEvent::Fatal(failure) = event {
            return anyhow!("{failure}");
        }
    }
    anyhow!("the writer of the chain failed")
}
