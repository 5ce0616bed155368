//! How the benches start the program that they watch.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A start on regtest with one peer.
#[derive(Clone, Debug)]
pub struct Program {
    pub program: PathBuf,
    pub data: PathBuf,
    pub peer: SocketAddr,
    pub service: SocketAddr,
    /// `--memory`, in MB.
    pub memory: Option<u64>,
    /// The most private writable memory that the system gives it, in bytes: heap and stacks, used or only reserved,
    /// but no pages of files. More is refused, and then it ends.
    pub limit: Option<u64>,
    /// Where its lines are appended; nowhere if not given.
    pub log: Option<PathBuf>,
    /// Further arguments.
    pub extra: Vec<String>,
}

impl Program {
    /// Without its standard output and error.
    pub fn command(&self) -> Command {
        let mut command = match self.limit {
            Some(limit) => {
                // Sets the limit, and becomes the program.
                let mut command = Command::new("prlimit");
                command.arg(format!("--data={limit}")).arg("--core=0").arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(["--network", "regtest", "--min-chain-work", "0"]);
        command.args(["--connect", &self.peer.to_string()]).arg("--data-dir").arg(&self.data);
        command.args(["--service", &format!("tcp://{}", self.service)]);
        // What is measured is the server, not its patience.
        command.args(["--exempt-address", "127.0.0.0/8"]);
        if let Some(memory) = self.memory {
            command.args(["--memory", &memory.to_string()]);
        }
        command.args(&self.extra);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PEERDEX_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn start(&self) -> anyhow::Result<Child> {
        let mut command = self.command();
        match &self.log {
            Some(path) => {
                let log = File::options().create(true).append(true).open(path)?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        command.spawn().with_context(|| self.program.display().to_string())
    }
}

/// The last lines of a log.
pub fn last_words(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
