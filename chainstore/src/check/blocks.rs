//! Each block once: its checksum, its place in the header chain, and the arrays that follow from it.

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Transaction, Txid};

use super::{Checker, Report};
use crate::build::tx_offsets;
use crate::error::Error;
use crate::mmr;
use crate::segments::file_name;
use crate::types::Height;
use crate::view::{View, decode_header};

/// Headers that are read at once.
const BATCH: u32 = 2048;

/// Compares headers, merkle nodes, blocks and arrays of a chain; `share` of the whole work is done then.
pub(super) fn check(
    view: &View,
    headers: u32,
    share: f64,
    checker: &mut Checker<'_>,
    report: &mut Report,
) -> Result<(), Error> {
    check_headers(view, headers, checker, report);
    let blocks = view.blocks();
    for height in 0..blocks {
        if let Err(error) = check_block(view, Height(height), report) {
            report.add_error(&format!("block at height {height}"), &error);
        }
        (checker.progress)(f64::from(height + 1) / f64::from(blocks) * share);
    }
    report.passes += 1;
    Ok(())
}

fn check_headers(view: &View, count: u32, checker: &Checker<'_>, report: &mut Report) {
    let mut below: Option<BlockHash> = None;
    for from in (0..count).step_by(BATCH as usize) {
        let rows = match view.files.headers.read_many(from, (count - from).min(BATCH)) {
            Ok(rows) => rows,
            Err(error) => return report.add_error(&format!("headers from height {from} on"), &error),
        };
        let mut hashes = Vec::with_capacity(rows.len());
        for (row, height) in rows.iter().zip(from..) {
            let header = match decode_header(row) {
                Ok(header) => header,
                Err(error) => return report.add_error(&format!("header at height {height}"), &error),
            };
            if below.is_some_and(|below| below != header.prev_blockhash) {
                let what = format!("header at height {height} does not build on the one below");
                report.add("headers", what);
            }
            if let Err(what) = (checker.header)(&header) {
                report.add("headers", format!("header at height {height}: {what}"));
            }
            below = Some(header.block_hash());
            hashes.push(header.block_hash().to_byte_array());
        }
        check_nodes(view, from, hashes, report);
    }
}

/// The merkle nodes that some headers complete.
fn check_nodes(view: &View, from: u32, hashes: Vec<[u8; 32]>, report: &mut Report) {
    let upto = from + hashes.len() as u32;
    let wanted = mmr::append(from, hashes, |at| view.files.hashes.read(at));
    let first = mmr::node_count(from);
    let found = view.files.hashes.read_many(first, mmr::node_count(upto) - first);
    match (wanted, found) {
        (Ok(wanted), Ok(found)) => {
            for ((wanted, found), at) in wanted.iter().zip(&found).zip(first..) {
                if wanted != found {
                    let what = format!("node {at}, over headers {from} to {}, is wrong", upto - 1);
                    report.add("hashes", what);
                }
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            report.add_error(&format!("nodes over headers from {from} on"), &error);
        }
    }
}

/// A block of the chain, read whole.
pub(super) fn read(view: &View, height: Height) -> Result<(Block, Vec<Txid>), Error> {
    let pos = view.block_pos(height)?.ok_or_else(|| Error::corrupt("blockpos", "no position"))?;
    let raw = view.files.blocks.read(pos)?;
    let block: Block = bitcoin::consensus::deserialize(&raw)
        .map_err(|error| Error::corrupt(&file_name(pos.segment), format!("byte {}: {error}", pos.offset)))?;
    let txids = block.txdata.iter().map(Transaction::compute_txid).collect();
    Ok((block, txids))
}

fn check_block(view: &View, height: Height, report: &mut Report) -> Result<(), Error> {
    let (block, txids) = read(view, height)?;
    let file = view.block_pos(height)?.map_or_else(String::new, |pos| file_name(pos.segment));
    let header: Option<Header> = view.header(height)?;
    if header.is_none_or(|header| header.block_hash() != block.block_hash()) {
        let what =
            format!("height {height}: the block there is {}, not that of the header", block.block_hash());
        report.add("blockpos", what);
        return Ok(());
    }
    if !block.check_merkle_root() {
        report
            .add(file, format!("block at height {height}: its merkle root is not that of its transactions"));
        return Ok(());
    }
    let numbers = view.txs_of(height).unwrap_or_default();
    if numbers.len() != txids.len() {
        let what =
            format!("height {height}: counts {} transactions, the block has {}", numbers.len(), txids.len());
        report.add("blockpos", what);
        return Ok(());
    }
    for ((found, wanted), number) in
        view.block_txids(height)?.unwrap_or_default().iter().zip(&txids).zip(numbers.clone())
    {
        if found != wanted {
            let what = format!("transaction {number} (height {height}) is {wanted}, the file says {found}");
            report.add("txids", what);
        }
    }
    if height.0 < view.base.blocks {
        let (offsets, _) = tx_offsets(&block);
        let rows = view.files.txpos.read_many(numbers.start, numbers.len() as u32)?;
        for ((row, wanted), number) in rows.iter().zip(&offsets).zip(numbers) {
            let found = u32::from_le_bytes(*row);
            if found != *wanted {
                let what = format!(
                    "transaction {number} (height {height}) starts at byte {wanted} of its block, not {found}"
                );
                report.add("txpos", what);
            }
        }
    }
    Ok(())
}
