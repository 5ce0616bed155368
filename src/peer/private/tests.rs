//! Against what Bitcoin Core said and did, and against peers that mean harm.

use bitcoin::hashes::Hash;

use super::super::wire::HEADER_LEN;
use super::*;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const NONCE: u64 = 0x1122_3344_5566_7788;
/// Where the nonce stands in a `version`.
const NONCE_AT: std::ops::Range<usize> = 72..80;

fn bytes(hex: &str) -> Vec<u8> {
    bitcoin::hex::FromHex::from_hex(hex).unwrap()
}

/// A frame put together without the code that is tested.
fn frame(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    let checksum = bitcoin::hashes::sha256d::Hash::hash(payload).to_byte_array();
    let length = (payload.len() as u32).to_le_bytes();
    [&MAGIC[..], &name, &length, &checksum[..4], payload].concat()
}

/// A session with its clock and what it put out.
struct Harness {
    session: PrivateSession,
    now: Now,
    transactions: Vec<(Txid, Bytes)>,
    sent: Vec<Vec<u8>>,
    delivered: bool,
    asked: u32,
    closed: Option<CloseReason>,
}

impl Harness {
    fn new(transactions: &[Vec<u8>]) -> Self {
        let txid = |raw: &Vec<u8>| {
            let tx: bitcoin::Transaction = bitcoin::consensus::deserialize(raw).unwrap();
            (tx.compute_txid(), Bytes::from(raw.clone()))
        };
        let now = Now::default();
        let mut harness = Self {
            session: PrivateSession::new(now, MAGIC, NONCE, fastrand::Rng::with_seed(5)),
            now,
            transactions: transactions.iter().map(txid).collect(),
            sent: Vec::new(),
            delivered: false,
            asked: 0,
            closed: None,
        };
        harness.collect();
        harness
    }

    fn collect(&mut self) {
        while let Some(output) = self.session.poll() {
            assert_eq!(self.closed, None, "nothing comes after the end");
            match output {
                PrivateOutput::Send(bytes) => self.sent.push(bytes.to_vec()),
                PrivateOutput::Ready => self.session.give(self.transactions.clone()),
                PrivateOutput::Asked => self.asked += 1,
                PrivateOutput::Delivered => self.delivered = true,
                PrivateOutput::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    fn hears(&mut self, command: &str, payload: &[u8]) {
        // In two parts, as a connection may cut them.
        let frame = frame(command, payload);
        let (first, rest) = frame.split_at(frame.len() / 2);
        for part in [first, rest] {
            self.session.handle_bytes(self.now, part);
        }
        self.collect();
    }

    fn waits(&mut self, wait: Duration) {
        let end = self.now.instant + wait;
        while let Some(due) = self.session.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.after(due - self.now.instant);
            self.session.handle_timeout(self.now);
            self.collect();
            assert!(self.session.next_timeout().is_none_or(|next| next > due), "a timer is due once");
        }
        self.now = self.now.after(end - self.now.instant);
    }

    fn shakes_hands(&mut self) {
        self.hears("version", &version(0x409, 70016, 1));
        self.hears("verack", &[]);
        self.sent.clear();
    }

    fn commands(&mut self) -> Vec<String> {
        let name = |frame: &Vec<u8>| {
            String::from_utf8(frame[4..16].to_vec()).unwrap().trim_end_matches('\0').to_owned()
        };
        std::mem::take(&mut self.sent).iter().map(name).collect()
    }

    /// The nonce of the last ping.
    fn nonce(&self) -> Vec<u8> {
        let ping = self.sent.iter().rfind(|frame| frame[4..9] == *b"ping\0").unwrap();
        ping[HEADER_LEN..].to_vec()
    }
}

fn version(services: u64, version: u32, relay: u8) -> Vec<u8> {
    let head = [&version.to_le_bytes()[..], &services.to_le_bytes(), &[0; 8 + 26 + 26 + 8]].concat();
    [&head[..], b"\x03/a/", &100_u32.to_le_bytes(), &[relay]].concat()
}

fn get_data(entries: &[(u32, Txid)]) -> Vec<u8> {
    let entry = |(kind, txid): &(u32, Txid)| [&kind.to_le_bytes()[..], txid.as_byte_array()].concat();
    [vec![entries.len() as u8], entries.iter().flat_map(entry).collect()].concat()
}

/// The transaction of the recording.
fn recorded_transaction() -> Vec<u8> {
    bytes(RECORDED.lines().next().unwrap().strip_prefix("transaction ").unwrap())
}

const RECORDED: &str = include_str!("../../../fixtures/p2p/private-broadcast.txt");

/// Test 76: what Core said is what we say, byte for byte, and it ends where Core ended it. Two numbers are random: the
/// nonce of `version`, and that of each `ping`, which pongs of the recording are made to answer.
#[test]
fn all_that_is_said_is_what_bitcoin_core_said() {
    let mut cases = 0;
    for case in RECORDED.split("case ").skip(1) {
        let (name, lines) = case.split_once('\n').unwrap();
        let mut ours = Harness::new(&[recorded_transaction()]);
        let mut heard = 0;
        let mut pings: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for line in lines.lines().filter(|line| !line.starts_with("socks ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let payload = bytes(words.get(2).unwrap_or(&""));
            match words[..] {
                [">", command, ..] => {
                    let sent = ours.sent.get(heard).unwrap_or_else(|| panic!("{name}: no {command}"));
                    let mut expected = payload.clone();
                    match command {
                        "version" => expected[NONCE_AT].copy_from_slice(&NONCE.to_le_bytes()),
                        "ping" => expected.copy_from_slice(&sent[HEADER_LEN..]),
                        _ => {}
                    }
                    assert_eq!(*sent, frame(command, &expected), "{name}: {command}");
                    if command == "ping" {
                        pings.push((payload, expected));
                    }
                    heard += 1;
                }
                ["<", command, ..] => {
                    let ping = pings.iter().find(|(theirs, _)| command == "pong" && *theirs == payload);
                    ours.hears(command, ping.map_or(&payload, |(_, answer)| answer));
                }
                ["closed"] => assert!(ours.closed.is_some(), "{name}: Core hung up"),
                ["open"] => assert_eq!(ours.closed, None, "{name}: Core did not hang up"),
                _ => panic!("{line}"),
            }
        }
        assert_eq!(ours.sent.len(), heard, "{name}: we said more");
        cases += 1;
    }
    assert_eq!(cases, 20);
}

#[test]
fn the_receipt_is_the_pong_and_not_the_request() {
    let mut ours = Harness::new(&[recorded_transaction()]);
    let txid = ours.transactions[0].0;
    ours.shakes_hands();
    ours.hears("getdata", &get_data(&[(1, txid)]));
    assert_eq!((ours.asked, ours.delivered, &ours.closed), (1, false, &None));
    let nonce = ours.nonce();
    ours.hears("pong", &[9; 8]);
    assert_eq!((ours.delivered, &ours.closed), (false, &None));
    ours.hears("pong", &nonce);
    assert_eq!((ours.delivered, ours.closed), (true, Some(done("it was delivered"))));
}

#[test]
fn who_never_ends_the_handshake_has_a_minute_and_who_never_asks_three() {
    let mut ours = Harness::new(&[recorded_transaction()]);
    ours.hears("version", &version(0x409, 70016, 1));
    ours.waits(HANDSHAKE_TIMEOUT - Duration::from_millis(1));
    assert_eq!(ours.closed, None);
    ours.waits(Duration::from_millis(1));
    assert_eq!(ours.closed, Some(CloseReason::HandshakeTimeout));

    let mut ours = Harness::new(&[recorded_transaction()]);
    ours.waits(Duration::from_secs(50));
    ours.shakes_hands();
    ours.waits(LIFETIME - Duration::from_secs(51));
    assert_eq!(ours.closed, None);
    ours.waits(Duration::from_secs(1));
    assert_eq!(ours.closed, Some(done("it was not delivered within three minutes")));
    assert!(!ours.delivered && ours.session.next_timeout().is_none());
}

#[test]
fn a_message_that_is_huge_does_not_stay_in_memory() {
    for command in ["getdata", "block", "tx"] {
        let mut ours = Harness::new(&[recorded_transaction()]);
        ours.shakes_hands();
        let frame = frame(command, &vec![0; 1_800_000]);
        for part in frame.chunks(64 * 1024) {
            ours.session.handle_bytes(ours.now, part);
            assert!(ours.session.decoder.capacity() <= 4 * MAX_BUFFERED);
        }
        ours.collect();
        assert!(matches!(ours.closed, Some(CloseReason::Misbehaved(_))), "{command}: {:?}", ours.closed);
    }
}

#[test]
fn nonsense_ends_it_and_what_is_damaged_is_passed_over() {
    let mut ours = Harness::new(&[recorded_transaction()]);
    ours.session.handle_bytes(ours.now, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    ours.collect();
    assert!(matches!(ours.closed, Some(CloseReason::Misbehaved(_))));

    let mut ours = Harness::new(&[recorded_transaction()]);
    let txid = ours.transactions[0].0;
    ours.shakes_hands();
    let mut damaged = frame("getdata", &get_data(&[(1, txid)]));
    damaged[30] ^= 1;
    ours.session.handle_bytes(ours.now, &damaged);
    ours.collect();
    assert_eq!((ours.commands(), ours.closed), (Vec::<String>::new(), None));
}

#[test]
fn without_a_transaction_it_ends_after_the_handshake() {
    let mut ours = Harness::new(&[]);
    ours.hears("version", &version(0x409, 70016, 1));
    ours.hears("verack", &[]);
    assert_eq!(ours.commands(), ["version", "verack"]);
    assert_eq!(ours.closed, Some(done("nothing to hand over")));
}

/// Not as Core does, which hands out no packages.
#[test]
fn a_package_is_given_from_its_end_and_pinged_when_all_of_it_is_there() {
    let child = recorded_transaction();
    let mut parent: bitcoin::Transaction = bitcoin::consensus::deserialize(&child).unwrap();
    parent.lock_time = bitcoin::absolute::LockTime::from_consensus(7);
    let parent = bitcoin::consensus::serialize(&parent);

    let mut ours = Harness::new(&[parent.clone(), child.clone()]);
    let [(parent_id, _), (child_id, _)] = ours.transactions[..] else { panic!("two") };
    ours.shakes_hands();
    ours.hears("getdata", &get_data(&[(1, child_id)]));
    assert_eq!(ours.sent, [frame("tx", &child)]);
    ours.waits(Duration::from_secs(4));
    ours.hears("getdata", &get_data(&[(1, parent_id)]));
    assert_eq!(ours.sent[1], frame("tx", &parent));
    assert_eq!(ours.commands(), ["tx", "tx", "ping"]);
    assert_eq!(ours.session.next_timeout(), Some(ours.session.started + LIFETIME));

    // Whoever has the parents asks for none, and is given time to see that.
    let mut ours = Harness::new(&[parent, child]);
    ours.shakes_hands();
    ours.hears("getdata", &get_data(&[(1, child_id)]));
    ours.waits(PARENTS_WITHIN);
    let nonce = ours.nonce();
    assert_eq!(ours.commands(), ["tx", "ping"]);
    ours.hears("getdata", &get_data(&[(1, child_id), (1, Txid::all_zeros())]));
    assert!(matches!(ours.closed, Some(CloseReason::Misbehaved(_))), "no part of it is something else");
    assert_eq!(nonce.len(), 8);
}
