//! The bytes of a delta: one row of `tip.redb`.
//!
//! ```text
//! row    | header 80 | segment 4 LE | offset 4 LE | length 4 LE | first tx number 4 LE
//!        | transactions varint | for each: txid 32 | for each: offset in the block, minus the one before, varint
//!        | scripts varint | script, for each, by key | crc32c of all before 4 LE |
//! script | key 12
//!        | count varint | for each: transaction's position in the block, minus the one before, varint
//!        | count varint | for each: replaced transaction number, minus the one before, varint
//!        | count varint | for each coin made: position minus the one before, vout, value, class, varints
//!        | count varint | for each coin spent: number minus the one before, vout, value, class, varints, txid's first 6 |
//! ```
//! The height is the row's key.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Txid};

use crate::codec::{DecodeError, Reader, put_crc, put_u32, put_varint, without_crc};
use crate::delta::{Delta, DeltaHead, Made, OwnedRows, PREFIX_LEN, Spent};
use crate::segments::BlockPos;
use crate::types::{Height, ScriptClass, ScriptKey, TxNum};

/// Fewest bytes of a script in a row: its key and four counts.
const MIN_SCRIPT: usize = ScriptKey::LEN + 4;

/// How a class is written.
pub(crate) fn class_code(class: ScriptClass) -> u8 {
    match class {
        ScriptClass::Other => 0,
        ScriptClass::P2sh => 1,
        ScriptClass::P2wpkh => 2,
        ScriptClass::P2wsh => 3,
    }
}

pub(crate) fn class_of_code(code: u8) -> Option<ScriptClass> {
    match code {
        0 => Some(ScriptClass::Other),
        1 => Some(ScriptClass::P2sh),
        2 => Some(ScriptClass::P2wpkh),
        3 => Some(ScriptClass::P2wsh),
        _ => None,
    }
}

pub(crate) fn encode(delta: &Delta) -> Vec<u8> {
    let head = &delta.head;
    let mut out = Vec::with_capacity(128 + head.txids.len() * 35 + delta.keys().len() * 40);
    out.extend_from_slice(&bitcoin::consensus::serialize(&head.header));
    for number in [head.pos.segment, head.pos.offset, head.pos.length, head.first_tx] {
        put_u32(&mut out, number);
    }
    put_varint(&mut out, head.txids.len() as u64);
    for txid in &head.txids {
        out.extend_from_slice(txid.as_ref());
    }
    put_differences(&mut out, head.offsets.iter().copied());
    let scripts = delta.scripts();
    put_varint(&mut out, scripts.len() as u64);
    for script in scripts {
        out.extend_from_slice(&script.key.0);
        put_varint(&mut out, script.history.len() as u64);
        put_differences(&mut out, script.history.iter().copied());
        put_varint(&mut out, script.replaced.len() as u64);
        put_differences(&mut out, script.replaced.iter().map(|number| number.0));
        put_varint(&mut out, script.made.len() as u64);
        let mut before = 0;
        for made in script.made {
            put_varint(&mut out, u64::from(made.tx - before));
            before = made.tx;
            put_varint(&mut out, u64::from(made.vout));
            put_varint(&mut out, made.value.to_sat());
            out.push(class_code(made.class));
        }
        put_varint(&mut out, script.spent.len() as u64);
        let mut before = 0;
        for spent in script.spent {
            put_varint(&mut out, u64::from(spent.tx_num.0 - before));
            before = spent.tx_num.0;
            put_varint(&mut out, u64::from(spent.vout));
            put_varint(&mut out, spent.value.to_sat());
            out.push(class_code(spent.class));
            out.extend_from_slice(&spent.prefix);
        }
    }
    put_crc(&mut out);
    out
}

/// Ascending numbers as differences.
fn put_differences(out: &mut Vec<u8>, numbers: impl Iterator<Item = u32>) {
    let mut before = 0;
    for number in numbers {
        put_varint(out, u64::from(number - before));
        before = number;
    }
}

pub(crate) fn decode(height: Height, row: &[u8]) -> Result<Delta, DecodeError> {
    decode_body(height, without_crc(row)?)
}

/// [`decode`] without the checksum: what it covers is decoded with the same care.
fn decode_body(height: Height, body: &[u8]) -> Result<Delta, DecodeError> {
    let mut reader = Reader::new(body);
    let header: Header = match bitcoin::consensus::deserialize(&reader.array::<80>()?) {
        Ok(header) => header,
        Err(_) => return reader.fail("not a header"),
    };
    let pos = BlockPos { segment: reader.u32()?, offset: reader.u32()?, length: reader.u32()? };
    let first_tx = reader.u32()?;
    // Each transaction has an id and at least one byte of offset.
    let count = reader.count(33)?;
    if count == 0 {
        return reader.fail("block without transactions");
    }
    if u32::try_from(count).ok().and_then(|count| count.checked_add(first_tx)).is_none() {
        return reader.fail("transaction number above 32 bits");
    }
    let mut txids = Vec::with_capacity(count);
    for _ in 0..count {
        txids.push(Txid::from_byte_array(reader.array()?));
    }
    let offsets = ascending(&mut reader, count, pos.length, |offset| offset)?;
    let txs = count as u32;
    let mut scripts: Vec<OwnedRows> = Vec::new();
    for _ in 0..reader.count(MIN_SCRIPT)? {
        let script = decode_script(&mut reader, txs, first_tx)?;
        if scripts.last().is_some_and(|before| before.key >= script.key) {
            return reader.fail("scripts out of order");
        }
        scripts.push(script);
    }
    reader.finish()?;
    Ok(Delta::from_scripts(DeltaHead { height, header, pos, first_tx, txids, offsets }, scripts))
}

fn decode_script(reader: &mut Reader<'_>, txs: u32, first_tx: u32) -> Result<OwnedRows, DecodeError> {
    let key = ScriptKey(reader.array()?);
    let count = reader.count(1)?;
    let history = ascending(reader, count, txs, |position| position)?;
    let count = reader.count(1)?;
    let replaced = ascending(reader, count, first_tx, TxNum)?;
    let mut made = Vec::new();
    let mut before = 0;
    for _ in 0..reader.count(4)? {
        before = reader.add(before)?;
        let (vout, value, class) = decode_coin(reader)?;
        made.push(Made { tx: before, vout, value, class });
    }
    let mut spent = Vec::new();
    let mut number = 0;
    for _ in 0..reader.count(4 + PREFIX_LEN)? {
        number = reader.add(number)?;
        let (vout, value, class) = decode_coin(reader)?;
        spent.push(Spent { tx_num: TxNum(number), vout, value, class, prefix: reader.array()? });
    }
    if before >= txs.max(1) || number >= first_tx.max(1) {
        return reader.fail("transaction beyond its block");
    }
    if !made.is_sorted_by(|a, b| (a.tx, a.vout) < (b.tx, b.vout))
        || !spent.is_sorted_by(|a, b| (a.tx_num, a.vout) < (b.tx_num, b.vout))
    {
        return reader.fail("coins out of order");
    }
    Ok(OwnedRows { key, history, replaced, made, spent })
}

fn decode_coin(reader: &mut Reader<'_>) -> Result<(u32, Amount, ScriptClass), DecodeError> {
    let (vout, value, class) = (reader.varint32()?, reader.varint()?, reader.u8()?);
    match class_of_code(class) {
        Some(class) => Ok((vout, Amount::from_sat(value), class)),
        None => reader.fail("unknown script class"),
    }
}

/// `count` ascending numbers below `limit`; only the first may be 0.
fn ascending<T>(
    reader: &mut Reader<'_>,
    count: usize,
    limit: u32,
    make: fn(u32) -> T,
) -> Result<Vec<T>, DecodeError> {
    let mut numbers = Vec::with_capacity(count);
    let mut before = 0;
    for at in 0..count {
        let number = reader.add(before)?;
        if number >= limit || (at > 0 && number == before) {
            return reader.fail("number out of order");
        }
        before = number;
        numbers.push(make(number));
    }
    Ok(numbers)
}
