"""What every server is asked, in each version of the protocol that it speaks.

A question is a method and its parameters. Most are asked in every version, so that a method which a version does
not know is asked for, too.
"""

from chain import SCRIPTS, script_hash

VERSIONS = ["1.4", "1.4.1", "1.4.2", "1.4.3", "1.6", "1.7"]


def questions(chain):
    return [
        *of_server(),
        *of_headers(chain),
        *of_scripts(),
        *of_transactions(chain),
        *of_outpoints(chain),
        *of_fees(),
    ]


def of_server():
    yield from [
        ("server.banner", []),
        ("server.donation_address", []),
        ("server.features", []),
        ("server.peers.subscribe", []),
        ("server.ping", []),
        ("server.ping", [3]),
        ("server.ping", [3, "00"]),
        ("server.ping", {"pong_len": 5, "data": "0"}),
        ("server.ping", ["x"]),
        ("server.ping", [-1]),
        ("server.ping", [1, "xyz"]),
        ("server.banner", [1]),
        ("server.version", ["compare", "1.4"]),
        ("no.such.method", []),
        ("blockchain.numblocks.subscribe", []),
        ("blockchain.block.get_header", [1]),
        ("blockchain.block.get_chunk", [0]),
        ("blockchain.address.get_balance", ["mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r"]),
        ("blockchain.utxo.get_address", ["00" * 32, 0]),
    ]


def of_headers(chain):
    height = chain.node("getblockcount")
    yield ("blockchain.headers.subscribe", [])
    yield ("blockchain.headers.subscribe", [True])
    for at in [0, 1, height, height + 1, -1, 2**31, 2**32, 2**64, "1", "x", 1.5, True, None, []]:
        yield ("blockchain.block.header", [at])
    for at, checkpoint in [
        (0, 1),
        (5, 8),
        (height, height),
        (8, 5),
        (1, height + 1),
        (1, -1),
        (1, "x"),
        (0, 0),
    ]:
        yield ("blockchain.block.header", [at, checkpoint])
    yield ("blockchain.block.header", {"height": 3})
    yield ("blockchain.block.header", {"height": 3, "cp_height": 7})
    yield ("blockchain.block.header", {"heigth": 3})
    yield ("blockchain.block.header", [])
    yield ("blockchain.block.header", [1, 2, 3])
    for start, count in [
        (0, 0),
        (0, 1),
        (0, 3),
        (height - 1, 10),
        (height, 1),
        (height + 1, 1),
        (-1, 1),
        (0, -1),
        (0, "2"),
    ]:
        yield ("blockchain.block.headers", [start, count])
    for start, count, checkpoint in [
        (0, 3, 8),
        (0, 0, 8),
        (5, 3, 6),
        (5, 2, 6),
        (0, 2016, height),
        (height + 5, 1, height),
    ]:
        yield ("blockchain.block.headers", [start, count, checkpoint])
    yield ("blockchain.block.headers", [0])


def of_scripts():
    bad = ["", "00", "zz" * 32, "00" * 33, 7, None, [], True]
    for family, asked, wrong in [
        ("scripthash", {name: script_hash(script) for name, script in SCRIPTS.items()}, bad),
        (
            "scriptpubkey",
            {name: script.hex() for name, script in SCRIPTS.items()},
            ["0", "zz", 7, None, [], True, " 51"],
        ),
    ]:
        for method in ["get_balance", "get_history", "get_mempool", "listunspent", "subscribe"]:
            name = f"blockchain.{family}.{method}"
            for value in asked.values():
                yield (name, [value])
            for value in wrong:
                yield (name, [value])
            yield (name, [])
            yield (name, [asked["alice"], 1])
        yield (f"blockchain.{family}.get_balance", {family: asked["shop"]})
        for value in [asked["alice"], asked["alice"], asked["nobody"], *wrong]:
            yield (f"blockchain.{family}.unsubscribe", [value])
    # In capitals it is the same hash.
    yield ("blockchain.scripthash.get_balance", [script_hash(SCRIPTS["alice"]).upper()])


def of_transactions(chain):
    height = chain.node("getblockcount")
    genesis = chain.node("getblock", chain.node("getblockhash", 0))["tx"][0]
    unknown = "00" * 32
    wrong = ["", "00", "zz" * 32, unknown + "00", 7, None, []]
    for txid in [*chain.txids[-120:], genesis, unknown, *wrong]:
        yield ("blockchain.transaction.get", [txid])
        yield ("blockchain.transaction.get", [txid, True])
    paid = chain.to_alice.txid
    for verbose in [False, 0, 1, 2, "true", None, []]:
        yield ("blockchain.transaction.get", [paid, verbose])
    yield ("blockchain.transaction.get", {"tx_hash": paid})
    yield ("blockchain.transaction.get", {"tx_hash": paid, "verbose": True})
    yield ("blockchain.transaction.get", {"txid": paid})
    yield ("blockchain.transaction.get", [])
    yield ("blockchain.transaction.get", [paid, True, True])

    for at in range(height - 20, height + 1):
        for pos, txid in enumerate(chain.node("getblock", chain.node("getblockhash", at))["tx"]):
            yield ("blockchain.transaction.get_merkle", [txid, at])
            yield ("blockchain.transaction.id_from_pos", [at, pos])
            yield ("blockchain.transaction.id_from_pos", [at, pos, True])
    yield ("blockchain.transaction.get_merkle", [genesis, 0])
    for at in [0, height, height + 1, -1, 2**32, "x", None]:
        yield ("blockchain.transaction.get_merkle", [paid, at])
    for txid in [unknown, *wrong]:
        yield ("blockchain.transaction.get_merkle", [txid, height])
    yield ("blockchain.transaction.get_merkle", [paid])
    for at, pos in [
        (0, 0),
        (height, 99),
        (height + 1, 0),
        (-1, 0),
        (0, -1),
        (2**32, 0),
        (1, 2**32),
        ("1", "0"),
        ("x", 0),
        (1, "x"),
    ]:
        yield ("blockchain.transaction.id_from_pos", [at, pos])
        yield ("blockchain.transaction.id_from_pos", [at, pos, True])
    for merkle in [0, 1, "x", None, 2]:
        yield ("blockchain.transaction.id_from_pos", [1, 0, merkle])

    # Nothing of this can be sent, so no server has a mempool.
    spent = chain.from_alice.hex
    damaged = spent[:-8] + "ffffffff"
    for raw in ["", "00", "zz", spent[:-2], spent + "00", spent, damaged, 7, None]:
        yield ("blockchain.transaction.broadcast", [raw])
        yield ("blockchain.transaction.testmempoolaccept", [[raw]])
        yield ("blockchain.transaction.broadcast_package", [[raw]])
    for package in [[], "00", None, [spent, spent]]:
        yield ("blockchain.transaction.broadcast_package", [package])
        yield ("blockchain.transaction.testmempoolaccept", [package])


def of_outpoints(chain):
    asked = [
        (coin.txid, coin.index, coin.script.hex()) for coin in [*chain.to_alice.coins, *chain.all_kinds.coins]
    ]
    asked += [(chain.to_alice.txid, 99, "51"), ("00" * 32, 0, "51"), (chain.txids[0], 0, "51")]
    for outpoint in asked:
        yield ("blockchain.outpoint.get_status", list(outpoint))
        yield ("blockchain.outpoint.subscribe", list(outpoint))
    first = list(asked[0])
    for wrong in [
        ["00", 0, "51"],
        [7, 0, "51"],
        [first[0], -1, "51"],
        [first[0], "x", "51"],
        [first[0], 2**32, "51"],
        [first[0], 0, "zz"],
        [first[0], 0, "5"],
        [first[0], 0],
        [first[0]],
        [],
        [*first, 1],
    ]:
        yield ("blockchain.outpoint.get_status", wrong)
        yield ("blockchain.outpoint.subscribe", wrong)
    for outpoint in [first[:2], first[:2], ["00" * 32, 7], [first[0], -1], ["00", 0], first]:
        yield ("blockchain.outpoint.unsubscribe", outpoint)


def of_fees():
    for number in [1, 2, 6, 25, 144, 1008, 1009, 0, -1, "2", "x", 1.5, None]:
        yield ("blockchain.estimatefee", [number])
    for mode in ["CONSERVATIVE", "ECONOMICAL", "economical", "x", None, 1]:
        yield ("blockchain.estimatefee", [2, mode])
    yield ("blockchain.estimatefee", [])
    yield ("blockchain.relayfee", [])
    yield ("mempool.get_fee_histogram", [])
    yield ("mempool.get_info", [])
    yield ("mempool.recent", [])
    yield ("mempool.recent", [1])


# Lines on a connection of their own: what comes back, and whether it is still open.
LINES = [
    b"",
    b"{",
    b"7",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"method":7}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.banner","params":7}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.ping","params":null}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.ping"}',
    b'{"jsonrpc":"1.0","id":1,"method":"server.ping","params":[]}',
    b'{"id":1,"method":"server.ping","params":[]}',
    b'{"jsonrpc":"3.0","id":1,"method":"server.ping","params":[]}',
    b'{"jsonrpc":"2.0","id":"a","method":"server.ping","params":[]}',
    b'{"jsonrpc":"2.0","id":null,"method":"server.ping","params":[]}',
    b'{"jsonrpc":"2.0","id":1.5,"method":"server.ping","params":[]}',
    b'{"jsonrpc":"2.0","id":[],"method":"server.ping","params":[]}',
    b'{"jsonrpc":"2.0","method":"server.ping","params":[]}',
    b'{"jsonrpc":"2.0","method":"no.such.method","params":[]}',
    b'[{"jsonrpc":"2.0","id":1,"method":"server.ping"},{"jsonrpc":"2.0","id":2,"method":"no.such.method"}]',
    b'[{"jsonrpc":"2.0","method":"server.ping"}]',
    b'[7,{"jsonrpc":"2.0","id":2,"method":"server.ping"}]',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x","1.6"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",["1.4","1.6"]]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",["1.4","1.7"]]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",["1.4","9.9"]]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",["1.4.2","1.4.2"]]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x","1.5"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x","9.9"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",["1.8","1.9"]]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x","nonsense"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",7]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x",null]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":[]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":["x","1.4",1,2]}',
    b'{"jsonrpc":"2.0","id":1,"method":"server.version","params":{"client_name":"x","protocol_version":"1.4","more":1}}',
]
