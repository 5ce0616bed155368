//! The rows: every method of every version.
//!
//! Costs are those of ElectrumX 2.0, less where an answer costs us nothing like as much.

use super::super::answer_script::{ByAddress, ByHash, ByScript};
use super::super::params::Args;
use super::super::session::Context;
use super::super::version::ProtocolVersion::{
    self, V1_0, V1_1, V1_2, V1_3, V1_4, V1_4_2, V1_4_3, V1_6, V1_7,
};
use super::super::{
    answer_block, answer_fees, answer_legacy, answer_outpoint, answer_script as script, answer_server,
    answer_transaction,
};
use super::{Cost, Extra, Failure, Method, Param, Reply, Serves};

const fn needs(name: &'static str) -> Param {
    Param { name, alias: None, default: None }
}

const fn takes(name: &'static str, default: &'static str) -> Param {
    Param { name, alias: None, default: Some(default) }
}

const fn flat(base: f64) -> Cost {
    Cost { base, each: 0.0, unit: "" }
}

const fn cost(base: f64, each: f64, unit: &'static str) -> Cost {
    Cost { base, each, unit }
}

type Answer = fn(&mut Context<'_>, &Args<'_>) -> Result<Reply, Failure>;

/// A method of all versions that needs no block; rows change what differs.
const fn method(
    name: &'static str,
    params: &'static [Param],
    cost: Cost,
    result: &'static str,
    answer: Answer,
) -> Method {
    let (since, until) = (ProtocolVersion::MIN, ProtocolVersion::MAX);
    Method { name, since, until, params, extra: Extra::Refused, serves: Serves::Always, cost, result, answer }
}

/// The same, but not before all blocks are there.
const fn synced(
    name: &'static str,
    params: &'static [Param],
    cost: Cost,
    result: &'static str,
    answer: Answer,
) -> Method {
    Method { serves: Serves::Synced, ..method(name, params, cost, result, answer) }
}

impl Method {
    const fn since(self, since: ProtocolVersion) -> Self {
        Self { since, ..self }
    }

    const fn until(self, until: ProtocolVersion) -> Self {
        Self { until, ..self }
    }
}

const ADDRESS: &[Param] = &[needs("address")];
const HASH: &[Param] = &[needs("scripthash")];
const SCRIPT: &[Param] = &[Param { name: "scriptpubkey", alias: Some("spk"), default: None }];
const OUTPOINT: &[Param] = &[needs("tx_hash"), needs("txout_idx"), takes("spk_hint", "null")];
const HEADERS: &[Param] = &[needs("start_height"), needs("count")];
const HEADERS_WITH_PROOF: &[Param] = &[needs("start_height"), needs("count"), takes("cp_height", "0")];

const BALANCE: Cost = cost(1.0, 0.02, "unspent output");
const HISTORY: Cost = cost(0.2, 0.001, "entry");
const MEMPOOL: Cost = cost(0.25, 0.02, "entry");
const STATUS: Cost = cost(0.3, 0.0024, "entry");
const TIP: Cost = flat(0.25);
const SOME_HEADERS: Cost = cost(0.0, 0.02, "header");
const OUTPOINT_STATUS: Cost = cost(0.2, 0.02, "transaction looked at");

const BALANCE_IS: &str = "`{confirmed, unconfirmed}` in satoshi";
const HISTORY_IS: &str = "list of `{height, tx_hash}` in chain order";
/// What an estimate is.
const ESTIMATE_IS: &str = "BTC/kvB for being mined within *number* blocks; `-1` without data";
const MEMPOOL_IS: &str =
    "`{tx_hash, height, fee}` of each unconfirmed transaction; height -1 where it spends another one";
const UNSPENT_IS: &str = "list of `{tx_hash, tx_pos, height, value}` in chain order, values in satoshi";
const STATUS_IS: &str = "the status, `null` for an empty history; notifies of each change";
const UNSUBSCRIBED_IS: &str = "whether there was a subscription";
const OUTPOINT_IS: &str = "the status: `{}`, `{funder_height}` or that with `{spender_txhash, spender_height}`; notifies of each change";
const HEADER_IS: &str = "`{block_height, version, prev_block_hash, merkle_root, timestamp, bits, nonce}`";

pub(super) static METHODS: &[Method] = &[
    Method {
        extra: Extra::Ignored,
        ..method(
            "server.version",
            &[takes("client_name", "\"\""), takes("protocol_version", "\"1.4\"")],
            flat(0.5),
            "`[software, protocol version]`; in 1.0 only the software",
            answer_server::version,
        )
    },
    method("server.features", &[], flat(0.2), "what the server is, as an object", answer_server::features)
        .since(V1_1),
    method("server.banner", &[], flat(0.5), "a greeting", answer_server::banner),
    method(
        "server.donation_address",
        &[],
        flat(0.1),
        "an address, or `\"\"`",
        answer_server::donation_address,
    ),
    method("server.ping", &[], flat(0.1), "`null`", answer_server::ping).since(V1_2).until(V1_6),
    method(
        "server.ping",
        &[takes("pong_len", "0"), takes("data", "\"\"")],
        flat(0.1),
        "`{data}`: *pong_len* zeros",
        answer_server::padded_ping,
    )
    .since(V1_7),
    method(
        "server.peers.subscribe",
        &[],
        flat(1.0),
        "`[]`: no other servers are known yet",
        answer_server::peers,
    ),
    method(
        "blockchain.numblocks.subscribe",
        &[],
        TIP,
        "the tip's height; notifies of each new one",
        answer_legacy::numblocks,
    )
    .until(V1_0),
    method(
        "blockchain.headers.subscribe",
        &[],
        TIP,
        "the tip's header in words (see `get_header`); notifies of each new tip",
        answer_legacy::headers_in_words,
    )
    .until(V1_1),
    method(
        "blockchain.headers.subscribe",
        &[takes("raw", "false")],
        TIP,
        "the tip's header in words, or with *raw* as from 1.4; notifies of each new tip",
        answer_legacy::headers_raw_or_not,
    )
    .since(V1_2)
    .until(V1_2),
    method(
        "blockchain.headers.subscribe",
        &[takes("raw", "true")],
        TIP,
        "the same, *raw* if nothing is said",
        answer_legacy::headers_raw_or_not,
    )
    .since(V1_3)
    .until(V1_3),
    method(
        "blockchain.headers.subscribe",
        &[],
        TIP,
        "`{height, hex}` of the tip; notifies of each new tip",
        answer_block::subscribe,
    )
    .since(V1_4),
    method("blockchain.block.get_header", &[needs("height")], TIP, HEADER_IS, answer_legacy::get_header)
        .until(V1_3),
    method(
        "blockchain.block.get_chunk",
        &[needs("index")],
        SOME_HEADERS,
        "2,016 headers from 2,016 times *index* on, in hex",
        answer_legacy::get_chunk,
    )
    .until(V1_3),
    method(
        "blockchain.block.header",
        &[needs("height")],
        TIP,
        "the header in hex",
        answer_block::header_alone,
    )
    .since(V1_3)
    .until(V1_3),
    method(
        "blockchain.block.header",
        &[needs("height"), takes("cp_height", "0")],
        cost(0.25, 1.0, "proof"),
        "the header in hex; with *cp_height* `{header, branch, root}`",
        answer_block::header,
    )
    .since(V1_4),
    method(
        "blockchain.block.headers",
        HEADERS,
        SOME_HEADERS,
        "`{hex, count, max}`",
        answer_block::headers_without_proof,
    )
    .since(V1_2)
    .until(V1_3),
    method(
        "blockchain.block.headers",
        HEADERS_WITH_PROOF,
        SOME_HEADERS,
        "`{hex, count, max}`, and `branch` and `root` of the last with *cp_height*",
        answer_block::headers_joined,
    )
    .since(V1_4)
    .until(V1_4_3),
    method(
        "blockchain.block.headers",
        HEADERS_WITH_PROOF,
        SOME_HEADERS,
        "`{headers, count, max}`, and `branch` and `root` of the last with *cp_height*",
        answer_block::headers_listed,
    )
    .since(V1_6),
    synced("blockchain.address.get_balance", ADDRESS, BALANCE, BALANCE_IS, script::balance::<ByAddress>)
        .until(V1_2),
    synced("blockchain.address.get_history", ADDRESS, HISTORY, HISTORY_IS, script::history::<ByAddress>)
        .until(V1_2),
    synced("blockchain.address.get_mempool", ADDRESS, MEMPOOL, MEMPOOL_IS, script::mempool::<ByAddress>)
        .until(V1_2),
    synced("blockchain.address.listunspent", ADDRESS, BALANCE, UNSPENT_IS, script::unspent::<ByAddress>)
        .until(V1_2),
    synced("blockchain.address.subscribe", ADDRESS, STATUS, STATUS_IS, script::subscribe::<ByAddress>)
        .until(V1_2),
    synced(
        "blockchain.utxo.get_address",
        &[needs("tx_hash"), needs("index")],
        flat(1.0),
        "the address that an output pays, `null` where there is none",
        answer_legacy::address_of_output,
    )
    .until(V1_0),
    synced("blockchain.scripthash.get_balance", HASH, BALANCE, BALANCE_IS, script::balance::<ByHash>)
        .since(V1_1)
        .until(V1_6),
    synced("blockchain.scripthash.get_history", HASH, HISTORY, HISTORY_IS, script::history::<ByHash>)
        .since(V1_1)
        .until(V1_6),
    synced("blockchain.scripthash.get_mempool", HASH, MEMPOOL, MEMPOOL_IS, script::mempool::<ByHash>)
        .since(V1_1)
        .until(V1_6),
    synced("blockchain.scripthash.listunspent", HASH, BALANCE, UNSPENT_IS, script::unspent::<ByHash>)
        .since(V1_1)
        .until(V1_6),
    synced("blockchain.scripthash.subscribe", HASH, STATUS, STATUS_IS, script::subscribe::<ByHash>)
        .since(V1_1)
        .until(V1_6),
    synced(
        "blockchain.scripthash.unsubscribe",
        HASH,
        flat(0.1),
        UNSUBSCRIBED_IS,
        script::unsubscribe::<ByHash>,
    )
    .since(V1_4_2)
    .until(V1_6),
    synced("blockchain.scriptpubkey.get_balance", SCRIPT, BALANCE, BALANCE_IS, script::balance::<ByScript>)
        .since(V1_7),
    synced(
        "blockchain.scriptpubkey.get_history",
        SCRIPT,
        HISTORY,
        "`{history}`: the list",
        script::history::<ByScript>,
    )
    .since(V1_7),
    synced(
        "blockchain.scriptpubkey.get_mempool",
        SCRIPT,
        MEMPOOL,
        "`{history}`, as of a scripthash",
        script::mempool::<ByScript>,
    )
    .since(V1_7),
    synced(
        "blockchain.scriptpubkey.listunspent",
        SCRIPT,
        BALANCE,
        "`{utxos}`: the list",
        script::unspent::<ByScript>,
    )
    .since(V1_7),
    synced(
        "blockchain.scriptpubkey.subscribe",
        SCRIPT,
        STATUS,
        "the status, `null` for an empty history; notifies of each change with the script hash",
        script::subscribe::<ByScript>,
    )
    .since(V1_7),
    synced(
        "blockchain.scriptpubkey.unsubscribe",
        SCRIPT,
        flat(0.1),
        UNSUBSCRIBED_IS,
        script::unsubscribe::<ByScript>,
    )
    .since(V1_7),
    synced(
        "blockchain.outpoint.subscribe",
        OUTPOINT,
        OUTPOINT_STATUS,
        OUTPOINT_IS,
        answer_outpoint::subscribe,
    )
    .since(V1_7),
    synced(
        "blockchain.outpoint.get_status",
        OUTPOINT,
        OUTPOINT_STATUS,
        "the same, without a subscription",
        answer_outpoint::status,
    )
    .since(V1_7),
    synced(
        "blockchain.outpoint.unsubscribe",
        &[needs("tx_hash"), needs("txout_idx")],
        flat(0.1),
        UNSUBSCRIBED_IS,
        answer_outpoint::unsubscribe,
    )
    .since(V1_7),
    synced(
        "blockchain.transaction.get",
        &[needs("tx_hash"), takes("height", "null")],
        flat(1.0),
        "the transaction in hex; *height* is not looked at",
        answer_transaction::get_hex,
    )
    .until(V1_0),
    synced(
        "blockchain.transaction.get",
        &[needs("tx_hash")],
        flat(1.0),
        "the transaction in hex",
        answer_transaction::get_hex,
    )
    .since(V1_1)
    .until(V1_1),
    synced(
        "blockchain.transaction.get",
        &[needs("tx_hash"), takes("verbose", "false")],
        flat(1.0),
        "the transaction in hex; with *verbose* as an object, in Bitcoin Core's words",
        answer_transaction::get,
    )
    .since(V1_2),
    synced(
        "blockchain.transaction.get_merkle",
        &[needs("tx_hash"), needs("height")],
        flat(0.5),
        "`{block_height, merkle, pos}`",
        answer_transaction::merkle,
    ),
    synced(
        "blockchain.transaction.id_from_pos",
        &[needs("height"), needs("tx_pos"), takes("merkle", "false")],
        flat(0.5),
        "the txid; with *merkle* `{tx_hash, merkle}`",
        answer_transaction::id_from_pos,
    )
    .since(V1_4),
    synced(
        "blockchain.transaction.broadcast",
        &[needs("raw_tx")],
        cost(0.25, 0.0004, "byte"),
        "the txid, once a peer has it; an error is a result too",
        answer_legacy::broadcast,
    )
    .until(V1_0),
    synced(
        "blockchain.transaction.broadcast",
        &[needs("raw_tx")],
        cost(0.25, 0.0004, "byte"),
        "the txid, once a peer has it",
        answer_transaction::broadcast,
    )
    .since(V1_1),
    synced(
        "blockchain.transaction.broadcast_package",
        &[needs("raw_txs"), takes("verbose", "false")],
        cost(0.25, 0.0004, "byte"),
        "`{success, errors}`; with *verbose* what Bitcoin Core's `submitpackage` answers",
        answer_transaction::broadcast_package,
    )
    .since(V1_6),
    synced(
        "blockchain.transaction.testmempoolaccept",
        &[needs("raw_txs")],
        cost(0.25, 0.0004, "byte"),
        "of each `{txid, wtxid, allowed, reason}`; what this server's own mempool would do",
        answer_transaction::test_accept,
    )
    .since(V1_7),
    method("blockchain.estimatefee", &[needs("number")], flat(0.1), ESTIMATE_IS, answer_fees::estimate)
        .until(V1_4_3),
    method(
        "blockchain.estimatefee",
        &[needs("number"), takes("mode", "null")],
        flat(0.1),
        ESTIMATE_IS,
        answer_fees::estimate_with_mode,
    )
    .since(V1_6),
    method(
        "blockchain.relayfee",
        &[],
        flat(1.0),
        "lowest relayed feerate in BTC/kvB; also from 1.6 on, where wallets still ask",
        answer_fees::relay_fee,
    ),
    method(
        "mempool.get_fee_histogram",
        &[],
        flat(1.0),
        "`[sat/vB, vsize]` of each bin, descending; chunks as blocks take them",
        answer_fees::histogram,
    )
    .since(V1_2),
    method(
        "mempool.get_info",
        &[],
        flat(1.0),
        "`{mempoolminfee, minrelaytxfee, incrementalrelayfee}` in BTC/kvB",
        answer_fees::mempool_info,
    )
    .since(V1_6),
    method("mempool.recent", &[], flat(1.0), "`{txid, fee, vsize}` of the ten newest", answer_fees::recent)
        .since(V1_7),
];
