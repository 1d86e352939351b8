"""Conversations with a node as plain generators, and the two ways to hold them: blocking and async.

A conversation yields `Send` or `Pause` and is handed an `Answer` or a `Lost`; so its rules (what to retry,
when to poll, what to verify) are written once, and tests drive them without a socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import httpx

from cannery.client.errors import Refused
from cannery.limits import CLIENT_RESPONSE_SIZE_BYTES_MAX

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """One HTTP request; `path` starts with a slash."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long; `reason` is for people."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body[:2000].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class Lost:
    """No whole answer came. `sent` False: the request never arrived. `part` is what there is of an answer."""

    reason: str
    sent: bool
    part: Answer | None = None


Step: TypeAlias = Send | Pause
Result: TypeAlias = Answer | Lost | None
Exchange: TypeAlias = Generator[Step, Result, T]


def _lost(error: httpx.TransportError, response: httpx.Response | None, parts: bytearray) -> Lost:
    sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    part = None if response is None else Answer(response.status_code, response.headers, bytes(parts))
    return Lost(str(error) or type(error).__name__, sent, part)


def _extend(parts: bytearray, more: bytes) -> None:
    parts += more
    if len(parts) > CLIENT_RESPONSE_SIZE_BYTES_MAX:
        raise Refused(200, f"the answer is longer than {CLIENT_RESPONSE_SIZE_BYTES_MAX} bytes")


def _perform(client: httpx.Client, step: Step) -> Result:
    if isinstance(step, Pause):
        time.sleep(step.seconds)
        return None
    request = client.build_request(step.method, step.path, content=step.body or None, headers=step.headers)
    response, parts = None, bytearray()
    try:
        response = client.send(request, stream=True)
        for part in response.iter_bytes():
            _extend(parts, part)
    except httpx.TransportError as error:
        return _lost(error, response, parts)
    finally:
        if response is not None:
            response.close()
    return Answer(response.status_code, response.headers, bytes(parts))


async def _perform_async(client: httpx.AsyncClient, step: Step) -> Result:
    if isinstance(step, Pause):
        await asyncio.sleep(step.seconds)
        return None
    request = client.build_request(step.method, step.path, content=step.body or None, headers=step.headers)
    response, parts = None, bytearray()
    try:
        response = await client.send(request, stream=True)
        async for part in response.aiter_bytes():
            _extend(parts, part)
    except httpx.TransportError as error:
        return _lost(error, response, parts)
    finally:
        if response is not None:
            await response.aclose()
    return Answer(response.status_code, response.headers, bytes(parts))


WaitReport: TypeAlias = Callable[[str], None]


def hold(exchange: Exchange[T], client: httpx.Client, on_wait: WaitReport | None = None) -> T:
    """Hold a conversation, blocking, and return what it comes to; `on_wait` hears why it pauses."""
    try:
        step = next(exchange)
        while True:
            if on_wait is not None and isinstance(step, Pause):
                on_wait(step.reason)
            step = exchange.send(_perform(client, step))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        exchange.close()


async def hold_async(
    exchange: Exchange[T], client: httpx.AsyncClient, on_wait: WaitReport | None = None
) -> T:
    """Hold a conversation without blocking the event loop."""
    try:
        step = next(exchange)
        while True:
            if on_wait is not None and isinstance(step, Pause):
                on_wait(step.reason)
            step = exchange.send(await _perform_async(client, step))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        exchange.close()
