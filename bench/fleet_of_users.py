"""Registrations over HTTP, and what users cost who do nothing: bytes on disk and in memory, CPU, start-up
time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import traffic
from bench.letters import identity_of
from bench.report import Line
from bench.servers import RunningNode, running_node
from cannery.apps.users.types import IndexSettings
from cannery.candid.codec import decode_dynamic, encoder
from cannery.candid.python import type_of
from cannery.candid.types import Text
from cannery.protocol.principal import Principal

REGISTRATIONS = 3_000
IDLE_USERS = 100_000
IDLE_WATCH_S = 5
_register = encoder((Text(),))
_settings = encoder((type_of(IndexSettings),))


def open_the_gate(node: RunningNode) -> Principal:
    """Let as many people register as want to; return the index."""
    index = Principal.parse(node.names()["user_index"])
    agent = node.agent()
    agent.call(index, "configure", _settings((IndexSettings(2**32 - 1),)))
    return index


def registrations(
    index: Principal, first: int, count: int, name_of: Callable[[int], str] = "user_{}".format
) -> list[traffic.Signed]:
    return [
        traffic.sign(
            "call",
            index,
            "register",
            _register((name_of(i),)),
            identity_of(i),
            i,
        )
        for i in range(first, first + count)
    ]


def check_count(node: RunningNode, index: Principal, expected: int) -> None:
    """See that everybody who registered is registered."""
    _, values = decode_dynamic(node.agent().query(index, "count", b"DIDL\x00\x00"))
    assert values == [expected], f"{values} users are registered, not {expected}"


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_registrations() -> Iterator[Line]:
    """Measure registrations: each creates, installs and initialises a canister."""
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data") as node:
        index = open_the_gate(node)
        requests = registrations(index, 0, REGISTRATIONS)
        result = traffic.send(node.port, requests, 64)
        assert result.statuses == {"200": REGISTRATIONS}, result.statuses
        traffic.verify_updates(requests, result, node.agent().root_key())
        check_count(node, index, REGISTRATIONS)
        yield Line(
            "registrations",
            "registrations over HTTP, 64 clients",
            result.per_s,
            "per s",
            notes={"p50 ms": result.p50_ms, "p99 ms": result.p99_ms},
        )


def run_idle() -> Iterator[Line]:
    """Measure 100,000 users who do nothing."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running_node(data) as node:
            index = open_the_gate(node)
            empty_memory, empty_disk = node.memory_bytes(), _disk_bytes(data)
            step = 20_000
            for first in range(0, IDLE_USERS, step):
                traffic.send(node.port, registrations(index, first, step), 64)
            check_count(node, index, IDLE_USERS)
        with running_node(data) as node:
            yield Line("idle", f"start with {IDLE_USERS:,} idle users", node.ready_s, "s")
            time.sleep(2)
            cpu = node.cpu_s()
            time.sleep(IDLE_WATCH_S)
            yield Line(
                "idle", "CPU used by idle users", (node.cpu_s() - cpu) / IDLE_WATCH_S * 100, "% of a core"
            )
            yield Line(
                "idle",
                "memory per idle user",
                max(0, node.memory_bytes() - empty_memory) / IDLE_USERS,
                "bytes",
                notes={"empty node MB": empty_memory / 1e6, "with users MB": node.memory_bytes() / 1e6},
            )
            yield Line("idle", "disk per idle user", (_disk_bytes(data) - empty_disk) / IDLE_USERS, "bytes")
