//! A transaction in Bitcoin Core's words: what `getrawtransaction TXID true` answers.
//!
//! In: the transaction, its block if it has one, the network. Out: the same JSON text that Core 29 to 31 write, keys in
//! their order. `asm` writes a script's operations as text, `descriptor` says which descriptor stands for an output.
//! Never looks a transaction up, and knows nothing that stands in another transaction: no fee, no spent output.
//! Source: Bitcoin Core, `TxToUniv` and `TxToJSON`.

mod asm;
mod descriptor;

#[cfg(test)]
mod tests;

use bitcoin::{Address, BlockHash, Network, Script, Transaction, TxIn, TxOut};

use crate::solver::ScriptType;

use super::json::Json;
use asm::Signatures;

/// The block that holds a transaction, as seen from the tip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub block_hash: BlockHash,
    /// Of the block's header, in Unix seconds.
    pub time: u32,
    /// 1 for the tip.
    pub confirmations: u32,
}

/// The transaction, whose serialization is `bytes`, as one object; `None` when it takes more than `max_bytes`.
pub(super) fn transaction(
    tx: &Transaction,
    bytes: &[u8],
    place: Option<Place>,
    network: Network,
    max_bytes: usize,
) -> Option<Json> {
    // Every byte of a transaction comes twice in hex.
    let mut room_bytes = max_bytes.checked_sub(4 * bytes.len())?;
    let is_coinbase = tx.is_coinbase();
    let inputs = bounded(&mut room_bytes, tx.input.iter().map(|input| self::input(input, is_coinbase)))?;
    let outputs = tx.output.iter().enumerate();
    let outputs =
        bounded(&mut room_bytes, outputs.map(|(index, output)| self::output(output, index, network)))?;
    let weight = tx.weight();
    let mut fields = vec![
        ("txid", Json::hash(tx.compute_txid())),
        // Of a coinbase too it is the hash of its bytes, not the zero of the witness commitment's tree.
        ("hash", Json::hash(tx.compute_wtxid())),
        // Signed where rules read it (BIP68), unsigned where people do.
        ("version", Json::integer(tx.version.0 as u32)),
        ("size", Json::integer(bytes.len() as u64)),
        ("vsize", Json::integer(weight.to_vbytes_ceil())),
        ("weight", Json::integer(weight.to_wu())),
        ("locktime", Json::integer(tx.lock_time.to_consensus_u32())),
        ("vin", Json::list(inputs)),
        ("vout", Json::list(outputs)),
        ("hex", Json::hex(bytes)),
    ];
    if let Some(place) = place {
        fields.extend([
            ("blockhash", Json::hash(place.block_hash)),
            ("confirmations", Json::integer(place.confirmations)),
            ("time", Json::integer(place.time)),
            ("blocktime", Json::integer(place.time)),
        ]);
    }
    Some(Json::object(fields))
}

/// All items, unless they take more room than is left: a script of a megabyte is thirty as text.
fn bounded(room_bytes: &mut usize, items: impl Iterator<Item = Json>) -> Option<Vec<Json>> {
    items
        .map(|item| {
            *room_bytes = room_bytes.checked_sub(item.as_str().len())?;
            Some(item)
        })
        .collect()
}

fn input(input: &TxIn, is_coinbase: bool) -> Json {
    let mut fields = Vec::with_capacity(5);
    if is_coinbase {
        fields.push(("coinbase", Json::hex(input.script_sig.as_bytes())));
    } else {
        let script = &input.script_sig;
        let script_sig = [
            ("asm", Json::text(&asm::text(script.as_bytes(), Signatures::Named))),
            ("hex", Json::hex(script.as_bytes())),
        ];
        fields.extend([
            ("txid", Json::hash(input.previous_output.txid)),
            ("vout", Json::integer(input.previous_output.vout)),
            ("scriptSig", Json::object(script_sig)),
        ]);
    }
    if !input.witness.is_empty() {
        fields.push(("txinwitness", Json::list(input.witness.iter().map(Json::hex))));
    }
    fields.push(("sequence", Json::integer(input.sequence.0)));
    Json::object(fields)
}

fn output(output: &TxOut, index: usize, network: Network) -> Json {
    Json::object([
        ("value", Json::btc(output.value)),
        ("n", Json::integer(index as u64)),
        ("scriptPubKey", script_pub_key(&output.script_pubkey, network)),
    ])
}

fn script_pub_key(script: &Script, network: Network) -> Json {
    let kind = ScriptType::of(script.as_bytes());
    // Those that have one are P2PKH, P2SH and witness programs of a length that their version allows.
    let address = Address::from_script(script, network).ok().map(|address| address.to_string());
    let descriptor = descriptor::of(script.as_bytes(), &kind, address.as_deref());
    let mut fields = vec![
        ("asm", Json::text(&asm::text(script.as_bytes(), Signatures::AsData))),
        ("desc", Json::text(&descriptor)),
        ("hex", Json::hex(script.as_bytes())),
    ];
    fields.extend(address.map(|address| ("address", Json::text(&address))));
    fields.push(("type", Json::text(kind.name())));
    Json::object(fields)
}
