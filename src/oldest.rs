//! A map of bounded size that forgets first what it was told first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// See the module. Keys are hashed with a secret, as strangers choose them.
#[derive(Clone, Debug)]
pub struct Oldest<K, V = ()> {
    known: HashMap<K, (V, usize)>,
    /// Oldest first.
    order: VecDeque<K>,
    /// Of all together.
    weight: usize,
    limit: usize,
}

impl<K: Copy + Eq + Hash, V> Oldest<K, V> {
    /// One that holds entries of at most this weight together.
    pub fn with_limit(limit: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), weight: 0, limit }
    }

    /// Remembers an entry of weight 1, unless it is known.
    pub fn insert(&mut self, key: K, value: V) {
        self.insert_weighing(key, value, 1);
    }

    /// Remembers an entry, unless it is known or weighs more than all may together.
    pub fn insert_weighing(&mut self, key: K, value: V, weight: usize) {
        if weight > self.limit || self.known.contains_key(&key) {
            return;
        }
        while self.weight + weight > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.weight -= self.known.remove(&oldest).map_or(0, |(_, weight)| weight);
        }
        self.weight += weight;
        self.order.push_back(key);
        self.known.insert(key, (value, weight));
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).map(|(value, _)| value)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_who_is_told_twice_is_kept_once() {
        let mut oldest = Oldest::with_limit(3);
        for number in [0, 1, 0, 2, 2, 3, 4] {
            oldest.insert(number, number * 10);
        }
        let known: Vec<i32> = (0..6).filter(|number| oldest.contains(number)).collect();
        assert_eq!((known, oldest.get(&3)), (vec![2, 3, 4], Some(&30)));
        assert_eq!((oldest.known.len(), oldest.order.len(), oldest.weight), (3, 3, 3));
    }

    #[test]
    fn the_heavy_push_out_more_and_the_heaviest_are_not_taken() {
        let mut oldest = Oldest::with_limit(10);
        for (key, weight) in [(0, 5), (1, 5), (2, 6), (3, 11), (4, 4)] {
            oldest.insert_weighing(key, (), weight);
        }
        assert_eq!((oldest.order, oldest.weight), (VecDeque::from([2, 4]), 10));
        let mut nothing = Oldest::with_limit(0);
        nothing.insert(1, ());
        assert!(!nothing.contains(&1) && nothing.order.is_empty());
    }
}
