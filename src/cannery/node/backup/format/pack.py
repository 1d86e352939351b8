"""Packs: many chunks in one file, compressed in frames, with an index at the end.

    pack    = "CANPACK" 01 ‖ frames ‖ index ‖ size of the index (4 bytes) ‖ raw size of the index (4 bytes) ‖
              "CANPACK" 01
    frame   = chunks one after the other, compressed (zstandard)
    index   = MessagePack array, compressed: frames (stored size, raw size), chunks (SHA-256, frame, size)

A pack's name is the SHA-256 of the whole file. Small chunks share a frame, so that a thousand small canisters
compress like one file; a chunk stands in its frame at the sum of the sizes before it. This module reads
no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct

import msgspec
import zstandard

from cannery.limits import BACKUP_FRAME_SIZE_BYTES, BACKUP_FRAME_SIZE_BYTES_MAX, BACKUP_INDEX_SIZE_BYTES_MAX
from cannery.node.backup.format.errors import BackupFormatError

PACK_MAGIC = b"CANPACK\x01"
HASH_SIZE_BYTES = 32
_TAIL = Struct(">II8s")
PACK_TAIL_SIZE_BYTES = _TAIL.size
_LEVEL = 3


class FrameEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A frame: its bytes in the pack, and what they decompress to."""

    stored_bytes: int
    raw_bytes: int


class ChunkEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A chunk: its hash, the number of its frame, its size."""

    hash: bytes
    frame: int
    size_bytes: int


class _Index(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    frames: tuple[FrameEntry, ...]
    chunks: tuple[ChunkEntry, ...]


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk lies in its pack: a frame by its bytes, and the chunk within what it decompresses to."""

    frame_start: int
    frame_bytes: int
    raw_bytes: int
    start: int
    size_bytes: int


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(_Index)


@dataclass(frozen=True, slots=True)
class Pack:
    """A finished pack: its name, its bytes, and where each chunk lies in it."""

    name: str
    data: bytes
    places: Mapping[bytes, ChunkPlace]


class PackBuilder:
    """Collects chunks into one pack."""

    __slots__ = ("_chunks", "_compressor", "_frames", "_parts", "_raw_bytes", "_stored", "size_bytes")

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._chunks: list[ChunkEntry] = []
        self._frames: list[FrameEntry] = []
        self._stored: list[bytes] = []
        self._parts: list[bytes] = []
        self._raw_bytes = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._chunks)

    def add(self, chunk_hash: bytes, chunk: bytes) -> None:
        """Add a chunk; `size_bytes` tells afterwards how large the pack has become, about."""
        self._chunks.append(ChunkEntry(chunk_hash, len(self._frames), len(chunk)))
        self._parts.append(chunk)
        self._raw_bytes += len(chunk)
        if self._raw_bytes >= BACKUP_FRAME_SIZE_BYTES:
            self._close_frame()

    def finish(self) -> Pack:
        """Give the pack."""
        if self._parts:
            self._close_frame()
        index = _ENCODE(_Index(tuple(self._frames), tuple(self._chunks)))
        stored = self._compressor.compress(index)
        tail = _TAIL.pack(len(stored), len(index), PACK_MAGIC)
        data = b"".join((PACK_MAGIC, *self._stored, stored, tail))
        places = _places(
            _Index(tuple(self._frames), tuple(self._chunks)), len(data) - len(stored) - len(tail)
        )
        return Pack(sha256(data).hexdigest(), data, places)

    def _close_frame(self) -> None:
        stored = self._compressor.compress(b"".join(self._parts))
        self._frames.append(FrameEntry(len(stored), self._raw_bytes))
        self._stored.append(stored)
        self.size_bytes += len(stored)
        self._parts, self._raw_bytes = [], 0


def index_size_bytes(tail: bytes) -> int:
    """Read how many bytes index and tail take at the end of a pack, from its last bytes; raises
    `BackupFormatError`.
    """
    size, raw_size, magic = _TAIL.unpack(_last(tail, PACK_TAIL_SIZE_BYTES))
    if magic != PACK_MAGIC:
        raise BackupFormatError(f"a pack ends with {magic.hex()}, not with {PACK_MAGIC.hex()}")
    if max(size, raw_size) > BACKUP_INDEX_SIZE_BYTES_MAX:
        raise BackupFormatError(f"a pack's index says that it has {max(size, raw_size)} bytes")
    return int(size) + PACK_TAIL_SIZE_BYTES


def read_index(end: bytes, pack_bytes: int) -> dict[bytes, ChunkPlace]:
    """Read a pack's index from its last bytes (at least `index_size_bytes`): each chunk's place by its hash.

    Raises `BackupFormatError`.
    """
    taken = index_size_bytes(end)
    index_start = pack_bytes - taken
    stored = _last(end, taken)
    _, raw_size, _ = _TAIL.unpack(stored[-PACK_TAIL_SIZE_BYTES:])
    if index_start < len(PACK_MAGIC):
        raise BackupFormatError("a pack is smaller than its index says")
    raw = decompress(stored[:-PACK_TAIL_SIZE_BYTES], raw_size, "a pack's index")
    try:
        index = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackupFormatError(f"a pack's index does not decode: {error}") from None
    return _places(index, index_start)


def read_pack(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all chunks of a pack with their hashes, each checked; raises `BackupFormatError`."""
    if data[: len(PACK_MAGIC)] != PACK_MAGIC:
        raise BackupFormatError(f"a pack begins with {data[: len(PACK_MAGIC)].hex() or 'nothing'}")
    places = read_index(data, len(data))
    start, frame = 0, b""
    for chunk_hash, place in places.items():
        if place.frame_start != start:
            start = place.frame_start
            frame = read_frame(data[start : start + place.frame_bytes], place)
        yield chunk_hash, take_chunk(frame, place, chunk_hash)


def read_frame(stored: bytes, place: ChunkPlace) -> bytes:
    """Decompress the frame that a chunk lies in; raises `BackupFormatError`."""
    return decompress(stored, place.raw_bytes, "a frame of a pack")


def take_chunk(frame: bytes, place: ChunkPlace, chunk_hash: bytes) -> bytes:
    """Give a chunk from its decompressed frame, checked by its hash; raises `BackupFormatError`."""
    chunk = frame[place.start : place.start + place.size_bytes]
    if sha256(chunk).digest() != chunk_hash:
        raise BackupFormatError(f"chunk {chunk_hash.hex()[:16]} does not have the content of its name")
    return chunk


def decompress(stored: bytes, raw_bytes: int, what: str) -> bytes:
    """Decompress what must become `raw_bytes` bytes; raises `BackupFormatError`."""
    try:
        if zstandard.frame_content_size(stored) != raw_bytes:
            raise BackupFormatError(f"{what} does not have the size that it should have")
        # A frame may end early and leave bytes behind it, which nothing would look at.
        reader = zstandard.ZstdDecompressor().decompressobj()
        raw: bytes = reader.decompress(stored)
        if not reader.eof or reader.unused_data or len(raw) != raw_bytes:
            raise BackupFormatError(f"{what} is cut short, or goes on behind its end")
    except (zstandard.ZstdError, MemoryError) as error:
        raise BackupFormatError(f"{what} does not decompress: {error}") from None
    return raw


def _places(index: _Index, index_start: int) -> dict[bytes, ChunkPlace]:
    starts, at = [], len(PACK_MAGIC)
    for frame in index.frames:
        if (
            not 0 < frame.stored_bytes <= index_start
            or not 0 < frame.raw_bytes <= BACKUP_FRAME_SIZE_BYTES_MAX
        ):
            raise BackupFormatError("a pack's index has a frame of an impossible size")
        starts.append(at)
        at += frame.stored_bytes
    if at != index_start:
        raise BackupFormatError("a pack's frames do not fill it as its index says")
    places: dict[bytes, ChunkPlace] = {}
    filled = [0] * len(starts)
    before = 0
    for chunk in index.chunks:
        if (
            not before <= chunk.frame < len(starts)
            or len(chunk.hash) != HASH_SIZE_BYTES
            or chunk.size_bytes < 1
        ):
            raise BackupFormatError("a pack's index has an impossible chunk")
        before, frame = chunk.frame, index.frames[chunk.frame]
        start = filled[before]
        filled[before] = start + chunk.size_bytes
        places[chunk.hash] = ChunkPlace(
            starts[before], frame.stored_bytes, frame.raw_bytes, start, chunk.size_bytes
        )
    if len(places) != len(index.chunks) or filled != [frame.raw_bytes for frame in index.frames]:
        raise BackupFormatError("a pack's chunks do not fill its frames, or one is there twice")
    return places


def _last(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise BackupFormatError("a pack ends before its index is complete")
    return data[-size:]
