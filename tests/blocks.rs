//! The block rules against real blocks of four networks.
//!
//! `fixtures/blocks/README.md` says where they come from. What lies below a block that stands alone is not here:
//! its coins are made from the outputs that it spends, as old as can be. The runs from genesis have everything.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, deserialize_partial};
use bitcoin::{Amount, BlockHash, Network, OutPoint, ScriptBuf, TxOut, Txid};
#[cfg(feature = "kernel")]
use bitcoin::{Transaction, consensus::encode::serialize};
use bytes::Bytes;
use chainstore::{Coin, Height, Outline, ScriptClass, ScriptHash, TxNum, is_unspendable};
#[cfg(feature = "kernel")]
use peerdex::scripts;
use peerdex::validate::{
    BlockContext, BlockError, CheckedBlock, ConnectedBlock, Params, SpendContext, check_block, connect_block,
    subsidy,
};

#[path = "support/fixtures.rs"]
mod fixtures;

/// A line of `blocks.tsv`.
struct Listed {
    network: Network,
    height: Height,
    hash: BlockHash,
    weight: u64,
    transactions: usize,
    raw: Bytes,
    /// The outputs that it spends, where they are known.
    prevouts: Option<Vec<TxOut>>,
}

fn listed() -> Vec<Listed> {
    let list = String::from_utf8(fixtures::block("blocks/blocks.tsv")).unwrap();
    list.lines().filter(|line| !line.starts_with('#')).map(listed_block).collect()
}

fn listed_block(line: &str) -> Listed {
    let columns: Vec<&str> = line.split('\t').collect();
    let [network, height, hash, file, weight, transactions, prevouts, _source] = columns[..] else {
        panic!("a line of another form: {line}");
    };
    let read = |file: &str| fixtures::block(&format!("blocks/{network}/{file}"));
    Listed {
        raw: read(file).into(),
        prevouts: (prevouts != "-").then(|| outputs(&read(prevouts))),
        network: match network {
            "mainnet" => Network::Bitcoin,
            "testnet3" => Network::Testnet,
            "testnet4" => Network::Testnet4,
            "signet" => Network::Signet,
            other => panic!("no network of ours: {other}"),
        },
        height: Height(height.parse().unwrap()),
        hash: BlockHash::from_str(hash).unwrap(),
        weight: weight.parse().unwrap(),
        transactions: transactions.parse().unwrap(),
    }
}

fn outputs(mut bytes: &[u8]) -> Vec<TxOut> {
    let mut outputs = Vec::new();
    while !bytes.is_empty() {
        let (output, used) = deserialize_partial(bytes).unwrap();
        outputs.push(output);
        bytes = &bytes[used..];
    }
    outputs
}

impl Listed {
    fn named(&self) -> String {
        format!("{} {}", self.network, self.height)
    }

    fn check_at(&self, height: Height) -> Result<CheckedBlock, BlockError> {
        // The blocks below are not here. A block is later than the median of its parent by at least a second, so
        // this is the latest that the median can have been: what was final then is final now.
        let header: Header = deserialize(&self.raw[..80]).unwrap();
        let context = BlockContext { height, parent_mtp: header.time - 1 };
        check_block(self.raw.clone(), &context, &Params::of(self.network))
    }

    fn check(&self) -> CheckedBlock {
        self.check_at(self.height).unwrap_or_else(|error| panic!("{}: {error}", self.named()))
    }

    /// Connects with the coins that it spends, none of them a coinbase's.
    fn connect(&self, has_unspent: &dyn Fn(&Txid, u32) -> bool) -> Result<ConnectedBlock, BlockError> {
        let checked = self.check();
        let coins = self.coins(&checked);
        let params = Params::of(self.network);
        let parent_mtp = checked.header().time - 1;
        let parent = self.height.prev().unwrap();
        let context = SpendContext {
            params: &params,
            parent_mtp,
            // Coins of other blocks are of genesis, so that every relative lock in the real block has run out.
            mtp_at: &|height| if height == parent { parent_mtp } else { 0 },
            at_bip34_height: params.bip34_hash.filter(|_| self.height.0 > params.bip34_height),
            has_unspent,
        };
        connect_block(checked, &coins, &context)
    }

    /// What the store would say: nothing of the outputs that the block itself makes.
    fn coins(&self, checked: &CheckedBlock) -> Vec<Option<Coin>> {
        let own: HashSet<&Txid> = checked.txids().collect();
        let prevouts = self.prevouts.as_ref().unwrap();
        assert_eq!(prevouts.len(), spent_outpoints(checked).count(), "{}", self.named());
        let pairs = spent_outpoints(checked).zip(prevouts);
        pairs
            .map(|(outpoint, output)| {
                (!own.contains(&outpoint.txid)).then(|| coin(output, Height::GENESIS, false))
            })
            .collect()
    }
}

fn spent_outpoints(checked: &CheckedBlock) -> impl Iterator<Item = OutPoint> {
    checked.outline().inputs().iter().map(|input| input.outpoint)
}

fn coin(output: &TxOut, height: Height, is_coinbase: bool) -> Coin {
    Coin {
        value: output.value,
        tx_num: TxNum(0),
        height,
        is_coinbase,
        class: ScriptClass::of(&output.script_pubkey),
        script_key: ScriptHash::of(&output.script_pubkey).key(),
    }
}

fn paid_by_coinbase(connected: &ConnectedBlock) -> u64 {
    connected.checked().sums().next().map_or(0, |(paid, _)| paid)
}

#[test]
fn every_block_passes_at_its_height() {
    let blocks = listed();
    assert_eq!(blocks.len(), 39);
    for listed in &blocks {
        let checked = listed.check();
        assert_eq!(checked.hash(), listed.hash, "{}", listed.named());
        assert_eq!(checked.height(), listed.height);
        let block = checked.decode().unwrap();
        assert_eq!(block.weight().to_wu(), listed.weight, "{}", listed.named());
        assert_eq!(checked.outline(), &Outline::of(&block), "{}", listed.named());
        assert_eq!(checked.txids().len(), listed.transactions, "{}", listed.named());
        assert_eq!(checked.raw(), &listed.raw);
    }
}

#[test]
fn a_block_of_after_bip34_fails_a_height_above() {
    let mut tried = 0;
    for listed in listed() {
        if listed.height.0 < Params::of(listed.network).bip34_height {
            continue;
        }
        // Not one below: there a lock time may forbid it first, as wallets lock to the height of the day.
        let error = listed.check_at(listed.height.next()).unwrap_err();
        assert_eq!(error.reject_reason(), "bad-cb-height", "{}", listed.named());
        tried += 1;
    }
    assert_eq!(tried, 30);
}

#[test]
fn blocks_connect_with_the_outputs_they_spend_and_take_their_fees() {
    let mut connected_blocks = 0;
    for listed in listed().into_iter().filter(|listed| listed.prevouts.is_some()) {
        // BIP30 applies to none of them on the chain that everyone knows.
        let connected = listed.connect(&|_, _| panic!("{}: nobody needs to ask", listed.named()));
        let connected = connected.unwrap_or_else(|error| panic!("{}: {error}", listed.named()));
        let due = connected.fees().to_sat() + subsidy(listed.height, &Params::of(listed.network));
        assert_eq!(paid_by_coinbase(&connected), due, "{}", listed.named());
        let prevouts = listed.prevouts.as_ref().unwrap();
        for (spent, output) in connected.spent().iter().zip(prevouts) {
            let expected = coin(output, spent.height, false);
            assert_eq!(*spent, expected, "{}", listed.named());
        }
        assert_eq!(connected.spent().len(), prevouts.len());
        connected_blocks += 1;
    }
    assert_eq!(connected_blocks, 11);
}

#[test]
fn coins_made_in_the_block_are_found_and_known_to_be_its_own() {
    let blocks = listed();
    let listed = blocks.iter().find(|listed| listed.height == Height(866_342)).unwrap();
    let connected = listed.connect(&|_, _| false).unwrap();
    let own = connected.spent().iter().filter(|coin| coin.height == listed.height).count();
    assert_eq!(own, 4_036);
}

#[test]
fn bip30_blocks_are_excused_at_their_height_only() {
    let blocks = listed();
    for height in [91_842, 91_880] {
        let listed = blocks.iter().find(|listed| listed.height == Height(height)).unwrap();
        let connect_at = |height: u32| {
            let checked = listed.check_at(Height(height)).unwrap();
            let coins: Vec<_> =
                spent_outpoints(&checked).map(|_| Some(coin(&rich(), Height::GENESIS, false))).collect();
            let params = Params::of(Network::Bitcoin);
            let context = SpendContext {
                params: &params,
                parent_mtp: 0,
                mtp_at: &|_| 0,
                at_bip34_height: None,
                has_unspent: &|_, _| true,
            };
            connect_block(checked, &coins, &context)
        };
        assert_eq!(connect_at(height).unwrap().checked().hash(), listed.hash);
        assert_eq!(connect_at(height + 1).unwrap_err().reject_reason(), "bad-txns-BIP30");
    }
}

/// An output that can pay for whatever is asked.
fn rich() -> TxOut {
    TxOut { value: Amount::from_sat(1_000_000_000_000), script_pubkey: ScriptBuf::new() }
}

/// A chain from genesis, with every coin in memory.
struct Chain {
    params: Params,
    coins: HashMap<OutPoint, Coin>,
    unspent_of: HashMap<Txid, usize>,
    times: Vec<u32>,
    hashes: Vec<BlockHash>,
    fees: u64,
    spent: usize,
    /// Coinbases that pay less than they might.
    modest: usize,
}

impl Chain {
    fn new(network: Network) -> Self {
        Self {
            params: Params::of(network),
            coins: HashMap::new(),
            unspent_of: HashMap::new(),
            times: Vec::new(),
            hashes: Vec::new(),
            fees: 0,
            spent: 0,
            modest: 0,
        }
    }

    /// Median of the eleven times that end at `height`, or of as many as there are.
    fn median_time_past(&self, height: u32) -> u32 {
        let end = height as usize + 1;
        let mut times = self.times[end.saturating_sub(11)..end].to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn connect(&mut self, raw: Vec<u8>) {
        let height = Height(self.times.len() as u32);
        let parent_mtp = height.prev().map_or(0, |parent| self.median_time_past(parent.0));
        let checked = check_block(raw.into(), &BlockContext { height, parent_mtp }, &self.params)
            .unwrap_or_else(|error| panic!("{height}: {error}"));
        let coins: Vec<Option<Coin>> =
            spent_outpoints(&checked).map(|outpoint| self.coins.get(&outpoint).copied()).collect();
        let context = SpendContext {
            params: &self.params,
            parent_mtp,
            mtp_at: &|height| self.median_time_past(height.0),
            at_bip34_height: self.hashes.get(self.params.bip34_height as usize).copied(),
            has_unspent: &|txid, _| self.unspent_of.contains_key(txid),
        };
        let connected =
            connect_block(checked, &coins, &context).unwrap_or_else(|error| panic!("{height}: {error}"));
        self.apply(height, &connected);
    }

    fn apply(&mut self, height: Height, connected: &ConnectedBlock) {
        let checked = connected.checked();
        self.times.push(checked.header().time);
        self.hashes.push(checked.hash());
        self.fees += connected.fees().to_sat();
        self.spent += connected.spent().len();
        let due = connected.fees().to_sat() + subsidy(height, &self.params);
        self.modest += usize::from(paid_by_coinbase(connected) < due);
        // Nobody can spend what genesis made.
        if height == Height::GENESIS {
            return;
        }
        let block = checked.decode().unwrap();
        for (position, (tx, txid)) in block.txdata.iter().zip(checked.txids()).enumerate() {
            for (vout, output) in (0..).zip(&tx.output) {
                if !is_unspendable(&output.script_pubkey) {
                    self.coins.insert(OutPoint { txid: *txid, vout }, coin(output, height, position == 0));
                    *self.unspent_of.entry(*txid).or_default() += 1;
                }
            }
        }
        for outpoint in spent_outpoints(checked) {
            assert!(self.coins.remove(&outpoint).is_some());
            let left = self.unspent_of.get_mut(&outpoint.txid).unwrap();
            *left -= 1;
            if *left == 0 {
                self.unspent_of.remove(&outpoint.txid);
            }
        }
    }
}

#[test]
fn chains_from_genesis_connect_block_after_block() {
    for (network, blocks, spent, fees) in [
        (Network::Bitcoin, 4_522, 260, 201_000_000),
        (Network::Testnet, 4_001, 1_919, 49_000_000),
        (Network::Signet, 121, 0, 0),
    ] {
        let mut chain = Chain::new(network);
        for raw in fixtures::run_from_genesis(network) {
            chain.connect(raw);
        }
        assert_eq!((chain.times.len(), chain.spent), (blocks, spent), "{network}");
        // What was paid out and not lost is what was mined: 50 coins a block but for genesis.
        let total: u64 = chain.coins.values().map(|coin| coin.value.to_sat()).sum();
        let mined = (blocks as u64 - 1) * 50 * 100_000_000;
        assert_eq!((total, chain.fees, chain.modest), (mined, fees, 0), "{network}");
    }
}

#[cfg(feature = "kernel")]
/// The transactions of a block with what each spends; outputs of earlier blocks are taken from `prevouts`.
fn spends<'a>(txs: &'a [Transaction], prevouts: &[TxOut]) -> Vec<(&'a Transaction, Vec<TxOut>)> {
    let mut prevouts = prevouts.iter();
    let spends = txs.iter().skip(1).map(|tx| (tx, prevouts.by_ref().take(tx.input.len()).cloned().collect()));
    spends.collect()
}

#[cfg(feature = "kernel")]
#[test]
fn the_scripts_of_real_blocks_are_good_until_a_signature_is_changed() {
    let (mut inputs, mut refused, mut changed) = (0, 0, 0);
    for listed in listed().into_iter().filter(|listed| listed.prevouts.is_some()) {
        let params = Params::of(listed.network);
        let flags = params.script_flags(listed.height, listed.hash);
        let block = listed.check().decode().unwrap();
        for (tx, spent) in spends(&block.txdata, listed.prevouts.as_ref().unwrap()) {
            let name = format!("{} {}", listed.named(), tx.compute_txid());
            scripts::verify(tx, &serialize(tx), &spent, flags)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            inputs += spent.len();
            // Another amount is what another transaction would pay: every signature of all outputs fails.
            if changed < 300 {
                changed += 1;
                let mut other = tx.clone();
                other.output[0].value += Amount::ONE_SAT;
                refused += usize::from(scripts::verify(&other, &serialize(&other), &spent, flags).is_err());
            }
        }
    }
    // A few spend what anyone may.
    assert!(inputs > 5_000 && refused > 270, "{inputs} inputs, {refused} of {changed} refused");
}
