//! What becomes of a `headers` message.
//!
//! Cheap checks first: size, proof of work and links of all headers before any is looked up. Then: does it connect,
//! is it worth keeping, does each pass the rules.
//!
//! Source: Bitcoin Core `net_processing.cpp` (`ProcessHeadersMessage` and what it calls).

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};

use super::peer_state::{Held, Want};
use super::presync::{Presync, Step};
use super::sync::{HeaderSync, MAX_HEADERS, Output, Warning};
use super::tree::{InsertError, Inserted};
use crate::peer::{Misbehavior, PeerId};
use crate::time::Now;
use crate::validate::{check_proof_of_work, work_of};

/// Blocks below the best by which a branch may fall short in work and still be kept at once
/// (Core's `GetAntiDoSWorkThreshold`).
const WORK_SLACK: u32 = 144;

impl HeaderSync {
    pub(super) fn take_headers(&mut self, now: Now, from: PeerId, headers: Vec<Header>) {
        let full = headers.len() == MAX_HEADERS;
        if headers.len() > MAX_HEADERS {
            let text = format!("{} headers in a message, more than {MAX_HEADERS}", headers.len());
            self.drop_peer(from, Misbehavior::BadMessage(text));
            return;
        }
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            self.take_empty(now, from);
            return;
        };
        let (prev, last) = (first.prev_blockhash, last.block_hash());
        if let Err(why) = self.check_alone(&headers) {
            self.drop_peer(from, why);
            return;
        }

        let Some(peer) = self.peers.get_mut(&from) else { return };
        if let Some(presync) = peer.presync.take_if(|presync| presync.expects(prev)) {
            self.take_counted(now, from, presync, headers, full);
            return;
        }
        if !self.tree.contains(prev) {
            self.take_unconnecting(from, last);
            return;
        }
        if peer.in_flight.is_some() {
            // It left the chain that was being counted.
            peer.presync = None;
        }
        if self.tree.contains(last) || self.work_with(prev, &headers) >= self.enough_work() {
            self.insert(now, from, headers, full);
        } else if full && let Some(presync) = Presync::new(&self.tree, prev) {
            self.take_counted(now, from, Box::new(presync), headers, full);
        } else {
            self.peer_has(from, prev);
            self.take_worthless(now, from);
        }
    }

    /// Tries the headers again whose time has come.
    pub(super) fn retry_held(&mut self, now: Now) {
        for id in self.peers_where(|_, peer| peer.held.as_ref().is_some_and(|held| now.instant >= held.due)) {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let Some(held) = peer.held.take() else { continue };
            if now.unix < held.until {
                peer.held = Some(Held::new(now, held.headers, held.full, held.until));
            } else {
                self.insert(now, id, held.headers, held.full);
            }
        }
    }

    /// Proof of work for the claimed target, and each on top of the one before.
    fn check_alone(&self, headers: &[Header]) -> Result<(), Misbehavior> {
        let mut prev = None;
        for header in headers {
            let hash = header.block_hash();
            if let Err(error) = check_proof_of_work(header, hash, self.tree.params()) {
                return Err(Misbehavior::BadHeader(error.reject_reason().into_owned()));
            }
            if prev.is_some_and(|prev| header.prev_blockhash != prev) {
                return Err(Misbehavior::BadMessage("headers that do not follow on one another".to_owned()));
            }
            prev = Some(hash);
        }
        Ok(())
    }

    /// Nothing beyond what we have, or nothing it wants to tell: a node that catches up, or a liar. Its turn is over.
    fn take_empty(&mut self, now: Now, from: PeerId) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.in_flight.is_none() {
            return;
        }
        peer.presync = None;
        self.finish_answer(now, from, None);
    }

    /// Headers whose parent we lack: ask what lies between. Where a question is open, the answer may have been made
    /// before. Nobody is punished, as a peer may well have seen two blocks before we saw one.
    fn take_unconnecting(&mut self, from: PeerId, last: BlockHash) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.announces(last);
        }
    }

    /// Headers of a chain whose work has to be shown first.
    fn take_counted(
        &mut self,
        now: Now,
        from: PeerId,
        mut presync: Box<Presync>,
        headers: Vec<Header>,
        full: bool,
    ) {
        let Some(last) = headers.last().map(Header::block_hash) else { return };
        let step = presync.take(&self.tree, headers, full, self.enough_work(), now.unix);
        match step {
            Step::Continue => {
                self.note_progress(now, from);
                self.finish_answer(now, from, Some(last));
                self.resume_presync(from, presync);
            }
            Step::Keep(headers) => {
                self.insert(now, from, headers, true);
                self.resume_presync(from, presync);
            }
            Step::Done(headers) => self.insert(now, from, headers, full),
            Step::GiveUp => self.take_worthless(now, from),
            Step::Bad(error) => {
                self.drop_peer(from, Misbehavior::BadHeader(error.reject_reason().into_owned()));
            }
        }
    }

    /// Goes on with it, unless the answer has ended in another way.
    fn resume_presync(&mut self, from: PeerId, presync: Box<Presync>) {
        if let Some(peer) = self.peers.get_mut(&from)
            && matches!(peer.want, Want::After(_))
        {
            peer.presync = Some(presync);
        }
    }

    /// A chain that ends, or is given up, below the work that is asked for.
    fn take_worthless(&mut self, now: Now, from: PeerId) {
        if let Some(peer) = self.peers.get_mut(&from)
            && !peer.warned_of_work
        {
            peer.warned_of_work = true;
            self.outputs.push_back(Output::Warn { peer: from, what: Warning::TooLittleWork });
        }
        self.finish_answer(now, from, None);
    }

    /// Puts headers into the tree until one does not fit. `full`: the peer has more after them.
    fn insert(&mut self, now: Now, from: PeerId, headers: Vec<Header>, full: bool) {
        let before = self.tree.best().hash;
        let mut accepted = Vec::new();
        let mut last = None;
        let mut failed = None;
        for (index, &header) in headers.iter().enumerate() {
            match self.tree.insert(header, now.unix) {
                Ok(Inserted::Known) => last = Some(header.block_hash()),
                Ok(Inserted::SideBranch | Inserted::Extended | Inserted::Reorganized { .. }) => {
                    let hash = header.block_hash();
                    last = Some(hash);
                    // A branch that the bound has pushed out again has no height.
                    accepted.extend(self.tree.height(hash).map(|height| (height, header)));
                }
                Err(error) => {
                    failed = Some((index, error));
                    break;
                }
            }
        }

        if !accepted.is_empty() {
            self.note_progress(now, from);
            self.outputs.push_back(Output::Persist(accepted));
        }
        let best = self.tree.best();
        if best.hash != before {
            self.outputs.push_back(Output::BestChanged(best.tip()));
        }
        if let Some(last) = last {
            self.peer_has(from, last);
        }
        match failed {
            None => self.finish_answer(now, from, last.filter(|_| full)),
            Some((index, error)) => self.take_refused(now, from, &headers[index..], full, error),
        }
    }

    /// `headers` begin with one that does not enter the tree.
    fn take_refused(&mut self, now: Now, from: PeerId, headers: &[Header], full: bool, error: InsertError) {
        match error {
            InsertError::Rule(error) => match error.retry_at() {
                Some(until) => self.hold_back(now, from, headers, full, until),
                None => {
                    let reason = error.reject_reason().into_owned();
                    self.drop_peer(from, Misbehavior::BadHeader(reason));
                }
            },
            InsertError::InvalidChain { .. } => self.drop_peer(from, Misbehavior::InvalidChain),
            // Only when the bound on branches has just taken its parent away.
            InsertError::Orphan { .. } => self.finish_answer(now, from, None),
        }
    }

    /// Keeps headers from the future, in place of such as were held of this peer before. Perhaps our clock is wrong.
    fn hold_back(&mut self, now: Now, from: PeerId, headers: &[Header], full: bool, until: u64) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.held.is_none() {
            self.outputs.push_back(Output::Warn { peer: from, what: Warning::FromTheFuture { until } });
        }
        peer.held = Some(Held::new(now, headers.to_vec(), full, until));
        peer.presync = None;
        self.finish_answer(now, from, None);
    }

    /// The answer is dealt with; `more` is its last header when the peer has more after it.
    fn finish_answer(&mut self, now: Now, from: PeerId, more: Option<BlockHash>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let asked = peer.in_flight.is_some();
        peer.answered(now);
        let announced = peer.announced.take();
        let news = announced.filter(|&hash| !self.tree.contains(hash));
        match more {
            Some(last) => {
                peer.want = Want::After(last);
                peer.told_all = false;
                // Looked at again when the chain has been told to its end.
                peer.announced = news;
            }
            None if asked => {
                // What it announced since it was asked may be missing from the answer: once more.
                peer.want = if news.is_some() { Want::News } else { Want::Nothing };
                peer.told_all = true;
                self.end_turn(from);
                // Who was only asked in between speaks for nobody: the sync peer may be about to tell more.
                self.asked_one |= !self.is_hedge(from);
            }
            // An announcement that fits: what it was to be asked, it still is.
            None => {}
        }
        if let Some(hash) = announced.filter(|_| news.is_none()) {
            self.peer_has(from, hash);
        }
    }

    /// Total work of the chain that `headers` make on top of `prev`, which is in the tree.
    fn work_with(&self, prev: BlockHash, headers: &[Header]) -> Work {
        let below = self.tree.info(prev).map_or(Work::from_be_bytes([0; 32]), |info| info.work);
        headers.iter().fold(below, |total, header| total + work_of(header.bits))
    }

    /// Work from which a chain is kept without being counted first.
    fn enough_work(&self) -> Work {
        let best = self.tree.best();
        let mut enough = best.work;
        if let Some(info) = self.tree.info(best.hash) {
            let step = work_of(info.bits);
            for _ in 0..WORK_SLACK {
                enough = if enough > step { enough - step } else { Work::from_be_bytes([0; 32]) };
            }
        }
        enough.max(self.min_chain_work)
    }
}
