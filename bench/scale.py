"""Many idle canisters: how fast they are made, what each costs on disk and in memory, how soon a node of
them is up, how soon one that was never touched since answers.

The peer keeps each object in a SQLite file of its own, as small services often do: made with a table and a
row, opened again for its first write. It has no process, so memory is not compared.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import deploying, traffic
from bench.report import Line
from bench.servers import RunningNode, running_node
from cannery.candid.codec import decode_dynamic, encoder
from cannery.candid.types import BLOB, Nat32, Nat64
from cannery.protocol.principal import Principal

COUNTS = (1_000, 100_000, 1_000_000)
CHAINS = 50
PEER_COUNT_MAX = 10_000
COLD_COUNT = 200
IDLE_WATCH_S = 5
_hash = encoder((BLOB,))
_create = encoder((Nat32(),))
_put = encoder((Nat64(), BLOB))
VALUE = bytes(200)


def run_scale() -> Iterator[Line]:
    """Measure 1,000, 100,000 and 1,000,000 idle canisters."""
    for count in COUNTS:
        yield from _run(count)


def _run(count: int) -> Iterator[Line]:
    peer = _sqlite(min(count, PEER_COUNT_MAX))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with running_node(data) as node:
            agent = node.agent()
            child = deploying.bring_module(agent, "canister.py")
            creator = deploying.install(agent, deploying.bring_module(agent, "creator.py"), _hash((child,)))
        with running_node(data) as node:
            empty_memory, empty_disk = node.memory_bytes(), _disk_bytes(data)
            seconds = _make(node, creator, count)
        disk = (_disk_bytes(data) - empty_disk) / count
        with running_node(data) as node:
            ready_s = node.ready_s
            time.sleep(2)
            cpu = node.cpu_s()
            time.sleep(IDLE_WATCH_S)
            idle_cpu = (node.cpu_s() - cpu) / IDLE_WATCH_S * 100
            memory = max(0, node.memory_bytes() - empty_memory) / count
            cold = _cold_calls(node, creator, count)
    against = f"SQLite files ({min(count, PEER_COUNT_MAX):,})"
    what = f"{count:,} canisters"
    yield Line("scale", f"{what}: made", count / seconds, "per s", against, peer.made_per_s)
    yield Line("scale", f"{what}: disk each", disk, "bytes", against, peer.disk_bytes)
    yield Line("scale", f"{what}: memory each", memory, "bytes")
    yield Line("scale", f"{what}: start of the node", ready_s, "s")
    yield Line("scale", f"{what}: CPU while idle", idle_cpu, "% of a core")
    yield Line(
        "scale",
        f"{what}: first update of a cold one, p50",
        cold.p50_ms,
        "ms",
        against,
        peer.cold_p50_ms,
        {"p99 ms": cold.p99_ms},
    )


def _make(node: RunningNode, creator: Principal, count: int) -> float:
    """Let the index make children in many chains of calls; give the seconds it took."""
    requests = [
        traffic.sign("call", creator, "create", _create((count // CHAINS,)), identity, number)
        for number, identity in enumerate(traffic.identities(CHAINS))
    ]
    agent = node.agent()
    begun = time.perf_counter()
    traffic.send(node.port, requests, CHAINS)
    while True:
        _, (made,) = decode_dynamic(agent.query(creator, "count", deploying.NO_ARGUMENTS))
        if made == count:
            return time.perf_counter() - begun
        time.sleep(0.2)


def _cold_calls(node: RunningNode, creator: Principal, count: int) -> traffic.Result:
    """Call children that nobody has called since the start, one after the other."""
    first = int.from_bytes(creator.raw[:8], "big") + 1
    numbers = random.Random(3).sample(range(count), min(COLD_COUNT, count))
    children = [Principal((first + number).to_bytes(8, "big") + creator.raw[8:]) for number in numbers]
    (caller,) = traffic.identities(1)
    arg = _put((1, VALUE))
    requests = [traffic.sign("call", child, "put", arg, caller, i) for i, child in enumerate(children)]
    result = traffic.send(node.port, requests, 1)
    assert result.statuses == {"200": len(requests)}, result.statuses
    traffic.verify_updates(requests, result, node.agent().root_key())
    return result


class _Peer:
    """What SQLite files cost."""

    def __init__(self, made_per_s: float, disk_bytes: float, cold_p50_ms: float) -> None:
        self.made_per_s, self.disk_bytes, self.cold_p50_ms = made_per_s, disk_bytes, cold_p50_ms


def _sqlite(count: int) -> _Peer:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.db" for number in range(count)]
        begun = time.perf_counter()
        for path in paths:
            with sqlite3.connect(path) as connection:
                connection.execute("create table cell (key integer primary key, value blob)")
                connection.execute("insert into cell values (0, ?)", (b"",))
            connection.close()
        made_per_s = count / (time.perf_counter() - begun)
        disk_bytes = sum(path.stat().st_size for path in paths) / count
        times = []
        for path in random.Random(3).sample(paths, min(COLD_COUNT, count)):
            begun = time.perf_counter()
            with sqlite3.connect(path) as connection:
                connection.execute("insert or replace into cell values (1, ?)", (VALUE,))
            connection.close()
            times.append((time.perf_counter() - begun) * 1000)
        return _Peer(made_per_s, disk_bytes, sorted(times)[len(times) // 2])


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
