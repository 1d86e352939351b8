"""The archive of a snapshot: module hash, collections, timers and stable state as one run of bytes.

    archive = "CANSNAP" 01 ‖ size of the head (4 bytes) ‖ head ‖ entries
    head    = MessagePack array: module hash, encoded schema, encoded types, timers
    timer   = MessagePack array: number, method, due time, interval, saved value
    entry   = size of the key (2 bytes) ‖ size of the value (4 bytes) ‖ key ‖ value

Numbers are big-endian; types stand in the order of their numbers, timers in the order of theirs, entries in
the order of their keys, so that equal states give equal archives. docs/snapshots.md describes the format, and
`tests/formats/snapshot-1.bin` must open for ever. This module reads no state and checks no types: that is
`snapshot_check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct

import msgspec

from cannery.errors import DecodeError
from cannery.limits import SNAPSHOT_PAGE_SIZE_BYTES, STATE_KEY_SIZE_BYTES_MAX

ARCHIVE_MAGIC = b"CANSNAP\x01"

_HEAD_SIZE = Struct(">I")
_ENTRY = Struct(">HI")
_HEAD_START = len(ARCHIVE_MAGIC) + _HEAD_SIZE.size


class ArchiveError(DecodeError):
    """Bytes are not an archive that this version reads; the text says where and what."""


class ArchivedTimer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A timer: its number, its method, when it is due, how often, and its saved value."""

    number: int
    method: str
    due_ns: int
    every_ns: int
    saved: bytes


class ArchiveHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All of an archive but its entries; `schema` is encoded as the kit does, `types` are Candid types."""

    module_hash: bytes
    schema: bytes
    types: tuple[bytes, ...]
    timers: tuple[ArchivedTimer, ...]


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(ArchiveHead)


class ArchiveWriter:
    """Writes an archive in pages of `SNAPSHOT_PAGE_SIZE_BYTES` by `put(page, bytes)`, the last at `close`."""

    __slots__ = ("_parts", "_put", "_waiting_bytes", "entry_count", "pages", "size_bytes")

    def __init__(self, head: ArchiveHead, put: Callable[[int, bytes], None]) -> None:
        self._put = put
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self.pages = 0
        self.size_bytes = 0
        self.entry_count = 0
        encoded = _ENCODE(head)
        self._write(ARCHIVE_MAGIC + _HEAD_SIZE.pack(len(encoded)) + encoded)

    def add(self, key: bytes, value: bytes) -> None:
        """Add an entry; keys come in their order."""
        self.entry_count += 1
        self._write(_ENTRY.pack(len(key), len(value)) + key + value)

    def close(self) -> None:
        """Write what is left."""
        if self._waiting_bytes:
            self._put(self.pages, b"".join(self._parts))
            self.pages += 1
            self._parts, self._waiting_bytes = [], 0

    def _write(self, data: bytes) -> None:
        self._parts.append(data)
        self._waiting_bytes += len(data)
        self.size_bytes += len(data)
        if self._waiting_bytes >= SNAPSHOT_PAGE_SIZE_BYTES:
            self._flush()

    def _flush(self) -> None:
        whole = b"".join(self._parts)
        end = len(whole) - len(whole) % SNAPSHOT_PAGE_SIZE_BYTES
        for start in range(0, end, SNAPSHOT_PAGE_SIZE_BYTES):
            self._put(self.pages, whole[start : start + SNAPSHOT_PAGE_SIZE_BYTES])
            self.pages += 1
        self._parts, self._waiting_bytes = [whole[end:]], len(whole) - end


def read_head(archive: bytes) -> tuple[ArchiveHead, int]:
    """Read the head of an archive, and the place where its entries begin; raises `ArchiveError`."""
    if archive[: len(ARCHIVE_MAGIC)] != ARCHIVE_MAGIC:
        raise ArchiveError(
            f"the archive begins with {archive[: len(ARCHIVE_MAGIC)].hex() or 'nothing'}, not with "
            f"{ARCHIVE_MAGIC.hex()}: its upload is not finished, or it is of another version or no snapshot"
        )
    if len(archive) < _HEAD_START:
        raise ArchiveError("the archive ends inside its head")
    (size,) = _HEAD_SIZE.unpack_from(archive, len(ARCHIVE_MAGIC))
    end = _HEAD_START + size
    if end > len(archive):
        raise ArchiveError("the archive ends inside its head")
    encoded = archive[_HEAD_START:end]
    try:
        head = _DECODER.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveError(f"the archive's head does not decode: {error}") from None
    if _ENCODE(head) != encoded:
        raise ArchiveError("the archive's head is not in its one form")
    return head, end


def read_entries(archive: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of an archive in key order; raises `ArchiveError`."""
    at, size, before = start, len(archive), b""
    unpack, entry_size = _ENTRY.unpack_from, _ENTRY.size
    while at < size:
        if at + entry_size > size:
            raise ArchiveError(f"the archive ends inside an entry, at byte {at}")
        key_size, value_size = unpack(archive, at)
        middle = at + entry_size + key_size
        end = middle + value_size
        if end > size:
            raise ArchiveError(f"the archive ends inside an entry, at byte {at}")
        key = archive[at + entry_size : middle]
        if key <= before or key_size > STATE_KEY_SIZE_BYTES_MAX:
            raise ArchiveError(
                f"the key at byte {at} is empty, too long or out of order: the upload is not finished, or "
                "the archive is damaged"
            )
        yield key, archive[middle:end]
        at, before = end, key
