"""A real EVM in this process with one small contract, behind a JSON-RPC server on a local socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eth_tester import EthereumTester, PyEVMBackend

from cannery.node.outcall_fetch import Fetcher
from cannery.node.outcall_rules import OutcallRules
from cannery.node.outcalls import Outcall
from cannery.replica.outcall_records import OutcallRecord
from cannery.testing import HttpFailure, HttpRequest, HttpResponse

SELECTOR = bytes.fromhex("d590f8c9")


def assemble() -> bytes:
    """Assemble the contract: 64 bytes of data set storage[first] = second; `role(address)` gives
    storage[address]; anything else reverts. In front stands what deploys it.
    """
    get = bytes.fromhex("5b600435545f5260205ff3")  # JUMPDEST storage[calldata[4:]] to memory, RETURN 32
    put = bytes.fromhex("5b6020355f355500")  # JUMPDEST storage[calldata[0:]] = calldata[32:], STOP
    size = len(_entry(0, 0))
    code = _entry(size, size + len(get)) + get + put
    # PUSH1 size DUP1 PUSH1 10 PUSH0 CODECOPY PUSH0 RETURN
    start = bytes((0x60, len(code), 0x80, 0x60, 9, 0x5F, 0x39, 0x5F, 0xF3))
    return start + code


def _entry(get: int, put: int) -> bytes:
    """Assemble the contract's beginning, which jumps to one of these places or reverts."""
    entry = bytes.fromhex("3660401460") + bytes((put,)) + b"\x57"  # CALLDATASIZE PUSH1 64 EQ PUSH1 put JUMPI
    entry += bytes.fromhex("5f3560e01c63") + SELECTOR  # PUSH0 CALLDATALOAD PUSH1 224 SHR PUSH4 selector
    entry += bytes.fromhex("1460") + bytes((get,)) + b"\x57"  # EQ PUSH1 get JUMPI
    return entry + bytes.fromhex("5f5ffd")  # PUSH0 PUSH0 REVERT


class Chain:
    """The EVM, its contract, and how its provider behaves: `mood` is well, down, error or a body of lies."""

    def __init__(self) -> None:
        self.evm = EthereumTester(PyEVMBackend())
        self.account = self.evm.get_accounts()[0]
        self.asked = 0
        self.port = 0
        self.mood: str | bytes = "well"
        receipt = self.transact({"data": "0x" + assemble().hex()})
        self.contract = receipt["contract_address"]

    def transact(self, fields: dict[str, Any]) -> Any:  # what eth-tester gives is a plain dict
        sent = {"from": self.account, "gas": 300_000, **fields}
        return self.evm.get_transaction_receipt(self.evm.send_transaction(sent))

    def set_role(self, address: bytes, role: int) -> None:
        data = address.rjust(32, b"\x00") + role.to_bytes(32, "big")
        self.transact({"to": self.contract, "data": "0x" + data.hex()})

    def answer(self, body: bytes) -> bytes:
        """Answer a JSON-RPC request."""
        question = json.loads(body)
        assert question["method"] == "eth_call"
        call, block = question["params"]
        assert block == "latest"
        if self.mood == "error":
            error = {"code": -32000, "message": "overloaded"}
            return json.dumps({"jsonrpc": "2.0", "id": question["id"], "error": error}).encode()
        if isinstance(self.mood, bytes):
            return self.mood
        result = self.evm.call({"from": self.account, **call})
        return json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": result}).encode()

    def forward(self, request: HttpRequest) -> HttpResponse | HttpFailure:
        """Perform a canister's request with the node's own fetcher, at the local server."""
        self.asked += 1
        if self.mood == "down":
            return HttpFailure("the host is down")
        fetcher = Fetcher(OutcallRules.of((f"http://127.0.0.1:{self.port}",), ()))
        asked = OutcallRecord(
            "http", "127.0.0.1", self.port, "/", request.method, request.headers, request.body,
            8_192, "", b"", 0, 1, 2,
        )  # fmt: skip
        found = asyncio.run(fetcher.fetch(Outcall(b"\x01", 1, asked)))
        if found.reject_code:
            return HttpFailure(found.reject_message)
        return HttpResponse(found.body, found.status, found.headers)


@contextmanager
def chain() -> Iterator[Chain]:
    """Run the EVM and its server."""
    world = Chain()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = world.answer(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
