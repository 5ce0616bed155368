//! A disk that runs full at any write: nothing durable is lost, snapshots answer on, and the store goes on without
//! being opened from nothing, to the rows of one that never met it.

use std::sync::Arc;

use bitcoin::Block;

use super::chain::{Answers, Forge, connect, small_options};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Error, Height, Options, Snapshot, Store};

fn options(bulk: bool) -> Options {
    let bulk_blocks = if bulk { 10 } else { u32::MAX / 2 };
    Options {
        bulk_blocks,
        bulk_memory_bytes: 4000,
        bulk_secret: Some(7),
        part_bytes: 1 << 20,
        ..small_options()
    }
}

fn open(disk: &SimDisk, options: Options) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, options).unwrap()
}

/// Chains that follow each other: a reorg within the deltas, one below them, and so many blocks that all stores have
/// the same base in the end.
fn chains() -> Vec<Vec<Block>> {
    let mut forge = Forge::new(21);
    let mut chains: Vec<Vec<Block>> = Vec::new();
    let mut chain: Vec<Block> = Vec::new();
    for (undo, count) in [(0, 30), (2, 6), (0, 8), (12, 20), (0, 10)] {
        chain.truncate(chain.len() - undo);
        for _ in 0..count {
            let block = forge.block(&chain);
            chain.push(block);
        }
        chains.push(chain.clone());
    }
    chains
}

/// Leads the store to `chain` as the server does, with a commit every few blocks; `Err` where the disk was full.
fn lead(store: &mut Store, chain: &[Block]) -> Result<(), Error> {
    let stands = |store: &Store| match store.tip() {
        Some(tip) => chain.get(tip.height.0 as usize).is_some_and(|block| block.block_hash() == tip.hash),
        None => true,
    };
    while !stands(store) {
        store.disconnect()?;
    }
    if store.tip().is_none() {
        connect(store, &chain[0])?;
    }
    let headers: Vec<_> = chain.iter().zip(0u32..).map(|(block, at)| (Height(at), block.header)).collect();
    store.put_headers(&headers)?;
    while let Some(tip) = store.tip()
        && let Some(block) = chain.get(tip.height.0 as usize + 1)
    {
        connect(store, block)?;
        if tip.height.0 % 4 == 0 {
            store.commit()?;
            store.flush()?;
        }
        if store.merge_due() && store.commit().is_ok() {
            store.merge()?;
        }
    }
    store.set_headers_complete()?;
    store.commit()?;
    store.merge()?;
    Ok(())
}

fn rows(store: &Store) -> Vec<String> {
    store.snapshot().dump().unwrap()
}

/// Of all chains the start that ends with the snapshot's tip, which must be a state that the store had.
fn chain_of<'a>(snapshot: &Snapshot, chains: &'a [Vec<Block>], context: &str) -> &'a [Block] {
    let Some(tip) = snapshot.tip() else { return &[] };
    let at = tip.height.0 as usize;
    let chain = chains.iter().find(|chain| chain.get(at).is_some_and(|block| block.block_hash() == tip.hash));
    &chain.unwrap_or_else(|| panic!("{context}: the tip {tip:?} is of none of the chains"))[..=at]
}

/// Writes until the disk is full at the given write, goes on, and ends as `wanted`; `false` when it was never full.
fn full_at(write: u64, bulk: bool, chains: &[Vec<Block>], wanted: &[String]) -> bool {
    let context = format!("bulk {bulk}, full at write {write}");
    let disk = SimDisk::new();
    let mut store = open(&disk, options(bulk));
    disk.set_writes_left(Some(write));
    let stopped = chains.iter().find_map(|chain| lead(&mut store, chain).err());
    let Some(error) = stopped else { return false };
    assert!(matches!(error, Error::StorageFull { .. }), "{context}: {error}");

    let before = store.snapshot();
    let known = chain_of(&before, chains, &context);
    let mut stopped = store.stop();
    let still = |context: &str| match before.raw_block(Height(0)) {
        // A deep reorg had begun.
        Err(Error::SnapshotGone) => {}
        _ if !known.is_empty() => Answers::of(known).check(&before, known, context),
        _ => {}
    };
    still(&format!("{context}, stopped"));
    // As long as nothing can be written, opening may fail, and can be tried again.
    for _ in 0..2 {
        stopped = match stopped.open() {
            Ok(store) => store.stop(),
            Err((again, error)) => {
                assert!(matches!(error, Error::StorageFull { .. }), "{context}, opened: {error}");
                again
            }
        };
    }
    disk.set_writes_left(None);
    let mut store = stopped.open().unwrap_or_else(|(_, error)| panic!("{context}: {error}"));
    let found = store.snapshot();
    let now = chain_of(&found, chains, &context);
    if !now.is_empty() {
        Answers::of(now).check(&found, now, &context);
    }
    still(&format!("{context}, beside the new one"));
    for chain in &chains[chains.len() - 2..] {
        lead(&mut store, chain).unwrap_or_else(|error| panic!("{context}: {error}"));
        Answers::of(chain).check(&store.snapshot(), chain, &context);
    }
    assert!(rows(&store) == wanted, "{context}: other rows than without a full disk");
    drop(store);
    assert!(rows(&open(&disk, options(bulk))) == wanted, "{context}: other rows after reopening");
    true
}

/// At every so many-th write: `CHAINSTORE_FULL_STEP=1` for each.
fn full_everywhere(bulk: bool) -> u64 {
    let step = std::env::var("CHAINSTORE_FULL_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(97);
    let chains = chains();
    let mut store = open(&SimDisk::new(), options(bulk));
    chains.iter().for_each(|chain| lead(&mut store, chain).unwrap());
    let end = chains.last().unwrap();
    Answers::of(end).check(&store.snapshot(), end, "without a full disk");
    let wanted = rows(&store);
    drop(store);
    (0..).step_by(step).take_while(|write| full_at(*write, bulk, &chains, &wanted)).count() as u64
}

#[test]
fn full_at_any_write_of_a_chain_block_by_block() {
    let times = full_everywhere(false);
    assert!(times > 10, "only {times} times");
}

#[test]
fn full_at_any_write_of_a_bulk() {
    let times = full_everywhere(true);
    assert!(times > 10, "only {times} times");
}

#[test]
fn a_step_is_refused_before_it_writes_anything() {
    let chain = &chains()[0];
    let mut refused = 0;
    for bulk in [false, true] {
        let disk = SimDisk::new();
        let reserve_bytes = 1 << 30;
        let mut store = open(&disk, Options { reserve_bytes, ..options(bulk) });
        for block in &chain[..2] {
            connect(&mut store, block).unwrap();
        }
        store.commit().unwrap();
        let headers: Vec<_> =
            chain.iter().zip(0u32..).map(|(block, at)| (Height(at), block.header)).collect();
        store.put_headers(&headers).unwrap();
        for block in &chain[2..] {
            // Whatever a step may take, it is more than nothing above the reserve.
            if !bulk {
                connect(&mut store, block).unwrap();
            }
            for step in [Store::flush, |store: &mut Store| store.commit().map(drop)] {
                disk.set_free(Some(reserve_bytes));
                let before = (disk.events(), disk.syncs());
                match step(&mut store) {
                    Err(Error::StorageFull { needed, .. }) => {
                        assert!(needed > reserve_bytes);
                        assert!(!store.has_room(needed));
                        refused += 1;
                    }
                    result => result.unwrap(),
                }
                assert_eq!((disk.events(), disk.syncs()), before, "something was written");
                disk.set_free(None);
            }
            if bulk {
                connect(&mut store, block).unwrap();
            }
            store.commit().unwrap();
            if store.merge_due() {
                disk.set_free(Some(reserve_bytes));
                let before = (disk.events(), disk.syncs());
                assert!(matches!(store.merge(), Err(Error::StorageFull { .. })));
                assert_eq!((disk.events(), disk.syncs()), before, "something was written");
                disk.set_free(None);
                store.merge().unwrap();
                refused += 1;
            }
        }
        if bulk {
            disk.set_free(Some(reserve_bytes));
            assert!(matches!(store.set_headers_complete(), Err(Error::StorageFull { .. })));
            disk.set_free(None);
        }
        // A store that was refused goes on as if nothing had been.
        store.set_headers_complete().unwrap();
        store.commit().unwrap();
        Answers::of(chain).check(&store.snapshot(), chain, "after all");
    }
    assert!(refused > 40, "only {refused} times");
}
