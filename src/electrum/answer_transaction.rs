//! `blockchain.transaction.*`: bytes, proofs, broadcast.

use bitcoin::Txid;

use super::answer_block::height_of;
use super::broadcast;
use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;

/// Bitcoin Core's words, which wallets match: Sparrow skips a transaction when an error begins like this.
const UNKNOWN: &str = "No such mempool or blockchain transaction";
const GENESIS: &str =
    "The genesis block coinbase is not considered an ordinary transaction and cannot be retrieved";
/// On these words, or in a batch on the code -32600, BlueWallet asks again for hex; Sparrow does on any error
/// but an unknown transaction.
const NOT_VERBOSE: &str = "verbose transactions are currently unsupported";

/// Electrum showed a server's words as its own, and thieves sent users to false updates with them.
const OLD_ELECTRUM: &str = "Your transaction was not sent: this version of Electrum is known to be dangerous to \
    use. Get a newer one where you got it first, and from nowhere that a message like this names.";

pub(super) fn get(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (txid, verbose) = (args.txid(0)?, args.boolean(1)?);
    if context.view.is_genesis_coinbase(&txid)? {
        return Err(RpcError::unavailable(GENESIS).into());
    }
    if verbose {
        let known = context.view.has_transaction(&txid)?;
        let error =
            if known { RpcError::invalid_request(NOT_VERBOSE) } else { RpcError::unavailable(UNKNOWN) };
        return Err(error.into());
    }
    hex(context, &txid)
}

/// Before 1.2 there is nothing but hex.
pub(super) fn get_hex(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let txid = args.txid(0)?;
    if context.view.is_genesis_coinbase(&txid)? {
        return Err(RpcError::unavailable(GENESIS).into());
    }
    hex(context, &txid)
}

fn hex(context: &Context<'_>, txid: &Txid) -> Result<Reply, Failure> {
    let transaction = context.view.transaction(txid)?.ok_or_else(|| RpcError::unavailable(UNKNOWN))?;
    Ok(Json::hex(&transaction.bytes).into())
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
        ("merkle", Json::list(proof.branch.iter().map(Json::hash))),
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
    let branch = Json::list(proof.branch.iter().map(Json::hash));
    Ok(Json::object([("tx_hash", Json::hash(txid)), ("merkle", branch)]).into())
}

pub(super) fn broadcast(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let raw = args.hex(0)?;
    context.count(raw.len());
    if context.client.is_phishable() {
        return Err(RpcError::bad_request(OLD_ELECTRUM).into());
    }
    match broadcast::check(context.view, &raw)? {
        Ok(checked) => Ok(Reply::Broadcast(checked)),
        Err(reason) => Err(broadcast::rejected(reason, &raw).into()),
    }
}
