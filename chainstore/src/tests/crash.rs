//! A scripted life of a store, cut off at every sync and between: what is found again is a state that it had.
//!
//! The script connects, merges, reorganises within and beyond the deltas, keeps blocks and headers aside and
//! shortens the header chain. Each recorded moment is crashed in several ways, reopened, compared, led on to the
//! end of the script, and there equals a store built in one go, in answers and in rows.

use std::sync::Arc;

use bitcoin::Block;

use super::chain::{Answers, Forge, aside, connect, small_options};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Error, Height, Options, Store};

/// How many ways each moment is crashed.
const WAYS: u64 = 2;

fn open(disk: &SimDisk) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    // Each part is a file: a few of them are enough to be cut off between.
    Store::open_on(disk, Options { part_bytes: 3000, ..small_options() })
}

/// One durable step: blocks to undo, then blocks to connect, then a merge or not.
#[derive(Debug)]
struct Step {
    undo: usize,
    connect: Vec<Block>,
    merge: bool,
    /// A block of another branch to keep, with its height, and its header.
    keep: Option<(usize, Block)>,
}

/// The steps, and the chain after each of them; the first chain is empty.
fn script(seed: u64) -> (Vec<Step>, Vec<Vec<Block>>) {
    let mut forge = Forge::new(seed);
    let mut chains: Vec<Vec<Block>> = vec![Vec::new()];
    let mut steps = Vec::new();
    // Blocks undone, blocks connected, merge, keep a side block.
    let plan = [
        (0, 4, false, false),
        (0, 5, true, false),
        (2, 3, false, true),
        (0, 4, true, false),
        // Deeper than the deltas, to a shorter chain and to a longer one.
        (9, 2, false, true),
        (0, 8, true, false),
        (1, 1, false, false),
        (11, 13, true, true),
        (0, 2, true, false),
    ];
    for (undo, count, merge, keep) in plan {
        let mut chain = chains.last().expect("there is the first").clone();
        chain.truncate(chain.len() - undo);
        let mut new = Vec::new();
        for _ in 0..count {
            let block = forge.block(&chain);
            chain.push(block.clone());
            new.push(block);
        }
        let keep = keep.then(|| {
            let at = chain.len() - 2;
            (at, forge.block(&chain[..at]))
        });
        steps.push(Step { undo, connect: new, merge, keep });
        chains.push(chain);
    }
    (steps, chains)
}

/// Does a step; `Err` where the disk failed.
fn run(store: &mut Store, step: &Step) -> Result<(), Error> {
    for _ in 0..step.undo {
        store.disconnect()?;
    }
    for block in &step.connect {
        connect(store, block)?;
    }
    if let Some((at, block)) = &step.keep {
        let height = Height(*at as u32);
        store.store_block(height, block.block_hash(), &bitcoin::consensus::serialize(block))?;
        store.put_headers(&[(height, block.header)])?;
    }
    store.commit()?;
    if step.merge {
        store.merge()?;
    }
    Ok(())
}

/// Leads a store from whatever chain it has to `chain`, and merges.
fn lead_to(store: &mut Store, chain: &[Block]) {
    let stands = |store: &Store| match store.tip() {
        Some(tip) => chain.get(tip.height.0 as usize).is_some_and(|block| block.block_hash() == tip.hash),
        None => true,
    };
    while !stands(store) {
        store.disconnect().unwrap();
    }
    let next = store.tip().map_or(0, |tip| tip.height.0 as usize + 1);
    for block in &chain[next..] {
        connect(store, block).unwrap();
    }
    store.commit().unwrap();
    store.merge().unwrap();
}

fn rows(store: &Store) -> Vec<String> {
    store.snapshot().dump().unwrap()
}

fn fresh(chain: &[Block]) -> Vec<String> {
    let mut store = open(&SimDisk::new()).unwrap();
    lead_to(&mut store, chain);
    rows(&store)
}

/// Which of the script's chains the store has; only those around `label` may be.
fn found(store: &Store, chains: &[Vec<Block>], label: usize, context: &str) -> usize {
    let tip = store.tip().map(|tip| tip.hash);
    let around = label..=(label + 1).min(chains.len() - 1);
    let at = around.clone().find(|at| chains[*at].last().map(Block::block_hash) == tip);
    at.unwrap_or_else(|| panic!("{context}: the tip {tip:?} is of none of the chains {around:?}"))
}

fn crash_everywhere(seed: u64) -> usize {
    let (steps, chains) = script(seed);
    let disk = SimDisk::new();
    disk.record(19);
    {
        let mut store = open(&disk).unwrap();
        for (number, step) in steps.iter().enumerate() {
            disk.label(number);
            run(&mut store, step).unwrap();
        }
    }
    let end = chains.last().expect("the script has steps");
    let wanted = fresh(end);
    let moments = disk.recorded();
    for (moment, (label, disk)) in moments.iter().enumerate() {
        for way in 0..WAYS {
            let context = format!("seed {seed} moment {moment} in step {label} way {way}");
            let crashed = disk.crash(seed * 1000 + way * 7919 + moment as u64);
            let mut store = open(&crashed).unwrap_or_else(|error| panic!("{context}: {error}"));
            let at = found(&store, &chains, *label, &context);
            Answers::of(&chains[at]).check(&store.snapshot(), &chains[at], &context);
            // What is said aside must be readable, whatever was cut.
            aside(&store);
            lead_to(&mut store, end);
            assert!(rows(&store) == wanted, "{context}: other rows than a fresh store's");
            drop(store);
            // And it is still there the next time.
            let store = open(&crashed).unwrap_or_else(|error| panic!("{context}, again: {error}"));
            assert!(rows(&store) == wanted, "{context}: other rows after reopening");
        }
    }
    moments.len()
}

#[test]
fn cut_off_at_any_sync_it_has_a_state_that_it_had() {
    let moments: usize = (0..2).map(crash_everywhere).sum();
    // The recorder must have recorded: some ten syncs a step.
    assert!(moments > 100, "only {moments} moments");
}

#[test]
fn a_crash_while_recovering_from_a_crash_is_no_worse() {
    let (steps, chains) = script(11);
    let disk = SimDisk::new();
    disk.record(151);
    {
        let mut store = open(&disk).unwrap();
        for (number, step) in steps.iter().enumerate() {
            disk.label(number);
            run(&mut store, step).unwrap();
        }
    }
    let mut again = 0;
    for (moment, (label, disk)) in disk.recorded().iter().enumerate().step_by(5) {
        let crashed = disk.crash(moment as u64);
        crashed.record(7);
        drop(open(&crashed).unwrap_or_else(|error| panic!("moment {moment}: {error}")));
        for (inner, (_, disk)) in crashed.recorded().iter().enumerate() {
            let context = format!("moment {moment} in step {label}, moment {inner} of the recovery");
            let store = open(&disk.crash(inner as u64)).unwrap_or_else(|error| panic!("{context}: {error}"));
            let at = found(&store, &chains, *label, &context);
            Answers::of(&chains[at]).check(&store.snapshot(), &chains[at], &context);
            again += 1;
        }
    }
    assert!(again > 100, "only {again} crashes of recoveries");
}

#[test]
fn an_fsync_that_fails_ends_the_store_and_loses_nothing_durable() {
    let (steps, chains) = script(5);
    let mut failed = 0;
    for after in 0..60 {
        let disk = SimDisk::new();
        let mut store = open(&disk).unwrap();
        disk.fail_sync(after);
        let stopped = steps.iter().position(|step| run(&mut store, step).is_err());
        let Some(stopped) = stopped else { continue };
        failed += 1;
        assert!(matches!(store.commit(), Err(Error::Dead { .. })), "after {after}: it goes on");
        drop(store);
        let context = format!("sync {after} failed in step {stopped}");
        let store = open(&disk.crash(after)).unwrap_or_else(|error| panic!("{context}: {error}"));
        let at = found(&store, &chains, stopped, &context);
        Answers::of(&chains[at]).check(&store.snapshot(), &chains[at], &context);
    }
    assert!(failed > 20, "only {failed} failed");
}

#[test]
fn a_full_disk_is_said_and_nothing_is_damaged() {
    let (steps, chains) = script(6);
    let mut full = 0;
    for room in (0..200_000).step_by(9_973) {
        let disk = SimDisk::new();
        let mut store = open(&disk).unwrap();
        disk.set_room(Some(room));
        let stopped = steps
            .iter()
            .enumerate()
            .find_map(|(at, step)| run(&mut store, step).err().map(|error| (at, error)));
        let Some((stopped, error)) = stopped else { continue };
        full += 1;
        assert!(matches!(error, Error::StorageFull { .. }), "room {room}: {error}");
        drop(store);
        disk.set_room(None);
        let context = format!("room {room}, full in step {stopped}");
        let mut store = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        let at = found(&store, &chains, stopped, &context);
        Answers::of(&chains[at]).check(&store.snapshot(), &chains[at], &context);
        lead_to(&mut store, chains.last().expect("the script has steps"));
        assert!(rows(&store) == fresh(chains.last().expect("the script has steps")), "{context}");
    }
    assert!(full > 3, "only {full} times full");
}
