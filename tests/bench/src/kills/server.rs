//! The program as a child whose log lines tell what it is doing.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::sync::program::{Program, last_words};

/// What the program is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Until it has opened its store, which is when it recovers from a crash.
    Opening,
    /// The store is open, and what comes next is not known yet.
    Started,
    Bulk,
    /// The index is being written.
    BulkEnd,
    /// The newest blocks after a bulk, one by one.
    CatchingUp,
    Tip,
    Merging,
    /// Disconnecting and connecting, after all blocks of the branch have come.
    Switching,
}

/// What a line means.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Begins(Phase),
    /// Back to the phase before this one, if it is at this one.
    Ends(Phase),
}

const TURNS: [(&str, Turn); 10] = [
    ("store opened", Turn::Begins(Phase::Started)),
    ("indexing in bulk", Turn::Begins(Phase::Bulk)),
    ("writing the index", Turn::Begins(Phase::BulkEnd)),
    ("the index is written", Turn::Begins(Phase::CatchingUp)),
    ("wallets are served", Turn::Begins(Phase::Tip)),
    ("merging old deltas", Turn::Begins(Phase::Merging)),
    ("merged", Turn::Ends(Phase::Merging)),
    ("going over to another branch", Turn::Begins(Phase::Switching)),
    (" reorg ", Turn::Ends(Phase::Switching)),
    ("tip changed", Turn::Ends(Phase::Switching)),
];

/// Where it stands, by the lines that it wrote.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub phase: Phase,
    before: Phase,
    /// Since when.
    pub since: Instant,
}

impl Seen {
    pub fn new(now: Instant) -> Self {
        Self { phase: Phase::Opening, before: Phase::Opening, since: now }
    }

    pub fn line(&mut self, line: &str, at: Instant) {
        let Some((_, turn)) = TURNS.iter().find(|(text, _)| line.contains(text)) else { return };
        let passing = matches!(self.phase, Phase::Merging | Phase::Switching);
        let phase = match *turn {
            Turn::Begins(phase) => phase,
            Turn::Ends(phase) if phase == self.phase => self.before,
            Turn::Ends(_) => return,
        };
        if !passing {
            self.before = self.phase;
        }
        (self.phase, self.since) = (phase, at);
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    lines: Receiver<(Instant, String)>,
    pub seen: Seen,
    log: PathBuf,
    pub service: SocketAddr,
    /// Hash of the newest tip that it told of.
    pub tip: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Its lines are also appended to `log`.
    pub fn start(program: &Program, log: &Path) -> anyhow::Result<Self> {
        let mut child = program.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let from = BufReader::new(child.stderr.take().context("it is piped")?);
        let mut copy = File::options().create(true).append(true).open(log)?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                let at = Instant::now();
                let _ = writeln!(copy, "{line}");
                if sender.send((at, line)).is_err() {
                    return;
                }
            }
        });
        let seen = Seen::new(Instant::now());
        Ok(Self { child, lines, seen, log: log.into(), service: program.service, tip: None })
    }

    fn take(&mut self, at: Instant, line: &str) {
        self.seen.line(line, at);
        if let Some((_, rest)) = line.split_once("hash=")
            && (line.contains("tip changed") || line.contains("wallets are served"))
        {
            self.tip = rest.split_whitespace().next().map(str::to_owned);
        }
        if let Some((_, rest)) = line.split_once(" to=") {
            self.tip = rest.split_whitespace().next().map(str::to_owned);
        }
    }

    /// Reads its lines until this holds, at most for so long; whether it does.
    pub fn until(
        &mut self,
        patience: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        let end = Instant::now() + patience;
        loop {
            if holds(self) {
                return Ok(true);
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => self.take(at, &line),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!("peerdex ended with {status}:\n{}", last_words(&self.log));
                }
            }
        }
    }

    /// Until it is at this tip, or an error.
    pub fn reach(&mut self, tip: &str, patience: Duration) -> anyhow::Result<()> {
        let reached = self.until(patience, |server| {
            server.seen.phase == Phase::Tip && server.tip.as_deref() == Some(tip)
        })?;
        ensure!(reached, "the tip {tip} is not reached:\n{}", last_words(&self.log));
        Ok(())
    }

    /// Kills it at once; what it was at.
    pub fn kill(mut self) -> anyhow::Result<Self> {
        if let Some(status) = self.child.try_wait()? {
            bail!("peerdex ended with {status}:\n{}", last_words(&self.log));
        }
        self.child.kill()?;
        self.child.wait()?;
        self.drain();
        Ok(self)
    }

    /// Lets it end by itself.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let process = self.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &process]).status()?.success(), "no SIGTERM");
        let status = self.child.wait()?;
        self.drain();
        ensure!(status.success(), "peerdex ended with {status}:\n{}", last_words(&self.log));
        Ok(())
    }

    fn drain(&mut self) {
        while let Ok((at, line)) = self.lines.recv() {
            self.take(at, &line);
        }
    }
}
