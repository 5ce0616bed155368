//! The network around one node: peers with queues, each with a character, and the clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::p2p::ServiceFlags;
use bitcoin::{BlockHash, Network, Work};
use chainstore::{Height, Options, ScriptHash, Store};
use peerdex::blocks::{ChainEvent, check_received};
use peerdex::mempool::Policy;
use peerdex::node::chain::{Chain, Command, Event};
use peerdex::node::keeper::Keeper;
use peerdex::node::{Input, Node, Output};
use peerdex::peer::{CloseReason, Message, PeerId, PeerInfo, WireBlock};
use peerdex::relay::Role;
use peerdex::scripts::InTurn;
use peerdex::time::{Instant, Now};
use peerdex::validate::Params;

use crate::world::{Account, SCRIPTS, START, World, script};

/// Blocks that exist before the first step, so that coinbases are mature.
const PREMINED: usize = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Character {
    Honest,
    /// Announces everything, delivers no block.
    Silent,
    /// Delivers blocks with a transaction changed.
    Corrupting,
    /// Announces headers without proof of work.
    Workless,
    /// Mines blocks that pay too much, and builds on them.
    Greedy,
}

const CHARACTERS: [Character; 7] = [
    Character::Honest,
    Character::Honest,
    Character::Honest,
    Character::Silent,
    Character::Corrupting,
    Character::Workless,
    Character::Greedy,
];

#[derive(Debug)]
struct Peer {
    character: Character,
    /// Its current connection.
    id: Option<PeerId>,
    /// After being dropped it may not come back before this.
    back_at: Instant,
    tip: BlockHash,
    /// From the node to the peer, and back.
    inbox: VecDeque<Message>,
    outbox: VecDeque<Message>,
}

pub struct Simulation {
    seed: u64,
    rng: fastrand::Rng,
    pub world: World,
    peers: Vec<Peer>,
    next_id: u64,
    now: Now,
    node: Node,
    keeper: Keeper,
    chain: Chain,
    commands: VecDeque<Command>,
    params: Arc<Params>,
    /// Blocks that the node was given and found well-formed, with their parents.
    given: BTreeMap<BlockHash, BlockHash>,
    /// Valid ones among them that were given with all below them.
    delivered: BTreeSet<BlockHash>,
    work: BTreeMap<BlockHash, Work>,
    best_work_seen: Work,
    pub log: Vec<String>,
    pub steps: usize,
    pub reorgs: usize,
    pub lies_told: usize,
    /// Bytes of the block files that were changed, and blocks that were put in place for it.
    pub rotten: usize,
    pub repaired: usize,
    /// Switches that were put off as a block was damaged.
    pub switches_blocked: usize,
    /// A switch waits for a damaged block.
    blocked: bool,
    folder: tempfile::TempDir,
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut tip = world.genesis;
        for _ in 0..PREMINED {
            tip = world.mine(tip, &mut rng, false);
        }
        let folder = tempfile::tempdir().unwrap();
        let params = Arc::new(Params::of(Network::Regtest));
        let mut options = Options::new(Network::Regtest);
        // Small, so that merges and undoing beyond the deltas happen too.
        (options.keep_deltas, options.merge_batch, options.txid_prefix) = (4, 3, 1);
        let chain =
            Chain::new(Store::open(folder.path(), options).unwrap(), params.clone(), Box::new(InTurn))
                .unwrap();
        let now = Now { instant: Instant::default(), unix: START + 1_000_000 };
        let policy = Policy::core();
        let node = Node::restore(now, &chain, params.min_chain_work, 1 << 20, &policy, rng.u64(..)).unwrap();
        let keeper = Keeper::new(now, policy, chain.snapshot(), true);
        let peers = CHARACTERS
            .into_iter()
            .map(|character| Peer {
                character,
                id: None,
                back_at: Instant::default(),
                tip,
                inbox: VecDeque::new(),
                outbox: VecDeque::new(),
            })
            .collect();
        let genesis = world.genesis;
        let work = BTreeMap::from([(genesis, world.blocks[&genesis].block.header.work())]);
        Self {
            seed,
            rng,
            peers,
            next_id: 0,
            now,
            node,
            keeper,
            chain,
            commands: VecDeque::new(),
            params,
            given: BTreeMap::new(),
            delivered: BTreeSet::from([genesis]),
            best_work_seen: work[&genesis],
            work,
            world,
            log: Vec::new(),
            steps: 0,
            reorgs: 0,
            lies_told: 0,
            rotten: 0,
            repaired: 0,
            switches_blocked: 0,
            blocked: false,
            folder,
        }
    }

    /// One thing happens.
    pub fn step(&mut self) {
        self.steps += 1;
        match self.rng.u8(..100) {
            0..40 => self.deliver_to_node(),
            40..74 => self.peer_reads(),
            74 => self.rot(),
            75..80 => self.write_chain(),
            80..83 => self.mine(),
            83..86 => self.gossip(),
            86..96 => {
                let wait = match self.rng.u8(..20) {
                    0 => Duration::from_secs(self.rng.u64(30..200)),
                    _ => Duration::from_millis(self.rng.u64(1..1500)),
                };
                self.pass(wait);
            }
            96..99 => self.connect_one(),
            _ => self.disconnect_one(),
        }
        self.perform();
    }

    /// No more lies and no more mining: after a while the node must stand on the best honest chain.
    pub fn settle(&mut self) {
        self.peers.retain(|peer| {
            if let (Some(id), true) = (peer.id, peer.character != Character::Honest) {
                self.node.handle(self.now, Input::PeerGone(id, CloseReason::Gone("left".into())));
            }
            peer.character == Character::Honest
        });
        let best = self.best_honest();
        for peer in &mut self.peers {
            peer.tip = best;
        }
        for round in 0..4000 {
            for index in 0..self.peers.len() {
                if self.peers[index].id.is_none() {
                    self.connect(index);
                }
                self.read_one(index);
                self.deliver_one(index);
            }
            if round % 20 == 0 {
                for peer in &mut self.peers {
                    let tip = &self.world.blocks[&best].block;
                    peer.outbox.push_back(Message::Headers(vec![tip.header]));
                }
            }
            let tip = self.chain.snapshot().tip().unwrap();
            self.read_block(Height(round % (tip.height.0 + 1)));
            self.pass(Duration::from_millis(500));
            self.perform();
            while !self.commands.is_empty() {
                self.write_chain();
                self.perform();
            }
        }
        let tip = self.chain.store().tip().unwrap();
        let (got, want) = (self.work_of(tip.hash), self.work_of(best));
        assert_eq!(got, want, "seed {}: settled on {} and not on {best}", self.seed, tip.hash);
        let view = self.chain.snapshot().tip().unwrap();
        assert_eq!(view.hash, tip.hash, "seed {}: the last block was not committed", self.seed);
        assert!(self.node.progress().synced, "seed {}: never synced", self.seed);
        self.check_accounts(self.steps);
        assert!(!self.blocked, "seed {}: a switch waits for a damaged block", self.seed);
        for (height, hash) in (1..).zip(self.world.chain(tip.hash)) {
            let raw = self.chain.snapshot().raw_block(Height(height)).unwrap();
            assert_eq!(raw, Some(serialize(&self.world.blocks[&hash].block)), "seed {}", self.seed);
        }
    }

    /// A byte of the block files changes, or a wallet asks for a block.
    fn rot(&mut self) {
        if self.rng.u8(..4) == 0 {
            let name = self.folder.path().join("blocks/00000.blk");
            let mut bytes = std::fs::read(&name).unwrap();
            let at = self.rng.usize(..bytes.len());
            bytes[at] ^= 1 << self.rng.u8(..8);
            // In its place: the writer has the file open.
            let file = std::fs::File::options().write(true).open(&name).unwrap();
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
            self.rotten += 1;
        } else {
            let tip = self.chain.snapshot().tip().unwrap();
            let height = Height(self.rng.u32(0..=tip.height.0));
            self.read_block(height);
        }
    }

    /// Reads a block as a wallet would: it is right, or named as damaged.
    fn read_block(&mut self, height: Height) {
        let snapshot = self.chain.snapshot();
        let hash = snapshot.header(height).unwrap().unwrap().block_hash();
        match snapshot.raw_block(height) {
            Ok(raw) => assert_eq!(raw, Some(serialize(&self.world.blocks[&hash].block))),
            Err(chainstore::Error::DamagedBlock { height: at, hash: named, .. }) => {
                assert_eq!((at, named), (height, hash));
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    /// The connected chain is valid, never loses work, and is the best of what was delivered.
    pub fn check_chain(&mut self, step: usize) {
        let tip = self.chain.store().tip().unwrap().hash;
        let seed = self.seed;
        assert!(self.world.blocks[&tip].valid, "seed {seed} step {step}: stands on an invalid block {tip}");
        let work = self.work_of(tip);
        assert!(work >= self.best_work_seen, "seed {seed} step {step}: lost work");
        self.best_work_seen = work;
        assert!(self.delivered.contains(&tip), "seed {seed} step {step}: {tip} was never delivered");
        if self.commands.is_empty() && !self.blocked {
            let best = self.delivered.iter().map(|hash| self.work[hash]).max().unwrap();
            assert_eq!(work, best, "seed {seed} step {step}: a better chain was delivered whole");
        }
    }

    /// Every script's history and coins are those of a naive reader of the same chain.
    pub fn check_accounts(&mut self, step: usize) {
        let snapshot = self.chain.snapshot();
        let accounts = self.world.accounts(snapshot.tip().unwrap().hash);
        for number in 0..SCRIPTS {
            let script = script(number);
            let hash = ScriptHash::of(&script);
            let history = snapshot.history(&hash).unwrap();
            let unspent = snapshot.unspent(&hash).unwrap();
            let got = Account {
                history: history.iter().map(|entry| (entry.height.0, entry.txid)).collect(),
                unspent: unspent
                    .iter()
                    .map(|coin| {
                        let outpoint = bitcoin::OutPoint { txid: coin.txid, vout: coin.vout };
                        (coin.height.0, outpoint, coin.value.to_sat())
                    })
                    .collect(),
            };
            let naive = accounts.get(&script);
            assert_eq!(Some(&got), naive.or(Some(&Account::default())), "seed {} step {step}", self.seed);
        }
    }

    fn work_of(&mut self, hash: BlockHash) -> Work {
        if let Some(work) = self.work.get(&hash) {
            return *work;
        }
        let header = self.world.blocks[&hash].block.header;
        let work = self.work_of(header.prev_blockhash) + header.work();
        self.work.insert(hash, work);
        work
    }

    fn best_honest(&mut self) -> BlockHash {
        let tips: Vec<_> = self
            .peers
            .iter()
            .filter(|peer| peer.character == Character::Honest)
            .map(|peer| peer.tip)
            .collect();
        let known: Vec<_> =
            tips.into_iter().chain(std::iter::once(self.chain.store().tip().unwrap().hash)).collect();
        known.into_iter().max_by_key(|hash| self.work_of(*hash)).unwrap()
    }

    fn pass(&mut self, wait: Duration) {
        let until = self.now.after(wait);
        while self.node.next_timeout() <= until.instant {
            let at = self.node.next_timeout().max(self.now.instant);
            self.now = Now { instant: at, unix: self.now.unix };
            self.node.handle_timeout(self.now);
            self.perform();
        }
        self.now = until;
    }

    /// Does what the node put out, as the shell would.
    fn perform(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send(id, message) => {
                    if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == Some(id)) {
                        peer.inbox.push_back(message);
                    }
                }
                Output::Drop(id, why) => {
                    self.log.push(format!("{} drop {id}: {why}", self.steps));
                    if let Some(index) = self.peers.iter().position(|peer| peer.id == Some(id)) {
                        self.leave(index, CloseReason::Misbehaved(why));
                    }
                }
                Output::Check { hash, block, context } => {
                    let raw = block.bytes.clone();
                    let result = check_received(block, &context, &self.params);
                    if result.is_ok() {
                        let block: bitcoin::Block = deserialize(&raw).unwrap();
                        self.given.insert(hash, block.header.prev_blockhash);
                        self.note_delivered(hash);
                    }
                    self.node.handle(self.now, Input::Checked { hash, result });
                }
                // Peers here say nothing of compact blocks, so they are asked for none.
                Output::Fill(fill) => {
                    let filled = fill.run();
                    self.node.handle(self.now, filled);
                }
                Output::Chain(command) => self.commands.push_back(command),
                Output::Mempool(command) => {
                    self.keeper.execute(self.now, command);
                    while let Some(event) = self.keeper.poll() {
                        self.node.handle(self.now, Input::Mempool(event));
                    }
                }
                Output::Publish(_)
                | Output::Submitted { .. }
                | Output::KeepBroadcast { .. }
                | Output::NoteBroadcast { .. }
                | Output::ForgetBroadcast { .. } => {}
                Output::DialPrivate { .. } | Output::GivePrivate { .. } => {
                    panic!("there is no proxy here")
                }
                Output::Notice(notice) => self.log.push(format!("{} {notice:?}", self.steps)),
            }
        }
    }

    fn note_delivered(&mut self, hash: BlockHash) {
        let mut waiting = vec![hash];
        while let Some(hash) = waiting.pop() {
            if self.delivered.contains(&self.given[&hash]) && self.world.blocks[&hash].valid {
                self.work_of(hash);
                self.delivered.insert(hash);
                waiting.extend(
                    self.given.iter().filter(|(_, parent)| **parent == hash).map(|(child, _)| *child),
                );
            }
        }
    }

    /// The chain's writer does one command.
    fn write_chain(&mut self) {
        let Some(command) = self.commands.pop_front() else { return };
        if matches!(command, Command::Switch { .. }) {
            self.reorgs += 1;
        }
        let mut events = self.chain.execute(command).unwrap();
        if self.rng.u8(..8) == 0 {
            events.extend(self.chain.commit().unwrap());
        }
        while let Some(job) = self.chain.merge_job().unwrap() {
            self.chain.merge_done(job.run()).unwrap();
        }
        for event in events {
            match &event {
                Event::Chain(ChainEvent::Blocked { .. }) => {
                    self.blocked = true;
                    self.switches_blocked += 1;
                }
                Event::Chain(ChainEvent::Repaired { moved, .. }) => {
                    self.blocked = false;
                    self.repaired += usize::from(*moved);
                }
                _ => {}
            }
            self.node.handle(self.now, Input::Chain(event));
        }
    }

    fn deliver_to_node(&mut self) {
        let index = self.rng.usize(..self.peers.len());
        self.deliver_one(index);
    }

    fn deliver_one(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if let (Some(id), Some(message)) = (peer.id, peer.outbox.pop_front()) {
            self.node.handle(self.now, Input::PeerMessage(id, message));
        }
    }

    fn peer_reads(&mut self) {
        let index = self.rng.usize(..self.peers.len());
        self.read_one(index);
    }

    fn read_one(&mut self, index: usize) {
        let Some(message) = self.peers[index].inbox.pop_front() else { return };
        match message {
            Message::GetHeaders { locator, .. } => {
                let headers = self.headers_after(self.peers[index].tip, &locator);
                self.peers[index].outbox.push_back(Message::Headers(headers));
            }
            Message::GetData(inventory) => {
                for hash in inventory.iter().filter_map(peerdex::peer::Inventory::block) {
                    let mut block = self.world.blocks[&hash].block.clone();
                    let mut sent = WireBlock::new(serialize(&block).into());
                    match self.peers[index].character {
                        Character::Silent => continue,
                        Character::Corrupting => {
                            self.lies_told += 1;
                            block.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
                            let bytes = serialize(&block).into();
                            // Every other lie looks like damage on the way.
                            sent = match self.lies_told % 2 {
                                0 => WireBlock::new(bytes),
                                _ => WireBlock { bytes, ..sent },
                            };
                        }
                        Character::Honest | Character::Workless | Character::Greedy => {}
                    }
                    self.peers[index].outbox.push_back(Message::Block(sent));
                }
            }
            _ => {}
        }
    }

    /// As a node answers getheaders: from the last block of the locator that is on its chain.
    fn headers_after(&self, tip: BlockHash, locator: &[BlockHash]) -> Vec<Header> {
        let chain = self.world.chain(tip);
        let from = locator
            .iter()
            .find_map(|hash| {
                if *hash == self.world.genesis {
                    Some(0)
                } else {
                    chain.iter().position(|on| on == hash).map(|at| at + 1)
                }
            })
            .unwrap_or(0);
        chain[from..].iter().take(2000).map(|hash| self.world.blocks[hash].block.header).collect()
    }

    /// Somebody finds a block, or a few on a fork.
    fn mine(&mut self) {
        let index = self.rng.usize(..self.peers.len());
        let greedy = self.peers[index].character == Character::Greedy && self.rng.bool();
        if self.peers[index].character == Character::Workless {
            let mut header = self.world.blocks[&self.peers[index].tip].block.header;
            header.prev_blockhash = self.peers[index].tip;
            while header.target().is_met_by(header.block_hash()) {
                header.nonce += 1;
            }
            self.lies_told += 1;
            self.peers[index].outbox.push_back(Message::Headers(vec![header]));
            return;
        }
        let chain = self.world.chain(self.peers[index].tip);
        let deep = if self.rng.u8(..4) == 0 { self.rng.usize(1..=8) } else { 0 };
        let mut tip = chain[chain.len() - 1 - deep.min(chain.len() - 1)];
        let first = self.rng.usize(..=deep);
        let mut headers = Vec::new();
        for number in 0..deep + 1 + self.rng.usize(..2) {
            tip = self.world.mine(tip, &mut self.rng, greedy && number == first);
            headers.push(self.world.blocks[&tip].block.header);
        }
        self.lies_told += usize::from(greedy);
        self.peers[index].tip = tip;
        self.announce(index, headers);
    }

    fn announce(&mut self, index: usize, headers: Vec<Header>) {
        let peer = &mut self.peers[index];
        if peer.id.is_none() {
            return;
        }
        peer.outbox.push_back(if self.rng.bool() {
            Message::Headers(headers)
        } else {
            Message::Inv(vec![peerdex::peer::Inventory::witness_block(peer.tip)])
        });
    }

    /// A peer hears of the best chain that is valid, as far as its character lets it.
    fn gossip(&mut self) {
        let index = self.rng.usize(..self.peers.len());
        let best = self.best_honest();
        if self.peers[index].tip != best && self.work_of(best) > self.work_of(self.peers[index].tip) {
            self.peers[index].tip = best;
            let header = self.world.blocks[&best].block.header;
            self.announce(index, vec![header]);
        }
    }

    fn connect_one(&mut self) {
        let index = self.rng.usize(..self.peers.len());
        if self.peers[index].id.is_none() && self.peers[index].back_at <= self.now.instant {
            self.connect(index);
        }
    }

    fn connect(&mut self, index: usize) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let peer = &mut self.peers[index];
        (peer.id, peer.inbox, peer.outbox) = (Some(id), VecDeque::new(), VecDeque::new());
        let info = PeerInfo {
            version: 70016,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            user_agent: format!("/{:?}:1/", peer.character),
            start_height: 0,
            relay: true,
            wtxid_relay: true,
        };
        self.node.handle(self.now, Input::PeerReady(id, info, Role::Stranger));
    }

    fn disconnect_one(&mut self) {
        let index = self.rng.usize(..self.peers.len());
        self.leave(index, CloseReason::Gone("left".into()));
    }

    fn leave(&mut self, index: usize, reason: CloseReason) {
        if let Some(id) = self.peers[index].id.take() {
            self.peers[index].back_at = self.now.instant + Duration::from_secs(self.rng.u64(1..30));
            self.node.handle(self.now, Input::PeerGone(id, reason));
        }
    }
}
