"""Reading a request's body: small ones in memory, large ones into the spool, slow ones not for ever.

Bounds: one body (413), all bodies in memory together (503), large bodies under work at once (503 after a
wait). The time a body may take is watched by whoever carries the connection, not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

from cannery.limits import (
    GATEWAY_BODIES_IN_MEMORY_BYTES_MAX,
    GATEWAY_INLINE_BODY_SIZE_BYTES_MAX,
    GATEWAY_SMALL_BODY_SIZE_BYTES,
)
from cannery.node.gateway.http import Refusal, Request
from cannery.node.gateway.http_body import WholeBody
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.gateway.spool import Scratch, Spool

_SIZE_DIGITS_MAX = 16


def declared_size(request: Request) -> int | None:
    """Read `content-length`; None where the body comes in chunks. Raise `Refusal` (400)."""
    text = request.headers.get(b"content-length")
    return None if text is None else parse_size(text, "content-length")


def parse_size(text: bytes, name: str) -> int:
    """Read a header's unsigned decimal number; raise `Refusal` (400)."""
    if not text.isdigit() or len(text) > _SIZE_DIGITS_MAX:
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"{name}: send a number of bytes in at most {_SIZE_DIGITS_MAX} decimal digits",
        )
    return int(text)


class MemoryBudget:
    """Counts the bytes of ordinary bodies that are held in memory."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Count bytes while a request is under way; raise `Refusal` (503) where there are too many."""
        if self.used + count > GATEWAY_BODIES_IN_MEMORY_BYTES_MAX:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the node is reading too many bodies at once: try again in a second",
                ((b"retry-after", b"1"),),
            )
        self.used += count
        try:
            yield
        finally:
            self.used -= count


class LargeWork:
    """Lets a bounded number of requests at a time hold a large body or answer in memory."""

    __slots__ = ("_settings", "_slots")

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.large_body_count_max)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place; raise `Refusal` (503) after a bounded time."""
        try:
            async with asyncio.timeout(self._settings.large_body_wait_ms_max / 1000):
                await self._slots.acquire()
        except TimeoutError:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the node is busy with other large bodies: try again later",
                ((b"retry-after", b"10"),),
            ) from None
        try:
            yield
        finally:
            self._slots.release()


def is_small(size: int | None) -> bool:
    """Tell whether a body is so small that it needs no account."""
    return size is not None and size <= GATEWAY_SMALL_BODY_SIZE_BYTES


async def read_inline(request: Request, size_bytes_max: int) -> bytes | list[bytes]:
    """Read a body into memory. Return what was read as a list of parts once it is over the inline bound."""
    body = request.body
    if isinstance(body, WholeBody):
        whole = body.take()
        if len(whole) <= GATEWAY_INLINE_BODY_SIZE_BYTES_MAX:
            return whole
        check_size(len(whole), size_bytes_max)
        return [whole]
    first = await body.next_chunk()
    if first is None:
        return b""
    parts = [first]
    size = len(first)
    while size <= GATEWAY_INLINE_BODY_SIZE_BYTES_MAX:
        part = await body.next_chunk()
        if part is None:
            return first if len(parts) == 1 else b"".join(parts)
        parts.append(part)
        size += len(part)
    check_size(size, size_bytes_max)
    return parts


async def spool_rest(request: Request, parts: list[bytes], spool: Spool, size_bytes_max: int) -> Scratch:
    """Write what was read and all that follows into a scratch file; raise `Refusal` (413, 507)."""
    scratch = spool.open_scratch(request.address)
    try:
        for early in parts:
            scratch.write(early)
        while (part := await request.body.next_chunk()) is not None:
            check_size(scratch.size_bytes + len(part), size_bytes_max)
            scratch.write(part)
        return scratch
    except BaseException:
        scratch.discard()
        raise


def check_size(size: int, size_bytes_max: int) -> None:
    """Raise `Refusal` (413) where a body is larger than this node takes."""
    if size > size_bytes_max:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a body may have {size_bytes_max} bytes at most: send less in one call",
        )
