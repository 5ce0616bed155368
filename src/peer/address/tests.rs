//! What is read of messages that peers made, and how hosts are written.

use super::super::message::{DecodeError, decode, encode};
use super::super::types::{Message, Misbehavior};
use super::super::wire::{Command, Frame, checksum_of};
use super::*;

/// A key and its name, of Tor's own documentation of services.
const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn bytes(hex: &str) -> Vec<u8> {
    bitcoin::hex::FromHex::from_hex(hex).unwrap()
}

fn frame(command: Command, payload: Vec<u8>) -> Frame {
    Frame { command, len: payload.len(), checksum: checksum_of(&payload), payload: Some(payload.into()) }
}

fn read(command: Command, payload: &[&[u8]]) -> Result<Vec<Gossip>, DecodeError> {
    match decode(&frame(command, payload.concat()))? {
        Message::Addresses(entries) => Ok(entries),
        other => panic!("{other:?}"),
    }
}

/// An entry of `addrv2` with services 0x409 of the year 2026.
fn entry(network: u8, address: &[u8], port: u16) -> Vec<u8> {
    let head = [&1_790_000_000_u32.to_le_bytes()[..], &[0xfd, 0x09, 0x04, network, address.len() as u8]];
    [&head.concat(), address, &port.to_be_bytes()].concat()
}

fn hosts(entries: &[Gossip]) -> Vec<String> {
    entries.iter().map(|entry| format!("{} {}", entry.address.host, entry.address.port)).collect()
}

#[test]
fn a_message_of_a_real_peer_is_read() {
    let recorded = include_bytes!("../../../fixtures/p2p/testnet3-addr-1000.bin");
    let entries = read(Command::ADDR, &[&recorded[24..]]).unwrap();
    assert_eq!(entries.len(), 1_000);
    assert!(entries.iter().filter(|entry| entry.address.host.is_routable()).count() > 900);
}

/// Test 60.
#[test]
fn each_network_is_read_or_passed_over_and_the_rest_is_kept() {
    let mut mapped = [0; 16];
    mapped[10..12].copy_from_slice(&[0xff, 0xff]);
    let (v6, onion) = (bytes("20010db8000000000000000000000001"), bytes(KEY));
    let tor_v2 = [&TOR_V2_PREFIX[..], &[7; 10]].concat();
    let payload = [
        vec![9],
        entry(1, &[1, 2, 3, 4], 8333),
        entry(2, &v6, 8334),
        entry(2, &mapped, 8335),
        entry(2, &tor_v2, 8335),
        entry(3, &[7; 10], 8336),
        entry(4, &onion, 8337),
        entry(5, &[7; 32], 0),
        entry(6, &[0xfc; 16], 8339),
        entry(77, &[7; 99], 8340),
    ];
    let payload: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
    let entries = read(Command::ADDR_V2, &payload).unwrap();
    let onion = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion 8337";
    assert_eq!(hosts(&entries), ["1.2.3.4 8333", "2001:db8::1 8334", onion]);
    assert!(entries.iter().all(|entry| entry.services.to_u64() == 0x409 && entry.time == 1_790_000_000));
}

#[test]
fn what_cannot_be_read_is_dropped_and_only_too_many_are_forbidden() {
    let long = [&[1][..], &[0; 4], &[1, 1], &[0xfd, 1, 2], &[0; 513], &[0; 2]];
    let cases: [(Command, &[&[u8]], &str); 5] = [
        (Command::ADDR_V2, &[&[1], &entry(4, &[7; 31], 1)], "address of a wrong length"),
        (Command::ADDR_V2, &[&[1], &entry(1, &[7; 16], 1)], "address of a wrong length"),
        (Command::ADDR_V2, &long, "address over 512 bytes"),
        (Command::ADDR_V2, &[&[1], &entry(4, &[7; 32], 1)[..40]], "ends too early"),
        (Command::ADDR, &[&[2], &[0; ENTRY_LEN]], "ends too early"),
    ];
    for (command, payload, why) in cases {
        assert_eq!(read(command, payload), Err(DecodeError::Malformed(command, why)));
    }
    for command in [Command::ADDR, Command::ADDR_V2] {
        let error = read(command, &[&[0xfd, 0xe9, 0x03], &[0; 1_001 * ENTRY_LEN]]).unwrap_err();
        assert!(matches!(error, DecodeError::Forbidden(Misbehavior::BadMessage(_))), "{error:?}");
    }
}

/// Test 60.
#[test]
fn a_name_with_an_error_in_it_is_none() {
    let name = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenl5sid.onion";
    for text in [name, "1.2.3.4", "2001:db8::1"] {
        assert_eq!(text.parse::<Host>().map(|host| host.to_string()).as_deref(), Ok(text));
    }
    let other = name.replace('q', "r");
    for text in [&other, &name[1..], &name[..56], "a.onion", ".onion", "", "1.2.3", "é.onion", "example.org"]
    {
        assert_eq!(text.parse::<Host>(), Err(NoHost), "{text}");
    }
}

#[test]
fn services_may_be_any_number() {
    let head = [&[1][..], &[0; 4], &[0xff, 9, 4, 0, 0x10, 0, 0, 0, 1]];
    let entries = read(Command::ADDR_V2, &[&head.concat(), &[1, 4, 1, 2, 3, 4, 0x20, 0x8d]]).unwrap();
    assert_eq!(entries[0].services.to_u64(), 0x0100_0000_1000_0409);
}

#[test]
fn what_is_written_is_read_again() {
    let hosts = [Host::V4([5, 6, 7, 8].into()), Host::V6(Ipv6Addr::LOCALHOST), Host::Onion([9; 32])];
    let gossip =
        |host| Gossip { time: 5, services: ServiceFlags::WITNESS, address: Address { host, port: 8333 } };
    let entries = hosts.map(gossip).to_vec();
    let sent = encode([0; 4], &Message::Addresses(entries.clone()));
    assert_eq!(read(Command::ADDR_V2, &[&sent[24..]]), Ok(entries));
}

#[test]
fn strangers_can_reach_what_is_routable() {
    for (text, expected) in [
        ("1.2.3.4", true),
        ("198.20.0.1", true),
        ("0.1.2.3", false),
        ("10.0.0.1", false),
        ("100.64.0.1", false),
        ("127.0.0.1", false),
        ("169.254.1.1", false),
        ("172.31.0.1", false),
        ("192.0.2.1", false),
        ("192.168.0.1", false),
        ("198.19.0.1", false),
        ("255.255.255.255", false),
        ("2a00::1", true),
        ("::", false),
        ("::1", false),
        ("2001:10::1", false),
        ("2001:db8::1", false),
        ("fd00::1", false),
        ("fe80::1", false),
    ] {
        let host: Host = text.parse().unwrap();
        assert_eq!((host.is_routable(), host.to_string().as_str()), (expected, text));
    }
}
