//! The writer: stages blocks and headers. `commit` makes what is staged durable and publishes a snapshot.
//!
//! Staged are: a chain (deltas above the base; an open change of the base when a reorg goes below them), a header
//! chain, and what is put aside. Blocks are written to their file at once, behind what the state row names.
//! Of a block's transactions only the coinbase can repeat an older txid (BIP30): every other spends a coin that
//! no longer exists, or descends from such a coinbase, which `validate` refuses while its coins are unspent.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use bitcoin::block::Header;
use bitcoin::constants::genesis_block;
use bitcoin::{BlockHash, Network, OutPoint, Txid};

use crate::build::{Source, build};
use crate::bulk::Bulk;
use crate::delta::{PREFIX_LEN, tx_prefix, tx_word};
use crate::disk::{Disk, RealDisk};
use crate::error::Error;
use crate::files::Files;
use crate::headers::HeaderStage;
use crate::merge::Merging;
use crate::open::Kept;
use crate::outline::Outline;
use crate::repair::name_block;
use crate::segments::{BlockPos, SegmentWriter};
use crate::snapshot::Snapshot;
use crate::tip::{Aside, AsideChange, State, Stored, TipFile};
use crate::types::{Coin, Height, ScriptKey, Tip, TxNum};
use crate::view::{View, median_time_past};

/// What a store is opened with; `Options::new(network)` has what operators want.
#[derive(Clone, Debug)]
pub struct Options {
    pub network: Network,
    /// Newest blocks kept as deltas: what a reorg can undo without touching the base.
    pub keep_deltas: usize,
    /// Deltas beyond `keep_deltas` at which a merge is due.
    pub merge_batch: usize,
    /// Length of a block file, in bytes, at which the next one is begun.
    pub segment_bytes: u32,
    /// Bytes of rows from which on a part of the base is split in two when it is written anew.
    pub part_bytes: u64,
    /// Bytes up to which the directories of the parts of coins are kept in memory, all or none.
    pub directory_bytes: u64,
    /// Bytes of redb's cache for `tip.redb`.
    pub tip_cache_bytes: usize,
    /// How many headers more than `keep_deltas` must be ahead of an empty base for blocks to be indexed in bulk.
    pub bulk_blocks: u32,
    /// What that may take: half for coins, the rest for rows and for merging.
    pub bulk_memory_bytes: usize,
    /// In place of a random number, for tests.
    pub bulk_secret: Option<u64>,
    /// Bytes that every step leaves free on the disk.
    pub reserve_bytes: u64,
    /// Bytes of a txid in the keys of the index, 1 to 6; tests shorten it to force collisions.
    pub txid_prefix: u8,
}

impl Options {
    /// The options of a server on `network`.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            keep_deltas: 12,
            merge_batch: 200,
            segment_bytes: 128 << 20,
            part_bytes: 512 << 20,
            directory_bytes: 32 << 20,
            tip_cache_bytes: 32 << 20,
            bulk_blocks: 50,
            bulk_memory_bytes: 512 << 20,
            bulk_secret: None,
            // Whoever uses regtest knows how large the disk is.
            reserve_bytes: if network == Network::Regtest { 0 } else { 1_000_000_000 },
            txid_prefix: PREFIX_LEN as u8,
        }
    }
}

/// A checked block with the coins that it spends.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    pub raw: &'a [u8],
    pub header: &'a Header,
    pub hash: BlockHash,
    pub outline: &'a Outline,
    /// One for each input of each transaction after the coinbase, in block order. For outputs made in this
    /// block the entry is there but not looked at.
    pub spent: &'a [Coin],
}

/// What a commit changed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub snapshot: Arc<Snapshot>,
    /// Scripts whose history or coins changed, sorted, each once; also those of disconnected blocks.
    pub touched: Vec<ScriptKey>,
    /// Transactions of the blocks that were connected or disconnected, some twice.
    pub transactions: Vec<Txid>,
    /// A bulk ended: whatever script it is, it may have been touched.
    pub everything: bool,
}

/// All headers that the store knows, to rebuild the header tree from.
#[derive(Clone, Debug, Default)]
pub struct LoadedHeaders {
    /// The header chain from genesis on; its start is the connected chain.
    pub chain: Vec<Header>,
    /// Headers off that chain, parents before children.
    pub side: Vec<(Height, Header)>,
    /// Blocks marked invalid.
    pub invalid: Vec<BlockHash>,
}

/// Held as long as the folder is ours.
pub(crate) type Lock = Arc<dyn Any + Send + Sync>;

/// What opening found.
pub(crate) struct Parts {
    pub(crate) lock: Lock,
    pub(crate) files: Arc<Files>,
    pub(crate) tip: TipFile,
    pub(crate) next_file: u32,
    pub(crate) merges: u64,
    pub(crate) segments: SegmentWriter,
    pub(crate) state: State,
    pub(crate) aside: Aside,
    pub(crate) view: View,
    pub(crate) bulk: Option<Box<Bulk>>,
}

/// Work that is not committed.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) view: View,
    pub(crate) headers: HeaderStage,
    pub(crate) aside: AsideChange,
    /// Some of them more than once.
    pub(crate) touched: Vec<ScriptKey>,
    /// Ids of their transactions.
    pub(crate) transactions: Vec<Txid>,
    pub(crate) any: bool,
}

impl Staged {
    /// Nothing, on top of what is committed.
    pub(crate) fn nothing(view: &View, state: &State) -> Self {
        Self {
            view: view.clone(),
            headers: HeaderStage::unchanged(state.headers),
            aside: AsideChange::default(),
            touched: Vec::new(),
            transactions: Vec::new(),
            any: false,
        }
    }
}

/// A transaction that a coinbase repeats (BIP30), and its unspent outputs.
type OlderCoinbase = (TxNum, Vec<(u32, Coin)>);

/// The one writer of a data folder; dropping it frees the folder.
pub struct Store {
    pub(crate) options: Options,
    pub(crate) staged: Staged,
    /// The chain as committed.
    pub(crate) view: View,
    pub(crate) state: State,
    pub(crate) aside: Aside,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Why nothing more is written.
    pub(crate) dead: Option<String>,
    pub(crate) files: Arc<Files>,
    pub(crate) segments: SegmentWriter,
    pub(crate) tip: TipFile,
    /// Number of the next file of the base.
    pub(crate) next_file: u32,
    pub(crate) merging: Option<Merging>,
    /// Merges begun since it was opened.
    pub(crate) merges: u64,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) bulk: Option<Box<Bulk>>,
    pub(crate) headers_complete: bool,
    /// A bulk ended since the last commit.
    pub(crate) bulk_ended: bool,
    // Last, as fields are dropped in order: the folder is free when all files are closed.
    pub(crate) lock: Lock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("state", &self.state).field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store in `dir`: takes the lock, checks `MANIFEST`, recovers from a crash.
    ///
    /// A fresh store has connected nothing; genesis is connected by the caller like any block.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        Self::open_on(Arc::new(RealDisk::new(dir)), options)
    }

    /// [`Store::open`] on any disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, Error> {
        Self::reopen(disk, options, &mut Kept::default())
    }

    /// The same with what another store left.
    pub(crate) fn reopen(disk: Arc<dyn Disk>, options: Options, kept: &mut Kept) -> Result<Self, Error> {
        let Parts { lock, files, tip, next_file, merges, segments, state, aside, view, bulk } =
            crate::open::open(disk.clone(), &options, kept)?;
        files.blocks.repairs().load(tip.moved()?);
        let staged = Staged::nothing(&view, &state);
        let snapshot = Arc::new(Snapshot::new(view.clone(), state.headers));
        let store = Self {
            options,
            staged,
            view,
            state,
            aside,
            snapshot,
            dead: None,
            files,
            segments,
            tip,
            next_file,
            merging: None,
            merges,
            disk,
            bulk,
            headers_complete: false,
            bulk_ended: false,
            lock,
        };
        store.note_lost()?;
        Ok(store)
    }

    /// The staged tip.
    pub fn tip(&self) -> Option<Tip> {
        self.bulk_tip().or_else(|| self.staged.view.tip())
    }

    /// The chain as last committed.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// The unspent coins at `outpoints` as of the staged tip, in their order.
    pub fn coins(&mut self, outpoints: &[OutPoint]) -> Result<Vec<Option<Coin>>, Error> {
        self.alive()?;
        if let Some(bulk) = &mut self.bulk {
            return bulk.fetch(outpoints);
        }
        self.staged.view.coins(outpoints)
    }

    /// Whether a transaction of that id, which has so many outputs, has an unspent one at the staged tip (BIP30).
    pub fn has_unspent(&self, txid: &Txid, outputs: u32) -> Result<bool, Error> {
        self.alive()?;
        let view = &self.staged.view;
        if self.bulk.is_none()
            && view.deltas.maybe(tx_word(txid)).next().is_none()
            && view.index.numbers(tx_prefix(txid))?.is_empty()
        {
            return Ok(false);
        }
        for vout in 0..outputs {
            let outpoint = OutPoint::new(*txid, vout);
            let coin = match &self.bulk {
                Some(bulk) => bulk.coin(&outpoint)?,
                None => view.coin(&outpoint)?,
            };
            if coin.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Median time past of the block at a height of the staged chain (BIP113); an error above its tip.
    pub fn median_time_past(&self, height: Height) -> Result<u32, Error> {
        self.alive()?;
        match &self.bulk {
            Some(bulk) => median_time_past(height, |height| Ok(bulk.time(height.0)))?,
            None => self.staged.view.median_time_past(height)?,
        }
        .ok_or(Error::NoTip)
    }

    /// Stages a block on top of the staged tip.
    pub fn connect(&mut self, new: &NewBlock<'_>) -> Result<(), Error> {
        self.alive()?;
        self.end_bulk_if_due()?;
        self.begin_bulk_if_due()?;
        let tip = self.tip();
        let (height, below) = match tip {
            Some(tip) => (tip.height.next(), Some(tip.hash)),
            None => (Height::GENESIS, None),
        };
        let follows = match below {
            Some(below) => new.header.prev_blockhash == below,
            None => new.hash == genesis_block(self.options.network).block_hash(),
        };
        if !follows {
            return Err(Error::NotNext { hash: new.hash, tip: tip.map(|tip| tip.height) });
        }
        if let (Some(bulk), Some(coinbase)) = (&self.bulk, new.outline.txs().first())
            && bulk.repeats(&coinbase.txid)?
        {
            self.end_bulk()?;
        }
        if self.bulk.is_some() {
            return self.connect_bulk(new, height);
        }
        let view = &self.staged.view;
        let length = u32::try_from(new.raw.len())
            .map_err(|_| Error::BadInput { hash: new.hash, what: "block above 4 GB" })?;
        let source = Source {
            height,
            hash: new.hash,
            header: new.header,
            outline: new.outline,
            length,
            first_tx: view.end_tx(),
            spent: new.spent,
            older: self.older(new)?,
        };
        let stored = self.stored(&new.hash);
        let nowhere = BlockPos { segment: 0, offset: 0, length };
        // A block is durable before it is seen: the disk is kept busy while its rows are made.
        let (delta, pos) = thread::scope(|scope| {
            let segments = &mut self.segments;
            let writing = scope.spawn(move || match stored {
                Some(stored) => Ok(stored.pos),
                None => segments.append(new.raw).and_then(|pos| segments.sync().map(|()| pos)),
            });
            let delta = build(source, nowhere);
            let panicked = |_| Err(Error::corrupt("blocks", "the thread that wrote a block panicked"));
            (delta, writing.join().unwrap_or_else(panicked))
        });
        let pos = pos.map_err(|error| self.kill_unless_full(error))?;
        let mut delta = delta?;
        delta.head.pos = pos;
        self.staged.any = true;
        if self.stored(&new.hash).is_some() {
            self.staged.aside.stored.insert(new.hash, None);
        }
        if self.staged.headers.hash(&self.files, height.0)? != Some(new.hash) {
            self.replace_headers(height, &[*new.header])?;
        }
        self.staged.touched.extend(delta.keys());
        self.staged.transactions.extend(&delta.head.txids);
        self.staged.view.deltas.push(Arc::new(delta));
        Ok(())
    }

    /// The earlier transaction that has the id of this block's coinbase, with what of it is unspent.
    fn older(&self, new: &NewBlock<'_>) -> Result<Option<OlderCoinbase>, Error> {
        let view = &self.staged.view;
        let Some(coinbase) = new.outline.txs().first() else { return Ok(None) };
        let txid = &coinbase.txid;
        let Some(older) = view.tx_num(txid, TxNum(u32::MAX))? else { return Ok(None) };
        let mut coins = Vec::new();
        for vout in 0..new.outline.outputs_of(0).len() as u32 {
            let coin = view.coin(&OutPoint::new(*txid, vout))?;
            coins.extend(coin.filter(|coin| coin.tx_num == older).map(|coin| (vout, coin)));
        }
        Ok(Some((older, coins)))
    }

    /// Stages the undoing of the tip's block, which stays findable by hash; returns the block undone.
    ///
    /// Below the deltas it is [`Error::DamagedBlock`] where a block that is needed for it cannot be read; the staged
    /// tip is as it was.
    pub fn disconnect(&mut self) -> Result<Tip, Error> {
        self.alive()?;
        self.end_bulk()?;
        let tip = self.tip().ok_or(Error::NoTip)?;
        let delta = match self.staged.view.deltas.pop() {
            Some(delta) => delta,
            None => self.undo_arrays(tip.height)?,
        };
        self.undo_in_base(&delta);
        self.staged.any = true;
        self.staged.touched.extend(delta.keys());
        self.staged.transactions.extend(&delta.head.txids);
        let stored = Stored { height: tip.height, pos: delta.head.pos };
        self.staged.aside.stored.insert(tip.hash, Some(stored));
        Ok(tip)
    }

    /// Stages the keeping of a block off the connected chain. Storing it twice is one storing.
    pub fn store_block(&mut self, height: Height, hash: BlockHash, raw: &[u8]) -> Result<(), Error> {
        self.alive()?;
        if self.stored(&hash).is_none() {
            let pos = self.append(raw)?;
            self.staged.any = true;
            self.staged.aside.stored.insert(hash, Some(Stored { height, pos }));
        }
        Ok(())
    }

    /// A block that is kept and not connected, staged ones included.
    pub fn stored_block(&self, hash: &BlockHash) -> Result<Option<Vec<u8>>, Error> {
        self.alive()?;
        let read = |Stored { height, pos }| {
            self.files.blocks.read(pos).map_err(|error| name_block(error, height, *hash))
        };
        self.stored(hash).map(read).transpose()
    }

    /// Heights and hashes of the blocks that are kept and not connected, by height.
    pub fn stored_blocks(&self) -> Vec<Tip> {
        let mut aside = self.aside.stored.clone();
        for (hash, stored) in &self.staged.aside.stored {
            match stored {
                Some(stored) => aside.insert(*hash, *stored),
                None => aside.remove(hash),
            };
        }
        let mut blocks: Vec<Tip> =
            aside.into_iter().map(|(hash, stored)| Tip { height: stored.height, hash }).collect();
        blocks.sort_unstable_by_key(|block| (block.height, block.hash));
        blocks
    }

    pub(crate) fn stored(&self, hash: &BlockHash) -> Option<Stored> {
        match self.staged.aside.stored.get(hash) {
            Some(staged) => *staged,
            None => self.aside.stored.get(hash).copied(),
        }
    }

    /// Stages accepted headers, parents first: what continues the header chain is appended to it, anything
    /// else is kept as a side header.
    pub fn put_headers(&mut self, headers: &[(Height, Header)]) -> Result<(), Error> {
        self.alive()?;
        let mut last: Option<(u32, BlockHash)> = None;
        for (height, header) in headers {
            let len = self.staged.headers.len();
            let hash = header.block_hash();
            let below = match (last, len.checked_sub(1)) {
                (Some((at, hash)), _) if at + 1 == len => Some(hash),
                (_, Some(top)) => self.staged.headers.hash(&self.files, top)?,
                (_, None) => None,
            };
            if height.0 == len && (len == 0 || below == Some(header.prev_blockhash)) {
                self.staged.any = true;
                self.staged.headers.push(*header);
                self.forget_side(&hash);
                last = Some((len, hash));
            } else if height.0 >= len || self.staged.headers.hash(&self.files, height.0)? != Some(hash) {
                self.staged.any = true;
                self.staged.aside.side.insert(hash, Some((*height, *header)));
            }
        }
        Ok(())
    }

    /// Stages a switch of the header chain above the tip: from `from` on it is `headers`; those displaced
    /// become side headers.
    pub fn follow_headers(&mut self, from: Height, headers: &[Header]) -> Result<(), Error> {
        self.alive()?;
        let bad = |height| Error::BadHeaders { height };
        if from.0 < self.blocks() || from.0 > self.staged.headers.len() {
            return Err(bad(from));
        }
        let mut below = match from.prev() {
            Some(below) => self.staged.headers.hash(&self.files, below.0)?,
            None => headers.first().map(|header| header.prev_blockhash),
        };
        for (header, height) in headers.iter().zip(from.0..) {
            if below != Some(header.prev_blockhash) {
                return Err(bad(Height(height)));
            }
            below = Some(header.block_hash());
        }
        self.replace_headers(from, headers)
    }

    /// From `from` on the header chain is `headers`.
    pub(crate) fn replace_headers(&mut self, from: Height, headers: &[Header]) -> Result<(), Error> {
        self.staged.any = true;
        for (height, header) in self.staged.headers.cut(&self.files, from.0)? {
            self.staged.aside.side.insert(header.block_hash(), Some((height, header)));
        }
        for header in headers {
            self.staged.headers.push(*header);
            self.forget_side(&header.block_hash());
        }
        Ok(())
    }

    /// A header that is in the chain now is no side header.
    fn forget_side(&mut self, hash: &BlockHash) {
        if self.aside.side.contains_key(hash) {
            self.staged.aside.side.insert(*hash, None);
        } else {
            self.staged.aside.side.remove(hash);
        }
    }

    /// Stages a mark that a block breaks the rules.
    pub fn mark_invalid(&mut self, hash: BlockHash) -> Result<(), Error> {
        self.alive()?;
        if !self.aside.invalid.contains(&hash) {
            self.staged.any |= self.staged.aside.invalid.insert(hash);
        }
        Ok(())
    }

    /// All headers as staged.
    pub fn headers(&self) -> Result<LoadedHeaders, Error> {
        self.alive()?;
        let chain = self.staged.headers.load(&self.files)?;
        let mut aside = Aside { stored: Default::default(), ..self.aside.clone() };
        self.staged.aside.clone().apply(&mut aside);
        let mut side = Vec::new();
        for (hash, (height, header)) in aside.side {
            // A crash within a switch leaves headers on both sides.
            if chain.get(height.0 as usize).is_none_or(|other| other.block_hash() != hash) {
                side.push((height, header));
            }
        }
        side.sort_by_key(|(height, header)| (*height, header.block_hash()));
        Ok(LoadedHeaders { chain, side, invalid: aside.invalid.into_iter().collect() })
    }

    /// Forgets all that is staged: blocks, headers, marks. In a bulk nothing is forgotten: the blocks that it took
    /// are valid and cannot be given back, and so their headers must stay.
    pub fn rollback(&mut self) -> Result<(), Error> {
        self.alive()?;
        if self.bulk.is_some() {
            return Ok(());
        }
        self.staged = Staged::nothing(&self.view, &self.state);
        let rewound =
            if self.segments.end() == self.state.end { Ok(()) } else { self.segments.rewind(self.state.end) };
        rewound.map_err(|error| self.kill(error))
    }

    pub(crate) fn append(&mut self, raw: &[u8]) -> Result<BlockPos, Error> {
        let appended = self.segments.append(raw);
        appended.map_err(
            |error| if matches!(error, Error::StorageFull { .. }) { error } else { self.kill(error) },
        )
    }

    pub(crate) fn alive(&self) -> Result<(), Error> {
        match &self.dead {
            Some(why) => Err(Error::Dead { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// After this error nothing more is written.
    pub(crate) fn kill(&mut self, error: Error) -> Error {
        self.dead.get_or_insert_with(|| error.to_string());
        error
    }
}
