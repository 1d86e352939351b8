"""The limits: a bare server that does only what no node can avoid, to measure the node against.

`updates`: HTTP, CBOR, request id, one Ed25519 check, an append to a log that is synced in groups, then an
answer. `queries`: HTTP, CBOR, request id, one Ed25519 check, one Ed25519 signature of the answer.
`bytes:N`: HTTP and a reply of N bytes, the same to all, nothing checked and nothing signed. It stands on the
product's own HTTP server, in one process. Run as `python -m bench.limits JOB PORT DIR`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import cast

import uvloop

from cannery.node.gateway.app import Gateway
from cannery.node.gateway.http import Answer, Request
from cannery.node.gateway.http_server import HttpServer
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.gateway.siblings import no_siblings
from cannery.protocol.authentication import authenticate
from cannery.protocol.envelope import parse_envelope
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.query_signature import QueryReplied, encode_query_response, sign_query_answer

HEADERS = ((b"content-type", b"application/cbor"),)
REPLY = bytes(300)
# The load generator takes an answer for one that begins so.
BYTES_HEAD = b"\x66status\x67replied"


class GroupLog:
    """An append log; one thread writes and syncs whatever has gathered, then wakes its writers."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._wake = threading.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    async def append(self, data: bytes) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._pending.append((data, future))
        self._wake.set()
        await future

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            group, self._pending = self._pending, []
            os.write(self._file, b"".join(data for data, _ in group))
            os.fdatasync(self._file)
            self._loop.call_soon_threadsafe(self._release, [future for _, future in group])

    def _release(self, futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)


class Bare:
    """Answers requests with nothing behind."""

    def __init__(self, job: str, folder: Path) -> None:
        self.tallies = no_siblings(rated_count_max=1).tallies
        self._job = job
        self._log = GroupLog(folder / "log")
        self._node = Ed25519Identity(bytes(32))
        size = int(job.partition(":")[2]) if job.startswith("bytes:") else 0
        self._bytes = BYTES_HEAD + os.urandom(size) if size else b""

    async def answer(self, request: Request) -> Answer:
        parts = []
        while (part := await request.body.next_chunk()) is not None:
            parts.append(part)
        body = b"".join(parts)
        if self._bytes:
            return Answer(200, HEADERS, self._bytes)
        reply = await self._update(body) if self._job == "updates" else self._query(body)
        return Answer(200, HEADERS, reply)

    def beat(self) -> None:
        """Hear that a second has passed."""

    async def _update(self, body: bytes) -> bytes:
        envelope = parse_envelope(body, "call")
        authenticate(envelope, envelope.content.ingress_expiry_ns - 1)
        await self._log.append(body)
        return REPLY

    def _query(self, body: bytes) -> bytes:
        envelope = parse_envelope(body, "query")
        authenticate(envelope, envelope.content.ingress_expiry_ns - 1)
        answer = QueryReplied(b"DIDL\x00\x00")
        signature = sign_query_answer(self._node, answer, envelope.request_id, 1)
        return encode_query_response(answer, [signature], tagged=envelope.tagged)


async def main() -> None:
    job, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    # Of its gateway the server uses what is here, as long as requests are well formed.
    server = HttpServer(cast(Gateway, Bare(job, folder)), GatewaySettings())
    await asyncio.get_running_loop().create_server(server.make_connection, "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
