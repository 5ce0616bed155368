//! One connection with several requests in flight, as cheap as can be.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::question::Question;
use crate::sync::watch::connect;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Room for what comes; grows for longer lines.
const ROOM: usize = 1 << 18;
/// Where a line's id is looked for: so far from its start, or from its end.
const NEAR: usize = 64;

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    id: u64,
    /// Place of the question, as the caller counts.
    pub question: usize,
    pub at: Instant,
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What came: lines begin at `start`, there is no newline before `searched`, bytes end at `end`.
    input: Vec<u8>,
    start: usize,
    searched: usize,
    end: usize,
    output: Vec<u8>,
    asked: VecDeque<Asked>,
    next: u64,
}

impl Connection {
    pub fn open(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = connect(server).with_context(|| format!("{server} does not listen"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let mut connection = Self {
            stream,
            input: vec![0; ROOM],
            start: 0,
            searched: 0,
            end: 0,
            output: Vec::new(),
            asked: VecDeque::new(),
            next: 1,
        };
        let hello =
            b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"server.version\",\"params\":[\"bench\",\"1.4\"]}\n";
        connection.output.extend_from_slice(hello);
        connection.asked.push_back(Asked { id: 0, question: 0, at: Instant::now() });
        connection.send()?;
        let mut refused = None;
        while connection.in_flight() > 0 {
            connection.receive(|_, line, _| {
                refused = (!is_result(line)).then(|| String::from_utf8_lossy(line).into_owned());
            })?;
        }
        match refused {
            Some(refusal) => bail!("server.version: {refusal}"),
            None => Ok(connection),
        }
    }

    pub fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// Puts a request into the next `send`.
    pub fn ask(&mut self, place: usize, question: &Question, now: Instant) {
        question.write(self.next, &mut self.output);
        self.asked.push_back(Asked { id: self.next, question: place, at: now });
        self.next += 1;
    }

    pub fn send(&mut self) -> std::io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Reads once, and gives each answer that is whole then, and when it was.
    pub fn receive(&mut self, mut each: impl FnMut(Asked, &[u8], Instant)) -> anyhow::Result<()> {
        if self.start == self.end {
            (self.start, self.searched, self.end) = (0, 0, 0);
        } else if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                self.searched -= self.start;
                self.end -= self.start;
                self.start = 0;
            } else {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        match self.stream.read(&mut self.input[self.end..]).context("no answer")? {
            0 => bail!("the server hung up"),
            read => self.end += read,
        }
        let now = Instant::now();
        while self.searched < self.end {
            // The standard library's fastest search for a byte.
            let mut rest = &self.input[self.searched..self.end];
            self.searched += rest.skip_until(b'\n')?;
            if self.input[self.searched - 1] != b'\n' {
                break;
            }
            let line = &self.input[self.start..self.searched - 1];
            self.start = self.searched;
            let Some(id) = id(line) else {
                let text = || String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                let message: Value = serde_json::from_slice(line).with_context(text)?;
                if message.get("method").is_none() {
                    bail!("an answer without an id: {}", text());
                }
                continue;
            };
            let place = self.asked.iter().position(|asked| asked.id == id);
            let asked = place.and_then(|place| self.asked.remove(place));
            each(asked.with_context(|| format!("an answer to {id}, which is not in flight"))?, line, now);
        }
        Ok(())
    }
}

/// The id of an answer, wherever servers write it.
pub fn id(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"id\":";
    let near = |part: std::ops::Range<usize>| -> Option<u64> {
        let place = line[part.clone()].windows(KEY.len()).position(|bytes| bytes == KEY)?;
        let digits = line[part.start + place + KEY.len()..].trim_ascii_start();
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
    };
    near(0..line.len().min(NEAR)).or_else(|| near(line.len().saturating_sub(NEAR)..line.len()))
}

/// Whether an answer seems to be a result; errors do not, nor what hides its result well.
pub fn is_result(line: &[u8]) -> bool {
    const KEY: &[u8] = b"\"result\":";
    line[..line.len().min(NEAR)].windows(KEY.len()).any(|bytes| bytes == KEY)
}
