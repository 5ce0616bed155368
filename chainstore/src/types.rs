//! The words that the store shares with the server: heights, transaction numbers, script hashes, coins.

use std::fmt;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, BlockHash, Network, Script, Txid};

/// Distance from the genesis block, which is at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub u32);

impl Height {
    /// The genesis block.
    pub const GENESIS: Self = Self(0);

    /// The height above; saturates, as no chain gets there.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The height below; `None` at genesis.
    pub const fn prev(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(height) => Some(Self(height)),
            None => None,
        }
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Position of a transaction in the chain, counting from 0 at the genesis coinbase.
///
/// Four bytes last until about 2040 at half a million transactions a day; past that `connect` fails
/// with `TxNumOverflow`. Big endian in keys, so key order is chain order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxNum(pub u32);

/// SHA-256 of an output script, in the order in which it is computed; Electrum shows it reversed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptHash(pub [u8; 32]);

impl ScriptHash {
    /// The hash of an output script.
    pub fn of(script: &Script) -> Self {
        Self(sha256::Hash::hash(script.as_bytes()).to_byte_array())
    }

    /// What the index is keyed by: two scripts of one's own that share it cost 2^48 work, a script that
    /// shares it with a stranger's 2^96.
    pub fn key(&self) -> ScriptKey {
        let mut key = [0; ScriptKey::LEN];
        key.copy_from_slice(&self.0[..ScriptKey::LEN]);
        ScriptKey(key)
    }
}

impl fmt::Debug for ScriptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().rev() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// First bytes of a [`ScriptHash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptKey(pub [u8; Self::LEN]);

impl ScriptKey {
    /// Bytes of a key; ElectrumX keeps eleven.
    pub const LEN: usize = 12;
}

/// What of an output's script decides how many signature operations its spender may owe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptClass {
    /// Pay to script hash (BIP16): the redeem script counts.
    P2sh,
    /// Version 0 witness program of 20 bytes: one.
    P2wpkh,
    /// Version 0 witness program of 32 bytes: the witness script counts.
    P2wsh,
    /// Nothing beyond what the spending transaction shows.
    Other,
}

impl ScriptClass {
    /// The class of an output script.
    pub fn of(script: &Script) -> Self {
        if script.is_p2sh() {
            Self::P2sh
        } else if script.is_p2wpkh() {
            Self::P2wpkh
        } else if script.is_p2wsh() {
            Self::P2wsh
        } else {
            Self::Other
        }
    }
}

/// An unspent output, with all that connecting its spender asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coin {
    pub value: Amount,
    /// The transaction that made it.
    pub tx_num: TxNum,
    /// Height of the block that made it.
    pub height: Height,
    pub is_coinbase: bool,
    pub class: ScriptClass,
    pub script_key: ScriptKey,
}

/// A block of the chain by height and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tip {
    pub height: Height,
    pub hash: BlockHash,
}

/// One entry of a script's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HistoryEntry {
    pub tx_num: TxNum,
    pub txid: Txid,
    pub height: Height,
}

/// One unspent output of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unspent {
    pub tx_num: TxNum,
    pub txid: Txid,
    pub vout: u32,
    pub height: Height,
    pub value: Amount,
}

/// A network by the name that operators give it; the library calls mainnet "bitcoin".
pub fn network_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "mainnet",
        Network::Testnet => "testnet3",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

/// Whether the index has a history for this output script: not when its first byte is OP_RETURN.
pub fn has_history(script: &Script) -> bool {
    script.as_bytes().first() != Some(&0x6a)
}

/// Whether an output can never be spent, and so makes no coin (Core's `CScript::IsUnspendable`).
pub fn is_unspendable(script: &Script) -> bool {
    script.as_bytes().first() == Some(&0x6a) || script.len() > 10_000
}
