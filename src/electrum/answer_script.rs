//! `blockchain.scripthash.*`: what a script received and spent.
//!
//! Scripts are asked for by their hash, so two scripts of one key (P2PK and P2PKH) are two questions.

use std::fmt::Write as _;

use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;
use crate::query::push_txid;

pub(super) fn balance(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let confirmed = context.view.balance(&args.script_hash(0)?)?;
    let fields = [("confirmed", Json::integer(confirmed.to_sat())), ("unconfirmed", Json::integer(0))];
    Ok(Json::object(fields).into())
}

pub(super) fn history(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let history = context.view.history(&args.script_hash(0)?)?;
    let entries = Json::list_of(&history, |out, entry| {
        // Writing to a string does not fail.
        let _ = write!(out, "{{\"height\":{},\"tx_hash\":\"", entry.height);
        push_txid(out, &entry.txid);
        out.push_str("\"}");
    });
    Ok(entries.into())
}

pub(super) fn mempool(_: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    args.script_hash(0)?;
    Ok(Json::list([]).into())
}

pub(super) fn unspent(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let unspent = context.view.unspent(&args.script_hash(0)?)?;
    let entries = Json::list_of(&unspent, |out, output| {
        out.push_str("{\"tx_hash\":\"");
        push_txid(out, &output.txid);
        let (vout, height, value) = (output.vout, output.height, output.value.to_sat());
        let _ = write!(out, "\",\"tx_pos\":{vout},\"height\":{height},\"value\":{value}}}");
    });
    Ok(entries.into())
}

pub(super) fn subscribe(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = args.script_hash(0)?;
    let status = context.view.status(&script)?;
    context.subscriptions.subscribe_script(script, status);
    Ok(status_value(status).into())
}

pub(super) fn unsubscribe(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let was_subscribed = context.subscriptions.unsubscribe_script(&args.script_hash(0)?);
    Ok(Json::bool(was_subscribed).into())
}

pub(super) fn status_value(status: Option<crate::query::Status>) -> Json {
    status.map_or_else(Json::null, Json::hash)
}
