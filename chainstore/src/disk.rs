//! The few things the store asks of a disk, and the real one.
//!
//! Flat files and redb's files both go through [`Disk`], so a simulated disk that loses or tears what was not
//! synced ([`crate::sim`]) serves both. Names are paths inside the data folder, with `/` between their parts.
//! What lies under a name survives a crash when file *and* folder were synced; a rename when its folder was.

use std::any::Any;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;

/// What `stat` counts in, whatever the file system's blocks are.
const STAT_BLOCK_BYTES: u64 = 512;

/// A folder on a disk.
pub trait Disk: Debug + Send + Sync {
    /// How messages name the folder.
    fn name(&self) -> String;
    /// Makes a folder inside; no error when it is there. `""` is the data folder itself.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Opens a file to read and write, without cutting it. `None` when it is missing and `create` is false.
    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>>;
    /// Names of the files in a folder, without the folder, in no order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Puts `from` in the place of `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; no error when it is missing.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Takes the lock file, held until the returned guard is dropped; `None` when another holds it.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// Bytes that may still be written to the file system of the folder, which need not be there yet.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Bytes that a file takes on the disk, which holes make fewer than its length; 0 when it is missing.
    fn taken_bytes(&self, name: &str) -> io::Result<u64>;
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf`; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the operating system's.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }
}

impl Disk for RealDisk {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        fs::create_dir_all(self.path(dir))
    }

    fn open(&self, name: &str, create: bool) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(self.path(name));
        match file {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.path(dir))?.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut there = std::path::absolute(&self.dir)?;
        while !there.try_exists()? && there.pop() {}
        let space = rustix::fs::statvfs(&there)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn taken_bytes(&self, name: &str) -> io::Result<u64> {
        match fs::metadata(self.path(name)) {
            Ok(metadata) => Ok(metadata.blocks() * STAT_BLOCK_BYTES),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl DiskFile for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Removes a file; no error when it is missing.
pub(crate) fn remove(disk: &dyn Disk, name: &str) -> Result<(), Error> {
    disk.remove(name).map_err(|error| Error::io(name, "remove", error))
}

/// Removes the files in a folder that nobody names: what a crash left over.
pub(crate) fn remove_unnamed(disk: &dyn Disk, dir: &str, named: impl Fn(&str) -> bool) -> Result<(), Error> {
    let list = disk.list(dir).map_err(|error| Error::io(dir, "list", error))?;
    let names = list.into_iter().map(|file| format!("{dir}/{file}"));
    names.filter(|name| !named(name)).try_for_each(|name| remove(disk, &name))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &str) -> Result<(), Error> {
    disk.sync_dir(dir).map_err(|error| Error::io(dir, "fsync", error))
}

/// An open file whose errors name it.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    file: Arc<dyn DiskFile>,
}

impl NamedFile {
    /// Opens `name`, which must be there.
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<Self, Error> {
        match disk.open(name, false) {
            Ok(Some(file)) => Ok(Self { name: name.to_owned(), file }),
            Ok(None) => Err(Error::Corrupt { file: name.to_owned(), what: "the file is missing".to_owned() }),
            Err(error) => Err(Error::io(name, "open", error)),
        }
    }

    /// Opens `name`, empty when it was not there.
    pub(crate) fn create(disk: &dyn Disk, name: &str) -> Result<Self, Error> {
        match disk.open(name, true) {
            Ok(Some(file)) => Ok(Self { name: name.to_owned(), file }),
            Ok(None) => Err(Error::io(name, "create", io::ErrorKind::NotFound.into())),
            Err(error) => Err(Error::io(name, "create", error)),
        }
    }

    pub(crate) fn len(&self) -> Result<u64, Error> {
        self.file.len().map_err(|error| Error::io(&self.name, "read the length", error))
    }

    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.file.read_exact_at(buf, offset).map_err(|error| Error::io(&self.name, "read", error))
    }

    pub(crate) fn write(&self, data: &[u8], offset: u64) -> Result<(), Error> {
        self.file.write_all_at(data, offset).map_err(|error| Error::io(&self.name, "write", error))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<(), Error> {
        self.file.set_len(len).map_err(|error| Error::io(&self.name, "set the length", error))
    }

    /// A failure is one even when the disk is full: the kernel has dropped the pages.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync().map_err(|source| Error::Io { file: self.name.clone(), what: "fsync", source })
    }

    /// Cuts what is beyond `len`; a shorter file has lost what was promised.
    pub(crate) fn cut_to(&self, len: u64) -> Result<(), Error> {
        let found = self.len()?;
        if found < len {
            let what =
                format!("{found} bytes long, but {len} were committed: the file was damaged from outside");
            return Err(Error::Corrupt { file: self.name.clone(), what });
        }
        if found > len { self.set_len(len) } else { Ok(()) }
    }
}

/// A file as redb wants it. The folder's `LOCK` stands for redb's own lock.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<dyn DiskFile>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// No failure of this is one of a full disk: the kernel has dropped the pages.
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().map_err(io::Error::other)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
