//! `blockchain.scripthash.*`: what a script received and spent.
//!
//! Scripts are asked for by their hash, so two scripts of one key (P2PK and P2PKH) are two questions.

use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;

pub(super) fn balance(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let confirmed = context.view.balance(&args.script_hash(0)?)?;
    let fields = [("confirmed", Json::integer(confirmed.to_sat())), ("unconfirmed", Json::integer(0))];
    Ok(Json::object(fields).into())
}

pub(super) fn history(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let history = context.view.history(&args.script_hash(0)?)?;
    let entries = history.iter().map(|entry| {
        Json::object([("height", Json::integer(entry.height.0)), ("tx_hash", Json::hash(entry.txid))])
    });
    Ok(Json::list(entries).into())
}

pub(super) fn mempool(_: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    args.script_hash(0)?;
    Ok(Json::list([]).into())
}

pub(super) fn unspent(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let unspent = context.view.unspent(&args.script_hash(0)?)?;
    let entries = unspent.iter().map(|output| {
        Json::object([
            ("tx_hash", Json::hash(output.txid)),
            ("tx_pos", Json::integer(output.vout)),
            ("height", Json::integer(output.height.0)),
            ("value", Json::integer(output.value.to_sat())),
        ])
    });
    Ok(Json::list(entries).into())
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
