"""What the gateway tells a client of the subnet's word on its subscription."""

from __future__ import annotations

import asyncio

import pytest

from cannery.errors import RejectCode
from cannery.node.gateway.push.subscriptions import Subscription, Subscriptions
from cannery.node.handover import Answered, Decided, EventsRead, QueryMessage
from cannery.node.subnet_port import EventListener

CANISTER = b"\x05\x01"
QUERY = QueryMessage(bytes(32), b"\x04", CANISTER, "events_allowed", b"")


class Port:
    """Behind `EventPort`: it takes watches and tells nothing by itself."""

    def listen(self, listener: EventListener) -> None:
        self.listener = listener

    def watch(self, query: QueryMessage) -> int:
        return 1

    def unwatch(self, id: int) -> None:
        pass

    async def read_events(self, canister_id: bytes, since: int) -> EventsRead:
        raise AssertionError("nobody is behind")


class Reader:
    """A connection that keeps what it is sent."""

    is_writable = True

    def __init__(self) -> None:
        self.told: list[bytes] = []

    async def writable(self) -> None:
        pass

    def send(self, frame: bytes) -> None:
        self.told.append(frame)

    def ended(self, subscription: Subscription) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "reason"), [(RejectCode.SYS_TRANSIENT, b"busy"), (RejectCode.CANISTER_REJECT, b"denied")]
)
def test_who_is_told_no_was_denied_and_where_nobody_could_say_it_may_ask_again(
    code: RejectCode, reason: bytes
) -> None:
    async def go() -> list[bytes]:
        reader, port = Reader(), Port()
        subscriptions = Subscriptions(port)
        subscriptions.open(Subscription(reader, CANISTER, ("a",), None, 2**62), QUERY)
        port.listener.decided(Decided(1, Answered(b"", int(code), "the store cannot be read"), 0))
        assert len(subscriptions) == 0
        return reader.told

    (frame,) = asyncio.run(go())
    assert reason in frame
    assert b"the store cannot be read" in frame
