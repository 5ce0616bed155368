//! The threads that serve wallets: one for each core, each with its share of the connections for as long as they last.
//!
//! Each serves those that have something to do in the order in which they came. Workers that share their tasks do not: of
//! more than 256 that wait for one of them, those that wait longest are put behind the others.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::sessions::SessionId;

/// All of these threads.
#[derive(Clone, Debug)]
pub struct Turns(Arc<[Handle]>);

impl Turns {
    /// Starts them. At `stop` they end, and what they served with them.
    pub fn start(stop: &CancellationToken) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let handles = (0..cores).map(|number| start(number, stop.clone()));
        handles.collect::<io::Result<_>>().map(Self)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Serves a session on its thread until `work` is done.
    pub fn serve(&self, session: SessionId, work: impl Future<Output = ()> + Send + 'static) {
        self.run(place_of(session, self.count()), work);
    }

    /// Does some work on the thread at a place.
    pub fn run(&self, place: usize, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(thread) = self.0.get(place) {
            drop(thread.spawn(work));
        }
    }
}

/// The place among `count` threads of the one that serves a session. They come one by one, so each has as many as another.
pub fn place_of(session: SessionId, count: usize) -> usize {
    (session.0 % count.max(1) as u64) as usize
}

fn start(number: usize, stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("wallets-{number}")).spawn(move || {
        runtime.block_on(stop.cancelled());
        // Tasks that still wait for something are not waited for.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn sessions_are_spread_over_the_threads_and_end_with_them() {
        let stop = CancellationToken::new();
        let turns = Turns::start(&stop).unwrap();
        let (told, mut tell) = mpsc::unbounded_channel();
        let count = turns.0.len() as u64 * 3;
        for session in 1..=count {
            let told = told.clone();
            turns.serve(SessionId(session), async move {
                told.send(thread::current().id()).unwrap();
                std::future::pending::<()>().await;
                drop(told);
            });
        }
        drop(told);
        let mut threads = std::collections::HashMap::new();
        for _ in 0..count {
            *threads.entry(tell.recv().await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(threads.len(), turns.0.len());
        assert!(threads.values().all(|sessions| *sessions == 3), "{threads:?}");
        assert!(!threads.contains_key(&thread::current().id()));
        stop.cancel();
        let ended = timeout(Duration::from_secs(10), tell.recv()).await;
        assert_eq!(ended.unwrap(), None, "a session goes on after the end");
    }
}
