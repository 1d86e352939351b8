"""The record of an HTTP outcall under way, and how it is found: what was asked, until when, whose it is.

It stands under the canister that called and the number of its call in flight, from the round that took the
call until the one that takes an answer or sees it expire. Counts and bytes of all, and of each canister,
stand beside it. This module decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

import msgspec

from cannery.ports import StoreReader
from cannery.replica import keys
from cannery.replica.records import RecordDecoder, encode_record
from cannery.replica.state import MessageOverlay


class OutcallRecord(msgspec.Struct, frozen=True, array_like=True):
    """A request to be performed. `target` is path and query; `cycles` go back with the answer.

    `transform` is the name of the query that the response goes through, empty for none, `context` what it is
    given beside it.
    """

    scheme: str
    host: str
    port: int
    target: str
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    response_size_bytes_max: int
    transform: str
    context: bytes
    cycles: int
    created_ns: int
    deadline_ns: int

    @property
    def size_bytes(self) -> int:
        """What the request keeps in the state."""
        return len(self.target) + len(self.body) + len(self.context)


OUTCALL = RecordDecoder(OutcallRecord, "outcall")
_COUNT = Struct(">QQ")
_ALL = b""


def counts(message: MessageOverlay, canister_id: bytes = _ALL) -> tuple[int, int]:
    """Give count and bytes of the outcalls of a canister that are under way; of all, without one."""
    stored = message.get(keys.owned(keys.OUTCALL_COUNTS, canister_id))
    if stored is None:
        return 0, 0
    count, size_bytes = _COUNT.unpack(stored)
    return count, size_bytes


def store_outcall(message: MessageOverlay, canister_id: bytes, number: int, record: OutcallRecord) -> None:
    """Keep a new outcall."""
    message.put(keys.numbered(keys.OUTCALLS, canister_id, number), encode_record(record))
    message.put(keys.due_key(record.deadline_ns, keys.DUE_OUTCALL, canister_id, number), b"")
    _count(message, canister_id, 1, record.size_bytes)


def take_outcall(message: MessageOverlay, canister_id: bytes, number: int) -> OutcallRecord | None:
    """Take an outcall away and give it; None where it is not under way any more."""
    key = keys.numbered(keys.OUTCALLS, canister_id, number)
    stored = message.get(key)
    if stored is None:
        return None
    record = OUTCALL.decode(stored)
    message.put(key, None)
    message.put(keys.due_key(record.deadline_ns, keys.DUE_OUTCALL, canister_id, number), None)
    _count(message, canister_id, -1, -record.size_bytes)
    return record


def find_outcall(reader: StoreReader, canister_id: bytes, number: int) -> OutcallRecord | None:
    """Give an outcall that is under way in a committed state."""
    stored = reader.get(keys.numbered(keys.OUTCALLS, canister_id, number))
    return None if stored is None else OUTCALL.decode(stored)


def list_outcalls(reader: StoreReader) -> Iterator[tuple[bytes, int]]:
    """Yield canister and number of each outcall that is under way in a committed state."""
    for key, _ in reader.scan(*keys.space_range(keys.OUTCALLS)):
        yield keys.owner_of(key), keys.number_of(key)


def _count(message: MessageOverlay, canister_id: bytes, count: int, size_bytes: int) -> None:
    for owner in (_ALL, canister_id):
        before = counts(message, owner)
        after = before[0] + count, before[1] + size_bytes
        message.put(keys.owned(keys.OUTCALL_COUNTS, owner), _COUNT.pack(*after) if after[0] else None)
