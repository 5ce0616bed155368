//! Tables of what may come in beside what, with Core's words where it may not.

use std::sync::Arc;

use super::testing::{Draft, at, coin, draft, output};
use super::{PackageRefusal, Plan, Pool};
use crate::mempool::{Entry, Policy, Reject, ReplacementRule};

fn pool(policy: &Policy) -> Pool {
    Pool::new(policy)
}

fn add(pool: &mut Pool, policy: &Policy, draft: Draft) -> Arc<Entry> {
    let entry = draft.entry();
    let plan = pool.plan(Arc::clone(&entry), policy).unwrap();
    assert_eq!(pool.commit(plan).added, [Arc::clone(&entry)]);
    entry
}

fn refused(pool: &Pool, policy: &Policy, draft: Draft) -> Reject {
    pool.plan(draft.entry(), policy).unwrap_err()
}

/// The words without the txids of who is meant.
fn words(reject: &Reject) -> String {
    let hides = |word: &str| {
        let hex = word.trim_start_matches("(wtxid=").trim_end_matches([')', ';', ',']);
        hex.len() == 64
    };
    reject.to_string().split(' ').filter(|word| !hides(word)).collect::<Vec<_>>().join(" ")
}

/// A parent and its child together; whose fault a refusal is does not matter here.
fn plan_two(
    pool: &Pool,
    parent: impl Into<Arc<Entry>>,
    child: impl Into<Arc<Entry>>,
    policy: &Policy,
) -> Result<Plan, Reject> {
    pool.plan_package(vec![parent.into(), child.into()], None, policy).map_err(|refusal| match refusal {
        PackageRefusal::Package(reject) | PackageRefusal::Fee(reject) | PackageRefusal::Dust(_, reject) => {
            reject
        }
    })
}

#[test]
fn what_is_here_already() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let first = draft(1, &[coin(1)]);
    let entry = add(&mut pool, &policy, first.clone());
    assert_eq!(refused(&pool, &policy, first).to_string(), "txn-already-in-mempool");
    let other = Entry { wtxid: draft(2, &[]).entry().wtxid, ..(*entry).clone() };
    let reject = pool.plan(other, &policy).unwrap_err();
    assert_eq!(reject.to_string(), "txn-same-nonwitness-data-in-mempool");
}

#[test]
fn a_replacement_pays_for_what_it_throws_out() {
    let policy = Policy::core();
    let cases: [(Draft, &str); 5] = [
        (
            draft(9, &[coin(1)]).fee(2_999),
            "insufficient fee, rejecting replacement less fees than conflicting txs; 0.00002999 < 0.00003",
        ),
        (
            draft(9, &[coin(1)]).fee(3_019),
            "insufficient fee, rejecting replacement not enough additional fees to relay; 0.00000019 < 0.0000002",
        ),
        (
            draft(9, &[coin(1)]).fee(3_500).vsize(4_000),
            "replacement-failed, insufficient feerate: does not improve feerate diagram",
        ),
        (draft(9, &[coin(1)]).fee(3_020), ""),
        (draft(9, &[coin(1), coin(2)]).fee(3_020), ""),
    ];
    for (replacement, expected) in cases {
        let mut pool = pool(&policy);
        let parent = add(&mut pool, &policy, draft(1, &[coin(1)]));
        let child = add(&mut pool, &policy, draft(2, &[output(&parent, 0)]).fee(2_000));
        match pool.plan(replacement.clone().entry(), &policy) {
            Err(reject) => assert_eq!(words(&reject), expected),
            Ok(plan) => {
                assert_eq!(expected, "", "{replacement:?} should be refused");
                assert_eq!(plan.replaced(), [parent, child]);
                let changes = pool.commit(plan);
                assert_eq!((changes.added.len(), changes.removed.len(), pool.len()), (1, 2, 1));
            }
        }
    }
}

#[test]
fn a_replacement_touches_few_clusters() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let coins: Vec<_> = (0..101).map(coin).collect();
    for (number, coin) in coins.iter().enumerate() {
        add(&mut pool, &policy, draft(number as u64, &[*coin]));
    }
    let rich = |count: usize| draft(900, &coins[..count]).fee(1_000_000);
    assert_eq!(
        words(&refused(&pool, &policy, rich(101))),
        "too many potential replacements, rejecting replacement too many conflicting clusters (101 > 100)"
    );
    assert_eq!(pool.plan(rich(100).entry(), &policy).unwrap().replaced().len(), 100);
}

#[test]
fn nobody_spends_what_it_throws_out() {
    for policy in [Policy::core(), Policy::knots()] {
        let mut pool = pool(&policy);
        let parent = add(&mut pool, &policy, draft(1, &[coin(1)]));
        let both = draft(2, &[coin(1), output(&parent, 0)]).fee(100_000);
        let reject = refused(&pool, &policy, both);
        assert_eq!(words(&reject), "bad-txns-spends-conflicting-tx, spends conflicting transaction");
    }
}

#[test]
fn a_cluster_has_sixty_four_at_most() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let hub = add(&mut pool, &policy, draft(0, &[coin(0)]).outputs(100));
    for number in 1..64 {
        add(&mut pool, &policy, draft(number, &[output(&hub, number as u32)]));
    }
    let more = draft(99, &[output(&hub, 99)]);
    assert_eq!(refused(&pool, &policy, more).to_string(), "too-large-cluster");
    // In the place of one of them it fits.
    let instead = draft(98, &[output(&hub, 5)]).fee(5_000);
    assert_eq!(pool.plan(instead.entry(), &policy).unwrap().replaced().len(), 1);
    let mut pool = self::pool(&policy);
    let large = add(&mut pool, &policy, draft(1, &[coin(1)]).vsize(100_000).fee(100_000));
    let more = draft(2, &[output(&large, 0)]).vsize(1_001);
    assert_eq!(refused(&pool, &policy, more).to_string(), "too-large-cluster");
    assert!(pool.plan(draft(2, &[output(&large, 0)]).vsize(1_000).entry(), &policy).is_ok());
}

#[test]
fn a_chain_has_twenty_five_at_most() {
    let policy = Policy::knots();
    let mut pool = pool(&policy);
    let first = add(&mut pool, &policy, draft(0, &[coin(0)]));
    let mut last = Arc::clone(&first);
    for number in 1..25 {
        last = add(&mut pool, &policy, draft(number, &[output(&last, 0)]));
    }
    let reject = refused(&pool, &policy, draft(30, &[output(&last, 0)]));
    assert_eq!(words(&reject), "too-long-mempool-chain, too many unconfirmed ancestors [limit: 25]");
    // One small child more of the first, for channels; not a second one, and no large one.
    let more = draft(31, &[output(&first, 1)]);
    let large = refused(&pool, &policy, more.clone().vsize(10_001));
    assert_eq!(words(&large), "too-long-mempool-chain, too many descendants for tx [limit: 25]");
    let more = add(&mut pool, &policy, more.outputs(3));
    let reject = refused(&pool, &policy, draft(32, &[output(&more, 1)]));
    assert_eq!(words(&reject), "too-long-mempool-chain, too many descendants for tx [limit: 25]");
}

#[test]
fn the_rules_of_bip125() {
    let policy = Policy::knots();
    let cases: [(Draft, &str); 5] = [
        (
            draft(9, &[coin(1)]).fee(1_100).vsize(220),
            "insufficient fee, rejecting replacement new feerate 0.00005000 BTC/kvB <= old feerate 0.00005000 BTC/kvB",
        ),
        (
            draft(9, &[coin(1)]).fee(2_999),
            "insufficient fee, rejecting replacement less fees than conflicting txs; 0.00002999 < 0.00003",
        ),
        (
            draft(9, &[coin(1)]).fee(3_019),
            "insufficient fee, rejecting replacement not enough additional fees to relay; 0.00000019 < 0.0000002",
        ),
        (
            draft(9, &[coin(1), output(&draft(3, &[coin(3)]).entry(), 0)]).fee(9_000),
            "replacement-adds-unconfirmed, replacement adds unconfirmed input, idx 1",
        ),
        (draft(9, &[coin(1)]).fee(3_020), ""),
    ];
    for (replacement, expected) in cases {
        let mut pool = pool(&policy);
        let parent = add(&mut pool, &policy, draft(1, &[coin(1)]));
        add(&mut pool, &policy, draft(2, &[output(&parent, 0)]).fee(2_000));
        add(&mut pool, &policy, draft(3, &[coin(3)]));
        let told =
            pool.plan(replacement.entry(), &policy).map_or_else(|reject| words(&reject), |_| String::new());
        assert_eq!(told, expected);
    }
    let policy = Policy { replacement: ReplacementRule::Bip125 { max_evicted: 2 }, ..policy };
    let mut pool = pool(&policy);
    let parent = add(&mut pool, &policy, draft(1, &[coin(1)]));
    add(&mut pool, &policy, draft(2, &[output(&parent, 0)]));
    add(&mut pool, &policy, draft(3, &[output(&parent, 1)]));
    assert_eq!(
        words(&refused(&pool, &policy, draft(9, &[coin(1)]).fee(90_000))),
        "too many potential replacements, rejecting replacement too many potential replacements (3 > 2)"
    );
}

#[test]
fn truc_rules_of_one() {
    let old = |pool: &mut Pool, policy: &Policy| add(pool, policy, draft(1, &[coin(1)]));
    let new = |pool: &mut Pool, policy: &Policy| add(pool, policy, draft(1, &[coin(1)]).truc());
    type Case = (fn(&mut Pool, &Policy) -> Arc<Entry>, fn(&Entry) -> Draft, &'static str);
    let cases: [Case; 7] = [
        (new, |parent| draft(2, &[output(parent, 0)]), "non-version=3 tx cannot spend from version=3 tx"),
        (
            old,
            |parent| draft(2, &[output(parent, 0)]).truc(),
            "version=3 tx cannot spend from non-version=3 tx",
        ),
        (
            new,
            |_| draft(2, &[coin(2)]).truc().vsize(10_001).fee(20_000),
            "version=3 tx is too big: 10001 > 10000 virtual bytes",
        ),
        (
            new,
            |parent| draft(2, &[output(parent, 0)]).truc().vsize(1_001),
            "version=3 child tx is too big: 1001 > 1000 virtual bytes",
        ),
        (new, |parent| draft(2, &[output(parent, 0)]).truc().vsize(1_000), ""),
        (new, |_| draft(2, &[coin(2)]).truc().vsize(10_000), ""),
        (old, |parent| draft(2, &[output(parent, 0)]), ""),
    ];
    for policy in [Policy::core(), Policy::knots()] {
        for (first, second, expected) in cases {
            let mut pool = pool(&policy);
            let parent = first(&mut pool, &policy);
            let told = pool.plan(second(&parent).entry(), &policy);
            match told {
                Ok(_) => assert_eq!(expected, ""),
                Err(reject) => assert_eq!(words(&reject), format!("TRUC-violation, {expected}")),
            }
        }
    }
}

#[test]
fn truc_families_have_two() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let parent = add(&mut pool, &policy, draft(1, &[coin(1)]).truc().outputs(3));
    let other = add(&mut pool, &policy, draft(2, &[coin(2)]).truc());
    let child = add(&mut pool, &policy, draft(3, &[output(&parent, 0)]).truc());
    let too_many = "TRUC-violation, tx would have too many ancestors";
    let grandchild = draft(4, &[output(&child, 0)]).truc();
    assert_eq!(words(&refused(&pool, &policy, grandchild)), too_many);
    let of_two = draft(5, &[output(&parent, 1), output(&other, 0)]).truc();
    assert_eq!(words(&refused(&pool, &policy, of_two)), too_many);
    // A second child takes the first one's place, if it pays for that.
    let poor = draft(6, &[output(&parent, 1)]).truc().fee(1_010);
    assert_eq!(
        words(&refused(&pool, &policy, poor)),
        "insufficient fee (including sibling eviction), rejecting replacement not enough additional fees to relay; \
         0.0000001 < 0.0000002"
    );
    let rich = draft(7, &[output(&parent, 1)]).truc().fee(5_000);
    let plan = pool.plan(rich.entry(), &policy).unwrap();
    assert_eq!(plan.replaced(), [child]);
    assert_eq!(pool.commit(plan).removed.len(), 1);
    assert_eq!(pool.children(&parent.txid).len(), 1);
}

#[test]
fn a_family_of_a_reorganisation_has_no_sibling_to_evict() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let parent = draft(1, &[coin(1)]).truc().outputs(4).entry();
    for (number, vout) in [(2, 0), (3, 1)] {
        add(&mut pool, &policy, draft(number, &[output(&parent, vout)]).truc());
    }
    let _ = pool.insert_from_block(Arc::clone(&parent)).unwrap();
    let _ = pool.settle_reorg();
    assert_eq!(pool.children(&parent.txid).len(), 2);
    let reject = refused(&pool, &policy, draft(4, &[output(&parent, 2)]).truc().fee(90_000));
    assert_eq!(words(&reject), "TRUC-violation, tx would exceed descendant count limit");
}

#[test]
fn dust_is_spent_with_the_rest() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let parent = draft(1, &[coin(1)]).fee(0).dust(1).entry();
    let child = |vouts: &[u32], number| {
        let inputs: Vec<_> = vouts.iter().map(|&vout| output(&parent, vout)).collect();
        draft(number, &inputs).fee(5_000)
    };
    let reject = plan_two(&pool, Arc::clone(&parent), child(&[0], 2).entry(), &policy).unwrap_err();
    assert_eq!(words(&reject), "missing-ephemeral-spends, tx did not spend parent's ephemeral dust");
    let plan = plan_two(&pool, Arc::clone(&parent), child(&[0, 1], 3).entry(), &policy).unwrap();
    assert_eq!(pool.commit(plan).added.len(), 2);
    let reject = refused(&pool, &policy, draft(4, &[output(&parent, 0)]).fee(50_000));
    assert_eq!(words(&reject), "missing-ephemeral-spends, tx did not spend parent's ephemeral dust");
}

#[test]
fn a_package_replaces_if_the_child_pays() {
    for policy in [Policy::core(), Policy::knots()] {
        let parent = |fee| draft(10, &[coin(1)]).fee(fee).entry();
        let child = |parent: &Entry, fee| draft(11, &[output(parent, 0)]).fee(fee).entry();
        let mut pool = pool(&policy);
        let old = add(&mut pool, &policy, draft(1, &[coin(1)]));
        let stranger = add(&mut pool, &policy, draft(2, &[coin(2)]));
        let cases = [
            (
                0,
                1_039,
                "package RBF failed: insufficient anti-DoS fees, rejecting replacement not enough \
                additional fees to relay; 0.00000039 < 0.0000004",
            ),
            (
                1_020,
                1_020,
                "package RBF failed: package feerate is less than or equal to parent feerate, package \
                feerate 0.00005100 BTC/kvB <= parent feerate is 0.00005100 BTC/kvB",
            ),
            (0, 1_500, "package RBF failed: insufficient feerate: does not improve feerate diagram"),
            (0, 2_100, ""),
        ];
        for (parent_fee, child_fee, expected) in cases {
            let parent = parent(parent_fee);
            let child = child(&parent, child_fee);
            match plan_two(&pool, parent, child, &policy) {
                Ok(plan) => {
                    assert_eq!(expected, "");
                    assert_eq!(plan.replaced(), [Arc::clone(&old)]);
                }
                Err(reject) => assert_eq!(words(&reject), expected),
            }
        }
        let parent = draft(10, &[coin(1), output(&stranger, 0)]).fee(0).entry();
        let child = child(&parent, 9_000);
        let reject = plan_two(&pool, parent, child, &policy).unwrap_err();
        assert_eq!(reject.to_string(), "package RBF failed: new transaction cannot have mempool ancestors");
    }
}

#[test]
fn truc_rules_of_a_package() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let above = add(&mut pool, &policy, draft(1, &[coin(1)]).truc());
    let parent = draft(2, &[output(&above, 0)]).truc().entry();
    let child = draft(3, &[output(&parent, 0)]).truc().fee(5_000).entry();
    let reject = plan_two(&pool, parent, child, &policy).unwrap_err();
    assert_eq!(words(&reject), "TRUC-violation, tx would have too many ancestors");
    let parent = draft(2, &[coin(2)]).truc().fee(0).entry();
    let old_child = draft(3, &[output(&parent, 0)]).fee(5_000).entry();
    let reject = plan_two(&pool, Arc::clone(&parent), old_child, &policy).unwrap_err();
    assert_eq!(words(&reject), "TRUC-violation, non-version=3 tx cannot spend from version=3 tx");
    let child = draft(3, &[output(&parent, 0)]).truc().fee(5_000).entry();
    assert!(plan_two(&pool, parent, child, &policy).is_ok());
}

#[test]
fn a_plan_of_another_state_changes_nothing() {
    let policy = Policy::core();
    let mut pool = pool(&policy);
    let plan = pool.plan(draft(1, &[coin(1)]).entry(), &policy).unwrap();
    let same = plan.clone();
    assert_eq!(pool.commit(plan).added.len(), 1);
    assert!(pool.commit(same).is_empty());
    assert_eq!((pool.len(), pool.view(at(0)).len()), (1, 1));
}
