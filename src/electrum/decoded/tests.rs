//! What a node was recorded to say, and what no node was asked.

use std::io::Read as _;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hex::FromHex as _;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, absolute::LockTime};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The default limit.
const MAX_BYTES: usize = 8_100_000;

/// The answers in `fixtures/verbose/`, as they were written.
fn recorded() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/verbose/regtest.jsonl.zst");
    let packed = std::fs::read(path).unwrap();
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn odd_transactions_read_as_a_node_wrote_them() {
    let recorded = recorded();
    let mut seen = 0;
    for line in recorded.lines() {
        let said: Value = serde_json::from_str(line).unwrap();
        let bytes = Vec::from_hex(said["hex"].as_str().unwrap()).unwrap();
        let place = Place {
            block_hash: said["blockhash"].as_str().unwrap().parse().unwrap(),
            time: said["time"].as_u64().unwrap() as u32,
            confirmations: said["confirmations"].as_u64().unwrap() as u32,
        };
        let written =
            transaction(&deserialize(&bytes).unwrap(), &bytes, Some(place), Network::Regtest, MAX_BYTES)
                .unwrap();
        // By their values first: a difference of one field is lost in a megabyte of text.
        let values: Value = serde_json::from_str(written.as_str()).unwrap();
        for (key, value) in said.as_object().unwrap() {
            if let (Value::Array(said), Value::Array(written)) = (value, &values[key]) {
                for (said, written) in said.iter().zip(written) {
                    assert_eq!(written, said, "{key} of {}", said["txid"]);
                }
            }
            assert_eq!(values[key], *value, "{key} of {}", said["txid"]);
        }
        assert!(written.as_str() == line, "{} is written otherwise", said["txid"]);
        seen += 1;
    }
    assert!(seen >= 20, "{seen} transactions");
}

fn of_output(script: Vec<u8>) -> Transaction {
    let output = TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::from(script) };
    Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn::default()],
        output: vec![output],
    }
}

fn written(tx: &Transaction, network: Network) -> Option<Json> {
    let place = Place { block_hash: bitcoin::hashes::Hash::all_zeros(), time: 0, confirmations: 1 };
    transaction(tx, &serialize(tx), Some(place), network, MAX_BYTES)
}

/// One key hash on every network; those of mainnet and testnet stand in BIP173.
#[test]
fn addresses_are_those_of_the_network() {
    const HASH: &str = "751e76e8199196d454941c45d1b3a323f1433bd6";
    let by_hash = Vec::from_hex(&format!("76a914{HASH}88ac")).unwrap();
    let by_witness = Vec::from_hex(&format!("0014{HASH}")).unwrap();
    for (network, legacy, segwit) in [
        (
            Network::Bitcoin,
            "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        ),
        (
            Network::Testnet,
            "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        ),
        (
            Network::Testnet4,
            "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        ),
        (Network::Signet, "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"),
    ] {
        for (script, address) in [(&by_hash, legacy), (&by_witness, segwit)] {
            let written = written(&of_output(script.clone()), network).unwrap();
            let written: Value = serde_json::from_str(written.as_str()).unwrap();
            let script = &written["vout"][0]["scriptPubKey"];
            assert_eq!(script["address"], address);
            assert!(script["desc"].as_str().unwrap().starts_with(&format!("addr({address})#")));
        }
    }
}

#[test]
fn what_is_longer_than_an_answer_may_be_is_not_written() {
    // A megabyte of the longest name: 29 bytes of text for each.
    assert!(written(&of_output(vec![0xaf; 1_000_000]), Network::Bitcoin).is_none());
    // In hex alone it fits, and twice it does not.
    let mut long = of_output(vec![0x51]);
    long.input[0].witness.push(vec![0; 3_000_000]);
    assert!(written(&long, Network::Bitcoin).is_none());
    assert!(written(&of_output(vec![0xaf; 200_000]), Network::Bitcoin).is_some());
}

proptest! {
    /// Scripts are strangers' bytes, so what they say is taken with care.
    #[test]
    fn any_script_can_be_written(script in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut tx = of_output(script.clone());
        tx.input[0].script_sig = ScriptBuf::from(script);
        tx.input[0].previous_output.vout = 0;
        let written = written(&tx, Network::Regtest).unwrap();
        let written: Value = serde_json::from_str(written.as_str()).unwrap();
        let output = &written["vout"][0]["scriptPubKey"];
        prop_assert_eq!(&output["hex"], &written["vin"][0]["scriptSig"]["hex"]);
        let descriptor = output["desc"].as_str().unwrap();
        prop_assert_eq!(descriptor.len() - descriptor.find('#').unwrap(), 9);
    }
}
