//! Wallets' connections: from the listening socket to `electrum::Session` and back.
//!
//! In the order of a connection's life: `listener` accepts it, `sessions` has a place for it, one of the threads of `turns`
//! serves it from then on, `welcome` does the
//! handshakes (with `tls` and its `certificate`, or as a `websocket`), `wire` makes lines of whatever carries them,
//! and `talk` moves those between the wire and its session. `hub` gives sessions the chain as it changes, `shelf` has
//! what they share beside it, `accounts` what they cost.

mod accounts;
mod certificate;
mod hub;
mod listener;
mod sessions;
mod shelf;
mod talk;
mod tls;
mod turns;
mod websocket;
mod welcome;
mod wire;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::clock::Clock;
use super::open_files;
use crate::config::{Place, Services, Wallets};
use crate::electrum::transport::Transport;
use crate::electrum::{Server, Subnet};
pub use accounts::Accounts;
pub use hub::Hub;
use listener::Listener;
pub use listener::bind;
pub use sessions::{SessionId, Sessions};
use shelf::Shelf;
pub use talk::{SubmissionReply, SubmissionRequest};
use tls::Tls;
pub use turns::Turns;

/// Takes a lock though another panicked while holding it: none of these tables and sums is ever left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub clock: Clock,
    pub server: Arc<Server>,
    pub hub: Arc<Hub>,
    pub submissions: mpsc::Sender<SubmissionRequest>,
    pub stop: CancellationToken,
    pub sessions: Arc<Sessions>,
    turns: Turns,
    tls: Option<Arc<Tls>>,
    proxies: Arc<[Subnet]>,
    pub accounts: Arc<Accounts>,
    /// Whether what is sent is padded.
    pads: bool,
}

impl Shared {
    /// Whether connections from there begin with a PROXY header.
    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|subnet| subnet.contains(address))
    }

    fn tls(&self) -> io::Result<TlsAcceptor> {
        self.tls.as_ref().map(|tls| tls.acceptor()).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// All services, bound, but nobody is accepted yet.
#[derive(Debug)]
pub struct Doors {
    listeners: Vec<Listener>,
    sessions: Arc<Sessions>,
    tls: Option<Arc<Tls>>,
    proxies: Arc<[Subnet]>,
    wallets: Wallets,
}

/// Binds all services, or says which cannot be had and why. Their certificate is in `data_dir` if it is not the
/// operator's own.
pub fn open(services: &Services, wallets: &Wallets, data_dir: &Path) -> anyhow::Result<Doors> {
    let sessions = Sessions::new(open_files::sessions_that_fit(services.max_sessions, open_files::raise()));
    let mut listeners = Vec::new();
    for service in services.listen.iter().filter(|service| service.transport != Transport::Rpc) {
        if let Place::Tcp(interface, port) = &service.at {
            let sockets = bind(service, *interface, *port)?;
            listeners.extend(sockets.into_iter().map(|socket| Listener::new(service.transport, socket)));
        }
    }
    let tls = if services.listen.iter().any(|service| service.transport.is_encrypted()) {
        let files = certificate::files(services.certificate.as_ref(), data_dir)?;
        Some(Arc::new(Tls::open(files)?))
    } else {
        if services.certificate.is_some() {
            warn!("nothing is served by the certificate that was given: add --service ssl:// or wss://");
        }
        None
    };
    let (proxies, wallets) = (services.proxies.clone().into(), wallets.clone());
    Ok(Doors { listeners, sessions, tls, proxies, wallets })
}

impl Doors {
    /// Lets wallets in until `stop`.
    pub fn serve(
        self,
        clock: Clock,
        mut server: Server,
        (hub, turns): (Arc<Hub>, Turns),
        submissions: mpsc::Sender<SubmissionRequest>,
        stop: CancellationToken,
    ) -> Shared {
        let Self { listeners, sessions, tls, proxies, wallets } = self;
        server.limits = wallets.limits;
        server.tokens = wallets.tokens;
        server.donation_address = wallets.donation_address;
        // Checked when the setting was read.
        server.drop_client = wallets.drop_client.and_then(|pattern| regex::Regex::new(&pattern).ok());
        server.commons = Box::new(Shelf::new(hub.clone(), wallets.max_subscriptions));
        let accounts = Accounts::new(wallets.prices, wallets.exempt, wallets.max_subnet_sessions);
        if let Some(tls) = tls.clone() {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(tls.follow()).await });
        }
        let shared = Shared {
            clock,
            server: Arc::new(server),
            hub,
            submissions,
            stop,
            sessions,
            turns,
            tls,
            proxies,
            accounts,
            pads: wallets.padding,
        };
        for listener in listeners {
            tokio::spawn(listener.serve(shared.clone()));
        }
        shared
    }
}
