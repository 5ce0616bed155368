//! Why a transaction is not taken, in Bitcoin Core's words: wallets match them.
//!
//! Source: Bitcoin Core `consensus/validation.h` (`TxValidationResult`, `ValidationState::ToString`).

use std::borrow::Cow;
use std::fmt;

/// What kind of reason it is, which decides what becomes of the transaction and of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectKind {
    /// No block may ever hold it (`TX_CONSENSUS`).
    Consensus,
    /// An input spends a script that is not standard (`TX_INPUTS_NOT_STANDARD`).
    InputsNotStandard,
    /// Not relayed (`TX_NOT_STANDARD`).
    NotStandard,
    /// An input is unknown or spent: perhaps an orphan (`TX_MISSING_INPUTS`).
    MissingInputs,
    /// May be valid later (`TX_PREMATURE_SPEND`).
    Premature,
    /// Its witness is wrong or too much, which whoever relayed it may have done (`TX_WITNESS_MUTATED`).
    WitnessMutated,
    /// Its witness is missing (`TX_WITNESS_STRIPPED`).
    WitnessStripped,
    /// It is here already, or in the chain (`TX_CONFLICT`).
    Conflict,
    /// Against limits of this mempool (`TX_MEMPOOL_POLICY`).
    MempoolPolicy,
    /// Its fee is too low alone, but a child may pay for it (`TX_RECONSIDERABLE`).
    Reconsiderable,
    /// Nothing was tried (`TX_UNKNOWN`), as where a parent of its package failed.
    Unknown,
}

/// Why a transaction is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub kind: RejectKind,
    /// Core's reject reason, as `min relay fee not met`.
    pub reason: Cow<'static, str>,
    /// Core's debug message, as `100 < 141`; empty if none.
    pub details: String,
}

impl Reject {
    pub fn new(kind: RejectKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, reason: reason.into(), details: String::new() }
    }

    /// An input is unknown or spent.
    pub fn missing_inputs() -> Self {
        Self::new(RejectKind::MissingInputs, "bad-txns-inputs-missingorspent")
    }

    pub fn with(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

/// As `sendrawtransaction` says it: the reason, and after a comma the details.
impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ", {}", self.details) }
    }
}

impl std::error::Error for Reject {}

/// Satoshi as bitcoin, with two digits behind the point at least, as details write them (`FormatMoney`).
pub(super) fn money(satoshi: u64) -> String {
    let (whole, fraction) = (satoshi / 100_000_000, satoshi % 100_000_000);
    let digits = format!("{fraction:08}");
    let (cents, rest) = digits.split_at(2);
    format!("{whole}.{cents}{}", rest.trim_end_matches('0'))
}
