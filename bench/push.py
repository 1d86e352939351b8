"""Push: how soon subscribers hear of messages, and that a kill of the node loses and repeats nothing.

Zones with subscribers, each over a WebSocket of its own in another process; a member posts at a fixed rate,
by the Python client, which sends a call again until it is answered. In the middle all processes of the node
are killed and it is started again. Times are given apart from what was accepted from two seconds before the
kill until two seconds after the node was ready.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.listeners import MARK, Heard, Plan
from bench.report import Line
from bench.servers import CONFIG, RunningNode, running_node
from bench.traffic import identities
from cannery.apps.zones.arrivals import MESSAGES_TOPIC
from cannery.candid.codec import encoder
from cannery.candid.types import BLOB
from cannery.cli.output import Progress
from cannery.cli.session import Session
from cannery.cli.stress_requests import Signer
from cannery.cli.stress_town import Chat, Town, join_all, make_zones
from cannery.client import AsyncAgent
from cannery.protocol.principal import Principal

SECONDS = 20
SETTLE_NS = 2 * 10**9
KEY = bytes(41)
SIZE_BYTES = 236
WAIT_S_MAX = 120.0
SETTINGS = (
    f"{CONFIG}event_connections_per_address_count_max = 5000\nconnections_per_address_count_max = 5000\n"
)
_post = encoder((BLOB, BLOB))


@dataclass(frozen=True, slots=True)
class Outage:
    """When the node was killed, and when it was ready again."""

    begun_ns: int
    ended_ns: int


def run_push() -> Iterator[Line]:
    """Measure many small zones, then a large one."""
    yield from _run("100 zones of 10, 100 messages/s in all", zones=100, each=10, rate=100)
    yield from _run("one zone of 1,000, 20 messages/s", zones=1, each=1_000, rate=20)


def _run(name: str, *, zones: int, each: int, rate: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        data, posts = Path(folder) / "data", rate * SECONDS
        with running_node(data, SETTINGS) as node:
            made = _town(node, zones, each)
            canisters = [zone.raw for zone in made for _ in range(each)]
            plan = Plan(
                node.port, canisters, MESSAGES_TOPIC, [posts // zones] * len(canisters), WAIT_S_MAX,
                f"{folder}/heard",
            )  # fmt: skip
            listening = _listen(plan, Path(folder) / "plan")
            try:
                outage = asyncio.run(_post_all(node, made, posts, rate))
                assert listening.stdout is not None
                heard = msgspec.json.decode(listening.stdout.read(), type=Heard)
            finally:
                listening.kill()
                listening.wait()
        times = array("q")
        times.frombytes(Path(plan.heard_path).read_bytes())
    yield _line(name, heard, times, outage, len(canisters), posts)


def _town(node: RunningNode, zones: int, each: int) -> list[Principal]:
    session, signer = Session(node.agent(), Progress("push")), Signer(node.url)
    made: list[Principal] = []
    make_zones(session, zones, made)
    clients = identities(zones * each)
    chats = [[Chat(made[place // each], KEY)] for place in range(len(clients))]
    join_all(session, signer, Town(made, clients, chats))
    return made


def _listen(plan: Plan, path: Path) -> subprocess.Popen[bytes]:
    path.write_bytes(msgspec.msgpack.encode(plan))
    listening = subprocess.Popen([sys.executable, "-m", "bench.listeners", str(path)], stdout=subprocess.PIPE)
    assert listening.stdout is not None
    assert listening.stdout.readline() == b"ready\n", "not all could subscribe"
    return listening


async def _post_all(node: RunningNode, zones: list[Principal], posts: int, rate: int) -> Outage:
    """Post at a fixed rate; kill the node at the half, and start it again."""
    begun = time.monotonic()
    killing: asyncio.Task[Outage] | None = None
    async with AsyncAgent(node.url, node.operator()) as agent, asyncio.TaskGroup() as group:
        for number in range(posts):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            if number == posts // 2:
                killing = group.create_task(asyncio.to_thread(_kill_and_start, node))
            body = (MARK + time.time_ns().to_bytes(8, "big") + number.to_bytes(4, "big")).ljust(SIZE_BYTES)
            arg = _post((KEY, body))
            group.create_task(agent.call(zones[number % len(zones)], "add_message", arg))
    assert killing is not None
    return killing.result()


def _kill_and_start(node: RunningNode) -> Outage:
    begun_ns = time.time_ns()
    for process in (node.process, *node.process.children(recursive=True)):
        process.kill()
    node.kill_and_start()
    return Outage(begun_ns, time.time_ns())


def _line(name: str, heard: Heard, times: array[int], outage: Outage, subscribers: int, posts: int) -> Line:
    from_ns, until_ns = outage.begun_ns - SETTLE_NS, outage.ended_ns + SETTLE_NS
    accepted, sent, after = [], [], []
    for place in range(0, len(times), 3):
        sent_ns, accepted_ns, heard_ns = times[place : place + 3]
        if from_ns <= accepted_ns < until_ns:
            after.append((heard_ns - accepted_ns) / 1e6)
        else:
            accepted.append((heard_ns - accepted_ns) / 1e6)
        if sent_ns < from_ns:
            sent.append((heard_ns - sent_ns) / 1e6)
    return Line(
        "push",
        f"{name}: accepted to heard, p99",
        _quantile(accepted, 0.99),
        "ms",
        notes={
            "p50 ms": _quantile(accepted, 0.5),
            "max ms": max(accepted),
            "before the kill, posted to heard p50 ms": _quantile(sent, 0.5),
            "posted to heard p99 ms": _quantile(sent, 0.99),
            "subscribers that heard all, in order, once": f"{heard.whole} of {subscribers}",
            "posts": posts,
            "heard": len(times) // 3,
            "lost": heard.lost,
            "repeated": heard.repeated,
            "gaps": heard.gaps,
            "connections": heard.connects,
            "node away s": (outage.ended_ns - outage.begun_ns) / 1e9,
            "accepted to heard around the kill, max ms": max(after, default=0.0),
        },
    )


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
