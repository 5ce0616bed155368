//! What wallets hand in: one transaction, a package, or some to be tested. Bitcoin Core's checks around an admission,
//! and its words.
//!
//! Here a transaction that is taken only has to be relayed; whether peers took it too is for others to find out.
//! Source: Bitcoin Core `node/transaction.cpp` (`BroadcastTransaction`), `rpc/mempool.cpp` (`sendrawtransaction`,
//! `submitpackage`, `testmempoolaccept`).

use std::sync::Arc;

use bitcoin::hex::DisplayHex;
use bitcoin::{Script, Wtxid};
use bytes::Bytes;
use chainstore::is_unspendable;

use crate::solver::Ops;

use super::admission::{Moment, Refusal, ScriptJob, Terms};
use super::entry::Entry;
use super::machine::Mempool;
use super::package::{Member, Package, PackageFailure, PackageResult, PackageStep};
use super::policy::FeeRate;
use super::reject::{Reject, RejectKind};
use super::submission::{MAX_PACKAGE, Outcome, PackageMember, PackageOutcome, Submission, Taken, Tested};
use super::topology::is_child_with_parents_tree;
use super::transaction::Unconfirmed;

/// Nobody means to pay more, unless they say so (`-maxfeerate`): 0.1 BTC for 1,000 virtual bytes.
const MAX_FEERATE: FeeRate = FeeRate(10_000_000);
/// The last opcode that means something, or means nothing on purpose (`MAX_OPCODE`).
const MAX_OPCODE: u8 = 0xb9;
const MAX_ELEMENT_BYTES: usize = 520;

/// What a wallet handed in, on its way.
#[derive(Clone, Debug)]
pub struct Request(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Transaction(Arc<Unconfirmed>),
    Package(Package),
    Test(Vec<Arc<Unconfirmed>>),
}

/// The answer, or what there is to do first.
#[derive(Clone, Debug)]
pub enum RequestStep {
    NeedsScripts(Vec<ScriptJob>),
    /// The answer, and what of it peers should be told. For one transaction it is to be given when they were.
    Done {
        outcome: Outcome,
        relay: Vec<Wtxid>,
    },
}

impl Request {
    /// Reads what was handed in; the error is the answer.
    pub fn new(submission: &Submission) -> Result<Self, Outcome> {
        let kind = match submission {
            Submission::Transaction(raw) => read_one(raw).map(Kind::Transaction),
            Submission::Package(raw) => read_package(raw).map(Kind::Package),
            Submission::Test(raw) => read_all(raw).map(Kind::Test),
        };
        kind.map(Self).map_err(Outcome::Rejected)
    }
}

fn read_one(raw: &Bytes) -> Result<Arc<Unconfirmed>, String> {
    let tx = Unconfirmed::parse(raw)
        .map_err(|_| "TX decode failed. Make sure the tx has at least one input.".to_owned())?;
    check_burns_nothing(&tx)?;
    Ok(Arc::new(tx))
}

fn read_all(raw: &[Bytes]) -> Result<Vec<Arc<Unconfirmed>>, String> {
    if raw.is_empty() || raw.len() > MAX_PACKAGE {
        return Err(format!("Array must contain between 1 and {MAX_PACKAGE} transactions."));
    }
    let read = |raw: &Bytes| {
        let failed =
            |_| format!("TX decode failed: {} Make sure the tx has at least one input.", raw.as_hex());
        Unconfirmed::parse(raw).map(Arc::new).map_err(failed)
    };
    raw.iter().map(read).collect()
}

fn read_package(raw: &[Bytes]) -> Result<Package, String> {
    let txs = read_all(raw)?;
    txs.iter().try_for_each(|tx| check_burns_nothing(tx))?;
    if txs.len() > 1 && !is_child_with_parents_tree(&txs) {
        let what = "package topology disallowed. not child-with-parents or parents depend on each other.";
        return Err(what.to_owned());
    }
    Ok(Package::new(txs, Some(MAX_FEERATE)))
}

/// No output that nobody can spend has a value.
fn check_burns_nothing(tx: &Unconfirmed) -> Result<(), String> {
    let is_lost = |script: &Script| is_unspendable(script) || !has_valid_ops(script);
    let mut outputs = tx.tx().output.iter();
    // Core looks at the value as a signed number: what is negative is found later.
    if outputs.any(|output| (output.value.to_sat() as i64) > 0 && is_lost(&output.script_pubkey)) {
        let what = "Unspendable output exceeds maximum configured by user (maxburnamount)";
        return Err(what.to_owned());
    }
    Ok(())
}

/// `CScript::HasValidOps`.
fn has_valid_ops(script: &Script) -> bool {
    Ops::of(script.as_bytes())
        .all(|op| op.is_ok_and(|op| op.code <= MAX_OPCODE && op.data.len() <= MAX_ELEMENT_BYTES))
}

impl Mempool {
    /// Goes on with what a wallet handed in: to the answer, or to scripts that have to be run before.
    pub fn submit(&mut self, request: &mut Request, moment: Moment<'_>) -> RequestStep {
        match &mut request.0 {
            Kind::Transaction(tx) => match self.submit_one(tx, moment) {
                Ok(wtxid) => RequestStep::Done { outcome: Outcome::Sent(tx.txid()), relay: vec![wtxid] },
                Err(Refused::NeedsScripts(jobs)) => RequestStep::NeedsScripts(jobs),
                Err(Refused::Because(why)) => rejected(why),
            },
            Kind::Package(package) => match self.admit_package(package, moment) {
                PackageStep::NeedsScripts(jobs) => RequestStep::NeedsScripts(jobs),
                PackageStep::Done(result) => self.package_answer(result),
            },
            Kind::Test(txs) => match self.test_accept(txs, moment) {
                Err(jobs) => RequestStep::NeedsScripts(jobs),
                Ok(results) => {
                    let tested = results.iter().map(tested).collect();
                    RequestStep::Done { outcome: Outcome::Tested(tested), relay: Vec::new() }
                }
            },
        }
    }

    /// The wtxid of what peers are to be told: the one that is here, if it is another.
    fn submit_one(&mut self, tx: &Arc<Unconfirmed>, moment: Moment<'_>) -> Result<Wtxid, Refused> {
        if moment.chain.has_unspent(&tx.txid(), tx.tx().output.len() as u32) {
            return Err(Refused::Because("Transaction outputs already in utxo set".to_owned()));
        }
        if let Some(entry) = self.pool.get(&tx.txid()) {
            return Ok(entry.wtxid);
        }
        let plan = self.evaluate(tx, moment, Terms::ALONE)?;
        let fee = plan.entries().first().map_or(0, |entry| entry.fee.to_sat());
        // Without what signature operations add.
        if fee > MAX_FEERATE.fee(tx.weight().div_ceil(4)) {
            let why = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
            return Err(Refused::Because(why.to_owned()));
        }
        let entry = self.take(plan, moment.now).map_err(|reject| Refused::Because(reject.to_string()))?;
        Ok(entry.wtxid)
    }

    fn package_answer(&self, result: PackageResult) -> RequestStep {
        let relay = result.members.iter().filter_map(|(tx, _)| self.pool.get(&tx.txid()));
        let relay = relay.map(|entry| entry.wtxid).collect();
        RequestStep::Done { outcome: Outcome::Package(result.into()), relay }
    }

    /// Whether transactions would be taken, in the order given, or the scripts to run before that is known. Nothing
    /// changes.
    pub fn test_accept(
        &self,
        txs: &[Arc<Unconfirmed>],
        moment: Moment<'_>,
    ) -> Result<Vec<TestResult>, Vec<ScriptJob>> {
        match txs {
            [tx] => self.test_one(tx, moment).map(|result| vec![result]),
            _ => self.test_several(txs, moment),
        }
    }

    fn test_one(&self, tx: &Arc<Unconfirmed>, moment: Moment<'_>) -> Result<TestResult, Vec<ScriptJob>> {
        let verdict = match self.evaluate(tx, moment, Terms::ALONE) {
            Ok(plan) => plan.entries().first().map(|entry| Ok(alone(entry))),
            Err(refusal) => Some(Err(refusal.into_reject()?)),
        };
        let mut results = vec![TestResult { tx: Arc::clone(tx), package: None, verdict }];
        limit_fees(&mut results);
        Ok(results.remove(0))
    }

    fn test_several(
        &self,
        txs: &[Arc<Unconfirmed>],
        moment: Moment<'_>,
    ) -> Result<Vec<TestResult>, Vec<ScriptJob>> {
        let terms = Terms { may_replace: false, ..Terms::ALONE };
        let planned = self.plan_together(txs, moment, terms).and_then(|(candidates, plan)| {
            self.check_scripts(candidates, moment)?;
            Ok(plan)
        });
        let all = |package: Option<Reject>| {
            let untested = |tx| TestResult { tx: Arc::clone(tx), package: package.clone(), verdict: None };
            txs.iter().map(untested).collect::<Vec<_>>()
        };
        let mut results = match planned {
            Err(PackageFailure::NeedsScripts(jobs)) => return Err(jobs),
            Err(PackageFailure::Package(reject)) => all(Some(reject)),
            Err(PackageFailure::Member(wtxid, reject, _)) => {
                let mut results = all(None);
                if let Some(result) = results.iter_mut().find(|result| result.tx.wtxid() == wtxid) {
                    result.verdict = Some(Err(reject));
                }
                results
            }
            Ok(plan) => {
                let mut results = all(None);
                for (result, entry) in results.iter_mut().zip(plan.entries()) {
                    result.verdict = Some(Ok(alone(entry)));
                }
                results
            }
        };
        limit_fees(&mut results);
        Ok(results)
    }
}

/// One that pays for itself.
fn alone(entry: &Entry) -> Taken {
    let rate = FeeRate::of(entry.fee.to_sat(), entry.vsize);
    Taken { vsize: entry.vsize, fee: entry.fee, effective: Some((rate, vec![entry.wtxid])) }
}

/// Why a transaction was not taken.
enum Refused {
    NeedsScripts(Vec<ScriptJob>),
    Because(String),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal.into_reject() {
            Ok(reject) => Self::Because(reject.to_string()),
            Err(jobs) => Self::NeedsScripts(jobs),
        }
    }
}

fn rejected(why: String) -> RequestStep {
    RequestStep::Done { outcome: Outcome::Rejected(why), relay: Vec::new() }
}

/// What would become of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    pub tx: Arc<Unconfirmed>,
    /// What is wrong with all that were tested with it.
    pub package: Option<Reject>,
    /// `None` where another one failed first.
    pub verdict: Option<Result<Taken, Reject>>,
}

/// From the first that pays too much on, nothing is said of the others.
fn limit_fees(results: &mut [TestResult]) {
    let pays_too_much = |result: &TestResult| {
        let taken = result.verdict.as_ref().and_then(|verdict| verdict.as_ref().ok());
        taken.is_some_and(|taken| taken.fee.to_sat() > MAX_FEERATE.fee(taken.vsize))
    };
    let Some(at) = results.iter().position(pays_too_much) else { return };
    for result in results.iter_mut().skip(at) {
        result.verdict = None;
    }
    if let Some(result) = results.get_mut(at) {
        result.verdict = Some(Err(Reject::new(RejectKind::MempoolPolicy, "max-fee-exceeded")));
    }
}

/// As the Electrum protocol passes it on: of an error what is said of the package, else the reason with its details.
fn tested(result: &TestResult) -> Tested {
    let reason = match &result.verdict {
        _ if result.package.is_some() => result.package.as_ref().map(Reject::to_string),
        Some(Err(reject)) if reject.kind == RejectKind::MissingInputs => Some("missing-inputs".to_owned()),
        Some(Err(reject)) => Some(reject.to_string()),
        Some(Ok(_)) | None => None,
    };
    Tested {
        txid: result.tx.txid(),
        wtxid: result.tx.wtxid(),
        allowed: result.verdict.as_ref().map(Result::is_ok),
        reason,
    }
}

impl From<PackageResult> for PackageOutcome {
    fn from(result: PackageResult) -> Self {
        let members = result.members.into_iter().map(|(tx, member)| {
            let (other_wtxid, result) = match member {
                Some(Member::Taken(taken)) => (None, Ok(taken)),
                Some(Member::OtherWitness(wtxid, taken)) => (Some(wtxid), Ok(taken)),
                Some(Member::Rejected(reject)) => (None, Err(reject.to_string())),
                None => (None, Err("package-not-validated".to_owned())),
            };
            PackageMember { txid: tx.txid(), wtxid: tx.wtxid(), other_wtxid, result }
        });
        let message = result.reject.map_or_else(|| "success".to_owned(), |reject| reject.to_string());
        Self { message, transactions: members.collect(), replaced: result.replaced }
    }
}
