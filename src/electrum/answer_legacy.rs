//! What only versions before 1.4 have: headers in words, chunks of them, heights alone, addresses of outputs.
//!
//! Source: electrum-protocol, "Removed Methods"; ElectrumX 1.0 to 1.3 where it is silent.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::transaction::Transaction;
use bitcoin::{Address, Network, Script};
use chainstore::Height;

use crate::query::TipHeader;

use super::answer_block::{self, height_of, tip_object};
use super::answer_transaction;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;
use super::subscriptions::HeaderForm;

/// Headers of a chunk: a retarget period.
const CHUNK: u32 = 2_016;

pub(super) fn numblocks(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let tip = answer_block::tip(context)?;
    context.subscriptions.subscribe_numblocks(tip.hash);
    Ok(Json::integer(tip.height.0).into())
}

pub(super) fn headers_in_words(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    subscribe_headers(context, HeaderForm::InWords)
}

pub(super) fn headers_raw_or_not(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    subscribe_headers(context, if args.boolean(0)? { HeaderForm::Raw } else { HeaderForm::InWords })
}

fn subscribe_headers(context: &mut Context<'_>, form: HeaderForm) -> Result<Reply, Failure> {
    let tip = answer_block::tip(context)?;
    context.subscriptions.subscribe_headers(form, tip.hash);
    Ok(tip_in(form, tip).into())
}

/// The tip as a session wants it.
pub(super) fn tip_in(form: HeaderForm, tip: &TipHeader) -> Json {
    match form {
        HeaderForm::Raw => tip_object(tip),
        HeaderForm::InWords => header_in_words(tip.height, &tip.header),
    }
}

pub(super) fn get_header(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (at, header) = answer_block::header_at(context, args.integer(0)?)?;
    Ok(header_in_words(at, &header).into())
}

fn header_in_words(height: Height, header: &Header) -> Json {
    // Read as unsigned, as ElectrumX did.
    let version = u32::from_le_bytes(header.version.to_consensus().to_le_bytes());
    Json::object([
        ("block_height", Json::integer(height.0)),
        ("version", Json::integer(version)),
        ("prev_block_hash", Json::hash(header.prev_blockhash)),
        ("merkle_root", Json::hash(header.merkle_root)),
        ("timestamp", Json::integer(header.time)),
        ("bits", Json::integer(header.bits.to_consensus())),
        ("nonce", Json::integer(header.nonce)),
    ])
}

/// What lies beyond the tip is left out, so that a chunk may be short or empty.
pub(super) fn get_chunk(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let start = args.integer(0)?.checked_mul(u64::from(CHUNK)).and_then(height_of);
    let headers = match start {
        Some(start) => context.view.headers(start, CHUNK)?,
        None => Vec::new(),
    };
    context.count(headers.len() / Header::SIZE);
    Ok(Json::hex(&headers).into())
}

pub(super) fn address_of_output(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let (txid, index) = (args.txid(0)?, args.integer(1)?);
    let raw = context.view.transaction(&txid)?;
    let address = raw.and_then(|raw| {
        let transaction: Transaction = deserialize(&raw.bytes).ok()?;
        let output = transaction.output.get(usize::try_from(index).ok()?)?;
        address_paid(&output.script_pubkey, context.server.network)
    });
    Ok(address.map_or_else(Json::null, |address| Json::text(&address.to_string())).into())
}

/// A bare key counts as its hash, as in the servers of that time.
fn address_paid(script: &Script, network: Network) -> Option<Address> {
    match script.p2pk_public_key() {
        Some(key) => Some(Address::p2pkh(key, network)),
        None => Address::from_script(script, network).ok(),
    }
}

/// In 1.0 what is wrong with a transaction is a result like its txid.
pub(super) fn broadcast(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    match answer_transaction::broadcast(context, args) {
        Err(Failure::Refused(error)) => Ok(Json::text(&error.message).into()),
        other => other,
    }
}
