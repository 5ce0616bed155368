//! Wallets that come in crowds: from one address, from many, and again and again.
//!
//! They come by way of a balancer, as the sessions of private addresses are not held against each other.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::support::replay::ReplayPeer;
use super::wallets::{SLACK_BYTES, assert_served};
use super::*;

/// Where the balancer's connections come from; those of honest wallets without one come from elsewhere.
const BALANCER: &str = "127.77.0.0/16";
const VERSION: &[u8] = b"{\"id\":0,\"method\":\"server.version\",\"params\":[\"x\",\"1.4\"]}\n";

/// A synced server behind the balancer.
fn behind_balancer(limits: &[&str]) -> (ReplayPeer, Server) {
    let chain = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, chain.clone());
    let mut options = Options::new(PEERDEX, "mainnet").connect(honest.address());
    options.extra = vec!["--proxy-protocol-from".to_owned(), BALANCER.to_owned()];
    options.extra.extend(limits.iter().map(ToString::to_string));
    let mut server = options.start();
    server.wait_synced(&tip_of(&chain), SYNC);
    (honest, server)
}

/// A connection of a wallet at this address, which the balancer passes on.
fn passed_on(server: SocketAddr, wallet: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // The system is slow to find a free port where thousands are taken.
    socket.bind(&SocketAddr::from(([127, 77, 0, wallet[0]], 0)).into())?;
    socket.connect_timeout(&server.into(), Duration::from_secs(5))?;
    let mut stream = TcpStream::from(socket);
    let header = format!("PROXY TCP4 {} 192.0.2.1 40000 50001\r\n", Ipv4Addr::from(wallet));
    stream.write_all(header.as_bytes())?;
    stream.set_read_timeout(Some(SOON))?;
    Ok(stream)
}

/// The answer to a line; `None` once the server has closed.
fn ask(stream: &mut TcpStream, line: &[u8]) -> Option<Value> {
    stream.write_all(line).ok()?;
    let mut answer = String::new();
    let count = BufReader::new(stream).read_line(&mut answer).ok()?;
    (count > 0).then(|| serde_json::from_str(&answer).unwrap())
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.process())).unwrap().count()
}

#[test]
fn a_crowd_from_one_subnet_gets_its_share_and_no_more() {
    let (_peer, mut server) = behind_balancer(&["--max-sessions", "100", "--max-subnet-sessions", "10"]);
    let mut client = server.client();
    let before = server.peak_memory_bytes();
    // Half of them wait in silence, which is what sessions cost most of.
    let mut crowd: Vec<TcpStream> = Vec::new();
    for number in 0..150_u8 {
        let mut stream = passed_on(server.address(), [198, 51, 100, number]).unwrap();
        let served = ask(&mut stream, VERSION).is_some();
        assert_eq!(served, number < 10, "wallet {number}");
        crowd.push(stream);
    }
    // Their neighbours are not let in; others are.
    assert!(ask(&mut passed_on(server.address(), [203, 0, 113, 1]).unwrap(), VERSION).is_some());
    assert_served(&mut client);
    assert!(server.peak_memory_bytes() < before + SLACK_BYTES);
    // When one goes, another may come.
    crowd.remove(0);
    server.wait_for("the place to be free", SOON, |server| {
        ask(&mut passed_on(server.address(), [198, 51, 100, 200]).unwrap(), VERSION)
    });
}

#[test]
fn a_crowd_from_everywhere_closes_the_door_and_not_on_those_inside() {
    let (_peer, mut server) = behind_balancer(&["--max-sessions", "100"]);
    let mut client = server.client();
    let before = server.peak_memory_bytes();
    let mut crowd = Vec::new();
    for number in 0..400_u16 {
        let [high, low] = number.to_be_bytes();
        // The listener is closed for most of them.
        crowd.extend(passed_on(server.address(), [20, high, low, 1]));
    }
    assert_served(&mut client);
    assert!(server.peak_memory_bytes() < before + SLACK_BYTES);
    drop(crowd);
    server.wait_for("the door to open", SOON, |server| {
        let mut stream = passed_on(server.address(), [30, 1, 1, 1]).ok()?;
        ask(&mut stream, VERSION)
    });
}

#[test]
fn who_comes_and_goes_ten_thousand_times_leaves_nothing_behind() {
    const EACH: usize = 2_500;
    let (_peer, mut server) = behind_balancer(&[]);
    let mut client = server.client();
    assert_served(&mut client);
    let (before, files) = (server.peak_memory_bytes(), open_files(&server));
    let address = server.address();
    let came = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let came = &came;
            scope.spawn(move || {
                for number in 0..EACH {
                    let [high, low] = (number as u16).to_be_bytes();
                    let Ok(mut stream) = passed_on(address, [40 + thread, high, low, 1]) else { continue };
                    // Some say nothing, some half a line, and some do not wait for the answer.
                    let said: &[u8] = [b"".as_slice(), &VERSION[..20], VERSION][number % 3];
                    let _ = stream.write_all(said);
                    came.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        assert_served(&mut client);
    });
    assert!(came.load(Ordering::Relaxed) > EACH, "{came:?} came");
    assert_served(&mut client);
    server.wait_for("the last to be gone", SOON, |server| (open_files(server) <= files).then_some(()));
    assert!(server.peak_memory_bytes() < before + SLACK_BYTES);
}

#[test]
fn a_dear_crowd_pays_together_and_others_wait_for_none_of_it() {
    let limits = ["--cost-soft-limit", "20", "--cost-hard-limit", "200", "--request-sleep", "100"];
    let (_peer, mut server) = behind_balancer(&limits);
    let headers = b"{\"id\":1,\"method\":\"blockchain.block.headers\",\"params\":[0,2016]}\n";
    let (address, stop) = (server.address(), AtomicBool::new(false));
    let before = server.peak_memory_bytes();
    let excess = AtomicUsize::new(0);
    let (excess, stop) = (&excess, &stop);
    std::thread::scope(|scope| {
        for number in 0..10_u8 {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut stream) = passed_on(address, [198, 51, 100, number]) else { continue };
                    while let Some(answer) = ask(&mut stream, headers) {
                        excess.fetch_add(usize::from(answer["error"]["code"] == -101), Ordering::Relaxed);
                    }
                }
            });
        }
        let mut slowest = Duration::ZERO;
        for number in 0..50 {
            std::thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            let mut honest = passed_on(address, [203, 0, 113 + number, 1]).unwrap();
            assert!(ask(&mut honest, VERSION).unwrap().get("result").is_some());
            slowest = slowest.max(start.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(slowest < SOON, "another waited {slowest:?}");
    });
    assert!(excess.load(Ordering::Relaxed) > 10, "{excess:?} were told that it is too much");
    // What they owe stays with their subnet when they are gone.
    let mut late = passed_on(server.address(), [198, 51, 100, 99]).unwrap();
    // The account is looked at after a request.
    let answers = [ask(&mut late, VERSION), ask(&mut late, headers)];
    assert_eq!(answers[1].as_ref().unwrap()["error"]["code"], -101, "{answers:?}");
    assert_served(&mut server.client());
    assert!(server.peak_memory_bytes() < before + SLACK_BYTES);
}
