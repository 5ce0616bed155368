//! What a script received and spent, asked for by its hash, by itself, or by an address.
//!
//! Two scripts of one key (P2PK and P2PKH) are two questions. The three families of methods differ in how the script
//! is named and how lists are wrapped, and in nothing else.
//! Source: electrum-protocol, `blockchain.scripthash.*`, `blockchain.scriptpubkey.*`, `blockchain.address.*`.

use std::fmt::Write as _;

use bitcoin::{Amount, Txid};
use chainstore::ScriptHash;

use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;
use super::subscriptions::Subscriptions;
use crate::query::{Status, TooLong, UnconfirmedEntry, push_txid};

/// How a family of methods names a script, and how it answers.
pub(super) trait Family {
    /// Names of the member that a list is wrapped in: of histories and of unspent outputs.
    const WRAPS: Option<[&'static str; 2]>;

    fn script(context: &Context<'_>, args: &Args<'_>) -> Result<ScriptHash, RpcError>;

    fn subscribe(context: &mut Context<'_>, args: &Args<'_>, script: ScriptHash, status: Option<Status>) {
        let _ = args;
        context.subscriptions.subscribe_script(script, status);
    }

    fn is_subscribed(subscriptions: &Subscriptions, script: &ScriptHash) -> bool {
        subscriptions.has_script(script)
    }

    fn unsubscribe(subscriptions: &mut Subscriptions, script: &ScriptHash) -> bool {
        subscriptions.unsubscribe_script(script)
    }
}

/// `blockchain.scripthash.*`
pub(super) enum ByHash {}
/// `blockchain.scriptpubkey.*`
pub(super) enum ByScript {}
/// `blockchain.address.*`
pub(super) enum ByAddress {}

impl Family for ByHash {
    const WRAPS: Option<[&'static str; 2]> = None;

    fn script(_: &Context<'_>, args: &Args<'_>) -> Result<ScriptHash, RpcError> {
        args.script_hash(0)
    }
}

impl Family for ByScript {
    const WRAPS: Option<[&'static str; 2]> = Some(["history", "utxos"]);

    fn script(_: &Context<'_>, args: &Args<'_>) -> Result<ScriptHash, RpcError> {
        Ok(ScriptHash::of(bitcoin::Script::from_bytes(&args.hex(0)?)))
    }
}

impl Family for ByAddress {
    const WRAPS: Option<[&'static str; 2]> = None;

    fn script(context: &Context<'_>, args: &Args<'_>) -> Result<ScriptHash, RpcError> {
        Ok(ScriptHash::of(&args.address(0, context.server.network)?.script_pubkey()))
    }

    fn subscribe(context: &mut Context<'_>, args: &Args<'_>, script: ScriptHash, status: Option<Status>) {
        context.subscriptions.subscribe_address(script, &args.text(0).unwrap_or_default(), status);
    }

    fn is_subscribed(subscriptions: &Subscriptions, script: &ScriptHash) -> bool {
        subscriptions.has_address(script)
    }

    fn unsubscribe(subscriptions: &mut Subscriptions, script: &ScriptHash) -> bool {
        subscriptions.unsubscribe_address(script)
    }
}

fn wrapped<F: Family>(list: Json, at: usize) -> Reply {
    match F::WRAPS {
        Some(names) => Json::object([(names[at], list)]).into(),
        None => list.into(),
    }
}

pub(super) fn balance<F: Family>(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = F::script(context, args)?;
    let (confirmed, outputs) = context.view.balance(&script)?;
    let unconfirmed = context.view.unconfirmed_balance(&script);
    context.count(outputs + context.view.unconfirmed_count(&script));
    let fields = [
        ("confirmed", Json::integer(confirmed.to_sat())),
        ("unconfirmed", Json::integer(unconfirmed.to_sat())),
    ];
    Ok(Json::object(fields).into())
}

pub(super) fn history<F: Family>(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = F::script(context, args)?;
    let limit = context.server.limits.history_entries();
    let unconfirmed = context.view.unconfirmed(&script);
    let room = limit.checked_sub(unconfirmed.len()).ok_or_else(|| too_long(context, limit))?;
    let history = context.view.history_within(&script, room)?.map_err(|TooLong| too_long(context, limit))?;
    context.count(history.len() + unconfirmed.len());
    let mut entries = Json::list_of(&history, |out, entry| {
        // Writing to a string does not fail.
        let _ = write!(out, "{{\"height\":{},\"tx_hash\":\"", entry.height);
        push_txid(out, &entry.txid);
        out.push_str("\"}");
    });
    if !unconfirmed.is_empty() {
        entries = entries.and(unconfirmed_list(&unconfirmed));
    }
    Ok(wrapped::<F>(entries, 0))
}

pub(super) fn mempool<F: Family>(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = F::script(context, args)?;
    let limit = context.server.limits.history_entries();
    let unconfirmed = context.view.unconfirmed(&script);
    if unconfirmed.len() > limit {
        return Err(too_long(context, limit).into());
    }
    context.count(unconfirmed.len());
    Ok(wrapped::<F>(unconfirmed_list(&unconfirmed), 0))
}

fn unconfirmed_list(entries: &[UnconfirmedEntry]) -> Json {
    Json::list_of(entries, |out, entry| {
        out.push_str("{\"tx_hash\":\"");
        push_txid(out, &entry.txid);
        let _ = write!(out, "\",\"height\":{},\"fee\":{}}}", entry.height.number(), entry.fee.to_sat());
    })
}

pub(super) fn unspent<F: Family>(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = F::script(context, args)?;
    let unspent = context.view.unspent(&script)?;
    let unconfirmed = context.view.unconfirmed_unspent(&script);
    context.count(unspent.len() + unconfirmed.len());
    let mut entries = Json::list_of(&unspent, |out, output| {
        let (vout, height, value) = (output.vout, output.height.0, output.value);
        push_unspent(out, &output.txid, vout, height, value);
    });
    if !unconfirmed.is_empty() {
        entries = entries.and(Json::list_of(&unconfirmed, |out, output| {
            push_unspent(out, &output.outpoint.txid, output.outpoint.vout, 0, output.value);
        }));
    }
    Ok(wrapped::<F>(entries, 1))
}

fn push_unspent(out: &mut String, txid: &Txid, vout: u32, height: u32, value: Amount) {
    out.push_str("{\"tx_hash\":\"");
    push_txid(out, txid);
    let value = value.to_sat();
    let _ = write!(out, "\",\"tx_pos\":{vout},\"height\":{height},\"value\":{value}}}");
}

pub(super) fn subscribe<F: Family>(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = F::script(context, args)?;
    if !F::is_subscribed(context.subscriptions, &script) {
        context.ensure_room_to_subscribe()?;
    }
    let limit = context.server.limits.history_entries();
    match context.status(&script)? {
        Ok(status) => {
            F::subscribe(context, args, script, status);
            Ok(status_value(status).into())
        }
        Err(TooLong) => {
            // What was told of it before can no longer be kept up.
            F::unsubscribe(context.subscriptions, &script);
            Err(too_long(context, limit).into())
        }
    }
}

pub(super) fn unsubscribe<F: Family>(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let script = F::script(context, args)?;
    Ok(Json::bool(F::unsubscribe(context.subscriptions, &script)).into())
}

/// Electrum matches the words. Never an empty list instead, which would look like an empty wallet.
fn too_long(context: &mut Context<'_>, limit: usize) -> RpcError {
    context.count(limit);
    RpcError::history_too_large()
}

pub(super) fn status_value(status: Option<Status>) -> Json {
    status.map_or_else(Json::null, |status| Json::hex(status.as_ref()))
}
