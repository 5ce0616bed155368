//! Peers that lie in compact blocks, or keep the rest of one to themselves: the block comes from somebody else in
//! seconds, and who is merely unlucky keeps the connection.

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Amount, Block, BlockHash, Network, ScriptBuf, Transaction, TxOut};

use super::peers::HostilePeer;
use super::support::mine;
use super::support::replay::{Announce, NODE_NETWORK, NODE_WITNESS, ReplayPeer};
use super::support::server::Options;
use super::support::wire::{self, MSG_CMPCT_BLOCK, MSG_WITNESS_BLOCK, Version};
use super::{PEERDEX, SYNC, closed_after, tip_of};

/// The stall timeout is 2 s; the rest is for a busy machine.
const HEDGED: Duration = Duration::from_secs(15);
/// How much earlier the liar is asked than anybody else could be.
const AHEAD: Duration = Duration::from_millis(500);

/// What it says when it is asked for the compact block, and for what is missing of it.
#[derive(Clone, Copy)]
struct Lie {
    name: &'static str,
    compact: fn(&Block) -> Option<Vec<u8>>,
    transactions: fn(&Block) -> Option<Vec<u8>>,
    /// Whether it is asked for transactions, and whether for the whole block then.
    asked_for: &'static [&'static str],
    /// Whether it loses its connection.
    closed: bool,
}

const LIES: [Lie; 7] = [
    Lie {
        name: "silence",
        compact: |_| None,
        transactions: |_| None,
        asked_for: &["compact"],
        closed: false,
    },
    Lie {
        name: "transactions that never come",
        compact: |block| Some(compact(block, &[7], &[])),
        transactions: |_| None,
        asked_for: &["compact", "transactions"],
        closed: false,
    },
    Lie {
        name: "another transaction than the block's",
        compact: |block| Some(compact(block, &[7], &[])),
        transactions: |block| Some(transactions(block, &[&coinbase(77)])),
        asked_for: &["compact", "transactions"],
        closed: false,
    },
    Lie {
        name: "too few transactions",
        compact: |block| Some(compact(block, &[7, 8], &[])),
        transactions: |block| Some(transactions(block, &[&block.txdata[0]])),
        asked_for: &["compact", "transactions"],
        closed: true,
    },
    Lie {
        name: "a position behind the end",
        compact: |block| Some(compact(block, &[], &[9])),
        transactions: |_| None,
        asked_for: &["compact"],
        closed: true,
    },
    Lie {
        name: "short ids that are equal",
        compact: |block| Some(compact(block, &[7, 7, 7], &[0])),
        transactions: |_| None,
        asked_for: &["compact", "whole"],
        closed: false,
    },
    Lie {
        name: "the compact block of another header",
        compact: |block| {
            let header = Header { nonce: block.header.nonce ^ 1, ..block.header };
            Some(compact(&Block { header, ..block.clone() }, &[], &[0]))
        },
        transactions: |_| None,
        asked_for: &["compact"],
        closed: false,
    },
];

/// A `cmpctblock` of these short ids, with the coinbase at these positions.
fn compact(block: &Block, short_ids: &[u64], coinbase_at: &[u8]) -> Vec<u8> {
    let mut payload = serialize(&block.header);
    payload.extend(5_u64.to_le_bytes());
    wire::put_compact(&mut payload, short_ids.len());
    short_ids.iter().for_each(|id| payload.extend(&id.to_le_bytes()[..6]));
    wire::put_compact(&mut payload, coinbase_at.len());
    for position in coinbase_at {
        payload.push(*position);
        payload.extend(serialize(&block.txdata[0]));
    }
    payload
}

/// A `blocktxn`.
fn transactions(block: &Block, transactions: &[&Transaction]) -> Vec<u8> {
    let mut payload = serialize(&block.block_hash());
    wire::put_compact(&mut payload, transactions.len());
    transactions.iter().for_each(|tx| payload.extend(serialize(*tx)));
    payload
}

fn coinbase(height: u32) -> Transaction {
    let reward = TxOut { value: Amount::ONE_BTC, script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
    mine::coinbase(height, 0, vec![reward])
}

/// A chain of empty blocks whose tip is of this hour.
fn recent_chain(count: usize) -> Vec<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let mut blocks = vec![bitcoin::constants::genesis_block(Network::Regtest)];
    for height in 1..=count as u32 {
        let parent = blocks[height as usize - 1].header;
        blocks.push(mine::block(&parent, now - 3_600 + height, vec![coinbase(height)]));
    }
    blocks.iter().map(serialize).collect()
}

fn header(block: &[u8]) -> [u8; 80] {
    block[..80].try_into().unwrap()
}

/// One connection of the liar: it serves `chain` but for the last block, announces that when it is told to, and lies.
/// Returns what it was asked of that block, and whether the connection was closed for it.
fn talk(
    stream: &mut TcpStream,
    chain: &[Vec<u8>],
    lie: Lie,
    now: &Receiver<()>,
) -> (Vec<&'static str>, bool) {
    let magic = wire::magic(Network::Regtest);
    let say = |stream: &mut TcpStream, command: &str, payload: &[u8]| {
        let _ = wire::send(stream, magic, command, payload);
    };
    let (last, known) = chain.split_last().unwrap();
    let block: Block = deserialize(last).unwrap();
    let hash_of = |raw: &[u8]| BlockHash::from_raw_hash(sha256d::Hash::hash(&raw[..80]));
    let version = Version {
        protocol: 70016,
        services: NODE_NETWORK | NODE_WITNESS,
        user_agent: b"/liar:0.1/".to_vec(),
        start_height: 1,
        relay: true,
    };
    say(stream, "version", &version.encode(0, 99));
    say(stream, "verack", &[]);
    let mut asked = Vec::new();
    let (mut announced, mut since) = (false, Instant::now());
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        if !announced && now.try_recv().is_ok() {
            say(stream, "headers", &wire::encode_headers(&[header(last)]));
            (announced, since) = (true, Instant::now());
        }
        // Long enough for whatever it is asked next, and to see whether it is closed.
        if announced && since.elapsed() > AHEAD * 3 {
            return (asked, closed_after(stream, Duration::from_millis(10)).is_some());
        }
        // Nobody writes half a message and pauses here.
        if !matches!(stream.peek(&mut [0]), Ok(1)) {
            if matches!(stream.peek(&mut [0]), Ok(0)) {
                return (asked, true);
            }
            continue;
        }
        let Ok((command, payload)) = wire::receive(stream, magic) else { return (asked, true) };
        match command.as_str() {
            "verack" => say(stream, "sendcmpct", &[0, 2, 0, 0, 0, 0, 0, 0, 0]),
            "ping" => say(stream, "pong", &payload),
            "getheaders" => {
                let headers: Vec<[u8; 80]> = known[1..].iter().map(|block| header(block)).collect();
                say(stream, "headers", &wire::encode_headers(&headers));
            }
            "getblocktxn" => {
                asked.push("transactions");
                (lie.transactions)(&block).iter().for_each(|payload| say(stream, "blocktxn", payload));
            }
            "getdata" => {
                for (kind, hash) in wire::decode_inventory(&payload).unwrap() {
                    match kind {
                        MSG_CMPCT_BLOCK => {
                            asked.push("compact");
                            (lie.compact)(&block)
                                .iter()
                                .for_each(|payload| say(stream, "cmpctblock", payload));
                        }
                        MSG_WITNESS_BLOCK if hash == hash_of(last) => asked.push("whole"),
                        _ => {
                            let block = known.iter().find(|block| hash_of(block) == hash);
                            block.iter().for_each(|block| say(stream, "block", block));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn run(lie: Lie) {
    let chain = recent_chain(6);
    let known = chain[..chain.len() - 1].to_vec();
    let honest = ReplayPeer::start(Network::Regtest, known.clone());
    let (sender, now) = channel();
    let liar = HostilePeer::start({
        let (chain, now) = (chain.clone(), Arc::new(Mutex::new(now)));
        move |mut stream| talk(&mut stream, &chain, lie, &now.lock().unwrap())
    });
    let mut server = Options::new(PEERDEX, "regtest").connect(honest.address()).connect(liar.address).start();
    server.wait_synced(&tip_of(&known), SYNC);

    sender.send(()).unwrap();
    std::thread::sleep(AHEAD);
    honest.set_chain(chain.clone(), Announce::Headers);
    let began = Instant::now();
    server.wait_synced(&tip_of(&chain), HEDGED);
    println!("{}: the block came after {:?}", lie.name, began.elapsed());
    let (asked, closed) = liar.outcomes.recv_timeout(HEDGED).expect(lie.name);
    assert!(asked.starts_with(lie.asked_for), "{}: {asked:?}", lie.name);
    assert_eq!(closed, lie.closed, "{}", lie.name);
    assert_eq!(honest.violations(), [""; 0], "{}", lie.name);
    assert_eq!(honest.connections(), 1, "{}", lie.name);
}

#[test]
fn whoever_lies_in_a_compact_block_is_gone_round() {
    let cases: Vec<_> = LIES.into_iter().map(|lie| std::thread::spawn(move || run(lie))).collect();
    for (case, lie) in cases.into_iter().zip(LIES) {
        case.join().unwrap_or_else(|_| panic!("{}", lie.name));
    }
}
