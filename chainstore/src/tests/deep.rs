//! A reorganisation of a thousand blocks, where a merge has written some parts anew and not the others.
//!
//! What is undone then lies in deltas, in deltas that the merge was moving, and in the base; parts of the base differ
//! in how far they go; and a piece of the merge is still being worked on when the chain has left it behind.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, transaction};

use super::chain::{Answers, Forge, connect, scripts, small_options};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Height, Options, Snapshot, Store};

const DEPTH: usize = 1_000;
/// Blocks that both branches have.
const COMMON: usize = 150;
/// Blocks from commit to commit, as in the last steps of a sync.
const TOGETHER: usize = 25;

fn open(disk: &SimDisk) -> Store {
    let options = Options {
        keep_deltas: 12,
        merge_batch: 40,
        // A few dozen parts, so that a merge has as many pieces.
        part_bytes: 8_000,
        segment_bytes: 60_000,
        txid_prefix: 2,
        // The bulk is another way to the same rows, with tests of its own.
        bulk_blocks: u32::MAX / 2,
        ..small_options()
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, options).unwrap()
}

/// Makes a long branch; what it may spend is remembered from block to block.
#[derive(Clone)]
struct Branch {
    blocks: Vec<Block>,
    unspent: Vec<OutPoint>,
    branch: u8,
}

impl Branch {
    fn grow(&mut self, forge: &mut Forge, scripts: &[ScriptBuf]) {
        let parent = match self.blocks.last() {
            Some(parent) => parent.block_hash(),
            None => {
                self.blocks.push(forge.block(&[]));
                return;
            }
        };
        let height = self.blocks.len() as u32;
        let output = |forge: &mut Forge| TxOut {
            value: Amount::from_sat(forge.rng.u64(1..1 << 30)),
            script_pubkey: scripts[forge.rng.usize(..scripts.len())].clone(),
        };
        let coinbase = TxIn {
            script_sig: ScriptBuf::from([&height.to_le_bytes()[..], &[self.branch]].concat()),
            ..TxIn::default()
        };
        let mut txdata = vec![pay(vec![coinbase], (0..2).map(|_| output(forge)).collect())];
        for _ in 0..forge.rng.usize(0..4) {
            let inputs = forge.rng.usize(1..3).min(self.unspent.len());
            // Some of them are as old as the chain, some of this block.
            let spent = (0..inputs).map(|_| self.unspent.swap_remove(forge.rng.usize(..self.unspent.len())));
            let input: Vec<TxIn> = spent
                .map(|previous_output| TxIn {
                    previous_output,
                    sequence: Sequence::MAX,
                    witness: Witness::from_slice(&[[7; 3]]),
                    ..TxIn::default()
                })
                .collect();
            if input.is_empty() {
                continue;
            }
            let tx = pay(input, (0..2).map(|_| output(forge)).collect());
            let txid = tx.compute_txid();
            self.unspent.extend((0..2).map(|vout| OutPoint::new(txid, vout)));
            txdata.push(tx);
        }
        let txid = txdata[0].compute_txid();
        self.unspent.extend((0..2).map(|vout| OutPoint::new(txid, vout)));
        self.blocks.push(forge.seal(parent, txdata));
    }
}

fn pay(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// Connects the blocks that are not there, and merges whenever that is due.
fn follow(store: &mut Store, chain: &[Block]) {
    let next = store.tip().map_or(0, |tip| tip.height.0 as usize + 1);
    for blocks in chain[next..].chunks(TOGETHER) {
        blocks.iter().for_each(|block| connect(store, block).unwrap());
        store.commit().unwrap();
        while let Some(job) = store.merge_job().unwrap() {
            store.merge_done(job.run()).unwrap();
        }
    }
}

fn rows(snapshot: &Snapshot) -> Vec<String> {
    snapshot.dump().unwrap()
}

#[test]
fn a_reorg_of_1000_blocks_across_a_merge_leaves_the_rows_and_answers_of_a_fresh_store() {
    let mut forge = Forge::new(1);
    // Those that have a history and can be spent.
    let scripts: Vec<ScriptBuf> = scripts().into_iter().take(9).collect();
    let mut old = Branch { blocks: Vec::new(), unspent: Vec::new(), branch: 0 };
    while old.blocks.len() < COMMON {
        old.grow(&mut forge, &scripts);
    }
    let mut new = Branch { branch: 1, ..old.clone() };
    while old.blocks.len() < COMMON + DEPTH {
        old.grow(&mut forge, &scripts);
    }
    while new.blocks.len() < COMMON + DEPTH + 1 {
        new.grow(&mut forge, &scripts);
    }

    let disk = SimDisk::new();
    let mut store = open(&disk);
    follow(&mut store, &old.blocks[..COMMON + DEPTH - 60]);
    // The last blocks come, and the merge that is due then is begun: some of its pieces are taken, one is out.
    for block in &old.blocks[COMMON + DEPTH - 60..] {
        connect(&mut store, block).unwrap();
    }
    store.commit().unwrap();
    let before = store.view.base.blocks;
    for _ in 0..8 {
        let job = store.merge_job().unwrap().expect("a merge is due");
        store.merge_done(job.run()).unwrap();
    }
    let reaches = |store: &Store| {
        let mut reaches: Vec<u32> =
            store.view.index.parts().iter().map(|part| part.info.reach.blocks).collect();
        reaches.sort_unstable();
        reaches.dedup();
        reaches
    };
    let unfinished = store.merge_job().unwrap().expect("the merge has more pieces");
    assert_eq!(store.view.base.blocks, before, "the merge has not ended");
    assert_eq!(reaches(&store).len(), 2, "parts go as far as before the merge, or as far as that goes");
    assert!((before as usize) < COMMON + DEPTH - 12 && before as usize > COMMON + DEPTH - 160);
    Answers::of(&old.blocks).check(&store.snapshot(), &old.blocks, "before the reorg");

    // One commit for all of it.
    for block in old.blocks[COMMON..].iter().rev() {
        assert_eq!(store.disconnect().unwrap().hash, block.block_hash());
    }
    assert_eq!(store.tip().unwrap().height, Height(COMMON as u32 - 1));
    for block in &new.blocks[COMMON..] {
        connect(&mut store, block).unwrap();
    }
    let commit = store.commit().unwrap();
    let answers = Answers::of(&new.blocks);
    answers.check(&commit.snapshot, &new.blocks, "after the reorg");

    // It is so for whoever opens it again, and what comes late of the old merge changes nothing.
    let cut_off = disk.crash(1);
    store.merge_done(unfinished.run()).unwrap();
    answers.check(&store.snapshot(), &new.blocks, "after the rest of the old merge");
    let mut again = open(&cut_off);
    answers.check(&again.snapshot(), &new.blocks, "after opening it again");

    let mut fresh = open(&SimDisk::new());
    for store in [&mut store, &mut again, &mut fresh] {
        follow(store, &new.blocks);
        store.merge().unwrap();
    }
    answers.check(&store.snapshot(), &new.blocks, "after the next merge");
    let wanted = rows(&fresh.snapshot());
    assert!(rows(&store.snapshot()) == wanted, "other rows than a fresh store's");
    assert!(rows(&again.snapshot()) == wanted, "other rows than a fresh store's, after opening it again");
}
