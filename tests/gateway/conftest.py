"""A gateway over real HTTP on a free loopback port, with a scripted subnet behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx
import pytest

from cannery.node.data_dir import range_of
from cannery.node.gateway.app import Clocks, Gateway
from cannery.node.gateway.http_server import HttpServer
from cannery.node.gateway.process import spool_limits
from cannery.node.gateway.settings import GatewaySettings, NodeIdentity
from cannery.node.gateway.spool import Spool
from cannery.protocol import cbor
from cannery.protocol.bls import BlsKey
from cannery.protocol.certificate import Certificate, decode_certificate, verify_certificate
from cannery.protocol.envelope import CallContent, QueryContent, ReadStateContent, build_envelope
from cannery.protocol.identity import AnonymousIdentity, Ed25519Identity, Identity
from cannery.protocol.principal import Principal
from tests.gateway.scripted import Script, ScriptedSubnet
from tests.waiting import NEVER_S, wait_until

ROOT_KEY = BlsKey.from_seed(b"root key of the gateway tests...")
NODE_KEY = Ed25519Identity(b"node key of the gateway tests...")
IDENTITY = NodeIdentity(ROOT_KEY, NODE_KEY, (range_of(0),), version="0.1.0")
SUBNET = Principal.self_authenticating(ROOT_KEY.public_key_der)
CANISTER = Principal((0x100000).to_bytes(8, "big") + b"\x01\x01")
ALICE = Ed25519Identity(bytes(31) + b"\x01")
BOB = Ed25519Identity(bytes(31) + b"\x02")
NOBODY = AnonymousIdentity()
MINUTE_NS = 60 * 10**9
CBOR = {"content-type": "application/cbor"}
Found = TypeVar("Found")
QUICK = GatewaySettings(answer_wait_ms_max=100, accept_wait_ms_max=100, query_wait_ms_max=200)


class Node:
    """A running gateway: its URL, its script, its parts."""

    def __init__(self, directory: Path, settings: GatewaySettings = QUICK) -> None:
        self.script = Script(time.time_ns())
        self.settings = settings
        self.directory = directory / "spool"
        self.mono_ns = time.monotonic_ns
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(NEVER_S), "the gateway does not start"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=NEVER_S)

    def _make(self) -> Gateway:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        spool = Spool(self.directory, spool_limits(self.settings), time.time_ns)
        clocks = Clocks(time.time_ns, lambda: self.mono_ns())
        self.gateway = Gateway([ScriptedSubnet(self.script)], IDENTITY, self.settings, spool, clocks)
        return self.gateway

    async def _serve(self) -> None:
        self.server = HttpServer(self._make(), self.settings)
        listener = await self._loop.create_server(self.server.make_connection, sock=self._listener)
        self._ready.set()
        await self._stop.wait()
        listener.close()
        await self.server.close()

    def close(self) -> None:
        self.http.close()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(NEVER_S)
        assert not self._thread.is_alive(), "the gateway does not stop"

    # --- requests ---------------------------------------------------------------------------------

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.http.post(path, content=body, headers=CBOR | (headers or {}))

    def call(self, method: str, arg: bytes = b"", version: int = 4, who: Identity = ALICE) -> httpx.Response:
        return self.post(
            f"/api/v{version}/canister/{CANISTER}/call", envelope(call_content(method, arg, who), who)
        )

    def query(self, method: str, arg: bytes = b"", version: int = 3, who: Identity = ALICE) -> httpx.Response:
        return self.post(
            f"/api/v{version}/canister/{CANISTER}/query", envelope(query_content(method, arg, who), who)
        )

    def read(
        self, *paths: tuple[bytes, ...], version: int = 3, who: Identity = ALICE, place: str = ""
    ) -> httpx.Response:
        content = ReadStateContent(who.principal, paths, expiry_ns())
        return self.post(
            f"/api/v{version}/{place or f'canister/{CANISTER}'}/read_state", envelope(content, who)
        )

    def post_together(self, path: str, bodies: list[bytes]) -> list[httpx.Response]:
        """Send requests on connections of their own, so that the event loop finds them all in one turn."""
        sockets = [socket.create_connection(("127.0.0.1", self.port)) for _ in bodies]
        self.http.get("/api/v2/status")  # answered after all connections before it are there
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait(NEVER_S)

        self._loop.call_soon_threadsafe(hold)
        assert held.wait(NEVER_S), "the event loop does not turn"
        for connection, body in zip(sockets, bodies, strict=True):
            connection.sendall(raw_request("POST", path, body))
        release.set()
        return [read_response(connection) for connection in sockets]

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(NEVER_S)
        return connection

    def answer_of(self, connection: socket.socket) -> httpx.Response:
        return read_response(connection)

    def send(self, data: bytes) -> httpx.Response:
        """Send bytes on a connection of their own and read one response."""
        connection = self.connect()
        # The node may answer and close before all is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        return read_response(connection)

    def wait_for(self, find: Callable[[], Found]) -> Found:
        """Ask until there is something."""
        return wait_until(find)


def raw_request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/cbor\r\n{headers}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def read_response(connection: socket.socket) -> httpx.Response:
    """Read one response and close the connection."""
    with connection, connection.makefile("rb") as stream:
        connection.settimeout(NEVER_S)
        return read_one(stream)


def read_one(stream: BinaryIO, *, has_body: bool = True) -> httpx.Response:
    """Read one response with a content-length off a connection."""
    status = int(stream.readline().split()[1])
    headers = []
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        headers.append((name, value.strip()))
    size = int(dict(headers).get(b"content-length", b"0")) if has_body else 0
    return httpx.Response(status, headers=headers, content=stream.read(size))


_nonces = iter(range(10**9))


def expiry_ns() -> int:
    return time.time_ns() + 4 * MINUTE_NS


def nonce() -> bytes:
    return next(_nonces).to_bytes(16, "big")


def call_content(method: str, arg: bytes = b"", who: Identity = ALICE) -> CallContent:
    return CallContent(who.principal, CANISTER, method, arg, expiry_ns(), nonce())


def query_content(method: str, arg: bytes = b"", who: Identity = ALICE) -> QueryContent:
    return QueryContent(who.principal, CANISTER, method, arg, expiry_ns(), nonce())


def envelope(
    content: CallContent | QueryContent | ReadStateContent, who: Identity = ALICE, *, tagged: bool = True
) -> bytes:
    return build_envelope(content, who, tagged=tagged)


def fields_of(response: httpx.Response) -> dict[str, cbor.CborValue]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/cbor"
    value, _tagged = cbor.decode(response.content)
    assert isinstance(value, dict)
    return value


def certificate_of(response: httpx.Response) -> Certificate:
    """Read the certificate in an answer and check it as a client would."""
    encoded = fields_of(response)["certificate"]
    assert isinstance(encoded, bytes)
    certificate = decode_certificate(encoded)
    verify_certificate(
        certificate, ROOT_KEY.public_key_der, now_ns=time.time_ns(), effective_canister_id=CANISTER
    )
    return certificate


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One gateway for all tests of a module."""
    running = Node(tmp_path_factory.mktemp("gateway"))
    yield running
    running.close()
