//! What times a sync, on a chain forged for the test.

use std::fs::File;
use std::io::Write;

use tempfile::TempDir;

use super::chain::{Chain, summary};
use super::{hashing, wire};
use crate::forge::forge;

fn forged() -> TempDir {
    let folder = TempDir::new().unwrap();
    let file = |name| File::create(folder.path().join(name)).unwrap();
    forge(3_000_000, 1, &mut file("blocks.dat"), &mut file("truth.jsonl")).unwrap();
    folder
}

#[test]
fn hashing_meets_every_transaction() {
    let folder = forged();
    let chain = Chain::open(folder.path()).unwrap();
    let truth = summary(folder.path()).unwrap();
    assert_eq!(chain.blocks.len(), truth.height as usize + 1);
    assert_eq!(hashing::time(&chain, 2).unwrap().1, truth.transactions);
}

#[test]
fn damage_is_seen() {
    let folder = forged();
    let blocks = folder.path().join("blocks.dat");
    let mut bytes = std::fs::read(&blocks).unwrap();
    let last = bytes.pop().unwrap();
    std::fs::write(&blocks, &bytes).unwrap();
    assert!(Chain::open(folder.path()).is_err());
    bytes.push(last ^ 1);
    std::fs::write(&blocks, &bytes).unwrap();
    assert!(hashing::time(&Chain::open(folder.path()).unwrap(), 1).is_err());
}

#[test]
fn checksums_are_kept_and_are_the_chains_own() {
    let folder = forged();
    let chain = Chain::open(folder.path()).unwrap();
    let first = chain.checksums(folder.path()).unwrap();
    let path = folder.path().join("checksums.bin");
    let kept = std::fs::read(&path).unwrap();
    assert_eq!(chain.checksums(folder.path()).unwrap(), first);
    // Another chain's are of no use.
    let mut other = kept.clone();
    other[0] ^= 1;
    std::fs::write(&path, other).unwrap();
    assert_eq!(chain.checksums(folder.path()).unwrap(), first);
    assert_eq!(std::fs::read(&path).unwrap(), kept);

    let mut buffer = Vec::new();
    chain.read(&chain.blocks[1], &mut buffer).unwrap();
    let mut message = wire::head("block", buffer.len(), first[1]).to_vec();
    message.write_all(&buffer).unwrap();
    let mut payload = Vec::new();
    assert_eq!(wire::receive(&mut message.as_slice(), &mut payload).unwrap(), "block");
    assert_eq!(payload, buffer);
}
