//! What is handed on, what is passed over, what closes.

use super::*;

#[test]
fn a_session_survives_a_thousand_unknown_messages_and_repeated_handshakes() {
    let mut harness = Harness::ready();
    for number in 0..1000 {
        harness.says(&[Message::Unknown(format!("unknown{number}"))]);
    }
    harness.says(&[
        Message::Version(their_version()),
        Message::Verack,
        Message::Unknown("feature".to_owned()),
        Message::Unknown("sendtxrcncl".to_owned()),
        Message::GetAddr,
        Message::Mempool,
        Message::SendCmpct { high_bandwidth: true, version: 1 },
    ]);
    assert_eq!(harness.outputs(), []);
    harness.says(&[Message::Ping(5)]);
    assert_eq!(harness.sent(), [Message::Pong(5)]);
}

#[test]
fn late_feature_messages_close() {
    for (message, what) in
        [(Message::WtxidRelay, "wtxidrelay after verack"), (Message::SendAddrV2, "sendaddrv2 after verack")]
    {
        let mut harness = Harness::ready();
        harness.says(&[message]);
        assert_eq!(harness.closed(), bad_message(what));
    }
}

#[test]
fn a_damaged_message_is_dropped_and_the_peer_kept() {
    let mut harness = Harness::ready();
    harness.says_bytes(&damaged(&Message::Ping(1)));
    harness.says_bytes(&crate::peer::wire::frame(MAGIC, Command::PING, |out| out.push(1)));
    harness.says_bytes(&crate::peer::wire::frame(MAGIC, Command::new("pi\x01ng"), |_| {}));
    harness.says_bytes(&crate::peer::wire::frame(MAGIC, Command::INV, |out| out.push(200)));
    assert_eq!(harness.outputs(), []);
    harness.says(&[Message::Ping(2)]);
    assert_eq!(harness.sent(), [Message::Pong(2)]);
}

#[test]
fn another_protocol_or_a_length_over_the_limit_closes_at_once() {
    let mut harness = Harness::new();
    harness.outputs();
    harness.says_bytes(b"HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(harness.closed(), bad_message("frame begins with 48545450, not with the network's fabfb5da"));

    let mut header = encode(MAGIC, &Message::Block(WireBlock::new(vec![0; 100].into())))[..24].to_vec();
    header[16..20].copy_from_slice(&4_000_001_u32.to_le_bytes());
    let mut harness = Harness::ready();
    harness.says_bytes(&header);
    assert_eq!(harness.closed(), bad_message("block of 4000001 bytes, over the limit of 4000000"));
    assert_eq!(harness.session.buffered(), 0);
}

#[test]
fn after_the_close_nothing_comes_out() {
    let mut harness = Harness::ready();
    let header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
    // One piece of bytes: what stands before the fault counts, what stands after it does not.
    let bytes = [
        encode(MAGIC, &Message::Headers(vec![header])),
        encode(MAGIC, &Message::WtxidRelay),
        encode(MAGIC, &Message::Ping(1)),
    ]
    .concat();
    harness.says_bytes(&bytes);
    assert_eq!(
        harness.outputs(),
        [
            Output::Message(Message::Headers(vec![header])),
            Output::Close(bad_message("wtxidrelay after verack"))
        ]
    );
    harness.says(&[Message::Ping(2)]);
    harness.session.send(&Message::SendHeaders);
    harness.session.close(CloseReason::Shutdown);
    harness.session.handle_resume(harness.now);
    assert_eq!(harness.session.next_timeout(), None);
    harness.advance(60 * MINUTE);
    assert_eq!(harness.outputs(), []);
}

#[test]
fn the_node_can_send_once_the_handshake_is_done_and_close_when_it_likes() {
    let mut harness = Harness::new();
    harness.outputs();
    harness.session.send(&Message::SendHeaders);
    assert_eq!(harness.outputs(), []);

    let mut harness = Harness::ready();
    harness.session.send(&Message::SendHeaders);
    assert_eq!(harness.sent(), [Message::SendHeaders]);
    harness.session.close(CloseReason::Misbehaved(Misbehavior::InvalidChain));
    assert_eq!(harness.closed(), CloseReason::Misbehaved(Misbehavior::InvalidChain));
}

#[test]
fn getheaders_is_answered_with_nothing_and_not_often() {
    let ask = Message::GetHeaders { locator: Vec::new(), stop: bitcoin::BlockHash::all_zeros() };
    let mut harness = Harness::ready();
    harness.says(&[ask.clone(), ask.clone()]);
    assert_eq!(harness.sent(), [Message::Headers(Vec::new())]);
    harness.advance(9 * SECOND);
    harness.says(std::slice::from_ref(&ask));
    assert_eq!(harness.outputs(), []);
    harness.advance(SECOND);
    harness.says(&[ask]);
    assert_eq!(harness.sent(), [Message::Headers(Vec::new())]);
}

#[test]
fn what_later_stages_need_is_handed_on() {
    let mut harness = Harness::ready();
    let header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
    let messages = [
        Message::Headers(vec![header; 3]),
        Message::Inv(vec![entry(InventoryKind::Block)]),
        Message::NotFound(vec![entry(InventoryKind::WtxidTx)]),
        Message::Block(WireBlock::new(vec![1; 300].into())),
        Message::Tx(vec![1; 60].into()),
        Message::FeeFilter(1000),
        Message::SendHeaders,
        Message::SendCmpct { high_bandwidth: false, version: 2 },
        Message::BlockTxn { block: header.block_hash(), transactions: vec![] },
    ];
    harness.says(&messages);
    assert_eq!(harness.handed_on(), messages);

    harness.says(&[
        Message::NotFound(vec![entry(InventoryKind::WtxidTx); 5_017]),
        Message::FeeFilter(2_100_000_000_000_001),
        Message::Inv(vec![entry(InventoryKind::Other(3))]),
    ]);
    assert_eq!(harness.outputs(), []);
}

#[test]
fn getdata_is_handed_on_for_transactions_and_left_unanswered_for_blocks() {
    let mut harness = Harness::ready();
    let (tx, block) = (entry(InventoryKind::WtxidTx), entry(InventoryKind::WitnessBlock));
    harness.says(&[Message::GetData(vec![block, tx, block]), Message::GetData(vec![block])]);
    assert_eq!(harness.handed_on(), [Message::GetData(vec![tx])]);
}

#[test]
fn announced_transactions_close_a_peer_that_was_told_to_announce_none() {
    for kind in [InventoryKind::Tx, InventoryKind::WtxidTx, InventoryKind::WitnessTx] {
        let mut harness = Harness::ready();
        harness.says(&[Message::Inv(vec![entry(InventoryKind::Block), entry(kind)])]);
        assert_eq!(harness.closed(), bad_message("inv of a transaction, although we asked for none"));
    }
}

#[test]
fn transactions_are_announced_in_the_kind_that_was_agreed_on() {
    let mut harness = Harness::ready_with(Local { relay: true, ..local() });
    let (wtxid, txid) = (entry(InventoryKind::WtxidTx), entry(InventoryKind::Tx));
    let block = entry(InventoryKind::Block);
    harness.says(&[Message::Inv(vec![wtxid, txid, block]), Message::Inv(vec![txid])]);
    assert_eq!(harness.handed_on(), [Message::Inv(vec![wtxid, block])]);
}

#[test]
fn noise_in_any_stage_never_panics_and_never_speaks_after_the_close() {
    let good: Vec<Vec<u8>> = [
        Message::Version(their_version()),
        Message::Verack,
        Message::WtxidRelay,
        Message::SendAddrV2,
        Message::Ping(1),
        Message::Pong(0),
        Message::Inv(vec![entry(InventoryKind::Block); 3]),
        Message::GetData(vec![entry(InventoryKind::Tx); 3]),
        Message::Headers(Vec::new()),
        Message::Block(WireBlock::new(vec![1; 100].into())),
        Message::SendHeaders,
    ]
    .iter()
    .map(|message| encode(MAGIC, message).to_vec())
    .collect();

    let (mut closed, mut ready) = (0, 0);
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut harness = if rng.bool() { Harness::ready() } else { Harness::new() };
        let mut is_closed = false;
        for _ in 0..40 {
            let mut bytes = good[rng.usize(..good.len())].clone();
            if rng.u8(..10) == 0 {
                let at = rng.usize(..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
            match rng.u8(..10) {
                0 => harness.advance(Duration::from_secs(rng.u64(..100))),
                1 => harness.says_bytes(&bytes[..rng.usize(..bytes.len())]),
                _ => harness.says_bytes(&bytes),
            }
            for output in harness.outputs() {
                assert!(!is_closed, "seed {seed}: {output:?} after the close");
                match output {
                    Output::Close(_) => is_closed = true,
                    Output::Ready(_) => ready += 1,
                    Output::Send(_) | Output::Message(_) => {}
                }
            }
        }
        closed += usize::from(is_closed);
    }
    assert!(closed > 500 && ready > 50, "{closed} closed, {ready} became ready by chance");
}
