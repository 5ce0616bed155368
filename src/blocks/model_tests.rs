//! Random peers deliver, lie, stall, leave and fork; afterwards the chain is the best that can be had.
//!
//! After each step the harness holds what must always be true: sixteen blocks a peer, nothing asked twice at once,
//! memory within its bound, blocks connected in chain order, switches that are gapless and win work. The naive model
//! here says which chain must be connected in the end.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::p2p::ServiceFlags;
use fastrand::Rng;

use super::testing::Harness;
use super::testing_forge::{Fault, Forge};
use crate::peer::PeerId;

const STEPS: usize = 1_500;
const LIMIT_BYTES: usize = 30_000;

struct Model {
    harness: Harness,
    rng: Rng,
    /// Every block that somebody mined and nobody withholds.
    tips: Vec<BlockHash>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let forge = Forge::new();
        let tips = vec![forge.genesis()];
        let mut harness = Harness::with_memory(forge, LIMIT_BYTES);
        harness.want_compact(tips[0]);
        Self { harness, rng: Rng::with_seed(seed), tips }
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..10 => self.mine(),
            10..14 => self.connect(),
            14..16 => {
                if let Some(peer) = self.some_peer() {
                    self.harness.disconnect(peer);
                }
            }
            16..26 => self.announce(),
            26..78 => self.deliver(),
            78..82 => self.lie(),
            82..92 => {
                let wait = Duration::from_millis(self.rng.u64(1..4_000));
                self.harness.advance(wait);
            }
            92..93 => {
                let wait = Duration::from_secs(self.rng.u64(1..2_000));
                self.harness.advance(wait);
            }
            93..96 => self.harness.writer.paused = !self.harness.writer.paused,
            _ => {
                self.harness.write_one();
            }
        }
        self.check();
    }

    /// Mostly on the best tips, sometimes far below; now and then a bad block, which others build on.
    fn mine(&mut self) {
        let recent = self.tips.len().saturating_sub(6);
        let from = if self.rng.u8(..8) == 0 { 0 } else { recent };
        let mut tip = self.tips[self.rng.usize(from..self.tips.len())];
        for _ in 0..self.rng.usize(1..12) {
            let fault = match self.rng.u8(..40) {
                0 => Fault::Height,
                1 => Fault::Spend,
                _ => Fault::None,
            };
            let padding = if self.rng.u8(..4) == 0 { self.rng.usize(..8_000) } else { 0 };
            tip = match self.rng.u8(..3) {
                0 => {
                    let count = self.rng.usize(1..6);
                    self.harness.forge.mine_with(tip, count, fault)
                }
                _ => self.harness.forge.mine_one(tip, padding, fault),
            };
            if self.rng.bool() {
                let transactions = self.harness.forge.transactions(tip);
                let known = self.rng.usize(..=transactions.len());
                self.harness.pool.extend(transactions.into_iter().take(known));
            }
            self.tips.push(tip);
        }
    }

    fn connect(&mut self) {
        if self.harness.peers().len() >= 6 {
            return;
        }
        let services = match self.rng.u8(..8) {
            0 => ServiceFlags::NONE,
            1..3 => ServiceFlags::NETWORK_LIMITED,
            _ => ServiceFlags::NETWORK,
        };
        let peer = self.harness.connect_with(services);
        if self.rng.u8(..4) > 0 {
            self.harness.sync.handle_send_compact(peer);
        }
        if self.rng.bool() {
            let tip = self.rng.choice(&self.tips).copied().unwrap();
            self.harness.announce(peer, tip);
        }
    }

    /// A peer knows more: its best header only ever gains work, as `HeaderSync` has it.
    fn announce(&mut self) {
        let Some(peer) = self.some_peer() else { return };
        let recent = self.tips.len().saturating_sub(20);
        let tip = self.tips[self.rng.usize(recent..self.tips.len())];
        let old = self.harness.peer_tip(peer).map(|old| self.harness.forge.height(old));
        if old.is_none_or(|old| old < self.harness.forge.height(tip)) {
            self.harness.announce(peer, tip);
        }
    }

    fn deliver(&mut self) {
        let Some(peer) = self.some_peer() else { return };
        if let Some((hash, positions)) = self.harness.positions(peer) {
            let all = self.harness.forge.transactions(hash);
            let asked: Vec<_> =
                positions.iter().filter_map(|at| Some(all.get(usize::from(*at))?.1.clone())).collect();
            self.harness.deliver_transactions(peer, hash, &asked);
            return;
        }
        let owes = self.harness.owes(peer);
        let Some(hash) = self.rng.choice(&owes).copied() else { return };
        if self.harness.owes_compact(peer) == Some(hash) && self.rng.u8(..8) > 0 {
            let prefilled: &[usize] = if self.rng.bool() { &[0] } else { &[] };
            let compact = self.harness.forge.compact(hash, prefilled);
            self.harness.deliver_compact(peer, compact);
            return;
        }
        self.harness.deliver(peer, hash);
    }

    fn lie(&mut self) {
        let Some(peer) = self.some_peer() else { return };
        let any = self.rng.choice(&self.tips).copied().unwrap();
        let owes = self.harness.owes(peer);
        let owed = self.rng.choice(&owes).copied();
        if let Some((hash, positions)) = self.harness.positions(peer) {
            let other = self.harness.forge.transactions(any).remove(0).1;
            let count = positions.len() + self.rng.usize(..2);
            self.harness.deliver_transactions(peer, hash, &vec![other; count]);
            return;
        }
        let lie = if self.harness.owes_compact(peer).is_some() { 3 } else { self.rng.u8(..6) };
        match (lie, owed) {
            (3, _) => {
                // Often of no block that was asked for.
                let hash = self.harness.owes_compact(peer).or(owed).unwrap_or(any);
                let mut compact = self.harness.forge.compact(hash, &[0]);
                let nonsense = self.rng.u64(..1 << 48);
                compact.short_ids.iter_mut().for_each(|id| *id ^= nonsense);
                if self.rng.bool() {
                    compact.short_ids.push(nonsense);
                }
                self.harness.deliver_compact(peer, compact);
            }
            (4, _) => self.harness.deliver_transactions(peer, owed.unwrap_or(any), &[]),
            (0, Some(owed)) => {
                let raw = self.harness.forge.mutated(owed);
                self.harness.deliver_raw(peer, owed, raw);
            }
            (1, Some(owed)) => self.harness.not_found(peer, owed),
            (2, Some(owed)) => self.harness.deliver_damaged(peer, owed),
            // Also late copies of what others delivered.
            (_, _) => self.harness.deliver(peer, any),
        }
    }

    fn check(&self) {
        let connected = self.harness.connected();
        assert!(self.harness.forge.is_valid(connected), "stands on an invalid block");
        self.harness.hold_best();
    }

    /// Honest peers that have everything come, and nobody lies any more.
    fn settle(&mut self) {
        self.harness.writer.paused = false;
        while self.harness.write_one() {}
        for peer in self.harness.peers() {
            self.harness.disconnect(peer);
        }
        let valid: Vec<_> =
            self.tips.iter().copied().filter(|tip| self.harness.forge.is_valid(*tip)).collect();
        let height = |hash: &BlockHash| self.harness.forge.height(*hash);
        let best = valid.into_iter().max_by_key(height).unwrap();
        for _ in 0..2 {
            let honest = [self.harness.connect(best), self.harness.connect(best)];
            for _ in 0..40 {
                let there: Vec<PeerId> =
                    honest.into_iter().filter(|peer| self.harness.peers().contains(peer)).collect();
                self.harness.serve(&there);
                self.harness.advance(Duration::from_secs(1));
            }
        }
        let (got, want) = (self.harness.connected(), best);
        assert_eq!(self.harness.work(got), self.harness.work(want), "settled on {got} and not on {want}");
        assert_eq!(self.harness.progress().held_bytes, 0);
        assert!(self.harness.sync.is_idle(), "{:?}", self.harness.progress());
    }

    fn some_peer(&mut self) -> Option<PeerId> {
        self.rng.choice(&self.harness.peers()).copied()
    }
}

#[test]
fn after_any_mischief_the_best_chain_that_can_be_had_is_connected() {
    let (mut switches, mut condemned, mut dropped, mut rebuilt, mut unfit) = (0, 0, 0, 0, 0);
    for seed in 0..36 {
        println!("seed {seed}");
        let mut model = Model::new(seed);
        for _ in 0..STEPS {
            model.step();
        }
        model.settle();
        switches += model.harness.writer.switches;
        condemned += model.harness.condemned.len();
        dropped += model.harness.dropped().len();
        rebuilt += model.harness.rebuilt.len();
        unfit += model.harness.sync.compact_figures().unfit;
    }
    assert!(switches > 40 && condemned > 40 && dropped > 100, "{switches} {condemned} {dropped}");
    assert!(rebuilt > 100 && unfit > 3, "{rebuilt} {unfit}");
}
