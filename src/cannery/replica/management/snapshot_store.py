"""Where snapshots lie: one record each, the pages of its archive and, where it was uploaded, of its module.

A snapshot belongs to a canister and is known by its number and the canister's id. It counts in the canister's
memory size with its full size from the first, also where an upload has only begun. A snapshot that the node
took names its module by hash; an uploaded one brings the module's bytes. This module asks nobody's rights.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from cannery.errors import Reject, RejectCode
from cannery.limits import SNAPSHOT_COUNT_MAX, SNAPSHOT_PAGE_SIZE_BYTES
from cannery.ports import StoreReader
from cannery.replica import cycles, keys
from cannery.replica.management.request import Change
from cannery.replica.records import RecordDecoder, encode_record
from cannery.replica.state import MessageOverlay
from cannery.replica.view import show

_NUMBER_SIZE_BYTES = 8
_PRINCIPAL_SIZE_BYTES_MAX = 29


class Part(IntEnum):
    """What a page belongs to."""

    ARCHIVE = 1
    MODULE = 2


class SnapshotRecord(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot on disk; `version` is its canister's then, `timer_ns` the time of the next timer, or 0.

    `module_hash` is empty where the snapshot was uploaded: its archive names the module then, and
    `module_bytes` counts what it brings along.
    """

    taken_ns: int
    version: int
    uploaded: bool
    module_hash: bytes
    archive_bytes: int
    module_bytes: int
    certified_data: bytes | None = None
    timer_ns: int = 0

    @property
    def size_bytes(self) -> int:
        """Give what the snapshot counts in its canister's memory size."""
        return self.archive_bytes + self.module_bytes + len(self.certified_data or b"")

    def part_bytes(self, part: Part) -> int:
        """Give the size of a part that has pages."""
        return self.archive_bytes if part is Part.ARCHIVE else self.module_bytes


SNAPSHOT = RecordDecoder(SnapshotRecord, "snapshot")


def snapshot_id(canister_id: bytes, number: int) -> bytes:
    """Give the id of a snapshot: its number, then its canister."""
    return keys.u64(number) + canister_id


def owner_of(wanted: bytes) -> bytes:
    """Give the canister that a snapshot with this id belongs to; nobody's, where it can be no id."""
    owner = wanted[_NUMBER_SIZE_BYTES:]
    return owner if len(owner) <= _PRINCIPAL_SIZE_BYTES_MAX else b""


def find_snapshot(reader: StoreReader | MessageOverlay, canister_id: bytes, wanted: bytes) -> SnapshotRecord:
    """Give a canister's snapshot; raises `Reject` where it has none with this id."""
    stored = None
    if len(wanted) >= _NUMBER_SIZE_BYTES and owner_of(wanted) == canister_id:
        stored = reader.get(keys.numbered(keys.SNAPSHOTS, canister_id, number_of(wanted)))
    if stored is None:
        raise Reject(
            RejectCode.DESTINATION_INVALID,
            f"Canister {show(canister_id)} has no snapshot {wanted[:64].hex() or 'without an id'}: "
            "list_canister_snapshots gives those that it has",
            "IC0305",
        )
    return SNAPSHOT.decode(stored)


def number_of(wanted: bytes) -> int:
    """Give the number in a snapshot's id."""
    return int.from_bytes(wanted[:_NUMBER_SIZE_BYTES], "big")


def list_records(reader: StoreReader, canister_id: bytes) -> Iterator[tuple[int, SnapshotRecord]]:
    """Yield a canister's snapshots by number."""
    for key, data in reader.scan(*keys.owned_range(keys.SNAPSHOTS, canister_id)):
        yield keys.number_of(key), SNAPSHOT.decode(data)


def begin_snapshot(change: Change, canister_id: bytes, replaced: bytes | None) -> int:
    """Make room for one more snapshot and give its number; raises `Reject` where there is none.

    What it replaces goes at once: the message keeps or drops both changes together.
    """
    account, message = change.account(canister_id), change.message
    cycles.settle_storage(message, canister_id)
    if replaced is not None:
        remove_snapshot(change, canister_id, replaced)
    elif sum(1 for _ in list_records(change.request.reader, canister_id)) >= SNAPSHOT_COUNT_MAX:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Canister {show(canister_id)} has {SNAPSHOT_COUNT_MAX} snapshots, as many as it may: "
            "delete one, or name it in replace_snapshot",
            "IC0406",
        )
    number = account.next_number
    account.next_number = number + 1
    return number


def store_snapshot(change: Change, canister_id: bytes, number: int, record: SnapshotRecord) -> None:
    """Store a snapshot's record and count it."""
    change.message.put(keys.numbered(keys.SNAPSHOTS, canister_id, number), encode_record(record))
    change.account(canister_id).snapshot_bytes += record.size_bytes


def check_funded(change: Change, canister_id: bytes) -> None:
    """Raise `Reject` where a canister would be frozen as it is now."""
    canister, account = change.canister(canister_id), change.account(canister_id)
    priced_from_ns = change.message.state.subnet.priced_from_ns
    if cycles.is_frozen(change.request.config, canister, account, change.request.now_ns, priced_from_ns):
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"Canister {show(canister_id)} would be out of cycles with this snapshot: top it up",
            "IC0207",
        )


def remove_snapshot(change: Change, canister_id: bytes, wanted: bytes) -> None:
    """Remove a snapshot; raises `Reject` where there is none with this id."""
    message, number = change.message, number_of(wanted)
    record = find_snapshot(message, canister_id, wanted)
    cycles.settle_storage(message, canister_id)
    message.put(keys.numbered(keys.SNAPSHOTS, canister_id, number), None)
    start = keys.numbered(keys.SNAPSHOT_DATA, canister_id, number)
    message.delete_range(start, keys.after_prefix(start))
    change.account(canister_id).snapshot_bytes -= record.size_bytes


def drop_snapshots(message: MessageOverlay, canister_id: bytes) -> None:
    """Remove all snapshots of a canister that goes."""
    account = message.account(canister_id)
    if account is not None and account.snapshot_bytes:
        cycles.settle_storage(message, canister_id)
        message.delete_range(*keys.owned_range(keys.SNAPSHOTS, canister_id))
        message.delete_range(*keys.owned_range(keys.SNAPSHOT_DATA, canister_id))
        account.snapshot_bytes = 0


# --- pages ---------------------------------------------------------------------------------------------


def read_part(
    reader: StoreReader | MessageOverlay,
    canister_id: bytes,
    wanted: bytes,
    record: SnapshotRecord,
    part: Part,
    offset: int,
    size: int,
) -> bytes:
    """Read bytes of a snapshot's part; what was never uploaded is zero. The range lies within the part."""
    assert 0 <= offset <= offset + size <= record.part_bytes(part), "callers check the range"
    if not size:
        return b""
    first, last = offset // SNAPSHOT_PAGE_SIZE_BYTES, (offset + size - 1) // SNAPSHOT_PAGE_SIZE_BYTES
    pages: list[bytes] = []
    for page in range(first, last + 1):
        stored = reader.get(keys.snapshot_page_key(canister_id, number_of(wanted), part, page)) or b""
        pages.append(stored.ljust(SNAPSHOT_PAGE_SIZE_BYTES, b"\x00"))
    begin = offset - first * SNAPSHOT_PAGE_SIZE_BYTES
    return b"".join(pages)[begin : begin + size]


def write_part(
    message: MessageOverlay, canister_id: bytes, wanted: bytes, part: Part, offset: int, data: bytes
) -> None:
    """Write bytes into a snapshot's part; callers check the range."""
    at, end = offset, offset + len(data)
    while at < end:
        page, begin = divmod(at, SNAPSHOT_PAGE_SIZE_BYTES)
        count = min(SNAPSHOT_PAGE_SIZE_BYTES - begin, end - at)
        piece = data[at - offset : at - offset + count]
        key = keys.snapshot_page_key(canister_id, number_of(wanted), part, page)
        if count < SNAPSHOT_PAGE_SIZE_BYTES:
            stored = (message.get(key) or b"").ljust(begin, b"\x00")
            piece = stored[:begin] + piece + stored[begin + count :]
        message.put(key, piece)
        at += count
