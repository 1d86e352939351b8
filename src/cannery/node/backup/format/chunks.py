"""Chunks: runs of a unit's entries, cut where the content says, and known by their SHA-256.

    chunk = entries
    entry = size of the key (2 bytes) ‖ size of the value (4 bytes) ‖ key ‖ value

Numbers are big-endian; keys rise strictly within a unit. Where a chunk ends depends on the key and size of
its last entry alone, so that what is added or taken away in one place moves no boundary elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from zlib import crc32

from cannery.limits import BACKUP_CHUNK_TARGET_SIZE_BYTES, BACKUP_SPACE_CHUNK_TARGET_SIZE_BYTES
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.units import Entry, UnitKind, describe_unit, split_subnet

_ENTRY = Struct(">HI")
_SMALLEST_PART = 4
_LARGEST_TIMES = 8
_HASH_BITS = 32


def cut_chunks(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk with the name of its unit. Entries of a unit come together, in the order of keys."""
    pack, entry_size = _ENTRY.pack, _ENTRY.size
    unit, target = b"", 0
    parts: list[bytes] = []
    size = 0
    for name, key, value in entries:
        if name != unit:
            if parts:
                yield unit, b"".join(parts)
                parts, size = [], 0
            unit, target = name, _target(name)
        added = entry_size + len(key) + len(value)
        parts += (pack(len(key), len(value)), key, value)
        size += added
        if size * _SMALLEST_PART < target:
            continue
        if size >= target * _LARGEST_TIMES or crc32(key) * target < added << _HASH_BITS:
            yield unit, b"".join(parts)
            parts, size = [], 0
    if parts:
        yield unit, b"".join(parts)


def _target(unit: bytes) -> int:
    """Shared spaces change at many places, a little each time: their chunks are smaller."""
    if split_subnet(unit)[1][0] == UnitKind.SPACE:
        return BACKUP_SPACE_CHUNK_TARGET_SIZE_BYTES
    return BACKUP_CHUNK_TARGET_SIZE_BYTES


def read_chunk(chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a chunk; raises `BackupFormatError`."""
    at, size, before = 0, len(chunk), b""
    unpack, entry_size = _ENTRY.unpack_from, _ENTRY.size
    while at < size:
        if at + entry_size > size:
            raise BackupFormatError(f"a chunk ends inside an entry, at byte {at}")
        key_size, value_size = unpack(chunk, at)
        middle = at + entry_size + key_size
        end = middle + value_size
        if end > size:
            raise BackupFormatError(f"a chunk ends inside an entry, at byte {at}")
        key = chunk[at + entry_size : middle]
        if key <= before:
            raise BackupFormatError(f"a chunk's keys are out of order at byte {at}")
        yield key, chunk[middle:end]
        at, before = end, key


def read_unit(name: bytes, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a unit from its chunks in order; raises `BackupFormatError`."""
    before = b""
    for chunk in chunks:
        for key, value in read_chunk(chunk):
            if key <= before:
                raise BackupFormatError(f"the keys of {describe_unit(name)} are out of order")
            yield key, value
            before = key
