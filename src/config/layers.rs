//! Where settings are written: arguments over environment over file, each value with its origin. `settings` has
//! their names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{FromArgMatches as _, Subcommand as _};

use super::ConfigError;
use super::settings::{self, Kind, SETTINGS};

const ENV_PREFIX: &str = "PEERDEX_";

/// The command line without its settings.
fn command_line() -> clap::Command {
    let command = clap::Command::new("peerdex")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The Electrum server that needs no Bitcoin node: it fetches and checks the chain from Bitcoin peers.")
        .max_term_width(100)
        .after_help(
            "Every setting can also stand in the environment (PEERDEX_DATA_DIR for --data-dir; lists separated by \
             commas) or in the file (data-dir = \"...\"). Arguments beat the environment, the environment beats the \
             file.",
        )
        .arg(
            clap::Arg::new("config")
                .long("config")
                .global(true)
                .value_name("FILE")
                .help("Read settings from this TOML file"),
        );
    Subcommand::augment_subcommands(settings::arguments(command))
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
    /// Ask a running server that has an rpc service: getinfo, sessions, groups, disconnect, log, stop
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
        let arguments = match command_line().try_get_matches_from(args) {
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
        let command = Subcommand::from_arg_matches(&arguments).ok();
        let mut layers = Self::default();
        let environment = Self::from_env(env)?;
        let file = arguments
            .get_one::<String>("config")
            .map(|path| (path.clone(), "--config"))
            .or_else(|| environment.config.as_ref().map(|path| (path.clone(), "PEERDEX_CONFIG")));
        if let Some((path, origin)) = file {
            let text = read_file(Path::new(&path))
                .map_err(|error| ConfigError(format!("{origin}: cannot read '{path}': {error}")))?;
            layers.overlay(Self::from_file(&path, &text)?);
        }
        layers.overlay(environment.layers);
        layers.overlay(Self::from_arguments(&arguments));
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

    fn from_arguments(arguments: &clap::ArgMatches) -> Self {
        let mut layer = Self::default();
        for setting in SETTINGS {
            let values: Vec<String> = match setting.kind {
                Kind::Flag | Kind::Hidden => {
                    arguments.get_flag(setting.name).then(|| "true".to_string()).into_iter().collect()
                }
                Kind::One | Kind::List => {
                    arguments.get_many(setting.name).into_iter().flatten().cloned().collect()
                }
            };
            // `--connect a,b` means the same as in the environment.
            let values = if setting.kind == Kind::List { split(values) } else { values };
            if !values.is_empty() {
                let origin = format!("--{}", setting.name);
                let given = values.into_iter().map(|value| Given { value, origin: origin.clone() });
                layer.0.insert(setting.name, given.collect());
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
            let setting =
                settings::known().find(|setting| env_name(setting.name) == key).ok_or_else(|| {
                    let known: Vec<String> =
                        settings::known().map(|setting| env_name(setting.name)).collect();
                    ConfigError(format!(
                        "{key}: unknown setting; known are PEERDEX_CONFIG, {}",
                        known.join(", ")
                    ))
                })?;
            let values = if setting.kind == Kind::List { split(vec![value]) } else { vec![value] };
            let given = values.into_iter().map(|value| Given { value, origin: key.to_string() });
            found.layers.0.insert(setting.name, given.collect());
        }
        Ok(found)
    }

    fn from_file(path: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError(format!("{path}: {}", error.to_string().trim_end()))
        })?;
        let mut layer = Self::default();
        for (key, value) in table {
            let setting = settings::find(&key).ok_or_else(|| {
                let known: Vec<&str> = settings::known().map(|setting| setting.name).collect();
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
                toml::Value::Array(values) if setting.kind == Kind::List => {
                    values.into_iter().map(one).collect::<Result<_, _>>()?
                }
                value => vec![one(value)?],
            };
            layer.0.insert(setting.name, given);
        }
        Ok(layer)
    }
}

struct Environment {
    layers: Layers,
    config: Option<String>,
}

fn env_name(name: &str) -> String {
    format!("{ENV_PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn split(values: Vec<String>) -> Vec<String> {
    let parts = values.iter().flat_map(|value| value.split(','));
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect()
}
