//! The three messages of compact blocks, read and written (BIP152, version 2).
//!
//! ```text
//! cmpctblock  | header 80 | nonce 8 | count, short ids 6 each | count, prefilled: position, transaction |
//! getblocktxn | block 32 | count, positions |
//! blocktxn    | block 32 | count, transactions |
//! ```
//! Positions stand as their distance to the one before, less one. What stands in the messages is not judged here but
//! for its size and order; `blocks::compact` makes a block of it.
//! Source: BIP152; Bitcoin Core `blockencodings.h` (`DifferenceFormatter`, `CBlockHeaderAndShortTxIDs`).

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;

use super::codec::{Reader, put_compact_size, put_header};
use super::message::{Fault, read_count};
use super::types::{CompactBlock, Message};
use super::wire::MAX_POSITIONS;

const SHORT_ID_LEN: usize = 6;
/// The least transaction: version, one input, no output, lock time.
const LEAST_TRANSACTION_LEN: usize = 4 + 1 + 41 + 1 + 4;
/// With the position before it.
const LEAST_PREFILLED_LEN: usize = 1 + LEAST_TRANSACTION_LEN;

pub(super) fn read_block(reader: &mut Reader, payload: &Bytes) -> Result<CompactBlock, Fault> {
    let header = reader.header()?;
    let nonce = reader.u64()?;
    let count = read_count("cmpctblock", MAX_POSITIONS, SHORT_ID_LEN, reader)?;
    let mut short_ids = Vec::with_capacity(count);
    for _ in 0..count {
        let [a, b, c, d, e, f] = reader.array()?;
        short_ids.push(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
    }
    let room = MAX_POSITIONS - count;
    let count = read_count("cmpctblock", room, LEAST_PREFILLED_LEN, reader)?;
    let mut prefilled = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        let position = read_position("cmpctblock", &mut next, reader)?;
        prefilled.push((position, payload.slice_ref(reader.transaction()?)));
    }
    Ok(CompactBlock { header, nonce, short_ids, prefilled })
}

pub(super) fn read_request(reader: &mut Reader) -> Result<Message, Fault> {
    let block = reader.block_hash()?;
    let count = read_count("getblocktxn", MAX_POSITIONS, 1, reader)?;
    let mut next = 0;
    let mut positions = Vec::with_capacity(count);
    for _ in 0..count {
        positions.push(read_position("getblocktxn", &mut next, reader)?);
    }
    Ok(Message::GetBlockTxn { block, positions })
}

pub(super) fn read_transactions(reader: &mut Reader, payload: &Bytes) -> Result<Message, Fault> {
    let block = reader.block_hash()?;
    let count = read_count("blocktxn", MAX_POSITIONS, LEAST_TRANSACTION_LEN, reader)?;
    let mut transactions = Vec::with_capacity(count);
    for _ in 0..count {
        transactions.push(payload.slice_ref(reader.transaction()?));
    }
    Ok(Message::BlockTxn { block, transactions })
}

/// `next` is the least that the position may be.
fn read_position(name: &str, next: &mut usize, reader: &mut Reader) -> Result<u16, Fault> {
    let position = *next + reader.compact_size()?;
    *next = position + 1;
    u16::try_from(position)
        .map_err(|_| Fault::Forbidden(format!("{name} with position {position}, over the limit of 65535")))
}

pub(super) fn write_block(out: &mut Vec<u8>, block: &CompactBlock) {
    put_header(out, &block.header);
    out.extend_from_slice(&block.nonce.to_le_bytes());
    put_compact_size(out, block.short_ids.len());
    for id in &block.short_ids {
        let [a, b, c, d, e, f, _, _] = id.to_le_bytes();
        out.extend_from_slice(&[a, b, c, d, e, f]);
    }
    put_compact_size(out, block.prefilled.len());
    let mut next = 0;
    for (position, transaction) in &block.prefilled {
        put_position(out, &mut next, *position);
        out.extend_from_slice(transaction);
    }
}

pub(super) fn write_request(out: &mut Vec<u8>, block: &BlockHash, positions: &[u16]) {
    out.extend_from_slice(block.as_byte_array());
    put_compact_size(out, positions.len());
    let mut next = 0;
    positions.iter().for_each(|position| put_position(out, &mut next, *position));
}

pub(super) fn write_transactions(out: &mut Vec<u8>, block: &BlockHash, transactions: &[Bytes]) {
    out.extend_from_slice(block.as_byte_array());
    put_compact_size(out, transactions.len());
    transactions.iter().for_each(|transaction| out.extend_from_slice(transaction));
}

fn put_position(out: &mut Vec<u8>, next: &mut usize, position: u16) {
    let position = usize::from(position);
    put_compact_size(out, position.saturating_sub(*next));
    *next = position + 1;
}

#[cfg(test)]
mod tests {
    use super::super::message::{DecodeError, decode, encode};
    use super::super::wire::{Command, FrameDecoder, HEADER_LEN, frame};
    use super::*;

    const MAGIC: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];

    fn read(command: Command, payload: &[u8]) -> Result<Message, DecodeError> {
        let bytes = frame(MAGIC, command, |out| out.extend_from_slice(payload));
        let read = FrameDecoder::new(MAGIC).next_frame(&mut &bytes[..]).unwrap().unwrap();
        decode(&read)
    }

    fn is_forbidden(read: &Result<Message, DecodeError>) -> bool {
        matches!(read, Err(DecodeError::Forbidden(_)))
    }

    #[test]
    fn a_recorded_block_is_read_and_written_byte_for_byte() {
        let payload = include_bytes!("../../fixtures/p2p/compact-block-426884.bin");
        let message = read(Command::CMPCT_BLOCK, payload).unwrap();
        let Message::CompactBlock(block) = &message else { panic!("not a compact block") };
        assert_eq!(block.prefilled.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [0]);
        assert!(block.short_ids.len() > 100 && block.short_ids.iter().all(|id| id >> 48 == 0));
        assert_eq!(encode(MAGIC, &message)[HEADER_LEN..], payload[..]);
        let theirs: bitcoin::bip152::HeaderAndShortIds = bitcoin::consensus::deserialize(payload).unwrap();
        assert_eq!((theirs.header, theirs.nonce), (block.header, block.nonce));
        assert_eq!(theirs.short_ids.len(), block.short_ids.len());
    }

    #[test]
    fn positions_are_written_as_distances() {
        let request = Message::GetBlockTxn { block: BlockHash::all_zeros(), positions: vec![0, 1, 5, 300] };
        let payload = encode(MAGIC, &request)[HEADER_LEN..].to_vec();
        assert_eq!(payload[32..], [4, 0, 0, 3, 0xfd, 38, 1]);
        assert_eq!(read(Command::GET_BLOCK_TXN, &payload), Ok(request));
    }

    #[test]
    fn positions_over_16_bits_are_misbehavior() {
        let hash = [0; 32];
        let last = [&hash[..], &[1, 0xfd, 0xff, 0xff]].concat();
        let expected = Message::GetBlockTxn { block: BlockHash::all_zeros(), positions: vec![65_535] };
        assert_eq!(read(Command::GET_BLOCK_TXN, &last), Ok(expected));
        for over in [&[1, 0xfe, 0, 0, 1, 0][..], &[2, 0xfd, 0xff, 0xff, 0]] {
            assert!(is_forbidden(&read(Command::GET_BLOCK_TXN, &[&hash[..], over].concat())));
        }
    }

    #[test]
    fn more_transactions_than_a_block_has_positions_are_misbehavior_however_short_the_message() {
        let over = [0xfe, 1, 0, 1, 0];
        assert!(is_forbidden(&read(Command::CMPCT_BLOCK, &[&[0; 88][..], &over].concat())));
        assert!(is_forbidden(&read(Command::BLOCK_TXN, &[&[0; 32][..], &over].concat())));
        assert!(is_forbidden(&read(Command::GET_BLOCK_TXN, &[&[0; 32][..], &over].concat())));
        // Announced but not there.
        let full = [0xfd, 0xff, 0xff];
        let torn = read(Command::CMPCT_BLOCK, &[&[0; 88][..], &full].concat());
        assert_eq!(torn, Err(DecodeError::Malformed(Command::CMPCT_BLOCK, "ends too early")));
    }
}
