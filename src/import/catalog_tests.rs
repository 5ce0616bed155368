use bitcoin::Network;
use bitcoin::consensus::deserialize;

use super::*;
use crate::blocks::testing_forge::{Fault, Forge};
use crate::validate::Params;

const NOW: u64 = 2_000_000_000;

fn record(forge: &Forge, hash: BlockHash, offset: u64) -> Record {
    let raw = forge.raw(hash);
    Record { header: deserialize(&raw[..80]).unwrap(), hash, offset, length: raw.len() as u32 }
}

fn order(forge: &Forge, hashes: &[BlockHash], tree: &mut HeaderTree) -> Ordered {
    let mut collector = Collector::default();
    for (n, hash) in hashes.iter().enumerate() {
        collector.add(n as u32 / 10, &record(forge, *hash, n as u64 * 1_000));
    }
    assert_eq!((collector.len(), collector.overflow()), (hashes.len(), 0));
    collector.order(tree, NOW)
}

fn tree() -> HeaderTree {
    HeaderTree::new(Params::of(Network::Regtest))
}

#[test]
fn whatever_the_order_in_the_files_the_chain_is_the_same() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 60);
    let stale = forge.mine(chain[29], 10);
    let all = [&[forge.genesis()][..], &chain, &stale].concat();
    let mut rng = fastrand::Rng::with_seed(1);
    for turn in 0..20 {
        let mut hashes = all.clone();
        match turn {
            0 => {}
            1 => hashes.reverse(),
            _ => rng.shuffle(&mut hashes),
        }
        let mut tree = tree();

        let ordered = order(&forge, &hashes, &mut tree);

        assert_eq!(tree.best().tip(), forge.tip(chain[59]));
        let tally = Tally { records: 71, known: 1, new: 70, stale: 10, ..Tally::default() };
        assert_eq!((ordered.tally, &ordered.first_refusal), (tally, &None));
        assert_eq!(ordered.fork, Height::GENESIS);
        let headers = ordered.headers(&tree, Height(1), 1_000);
        let expected = chain.iter().map(|hash| (forge.height(*hash), forge.header(*hash)));
        assert_eq!(headers, expected.collect::<Vec<_>>());
        assert_eq!(ordered.headers(&tree, Height(11), 5), headers[10..15]);
        let catalog = ordered.into_catalog();
        for (n, hash) in hashes.iter().enumerate() {
            let length = forge.raw(*hash).len() as u32;
            let place = Place { file: n as u32 / 10, offset: n as u64 * 1_000, length };
            assert_eq!(catalog.place(hash), Some(place));
        }
    }
}

#[test]
fn what_nothing_leads_to_is_left_out() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 30);
    let mut tree = tree();

    let gap = [&chain[..10], &chain[11..]].concat();
    let ordered = order(&forge, &gap, &mut tree);

    assert_eq!(tree.best().tip(), forge.tip(chain[9]));
    assert_eq!((ordered.tally.new, ordered.tally.orphans), (10, 19));

    // A later import has the rest; what is known is not counted as new.
    let ordered = order(&forge, &chain, &mut tree);
    assert_eq!(tree.best().tip(), forge.tip(chain[29]));
    assert_eq!((ordered.tally.new, ordered.tally.known, ordered.tally.orphans), (20, 10, 0));
    assert_eq!(ordered.fork, Height(10));
    assert_eq!(ordered.headers(&tree, ordered.fork.next(), 100).len(), 20);
}

#[test]
fn headers_that_break_a_rule_and_what_is_on_them_are_refused() {
    let mut forge = Forge::new();
    let chain = forge.mine(forge.genesis(), 20);
    let mut tree = tree();
    tree.mark_invalid(chain[14]);

    let ordered = order(&forge, &chain, &mut tree);

    assert_eq!(tree.best().tip(), forge.tip(chain[13]));
    assert_eq!((ordered.tally.new, ordered.tally.refused, ordered.tally.orphans), (14, 1, 5));
    assert!(ordered.first_refusal.unwrap().contains(&chain[14].to_string()));

    // Dated ahead of our clock: not now.
    let mut collector = Collector::default();
    chain[..3].iter().for_each(|hash| collector.add(0, &record(&forge, *hash, 8)));
    let mut tree = self::tree();
    let early = u64::from(forge.header(chain[0]).time) - 10_000;
    let ordered = collector.order(&mut tree, early);
    assert_eq!((ordered.tally.refused, tree.best().height), (1, Height::GENESIS));
}

#[test]
fn a_second_copy_is_there_when_the_first_is_struck_out() {
    let mut forge = Forge::new();
    let block = forge.mine_one(forge.genesis(), 5, Fault::None);
    let mut tree = tree();
    let ordered = order(&forge, &[block; 3], &mut tree);
    assert_eq!((ordered.tally.new, ordered.tally.known), (1, 2));
    let mut catalog = ordered.into_catalog();

    for offset in [0, 1_000, 2_000] {
        let place = catalog.place(&block).unwrap();
        assert_eq!(place.offset, offset);
        catalog.strike_out(&block, place);
    }
    assert_eq!(catalog.place(&block), None);
    assert_eq!(catalog.place(&forge.genesis()), None);
}

#[test]
fn a_million_blocks_take_well_below_200_megabytes() {
    // With an index by parent of four bytes each; the header tree has its own 46.
    assert!(size_of::<Found>() + 4 <= 110);
    assert!(size_of::<Entry>() <= 24);
}
