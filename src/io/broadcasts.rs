//! Wallets' transactions on disk until the network has them: a small database of its own, which never waits for the
//! index. A thread owns it, as a commit waits for the disk.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use bitcoin::Wtxid;
use bitcoin::hashes::Hash;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::threads::ThreadEvent;
use crate::mempool::Unconfirmed;
use crate::node::Input;
use crate::relay::KeptState;

/// By the wtxid of the last: transactions, parents first, each after its length.
const BROADCASTS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("broadcasts");
/// The same key: how far it went, a bit for each word of `KeptState`. A table that older versions do not know.
const STATES: TableDefinition<'_, [u8; 32], u8> = TableDefinition::new("states");
const IS_PRIVATE: u8 = 1;
const IS_ECHOED: u8 = 2;
/// Memory of the database; it holds some hundred transactions.
const CACHE_BYTES: usize = 256 * 1024;
/// Bytes of a length.
const LENGTH: usize = 4;

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    Keep(Wtxid, Vec<bytes::Bytes>),
    Note(Wtxid, KeptState),
    Forget(Wtxid),
}

/// What was kept together, parents first.
#[derive(Debug)]
pub struct Kept {
    pub wtxid: Wtxid,
    pub transactions: Vec<Unconfirmed>,
    pub state: KeptState,
}

/// Opens the database of a data folder, or makes it, and starts its thread, which ends when the sender is dropped. Also
/// gives what was kept before.
pub fn start(
    data_dir: &Path,
    events: UnboundedSender<ThreadEvent>,
) -> anyhow::Result<(mpsc::Sender<Order>, Vec<Kept>)> {
    let path = data_dir.join("broadcasts.redb");
    let mut builder = Database::builder();
    let database = builder.set_cache_size(CACHE_BYTES).create(&path);
    let database = database.with_context(|| format!("cannot open {}", path.display()))?;
    let kept = load(&database).with_context(|| format!("cannot read {}", path.display()))?;
    let (orders, queue) = mpsc::channel();
    thread::Builder::new().name("broadcasts".into()).spawn(move || {
        for order in queue {
            match carry_out(&database, &order) {
                Ok(()) => {}
                // The wallet is told that it may be forgotten; the next order may find room again.
                Err(error) => {
                    warn!(%error, "wallets' transactions cannot be kept on disk: they are lost with the next stop");
                    continue;
                }
            }
            if let Order::Keep(wtxid, _) = order
                && events.send(ThreadEvent::Input(Input::BroadcastKept(wtxid))).is_err()
            {
                return;
            }
        }
    })?;
    Ok((orders, kept))
}

fn carry_out(database: &Database, order: &Order) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(BROADCASTS)?;
        let mut states = write.open_table(STATES)?;
        match order {
            Order::Keep(wtxid, transactions) => {
                let mut row = Vec::new();
                for raw in transactions {
                    row.extend_from_slice(&(raw.len() as u32).to_le_bytes());
                    row.extend_from_slice(raw);
                }
                table.insert(wtxid.to_byte_array(), &row[..])?;
            }
            Order::Note(wtxid, KeptState { is_private, is_echoed }) => {
                let bit = |is_set, bit| if is_set { bit } else { 0 };
                let state = bit(*is_private, IS_PRIVATE) | bit(*is_echoed, IS_ECHOED);
                states.insert(wtxid.to_byte_array(), state)?;
            }
            Order::Forget(wtxid) => {
                table.remove(wtxid.to_byte_array())?;
                states.remove(wtxid.to_byte_array())?;
            }
        }
    }
    write.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Vec<Kept>, redb::Error> {
    let write = database.begin_write()?;
    write.open_table(BROADCASTS)?;
    write.open_table(STATES)?;
    write.commit()?;
    let read = database.begin_read()?;
    let states = read.open_table(STATES)?;
    let mut kept = Vec::new();
    for row in read.open_table(BROADCASTS)?.iter()? {
        let (wtxid, row) = row?;
        let mut rest = row.value();
        let mut transactions = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
            let Some((raw, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize) else {
                break;
            };
            transactions.extend(Unconfirmed::parse(raw).ok());
            rest = after;
        }
        let state = states.get(wtxid.value())?.map_or(0, |state| state.value());
        let state = KeptState { is_private: state & IS_PRIVATE != 0, is_echoed: state & IS_ECHOED != 0 };
        kept.push(Kept { wtxid: Wtxid::from_byte_array(wtxid.value()), transactions, state });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(number: u32) -> bytes::Bytes {
        let mut tx = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin).txdata.remove(0);
        tx.lock_time = bitcoin::absolute::LockTime::from_consensus(number);
        bitcoin::consensus::serialize(&tx).into()
    }

    #[tokio::test]
    async fn what_was_kept_is_there_at_the_next_start_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (parent, child, other) = (transaction(1), transaction(2), transaction(3));
        let wtxid = |raw: &bytes::Bytes| Unconfirmed::parse(raw).unwrap().wtxid();
        let start_it = || {
            let (events, said) = tokio::sync::mpsc::unbounded_channel();
            let (orders, kept) = start(folder.path(), events).unwrap();
            (orders, kept, said)
        };
        let (orders, kept, mut said) = start_it();
        assert!(kept.is_empty());
        orders.send(Order::Keep(wtxid(&child), vec![parent.clone(), child.clone()])).unwrap();
        orders.send(Order::Keep(wtxid(&other), vec![other.clone()])).unwrap();
        for expected in [wtxid(&child), wtxid(&other)] {
            let event = said.recv().await;
            assert!(
                matches!(event, Some(ThreadEvent::Input(Input::BroadcastKept(kept))) if kept == expected),
                "{event:?}"
            );
        }
        orders.send(Order::Forget(wtxid(&other))).unwrap();
        let state = KeptState { is_private: true, is_echoed: false };
        orders.send(Order::Note(wtxid(&child), state)).unwrap();
        drop(orders);
        assert!(said.recv().await.is_none());

        let (_orders, kept, _said) = start_it();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].wtxid, kept[0].state), (wtxid(&child), state));
        let raws: Vec<_> = kept[0].transactions.iter().map(|tx| tx.raw().clone()).collect();
        assert_eq!(raws, [parent, child]);
    }

    #[test]
    fn a_file_of_an_older_version_still_opens() {
        let folder = tempfile::tempdir().unwrap();
        let (path, raw) = (folder.path().join("broadcasts.redb"), transaction(1));
        let wtxid = Unconfirmed::parse(&raw).unwrap().wtxid();
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let row = [&(raw.len() as u32).to_le_bytes()[..], &raw].concat();
        write.open_table(BROADCASTS).unwrap().insert(wtxid.to_byte_array(), &row[..]).unwrap();
        write.commit().unwrap();
        drop(database);

        let (events, _said) = tokio::sync::mpsc::unbounded_channel();
        let (_orders, kept) = start(folder.path(), events).unwrap();
        assert_eq!((kept.len(), kept[0].wtxid, kept[0].state), (1, wtxid, KeptState::default()));
    }
}
