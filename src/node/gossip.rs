//! The node's ties to relay and mempool: jobs and verdicts, blocks, wallets' transactions.

use super::keeper::{self, Event, MempoolNews};
use super::{Node, Notice, Output, SubmissionId, tip_of};
use crate::mempool::{FeeRate, Outcome, RejectKind, Submission};
use crate::peer::PeerId;
use crate::relay::{self, BroadcastId, BroadcastReport, Confirmed, KeptState};
use crate::time::Now;

/// From this on a peer's filter is no price of relay: it takes nothing, or its mempool is flooded.
const FEE_FILTER_OF_NOTHING: u64 = 1_000_000;

impl Node {
    pub(super) fn keep(&mut self, command: keeper::Command) {
        self.outputs.push_back(Output::Mempool(command));
    }

    /// What a wallet handed in goes to the mempool first, unless it could not be sent anyway.
    pub(super) fn submit(&mut self, id: SubmissionId, what: Submission) {
        let is_test = matches!(what, Submission::Test(_));
        if is_test || self.relay.can_broadcast() {
            self.keep(keeper::Command::Submit { id, what });
        } else {
            let outcome = Outcome::Unavailable(relay::BroadcastError::NoPeers.to_string());
            self.outputs.push_back(Output::Submitted { id, outcome });
        }
    }

    pub(super) fn take_from_relay(&mut self, now: Now, output: relay::Output) {
        match output {
            relay::Output::Send(peer, message) => self.outputs.push_back(Output::Send(peer, message)),
            relay::Output::Admit(job) => {
                let is_trusted = self.trusted.contains(&job.from);
                self.keep(keeper::Command::Admit(job, is_trusted));
            }
            relay::Output::Broadcast { id, result } => {
                let id = SubmissionId(id.0);
                if let Some(outcome) = self.submitted.remove(&id) {
                    let outcome = match result {
                        Ok(_) => outcome,
                        Err(error) => Outcome::Unavailable(error.to_string()),
                    };
                    self.outputs.push_back(Output::Submitted { id, outcome });
                }
            }
            relay::Output::Keep { wtxid, transactions } => {
                self.outputs.push_back(Output::KeepBroadcast { wtxid, transactions });
            }
            relay::Output::Note { wtxid, kept } => {
                self.outputs.push_back(Output::NoteBroadcast { wtxid, kept });
            }
            relay::Output::Dial(connection) => self.dial_private(now, connection),
            relay::Output::Give { connection, transactions } => {
                self.outputs.push_back(Output::GivePrivate { connection, transactions });
            }
            relay::Output::Forget { wtxid } => self.outputs.push_back(Output::ForgetBroadcast { wtxid }),
            relay::Output::Unseen(report) => self.notice(Notice::Unseen(report)),
            relay::Output::Drop { peer, why } => self.outputs.push_back(Output::Drop(peer, why)),
        }
    }

    pub(super) fn mempool_event(&mut self, now: Now, event: Event) {
        match event {
            Event::Verdict { id, verdict, child } => self.relay.handle_verdict(now, id, verdict, child),
            Event::Passed { id, entries, outcome } => {
                self.submitted.insert(id, outcome);
                self.relay.broadcast(now, BroadcastId(id.0), &entries);
            }
            Event::Submitted { id, outcome } => self.outputs.push_back(Output::Submitted { id, outcome }),
            Event::Changed(changes) => {
                self.spare.left(&changes);
                self.relay.handle_mempool(now, &changes);
            }
            // Without its witness it is not what a block would have.
            Event::Refused(_, why) if why.kind == RejectKind::WitnessStripped => {}
            Event::Refused(tx, _) => self.spare.refused(&tx),
            Event::Followed { left, connected } => {
                for _ in left {
                    self.relay.handle_block_disconnected(now);
                }
                for block in connected {
                    let ids = block.txids.iter().zip(&block.wtxids);
                    let confirmed = block.block.txdata.iter().zip(ids);
                    let confirmed =
                        confirmed.map(|(tx, (txid, wtxid))| Confirmed { tx, txid: *txid, wtxid: *wtxid });
                    self.relay.handle_block_connected(now, &confirmed.collect::<Vec<_>>());
                }
                self.relay.handle_tip_changed(now);
            }
            Event::View(news) => self.mempool_news(now, news),
            Event::Restoring(is_restoring) => self.relay.set_restoring(now, is_restoring),
            Event::Restored(transactions) => {
                let last = transactions.last().map(|last| last.wtxid);
                let kept = last.map_or_else(KeptState::default, |wtxid| self.take_kept(&wtxid));
                self.relay.restore_broadcast(now, &transactions, kept);
            }
            Event::Void(wtxid) => self.outputs.push_back(Output::ForgetBroadcast { wtxid }),
            Event::Failed(error) => self.notice(Notice::StoreFailed(error.to_string())),
        }
    }

    /// A peer's `feefilter`. What wallets are told is relayed is what half of the peers relay.
    pub(super) fn fee_filter(&mut self, peer: PeerId, rate: FeeRate) {
        self.relay.handle_fee_filter(peer, rate.0);
        let before = self.peers_floor();
        self.fee_filters.insert(peer, rate);
        let floor = self.peers_floor();
        if floor != before {
            self.keep(keeper::Command::PeersFloor(floor));
        }
    }

    /// The median of what peers take; none of those that take nothing for now.
    fn peers_floor(&self) -> FeeRate {
        let takes_some = |rate: &&FeeRate| rate.0 < FEE_FILTER_OF_NOTHING;
        let mut rates: Vec<FeeRate> = self.fee_filters.values().filter(takes_some).copied().collect();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }

    /// Wallets' transactions are not handed to a peer that cannot judge them yet.
    pub(super) fn note_whether_behind(&mut self, peer: PeerId) {
        let tree = self.headers.tree();
        let ours = tree.info(tip_of(&self.snapshot).hash).map(|info| info.work);
        let theirs = self.headers.peer_tip(peer).map(|tip| tip.work);
        let is_behind = theirs.zip(ours).is_some_and(|(theirs, ours)| theirs < ours);
        self.relay.set_behind(peer, is_behind);
    }

    /// Share of the last blocks, by weight, that was in the mempool before they came.
    pub fn coverage(&self) -> Option<f64> {
        self.mempool.as_ref().and_then(|news| news.coverage)
    }

    /// What peers did with wallets' transactions.
    pub fn broadcasts(&self) -> Vec<BroadcastReport> {
        self.relay.report()
    }

    fn mempool_news(&mut self, now: Now, news: MempoolNews) {
        self.unpublished.merge(&news.touched);
        self.relay.set_fee_floor(now, news.fees.min);
        self.mempool = Some(news);
        self.note_warmth();
        self.publish();
    }
}
