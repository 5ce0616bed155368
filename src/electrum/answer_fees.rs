//! Fees and the mempool, as far as one can speak of them without a mempool.

use bitcoin::Amount;

use super::error::RpcError;
use super::json::Json;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;

/// Bitcoin Core's default for `minrelaytxfee` and `incrementalrelayfee` since 29.1, for 1,000 vB.
const CORE_MIN_RELAY_FEE: Amount = Amount::from_sat(100);

/// -1 means that there is no data, which is the truth until blocks and mempool are looked at for fees.
pub(super) fn estimate(_: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    args.integer(0)?;
    Ok(Json::integer(-1).into())
}

pub(super) fn estimate_with_mode(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    let is_mode =
        |mode: &str| ["CONSERVATIVE", "ECONOMICAL"].iter().any(|name| mode.eq_ignore_ascii_case(name));
    match args.text(1) {
        None if args.json(1) == "null" => estimate(context, args),
        Some(mode) if is_mode(&mode) => estimate(context, args),
        _ => Err(RpcError::bad_request(format!("unknown estimatefee mode: {}", args.shown(1))).into()),
    }
}

pub(super) fn relay_fee(_: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::btc(CORE_MIN_RELAY_FEE).into())
}

pub(super) fn histogram(_: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::list([]).into())
}

pub(super) fn recent(_: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::list([]).into())
}

/// What an empty mempool of Bitcoin Core says of itself.
pub(super) fn mempool_info(_: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let fields = ["mempoolminfee", "minrelaytxfee", "incrementalrelayfee"];
    Ok(Json::object(fields.map(|field| (field, Json::btc(CORE_MIN_RELAY_FEE)))).into())
}
