//! Says of most hashes that are not in a set, with one memory access, that they are not.
//!
//! Sixteen bits a hash, three of them set within one word: of 160 strangers one is let through.

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    pub(crate) fn with_capacity(hashes: usize) -> Self {
        Self { words: vec![0; hashes.div_ceil(4).max(1)] }
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        let bits = (1 << (hash & 63)) | (1 << (hash >> 6 & 63)) | (1 << (hash >> 12 & 63));
        // The upper bits choose the word, the lower ones the bits in it.
        (((hash >> 18) % self.words.len() as u64) as usize, bits)
    }

    pub(crate) fn add(&mut self, hash: u64) {
        let (word, bits) = self.place(hash);
        self.words[word] |= bits;
    }

    pub(crate) fn may_have(&self, hash: u64) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let (word, bits) = self.place(hash);
        self.words[word] & bits == bits
    }
}
