//! A forged chain on disk: where its blocks are, and what is prepared for serving them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, ensure};
use bitcoin::hashes::{Hash, sha256d};

use crate::forge::MAGIC;
use crate::truth::{Line, Summary};

/// Read at once where a whole file is read.
const CHUNK: usize = 1 << 20;

/// A block in the file.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub offset: u64,
    pub length: u32,
    pub header: [u8; 80],
}

impl Place {
    pub fn hash(&self) -> [u8; 32] {
        sha256d::Hash::hash(&self.header).to_byte_array()
    }
}

/// The file and its blocks by height. Holds no block.
#[derive(Debug)]
pub struct Chain {
    pub file: File,
    pub blocks: Vec<Place>,
}

impl Chain {
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("blocks.dat");
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        let end = file.metadata()?.len();
        let mut blocks = Vec::new();
        let mut offset = 0;
        while offset < end {
            let mut head = [0; 88];
            file.read_exact_at(&mut head, offset)?;
            ensure!(head[..4] == MAGIC, "no block at byte {offset} of {}", path.display());
            let length = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
            let header = head[8..].try_into().expect("a header's length");
            blocks.push(Place { offset: offset + 8, length, header });
            offset += 8 + u64::from(length);
        }
        ensure!(offset == end && !blocks.is_empty(), "{} is cut short", path.display());
        Ok(Self { file, blocks })
    }

    /// Replaces the buffer's content by a block.
    pub fn read(&self, place: &Place, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        buffer.resize(place.length as usize, 0);
        self.file.read_exact_at(buffer, place.offset)
    }

    /// Reads all of the file once, so that the system has it in memory if it can.
    pub fn warm(&self) -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0;
        loop {
            match self.file.read_at(&mut buffer, offset)? {
                0 => return Ok(()),
                read => offset += read as u64,
            }
        }
    }

    /// What the wire protocol has before each block: the first bytes of its double SHA-256.
    ///
    /// They are kept beside the chain, behind the hash of the chain's tip.
    pub fn checksums(&self, folder: &Path) -> anyhow::Result<Vec<[u8; 4]>> {
        let path = folder.join("checksums.bin");
        let tip = self.blocks.last().expect("a chain has a genesis").hash();
        if let Ok(kept) = std::fs::read(&path)
            && kept.len() == 32 + 4 * self.blocks.len()
            && kept.starts_with(&tip)
        {
            let checksums = kept[32..].chunks_exact(4);
            return Ok(checksums.map(|bytes| bytes.try_into().expect("chunks of four")).collect());
        }
        let mut buffer = Vec::new();
        let mut kept = tip.to_vec();
        let mut checksums = Vec::with_capacity(self.blocks.len());
        for place in &self.blocks {
            self.read(place, &mut buffer)?;
            let hash = sha256d::Hash::hash(&buffer).to_byte_array();
            let checksum: [u8; 4] = hash[..4].try_into().expect("a hash is longer");
            kept.extend(checksum);
            checksums.push(checksum);
        }
        std::fs::write(&path, kept)?;
        Ok(checksums)
    }
}

/// The first line of the chain's truth.
pub fn summary(folder: &Path) -> anyhow::Result<Summary> {
    use std::io::BufRead;
    let path = folder.join("truth.jsonl");
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut line = String::new();
    std::io::BufReader::new(file).read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Line::Summary(summary) => Ok(summary),
        _ => anyhow::bail!("{} does not begin with a summary", path.display()),
    }
}
