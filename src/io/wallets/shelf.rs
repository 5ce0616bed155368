//! What sessions share beside the chain: statuses of scripts, room for subscriptions, and how often each method was asked.
//!
//! A status is computed by the first session that needs it; the others, and the next block, go on from there. What
//! is kept is bounded: two generations of scripts, of which the older is dropped when the younger is full.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chainstore::ScriptHash;

use super::hub::Hub;
use super::lock;
use crate::electrum::{Commons, methods};
use crate::query::Known;

/// Parts of the table, each under a lock of its own.
const SHARDS: usize = 16;
/// Scripts of a generation; one takes some 250 bytes, so both take some 30 MB.
const GENERATION: usize = 65_536;

/// What is shared by all sessions of a server.
#[derive(Debug)]
pub struct Shelf {
    hub: Arc<Hub>,
    shards: Vec<Mutex<Generations>>,
    max_subscriptions: usize,
    /// In the order of methods.
    asked: Vec<AtomicU64>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<ScriptHash, Known>,
    old: HashMap<ScriptHash, Known>,
}

impl Shelf {
    pub fn new(hub: Arc<Hub>, max_subscriptions: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let asked = methods().iter().map(|_| AtomicU64::new(0)).collect();
        Self { hub, shards, max_subscriptions, asked }
    }

    fn shard(&self, script: &ScriptHash) -> MutexGuard<'_, Generations> {
        lock(&self.shards[usize::from(script.0[0]) % SHARDS])
    }
}

impl Commons for Shelf {
    fn recall(&self, script: &ScriptHash) -> Option<Known> {
        let mut shard = self.shard(script);
        if let Some(known) = shard.young.get(script) {
            return Some(known.clone());
        }
        // Asked for again: worth keeping for another generation.
        let known = shard.old.remove(script)?;
        shard.put(*script, known.clone());
        Some(known)
    }

    fn learn(&self, script: &ScriptHash, known: &Known) {
        self.shard(script).put(*script, known.clone());
    }

    fn has_room_to_subscribe(&self) -> bool {
        self.hub.interests() < self.max_subscriptions
    }

    fn count(&self, place: usize) {
        self.asked[place].fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for (method, count) in methods().iter().zip(&self.asked) {
            *all.entry(method.name).or_default() += count.load(Ordering::Relaxed);
        }
        all.retain(|_, count| *count > 0);
        all
    }
}

impl Generations {
    fn put(&mut self, script: ScriptHash, known: Known) {
        if self.young.len() >= GENERATION / SHARDS && !self.young.contains_key(&script) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(script, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::testing::Chain;

    #[test]
    fn requests_are_counted_by_name_whatever_the_version() {
        let (view, _) = Chain::mainnet(1).commit();
        let shelf = Shelf::new(Arc::new(Hub::new(view)), 10);
        let name = "blockchain.headers.subscribe";
        let places = methods().iter().zip(0..).filter(|(method, _)| method.name == name);
        let places: Vec<usize> = places.map(|(_, place)| place).collect();
        places.iter().for_each(|place| shelf.count(*place));
        assert!(places.len() > 1);
        assert_eq!(shelf.counts(), BTreeMap::from([(name, places.len() as u64)]));
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let (view, _) = Chain::mainnet(1).commit();
        let known = view.known(&ScriptHash([0; 32]), None, 10).unwrap().unwrap();
        let shelf = Shelf::new(Arc::new(Hub::new(view)), 10);
        let script = |number: u32| {
            let mut hash = [0; 32];
            hash[1..5].copy_from_slice(&number.to_be_bytes());
            ScriptHash(hash)
        };
        shelf.learn(&script(0), &known);
        for number in 1..20_000 {
            shelf.learn(&script(number), &known);
            assert!(shelf.recall(&script(0)).is_some(), "{number}");
        }
        let kept = (0..20_000).filter(|number| shelf.recall(&script(*number)).is_some()).count();
        assert!((GENERATION / SHARDS..=2 * GENERATION / SHARDS).contains(&kept), "{kept}");
    }
}
