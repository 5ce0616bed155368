//! `blockchain.outpoint.*`: whether an output is there, where, and who spends it.
//!
//! The hint (the output's script) is for servers that find outputs by their script; a wrong one changes nothing here.

use bitcoin::OutPoint;

use crate::query::OutpointStatus;

use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;

pub(super) fn subscribe(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let outpoint = outpoint(args)?;
    check_hint(args)?;
    if !context.subscriptions.has_outpoint(&outpoint) {
        context.ensure_room_to_subscribe()?;
    }
    let answer = context.view.outpoint(&outpoint)?;
    context.count(answer.read);
    context.subscriptions.subscribe_outpoint(outpoint, &answer);
    Ok(status_object(&answer.status).into())
}

pub(super) fn status(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let outpoint = outpoint(args)?;
    check_hint(args)?;
    let answer = context.view.outpoint(&outpoint)?;
    context.count(answer.read);
    Ok(status_object(&answer.status).into())
}

pub(super) fn unsubscribe(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::bool(context.subscriptions.unsubscribe_outpoint(&outpoint(args)?)).into())
}

/// An index that no transaction can have is as good as any other that this one has not.
fn outpoint(args: &Args<'_>) -> Result<OutPoint, RpcError> {
    Ok(OutPoint::new(args.txid(0)?, u32::try_from(args.integer(1)?).unwrap_or(u32::MAX)))
}

fn check_hint(args: &Args<'_>) -> Result<(), RpcError> {
    if args.json(2) != "null" {
        args.hex(2)?;
    }
    Ok(())
}

pub(super) fn status_object(status: &OutpointStatus) -> Json {
    match status {
        OutpointStatus::Missing => Json::object([]),
        OutpointStatus::Unspent { funder } => {
            Json::object([("funder_height", Json::integer(funder.number()))])
        }
        OutpointStatus::Spent { funder, spender, at } => Json::object([
            ("funder_height", Json::integer(funder.number())),
            ("spender_txhash", Json::hash(spender)),
            ("spender_height", Json::integer(at.number())),
        ]),
    }
}
