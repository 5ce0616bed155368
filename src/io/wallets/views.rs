//! Gives every session the next view of the chain.
//!
//! The node holds one end, each session the other. A session that was too slow to see each view is told that
//! anything may have changed.

use std::sync::{Arc, RwLock};

use tokio::sync::broadcast;

use crate::electrum::Server;
use crate::node::Publication;
use crate::query::View;

/// Views that a session may be behind before it is told that anything may have changed.
const VIEWS: usize = 64;

/// The node's end.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<RwLock<Arc<View>>>,
    updates: broadcast::Sender<Publication>,
}

/// The sessions' end.
#[derive(Clone, Debug)]
pub struct Subscriber {
    current: Arc<RwLock<Arc<View>>>,
    updates: broadcast::Sender<Publication>,
    pub server: Arc<Server>,
}

/// The two ends, with the view to begin with.
pub fn channel(view: Arc<View>, server: Server) -> (Publisher, Subscriber) {
    let current = Arc::new(RwLock::new(view));
    let updates = broadcast::Sender::new(VIEWS);
    let subscriber =
        Subscriber { current: current.clone(), updates: updates.clone(), server: Arc::new(server) };
    (Publisher { current, updates }, subscriber)
}

impl Publisher {
    pub fn publish(&self, publication: Publication) {
        // Under the lock, so that a new session sees each view either as its first or as an update, never neither.
        if let Ok(mut current) = self.current.write() {
            *current = publication.view.clone();
            // Nobody listens while no wallet is connected.
            let _ = self.updates.send(publication);
        }
    }
}

impl Subscriber {
    /// The view of now; `None` when the node has failed.
    pub fn current(&self) -> Option<Arc<View>> {
        self.current.read().ok().map(|current| current.clone())
    }

    /// The view of now, and all that come after it.
    pub fn subscribe(&self) -> Option<(Arc<View>, broadcast::Receiver<Publication>)> {
        let current = self.current.read().ok()?;
        Some((current.clone(), self.updates.subscribe()))
    }
}
