//! Forks, reorgs, invalid blocks and bounds, told one by one; `model` tells them at random.

use bitcoin::Network;
use bitcoin::hashes::Hash;

use super::super::testing::{NOW, chain, child, child_at, genesis, hashes, mine, regtest};
use super::*;
use crate::validate::Ancestors;

fn insert_all(tree: &mut HeaderTree, headers: &[Header]) {
    for &header in headers {
        tree.insert(header, NOW).unwrap();
    }
}

fn height_of(n: u32) -> Height {
    Height(n)
}

#[test]
fn a_new_tree_knows_genesis() {
    let tree = regtest();
    let best = tree.best();
    assert_eq!((best.height, best.hash), (Height::GENESIS, genesis().block_hash()));
    assert_eq!(best.work.to_string(), "2");
    assert_eq!(tree.info(best.hash).unwrap().prev, BlockHash::all_zeros());
    assert_eq!(tree.locator(best.hash), [best.hash]);
}

#[test]
fn headers_in_a_row_extend_the_best_chain() {
    let mut tree = regtest();
    let headers = chain(&genesis(), 0, 5);
    for (below, header) in headers.iter().enumerate() {
        assert_eq!(tree.insert(*header, NOW), Ok(Inserted::Extended));
        assert_eq!(tree.best().height, Height(below as u32 + 1));
        assert_eq!(tree.best().hash, header.block_hash());
    }
    assert_eq!(tree.insert(headers[2], NOW), Ok(Inserted::Known));
    assert_eq!(tree.best().work.to_string(), "12");
    assert_eq!(tree.best_time(), headers[4].time);
}

#[test]
fn a_header_needs_its_parent() {
    let mut tree = regtest();
    let headers = chain(&genesis(), 0, 2);
    let prev = headers[0].block_hash();
    assert_eq!(tree.insert(headers[1], NOW), Err(InsertError::Orphan { prev }));
    assert!(!tree.contains(headers[1].block_hash()));
}

#[test]
fn a_header_needs_proof_of_work_before_anything_else() {
    let mut tree = regtest();
    let mut header = child(&chain(&genesis(), 9, 1)[0], 0);
    while header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    let Err(InsertError::Rule(error)) = tree.insert(header, NOW) else { panic!("an orphan without work") };
    assert_eq!(error.reject_reason(), "high-hash");
}

#[test]
fn a_header_that_breaks_a_rule_leaves_the_tree_alone() {
    let mut tree = regtest();
    let headers = chain(&genesis(), 0, 12);
    insert_all(&mut tree, &headers);
    let best = tree.best();

    let old = child_at(&headers[11], 1, headers[5].time);
    assert!(matches!(tree.insert(old, NOW), Err(InsertError::Rule(HeaderError::TimeTooOld { .. }))));
    let mut easy = child(&headers[11], 1);
    easy.bits = CompactTarget::from_consensus(0x207f_fffe);
    let easy = mine(easy);
    assert!(matches!(tree.insert(easy, NOW), Err(InsertError::Rule(HeaderError::BadDiffBits { .. }))));
    let too_new = tree.insert(child(&headers[11], 2), u64::from(headers[11].time) - 7_000);
    assert!(matches!(too_new, Err(InsertError::Rule(HeaderError::TimeTooNew { .. }))));

    assert_eq!(tree.best(), best);
    assert_eq!(tree.branch_headers(), 0);
    assert!(!tree.is_invalid(easy.block_hash()), "nothing is remembered of it");
}

#[test]
fn of_equal_work_the_first_seen_stays_until_the_other_grows() {
    let mut tree = regtest();
    let first = chain(&genesis(), 1, 3);
    let second = chain(&genesis(), 2, 4);
    insert_all(&mut tree, &first);

    for &header in &second[..3] {
        assert_eq!(tree.insert(header, NOW), Ok(Inserted::SideBranch));
    }
    assert_eq!(tree.best().hash, first[2].block_hash());

    let fork = Tip { height: Height::GENESIS, hash: genesis().block_hash() };
    assert_eq!(tree.insert(second[3], NOW), Ok(Inserted::Reorganized { fork }));
    assert_eq!(tree.best().hash, second[3].block_hash());
    assert_eq!(tree.branch_headers(), 3);
    let on_best: Vec<_> = (1..=4).map(|n| tree.hash_at(height_of(n)).unwrap()).collect();
    assert_eq!(on_best, hashes(&second));
    assert_eq!(tree.info(first[2].block_hash()).unwrap().work.to_string(), "8");
}

#[test]
fn an_invalid_block_takes_its_descendants_along() {
    let mut tree = regtest();
    let trunk = chain(&genesis(), 1, 6);
    let side = chain(&trunk[1], 2, 2);
    let on_bad = chain(&trunk[3], 3, 1);
    insert_all(&mut tree, &trunk);
    insert_all(&mut tree, &side);
    insert_all(&mut tree, &on_bad);

    assert!(tree.mark_invalid(trunk[2].block_hash()));

    assert_eq!(tree.best().hash, side[1].block_hash());
    for header in trunk[2..].iter().chain(&on_bad) {
        assert!(tree.is_invalid(header.block_hash()));
        assert!(tree.info(header.block_hash()).unwrap().invalid);
    }
    assert!(!tree.is_invalid(trunk[1].block_hash()));
    let child = child(&trunk[5], 4);
    let refused = Err(InsertError::InvalidChain { hash: child.block_hash() });
    assert_eq!(tree.insert(child, NOW), refused);
    assert_eq!(tree.insert(trunk[4], NOW), Err(InsertError::InvalidChain { hash: trunk[4].block_hash() }));
    assert!(!tree.mark_invalid(trunk[2].block_hash()), "a second time nothing changes");
}

#[test]
fn an_invalid_side_branch_does_not_move_the_tip() {
    let mut tree = regtest();
    let trunk = chain(&genesis(), 1, 3);
    let side = chain(&genesis(), 2, 2);
    insert_all(&mut tree, &trunk);
    insert_all(&mut tree, &side);
    assert!(!tree.mark_invalid(side[0].block_hash()));
    assert_eq!(tree.best().hash, trunk[2].block_hash());
    assert!(tree.is_invalid(side[1].block_hash()));
}

#[test]
fn a_mark_on_an_unknown_block_waits_for_its_header() {
    let mut tree = regtest();
    let headers = chain(&genesis(), 1, 2);
    assert!(!tree.mark_invalid(headers[0].block_hash()));
    for header in headers {
        let refused = Err(InsertError::InvalidChain { hash: header.block_hash() });
        assert_eq!(tree.insert(header, NOW), refused);
    }
}

#[test]
fn genesis_cannot_be_invalid() {
    let mut tree = regtest();
    assert!(!tree.mark_invalid(genesis().block_hash()));
    assert!(!tree.is_invalid(genesis().block_hash()));
}

#[test]
fn what_was_best_before_comes_back_before_others_of_its_work() {
    let mut tree = regtest();
    let first = chain(&genesis(), 1, 2);
    let never_best = chain(&genesis(), 2, 2);
    let winner = chain(&genesis(), 3, 3);
    for headers in [&first, &never_best, &winner] {
        insert_all(&mut tree, headers);
    }
    assert_eq!(tree.best().hash, winner[2].block_hash());
    tree.mark_invalid(winner[0].block_hash());
    assert_eq!(tree.best().hash, first[1].block_hash());
}

#[test]
fn stored_headers_come_back_without_a_clock_but_with_links_and_work() {
    let headers = chain(&genesis(), 1, 3);
    let mut tree = regtest();
    for &header in &headers {
        assert_eq!(tree.insert_stored(header), Ok(Inserted::Extended));
    }
    let mut torn = child(&headers[2], 1);
    torn.prev_blockhash = BlockHash::hash(b"torn");
    let torn = mine(torn);
    let prev = torn.prev_blockhash;
    assert_eq!(tree.insert_stored(torn), Err(InsertError::Orphan { prev }));
    let mut flipped = child(&headers[2], 1);
    while flipped.target().is_met_by(flipped.block_hash()) {
        flipped.nonce += 1;
    }
    assert!(matches!(tree.insert_stored(flipped), Err(InsertError::Rule(HeaderError::HighHash { .. }))));
    assert_eq!(tree.best().height, Height(3));
}

#[test]
fn branches_with_the_least_work_are_forgotten_first_and_invalid_ones_before() {
    let mut tree = HeaderTree::with_branch_limit(Params::of(Network::Regtest), 100);
    let trunk = chain(&genesis(), 0, 200);
    insert_all(&mut tree, &trunk);
    let strong = chain(&trunk[159], 1, 38);
    let weak = chain(&trunk[9], 2, 20);
    let invalid = chain(&trunk[159], 3, 39);
    for headers in [&strong, &weak, &invalid] {
        insert_all(&mut tree, headers);
    }
    tree.mark_invalid(invalid[30].block_hash());

    // 97 beside the trunk; the fourth more is one too many, and ten over the bound's nine tenths go.
    insert_all(&mut tree, &chain(&trunk[169], 4, 4));

    assert_eq!(tree.branch_headers(), 90);
    assert!(hashes(&strong).iter().all(|&hash| tree.contains(hash)));
    assert!(hashes(&invalid[30..]).iter().all(|&hash| !tree.contains(hash)));
    assert!(hashes(&weak[..18]).iter().all(|&hash| tree.contains(hash)));
    assert!(hashes(&weak[18..]).iter().all(|&hash| !tree.contains(hash)));
    let again = tree.insert(invalid[30], NOW);
    assert!(matches!(again, Err(InsertError::InvalidChain { .. })), "the verdict outlives the node");
}

#[test]
fn a_deep_reorg_keeps_no_more_than_the_bound() {
    let mut tree = HeaderTree::with_branch_limit(Params::of(Network::Regtest), 100);
    let long = chain(&genesis(), 0, 300);
    let twig = chain(&long[294], 1, 5);
    insert_all(&mut tree, &long);
    insert_all(&mut tree, &twig);

    tree.mark_invalid(long[0].block_hash());

    assert_eq!(tree.best().height, Height::GENESIS);
    assert_eq!(tree.branch_headers(), 90);
    assert!(!tree.contains(twig[4].block_hash()), "no branch is left hanging in the air");
    assert!(tree.is_invalid(long[0].block_hash()));
}

#[test]
fn a_view_of_a_branch_answers_in_any_order() {
    let mut tree = regtest();
    let trunk = chain(&genesis(), 0, 30);
    let side = chain(&trunk[9], 1, 10);
    insert_all(&mut tree, &trunk);
    insert_all(&mut tree, &side);
    let whole: Vec<_> =
        [genesis()].iter().chain(&trunk[..10]).chain(&side).map(|h| (h.block_hash(), h.time)).collect();

    let view = tree.branch(side[9].block_hash()).unwrap();
    assert_eq!(view.tip_height(), Height(20));
    for height in [20, 0, 15, 10, 11, 9, 20, 12, 3, 14] {
        let (hash, time) = whole[height];
        assert_eq!(view.hash(Height(height as u32)), Some(hash));
        assert_eq!(view.time(Height(height as u32)), time);
    }
    assert_eq!(view.hash(Height(21)), None);
}

#[test]
fn a_locator_is_dense_and_then_doubles_its_steps_down_to_genesis() {
    let mut tree = regtest();
    let trunk = chain(&genesis(), 0, 1_000);
    insert_all(&mut tree, &trunk);
    let locator = tree.locator(tree.best().hash);
    let heights: Vec<_> = locator.iter().map(|&hash| tree.height(hash).unwrap().0).collect();
    let expected =
        [1000, 999, 998, 997, 996, 995, 994, 993, 992, 991, 990, 988, 984, 976, 960, 928, 864, 736, 480, 0];
    assert_eq!(heights, expected);

    let side = chain(&trunk[899], 1, 20);
    insert_all(&mut tree, &side);
    let locator = tree.locator(side[19].block_hash());
    assert_eq!(locator[..11], hashes(&side)[9..].iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(locator[11], side[7].block_hash());
    assert_eq!(tree.height(locator[14]), Some(Height(880)));
    assert!(tree.is_best(locator[14]));
    assert_eq!(tree.locator(BlockHash::all_zeros()), [genesis().block_hash()]);
}

#[test]
fn questions_about_the_unknown_have_no_answer() {
    let mut tree = regtest();
    insert_all(&mut tree, &chain(&genesis(), 0, 3));
    let (best, unknown) = (tree.best().hash, BlockHash::hash(b"unknown"));
    assert_eq!(tree.info(unknown), None);
    assert_eq!(tree.ancestor(unknown, Height(0)), None);
    assert_eq!(tree.ancestor(best, Height(4)), None);
    assert_eq!(tree.fork_point(best, unknown), None);
    assert_eq!(tree.path(unknown, best), None);
    assert_eq!(tree.path(best, genesis().block_hash()), None);
    assert_eq!(tree.path(best, best), Some(Vec::new()));
    assert_eq!(tree.median_time_past(unknown), None);
    assert_eq!(tree.hash_at(Height(4)), None);
}
