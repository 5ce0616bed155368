//! Linearizations beside those found by trying every closure.

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use proptest::prelude::*;

use super::diagram::improves;
use super::feefrac::FeeFrac;
use super::linearize::{Linearization, MAX_CLUSTER, Member, linearize};

fn members(of: &[(u64, u64, u64)]) -> Vec<Member> {
    let member = |(i, &(fee, size, parents)): (usize, &(u64, u64, u64))| Member {
        frac: FeeFrac::new(fee, size),
        parents: parents & ((1 << i) - 1),
        txid: Txid::hash(&[i as u8]),
    };
    of.iter().enumerate().map(member).collect()
}

/// Whether a set holds the parents of all in it that are not in `done`.
fn is_closed(members: &[Member], set: u64, done: u64) -> bool {
    members.iter().enumerate().all(|(i, member)| set & 1 << i == 0 || member.parents & !(set | done) == 0)
}

fn frac(members: &[Member], set: u64) -> FeeFrac {
    members.iter().enumerate().filter(|(i, _)| set & 1 << i != 0).map(|(_, member)| member.frac).sum()
}

/// The chunks of the best order: again and again the closure with the best feerate.
fn best(members: &[Member]) -> Vec<FeeFrac> {
    let all = (1u64 << members.len()) - 1;
    let (mut done, mut chunks) = (0, Vec::new());
    while done != all {
        let closures = (1..=all).filter(|set| set & done == 0 && is_closed(members, *set, done));
        let best = closures.max_by(|&a, &b| frac(members, a).cmp_rate(frac(members, b))).unwrap();
        chunks.push(frac(members, best));
        done |= best;
    }
    chunks
}

/// Each set of a linearization's chunks, after checking its order and sums.
fn sets(members: &[Member], found: &Linearization) -> Vec<u64> {
    assert_eq!(found.chunks.iter().map(|chunk| chunk.len).sum::<usize>(), members.len());
    let (mut done, mut sets, mut start) = (0u64, Vec::new(), 0);
    for chunk in &found.chunks {
        let mut set = 0;
        for &i in &found.order[start..start + chunk.len] {
            assert_eq!(done & 1 << i, 0, "twice");
            assert_eq!(members[i].parents & !done, 0, "a parent comes later");
            done |= 1 << i;
            set |= 1u64 << i;
        }
        start += chunk.len;
        assert_eq!(frac(members, set), chunk.frac);
        sets.push(set);
    }
    let falls = |pair: &[super::linearize::Piece]| pair[0].frac.cmp_rate(pair[1].frac).is_ge();
    assert!(found.chunks.windows(2).all(falls));
    sets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_order_is_better(of in prop::collection::vec((0u64..12, 1u64..6, any::<u64>(), any::<u64>()), 1..9)) {
        let of: Vec<(u64, u64, u64)> = of.into_iter().map(|(fee, size, a, b)| (fee, size, a & b)).collect();
        let members = members(&of);
        let found = linearize(&members, &[]);
        let fracs: Vec<FeeFrac> = found.chunks.iter().map(|chunk| chunk.frac).collect();
        let best = best(&members);
        prop_assert!(!improves(&fracs, &best));
        prop_assert!(!improves(&best, &fracs));
        let mut done = 0;
        for set in sets(&members, &found) {
            let parts = (1..set).filter(|part| part & !set == 0 && is_closed(&members, *part, done));
            for part in parts {
                let part = frac(&members, part);
                prop_assert!(part.cmp_rate(frac(&members, set)).is_lt(), "a chunk can be cut");
            }
            done |= set;
        }
    }

    #[test]
    fn large_clusters_are_in_order(
        of in prop::collection::vec((0u64..1_000_000, 100u64..100_000, any::<u64>(), any::<u64>()), 40..=64),
        thin in 0u32..6,
    ) {
        let thinned = |set: u64| (0..thin).fold(set, |set, i| set & set.rotate_left(7 * i + 3));
        let of: Vec<(u64, u64, u64)> =
            of.into_iter().map(|(fee, size, a, b)| (fee, size, thinned(a & b))).collect();
        let members = members(&of);
        let found = linearize(&members, &[]);
        sets(&members, &found);
        // What it found it leaves as it is.
        let again = linearize(&members, &sets(&members, &found));
        prop_assert_eq!(again, found);
    }
}

#[test]
fn the_largest_cluster_of_children_that_pay_for_all() {
    // A chain in which each pays a little more than its parent: one chunk.
    let of: Vec<(u64, u64, u64)> =
        (0..MAX_CLUSTER as u64).map(|i| (100 + i, 400, if i == 0 { 0 } else { 1 << (i - 1) })).collect();
    let found = linearize(&members(&of), &[]);
    assert_eq!(found.chunks.len(), 1);
    assert_eq!(found.order, (0..MAX_CLUSTER).collect::<Vec<_>>());
}

/// As Core's `TxGraph` has it (`PostLinearize`). Both passes of `sequence` are needed: by each one's own feerate it would
/// be 0 1 2 3 4, after the first pass 0 2 3 4 1, by the second alone 2 3 0 1 4.
#[test]
fn what_pays_more_together_is_first_in_its_chunk() {
    let of =
        [(3_000, 800, 0), (6_000, 800, 0b1), (1_000, 800, 0), (10_000, 800, 0b100), (8_000, 800, 0b1001)];
    let found = linearize(&members(&of), &[]);
    assert_eq!(found.chunks.len(), 1);
    assert_eq!(found.order, [2, 3, 0, 4, 1]);
}

#[test]
fn diagrams_compare_at_every_size() {
    let frac = FeeFrac::new;
    let old = [frac(100, 100), frac(10, 100)];
    assert!(!improves(&old, &old), "the same");
    assert!(!improves(&old, &[frac(111, 200)]), "worse at 100, better at 200");
    assert!(improves(&old, &[frac(101, 100), frac(10, 100)]));
    assert!(improves(&old, &[frac(110, 100)]), "as much as all, and sooner");
    assert!(!improves(&old, &[frac(109, 100)]), "less in the end");
    assert!(improves(&old, &[frac(100, 50), frac(10, 50)]), "the same fees for less");
    assert!(!improves(&[], &[]));
    assert!(improves(&[], &[frac(1, 1)]));
}
