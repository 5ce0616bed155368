//! Where settings are written: arguments over environment over file, each value with its origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::ConfigError;

/// What may be set in the environment and in the file, and whether it is a list.
const SETTINGS: [(&str, Kind); 13] = [
    ("network", Kind::One),
    ("connect", Kind::List),
    ("min-chain-work", Kind::One),
    ("data-dir", Kind::One),
    ("service", Kind::List),
    ("report-service", Kind::List),
    ("ssl-certfile", Kind::One),
    ("ssl-keyfile", Kind::One),
    ("proxy-protocol-from", Kind::List),
    ("max-sessions", Kind::One),
    ("memory", Kind::One),
    ("ignore-disk-space", Kind::One),
    ("log", Kind::One),
];

const ENV_PREFIX: &str = "PEERDEX_";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    List,
}

/// The Electrum server that needs no Bitcoin node: it fetches and checks the chain from Bitcoin peers.
#[derive(Debug, Parser)]
#[command(
    name = "peerdex",
    version,
    max_term_width = 100,
    after_help = "\
Every setting can also stand in the environment (PEERDEX_DATA_DIR for --data-dir; lists separated by \
commas) or in the file (data-dir = \"...\"). Arguments beat the environment, the environment beats the file."
)]
struct Arguments {
    /// mainnet, testnet3, testnet4, signet or regtest [default: mainnet]
    #[arg(long, global = true, value_name = "NETWORK")]
    network: Option<String>,
    /// A Bitcoin peer to stay connected to; repeat for more
    #[arg(long, global = true, value_name = "HOST:PORT")]
    connect: Vec<String>,
    /// Trust no chain of less work than this [default: what the network had at this release]
    #[arg(long, global = true, value_name = "HEX")]
    min_chain_work: Option<String>,
    /// The folder of blocks and index [default: ~/.local/share/peerdex/NETWORK]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Serve here: tcp, ssl, ws and wss for wallets, rpc for you; repeat for more. Without HOST on all
    /// addresses (rpc: localhost), without PORT on the network's
    /// [default: tcp://127.0.0.1:50001; testnets 60001, regtest 60401]
    #[arg(long, global = true, value_name = "tcp://HOST:PORT")]
    service: Vec<String>,
    /// Tell others that this server can be reached here; repeat for more
    #[arg(long, global = true, value_name = "ssl://NAME:PORT")]
    report_service: Vec<String>,
    /// The certificate for ssl and wss, PEM [default: a self-signed one, made once in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    ssl_certfile: Option<String>,
    /// The certificate's private key, PEM
    #[arg(long, global = true, value_name = "FILE")]
    ssl_keyfile: Option<String>,
    /// Connections from here begin with a PROXY header (version 1 or 2); repeat for more
    #[arg(long, global = true, value_name = "ADDR[/BITS]")]
    proxy_protocol_from: Vec<String>,
    /// At so many sessions no more are accepted [default: 1000]
    #[arg(long, global = true, value_name = "NUMBER")]
    max_sessions: Option<String>,
    /// Megabytes of memory to aim at, 256 at least [default: 1024]
    #[arg(long, global = true, value_name = "MB")]
    memory: Option<String>,
    /// Start although the disk cannot hold the whole chain
    #[arg(long, global = true)]
    ignore_disk_space: bool,
    /// Read settings from this TOML file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// For tests, on regtest only: the store's limits are so low that a chain of some megabytes meets them often
    #[arg(long, hide = true, global = true)]
    miniature: bool,
    #[command(subcommand)]
    command: Option<Subcommand>,
}

/// What to do instead of just running the server.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run the server, as without a command
    Run,
    /// Take the blocks of a Bitcoin Core's files first, then run the server
    ///
    /// The node must not be running meanwhile.
    Import {
        /// A data folder of Bitcoin Core, its blocks folder, blk*.dat files or a bootstrap.dat
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// End when the files are imported; no peer is needed then
        #[arg(long)]
        stop_after_import: bool,
    },
    /// Say what the data folder holds and takes, and what it will take
    Info,
    /// Compare everything in the data folder with its blocks, and say whether it is sound
    Check,
    /// Ask a running server that has an rpc service: getinfo, sessions, disconnect ID..., stop
    Rpc {
        /// What to ask
        #[arg(value_name = "METHOD")]
        method: String,
        #[arg(value_name = "ARG")]
        args: Vec<String>,
        /// Where it answers [default: the rpc service of the settings, else localhost:8000]
        #[arg(long, value_name = "ADDR")]
        rpc: Option<String>,
    },
}

/// One value and where it stood.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub value: String,
    /// `--network`, `PEERDEX_NETWORK`, or `peerdex.toml: network`.
    pub origin: String,
}

/// For each setting the values of the strongest source that has any.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<&'static str, Vec<Given>>);

pub(super) enum Collected {
    Layers(Layers, Option<Subcommand>),
    /// Help or version.
    Print(String),
}

impl Layers {
    pub fn collect(
        args: impl IntoIterator<Item = OsString>,
        env: &[(OsString, OsString)],
        read_file: impl Fn(&Path) -> std::io::Result<String>,
    ) -> Result<Collected, ConfigError> {
        use clap::error::ErrorKind;
        let mut arguments = match Arguments::try_parse_from(args) {
            Ok(arguments) => arguments,
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                return Ok(Collected::Print(error.to_string()));
            }
            Err(error) => {
                let text = error.to_string();
                return Err(ConfigError(
                    text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_string(),
                ));
            }
        };
        let command = arguments.command.take();
        let mut layers = Self::default();
        let environment = Self::from_env(env)?;
        let file = arguments
            .config
            .as_ref()
            .map(|path| (path.clone(), "--config"))
            .or_else(|| environment.config.as_ref().map(|path| (path.clone(), "PEERDEX_CONFIG")));
        if let Some((path, origin)) = file {
            let text = read_file(Path::new(&path))
                .map_err(|error| ConfigError(format!("{origin}: cannot read '{path}': {error}")))?;
            layers.overlay(Self::from_file(&path, &text)?);
        }
        layers.overlay(environment.layers);
        layers.overlay(Self::from_arguments(arguments));
        Ok(Collected::Layers(layers, command))
    }

    /// The one value of a setting that is no list.
    pub fn one(&self, name: &str) -> Option<&Given> {
        self.0.get(name).and_then(|given| given.last())
    }

    /// The values of a list.
    pub fn all(&self, name: &str) -> &[Given] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn overlay(&mut self, stronger: Self) {
        self.0.extend(stronger.0);
    }

    fn from_arguments(arguments: Arguments) -> Self {
        let one = |value: Option<String>| value.into_iter().collect::<Vec<_>>();
        let flag = |given: bool| one(given.then(|| "true".to_string()));
        let given: [(&'static str, Vec<String>); 14] = [
            ("network", one(arguments.network)),
            ("connect", arguments.connect),
            ("min-chain-work", one(arguments.min_chain_work)),
            ("data-dir", one(arguments.data_dir)),
            ("service", arguments.service),
            ("report-service", arguments.report_service),
            ("ssl-certfile", one(arguments.ssl_certfile)),
            ("ssl-keyfile", one(arguments.ssl_keyfile)),
            ("proxy-protocol-from", arguments.proxy_protocol_from),
            ("max-sessions", one(arguments.max_sessions)),
            ("memory", one(arguments.memory)),
            ("ignore-disk-space", flag(arguments.ignore_disk_space)),
            ("log", one(arguments.log)),
            ("miniature", flag(arguments.miniature)),
        ];
        let mut layer = Self::default();
        for (name, values) in given {
            // `--connect a,b` means the same as in the environment.
            let values = if kind(name) == Some(Kind::List) { split(values) } else { values };
            if !values.is_empty() {
                let origin = format!("--{name}");
                let given = values.into_iter().map(|value| Given { value, origin: origin.clone() });
                layer.0.insert(name, given.collect());
            }
        }
        layer
    }

    fn from_env(env: &[(OsString, OsString)]) -> Result<Environment, ConfigError> {
        let mut found = Environment { layers: Self::default(), config: None };
        for (key, value) in env {
            let Some(key) = key.to_str().filter(|key| key.starts_with(ENV_PREFIX)) else { continue };
            let value = value
                .to_str()
                .ok_or_else(|| ConfigError(format!("{key}: its value is not UTF-8")))?
                .to_string();
            if key == "PEERDEX_CONFIG" {
                found.config = Some(value);
                continue;
            }
            let (name, kind) =
                SETTINGS.into_iter().find(|(name, _)| env_name(name) == key).ok_or_else(|| {
                    let known: Vec<String> = SETTINGS.iter().map(|(name, _)| env_name(name)).collect();
                    ConfigError(format!(
                        "{key}: unknown setting; known are PEERDEX_CONFIG, {}",
                        known.join(", ")
                    ))
                })?;
            let values = if kind == Kind::List { split(vec![value]) } else { vec![value] };
            let given = values.into_iter().map(|value| Given { value, origin: key.to_string() });
            found.layers.0.insert(name, given.collect());
        }
        Ok(found)
    }

    fn from_file(path: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError(format!("{path}: {}", error.to_string().trim_end()))
        })?;
        let mut layer = Self::default();
        for (key, value) in table {
            let (name, kind) = SETTINGS.into_iter().find(|(name, _)| *name == key).ok_or_else(|| {
                let known: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
                ConfigError(format!("{path}: {key}: unknown setting; known are {}", known.join(", ")))
            })?;
            let origin = format!("{path}: {key}");
            let one = |value: toml::Value| match value {
                toml::Value::String(value) => Ok(Given { value, origin: origin.clone() }),
                // `memory = 512` and `ignore-disk-space = true` need no quotes.
                toml::Value::Boolean(value) => Ok(Given { value: value.to_string(), origin: origin.clone() }),
                toml::Value::Integer(value) => Ok(Given { value: value.to_string(), origin: origin.clone() }),
                other => Err(ConfigError(format!(
                    "{origin}: a value of type {} is no text in quotes",
                    other.type_str()
                ))),
            };
            let given = match value {
                toml::Value::Array(values) if kind == Kind::List => {
                    values.into_iter().map(one).collect::<Result<_, _>>()?
                }
                value => vec![one(value)?],
            };
            layer.0.insert(name, given);
        }
        Ok(layer)
    }
}

struct Environment {
    layers: Layers,
    config: Option<String>,
}

fn kind(name: &str) -> Option<Kind> {
    SETTINGS.iter().find(|(candidate, _)| *candidate == name).map(|(_, kind)| *kind)
}

fn env_name(name: &str) -> String {
    format!("{ENV_PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn split(values: Vec<String>) -> Vec<String> {
    let parts = values.iter().flat_map(|value| value.split(','));
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect()
}
