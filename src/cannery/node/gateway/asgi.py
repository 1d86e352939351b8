"""The gateway as an ASGI application: between a server's messages and this room's values.

ASGI 3.0, HTTP. Bodies of answers that stand in files leave in parts, as fast as the client reads them.
Lifespan and WebSocket scopes are not served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, BinaryIO

from cannery.limits import GATEWAY_FILE_CHUNK_SIZE_BYTES
from cannery.node.gateway.app import Gateway
from cannery.node.gateway.http import Answer, Disconnected, FilePart, Refusal, Request, client_address
from cannery.node.gateway.settings import GatewaySettings

# ASGI names its messages and scopes as dictionaries of anything.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AsgiBody:
    """A request's body as ASGI messages bring it, each part in bounded time."""

    __slots__ = ("_deadline_s", "_ended", "_receive", "_received", "_settings")

    def __init__(self, receive: Receive, settings: GatewaySettings) -> None:
        self._receive = receive
        self._settings = settings
        self._ended = False
        self._received = 0
        self._deadline_s = 0.0

    @property
    def ended(self) -> bool:
        return self._ended

    async def next_chunk(self) -> bytes | None:
        if self._ended:
            return None
        try:
            async with asyncio.timeout(self._wait_s()):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408,
                "the body came too slowly: send it again, or upload it in parts",
                ((b"connection", b"close"),),
            ) from None
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message.get("body", b"")
        self._ended = not message.get("more_body", False)
        self._received += len(body)
        return None if self._ended and not body else body

    def _wait_s(self) -> float:
        """Give the time until the next part must be here: not idle too long, and not below the least rate."""
        now_s = asyncio.get_running_loop().time()
        idle_s = self._settings.body_idle_ms_max / 1000
        if not self._deadline_s:
            self._deadline_s = now_s + idle_s
        slowest_s = self._deadline_s + self._received / self._settings.body_rate_bytes_per_s_min
        return max(min(idle_s, slowest_s - now_s), 0.001)


class AsgiApp:
    """Carries requests from an ASGI server to a gateway and answers back."""

    def __init__(self, gateway: Gateway, settings: GatewaySettings) -> None:
        self._gateway = gateway
        self._settings = settings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server is configured for HTTP only"
        client = scope["client"]
        headers = dict(scope["headers"])
        peer = client[0] if client else ""
        address = client_address(peer, headers, self._settings.trusted_proxies)
        body = AsgiBody(receive, self._settings)
        request = Request(scope["method"], scope["path"], headers, address, body)
        answer = await self._gateway.answer(request)
        if answer is None:
            return
        # What a client still sends after its answer is not read.
        closing = headers.get(b"content-length", b"0") != b"0" and not body.ended
        if answer.file is None:
            await send(_start(answer, len(answer.body), closing))
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await self._send_file(answer, answer.file, closing, send)

    async def _send_file(self, answer: Answer, part: FilePart, closing: bool, send: Send) -> None:
        with open(part.path, "rb") as file:
            await send(_start(answer, part.size_bytes, closing))
            await _send_parts(file, part, send)
        await send({"type": "http.response.body", "body": b""})


async def _send_parts(file: BinaryIO, part: FilePart, send: Send) -> None:
    file.seek(part.offset)
    left = part.size_bytes
    while left:
        data = file.read(min(left, GATEWAY_FILE_CHUNK_SIZE_BYTES))
        assert data, "a spool file does not shrink while it is open"
        left -= len(data)
        await send({"type": "http.response.body", "body": data, "more_body": True})


def _start(answer: Answer, size: int, closing: bool) -> Message:
    headers = list(answer.headers)
    if closing:
        headers.append((b"connection", b"close"))
    if answer.status >= 200 and answer.status != 204:
        headers.append((b"content-length", b"%d" % size))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}
