//! A chain indexed in bulk, in memory so small that everything spills, gives the rows of one indexed block by block.

use std::sync::Arc;

use bitcoin::{Block, OutPoint};

use super::chain::{Answers, Forge, connect, small_options};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Error, Height, Options, Store};

fn options(memory: usize) -> Options {
    Options { bulk_blocks: 10, bulk_memory_bytes: memory, bulk_secret: Some(7), ..small_options() }
}

fn open(disk: &SimDisk, options: Options) -> Store {
    try_open(disk, options).unwrap()
}

fn try_open(disk: &SimDisk, options: Options) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, options)
}

fn chain(seed: u64, blocks: usize) -> Vec<Block> {
    let mut forge = Forge::new(seed);
    let mut chain = Vec::new();
    while chain.len() < blocks {
        let block = forge.block(&chain);
        chain.push(block);
    }
    chain
}

/// Genesis, then all headers, as a sync begins.
fn begin(store: &mut Store, chain: &[Block]) {
    if store.tip().is_none() {
        connect(store, &chain[0]).unwrap();
        store.commit().unwrap();
    }
    put_headers(store, chain);
}

/// The same above so many blocks, of which most are in a base.
fn begin_above(store: &mut Store, chain: &[Block], blocks: usize) {
    if store.tip().is_none() {
        chain[..blocks].iter().for_each(|block| connect(store, block).unwrap());
        store.commit().unwrap();
        store.merge().unwrap();
    }
    put_headers(store, chain);
}

fn put_headers(store: &mut Store, chain: &[Block]) {
    let headers: Vec<_> = chain.iter().zip(0u32..).map(|(block, at)| (Height(at), block.header)).collect();
    store.put_headers(&headers).unwrap();
}

fn go_on(store: &mut Store, chain: &[Block]) {
    while let Some(block) = chain.get(store.tip().unwrap().height.0 as usize + 1) {
        connect(store, block).unwrap();
    }
}

fn rows(store: &Store) -> Vec<String> {
    store.snapshot().dump().unwrap()
}

/// The rows of a store that never knew a bulk, with its base as high as that of the other.
fn wanted(chain: &[Block], base: usize) -> Vec<String> {
    let deltas = chain.len() - base;
    let mut store =
        open(&SimDisk::new(), Options { bulk_blocks: u32::MAX / 2, keep_deltas: deltas, ..small_options() });
    for block in chain {
        connect(&mut store, block).unwrap();
    }
    store.commit().unwrap();
    store.merge().unwrap();
    rows(&store)
}

#[test]
fn its_rows_are_those_of_blocks_indexed_one_by_one() {
    let mut bulks = 0;
    let cases =
        [(1, 0, 1), (2, 0, 1), (3, 1000, 1), (4, 20_000, 1), (5, 1 << 20, 1), (6, 0, 35), (7, 3000, 50)];
    for (seed, memory, before) in cases {
        let chain = chain(seed, 80);
        let mut store = open(&SimDisk::new(), options(memory));
        begin_above(&mut store, &chain, before);
        store.set_headers_complete().unwrap();
        for (at, block) in chain.iter().enumerate().skip(before) {
            connect(&mut store, block).unwrap();
            if before > 1 {
                store.commit().unwrap();
                while let Some(job) = store.merge_job().unwrap() {
                    store.merge_done(job.run()).unwrap();
                }
            }
            // A coinbase that repeats one of the base ends it for a while.
            assert!(store.is_bulk() == (at < 75) || (before > 1 && at < 75), "{at}");
            bulks += usize::from(store.is_bulk());
            let answers = Answers::of(&chain[..=at]);
            for txid in answers.txids.iter().rev().take(40) {
                let places: Vec<_> = (0..4).map(|vout| OutPoint::new(*txid, vout)).collect();
                let wanted: Vec<_> = places.iter().map(|place| answers.coins.get(place).copied()).collect();
                assert_eq!(store.coins(&places).unwrap(), wanted, "seed {seed} block {at}");
                assert_eq!(store.has_unspent(txid, 4).unwrap(), wanted.iter().any(Option::is_some));
            }
        }
        let commit = store.commit().unwrap();
        assert!(commit.everything || before > 1, "wallets must look again");
        Answers::of(&chain).check(&store.snapshot(), &chain, &format!("seed {seed}"));
        store.merge().unwrap();
        assert!(rows(&store) == wanted(&chain, 75), "seed {seed}: other rows");
    }
    assert!(bulks > 5 * 74 + 10, "only {bulks} blocks in bulk");
}

#[test]
fn it_ends_at_the_tip_when_the_headers_are_known_to_be_all_only_then() {
    let chain = chain(6, 40);
    let mut store = open(&SimDisk::new(), options(0));
    begin(&mut store, &chain);
    go_on(&mut store, &chain);
    store.commit().unwrap();
    assert!(store.is_bulk());
    store.set_headers_complete().unwrap();
    assert!(!store.is_bulk());
    let commit = store.commit().unwrap();
    assert_eq!(commit.snapshot.tip(), store.tip());
    Answers::of(&chain).check(&store.snapshot(), &chain, "at the tip");
}

#[test]
fn a_reorg_below_it_is_undone_like_any_other() {
    for undone in [1, 10, 30] {
        let old = chain(7, 40);
        let mut new = old[..40 - undone].to_vec();
        let mut forge = Forge::new(8);
        while new.len() < 44 {
            let block = forge.block(&new);
            new.push(block);
        }
        let mut store = open(&SimDisk::new(), options(500));
        begin(&mut store, &old);
        go_on(&mut store, &old);
        assert!(store.is_bulk());
        for _ in 0..undone {
            store.disconnect().unwrap();
        }
        store.set_headers_complete().unwrap();
        go_on(&mut store, &new);
        store.commit().unwrap();
        assert!(!store.is_bulk());
        Answers::of(&new).check(&store.snapshot(), &new, &format!("{undone} undone"));
    }
}

#[test]
fn another_branch_of_headers_takes_a_bulk_along() {
    let old = chain(9, 40);
    let mut new = old[..20].to_vec();
    let mut forge = Forge::new(10);
    while new.len() < 60 {
        let block = forge.block(&new);
        new.push(block);
    }
    let mut store = open(&SimDisk::new(), options(500));
    begin(&mut store, &old);
    go_on(&mut store, &old[..20]);
    assert!(store.is_bulk());
    // The blocks come before anybody said that their headers are better.
    put_headers(&mut store, &new);
    go_on(&mut store, &new);
    store.flush().unwrap();
    store.set_headers_complete().unwrap();
    store.commit().unwrap();
    Answers::of(&new).check(&store.snapshot(), &new, "the other branch");
}

#[test]
fn cut_off_at_any_sync_it_goes_on_from_where_it_was_durable() {
    let mut moments = 0;
    for (seed, before) in [(20, 1), (21, 14)] {
        let chain = chain(seed, 34);
        let disk = SimDisk::new();
        {
            let mut store = open(&disk, options(0));
            begin_above(&mut store, &chain, before);
            disk.record(97);
            store.set_headers_complete().unwrap();
            for (at, block) in chain.iter().enumerate().skip(before) {
                disk.label(at);
                connect(&mut store, block).unwrap();
                if at % 7 == 0 {
                    store.flush().unwrap();
                }
            }
            store.commit().unwrap();
        }
        let wanted = wanted(&chain, 29);
        for (moment, (label, disk)) in disk.recorded().iter().enumerate() {
            let context = format!("seed {seed} moment {moment} in block {label}");
            let crashed = disk.crash(seed * 1000 + moment as u64);
            let mut store =
                try_open(&crashed, options(0)).unwrap_or_else(|error| panic!("{context}: {error}"));
            let found = store.tip().map_or(0, |tip| tip.height.0 as usize);
            // At most the blocks since the last flush are lost.
            assert!(found <= *label && found + 8 >= *label, "{context}: block {found}");
            begin(&mut store, &chain);
            store.set_headers_complete().unwrap();
            go_on(&mut store, &chain);
            store.commit().unwrap();
            store.merge().unwrap();
            let got = rows(&store);
            let other = got.iter().zip(&wanted).find(|(got, wanted)| got != wanted);
            assert!(got == wanted, "{context}: {other:?}");
            drop(store);
            let store = open(&crashed, options(0));
            assert!(rows(&store) == wanted, "{context}: other rows after reopening");
            moments += 1;
        }
    }
    assert!(moments > 100, "only {moments} moments");
}

#[test]
fn what_is_rolled_back_takes_no_header_of_a_block_that_a_bulk_took() {
    let old = chain(11, 40);
    let mut new = old[..20].to_vec();
    let mut forge = Forge::new(12);
    while new.len() < 24 {
        let block = forge.block(&new);
        new.push(block);
    }
    let disk = SimDisk::new();
    let mut store = open(&disk, options(500));
    begin(&mut store, &old);
    go_on(&mut store, &old[..20]);
    store.commit().unwrap();
    // Blocks off the header chain, as a switch connects them, and then one that does not fit.
    go_on(&mut store, &new);
    store.rollback().unwrap();
    store.flush().unwrap();
    drop(store);
    let mut store = open(&disk, options(500));
    assert_eq!(store.tip().unwrap().hash, new[23].block_hash());
    store.set_headers_complete().unwrap();
    store.commit().unwrap();
    Answers::of(&new).check(&store.snapshot(), &new, "rolled back");
}
