"""Where electrs answers otherwise than peerdex, and why. Of several rows that fit the first counts."""

from difference import Row
from of_electrumx import COMMON_FEATURES, is_word_about_a_line, long_script


def theirs_is(case, code, message):
    return case.their == ("error", code, message)


def takes_what_electrs_does_not(case):
    """We answer, and electrs says that the arguments are bad."""
    return case.our[0] == "result" and theirs_is(case, -32602, "invalid params")


def has_checkpoint(case):
    checkpoints = {"blockchain.block.header": 2, "blockchain.block.headers": 3}
    return (
        case.version == "1.4"
        and len(case.params) == checkpoints.get(case.method)
        or "cp_height" in (case.params or [])
    )


def same_coins(case):
    if not case.asks("blockchain.scripthash.listunspent") or not case.our[0] == case.their[0] == "result":
        return False
    our, their = (
        sorted(side[1], key=lambda coin: (coin["tx_hash"], coin["tx_pos"])) for side in (case.our, case.their)
    )
    return our == their


def only_in_active_chain(case):
    if not case.asks("blockchain.transaction.get") or not case.our[0] == case.their[0] == "result":
        return False
    return {**case.our[1], "in_active_chain": True} == case.their[1]


def features(case):
    return case.asks("server.features") and all(
        case.our[1].get(key) == case.their[1].get(key) for key in COMMON_FEATURES if key != "protocol_max"
    )


# What follows the name in `server.version` when no version is named.
NO_VERSION = [[], [None], ["1.4", 1, 2]]


def version_said(case):
    """The arguments after the name."""
    params = case.line()["params"]
    return params[1:] if isinstance(params, list) else [params["protocol_version"], 1, 2]


def without_jsonrpc(message):
    return {key: value for key, value in message.items() if key != "jsonrpc"}


ROWS = [
    Row(
        "electrs",
        "what no method of 1.4 is",
        "-32601, with its name",
        "-32601",
        "no wallet reads these words",
        lambda case: case.errors(-32601),
    ),
    Row(
        "electrs",
        "arguments of a wrong kind, or too few",
        "-32602, or error 1 with the value",
        "-32602 `invalid params`",
        "ElectrumX's codes and words: wallets match some of them",
        lambda case: case.our[:2] in [("error", 1), ("error", -32602)]
        and theirs_is(case, -32602, "invalid params"),
    ),
    Row(
        "electrs",
        "more arguments than a method takes",
        "-32602",
        "not looked at",
        "a newer version's argument is not silently ignored",
        lambda case: case.version == "1.4" and case.we_refuse(-32602),
    ),
    Row(
        "electrs",
        "*cp_height*",
        "the proof",
        "-32602 `invalid params`",
        "the protocol has it since 1.4",
        lambda case: takes_what_electrs_does_not(case) and has_checkpoint(case),
    ),
    Row(
        "electrs",
        "arguments by name, numbers as text, 0 and 1 as booleans",
        "taken",
        "-32602 `invalid params`",
        "ElectrumX takes them",
        lambda case: takes_what_electrs_does_not(case)
        and (isinstance(case.params, dict) or any(value in ("0", "1", "2", 0, 1) for value in case.params)),
    ),
    Row(
        "electrs",
        "`get_mempool`",
        "served",
        "-32601",
        "the protocol has it",
        lambda case: case.asks("blockchain.scripthash.get_mempool") and case.their[:2] == ("error", -32601),
    ),
    Row(
        "electrs",
        "`unsubscribe` in 1.4",
        "-32601",
        "served",
        "it came with 1.4.2",
        lambda case: case.asks("blockchain.scripthash.unsubscribe") and case.our[:2] == ("error", -32601),
    ),
    Row(
        "electrs",
        "`broadcast_package` in 1.4",
        "-32601",
        "served",
        "it came with 1.6",
        lambda case: case.asks("blockchain.transaction.broadcast_package")
        and case.our[:2] == ("error", -32601),
    ),
    Row(
        "electrs",
        "the order of `listunspent`",
        "that of the chain",
        "that of a hash table",
        "the same question has the same answer",
        same_coins,
    ),
    Row(
        "electrs",
        "coins of scripts over 10,000 bytes",
        "none",
        "listed and counted",
        "nobody can ever spend them",
        long_script,
    ),
    Row(
        "electrs",
        "`transaction.get` with *verbose*",
        "as Core answers when it is asked for a txid alone",
        "with `in_active_chain` too",
        "electrs names the block when it asks; it is always `true`",
        only_in_active_chain,
    ),
    Row(
        "electrs",
        "`server.donation_address`",
        '`""`',
        "`null`",
        "Electrum takes only text",
        lambda case: case.asks("server.donation_address"),
    ),
    Row(
        "electrs",
        "`server.version` again",
        "error 1",
        "answered",
        "as ElectrumX: a version does not change under answers",
        lambda case: case.asks("server.version") and case.our[:2] == ("error", 1),
    ),
    Row(
        "electrs",
        "`server.banner`",
        "of peerdex",
        "of electrs",
        "each speaks for itself",
        lambda case: case.asks("server.banner") and case.our[0] == case.their[0] == "result",
    ),
    Row(
        "electrs",
        "`server.features`",
        "every version; where it is reached from outside",
        "1.4; where it listens",
        "each says what it is",
        features,
    ),
    Row(
        "electrs",
        "a height above the tip, a wrong place of a transaction",
        "error 1 in ElectrumX's words",
        "error 1 in its own",
        'wallets take any error for "not there"',
        lambda case: case.errors(1)
        and case.their[2].startswith(("no header at", "missing block at", "missing txid", "invalid tx_pos")),
    ),
    Row(
        "electrs",
        "`transaction.get` of an unknown transaction",
        "error 2, the beginning of Core's words",
        "error 2, all of them",
        "the rest names a method of Core's wallet",
        lambda case: case.errors(2)
        and case.asks("blockchain.transaction.get")
        and case.their[2].startswith(case.our[2]),
    ),
    Row(
        "electrs",
        "`transaction.get` of the genesis coinbase",
        "error 2, as Core says it",
        "its bytes; with *verbose* error 2",
        "it never was a coin",
        lambda case: case.asks("blockchain.transaction.get")
        and case.our[:2] == ("error", 2)
        and "genesis block coinbase" in case.our[2]
        and case.their[0] == "result",
    ),
    Row(
        "electrs",
        "`broadcast` of what cannot be sent",
        "error 1 in ElectrumX's frame",
        "error 1 in its own words, or error 2 with Core's alone",
        "Electrum finds Core's reason in both, and we have no node whose error it is",
        lambda case: case.asks("blockchain.transaction.broadcast")
        and case.our[:2] == ("error", 1)
        and case.their[:2] in [("error", 1), ("error", 2)],
    ),
    Row(
        "electrs",
        "`estimatefee` for no or for more than 1,008 blocks",
        "`-1`",
        "error 2",
        "as ElectrumX",
        lambda case: case.asks("blockchain.estimatefee")
        and case.our[1] == -1
        and case.their[:2] == ("error", 2),
    ),
    Row(
        "electrs",
        "versions other than 1.4",
        "spoken, or error 1 and the connection closes",
        "error 1, or 1.4 where the range has it",
        "a wallet that goes on would be answered in a version that it does not speak",
        lambda case: case.version == "line"
        and "server.version" in case.method
        and version_said(case) not in NO_VERSION,
    ),
    Row(
        "electrs",
        "`server.version` without a version, or with more arguments",
        "1.4; more is not looked at",
        "-32602",
        "the protocol asks for both",
        lambda case: case.version == "line" and "server.version" in case.method,
    ),
    Row(
        "electrs",
        "an empty batch",
        "-32600",
        "an empty list",
        "JSON-RPC 2.0",
        lambda case: case.version == "line" and case.method == "[]",
    ),
    Row(
        "electrs",
        "bytes that are not UTF-8",
        "-32700",
        "the connection closes",
        "whoever asked learns why",
        lambda case: case.version == "line" and case.their == ("closed", []),
    ),
    Row(
        "electrs",
        "notifications from a wallet",
        "ignored",
        "-32600",
        "JSON-RPC 2.0: they are never answered",
        lambda case: case.version == "line" and '"id"' not in case.method and case.our[1] == [],
    ),
    Row(
        "electrs",
        "a batch with something that is no request",
        "-32600 in its place",
        "-32600 for all",
        "JSON-RPC 2.0",
        lambda case: case.version == "line" and case.method.startswith("[7,"),
    ),
    Row(
        "electrs",
        "`params` that is a number, an `id` that is a list",
        "-32602, -32600",
        "answered",
        "JSON-RPC 2.0",
        lambda case: case.version == "line" and ('"params":7' in case.method or '"id":[]' in case.method),
    ),
    Row(
        "electrs",
        "requests whose `jsonrpc` is missing or 1.0",
        "answered without that member",
        "answered with 2.0",
        "a wallet that speaks 1.0 gets 1.0",
        lambda case: case.version == "line"
        and '"jsonrpc":"2.0"' not in case.method
        and [without_jsonrpc(message) for message in case.our[1]]
        == [without_jsonrpc(message) for message in case.their[1]],
    ),
    Row(
        "electrs",
        "what is no request",
        "the error's code, in our words",
        "the same code, in other words",
        "no wallet reads these words",
        is_word_about_a_line,
    ),
]
