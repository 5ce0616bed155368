//! Blocks beside the best chain, which are asked for while nobody gives out what comes next on it.

use bitcoin::{BlockHash, Work};
use chainstore::Height;

use super::super::window::WINDOW;
use super::{Asked, Purpose, Scheduler, Situation};
use crate::headers::{HeaderTip, HeaderTree};
use crate::peer::PeerId;
use crate::time::Now;

impl Scheduler {
    /// Whether nobody gives out this block: there is no source, or one at least took too long.
    pub(super) fn is_withheld(&self, height: Height, hash: BlockHash, tree: &HeaderTree) -> bool {
        match self.requests.get(&hash) {
            Some(request) => request.asks.iter().any(|ask| ask.lapsed),
            None => !self.peers.values().any(|peer| peer.can_give(height, hash, tree)),
        }
    }

    /// Asks peers whose chain is not the best one, but better than ours, for what is beside the best one.
    pub(super) fn ask_beside(&mut self, now: Now, situation: &Situation, asked: &mut Asked) {
        let Situation { tree, handed, .. } = *situation;
        let sides: Vec<_> =
            self.peers.iter().filter_map(|(id, peer)| Some((*id, peer.side_tip()?))).collect();
        if sides.is_empty() {
            return;
        }
        let our_work = tree.info(handed.hash).map(|info| info.work);
        for (peer, tip) in sides.into_iter().filter(|(_, tip)| is_better(*tip, our_work)) {
            for (height, hash) in self.beside(peer, tip, situation) {
                // What is in flight of the withheld chain may never come, so it takes no room here.
                let in_flight =
                    self.requests.values().filter(|request| request.purpose == Purpose::Side).count();
                if !(situation.fits)(in_flight) {
                    asked.starved = true;
                    break;
                }
                self.send(now, peer, height, hash, Purpose::Side, asked);
            }
        }
        let sides = self.requests.iter().filter(|(_, request)| request.purpose == Purpose::Side);
        let overdue: Vec<_> = sides.map(|(hash, _)| *hash).collect();
        for hash in overdue {
            self.hedge(now, hash, tree, asked);
        }
    }

    /// The blocks of a peer's own chain that it can be asked for now, lowest first.
    fn beside(&self, peer: PeerId, tip: HeaderTip, situation: &Situation) -> Vec<(Height, BlockHash)> {
        let Situation { window, tree, handed, is_settled, .. } = *situation;
        let (Some(state), Some(branch)) = (self.peers.get(&peer), tree.branch(tip.hash)) else {
            return vec![];
        };
        let Some(shared) = state.shared().filter(|shared| *shared < window.first()) else {
            // Blocks that the best chain has too are missing below: they come first.
            return vec![];
        };
        let Some(fork) = tree.fork_point(handed.hash, tip.hash) else { return vec![] };
        let base = fork.height.max(shared);
        let end = tip.height.min(Height(base.0.saturating_add(WINDOW)));
        // Downwards, as branches are linked that way.
        let mut wanted: Vec<_> = (base.0 + 1..=end.0)
            .rev()
            .filter_map(|height| Some((Height(height), branch.hash(Height(height))?)))
            .filter(|(height, hash)| {
                !self.requests.contains_key(hash) && !is_settled(hash) && state.can_give(*height, *hash, tree)
            })
            .collect();
        wanted.reverse();
        wanted.truncate(state.room());
        wanted
    }
}

/// Whether a chain has more work than ours; not when ours is unknown.
fn is_better(tip: HeaderTip, our_work: Option<Work>) -> bool {
    our_work.is_some_and(|work| tip.work > work)
}
