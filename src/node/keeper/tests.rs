//! What comes back after a restart, however long its scripts take and in whatever order it comes.

use std::time::Duration;

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid};

use super::*;
use crate::mempool::BlockTransaction;
use crate::peer::PeerId;
use crate::query::testing::{Chain, transaction};

/// A wallet of one coin, and a keeper on its chain.
struct World {
    chain: Chain,
    keeper: Keeper,
    now: Now,
    coin: OutPoint,
    /// Wallets' transactions that are here again, and those that were given up.
    back: Vec<Wtxid>,
    void: Vec<Wtxid>,
    /// What was said of whether some are still to be judged.
    restoring: Vec<bool>,
}

/// Whoever knows that the script is true may spend.
fn anyone() -> (ScriptBuf, ScriptBuf) {
    let script = ScriptBuf::from_bytes(vec![0x51]);
    (script.to_p2sh(), ScriptBuf::from_bytes(vec![1, 0x51]))
}

/// Spends one output and leaves a fee.
fn child(of: OutPoint, worth: u64) -> Transaction {
    let (pays, spends) = anyone();
    transaction(&[(of, spends)], &[(Amount::from_sat(worth), pays)])
}

/// Each spends the one before.
fn family(coin: OutPoint, count: u64) -> Vec<Transaction> {
    let mut family = Vec::new();
    let mut from = coin;
    for generation in 1..=count {
        let tx = child(from, 5_000_000_000 - generation * 1_000);
        from = OutPoint::new(tx.compute_txid(), 0);
        family.push(tx);
    }
    family
}

fn unconfirmed(tx: &Transaction) -> Arc<Unconfirmed> {
    Arc::new(Unconfirmed::parse(&bitcoin::consensus::serialize(tx)).unwrap())
}

fn dumped(txs: &[Transaction]) -> Command {
    let dumped = |tx| Dumped {
        raw: bitcoin::consensus::serialize(tx).into(),
        first_seen: 1_300_000_000,
        unbroadcast: false,
    };
    Command::Restore(txs.iter().map(dumped).collect())
}

fn kept(tx: &Transaction) -> Command {
    Command::RestoreBroadcast(tx.compute_wtxid(), vec![unconfirmed(tx)])
}

impl World {
    fn new() -> Self {
        let mut chain = Chain::mainnet(1);
        let coin = OutPoint::new(chain.forge(anyone().0, &[]), 0);
        for _ in 0..100 {
            chain.forge(anyone().0, &[]);
        }
        let now = Now { instant: Instant::default(), unix: 1_300_100_000 };
        let keeper = Keeper::new(now, Policy::core(), chain.snapshot(), true);
        Self { chain, keeper, now, coin, back: Vec::new(), void: Vec::new(), restoring: Vec::new() }
    }

    fn tell(&mut self, command: Command) {
        self.keeper.execute(self.now, command);
    }

    /// Until there is nothing to do. Scripts are run when nothing else is left, the last first: the slowest that can be.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            while let Some(event) = self.keeper.poll() {
                match event {
                    Event::Restored(entries) => self.back.push(entries.last().unwrap().wtxid),
                    Event::Void(wtxid) => self.void.push(wtxid),
                    Event::Restoring(is_restoring) => self.restoring.push(is_restoring),
                    _ => {}
                }
            }
            if self.keeper.has_backlog() {
                self.keeper.work_off(self.now);
                continue;
            }
            let jobs: Vec<ScriptJob> = std::iter::from_fn(|| self.keeper.next_scripts()).collect();
            if jobs.is_empty() {
                return;
            }
            jobs.into_iter().rev().for_each(|job| self.tell(Command::Scripts(job, Ok(()))));
        }
        panic!("it never ends");
    }

    fn has(&self, txs: &[Transaction]) -> bool {
        let (view, _) = self.keeper.view(self.now);
        txs.iter().all(|tx| view.entry(&tx.compute_txid()).is_some())
    }

    fn len(&self) -> usize {
        self.keeper.view(self.now).0.len()
    }
}

#[test]
fn a_long_family_comes_back_though_scripts_take_longer_than_judging() {
    let mut world = World::new();
    let family = family(world.coin, 40);
    world.tell(dumped(&family));
    world.tell(Command::Start);
    world.settle();
    assert_eq!(world.len(), 40);

    // In no order at all, as after a reorganisation.
    let mut world = World::new();
    let mut shuffled = family;
    fastrand::Rng::with_seed(1).shuffle(&mut shuffled);
    world.tell(dumped(&shuffled));
    world.tell(Command::Start);
    world.settle();
    assert_eq!(world.len(), 40);
}

#[test]
fn whose_parents_are_gone_is_forgotten() {
    let mut world = World::new();
    let family = family(world.coin, 5);
    world.tell(dumped(&[&family[..2], &family[3..]].concat()));
    world.tell(Command::Start);
    world.settle();
    assert!(world.has(&family[..2]));
    assert_eq!(world.len(), 2);
    assert!(world.keeper.fatherless.is_empty() && world.keeper.restored.is_empty());
}

/// While its child is judged, the parent is a peer's transaction whose scripts are being run.
#[test]
fn a_parent_may_come_from_a_peer_meanwhile() {
    let mut world = World::new();
    let family = family(world.coin, 3);
    world.tell(dumped(&family[1..]));
    world.tell(Command::Start);
    let job = Job { id: JobId(1), tx: unconfirmed(&family[0]), child: None, from: PeerId(1) };
    world.tell(Command::Admit(job, false));
    world.settle();
    assert!(world.has(&family));
}

#[test]
fn it_is_said_when_all_that_were_here_before_are_judged() {
    let mut world = World::new();
    let family = family(world.coin, 3);
    world.tell(dumped(&family));
    world.tell(Command::Start);
    for _ in 0..2 {
        world.keeper.work_off(world.now);
    }
    let said = std::iter::from_fn(|| world.keeper.poll());
    let said: Vec<bool> = said
        .filter_map(|event| match event {
            Event::Restoring(is_restoring) => Some(is_restoring),
            _ => None,
        })
        .collect();
    assert_eq!(said, [true], "their scripts are not run yet");
    world.settle();
    assert_eq!((world.len(), world.restoring.as_slice()), (3, &[false][..]));
}

#[test]
fn a_wallets_transaction_waits_for_the_parents_that_come_back() {
    let mut world = World::new();
    let family = family(world.coin, 6);
    world.tell(kept(&family[5]));
    world.tell(dumped(&family[..5]));
    world.tell(Command::Start);
    world.settle();
    assert_eq!((world.back.as_slice(), world.void.as_slice()), (&[family[5].compute_wtxid()][..], &[][..]));
    assert_eq!(world.len(), 6);
}

#[test]
fn a_wallets_transaction_outlives_a_crash_that_its_parents_did_not() {
    let mut world = World::new();
    let family = family(world.coin, 2);
    world.tell(kept(&family[1]));
    world.tell(Command::Start);
    world.settle();
    assert_eq!((world.len(), &world.void), (0, &vec![]));
    // A peer brings the parent.
    world.tell(dumped(&family[..1]));
    world.settle();
    world.now = world.now.after(LOOK_EVERY);
    world.keeper.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.back, [family[1].compute_wtxid()]);
    assert_eq!(world.len(), 2);
}

#[test]
fn a_wallets_transaction_is_given_up_when_it_is_old_or_mined() {
    let mut world = World::new();
    let nobody = OutPoint::new(Txid::from_raw_hash(bitcoin::hashes::Hash::hash(b"nobody's")), 0);
    let orphan = child(nobody, 1_000);
    world.tell(kept(&orphan));
    world.tell(Command::Start);
    world.settle();
    world.now = world.now.after(Policy::core().expiry - Duration::from_secs(1));
    world.keeper.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.void, []);
    world.now = world.now.after(LOOK_EVERY);
    world.keeper.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.void, [orphan.compute_wtxid()]);

    // Both of a family are in the chain: nothing is left to spend, and nothing of the first to be seen.
    let mut world = World::new();
    let family = family(world.coin, 2);
    world.chain.forge(anyone().0, &family);
    let snapshot = world.chain.snapshot();
    world.tell(Command::Chain(snapshot, Vec::new()));
    world.tell(kept(&family[0]));
    world.tell(kept(&family[1]));
    world.tell(Command::Start);
    world.settle();
    assert_eq!(world.void.len(), 2);
    assert_eq!((world.len(), &world.back), (0, &vec![]));
}

#[test]
fn a_block_that_is_coming_is_read_beforehand_and_no_other_is_taken_for_it() {
    for is_the_next in [true, false] {
        let mut world = World::new();
        world.tell(Command::Start);
        let spends = child(world.coin, 1_000);
        world.chain.forge(anyone().0, std::slice::from_ref(&spends));
        let snapshot = world.chain.snapshot();
        let tip = snapshot.tip().unwrap();
        let coming = if is_the_next { tip.height } else { tip.height.prev().unwrap() };
        let header = snapshot.header(coming).unwrap().unwrap();
        world.tell(Command::Coming {
            at: Tip { height: tip.height, hash: header.block_hash() },
            raw: snapshot.raw_block(coming).unwrap().unwrap().into(),
            txids: snapshot.block_txids(coming).unwrap().unwrap(),
        });
        let prepared = world.keeper.coming.clone().unwrap();
        world.tell(Command::Chain(snapshot, Vec::new()));
        let connected = std::iter::from_fn(|| world.keeper.poll()).find_map(|event| match event {
            Event::Followed { connected, .. } => Some(connected),
            _ => None,
        });
        let connected = connected.unwrap();
        assert_eq!(connected.len(), 1);
        assert_eq!((connected[0].at, &connected[0].block.txdata[1]), (tip, &spends));
        assert_eq!(connected[0].wtxids[1], spends.compute_wtxid());
        assert_eq!(Arc::ptr_eq(&connected[0], &prepared), is_the_next);
        assert!(world.keeper.coming.is_none());
    }
}

#[test]
fn a_tip_is_told_before_what_its_block_means_for_the_rest_and_the_next_command_finds_all_done() {
    let mut world = World::new();
    let family = family(world.coin, 4);
    world.tell(dumped(&family[..3]));
    world.tell(Command::Start);
    world.settle();
    // Wallets are shown them.
    world.now = world.now.after(PUBLISH_EVERY);
    world.keeper.handle_timeout(world.now);
    world.settle();
    world.chain.forge(anyone().0, &family[..2]);
    let snapshot = world.chain.snapshot();
    let tip = snapshot.tip().unwrap();
    let transaction = BlockTransaction { fee: 1_000, weight: 400, parents: Vec::new() };
    let fees = BlockFees::of_transactions(tip.hash, tip.height, &[transaction]);
    world.tell(Command::Chain(snapshot, vec![fees]));
    let Some(Event::View(news)) = world.keeper.poll() else { panic!("the view comes first") };
    assert!(world.keeper.has_open_block());
    assert_eq!((news.tip, news.mempool.len(), news.coverage), (tip, 1, None));
    let last = news.mempool.entry(&family[2].compute_txid()).unwrap();
    assert!(!news.mempool.has_unconfirmed_parent(last));
    // What the block has is told of by its commit.
    assert!(news.touched.has_transaction(&last.txid));
    assert!(!news.touched.has_transaction(&family[1].compute_txid()));

    // A peer sends one that the block has, and one that hangs on who is left.
    for (tx, id) in [(&family[1], 1), (&family[3], 2)] {
        let job = Job { id: JobId(id), tx: unconfirmed(tx), child: None, from: PeerId(1) };
        world.tell(Command::Admit(job, false));
        assert!(!world.keeper.has_open_block());
    }
    world.settle();
    assert!(world.has(&family[2..]));
    assert_eq!((world.len(), world.keeper.estimator.coverage()), (2, Some(1.0)));
}
