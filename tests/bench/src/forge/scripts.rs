//! Locking scripts that anybody may spend, by their number.
//!
//! Nothing of them is stored: the number and the seed give the script again when it is spent. The inner script is
//! `<id and padding> OP_DROP OP_TRUE`, as long as a signature with its key, so that inputs have mainnet's sizes.

use bitcoin::hashes::{Hash, hash160, sha256};

const OP_PUSHDATA1: u8 = 0x4c;
const OP_TRUE: u8 = 0x51;
const OP_DROP: u8 = 0x75;
const OP_EQUAL: u8 = 0x87;
const OP_HASH160: u8 = 0xa9;
/// Pushes longer than this need a length byte of their own.
const MAX_PLAIN_PUSH: usize = 75;
/// Bytes pushed by the inner script of P2WSH and P2SH.
const PADDING: std::ops::Range<usize> = 70..109;
/// Bytes pushed by a bare script, which with its opcodes has P2PKH's length.
const BARE_PADDING: usize = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WitnessHash,
    ScriptHash,
    Bare,
}

/// All scripts of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Scripts {
    seed: u64,
}

/// A script spelled out: what is hashed, or what locks by itself.
#[derive(Clone, Debug)]
pub struct Spelled {
    pub kind: Kind,
    pub inner: Vec<u8>,
    /// For the unlocking side of bare scripts.
    rest: fastrand::Rng,
}

impl Scripts {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub fn spell(&self, number: u32) -> Spelled {
        let mixed = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed.rotate_left(32);
        let mut rng = fastrand::Rng::with_seed(mixed);
        let kind = match rng.u8(..100) {
            0..56 => Kind::WitnessHash,
            56..88 => Kind::ScriptHash,
            _ => Kind::Bare,
        };
        let mut padding = [0; PADDING.end];
        let length = if kind == Kind::Bare { BARE_PADDING } else { rng.usize(PADDING) };
        let padding = &mut padding[..length];
        rng.fill(padding);
        // What makes scripts differ; the rest could be anything.
        padding[..4].copy_from_slice(&number.to_le_bytes());
        let mut inner = Vec::with_capacity(length + 4);
        push(&mut inner, padding);
        inner.extend([OP_DROP, OP_TRUE]);
        Spelled { kind, inner, rest: rng }
    }
}

impl Spelled {
    /// Appends the locking script, without its length.
    pub fn lock(&self, to: &mut Vec<u8>) {
        match self.kind {
            Kind::WitnessHash => {
                to.extend([0, 32]);
                to.extend(sha256::Hash::hash(&self.inner).to_byte_array());
            }
            Kind::ScriptHash => {
                to.extend([OP_HASH160, 20]);
                to.extend(hash160::Hash::hash(&self.inner).to_byte_array());
                to.push(OP_EQUAL);
            }
            Kind::Bare => to.extend(&self.inner),
        }
    }

    /// Appends the scriptSig, without its length.
    pub fn unlock(&mut self, to: &mut Vec<u8>) {
        match self.kind {
            Kind::WitnessHash => {}
            Kind::ScriptHash => push(to, &self.inner),
            Kind::Bare => {
                // Nobody reads it; P2PKH has a signature and a key here.
                let mut padding = [0; 104];
                self.rest.fill(&mut padding);
                push(to, &padding);
            }
        }
    }
}

/// Appends a push of fewer than 256 bytes.
pub fn push(to: &mut Vec<u8>, data: &[u8]) {
    if data.len() > MAX_PLAIN_PUSH {
        to.push(OP_PUSHDATA1);
    }
    to.push(u8::try_from(data.len()).expect("pushes here are shorter than 256 bytes"));
    to.extend(data);
}
