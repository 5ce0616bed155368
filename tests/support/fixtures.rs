//! Real blocks from `fixtures/`, as raw bytes.
//!
//! A run is a file of blocks as Bitcoin Core stores them: `magic 4 | length 4 LE | block`, one after another,
//! in chain order; a name that ends in `.zst` is compressed. Origins stand in `fixtures/blocks/README.md`.

use std::io::Read;
use std::path::{Path, PathBuf};

use bitcoin::Network;

/// The folder of fixtures.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The real blocks of a network from genesis on: mainnet 0 to 4521, testnet3 0 to 4000, signet 0 to 120.
pub fn run_from_genesis(network: Network) -> Vec<Vec<u8>> {
    let (path, magic) = match network {
        Network::Bitcoin => ("blocks/mainnet/blocks-000000-004521.blk.zst", [0xf9, 0xbe, 0xb4, 0xd9]),
        Network::Testnet => ("blocks/testnet3/blocks-000000-004000.blk.zst", [0x0b, 0x11, 0x09, 0x07]),
        Network::Signet => ("blocks/signet/blocks-000000-000120.blk.zst", [0x0a, 0x03, 0xcf, 0x40]),
        other => panic!("there is no run of {other} blocks"),
    };
    blocks_of_run(&read(&folder().join(path)), magic)
}

/// One block that stands alone in its file.
pub fn block(path: &str) -> Vec<u8> {
    read(&folder().join(path))
}

/// Cuts a run into its blocks.
pub fn blocks_of_run(mut run: &[u8], magic: [u8; 4]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    while !run.is_empty() {
        let (head, rest) = run.split_at_checked(8).expect("a run ends after a block");
        assert_eq!(head[..4], magic, "magic of block {}", blocks.len());
        let length = u32::from_le_bytes(head[4..].try_into().expect("four bytes are left"));
        let (block, rest) = rest.split_at_checked(length as usize).expect("the last block is whole");
        blocks.push(block.to_vec());
        run = rest;
    }
    blocks
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.extension().is_none_or(|extension| extension != "zst") {
        return bytes;
    }
    let mut plain = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(&bytes[..])
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .read_to_end(&mut plain)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    plain
}
