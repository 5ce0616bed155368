//! A regtest chain of the test's own, and payments with real signatures from its coins.
//!
//! One coinbase is cut into many transactions of a hundred outputs each, as a payment service would make them: what a
//! coin costs to read depends on the size of the transaction that made it.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::consensus::serialize;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    WPubkeyHash, Witness,
};

/// Coins that one transaction makes.
const COINS_EACH: usize = 100;
/// Transactions of a block of them: some three quarters of what it may weigh.
const A_BLOCK: usize = 240;
/// Height of the first block that spends: coinbases ripen for so long.
const RIPE: usize = 101;
/// The easiest target that regtest allows.
const BITS: u32 = 0x207f_ffff;
/// Satoshi of each coin.
const COIN: u64 = 18_000;
/// Satoshi that a payment of [`Purse::pay`] leaves to the miner: some 10 for each virtual byte.
const FEE: u64 = 2_090;
/// Longest that the chain pretends to have taken.
const AGE: u64 = 3_600;

/// Blocks from genesis on.
pub struct Chain {
    blocks: Vec<Block>,
}

impl Chain {
    /// A chain that pays the purse at least so many coins.
    pub fn with_coins(count: usize, purse: &Purse) -> (Self, Vec<OutPoint>) {
        let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let mut chain = Self { blocks: vec![genesis] };
        let first = chain.mine(&[]).txdata[0].compute_txid();
        while chain.blocks.len() < RIPE {
            chain.mine(&[]);
        }
        let parts = count.div_ceil(COINS_EACH);
        let part = COIN * (COINS_EACH as u64 + 1);
        let anyone = ScriptBuf::from_bytes(vec![0x51]);
        let split = spend(OutPoint::new(first, 0), vec![output(part, anyone); parts]);
        let split_id = split.compute_txid();
        chain.mine(&[split]);
        let coins = vec![output(COIN, purse.script.clone()); COINS_EACH];
        let paying = |vout: usize| spend(OutPoint::new(split_id, vout as u32), coins.clone());
        let paying: Vec<Transaction> = (0..parts).map(paying).collect();
        for block in paying.chunks(A_BLOCK) {
            chain.mine(block);
        }
        let outpoints = |tx: &Transaction| {
            let txid = tx.compute_txid();
            (0..COINS_EACH).map(move |vout| OutPoint::new(txid, vout as u32))
        };
        (chain, paying.iter().flat_map(outpoints).take(count).collect())
    }

    /// One more block with these, and its commitment to their witnesses.
    pub fn mine(&mut self, transactions: &[Transaction]) -> &Block {
        let height = self.blocks.len();
        let coinbase = TxIn {
            script_sig: Builder::new().push_int(height as i64).push_int(0).into_script(),
            witness: Witness::from_slice(&[[0; 32]]),
            ..TxIn::default()
        };
        let reward = output(5_000_000_000, ScriptBuf::from_bytes(vec![0x51]));
        let mut block = Block {
            header: Header {
                version: BlockVersion::from_consensus(0x2000_0000),
                prev_blockhash: self.blocks[height - 1].block_hash(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: (unix_now() - AGE) as u32 + height as u32,
                bits: CompactTarget::from_consensus(BITS),
                nonce: 0,
            },
            txdata: vec![transaction(vec![coinbase], vec![reward])],
        };
        block.txdata.extend_from_slice(transactions);
        let root = block.witness_root().expect("a block has a coinbase");
        let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
        let mut data = vec![0xaa, 0x21, 0xa9, 0xed];
        data.extend(commitment.to_byte_array());
        let data = PushBytesBuf::try_from(data).expect("short enough");
        block.txdata[0].output.push(output(0, ScriptBuf::new_op_return(data)));
        block.header.merkle_root = block.compute_merkle_root().expect("a block has a coinbase");
        let target = block.header.target();
        while block.header.validate_pow(target).is_err() {
            block.header.nonce += 1;
        }
        self.blocks.push(block);
        &self.blocks[height]
    }

    pub fn tip(&self) -> String {
        self.blocks[self.blocks.len() - 1].block_hash().to_string()
    }

    /// All blocks as they go over the wire.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        self.blocks.iter().map(serialize).collect()
    }
}

/// The one key to which all coins are paid.
pub struct Purse {
    secp: Secp256k1<All>,
    secret: SecretKey,
    public: PublicKey,
    script: ScriptBuf,
}

impl Purse {
    pub fn new() -> Self {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[7; 32]).expect("a small number is a key");
        let public = secret.public_key(&secp);
        let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(&public.serialize()));
        Self { secp, secret, public, script }
    }

    /// A payment of two coins to two scripts that nobody else is paid to: those of `number`.
    pub fn pay(&self, coins: [OutPoint; 2], number: u64) -> Transaction {
        let mut tx = self.unsigned(&coins, number, FEE);
        self.sign(&mut tx);
        tx
    }

    /// The same without a signature, and with another fee.
    pub fn unsigned(&self, coins: &[OutPoint], number: u64, fee: u64) -> Transaction {
        let inputs = coins.iter().map(|coin| TxIn {
            previous_output: *coin,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..TxIn::default()
        });
        let half = (COIN * coins.len() as u64 - fee) / 2;
        let rest = COIN * coins.len() as u64 - fee - half;
        let outputs = vec![output(half, payee(number, 0)), output(rest, payee(number, 1))];
        transaction(inputs.collect(), outputs)
    }

    fn sign(&self, tx: &mut Transaction) {
        let mut hashes = SighashCache::new(&*tx);
        let amount = Amount::from_sat(COIN);
        let witnesses: Vec<Witness> = (0..tx.input.len())
            .map(|input| {
                let all = EcdsaSighashType::All;
                let hash = hashes.p2wpkh_signature_hash(input, &self.script, amount, all);
                let message = Message::from(hash.expect("the input is there"));
                let signature = self.secp.sign_ecdsa(&message, &self.secret);
                Witness::p2wpkh(&bitcoin::ecdsa::Signature { signature, sighash_type: all }, &self.public)
            })
            .collect();
        for (input, witness) in tx.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
    }
}

/// To whom the payment of that number goes.
pub fn payee(number: u64, vout: u8) -> ScriptBuf {
    let mut seed = number.to_le_bytes().to_vec();
    seed.push(vout);
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(&seed)))
}

/// A transaction that relay calls standard.
pub fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

pub fn output(value: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey }
}

fn spend(previous_output: OutPoint, outputs: Vec<TxOut>) -> Transaction {
    transaction(vec![TxIn { previous_output, ..TxIn::default() }], outputs)
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
