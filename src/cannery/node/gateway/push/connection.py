"""One client's events connection: frames in and out, its challenge, its subscriptions, its bounds.

RFC 6455 as `websockets` reads it (its sans-IO `Protocol`). The client proves itself in each subscription by a
signed query that holds this connection's challenge: no token in the URL, no cookie, and nothing that could be
used on another connection. What a client leaves unread is bounded: events wait in the canister's log.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EVENTS_METHOD, EventRequest
from cannery.errors import DecodeError
from cannery.limits import (
    EVENT_MESSAGE_SIZE_BYTES_MAX,
    EVENT_TOPIC_SIZE_BYTES_MAX,
    EVENT_TOPICS_COUNT_MAX,
    EVENT_UNREAD_SIZE_BYTES_MAX,
    GATEWAY_LINGER_MS_MAX,
    GATEWAY_WRITE_IDLE_MS_MAX,
)
from cannery.node.gateway.http import Refusal
from cannery.node.gateway.push.subscriptions import Subscription
from cannery.node.gateway.push.wire import Subscribe, WireError, message_frame, parse_message
from cannery.node.handover import QueryMessage
from cannery.protocol.envelope import Envelope, QueryContent
from cannery.protocol.principal import Principal

if TYPE_CHECKING:
    from cannery.node.gateway.push.server import EventServer

_decode_request: Final = decoder((type_of(EventRequest),))
_NEVER_NS: Final = 2**63


class EventConnection(asyncio.Protocol):
    """A connection after its handshake."""

    __slots__ = (
        "_bare_since_s",
        "_challenge",
        "_fragments",
        "_heard_s",
        "_is_text",
        "_origin",
        "_protocol",
        "_server",
        "_since_s",
        "_transport",
        "_unread_since_s",
        "_waiters",
        "address",
        "subscriptions",
    )

    def __init__(self, server: EventServer, address: str, origin: str, challenge: bytes) -> None:
        self._server = server
        self._origin = origin
        self._challenge = challenge
        self._protocol = Protocol(SERVER, max_size=EVENT_MESSAGE_SIZE_BYTES_MAX, logger=server.log)
        self._transport: asyncio.Transport
        self._fragments: bytearray | None = None
        self._is_text = False
        self._since_s = self._heard_s = self._bare_since_s = server.loop.time()
        self._unread_since_s: float | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self.address = address
        self.subscriptions: dict[bytes, Subscription] = {}

    # --- the event loop's side

    def start(self, transport: asyncio.Transport, rest: bytes) -> None:
        """Take over a connection whose handshake is sent; `rest` was received behind it."""
        self._transport = transport
        transport.set_write_buffer_limits(high=EVENT_UNREAD_SIZE_BYTES_MAX)
        transport.set_protocol(self)
        self.send(message_frame("challenge", challenge=self._challenge))
        if rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client's."""
        self._heard_s = self._server.loop.time()
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            if isinstance(frame, Frame) and self._protocol.state is State.OPEN:
                self._take(frame)
        self._let_out()

    def eof_received(self) -> bool:
        """Close: a client that sends no more is gone."""
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """End all subscriptions."""
        for subscription in list(self.subscriptions.values()):
            self._server.subscriptions.close(subscription)
        self._wake()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """Stop reading as well: what a client asks for must not pile up either."""
        self._unread_since_s = self._server.loop.time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._unread_since_s = None
        self._transport.resume_reading()
        self._wake()

    # --- for its subscriptions

    @property
    def is_writable(self) -> bool:
        """Say whether the client has taken enough of what was sent."""
        return self._unread_since_s is None

    async def writable(self) -> None:
        """Wait until it has, or is gone."""
        while self._unread_since_s is not None and not self._transport.is_closing():
            waiter = self._server.loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter

    def send(self, frame: bytes) -> None:
        """Send a whole frame."""
        if self._protocol.state is State.OPEN and not self._transport.is_closing():
            self._transport.write(frame)

    def ended(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        self.subscriptions.pop(subscription.canister_id, None)
        if subscription.has_begun:
            self._bare_since_s = self._server.loop.time()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # --- messages

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._is_text = frame.opcode is Opcode.TEXT
            self._fragments = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._fragments is not None:
            self._fragments += frame.data
        else:
            return
        if not frame.fin:
            return
        data, self._fragments = bytes(self._fragments), None
        if self._is_text:
            self.close(CloseCode.UNSUPPORTED_DATA, "send binary messages: CBOR")
            return
        try:
            message = parse_message(data)
        except WireError as error:
            self.close(CloseCode.INVALID_DATA, str(error))
            return
        if isinstance(message, Subscribe):
            self._subscribe(message.envelope)
        elif message.canister_id in self.subscriptions:
            self._server.subscriptions.end(
                self.subscriptions[message.canister_id], "unsubscribed", "as asked"
            )

    def _subscribe(self, body: bytes) -> None:
        canister_id = b""
        try:
            envelope = self._server.gateway.prove_query(body, self.address)
            content = envelope.content
            assert isinstance(content, QueryContent), "that is what was asked for"
            canister_id = content.canister_id.raw
            request = self._read_request(content)
            self._check_room(canister_id)
        except Refusal as refusal:
            reason = "busy" if refusal.status == HTTPStatus.TOO_MANY_REQUESTS else "invalid"
            self.send(message_frame("refused", canister=canister_id, reason=reason, text=refusal.text))
            return
        topics = tuple(request.topics)
        since, expires_ns = request.since, _expires_ns(envelope)
        subscription = Subscription(self, canister_id, topics, since, expires_ns)
        self.subscriptions[canister_id] = subscription
        query = QueryMessage(
            envelope.request_id, content.sender.raw, canister_id, content.method_name, content.arg
        )
        self._server.subscriptions.open(subscription, query)
        if expires_ns != _NEVER_NS:
            self._server.end_at(subscription)

    def _read_request(self, content: QueryContent) -> EventRequest:
        """Read what is asked for; raise `Refusal` where it is not for this connection."""
        if content.method_name != EVENTS_METHOD:
            raise _bad(f"the signed query must be for {EVENTS_METHOD}, not for {content.method_name[:100]}")
        try:
            (request,) = _decode_request(content.arg)
        except DecodeError as error:
            raise _bad(f"the argument of {EVENTS_METHOD} is not what docs/events.md says: {error}") from None
        assert isinstance(request, EventRequest), "that is the type it was decoded by"
        if request.challenge != self._challenge:
            raise _bad("the challenge is not the one of this connection: sign the one that came first on it")
        if request.origin != self._origin:
            raise _bad(f"the origin is not this connection's, which is {self._origin!r}")
        if not 1 <= len(request.topics) <= EVENT_TOPICS_COUNT_MAX:
            raise _bad(f"name 1 to {EVENT_TOPICS_COUNT_MAX} topics, not {len(request.topics)}")
        if any(len(topic.encode()) > EVENT_TOPIC_SIZE_BYTES_MAX for topic in request.topics):
            raise _bad(f"no topic is longer than {EVENT_TOPIC_SIZE_BYTES_MAX} bytes")
        return request

    def _check_room(self, canister_id: bytes) -> None:
        if canister_id in self.subscriptions:
            name = Principal(canister_id)
            raise _bad(f"canister {name} is subscribed to already: unsubscribe first, then with all topics")
        reason = self._server.no_room(len(self.subscriptions))
        if reason is not None:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, reason)

    # --- time and closing

    def check_time(self, now_s: float) -> None:
        """Let go of a client that does not read, does not answer pings or subscribes to nothing."""
        quiet_s = self._server.quiet_s
        if self._protocol.state is not State.OPEN:
            if (now_s - self._since_s) * 1000 > GATEWAY_LINGER_MS_MAX:
                self._transport.abort()
        elif self._unread_since_s is not None:
            if (now_s - self._unread_since_s) * 1000 > GATEWAY_WRITE_IDLE_MS_MAX:
                self._transport.abort()
        elif now_s - self._heard_s > 3 * quiet_s:
            self._transport.abort()
        elif not self.subscriptions and now_s - self._bare_since_s > quiet_s:
            self.close(CloseCode.POLICY_VIOLATION, "nothing is subscribed to: connect when there is")
        elif now_s - max(self._since_s, self._heard_s) > quiet_s:
            self._since_s = now_s
            for subscription in self.subscriptions.values():
                self._server.subscriptions.tell_progress(subscription)
            self._protocol.send_ping(b"")
            self._let_out()

    def close(self, code: CloseCode, reason: str) -> None:
        """Say goodbye; the client has a moment to do so too."""
        if self._protocol.state is State.OPEN:
            self._since_s = self._server.loop.time()
            self._protocol.send_close(code, reason[:120])
            self._let_out()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _let_out(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
        if self._protocol.state is not State.OPEN:
            for subscription in list(self.subscriptions.values()):
                self._server.subscriptions.close(subscription)


def _bad(text: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, text)


def _expires_ns(envelope: Envelope) -> int:
    """Give when the first of the delegations ends; without any, the subscription lasts."""
    return min((signed.delegation.expiration_ns for signed in envelope.delegations), default=_NEVER_NS)
