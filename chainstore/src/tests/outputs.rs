//! Outputs are read from blocks whatever holds their place: deltas, the base, a bulk that goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::{Block, OutPoint, TxOut};

use super::chain::{Forge, connect, small_options};
use crate::disk::Disk;
use crate::sim::SimDisk;
use crate::{Error, Height, Options, Store, Tip, TxNum, is_unspendable};

fn chain(seed: u64, blocks: usize) -> Vec<Block> {
    let mut forge = Forge::new(seed);
    let mut chain = Vec::new();
    while chain.len() < blocks {
        let block = forge.block(&chain);
        chain.push(block);
    }
    chain
}

/// Every output of the chain, backwards, and each of them twice.
fn wanted(chain: &[Block]) -> (Vec<(TxNum, u32)>, Vec<TxOut>) {
    let txs = chain.iter().flat_map(|block| &block.txdata).zip(0u32..);
    let outputs = txs.flat_map(|(tx, number)| {
        tx.output.iter().zip(0u32..).map(move |(output, vout)| ((TxNum(number), vout), output.clone()))
    });
    let mut outputs: Vec<_> = outputs.collect();
    outputs.reverse();
    outputs.extend(outputs.clone());
    outputs.into_iter().unzip()
}

/// The outputs that nothing spends, but for those that nobody can, as the genesis block's.
fn unspent(chain: &[Block]) -> Vec<(OutPoint, TxOut)> {
    let txs = || chain[1..].iter().flat_map(|block| &block.txdata);
    let spent: BTreeSet<OutPoint> =
        txs().flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
    let made = txs().flat_map(|tx| {
        let txid = tx.compute_txid();
        tx.output.iter().zip(0..).map(move |(output, vout)| (OutPoint { txid, vout }, output.clone()))
    });
    made.filter(|(outpoint, output)| !spent.contains(outpoint) && !is_unspendable(&output.script_pubkey))
        .collect()
}

fn open(disk: &SimDisk, options: Options) -> Store {
    Store::open_on(Arc::new(disk.clone()) as Arc<dyn Disk>, options).unwrap()
}

#[test]
fn every_output_is_read_from_deltas_and_from_the_base() {
    let chain = chain(11, 60);
    let options = Options { bulk_blocks: u32::MAX / 2, ..small_options() };
    let mut store = open(&SimDisk::new(), options);
    for (at, block) in chain.iter().enumerate() {
        connect(&mut store, block).unwrap();
        if at % 7 == 0 || at == 40 {
            store.commit().unwrap();
        }
        if at == 40 {
            store.merge().unwrap();
        }
    }
    let coins: Vec<(OutPoint, TxOut)> = unspent(&chain);
    let (numbers, outputs) = wanted(&chain);
    assert!(numbers.len() > 300, "enough for several threads: {}", numbers.len());
    assert_eq!(store.outputs(&numbers).unwrap(), outputs, "the newest blocks are staged only");
    store.commit().unwrap();
    let snapshot = store.snapshot();
    assert_eq!(snapshot.outputs(&numbers).unwrap(), outputs);
    assert_eq!(snapshot.output(numbers[0].0, numbers[0].1).unwrap(), outputs[0]);
    assert!(coins.len() > 50, "{} coins", coins.len());
    for (outpoint, output) in &coins {
        let coin = snapshot.coin(outpoint).unwrap().unwrap();
        assert_eq!(snapshot.output_of_coin(&coin, outpoint.vout).unwrap(), *output);
    }
    assert_eq!(store.outputs(&[]).unwrap(), []);
    for nothing in [(numbers[0].0, 1_000), (TxNum(1_000_000), 0)] {
        assert!(matches!(store.outputs(&[nothing]), Err(Error::Corrupt { .. })));
        assert!(matches!(snapshot.output(nothing.0, nothing.1), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn every_output_is_read_while_a_bulk_goes_on() {
    for flushed in [0, 20] {
        let chain = chain(12, 60);
        let options =
            Options { bulk_blocks: 10, bulk_memory_bytes: 1 << 20, bulk_secret: Some(7), ..small_options() };
        let mut store = open(&SimDisk::new(), options);
        connect(&mut store, &chain[0]).unwrap();
        store.commit().unwrap();
        let headers: Vec<_> =
            chain.iter().zip(0u32..).map(|(block, at)| (Height(at), block.header)).collect();
        store.put_headers(&headers).unwrap();
        for (at, block) in chain[..40].iter().enumerate().skip(1) {
            connect(&mut store, block).unwrap();
            if at == flushed {
                store.flush().unwrap();
            }
        }
        assert!(store.is_bulk());
        let (numbers, outputs) = wanted(&chain[..40]);
        assert_eq!(store.outputs(&numbers).unwrap(), outputs);
        assert!(matches!(store.outputs(&[(TxNum(1_000_000), 0)]), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn a_block_damaged_while_a_bulk_goes_on_is_named_and_once_given_again_it_is_read() {
    // In memory only, or flushed in part: the row of the block waits for its file, or is there.
    for (flushed, damaged) in [(0, 25), (20, 10), (20, 30), (39, 39)] {
        let chain = chain(14, 60);
        let disk = SimDisk::new();
        let options = Options { bulk_blocks: 10, bulk_secret: Some(7), ..small_options() };
        let mut store = open(&disk, options.clone());
        connect(&mut store, &chain[0]).unwrap();
        store.commit().unwrap();
        let headers: Vec<_> =
            chain.iter().zip(0u32..).map(|(block, at)| (Height(at), block.header)).collect();
        store.put_headers(&headers).unwrap();
        for (at, block) in chain[..40].iter().enumerate().skip(1) {
            connect(&mut store, block).unwrap();
            if at == flushed {
                store.flush().unwrap();
            }
        }
        let raw = serialize(&chain[damaged]);
        let mut hits = 0;
        for name in disk.list("blocks").unwrap() {
            disk.tamper(&format!("blocks/{name}"), |bytes| {
                if let Some(at) = bytes.windows(raw.len()).position(|window| window == raw) {
                    // What follows the header and the count: all of the block's transactions.
                    bytes[at + 81..at + raw.len()].iter_mut().for_each(|byte| *byte ^= 1);
                    hits += 1;
                }
            });
        }
        assert_eq!(hits, 1);

        let (numbers, outputs) = wanted(&chain[..40]);
        let tip = Tip { height: Height(damaged as u32), hash: chain[damaged].block_hash() };
        let Error::DamagedBlock { height, hash, what } = store.outputs(&numbers).unwrap_err() else {
            panic!("block {damaged}, flushed {flushed}: not named");
        };
        assert_eq!(Tip { height, hash }, tip);
        assert!(what.contains("checksum"), "{what}");
        let others = chain[..damaged].iter().map(|block| block.txdata.len() as u32).sum::<u32>();
        let (below, _): (Vec<_>, Vec<_>) = numbers.iter().partition(|(number, _)| number.0 < others);
        assert!(store.outputs(&below).is_ok(), "the blocks below are as they were");

        assert!(store.repair_block(tip, &raw).unwrap());
        assert_eq!(store.outputs(&numbers).unwrap(), outputs);
        assert!(!store.repair_block(tip, &raw).unwrap(), "it is there");
        let stranger = Tip { height: Height(damaged as u32 - 1), ..tip };
        assert!(!store.repair_block(stranger, &raw).unwrap(), "no block of that height");

        // The way to the new place stays when the bulk ends.
        for block in &chain[40..] {
            connect(&mut store, block).unwrap();
        }
        store.set_headers_complete().unwrap();
        store.commit().unwrap();
        assert!(!store.is_bulk());
        drop(store);
        let store = open(&disk, options);
        let (numbers, outputs) = wanted(&chain);
        assert_eq!(store.outputs(&numbers).unwrap(), outputs);
        assert_eq!(store.snapshot().raw_block(tip.height).unwrap(), Some(raw));
    }
}

#[test]
fn a_block_that_cannot_be_read_is_named() {
    let chain = chain(13, 12);
    let disk = SimDisk::new();
    let mut store = open(&disk, Options { bulk_blocks: u32::MAX / 2, ..small_options() });
    chain.iter().for_each(|block| connect(&mut store, block).unwrap());
    store.commit().unwrap();
    let (numbers, _) = wanted(&chain);
    let snapshot = store.snapshot();
    let (outpoint, _) = unspent(&chain).swap_remove(0);
    let coin = snapshot.coin(&outpoint).unwrap().unwrap();
    for segment in 0..20 {
        if disk.list("blocks").unwrap().contains(&format!("{segment:05}.blk")) {
            disk.tamper(&format!("blocks/{segment:05}.blk"), |bytes| bytes.fill(0));
        }
    }
    let error = store.outputs(&numbers).unwrap_err();
    assert!(matches!(error, Error::DamagedBlock { .. }), "{error}");
    assert!(store.snapshot().outputs(&numbers).is_err());
    let error = store.snapshot().output_of_coin(&coin, outpoint.vout).unwrap_err();
    assert!(matches!(error, Error::DamagedBlock { height, .. } if height == coin.height), "{error}");
    assert_eq!(store.snapshot().damaged_blocks().len(), 2, "what readers meet is remembered");
}
