"""How long an events connection is kept: one that subscribes to nothing is not, whatever it sends."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

from websockets.frames import Frame, Opcode

from cannery.node.gateway.push.connection import EventConnection
from cannery.node.gateway.push.subscriptions import Subscription

QUIET_S = 30.0
PING = Frame(Opcode.PING, b"x").serialize(mask=True)


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: Any) -> None:  # whatever is like bytes
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class Clock:
    """The time of a server and of its event loop, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s


def connection(clock: Clock) -> tuple[EventConnection, Wire]:
    """Begin a connection of a server that has this time and nothing else."""
    server: Any = SimpleNamespace(loop=clock, quiet_s=QUIET_S, log=logging.getLogger("test"))
    begun, wire = EventConnection(server, "192.0.2.1", "", bytes(32)), Wire()
    begun.start(wire, b"")
    return begun, wire


def ping_for(begun: EventConnection, clock: Clock, seconds: int) -> None:
    for _ in range(seconds):
        clock.now_s += 1
        begun.data_received(PING)
        begun.check_time(clock.now_s)


def test_pings_alone_keep_no_connection() -> None:
    clock = Clock()
    begun, wire = connection(clock)
    ping_for(begun, clock, int(QUIET_S))
    assert b"nothing is subscribed to" not in wire.written
    ping_for(begun, clock, 1)
    assert b"nothing is subscribed to" in wire.written


def test_a_subscription_that_was_refused_keeps_none_and_one_that_ended_does_for_a_while() -> None:
    for has_begun in (False, True):
        clock = Clock()
        begun, wire = connection(clock)
        ping_for(begun, clock, 20)
        subscription = Subscription(begun, b"\x05\x01", ("a",), None, 2**62)
        subscription.has_begun = has_begun
        begun.ended(subscription)
        ping_for(begun, clock, 20)
        assert (b"nothing is subscribed to" in wire.written) == (not has_begun)
        ping_for(begun, clock, 20)
        assert b"nothing is subscribed to" in wire.written
