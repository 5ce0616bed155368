//! What is fetched, from whom, and what becomes of it.

use std::time::Duration;

use bitcoin::OutPoint;

use super::super::download::{MAX_ANNOUNCEMENTS, MAX_JOBS, OVERLOADED_ABOVE, OVERLOADED_DELAY, TXID_DELAY};
use super::super::requests::ANSWER_WITHIN;
use super::super::testing::*;
use super::super::types::Job;
use super::*;
use crate::mempool::{RejectKind, Removal};

#[test]
fn what_is_announced_is_asked_of_one_peer_and_judged() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let tx = spend(&[coin(1)]);

    net.announces(ALICE, &tx);
    net.announces(BOB, &tx);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
    net.sends(ALICE, &tx);
    net.judge(&tx, accepted(&tx));

    net.announces(BOB, &tx);
    net.advance(ANSWER_WITHIN * 2);
    assert_eq!(net.asked(BOB), []);
    assert_eq!(net.relay.download.next_timeout(), None);
}

#[test]
fn while_we_sync_nothing_is_asked_for_or_judged() {
    let mut net = Harness::syncing();
    net.connect(ALICE, Role::Stranger, true);
    let tx = spend(&[coin(1)]);
    net.announces(ALICE, &tx);
    net.sends(ALICE, &tx);
    assert_eq!((net.asked(ALICE), net.jobs.len()), (vec![], 0));

    net.relay.set_synced(net.now, true);
    net.announces(ALICE, &tx);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
}

/// Test 66.
#[test]
fn who_announces_and_never_delivers_is_followed_by_the_next_after_a_minute() {
    let mut net = Harness::new(&[ALICE]);
    let tx = spend(&[coin(1)]);
    net.announces(ALICE, &tx);
    net.asked(ALICE);
    net.connect(BOB, Role::Stranger, true);
    net.announces(BOB, &tx);

    net.advance(ANSWER_WITHIN - SECOND);
    assert_eq!(net.asked(BOB), []);
    net.advance(SECOND);
    assert_eq!(net.asked(BOB), [wtxid_of(&tx)]);
    // Said again, it is no new chance.
    net.announces(ALICE, &tx);
    net.advance(ANSWER_WITHIN - SECOND);
    assert_eq!(net.asked(ALICE), []);
    // A late answer is as good as any.
    net.sends(ALICE, &tx);
    net.judge(&tx, accepted(&tx));
}

#[test]
fn notfound_and_leaving_pass_a_request_on_at_once() {
    for leaves in [false, true] {
        let mut net = Harness::new(&[ALICE]);
        let tx = spend(&[coin(1)]);
        net.announces(ALICE, &tx);
        net.asked(ALICE);
        net.connect(BOB, Role::Stranger, true);
        net.announces(BOB, &tx);
        if leaves {
            net.leaves(ALICE);
        } else {
            net.has_not(ALICE, wtxid_of(&tx));
        }
        assert_eq!(net.asked(BOB), [wtxid_of(&tx)]);
    }
}

#[test]
fn among_those_who_could_be_asked_chance_decides() {
    let mut asked = [0; 4];
    for round in 0..400 {
        let mut net = Harness::new(&[ALICE]);
        net.relay.rng = fastrand::Rng::with_seed(round);
        let tx = spend(&[coin(1)]);
        net.announces(ALICE, &tx);
        let peers = [PeerId(10), PeerId(11), PeerId(12), PeerId(13)];
        for peer in peers {
            net.connect(peer, Role::Stranger, true);
            net.announces(peer, &tx);
        }
        net.has_not(ALICE, wtxid_of(&tx));
        let chosen = peers.iter().position(|peer| !net.asked(*peer).is_empty()).unwrap();
        asked[chosen] += 1;
    }
    assert!(asked.iter().all(|times| (60..140).contains(times)), "{asked:?}");
}

#[test]
fn what_is_announced_by_txid_waits_while_others_announce_by_wtxid() {
    let mut net = Harness::new(&[]);
    net.connect(ALICE, Role::Stranger, false);
    let (first, second) = (spend(&[coin(1)]), spend(&[coin(2)]));
    net.announces_all(ALICE, &[Inventory::txid(first.txid())]);
    assert_eq!(net.asked(ALICE), [txid_of(&first)]);

    net.connect(BOB, Role::Stranger, true);
    net.announces_all(ALICE, &[Inventory::txid(second.txid())]);
    // Against what was agreed on at the handshake.
    net.announces_all(ALICE, &[wtxid_of(&second)]);
    net.announces_all(BOB, &[Inventory::txid(second.txid())]);
    assert_eq!((net.asked(ALICE), net.asked(BOB)), (vec![], vec![]));
    net.advance(TXID_DELAY);
    assert_eq!((net.asked(ALICE), net.asked(BOB)), (vec![txid_of(&second)], vec![]));
}

#[test]
fn a_peer_that_owes_a_hundred_answers_is_asked_later() {
    let mut net = Harness::new(&[ALICE]);
    net.announces_all(ALICE, &nothings(0, OVERLOADED_ABOVE as u32));
    assert_eq!(net.asked(ALICE).len(), OVERLOADED_ABOVE);
    let tx = spend(&[coin(1)]);
    net.announces(ALICE, &tx);
    assert_eq!(net.asked(ALICE), []);
    net.advance(OVERLOADED_DELAY);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
}

/// Test 65.
#[test]
fn a_flood_of_announcements_is_bounded_and_holds_up_nobody_else() {
    let mut net = Harness::new(&[ALICE, BOB]);
    net.compares = false;
    net.announces_all(ALICE, &nothings(0, 10_000));
    for round in 0..20 {
        net.announces_all(ALICE, &nothings(100_000 + round * 50_000, 50_000));
    }
    assert_eq!(net.relay.download.announcements(ALICE), MAX_ANNOUNCEMENTS);
    assert_eq!(net.asked(ALICE).len(), super::super::requests::MAX_IN_FLIGHT);

    let tx = spend(&[coin(1)]);
    net.announces(BOB, &tx);
    assert_eq!(net.asked(BOB), [wtxid_of(&tx)]);
    net.sends(BOB, &tx);
    net.judge(&tx, accepted(&tx));

    net.relay.hold_invariants();
    // What she never delivers is forgotten in the end.
    net.advance(ANSWER_WITHIN * 6);
    assert_eq!(net.relay.download.announcements(ALICE), 0);
}

#[test]
fn a_trusted_node_may_announce_its_whole_mempool() {
    let mut net = Harness::new(&[]);
    net.connect(ALICE, Role::Trusted { ask_mempool: false }, true);
    net.announces_all(ALICE, &nothings(0, 50_000));
    assert_eq!(net.relay.download.announcements(ALICE), 50_000);
}

#[test]
fn a_flood_of_transactions_waits_behind_nobody_elses_and_is_bounded() {
    let mut net = Harness::new(&[ALICE, BOB]);
    net.compares = false;
    let flood: Vec<_> = (0..6_000).map(|number| spend(&[coin(number)])).collect();
    for tx in &flood {
        net.relay.handle_tx(net.now, ALICE, tx.raw());
    }
    net.collect();
    assert_eq!(net.jobs.len(), MAX_JOBS);
    let honest: Vec<_> = (10_000..10_010).map(|number| spend(&[coin(number)])).collect();
    for tx in &honest {
        net.sends(BOB, tx);
    }
    let mut order = Vec::new();
    while let Some(job) = net.jobs.pop_front() {
        order.push(job.from);
        net.relay.handle_verdict(net.now, job.id, accepted(&job.tx), None);
        net.collect();
    }
    assert!(order.len() < 4_000, "{}", order.len());
    let last = order.iter().rposition(|peer| *peer == BOB).unwrap();
    assert!(last < MAX_JOBS + 2 * honest.len(), "{last}");
    assert_eq!(order.iter().filter(|peer| **peer == BOB).count(), honest.len());
}

#[test]
fn what_found_no_room_is_asked_of_another() {
    let mut net = Harness::new(&[ALICE]);
    net.compares = false;
    let tx = spend(&[coin(1)]);
    net.announces(ALICE, &tx);
    net.connect(BOB, Role::Stranger, true);
    net.announces(BOB, &tx);
    for number in 0..6_000 {
        net.relay.handle_tx(net.now, ALICE, spend(&[coin(100 + number)]).raw());
    }
    net.collect();
    assert_eq!(net.asked(BOB), []);
    net.sends(ALICE, &tx);
    assert_eq!(net.asked(BOB), [wtxid_of(&tx)]);
}

#[test]
fn what_was_refused_is_asked_for_again_only_under_another_tip() {
    let kinds = [
        RejectKind::Consensus,
        RejectKind::InputsNotStandard,
        RejectKind::NotStandard,
        RejectKind::Premature,
        RejectKind::WitnessMutated,
        RejectKind::Conflict,
        RejectKind::MempoolPolicy,
        RejectKind::Reconsiderable,
    ];
    for kind in kinds {
        let mut net = Harness::new(&[ALICE, BOB]);
        let tx = spend(&[coin(1)]);
        net.sends(ALICE, &tx);
        net.judge(&tx, rejected(kind));
        assert_eq!(net.dropped(), [], "{kind:?}");

        net.announces(BOB, &tx);
        net.sends(BOB, &tx);
        assert_eq!((net.asked(BOB).len(), net.jobs.len()), (0, 0), "{kind:?}");
        net.relay.handle_tip_changed(net.now);
        net.announces(BOB, &tx);
        assert_eq!(net.asked(BOB), [wtxid_of(&tx)], "{kind:?}");
    }
}

#[test]
fn what_says_nothing_about_the_transaction_is_not_remembered() {
    for kind in [RejectKind::WitnessStripped, RejectKind::Unknown] {
        let mut net = Harness::new(&[ALICE, BOB]);
        let tx = spend(&[coin(1)]);
        net.sends(ALICE, &tx);
        net.judge(&tx, rejected(kind));
        net.announces(BOB, &tx);
        assert_eq!(net.asked(BOB), [wtxid_of(&tx)], "{kind:?}");
    }
}

#[test]
fn a_false_witness_does_not_keep_the_true_one_out() {
    let kinds = [
        RejectKind::Consensus,
        RejectKind::NotStandard,
        RejectKind::WitnessMutated,
        RejectKind::WitnessStripped,
        RejectKind::MempoolPolicy,
        RejectKind::Reconsiderable,
    ];
    let tx = spend(&[coin(1)]);
    for kind in kinds {
        for fake in [with_witness(&tx, &[9; 50]), with_witness(&tx, &[])] {
            if fake.has_witness() != (kind != RejectKind::WitnessStripped) {
                continue;
            }
            let mut net = Harness::new(&[]);
            net.connect(ALICE, Role::Stranger, false);
            net.connect(BOB, Role::Stranger, false);
            net.announces_all(ALICE, &[Inventory::txid(tx.txid())]);
            net.announces_all(BOB, &[Inventory::txid(tx.txid())]);
            net.asked(ALICE);
            net.sends(ALICE, &fake);
            assert_eq!(net.asked(BOB), [], "nobody else is asked while it is judged");
            net.judge(&fake, rejected(kind));
            assert_eq!(net.asked(BOB), [txid_of(&tx)], "{kind:?}");
            net.sends(BOB, &tx);
            net.judge(&tx, accepted(&tx));
        }
    }
}

#[test]
fn what_no_witness_can_help_is_refused_by_txid_too() {
    let mut net = Harness::new(&[ALICE]);
    let tx = spend(&[coin(1)]);
    net.sends(ALICE, &tx);
    net.judge(&tx, rejected(RejectKind::InputsNotStandard));
    net.connect(BOB, Role::Stranger, false);
    net.announces_all(BOB, &[Inventory::txid(tx.txid())]);
    net.advance(TXID_DELAY);
    assert_eq!(net.asked(BOB), []);
}

#[test]
fn what_a_block_confirmed_is_not_fetched_until_the_block_is_undone() {
    let mut net = Harness::new(&[ALICE]);
    let tx = spend(&[coin(1)]);
    net.relay
        .handle_block_connected(net.now, &[Confirmed { tx: tx.tx(), txid: tx.txid(), wtxid: tx.wtxid() }]);
    net.announces(ALICE, &tx);
    assert_eq!(net.asked(ALICE), []);
    net.relay.handle_block_disconnected(net.now);
    net.announces(ALICE, &tx);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
}

#[test]
fn what_the_mempool_holds_is_not_fetched_under_either_id() {
    let mut net = Harness::new(&[ALICE]);
    net.connect(BOB, Role::Stranger, false);
    let tx = spend(&[coin(1)]);
    net.mempool(&[&tx], &[]);
    net.announces(ALICE, &tx);
    net.announces_all(BOB, &[Inventory::txid(tx.txid())]);
    net.sends(ALICE, &tx);
    net.advance(TXID_DELAY);
    assert_eq!((net.asked(ALICE), net.asked(BOB), net.jobs.len()), (vec![], vec![], 0));
    net.mempool(&[], &[(&tx, Removal::Evicted)]);
    net.announces(ALICE, &tx);
    assert_eq!(net.asked(ALICE), [wtxid_of(&tx)]);
}

#[test]
fn parents_are_asked_of_who_gave_the_orphan_and_then_it_is_tried_again() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent), coin(2)]);
    net.sends(ALICE, &child);
    net.judge(&child, missing(&[&parent]));
    assert_eq!(net.relay.load().orphans, 1);
    net.advance(TXID_DELAY);
    assert_eq!((net.asked(ALICE), net.asked(BOB)), (vec![txid_of(&parent)], vec![]));

    net.sends(ALICE, &parent);
    net.judge(&parent, accepted(&parent));
    net.judge(&child, accepted(&child));
    assert_eq!(net.relay.load().orphans, 0);
}

#[test]
fn whoever_announces_an_orphan_can_give_its_parents() {
    let mut net = Harness::new(&[ALICE, BOB, CAROL]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    net.announces(ALICE, &child);
    net.announces(BOB, &child);
    net.sends(ALICE, &child);
    net.judge(&child, missing(&[&parent]));
    net.announces(CAROL, &child);
    net.leaves(ALICE);
    assert_eq!(net.relay.load().orphans, 1);

    net.advance(TXID_DELAY);
    let asked = [net.asked(BOB), net.asked(CAROL)];
    assert_eq!(asked.iter().flatten().collect::<Vec<_>>(), [&txid_of(&parent)]);
    let (first, second) = if asked[0].is_empty() { (CAROL, BOB) } else { (BOB, CAROL) };
    net.has_not(first, txid_of(&parent));
    assert_eq!(net.asked(second), [txid_of(&parent)]);
}

#[test]
fn a_parent_that_came_while_its_child_was_judged_is_not_waited_for() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    net.sends(ALICE, &child);
    net.sends(BOB, &parent);
    let late = net.jobs.pop_front().unwrap();
    net.judge(&parent, accepted(&parent));
    net.relay.handle_verdict(net.now, late.id, missing(&[&parent]), None);
    net.collect();
    net.judge(&child, accepted(&child));
    assert_eq!(net.asked(ALICE), []);
}

#[test]
fn a_child_is_judged_after_its_parent_and_holds_up_nobody_else() {
    let mut test = Harness::new(&[ALICE, BOB]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    let others = [spend(&[coin(2)]), spend(&[coin(3)])];
    for tx in [&parent, &child, &others[0]] {
        test.sends(ALICE, tx);
    }
    test.sends(BOB, &others[1]);
    let jobs: Vec<_> = test.jobs.iter().map(|job| job.tx.wtxid()).collect();
    assert_eq!(jobs, [parent.wtxid(), others[1].wtxid()]);
    test.judge(&parent, accepted(&parent));
    let jobs: Vec<_> = test.jobs.iter().map(|job| job.tx.wtxid()).collect();
    assert_eq!(jobs, [&others[1], &child, &others[0]].map(|tx| tx.wtxid()));
}

/// After a restart the operator's own node announces all that is here already, once it was judged again.
#[test]
fn what_may_come_back_is_not_asked_for() {
    let mut test = Harness::new(&[ALICE]);
    let [here, new] = [1, 2].map(|number| spend(&[coin(number)]));
    test.relay.set_restoring(test.now, true);
    test.announces_all(ALICE, &[wtxid_of(&here), wtxid_of(&new)]);
    test.advance(SECOND);
    assert_eq!(test.asked(ALICE), []);
    test.mempool(&[&here], &[]);
    test.relay.set_restoring(test.now, false);
    test.collect();
    assert_eq!(test.asked(ALICE), [wtxid_of(&new)]);
}

#[test]
fn children_of_what_a_block_brought_are_tried_again_and_its_rivals_forgotten() {
    let mut net = Harness::new(&[ALICE]);
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    let rival = spend(&[coin(1), output(&child)]);
    net.sends(ALICE, &child);
    net.judge(&child, missing(&[&parent]));
    net.sends(ALICE, &rival);
    net.judge(&rival, missing(&[&child]));
    assert_eq!(net.relay.load().orphans, 2);
    net.relay.handle_block_connected(
        net.now,
        &[Confirmed { tx: parent.tx(), txid: parent.txid(), wtxid: parent.wtxid() }],
    );
    net.collect();
    assert_eq!(net.relay.load().orphans, 1);
    net.judge(&child, accepted(&child));
}

#[test]
fn an_orphan_of_a_refused_parent_is_refused_and_not_fetched_again() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let parent = build(&[coin(1)], &[]);
    let child = spend(&[output(&parent)]);
    net.sends(ALICE, &parent);
    net.judge(&parent, rejected(RejectKind::NotStandard));
    net.sends(ALICE, &child);
    net.judge(&child, missing(&[&parent]));
    assert_eq!(net.relay.load().orphans, 0);
    net.announces(BOB, &child);
    assert_eq!(net.asked(BOB), []);
}

/// Test 67.
#[test]
fn a_flood_of_orphans_is_bounded_and_an_honest_one_survives() {
    let mut net = Harness::new(&[ALICE, BOB]);
    net.compares = false;
    let parent = spend(&[coin(1)]);
    let honest = spend(&[output(&parent)]);
    net.sends(BOB, &honest);
    net.judge(&honest, missing(&[&parent]));

    for number in 0..10_000_u32 {
        let coins: Vec<OutPoint> = (0..100).map(|input| coin(1_000_000 + number * 100 + input)).collect();
        let tx = if number % 2 == 0 { spend(&coins[..1]) } else { build(&coins, &[]) };
        net.relay.handle_tx(net.now, ALICE, tx.raw());
        while let Some(Output::Admit(job)) = net.relay.poll() {
            let parents = job.tx.tx().input.iter().map(|input| input.previous_output.txid).collect();
            net.relay.handle_verdict(net.now, job.id, Verdict::MissingInputs { parents }, None);
        }
    }
    net.relay.hold_invariants();
    assert!(net.relay.load().orphans < 1_000);
    assert!(net.relay.download.announcements(ALICE) <= MAX_ANNOUNCEMENTS);

    net.sends(BOB, &parent);
    let judged: Vec<Job> = net.jobs.drain(..).collect();
    for job in judged {
        net.relay.handle_verdict(net.now, job.id, accepted(&job.tx), None);
        net.collect();
    }
    assert!(net.jobs.iter().any(|job| job.tx.wtxid() == honest.wtxid()));
}

#[test]
fn a_parent_that_is_too_cheap_is_judged_again_with_a_child_of_the_same_peer() {
    let parent = spend(&[coin(1)]);
    let child = spend(&[output(&parent)]);
    for parent_first in [true, false] {
        let mut net = Harness::new(&[ALICE, BOB]);
        if parent_first {
            net.sends(ALICE, &parent);
            net.judge(&parent, rejected(RejectKind::Reconsiderable));
        }
        net.sends(ALICE, &child);
        net.judge(&child, missing(&[&parent]));
        net.advance(TXID_DELAY);
        assert_eq!(net.asked(ALICE), [txid_of(&parent)]);
        net.sends(ALICE, &parent);
        if !parent_first {
            net.judge(&parent, rejected(RejectKind::Reconsiderable));
        }
        net.judge_package([&parent, &child], [accepted(&parent), accepted(&child)]);
        assert_eq!((net.jobs.len(), net.relay.load().orphans), (0, 0));
    }
}

#[test]
fn the_child_of_another_peer_is_not_tried_and_no_pair_twice() {
    let mut net = Harness::new(&[ALICE, BOB]);
    let parent = spend(&[coin(1)]);
    let (older, newer) = (spend(&[output(&parent)]), spend(&[output(&parent), coin(3)]));
    for child in [&older, &newer] {
        net.sends(BOB, child);
        net.judge(child, missing(&[&parent]));
    }
    net.sends(ALICE, &parent);
    net.judge(&parent, rejected(RejectKind::Reconsiderable));
    assert_eq!(net.jobs.len(), 0);

    let too_cheap = || rejected(RejectKind::Reconsiderable);
    net.sends(BOB, &parent);
    net.judge_package([&parent, &newer], [too_cheap(), too_cheap()]);
    net.sends(BOB, &parent);
    assert_eq!(net.jobs.len(), 1, "the newer one first, then the other");
    net.judge_package([&parent, &older], [too_cheap(), too_cheap()]);
    net.sends(BOB, &parent);
    assert_eq!(net.jobs.len(), 0);
}

#[test]
fn two_parents_that_are_too_cheap_are_one_too_many() {
    let mut net = Harness::new(&[ALICE]);
    let parents = [build(&[coin(1)], &[]), build(&[coin(2)], &[])];
    for parent in &parents {
        net.sends(ALICE, parent);
        net.judge(parent, rejected(RejectKind::Reconsiderable));
    }
    let child = spend(&[output(&parents[0]), output(&parents[1])]);
    net.sends(ALICE, &child);
    net.judge(&child, missing(&[&parents[0], &parents[1]]));
    assert_eq!(net.relay.load().orphans, 0);
}

#[test]
fn a_transaction_on_a_connection_for_blocks_is_a_breach_and_nonsense_is_not() {
    let mut net = Harness::new(&[ALICE]);
    net.connect(BOB, Role::BlocksOnly, true);
    net.relay.handle_tx(net.now, ALICE, &Bytes::from_static(b"no transaction"));
    net.relay.handle_tx(net.now, ALICE, &Bytes::from(vec![0; MAX_TX_BYTES + 1]));
    net.collect();
    assert_eq!((net.dropped(), net.jobs.len()), (vec![], 0));

    net.sends(BOB, &spend(&[coin(1)]));
    let why = Misbehavior::BadMessage("tx, although we asked for none".into());
    assert_eq!(net.dropped(), [(BOB, why)]);
    assert_eq!(net.jobs.len(), 0);
}

/// Random peers, announcements, answers, verdicts, blocks and waits; the invariants are held after each step.
#[test]
fn whatever_peers_do_the_books_are_right() {
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut net = Harness::new(&[]);
        let peers: Vec<PeerId> = (0..5).map(PeerId).collect();
        let mut transactions: Vec<Arc<Unconfirmed>> = (0..10).map(|number| spend(&[coin(number)])).collect();
        for _ in 0..30 {
            let parents = [rng.usize(..transactions.len()), rng.usize(..transactions.len())];
            let coins = parents.map(|parent| output(&transactions[parent]));
            transactions.push(build(&coins[..rng.usize(1..=2)], if rng.bool() { &[] } else { &[1, 2] }));
        }
        for _ in 0..1_500 {
            let peer = peers[rng.usize(..peers.len())];
            let tx = transactions[rng.usize(..transactions.len())].clone();
            match rng.u32(..20) {
                0 => net.leaves(peer),
                1 => net.connect(peer, Role::Stranger, rng.bool()),
                2..6 => net.announces(peer, &tx),
                6 => net.announces_all(peer, &[Inventory::txid(tx.txid())]),
                7..10 => net.sends(peer, &tx),
                10 => net.has_not(peer, if rng.bool() { wtxid_of(&tx) } else { txid_of(&tx) }),
                11 => net.advance(Duration::from_millis(rng.u64(..40_000))),
                12 => {
                    let confirmed = Confirmed { tx: tx.tx(), txid: tx.txid(), wtxid: tx.wtxid() };
                    net.relay.handle_block_connected(net.now, &[confirmed]);
                    net.relay.handle_tip_changed(net.now);
                    net.collect();
                }
                13 => net.relay.handle_block_disconnected(net.now),
                _ => {
                    let Some(job) = net.jobs.pop_front() else { continue };
                    let mut verdict = |tx: &Unconfirmed| match rng.u32(..6) {
                        0 => accepted(tx),
                        1 => rejected(RejectKind::Reconsiderable),
                        2 => rejected(RejectKind::Consensus),
                        3 => rejected(RejectKind::WitnessStripped),
                        _ => Verdict::MissingInputs {
                            parents: tx.tx().input.iter().map(|input| input.previous_output.txid).collect(),
                        },
                    };
                    let child = job.child.as_deref().map(&mut verdict);
                    net.relay.handle_verdict(net.now, job.id, verdict(&job.tx), child);
                    net.collect();
                }
            }
        }
        for peer in &peers {
            net.leaves(*peer);
        }
        assert_eq!(net.relay.load().orphans, 0, "seed {seed}");
        assert_eq!(net.relay.download.next_timeout(), None, "seed {seed}");
    }
}
