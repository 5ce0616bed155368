//! Opening a data folder: lock, manifest, and whatever a crash left half done.
//!
//! The rows of `tip.redb` are the truth: flat files are cut to the state row, and one that is shorter was damaged from
//! outside; files of the base and runs that no row names are leftovers, and go.

use std::sync::Arc;

use redb::{Builder, Database};

use crate::base::{self, Base, PartInfo};
use crate::bulk::{self, Bulk, BulkState};
use crate::disk::{Backend, Disk, DiskFile, NamedFile, remove_unnamed};
use crate::error::Error;
use crate::files::Files;
use crate::manifest::Manifest;
use crate::segments::{SegmentWriter, Segments};
use crate::store::{Lock, Options, Parts};
use crate::tip::{self, State, TipFile};
use crate::view::View;

const LOCK: &str = "LOCK";

/// What a store that stopped leaves to the next one of the same process: all that its snapshots still read.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) lock: Option<Lock>,
    pub(crate) files: Option<Arc<Files>>,
    pub(crate) base: Option<Base>,
    /// Numbers that a piece of a merge which still runs may have.
    pub(crate) next_file: u32,
    pub(crate) merges: u64,
}

/// Opens or creates the folder and recovers. On an error `kept` is as good as before.
pub(crate) fn open(disk: Arc<dyn Disk>, options: &Options, kept: &mut Kept) -> Result<Parts, Error> {
    let io = |what| move |error| Error::io("data folder", what, error);
    let lock = match &kept.lock {
        Some(lock) => lock.clone(),
        None => {
            disk.create_dir("").map_err(io("create"))?;
            let lock = disk.lock(LOCK).map_err(|error| Error::io(LOCK, "lock", error))?;
            lock.ok_or_else(|| Error::Locked { dir: disk.name() })?.into()
        }
    };
    let manifest = Manifest { network: options.network, txid_prefix: options.txid_prefix };
    let magic = options.network.magic().to_bytes();
    if !manifest.find(&*disk)? {
        create(&disk, options, magic)?;
        manifest.write(&*disk)?;
    }

    let tip = TipFile::new(open_tip(&*disk, options.tip_cache_bytes)?);
    let (mut state, bulk_state) = (tip.state()?, tip.bulk()?);
    bulk::remove_leftovers(&*disk, bulk_state.as_ref())?;
    let parts = tip.parts()?;
    let named = |parts: &[PartInfo], name: &str| parts.iter().any(|part| part.name() == name);
    remove_unnamed(&*disk, base::DIR, |name| {
        let bulk_has = bulk_state.as_ref().is_some_and(|bulk| named(&bulk.parts, name));
        bulk_has || named(&parts.parts, name)
    })?;
    let (directory_bytes, prefix_len) = (options.directory_bytes, options.txid_prefix);
    let index = Base::open(&*disk, &parts, tip.undone()?, directory_bytes, prefix_len, kept.base.as_ref())
        .map(Arc::new)?;
    let arrays = bulk_state.as_ref().map_or(state.base, |bulk| bulk.mark);
    let files = match &kept.files {
        Some(files) => {
            files.reopen(state.headers, &arrays)?;
            files.clone()
        }
        None => Arc::new(Files::open(&disk, magic, state.headers, &arrays)?),
    };
    let segments = SegmentWriter::open(files.blocks.clone(), options.segment_bytes, state.end)?;

    let tx_ends = Arc::new(files.tx_ends(state.base.blocks)?);
    let deltas = tip.deltas()?.into_iter().map(Arc::new).collect();
    let view = View { files, base: state.base, index, tx_ends, deltas };
    check(&view, &state)?;
    if state.headers < state.blocks {
        // A reorg was interrupted between its two commits: the headers that it cut are those of its deltas.
        let missing = view.deltas.iter().filter(|delta| delta.head.height.0 >= state.headers);
        let missing: Vec<_> = missing.map(|delta| delta.head.header).collect();
        view.files.append_headers(state.headers, &missing)?;
        state.headers = state.blocks;
        let change = tip.change()?;
        change.set_state(&state)?;
        change.commit()?;
    }
    if let Some(top) = state.base.blocks.checked_sub(1)
        && view.hash_of(crate::types::Height(top))? != Some(state.base.hash)
    {
        return Err(Error::corrupt(
            "headers",
            format!("height {top} is not the base's block {}", state.base.hash),
        ));
    }
    let bulk = bulk_state.map(|bulk| open_bulk(disk, &view, bulk, options)).transpose()?;
    let aside = tip.aside()?;
    let (files, next_file) = (view.files.clone(), parts.next_file.max(kept.next_file));
    Ok(Parts { lock, files, tip, next_file, merges: kept.merges, segments, state, aside, view, bulk })
}

/// The bulk sync that goes on, if its blocks are those of the header chain.
fn open_bulk(
    disk: Arc<dyn Disk>,
    view: &View,
    state: BulkState,
    options: &Options,
) -> Result<Box<Bulk>, Error> {
    let top = view.files.headers.read(state.mark.blocks.saturating_sub(1))?;
    if crate::view::decode_header(&top)?.block_hash() != state.mark.hash {
        return Err(Error::corrupt("headers", format!("no header of the bulk's block {}", state.mark.hash)));
    }
    Bulk::open(disk, view.clone(), state, options.bulk_memory_bytes).map(Box::new)
}

/// Makes an empty folder. A folder without manifest but with data is not touched.
fn create(disk: &Arc<dyn Disk>, options: &Options, magic: [u8; 4]) -> Result<(), Error> {
    for dir in ["blocks", base::DIR, bulk::DIR] {
        disk.create_dir(dir).map_err(|error| Error::io(dir, "create", error))?;
    }
    let there = disk.open(tip::FILE, false).map_err(|error| Error::io(tip::FILE, "open", error))?;
    if there.is_some() {
        let tip = TipFile::new(open_tip(&**disk, options.tip_cache_bytes)?);
        if tip.state()? != State::empty() {
            return Err(Error::corrupt(
                "MANIFEST",
                "the file is missing beside data that it should describe",
            ));
        }
    }
    create_tip(&**disk, options.tip_cache_bytes)?;
    Files::create(&**disk)?;
    let segments = Segments::new(disk.clone(), magic);
    SegmentWriter::open(segments, options.segment_bytes, State::empty().end)?.sync()?;
    disk.sync_dir("").map_err(|error| Error::io("data folder", "fsync", error))
}

/// Makes `tip.redb` under another name first, so that under its own it is always whole.
fn create_tip(disk: &dyn Disk, cache_bytes: usize) -> Result<(), Error> {
    let new = format!("{}.new", tip::FILE);
    let io = |what| move |error| Error::io(tip::FILE, what, error);
    disk.remove(&new).map_err(io("remove"))?;
    let file = disk.open(&new, true).map_err(io("create"))?;
    let db = open_redb(file, cache_bytes)?;
    let filled = tip::create(&db);
    drop(db);
    if let Err(error) = filled {
        // On a full disk what is of no use must not stay.
        disk.remove(&new).map_err(io("remove"))?;
        return Err(error);
    }
    disk.rename(&new, tip::FILE).map_err(io("rename"))
}

fn open_tip(disk: &dyn Disk, cache_bytes: usize) -> Result<Database, Error> {
    if NamedFile::open(disk, tip::FILE)?.len()? == 0 {
        return Err(Error::corrupt(tip::FILE, "the file is empty"));
    }
    open_redb(disk.open(tip::FILE, false).map_err(|error| Error::io(tip::FILE, "open", error))?, cache_bytes)
}

fn open_redb(file: Option<Arc<dyn DiskFile>>, cache_bytes: usize) -> Result<Database, Error> {
    let file = file.ok_or_else(|| Error::corrupt(tip::FILE, "the file is missing"))?;
    let db = Builder::new().set_cache_size(cache_bytes).create_with_backend(Backend(file));
    db.map_err(|error| Error::index(tip::FILE, error))
}

/// Whether the deltas lead from the base to the tip.
fn check(view: &View, state: &State) -> Result<(), Error> {
    let corrupt = |what: String| Err(Error::corrupt(tip::FILE, what));
    if state.base.txs != view.tx_ends.last().copied().unwrap_or(0) {
        return Err(Error::corrupt(
            "blockpos",
            format!("counts {:?} transactions, not {}", view.tx_ends.last(), state.base.txs),
        ));
    }
    let mut below = (state.base.blocks, state.base.txs, state.base.hash);
    for delta in view.deltas.iter() {
        if below != (delta.head.height.0, delta.head.first_tx, delta.head.header.prev_blockhash) {
            return corrupt(format!(
                "delta of height {} does not follow block {}",
                delta.head.height, below.2
            ));
        }
        below = (below.0 + 1, delta.end_tx(), delta.hash);
    }
    if (below.0, below.2) != (state.blocks, state.tip) || state.headers < state.base.blocks {
        return corrupt(format!("deltas end at block {}, the state row names {}", below.2, state.tip));
    }
    Ok(())
}
