//! Every setting there is: its name, how it is written, and what `--help` says of it.
//!
//! One table makes the arguments, the variables of the environment and the keys of the file.

use clap::{Arg, ArgAction, Command};

/// How many values a setting has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    One,
    List,
    /// Given or not; in the environment and the file true or false.
    Flag,
    /// As a flag, but known to the command line alone, and not shown.
    Hidden,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    value_name: &'static str,
    help: &'static str,
    heading: Heading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heading {
    Options,
    Serving,
    Limits,
}

const fn one(name: &'static str, value_name: &'static str, help: &'static str) -> Setting {
    Setting { name, kind: Kind::One, value_name, help, heading: Heading::Options }
}

const fn list(name: &'static str, value_name: &'static str, help: &'static str) -> Setting {
    Setting { kind: Kind::List, ..one(name, value_name, help) }
}

const fn flag(name: &'static str, help: &'static str) -> Setting {
    Setting { kind: Kind::Flag, ..one(name, "", help) }
}

const fn serving(setting: Setting) -> Setting {
    Setting { heading: Heading::Serving, ..setting }
}

const fn limit(setting: Setting) -> Setting {
    Setting { heading: Heading::Limits, ..setting }
}

pub(super) static SETTINGS: &[Setting] = &[
    one("network", "NETWORK", "mainnet, testnet3, testnet4, signet or regtest [default: mainnet]"),
    list("connect", "HOST:PORT", "A Bitcoin peer to stay connected to; repeat for more"),
    list(
        "trust",
        "HOST:PORT",
        "The same for a node of your own, over a way that nobody else can meddle with: what it takes into its \
         mempool is good, and your wallets' transactions are shown to it first",
    ),
    one(
        "proxy",
        "HOST:PORT",
        "Reach peers through this SOCKS5 proxy, which also looks up their names; for Tor 127.0.0.1:9050",
    ),
    one(
        "private-broadcast",
        "BOOL",
        "Hand wallets' transactions to strangers, each over connections of its own through Tor [default: true with \
         --proxy]",
    ),
    one(
        "min-chain-work",
        "HEX",
        "Trust no chain of less work than this [default: what the network had at this release]",
    ),
    one(
        "assume-valid",
        "HASH",
        "Take the scripts of this block and all before it as good once two weeks of work lie above them; 0 to \
         verify all [default: what Bitcoin Core assumed at this release]",
    ),
    flag("full-verify", "Verify all scripts, as --assume-valid 0"),
    one("signet-challenge", "HEX", "The script that the blocks of your own signet solve"),
    flag("unverified-scripts", "Start though this program was built without the verifier of scripts"),
    one("data-dir", "DIR", "The folder of blocks and index [default: ~/.local/share/peerdex/NETWORK]"),
    one("memory", "MB", "Megabytes of memory to aim at, 256 at least [default: 1024]"),
    one("max-mempool", "MB", "Megabytes of unconfirmed transactions, 5 at least [default: 300]"),
    one("mempool-expiry", "HOURS", "How long a transaction may stay unconfirmed [default: 336]"),
    flag("ignore-disk-space", "Start although the disk cannot hold the whole chain"),
    one("log", "LEVEL", "error, warn, info, debug or trace [default: info]"),
    serving(list(
        "service",
        "tcp://HOST:PORT",
        "Serve here: tcp, ssl, ws and wss for wallets, rpc for you; repeat for more. Without HOST on all \
         addresses (rpc: localhost), without PORT on the network's [default: tcp://127.0.0.1:50001; testnets \
         60001, regtest 60401]",
    )),
    serving(list(
        "report-service",
        "ssl://NAME:PORT",
        "Tell others that this server can be reached here; repeat for more",
    )),
    serving(one(
        "ssl-certfile",
        "FILE",
        "The certificate for ssl and wss, PEM [default: a self-signed one, made once in the data folder]",
    )),
    serving(one("ssl-keyfile", "FILE", "The certificate's private key, PEM")),
    serving(list(
        "proxy-protocol-from",
        "ADDR[/BITS]",
        "Connections from here begin with a PROXY header (version 1 or 2); repeat for more",
    )),
    serving(one("donation-address", "ADDRESS", "Where users may thank you")),
    serving(flag("padding", "Fill up what is sent to a few sizes, so that lengths tell less")),
    limit(one("max-sessions", "NUMBER", "At so many sessions no more are accepted [default: 1000]")),
    limit(one("max-subnet-sessions", "NUMBER", "Sessions of one subnet; 0 is any number [default: 0]")),
    limit(one("max-subs", "NUMBER", "Subscriptions of all sessions together [default: 10000000]")),
    limit(one("max-session-subs", "NUMBER", "Subscriptions of one session [default: 100000]")),
    limit(one(
        "max-send",
        "BYTES",
        "Longest answer; a history has (BYTES - 100) / 99 entries at most [default: 8100000]",
    )),
    limit(one("max-recv", "BYTES", "Longest request [default: 1000000]")),
    limit(one("max-batch", "NUMBER", "Requests of a batch that are answered [default: 1000]")),
    limit(one("cost-soft-limit", "COST", "Above this cost of a subnet its requests wait [default: 1000]")),
    limit(one(
        "cost-hard-limit",
        "COST",
        "Above this cost of a subnet its sessions are closed; 0 is never [default: 10000]",
    )),
    limit(one("request-sleep", "MS", "What a request waits next to the hard limit [default: 2500]")),
    limit(one("initial-concurrent", "NUMBER", "Requests of a session that share such a wait [default: 10]")),
    limit(one("bandwidth-unit-cost", "BYTES", "Bytes that cost 1 [default: 5000]")),
    limit(one("session-group-by-subnet-ipv4", "BITS", "Leading bits that make a subnet [default: 24]")),
    limit(one("session-group-by-subnet-ipv6", "BITS", "The same for IPv6 [default: 48]")),
    limit(one("request-timeout", "SECONDS", "How long a request may wait for others [default: 30]")),
    limit(one("session-timeout", "SECONDS", "How long a session may say nothing [default: 600]")),
    limit(one("drop-client", "REGEX", "Serve no client whose name matches")),
    limit(list(
        "exempt-address",
        "ADDR[/BITS]",
        "No limit of cost holds for wallets from here; repeat for more",
    )),
    limit(list(
        "exempt-token",
        "TOKEN",
        "Nor for those whose requests have the member \"authorization\": \"Bearer TOKEN\"; repeat for more",
    )),
    Setting {
        kind: Kind::Hidden,
        ..flag("relay-as-knots", "For tests: relay what Bitcoin Knots with -corepolicy relays")
    },
    Setting {
        kind: Kind::Hidden,
        ..flag(
            "miniature",
            "For tests, on regtest only: the store's limits are so low that a chain of some megabytes meets them often",
        )
    },
];

/// The setting of that name, where it may stand in the environment and in the file.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    known().find(|setting| setting.name == name)
}

/// What may stand in the environment and in the file.
pub(super) fn known() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.kind != Kind::Hidden)
}

/// Gives a command line all settings.
pub(super) fn arguments(command: Command) -> Command {
    SETTINGS.iter().fold(command, |command, setting| {
        let arg = Arg::new(setting.name).long(setting.name).global(true).help(setting.help);
        let arg = match setting.heading {
            Heading::Options => arg,
            Heading::Serving => arg.help_heading("Serving wallets"),
            Heading::Limits => arg.help_heading("Limits"),
        };
        command.arg(match setting.kind {
            Kind::One => arg.value_name(setting.value_name),
            Kind::List => arg.value_name(setting.value_name).action(ArgAction::Append),
            Kind::Flag => arg.action(ArgAction::SetTrue),
            Kind::Hidden => arg.action(ArgAction::SetTrue).hide(true),
        })
    })
}
