//! The table: what each folder and file of `src/` may import, and what the store may.
//!
//! Kept like the one in `docs/architecture.md`; a new stage or crate is a new word here.

/// A row of the table.
pub struct Layer {
    /// The folder or file of `src/`.
    pub name: &'static str,
    /// Stages of ours.
    pub ours: &'static [&'static str],
    pub store: Store,
    /// Crates of others, beside `std` and `bitcoin`.
    pub others: &'static [&'static str],
    pub purity: Purity,
}

/// What of `chainstore` a layer may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Nothing,
    /// What `chainstore/src/types.rs` and `outline.rs` define: words for what is handed to it.
    Types,
    Everything,
}

/// Whether a layer may meet the world.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purity {
    /// No task, thread, lock, channel, file, socket, clock or log line.
    Pure,
    /// Files, but no task, socket, clock or log line.
    Disk,
    World,
}

const fn pure(
    name: &'static str,
    ours: &'static [&'static str],
    store: Store,
    others: &'static [&'static str],
) -> Layer {
    Layer { name, ours, store, others, purity: Purity::Pure }
}

const EVERYTHING: &[&str] = &[
    "config",
    "time",
    "scripts",
    "validate",
    "solver",
    "peer",
    "addresses",
    "headers",
    "blocks",
    "mempool",
    "relay",
    "query",
    "electrum",
    "node",
    "import",
    "care",
    "io",
];

/// In the order of the data. Errors, shared bytes, seeded randomness, hash tables and maps that share what
/// did not change are vocabulary.
pub const LAYERS: &[Layer] = &[
    pure("time", &[], Store::Nothing, &[]),
    pure("oldest", &[], Store::Nothing, &[]),
    pure("scripts", &["oldest"], Store::Nothing, &["bitcoinkernel", "thiserror"]),
    pure("validate", &["time", "scripts"], Store::Types, &["bytes", "thiserror"]),
    pure("solver", &[], Store::Nothing, &[]),
    pure(
        "peer",
        &["validate", "time"],
        Store::Nothing,
        &["bytes", "thiserror", "fastrand", "sha3", "data_encoding"],
    ),
    pure("addresses", &["peer", "time"], Store::Nothing, &["fastrand"]),
    pure("headers", &["peer", "validate", "time"], Store::Types, &["thiserror", "fastrand", "hashbrown"]),
    pure(
        "blocks",
        &["peer", "headers", "validate", "time"],
        Store::Types,
        &["bytes", "thiserror", "fastrand", "hashbrown"],
    ),
    pure(
        "mempool",
        &["time", "oldest", "scripts", "validate", "solver"],
        Store::Types,
        &["bytes", "thiserror", "fastrand", "hashbrown", "imbl"],
    ),
    pure(
        "relay",
        &["time", "peer", "mempool"],
        Store::Types,
        &["bytes", "thiserror", "fastrand", "hashbrown"],
    ),
    pure("query", &["mempool"], Store::Everything, &["bytes", "thiserror"]),
    pure(
        "electrum",
        &["query", "mempool", "solver", "time"],
        Store::Types,
        &["serde", "serde_json", "bytes", "thiserror", "fastrand", "regex"],
    ),
    pure(
        "node",
        &[
            "time",
            "oldest",
            "scripts",
            "validate",
            "peer",
            "addresses",
            "headers",
            "blocks",
            "mempool",
            "relay",
            "query",
            "electrum",
        ],
        Store::Everything,
        &["bytes", "thiserror", "fastrand"],
    ),
    pure(
        "import",
        &["time", "validate", "peer", "headers", "blocks", "node"],
        Store::Types,
        &["bytes", "fastrand"],
    ),
    Layer {
        name: "config",
        ours: &["validate", "mempool", "electrum"],
        store: Store::Types,
        others: &["clap", "serde", "toml", "anyhow", "thiserror", "tracing", "regex"],
        purity: Purity::World,
    },
    Layer {
        name: "care",
        ours: &["config", "validate"],
        store: Store::Everything,
        others: &["anyhow"],
        purity: Purity::World,
    },
    Layer { name: "io", ours: EVERYTHING, store: Store::Everything, others: &["*"], purity: Purity::World },
    Layer { name: "lib", ours: EVERYTHING, store: Store::Nothing, others: &[], purity: Purity::Pure },
    Layer { name: "main", ours: EVERYTHING, store: Store::Nothing, others: &["*"], purity: Purity::World },
];

pub const CHAINSTORE: Layer = Layer {
    name: "chainstore",
    ours: &[],
    store: Store::Everything,
    others: &["redb", "crc32c", "thiserror", "hashbrown", "rustix"],
    purity: Purity::Disk,
};

/// What the world is made of, as part of a path.
pub const WORLD: &[&str] = &[
    "async",
    "std::net",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "std::time::SystemTime",
    "tracing",
    "tokio",
    "println",
    "eprintln",
    "print",
    "eprint",
];
/// What also a disk is made of.
pub const DISK: &[&str] = &[
    "std::fs",
    "std::io",
    "std::thread",
    "thread::spawn",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::sync::atomic",
    "std::sync::OnceLock",
    "std::sync::LazyLock",
    "thread_local",
];
