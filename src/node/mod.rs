//! TIES the machines of the earlier stages together: who sent what goes to the machine that understands it,
//! and what one machine puts out goes to the next one or to the shell.
//!
//! In: peers that come and go, their messages, blocks that were checked, what became of the chain, the time.
//! Out: messages to peers, blocks to check, commands for the chain's writer, news for wallets and operator.
//! It decides nothing about headers or blocks itself; `chain` is the writer, `progress` the forecast,
//! `compact` ties blocks to the mempool, `gossip` relay and mempool to the rest, `keeper` is the mempool's writer.

pub mod chain;
mod compact;
mod gossip;
pub mod keeper;
mod private;
mod progress;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Work};
use chainstore::{Damaged, Snapshot, Tip};

use chain::{Chain, Command, Event, Restored, Scripts};
pub use compact::Fill;
use compact::Spare;
use keeper::MempoolNews;
use private::PrivateTies;
use progress::Meter;
pub use progress::Progress;
pub use types::{Input, Notice, Output, Publication, SubmissionId};

use crate::blocks::{self, BlockSync};
use crate::headers::{self, HeaderSync};
use crate::mempool::{BlockFees, FeeRate, Outcome, Policy};
use crate::peer::{Message, PeerId, PeerInfo};
use crate::query::{SyncState, Touched, View};
use crate::relay::{Relay, Role};
use crate::time::{Instant, Now};
use crate::validate::BlockContext;

/// How often wallets that wait are told how far the sync is, and the operator's figures move.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often it is said again that nobody has the block we need.
const NO_SOURCE_EVERY: Duration = Duration::from_secs(60);
/// Peers need a moment to say what they have before it is said at all.
const NO_SOURCE_AFTER: Duration = Duration::from_secs(5);
/// A tip older than this is worth a warning: no such gap between blocks is expected in years.
const OLD_TIP_SECS: u64 = 24 * 60 * 60;

/// All machines of one server, tied together.
#[derive(Debug)]
pub struct Node {
    headers: HeaderSync,
    blocks: BlockSync,
    relay: Relay,
    trusted: BTreeSet<PeerId>,
    private: PrivateTies,
    /// What each peer takes at least.
    fee_filters: BTreeMap<PeerId, FeeRate>,
    /// What wallets are told once peers have what they handed in.
    submitted: BTreeMap<SubmissionId, Outcome>,
    /// What the mempool's keeper said last.
    mempool: Option<MempoolNews>,
    /// What else may be in a block.
    spare: Spare,
    peers: BTreeMap<PeerId, PeerInfo>,
    /// What is durable and seen by wallets.
    snapshot: Arc<Snapshot>,
    /// What changed and could not be published yet.
    unpublished: Touched,
    /// Where the chain's writer stands, committed or not.
    staged: Tip,
    /// Once true it stays true: from the first sync on every answer speaks of the connected tip.
    synced: bool,
    /// Whether the writer knows that the header chain is complete.
    told_complete: bool,
    meter: Meter,
    next_progress: Instant,
    next_no_source: Instant,
    warned_of: Option<BlockHash>,
    outputs: VecDeque<Output>,
}

impl Node {
    /// Begins where the chain's writer stands, with the headers that it has.
    ///
    /// `memory_bytes` bounds what waits to be checked or connected; `seed` decides the order among equal peers.
    pub fn restore(
        now: Now,
        chain: &Chain,
        min_chain_work: Work,
        memory_bytes: usize,
        policy: &Policy,
        seed: u64,
    ) -> Result<Self, chainstore::Error> {
        let tree = chain.header_tree()?;
        let snapshot = chain.snapshot();
        // The block that a failing machine tears is the last: if it was, that is known from now on.
        let _ = snapshot.raw_block(tip_of(&snapshot).height);
        // A bulk sync is ahead of what readers see.
        let tip = chain.store().tip().unwrap_or_else(|| tip_of(&snapshot));
        let mut node = Self {
            headers: HeaderSync::new(tree, min_chain_work, seed),
            blocks: BlockSync::new(memory_bytes, tip, chain.store().stored_blocks()),
            relay: Relay::new(seed, policy),
            trusted: BTreeSet::new(),
            private: PrivateTies::new(seed.rotate_left(32)),
            fee_filters: BTreeMap::new(),
            submitted: BTreeMap::new(),
            mempool: None,
            spare: Spare::default(),
            peers: BTreeMap::new(),
            staged: tip,
            snapshot,
            unpublished: Touched::default(),
            synced: false,
            told_complete: false,
            meter: Meter::default(),
            next_progress: now.instant,
            next_no_source: now.instant + NO_SOURCE_AFTER,
            warned_of: None,
            outputs: VecDeque::new(),
        };
        node.blocks.handle_best_changed(now, node.headers.tree());
        node.route(now);
        Ok(node)
    }

    /// Something happened; call `poll` until `None` afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::PeerReady(peer, info, role) => {
                self.headers.handle_peer_ready(now, peer, &info);
                self.blocks.handle_peer_ready(peer, &info);
                self.relay.handle_peer_ready(now, peer, &info, role);
                if matches!(role, Role::Trusted { .. }) {
                    self.trusted.insert(peer);
                }
                self.peers.insert(peer, info.clone());
                self.notice(Notice::PeerReady(peer, info));
            }
            Input::PeerGone(peer, reason) => {
                if self.peers.remove(&peer).is_some() {
                    self.headers.handle_peer_gone(now, peer);
                    self.blocks.handle_peer_gone(now, peer, self.headers.tree());
                    self.relay.handle_peer_gone(now, peer);
                    self.trusted.remove(&peer);
                    self.teller_gone(peer);
                    self.fee_filters.remove(&peer);
                    self.notice(Notice::PeerGone(peer, reason));
                }
            }
            Input::PeerMessage(peer, message) => self.message(now, peer, message),
            Input::Checked { hash, result } => {
                self.blocks.handle_checked(now, hash, result, self.headers.tree());
            }
            Input::Filled { peer, hash, result } => {
                self.blocks.handle_filled(now, peer, hash, result, self.headers.tree());
            }
            Input::Chain(Event::Chain(event)) => {
                match &event {
                    blocks::ChainEvent::Connected(tip) | blocks::ChainEvent::Switched(tip) => {
                        self.staged = *tip
                    }
                    blocks::ChainEvent::Failed { tip, .. } => self.staged = *tip,
                    blocks::ChainEvent::Blocked { damaged, what, tip } => {
                        self.staged = *tip;
                        self.notice(Notice::Damaged { block: *damaged, what: what.clone() });
                    }
                    blocks::ChainEvent::Repaired { block, moved: true } => {
                        self.notice(Notice::Repaired(*block));
                    }
                    blocks::ChainEvent::Repaired { moved: false, .. } | blocks::ChainEvent::Stored(_) => {}
                }
                self.blocks.handle_chain_event(now, event, self.headers.tree());
                self.route(now);
                if self.commit_now() {
                    self.outputs.push_back(Output::Chain(Command::Commit));
                }
            }
            Input::Chain(Event::Committed(commit, fees)) => self.committed(commit, fees),
            Input::Chain(Event::Restored(restored)) => self.restored(now, restored),
            Input::Mempool(event) => self.mempool_event(now, event),
            Input::PeerFrom(peer, source, is_onion) => self.peer_from(now, peer, source, is_onion),
            Input::Private(connection, event) => self.private_event(now, connection, event),
            Input::BroadcastKept(wtxid) => self.relay.handle_kept(now, wtxid),
            Input::Submit { id, what } => self.submit(id, what),
        }
        self.route(now);
    }

    /// A timer of `next_timeout` is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.headers.handle_timeout(now);
        self.blocks.handle_timeout(now, self.headers.tree());
        self.relay.handle_timeout(now);
        if self.next_progress <= now.instant {
            self.next_progress = now.instant + PROGRESS_EVERY;
            self.meter.sample(now, self.staged.height);
            if !self.synced {
                self.publish();
            }
            self.look_for_damage(now);
            self.refresh_private(now);
            self.watch(now);
        }
        self.route(now);
    }

    /// When `handle_timeout` is next due.
    pub fn next_timeout(&self) -> Instant {
        [self.headers.next_timeout(), self.blocks.next_timeout(), self.relay.next_timeout()]
            .into_iter()
            .flatten()
            .fold(self.next_progress, std::cmp::min)
    }

    /// What is to be done outside; call until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn progress(&self) -> Progress {
        self.meter.progress(
            self.staged.height,
            self.headers.tree().best().height,
            self.peers.len(),
            self.synced,
        )
    }

    fn message(&mut self, now: Now, peer: PeerId, message: Message) {
        // A message may still be on its way here when its sender was dropped.
        if !self.peers.contains_key(&peer) {
            return;
        }
        match message {
            Message::Headers(headers) => self.headers.handle_headers(now, peer, headers),
            Message::Inv(inventory) => {
                self.headers.handle_inv(now, peer, &inventory);
                self.relay.handle_inv(now, peer, &inventory);
            }
            Message::Tx(raw) => self.relay.handle_tx(now, peer, &raw),
            Message::Block(block) => {
                self.meter.received(block.bytes.len());
                self.blocks.handle_block(now, peer, block, self.headers.tree());
            }
            Message::SendCmpct { .. } => self.blocks.handle_send_compact(peer),
            Message::CompactBlock(block) => self.compact_block(now, peer, block),
            Message::BlockTxn { block, transactions } => {
                self.blocks.handle_block_transactions(now, peer, block, &transactions, self.headers.tree());
            }
            Message::NotFound(inventory) => {
                for hash in inventory.iter().filter_map(crate::peer::Inventory::block) {
                    self.blocks.handle_not_found(now, peer, hash, self.headers.tree());
                }
                self.relay.handle_not_found(now, peer, &inventory);
            }
            Message::FeeFilter(sat_per_kvb) => self.fee_filter(peer, FeeRate(sat_per_kvb)),
            Message::GetData(wanted) => self.relay.handle_get_data(now, peer, &wanted),
            Message::Pong(nonce) => self.relay.handle_pong(now, peer, nonce),
            Message::Addresses(entries) => self.addresses_told(now, peer, entries),
            // What the session has dealt with.
            Message::Version(_)
            | Message::Verack
            | Message::WtxidRelay
            | Message::SendAddrV2
            | Message::SendHeaders
            | Message::Ping(_)
            | Message::GetHeaders { .. }
            | Message::GetBlockTxn { .. }
            | Message::GetAddr
            | Message::Mempool
            | Message::Unknown(_) => {}
        }
    }

    /// Moves what the machines put out to where it belongs, until all are quiet.
    fn route(&mut self, now: Now) {
        loop {
            if let Some(output) = self.headers.poll() {
                self.take_from_headers(now, output);
            } else if let Some(output) = self.blocks.poll() {
                self.take_from_blocks(now, output);
            } else if let Some(output) = self.relay.poll() {
                self.take_from_relay(now, output);
            } else {
                break;
            }
        }
        if !self.told_complete && !self.peers.is_empty() && self.headers.is_caught_up() {
            self.told_complete = true;
            self.outputs.push_back(Output::Chain(Command::HeadersComplete));
        }
        self.maybe_synced(now);
    }

    fn take_from_headers(&mut self, now: Now, output: headers::Output) {
        let tree = self.headers.tree();
        match output {
            headers::Output::GetHeaders { peer, locator } => {
                let message = Message::GetHeaders { locator, stop: BlockHash::all_zeros() };
                self.outputs.push_back(Output::Send(peer, message));
            }
            headers::Output::SendHeaders { peer } => {
                self.outputs.push_back(Output::Send(peer, Message::SendHeaders));
            }
            headers::Output::Persist(headers) => {
                self.outputs.push_back(Output::Chain(Command::PutHeaders(headers)));
            }
            headers::Output::BestChanged(_) => self.blocks.handle_best_changed(now, tree),
            headers::Output::PeerTip { peer } => {
                if let Some(tip) = self.headers.peer_tip(peer) {
                    self.blocks.handle_peer_tip(now, peer, tip, tree);
                }
                self.note_whether_behind(peer);
            }
            headers::Output::Drop { peer, why } => self.outputs.push_back(Output::Drop(peer, why)),
            headers::Output::Warn { peer, what } => self.notice(Notice::Peer(peer, what.to_string())),
        }
    }

    fn take_from_blocks(&mut self, now: Now, output: blocks::Output) {
        match output {
            blocks::Output::GetData { peer, blocks } => {
                let inventory = blocks.into_iter().map(crate::peer::Inventory::witness_block).collect();
                self.outputs.push_back(Output::Send(peer, Message::GetData(inventory)));
            }
            blocks::Output::GetCompact { peer, block } => {
                let inventory = vec![crate::peer::Inventory::compact_block(block)];
                self.outputs.push_back(Output::Send(peer, Message::GetData(inventory)));
            }
            blocks::Output::Fill { peer, block } => self.fill(peer, block),
            blocks::Output::GetTransactions { peer, block, positions } => {
                self.outputs.push_back(Output::Send(peer, Message::GetBlockTxn { block, positions }));
            }
            blocks::Output::Rebuilt(rebuilt) => self.notice(Notice::Rebuilt(rebuilt)),
            blocks::Output::Check { hash, height, block } => {
                let tree = self.headers.tree();
                let parent = tree.info(hash).map(|info| info.prev);
                let parent_mtp = parent.and_then(|parent| tree.median_time_past(parent)).unwrap_or(0);
                let context = BlockContext { height, parent_mtp };
                self.outputs.push_back(Output::Check { hash, block, context });
            }
            blocks::Output::Connect(block) => {
                let scripts = Scripts::of(self.headers.tree(), block.hash());
                if self.synced {
                    let (raw, txids) = (block.raw().clone(), block.txids().copied().collect());
                    let at = Tip { height: block.height(), hash: block.hash() };
                    self.keep(keeper::Command::Coming { at, raw, txids });
                }
                self.outputs.push_back(Output::Chain(Command::Connect(block, scripts)));
            }
            blocks::Output::Store(block) => self.outputs.push_back(Output::Chain(Command::Store(block))),
            blocks::Output::Repair(block) => self.outputs.push_back(Output::Chain(Command::Repair(block))),
            blocks::Output::Switch { fork, connect } => {
                let tree = self.headers.tree();
                let connect = connect.into_iter().map(|hash| (hash, Scripts::of(tree, hash))).collect();
                self.outputs.push_back(Output::Chain(Command::Switch { fork, connect }));
            }
            blocks::Output::MarkInvalid { hash, reason } => {
                self.headers.mark_invalid(now, hash);
                self.outputs.push_back(Output::Chain(Command::MarkInvalid(hash)));
                self.notice(Notice::InvalidBlock { hash, reason });
                self.blocks.handle_best_changed(now, self.headers.tree());
            }
            blocks::Output::Damaged { peer, hash } => {
                let what = format!("block {hash} was damaged on its way here, asked again");
                self.notice(Notice::Peer(peer, what));
            }
            blocks::Output::Drop { peer, why } => self.outputs.push_back(Output::Drop(peer, why)),
        }
    }

    /// What the writer had of ours is lost: it goes on from where it stands, once it knows that we know.
    fn restored(&mut self, now: Now, restored: Restored) {
        self.staged = restored.tip;
        // The store opened anew does not know either.
        self.told_complete = false;
        self.outputs.push_back(Output::Chain(Command::Resume));
        self.blocks.handle_restored(now, restored.tip, restored.stored, self.headers.tree());
    }

    fn committed(&mut self, commit: chainstore::Commit, fees: Vec<BlockFees>) {
        let (from, to) = (tip_of(&self.snapshot), tip_of(&commit.snapshot));
        let kept = commit.snapshot.header(from.height).ok().flatten();
        let extends = from.height <= to.height && kept.is_some_and(|header| header.block_hash() == from.hash);
        self.snapshot = commit.snapshot.clone();
        if self.synced && from != to {
            self.notice(if extends { Notice::TipChanged(to) } else { Notice::Reorg { from, to } });
        }
        self.unpublished.merge(&commit.into());
        // Wallets see it with the mempool that stands on it.
        self.keep(keeper::Command::Chain(self.snapshot.clone(), fees));
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.note_whether_behind(peer));
    }

    /// Whether wallets should see what is connected, and a power cut not cost it: nothing more is coming at once.
    fn commit_now(&self) -> bool {
        let is_news = self.staged.hash != tip_of(&self.snapshot).hash;
        let is_best = self.staged.hash == self.headers.tree().best().hash;
        is_news && (is_best || self.blocks.is_idle() || (self.synced && self.blocks.is_drained()))
    }

    /// Synced: every peer told us all headers it has, and no peer follows more work than what is durable.
    ///
    /// A header chain that no connected peer follows any more does not keep wallets waiting: its blocks may never
    /// be had.
    fn maybe_synced(&mut self, now: Now) {
        if self.synced || self.peers.is_empty() || !self.headers.is_caught_up() {
            return;
        }
        let tip = tip_of(&self.snapshot);
        let Some(work) = self.headers.tree().info(tip.hash).map(|info| info.work) else { return };
        let mut tips = self.peers.keys().filter_map(|peer| self.headers.peer_tip(*peer));
        if self.staged == tip && tips.all(|peer_tip| peer_tip.work <= work) {
            self.synced = true;
            self.notice(Notice::Synced(tip));
            self.relay.set_synced(now, true);
            self.keep(keeper::Command::Start);
            self.note_warmth();
            self.publish();
        }
    }

    /// Shows wallets the chain with the mempool on it; nothing, while the mempool stands on another tip.
    fn publish(&mut self) {
        if self.mempool.as_ref().is_none_or(|news| news.tip != tip_of(&self.snapshot)) {
            return;
        }
        let progress = self.progress();
        let sync = if self.synced {
            SyncState::Synced
        } else {
            SyncState::Syncing { percent: progress.percent().min(99), left: progress.eta }
        };
        let Some(news) = &self.mempool else { return };
        match View::new(self.snapshot.clone(), sync) {
            Ok(view) => {
                let view = Arc::new(view.with_mempool(news.mempool.clone(), news.fees.clone()));
                let touched = Arc::new(std::mem::take(&mut self.unpublished));
                self.outputs.push_back(Output::Publish(Publication { view, touched }));
            }
            // A deep reorg came meanwhile: what this one touched is told with that.
            Err(error) if error.is_outdated() => {}
            Err(error) => self.notice(Notice::StoreFailed(error.to_string())),
        }
    }

    /// Blocks that wallets met and that cannot be read are fetched again.
    fn look_for_damage(&mut self, now: Now) {
        for Damaged { block, what } in self.snapshot.damaged_blocks() {
            if self.blocks.handle_damaged(now, block, self.headers.tree()) {
                self.notice(Notice::Damaged { block, what });
            }
        }
    }

    /// What the operator should be told although nothing happened.
    fn watch(&mut self, now: Now) {
        let tree = self.headers.tree();
        let missing = self.blocks.missing_source(tree).or_else(|| self.blocks.unrepairable(tree));
        if let Some(missing) = missing
            && !self.peers.is_empty()
            && self.next_no_source <= now.instant
        {
            self.next_no_source = now.instant + NO_SOURCE_EVERY;
            self.notice(Notice::NoSource { missing });
        }
        let tip = tip_of(&self.snapshot);
        let age = now
            .unix
            .saturating_sub(u64::from(self.headers.tree().info(tip.hash).map_or(0, |info| info.time)));
        if self.synced && age > OLD_TIP_SECS && self.warned_of != Some(tip.hash) {
            self.warned_of = Some(tip.hash);
            self.notice(Notice::OldTip { tip, age: Duration::from_secs(age) });
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }
}

fn tip_of(snapshot: &Snapshot) -> Tip {
    snapshot.tip().expect("Chain::new connected the genesis block")
}
