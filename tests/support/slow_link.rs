//! A link that passes bytes slowly, so that what takes a moment takes long enough to be interrupted.
//!
//! It stands between peerdex and a node: both think that they talk to each other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often a link moves bytes.
const TICK: Duration = Duration::from_millis(5);

/// A running link; it is cut when dropped.
pub struct SlowLink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Towards the one who dialled; the other way is not held up.
    bytes_per_second: AtomicU64,
    passed_bytes: AtomicU64,
    stop: AtomicBool,
}

impl SlowLink {
    /// Passes at most `bytes_per_second` from `target` to each who dials the link.
    pub fn to(target: SocketAddr, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a listener can be asked");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            target,
            bytes_per_second: AtomicU64::new(bytes_per_second),
            passed_bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { address, shared }
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes passed from the target so far.
    pub fn passed_bytes(&self) -> u64 {
        self.shared.passed_bytes.load(Ordering::Relaxed)
    }

    /// From now on passes so many bytes a second.
    pub fn set_speed(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((dialler, _)) = listener.accept() else {
            std::thread::sleep(TICK);
            continue;
        };
        let Ok(target) = super::connect(shared.target) else { continue };
        for stream in [&dialler, &target] {
            stream.set_nonblocking(false).expect("a stream can block");
            stream.set_nodelay(true).expect("a stream can do without delay");
            stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a stream can time out");
        }
        let (Ok(to_target), Ok(from_dialler)) = (target.try_clone(), dialler.try_clone()) else { continue };
        let (up, down) = (shared.clone(), shared.clone());
        std::thread::spawn(move || pass(from_dialler, to_target, &up, false));
        std::thread::spawn(move || pass(target, dialler, &down, true));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Shared, is_slow: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while !shared.stop.load(Ordering::Relaxed) {
        let speed = shared.bytes_per_second.load(Ordering::Relaxed);
        let share = (speed as f64 * TICK.as_secs_f64()) as usize;
        let most = if is_slow { share.clamp(1, buffer.len()) } else { buffer.len() };
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                continue;
            }
            Err(_) => break,
        };
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        if is_slow {
            shared.passed_bytes.fetch_add(count as u64, Ordering::Relaxed);
            std::thread::sleep(TICK);
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
