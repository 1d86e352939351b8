"""Where the messages of a topic lie: each alone, or side by side in a block.

Messages come alone. From time to time the last ones of a topic are sealed into a block: one value with their
Candid bytes as an answer has them, so that a long history is read with few reads and little work. A block
grows until it is full, stands under the id of its last message and names the message before it, which tells
a reader, without a look, whether messages lie alone in between. Where the oldest messages of a block go, a
few of them come out of it at a time, so that what is dropped is gone and dropping stays cheap.

State: `.entries` (topic's number, id) -> message; `.blocks` (topic's number, id of the last) -> block.
Messages are given and taken as the Candid bytes of a `TopicMessage`; their count is kept by `topic_log`.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from itertools import islice
from struct import Struct

import msgspec

from cannery import limits
from cannery.candid.values import Packed
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.topic_records import Topic, TopicBlock, TopicMessage
from cannery.ports import System

TYPE_SIZE_BYTES = 8
# A message's bytes: id, time, the hash behind its length, size, the payload behind its length.
HEAD_SIZE_BYTES = 8 + 8 + 1 + 32 + 4
_TIME = slice(8, 16)
_DIGEST = slice(17, 49)
_ENTRY_KEY = Struct(">IQ")
# A block's bytes: its type, the id before it, the count of its messages, the messages.
_PREVIOUS = slice(TYPE_SIZE_BYTES, TYPE_SIZE_BYTES + 8)
_COUNT_AT = TYPE_SIZE_BYTES + 8
_COUNT_INLINE_MAX = 127
_ID_END = 2**64 - 1


# Structs, for they are made by the thousand in one query.
class Run(msgspec.Struct, frozen=True):
    """Messages of one topic that follow each other, oldest first, with the ids of the first and the last."""

    first: int
    last: int
    count: int
    data: bytes


class _Block(msgspec.Struct, frozen=True):
    previous: int
    run: Run


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Cut the bytes of several messages into ids and messages."""
    return [(int.from_bytes(message[:8], "little"), message) for message in messages_of(data)]


def messages_of(data: bytes) -> list[bytes]:
    """Cut the bytes of several messages."""
    found: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        stop = at + HEAD_SIZE_BYTES
        size = data[stop]
        stop += 1
        if size >= 0x80:
            size, stop = _long_size(data, stop - 1)
        stop += size
        found.append(data[at:stop])
        at = stop
    return found


def _long_size(data: bytes, at: int) -> tuple[int, int]:
    """Read a length of more than one byte; give it and where it ends."""
    size, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size, at
        shift += 7


def time_of(message: bytes) -> int:
    """Give a message's time, in nanoseconds since 1970."""
    return int.from_bytes(message[_TIME], "little")


def digest_of(message: bytes) -> bytes:
    """Give the SHA-256 of a message's payload."""
    return message[_DIGEST]


class TopicEntries:
    """The messages of one log, by the numbers of their topics."""

    def __init__(
        self,
        system: System,
        slots: tuple[bytes, bytes],
        codec: ValueCodec[TopicMessage],
        blocks: ValueCodec[TopicBlock],
    ) -> None:
        self._system = system
        self._slot, self._block_slot = slots
        self._codec = codec
        self._block_codec = blocks
        # The block of each topic that was looked into last: ids mostly rise.
        self._near: dict[int, tuple[_Block, dict[int, bytes]]] = {}

    # one message

    def get(self, number: int, id: int) -> bytes | None:
        """Give a message; None where it is not there."""
        near = self._near.get(number)
        if near is not None and id in near[1]:
            return near[1][id]
        value = self._system.get(self._entry_key(number, id))
        if value is not None:
            return self._message(value)
        found = self._block_of(number, id)
        return None if found is None else found[1].get(id)

    def add(self, number: int, id: int, message: TopicMessage) -> int:
        """Store a message; return the size of its bytes."""
        value = self._codec.write(message)
        self._system.put(self._entry_key(number, id), value)
        return len(value) - TYPE_SIZE_BYTES

    def replace(self, number: int, id: int, message: bytes) -> None:
        """Store another message in the place of one."""
        key = self._entry_key(number, id)
        if self._system.get(key) is not None:
            self._system.put(key, self._codec.number + message)
            return
        found = self._block_of(number, id)
        assert found is not None, "a message lies alone or in a block"
        block, held = found
        messages = [(each, message if each == id else data) for each, data in held.items()]
        self._put_block(number, block.previous, messages)

    def drop(self, number: int, id: int) -> None:
        """Remove the oldest message of a topic."""
        if self._system.delete(self._entry_key(number, id)):
            return
        found = self._block_of(number, id)
        assert found is not None, "a message lies alone or in a block"
        (first, _), *rest = found[1].items()
        assert first == id, "what goes is the oldest"
        apart = limits.TOPIC_BLOCK_APART_COUNT
        if len(rest) - apart < limits.TOPIC_BLOCK_COUNT_MIN:
            apart = len(rest)
            self._system.delete(self._block_key(number, found[0].run.last))
            self._near.pop(number, None)
        else:
            self._put_block(number, rest[apart - 1][0], rest[apart:])
        for each, data in rest[:apart]:
            self._system.put(self._entry_key(number, each), self._codec.number + data)

    # many messages

    def runs(self, number: int, topic: Topic, low: int, high: int, *, reverse: bool = False) -> Iterator[Run]:
        """Give the messages with ids from `low` up to `high`; `reverse`: the newest run comes first.

        A run is a block, or messages that lie alone: one, then twice as many each time.
        """
        low, high = max(low, topic.first), min(high, topic.last + 1)
        if low >= high:
            return iter(())
        if topic.count < limits.TOPIC_BLOCK_COUNT_MIN:
            return self._alone(number, low, high, reverse)
        if reverse:
            return self._backward(number, topic.last, low, high)
        return self._forward(number, low, high)

    def _forward(self, number: int, low: int, high: int) -> Iterator[Run]:
        at = low
        for block in self._blocks(number, low, _ID_END):
            run = block.run
            if block.previous >= at:
                yield from self._alone(number, at, min(run.first, high), False)
            if run.first >= high:
                return
            yield from _cut(run, at, high)
            at = run.last + 1
            if at >= high:
                return
        yield from self._alone(number, at, high, False)

    def _backward(self, number: int, last: int, low: int, high: int) -> Iterator[Run]:
        until, tip = high, last
        for block in self._blocks_back(number, last, low, high):
            run = block.run
            if run.first < high:
                if tip > run.last:
                    yield from self._alone(number, run.last + 1, until, True)
                yield from _cut(run, low, high)
                until = run.first
            tip = block.previous
        if tip >= low:
            yield from self._alone(number, low, until, True)

    def _alone(self, number: int, low: int, high: int, reverse: bool) -> Iterator[Run]:
        if low >= high:
            return
        at = len(self._slot) + 4
        start, end = self._entry_key(number, low), self._entry_key(number, high)
        ids: list[int] = []
        parts: list[bytes] = []
        size, wanted = 0, 1
        for key, value in self._system.scan(start, end, reverse=reverse):
            ids.append(int.from_bytes(key[at:], "big"))
            parts.append(self._message(value))
            size += len(value)
            if len(ids) == wanted or size > limits.TOPIC_BLOCK_SIZE_BYTES_MAX:
                yield _joined(ids, parts, reverse)
                ids, parts, size, wanted = [], [], 0, 2 * wanted
        if ids:
            yield _joined(ids, parts, reverse)

    def _blocks(self, number: int, low: int, high: int, *, reverse: bool = False) -> Iterator[_Block]:
        """Give the blocks whose last ids are from `low` up to `high`."""
        at = len(self._block_slot) + 4
        start, end = self._block_key(number, low), self._block_key(number, high)
        for key, value in self._system.scan(start, end, reverse=reverse):
            yield self._block(int.from_bytes(key[at:], "big"), value)

    def _blocks_back(self, number: int, last: int, low: int, high: int) -> Iterator[_Block]:
        """Give the blocks that reach into a range, the newest first, and the one behind it, if there is."""
        if high <= last:
            behind = next(self._blocks(number, high, _ID_END), None)
            if behind is not None:
                yield behind
        yield from self._blocks(number, low, high, reverse=True)

    # sealing

    def seal(self, number: int, last: int) -> None:
        """Put the last messages of a topic that lie alone into its newest block, or into a new one.

        What does not fit a block stays where it is.
        """
        newest = next(self._blocks(number, 0, _ID_END, reverse=True), None)
        previous = 0 if newest is None else newest.run.last
        tail: list[tuple[int, bytes]] = []
        size = 0
        for id, message in self._alone_back(number, previous, last):
            size += len(message)
            if len(tail) == limits.TOPIC_BLOCK_COUNT_MAX or size > limits.TOPIC_BLOCK_SIZE_BYTES_MAX:
                previous = id
                break
            tail.append((id, message))
        if len(tail) < limits.TOPIC_BLOCK_COUNT_MIN:
            return
        tail.reverse()
        for id, _ in tail:
            self._system.delete(self._entry_key(number, id))
        if newest is not None and newest.run.last == previous and _fits(newest.run, len(tail), size):
            self._system.delete(self._block_key(number, previous))
            previous = newest.previous
            tail = [*split(newest.run.data), *tail]
        self._put_block(number, previous, tail)

    def _alone_back(self, number: int, after: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Give the messages that lie alone behind an id, the newest first, to one more than fit a block."""
        at = len(self._slot) + 4
        start, end = self._entry_key(number, after + 1), self._entry_key(number, last + 1)
        scanned = self._system.scan(start, end, reverse=True)
        for key, value in islice(scanned, limits.TOPIC_BLOCK_COUNT_MAX + 1):
            yield int.from_bytes(key[at:], "big"), self._message(value)

    # bytes

    def _entry_key(self, number: int, id: int) -> bytes:
        return self._slot + _ENTRY_KEY.pack(number, id)

    def _block_key(self, number: int, id: int) -> bytes:
        return self._block_slot + _ENTRY_KEY.pack(number, id)

    def _message(self, value: bytes) -> bytes:
        if value[:TYPE_SIZE_BYTES] == self._codec.number:
            return value[TYPE_SIZE_BYTES:]
        return self._codec.write(self._codec.read(value, self._system))[TYPE_SIZE_BYTES:]

    def _block_of(self, number: int, id: int) -> tuple[_Block, dict[int, bytes]] | None:
        """Give the block in whose range an id is, with its messages, oldest first."""
        near = self._near.get(number)
        if near is not None and id in near[1]:
            return near
        block = next(self._blocks(number, id, _ID_END), None)
        if block is None or id < block.run.first:
            return None
        if len(self._near) >= limits.TOPIC_BLOCKS_HELD_COUNT_MAX:
            self._near.clear()
        found = self._near[number] = block, dict(split(block.run.data))
        return found

    def _block(self, last: int, value: bytes) -> _Block:
        if value[:TYPE_SIZE_BYTES] != self._block_codec.number:
            value = self._block_codec.write(self._block_codec.read(value, self._system))
        count, data = value[_COUNT_AT], value[_COUNT_AT + 1 :]
        assert count <= _COUNT_INLINE_MAX, "a block has fewer messages than take a second byte"
        first = int.from_bytes(data[:8], "little")
        return _Block(int.from_bytes(value[_PREVIOUS], "little"), Run(first, last, count, data))

    def _put_block(self, number: int, previous: int, messages: list[tuple[int, bytes]]) -> None:
        packed = Packed(len(messages), b"".join(data for _, data in messages))
        # The messages are encoded already, which an encoder takes for a list of them.
        block = TopicBlock(previous, typing.cast(list[TopicMessage], packed))
        self._system.put(self._block_key(number, messages[-1][0]), self._block_codec.write(block))
        self._near.pop(number, None)


def _joined(ids: list[int], parts: list[bytes], reverse: bool) -> Run:
    if reverse:
        ids.reverse()
        parts.reverse()
    return Run(ids[0], ids[-1], len(ids), parts[0] if len(parts) == 1 else b"".join(parts))


def _fits(run: Run, count: int, size_bytes: int) -> bool:
    return (
        run.count + count <= limits.TOPIC_BLOCK_COUNT_MAX
        and len(run.data) + size_bytes <= limits.TOPIC_BLOCK_SIZE_BYTES_MAX
    )


def _cut(run: Run, low: int, high: int) -> Iterator[Run]:
    """Give what is from `low` up to `high` of a run, if anything is."""
    if run.first >= low and run.last < high:
        yield run
        return
    kept = [(id, data) for id, data in split(run.data) if low <= id < high]
    if kept:
        yield Run(kept[0][0], kept[-1][0], len(kept), b"".join(data for _, data in kept))
