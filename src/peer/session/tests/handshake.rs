//! Who may talk, and in which order.

use super::*;

#[test]
fn the_handshake_goes_in_the_order_of_core() {
    let mut harness = Harness::new();
    let ours = Version {
        version: 70016,
        services: ServiceFlags::WITNESS,
        timestamp: 1_700_000_000,
        nonce: 0x1111,
        user_agent: USER_AGENT.as_bytes().to_vec(),
        start_height: 170,
        relay: false,
    };
    assert_eq!(harness.sent(), [Message::Version(ours)]);

    harness.says(&[Message::Version(their_version())]);
    assert_eq!(harness.sent(), [Message::WtxidRelay, Message::SendAddrV2, Message::Verack]);

    harness.says(&[Message::WtxidRelay, Message::SendAddrV2]);
    assert_eq!(harness.outputs(), []);

    harness.says(&[Message::Verack]);
    let outputs = harness.outputs();
    let info = PeerInfo {
        version: 70016,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        user_agent: "/Satoshi:29.0.0/".to_owned(),
        start_height: 900_000,
        relay: true,
        wtxid_relay: true,
    };
    let Some((Output::Ready(ready), sends)) = outputs.split_last() else { panic!("{outputs:?}") };
    assert_eq!(*ready, info);
    let sent: Vec<_> = sends
        .iter()
        .map(|output| match output {
            Output::Send(bytes) => decode_one(bytes),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        sent,
        [Message::SendCmpct { high_bandwidth: false, version: 2 }, Message::FeeFilter(2_100_000_000_000_000)]
    );
}

#[test]
fn an_older_peer_is_not_told_what_it_does_not_know() {
    let mut harness = Harness::new();
    harness.outputs();
    harness.says(&[Message::Version(Version { version: 70015, ..their_version() })]);
    assert_eq!(harness.sent(), [Message::Verack]);
    // What it may not have agreed on does not count.
    harness.says(&[Message::WtxidRelay, Message::Verack]);
    let ready = harness.outputs().pop();
    assert!(matches!(ready, Some(Output::Ready(PeerInfo { version: 70015, wtxid_relay: false, .. }))));
}

#[test]
fn a_newer_peer_speaks_our_version() {
    let mut harness = Harness::new();
    harness.says(&[Message::Version(Version { version: 70017, ..their_version() }), Message::Verack]);
    assert!(matches!(harness.outputs().pop(), Some(Output::Ready(PeerInfo { version: 70016, .. }))));
}

#[test]
fn peers_that_are_of_no_use_are_closed() {
    let cases = [
        (Version { version: 70014, ..their_version() }, "speaks version 70014, below 70015"),
        (Version { services: ServiceFlags::NETWORK, ..their_version() }, "serves no witnesses"),
        (Version { nonce: 0x1111, ..their_version() }, "connected to ourselves"),
    ];
    for (version, why) in cases {
        let mut harness = Harness::new();
        harness.outputs();
        harness.says(&[Message::Version(version)]);
        assert_eq!(harness.closed(), CloseReason::Useless(why.to_owned()));
    }
}

#[test]
fn two_sessions_of_one_process_find_out_that_they_are_one() {
    let (mut alice, mut bob) = (Harness::new(), Harness::new());
    let Some(Output::Send(version)) = alice.session.poll() else { panic!("no version") };
    bob.outputs();
    bob.says_bytes(&version);
    assert_eq!(bob.closed(), CloseReason::Useless("connected to ourselves".to_owned()));
}

#[test]
fn a_long_user_agent_closes_and_a_strange_one_is_cleaned() {
    let with_agent = |user_agent: &[u8]| {
        let mut harness = Harness::new();
        harness.outputs();
        harness.says(&[Message::Version(Version { user_agent: user_agent.to_vec(), ..their_version() })]);
        harness.says(&[Message::Verack]);
        harness
    };
    assert_eq!(with_agent(&[b'a'; 300]).closed(), bad_message("user agent of 300 bytes"));
    assert_eq!(with_agent(&[b'a'; 257]).closed(), bad_message("user agent of 257 bytes"));
    for (sent, shown) in
        [(&[b'a'; 256][..], "a".repeat(256)), (b"/x\xff\xfe\x1b[2J\n/", "/x???[2J?/".to_owned())]
    {
        let Some(Output::Ready(info)) = with_agent(sent).outputs().pop() else { panic!("not ready") };
        assert_eq!(info.user_agent, shown);
    }
}

#[test]
fn a_version_that_never_comes_closes_after_a_minute() {
    let mut harness = Harness::new();
    harness.outputs();
    harness.advance(59 * SECOND);
    // Talking about other things does not help.
    harness.says(&[Message::Ping(1)]);
    assert_eq!(harness.outputs(), []);
    harness.advance(SECOND);
    assert_eq!(harness.closed(), CloseReason::HandshakeTimeout);
}

#[test]
fn a_verack_that_never_comes_closes_after_a_minute() {
    let mut harness = Harness::new();
    harness.advance(30 * SECOND);
    harness.says(&[Message::Version(their_version())]);
    harness.outputs();
    harness.advance(29 * SECOND);
    assert_eq!(harness.outputs(), []);
    harness.advance(SECOND);
    assert_eq!(harness.closed(), CloseReason::HandshakeTimeout);
}

#[test]
fn a_handshake_out_of_order_is_waited_out() {
    let mut harness = Harness::new();
    harness.outputs();
    // verack and the rest before version mean nothing, nor does a second version.
    harness.says(&[Message::Verack, Message::WtxidRelay, Message::SendAddrV2]);
    assert_eq!(harness.outputs(), []);
    harness.says(&[Message::Version(their_version())]);
    assert_eq!(harness.sent().len(), 3);
    harness.says(&[Message::Version(Version { version: 1, nonce: 0x1111, ..their_version() })]);
    assert_eq!(harness.outputs(), []);
    harness.says(&[Message::Verack]);
    let Some(Output::Ready(info)) = harness.outputs().pop() else { panic!("not ready") };
    assert!(!info.wtxid_relay, "wtxidrelay came before version");
}

#[test]
fn what_comes_before_verack_is_ignored_even_if_it_is_forbidden() {
    let mut harness = Harness::new();
    harness.says(&[Message::Version(their_version())]);
    harness.outputs();
    harness.says(&[
        Message::Ping(1),
        Message::Inv(vec![entry(InventoryKind::Tx)]),
        Message::Headers(Vec::new()),
        Message::GetHeaders { locator: Vec::new(), stop: bitcoin::BlockHash::all_zeros() },
        Message::Unknown("feature".to_owned()),
        Message::Unknown("sendtxrcncl".to_owned()),
    ]);
    harness.says_bytes(&sendcmpct_with_a_bad_flag());
    assert_eq!(harness.outputs(), []);

    let mut harness = Harness::ready();
    harness.says_bytes(&sendcmpct_with_a_bad_flag());
    assert_eq!(harness.closed(), bad_message("sendcmpct with 2 for a flag"));
}

#[test]
fn a_damaged_version_can_be_said_again() {
    let mut harness = Harness::new();
    harness.outputs();
    harness.says_bytes(&damaged(&Message::Version(their_version())));
    assert_eq!(harness.outputs(), []);
    harness.says(&[Message::Version(their_version())]);
    assert_eq!(harness.sent().len(), 3);
}
