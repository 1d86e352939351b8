"""What a subnet sends those who follow its stream, where its store cannot be read for a while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cannery.errors import StoreError
from cannery.node.followers import Followers
from cannery.node.handover import Follow, Slice, ToGateway
from cannery.node.links import Links
from cannery.replica.block import StreamSlice
from cannery.replica.records import StreamHead


class Outgoing:
    is_full = False

    def __init__(self) -> None:
        self.sent: list[ToGateway] = []

    def post(self, message: ToGateway) -> None:
        self.sent.append(message)

    def close(self) -> None:
        raise AssertionError("it goes on")


def test_what_cannot_be_read_is_named_and_sent_when_it_can_be() -> None:
    entries = [b"one"]
    is_damaged = False

    def slice_for(peer: int, first: int) -> StreamSlice:
        if is_damaged:
            raise StoreError("block checksum mismatch")
        return StreamSlice(0, first, tuple(entries[first:]), 1, len(entries))

    subnet: Any = SimpleNamespace(
        number=0,
        links=Links(),
        slice_for=slice_for,
        sent_to=lambda peer: StreamHead(0, len(entries)),
        is_unacknowledged=lambda peer, received: False,
    )
    followers, outgoing = Followers(lambda: subnet), Outgoing()
    followers.follow(outgoing, Follow(1, 1, 0))
    entries.append(b"two")
    is_damaged = True
    followers.note_durable()
    assert subnet.links.fault == "subnet 1 is not told all: block checksum mismatch"
    is_damaged = False
    followers.note_durable()
    assert subnet.links.fault is None
    slices = [message.slice for message in outgoing.sent if isinstance(message, Slice)]
    assert [entry for found in slices for entry in found.entries] == [b"one", b"two"]
