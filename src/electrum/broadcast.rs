//! What a wallet is told of the transactions that it handed in.
//!
//! Whether they are good, the mempool says, and whether anybody took them, the peers; the words are Bitcoin Core's, as
//! Electrum shows its user only those that it knows. Here they are put into the form that each method has.
//! Source: ElectrumX `session.py`; electrum-protocol, "blockchain.transaction.broadcast_package".

use bitcoin::hex::DisplayHex;
use bytes::Bytes;

use crate::mempool::{Outcome, PackageMember, PackageOutcome, Taken, Tested};

use super::error::RpcError;
use super::json::Json;

/// How the answer is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An error names the transaction.
    Transaction {
        raw: Bytes,
    },
    Package {
        verbose: bool,
    },
    Test,
}

/// The answer to a wallet.
pub(super) fn answer(form: &Form, outcome: Outcome) -> Result<Json, RpcError> {
    match (outcome, form) {
        (Outcome::Sent(txid), _) => Ok(Json::hash(txid)),
        (Outcome::Rejected(reason), Form::Transaction { raw }) => Err(rejected(&reason, raw)),
        (Outcome::Rejected(reason), Form::Package { .. }) => {
            Err(RpcError::bad_request(format!("the tx package was rejected by network rules.\n\n{reason}.")))
        }
        // ElectrumX passes on what its node says.
        (Outcome::Rejected(reason), Form::Test) => Err(RpcError::unavailable(reason)),
        (Outcome::Package(package), Form::Package { verbose: true }) => Ok(as_core(&package)),
        (Outcome::Package(package), _) => Ok(in_short(&package)),
        (Outcome::Tested(tested), _) => Ok(Json::list(tested.iter().map(self::tested))),
        (Outcome::Unavailable(why), _) => Err(RpcError::unavailable(why)),
    }
}

/// The error of a rejected transaction, as ElectrumX puts it.
fn rejected(reason: &str, raw: &[u8]) -> RpcError {
    RpcError::bad_request(format!(
        "the transaction was rejected by network rules.\n\n{reason}\n[{}]",
        raw.as_hex()
    ))
}

fn in_short(package: &PackageOutcome) -> Json {
    let errors = package.transactions.iter().filter_map(|member| {
        let error = member.result.as_ref().err()?;
        Some(Json::object([("txid", Json::hash(member.txid)), ("error", Json::text(error))]))
    });
    let errors: Vec<Json> = errors.collect();
    let mut fields = vec![("success", Json::bool(package.message == "success"))];
    if !errors.is_empty() {
        fields.push(("errors", Json::list(errors)));
    }
    Json::object(fields)
}

/// What `submitpackage` answers.
fn as_core(package: &PackageOutcome) -> Json {
    let names: Vec<String> = package.transactions.iter().map(|member| member.wtxid.to_string()).collect();
    let results = names.iter().map(String::as_str).zip(package.transactions.iter().map(member));
    Json::object([
        ("package_msg", Json::text(&package.message)),
        ("tx-results", Json::object(results)),
        ("replaced-transactions", Json::list(package.replaced.iter().map(Json::hash))),
    ])
}

fn member(member: &PackageMember) -> Json {
    let mut fields = vec![("txid", Json::hash(member.txid))];
    if let Some(other) = member.other_wtxid {
        fields.push(("other-wtxid", Json::hash(other)));
        return Json::object(fields);
    }
    match &member.result {
        Err(error) => fields.push(("error", Json::text(error))),
        Ok(Taken { vsize, fee, effective }) => {
            let mut fees = vec![("base", Json::btc(*fee))];
            if let Some((rate, wtxids)) = effective {
                fees.push(("effective-feerate", Json::btc(bitcoin::Amount::from_sat(rate.0))));
                fees.push(("effective-includes", Json::list(wtxids.iter().map(Json::hash))));
            }
            fields.extend([("vsize", Json::integer(*vsize)), ("fees", Json::object(fees))]);
        }
    }
    Json::object(fields)
}

fn tested(tested: &Tested) -> Json {
    let mut fields = vec![("txid", Json::hash(tested.txid)), ("wtxid", Json::hash(tested.wtxid))];
    fields.extend(tested.allowed.map(|allowed| ("allowed", Json::bool(allowed))));
    fields.extend(tested.reason.as_deref().map(|reason| ("reason", Json::text(reason))));
    Json::object(fields)
}
