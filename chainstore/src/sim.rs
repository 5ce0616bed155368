//! A disk in memory that forgets: after a crash, of what was not synced any part may be there.
//!
//! Each file has what is durable and the writes since its last sync. A crash keeps some of those, drops others and
//! tears one at any byte; names not synced with their folder are kept or dropped one by one. Seeded, so a crash
//! can be had again. It also runs full, and fails an fsync, when told to.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};

/// The simulated disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Clone, Debug, Default)]
struct World {
    files: BTreeMap<u64, FileState>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    next_file: u64,
    locked: bool,
    /// Syncs so far.
    syncs: u64,
    events: u64,
    /// The sync that is to fail.
    failing_sync: Option<u64>,
    /// Bytes that may still be added; `None` is no limit.
    room: Option<u64>,
    /// Writes that may still be done; `None` is no limit.
    writes_left: Option<u64>,
    /// What the disk says that it has free; `None` is more than anybody asks for.
    free: Option<u64>,
    /// What to keep of crashes while running.
    recorder: Option<Recorder>,
}

#[derive(Clone, Debug)]
struct Recorder {
    /// Also record before every so many-th write.
    every: u64,
    label: usize,
    crashes: Vec<(usize, World)>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    // Copies of a disk share what does not change.
    now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

/// Small and seeded (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % sides.max(1)
    }
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no one panics while holding the disk")
    }

    /// Fsyncs done so far.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// Lets the fsync after `after` more ones fail, and all later ones succeed.
    pub fn fail_sync(&self, after: u64) {
        let mut world = self.world();
        world.failing_sync = Some(world.syncs + after);
    }

    /// Leaves room for `bytes` more bytes.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.world().room = bytes;
    }

    /// Lets every write after `writes` more ones meet a full disk, until it is set anew.
    pub fn set_writes_left(&self, writes: Option<u64>) {
        self.world().writes_left = writes;
    }

    /// What the disk says that it has free, whatever it takes: the room may go between the saying and the writing.
    pub fn set_free(&self, bytes: Option<u64>) {
        self.world().free = bytes;
    }

    /// Changes so far.
    pub fn events(&self) -> u64 {
        self.world().events
    }

    /// Keeps what the disk is just before each sync, and before every `every`-th other change.
    pub fn record(&self, every: u64) {
        self.world().recorder = Some(Recorder { every, label: 0, crashes: Vec::new() });
    }

    /// Names what runs now, for [`SimDisk::recorded`].
    pub fn label(&self, label: usize) {
        if let Some(recorder) = &mut self.world().recorder {
            recorder.label = label;
        }
    }

    /// The recorded moments with their labels, as disks that have yet to crash.
    pub fn recorded(&self) -> Vec<(usize, Self)> {
        let recorder = self.world().recorder.take();
        let crashes = recorder.map(|recorder| recorder.crashes).unwrap_or_default();
        crashes
            .into_iter()
            .map(|(label, world)| (label, Self { world: Arc::new(Mutex::new(world)) }))
            .collect()
    }

    /// The disk as it is found after a power cut now.
    pub fn crash(&self, seed: u64) -> Self {
        let mut world = self.world().clone();
        world.crash(&mut Dice(seed));
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Changes a file from outside.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let id = world.names.get(name).copied();
        if let Some(file) = id.and_then(|id| world.files.get_mut(&id)) {
            change(Arc::make_mut(&mut file.now));
            file.durable = file.now.clone();
            file.pending.clear();
        }
    }
}

impl World {
    fn crash(&mut self, dice: &mut Dice) {
        for file in self.files.values_mut() {
            if file.pending.is_empty() {
                file.now = file.durable.clone();
                continue;
            }
            let mut bytes = std::mem::take(&mut file.durable);
            let bytes_now = Arc::make_mut(&mut bytes);
            // Mostly some of the changes; sometimes all or none.
            let mood = dice.roll(4);
            for change in file.pending.drain(..) {
                let keep = match mood {
                    0 => false,
                    1 => true,
                    _ => dice.roll(2) == 0,
                };
                match change {
                    Change::Write { offset, mut data } if keep && dice.roll(4) == 0 => {
                        data.truncate(dice.roll(data.len() as u64 + 1) as usize);
                        Change::Write { offset, data }.apply(bytes_now);
                    }
                    change if keep => change.apply(bytes_now),
                    _ => {}
                }
            }
            file.now = bytes.clone();
            file.durable = bytes;
        }
        let mut names = self.durable_names.clone();
        for (name, id) in &self.names {
            if names.get(name) != Some(id) && dice.roll(2) == 0 {
                // A rename takes the old name away in the same moment.
                names.retain(|_, other| other != id);
                names.insert(name.clone(), *id);
            }
        }
        for name in self.durable_names.keys() {
            if !self.names.contains_key(name) && dice.roll(2) == 0 {
                names.remove(name);
            }
        }
        let named: Vec<u64> = names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        self.names = names.clone();
        self.durable_names = names;
        self.locked = false;
        self.recorder = None;
    }

    /// Something is about to change.
    fn event(&mut self, is_sync: bool) {
        self.events += 1;
        let Some(recorder) = &self.recorder else { return };
        if is_sync || self.events.is_multiple_of(recorder.every) {
            let label = recorder.label;
            let mut copy = self.clone();
            copy.recorder = None;
            if let Some(recorder) = &mut self.recorder {
                recorder.crashes.push((label, copy));
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.event(true);
        self.syncs += 1;
        if self.failing_sync.is_some_and(|at| at + 1 == self.syncs) {
            return Err(io::Error::other("simulated fsync failure"));
        }
        Ok(())
    }

    fn change(&mut self, id: u64, change: Change) -> io::Result<()> {
        self.event(false);
        let Some(file) = self.files.get_mut(&id) else { return Err(io::ErrorKind::NotFound.into()) };
        let end = match &change {
            Change::Write { offset, data } => offset + data.len(),
            Change::SetLen(len) => *len,
        };
        let grows = end.saturating_sub(file.now.len()) as u64;
        if let (Change::Write { .. }, Some(left)) = (&change, &mut self.writes_left) {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        if let Some(room) = &mut self.room {
            *room = room.checked_sub(grows).ok_or(io::ErrorKind::StorageFull)?;
        }
        change.apply(Arc::make_mut(&mut file.now));
        file.pending.push(change);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn name(&self) -> String {
        "simulated".to_owned()
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let mut world = self.world();
        let id = match world.names.get(name) {
            Some(id) => *id,
            None if !create => return Ok(None),
            None => {
                world.event(false);
                let id = world.next_file;
                world.next_file += 1;
                world.files.insert(id, FileState::default());
                world.names.insert(name.to_owned(), id);
                id
            }
        };
        Ok(Some(Arc::new(SimFile { world: self.world.clone(), id })))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.names.keys().filter_map(|name| name.strip_prefix(dir)?.strip_prefix('/'));
        Ok(inside.map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.event(false);
        let id = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.event(false);
        world.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut world = self.world();
        world.sync()?;
        let inside = |name: &str| name.rsplit_once('/').map_or("", |(parent, _)| parent) == dir;
        world.durable_names.retain(|name, _| !inside(name));
        let names: Vec<_> =
            world.names.iter().filter(|(name, _)| inside(name)).map(|(n, id)| (n.clone(), *id)).collect();
        world.durable_names.extend(names);
        Ok(())
    }

    fn lock(&self, _name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut world = self.world();
        if std::mem::replace(&mut world.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { world: self.world.clone() })))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.world().free.unwrap_or(u64::MAX))
    }

    fn taken_bytes(&self, name: &str) -> io::Result<u64> {
        let world = self.world();
        let file = world.names.get(name).and_then(|id| world.files.get(id));
        Ok(file.map_or(0, |file| file.now.len() as u64))
    }
}

struct SimLock {
    world: Arc<Mutex<World>>,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut world) = self.world.lock() {
            world.locked = false;
        }
    }
}

#[derive(Debug)]
struct SimFile {
    world: Arc<Mutex<World>>,
    id: u64,
}

impl SimFile {
    fn with<T>(&self, run: impl FnOnce(&mut World, u64) -> io::Result<T>) -> io::Result<T> {
        run(&mut self.world.lock().expect("no one panics while holding the disk"), self.id)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|world, id| Ok(world.files.get(&id).map_or(0, |file| file.now.len() as u64)))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|world, id| {
            let start = offset as usize;
            let file = world.files.get(&id).ok_or(io::ErrorKind::NotFound)?;
            let bytes =
                file.now.get(start..start.saturating_add(buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.with(|world, id| {
            world.change(id, Change::Write { offset: offset as usize, data: data.to_vec() })
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|world, id| world.change(id, Change::SetLen(len as usize)))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|world, id| {
            world.sync()?;
            if let Some(file) = world.files.get_mut(&id) {
                // All of them together are what there is now.
                file.pending.clear();
                file.durable = file.now.clone();
            }
            Ok(())
        })
    }
}
