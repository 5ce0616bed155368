use bitcoin::hashes::sha256d;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory as TheirInventory};
use bitcoin::p2p::message_compact_blocks::SendCmpct;
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::{Network, Txid, Wtxid};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::super::types::{CompactBlock, WireBlock};
use super::super::wire::tests::recorded_session;
use super::super::wire::{FrameDecoder, HEADER_LEN};
use super::*;

const MAGIC: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

/// Everything that is decoded further than its name.
const COMMANDS: [Command; 19] = [
    Command::BLOCK,
    Command::BLOCK_TXN,
    Command::CMPCT_BLOCK,
    Command::GET_BLOCK_TXN,
    Command::FEE_FILTER,
    Command::GET_DATA,
    Command::GET_HEADERS,
    Command::HEADERS,
    Command::INV,
    Command::NOT_FOUND,
    Command::PING,
    Command::PONG,
    Command::SEND_ADDR_V2,
    Command::SEND_CMPCT,
    Command::SEND_HEADERS,
    Command::TX,
    Command::VERACK,
    Command::VERSION,
    Command::WTXID_RELAY,
];

fn one_frame(bytes: &[u8]) -> Frame {
    let mut input = bytes;
    let frame = FrameDecoder::new(MAGIC).next_frame(&mut input).unwrap().unwrap();
    assert!(input.is_empty());
    frame
}

/// Decodes a payload as if it had come with a true checksum.
fn decode_as(command: Command, payload: &[u8]) -> Result<Message, DecodeError> {
    decode(&one_frame(&frame(MAGIC, command, |out| out.extend_from_slice(payload))))
}

fn forbidden(what: &str) -> Result<Message, DecodeError> {
    Err(DecodeError::Forbidden(Misbehavior::BadMessage(what.to_owned())))
}

fn version() -> Version {
    Version {
        version: 70016,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        timestamp: 1_700_000_000,
        nonce: 0x0123_4567_89ab_cdef,
        user_agent: b"/Satoshi:29.0.0/".to_vec(),
        start_height: 900_000,
        relay: true,
    }
}

#[test]
fn recorded_lists_are_read_and_written_byte_for_byte() {
    let inv = include_bytes!("../../../fixtures/p2p/mainnet-inv-500.bin");
    let message = decode(&one_frame(inv)).unwrap();
    assert!(matches!(&message, Message::Inv(entries) if entries.len() == 500));
    assert_eq!(encode(MAGIC, &message), inv[..]);

    let getdata = include_bytes!("../../../fixtures/p2p/mainnet-getdata-128.bin");
    let message = decode(&one_frame(getdata)).unwrap();
    assert!(matches!(&message, Message::GetData(entries) if entries.len() == 128));
    assert_eq!(encode(MAGIC, &message), getdata[..]);
}

#[test]
fn what_we_write_is_what_another_library_writes() {
    let hash = sha256d::Hash::hash(b"peer");
    let block = BlockHash::from_raw_hash(hash);
    let header = bitcoin::constants::genesis_block(Network::Bitcoin).header;
    let nobody = Address { services: ServiceFlags::NONE, address: [0; 8], port: 0 };
    let ours = version();
    let theirs = VersionMessage {
        version: ours.version,
        services: ours.services,
        timestamp: ours.timestamp,
        receiver: nobody.clone(),
        sender: Address { services: ours.services, ..nobody },
        nonce: ours.nonce,
        user_agent: "/Satoshi:29.0.0/".to_owned(),
        start_height: ours.start_height,
        relay: ours.relay,
    };
    let entries = [
        (InventoryKind::Tx, TheirInventory::Transaction(Txid::from_raw_hash(hash))),
        (InventoryKind::Block, TheirInventory::Block(block)),
        (InventoryKind::WtxidTx, TheirInventory::WTx(Wtxid::from_raw_hash(hash))),
        (InventoryKind::WitnessTx, TheirInventory::WitnessTransaction(Txid::from_raw_hash(hash))),
        (InventoryKind::WitnessBlock, TheirInventory::WitnessBlock(block)),
        (InventoryKind::Other(77), TheirInventory::Unknown { inv_type: 77, hash: hash.to_byte_array() }),
    ];
    let our_entries: Vec<_> = entries.iter().map(|(kind, _)| Inventory { kind: *kind, hash }).collect();
    let their_entries: Vec<_> = entries.iter().map(|(_, entry)| *entry).collect();

    let pairs = [
        (Message::Version(ours), NetworkMessage::Version(theirs)),
        (Message::Verack, NetworkMessage::Verack),
        (Message::WtxidRelay, NetworkMessage::WtxidRelay),
        (Message::SendAddrV2, NetworkMessage::SendAddrV2),
        (Message::SendHeaders, NetworkMessage::SendHeaders),
        (
            Message::SendCmpct { high_bandwidth: true, version: 2 },
            NetworkMessage::SendCmpct(SendCmpct { send_compact: true, version: 2 }),
        ),
        (Message::FeeFilter(1000), NetworkMessage::FeeFilter(1000)),
        (Message::Ping(7), NetworkMessage::Ping(7)),
        (Message::Pong(8), NetworkMessage::Pong(8)),
        (
            Message::GetHeaders { locator: vec![block, header.block_hash()], stop: BlockHash::all_zeros() },
            NetworkMessage::GetHeaders(GetHeadersMessage {
                version: PROTOCOL_VERSION,
                locator_hashes: vec![block, header.block_hash()],
                stop_hash: BlockHash::all_zeros(),
            }),
        ),
        (Message::Headers(vec![header; 300]), NetworkMessage::Headers(vec![header; 300])),
        (Message::Inv(our_entries.clone()), NetworkMessage::Inv(their_entries.clone())),
        (Message::GetData(our_entries.clone()), NetworkMessage::GetData(their_entries.clone())),
        (Message::NotFound(our_entries), NetworkMessage::NotFound(their_entries)),
        (Message::GetAddr, NetworkMessage::GetAddr),
        (Message::Mempool, NetworkMessage::MemPool),
    ];
    for (ours, theirs) in pairs {
        let expected =
            bitcoin::consensus::serialize(&RawNetworkMessage::new(Network::Bitcoin.magic(), theirs));
        assert_eq!(encode(MAGIC, &ours), expected, "{ours:?}");
        assert_eq!(decode(&one_frame(&expected)).unwrap(), ours);
    }
}

#[test]
fn lists_over_their_limit_are_misbehavior_however_short_the_message() {
    // Compact sizes: 50,001, 2,001 and 102.
    let inv = [0xfd, 0x51, 0xc3];
    let headers = [0xfd, 0xd1, 0x07];
    let locator = [0, 0, 0, 0, 102];
    let cases: [(Command, &[u8], &str); 5] = [
        (Command::INV, &inv, "inv with 50001 entries, over the limit of 50000"),
        (Command::GET_DATA, &inv, "getdata with 50001 entries, over the limit of 50000"),
        (Command::NOT_FOUND, &inv, "notfound with 50001 entries, over the limit of 50000"),
        (Command::HEADERS, &headers, "headers with 2001 entries, over the limit of 2000"),
        (Command::GET_HEADERS, &locator, "locator with 102 entries, over the limit of 101"),
    ];
    for (command, payload, what) in cases {
        assert_eq!(decode_as(command, payload), forbidden(what));
    }
    assert_eq!(
        decode_as(Command::SEND_CMPCT, &[2, 2, 0, 0, 0, 0, 0, 0, 0]),
        forbidden("sendcmpct with 2 for a flag")
    );
}

#[test]
fn lists_at_their_limit_are_read() {
    let entry = Inventory { kind: InventoryKind::Block, hash: sha256d::Hash::all_zeros() };
    let header = bitcoin::constants::genesis_block(Network::Bitcoin).header;
    let full = [
        Message::Inv(vec![entry; 50_000]),
        Message::GetData(vec![entry; 50_000]),
        Message::NotFound(vec![entry; 50_000]),
        Message::Headers(vec![header; 2_000]),
        Message::GetHeaders { locator: vec![BlockHash::all_zeros(); 101], stop: BlockHash::all_zeros() },
    ];
    for message in full {
        assert!(decode(&one_frame(&encode(MAGIC, &message))).unwrap() == message);
    }
}

#[test]
fn a_list_that_announces_more_than_it_holds_is_dropped() {
    for command in [Command::INV, Command::GET_DATA, Command::NOT_FOUND, Command::HEADERS] {
        // One entry short of the 208 announced.
        let payload = [vec![208], vec![0; 207 * 81 - 1]].concat();
        let payload = if command == Command::HEADERS { &payload[..] } else { &payload[..207 * 36 + 1] };
        assert_eq!(decode_as(command, payload), Err(DecodeError::Malformed(command, "ends too early")));
    }
}

#[test]
fn the_transaction_count_behind_a_header_may_be_anything() {
    let header = bitcoin::constants::genesis_block(Network::Bitcoin).header;
    let bytes = bitcoin::consensus::serialize(&header);
    for count in [&[0][..], &[7], &[0xfd, 0xff, 0xff]] {
        let payload = [&[1], &bytes[..], count].concat();
        assert_eq!(decode_as(Command::HEADERS, &payload), Ok(Message::Headers(vec![header])));
    }
    let payload = [&[1], &bytes[..], &[0xfd, 1, 0]].concat();
    assert!(matches!(decode_as(Command::HEADERS, &payload), Err(DecodeError::Malformed(..))));
}

#[test]
fn a_version_may_end_after_each_of_its_fields() {
    let full = encode(MAGIC, &Message::Version(version()));
    let full = &full[HEADER_LEN..];
    let bare = Version { nonce: 0, user_agent: Vec::new(), start_height: -1, relay: true, ..version() };
    let with_nonce = Version { nonce: version().nonce, ..bare.clone() };
    let with_agent = Version { user_agent: version().user_agent, ..with_nonce.clone() };
    let with_height = Version { start_height: version().start_height, ..with_agent.clone() };
    let silent = Version { relay: false, ..version() };

    let agent_end = 46 + 34 + 17;
    let no_relay = [&full[..full.len() - 1], &[0]].concat();
    let longer = [full, &[1, 2, 3]].concat();
    let cases = [
        (&full[..46], bare),
        (&full[..46 + 34], with_nonce),
        (&full[..agent_end], with_agent),
        (&full[..agent_end + 4], with_height),
        (full, version()),
        (&no_relay[..], silent),
        (&longer[..], version()),
    ];
    for (payload, expected) in &cases {
        assert_eq!(decode_as(Command::VERSION, payload), Ok(Message::Version(expected.clone())));
    }
    let whole: Vec<usize> = cases.iter().map(|(payload, _)| payload.len()).collect();
    for len in (0..full.len()).filter(|len| !whole.contains(len)) {
        assert!(
            matches!(decode_as(Command::VERSION, &full[..len]), Err(DecodeError::Malformed(..))),
            "{len} bytes"
        );
    }
}

#[test]
fn a_negative_version_is_older_than_any() {
    let full = encode(MAGIC, &Message::Version(Version { version: 0xffff_fff0, ..version() }));
    assert_eq!(decode(&one_frame(&full)), Ok(Message::Version(Version { version: 0, ..version() })));
}

#[test]
fn a_checksum_that_does_not_match_drops_all_but_a_block() {
    let damaged = |message: &Message| {
        let mut bytes = encode(MAGIC, message).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        one_frame(&bytes)
    };
    assert_eq!(decode(&damaged(&Message::Ping(1))), Err(DecodeError::BadChecksum(Command::PING)));
    let tx = Message::Tx(Bytes::from_static(&[1; 60]));
    assert_eq!(decode(&damaged(&tx)), Err(DecodeError::BadChecksum(Command::TX)));

    // The merkle root tells; the checksum can still be asked.
    let sent = Message::Block(WireBlock::new(Bytes::from_static(&[1; 200])));
    let Ok(Message::Block(block)) = decode(&damaged(&sent)) else { panic!("not a block") };
    assert!(!block.is_as_sent());
    let Ok(Message::Block(block)) = decode(&one_frame(&encode(MAGIC, &sent))) else { panic!("not a block") };
    assert!(block.is_as_sent());
}

#[test]
fn a_block_is_handed_on_without_a_copy() {
    let frame = one_frame(&encode(MAGIC, &Message::Block(WireBlock::new(vec![5; 1_000_000].into()))));
    let Ok(Message::Block(block)) = decode(&frame) else { panic!("not a block") };
    assert_eq!(block.bytes.as_ptr(), frame.payload.unwrap().as_ptr());
}

#[test]
fn unknown_commands_have_a_name_and_bad_ones_are_dropped() {
    for name in ["feature", "sendtxrcncl", "reject", ""] {
        assert_eq!(decode_as(Command::new(name), &[1, 2, 3]), Ok(Message::Unknown(name.to_owned())));
    }
    let recorded = include_bytes!("../../../fixtures/p2p/merkleblock-300025.bin");
    let unknown = Ok(Message::Unknown("merkleblock".to_owned()));
    assert_eq!(decode_as(Command::new("merkleblock"), recorded), unknown);
    let bad = Command::new("pi\x07ng");
    assert_eq!(decode_as(bad, &[]), Err(DecodeError::BadCommand(bad)));
}

/// Bytes that the vectors of a message hold.
fn allocated(message: &Message) -> usize {
    fn of<T>(vec: &Vec<T>) -> usize {
        vec.capacity() * size_of::<T>()
    }
    match message {
        Message::Version(version) => of(&version.user_agent),
        Message::GetHeaders { locator, .. } => of(locator),
        Message::Headers(headers) => of(headers),
        Message::Inv(entries) | Message::GetData(entries) | Message::NotFound(entries) => of(entries),
        Message::Block(block) => block.bytes.len(),
        Message::Tx(bytes) => bytes.len(),
        Message::CompactBlock(block) => of(&block.short_ids) + of(&block.prefilled),
        Message::GetBlockTxn { positions, .. } => of(positions),
        Message::BlockTxn { transactions, .. } => of(transactions),
        Message::Addresses(entries) => of(entries),
        Message::Unknown(name) => name.capacity(),
        Message::Verack
        | Message::WtxidRelay
        | Message::SendAddrV2
        | Message::SendHeaders
        | Message::SendCmpct { .. }
        | Message::FeeFilter(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::GetAddr
        | Message::Mempool => 0,
    }
}

fn transaction() -> Bytes {
    let genesis = bitcoin::constants::genesis_block(Network::Bitcoin);
    bitcoin::consensus::serialize(&genesis.txdata[0]).into()
}

/// A real payload for each command that has one, to be damaged.
fn seeds() -> Vec<(Command, Vec<u8>)> {
    let mut seeds = Vec::new();
    let session = recorded_session();
    let mut decoder = FrameDecoder::new([0xe3, 0xe1, 0xf3, 0xe8]);
    let mut input = &session[..];
    while let Some(frame) = decoder.next_frame(&mut input).unwrap() {
        let payload = frame.payload.unwrap_or_default();
        if payload.len() < 5_000 && seeds.iter().filter(|(command, _)| *command == frame.command).count() < 5
        {
            seeds.push((frame.command, payload.to_vec()));
        }
    }
    let inv = &include_bytes!("../../../fixtures/p2p/mainnet-inv-500.bin")[HEADER_LEN..];
    let locator =
        Message::GetHeaders { locator: vec![BlockHash::all_zeros(); 30], stop: BlockHash::all_zeros() };
    let compact = include_bytes!("../../../fixtures/p2p/compact-block-426884.bin");
    seeds.push((Command::CMPCT_BLOCK, compact.to_vec()));
    let transactions =
        Message::BlockTxn { block: BlockHash::all_zeros(), transactions: vec![transaction(); 9] };
    seeds.push((Command::BLOCK_TXN, encode(MAGIC, &transactions)[HEADER_LEN..].to_vec()));
    let request =
        Message::GetBlockTxn { block: BlockHash::all_zeros(), positions: vec![0, 1, 7, 400, 65_535] };
    seeds.push((Command::GET_BLOCK_TXN, encode(MAGIC, &request)[HEADER_LEN..].to_vec()));
    seeds.push((Command::INV, inv.to_vec()));
    seeds.push((Command::NOT_FOUND, inv.to_vec()));
    seeds.push((Command::GET_HEADERS, encode(MAGIC, &locator)[HEADER_LEN..].to_vec()));
    seeds
}

#[test]
fn no_payload_makes_a_decoder_panic_or_take_more_than_twice_its_length() {
    let seeds = seeds();
    let (mut read, mut dropped, mut refused) = (0, 0, 0);
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (command, payload) = if rng.bool() {
            let command = COMMANDS[rng.usize(..COMMANDS.len())];
            let len = rng.usize(..=command.limit().min(600));
            (command, std::iter::repeat_with(|| rng.u8(..)).take(len).collect::<Vec<u8>>())
        } else {
            let (command, mut payload) = seeds[rng.usize(..seeds.len())].clone();
            for _ in 0..rng.usize(1..6) {
                if payload.is_empty() {
                    break;
                }
                let at = rng.usize(..payload.len().min(200));
                match rng.u8(..4) {
                    0 => payload[at] = rng.u8(..),
                    1 => payload[at] = [0, 0xfc, 0xfd, 0xfe, 0xff][rng.usize(..5)],
                    2 => payload.truncate(at),
                    _ => payload[at] ^= 1 << rng.u8(..8),
                }
            }
            (command, payload)
        };
        match decode_as(command, &payload) {
            Ok(message) => {
                read += 1;
                let budget = 2 * (payload.len() + HEADER_LEN);
                assert!(allocated(&message) <= budget, "seed {seed}: {} for {budget}", allocated(&message));
            }
            Err(DecodeError::Malformed(..)) => dropped += 1,
            Err(DecodeError::Forbidden(_)) => refused += 1,
            Err(error @ (DecodeError::BadChecksum(_) | DecodeError::BadCommand(_))) => panic!("{error}"),
        }
    }
    assert!(
        read > 3_000 && dropped > 3_000 && refused > 100,
        "{read} read, {dropped} dropped, {refused} refused"
    );
}

fn any_hash() -> impl Strategy<Value = sha256d::Hash> {
    any::<[u8; 32]>().prop_map(sha256d::Hash::from_byte_array)
}

fn any_entries() -> impl Strategy<Value = Vec<Inventory>> {
    let kind = prop_oneof![Just(1_u32), Just(2), Just(5), Just(0x4000_0001), Just(0x4000_0002), any::<u32>()];
    vec((kind, any_hash()).prop_map(|(number, hash)| Inventory { kind: kind_of(number), hash }), 0..300)
}

fn any_header() -> impl Strategy<Value = Header> {
    any::<[u8; 80]>().prop_map(|bytes| bitcoin::consensus::deserialize(&bytes).unwrap())
}

fn any_version() -> impl Strategy<Value = Version> {
    let fields = (0..=i32::MAX as u32, any::<u64>(), any::<i64>(), any::<u64>(), any::<i32>(), any::<bool>());
    (fields, vec(any::<u8>(), 0..300)).prop_map(|(fields, user_agent)| {
        let (version, services, timestamp, nonce, start_height, relay) = fields;
        Version { version, services: services.into(), timestamp, nonce, user_agent, start_height, relay }
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    let block_hash = || any_hash().prop_map(BlockHash::from_raw_hash);
    prop_oneof![
        any_version().prop_map(Message::Version),
        Just(Message::Verack),
        Just(Message::WtxidRelay),
        Just(Message::SendAddrV2),
        Just(Message::SendHeaders),
        Just(Message::GetAddr),
        Just(Message::Mempool),
        (any::<bool>(), any::<u64>())
            .prop_map(|(high_bandwidth, version)| Message::SendCmpct { high_bandwidth, version }),
        any::<u64>().prop_map(Message::FeeFilter),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        (vec(block_hash(), 0..=101), block_hash())
            .prop_map(|(locator, stop)| Message::GetHeaders { locator, stop }),
        vec(any_header(), 0..100).prop_map(Message::Headers),
        any_entries().prop_map(Message::Inv),
        any_entries().prop_map(Message::GetData),
        any_entries().prop_map(Message::NotFound),
        vec(any::<u8>(), 81..2_000).prop_map(|bytes| Message::Block(WireBlock::new(bytes.into()))),
        vec(any::<u8>(), 0..2_000).prop_map(|bytes| Message::Tx(bytes.into())),
        (any_header(), any::<u64>(), vec(0..1u64 << 48, 20..100), btree_set(0..20u16, 0..9)).prop_map(
            |(header, nonce, short_ids, positions)| {
                let prefilled = positions.into_iter().map(|position| (position, transaction())).collect();
                Message::CompactBlock(CompactBlock { header, nonce, short_ids, prefilled })
            }
        ),
        (block_hash(), btree_set(any::<u16>(), 0..300)).prop_map(|(block, positions)| {
            Message::GetBlockTxn { block, positions: positions.into_iter().collect() }
        }),
        (block_hash(), 0..30usize)
            .prop_map(|(block, count)| Message::BlockTxn { block, transactions: vec![transaction(); count] }),
    ]
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was(message in any_message()) {
        prop_assert_eq!(decode(&one_frame(&encode(MAGIC, &message))), Ok(message));
    }
}
