"""Events of canisters: what `ctx.emit` leaves in a canister's own log, for whoever watches its topics.

Numbers are dense for each canister and never come again, not even after a reinstallation. The log keeps the
last events within a bound of count and one of bytes; the oldest go first, and the first number kept says so.
Topics and payloads count to the canister's memory size. Who may watch is the canister's own word.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.errors import Trap
from cannery.limits import (
    EVENT_LOG_COUNT_MAX,
    EVENT_LOG_SIZE_BYTES_MAX,
    EVENT_PAYLOAD_SIZE_BYTES_MAX,
    EVENT_TOPIC_SIZE_BYTES_MAX,
)
from cannery.ports import StoreReader
from cannery.replica import keys, records
from cannery.replica.records import AccountRecord, EventRecord
from cannery.replica.state import Emitted, MessageOverlay


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events with their numbers; `first` is the oldest one kept, `next` the number of the next to come."""

    first: int
    next: int
    events: tuple[tuple[int, EventRecord], ...] = ()


def append_event(
    message: MessageOverlay, account: AccountRecord, canister_id: bytes, topic: str, payload: bytes
) -> tuple[int, int]:
    """Append an event within a message; give its number, and how many old ones had to go for it."""
    number = account.event_next
    record = EventRecord(message.state.time_ns, topic, payload)
    message.put(keys.numbered(keys.EVENTS, canister_id, number), records.encode_record(record))
    message.emit(Emitted(canister_id, number, record))
    account.event_next += 1
    account.event_bytes += event_size_bytes(record)
    dropped_count = 0
    while (
        account.event_bytes > EVENT_LOG_SIZE_BYTES_MAX
        or account.event_next - account.event_first > EVENT_LOG_COUNT_MAX
    ):
        oldest = keys.numbered(keys.EVENTS, canister_id, account.event_first)
        data = message.get(oldest)
        assert data is not None, "all numbers from the first are kept"
        account.event_bytes -= event_size_bytes(records.EVENT.decode(data))
        message.put(oldest, None)
        account.event_first += 1
        dropped_count += 1
    return number, dropped_count


def drop_events(message: MessageOverlay, canister_id: bytes) -> None:
    """Remove a canister's events; their numbers do not come again."""
    account = message.account(canister_id)
    if account is not None and account.event_next > account.event_first:
        message.delete_range(*keys.owned_range(keys.EVENTS, canister_id))
        account.event_first, account.event_bytes = account.event_next, 0


def read_events(
    reader: StoreReader, canister_id: bytes, since: int, count_max: int, size_bytes_max: int
) -> EventPage | None:
    """Give a canister's events from a number on, within bounds; None where there is no such canister.

    Where there is one to give, at least one is given.
    """
    stored = reader.get(keys.owned(keys.ACCOUNTS, canister_id))
    if stored is None:
        return None
    account = records.ACCOUNT.decode(stored)
    found: list[tuple[int, EventRecord]] = []
    size_bytes = 0
    start = max(since, account.event_first)
    if start < account.event_next:
        low = keys.numbered(keys.EVENTS, canister_id, start)
        for key, data in reader.scan(low, keys.owned_range(keys.EVENTS, canister_id)[1]):
            size_bytes += len(data)
            if found and (size_bytes > size_bytes_max or len(found) >= count_max):
                break
            found.append((keys.number_of(key), records.EVENT.decode(data)))
    return EventPage(account.event_first, account.event_next, tuple(found))


def check_event(topic: str, payload: bytes) -> None:
    """Raise `Trap` for a topic or a payload that no event may have."""
    try:
        size_bytes = len(topic.encode())
    except UnicodeEncodeError:
        raise Trap("a topic is text of Unicode characters: this one holds half of a surrogate pair") from None
    if not 1 <= size_bytes <= EVENT_TOPIC_SIZE_BYTES_MAX:
        raise Trap(f"a topic has 1 to {EVENT_TOPIC_SIZE_BYTES_MAX} bytes, got {size_bytes}")
    if len(payload) > EVENT_PAYLOAD_SIZE_BYTES_MAX:
        raise Trap(
            f"an event carries at most {EVENT_PAYLOAD_SIZE_BYTES_MAX} bytes, got {len(payload)}: "
            "keep the data in the state, and emit what tells where it is"
        )


def event_size_bytes(record: EventRecord) -> int:
    """Give the bytes that an event counts in its canister's memory."""
    return len(record.topic.encode()) + len(record.payload)
