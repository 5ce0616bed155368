//! A program watched from outside: its processor time, its memory, its files, and what it tells wallets.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bitcoin::hashes::{Hash, sha256d};
use serde_json::{Value, json};

/// Linux counts processor time in these for programs, on all machines.
const TICKS_PER_SECOND: f64 = 100.0;
/// Electrum's error while the sync runs.
const SYNCING: i64 = 2;
/// A script that nothing pays to.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);

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
    memory_line(process, "VmHWM:")
}

/// The memory that a process has, in bytes; pages of files count.
pub fn memory(process: u32) -> anyhow::Result<u64> {
    memory_line(process, "VmRSS:")
}

/// What of it is not pages of files.
pub fn heap(process: u32) -> anyhow::Result<u64> {
    memory_line(process, "RssAnon:")
}

fn memory_line(process: u32, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
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

fn notice(mut line: Value) -> Option<Notice> {
    let method = line["method"].as_str()?.to_owned();
    Some(Notice { at: Instant::now(), method, parameters: line["params"].take() })
}

/// A line that nobody asked for.
#[derive(Debug)]
pub struct Notice {
    pub at: Instant,
    pub method: String,
    pub parameters: Value,
}

/// A wallet's connection.
#[derive(Debug)]
pub struct Wallet {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    next: u64,
    /// What of a line has come so far.
    line: Vec<u8>,
    /// Those that came before the answer to a call.
    notices: VecDeque<Notice>,
}

impl Wallet {
    pub fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = connect(to)?;
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        let mut wallet = Self { stream, reader, next: 0, line: Vec::new(), notices: VecDeque::new() };
        wallet.call("server.version", &json!(["bench", "1.4"]))?;
        Ok(wallet)
    }

    /// The whole answer, an error or a result; notifications that come before it are kept.
    pub fn call(&mut self, method: &str, parameters: &Value) -> anyhow::Result<Value> {
        let id = self.next;
        self.next += 1;
        let mut line =
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters}).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes())?;
        let until = Instant::now() + ANSWER;
        loop {
            let answer = self.line(until)?.context("the server does not answer")?;
            if answer["id"] == json!(id) {
                return Ok(answer);
            }
            self.notices.extend(notice(answer));
        }
    }

    /// The next notification; `None` if there is none until then.
    pub fn notice(&mut self, until: Instant) -> anyhow::Result<Option<Notice>> {
        if let Some(notice) = self.notices.pop_front() {
            return Ok(Some(notice));
        }
        while let Some(line) = self.line(until)? {
            if let Some(notice) = notice(line) {
                return Ok(Some(notice));
            }
        }
        Ok(None)
    }

    fn line(&mut self, until: Instant) -> anyhow::Result<Option<Value>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.last() != Some(&b'\n') => bail!("the server hung up"),
                Ok(_) => {
                    let value = serde_json::from_slice(&self.line);
                    self.line.clear();
                    return Ok(Some(value?));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
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
