//! `blockchain.block.*` and `blockchain.headers.subscribe`: headers, and proofs of them.
//!
//! All headers are hex of their 80 bytes. A proof (`cp_height`) is for the last header of an answer.

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use chainstore::Height;

use crate::query::TipHeader;

use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;
use super::subscriptions::HeaderForm;

/// Headers in one answer: a retarget period, and the least that wallets ask a server to give.
const MAX_HEADERS: u32 = 2_016;
const HEADER_BYTES: usize = 80;

pub(super) fn subscribe(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let tip = tip(context)?;
    context.subscriptions.subscribe_headers(HeaderForm::Raw, tip.hash);
    Ok(tip_object(tip).into())
}

pub(super) fn tip<'a>(context: &Context<'a>) -> Result<&'a TipHeader, RpcError> {
    context.view.tip().ok_or_else(|| RpcError::unavailable("no header is known yet"))
}

/// Exactly these two keys: Electrum takes no more.
pub(super) fn tip_object(tip: &TipHeader) -> Json {
    Json::object([("height", Json::integer(tip.height.0)), ("hex", Json::hex(&serialize(&tip.header)))])
}

/// Before 1.4 there are no proofs.
pub(super) fn header_alone(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    header_with(context, args.integer(0)?, 0)
}

pub(super) fn header(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    header_with(context, args.integer(0)?, args.integer(1)?)
}

fn header_with(context: &mut Context<'_>, height: u64, checkpoint: u64) -> Result<Reply, Failure> {
    let (height, header) = header_at(context, height)?;
    let header = Json::hex(&serialize(&header));
    if checkpoint == 0 {
        return Ok(header.into());
    }
    context.count(1);
    let [branch, root] = proof(context, height, checkpoint)?;
    Ok(Json::object([("header", header), branch, root]).into())
}

/// Before 1.4 there are no proofs.
pub(super) fn headers_without_proof(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    headers(context, args, 0, |bytes| ("hex", Json::hex(bytes)))
}

/// The header at a height, with that as the chain counts it; an error above the tip.
pub(super) fn header_at(context: &Context<'_>, height: u64) -> Result<(Height, Header), Failure> {
    let found = match height_of(height) {
        Some(at) => context.view.header(at)?.map(|header| (at, header)),
        None => None,
    };
    Ok(found.ok_or_else(|| RpcError::bad_request(format!("height {height} out of range")))?)
}

/// Before 1.6 the headers are one string.
pub(super) fn headers_joined(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    headers(context, args, args.integer(2)?, |bytes| ("hex", Json::hex(bytes)))
}

pub(super) fn headers_listed(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let listed = |bytes: &[u8]| ("headers", Json::list(bytes.chunks(HEADER_BYTES).map(Json::hex)));
    headers(context, args, args.integer(2)?, listed)
}

fn headers(
    context: &mut Context<'_>,
    args: &Args<'_>,
    checkpoint: u64,
    written: fn(&[u8]) -> (&'static str, Json),
) -> Result<Reply, Failure> {
    let (start, count) = (args.integer(0)?, args.integer(1)?);
    let count = u32::try_from(count).unwrap_or(u32::MAX).min(MAX_HEADERS);
    let bytes = match height_of(start) {
        Some(start) => context.view.headers(start, count)?,
        None => Vec::new(),
    };
    let count = (bytes.len() / HEADER_BYTES) as u32;
    context.count(count as usize);
    let mut fields =
        vec![written(&bytes), ("count", Json::integer(count)), ("max", Json::integer(MAX_HEADERS))];
    if let (Some(start), Some(last), 1..) = (height_of(start), count.checked_sub(1), checkpoint) {
        fields.extend(proof(context, Height(start.0 + last), checkpoint)?);
    }
    Ok(Json::object(fields).into())
}

/// The proof of a header among those up to a checkpoint, as two fields of an answer.
fn proof(
    context: &Context<'_>,
    height: Height,
    checkpoint: u64,
) -> Result<[(&'static str, Json); 2], Failure> {
    let proof = match height_of(checkpoint) {
        Some(checkpoint) => context.view.header_proof(height, checkpoint)?,
        None => None,
    };
    let proof = proof.ok_or_else(|| {
        let tip = context.view.tip().map_or(0, |tip| tip.height.0);
        RpcError::bad_request(format!(
            "require header height {height} <= cp_height {checkpoint} <= chain height {tip}"
        ))
    })?;
    let branch = Json::list(proof.branch.iter().map(Json::hash));
    Ok([("branch", branch), ("root", Json::hash(proof.root))])
}

/// No chain is higher than four bytes count.
pub(super) fn height_of(number: u64) -> Option<Height> {
    u32::try_from(number).ok().map(Height)
}
