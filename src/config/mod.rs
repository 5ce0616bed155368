//! Settings from the command line, the environment and a file, in that order of precedence.
//!
//! Every setting has one name: `--data-dir` as an argument, `PEERDEX_DATA_DIR` in the environment, `data-dir`
//! in the file. What is unknown or cannot be read is an error that names itself, says where it stood and what
//! is allowed. Nothing is read here: arguments, environment and the file's reader are given.

mod layers;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bitcoin::{Network, Work};

use layers::{Given, Layers, Subcommand};
pub use values::{HostPort, LogLevel, Service};

/// All settings, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub network: Network,
    /// Bitcoin peers to keep connected; empty only where the command needs none.
    pub connect: Vec<HostPort>,
    /// Overrides the network's minimum chain work.
    pub min_chain_work: Option<Work>,
    /// The folder itself, not its parent.
    pub data_dir: PathBuf,
    pub services: Vec<Service>,
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
    let default_port = crate::validate::Params::of(network).default_port;
    let connect = layers
        .all("connect")
        .iter()
        .map(|given| given.parse(|text| values::host_port(text, default_port)))
        .collect::<Result<Vec<_>, _>>()?;
    if connect.is_empty() && peers == Peers::Needed {
        return Err(ConfigError(format!(
            "no Bitcoin peer to connect to: give at least one with --connect HOST:PORT, \
             for example --connect 127.0.0.1:{default_port} for a node on this machine"
        )));
    }
    let min_chain_work = layers.one("min-chain-work").map(|given| given.parse(values::work)).transpose()?;
    let mut services = layers
        .all("service")
        .iter()
        .map(|given| given.parse(values::service))
        .collect::<Result<Vec<_>, _>>()?;
    if services.is_empty() {
        services.push(Service::default_for(network));
    }
    let ignore_disk_space =
        layers.one("ignore-disk-space").map_or(Ok(false), |given| given.parse(values::yes_or_no))?;
    let log = layers.one("log").map_or(Ok(LogLevel::Info), |given| given.parse(values::log_level))?;
    let miniature = layers.one("miniature").is_some();
    if miniature && network != Network::Regtest {
        return Err(ConfigError("--miniature: is for tests on regtest".into()));
    }
    Ok(Config {
        network,
        connect,
        min_chain_work,
        data_dir,
        services,
        memory_mb,
        ignore_disk_space,
        log,
        miniature,
    })
}

/// What all commands need.
fn folder(layers: &Layers, env: &[(OsString, OsString)]) -> Result<Folder, ConfigError> {
    let network = layers.one("network").map_or(Ok(Network::Bitcoin), |given| given.parse(values::network))?;
    let data_dir = match layers.one("data-dir") {
        Some(given) => given.parse(values::folder)?,
        None => values::default_data_dir(network, env).map_err(ConfigError)?,
    };
    let memory_mb =
        layers.one("memory").map_or(Ok(values::DEFAULT_MEMORY_MB), |given| given.parse(values::memory_mb))?;
    Ok(Folder { network, data_dir, memory_mb })
}

impl Given {
    /// Reads the value, or says which setting it was for, where it stood and what is allowed.
    fn parse<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        read(&self.value).map_err(|why| ConfigError(format!("{}: '{}' {why}", self.origin, self.value)))
    }
}

#[cfg(test)]
mod tests;
