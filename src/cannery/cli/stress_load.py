"""Many clients at once: each opens a connection of its own and sends its requests over it, one by one.

Requests were signed and framed beforehand, and answers are counted, not decoded, so that one process can
stand for hundreds of machines; some are kept whole for a check afterwards. Time counts from a client's
arrival, its connecting included. What went wrong is a text with a count, never an exception.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

_BUFFER_SIZE_BYTES: Final = 1024 * 1024
_HEAD_SIZE_BYTES_MAX: Final = 64 * 1024
_PEEK_SIZE_BYTES: Final = 1024
_KEPT_SIZE_BYTES: Final = 4 * 1024
_TICK_S: Final = 0.05
_HTTP_OK: Final = 200
_HTTP_ACCEPTED: Final = 202
TIMED_OUT: Final = "no answer in time"


@dataclass(frozen=True, slots=True)
class Visit:
    """What one client does: whole HTTP requests, in order, over one connection. `keeps`: keep an answer."""

    requests: Sequence[bytes]
    keeps: bool = False


@dataclass(slots=True)
class Ended:
    """How a client's visit went. `took_s` is None where it did not come to its end: `failure` says why.

    `waits_s` has the time of each request that was answered, `kept` the first answer's body if it was kept.
    """

    took_s: float | None = None
    failure: str | None = None
    waits_s: list[float] = field(default_factory=list)
    received_bytes: int = 0
    kept: bytes | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """All visits, in the order of the clients; `seconds` from the first arrival to the last end."""

    visits: list[Ended]
    seconds: float
    cpu_s: float


def run_load(
    address: tuple[str, int], visits: Sequence[Visit], *, spread_s: float, timeout_s: float, seed: int = 0
) -> Load:
    """Let all clients come, at once or within `spread_s` by chance, and wait until each has ended."""
    return uvloop.run(_run(address, visits, spread_s, timeout_s, seed))


async def _run(
    address: tuple[str, int], visits: Sequence[Visit], spread_s: float, timeout_s: float, seed: int
) -> Load:
    chance = random.Random(seed)
    arrivals = sorted(chance.uniform(0, spread_s) for _ in visits)
    scene = _Scene(timeout_s)
    cpu_s, begun = time.process_time(), time.perf_counter()
    watch = asyncio.create_task(scene.watch())
    ended = await asyncio.gather(
        *(_visit(scene, address, visit, begun + at) for visit, at in zip(visits, arrivals, strict=True))
    )
    watch.cancel()
    return Load(list(ended), time.perf_counter() - begun, time.process_time() - cpu_s)


async def _visit(scene: _Scene, address: tuple[str, int], visit: Visit, arrival: float) -> Ended:
    loop = asyncio.get_running_loop()
    if arrival > time.perf_counter():
        await asyncio.sleep(arrival - time.perf_counter())
    caller = _Caller(scene, visit, arrival, loop.create_future())
    try:
        async with asyncio.timeout(scene.timeout_s):
            await loop.create_connection(lambda: caller, *address)
    except TimeoutError:
        caller.fail(TIMED_OUT)
    except OSError as error:
        caller.fail(f"cannot connect: {error.strerror or error}")
    return await caller.done


class _Scene:
    """What all clients share: one buffer, since whoever receives uses it up at once, and one clock."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.buffer = memoryview(bytearray(_BUFFER_SIZE_BYTES))
        self.waiting: dict[_Caller, None] = {}

    async def watch(self) -> None:
        """End those who wait for an answer too long."""
        while True:
            await asyncio.sleep(_TICK_S)
            limit = time.perf_counter() - self.timeout_s
            for caller in [each for each in self.waiting if each.asked < limit]:
                caller.fail(TIMED_OUT)


class _Caller(asyncio.BufferedProtocol):
    """One client. `asyncio.BufferedProtocol` is the interface that the event loop asks for."""

    def __init__(self, scene: _Scene, visit: Visit, arrival: float, done: asyncio.Future[Ended]) -> None:
        self.asked = arrival
        self.done = done
        self._scene = scene
        self._visit = visit
        self._arrival = arrival
        self._ended = Ended()
        self._index = 0
        self._head = bytearray()
        self._missing = -1
        self._size = 0
        self._status = 0
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports offer the interface without inheriting it.
        self._transport = cast(asyncio.Transport, transport)
        if self.done.done():
            self._transport.abort()
            return
        self._scene.waiting[self] = None
        self._ask()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's name)
        return self._scene.buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._scene.buffer[:nbytes]
        if self._missing < 0:
            at = self._read_head(data)
            if at < 0:
                return
            data = data[at:]
        self._take(data)

    def _read_head(self, data: memoryview) -> int:
        """Take in an answer's head; say where the body begins in `data`, or -1: not yet, or never."""
        before = len(self._head)
        # Bodies are large, heads are not: what is searched is copied.
        for part in (data[:_PEEK_SIZE_BYTES], data[_PEEK_SIZE_BYTES:]):
            self._head += part
            end = self._head.find(b"\r\n\r\n")
            if end >= 0:
                head = bytes(self._head[:end]).lower()
                self._head.clear()
                if self._begin_body(head):
                    return end + 4 - before
                self.fail("the answer is no HTTP with a content-length")
                return -1
        if len(self._head) > _HEAD_SIZE_BYTES_MAX:
            self.fail("the answer is no HTTP")
        return -1

    def _begin_body(self, head: bytes) -> bool:
        at = head.find(b"content-length:")
        length = head[at + 15 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""
        status = head[9:12]
        if not (head.startswith(b"http/1.1 ") and status.isdigit() and length.isdigit()):
            return False
        self._status, self._size = int(status), int(length)
        self._missing = self._size
        self._kept, self._kept_size = [], 0
        return True

    def _take(self, data: memoryview) -> None:
        wanted = self._size if self._visit.keeps and not self._index else _KEPT_SIZE_BYTES
        if self._kept_size < wanted:
            part = bytes(data[: wanted - self._kept_size])
            self._kept.append(part)
            self._kept_size += len(part)
        self._missing -= len(data)
        if self._missing <= 0:
            self._answered()

    def _answered(self) -> None:
        now = time.perf_counter()
        body = b"".join(self._kept)
        failure = failure_of(self._status, body)
        if failure is not None:
            self.fail(failure)
            return
        ended = self._ended
        if self._visit.keeps and not self._index:
            ended.kept = body
        ended.waits_s.append(now - self.asked)
        ended.received_bytes += self._size
        self._missing = -1
        self._index += 1
        if self._index < len(self._visit.requests):
            self._ask()
        else:
            ended.took_s = now - self._arrival
            self._end()

    def _ask(self) -> None:
        # The first request's time is the client's: it has waited since it came.
        if self._index:
            self.asked = time.perf_counter()
        assert self._transport is not None
        self._transport.write(self._visit.requests[self._index])

    def fail(self, text: str) -> None:
        """End the visit before its end."""
        self._ended.failure = self._ended.failure or text
        self._end()

    def _end(self) -> None:
        self._scene.waiting.pop(self, None)
        if self._transport is not None:
            self._transport.abort()
        if not self.done.done():
            self.done.set_result(self._ended)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.fail(f"the node closed the connection{f': {exc}' if exc else ''}")


def failure_of(status: int, body: bytes) -> str | None:
    """Say why an answer is no success, as far as its beginning tells; None where it is one."""
    if status == _HTTP_ACCEPTED:
        return "accepted, but not answered in time (HTTP 202)"
    if status != _HTTP_OK:
        return f"HTTP {status}: {body[:200].decode(errors='replace').strip()}"
    if b"replied" in body[:40] and b"reject_code" not in body[:_KEPT_SIZE_BYTES]:
        return None
    at = body.find(b"reject_message")
    return "rejected: " + body[at + 14 : at + 214].decode(errors="replace").strip() if at >= 0 else "rejected"
