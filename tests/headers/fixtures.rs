//! The files of `fixtures/headers`, unpacked and decoded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize;
use bitcoin::hex::FromHex;
use bitcoin::{BlockHash, Work};

/// A file of `fixtures/headers`, unpacked.
fn fixture(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/headers").join(path);
    let mut file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    if path.extension().is_some_and(|extension| extension == "zst") {
        ruzstd::decoding::StreamingDecoder::new(file).unwrap().read_to_end(&mut bytes).unwrap();
    } else {
        file.read_to_end(&mut bytes).unwrap();
    }
    bytes
}

pub fn headers(path: &str) -> Vec<Header> {
    let bytes = fixture(path);
    assert_eq!(bytes.len() % 80, 0, "{path}");
    bytes.chunks(80).map(|header| deserialize(header).unwrap()).collect()
}

/// First and last header of each retarget period of mainnet, by height.
pub fn boundaries() -> BTreeMap<u32, Header> {
    let bytes = fixture("mainnet/boundary-headers-0-832608.bin.zst");
    let record = |record: &[u8]| {
        (u32::from_le_bytes(record[..4].try_into().unwrap()), deserialize(&record[4..]).unwrap())
    };
    bytes.chunks(84).map(record).collect()
}

/// Total work of mainnet at the same heights.
pub fn boundary_work() -> BTreeMap<u32, Work> {
    let text = String::from_utf8(fixture("mainnet/boundary-chainwork-0-832608.tsv.zst")).unwrap();
    text.lines()
        .map(|line| {
            let (height, work) = line.split_once('\t').unwrap();
            (height.parse().unwrap(), Work::from_unprefixed_hex(work).unwrap())
        })
        .collect()
}

/// Height, hash and header.
pub fn stale_headers() -> Vec<(u32, BlockHash, Header)> {
    let text = String::from_utf8(fixture("mainnet/stale-headers.tsv")).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            let header = Vec::from_hex(fields[2]).unwrap();
            (fields[0].parse().unwrap(), fields[1].parse().unwrap(), deserialize(&header).unwrap())
        })
        .collect()
}
