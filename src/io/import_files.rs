//! Bitcoin Core's files on this disk: which there are, the key that they are obfuscated with, and reading them.
//!
//! Files are only read, and only as far as they went when they were found, so that one that grows does no harm.
//! What their bytes mean is `crate::import`'s work.
//! Source: Bitcoin Core `node/blockstorage.cpp`, `chainparamsbase.cpp` (folders of the networks).

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bitcoin::Network;
use bytes::Bytes;

use crate::import::{Collector, Place, Scanner, Xor};
use crate::validate::Params;

/// The first read after a jump: little more than a header, as another jump may follow.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// What reads grow to while nothing is jumped over.
const MAX_READ_BYTES: usize = 256 * 1024;
/// Files kept open: blocks come nearly in the order of the chain, so few are read from at a time.
const OPEN_FILES: usize = 16;

/// One file of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFile {
    pub path: PathBuf,
    /// When it was found.
    pub len_bytes: u64,
    pub xor: Xor,
}

/// The files that the paths name, each once; those of a folder in the order of their names.
pub fn find(paths: &[PathBuf], network: Network) -> anyhow::Result<Vec<BlockFile>> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let shown = path.display();
        let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
        let found = if metadata.is_dir() { in_folder(path, network)? } else { vec![path.clone()] };
        for path in found {
            let real = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
            if seen.insert(real) {
                files.push(inspect(path)?);
            }
        }
    }
    Ok(files)
}

/// `blk*.dat` of a data folder, of the network's part of one, or of a `blocks` folder.
fn in_folder(folder: &Path, network: Network) -> anyhow::Result<Vec<PathBuf>> {
    let part = match network {
        Network::Bitcoin => None,
        Network::Testnet => Some("testnet3"),
        Network::Testnet4 => Some("testnet4"),
        Network::Signet => Some("signet"),
        Network::Regtest => Some("regtest"),
    };
    let of_network = part.map(|part| folder.join(part).join("blocks"));
    let candidates = of_network.into_iter().chain([folder.join("blocks"), folder.to_path_buf()]);
    for candidate in candidates {
        if !candidate.is_dir() {
            continue;
        }
        let entries = std::fs::read_dir(&candidate);
        let entries = entries.with_context(|| format!("cannot read {}", candidate.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", candidate.display()))?.path();
            if is_core_file(&path) {
                found.push(path);
            }
        }
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    let network = chainstore::network_name(network);
    bail!("{} holds no blk*.dat of {network}: give Bitcoin Core's data folder, or files", folder.display())
}

fn inspect(path: PathBuf) -> anyhow::Result<BlockFile> {
    let metadata = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is no file", path.display());
    // A bootstrap.dat is never obfuscated, wherever it lies.
    let xor = if is_core_file(&path) { key_beside(&path)? } else { Xor::default() };
    Ok(BlockFile { path, len_bytes: metadata.len(), xor })
}

fn key_beside(path: &Path) -> anyhow::Result<Xor> {
    let key = path.with_file_name("xor.dat");
    match std::fs::read(&key) {
        Ok(content) => {
            Xor::of_file(&content).with_context(|| format!("{} is not eight bytes long", key.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Xor::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", key.display())),
    }
}

/// `blk` and digits and `.dat`.
fn is_core_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix("blk")?.strip_suffix(".dat"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Finds the records of a file. `passed` is told how far it is, and says whether to go on. Gives the number of
/// records that claim more than there is.
pub fn scan(
    number: u32,
    file: &BlockFile,
    params: &Arc<Params>,
    collector: &mut Collector,
    mut passed: impl FnMut(u64) -> bool,
) -> std::io::Result<u64> {
    let handle = File::open(&file.path)?;
    let mut scanner = Scanner::new(params.clone(), file.len_bytes);
    let mut buffer = vec![0; MAX_READ_BYTES];
    let mut found = Vec::new();
    let (mut expected, mut size) = (0, FIRST_READ_BYTES);
    while let Some(at) = scanner.wants() {
        size = if at == expected { (size * 2).min(MAX_READ_BYTES) } else { FIRST_READ_BYTES };
        let read = handle.read_at(&mut buffer[..size], at)?;
        if read == 0 {
            // It was cut meanwhile.
            break;
        }
        let bytes = &mut buffer[..read];
        file.xor.apply(bytes, at);
        scanner.push(bytes, &mut found);
        found.drain(..).for_each(|record| collector.add(number, &record));
        expected = at + read as u64;
        if !passed(expected) {
            break;
        }
    }
    Ok(scanner.cut_off())
}

/// Reads blocks.
#[derive(Debug)]
pub struct Reader {
    files: Arc<Vec<BlockFile>>,
    /// Those used last at the end.
    open: VecDeque<(u32, File)>,
}

impl Reader {
    pub fn new(files: Arc<Vec<BlockFile>>) -> Self {
        Self { files, open: VecDeque::new() }
    }

    /// The block at a place of the catalog: not longer than the scanner lets through, nor than its file.
    pub fn read(&mut self, place: Place) -> Result<Bytes, String> {
        let number = usize::try_from(place.file).map_err(|error| error.to_string())?;
        let files = self.files.clone();
        let file = files.get(number).ok_or("no such file")?;
        let mut block = vec![0; place.length as usize];
        let handle = self.handle(place.file, &file.path).map_err(|error| error.to_string())?;
        handle.read_exact_at(&mut block, place.offset).map_err(|error| error.to_string())?;
        file.xor.apply(&mut block, place.offset);
        Ok(block.into())
    }

    fn handle(&mut self, number: u32, path: &Path) -> std::io::Result<&File> {
        let known = self.open.iter().position(|(open, _)| *open == number);
        let entry = match known.and_then(|index| self.open.remove(index)) {
            Some(entry) => entry,
            None => (number, File::open(path)?),
        };
        if self.open.len() >= OPEN_FILES {
            self.open.pop_front();
        }
        self.open.push_back(entry);
        match self.open.back() {
            Some((_, file)) => Ok(file),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
    }

    fn names(paths: &[PathBuf], network: Network, root: &Path) -> Vec<String> {
        let files = find(paths, network).unwrap();
        files.iter().map(|file| file.path.strip_prefix(root).unwrap().to_str().unwrap().to_string()).collect()
    }

    #[test]
    fn a_data_folder_its_part_and_its_blocks_are_all_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path();
        write(
            root,
            &[
                "blocks/blk00001.dat",
                "blocks/blk00000.dat",
                "blocks/rev00000.dat",
                "blocks/blk.dat",
                "blocks/blk0000x.dat",
                "regtest/blocks/blk00000.dat",
                "boot/bootstrap.dat",
            ],
        );
        let main = ["blocks/blk00000.dat", "blocks/blk00001.dat"];
        let regtest = ["regtest/blocks/blk00000.dat"];

        assert_eq!(names(&[root.into()], Network::Bitcoin, root), main);
        assert_eq!(names(&[root.join("blocks")], Network::Bitcoin, root), main);
        assert_eq!(names(&[root.into()], Network::Regtest, root), regtest);
        assert_eq!(names(&[root.join("regtest")], Network::Regtest, root), regtest);
        // Each once, however it is named.
        let twice = [root.join("blocks/blk00001.dat"), root.into(), root.join("boot/bootstrap.dat")];
        let expected = ["blocks/blk00001.dat", "blocks/blk00000.dat", "boot/bootstrap.dat"];
        assert_eq!(names(&twice, Network::Bitcoin, root), expected);

        let error = find(&[root.join("boot")], Network::Signet).unwrap_err().to_string();
        assert!(error.contains("blk*.dat of signet"), "{error}");
        assert!(find(&[root.join("nowhere")], Network::Signet).is_err());
    }

    #[test]
    fn the_key_beside_a_block_file_is_used_and_a_wrong_one_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        write(folder.path(), &["blk00000.dat", "bootstrap.dat"]);
        let key = folder.path().join("xor.dat");
        let xor = |name: &str| find(&[folder.path().join(name)], Network::Bitcoin).map(|files| files[0].xor);

        assert_eq!(xor("blk00000.dat").unwrap(), Xor::default());
        std::fs::write(&key, [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert_eq!(Some(xor("blk00000.dat").unwrap()), Xor::of_file(&[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(xor("bootstrap.dat").unwrap(), Xor::default());
        std::fs::write(&key, [1, 2, 3]).unwrap();
        assert!(xor("blk00000.dat").unwrap_err().to_string().contains("eight bytes"));
    }
}
