"""What gateways, the backup tool and a subnet hand over to each other on a local socket: shapes and framing.

A frame is a 4-byte big-endian length, then one MessagePack array of tagged messages. All that became durable
with one sync travels back in one frame, so that a gateway can sign the answers of a round together. Bytes
larger than `INLINE_SIZE_BYTES_MAX` travel as the place of a file in the spool, never through the socket. Both
ends are processes of one node: a frame that does not decode is a bug or a mixed installation, and closes the
connection.

This module opens no socket and reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from cannery.errors import DecodeError
from cannery.limits import FRAME_ROOM_SIZE_BYTES, FRAME_SIZE_BYTES_MAX, FRAME_TARGET_SIZE_BYTES
from cannery.node.vitals import Vitals
from cannery.replica.block import StreamSlice
from cannery.replica.elsewhere import AskedBy, Elsewhere, KnownAnswer


class FrameError(DecodeError):
    """A frame between processes of this node does not decode."""


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """Bytes that stand in a spool file instead of in the message."""

    path: str
    offset: int
    size_bytes: int


class IngressMessage(msgspec.Struct, frozen=True, array_like=True):
    """An authenticated update call. With `spooled`, `arg` is empty and the argument stands in that file."""

    request_id: bytes
    sender: bytes
    canister_id: bytes
    method: str
    arg: bytes
    expiry_ns: int
    spooled: Spooled | None = None


class QueryMessage(msgspec.Struct, frozen=True, array_like=True):
    """An authenticated query call, or one that a canister of another subnet asks (`asked_by`).

    With `spooled`, `arg` is empty and the argument stands in that file. `known`: what others have said.
    """

    request_id: bytes
    sender: bytes
    canister_id: bytes
    method: str
    arg: bytes
    spooled: Spooled | None = None
    asked_by: AskedBy | None = None
    known: tuple[KnownAnswer, ...] = ()


class StateRead(msgspec.Struct, frozen=True, array_like=True):
    """Paths of the certified state that a sender wants; all but `time` and `subnet` paths, which the gateway
    knows.
    """

    sender: bytes
    canister_id: bytes
    paths: tuple[tuple[bytes, ...], ...]


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """An answer: a reply (`reject_code` 0; its bytes in `reply` or in a spool file), or a reject with its
    text.

    Whoever receives `spooled` owns that file and deletes it after use.
    """

    reply: bytes = b""
    reject_code: int = 0
    reject_message: str = ""
    error_code: str | None = None
    spooled: Spooled | None = None


class AnswerSignature(msgspec.Struct, frozen=True, array_like=True):
    """The node's signature of a query's answer, at a time (`sign_query_answer`)."""

    timestamp_ns: int
    signature: bytes


# --- gateway to subnet --------------------------------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Order this ingress message. Answered by `Accepted` and later `Settled`, by `Settled` alone, or by
    `Refused`.
    """

    id: int
    ingress: IngressMessage


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Run this query. Answered by `QueryDone`."""

    id: int
    query: QueryMessage


class Read(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Read these paths. Answered by `Values`."""

    id: int
    read: StateRead


class Measure(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Give the subnet's metrics. Answered by `Measured`."""

    id: int


class Examine(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Say how the subnet is. Answered by `Examined`."""

    id: int


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Copy the store beside itself, by hard links (`DataDir.checkpoint`). Answered by `Checkpointed`."""

    id: int


class Hold(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Take nothing from other subnets until this connection closes, or `HOLD_S_MAX`. Answered by `Held`."""

    id: int


class Watch(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """Ask a canister which events this sender may have, and again whenever what it read for its answer
    changes, until `Unwatch`; and send the canister's events. Answered by `Decided`, each time.
    """

    id: int
    query: QueryMessage


class Unwatch(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """End a watch. Not answered."""

    id: int


class ReadEvents(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Give a canister's events from a number on, a page at most. Answered by `EventsRead`."""

    id: int
    canister_id: bytes
    since: int


class Follow(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Send subnet `subnet` the stream to it from number `first` on, as rounds become durable: `Slice`s."""

    id: int
    subnet: int
    first: int


class Received(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """Subnet `subnet` has durably received what was sent to it below this number. Not answered."""

    subnet: int
    received: int


# --- subnet to gateway --------------------------------------------------------------------------------------


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The message is durable in a block; its answer is not there yet."""

    id: int


class Settled(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The message has its final, durable answer."""

    id: int
    time_ns: int
    answer: Answered


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """The message was not let in (a non-replicated rejection)."""

    id: int
    reject_code: int
    reject_message: str
    error_code: str | None = None


class QueryDone(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """A query's answer, and the time of the state it was computed on; with `wanted`, what it needs first.

    Without `signature` it is left to the gateway to sign what it makes of the answer.
    """

    id: int
    time_ns: int
    answer: Answered
    wanted: Elsewhere | None = None
    signature: AnswerSignature | None = None


class Values(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Values of the paths asked for, in their order; None where proven absent. `denied` says why there are
    none.
    """

    id: int
    time_ns: int
    values: tuple[bytes | None, ...]
    denied: str | None = None


class Measured(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """The subnet's metrics in Prometheus' text format."""

    id: int
    text: str


class Examined(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """How the subnet is."""

    id: int
    vitals: Vitals


class Checkpointed(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """The copy holds the state after this block, which is durable; or why there is none."""

    id: int
    block: int
    error: str | None = None


class EventItem(msgspec.Struct, frozen=True, array_like=True):
    """An event of a canister."""

    number: int
    time_ns: int
    topic: str
    payload: bytes


class Held(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """Nothing is taken from other subnets now."""

    id: int


class Decided(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """What the canister says to a watch, by the state of the last durable round; `next` is the number of its
    next event.
    """

    id: int
    answer: Answered
    next: int


class EventsRead(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """A page of a canister's events; `first` is the oldest that is kept, `next` the next to come."""

    id: int
    first: int
    next: int
    events: tuple[EventItem, ...]
    error: str | None = None


class Stale(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """What these watches were told no longer counts from this round on; `Decided` follows for each."""

    ids: tuple[int, ...]


class Events(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """A watched canister's events of durable rounds, in order; the `Stale` of their rounds comes first."""

    canister_id: bytes
    events: tuple[EventItem, ...]


class Slice(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """Messages of this subnet's stream, to the subnet that follows it."""

    id: int
    slice: StreamSlice


ToSubnet = (
    Submit
    | Ask
    | Read
    | Measure
    | Examine
    | Checkpoint
    | Hold
    | Watch
    | Unwatch
    | ReadEvents
    | Follow
    | Received
)
ToGateway = (
    Accepted
    | Settled
    | Refused
    | QueryDone
    | Values
    | Measured
    | Examined
    | Checkpointed
    | Held
    | Decided
    | EventsRead
    | Stale
    | Events
    | Slice
)

_HEADER_SIZE: Final = 4
_encoder: Final = msgspec.msgpack.Encoder()
_to_subnet: Final = msgspec.msgpack.Decoder(list[ToSubnet])
_to_gateway: Final = msgspec.msgpack.Decoder(list[ToGateway])


def encode_frames(messages: Iterable[ToSubnet] | Iterable[ToGateway]) -> list[bytes]:
    """Encode messages in as few frames as their sizes allow: header and body of each by turns, to be written
    together.
    """
    pieces: list[bytes] = []
    batch: list[ToSubnet | ToGateway] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += _size_of(message)
        if size >= FRAME_TARGET_SIZE_BYTES:
            pieces += _encode_frame(batch)
            batch, size = [], 0
    if batch:
        pieces += _encode_frame(batch)
    return pieces


def decode_to_subnet(body: bytes | memoryview) -> list[ToSubnet]:
    """Decode one frame's body at the subnet's end."""
    try:
        return _to_subnet.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a frame from a gateway does not decode: {error}") from error


def decode_to_gateway(body: bytes | memoryview) -> list[ToGateway]:
    """Decode one frame's body at a gateway's end."""
    try:
        return _to_gateway.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a frame from the subnet does not decode: {error}") from error


class FrameSplitter:
    """Cuts a byte stream into frame bodies; keeps what has not arrived completely yet.

    A socket reads into `room`, and each body is a view of what came: nothing is copied on the way.
    """

    __slots__ = ("_end", "_start", "_view")

    def __init__(self) -> None:
        self._view = memoryview(bytearray(FRAME_ROOM_SIZE_BYTES))
        self._start = self._end = 0

    def room(self) -> memoryview:
        """Give the place for the bytes that come next: at least one."""
        return self._view[self._end :]

    def took(self, count: int) -> Iterator[memoryview]:
        """Note that so many bytes came, and yield each body that is complete: it holds until the next one."""
        self._end += count
        wanted = _HEADER_SIZE
        while self._end - self._start >= _HEADER_SIZE:
            begin = self._start + _HEADER_SIZE
            size = int.from_bytes(self._view[self._start : begin], "big")
            if size > FRAME_SIZE_BYTES_MAX:
                raise FrameError(f"a frame of {size} bytes is larger than {FRAME_SIZE_BYTES_MAX}")
            if self._end - begin < size:
                wanted = _HEADER_SIZE + size
                break
            self._start = begin + size
            yield self._view[begin : self._start]
        self._make_room(wanted)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes that were received elsewhere and yield each body that is complete."""
        at = 0
        while at < len(data):
            room = self.room()
            count = min(len(room), len(data) - at)
            room[:count] = data[at : at + count]
            at += count
            for body in self.took(count):
                yield bytes(body)

    def _make_room(self, wanted: int) -> None:
        """Put the frame that has begun, of `wanted` bytes, in front, with room for all of it."""
        old, begun = self._view, self._end - self._start
        size = max(wanted, FRAME_ROOM_SIZE_BYTES)
        if len(old) < size or (len(old) > size and not begun):
            self._view = memoryview(bytearray(size))
        if begun:
            self._view[:begun] = old[self._start : self._end]
        self._start, self._end = 0, begun


def _encode_frame(batch: list[ToSubnet | ToGateway]) -> tuple[bytes, bytes]:
    body = _encoder.encode(batch)
    if len(body) > FRAME_SIZE_BYTES_MAX:
        raise FrameError(f"a message of {len(body)} bytes does not fit a frame of {FRAME_SIZE_BYTES_MAX}")
    return len(body).to_bytes(_HEADER_SIZE, "big"), body


def _size_of(message: ToSubnet | ToGateway) -> int:
    """Estimate a message's encoded size from its large part."""
    match message:
        case QueryDone(answer=answer) | Settled(answer=answer) | Decided(answer=answer):
            return 64 + len(answer.reply) + len(answer.reject_message)
        case Ask(query=query) | Watch(query=query):
            known = sum(len(each.reply) + len(each.arg) + 64 for each in query.known) if query.known else 0
            return 160 + len(query.arg) + known
        case Submit(ingress=ingress):
            return 160 + len(ingress.arg)
        case Events(events=events) | EventsRead(events=events):
            return 64 + sum(len(event.payload) + len(event.topic) + 32 for event in events)
        case Read(read=read):
            return 64 + sum(len(label) + 4 for path in read.paths for label in path)
        case Slice(slice=found):
            return 64 + sum(len(entry) + 8 for entry in found.entries)
        case Values(values=values):
            return 64 + sum(len(value) + 4 for value in values if value is not None)
        case _:
            return 64
