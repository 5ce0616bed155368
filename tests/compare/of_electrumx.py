"""Where ElectrumX 2 answers otherwise than peerdex, and why. Of several rows that fit the first counts."""

import json
import re

from difference import Row

V1_6 = ("1.6", "1.7")


def plain(text):
    """Words about values, however they are shown: Python's `None` and `True`, 1,000 with a comma, single quotes."""
    text = text.lower().replace("none", "null").replace("'", '"').replace(" ", "")
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)


def only_values_are_shown_otherwise(case):
    return case.errors(1) and plain(case.our[2]) == plain(case.their[2])


def is_daemon_error(case):
    if not case.errors(2) or "DaemonError(" not in case.their[2]:
        return False
    words = re.search(r"'message': '(.*)'\}\)$", case.their[2])
    return words is not None and words.group(1).startswith(case.our[2])


def is_no_whole_number(case):
    return (
        case.params and any(isinstance(value, (float, bool)) for value in case.params) and case.we_refuse(1)
    )


def line_error_codes(case):
    """The codes of what is answered to a line, or nothing where one of the two answers no single error."""
    if case.version != "line" or case.our[0] != case.their[0]:
        return None
    codes = []
    for outcome in (case.our, case.their):
        if len(outcome[1]) != 1:
            return None
        messages = outcome[1][0] if isinstance(outcome[1][0], list) else outcome[1]
        codes.append([message["error"]["code"] if message.get("error") else None for message in messages])
    return codes


def is_word_about_a_line(case):
    codes = line_error_codes(case)
    return codes is not None and codes[0] == codes[1] and any(codes[0])


def says_version(*wanted):
    def test(case):
        return (
            case.version == "line" and "server.version" in case.method and case.line()["params"][1] in wanted
        )

    return test


def jsonrpc_is_not_2(case):
    return (
        case.version == "line"
        and case.method.startswith('{"')
        and '"jsonrpc":"2.0"' not in case.method
        and case.our[0] == "result"
    )


def long_script(case):
    """Asked for the coins of the one script that its length makes unspendable."""
    if case.their[0] != "result" or case.our[0] != "result":
        return False
    if case.name == "get_balance":
        return case.our[1]["confirmed"] == 0 and case.their[1]["confirmed"] == LONG_VALUE
    if case.name != "listunspent":
        return False
    coins = case.their[1]["utxos"] if isinstance(case.their[1], dict) else case.their[1]
    return [coin["value"] for coin in coins] == [LONG_VALUE]


# What `chain.py` pays to it.
LONG_VALUE = 10_020

COMMON_FEATURES = ("genesis_hash", "protocol_max", "pruning", "hash_function")


def features_differ_in_what_they_must(case):
    if not case.asks("server.features") or case.our[0] != "result":
        return False
    our, their = case.our[1], case.their[1]
    return all(our.get(key) == their.get(key) for key in COMMON_FEATURES if key != "protocol_max")


ROWS = [
    Row(
        "ElectrumX",
        "wrong numbers or names of arguments",
        "-32602, the argument by its name",
        "-32602, in other words",
        "no wallet reads these words",
        lambda case: case.errors(-32602),
    ),
    Row(
        "ElectrumX",
        "errors that repeat a value",
        "as it was sent: `null`, `4294967296`",
        "as Python shows it: `None`, `4,294,967,296`",
        "what was sent can be searched for",
        only_values_are_shown_otherwise,
    ),
    Row(
        "ElectrumX",
        "*verbose* or *merkle* that is no boolean",
        "error 1 with the value",
        "error 1 with the argument's name",
        "as all other arguments",
        lambda case: case.errors(1) and case.their[2].endswith("must be a boolean"),
    ),
    Row(
        "ElectrumX",
        "`transaction.get` of what there is not",
        "error 2 with Core's words alone",
        "error 2 with Python's text of the node's error around them",
        "Sparrow matches the beginning",
        is_daemon_error,
    ),
    Row(
        "ElectrumX",
        "numbers with a fraction, booleans as numbers",
        "error 1",
        "rounded, or taken for 0 and 1",
        "a wallet that sends them has a fault, and would take the answer for another's",
        is_no_whole_number,
    ),
    Row(
        "ElectrumX",
        "a height past 2^64",
        "error 1, should be a non-negative integer",
        "error 1, out of range",
        "no such number is read at all",
        lambda case: case.errors(1) and case.params and case.params[0] == 2**64,
    ),
    Row(
        "ElectrumX",
        "the genesis block's transaction in `get_merkle` and `id_from_pos`",
        "its place and proof",
        "error 1",
        "it is in the block, and its proof leads to the root; ElectrumX does not index it",
        lambda case: case.asks("blockchain.transaction.get_merkle", "blockchain.transaction.id_from_pos")
        and case.our[0] == "result"
        and case.their[:2] == ("error", 1)
        and 0 in (case.params[0], case.params[1]),
    ),
    Row(
        "ElectrumX",
        "heights above the tip in `get_merkle` and `id_from_pos`",
        "error 1, as for a wrong place below it",
        "error 1, in words of the height or of its database",
        'wallets take any error for "not there"',
        lambda case: case.asks("blockchain.transaction.get_merkle", "blockchain.transaction.id_from_pos")
        and case.errors(1)
        and ("out of range" in case.their[2] or "not on disk" in case.their[2]),
    ),
    Row(
        "ElectrumX",
        "coins of scripts over 10,000 bytes",
        "none",
        "listed and counted",
        "nobody can ever spend them, and Core keeps no such coins; the history is the same",
        long_script,
    ),
    Row(
        "ElectrumX",
        "`server.ping` with arguments before 1.7",
        "-32602",
        "`null`",
        "arguments came with 1.7",
        lambda case: case.asks("server.ping") and case.version != "1.7" and case.we_refuse(-32602),
    ),
    Row(
        "ElectrumX",
        "`estimatefee` with *mode* before 1.6",
        "-32602",
        "as from 1.6 on",
        "the argument came with 1.6",
        lambda case: case.asks("blockchain.estimatefee")
        and case.version not in V1_6
        and len(case.params) == 2
        and case.our[:2] == ("error", -32602),
    ),
    Row(
        "ElectrumX",
        "`estimatefee` with a *mode* that is no text",
        "error 1, unknown mode",
        "as if there were none",
        "it is not known what was meant",
        lambda case: case.asks("blockchain.estimatefee")
        and len(case.params) == 2
        and case.params[1] == 1
        and case.we_refuse(1),
    ),
    Row(
        "ElectrumX",
        "`relayfee` from 1.6 on",
        "answered",
        "-32601",
        "BDK asks for it in every version",
        lambda case: case.asks("blockchain.relayfee")
        and case.version in V1_6
        and case.their[:2] == ("error", -32601),
    ),
    Row(
        "ElectrumX",
        "`scriptpubkey.*` by the name *scriptpubkey*",
        "taken, and *spk* too",
        "only *spk*",
        "the documentation names it so",
        lambda case: case.method.startswith("blockchain.scriptpubkey.")
        and "scriptpubkey" in case.params
        and case.our[0] == "result"
        and case.their[:2] == ("error", -32602),
    ),
    Row(
        "ElectrumX",
        "`outpoint.*` without *spk_hint*",
        "answered",
        "-32602",
        "we do not need the hint",
        lambda case: case.method.startswith("blockchain.outpoint.")
        and len(case.params) == 2
        and case.our[0] == "result"
        and case.their[:2] == ("error", -32602),
    ),
    Row(
        "ElectrumX",
        "`server.banner`",
        "of peerdex",
        "of ElectrumX",
        "each speaks for itself",
        lambda case: case.asks("server.banner") and case.our[0] == case.their[0] == "result",
    ),
    Row(
        "ElectrumX",
        "`server.features`",
        "`protocol_min` 1.0; `protocol_max` 1.6 where 1.7 was not asked for",
        "1.4; always 1.7.0; also `services`",
        "old wallets are served; wallets made before 1.7 may not know it",
        features_differ_in_what_they_must,
    ),
    Row(
        "ElectrumX",
        "a header's proof, asked soon after the start while others are under way",
        "the proof, which the comparison checks by itself",
        "sometimes another, or -32603",
        "a race in ElectrumX's cache",
        lambda case: case.asks("blockchain.block.header", "blockchain.block.headers")
        and case.our[0] == "result"
        and "root" in case.our[1]
        and (case.their[:2] == ("error", -32603) or "root" in case.their[1]),
        always=False,
    ),
    Row(
        "ElectrumX",
        "padding by `server.ping` in 1.7",
        "sent by chance",
        "sent by chance",
        "it is noise",
        lambda case: "notified of ping" in case.method,
        always=False,
    ),
    Row(
        "ElectrumX",
        "requests whose `jsonrpc` is missing, 1.0 or anything",
        "answered",
        "-32600",
        "Phoenix sends 1.0",
        jsonrpc_is_not_2,
    ),
    Row(
        "ElectrumX",
        "an `id` that is `null`",
        "answered",
        "taken for a notification",
        "the request has an id, if a bad one",
        lambda case: case.version == "line"
        and '"id":null' in case.method
        and case.our[1] != []
        and case.their[1] == [],
    ),
    Row(
        "ElectrumX",
        "`params` that is `null`",
        "as if there were none",
        "-32602",
        "some libraries send it",
        lambda case: case.version == "line" and '"params":null' in case.method and "result" in case.our[1][0],
    ),
    Row(
        "ElectrumX",
        "objects without a method",
        "-32600",
        "nothing, or -32601",
        "whoever asked learns why nothing comes",
        lambda case: case.version == "line"
        and case.our[0] == "result"
        and "method must be a string" in json.dumps(case.our[1]),
    ),
    Row(
        "ElectrumX",
        "what is no request",
        "the error's code, in our words",
        "the same code, in other words",
        "no wallet reads these words",
        is_word_about_a_line,
    ),
    Row(
        "ElectrumX",
        "version 1.5",
        "error 1, and the connection closes",
        "spoken",
        "there is no such version",
        says_version("1.5"),
    ),
    Row(
        "ElectrumX",
        "a range that ends above 1.7",
        "`1.7`",
        "`1.7.0`",
        "wallets compare texts with what they know",
        says_version(["1.4", "9.9"]),
    ),
]
