//! Debian's Electrum, a real wallet, as a daemon without a display.
//!
//! Without it a test says loudly that it did nothing, unless `PEERDEX_REQUIRE_ELECTRUM` is set.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::wait_for;

/// Whether this machine has it; says so loudly when not.
pub fn is_installed() -> bool {
    let found = Command::new("electrum")
        .args(["--offline", "version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        let what = "no electrum: `apt-get install --no-install-recommends electrum` installs one";
        assert!(std::env::var_os("PEERDEX_REQUIRE_ELECTRUM").is_none(), "{what}");
        super::skipped(what);
    }
    found
}

/// A wallet with a new seed; its daemon is stopped when dropped.
pub struct Wallet {
    folder: TempDir,
}

impl Wallet {
    /// Creates a wallet on regtest that has not met a server; `None` without Electrum.
    pub fn create() -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let wallet = Self { folder: TempDir::new().expect("a temporary folder") };
        wallet.offline(&["create"]);
        Some(wallet)
    }

    /// Its first receiving addresses.
    pub fn addresses(&self) -> Vec<String> {
        let list = self.offline(&["listaddresses", "--receiving"]);
        list.as_array().expect("a list").iter().map(super::node::text).collect()
    }

    /// Starts its daemon with `server`, over plain TCP, as the only one it may talk to.
    pub fn connect(&self, server: SocketAddr) {
        self.connect_by(server, 't');
    }

    /// The same over TLS; it remembers the certificate that it sees first.
    pub fn connect_by_ssl(&self, server: SocketAddr) {
        self.connect_by(server, 's');
    }

    /// The certificate that it remembers for a server on this machine, PEM.
    pub fn remembered_certificate(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join("regtest/certs/127.0.0.1")).ok()
    }

    fn connect_by(&self, server: SocketAddr, protocol: char) {
        self.offline(&["setconfig", "auto_connect", "false"]);
        self.offline(&["setconfig", "oneserver", "true"]);
        self.offline(&["setconfig", "server", &format!("{server}:{protocol}")]);
        self.run(&["daemon", "-d"]).unwrap_or_else(|error| panic!("electrum daemon: {error}"));
        self.ask(&["load_wallet"]);
    }

    /// Asks the daemon; JSON when the answer is some, else a text.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        self.try_ask(arguments).unwrap_or_else(|error| panic!("electrum {arguments:?}: {error}"))
    }

    /// The same; an error is what it printed.
    pub fn try_ask(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.run(arguments)?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks until the answer is as wanted.
    pub fn wait_for(&self, arguments: &[&str], limit: Duration, is_right: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let what = format!("the right answer to electrum {arguments:?}");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&what, limit, || {
                last = self.ask(arguments);
                is_right(&last).then(|| last.clone())
            })
        }));
        outcome.unwrap_or_else(|_| panic!("{what} did not come within {limit:?}; the last was {last}"))
    }

    fn offline(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = ["--offline"].iter().chain(arguments).copied().collect();
        self.ask(&arguments)
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        // Into files, not pipes: the daemon that `daemon -d` leaves behind would keep a pipe open.
        let said = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a temporary file");
        let failed = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a temporary file");
        let status = Command::new("electrum")
            .args(["--regtest", "-D"])
            .arg(self.folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(said.reopen().expect("it was just made"))
            .stderr(failed.reopen().expect("it was just made"))
            .status()
            .expect("electrum was found before");
        let read = |file: &tempfile::NamedTempFile| std::fs::read_to_string(file.path()).unwrap_or_default();
        match status.success() {
            true => Ok(read(&said).trim().to_string()),
            false => Err(format!("{status}: {}{}", read(&said), read(&failed))),
        }
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        let _ = self.run(&["stop"]);
    }
}
