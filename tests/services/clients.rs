//! Wallets of all kinds: lines over any stream, TLS with one certificate that is trusted, websockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::SOON;
use super::support::connect;

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Requests as lines over a stream.
pub struct Lines<S>(pub BufReader<S>);

impl<S: Read + Write> Lines<S> {
    pub fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("{text}\n").as_bytes())?;
        self.0.get_mut().flush()
    }

    pub fn read(&mut self) -> std::io::Result<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))),
        }
    }

    pub fn try_ask(&mut self, method: &str, params: Value) -> std::io::Result<Value> {
        self.send(&request(method, params))?;
        self.read()
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.try_ask(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Introduces itself.
    pub fn greet(&mut self) {
        let answer = self.ask("server.version", json!(["test", "1.4"]));
        assert_eq!(answer["result"][1], "1.4", "{answer}");
    }
}

pub fn request(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

pub fn tcp(to: SocketAddr) -> TcpStream {
    let stream = connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Does the handshake; fails unless the server shows exactly this certificate.
pub fn try_tls_over(
    stream: TcpStream,
    pinned: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream> {
    let mut roots = RootCertStore::empty();
    roots.add(pinned.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    assert_eq!(stream.conn.peer_certificates().unwrap()[0], *pinned);
    Ok(stream)
}

pub fn tls(to: SocketAddr, pinned: &CertificateDer<'static>) -> TlsStream {
    try_tls_over(tcp(to), pinned, &[&version::TLS13]).unwrap_or_else(|error| panic!("{to}: {error}"))
}

pub fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Does the websocket's handshake over a stream.
pub fn websocket<S: Read + Write>(stream: S) -> WebSocket<S> {
    let (socket, response) = client("ws://localhost/", stream).map_err(|error| error.to_string()).unwrap();
    assert!(response.headers().get("Sec-WebSocket-Extensions").is_none(), "nothing is compressed");
    socket
}

/// The next text message; pings and pongs are passed over.
pub fn read_text<S: Read + Write>(socket: &mut WebSocket<S>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
