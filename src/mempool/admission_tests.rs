//! What a mempool without a node around it does with transactions, scripts, packages and blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use bytes::Bytes;
use chainstore::Height;

use crate::time::Now;

use super::*;

const WORTH: u64 = 10_000_000;

/// A chain of some coins that anyone can spend.
#[derive(Default)]
struct Chain {
    coins: BTreeMap<OutPoint, ChainCoin>,
    height: u32,
}

impl Chain {
    fn new() -> Self {
        let mut chain = Self { coins: BTreeMap::new(), height: 300 };
        for number in 0..10 {
            let coin = ChainCoin { output: paying(WORTH), height: Height(100), is_coinbase: false };
            chain.coins.insert(coin_at(number), coin);
        }
        chain
    }

    fn apply(&mut self, tx: &Unconfirmed) {
        for input in &tx.tx().input {
            self.coins.remove(&input.previous_output);
        }
        for (vout, output) in (0..).zip(&tx.tx().output) {
            let height = Height(self.height);
            let coin = ChainCoin { output: output.clone(), height, is_coinbase: false };
            self.coins.insert(OutPoint { txid: tx.txid(), vout }, coin);
        }
    }
}

impl ChainState for Chain {
    fn coin(&self, outpoint: &OutPoint) -> Option<ChainCoin> {
        self.coins.get(outpoint).cloned()
    }

    fn has_unspent(&self, txid: &Txid, outputs: u32) -> bool {
        (0..outputs).any(|vout| self.coins.contains_key(&OutPoint { txid: *txid, vout }))
    }

    fn median_time_past(&self, height: Height) -> u32 {
        1_600_000_000 + height.0 * 600
    }

    fn height(&self) -> Height {
        Height(self.height)
    }
}

fn coin_at(number: u8) -> OutPoint {
    OutPoint { txid: Txid::hash(&[number]), vout: 0 }
}

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn paying(satoshi: u64) -> TxOut {
    TxOut { value: Amount::from_sat(satoshi), script_pubkey: anyone().to_p2wsh() }
}

/// Spends these, and pays `values`.
fn draft(inputs: &[OutPoint], values: &[u64]) -> Transaction {
    let witness = Witness::from_slice(&[anyone().as_bytes()]);
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: witness.clone(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: values.iter().map(|value| paying(*value)).collect(),
    }
}

fn ready(tx: &Transaction) -> Arc<Unconfirmed> {
    Arc::new(Unconfirmed::parse(&serialize(tx)).unwrap())
}

fn transaction(inputs: &[OutPoint], values: &[u64]) -> Arc<Unconfirmed> {
    ready(&draft(inputs, values))
}

fn output(tx: &Unconfirmed, vout: u32) -> OutPoint {
    OutPoint { txid: tx.txid(), vout }
}

fn trusted(chain: &Chain) -> Moment<'_> {
    Moment { chain, now: Now::default(), scripts: ScriptCheck::Trusted }
}

fn run(chain: &Chain) -> Moment<'_> {
    Moment { scripts: ScriptCheck::Run, ..trusted(chain) }
}

fn mempool() -> Mempool {
    Mempool::new(Policy::core())
}

fn rejected(admission: Admission) -> Reject {
    match admission {
        Admission::Rejected(reject) => reject,
        other => panic!("{other:?}"),
    }
}

fn jobs(admission: Admission) -> Vec<ScriptJob> {
    match admission {
        Admission::NeedsScripts(jobs) => jobs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_waits_for_its_scripts_once() {
    let (chain, mut mempool) = (Chain::new(), mempool());
    let tx = transaction(&[coin_at(1)], &[WORTH - 1_000]);

    let asked = jobs(mempool.admit(&tx, run(&chain)));
    assert_eq!(asked, [ScriptJob { tx: Arc::clone(&tx), spent: vec![paying(WORTH)] }]);
    assert!(mempool.get(&tx.txid()).is_none());

    mempool.scripts_done(&asked[0], Ok(()));
    assert!(matches!(mempool.admit(&tx, run(&chain)), Admission::Accepted(entry) if entry.txid == tx.txid()));
    let changes = mempool.take_changes();
    assert_eq!((changes.added.len(), changes.removed.len()), (1, 0));
    assert!(mempool.take_changes().is_empty());

    let again = rejected(mempool.admit(&tx, run(&chain)));
    assert_eq!((again.kind, &*again.reason), (RejectKind::Conflict, "txn-already-in-mempool"));
}

#[test]
fn bad_scripts_are_refused_and_a_missing_witness_is_told_apart() {
    let (chain, mut mempool) = (Chain::new(), mempool());
    let reject = Reject::new(RejectKind::Consensus, "mempool-script-verify-flag-failed");
    let tx = transaction(&[coin_at(1)], &[WORTH - 1_000]);
    let mut stripped = tx.tx().clone();
    stripped.input[0].witness.clear();

    for (tx, kind) in [(tx, RejectKind::Consensus), (ready(&stripped), RejectKind::WitnessStripped)] {
        let job = jobs(mempool.admit(&tx, run(&chain))).remove(0);
        mempool.scripts_done(&job, Err(reject.clone()));
        assert_eq!(rejected(mempool.admit(&tx, run(&chain))).kind, kind);
    }
    assert!(mempool.pool().is_empty());
}

#[test]
fn unknown_parents_are_named_once_each() {
    let (chain, mut mempool) = (Chain::new(), mempool());
    let unknown = Txid::hash(b"unknown");
    let inputs = [1, 0].map(|vout| OutPoint { txid: unknown, vout });
    let tx = transaction(&[coin_at(1), inputs[0], inputs[1]], &[WORTH]);

    let Admission::MissingInputs { parents } = mempool.admit(&tx, run(&chain)) else { panic!() };
    assert_eq!(parents, [unknown]);

    // A confirmed one has no inputs left, but an output.
    let mut chain = chain;
    let confirmed = transaction(&[coin_at(2)], &[WORTH - 500]);
    chain.apply(&confirmed);
    assert_eq!(&*rejected(mempool.admit(&confirmed, run(&chain))).reason, "txn-already-known");
}

#[test]
fn a_full_mempool_refuses_what_pays_least() {
    let chain = Chain::new();
    let mut mempool = Mempool::new(Policy { max_bytes: 4_000, ..Policy::core() });
    let mut refused = Vec::new();
    for number in 0..10 {
        let tx = transaction(&[coin_at(number)], &[WORTH - 10_000 + 500 * u64::from(number)]);
        match mempool.admit(&tx, trusted(&chain)) {
            Admission::Accepted(_) => {}
            other => refused.push(rejected(other)),
        }
    }
    assert_eq!((&*refused[0].reason, refused[0].kind), ("mempool full", RejectKind::Reconsiderable));
    assert_eq!(&*refused[1].reason, "mempool min fee not met");
    assert!(mempool.min_fee(Now::default()) > Policy::core().min_relay);
}

#[test]
fn a_child_pays_for_its_parent_after_the_scripts_of_both() {
    let (chain, mut mempool) = (Chain::new(), mempool());
    let parent = transaction(&[coin_at(1)], &[WORTH]);
    let child = transaction(&[output(&parent, 0)], &[WORTH - 2_000]);
    let mut package = Package::new(vec![Arc::clone(&parent), Arc::clone(&child)], None);

    let PackageStep::NeedsScripts(asked) = mempool.admit_package(&mut package, run(&chain)) else { panic!() };
    assert_eq!(asked.iter().map(|job| job.tx.txid()).collect::<Vec<_>>(), [parent.txid(), child.txid()]);
    assert!(mempool.pool().is_empty());

    asked.iter().for_each(|job| mempool.scripts_done(job, Ok(())));
    let PackageStep::Done(result) = mempool.admit_package(&mut package, run(&chain)) else { panic!() };
    assert_eq!(result.reject, None);
    assert_eq!(mempool.pool().len(), 2);
    let Some(Member::Taken(taken)) = &result.members[1].1 else { panic!() };
    let (rate, both) = taken.effective.as_ref().unwrap();
    assert_eq!((rate.0, both), (2_000_000 / 192, &vec![parent.wtxid(), child.wtxid()]));
}

#[test]
fn one_bad_script_fails_the_package_by_name() {
    let (chain, mut mempool) = (Chain::new(), mempool());
    let parent = transaction(&[coin_at(1)], &[WORTH]);
    let child = transaction(&[output(&parent, 0)], &[WORTH - 2_000]);
    let mut package = Package::new(vec![Arc::clone(&parent), Arc::clone(&child)], None);
    let PackageStep::NeedsScripts(asked) = mempool.admit_package(&mut package, run(&chain)) else { panic!() };
    let bad = Reject::new(RejectKind::Consensus, "mempool-script-verify-flag-failed");
    mempool.scripts_done(&asked[0], Ok(()));
    mempool.scripts_done(&asked[1], Err(bad.clone()));

    let PackageStep::Done(result) = mempool.admit_package(&mut package, run(&chain)) else { panic!() };
    assert_eq!(&*result.reject.unwrap().reason, "transaction failed");
    assert_eq!(result.members[1].1, Some(Member::Rejected(bad)));
    assert!(mempool.pool().is_empty());
}

#[test]
fn wallets_are_answered_in_words_of_the_node() {
    let (mut chain, mut mempool) = (Chain::new(), mempool());
    let confirmed = transaction(&[coin_at(9)], &[WORTH - 500]);
    chain.apply(&confirmed);
    let mut burning = draft(&[coin_at(1)], &[WORTH - 1_000]);
    burning.output[0].script_pubkey = vec![0x6a].into();
    let cases = [
        (vec![1, 2, 3], "TX decode failed. Make sure the tx has at least one input."),
        (serialize(&burning), "Unspendable output exceeds maximum configured by user (maxburnamount)"),
        (confirmed.raw().to_vec(), "Transaction outputs already in utxo set"),
        (
            serialize(&draft(&[coin_at(2)], &[1_000])),
            "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
        ),
        (serialize(&draft(&[coin_at(77)], &[1_000])), "bad-txns-inputs-missingorspent"),
        (serialize(&draft(&[coin_at(1)], &[WORTH])), "min relay fee not met, 0 < 10"),
    ];
    for (raw, text) in cases {
        assert_eq!(
            submit(&mut mempool, &chain, Submission::Transaction(raw.into())).0,
            Outcome::Rejected(text.into())
        );
    }

    let tx = transaction(&[coin_at(1)], &[WORTH - 1_000]);
    for _ in 0..2 {
        let (outcome, relay) = submit(&mut mempool, &chain, Submission::Transaction(tx.raw().clone()));
        assert_eq!((outcome, relay), (Outcome::Sent(tx.txid()), vec![tx.wtxid()]));
    }

    let none = submit(&mut mempool, &chain, Submission::Test(Vec::new())).0;
    assert_eq!(none, Outcome::Rejected("Array must contain between 1 and 25 transactions.".into()));
    let undecodable = submit(&mut mempool, &chain, Submission::Test(vec![Bytes::from_static(&[0xab])])).0;
    let text = "TX decode failed: ab Make sure the tx has at least one input.";
    assert_eq!(undecodable, Outcome::Rejected(text.into()));
    let strangers = [1, 2].map(|number| Bytes::from(serialize(&draft(&[coin_at(number)], &[1_000]))));
    let text = "package topology disallowed. not child-with-parents or parents depend on each other.";
    let outcome = submit(&mut mempool, &chain, Submission::Package(strangers.to_vec())).0;
    assert_eq!(outcome, Outcome::Rejected(text.into()));
}

fn submit(mempool: &mut Mempool, chain: &Chain, submission: Submission) -> (Outcome, Vec<bitcoin::Wtxid>) {
    let mut request = match Request::new(&submission) {
        Ok(request) => request,
        Err(outcome) => return (outcome, Vec::new()),
    };
    match mempool.submit(&mut request, trusted(chain)) {
        RequestStep::Done { outcome, relay } => (outcome, relay),
        RequestStep::NeedsScripts(_) => panic!("all is trusted"),
    }
}

#[test]
fn what_a_test_lets_pass_is_not_kept() {
    let (chain, mut mempool) = (Chain::new(), mempool());
    let parent = transaction(&[coin_at(1)], &[WORTH - 100]);
    let child = transaction(&[output(&parent, 0)], &[WORTH - 101]);

    let raw = [&parent, &child].map(|tx| tx.raw().clone()).to_vec();
    let (outcome, relay) = submit(&mut mempool, &chain, Submission::Test(raw));

    let Outcome::Tested(tested) = outcome else { panic!() };
    assert_eq!((tested[0].allowed, &tested[0].reason), (None, &None));
    assert_eq!(tested[1].allowed, Some(false));
    assert_eq!(tested[1].reason.as_deref(), Some("min relay fee not met, 1 < 10"));
    assert!(relay.is_empty() && mempool.pool().is_empty());
}

#[test]
fn a_reorganisation_brings_back_what_it_took_and_drops_what_is_early() {
    let (mut chain, mut mempool) = (Chain::new(), mempool());
    let before = chain.coins.clone();
    let parent = transaction(&[coin_at(1)], &[WORTH - 1_000]);
    let lost = transaction(&[coin_at(2)], &[WORTH - 1_000]);
    assert!(matches!(mempool.admit(&parent, trusted(&chain)), Admission::Accepted(_)));
    chain.height += 1;
    for tx in [&parent, &lost] {
        mempool.connect_block(Now::default(), [(tx.txid(), tx.tx())]);
        chain.apply(tx);
    }
    let child = transaction(&[output(&parent, 0)], &[WORTH - 2_000]);
    let orphan = transaction(&[output(&lost, 0)], &[WORTH - 2_000]);
    let mut early = draft(&[coin_at(3)], &[WORTH - 1_000]);
    early.lock_time = LockTime::from_consensus(chain.height);
    early.input[0].sequence = Sequence(u32::MAX - 1);
    let early = ready(&early);
    for tx in [&child, &orphan, &early] {
        assert!(matches!(mempool.admit(tx, trusted(&chain)), Admission::Accepted(_)));
    }
    assert_eq!(mempool.take_changes().added.len(), 4);

    // The block goes, and with it the coin that `lost` spent.
    chain.coins = before;
    chain.coins.remove(&coin_at(2));
    chain.height -= 1;
    mempool.disconnect_block(vec![Arc::clone(&parent), Arc::clone(&lost)]);
    mempool.tip_changed(&chain, Now::default().after(Duration::from_secs(1)));

    let mut here: Vec<Txid> = mempool.pool().entries().map(|entry| entry.txid).collect();
    here.sort_unstable();
    let mut expected = [parent.txid(), child.txid()];
    expected.sort_unstable();
    assert_eq!(here, expected);
    assert_eq!(mempool.pool().parents(&child.txid()).len(), 1);
    let changes = mempool.take_changes();
    assert!(changes.removed.iter().all(|(_, why)| *why == Removal::Reorg));
    assert_eq!(changes.flipped.len(), 1);
}

#[test]
fn what_another_branch_confirms_does_not_come_back() {
    let (mut chain, mut mempool) = (Chain::new(), mempool());
    let tx = transaction(&[coin_at(1)], &[WORTH - 1_000]);
    mempool.disconnect_block(vec![Arc::clone(&tx)]);
    mempool.connect_block(Now::default(), [(tx.txid(), tx.tx())]);
    chain.apply(&tx);
    mempool.tip_changed(&chain, Now::default());

    assert!(mempool.pool().is_empty());
}
