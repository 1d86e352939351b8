"""Subscribers of events: a process of its own in which each has a connection, resumes after a lost one, and
notes when each event came.

Run as `python -m bench.listeners PLAN.msgpack`; it prints `ready` once all have subscribed, and ends when
each has heard as many events as the plan says, or when the time is over. What was heard stands beside the
plan: for each event of each subscriber when it was sent, accepted (its block's time) and heard, in
nanoseconds. Its WebSocket is as small as can be, since it stands for a thousand machines.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from array import array
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench.traffic import identities
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EVENTS_METHOD, EventRequest
from cannery.protocol import cbor
from cannery.protocol.envelope import QueryContent, build_envelope
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal

HANDSHAKE = (
    b"GET /api/cannery/v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)
MARK = b"SENT"
PAUSE_S = 0.1
_PING, _CLOSE = 9, 8
_request = encoder((type_of(EventRequest),))


class Plan(msgspec.Struct):
    """Who listens: the canister of each subscriber, whose identity is that of its place; and for how many."""

    port: int
    canisters: list[bytes]
    topic: str
    counts: list[int]
    seconds_max: float
    heard_path: str


class Heard(msgspec.Struct):
    """What came of it: how many subscribers heard all they should, in order, each once."""

    whole: int
    lost: int
    repeated: int
    gaps: int
    connects: int


class Listener(asyncio.Protocol):
    """One subscriber, over as many connections as it takes."""

    def __init__(self, run: Run, who: Identity, canister: Principal, count: int) -> None:
        self._run = run
        self._who = who
        self._canister = canister
        self._count = count
        self._buffer = b""
        self._is_open = False
        self._next: int | None = None
        self.first = -1
        self.heard = 0
        self.repeated = 0
        self.lost = 0
        self.gaps = 0
        self.connects = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports offer the interface without inheriting it.
        self._transport = cast(asyncio.Transport, transport)
        self._buffer, self._is_open = b"", False
        self.connects += 1
        self._transport.write(HANDSHAKE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.again(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                return
            self._is_open, self._buffer = True, rest
        at = 0
        buffer = self._buffer
        while len(buffer) - at >= 2:
            size, body = buffer[at + 1], at + 2
            if size == 126:
                size, body = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, body = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if len(buffer) < body + size:
                break
            self._take(buffer[at] & 15, buffer[body : body + size])
            at = body + size
        self._buffer = buffer[at:]

    def _take(self, opcode: int, data: bytes) -> None:
        if opcode == _PING:
            self._transport.write(_masked(10, data))
        elif opcode == _CLOSE:
            self._transport.abort()
        elif b"\x65event" in data[:16]:
            self._event(data)
        else:
            self._other(data)

    def _event(self, data: bytes) -> None:
        now_ns = time.time_ns()
        at = data.index(b"\x67time_ns\x1b") + 9
        accepted_ns = int.from_bytes(data[at : at + 8], "big")
        at = data.index(b"\x66number") + 7
        number, _ = cbor.decode(data[at : at + 9][: _uint_size(data[at])])
        assert isinstance(number, int)
        at = data.index(MARK) + len(MARK)
        sent_ns = int.from_bytes(data[at : at + 8], "big")
        if self._next is None or self.first < 0:
            self.first = number
        elif number < self._next:
            self.repeated += 1
            return
        elif number > self._next:
            self.lost += number - self._next
        self._next = number + 1
        self.heard += 1
        self._run.note(sent_ns, accepted_ns, now_ns)
        if self.heard == self._count:
            self._run.ended()

    def _other(self, data: bytes) -> None:
        fields, _ = cbor.decode(data)
        assert isinstance(fields, dict)
        match fields["type"]:
            case "challenge":
                challenge = fields["challenge"]
                assert isinstance(challenge, bytes)
                self._subscribe(challenge)
            case "subscribed":
                if self._next is None:
                    self._next = cast(int, fields["next"])
                self._run.subscribed(self)
            case "gap":
                self.gaps += 1
            case "refused" | "ended":
                self._transport.abort()
            case _:
                pass

    def _subscribe(self, challenge: bytes) -> None:
        arg = _request((EventRequest(challenge, "", [self._run.plan.topic], self._next),))
        content = QueryContent(
            self._who.principal, self._canister, EVENTS_METHOD, arg, time.time_ns() + 200 * 10**9, b""
        )
        body = build_envelope(content, self._who)
        message = cbor.encode({"type": "subscribe", "envelope": body}, self_describe=False)
        self._transport.write(_masked(2, message))


class Run:
    """All subscribers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._loop = asyncio.get_running_loop()
        who = identities(len(plan.canisters))
        self.listeners = [
            Listener(self, who[place], Principal(canister), plan.counts[place])
            for place, canister in enumerate(plan.canisters)
        ]
        self._waiting = set(self.listeners)
        self._open = len(self.listeners)
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._finished = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.times = array("q")

    async def wait(self) -> None:
        for listener in self.listeners:
            await self._connect(listener)
        try:
            async with asyncio.timeout(self.plan.seconds_max):
                await self._done
        except TimeoutError:
            pass
        self._finished = True

    async def _connect(self, listener: Listener) -> None:
        while not self._finished:
            try:
                await self._loop.create_connection(lambda: listener, "127.0.0.1", self.plan.port)
                return
            except OSError:
                await asyncio.sleep(PAUSE_S)

    def subscribed(self, listener: Listener) -> None:
        if listener in self._waiting:
            self._waiting.discard(listener)
            if not self._waiting:
                print("ready", flush=True)

    def again(self, listener: Listener) -> None:
        if not self._finished:
            task = self._loop.create_task(self._later(listener))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(self, listener: Listener) -> None:
        await asyncio.sleep(PAUSE_S)
        await self._connect(listener)

    def note(self, sent_ns: int, accepted_ns: int, heard_ns: int) -> None:
        self.times.extend((sent_ns, accepted_ns, heard_ns))

    def ended(self) -> None:
        self._open -= 1
        if not self._open and not self._done.done():
            self._done.set_result(None)

    def heard(self) -> Heard:
        each = self.listeners
        return Heard(
            sum(1 for e in each if e.heard == e._count and not (e.lost or e.repeated or e.gaps)),
            sum(e.lost + max(0, e._count - e.heard) for e in each),
            sum(e.repeated for e in each),
            sum(e.gaps for e in each),
            sum(e.connects for e in each),
        )


def _uint_size(head: int) -> int:
    return 1 + (0 if head < 24 else 1 << (head - 24))


def _masked(opcode: int, data: bytes) -> bytes:
    """Frame a client's message; the mask is zero, which masks nothing."""
    size = len(data)
    head = bytes((0x80 | opcode,))
    if size < 126:
        head += bytes((0x80 | size,))
    else:
        head += b"\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + data


async def _main(path: Path) -> None:
    plan = msgspec.msgpack.decode(path.read_bytes(), type=Plan)
    run = Run(plan)
    await run.wait()
    Path(plan.heard_path).write_bytes(run.times.tobytes())
    print(msgspec.json.encode(run.heard()).decode(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1])))
