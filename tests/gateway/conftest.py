"""A gateway over real HTTP on a free loopback port, with a scripted subnet behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from cannery.node.gateway.app import Clocks, Gateway
from cannery.node.gateway.asgi import AsgiApp
from cannery.node.gateway.settings import GatewaySettings, NodeIdentity
from cannery.node.gateway.spool import Spool, SpoolLimits
from cannery.protocol.certificate import BlsKey
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.gateway.scripted import Script, ScriptedSubnet

RANGES = ((Principal(bytes(8) + b"\x01\x01"), Principal((2**40 - 1).to_bytes(8, "big") + b"\x01\x01")),)
ROOT_KEY = BlsKey.from_seed(b"root key of the gateway tests...")
NODE_KEY = Ed25519Identity(b"node key of the gateway tests...")
CANISTER = Principal((0x100000).to_bytes(8, "big") + b"\x01\x01")
IDENTITY = NodeIdentity(ROOT_KEY, NODE_KEY, RANGES, version="0.1.0")


class Node:
    """A running gateway: its URL, its script, its parts."""

    def __init__(self, directory: Path, settings: GatewaySettings) -> None:
        self.script = Script(time.time_ns())
        limits = SpoolLimits(
            settings.spool_bytes_max,
            settings.spool_bytes_per_address_max,
            settings.body_size_bytes_max,
            settings.spool_kept_ms_max,
        )
        self.spool = Spool(directory / "spool", limits, time.time_ns)
        self.directory = directory / "spool"
        self.clocks = Clocks(time.time_ns, time.monotonic_ns)
        self.settings = settings
        self.ready = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self.ready.wait(10), "the gateway does not start"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    async def _serve(self) -> None:
        self.gateway = Gateway(
            ScriptedSubnet(self.script),
            IDENTITY,
            self.settings,
            self.spool,
            self.clocks,
            lambda _method, arg: arg[4:14] if arg[:4] == b"DIDL" and len(arg) >= 14 else None,
        )
        config = uvicorn.Config(
            AsgiApp(self.gateway, self.settings),
            http="httptools",
            lifespan="off",
            access_log=False,
            log_level="warning",
        )
        self.server = uvicorn.Server(config)
        self.server.capture_signals = lambda: _Nothing()  # type: ignore[method-assign, assignment, return-value]
        serving = asyncio.ensure_future(self.server.serve([self.listener]))
        self.ready.set()
        await serving

    def close(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self._thread.join(10)
        self.listener.close()


class _Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_args: object) -> None: ...


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One gateway for all tests of a module."""
    running = Node(
        tmp_path_factory.mktemp("gateway"),
        GatewaySettings(answer_wait_ms_max=100, accept_wait_ms_max=100, query_wait_ms_max=200),
    )
    yield running
    running.close()
