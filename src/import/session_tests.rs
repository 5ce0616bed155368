use bitcoin::Network;

use super::super::catalog::Collector;
use super::super::scan::Record;
use super::*;
use crate::blocks::check_received;
use crate::blocks::testing_forge::{Fault, Forge};
use crate::validate::Params;

const MEMORY: usize = 20_000;

/// The world around a session: files as a list of blocks, and a writer that knows what it connected.
struct World {
    forge: Forge,
    files: Vec<Result<Bytes, String>>,
    chain: Vec<BlockHash>,
    stored: BTreeSet<BlockHash>,
    reports: Vec<Report>,
    reads: usize,
    rng: fastrand::Rng,
}

impl World {
    fn new(forge: Forge) -> Self {
        let chain = vec![forge.genesis()];
        let rng = fastrand::Rng::with_seed(7);
        Self { forge, files: vec![], chain, stored: BTreeSet::new(), reports: vec![], reads: 0, rng }
    }

    /// The files have these blocks, and these bytes for them.
    fn session(&mut self, blocks: &[(BlockHash, Bytes)]) -> Session {
        let mut collector = Collector::default();
        for (n, (hash, raw)) in blocks.iter().enumerate() {
            let length = raw.len() as u32;
            let header = self.forge.header(*hash);
            collector.add(n as u32, &Record { header, hash: *hash, offset: 8, length });
        }
        self.files = blocks.iter().map(|(_, raw)| Ok(raw.clone())).collect();
        let mut tree = HeaderTree::new(Params::of(Network::Regtest));
        let catalog = collector.order(&mut tree, 2_000_000_000).into_catalog();
        Session::new(tree, catalog, MEMORY, self.tip(), vec![])
    }

    fn tip(&self) -> Tip {
        self.forge.tip(*self.chain.last().unwrap())
    }

    /// Does what it asks, in a random order of the answers, until it is done.
    fn run(&mut self, session: &mut Session) {
        let mut reads = Vec::new();
        let mut checks = Vec::new();
        let mut events = VecDeque::new();
        loop {
            while let Some(output) = session.poll() {
                match output {
                    Output::Read { ticket, place } => reads.push((ticket, place)),
                    Output::Check { hash, block, context } => checks.push((hash, block, context)),
                    Output::Chain(command) => self.execute(command, &mut events),
                    Output::Report(report) => self.reports.push(report),
                }
            }
            assert!(reads.len() <= 64, "what is in flight is bounded");
            match self.rng.u8(0..3) {
                0 if !reads.is_empty() => {
                    let (ticket, place) = reads.swap_remove(self.rng.usize(..reads.len()));
                    self.reads += 1;
                    session.handle_read(ticket, place, self.files[place.file as usize].clone());
                }
                1 if !checks.is_empty() => {
                    let (hash, raw, context) = checks.swap_remove(self.rng.usize(..checks.len()));
                    session.handle_checked(hash, check_received(raw, &context, &self.forge.params));
                }
                _ if !events.is_empty() => session.handle_chain_event(events.pop_front().unwrap()),
                _ if reads.is_empty() && checks.is_empty() && events.is_empty() => break,
                _ => {}
            }
        }
        assert!(session.is_done(), "nothing can happen any more");
        assert_eq!(session.connected(), self.tip());
    }

    fn execute(&mut self, command: Command, events: &mut VecDeque<ChainEvent>) {
        match command {
            Command::Connect(block, _) if block.header().prev_blockhash != self.tip().hash => {}
            Command::Connect(block, _) => events.push_back(match self.connect(block.hash()) {
                Ok(()) => ChainEvent::Connected(self.tip()),
                Err(hash) => ChainEvent::Failed { hash, reason: "spend".into(), tip: self.tip() },
            }),
            Command::Store(block) => {
                self.stored.insert(block.hash());
                events.push_back(ChainEvent::Stored(block.hash()));
            }
            Command::Switch { fork, connect } => {
                let old = self.chain.clone();
                self.chain.truncate(fork.height.0 as usize + 1);
                assert_eq!(self.tip(), fork);
                let result = connect.iter().try_for_each(|(hash, _)| {
                    assert!(self.stored.contains(hash) || old.contains(hash));
                    self.connect(*hash)
                });
                events.push_back(match result {
                    Ok(()) => ChainEvent::Switched(self.tip()),
                    Err(hash) => {
                        self.chain = old;
                        ChainEvent::Failed { hash, reason: "spend".into(), tip: self.tip() }
                    }
                });
            }
            Command::MarkInvalid(_) => {}
            Command::Repair(_)
            | Command::Resume
            | Command::PutHeaders(_)
            | Command::Commit
            | Command::HeadersComplete => {
                panic!("not from here")
            }
        }
    }

    fn connect(&mut self, hash: BlockHash) -> Result<(), BlockHash> {
        assert_eq!(self.forge.parent(hash), self.tip().hash);
        if self.forge.fault(hash) == Fault::Spend {
            return Err(hash);
        }
        self.chain.push(hash);
        Ok(())
    }

    fn all(&self, hashes: &[BlockHash]) -> Vec<(BlockHash, Bytes)> {
        hashes.iter().map(|hash| (*hash, self.forge.raw(*hash))).collect()
    }
}

#[test]
fn the_best_chain_is_connected_and_stale_blocks_are_not_read() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 300);
    let stale = forge.mine(chain[199], 50);
    let mut world = World::new(forge);
    let mut blocks = world.all(&[&stale[..], &chain].concat());
    blocks.reverse();

    let mut session = world.session(&blocks);
    assert_eq!((session.reach(), session.target()), (Height(300), Height(300)));
    world.run(&mut session);

    assert_eq!(world.tip(), world.forge.tip(chain[299]));
    assert_eq!((world.reads, session.imported()), (300, 300));
    assert_eq!(world.reports, []);
    let bytes: usize = chain.iter().map(|hash| world.forge.raw(*hash).len()).sum();
    assert_eq!(session.bytes(), (bytes as u64, bytes as u64));

    // Once more: nothing is read again.
    let mut session = world.session(&blocks);
    world.run(&mut session);
    assert_eq!((world.reads, session.imported(), session.bytes()), (300, 0, (0, 0)));
}

#[test]
fn a_connected_branch_that_lost_is_left() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 40);
    let ours = forge.mine(chain[19], 10);
    let mut world = World::new(forge);
    world.chain.extend(chain[..20].iter().chain(&ours));
    let blocks = world.all(&[&chain[..], &ours].concat());

    let mut session = world.session(&blocks);
    world.run(&mut session);

    assert_eq!(world.tip(), world.forge.tip(chain[39]));
}

#[test]
fn a_damaged_block_is_taken_from_its_second_copy() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 30);
    let mut world = World::new(forge);
    let mut blocks = world.all(&chain);
    let good = blocks[12].clone();
    blocks[12].1 = world.forge.mutated(chain[12]);
    blocks.push(good);

    let mut session = world.session(&blocks);
    world.run(&mut session);

    assert_eq!(world.tip(), world.forge.tip(chain[29]));
    let [report] = &world.reports[..] else { panic!("{:?}", world.reports) };
    assert_eq!((report.hash, report.height, report.invalid), (chain[12], Some(Height(13)), false));
    assert_eq!(report.place.map(|place| place.file), Some(12));
    assert!(report.reason.contains("merkle"), "{report:?}");
}

#[test]
fn below_a_block_that_cannot_be_had_the_import_ends() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 300);
    let mut world = World::new(forge);
    let whole = world.all(&chain);

    for fault in 0..3 {
        let mut blocks = whole.clone();
        if fault == 0 {
            blocks[12].1 = world.forge.mutated(chain[12]);
        }
        let mut session = world.session(&blocks);
        match fault {
            1 => world.files[12] = Err("input/output error".into()),
            2 => world.files[12] = world.files[13].clone(),
            _ => {}
        }
        world.run(&mut session);

        assert_eq!(world.tip(), world.forge.tip(chain[11]), "{fault}");
        assert_eq!((session.reach(), session.target()), (Height(12), Height(300)));
        assert_eq!((session.damaged(), session.invalid()), (1, 0));
        assert!(world.reports.iter().all(|report| report.hash == chain[12] && !report.invalid));
        world.chain.truncate(1);
    }
    // The header is not to blame: with the right bytes it goes on.
    let mut session = world.session(&whole);
    world.run(&mut session);
    assert_eq!(world.tip(), world.forge.tip(chain[299]));
}

#[test]
fn a_block_that_breaks_a_rule_is_left_for_the_best_of_the_rest() {
    for fault in [Fault::Height, Fault::Spend] {
        let mut forge = Forge::new();
        let chain = forge.mine(forge.genesis(), 30);
        let bad = forge.mine_one(chain[19], 0, fault);
        let above = forge.mine(bad, 40);
        let mut world = World::new(forge);
        let blocks = world.all(&[&chain[..], &[bad], &above].concat());

        let mut session = world.session(&blocks);
        world.run(&mut session);

        assert_eq!(world.tip(), world.forge.tip(chain[29]), "{fault:?}");
        let [report] = &world.reports[..] else { panic!("{:?}", world.reports) };
        assert_eq!((report.hash, report.invalid), (bad, true));
        assert_eq!(report.place.map(|place| place.file), Some(30));
        assert_eq!((session.damaged(), session.invalid()), (0, 1));
    }
}

#[test]
fn files_of_damaged_blocks_only_bring_nothing() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 50);
    let mut world = World::new(forge);
    let blocks: Vec<_> = chain.iter().map(|hash| (*hash, world.forge.mutated(*hash))).collect();

    let mut session = world.session(&blocks);
    world.run(&mut session);

    assert_eq!(world.tip().height, Height::GENESIS);
    assert!(session.damaged() >= 1);
}
