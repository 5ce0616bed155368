//! The benches and the harness of kills, each once on a small chain: every answer is compared with what is true.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Killed at the end of the test, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server, built beside these programs when the whole workspace is.
fn peerdex() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_query")).with_file_name("peerdex");
    path.exists().then_some(path)
}

/// The server, or a word about the test that needs it.
fn server() -> Option<PathBuf> {
    let peerdex = peerdex();
    if peerdex.is_none() {
        assert!(std::env::var_os("PEERDEX_REQUIRE_BITCOIND").is_none(), "the server was not built");
        eprintln!("SKIPPED: no server beside the benches; cargo test --workspace builds it");
    }
    peerdex
}

#[test]
fn a_forged_chain_is_answered_for_as_its_truth_says() {
    let Some(peerdex) = server() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let chain = folder.path().join("chain");
    let forged = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--size", "60MB", "--seed", "7", "--out"])
        .arg(&chain)
        .stdout(Stdio::null())
        .status();
    assert!(forged.expect("the forge starts").success());
    let peer = Command::new(env!("CARGO_BIN_EXE_sync"))
        .arg("serve")
        .arg(&chain)
        // It ends when this does.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut peer = Running(peer.expect("the replay peer starts"));
    let mut address = String::new();
    let out = peer.0.stdout.take().expect("it is piped");
    BufReader::new(out).read_line(&mut address).expect("it says where it listens");

    let asked = Command::new(env!("CARGO_BIN_EXE_query"))
        .arg("--chain")
        .arg(&chain)
        .arg("--start")
        .arg(peerdex)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--peer", address.trim(), "--seconds", "1", "--patience", "300"])
        .output()
        .expect("the load client starts");

    let (out, errors) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
    assert!(asked.status.success(), "{out}\n{errors}");
    // The client itself fails on one wrong answer; here, that it asked.
    for method in
        ["get_history", "get_balance", "listunspent", "subscribe", "transaction.get", "long_history"]
    {
        assert!(out.contains(method), "{method} was not asked:\n{out}");
    }
}

/// One round: every phase of the server's life is aimed at.
#[test]
fn twenty_kills_leave_nothing_wrong() {
    let Some(peerdex) = server() else { return };
    let killed = Command::new(env!("CARGO_BIN_EXE_kills"))
        .args(["--kills", "20", "--seed", "1", "--peerdex"])
        .arg(peerdex)
        .output()
        .expect("the harness starts");
    let (out, errors) = (String::from_utf8_lossy(&killed.stdout), String::from_utf8_lossy(&killed.stderr));
    assert!(killed.status.success(), "{out}\n{errors}");
    assert!(out.contains("20 kills") && out.contains("nothing differed"), "{out}");
}

#[test]
fn blocks_at_the_tip_reach_a_wallet() {
    let Some(peerdex) = server() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let chain = folder.path().join("chain");
    let forged = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--size", "5MB", "--seed", "7", "--out"])
        .arg(&chain)
        .stdout(Stdio::null())
        .status();
    assert!(forged.expect("the forge starts").success());
    // The second run goes on where the first ended.
    for height in ["synced to height 107 ", "synced to height 110 "] {
        let timed = Command::new(env!("CARGO_BIN_EXE_tip"))
            .args(["--seed", "7", "--blocks", "3", "--transactions", "300", "--pause", "0", "--peerdex"])
            .arg(&peerdex)
            .arg("--chain")
            .arg(&chain)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .output()
            .expect("the bench starts");
        // Whether it was fast enough is not this test's matter.
        let (out, errors) = (String::from_utf8_lossy(&timed.stdout), String::from_utf8_lossy(&timed.stderr));
        assert!(out.contains("3 blocks, 300 transactions each on average"), "{out}\n{errors}");
        assert!(out.contains(height) && out.contains("last touched script told"), "{out}\n{errors}");
    }
}

/// Few wallets, but all that is done with many.
#[test]
fn a_crowd_is_served() {
    let Some(peerdex) = server() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let chain = folder.path().join("chain");
    let forged = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--size", "10MB", "--seed", "7", "--out"])
        .arg(&chain)
        .stdout(Stdio::null())
        .status();
    assert!(forged.expect("the forge starts").success());
    let crowd = "--sessions 200 --subscriptions 4000 --idle 0";
    let runs = [
        ("idle", crowd.to_owned(), "4000 subscriptions made"),
        (
            "notify",
            format!("{crowd} --blocks 2 --scripts 300"),
            "a script of all: 2 blocks of 300 transactions",
        ),
        ("active", "--wallets 40 --addresses 20 --abuser".to_owned(), "0 wrong; 0 wallets lost"),
    ];
    for (command, arguments, said) in runs {
        let ran = Command::new(env!("CARGO_BIN_EXE_crowd"))
            .arg(command)
            .args(["--seed", "7", "--transactions", "300", "--start"])
            .arg(&peerdex)
            .arg("--chain")
            .arg(&chain)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(arguments.split(' '))
            .output()
            .expect("the bench starts");
        // Whether it was fast enough is not this test's matter; a wrong or missing word ends the bench.
        let (out, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(out.contains(said), "{command}: {out}\n{errors}");
        assert!(!errors.contains("Error"), "{command}: {out}\n{errors}");
    }
}
