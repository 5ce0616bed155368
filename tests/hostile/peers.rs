//! Bitcoin peers: what they send before, in and after the handshake.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256d};

use super::support::replay::{Manners, NODE_NETWORK, NODE_WITNESS, ReplayPeer};
use super::support::server::Options;
use super::support::wire::{self, Version};
use super::{PEERDEX, SOON, SYNC, chain, closed_after, tip_of};

/// Who listens and does to each caller what the test says; what comes of it goes to the test.
pub(super) struct HostilePeer<T> {
    pub(super) address: SocketAddr,
    pub(super) outcomes: Receiver<T>,
}

impl<T: Send + 'static> HostilePeer<T> {
    pub(super) fn start(act: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, outcomes) = mpsc::channel();
        // Ends with the process: the test is over when nobody listens to it any more.
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true).unwrap();
                if sender.send(act(stream)).is_err() {
                    return;
                }
            }
        });
        Self { address, outcomes }
    }
}

fn magic() -> [u8; 4] {
    wire::magic(Network::Bitcoin)
}

fn send(stream: &mut TcpStream, command: &str, payload: &[u8]) {
    // The other side may have closed: that is what the tests look for.
    let _ = wire::send(stream, magic(), command, payload);
}

/// The whole handshake.
fn shake_hands(stream: &mut TcpStream) {
    let version = Version {
        protocol: 70016,
        services: NODE_NETWORK | NODE_WITNESS,
        user_agent: b"/hostile:0.1/".to_vec(),
        start_height: 1_000_000,
        relay: true,
    };
    stream.set_read_timeout(Some(SOON)).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    send(stream, "version", &version.encode(now, 77));
    send(stream, "verack", &[]);
    await_message(stream, "verack");
}

fn await_message(stream: &mut TcpStream, awaited: &str) -> Vec<u8> {
    loop {
        let (command, payload) = wire::receive(stream, magic()).unwrap();
        if command == awaited {
            return payload;
        }
    }
}

/// `count` headers on the genesis block, of which none has the work that it claims.
fn headers_without_work(count: usize) -> Vec<[u8; 80]> {
    let mut parent = sha256d::Hash::hash(&chain()[0][..80]);
    let mut time = 1_231_006_505_u32;
    let mut headers = Vec::new();
    for _ in 0..count {
        time += 600;
        let mut header = [0; 80];
        header[0] = 1;
        header[4..36].copy_from_slice(parent.as_byte_array());
        header[68..72].copy_from_slice(&time.to_le_bytes());
        header[72..76].copy_from_slice(&0x1d00_ffff_u32.to_le_bytes());
        parent = sha256d::Hash::hash(&header);
        headers.push(header);
    }
    headers
}

/// Header of a message.
fn frame_header(magic: [u8; 4], command: &str, length: u32) -> Vec<u8> {
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    [&magic[..], &name, &length.to_le_bytes(), &[0; 4]].concat()
}

type Attack = (&'static str, fn(&mut TcpStream));

/// What a peer loses its connection for, soon.
const CLOSED: &[Attack] = &[
    ("the magic of another network", |stream| {
        let _ = stream.write_all(&frame_header(wire::magic(Network::Regtest), "version", 100));
    }),
    ("not a word of Bitcoin", |stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    }),
    ("a message longer than any may be", |stream| {
        shake_hands(stream);
        let _ = stream.write_all(&frame_header(magic(), "block", 4_000_001));
    }),
    ("a user agent of 300 bytes", |stream| {
        let version = Version {
            protocol: 70016,
            services: 9,
            user_agent: vec![b'a'; 300],
            start_height: 1,
            relay: true,
        };
        send(stream, "version", &version.encode(1_700_000_000, 1));
    }),
    ("2,001 headers", |stream| {
        shake_hands(stream);
        send(stream, "headers", &wire::encode_headers(&headers_without_work(2_001)));
    }),
    ("headers without work", |stream| {
        shake_hands(stream);
        send(stream, "headers", &wire::encode_headers(&headers_without_work(10)));
    }),
    ("headers that don't follow each other", |stream| {
        shake_hands(stream);
        let real = chain();
        let headers: Vec<[u8; 80]> =
            [1, 3].iter().map(|n: &usize| real[*n][..80].try_into().unwrap()).collect();
        send(stream, "headers", &wire::encode_headers(&headers));
    }),
    ("50,001 inventory entries", |stream| {
        shake_hands(stream);
        let mut payload = Vec::new();
        wire::put_compact(&mut payload, 50_001);
        payload.resize(payload.len() + 50_001 * 36, 0);
        send(stream, "inv", &payload);
    }),
];

#[test]
fn each_offence_costs_the_connection_and_the_honest_peer_is_enough() {
    let blocks = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut options = Options::new(PEERDEX, "mainnet").connect(honest.address());
    let hostile: Vec<_> = CLOSED
        .iter()
        .map(|(_, attack)| {
            HostilePeer::start(move |mut stream| {
                attack(&mut stream);
                closed_after(&mut stream, SOON)
            })
        })
        .collect();
    for peer in &hostile {
        options = options.connect(peer.address);
    }

    let mut server = options.start();
    server.wait_synced(&tip_of(&blocks), SYNC);

    for (peer, (name, _)) in hostile.iter().zip(CLOSED) {
        let closed = peer.outcomes.recv_timeout(SYNC).unwrap_or_else(|_| panic!("{name}: never dialled"));
        assert!(closed.is_some(), "{name}: the connection was kept");
    }
    assert_eq!(honest.violations(), [""; 0]);
    assert_eq!(honest.connections(), 1);
}

/// What is odd and harmless: the connection is kept, and a ping answered.
const KEPT: &[Attack] = &[
    ("a thousand unknown commands", |stream| {
        shake_hands(stream);
        for n in 0..1_000_u32 {
            send(stream, "nonsense", &n.to_le_bytes());
        }
    }),
    ("a feature that we don't have", |stream| {
        shake_hands(stream);
        send(stream, "sendtxrcncl", &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        send(stream, "feature", &[1]);
    }),
    // As Core: a message that can't be decoded is as good as none.
    ("headers that can't be read", |stream| {
        shake_hands(stream);
        send(stream, "headers", &[0xff; 40]);
    }),
    ("a wrong checksum", |stream| {
        shake_hands(stream);
        let mut message = frame_header(magic(), "ping", 8);
        message.extend([1; 8]);
        let _ = stream.write_all(&message);
    }),
    ("blocks that nobody asked for", |stream| {
        shake_hands(stream);
        let block = chain().pop().unwrap();
        for _ in 0..1_000 {
            send(stream, "block", &block);
        }
    }),
    ("getdata of what we don't have", |stream| {
        shake_hands(stream);
        let mut payload = Vec::new();
        wire::put_compact(&mut payload, 1_000);
        payload.resize(payload.len() + 1_000 * 36, 7);
        send(stream, "getdata", &payload);
    }),
];

#[test]
fn oddities_are_forgiven() {
    let blocks = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut options = Options::new(PEERDEX, "mainnet").connect(honest.address());
    let odd: Vec<_> = KEPT
        .iter()
        .map(|(_, attack)| {
            HostilePeer::start(move |mut stream| {
                attack(&mut stream);
                send(&mut stream, "ping", b"are here");
                stream.set_read_timeout(Some(SOON)).unwrap();
                loop {
                    match wire::receive(&mut stream, magic()) {
                        Ok((command, payload)) if command == "pong" => return payload == b"are here",
                        Ok(_) => {}
                        Err(_) => return false,
                    }
                }
            })
        })
        .collect();
    for peer in &odd {
        options = options.connect(peer.address);
    }

    let mut server = options.start();
    server.wait_synced(&tip_of(&blocks), SYNC);

    for (peer, (name, _)) in odd.iter().zip(KEPT) {
        let kept = peer.outcomes.recv_timeout(SYNC).unwrap_or_else(|_| panic!("{name}: never dialled"));
        assert!(kept, "{name}: no pong");
    }
}

#[test]
fn a_flood_of_blocks_leaves_no_trace_in_memory() {
    let blocks = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    // Announced as a block, three megabytes of nothing, and nobody asked.
    let flood = HostilePeer::start(|mut stream| {
        shake_hands(&mut stream);
        await_message(&mut stream, "getheaders");
        send(&mut stream, "headers", &[0]);
        let junk = vec![0; 3_000_000];
        for _ in 0..100 {
            if wire::send(&mut stream, magic(), "block", &junk).is_err() {
                break;
            }
        }
    });
    let mut server =
        Options::new(PEERDEX, "mainnet").connect(honest.address()).connect(flood.address).start();
    server.wait_synced(&tip_of(&blocks), SYNC);
    flood.outcomes.recv_timeout(SYNC).unwrap();
    server.wait_synced(&tip_of(&blocks), SYNC);
    let peak = server.peak_memory_bytes();
    assert!(peak < 100 * 1024 * 1024, "{peak} bytes after 300 MB");
}

#[test]
fn a_peer_that_stalls_in_the_middle_of_a_block_is_gone_round() {
    let blocks = chain();
    let honest = {
        // Slow enough that the other is asked too.
        let manners = Manners { pause: Duration::from_millis(20), ..Manners::default() };
        ReplayPeer::with_manners(Network::Bitcoin, blocks.clone(), manners)
    };
    let headers: Vec<[u8; 80]> = blocks[1..].iter().map(|block| block[..80].try_into().unwrap()).collect();
    let staller = HostilePeer::start(move |mut stream| {
        shake_hands(&mut stream);
        send(&mut stream, "headers", &wire::encode_headers(&headers));
        await_message(&mut stream, "getdata");
        // Half a block, then silence.
        let _ = stream.write_all(&frame_header(magic(), "block", 215));
        let _ = stream.write_all(&[0; 100]);
        closed_after(&mut stream, SYNC)
    });

    let mut server =
        Options::new(PEERDEX, "mainnet").connect(staller.address).connect(honest.address()).start();
    let took = server.wait_synced(&tip_of(&blocks), SYNC);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn peers_that_tell_no_headers_cost_seconds_and_not_minutes() {
    let blocks = chain();
    let silent: Vec<_> = (0..2)
        .map(|_| {
            HostilePeer::start(|mut stream| {
                shake_hands(&mut stream);
                closed_after(&mut stream, SYNC)
            })
        })
        .collect();
    let honest = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut options = Options::new(PEERDEX, "mainnet");
    for peer in &silent {
        options = options.connect(peer.address);
    }
    let mut server = options.connect(honest.address()).start();
    // Asked one after the other at worst: 5 s, 10 s, and 20 s in which the silent ones might say more.
    let took = server.wait_synced(&tip_of(&blocks), SYNC);
    assert!(took < Duration::from_secs(45), "{took:?}");
    assert_eq!(honest.versions().len(), 1);
}

#[test]
fn a_peer_that_hangs_up_again_and_again_is_not_dialled_in_a_loop() {
    let blocks = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let rude = HostilePeer::start(|mut stream| {
        shake_hands(&mut stream);
        Instant::now()
    });
    let mut server = Options::new(PEERDEX, "mainnet").connect(rude.address).connect(honest.address()).start();
    server.wait_synced(&tip_of(&blocks), SYNC);
    std::thread::sleep(Duration::from_secs(8));
    let calls: Vec<Instant> = rude.outcomes.try_iter().collect();
    // It is tried again, each time after a longer wait: 1, 2, 4, 8 s, and jitter.
    assert!((2..=7).contains(&calls.len()), "{} calls", calls.len());
}

#[test]
fn sigterm_ends_it_in_time_while_peers_flood() {
    let blocks = chain();
    let honest = ReplayPeer::start(Network::Bitcoin, blocks.clone());
    let mut options = Options::new(PEERDEX, "mainnet").connect(honest.address());
    // Headers are asked of one peer after another, and a silent one is waited for: the flood comes after that.
    let synced = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let synced = synced.clone();
            HostilePeer::start(move |mut stream| {
                while !synced.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                shake_hands(&mut stream);
                let junk = vec![0; 1_000_000];
                while wire::send(&mut stream, magic(), "block", &junk).is_ok() {}
            })
        })
        .collect();
    for flood in &floods {
        options = options.connect(flood.address);
    }
    let mut server = options.start();
    server.wait_synced(&tip_of(&blocks), SYNC);
    synced.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(2));
    let mut client = server.client();
    assert_eq!(client.tip().unwrap().0 as usize, blocks.len() - 1);
    let _folder = server.stop();
}
