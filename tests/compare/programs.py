"""Starts the node and the servers, each in a folder of its own, and talks to them.

A program's output goes to a file beside its data. Everything listens on loopback.
"""

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from decimal import Decimal

# Longest wait for a program to start, to sync some hundred blocks, or to answer.
PATIENCE_SECS = 120


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, ask):
    """Asks until the answer is true."""
    deadline = time.monotonic() + PATIENCE_SECS
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_SECS} s for {what}")
        time.sleep(0.1)


class Program:
    """A child with a log; it is stopped at the end."""

    def __init__(self, name, folder, command, environment=None):
        self.name = name
        self.folder = folder
        self.log = os.path.join(folder, "log")
        output = open(self.log, "ab")
        environment = {**os.environ, **(environment or {})}
        self.child = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )

    def ensure_runs(self):
        if self.child.poll() is not None:
            with open(self.log, errors="replace") as log:
                raise SystemExit(f"{self.name} ended with {self.child.returncode}: {log.read()[-3000:]}")

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code, self.message = error["code"], error["message"]


class Node(Program):
    """Bitcoin Core on regtest, with the indexes that the other servers ask for."""

    def __init__(self, folder, program):
        self.p2p, self.rpc_port = free_port(), free_port()
        os.makedirs(folder)
        arguments = [
            "-regtest",
            f"-datadir={folder}",
            "-listen=1",
            f"-bind=127.0.0.1:{self.p2p}",
            "-connect=0",
            "-dnsseed=0",
            "-listenonion=0",
            "-server=1",
            f"-rpcport={self.rpc_port}",
            "-rpcuser=u",
            "-rpcpassword=p",
            "-rest=1",
            "-txindex=1",
            "-txospenderindex=1",
            "-printtoconsole=1",
            "-rpcthreads=8",
            "-rpcworkqueue=512",
        ]
        super().__init__("bitcoind", folder, [program, *arguments])
        wait_for("bitcoind to answer", self._answers)

    def _answers(self):
        self.ensure_runs()
        try:
            return self("getblockcount") is not None
        except (OSError, RpcError):
            return False

    def raw(self, method, *params):
        """The whole answer as the node writes it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=PATIENCE_SECS)
        authorization = "Basic " + base64.b64encode(b"u:p").decode()
        body = json.dumps({"id": 0, "method": method, "params": params})
        connection.request("POST", "/", body, {"Authorization": authorization})
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def __call__(self, method, *params):
        answer = json.loads(self.raw(method, *params), parse_float=Decimal)
        if answer["error"]:
            raise RpcError(answer["error"])
        return answer["result"]

    def wait_indexed(self):
        def is_indexed():
            height = self("getblockcount")
            return all(index["best_block_height"] == height for index in self("getindexinfo").values())

        wait_for("bitcoind's indexes", is_indexed)


class Server(Program):
    """An Electrum server."""

    def __init__(self, name, folder, port, command, environment=None):
        self.port = port
        super().__init__(name, folder, command, environment)

    def wait_synced(self, height, block_hash):
        """Waits for the tip: its header as served has this hash."""

        def is_synced():
            self.ensure_runs()
            try:
                session = Session(self, "1.4")
            except OSError:
                return False
            kind, answer, *_ = session.ask("blockchain.headers.subscribe", [])
            # Headers may come before blocks.
            balance, *_ = session.ask("blockchain.scripthash.get_balance", ["00" * 32])
            session.close()
            return (
                kind == "result"
                and answer["height"] == height
                and header_hash(answer["hex"]) == block_hash
                and balance == "result"
            )

        wait_for(f"{self.name} to reach block {height}", is_synced)


def header_hash(hex_header):
    from chain import sha256d

    return sha256d(bytes.fromhex(hex_header))[::-1].hex()


def electrumx(folder, programs, node):
    port = free_port()
    os.makedirs(folder)
    environment = {
        "COIN": "Bitcoin",
        "NET": "regtest",
        "DB_ENGINE": "leveldb",
        "DB_DIRECTORY": folder,
        "ALLOW_ROOT": "1",
        "DAEMON_URL": f"http://u:p@127.0.0.1:{node.rpc_port}",
        "SERVICES": f"tcp://127.0.0.1:{port}",
        "PEER_DISCOVERY": "off",
        "COST_SOFT_LIMIT": "0",
        "COST_HARD_LIMIT": "0",
        "DAEMON_POLL_INTERVAL_BLOCKS": "200",
        "DAEMON_POLL_INTERVAL_MEMPOOL": "200",
    }
    program = os.path.join(programs, "venv/bin/electrumx_server")
    return Server("ElectrumX", folder, port, [program], environment)


def electrs(folder, programs, node):
    port = free_port()
    os.makedirs(folder)
    with open(os.path.join(folder, "conf.toml"), "w") as conf:
        conf.write('auth = "u:p"\n')
    command = [
        os.path.join(programs, "electrs"),
        "--conf",
        os.path.join(folder, "conf.toml"),
        "--skip-default-conf-files",
        "--network",
        "regtest",
        "--db-dir",
        os.path.join(folder, "db"),
        "--electrum-rpc-addr",
        f"127.0.0.1:{port}",
        "--daemon-rpc-addr",
        f"127.0.0.1:{node.rpc_port}",
    ]
    return Server("electrs", folder, port, command)


def peerdex(folder, program, node):
    port = free_port()
    os.makedirs(folder)
    command = [
        program,
        "--network",
        "regtest",
        "--data-dir",
        os.path.join(folder, "data"),
        "--min-chain-work",
        "0",
        "--ignore-disk-space",
        "--connect",
        f"127.0.0.1:{node.p2p}",
        "--service",
        f"tcp://127.0.0.1:{port}",
        "--cost-soft-limit",
        "0",
        "--cost-hard-limit",
        "0",
    ]
    return Server("peerdex", folder, port, command)


class Session:
    """One connection of a wallet."""

    def __init__(self, server, version=None):
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.notifications = []
        self.next_id = 1
        if version:
            self.hello = self.ask("server.version", ["compare", version])

    def send(self, line):
        self.socket.sendall(line + b"\n")

    def read_line(self, secs):
        """The next line; `None` when none comes in time, and `b""` when the connection is closed."""
        deadline = time.monotonic() + secs
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                received = self.socket.recv(1 << 20)
            except TimeoutError:
                return None
            except ConnectionError:
                return b""
            if not received:
                return b""
            self.buffer += received
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def ask_all(self, questions):
        """Asks all at once; outcomes in the order of the questions.

        An outcome is (`result`, value, text) or (`error`, code, message) or (`closed`,).
        """
        first = self.next_id
        self.next_id += len(questions)
        lines = [
            json.dumps({"jsonrpc": "2.0", "id": first + index, "method": method, "params": params})
            for index, (method, params) in enumerate(questions)
        ]
        # Some at a time: a server may stop reading while it is not read.
        outcomes = {}
        for start in range(0, len(lines), 200):
            chunk = lines[start : start + 200]
            self.send("\n".join(chunk).encode())
            missing = len(chunk)
            while missing:
                line = self.read_line(PATIENCE_SECS)
                if not line:
                    return [outcomes.get(first + index, ("closed",)) for index in range(len(questions))]
                message = json.loads(line, parse_float=Decimal)
                if "method" in message:
                    self.notifications.append((message["method"], message["params"]))
                    continue
                outcomes[message["id"]] = outcome(message, line.decode())
                missing -= 1
        return [outcomes[first + index] for index in range(len(questions))]

    def ask(self, method, params):
        return self.ask_all([(method, params)])[0]

    def notified(self, quiet_secs):
        """What came unasked until nothing comes for so long."""
        while line := self.read_line(quiet_secs):
            message = json.loads(line, parse_float=Decimal)
            self.notifications.append((message["method"], message["params"]))
        notifications, self.notifications = self.notifications, []
        return notifications

    def close(self):
        self.socket.close()


def outcome(message, text):
    if message.get("error") is not None:
        return ("error", message["error"].get("code"), message["error"].get("message"))
    return ("result", message["result"], result_text(text))


def result_text(text):
    """The result as it was written, found without reading numbers."""
    match = re.search(r'"result"\s*:\s*', text)
    decoder = json.JSONDecoder()
    _, end = decoder.raw_decode(text, match.end())
    return text[match.end() : end]
