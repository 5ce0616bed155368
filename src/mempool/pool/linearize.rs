//! The order in which the transactions of one cluster are best mined, and its chunks.
//!
//! In: fees, sizes and parents of at most 64 transactions. Out: an order with parents before children, cut into chunks
//! of falling feerate, such that no other order has collected more fees at any size.
//!
//! How: of a set of transactions that pay `rate` together, the part that is worth mining first is the closure (a part
//! that holds its own parents) with the most fee above `rate`. That is a minimum cut: each child that pays more than
//! `rate` gives what it has over to its ancestors that pay less. If something is left over, the children that have it
//! and all that they lead to are that closure, and both parts are cut further. If nothing is left over, the set pays
//! the same everywhere, and the cycles of who pays for whom are its smallest chunks. There is no randomness and no
//! budget: at most 127 cuts of 64 transactions each.
//!
//! Source: Bitcoin Core `cluster_linearize.h` for what is best, how ties are broken (its `GetLinearization`) and how the
//! transactions of one chunk follow each other (`sequence`); it comes to the same chunks by another way, which it may
//! give up half done.

use std::cmp::Ordering;

use bitcoin::Txid;

use super::feefrac::FeeFrac;
use super::sequence;

/// Most transactions of a cluster, as sets of them are the bits of one word (`MAX_CLUSTER_COUNT_LIMIT`).
pub const MAX_CLUSTER: usize = 64;

/// One transaction of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub frac: FeeFrac,
    /// Bit `i` for the member `i` whose output it spends.
    pub parents: u64,
    /// Breaks ties.
    pub txid: Txid,
}

/// What is mined together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub frac: FeeFrac,
    pub len: usize,
    /// Largest txid in it: breaks ties between chunks.
    pub last_txid: Txid,
}

/// The members in their order, and how many of them make each chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linearization {
    pub order: Vec<usize>,
    pub chunks: Vec<Piece>,
}

/// Linearizes `members`, whose parents have no cycle. The sets of `kept` are chunks already, each better than whatever
/// the others can make.
pub fn linearize(members: &[Member], kept: &[u64]) -> Linearization {
    debug_assert!(members.len() <= MAX_CLUSTER);
    if let [only] = members {
        let piece = Piece { frac: only.frac, len: 1, last_txid: only.txid };
        return Linearization { order: vec![0], chunks: vec![piece] };
    }
    let all = if members.len() == MAX_CLUSTER { u64::MAX } else { (1 << members.len()) - 1 };
    let mut chunks = kept.to_vec();
    let open = kept.iter().fold(all, |open, chunk| open & !chunk);
    if open != 0 {
        Cutter::new(members).cut(open, &mut chunks);
    }
    arrange(members, &chunks)
}

/// The members of a set.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(first)
    })
}

fn frac_of(members: &[Member], set: u64) -> FeeFrac {
    bits(set).map(|i| members[i].frac).sum()
}

/// Cuts sets into chunks.
struct Cutter<'a> {
    members: &'a [Member],
    children: Vec<u64>,
    /// What each has above the rate of the set, in satoshi times weight; below zero where it lacks.
    left: Vec<i128>,
    /// Whom each gives to: bits of its parents.
    gives: Vec<u64>,
    /// Who gives to each: bits of its children.
    takes: Vec<u64>,
    /// How much `child * members + parent` gives, where `gives` says so.
    given: Vec<i128>,
    /// Whence the search came to each.
    from: Vec<usize>,
}

impl<'a> Cutter<'a> {
    fn new(members: &'a [Member]) -> Self {
        let count = members.len();
        let mut children = vec![0; count];
        for (i, member) in members.iter().enumerate() {
            for parent in bits(member.parents) {
                children[parent] |= 1 << i;
            }
        }
        Self {
            members,
            children,
            left: vec![0; count],
            gives: vec![0; count],
            takes: vec![0; count],
            given: vec![0; count * count],
            from: vec![0; count],
        }
    }

    fn cut(&mut self, set: u64, chunks: &mut Vec<u64>) {
        let mut todo = vec![set];
        while let Some(set) = todo.pop() {
            if set.count_ones() == 1 {
                chunks.push(set);
                continue;
            }
            let better = self.balance(set);
            if better == 0 {
                self.cycles(set, chunks);
            } else {
                todo.push(set & !better);
                todo.push(better);
            }
        }
    }

    /// The closure within `set` that has most above the rate of all of it; empty if it pays the same everywhere.
    fn balance(&mut self, set: u64) -> u64 {
        let total = frac_of(self.members, set);
        let (mut rich, mut poor) = (0u64, 0u64);
        for i in bits(set) {
            let frac = self.members[i].frac;
            let left =
                i128::from(frac.fee) * i128::from(total.size) - i128::from(total.fee) * i128::from(frac.size);
            self.left[i] = left;
            (self.gives[i], self.takes[i]) = (0, 0);
            match left.cmp(&0) {
                Ordering::Greater => rich |= 1 << i,
                Ordering::Less => poor |= 1 << i,
                Ordering::Equal => {}
            }
        }
        loop {
            if rich == 0 {
                return 0;
            }
            match self.search(rich, poor, set) {
                Ok(poorer) => {
                    let richer = self.give_along(rich, poorer);
                    if self.left[richer] == 0 {
                        rich &= !(1 << richer);
                    }
                    if self.left[poorer] == 0 {
                        poor &= !(1 << poorer);
                    }
                }
                Err(reached) => return reached,
            }
        }
    }

    /// The nearest of `poor` to which the `rich` can still give, or all that they reach.
    fn search(&mut self, rich: u64, poor: u64, set: u64) -> Result<usize, u64> {
        let (mut seen, mut edge) = (rich, rich);
        while edge != 0 {
            let mut next = 0;
            for i in bits(edge) {
                // To its parents without limit, or back what a child gave.
                let new = (self.members[i].parents & set | self.takes[i]) & !seen;
                seen |= new;
                next |= new;
                for to in bits(new) {
                    self.from[to] = i;
                    if poor & 1 << to != 0 {
                        return Ok(to);
                    }
                }
            }
            edge = next;
        }
        Err(seen)
    }

    /// Gives as much as goes along the way that was found to `to`; returns whence.
    fn give_along(&mut self, rich: u64, to: usize) -> usize {
        let count = self.members.len();
        let mut amount = -self.left[to];
        let mut at = to;
        while rich & 1 << at == 0 {
            let before = self.from[at];
            if self.members[before].parents & 1 << at == 0 {
                amount = amount.min(self.given[at * count + before]);
            }
            at = before;
        }
        let source = at;
        amount = amount.min(self.left[source]);
        at = to;
        while at != source {
            let before = self.from[at];
            if self.members[before].parents & 1 << at != 0 {
                let given = &mut self.given[before * count + at];
                *given = if self.gives[before] & 1 << at != 0 { *given + amount } else { amount };
                self.gives[before] |= 1 << at;
                self.takes[at] |= 1 << before;
            } else {
                let given = &mut self.given[at * count + before];
                *given -= amount;
                if *given == 0 {
                    self.gives[at] &= !(1 << before);
                    self.takes[before] &= !(1 << at);
                }
            }
            at = before;
        }
        self.left[source] -= amount;
        self.left[to] += amount;
        source
    }

    /// After `balance` found nothing: the smallest parts that pay the same as all. Whoever is in one needs all of it.
    fn cycles(&self, set: u64, chunks: &mut Vec<u64>) {
        let mut open = set;
        while open != 0 {
            let first = open.trailing_zeros() as usize;
            let down = reach(first, open, |i| self.members[i].parents | self.takes[i]);
            let up = reach(first, open, |i| self.children[i] | self.gives[i]);
            let cycle = down & up;
            chunks.push(cycle);
            open &= !cycle;
        }
    }
}

/// All of `within` that `start` leads to, itself included.
fn reach(start: usize, within: u64, next: impl Fn(usize) -> u64) -> u64 {
    let (mut seen, mut edge) = (1u64 << start, 1u64 << start);
    while edge != 0 {
        let new = bits(edge).fold(0, |new, i| new | next(i)) & within & !seen;
        seen |= new;
        edge = new;
    }
    seen
}

/// Puts chunks, and the transactions in each, in order: parents first, then the better feerate, the smaller size, the
/// smaller txid. In chunks, what is better together then moves to the front (`sequence`).
fn arrange(members: &[Member], chunks: &[u64]) -> Linearization {
    struct Waiting {
        set: u64,
        needs: u64,
        piece: Piece,
    }
    let mut waiting: Vec<Waiting> = chunks
        .iter()
        .map(|&set| {
            let needs = bits(set).fold(0, |needs, i| needs | members[i].parents) & !set;
            let last_txid = bits(set).map(|i| members[i].txid).max();
            let last_txid = last_txid.expect("a chunk is never empty");
            let piece = Piece { frac: frac_of(members, set), len: set.count_ones() as usize, last_txid };
            Waiting { set, needs, piece }
        })
        .collect();
    waiting.sort_unstable_by(|a, b| {
        a.piece.frac.cmp_better_first(b.piece.frac).then(a.piece.last_txid.cmp(&b.piece.last_txid))
    });
    let mut found =
        Linearization { order: Vec::with_capacity(members.len()), chunks: Vec::with_capacity(chunks.len()) };
    let mut done = 0u64;
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|chunk| chunk.needs & !done == 0);
        let chunk = waiting.remove(ready.expect("parents have no cycle"));
        let start = found.order.len();
        let mut open = chunk.set;
        while open != 0 {
            let ready = bits(open).filter(|&i| members[i].parents & open == 0);
            let best = ready.min_by(|&a, &b| {
                let (a, b) = (&members[a], &members[b]);
                a.frac.cmp_better_first(b.frac).then(a.txid.cmp(&b.txid))
            });
            let best = best.expect("parents have no cycle");
            found.order.push(best);
            open &= !(1 << best);
        }
        sequence::improve(members, &mut found.order[start..]);
        done |= chunk.set;
        found.chunks.push(chunk.piece);
    }
    found
}
