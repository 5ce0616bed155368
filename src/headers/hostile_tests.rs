//! Peers that lie, and what it costs them and us.

use std::time::Duration;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget};
use chainstore::Height;

use super::sync::{MAX_HEADERS, Output, Warning};
use super::testing::{chain, child, child_at, genesis, hashes, mine, regtest};
use super::testing_sync::{ALICE, BOB, CAROL, Net, after};
use crate::peer::Misbehavior;

fn bad_header(reason: &str) -> Misbehavior {
    Misbehavior::BadHeader(reason.to_owned())
}

#[test]
fn a_peer_with_bad_headers_goes_and_none_of_them_stays() {
    let honest = chain(&genesis(), 0, 20);
    let tip = honest[19];

    let mut without_work = child(&tip, 1);
    while without_work.target().is_met_by(without_work.block_hash()) {
        without_work.nonce += 1;
    }
    let mut absurd_bits = tip;
    absurd_bits.prev_blockhash = tip.block_hash();
    absurd_bits.bits = CompactTarget::from_consensus(0x2100_8000);
    let mut wrong_bits = child(&tip, 1);
    wrong_bits.bits = CompactTarget::from_consensus(0x207f_fffe);
    let mut old_version = child(&tip, 1);
    old_version.version = Version::from_consensus(3);
    let too_many = chain(&tip, 1, MAX_HEADERS + 1);
    let torn = [chain(&tip, 1, 2), chain(&tip, 2, 1)].concat();
    let mut late_without_work = chain(&tip, 1, 5);
    late_without_work.push(without_work);

    let table: [(&str, Vec<Header>, Misbehavior); 8] = [
        ("no proof of work", vec![without_work], bad_header("high-hash")),
        ("an absurd target", vec![absurd_bits], bad_header("high-hash")),
        ("no proof of work at the end", late_without_work, bad_header("high-hash")),
        ("another difficulty", vec![mine(wrong_bits)], bad_header("bad-diffbits")),
        ("a time long past", vec![child_at(&tip, 1, honest[3].time)], bad_header("time-too-old")),
        ("a version from before", vec![mine(old_version)], bad_header("bad-version(0x00000003)")),
        (
            "more than a message may hold",
            too_many,
            Misbehavior::BadMessage("2001 headers in a message, more than 2000".to_owned()),
        ),
        ("a gap", torn, Misbehavior::BadMessage("headers that do not follow on one another".to_owned())),
    ];
    for (what, headers, why) in table {
        let mut net = Net::new();
        net.connect_honest(BOB, &honest);
        net.connect(ALICE);
        net.take(|_| true);
        net.headers(ALICE, &headers);
        assert_eq!(net.dropped(), [(ALICE, why)], "{what}");
        assert_eq!(net.persisted(), [], "{what}");
        assert_eq!(net.best(), tip.block_hash(), "{what}");
        assert_eq!(net.sync.tree().branch_headers(), 0, "{what}");
        net.headers(ALICE, &honest);
        assert_eq!(net.take(|_| true), [], "{what}: it is gone");
    }
}

#[test]
fn good_headers_before_a_bad_one_stay() {
    let mut headers = chain(&genesis(), 0, 5);
    let mut bad = child(&headers[4], 0);
    bad.bits = CompactTarget::from_consensus(0x207f_fffe);
    headers.push(mine(bad));
    let mut net = Net::new();
    net.connect(ALICE);
    net.headers(ALICE, &headers);
    assert_eq!(net.dropped(), [(ALICE, bad_header("bad-diffbits"))]);
    assert_eq!(net.persisted(), headers[..5]);
}

#[test]
fn empty_answers_do_not_hold_the_sync() {
    let headers = chain(&genesis(), 0, 2_500);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    net.answer(ALICE, &[]);
    for _ in 0..3 {
        net.headers(ALICE, &[]);
    }
    assert_eq!(net.asked(ALICE), None, "no question, no answer, no question");
    net.answer(BOB, &headers);
    net.answer(BOB, &headers);
    assert_eq!(net.best(), headers[2_499].block_hash());
    assert_eq!(net.dropped(), []);
}

#[test]
fn full_answers_that_bring_nothing_new_are_no_progress() {
    let headers = chain(&genesis(), 0, 2_500);
    let mut net = Net::new();
    net.connect(ALICE);
    net.connect(BOB);
    net.answer(ALICE, &headers);
    for _ in 0..6 {
        assert!(net.asked(ALICE).is_some());
        net.advance(Duration::from_secs(9));
        net.headers(ALICE, &headers[..2_000]);
    }
    net.advance(Duration::from_secs(6));
    assert!(net.asked(BOB).is_some(), "the turn went on after a minute");
}

#[test]
fn headers_of_strangers_are_nothing() {
    let mut net = Net::new();
    net.headers(CAROL, &chain(&genesis(), 0, 5));
    net.inv(CAROL, chain(&genesis(), 0, 1)[0].block_hash());
    assert_eq!(net.take(|_| true), []);
    assert_eq!(net.best(), genesis().block_hash());
}

#[test]
fn a_chain_with_too_little_work_is_not_kept() {
    let headers = chain(&genesis(), 0, 10);
    let mut net = Net::with(regtest(), 100);
    net.connect_honest(ALICE, &headers);
    assert_eq!(net.persisted(), []);
    assert_eq!(net.best(), genesis().block_hash());
    assert_eq!(net.dropped(), [], "it may have just begun");
    let warned = net.take(|output| matches!(output, Output::Warn { .. }));
    assert_eq!(warned, [Output::Warn { peer: ALICE, what: Warning::TooLittleWork }]);
}

#[test]
fn a_long_chain_is_counted_before_it_is_kept() {
    let headers = chain(&genesis(), 0, 5_300);
    let mut net = Net::with(regtest(), 2 * 5_000);
    net.connect(ALICE);
    for counted in [2_000, 4_000] {
        net.answer(ALICE, &headers);
        assert_eq!(net.persisted(), []);
        assert_eq!(net.sync.progress().counted, Some(Height(counted)));
    }
    net.answer(ALICE, &headers);
    assert_eq!(net.persisted(), [], "counted to its end");
    for end in [2_000, 4_000, 5_300] {
        net.answer(ALICE, &headers);
        assert_eq!(net.best(), headers[end - 1].block_hash());
    }
    assert_eq!(net.asked(ALICE), None);
    assert_eq!(hashes(&net.persisted()), hashes(&headers));
    assert!(net.sync.is_caught_up());
}

#[test]
fn what_was_counted_may_be_cut_differently_the_second_time() {
    let headers = chain(&genesis(), 0, 5_300);
    let mut net = Net::with(regtest(), 2 * 5_000);
    net.connect(ALICE);
    net.headers(ALICE, &headers[..2_000]);
    net.headers(ALICE, &headers[2_000..4_000]);
    net.headers(ALICE, &headers[4_000..5_200]);
    net.take(|output| matches!(output, Output::GetHeaders { .. }));
    for _ in 0..3 {
        // A hundred blocks were found since.
        let locator = net.asked(ALICE).unwrap_or_else(|| vec![genesis().block_hash()]);
        net.headers(ALICE, &after(&locator, &headers));
    }
    assert_eq!(net.best(), headers[5_299].block_hash());
    assert_eq!(net.dropped(), []);
}

#[test]
fn endless_cheap_headers_leave_nothing_behind() {
    let mut net = Net::with(regtest(), 1 << 40);
    net.connect(ALICE);
    let mut tip = genesis();
    for _ in 0..50 {
        let headers = chain(&tip, 0, MAX_HEADERS);
        tip = headers[MAX_HEADERS - 1];
        assert!(net.asked(ALICE).is_some());
        net.headers(ALICE, &headers);
    }
    assert_eq!(net.persisted(), []);
    assert_eq!(net.sync.tree().branch_headers(), 0);
    assert_eq!(net.best(), genesis().block_hash());
    assert_eq!(net.sync.progress().counted, Some(Height(100_000)));
}

#[test]
fn a_cheap_header_that_breaks_a_rule_costs_the_connection() {
    let mut headers = chain(&genesis(), 0, 2_000);
    let mut net = Net::with(regtest(), 1 << 40);
    net.connect(ALICE);
    net.headers(ALICE, &headers);
    let mut bad = child(&headers[1_999], 0);
    bad.bits = CompactTarget::from_consensus(0x207f_fffe);
    headers.push(mine(bad));
    net.headers(ALICE, &headers[2_000..]);
    assert_eq!(net.dropped(), [(ALICE, bad_header("bad-diffbits"))]);
}

#[test]
fn a_chain_that_changes_between_the_passes_is_not_kept_and_another_peer_completes() {
    let headers = chain(&genesis(), 0, 4_500);
    let mut net = Net::with(regtest(), 2 * 4_100);
    net.connect(ALICE);
    for _ in 0..3 {
        net.answer(ALICE, &headers);
    }
    net.answer(ALICE, &headers);
    assert_eq!(net.persisted().len(), 2_000);
    // From here on other headers, as many as it likes.
    let other = chain(&headers[1_999], 2, 4_000);
    net.asked(ALICE);
    net.headers(ALICE, &other[..2_000]);
    net.headers(ALICE, &other[2_000..]);
    assert_eq!(net.persisted(), []);
    assert!(!net.sync.tree().contains(other[0].block_hash()));

    net.connect_honest(BOB, &headers);
    assert_eq!(net.best(), headers[4_499].block_hash());
}

#[test]
fn a_count_ends_when_the_peer_leaves_the_chain() {
    let headers = chain(&genesis(), 0, 2_000);
    let mut net = Net::with(regtest(), 1 << 40);
    net.connect(ALICE);
    net.answer(ALICE, &headers);
    assert_eq!(net.asked(ALICE).unwrap()[0], headers[1_999].block_hash());
    net.headers(ALICE, &chain(&genesis(), 1, 10));
    net.inv(ALICE, BlockHash::hash(b"news"));
    assert_eq!(net.asked(ALICE).unwrap(), [genesis().block_hash()]);
}

#[test]
fn a_deep_reorg_passes_by_its_work() {
    let old = chain(&genesis(), 0, 3_000);
    let new = chain(&old[99], 1, 3_100);
    let both = [&old[..100], &new].concat();
    let mut net = Net::new();
    net.connect_honest(ALICE, &old);
    net.persisted();
    net.connect_honest(BOB, &both);
    assert_eq!(net.best(), new[3_099].block_hash());
    assert_eq!(hashes(&net.persisted()), hashes(&new));
    assert_eq!(net.sync.tree().fork_point(net.best(), old[2_999].block_hash()).unwrap().height, Height(100));
}

#[test]
fn a_branch_far_below_the_best_work_is_ignored() {
    let headers = chain(&genesis(), 0, 400);
    let mut net = Net::new();
    net.connect_honest(ALICE, &headers);
    net.connect(BOB);
    net.take(|_| true);
    net.headers(BOB, &headers[..99]);
    assert_eq!(
        net.take(|output| matches!(output, Output::Warn { .. })),
        [],
        "what we have is no side branch"
    );
    net.headers(BOB, &chain(&headers[99], 1, 50));
    assert_eq!(net.persisted(), []);
    assert_eq!(net.sync.peer_tip(BOB).map(|tip| tip.height), Some(Height(100)), "so far it agrees");
    net.headers(BOB, &chain(&headers[299], 1, 50));
    assert_eq!(net.persisted().len(), 50, "a hundred below is near enough");
}

#[test]
fn announcing_forever_asks_no_more_than_it_answers() {
    let headers = chain(&genesis(), 0, 10);
    let mut net = Net::new();
    net.connect_honest(BOB, &headers);
    net.connect(ALICE);
    net.answer(ALICE, &headers);
    let mut questions = 0;
    for n in 1..1_000_u32 {
        net.inv(ALICE, BlockHash::hash(&n.to_le_bytes()));
        net.headers(ALICE, &chain(&genesis(), n, 2)[1..]);
        questions += u32::from(net.asked(ALICE).is_some());
    }
    assert_eq!(questions, 1);
    assert_eq!(net.dropped(), []);
}
