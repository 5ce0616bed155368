//! Header sync among scripted peers: alice, bob and others answer when the test lets them.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;
use bitcoin::{BlockHash, Work};

use super::sync::{HeaderSync, MAX_HEADERS, Output};
use super::testing::{genesis, regtest};
use super::tree::HeaderTree;
use crate::peer::{Inventory, InventoryKind, Misbehavior, PeerId, PeerInfo};
use crate::time::{Instant, Now};

pub(super) const ALICE: PeerId = PeerId(1);
pub(super) const BOB: PeerId = PeerId(2);
pub(super) const CAROL: PeerId = PeerId(3);

/// A sync, its clock, and all that it put out so far and no test has looked at.
pub(super) struct Net {
    pub sync: HeaderSync,
    pub now: Now,
    /// Chains that peers serve on their own, from genesis' child on.
    honest: BTreeMap<PeerId, Vec<Header>>,
    outputs: Vec<Output>,
}

impl Net {
    /// Demands no work. Its clock stands years after the first headers, so a first sync is to be done.
    pub fn new() -> Self {
        Self::with(regtest(), 0)
    }

    pub fn with(tree: HeaderTree, min_chain_work: u64) -> Self {
        let mut work = [0; 32];
        work[24..].copy_from_slice(&min_chain_work.to_be_bytes());
        Self {
            sync: HeaderSync::new(tree, Work::from_be_bytes(work), 7),
            now: Now { instant: Instant::from_start(Duration::ZERO), unix: super::testing::NOW },
            honest: BTreeMap::new(),
            outputs: Vec::new(),
        }
    }

    pub fn connect(&mut self, peer: PeerId) {
        self.connect_with(peer, ServiceFlags::NETWORK | ServiceFlags::WITNESS);
    }

    pub fn connect_with(&mut self, peer: PeerId, services: ServiceFlags) {
        let info = PeerInfo {
            version: 70016,
            services,
            user_agent: "/test/".to_owned(),
            start_height: 1_000_000,
            relay: true,
            wtxid_relay: true,
        };
        self.sync.handle_peer_ready(self.now, peer, &info);
        self.drain();
    }

    /// Connects a peer that answers every getheaders at once, from `chain`.
    pub fn connect_honest(&mut self, peer: PeerId, chain: &[Header]) {
        self.honest.insert(peer, chain.to_vec());
        self.connect(peer);
        self.serve();
    }

    pub fn disconnect(&mut self, peer: PeerId) {
        self.honest.remove(&peer);
        self.sync.handle_peer_gone(self.now, peer);
        self.serve();
    }

    pub fn headers(&mut self, from: PeerId, headers: &[Header]) {
        self.sync.handle_headers(self.now, from, headers.to_vec());
        self.serve();
    }

    /// The answer that an honest peer with `chain` gives to the last question to `from`.
    pub fn answer(&mut self, from: PeerId, chain: &[Header]) {
        let locator = self.asked(from).expect("nothing was asked");
        self.headers(from, &after(&locator, chain));
    }

    pub fn inv(&mut self, from: PeerId, hash: BlockHash) {
        let entry = Inventory { kind: InventoryKind::Block, hash: hash.to_raw_hash() };
        self.sync.handle_inv(self.now, from, &[entry]);
        self.serve();
    }

    /// Moves the clock by `wait`, with every timer on the way.
    pub fn advance(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        while let Some(due) = self.sync.next_timeout().filter(|&due| due <= end.instant) {
            self.now = self.now.after(due - self.now.instant);
            self.sync.handle_timeout(self.now);
            self.serve();
            let next = self.sync.next_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "a timer that does not end");
        }
        self.now = self.now.after(end.instant - self.now.instant);
    }

    /// The locator of a getheaders to `peer` since the test last looked.
    pub fn asked(&mut self, peer: PeerId) -> Option<Vec<BlockHash>> {
        let is_question =
            |output: &Output| matches!(output, Output::GetHeaders { peer: to, .. } if *to == peer);
        let mut asked = self.take(is_question);
        assert!(asked.len() < 2, "one question at a time");
        match asked.pop() {
            Some(Output::GetHeaders { locator, .. }) => Some(locator),
            _ => None,
        }
    }

    pub fn dropped(&mut self) -> Vec<(PeerId, Misbehavior)> {
        let dropped = self.take(|output| matches!(output, Output::Drop { .. }));
        dropped
            .into_iter()
            .filter_map(|output| match output {
                Output::Drop { peer, why } => Some((peer, why)),
                _ => None,
            })
            .collect()
    }

    /// Headers to be written down, in order.
    pub fn persisted(&mut self) -> Vec<Header> {
        let persisted = self.take(|output| matches!(output, Output::Persist(_)));
        persisted
            .into_iter()
            .flat_map(|output| match output {
                Output::Persist(headers) => headers,
                _ => Vec::new(),
            })
            .map(|(_, header)| header)
            .collect()
    }

    /// Takes the outputs that match out of those not looked at.
    pub fn take(&mut self, matches: impl Fn(&Output) -> bool) -> Vec<Output> {
        let (taken, left) = std::mem::take(&mut self.outputs).into_iter().partition(matches);
        self.outputs = left;
        taken
    }

    pub fn best(&self) -> BlockHash {
        self.sync.tree().best().hash
    }

    fn drain(&mut self) {
        while let Some(output) = self.sync.poll() {
            self.outputs.push(output);
        }
    }

    /// Lets honest peers answer until nobody asks them any more.
    fn serve(&mut self) {
        loop {
            self.drain();
            let honest = &self.honest;
            let asked =
                |o: &Output| matches!(o, Output::GetHeaders { peer, .. } if honest.contains_key(peer));
            let Some(index) = self.outputs.iter().position(asked) else { return };
            if let Output::GetHeaders { peer, locator } = self.outputs.remove(index) {
                let answer = after(&locator, &self.honest[&peer]);
                self.sync.handle_headers(self.now, peer, answer);
            }
        }
    }
}

/// What Core answers: up to 2,000 headers after the first hash of the locator that is in its chain.
pub(super) fn after(locator: &[BlockHash], chain: &[Header]) -> Vec<Header> {
    let known: BTreeMap<_, _> = [genesis()]
        .iter()
        .chain(chain)
        .enumerate()
        .map(|(height, header)| (header.block_hash(), height))
        .collect();
    let from = locator.iter().find_map(|hash| known.get(hash)).copied().unwrap_or(0);
    chain.iter().skip(from).take(MAX_HEADERS).copied().collect()
}
