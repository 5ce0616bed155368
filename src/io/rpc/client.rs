//! `peerdex rpc`: asks a running server, and prints what it says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use crate::config::{Place, RpcCall};

/// Longest wait for a connection, and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer is longer: a million sessions, 300 bytes each.
const MAX_ANSWER_BYTES: u64 = 300_000_000;

/// Asks, prints the answer as JSON.
pub fn call(call: &RpcCall) -> anyhow::Result<()> {
    let request = json!({"jsonrpc": "2.0", "id": 0, "method": call.method, "params": call.args});
    let nobody = || format!("nobody answers at {}: is peerdex running, with --service {0}?", call.service);
    let answer = match &call.service.at {
        Place::Tcp(interface, port) => {
            let addresses = interface.addresses_to_dial().into_iter().map(|ip| SocketAddr::new(ip, *port));
            let stream = dial(addresses).with_context(nobody)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(stream, &request)?
        }
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).with_context(nobody)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask(stream, &request)?
        }
    };
    if let Some(error) = answer.get("error") {
        bail!("{}", error["message"].as_str().unwrap_or("an error without words"));
    }
    let result = answer.get("result").unwrap_or(&Value::Null);
    let text = serde_json::to_string_pretty(result)?;
    // Whoever cuts our output short (`| head`) has read enough.
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "to our own server, at an address of this machine; nothing is resolved"
)]
fn dial(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(mut stream: impl Read + Write, request: &Value) -> anyhow::Result<Value> {
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut line).context("no answer")?;
    if !line.ends_with('\n') {
        return Err(anyhow!("the server closed the connection before it answered"));
    }
    serde_json::from_str(&line).context("the answer is no JSON")
}
