//! Header sync in a small world of honest peers and liars: whatever happens, it ends on the best honest chain.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use fastrand::Rng;

use super::sync::{HeaderSync, Output};
use super::testing::{NOW, chain, child, child_at, genesis, regtest};
use super::testing_sync::after;
use crate::peer::{Inventory, PeerId, PeerInfo};
use crate::time::{Instant, Now};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Honest,
    /// Never answers.
    Silent,
    /// Answers with nothing.
    Empty,
    /// Answers with headers that break a rule, now and then.
    Liar,
    /// Answers honestly, and sends what nobody asked for in between.
    Noisy,
}

struct Actor {
    nature: Nature,
    chain: Vec<Header>,
    /// A question that it has not got round to, and when it came.
    question: Option<(Instant, Vec<BlockHash>)>,
    wants_headers: bool,
}

struct World {
    rng: Rng,
    sync: HeaderSync,
    now: Now,
    actors: BTreeMap<PeerId, Actor>,
    next_id: u64,
    /// All headers that were to be written down; each once, parents first.
    kept: BTreeMap<BlockHash, Header>,
    context: String,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            sync: HeaderSync::new(regtest(), bitcoin::Work::from_be_bytes([0; 32]), seed),
            now: Now { instant: Instant::from_start(Duration::ZERO), unix: NOW },
            actors: BTreeMap::new(),
            next_id: 0,
            kept: BTreeMap::from([(genesis().block_hash(), genesis())]),
            context: format!("seed {seed}"),
        }
    }

    fn connect(&mut self, nature: Nature, chain: Vec<Header>) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        self.actors.insert(id, Actor { nature, chain, question: None, wants_headers: false });
        let info = PeerInfo {
            version: 70016,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            user_agent: String::new(),
            start_height: 0,
            relay: false,
            wtxid_relay: false,
        };
        self.sync.handle_peer_ready(self.now, id, &info);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.sync.poll() {
            match output {
                Output::GetHeaders { peer, locator } => {
                    let actor = self.actors.get_mut(&peer).expect("asked after it was dropped");
                    assert!(locator.len() <= 101, "{}", self.context);
                    actor.question = Some((self.now.instant, locator));
                }
                Output::SendHeaders { peer } => {
                    self.actors.get_mut(&peer).expect("told after it was dropped").wants_headers = true;
                }
                Output::Persist(headers) => {
                    for (height, header) in headers {
                        assert!(self.kept.contains_key(&header.prev_blockhash), "{}", self.context);
                        assert_eq!(self.sync.tree().height(header.block_hash()), Some(height));
                        let twice = self.kept.insert(header.block_hash(), header);
                        assert_eq!(twice, None, "{}", self.context);
                    }
                }
                Output::Drop { peer, why } => {
                    let actor = self.actors.remove(&peer).expect("dropped twice");
                    let guilty = matches!(actor.nature, Nature::Silent | Nature::Liar);
                    assert!(guilty, "{}: {:?} dropped: {why}", self.context, actor.nature);
                }
                Output::BestChanged(tip) => {
                    assert!(self.kept.contains_key(&tip.hash), "{}: best before kept", self.context);
                }
                Output::PeerTip { .. } | Output::Warn { .. } => {}
            }
        }
    }

    fn answer(&mut self, id: PeerId) {
        let Some(actor) = self.actors.get_mut(&id) else { return };
        let Some((_, locator)) = actor.question.take() else { return };
        let mut headers = after(&locator, &actor.chain);
        match actor.nature {
            Nature::Honest | Nature::Noisy => {}
            Nature::Silent => return,
            Nature::Empty => headers.clear(),
            Nature::Liar => {
                if let Some(last) = headers.last_mut().filter(|_| self.rng.bool()) {
                    last.version = bitcoin::block::Version::from_consensus(1);
                    *last = super::testing::mine(*last);
                }
            }
        }
        self.sync.handle_headers(self.now, id, headers);
        self.drain();
    }

    /// One of the chains grows, perhaps from a few blocks below its tip, and its peer says so.
    fn grow(&mut self, id: PeerId) {
        let (salt, back, count) = (self.rng.u32(..), self.rng.usize(..4), self.rng.usize(1..6));
        let by_inv = self.rng.u8(..3) == 0;
        let Some(actor) = self.actors.get_mut(&id) else { return };
        let fork = actor.chain.len().saturating_sub(if salt.is_multiple_of(3) { back } else { 0 });
        actor.chain.truncate(fork);
        let tip = actor.chain.last().copied().unwrap_or_else(genesis);
        actor.chain.extend(chain(&tip, salt, count.max(back + 1)));
        if matches!(actor.nature, Nature::Silent | Nature::Empty) {
            return;
        }
        let new = actor.chain[fork..].to_vec();
        if actor.wants_headers && !by_inv {
            self.sync.handle_headers(self.now, id, new);
        } else if let Some(last) = new.last() {
            let hash = last.block_hash();
            self.sync.handle_inv(self.now, id, &[Inventory::witness_block(hash)]);
        }
        self.drain();
    }

    fn noise(&mut self, id: PeerId) {
        let salt = self.rng.u32(..);
        match self.rng.u8(..4) {
            0 => self.sync.handle_headers(self.now, id, Vec::new()),
            1 => {
                let unconnected = chain(&genesis(), salt, 2)[1..].to_vec();
                self.sync.handle_headers(self.now, id, unconnected);
            }
            2 => {
                let unknown = Inventory::witness_block(BlockHash::hash(&salt.to_le_bytes()));
                self.sync.handle_inv(self.now, id, &[unknown]);
            }
            _ => {
                let early = child_at(&genesis(), salt, NOW as u32 + 40_000_000);
                self.sync.handle_headers(self.now, id, vec![early, child(&early, salt)]);
            }
        }
        self.drain();
    }

    fn advance(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        while let Some(due) = self.sync.next_timeout().filter(|&due| due <= end.instant) {
            self.now = self.now.after(due - self.now.instant);
            self.sync.handle_timeout(self.now);
            self.drain();
            let next = self.sync.next_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "{}: a timer stays", self.context);
        }
        self.now = self.now.after(end.instant - self.now.instant);
    }

    fn any(&mut self) -> Option<PeerId> {
        let ids: Vec<_> = self.actors.keys().copied().collect();
        self.rng.choice(ids)
    }

    fn step(&mut self, step: usize, common: &[Header]) {
        self.context = format!("{}, step {step}", self.context.split(',').next().unwrap_or_default());
        match self.rng.u8(..20) {
            0 | 1 if self.actors.len() < 8 => {
                let natures = [
                    Nature::Honest,
                    Nature::Honest,
                    Nature::Silent,
                    Nature::Empty,
                    Nature::Liar,
                    Nature::Noisy,
                ];
                let nature = natures[self.rng.usize(..natures.len())];
                let len = self.rng.usize(..=common.len());
                self.connect(nature, common[..len].to_vec());
            }
            2 if self.actors.len() > 4 => {
                if let Some(id) = self.any() {
                    self.actors.remove(&id);
                    self.sync.handle_peer_gone(self.now, id);
                    self.drain();
                }
            }
            3..6 => {
                if let Some(id) = self.any() {
                    self.grow(id);
                }
            }
            6 | 7 => {
                // Nobody but the silent takes longer than two minutes.
                let now = self.now.instant;
                let slow = |actor: &Actor| {
                    actor.question.as_ref().is_some_and(|(asked, _)| now - *asked >= Duration::from_secs(60))
                };
                let slow: Vec<_> =
                    self.actors.iter().filter(|(_, actor)| slow(actor)).map(|(&id, _)| id).collect();
                for id in slow {
                    self.answer(id);
                }
                let wait = self.rng.u64(1..45);
                self.advance(Duration::from_secs(wait));
            }
            8 => {
                let noisy = self.actors.iter().find(|(_, actor)| actor.nature == Nature::Noisy);
                if let Some(id) = noisy.map(|(&id, _)| id) {
                    self.noise(id);
                }
            }
            _ => {
                if let Some(id) = self.any() {
                    self.answer(id);
                }
            }
        }
    }
}

#[test]
fn among_liars_the_best_honest_chain_wins() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        // Half of the worlds have old headers only, in the others the newest are of today.
        let first = if seed % 2 == 0 { 0 } else { NOW as u32 - 20 * 3_600 };
        let mut common = vec![child_at(&genesis(), 0, first.max(genesis().time + 600))];
        common.extend(chain(&common[0], 0, 60));
        world.connect(Nature::Honest, common.clone());
        for step in 0..600 {
            world.step(step, &common);
        }

        // Then everyone who answers at all is given time for it.
        world.connect(Nature::Honest, common.clone());
        for _ in 0..80 {
            for id in world.actors.keys().copied().collect::<Vec<_>>() {
                world.answer(id);
            }
            world.advance(Duration::from_secs(30));
        }
        let honest =
            world.actors.values().filter(|actor| matches!(actor.nature, Nature::Honest | Nature::Noisy));
        let longest = honest.map(|actor| actor.chain.len()).max().unwrap_or_default();
        let best = world.sync.tree().best();
        assert!(best.height.0 as usize >= longest, "{}: {best:?} is not {longest}", world.context);
        assert!(world.kept.contains_key(&best.hash));
        let silent = world.actors.values().any(|actor| actor.nature == Nature::Silent);
        assert!(!silent, "{}: a silent peer is still here", world.context);
        assert!(world.sync.is_caught_up(), "{}", world.context);
    }
}
