//! How many inputs a second are verified: `cargo run --release --example verify_speed`.
//!
//! Transactions of one input each, the usual case; those of many inputs are faster, as their hashes are shared.

#![allow(clippy::unwrap_used, reason = "who runs this reads where it stopped")]

use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::key::{TapTweak, UntweakedKeypair};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};
use peerdex::scripts::{Flags, verify};

/// How many transactions of each kind are made, and for how long they are verified again and again.
const TXS: u32 = 500;
const LONG_ENOUGH: Duration = Duration::from_secs(2);

type Spend = (Transaction, Vec<u8>, TxOut);

fn unsigned(number: u32, to: &ScriptBuf) -> Transaction {
    let previous_output = OutPoint { txid: Txid::hash(&number.to_le_bytes()), vout: 0 };
    let input = TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() };
    let output = TxOut { value: Amount::from_sat(1_000), script_pubkey: to.clone() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output; 2],
    }
}

fn p2wpkh(number: u32) -> Spend {
    let secp = Secp256k1::new();
    let key = SecretKey::from_slice(&[1; 32]).unwrap();
    let public = key.public_key(&secp).serialize();
    let hash = WPubkeyHash::from_raw_hash(hash160::Hash::hash(&public));
    let spent = TxOut { value: Amount::from_sat(5_000), script_pubkey: ScriptBuf::new_p2wpkh(&hash) };
    let mut tx = unsigned(number, &spent.script_pubkey);
    let sighash = SighashCache::new(&tx)
        .p2wpkh_signature_hash(0, &spent.script_pubkey, spent.value, EcdsaSighashType::All)
        .unwrap();
    let mut signature = secp.sign_ecdsa(&Message::from(sighash), &key).serialize_der().to_vec();
    signature.push(1);
    tx.input[0].witness = Witness::from_slice(&[&signature[..], &public]);
    let raw = serialize(&tx);
    (tx, raw, spent)
}

fn p2tr(number: u32) -> Spend {
    let secp = Secp256k1::new();
    let pair = UntweakedKeypair::from_seckey_slice(&secp, &[1; 32]).unwrap();
    let script_pubkey = ScriptBuf::new_p2tr(&secp, pair.x_only_public_key().0, None);
    let spent = TxOut { value: Amount::from_sat(5_000), script_pubkey };
    let mut tx = unsigned(number, &spent.script_pubkey);
    let sighash = SighashCache::new(&tx)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&[&spent]), TapSighashType::Default)
        .unwrap();
    let pair = pair.tap_tweak(&secp, None).to_keypair();
    let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), &pair);
    tx.input[0].witness = Witness::from_slice(&[signature.as_ref()]);
    let raw = serialize(&tx);
    (tx, raw, spent)
}

/// Inputs verified by one thread.
fn work(spends: &[Spend]) -> u64 {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < LONG_ENOUGH {
        for (tx, raw, spent) in spends {
            verify(tx, raw, std::slice::from_ref(spent), Flags::ALL).unwrap();
            done += 1;
        }
    }
    done
}

fn main() {
    for (name, make) in [("P2WPKH", p2wpkh as fn(u32) -> Spend), ("P2TR", p2tr)] {
        let spends: Vec<Spend> = (0..TXS).map(make).collect();
        for threads in [1, 2] {
            let start = Instant::now();
            let done: u64 = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&spends))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            let rate = done as f64 / start.elapsed().as_secs_f64();
            println!("{name}, threads: {threads}, inputs a second: {rate:.0}");
        }
    }
}
