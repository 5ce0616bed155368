//! PROXY headers: from whom they are taken, and what becomes of those without.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_rustls::rustls::version;

use super::clients::{Lines, certificate, tcp, try_tls_over, websocket};
use super::operator::sessions;
use super::{Served, serve, text_of};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 50001\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x12\x67\xc3\x51";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Behind a balancer on this machine. (The first service, plain TCP, has the same rule.)
fn behind_balancer(protocol: &str) -> Served {
    let at = super::free_address();
    let rpc = format!("rpc://{}", super::free_address());
    let arguments = ["--proxy-protocol-from", "127.0.0.0/8", "--service", &rpc];
    let mut server = super::options(at, protocol, &arguments).start();
    server.wait_for_log(&["listening for you"], super::SOON);
    Served { server, at }
}

fn proxied(served: &Served, header: &[u8]) -> TcpStream {
    let mut stream = tcp(served.at);
    stream.write_all(header).unwrap();
    stream
}

/// The addresses that the operator sees.
fn peers(served: &Served) -> Vec<String> {
    let list = sessions(served);
    list.as_array().unwrap().iter().map(|row| row["peer"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_wallet_behind_a_balancer_is_known_by_its_own_address() {
    let served = behind_balancer("tcp");
    for (header, expected) in [(V1, "203.0.113.7:4711"), (V2, "203.0.113.7:4711"), (V2_LOCAL, "127.0.0.1:")] {
        // In one piece with the first request, and byte by byte.
        let mut one = tcp(served.at);
        let request = super::clients::request("server.version", json!(["test", "1.4"]));
        one.write_all(&[header, request.as_bytes(), b"\n"].concat()).unwrap();
        let mut one = Lines::new(one);
        assert_eq!(one.read().unwrap()["result"][1], "1.4");
        assert!(peers(&served).iter().all(|peer| peer.starts_with(expected)), "{:?}", peers(&served));
        drop(one);
        let mut slow = tcp(served.at);
        for byte in header {
            slow.write_all(&[*byte]).unwrap();
        }
        Lines::new(slow).greet();
        super::support::wait_for("both to be gone", super::SOON, || peers(&served).is_empty().then_some(()));
    }
    served.server.stop();
}

#[test]
fn the_header_comes_before_the_handshakes() {
    let served = behind_balancer("wss");
    let pinned = certificate(&text_of(&served.server.folder().join("ssl.pem")));
    for header in [V1, V2] {
        let stream = try_tls_over(proxied(&served, header), &pinned, &[&version::TLS13]).unwrap();
        let mut socket = websocket(stream);
        assert_eq!(peers(&served), ["203.0.113.7:4711"]);
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        drop(socket);
        super::support::wait_for("it to be gone", super::SOON, || peers(&served).is_empty().then_some(()));
    }
    served.server.stop();
}

#[test]
fn a_balancer_that_sends_no_header_is_closed() {
    let served = behind_balancer("tcp");
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    for start in
        [&b"{\"id\":1,\"method\":\"server.ping\"}\n"[..], b"\x16\x03\x01", b"PROXY NONSENSE\r\n", &too_long]
    {
        let mut stream = proxied(&served, start);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{said:?}");
    }
    // Half of it is waited for, but not long.
    let start = Instant::now();
    let mut stream = proxied(&served, &V1[..20]);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!((3..9).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    served.server.stop();
}

#[test]
fn nobody_else_may_say_who_he_is() {
    let served = serve("tcp", &["--proxy-protocol-from", "192.0.2.0/24"]);
    for header in [V1, V2] {
        let mut wallet = Lines::new(proxied(&served, header));
        wallet.send("").unwrap();
        assert_eq!(wallet.read().unwrap()["error"]["code"], -32700);
    }
    let start = Instant::now();
    Lines::new(tcp(served.at)).greet();
    assert!(start.elapsed() < Duration::from_secs(3));
    served.server.stop();
}
