"""An HTTP/1.1 server for one gateway: makes connections, bounds and watches them, and closes them in the end.

Bounds: connections in total and by address; what one of them may leave unfinished is `http_connection`'s. TLS
is for whoever stands in front.
"""

from __future__ import annotations

import asyncio
import logging
import time
from email.utils import formatdate
from http import HTTPStatus

from cannery.limits import GATEWAY_ANSWER_HEAD_CACHE_COUNT_MAX
from cannery.node.gateway.app import Gateway
from cannery.node.gateway.http import Answer, Headers
from cannery.node.gateway.http_connection import HttpConnection
from cannery.node.gateway.push.server import EventServer
from cannery.node.gateway.rate_limit import address_key
from cannery.node.gateway.settings import GatewaySettings

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_MS_PER_S = 1000


class HttpServer:
    """Makes connections for a gateway, counts and watches them, and closes them in the end."""

    def __init__(
        self, gateway: Gateway, settings: GatewaySettings, events: EventServer | None = None
    ) -> None:
        self.gateway = gateway
        self.events = events
        self.settings = settings
        self.connections: set[HttpConnection] = set()
        self._page = gateway.tallies.own
        self.closing = False
        self._by_address: dict[str, int] = {}
        self._heads: dict[tuple[int, Headers], bytes] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()
        self.date = b""
        self._tick()

    def make_connection(self) -> HttpConnection:
        """Give the protocol of a new connection; to be passed to `create_server`."""
        return HttpConnection(self)

    def head_of(self, answer: Answer) -> bytes:
        """Give status line and headers, the same bytes for the same kind of answer."""
        key = (int(answer.status), answer.headers)
        head = self._heads.get(key)
        if head is None:
            lines = [b"HTTP/1.1 %d %s\r\n" % (answer.status, HTTPStatus(answer.status).phrase.encode())]
            lines += [b"%s: %s\r\n" % header for header in answer.headers]
            head = b"".join(lines)
            if len(self._heads) < GATEWAY_ANSWER_HEAD_CACHE_COUNT_MAX:
                self._heads[key] = head
        return head

    def admit(self, connection: HttpConnection) -> str | None:
        """Count a new connection; give the reason why it cannot stay."""
        key = address_key(connection.address)
        count = self._by_address.get(key, 0)
        self._by_address[key] = count + 1
        self.connections.add(connection)
        self._page.set("connections", len(self.connections))
        if self.closing:
            return "the node is stopping"
        if len(self.connections) > self.settings.connection_count_max:
            return "the node has too many connections: try again later"
        if count >= self.settings.connections_per_address_count_max:
            return "too many connections from your address: close some, and use them for many requests"
        return None

    def forget(self, connection: HttpConnection) -> None:
        key = address_key(connection.address)
        self.connections.discard(connection)
        self._page.set("connections", len(self.connections))
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]
        if not self.connections:
            self._empty.set()

    async def close(self) -> None:
        """Let open requests finish, for a bounded time, then close every connection."""
        self.closing = True
        if self.events is not None:
            await self.events.close()
        for connection in list(self.connections):
            connection.close_when_idle()
        self._empty.clear()
        if self.connections:
            try:
                async with asyncio.timeout(self.settings.shutdown_ms_max / _MS_PER_S):
                    await self._empty.wait()
            except TimeoutError:
                _log.warning("%d requests were cut off by the shutdown", len(self.connections))
        for connection in list(self.connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()

    def _tick(self) -> None:
        self.date = b"date: %s\r\n" % formatdate(time.time(), usegmt=True).encode()
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self.gateway.beat()
        for connection in list(self.connections):
            connection.check_time(now_s)
        self._ticker = loop.call_later(_TICK_S, self._tick)
