//! `docs/format.md` says the truth: its hex is decoded by the code that reads the files, and encoded again.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash};

use super::chain::{Forge, connect, small_options};
use crate::base::tests::{tx_keys, tx_part};
use crate::base::{BaseMark, KeyRange, PartInfo, PartList, Reach, Table, tx_key};
use crate::delta_row;
use crate::disk::NamedFile;
use crate::files::BlockRow;
use crate::group::{Group, GroupCoin};
use crate::manifest::Manifest;
use crate::segments::{BlockPos, SegmentEnd, open_record, record};
use crate::sim::SimDisk;
use crate::tip::State;
use crate::{Height, Store, TxNum};

const FORMAT: &str = include_str!("../../../docs/format.md");
const MAINNET: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

/// The bytes of the block that begins with "```hex NAME".
fn drawn(name: &str) -> Vec<u8> {
    let start =
        FORMAT.split_once(&format!("```hex {name}\n")).unwrap_or_else(|| panic!("no hex of {name}")).1;
    let digits: String = start.split("```").next().unwrap().split_whitespace().collect();
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).unwrap();
        u8::from_str_radix(pair, 16).unwrap_or_else(|error| panic!("{name}: {pair}: {error}"))
    });
    bytes.collect()
}

fn assert_drawn(name: &str, bytes: &[u8]) {
    let hex: Vec<String> =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    assert!(drawn(name) == bytes, "docs/format.md should have for {name}:\n{}", hex.join("\n"));
}

fn block_1() -> BlockHash {
    BlockHash::from_str("00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048").unwrap()
}

#[test]
fn the_block_record_is_as_drawn() {
    assert_drawn("record", &record(MAINNET, b"a block"));
    let pos = BlockPos { segment: 0, offset: 0, length: 7 };
    assert_eq!(open_record(MAINNET, pos, drawn("record")).unwrap(), b"a block");
}

#[test]
fn the_position_row_is_as_drawn() {
    let row = BlockRow { pos: BlockPos { segment: 3, offset: 4096, length: 285 }, end_tx: 70_000 };
    assert_drawn("blockpos", &row.encode());
    assert_eq!(BlockRow::decode(&drawn("blockpos").try_into().unwrap()).unwrap(), row);
}

#[test]
fn the_state_row_is_as_drawn() {
    let base = BaseMark { blocks: 1, txs: 1, hash: BlockHash::from_byte_array([0x11; 32]) };
    let end = SegmentEnd { segment: 0, offset: 524 };
    let state = State { blocks: 2, tip: block_1(), end, headers: 2017, base };
    assert_drawn("state", &state.encode());
    assert_eq!(State::decode(&drawn("state").try_into().unwrap()).unwrap(), state);
}

#[test]
fn the_group_is_as_drawn() {
    let coin = GroupCoin { tx_num: TxNum(300), vout: 1, value: Amount::from_sat(5_000_000_000) };
    let group = Group { history: vec![TxNum(9), TxNum(170), TxNum(300)], unspent: vec![coin] };
    assert_drawn("group", &group.encode());
    assert_eq!(Group::decode(&drawn("group")).unwrap(), group);
}

#[test]
fn the_row_of_parts_is_as_drawn() {
    let part = |table, file, cut| PartInfo {
        table,
        range: KeyRange::split_all(0).next().unwrap(),
        file,
        bits: 20,
        entries: 16_000_000,
        bytes: 250_000_000,
        reach: Reach { blocks: 500_000, txs: 280_000_000 },
        cut,
    };
    let parts = vec![part(Table::Scripts, 1, None), part(Table::Coins, 2, Some(7))];
    let list = PartList { next_file: 3, parts };
    assert_drawn("parts", &list.encode());
    assert_eq!(PartList::decode(&drawn("parts")).unwrap(), list);
}

#[test]
fn the_part_is_as_drawn() {
    let keys = [tx_key([0x11; 6], 170), tx_key([0xee; 6], 9), tx_key([0xff; 6], 300)];
    let disk = SimDisk::new();
    let info = tx_part(&disk, &keys);
    disk.tamper(&info.name(), |bytes| assert_drawn("part", bytes));

    let disk = SimDisk::new();
    NamedFile::create(&disk, &info.name()).unwrap();
    disk.tamper(&info.name(), |bytes| *bytes = drawn("part"));
    assert_eq!(tx_keys(&disk, info).unwrap(), keys);
}

#[test]
fn the_delta_is_as_drawn() {
    let mut store = Store::open_on(Arc::new(SimDisk::new()), small_options()).unwrap();
    let mut forge = Forge::new(1);
    let mut chain = Vec::new();
    for _ in 0..2 {
        let block = forge.block(&chain);
        connect(&mut store, &block).unwrap();
        chain.push(block);
    }
    let delta = store.staged.view.deltas.last().expect("two are staged").clone();
    assert_drawn("delta", &delta_row::encode(&delta));
    let decoded = delta_row::decode(Height(1), &drawn("delta")).unwrap();
    assert_eq!(delta_row::encode(&decoded), drawn("delta"));
}

#[test]
fn the_manifest_is_as_drawn() {
    let text = Manifest { network: bitcoin::Network::Bitcoin, txid_prefix: 6 }.encode();
    assert!(FORMAT.contains(&text), "docs/format.md should have:\n{text}");
}
