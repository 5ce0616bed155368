//! The operator's own lines: `peerdex rpc`, over TCP and a Unix socket.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::{Value, json};

use super::clients::{Lines, tcp};
use super::support::server::{STOP, command};
use super::support::{free_address, wait_for};
use super::{PEERDEX, SOON, Served, options, serve};

/// Runs `peerdex rpc`.
fn rpc(at: &str, arguments: &[&str]) -> Output {
    let arguments: Vec<&str> = ["rpc", "--rpc", at].iter().chain(arguments).copied().collect();
    command(PEERDEX).args(arguments).output().unwrap()
}

fn answer(at: &str, arguments: &[&str]) -> Value {
    let output = rpc(at, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The list of sessions, asked over TCP.
pub fn sessions_at(at: SocketAddr) -> Value {
    Lines::new(tcp(at)).ask("sessions", json!([]))["result"].take()
}

/// The same from the rpc service that the server's log names.
pub fn sessions(served: &Served) -> Value {
    let line = served.server.log_line(&["listening for you"]).expect("there is an rpc service");
    let at = line.split("rpc://").nth(1).unwrap().split_whitespace().next().unwrap();
    sessions_at(at.parse().unwrap())
}

#[test]
fn the_operator_sees_who_is_connected_and_ends_sessions_and_the_server() {
    let mut served = serve("rpc", &[]);
    let at = served.at.to_string();
    wait_for("nobody to be there", SOON, || {
        answer(&at, &["sessions"]).as_array().unwrap().is_empty().then_some(())
    });
    let mut alice = Lines::new(tcp(served.server.address()));
    let mut bob = Lines::new(tcp(served.server.address()));
    alice.greet();
    bob.greet();

    let info = answer(&at, &["getinfo"]);
    assert_eq!((&info["network"], &info["version"]), (&json!("regtest"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!((&info["db height"], &info["sessions"]["tcp"]), (&json!(0), &json!(2)));
    assert_eq!((&info["sessions"]["count"], &info["sessions"]["limit"]), (&json!(2), &json!(1000)));
    let sessions = answer(&at, &["sessions"]);
    let row = &sessions[0];
    assert_eq!((&row["client"], &row["proto"], &row["reqs"]), (&json!("test"), &json!("1.4"), &json!(1)));
    assert!(row["recv"].as_u64().unwrap() > 50 && row["sent"].as_u64().unwrap() > 50, "{row}");
    assert_eq!(row["peer"], alice.0.get_ref().local_addr().unwrap().to_string());

    let id = row["id"].to_string();
    assert_eq!(answer(&at, &["log", &id]), json!([format!("logging {id}")]));
    alice.ask("server.features", json!([]));
    served.server.wait_for_log(&[&format!("session={id}"), "server.features"], SOON);
    assert!(answer(&at, &["groups"]).is_array());

    let said = answer(&at, &["disconnect", &row["id"].to_string(), "77"]);
    assert_eq!(said, json!([format!("disconnected {}", row["id"]), "unknown: 77"]));
    assert!(alice.0.get_mut().read(&mut [0]).is_ok_and(|count| count == 0));
    assert_eq!(bob.ask("server.ping", json!([]))["id"], 1);

    // A wallet cannot ask any of this.
    assert_eq!(bob.ask("getinfo", json!([]))["error"]["code"], -32601);

    let wrong = rpc(&at, &["dance"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("getinfo"), "{wrong:?}");
    assert_eq!(answer(&at, &["stop"]), json!("stopping"));
    assert!(served.server.wait_for_end(STOP).success());
    let nobody = rpc(&at, &["getinfo"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("is peerdex running"), "{nobody:?}");
}

#[test]
fn a_unix_socket_is_the_owners_and_a_dead_ones_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peerdex.sock");
    let service = format!("rpc://{}", path.display());
    // Left by somebody who died.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let start = || {
        let mut served = serve("tcp", &["--service", &service]);
        served.server.client();
        served
    };
    let served = start();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(answer(&service, &["getinfo"])["network"], "regtest");
    assert_eq!(answer(path.to_str().unwrap(), &["getinfo"])["network"], "regtest");

    let mut second = options(free_address(), "tcp", &["--service", &service]).start();
    second.wait_for_end_with_log(&["another process serves it", "peerdex.sock"]);
    assert_eq!(answer(&service, &["getinfo"])["network"], "regtest");

    // A crash leaves the file, a proper end takes it away.
    served.server.kill();
    assert!(path.exists());
    let served = start();
    assert_eq!(answer(&service, &["getinfo"])["network"], "regtest");
    served.server.stop();
    wait_for("the socket to be gone", SOON, || (!path.exists()).then_some(()));
}

#[test]
fn a_browser_cannot_speak_for_the_operator() {
    let served = serve("rpc", &[]);
    let mut page = tcp(served.at);
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n{\"id\":1,\"method\":\"stop\"}\n";
    page.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    let _ = page.read_to_string(&mut said);
    assert!(!said.contains("stopping"), "{said}");
    // A request that never ends is not kept.
    let mut endless = tcp(served.at);
    let _ = endless.write_all(&[b'['; 200_000]);
    assert!(matches!(endless.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(answer(&served.at.to_string(), &["getinfo"])["network"], "regtest");
    served.server.stop();
}

#[test]
fn many_operators_are_not_let_in() {
    let served = serve("rpc", &[]);
    let mut idle: Vec<_> = (0..16).map(|_| Lines::new(tcp(served.at))).collect();
    for operator in &mut idle {
        assert!(operator.ask("getinfo", json!([]))["result"].is_object());
    }
    assert!(Lines::new(tcp(served.at)).try_ask("getinfo", json!([])).is_err());
    idle.pop();
    wait_for("a place", SOON, || {
        Lines::new(tcp(served.at)).try_ask("getinfo", json!([])).is_ok().then_some(())
    });
    // They don't keep the server from stopping either.
    served.server.stop();
}

#[test]
fn what_is_reported_stands_in_the_features() {
    let report = "ssl://electrum.example.org:443,tcp://electrum.example.org,wss://abcdefghij.onion";
    let served = serve("tcp", &["--report-service", report]);
    let mut wallet = Lines::new(tcp(served.at));
    wallet.greet();
    assert_eq!(
        wallet.ask("server.features", json!([]))["result"]["hosts"],
        json!({
            "abcdefghij.onion": {"wss_port": 60404},
            "electrum.example.org": {"ssl_port": 443, "tcp_port": 60401},
        })
    );
    served.server.stop();
}
