"""A regtest chain of wallets' habits and oddities, made without a wallet.

Coins are locked by scripts that need no signature (`OP_TRUE`, also as P2SH and P2WSH, and with a number before it
so that there are many), so histories with spends can be made from serialized bytes alone. Blocks are mined by
`generateblock`, which asks for consensus and not for policy.
"""

import hashlib
import struct

COIN = 100_000_000
OP_TRUE = bytes([0x51])


def sha256(data):
    return hashlib.sha256(data).digest()


def sha256d(data):
    return sha256(sha256(data))


def hash160(data):
    return hashlib.new("ripemd160", sha256(data)).digest()


def script_hash(script):
    return sha256(script)[::-1].hex()


def numbered(number):
    """A script of its own for each number, which anyone can spend."""
    return bytes([2]) + struct.pack("<H", number) + bytes([0x75, 0x51])


def p2wsh(script):
    return bytes([0, 32]) + sha256(script)


def p2sh(script):
    return bytes([0xA9, 20]) + hash160(script) + bytes([0x87])


# Named scripts: whoever asks for their histories meets every kind of entry. Key hashes and keys are made up.
KEY = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
SCRIPTS = {
    "true": OP_TRUE,
    "alice": numbered(1),
    "bob": numbered(2),
    "carol": numbered(3),
    "shop": numbered(4),
    "same block": numbered(5),
    "to itself": numbered(6),
    "p2wsh": p2wsh(OP_TRUE),
    "p2sh": p2sh(OP_TRUE),
    "p2sh-p2wsh": p2sh(p2wsh(OP_TRUE)),
    "p2pkh": bytes([0x76, 0xA9, 20]) + hash160(KEY) + bytes([0x88, 0xAC]),
    "p2wpkh": bytes([0, 20]) + hash160(KEY),
    "p2tr": bytes([0x51, 32]) + KEY[1:],
    "p2pk": bytes([33]) + KEY + bytes([0xAC]),
    "multisig": bytes([0x51, 33]) + KEY + bytes([0x51, 0xAE]),
    "anchor": bytes.fromhex("51024e73"),
    "empty": b"",
    "op_return": bytes([0x6A, 4]) + b"data",
    "op_return alone": bytes([0x6A]),
    "future": bytes([0x60, 2, 7, 7]),
    "too long": bytes([0x61]) * 10_001,
    "nobody": numbered(9_999),
}


def compact(number):
    if number < 0xFD:
        return bytes([number])
    return bytes([0xFD]) + struct.pack("<H", number)


class Coin:
    def __init__(self, txid, index, value, script):
        self.txid, self.index, self.value, self.script = txid, index, value, script

    def unlock(self):
        """What goes into the input: its script, and its witness."""
        if self.script == SCRIPTS["p2wsh"]:
            return b"", [OP_TRUE]
        if self.script == SCRIPTS["p2sh"]:
            return bytes([1]) + OP_TRUE, []
        if self.script == SCRIPTS["p2sh-p2wsh"]:
            return bytes([34]) + p2wsh(OP_TRUE), [OP_TRUE]
        if self.script == SCRIPTS["empty"]:
            return OP_TRUE, []
        return b"", []


class Tx:
    """A transaction of version 2 and its bytes."""

    def __init__(self, coins, payments):
        unlocked = [coin.unlock() for coin in coins]
        inputs = compact(len(coins)) + b"".join(
            bytes.fromhex(coin.txid)[::-1]
            + struct.pack("<I", coin.index)
            + compact(len(script))
            + script
            + b"\xff" * 4
            for coin, (script, _) in zip(coins, unlocked)
        )
        outputs = compact(len(payments)) + b"".join(
            struct.pack("<q", value) + compact(len(script)) + script for script, value in payments
        )
        version, lock_time = struct.pack("<i", 2), bytes(4)
        stripped = version + inputs + outputs + lock_time
        self.txid = sha256d(stripped)[::-1].hex()
        witnesses = b"".join(
            compact(len(stack)) + b"".join(compact(len(item)) + item for item in stack)
            for _, stack in unlocked
        )
        has_witness = any(stack for _, stack in unlocked)
        raw = version + b"\x00\x01" + inputs + outputs + witnesses + lock_time if has_witness else stripped
        self.hex = raw.hex()
        self.coins = [Coin(self.txid, index, value, script) for index, (script, value) in enumerate(payments)]


class Chain:
    """The node's chain, and what of it can be spent."""

    def __init__(self, node):
        self.node = node
        self.rewards = []
        self.descriptor = node("getdescriptorinfo", "raw(51)")["descriptor"]
        self.txids = []

    def mine(self, txs=()):
        answer = self.node("generateblock", self.descriptor, [tx.hex for tx in txs])
        block = self.node("getblock", answer["hash"], 2)
        reward = block["tx"][0]["vout"][0]
        self.rewards.append(Coin(block["tx"][0]["txid"], 0, int(reward["value"] * COIN), OP_TRUE))
        self.txids += [tx["txid"] for tx in block["tx"]]
        return answer["hash"]

    def reward(self):
        """A ripe reward."""
        return self.rewards.pop(0)

    def pay(self, *payments):
        """A transaction that pays from a reward; what is left is the miner's."""
        return Tx([self.reward()], [(SCRIPTS[name], value) for name, value in payments])

    def build(self):
        for _ in range(160):
            self.mine()
        # Every script once, in a block with a height of its own.
        everything = [(name, 10_000 + index) for index, name in enumerate(SCRIPTS) if name != "nobody"]
        all_kinds = self.pay(*everything)
        self.mine([all_kinds])
        # Reuse: one script paid in many blocks, and several times in one transaction.
        for value in range(1, 8):
            self.mine([self.pay(("shop", value * COIN))])
        to_alice = self.pay(("alice", COIN), ("alice", 2 * COIN), ("bob", 3 * COIN), ("alice", 0))
        self.mine([to_alice])
        # Some coins of one script are spent at once, one is left.
        from_alice = Tx(to_alice.coins[:2], [(SCRIPTS["carol"], COIN), (SCRIPTS["alice"], COIN)])
        self.mine([from_alice])
        # Paid and spent in one block, three in a row, the last back to the first.
        first = self.pay(("same block", 5 * COIN))
        second = Tx(first.coins, [(SCRIPTS["bob"], 4 * COIN), (SCRIPTS["same block"], COIN)])
        third = Tx(second.coins[1:], [(SCRIPTS["same block"], COIN // 2)])
        self.mine([first, second, third])
        # To itself, again and again.
        coin = self.pay(("to itself", 7 * COIN))
        self.mine([coin])
        for _ in range(3):
            coin = Tx(coin.coins, [(SCRIPTS["to itself"], coin.coins[0].value - 1_000)])
            self.mine([coin])
        # Spends with scripts and witnesses, an empty script, and what carries data.
        named = dict(zip((name for name, _ in everything), all_kinds.coins))
        odd = [named[name] for name in ("p2wsh", "p2sh", "p2sh-p2wsh", "empty", "anchor", "future")]
        self.mine([Tx(odd, [(SCRIPTS["bob"], 1), (SCRIPTS["op_return"], 0), (SCRIPTS["p2wsh"], 5_000)])])
        # Blocks of 2 to 8 transactions: every shape of a small merkle tree.
        for count in range(1, 8):
            self.mine([self.pay(("carol", COIN + index)) for index in range(count)])
        # A history of some length.
        self.mine([self.pay(*[("bob", 1_000 + index) for index in range(200)])])
        self.all_kinds, self.to_alice, self.from_alice = all_kinds, to_alice, from_alice
        self.node.wait_indexed()
