//! How each value is written: networks, addresses, numbers, folders. Services have a file of their own.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use bitcoin::{BlockHash, Network, ScriptBuf, Work};

const NETWORKS: [Network; 5] =
    [Network::Bitcoin, Network::Testnet, Network::Testnet4, Network::Signet, Network::Regtest];

const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// A host, by name or number, and a port. It is resolved where it is dialled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// An IPv6 address stands here without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

pub(super) fn network(text: &str) -> Result<Network, String> {
    choose(text, NETWORKS.iter().map(|network| (chainstore::network_name(*network), *network)))
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, String> {
    choose(text, LOG_LEVELS.into_iter())
}

fn choose<T>(text: &str, choices: impl Iterator<Item = (&'static str, T)> + Clone) -> Result<T, String> {
    let names: Vec<&str> = choices.clone().map(|(name, _)| name).collect();
    choices
        .into_iter()
        .find_map(|(name, value)| (name == text).then_some(value))
        .ok_or_else(|| format!("is none of {}", names.join(", ")))
}

pub(super) fn work(text: &str) -> Result<Work, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("is no chain work: give 1 to 64 hex digits, for example 0".into());
    }
    Work::from_unprefixed_hex(&format!("{digits:0>64}")).map_err(|error| format!("is no chain work: {error}"))
}

/// A block hash; `None` for 0.
pub(super) fn assume_valid(text: &str) -> Result<Option<BlockHash>, String> {
    if text == "0" {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| "is no block hash: give 64 hex digits, or 0 to verify all scripts".into())
}

pub(super) fn script(text: &str) -> Result<ScriptBuf, String> {
    match ScriptBuf::from_hex(text) {
        Ok(script) if !script.is_empty() => Ok(script),
        Ok(_) | Err(_) => Err("is no script: give it in hex".into()),
    }
}

/// What initial sync may take without asking.
pub(super) const DEFAULT_MEMORY_MB: u32 = 1024;
/// The least that is worth trying, and the most that anybody has.
const MEMORY_MB: std::ops::RangeInclusive<u32> = 256..=1_000_000;

pub(super) fn memory_mb(text: &str) -> Result<u32, String> {
    let memory = text.parse().ok().filter(|memory| MEMORY_MB.contains(memory));
    memory.ok_or_else(|| "is no number of megabytes, 256 or more".into())
}

/// ElectrumX's default.
pub(super) const DEFAULT_MAX_SESSIONS: usize = 1000;

pub(super) fn max_sessions(text: &str) -> Result<usize, String> {
    let sessions = text.parse().ok().filter(|sessions| (1..=1_000_000).contains(sessions));
    sessions.ok_or_else(|| "is no number of sessions from 1 to 1000000".into())
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty: give a file".into()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is neither true nor false".into())
}

pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty: give a folder".into()) } else { Ok(PathBuf::from(text)) }
}

/// `HOST:PORT`, `[IPV6]:PORT`, or a host alone with the network's port.
pub(super) fn host_port(text: &str, default_port: u16) -> Result<HostPort, String> {
    let wrong = || format!("is no peer: give HOST:PORT, for example 127.0.0.1:{default_port}");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(wrong());
            }
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_is_sane = !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'));
    let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| wrong()))?;
    if host_is_sane && port != 0 { Ok(HostPort { host: host.into(), port }) } else { Err(wrong()) }
}

/// Where Tor listens for programs that want to use it.
const TOR_PORT: u16 = 9050;

/// The same for a SOCKS5 proxy.
pub(super) fn proxy(text: &str) -> Result<HostPort, String> {
    host_port(text, TOR_PORT)
        .map_err(|_| format!("is no proxy: give HOST:PORT, for example 127.0.0.1:{TOR_PORT}"))
}

/// `$XDG_DATA_HOME/peerdex/<network>`, else `~/.local/share/peerdex/<network>`.
pub(super) fn default_data_dir(network: Network, env: &[(OsString, OsString)]) -> Result<PathBuf, String> {
    let variable = |name: &str| {
        let value = env.iter().find(|(key, _)| key == name).map(|(_, value)| PathBuf::from(value));
        // The XDG specification: a relative path is to be ignored.
        value.filter(|path| path.is_absolute())
    };
    let base = variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .ok_or("no home folder is known: give a folder with --data-dir DIR")?;
    Ok(base.join("peerdex").join(chainstore::network_name(network)))
}
