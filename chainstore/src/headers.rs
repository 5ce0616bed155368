//! The header chain as it is being changed: what stays of the array, and what comes behind it.
//!
//! The array's start is the connected chain; above the tip it runs on along the best headers known. What a switch
//! displaces becomes a side header, so nothing that was accepted is forgotten.

use bitcoin::BlockHash;
use bitcoin::block::Header;

use crate::error::Error;
use crate::files::Files;
use crate::types::Height;
use crate::view::decode_header;

/// The array's first `keep` headers, then `new`.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderStage {
    pub(crate) keep: u32,
    pub(crate) new: Vec<Header>,
}

impl HeaderStage {
    /// The array as it is.
    pub(crate) fn unchanged(count: u32) -> Self {
        Self { keep: count, new: Vec::new() }
    }

    pub(crate) fn len(&self) -> u32 {
        self.keep + self.new.len() as u32
    }

    pub(crate) fn get(&self, files: &Files, height: u32) -> Result<Option<Header>, Error> {
        match height.checked_sub(self.keep) {
            None => files.headers.read(height).and_then(|bytes| decode_header(&bytes)).map(Some),
            Some(at) => Ok(self.new.get(at as usize).copied()),
        }
    }

    pub(crate) fn hash(&self, files: &Files, height: u32) -> Result<Option<BlockHash>, Error> {
        Ok(self.get(files, height)?.map(|header| header.block_hash()))
    }

    /// Drops the headers from `height` on; returns them.
    pub(crate) fn cut(&mut self, files: &Files, height: u32) -> Result<Vec<(Height, Header)>, Error> {
        let mut displaced = Vec::new();
        for at in height..self.len() {
            displaced.extend(self.get(files, at)?.map(|header| (Height(at), header)));
        }
        self.new.truncate(height.saturating_sub(self.keep) as usize);
        self.keep = self.keep.min(height);
        Ok(displaced)
    }

    pub(crate) fn push(&mut self, header: Header) {
        self.new.push(header);
    }

    /// All of them.
    pub(crate) fn load(&self, files: &Files) -> Result<Vec<Header>, Error> {
        let mut headers = Vec::with_capacity(self.len() as usize);
        for from in (0..self.keep).step_by(4096) {
            for bytes in files.headers.read_many(from, (self.keep - from).min(4096))? {
                headers.push(decode_header(&bytes)?);
            }
        }
        headers.extend_from_slice(&self.new);
        Ok(headers)
    }
}
