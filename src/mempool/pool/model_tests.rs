//! The pool beside a model that knows nothing but a list of entries, and computes everything anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};

use super::testing::{at, coin, draft, output};
use super::{Changes, Pool, Removal};
use crate::mempool::{ChainLimits, Entry, MempoolView, Policy};
use crate::time::Now;

/// What the pool should hold: entries by txid.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Txid, Arc<Entry>>,
}

impl Model {
    fn parents(&self, entry: &Entry) -> BTreeSet<Txid> {
        let txids = entry.inputs.iter().map(|input| input.outpoint.txid);
        txids.filter(|txid| self.entries.contains_key(txid)).collect()
    }

    fn descendants(&self, from: &[Txid]) -> BTreeSet<Txid> {
        let mut all: BTreeSet<Txid> = from.iter().copied().collect();
        loop {
            let before = all.len();
            for entry in self.entries.values() {
                if self.parents(entry).iter().any(|parent| all.contains(parent)) {
                    all.insert(entry.txid);
                }
            }
            if all.len() == before {
                return all;
            }
        }
    }

    fn with_parents(&self) -> BTreeSet<Txid> {
        let entries = self.entries.values();
        entries.filter(|entry| !self.parents(entry).is_empty()).map(|entry| entry.txid).collect()
    }

    fn components(&self) -> BTreeMap<Txid, Txid> {
        let mut roots: BTreeMap<Txid, Txid> = self.entries.keys().map(|&txid| (txid, txid)).collect();
        loop {
            let before = roots.clone();
            for entry in self.entries.values() {
                for parent in self.parents(entry) {
                    let low = roots[&entry.txid].min(roots[&parent]);
                    roots.insert(entry.txid, low);
                    roots.insert(parent, low);
                }
            }
            if roots == before {
                return roots;
            }
        }
    }

    /// Does to the model what the pool says it did, and checks what it says.
    fn follow(&mut self, changes: &Changes) {
        let before = self.with_parents();
        let stayed: BTreeSet<Txid> = self.entries.keys().copied().collect();
        for (entry, _) in &changes.removed {
            assert!(self.entries.remove(&entry.txid).is_some(), "was not there");
        }
        for entry in &changes.added {
            assert!(self.entries.insert(entry.txid, Arc::clone(entry)).is_none(), "was there");
        }
        let after = self.with_parents();
        let flips = before.symmetric_difference(&after).copied();
        let flips: BTreeSet<Txid> =
            flips.filter(|txid| stayed.contains(txid) && self.entries.contains_key(txid)).collect();
        let told: BTreeSet<Txid> = changes.flipped.iter().map(|entry| entry.txid).collect();
        assert_eq!(told, flips);
    }

    fn check(&self, pool: &Pool, now: Now, most: usize) {
        assert_eq!(pool.len(), self.entries.len());
        assert_eq!(pool.vsize(), self.entries.values().map(|entry| entry.vsize).sum::<u64>());
        assert_eq!(pool.fees(), self.entries.values().map(|entry| entry.fee.to_sat()).sum::<u64>());
        for entry in self.entries.values() {
            assert_eq!(pool.get(&entry.txid), Some(entry));
            assert_eq!(pool.by_wtxid(&entry.wtxid), Some(entry));
            let parents: BTreeSet<Txid> = pool.parents(&entry.txid).iter().map(|entry| entry.txid).collect();
            assert_eq!(parents, self.parents(entry));
            for input in &entry.inputs {
                assert_eq!(pool.spender(&input.outpoint), Some(entry));
            }
            let below: BTreeSet<Txid> =
                pool.descendants(&entry.txid).iter().map(|entry| entry.txid).collect();
            let mut expected = self.descendants(&[entry.txid]);
            expected.remove(&entry.txid);
            assert_eq!(below, expected);
        }
        self.check_view(&pool.view(now));
        self.check_chunks(pool, most);
    }

    /// What wallets see.
    fn check_view(&self, view: &MempoolView) {
        assert_eq!((view.len(), view.entries().count()), (self.entries.len(), self.entries.len()));
        assert_eq!(view.figures().vsize, self.entries.values().map(|entry| entry.vsize).sum::<u64>());
        assert_eq!(view.figures().fees, self.entries.values().map(|entry| entry.fee.to_sat()).sum::<u64>());
        let mut newest: Vec<&Arc<Entry>> = self.entries.values().collect();
        newest.sort_by_key(|entry| std::cmp::Reverse(entry.unix));
        let ages = |entries: &[&Arc<Entry>]| entries.iter().map(|entry| entry.unix).collect::<Vec<_>>();
        newest.truncate(10);
        assert_eq!(ages(&view.recent().iter().collect::<Vec<_>>()), ages(&newest));
        let mut scripts: BTreeMap<_, BTreeSet<Txid>> = BTreeMap::new();
        for entry in self.entries.values() {
            assert_eq!(view.entry(&entry.txid), Some(entry));
            assert_eq!(view.has_unconfirmed_parent(entry), !self.parents(entry).is_empty());
            for input in &entry.inputs {
                assert_eq!(view.spender(&input.outpoint), Some(entry));
            }
            for script in entry.scripts() {
                scripts.entry(script).or_default().insert(entry.txid);
            }
        }
        for (script, txids) in scripts {
            let told: Vec<Txid> = view.of_script(&script).map(|entry| entry.txid).collect();
            assert_eq!(told.len(), txids.len());
            assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), txids);
        }
    }

    fn check_chunks(&self, pool: &Pool, most: usize) {
        let components = self.components();
        let mut sizes: BTreeMap<Txid, usize> = BTreeMap::new();
        for root in components.values() {
            *sizes.entry(*root).or_default() += 1;
        }
        assert!(sizes.values().all(|&size| size <= most));
        let mut done: BTreeSet<Txid> = BTreeSet::new();
        let mut last: Option<super::Chunk> = None;
        let fees: Vec<(u64, u64)> = pool.chunks().map(|chunk| (chunk.fee, chunk.vsize())).collect();
        assert_eq!(pool.chunk_fees().collect::<Vec<_>>(), fees);
        for chunk in pool.chunks() {
            if let Some(last) = &last {
                let (worse, better) =
                    (chunk.fee as u128 * last.weight as u128, last.fee as u128 * chunk.weight as u128);
                assert!(worse <= better, "feerates rise");
            }
            let entries: Vec<&Arc<Entry>> = chunk.txids.iter().map(|txid| &self.entries[txid]).collect();
            assert_eq!(chunk.fee, entries.iter().map(|entry| entry.fee.to_sat()).sum::<u64>());
            assert_eq!(chunk.weight, entries.iter().map(|entry| entry.weight).sum::<u64>());
            for entry in entries {
                assert_eq!(components[&entry.txid], components[&chunk.txids[0]]);
                assert!(self.parents(entry).is_subset(&done), "a parent comes later");
                assert!(done.insert(entry.txid), "twice");
            }
            last = Some(chunk);
        }
        assert_eq!(done.len(), self.entries.len());
    }
}

/// Random histories: newcomers that spend anything, blocks, conflicts, removals, expiry, eviction, reorganisations.
#[test]
fn the_pool_is_the_model() {
    let seeds = std::env::var("POOL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        history(seed, &Policy::core());
        history(seed, &Policy::knots());
    }
}

fn history(seed: u64, policy: &Policy) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let policy = Policy { max_bytes: 60_000 + rng.usize(..200_000), ..policy.clone() };
    let most = match policy.limits {
        ChainLimits::Cluster { count, .. } => count,
        ChainLimits::Ancestors { .. } => usize::MAX,
    };
    let mut pool = Pool::new(&policy);
    let mut model = Model::default();
    let mut confirmed: Vec<Arc<Entry>> = Vec::new();
    let mut number = 0;
    for step in 0..300 {
        let now = at(step * 60);
        let changes = match rng.u32(..100) {
            0..75 => {
                number += 1;
                let entry = newcomer(&mut rng, &model, number, now);
                let Ok(plan) = pool.plan(entry, &policy) else { continue };
                let mut changes = pool.commit(plan);
                assert!(!changes.added.is_empty());
                model.follow(&changes);
                model.check(&pool, now, most);
                changes = pool.trim(now);
                assert!(pool.bytes() <= policy.max_bytes);
                changes
            }
            75..85 => {
                // A block of some entries with their ancestors, and of one stranger.
                let some: Vec<Txid> = model.entries.keys().filter(|_| rng.u32(..4) == 0).copied().collect();
                let mut block: Vec<Arc<Entry>> = Vec::new();
                for txid in some {
                    for entry in pool.ancestors(&txid).into_iter().chain(pool.get(&txid)) {
                        if !block.contains(entry) {
                            block.push(Arc::clone(entry));
                        }
                    }
                }
                let stranger = coin(rng.u64(..60));
                let taken = block.iter().any(|entry| entry.inputs.iter().any(|i| i.outpoint == stranger));
                let mut txs: Vec<(Txid, Vec<OutPoint>)> = block
                    .iter()
                    .map(|entry| (entry.txid, entry.inputs.iter().map(|i| i.outpoint).collect()))
                    .collect();
                if !taken {
                    txs.push((coin(1_000 + step).txid, vec![stranger]));
                }
                confirmed = block;
                model.follow(&pool.begin_block(now, txs));
                // Nobody sees what has left, although the pool's own books have it still, and then its maps.
                for step in 0..3 {
                    let view = pool.view(now);
                    model.check_view(&view);
                    for entry in &confirmed {
                        assert!(view.entry(&entry.txid).is_none());
                        assert!(entry.inputs.iter().all(|input| view.spender(&input.outpoint).is_none()));
                        for script in entry.scripts() {
                            assert!(view.of_script(&script).all(|other| other.txid != entry.txid));
                        }
                    }
                    match step {
                        0 => pool.finish_block(),
                        _ => pool.sweep(rng.usize(..3)),
                    }
                }
                Changes::default()
            }
            85..92 => {
                // The last block is disconnected.
                let mut block = std::mem::take(&mut confirmed);
                block.sort_by_key(|entry| entry.unix);
                let mut changes = Changes::default();
                for entry in block {
                    match pool.insert_from_block(Arc::clone(&entry)) {
                        Ok(more) => changes.merge(more),
                        Err(_) => changes.merge(pool.remove_spenders(
                            entry.txid,
                            entry.outputs.len() as u32,
                            Removal::Reorg,
                        )),
                    }
                }
                changes.merge(pool.settle_reorg());
                changes
            }
            92..96 => {
                let some: Vec<Txid> = model.entries.keys().filter(|_| rng.u32(..20) == 0).copied().collect();
                pool.remove(&some, Removal::Reorg)
            }
            _ => pool.expire(now.after(policy.expiry - std::time::Duration::from_secs(60 * rng.u64(..100)))),
        };
        model.follow(&changes);
        model.check(&pool, now, most);
    }
}

fn newcomer(rng: &mut fastrand::Rng, model: &Model, number: u64, now: Now) -> Arc<Entry> {
    let mut inputs: BTreeSet<OutPoint> = BTreeSet::new();
    for _ in 0..rng.usize(1..4) {
        let parent = rng.choice(model.entries.values()).filter(|_| rng.u32(..3) > 0);
        inputs.insert(match parent {
            Some(parent) => output(parent, rng.u32(..4)),
            None => coin(rng.u64(..60)),
        });
    }
    let inputs: Vec<OutPoint> = inputs.into_iter().collect();
    let fee = if rng.bool() { rng.u64(100..2_000) } else { rng.u64(100..200_000) };
    draft(number, &inputs).outputs(4).fee(fee).vsize(rng.u64(100..1_000)).at(now).entry()
}
