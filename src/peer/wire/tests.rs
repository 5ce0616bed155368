use std::io::Read;

use super::*;

const MAGIC: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];
/// The recorded session is of Bitcoin Cash, whose frames are the same.
const SESSION_MAGIC: [u8; 4] = [0xe3, 0xe1, 0xf3, 0xe8];

pub(in crate::peer) fn recorded_session() -> Vec<u8> {
    let compressed = include_bytes!("../../../fixtures/p2p/bch-inbound-session.bin.zst");
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(&compressed[..]).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Cuts the recorded session the naive way: command, payload.
fn recorded_messages(mut session: &[u8]) -> Vec<(Command, &[u8])> {
    let mut messages = Vec::new();
    while !session.is_empty() {
        assert_eq!(session[..4], SESSION_MAGIC);
        let command = Command(session[4..16].try_into().unwrap());
        let len = u32::from_le_bytes(session[16..20].try_into().unwrap()) as usize;
        messages.push((command, &session[24..24 + len]));
        session = &session[24 + len..];
    }
    messages
}

fn header(command: Command, len: u32) -> Vec<u8> {
    [&MAGIC[..], &command.0, &len.to_le_bytes(), &[0; 4]].concat()
}

/// Gives a header alone to a fresh decoder.
fn announce(command: Command, len: usize) -> Result<Option<Frame>, FrameError> {
    FrameDecoder::new(MAGIC).next_frame(&mut &header(command, len as u32)[..])
}

#[test]
fn a_recorded_session_cut_at_random_gives_the_same_966_messages() {
    let session = recorded_session();
    let expected = recorded_messages(&session);
    assert_eq!(expected.len(), 966);

    for (seed, longest) in [(1, 1), (2, 30), (3, 4_000), (4, 65_536), (5, 3_000_000)] {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut decoder = FrameDecoder::new(SESSION_MAGIC);
        let mut frames = Vec::new();
        let mut rest = &session[..];
        while !rest.is_empty() {
            let mut chunk = take(&mut rest, rng.usize(1..=longest));
            while let Some(frame) = decoder.next_frame(&mut chunk).unwrap() {
                frames.push(frame);
            }
            assert!(chunk.is_empty());
        }
        assert_eq!(decoder.pending(), None);
        assert_eq!(frames.len(), expected.len(), "seed {seed}");
        for (frame, (command, payload)) in frames.iter().zip(&expected) {
            assert_eq!((frame.command, frame.len), (*command, payload.len()), "seed {seed}");
            match &frame.payload {
                Some(kept) => assert_eq!(kept, payload, "seed {seed}"),
                None => assert_eq!(command.name(), Some("extversion")),
            }
            assert!(frame.checksum_matches(), "seed {seed}");
        }
    }
}

#[test]
fn a_wrong_magic_is_seen_at_its_first_byte() {
    let mut decoder = FrameDecoder::new(MAGIC);
    assert_eq!(decoder.next_frame(&mut &MAGIC[..2]), Ok(None));
    let error = decoder.next_frame(&mut &b"\xb5HTTP"[..]).unwrap_err();
    assert_eq!(error.to_string(), "frame begins with f9beb548, not with the network's f9beb4d9");
    assert_eq!(decoder.capacity(), 0);
    // It stays so, whatever comes.
    assert_eq!(decoder.next_frame(&mut &header(Command::VERACK, 0)[..]), Err(error));
}

#[test]
fn a_payload_over_its_limit_is_refused_as_soon_as_the_header_is_seen() {
    let limits = [
        ("version", 1024),
        ("verack", 0),
        ("sendheaders", 0),
        ("wtxidrelay", 0),
        ("sendaddrv2", 0),
        ("ping", 8),
        ("pong", 8),
        ("feefilter", 8),
        ("sendcmpct", 9),
        ("inv", 1_800_003),
        ("getdata", 1_800_003),
        ("notfound", 1_800_003),
        ("headers", 162_003),
        ("getheaders", 4_096),
        ("addr", 30_003),
        ("addrv2", 550_000),
        ("tx", 4_000_000),
        ("block", 4_000_000),
        ("cmpctblock", 4_000_000),
        ("blocktxn", 4_000_000),
        ("anything", 4_000_000),
    ];
    for (name, limit) in limits {
        let command = Command::new(name);
        let at_limit = announce(command, limit).unwrap();
        assert_eq!(at_limit.is_some(), limit == 0, "{name}");
        let over = announce(command, limit + 1);
        assert_eq!(over, Err(FrameError::TooLong { command, len: limit + 1, limit }), "{name}");
    }
    assert!(announce(Command::BLOCK, u32::MAX as usize).is_err());
}

#[test]
fn an_error_is_final() {
    let mut decoder = FrameDecoder::new(MAGIC);
    let error = decoder.next_frame(&mut &header(Command::PING, 9)[..]).unwrap_err();
    assert_eq!(error.to_string(), "ping of 9 bytes, over the limit of 8");
    assert_eq!(decoder.next_frame(&mut &header(Command::PING, 8)[..]), Err(error));
}

#[test]
fn memory_follows_the_bytes_and_not_what_is_announced() {
    for chunk_len in [1_000, 65_536, 300_000] {
        let mut decoder = FrameDecoder::new(MAGIC);
        assert_eq!(decoder.next_frame(&mut &header(Command::BLOCK, 4_000_000)[..]), Ok(None));
        assert_eq!(decoder.capacity(), 0);

        let chunk = vec![7; chunk_len];
        let mut received = 0;
        while received + chunk_len < 4_000_000 {
            assert_eq!(decoder.next_frame(&mut &chunk[..]), Ok(None));
            received += chunk_len;
            assert_eq!(decoder.pending(), Some(Pending { command: Some(Command::BLOCK), received }));
            assert!(decoder.capacity() <= received * 2, "{} for {received}", decoder.capacity());
            assert!(decoder.capacity() <= received + MAX_AHEAD, "{} for {received}", decoder.capacity());
        }
        let frame = decoder.next_frame(&mut &chunk[..4_000_000 - received]).unwrap().unwrap();
        assert_eq!(frame.payload.unwrap(), vec![7; 4_000_000]);
        assert_eq!(decoder.capacity(), 0);
    }
}

#[test]
fn a_payload_that_nobody_reads_takes_no_memory() {
    let mut decoder = FrameDecoder::new(MAGIC);
    let bytes = [header(Command::new("gibberish"), 3_000_000), vec![1; 2_999_999]].concat();
    assert_eq!(decoder.next_frame(&mut &bytes[..]), Ok(None));
    assert_eq!(decoder.capacity(), 0);
    let frame = decoder.next_frame(&mut &[1][..]).unwrap().unwrap();
    assert_eq!((frame.len, frame.payload), (3_000_000, None));
}

#[test]
fn a_full_addr_is_within_its_limit() {
    let bytes = include_bytes!("../../../fixtures/p2p/testnet3-addr-1000.bin");
    let mut input = &bytes[..];
    let frame = FrameDecoder::new([0x0b, 0x11, 0x09, 0x07]).next_frame(&mut input).unwrap().unwrap();
    assert!(input.is_empty());
    assert_eq!((frame.command, frame.len), (Command::ADDR, Command::ADDR.limit()));
}

#[test]
fn a_frame_that_we_make_comes_back() {
    let bytes = frame(MAGIC, Command::PING, |out| out.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]));
    let mut input = &bytes[..];
    let frame = FrameDecoder::new(MAGIC).next_frame(&mut input).unwrap().unwrap();
    assert!(input.is_empty());
    assert_eq!((frame.command, frame.len), (Command::PING, 8));
    assert_eq!(frame.payload.as_deref(), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
    assert!(frame.checksum_matches());
    assert!(!Frame { checksum: [0; 4], ..frame }.checksum_matches());
}

#[test]
fn commands_are_printable_and_padded_with_nothing() {
    assert_eq!(Command::new("ping").name(), Some("ping"));
    assert_eq!(Command(*b"exactlytwelv").name(), Some("exactlytwelv"));
    assert_eq!(Command([0; 12]).name(), Some(""));
    for bad in [
        b"ping\0\0\0\0\0\0\0x",
        b"pi\x07ng\0\0\0\0\0\0\0",
        b"pi\xffng\0\0\0\0\0\0\0",
        b"\0ping\0\0\0\0\0\0\0",
    ] {
        assert_eq!(Command(*bad).name(), None);
    }
    assert_eq!(Command(*b"pi\x07ng\0\0\0\0\0\0\0").to_string(), r"pi\x07ng");
}

#[test]
fn damaged_streams_neither_panic_nor_take_memory_that_was_not_sent() {
    let session = recorded_session();
    let mut refused = 0;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let start = rng.usize(..session.len() - 200_000);
        // Half the streams are damaged messages, the other half noise after a true magic.
        let mut stream = if seed % 2 == 0 {
            session[..200_000].to_vec()
        } else {
            session[start..start + 200_000].to_vec()
        };
        for _ in 0..rng.usize(1..20) {
            let at = rng.usize(..stream.len());
            stream[at] = rng.u8(..);
        }
        stream[..4].copy_from_slice(&SESSION_MAGIC);

        let mut decoder = FrameDecoder::new(SESSION_MAGIC);
        let mut rest = &stream[..];
        'stream: while !rest.is_empty() {
            let mut chunk = take(&mut rest, rng.usize(1..10_000));
            loop {
                let before = chunk.len();
                match decoder.next_frame(&mut chunk) {
                    Ok(Some(frame)) => {
                        assert!(frame.payload.is_none_or(|payload| payload.len() == frame.len));
                        assert!(chunk.len() < before, "seed {seed}: a frame out of no bytes");
                    }
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        break 'stream;
                    }
                }
            }
            let received = decoder.pending().map_or(0, |pending| pending.received);
            assert!(decoder.capacity() <= 2 * received, "seed {seed}");
        }
    }
    assert!(refused > 100, "only {refused} streams were bad");
}
