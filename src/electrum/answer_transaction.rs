//! `blockchain.transaction.*`: bytes, proofs, broadcast.

use bitcoin::consensus::deserialize;
use bitcoin::{Transaction, Txid};
use bytes::Bytes;

use crate::mempool::{MAX_PACKAGE, Submission};

use super::answer_block::height_of;
use super::batch;
use super::broadcast::Form;
use super::decoded::{self, Place};
use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;

/// Bitcoin Core's words, which wallets match: Sparrow skips a transaction when an error begins like this.
const UNKNOWN: &str = "No such mempool or blockchain transaction";
const GENESIS: &str =
    "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved";

/// Electrum showed a server's words as its own, and thieves sent users to false updates with them.
const OLD_ELECTRUM: &str = "Your transaction was not sent: this version of Electrum is known to be dangerous to \
    use. Get a newer one where you got it first, and from nowhere that a message like this names.";

pub(super) fn get(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (txid, verbose) = (args.txid(0)?, args.boolean(1)?);
    if txid == context.server.genesis_coinbase {
        return Err(RpcError::unavailable(GENESIS).into());
    }
    if verbose { verbosely(context, &txid) } else { hex(context, &txid) }
}

/// Before 1.2 there is nothing but hex.
pub(super) fn get_hex(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let txid = args.txid(0)?;
    if txid == context.server.genesis_coinbase {
        return Err(RpcError::unavailable(GENESIS).into());
    }
    hex(context, &txid)
}

fn hex(context: &Context<'_>, txid: &Txid) -> Result<Reply, Failure> {
    let transaction = context.view.transaction(txid)?.ok_or_else(|| RpcError::unavailable(UNKNOWN))?;
    Ok(Json::hex(&transaction.bytes).into())
}

/// The transaction and its block, if it is in one, both of one view.
fn verbosely(context: &Context<'_>, txid: &Txid) -> Result<Reply, Failure> {
    // None of them happens: the block was decoded and connected before its transactions could be found.
    let unreadable = || RpcError::unavailable("the index cannot be read");
    let raw = context.view.transaction(txid)?.ok_or_else(|| RpcError::unavailable(UNKNOWN))?;
    let transaction: Transaction = deserialize(&raw.bytes).map_err(|_| unreadable())?;
    let place = match raw.height {
        None => None,
        Some(height) => {
            let header = context.view.header(height)?.ok_or_else(unreadable)?;
            let tip = context.view.tip().ok_or_else(unreadable)?;
            let confirmations = (tip.height.0 + 1).saturating_sub(height.0);
            Some(Place { block_hash: header.block_hash(), time: header.time, confirmations })
        }
    };
    let max_bytes = context.server.limits.message_bytes();
    let written = decoded::transaction(&transaction, &raw.bytes, place, context.server.network, max_bytes);
    Ok(written.ok_or_else(|| batch::too_large_error(max_bytes))?.into())
}

pub(super) fn merkle(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (txid, height) = (args.txid(0)?, args.integer(1)?);
    let proof = match height_of(height) {
        Some(height) => context.view.merkle_proof(height, &txid)?,
        None => None,
    };
    let proof =
        proof.ok_or_else(|| RpcError::bad_request(format!("tx {txid} not in block at height {height}")))?;
    Ok(Json::object([
        ("block_height", Json::integer(height)),
        ("merkle", Json::hashes(&proof.branch)),
        ("pos", Json::integer(proof.pos as u64)),
    ])
    .into())
}

pub(super) fn id_from_pos(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (height, pos, with_proof) = (args.integer(0)?, args.integer(1)?, args.boolean(2)?);
    let missing = || RpcError::bad_request(format!("no tx at position {pos} in block at height {height}"));
    let (Some(at), Ok(index)) = (height_of(height), u32::try_from(pos)) else { return Err(missing().into()) };
    if !with_proof {
        let txid = context.view.txid_at(at, index)?.ok_or_else(missing)?;
        return Ok(Json::hash(txid).into());
    }
    let (txid, proof) = context.view.proof_at(at, index as usize)?.ok_or_else(missing)?;
    let branch = Json::hashes(&proof.branch);
    Ok(Json::object([("tx_hash", Json::hash(txid)), ("merkle", branch)]).into())
}

pub(super) fn broadcast(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let raw = args.hex(0)?;
    context.count(raw.len());
    if context.client.is_phishable() {
        return Err(RpcError::bad_request(OLD_ELECTRUM).into());
    }
    let raw = Bytes::from(raw);
    Ok(Reply::Submit(Submission::Transaction(raw.clone()), Form::Transaction { raw }))
}

pub(super) fn broadcast_package(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (package, verbose) = (args.hex_list(0)?, args.boolean(1)?);
    context.count(package.iter().map(Vec::len).sum());
    let package = package.into_iter().map(Bytes::from).collect();
    Ok(Reply::Submit(Submission::Package(package), Form::Package { verbose }))
}

/// Our own policy's answer, and nobody else's.
pub(super) fn test_accept(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let package = args.hex_list(0)?;
    context.count(package.iter().map(Vec::len).sum());
    if !(1..=MAX_PACKAGE).contains(&package.len()) {
        let words = format!("Array must contain between 1 and {MAX_PACKAGE} transactions.");
        return Err(RpcError::unavailable(words).into());
    }
    let package = package.into_iter().map(Bytes::from).collect();
    Ok(Reply::Submit(Submission::Test(package), Form::Test))
}
