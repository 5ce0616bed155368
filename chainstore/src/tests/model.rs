//! Random work on a store and on a naive model, equal after each step.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Block, BlockHash};

use super::chain::{Answers, Forge, aside, connect, scripts, small_options};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Error, Height, MergeJob, ScriptHash, Snapshot, Store};

/// Steps of one run.
const STEPS: usize = 120;

/// The model: a staged chain, a committed one, and the blocks put aside.
struct Model {
    staged: Vec<Block>,
    committed: Vec<Block>,
    stored: BTreeMap<BlockHash, (usize, Block)>,
    committed_stored: BTreeMap<BlockHash, (usize, Block)>,
    /// Snapshots taken earlier, with the chain of then.
    old: Vec<(Arc<Snapshot>, Vec<Block>)>,
}

fn open(disk: &SimDisk) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, small_options()).unwrap()
}

/// Back comes how many pieces of merges were taken, and whether the run went far.
fn run(seed: u64) -> (usize, usize) {
    let disk = SimDisk::new();
    let mut store = open(&disk);
    let mut forge = Forge::new(seed);
    let mut model = Model {
        staged: Vec::new(),
        committed: Vec::new(),
        stored: BTreeMap::new(),
        committed_stored: BTreeMap::new(),
        old: Vec::new(),
    };
    let mut gone = 0;
    // A piece of a merge that somebody works on, while blocks come and go.
    let mut job: Option<MergeJob> = None;
    let mut jobs = 0;
    for step in 0..STEPS {
        let kind = forge.rng.u8(0..100);
        let context = format!("seed {seed} step {step} kind {kind}");
        match kind {
            0..40 => grow(&mut store, &mut model, &mut forge),
            40..52 => {
                for _ in 0..forge.rng.usize(1..=if kind == 40 { 20 } else { 3 }) {
                    disconnect(&mut store, &mut model);
                }
            }
            52..58 => switch_back(&mut store, &mut model),
            58..64 => {
                let at = forge.rng.usize(..model.staged.len() + 1);
                let block = forge.block(&model.staged[..at]);
                if at > 0 && !model.stored.contains_key(&block.block_hash()) {
                    let raw = bitcoin::consensus::serialize(&block);
                    store.store_block(Height(at as u32), block.block_hash(), &raw).unwrap();
                    store.put_headers(&[(Height(at as u32), block.header)]).unwrap();
                    model.stored.insert(block.block_hash(), (at, block));
                }
            }
            64..86 => {
                commit(&mut store, &mut model, &context);
                if job.is_none() {
                    job = store.merge_job().unwrap();
                }
            }
            88..92 => {
                store.rollback().unwrap();
                model.staged = model.committed.clone();
                model.stored = model.committed_stored.clone();
            }
            86..88 => match store.merge() {
                Ok(_) => assert!(store.view.deltas.len() <= 5, "{context}"),
                Err(error) => assert!(matches!(error, Error::Staged), "{context}: {error}"),
            },
            _ => {
                drop(store);
                job = None;
                store = open(&disk);
                // Snapshots end with the process that took them.
                model.old.clear();
                model.staged = model.committed.clone();
                model.stored = model.committed_stored.clone();
            }
        }
        if forge.rng.u8(0..3) == 0
            && let Some(job) = job.take()
        {
            store.merge_done(job.run()).unwrap();
            jobs += 1;
        }
        compare(&mut store, &model, &context);
        gone += compare_old(&mut model, &context);
    }
    (jobs, usize::from(model.committed.len() > 5 || gone > 0))
}

fn grow(store: &mut Store, model: &mut Model, forge: &mut Forge) {
    let block = forge.block(&model.staged);
    connect(store, &block).unwrap();
    model.stored.remove(&block.block_hash());
    model.staged.push(block);
}

fn disconnect(store: &mut Store, model: &mut Model) {
    match model.staged.pop() {
        Some(block) => {
            assert_eq!(store.disconnect().unwrap().hash, block.block_hash());
            model.stored.insert(block.block_hash(), (model.staged.len(), block));
        }
        None => assert!(matches!(store.disconnect(), Err(Error::NoTip))),
    }
}

/// Connects stored blocks as long as one fits.
fn switch_back(store: &mut Store, model: &mut Model) {
    loop {
        let tip = model.staged.last().map(Block::block_hash);
        let next = model.stored.values().find(|(at, block)| {
            let fits = tip.is_none_or(|tip| block.header.prev_blockhash == tip);
            *at == model.staged.len() && fits
        });
        let Some((_, block)) = next.cloned() else { return };
        let raw = store.stored_block(&block.block_hash()).unwrap().unwrap();
        assert_eq!(bitcoin::consensus::deserialize::<Block>(&raw).unwrap(), block);
        connect(store, &block).unwrap();
        model.stored.remove(&block.block_hash());
        model.staged.push(block);
    }
}

fn commit(store: &mut Store, model: &mut Model, context: &str) {
    let (before, after) = (Answers::of(&model.committed), Answers::of(&model.staged));
    let commit = store.commit().unwrap();
    for script in scripts() {
        let hash = ScriptHash::of(&script);
        let txids = |answers: &Answers| -> Vec<_> {
            let numbers = answers.history.get(&hash).into_iter().flatten();
            numbers.map(|n| (answers.txids[n.0 as usize], answers.heights[n.0 as usize])).collect()
        };
        if txids(&before) != txids(&after) {
            assert!(
                commit.touched.binary_search(&hash.key()).is_ok(),
                "{context}: {script:?} is not touched"
            );
        }
    }
    model.committed = model.staged.clone();
    model.committed_stored = model.stored.clone();
    model.old.push((commit.snapshot, model.committed.clone()));
    if model.old.len() > 3 {
        model.old.remove(0);
    }
}

fn compare(store: &mut Store, model: &Model, context: &str) {
    let tip = store.tip().map(|tip| (tip.height.0 as usize + 1, tip.hash));
    assert_eq!(tip, model.staged.last().map(|block| (model.staged.len(), block.block_hash())), "{context}");
    let staged = Answers::of(&model.staged);
    for txid in &staged.txids {
        let outpoints: Vec<_> = (0..4).map(|vout| bitcoin::OutPoint::new(*txid, vout)).collect();
        let wanted: Vec<_> = outpoints.iter().map(|outpoint| staged.coins.get(outpoint).copied()).collect();
        assert_eq!(store.coins(&outpoints).unwrap(), wanted, "{context}");
        assert_eq!(
            store.has_unspent(txid, wanted.len() as u32).unwrap(),
            wanted.iter().any(Option::is_some),
            "{context}"
        );
    }
    let stored: Vec<_> = store.stored_blocks().iter().map(|tip| tip.hash).collect();
    assert_eq!(stored.len(), model.stored.len(), "{context}");
    assert!(stored.iter().all(|hash| model.stored.contains_key(hash)), "{context}");
    let known = aside(store);
    for (block, height) in model.staged.iter().zip(0..) {
        assert!(known.contains(&format!("header {} {}", Height(height), block.block_hash())), "{context}");
    }
    Answers::of(&model.committed).check(&store.snapshot(), &model.committed, context);
    check_proofs(&store.snapshot(), &model.committed, context);
}

/// Roots and branches lead from the header to the root of bitcoin's tree.
fn check_proofs(snapshot: &Snapshot, blocks: &[Block], context: &str) {
    use bitcoin::hashes::{Hash, HashEngine, sha256d};
    for count in
        [1, 2, 3, blocks.len() / 2, blocks.len()].into_iter().filter(|n| (1..=blocks.len()).contains(n))
    {
        let leaves = blocks[..count].iter().map(|block| block.block_hash().to_raw_hash());
        let wanted = bitcoin::merkle_tree::calculate_root(leaves).unwrap();
        for height in [0, count / 2, count - 1] {
            let proof =
                snapshot.header_proof(Height(height as u32), Height(count as u32 - 1)).unwrap().unwrap();
            let mut hash = blocks[height].block_hash().to_raw_hash();
            for (sibling, level) in proof.branch.iter().zip(0..) {
                let (left, right) =
                    if height >> level & 1 == 0 { (hash, *sibling) } else { (*sibling, hash) };
                let mut engine = sha256d::Hash::engine();
                engine.input(left.as_ref());
                engine.input(right.as_ref());
                hash = sha256d::Hash::from_engine(engine);
            }
            assert_eq!((hash, proof.root), (wanted, wanted), "{context}: {height} of {count}");
        }
    }
    assert_eq!(snapshot.header_proof(Height(1), Height(0)).unwrap(), None, "{context}");
}

/// An old snapshot answers as it did, or says that it is gone.
fn compare_old(model: &mut Model, context: &str) -> usize {
    let before = model.old.len();
    model.old.retain(|(snapshot, blocks)| {
        if matches!(snapshot.raw_block(Height(0)), Err(Error::SnapshotGone)) {
            return false;
        }
        Answers::of(blocks).check(snapshot, blocks, context);
        check_proofs(snapshot, blocks, context);
        true
    });
    before - model.old.len()
}

#[test]
fn random_work_gives_the_answers_of_a_naive_model() {
    let seeds: u64 = std::env::var("CHAINSTORE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (jobs, far) = (0..seeds).map(run).fold((0, 0), |all, run| (all.0 + run.0, all.1 + run.1));
    assert!(jobs > 50, "only {jobs} pieces of merges");
    assert!(far as u64 * 2 > seeds, "only {far} runs went far");
}
