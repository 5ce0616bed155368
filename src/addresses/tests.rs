use std::time::Duration;

use bitcoin::p2p::ServiceFlags;

use super::*;

const ONION: Reach = Reach { onion: true, clearnet: false };
const ALL: Reach = Reach { onion: true, clearnet: true };

fn now() -> Now {
    Now { instant: Instant::default(), unix: 1_790_000_000 }
}

fn onion(number: u64) -> Address {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    Address { host: Host::Onion(key), port: 8333 }
}

fn v4(number: u32) -> Address {
    Address { host: Host::V4((0x0100_0000 + number).into()), port: 8333 }
}

fn gossip(address: Address) -> Gossip {
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    Gossip { time: now().unix as u32, services, address }
}

/// A pool that peers 0, 1, ... are asked by, each from a source of its own.
fn pool(peers: u64) -> Addresses {
    let mut pool = Addresses::new(5);
    for peer in 0..peers {
        pool.handle_peer_asked(now(), PeerId(peer), Source::of(&format!("9.{peer}.0.1")));
    }
    pool
}

fn tell(pool: &mut Addresses, peer: u64, addresses: impl Iterator<Item = Address>) {
    pool.handle_gossip(now(), PeerId(peer), addresses.map(gossip).collect());
}

fn nobody() -> BTreeSet<Address> {
    BTreeSet::new()
}

#[test]
fn what_is_told_can_be_drawn_where_it_can_be_reached() {
    let mut pool = pool(1);
    assert_eq!((pool.choose(now(), ALL, &nobody()), pool.has_any(now(), ALL)), (None, false));
    tell(&mut pool, 0, [v4(1), v4(2)].into_iter());
    assert_eq!((pool.choose(now(), ONION, &nobody()), pool.has_any(now(), ONION)), (None, false));
    tell(&mut pool, 0, std::iter::once(onion(1)));
    assert_eq!(pool.choose(now(), ONION, &nobody()), Some(onion(1)));
    assert_eq!(pool.choose(now(), ONION, &BTreeSet::from([onion(1)])), None);
    let drawn: BTreeSet<Address> = (0..200).filter_map(|_| pool.choose(now(), ALL, &nobody())).collect();
    assert_eq!(drawn, BTreeSet::from([v4(1), v4(2), onion(1)]));
}

#[test]
fn one_that_tells_a_thousand_is_drawn_no_more_often_than_one_that_tells_ten() {
    let mut pool = pool(2);
    tell(&mut pool, 0, (0..900).map(onion));
    tell(&mut pool, 1, (5_000..5_010).map(onion));
    let honest: BTreeSet<Address> = (5_000..5_010).map(onion).collect();
    let drawn = (0..1_000).filter_map(|_| pool.choose(now(), ONION, &nobody()));
    let of_honest = drawn.filter(|address| honest.contains(address)).count();
    assert!((400..600).contains(&of_honest), "{of_honest} of 1,000");
}

/// Test 61.
#[test]
fn a_flood_is_cut_off_and_takes_no_room_of_others() {
    let mut pool = pool(10);
    tell(&mut pool, 1, (0..50).map(v4));
    let mut later = now();
    for round in 0..100 {
        later = later.after(Duration::from_secs(1));
        let addresses = (round * 1_000..(round + 1) * 1_000).map(onion);
        pool.handle_gossip(later, PeerId(0), addresses.map(gossip).collect());
    }
    // A thousand as it was asked, and one in ten seconds.
    assert!((1_001..=1_012).contains(&(pool.len() - 50)), "{}", pool.len());

    // One with all the time in the world has its part of the room, and no more.
    for round in 0..30 {
        later = later.after(Duration::from_secs(20_000));
        let fresh = |address| Gossip { time: later.unix as u32, ..gossip(address) };
        let addresses = (1_000_000 + round * 1_000..1_000_000 + (round + 1) * 1_000).map(onion);
        pool.handle_gossip(later, PeerId(0), addresses.map(fresh).collect());
    }
    assert_eq!(pool.len(), 50 + MAX_OF_SOURCE);
    assert!(pool.choose(later, ALL, &nobody()).is_some());
}

#[test]
fn in_all_there_is_room_for_so_many_and_the_largest_make_room() {
    let mut pool = pool(30);
    for peer in 0..30 {
        tell(&mut pool, peer, (peer * 2_000..peer * 2_000 + 1_000).map(onion));
        assert!(pool.len() <= MAX_ADDRESSES);
    }
    assert_eq!(pool.len(), MAX_ADDRESSES);
    let of = |peer: u64| {
        let source = Source::of(&format!("9.{peer}.0.1"));
        pool.known.values().filter(|known| known.source == source).count()
    };
    assert!((0..30).all(|peer| of(peer) > 200), "{:?}", (0..30).map(of).collect::<Vec<_>>());
}

#[test]
fn what_is_useless_or_old_or_of_no_port_is_not_kept() {
    let now = now();
    let old = (now.unix - MAX_AGE) as u32;
    let no_witness = Gossip { services: ServiceFlags::NETWORK, ..gossip(onion(1)) };
    let no_blocks = Gossip { services: ServiceFlags::WITNESS, ..gossip(onion(2)) };
    let useless = [
        no_witness,
        no_blocks,
        gossip(Address { port: 0, ..onion(3) }),
        gossip(Address { host: Host::V4([10, 0, 0, 1].into()), port: 8333 }),
        Gossip { time: old, ..gossip(onion(4)) },
    ];
    let mut pool = pool(1);
    pool.handle_gossip(now, PeerId(0), useless.to_vec());
    assert!(pool.is_empty());

    // A time that cannot be true is five days ago.
    for (number, time) in [(5, 0), (6, now.unix as u32 + 601)] {
        pool.handle_gossip(now, PeerId(0), vec![Gossip { time, ..gossip(onion(number)) }]);
        assert_eq!(pool.known[&onion(number)].seen, now.unix - UNTRUE_AGE - PENALTY);
    }
    let later = now.after(Duration::from_secs(MAX_AGE));
    assert_eq!(pool.choose(later, ONION, &nobody()), None);
}

#[test]
fn who_was_not_asked_is_not_heard_and_who_cannot_be_dialled_is_forgotten() {
    let mut pool = pool(1);
    pool.handle_gossip(now(), PeerId(7), vec![gossip(onion(1))]);
    assert!(pool.is_empty());
    tell(&mut pool, 0, std::iter::once(onion(1)));
    for is_reached in [false, false, true, false, false] {
        pool.handle_dialled(&onion(1), is_reached);
        assert_eq!(pool.len(), 1);
    }
    pool.handle_dialled(&onion(1), false);
    assert!(pool.is_empty());
    pool.handle_peer_gone(PeerId(0));
    tell(&mut pool, 0, std::iter::once(onion(1)));
    assert!(pool.is_empty());
}

#[test]
fn sources_are_networks_and_names() {
    for (one, other, are_same) in [
        ("1.2.3.4", "1.2.99.99", true),
        ("1.2.3.4", "1.3.3.4", false),
        ("2a00:1:2::1", "2a00:1:3::1", true),
        ("2a00:1::1", "2a00:2::1", false),
        ("Abc.onion", "abc.onion", true),
        ("abc.onion", "abd.onion", false),
    ] {
        assert_eq!(Source::of(one) == Source::of(other), are_same, "{one} {other}");
    }
}

#[test]
fn what_is_known_outlives_a_stop_and_nonsense_in_the_file_is_passed_over() {
    let mut pool = pool(2);
    tell(&mut pool, 0, (0..20).map(onion));
    tell(&mut pool, 1, (0..20).map(v4));
    let mut other = Addresses::new(9);
    other.restore(now(), &pool.to_text());
    assert_eq!((other.len(), other.to_text()), (40, pool.to_text()));

    let text = "\n1 2 3\nx 1.2.3.4 8333 9.9\n1790000000 1.2.3 8333 9.9\n1790000000 1.2.3.4 99999 9.9\n\
                1 1.2.3.4 8333 9.9\n1790000000 10.0.0.1 8333 9.9\n1790000000 1.2.3.5 8333 9.9\n\u{fffd}";
    let mut other = Addresses::new(9);
    other.restore(now(), text);
    assert_eq!(other.to_text(), "1790000000 1.2.3.5 8333 9.9\n");
}
