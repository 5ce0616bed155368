//! `server.*`: who we are, and which protocol is spoken.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::query::SyncState;

use super::error::RpcError;
use super::json::Json;
use super::jsonrpc::text_of;
use super::methods::{Failure, Reply};
use super::params::Args;
use super::session::Context;
use super::version::ProtocolVersion;

pub(super) fn version(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    // Until 1.3 it served as a ping.
    if context.client.negotiated().is_some_and(|version| version >= ProtocolVersion::V1_4) {
        return Err(RpcError::bad_request("server.version already sent").into());
    }
    let Some(version) = negotiate(args.json(1)) else {
        let error = format!("unsupported protocol version: {}", args.shown(1));
        return Ok(Reply::Last(RpcError::bad_request(error)));
    };
    let name = args.text(0).unwrap_or_default();
    if context.server.drop_client.as_ref().is_some_and(|pattern| pattern.is_match(&name)) {
        let error = format!("unsupported client: {}", args.shown(0));
        return Ok(Reply::Last(RpcError::bad_request(error)));
    }
    context.client.introduce(&name, version);
    let software = Json::text(&context.server.software);
    if version == ProtocolVersion::V1_0 {
        return Ok(software.into());
    }
    Ok(Json::list([software, Json::text(&version.to_string())]).into())
}

/// Reads one version, or the lowest and the highest; `null` is as if nothing had been said.
fn negotiate(json: &str) -> Option<ProtocolVersion> {
    if json == "null" {
        return Some(ProtocolVersion::UNSAID);
    }
    if let Some(only) = text_of(json) {
        return ProtocolVersion::negotiate(&only, &only);
    }
    let [min, max]: [String; 2] = serde_json::from_str(json).ok()?;
    ProtocolVersion::negotiate(&min, &max)
}

/// 1.7 is named only to those who speak it: others take it for a server that they do not know.
pub(super) fn features(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let is_newest = context.client.version() == ProtocolVersion::V1_7;
    let max = if is_newest { ProtocolVersion::V1_7 } else { ProtocolVersion::V1_6 };
    let ports = |ports: &BTreeMap<String, u16>| {
        Json::object(ports.iter().map(|(name, port)| (name.as_str(), Json::integer(*port))))
    };
    let hosts = context.server.hosts.iter().map(|(host, named)| (host.as_str(), ports(named)));
    let mut fields = vec![
        ("genesis_hash", Json::hash(context.server.genesis_hash)),
        ("hosts", Json::object(hosts)),
        ("protocol_max", Json::text(&max.to_string())),
        ("protocol_min", Json::text(&ProtocolVersion::MIN.to_string())),
        ("pruning", Json::null()),
        ("server_version", Json::text(&context.server.software)),
    ];
    if !is_newest {
        fields.push(("hash_function", Json::text("sha256")));
    }
    Ok(Json::object(fields).into())
}

pub(super) fn banner(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    let mut banner = context.server.banner.clone();
    if let SyncState::Syncing { percent, left } = context.view.sync() {
        banner.push('\n');
        banner.push_str(&syncing(percent, left));
    }
    Ok(Json::text(&banner).into())
}

/// An empty string for none, not `null`: Electrum takes nothing but text.
pub(super) fn donation_address(context: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::text(&context.server.donation_address).into())
}

pub(super) fn ping(_: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::null().into())
}

/// As long an answer as is asked for, so that who listens cannot tell questions apart by their length.
pub(super) fn padded_ping(context: &mut Context<'_>, args: &Args<'_>) -> Result<Reply, Failure> {
    args.hex_noise(1)?;
    let zeros = usize::try_from(args.integer(0)?)
        .ok()
        .filter(|zeros| *zeros <= context.server.limits.message_bytes())
        .ok_or_else(|| RpcError::bad_request("pong_len value too high"))?;
    Ok(Json::object([("data", Json::text(&"0".repeat(zeros)))]).into())
}

pub(super) fn peers(_: &mut Context<'_>, _: &Args<'_>) -> Result<Reply, Failure> {
    Ok(Json::list([]).into())
}

/// How far the sync is, in words: `server is syncing: 61 %, about 3 h left`.
pub(super) fn syncing(percent: u8, left: Option<Duration>) -> String {
    let Some(left) = left else { return format!("server is syncing: {percent} %") };
    let secs = left.as_secs();
    // The largest unit of which there are two at least, so that rounding never misleads by half.
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let (size, unit) = units.into_iter().find(|(size, _)| secs >= 2 * size).unwrap_or((1, "s"));
    format!("server is syncing: {percent} %, about {} {unit} left", (secs + size / 2) / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_in_words() {
        let said = |secs| syncing(61, Some(Duration::from_secs(secs)));
        assert_eq!(said(3 * 3_600 + 600), "server is syncing: 61 %, about 3 h left");
        assert_eq!(said(0), "server is syncing: 61 %, about 0 s left");
        assert_eq!(said(119), "server is syncing: 61 %, about 119 s left");
        assert_eq!(said(7_199), "server is syncing: 61 %, about 120 min left");
        assert_eq!(said(60 * 3_600), "server is syncing: 61 %, about 3 d left");
        assert_eq!(syncing(0, None), "server is syncing: 0 %");
        assert!(said(u64::MAX / 2).contains(" d left"));
    }
}
