use bitcoin::hashes::Hash;

use super::super::testing_forge::{Fault, Forge};
use super::*;

/// A block of a coinbase and nine others.
fn block() -> (Forge, BlockHash) {
    let mut forge = Forge::new();
    let hash = forge.mine_with(forge.genesis(), 9, Fault::None);
    (forge, hash)
}

fn fill_from(block: &CompactBlock, pool: &[(Wtxid, Bytes)]) -> Result<Partial, Unfit> {
    Partial::of(block, pool.iter().map(|(wtxid, raw)| (*wtxid, raw)))
}

fn is_forbidden<T>(result: Result<T, Unfit>) -> bool {
    matches!(result, Err(Unfit::Forbidden(_)))
}

/// Transactions of a block that is not this one.
fn strangers(forge: &mut Forge, count: usize) -> Vec<(Wtxid, Bytes)> {
    let other = forge.mine_with(forge.genesis(), count, Fault::None);
    forge.transactions(other)
}

#[test]
fn a_block_whose_transactions_are_here_is_whole_at_once() {
    let (mut forge, hash) = block();
    let compact = forge.compact(hash, &[0]);
    let pool = [forge.transactions(hash), strangers(&mut forge, 20)].concat();
    let partial = fill_from(&compact, &pool).unwrap();
    assert_eq!((partial.hash(), partial.missing()), (hash, vec![]));
    let (whole, rebuilt) = partial.fill(&[]).unwrap();
    assert_eq!(whole, WireBlock::unsummed(forge.raw(hash)));
    let received_bytes = 80 + 8 + 2 + 9 * 6 + 1 + pool[0].1.len();
    let bytes = forge.raw(hash).len();
    assert_eq!(rebuilt, Rebuilt { hash, prefilled: 1, had: 9, asked: 0, bytes, received_bytes });
}

#[test]
fn what_is_missing_is_named_by_position_and_put_in_its_place() {
    let (forge, hash) = block();
    let all = forge.transactions(hash);
    let pool: Vec<_> =
        all.iter().enumerate().filter(|(at, _)| ![3, 8].contains(at)).map(|(_, tx)| tx.clone()).collect();
    // What comes with it counts once, also if it is in the pool.
    let partial = fill_from(&forge.compact(hash, &[0, 5]), &pool).unwrap();
    assert_eq!(partial.missing(), [3, 8]);
    let (whole, rebuilt) = partial.fill(&[all[3].1.clone(), all[8].1.clone()]).unwrap();
    assert_eq!(whole.bytes, forge.raw(hash));
    assert_eq!((rebuilt.prefilled, rebuilt.had, rebuilt.asked), (2, 6, 2));
}

#[test]
fn too_few_or_too_many_transactions_are_forbidden() {
    let (forge, hash) = block();
    let raw = forge.transactions(hash).remove(1).1;
    for count in [0, 1, 8, 10] {
        let partial = fill_from(&forge.compact(hash, &[0]), &[]).unwrap();
        assert!(is_forbidden(partial.fill(&vec![raw.clone(); count])), "{count}");
    }
}

#[test]
fn more_than_a_block_can_be_is_not_put_together() {
    let (forge, hash) = block();
    let partial = fill_from(&forge.compact(hash, &[0]), &[]).unwrap();
    let large: Bytes = vec![0; 500_000].into();
    assert_eq!(partial.fill(&vec![large; 9]).unwrap_err(), Unfit::Unlucky);
}

#[test]
fn two_equal_short_ids_lead_to_the_whole_block() {
    let (forge, hash) = block();
    let mut compact = forge.compact(hash, &[0]);
    compact.short_ids[3] = compact.short_ids[5];
    assert_eq!(fill_from(&compact, &forge.transactions(hash)).unwrap_err(), Unfit::Unlucky);
}

#[test]
fn of_two_candidates_with_one_id_neither_is_taken() {
    let candidate = |number: u8| (Wtxid::hash(&[number]), Bytes::from(vec![number]));
    // Ids of 48 bits are not met twice in a test, so here they are the numbers' halves.
    let id_of = |wtxid: &Wtxid| {
        (0..9).find(|number| candidate(*number).0 == *wtxid).map_or(99, |number| number / 2).into()
    };
    let fill = |numbers: &[u8]| {
        let pool: Vec<_> = numbers.iter().map(|number| candidate(*number)).collect();
        let mut places = vec![None, Some(Bytes::from_static(b"prefilled")), None];
        fill_in(&mut places, &[1, 3], id_of, pool.iter().map(|(wtxid, raw)| (*wtxid, raw))).unwrap();
        assert_eq!(places[1], Some(Bytes::from_static(b"prefilled")));
        [0, 2].map(|at: usize| places[at].as_ref().map(|raw| raw[0]))
    };
    assert_eq!(fill(&[8, 6, 2]), [Some(2), Some(6)]);
    assert_eq!(fill(&[2, 2, 6]), [Some(2), Some(6)], "the pool has it, and it was refused before");
    assert_eq!(fill(&[2, 3, 6]), [None, Some(6)]);
    assert_eq!(fill(&[3, 2, 6, 3, 2]), [None, Some(6)]);
}

#[test]
fn positions_that_the_block_does_not_have_are_forbidden() {
    let (forge, hash) = block();
    let right = forge.compact(hash, &[0]);
    let coinbase = right.prefilled[0].1.clone();
    let behind = CompactBlock { prefilled: vec![(10, coinbase.clone())], ..right.clone() };
    let twice = CompactBlock { prefilled: vec![(0, coinbase.clone()), (0, coinbase)], ..right.clone() };
    let empty = CompactBlock { prefilled: vec![], short_ids: vec![], ..right.clone() };
    let huge = CompactBlock { short_ids: (0..100_000).collect(), ..right };
    for wrong in [behind, twice, empty, huge] {
        assert!(is_forbidden(fill_from(&wrong, &[])), "{} transactions", wrong.count());
    }
}
