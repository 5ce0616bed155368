//! Settings from the command line, the environment and a file, in that order of precedence.
//!
//! Every setting has one name: `--data-dir` as an argument, `PEERDEX_DATA_DIR` in the environment, `data-dir`
//! in the file. What is unknown or cannot be read is an error that names itself, says where it stood and what
//! is allowed. Nothing is read here: arguments, environment and the file's reader are given.

mod layers;
mod limits;
mod mempool;
mod services;
mod settings;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bitcoin::{BlockHash, Network, ScriptBuf, Work};

use crate::electrum::Subnet;
use crate::electrum::transport::Transport;
use crate::mempool::Policy;
use crate::validate::Params;
use layers::{Given, Layers, Subcommand};
pub use limits::Wallets;
pub use services::{CertificateFiles, Interface, Place, Reported, Service, Services};
pub use values::{HostPort, LogLevel};

/// All settings, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub network: Network,
    /// Bitcoin peers to keep connected; empty only where the command needs none.
    pub connect: Vec<HostPort>,
    /// Those of them that are the operator's own.
    pub trust: Vec<HostPort>,
    /// A SOCKS5 proxy for all connections to peers.
    pub proxy: Option<HostPort>,
    /// Hand wallets' transactions to strangers over connections of their own, through the proxy.
    pub private_broadcast: bool,
    pub policy: Policy,
    /// Overrides the network's minimum chain work.
    pub min_chain_work: Option<Work>,
    /// Overrides the network's block whose chain has known scripts; the inner `None`: all are verified.
    pub assume_valid: Option<Option<BlockHash>>,
    /// A signet of one's own.
    pub signet_challenge: Option<ScriptBuf>,
    /// Start though this program cannot verify scripts.
    pub unverified_scripts: bool,
    /// The folder itself, not its parent.
    pub data_dir: PathBuf,
    pub services: Services,
    pub wallets: Wallets,
    /// Memory to aim at, in megabytes.
    pub memory_mb: u32,
    /// Start although the disk cannot hold what comes.
    pub ignore_disk_space: bool,
    pub log: LogLevel,
    /// The store's limits are a few thousandths of what they are, for tests that must meet them often.
    pub miniature: bool,
}

/// A data folder, for the commands that look at one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    pub network: Network,
    /// The folder itself, not its parent.
    pub data_dir: PathBuf,
    /// Memory to aim at, in megabytes.
    pub memory_mb: u32,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Run the server.
    Run(Box<Config>),
    /// Take the blocks of Bitcoin Core's files, then run the server.
    Import(Box<Config>, Import),
    /// Say what a data folder holds and takes.
    Info(Folder),
    /// Say whether a data folder is sound.
    Check(Folder),
    /// Ask a running server.
    Rpc(RpcCall),
    /// Print this text and exit with success: help or version.
    Print(String),
}

/// What `peerdex import` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Data folders, `blocks` folders and single files; never empty.
    pub paths: Vec<PathBuf>,
    /// End after that.
    pub stop_after: bool,
}

/// What `peerdex rpc` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcCall {
    /// Where the server answers its operator.
    pub service: Service,
    pub method: String,
    pub args: Vec<String>,
}

/// A setting that cannot be used; the text says which, where it stood and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Reads all settings.
///
/// `args` begin with the program's name, `env` is the whole environment, `read_file` reads the file that
/// `--config` names.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl Fn(&Path) -> std::io::Result<String>,
) -> Result<Command, ConfigError> {
    let env: Vec<(OsString, OsString)> = env.into_iter().collect();
    match Layers::collect(args, &env, read_file)? {
        layers::Collected::Print(text) => Ok(Command::Print(text)),
        layers::Collected::Layers(layers, None | Some(Subcommand::Run)) => {
            Ok(Command::Run(Box::new(resolve(&layers, &env, Peers::Needed)?)))
        }
        layers::Collected::Layers(layers, Some(Subcommand::Import { paths, stop_after_import })) => {
            let peers = if stop_after_import { Peers::NotNeeded } else { Peers::Needed };
            let config = Box::new(resolve(&layers, &env, peers)?);
            Ok(Command::Import(config, Import { paths, stop_after: stop_after_import }))
        }
        layers::Collected::Layers(layers, Some(Subcommand::Info)) => {
            Ok(Command::Info(folder(&layers, &env)?))
        }
        layers::Collected::Layers(layers, Some(Subcommand::Check)) => {
            Ok(Command::Check(folder(&layers, &env)?))
        }
        layers::Collected::Layers(layers, Some(Subcommand::Rpc { method, args, rpc })) => {
            Ok(Command::Rpc(RpcCall { service: rpc_service(&layers, rpc)?, method, args }))
        }
    }
}

/// Whether a command does anything without a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peers {
    Needed,
    NotNeeded,
}

fn resolve(layers: &Layers, env: &[(OsString, OsString)], peers: Peers) -> Result<Config, ConfigError> {
    let Folder { network, data_dir, memory_mb } = folder(layers, env)?;
    let default_port = Params::of(network).default_port;
    let peers_of = |name| {
        let given = layers.all(name).iter();
        let parsed = given.map(|given| given.parse(|text| values::host_port(text, default_port)));
        parsed.collect::<Result<Vec<_>, _>>()
    };
    let trust = peers_of("trust")?;
    let mut connect = peers_of("connect")?;
    for own in &trust {
        if !connect.contains(own) {
            connect.push(own.clone());
        }
    }
    if connect.is_empty() && peers == Peers::Needed {
        return Err(ConfigError(format!(
            "no Bitcoin peer to connect to: give at least one with --connect HOST:PORT, \
             for example --connect 127.0.0.1:{default_port} for a node on this machine"
        )));
    }
    let (proxy, private_broadcast) = proxy(layers)?;
    let min_chain_work = layers.one("min-chain-work").map(|given| given.parse(values::work)).transpose()?;
    let assume_valid =
        layers.one("assume-valid").map(|given| given.parse(values::assume_valid)).transpose()?;
    let full_verify = flag(layers, "full-verify")?;
    if full_verify && assume_valid.is_some() {
        return Err(ConfigError("--full-verify: is --assume-valid 0: give one of the two".into()));
    }
    let signet_challenge = signet_challenge(layers, network)?;
    let services = services(layers, network)?;
    let ignore_disk_space = flag(layers, "ignore-disk-space")?;
    let log = layers.one("log").map_or(Ok(LogLevel::Info), |given| given.parse(values::log_level))?;
    let miniature = layers.one("miniature").is_some();
    if miniature && network != Network::Regtest {
        return Err(ConfigError("--miniature: is for tests on regtest".into()));
    }
    Ok(Config {
        network,
        connect,
        trust,
        proxy,
        private_broadcast,
        policy: mempool::policy(layers)?,
        min_chain_work,
        assume_valid: if full_verify { Some(None) } else { assume_valid },
        signet_challenge,
        unverified_scripts: flag(layers, "unverified-scripts")?,
        data_dir,
        services,
        wallets: limits::wallets(layers)?,
        memory_mb,
        ignore_disk_space,
        log,
        miniature,
    })
}

impl Config {
    /// The network's rules, with what the settings change of them.
    pub fn params(&self) -> Params {
        let params = match &self.signet_challenge {
            Some(challenge) => Params::custom_signet(challenge.clone()),
            None => Params::of(self.network),
        };
        Params {
            min_chain_work: self.min_chain_work.unwrap_or(params.min_chain_work),
            assume_valid: self.assume_valid.unwrap_or(params.assume_valid),
            ..params
        }
    }
}

fn flag(layers: &Layers, name: &str) -> Result<bool, ConfigError> {
    layers.one(name).map_or(Ok(false), |given| given.parse(values::yes_or_no))
}

/// The proxy, and whether wallets' transactions go over connections of their own: they do where there is a proxy, unless
/// the operator says no.
fn proxy(layers: &Layers) -> Result<(Option<HostPort>, bool), ConfigError> {
    let given = layers.one("proxy");
    let proxy = given.map(|given| given.parse(values::proxy)).transpose()?;
    let Some(wish) = layers.one("private-broadcast") else { return Ok((proxy.clone(), proxy.is_some())) };
    match wish.parse(values::yes_or_no)? {
        true if proxy.is_none() => Err(wish.refuse("needs a proxy: give --proxy HOST:PORT too")),
        is_private => Ok((proxy, is_private)),
    }
}

fn signet_challenge(layers: &Layers, network: Network) -> Result<Option<ScriptBuf>, ConfigError> {
    let Some(given) = layers.one("signet-challenge") else { return Ok(None) };
    let challenge = given.parse(values::script)?;
    if network != Network::Signet {
        return Err(given.refuse("is for signet: give --network signet too"));
    }
    Ok(Some(challenge))
}

fn services(layers: &Layers, network: Network) -> Result<Services, ConfigError> {
    let mut listen: Vec<Service> = Vec::new();
    for given in layers.all("service") {
        let service = given.parse(|text| services::service(text, network))?;
        if listen.iter().any(|other| other.at == service.at) {
            return Err(given.refuse("has the address of another service: give each its own port"));
        }
        listen.push(service);
    }
    if listen.is_empty() {
        listen.push(Service::default_for(network));
    }
    let mut report: Vec<Reported> = Vec::new();
    for given in layers.all("report-service") {
        let reported = given.parse(|text| services::reported(text, network))?;
        if report.iter().any(|other| (&other.host, other.transport) == (&reported.host, reported.transport)) {
            return Err(given.refuse("names host and protocol of another: report one port for each"));
        }
        report.push(reported);
    }
    let certificates = layers.one("ssl-certfile").map(|given| given.parse(values::file)).transpose()?;
    let key = layers.one("ssl-keyfile").map(|given| given.parse(values::file)).transpose()?;
    let certificate = match (certificates, key) {
        (Some(certificates), Some(key)) => Some(CertificateFiles { certificates, key }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(ConfigError("--ssl-certfile: needs its key: give --ssl-keyfile too".into()));
        }
        (None, Some(_)) => {
            return Err(ConfigError("--ssl-keyfile: needs its certificate: give --ssl-certfile too".into()));
        }
    };
    let proxies = layers.all("proxy-protocol-from").iter().map(|given| given.parse(str::parse::<Subnet>));
    let proxies = proxies.collect::<Result<_, _>>()?;
    let max_sessions = layers
        .one("max-sessions")
        .map_or(Ok(values::DEFAULT_MAX_SESSIONS), |given| given.parse(values::max_sessions))?;
    Ok(Services { listen, report, certificate, proxies, max_sessions })
}

/// Where `--rpc` says, else where the settings serve it, else where it is by default.
fn rpc_service(layers: &Layers, rpc: Option<String>) -> Result<Service, ConfigError> {
    let network = network(layers)?;
    if let Some(value) = rpc {
        return Given { value, origin: "--rpc".into() }.parse(|text| services::rpc(text, network));
    }
    let listen = services(layers, network)?.listen.into_iter();
    let mut served = listen.filter(|service| service.transport == Transport::Rpc);
    Ok(served.next().unwrap_or_else(Service::default_rpc))
}

fn network(layers: &Layers) -> Result<Network, ConfigError> {
    layers.one("network").map_or(Ok(Network::Bitcoin), |given| given.parse(values::network))
}

/// What all commands need.
fn folder(layers: &Layers, env: &[(OsString, OsString)]) -> Result<Folder, ConfigError> {
    let network = network(layers)?;
    let data_dir = match (layers.one("data-dir"), signet_challenge(layers, network)?) {
        (Some(given), _) => given.parse(values::folder)?,
        (None, challenge) => {
            let folder = values::default_data_dir(network, env).map_err(ConfigError)?;
            match challenge {
                // Each signet has a folder of its own.
                Some(challenge) => folder.with_file_name(format!(
                    "signet-{}",
                    Params::custom_signet(challenge).magic.map(|byte| format!("{byte:02x}")).concat()
                )),
                None => folder,
            }
        }
    };
    let memory_mb =
        layers.one("memory").map_or(Ok(values::DEFAULT_MEMORY_MB), |given| given.parse(values::memory_mb))?;
    Ok(Folder { network, data_dir, memory_mb })
}

impl Given {
    /// Reads the value, or says which setting it was for, where it stood and what is allowed.
    fn parse<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        read(&self.value).map_err(|why| self.refuse(&why))
    }

    fn refuse(&self, why: &str) -> ConfigError {
        ConfigError(format!("{}: '{}' {why}", self.origin, self.value))
    }
}

#[cfg(test)]
mod tests;
