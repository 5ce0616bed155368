//! Very many connections in one thread.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Interest, Poll, Token};

use super::wire::{Came, From, Wire};

/// What one read takes.
const SPACE: usize = 1 << 18;
/// Connections that are looked at before the time is read again.
const EVENTS: usize = 1_024;

/// What a connection brings.
#[derive(Debug)]
pub enum Heard<'a> {
    Line(&'a [u8]),
    /// It is over; nothing more will come, and what is said is not sent.
    HungUp,
}

/// Connections, each with what its owner keeps beside it.
#[derive(Debug)]
pub struct Gathering<M> {
    poll: Poll,
    events: Events,
    space: Vec<u8>,
    members: Vec<(Option<Wire>, M)>,
    rest: Duration,
}

impl<M> Gathering<M> {
    /// `rest` is slept before each look at what came. A thread that wakes for every answer takes the processor from
    /// the server that is measured, and is woken by it, once for each; real wallets are other machines.
    pub fn new(rest: Duration) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            space: vec![0; SPACE],
            members: Vec::new(),
            rest,
        })
    }

    /// One more connection; its number, counted from 0.
    pub fn join(&mut self, server: SocketAddr, from: From, member: M) -> anyhow::Result<usize> {
        let number = self.members.len();
        self.members.push((None, member));
        self.connect(number, server, from)?;
        Ok(number)
    }

    /// A new connection for one that was closed.
    pub fn connect(&mut self, number: usize, server: SocketAddr, from: From) -> anyhow::Result<()> {
        let connected = Wire::open(server, from);
        let mut wire = connected.with_context(|| format!("connection {number} to {server}"))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut wire.stream, Token(number), interest)?;
        self.members[number].0 = Some(wire);
        Ok(())
    }

    pub fn members(&self) -> impl ExactSizeIterator<Item = &M> {
        self.members.iter().map(|(_, member)| member)
    }

    pub fn member(&mut self, number: usize) -> &mut M {
        &mut self.members[number].1
    }

    pub fn is_open(&self, number: usize) -> bool {
        self.members[number].0.is_some()
    }

    /// Lets a connection say something, unless it is closed.
    pub fn say(&mut self, number: usize, what: impl FnOnce(&mut M, &mut Vec<u8>)) {
        let (wire, member) = &mut self.members[number];
        if let Some(open) = wire {
            what(member, open.output());
            // Whoever has hung up is heard of by reading.
            let _ = open.flush();
        }
    }

    /// Waits until something comes, at most for so long, and hands all of it over; what is answered is sent at once.
    ///
    /// The time is when the bytes were found to be there: when they came, or by the rest and what this thread does
    /// meanwhile later, never earlier.
    pub fn turn(
        &mut self,
        patience: Duration,
        mut heard: impl FnMut(usize, &mut M, Heard<'_>, Instant, &mut Vec<u8>),
    ) -> anyhow::Result<()> {
        if !self.rest.is_zero() {
            thread::sleep(self.rest);
        }
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let number = event.token().0;
            let (wire, member) = &mut self.members[number];
            let Some(open) = wire else { continue };
            let mut came = if event.is_readable() { Came::Some } else { Came::All };
            while came == Came::Some {
                let mut now = None;
                came = open.read(&mut self.space, |line, out| {
                    let now = *now.get_or_insert_with(Instant::now);
                    heard(number, member, Heard::Line(line), now, out);
                })?;
                // Nothing more is told of an end that came with the last bytes.
                if came == Came::All && event.is_read_closed() {
                    came = Came::HungUp;
                }
            }
            if came == Came::HungUp || open.flush().is_err() {
                *wire = None;
                heard(number, member, Heard::HungUp, Instant::now(), &mut Vec::new());
            }
        }
        Ok(())
    }
}
