//! The operator's own lines, over TCP on this machine or a Unix socket.
//!
//! Open also while wallets are not let in. Whoever can connect may stop the server: a Unix socket is for its owner
//! alone, and TCP is on loopback unless the operator says otherwise.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use chainstore::network_name;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::methods::{self, Action, Facts, GroupFacts, Relayed, SessionFacts};
use crate::config::{Place, Service};
use crate::electrum::Subnet;
use crate::electrum::transport::{LineDecoder, Transport};
use crate::io::wallets::{self, Accounts, SessionId, Sessions, Shared};
use crate::query::SyncState;

/// Operators at once.
const MAX_CONNECTIONS: usize = 16;
/// Longest request of an operator.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// How long an answer may wait to be read.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(200);

/// The bound sockets for operators.
#[derive(Debug)]
pub struct Office {
    sockets: Vec<Door>,
}

#[derive(Debug)]
enum Door {
    Tcp(TcpListener),
    /// The file goes when the server ends.
    Unix(UnixListener, PathBuf),
}

/// Binds those of the services that are for operators.
pub fn bind(services: &[Service]) -> anyhow::Result<Office> {
    let mut sockets = Vec::new();
    for service in services.iter().filter(|service| service.transport == Transport::Rpc) {
        match &service.at {
            Place::Tcp(interface, port) => {
                if !interface.is_local() {
                    warn!(%service, "whoever can connect here may stop this server: keep it behind a firewall");
                }
                let bound = wallets::bind(service, *interface, *port)?;
                sockets.extend(bound.into_iter().map(|(_, socket)| Door::Tcp(socket)));
            }
            Place::Unix(path) => {
                let socket = bind_unix(path).with_context(|| format!("cannot serve {service}"))?;
                info!(%service, "listening for you");
                sockets.push(Door::Unix(socket, path.clone()));
            }
        }
    }
    Ok(Office { sockets })
}

/// A socket file that a dead process left is replaced.
fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(anyhow!("another process serves it: give another path with --service")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before anybody can connect.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(16)?;
    Ok(UnixListener::from_std(socket.into())?)
}

impl Office {
    /// Answers operators until the server stops.
    pub fn serve(self, network: bitcoin::Network, shared: &Shared, relayed: &Arc<Mutex<Relayed>>) {
        let desk = Desk {
            network,
            shared: shared.clone(),
            relayed: relayed.clone(),
            started: Instant::now(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        };
        for socket in self.sockets {
            tokio::spawn(socket.serve(desk.clone()));
        }
    }
}

impl Door {
    async fn serve(self, desk: Desk) {
        let stop = desk.shared.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                let accepted = match &self {
                    Self::Tcp(socket) => socket.accept().await.map(|(stream, _)| desk.clone().attend(stream)),
                    Self::Unix(socket, _) => {
                        socket.accept().await.map(|(stream, _)| desk.clone().attend(stream))
                    }
                };
                if let Err(error) = accepted {
                    warn!(%error, "cannot accept an operator");
                    sleep(PAUSE).await;
                }
            }
        })
        .await;
        if let Self::Unix(_, path) = &self {
            // Whoever removed it before us did no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Where an operator is answered.
#[derive(Clone, Debug)]
struct Desk {
    network: bitcoin::Network,
    shared: Shared,
    relayed: Arc<Mutex<Relayed>>,
    started: Instant,
    places: Arc<Semaphore>,
}

impl Desk {
    /// One connection, in a task of its own; closed at once when there are too many.
    fn attend(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            // Why a connection ended interests nobody: who had it knows.
            let _ = self.shared.stop.run_until_cancelled(self.converse(stream)).await;
            drop(place);
        });
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut lines = LineDecoder::new(MAX_REQUEST_BYTES);
        let mut space = vec![0; 4096];
        loop {
            let count = stream.read(&mut space).await?;
            if count == 0 {
                return Ok(());
            }
            lines.push(&space[..count]);
            while let Some(line) = lines.next_line().map_err(|_| io::ErrorKind::InvalidData)? {
                let (answer, action) = methods::answer(line, || self.facts());
                if let Some(answer) = answer {
                    let line = format!("{answer}\n");
                    timeout(WRITE_WITHIN, stream.write_all(line.as_bytes())).await??;
                }
                match action {
                    Action::Nothing => {}
                    Action::Disconnect(ids) => {
                        ids.into_iter().for_each(|id| self.shared.sessions.disconnect(SessionId(id)));
                    }
                    Action::Log { sessions, new } => {
                        for (id, logged) in sessions {
                            self.shared.sessions.log(SessionId(id), logged);
                        }
                        if let Some(logged) = new {
                            self.shared.sessions.log_new(logged);
                        }
                    }
                    Action::Stop => {
                        info!("stopping, as an operator asked");
                        self.shared.stop.cancel();
                    }
                    Action::HangUp => return Ok(()),
                }
            }
        }
    }

    fn facts(&self) -> Facts {
        let (_, view) = self.shared.hub.current();
        let syncing = match view.sync() {
            SyncState::Syncing { percent, .. } => Some(percent),
            SyncState::Synced => None,
        };
        let tip = view.tip().map(|tip| (tip.height.0, tip.hash.to_string()));
        let (sessions_ever, past_requests) = self.shared.sessions.past();
        Facts {
            version: env!("CARGO_PKG_VERSION"),
            network: network_name(self.network),
            pid: std::process::id(),
            uptime: self.started.elapsed(),
            tip,
            syncing,
            verifies_scripts: crate::scripts::is_available(),
            session_limit: self.shared.sessions.limit(),
            sessions_ever,
            past_requests,
            requests: self.shared.server.commons.counts(),
            sessions: sessions(&self.shared.sessions),
            groups: groups(&self.shared.accounts),
            log_new: self.shared.sessions.logs_new(),
            mempool: view.mempool().clone(),
            fees: view.fees().clone(),
            relayed: self.relayed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn groups(accounts: &Accounts) -> Vec<GroupFacts> {
    let facts = |(subnet, sessions, cost, retained): (Subnet, Vec<u64>, f64, f64)| GroupFacts {
        subnet: subnet.to_string(),
        sessions,
        cost,
        retained_cost: retained,
    };
    accounts.groups().into_iter().map(facts).collect()
}

fn sessions(sessions: &Sessions) -> Vec<SessionFacts> {
    let all = sessions.all();
    let facts = all.iter().map(|entry| {
        let known = entry.known();
        SessionFacts {
            id: entry.id.0,
            transport: known.origin.transport,
            peer: known.origin.address.map_or_else(String::new, |address| address.to_string()),
            client: known.client,
            protocol: known.protocol,
            cost: known.cost,
            requests: known.requests,
            subscriptions: known.subscriptions,
            received_bytes: entry.received_bytes(),
            sent_bytes: entry.sent_bytes(),
            open_for: entry.since.elapsed(),
            logged: entry.is_logged(),
        }
    });
    facts.collect()
}
