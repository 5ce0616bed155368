//! The forge against rust-bitcoin: same seed, same bytes; every block well formed; the truth true.

use std::collections::{BTreeMap, HashMap};

use bitcoin::hashes::{Hash, sha256, sha256d};
use bitcoin::{Block, OutPoint, ScriptBuf};

use super::{MAGIC, forge};
use crate::truth::{Line, Script, Summary};

const SIZE: u64 = 6_000_000;

fn made(seed: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut blocks, mut truth) = (Vec::new(), Vec::new());
    forge(SIZE, seed, &mut blocks, &mut truth).unwrap();
    (blocks, truth)
}

fn decoded(mut file: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        assert_eq!(file[..4], MAGIC);
        let length = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
        blocks.push(bitcoin::consensus::deserialize(&file[8..8 + length]).unwrap());
        file = &file[8 + length..];
    }
    blocks
}

#[test]
fn a_seed_gives_one_chain() {
    let hashed =
        |(blocks, truth): (Vec<u8>, Vec<u8>)| (sha256d::Hash::hash(&blocks), sha256d::Hash::hash(&truth));
    assert_eq!(hashed(made(1)), hashed(made(1)));
    assert_ne!(hashed(made(1)), hashed(made(2)));
}

#[test]
fn blocks_are_well_formed() {
    let blocks = decoded(&made(1).0);
    for (height, block) in blocks.iter().enumerate() {
        assert!(block.check_merkle_root(), "{height}");
        assert!(block.check_witness_commitment(), "{height}");
        assert!(block.header.validate_pow(block.header.target()).is_ok(), "{height}");
        assert!(block.weight().to_wu() <= 4_000_000, "{height}");
        if height > 0 {
            assert_eq!(block.header.prev_blockhash, blocks[height - 1].block_hash());
        }
        // The library doesn't read the opcodes of heights up to 16.
        if height > 16 {
            assert_eq!(block.bip34_block_height().ok(), Some(height as u64));
        }
    }
}

#[test]
fn the_truth_is_what_the_blocks_say() {
    let (file, truth) = made(3);
    let blocks = decoded(&file);
    let mut unspent: BTreeMap<OutPoint, (ScriptBuf, usize, u64)> = BTreeMap::new();
    let mut histories: HashMap<ScriptBuf, Vec<(u32, String)>> = HashMap::new();
    let (mut transactions, mut outputs, mut inputs) = (0, 0, 0);
    let mut order = HashMap::new();
    for (height, block) in blocks.iter().enumerate() {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            order.insert(txid, transactions);
            transactions += 1;
            inputs += tx.input.len();
            outputs += tx.output.len();
            let mut touched = Vec::new();
            for input in tx.input.iter().filter(|input| !input.previous_output.is_null()) {
                touched.push(unspent.remove(&input.previous_output).expect("an input is unspent").0);
            }
            for (vout, output) in (0..).zip(&tx.output) {
                if !output.script_pubkey.is_op_return() {
                    touched.push(output.script_pubkey.clone());
                    let coin = (output.script_pubkey.clone(), height, output.value.to_sat());
                    unspent.insert(OutPoint { txid, vout }, coin);
                }
            }
            touched.sort();
            touched.dedup();
            for script in touched {
                histories.entry(script).or_default().push((height as u32, txid.to_string()));
            }
        }
    }
    unspent.retain(|_, coin| coin.1 > 0);
    let mut coins_of: HashMap<&ScriptBuf, Vec<_>> = HashMap::new();
    for (outpoint, coin) in &unspent {
        coins_of.entry(&coin.0).or_default().push((outpoint, coin));
    }
    let mut lines = truth.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut next = || lines.next().map(|line| serde_json::from_slice::<Line>(line).unwrap());
    let expected = Summary {
        height: blocks.len() as u32 - 1,
        tip: blocks.last().unwrap().block_hash().to_string(),
        bytes: (file.len() - 8 * blocks.len()) as u64,
        transactions: transactions as u64,
        outputs: outputs as u64,
        inputs: inputs as u64,
        scripts: histories.len() as u64,
        unspent: unspent.len() as u64,
    };
    assert_eq!(next(), Some(Line::Summary(expected)));

    let by_hash: HashMap<String, &ScriptBuf> = histories
        .keys()
        .map(|script| {
            let mut hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
            hash.reverse();
            (hash.iter().map(|byte| format!("{byte:02x}")).collect(), script)
        })
        .collect();
    let mut counts = (0, 0);
    while let Some(line) = next() {
        match line {
            Line::Summary(_) => panic!("a second summary"),
            Line::Script(Script { scripthash, history, unspent: told }) => {
                counts.0 += 1;
                let script = by_hash[&scripthash];
                assert_eq!(history, histories[script]);
                let mut coins = coins_of.remove(script).unwrap_or_default();
                coins.sort_by_key(|(outpoint, _)| (order[&outpoint.txid], outpoint.vout));
                let coins: Vec<_> = coins
                    .into_iter()
                    .map(|(outpoint, (_, height, value))| {
                        (outpoint.txid.to_string(), outpoint.vout, *height as u32, *value)
                    })
                    .collect();
                assert_eq!(told, coins);
            }
            Line::Transaction(told) => {
                counts.1 += 1;
                let tx = &blocks[told.height as usize].txdata[told.position as usize];
                assert_eq!(told.txid, tx.compute_txid().to_string());
                let place = told.offset as usize..told.offset as usize + told.length as usize;
                assert_eq!(file[place], bitcoin::consensus::serialize(tx));
            }
        }
    }
    assert!(counts.0 > 5_000 && counts.1 > 5_000, "{counts:?}");
}
