//! A wallet of the tests' own: one key, and real signatures.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WPubkeyHash, Witness};

/// The one key to which all coins are paid, by P2WPKH.
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

    pub fn script(&self) -> &ScriptBuf {
        &self.script
    }

    /// Signs all inputs; `amounts` has the satoshi that each spends.
    pub fn sign(&self, tx: &mut Transaction, amounts: &[u64]) {
        let mut hashes = SighashCache::new(&*tx);
        let witnesses: Vec<Witness> = (0..tx.input.len())
            .zip(amounts)
            .map(|(input, amount)| {
                let (all, amount) = (EcdsaSighashType::All, Amount::from_sat(*amount));
                let hash = hashes.p2wpkh_signature_hash(input, &self.script, amount, all);
                let message = Message::from(hash.expect("the input is there"));
                let signature = self.secp.sign_ecdsa(&message, &self.secret);
                Witness::p2wpkh(&bitcoin::ecdsa::Signature { signature, sighash_type: all }, &self.public)
            })
            .collect();
        assert_eq!(witnesses.len(), tx.input.len(), "an amount for each input");
        for (input, witness) in tx.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
    }
}

/// An input that says that its transaction may be replaced (BIP125).
pub fn replaceable(previous_output: OutPoint) -> TxIn {
    TxIn { previous_output, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() }
}

/// A transaction that relay calls standard.
pub fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

pub fn output(value: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey }
}
