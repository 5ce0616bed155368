//! `MANIFEST`: what kind of data folder this is. The one file that people may read.
//!
//! ```text
//! peerdex chainstore
//! format 4
//! network mainnet
//! txid-prefix 6
//! crc32c 2fa80a9c
//! ```
//! The last line is the checksum of the lines above. Replaced by write, fsync, rename, fsync of the folder.

use bitcoin::Network;

use crate::disk::{Disk, NamedFile};
use crate::error::Error;
use crate::types::network_name;

/// The format that this version reads and writes.
pub const FORMAT: u32 = 4;
const NAME: &str = "MANIFEST";
const TITLE: &str = "peerdex chainstore";
/// Longer is not ours.
const MAX_LEN: u64 = 4096;

/// What must agree between a folder and who opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) network: Network,
    pub(crate) txid_prefix: u8,
}

impl Manifest {
    pub(crate) fn encode(&self) -> String {
        let Self { network, txid_prefix } = self;
        let text = format!(
            "{TITLE}\nformat {FORMAT}\nnetwork {}\ntxid-prefix {txid_prefix}\n",
            network_name(*network)
        );
        format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    /// Checks a manifest against what is wanted.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        let corrupt = |what: String| Error::corrupt(NAME, what);
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("not text".to_owned()))?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(corrupt(format!("does not start with \"{TITLE}\"")));
        }
        // The format comes before the checksum: another format may sum otherwise.
        let format = lines.next().and_then(|line| line.strip_prefix("format ")).unwrap_or("");
        if format != FORMAT.to_string() {
            return Err(Error::UnknownFormat { found: format.chars().take(20).collect(), known: FORMAT });
        }
        let body = text.rfind("crc32c ").map_or("", |at| &text[..at]);
        if text[body.len()..] != format!("crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())) {
            return Err(corrupt("checksum does not match".to_owned()));
        }
        let network = lines.next().and_then(|line| line.strip_prefix("network ")).unwrap_or("");
        let wanted = network_name(self.network);
        if network != wanted {
            return Err(Error::WrongNetwork { found: network.to_owned(), wanted });
        }
        if text != self.encode() {
            return Err(corrupt(format!("made with other options: {:?}", lines.collect::<Vec<_>>())));
        }
        Ok(())
    }

    /// Whether the folder has a manifest; an error when it is not this one.
    pub(crate) fn find(&self, disk: &dyn Disk) -> Result<bool, Error> {
        let Some(file) = disk.open(NAME, false).map_err(|error| Error::io(NAME, "open", error))? else {
            return Ok(false);
        };
        let len = file.len().map_err(|error| Error::io(NAME, "read the length", error))?;
        let mut bytes = vec![0; len.min(MAX_LEN) as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io(NAME, "read", error))?;
        self.check(&bytes).map(|()| true)
    }

    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<(), Error> {
        let new = format!("{NAME}.new");
        let file = NamedFile::create(disk, &new)?;
        let text = self.encode();
        file.write(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)?;
        file.sync()?;
        disk.rename(&new, NAME).map_err(|error| Error::io(NAME, "rename", error))?;
        disk.sync_dir("").map_err(|error| Error::io(NAME, "fsync the folder", error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST: Manifest = Manifest { network: Network::Bitcoin, txid_prefix: 6 };

    #[test]
    fn another_network_format_or_option_is_refused_in_words() {
        let text = MANIFEST.encode();
        assert!(MANIFEST.check(text.as_bytes()).is_ok());

        let signet = Manifest { network: Network::Signet, ..MANIFEST };
        assert_eq!(
            signet.check(text.as_bytes()).unwrap_err().to_string(),
            "data folder holds mainnet, not signet: give another with --data-dir"
        );

        let older = text.replace("format 4", "format 3");
        let refused = MANIFEST.check(older.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused, "data folder has format 3; this version reads format 4");

        let short = Manifest { txid_prefix: 1, ..MANIFEST };
        assert!(short.check(text.as_bytes()).unwrap_err().to_string().contains("other options"));

        let bent = text.replace("mainnet", "maimnet");
        assert_eq!(
            MANIFEST.check(bent.as_bytes()).unwrap_err().to_string(),
            "MANIFEST: checksum does not match"
        );
    }

    proptest! {
        #[test]
        fn any_other_bytes_are_refused(at in 0usize..90, byte: u8, cut in 0usize..90) {
            let mut bytes = MANIFEST.encode().into_bytes();
            let whole = bytes.clone();
            if let Some(here) = bytes.get_mut(at) {
                *here = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert_eq!(MANIFEST.check(&bytes).is_ok(), bytes == whole);
        }

        #[test]
        fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(MANIFEST.check(&bytes).is_err());
        }
    }
}
