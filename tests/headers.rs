//! The header rules and the tree against real headers of four networks.
//!
//! `fixtures/headers/README.md` says where the files come from. Most runs begin somewhere in the chain: they are
//! checked through [`Run`], which knows heights from a start, or in a tree whose root is their first header.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may fail")]

use std::collections::BTreeMap;

use bitcoin::block::Header;
use bitcoin::p2p::ServiceFlags;
use bitcoin::{Block, BlockHash, CompactTarget, Network, Work};
use chainstore::Height;
use peerdex::headers::{HeaderSync, HeaderTree, InsertError, Inserted, Output};
use peerdex::peer::{PeerId, PeerInfo};
use peerdex::time::Now;
use peerdex::validate::{
    Ancestors, HeaderError, Params, RETARGET_INTERVAL, check_header, check_proof_of_work, next_work_required,
    work_of,
};

use self::fixtures::{boundaries, boundary_work, headers, stale_headers};

#[path = "headers/fixtures.rs"]
mod fixtures;

/// A chain of which only some headers are known, seen from the one at `tip`.
struct Run<'a> {
    known: &'a BTreeMap<u32, Header>,
    tip: u32,
}

impl Ancestors for Run<'_> {
    fn tip_height(&self) -> Height {
        Height(self.tip)
    }

    fn time(&self, height: Height) -> u32 {
        self.known[&height.0].time
    }

    fn bits(&self, height: Height) -> CompactTarget {
        self.known[&height.0].bits
    }
}

/// What was checked of a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Checked {
    headers: usize,
    /// Headers that passed all rules, not only proof of work and links.
    by_all_rules: usize,
    retargets: usize,
}

/// Checks the run that begins at `start`; `more` are headers from below it.
fn check_run(headers: &[Header], start: u32, more: &BTreeMap<u32, Header>, params: &Params) -> Checked {
    let mut known = more.clone();
    let mut checked = Checked::default();
    for (height, header) in (start..).zip(headers) {
        let hash = header.block_hash();
        assert_eq!(check_proof_of_work(header, hash, params), Ok(()), "at {height}");
        if height > start {
            assert_eq!(header.prev_blockhash, known[&(height - 1)].block_hash(), "at {height}");
        }
        if let Some(same) = more.get(&height) {
            assert_eq!(header, same, "at {height}");
        }
        checked.headers += 1;

        // The median needs eleven headers below, a retarget the first of its period.
        let boundary = height.is_multiple_of(RETARGET_INTERVAL) && height > 0;
        let enough = if start == 0 { height > 0 } else { height >= start + 11 };
        if enough && (!boundary || known.contains_key(&(height - RETARGET_INTERVAL))) {
            let parent = Run { known: &known, tip: height - 1 };
            let result = check_header(header, &parent, u64::from(header.time), params);
            assert_eq!(result, Ok(()), "at {height}");
            checked.by_all_rules += 1;
            checked.retargets += usize::from(boundary);
        }
        known.insert(height, *header);
    }
    checked
}

/// A tree whose genesis is a header at a retarget boundary, so that heights in it are lower by that one's.
fn tree_from(root: Header, network: Network) -> HeaderTree {
    HeaderTree::new(Params {
        genesis: Block { header: root, txdata: Vec::new() },
        bip34_height: 0,
        bip66_height: 0,
        bip65_height: 0,
        ..Params::of(network)
    })
}

fn insert(tree: &mut HeaderTree, header: &Header) -> Result<Inserted, InsertError> {
    tree.insert(*header, u64::from(header.time))
}

#[test]
fn every_run_of_mainnet_follows_the_rules() {
    let params = Params::of(Network::Bitcoin);
    let boundaries = boundaries();
    let table = [
        ("headers-0-10236.bin.zst", 0, Checked { headers: 10_237, by_all_rules: 10_236, retargets: 5 }),
        (
            "headers-40000-49999.bin.zst",
            40_000,
            Checked { headers: 10_000, by_all_rules: 9_989, retargets: 5 },
        ),
        (
            "headers-685440-687516.bin.zst",
            685_440,
            Checked { headers: 2_077, by_all_rules: 2_066, retargets: 1 },
        ),
        (
            "headers-822528-830592.bin.zst",
            822_528,
            Checked { headers: 8_065, by_all_rules: 8_054, retargets: 4 },
        ),
        ("headers-864870-864980.bin", 864_870, Checked { headers: 111, by_all_rules: 100, retargets: 0 }),
        // It crosses 866880, but the first header of the period that ends there is in no file.
        ("headers-866870-867075.bin", 866_870, Checked { headers: 206, by_all_rules: 195, retargets: 0 }),
    ];
    for (file, start, expected) in table {
        let headers = headers(&format!("mainnet/{file}"));
        assert_eq!(check_run(&headers, start, &boundaries, &params), expected, "{file}");
    }
}

#[test]
fn testnet3_follows_the_rules_with_its_twenty_minute_drops() {
    let params = Params::of(Network::Testnet);
    let headers = headers("testnet3/headers-0-35141.bin.zst");
    let expected = Checked { headers: 35_142, by_all_rules: 35_141, retargets: 17 };
    assert_eq!(check_run(&headers, 0, &BTreeMap::new(), &params), expected);

    let easiest = params.pow_limit.to_compact_lossy();
    let drops = headers.windows(2).filter(|pair| pair[0].bits != easiest && pair[1].bits == easiest).count();
    assert_eq!(drops, 1_607);

    let known: BTreeMap<_, _> = (0..).zip(headers.iter().copied()).collect();
    let strict = Params { min_difficulty_blocks: false, ..params };
    let refused = (1..headers.len() as u32)
        .filter(|height| {
            let parent = Run { known: &known, tip: height - 1 };
            next_work_required(&parent, known[height].time, &strict) != known[height].bits
        })
        .count();
    assert!(refused > drops, "without the rule only {refused} would be wrong");
}

#[test]
fn testnet4_retargets_from_the_first_block_of_its_period() {
    let params = Params::of(Network::Testnet4);
    let headers = headers("testnet4/headers-141120-143136.bin.zst");
    let expected = Checked { headers: 2_017, by_all_rules: 2_006, retargets: 1 };
    assert_eq!(check_run(&headers, 141_120, &BTreeMap::new(), &params), expected);

    let known: BTreeMap<_, _> = (141_120..).zip(headers.iter().copied()).collect();
    let parent = Run { known: &known, tip: 143_135 };
    let time = known[&143_136].time;
    assert_eq!(next_work_required(&parent, time, &params), known[&143_136].bits);
    let testnet3 = Params { bip94: false, ..params.clone() };
    assert_ne!(next_work_required(&parent, time, &testnet3), known[&143_136].bits);

    let easiest = params.pow_limit.to_compact_lossy();
    assert!(headers.iter().any(|header| header.bits == easiest));
}

#[test]
fn signet_follows_the_rules() {
    let params = Params::of(Network::Signet);
    let headers = headers("signet/headers-0-2015.bin.zst");
    let expected = Checked { headers: 2_016, by_all_rules: 2_015, retargets: 0 };
    assert_eq!(check_run(&headers, 0, &BTreeMap::new(), &params), expected);
    assert_eq!(headers[0].block_hash(), params.genesis_hash());
}

#[test]
fn every_retarget_of_mainnet_is_the_one_that_its_period_requires() {
    let params = Params::of(Network::Bitcoin);
    let boundaries = boundaries();
    let mut retargets = 0;
    for (&height, header) in boundaries.iter().filter(|(height, _)| height.is_multiple_of(RETARGET_INTERVAL))
    {
        assert_eq!(check_proof_of_work(header, header.block_hash(), &params), Ok(()), "at {height}");
        if height == 0 {
            continue;
        }
        let last = boundaries[&(height - 1)];
        assert_eq!(header.prev_blockhash, last.block_hash(), "at {height}");
        let parent = Run { known: &boundaries, tip: height - 1 };
        assert_eq!(next_work_required(&parent, header.time, &params), header.bits, "at {height}");
        retargets += 1;
    }
    assert_eq!(retargets, 413);
}

#[test]
fn work_adds_up_to_the_known_totals() {
    let mut total = Work::from_be_bytes([0; 32]);
    let mut next = 0;
    let known = boundary_work();
    for (height, header) in boundaries() {
        // From one boundary to the next all headers claim the same.
        let work = work_of(header.bits);
        for _ in next..=height {
            total = total + work;
        }
        next = height + 1;
        assert_eq!(Some(&total), known.get(&height), "at {height}");
    }
    assert_eq!(known.len(), 827);
}

#[test]
fn a_tree_takes_the_first_headers_of_mainnet() {
    let headers = headers("mainnet/headers-0-10236.bin.zst");
    let mut tree = HeaderTree::new(Params::of(Network::Bitcoin));
    assert_eq!(insert(&mut tree, &headers[0]), Ok(Inserted::Known));
    for header in &headers[1..] {
        assert_eq!(insert(&mut tree, header), Ok(Inserted::Extended));
    }
    assert_eq!(tree.best().height, Height(10_236));
    for (height, work) in boundary_work().range(..=10_236) {
        let hash = tree.hash_at(Height(*height)).unwrap();
        assert_eq!(tree.info(hash).unwrap().work, *work, "at {height}");
    }
}

#[test]
fn a_tree_takes_the_first_headers_of_testnet3_and_signet() {
    for (network, file) in [
        (Network::Testnet, "testnet3/headers-0-35141.bin.zst"),
        (Network::Signet, "signet/headers-0-2015.bin.zst"),
    ] {
        let headers = headers(file);
        let mut tree = HeaderTree::new(Params::of(network));
        let mut stored = HeaderTree::new(Params::of(network));
        for header in &headers {
            insert(&mut tree, header).unwrap();
            stored.insert_stored(*header).unwrap();
        }
        assert_eq!(tree.best().hash, headers[headers.len() - 1].block_hash());
        assert_eq!(tree.best().height, Height(headers.len() as u32 - 1));
        assert_eq!(tree.best(), stored.best());
        let none = Work::from_be_bytes([0; 32]);
        let total = headers.iter().fold(none, |total, header| total + header.work());
        assert_eq!(tree.best().work, total);
    }
}

#[test]
fn a_tree_refuses_real_headers_out_of_place() {
    let headers = headers("testnet3/headers-0-35141.bin.zst");
    let strict = Params { min_difficulty_blocks: false, ..Params::of(Network::Testnet) };
    let mut tree = HeaderTree::new(strict);
    let refused = headers[1..].iter().find_map(|header| insert(&mut tree, header).err());
    assert!(matches!(refused, Some(InsertError::Rule(HeaderError::BadDiffBits { .. }))), "{refused:?}");

    let mut mainnet = HeaderTree::new(Params::of(Network::Bitcoin));
    let prev = headers[1].prev_blockhash;
    assert_eq!(insert(&mut mainnet, &headers[1]), Err(InsertError::Orphan { prev }));
}

#[test]
fn real_stale_headers_are_side_branches_whichever_came_first() {
    let run = headers("mainnet/headers-822528-830592.bin.zst");
    let stale: BTreeMap<u32, Header> = stale_headers()
        .into_iter()
        .filter(|&(height, ..)| height <= 830_592)
        .map(|(height, hash, header)| {
            assert_eq!(header.block_hash(), hash);
            (height, header)
        })
        .collect();
    assert_eq!(stale.len(), 11);

    for stale_first in [false, true] {
        let mut tree = tree_from(run[0], Network::Bitcoin);
        let mut reorgs = 0;
        for (height, header) in (822_528..).zip(&run).skip(1) {
            let rival = stale.get(&height);
            if let Some(rival) = rival.filter(|_| stale_first) {
                assert_eq!(insert(&mut tree, rival), Ok(Inserted::Extended), "at {height}");
            }
            let inserted = insert(&mut tree, header).unwrap();
            reorgs += usize::from(matches!(inserted, Inserted::Reorganized { .. }));
            if let Some(rival) = rival.filter(|_| !stale_first) {
                assert_eq!(insert(&mut tree, rival), Ok(Inserted::SideBranch), "at {height}");
            }
        }
        assert_eq!(reorgs, if stale_first { 11 } else { 0 });
        assert_eq!(tree.branch_headers(), 11);
        assert_eq!(tree.best().hash, run[run.len() - 1].block_hash());
        for (height, header) in &stale {
            let fork = tree.fork_point(header.block_hash(), tree.best().hash).unwrap();
            assert_eq!((fork.height.0 + 822_528, fork.hash), (height - 1, header.prev_blockhash));
        }
    }
}

#[test]
fn a_losing_branch_of_eight_holds_together() {
    let params = Params::of(Network::Bitcoin);
    let branch: Vec<_> = stale_headers().into_iter().filter(|&(height, ..)| height > 830_592).collect();
    assert_eq!(branch.len(), 8);
    for (height, hash, header) in &branch {
        assert_eq!(header.block_hash(), *hash);
        assert_eq!(check_proof_of_work(header, *hash, &params), Ok(()), "at {height}");
    }
    // 961632 begins a period, so a tree can be rooted there.
    assert!(branch[0].0.is_multiple_of(RETARGET_INTERVAL));
    let mut tree = tree_from(branch[0].2, Network::Bitcoin);
    for (_, _, header) in &branch[1..] {
        assert_eq!(insert(&mut tree, header), Ok(Inserted::Extended));
    }
}

#[test]
fn a_tree_rooted_at_a_period_takes_the_runs_of_mainnet_and_testnet4() {
    for (network, file) in [
        (Network::Bitcoin, "mainnet/headers-685440-687516.bin.zst"),
        (Network::Testnet4, "testnet4/headers-141120-143136.bin.zst"),
    ] {
        let run = headers(file);
        let mut tree = tree_from(run[0], network);
        for (index, header) in run.iter().enumerate().skip(1) {
            // Until eleven headers are below, the median is another than it was.
            let inserted = if index < 11 { tree.insert_stored(*header) } else { insert(&mut tree, header) };
            assert_eq!(inserted, Ok(Inserted::Extended), "{file}, header {index}");
        }
    }
}

#[test]
fn a_sync_with_a_minimum_of_work_counts_real_headers_and_then_keeps_them() {
    let headers = headers("mainnet/headers-0-10236.bin.zst");
    let heights: BTreeMap<BlockHash, usize> = headers.iter().map(Header::block_hash).zip(0..).collect();
    let peer = PeerId(1);
    let info = PeerInfo {
        version: 70016,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        user_agent: "/test/".to_owned(),
        start_height: 0,
        relay: true,
        wtxid_relay: true,
    };
    let now = Now { unix: 1_700_000_000, ..Now::default() };
    let tree = HeaderTree::new(Params::of(Network::Bitcoin));
    let mut sync = HeaderSync::new(tree, boundary_work()[&8_063], 1);

    sync.handle_peer_ready(now, peer, &info);
    let (mut questions, mut kept) = (0, 0);
    while let Some(output) = sync.poll() {
        match output {
            Output::GetHeaders { locator, .. } => {
                let known = locator.iter().find_map(|hash| heights.get(hash)).unwrap();
                let answer = headers.iter().skip(known + 1).take(2_000).copied().collect();
                questions += 1;
                sync.handle_headers(now, peer, answer);
            }
            Output::Persist(headers) => kept += headers.len(),
            Output::Drop { why, .. } => panic!("{why}"),
            Output::BestChanged(_)
            | Output::PeerTip { .. }
            | Output::SendHeaders { .. }
            | Output::Warn { .. } => {}
        }
    }

    assert_eq!(sync.tree().best().height, Height(10_236));
    assert_eq!(kept, 10_236);
    // Five answers to count up to 10,000, and six to take them all.
    assert_eq!(questions, 11);
    assert!(sync.is_caught_up());
}

#[test]
fn the_header_of_a_repeated_coinbase_has_its_work() {
    let header = headers("mainnet/header-91812.bin")[0];
    let hash = header.block_hash();
    assert_eq!(hash.to_string(), "00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f");
    assert_eq!(check_proof_of_work(&header, hash, &Params::of(Network::Bitcoin)), Ok(()));
}
