//! What is refused, in words: folders in use, of another kind, or damaged; and bytes that were never written.

use std::sync::Arc;

use bitcoin::{Amount, ScriptBuf, TxOut};

use super::chain::{Answers, Forge, connect, small_options};
use crate::disk::Disk;
use crate::group::Group;
use crate::sim::SimDisk;
use crate::{Error, FORMAT, Height, Options, Store, delta_row};

fn open(disk: &SimDisk) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Store::open_on(disk, small_options())
}

/// A folder with a chain of twenty blocks, most of them in the base.
fn filled() -> SimDisk {
    let disk = SimDisk::new();
    let mut store = open(&disk).unwrap();
    let mut forge = Forge::new(9);
    let mut chain = Vec::new();
    for _ in 0..20 {
        let block = forge.block(&chain);
        connect(&mut store, &block).unwrap();
        chain.push(block);
    }
    store.commit().unwrap();
    store.merge().unwrap();
    drop(store);
    disk
}

#[test]
fn a_folder_in_use_is_refused_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), small_options()).unwrap();
    let error = Store::open(folder.path(), small_options()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(store);
    Store::open(folder.path(), small_options()).unwrap();
}

#[test]
fn a_folder_of_another_network_is_refused() {
    let disk = filled();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let other = Options { network: bitcoin::Network::Signet, ..small_options() };
    let error = Store::open_on(disk, other).unwrap_err();
    assert_eq!(error.to_string(), "data folder holds regtest, not signet: give another with --data-dir");
}

#[test]
fn a_format_of_the_future_is_refused() {
    let disk = filled();
    disk.tamper("MANIFEST", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap().replace(&format!("format {FORMAT}"), "format 7");
        *bytes = text.into_bytes();
    });
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, Error::UnknownFormat { found, known: FORMAT } if found == "7"), "{error}");
}

#[test]
fn a_file_shorter_than_the_state_says_is_corruption_and_named() {
    for name in ["headers", "hashes", "txids", "txpos", "blockpos"] {
        let disk = filled();
        disk.tamper(name, |bytes| bytes.truncate(bytes.len() / 2));
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name), "{name} is not named: {error}");
    }
}

#[test]
fn a_flipped_byte_in_a_block_file_is_found_when_it_is_read() {
    let disk = filled();
    disk.tamper("blocks/00000.blk", |bytes| bytes[200] ^= 1);
    let store = open(&disk).unwrap();
    let snapshot = store.snapshot();
    let errors: Vec<Error> = (0..20).filter_map(|height| snapshot.raw_block(Height(height)).err()).collect();
    assert_eq!(errors.len(), 1, "one block was hit: {errors:?}");
    assert!(
        matches!(&errors[0], Error::DamagedBlock { what, .. } if what.contains("checksum")),
        "{}",
        errors[0]
    );
}

#[test]
fn damaged_rows_are_errors_and_nothing_is_allocated_by_what_they_claim() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut chain = Vec::new();
    let mut forge = Forge::new(4);
    for _ in 0..8 {
        chain.push(forge.block(&chain));
    }
    let disk = SimDisk::new();
    let mut store = open(&disk).unwrap();
    for block in &chain {
        connect(&mut store, block).unwrap();
    }
    let delta = store.staged.view.deltas.last().expect("blocks are staged").clone();
    let row = delta_row::encode(&delta);
    assert_eq!(delta_row::encode(&delta_row::decode(delta.head.height, &row).unwrap()), row);
    for _ in 0..20_000 {
        let mut bad = row.clone();
        match rng.u8(0..3) {
            0 => bad.truncate(rng.usize(..bad.len())),
            1 => bad = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
            _ => {
                let at = rng.usize(..bad.len());
                bad[at] ^= 1 << rng.u8(0..8);
            }
        }
        assert!(delta_row::decode(delta.head.height, &bad).is_err(), "{bad:02x?}");
        // Any bytes may be a group; what is read must be what they say.
        if let Ok(group) = Group::decode(&bad) {
            assert!(group.history.len() + group.unspent.len() <= bad.len());
            assert_eq!(group.encode(), bad);
        }
    }
}

#[test]
fn a_block_of_many_scripts_is_read_back_and_a_missing_part_is_seen() {
    let disk = SimDisk::new();
    let mut forge = Forge::new(1);
    let genesis = forge.block(&[]);
    let mut coinbase = forge.block(std::slice::from_ref(&genesis)).txdata[0].clone();
    let output = |number: u32| TxOut {
        value: Amount::from_sat(u64::from(number)),
        script_pubkey: ScriptBuf::from([&[0x51][..], &number.to_le_bytes()].concat()),
    };
    coinbase.output = (0..6_000).map(output).collect();
    let chain = vec![genesis.clone(), forge.seal(genesis.block_hash(), vec![coinbase])];
    let mut store = open(&disk).unwrap();
    for block in &chain {
        connect(&mut store, block).unwrap();
    }
    store.commit().unwrap();
    drop(store);
    let store = open(&disk).unwrap();
    Answers::of(&chain).check(&store.snapshot(), &chain, "read back");
    store.tip.remove_part(1, 1).unwrap();
    drop(store);
    assert!(open(&disk).unwrap_err().to_string().contains("height 1"));
}
