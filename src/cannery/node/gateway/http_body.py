"""A request's body on its way from a connection to whoever reads it.

A body that came whole is handed over at once. A longer one is a bounded buffer: the connection stops
reading from its socket while the buffer is full, and goes on as parts are taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from cannery.limits import GATEWAY_BODY_BUFFER_SIZE_BYTES
from cannery.node.gateway.http import Disconnected, Refusal


class WholeBody:
    """A body that is in memory already."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self) -> bytes:
        """Give all of it, the first time."""
        data, self._data = self._data, b""
        return data

    async def next_chunk(self) -> bytes | None:
        return self.take() or None


class StreamedBody:
    """A body that is still arriving. `want` is called when the reader has room for more."""

    __slots__ = ("_ended", "_failure", "_parts", "_size", "_waiter", "_want", "received")

    def __init__(self, want: Callable[[], None]) -> None:
        self._want = want
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._failure: Refusal | Disconnected | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.received = 0

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def is_full(self) -> bool:
        return self._size >= GATEWAY_BODY_BUFFER_SIZE_BYTES

    @property
    def is_awaited(self) -> bool:
        """Tell whether a reader waits for the client right now."""
        return self._waiter is not None

    def feed(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self.received += len(data)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, failure: Refusal | Disconnected) -> None:
        """Let the reader's next step raise this."""
        if not self._ended and self._failure is None:
            self._failure = failure
            self._wake()

    async def next_chunk(self) -> bytes | None:
        while not self._parts:
            if self._ended:
                return None
            if self._failure is not None:
                raise self._failure
            self._want()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
