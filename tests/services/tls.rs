//! TLS: which certificate is shown, until when, and who cannot disturb it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use serde_json::json;
use tokio_rustls::rustls::version;

use super::clients::{Lines, certificate, tcp, tls, try_tls_over};
use super::support::wait_for;
use super::{SOON, serve, serve_again, text_of};

/// How long until changed files are seen, and some.
const RELOAD: Duration = Duration::from_secs(20);

#[test]
fn a_wallet_that_knows_the_self_signed_certificate_is_served_and_again_after_a_restart() {
    let mut served = serve("ssl", &[]);
    let file = served.server.folder().join("ssl.pem");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let pem = text_of(&file);
    let pinned = certificate(&pem);
    let fingerprint = sha256::Hash::hash(&pinned).to_byte_array().map(|byte| format!("{byte:02X}")).join(":");
    served.server.wait_for_log(&["serving TLS", &fingerprint], SOON);
    for version in [&version::TLS12, &version::TLS13] {
        let mut wallet = Lines::new(try_tls_over(tcp(served.at), &pinned, &[version]).unwrap());
        wallet.greet();
        assert_eq!(wallet.ask("server.ping", json!([]))["id"], 1);
    }

    let at = served.at;
    let again = serve_again(at, "ssl", served.server.stop());

    assert_eq!(text_of(&again.server.folder().join("ssl.pem")), pem);
    Lines::new(tls(at, &pinned)).greet();
    again.server.stop();
}

#[test]
fn openssl_is_served() {
    let served = serve("ssl", &[]);
    let pem = served.server.folder().join("ssl.pem");
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &served.at.to_string(), version, "-quiet", "-verify_return_error"])
            .args(["-verify_hostname", "localhost", "-x509_strict", "-CAfile"])
            .arg(&pem)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut wallet = child.stdin.take().unwrap();
        writeln!(wallet, r#"{{"id":7,"method":"server.version","params":["openssl","1.4"]}}"#).unwrap();
        let mut said = String::new();
        let mut stdout = child.stdout.take().unwrap();
        let mut byte = [0];
        while !said.ends_with('\n') && stdout.read(&mut byte).unwrap() > 0 {
            said.push(char::from(byte[0]));
        }
        drop(wallet);
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(said.contains("\"id\":7") && said.contains("1.4"), "{said}{output:?}");
    }
}

/// A new pair for localhost, put where the server looks for it.
fn put_pair(folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), made.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    made.pem()
}

#[test]
fn a_new_certificate_is_taken_without_dropping_a_session_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let first = certificate(&put_pair(folder.path()));
    let arguments = ["--ssl-certfile", &path("cert.pem"), "--ssl-keyfile", &path("key.pem")];
    let mut served = serve("ssl", &arguments);
    assert!(!served.server.folder().join("ssl.pem").exists(), "nobody asked for a self-signed one");
    let mut alice = Lines::new(tls(served.at, &first));
    alice.greet();

    let second = certificate(&put_pair(folder.path()));
    let at = served.at;
    let shows = |pinned: &_| try_tls_over(tcp(at), pinned, &[&version::TLS13]).is_ok();
    wait_for("the new certificate", RELOAD, || shows(&second).then_some(()));
    assert_eq!(alice.ask("server.ping", json!([]))["id"], 1);

    // The key of another.
    let key = std::fs::read(path("key.pem")).unwrap();
    put_pair(folder.path());
    std::fs::write(path("key.pem"), key).unwrap();
    served.server.signal("HUP");
    served.server.wait_for_log(&["new certificate cannot be used", "key.pem does not go with"], RELOAD);
    std::fs::write(path("cert.pem"), "nonsense").unwrap();
    served.server.signal("HUP");
    served.server.wait_for_log(&["new certificate cannot be used", "no certificate"], RELOAD);
    assert!(shows(&second));
    assert_eq!(alice.ask("server.ping", json!([]))["id"], 1);

    // SIGHUP is at once.
    let third = certificate(&put_pair(folder.path()));
    served.server.signal("HUP");
    wait_for("the third certificate", Duration::from_secs(3), || shows(&third).then_some(()));
    served.server.stop();
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cert.pem").to_str().unwrap().to_string();
    let at = super::free_address();
    let mut server = super::options(at, "ssl", &["--ssl-certfile", &path, "--ssl-keyfile", &path]).start();
    server.wait_for_end_with_log(&["cert.pem"]);
}

#[test]
fn garbage_and_half_open_handshakes_disturb_nobody() {
    let served = serve("ssl", &[]);
    let pinned = certificate(&text_of(&served.server.folder().join("ssl.pem")));
    let before = served.server.peak_memory_bytes();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| tcp(served.at)).collect();
    // Half a hello.
    for stream in &mut silent[50..] {
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    }
    let start = Instant::now();
    for garbage in [
        &b"{\"id\":1,\"method\":\"server.ping\"}\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 100_000],
        &[0xff; 9],
    ] {
        let mut stream = tcp(served.at);
        // It may be closed before all is written.
        let _ = stream.write_all(garbage);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 100, "an alert at most, got {rest:?}");
    }
    Lines::new(tls(served.at, &pinned)).greet();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    // Ten seconds are enough for anybody.
    let mut byte = [0];
    silent[0].set_read_timeout(Some(2 * SOON)).unwrap();
    assert!(matches!(silent[0].read(&mut byte), Ok(0) | Err(_)));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(served.server.peak_memory_bytes() < before + 32 * 1024 * 1024);
    served.server.stop();
}
