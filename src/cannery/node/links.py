"""A subnet's ends of its streams: what came in from other subnets and waits for a block, and what may go out.

A message leaves when its round is durable, and the word that one was received when that round is: so a crash
of either side takes back nothing that the other has seen. `StreamPort` is what carries slices and
acknowledgements to and fro (a local socket, a test's hand, in a cluster a log); it may lose, repeat and delay
what it carries, as the state machine drops repetitions and asks again for what is missing.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from cannery.limits import STREAM_SLICE_COUNT_MAX, STREAM_SLICE_SIZE_BYTES_MAX
from cannery.ports import StoreReader
from cannery.replica import keys
from cannery.replica.block import PeerLost, StreamAck, StreamSlice
from cannery.replica.records import STREAM_HEAD, SUBNET, StreamHead

_WAITING_SIZE_BYTES_MAX: Final = 2 * STREAM_SLICE_SIZE_BYTES_MAX

StreamInput = StreamSlice | StreamAck | PeerLost


class StreamPort(Protocol):
    """What carries a subnet's streams: it is told after each sync that there may be something to carry."""

    def note_durable(self) -> None: ...


def find_stream_head(reader: StoreReader, peer: int) -> StreamHead:
    """Give the counters of the streams to and from a subnet."""
    data = reader.get(keys.stream_head_key(peer))
    return StreamHead() if data is None else STREAM_HEAD.decode(data)


def read_slice(reader: StoreReader, subnet: int, peer: int, first: int) -> StreamSlice:
    """Read the stream of `subnet`, whose state this is, to `peer`, from a number on: at least one message if
    there is any, whatever its size.
    """
    head = find_stream_head(reader, peer)
    first = max(first, head.first)
    end = min(head.next, first + STREAM_SLICE_COUNT_MAX)
    entries: list[bytes] = []
    size = 0
    for _, data in reader.scan(keys.stream_key(peer, first), keys.stream_key(peer, end)):
        size += len(data)
        if entries and size > STREAM_SLICE_SIZE_BYTES_MAX:
            break
        entries.append(data)
    stored = reader.get(keys.SUBNET_KEY)
    count = 0 if stored is None else SUBNET.decode(stored).canister_count
    return StreamSlice(subnet, first, tuple(entries), count, head.next)


class _Sender(Protocol):
    @property
    def number(self) -> int: ...

    def sent_to(self, peer: int) -> StreamHead: ...


def find_histories_fault(subnet: _Sender, peer: int, received: int) -> str | None:
    """Say what is wrong where another subnet has received more than this one has sent, or wants what this one
    has forgotten: one of the two was set back alone.
    """
    head = subnet.sent_to(peer)
    if head.first <= received <= head.next:
        return None
    return (
        f"subnet {peer} has received {received} messages of subnet {subnet.number}, which has sent "
        f"{head.next} and forgotten the first {head.first}: one of them was restored alone; "
        "restore both of one backup"
    )


class Links:
    """What other subnets have sent and no block has taken yet; bounded, since whoever brings it waits while
    `is_full`.
    """

    def __init__(self) -> None:
        self._slices: deque[StreamSlice | PeerLost] = deque()
        self._acks: dict[int, int] = {}
        self._size_bytes = 0
        self._faults: dict[int, str] = {}
        self.is_held = False
        """While true no block takes anything: copies of all subnets made meanwhile fit each other."""

    @property
    def fault(self) -> str | None:
        """Why a subnet is not heard or not told, if one is not."""
        return next(iter(self._faults.values()), None)

    def note_fault(self, peer: int, text: str | None) -> None:
        """Note that a subnet cannot be talked to, or None that it can."""
        if text is None:
            self._faults.pop(peer, None)
        else:
            self._faults[peer] = text

    def __len__(self) -> int:
        """Count what a block may take."""
        return 0 if self.is_held else len(self._slices) + len(self._acks)

    @property
    def is_full(self) -> bool:
        return self._size_bytes >= _WAITING_SIZE_BYTES_MAX

    def put(self, found: StreamInput) -> None:
        """Let a slice, an acknowledgement or the loss of a subnet wait for a block."""
        if isinstance(found, StreamAck):
            self._acks[found.subnet] = max(found.received, self._acks.get(found.subnet, 0))
        else:
            self._slices.append(found)
            self._size_bytes += _size_of(found)

    def take(self, size_bytes_max: int) -> tuple[StreamInput, ...]:
        """Take what waits, for a block: at least one slice, whatever its size; nothing while it is held."""
        if self.is_held:
            return ()
        taken: list[StreamInput] = [StreamAck(subnet, self._acks[subnet]) for subnet in sorted(self._acks)]
        self._acks.clear()
        size = 0
        while self._slices:
            size += _size_of(self._slices[0])
            if size > size_bytes_max and size > _size_of(self._slices[0]):
                break
            found = self._slices.popleft()
            self._size_bytes -= _size_of(found)
            taken.append(found)
        return tuple(taken)

    def put_back(self, inputs: tuple[StreamInput, ...]) -> None:
        """Put back what a block had taken that came to nothing."""
        slices = [found for found in inputs if not isinstance(found, StreamAck)]
        self._slices.extendleft(reversed(slices))
        self._size_bytes += sum(map(_size_of, slices))
        for found in inputs:
            if isinstance(found, StreamAck):
                self.put(found)


def _size_of(found: StreamSlice | PeerLost) -> int:
    return 0 if isinstance(found, PeerLost) else sum(map(len, found.entries))
