"""A zone's store at Diode's own sizing: a million messages of 236 bytes under 10,000 keys.

On the in-process node with RocksDB, so that no client and no HTTP is in the figures: storing in batches of
500, beside the engine alone with the same bytes and syncs; reading the last hundred of a key; catching
up on 60 keys in one request; pruning half. `ZONE_STORE_COUNT=100000` makes it smaller.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import Line
from cannery import LogRule, Principal, WhenFull
from cannery.apps.zones.history import HistoryAsk, HistoryOrder, HistoryRange
from cannery.apps.zones.retention import RetentionRules
from cannery.apps.zones.zone import Zone
from cannery.candid.codec import encoder
from cannery.cdk.describe import describe
from cannery.node.store_rocksdb import RocksStore
from cannery.ports import WriteBatch
from cannery.replica.block import ReplicaConfig
from cannery.testing import Node

COUNT = int(os.environ.get("ZONE_STORE_COUNT", "1000000"))
KEY_COUNT = 10_000
MESSAGE_SIZE_BYTES = 236
BATCH_COUNT = 500
READ_COUNT = 300
CATCH_UP_KEY_COUNT = 60
# What the node keeps of its last blocks would hold the messages a second time.
BLOCK_WINDOW_COUNT = 10
_ask = encoder(describe(Zone).methods["history"].args)


def key_of(number: int) -> bytes:
    return number.to_bytes(41, "big")


def run_zone_store() -> Iterator[Line]:
    """Measure storing, reading and pruning."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "zone"
        chance = random.Random(6)
        node = Node(data=path, config=ReplicaConfig(block_window_count=BLOCK_WINDOW_COUNT))
        try:
            zone = _zone(node)
            seconds = _store(zone, chance)
            bare = _store_bare(Path(folder) / "bare", chance)
            node.restart()
            disk = _size_of(path)
            usage = zone.usage()
            yield Line(
                "zone_store",
                f"messages of {MESSAGE_SIZE_BYTES} bytes stored",
                COUNT / seconds,
                "per s",
                "the engine alone",
                COUNT / bare,
                {
                    "seconds": seconds,
                    "bytes counted per message": usage.messages.size_bytes / COUNT,
                    "bytes on disk per message": disk / COUNT,
                },
            )
            yield from _read(node, zone, chance)
            yield _prune(node, zone, path)
        finally:
            node.close()


def _zone(node: Node) -> Any:  # an actor's methods are known at run time only
    owner = node.principal("ann")
    installed = node.install(
        node.build(Zone),
        {
            "zone_id": "bench",
            "rpc_host": "",
            "rpc_path": "",
            "cycles_requester_id": Principal.management(),
            "call_token": None,
            "owner": owner,
        },
    )
    return node.actor(installed.id, Zone).as_(owner)


def _batches(chance: random.Random) -> Iterator[list[tuple[bytes, bytes]]]:
    keys = [key_of(number) for number in range(KEY_COUNT)]
    for begin in range(0, COUNT, BATCH_COUNT):
        yield [
            (keys[(begin + i) * 7_919 % KEY_COUNT], chance.randbytes(MESSAGE_SIZE_BYTES))
            for i in range(BATCH_COUNT)
        ]


def _store(zone: Any, chance: random.Random) -> float:
    spent = 0.0
    for batch in _batches(chance):
        started = time.perf_counter()
        assert zone.add_messages(batch).tag == "ok"
        spent += time.perf_counter() - started
    return spent


def _store_bare(path: Path, chance: random.Random) -> float:
    store, spent, number = RocksStore(str(path)), 0.0, 0
    for batch in _batches(chance):
        puts: dict[bytes, bytes | None] = {}
        for key, body in batch:
            number += 1
            puts[key + number.to_bytes(8, "big")] = body
        started = time.perf_counter()
        store.write(WriteBatch(puts))
        store.sync()
        spent += time.perf_counter() - started
    store.close()
    return spent


def _read(node: Node, zone: Any, chance: random.Random) -> Iterator[Line]:
    numbers = [chance.randrange(KEY_COUNT) for _ in range(READ_COUNT)]
    last = _measure(node, zone, [_request([number], 100) for number in numbers])
    yield Line(
        "zone_store",
        "last 100 of one of 10,000 keys, in one query",
        1_000 * sum(last) / len(last),
        "ms",
        notes={"p99 ms": 1_000 * sorted(last)[int(len(last) * 0.99)]},
    )
    many = [
        _request(chance.sample(range(KEY_COUNT), CATCH_UP_KEY_COUNT), 100) for _ in range(READ_COUNT // 10)
    ]
    spent = _measure(node, zone, many)
    messages = CATCH_UP_KEY_COUNT * min(100, COUNT // KEY_COUNT)
    yield Line(
        "zone_store",
        f"catch-up on {CATCH_UP_KEY_COUNT} keys of 100 messages, one query",
        messages / (sum(spent) / len(spent)),
        "messages/s",
        notes={"ms": 1_000 * sum(spent) / len(spent)},
    )


def _request(numbers: list[int], per_topic: int) -> bytes:
    order = HistoryOrder.newest_first()
    topics = [key_of(number) for number in numbers]
    return _ask((HistoryAsk(topics, HistoryRange.all(), order, False, True, 20_000, None, per_topic, None),))


def _measure(node: Node, zone: Any, requests: list[bytes]) -> list[float]:
    spent = []
    for request in requests:
        started = time.perf_counter()
        node.query_raw(zone.id, "history", request, zone.sender)
        spent.append(time.perf_counter() - started)
    return spent


def _prune(node: Node, zone: Any, path: Path) -> Line:
    before = _size_of(path)
    steps = []
    while zone.get_min_message_id() <= COUNT // 2:
        started = time.perf_counter()
        zone.prune(COUNT // 2 + 1)
        steps.append(time.perf_counter() - started)
    seconds = sum(steps)
    assert zone.get_message_count() == COUNT - COUNT // 2
    rule = LogRule(COUNT, 10**12, None, WhenFull.prune_oldest())
    zone.set_retention(RetentionRules(rule, rule, rule))
    started = time.perf_counter()
    full = [(key_of(0), bytes([i % 256, i // 256]) * 118) for i in range(BATCH_COUNT)]
    zone.set_retention(
        RetentionRules(LogRule(COUNT - COUNT // 2, 10**12, None, WhenFull.prune_oldest()), rule, rule)
    )
    assert zone.add_messages(full).tag == "ok"
    posted = time.perf_counter() - started
    node.restart()
    after = _size_of(path)
    # At once what the engine does in its own time.
    node.store._db.compact_range(None, None)  # type: ignore[attr-defined]  # the engine itself
    node.restart()
    return Line(
        "zone_store",
        "messages pruned",
        (COUNT // 2) / seconds,
        "per s",
        notes={
            "seconds": seconds,
            "ms of a step of 500": 1_000 * sorted(steps)[len(steps) // 2],
            "ms of the longest step": 1_000 * max(steps),
            "ms of a post of 500 that makes its own room": 1_000 * posted,
            "disk before, MB": before / 1e6,
            "disk after, MB": after / 1e6,
            "disk when the engine has tidied up, MB": _size_of(path) / 1e6,
        },
    )


def _size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
