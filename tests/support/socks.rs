//! A SOCKS5 proxy on loopback that writes down who is dialled, under which name, and what is said to him.
//!
//! It reaches nobody but those that the test names. Source: RFC 1928, RFC 1929.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire;

/// How often the acceptor looks for the end.
const TICK: Duration = Duration::from_millis(10);
/// The target is a name.
const NAME: u8 = 3;

/// One connection that was asked for.
#[derive(Clone, Debug)]
pub struct Dial {
    pub host: String,
    pub port: u16,
    pub username: String,
    pub password: String,
    pub at: Instant,
    /// All that the client sent to the target.
    pub said: Vec<u8>,
    pub is_open: bool,
}

impl Dial {
    /// The whole messages that were sent.
    pub fn messages(&self, magic: [u8; 4]) -> Vec<(String, Vec<u8>)> {
        let mut rest = &self.said[..];
        std::iter::from_fn(|| wire::receive(&mut rest, magic).ok()).collect()
    }

    /// Their names.
    pub fn commands(&self, magic: [u8; 4]) -> Vec<String> {
        self.messages(magic).into_iter().map(|(command, _)| command).collect()
    }
}

/// Whom a name leads to.
type Route = dyn Fn(&str) -> Option<SocketAddr> + Send + Sync;

/// A running proxy; it takes no more connections when dropped.
pub struct SocksProxy {
    address: SocketAddr,
    dials: Arc<Mutex<Vec<Dial>>>,
    stop: Arc<AtomicBool>,
}

impl SocksProxy {
    pub fn start(route: impl Fn(&str) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a listener can be asked");
        let address = listener.local_addr().expect("a bound listener has an address");
        let dials = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let route: Arc<Route> = Arc::new(route);
        std::thread::spawn({
            let (dials, stop) = (Arc::clone(&dials), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = listener.accept() else {
                        std::thread::sleep(TICK);
                        continue;
                    };
                    let (dials, route) = (dials.clone(), route.clone());
                    // What goes wrong is the client's to notice.
                    std::thread::spawn(move || drop(serve(stream, &dials, &*route)));
                }
            }
        });
        Self { address, dials, stop }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that were asked for, oldest first.
    pub fn dials(&self) -> Vec<Dial> {
        lock(&self.dials).clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock(dials: &Mutex<Vec<Dial>>) -> MutexGuard<'_, Vec<Dial>> {
    dials.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut client: TcpStream, dials: &Mutex<Vec<Dial>>, route: &Route) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    let greeting: [u8; 4] = take(&mut client)?;
    assert_eq!(greeting, [5, 2, 0, 2], "what Core says first: no name, or a name and a password");
    client.write_all(&[5, 2])?;
    let [version] = take(&mut client)?;
    assert_eq!(version, 1);
    let (username, password) = (take_text(&mut client)?, take_text(&mut client)?);
    client.write_all(&[1, 0])?;
    let head: [u8; 4] = take(&mut client)?;
    assert_eq!(head, [5, 1, 0, NAME], "always connect, and always by name");
    let host = take_text(&mut client)?;
    let port = u16::from_be_bytes(take(&mut client)?);
    let target = route(&host);
    let number = {
        let mut dials = lock(dials);
        let is_open = target.is_some();
        dials.push(Dial { host, port, username, password, at: Instant::now(), said: Vec::new(), is_open });
        dials.len() - 1
    };
    let Some(target) = target else {
        // Tor's own word for an onion service that is not found.
        return client.write_all(&[5, 0xf0, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    let mut server = super::connect(target)?;
    server.set_nodelay(true)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let (mut to_client, mut from_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        lock(dials)[number].said.extend(&buffer[..count]);
        server.write_all(&buffer[..count])?;
    }
    lock(dials)[number].is_open = false;
    server.shutdown(Shutdown::Both)
}

fn take<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take_text(from: &mut impl Read) -> io::Result<String> {
    let [length] = take(from)?;
    let mut bytes = vec![0; length.into()];
    from.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
