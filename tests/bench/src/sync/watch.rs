//! A program watched from outside: its processor time, its memory, its files, and what it tells wallets.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bitcoin::hashes::{Hash, sha256d};
use serde_json::{Value, json};

/// Linux counts processor time in these for programs, on all machines.
const TICKS_PER_SECOND: f64 = 100.0;
/// Electrum's error while the sync runs.
const SYNCING: i64 = 2;
/// A script that nothing pays to.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Processor seconds of a process, and whether it has ended without being waited for.
pub fn cpu(process: u32) -> anyhow::Result<(f64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before may hold spaces.
    let (_, fields) = text.rsplit_once(") ").context("/proc has no such line")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks =
        |place: usize| -> anyhow::Result<f64> { Ok(fields.get(place).context("short line")?.parse()?) };
    Ok(((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND, fields[0] == "Z"))
}

/// The most memory that a process had so far, in bytes.
pub fn peak_memory(process: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Bytes on disk as `du` counts them, by name; all below `blocks` are one.
pub fn disk_usage(folder: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path();
            let name = path.strip_prefix(folder)?;
            let name = if name.starts_with("blocks") { Path::new("blocks") } else { name };
            *sizes.entry(name.display().to_string()).or_default() += metadata.blocks() * 512;
        }
    }
    Ok(sizes)
}

/// An address on loopback that nobody listened on a moment ago.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Connects to a program on this machine.
// The server's dialer is not ours to use: we are the other side.
#[expect(clippy::disallowed_methods, reason = "a bench connects to what it started")]
pub fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(5))
}

/// A wallet's connection.
#[derive(Debug)]
pub struct Wallet {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    next: u64,
}

impl Wallet {
    pub fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut wallet = Self { stream, reader, next: 0 };
        wallet.call("server.version", &json!(["bench", "1.4"]))?;
        Ok(wallet)
    }

    /// The whole answer, an error or a result; notifications are passed over.
    pub fn call(&mut self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        let id = self.next;
        self.next += 1;
        let mut line =
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes())?;
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                bail!("the server hung up");
            }
            let answer: Value = serde_json::from_str(&line)?;
            if answer["id"] == json!(id) {
                return Ok(answer);
            }
        }
    }

    /// Hash of the served tip, as people see it; `None` while histories are not served.
    pub fn synced_tip(&mut self) -> anyhow::Result<Option<String>> {
        let answer = self.call("blockchain.scripthash.get_history", &json!([NO_SCRIPT]))?;
        match answer["error"]["code"].as_i64() {
            None => {}
            Some(SYNCING) => return Ok(None),
            Some(_) => bail!("{answer}"),
        }
        let answer = self.call("blockchain.headers.subscribe", &json!([]))?;
        let header = answer["result"]["hex"].as_str().with_context(|| answer.to_string())?;
        let digits: Vec<u8> = header.bytes().collect();
        let header: Result<Vec<u8>, _> =
            digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16)).collect();
        Ok(Some(sha256d::Hash::hash(&header?).to_string()))
    }
}
