//! The solution that a signet block carries instead of work (BIP325).
//!
//! The challenge is a script that a transaction made of the block spends, by the rules of `BLOCK_SCRIPT_VERIFY_FLAGS`.
//! A build without the interpreter checks usual scripts alone; the default challenge is one.
//! Source: Bitcoin Core `signet.cpp`; BIP325.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{deserialize_partial, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, Instruction, PushBytesBuf};
use bitcoin::{
    Amount, Block, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    transaction,
};

use super::error::BlockError;
use super::merkle;
use crate::scripts::{self, Flags, VerifyError};

/// Begins the push that holds the solution, in the output that commits to the witnesses.
const SOLUTION_HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];
const COMMITMENT_HEADER: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];

/// Checks the solution of a block whose ids are `txids` against the network's challenge.
pub(super) fn check_solution(block: &Block, txids: &[Txid], challenge: &Script) -> Result<(), BlockError> {
    let coinbase = block.txdata.first().ok_or_else(|| bad("no coinbase"))?;
    let position = commitment_position(coinbase).ok_or_else(|| bad("no witness commitment to hold it"))?;
    let (stripped, solution) = take_solution(&coinbase.output[position].script_pubkey);
    let mut signed_coinbase = coinbase.clone();
    signed_coinbase.output[position].script_pubkey = stripped;
    let root = root_with(&signed_coinbase, txids);

    let (script_sig, witness) = decode(solution.as_deref())?;
    let mut to_sign = transaction_to_sign(block, root, challenge);
    if let Some(input) = to_sign.input.first_mut() {
        (input.script_sig, input.witness) = (script_sig, witness);
    }
    let spent = [TxOut { value: Amount::ZERO, script_pubkey: challenge.to_owned() }];
    let flags = Flags::P2SH | Flags::WITNESS | Flags::DERSIG | Flags::NULLDUMMY;
    let solved = match scripts::verify(&to_sign, &serialize(&to_sign), &spent, flags) {
        Ok(()) => Ok(()),
        Err(VerifyError::Script(error)) => Err(error.reason),
        Err(VerifyError::Unavailable) => {
            scripts::verify_template(&to_sign, &spent, 0, flags).ok_or(BlockError::UnsupportedChallenge)?
        }
    };
    solved.map_err(|reason| BlockError::BadSignetSolution(reason.to_string()))
}

fn bad(what: &str) -> BlockError {
    BlockError::BadSignetSolution(what.into())
}

fn commitment_position(coinbase: &Transaction) -> Option<usize> {
    coinbase.output.iter().rposition(|output| {
        let script = output.script_pubkey.as_bytes();
        script.len() >= 38 && script[..2] == [OP_RETURN.to_u8(), 0x24] && script[2..6] == COMMITMENT_HEADER
    })
}

/// The commitment's script without the solution, and the solution. The push that held it keeps its header.
fn take_solution(script: &Script) -> (ScriptBuf, Option<Vec<u8>>) {
    let mut solution = None;
    let mut rest = Builder::new();
    for instruction in script.instruction_indices() {
        match instruction {
            Ok((at, Instruction::PushBytes(push))) => {
                let bytes = push.as_bytes();
                if solution.is_none()
                    && bytes.len() > SOLUTION_HEADER.len()
                    && bytes.starts_with(&SOLUTION_HEADER)
                {
                    solution = Some(bytes[SOLUTION_HEADER.len()..].to_vec());
                    rest = rest.push_slice(SOLUTION_HEADER);
                } else if bytes.is_empty() {
                    // As Core has it: the opcode alone, which need not be OP_0.
                    rest = rest.push_opcode(Opcode::from(script.as_bytes()[at]));
                } else if let Ok(push) = PushBytesBuf::try_from(bytes.to_vec()) {
                    rest = rest.push_slice(push);
                }
            }
            Ok((_, Instruction::Op(op))) => rest = rest.push_opcode(op),
            Err(_) => break,
        }
    }
    // Where there is nothing to take, the script is signed as it stands.
    let stripped = if solution.is_some() { rest.into_script() } else { script.to_owned() };
    (stripped, solution)
}

/// The merkle root with another coinbase.
fn root_with(coinbase: &Transaction, txids: &[Txid]) -> sha256d::Hash {
    let first = std::iter::once(coinbase.compute_txid());
    merkle::root(first.chain(txids.iter().skip(1).copied()).map(Txid::to_raw_hash).collect()).0
}

fn decode(solution: Option<&[u8]>) -> Result<(ScriptBuf, Witness), BlockError> {
    // A network whose challenge is always true needs no solution.
    let solution = solution.unwrap_or(&[]);
    if solution.is_empty() {
        return Ok((ScriptBuf::new(), Witness::new()));
    }
    let (script_sig, used) = deserialize_partial::<ScriptBuf>(solution).map_err(|_| bad("undecodable"))?;
    let (witness, rest) =
        deserialize_partial::<Witness>(&solution[used..]).map_err(|_| bad("undecodable"))?;
    if used + rest == solution.len() { Ok((script_sig, witness)) } else { Err(bad("undecodable")) }
}

/// The virtual transaction that spends the challenge (BIP325, "to_sign").
fn transaction_to_sign(block: &Block, root: sha256d::Hash, challenge: &Script) -> Transaction {
    let header = &block.header;
    let mut data = Vec::with_capacity(72);
    data.extend(header.version.to_consensus().to_le_bytes());
    data.extend(header.prev_blockhash.to_byte_array());
    data.extend(root.to_byte_array());
    data.extend(header.time.to_le_bytes());
    let data = PushBytesBuf::try_from(data).expect("72 bytes can be pushed");
    let script_sig = Builder::new().push_opcode(bitcoin::opcodes::OP_0).push_slice(data).into_script();
    let to_spend = transaction(OutPoint::null(), script_sig, challenge.to_owned());
    let op_return = Builder::new().push_opcode(OP_RETURN).into_script();
    transaction(OutPoint { txid: to_spend.compute_txid(), vout: 0 }, ScriptBuf::new(), op_return)
}

fn transaction(previous_output: OutPoint, script_sig: ScriptBuf, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version(0),
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig, sequence: Sequence::ZERO, witness: Witness::new() }],
        output: vec![TxOut { value: Amount::ZERO, script_pubkey }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, the script, what is left of it, the solution.
    type Row = (&'static str, Vec<u8>, Vec<u8>, Option<&'static [u8]>);

    #[test]
    fn taking_the_solution_leaves_the_rest_as_core_writes_it() {
        const HEADER: [u8; 4] = SOLUTION_HEADER;
        let rows: [Row; 4] = [
            (
                "behind another push",
                [&[0x6a, 1, 9, 6], &HEADER[..], &[7, 8]].concat(),
                [&[0x6a, 1, 9, 4], &HEADER[..]].concat(),
                Some(&[7, 8]),
            ),
            (
                "pushes get the shortest form, of empty ones the opcode is left",
                [&[0x6a, 0x4c, 1, 9, 5], &HEADER[..], &[7, 0x00, 0x4c, 0]].concat(),
                [&[0x6a, 1, 9, 4], &HEADER[..], &[0x00, 0x4c]].concat(),
                Some(&[7]),
            ),
            (
                "only the first is one, and what cannot be read is left out",
                [&[0x6a, 5], &HEADER[..], &[7, 5], &HEADER[..], &[8, 0x4c, 9]].concat(),
                [&[0x6a, 4], &HEADER[..], &[5], &HEADER[..], &[8]].concat(),
                Some(&[7]),
            ),
            (
                "the header alone is none",
                [&[0x6a, 0x4c, 1, 9, 4], &HEADER[..]].concat(),
                [&[0x6a, 0x4c, 1, 9, 4], &HEADER[..]].concat(),
                None,
            ),
        ];
        for (name, script, stripped, solution) in rows {
            let (rest, taken) = take_solution(Script::from_bytes(&script));
            assert_eq!((rest.as_bytes(), taken.as_deref()), (&stripped[..], solution), "{name}");
        }
    }
}
