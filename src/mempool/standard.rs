//! Which transactions are relayed, as far as they show it by themselves.
//!
//! Here are only the rules that need no coin: what is spent is for `inputs` and `witness`, dust for `dust`.
//! Source: Bitcoin Core `validation.cpp` (the beginning of `MemPoolAccept::PreChecks`), `policy/policy.cpp`
//! (`IsStandardTx`).

use bitcoin::Script;

use crate::solver::{OP_16, Ops, ScriptType};
use crate::validate::{check_transaction, is_coinbase};

use super::dust;
use super::policy::{DataCarrier, Policy};
use super::reject::{Reject, RejectKind};
use super::transaction::Unconfirmed;

const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;
/// Bytes of an input's script: room for the largest redeem script of keys alone.
const MAX_SCRIPT_SIG_BYTES: usize = 1_650;
/// A transaction of 64 bytes could pass for an inner node of the merkle tree (CVE-2017-12842).
const MIN_BYTES: usize = 65;
/// Keys of a bare multisig.
const MAX_MULTISIG_KEYS: usize = 3;
/// Outputs that are dust: one, for a child that spends it at once.
const MAX_DUST_OUTPUTS: usize = 1;

/// Everything that is wrong with a transaction whatever the chain and the mempool hold, first what no block may hold.
pub fn check_standard(tx: &Unconfirmed, policy: &Policy) -> Result<(), Reject> {
    check_transaction(tx.tx()).map_err(|reason| Reject::new(RejectKind::Consensus, reason))?;
    if is_coinbase(tx.tx()) {
        return Err(Reject::new(RejectKind::Consensus, "coinbase"));
    }
    let unusual = |reason| Reject::new(RejectKind::NotStandard, reason);
    check_form(tx, policy).map_err(unusual)?;
    if tx.tx().base_size() < MIN_BYTES {
        return Err(unusual("tx-size-small"));
    }
    Ok(())
}

/// `IsStandardTx`.
fn check_form(tx: &Unconfirmed, policy: &Policy) -> Result<(), &'static str> {
    if !VERSIONS.contains(&(tx.tx().version.0 as u32)) {
        return Err("version");
    }
    if tx.weight() > policy.max_weight {
        return Err("tx-size");
    }
    for input in &tx.tx().input {
        if input.script_sig.len() > MAX_SCRIPT_SIG_BYTES {
            return Err("scriptsig-size");
        }
        if !is_push_only(&input.script_sig) {
            return Err("scriptsig-not-pushonly");
        }
    }
    let mut data = Data { policy: policy.data_carrier, outputs: 0, bytes: 0 };
    for output in &tx.tx().output {
        check_output(&output.script_pubkey, &mut data, policy)?;
    }
    if dust::outputs(tx.tx(), policy.dust_relay).count() > MAX_DUST_OUTPUTS {
        return Err("dust");
    }
    data.check_count()
}

fn check_output(script: &Script, data: &mut Data, policy: &Policy) -> Result<(), &'static str> {
    match ScriptType::of(script.as_bytes()) {
        ScriptType::NonStandard => Err("scriptpubkey"),
        ScriptType::MultiSig { keys, .. } if keys.len() > MAX_MULTISIG_KEYS => Err("scriptpubkey"),
        ScriptType::MultiSig { .. } if !policy.permit_bare_multisig => Err("bare-multisig"),
        ScriptType::NullData => data.add(script.len()),
        ScriptType::MultiSig { .. }
        | ScriptType::Anchor
        | ScriptType::PubKey(_)
        | ScriptType::PubKeyHash
        | ScriptType::ScriptHash
        | ScriptType::WitnessV0KeyHash
        | ScriptType::WitnessV0ScriptHash
        | ScriptType::WitnessV1Taproot(_)
        | ScriptType::WitnessUnknown => Ok(()),
    }
}

/// The OP_RETURN outputs so far.
struct Data {
    policy: DataCarrier,
    outputs: usize,
    bytes: usize,
}

impl Data {
    fn add(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.outputs += 1;
        self.bytes += bytes;
        match self.policy {
            DataCarrier::Together { bytes: most } if self.bytes > most => Err("datacarrier"),
            DataCarrier::One { bytes: most } if bytes > most => Err("scriptpubkey"),
            DataCarrier::Together { .. } | DataCarrier::One { .. } => Ok(()),
        }
    }

    fn check_count(&self) -> Result<(), &'static str> {
        match self.policy {
            DataCarrier::One { .. } if self.outputs > 1 => Err("multi-op-return"),
            DataCarrier::One { .. } | DataCarrier::Together { .. } => Ok(()),
        }
    }
}

fn is_push_only(script: &Script) -> bool {
    Ops::of(script.as_bytes()).all(|op| op.is_ok_and(|op| op.code <= OP_16))
}
