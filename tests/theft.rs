//! Blocks in which coins are taken without their owner's signature: refused, whatever work is above them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]
#![cfg(feature = "kernel")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize;
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, Block, Network, OutPoint, PublicKey, Sequence, Transaction, TxIn, TxOut, transaction};
use chainstore::{Height, Options as StoreOptions, Store};
use peerdex::blocks::ChainEvent;
use peerdex::io::scripts::{ScriptThreads, Verified};
use peerdex::node::chain::{Chain, Command, Event, Scripts};
use peerdex::scripts::Flags;
use peerdex::validate::{BlockContext, CheckedBlock, Params, check_block};

use support::mine;
use support::replay::ReplayPeer;
use support::server::{Options, Server};

const PEERDEX: &str = env!("CARGO_BIN_EXE_peerdex");
const SYNC: Duration = Duration::from_secs(120);
/// Blocks until the first coin may be spent in the next.
const RIPE: u32 = 100;
const FALSE_TOP: &str = "block-script-verify-flag-failed (Script evaluated without error but finished with a \
                         false/empty top stack element): input 0 of ";

fn owner() -> SecretKey {
    SecretKey::from_slice(&[1; 32]).unwrap()
}

fn public(key: &SecretKey) -> PublicKey {
    PublicKey::new(key.public_key(&Secp256k1::new()))
}

/// Pays to the owner.
fn script() -> ScriptBuf {
    ScriptBuf::new_p2pkh(&public(&owner()).pubkey_hash())
}

fn transaction(input: TxIn, output: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
}

fn paid(sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: script() }
}

/// Spends a coin of the owner by the signature of `signer`, who says it is the owner's.
fn spend(previous_output: OutPoint, sat: u64, signer: &SecretKey) -> Transaction {
    let input = TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() };
    let mut tx = transaction(input, vec![paid(sat)]);
    let hash = SighashCache::new(&tx).legacy_signature_hash(0, &script(), 1).unwrap();
    let mut signature = Secp256k1::new().sign_ecdsa(&Message::from(hash), signer).serialize_der().to_vec();
    signature.push(1);
    let push = |bytes: Vec<u8>| PushBytesBuf::try_from(bytes).unwrap();
    let unlock = Builder::new().push_slice(push(signature)).push_slice(push(public(&owner()).to_bytes()));
    tx.input[0].script_sig = unlock.into_script();
    tx
}

fn mine(parent: &Header, height: u32, txs: Vec<Transaction>) -> Block {
    let coinbase = mine::coinbase(height, txs.len() as u32, vec![paid(50 * 100_000_000)]);
    let txdata = std::iter::once(coinbase).chain(txs).collect();
    mine::block(parent, parent.time + 600, txdata)
}

/// Genesis and what makes the first coin ripe.
fn chain() -> Vec<Block> {
    let mut chain = vec![Params::of(Network::Regtest).genesis];
    for height in 1..=RIPE {
        let block = mine(&chain[chain.len() - 1].header, height, Vec::new());
        chain.push(block);
    }
    chain
}

/// A block on top whose first transaction spends an old coin, and whose second what the first made.
fn block_on(chain: &[Block], first: &SecretKey, second: &SecretKey) -> Block {
    let first = spend(OutPoint::new(chain[1].txdata[0].compute_txid(), 0), 4_000_000_000, first);
    let second = spend(OutPoint::new(first.compute_txid(), 0), 3_000_000_000, second);
    mine(&chain[chain.len() - 1].header, chain.len() as u32, vec![first, second])
}

fn checked(block: &Block, height: u32) -> CheckedBlock {
    let context = BlockContext { height: Height(height), parent_mtp: block.header.time - 1 };
    check_block(serialize(block).into(), &context, &Params::of(Network::Regtest)).unwrap()
}

/// A writer on a new folder that stands on top of `blocks`, in bulk or not.
fn writer(blocks: &[Block], verified: &Arc<Verified>, bulk: bool) -> (tempfile::TempDir, Chain) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::new(Network::Regtest)).unwrap();
    let runner = Box::new(ScriptThreads::new(verified.clone()));
    let mut chain = Chain::new(store, Arc::new(Params::of(Network::Regtest)), runner).unwrap();
    if bulk {
        // A bulk begins where many headers are above the tip, and goes on until it is near their end.
        let mut header = blocks[blocks.len() - 1].header;
        let mut headers: Vec<_> =
            (0u32..).map(Height).zip(blocks.iter().map(|block| block.header)).skip(1).collect();
        for height in blocks.len() as u32..blocks.len() as u32 + 200 {
            header = mine(&header, height, Vec::new()).header;
            headers.push((Height(height), header));
        }
        chain.execute(Command::PutHeaders(headers)).unwrap();
    }
    for (height, block) in (0..).zip(blocks).skip(1) {
        let events = chain.execute(Command::Connect(checked(block, height), Scripts::Verify)).unwrap();
        assert!(matches!(events[..], [Event::Chain(ChainEvent::Connected(_))]), "{height}: {events:?}");
    }
    assert_eq!(chain.is_bulk(), bulk);
    (folder, chain)
}

#[test]
fn a_signature_of_somebody_else_is_refused_in_bulk_and_out_of_it() {
    let blocks = chain();
    let thief = SecretKey::from_slice(&[2; 32]).unwrap();
    let old_coin = block_on(&blocks, &thief, &owner());
    let new_coin = block_on(&blocks, &owner(), &thief);
    let honest = block_on(&blocks, &owner(), &owner());
    let height = blocks.len() as u32;
    for bulk in [false, true] {
        let verified = Arc::new(Verified::default());
        let (_folder, mut chain) = writer(&blocks, &verified, bulk);
        let tip = chain.tip().unwrap();
        for (theft, position) in [(&old_coin, 1), (&new_coin, 2)] {
            let events = chain.execute(Command::Connect(checked(theft, height), Scripts::Verify)).unwrap();
            let [Event::Chain(ChainEvent::Failed { hash, reason, tip: left })] = &events[..] else {
                panic!("{events:?}")
            };
            assert_eq!((*hash, *left), (theft.block_hash(), tip));
            let tx = &theft.txdata[position];
            assert!(reason.starts_with(&format!("{FALSE_TOP}{}", tx.compute_txid())), "{reason}");
        }
        let events = chain.execute(Command::Connect(checked(&honest, height), Scripts::Verify)).unwrap();
        assert!(matches!(events[..], [Event::Chain(ChainEvent::Connected(_))]), "{events:?}");
    }
}

#[test]
fn what_is_assumed_or_was_verified_is_not_run() {
    let blocks = chain();
    let thief = SecretKey::from_slice(&[2; 32]).unwrap();
    let theft = block_on(&blocks, &thief, &owner());
    let height = blocks.len() as u32;
    let verified = Arc::new(Verified::default());
    let (_folder, mut chain) = writer(&blocks, &verified, false);
    let events = chain.execute(Command::Connect(checked(&theft, height), Scripts::Assume)).unwrap();
    assert!(matches!(events[..], [Event::Chain(ChainEvent::Connected(_))]), "{events:?}");

    let (_folder, mut chain) = writer(&blocks, &verified, false);
    verified.insert(theft.txdata[1].compute_wtxid(), Flags::ALL);
    let events = chain.execute(Command::Connect(checked(&theft, height), Scripts::Verify)).unwrap();
    assert!(matches!(events[..], [Event::Chain(ChainEvent::Connected(_))]), "{events:?}");
}

#[test]
fn a_branch_of_more_work_with_a_theft_in_it_is_not_followed() {
    let mut honest = chain();
    let thief = SecretKey::from_slice(&[2; 32]).unwrap();
    let mut stolen = honest.clone();
    honest.push(block_on(&honest, &owner(), &owner()));
    stolen.push(block_on(&stolen, &thief, &owner()));
    for height in stolen.len() as u32..stolen.len() as u32 + 5 {
        stolen.push(mine(&stolen[stolen.len() - 1].header, height, Vec::new()));
    }
    let theft = stolen[honest.len() - 1].block_hash().to_string();
    let serve = |chain: &[Block]| ReplayPeer::start(Network::Regtest, chain.iter().map(serialize).collect());
    let (longer, shorter) = (serve(&stolen), serve(&honest));
    let mut server: Server =
        Options::new(PEERDEX, "regtest").connect(longer.address()).connect(shorter.address()).start();
    let line = server.wait_for_log(&["invalid block", &theft], SYNC);
    assert!(line.contains("block-script-verify-flag-failed (Script evaluated without error"), "{line}");
    let tip = honest[honest.len() - 1].block_hash().to_string();
    server.wait_synced(&tip, SYNC);
    // It is not taken when it comes again.
    let folder = server.stop();
    let mut again = Options::new(PEERDEX, "regtest")
        .connect(longer.address())
        .connect(shorter.address())
        .start_in(folder);
    again.wait_synced(&tip, SYNC);
}
