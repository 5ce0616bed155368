//! Coins that can be spent, in bags by age.
//!
//! A bag that overflows hands a random coin of its own to the next one, so most coins are spent young and some live
//! long, at a constant cost each and without any order that would have to be kept.

/// An unspent output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin {
    pub txid: [u8; 32],
    pub value: u64,
    /// Number of its script.
    pub script: u32,
    /// Number of its transaction in the chain.
    pub tx: u32,
    pub vout: u32,
}

/// Coins that a bag holds at most, youngest first; the last has no bound. The first holds one block's own.
const CAPACITY: [usize; 4] = [usize::MAX, 10_000, 80_000, 500_000];
/// Of a hundred spends, how many are from each bag.
const SHARES: [u32; 5] = [10, 30, 25, 15, 20];

#[derive(Clone, Debug, Default)]
pub struct Coins {
    bags: [Vec<Coin>; 5],
    count: usize,
}

impl Coins {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = &Coin> {
        self.bags.iter().flatten()
    }

    /// Adds an output of the block in the making.
    pub fn add(&mut self, coin: Coin) {
        self.bags[0].push(coin);
        self.count += 1;
    }

    /// Adds a coinbase's output once it is mature.
    pub fn add_aged(&mut self, coin: Coin) {
        self.bags[1].push(coin);
        self.count += 1;
    }

    /// Takes a coin of an age as mainnet's.
    pub fn take(&mut self, rng: &mut fastrand::Rng) -> Option<Coin> {
        let mut share = rng.u32(..100);
        let mut wanted = 0;
        while share >= SHARES[wanted] {
            share -= SHARES[wanted];
            wanted += 1;
        }
        // Young chains have no old coins; the block's own are the last resort.
        let bag = (1..=wanted).rev().chain(wanted + 1..5).chain([0]);
        let bag = if wanted == 0 && !self.bags[0].is_empty() {
            0
        } else {
            bag.into_iter().find(|bag| !self.bags[*bag].is_empty())?
        };
        let place = rng.usize(..self.bags[bag].len());
        self.count -= 1;
        Some(self.bags[bag].swap_remove(place))
    }

    /// Ends a block: its coins are young ones from now on.
    pub fn age(&mut self, rng: &mut fastrand::Rng) {
        let (own, older) = self.bags.split_at_mut(1);
        older[0].append(&mut own[0]);
        for (bag, capacity) in CAPACITY.into_iter().enumerate().skip(1) {
            while self.bags[bag].len() > capacity {
                let place = rng.usize(..self.bags[bag].len());
                let coin = self.bags[bag].swap_remove(place);
                self.bags[bag + 1].push(coin);
            }
        }
    }
}
