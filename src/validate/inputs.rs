//! What the coins that a transaction spends must be: old enough, unlocked, and worth what is paid out.
//!
//! For a transaction of a block, and for one that the next block may hold: the height is that block's.
//! Source: Bitcoin Core `consensus/tx_verify.cpp` (`CheckTxInputs`, `CalculateSequenceLocks`); BIP68.

use bitcoin::Amount;
use chainstore::Height;

use super::transaction::TransactionParts;

/// Blocks on top of a coinbase before it may be spent.
const COINBASE_MATURITY: u32 = 100;
pub(super) const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

/// BIP68: the relative lock is off; it counts time; what it counts.
const SEQUENCE_DISABLED: u32 = 1 << 31;
const SEQUENCE_IS_TIME: u32 = 1 << 22;
const SEQUENCE_MASK: u32 = 0xffff;
/// Time is counted in units of 512 seconds.
const SEQUENCE_TIME_SHIFT: u32 = 9;

/// What of a coin these rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentValue {
    pub value: Amount,
    /// Of the block that made it.
    pub height: Height,
    pub is_coinbase: bool,
}

/// Why a transaction may not spend what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// A coinbase is not ripe: so many blocks deep it would be spent.
    Unripe {
        depth: u32,
    },
    OutOfRange,
    /// In satoshi.
    BelowOut {
        paid_in: u64,
        paid_out: u64,
    },
}

impl InputError {
    /// Bitcoin Core's reject reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unripe { .. } => "bad-txns-premature-spend-of-coinbase",
            Self::OutOfRange => "bad-txns-inputvalues-outofrange",
            Self::BelowOut { .. } => "bad-txns-in-belowout",
        }
    }
}

/// Maturity and amounts in a block at `height`; the fee in satoshi. `coins` has one for each input, and the
/// transaction passed [`check_transaction`](super::check_transaction).
pub fn check_inputs(
    tx: &impl TransactionParts,
    coins: impl Iterator<Item = SpentValue>,
    height: Height,
) -> Result<u64, InputError> {
    // The sum of the outputs was found in range.
    check_values(tx.outputs().map(|output| output.value).sum(), coins, height)
}

/// The same for one whose outputs are `paid_out` satoshi together.
pub(super) fn check_values(
    paid_out: u64,
    coins: impl Iterator<Item = SpentValue>,
    height: Height,
) -> Result<u64, InputError> {
    let mut paid_in = 0;
    for coin in coins {
        let depth = height.0.saturating_sub(coin.height.0);
        if coin.is_coinbase && depth < COINBASE_MATURITY {
            return Err(InputError::Unripe { depth });
        }
        let value = coin.value.to_sat();
        if value > MAX_MONEY || paid_in + value > MAX_MONEY {
            return Err(InputError::OutOfRange);
        }
        paid_in += value;
    }
    paid_in.checked_sub(paid_out).ok_or(InputError::BelowOut { paid_in, paid_out })
}

/// BIP68: every relative lock has run out in a block at `height`, whose parent has the median time past
/// `parent_mtp`. `coin_heights` has the height of the block of each input's coin.
pub fn locks_passed(
    tx: &impl TransactionParts,
    coin_heights: impl Iterator<Item = Height>,
    height: Height,
    parent_mtp: u32,
    mtp_at: &dyn Fn(Height) -> u32,
) -> bool {
    !has_locks(tx)
        || tx
            .inputs()
            .zip(coin_heights)
            .all(|(input, coin)| lock_passed(input.sequence, coin, height, parent_mtp, mtp_at))
}

/// Whether any input has a relative lock at all.
pub(super) fn has_locks(tx: &impl TransactionParts) -> bool {
    tx.version() >= 2 && tx.inputs().any(|input| input.sequence & SEQUENCE_DISABLED == 0)
}

/// Whether the lock of one input, of a transaction whose locks count, has run out.
pub(super) fn lock_passed(
    sequence: u32,
    coin_height: Height,
    height: Height,
    parent_mtp: u32,
    mtp_at: &dyn Fn(Height) -> u32,
) -> bool {
    if sequence & SEQUENCE_DISABLED != 0 {
        return true;
    }
    let lock = sequence & SEQUENCE_MASK;
    if sequence & SEQUENCE_IS_TIME == 0 {
        return height.0 >= coin_height.0.saturating_add(lock);
    }
    let since = mtp_at(coin_height.prev().unwrap_or(Height::GENESIS));
    u64::from(parent_mtp) >= u64::from(since) + u64::from(lock << SEQUENCE_TIME_SHIFT)
}
