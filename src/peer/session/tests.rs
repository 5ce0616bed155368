use super::*;
use crate::peer::WireBlock;
use bitcoin::hashes::{Hash, sha256d};

mod handshake;
mod liveness;
mod messages;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn local() -> Local {
    Local {
        magic: MAGIC,
        services: ServiceFlags::WITNESS,
        user_agent: USER_AGENT.to_owned(),
        start_height: 170,
        nonce: 0x1111,
        relay: false,
    }
}

fn their_version() -> Version {
    Version {
        version: 70016,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        timestamp: 1_700_000_000,
        nonce: 0x2222,
        user_agent: b"/Satoshi:29.0.0/".to_vec(),
        start_height: 900_000,
        relay: true,
    }
}

/// A session with a clock that is moved by hand and a peer that says what the test says.
struct Harness {
    session: Session,
    now: Now,
}

impl Harness {
    fn new() -> Self {
        Self::with(local())
    }

    fn with(local: Local) -> Self {
        let now = Now { instant: Instant::from_start(MINUTE), unix: 1_700_000_000 };
        Self { session: Session::new(now, local, fastrand::Rng::with_seed(1)), now }
    }

    /// After the handshake, its outputs taken.
    fn ready() -> Self {
        Self::ready_with(local())
    }

    fn ready_with(local: Local) -> Self {
        let mut harness = Self::with(local);
        harness.says(&[Message::Version(their_version()), Message::WtxidRelay, Message::Verack]);
        assert!(harness.outputs().iter().any(|output| matches!(output, Output::Ready(_))));
        harness
    }

    fn says(&mut self, messages: &[Message]) {
        for message in messages {
            self.says_bytes(&encode(MAGIC, message));
        }
    }

    fn says_bytes(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(self.now, bytes);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll()).collect()
    }

    /// What was sent, decoded; fails on any other output.
    fn sent(&mut self) -> Vec<Message> {
        self.outputs()
            .into_iter()
            .map(|output| match output {
                Output::Send(bytes) => decode_one(&bytes),
                other => panic!("{other:?} instead of bytes to send"),
            })
            .collect()
    }

    /// Why the connection was closed; fails when it is open or anything else came out.
    fn closed(&mut self) -> CloseReason {
        match &self.outputs()[..] {
            [Output::Close(reason)] => reason.clone(),
            other => panic!("{other:?} instead of a close"),
        }
    }

    /// What was handed on; fails on any other output.
    fn handed_on(&mut self) -> Vec<Message> {
        self.outputs()
            .into_iter()
            .map(|output| match output {
                Output::Message(message) => message,
                other => panic!("{other:?} instead of a message"),
            })
            .collect()
    }

    /// Moves the clock, stopping wherever the session wants to be called.
    fn advance(&mut self, wait: Duration) {
        let end = self.now.instant + wait;
        while let Some(due) = self.session.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.after(due.saturating_since(self.now.instant));
            self.session.handle_timeout(self.now);
            let next = self.session.next_timeout();
            assert!(next.is_none_or(|next| next > due), "the timeout of {due:?} was not used up: {next:?}");
        }
        self.now = self.now.after(end.saturating_since(self.now.instant));
    }
}

fn decode_one(mut bytes: &[u8]) -> Message {
    let frame = FrameDecoder::new(MAGIC).next_frame(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    decode(&frame).unwrap()
}

fn bad_message(what: &str) -> CloseReason {
    CloseReason::Misbehaved(Misbehavior::BadMessage(what.to_owned()))
}

fn entry(kind: InventoryKind) -> Inventory {
    Inventory { kind, hash: sha256d::Hash::hash(b"something") }
}

/// A frame whose checksum is wrong.
fn damaged(message: &Message) -> Vec<u8> {
    let mut bytes = encode(MAGIC, message).to_vec();
    bytes[20] ^= 1;
    bytes
}

/// The first `len` bytes of a block message of a megabyte.
fn part_of_block(len: usize) -> Vec<u8> {
    encode(MAGIC, &Message::Block(WireBlock::new(vec![1; 1_000_000].into())))[..len].to_vec()
}

/// Forbidden by BIP152: the flag is 0 or 1.
fn sendcmpct_with_a_bad_flag() -> Bytes {
    crate::peer::wire::frame(MAGIC, Command::SEND_CMPCT, |out| out.extend_from_slice(&[2; 9]))
}
