//! Block files damaged from outside: what is said of it, and what is there after the block was given again.

use std::sync::Arc;

use bitcoin::Block;
use bitcoin::consensus::serialize;

use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::tests::chain::{Answers, Forge, connect, small_options};
use crate::{Error, Height, Store, Tip};

/// Blocks of the chain; three lie above the base.
const BLOCKS: usize = 20;

fn open(disk: &SimDisk) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, small_options())
}

/// A folder with a chain, most of it in the base, and a kept block of another branch, which comes last.
fn filled(seed: u64) -> (SimDisk, Vec<Block>, Block) {
    let disk = SimDisk::new();
    let mut store = open(&disk).unwrap();
    let mut forge = Forge::new(seed);
    let mut chain = Vec::new();
    for number in 0..BLOCKS {
        let block = forge.block(&chain);
        connect(&mut store, &block).unwrap();
        chain.push(block);
        store.commit().unwrap();
        if number == 16 {
            store.merge().unwrap();
        }
    }
    let kept = forge.block(&chain[..18]);
    store.store_block(Height(18), kept.block_hash(), &serialize(&kept)).unwrap();
    store.put_headers(&[(Height(18), kept.header)]).unwrap();
    store.commit().unwrap();
    drop(store);
    (disk, chain, kept)
}

fn tip(block: &Block, height: usize) -> Tip {
    Tip { height: Height(height as u32), hash: block.block_hash() }
}

/// Turns a bit in the middle of a block, wherever in the files it lies.
fn turn_a_bit(disk: &SimDisk, block: &Block) {
    let raw = serialize(block);
    let mut hits = 0;
    for name in disk.list("blocks").unwrap() {
        disk.tamper(&format!("blocks/{name}"), |bytes| {
            if let Some(at) = bytes.windows(raw.len()).position(|window| window == raw) {
                bytes[at + raw.len() / 2] ^= 1;
                hits += 1;
            }
        });
    }
    assert_eq!(hits, 1);
}

fn damaged(store: &Store) -> Vec<Tip> {
    let mut blocks: Vec<Tip> =
        store.snapshot().damaged_blocks().into_iter().map(|damaged| damaged.block).collect();
    blocks.sort_by_key(|block| block.height);
    blocks
}

#[test]
fn what_a_reader_saw_before_the_repair_is_not_held_against_the_block() {
    let (disk, chain, _) = filled(9);
    turn_a_bit(&disk, &chain[3]);
    let mut store = open(&disk).unwrap();
    let repairs = store.files.blocks.repairs();
    let moves = repairs.moves();
    let seen = store.snapshot().raw_block(Height(3));
    store.repair_block(tip(&chain[3], 3), &serialize(&chain[3])).unwrap();
    store.files.blocks.repairs().note(&seen, moves);
    assert_eq!(damaged(&store), []);
}

#[test]
fn of_many_damaged_blocks_others_are_told_each_time() {
    let (disk, chain, _) = filled(10);
    chain.iter().for_each(|block| turn_a_bit(&disk, block));
    let store = open(&disk).unwrap();
    read_all(&store);
    let first = damaged(&store);
    assert_eq!(first.len(), 16);
    let second = damaged(&store);
    assert!((0..BLOCKS).all(|height| first.iter().chain(&second).any(|b| b.height.0 as usize == height)));
}

/// Reads all there is.
fn read_all(store: &Store) {
    for height in 0..BLOCKS {
        let _ = store.snapshot().raw_block(Height(height as u32));
    }
}

#[test]
fn a_damaged_block_is_named_and_once_given_again_is_as_it_was() {
    for height in [0, 3, 11, 16, 17, 19] {
        let (disk, chain, _) = filled(1);
        let block = &chain[height];
        let wanted = open(&disk).unwrap().snapshot().dump().unwrap();
        turn_a_bit(&disk, block);

        let mut store = open(&disk).unwrap();
        let before = store.snapshot();
        assert_eq!(damaged(&store), [], "nobody has looked");
        let txid = block.txdata.last().unwrap().compute_txid();
        for error in [before.raw_block(Height(height as u32)).unwrap_err(), before.dump().unwrap_err()] {
            let Error::DamagedBlock { height: at, hash, what } = error else { panic!("{error}") };
            assert_eq!((at, hash), (Height(height as u32), block.block_hash()));
            assert!(what.contains("block file") && what.contains("checksum"), "{what}");
        }
        if let Err(error) = before.raw_tx(&txid) {
            assert!(matches!(error, Error::DamagedBlock { .. }), "{error}");
        }
        assert_eq!(damaged(&store), [tip(block, height)]);

        assert!(store.repair_block(tip(block, height), &serialize(block)).unwrap());
        assert_eq!(damaged(&store), []);
        assert_eq!(before.dump().unwrap(), wanted, "also for those who began to read before");
        assert!(!store.repair_block(tip(block, height), &serialize(block)).unwrap(), "it is there");
        drop((store, before));
        let store = open(&disk).unwrap();
        assert_eq!(store.snapshot().dump().unwrap(), wanted);
        Answers::of(&chain).check(&store.snapshot(), &chain, "read back");
    }
}

#[test]
fn the_way_to_the_new_place_holds_whatever_becomes_of_the_block() {
    let (disk, chain, kept) = filled(2);
    for block in chain.iter().chain([&kept]) {
        turn_a_bit(&disk, block);
    }
    let mut store = open(&disk).unwrap();
    for (height, block) in chain.iter().enumerate() {
        assert!(store.repair_block(tip(block, height), &serialize(block)).unwrap(), "{height}");
    }
    assert!(store.stored_block(&kept.block_hash()).is_err());
    assert!(store.repair_block(tip(&kept, 18), &serialize(&kept)).unwrap());
    // Out of the chain below the deltas, into it again from what is kept, and into the base.
    for _ in 0..10 {
        store.disconnect().unwrap();
    }
    store.commit().unwrap();
    for block in &chain[10..18] {
        assert_eq!(store.stored_block(&block.block_hash()).unwrap().unwrap(), serialize(block));
        connect(&mut store, block).unwrap();
    }
    assert_eq!(store.stored_block(&kept.block_hash()).unwrap().unwrap(), serialize(&kept));
    connect(&mut store, &kept).unwrap();
    store.commit().unwrap();
    store.merge().unwrap();
    drop(store);

    let branch = [&chain[..18], &[kept]].concat();
    let store = open(&disk).unwrap();
    Answers::of(&branch).check(&store.snapshot(), &branch, "the other branch");
}

#[test]
fn a_deep_undo_names_the_block_that_it_needs_and_goes_on_once_it_is_there() {
    let (disk, chain, _) = filled(3);
    for block in &chain {
        turn_a_bit(&disk, block);
    }
    let mut store = open(&disk).unwrap();
    let mut repaired = 0;
    while store.tip().is_some_and(|tip| tip.height.0 > 8) {
        match store.disconnect() {
            Ok(_) => {}
            Err(Error::DamagedBlock { height, hash, .. }) => {
                store.rollback().unwrap();
                let block = &chain[height.0 as usize];
                assert!(store.repair_block(Tip { height, hash }, &serialize(block)).unwrap());
                repaired += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(repaired > 5, "{repaired}");
    store.commit().unwrap();
    for block in &chain[..9] {
        let height = store.snapshot().tip().map_or(0, |tip| tip.height.0 as usize);
        assert_eq!(height, 8);
        let at = chain.iter().position(|other| other == block).unwrap();
        store.repair_block(tip(block, at), &serialize(block)).unwrap();
    }
    Answers::of(&chain[..9]).check(&store.snapshot(), &chain[..9], "undone");
}

#[test]
fn what_is_missing_of_the_block_files_is_known_at_the_start() {
    let (disk, chain, kept) = filled(4);
    let wanted = open(&disk).unwrap().snapshot().dump().unwrap();
    let names = disk.list("blocks").unwrap();
    assert!(names.len() > 3, "{names:?}");
    let last = names.iter().max().unwrap();
    type Damage = Box<dyn Fn(&SimDisk)>;
    let (cut, gone) = (format!("blocks/{last}"), format!("blocks/{last}"));
    let damages: Vec<(&str, Damage)> = vec![
        ("the last file is cut", Box::new(move |disk| disk.tamper(&cut, |bytes| bytes.truncate(30)))),
        ("the last file is gone", Box::new(move |disk| disk.remove(&gone).unwrap())),
        ("the first file is gone", Box::new(|disk| disk.remove("blocks/00000.blk").unwrap())),
        ("a file in the middle is gone", Box::new(|disk| disk.remove("blocks/00002.blk").unwrap())),
    ];
    for (name, damage) in damages {
        let disk = disk.crash(0);
        damage(&disk);
        let mut store = open(&disk).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut repaired = 0;
        loop {
            // More than are told at once may be missing.
            let missing = store.snapshot().damaged_blocks();
            if missing.is_empty() {
                break;
            }
            for crate::Damaged { block, what } in missing {
                assert!(what.contains("missing") || what.contains("were committed"), "{name}: {what}");
                let raw = serialize(&chain[block.height.0 as usize]);
                assert!(store.repair_block(block, &raw).unwrap(), "{name}: {block:?}");
                repaired += 1;
            }
        }
        assert_eq!(store.snapshot().dump().unwrap(), wanted, "{name}");
        // Nobody reads a kept block before its branch wins, so it is not looked for.
        repaired += usize::from(store.repair_block(tip(&kept, 18), &serialize(&kept)).unwrap());
        assert!(repaired > 0, "{name}");
        assert_eq!(store.stored_block(&kept.block_hash()).unwrap().unwrap(), serialize(&kept), "{name}");
        drop(store);
        assert_eq!(open(&disk).unwrap().snapshot().dump().unwrap(), wanted, "{name}");
    }
}

#[test]
fn where_no_block_file_is_left_the_folder_is_refused() {
    // A disk that is not mounted must not be taken for a damaged one.
    let (disk, ..) = filled(5);
    for name in disk.list("blocks").unwrap() {
        disk.remove(&format!("blocks/{name}")).unwrap();
    }
    let error = open(&disk).unwrap_err();
    assert!(error.to_string().contains("no block file is left"), "{error}");
}

#[test]
fn a_file_cut_in_the_middle_of_the_chain_is_found_when_it_is_read() {
    let (disk, chain, _) = filled(6);
    disk.tamper("blocks/00001.blk", |bytes| bytes.truncate(20));
    let mut store = open(&disk).unwrap();
    read_all(&store);
    let missing = damaged(&store);
    assert!(!missing.is_empty());
    for block in missing {
        store.repair_block(block, &serialize(&chain[block.height.0 as usize])).unwrap();
    }
    Answers::of(&chain).check(&store.snapshot(), &chain, "repaired");
}

#[test]
fn only_the_block_itself_is_taken() {
    let (disk, chain, kept) = filled(7);
    turn_a_bit(&disk, &chain[3]);
    let mut store = open(&disk).unwrap();
    let wrong = store.repair_block(tip(&chain[3], 3), &serialize(&chain[4]));
    assert!(matches!(wrong, Err(Error::BadInput { .. })), "{wrong:?}");
    // Bytes of another length would put every transaction in a wrong place.
    let longer = [serialize(&chain[3]), vec![0]].concat();
    assert!(!store.repair_block(tip(&chain[3], 3), &longer).unwrap());
    let stranger = Forge::new(99).block(&chain[..5]);
    assert!(!store.repair_block(tip(&stranger, 5), &serialize(&stranger)).unwrap());
    assert!(!store.repair_block(tip(&kept, 18), &serialize(&kept)).unwrap(), "nothing is wrong with it");
    assert!(store.snapshot().raw_block(Height(3)).is_err());
}

#[test]
fn a_crash_at_any_moment_leaves_the_block_damaged_or_repaired() {
    let (disk, chain, kept) = filled(8);
    let wanted = open(&disk).unwrap().snapshot().dump().unwrap();
    turn_a_bit(&disk, &chain[6]);
    let mut forge = Forge::new(80);
    let above = forge.block(&chain);
    disk.record(1);
    {
        let mut store = open(&disk).unwrap();
        // Something is staged, and forgotten again: the new place must not go with it.
        connect(&mut store, &above).unwrap();
        disk.label(1);
        assert!(store.repair_block(tip(&chain[6], 6), &serialize(&chain[6])).unwrap());
        disk.label(2);
        store.rollback().unwrap();
        connect(&mut store, &above).unwrap();
    }
    let (mut still, mut repaired) = (0, 0);
    for (label, moment) in disk.recorded() {
        for way in 0..3 {
            let disk = moment.crash(way);
            let mut store = open(&disk).unwrap();
            match store.snapshot().raw_block(Height(6)) {
                Ok(raw) => {
                    assert_eq!(raw, Some(serialize(&chain[6])));
                    repaired += 1;
                }
                Err(Error::DamagedBlock { .. }) => {
                    assert!(label < 2, "it was repaired before");
                    store.repair_block(tip(&chain[6], 6), &serialize(&chain[6])).unwrap();
                    still += 1;
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(store.snapshot().dump().unwrap(), wanted);
            assert_eq!(store.stored_block(&kept.block_hash()).unwrap().unwrap(), serialize(&kept));
        }
    }
    assert!(still > 0 && repaired > 0, "{still} {repaired}");
}
