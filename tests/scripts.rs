//! Spends of every usual script, sound and broken in every way that a wallet may get wrong: what is said of each is
//! what a real bitcoind says.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]
#![cfg(feature = "kernel")]

mod support;

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hashes::{Hash, hash160};
use bitcoin::key::{TapTweak, UntweakedKeypair};
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_ELSE, OP_ENDIF, OP_IF, OP_PUSHDATA1, OP_PUSHNUM_1, OP_PUSHNUM_2,
    OP_PUSHNUM_3,
};
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, PublicKey, Script, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness,
};
use peerdex::scripts::{Flags, Reason, VerifyError, check_policy, verify, verify_standard, verify_template};
use serde_json::json;

use support::node::{Node, text};

const PAID: Amount = Amount::from_sat(100_000);

type Unlock = (ScriptBuf, Witness);
/// By policy and by the rules; `None` is no objection.
type Reasons = (Option<Reason>, Option<Reason>);

/// One way to spend a script.
struct Case {
    name: String,
    script: ScriptBuf,
    spend: Box<dyn Fn(&Signer) -> Unlock>,
    /// What a relaying node says; `None` takes it.
    standard: Option<Reason>,
    /// What a block's rules say.
    consensus: Option<Reason>,
    /// A node refuses it before it runs scripts, each kind in words of its own.
    before: bool,
}

/// Signs the only input of a transaction.
struct Signer {
    secp: Secp256k1<All>,
    tx: Transaction,
    spent: TxOut,
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_slice(&[number; 32]).unwrap()
}

fn public(number: u8) -> PublicKey {
    PublicKey::new(key(number).public_key(&Secp256k1::new()))
}

fn uncompressed(number: u8) -> PublicKey {
    PublicKey { compressed: false, ..public(number) }
}

impl Signer {
    fn legacy(&self, script: &Script, number: u8) -> Vec<u8> {
        let hash = SighashCache::new(&self.tx).legacy_signature_hash(0, script, 1).unwrap();
        self.ecdsa(Message::from(hash), number)
    }

    fn segwit(&self, script: &Script, number: u8) -> Vec<u8> {
        let mut cache = SighashCache::new(&self.tx);
        let hash = cache.p2wsh_signature_hash(0, script, self.spent.value, EcdsaSighashType::All).unwrap();
        self.ecdsa(Message::from(hash), number)
    }

    fn ecdsa(&self, message: Message, number: u8) -> Vec<u8> {
        let mut signature = self.secp.sign_ecdsa(&message, &key(number)).serialize_der().to_vec();
        signature.push(1);
        signature
    }

    fn taproot(&self, number: u8, root: Option<bitcoin::TapNodeHash>, hash_type: TapSighashType) -> Vec<u8> {
        let pair = UntweakedKeypair::from_secret_key(&self.secp, &key(number)).tap_tweak(&self.secp, root);
        let outputs = [&self.spent];
        let hash = SighashCache::new(&self.tx).taproot_key_spend_signature_hash(
            0,
            &Prevouts::All(&outputs),
            hash_type,
        );
        let message = Message::from(hash.unwrap());
        self.secp.sign_schnorr_no_aux_rand(&message, &pair.to_keypair()).as_ref().to_vec()
    }

    fn tapscript(&self, script: &Script, number: u8) -> Vec<u8> {
        let leaf = TapLeafHash::from_script(script, LeafVersion::TapScript);
        let outputs = [&self.spent];
        let hash = SighashCache::new(&self.tx).taproot_script_spend_signature_hash(
            0,
            &Prevouts::All(&outputs),
            leaf,
            TapSighashType::Default,
        );
        let pair = UntweakedKeypair::from_secret_key(&self.secp, &key(number));
        self.secp.sign_schnorr_no_aux_rand(&Message::from(hash.unwrap()), &pair).as_ref().to_vec()
    }
}

/// The other of the two numbers that S may be.
fn high_s(signature: &[u8]) -> Vec<u8> {
    let (hash_type, der) = signature.split_last().unwrap();
    let compact = ecdsa::Signature::from_der(der).unwrap().serialize_compact();
    let order = SecretKey::from_slice(&compact[32..]).unwrap().negate();
    let mut compact = compact;
    compact[32..].copy_from_slice(&order.secret_bytes());
    let mut signature = ecdsa::Signature::from_compact(&compact).unwrap().serialize_der().to_vec();
    signature.push(*hash_type);
    signature
}

/// A zero too many before R: no strict DER.
fn padded(signature: &[u8]) -> Vec<u8> {
    let mut signature = signature.to_vec();
    signature[1] += 1;
    signature[3] += 1;
    signature.insert(4, 0);
    signature
}

fn with_type(signature: &[u8], hash_type: u8) -> Vec<u8> {
    [&signature[..signature.len() - 1], &[hash_type]].concat()
}

fn pushes(items: &[Vec<u8>]) -> ScriptBuf {
    let push =
        |builder: Builder, item: &Vec<u8>| builder.push_slice(PushBytesBuf::try_from(item.clone()).unwrap());
    items.iter().fold(Builder::new(), push).into_script()
}

fn multisig(required: u8, keys: &[PublicKey]) -> ScriptBuf {
    let count = [OP_PUSHNUM_1, OP_PUSHNUM_2, OP_PUSHNUM_3];
    let builder = Builder::new().push_opcode(count[usize::from(required) - 1]);
    let builder = keys.iter().fold(builder, |builder, key| builder.push_key(key));
    builder.push_opcode(count[keys.len() - 1]).push_opcode(OP_CHECKMULTISIG).into_script()
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: &str,
        script: &Script,
        (standard, consensus): Reasons,
        spend: impl Fn(&Signer) -> (ScriptBuf, Witness) + 'static,
    ) -> &mut Case {
        let (name, script, spend) = (name.to_owned(), script.to_owned(), Box::new(spend));
        self.0.push(Case { name, script, spend, standard, consensus, before: false });
        self.0.last_mut().unwrap()
    }
}

/// What becomes of a signature, and what is said of that before and by relay policy.
type Twist = (&'static str, fn(&[u8]) -> Vec<u8>, Option<Reason>, Option<Reason>);

const TWISTS: [Twist; 7] = [
    ("sound", <[u8]>::to_vec, None, None),
    ("high s", high_s, Some(Reason::SigHighS), None),
    ("not der", padded, Some(Reason::SigDer), Some(Reason::SigDer)),
    ("hash type 4", |signature| with_type(signature, 4), Some(Reason::SigHashType), Some(Reason::EvalFalse)),
    ("hash type 0", |signature| with_type(signature, 0), Some(Reason::SigHashType), Some(Reason::EvalFalse)),
    ("none of two", |signature| with_type(signature, 2), Some(Reason::SigNullFail), Some(Reason::EvalFalse)),
    ("empty signature", |_| Vec::new(), Some(Reason::EvalFalse), Some(Reason::EvalFalse)),
];

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    single_keys(&mut cases);
    multisigs(&mut cases);
    taproot(&mut cases);
    unusual(&mut cases);
    cases.0
}

fn single_keys(cases: &mut Cases) {
    let (own, other) = (public(1), public(2));
    let hash = WPubkeyHash::from_raw_hash(hash160::Hash::hash(&own.to_bytes()));
    let p2pkh = ScriptBuf::new_p2pkh(&own.pubkey_hash());
    let p2pk = ScriptBuf::new_p2pk(&own);
    let p2wpkh = ScriptBuf::new_p2wpkh(&hash);
    let nested = p2wpkh.to_p2sh();
    let redeem = pushes(&[p2wpkh.to_bytes()]);
    let both = |reason| (Some(reason), Some(reason));
    let null = (Some(Reason::SigNullFail), Some(Reason::EvalFalse));

    for (what, twist, standard, consensus) in TWISTS {
        let reasons = (standard, consensus);
        let code = p2pkh.clone();
        cases.add(&format!("p2pkh {what}"), &p2pkh, reasons, move |signer| {
            (pushes(&[twist(&signer.legacy(&code, 1)), own.to_bytes()]), Witness::new())
        });
        let code = p2pk.clone();
        cases.add(&format!("p2pk {what}"), &p2pk, reasons, move |signer| {
            (pushes(&[twist(&signer.legacy(&code, 1))]), Witness::new())
        });
        let code = p2pkh.clone();
        cases.add(&format!("p2wpkh {what}"), &p2wpkh, reasons, move |signer| {
            (ScriptBuf::new(), Witness::from_slice(&[twist(&signer.segwit(&code, 1)), own.to_bytes()]))
        });
        let (code, redeem) = (p2pkh.clone(), redeem.clone());
        cases.add(&format!("p2sh-p2wpkh {what}"), &nested, reasons, move |signer| {
            (redeem.clone(), Witness::from_slice(&[twist(&signer.segwit(&code, 1)), own.to_bytes()]))
        });
    }

    let code = p2pkh.clone();
    cases.add("p2pkh of another key's signature", &p2pkh, null, move |signer| {
        (pushes(&[signer.legacy(&code, 2), own.to_bytes()]), Witness::new())
    });
    let code = p2pkh.clone();
    cases.add("p2pkh with another key", &p2pkh, both(Reason::EqualVerify), move |signer| {
        (pushes(&[signer.legacy(&code, 2), other.to_bytes()]), Witness::new())
    });
    cases.add("p2pkh unsigned", &p2pkh, both(Reason::InvalidStackOperation), |_| {
        (ScriptBuf::new(), Witness::new())
    });
    let code = p2pkh.clone();
    cases.add("p2pkh with one push more", &p2pkh, (Some(Reason::CleanStack), None), move |signer| {
        (pushes(&[vec![7, 7], signer.legacy(&code, 1), own.to_bytes()]), Witness::new())
    });
    let code = p2pkh.clone();
    cases.add("p2pkh with a long push", &p2pkh, (Some(Reason::MinimalData), None), move |signer| {
        let signature = signer.legacy(&code, 1);
        let mut script = vec![OP_PUSHDATA1.to_u8(), signature.len() as u8];
        script.extend(signature);
        script.extend(pushes(&[own.to_bytes()]).to_bytes());
        (ScriptBuf::from(script), Witness::new())
    });
    let code = p2pkh.clone();
    let unasked = cases.add("p2pkh with a witness", &p2pkh, both(Reason::WitnessUnexpected), move |signer| {
        (pushes(&[signer.legacy(&code, 1), own.to_bytes()]), Witness::from_slice(&[[1]]))
    });
    unasked.before = true;
    let mut hybrid = uncompressed(1).to_bytes();
    hybrid[0] = 6 | (hybrid[64] & 1);
    let of_hybrid = Builder::new().push_slice(PushBytesBuf::try_from(hybrid.clone()).unwrap());
    let of_hybrid = of_hybrid.push_opcode(OP_CHECKSIG).into_script();
    let hashed = ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_raw_hash(hash160::Hash::hash(&hybrid)));
    assert!(of_hybrid.len() > 60);
    let code = hashed.clone();
    cases.add("p2pkh of a hybrid key", &hashed, (Some(Reason::PubkeyType), None), move |signer| {
        (pushes(&[signer.legacy(&code, 1), hybrid.clone()]), Witness::new())
    });
    let old = ScriptBuf::new_p2pkh(&uncompressed(1).pubkey_hash());
    let code = old.clone();
    cases.add("p2pkh of an uncompressed key", &old, (None, None), move |signer| {
        (pushes(&[signer.legacy(&code, 1), uncompressed(1).to_bytes()]), Witness::new())
    });

    let code = p2pkh.clone();
    cases.add("p2wpkh of another key's signature", &p2wpkh, null, move |signer| {
        (ScriptBuf::new(), Witness::from_slice(&[signer.segwit(&code, 2), own.to_bytes()]))
    });
    let code = p2pkh.clone();
    cases.add("p2wpkh with another key", &p2wpkh, both(Reason::EqualVerify), move |signer| {
        (ScriptBuf::new(), Witness::from_slice(&[signer.segwit(&code, 2), other.to_bytes()]))
    });
    cases.add("p2wpkh unsigned", &p2wpkh, both(Reason::WitnessProgramMismatch), |_| {
        (ScriptBuf::new(), Witness::new())
    });
    cases.add("p2wpkh with three items", &p2wpkh, both(Reason::WitnessProgramMismatch), |_| {
        (ScriptBuf::new(), Witness::from_slice(&[[1], [2], [3]]))
    });
    let code = p2pkh.clone();
    cases.add("p2wpkh with a scriptSig", &p2wpkh, both(Reason::WitnessMalleated), move |signer| {
        (pushes(&[vec![7, 7]]), Witness::from_slice(&[signer.segwit(&code, 1), own.to_bytes()]))
    });
    let old = hash160::Hash::hash(&uncompressed(1).to_bytes());
    let of_old = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(old));
    let code = ScriptBuf::new_p2pkh(&uncompressed(1).pubkey_hash());
    let reasons = (Some(Reason::WitnessPubkeyType), None);
    cases.add("p2wpkh of an uncompressed key", &of_old, reasons, move |signer| {
        let items = [signer.segwit(&code, 1), uncompressed(1).to_bytes()];
        (ScriptBuf::new(), Witness::from_slice(&items))
    });

    let script_sig = redeem.clone();
    cases.add("p2sh-p2wpkh without a witness", &nested, both(Reason::WitnessProgramMismatch), move |_| {
        (script_sig.clone(), Witness::new())
    });
    let unsigned = both(Reason::InvalidStackOperation);
    let unsigned =
        cases.add("p2sh-p2wpkh unsigned", &nested, unsigned, |_| (ScriptBuf::new(), Witness::new()));
    unsigned.before = true;
    let other_program = both(Reason::EvalFalse);
    let other_program = cases.add("p2sh-p2wpkh with another program", &nested, other_program, |_| {
        (pushes(&[vec![0, 20, 7]]), Witness::from_slice(&[[7]]))
    });
    other_program.before = true;
    let (code, program) = (p2pkh.clone(), p2wpkh.to_bytes());
    cases.add("p2sh-p2wpkh with a push more", &nested, both(Reason::WitnessMalleatedP2sh), move |signer| {
        let witness = Witness::from_slice(&[signer.segwit(&code, 1), own.to_bytes()]);
        (pushes(&[vec![7, 7], program.clone()]), witness)
    });
}

fn multisigs(cases: &mut Cases) {
    let script = multisig(2, &[public(1), public(2), public(3)]);
    let mixed = multisig(1, &[public(1), uncompressed(2)]);
    let bare = multisig(1, &[public(1), public(2)]);
    let null = (Some(Reason::SigNullFail), Some(Reason::EvalFalse));
    type Items = fn(&dyn Fn(u8) -> Vec<u8>) -> Vec<Vec<u8>>;
    let rows: [(&str, Items, Reasons); 14] = [
        ("of the first two", |sign| vec![vec![], sign(1), sign(2)], (None, None)),
        ("of first and last", |sign| vec![vec![], sign(1), sign(3)], (None, None)),
        ("in the wrong order", |sign| vec![vec![], sign(2), sign(1)], null),
        ("with one twice", |sign| vec![vec![], sign(2), sign(2)], null),
        ("with a stranger's", |sign| vec![vec![], sign(1), sign(4)], null),
        ("with one empty", |sign| vec![vec![], vec![], sign(1)], null),
        (
            "with both empty",
            |_| vec![vec![], vec![], vec![]],
            (Some(Reason::EvalFalse), Some(Reason::EvalFalse)),
        ),
        ("without a dummy", |sign| vec![sign(1), sign(2)], both(Reason::InvalidStackOperation)),
        ("with a dummy", |sign| vec![vec![7, 7], sign(1), sign(2)], both(Reason::SigNullDummy)),
        ("with a dummy and a stranger's", |sign| vec![vec![7, 7], sign(1), sign(4)], {
            (Some(Reason::SigNullFail), Some(Reason::SigNullDummy))
        }),
        ("with high s", |sign| vec![vec![], high_s(&sign(1)), sign(2)], (Some(Reason::SigHighS), None)),
        ("not der", |sign| vec![vec![], sign(1), padded(&sign(2))], both(Reason::SigDer)),
        // The stranger's fails of all keys that are left before the other is looked at.
        ("not der behind a stranger's", |sign| vec![vec![], padded(&sign(1)), sign(4)], null),
        ("with hash type 4", |sign| vec![vec![], sign(1), with_type(&sign(2), 4)], {
            (Some(Reason::SigHashType), Some(Reason::EvalFalse))
        }),
    ];
    for (what, items, reasons) in rows {
        let redeem = script.clone();
        cases.add(&format!("p2sh 2 of 3 {what}"), &script.to_p2sh(), reasons, move |signer| {
            let mut items = items(&|number| signer.legacy(&redeem, number));
            items.push(redeem.to_bytes());
            (pushes(&items), Witness::new())
        });
        let inner = script.clone();
        cases.add(&format!("p2wsh 2 of 3 {what}"), &script.to_p2wsh(), reasons, move |signer| {
            let mut items = items(&|number| signer.segwit(&inner, number));
            items.push(inner.to_bytes());
            (ScriptBuf::new(), Witness::from_slice(&items))
        });
    }
    let nested = script.to_p2wsh();
    for (what, stranger, reasons) in [("sound", 2, (None, None)), ("with a stranger's", 4, null)] {
        let (inner, redeem) = (script.clone(), pushes(&[nested.to_bytes()]));
        cases.add(&format!("p2sh-p2wsh 2 of 3 {what}"), &nested.to_p2sh(), reasons, move |signer| {
            let items = [vec![], signer.segwit(&inner, 1), signer.segwit(&inner, stranger), inner.to_bytes()];
            (redeem.clone(), Witness::from_slice(&items))
        });
    }
    for (what, number, reasons) in
        [("first", 1, (None, None)), ("second", 2, (None, None)), ("third", 3, null)]
    {
        let code = bare.clone();
        cases.add(&format!("bare 1 of 2 by the {what}"), &bare, reasons, move |signer| {
            (pushes(&[vec![], signer.legacy(&code, number)]), Witness::new())
        });
    }
    // The last key is looked at first.
    for number in [1, 2] {
        let inner = mixed.clone();
        let reasons = (Some(Reason::WitnessPubkeyType), None);
        cases.add(
            &format!("p2wsh with an uncompressed key by {number}"),
            &mixed.to_p2wsh(),
            reasons,
            move |signer| {
                let items = [vec![], signer.segwit(&inner, number), inner.to_bytes()];
                (ScriptBuf::new(), Witness::from_slice(&items))
            },
        );
    }
    let turned = multisig(1, &[uncompressed(1), public(2)]);
    let inner = turned.clone();
    cases.add(
        "p2wsh whose uncompressed key is not looked at",
        &turned.to_p2wsh(),
        (None, None),
        move |signer| {
            (ScriptBuf::new(), Witness::from_slice(&[vec![], signer.segwit(&inner, 2), inner.to_bytes()]))
        },
    );
    let mismatch = both(Reason::WitnessProgramMismatch);
    cases.add("p2wsh with another script", &script.to_p2wsh(), mismatch, |_| {
        (ScriptBuf::new(), Witness::from_slice(&[vec![], vec![0x51]]))
    });
    let empty = both(Reason::WitnessProgramWitnessEmpty);
    cases.add("p2wsh without a witness", &script.to_p2wsh(), empty, |_| (ScriptBuf::new(), Witness::new()));
    let inner = script.clone();
    cases.add("p2wsh with an item more", &script.to_p2wsh(), both(Reason::CleanStack), move |signer| {
        let items =
            [vec![7, 7], vec![], signer.segwit(&inner, 1), signer.segwit(&inner, 2), inner.to_bytes()];
        (ScriptBuf::new(), Witness::from_slice(&items))
    });
    let redeem = script.clone();
    cases.add("p2sh with a push more", &script.to_p2sh(), (Some(Reason::CleanStack), None), move |signer| {
        let items =
            [vec![7, 7], vec![], signer.legacy(&redeem, 1), signer.legacy(&redeem, 2), redeem.to_bytes()];
        (pushes(&items), Witness::new())
    });
    cases.add("p2sh with another script", &script.to_p2sh(), both(Reason::EvalFalse), |_| {
        (pushes(&[vec![], vec![0x51]]), Witness::new())
    });
}

fn both(reason: Reason) -> Reasons {
    (Some(reason), Some(reason))
}

/// A leaf of one script behind the first key, of any version.
fn leaf(script: &Script, version: u8) -> TaprootSpendInfo {
    let version = LeafVersion::from_consensus(version).unwrap();
    let builder = TaprootBuilder::new().add_leaf_with_ver(0, script.to_owned(), version).unwrap();
    builder.finalize(&Secp256k1::new(), public(1).inner.x_only_public_key().0).unwrap()
}

fn control(info: &TaprootSpendInfo, script: &Script, version: u8) -> Vec<u8> {
    let version = LeafVersion::from_consensus(version).unwrap();
    info.control_block(&(script.to_owned(), version)).unwrap().serialize()
}

fn taproot(cases: &mut Cases) {
    let own = public(1).inner.x_only_public_key().0;
    let p2tr = ScriptBuf::new_p2tr(&Secp256k1::new(), own, None);
    type Signature = fn(&Signer) -> Vec<u8>;
    let sound: Signature = |signer| signer.taproot(1, None, TapSighashType::Default);
    let rows: [(&str, Signature, Option<Reason>); 7] = [
        ("sound", sound, None),
        ("with a hash type", |signer| [signer.taproot(1, None, TapSighashType::All), vec![1]].concat(), None),
        (
            "of another key",
            |signer| signer.taproot(2, None, TapSighashType::Default),
            Some(Reason::SchnorrSig),
        ),
        ("too short", |_| vec![7; 63], Some(Reason::SchnorrSigSize)),
        ("empty", |_| Vec::new(), Some(Reason::SchnorrSigSize)),
        ("with hash type 0", |_| [[7; 64].as_slice(), &[0]].concat(), Some(Reason::SchnorrSigHashType)),
        ("with hash type 4", |_| [[7; 64].as_slice(), &[4]].concat(), Some(Reason::SchnorrSigHashType)),
    ];
    for (what, signature, reason) in rows {
        cases.add(&format!("p2tr {what}"), &p2tr, (reason, reason), move |signer| {
            (ScriptBuf::new(), Witness::from_slice(&[signature(signer)]))
        });
    }
    let empty = both(Reason::WitnessProgramWitnessEmpty);
    cases.add("p2tr without a witness", &p2tr, empty, |_| (ScriptBuf::new(), Witness::new()));
    let with_script_sig = both(Reason::WitnessMalleated);
    cases.add("p2tr with a scriptSig", &p2tr, with_script_sig, move |signer| {
        (pushes(&[vec![7, 7]]), Witness::from_slice(&[sound(signer)]))
    });

    let checks = Builder::new().push_x_only_key(&own).push_opcode(OP_CHECKSIG).into_script();
    let success = ScriptBuf::from(vec![0x50]);
    let schnorr = both(Reason::SchnorrSig);
    for (what, number, reasons) in [("sound", 1, (None, None)), ("of another key", 2, schnorr)] {
        let (script, info) = (checks.clone(), leaf(&checks, 0xc0));
        let paid = ScriptBuf::new_p2tr_tweaked(info.output_key());
        cases.add(&format!("tapscript {what}"), &paid, reasons, move |signer| {
            let items = [signer.tapscript(&script, number), script.to_bytes(), control(&info, &script, 0xc0)];
            (ScriptBuf::new(), Witness::from_slice(&items))
        });
    }
    type Change = fn(Vec<u8>) -> Vec<u8>;
    type Row<'a> = (&'a str, &'a ScriptBuf, u8, Change, Reasons);
    let rows: [Row<'_>; 4] = [
        (
            "of a later version",
            &checks,
            0xc2,
            |control| control,
            (Some(Reason::UpgradableTaprootVersion), None),
        ),
        ("with OP_SUCCESS", &success, 0xc0, |control| control, (Some(Reason::OpSuccess), None)),
        ("with a short control block", &checks, 0xc0, |control| control[1..].to_vec(), {
            both(Reason::TaprootWrongControlSize)
        }),
        ("with another tree", &checks, 0xc0, |control| [control, vec![7; 32]].concat(), {
            both(Reason::WitnessProgramMismatch)
        }),
    ];
    for (what, script, version, change, reasons) in rows {
        let (script, info) = (script.clone(), leaf(script, version));
        let paid = ScriptBuf::new_p2tr_tweaked(info.output_key());
        cases.add(&format!("tapscript {what}"), &paid, reasons, move |_| {
            let control = change(control(&info, &script, version));
            (ScriptBuf::new(), Witness::from_slice(&[vec![7; 64], script.to_bytes(), control]))
        });
    }
}

/// What is not followed step by step: the interpreter's word, and a likely reason.
fn unusual(cases: &mut Cases) {
    let script =
        Builder::new().push_opcode(OP_IF).push_key(&public(1)).push_opcode(OP_ELSE).push_key(&public(2));
    let script = script.push_opcode(OP_ENDIF).push_opcode(OP_CHECKSIG).into_script();
    let null = (Some(Reason::SigNullFail), Some(Reason::EvalFalse));
    for (what, number, reasons) in [("sound", 2, (None, None)), ("of the wrong key", 1, null)] {
        let inner = script.clone();
        cases.add(&format!("p2wsh of two ways, {what}"), &script.to_p2wsh(), reasons, move |signer| {
            let items = [signer.segwit(&inner, number), vec![], inner.to_bytes()];
            (ScriptBuf::new(), Witness::from_slice(&items))
        });
    }
    let anchor = ScriptBuf::from(vec![0x51, 2, 0x4e, 0x73]);
    cases.add("pay to anchor", &anchor, (None, None), |_| (ScriptBuf::new(), Witness::new()));
    let later = ScriptBuf::from([&[0x52, 32][..], &[7; 32]].concat());
    let reasons = (Some(Reason::UpgradableWitnessProgram), None);
    let later = cases.add("a later witness version", &later, reasons, |_| (ScriptBuf::new(), Witness::new()));
    later.before = true;
    let empty = Builder::new().push_opcode(OP_0).into_script();
    cases.add("p2wsh that ends false", &empty.to_p2wsh(), both(Reason::EvalFalse), move |_| {
        (ScriptBuf::new(), Witness::from_slice(&[empty.to_bytes()]))
    });
}

/// The spend of output `vout` of `funding`.
fn spend(case: &Case, outpoint: OutPoint) -> (Transaction, TxOut) {
    let output = TxOut { value: PAID, script_pubkey: case.script.clone() };
    let input = TxIn { previous_output: outpoint, sequence: Sequence::MAX, ..TxIn::default() };
    let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(b"somebody")));
    let paid = TxOut { value: PAID - Amount::from_sat(20_000), script_pubkey: to };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![paid],
    };
    let signer = Signer { secp: Secp256k1::new(), tx, spent: output.clone() };
    let (script_sig, witness) = (case.spend)(&signer);
    let mut tx = signer.tx;
    tx.input[0].script_sig = script_sig;
    tx.input[0].witness = witness;
    (tx, output)
}

/// The reason that is given; a build with the interpreter has it.
fn reason(result: Result<(), VerifyError>) -> Option<Reason> {
    match result {
        Ok(()) => None,
        Err(VerifyError::Script(error)) => {
            assert_eq!(error.input, 0);
            Some(error.reason)
        }
        Err(VerifyError::Unavailable) => panic!("this build has the interpreter"),
    }
}

#[test]
fn every_way_to_spend_gets_its_reason_by_policy_and_by_the_rules() {
    let cases = cases();
    assert!(cases.len() > 90, "{}", cases.len());
    for case in &cases {
        let outpoint = OutPoint::new(Txid::from_byte_array([9; 32]), 3);
        let (tx, output) = spend(case, outpoint);
        let (raw, spent) = (serialize(&tx), [output]);
        let name = &case.name;
        assert_eq!(reason(verify_standard(&tx, &raw, &spent)), case.standard, "{name}, by policy");
        let by_rules = reason(verify(&tx, &raw, &spent, Flags::ALL));
        assert_eq!(by_rules, case.consensus, "{name}, by the rules");
        // The static part says the same of what the rules let pass.
        if case.consensus.is_none() {
            let policy = check_policy(&tx, &spent).err().map(|error| error.reason);
            assert_eq!(policy, case.standard, "{name}, static");
        }
        // What the interpreter refuses no template lets pass, and the other way round.
        if let Some(result) = verify_template(&tx, &spent, 0, Flags::ALL) {
            assert_eq!(result.err(), by_rules, "{name}, as a template");
        }
    }
}

#[test]
fn the_first_input_that_fails_is_named() {
    let cases = cases();
    let named = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let outpoint = OutPoint::new(Txid::from_byte_array([9; 32]), 0);
    let (mut tx, first) = spend(named("p2wpkh unsigned"), outpoint);
    let (other, second) = spend(named("p2pkh unsigned"), OutPoint { vout: 1, ..outpoint });
    tx.input.push(other.input[0].clone());
    let spent = [second.clone(), first.clone()];
    tx.input.swap(0, 1);
    let error = verify_standard(&tx, &serialize(&tx), &spent).unwrap_err();
    assert_eq!(error.to_string(), "input 0: Operation not valid with the current stack size");
    // Too few outputs are no reason to panic.
    let error = verify(&tx, &serialize(&tx), &spent[..1], Flags::ALL).unwrap_err();
    assert_eq!(error.to_string(), "input 0: unknown error");
    assert!(verify(&tx, &[1, 2, 3], &spent, Flags::ALL).is_err());
}

/// The real node's word for each, with its details.
#[test]
fn a_real_node_gives_the_same_reasons() {
    let Some(node) = Node::start_without_wallet(&[]) else { return };
    // Coins that anyone may spend.
    let anyones = text(&node.rpc("getdescriptorinfo", json!(["raw(51)"]))["descriptor"]);
    let mined = node.rpc("generatetodescriptor", json!([101, anyones]));
    let cases = cases();
    let mut scripts: BTreeMap<ScriptBuf, u32> = BTreeMap::new();
    for case in &cases {
        let next = scripts.len() as u32;
        scripts.entry(case.script.clone()).or_insert(next);
    }
    let mut outputs = vec![TxOut { value: PAID, script_pubkey: ScriptBuf::new() }; scripts.len()];
    scripts.iter().for_each(|(script, vout)| outputs[*vout as usize].script_pubkey = script.clone());
    let coinbase = text(&node.rpc("getblock", json!([mined[0], 1]))["tx"][0]).parse().unwrap();
    let input =
        TxIn { previous_output: OutPoint::new(coinbase, 0), sequence: Sequence::MAX, ..TxIn::default() };
    let funding =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: outputs };
    node.rpc("generateblock", json!([anyones, [serialize_hex(&funding)]]));
    let txid = funding.compute_txid();
    let mut wrong = Vec::new();
    // Before version 30 the word before the reason was another.
    let known = |said: &str| {
        said.replace("non-mandatory-script-verify-flag (", "mempool-script-verify-flag-failed (")
    };
    let known = |said: &str| {
        known(said).replace("mandatory-script-verify-flag-failed (", "mempool-script-verify-flag-failed (")
    };
    for case in &cases {
        let (tx, output) = spend(case, OutPoint::new(txid, scripts[&case.script]));
        let answer = node.rpc("testmempoolaccept", json!([[serialize_hex(&tx)], 0]));
        let (allowed, said) = (answer[0]["allowed"] == json!(true), &answer[0]["reject-reason"]);
        let said = if allowed { "accepted".to_owned() } else { known(&text(said)) };
        let ours = match verify_standard(&tx, &serialize(&tx), &[output]) {
            _ if case.before && !allowed && !said.contains("script-verify-flag") => continue,
            Ok(()) => "accepted".to_owned(),
            Err(VerifyError::Script(error)) => {
                let details = answer[0].get("reject-details").map(text).unwrap_or_default();
                let expected = format!("{}, {}", error.mempool_reason(), error.details(&tx));
                if details.contains("wtxid") && details != expected {
                    wrong.push(format!("{}: the node says {details}, we {expected}", case.name));
                }
                error.mempool_reason()
            }
            Err(VerifyError::Unavailable) => panic!("this build has the interpreter"),
        };
        if said != ours {
            wrong.push(format!("{}: the node says {said}, we {ours}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
