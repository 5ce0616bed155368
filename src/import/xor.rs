//! The obfuscation of Core's block files: each byte is XORed with one of eight, by its place in the file.
//!
//! The eight bytes lie in `blocks/xor.dat` since Core 28; eight zeros, or no such file, leave the bytes as they are.
//! Source: Bitcoin Core `streams.h` (`AutoFile`), `node/blockstorage.cpp` (`InitBlocksdirXorKey`).

/// Length of the key, in bytes.
const KEY_BYTES: usize = 8;

/// The key of a folder of block files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Xor([u8; KEY_BYTES]);

impl Xor {
    /// The key that stands in `xor.dat`; `None` when that is not eight bytes long.
    pub fn of_file(content: &[u8]) -> Option<Self> {
        content.try_into().ok().map(Self)
    }

    /// Turns what is stored at `offset` of a file into what it means, or back.
    pub fn apply(&self, bytes: &mut [u8], offset: u64) {
        if *self == Self::default() {
            return;
        }
        let mut key = self.0;
        key.rotate_left((offset % KEY_BYTES as u64) as usize);
        for part in bytes.chunks_mut(KEY_BYTES) {
            part.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

    #[test]
    fn each_byte_has_its_key_wherever_the_reading_began() {
        let xor = Xor::of_file(&KEY).unwrap();
        let plain: Vec<u8> = (0..=255).collect();
        let stored: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ KEY[at % 8]).collect();
        for from in 0..20 {
            for to in from..50 {
                let mut bytes = stored[from..to].to_vec();
                xor.apply(&mut bytes, from as u64);
                assert_eq!(bytes, plain[from..to], "{from}..{to}");
            }
        }
    }

    #[test]
    fn zeros_change_nothing_and_other_lengths_are_no_key() {
        let mut bytes = *b"some bytes of a file";
        Xor::of_file(&[0; 8]).unwrap().apply(&mut bytes, 3);
        assert_eq!(bytes, *b"some bytes of a file");
        assert_eq!(Xor::of_file(&[]), None);
        assert_eq!(Xor::of_file(&[0; 7]), None);
        assert_eq!(Xor::of_file(&[0; 9]), None);
    }
}
