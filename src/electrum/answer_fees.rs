//! Fees, and the mempool as a whole.

use std::fmt::Write as _;

use bitcoin::Amount;

use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;
use crate::mempool::{FeeRate, Mode};

/// Bitcoin per 1,000 virtual bytes, as Core writes feerates.
fn btc(rate: FeeRate) -> Json {
    Json::btc(Amount::from_sat(rate.0))
}

/// -1 means that there is no data.
fn answer(context: &Context<'_>, args: &Args<'_>, mode: Mode) -> Result<Reply, Failure> {
    let estimate = context.view.fees().estimate(args.integer(0)?, mode);
    Ok(estimate.map_or_else(|| Json::integer(-1), btc).into())
}

/// Without a mode, Core answers economically.
pub(super) fn estimate(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    answer(context, args, Mode::Economical)
}

pub(super) fn estimate_with_mode(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    match args.text(1) {
        None if args.json(1) == "null" => answer(context, args, Mode::Economical),
        Some(mode) if mode.eq_ignore_ascii_case("ECONOMICAL") => answer(context, args, Mode::Economical),
        Some(mode) if mode.eq_ignore_ascii_case("CONSERVATIVE") => answer(context, args, Mode::Conservative),
        _ => Err(RpcError::bad_request(format!("unknown estimatefee mode: {}", args.shown(1))).into()),
    }
}

pub(super) fn relay_fee(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(btc(context.view.fees().relay).into())
}

/// Feerates in satoshi per virtual byte, strictly descending, each with the virtual bytes that pay so much, or more than
/// the next.
pub(super) fn histogram(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let bins = &context.view.fees().histogram;
    Ok(Json::list_of(bins, |out, bin| {
        // Writing to a string does not fail.
        let _ = write!(out, "[{bin},{}]", bin.vsize);
    })
    .into())
}

pub(super) fn recent(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let entries = context.view.recent().map(|entry| {
        Json::object([
            ("txid", Json::hash(entry.txid)),
            ("fee", Json::integer(entry.fee.to_sat())),
            ("vsize", Json::integer(entry.vsize)),
        ])
    });
    Ok(Json::list(entries).into())
}

pub(super) fn mempool_info(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let fees = context.view.fees();
    Ok(Json::object([
        ("mempoolminfee", btc(fees.min.max(fees.relay))),
        ("minrelaytxfee", btc(fees.relay)),
        ("incrementalrelayfee", btc(fees.incremental)),
    ])
    .into())
}
