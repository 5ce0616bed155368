//! Forged blocks, and the naive answers about a chain of them: everything computed anew from the first block.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, transaction,
};

use crate::{
    Coin, Height, NewBlock, Options, ScriptClass, ScriptHash, Snapshot, Store, TxNum, has_history,
    is_unspendable,
};

pub(crate) const NETWORK: Network = Network::Regtest;

/// Options that make a small chain meet every edge.
pub(crate) fn small_options() -> Options {
    Options {
        keep_deltas: 5,
        merge_batch: 3,
        segment_bytes: 4000,
        part_bytes: 600,
        txid_prefix: 1,
        tip_cache_bytes: 1 << 20,
        ..Options::new(NETWORK)
    }
}

/// Scripts of every kind that the index tells apart; few, so that they meet again.
pub(crate) fn scripts() -> Vec<ScriptBuf> {
    let mut scripts: Vec<ScriptBuf> = (0..6u8).map(|i| ScriptBuf::from(vec![0x51, i])).collect();
    scripts.push(ScriptBuf::from([&[0x00, 0x14][..], &[7; 20]].concat()));
    scripts.push(ScriptBuf::from([&[0x00, 0x20][..], &[8; 32]].concat()));
    scripts.push(ScriptBuf::from([&[0xa9, 0x14][..], &[9; 20], &[0x87]].concat()));
    scripts.push(ScriptBuf::from(vec![0x6a, 1, 2]));
    scripts.push(ScriptBuf::new());
    scripts.push(ScriptBuf::from(vec![0x51; 10_001]));
    scripts
}

/// What a store over `blocks` must answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) txids: Vec<Txid>,
    pub(crate) heights: Vec<Height>,
    pub(crate) raw: Vec<Vec<u8>>,
    pub(crate) numbers: BTreeMap<Txid, TxNum>,
    pub(crate) coins: BTreeMap<OutPoint, Coin>,
    pub(crate) history: BTreeMap<ScriptHash, BTreeSet<TxNum>>,
}

impl Answers {
    pub(crate) fn of(blocks: &[Block]) -> Self {
        let mut answers = Self::default();
        let mut scripts: HashMap<OutPoint, ScriptHash> = HashMap::new();
        for (block, height) in blocks.iter().zip(0u32..) {
            for (tx, at) in block.txdata.iter().zip(0..) {
                let number = TxNum(answers.txids.len() as u32);
                let txid = tx.compute_txid();
                answers.txids.push(txid);
                answers.heights.push(Height(height));
                answers.raw.push(bitcoin::consensus::serialize(tx));
                if number.0 == 0 {
                    continue;
                }
                if let Some(older) = answers.numbers.insert(txid, number) {
                    answers.history.values_mut().for_each(|numbers| {
                        numbers.remove(&older);
                    });
                }
                for input in tx.input.iter().filter(|_| at > 0) {
                    answers
                        .coins
                        .remove(&input.previous_output)
                        .expect("forged blocks spend coins that are there");
                    answers.history.entry(scripts[&input.previous_output]).or_default().insert(number);
                }
                for (output, vout) in tx.output.iter().zip(0..) {
                    let (script, outpoint) = (&output.script_pubkey, OutPoint::new(txid, vout));
                    scripts.insert(outpoint, ScriptHash::of(script));
                    if has_history(script) {
                        answers.history.entry(ScriptHash::of(script)).or_default().insert(number);
                    }
                    if !is_unspendable(script) {
                        let coin = Coin {
                            value: output.value,
                            tx_num: number,
                            height: Height(height),
                            is_coinbase: at == 0,
                            class: ScriptClass::of(script),
                            script_key: ScriptHash::of(script).key(),
                        };
                        answers.coins.insert(outpoint, coin);
                    }
                }
            }
        }
        answers
    }

    /// Compares every answer that a snapshot gives about its chain.
    pub(crate) fn check(&self, snapshot: &Snapshot, blocks: &[Block], context: &str) {
        let tip = snapshot.tip().map(|tip| (tip.height.0 as usize + 1, tip.hash));
        assert_eq!(tip, blocks.last().map(|block| (blocks.len(), block.block_hash())), "{context}");
        for script in scripts() {
            let hash = ScriptHash::of(&script);
            let wanted: Vec<_> = self.history.get(&hash).into_iter().flatten().copied().collect();
            let found = snapshot.history(&hash).unwrap();
            for below in [2, 3, 8].map(|above| Height(blocks.len().saturating_sub(above) as u32)) {
                if let Some(above) = snapshot.history_numbers_above(&hash, below).unwrap() {
                    let newest = found.iter().filter(|entry| entry.height > below);
                    assert_eq!(above, newest.map(|entry| entry.tx_num).collect::<Vec<_>>());
                }
            }
            assert_eq!(
                found.iter().map(|entry| entry.tx_num).collect::<Vec<_>>(),
                wanted,
                "{context}: {script:?}"
            );
            assert!(found.iter().all(|entry| entry.txid == self.txids[entry.tx_num.0 as usize]), "{context}");
            assert!(
                found.iter().all(|entry| entry.height == self.heights[entry.tx_num.0 as usize]),
                "{context}"
            );

            let mut wanted: Vec<_> =
                self.coins.iter().filter(|(_, coin)| coin.script_key == hash.key()).collect();
            wanted.sort_by_key(|(outpoint, coin)| (coin.tx_num, outpoint.vout));
            let wanted: Vec<_> =
                wanted.iter().map(|(at, coin)| (**at, coin.tx_num, coin.height, coin.value)).collect();
            let found = snapshot.unspent(&hash).unwrap();
            let found: Vec<_> =
                found.iter().map(|u| (OutPoint::new(u.txid, u.vout), u.tx_num, u.height, u.value)).collect();
            assert_eq!(found, wanted, "{context}: {script:?}");
            let balance: Amount = wanted.iter().map(|coin| coin.3).sum();
            assert_eq!(snapshot.balance(&hash).unwrap().0, balance, "{context}");
        }
        for (txid, number) in self.txids.iter().zip(0u32..) {
            assert_eq!(
                snapshot.tx_num(txid).unwrap(),
                self.numbers.get(txid).copied(),
                "{context}: {number}"
            );
            assert_eq!(snapshot.txid(TxNum(number)).unwrap(), Some(*txid), "{context}");
            assert_eq!(snapshot.height_of(TxNum(number)), Some(self.heights[number as usize]), "{context}");
            let raw = snapshot.raw_tx(txid).unwrap();
            let later = self.numbers.get(txid).map(|later| later.0 as usize);
            assert_eq!(
                raw.map(|raw| (raw.bytes, raw.height)),
                later.map(|at| (self.raw[at].clone(), self.heights[at]))
            );
            for vout in 0..4 {
                let outpoint = OutPoint::new(*txid, vout);
                assert_eq!(
                    snapshot.coin(&outpoint).unwrap(),
                    self.coins.get(&outpoint).copied(),
                    "{context}"
                );
            }
        }
        let mut first = 0;
        for (block, height) in blocks.iter().zip(0u32..) {
            let height = Height(height);
            let txids = &self.txids[first..first + block.txdata.len()];
            first += block.txdata.len();
            assert_eq!(snapshot.header(height).unwrap(), Some(block.header), "{context}: header {height}");
            assert_eq!(snapshot.block_txids(height).unwrap().as_deref(), Some(txids), "{context}: {height}");
            assert_eq!(snapshot.txid_at(height, 0).unwrap(), Some(txids[0]), "{context}");
            assert_eq!(snapshot.txid_at(height, txids.len() as u32).unwrap(), None, "{context}");
        }
        let all: Vec<u8> =
            blocks.iter().flat_map(|block| bitcoin::consensus::serialize(&block.header)).collect();
        assert_eq!(snapshot.headers(Height(0), blocks.len() as u32).unwrap(), all, "{context}");
        assert_eq!(snapshot.txid(TxNum(self.txids.len() as u32)).unwrap(), None, "{context}");
    }
}

/// Makes blocks.
pub(crate) struct Forge {
    pub(crate) rng: fastrand::Rng,
    /// Makes every block another, even with the same parent.
    counter: u32,
}

impl Forge {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), counter: 0 }
    }

    /// A block on top of `chain`: script reuse, spends within the block, and now and then a coinbase seen before.
    pub(crate) fn block(&mut self, chain: &[Block]) -> Block {
        let Some(parent) = chain.last() else { return genesis_block(NETWORK) };
        self.counter += 1;
        let scripts = scripts();
        let mut coins = Answers::of(chain).coins;
        let mut coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from(self.counter.to_le_bytes().to_vec()),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: (0..self.rng.u32(1..4)).map(|_| self.output(&scripts)).collect(),
        };
        if chain.len() > 1 && self.rng.u8(0..5) == 0 {
            coinbase = chain[self.rng.usize(1..chain.len())].txdata[0].clone();
        }
        let mut txdata = vec![coinbase];
        for _ in 0..self.rng.u32(0..5) {
            if self.rng.bool() {
                self.offer(&mut coins, &txdata);
            }
            let available: Vec<OutPoint> = coins.keys().copied().collect();
            let mut input = Vec::new();
            for _ in 0..self.rng.usize(1..4).min(available.len()) {
                let spent = available[self.rng.usize(..available.len())];
                // A duplicate coinbase overwrites coins before this transaction, so its old ones may be gone.
                if coins.remove(&spent).is_some() && spent.txid != txdata[0].compute_txid() {
                    let witness = Witness::from_slice(&[vec![1; self.rng.usize(0..9)]]);
                    input.push(TxIn { previous_output: spent, witness, ..TxIn::default() });
                }
            }
            if !input.is_empty() {
                let output = (0..self.rng.u32(1..4)).map(|_| self.output(&scripts)).collect();
                txdata.push(Transaction {
                    version: transaction::Version::TWO,
                    lock_time: LockTime::ZERO,
                    input,
                    output,
                });
            }
        }
        self.seal(parent.block_hash(), txdata)
    }

    /// Makes the outputs of the block's transactions spendable within it, but for the coinbase's.
    fn offer(&mut self, coins: &mut BTreeMap<OutPoint, Coin>, txdata: &[Transaction]) {
        let spent: BTreeSet<OutPoint> =
            txdata.iter().skip(1).flat_map(|tx| tx.input.iter().map(|input| input.previous_output)).collect();
        for tx in &txdata[1..] {
            for (output, vout) in tx.output.iter().zip(0..) {
                let outpoint = OutPoint::new(tx.compute_txid(), vout);
                if !is_unspendable(&output.script_pubkey) && !spent.contains(&outpoint) {
                    let script_key = ScriptHash::of(&output.script_pubkey).key();
                    coins.insert(outpoint, Coin { script_key, ..dummy_coin() });
                }
            }
        }
    }

    fn output(&mut self, scripts: &[ScriptBuf]) -> TxOut {
        let last = scripts.len() - 1;
        // The script of 10,001 bytes is rare, for the sake of speed.
        let at = if self.rng.u8(0..40) == 0 { last } else { self.rng.usize(..last) };
        TxOut { value: Amount::from_sat(self.rng.u64(0..1 << 20)), script_pubkey: scripts[at].clone() }
    }

    /// A block with these transactions. Its work is not looked at.
    pub(crate) fn seal(&mut self, parent: BlockHash, txdata: Vec<Transaction>) -> Block {
        self.counter += 1;
        let header = Header {
            version: Version::TWO,
            prev_blockhash: parent,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1_300_000_000 + self.rng.u32(0..1_000_000),
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: self.counter,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
        block
    }
}

pub(crate) fn dummy_coin() -> Coin {
    Coin {
        value: Amount::ZERO,
        tx_num: TxNum(0),
        height: Height(0),
        is_coinbase: false,
        class: ScriptClass::Other,
        script_key: ScriptHash([0; 32]).key(),
    }
}

/// Connects as the server does: asks the store for the coins, leaves those of the block itself out.
pub(crate) fn connect(store: &mut Store, block: &Block) -> Result<(), crate::Error> {
    let raw = bitcoin::consensus::serialize(block);
    let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    let within = |outpoint: &OutPoint| txids.contains(&outpoint.txid);
    let outpoints: Vec<OutPoint> = crate::outline::spending_inputs(block).collect();
    // Some ask for all, some only for what earlier blocks made, some twice, and some for what nobody spends.
    let way = store.tip().map_or(0, |tip| tip.height.0 % 5);
    let wanted: Vec<OutPoint> =
        outpoints.iter().filter(|outpoint| way == 0 || !within(outpoint)).copied().collect();
    let mut found: HashMap<OutPoint, Coin> = HashMap::new();
    for _ in 0..if way == 1 { 2 } else { 1 } {
        let coins = store.coins(&wanted)?;
        found.extend(wanted.iter().zip(coins).filter_map(|(outpoint, coin)| Some((*outpoint, coin?))));
    }
    if way == 2 {
        store.coins(&wanted[..wanted.len() / 2])?;
    }
    if way == 3 {
        let other = OutPoint::new(Txid::from_byte_array([0x5a; 32]), 7);
        assert_eq!(store.coins(&[&wanted[..], &[other]].concat())?.last(), Some(&None));
    }
    let spent: Vec<Coin> = outpoints
        .iter()
        .map(|outpoint| match found.get(outpoint) {
            Some(coin) => *coin,
            None if within(outpoint) => dummy_coin(),
            None => panic!("no coin at {outpoint}"),
        })
        .collect();
    let (hash, outline) = (block.block_hash(), crate::Outline::of(block));
    store.connect(&NewBlock { raw: &raw, header: &block.header, hash, outline: &outline, spent: &spent })
}

/// All that the store says of headers and blocks off the chain, as sets.
pub(crate) fn aside(store: &Store) -> Vec<String> {
    let headers = store.headers().unwrap();
    let chain = headers.chain.iter().zip(0u32..).map(|(header, height)| (Height(height), *header));
    let mut known: Vec<String> = chain
        .chain(headers.side)
        .map(|(height, header)| format!("header {height} {}", header.block_hash()))
        .collect();
    known.sort();
    known.extend(headers.invalid.iter().map(|hash| format!("invalid {hash}")));
    for tip in store.stored_blocks() {
        let raw = store.stored_block(&tip.hash).unwrap().expect("listed blocks are there");
        let block: Block = bitcoin::consensus::deserialize(&raw).unwrap();
        assert_eq!(block.block_hash(), tip.hash);
        known.push(format!("stored {tip:?}"));
    }
    known
}
