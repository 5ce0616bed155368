//! LOOKS AFTER the data folder for its operator: whether the disk can hold what comes, what a folder holds and takes,
//! and whether it is sound.
//!
//! `space` decides whether to start, `info` says what is there, `check` whether that is
//! right, `words` has sizes and times as people read them.
//! What is measured comes from `chainstore`; what these commands say goes to standard output.

mod check;
mod info;
mod space;
mod words;

use anyhow::ensure;
use chainstore::{Error, Options, Store};

pub use space::{Shortage, ensure_space};

use crate::config::Folder;

/// `peerdex info`: prints what the folder holds, takes and will need.
pub fn info(folder: &Folder) -> anyhow::Result<()> {
    let store = open(folder)?;
    print!("{}", info::Info::of(folder, &store)?);
    Ok(())
}

/// `peerdex check`: says whether the folder is sound, and gives that back.
pub fn check(folder: &Folder) -> anyhow::Result<bool> {
    let mut store = match open(folder) {
        Ok(store) => store,
        Err(error) => {
            return match error.downcast_ref::<Error>() {
                Some(damage @ (Error::Corrupt { .. } | Error::Checksum { .. } | Error::Index { .. })) => {
                    print!("{}", check::unopened(damage));
                    Ok(false)
                }
                _ => Err(error),
            };
        }
    };
    let verdict = check::check(folder, &mut store)?;
    print!("{verdict}");
    Ok(verdict.is_sound())
}

/// Opens a folder that is there and that no process has open.
fn open(folder: &Folder) -> anyhow::Result<Store> {
    let dir = &folder.data_dir;
    ensure!(
        dir.join("MANIFEST").exists(),
        "{} is no data folder of peerdex: give one with --data-dir, and its network with --network",
        dir.display()
    );
    match Store::open(dir, Options::new(folder.network)) {
        Err(error @ Error::Locked { .. }) => {
            anyhow::bail!("{error}: stop that peerdex first, a folder is read by one process at a time")
        }
        result => Ok(result?),
    }
}
