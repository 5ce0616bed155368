//! The chain's only writer: joins a block with its coins, checks rung 5, and lets the store connect it.
//!
//! In: commands, in the order in which they are to take effect. Out: what became of each. The shell gives it a
//! thread of its own and decides when it has time to commit; the simulation calls it directly. Which block
//! comes next is decided elsewhere (`blocks::BlockSync`).
//! Rung 6, the scripts, is run by whoever the shell gives for it. Source: Bitcoin Core `Chainstate::ConnectTip`, `DisconnectTip`, `ActivateBestChainStep`.

use std::cell::RefCell;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint};
use bytes::Bytes;
use chainstore::{
    Coin, Commit, Height, MergeJob, MergeResult, NewBlock, Outline, Snapshot, Stopped, Store, Tip,
};

use crate::blocks::ChainEvent;
use crate::headers::HeaderTree;
use crate::mempool::BlockFees;
use crate::scripts::{self, BlockSpends, RunScripts, SpendingTx};
use crate::validate::{
    BlockContext, BlockError, CheckedBlock, ConnectedBlock, Params, SpendContext, check_block, connect_block,
};

/// What is to be done about a block's scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    Verify,
    /// They are known to be good.
    Assume,
}

impl Scripts {
    /// As the headers say that are known now.
    pub fn of(tree: &HeaderTree, hash: BlockHash) -> Self {
        if tree.assumes_scripts_of(hash) { Self::Assume } else { Self::Verify }
    }
}

/// What the chain's writer is told to do.
#[derive(Debug)]
pub enum Command {
    /// Keep these headers, parents first; durable with the next commit.
    PutHeaders(Vec<(Height, Header)>),
    /// Never again follow this header or what builds on it.
    MarkInvalid(BlockHash),
    /// Connect this block on top of the last one.
    Connect(CheckedBlock, Scripts),
    /// Keep this block of another branch.
    Store(CheckedBlock),
    /// Disconnect down to `fork`, then connect these kept blocks: all of it, or nothing.
    Switch { fork: Tip, connect: Vec<(BlockHash, Scripts)> },
    /// Put this block in the place of the damaged one on disk.
    Repair(CheckedBlock),
    /// Make everything so far durable and visible.
    Commit,
    /// The headers are all that anybody has: a bulk sync sees where it ends.
    HeadersComplete,
    /// The answer to [`Event::Restored`]: what comes from now on knows of it. Blocks before this are void.
    Resume,
}

/// What became of a command.
#[derive(Debug)]
pub enum Event {
    /// For the block scheduler: what was connected, kept or found invalid.
    Chain(ChainEvent),
    /// Everything up to here is durable; wallets may see it.
    Committed(Commit, Vec<BlockFees>),
    /// The store was opened again after the disk was full: what was not committed is lost, and whatever was on its
    /// way to the writer.
    Restored(Restored),
}

/// Where the chain stands after the disk was full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the writer stands: in a bulk sync beyond what readers see.
    pub tip: Tip,
    /// The blocks that are kept and not connected.
    pub stored: Vec<Tip>,
}

/// A chain that met a full disk.
#[derive(Debug)]
pub struct StoppedChain {
    stopped: Stopped,
    params: Arc<Params>,
    runner: Box<dyn RunScripts>,
}

impl StoppedChain {
    /// Opens it again as far as it was committed. With the error comes what to try again with.
    pub fn open(self) -> Result<Chain, (Self, chainstore::Error)> {
        let Self { stopped, params, runner } = self;
        match stopped.open() {
            // Headers may have been staged again.
            Ok(store) => Ok(Chain { store, params, runner, staged_bytes: 0, staged: true, fees: Vec::new() }),
            Err((stopped, error)) => Err((Self { stopped, params, runner }, error)),
        }
    }
}

/// The store, and the rules by which a block may be connected to it.
#[derive(Debug)]
pub struct Chain {
    store: Store,
    params: Arc<Params>,
    runner: Box<dyn RunScripts>,
    /// Raw bytes of the blocks that are staged but not yet committed.
    staged_bytes: u64,
    /// Whether anything at all is staged.
    staged: bool,
    /// What the blocks that are staged tell of fees. Of those that are indexed in bulk nobody asks.
    fees: Vec<BlockFees>,
}

impl Chain {
    /// Takes over the store; a new one is given the genesis block. `runner` verifies scripts.
    pub fn new(
        mut store: Store,
        params: Arc<Params>,
        runner: Box<dyn RunScripts>,
    ) -> Result<Self, chainstore::Error> {
        if store.tip().is_none() {
            let block = &params.genesis;
            let raw = bitcoin::consensus::serialize(block);
            let hash = block.block_hash();
            let outline = Outline::of(block);
            let header = &block.header;
            store.connect(&NewBlock { raw: &raw, header, hash, outline: &outline, spent: &[] })?;
            store.commit()?;
        }
        Ok(Self { store, params, runner, staged_bytes: 0, staged: false, fees: Vec::new() })
    }

    /// The store, for what only reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All headers that the store has.
    pub fn header_tree(&self) -> Result<HeaderTree, chainstore::Error> {
        let loaded = self.store.headers()?;
        let mut tree = HeaderTree::new((*self.params).clone());
        let side = loaded.side.iter().map(|(_, header)| header);
        for header in loaded.chain.iter().skip(1).chain(side) {
            // What no longer fits (its parent was forgotten) is fetched again if anybody follows it.
            let _ = tree.insert_stored(*header);
        }
        for hash in loaded.invalid {
            tree.mark_invalid(hash);
        }
        Ok(tree)
    }

    /// The rules of the network.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The last committed state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.store.snapshot()
    }

    /// How many bytes of blocks a power cut would cost now.
    pub fn staged_bytes(&self) -> u64 {
        self.staged_bytes
    }

    /// Does what is told. An error is the store's own: its disk is full, or it can no longer be trusted.
    pub fn execute(&mut self, command: Command) -> Result<Vec<Event>, chainstore::Error> {
        match command {
            Command::PutHeaders(headers) => {
                self.store.put_headers(&headers)?;
                self.staged = true;
                Ok(vec![])
            }
            Command::MarkInvalid(hash) => {
                self.store.mark_invalid(hash)?;
                self.staged = true;
                Ok(vec![])
            }
            Command::Connect(block, scripts) => self.connect(block, scripts),
            Command::Store(block) => {
                self.store.store_block(block.height(), block.hash(), block.raw())?;
                self.staged(block.raw());
                Ok(vec![Event::Chain(ChainEvent::Stored(block.hash()))])
            }
            Command::Switch { fork, connect } => self.switch(fork, &connect),
            Command::Repair(repaired) => {
                let block = Tip { height: repaired.height(), hash: repaired.hash() };
                let moved = self.store.repair_block(block, repaired.raw())?;
                Ok(vec![Event::Chain(ChainEvent::Repaired { block, moved })])
            }
            // What was void before it was not executed.
            Command::Resume => Ok(vec![]),
            Command::Commit => Ok(self.commit()?.into_iter().collect()),
            Command::HeadersComplete => {
                self.store.set_headers_complete()?;
                // The last block may have been connected before.
                self.staged = true;
                Ok(self.commit()?.into_iter().collect())
            }
        }
    }

    /// Makes durable and visible what is staged; `None` where nothing is.
    pub fn commit(&mut self) -> Result<Option<Event>, chainstore::Error> {
        if !self.staged {
            return Ok(None);
        }
        let commit = self.store.commit()?;
        (self.staged, self.staged_bytes) = (false, 0);
        Ok(Some(Event::Committed(commit, std::mem::take(&mut self.fees))))
    }

    /// Makes a bulk sync durable as far as it is; wallets see nothing of it yet.
    pub fn flush(&mut self) -> Result<(), chainstore::Error> {
        self.store.flush()
    }

    /// Whether blocks are indexed in bulk, unseen by wallets until that ends.
    pub fn is_bulk(&self) -> bool {
        self.store.is_bulk()
    }

    /// Takes it apart on a full disk: nothing is written any more, snapshots are read.
    pub fn stop(self) -> StoppedChain {
        StoppedChain { stopped: self.store.stop(), params: self.params, runner: self.runner }
    }

    /// Whether the disk has room again for what needed so many bytes; 0 where that is not known.
    pub fn has_room(&self, needed: u64) -> bool {
        self.store.has_room(needed)
    }

    /// Where it stands after it was opened again.
    pub fn restored(&self) -> Result<Restored, chainstore::Error> {
        Ok(Restored { tip: self.tip()?, stored: self.store.stored_blocks() })
    }

    /// The last thing before the end.
    pub fn close(&mut self) -> Result<(), chainstore::Error> {
        self.commit()?;
        self.store.close()
    }

    /// Whether this command makes a bulk end, which takes long.
    pub fn ends_bulk(&self, command: &Command) -> bool {
        match command {
            Command::HeadersComplete => self.store.bulk_is_due_to_end(true),
            Command::Connect(..) => self.store.bulk_is_due_to_end(false),
            _ => false,
        }
    }

    /// The next piece of moving old blocks into the base, when that is due and nobody works on another. It may run on
    /// any thread.
    pub fn merge_job(&mut self) -> Result<Option<MergeJob>, chainstore::Error> {
        self.store.merge_job()
    }

    /// Whether there is something to be moved.
    pub fn merge_is_due(&self) -> bool {
        self.store.merge_due()
    }

    /// Takes what became of it.
    pub fn merge_done(&mut self, result: MergeResult) -> Result<(), chainstore::Error> {
        self.store.merge_done(result)
    }

    fn staged(&mut self, raw: &Bytes) {
        self.staged = true;
        self.staged_bytes += raw.len() as u64;
    }

    fn connect(&mut self, block: CheckedBlock, scripts: Scripts) -> Result<Vec<Event>, chainstore::Error> {
        let tip = self.tip()?;
        if block.header().prev_blockhash != tip.hash {
            // It was sent before its parent turned out to be invalid; the scheduler has started over since.
            return Ok(vec![]);
        }
        let (hash, height, raw) = (block.hash(), block.height(), block.raw().clone());
        let staged = match self.stage(block, scripts) {
            // What the block spends is read, and cannot be.
            Err(chainstore::Error::DamagedBlock { height, hash, what }) => {
                let damaged = Tip { height, hash };
                return Ok(vec![Event::Chain(ChainEvent::Blocked { damaged, what, tip })]);
            }
            other => other?,
        };
        let event = match staged {
            Ok(()) => {
                self.staged(&raw);
                ChainEvent::Connected(Tip { height, hash })
            }
            Err(error) => ChainEvent::Failed { hash, reason: error.to_string(), tip: self.tip()? },
        };
        Ok(vec![Event::Chain(event)])
    }

    /// All or nothing: what was staged before is committed first, so that undoing leaves the old tip standing.
    fn switch(
        &mut self,
        fork: Tip,
        connect: &[(BlockHash, Scripts)],
    ) -> Result<Vec<Event>, chainstore::Error> {
        let mut events: Vec<Event> = self.commit()?.into_iter().collect();
        let switched = match self.try_switch(fork, connect) {
            Err(chainstore::Error::DamagedBlock { height, hash, what }) => {
                self.store.rollback()?;
                self.fees.clear();
                let damaged = Tip { height, hash };
                events.push(Event::Chain(ChainEvent::Blocked { damaged, what, tip: self.tip()? }));
                return Ok(events);
            }
            other => other?,
        };
        match switched {
            Ok(()) => {
                self.staged = true;
                events.push(Event::Chain(ChainEvent::Switched(self.tip()?)));
                events.extend(self.commit()?);
            }
            Err((hash, reason)) => {
                // What a bulk took is valid, and stays: it only ever adds to the old tip.
                self.store.rollback()?;
                self.fees.clear();
                events.push(Event::Chain(ChainEvent::Failed { hash, reason, tip: self.tip()? }));
            }
        }
        Ok(events)
    }

    /// The outer error is the store's, the inner one names the block that does not fit.
    fn try_switch(
        &mut self,
        fork: Tip,
        connect: &[(BlockHash, Scripts)],
    ) -> Result<Result<(), (BlockHash, String)>, chainstore::Error> {
        while self.tip()?.height > fork.height {
            self.store.disconnect()?;
        }
        for &(hash, scripts) in connect {
            let tip = self.tip()?;
            let Some(raw) = self.store.stored_block(&hash)? else {
                // The scheduler only names what the store said it has: the header is not to blame.
                let what = format!("block {hash} was kept and is gone");
                return Err(chainstore::Error::Corrupt { file: "tip.redb".into(), what });
            };
            let context = BlockContext {
                height: tip.height.next(),
                parent_mtp: self.store.median_time_past(tip.height)?,
            };
            let result = match check_block(raw.into(), &context, &self.params) {
                Ok(block) => self.stage(block, scripts)?,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                return Ok(Err((hash, error.to_string())));
            }
        }
        Ok(Ok(()))
    }

    /// Rungs 5 and 6, then the store. The outer error is the store's, the inner one the block's.
    fn stage(
        &mut self,
        checked: CheckedBlock,
        scripts: Scripts,
    ) -> Result<Result<(), BlockError>, chainstore::Error> {
        let wanted: Vec<OutPoint> = checked.inputs_from_chain().flatten().collect();
        let mut found = self.store.coins(&wanted)?.into_iter();
        // Coins of the block itself are found by the rules.
        let coins: Vec<Option<Coin>> =
            checked.inputs_from_chain().map(|wanted| wanted.and_then(|_| found.next().flatten())).collect();
        let parent = checked.height().prev().unwrap_or(Height::GENESIS);
        // The rules ask by plain functions; what the store answers wrongly is remembered and wins.
        let failure = RefCell::new(None);
        let keep = |error| *failure.borrow_mut() = Some(error);
        let connected = connect_block(
            checked,
            &coins,
            &SpendContext {
                params: &self.params,
                parent_mtp: self.store.median_time_past(parent)?,
                at_bip34_height: self.at_bip34_height(parent)?,
                mtp_at: &|height| {
                    self.store.median_time_past(height).unwrap_or_else(|error| {
                        keep(error);
                        0
                    })
                },
                has_unspent: &|txid, outputs| {
                    self.store.has_unspent(txid, outputs).unwrap_or_else(|error| {
                        keep(error);
                        false
                    })
                },
            },
        );
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        match connected {
            Ok(connected) => {
                if scripts == Scripts::Verify
                    && let Err(error) = self.run_scripts(&connected)?
                {
                    return Ok(Err(error));
                }
                if !self.store.is_bulk() {
                    self.fees.push(BlockFees::of(&connected));
                }
                let checked = connected.checked();
                self.store.connect(&NewBlock {
                    raw: checked.raw(),
                    header: checked.header(),
                    hash: checked.hash(),
                    outline: checked.outline(),
                    spent: connected.spent(),
                })?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Rung 6. The outer error is the store's, the inner one the block's.
    fn run_scripts(&self, connected: &ConnectedBlock) -> Result<Result<(), BlockError>, chainstore::Error> {
        if !scripts::is_available() {
            return Ok(Ok(()));
        }
        let checked = connected.checked();
        let block = match checked.decode() {
            Ok(block) => block,
            Err(error) => return Ok(Err(error)),
        };
        let (txs, inputs) = (&block.txdata, checked.outline().inputs());
        let coins = connected.spent().iter().zip(inputs);
        let from_chain: Vec<_> = coins
            .filter(|(_, input)| input.maker().is_none())
            .map(|(coin, input)| (coin.tx_num, input.outpoint.vout))
            .collect();
        let mut read = self.store.outputs(&from_chain)?.into_iter();
        let mut spent = inputs.iter().filter_map(|input| match input.maker() {
            None => read.next(),
            Some(maker) => txs.get(maker).and_then(|tx| tx.output.get(input.outpoint.vout as usize)).cloned(),
        });
        let spends = BlockSpends {
            txs: txs
                .iter()
                .skip(1)
                .map(|tx| SpendingTx { tx, spent: spent.by_ref().take(tx.input.len()).collect() })
                .collect(),
            flags: self.params.script_flags(checked.height(), checked.hash()),
        };
        Ok(self.runner.run(&spends).map_err(|(position, error)| {
            let details = spends.txs.get(position).map(|spending| error.details(spending.tx));
            BlockError::BadScript { error, details: details.unwrap_or_default() }
        }))
    }

    /// The block at the height of BIP34, if the chain that ends at `parent` has one. It is far below any tip that
    /// asks, so the committed chain has it or the headers above that do.
    fn at_bip34_height(&self, parent: Height) -> Result<Option<BlockHash>, chainstore::Error> {
        let height = Height(self.params.bip34_height);
        if parent < height {
            return Ok(None);
        }
        Ok(self.store.snapshot().header(height)?.map(|header| header.block_hash()))
    }

    /// Where the chain stands, committed or not.
    pub fn tip(&self) -> Result<Tip, chainstore::Error> {
        Ok(self.store.tip().expect("new() connected the genesis block"))
    }
}
