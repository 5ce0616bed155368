//! A check of a sound folder finds nothing; of a damaged one, the damage, in words that name the place.

use std::sync::Arc;

use bitcoin::Block;

use super::chain::{Forge, connect, small_options};
use crate::check::{Checker, Report};
use crate::delta::{Delta, LooseRows};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Height, Options, Store};

const BLOCKS: usize = 60;

fn options() -> Options {
    Options { txid_prefix: 6, ..small_options() }
}

fn open(disk: &SimDisk, options: Options) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, options).unwrap()
}

fn chain(seed: u64) -> Vec<Block> {
    let mut forge = Forge::new(seed);
    let mut chain = Vec::new();
    while chain.len() < BLOCKS {
        let block = forge.block(&chain);
        chain.push(block);
    }
    chain
}

/// A folder with base and deltas.
fn folder(seed: u64, options: Options) -> SimDisk {
    let disk = SimDisk::new();
    let kept = options.keep_deltas;
    let mut store = open(&disk, options);
    for block in &chain(seed) {
        connect(&mut store, block).unwrap();
    }
    store.commit().unwrap();
    store.merge().unwrap();
    assert!(store.view.base.blocks > 50 && store.view.deltas.len() == kept);
    disk
}

fn check(store: &mut Store, memory_bytes: usize) -> Report {
    let mut shares = Vec::new();
    let mut checker =
        Checker { memory_bytes, header: &|_| Ok(()), progress: &mut |share| shares.push(share) };
    let report = store.check(&mut checker).unwrap();
    assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{shares:?}");
    assert!(shares.len() >= BLOCKS);
    report
}

/// The check finds what is wrong with these words in one of its problems.
fn assert_found(report: &Report, file: &str, words: &[&str]) {
    let found = report
        .problems
        .iter()
        .any(|problem| problem.file == file && words.iter().all(|word| problem.what.contains(word)));
    assert!(found, "{file} {words:?} is missing in {report:#?}");
}

#[test]
fn a_sound_folder_is_sound_in_one_pass_or_in_many() {
    for (seed, options) in [(1, options()), (2, small_options()), (3, options())] {
        let mut store = open(&folder(seed, options.clone()), options);
        let whole = check(&mut store, 1 << 30);
        assert!(whole.is_sound() && whole.skipped.is_empty(), "seed {seed}: {whole:#?}");
        assert_eq!((whole.blocks, whole.passes), (BLOCKS as u32, 2));
        let small = check(&mut store, 160 * 20);
        assert!(small.is_sound(), "seed {seed}: {small:#?}");
        assert!(small.passes > 3, "seed {seed}: {} passes", small.passes);
    }
}

#[test]
fn damage_of_any_flat_file_is_named() {
    type Case = (&'static str, usize, &'static str, &'static [&'static str]);
    let cases: [Case; 6] = [
        // File, byte; the file that is named, and words.
        ("blocks/00000.blk", 400, "blocks/00000.blk", &["block at height", "checksum"]),
        ("headers", 20 * 80 + 76, "headers", &["header at height 21", "does not build on the one below"]),
        ("hashes", 32 * 7, "hashes", &["node 7", "is wrong"]),
        ("txids", 32 * 9, "txids", &["transaction 9 ", "height", "the file says"]),
        ("txpos", 4 * 9, "txpos", &["transaction 9 ", "starts at byte"]),
        ("blockpos", 16 * 9 + 12, "blockpos", &["height 9: counts", "the block has"]),
    ];
    for (tampered, at, file, words) in cases {
        let disk = folder(4, options());
        disk.tamper(tampered, |bytes| bytes[at] ^= 1);
        let report = check(&mut open(&disk, options()), 1 << 30);
        assert_found(&report, file, words);
        assert_eq!(file.starts_with("blocks/"), !report.skipped.is_empty(), "{report:#?}");
    }
}

#[test]
fn damage_of_any_part_of_the_base_is_named() {
    let names = folder(4, options()).list("base").unwrap();
    assert!(names.len() >= 3, "{names:?}");
    for name in names.iter().map(|name| format!("base/{name}")) {
        let disk = folder(4, options());
        disk.tamper(&name, |bytes| bytes[50] ^= 1);
        let report = check(&mut open(&disk, options()), 1 << 30);
        assert_found(&report, &name, &["the index cannot be read", "checksum of a row does not match"]);

        let disk = folder(4, options());
        disk.tamper(&name, |bytes| bytes.truncate(bytes.len() - 1));
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let refused = Store::open_on(disk, options()).unwrap_err().to_string();
        assert!(refused.starts_with(&name) && refused.contains("were written"), "{refused}");
    }
}

#[test]
fn a_header_without_work_is_named() {
    let mut store = open(&folder(5, options()), options());
    let mut checker = Checker {
        memory_bytes: 1 << 30,
        header: &|header| if header.nonce % 7 == 3 { Err("high-hash".to_owned()) } else { Ok(()) },
        progress: &mut |_| {},
    };
    let report = store.check(&mut checker).unwrap();
    assert_found(&report, "headers", &["header at height", "high-hash"]);
}

/// A store that keeps five deltas, with the base of one that keeps so many.
fn with_base_of(keep_deltas: usize) -> Store {
    let mut store = open(&folder(6, options()), options());
    let others = Options { keep_deltas, ..options() };
    let other = open(&folder(6, others.clone()), others);
    let mut index = (*other.view.index).clone();
    index.pretend(store.view.base.reach());
    store.view.index = Arc::new(index);
    store
}

#[test]
fn rows_that_the_base_misses_or_has_too_much_are_named() {
    // Without the rows of its last block.
    let mut store = with_base_of(6);
    let base = store.view.base;
    let top = Height(base.blocks - 1);
    let report = check(&mut store, 1 << 30);
    let height = format!("at height {top}");
    assert_found(&report, "base", &["its history misses", "transaction ", &height]);
    assert_found(&report, "base", &["misses unspent output", &height]);
    assert_found(&report, "base", &["the coin of output", &height, "is missing"]);
    assert_found(&report, "base", &[&height, "is not found by its id"]);

    // With the rows of blocks that are not in it.
    let mut store = with_base_of(0);
    let report = check(&mut store, 1 << 30);
    assert_found(&report, "base", &["its history has", "too much"]);
    assert_found(&report, "base", &["which is not unspent"]);
    assert_found(&report, "base", &["there is a coin of output"]);
    assert_found(&report, "base", &["is found by an id that begins with"]);
}

#[test]
fn rows_of_the_newest_blocks_that_are_not_theirs_are_named() {
    let disk = folder(7, options());
    let store = open(&disk, options());
    let top = store.view.deltas.last().unwrap().clone();
    let empty = Delta::new(top.head.clone(), LooseRows::default());
    let change = store.tip.change().unwrap();
    change.put_delta(&empty).unwrap();
    change.commit().unwrap();
    drop(store);
    let report = check(&mut open(&disk, options()), 1 << 30);
    assert_found(&report, "tip.redb", &["rows of the block at height 59", "are not those of it"]);
    assert_eq!(report.problems.len(), 1, "{report:#?}");
}

#[test]
fn a_first_sync_that_goes_on_is_checked_as_far_as_it_is_written() {
    let disk = SimDisk::new();
    let bulk = Options { bulk_blocks: 10, bulk_memory_bytes: 20_000, bulk_secret: Some(7), ..options() };
    let mut store = open(&disk, bulk.clone());
    let chain = chain(8);
    connect(&mut store, &chain[0]).unwrap();
    let headers: Vec<_> = chain.iter().zip(0u32..).map(|(block, at)| (Height(at), block.header)).collect();
    store.put_headers(&headers).unwrap();
    for block in &chain[1..] {
        connect(&mut store, block).unwrap();
    }
    store.flush().unwrap();
    assert!(store.is_bulk());
    let report = check(&mut store, 1 << 30);
    assert!(report.is_sound(), "{report:#?}");
    assert!(report.skipped.iter().any(|what| what.contains("first sync has not ended")));
    assert_eq!(report.blocks, BLOCKS as u32);
    drop(store);

    disk.tamper("txids", |bytes| bytes[32 * 9] ^= 1);
    assert_found(&check(&mut open(&disk, bulk), 1 << 30), "txids", &["transaction 9 "]);
}
