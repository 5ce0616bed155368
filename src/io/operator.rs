//! What the operator sees: notices of the node as log lines, and the progress of the sync.
//!
//! While syncing: a bar once a second on a terminal, a line every 30 s elsewhere. Synced and idle: nothing.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use chainstore::Height;
use tracing::{debug, error, info, warn};

use super::log::{clear_bar, draw_bar};
use crate::config::HostPort;
use crate::import;
use crate::node::{Notice, Progress};
use crate::peer::{CloseReason, PeerId};
use crate::relay::PrivateState;

/// Between two progress lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Cells of the bar itself.
const BAR_WIDTH: usize = 30;

/// Writes what happens.
#[derive(Debug)]
pub struct Operator {
    terminal: bool,
    last_line: Option<Instant>,
    /// Peers by the address that the operator gave.
    peers: BTreeMap<PeerId, HostPort>,
}

impl Operator {
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), last_line: None, peers: BTreeMap::new() }
    }

    pub fn met(&mut self, peer: PeerId, target: HostPort) {
        self.peers.insert(peer, target);
    }

    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::TipChanged(tip) => info!(height = tip.height.0, hash = %tip.hash, "tip changed"),
            Notice::Reorg { from, to } => warn!(
                from_height = from.height.0, from = %from.hash, to_height = to.height.0, to = %to.hash, "reorg"
            ),
            Notice::Synced(tip) => {
                clear_bar();
                info!(height = tip.height.0, hash = %tip.hash, "synced, wallets are served");
            }
            Notice::PeerReady(peer, info) => info!(
                peer = %self.name(*peer), agent = info.user_agent, height = info.start_height, "peer connected"
            ),
            Notice::PeerGone(_, CloseReason::Shutdown) => {}
            Notice::PeerGone(peer, reason) => {
                warn!(peer = %self.name(*peer), %reason, "peer lost, will try again");
                self.peers.remove(peer);
            }
            Notice::NoSource { missing } => warn!(
                height = missing.0,
                "no peer has block {missing}: connect one that keeps the whole chain with --connect; \
                 still looking"
            ),
            Notice::InvalidBlock { hash, reason } => {
                warn!(%hash, reason, "invalid block, its chain is not followed")
            }
            Notice::Damaged { block, what } => warn!(
                height = block.height.0, hash = %block.hash, damage = what,
                "a stored block is damaged: asking peers for it again"
            ),
            Notice::Repaired(block) => info!(
                height = block.height.0, hash = %block.hash, "the damaged block was fetched again and stored anew"
            ),
            Notice::OldTip { tip, age } => warn!(
                height = tip.height.0,
                age_hours = age.as_secs() / 3600,
                "the newest block is old: are the peers cut off, or is this clock wrong?"
            ),
            Notice::Private(PrivateState::Ready) => {
                info!("private connections can be made for wallets' transactions")
            }
            Notice::Private(_) => info!(
                "no addresses are known to which private connections can be made: until peers tell some, wallets' \
                 transactions are shown to connected peers"
            ),
            Notice::Unseen(report) => warn!(
                txid = %report.txid, sent = report.sent, asked = report.asked,
                "no peer shows this transaction of a wallet; it is sent again from time to time"
            ),
            Notice::Rebuilt(block) => debug!(
                hash = %block.hash, prefilled = block.prefilled, had = block.had, asked = block.asked,
                bytes = block.bytes, received = block.received_bytes, "block put together from what was here"
            ),
            Notice::StoreFailed(failure) => error!(failure, "the store could not be read"),
            Notice::Peer(peer, what) => warn!(peer = %self.name(*peer), "{what}"),
        }
    }

    /// Called about once a second.
    pub fn progress(&mut self, progress: &Progress) {
        // Before the first peer has spoken there is nothing to show.
        if progress.synced || progress.peers == 0 {
            clear_bar();
            return;
        }
        if self.terminal {
            draw_bar(&bar(progress));
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            info!(
                height = progress.height.0,
                of = progress.target.0,
                percent = progress.percent(),
                mb_per_s = %format_args!("{:.1}", progress.bytes_per_second / 1e6),
                blocks_per_s = %format_args!("{:.0}", progress.blocks_per_second),
                peers = progress.peers,
                eta = %eta(progress.eta),
                "syncing"
            );
        }
    }

    /// The same while files are read; `what` is a word, `height` and what it is `of` are of blocks.
    pub fn importing(
        &mut self,
        what: &'static str,
        heights: Option<(Height, Height)>,
        progress: &import::Progress,
    ) {
        let import::Progress { bytes_per_second, eta: left, .. } = *progress;
        if self.terminal {
            let heights = heights.map_or_else(String::new, |(at, of)| format!("  {at} of {of}"));
            let (percent, speed) = (progress.percent(), bytes_per_second / 1e6);
            let left = eta(left);
            draw_bar(&format!(
                "{} {percent:3} %  {what}{heights}  {speed:.1} MB/s  {left} left",
                cells(percent)
            ));
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            info!(
                height = heights.map(|(at, _)| at.0),
                of = heights.map(|(_, of)| of.0),
                percent = progress.percent(),
                mb_per_s = %format_args!("{:.1}", bytes_per_second / 1e6),
                eta = %eta(left),
                "{what}"
            );
        }
    }

    fn name(&self, peer: PeerId) -> String {
        self.peers.get(&peer).map_or_else(|| format!("#{peer}"), ToString::to_string)
    }
}

fn bar(progress: &Progress) -> String {
    let percent = progress.percent();
    format!(
        "{} {percent:3} %  {} of {}  {:.1} MB/s  {:.0} blocks/s  {} peers  {} left",
        cells(percent),
        progress.height,
        progress.target,
        progress.bytes_per_second / 1e6,
        progress.blocks_per_second,
        progress.peers,
        eta(progress.eta),
    )
}

fn cells(percent: u8) -> String {
    let full = BAR_WIDTH * usize::from(percent) / 100;
    format!("[{}{}]", "=".repeat(full), " ".repeat(BAR_WIDTH - full))
}

fn eta(eta: Option<Duration>) -> String {
    let Some(eta) = eta else { return "?".into() };
    let seconds = eta.as_secs();
    match (seconds / 86400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, _) => format!("{hours} h {} min", seconds / 60 % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_all_that_the_operator_asks() {
        let progress = Progress {
            height: Height(2500),
            target: Height(10_000),
            peers: 3,
            blocks_per_second: 12.4,
            bytes_per_second: 2_340_000.0,
            eta: Some(Duration::from_secs(3700)),
            synced: false,
        };
        assert_eq!(
            bar(&progress),
            "[=======                       ]  25 %  2500 of 10000  2.3 MB/s  12 blocks/s  3 peers  1 h 1 min left"
        );
    }

    #[test]
    fn what_is_left_is_said_in_two_units_at_most() {
        let said = [None, Some(5), Some(130), Some(7260), Some(200_000)];
        let said = said.map(|seconds| eta(seconds.map(Duration::from_secs)));
        assert_eq!(said, ["?", "5 s", "2 min", "2 h 1 min", "2 d 7 h"]);
    }
}
