//! Header sync with honest peers: who is asked, when, and what comes of it.

use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;

use super::super::asking::{ANSWER_WINDOW, ASK_AGAIN, HEDGE_AFTER, LATE};
use super::super::peer_state::{REPEAT, REPEAT_NEWS};
use super::super::testing::{chain, child, child_at, genesis, hashes};
use super::super::testing_sync::{ALICE, BOB, CAROL, Net, after};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A sync that knows `headers`, its clock ten minutes after the last of them.
fn at_tip_of(headers: &[Header]) -> Net {
    let mut net = Net::new();
    for &header in headers {
        net.sync.tree.insert_stored(header).unwrap();
    }
    net.now.unix = u64::from(headers[headers.len() - 1].time) + 600;
    net
}

#[test]
fn the_first_sync_is_from_one_peer_and_then_all_are_asked() {
    let headers = chain(&genesis(), 0, 4_500);
    let mut net = Net::new();
    for peer in [ALICE, BOB, CAROL] {
        net.connect(peer);
    }

    for _ in 0..3 {
        assert_eq!((net.asked(BOB), net.asked(CAROL)), (None, None));
        net.answer(ALICE, &headers);
    }

    assert_eq!(net.best(), headers[4_499].block_hash());
    assert_eq!(net.asked(ALICE), None, "a short answer ends the questions");
    assert!(net.asked(BOB).is_some());
    assert!(net.asked(CAROL).is_some());
    assert_eq!(hashes(&net.persisted()), hashes(&headers));
}

#[test]
fn a_chain_that_ends_with_a_full_answer_is_asked_for_once_more() {
    let headers = chain(&genesis(), 0, 2_000);
    let mut net = Net::new();
    net.connect(ALICE);
    net.answer(ALICE, &headers);
    assert!(!net.sync.is_caught_up());
    net.answer(ALICE, &headers);
    assert_eq!(net.asked(ALICE), None);
    assert!(net.sync.is_caught_up());
}

#[test]
fn a_peer_left_behind_on_the_same_chain_goes_on_from_where_we_are() {
    let headers = chain(&genesis(), 0, 9_000);
    let mut net = Net::new();
    net.connect(ALICE);
    net.answer(ALICE, &headers);
    net.connect_honest(BOB, &headers);
    net.asked(ALICE);
    net.advance(ANSWER_WINDOW);
    assert_eq!(net.best(), headers[8_999].block_hash());

    let locator = net.asked(ALICE).unwrap();
    assert_eq!(locator[0], headers[8_998].block_hash());
    // Should its chain part from ours soon after what it sent, it need not begin below that.
    assert!(locator.contains(&headers[1_999].block_hash()));
    assert!(locator.is_sorted_by_key(|&hash| std::cmp::Reverse(net.sync.tree().height(hash))));
}

#[test]
fn a_question_starts_below_our_best_so_that_a_peer_without_news_says_what_it_has() {
    let headers = chain(&genesis(), 0, 30);
    let mut net = at_tip_of(&headers);
    net.connect(ALICE);
    let locator = net.asked(ALICE).unwrap();
    assert_eq!(locator[0], headers[28].block_hash());
    net.headers(ALICE, &headers[29..]);
    assert_eq!(net.sync.peer_tip(ALICE).map(|tip| tip.hash), Some(headers[29].block_hash()));
    assert_eq!(net.persisted(), [], "it was known");
}

#[test]
fn near_the_tip_every_peer_is_asked_at_once() {
    let headers = chain(&genesis(), 0, 30);
    let mut net = at_tip_of(&headers);
    for peer in [ALICE, BOB, CAROL] {
        net.connect(peer);
        assert!(net.asked(peer).is_some());
    }
}

#[test]
fn new_headers_are_kept_then_told_and_known_ones_are_not() {
    let headers = chain(&genesis(), 0, 3);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    net.answer(ALICE, &headers);
    net.take(|output| matches!(output, Output::GetHeaders { .. }));
    let best = Tip { height: Height(3), hash: headers[2].block_hash() };
    assert_eq!(
        net.take(|_| true),
        [
            Output::Persist(headers.iter().zip(1..).map(|(&header, h)| (Height(h), header)).collect()),
            Output::BestChanged(best),
            Output::PeerTip { peer: ALICE },
            Output::SendHeaders { peer: ALICE },
        ]
    );

    net.headers(BOB, &headers);
    assert_eq!(net.take(|_| true), [Output::PeerTip { peer: BOB }, Output::SendHeaders { peer: BOB }]);
}

#[test]
fn an_announcement_by_headers_extends_the_chain_without_a_question() {
    let headers = chain(&genesis(), 0, 5);
    let mut net = at_tip_of(&headers[..4]);
    net.connect_honest(ALICE, &headers[..4]);
    net.headers(ALICE, &headers[4..]);
    assert_eq!(net.best(), headers[4].block_hash());
    assert_eq!(net.asked(ALICE), None);
    assert!(net.sync.is_caught_up());
}

#[test]
fn an_announcement_by_inv_is_answered_with_getheaders() {
    let headers = chain(&genesis(), 0, 6);
    let mut net = at_tip_of(&headers[..4]);
    net.connect(ALICE);
    net.answer(ALICE, &headers[..4]);

    net.inv(ALICE, headers[4].block_hash());
    let locator = net.asked(ALICE).unwrap();
    net.inv(ALICE, headers[5].block_hash());
    assert_eq!(net.asked(ALICE), None, "one question at a time");
    net.headers(ALICE, &after(&locator, &headers[..5]));
    assert_eq!(net.best(), headers[4].block_hash());

    // The second block came after the answer was made.
    net.answer(ALICE, &headers);
    assert_eq!(net.best(), headers[5].block_hash());
    assert_eq!(net.asked(ALICE), None);
}

#[test]
fn an_inv_of_a_known_block_tells_what_the_peer_has() {
    let headers = chain(&genesis(), 0, 4);
    let mut net = at_tip_of(&headers);
    net.connect(ALICE);
    net.answer(ALICE, &headers[..2]);
    net.inv(ALICE, headers[3].block_hash());
    assert_eq!(net.sync.peer_tip(ALICE).map(|tip| tip.height), Some(Height(4)));
    net.inv(ALICE, headers[0].block_hash());
    assert_eq!(net.sync.peer_tip(ALICE).map(|tip| tip.height), Some(Height(4)), "it has no less than before");
    assert_eq!(net.asked(ALICE), None);
}

#[test]
fn an_inv_of_a_block_that_never_comes_asks_twice_and_no_more() {
    let headers = chain(&genesis(), 0, 4);
    let mut net = at_tip_of(&headers);
    net.connect_honest(ALICE, &headers);
    net.connect(BOB);
    net.answer(BOB, &headers);
    net.inv(BOB, BlockHash::hash(b"nobody's"));
    net.answer(BOB, &headers);
    net.answer(BOB, &headers);
    assert_eq!(net.asked(BOB), None);
}

#[test]
fn headers_that_do_not_connect_are_asked_for_once_and_forgiven() {
    let headers = chain(&genesis(), 0, 8);
    let mut net = at_tip_of(&headers[..4]);
    net.connect(ALICE);
    net.answer(ALICE, &headers[..4]);

    net.headers(ALICE, &headers[6..7]);
    let locator = net.asked(ALICE).unwrap();
    net.headers(ALICE, &headers[7..]);
    assert_eq!(net.asked(ALICE), None, "the question is still open");
    assert_eq!(net.dropped(), []);
    net.headers(ALICE, &after(&locator, &headers));
    assert_eq!(net.best(), headers[7].block_hash());
}

#[test]
fn a_fork_of_equal_work_is_kept_and_wins_with_its_next_block() {
    let headers = chain(&genesis(), 0, 10);
    let rival = chain(&headers[7], 1, 3);
    let mut net = at_tip_of(&headers);
    net.connect_honest(ALICE, &headers);
    net.connect(BOB);
    net.take(|_| true);

    net.headers(BOB, &rival[..2]);
    assert_eq!(net.best(), headers[9].block_hash());
    assert_eq!(net.persisted(), rival[..2]);
    net.headers(BOB, &rival[2..]);
    assert_eq!(net.best(), rival[2].block_hash());
    let changes = net.take(|output| matches!(output, Output::BestChanged(_)));
    assert_eq!(changes, [Output::BestChanged(Tip { height: Height(11), hash: rival[2].block_hash() })]);
}

#[test]
fn an_invalid_block_drops_who_follows_it_and_asks_the_others() {
    let headers = chain(&genesis(), 0, 10);
    let rival = chain(&headers[7], 1, 2);
    let mut net = at_tip_of(&headers);
    net.connect_honest(ALICE, &headers);
    net.connect(BOB);
    net.answer(BOB, &rival[..0]);
    net.connect(CAROL);
    net.answer(CAROL, &[headers[..8].to_vec(), rival.clone()].concat());
    net.take(|_| true);

    net.sync.mark_invalid(net.now, headers[8].block_hash());
    net.advance(SECOND);

    net.headers(BOB, &[]);
    assert_eq!(net.dropped(), [(ALICE, Misbehavior::InvalidChain)]);
    assert_eq!(net.best(), rival[1].block_hash());
    assert!(net.asked(CAROL).is_some());

    net.headers(CAROL, &headers[9..]);
    assert_eq!(net.dropped(), [(CAROL, Misbehavior::InvalidChain)], "a header on top of it");
    net.inv(BOB, headers[9].block_hash());
    assert_eq!(net.dropped(), [(BOB, Misbehavior::InvalidChain)], "an inv of it");
}

#[test]
fn a_peer_that_leaves_in_its_turn_is_replaced() {
    let headers = chain(&genesis(), 0, 2_500);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    net.answer(ALICE, &headers);
    net.disconnect(ALICE);
    net.answer(BOB, &headers);
    assert_eq!(net.best(), headers[2_499].block_hash());
}

#[test]
fn a_silent_peer_costs_seconds_and_who_answers_has_the_turn() {
    let headers = chain(&genesis(), 0, 4_500);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    assert!(net.asked(ALICE).is_some());
    net.advance(HEDGE_AFTER - SECOND);
    assert_eq!(net.asked(BOB), None);
    net.advance(SECOND);
    assert_eq!(net.sync.progress().sync_peer, Some(ALICE));
    for _ in 0..3 {
        net.answer(BOB, &headers);
    }
    assert_eq!(net.best(), headers[4_499].block_hash());
    assert_eq!(net.sync.progress().sync_peer, None);
    assert_eq!(net.dropped(), [], "slow is no crime");
}

#[test]
fn a_row_of_silent_peers_is_asked_one_by_one_each_twice_as_long_after_the_one_before() {
    let mut net = Net::new();
    let peers: Vec<_> = (1..=8).map(PeerId).collect();
    peers.iter().for_each(|peer| net.connect(*peer));
    let mut asked_at = Vec::new();
    for second in 0..60 {
        let asked = peers.iter().filter(|peer| net.asked(**peer).is_some()).count();
        assert!(asked <= 1, "{asked} at once");
        asked_at.extend((asked > 0).then_some(second));
        net.advance(SECOND);
    }
    assert_eq!(asked_at, [0, 5, 15, 35]);
    assert!(peers.iter().any(|peer| net.asked(*peer).is_some()), "the turn itself passes on after a minute");
}

#[test]
fn the_first_answer_that_brings_something_wins_and_the_other_is_taken_for_what_it_is() {
    let headers = chain(&genesis(), 0, 4_500);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    net.advance(HEDGE_AFTER);
    // Nothing is no progress.
    net.headers(BOB, &[]);
    assert_eq!(net.sync.progress().sync_peer, Some(ALICE));
    net.answer(ALICE, &headers);
    assert_eq!(net.sync.progress().sync_peer, Some(ALICE));

    // Bob comes too late: alice goes on.
    net.connect(CAROL);
    net.asked(BOB);
    net.advance(HEDGE_AFTER * 2);
    let late = net.asked(CAROL).unwrap();
    net.answer(ALICE, &headers);
    net.headers(CAROL, &after(&late, &headers));
    assert_eq!(net.sync.progress().sync_peer, Some(ALICE));
    assert_eq!(net.asked(CAROL), None, "two answers, and no more");
    net.answer(ALICE, &headers);
    assert_eq!(net.best(), headers[4_499].block_hash());
}

#[test]
fn on_a_slow_link_of_ours_not_everything_comes_twice() {
    let headers = chain(&genesis(), 0, 40_000);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    let mut twice = 0;
    for _ in 0..15 {
        // Each answer takes longer than the first wait.
        net.advance(HEDGE_AFTER * 3);
        net.answer(ALICE, &headers);
        if let Some(locator) = net.asked(BOB) {
            twice += 1;
            net.headers(BOB, &after(&locator, &headers));
        }
    }
    assert_eq!(twice, 2, "after 5 s and after 10 s; after 20 s nobody waits");
    assert_eq!(net.best(), headers[29_999].block_hash());
}

#[test]
fn who_never_answers_does_not_keep_us_from_being_caught_up() {
    let headers = chain(&genesis(), 0, 100);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect_honest(BOB, &headers);
    net.advance(LATE - SECOND);
    assert_eq!(net.best(), headers[99].block_hash());
    assert!(!net.sync.is_caught_up(), "alice may know more");
    net.advance(SECOND);
    assert!(net.sync.is_caught_up());
    net.disconnect(BOB);
    assert!(!net.sync.is_caught_up(), "nobody has told us anything");
}

#[test]
fn a_peer_with_the_whole_chain_comes_first() {
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect_with(BOB, ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS);
    net.connect(CAROL);
    net.advance(HEDGE_AFTER);
    assert!(net.asked(CAROL).is_some());
    assert_eq!(net.asked(BOB), None);
}

#[test]
fn a_turn_ends_after_a_quarter_of_an_hour_even_with_progress() {
    let headers = chain(&genesis(), 0, 40_000);
    let mut net = Net::new();
    // So that few headers can be missing, each of which is given a millisecond.
    net.now.unix = u64::from(genesis().time) + 40_000 * 600;
    net.connect(ALICE);
    net.connect(BOB);
    for _ in 0..18 {
        net.answer(ALICE, &headers);
        if let Some(locator) = net.asked(BOB) {
            net.headers(BOB, &after(&locator, &headers));
        }
        net.advance(Duration::from_secs(55));
    }
    assert_eq!(net.sync.progress().sync_peer, Some(BOB));
    assert!(net.asked(BOB).is_some());
    assert_eq!(net.dropped(), [], "slow is no crime");
}

#[test]
fn a_peer_that_never_answers_goes_if_there_is_another() {
    let headers = chain(&genesis(), 0, 100);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect_honest(BOB, &headers);
    net.advance(ANSWER_WINDOW * 2);
    assert_eq!(net.dropped(), [(ALICE, Misbehavior::Stalled)]);
    assert_eq!(net.best(), headers[99].block_hash());
    assert!(net.sync.is_caught_up());
}

#[test]
fn a_question_near_the_tip_that_a_peer_passed_over_is_asked_once_more() {
    let headers = chain(&genesis(), 0, 4);
    let mut net = at_tip_of(&headers[..3]);
    // A node that is still reading its own block files says nothing to `getheaders`.
    net.connect(ALICE);
    assert!(net.asked(ALICE).is_some());
    net.advance(REPEAT - SECOND);
    assert_eq!(net.asked(ALICE), None);
    net.advance(SECOND);
    assert!(net.asked(ALICE).is_some());
    net.advance(REPEAT * 2);
    assert_eq!(net.asked(ALICE), None, "one that keeps silent is not pestered");
    net.advance(ANSWER_WINDOW - REPEAT * 3);
    net.answer(ALICE, &headers);
    assert_eq!(net.best(), headers[3].block_hash());
    assert_eq!(net.dropped(), []);
}

#[test]
fn a_block_announced_after_a_question_that_was_passed_over_is_had_in_seconds() {
    let headers = chain(&genesis(), 0, 8);
    for by_inv in [true, false] {
        let mut net = at_tip_of(&headers[..3]);
        net.connect(ALICE);
        assert!(net.asked(ALICE).is_some());
        net.advance(SECOND);
        if by_inv {
            net.inv(ALICE, headers[7].block_hash());
        } else {
            net.headers(ALICE, &headers[7..]);
        }
        assert_eq!(net.asked(ALICE), None, "the answer may be on its way");
        net.advance(REPEAT_NEWS - SECOND);
        net.answer(ALICE, &headers);
        assert_eq!(net.best(), headers[7].block_hash());
    }
}

#[test]
fn the_only_peer_is_asked_again_and_again() {
    let headers = chain(&genesis(), 0, 100);
    let mut net = Net::new();
    net.connect(ALICE);
    for _ in 0..5 {
        assert!(net.asked(ALICE).is_some());
        net.advance(ANSWER_WINDOW);
    }
    net.answer(ALICE, &headers);
    assert_eq!(net.dropped(), []);
    assert_eq!(net.best(), headers[99].block_hash());
}

#[test]
fn a_peer_that_says_nothing_new_for_long_is_asked_again() {
    let headers = chain(&genesis(), 0, 4);
    let mut net = at_tip_of(&headers);
    net.connect(ALICE);
    net.answer(ALICE, &headers[..3]);
    net.advance(ASK_AGAIN - SECOND);
    assert_eq!(net.asked(ALICE), None);
    net.advance(SECOND);
    assert!(net.asked(ALICE).is_some());
    assert!(net.sync.is_caught_up(), "asking again is no step back");
}

#[test]
fn caught_up_means_that_everyone_told_all_and_it_is_enough() {
    let headers = chain(&genesis(), 0, 10);
    let mut net = Net::with(super::super::testing::regtest(), 22);
    assert!(!net.sync.is_caught_up(), "there is nobody");
    net.connect(ALICE);
    net.answer(ALICE, &headers[..9]);
    assert!(!net.sync.is_caught_up(), "too little work");
    net.disconnect(ALICE);
    net.connect_honest(BOB, &headers);
    assert!(net.sync.is_caught_up());
    net.connect(ALICE);
    assert!(!net.sync.is_caught_up(), "alice may know more");
    net.answer(ALICE, &[]);
    assert!(net.sync.is_caught_up());
}

#[test]
fn sendheaders_is_sent_once_to_a_peer_whose_chain_has_the_work() {
    let headers = chain(&genesis(), 0, 12);
    let mut net = Net::with(super::super::testing::regtest(), 22);
    net.connect(ALICE);
    net.answer(ALICE, &headers[..5]);
    assert_eq!(net.take(|output| matches!(output, Output::SendHeaders { .. })), []);
    net.inv(ALICE, headers[9].block_hash());
    net.answer(ALICE, &headers[..10]);
    net.headers(ALICE, &headers[10..]);
    let sent = net.take(|output| matches!(output, Output::SendHeaders { .. }));
    assert_eq!(sent, [Output::SendHeaders { peer: ALICE }]);
}

#[test]
fn headers_from_the_future_are_held_until_our_clock_agrees() {
    let headers = chain(&genesis(), 0, 5);
    let mut net = at_tip_of(&headers);
    net.connect_honest(ALICE, &headers);
    let early = child_at(&headers[4], 1, net.now.unix as u32 + 3 * 3_600);
    let next = child(&early, 1);

    net.headers(ALICE, &[early, next]);
    assert_eq!(net.best(), headers[4].block_hash());
    let until = net.now.unix + 3_600;
    let warned = net.take(|output| matches!(output, Output::Warn { .. }));
    assert_eq!(warned, [Output::Warn { peer: ALICE, what: Warning::FromTheFuture { until } }]);

    net.advance(Duration::from_secs(3_599));
    assert_eq!(net.best(), headers[4].block_hash());
    net.advance(SECOND);
    assert_eq!(net.best(), early.block_hash());
    net.advance(Duration::from_secs(600));
    assert_eq!(net.best(), next.block_hash());
    assert_eq!(net.dropped(), []);
}

#[test]
fn held_headers_are_tried_soon_after_our_clock_was_set() {
    let headers = chain(&genesis(), 0, 5);
    let mut net = at_tip_of(&headers);
    net.connect_honest(ALICE, &headers);
    let early = child_at(&headers[4], 1, net.now.unix as u32 + 86_400);
    net.headers(ALICE, &[early]);
    net.now.unix += 86_400;
    net.advance(Duration::from_secs(600));
    assert_eq!(net.best(), early.block_hash());
}
