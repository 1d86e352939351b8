"""The load generator: a process of its own that sends requests signed beforehand and times the answers.

Closed loop: each connection sends its next request when its answer is there. Open loop: requests leave at a
fixed rate whatever the answers do, over as many connections as it takes (bounded), and latency counts from
the planned moment. Run as `python -m bench.generator PLAN.msgpack`; it prints one JSON line and leaves one
answer in a hundred beside the plan for verification. Its own CPU time is part of what it prints.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
import uvloop

ANSWER_SAMPLE_EVERY = 100
RECONNECT_S = 0.1
RESEND_S_MAX = 120
_REPLIED = b"\x66status\x67replied"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Plan(msgspec.Struct):
    """What to send: whole HTTP requests, in order. `rate_per_s` 0 means closed loop."""

    port: int
    connections: int
    requests: list[bytes]
    rate_per_s: float
    answers_path: str
    # Send the same bytes again, over a new connection if need be, until there is a certified reply.
    resends: bool = False
    # One answer in so many is kept.
    keep_every: int = ANSWER_SAMPLE_EVERY


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = bytearray()
        self._body_at = -1
        self._need = 0
        self._is_chunked = False
        self.is_lost = False
        self._started = 0.0
        self._index = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports offer the interface without inheriting it.
        self._transport = cast(asyncio.Transport, transport)
        self._run.idle(self)

    def send(self, index: int, data: bytes, started: float) -> None:
        self._index, self._started = index, started
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._body_at < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._is_chunked = b"transfer-encoding: chunked" in head
            self._body_at, self._need = end + 4, end + 4 + length
        if self._buffer.endswith(_LAST_CHUNK) if self._is_chunked else len(self._buffer) >= self._need:
            if self._is_chunked:
                self._need = len(self._buffer)
            status = int(self._buffer[9:12])
            body = bytes(self._buffer[self._body_at : self._need])
            del self._buffer[: self._need]
            self._body_at = -1
            index, self._index = self._index, -1
            self._run.answered(self, index, status, body, self._started)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._run.lost(self, self._index, self._started, error)

    def close(self) -> None:
        self._transport.close()


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._next = 0
        self._idle: collections.deque[Connection] = collections.deque()
        self._due: collections.deque[tuple[int, float]] = collections.deque()
        self._done = asyncio.get_running_loop().create_future()
        self._finished = False
        self.latencies: list[float] = []
        self._tasks: set[asyncio.Future[None]] = set()
        self.statuses: collections.Counter[int] = collections.Counter()
        self.samples: list[tuple[int, bytes]] = []
        self.late_max = 0
        # When each request left (seconds of the epoch), and how long it took.
        self.times: list[tuple[float, float]] = []
        self._epoch = time.time() - time.perf_counter()

    @property
    def resends(self) -> bool:
        return self._plan.resends

    async def wait(self) -> float:
        """Run to the end; return the seconds it took."""
        connections = [await self._connect() for _ in range(self._plan.connections)]
        started = time.perf_counter()
        if self._plan.rate_per_s:
            await self._pace(started)
        else:
            for connection in connections:
                self._feed(connection)
        await self._done
        seconds = time.perf_counter() - started
        self._finished = True
        for connection in connections:
            connection.close()
        return seconds

    async def _pace(self, started: float) -> None:
        for index in range(len(self._plan.requests)):
            at = started + index / self._plan.rate_per_s
            delay = at - time.perf_counter()
            if delay > 0.0005:
                await asyncio.sleep(delay)
            self._due.append((index, at))
            self.late_max = max(self.late_max, len(self._due))
            self._drain()

    def _drain(self) -> None:
        while self._due and self._idle:
            index, at = self._due.popleft()
            self._idle.popleft().send(index, self._plan.requests[index], at)

    def _feed(self, connection: Connection) -> None:
        if self._next < len(self._plan.requests):
            index = self._next
            self._next += 1
            connection.send(index, self._plan.requests[index], time.perf_counter())

    def idle(self, connection: Connection) -> None:
        if self._plan.rate_per_s:
            self._idle.append(connection)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return (await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._plan.port))[
                    1
                ]
            except OSError:
                if not self._plan.resends:
                    raise
                await asyncio.sleep(RECONNECT_S)

    async def _replace(self, index: int, started: float) -> None:
        """Open a connection instead of a lost one, and send again what that one had sent."""
        if index >= 0:
            self._due.appendleft((index, started))
        await self._connect()
        self._drain()

    async def _again(self, connection: Connection, index: int, started: float) -> None:
        await asyncio.sleep(RECONNECT_S)
        if time.perf_counter() - started > RESEND_S_MAX:
            self._done.set_exception(ConnectionError(f"request {index} got no reply in {RESEND_S_MAX} s"))
            return
        self._due.appendleft((index, started))
        if not connection.is_lost:
            self._idle.append(connection)
        self._drain()

    def answered(self, connection: Connection, index: int, status: int, body: bytes, started: float) -> None:
        if self._plan.resends and (status != 200 or _REPLIED not in body[:64]):
            self._keep(asyncio.ensure_future(self._again(connection, index, started)))
            return
        self.times.append((started + self._epoch, time.perf_counter() - started))
        self.latencies.append(time.perf_counter() - started)
        self.statuses[status] += 1
        if index % self._plan.keep_every == 0:
            self.samples.append((index, body))
        if len(self.latencies) == len(self._plan.requests):
            self._done.set_result(None)
        elif self._plan.rate_per_s:
            self._idle.append(connection)
            self._drain()
        else:
            self._feed(connection)

    def _keep(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def lost(self, connection: Connection, index: int, started: float, error: Exception | None) -> None:
        if self._finished or self._done.done():
            return
        if self._plan.resends:
            with contextlib.suppress(ValueError):
                self._idle.remove(connection)
            self._keep(asyncio.ensure_future(self._replace(index, started)))
        else:
            self._done.set_exception(ConnectionError(f"the node closed a connection: {error}"))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


async def _main(path: Path) -> None:
    plan = msgspec.msgpack.decode(path.read_bytes(), type=Plan)
    run = Run(plan)
    cpu = time.process_time()
    seconds = await run.wait()
    cpu = time.process_time() - cpu
    Path(plan.answers_path).write_bytes(msgspec.msgpack.encode(run.samples))
    ordered = sorted(run.latencies)
    print(
        json.dumps(
            {
                "per_s": len(ordered) / seconds,
                "seconds": seconds,
                "p50_ms": _quantile(ordered, 0.5),
                "p99_ms": _quantile(ordered, 0.99),
                "statuses": {str(k): v for k, v in sorted(run.statuses.items())},
                "generator_cpu_share": cpu / seconds,
                "times": run.times if run.resends else [],
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1])))
