//! The redeem script that an input shows: what its script, run by itself, leaves on top of the stack.
//!
//! Only pushes are run, as policy allows no other operation there.
//! Source: Bitcoin Core `script/interpreter.cpp` (`EvalScript` without flags).

use bitcoin::Script;

use crate::solver::{OP_1, OP_16, OP_PUSHDATA4, Ops};

const OP_1NEGATE: u8 = 0x4f;
/// Bytes of one element of the stack.
const MAX_ELEMENT_BYTES: usize = 520;
const MAX_STACK_ITEMS: usize = 1_000;

/// What single bytes the opcodes from `OP_1NEGATE` to `OP_16` push; `OP_RESERVED`, which is among them, pushes none.
const SMALL_NUMBERS: [[u8; 1]; 18] = {
    let mut numbers = [[0x81]; 18];
    let mut number = 1;
    while number <= 16 {
        numbers[number as usize + 1] = [number];
        number += 1;
    }
    numbers
};

/// Why a script fails, in Core's words.
pub(super) type ScriptError = &'static str;

/// The last element on the stack; `None` where nothing was pushed.
pub(super) fn last_pushed(script_sig: &Script) -> Result<Option<&Script>, ScriptError> {
    let mut last: Option<&[u8]> = None;
    for (before, op) in Ops::of(script_sig.as_bytes()).enumerate() {
        let pushed: &[u8] = match op {
            Ok(op) if op.data.len() > MAX_ELEMENT_BYTES => return Err("Push value size limit exceeded"),
            Ok(op) if op.code <= OP_PUSHDATA4 => op.data,
            Ok(op) if op.code == OP_1NEGATE || (OP_1..=OP_16).contains(&op.code) => {
                &SMALL_NUMBERS[usize::from(op.code - OP_1NEGATE)]
            }
            // OP_RESERVED, and whatever does not push.
            Ok(_) | Err(_) => return Err("Opcode missing or not understood"),
        };
        if before >= MAX_STACK_ITEMS {
            return Err("Stack size limit exceeded");
        }
        last = Some(pushed);
    }
    Ok(last.map(Script::from_bytes))
}
