//! The command line from outside: what it prints, what it refuses and in which words.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::Hash;
use tempfile::TempDir;

use support::fixtures;
use support::replay::ReplayPeer;
use support::server::{Options, command};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
const SYNC: Duration = Duration::from_secs(60);

/// Runs it to its end, with the environment as it should be seen.
fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    command(PEERDEX).args(args).envs(env.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It ends with `code`, prints nothing on stdout and all these words on stderr.
fn assert_refused(args: &[&str], env: &[(&str, &str)], code: i32, words: &[&str]) {
    let output = run(args, env);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?} {env:?}: {said}");
    assert_eq!(stdout(&output), "", "{args:?} {env:?}");
    for word in words {
        assert!(said.contains(word), "{args:?} {env:?}: '{word}' is missing in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn help_names_every_setting() {
    let output = run(&["--help"], &[]);

    assert!(output.status.success());
    for setting in [
        "--network",
        "--connect",
        "--min-chain-work",
        "--data-dir",
        "--service",
        "--report-service",
        "--ssl-certfile",
        "--ssl-keyfile",
        "--proxy-protocol-from",
        "--max-sessions",
        "--memory",
        "--ignore-disk-space",
        "info",
        "check",
        "rpc",
        "--config",
        "--log",
        "--version",
    ] {
        assert!(stdout(&output).contains(setting), "{setting} is missing in: {}", stdout(&output));
    }
    for network in ["mainnet", "testnet3", "testnet4", "signet", "regtest"] {
        assert!(stdout(&output).contains(network), "{network} is missing in: {}", stdout(&output));
    }
}

#[test]
fn version_is_the_packages() {
    let output = run(&["--version"], &[]);

    assert!(output.status.success());
    assert_eq!(stdout(&output), format!("peerdex {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_a_peer_it_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path().to_str().unwrap();

    assert_refused(&["--data-dir", folder], &[], 2, &["--connect HOST:PORT"]);
    assert_refused(&["--network", "regtest", "--data-dir", folder], &[], 2, &["--connect", "18444"]);
}

#[test]
fn bad_values_name_themselves_and_say_what_is_allowed() {
    let peer = ["--connect", "127.0.0.1:1"];
    for (args, words) in [
        (["--network", "main"], &["--network", "main", "mainnet, testnet3, testnet4, signet, regtest"][..]),
        (["--min-chain-work", "many"], &["--min-chain-work", "many", "hex"]),
        (["--service", "127.0.0.1:5"], &["--service", "127.0.0.1:5", "tcp://"]),
        (["--service", "tcp://127.0.0.1:99999"], &["--service", "99999", "tcp://"]),
        (["--memory", "255"], &["--memory", "255", "megabytes, 256 or more"]),
        (["--log", "loud"], &["--log", "loud", "error, warn, info, debug, trace"]),
        (["--connect", "a:b"], &["--connect", "a:b", "HOST:PORT"]),
        (["--colour", "red"], &["--colour"]),
    ] {
        assert_refused(&[&args[..], &peer].concat(), &[], 2, words);
    }
}

#[test]
fn the_environment_and_the_file_are_read_as_strictly() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let peer = ["--connect", "127.0.0.1:1"];

    assert_refused(&peer, &[("PEERDEX_COLOUR", "red")], 2, &["PEERDEX_COLOUR", "PEERDEX_NETWORK"]);
    assert_refused(&peer, &[("PEERDEX_NETWORK", "main")], 2, &["PEERDEX_NETWORK", "'main'", "regtest"]);
    let unknown = file("unknown.toml", "colour = 'red'\n");
    assert_refused(&["--config", &unknown, peer[0], peer[1]], &[], 2, &[&unknown, "colour", "network"]);
    let bad = file("bad.toml", "log = 'loud'\n");
    assert_refused(&["--config", &bad, peer[0], peer[1]], &[], 2, &[&bad, "log", "'loud'", "debug"]);
    let broken = file("broken.toml", "log = \n");
    assert_refused(&["--config", &broken, peer[0], peer[1]], &[], 2, &[&broken]);
    assert_refused(&["--config", "/nowhere.toml", peer[0], peer[1]], &[], 2, &["/nowhere.toml"]);
    // What is in the way of a weaker source is not in the way of a stronger one.
    let output = run(&["--network", "regtest"], &[("PEERDEX_NETWORK", "main")]);
    assert!(stderr(&output).contains("18444"), "{}", stderr(&output));
}

/// Servers of two networks and what of a folder they leave to the next.
fn signet() -> (ReplayPeer, Options) {
    let peer = ReplayPeer::start(Network::Signet, fixtures::run_from_genesis(Network::Signet));
    let options = Options::new(PEERDEX, "signet").connect(peer.address());
    (peer, options)
}

fn assert_folder_refused(folder: &Path, network: &str, words: &[&str]) {
    let folder = folder.to_str().unwrap();
    let service = format!("tcp://{}", support::free_address());
    let args =
        ["--network", network, "--data-dir", folder, "--connect", "127.0.0.1:1", "--service", &service];
    assert_refused(&args, &[], 1, &[&[folder], words].concat());
}

#[test]
fn a_folder_of_another_network_is_refused() {
    let (_peer, options) = signet();
    let mut server = options.start();
    server.wait_for_log(&["peer connected"], SYNC);
    let folder = server.stop();

    assert_folder_refused(folder.path(), "mainnet", &["signet", "mainnet"]);

    // And it is as it was.
    options.start_in(folder).wait_for_log(&["peer connected"], SYNC);
}

#[test]
fn a_folder_in_use_is_refused() {
    let (_peer, options) = signet();
    let mut server = options.start();
    server.wait_for_log(&["peer connected"], SYNC);

    assert_folder_refused(server.folder(), "signet", &["in use"]);

    server.stop();
}

#[test]
fn a_service_that_is_taken_is_refused() {
    let (_peer, options) = signet();
    let mut server = options.start();
    server.client();

    let folder = TempDir::new().unwrap();
    let taken = format!("tcp://{}", server.address());
    let folder = folder.path().to_str().unwrap();
    let args = [
        "--network",
        "signet",
        "--data-dir",
        folder,
        "--connect",
        "127.0.0.1:1",
        "--service",
        &taken,
        "--ignore-disk-space",
    ];
    assert_refused(&args, &[], 1, &[&server.address().to_string()]);
    server.stop();
}

#[test]
fn an_unreachable_peer_is_no_reason_to_end() {
    let nobody = support::free_address();
    let mut server = Options::new(PEERDEX, "signet").connect(nobody).start();

    // Wallets are told so, and the end comes when it is asked for.
    let answer = server.client().history(&[]).unwrap_err();
    assert!(support::server::is_syncing(&answer), "{answer:?}");
    server.stop();
}

#[test]
fn the_environment_alone_is_enough() {
    let (peer, _) = signet();
    let folder = TempDir::new().unwrap();
    let electrum = support::free_address();
    let mut child = command(PEERDEX)
        .env("PEERDEX_NETWORK", "signet")
        .env("PEERDEX_CONNECT", peer.address().to_string())
        .env("PEERDEX_DATA_DIR", folder.path())
        .env("PEERDEX_SERVICE", format!("tcp://{electrum}"))
        .env("PEERDEX_MIN_CHAIN_WORK", "0")
        .env("PEERDEX_IGNORE_DISK_SPACE", "true")
        .env("PEERDEX_LOG", "error")
        .spawn()
        .unwrap();

    let ended = support::wait_for("peerdex to listen", SYNC, || match support::connect(electrum) {
        Ok(_) => Some(None),
        Err(_) => child.try_wait().unwrap().map(Some),
    });

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ended, None, "it ended by itself");
}

#[test]
fn info_and_check_look_at_a_folder_that_nobody_has_open() {
    let chain = fixtures::run_from_genesis(Network::Signet);
    let blocks = chain.len();
    let peer = ReplayPeer::start(Network::Signet, chain.clone());
    let mut server = Options::new(PEERDEX, "signet").connect(peer.address()).start();
    let tip = bitcoin::hashes::sha256d::Hash::hash(&chain.last().unwrap()[..80]).to_string();
    server.wait_synced(&tip, SYNC);
    let folder = server.folder().to_str().unwrap().to_string();
    let asked = |verb: &'static str| [verb, "--network", "signet", "--data-dir", &folder];
    for verb in ["info", "check"] {
        assert_refused(&asked(verb), &[], 1, &["in use", "stop that peerdex first"]);
    }
    let kept = server.stop();

    let info = run(&asked("info"), &[]);
    let said = stdout(&info);
    assert!(info.status.success(), "{}", stderr(&info));
    let height = format!("to height {}", blocks - 1);
    for word in ["signet", &height, &tip, "txid-prefix 6", "raw blocks", "bytes a transaction", "will need"] {
        assert!(said.contains(word), "'{word}' is missing in:\n{said}");
    }
    let sound = run(&asked("check"), &[]);
    assert!(sound.status.success(), "{}{}", stdout(&sound), stderr(&sound));
    assert!(stdout(&sound).contains(&format!("sound: {blocks} blocks")), "{}", stdout(&sound));

    let file = kept.path().join("blocks/00000.blk");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = run(&asked("check"), &[]);
    assert_eq!(damaged.status.code(), Some(1));
    for word in ["blocks/00000.blk: block at height", "checksum", "damaged: ", "move the folder away"] {
        assert!(stdout(&damaged).contains(word), "'{word}' is missing in:\n{}", stdout(&damaged));
    }

    std::fs::write(kept.path().join("headers"), b"").unwrap();
    let unopened = run(&asked("check"), &[]);
    assert_eq!(unopened.status.code(), Some(1));
    for word in ["headers: 0 bytes long", "cannot be opened", "move the folder away"] {
        assert!(stdout(&unopened).contains(word), "'{word}' is missing in:\n{}", stdout(&unopened));
    }
    let empty = TempDir::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    assert_refused(&["info", "--data-dir", empty], &[], 1, &[empty, "no data folder", "--network"]);
}
