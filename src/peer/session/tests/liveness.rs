//! Pings, silence and messages that do not end.

use super::*;

#[test]
fn pings_go_out_every_two_minutes_and_pongs_must_match() {
    let mut harness = Harness::ready();
    let mut nonces = Vec::new();
    for _ in 0..20 {
        harness.advance(2 * MINUTE - SECOND);
        assert_eq!(harness.outputs(), []);
        harness.advance(SECOND);
        let [Message::Ping(nonce)] = harness.sent()[..] else { panic!("no ping") };
        nonces.push(nonce);
        harness.says(&[Message::Pong(nonce ^ 1), Message::Pong(0), Message::Pong(nonce)]);
        assert_eq!(harness.handed_on(), [Message::Pong(nonce ^ 1), Message::Pong(0)], "not to these pings");
    }
    assert!(!nonces.contains(&0));
    nonces.dedup();
    assert_eq!(nonces.len(), 20);
}

#[test]
fn a_ping_without_its_pong_closes_after_twenty_minutes() {
    let mut harness = Harness::ready();
    harness.advance(2 * MINUTE);
    let [Message::Ping(nonce)] = harness.sent()[..] else { panic!("no ping") };
    // It talks, but does not answer.
    for _ in 0..19 {
        harness.advance(MINUTE);
        harness.says(&[Message::Pong(nonce ^ 1), Message::Pong(0)]);
        harness.handed_on();
    }
    assert_eq!(harness.outputs(), []);
    harness.advance(MINUTE);
    assert_eq!(harness.closed(), CloseReason::Inactive);
}

#[test]
fn a_silent_peer_is_closed_after_twenty_minutes() {
    let mut harness = Harness::ready();
    harness.advance(20 * MINUTE - SECOND);
    assert!(matches!(harness.sent()[..], [Message::Ping(_)]));
    harness.advance(SECOND);
    assert_eq!(harness.closed(), CloseReason::Inactive);
}

#[test]
fn a_message_that_does_not_end_within_a_minute_closes() {
    let inv = encode(MAGIC, &Message::Inv(vec![entry(InventoryKind::Block); 100]));
    for len in [1, 23, 24, 1000] {
        let mut harness = Harness::ready();
        harness.says_bytes(&inv[..len]);
        harness.advance(59 * SECOND);
        assert_eq!(harness.outputs(), [], "{len} bytes");
        harness.advance(SECOND);
        assert_eq!(harness.closed(), CloseReason::Misbehaved(Misbehavior::Stalled), "{len} bytes");
    }
    // A byte every second is no excuse.
    let mut harness = Harness::ready();
    for byte in &inv[..60] {
        harness.says_bytes(&[*byte]);
        harness.advance(SECOND);
    }
    assert_eq!(harness.closed(), CloseReason::Misbehaved(Misbehavior::Stalled));
}

#[test]
fn each_message_has_its_own_minute() {
    let mut harness = Harness::ready();
    let bytes = encode(MAGIC, &Message::FeeFilter(1));
    // The end of one message comes with the beginning of the next, for an hour; nothing is ever complete for long.
    harness.says_bytes(&bytes[..10]);
    for _ in 0..60 {
        harness.advance(59 * SECOND);
        harness.says_bytes(&[&bytes[10..], &bytes[..10]].concat());
        for output in harness.outputs() {
            match output {
                Output::Message(Message::FeeFilter(1)) => {}
                Output::Send(ping) => {
                    let Message::Ping(nonce) = decode_one(&ping) else { panic!("not a ping") };
                    // The line is taken by half a message, so the answer waits until that has ended.
                    let pong = encode(MAGIC, &Message::Pong(nonce));
                    harness.says_bytes(&[&bytes[10..], &pong, &bytes[..10]].concat());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_block_that_trickles_closes_within_two_minutes() {
    let mut harness = Harness::ready();
    let block = part_of_block(100_000);
    for second in 0..120 {
        assert_eq!(harness.session.poll(), None, "after {second} s");
        harness.says_bytes(&block[second * 100..][..100]);
        harness.advance(SECOND);
    }
    let outputs = harness.outputs();
    assert_eq!(outputs.last(), Some(&Output::Close(CloseReason::Misbehaved(Misbehavior::Stalled))));
}

#[test]
fn a_block_that_stops_halfway_closes_in_the_next_window() {
    let mut harness = Harness::ready();
    harness.says_bytes(&part_of_block(500_000));
    harness.advance(2 * MINUTE);
    assert!(matches!(harness.sent()[..], [Message::Ping(_)]), "it brought enough for one window");
    harness.advance(2 * MINUTE);
    assert_eq!(harness.closed(), CloseReason::Misbehaved(Misbehavior::Stalled));
}

#[test]
fn a_block_on_a_slow_line_is_waited_for() {
    let mut harness = Harness::ready();
    let block = part_of_block(1_000_024);
    let mut blocks = 0;
    // 1,250 bytes a second: thirteen minutes for a megabyte.
    for piece in block.chunks(1_250) {
        harness.says_bytes(piece);
        harness.advance(SECOND);
        for output in harness.outputs() {
            match output {
                Output::Send(_) => {}
                Output::Message(Message::Block(_)) => blocks += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(blocks, 1);
}

#[test]
fn time_in_which_we_did_not_read_is_not_the_peers_fault() {
    let mut harness = Harness::ready();
    harness.advance(2 * MINUTE);
    harness.says_bytes(&part_of_block(30));
    assert!(matches!(harness.sent()[..], [Message::Ping(_)]));

    // Half an hour of waiting for our own disk; the timers are looked at before the socket is.
    harness.now = harness.now.after(30 * MINUTE);
    harness.session.handle_resume(harness.now);
    harness.session.handle_timeout(harness.now);
    assert_eq!(harness.outputs(), []);

    harness.advance(2 * MINUTE);
    assert_eq!(harness.closed(), CloseReason::Misbehaved(Misbehavior::Stalled));
}
