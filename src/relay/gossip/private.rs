//! The relay's part in private connections, and in keeping a secret of what goes over them.

use super::super::types::{PrivateEvent, PrivateId, PrivateState};
use super::Relay;
use crate::mempool::Unconfirmed;
use crate::peer::{Inventory, PeerId};
use crate::time::Now;

impl Relay {
    /// Whether private connections can be made. Off before it is said.
    pub fn set_private(&mut self, now: Now, state: PrivateState) {
        self.broadcasts.set_private(now.instant, state);
        self.settle(now);
    }

    /// Something came of a connection that was asked for by [`super::Output::Dial`].
    pub fn handle_private(&mut self, now: Now, connection: PrivateId, event: PrivateEvent) {
        self.broadcasts.private_event(now.instant, connection, event, &mut self.rng);
        self.settle(now);
    }

    /// A peer that sends a secret shows that it is none any more. One that sends a child of a secret may want to see
    /// whether we ask for the parent: whoever has not got it would.
    pub(super) fn look_for_secrets(&mut self, now: Now, from: PeerId, tx: &Unconfirmed) {
        if self.holdings.set_secret(tx.wtxid(), false)
            && let Some(entry) = self.holdings.by_wtxid(&tx.wtxid()).cloned()
        {
            self.announcements.queue(now.instant, &entry, &mut self.rng);
        }
        for parent in self.holdings.secret_parents(tx) {
            let parent = Inventory::witness_tx(parent);
            self.download.announced(now.instant, from, parent, &self.holdings);
        }
    }
}

#[cfg(test)]
mod tests;
