"""The store: from 1 to 50 buckets under writers, migration by one bucket up and back under load, and reads
straight from 1, 2 and 4 buckets, on one subnet and on two.

`STORE_PARTS=grow,reads,3,10,50` runs some of it: numbers are those of buckets before one more.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

from bench import traffic
from bench.report import Line
from bench.servers import CONFIG, RunningNode, running_node
from cannery.apps.store.types import Put, PutResult
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.candid.types import Text
from cannery.cdk.management import FleetConfigureArgs, FleetValue
from cannery.cli.app_install import build_app, install_app
from cannery.cli.typed_calls import TypedCanister
from cannery.client import AsyncAgent
from cannery.client.store import Note, Store
from cannery.fleet.place_types import PlaceStatus
from cannery.node.backup.cut import subnet_of_canister
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal

BUCKETS = 50
GROWN_SLOTS = 100
GROWN_ENTRIES = 3_500
KEYS = 2_000
RATES = (500, 1_000)
SIZES = (3, 10, 50)
LOAD_S = 6
READS = 6_000
READ_RUNS = 3
ANN = Ed25519Identity((0xA11CE).to_bytes(32, "big"))
_put = encoder((type_of(Put),))
_key = encoder((Text(),))
_put_result = decoder((type_of(PutResult),))


def run_store() -> Iterator[Line]:
    """Measure the store, or the parts that the environment names."""
    parts = os.environ.get("STORE_PARTS", ",".join(("grow", "reads", *map(str, SIZES)))).split(",")
    if "grow" in parts:
        yield from _grow()
    if "reads" in parts:
        yield from _reads()
    sizes = [size for size in SIZES if str(size) in parts]
    if sizes:
        yield from _migrate(sizes)


class Bench:
    """A node with a store, and what the operator does to it."""

    def __init__(self, node: RunningNode, **values: int) -> None:
        self.node = node
        self.agent = node.agent()
        self.index_id = install_app(self.agent, build_app("store")).index_id
        self.index = TypedCanister(self.agent, self.index_id)
        self.configure(**values)

    def configure(self, **values: int) -> None:
        given = [FleetValue(name, str(value)) for name, value in values.items()]
        self.index.call_for_effect("fleet_config_set", (FleetConfigureArgs([], [], given),))

    def spread(self) -> None:
        given = [FleetValue("bucket_subnet", "any")]
        self.index.call_for_effect("fleet_config_set", (FleetConfigureArgs([], [], given),))

    def status(self) -> PlaceStatus:
        return self.index.query("place_status", PlaceStatus)

    def settle(self, count: int) -> float:
        """Wait until there are so many buckets and nothing is under way; return the seconds it took."""
        begun = time.perf_counter()
        while True:
            status = self.status()
            if status.change is None and not status.planned_slots and len(status.children) == count:
                return time.perf_counter() - begun
            time.sleep(0.05)

    def grow_to(self, count: int) -> None:
        while len(self.status().children) < count:
            have = len(self.status().children)
            self.index.call_for_effect("place_grow")
            self.settle(have + 1)

    def locate(self, keys: Sequence[str]) -> list[Principal]:
        return self.index.query("locate", list[Principal], (list(keys),), (list[str],))

    def put_all(self, notes: Sequence[Note]) -> float:
        """Put notes in parallel as a client; return puts per second."""

        async def run() -> float:
            async with AsyncAgent(self.node.url, ANN) as agent:
                store = await Store.open(agent, self.index_id)
                begun = time.perf_counter()
                await store.put_many(notes)
                return len(notes) / (time.perf_counter() - begun)

        return asyncio.run(run())

    def missing(self, notes: Sequence[Note]) -> int:
        """Read notes back; return how many are not as they were put."""

        async def run() -> int:
            async with AsyncAgent(self.node.url, ANN) as agent:
                store = await Store.open(agent, self.index_id)
                items = await store.get_many([note.key for note in notes])
                pairs = zip(notes, items, strict=True)
                return sum(item is None or item.value != note.value for note, item in pairs)

        return asyncio.run(run())


def _notes(name: str, count: int) -> list[Note]:
    return [Note(f"{name}/{number}", f"{name} {number} {'.' * 80}".encode()) for number in range(count)]


def _grow() -> Iterator[Line]:
    """Write into a store whose buckets have 100 slots, until it has 50 of them; against one large bucket."""
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data") as node:
        bench = Bench(node, hold_ms=1, pause_ms=1)
        notes = _notes("grow", GROWN_ENTRIES)
        fixed = bench.put_all(_notes("fixed", 1_000))
        bench.configure(bucket_slots=GROWN_SLOTS + 1_000 // BUCKETS)
        begun = time.perf_counter()
        per_s = bench.put_all(notes)
        while len(bench.status().children) < BUCKETS and time.perf_counter() - begun < 300:
            bench.index.call_for_effect("place_grow")
            time.sleep(0.2)
        seconds = time.perf_counter() - begun
        bench.settle(len(bench.status().children))
        status = bench.status()
        used = [child.used_slots for child in status.children]
        yield Line(
            "store",
            f"puts from 1 to {len(used)} buckets, 32 writers",
            per_s,
            "per s",
            "into one bucket",
            fixed,
            {
                "seconds to the last bucket": seconds,
                "missing": bench.missing(notes),
                "emptiest bucket": min(used),
                "fullest bucket": max(used),
                "keys moved": status.given_count,
            },
        )


def _migrate(sizes: Sequence[int]) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data") as node:
        bench = Bench(node, hold_ms=10**9, pause_ms=10**9)
        notes = _notes("key", KEYS)
        bench.put_all(notes)
        nonce = random.Random(3)
        for count in sizes:
            bench.grow_to(count)
            for rate in RATES:
                yield from _one_up_and_back(bench, notes, count, rate, nonce)


def _one_up_and_back(
    bench: Bench, notes: list[Note], count: int, rate: int, nonce: random.Random
) -> Iterator[Line]:
    """Add a bucket and drain it again while requests come at a rate: half puts, half reads."""
    keys = [note.key for note in notes]
    before = bench.locate(keys)
    calm, _ = _load(bench, notes, before, rate, nonce, 2)
    given = bench.status().given_count
    loading = _Loading(bench, notes, before, rate, nonce)
    begun = time.perf_counter()
    bench.index.call_for_effect("place_grow")
    bench.settle(count + 1)
    up_s = time.perf_counter() - begun
    grown = bench.status()
    came = grown.given_count - given
    even = sum(child.used_slots for child in grown.children) / (count + 1)
    (new,) = set(bench.locate(keys)) - set(before)
    begun = time.perf_counter()
    bench.index.call_for_effect("place_drain", (new,))
    bench.settle(count)
    back_s = time.perf_counter() - begun
    result = loading.result()
    total = bench.status().given_count - given
    assert result.statuses == {"200": rate * LOAD_S}, result.statuses
    yield Line(
        "store",
        f"{count} to {count + 1} buckets and back, {rate:,} requests/s",
        up_s + back_s,
        "s",
        notes={
            "up s": up_s,
            "back s": back_s,
            "moved up": came,
            "one bucket's even part": even,
            "moved up and back": total,
            "missing": bench.missing(notes + loading.stored()),
            "told to ask again": len(loading.written) - len(loading.stored()),
            "p99 ms calm": calm.p99_ms,
            "p99 ms during": result.p99_ms,
            "served per s": result.per_s,
        },
    )


class _Loading:
    """Requests at a rate, in a thread of their own."""

    def __init__(
        self, bench: Bench, notes: list[Note], where: list[Principal], rate: int, nonce: random.Random
    ) -> None:
        self.written: list[Note] = []
        self._signed = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._requests, self.written = _requests(bench, notes, where, rate * LOAD_S, nonce)
        self._sent = self._pool.submit(traffic.send, bench.node.port, self._requests, 64, rate, keep_every=1)
        time.sleep(1)

    def result(self) -> traffic.Result:
        return self._sent.result()

    def stored(self) -> list[Note]:
        """Return the notes whose puts were answered with ok; the others' clients would ask again."""
        stored = []
        for index, body in self.result().samples:
            if index % 2 == 0:
                (result,) = _put_result(traffic.reply_in(self._requests[index], body))
                if isinstance(result, PutResult) and result.tag == "ok":
                    stored.append(self.written[index // 2])
        return stored


def _load(
    bench: Bench, notes: list[Note], where: list[Principal], rate: int, nonce: random.Random, seconds: int
) -> tuple[traffic.Result, list[Note]]:
    requests, written = _requests(bench, notes, where, rate * seconds, nonce)
    return traffic.send(bench.node.port, requests, 64, rate), written


def _requests(
    bench: Bench, notes: list[Note], where: list[Principal], count: int, nonce: random.Random
) -> tuple[list[traffic.Signed], list[Note]]:
    """Sign requests: half put a new key, half read one that is there."""
    run = f"load/{nonce.getrandbits(40):x}"
    written = _notes(run, count // 2)
    homes = bench.locate([note.key for note in written])
    requests = []
    for note, home in zip(written, homes, strict=True):
        put = _put((Put(note.key, note.value, [], False, [], None),))
        requests.append(traffic.sign("call", home, "put", put, ANN, nonce.getrandbits(62)))
        at = nonce.randrange(len(notes))
        arg = _key((notes[at].key,))
        requests.append(traffic.sign("query", where[at], "get", arg, ANN, nonce.getrandbits(62)))
    return requests, written


def _reads() -> Iterator[Line]:
    """Read straight from 1, 2 and 4 buckets, as fast as it goes, on one subnet and on two."""
    reference: float | None = None
    for subnets in (1, 2):
        settings = f"[node]\nsubnet_count = {subnets}\n{CONFIG}"
        with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data", settings) as node:
            bench = Bench(node, hold_ms=10**9, pause_ms=10**9)
            bench.spread()
            notes = _notes("key", KEYS)
            bench.put_all(notes)
            bench.grow_to(4)
            for count in (1, 2, 4):
                line = _read(bench, notes, count, subnets, reference)
                yield line
                reference = reference or line.value


def _read(bench: Bench, notes: list[Note], count: int, subnets: int, reference: float | None) -> Line:
    """Read from so many buckets; with two subnets they are on both by turns."""
    nonce = random.Random(5)
    homes = dict(zip([note.key for note in notes], bench.locate([note.key for note in notes]), strict=True))
    per_subnet: dict[int, list[Principal]] = {}
    for bucket in dict.fromkeys(homes.values()):
        per_subnet.setdefault(subnet_of_canister(bucket.raw), []).append(bucket)
    columns = list(per_subnet.values())
    buckets = [bucket for row in zip_longest(*columns) for bucket in row if bucket is not None][:count]
    keys = [key for key, home in homes.items() if home in buckets]
    requests = [
        traffic.sign("query", homes[key], "get", _key((key,)), ANN, nonce.getrandbits(62))
        for key in (nonce.choice(keys) for _ in range(READS))
    ]
    runs = [traffic.send(bench.node.port, requests, 64) for _ in range(READ_RUNS)]
    for result in runs:
        assert result.statuses == {"200": READS}, result.statuses
    middle = sorted(runs, key=lambda result: result.per_s)[READ_RUNS // 2]
    return Line(
        "store",
        f"reads from {count} bucket{'s' if count > 1 else ''}, {subnets} subnet{'s' if subnets > 1 else ''}",
        middle.per_s,
        "per s",
        "from 1 bucket" if reference else "",
        reference,
        {"p99 ms": middle.p99_ms},
    )
