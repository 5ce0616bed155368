//! The bookkeeping alone, against a naive model of its rules.

use std::time::Duration;

use bitcoin::hashes::Hash;

use super::*;

/// What a naive reader of the rules would keep.
#[derive(Debug, Default)]
struct Model {
    /// For each pair of hash and peer: from when it may be asked, until when it is asked, whether it is done.
    pairs: BTreeMap<(sha256d::Hash, PeerId), (Instant, Option<Instant>, bool)>,
}

impl Model {
    fn prune(&mut self) {
        let alive: BTreeSet<sha256d::Hash> =
            self.pairs.iter().filter(|(_, (.., done))| !done).map(|((hash, _), _)| *hash).collect();
        self.pairs.retain(|(hash, _), _| alive.contains(hash));
    }

    fn expire(&mut self, now: Instant) {
        for (_, asked, done) in self.pairs.values_mut() {
            if asked.is_some_and(|until| until <= now) {
                (*asked, *done) = (None, true);
            }
        }
        self.prune();
    }
}

#[test]
fn requests_follow_the_rules() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut requests, mut model) = (Requests::default(), Model::default());
        let peers: Vec<PeerId> = (0..4).map(PeerId).collect();
        peers.iter().for_each(|peer| requests.add_peer(*peer));
        let hashes: Vec<sha256d::Hash> = (0..6_u8).map(|number| sha256d::Hash::hash(&[number])).collect();
        let mut now = Instant::default();
        for step in 0..600 {
            let (peer, hash) = (peers[rng.usize(..peers.len())], hashes[rng.usize(..hashes.len())]);
            match rng.u32(..10) {
                0..5 => {
                    let at = now + Duration::from_secs(rng.u64(..4));
                    requests.announced(peer, Inventory { kind: InventoryKind::WtxidTx, hash }, at);
                    model.pairs.entry((hash, peer)).or_insert((at, None, false));
                }
                5 => {
                    let asked = requests.answered(peer, hash);
                    let pair = model.pairs.get_mut(&(hash, peer));
                    assert_eq!(asked, pair.as_ref().is_some_and(|pair| pair.1.is_some()));
                    if let Some(pair) = pair {
                        (pair.1, pair.2) = (None, true);
                    }
                    model.prune();
                }
                6 => {
                    requests.forget(hash);
                    model.pairs.retain(|(other, _), _| *other != hash);
                }
                7 => {
                    requests.remove_peer(peer);
                    requests.add_peer(peer);
                    model.pairs.retain(|(_, other), _| *other != peer);
                    model.prune();
                }
                _ => now = now + Duration::from_secs(rng.u64(..30)),
            }
            model.expire(now);
            let busy = peers[rng.usize(..peers.len())];
            for (peer, entries) in requests.take(now, &mut rng, |peer| peer == busy, |_| false) {
                for entry in entries {
                    let others = model.pairs.iter().filter(|((hash, _), _)| *hash == entry.hash);
                    assert!(
                        others.clone().all(|(_, (_, asked, _))| asked.is_none()),
                        "seed {seed} step {step}"
                    );
                    let pair = model.pairs.get_mut(&(entry.hash, peer)).unwrap();
                    assert!(pair.0 <= now && !pair.2 && peer != busy, "seed {seed} step {step}");
                    pair.1 = Some(now + ANSWER_WITHIN);
                }
            }
            requests.hold_invariants();
            // Nothing that could have been asked was not.
            for hash in &hashes {
                let mut pairs = model.pairs.iter().filter(|((other, _), _)| other == hash);
                let asked = pairs.clone().any(|(_, pair)| pair.1.is_some());
                let could = pairs.any(|((_, peer), (at, _, done))| *at <= now && !done && *peer != busy);
                assert!(asked || !could, "seed {seed} step {step}");
            }
        }
    }
}

#[test]
fn what_is_held_is_asked_of_nobody_until_it_is_released() {
    let mut requests = Requests::default();
    let (alice, hash) = (PeerId(1), sha256d::Hash::hash(&[1]));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut take =
        |requests: &mut Requests| requests.take(Instant::default(), &mut rng, |_| false, |_| false).len();
    requests.add_peer(alice);
    requests.hold(hash);
    requests.hold(hash);
    requests.announced(alice, Inventory { kind: InventoryKind::WtxidTx, hash }, Instant::default());
    assert_eq!(take(&mut requests), 0);
    requests.release(hash);
    assert_eq!(take(&mut requests), 0);
    requests.release(hash);
    assert_eq!(take(&mut requests), 1);
}
