//! What is remembered of peers and of wallets' transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::Wtxid;

use super::super::types::{BroadcastId, BroadcastReport, Evidence, KeptState, Way};
use super::FEE_FILTER_OF_SYNC;
use crate::mempool::{Entry, FeeRate};
use crate::peer::PeerId;
use crate::time::Instant;

/// A peer that takes transactions.
#[derive(Clone, Copy, Debug)]
pub(in crate::relay) struct Taker {
    pub is_trusted: bool,
    pub wtxid_relay: bool,
    pub fee_filter: FeeRate,
    /// Its chain lacks blocks that ours has: it cannot judge what spends them.
    pub is_behind: bool,
}

impl Taker {
    pub(super) fn is_able(&self) -> bool {
        !self.is_behind && self.fee_filter < FEE_FILTER_OF_SYNC
    }
}

/// One transaction of a wallet, or a package.
#[derive(Debug)]
pub(super) struct Broadcast {
    /// Parents before the child, which is the last.
    pub entries: Vec<Arc<Entry>>,
    /// Who waits for an answer, and until when.
    pub ids: Vec<(BroadcastId, Instant)>,
    /// It is on disk.
    pub is_kept: bool,
    /// When it was last handed out.
    pub began: Instant,
    /// Peers that are connected and were sent it.
    pub contacts: BTreeMap<PeerId, Contact>,
    /// Peers that announced it though we had not sent it to them.
    pub announcers: BTreeSet<PeerId>,
    /// Whether somebody said in this round that it arrived.
    pub is_delivered: bool,
    pub is_accepted: bool,
    /// When more peers are sent it.
    pub more_at: Option<Instant>,
    /// When the operator is told that nobody shows it.
    pub unseen_at: Option<Instant>,
    pub next_round: Instant,
    pub report: BroadcastReport,
    /// Where it stands among the timers.
    pub timer: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Contact {
    pub since: Instant,
    /// The nonce of the ping that went after it.
    pub ping: u64,
    pub is_delivered: bool,
    pub is_asking: bool,
    pub is_accepted: bool,
    pub probes: u32,
    /// When it is asked whether it took it.
    pub next_probe: Option<Instant>,
}

impl Broadcast {
    pub fn new(now: Instant, entries: &[Arc<Entry>], is_kept: bool) -> Option<Self> {
        let last = entries.last()?;
        Some(Self {
            entries: entries.to_vec(),
            ids: Vec::new(),
            is_kept,
            began: now,
            contacts: BTreeMap::new(),
            announcers: BTreeSet::new(),
            is_delivered: false,
            is_accepted: false,
            more_at: None,
            unseen_at: None,
            next_round: now,
            report: BroadcastReport::new(last.txid, last.wtxid),
            timer: None,
        })
    }

    pub fn evidence(&self) -> Option<Evidence> {
        if self.report.is_echoed { Some(Evidence::Echo) } else { self.is_accepted.then_some(Evidence::Probe) }
    }

    /// What can be said when the time is over: better than nothing.
    pub fn sign(&self) -> Option<Evidence> {
        if self.is_delivered {
            return Some(Evidence::Delivery);
        }
        (self.is_private() && self.report.sent > 0).then_some(Evidence::Offer)
    }

    pub fn is_private(&self) -> bool {
        self.report.way == Some(Way::Private)
    }

    /// Whether nobody may learn from us that we have it.
    pub fn is_secret(&self) -> bool {
        self.is_private() && !self.report.is_echoed
    }

    /// Whether peers may learn of its transactions, as it is said of each.
    pub fn secrecy(&self) -> impl Iterator<Item = (Wtxid, bool)> {
        let is_secret = self.is_secret();
        self.entries.iter().map(move |entry| (entry.wtxid, is_secret))
    }

    /// What of it is kept on disk beside its transactions.
    pub fn kept(&self) -> KeptState {
        KeptState { is_private: self.is_private(), is_echoed: self.report.is_echoed }
    }

    pub fn due(&self) -> Instant {
        let probes = self.contacts.values().filter_map(|contact| contact.next_probe);
        let answers = self.ids.iter().map(|(_, by)| *by);
        probes.chain(answers).chain(self.more_at).chain(self.unseen_at).fold(self.next_round, Instant::min)
    }
}
