"""Contents on their way to a zone and back: in chunks, several under way at a time, checked by their hash."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cannery.client.errors import Unverified
from cannery.client.transfer import ProgressReport
from cannery.client.zone_door import ZoneDoor
from cannery.limits import ZONE_CHUNK_SIZE_BYTES, ZONE_CHUNKS_AHEAD_COUNT_MAX


@dataclass(frozen=True, slots=True)
class ContentMethods:
    """The methods of one kind of content."""

    write: str
    finish: str
    read: str


FILE = ContentMethods("write_file_chunk", "finalize_file", "read_file_chunk")
ATTACHMENT = ContentMethods("write_attachment_chunk", "finalize_attachment", "read_attachment_chunk")


async def upload(
    door: ZoneDoor, methods: ContentMethods, digest: bytes, data: bytes, on_progress: ProgressReport
) -> None:
    """Write a content that was allocated, and finalize it."""
    starts = iter(range(0, len(data), ZONE_CHUNK_SIZE_BYTES))
    done = 0
    on_progress(0, len(data))

    async def write_on() -> None:
        nonlocal done
        for start in starts:
            chunk = data[start : start + ZONE_CHUNK_SIZE_BYTES]
            await door.tell(methods.write, digest, start, chunk)
            done += len(chunk)
            on_progress(done, len(data))

    writers = [asyncio.ensure_future(write_on()) for _ in range(ZONE_CHUNKS_AHEAD_COUNT_MAX)]
    try:
        await asyncio.gather(*writers)
    finally:
        await _end(writers)
    await door.tell(methods.finish, digest)


async def download(
    door: ZoneDoor, methods: ContentMethods, digest: bytes, size: int, on_progress: ProgressReport
) -> AsyncGenerator[bytes]:
    """Give a content's chunks in order; raise `Unverified` at the end where they are not the content."""
    ahead: deque[asyncio.Future[bytes]] = deque()
    starts = iter(range(0, size, ZONE_CHUNK_SIZE_BYTES))
    hashed, done = sha256(), 0

    async def read(start: int) -> bytes:
        length = min(ZONE_CHUNK_SIZE_BYTES, size - start)
        chunk: bytes = await door.ask(methods.read, digest, start, length)
        return chunk

    def begin_next() -> None:
        start = next(starts, None)
        if start is not None:
            ahead.append(asyncio.ensure_future(read(start)))

    try:
        on_progress(0, size)
        for _ in range(ZONE_CHUNKS_AHEAD_COUNT_MAX):
            begin_next()
        while ahead:
            chunk = await ahead.popleft()
            begin_next()
            hashed.update(chunk)
            done += len(chunk)
            on_progress(done, size)
            yield chunk
        if hashed.digest()[: len(digest)] != digest:
            raise Unverified(
                "the zone gave other bytes than the content's hash says: nothing of it is to be used"
            )
    finally:
        await _end(list(ahead))


async def _end(tasks: Sequence[asyncio.Future[None]] | Sequence[asyncio.Future[bytes]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
