//! `peerdex import`: blocks from Bitcoin Core's files, real ones and such as a test wrote, give the same answers as
//! blocks from peers.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use bitcoin::{Block, Network};
use tempfile::TempDir;

use support::compare::{assert_merkle_proofs, assert_same_scripts, served_headers};
use support::fixtures;
use support::naive::NaiveIndex;
use support::payments;
use support::replay::ReplayPeer;
use support::server::{Options, Server};
use support::wire;

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync or an import; they take seconds, but the machine may be busy.
const SYNC: Duration = Duration::from_secs(120);
const KEY: [u8; 8] = [0x1f, 0xf9, 0xbe, 0x00, 0xb4, 0xd9, 0x80, 0x07];

fn hash_of(block: &[u8]) -> String {
    bitcoin::consensus::deserialize::<Block>(block).unwrap().block_hash().to_string()
}

fn record(network: Network, block: &[u8]) -> Vec<u8> {
    [&wire::magic(network)[..], &(block.len() as u32).to_le_bytes(), block].concat()
}

/// Writes a file as Core does, with the key.
fn write_obfuscated(path: &Path, mut content: Vec<u8>) {
    content.iter_mut().zip(KEY.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    std::fs::write(path, content).unwrap();
}

/// `peerdex import PATH --stop-after-import`, and no peer.
fn import_only(network: &'static str, paths: &[&Path]) -> Options {
    let mut options = Options::new(PEERDEX, network);
    options.extra.push("import".into());
    options.extra.extend(paths.iter().map(|path| path.to_str().unwrap().to_string()));
    options.extra.push("--stop-after-import".into());
    options
}

/// Runs an import to its end; the folder and the log.
fn run_import(options: &Options, folder: TempDir) -> (TempDir, String) {
    let mut server = options.start_in(folder);
    let status = server.wait_for_end(SYNC);
    assert!(status.success(), "{status}; its log:\n{}", server.log());
    // Its last lines may still be in the pipe.
    server_log(&mut server, "stopped")
}

fn server_log(server: &mut Server, word: &str) -> (TempDir, String) {
    support::wait_for("the end of the log", SYNC, || server.log_line(&[word]));
    (server.take_folder(), server.log())
}

/// Everything that a wallet may ask is as a naive index has it.
fn assert_answers(server: &mut Server, index: &NaiveIndex) {
    let mut alice = server.client();
    assert_same_scripts(&mut alice, index);
    let headers = served_headers(&mut alice);
    assert_eq!(headers.len() as u32, index.height() + 1);
    assert_merkle_proofs(&mut alice, index, &headers);
}

/// Mainnet's first blocks as a node might have left them: shuffled over several files, obfuscated, with a gap of
/// zeros, garbage, a copy, and a record that was cut off.
fn mainnet_folder(blocks: &[Vec<u8>]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("blocks");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("xor.dat"), KEY).unwrap();
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    let mut rng = fastrand::Rng::with_seed(3);
    rng.shuffle(&mut order);
    for (number, part) in order.chunks(1000).enumerate() {
        let mut content = Vec::new();
        for height in part {
            content.extend(record(Network::Bitcoin, &blocks[*height]));
            match rng.u8(0..20) {
                0 => content.extend(vec![0; rng.usize(1..5000)]),
                1 => content.extend((0..rng.usize(1..500)).map(|_| rng.u8(..))),
                2 => content.extend(wire::magic(Network::Bitcoin)),
                3 => content.extend(record(Network::Bitcoin, &blocks[rng.usize(..blocks.len())])),
                4 => content.extend(&record(Network::Bitcoin, &blocks[170])[..rng.usize(1..200)]),
                _ => {}
            }
        }
        content.extend(vec![0; 100_000]);
        write_obfuscated(&path.join(format!("blk{number:05}.dat")), content);
    }
    folder
}

/// A folder has all of these mainnet blocks: a server on it fetches none, and answers for all.
fn assert_complete(folder: TempDir, blocks: &[Vec<u8>]) {
    let peer = ReplayPeer::start(Network::Bitcoin, blocks.to_vec());
    let mut server = Options::new(PEERDEX, "mainnet").connect(peer.address()).start_in(folder);
    server.wait_synced(&hash_of(&blocks[4521]), SYNC);
    assert_answers(&mut server, &NaiveIndex::of_raw(blocks));
    assert_eq!(peer.served().len(), 0, "no block is fetched");
    server.stop();
}

#[test]
fn shuffled_files_answer_as_blocks_from_a_peer() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let core = mainnet_folder(&blocks);
    let options = import_only("mainnet", &[core.path()]);

    let (folder, log) = run_import(&options, TempDir::new().unwrap());
    assert!(log.contains("import done height=4521") && log.contains(&hash_of(&blocks[4521])), "{log}");
    assert!(log.contains("imported=4521") && log.contains("invalid=0"), "{log}");

    // Once more: nothing to do.
    let (folder, log) = run_import(&options, folder);
    assert!(log.contains("import done height=4521") && log.contains("imported=0 "), "{log}");

    assert_complete(folder, &blocks);
}

#[test]
fn what_the_files_lack_comes_from_peers() {
    let blocks = fixtures::run_from_genesis(Network::Testnet);
    let folder = TempDir::new().unwrap();
    let bootstrap = folder.path().join("bootstrap.dat");
    let there = blocks.iter().enumerate().filter(|(height, _)| *height != 3001);
    let records: Vec<Vec<u8>> = there.map(|(_, block)| record(Network::Testnet, block)).collect();
    std::fs::write(&bootstrap, records.concat()).unwrap();

    let peer = ReplayPeer::start(Network::Testnet, blocks.clone());
    let mut options = Options::new(PEERDEX, "testnet3").connect(peer.address());
    options.extra = vec!["import".into(), bootstrap.to_str().unwrap().into()];
    let mut server = options.start();
    server.wait_synced(&hash_of(&blocks[4000]), SYNC);

    assert!(server.log_line(&["import done", "height=3000"]).is_some(), "{}", server.log());
    assert!(server.log_line(&["headers read", "orphans=999"]).is_some(), "{}", server.log());
    assert_answers(&mut server, &NaiveIndex::of_raw(&blocks));
    assert_eq!(peer.served().into_keys().collect::<Vec<_>>(), (3001..=4000).collect::<Vec<_>>());
    assert_eq!(peer.violations(), Vec::<String>::new());
    server.stop();
}

#[test]
fn a_damaged_block_is_named_and_comes_from_peers() {
    let blocks = fixtures::run_from_genesis(Network::Signet);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("blk00000.dat");
    let mut records: Vec<Vec<u8>> = blocks.iter().map(|block| record(Network::Signet, block)).collect();
    *records[60].last_mut().unwrap() ^= 1;
    let offset = records[..60].iter().map(Vec::len).sum::<usize>() + 8;
    std::fs::write(&file, records.concat()).unwrap();

    let (folder, log) = run_import(&import_only("signet", &[folder.path()]), TempDir::new().unwrap());
    let damaged = log.lines().find(|line| line.contains("damaged block")).expect(&log);
    assert!(damaged.contains("height=60") && damaged.contains(&hash_of(&blocks[60])), "{damaged}");
    assert!(damaged.contains("blk00000.dat") && damaged.contains(&format!("offset={offset}")), "{damaged}");
    assert!(log.contains("import done height=59") && log.contains("the files lack block 60"), "{log}");

    let peer = ReplayPeer::start(Network::Signet, blocks.clone());
    let mut server = Options::new(PEERDEX, "signet").connect(peer.address()).start_in(folder);
    server.wait_synced(&hash_of(&blocks[120]), SYNC);
    assert_answers(&mut server, &NaiveIndex::of_raw(&blocks));
    assert_eq!(peer.served().into_keys().collect::<Vec<_>>(), (60..=120).collect::<Vec<_>>());
    server.stop();
}

#[test]
fn the_folder_of_a_real_node_with_stale_blocks() {
    let Some(mut node) = payments::node() else { return };
    node.invalidate(30);
    node.generate(35);
    node.invalidate(2);
    node.generate(5);
    let (index, tip, height) = (node.index(), node.tip(), node.height());
    node.stop();
    assert!(node.folder().join("regtest/blocks/xor.dat").is_file(), "this bitcoind obfuscates its files");

    let (folder, log) = run_import(&import_only("regtest", &[node.folder()]), TempDir::new().unwrap());
    assert!(log.contains(&format!("import done height={height} hash={tip}")), "{log}");
    assert!(log.contains("stale=32") && log.contains("damaged=0 invalid=0"), "{log}");

    // The node's blocks are not needed any more, only its word that these are all.
    node.start_again(&["-fastprune"]);
    let mut server = Options::new(PEERDEX, "regtest").connect(node.address()).start_in(folder);
    server.wait_synced(&tip, SYNC);
    assert_answers(&mut server, &index);

    // It follows the node on.
    node.invalidate(3);
    node.generate(6);
    server.wait_synced(&node.tip(), SYNC);
    assert_answers(&mut server, &node.index());
    server.stop();
}

#[test]
fn killed_at_random_moments_it_goes_on() {
    let blocks = fixtures::run_from_genesis(Network::Bitcoin);
    let core = mainnet_folder(&blocks);
    let options = import_only("mainnet", &[core.path()]);
    let seed = std::env::var("PEERDEX_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("PEERDEX_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut folder = TempDir::new().unwrap();
    for kill in 0..12 {
        let mut server = options.start_in(folder);
        std::thread::sleep(Duration::from_millis(rng.u64(0..700)));
        if kill % 4 == 3 {
            server.signal("TERM");
            let status = server.wait_for_end(support::server::STOP);
            // Before its handlers stand, a signal ends it as any program.
            assert!(status.success() || status.code().is_none(), "{status}: {}", server.log());
            folder = server.take_folder();
        } else {
            folder = server.kill();
        }
    }

    let (folder, log) = run_import(&options, folder);
    assert!(log.contains("import done height=4521"), "{log}");
    assert_complete(folder, &blocks);
}

#[test]
fn files_that_bring_nothing_are_said_to() {
    let blocks = fixtures::run_from_genesis(Network::Signet);
    let records: Vec<Vec<u8>> = blocks.iter().map(|block| record(Network::Signet, block)).collect();
    let folder = TempDir::new().unwrap();
    let write = |name: &str, content: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let pruned = write("pruned.dat", records[50..].concat());
    let whole = write("whole.dat", records.concat());
    let empty = write("empty.dat", Vec::new());

    let say = |network, path: &Path| run_import(&import_only(network, &[path]), TempDir::new().unwrap()).1;
    assert!(say("signet", &pruned).contains("was the node pruned?"));
    assert!(say("mainnet", &whole).contains("no block of mainnet in these files"));
    assert!(say("signet", &empty).contains("no block of signet in these files"));

    // Less work than the minimum, when that is asked for: imported, and said.
    let mut options = import_only("signet", &[&whole]);
    options.min_chain_work = None;
    let (_, log) = run_import(&options, TempDir::new().unwrap());
    assert!(log.contains("less work than the minimum") && log.contains("import done height=120"), "{log}");

    for path in [folder.path(), &folder.path().join("nowhere")] {
        let mut server = import_only("signet", &[path]).start();
        assert!(!server.wait_for_end(SYNC).success());
        support::wait_for("its word", SYNC, || server.log_line(&[path.to_str().unwrap()]));
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}
