//! Unconfirmed transactions in numbers, against the real program: how many it takes in a second and what they cost, how
//! long wallets wait for an honest one while somebody floods, and for a block of what is in the mempool.
//!
//! `PEERDEX_FLOOD=long` runs what `docs/performance.md` quotes: a minute of flood, 100,000 transactions.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

#[path = "../support/mod.rs"]
mod support;

mod chain;
mod peer;
mod process;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{OutPoint, Transaction, TxIn, Txid, Witness};
use serde_json::{Value, json};

use chain::{Chain, payee};
use peer::Peer;
use support::client::Client;
use support::naive::script_hash;
use support::purse::{Purse, output, transaction};
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
/// Longest wait for a sync, or for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Within which a wallet hears of an honest transaction, whatever others send.
const SOON: Duration = Duration::from_secs(2);
/// Hostile transactions of a second: 50,000 of a minute.
const FLOOD: u32 = 833;
/// Hostile announcements before them.
const HOSTILE_INVS: u32 = 10_000;
/// What a flood may add to the memory that the program has held at most.
const FLOOD_BYTES: u64 = 150_000_000;
/// What 100,000 transactions may add to the memory that the program holds.
const MEMPOOL_BYTES: u64 = 300_000_000;
/// Within which the transactions of before are there again after a restart.
const AGAIN: Duration = Duration::from_secs(60);
/// Transactions of a large block.
const A_BLOCK: usize = 3_000;

fn is_long() -> bool {
    std::env::var("PEERDEX_FLOOD").is_ok_and(|value| value == "long")
}

/// Whether this build can judge what strangers send: without scripts nothing is taken from them.
fn runs_scripts() -> bool {
    let runs = cfg!(feature = "kernel");
    if !runs {
        support::skipped("without a script verifier nothing is taken from strangers");
    }
    runs
}

fn options(peers: &[&Peer], trust: &[&Peer]) -> (Options, String) {
    let rpc = support::free_address().to_string();
    let mut options = Options::new(PEERDEX, "regtest");
    for peer in peers {
        options = options.connect(peer.address);
    }
    options.extra = vec!["--service".into(), format!("rpc://{rpc}")];
    for peer in trust {
        options.extra.extend(["--trust".into(), peer.address.to_string()]);
    }
    (options, rpc)
}

fn start(options: &Options, peers: &[&Peer], tip: &str) -> Server {
    let mut server = options.start();
    server.wait_synced(tip, PATIENCE);
    peers.iter().for_each(|peer| peer.wait_met(PATIENCE));
    server
}

/// Transactions in the mempool, as the operator is told.
fn mempool_size(rpc: &str) -> usize {
    let mut command = support::server::command(PEERDEX);
    let output = command.args(["rpc", "--rpc", rpc, "getmempoolinfo"]).output().unwrap();
    let info: Value = serde_json::from_slice(&output.stdout).unwrap();
    info["size"].as_u64().unwrap() as usize
}

/// Payments numbered from `first`, each of two coins.
fn payments(purse: &Purse, coins: &[OutPoint], first: u64) -> Vec<Transaction> {
    let pairs: Vec<[OutPoint; 2]> = coins.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
    let half = pairs.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (first..)
            .step_by(half)
            .zip(pairs.chunks(half))
            .map(|(first, pairs)| {
                let signed = move || (first..).zip(pairs).map(|(n, pair)| chain::pay(purse, *pair, n));
                scope.spawn(move || signed().collect::<Vec<_>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Waits for news of a script, or of the tip; what else comes is passed over.
fn wait_for_news(client: &mut Client, method: &str, wanted: impl Fn(&Value) -> bool) {
    let began = Instant::now();
    loop {
        let left = PATIENCE.checked_sub(began.elapsed()).expect("no news came");
        match client.notification(left) {
            Some((told, params)) if told == method && wanted(&params[0]) => return,
            _ => {}
        }
    }
}

#[test]
fn thousands_of_payments_a_second_are_verified_and_their_block_is_told_at_once() {
    if !runs_scripts() {
        return;
    }
    let count = if is_long() { 100_000 } else { 12_000 };
    let purse = Purse::new();
    let (mut chain, coins) = Chain::with_coins(2 * count + 2, &purse);
    let signed = payments(&purse, &coins, 0);
    let peer = Peer::start(&chain.raw());
    let (options, rpc) = options(&[], &[&peer]);
    let mut server = start(&options, &[&peer], &chain.tip());
    let process = server.process();
    let mut client = server.client();

    // One by itself first, so that all threads are awake and the empty program is known.
    let (first, rest) = signed.split_first().unwrap();
    client.subscribe(payee(0, 0).as_bytes()).unwrap();
    peer.offer([first]);
    wait_for_news(&mut client, "blockchain.scripthash.subscribe", |_| true);
    let memory = process::memory(process, "VmRSS");
    let before = process::processor(process);
    client.subscribe(payee(count as u64, 0).as_bytes()).unwrap();
    let began = Instant::now();
    peer.offer(rest);
    wait_for_news(&mut client, "blockchain.scripthash.subscribe", |script| {
        *script == json!(script_hash(payee(count as u64, 0).as_bytes()))
    });
    let took = began.elapsed();
    let used = process::used(&before, &process::processor(process));
    support::wait_for("all to be taken", PATIENCE, || (mempool_size(&rpc) == signed.len()).then_some(()));
    let more = process::memory(process, "VmRSS").saturating_sub(memory);
    let seconds: f64 = used.values().sum();
    println!(
        "{count} payments of two inputs: {:.0} a second, {:.0} us of processor each; {} MB more, {} bytes each",
        count as f64 / took.as_secs_f64(),
        seconds * 1e6 / count as f64,
        more / 1_000_000,
        more / count as u64,
    );
    println!("seconds of processor by thread: {used:.2?}");
    assert!(more < MEMPOOL_BYTES, "{more} bytes");
    assert!(
        took < Duration::from_millis(count as u64),
        "at least a thousand a second on any machine: {took:?}"
    );

    // A block of nothing, then one of what is in the mempool.
    client.tip().unwrap();
    for part in [&[][..], &signed[..A_BLOCK], &[], &signed[A_BLOCK..2 * A_BLOCK]] {
        let block = serialize(chain.mine(part));
        let before = process::processor(process);
        let began = Instant::now();
        peer.extend(&block);
        wait_for_news(&mut client, "blockchain.headers.subscribe", |_| true);
        println!("the tip with {} of the mempool's: told after {:.1?}", part.len(), began.elapsed());
        std::thread::sleep(Duration::from_secs(1));
        println!("  by thread: {:.2?}", process::used(&before, &process::processor(process)));
    }
    let left = signed.len() - 2 * A_BLOCK;
    support::wait_for("the blocks' to leave", PATIENCE, || (mempool_size(&rpc) == left).then_some(()));

    // While it is down, a block takes some more.
    let folder = server.stop();
    peer.extend(&serialize(chain.mine(&signed[2 * A_BLOCK..3 * A_BLOCK])));
    let left = left - A_BLOCK;
    let began = Instant::now();
    let mut server = options.start_in(folder);
    server.wait_synced(&chain.tip(), PATIENCE);
    support::wait_for("the mempool of before", PATIENCE, || (mempool_size(&rpc) == left).then_some(()));
    let took = began.elapsed();
    println!("{left} transactions were there again {took:.1?} after a restart");
    assert!(took < AGAIN, "{took:?}");
}

/// What a hostile peer sends: by turns a payment with a bad signature, an orphan of a hundred inputs, what is no
/// transaction, and one that pays next to nothing.
fn hostile(coins: &[OutPoint], model: &Transaction, number: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    let unique = u64::from(number) | 1 << 40;
    let first = random.usize(..coins.len() - 1);
    match number % 4 {
        0 => {
            // The signature is of another payment.
            let mut tx = chain::unsigned(&coins[first..first + 2], unique, 4_000);
            for (input, signed) in tx.input.iter_mut().zip(&model.input) {
                input.witness = signed.witness.clone();
            }
            serialize(&tx)
        }
        1 => {
            let unknown = || OutPoint::new(Txid::from_byte_array(random_bytes(&mut random)), 0);
            let unknown = std::iter::repeat_with(unknown).take(100);
            let inputs = unknown.map(|previous_output| TxIn {
                previous_output,
                witness: Witness::from_slice(&[&[1; 71][..], &[2; 33]]),
                ..TxIn::default()
            });
            serialize(&transaction(inputs.collect(), vec![output(10_000, payee(unique, 0))]))
        }
        2 => std::iter::repeat_with(|| random.u8(..)).take(400).collect(),
        _ => serialize(&chain::unsigned(&coins[first..first + 2], unique, 2)),
    }
}

fn random_bytes(random: &mut fastrand::Rng) -> [u8; 32] {
    std::array::from_fn(|_| random.u8(..))
}

#[test]
fn honest_payments_are_seen_at_once_while_somebody_floods() {
    if !runs_scripts() {
        return;
    }
    let seconds = if is_long() { 60 } else { 8 };
    let purse = Purse::new();
    let count = seconds as usize * 20;
    let (chain, coins) = Chain::with_coins(2 * count + 500, &purse);
    let (coins, theirs) = coins.split_at(2 * count);
    let signed = payments(&purse, coins, 0);
    let (honest, flooder) = (Peer::start(&chain.raw()), Peer::start(&chain.raw()));
    let (options, rpc) = options(&[&honest, &flooder], &[]);
    let mut server = start(&options, &[&honest, &flooder], &chain.tip());
    let mut client = server.client();
    for number in 0..count as u64 {
        client.subscribe(payee(number, 0).as_bytes()).unwrap();
    }
    // Without a flood first.
    let (quiet, busy) = signed.split_at(count / 4);
    let each = Duration::from_millis(50);
    report("nobody floods", &mut delays(&mut client, &honest, quiet, 0, each));

    let process = server.process();
    let memory = process::memory(process, "VmHWM");
    let before = process::processor(process);
    let stop = AtomicBool::new(false);
    let mut late = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let ids = |number: u32| sha256d::Hash::hash(&number.to_le_bytes()).to_byte_array();
            flooder.announce(&(0..HOSTILE_INVS).map(ids).collect::<Vec<_>>());
            let began = Instant::now();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                flooder.say("tx", &hostile(theirs, &signed[0], sent));
                sent += 1;
                let due = began + Duration::from_secs(1) * sent / FLOOD;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            (sent, began.elapsed())
        });
        let late = delays(&mut client, &honest, busy, quiet.len() as u64, each);
        stop.store(true, Ordering::Relaxed);
        let (sent, took) = flood.join().unwrap();
        println!("flood: {sent} in {took:.1?}, {:.0} a minute", f64::from(sent) * 60.0 / took.as_secs_f64());
        late
    });
    let more = process::memory(process, "VmHWM") - memory;
    let used = process::used(&before, &process::processor(process));
    println!("seconds of processor by thread: {used:.2?}");
    println!(
        "memory at most: {} MB, {} MB of it since the flood began",
        (memory + more) / 1_000_000,
        more / 1_000_000
    );
    let worst = report("somebody floods", &mut late);
    assert!(worst < SOON, "{worst:?}");
    assert!(more < FLOOD_BYTES, "{more} bytes");
    assert_eq!(mempool_size(&rpc), count, "only the honest came in");
    assert_eq!(honest.met(), 1, "the honest peer was never dropped");
}

/// How long each took from its announcement until the wallet heard of it.
fn delays(
    client: &mut Client,
    honest: &Peer,
    payments: &[Transaction],
    first: u64,
    each: Duration,
) -> Vec<Duration> {
    let hashes: Vec<String> =
        (first..).take(payments.len()).map(|n| script_hash(payee(n, 0).as_bytes())).collect();
    let mut told: Vec<Option<Instant>> = vec![None; payments.len()];
    let mut announced = Vec::with_capacity(payments.len());
    let began = Instant::now();
    while told.iter().any(Option::is_none) {
        assert!(began.elapsed() < PATIENCE + each * payments.len() as u32, "some were never told");
        let due = began + each * announced.len() as u32;
        if announced.len() < payments.len() && due <= Instant::now() {
            announced.push(Instant::now());
            honest.offer([&payments[announced.len() - 1]]);
            continue;
        }
        let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if let Some((_, params)) = client.notification(wait.min(each)) {
            let at = hashes.iter().position(|hash| params[0] == json!(hash));
            at.and_then(|at| told.get_mut(at)).into_iter().for_each(|told| *told = Some(Instant::now()));
        }
    }
    announced.iter().zip(told).filter_map(|(from, to)| Some(to? - *from)).collect()
}

/// Prints them, and gives back the worst.
fn report(when: &str, late: &mut [Duration]) -> Duration {
    late.sort_unstable();
    let worst = late[late.len() - 1];
    println!(
        "{} honest payments while {when}: median {:.0?}, worst {worst:.0?}",
        late.len(),
        late[late.len() / 2]
    );
    worst
}
