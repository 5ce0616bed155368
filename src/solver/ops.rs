//! Cuts a script into its operations, data with the opcode that pushes it.
//!
//! Knows nothing of what an operation does. Source: Bitcoin Core, `GetScriptOp`.

pub const OP_PUSHDATA1: u8 = 0x4c;
pub const OP_PUSHDATA2: u8 = 0x4d;
pub const OP_PUSHDATA4: u8 = 0x4e;
/// The number 0 would have this opcode, if `OP_0` were not a push of nothing.
pub const OP_RESERVED: u8 = 0x50;
pub const OP_1: u8 = 0x51;
pub const OP_16: u8 = 0x60;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    pub code: u8,
    /// What it pushes, if it is a push with its data behind it (`OP_0` to `OP_PUSHDATA4`).
    pub data: &'a [u8],
}

/// A push says that more follows than does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// The operations of a script from its beginning; ends after an error.
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Ops<'a> {
    pub fn of(script: &'a [u8]) -> Self {
        Self { rest: script }
    }

    /// The bytes that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&code, rest) = self.rest.split_first()?;
        let pushed = match code {
            0..OP_PUSHDATA1 => Some((usize::from(code), rest)),
            OP_PUSHDATA1 => {
                rest.split_first_chunk().map(|(len, rest)| (u8::from_le_bytes(*len).into(), rest))
            }
            OP_PUSHDATA2 => {
                rest.split_first_chunk().map(|(len, rest)| (u16::from_le_bytes(*len).into(), rest))
            }
            OP_PUSHDATA4 => {
                rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len) as usize, rest))
            }
            _ => Some((0, rest)),
        };
        let pushed = pushed.and_then(|(len, rest)| rest.split_at_checked(len));
        let Some((data, rest)) = pushed else {
            self.rest = &[];
            return Some(Err(Truncated));
        };
        self.rest = rest;
        Some(Ok(Op { code, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_of_every_form_carry_their_data() {
        let script = [1, 7, OP_PUSHDATA1, 1, 8, OP_PUSHDATA2, 1, 0, 9, OP_PUSHDATA4, 1, 0, 0, 0, 10, 0, 0x61];
        let read: Vec<_> = Ops::of(&script).map(|op| op.map(|op| (op.code, op.data.to_vec()))).collect();
        let pushed = |code, data: &[u8]| Ok((code, data.to_vec()));
        let expected = [
            pushed(1, &[7]),
            pushed(0x4c, &[8]),
            pushed(0x4d, &[9]),
            pushed(0x4e, &[10]),
            pushed(0, &[]),
            pushed(0x61, &[]),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_push_past_the_end_is_an_error_and_the_end() {
        for script in
            [&[2, 1][..], &[0x4c], &[0x4c, 1], &[0x4d, 1], &[0x4d, 1, 0], &[0x4e, 0xff, 0xff, 0xff, 0xff]]
        {
            let mut ops = Ops::of(script);
            assert_eq!(ops.next(), Some(Err(Truncated)), "{script:x?}");
            assert_eq!(ops.next(), None, "{script:x?}");
        }
    }
}
