"""All events connections of a gateway process: handshakes, bounds, the clock that looks after them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol

from cannery.limits import EVENT_CHALLENGE_SIZE_BYTES, EVENT_TICK_MS, WATCH_COUNT_MAX
from cannery.node.gateway.app import Gateway
from cannery.node.gateway.http import Refusal, Request
from cannery.node.gateway.push.connection import EventConnection
from cannery.node.gateway.push.subscriptions import Subscription, Subscriptions
from cannery.node.gateway.rate_limit import address_key
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.subnet_port import EventPort

EVENTS_PATH: Final = "/api/cannery/v1/events"
_EXPIRY_LOOK_S_MAX: Final = 3600.0
_UPGRADE_HEADERS: Final = (b"host", b"origin", b"upgrade", b"connection")


class EventServer:
    """Makes connections, counts and watches them, and closes them in the end."""

    def __init__(
        self, gateway: Gateway, port: EventPort, settings: GatewaySettings, now_ns: Callable[[], int]
    ) -> None:
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        self.log = logging.getLogger("cannery.websockets")
        self.log.setLevel(logging.WARNING)
        self._page = gateway.tallies.own
        self.subscriptions = Subscriptions(port, self._page)
        self.connections: set[EventConnection] = set()
        self.quiet_s = settings.event_ping_ms / 1000
        self._settings = settings
        self._now_ns = now_ns
        self._by_address: dict[str, int] = {}
        self._ticker = self.loop.call_later(EVENT_TICK_MS / 1000, self._tick)

    def accept(self, request: Request) -> tuple[EventConnection, bytes]:
        """Give the connection and the answer to its handshake. Raises `Refusal`."""
        key = address_key(request.address)
        count = self._by_address.get(key, 0)
        if len(self.connections) >= self._settings.event_connection_count_max:
            raise _busy("the node has too many events connections: try again later")
        if count >= self._settings.event_connections_per_address_count_max:
            raise _busy("too many events connections from your address: one is enough for many canisters")
        response = ServerProtocol().accept(_handshake(request))
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            text = bytes(response.body or b"").decode(errors="replace").strip()
            raise Refusal(response.status_code, text, ((b"upgrade", b"websocket"),))
        origin = request.headers.get(b"origin", b"").decode("latin-1")
        challenge = secrets.token_bytes(EVENT_CHALLENGE_SIZE_BYTES)
        connection = EventConnection(self, request.address, origin, challenge)
        self._by_address[key] = count + 1
        self.connections.add(connection)
        self._page.set("event_connections", len(self.connections))
        return connection, response.serialize()

    def forget(self, connection: EventConnection) -> None:
        """Count a connection that is gone no more."""
        key = address_key(connection.address)
        self.connections.discard(connection)
        self._page.set("event_connections", len(self.connections))
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]

    def no_room(self, count: int) -> str | None:
        """Say why a connection with so many subscriptions may have no other; None where it may."""
        count_max = self._settings.event_subscriptions_per_connection_count_max
        if count >= count_max:
            return f"this connection has {count_max} subscriptions, which is the most: open another one"
        if len(self.subscriptions) >= WATCH_COUNT_MAX:
            return f"the gateway has {WATCH_COUNT_MAX} subscriptions, which is the most: try again later"
        return None

    def end_at(self, subscription: Subscription) -> None:
        """End a subscription, and with the last one the session, when its delegation has expired."""
        left_s = (subscription.expires_ns - self._now_ns()) / 1e9
        if not subscription.is_open:
            return
        if left_s > 0:
            wait_s = min(left_s + 0.001, _EXPIRY_LOOK_S_MAX)
            subscription.timer = self.loop.call_later(wait_s, self.end_at, subscription)
            return
        reader = subscription.reader
        self.subscriptions.end(subscription, "expired", "the delegation has expired: sign in again")
        if isinstance(reader, EventConnection) and not reader.subscriptions:
            reader.close(CloseCode.POLICY_VIOLATION, "the delegation has expired: sign in again")

    async def close(self) -> None:
        """Say goodbye to all, and close."""
        self._ticker.cancel()
        for connection in list(self.connections):
            connection.close(CloseCode.GOING_AWAY, "the node is stopping: connect again")
        await asyncio.sleep(0)
        for connection in list(self.connections):
            connection.abort()

    def _tick(self) -> None:
        now_s = self.loop.time()
        for connection in list(self.connections):
            connection.check_time(now_s)
        self._ticker = self.loop.call_later(EVENT_TICK_MS / 1000, self._tick)


def _handshake(request: Request) -> Handshake:
    headers = Headers()
    for name, value in request.headers.items():
        if name in _UPGRADE_HEADERS or name.startswith(b"sec-websocket-"):
            headers[name.decode("latin-1")] = value.decode("latin-1")
    return Handshake(request.path, headers)


def _busy(text: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, text, ((b"retry-after", b"5"),))
