//! One of very many connections: bytes to lines, without a buffer while nothing is under way.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

/// Longest wait for the system to connect two of its own.
const CONNECT: Duration = Duration::from_secs(20);
/// An empty buffer that grew past this is given back.
const KEEP_BYTES: usize = 4 * 1024;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// The address on loopback that it is bound to.
    pub local: Ipv4Addr,
    /// What it says of itself in a PROXY header of version 1.
    pub said: Option<SocketAddr>,
}

impl From {
    /// From loopback, as any program on this machine.
    pub const LOCAL: Self = Self { local: Ipv4Addr::LOCALHOST, said: None };

    /// The wallet of this number, each in a subnet of its own, by way of a balancer on this machine.
    ///
    /// Private addresses would do no good: servers hold the sessions of none of them against each other.
    pub fn subnet(number: usize) -> Self {
        let [_, high, middle, low] = (number as u32).to_be_bytes();
        let said = SocketAddr::from(([11 + high, middle, low, 7], 40_000));
        Self { local: balancer(middle, low), said: Some(said) }
    }

    /// One of the connections of a single address.
    pub fn alone(number: u16) -> Self {
        let said = SocketAddr::from(([203, 0, 113, 66], 1_024 + number));
        Self { local: balancer(0, 0), said: Some(said) }
    }
}

/// The balancer's addresses; what comes from here begins with a PROXY header.
pub const BALANCER: &str = "127.77.0.0/16";

/// Many addresses, as the system is slow to find a free port where ten thousand are taken.
fn balancer(middle: u8, low: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, middle, low)
}

#[derive(Debug)]
pub struct Wire {
    pub(super) stream: TcpStream,
    /// The beginning of a line.
    input: Vec<u8>,
    output: Vec<u8>,
    /// What of the output has gone.
    gone: usize,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// All that there was, but perhaps not the end.
    All,
    /// As much as fits.
    Some,
    HungUp,
}

impl Wire {
    pub fn open(server: SocketAddr, from: From) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if from.local != Ipv4Addr::LOCALHOST {
            socket.bind(&SocketAddr::from((from.local, 0)).into())?;
        }
        socket.connect_timeout(&server.into(), CONNECT)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from_std(socket.into());
        let mut wire = Self { stream, input: Vec::new(), output: Vec::new(), gone: 0 };
        if let Some(said) = from.said {
            wire.output = format!("PROXY TCP4 {} 203.0.113.1 {} 50001\r\n", said.ip(), said.port()).into();
        }
        Ok(wire)
    }

    /// What goes out with the next `flush`.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what the system takes; the rest once it can take more.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.gone < self.output.len() {
            match self.stream.write(&self.output[self.gone..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => self.gone += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.gone = 0;
        self.output.clear();
        give_back(&mut self.output);
        Ok(())
    }

    /// Reads once, by way of `space`, and gives each line that is whole then.
    pub fn read(&mut self, space: &mut [u8], mut line: impl FnMut(&[u8], &mut Vec<u8>)) -> io::Result<Came> {
        let read = loop {
            match self.stream.read(space) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Came::All),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The system says so of who closed while more was on its way.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Came::HungUp),
                Err(error) => return Err(error),
            }
        };
        let mut rest = &space[..read];
        while let Some(end) = newline(rest) {
            if self.input.is_empty() {
                line(&rest[..end], &mut self.output);
            } else {
                self.input.extend_from_slice(&rest[..end]);
                line(&self.input, &mut self.output);
                self.input.clear();
                give_back(&mut self.input);
            }
            rest = &rest[end + 1..];
        }
        self.input.extend_from_slice(rest);
        Ok(match read {
            0 => Came::HungUp,
            _ if read == space.len() => Came::Some,
            _ => Came::All,
        })
    }
}

fn give_back(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEEP_BYTES {
        *buffer = Vec::new();
    }
}

fn newline(bytes: &[u8]) -> Option<usize> {
    use std::io::BufRead;
    let mut rest = bytes;
    // The standard library's fastest search for a byte.
    let skipped = rest.skip_until(b'\n').ok()?;
    (skipped > 0 && bytes[skipped - 1] == b'\n').then(|| skipped - 1)
}
